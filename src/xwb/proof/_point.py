"""Both sides at one point: the function, and what its backward pass says of it for one dY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError
from ._probe import FLOAT32, FLOAT64, NOISE_SPACING, Probe, deviation, moved, unit_roundoff
from ._report import Row
from ._subject import Pass, Subject, copies

# What rounding may do to an entry beyond the sum that it is: MEASURED times its measured noise, but at most EXPLAINED
# roundoffs of a typical gradient, for more is a lower precision somewhere inside; and SENSITIVE times what one roundoff
# in all that goes in changes, for no algorithm is better than its inputs. The last is measured by CHANGE, and scaled.
MEASURED, EXPLAINED = 16.0, 2.0**10
SENSITIVE, TRIALS = 64.0, 3
CHANGE = {FLOAT64: 2.0**-20, FLOAT32: 2.0**-10}
# A saturated layer leaves of some gradients nothing but rounding. Where an input has less than FLAT of the effect that
# another has, its gradient may be off by a part of that: this power of the roundoff in the precision that decides. In
# that of the inputs, where it is coarser, the limit is higher, and the part so many roundoffs.
FLAT, FLAT_POWER = 1e-7, 2 / 3
FLAT_COARSE, FLAT_ROUNDOFFS = 1e-3, 2.0**14
# Where float64 decides, float32 is asked for no more than its rounding: so many times what is allowed there.
LENIENCE = 8.0
# How far from a kink the gradients are checked, in units of the inputs' scales.
BESIDE = (2.0**-5, 2.0**-4, 2.0**-3)


class Claim(NamedTuple):
    """What a backward pass says, in one precision; its numbers as one row for each gradient that can be compared."""

    arrays: Sequence[Any]
    dtype: np.dtype[Any]  # of Y
    grads: list[Any]  # as returned
    sensitivity: dict[int, Array]  # how each entry changes with a relative change of all that goes in
    noise: dict[int, Array]  # what rounding may put each entry off by, beyond the rounding of its own sum
    unit: float  # roundoff of the precision


class Point:
    """The function and its claimed gradients at one point, for one dY.

    Attributes:
        probe: the function around the point.
        dY, weights: dY in the dtype of Y, and in float64 as one row.
        typical: for each input the size of a gradient that nothing cancels in, |dY| |Y| / |x|.
        claims: the gradients in float64, if both directions compute in it, and those in the dtype of the inputs.
        finest, own: the first of them and the last.
    """

    def __init__(self, subject: Subject, rng: np.random.Generator, arrays: Sequence[Any] | None = None) -> None:
        self.subject, self.rng = subject, rng
        self.probe = Probe(subject, rng, arrays)
        if self.probe.Y.size and not self.probe.finite.any():
            raise DataError(f"check: {subject.call} is not finite anywhere at these inputs, so it has no slope there")
        self.dY = self._random_dY()
        self.weights = self.dY.astype(np.float64).reshape(-1)
        reach = float(np.abs(self.weights).max(initial=0.0) * np.abs(self.probe.Y).max(initial=0.0))
        self.typical = {i: reach / scale for i, scale in self.probe.scale.items()}
        wide = self._in_float64() if self.probe.wide and self.dY.dtype != np.float64 else None
        given = self._claim(self.probe.given, self.dY, wide)
        self.claims = [wide, given] if wide else [given]
        self.finest, self.own = self.claims[0], given

    def _random_dY(self) -> Array:
        shape = self.probe.shape
        if shape == ():  # a factor near 0 would hide what it multiplies
            dY = self.rng.choice([-1.0, 1.0]) * self.rng.uniform(0.5, 2.0, ())
        else:
            dY = self.rng.standard_normal(shape)
        return np.where(self.probe.finite.reshape(shape), dY, 0.0).astype(self.probe.given_dtype)

    def _in_float64(self) -> Claim | None:
        """The claim for the same numbers in float64; None if the backward pass does not compute in it."""
        try:
            claim = self._claim(self.probe.arrays, self.dY.astype(np.float64))
        except Exception:  # whatever a backward pass for float32 alone does with float64
            return None
        computed = all(getattr(claim.grads[i], "dtype", None) == FLOAT64 for i in self.subject.checked)
        return claim if computed else None

    def _claim(self, arrays: Sequence[Any], dY: Array, finer: Claim | None = None) -> Claim:
        grads = passed(self.subject, arrays).back(dY.copy())
        unit = unit_roundoff(dY.dtype)
        rows = {i: flat(grads[i]) for i in self.subject.checked if not fault(grads[i], arrays[i])}
        sensitivity = finer.sensitivity if finer else self._sensitivity(arrays, dY, rows)
        # So near that the gradient is straight, and its fourth differences are noise.
        near = self._changes(arrays, dY, [t * NOISE_SPACING[dY.dtype] for t in range(-3, 4)])
        noise = {}
        for i, row in rows.items():
            own = deviation([flat(other[i]) for other in near])
            most = EXPLAINED * unit * max(self.typical[i], float(np.abs(row).max(initial=0.0)))
            noise[i] = np.where(np.isfinite(own), np.minimum(MEASURED * own, most), 0.0)
            noise[i] += SENSITIVE * unit * sensitivity[i]
        return Claim(arrays, dY.dtype, grads, sensitivity, noise, unit)

    def _sensitivity(self, arrays: Sequence[Any], dY: Array, rows: dict[int, Array]) -> dict[int, Array]:
        change = CHANGE[dY.dtype]
        others = [self._changes(arrays, dY, [change])[0] for _ in range(TRIALS)]
        found = {}
        for i, row in rows.items():
            rate = np.sqrt(np.mean([np.square(flat(other[i]) - row) for other in others], axis=0)) / change
            found[i] = np.where(np.isfinite(rate), rate, 0.0)
        return found

    def _changes(self, arrays: Sequence[Any], dY: Array, changes: Sequence[float]) -> list[list[Any]]:
        """The gradients after relative changes of the inputs and of dY, all along one random direction."""
        factors = {i: self.rng.uniform(-1, 1, arrays[i].shape) for i in self.subject.checked}
        factor = self.rng.uniform(-1, 1, dY.shape)
        found = []
        for change in changes:
            there = [moved(a, change * factors[k] * a) if k in factors else a for k, a in enumerate(arrays)]
            found.append(passed(self.subject, there).back(moved(dY, change * factor * dY)))
        return found

    def floor(self, claim: Claim, i: int) -> float:
        """What every entry of this gradient may be off by, however small it is."""
        largest = {j: float(np.abs(flat(claim.grads[j])).max(initial=0.0)) for j in claim.noise}
        most = max(size * self.probe.scale[j] for j, size in largest.items() if np.isfinite(size) or j == i)
        decides = claim is self.finest
        if largest[i] * self.probe.scale[i] >= (FLAT if decides else FLAT_COARSE) * most:
            return 4 * claim.unit * largest[i]
        return (claim.unit**FLAT_POWER if decides else FLAT_ROUNDOFFS * claim.unit) * most / self.probe.scale[i]

    def lenience(self, claim: Claim) -> float:
        """The factor of what rounding may do to a claim."""
        return 1.0 if claim is self.finest else LENIENCE

    @property
    def repeats(self) -> bool:
        """Whether the function has the same value for the same inputs, but for rounding."""
        again = np.asarray(passed(self.subject, self.probe.arrays).Y, np.float64).reshape(-1)
        apart = np.abs(again - self.probe.Y)[self.probe.finite]
        return bool((apart <= np.sqrt(self.probe.unit) * np.abs(self.probe.Y).max(initial=0.0)).all())

    def faulty_row(self, i: int, note: str = "") -> Row | None:
        """The row of a gradient that cannot be compared, if it cannot; ``note`` says why where that is known."""
        X = self.probe.arrays[i]
        note = note or fault(self.own.grads[i], X)
        return Row(self.subject.names[i], X.shape, np.nan, np.nan, np.inf, 0.0, (), note) if note else None

    def back(self, claim: Claim, weights: Array) -> list[Any]:
        """The claimed gradients for other weights of the outputs."""
        return gradients(self.subject, claim.arrays, weights)

    def away_from_kinks(self) -> Point:
        """A point beside this one at which the function has a derivative, if one is found soon."""
        for distance in BESIDE:
            point = Point(self.subject, self.rng, beside(self.probe, distance))
            if not point.probe.kinks:
                break
        return point


def beside(probe: Probe, distance: float) -> list[Any]:
    """The inputs moved by so much of their scales, each in a random direction."""
    directions = {i: distance * probe.direction(i) for i in probe.subject.checked}
    return [moved(a, directions[k]) if k in directions else a for k, a in enumerate(probe.given)]


def passed(subject: Subject, arrays: Sequence[Any]) -> Pass:
    """A forward pass over copies, so that nothing it or its way back does reaches the caller."""
    return subject.run(*copies(arrays))


def gradients(subject: Subject, arrays: Sequence[Any], weights: Array) -> list[Any]:
    """The claimed gradients at some inputs, for weights of the outputs as one row."""
    done = passed(subject, arrays)
    Y = np.asarray(done.Y)
    return done.back(weights.reshape(Y.shape).astype(Y.dtype))


def flat(grad: Any) -> Array:
    """A gradient as one row in float64."""
    return np.asarray(grad, np.float64).reshape(-1)


def fault(grad: Any, X: Array) -> str:
    """Why a gradient cannot be compared with the numeric one, if it cannot."""
    if grad is None:
        return "no gradient returned"
    try:
        given = np.asarray(grad)
    except ValueError:  # rows of different lengths
        return "the gradient is no array"
    if given.shape != X.shape:
        return f"the gradient has shape {given.shape}"
    return "" if given.dtype.kind in "fiub" else f"the gradient has dtype {given.dtype}"
