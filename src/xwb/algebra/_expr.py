"""Expressions once every index has a meaning: sums of monomials over atoms.

``X[n,d] W[d,m] + b[m]`` is an `Expr` of two `Term`s; the first has coefficient 1, bound index d and two factors.
Nodes are immutable and compared by identity, so that a value computed for one is found again wherever it is used;
`key` compares by structure. Indices are objects, not letters: nothing can be captured by sharing a letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

ONE = Fraction(1)


class Range(NamedTuple):
    """What an index runs over: a letter of one statement, or an axis of one tensor (``name`` is its number)."""

    owner: str
    name: str | int


class Index:
    """One index. Two indices of one letter and range are still two: each sum has its own."""

    __slots__ = ("letter", "range")

    def __init__(self, letter: str, range: Range) -> None:
        self.letter = letter
        self.range = range

    def __repr__(self) -> str:
        return self.letter


Indices: TypeAlias = tuple[Index, ...]


def ordered(*groups: Iterable[Index]) -> Indices:
    """The distinct indices of all groups, in order of first appearance."""
    return tuple(dict.fromkeys(index for group in groups for index in group))


@dataclass(frozen=True, eq=False)
class SizeOf:
    """``size(n)``, an integer."""

    range: Range
    letter: str
    free: Indices = ()


@dataclass(frozen=True, eq=False)
class Affine:
    """An integer position: ``constant + Σ coefficient * term``; terms are indices, sizes and gathered integers."""

    constant: int
    terms: tuple[tuple[Index | SizeOf | Read, int], ...] = ()

    @cached_property
    def free(self) -> Indices:
        return ordered(*((term,) if isinstance(term, Index) else term.free for term, _ in self.terms))

    @property
    def bare(self) -> Index | None:
        """The index, where the position is nothing else."""
        if self.constant == 0 and len(self.terms) == 1:
            term, coefficient = self.terms[0]
            return term if coefficient == 1 and isinstance(term, Index) else None
        return None

    @property
    def size(self) -> str:
        """The letter, where the position is ``size(letter)`` and nothing else; else empty."""
        if self.constant == 0 and len(self.terms) == 1:
            term, coefficient = self.terms[0]
            return term.letter if coefficient == 1 and isinstance(term, SizeOf) else ""
        return ""

    @property
    def gathers(self) -> tuple[Read, ...]:
        return tuple(term for term, _ in self.terms if isinstance(term, Read))

    def scaled(self, factor: int) -> Affine:
        return Affine(self.constant * factor, tuple((t, c * factor) for t, c in self.terms) if factor else ())

    def plus(self, other: Affine) -> Affine:
        """The sum, with the coefficients of one index, or of sizes of one range, added up."""
        total: dict[Any, tuple[Index | SizeOf | Read, int]] = {}
        for term, coefficient in (*self.terms, *other.terms):
            key = term.range if isinstance(term, SizeOf) else id(term)
            first, before = total.get(key, (term, 0))
            total[key] = (first, before + coefficient)
        return Affine(self.constant + other.constant, tuple(pair for pair in total.values() if pair[1]))


def bare(index: Index) -> Affine:
    return Affine(0, ((index, 1),))


@dataclass(frozen=True, eq=False)
class Place:
    """One axis of a read: a position, inside a boundary mode or not."""

    at: Affine
    mode: str | None = None

    @property
    def index(self) -> Index | None:
        """The index, where the place is that index and nothing else."""
        return self.at.bare if self.mode is None else None


@dataclass(frozen=True, eq=False)
class Read:
    """``T[places]``."""

    tensor: str
    places: tuple[Place, ...]

    @cached_property
    def free(self) -> Indices:
        return ordered(*(place.at.free for place in self.places))


def entry_of(tensor: str, indices: Iterable[Index]) -> Read:
    """``T[indices]``, each place one bare index."""
    return Read(tensor, tuple(Place(bare(index)) for index in indices))


@dataclass(frozen=True, eq=False)
class Value:
    """An integer position as a number: an index, a size."""

    at: Affine

    @property
    def free(self) -> Indices:
        return self.at.free


@dataclass(frozen=True, eq=False)
class Apply:
    """A function of one or two arguments, entry by entry."""

    function: str
    arguments: tuple[Expr, ...]

    @cached_property
    def free(self) -> Indices:
        return ordered(*(argument.free for argument in self.arguments))


@dataclass(frozen=True, eq=False)
class Compare:
    """An Iverson bracket, ``[left op right]``."""

    op: str
    left: Expr
    right: Expr

    @cached_property
    def free(self) -> Indices:
        return ordered(self.left.free, self.right.free)


@dataclass(frozen=True, eq=False)
class Delta:
    """A Kronecker delta, ``[left == place]``, whose right side may have a boundary mode."""

    left: Affine
    place: Place

    @cached_property
    def free(self) -> Indices:
        return ordered(self.left.free, self.place.at.free)


@dataclass(frozen=True, eq=False)
class Where:
    """``where(condition, yes, no)``: the branch not taken counts for nothing, infinite or not."""

    condition: Compare | Delta
    yes: Expr
    no: Expr

    @cached_property
    def free(self) -> Indices:
        return ordered(self.condition.free, self.yes.free, self.no.free)


@dataclass(frozen=True, eq=False)
class Power:
    """A power whose exponent is no constant."""

    base: Expr
    exponent: Expr

    @cached_property
    def free(self) -> Indices:
        return ordered(self.base.free, self.exponent.free)


@dataclass(frozen=True, eq=False)
class Reduce:
    """``prod``, ``max`` or ``min`` over indices; sums are `Term`s."""

    kind: str
    bound: Indices
    body: Expr

    @cached_property
    def free(self) -> Indices:
        return tuple(index for index in self.body.free if index not in self.bound)


@dataclass(frozen=True, eq=False)
class Slope:
    """∂ reduction / ∂ body at one entry of the bound indices, which are free here.

    Of a maximum or minimum: 1 at its place, shared equally among ties. Of a product: the product of all others.
    """

    of: Reduce
    value: Read | None = None
    """Where the value of the reduction has a name."""

    @cached_property
    def free(self) -> Indices:
        return ordered(self.of.free, self.of.bound)


Factor: TypeAlias = "tuple[Atom, Fraction]"


@dataclass(frozen=True, eq=False)
class Term:
    """``coefficient Σ_bound Π atom ** exponent``. A false bracket among the factors makes the product 0."""

    coefficient: Fraction
    bound: Indices = ()
    factors: tuple[Factor, ...] = ()

    @cached_property
    def inside(self) -> Indices:
        """The indices that the factors leave free, bound ones included."""
        return ordered(*(atom.free for atom, _ in self.factors))

    @cached_property
    def free(self) -> Indices:
        return tuple(index for index in self.inside if index not in self.bound)

    @property
    def weight(self) -> int:
        """How many nodes it is written with."""
        return 1 + sum(_weight(factor) for factor, _ in self.factors)


@dataclass(frozen=True, eq=False)
class Expr:
    """A sum of terms; without any it is 0. As a factor it stands in parentheses."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        _ = self.free, self.weight  # found from the inside out, so that no depth of nesting is a depth of recursion

    @cached_property
    def free(self) -> Indices:
        return ordered(*(term.free for term in self.terms))

    @cached_property
    def weight(self) -> int:
        """How many nodes it is written with."""
        return sum(term.weight for term in self.terms)

    @property
    def constant(self) -> Fraction | None:
        """Its value, where that is a plain number."""
        if not self.terms:
            return Fraction(0)
        if len(self.terms) == 1 and not self.terms[0].factors and not self.terms[0].bound:
            return self.terms[0].coefficient
        return None


Atom: TypeAlias = Read | Value | Apply | Compare | Delta | Where | Power | Reduce | Slope | Expr


def number(value: Fraction | int) -> Expr:
    return Expr((Term(Fraction(value)),) if value else ())


def atom(node: Atom) -> Expr:
    return node if isinstance(node, Expr) else Expr((Term(ONE, (), ((node, ONE),)),))


def add(*parts: Expr) -> Expr:
    return Expr(tuple(term for part in parts for term in part.terms))


def scale(expr: Expr, factor: Fraction | int) -> Expr:
    if factor == 0:
        return Expr(())
    return Expr(tuple(Term(term.coefficient * factor, term.bound, term.factors) for term in expr.terms))


def multiply(*parts: Expr) -> Expr:
    """One product: single terms are joined, sums of several stay in parentheses.

    Bound indices are distinct objects, so that the sums of two factors can be drawn to the front; where one and the
    same sum comes twice, the second stays closed.
    """
    coefficient, bound, factors = ONE, dict[Index, None](), list[Factor]()
    for part in parts:
        if not part.terms:
            return part
        if len(part.terms) == 1 and not bound.keys() & set(part.terms[0].bound):
            term = part.terms[0]
            coefficient *= term.coefficient
            bound.update(dict.fromkeys(term.bound))
            factors.extend(term.factors)
        else:
            factors.append((part, ONE))
    return Expr((Term(coefficient, tuple(bound), _powers(factors)),))


def _powers(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """Reads of one entry made one power: ``x[i] x[i]`` is ``x[i]**2``."""
    out: dict[Any, Factor] = {}
    for factor, exponent in factors:
        name: Any = id(factor)
        if isinstance(factor, Read) and all(place.index is not None for place in factor.places):
            name = (factor.tensor, *(place.index for place in factor.places), exponent > 0)
        before = out.get(name)
        out[name] = (factor, exponent) if before is None else (before[0], before[1] + exponent)
    return tuple(out.values())


def power(base: Expr, exponent: Fraction | int) -> Expr:
    """A constant power; integer powers go into a product without sums."""
    exponent = Fraction(exponent)
    if exponent == 0:
        return number(1)
    if exponent == 1:
        return base
    if len(base.terms) == 1 and base.terms[0].bound and exponent.denominator == 1:
        base = Expr((apart(base.terms[0]),))
    if len(base.terms) == 1 and not base.terms[0].bound:
        term = base.terms[0]
        single = term.coefficient == 1 and len(term.factors) == 1 and term.factors[0][1] == 1
        integers = exponent.denominator == 1 and all(e.denominator == 1 for _, e in term.factors)
        if (integers and (exponent > 0 or term.coefficient)) or single:
            coefficient = term.coefficient**exponent.numerator if not single else ONE
            return Expr((Term(coefficient, (), tuple((a, e * exponent) for a, e in term.factors)),))
    return Expr((Term(ONE, (), ((base, exponent),)),))


def apart(term: Term) -> Term:
    """A monomial with independent sums in parentheses of their own: ``Σ_jk a[j] b[k]`` is ``(Σ_j a[j]) (Σ_k b[k])``."""
    groups: list[tuple[set[Index], list[Factor]]] = []
    for factor, exponent in term.factors:
        own = set(factor.free) & set(term.bound)
        joined = [group for group in groups if own & group[0]]
        groups = [group for group in groups if group not in joined]
        own = own.union(*(group[0] for group in joined))
        groups.append((own, [*(pair for group in joined for pair in group[1]), (factor, exponent)]))
    unused = set(term.bound).difference(*(group[0] for group in groups)) if groups else set(term.bound)
    if len(groups) < 2 or unused:
        return term
    factors: list[Factor] = []
    for own, inside in groups:
        bound = tuple(index for index in term.bound if index in own)
        factors += [(Expr((Term(ONE, bound, tuple(inside)),)), ONE)] if bound else inside
    return Term(term.coefficient, (), tuple(factors))


def total(indices: Iterable[Index], body: Expr) -> Expr:
    """``sum[indices](body)``; a single term takes them into its own sum, where that does not mention them yet."""
    indices = tuple(indices)
    if not body.terms or not indices:
        return body
    if len(body.terms) == 1 and not set(indices) & set(body.terms[0].bound):
        term = body.terms[0]
        return Expr((Term(term.coefficient, (*indices, *term.bound), term.factors),))
    return Expr((Term(ONE, indices, ((body, ONE),)),))


def children(node: Any) -> Iterator[Any]:
    """The nodes directly inside a node, in the order they are written; those inside positions included."""
    match node:
        case Expr():
            yield from node.terms
        case Term():
            yield from (factor for factor, _ in node.factors)
        case Read():
            yield from (place.at for place in node.places)
        case Value():
            yield node.at
        case Affine():
            yield from node.gathers
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
        case Slope():
            yield node.of


def _weight(node: Any) -> int:
    return node.weight if isinstance(node, Expr) else 1 + sum(_weight(child) for child in children(node))


def walk(node: Any) -> Iterator[Any]:
    """A node and everything inside it, in the order it is written; what is shared comes once."""
    pending, seen = [node], set[int]()
    while pending:
        last = pending.pop()
        if id(last) not in seen:
            seen.add(id(last))
            yield last
            pending += list(children(last))[::-1]


class Substitute:
    """Replace indices by positions, without capture: a bound index that a replacement mentions gets a fresh one.

    ``replacements`` maps an index to a `Place`; its mode, if any, goes where the index stood alone. With ``fresh``
    every bound index becomes a new one, so that no two sums share theirs.
    """

    def __init__(self, replacements: Mapping[Index, Place], fresh: bool = False) -> None:
        self._by = dict(replacements)
        self._fresh = fresh

    def affine(self, at: Affine) -> Affine:
        out = Affine(at.constant)
        for term, coefficient in at.terms:
            if isinstance(term, Index) and term in self._by:
                out = out.plus(self._by[term].at.scaled(coefficient))
            else:
                out = out.plus(Affine(0, ((self.read(term) if isinstance(term, Read) else term, coefficient),)))
        return out

    def place(self, place: Place) -> Place:
        index = place.index
        return self._by[index] if index in self._by else Place(self.affine(place.at), place.mode)

    def read(self, read: Read) -> Read:
        return Read(read.tensor, tuple(map(self.place, read.places)))

    def expr(self, expr: Expr) -> Expr:
        return Expr(tuple(map(self.term, expr.terms)))

    def term(self, term: Term) -> Term:
        inner, bound = self._under(term.bound)
        return Term(term.coefficient, bound, tuple((inner.atom(a), e) for a, e in term.factors))

    def atom(self, node: Any) -> Any:
        if not self._fresh and not any(index in self._by for index in node.free):
            return node
        match node:
            case Expr():
                return self.expr(node)
            case Read():
                return self.read(node)
            case Value():
                return Value(self.affine(node.at))
            case Apply():
                return Apply(node.function, tuple(map(self.expr, node.arguments)))
            case Compare():
                return Compare(node.op, self.expr(node.left), self.expr(node.right))
            case Delta():
                return Delta(self.affine(node.left), Place(self.affine(node.place.at), node.place.mode))
            case Where():
                return Where(self.atom(node.condition), self.expr(node.yes), self.expr(node.no))
            case Power():
                return Power(self.expr(node.base), self.expr(node.exponent))
            case Reduce():
                inner, bound = self._under(node.bound)
                return Reduce(node.kind, bound, inner.expr(node.body))
            case Slope():
                return self._slope(node)
        raise TypeError(node)

    def _slope(self, node: Slope) -> Slope:
        """The bound indices of a slope are free: renaming them renames those of its reduction."""
        renamed = {index: self._by[index].index for index in node.of.bound if index in self._by}
        bound = tuple(renamed.get(index, index) or index for index in node.of.bound)
        value = self.read(node.value) if node.value is not None else None
        return Slope(Reduce(node.of.kind, bound, self.expr(node.of.body)), value)

    def _under(self, bound: Indices) -> tuple[Substitute, Indices]:
        by = {index: place for index, place in self._by.items() if index not in bound}
        mentioned = {index for place in by.values() for index in place.at.free}
        fresh = {i: Index(i.letter, i.range) for i in bound if self._fresh or i in mentioned}
        by.update({index: Place(bare(new)) for index, new in fresh.items()})
        return Substitute(by, self._fresh), tuple(fresh.get(index, index) for index in bound)


def tensors(node: Any) -> tuple[str, ...]:
    """The tensors that a node reads, in order of appearance, those that only say which entries included."""
    return tuple(dict.fromkeys(inner.tensor for inner in walk(node) if isinstance(inner, Read)))


def exponential(node: Any) -> bool:
    """Whether a node is a sum in which exponentials stand as factors that no sum of such divides."""
    return isinstance(node, Expr) and any(
        any(_is_exp(factor) for factor, _ in term.factors)
        and not any(power < 0 and exponential(factor) for factor, power in term.factors)
        for term in node.terms
    )


def positive(node: Any) -> bool:
    """Whether a node is an exponential, or a sum of exponentials and positive numbers alone."""
    if isinstance(node, Expr):
        return exponential(node) and all(
            term.coefficient > 0 and all(_is_exp(factor) for factor, _ in term.factors) for term in node.terms
        )
    return _is_exp(node)


def _is_exp(node: Any) -> bool:
    return isinstance(node, Apply) and node.function == "exp"


def key(node: Any, names: Callable[[Index], Any] = id, depth: int = 0) -> Any:
    """A hashable description by structure; bound indices are numbered by depth, free ones named by ``names``."""

    def under(bound: Indices) -> tuple[Callable[[Index], Any], int]:
        numbers = {index: ("bound", depth + i) for i, index in enumerate(bound)}
        return (lambda index: numbers[index] if index in numbers else names(index)), depth + len(bound)

    match node:
        case Index():
            return names(node)
        case SizeOf():
            return ("size", node.range)
        case Affine():
            terms = sorted(((key(t, names, depth), c) for t, c in node.terms), key=repr)
            return ("at", node.constant, tuple(terms))
        case Read():
            return ("read", node.tensor, tuple((key(p.at, names, depth), p.mode) for p in node.places))
        case Apply():
            return (node.function, tuple(key(a, names, depth) for a in node.arguments))
        case Compare():
            return (node.op, key(node.left, names, depth), key(node.right, names, depth))
        case Delta():
            return ("delta", key(node.left, names, depth), key(node.place.at, names, depth), node.place.mode)
        case Reduce():
            inner, level = under(node.bound)
            return (node.kind, tuple(index.range for index in node.bound), key(node.body, inner, level))
        case Slope():
            bound = tuple(key(index, names, depth) for index in node.of.bound)
            return ("slope", bound, key(node.of, names, depth))
        case Term():
            inner, level = under(node.bound)
            factors = tuple((key(a, inner, level), e) for a, e in node.factors)
            return ("term", node.coefficient, tuple(index.range for index in node.bound), factors)
        case _:
            return (type(node).__name__, *(key(child, names, depth) for child in children(node)))
