"""How far a head is from the best one: a bound that needs no knowledge of the optimum.

F is λ-strongly convex in W, and where the bias is at its minimum for that W, ``F − F* ≤ ‖∇_W F‖² / 2λ``: F less the
value of the dual problem at the dual point that the examples' losses name (Shalev-Shwartz and Zhang 2013, JMLR 14,
section 2). Where the bias is penalised too, all parameters count and nothing need be minimised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core import Array, norm
from ._objective import Evaluated, Head, Objective
from ._score_curvature import ScoreCurvature

PASSES = 30  # over the examples at most; the last is for the whole gradient
FLAT = 1e-10  # the norm of the bias's gradient that counts as none, of what the examples add to it
SMALL = 1e-4  # a step of the bias after which Newton's method has arrived
ROUNDING = 2.0**-52  # of the value: nearer to the optimum than that nothing is known
FARTHEST = 5.0  # that a bias of the softmax moves in a pass


class Certificate(NamedTuple):
    """A head with its bias minimised, the objective there in float64, and the bound on its distance to the optimum."""

    head: Head
    value: float
    gradient_norm: float
    gap: float | None  # None: λ = 0, the hinge, a bias that could not be minimised, or a head that is not finite
    evaluations: int  # passes over the examples


def certify(objective: Objective, head: Head) -> Certificate:
    """Minimise the bias, then evaluate in float64 and bound the gap.

    The bound holds where λ > 0. If the loss is smooth and L is the largest curvature of F along W, it is at most L/λ
    times the gap itself: within a factor of 1,000 where λ ≥ L/1,000. With standardised features L is about 1 for
    softmax and at most about 2K for the squared hinge, more where features are correlated.
    """
    return certify_all(objective, [head])[0]


@np.errstate(over="ignore", invalid="ignore")  # a head that is not finite has no gap, which says so
def certify_all(objective: Objective, heads: Sequence[Head]) -> list[Certificate]:
    """`certify` for several heads, each pass over the examples for all that are not done."""
    searches = [_BiasSearch(objective, head) for head in heads]
    while left := [search for search in searches if not search.done]:
        arrived, under_way = [one for one in left if one.arrived], [one for one in left if not one.arrived]
        if arrived:
            evaluated = objective.evaluate([search.trial for search in arrived], np.float64)
            for search, found in zip(arrived, evaluated, strict=True):
                search.tell_whole(found)
        if under_way:
            derivatives = _along_biases(objective, [search.trial for search in under_way])
            for search, of_bias in zip(under_way, derivatives, strict=True):
                search.tell(*of_bias)
    return [search.certificate() for search in searches]


def _along_biases(objective: Objective, heads: Sequence[Head]) -> list[tuple[float, Array, Array]]:
    """Of each head the objective, and its gradient (K,) and Hessian (K, K) with respect to a bias without penalty."""
    H, K = len(heads), objective.outputs
    values = np.array([objective.penalty(head) for head in heads])
    gradients, hessians = np.zeros((H, K)), np.zeros((H, K, K))
    for piece in objective.pieces(heads, np.float64):
        values += piece.losses
        gradients += piece.dZ.sum(axis=0)
        curvature = ScoreCurvature.of(objective.name, objective.kind, piece.Z, piece.y)
        hessians += curvature.along(piece.share, np.ones_like(piece.Z))
    return list(zip(values.tolist(), gradients, hessians, strict=True))


class _BiasSearch:
    """Newton's method for the bias of one head.

    Attributes:
        trial: the head to look at next.
        arrived: its bias is at the minimum as far as is known, and `tell_whole` comes next; else `tell` does.
        done: nothing more is wanted.
    """

    def __init__(self, objective: Objective, head: Head) -> None:
        self.objective, self.head, self.trial = objective, head, head
        self.found = Evaluated(np.inf, np.full(objective.size, np.nan))
        self.arrived = objective.penalise_bias or objective.name == "hinge"
        self.done = self.minimised = False
        self.passes = 0
        self._step: Array | None = None  # that led to `trial`
        self._last = self.arrived  # the whole gradient ends the search, whatever it is

    def tell(self, value: float, gradient: Array, hessian: Array) -> None:
        """What the objective is at `trial`, with its gradient (K,) and Hessian (K, K) with respect to the bias."""
        self.passes += 1
        if self._step is not None and not value <= self.found.value * (1 + 1e-14):
            self._go(self._step / 4)  # too far: between the last point and this one
            return
        self.head, self.found = self.trial, self.found._replace(value=value)
        if not np.isfinite(value + norm(gradient)) or not np.isfinite(hessian).all():
            self.done = True
        elif norm(gradient) <= self._flat:
            self.arrived = True
        else:
            self._go(self._newton(gradient, hessian))

    def tell_whole(self, found: Evaluated) -> None:
        """What the objective and its whole gradient are at `trial`."""
        self.passes += 1
        self.head, self.found = self.trial, found
        self.minimised = self.objective.penalise_bias or norm(self.objective.unpacked(found.gradient)[1]) <= self._flat
        self.done = self.minimised or self._last or not np.isfinite(norm(found.gradient) + found.value)
        self.arrived, self._step = False, None

    def certificate(self) -> Certificate:
        """Of the head that was reached."""
        value, steepness = self.found.value, norm(self.found.gradient)
        bounded = self.minimised and np.isfinite(steepness + value)
        gap = self.objective.gap(self.found.gradient, self.head.l2) if bounded else None
        if gap is not None:
            gap = max(gap, ROUNDING * value)
        return Certificate(self.head, value, steepness, gap, self.passes)

    @property
    def _flat(self) -> float:
        """A gradient is about as large as the loss, where that is small, and of squares as its root."""
        value = self.found.value
        return FLAT * (min(1.0, value) if self.objective.name == "softmax" else math.sqrt(value))

    def _newton(self, gradient: Array, hessian: Array) -> Array:
        """The step to subtract, (K,)."""
        step: Array = np.linalg.lstsq(hessian, gradient)[0]
        if not step.any():
            step = gradient / norm(gradient)
        if self.objective.name == "softmax":  # where probabilities are 0 and 1 their curvature promises too much
            step *= min(1.0, FARTHEST / float(np.abs(step).max()))
        return step - step.mean() if self.objective.invariant else step  # else rounding moves all biases alike

    def _go(self, step: Array) -> None:
        """Subtract it from the bias of the best head so far: the next trial, or, in the last pass, that head."""
        point = self.head.point.copy()
        self.objective.unpacked(point)[1][...] -= step
        self._last = self.passes >= PASSES - 1 or np.array_equal(point, self.head.point)
        self.arrived = self._last or float(np.abs(step).max()) < SMALL
        self._step, self.trial = step, self.head if self._last else Head(point, self.head.l2)
