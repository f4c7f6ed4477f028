"""Which rows are held out for validation: drawn by a seed, as the rows come, without holding them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError, OptionError
from ._roles import Field, read

GRAINS = 64, 4096  # rows of one class that are drawn together, least and most
STOCK = 2**24  # rows drawn ahead, of all classes
ROWS = 8192
NONE = np.empty(0, np.bool_)


def shares(holdout: float, counts: Array) -> Array:
    """(K,) round(holdout · n) of each count, a half up, the fraction as it is written in decimal: 0.3 of 5 are 2."""
    over, under = Fraction(repr(holdout)).as_integer_ratio()
    return np.array([(2 * over * n + under) // (2 * under) for n in counts.tolist()])


def check_holdout(holdout: Any, seed: Any) -> tuple[float, int]:
    """The two options, as numbers.

    Raises:
        OptionError: the fraction is not in [0, 1), or the seed no integer from 0.
    """
    if isinstance(holdout, bool) or not isinstance(holdout, int | float | np.number) or not 0 <= holdout < 1:
        raise OptionError(f"--holdout is a fraction from 0 and below 1; this is {holdout!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise OptionError(f"--seed is an integer from 0; this is {seed!r}")
    return float(holdout), int(seed)


def check_sizes(holdout: float, rows: int, held: int, classes: int = 1) -> None:
    """Refuse a split with an empty part.

    Raises:
        DataError: with what to do.
    """
    if rows == held:
        raise DataError(f"--holdout {holdout} of {rows:,} rows leaves none to train on; give a smaller fraction")
    if holdout and not held:
        each = f": none of the {classes:,} classes has {math.ceil(0.5 / holdout):,} rows" if classes > 1 else ""
        raise DataError(
            f"--holdout {holdout} of {rows:,} rows holds none out{each}; give a larger fraction, or  --holdout 0"
        )


class Draw:
    """Exactly ``wanted`` rows of each class, every such choice as likely as any other.

    The rows of class c are taken some thousands at a time: how many of them are held out is hypergeometric, given what
    is left, and which is a permutation, from a generator of its own seeded by (seed, c, number of the thousands). So a
    row's lot depends on its place within its class, and not on the blocks that it is read in.

    Args:
        counts: (K,) rows of each class.
        wanted: (K,) rows of each class to hold out.
    """

    def __init__(self, counts: Array, wanted: Array, seed: int) -> None:
        self._left, self._wanted, self._seed = np.array(counts), np.array(wanted), seed
        self._grain = min(max(STOCK // len(self._left), GRAINS[0]), GRAINS[1])
        self._grains = [0] * len(self._left)
        self._drawn: dict[int, Array] = {}

    def mask(self, codes: Array) -> Array:
        """Whether each of the next rows is held out, (n,) bool; ``codes`` (n,) are their classes."""
        if len(self._left) == 1:
            return self._take(0, len(codes))
        codes = codes.astype(np.uint16) if len(self._left) <= 2**16 else codes  # these NumPy sorts by radix
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        runs = np.split(ordered, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)
        held = np.empty(len(codes), np.bool_)
        held[order] = np.concatenate([self._take(int(run[0]), len(run)) for run in runs if len(run)] or [NONE])
        return held

    def _take(self, code: int, n: int) -> Array:
        drawn = self._drawn.pop(code, NONE)
        while len(drawn) < n:
            drawn = np.concatenate([drawn, self._next(code)])
        if n < len(drawn):
            self._drawn[code] = drawn[n:]
        return drawn[:n]

    def _next(self, code: int) -> Array:
        left, wanted = int(self._left[code]), int(self._wanted[code])
        size = min(self._grain, left)
        if not size:
            raise DataError("the rows changed while they were read")
        rng = np.random.default_rng([self._seed, code, self._grains[code]])
        held = int(rng.hypergeometric(wanted, left - wanted, size))
        mask = np.zeros(size, np.bool_)
        mask[rng.permutation(size)[:held]] = True
        self._grains[code] += 1
        self._left[code] -= size
        self._wanted[code] -= held
        return mask


def count_groups(field: Field) -> dict[Any, int]:
    """How many rows each group has, in the order of their first rows.

    Raises:
        DataError: a row has no group.
    """
    counts: dict[Any, int] = {}
    start = 0
    for (values,) in read([field], ROWS, [field]):
        for place, value in enumerate(values.tolist()):
            if value == "" or value != value:
                row = start + place + 1
                raise DataError(f"{field.table.name}, row {row:,}: the group {field.column.name} is missing")
            counts[value] = counts.get(value, 0) + 1
        start += len(values)
    return counts


def choose_groups(counts: dict[Any, int], holdout: float, seed: int) -> set[Any]:
    """The groups to hold out: in an order drawn by ``seed``, each that brings their rows nearer to the fraction."""
    if not holdout:
        return set()
    names, goal = list(counts), Fraction(repr(holdout)) * sum(counts.values())
    chosen, have = set(), 0
    for place in np.random.default_rng(seed).permutation(len(names)).tolist():
        size = counts[names[place]]
        if abs(have + size - goal) < abs(have - goal):
            chosen.add(names[place])
            have += size
    return chosen


class Groups:
    """Whole groups held out; has the method of `Draw`, of groups instead of codes."""

    def __init__(self, chosen: set[Any]) -> None:
        self._chosen = chosen

    def mask(self, groups: Array) -> Array:
        """Whether each of the rows is held out, (n,) bool."""
        values: Sequence[Any] = groups.tolist()
        return np.fromiter((value in self._chosen for value in values), np.bool_, len(values))


class Holdout(NamedTuple):
    """How many rows are held out; and what begins to draw them anew, for a pass over all rows."""

    rows: int
    start: Callable[[], Draw | Groups]


def choose(counts: Array, groups: Field | None, holdout: float, seed: int) -> Holdout:
    """The rows to hold out, of each class, or whole groups where there are any.

    Args:
        counts: (K,) rows of each class; (1,) all rows for regression.

    Raises:
        DataError: a part would have no rows.
    """
    start: Callable[[], Draw | Groups]
    if groups is None:
        wanted = shares(holdout, counts)
        held, start = int(wanted.sum()), partial(Draw, counts, wanted, seed)
    else:
        sizes = count_groups(groups)
        if holdout and len(sizes) == 1:
            raise DataError(
                f"--groups {groups.column.name} has one value in all {int(counts.sum()):,} rows, and rows of one group "
                "stay together, so none can be held out; leave --groups out, or give  --holdout 0"
            )
        chosen = choose_groups(sizes, holdout, seed)
        held, start = sum(sizes[group] for group in chosen), partial(Groups, chosen)
    check_sizes(holdout, int(counts.sum()), held, 1 if groups else len(counts))
    return Holdout(held, start)
