"""The formula of every gradient: occurrences gathered, deltas collapsed, letters found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeGuard

from ..core import FormulaError
from ._collapse import collapse, gathered, spelled, tidied
from ._expr import ONE, Expr, Index, Indices, Range, Read, Term, Value, entry_of, walk
from ._ranges import Classes
from ._read import Program, Statement
from ._rules import Occurrence
from ._tree import LEADING

# Factors in one gradient's formula, beyond which nobody reads it and printing takes seconds.
MAX_FACTORS = 4_000


@dataclass(frozen=True)
class Contribution:
    """What one occurrence adds to a gradient, before and after its deltas have eaten what they can."""

    statement: Statement
    occurrence: Occurrence
    whole: Term
    collapsed: Term


@dataclass(frozen=True)
class Adjoint:
    """``dX[entry] = body``, and the contributions it is the sum of."""

    name: str
    entry: Indices
    body: Expr
    contributions: tuple[Contribution, ...]


class Adjoints(Mapping[str, Adjoint]):
    """The gradient of every tensor but integer inputs and the output, in order of appearance; found when asked for."""

    def __init__(self, program: Program, classes: Classes, flows: Sequence[Sequence[Occurrence]]) -> None:
        self._arguments = program, classes, flows
        names = [name for name in program.ranks if name not in program.integers and name != program.output.name]
        self._known: dict[str, Adjoint | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Adjoint:
        found = self._known[name]
        if found is None:
            found = self._known[name] = _adjoint(*self._arguments, name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _adjoint(program: Program, classes: Classes, flows: Sequence[Sequence[Occurrence]], name: str) -> Adjoint:
    entry = _entry(program, name)
    contributions = []
    weight = sum(o.term().weight for found in flows for o in found if o.read.tensor == name)
    if weight > MAX_FACTORS:
        raise FormulaError(
            f"the gradient of {name} would be written with {weight:,} factors, and {MAX_FACTORS:,} are the most; "
            "backward computes it; to see it, give parts of the formula names: H[n] = …; Y[n] = … H[n] …"
        )
    for statement, found in zip(program.statements, flows, strict=True):
        dY = entry_of(f"d{statement.name}", statement.left)
        for occurrence in found:
            if occurrence.read.tensor == name:
                whole = occurrence.term((dY, ONE), outer=statement.left)
                collapsed, _ = collapse(whole, entry, occurrence.read, classes)
                contributions.append(Contribution(statement, occurrence, whole, tidied(spelled(collapsed))))
    body = gathered([c.collapsed for c in contributions])
    if not any(_reads_leading(node) for node in walk(body)):
        body = Expr((*body.terms, *_leading_said(program, name, entry, body, [c.statement for c in contributions])))
    return Adjoint(name, entry, body, tuple(contributions))


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
