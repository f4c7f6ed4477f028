"""What runs, in order: the values of forward, then the gradients of backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ..core import FormulaError
from ._expr import Apply, Atom, Expr, Indices, Read, Substitute, Term, exponential, walk

if TYPE_CHECKING:
    from ._derivation import Derivation
    from ._read import Program


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


def schedule(derivation: Derivation) -> Schedule:
    """The lines for one derivation."""
    return Schedule(forward_lines(derivation.named), tuple(_backward(derivation, _Logarithms(derivation.named))))


def forward_lines(program: Program) -> tuple[Assign, ...]:
    """The values of a program, in order."""
    logs = _Logarithms(program)
    return tuple(Assign(s.name, s.left, logs.expr(s.body)) for s in program.statements)


def _backward(derivation: Derivation, logs: _Logarithms) -> Iterator[Line]:
    for name in (*(s.name for s in reversed(derivation.named.statements[:-1])), *derivation.differentiable):
        try:
            adjoint = derivation._adjoints[name]
        except FormulaError:  # too long to be written, but not to be computed
            yield from _as_derived(derivation, name)
            continue
        scattered = [
            Scatter(f"d{name}", where, term) for where, body in adjoint.scattered for term in logs.expr(body).terms
        ]
        if adjoint.added.terms or not scattered:
            yield Assign(f"d{name}", adjoint.entry, logs.expr(adjoint.added))
        yield from scattered


def _as_derived(derivation: Derivation, name: str) -> Iterator[Scatter]:
    """The lines of one gradient as the rules of calculus give it, its parts shared."""
    for occurrence, term in (flow for flows in derivation._flows for flow in flows):
        if occurrence.read.tensor == name:
            left = tuple(index for index in term.bound if index not in occurrence.read.free)
            yield Scatter(f"d{name}", occurrence.read, Term(term.coefficient, left, term.factors))


class _Logarithms:
    """Writes ``log(P[n,k])`` out where P is a quotient of exponentials: P may round to 0, its logarithm is finite."""

    def __init__(self, program: Program) -> None:
        self._values = {s.name: s for s in program.statements if _exponentials(s.body)}

    def expr(self, expr: Expr) -> Expr:
        terms = tuple(self._term(term) for term in expr.terms) if self._values else expr.terms
        return expr if all(a is b for a, b in zip(terms, expr.terms, strict=True)) else Expr(terms)

    def _term(self, term: Term) -> Term:
        factors = tuple((self._atom(factor), exponent) for factor, exponent in term.factors)
        same = all(new[0] is old[0] for new, old in zip(factors, term.factors, strict=True))
        return term if same else Term(term.coefficient, term.bound, factors)

    def _atom(self, node: Atom) -> Atom:
        match node:
            case Expr():
                return self.expr(node)
            case Apply(function="log", arguments=(Expr(terms=(Term(factors=((Read() as read, 1),)) as term,)),)):
                statement = self._values.get(read.tensor)
                alone = term.coefficient == 1 and not term.bound and all(place.mode is None for place in read.places)
                if statement is not None and alone:
                    by = dict(zip(statement.left, read.places, strict=True))
                    return Apply("log", (Substitute(by, fresh=True).expr(statement.body),))
        return node


def _exponentials(body: Expr) -> bool:
    """Whether a value is a quotient of exponentials and sums of such."""
    (term,) = body.terms if len(body.terms) == 1 else (None,)
    return term is not None and not term.bound and any(e < 0 and exponential(f) for f, e in term.factors)
