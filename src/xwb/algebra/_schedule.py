"""What runs, in order: the values of forward, then the gradients of backward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from ..core import FormulaError
from ._evaluate import _anywhere, _arguments
from ._expr import (
    ONE,
    Apply,
    Atom,
    Expr,
    Factor,
    Indices,
    Read,
    Substitute,
    Term,
    entry_of,
    exponential,
    key,
    positive,
    tensors,
)

if TYPE_CHECKING:
    from ._derivation import Derivation
    from ._read import Program


@dataclass(frozen=True)
class Assign:
    """``name[left] = body``; the free indices of the body are among ``left``, each of which runs along a whole axis."""

    name: str
    left: Indices
    body: Expr
    said: Expr
    """The body as the formulas say it."""

    @property
    def reads(self) -> set[str]:
        return set(tensors(self.body))


@dataclass(frozen=True)
class Scatter:
    """``name[where.places] += term`` for every value of the term's free indices.

    ``name`` is dX and has the shape of X, the tensor of ``where``. Several values of the indices may add to one entry;
    places that a ``zero()`` puts outside the axis are left out.
    """

    name: str
    where: Read
    term: Term
    said: Term

    @property
    def reads(self) -> set[str]:
        return set(tensors(self.term)) | (set(tensors(self.where)) - {self.where.tensor})


Line: TypeAlias = Assign | Scatter
AnyLine = TypeVar("AnyLine", Assign, Line)


@dataclass(frozen=True)
class Schedule:
    """The lines of forward and of backward.

    A gradient dX is complete after its last line: at most one `Assign`, then any `Scatter`s, which start from zeros
    where there is no `Assign`. Lines name inputs, values of forward and gradients of earlier lines.
    """

    forward: tuple[Assign, ...]
    backward: tuple[Line, ...]


def needed(lines: Sequence[AnyLine], names: Iterable[str]) -> list[AnyLine]:
    """The lines that these names need, in order."""
    wanted = set(names)
    out = []
    for line in reversed(lines):
        if line.name in wanted:
            out.append(line)
            wanted |= line.reads
    return out[::-1]


def schedule(derivation: Derivation) -> Schedule:
    """The lines for one derivation."""
    return Schedule(forward_lines(derivation.named), tuple(_backward(derivation, _Logarithms(derivation.named))))


def forward_lines(program: Program) -> tuple[Assign, ...]:
    """The values of a program, in order."""
    logs = _Logarithms(program)
    return tuple(Assign(s.name, s.left, logs.expr(s.body), s.body) for s in program.statements)


def _backward(derivation: Derivation, logs: _Logarithms) -> Iterator[Line]:
    for name in (*(s.name for s in reversed(derivation.named.statements[:-1])), *derivation.differentiable):
        try:
            adjoint = derivation._adjoints[name]
        except FormulaError:  # too long to be written, but not to be computed
            yield from _as_derived(derivation, name)
            continue
        scattered = [
            Scatter(f"d{name}", where, term, said)
            for where, body in adjoint.scattered
            for term, said in zip(logs.expr(body).terms, body.terms, strict=True)
        ]
        if adjoint.added.terms or not scattered:
            yield Assign(f"d{name}", adjoint.entry, logs.expr(adjoint.added), adjoint.added)
        yield from scattered


def _as_derived(derivation: Derivation, name: str) -> Iterator[Scatter]:
    """The lines of one gradient as the rules of calculus give it, its parts shared."""
    for statement, occurrences in zip(derivation.named.statements, derivation._occurrences, strict=True):
        dY = entry_of(f"d{statement.name}", statement.left)
        for occurrence in occurrences:
            if occurrence.read.tensor == name:
                whole = occurrence.term((dY, ONE), outer=statement.left)
                bound = tuple(index for index in whole.bound if index not in occurrence.read.free)
                term = Term(whole.coefficient, bound, whole.factors)
                yield Scatter(f"d{name}", occurrence.read, term, term)


class _Logarithms:
    """Writes values out where a logarithm meets exponentials.

    ``log(P[n,k])`` with P a quotient of exponentials: P may round to 0, its logarithm is finite. ``exp(a - lse[n])``
    with ``lse[n] = log(S)``, S a sum of exponentials of which ``exp(a)`` is one: as ``exp(a)/S``, whose exponentials
    forward has computed already.
    """

    def __init__(self, program: Program) -> None:
        self._values = {s.name: s for s in program.statements if _exponentials(s.body)}
        self._sums = {s.name: (s, total) for s in program.statements if (total := _total(s.body)) is not None}

    def expr(self, expr: Expr) -> Expr:
        terms = tuple(self._term(term) for term in expr.terms) if self._values or self._sums else expr.terms
        return expr if all(a is b for a, b in zip(terms, expr.terms, strict=True)) else Expr(terms)

    def _term(self, term: Term) -> Term:
        factors = [pair for factor, exponent in term.factors for pair in self._factors(factor, exponent)]
        same = len(factors) == len(term.factors) and all(
            new[0] is old[0] for new, old in zip(factors, term.factors, strict=True)
        )
        return term if same else Term(term.coefficient, term.bound, tuple(factors))

    def _factors(self, node: Atom, exponent: Fraction) -> list[Factor]:
        if isinstance(node, Apply) and node.function == "exp" and exponent == 1:
            for term in node.arguments[0].terms:
                match term:
                    case Term(coefficient=-1, bound=(), factors=((Read() as read, 1),)) if read.tensor in self._sums:
                        statement, total = self._sums[read.tensor]
                    case _:
                        continue
                raised = Expr(tuple(other for other in node.arguments[0].terms if other is not term))
                alike = {key(argument, _anywhere) for argument in _arguments(total)}
                if key(raised, _anywhere) in alike and all(place.mode is None for place in read.places):
                    by = dict(zip(statement.left, read.places, strict=True))
                    return [(Apply("exp", (raised,)), ONE), (Substitute(by, fresh=True).expr(total), -ONE)]
        return [(self._atom(node), exponent)]

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


def _total(body: Expr) -> Expr | None:
    """S, where a value is ``log(S)`` of a sum of exponentials and nothing else."""
    match body:
        case Expr(terms=(Term(coefficient=1, bound=(), factors=((Apply(function="log", arguments=(total,)), 1),)),)):
            return total if positive(total) else None
    return None


def _exponentials(body: Expr) -> bool:
    """Whether a value is a quotient of exponentials and sums of such."""
    (term,) = body.terms if len(body.terms) == 1 else (None,)
    return term is not None and not term.bound and any(e < 0 and exponential(f) for f, e in term.factors)
