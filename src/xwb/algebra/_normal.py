"""Sums of monomials in a form in which equal things look equal, and what cancels does.

A `Monomial` is a rational number and a map from atoms to rational exponents. It binds no index: each sum that cannot
be taken apart further is an atom. ``sqrt(x)`` is ``x**(1/2)``, ``exp(a - b)`` is ``exp(a) exp(b)**-1``; both are
written as people write them again at the end. Equal atoms are found by `Signatures`, whatever the order of their
factors and the names of their bound indices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

from ._expr import (
    ONE,
    Affine,
    Apply,
    Atom,
    Compare,
    Delta,
    Expr,
    Factor,
    Index,
    Indices,
    Place,
    Power,
    Range,
    Read,
    Reduce,
    SizeOf,
    Slope,
    Substitute,
    Term,
    Value,
    Where,
    atom,
    bare,
    ordered,
    walk,
)
from ._ranges import Classes, divides

# A product of brackets with more terms than this is not multiplied out.
MOST_TERMS = 24
# A product of several sums is multiplied out up to this many terms; what would make more stays a bracket.
MOST_PRODUCTS = 96

Name: TypeAlias = tuple[int, Indices]
"""What an atom is called: its signature, and its free indices in the order of the signature."""


class Monomial(NamedTuple):
    """``coefficient Π atom ** exponent``, the atoms by name."""

    coefficient: Fraction
    factors: Mapping[Name, Factor]

    @property
    def term(self) -> Term:
        return Term(self.coefficient, (), tuple(self.factors.values()))


# What makes a product 0, whatever stands beside it.
GUARDS = (Compare, Delta, Slope)

UNIT = Monomial(ONE, {})


class Signatures:
    """Names of nodes by structure: equal for nodes that differ by their free indices, order and bound indices alone."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._numbers: dict[Hashable, int] = {}
        self._blind: dict[int, tuple[Any, int]] = {}
        self._known: dict[int, tuple[Any, Name]] = {}

    def __call__(self, node: Atom) -> Name:
        found = self._known.get(id(node))
        if found is None or found[0] is not node:  # of another node, where this was pickled
            free: dict[Index, int] = {}
            described = self._describe(node, {}, free)
            found = self._known[id(node)] = node, (self._number(described), tuple(free))
        return found[1]

    def _number(self, described: Hashable) -> int:
        return self._numbers.setdefault(described, len(self._numbers))

    def _range(self, range_: Range) -> Range:
        return self._classes.find(range_)

    def blind(self, node: Any) -> int:
        """A number for a node in which every index is its range alone."""
        found = self._blind.get(id(node))
        if found is None or found[0] is not node:
            described = self._parts(node, lambda index: self._range(index.range), self.blind)
            found = self._blind[id(node)] = node, self._number(described)  # the node is held, so its id stays its own
        return found[1]

    def _describe(self, node: Any, bound: dict[Index, Hashable], free: dict[Index, int]) -> Hashable:
        def name(index: Index) -> Hashable:
            if index in bound:
                return bound[index]
            return "free", free.setdefault(index, len(free)), self._range(index.range)

        if isinstance(node, Term | Reduce):
            within = dict(bound)
            seen = dict[Index, None]()
            self._appearances(node, seen)
            inside = [index for index in seen if index in node.bound]
            inside += [index for index in node.bound if index not in seen]
            within |= {i: ("bound", len(bound) + n, self._range(i.range)) for n, i in enumerate(inside)}
            return self._parts(node, name, lambda child: self._describe(child, within, free))
        return self._parts(node, name, lambda child: self._describe(child, bound, free))

    def _appearances(self, node: Any, seen: dict[Index, None]) -> None:
        """The indices in the order in which the parts are described."""
        match node:
            case Index():
                seen.setdefault(node)
            case Affine():
                for term, _ in self._sorted(node.terms):
                    self._appearances(term, seen)
            case Read():
                for place in node.places:
                    self._appearances(place.at, seen)
            case Term():
                for factor, _ in self._sorted(node.factors):
                    self._appearances(factor, seen)
            case Expr():
                for term in sorted(node.terms, key=self.blind):
                    self._appearances(term, seen)
            case Slope():
                for index in node.of.bound:
                    self._appearances(index, seen)
                self._appearances(node.of, seen)
            case _:
                for child in _children(node):
                    self._appearances(child, seen)

    def _sorted(self, pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return sorted(pairs, key=lambda pair: (self.blind(pair[0]), pair[1]))

    def _parts(self, node: Any, index: Callable[[Index], Hashable], child: Callable[[Any], Hashable]) -> Hashable:
        match node:
            case Index():
                return index(node)
            case SizeOf():
                return "size", self._range(node.range)
            case Affine():
                return "at", node.constant, tuple((child(t), c) for t, c in self._sorted(node.terms))
            case Read():
                return "read", node.tensor, tuple((child(place.at), place.mode) for place in node.places)
            case Term():
                bound = tuple(sorted(map(str, (self._range(i.range) for i in node.bound))))
                factors = tuple((child(factor), e) for factor, e in self._sorted(node.factors))
                return "term", node.coefficient, bound, factors
            case Expr():
                return "sum", tuple(child(term) for term in sorted(node.terms, key=self.blind))
            case Apply():
                return node.function, tuple(map(child, node.arguments))
            case Compare():
                return node.op, child(node.left), child(node.right)
            case Delta():
                return "delta", child(node.left), child(node.place.at), node.place.mode
            case Reduce():
                return node.kind, tuple(str(self._range(i.range)) for i in node.bound), child(node.body)
            case Slope():
                return "slope", tuple(map(index, node.of.bound)), child(node.of)
            case _:
                return type(node).__name__, *map(child, _children(node))


def _children(node: Any) -> Iterator[Any]:
    match node:
        case Value():
            yield node.at
        case Apply():
            yield from node.arguments
        case Compare():
            yield from (node.left, node.right)
        case Delta():
            yield from (node.left, node.place.at)
        case Where():
            yield from (node.condition, node.yes, node.no)
        case Power():
            yield from (node.base, node.exponent)
        case Reduce():
            yield node.body


class Rule(NamedTuple):
    """``Π left**exponent`` may be written as ``right``: what a statement says about its richest part.

    The indices of both sides are those of the statement, and stand for any.
    """

    left: tuple[tuple[Name, Fraction], ...]
    right: Monomial
    value: str
    """The statement."""
    plain: bool
    """Whether the left side is one entry of a tensor: ``x = y r`` of ``y = x/r``."""
    invertible: bool
    """Whether it holds for negative powers too without a new division by what may be 0."""

    @property
    def guarded(self) -> bool:
        """Whether a bracket stands on the left side: what it makes 0 must not meet an infinity afterwards."""
        return len(self.left) > 1


class Facts(NamedTuple):
    """What the statements of a program say: rules, and sums that are numbers, ``sum[k] P[n,k] = 1``."""

    rules: tuple[Rule, ...]
    sums: Mapping[tuple[str, frozenset[int]], Fraction]
    """By tensor and the places of the indices that are summed."""


NOTHING = Facts((), {})


class Normal:
    """Expressions in normal form.

    Args:
        signatures: shared by all that is to be compared.
        facts: what may be written instead of what.
        expand: which brackets are multiplied out: none, those that hold quotients, all.
    """

    def __init__(self, signatures: Signatures, facts: Facts = NOTHING, expand: int = 0) -> None:
        self.signatures = signatures
        self._facts = facts
        self._expand = expand
        self._kept = {name[0] for rule in facts.rules for name in rule.right.factors}
        self.used: dict[str, None] = {}
        """The statements whose rules were used."""

    def expr(self, expr: Expr) -> list[Monomial]:
        """The terms, like ones made one."""
        return collected([part for term in expr.terms for part in self.term(term)])

    def term(self, term: Term) -> list[Monomial]:
        parts = self._product(self._factor(factor, exponent) for factor, exponent in term.factors)
        out = []
        for part in parts:
            part = self._applied(self._pointed(part))
            closed = self._summed(term.bound, part) if term.bound else [part]
            out += [Monomial(p.coefficient * term.coefficient, p.factors) for p in closed if p.coefficient]
        return [self._applied(part) for part in out]

    def _product(self, parts: Iterable[list[Monomial]]) -> list[Monomial]:
        out = [UNIT]
        for part in parts:
            if len(out) > 1 and len(part) > 1 and len(out) * len(part) > MOST_PRODUCTS:
                part = self._single(Expr(tuple(p.term for p in part)), ONE)
            out = [times(a, b) for a in out for b in part]
        return out

    def _single(self, node: Atom, exponent: Fraction) -> list[Monomial]:
        return [Monomial(ONE, {self.signatures(node): (node, exponent)})]

    def _factor(self, node: Atom, exponent: Fraction) -> list[Monomial]:
        """A power of an atom as monomials: several only where a bracket is multiplied out, none where it is 0."""
        match node:
            case Expr():
                return self._bracket(node, exponent)
            case Apply(function="sqrt"):
                return self._bracket(node.arguments[0], exponent / 2)
            case Apply(function="exp"):
                parts = self.expr(node.arguments[0])
                raised = [(Expr((Monomial(ONE, p.factors).term,)), p.coefficient) for p in parts]
                return self._product(
                    self._single(Apply("exp", (argument,)), coefficient * exponent) for argument, coefficient in raised
                )
            case Apply():
                inner = tuple(Expr(tuple(p.term for p in self.expr(argument))) for argument in node.arguments)
                return self._single(Apply(node.function, inner), exponent)
        return self._single(node, exponent)

    def _bracket(self, node: Expr, exponent: Fraction) -> list[Monomial]:
        if self.signatures(node)[0] in self._kept:
            return self._single(node, exponent)
        parts = self.expr(node)
        if not parts:
            return [] if exponent > 0 else self._single(Expr(()), exponent)
        if len(parts) == 1:
            (part,) = parts
            if exponent.denominator == 1:
                return [powered(part, exponent)]
            if part.coefficient == 1 and [e for _, e in part.factors.values()] == [1]:
                return [powered(part, exponent)]
        open_ = self._expand == 2 or (self._expand == 1 and any(e < 0 for p in parts for _, e in p.factors.values()))
        if open_ and exponent.denominator == 1 and 0 < exponent <= 3 and len(parts) ** exponent <= MOST_TERMS:
            return collected(self._product([parts] * int(exponent)))
        # Terms in an order of their own, so that two brackets that are equal are one atom.
        return self._single(Expr(tuple(p.term for p in parts)), exponent)

    # -- sums --------------------------------------------------------------------------------------------------------

    def _summed(self, bound: Indices, part: Monomial) -> list[Monomial]:
        """``sum[bound]`` of a monomial: independent sums apart, a lone bracket term by term, known sums as numbers."""
        inside = [(name, factor) for name, factor in part.factors.items() if set(name[1]) & set(bound)]
        outside = Monomial(part.coefficient, {n: f for n, f in part.factors.items() if not set(n[1]) & set(bound)})
        groups: list[tuple[set[Index], dict[Name, Factor]]] = []
        for name, factor in inside:
            own = set(name[1]) & set(bound)
            joined = [group for group in groups if own & group[0]]
            groups = [group for group in groups if all(group is not other for other in joined)]
            own = own.union(*(group[0] for group in joined))
            groups.append((own, {**{n: f for group in joined for n, f in group[1].items()}, name: factor}))
        mentioned = set[Index]().union(*(group[0] for group in groups))
        sizes = (
            self._single(Value(Affine(0, ((SizeOf(index.range, index.letter), 1),))), ONE)
            for index in bound
            if index not in mentioned
        )
        sums = (self._group(tuple(i for i in bound if i in own), factors) for own, factors in groups)
        return self._product([[outside], *sizes, *sums])

    def _group(self, bound: Indices, factors: Mapping[Name, Factor]) -> list[Monomial]:
        """A sum over indices that one chain of factors connects."""
        if found := _chosen(bound, factors):
            index, name, place = found
            replace = Substitute({index: place})
            rest = tuple((replace.atom(f), e) for n, (f, e) in factors.items() if n != name)
            return self.term(Term(ONE, tuple(i for i in bound if i is not index), rest))
        if len(factors) == 1:
            ((factor, exponent),) = factors.values()
            if isinstance(factor, Expr) and exponent == 1 and len(factor.terms) > 1:
                terms = (Term(t.coefficient, (*bound, *t.bound), t.factors) for t in factor.terms)
                return collected([p for term in terms for p in self.term(term)])
            if isinstance(factor, Read) and exponent == 1:
                places = frozenset(k for k, place in enumerate(factor.places) if place.index in bound)
                known = self._facts.sums.get((factor.tensor, places))
                if known is not None and self._once_each(factor, bound):
                    return [Monomial(known, {})] if known else []
        return self._single(Expr((Term(ONE, bound, tuple(factors.values())),)), ONE)

    @staticmethod
    def _once_each(read: Read, bound: Indices) -> bool:
        """Whether the summed indices stand in bare places alone, each in one."""
        standing = [place for place in read.places if set(place.at.free) & set(bound)]
        return len(standing) == len(bound) and {place.index for place in standing} == set(bound)

    def _pointed(self, part: Monomial) -> Monomial:
        """Beside the bracket ``[k == y[n]]`` the index k is ``y[n]`` everywhere."""
        for name, (factor, exponent) in list(part.factors.items()):
            if not isinstance(factor, Delta) or not gathers(factor.place) or exponent != 1:
                continue
            index = factor.left.bare
            if index is None or index in factor.place.at.free or _bounded(index, part.factors):
                continue
            replace = Substitute({index: factor.place})
            out = Monomial(part.coefficient, {name: (factor, exponent)})
            for other, (node, e) in part.factors.items():
                if other != name:
                    moved = replace.atom(node) if index in node.free else node
                    out = times(out, Monomial(ONE, {self.signatures(moved): (moved, e)}))
            part = out
        return part

    # -- rules -------------------------------------------------------------------------------------------------------

    def _applied(self, part: Monomial) -> Monomial:
        """The monomial with values written by name, as often as a rule fits."""
        for _ in range(32):
            found = next((new for rule in self._facts.rules if (new := self._once(rule, part)) is not None), None)
            if found is None:
                break
            part = found
        return part

    def _once(self, rule: Rule, part: Monomial) -> Monomial | None:
        (anchor, _), *others = rule.left
        for name in part.factors:
            if name[0] != anchor[0]:
                continue
            by = dict(zip(anchor[1], name[1], strict=True))
            matched = [name]
            for other, _ in others:
                if any(index not in by for index in other[1]):
                    break
                at = other[0], tuple(by[index] for index in other[1])
                if at not in part.factors:
                    break
                matched.append(at)
            else:
                found = self._replaced(rule, part, matched, by)
                if found is not None and (not rule.guarded or _finite(found)):
                    self.used[rule.value] = None
                    return found
        return None

    def _replaced(self, rule: Rule, part: Monomial, matched: list[Name], by: Mapping[Index, Index]) -> Monomial | None:
        factors = dict(part.factors)
        if rule.invertible:
            times_ = factors.pop(matched[0])[1] / rule.left[0][1]
            if any((e * times_).denominator > 1 for _, e in rule.right.factors.values()) and times_.denominator > 1:
                return None
        else:
            times_ = ONE
            for at, (_, least) in zip(matched, rule.left, strict=True):
                factor, exponent = factors[at]
                if exponent < least:
                    return None
                if exponent == least:
                    del factors[at]
                else:
                    factors[at] = factor, exponent - least
        if times_.denominator > 1 and rule.right.coefficient != 1:
            return None
        replace = Substitute({index: Place(bare(new)) for index, new in by.items()})
        right = Monomial(rule.right.coefficient, {})
        for factor, exponent in rule.right.factors.values():
            moved = replace.atom(factor)
            right = times(right, Monomial(ONE, {self.signatures(moved): (moved, exponent)}))
        return times(Monomial(part.coefficient, factors), powered(right, times_))


def _chosen(bound: Indices, factors: Mapping[Name, Factor]) -> tuple[Index, Name, Place] | None:
    """A summed index of which a bracket chooses one entry, ``sum[k] [k == y[n]] P[n,k]``."""
    for name, (factor, exponent) in factors.items():
        if exponent == 1 and isinstance(factor, Delta) and gathers(factor.place) and factor.left.bare in bound:
            index = factor.left.bare
            if index not in factor.place.at.free and not _bounded(index, factors):
                return index, name, factor.place
    return None


def _bounded(index: Index, factors: Mapping[Name, Factor]) -> bool:
    """Whether a bracket ``[k == clamp(…)]`` takes the index for its range, which no other position has."""
    return any(
        isinstance(node, Delta) and node.place.mode is not None and node.left.bare is index
        for factor, _ in factors.values()
        for node in walk(factor)
    )


def gathers(place: Place) -> bool:
    """Whether a place is what an integer input names and nothing else, which is always inside the axis."""
    at = place.at
    return place.mode is None and at.constant == 0 and [(type(t), c) for t, c in at.terms] == [(Read, 1)]


def _finite(part: Monomial) -> bool:
    """Whether a product is finite wherever its tensors are."""
    return all(
        isinstance(f, Read | Compare | Delta | Expr | Value) and e > 0 and (e.denominator == 1 or isinstance(f, Value))
        for f, e in part.factors.values()
    )


def times(a: Monomial, b: Monomial) -> Monomial:
    """The product; a bracket twice is the bracket once."""
    factors = dict(a.factors)
    for name, (node, exponent) in b.factors.items():
        before = factors.get(name)
        if before is None:
            factors[name] = node, exponent
            continue
        total = before[1] + exponent
        if isinstance(node, Compare | Delta) and before[1] > 0 and exponent > 0:
            total = ONE
        if total:
            factors[name] = before[0], total
        else:
            del factors[name]
    return Monomial(a.coefficient * b.coefficient, factors)


def powered(part: Monomial, exponent: Fraction) -> Monomial:
    """An integer power, or any of a monomial with the coefficient 1."""
    coefficient = part.coefficient**exponent.numerator if exponent.denominator == 1 else ONE
    return Monomial(coefficient, {name: (node, e * exponent) for name, (node, e) in part.factors.items()})


def collected(parts: Sequence[Monomial]) -> list[Monomial]:
    """The sum with like terms added up."""
    out: dict[Hashable, Monomial] = {}
    for part in parts:
        name = frozenset((name, exponent) for name, (_, exponent) in part.factors.items())
        before = out.get(name)
        out[name] = part if before is None else Monomial(before.coefficient + part.coefficient, before.factors)
    return [part for part in out.values() if part.coefficient]


# -- back to what people write -------------------------------------------------------------------------------------


def factored(parts: Sequence[Monomial]) -> Expr:
    """The sum with common factors in front of brackets, those first that the most terms share."""
    parts = sorted(parts, key=lambda part: part.coefficient < 0)
    if len(parts) < 2:
        return Expr(tuple(part.term for part in parts))
    means = any(isinstance(node, Expr) and len(node.terms) == 1 for part in parts for node, _ in part.factors.values())
    shared: dict[tuple[Name, bool], list[int]] = {}
    raised = [{n: e for n, (f, e) in part.factors.items() if _is_exp(f)} for part in parts]
    alike = all(each == raised[0] for each in raised) and not any(nested_exponentials(part.term) for part in parts)
    for k, part in enumerate(parts):
        for name, (node, exponent) in part.factors.items():
            if not alike and _is_exp(node):
                continue  # an exponential stays with the others that keep it in range
            if means and isinstance(node, Value):
                continue  # a size stays with its sum, as a mean
            shared.setdefault((name, exponent > 0), []).append(k)
    best = max(shared.values(), key=len, default=[])
    if len(best) < 2:
        return Expr(tuple(part.term for part in parts))
    group = [parts[k] for k in best]
    common = {
        name: (node, min(abs(part.factors[name][1]) for part in group) * (1 if exponent > 0 else -1))
        for name, (node, exponent) in group[0].factors.items()
        if (name, exponent > 0) in shared
        and all(name in part.factors and (part.factors[name][1] > 0) == (exponent > 0) for part in group)
    }
    if any(isinstance(f, GUARDS) and name not in common for part in group for name, (f, _) in part.factors.items()):
        # What a bracket shields from an infinity stays beside the bracket.
        common = {
            n: (f, e)
            for n, (f, e) in common.items()
            if isinstance(f, Value) or (e > 0 and e.denominator == 1 and isinstance(f, Read))
        }
    if not common:
        return Expr(tuple(part.term for part in parts))
    sizes = {abs(part.coefficient) for part in group}
    coefficient = sizes.pop() if len(sizes) == 1 else ONE
    if all(part.coefficient < 0 for part in group):
        coefficient = -coefficient
    divisor = Monomial(coefficient**-1, {name: (node, -e) for name, (node, e) in common.items()})
    inner = factored([times(part, divisor) for part in group])
    front = Monomial(coefficient, common)
    whole = Expr((Term(coefficient, (), (*front.factors.values(), (inner, ONE))),))
    rest = factored([part for k, part in enumerate(parts) if k not in best])
    terms = (*whole.terms, *rest.terms) if best[0] == 0 else (*rest.terms, *whole.terms)
    return Expr(tuple(sorted(terms, key=lambda term: term.coefficient < 0)))


def written(expr: Expr, classes: Classes) -> Expr:
    """An expression in the form that people write: exponentials together, roots as ``sqrt``, means as one sum."""
    return Expr(tuple(_written(term, classes) for term in expr.terms))


def nested_exponentials(term: Term) -> bool:
    """Whether a sum among the factors holds exponentials."""
    return any(
        exponent > 0 and isinstance(factor, Expr) and any(_is_exp(node) for node in walk(factor))
        for factor, exponent in term.factors
    )


def in_range(expr: Expr) -> bool:
    """Whether exponentials stand together: beside a sum that holds others, one may be huge where these are tiny."""
    return not any(
        isinstance(node, Term) and nested_exponentials(node) and any(_is_exp(f) for f, _ in node.factors)
        for node in walk(expr)
    )


def _is_exp(node: Atom) -> bool:
    return isinstance(node, Apply) and node.function == "exp"


def _gathered_exponentials(term: Term) -> Term:
    """Exponentials beside a sum that holds others, moved into it."""
    outside = [pair for pair in term.factors if _is_exp(pair[0])]
    if not outside or not nested_exponentials(term):
        return term
    free = set(ordered(*(factor.free for factor, _ in outside)))
    for k, (factor, exponent) in enumerate(term.factors):
        if exponent == 1 and isinstance(factor, Expr) and len(factor.terms) == 1:
            (inner,) = factor.terms
            if any(_is_exp(f) for f, _ in inner.factors) and not free & set(inner.bound):
                closed = Expr((Term(inner.coefficient, inner.bound, (*inner.factors, *outside)),))
                rest = [pair for pair in term.factors if not _is_exp(pair[0])]
                rest[rest.index(term.factors[k])] = closed, ONE
                return Term(term.coefficient, term.bound, tuple(rest))
    return term


def _written(term: Term, classes: Classes) -> Term:
    term = _gathered_exponentials(term)
    exponents: list[Term] = []
    factors: list[Factor] = []
    first = 0
    for factor, exponent in term.factors:
        match factor:
            case Apply(function="exp", arguments=(argument,)):
                first = first if exponents else len(factors)
                inner = written(argument, classes)
                exponents += [Term(t.coefficient * exponent, t.bound, t.factors) for t in inner.terms]
                continue
            case Apply():
                factor = Apply(factor.function, tuple(written(argument, classes) for argument in factor.arguments))
            case Expr():
                factor = written(factor, classes)
        factors.append(_rooted(factor, exponent))
    if exponents:
        exponents.sort(key=lambda t: t.coefficient < 0)
        factors.insert(first, (Apply("exp", (Expr(tuple(exponents)),)), ONE))
    return _opened(Term(term.coefficient, term.bound, tuple(_averaged(factors, classes))))


def _rooted(factor: Atom, exponent: Fraction) -> Factor:
    if exponent.denominator != 2:
        return factor, exponent
    return Apply("sqrt", (atom(factor),)), exponent * 2


def _averaged(factors: list[Factor], classes: Classes) -> list[Factor]:
    """Sizes that a sum over just as many is divided by, moved into the sum: a mean."""
    out = list(factors)
    for factor, exponent in factors:
        if exponent != 1 or not isinstance(factor, Expr) or len(factor.terms) != 1:
            continue
        (inner,) = factor.terms
        moved: list[Factor] = []
        for index in inner.bound:
            size = next((pair for pair in out if divides(pair, index, classes) and pair not in moved), None)
            if size is not None:
                moved.append(size)
        if moved and len(moved) == len(inner.bound):
            mean = Expr((Term(inner.coefficient, inner.bound, (*inner.factors, *moved)),))
            out = [(mean, ONE) if pair[0] is factor else pair for pair in out if all(pair is not m for m in moved)]
    return out


def _opened(term: Term) -> Term:
    """A product that is one sum and nothing else, without parentheses."""
    if len(term.factors) == 1:
        ((only, exponent),) = term.factors
        if exponent == 1 and isinstance(only, Expr) and len(only.terms) == 1:
            (inner,) = only.terms
            if not set(inner.bound) & set(term.bound):
                return Term(term.coefficient * inner.coefficient, (*term.bound, *inner.bound), inner.factors)
    return term
