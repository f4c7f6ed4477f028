"""The chain rule over entries, one occurrence of a variable at a time.

Every occurrence of X in a statement ``Y[o] = f(…)`` contributes to the differential
``dY[o] = Σ_bound  before · after · dX[places]``: the product of what stands beside it and of the slope of every
function around it. Read forwards that sum is the tangent of Y; with dY put between ``before`` and ``after``, and its
indices summed too, it is the gradient of X, scattered to its places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from ._expr import (
    ONE,
    Apply,
    Atom,
    Compare,
    Delta,
    Expr,
    Factor,
    Index,
    Indices,
    Power,
    Read,
    Reduce,
    Slope,
    Term,
    Value,
    Where,
    add,
    atom,
    entry_of,
    multiply,
    number,
    power,
    scale,
)

HALF = Fraction(1, 2)


def _gelu(x: Expr) -> Expr:
    """Φ(x) + x φ(x), of the normal distribution."""
    cumulative = scale(add(number(1), _of("erf", multiply(x, power(_of("sqrt", number(2)), -1)))), HALF)
    density = multiply(_of("exp", scale(power(x, 2), -HALF)), power(_of("sqrt", scale(_pi(), 2)), -1))
    return add(cumulative, multiply(x, density))


def _pi() -> Expr:
    return number(Fraction("3.141592653589793"))


def _of(function: str, *arguments: Expr) -> Expr:
    return atom(Apply(function, arguments))


def _compare(left: Expr, op: str, right: Expr) -> Expr:
    return atom(Compare(op, left, right))


OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def opposite(condition: Compare | Delta) -> Compare:
    """The bracket that holds where this one does not."""
    if isinstance(condition, Delta):
        return Compare("==", atom(condition), number(0))
    return Compare(OPPOSITE[condition.op], condition.left, condition.right)


def _larger(op: str) -> tuple[Callable[..., Expr], ...]:
    """The slopes of max or min of two: 1 where the operand is chosen, a half where both are equal."""

    def slope(mine: Expr, other: Expr) -> Expr:
        return multiply(_compare(mine, op, other), power(add(number(1), _compare(mine, "==", other)), -1))

    return (slope, lambda a, b: slope(b, a))


SLOPES: dict[str, tuple[Callable[..., Expr], ...]] = {
    "exp": (lambda x: _of("exp", x),),
    "log": (lambda x: power(x, -1),),
    "sqrt": (lambda x: scale(power(_of("sqrt", x), -1), HALF),),
    "abs": (lambda x: _of("sign", x),),
    "sin": (lambda x: _of("cos", x),),
    "cos": (lambda x: scale(_of("sin", x), -1),),
    "tanh": (lambda x: add(number(1), scale(power(_of("tanh", x), 2), -1)),),
    "sigmoid": (lambda x: multiply(_of("sigmoid", x), add(number(1), scale(_of("sigmoid", x), -1))),),
    "relu": (lambda x: _compare(x, ">", number(0)),),
    "erf": (lambda x: multiply(number(2), power(_of("sqrt", _pi()), -1), _of("exp", scale(power(x, 2), -1))),),
    "gelu": (_gelu,),
    "sign": (lambda x: number(0),),
    "max": _larger(">="),
    "min": _larger("<="),
}
"""∂ function / ∂ argument, as expressions of the arguments; at a kink the value of ``docs/derive.md``."""

KINKS = {
    "relu": "relu'(0) = 0",
    "abs": "abs'(0) = 0",
    "sign": "sign' = 0",
    "max": "where both operands of max are equal, each has half the slope",
    "min": "where both operands of min are equal, each has half the slope",
}


@dataclass(frozen=True)
class Rule:
    """One step on the way down to an occurrence."""

    name: str
    what: str


@dataclass(frozen=True)
class Occurrence:
    """One place where a statement reads a tensor, with what the differential multiplies it by."""

    read: Read
    coefficient: Fraction
    bound: tuple[Index, ...]
    before: tuple[Factor, ...]
    after: tuple[Factor, ...]
    rules: tuple[Rule, ...]

    def term(self, *middle: Factor, outer: tuple[Index, ...] = ()) -> Term:
        """The monomial with ``middle`` between what stands before and after, summed over ``outer`` too."""
        return Term(self.coefficient, (*outer, *self.bound), (*self.before, *middle, *self.after))


def occurrences(body: Expr) -> Iterator[Occurrence]:
    """Every read that the expression depends on differentiably, in the order they are written."""
    yield from _expr(body, Occurrence(Read("", ()), ONE, (), (), (), ()))


def own_value(name: str, left: Indices, body: Expr) -> Callable[[Occurrence], Occurrence]:
    """Write the value of a statement by its name in an occurrence, where the statement is a single atom.

    ``F = sigmoid(…)`` has the slope ``F (1 - F)``.
    """
    (only,) = body.terms if len(body.terms) == 1 else (None,)
    if only is None or only.coefficient != 1 or only.bound or [e for _, e in only.factors] != [1]:
        return lambda occurrence: occurrence
    own = only.factors[0][0]
    if not set(left) <= set(own.free):  # the same for every entry along the others, none of which is the value
        return lambda occurrence: occurrence
    value = entry_of(name, left)

    def one(node: Atom) -> Atom:
        if node is own:
            return value
        if isinstance(node, Slope) and node.of is own:
            return Slope(node.of, value)
        if isinstance(node, Expr) and any(inner is own for inner in _shallow(node)):
            return Expr(
                tuple(Term(t.coefficient, t.bound, tuple((one(f), e) for f, e in t.factors)) for t in node.terms)
            )
        return node

    def named(at: Occurrence) -> Occurrence:
        before, after = (tuple((one(f), e) for f, e in factors) for factors in (at.before, at.after))
        return Occurrence(at.read, at.coefficient, at.bound, before, after, at.rules)

    return named if not isinstance(own, Read | Value) else lambda occurrence: occurrence


def _expr(expr: Expr, at: Occurrence) -> Iterator[Occurrence]:
    for term in expr.terms:
        for i, (factor, exponent) in enumerate(term.factors):
            before, after = term.factors[:i], term.factors[i + 1 :]
            coefficient, rules = at.coefficient * term.coefficient, at.rules
            if len(term.factors) > 1:
                rules = (*rules, Rule("product rule", ""))
            if exponent != 1:
                coefficient *= exponent
                after = (*after, (factor, exponent - 1))
                rules = (*rules, Rule("power rule", ""))
            inner = Occurrence(
                at.read,
                coefficient,
                (*at.bound, *term.bound),
                (*before, *at.before),
                (*at.after, *after),
                rules,
            )
            yield from _atom(factor, inner)


def _times(at: Occurrence, slope: Expr, rule: Rule) -> Occurrence | None:
    """The occurrence, multiplied by one more slope; None where that is zero."""
    if not slope.terms:
        return None
    (single,) = slope.terms if len(slope.terms) == 1 else (Term(ONE, (), ((slope, ONE),)),)
    return Occurrence(
        at.read,
        at.coefficient * single.coefficient,
        (*at.bound, *single.bound),
        at.before,
        (*at.after, *single.factors),
        (*at.rules, rule),
    )


def _atom(node: object, at: Occurrence) -> Iterator[Occurrence]:
    match node:
        case Read():
            yield Occurrence(node, at.coefficient, at.bound, at.before, at.after, at.rules)
        case Expr():
            yield from _expr(node, at)
        case Apply():
            for argument, slope in zip(node.arguments, SLOPES[node.function], strict=True):
                value = _reuse(node, slope(*node.arguments))
                if inner := _times(at, value, Rule("function rule", node.function)):
                    yield from _expr(argument, inner)
        case Where():
            for branch, condition in ((node.yes, node.condition), (node.no, opposite(node.condition))):
                if inner := _times(at, atom(condition), Rule("branch rule", "where")):
                    yield from _expr(branch, inner)
        case Power():
            base, exponent = node.base, node.exponent
            some = _compare(exponent, "!=", number(0))  # x**0 is constant, even at 0
            by_base = multiply(some, exponent, atom(Power(base, add(exponent, number(-1)))))
            if inner := _times(at, by_base, Rule("power rule", "**")):
                yield from _expr(base, inner)
            by_exponent = multiply(_compare(base, "!=", number(0)), atom(node), _of("log", base))
            if inner := _times(at, by_exponent, Rule("power rule", "**")):
                yield from _expr(exponent, inner)
        case Reduce():
            if inner := _times(at, atom(Slope(node)), Rule("reduction rule", node.kind)):
                opened = Occurrence(
                    inner.read, inner.coefficient, (*inner.bound, *node.bound), inner.before, inner.after, inner.rules
                )
                yield from _expr(node.body, opened)
        case Compare() | Delta():
            pass  # constant but for jumps


def _reuse(node: Apply, slope: Expr) -> Expr:
    """The slope with the function's own value in it, where it mentions that: one node, computed once."""

    def one(factor: Atom) -> Atom:
        if isinstance(factor, Apply) and factor.function == node.function and factor.arguments == node.arguments:
            return node
        return swap(factor) if isinstance(factor, Expr) else factor

    def swap(expr: Expr) -> Expr:
        if not any(isinstance(inner, Apply) and inner.arguments == node.arguments for inner in _shallow(expr)):
            return expr
        return Expr(tuple(Term(t.coefficient, t.bound, tuple((one(a), e) for a, e in t.factors)) for t in expr.terms))

    return swap(slope)


def _shallow(expr: Expr) -> Iterator[Atom]:
    """The factors of an expression and of the sums among them."""
    for term in expr.terms:
        for factor, _ in term.factors:
            yield factor
            if isinstance(factor, Expr):
                yield from _shallow(factor)
