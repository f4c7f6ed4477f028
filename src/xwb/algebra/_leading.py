"""What ``...`` stands for, as far as the formula itself says it.

``H[n,m] = …; Y[...] = relu(H[...])`` reads H with two indices and with leading axes: here these are two axes. And
``X[...]`` beside ``X[...,d]`` of another statement has one more. Such axes are written out as indices before a
statement is read; what remains of ``...`` is one group of axes that no statement takes apart.
"""

from __future__ import annotations

import dataclasses
import itertools
import string
from collections.abc import Iterator
from typing import Any

from ..core import FormulaError
from ._text import pointed
from ._tree import LEADING, Access, Formula, Leading, LeftIndex, Mode, Name, Node, Reduce, Size, Span, Statement, walk


def written_out(formula: Formula) -> tuple[Formula, frozenset[str]]:
    """The formula with ``...`` replaced by indices where its length is known, split where two differ; and their names.

    Raises:
        FormulaError: a tensor is written with two numbers of axes.
    """
    used = {node.name for s in formula.statements for node in walk(s) if isinstance(node, Name | Access)}
    used |= {index for s in formula.statements for node in walk(s) for index in _indices(node)}
    fresh = [letter for letter in string.ascii_lowercase if letter not in used]
    statements, invented = list(formula.statements), set[str]()
    for number, (count, whole) in _lengths(formula).items():
        if count or whole:
            names = list(itertools.islice(itertools.chain(fresh, (f"axis{i}" for i in itertools.count())), count))
            statements[number] = _replaced(statements[number], names, whole)
            invented.update(names)
    return Formula(formula.text, tuple(statements)), frozenset(invented)


def _indices(node: Node) -> tuple[str, ...]:
    match node:
        case Statement():
            return tuple(index.name for index in node.indices)
        case Reduce():
            return node.indices
        case Size():
            return (node.index,)
    return ()


def index_names(statement: Statement) -> set[str]:
    """The names that a statement uses as indices: on the left, in reductions, in ``size`` and in positions."""
    names = {index.name for index in statement.indices}
    for node in walk(statement.body):
        names.update(_indices(node))
        places = node.places if isinstance(node, Access) else (node.position,) if isinstance(node, Mode) else ()
        names.update(inner.name for inner in walk(places) if isinstance(inner, Name))
        if isinstance(node, Leading):
            names.add(LEADING)
    return names


def _uses(statement: Statement) -> Iterator[tuple[str, int, bool, Span]]:
    """Every tensor as a statement writes it: its name, its places beside ``...``, whether it has that, and where."""
    left = [index.name for index in statement.indices]
    indices = index_names(statement)
    yield statement.name, len(left) - (LEADING in left), LEADING in left, statement.span
    for node in walk(statement.body):
        if isinstance(node, Access):
            leading = bool(node.places) and isinstance(node.places[0], Leading)
            yield node.name, len(node.places) - leading, leading, node.span
        elif isinstance(node, Name) and node.name not in indices:
            yield node.name, 0, False, node.span


def _lengths(formula: Formula) -> dict[int, tuple[int, bool]]:
    """For each statement with ``...``: how many of its axes to write out, and whether these are all.

    A statement's ``...`` and t places beside it are the axes of a tensor; following this from tensor to statement
    settles every length, up to one unknown where no tensor is written without ``...``.
    """
    uses = [(number, *use) for number, statement in enumerate(formula.statements) for use in _uses(statement)]
    rank: dict[str, tuple[int, bool, Span]] = {}
    for _, name, places, leading, span in uses:
        if not leading:
            before = rank.setdefault(name, (places, True, span))
            if before[0] != places:
                raise _two_ranks(formula.text, name, before[2], span)
    floating = [use for use in uses if use[3]]
    length: dict[int, tuple[int, bool]] = {}
    groups: list[set[int]] = []
    while True:
        grown = False
        for number, name, places, _, span in floating:
            if number not in length and name in rank:
                length[number] = (rank[name][0] - places, rank[name][1])
                grown = True
            if number in length:
                count, known = length[number]
                grown = grown or name not in rank
                before = rank.setdefault(name, (count + places, known, span))
                if before[0] != count + places or (known and count < 0):
                    raise _two_ranks(formula.text, name, before[2], span)
        if not grown:
            start = next((use for use in floating if use[0] not in length), None)
            if start is None:
                break
            # What follows from this statement is one group, whose shortest ``...`` stays.
            groups.append(set(length))
            length[start[0]] = (0, False)
    groups.append(set(length))
    out = {number: found for number, found in length.items() if found[1]}
    for earlier, group in itertools.pairwise(groups):
        unknown = {number: length[number][0] for number in group - earlier}
        out.update({number: (count - min(unknown.values()), False) for number, count in unknown.items()})
    return dict(sorted(out.items()))


def _two_ranks(text: str, name: str, first: Span, second: Span) -> FormulaError:
    more = ["a tensor has the same number of axes wherever it stands"]
    return pointed(text, f"{name} is written with two different numbers of axes", first, second, more=more)


def _replaced(node: Any, names: list[str], whole: bool) -> Any:
    """A part of the syntax tree with ``...`` written as indices."""
    if isinstance(node, Leading):
        return node
    if isinstance(node, tuple) and not isinstance(node, LeftIndex | Span):
        parts: list[Any] = []
        for part in node:
            leading = isinstance(part, Leading) or part == LEADING or getattr(part, "name", "") == LEADING
            if not leading:
                parts.append(_replaced(part, names, whole))
                continue
            parts += [] if whole else [part]
            for name in names:
                if isinstance(part, Leading):
                    parts.append(Name(part.span, name))
                else:
                    parts.append(LeftIndex(name, part.span) if isinstance(part, LeftIndex) else name)
        return type(node)(*parts) if hasattr(node, "_fields") else tuple(parts)
    if isinstance(node, Node):
        changed = {f.name: _replaced(getattr(node, f.name), names, whole) for f in dataclasses.fields(node)}
        return dataclasses.replace(node, **changed)
    return node
