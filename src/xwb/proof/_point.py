"""Both sides at one point: the function, and what its backward pass says of it for one dY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError
from ._difference import NOISE_SPACING, Probe, deviation
from ._report import Row
from ._subject import Pass, Subject, copies

# What rounding may do to an entry beyond the sum that it is: some times its measured noise, as far as the precision
# explains that (in units of what gradients are like here; more is a lower precision somewhere inside) …
MEASURED, EXPLAINED = 16.0, 2.0**10
# … and some times what a change of everything by a unit roundoff does to it: no algorithm is better than its inputs.
# That is measured with larger changes, and scaled down.
SENSITIVE, TRIALS = 64.0, 3
CHANGE = {np.dtype(np.float64): 2.0**-20, np.dtype(np.float32): 2.0**-10}
# How far from a kink the gradients are checked, in units of the inputs' scales.
BESIDE = (2.0**-5, 2.0**-4, 2.0**-3)


class Claim(NamedTuple):
    """What a backward pass says, in one precision; its numbers flat, None for what does not compare."""

    arrays: Sequence[Any]
    dtype: np.dtype[Any]  # of Y
    grads: list[Any]  # as returned
    sensitivity: list[Any]  # how each entry changes with a relative change of all that goes in
    noise: list[Any]  # what rounding may put each entry off by, beyond the rounding of its own sum
    unit: float  # roundoff of the precision


class Point:
    """The function and its claimed gradients at one point, for one dY.

    Attributes:
        probe: the function around the point.
        dY, weights: dY in the dtype of Y, and in float64 as one row.
        typical: for each input the size of a gradient that nothing cancels in, |dY| |Y| / |x|.
        claims: the gradients in float64, if both directions compute in it, and those in the dtype of the inputs.
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
        computed = all(np.asarray(claim.grads[i]).dtype == np.float64 for i in self.subject.checked)
        return claim if computed else None

    def _claim(self, arrays: Sequence[Any], dY: Array, finer: Claim | None = None) -> Claim:
        grads = passed(self.subject, arrays).back(dY.copy())
        unit = float(np.finfo(dY.dtype).eps) / 2
        comparable = [i for i in self.subject.checked if not fault(grads[i], arrays[i])]
        sensitivity = finer.sensitivity if finer else self._sensitivity(arrays, dY, grads, comparable)
        noise: list[Any] = [None] * len(grads)
        # So near that the gradient is straight, and its fourth differences are noise.
        factors = {i: self.rng.uniform(-1, 1, arrays[i].shape) for i in self.subject.checked}
        factor_dY = self.rng.uniform(-1, 1, dY.shape)
        spacing = NOISE_SPACING[dY.dtype]
        near = [self._changed(arrays, dY, factors, factor_dY, t * spacing) for t in range(-3, 4)]
        for i in comparable:
            own = deviation([flat(grads[i]) for grads in near])
            most = EXPLAINED * unit * max(self.typical[i], float(np.abs(flat(grads[i])).max(initial=0.0)))
            noise[i] = np.where(np.isfinite(own), np.minimum(MEASURED * own, most), 0.0)
            noise[i] += SENSITIVE * unit * sensitivity[i]
        return Claim(arrays, dY.dtype, grads, sensitivity, noise, unit)

    def _sensitivity(
        self, arrays: Sequence[Any], dY: Array, grads: Sequence[Any], comparable: Sequence[int]
    ) -> list[Any]:
        change = CHANGE[dY.dtype]
        trials = []
        for _ in range(TRIALS):
            factors = {i: self.rng.uniform(-1, 1, arrays[i].shape) for i in self.subject.checked}
            trials.append(self._changed(arrays, dY, factors, self.rng.uniform(-1, 1, dY.shape), change))
        found: list[Any] = [None] * len(grads)
        for i in comparable:
            moved = [np.square(flat(trial[i]) - flat(grads[i])) for trial in trials]
            rate = np.sqrt(np.mean(moved, axis=0)) / change
            found[i] = np.where(np.isfinite(rate), rate, 0.0)
        return found

    def _changed(
        self, arrays: Sequence[Any], dY: Array, factors: dict[int, Array], factor_dY: Array, change: float
    ) -> list[Any]:
        """The gradients after a relative change of the inputs and of dY."""
        moved = list(arrays)
        for i, factor in factors.items():
            moved[i] = (arrays[i] * (1 + change * factor)).astype(arrays[i].dtype)
        return passed(self.subject, moved).back((dY * (1 + change * factor_dY)).astype(dY.dtype))

    def fault(self, i: int) -> Row | None:
        """The row of a gradient that cannot be compared."""
        X = self.probe.arrays[i]
        note = fault(self.claims[-1].grads[i], X)
        return Row(self.subject.names[i], X.shape, np.nan, np.nan, np.inf, 0.0, (), note) if note else None

    def back(self, claim: Claim, weights: Array) -> list[Any]:
        """The claimed gradients for other weights of the outputs."""
        return passed(self.subject, claim.arrays).back(weights.reshape(self.probe.shape).astype(claim.dtype))

    def away_from_kinks(self) -> Point:
        """A point beside this one at which the function has a derivative, if one is found soon."""
        for distance in BESIDE:
            arrays = list(self.probe.given)
            for i in self.subject.checked:
                arrays[i] = (arrays[i] + distance * self.probe.direction(i)).astype(arrays[i].dtype)
            point = Point(self.subject, self.rng, arrays)
            if not point.probe.kinks:
                break
        return point


def passed(subject: Subject, arrays: Sequence[Any]) -> Pass:
    """A forward pass over copies, so that nothing it or its way back does reaches the caller."""
    return subject.run(*copies(arrays))


def flat(grad: Any) -> Array:
    """A gradient as one row in float64."""
    return np.asarray(grad, np.float64).reshape(-1)


def fault(grad: Any, X: Array) -> str:
    """Why a gradient cannot be compared with the numeric one, if it cannot."""
    given = np.asarray(grad)
    if grad is None:
        return "no gradient returned"
    if given.shape != X.shape:
        return f"the gradient has shape {given.shape}"
    return "" if given.dtype.kind in "fiub" else f"the gradient has dtype {given.dtype}"
