"""Expressions on NumPy arrays, in closed operations: views, matrix products, entry-by-entry functions, reductions.

A sum of exponentials is carried as ``exp(m) * S`` with m the largest exponent: under a division or a logarithm only
differences from m are ever raised, so softmax and log-sum-exp stay finite as long as their results do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ..core import Array, FormulaError
from . import _access as access
from ._contract import BLOCK, Labelled, blocks, contract, take
from ._expr import (
    ONE,
    Apply,
    Compare,
    Delta,
    Expr,
    Index,
    Indices,
    Power,
    Range,
    Read,
    Reduce,
    Slope,
    Term,
    Value,
    Where,
    apart,
    exponential,
    key,
    ordered,
    positive,
)

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sign": np.sign,
    "relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "max": np.maximum,
    "min": np.minimum,
}
COMPARE: dict[str, Callable[..., Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _function(name: str) -> Callable[..., Any]:
    if name not in FUNCTIONS:
        from scipy import special

        FUNCTIONS["erf"] = special.erf
        FUNCTIONS["sigmoid"] = special.expit
        FUNCTIONS["gelu"] = lambda x: x * special.ndtr(x)
    return FUNCTIONS[name]


class SizeOfIndex(dict[Any, int]):
    """Sizes by index and by range."""

    def __missing__(self, index: Any) -> int:
        size = self[index] = self[index.range]
        return size

    def cut(self, index: Index, part: slice) -> SizeOfIndex:
        """The same sizes with a part of one index."""
        out = SizeOfIndex(self)
        out[index] = part.stop - part.start
        return out


@dataclass
class _Pieces:
    """One monomial: its number, its factors as arrays, its brackets as boolean ones."""

    coefficient: float
    operands: list[Labelled]
    masks: list[Labelled]
    divisors: list[Labelled] = field(default_factory=list)

    def cut(self, index: Index, part: slice) -> _Pieces:
        """A part of one index."""
        lists = (take(arrays, index, part) for arrays in (self.operands, self.masks, self.divisors))
        return _Pieces(self.coefficient, *lists)


class Evaluation:
    """The values of expressions for one set of arrays; what was computed once is found again.

    Args:
        arrays: tensors by name, leading axes made one.
        sizes: of every range.
        dtype: of the results.
    """

    def __init__(self, arrays: Mapping[str, Array], sizes: Mapping[Range, int], dtype: np.dtype[Any]) -> None:
        self.arrays = dict(arrays)
        self.size = SizeOfIndex(sizes)
        self.dtype = dtype
        self._known: dict[int, tuple[Any, Labelled]] = {}
        self._split: dict[int, tuple[Expr, Labelled, Labelled]] = {}

    # -- whole statements --------------------------------------------------------------------------------------------

    def value(self, body: Expr, left: Indices) -> Array:
        """An expression as an array of its own, with the axes of ``left``."""
        found, fresh = self._sum(body, left)
        shape = tuple(self.size[index] for index in left)
        array: Array = found.aligned(left)
        if fresh and array.shape == shape and array.flags.c_contiguous:
            return array
        return np.array(np.broadcast_to(array, shape), order="C")

    def scatter(self, term: Term, where: Read, target: Array | None) -> Array:
        """Add a monomial to the places of a tensor it is read from; ``target`` None is a tensor of zeros.

        The monomial's free indices are those of the places.
        """
        pieces = self._pieces(term)
        shape = tuple(self.size[Range(where.tensor, axis)] for axis in range(len(where.places)))
        whole = all(place.index is not None for place in where.places) and len(where.free) == len(where.places)
        if whole and tuple(self.size[index] for index in where.free) == shape:
            value, fresh = self._combine(pieces, term.bound, where.free)
            array = value.aligned(where.free)
            if target is not None:
                target += array
                return target
            fresh = fresh and array.shape == shape
            return array if fresh else np.array(np.broadcast_to(array, shape))
        if target is None:
            target = np.zeros(shape, self.dtype)
        index, step = self._scatter_block(where, target)
        if index is None:
            value, _ = self._combine(pieces, term.bound, where.free)
            access.add_at(target, where, value, self.size, self._gather)
            return target
        axis = next(axis for axis, place in enumerate(where.places) if place.index is index)
        for part in blocks(self.size[index], step):
            value, _ = self._combine(pieces.cut(index, part), term.bound, where.free)
            size = self.size.cut(index, part)
            access.add_at(target[(slice(None),) * axis + (part,)], where, value, size, self._gather)
        return target

    def _scatter_block(self, where: Read, target: Array) -> tuple[Index | None, int]:
        """An index to add along in blocks, where what is added is much larger than what it is added to."""
        count = math.prod(self.size[index] for index in where.free) * target.itemsize
        if count > max(BLOCK, 1.5 * target.nbytes) and not any(place.at.gathers for place in where.places):
            for place in where.places:
                index = place.index
                if index is not None and sum(index in other.at.free for other in where.places) == 1:
                    return index, max(1, BLOCK * self.size[index] // count)
        return None, 0

    # -- sums and monomials ------------------------------------------------------------------------------------------

    def expr(self, expr: Expr) -> Labelled:
        """The value of an expression, along its free indices."""
        return self._once(expr, lambda: self._sum(expr, expr.free)[0])

    def _once(self, node: Any, compute: Callable[[], Labelled]) -> Labelled:
        found = self._known.get(id(node))
        if found is None:
            found = self._known[id(node)] = (node, compute())  # the node is held, so its id stays its own
        return found[1]

    def _sum(self, expr: Expr, order: Indices) -> tuple[Labelled, bool]:
        """The sum of the terms, and whether its array is nobody else's."""
        if not expr.terms:
            return Labelled(np.zeros((), self.dtype), ()), True
        parts = [self._combine(self._pieces(term), term.bound, order) for term in expr.terms]
        if len(parts) == 1:
            return parts[0]
        used = {index for part, _ in parts for index in part.labels}
        labels = tuple(index for index in order if index in used)
        shape = tuple(self.size[index] for index in labels)
        (first, fresh), *others = parts
        total = first.aligned(labels)
        if not fresh or total.shape != shape:
            total = np.array(np.broadcast_to(total, shape))
        for part, _ in others:
            total += part.aligned(labels)
        return Labelled(total, labels), True

    def _combine(self, pieces: _Pieces, bound: Indices, order: Indices) -> tuple[Labelled, bool]:
        """The product of the pieces, summed over everything that ``order`` does not keep; and whether it is fresh."""
        pieces, after = self._divided(pieces, bound)
        operands = [*pieces.operands, *(Labelled(mask.astype(self.dtype), at) for mask, at in pieces.masks)]
        coefficient = pieces.coefficient
        present = {index for operand in operands for index in operand.labels}
        for index in bound:
            if index not in present and index not in order:
                coefficient *= self.size[index]
        if not operands:
            result, fresh = Labelled(np.asarray(coefficient, self.dtype), ()), True
            return (self._over(result, after), True) if after else (result, fresh)
        result = contract(operands, order)
        if pieces.masks and pieces.operands and not np.isfinite(result.array).all():
            result = self._guarded(pieces, order)
        fresh = len(operands) > 1 or set(result.labels) != set(operands[0].labels) or bool(pieces.masks)
        if coefficient != 1:
            result, fresh = Labelled(np.asarray(result.array * self.dtype.type(coefficient)), result.labels), True
        if after:
            return self._over(result, after), True
        return result, fresh and result.array is not operands[0].array

    def _divided(self, pieces: _Pieces, bound: Indices) -> tuple[_Pieces, list[Labelled]]:
        """The pieces without divisors, and the divisors that are left for the end.

        What no sum runs over divides the result, which rounds once; other divisors, and all beside a bracket, which
        may stand before a division by zero, become reciprocals.
        """
        if not pieces.divisors:
            return pieces, []
        after = [d for d in pieces.divisors if not pieces.masks and not set(d.labels) & set(bound)]
        others = [self._power(d, -ONE) for d in pieces.divisors if all(d is not left for left in after)]
        return _Pieces(pieces.coefficient, [*pieces.operands, *others], pieces.masks), after

    @staticmethod
    def _over(result: Labelled, divisors: Sequence[Labelled]) -> Labelled:
        for divisor in divisors:
            labels = ordered(result.labels, divisor.labels)
            result = Labelled(np.asarray(result.aligned(labels) / divisor.aligned(labels)), labels)
        return result

    def _guarded(self, pieces: _Pieces, order: Indices) -> Labelled:
        """A product in which a false bracket counts for nothing even beside an infinity: every entry written out."""
        labels = ordered(order, *(operand.labels for operand in (*pieces.operands, *pieces.masks)))
        present = {index for operand in (*pieces.operands, *pieces.masks) for index in operand.labels}
        labels = tuple(index for index in labels if index in present)
        kept = tuple(index for index in labels if index in order)
        if labels and math.prod(self._length(pieces, index) for index in labels) * self.dtype.itemsize > 16 * BLOCK:
            front = kept[0] if kept else labels[0]
            parts = []
            for part in blocks(self._length(pieces, front), 1):
                cut = _Pieces(1.0, take(pieces.operands, front, part), take(pieces.masks, front, part))
                parts.append(self._guarded_block(cut, labels, kept))
            return Labelled(np.concatenate(parts) if kept else np.sum(parts, axis=0, dtype=self.dtype), kept)
        return Labelled(self._guarded_block(pieces, labels, kept), kept)

    @staticmethod
    def _length(pieces: _Pieces, index: Index) -> int:
        owner = next(o for o in (*pieces.operands, *pieces.masks) if index in o.labels)
        return int(owner.array.shape[owner.labels.index(index)])

    def _guarded_block(self, pieces: _Pieces, labels: Indices, kept: Indices) -> Array:
        holds: Any = np.ones((), bool)
        for mask in pieces.masks:
            holds = holds & mask.aligned(labels)
        number: Any = np.ones((), self.dtype)
        for operand in pieces.operands:
            number = number * operand.aligned(labels)
        axes = tuple(i for i, index in enumerate(labels) if index not in kept)
        return np.asarray(np.where(holds, number, self.dtype.type(0)).sum(axis=axes, dtype=self.dtype))

    def _pieces(self, term: Term) -> _Pieces:
        """The factors of a monomial as arrays."""
        exponents: dict[int, tuple[Any, Fraction]] = {}
        for factor, exponent in term.factors:
            before = exponents.get(id(factor), (factor, Fraction(0)))[1]
            exponents[id(factor)] = (factor, before + exponent)
        pieces = _Pieces(_double(term.coefficient), [], [])
        raised: list[tuple[Expr, Fraction]] = []
        sums: list[tuple[Expr, Fraction]] = []
        for factor, exponent in exponents.values():
            match factor:
                case _ if exponent == 0 and not exponential(factor):
                    pieces.operands += [self._power(self.atom(factor), exponent)]
                case _ if exponent == 0:
                    continue
                case Apply(function="exp", arguments=(argument,)):
                    raised.append((argument, exponent))
                case Expr() if exponential(factor):
                    sums.append((factor, exponent))
                case Value() if exponent < 0 and (letter := factor.at.size) and self.atom(factor).array == 0:
                    raise FormulaError(
                        f"mean[{letter}] is over nothing: size({letter}) is 0, and something is divided by it"
                    )
                case Slope() if factor.of.kind != "prod":
                    share = self.atom(factor)
                    pieces.operands.append(share)
                    pieces.masks.append(Labelled(share.array != 0, share.labels))  # what is not chosen counts for 0
                case Compare() | Delta() if exponent > 0:
                    pieces.masks.append(self.atom(factor))
                case _ if exponent < 0:
                    pieces.divisors.append(self._power(self.atom(factor), -exponent))
                case _:
                    pieces.operands.append(self._power(self.atom(factor), exponent))
        if any(exponent < 0 or exponent.denominator > 1 for _, exponent in sums):
            pieces.operands += self._balanced(raised, sums)
        else:
            pieces.operands += [self._exp(self._scaled_by(self.expr(a), e)) for a, e in raised]
            pieces.operands += [self._power(self.expr(s), e) for s, e in sums]
        return pieces

    def _power(self, base: Labelled, exponent: Fraction) -> Labelled:
        array, labels = base
        array = self._floating(array)
        if exponent == 1:
            return Labelled(array, labels)
        if exponent == -1:
            return Labelled(self.dtype.type(1) / array, labels)
        if exponent == 2:
            return Labelled(array * array, labels)
        if exponent.denominator == 1 and 0 < abs(exponent) <= 4:
            out = array
            for _ in range(abs(int(exponent)) - 1):
                out = out * array
            return Labelled(out if exponent > 0 else self.dtype.type(1) / out, labels)
        if exponent == Fraction(1, 2):
            return Labelled(np.sqrt(array), labels)
        return Labelled(np.power(array, self.dtype.type(float(exponent))), labels)

    def _floating(self, array: Any) -> Any:
        return array if array.dtype == self.dtype else array.astype(self.dtype)

    # -- exponentials ------------------------------------------------------------------------------------------------

    def _balanced(
        self, raised: Sequence[tuple[Expr, Fraction]], sums: Sequence[tuple[Expr, Fraction]]
    ) -> list[Labelled]:
        """Exponentials beside powers of sums of exponentials: each sum's largest exponent m moves into an exponential.

        ``exp(a) / S`` with ``S = exp(m) S'`` becomes ``exp(a - m) / S'``.
        """
        out: list[Labelled] = []
        exponents = [(key(argument, _anywhere), self._scaled_by(self.expr(argument), e), e) for argument, e in raised]
        for expr, power in sums:
            top, mantissa = self.scaled(expr)
            out.append(self._power(mantissa, power))
            left = power
            alike = {key(argument, _anywhere) for argument in _arguments(expr)}
            fit = [i for i, (_, _, e) in enumerate(exponents) if (e > 0) != (power > 0)]
            covers = {i: set(top.labels) <= set(exponents[i][1].labels) for i in fit}
            fit = [i for i in fit if covers[i] or exponents[i][0] in alike]
            fit.sort(key=lambda i: (exponents[i][0] not in alike, not covers[i]))
            for i in fit:
                name, value, e = exponents[i]
                part = left if abs(left) <= abs(e) or i == fit[-1] else -e
                exponents[i] = (name, _plus(value, self._scaled_by(top, part)), e + part)
                left -= part
                if left == 0:
                    break
            if left != 0:
                exponents.append(("", self._scaled_by(top, left), Fraction(0)))
        together: dict[frozenset[Index], Labelled] = {}
        for _, value, _ in exponents:
            before = together.get(frozenset(value.labels))
            together[frozenset(value.labels)] = value if before is None else _plus(before, value)
        return out + [self._exp(value) for value in together.values()]

    def scaled(self, expr: Expr) -> tuple[Labelled, Labelled]:
        """A sum of exponentials as ``exp(m) * S``: m, the largest exponent at each entry, and S."""
        if (found := self._split.get(id(expr))) is not None:
            return found[1:]
        terms = []
        for term in expr.terms:
            exponent: Labelled | None = None
            rest, holds = list[tuple[Any, Fraction]](), list[Labelled]()
            mantissas: list[Labelled] = []
            for factor, power in term.factors:
                if isinstance(factor, Apply) and factor.function == "exp":
                    more = self._scaled_by(self.expr(factor.arguments[0]), power)
                    exponent = more if exponent is None else _plus(exponent, more)
                elif isinstance(factor, Expr) and exponential(factor):
                    inner_top, mantissa = self.scaled(factor)
                    more = self._scaled_by(inner_top, power)
                    exponent = more if exponent is None else _plus(exponent, more)
                    mantissas.append(self._power(mantissa, power))
                else:
                    rest.append((factor, power))
                    if isinstance(factor, Compare | Delta) and power > 0:
                        holds.append(self.atom(factor))
            if exponent is not None:
                exponent = self._only_where(holds, exponent)
            pieces = self._pieces(Term(term.coefficient, term.bound, tuple(rest)))
            pieces.operands += mantissas
            terms.append((term, exponent, pieces))
        tops = [self._top(exponent, expr.free) for _, exponent, _ in terms]
        labels = tuple(index for index in expr.free if any(index in top.labels for top in tops))
        top = tops[0].aligned(labels)
        for other in tops[1:]:
            top = np.maximum(top, other.aligned(labels))
        m = Labelled(np.where(np.isfinite(top), top, self.dtype.type(0)), labels)
        total: Labelled | None = None
        for term, exponent, pieces in terms:
            if exponent is None:
                exponent = Labelled(np.zeros((), self.dtype), ())
            pieces.operands.append(self._exp(_plus(exponent, Labelled(-m.array, m.labels))))
            part, _ = self._combine(pieces, term.bound, expr.free)
            total = part if total is None else _plus(total, part)
        assert total is not None
        self._split[id(expr)] = expr, m, total
        return m, total

    def _only_where(self, holds: Sequence[Labelled], exponent: Labelled) -> Labelled:
        """Exponents where brackets hold, -∞ elsewhere: what a bracket leaves out does not count as the largest."""
        labels = ordered(exponent.labels, *(mask.labels for mask in holds))
        array = exponent.aligned(labels)
        for mask in holds:
            array = np.where(mask.aligned(labels), array, self.dtype.type(-np.inf))
        return Labelled(array, labels)

    def _top(self, exponent: Labelled | None, free: Indices) -> Labelled:
        """The largest exponent of one term over its bound indices; a term without exponentials has 0."""
        if exponent is None:
            return Labelled(np.zeros((), self.dtype), ())
        axes = tuple(i for i, index in enumerate(exponent.labels) if index not in free)
        labels = tuple(index for index in exponent.labels if index in free)
        return Labelled(np.max(exponent.array, axis=axes, initial=-np.inf) if axes else exponent.array, labels)

    def _scaled_by(self, value: Labelled, factor: Fraction) -> Labelled:
        array = self._floating(value.array)
        return Labelled(array if factor == 1 else array * self.dtype.type(float(factor)), value.labels)

    @staticmethod
    def _exp(value: Labelled) -> Labelled:
        return Labelled(np.exp(value.array), value.labels)

    def _log(self, argument: Expr) -> Labelled:
        """The logarithm of sums and quotients of exponentials, without raising them."""
        if len(argument.terms) == 1 and not (term := apart(argument.terms[0])).bound:
            raised = [(f, e) for f, e in term.factors if isinstance(f, Apply) and f.function == "exp"]
            sums = [(f, e) for f, e in term.factors if isinstance(f, Expr) and exponential(f)]
            if (raised or sums) and all(positive(f) for f, _ in sums):
                parts = [self._scaled_by(self.expr(f.arguments[0]), e) for f, e in raised]
                parts += [self._scaled_by(self._log(f), e) for f, e in sums]
                taken = {id(f) for f, _ in (*raised, *sums)}
                rest = Term(term.coefficient, (), tuple((f, e) for f, e in term.factors if id(f) not in taken))
                if rest.factors or rest.coefficient != 1:
                    value, _ = self._combine(self._pieces(rest), (), rest.free)
                    parts.append(Labelled(np.log(value.array), value.labels))
                total = parts[0]
                for part in parts[1:]:
                    total = _plus(total, part)
                return total
        if exponential(argument):
            top, mantissa = self.scaled(argument)
            return _plus(top, Labelled(np.log(mantissa.array), mantissa.labels))
        value = self.expr(argument)
        return Labelled(np.log(self._floating(value.array)), value.labels)

    # -- atoms -------------------------------------------------------------------------------------------------------

    def atom(self, node: Any) -> Labelled:
        """The value of an atom, along its free indices."""
        return self._once(node, lambda: self._atom(node))

    def _atom(self, node: Any) -> Labelled:
        match node:
            case Expr():
                return self.expr(node)
            case Read():
                return access.read(self.arrays[node.tensor], node, self.size, self._gather)
            case Value():
                return access.integers(node.at, self.size, self._gather)
            case Apply(function="log"):
                return self._log(node.arguments[0])
            case Apply():
                values = [self.expr(argument) for argument in node.arguments]
                labels = ordered(*(value.labels for value in values))
                arrays = [self._floating(value.aligned(labels)) for value in values]
                return Labelled(_function(node.function)(*arrays), labels)
            case Compare():
                sides = [self._compared(node.left), self._compared(node.right)]
                labels = ordered(*(side.labels for side in sides))
                return Labelled(COMPARE[node.op](*(side.aligned(labels) for side in sides)), labels)
            case Delta():
                return self._delta(node)
            case Where():
                condition, yes, no = self.atom(node.condition), self.expr(node.yes), self.expr(node.no)
                labels = ordered(condition.labels, yes.labels, no.labels)
                chosen = np.where(
                    condition.aligned(labels), self._floating(yes.aligned(labels)), self._floating(no.aligned(labels))
                )
                return Labelled(chosen, labels)
            case Power():
                base, exponent = self.expr(node.base), self.expr(node.exponent)
                labels = ordered(base.labels, exponent.labels)
                arrays = [self._floating(side.aligned(labels)) for side in (base, exponent)]
                return Labelled(np.power(*arrays), labels)
            case Reduce():
                return self._reduce(node)
            case Slope():
                return self._slope(node)
        raise TypeError(node)

    def _gather(self, read: Read) -> Labelled:
        found = self.atom(read)
        return Labelled(found.array.astype(np.int64, copy=False), found.labels)

    def _compared(self, expr: Expr) -> Labelled:
        """A side of a comparison; integers are compared as integers."""
        if not expr.terms or any(t.bound or t.coefficient.denominator > 1 for t in expr.terms):
            return self.expr(expr)
        total: Labelled | None = None
        for term in expr.terms:
            part = Labelled(np.asarray(int(term.coefficient)), ())
            for factor, exponent in term.factors:
                if exponent != 1 or not isinstance(factor, Value | Read):
                    return self.expr(expr)
                value = self.atom(factor)
                if value.array.dtype.kind == "f":
                    return self.expr(expr)
                part = _times(part, Labelled(value.array.astype(np.int64, copy=False), value.labels))
            total = part if total is None else _plus(total, part)
        assert total is not None
        return total

    def _delta(self, node: Delta) -> Labelled:
        left = access.integers(node.left, self.size, self._gather)
        right = access.integers(node.place.at, self.size, self._gather)
        labels = ordered(left.labels, right.labels)
        position: Any = right.aligned(labels)
        if node.place.mode not in (None, "zero"):
            index = node.left.bare
            assert index is not None
            position = access.entry(str(node.place.mode), position, self.size[index])
        return Labelled(left.aligned(labels) == position, labels)

    def _along(self, node: Reduce) -> tuple[Array, Indices]:
        """The body of a reduction with the reduced indices last, made one axis; and the others."""
        body = self.expr(node.body)
        outer = node.free
        shape = [self.size[index] for index in (*outer, *node.bound)]
        array = np.broadcast_to(self._floating(body.aligned((*outer, *node.bound))), shape)
        return array.reshape(*shape[: len(outer)], math.prod(shape[len(outer) :])), outer

    def _reduce(self, node: Reduce) -> Labelled:
        array, outer = self._along(node)
        if node.kind == "prod":
            return Labelled(array.prod(axis=-1, dtype=self.dtype), outer)
        if array.shape[-1] == 0 and 0 not in array.shape[:-1]:
            letters = ",".join(index.letter for index in node.bound)
            raise FormulaError(f"{node.kind}[{letters}] is over nothing: there is no entry to take")
        if array.size == 0:
            return Labelled(np.empty(array.shape[:-1], self.dtype), outer)
        return Labelled(array.max(axis=-1) if node.kind == "max" else array.min(axis=-1), outer)

    def _slope(self, node: Slope) -> Labelled:
        array, outer = self._along(node.of)
        if node.of.kind == "prod":
            ones = np.ones((*array.shape[:-1], 1), self.dtype)
            below = np.concatenate([ones, np.cumprod(array[..., :-1], axis=-1)], axis=-1)
            above = np.concatenate([ones, np.cumprod(array[..., :0:-1], axis=-1)], axis=-1)[..., ::-1]
            out = (below * above)[..., : array.shape[-1]]
        else:
            best = self.atom(node.of).aligned(outer)
            chosen = array == best[..., None]
            out = chosen / chosen.sum(axis=-1, keepdims=True, dtype=self.dtype)
        shape = [self.size[index] for index in (*outer, *node.of.bound)]
        return Labelled(out.reshape(shape), (*outer, *node.of.bound))


def _double(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _plus(a: Labelled, b: Labelled) -> Labelled:
    labels = ordered(a.labels, b.labels)
    return Labelled(np.asarray(a.aligned(labels) + b.aligned(labels)), labels)


def _times(a: Labelled, b: Labelled) -> Labelled:
    labels = ordered(a.labels, b.labels)
    return Labelled(np.asarray(a.aligned(labels) * b.aligned(labels)), labels)


def _arguments(expr: Expr) -> Iterable[Expr]:
    """The exponents of a sum of exponentials."""
    for term in expr.terms:
        for factor, _ in term.factors:
            if isinstance(factor, Apply) and factor.function == "exp":
                yield factor.arguments[0]


def _anywhere(index: Index) -> str:
    """Every index by one name: ``exp(Z[n,m])`` is like the ``exp(Z[n,k])`` of a sum over k."""
    return ""
