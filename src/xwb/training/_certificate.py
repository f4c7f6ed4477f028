"""How far a head is from the best one: a bound that needs no knowledge of the optimum.

F is λ-strongly convex in W, and where the bias is at its minimum for that W, ``F − F* ≤ ‖∇_W F‖² / 2λ``: the value of
the dual problem at the dual point that the examples' losses name (Shalev-Shwartz and Zhang 2013, JMLR 14, section 2).
Where the bias is penalised too, all parameters count and nothing need be minimised.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core import Array, product
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


@np.errstate(over="ignore", invalid="ignore")  # a head that is not finite has no gap, which says so
def certify(objective: Objective, head: Head) -> Certificate:
    """Minimise the bias, then evaluate in float64 and bound the gap.

    The bound holds for smooth convex losses and λ > 0. Where L is the largest curvature of F along W, it is at most
    L/λ times the gap itself: within a factor of 1,000 where λ ≥ L/1,000. With standardised features L is about 1 for
    softmax and at most about 2K for the squared hinges, more where features are correlated.
    """
    evaluations = 0
    best = Evaluated(np.inf, np.zeros(objective.size))
    point = head.point.copy()
    step: Array | None = None
    minimised = objective.penalise_bias
    while evaluations < PASSES:
        trial = Head(point, head.l2)
        (found,) = objective.evaluate([trial], np.float64)
        evaluations += 1
        if step is not None and not found.value <= best.value * (1 + 1e-14):
            step = step / 4  # too far: between the last point and this one
        else:
            best, head = found, trial
            slope = objective.unpacked(found.gradient)[1]
            norm = float(np.linalg.norm(slope))
            minimised = minimised or norm < FLAT * max(1.0, found.value**0.5)
            if minimised or objective.name == "hinge" or not np.isfinite(norm + found.value):
                break
            step = np.linalg.lstsq(_bias_curvature(objective, head), slope)[0]
            if not step.any():
                step = slope / norm
            if objective.name == "softmax":  # where probabilities are 0 and 1 their curvature promises too much
                step *= min(1.0, FARTHEST / float(np.abs(step).max()))
        point = head.point.copy()
        objective.unpacked(point)[1][...] -= step
        if np.array_equal(point, head.point):
            break
    norm = float(np.linalg.norm(best.gradient))
    gap = objective.gap(best.gradient, head.l2) if minimised and np.isfinite(norm + best.value) else None
    return Certificate(head, best.value, norm, gap, evaluations)


def _bias_curvature(objective: Objective, head: Head) -> Array:
    """The Hessian with respect to the bias, K×K: exact for the softmax, an upper bound for the others."""
    K = objective.outputs
    W, b = (array.astype(np.float32) for array in objective.unpacked(head.point))
    total = np.zeros((K, K))
    for rows in objective.part.blocks():
        n = len(rows.X)
        weight = np.ones(n) if rows.weight is None else rows.weight
        Z = product(rows.X, W)
        Z += b
        if objective.name == "softmax":
            P = softmax.forward(Z)[0].astype(np.float64)
            total[np.diag_indices(K)] += weight @ P
            total -= P.T @ (weight[:, None] * P)
        elif objective.name == "squared_error":
            total[np.diag_indices(K)] += 2 * weight.sum()
        else:
            total += _hinge_curvature(objective, Z, rows.y, weight)
    return total / objective.part.weight


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
    cross = onehot.T @ violated
    of_label = np.diag(onehot.T @ violated.sum(axis=1))
    return np.asarray(np.diag(violated.sum(axis=0)) + of_label - cross - cross.T)
