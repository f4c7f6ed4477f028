"""Reading tensors at affine places, and the transpose of that: adding to them.

Both go through strided views. An axis read at ``s*p + d*r - 1`` is one axis of memory seen as two, p and r, without a
copy; adding to it takes one strided slice per value of r. A boundary mode gathers the padded axis once and is folded
back at the end. No position is ever inverted, and nothing loops over entries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ._contract import Labelled
from ._expr import Affine, Index, Indices, Place, Read, SizeOf, ordered

Sizes = Mapping[Any, int]
Gather = Callable[[Read], Labelled]


def integers(at: Affine, size: Sizes, gather: Gather) -> Labelled:
    """The values of a position, over the indices it mentions."""
    labels = at.free
    total: Any = np.asarray(at.constant, np.int64)
    for term, coefficient in at.terms:
        if isinstance(term, SizeOf):
            total = total + coefficient * size[term.range]
        elif isinstance(term, Index):
            axis = [1] * len(labels)
            axis[labels.index(term)] = size[term]
            total = total + coefficient * np.arange(size[term]).reshape(axis)
        else:
            total = total + coefficient * gather(term).aligned(labels)
    return Labelled(np.broadcast_to(total, [size[index] for index in labels]), labels)


def bounds(at: Affine, size: Sizes) -> tuple[int, int]:
    """The smallest and largest value of a position without gathers; of an empty range, of its first entry."""
    low = high = at.constant
    for term, coefficient in at.terms:
        reach = coefficient * (size[term.range] if isinstance(term, SizeOf) else max(size[term] - 1, 0))
        ends = (reach, reach) if isinstance(term, SizeOf) else (min(0, reach), max(0, reach))
        low, high = low + ends[0], high + ends[1]
    return low, high


def entry(mode: str, position: Any, length: int) -> Any:
    """The entry that a boundary mode reads for each position; -1 for the zeros around ``zero``."""
    if mode == "zero":
        return np.where((position >= 0) & (position < length), position, -1)
    if mode == "clamp":
        return np.clip(position, 0, length - 1)
    if mode == "wrap":
        return position % length
    if mode == "mirror":
        folded = position % (2 * length)
        return np.where(folded < length, folded, 2 * length - 1 - folded)
    period = max(2 * (length - 1), 1)
    folded = position % period
    return np.where(folded < length, folded, period - folded)


def _linear(at: Affine, size: Sizes) -> tuple[int, dict[Index, int]]:
    """A position without gathers as an offset and one coefficient per index."""
    offset, steps = at.constant, dict[Index, int]()
    for term, coefficient in at.terms:
        if isinstance(term, SizeOf):
            offset += coefficient * size[term.range]
        elif isinstance(term, Index):
            steps[term] = coefficient
    return offset, steps


def _view(array: Any, places: Sequence[tuple[int, dict[Index, int]]], labels: Indices, size: Sizes) -> Any:
    """The array seen along ``labels``: its offset and its strides are sums over the axes that mention each."""
    strides = dict.fromkeys(labels, 0)
    start = array
    for axis, (offset, steps) in enumerate(places):
        for index, step in steps.items():
            strides[index] += step * array.strides[axis]
        start = start[(slice(None),) * axis + (slice(offset, None) if offset else slice(None),)]
    return as_strided(start, [size[index] for index in labels], [strides[index] for index in labels])


def read(array: Any, where: Read, size: Sizes, gather: Gather) -> Labelled:
    """``T[places]`` along the indices of the places: a view wherever memory allows one."""
    places = where.places
    if any(size[index] == 0 for index in where.free):
        return Labelled(np.empty([size[index] for index in where.free], array.dtype), where.free)
    if all(place.index is not None for place in places) and len(where.free) == len(places):
        cut = tuple(slice(0, size[place.index]) for place in places)
        return Labelled(array if tuple(s.stop for s in cut) == array.shape else array[cut], where.free)
    if axes := _by_arrays(array, places, size):
        return _take(array, where, axes, size, gather)
    linear = []
    for axis, place in enumerate(places):
        offset, steps = _linear(place.at, size)
        if place.mode is not None:
            low, high = bounds(place.at, size)
            array = _padded(array, axis, place.mode, low, high)
            offset -= low
        linear.append((offset, steps))
    return Labelled(_view(array, linear, where.free, size), where.free)


def _padded(array: Any, axis: int, mode: str, low: int, high: int) -> Any:
    """The entries that positions low to high read along one axis."""
    length = array.shape[axis]
    if low >= 0 and high < length:
        return array[(slice(None),) * axis + (slice(low, high + 1),)]
    if mode != "zero":
        return np.take(array, entry(mode, np.arange(low, high + 1), length), axis=axis)
    shape = list(array.shape)
    shape[axis] = high - low + 1
    out = np.zeros(shape, array.dtype)
    first, stop = max(low, 0), min(high + 1, length)
    if first < stop:
        front = (slice(None),) * axis
        out[(*front, slice(first - low, stop - low))] = array[(*front, slice(first, stop))]
    return out


def _indices(place: Place, axis: int, array: Any, size: Sizes, gather: Gather, name: str) -> Labelled:
    """The entries along one axis that a place reads, -1 for a zero."""
    position, labels = integers(place.at, size, gather)
    length = array.shape[axis]
    if place.mode is not None:
        return Labelled(entry(place.mode, position, length) if length else np.full_like(position, -1), labels)
    if position.size and (position.min() < 0 or position.max() >= length):
        raise OutOfBounds(name, axis, int(position.min()), int(position.max()), length)
    return Labelled(position, labels)


class OutOfBounds(Exception):
    """A gather outside its axis: tensor, axis, lowest and highest position, length."""


def _sparse(place: Place, length: int, size: Sizes) -> bool:
    """Whether positions in a boundary mode lie so far apart that the padded axis would be much larger than they are."""
    if place.mode is None or place.at.gathers:
        return False
    low, high = bounds(place.at, size)
    return high - low > 8 * (length + math.prod(size[index] for index in place.at.free)) + 1024


def _by_arrays(array: Any, places: Sequence[Place], size: Sizes) -> list[int]:
    """The axes that have to be indexed by arrays whatever the others do."""
    return [a for a, place in enumerate(places) if place.at.gathers or _sparse(place, array.shape[a], size)]


def _advanced(places: Sequence[Place], chosen: list[int]) -> list[int]:
    """All axes that have to be indexed by arrays: the chosen ones, and whatever shares an index with one."""
    while True:
        used = set(ordered(*(places[axis].at.free for axis in chosen)))
        more = [a for a, p in enumerate(places) if a not in chosen and used & set(p.at.free)]
        plain = [a for a in range(len(places)) if a not in chosen and a not in more]
        seen: list[Index] = []
        for axis in plain:  # what is left must be one plain index per axis
            index = places[axis].index
            if index is None or index in seen:
                more.append(axis)
            else:
                seen.append(index)
        if not more:
            return sorted(chosen)
        chosen += more


def _take(array: Any, where: Read, chosen: list[int], size: Sizes, gather: Gather) -> Labelled:
    axes = _advanced(where.places, chosen)
    plain = [axis for axis in range(len(where.places)) if axis not in axes]
    found = [_indices(where.places[axis], axis, array, size, gather, where.tensor) for axis in axes]
    labels = ordered(*(one.labels for one in found))
    rest = tuple(index for axis in plain if (index := where.places[axis].index) is not None)
    cut = array.transpose([*axes, *plain])[(slice(None),) * len(axes) + tuple(slice(0, size[index]) for index in rest)]
    at = tuple(one.aligned(labels) for one in found)
    shape = [*(size[index] for index in labels), *cut.shape[len(axes) :]]
    if 0 in shape or cut.size == 0:
        return Labelled(np.zeros(shape, array.dtype), (*labels, *rest))
    out = np.asarray(np.take(cut, at[0], axis=0) if len(axes) == 1 else cut[at])
    for position, axis in zip(at, axes, strict=True):
        if where.places[axis].mode == "zero":
            out[np.broadcast_to(position < 0, out.shape[: len(labels)])] = 0
    return Labelled(out, (*labels, *rest))


def add_at(target: Any, where: Read, values: Labelled, size: Sizes, gather: Gather) -> None:
    """``T[places] += values``, every entry counted as often as it is read: the transpose of `read`."""
    places = where.places
    shape = [size[index] for index in where.free]
    if 0 in shape or target.size == 0:
        return
    array = np.broadcast_to(values.aligned(where.free), shape)
    if axes := _by_arrays(target, places, size):
        _add_by_arrays(target, where, axes, Labelled(array, where.free), size, gather)
        return
    linear, folds = [], []
    buffer = target
    for axis, place in enumerate(places):
        offset, steps = _linear(place.at, size)
        if place.mode is not None:
            low, high = bounds(place.at, size)
            offset -= low
            inner = list(buffer.shape)
            inner[axis] = high - low + 1
            folds.append((axis, place.mode, low, buffer))
            buffer = np.zeros(inner, target.dtype)
        linear.append((offset, steps))
    _add_slices(buffer, linear, array, where.free, size)
    for axis, mode, low, outer in reversed(folds):
        _fold(outer, buffer, axis, mode, low)
        buffer = outer


def _add_slices(
    target: Any, places: Sequence[tuple[int, dict[Index, int]]], array: Any, labels: Indices, size: Sizes
) -> None:
    """One strided slice per value of the indices that share an axis with a larger one."""
    looped: list[Index] = []
    for _, steps in places:
        alone = [index for index in steps if index not in looped]
        if len(alone) > 1:
            longest = max(alone, key=lambda index: size[index])
            looped += [index for index in alone if index is not longest]
    sliced = tuple(index for index in labels if index not in looped)
    array = array.transpose([labels.index(index) for index in (*looped, *sliced)])
    for at in itertools.product(*(range(size[index]) for index in looped)):
        fixed = dict(zip(looped, at, strict=True))
        rest = [
            (
                offset + sum(step * fixed[index] for index, step in steps.items() if index in fixed),
                {index: step for index, step in steps.items() if index not in fixed},
            )
            for offset, steps in places
        ]
        view = _view(target, rest, sliced, size)
        view += array[at]


def _fold(outer: Any, padded: Any, axis: int, mode: str, low: int) -> None:
    """Add the padded axis back to the axis it was read from."""
    length, count = outer.shape[axis], padded.shape[axis]
    front = (slice(None),) * axis
    first, stop = max(low, 0), min(low + count, length)
    if first < stop:
        outer[(*front, slice(first, stop))] += padded[(*front, slice(first - low, stop - low))]
    if mode == "zero":
        return
    for position in itertools.chain(range(low, min(low + count, 0)), range(max(length, low), low + count)):
        outer[(*front, int(entry(mode, np.asarray(position), length)))] += padded[(*front, position - low)]


def _add_by_arrays(target: Any, where: Read, chosen: list[int], values: Labelled, size: Sizes, gather: Gather) -> None:
    """Rows of equal address are brought together by sorting and added up in one pass."""
    axes = _advanced(where.places, chosen)
    plain = [axis for axis in range(len(where.places)) if axis not in axes]
    found = [_indices(where.places[axis], axis, target, size, gather, where.tensor) for axis in axes]
    labels = ordered(*(one.labels for one in found))
    rest = tuple(index for axis in plain if (index := where.places[axis].index) is not None)
    shape = [size[index] for index in labels]
    at = [np.broadcast_to(one.aligned(labels), shape).reshape(-1) for one in found]
    rows = values.aligned((*labels, *rest))
    rows = rows.reshape(math.prod(shape), *rows.shape[len(labels) :])
    inside = np.logical_and.reduce([a >= 0 for a in at])
    if not inside.all():
        at, rows = [a[inside] for a in at], rows[inside]
    if not len(rows):
        return
    address = np.ravel_multi_index(at, [target.shape[axis] for axis in axes])
    order = np.argsort(address, kind="stable")
    address = address[order]
    starts = np.flatnonzero(np.concatenate(([True], address[1:] != address[:-1])))
    summed = np.add.reduceat(rows[order], starts, axis=0) if len(starts) < len(address) else rows[order]
    cut = target.transpose([*axes, *plain])[(slice(None),) * len(axes) + tuple(slice(0, size[index]) for index in rest)]
    cut[tuple(a[order][starts] for a in at)] += summed
