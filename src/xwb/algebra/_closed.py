"""Closed forms: gradients in which values of forward stand by name, what cancels is gone and the rest is factored.

Every statement of one product says what its numerator is: ``P = exp(Z)/S`` that ``exp(Z) = P S``. Written into a
gradient such rules make quotients cancel, and divide by nothing that forward did not divide by. Adjoints of values are
written out in the gradients that name them where that makes all of them together shorter and not dearer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from ._contract import plan
from ._expr import (
    ONE,
    Apply,
    Compare,
    Delta,
    Expr,
    Index,
    Indices,
    Power,
    Read,
    Reduce,
    Slope,
    Substitute,
    Term,
    Value,
    Where,
    atom,
    entry_of,
    exponential,
    tensors,
    walk,
)
from ._normal import (
    NOTHING,
    Facts,
    Monomial,
    Name,
    Normal,
    Rule,
    Signatures,
    factored,
    in_range,
    powered,
    times,
    written,
)
from ._ranges import Classes
from ._read import Program, Statement

# The size that every index has while two forms are compared.
TYPICAL = 64
# Nodes of a gradient beyond which it is left as the rules of calculus gave it.
MOST = 250
# Nodes of all gradients of a formula together beyond which the rest is left so: deriving takes seconds, not minutes.
MOST_IN_ALL = 4_000


class Change(NamedTuple):
    """One step on the way to a closed form: the rule, the body after it, and the statements and gradients it used."""

    rule: str
    body: Expr
    used: tuple[str, ...]


@dataclass(frozen=True)
class Closed:
    """A gradient's body in its shortest form, and how it came about."""

    body: Expr
    changes: tuple[Change, ...] = ()


class Closer:
    """Closed forms for one program."""

    def __init__(self, program: Program, classes: Classes, signatures: Signatures) -> None:
        self._classes = classes
        self._signatures = signatures
        self._facts = _facts(program, signatures)
        self._spent = 0

    def shortest(self, body: Expr, opened: bool = False) -> Closed:
        """The body, or a form of it that is shorter; with ``opened`` one that is not longer will do."""
        nodes = sum(1 for _ in walk(body))
        if not body.terms or _plain(body) or nodes > MOST or self._spent > MOST_IN_ALL:
            return Closed(body)
        self._spent += nodes
        changes: tuple[Change, ...] = ()
        best, best_weight = body, weight(body)
        sparing = Facts(tuple(rule for rule in self._facts.rules if not rule.plain), self._facts.sums)
        for facts, expand in ((NOTHING, 0), (sparing, 0), (self._facts, 0), (sparing, 1), (self._facts, 1)):
            parts, used = self._parts(body, facts, expand)
            found = written(factored(parts), self._classes)
            if not in_range(found):
                continue
            found_weight = weight(found)
            if found_weight < best_weight or (opened and found_weight == best_weight and not changes):
                flat = written(Expr(tuple(part.term for part in parts)), self._classes)
                steps = [Change("reuse" if used else "cancel", flat, used)]
                if weight(flat) != found_weight:
                    steps.append(Change("factor", found, ()))
                best, best_weight, changes = found, found_weight, tuple(steps)
        return Closed(best, changes)

    def _parts(self, body: Expr, facts: Facts, expand: int) -> tuple[list[Monomial], tuple[str, ...]]:
        """The normal form, and the statements whose rules it used.

        With ``expand`` brackets that hold quotients are multiplied out first, and when those have cancelled, all.
        """
        normal = Normal(self._signatures, facts, expand)
        parts = normal.expr(body)
        if not expand:
            return parts, tuple(normal.used)
        last = Normal(self._signatures, facts, 2)
        parts = last.expr(Expr(tuple(part.term for part in parts)))
        return parts, tuple(normal.used | last.used)

    def may_cancel(self, bodies: Iterable[Expr]) -> bool:
        """Whether a product of these may become shorter: something is divided by, or a sum is known."""
        return bool(self._facts.sums) or any(
            exponent < 0 and not isinstance(factor, Value)
            for body in bodies
            for term in walk(body)
            if isinstance(term, Term)
            for factor, exponent in term.factors
        )

    def inlined(self, body: Expr, name: str, entry: Indices, value: Expr) -> Expr:
        """A body with the gradient ``name[entry]`` written out, its terms multiplied in."""
        return Expr(tuple(part for term in body.terms for part in self._inlined(term, name, entry, value)))

    def _inlined(self, term: Term, name: str, entry: Indices, value: Expr) -> list[Term]:
        at = next((k for k, (f, _) in enumerate(term.factors) if isinstance(f, Read) and f.tensor == name), None)
        if at is None:
            return [
                Term(
                    term.coefficient,
                    term.bound,
                    tuple(
                        (self.inlined(f, name, entry, value), e)
                        if isinstance(f, Expr) and name in tensors(f)
                        else (f, e)
                        for f, e in term.factors
                    ),
                )
            ]
        read = term.factors[at][0]
        assert isinstance(read, Read)
        moved = Substitute(dict(zip(entry, read.places, strict=True)), fresh=True).expr(value)
        before, after = term.factors[:at], term.factors[at + 1 :]
        return [
            Term(term.coefficient * part.coefficient, (*term.bound, *part.bound), (*before, *part.factors, *after))
            for part in moved.terms
        ]


def _plain(body: Expr) -> bool:
    """Whether a body is one product of entries, which nothing makes shorter."""
    return len(body.terms) == 1 and all(isinstance(f, Read) and e == 1 for f, e in body.terms[0].factors)


def only_linear(body: Expr, name: str) -> bool:
    """Whether every read of a tensor stands as a factor that can be written out: bare places, the power 1."""
    found = 0
    for term in body.terms:
        for factor, exponent in term.factors:
            if isinstance(factor, Read) and factor.tensor == name:
                if exponent != 1 or not all(place.index is not None for place in factor.places):
                    return False
                found += 1
            elif isinstance(factor, Expr) and name in tensors(factor):
                if exponent != 1 or not only_linear(factor, name):
                    return False
                found += sum(isinstance(n, Read) and n.tensor == name for n in walk(factor))
    return found == sum(isinstance(node, Read) and node.tensor == name for node in walk(body))


def weight(node: Any) -> int:
    """How long an expression is to read: its factors, sums, numbers and signs."""
    match node:
        case Expr():
            return max(0, len(node.terms) - 1) + sum(weight(term) for term in node.terms)
        case Term():
            return (abs(node.coefficient) != 1) + bool(node.bound) + sum(_weigh(f, e) for f, e in node.factors)
        case Apply():
            return 1 + sum(weight(argument) for argument in node.arguments)
        case Compare():
            return 1 + weight(node.left) + weight(node.right)
        case Where():
            return 1 + weight(node.condition) + weight(node.yes) + weight(node.no)
        case Power():
            return 1 + weight(node.base) + weight(node.exponent)
        case Reduce():
            return 2 + weight(node.body)
        case Slope():
            return 2 + weight(node.of)
        case Value():
            return 1
    return 2


def _weigh(factor: Any, exponent: Fraction) -> int:
    extra = 0 if abs(exponent) == 1 else 1
    if isinstance(factor, Expr):
        return (len(factor.terms) > 1) + weight(factor) + extra
    return weight(factor) + extra


def spread(expr: Expr) -> tuple[int, int]:
    """How many terms and factors a sum has with its brackets multiplied out, nothing cancelled."""
    terms = factors = 0
    for term in expr.terms:
        t, f = 1, 0
        for factor, exponent in term.factors:
            inner = spread(factor) if isinstance(factor, Expr) and exponent == 1 else (1, 1)
            t, f = t * inner[0], f * inner[0] + inner[1] * t
        terms, factors = terms + t, factors + f
    return terms, factors


def work(body: Expr, entry: Indices) -> int:
    """Multiply-adds of an expression where every index has one typical size."""
    seen: set[int] = set()

    def entries(indices: Iterable[Index]) -> int:
        return int(TYPICAL ** len(set(indices)))

    def of_term(term: Term, keep: frozenset[Index]) -> int:
        out = sum(of_atom(factor) for factor, _ in term.factors)
        operands = [frozenset(factor.free) for factor, _ in term.factors]
        size = dict.fromkeys((*term.inside, *keep), TYPICAL)
        out += sum(pair.work for pair in plan(operands, keep, size))
        if len(operands) == 1 and operands[0] - keep:
            out += entries(term.inside)
        return out

    def of_atom(node: Any) -> int:
        if id(node) in seen or isinstance(node, Read | Value):
            return 0
        seen.add(id(node))
        if isinstance(node, Expr):
            return sum(of_term(term, frozenset(term.free)) for term in node.terms)
        inner = sum(of_term(n, frozenset(n.free)) for n in walk(node) if isinstance(n, Term))
        return inner + entries(node.free)

    return sum(of_term(term, frozenset(entry)) for term in body.terms)


# -- what the statements say -----------------------------------------------------------------------------------------


def _facts(program: Program, signatures: Signatures) -> Facts:
    rules: list[Rule] = []
    sums: dict[tuple[str, frozenset[int]], Fraction] = {}
    for statement in program.statements:
        if sum(1 for _ in walk(statement.body)) > MOST:
            continue
        known = Facts(tuple(rules), dict(sums))
        plain = Normal(signatures).expr(statement.body)
        for bound in _summable(statement, plain):
            whole = Expr((Term(ONE, bound, ((statement.body, ONE),)),))
            total = Normal(signatures, known).expr(whole)
            if len(total) > 1 or (total and total[0].factors):
                continue
            places = frozenset(place for place, index in enumerate(statement.left) if index in bound)
            sums[statement.name, places] = total[0].coefficient if total else Fraction(0)
        if rule := _rule(statement, plain, signatures):
            rules.append(rule)
        if rule := _exponential_rule(statement, plain, signatures):
            rules.append(rule)
    return Facts(tuple(rules), sums)


def _summable(statement: Statement, parts: Sequence[Monomial]) -> list[Indices]:
    """The indices over which a value may add up to a number: those that some of its parts do without."""
    out: dict[Indices, None] = {}
    for part in parts:
        for factor, _ in part.factors.values():
            left = tuple(index for index in statement.left if index not in factor.free)
            if (left and len(left) < len(statement.left) and not isinstance(factor, Value)) or (
                left and isinstance(factor, Expr)
            ):
                out[left] = None
            if isinstance(factor, Expr):
                for term in factor.terms:
                    for inner, _ in term.factors:
                        rest = tuple(index for index in statement.left if index not in inner.free)
                        if rest:
                            out[rest] = None
    return list(out)


def _rule(statement: Statement, parts: Sequence[Monomial], signatures: Signatures) -> Rule | None:
    """``numerator = value · denominator`` of a statement of one product; ``(…) = value`` of a sum."""
    value = entry_of(statement.name, statement.left)
    named = {signatures(value): (value, ONE)}
    if len(parts) > 1:
        body = Expr(tuple(part.term for part in parts))
        if sum(isinstance(node, Read) for node in walk(body)) < 2:
            return None
        left: tuple[tuple[Name, Fraction], ...] = ((signatures(body), ONE),)
        right = Monomial(ONE, named)
        return _checked(Rule(left, right, statement.name, plain=False, invertible=True), statement.left)
    if len(parts) != 1:
        return None
    (part,) = parts
    above = {n: p for n, p in part.factors.items() if p[1] > 0 and not isinstance(p[0], Value)}
    below = {n: (f, -e) for n, (f, e) in part.factors.items() if n not in above}
    if not above:
        return None
    rich = {n: p for n, p in above.items() if not isinstance(p[0], Read | Compare | Delta)}
    plain = not rich
    if plain and (
        len(above) > 1
        or not isinstance(next(iter(above.values()))[0], Read)
        or not any(not isinstance(f, Value) for f, _ in below.values())
    ):
        return None
    # The factor that most indices stand in comes first: the others follow from it.
    order = sorted(above.items(), key=lambda item: (item[0] not in rich, -len(item[0][1])))
    right = times(Monomial(1 / part.coefficient, named), Monomial(ONE, below))
    single = len(order) == 1
    first, (richest, exponent) = order[0]
    left = tuple((name, e) for name, (_, e) in order)
    root = single and exponent.numerator == 1 and exponent.denominator > 1
    if root and (part.coefficient == 1 or exponent.denominator % 2):
        # What a root is taken of is its power: n = sqrt(q) says q = n**2.
        right, left = powered(right, 1 / exponent), ((first, ONE),)
    elif exponent != 1:
        single = False
    # The value of an exponential may round to 0: nothing is to be divided by it.
    rounds = exponential(richest) or (isinstance(richest, Apply) and richest.function == "exp")
    invertible = single and not rounds
    return _checked(Rule(left, right, statement.name, plain, invertible), statement.left)


def _exponential_rule(statement: Statement, parts: Sequence[Monomial], signatures: Signatures) -> Rule | None:
    """``S = exp(l)`` of ``l = log(S)``, where S is a sum of exponentials."""
    if len(parts) != 1 or parts[0].coefficient != 1 or len(parts[0].factors) != 1:
        return None
    ((log, exponent),) = parts[0].factors.values()
    if exponent != 1 or not isinstance(log, Apply) or log.function != "log":
        return None
    body = Expr(tuple(part.term for part in Normal(signatures).expr(log.arguments[0])))
    if len(body.terms) == 1:  # one sum, by the name that it has as a factor
        (term,) = body.terms
        if term.coefficient != 1 or [isinstance(f, Expr) and e == 1 for f, e in term.factors] != [True]:
            return None
        body = atom(term.factors[0][0])
    if not exponential(body):
        return None
    raised = Apply("exp", (atom(entry_of(statement.name, statement.left)),))
    right = Monomial(ONE, {signatures(raised): (raised, ONE)})
    rule = Rule(((signatures(body), ONE),), right, statement.name, plain=False, invertible=True)
    return _checked(rule, statement.left)


def _checked(rule: Rule, left: Indices) -> Rule | None:
    """The rule, where its left side says every index of its right side."""
    (anchor, _), *others = rule.left
    if not set(left) <= set(anchor[1]) or any(not set(name[1]) <= set(anchor[1]) for name, _ in others):
        return None
    free = {index for _, (factor, _) in rule.right.factors.items() for index in factor.free}
    return rule if free <= set(anchor[1]) else None
