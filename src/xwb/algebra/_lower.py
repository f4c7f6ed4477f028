"""From a schedule to a program of array operations, the same for every backend.

Products go in the cheapest order and through matrix products; what two lines compute is computed once; exponentials
beside sums of exponentials are carried as ``exp(m) * S`` as in `_evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from ._contract import plan
from ._convolve import Convolution
from ._derivation import Derivation
from ._evaluate import _anywhere, _arguments, _double
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
from ._graph import Graph, Node, entries
from ._reading import Labelled, Places, aligned
from ._schedule import Assign, Line, Scatter, Schedule, schedule
from ._shapes import SizeTable

# Functions whose values and whose arguments' zeros do no harm behind a bracket that does not hold.
BOUNDED = {"tanh", "sigmoid", "sin", "cos", "sign", "erf", "relu", "abs", "max", "min"}


class Part(NamedTuple):
    """A factor of a product, or with ``inverse`` a divisor."""

    value: Labelled
    inverse: bool = False
    safe: bool = False
    """Whether it is finite wherever the inputs are."""
    read: Read | None = None
    """The read that it is, not done yet where it goes by windows."""


@dataclass
class _Pieces:
    """One monomial: its number, its factors, its brackets."""

    coefficient: Fraction
    parts: list[Part]
    masks: list[Labelled]
    sizes: list[tuple[Node, Fraction]] = field(default_factory=list)


class Named(NamedTuple):
    """A value that a program names: its name, the formula's indices, its node, and the line it comes from."""

    name: str
    left: Indices
    node: Node
    line: Line


@dataclass
class Lowered:
    """The named values of forward and of backward, in order."""

    derivation: Derivation
    graph: Graph
    table: SizeTable
    forward: list[Named]
    backward: list[Named]
    grads: dict[str, Node]
    inputs: dict[str, Node]
    cotangent: Node


def lower(derivation: Derivation, sizes: Mapping[str, int]) -> Lowered:
    """The program of one derivation; ``sizes`` by letter choose the order of products alone."""
    table = SizeTable(derivation.program, sizes)
    return _Lowering(derivation, table).run(schedule(derivation))


class _Lowering:
    def __init__(self, derivation: Derivation, table: SizeTable) -> None:
        self.derivation = derivation
        self.table = table
        self.graph = Graph(table)
        self.places = Places(self.graph, table, self._gather)
        self.arrays: dict[str, Node] = {}
        self._known: dict[int, tuple[Any, Labelled]] = {}
        self._split: dict[int, tuple[Expr, Labelled, Labelled]] = {}
        self.size = _Hints(table)

    def run(self, lines: Schedule) -> Lowered:
        derivation, program, graph = self.derivation, self.derivation.program, self.graph
        for name in program.inputs:
            axes = [self.table.dim(Range(name, axis)) for axis in range(program.ranks[name])]
            kind = "int" if name in program.integers else "any" if name in program.compared else "float"
            self.arrays[name] = graph.node("input", (), (name,), axes, kind)
        inputs = dict(self.arrays)
        forward = [self._assign(line) for line in lines.forward]
        output = program.output
        cotangent = graph.node("input", (), (f"d{output.name}",), self.table.shape(output.left), "float")
        self.arrays[f"d{output.name}"] = cotangent
        backward: list[Named] = []
        for line in lines.backward:
            if isinstance(line, Assign):
                backward.append(self._assign(line))
                if backward[-1].node.op == "zeros":
                    self.arrays[line.name] = graph.const(0)
            else:
                before = self.arrays.get(line.name)
                shape = tuple(self.table.dim(Range(line.where.tensor, a)) for a in range(len(line.where.places)))
                spread = self._spread(line, shape)
                if spread is not None:
                    node = spread if before is None or before.host else graph.binary("add", before, spread)
                    self.arrays[line.name] = node
                    backward.append(Named(line.name, (), node, line))
                    continue
                term = Term(abs(line.term.coefficient), line.term.bound, line.term.factors)
                value = self._combine(self._pieces(term), term.bound, line.where.free)
                if line.term.coefficient < 0:
                    value = Labelled(graph.unary("neg", value.node), value.labels)
                target = graph.zeros(shape) if before is None or before.host else before
                zero = value.node.value == 0
                node = target if zero else self.places.add(target, line.where, value)
                self.arrays[line.name] = node
                if zero:
                    continue
                backward.append(Named(line.name, (), node, line))
        grads = {}
        for name in derivation.differentiable:
            found = self.arrays.get(f"d{name}")
            grads[name] = graph.zeros(inputs[name].shape) if found is None or found.host else found
        return Lowered(derivation, graph, self.table, forward, backward, grads, inputs, cotangent)

    def _assign(self, line: Assign) -> Named:
        self.table.define(line.name, line.left)
        found = self._sum(line.body, line.left)
        node = self.graph.full(aligned(self.graph, found, line.left), self.table.shape(line.left))
        self.arrays[line.name] = node
        return Named(line.name, line.left, node, line)

    # -- sums and monomials ------------------------------------------------------------------------------------------

    def expr(self, expr: Expr) -> Labelled:
        """The value of an expression, along its free indices."""
        return self._once(expr, lambda: self._sum(expr, expr.free))

    def _once(self, node: Any, compute: Callable[[], Labelled]) -> Labelled:
        found = self._known.get(id(node))
        if found is None:
            found = self._known[id(node)] = (node, compute())
        return found[1]

    def _binary(self, op: str, a: Labelled, b: Labelled, order: Indices = ()) -> Labelled:
        labels = _in_order(ordered(a.labels, b.labels), order)
        for side in (b, a):  # as an operand lies, where that has all axes: nothing is turned, and it is found again
            labels = side.labels if set(side.labels) == set(labels) else labels
        return Labelled(self.graph.binary(op, aligned(self.graph, a, labels), aligned(self.graph, b, labels)), labels)

    def _sum(self, expr: Expr, order: Indices) -> Labelled:
        """The sum of the terms; the narrow ones are added up first."""
        if not expr.terms:
            return Labelled(self.graph.const(0), ())
        parts = []
        for term in expr.terms:
            value = self._combine(
                self._pieces(Term(abs(term.coefficient), term.bound, term.factors)), term.bound, order
            )
            parts.append((value, term.coefficient < 0))
        widest = max(len(value.labels) for value, _ in parts)
        parts.sort(key=lambda part: part[1] and len(part[0].labels) == widest)
        total, minus = parts[0]
        for value, negative in parts[1:]:
            if minus and not negative:
                total, minus = self._binary("sub", value, total, order), False
            else:
                total = self._binary("add" if minus == negative else "sub", total, value, order)
        return Labelled(self.graph.unary("neg", total.node), total.labels) if minus else total

    def _combine(self, pieces: _Pieces, bound: Indices, order: Indices) -> Labelled:
        """The product of the pieces, summed over everything that ``order`` does not keep."""
        graph = self.graph
        parts = list(pieces.parts)
        present = {i for part in parts for i in part.value.labels} | {i for mask in pieces.masks for i in mask.labels}
        above: list[Node] = [n for n, e in pieces.sizes for _ in range(max(0, int(e)))]
        below: list[Node] = [n for n, e in pieces.sizes for _ in range(max(0, -int(e)))]
        above += [graph.size(self.table[index]) for index in bound if index not in present and index not in order]
        number = pieces.coefficient
        if number.denominator != 1 and not _decimal(number):
            below.insert(0, graph.const(number.denominator))
            number = Fraction(number.numerator)
        if number != 1:
            above.insert(0, graph.const(number if abs(number) < 10**300 else _double(number)))
        hosts = [part for part in parts if part.value.node.host]
        if any(part.value.node.value == 0 and not part.inverse for part in hosts):
            return Labelled(graph.const(0), ())
        parts = [part for part in parts if not part.value.node.host]
        above += [part.value.node for part in hosts if not part.inverse]
        below += [part.value.node for part in hosts if part.inverse]
        summed = {index for index in present if index not in order}
        masked = self._masked(parts, pieces.masks, summed)
        if masked is None:
            return self._scaled(self._guarded(pieces, order), above, below)
        one = Labelled(graph.const(1), ())
        parts = [
            Part(self._binary("div", one, part.value)) if part.inverse and set(part.value.labels) & summed else part
            for part in masked
        ]
        if not parts:
            return self._scaled(Labelled(graph.const(1), ()), above, below)
        masks = pieces.masks if not summed else []
        windows = self._convolved(parts, order) if not pieces.masks else None
        if windows is None:
            if above or below:
                self._scale_smallest(parts, above, below, order)
            result = self._contract(parts, order)
        else:
            result = windows
        result = self._scaled(result, above, below)
        return self._chosen(masks, result, order)

    def _convolved(self, parts: Sequence[Part], order: Indices) -> Labelled | None:
        """The product of an array read in windows and one other, where it is a convolution or the gradient of K."""
        if len(parts) != 2 or any(part.inverse for part in parts):
            return None
        for one, other in (parts, parts[::-1]):
            read = one.read
            if read is None or all(place.index is not None for place in read.places):
                continue
            X = self.arrays[read.tensor]
            if X.host or X.kind != "float":
                continue
            kept = tuple(i for i in ordered(one.value.labels, other.value.labels) if i in order)
            forward = Convolution(self.graph, self.table, read, X.shape, kept, other.value.labels)
            weight = Convolution(self.graph, self.table, read, X.shape, other.value.labels, kept)
            if forward.fits and (forward.likely or not weight.fits):
                return forward.forward(X, other.value)
            if weight.fits:
                return weight.weight(X, other.value)
        return None

    def _spread(self, line: Scatter, shape: tuple[Any, ...]) -> Node | None:
        """What a line adds to its tensor, where that is the gradient of what a convolution reads."""
        term = Term(abs(line.term.coefficient), line.term.bound, line.term.factors)
        if all(place.index is not None for place in line.where.places) or len(term.factors) != 2:
            return None
        pieces = self._pieces(term)
        if len(pieces.parts) != 2 or pieces.masks or pieces.sizes or any(p.inverse for p in pieces.parts):
            return None
        if any(part.value.node.host for part in pieces.parts):
            return None
        pairs = [(D.value, K.value) for D, K in (pieces.parts, pieces.parts[::-1])]
        found = [Convolution(self.graph, self.table, line.where, shape, D.labels, K.labels) for D, K in pairs]
        fit = [i for i in (0, 1) if found[i].fits and set(found[i].o) == set(term.bound)]
        if not fit:
            return None
        best = min(fit, key=lambda i: not found[i].likely)
        return self.graph.binary("mul", self.graph.const(line.term.coefficient), found[best].input(*pairs[best]))

    def _chosen(self, masks: Sequence[Labelled], value: Labelled, order: Indices = ()) -> Labelled:
        """The value where all brackets hold, else 0."""
        if not masks:
            return value
        holds = masks[0]
        for mask in masks[1:]:
            labels = ordered(holds.labels, mask.labels)
            both = self.graph.both(aligned(self.graph, holds, labels), aligned(self.graph, mask, labels))
            holds = Labelled(both, labels)
        labels = _in_order(ordered(value.labels, holds.labels), order)
        sides = aligned(self.graph, holds, labels), aligned(self.graph, value, labels)
        return Labelled(self.graph.where(sides[0], sides[1], self.graph.const(0)), labels)

    def _masked(self, parts: list[Part], masks: Sequence[Labelled], summed: set[Index]) -> list[Part] | None:
        """The factors with the brackets worked into them, where something is summed; None where that cannot be done.

        A bracket goes into every factor that may be infinite behind it, or else into one factor.
        """
        if not masks:
            return parts
        if not summed:
            return parts or [Part(Labelled(self.graph.const(1), ()))]
        parts = [
            Part(self._binary("div", Labelled(self.graph.const(1), ()), p.value)) if p.inverse else p for p in parts
        ]
        for mask in masks:
            over = set(mask.labels)
            if any(not part.safe and not over <= set(part.value.labels) for part in parts):
                return None
            fits = [i for i, part in enumerate(parts) if over <= set(part.value.labels)]
            risky = [i for i in fits if not parts[i].safe]
            if not fits:
                parts.append(Part(Labelled(self.graph.floating(mask.node), mask.labels), safe=True))
            for i in risky or sorted(fits, key=lambda i: entries(parts[i].value.node.shape))[:1]:
                parts[i] = Part(self._chosen([mask], parts[i].value), safe=parts[i].safe)
        return parts

    def _guarded(self, pieces: _Pieces, order: Indices) -> Labelled:
        """Every entry of the product written out, so that a false bracket counts for 0 beside an infinity."""
        parts = [p for p in pieces.parts if not p.value.node.host]
        everything = ordered(order, *(part.value.labels for part in parts))
        product = self._contract(parts, everything)
        full = self._chosen(pieces.masks, product, order)
        return self._sum_out(full, frozenset(order))

    def _scaled(self, value: Labelled, above: list[Node], below: list[Node]) -> Labelled:
        """Times and divided by plain numbers."""
        over, under = self._product(above), self._product(below)
        above.clear()
        below.clear()
        node = value.node
        if node.value == 0:
            return value
        if node.host and node.value == 1:
            return Labelled(self.graph.binary("div", over, under), value.labels)
        node = self.graph.binary("mul", over, node)
        return Labelled(self.graph.binary("div", node, under), value.labels)

    def _product(self, nodes: Sequence[Node]) -> Node:
        out = self.graph.const(1)
        for node in nodes:
            out = self.graph.binary("mul", out, node)
        return out

    def _scale_smallest(self, parts: list[Part], above: list[Node], below: list[Node], order: Indices) -> None:
        """Work plain numbers into the factor with the fewest entries, where that is less than the result."""
        shape = self.table.shape(tuple({i: None for p in parts for i in p.value.labels if i in order}))
        smallest = min(range(len(parts)), key=lambda i: (parts[i].inverse, entries(parts[i].value.node.shape)))
        chosen = parts[smallest]
        if not chosen.inverse and entries(chosen.value.node.shape) < entries(shape):
            parts[smallest] = Part(self._scaled(chosen.value, above, below), safe=chosen.safe)

    def _contract(self, parts: Sequence[Part], keep: Indices) -> Labelled:
        """``Σ Π parts`` over all indices not in ``keep``, in the cheapest order."""
        if not {index for part in parts for index in part.value.labels} - set(keep):
            parts = [self._together(parts, keep)]
        pool: list[Part | None] = list(parts)
        for first, second, left, _, _ in plan([frozenset(p.value.labels) for p in parts], frozenset(keep), self.size):
            a, b = pool[first], pool[second]
            assert a is not None
            assert b is not None
            pool[first] = pool[second] = None
            pool.append(self._multiply(a, b, left, keep))
        (last,) = (part for part in pool if part is not None)
        value = last.value
        if last.inverse:
            value = self._binary("div", Labelled(self.graph.const(1), ()), value)
        return self._sum_out(value, frozenset(keep))

    def _together(self, parts: Sequence[Part], order: Indices) -> Part:
        """A product without sums: small factors with each other as long as that stays small, then into the largest."""
        pool = list(parts)
        everything = {index for part in parts for index in part.value.labels}

        def size(part: Part) -> tuple[int, bool]:
            return entries(part.value.node.shape), part.inverse

        while len(pool) > 1:
            pool.sort(key=size)
            small = next(
                (
                    (i, j)
                    for j in range(1, len(pool))
                    for i in range(j)
                    if {*pool[i].value.labels, *pool[j].value.labels} != everything
                    or (len(pool) == 2 or set(pool[i].value.labels) == set(pool[j].value.labels) != everything)
                ),
                (len(pool) - 2, len(pool) - 1),
            )
            other, one = pool.pop(small[1]), pool.pop(small[0])
            left = frozenset((*one.value.labels, *other.value.labels))
            if other.inverse and not one.inverse:
                pool.append(self._multiply(one, other, left, order))
            else:
                pool.append(self._multiply(other, one, left, order))
        return pool[0]

    def _sum_out(self, value: Labelled, keep: frozenset[Index]) -> Labelled:
        axes = [axis for axis, index in enumerate(value.labels) if index not in keep]
        if not axes:
            return value
        node, labels = self.graph.floating(value.node), tuple(i for i in value.labels if i in keep)
        if node.op == "square" and not node.args[0].host:
            base = node.args[0]
            if len(axes) == base.rank:
                flat = self.graph.reshape(base, [self.table.product(base.shape)])
                return Labelled(self.graph.matmul(flat, flat), ())
            if axes == [base.rank - 1]:
                return Labelled(self.graph.vecdot(base, base), labels)
        return Labelled(self.graph.reduce("sum", node, axes), labels)

    def _multiply(self, one: Part, other: Part, left: frozenset[Index], order: Indices) -> Part:
        """The product of two, summed over what ``left`` does not keep."""
        a = self._sum_out(one.value, left.union(other.value.labels))
        b = self._sum_out(other.value, left.union(one.value.labels))
        summed = tuple(index for index in a.labels if index not in left)
        if summed and not one.inverse and not other.inverse and (known := self._known_product(a, b)) is not None:
            return Part(self._sum_out(known, left))
        if not summed:
            if one.inverse and other.inverse:
                return Part(self._binary("mul", a, b, order), True)
            if one.inverse:
                a, b = b, a
            return Part(self._binary("div" if one.inverse or other.inverse else "mul", a, b, order))
        a = Labelled(self.graph.floating(a.node), a.labels)
        b = Labelled(self.graph.floating(b.node), b.labels)
        batch = tuple(index for index in a.labels if index in b.labels and index in left)
        rows = tuple(index for index in a.labels if index not in batch and index not in summed)
        columns = tuple(index for index in b.labels if index not in batch and index not in summed)
        if not rows and not columns:
            return Part(self._dots(a, b, batch, summed))
        if _position(columns, order) < _position(rows, order) < len(order):
            a, b, rows, columns = b, a, columns, rows
        return Part(self._matmul(a, b, batch, rows, columns, summed))

    def _known_product(self, a: Labelled, b: Labelled) -> Labelled | None:
        """The product of two arrays entry by entry, where another line has it already."""
        if set(a.labels) != set(b.labels):
            return None
        node = self.graph.known("mul", a.node, aligned(self.graph, b, a.labels))
        if node is not None:
            return Labelled(node, a.labels)
        node = self.graph.known("mul", b.node, aligned(self.graph, a, b.labels))
        return Labelled(node, b.labels) if node is not None else None

    def _dots(self, a: Labelled, b: Labelled, batch: Indices, summed: Indices) -> Labelled:
        graph = self.graph
        if not batch and len(summed) == 1:
            return Labelled(graph.matmul(a.node, b.node), ())
        if not batch or (a.labels == (*batch, *summed) and b.labels == (*batch, *summed)):
            shape = [*self.table.shape(batch), self.table.product(self.table.shape(summed))]
            sides = [graph.reshape(aligned(graph, side, (*batch, *summed)), shape) for side in (a, b)]
            return Labelled(graph.vecdot(*sides) if batch else graph.matmul(*sides), batch)
        spots = {index: "abcdefghijklmnopqrstuvwxyz"[i] for i, index in enumerate(ordered(a.labels, b.labels))}
        text = ["".join(spots[i] for i in labels) for labels in (a.labels, b.labels, batch)]
        node = graph.node(
            "einsum", (a.node, b.node), (f"{text[0]},{text[1]}->{text[2]}",), self.table.shape(batch), "float"
        )
        return Labelled(node, batch)

    def _matmul(
        self, a: Labelled, b: Labelled, batch: Indices, rows: Indices, columns: Indices, summed: Indices
    ) -> Labelled:
        graph, table = self.graph, self.table
        A = self._matrices(a, batch, rows, summed)
        B = self._matrices(b, batch, summed, columns)
        if batch and not rows:
            A = graph.view(A, [*range(len(batch)), None, len(batch)])
        if batch and not columns:
            B = graph.view(B, [*range(A.rank - 1), None])
        product = graph.matmul(A, B)
        labels = (*batch, *rows, *columns)
        if batch and not (rows and columns):
            flat = [*table.shape(batch), *([table.product(table.shape(rows or columns))])]
            product = graph.reshape(product, flat)
        return Labelled(graph.reshape(product, table.shape(labels)), labels)

    def _matrices(self, value: Labelled, batch: Indices, rows: Indices, columns: Indices) -> Node:
        """A stack of matrices; a group without axes is left out."""
        graph, table = self.graph, self.table
        turned = rows and columns and value.labels == (*batch, *columns, *rows)
        groups = (columns, rows) if turned else (rows, columns)
        node = aligned(graph, value, (*batch, *groups[0], *groups[1]))
        shape = [*table.shape(batch), *(table.product(table.shape(group)) for group in groups if group)]
        node = graph.reshape(node, shape)
        if turned:
            node = graph.view(node, [*range(len(batch)), len(batch) + 1, len(batch)])
        return node

    def _pieces(self, term: Term) -> _Pieces:
        """The factors of a monomial as arrays."""
        exponents: dict[int, tuple[Any, Fraction]] = {}
        for factor, exponent in term.factors:
            before = exponents.get(id(factor), (factor, Fraction(0)))[1]
            exponents[id(factor)] = (factor, before + exponent)
        pieces = _Pieces(term.coefficient, [], [])
        raised: list[tuple[Expr, Fraction]] = []
        sums: list[tuple[Expr, Fraction]] = []
        shares: list[Labelled] = []
        for factor, exponent in exponents.values():
            match factor:
                case _ if exponent == 0:
                    continue
                case Apply(function="exp", arguments=(argument,)):
                    raised.append((argument, exponent))
                case Expr() if exponential(factor):
                    sums.append((factor, exponent))
                case Value() if factor.at.size and exponent.denominator == 1:
                    pieces.sizes.append((self.atom(factor).node, exponent))
                case Slope() if factor.of.kind != "prod":
                    share = self.atom(factor)
                    pieces.parts.append(Part(share, safe=True))
                    shares.append(share)
                case Compare() | Delta() if exponent > 0:
                    pieces.masks.append(self.atom(factor))
                case Read() if exponent == 1:
                    value = self.atom(factor)
                    pieces.parts.append(
                        Part(Labelled(self.graph.floating(value.node), value.labels), safe=True, read=factor)
                    )
                case _:
                    pieces.parts.append(self._power(self.atom(factor), exponent, _safe(factor)))
        if any(exponent < 0 or exponent.denominator > 1 for _, exponent in sums):
            pieces.parts += self._balanced(raised, sums)
        else:
            pieces.parts += [Part(self._exp(self._times(self.expr(a), e))) for a, e in raised]
            pieces.parts += [self._power(self.expr(s), e) for s, e in sums]
        if shares and not all(part.safe for part in pieces.parts):
            zero = self.graph.const(0)
            pieces.masks += [Labelled(self.graph.compare("!=", s.node, zero), s.labels) for s in shares]
        return pieces

    def _power(self, base: Labelled, exponent: Fraction, safe: bool = False) -> Part:
        node = self.graph.floating(base.node)
        raised = self.graph.power(node, abs(exponent))
        return Part(Labelled(raised, base.labels), exponent < 0, safe and exponent > 0)

    # -- exponentials ------------------------------------------------------------------------------------------------

    def _balanced(self, raised: Sequence[tuple[Expr, Fraction]], sums: Sequence[tuple[Expr, Fraction]]) -> list[Part]:
        """As `_evaluate.Evaluation._balanced`."""
        out: list[Part] = []
        exponents = [(key(argument, _anywhere), self._times(self.expr(argument), e), e) for argument, e in raised]
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
                exponents[i] = (name, self._plus(value, top, part), e + part)
                left -= part
                if left == 0:
                    break
            if left != 0:
                exponents.append(("", self._times(top, left), Fraction(0)))
        together: dict[frozenset[Index], Labelled] = {}
        for _, value, _ in exponents:
            before = together.get(frozenset(value.labels))
            together[frozenset(value.labels)] = value if before is None else self._plus(before, value)
        return out + [Part(self._exp(value)) for value in together.values()]

    def scaled(self, expr: Expr) -> tuple[Labelled, Labelled]:
        """A sum of exponentials as ``exp(m) * S``: m, the largest exponent at each entry, and S."""
        if (found := self._split.get(id(expr))) is not None:
            return found[1:]
        graph = self.graph
        terms = []
        bracketed = False
        for term in expr.terms:
            exponent: Labelled | None = None
            rest, holds = list[tuple[Any, Fraction]](), list[Labelled]()
            mantissas: list[Part] = []
            for factor, power in term.factors:
                if isinstance(factor, Apply) and factor.function == "exp":
                    more = self._times(self.expr(factor.arguments[0]), power)
                    exponent = more if exponent is None else self._plus(exponent, more)
                elif isinstance(factor, Expr) and exponential(factor):
                    inner_top, mantissa = self.scaled(factor)
                    more = self._times(inner_top, power)
                    exponent = more if exponent is None else self._plus(exponent, more)
                    mantissas.append(self._power(mantissa, power))
                else:
                    rest.append((factor, power))
                    if isinstance(factor, Compare | Delta) and power > 0:
                        holds.append(self.atom(factor))
            if exponent is not None and holds:
                exponent = self._only_where(holds, exponent)
                bracketed = True
                if all(isinstance(f, Compare | Delta) for f, _ in rest):
                    rest = []  # the exponential is 0 there already
            pieces = self._pieces(Term(term.coefficient, term.bound, tuple(rest)))
            pieces.parts += mantissas
            terms.append((term, exponent, pieces))
        tops = [self._top(exponent, expr.free) for _, exponent, _ in terms]
        labels = tuple(index for index in expr.free if any(index in top.labels for top in tops))
        top = aligned(graph, tops[0], labels)
        for other in tops[1:]:
            top = graph.binary("maximum", top, aligned(graph, other, labels))
        if bracketed:
            top = graph.where(graph.node("isfinite", (top,), (), top.shape, "bool"), top, graph.const(0))
        m = Labelled(top, labels)
        total: Labelled | None = None
        for term, exponent, pieces in terms:
            raised = Labelled(graph.const(0), ()) if exponent is None else exponent
            pieces.parts.append(Part(self._exp(self._plus(raised, m, -ONE))))
            part = self._combine(pieces, term.bound, expr.free)
            total = part if total is None else self._plus(total, part)
        assert total is not None
        self._split[id(expr)] = expr, m, total
        return m, total

    def _only_where(self, holds: Sequence[Labelled], exponent: Labelled) -> Labelled:
        """Exponents where brackets hold, -∞ elsewhere."""
        graph = self.graph
        for mask in holds:
            labels = ordered(exponent.labels, mask.labels)
            node = graph.where(
                aligned(graph, mask, labels), graph.floating(aligned(graph, exponent, labels)), graph.const(-math.inf)
            )
            exponent = Labelled(node, labels)
        return exponent

    def _top(self, exponent: Labelled | None, free: Indices) -> Labelled:
        if exponent is None:
            return Labelled(self.graph.const(0), ())
        axes = [axis for axis, index in enumerate(exponent.labels) if index not in free]
        labels = tuple(index for index in exponent.labels if index in free)
        return Labelled(self.graph.reduce("max", exponent.node, axes), labels)

    def _times(self, value: Labelled, factor: Fraction) -> Labelled:
        node = self.graph.floating(value.node)
        return Labelled(self.graph.binary("mul", self.graph.const(factor), node), value.labels)

    def _plus(self, a: Labelled, b: Labelled, factor: Fraction = ONE) -> Labelled:
        """``a + factor * b``."""
        scaled = self._times(b, abs(factor))
        return self._binary("add" if factor > 0 else "sub", a, scaled)

    def _exp(self, value: Labelled) -> Labelled:
        return Labelled(self.graph.unary("exp", value.node), value.labels)

    def _log(self, argument: Expr) -> Labelled:
        """As `_evaluate.Evaluation._log`."""
        graph = self.graph
        if len(argument.terms) == 1 and not (term := apart(argument.terms[0])).bound:
            raised = [(f, e) for f, e in term.factors if isinstance(f, Apply) and f.function == "exp"]
            sums = [(f, e) for f, e in term.factors if isinstance(f, Expr) and exponential(f)]
            if (raised or sums) and all(positive(f) for f, _ in sums):
                parts = [(self.expr(f.arguments[0]), e) for f, e in raised]
                parts += [(self._log(f), e) for f, e in sums]
                taken = {id(f) for f, _ in (*raised, *sums)}
                rest = Term(term.coefficient, (), tuple((f, e) for f, e in term.factors if id(f) not in taken))
                if rest.factors or rest.coefficient != 1:
                    value = self._combine(self._pieces(rest), (), rest.free)
                    parts.append((Labelled(graph.unary("log", graph.floating(value.node)), value.labels), ONE))
                total = self._times(*parts[0])
                for part, e in parts[1:]:
                    total = self._plus(total, part, e)
                return total
        if exponential(argument):
            top, mantissa = self.scaled(argument)
            return self._plus(top, Labelled(graph.unary("log", mantissa.node), mantissa.labels))
        value = self.expr(argument)
        return Labelled(graph.unary("log", graph.floating(value.node)), value.labels)

    # -- atoms -------------------------------------------------------------------------------------------------------

    def atom(self, node: Any) -> Labelled:
        """The value of an atom, along its free indices."""
        return self._once(node, lambda: self._atom(node))

    def _atom(self, node: Any) -> Labelled:
        graph = self.graph
        match node:
            case Expr():
                return self.expr(node)
            case Read():
                return self.places.read(self.arrays[node.tensor], node)
            case Value():
                return self.places.position(node.at)
            case Apply(function="log"):
                return self._log(node.arguments[0])
            case Apply(function="max" | "min"):
                one, other = (self._floating(self.expr(argument)) for argument in node.arguments)
                return self._binary(f"{node.function}imum", one, other)
            case Apply():
                value = self._floating(self.expr(node.arguments[0]))
                return Labelled(graph.unary(node.function, value.node), value.labels)
            case Compare():
                sides = [self._compared(node.left), self._compared(node.right)]
                labels = ordered(*(side.labels for side in sides))
                return Labelled(graph.compare(node.op, *(aligned(graph, side, labels) for side in sides)), labels)
            case Delta():
                return self._delta(node)
            case Where():
                condition = self.atom(node.condition)
                yes, no = (self._floating(self.expr(branch)) for branch in (node.yes, node.no))
                labels = ordered(condition.labels, yes.labels, no.labels)
                return Labelled(graph.where(*(aligned(graph, x, labels) for x in (condition, yes, no))), labels)
            case Power():
                return self._binary(
                    "pow", self._floating(self.expr(node.base)), self._floating(self.expr(node.exponent))
                )
            case Reduce():
                return self._reduce(node)
            case Slope():
                return self._slope(node)
        raise TypeError(node)

    def _floating(self, value: Labelled) -> Labelled:
        return Labelled(self.graph.floating(value.node), value.labels)

    def _gather(self, read: Read) -> Labelled:
        return self.atom(read)

    def _compared(self, expr: Expr) -> Labelled:
        """A side of a comparison; integers are compared as integers."""
        simple = all(not t.bound and t.coefficient.denominator == 1 for t in expr.terms)
        if not simple or not all(e == 1 and isinstance(f, Value | Read) for t in expr.terms for f, e in t.factors):
            return self.expr(expr)
        total = Labelled(self.graph.const(0), ())
        for term in expr.terms:
            part = Labelled(self.graph.const(abs(term.coefficient)), ())
            for factor, _ in term.factors:
                part = self._binary("mul", part, self.atom(factor))
            total = self._binary("add" if term.coefficient > 0 else "sub", total, part)
        return total

    def _delta(self, node: Delta) -> Labelled:
        left, right = self.places.position(node.left), self.places.position(node.place.at)
        position = right.node
        if node.place.mode not in (None, "zero"):
            index = node.left.bare
            assert index is not None
            position, _ = self.places.entry(node.place.mode, position, self.table[index])
        labels = ordered(left.labels, right.labels)
        sides = aligned(self.graph, left, labels), aligned(self.graph, Labelled(position, right.labels), labels)
        return Labelled(self.graph.compare("==", *sides), labels)

    def _reduce(self, node: Reduce) -> Labelled:
        graph, body = self.graph, self._floating(self.expr(node.body))
        missing = [index for index in node.bound if index not in body.labels]
        axes = [axis for axis, index in enumerate(body.labels) if index in node.bound]
        labels = tuple(index for index in body.labels if index not in node.bound)
        out = graph.reduce(node.kind, body.node, axes)
        if node.kind == "prod" and missing:
            count = self._product([graph.size(self.table[index]) for index in missing])
            out = graph.binary("pow", out, count)
        return Labelled(out, labels)

    def _slope(self, node: Slope) -> Labelled:
        graph, of = self.graph, node.of
        body = self._floating(self.expr(of.body))
        outer = tuple(index for index in body.labels if index not in of.bound)
        order = (*outer, *of.bound)
        shape = self.table.shape(order)
        full = graph.full(aligned(graph, body, order), shape)
        if of.kind == "prod":
            flat = (*shape[: len(outer)], self.table.product(shape[len(outer) :]))
            others = graph.node("others", (graph.reshape(full, flat),), (), flat, "float")
            return Labelled(graph.reshape(others, shape), order)
        graph.kept[body.node] = None
        best = aligned(graph, self.atom(of), order)
        chosen = graph.compare("==", full, best)
        count = graph.reduce("sum", chosen, range(len(outer), len(order)))
        share = graph.binary(
            "div",
            graph.floating(chosen),
            graph.view(graph.floating(count), [*range(len(outer)), *[None] * len(of.bound)]),
        )
        return Labelled(share, order)


class _Hints(dict[Index, int]):
    """About how large each index is."""

    def __init__(self, table: SizeTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, index: Index) -> int:
        return self._table[index].hint


def _safe(factor: Any) -> bool:
    """Whether a factor is finite wherever the inputs are."""
    match factor:
        case Read() | Value() | Slope():
            return True
        case Apply():
            return factor.function in BOUNDED and all(_safe(argument) for argument in factor.arguments)
        case Expr():
            return all(e > 0 and e.denominator == 1 and _safe(f) for term in factor.terms for f, e in term.factors)
    return False


def _decimal(value: Fraction) -> bool:
    """Whether a number is a short decimal."""
    rest = value.denominator
    while rest % 2 == 0:
        rest //= 2
    while rest % 5 == 0:
        rest //= 5
    return rest == 1 and len(repr(float(value))) < 8


def _in_order(labels: Indices, order: Indices) -> Indices:
    known = [index for index in order if index in labels]
    return (*known, *(index for index in labels if index not in known))


def _position(labels: Iterable[Index], order: Indices) -> int:
    """Where a group of axes begins in an order."""
    return min((order.index(index) for index in labels if index in order), default=len(order))
