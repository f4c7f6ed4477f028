"""Index notation by loops over every index: slow, obvious, exact in integers; it judges the derivations.

Of the algebra it shares the parser alone: scopes, ranges, values and derivatives are its own, read off the grammar.
Where that is silent: the sum of nothing is 0, its product 1, its maximum, minimum and mean are errors; positions that
would fix one index to different ranges contradict each other; an index that no access says the size of needs `sizes`.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..algebra import parse, tree
from ..core import Array, FormulaError
from ._duals import NO_SLOPES, Dual, Number, chain, extreme, function, over, times, to_the, total

Index: TypeAlias = tuple[int, ...]
Env: TypeAlias = Mapping[str, int]  # the indices that have a value


def evaluate(text: str, arrays: Mapping[str, ArrayLike], sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """The value of every statement by name, computed entry by entry.

    Args:
        text: statements in index notation.
        arrays: the inputs by name; others may be among them.
        sizes: sizes of indices, for every statement that uses the letter.

    Returns:
        float64 if an input is floating or a function leaves the rational numbers. Else exact: int64, or Python's
        integers and fractions in an object array.

    Raises:
        FormulaError: the formula cannot be read, or does not fit the arrays.
    """
    tensors, floating = _run(text, arrays, {}, sizes)
    return {name: _array(t.shape, [dual.value for dual in t.entries.values()], floating) for name, t in tensors.items()}


def derivative(
    text: str,
    arrays: Mapping[str, ArrayLike],
    wrt: str,
    dY: ArrayLike | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Array:
    """The gradient of ⟨dY, Y⟩ with respect to the input ``wrt``, in its shape; Y is the last statement, dY ones.

    Raises:
        FormulaError: as for `evaluate`; ``wrt`` is no input, or one that only chooses positions; dY is not like Y.
    """
    tensors, floating = _run(text, arrays, {wrt: lambda index: {index: 1}}, sizes)
    Y = list(tensors.values())[-1]
    weights = _tensor("dY", np.ones(Y.shape, int) if dY is None else dY)
    if weights.shape != Y.shape:
        raise FormulaError(f"dY has shape {weights.shape}, and the output {Y.shape}")
    gradient = chain(0, *((weights.entries[index].value, dual) for index, dual in Y.entries.items()))
    shape = np.shape(arrays[wrt])
    return _array(shape, [gradient.slopes.get(index, 0) for index in np.ndindex(shape)], floating or _is_floating(dY))


def tangent(
    text: str,
    arrays: Mapping[str, ArrayLike],
    tangents: Mapping[str, ArrayLike],
    sizes: Mapping[str, int] | None = None,
) -> Array:
    """The derivative of the last statement along ``tangents``, one array in the shape of each input that moves.

    Raises:
        FormulaError: as for `derivative`; a tangent is not like its input.
    """
    steps = {name: _tensor(name, step) for name, step in tangents.items()}
    for name, step in steps.items():
        if name in arrays and step.shape != np.shape(arrays[name]):
            raise FormulaError(f"the tangent of {name} has shape {step.shape}, and {name} {np.shape(arrays[name])}")
    # What does not move has no slope: the derivative there may be infinite.
    seeds = {
        name: lambda index, d=step.entries: {0: d[index].value} if d[index].value else {}
        for name, step in steps.items()
    }
    tensors, floating = _run(text, arrays, seeds, sizes)
    Y = list(tensors.values())[-1]
    slopes = [dual.slopes.get(0, 0) for dual in Y.entries.values()]
    return _array(Y.shape, slopes, floating or any(map(_is_floating, tangents.values())))


class _Tensor(NamedTuple):
    shape: Index
    entries: dict[Index, Dual]  # in the order of the axes


def _bounded(mode: str, at: int, size: int) -> int | None:
    """Where a boundary mode reads an axis of at least one entry; None for the zero outside."""
    match mode:
        case "clamp":
            return min(max(at, 0), size - 1)
        case "wrap":
            return at % size
        case "mirror":  # 0 1 2 2 1 0 0 1 2 ...
            at %= 2 * size
            return min(at, 2 * size - 1 - at)
        case "reflect":  # 0 1 2 1 0 1 2 ...
            at %= max(1, 2 * size - 2)
            return min(at, 2 * size - 2 - at)
    return at if 0 <= at < size else None  # zero


# From arrays and back


def _is_floating(array: Any) -> bool:
    return np.asarray(array).dtype.kind == "f"


def _tensor(name: str, array: ArrayLike, slopes: Callable[[Index], Mapping[Any, Number]] | None = None) -> _Tensor:
    """An input as Python's numbers, with the seeds that move its entries."""
    a = np.asarray(array)
    if a.dtype.kind not in "fiubO":
        raise FormulaError(f"{name} has dtype {a.dtype}, which no formula reads")
    numbers: Any = a.astype({"f": np.float64, "b": np.int64}.get(a.dtype.kind, a.dtype)).astype(object)
    if not all(isinstance(number, int | Fraction | float) for number in numbers.flat):
        raise FormulaError(f"{name} has entries that are neither int, Fraction nor float")
    return _Tensor(a.shape, {i: Dual(numbers[i], slopes(i) if slopes else NO_SLOPES) for i in np.ndindex(a.shape)})


def _array(shape: Index, numbers: list[Number], floating: bool) -> Array:
    """Numbers as an array: float64 if one is or ``floating``, else int64 if they fit, else as objects."""
    if floating or any(isinstance(number, float) for number in numbers):
        return np.array([float(number) for number in numbers], np.float64).reshape(shape)
    whole = [int(number) if number == int(number) else number for number in numbers]
    if all(isinstance(number, int) and -(2**63) <= number < 2**63 for number in whole):
        return np.array(whole, np.int64).reshape(shape)
    objects = np.empty(len(whole), object)
    objects[:] = whole
    return objects.reshape(shape)


def _run(
    text: str,
    arrays: Mapping[str, ArrayLike],
    seeds: Mapping[str, Callable[[Index], Mapping[Any, Number]]],
    sizes: Mapping[str, int] | None,
) -> tuple[dict[str, _Tensor], bool]:
    """Every statement's value with its derivatives, and whether an input that the formula names is floating."""
    formula = parse(text)
    nodes = [found for statement in formula.statements for found in _walk(statement.body)]
    integers = {node.name for node, inside in nodes if inside and isinstance(node, tree.Access)}
    named = {node.name for node, _ in nodes if isinstance(node, tree.Access | tree.Name)}
    assigned = {statement.name for statement in formula.statements}
    for name in seeds:
        if name not in arrays or name in assigned:
            raise FormulaError(f"{name} is no input")
        if name in integers:
            raise FormulaError(f"{name} stands in index positions: it is an integer input, which has no derivative")
    known = {name: _tensor(name, a, seeds.get(name)) for name, a in arrays.items() if name in named - assigned}
    for name in integers:
        if name in assigned or any(
            type(dual.value) is not int for dual in known.get(name, _Tensor((), {})).entries.values()
        ):
            raise FormulaError(f"{name} stands in index positions, so it must be an input of integers")
    values: dict[str, _Tensor] = {}
    with np.errstate(all="ignore"):
        for statement in formula.statements:
            values[statement.name] = _Statement(text, statement, {**known, **values}, sizes or {}).tensor()
    return values, any(_is_floating(arrays[name]) for name in known)


# One statement


def _children(node: tree.Node) -> tuple[tree.Node, ...]:
    match node:
        case tree.Access():
            return node.places
        case tree.Mode():
            return (node.position,)
        case tree.Call():
            return node.arguments
        case tree.Reduce():
            return (node.body,)
        case tree.Negative():
            return (node.operand,)
        case tree.Power():
            return (node.base, node.exponent)
        case tree.Product():
            return tuple(factor.node for factor in node.factors)
        case tree.Sum():
            return tuple(term.node for term in node.terms)
        case tree.Compare():
            return (node.left, node.right)
        case tree.Bracket():
            return (node.condition,)
    return ()


def _walk(node: tree.Node, inside: bool = False) -> Iterator[tuple[tree.Node, bool]]:
    """A node and all below it, each with whether it stands inside an index position."""
    yield node, inside
    for child in _children(node):
        yield from _walk(child, inside or isinstance(node, tree.Access | tree.Mode))


class _Part(NamedTuple):
    """What a part of an expression leaves to what stands around it."""

    counts: Mapping[str, int]  # each index that nothing has bound yet, and how often it counts in a product
    summed: frozenset[str]  # the indices that are summed somewhere inside without a reduction


class _Place(NamedTuple):
    """One index position of an access."""

    access: tree.Access
    size: int  # of the axis
    mode: str  # "" without a boundary mode
    position: tree.Node


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class _Statement:
    """One statement over known tensors: scope, ranges and bounds are settled when it is made, `tensor` computes."""

    def __init__(
        self, text: str, statement: tree.Statement, tensors: Mapping[str, _Tensor], sizes: Mapping[str, int]
    ) -> None:
        self.text, self.statement, self.body, self.tensors = text, statement, statement.body, tensors
        self.nodes = list(_walk(self.body))
        self.accesses = [node for node, _ in self.nodes if isinstance(node, tree.Access)]
        self.leading = self._leading_axes()
        self.left = self._spread(index.name for index in statement.indices)
        self.letters = self._indices()
        for node, _ in self.nodes:
            if isinstance(node, tree.Name) and node.name not in self.letters:
                self._scalar(node)
        self.sums: dict[int, tuple[str, ...]] = {}  # what a product sums over, by the identity of its node
        once = self._product(self.body, frozenset(self.left)).counts
        if once:
            letter = min(once)
            raise self._error(f"{letter} is neither on the left nor bound, and occurs once: say sum[{letter}](...)")
        self.ranges: dict[str, int] = {letter: sizes[letter] for letter in self.letters if letter in sizes}
        self._infer_ranges()
        for access in self.accesses:  # also those that a guard rules out
            for env in self._loop(self._letters_in(access), {}):
                self._index(access, env)

    def tensor(self) -> _Tensor:
        shape = tuple(self.ranges[letter] for letter in self.left)
        entries = {tuple(env[letter] for letter in self.left): env for env in self._loop(self.left, {})}
        return _Tensor(shape, {index: self._value(self.body, env) for index, env in entries.items()})

    def _error(self, fact: str, *nodes: tree.Node) -> FormulaError:
        read = [f"    {self.text[node.span.start : node.span.end]}" for node in nodes]
        return FormulaError("\n".join([f"{self.statement.name}: {fact}", *read]))

    def _loop(self, letters: Iterable[str], env: Env) -> Iterator[Env]:
        """``env`` with every assignment of the letters, the last one running fastest."""
        letters = list(letters)
        for values in itertools.product(*(range(self.ranges[letter]) for letter in letters)):
            yield {**env, **dict(zip(letters, values, strict=True))}

    # Names

    def _leading_axes(self) -> list[str]:
        """An index for each axis that ``...`` stands for; every access has as many places as its tensor has axes."""
        numbers: dict[int, tree.Access] = {}
        for access in self.accesses:
            if access.name not in self.tensors:
                raise self._error(f"{access.name} is neither an input nor an earlier statement", access)
            shape = self.tensors[access.name].shape
            leads = any(isinstance(place, tree.Leading) for place in access.places)
            more = len(shape) - len(access.places) + leads
            if more < 0 or (more and not leads):
                raise self._error(f"{access.name} has shape {shape}", access)
            if leads:
                numbers[more] = access
        lists = [[index.name for index in self.statement.indices]]
        lists += [list(node.indices) for node, _ in self.nodes if isinstance(node, tree.Reduce)]
        if len(numbers) > 1 or (not numbers and any(tree.LEADING in indices for indices in lists)):
            says = " and ".join(f"{number} axes" for number in numbers) or "axes that no access names"
            raise self._error(f"{tree.LEADING} stands for {says}", *numbers.values())
        return [f"{tree.LEADING}{axis}" for number in numbers for axis in range(number)]

    def _spread(self, indices: Iterable[str]) -> list[str]:
        """``...`` becomes the indices that it stands for."""
        return [letter for index in indices for letter in (self.leading if index == tree.LEADING else [index])]

    def _places(self, access: tree.Access) -> list[tree.Node]:
        """The index positions, one for each axis."""
        leading: list[tree.Node] = [tree.Name(access.span, letter) for letter in self.leading]
        return [p for place in access.places for p in (leading if isinstance(place, tree.Leading) else [place])]

    def _indices(self) -> list[str]:
        """All indices. A name is one if it stands in an index position, or facing one, is reduced over or sized."""
        found = set(self.left)
        for node, inside in self.nodes:
            match node:
                case tree.Name() if inside:
                    found.add(node.name)
                case tree.Leading():
                    found.update(self.leading)
                case tree.Reduce():
                    found.update(self._spread(node.indices))
                case tree.Size():
                    found.add(node.index)
                case tree.Compare(left=tree.Mode(), right=tree.Name() as facing):
                    found.add(facing.name)
                case tree.Compare(left=tree.Name() as facing, right=tree.Mode()):
                    found.add(facing.name)
        return sorted(found)

    def _letters_in(self, node: tree.Node) -> list[str]:
        """The indices whose values a position, or an access with all its positions, depends on."""
        nodes = [below for below, _ in _walk(node)]
        names = {below.name for below in nodes if isinstance(below, tree.Name)}
        return sorted(names.union(*(self.leading for below in nodes if isinstance(below, tree.Leading))))

    # Scope: Einstein's sums, made strict

    def _product(self, node: tree.Node, bound: frozenset[str]) -> _Part:
        """A product of its own: what counts twice in it is summed over it."""
        factors = _children(node) if isinstance(node, tree.Product) else (node,)
        parts = [self._factor(factor, bound) for factor in factors]
        both = self._side_by_side(node, parts)
        here = {letter for letter in both.counts if sum(part.counts.get(letter, 0) for part in parts) > 1}
        if here:
            self.sums[id(node)] = tuple(sorted(here))
        return _Part({letter: 1 for letter in both.counts if letter not in here}, both.summed | here)

    def _side_by_side(self, node: tree.Node, parts: list[_Part]) -> _Part:
        """All parts as one factor, in which each index counts once."""
        for one, other in itertools.permutations(parts, 2):
            for letter in sorted(one.summed & other.counts.keys()):
                raise self._error(f"{letter} is summed in one part and stands in another: say sum[{letter}](...)", node)
        counts = {letter: 1 for part in parts for letter in part.counts}
        return _Part(counts, frozenset().union(*(part.summed for part in parts)))

    def _factor(self, node: tree.Node, bound: frozenset[str]) -> _Part:
        match node:
            case tree.Product():  # in parentheses
                return self._product(node, bound)
            case tree.Negative():
                return self._factor(node.operand, bound)
            case tree.Reduce():
                return self._product(node.body, bound | frozenset(self._spread(node.indices)))
            case tree.Access():
                bare = Counter(place.name for place in self._places(node) if isinstance(place, tree.Name))
                loose = [letter for letter in self._letters_in(node) if letter not in bound]
                if set(loose) & set(self.leading):
                    raise self._error("... stands on the left, or is reduced over by sum[...](...)", node)
                return _Part({letter: max(1, bare[letter]) for letter in loose}, frozenset())
            case tree.Mode():
                return _Part({letter: 1 for letter in self._letters_in(node) if letter not in bound}, frozenset())
            case tree.Name():
                return _Part(
                    {node.name: 1} if node.name in self.letters and node.name not in bound else {}, frozenset()
                )
        parts = [self._product(child, bound) for child in _children(node)]
        if isinstance(node, tree.Power):
            for child, part in zip(_children(node), parts, strict=True):
                while isinstance(child, tree.Negative):
                    child = child.operand
                if isinstance(child, tree.Access) and part.summed:
                    letter = min(part.summed)
                    raise self._error(
                        f"{letter} could be summed inside the power or outside: say sum[{letter}](...)", node
                    )
        return self._side_by_side(node, parts)

    # Ranges

    def _infer_ranges(self) -> None:
        places = [
            _Place(access, size, place.mode, place.position)
            if isinstance(place, tree.Mode)
            else _Place(access, size, "", place)
            for access in self.accesses
            for place, size in zip(self._places(access), self.tensors[access.name].shape, strict=True)
        ]
        bare = [place for place in places if not place.mode and isinstance(place.position, tree.Name)]
        plain = [place for place in places if not place.mode]
        zero = [place for place in places if place.mode == "zero"]
        while any(letter not in self.ranges for letter in self.letters):
            found = self._fixed_by(bare) or self._fixed_by(plain) or self._fixed_by(zero)
            if not found:
                unknown = [letter for letter in self.letters if letter not in self.ranges]
                unsettled = [
                    place.access for place in places if not set(unknown).isdisjoint(self._open(place.position))
                ]
                raise self._error(f"no size follows for {', '.join(unknown)}: give sizes", *unsettled)
            self.ranges.update(found)

    def _open(self, position: tree.Node) -> set[str]:
        """The indices of a position, also those it takes the size of, that have no range yet."""
        sized = {node.index for node, _ in _walk(position) if isinstance(node, tree.Size)}
        return sized.union(self._letters_in(position)).difference(self.ranges)

    def _fixed_by(self, places: list[_Place]) -> dict[str, int]:
        """The ranges that follow from places with one index left to fix; two places must say the same."""
        found: dict[str, tuple[int, _Place]] = {}
        for place in places:
            for letter, size in self._largest(place).items():
                other, source = found.setdefault(letter, (size, place))
                if other != size:
                    fact = f"the size of {letter} would be {other} by one access and {size} by another; give sizes"
                    raise self._error(fact, source.access, place.access)
        return {letter: size for letter, (size, _) in found.items()}

    def _largest(self, place: _Place) -> dict[str, int]:
        """The one index left to fix, with the largest range whose every read is in bounds; {} if there is none.

        Under zero() the end that grows may be left as far as the other end is anyhow.
        """
        nodes = list(_walk(place.position))
        open_ = self._open(place.position)
        letter = min(open_, default="")
        stands = [deep for node, deep in nodes if isinstance(node, tree.Name) and node.name == letter]
        sized = any(isinstance(node, tree.Size) and node.index == letter for node, _ in nodes)
        if len(open_) != 1 or not stands or any(stands) or (sized and place.mode):
            return {}
        others = [name for name in self._letters_in(place.position) if name != letter]

        def reads(size: int) -> list[int]:
            self.ranges[letter] = size
            found = [self._integer(place.position, env) for env in self._loop([*others, letter], {})]
            del self.ranges[letter]
            return found

        if not reads(1):
            raise self._error(f"nothing is read here, so the size of {letter} is open: give sizes", place.access)
        first, second = reads(2)[:2]
        if first == second:
            return {}
        last = place.size - 1
        slack = 0  # how far the end that does not grow lies outside
        if place.mode:
            slack = max(0, -min(reads(1)) if first < second else max(reads(1)) - last)
        sizes = range(1, place.size + 2 * slack + 1)  # at least one position for each further index
        fitting = [size for size in sizes if all(-slack <= read <= last + slack for read in reads(size))]
        return {letter: max(fitting, default=0)}

    # Reads

    def _integer(self, node: tree.Node, env: Env) -> int:
        """The value of an integer-affine position."""
        match node:
            case tree.Number() if node.value.denominator == 1:
                return int(node.value)
            case tree.Name():
                return env[node.name]
            case tree.Size():
                return self.ranges[node.index]
            case tree.Access():
                return int(self._read(node, env).value)
            case tree.Negative():
                return -self._integer(node.operand, env)
            case tree.Sum():
                return sum((-1 if minus else 1) * self._integer(term, env) for term, minus in node.terms)
            case tree.Product() if not any(divides for _, divides in node.factors):
                vary = [f for f, _ in node.factors if any(isinstance(n, tree.Name | tree.Access) for n, _ in _walk(f))]
                if len(vary) < 2:
                    return math.prod(self._integer(factor, env) for factor, _ in node.factors)
        raise self._error("an index position is an integer-affine expression", node)

    def _index(self, access: tree.Access, env: Env) -> Index | None:
        """The entry that an access reads; None for the zero outside."""
        found: list[int | None] = []
        for place, size in zip(self._places(access), self.tensors[access.name].shape, strict=True):
            mode, position = (place.mode, place.position) if isinstance(place, tree.Mode) else ("", place)
            at = self._integer(position, env)
            if mode != "zero" and (size == 0 or (not mode and not 0 <= at < size)):
                raise self._error(f"position {at} is outside an axis of {access.name} with {size} entries", access)
            found.append(_bounded(mode, at, size) if mode else at)
        return None if None in found else tuple(at for at in found if at is not None)

    def _read(self, access: tree.Access, env: Env) -> Dual:
        index = self._index(access, env)
        return Dual(0) if index is None else self.tensors[access.name].entries[index]

    # Values

    def _value(self, node: tree.Node, env: Env) -> Dual:
        """The value under ``env``, with the sum that the scope puts before a product."""
        if id(node) in self.sums:
            return total(self._term(node, at) for at in self._loop(self.sums[id(node)], env))
        return self._term(node, env)

    def _term(self, node: tree.Node, env: Env) -> Dual:
        match node:
            case tree.Number():
                return Dual(node.value)
            case tree.Name():
                return Dual(env[node.name]) if node.name in self.letters else self._scalar(node)
            case tree.Size():
                return Dual(self.ranges[node.index])
            case tree.Access():
                return self._read(node, env)
            case tree.Negative():
                return times(Dual(-1), self._value(node.operand, env))
            case tree.Sum():
                return total(times(Dual(-1 if minus else 1), self._value(term, env)) for term, minus in node.terms)
            case tree.Product():
                if self._ruled_out(node, env):
                    return Dual(0)
                product = Dual(1)
                for factor, divides in node.factors:
                    product = (over if divides else times)(product, self._value(factor, env))
                return product
            case tree.Power():
                return to_the(self._value(node.base, env), self._value(node.exponent, env))
            case tree.Bracket():
                return Dual(int(self._holds(node.condition, env)))
            case tree.Reduce():
                return self._reduction(
                    node, [self._value(node.body, at) for at in self._loop(self._spread(node.indices), env)]
                )
            case tree.Call():
                return self._call(node, env)
        raise self._error("this has no value", node)

    def _scalar(self, node: tree.Name) -> Dual:
        if node.name not in self.tensors or self.tensors[node.name].shape:
            raise self._error(f"{node.name} is neither an index nor a scalar", node)
        return self.tensors[node.name].entries[()]

    def _ruled_out(self, product: tree.Product, env: Env) -> bool:
        """Whether a false bracket makes the product zero, whatever stands beside it; parentheses do not shield that."""
        for factor, divides in product.factors:
            while isinstance(factor, tree.Negative):
                factor = factor.operand
            match factor:
                case tree.Bracket() if not divides and not self._holds(factor.condition, env):
                    return True
                case tree.Product() if not divides and id(factor) not in self.sums and self._ruled_out(factor, env):
                    return True
        return False

    def _holds(self, condition: tree.Compare, env: Env) -> bool:
        left, right = condition.left, condition.right
        for mode, facing in ((left, right), (right, left)):
            if isinstance(mode, tree.Mode):
                if condition.op != "==" or not isinstance(facing, tree.Name):
                    raise self._error("a boundary mode faces a bare index, under ==", condition)
                at = _bounded(mode.mode, self._integer(mode.position, env), self.ranges[facing.name])
                return env[facing.name] == at
        return COMPARE[condition.op](self._value(left, env).value, self._value(right, env).value)

    def _reduction(self, node: tree.Reduce, parts: list[Dual]) -> Dual:
        match node.kind:
            case "sum":
                return total(parts)
            case "prod":
                return functools.reduce(times, parts, Dual(1))
        if not parts:
            raise self._error(f"the {node.kind} of nothing", node)
        return over(total(parts), Dual(len(parts))) if node.kind == "mean" else extreme(node.kind, parts)

    def _call(self, node: tree.Call, env: Env) -> Dual:
        if node.function == "where":
            condition, yes, no = node.arguments
            if not isinstance(condition, tree.Compare):
                raise self._error("where(condition, a, b)", node)
            return self._value(yes if self._holds(condition, env) else no, env)
        parts = [self._value(argument, env) for argument in node.arguments]
        if len(parts) == 1:
            return function(node.function, parts[0])
        for argument, other in zip(node.arguments, reversed(parts), strict=True):
            if node.function == "max" and isinstance(argument, tree.Number) and argument.value == 0:
                return function("relu", other)
        return extreme(node.function, parts)
