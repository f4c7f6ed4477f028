"""A program as operations on arrays: nodes made once each, so that what is computed twice is found.

Axes have positions and no labels here: ``exp(Z[n,k])`` and ``exp(Z[n,m])`` are one node.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ._shapes import ONE, Dim, Shape, SizeTable

BINARY = {"add", "sub", "mul", "div", "pow", "maximum", "minimum", "mod"}
COMPARE = {"==", "!=", "<", "<=", ">", ">="}
VIEWS = {"view", "reshape", "fold", "cut", "broadcast"}


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. ``kind`` is what the entries are: float, int, bool, any; or host, a Python number."""

    op: str
    args: tuple[Node, ...]
    attrs: tuple[Any, ...]
    shape: Shape
    kind: str

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def host(self) -> bool:
        return self.kind == "host"

    @property
    def value(self) -> Fraction | float | None:
        """The number, of a constant."""
        return self.attrs[0] if self.op == "const" else None

    @property
    def view(self) -> bool:
        """Whether it shows the memory of its first operand: a single entry along an axis does, too."""
        if self.op == "cast":
            return self.args[0].kind == "any"  # which may have the dtype already
        return self.op in VIEWS or (self.op in ("take", "gather") and not any(at.rank for at in self.args[1:]))

    def __repr__(self) -> str:
        return f"{self.op}{self.attrs or ''}({', '.join(map(repr, self.args))})"


def entries(shape: Shape) -> int:
    """About how many entries an array has."""
    return math.prod(dim.hint for dim in shape)


class Graph:
    """Makes nodes, simplifying where that changes no value."""

    def __init__(self, table: SizeTable) -> None:
        self.table = table
        self._known: dict[Any, Node] = {}
        self.kept: dict[Node, None] = {}
        """Nodes that backward must find as forward had them."""

    def node(self, op: str, args: Sequence[Node], attrs: Sequence[Any], shape: Sequence[Dim], kind: str) -> Node:
        key = self._key(op, args, attrs, shape, kind)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Node(op, tuple(args), tuple(attrs), tuple(shape), kind)
        return found

    @staticmethod
    def _key(op: str, args: Sequence[Node], attrs: Sequence[Any], shape: Sequence[Dim], kind: str) -> Any:
        return op, tuple(map(id, args)), tuple(attrs), tuple(map(id, shape)), kind

    # -- leaves ------------------------------------------------------------------------------------------------------

    def const(self, value: Fraction | float | int) -> Node:
        if isinstance(value, int):
            value = Fraction(value)
        return self.node("const", (), (value,), (), "host")

    def size(self, dim: Dim) -> Node:
        return self.const(dim.value) if dim.value is not None else self.node("size", (), (dim,), (), "host")

    def iota(self, dim: Dim) -> Node:
        return self.node("iota", (), (dim,), (dim,), "int")

    def zeros(self, shape: Shape) -> Node:
        return self.node("zeros", (), (), shape, "float")

    # -- entry by entry ----------------------------------------------------------------------------------------------

    def broadcast_shape(self, nodes: Iterable[Node]) -> Shape:
        nodes = list(nodes)
        rank = max(node.rank for node in nodes)
        out = [ONE] * rank
        for node in nodes:
            for at, dim in zip(range(rank - node.rank, rank), node.shape, strict=True):
                if dim is not ONE:
                    out[at] = dim
        return tuple(out)

    def binary(self, op: str, a: Node, b: Node) -> Node:
        """Two numbers each; plain numbers are computed with here where they are constants."""
        simple = self._simplified(op, a, b)
        if simple is not None:
            return simple
        if a.host and b.host:
            return self.node(op, (a, b), (), (), "host")
        if op in ("mul", "add") and (turned := self.known(op, b, a)) is not None:
            return turned
        kinds = {node.kind for node in (a, b)}
        kind = "float" if "float" in kinds else "any" if "any" in kinds else "int"
        return self.node(op, (a, b), (), self.broadcast_shape((a, b)), kind)

    def known(self, op: str, a: Node, b: Node) -> Node | None:
        """A binary operation that is there already."""
        if a.host or b.host:
            return None
        return self._known.get(self._key(op, (a, b), (), self.broadcast_shape((a, b)), "float"))

    def _simplified(self, op: str, a: Node, b: Node) -> Node | None:
        x, y = a.value, b.value
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            if op == "add":
                return self.const(x + y)
            if op == "sub":
                return self.const(x - y)
            if op == "mul":
                return self.const(x * y)
            if op == "div" and y and (x / y).denominator < 10**6:
                return self.const(x / y)
        if (op == "mul" and y == 1) or (op == "div" and y == 1) or (op in ("add", "sub") and y == 0):
            return a
        if (op == "mul" and x == 1) or (op == "add" and x == 0):
            return b
        if op == "sub" and x == 0:
            return self.unary("neg", b)
        if op == "sub" and a is b and not a.host:
            return self.const(0)
        return None

    def unary(self, op: str, a: Node) -> Node:
        if a.op == "const" and op == "neg":
            return self.const(-a.attrs[0])
        if a.op == "const" and op == "exp" and a.attrs[0] == 0:
            return self.const(1)
        if a.op == "const" and op == "log" and a.attrs[0] == 1:
            return self.const(0)
        if a.op == "neg" and op == "neg":
            return a.args[0]
        return self.node(op, (a,), (), a.shape, a.kind)

    def power(self, a: Node, exponent: Fraction) -> Node:
        """A constant power."""
        if exponent == 1:
            return a
        if exponent == 0:
            return self.const(1)
        if exponent < 0:
            return self.binary("div", self.const(1), self.power(a, -exponent))
        if exponent == 2:
            return self.node("square", (a,), (), a.shape, a.kind)
        if exponent == Fraction(1, 2):
            return self.unary("sqrt", a)
        if exponent in (3, 4):
            square = self.power(a, Fraction(2))
            return self.binary("mul", square, a) if exponent == 3 else self.power(square, Fraction(2))
        return self.node("pow", (a, self.const(exponent)), (), a.shape, a.kind)

    def compare(self, op: str, a: Node, b: Node) -> Node:
        return self.node(op, (a, b), (), self.broadcast_shape((a, b)), "bool")

    def both(self, a: Node, b: Node) -> Node:
        return a if a is b else self.node("and", (a, b), (), self.broadcast_shape((a, b)), "bool")

    def where(self, condition: Node, yes: Node, no: Node) -> Node:
        if yes.host and no.host and (yes.value, no.value) == (1, 0):
            return self.floating(condition)
        kind = "host" if yes.host and no.host else "int" if {yes.kind, no.kind} <= {"int", "host"} else "float"
        chosen = self.node(
            "where",
            (condition, yes, no),
            (),
            self.broadcast_shape((condition, yes, no)),
            "any" if kind == "host" else kind,
        )
        return self.node("cast", (chosen,), (), chosen.shape, "float") if kind == "host" else chosen

    def floating(self, a: Node) -> Node:
        """In the dtype of the floating inputs; Python's numbers take it by themselves."""
        return a if a.kind in ("float", "host") else self.node("cast", (a,), (), a.shape, "float")

    # -- axes --------------------------------------------------------------------------------------------------------

    def view(self, a: Node, axes: Sequence[int | None]) -> Node:
        """Axes in another order; None is a new one of length 1."""
        if a.op == "view":
            inner = a.attrs
            axes = [None if axis is None else inner[axis] for axis in axes]
            a = a.args[0]
        if list(axes) == list(range(a.rank)):
            return a
        shape = [ONE if axis is None else a.shape[axis] for axis in axes]
        return self.node("view", (a,), axes, shape, a.kind)

    def reshape(self, a: Node, shape: Sequence[Dim]) -> Node:
        """The same entries in the same order."""
        if a.op == "reshape":
            a = a.args[0]
        if tuple(shape) == a.shape:
            return a
        return self.node("reshape", (a,), (), shape, a.kind)

    def cut(self, a: Node, shape: Sequence[Dim]) -> Node:
        """The first entries along each axis."""
        return a if tuple(shape) == a.shape else self.node("cut", (a,), (), shape, a.kind)

    def take(self, a: Node, axis: int, at: Node) -> Node:
        """The entries ``at`` along one axis, whose place the axes of ``at`` take."""
        shape = (*a.shape[:axis], *at.shape, *a.shape[axis + 1 :])
        return self.node("take", (a, at), (axis,), shape, a.kind)

    def gather(self, a: Node, at: Sequence[Node]) -> Node:
        """``a[i, j, …]`` for the first axes of a, the positions broadcast against each other."""
        shape = (*self.broadcast_shape(at), *a.shape[len(at) :])
        return self.node("gather", (a, *at), (), shape, a.kind)

    def full(self, a: Node, shape: Shape) -> Node:
        """Repeated along axes that it does not have, of the right dtype."""
        if a.shape == shape and not a.host and a.kind == "float":
            return a
        if a.host:
            return self.zeros(shape) if a.value == 0 else self.node("full", (a,), (), shape, "float")
        a = self.floating(a)
        return a if a.shape == shape else self.node("broadcast", (a,), (), shape, "float")

    # -- sums and products -------------------------------------------------------------------------------------------

    def reduce(self, kind: str, a: Node, axes: Sequence[int]) -> Node:
        axes = tuple(sorted(axes))
        if not axes:
            return a
        if kind == "sum" and a.op == "cast" and a.args[0].op == "cast":
            a = a.args[0]
        shape = tuple(dim for axis, dim in enumerate(a.shape) if axis not in axes)
        return self.node(kind, (a,), axes, shape, a.kind if a.kind != "bool" else "int")

    def matmul(self, a: Node, b: Node) -> Node:
        """As Python's ``@``: vectors, matrices, stacks of matrices; the turned product where that is there already."""
        if a.rank == 1 and b.rank == 1:
            shape: Sequence[Dim] = ()
        elif a.rank == 1:
            shape = (*b.shape[:-2], b.shape[-1])
        elif b.rank == 1:
            shape = a.shape[:-1]
        else:
            front = self.broadcast_shape([self.node("stack", (), (), x.shape[:-2], "any") for x in (a, b)])
            shape = (*front, a.shape[-2], b.shape[-1])
        if min(a.rank, b.rank) > 1 and a.rank == b.rank:
            other = self.swapped(b), self.swapped(a)
            found = self._known.get(self._key("matmul", other, (), (*shape[:-2], shape[-1], shape[-2]), "float"))
            if found is not None:
                return self.swapped(found)
        return self.node("matmul", (a, b), (), shape, "float")

    def swapped(self, a: Node) -> Node:
        """Every matrix of a stack turned."""
        return self.view(a, [*range(a.rank - 2), a.rank - 1, a.rank - 2])

    def vecdot(self, a: Node, b: Node) -> Node:
        """The sums of products along the last axis of two arrays of one shape."""
        return self.node("vecdot", (a, b), (), a.shape[:-1], "float")


def cone(roots: Iterable[Node], stop: Iterable[Node] = ()) -> Iterator[Node]:
    """What the roots are computed from, each after what it needs; not beyond ``stop``, which comes too."""
    stops = set(stop)
    done: set[Node] = set()
    for root in roots:
        pending = [(root, False)]
        while pending:
            node, ready = pending.pop()
            if ready:
                if node not in done:
                    done.add(node)
                    yield node
            elif node not in done:
                pending.append((node, True))
                if node not in stops:
                    pending += [(arg, False) for arg in reversed(node.args)]
