"""What runs, in order: the values of forward, then the gradients of backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ._expr import Expr, Indices, Place, Range, Read, Substitute, Term, bare

if TYPE_CHECKING:
    from ._derivation import Derivation


@dataclass(frozen=True)
class Assign:
    """``name[left] = body``; the free indices of the body are among ``left``, each of which runs along a whole axis."""

    name: str
    left: Indices
    body: Expr


@dataclass(frozen=True)
class Scatter:
    """``name[where.places] += term`` for every value of the term's free indices.

    ``name`` is dX and has the shape of X, the tensor of ``where``. Several values of the indices may add to one entry;
    places that a ``zero()`` puts outside the axis are left out.
    """

    name: str
    where: Read
    term: Term


Line: TypeAlias = Assign | Scatter


@dataclass(frozen=True)
class Schedule:
    """The lines of forward and of backward.

    A gradient dX is complete after its last line: at most one `Assign`, then any `Scatter`s, which start from zeros
    where there is no `Assign`. Lines name inputs, values of forward and gradients of earlier lines.
    """

    forward: tuple[Assign, ...]
    backward: tuple[Line, ...]


def schedule(derivation: Derivation, sizes: Mapping[Range, int] | None = None) -> Schedule:
    """The lines for one derivation, their products in the order that is cheapest for these sizes."""
    forward = tuple(Assign(s.name, s.left, s.body) for s in derivation.program.statements)
    return Schedule(forward, tuple(_backward(derivation)))


def _backward(derivation: Derivation) -> Iterator[Line]:
    adjoints = derivation._adjoints
    flows = [flow for each in derivation._flows for flow in each]
    for name in (*(s.name for s in reversed(derivation.program.statements[:-1])), *derivation.differentiable):
        entry = adjoints[name].entry
        plain: list[Term] = []
        scattered: list[Scatter] = []
        for occurrence, term in (flow for flow in flows if flow.occurrence.read.tensor == name):
            indices = [place.index for place in occurrence.read.places]
            whole = len(set(indices)) == len(indices) and all(
                index is not None and derivation.classes.equal(index.range, Range(name, axis))
                for axis, index in enumerate(indices)
            )
            if whole:
                by = {index: Place(bare(new)) for index, new in zip(indices, entry, strict=True) if index is not None}
                kept = tuple(index for index in term.bound if index not in by)
                inner = Substitute(by).term(Term(term.coefficient, (), term.factors))
                plain.append(Term(inner.coefficient, kept, inner.factors))
            else:
                left = tuple(index for index in term.bound if index not in occurrence.read.free)
                scattered.append(Scatter(f"d{name}", occurrence.read, Term(term.coefficient, left, term.factors)))
        if plain or not scattered:
            yield Assign(f"d{name}", entry, Expr(tuple(plain)))
        yield from scattered
