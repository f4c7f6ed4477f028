"""Reads at places, and adding to places, as operations on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ._expr import Affine, Index, Indices, Read, SizeOf, ordered
from ._graph import Graph, Node
from ._shapes import Dim, SizeTable


class Labelled(NamedTuple):
    """A node and the index of each axis; all distinct."""

    node: Node
    labels: Indices


def aligned(graph: Graph, value: Labelled, labels: Indices) -> Node:
    """With the axes in the order of ``labels``; of length 1 where the array has none, in front left out."""
    axes: list[int | None] = [value.labels.index(i) if i in value.labels else None for i in labels]
    while axes and axes[0] is None:
        axes = axes[1:]
    return value.node if value.node.host or not value.labels else graph.view(value.node, axes)


class Places:
    """Lowers positions and reads."""

    def __init__(self, graph: Graph, table: SizeTable, gather: Callable[[Read], Labelled]) -> None:
        self.graph = graph
        self.table = table
        self._gather = gather

    def position(self, at: Affine) -> Labelled:
        """The values of a position along the indices it mentions."""
        graph = self.graph
        total = Labelled(graph.const(0), ())
        for term, coefficient in sorted(at.terms, key=lambda pair: pair[1] < 0):
            if isinstance(term, SizeOf):
                part = Labelled(graph.size(self.table[term]), ())
            elif isinstance(term, Index):
                part = Labelled(graph.iota(self.table[term]), (term,))
            else:
                part = self._gather(term)
            scaled = graph.binary("mul", graph.const(abs(coefficient)), part.node)
            labels = ordered(i for i in at.free if i in (*total.labels, *part.labels))
            sides = [aligned(graph, side, labels) for side in (total, Labelled(scaled, part.labels))]
            if coefficient > 0 and total.node.host:
                sides = sides[::-1]
            total = Labelled(graph.binary("add" if coefficient > 0 else "sub", *sides), labels)
        constant = graph.const(abs(at.constant))
        node = graph.binary("add" if at.constant >= 0 else "sub", total.node, constant)
        return Labelled(node, () if node.host else total.labels)  # e[i] - e[i] varies with nothing

    def entry(self, mode: str | None, position: Node, length: Dim) -> tuple[Node, Node | None]:
        """The entry that each position reads, and under ``zero`` where there is one."""
        graph = self.graph
        n = graph.size(length)
        last = graph.binary("sub", n, graph.const(1))
        if mode is None:
            return position, None
        if mode in ("zero", "clamp"):
            inside = graph.binary("minimum", graph.binary("maximum", position, graph.const(0)), last)
            if mode == "clamp":
                return inside, None
            return inside, graph.compare("==", position, inside)
        if mode == "wrap":
            return graph.binary("mod", position, n), None
        if mode == "mirror":
            period = graph.binary("mul", graph.const(2), n)
            turned = graph.binary("sub", period, graph.const(1))
        else:
            period = graph.binary("maximum", graph.binary("mul", graph.const(2), last), graph.const(1))
            turned = period
        folded = graph.binary("mod", position, period)
        back = graph.binary("sub", turned, folded)
        return graph.binary("minimum", folded, back), None

    def _indexed(self, where: Read, dims: Sequence[Dim]) -> list[tuple[Labelled, Labelled | None]]:
        """For each axis the entries that are read, and where there is one."""
        out = []
        for place, dim in zip(where.places, dims, strict=True):
            value = self.position(place.at)
            at, holds = self.entry(place.mode, value.node, dim)
            if place.at.gathers and place.mode is None and not at.host:
                at = self.graph.node("inside", (at, self.graph.size(dim)), (), at.shape, at.kind)
            out.append((Labelled(at, value.labels), Labelled(holds, value.labels) if holds is not None else None))
        return out

    def groups(self, where: Read) -> list[list[int]]:
        """The axes of a read, those that share an index together."""
        out: list[tuple[set[Index], list[int]]] = []
        for axis, place in enumerate(where.places):
            free = set(place.at.free)
            joined = [group for group in out if group[0] & free]
            out = [group for group in out if not any(group is other for other in joined)]
            free = free.union(*(group[0] for group in joined))
            out.append((free, sorted([axis, *(a for group in joined for a in group[1])])))
        return sorted(axes for _, axes in out)

    def read(self, array: Node, where: Read) -> Labelled:
        """``T[places]`` along the indices of the places."""
        graph, dims = self.graph, array.shape
        if array.host:
            return Labelled(array, ())
        groups = self.groups(where)
        single = {g[0] for g in groups if len(g) == 1 and where.places[g[0]].index is not None}
        sizes = [
            self.table[index] if axis in single and (index := place.index) is not None else dim
            for axis, (place, dim) in enumerate(zip(where.places, dims, strict=True))
        ]
        array = graph.cut(array, sizes)
        if len(single) == len(where.places):
            return Labelled(array, tuple(place.index for place in where.places if place.index is not None))
        found = self._indexed(where, dims)
        # Each axis of the array as it is read so far: an index of its own, or the number of an axis still to be read.
        axes: list[Index | int] = [p.index if a in single and p.index else a for a, p in enumerate(where.places)]
        for group in groups:
            if group[0] in single:
                continue
            if len(group) == 1:
                at = axes.index(group[0])
                value = found[group[0]][0]
                array = graph.take(array, at, value.node)
                axes[at : at + 1] = value.labels
            else:
                labels = ordered(*(found[axis][0].labels for axis in group))
                front = [axes.index(axis) for axis in group]
                rest = [i for i in range(len(axes)) if i not in front]
                array = graph.view(array, [*front, *rest])
                array = graph.gather(array, [aligned(graph, found[axis][0], labels) for axis in group])
                axes = [*labels, *(axes[i] for i in rest)]
        labels = tuple(index for index in axes if isinstance(index, Index))
        for _, holds in found:
            if holds is not None:
                array = graph.where(aligned(graph, holds, labels), array, graph.const(0))
        return Labelled(array, labels)

    def add(self, target: Node, where: Read, value: Labelled) -> Node:
        """``T[places] += value``; where indices meet an entry several times, all count."""
        graph, dims = self.graph, target.shape
        groups = self.groups(where)
        plain = [g[0] for g in groups if len(g) == 1 and where.places[g[0]].index is not None]
        chosen = [axis for axis in range(len(where.places)) if axis not in plain]
        found = self._indexed(where, dims)
        labels = ordered(*(found[axis][0].labels for axis in chosen))
        rest = tuple(index for axis in plain if (index := where.places[axis].index) is not None)
        summed = [axis for axis, index in enumerate(value.labels) if index not in (*labels, *rest)]
        kept = tuple(index for index in value.labels if index in (*labels, *rest))
        node = aligned(graph, Labelled(graph.reduce("sum", value.node, summed), kept), (*labels, *rest))
        for axis in chosen:
            holds = found[axis][1]
            if holds is not None:
                node = graph.where(aligned(graph, holds, (*labels, *rest)), node, graph.const(0))
        node = graph.floating(node)
        at = [aligned(graph, found[axis][0], labels) for axis in chosen]
        bare = {place.index for place in where.places}
        distinct = all(index in bare for index in labels)
        cuts = tuple(
            self.table[index] if (index := where.places[axis].index) and self.table[index] is not dims[axis] else None
            for axis in plain
        )
        attrs = ((*chosen, *plain), len(chosen), cuts, distinct, self.table.shape((*labels, *rest)))
        return graph.node("scatter", (target, node, *at), attrs, target.shape, "float")
