"""Products of labelled arrays as matrix products and entry-by-entry ones, in the cheapest order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from ._contract import plan
from ._convolve import Convolution
from ._evaluate import _double
from ._expr import Index, Indices, Read, ordered
from ._graph import Graph, Node, entries
from ._reading import Labelled, aligned
from ._shapes import Shape, SizeTable


class Part(NamedTuple):
    """A factor of a product, or with ``inverse`` a divisor."""

    value: Labelled
    inverse: bool = False
    safe: bool = False
    """Whether it is finite wherever the inputs are."""
    read: Read | None = None
    """The read that it is, not done yet where it goes by windows."""


@dataclass
class Pieces:
    """One monomial: its number, its factors, its brackets."""

    coefficient: Fraction
    parts: list[Part]
    masks: list[Labelled]
    sizes: list[tuple[Node, Fraction]] = field(default_factory=list)


class Products:
    """Lowers products and their sums."""

    def __init__(self, table: SizeTable) -> None:
        self.table = table
        self.graph = Graph(table)
        self.arrays: dict[str, Node] = {}
        self.size = _Hints(table)

    def _binary(self, op: str, a: Labelled, b: Labelled, order: Indices = ()) -> Labelled:
        labels = _in_order(ordered(a.labels, b.labels), order)
        for side in (b, a):  # as an operand lies, where that has all axes: nothing is turned, and it is found again
            labels = side.labels if set(side.labels) == set(labels) else labels
        node = self.graph.binary(op, aligned(self.graph, a, labels), aligned(self.graph, b, labels))
        return Labelled(node, () if node.host else labels)  # x - x is 0, a number without axes

    def _combine(self, pieces: Pieces, bound: Indices, order: Indices) -> Labelled:
        """The product of the pieces, summed over everything that ``order`` does not keep."""
        graph = self.graph
        parts = list(pieces.parts)
        present = {i for part in parts for i in part.value.labels} | {i for mask in pieces.masks for i in mask.labels}
        above: list[Node] = [n for n, e in pieces.sizes for _ in range(max(0, int(e)))]
        below: list[Node] = [n for n, e in pieces.sizes for _ in range(max(0, -int(e)))]
        above += [graph.size(self.table[index]) for index in bound if index not in present and index not in order]
        number = pieces.coefficient
        if number.denominator != 1 and not _decimal(number) and max(abs(number.numerator), number.denominator) < LONG:
            below.insert(0, graph.const(number.denominator))
            number = Fraction(number.numerator)
        if number != 1:
            above.insert(0, graph.const(number if abs(number) < 10**300 else _double(number)))
        hosts = [part for part in parts if part.value.node.host]
        if any(part.value.node.value == 0 and not part.inverse for part in hosts):
            return Labelled(graph.const(0), ())
        parts = [part for part in parts if not part.value.node.host]
        above += [part.value.node for part in hosts if not part.inverse]
        below += [part.value.node for part in hosts if part.inverse]
        summed = {index for index in present if index not in order}
        masked = self._masked(parts, pieces.masks, summed)
        if masked is None:
            return self._scaled(self._guarded(pieces, order), above, below)
        one = Labelled(graph.const(1), ())
        parts = [
            Part(self._binary("div", one, part.value)) if part.inverse and set(part.value.labels) & summed else part
            for part in masked
        ]
        if not parts:
            return self._scaled(Labelled(graph.const(1), ()), above, below)
        masks = pieces.masks if not summed else []
        windows = self._convolved(parts, order) if not pieces.masks else None
        if windows is None:
            if above or below:
                self._scale_smallest(parts, above, below, order)
            result = self._contract(parts, order)
        else:
            result = windows
        result = self._scaled(result, above, below)
        return self._chosen(masks, result, order)

    def _convolved(self, parts: Sequence[Part], order: Indices) -> Labelled | None:
        """The product of an array read in windows and one other, where it is a convolution or the gradient of K."""
        if len(parts) != 2 or any(part.inverse for part in parts):
            return None
        for one, other in (parts, parts[::-1]):
            read = one.read
            if read is None or all(place.index is not None for place in read.places):
                continue
            X = self.arrays[read.tensor]
            if X.host or X.kind != "float":
                continue
            kept = tuple(i for i in ordered(one.value.labels, other.value.labels) if i in order)
            forward = Convolution(self.graph, self.table, read, X.shape, kept, other.value.labels)
            weight = Convolution(self.graph, self.table, read, X.shape, other.value.labels, kept)
            if forward.fits and (forward.likely or not weight.fits):
                return forward.forward(X, other.value)
            if weight.fits:
                return weight.weight(X, other.value)
        return None

    def _chosen(self, masks: Sequence[Labelled], value: Labelled, order: Indices = ()) -> Labelled:
        """The value where all brackets hold, else 0."""
        if not masks:
            return value
        holds = masks[0]
        for mask in masks[1:]:
            labels = ordered(holds.labels, mask.labels)
            both = self.graph.both(aligned(self.graph, holds, labels), aligned(self.graph, mask, labels))
            holds = Labelled(both, labels)
        labels = _in_order(ordered(value.labels, holds.labels), order)
        sides = aligned(self.graph, holds, labels), aligned(self.graph, value, labels)
        return Labelled(self.graph.where(sides[0], sides[1], self.graph.const(0)), labels)

    def _masked(self, parts: list[Part], masks: Sequence[Labelled], summed: set[Index]) -> list[Part] | None:
        """The factors with the brackets worked into them, where something is summed; None where that cannot be done.

        A bracket goes into every factor that may be infinite behind it, or else into one factor.
        """
        if not masks:
            return parts
        if not summed:
            return parts or [Part(Labelled(self.graph.const(1), ()))]
        parts = [
            Part(self._binary("div", Labelled(self.graph.const(1), ()), p.value)) if p.inverse else p for p in parts
        ]
        for mask in masks:
            over = set(mask.labels)
            if any(not part.safe and not over <= set(part.value.labels) for part in parts):
                return None
            fits = [i for i, part in enumerate(parts) if over <= set(part.value.labels)]
            risky = [i for i in fits if not parts[i].safe]
            if not fits:
                parts.append(Part(Labelled(self.graph.floating(mask.node), mask.labels), safe=True))
            for i in risky or sorted(fits, key=lambda i: entries(parts[i].value.node.shape))[:1]:
                parts[i] = Part(self._chosen([mask], parts[i].value), safe=parts[i].safe)
        return parts

    def _guarded(self, pieces: Pieces, order: Indices) -> Labelled:
        """Every entry of the product written out, so that a false bracket counts for 0 beside an infinity."""
        parts = [p for p in pieces.parts if not p.value.node.host]
        everything = ordered(order, *(part.value.labels for part in parts))
        product = self._contract(parts, everything)
        full = self._chosen(pieces.masks, product, order)
        return self._sum_out(full, frozenset(order))

    def _scaled(self, value: Labelled, above: list[Node], below: list[Node]) -> Labelled:
        """Times and divided by plain numbers."""
        over, under = self._product(above), self._product(below)
        above.clear()
        below.clear()
        node = value.node
        if node.value == 0:
            return value
        if node.host and node.value == 1:
            return Labelled(self.graph.binary("div", over, under), value.labels)
        node = self.graph.binary("mul", over, node)
        return Labelled(self.graph.binary("div", node, under), value.labels)

    def _product(self, nodes: Sequence[Node]) -> Node:
        out = self.graph.const(1)
        for node in nodes:
            out = self.graph.binary("mul", out, node)
        return out

    def _scale_smallest(self, parts: list[Part], above: list[Node], below: list[Node], order: Indices) -> None:
        """Work plain numbers into the factor with the fewest entries, where that is less than the result.

        Sizes are guesses here: a factor as large as an input is less than a result that no input or output is like.
        """
        shape = self.table.shape(tuple({i: None for p in parts for i in p.value.labels if i in order}))

        def cost(dims: Shape) -> tuple[bool, int]:
            return not self._usual(dims) and not set(shape) <= set(dims), entries(dims)

        smallest = min(range(len(parts)), key=lambda i: (parts[i].inverse, cost(parts[i].value.node.shape)))
        chosen = parts[smallest]
        if not chosen.inverse and cost(chosen.value.node.shape) < (not self._usual(shape), entries(shape)):
            parts[smallest] = Part(self._scaled(chosen.value, above, below), safe=chosen.safe)

    def _usual(self, shape: Shape) -> bool:
        """Whether the axes are those of an input, or of the output, and so take no more than what is there anyway."""
        return any(set(shape) <= set(node.shape) for node in self.arrays.values() if node.op == "input")

    def _contract(self, parts: Sequence[Part], keep: Indices) -> Labelled:
        """``Σ Π parts`` over all indices not in ``keep``, in the cheapest order."""
        if not {index for part in parts for index in part.value.labels} - set(keep):
            parts = [self._together(parts, keep)]
        pool: list[Part | None] = list(parts)
        for first, second, left, _, _ in plan([frozenset(p.value.labels) for p in parts], frozenset(keep), self.size):
            a, b = pool[first], pool[second]
            assert a is not None
            assert b is not None
            pool[first] = pool[second] = None
            pool.append(self._multiply(a, b, left, keep))
        (last,) = (part for part in pool if part is not None)
        value = last.value
        if last.inverse:
            value = self._binary("div", Labelled(self.graph.const(1), ()), value)
        return self._sum_out(value, frozenset(keep))

    def _together(self, parts: Sequence[Part], order: Indices) -> Part:
        """A product without sums: small factors with each other as long as that stays small, then into the largest."""
        pool = list(parts)
        everything = {index for part in parts for index in part.value.labels}

        def size(part: Part) -> tuple[int, bool]:
            return entries(part.value.node.shape), part.inverse

        while len(pool) > 1:
            pool.sort(key=size)
            labels = {k: found for k, part in enumerate(pool) if (found := set(part.value.labels)) != everything}
            small = next(
                (
                    (i, j)
                    for j in labels
                    for i in labels
                    if i < j and (labels[i] | labels[j] != everything or labels[i] == labels[j])
                ),
                (len(pool) - 2, len(pool) - 1),
            )
            other, one = pool.pop(small[1]), pool.pop(small[0])
            left = frozenset((*one.value.labels, *other.value.labels))
            if other.inverse and not one.inverse:
                pool.append(self._multiply(one, other, left, order))
            else:
                pool.append(self._multiply(other, one, left, order))
        return pool[0]

    def _sum_out(self, value: Labelled, keep: frozenset[Index]) -> Labelled:
        axes = [axis for axis, index in enumerate(value.labels) if index not in keep]
        if not axes:
            return value
        node, labels = self.graph.floating(value.node), tuple(i for i in value.labels if i in keep)
        if node.op == "square" and not node.args[0].host:
            base = node.args[0]
            if len(axes) == base.rank:
                flat = self.graph.reshape(base, [self.table.product(base.shape)])
                return Labelled(self.graph.matmul(flat, flat), ())
            if axes == [base.rank - 1]:
                return Labelled(self.graph.vecdot(base, base), labels)
        return Labelled(self.graph.reduce("sum", node, axes), labels)

    def _multiply(self, one: Part, other: Part, left: frozenset[Index], order: Indices) -> Part:
        """The product of two, summed over what ``left`` does not keep."""
        a = self._sum_out(one.value, left.union(other.value.labels))
        b = self._sum_out(other.value, left.union(one.value.labels))
        summed = tuple(index for index in a.labels if index not in left)
        if summed and not one.inverse and not other.inverse and (known := self._known_product(a, b)) is not None:
            return Part(self._sum_out(known, left))
        if not summed:
            if one.inverse and other.inverse:
                return Part(self._binary("mul", a, b, order), True)
            if one.inverse:
                a, b = b, a
            return Part(self._binary("div" if one.inverse or other.inverse else "mul", a, b, order))
        a = Labelled(self.graph.floating(a.node), a.labels)
        b = Labelled(self.graph.floating(b.node), b.labels)
        batch = tuple(index for index in a.labels if index in b.labels and index in left)
        rows = tuple(index for index in a.labels if index not in batch and index not in summed)
        columns = tuple(index for index in b.labels if index not in batch and index not in summed)
        if not rows and not columns:
            return Part(self._dots(a, b, batch, summed))
        if _position(columns, order) < _position(rows, order) < len(order):
            a, b, rows, columns = b, a, columns, rows
        return Part(self._matmul(a, b, batch, rows, columns, summed))

    def _known_product(self, a: Labelled, b: Labelled) -> Labelled | None:
        """The product of two arrays entry by entry, where another line has it already."""
        if set(a.labels) != set(b.labels):
            return None
        node = self.graph.known("mul", a.node, aligned(self.graph, b, a.labels))
        if node is not None:
            return Labelled(node, a.labels)
        node = self.graph.known("mul", b.node, aligned(self.graph, a, b.labels))
        return Labelled(node, b.labels) if node is not None else None

    def _dots(self, a: Labelled, b: Labelled, batch: Indices, summed: Indices) -> Labelled:
        graph = self.graph
        if not batch and len(summed) == 1:
            return Labelled(graph.matmul(a.node, b.node), ())
        if not batch or (a.labels == (*batch, *summed) and b.labels == (*batch, *summed)):
            shape = [*self.table.shape(batch), self.table.product(self.table.shape(summed))]
            sides = [graph.reshape(aligned(graph, side, (*batch, *summed)), shape) for side in (a, b)]
            return Labelled(graph.vecdot(*sides) if batch else graph.matmul(*sides), batch)
        spots = {index: "abcdefghijklmnopqrstuvwxyz"[i] for i, index in enumerate(ordered(a.labels, b.labels))}
        text = ["".join(spots[i] for i in labels) for labels in (a.labels, b.labels, batch)]
        node = graph.node(
            "einsum", (a.node, b.node), (f"{text[0]},{text[1]}->{text[2]}",), self.table.shape(batch), "float"
        )
        return Labelled(node, batch)

    def _matmul(
        self, a: Labelled, b: Labelled, batch: Indices, rows: Indices, columns: Indices, summed: Indices
    ) -> Labelled:
        graph, table = self.graph, self.table
        A = self._matrices(a, batch, rows, summed)
        B = self._matrices(b, batch, summed, columns)
        if batch and not rows:
            A = graph.view(A, [*range(len(batch)), None, len(batch)])
        if batch and not columns:
            B = graph.view(B, [*range(A.rank - 1), None])
        product = graph.matmul(A, B)
        labels = (*batch, *rows, *columns)
        if batch and not (rows and columns):
            flat = [*table.shape(batch), *([table.product(table.shape(rows or columns))])]
            product = graph.reshape(product, flat)
        return Labelled(graph.reshape(product, table.shape(labels)), labels)

    def _matrices(self, value: Labelled, batch: Indices, rows: Indices, columns: Indices) -> Node:
        """A stack of matrices; a group without axes is left out."""
        graph, table = self.graph, self.table
        turned = rows and columns and value.labels == (*batch, *columns, *rows)
        groups = (columns, rows) if turned else (rows, columns)
        node = aligned(graph, value, (*batch, *groups[0], *groups[1]))
        shape = [*table.shape(batch), *(table.product(table.shape(group)) for group in groups if group)]
        node = graph.reshape(node, shape)
        if turned:
            node = graph.view(node, [*range(len(batch)), len(batch) + 1, len(batch)])
        return node


# Numbers with longer parts are written as the double that they are, not as a quotient of integers.
LONG = 10**6


class _Hints(dict[Index, int]):
    """About how large each index is."""

    def __init__(self, table: SizeTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, index: Index) -> int:
        return self._table[index].hint


def _decimal(value: Fraction) -> bool:
    """Whether a number is a short decimal."""
    rest = value.denominator
    while rest % 2 == 0:
        rest //= 2
    while rest % 5 == 0:
        rest //= 5
    return rest == 1 and len(repr(float(value))) < 8


def _in_order(labels: Indices, order: Indices) -> Indices:
    known = [index for index in order if index in labels]
    return (*known, *(index for index in labels if index not in known))


def _position(labels: Iterable[Index], order: Indices) -> int:
    """Where a group of axes begins in an order."""
    return min((order.index(index) for index in labels if index in order), default=len(order))
