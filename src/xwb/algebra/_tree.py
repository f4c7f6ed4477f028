"""What the parser reads: the syntax of index notation as a tree, before any index has a meaning.

Every node knows the characters it was read from, so that an error can point at them. Parentheses leave no node: a
`Product` that stands as a factor of a `Product` was written in parentheses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

REDUCTIONS = ("sum", "prod", "max", "min", "mean")
FUNCTIONS = {
    **dict.fromkeys(("exp", "log", "sqrt", "abs", "sin", "cos", "tanh", "sigmoid", "relu", "erf", "gelu", "sign"), 1),
    **dict.fromkeys(("max", "min"), 2),
    "where": 3,
}
MODES = ("zero", "clamp", "wrap", "mirror", "reflect")
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
LEADING = "..."


class Span(NamedTuple):
    """Characters ``start`` to ``end`` (exclusive) of the formula's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Node:
    span: Span


@dataclass(frozen=True, slots=True)
class Number(Node):
    """``2``, ``0.5``, ``1e-5``: exact."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A bare name: an index if its statement uses it as one, else a scalar tensor."""

    name: str


@dataclass(frozen=True, slots=True)
class Access(Node):
    """``T[i, 2*p+r]``; ``k[]`` has no places. Leading axes ``...`` are the place `Leading`, always the first."""

    name: str
    places: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Leading(Node):
    """``...`` in an index list."""


@dataclass(frozen=True, slots=True)
class Mode(Node):
    """A boundary mode around a position: ``zero(p+r-1)``; a place of an `Access` or one side of ``==``."""

    mode: str
    position: Node


@dataclass(frozen=True, slots=True)
class Size(Node):
    """``size(n)``."""

    index: str


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function of `FUNCTIONS`; the first argument of ``where`` is a `Compare`."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Reduce(Node):
    """``sum[i,j](body)`` and the other `REDUCTIONS`; ``...`` among the indices is the string `LEADING`."""

    kind: str
    indices: tuple[str, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Negative(Node):
    operand: Node


@dataclass(frozen=True, slots=True)
class Power(Node):
    base: Node
    exponent: Node


class Factor(NamedTuple):
    node: Node
    divides: bool


@dataclass(frozen=True, slots=True)
class Product(Node):
    """At least two factors, from ``*``, ``/`` and juxtaposition alike; the first never divides."""

    factors: tuple[Factor, ...]


class Summand(NamedTuple):
    node: Node
    negative: bool


@dataclass(frozen=True, slots=True)
class Sum(Node):
    """At least two terms; the first is never negative (a leading minus is a `Negative` inside it)."""

    terms: tuple[Summand, ...]


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """A condition, ``left op right``, op one of `COMPARISONS`; a side may be a `Mode` under ``==``."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Bracket(Node):
    """An Iverson bracket, ``[i == j]``: 1 where the condition holds, else 0."""

    condition: Compare


class LeftIndex(NamedTuple):
    name: str  # LEADING for ...
    span: Span


@dataclass(frozen=True, slots=True)
class Statement(Node):
    """``Out[indices] = body``; a scalar has no indices."""

    name: str
    indices: tuple[LeftIndex, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Formula:
    """The whole text and its statements, at least one."""

    text: str
    statements: tuple[Statement, ...]


def children(node: Any) -> Iterator[Node]:
    """The nodes directly inside a node of the syntax tree, or inside a tuple of such."""
    parts = node if isinstance(node, tuple) else [getattr(node, field.name) for field in dataclasses.fields(node)]
    for part in parts:
        if isinstance(part, Node):
            yield part
        elif isinstance(part, tuple) and not isinstance(part, Span):
            yield from children(part)


def walk(node: Any) -> Iterator[Node]:
    """A node of the syntax tree and everything inside it, in the order it is written."""
    pending = [node] if isinstance(node, Node) else list(children(node))[::-1]
    while pending:
        last = pending.pop()
        yield last
        pending += list(children(last))[::-1]
