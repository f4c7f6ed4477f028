"""The formula of every gradient: occurrences gathered, deltas collapsed, closed forms found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TypeGuard

from ..core import FormulaError
from ._closed import Change, Closer, only_linear, spread, weight, work
from ._collapse import collapse, gathered, spelled, tidied
from ._expr import ONE, Expr, Index, Indices, Range, Read, Term, Value, entry_of, tensors, walk
from ._normal import Signatures, gathers
from ._ranges import Classes
from ._read import Program, Statement
from ._rules import Occurrence
from ._tree import LEADING

# Factors in one gradient's formula, beyond which nobody reads it and printing takes seconds.
MAX_FACTORS = 4_000
# How much more work a shorter form may be: that of numbers beside that of arrays.
SLACK = 1 + 1 / 16


@dataclass(frozen=True)
class Contribution:
    """What one occurrence adds to a gradient, before and after its deltas have eaten what they can."""

    statement: Statement
    occurrence: Occurrence
    whole: Term
    collapsed: Term
    """With slopes of reductions as `Slope`."""
    plain: bool
    """Whether the tensor is read along whole axes, so that nothing is left to be scattered."""


@dataclass(frozen=True)
class Adjoint:
    """``dX[entry] = body``, the contributions it is the sum of, and how it became short."""

    name: str
    entry: Indices
    closed: Expr
    """The whole gradient, with slopes of reductions as `Slope`."""
    added: Expr
    """What is left of it without ``scattered``."""
    scattered: tuple[tuple[Read, Expr], ...]
    """What is added at places of the tensor."""
    contributions: tuple[Contribution, ...]
    changes: tuple[Change, ...] = ()
    said: tuple[Term, ...] = ()
    """Terms that are 0 and say what ``...`` stands for."""

    @cached_property
    def body(self) -> Expr:
        """The gradient in the grammar."""
        return Expr((*spelled_out(self.closed).terms, *self.said))

    @property
    def raw(self) -> Expr:
        """The gradient as the rules of calculus give it."""
        return gathered([tidied(spelled(c.collapsed)) for c in self.contributions])


def spelled_out(expr: Expr) -> Expr:
    """An expression with every `Slope` written out in the grammar."""
    terms = []
    for term in expr.terms:
        factors = tuple((spelled_out(f), e) if isinstance(f, Expr) else (f, e) for f, e in term.factors)
        terms.append(spelled(Term(term.coefficient, term.bound, factors)))
    return Expr(tuple(terms))


class Adjoints(Mapping[str, Adjoint]):
    """The gradient of every tensor but integer inputs and the output, in order of appearance; found when asked for."""

    def __init__(
        self, program: Program, classes: Classes, signatures: Signatures, flows: Sequence[Sequence[Occurrence]]
    ) -> None:
        self._program = program
        self._classes = classes
        self._signatures = signatures
        self._flows = flows
        self._names = [n for n in program.ranks if n not in program.integers and n != program.output.name]

    def __getitem__(self, name: str) -> Adjoint:
        found = self._all[name]
        if isinstance(found, FormulaError):
            raise found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def _all(self) -> dict[str, Adjoint | FormulaError]:
        closer = Closer(self._program, self._classes, self._signatures)
        found: dict[str, Adjoint | FormulaError] = {}
        for name in self._names:
            try:
                found[name] = _shortest(closer, _adjoint(self._program, self._classes, self._flows, name))
            except FormulaError as error:
                found[name] = error
        for statement in reversed(self._program.statements[:-1]):
            self._inline(closer, statement, found)
        return {n: a if isinstance(a, FormulaError) else self._with_leading(a) for n, a in found.items()}

    def _inline(self, closer: Closer, statement: Statement, found: dict[str, Adjoint | FormulaError]) -> None:
        """Write the gradient of a value out in those that name it, where all together become shorter and not dearer."""
        adjoint, name = found[statement.name], f"d{statement.name}"
        if isinstance(adjoint, FormulaError) or not all(
            place.index is not None or gathers(place) for where, _ in adjoint.scattered for place in where.places
        ):
            return
        readers = [a for n in statement.reads if isinstance(a := found.get(n), Adjoint) and name in tensors(a.closed)]
        readers = [reader for reader in readers if only_linear(reader.closed, name)]
        opened = [_inlined(closer, reader, name, adjoint) for reader in readers]
        most = weight(adjoint.closed) + sum(weight(reader.closed) for reader in readers)
        bodies = [a.closed for a in (adjoint, *readers)]
        if sum(weight(reader.closed) for reader in opened) > most and not closer.may_cancel(bodies):
            return
        new = [_shortest(closer, reader, True) for reader in opened]
        own = _Price(adjoint)
        before = [_Price(reader) for reader in readers]
        after = [_Price(reader) for reader in new]
        shorter = sum(p.weight for p in after) <= own.weight + sum(p.weight for p in before)
        if shorter and sum(p.work for p in after) <= SLACK * (own.work + sum(p.work for p in before)):
            found.update({reader.name: reader for reader in new})
            return
        # Norms want to be written out, so that what they divide by stands once; others keep their names.
        divides = any(_divisor(other.body, statement.name) for other in self._program.statements)
        for reader, naive, old, price in zip(new, opened, before, after, strict=True):
            cancels = spread(reader.closed) < spread(naive.closed)
            norm = divides and price.weight < weight(naive.closed)
            if (cancels or norm) and price.work <= SLACK * (old.work + own.work):
                found[reader.name] = reader

    def _with_leading(self, adjoint: Adjoint) -> Adjoint:
        leading = any(self._program.leading.values())
        if not leading or any(_reads_leading(node) for node in walk(adjoint.closed)):
            return adjoint
        statements = list({id(c.statement): c.statement for c in adjoint.contributions}.values())
        said = _leading_said(self._program, adjoint.name, adjoint.entry, adjoint.closed, statements)
        return replace(adjoint, said=tuple(said))


def _divisor(body: Expr, name: str) -> bool:
    """Whether something in an expression is divided by a value."""
    return any(
        exponent < 0 and name in tensors(factor)
        for term in walk(body)
        if isinstance(term, Term)
        for factor, exponent in term.factors
    )


class _Price:
    """How long a gradient's form is, and its multiply-adds."""

    def __init__(self, adjoint: Adjoint) -> None:
        self.weight = weight(adjoint.closed)
        self.work = work(adjoint.closed, adjoint.entry)


def _shortest(closer: Closer, adjoint: Adjoint, opened: bool = False) -> Adjoint:
    closed = closer.shortest(adjoint.closed, opened)
    if not adjoint.scattered:
        return replace(adjoint, closed=closed.body, added=closed.body, changes=(*adjoint.changes, *closed.changes))
    scattered = tuple((where, closer.shortest(body).body) for where, body in adjoint.scattered)
    added = closer.shortest(adjoint.added).body
    return replace(
        adjoint, closed=closed.body, added=added, scattered=scattered, changes=(*adjoint.changes, *closed.changes)
    )


def _inlined(closer: Closer, adjoint: Adjoint, name: str, value: Adjoint) -> Adjoint:
    """The gradient with another one written out in it."""

    def out(body: Expr) -> Expr:
        return closer.inlined(body, name, value.entry, value.closed)

    closed = out(adjoint.closed)
    scattered = tuple((where, out(body)) for where, body in adjoint.scattered)
    changes = (*adjoint.changes, Change("substitute", closed, (name,)))
    return replace(adjoint, closed=closed, added=out(adjoint.added), scattered=scattered, changes=changes)


def _adjoint(program: Program, classes: Classes, flows: Sequence[Sequence[Occurrence]], name: str) -> Adjoint:
    entry = _entry(program, name)
    contributions = []
    scattered = []
    size = sum(o.term().weight for found in flows for o in found if o.read.tensor == name)
    if size > MAX_FACTORS:
        raise FormulaError(
            f"the gradient of {name} would be written with {size:,} factors, and {MAX_FACTORS:,} are the most; "
            "backward computes it; to see it, give parts of the formula names: H[n] = …; Y[n] = … H[n] …"
        )
    for statement, found in zip(program.statements, flows, strict=True):
        dY = entry_of(f"d{statement.name}", statement.left)
        for occurrence in found:
            if occurrence.read.tensor == name:
                whole = occurrence.term((dY, ONE), outer=statement.left)
                collapsed, _ = collapse(whole, entry, occurrence.read, classes)
                plain = _along_axes(occurrence.read, classes)
                contributions.append(Contribution(statement, occurrence, whole, collapsed, plain))
                if not plain:
                    bound = tuple(index for index in whole.bound if index not in occurrence.read.free)
                    scattered.append((occurrence.read, Expr((Term(whole.coefficient, bound, whole.factors),))))
    terms = [tidied(c.collapsed) for c in contributions]
    closed = gathered(terms) if len(terms) > 1 else Expr(tuple(term for term in terms if term.coefficient))
    added = gathered([t for t, c in zip(terms, contributions, strict=True) if c.plain]) if scattered else closed
    return Adjoint(name, entry, closed, added, tuple(scattered), tuple(contributions))


def _along_axes(read: Read, classes: Classes) -> bool:
    """Whether every place is an index of its own that runs along its whole axis."""
    indices = [place.index for place in read.places]
    return len(set(indices)) == len(indices) and all(
        index is not None and classes.equal(index.range, Range(read.tensor, axis)) for axis, index in enumerate(indices)
    )


def _leading_said(
    program: Program, name: str, entry: Indices, body: Expr, statements: Sequence[Statement]
) -> list[Term]:
    """``0 X[...]`` where a gradient mentions ``...`` and reads nothing that says what it stands for."""
    if program.leading[name]:
        return [Term(Fraction(0), (), ((entry_of(name, entry), ONE),))]
    mentioned = {index.letter for term in body.terms for index in term.bound}
    mentioned |= {node.at.size for node in walk(body) if isinstance(node, Value)}
    reads = [node for statement in statements for node in walk(statement.body) if _reads_leading(node)]
    return [Term(Fraction(0), reads[0].free, ((reads[0], ONE),))] if LEADING in mentioned and reads else []


def _reads_leading(node: object) -> TypeGuard[Read]:
    return isinstance(node, Read) and any(i is not None and i.letter == LEADING for i in (p.index for p in node.places))


def _entry(program: Program, name: str) -> Indices:
    """An index for each axis of a tensor, with the letter that the formula reads it by, where there is one."""
    letters: list[str] = []
    for number in range(program.ranks[name]):
        found = [
            axis.place.index.letter
            for statement in program.statements
            for axis in statement.axes
            if axis.tensor == name and axis.number == number and axis.place.index is not None
        ]
        letters.append(next((letter for letter in found if letter not in letters), ""))
    if program.leading[name]:
        letters[0] = LEADING
    used = {letter for statement in program.statements for letter in statement.letters} | set(program.spans)
    spare = (letter for letter in "tuvwhkpqrsijlabcdefgmnoxyz" if letter not in used and letter not in letters)
    return tuple(
        Index(letter or next(spare, f"t{number}"), Range(name, number)) for number, letter in enumerate(letters)
    )
