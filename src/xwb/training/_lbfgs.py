"""Limited-memory BFGS that is asked for points and told what was found there, so that many can share one evaluation.

Sources: Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4 (two loops) and 3.5, 3.6 (strong Wolfe
conditions); Hager and Zhang 2005, A new conjugate gradient method with guaranteed descent (conditions under rounding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..core import Array, add_scaled, dot, norm

SUFFICIENT = 1e-4  # of the decrease that the slope promises
FLATTER = 0.9  # the slope has to fall to this much of what it was
TRIALS = 25  # of one line search
PATIENCE = 16  # iterations without progress that is above the noise
NUMBERS = ("pairs", "noise", "value", "iterations", "evaluations", "stalled", "_idle", "_lowest")


class LBFGS:
    """Minimises a smooth function of a vector from its values and gradients.

    ::

        solver = LBFGS(x0)
        while not solver.stalled and np.linalg.norm(solver.gradient) > 1e-6:
            solver.tell(*evaluate(solver.point))

    Args:
        x: where to start, shape (P,), float64; copied.
        pairs: how many differences of points and gradients describe the curvature.
        noise: relative rounding error of the value; differences below it decide nothing, slopes do.

    Attributes:
        inverse: a guess at the inverse of the curvature, as a function from vectors to vectors, linear and positive;
            the pairs correct it. None: the identity. It may be replaced between two calls of `tell`.
        point: where the function is to be evaluated next.
        x, value, gradient: the best point reached so far; before the first `tell` the value is infinite.
        iterations: steps taken.
        evaluations: points told.
        stalled: no step makes progress above the rounding error any more.
    """

    def __init__(self, x: Array, *, pairs: int = 10, noise: float = 0.0) -> None:
        self.point: Array = np.array(x, np.float64)
        self.pairs, self.noise = pairs, noise
        self.inverse: Callable[[Array], Array] | None = None
        self.x, self.value, self.gradient = self.point, math.inf, np.full_like(self.point, np.inf)
        self.iterations = self.evaluations = 0
        self.stalled = False
        self._steps: list[Array] = []
        self._changes: list[Array] = []
        self._idle, self._lowest = 0, math.inf  # iterations since the gradient was last this small
        self._direction: Array = np.zeros_like(self.point)
        self._search = _Search()

    def tell(self, value: float, gradient: Array) -> None:
        """What the function and its gradient are at `point`; not a finite number where it is not defined.

        Args:
            value: a number.
            gradient: shape (P,), float64; kept, not copied.
        """
        self.evaluations += 1
        if self.value == math.inf:
            self.value, self.gradient = value, gradient
            self.stalled = not (math.isfinite(value) and bool(np.isfinite(gradient).all()))
            if not self.stalled:
                self._begin()
            return
        slope = dot(gradient, self._direction)
        search = self._search
        if search.accepts(value, slope):
            self._accept(value, gradient)
        elif search.trials >= TRIALS or not search.narrow(value, slope):
            self._give_up()
        else:
            self.point = self.x + search.step * self._direction

    def _accept(self, value: float, gradient: Array) -> None:
        step, change = self.point - self.x, gradient - self.gradient
        curvature = dot(step, change)
        if curvature > 1e-12 * norm(step) * norm(change):
            self._steps.append(step)
            self._changes.append(change)
            del self._steps[: -self.pairs], self._changes[: -self.pairs]
        decrease = self.value - value
        self.x, self.value, self.gradient = self.point, value, gradient
        self.iterations += 1
        steepness = norm(gradient)
        progress = decrease > 2 * self._search.tolerance or steepness < 0.9 * self._lowest
        self._idle = 0 if progress else self._idle + 1
        self._lowest = min(self._lowest, steepness)
        self.stalled = self._idle >= PATIENCE or steepness == 0.0
        if not self.stalled:
            self._begin()

    def _give_up(self) -> None:
        """A search that found nothing starts once more without the pairs; had it none, there is nothing to find."""
        if not self._steps:
            self.stalled = True
            return
        self._steps, self._changes = [], []
        self._begin()

    def _begin(self) -> None:
        self._direction = -self._times_inverse(self.gradient)
        slope = dot(self.gradient, self._direction)
        scaled = bool(self._steps) or self.inverse is not None
        if not slope < 0:  # rounding has spoilt the pairs
            self._steps, self._changes, scaled = [], [], False
            self._direction = -self.gradient
            slope = dot(self.gradient, self._direction)
        if slope == 0:
            self.stalled = True
            return
        first = 1.0 if scaled else min(1.0, 1.0 / math.sqrt(-slope))
        self._search = _Search(self.value, slope, first, 2 * self.noise * abs(self.value))
        self.point = self.x + first * self._direction

    def _times_inverse(self, vector: Array) -> Array:
        """The inverse of the curvature that the pairs describe, times a vector (the two loops)."""
        result = vector.copy()
        weights = []
        for step, change in zip(reversed(self._steps), reversed(self._changes), strict=True):
            rho = 1.0 / dot(step, change)
            weight = rho * dot(step, result)
            add_scaled(result, -weight, change)
            weights.append((rho, weight))
        if self.inverse is not None:
            result = self.inverse(result)
        if self._steps:
            step, change = self._steps[-1], self._changes[-1]
            again = change if self.inverse is None else self.inverse(change)
            result *= dot(step, change) / dot(change, again)
        for (rho, weight), step, change in zip(reversed(weights), self._steps, self._changes, strict=True):
            add_scaled(result, weight - rho * dot(change, result), step)
        return result

    def state(self) -> dict[str, Any]:
        """All of it but `inverse`, as arrays (copied) and numbers; `restore` goes on from there to the same bits."""
        return {
            "numbers": {name: getattr(self, name) for name in NUMBERS},
            "search": {**vars(self._search)},
            "point": self.point.copy(),
            "x": self.x.copy(),
            "gradient": self.gradient.copy(),
            "direction": self._direction.copy(),
            "steps": np.array(self._steps).reshape(-1, len(self.point)),
            "changes": np.array(self._changes).reshape(-1, len(self.point)),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> LBFGS:
        """The solver whose `state` this was; its ``inverse`` is the caller's to set."""
        solver = cls(state["point"])
        for name, number in state["numbers"].items():
            setattr(solver, name, number)
        for name in ("x", "gradient"):
            setattr(solver, name, state[name].copy())
        solver._direction = state["direction"].copy()
        solver._steps, solver._changes = list(state["steps"].copy()), list(state["changes"].copy())
        vars(solver._search).update(state["search"])
        return solver


class _Search:
    """A step along one direction that satisfies the strong Wolfe conditions, in an interval that holds one.

    At ``low`` the value is as good as promised and falls on; at ``high`` it is worse or rises.
    """

    def __init__(self, value: float = 0.0, slope: float = -1.0, step: float = 1.0, tolerance: float = 0.0) -> None:
        self.value, self.slope, self.step, self.tolerance = value, slope, step, tolerance
        self.low = (0.0, value, slope)
        self.high: tuple[float, float, float] | None = None
        self.trials = 0

    def accepts(self, value: float, slope: float) -> bool:
        """Whether what `step` gave satisfies both conditions."""
        return math.isfinite(value) and self._decreases(value) and abs(slope) <= -FLATTER * self.slope

    def narrow(self, value: float, slope: float) -> bool:
        """Take in what `step` gave, and choose the next; False where the interval has no room for one."""
        self.trials += 1
        trial = (self.step, value, slope)
        if not (math.isfinite(value) and math.isfinite(slope)):
            self.high = (self.step, math.inf, math.inf)
        elif not self._decreases(value) or slope >= 0:
            self.high = trial
        else:
            self.low = trial
        low, high = self.low[0], self.high[0] if self.high else math.inf
        if self.high is None:
            wanted = _cubic(self.low, (0.0, self.value, self.slope))
            farthest = low * 10.0**self.trials  # faster each time: nothing says how far away the minimum is
            self.step = min(max(wanted, 2 * low), farthest) if math.isfinite(wanted) else farthest
            return math.isfinite(self.step)
        wanted = _cubic(self.low, self.high)
        width = high - low
        if not math.isfinite(wanted):  # bisecting would take all trials to come back from far outside
            wanted = low + 0.1 * width
        self.step = min(max(wanted, low + 0.1 * width), high - 0.1 * width)
        hopeless = self.trials >= 6 and -self.slope * width < self.tolerance  # rounding hides what is left to find
        return width > 1e-14 * high and not hopeless

    def _decreases(self, value: float) -> bool:
        return value <= self.value + SUFFICIENT * self.step * self.slope + self.tolerance


def _cubic(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Where the cubic through two (step, value, slope) has its minimum; NaN where it has none."""
    (u, f, d), (v, g, e) = a, b
    if u == v or not all(map(math.isfinite, (f, d, g, e))):
        return math.nan
    bend = d + e - 3 * (f - g) / (u - v)
    root = bend * bend - d * e
    if root < 0:
        return math.nan
    turn = math.copysign(math.sqrt(root), v - u)
    below = e - d + 2 * turn
    return v - (v - u) * (e + turn - bend) / below if below else math.nan
