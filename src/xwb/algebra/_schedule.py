"""What runs, in order: the values of forward, then the gradients of backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ._expr import Expr, Indices, Range, Read, Term, walk

if TYPE_CHECKING:
    from ._derivation import Derivation


@dataclass(frozen=True)
class Assign:
    """``name[left] = body``; the free indices of the body are among ``left``, each of which runs along a whole axis."""

    name: str
    left: Indices
    body: Expr

    @property
    def reads(self) -> set[str]:
        return tensors(self.body)


@dataclass(frozen=True)
class Scatter:
    """``name[where.places] += term`` for every value of the term's free indices.

    ``name`` is dX and has the shape of X, the tensor of ``where``. Several values of the indices may add to one entry;
    places that a ``zero()`` puts outside the axis are left out.
    """

    name: str
    where: Read
    term: Term

    @property
    def reads(self) -> set[str]:
        return tensors(self.term) | tensors(self.where) - {self.where.tensor}


def tensors(node: Expr | Term | Read) -> set[str]:
    """The tensors that are read, those that only say which entries included."""
    return {inner.tensor for inner in walk(node) if isinstance(inner, Read)}


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
    forward = tuple(Assign(s.name, s.left, s.body) for s in derivation.named.statements)
    return Schedule(forward, tuple(_backward(derivation)))


def _backward(derivation: Derivation) -> Iterator[Line]:
    for name in (*(s.name for s in reversed(derivation.named.statements[:-1])), *derivation.differentiable):
        adjoint = derivation._adjoints[name]
        scattered = [Scatter(f"d{name}", where, term) for where, body in adjoint.scattered for term in body.terms]
        if adjoint.added.terms or not scattered:
            yield Assign(f"d{name}", adjoint.entry, adjoint.added)
        yield from scattered
