"""How far a head is from the best one: a bound that needs no knowledge of the optimum.

F is λ-strongly convex in W, and where the bias is at its minimum for that W, ``F − F* ≤ ‖∇_W F‖² / 2λ``: the value of
the dual problem at the dual point that the examples' losses name (Shalev-Shwartz and Zhang 2013, JMLR 14, section 2).
Where the bias is penalised too, all parameters count and nothing need be minimised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core import Array, norm, product
from ..layers import softmax
from ._objective import Evaluated, Head, Objective

PASSES = 30  # of Newton's method for the bias
FLAT = 1e-12  # the norm of the bias's gradient that counts as none, of what one example adds to it
FARTHEST = 5.0  # that a bias of the softmax moves in a pass


class Certificate(NamedTuple):
    """A head with its bias minimised, the objective there in float64, and the bound on its distance to the optimum."""

    head: Head
    value: float
    gradient_norm: float
    gap: float | None  # None where there is no bound: λ = 0, a loss with kinks, a bias that could not be minimised
    evaluations: int


def certify(objective: Objective, head: Head) -> Certificate:
    """Minimise the bias, then evaluate in float64 and bound the gap.

    The bound holds for smooth convex losses and λ > 0. Where L is the largest curvature of F along W, it is at most
    L/λ times the gap itself: within a factor of 1,000 where λ ≥ L/1,000. With standardised features L is about 1 for
    softmax and at most about 2K for the squared hinges, more where features are correlated.
    """
    return certify_all(objective, [head])[0]


@np.errstate(over="ignore", invalid="ignore")  # a head that is not finite has no gap, which says so
def certify_all(objective: Objective, heads: Sequence[Head]) -> list[Certificate]:
    """`certify` for several heads, each pass over the examples for all that are not done."""
    searches = [_Bias(objective, head) for head in heads]
    while left := [search for search in searches if not search.done]:
        found = objective.evaluate([search.trial for search in left], np.float64)
        for search, one in zip(left, found, strict=True):
            search.take(one)
        if curved := [search for search in left if search.wants_curvature]:
            bends = _bias_curvatures(objective, [search.head for search in curved])
            for search, bend in zip(curved, bends, strict=True):
                search.turn(bend)
    return [search.certificate() for search in searches]


class _Bias:
    """Newton's method for the bias of one head.

    Attributes:
        head: the best one so far.
        trial: the one to evaluate next.
        wants_curvature: `turn` is to be called before the next evaluation.
        done: nothing more is to be evaluated.
    """

    def __init__(self, objective: Objective, head: Head) -> None:
        self.objective, self.head, self.trial = objective, head, head
        self.best = Evaluated(np.inf, np.zeros(objective.size))
        self.evaluations = 0
        self.minimised = objective.penalise_bias
        self.wants_curvature = self.done = False
        self._step: Array | None = None

    def take(self, found: Evaluated) -> None:
        """What `trial` was evaluated to."""
        self.evaluations += 1
        if self._step is not None and not found.value <= self.best.value * (1 + 1e-14):
            self._move(self._step / 4)  # too far: between the last point and this one
            return
        self.best, self.head = found, self.trial
        steepness = norm(self._slope)
        self.minimised = self.minimised or steepness < FLAT * max(1.0, found.value**0.5)
        stuck = self.objective.name == "hinge" or not np.isfinite(steepness + found.value)
        self.done = self.minimised or stuck or self.evaluations >= PASSES
        self.wants_curvature = not self.done

    def turn(self, curvature: Array) -> None:
        """Newton's step with the Hessian of the bias at `head`, K×K."""
        self.wants_curvature = False
        step = np.linalg.lstsq(curvature, self._slope)[0]
        if not step.any():
            step = self._slope / norm(self._slope)
        if self.objective.name == "softmax":  # where probabilities are 0 and 1 their curvature promises too much
            step *= min(1.0, FARTHEST / float(np.abs(step).max()))
        self._move(step)

    def certificate(self) -> Certificate:
        steepness = norm(self.best.gradient)
        finite = bool(np.isfinite(steepness + self.best.value))
        gap = self.objective.gap(self.best.gradient, self.head.l2) if self.minimised and finite else None
        return Certificate(self.head, self.best.value, steepness, gap, self.evaluations)

    @property
    def _slope(self) -> Array:
        return self.objective.unpacked(self.best.gradient)[1]

    def _move(self, step: Array) -> None:
        point = self.head.point.copy()
        self.objective.unpacked(point)[1][...] -= step
        self._step, self.trial = step, Head(point, self.head.l2)
        self.done = self.evaluations >= PASSES or np.array_equal(point, self.head.point)


def _bias_curvatures(objective: Objective, heads: Sequence[Head]) -> list[Array]:
    """The Hessian of each head with respect to its bias, K×K: exact for the softmax, an upper bound for the others."""
    K, H = objective.outputs, len(heads)
    W = np.concatenate([objective.unpacked(head.point)[0] for head in heads], 1).astype(np.float32)
    b = np.concatenate([objective.unpacked(head.point)[1] for head in heads]).astype(np.float32)
    totals = [np.zeros((K, K)) for _ in heads]
    for rows in objective.part.blocks():
        n = len(rows.X)
        weight = np.ones(n) if rows.weight is None else rows.weight
        Z = (product(rows.X, W) + b).reshape(n, H, K)
        for h, total in enumerate(totals):
            total += _bias_curvature(objective, np.ascontiguousarray(Z[:, h]), rows.y, weight)
    return [total / objective.part.weight for total in totals]


def _bias_curvature(objective: Objective, Z: Array, y: Array, weight: Array) -> Array:
    """Some examples' share, from their scores Z (n, K)."""
    if objective.name == "softmax":
        P = softmax.forward(Z)[0].astype(np.float64)
        return np.asarray(np.diag(weight @ P) - product(P.T, weight[:, None] * P))
    if objective.name == "squared_error":
        return np.asarray(2 * weight.sum() * np.eye(Z.shape[1]))
    return _hinge_curvature(objective, Z, y, weight)


def _hinge_curvature(objective: Objective, Z: Array, y: Array, weight: Array) -> Array:
    """``Σ_n 2 w_n Σ_j (e_j − e_y)(e_j − e_y)ᵀ`` over the violated j."""
    n, K = Z.shape
    margins = 1.0 + Z - Z[np.arange(n), y, None]
    margins[np.arange(n), y] = -np.inf
    violated = (margins > 0).astype(np.float64)
    if objective.kind == "crammer_singer":
        worst = margins.argmax(axis=1)
        one = np.zeros_like(violated)
        one[np.arange(n), worst] = violated[np.arange(n), worst]
        violated = one
    violated *= 2 * weight[:, None]
    onehot = np.zeros((n, K))
    onehot[np.arange(n), y] = 1.0
    cross = product(onehot.T, violated)
    of_label = np.diag(onehot.T @ violated.sum(axis=1))
    return np.asarray(np.diag(violated.sum(axis=0)) + of_label - cross - cross.T)
