"""Kronecker deltas meet sums: from a scattered product to a formula of the gradient's own indices.

The gradient of X at the entry t is ``Σ_occurrences Σ Π_k [t_k == place_k] product``. A delta whose place is an index
that is summed eats that sum: the index becomes t_k. An affine place is solved for a summed index with the coefficient
±1, and the reads of that index go under ``zero()``, which stands for its range. A delta that can eat no sum remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..core import FormulaError
from ._expr import (
    ONE,
    Affine,
    Apply,
    Compare,
    Delta,
    Expr,
    Factor,
    Index,
    Place,
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
    key,
    number,
    positive,
    walk,
)
from ._ranges import Classes, flipped
from ._tree import LEADING


@dataclass(frozen=True)
class Eaten:
    """A delta that ate the sum over ``index``, which became ``place``."""

    delta: Delta
    index: Index
    place: Place


@dataclass(frozen=True)
class Remaining:
    """A delta that stays as a bracket, and why."""

    delta: Delta
    why: str


def deltas(entry: Sequence[Index], where: Read) -> list[Delta]:
    """``∂T[where] / ∂T[entry]``, one delta per axis."""
    return [Delta(bare(index), place) for index, place in zip(entry, where.places, strict=True)]


def collapse(term: Term, entry: Sequence[Index], where: Read, classes: Classes) -> tuple[Term, list[Eaten | Remaining]]:
    """The monomial times its deltas, with as many sums eaten as possible; and what became of each delta."""
    summed = list(term.bound)
    current = Term(term.coefficient, (), term.factors)
    events: list[Eaten | Remaining] = []
    open_ = deltas(entry, where)
    kept: list[Delta] = []
    while open_:
        delta = open_.pop(0)
        found = _solution(delta, summed, current, (*open_, *kept), classes)
        if isinstance(found, str):
            kept.append(delta)
            events.append(Remaining(delta, found))
            continue
        index, place = found
        events.append(Eaten(delta, index, place))
        summed.remove(index)
        replace = Substitute({index: place})
        current = replace.term(current)
        open_ = [_replaced(other, replace) for other in open_]
        kept = [_replaced(other, replace) for other in kept]
    factors = (*((delta, ONE) for delta in kept), *current.factors)
    mentioned = Term(ONE, (), factors).inside
    sizes: tuple[Factor, ...] = tuple(
        (Value(Affine(0, ((SizeOf(index.range, index.letter), 1),))), ONE) for index in summed if index not in mentioned
    )
    bound = tuple(index for index in summed if index in mentioned)
    return Term(current.coefficient, bound, (*sizes, *factors)), events


def _replaced(delta: Delta, replace: Substitute) -> Delta:
    return Delta(replace.affine(delta.left), Place(replace.affine(delta.place.at), delta.place.mode))


def _solution(
    delta: Delta, summed: list[Index], term: Term, others: Sequence[Delta], classes: Classes
) -> tuple[Index, Place] | str:
    """The index that the delta eats and what it becomes, or why there is none."""
    at, mode = delta.place.at, delta.place.mode
    if mode not in (None, "zero"):
        return f"{mode}() reads one entry for several positions"
    if at.gathers:
        return "a gathered index may take one value several times"
    entry = delta.left.bare
    assert entry is not None
    index = at.bare
    if index is not None and index in summed and classes.equal(index.range, entry.range):
        return index, Place(bare(entry))
    if index is not None and index.letter == LEADING:
        return "leading axes"
    candidates = [
        (t, c) for t, c in at.terms if isinstance(t, Index) and t in summed and abs(c) == 1 and t.letter != LEADING
    ]
    if not candidates:
        if not at.free:
            return "it names one entry"
        if not any(index in summed for index in at.free):
            return "its sum is eaten already"
        return "no summed index has the coefficient 1 or -1 in it"
    for index, c in candidates:
        rest = at.plus(Affine(0, ((index, -c),)))
        solved = delta.left.plus(rest.scaled(-1)).scaled(c)
        if any(isinstance(t, SizeOf) and t.range == index.range for t, _ in solved.terms):
            if flipped(at) is not index or not classes.equal(index.range, entry.range):
                continue
            if not _may_be_any_position(index, term):
                continue
            size = next(t for t, _ in solved.terms if isinstance(t, SizeOf))
            return index, Place(Affine(-1, ((SizeOf(entry.range, size.letter), 1), (entry, -1))))
        gathered_by = any(index in read.free for other in others for read in other.place.at.gathers)
        if _only_read(index, term, classes) and not gathered_by:
            return index, Place(solved, "zero")
    return "solved for a summed index, the rest of the product would be read outside its range"


def _may_be_any_position(index: Index, term: Term) -> bool:
    """Whether nothing in the product takes a bare index alone: a slope's own index, a boundary mode's other side."""
    return not any(
        (isinstance(node, Slope) and index in node.of.bound)
        or (isinstance(node, Delta) and node.place.mode is not None and index in node.left.free)
        for node in walk(term)
    )


def _only_read(index: Index, term: Term, classes: Classes) -> bool:
    """Whether ``zero()`` can stand for the range of an index.

    The index must stand in plain reads alone, one of them of an axis that is just as long as its range.
    """
    found = False
    for factor, exponent in term.factors:
        if index not in factor.free:
            continue
        if not isinstance(factor, Read) or exponent < 1 or exponent.denominator > 1:
            return False
        if any(index in place.at.free and place.index is not index for place in factor.places):
            return False
        found = found or any(
            place.index is index and classes.equal(index.range, Range(factor.tensor, axis))
            for axis, place in enumerate(factor.places)
        )
    return found


def spelled(term: Term) -> Term:
    """A term with every `Slope` written out in the grammar, and every sum with indices of its own."""
    factors: list[Factor] = []
    for factor, exponent in term.factors:
        if isinstance(factor, Slope):
            factors += [(f, e * exponent) for f, e in _spell(factor)]
        else:
            factors.append((factor, exponent))
    return Substitute({}, fresh=True).term(Term(term.coefficient, term.bound, tuple(factors)))


def _spell(slope: Slope) -> list[Factor]:
    of = slope.of
    if of.kind == "prod" and any(index.letter == LEADING for index in of.bound):
        raise FormulaError(
            "the gradient of prod[...] has no formula in the grammar, which cannot leave one entry of ... out; "
            "backward computes it; to see it, write the axes as indices: prod[i,j](…)"
        )
    if of.kind == "prod":
        inner = {index: Index(index.letter, index.range) for index in of.bound}
        body = Substitute({index: Place(bare(new)) for index, new in inner.items()}).expr(of.body)
        return [(Reduce("prod", tuple(inner.values()), _others(inner, body)), ONE)]
    chosen = Compare("==", of.body, atom(slope.value or Substitute({}, fresh=True).atom(of)))
    counted = {index: Index(index.letter, index.range) for index in of.bound}
    again = Substitute({index: Place(bare(new)) for index, new in counted.items()}).expr(of.body)
    other = Compare("==", again, atom(slope.value or Substitute({}, fresh=True).atom(of)))
    return [(chosen, ONE), (Expr((Term(ONE, tuple(counted.values()), ((other, ONE),)),)), -ONE)]


def _others(inner: dict[Index, Index], body: Expr) -> Expr:
    """The body, and 1 where every index agrees: ``where(i == k, where(j == l, 1, body), body)``."""
    out = number(1)
    for index, new in reversed(inner.items()):
        out = atom(Where(Compare("==", atom(Value(bare(new))), atom(Value(bare(index)))), out, body))
    return out


def gathered(terms: Sequence[Term]) -> Expr:
    """The sum of the terms, those that differ by a number alone made one."""
    found: dict[Any, Term] = {}
    for term in terms:
        plain = Term(ONE, term.bound, term.factors)
        name = _unordered(plain)
        if name in found:
            before = found[name]
            found[name] = Term(before.coefficient + term.coefficient, before.bound, before.factors)
        else:
            found[name] = term
    return Expr(tuple(term for term in found.values() if term.coefficient))


def _unordered(term: Term) -> Any:
    """A description of a monomial that does not depend on the order of its factors."""
    names = {index: ("bound", index.range) for index in term.bound}
    if len({index.range for index in term.bound}) < len(term.bound):
        return key(term)  # two sums over one range: told apart by their order alone
    parts = sorted(((repr(key(f, lambda i: names.get(i, id(i)))), e) for f, e in term.factors))
    return tuple(sorted(map(repr, names.values()))), tuple(parts)


def tidied(term: Term) -> Term:
    """A monomial with equal factors made powers. Exponentials, never zero, cancel against their reciprocals."""
    out: dict[Any, Factor] = {}
    for factor, exponent in term.factors:
        name: Any = id(factor)
        if positive(factor):
            name = key(factor)
        elif isinstance(factor, Read | Apply | Expr):
            name = (key(factor), exponent > 0)
        before = out.get(name, (factor, Fraction(0)))
        out[name] = (before[0], before[1] + exponent)
    return Term(term.coefficient, term.bound, tuple(factor for factor in out.values() if factor[1]))
