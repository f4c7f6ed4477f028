"""Sums of products of labelled arrays, through matrix products in a searched order.

A labelled array is an array and one index per axis. `contract` multiplies several and sums over the indices that the
result does not keep. Pairs are multiplied in the order that costs the fewest multiply-adds: found by exhaustive search
for up to six factors, greedily beyond. Each pair becomes one BLAS product where something is summed, an entry-by-entry
product where nothing is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import FormulaError, column_sums, product
from ._expr import Index, Indices

EXHAUSTIVE = 6
# Pairs that the greedy search weighs at each step.
NEAR = 16
# Rows up to which float32 column sums lose no more than a digit in BLAS.
SHORT = 2**14
# Axes that an array of NumPy 2 may have.
MAX_AXES = 64
# Bytes of the copy that one block of a strided view may need; a few of them fit a core's cache.
BLOCK = 2**21


class Labelled(NamedTuple):
    """An array and the index of each axis; all distinct."""

    array: Any
    labels: Indices

    def aligned(self, labels: Indices) -> Any:
        """A view with the axes in the order of ``labels``, of length 1 where the array has none."""
        if len(labels) > MAX_AXES:
            raise FormulaError(f"{len(labels)} indices meet in one product or sum; NumPy's arrays have {MAX_AXES} axes")
        mine = [index for index in labels if index in self.labels]
        array = self.array
        if tuple(mine) != self.labels:
            array = array.transpose([self.labels.index(index) for index in mine])
        if len(mine) < len(labels):
            array = array[tuple(slice(None) if index in self.labels else None for index in labels)]
        return array


class Pair(NamedTuple):
    """One product of a plan: the positions of its operands, the indices it keeps, its multiply-adds and its entries."""

    first: int
    second: int
    keep: frozenset[Index]
    work: int
    entries: int


def plan(operands: Sequence[frozenset[Index]], keep: frozenset[Index], size: Mapping[Index, int]) -> list[Pair]:
    """The order of pairwise products: each takes two of the list and appends its result at the end."""
    count = len(operands)
    if count < 2:
        return []
    if count == 2:
        both = operands[0] | operands[1]
        left = both & keep
        return [Pair(0, 1, left, math.prod(size[k] for k in both), math.prod(size[k] for k in left))]
    return _cheapest(operands, keep, size) if count <= EXHAUSTIVE else _greedy(operands, keep, size)


def _cheapest(operands: Sequence[frozenset[Index]], keep: frozenset[Index], size: Mapping[Index, int]) -> list[Pair]:
    """Exhaustive search over all orders, by subsets."""
    n = len(operands)
    everything = (1 << n) - 1
    members = {s: [i for i in range(n) if s >> i & 1] for s in range(1, everything + 1)}
    inside = {s: frozenset().union(*(operands[i] for i in members[s])) for s in members}
    left = {s: inside[s] & keep.union(*(operands[i] for i in range(n) if not s >> i & 1)) for s in members}
    best: dict[int, tuple[int, int, int, int]] = {}
    for i in range(n):
        best[1 << i] = (0, 0, 0, 0)
        left[1 << i] = operands[i]
    for s in sorted(members, key=lambda s: len(members[s])):
        if s in best:
            continue
        lowest = s & -s
        choices = []
        part = (s - 1) & s
        while part:
            if part & lowest:
                rest = s ^ part
                work = math.prod(size[k] for k in left[part] | left[rest])
                entries = math.prod(size[k] for k in left[s])
                cost = best[part][0] + best[rest][0] + work
                choices.append((cost, best[part][1] + best[rest][1] + entries, part, rest))
            part = (part - 1) & s
        best[s] = min(choices)
    out: list[Pair] = []

    def build(s: int) -> int:
        if s & (s - 1) == 0:
            return members[s][0]
        _, _, part, rest = best[s]
        first, second = sorted((part, rest), key=lambda p: members[p][0])
        i, j = build(first), build(second)
        work = math.prod(size[k] for k in left[part] | left[rest])
        out.append(Pair(i, j, left[s], work, math.prod(size[k] for k in left[s])))
        return n + len(out) - 1

    build(everything)
    return out


def _greedy(operands: Sequence[frozenset[Index]], keep: frozenset[Index], size: Mapping[Index, int]) -> list[Pair]:
    """Again and again, of pairs that share an index, the one whose result is smallest beside what it consumes."""
    alive = dict(enumerate(operands))
    owners: dict[Index, dict[int, None]] = {}
    for i, labels in alive.items():
        for index in labels:
            owners.setdefault(index, {})[i] = None
    out: list[Pair] = []

    def pair(i: int, j: int) -> Pair:
        both = alive[i] | alive[j]
        left = frozenset(k for k in both if k in keep or len(owners[k]) > (k in alive[i]) + (k in alive[j]))
        return Pair(i, j, left, math.prod(size[k] for k in both), math.prod(size[k] for k in left))

    def gain(found: Pair) -> tuple[int, int, int, int]:
        used = sum(math.prod(size[k] for k in alive[i]) for i in (found.first, found.second))
        return found.entries - used, found.work, found.first, found.second

    while len(alive) > 1:
        shared = (tuple(itertools.islice(having, 2)) for having in owners.values() if len(having) > 1)
        near = list(itertools.islice(shared, NEAR)) or [tuple(itertools.islice(alive, 2))]
        chosen = min((pair(*sorted(two)) for two in near), key=gain)
        out.append(chosen)
        for i in (chosen.first, chosen.second):
            for index in alive.pop(i):
                del owners[index][i]
                if not owners[index]:
                    del owners[index]
        new = len(operands) + len(out) - 1
        alive[new] = chosen.keep
        for index in chosen.keep:
            owners.setdefault(index, {})[new] = None
    return out


def contract(operands: Sequence[Labelled], keep: Indices) -> Labelled:
    """``Σ Π operands`` over all indices not in ``keep``; the result has those of ``keep`` that some operand has.

    Where the order of its axes is free it follows ``keep``.
    """
    size = {index: n for array, labels in operands for index, n in zip(labels, array.shape, strict=True)}
    block = _block_index(operands)
    if block is not None:
        return _in_blocks(operands, keep, size, *block)
    pool: list[Labelled | None] = list(operands)
    kept = frozenset(keep)
    for first, second, left, _, _ in plan([frozenset(o.labels) for o in operands], kept, size):
        a, b = pool[first], pool[second]
        assert a is not None
        assert b is not None
        pool[first] = pool[second] = None
        pool.append(_multiply(a, b, left, keep))
    (last,) = (operand for operand in pool if operand is not None)
    return _sum_out(last, kept)


def _sum_out(operand: Labelled, keep: frozenset[Index]) -> Labelled:
    """Sum over the axes that are not kept."""
    array, labels = operand
    axes = tuple(i for i, index in enumerate(labels) if index not in keep)
    if not axes:
        return operand
    left = tuple(index for index in labels if index in keep)
    wide = np.float64 if array.dtype == np.float32 and axes[-1] != array.ndim - 1 else array.dtype
    rows = math.prod(array.shape[: len(axes)])
    leading = axes == tuple(range(len(axes))) and left and array.flags.c_contiguous
    if leading and array.dtype.kind == "f" and 0 < rows <= SHORT:
        return Labelled(column_sums(array.reshape(rows, -1)).reshape(array.shape[len(axes) :]), left)
    # NumPy adds up pairwise along the last axis alone; along others float32 needs a longer accumulator.
    return Labelled(np.asarray(array.sum(axis=axes, dtype=wide)).astype(array.dtype, copy=False), left)


def _multiply(a: Labelled, b: Labelled, left: frozenset[Index], order: Indices) -> Labelled:
    """The product of two, summed over what ``left`` does not keep."""
    a = _sum_out(a, left.union(b.labels))
    b = _sum_out(b, left.union(a.labels))
    summed = tuple(index for index in a.labels if index not in left)
    if not summed:
        labels = _in_order((*a.labels, *(i for i in b.labels if i not in a.labels)), order)
        return Labelled(a.aligned(labels) * b.aligned(labels), labels)
    batch = tuple(index for index in a.labels if index in b.labels and index in left)
    rows = tuple(index for index in a.labels if index not in batch and index not in summed)
    columns = tuple(index for index in b.labels if index not in batch and index not in summed)
    if not rows and not columns:
        return Labelled(np.vecdot(*_flat_pair(a, b, batch, summed)), batch)
    if _position(columns, b, order) < _position(rows, a, order):
        a, b, rows, columns = b, a, columns, rows
    shape = [dict(zip(a.labels, a.array.shape, strict=True)), dict(zip(b.labels, b.array.shape, strict=True))]
    out_shape = [*(shape[0][i] for i in (*batch, *rows)), *(shape[1][i] for i in columns)]
    A = _matrices(a, batch, rows, summed)
    B = _matrices(b, batch, summed, columns)
    return Labelled(_products(A, B).reshape(out_shape), (*batch, *rows, *columns))


def _in_order(labels: Indices, order: Indices) -> Indices:
    known = [index for index in order if index in labels]
    return (*known, *(index for index in labels if index not in known))


def _position(labels: Indices, of: Labelled, order: Indices) -> int:
    """Where a group of axes begins in an order; axes of length 1 may stand anywhere."""
    long = [i for i, n in zip(of.labels, of.array.shape, strict=True) if n > 1 and i in labels and i in order]
    return min((order.index(index) for index in long), default=len(order))


def _flat_pair(a: Labelled, b: Labelled, batch: Indices, summed: Indices) -> tuple[Any, Any]:
    pair = [operand.aligned((*batch, *summed)) for operand in (a, b)]
    shape = pair[0].shape
    flat = (*shape[: len(batch)], math.prod(shape[len(batch) :]))
    return pair[0].reshape(flat), pair[1].reshape(flat)


def _matrices(operand: Labelled, batch: Indices, rows: Indices, columns: Indices) -> Any:
    """A stack of matrices, batch × rows × columns; copied only where the axes do not merge, contiguous ones last."""
    array = operand.aligned((*batch, *rows, *columns))
    shape = array.shape
    count, r = math.prod(shape[: len(batch)]), math.prod(shape[len(batch) : len(batch) + len(rows)])
    c = math.prod(shape[len(batch) + len(rows) :])
    strides = {index: abs(stride) for index, stride in zip(operand.labels, operand.array.strides, strict=True)}
    inner = min(
        (i for i in (*rows, *columns)), key=lambda i: (strides[i], -operand.array.shape[operand.labels.index(i)])
    )
    if inner in rows:
        turned = operand.aligned((*batch, *columns, *rows)).reshape(count, c, r)
        return turned.swapaxes(1, 2)
    return array.reshape(count, r, c)


def _products(A: Any, B: Any) -> Any:
    """``A @ B`` of two stacks: large matrices one by one through SciPy's BLAS, many small ones through NumPy's loop."""
    count, rows, inner = A.shape
    columns = B.shape[2]
    if count == 1:
        return product(A[0], B[0])
    if count <= 16 or rows * inner * columns >= 2**17:
        out = np.empty((count, rows, columns), A.dtype)
        for a, b, c in zip(A, B, out, strict=True):
            product(a, b, out=c)
        return out
    return np.matmul(A, B)


def expanded(array: Any) -> bool:
    """Whether a view shows entries of its memory more than once, so that a copy of it would be larger."""
    if array.nbytes <= BLOCK:
        return False
    reach = sum((n - 1) * abs(s) for n, s in zip(array.shape, array.strides, strict=True)) + array.itemsize
    return bool(array.nbytes > 1.5 * reach)


def _block_index(operands: Sequence[Labelled]) -> tuple[Index, int] | None:
    """An index to go along block by block, and its step, where copies of an expanded view would be large."""
    for array, labels in operands:
        if len(operands) > 1 and expanded(array):
            steps = [abs(s) for s in array.strides]
            first = max(range(len(labels)), key=lambda i: (steps[i], -i))
            step = max(1, BLOCK * array.shape[first] // array.nbytes)
            if step < array.shape[first]:
                return labels[first], step
    return None


def blocks(length: int, step: int) -> Iterator[slice]:
    """Slices of ``step`` entries that cover ``length``."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def take(operands: Sequence[Labelled], index: Index, part: slice) -> list[Labelled]:
    """Every operand cut to a part of one index."""
    out = []
    for array, labels in operands:
        if index in labels:
            array = array[tuple(part if i == index else slice(None) for i in labels)]
        out.append(Labelled(array, labels))
    return out


def _in_blocks(
    operands: Sequence[Labelled], keep: Indices, size: Mapping[Index, int], index: Index, step: int
) -> Labelled:
    """`contract`, one block of an index after another: put side by side where it is kept, added up where not."""
    result: Labelled | None = None
    for part in blocks(size[index], step):
        piece = contract(take(operands, index, part), keep)
        if index not in keep:
            result = piece if result is None else Labelled(result.array + piece.aligned(result.labels), result.labels)
            continue
        if result is None:
            shape = [size[i] if i == index else n for i, n in zip(piece.labels, piece.array.shape, strict=True)]
            result = Labelled(np.empty(shape, piece.array.dtype), piece.labels)
        result.array[tuple(part if i == index else slice(None) for i in result.labels)] = piece.aligned(result.labels)
    assert result is not None
    return result
