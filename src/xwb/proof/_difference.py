"""How Y changes when an input moves: its noise, its degree, and slopes with a bound on their error.

Nothing here knows a gradient. The step of a difference is chosen from what is measured: a function of degree one or two
is moved far, so that rounding vanishes; an analytic one by an imaginary step; any other as little as its noise allows.

Sources: Moré and Wild 2011, Estimating computational noise (the difference table); Squire and Trapp 1998, Using complex
variables to estimate derivatives of real functions; Fornberg 1988 (the stencils).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, OptionError
from ._subject import Subject, copies, same

# Central stencils, exact for degrees 2, 4 and 6: the slope is Σ_k c_k (F(x + kh) − F(x − kh)) / h.
STENCILS = {2: (1 / 2,), 4: (2 / 3, -1 / 12), 6: (3 / 4, -3 / 20, 1 / 60)}
HIGHEST_DEGREE = 6
# Steps for smooth functions in units of the input's scale, as powers of two, the usual one first: it balances the
# truncation h² of a central difference against the rounding unit/h. The others serve curved, kinked and noisy ones.
SMOOTH_STEPS = {np.dtype(np.float64): (-17, -13, -21, -9, -25, -5, -1), np.dtype(np.float32): (-7, -5, -9, -3, -11, -1)}
# Steps for polynomials, for which only rounding counts: the larger ones where Y is large beside its change.
POLYNOMIAL_STEPS = (0, 10, 20)
# Spacing of the points of the noise table: many units in the last place, and so little that fourth differences vanish.
NOISE_SPACING = {np.dtype(np.float64): 2.0**-26, np.dtype(np.float32): 2.0**-13}
FOURTH_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
IMAGINARY_STEP = 1e-30
# Rounding errors stay within so many of their standard deviations, each of which is known from a few samples only.
DEVIATIONS = 8.0
COARSEST = 0.1  # the error of a slope, as a part of it, from which on it says nothing
# A slope is good enough once its error is this part of it; more steps are tried until then.
GOOD_ENOUGH = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-4}


class Slope(NamedTuple):
    """One derivative of ⟨weights, Y⟩ along a direction."""

    value: float
    bound: float  # how far truncation and rounding may put it off
    direction: Array  # as really moved: rounding changes it a little
    weights: Array  # those asked for, 0 at outputs that cross a kink on the way
    kinked: bool  # Y has two slopes here, one for each side
    coarse: float  # the bound relative to the size of what the slope adds up

    @property
    def resolved(self) -> bool:
        """Whether it says anything: no kink, and a step small enough for what happens here; or nothing moved."""
        return not self.kinked and (self.coarse < COARSEST or self.value == 0.0)


class Entry(NamedTuple):
    """One derivative of Y along a coordinate axis."""

    slopes: Array  # (outputs,): ∂Y/∂x
    rounding: float  # what rounding of Y may do to ⟨weights, slopes⟩
    truncation: float  # what the step may do to it, relative to the sum of its terms


class Probe:
    """Y around one point, evaluated as precisely as the function can.

    Attributes:
        arrays: the point: the subject's arrays, in float64 if the function accepts that.
        Y: (outputs,), its value there in float64, 0 where not ``finite``; ``shape`` is that of Y.
        dtype: what it is evaluated in.
        scale: for each input the size of its entries, a power of two.
        evaluations: forward passes so far.
    """

    def __init__(self, subject: Subject, rng: np.random.Generator, arrays: Sequence[Any] | None = None) -> None:
        self.subject = subject
        self.rng = rng
        self.evaluations = 0
        given = list(subject.arrays if arrays is None else arrays)
        handed = copies(given)
        self._spoils = False
        native = self._evaluated(handed)
        # A forward pass that changes its inputs is given copies from now on.
        self._spoils = not all(same(a, b) for a, b in zip(given, handed, strict=True))
        if native.dtype.kind != "f":
            raise OptionError(f"check: {subject.call} returns {native.dtype}, which has no gradient")
        self.given = given
        self.given_dtype = native.dtype
        self.shape = native.shape
        wide = [a.astype(np.float64) if i in subject.checked else widened(a) for i, a in enumerate(given)]
        in_wide = self._tried(wide)
        self.wide = in_wide is not None and in_wide.dtype == np.float64 and _alike(in_wide, native)
        self.arrays = wide if self.wide else given
        self.dtype = np.dtype(np.float64) if self.wide else subject.dtype
        self.unit = float(np.finfo(self.dtype).eps) / 2
        value = in_wide if self.wide and in_wide is not None else native
        self.Y = value.astype(np.float64).reshape(-1)
        self.finite = np.isfinite(self.Y)
        self.Y[~self.finite] = 0.0
        self.scale = {i: _scale(self.arrays[i]) for i in subject.checked}
        self._noise: Array | None = None
        self._degrees: dict[int, int | None] = {}
        self._analytic: bool | None = None

    def _evaluated(self, arrays: Sequence[Any]) -> Array:
        self.evaluations += 1
        return np.asarray(self.subject.value(*(copies(arrays) if self._spoils else arrays)))

    def _tried(self, arrays: Sequence[Any]) -> Array | None:
        """The value, or None where the function does not take such arrays: it may refuse them in any way."""
        try:
            return self._evaluated(arrays)
        except Exception:
            return None

    def at(self, i: int, X: Array) -> Array:
        """Y (outputs,) with input ``i`` replaced."""
        moved = list(self.arrays)
        moved[i] = X
        return self._flat(moved)

    def _flat(self, arrays: Sequence[Any]) -> Array:
        """Y in float64 as (outputs,); outputs that are not finite at the point itself stand still.

        NaN where the function refuses the inputs: that they were moved is no mistake of its own.
        """
        Y = self._tried(arrays)
        if Y is None or Y.size != self.finite.size:
            return np.where(self.finite, np.nan, 0.0)
        return np.where(self.finite, Y.astype(np.float64).reshape(-1), 0.0)

    def direction(self, i: int) -> Array:
        """A random direction in the shape of input ``i``: entries of both signs, from half its scale to its scale."""
        shape = self.arrays[i].shape
        size = self.scale[i] * self.rng.uniform(0.5, 1.0, shape) * self.rng.choice([-1.0, 1.0], shape)
        direction: Array = np.where(np.isfinite(self.arrays[i]), size, 0.0)  # what is infinite stays
        return direction

    def _along_all(self, directions: Mapping[int, Array], t: float) -> Array:
        """Y (outputs,) with several inputs moved at once."""
        arrays = list(self.arrays)
        for i, direction in directions.items():
            arrays[i] = self._moved(i, direction, t)
        return self._flat(arrays)

    def _moved(self, i: int, direction: Array, t: float) -> Array:
        X = self.arrays[i]
        moved: Array = (X + t * direction).astype(X.dtype)
        return moved

    # -- what kind of function it is ---------------------------------------------------------------------------------

    @property
    def noise(self) -> Array:
        """For each output the standard deviation of its rounding error, measured by fourth differences."""
        if self._noise is None:
            spacing = NOISE_SPACING[self.dtype]
            directions = {i: self.direction(i) for i in self.subject.checked}
            measured = deviation([self._along_all(directions, t * spacing) for t in range(-5, 6)])
            self._noise = np.maximum(np.where(np.isfinite(measured), measured, 0), self.unit / 4 * np.abs(self.Y))
        return self._noise

    @property
    def kinks(self) -> int:
        """The number of outputs that have another slope on each side of the point, when all inputs move."""
        directions = {i: self.direction(i) for i in self.subject.checked}
        step = 2.0 ** SMOOTH_STEPS[self.dtype][0]
        bends, changes = [], []
        for h in (step / 4, step, 2 * step):
            up, down = self._along_all(directions, h), self._along_all(directions, -h)
            bends.append(np.abs(up - 2 * self.Y + down) / h)
            changes.append(np.abs(up - down))
        typical = float(np.sqrt(np.mean(np.square(changes[1])))) if self.Y.size else 0.0
        median = float(np.median(self.noise)) if self.Y.size else 0.0
        # Few samples may say too little, and what is no rounding at all, a jump, too much.
        noise = 32 * np.clip(self.noise, median, 1e3 * median) + 8 * self.unit * np.abs(self.Y)
        # Of a smooth function the slopes of both sides differ in proportion to the step, at a kink by as much as ever.
        small, usual, large = bends
        kink = (usual * step > np.maximum(noise, 1e-4 * typical)) & (large < 1.5 * usual) & (small > 0.7 * usual)
        # What a smooth function changes by is in proportion to the step, at a jump as much as ever.
        jump = (changes[0] > noise) & (changes[0] > 0.7 * changes[1])
        return int(np.count_nonzero(kink | jump))

    def degree(self, i: int) -> int | None:
        """The degree of Y as a polynomial in input ``i``, found along a random line; None if none up to six fits."""
        if i not in self._degrees:
            direction = self.direction(i)
            values = [self.Y if t == 0 else self.at(i, self._moved(i, direction, t)) for t in range(-4, 5)]
            self._degrees[i] = _degree(np.array(values), 16 * self.unit, self.noise)
        return self._degrees[i]

    @property
    def analytic(self) -> bool:
        """Whether complex numbers go in and derivatives come out: tried along a random direction of each input."""
        if self._analytic is None:
            self._analytic = self.wide and all(self._analytic_in(i) for i in self.subject.checked)
        return self._analytic

    def _analytic_in(self, i: int) -> bool:
        direction = self.direction(i)
        Y = self._complex(i, direction)
        if (
            Y is None
            or not self.finite.all()
            or not np.allclose(Y.real, self.Y, rtol=1e-9, atol=1e-12 * float(np.abs(self.Y).max(initial=0)))
        ):
            return False
        slopes = Y.imag / IMAGINARY_STEP
        weights = self.rng.standard_normal(self.Y.size)
        slope = self._smooth(i, direction, weights)
        difference = abs(float(np.dot(slope.weights, slopes)) - slope.value)
        return difference <= slope.bound + 1e-7 * float(np.linalg.norm(weights * slopes))

    def _complex(self, i: int, direction: Array) -> Array | None:
        moved = list(self.arrays)
        moved[i] = self.arrays[i] + 1j * IMAGINARY_STEP * direction
        Y = self._tried(moved)
        if Y is None or Y.dtype != np.complex128 or Y.size != self.Y.size or not np.isfinite(Y).all():
            return None
        return Y.reshape(-1)

    def method(self, i: int) -> str:
        """How derivatives by input ``i`` are found, and why so."""
        degree = self.degree(i)
        if degree is not None:
            return f"degree {degree}: " + ("step 1" if degree <= 2 else f"{degree + degree % 2} points")
        return "analytic: complex step" if self.analytic else "smooth: 4th order"

    # -- along one coordinate ----------------------------------------------------------------------------------------

    def entries(self, i: int, weights: Array, indices: Sequence[tuple[int, ...]]) -> Iterator[Entry]:
        """∂Y/∂x at some entries of input ``i``, by one step each."""
        X = self.arrays[i]
        degree = self.degree(i)
        if degree is None and self.analytic:
            for index in indices:
                axis = np.zeros(X.shape)
                axis[index] = 1.0
                Y = self._complex(i, axis)
                if Y is None:
                    yield Entry(np.full(self.Y.size, np.nan), np.inf, np.inf)
                else:
                    yield Entry(Y.imag / IMAGINARY_STEP, 0.0, 64 * self.unit)
            return
        stencil = STENCILS[2] if degree is None else STENCILS[max(2, degree + degree % 2)]
        power, truncation = (
            (0, 0.0) if degree is not None else (SMOOTH_STEPS[self.dtype][0], GOOD_ENOUGH[self.dtype] * 10)
        )
        for index in indices:
            around = self.scale[i] if degree is not None else max(self.scale[i], abs(float(X[index])))
            step = 2.0**power * around
            change, moved = np.zeros(self.Y.size), 0.0
            for k, c in enumerate(stencil, 1):
                high, low = X.copy(), X.copy()
                high[index] += k * step
                low[index] -= k * step
                change += c * (self.at(i, high) - self.at(i, low))
                moved += c * (float(high[index]) - float(low[index]))
            rounding = self._rounding(weights, self.noise, change != 0.0) / abs(moved) if moved else np.inf
            yield Entry(change / moved, rounding, truncation)

    def slopes(self, i: int, direction: Array) -> Array:
        """(outputs,): the derivative of every output along ``direction``, by one step."""
        degree = self.degree(i)
        if degree is None and self.analytic:
            Y = self._complex(i, direction)
            if Y is not None:
                return Y.imag / IMAGINARY_STEP
        stencil = STENCILS[4 if degree is None else max(2, degree + degree % 2)]
        step = 2.0 ** SMOOTH_STEPS[self.dtype][0] if degree is None else 1.0
        change = np.zeros(self.Y.size)
        for k, c in enumerate(stencil, 1):
            change += c * (
                self.at(i, self._moved(i, direction, k * step)) - self.at(i, self._moved(i, direction, -k * step))
            )
        return change / step

    # -- along any direction, carefully ------------------------------------------------------------------------------

    def slope(self, i: int, direction: Array, weights: Array) -> Slope:
        """The derivative of ⟨weights, Y⟩ when input ``i`` moves along ``direction``.

        Outputs that have a kink on the way lose their weight if others are left; see `Slope.weights`.
        """
        degree = self.degree(i)
        if degree is not None:
            slope = self._polynomial(i, direction, weights, max(2, degree + degree % 2))
            if slope is not None:
                return slope
        return self._smooth(i, direction, weights)

    def _polynomial(self, i: int, direction: Array, weights: Array, order: int) -> Slope | None:
        """By far steps; None if two of them disagree, for then this is no polynomial on this line."""
        best: Slope | None = None
        for power in POLYNOMIAL_STEPS:
            far, near = (self._stencil(i, direction, weights, step, order) for step in (2.0**power, 2.0 ** (power - 1)))
            if not abs(far.value - near.value) <= 2 * (far.bound + near.bound):
                return best
            if best is None or far.bound < best.bound:
                best = far
            if far.coarse <= GOOD_ENOUGH[self.dtype]:
                break
        return best

    def _stencil(self, i: int, direction: Array, weights: Array, step: float, order: int) -> Slope:
        change, moved = np.zeros(self.Y.size), np.zeros(direction.shape)
        size = np.abs(self.Y)
        for k, c in enumerate(STENCILS[order], 1):
            high, low = (self._moved(i, direction, sign * k * step) for sign in (1, -1))
            up, down = self.at(i, high), self.at(i, low)
            change += c * (up - down)
            moved += c * _difference(high, low)
            size = np.maximum(size, np.maximum(np.abs(up), np.abs(down)))
        # Far away Y may be larger than here, and so is its rounding.
        noise = np.maximum(self.noise, self.unit * size)
        rounding = self._rounding(weights, noise, change != 0.0) / step
        value = float(np.dot(weights, change)) / step
        bound = rounding + 8 * self.unit * abs(value)
        return Slope(value, bound, moved / step, weights, False, _ratio(bound, abs(value)))

    def _smooth(self, i: int, direction: Array, weights: Array) -> Slope:
        """By central differences of second and fourth order, whose disagreement bounds the error of both."""
        usual, *others = SMOOTH_STEPS[self.dtype]
        best = self._two_orders(i, direction, weights, 2.0**usual)
        for power in others:
            if best.coarse <= GOOD_ENOUGH[self.dtype] and not best.kinked:
                break
            if best.kinked and power > usual:
                continue  # a larger step may hide the kink, a smaller one avoid it
            slope = self._two_orders(i, direction, weights, 2.0**power)
            # Both: a step beyond all that happens near the point finds little, and may find that exactly.
            finer = slope.coarse < best.coarse and slope.bound < best.bound
            if finer if slope.kinked == best.kinked else best.kinked and slope.coarse <= 1e-3:
                best = slope
        return best

    def _two_orders(self, i: int, direction: Array, weights: Array, step: float) -> Slope:
        far = [self._moved(i, direction, t * step) for t in (-2, -1, 1, 2)]
        low2, low1, high1, high2 = (self.at(i, X) for X in far)
        with np.errstate(all="ignore"):
            second = (high1 - low1) / (2 * step)
            fourth = (8 * (high1 - low1) - (high2 - low2)) / (12 * step)
            error = np.abs(fourth - second)
            moving = (high1 != low1) | (high2 != low2)
            rounding = np.where(moving, self.noise / step, 0.0) + self.unit * np.abs(self.Y) / step
            # How the slopes on both sides differ: over twice the step twice as much if smooth, as much at a kink.
            jump = np.abs(high1 - 2 * self.Y + low1) / step
            jump2 = np.abs(high2 - 2 * self.Y + low2) / (2 * step)
            typical = float(np.sqrt(np.mean(fourth**2))) if fourth.size else 0.0
            kinks = (jump > 8 * rounding) & (jump2 < 1.5 * jump) & (jump > 1e-4 * typical)
            crossed = kinks | ~(error <= 1e-6 * (np.abs(fourth) + typical) + 8 * rounding)
        crossed &= weights != 0
        kinked = bool(kinks[crossed].any())
        kept = np.where(crossed, 0.0, weights)
        if crossed.any() and np.linalg.norm(kept[moving]) > 0.5 * np.linalg.norm(weights[moving]):
            weights, kinked = kept, False
        used = weights != 0
        moved = (8 * _difference(far[2], far[1]) - _difference(far[3], far[0])) / (12 * step)
        value = float(np.dot(weights[used], fourth[used]))
        truncation = float(np.linalg.norm((weights * error)[used]))
        bound = truncation + self._rounding(weights, self.noise, moving) / step
        return Slope(
            value, bound, moved, weights, kinked, _ratio(bound, float(np.linalg.norm((weights * fourth)[used])))
        )

    def _rounding(self, weights: Array, noise: Array, moving: Array) -> float:
        """What rounding may put a difference of ⟨weights, Y⟩ off by; outputs that stood still may have had to move."""
        still = self.unit * float(np.abs(weights * self.Y).max(initial=0.0))
        return DEVIATIONS * float(np.linalg.norm((weights * noise)[moving])) + still


def widened(array: Any) -> Any:
    """A floating array in float64, anything else as it is."""
    return array.astype(np.float64) if isinstance(array, np.ndarray) and array.dtype.kind == "f" else array


def deviation(values: Sequence[Array]) -> Array:
    """The standard deviation of the noise in values at equally spaced points, by their fourth differences."""
    table = np.array(values)
    with np.errstate(all="ignore"):
        fourth = sum(c * table[k : len(table) - 4 + k] for k, c in enumerate(FOURTH_DIFFERENCE))
        result: Array = np.sqrt(np.mean(np.square(fourth), axis=0) / np.sum(FOURTH_DIFFERENCE**2))
    return result


def _difference(high: Array, low: Array) -> Array:
    """How far an input was moved, in float64; what is infinite was not."""
    difference: Array = np.where(np.isfinite(high), high.astype(np.float64) - low.astype(np.float64), 0.0)
    return difference


def _ratio(part: float, whole: float) -> float:
    """Their quotient; infinite if there is none."""
    return part / whole if whole and not np.isnan(part) else 0.0 if part == 0 else np.inf


def _degree(values: Array, rounding: float, noise: Array) -> int | None:
    """The smallest degree whose next differences are all rounding; ``values`` is (points, outputs)."""
    if not np.isfinite(values).all():
        return None
    size = np.abs(values).max(axis=0, initial=0.0)
    typical = np.sqrt(np.mean(np.square(size))) if size.size else 0.0  # what cancels in one output does not in all
    allowed = rounding * np.maximum(size, typical) + 4 * noise
    differences = values
    for degree in range(HIGHEST_DEGREE + 1):
        differences = np.diff(differences, axis=0)
        if (np.abs(differences) <= 2.0 ** (degree + 1) * allowed).all():
            return degree
    return None


def _alike(wide: Array, native: Array) -> bool:
    """Whether two precisions give the same function: the coarser value but for its rounding."""
    if wide.shape != native.shape:
        return False
    finite = np.isfinite(native)
    if not np.isfinite(wide[finite]).all():
        return False
    size = float(np.linalg.norm(wide[finite].astype(np.float64)))
    return float(np.linalg.norm(wide[finite].astype(np.float64) - native[finite])) <= 0.05 * size


def _scale(X: Array) -> float:
    """The root mean square of the entries as a power of two; 1 where there are none but zeros."""
    finite = X[np.isfinite(X)].astype(np.float64)
    largest = float(np.abs(finite).max(initial=0.0))
    if largest == 0.0:
        return 1.0
    return float(2.0 ** np.round(np.log2(largest * np.sqrt(np.mean((finite / largest) ** 2)))))
