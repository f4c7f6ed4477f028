"""One gradient beside its numeric value: at entries, along directions, and where the two part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core import Array
from ._exact import exact
from ._point import Point, flat
from ._probe import Slope
from ._report import Row

# Every entry is moved on its own while entries × (inputs + outputs + OVERHEAD), about what that reads, is at most this.
AFFORDABLE, OVERHEAD = 2**26, 2000
SECONDS = 10.0  # and no longer than this for one input, so that a slow function is sampled after all
SAMPLE = 24  # entries moved where not all are affordable, a third of them the largest
DIRECTIONS = 3  # random ones beside a sample; beside all entries one
# What a right closed form may be off by, beside its noise: unit · (√K · GROWTH + STEPS) of the K terms that it is the
# sum of, taken positive; the rounding errors of K terms grow like √K (Higham 2002, section 4.2).
GROWTH, STEPS = 8.0, 32.0
# The part of the largest entry by which a numeric value may be off before its entry counts as not resolved; the largest
# is taken for no less than the part NEGLIGIBLE of what gradients are like here, or of dY.
RESOLVED, NEGLIGIBLE = 1e-2, 1e-6
ENOUGH_WRONG = 8  # entries found wrong before the rest is left


class Compared(NamedTuple):
    """Both numbers at one entry or along one direction."""

    at: tuple[int, ...] | None  # None: along a direction
    closed: float
    numeric: float
    allowed: float
    uncertain: float  # the part of it that the numeric value may be off by

    @property
    def excess(self) -> float:
        """How many times the difference is what is allowed."""
        difference = abs(self.closed - self.numeric)
        if np.isnan(difference) or np.isnan(self.allowed):
            return np.inf
        return difference / max(self.allowed, np.finfo(np.float64).tiny) if difference else 0.0

    def no_looser_than_resolved(self, largest: float) -> Compared:
        """The same, with no more allowed than a part of the largest entry, however little the differences resolve."""
        most = RESOLVED * largest
        return self._replace(allowed=most) if self.at is not None and largest and self.uncertain > most else self


class _Terms(NamedTuple):
    """The sum that an entry of a gradient is: Σ_o dY_o ∂Y_o/∂x."""

    size: float  # of its terms, taken positive
    number: int  # of those that are not 0


def _telling(candidates: Sequence[Compared]) -> Compared:
    """The one that differs most by more than is allowed; if none does, the last, in the dtype of the inputs."""
    worst = candidates[0]
    for one in candidates[1:]:
        worst = one if worst.excess <= 1 or one.excess >= worst.excess else worst
    return worst


class Tensor:
    """The gradient by one input, compared."""

    def __init__(self, point: Point, i: int) -> None:
        self.point, self.i, self.probe = point, i, point.probe
        self.X = self.probe.arrays[i]
        self.claimed = [flat(claim.grads[i]) for claim in point.claims]
        self.floors = [point.floor(claim, i) for claim in point.claims]

    def row(self) -> Row:
        """What the report says of it."""
        if not self.X.size or not self.probe.Y.size:
            compared, _ = self.entries(list(np.ndindex(self.X.shape)))
            return self._row(compared)._replace(entries=len(compared))
        before = self.probe.evaluations
        indices, all_of_them = self._indices()
        compared, kinks = self.entries(indices)
        entries = len(compared)
        all_of_them = all_of_them and entries == len(indices)
        tried = [self.along(self.probe.direction(self.i)) for _ in range(1 if all_of_them else DIRECTIONS)]
        along = [one for one in tried if one]
        if not any(one.excess > 1 for one in compared) and any(one.excess > 1 for one in along):
            compared += self._located()
        whole = exact(self.probe, self.i, self.point.rng)
        row = self._row([*compared, *along])
        objection = ""
        if kinks > entries:
            objection = f"a kink at {kinks} of {kinks + entries} entries"
        elif not along and not all_of_them:
            objection = "no step resolves its directions, and not every entry was moved"
        elif row.ok and whole.ok is False:
            objection = "differs at whole numbers, where nothing is rounded"
        return row._replace(
            note=objection or row.note,
            relative=np.inf if objection else row.relative,
            method=self.probe.method(self.i),
            entries=entries,
            directions=len(along),
            miss=whole.miss if whole.ok else None,
            evaluations=self.probe.evaluations - before + whole.evaluations,
            kinks=kinks,
        )

    def _indices(self) -> tuple[list[tuple[int, ...]], bool]:
        """The entries that are moved on their own, in random order, and whether these are all."""
        movable = np.flatnonzero(np.isfinite(self.X))
        rng = self.point.rng
        if movable.size * (self.probe.read + OVERHEAD) <= AFFORDABLE or movable.size <= SAMPLE:
            chosen, affordable = rng.permutation(movable), True
        else:
            size = np.abs(self.claimed[-1][movable])
            largest = movable[np.argpartition(size, -(SAMPLE // 3))[-(SAMPLE // 3) :]]
            chosen, affordable = np.union1d(largest, rng.choice(movable, SAMPLE - largest.size, replace=False)), False
        return [tuple(int(k) for k in np.unravel_index(at, self.X.shape)) for at in chosen], affordable

    # -- entries -----------------------------------------------------------------------------------------------------

    def entries(self, indices: Sequence[tuple[int, ...]]) -> tuple[list[Compared], int]:
        """Both numbers at these entries, with more care where they differ, and how many are at a kink instead."""
        started = time.monotonic()
        found: list[Compared] = []
        suspects: list[tuple[Compared, _Terms]] = []
        columns = self.probe.columns(self.i, self.point.weights, indices)
        for index, (column, rounding, truncation) in zip(indices, columns, strict=True):
            products = self.point.weights * column
            terms = _Terms(float(np.sum(np.abs(products))), int(np.count_nonzero(column)))
            uncertain = rounding + truncation * terms.size
            one = self._at(index, float(np.sum(products)), uncertain, terms, self.claimed)
            if one.excess > 1:
                suspects.append((one, terms))
            else:
                found.append(one)
            if time.monotonic() - started > SECONDS:
                break
        suspects.sort(key=lambda suspect: -suspect[0].excess)
        wrong = kinked = 0
        for one, terms in suspects:
            assert one.at is not None
            careful = self._careful(one.at, terms)
            if careful is None:
                kinked += 1
                continue
            found.append(careful)
            wrong += careful.excess > 1
            if wrong == ENOUGH_WRONG:
                break
        return found, kinked

    def _careful(self, index: tuple[int, ...], terms: _Terms) -> Compared | None:
        """Both numbers at one entry; None if it is at a kink."""
        direction, size = np.zeros(self.X.shape), abs(float(self.X[index]))
        direction[index] = max(self.probe.scale[self.i], size)
        slope = self.probe.slope(self.i, direction, self.point.weights)
        if not slope.resolved and 0 < size < self.probe.scale[self.i]:  # as near the edge of a logarithm's domain
            direction[index] = size
            own = self.probe.slope(self.i, direction, self.point.weights)
            slope = own if own.resolved else slope
        if slope.kinked:
            return None
        moved = float(slope.direction[index])
        if not np.isfinite(terms.size):
            terms = _Terms(abs(slope.value / moved), 1)
        return self._at(index, slope.value / moved, slope.bound / abs(moved), terms, self._claimed_for(slope))

    def _at(
        self, index: tuple[int, ...], numeric: float, uncertain: float, terms: _Terms, claimed: Sequence[Array]
    ) -> Compared:
        """The numeric value beside the claim that tells most."""
        position = int(np.ravel_multi_index(index, self.X.shape)) if index else 0
        found = []
        for claim, grad, floor in zip(self.point.claims, claimed, self.floors, strict=True):
            own = claim.unit * (STEPS + GROWTH * np.sqrt(terms.number)) * terms.size
            own = self.point.lenience(claim) * (own + floor)
            allowed = own + float(claim.noise[self.i][position]) + uncertain
            found.append(Compared(index, float(grad[position]), numeric, allowed, uncertain))
        return _telling(found)

    # -- directions --------------------------------------------------------------------------------------------------

    def along(self, direction: Array) -> Compared | None:
        """Both numbers along one direction: ⟨gradient, direction⟩; None where no step resolves the slope."""
        slope = self.probe.slope(self.i, direction, self.point.weights)
        if not slope.resolved:
            return None
        moved = slope.direction.reshape(-1)
        found = []
        for claim, grad, floor in zip(self.point.claims, self._claimed_for(slope), self.floors, strict=True):
            own = claim.unit * (2 * STEPS + GROWTH * np.sqrt(self.probe.Y.size)) * float(np.linalg.norm(grad * moved))
            own = self.point.lenience(claim) * (own + floor * float(np.linalg.norm(moved)))
            allowed = own + float(np.linalg.norm(claim.noise[self.i] * moved)) + slope.bound
            found.append(Compared(None, float(grad @ moved), slope.value, allowed, slope.bound))
        return _telling(found)

    def _claimed_for(self, slope: Slope) -> list[Array]:
        """The claimed gradients for the weights that the slope was taken with."""
        if slope.weights is self.point.weights:
            return self.claimed
        return [flat(self.point.back(claim, slope.weights)[self.i]) for claim in self.point.claims]

    def _located(self) -> list[Compared]:
        """The entry to which halving leads that differs most: what a direction found, by bisection; none at a kink."""
        direction = self.probe.direction(self.i).reshape(-1)
        left = np.flatnonzero(np.isfinite(self.X))
        while left.size > 1:
            halves = np.array_split(left, 2)
            both = []
            for half in halves:
                part = np.zeros(direction.size)
                part[half] = direction[half]
                found = self.along(part.reshape(self.X.shape))
                both.append(found.excess if found else 0.0)
            left = halves[int(np.argmax(both))]
        index = tuple(int(k) for k in np.unravel_index(left[0], self.X.shape))
        return self.entries([index])[0]

    # -- the row -----------------------------------------------------------------------------------------------------

    def _row(self, compared: Sequence[Compared]) -> Row:
        """The row that shows the two numbers which differ most beyond what is allowed."""
        name, shape = self.point.subject.names[self.i], self.X.shape
        if not compared:
            return Row(name, shape, 0.0, 0.0, 0.0, 0.0, ())
        largest = max((abs(one.numeric) for one in compared if one.at is not None), default=0.0)
        typical = max(self.point.typical[self.i], float(np.abs(self.point.weights).max(initial=0.0)))
        some = max(largest, NEGLIGIBLE * typical)
        # An entry says more than a direction, unless the direction alone is wrong.
        worst = max(
            (one.no_looser_than_resolved(some) for one in compared),
            key=lambda one: (one.excess > 1, one.at is not None, one.excess),
        )
        unit = float(self.point.dY) if self.point.dY.ndim == 0 else 1.0  # of a loss the gradient itself is shown
        note = ""
        if worst.excess > 1 and worst.at is None:
            note = "along a random direction"
        elif worst.excess > 1 and worst.uncertain > worst.allowed:
            note = f"not resolved at {worst.at}: finite differences are off by up to {worst.uncertain:.1e} there"
        scale = (largest if worst.at is not None else abs(worst.numeric)) or 1.0
        return Row(
            name,
            shape,
            float(worst.closed / unit),
            float(worst.numeric / unit),
            float(abs(worst.closed - worst.numeric) / scale),
            float(worst.allowed / scale),
            worst.at or (),
            note,
        )
