"""From a schedule to a program of array operations, the same for every backend.

Products go in the cheapest order and through matrix products; what two lines compute is computed once; exponentials
beside sums of exponentials are carried as ``exp(m) * S`` as in `_evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from ._convolve import Convolution
from ._derivation import Derivation
from ._evaluate import _anywhere, _arguments
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
from ._graph import Graph, Node
from ._products import Part, Pieces, Products
from ._reading import Labelled, Places, aligned
from ._schedule import Assign, Line, Scatter, Schedule, schedule
from ._shapes import SizeTable

# Functions whose values and whose arguments' zeros do no harm behind a bracket that does not hold.
BOUNDED = {"tanh", "sigmoid", "sin", "cos", "sign", "erf", "relu", "abs", "max", "min"}


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
    absorbed: frozenset[str] = frozenset()
    """The named values that are steps inside an operation and come to no array of their own."""


def lower(derivation: Derivation, sizes: Mapping[str, int]) -> Lowered:
    """The program of one derivation; ``sizes`` by letter choose the order of products alone."""
    table = SizeTable(derivation.program, sizes)
    return _Lowering(derivation, table).run(schedule(derivation))


class _Lowering(Products):
    def __init__(self, derivation: Derivation, table: SizeTable) -> None:
        self.derivation = derivation
        super().__init__(table)
        self.places = Places(self.graph, table, self._gather)
        self._known: dict[int, tuple[Any, Labelled]] = {}
        self._split: dict[int, tuple[Expr, Labelled, Labelled]] = {}

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

    def _pieces(self, term: Term) -> Pieces:
        """The factors of a monomial as arrays."""
        exponents: dict[int, tuple[Any, Fraction]] = {}
        for factor, exponent in term.factors:
            before = exponents.get(id(factor), (factor, Fraction(0)))[1]
            exponents[id(factor)] = (factor, before + exponent)
        pieces = Pieces(term.coefficient, [], [])
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
        return Part(Labelled(raised, base.labels), exponent < 0, safe and exponent > 0 and exponent.denominator == 1)

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
