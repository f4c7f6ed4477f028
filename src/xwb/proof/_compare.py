"""One gradient beside its numeric value: at entries, along directions, and where the two part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core import Array
from ._difference import Slope
from ._exact import exact
from ._point import Point, flat
from ._report import Row

# Every entry is moved on its own while entries × (inputs + outputs + OVERHEAD), about what that reads, is at most this.
AFFORDABLE, OVERHEAD = 2**26, 2000
SECONDS = 10.0  # and no longer than this for one input
SAMPLE = 24  # entries where not all are affordable
DIRECTIONS = 3  # then; one where all are
# What a right closed form may be off by, beside its noise: unit · (√K · GROWTH + STEPS) of the K terms that it is the
# sum of, taken positive; the rounding errors of K terms grow like √K (Higham 2002, section 4.2).
GROWTH, STEPS = 8.0, 32.0
# The part of the largest entry by which a numeric value may be off before its entry counts as not resolved.
RESOLVED = 1e-2
NEGLIGIBLE = 1e-6  # and the part of what gradients are like here under which the largest entry is as good as zero
ENOUGH_WRONG = 8  # entries found wrong before the rest is left


class Compared(NamedTuple):
    """Both numbers at one entry or along one direction."""

    at: tuple[int, ...] | None  # None: along a direction
    closed: float
    numeric: float
    allowed: float
    rounding: float  # the part of it that the numeric value is not resolved by

    @property
    def excess(self) -> float:
        """How many times the difference is what is allowed."""
        difference = abs(self.closed - self.numeric)
        if np.isnan(difference) or np.isnan(self.allowed):
            return np.inf
        return difference / max(self.allowed, np.finfo(np.float64).tiny) if difference else 0.0

    def resolved(self, largest: float) -> Compared:
        """The same, allowed no more than a part of the largest entry, however little the differences resolve."""
        most = RESOLVED * largest
        return self._replace(allowed=most) if self.at is not None and largest and self.rounding > most else self


class _Terms(NamedTuple):
    """The sum that an entry of a gradient is: Σ_o dY_o ∂Y_o/∂x."""

    size: float  # of its terms, taken positive
    number: int  # of those that are not 0


class Tensor:
    """The gradient by one input, compared."""

    def __init__(self, point: Point, i: int) -> None:
        self.point, self.i, self.probe = point, i, point.probe
        self.X = self.probe.arrays[i]
        self.claimed = [flat(claim.grads[i]) for claim in point.claims]

    def row(self) -> Row:
        """What the report says of it."""
        if not self.X.size or not self.probe.Y.size:
            compared, _ = self.entries(list(np.ndindex(self.X.shape)))
            return self._row(compared)._replace(entries=len(compared))
        before = self.probe.evaluations
        indices, all_of_them = self._indices()
        compared, kinks = self.entries(indices)
        entries = len(compared)
        directions = 1 if all_of_them and entries + kinks == len(indices) else DIRECTIONS
        tried = [self.along(self.probe.direction(self.i)) for _ in range(directions)]
        along = [one for one in tried if one]
        if not any(one.excess > 1 for one in compared) and any(one.excess > 1 for one in along):
            compared.append(self._located())
        whole = exact(self.probe, self.i, self.point.rng)
        row = self._row([*compared, *along])
        if not compared and kinks:
            row = row._replace(note="a kink at every entry", relative=np.inf)
        if directions > 1 and not along:
            row = row._replace(note="no step resolves its directions, and not every entry was moved", relative=np.inf)
        if whole.ok is False and row.ok:
            row = row._replace(note="differs at whole numbers, where nothing is rounded", relative=np.inf)
        return row._replace(
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
        read = sum(a.size for a in self.probe.arrays if isinstance(a, np.ndarray)) + self.probe.Y.size + OVERHEAD
        rng = self.point.rng
        if movable.size * read <= AFFORDABLE or movable.size <= SAMPLE:
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
        measured = self.probe.entries(self.i, self.point.weights, indices)
        for index, (slopes, rounding, truncation) in zip(indices, measured, strict=True):
            products = self.point.weights * slopes
            terms = _Terms(float(np.sum(np.abs(products))), int(np.count_nonzero(slopes)))
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
        direction = np.zeros(self.X.shape)
        direction[index] = max(self.probe.scale[self.i], abs(float(self.X[index])))
        slope = self.probe.slope(self.i, direction, self.point.weights)
        if slope.kinked:
            return None
        moved = float(slope.direction[index])
        return self._at(index, slope.value / moved, slope.bound / abs(moved), terms, self._claimed_for(slope))

    def _at(
        self, index: tuple[int, ...], numeric: float, uncertain: float, terms: _Terms, claimed: Sequence[Array]
    ) -> Compared:
        """The claim that differs from the numeric value by more than is allowed, or that in the dtype of the inputs."""
        position = int(np.ravel_multi_index(index, self.X.shape)) if index else 0
        worst: Compared | None = None
        for claim, grad in zip(self.point.claims, claimed, strict=True):
            own = claim.unit * (STEPS + GROWTH * np.sqrt(terms.number)) * terms.size
            allowed = own + float(claim.noise[self.i][position]) + 4 * claim.unit * np.abs(grad).max() + uncertain
            one = Compared(index, float(grad[position]), numeric, allowed, uncertain)
            if worst is None or one.excess >= min(worst.excess, 1.0):
                worst = one
        assert worst is not None
        return worst

    # -- directions --------------------------------------------------------------------------------------------------

    def along(self, direction: Array) -> Compared | None:
        """Both numbers along one direction: ⟨gradient, direction⟩; None where no step resolves the slope."""
        slope = self.probe.slope(self.i, direction, self.point.weights)
        if not slope.resolved:
            return None
        worst: Compared | None = None
        for claim, grad in zip(self.point.claims, self._claimed_for(slope), strict=True):
            products = grad * slope.direction.reshape(-1)
            own = claim.unit * (2 * STEPS + GROWTH * np.sqrt(self.probe.Y.size)) * float(np.linalg.norm(products))
            own += float(np.linalg.norm(claim.noise[self.i] * slope.direction.reshape(-1)))
            one = Compared(None, float(np.sum(products)), slope.value, own + slope.bound, slope.bound)
            if worst is None or one.excess >= min(worst.excess, 1.0):
                worst = one
        assert worst is not None
        return worst

    def _claimed_for(self, slope: Slope) -> list[Array]:
        """The claimed gradients for the weights that the slope was taken with."""
        if slope.weights is self.point.weights:
            return self.claimed
        return [flat(self.point.back(claim, slope.weights)[self.i]) for claim in self.point.claims]

    def _located(self) -> Compared:
        """The entry to which halving leads that differs most: what a direction found, by bisection."""
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
        return self.entries([index])[0][0]

    # -- the row -----------------------------------------------------------------------------------------------------

    def _row(self, compared: Sequence[Compared]) -> Row:
        """The row that shows the two numbers which differ most beyond what is allowed."""
        name, shape = self.point.subject.names[self.i], self.X.shape
        if not compared:
            return Row(name, shape, 0.0, 0.0, 0.0, 0.0, ())
        largest = max((abs(one.numeric) for one in compared if one.at is not None), default=0.0)
        some = max(largest, NEGLIGIBLE * self.point.typical[self.i])
        # An entry says more than a direction, unless the direction alone is wrong.
        worst = max(
            (one.resolved(some) for one in compared), key=lambda one: (one.excess > 1, one.at is not None, one.excess)
        )
        unit = float(self.point.dY) if self.point.dY.ndim == 0 else 1.0  # of a loss the gradient itself is shown
        note = ""
        if worst.excess > 1 and worst.at is None:
            note = "along a random direction"
        elif worst.excess > 1 and worst.rounding > worst.allowed:
            note = f"not resolved at {worst.at}: finite differences are off by up to {worst.rounding:.1e} there"
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
