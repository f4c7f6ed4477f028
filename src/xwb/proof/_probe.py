"""How Y changes when an input moves: its noise, its degree, and slopes with a bound on their error.

Nothing here knows a gradient. The step of a difference is chosen from what is measured: a function of degree one or two
is moved far, so that rounding vanishes; an analytic one by an imaginary step; any other as little as its noise allows.

Sources: Moré and Wild 2011, Estimating computational noise (the difference table); Squire and Trapp 1998, Using complex
variables to estimate derivatives of real functions; Fornberg 1988 (the stencils).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, OptionError
from ._subject import Subject, copies, same

FLOAT64, FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)

# Central stencils, exact for degrees 2, 4 and 6: the slope is Σ_k c_k (F(x + kh) − F(x − kh)) / h.
STENCILS = {2: (1 / 2,), 4: (2 / 3, -1 / 12), 6: (3 / 4, -3 / 20, 1 / 60)}
HIGHEST_DEGREE = 6
# Steps for smooth functions in units of the input's scale, as powers of two, the usual one first: it balances the
# truncation h² of a central difference against the rounding unit/h. The others serve curved, kinked and noisy ones.
SMOOTH_STEPS = {FLOAT64: (-17, -13, -21, -9, -25, -5, -1, -29, -33), FLOAT32: (-7, -5, -9, -3, -11, -1, -13, -15)}
# What the usual step may put a derivative off by, relative to its terms, where a function is not very curved; an entry
# that differs by more is measured again.
TRUNCATION = {FLOAT64: 1e-8, FLOAT32: 1e-3}
# A slope is good enough once its error is this part of it; other steps are tried until then. From COARSEST on it says
# nothing, and up to AVOIDED a smaller step has found its way around a kink.
GOOD_ENOUGH = {FLOAT64: 1e-9, FLOAT32: 1e-4}
COARSEST, AVOIDED = 0.1, {FLOAT64: 1e-3, FLOAT32: 3e-2}
# The disagreement of the two orders times this bounds the error even where the second derivative jumps.
DOUBT = 4.0
# Steps for polynomials, for which only rounding counts: the larger ones where Y is large beside its change.
POLYNOMIAL_STEPS = (0, 10, 20)
# Spacing of the points of the noise table: many units in the last place, and so little that fourth differences vanish.
NOISE_SPACING = {FLOAT64: 2.0**-26, FLOAT32: 2.0**-13}
FOURTH_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
# Rounding errors stay within so many of their standard deviations, each of which is known from a few samples only.
DEVIATIONS = 8.0
# A difference that is rounding: so many units of the largest value on the line, beside the measured noise.
ROUNDED = 16.0
IMAGINARY_STEP = 1e-30
COMPLEX_ROUNDING = 64.0  # units that a derivative by an imaginary step may be off by, relative to its terms
# How closely both values, and both derivatives, must agree for a function to count as analytic: far above rounding, and
# far below what conjugates, absolute values and real parts do.
SAME_VALUE, SAME_SLOPE = 1e-9, 1e-7
ALIKE = 0.05  # the part by which the value in float64 may differ from that in float32, if it is the same function
# At a kink the slopes of both sides differ by more than the part KINK of the slope, and by as much for every step: over
# twice the step by less than TWICE as much, where a smooth function has 2; over a quarter of it by more than QUARTER,
# where that has 1/4. What looks like one is looked at again with a step smaller by 2**CLOSER.
KINK, TWICE, QUARTER = 1e-4, 1.5, 0.7
CLOSER = {FLOAT64: -8, FLOAT32: -4}
CROSSED = 1e-6  # the part by which the two orders differ where a line crosses a kink


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


class Column(NamedTuple):
    """One column of the Jacobian: the derivative of every output by one entry of an input."""

    values: Array  # (outputs,)
    rounding: float  # what rounding of Y may do to ⟨weights, values⟩
    truncation: float  # what the step may do to it, relative to the sum of its terms


class Probe:
    """Y around one point, evaluated as precisely as the function can.

    `columns` and `jacobian_times` are quick, with one step each; `slope` takes care, with several.

    Attributes:
        given: the point: one array per input.
        arrays: the same in float64, if the function computes in it (``wide``).
        Y: (outputs,), its value there in float64, 0 where not ``finite``; ``shape`` is that of Y.
        dtype: what it is evaluated in, and ``unit`` its roundoff; ``given_dtype`` is that of Y for the given arrays.
        scale: for each input the size of its entries, a power of two.
        evaluations: forward passes so far; ``seconds``, what the first took.
    """

    def __init__(self, subject: Subject, rng: np.random.Generator, arrays: Sequence[Any] | None = None) -> None:
        self.subject, self.rng = subject, rng
        self.evaluations = 0
        started = time.monotonic()
        self.given = list(subject.arrays if arrays is None else arrays)
        self._spoils = False
        handed = copies(self.given)
        value = self._evaluated(handed)
        if value.dtype == FLOAT64 and value.ndim == 0:  # a Python number has no precision of its own
            value = value.astype(subject.dtype)
        self.seconds = time.monotonic() - started
        # A forward pass that changes its inputs is given copies from now on.
        self._spoils = not all(same(a, b) for a, b in zip(self.given, handed, strict=True))
        if value.dtype.kind != "f":
            raise OptionError(f"check: {subject.call} returns {value.dtype}, which has no gradient")
        self.given_dtype, self.shape = value.dtype, value.shape
        in_float64 = [widened(a) for a in self.given]
        wide_value = self._tried(in_float64)
        self.wide = wide_value is not None and wide_value.dtype == FLOAT64 and _alike(wide_value, value)
        self.arrays = in_float64 if self.wide else self.given
        self.dtype = FLOAT64 if self.wide else subject.dtype
        self.unit = unit_roundoff(self.dtype)
        self.Y = np.asarray(wide_value if self.wide else value, np.float64).reshape(-1).copy()
        self.finite = np.isfinite(self.Y)
        self.Y[~self.finite] = 0.0
        self.scale = {i: _scale(self.arrays[i]) for i in subject.checked}
        self._noise: Array | None = None
        self._degrees: dict[int, int | None] = {}
        self._left_over: dict[int, Array] = {}  # what no polynomial of that degree explains, (outputs,)
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

    def _row(self, arrays: Sequence[Any]) -> Array:
        """Y in float64 as (outputs,); outputs that are not finite at the point itself stand still.

        NaN where the function refuses the inputs: that they were moved is no mistake of its own.
        """
        Y = self._tried(arrays)
        if Y is None or Y.size != self.finite.size:
            return np.where(self.finite, np.nan, 0.0)
        return np.where(self.finite, Y.astype(np.float64).reshape(-1), 0.0)

    @property
    def read(self) -> int:
        """About what one forward pass reads and writes, in entries."""
        return sum(a.size for a in self.arrays if isinstance(a, np.ndarray)) + self.Y.size

    # -- moving ------------------------------------------------------------------------------------------------------

    def direction(self, i: int) -> Array:
        """A random direction in the shape of input ``i``: entries of both signs, from half its scale to its scale."""
        shape = self.arrays[i].shape
        size = self.scale[i] * self.rng.uniform(0.5, 1.0, shape) * self.rng.choice([-1.0, 1.0], shape)
        direction: Array = np.where(np.isfinite(self.arrays[i]), size, 0.0)  # what is infinite stays
        return direction

    def at(self, i: int, X: Array) -> Array:
        """Y (outputs,) with input ``i`` replaced."""
        return self._row([X if k == i else a for k, a in enumerate(self.arrays)])

    def _along_all(self, directions: Mapping[int, Array], t: float) -> Array:
        """Y (outputs,) with several inputs moved at once."""
        return self._row([moved(a, t * directions[k]) if k in directions else a for k, a in enumerate(self.arrays)])

    # -- what kind of function it is ---------------------------------------------------------------------------------

    @property
    def noise(self) -> Array:
        """For each output the standard deviation of its rounding error, measured by fourth differences."""
        if self._noise is None:
            directions = {i: self.direction(i) for i in self.subject.checked}
            spacing = NOISE_SPACING[self.dtype]
            measured = deviation([self._along_all(directions, t * spacing) for t in range(-5, 6)])
            found = np.maximum(np.where(np.isfinite(measured), measured, 0), self.unit / 4 * np.abs(self.Y))
            # A few samples may by chance be alike, and not those of three quarters of the outputs.
            self._noise = np.maximum(found, np.quantile(found, 0.25) / 2 if found.size else 0.0)
        return self._noise

    @property
    def _steady_noise(self) -> Array:
        """The noise (outputs,) as what looks like a kink is held against it.

        Few samples may say too little of it, and too much where it is no rounding at all but a jump.
        """
        if not self.Y.size:
            return self.noise
        few, half = np.quantile(self.noise, [0.1, 0.5])
        return np.clip(self.noise, min(half, 1e3 * few), 1e3 * few)

    @property
    def kinks(self) -> int:
        """The number of outputs that have another slope on each side of the point, when all inputs move."""
        directions = {i: self.direction(i) for i in self.subject.checked}
        usual = SMOOTH_STEPS[self.dtype][0]
        noise = 4 * DEVIATIONS * self._steady_noise
        kinks = self._kinks_along(directions, 2.0**usual, noise)
        if kinks.any():  # or bends that are narrower than the step
            kinks &= self._kinks_along(directions, 2.0 ** (usual + CLOSER[self.dtype]), np.zeros(self.Y.size))
        return int(np.count_nonzero(kinks))

    def _kinks_along(self, directions: Mapping[int, Array], step: float, noise: Array) -> Array:
        """Which outputs (outputs,) have a kink or a jump here, seen with steps about as large as this."""
        bends, changes = [], []
        for h in (step / 4, step, 2 * step):
            up, down = self._along_all(directions, h), self._along_all(directions, -h)
            bends.append(np.abs(up - 2 * self.Y + down) / h)
            changes.append(np.abs(up - down))
        noise = noise + 8 * self.unit * np.abs(self.Y)
        small, usual, large = bends
        kink = _kinks(usual, large, noise / step, changes[1] / step) & (small > QUARTER * usual)
        # What a smooth function changes by is in proportion to the step, at a jump as much as ever.
        jump: Array = (changes[0] > noise) & (changes[0] > QUARTER * changes[1])
        return kink | jump

    def degree(self, i: int) -> int | None:
        """The degree of Y as a polynomial in input ``i``, found along a random line; None if none up to six fits."""
        if i not in self._degrees:
            X, direction = self.arrays[i], self.direction(i)
            values = [self.Y if t == 0 else self.at(i, moved(X, t * direction)) for t in range(-4, 5)]
            self._degrees[i], self._left_over[i] = _degree(np.array(values), ROUNDED * self.unit, 4 * self.noise)
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
        if Y is None or not self.finite.all():
            return False
        largest = float(np.abs(self.Y).max(initial=0.0))
        if not np.allclose(Y.real, self.Y, rtol=SAME_VALUE, atol=1e-3 * SAME_VALUE * largest):
            return False
        slopes = Y.imag / IMAGINARY_STEP
        weights = self.rng.standard_normal(self.Y.size)
        slope = self._smooth(i, direction, weights)
        difference = abs(float(np.dot(slope.weights, slopes)) - slope.value)
        return difference <= slope.bound + SAME_SLOPE * float(np.linalg.norm(weights * slopes))

    def _complex(self, i: int, direction: Array) -> Array | None:
        """Y (outputs,) after an imaginary step; None where the function does not take or return complex numbers."""
        step = self.arrays[i] + 1j * IMAGINARY_STEP * direction
        Y = self._tried([step if k == i else a for k, a in enumerate(self.arrays)])
        if Y is None or Y.dtype != np.complex128 or Y.size != self.Y.size or not np.isfinite(Y).all():
            return None
        return Y.reshape(-1)

    def method(self, i: int) -> str:
        """How derivatives by input ``i`` are found, and why so."""
        degree = self.degree(i)
        if degree is None:
            return "analytic: complex step" if self.analytic else "smooth: 4th order"
        return f"degree {degree}: {'step 1' if degree <= 2 else f'{order_for(degree)} points'}"

    # -- quickly -----------------------------------------------------------------------------------------------------

    def columns(self, i: int, weights: Array, indices: Sequence[tuple[int, ...]]) -> Iterator[Column]:
        """The columns of the Jacobian for some entries of input ``i``, by one step each."""
        X, degree = self.arrays[i], self.degree(i)
        if degree is None and self.analytic:
            for index in indices:
                axis = np.zeros(X.shape)
                axis[index] = 1.0
                Y = self._complex(i, axis)
                values = np.full(self.Y.size, np.nan) if Y is None else Y.imag / IMAGINARY_STEP
                yield Column(values, 0.0, COMPLEX_ROUNDING * self.unit)
            return
        polynomial = degree is not None
        stencil = STENCILS[2 if degree is None else order_for(degree)]
        power = 0 if polynomial else SMOOTH_STEPS[self.dtype][0]
        noise = np.maximum(self.noise, self._left_over[i]) if polynomial else self.noise
        for index in indices:
            step = 2.0**power * (self.scale[i] if polynomial else max(self.scale[i], abs(float(X[index]))))
            change, distance = np.zeros(self.Y.size), 0.0
            for k, c in enumerate(stencil, 1):
                high, low = X.copy(), X.copy()
                high[index] += k * step
                low[index] -= k * step
                change += c * (self.at(i, high) - self.at(i, low))
                distance += c * (float(high[index]) - float(low[index]))
            rounding = self._rounding(weights, noise, change != 0.0) / abs(distance) if distance else np.inf
            yield Column(change / distance, rounding, 0.0 if polynomial else TRUNCATION[self.dtype])

    def jacobian_times(self, i: int, direction: Array) -> Array:
        """(outputs,): the derivative of every output along ``direction``, by one step."""
        X, degree = self.arrays[i], self.degree(i)
        if degree is None and self.analytic:
            Y = self._complex(i, direction)
            if Y is not None:
                return Y.imag / IMAGINARY_STEP
        step = 2.0 ** SMOOTH_STEPS[self.dtype][0] if degree is None else 1.0
        change = np.zeros(self.Y.size)
        for k, c in enumerate(STENCILS[4 if degree is None else order_for(degree)], 1):
            up, down = (self.at(i, moved(X, sign * k * step * direction)) for sign in (1, -1))
            change += c * (up - down)
        return change / step

    # -- with care ---------------------------------------------------------------------------------------------------

    def slope(self, i: int, direction: Array, weights: Array) -> Slope:
        """The derivative of ⟨weights, Y⟩ when input ``i`` moves along ``direction``.

        Outputs that have a kink on the way lose their weight if others are left; see `Slope.weights`.
        """
        degree = self.degree(i)
        slope = None if degree is None else self._polynomial(i, direction, weights, order_for(degree))
        return slope or self._smooth(i, direction, weights)

    def _polynomial(self, i: int, direction: Array, weights: Array, order: int) -> Slope | None:
        """By far steps; None if the first two disagree, for then this is no polynomial on this line."""
        best: Slope | None = None
        for power in POLYNOMIAL_STEPS:
            far, near = (self._stencil(i, direction, weights, step, order) for step in (2.0**power, 2.0 ** (power - 1)))
            apart = abs(far.value - near.value)
            if not apart <= 2 * (far.bound + near.bound):
                return best
            # What is nearly a polynomial has a truncation, of which half the step leaves next to nothing.
            far = far._replace(bound=far.bound + 2 * apart)
            if best is None or far.bound < best.bound:
                best = far
            if far.coarse <= GOOD_ENOUGH[self.dtype]:
                break
        return best

    def _stencil(self, i: int, direction: Array, weights: Array, step: float, order: int) -> Slope:
        X = self.arrays[i]
        change, distance = np.zeros(self.Y.size), np.zeros(direction.shape)
        size = np.abs(self.Y)
        for k, c in enumerate(STENCILS[order], 1):
            high, low = (moved(X, sign * k * step * direction) for sign in (1, -1))
            up, down = self.at(i, high), self.at(i, low)
            change += c * (up - down)
            distance += c * _distance(high, low)
            size = np.maximum(size, np.maximum(np.abs(up), np.abs(down)))
        # Far away Y may be larger than here, and so is its rounding.
        noise = np.maximum(np.maximum(self.noise, self.unit * size), max(1.0, step) ** (order + 1) * self._left_over[i])
        value = float(np.dot(weights, change)) / step
        bound = self._rounding(weights, noise, change != 0.0) / step + 8 * self.unit * abs(value)
        return Slope(value, bound, distance / step, weights, False, _ratio(bound, abs(value)))

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
            if slope.kinked == best.kinked:
                # Both: a step beyond all that happens near the point finds little, and may find that exactly.
                better = slope.coarse < best.coarse and slope.bound < best.bound
            else:
                better = best.kinked and slope.coarse <= AVOIDED[self.dtype]
            best = slope if better else best
        return best

    def _two_orders(self, i: int, direction: Array, weights: Array, step: float) -> Slope:
        X = self.arrays[i]
        line = [moved(X, t * step * direction) for t in (-2, -1, 1, 2)]
        low2, low1, high1, high2 = (self.at(i, there) for there in line)
        second = (high1 - low1) / (2 * step)
        fourth = (8 * (high1 - low1) - (high2 - low2)) / (12 * step)
        error = np.abs(fourth - second)
        moving = (high1 != low1) | (high2 != low2)
        rounding = DEVIATIONS * (np.where(moving, self._steady_noise, 0.0) + self.unit * np.abs(self.Y)) / step
        bend, bend2 = np.abs(high1 - 2 * self.Y + low1) / step, np.abs(high2 - 2 * self.Y + low2) / (2 * step)
        kinks = _kinks(bend, bend2, rounding, np.abs(fourth))
        crossed = (kinks | ~(error <= CROSSED * (np.abs(fourth) + _typical(fourth)) + rounding)) & (weights != 0)
        kinked = bool(kinks[crossed].any())
        kept = np.where(crossed, 0.0, weights)
        # Where most of what moves is left, the others say enough; one output alone cannot be left out.
        if crossed.any() and np.linalg.norm(kept[moving]) > 0.5 * np.linalg.norm(weights[moving]):
            weights, kinked = kept, False
        used = weights != 0
        distance = (8 * _distance(line[2], line[1]) - _distance(line[3], line[0])) / (12 * step)
        truncation = DOUBT * float(np.linalg.norm((weights * error)[used]))
        bound = truncation + self._rounding(weights, self.noise, moving) / step
        coarse = _ratio(bound, float(np.linalg.norm((weights * fourth)[used])))
        return Slope(float(np.dot(weights[used], fourth[used])), bound, distance, weights, kinked, coarse)

    def _rounding(self, weights: Array, noise: Array, moving: Array) -> float:
        """What rounding may put a difference of ⟨weights, Y⟩ off by; outputs that stood still may have had to move."""
        still = self.unit * float(np.abs(weights * self.Y).max(initial=0.0))
        return DEVIATIONS * float(np.linalg.norm((weights * noise)[moving])) + still


def order_for(degree: int) -> int:
    """The order of the smallest stencil that is exact for this degree."""
    return max(2, degree + degree % 2)


def unit_roundoff(dtype: np.dtype[Any]) -> float:
    """Half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def moved(X: Array, by: Array) -> Array:
    """``X + by`` in the dtype of X."""
    there: Array = np.asarray(X + by, X.dtype)
    return there


def widened(array: Any) -> Any:
    """A floating array in float64, anything else as it is."""
    return array.astype(np.float64) if isinstance(array, np.ndarray) and array.dtype.kind == "f" else array


def deviation(values: Sequence[Array]) -> Array:
    """The standard deviation of the noise in values at equally spaced points, by their fourth differences."""
    table = np.array(values)
    fourth = sum(c * table[k : len(table) - 4 + k] for k, c in enumerate(FOURTH_DIFFERENCE))
    result: Array = np.sqrt(np.mean(np.square(fourth), axis=0) / np.sum(FOURTH_DIFFERENCE**2))
    return result


def _kinks(bend: Array, twice_as_far: Array, noise: Array, slopes: Array) -> Array:
    """Where the slopes of both sides differ, and as much over twice the step: at a kink; a smooth bend doubles."""
    kinks: Array = (bend > np.maximum(noise, KINK * _typical(slopes))) & (twice_as_far < TWICE * bend)
    return kinks


def _typical(values: Array) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _distance(high: Array, low: Array) -> Array:
    """How far an input was moved, in float64; what is infinite was not."""
    distance: Array = np.where(np.isfinite(high), high.astype(np.float64) - low.astype(np.float64), 0.0)
    return distance


def _ratio(part: float, whole: float) -> float:
    """Their quotient; infinite if there is none."""
    if part == 0.0:
        return 0.0
    return part / whole if whole and not np.isnan(part) else np.inf


def _degree(values: Array, rounding: float, noise: Array) -> tuple[int | None, Array]:
    """The smallest degree whose next differences are all rounding, and these; ``values`` is (points, outputs)."""
    nothing = np.zeros(values.shape[1])
    if not np.isfinite(values).all():
        return None, nothing
    size = np.abs(values).max(axis=0, initial=0.0)
    allowed = rounding * np.maximum(size, _typical(size)) + noise  # what cancels in one output does not in all
    differences = values
    for degree in range(HIGHEST_DEGREE + 1):
        differences = np.diff(differences, axis=0)
        left_over = np.abs(differences).max(axis=0, initial=0.0)
        if (left_over <= 2.0 ** (degree + 1) * allowed).all():
            return degree, left_over / (2.0 ** (degree + 1) if degree <= 2 else 1.0)  # along other lines it may be more
    return None, nothing


def _alike(wide: Array, value: Array) -> bool:
    """Whether two precisions give the same function: the coarser value but for its rounding."""
    if wide.shape != value.shape:
        return False
    finite = np.isfinite(value)
    difference = wide[finite].astype(np.float64) - value[finite]
    return bool(np.linalg.norm(difference) <= ALIKE * np.linalg.norm(wide[finite]))  # False for a NaN


def _scale(X: Array) -> float:
    """The median size of the entries that are not 0 as a power of two; 1 where there are none."""
    size = np.abs(X[np.isfinite(X) & (X != 0)].astype(np.float64))
    return float(2.0 ** np.round(np.log2(np.median(size)))) if size.size else 1.0
