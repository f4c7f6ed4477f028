"""A guess at the curvature of a head's objective: one D×D matrix for all outputs, the examples weighted by theirs.

The Hessian of the mean loss is Σ_n h_n ⊗ x_n x_nᵀ / N with a K×K matrix h_n for each example. Written with the mean of
its diagonal in the place of h_n it is one Gram matrix G, and (G + λ)⁻¹ costs K solves. L-BFGS corrects what is wrong
with it. Features whose Gram matrix is ill-conditioned then need a few iterations instead of hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core import Array, cholesky, product
from ..layers import softmax
from ._objective import Head, Objective

MOST_FEATURES = 2048  # beyond, factorising the matrix takes longer than the iterations it saves
# Of the mean curvature, added: the sample and the guess are rough, more so where curvature comes and goes with margins.
DAMPING, DAMPING_OF_HINGE = 0.01, 0.1
FEWEST, MOST = 4, 40  # rows of the sample, in multiples of D


def inverse_curvatures(objective: Objective, heads: Sequence[Head]) -> list[Callable[[Array], Array] | None]:
    """``vector ↦ (G + λ)⁻¹ vector`` at the point of each head, or None where D is too large for it.

    The examples are sampled so that G costs about as much as one evaluation of the objective. Heads at one point, as
    all are at the start, share it.
    """
    found: dict[bytes, tuple[Array, float]] = {}
    inverses = []
    for head in heads:
        key = head.point.tobytes() if len(heads) > 1 else b""
        if key not in found:
            found = {key: _sampled_gram(objective, head)}  # the last one alone: G is D×D
        inverses.append(_inverse(objective, head, *found[key]))
    return inverses


def _sampled_gram(objective: Objective, head: Head) -> tuple[Array, float]:
    """G and the mean curvature; no G where it is too large, or not finite."""
    D, rows = objective.features, objective.part.rows
    if D > MOST_FEATURES:
        return np.empty((0, 0)), np.nan
    wanted = min(max(4 * rows * objective.outputs // max(D, 1), FEWEST * D), MOST * D)
    every = max(1, rows // max(wanted, 1))
    gram, mean = _gram(objective, head, every, np.float32)
    if not np.isfinite(gram).all():  # features beyond 1e19: their squares are beyond float32
        gram, mean = _gram(objective, head, every, np.float64)
    return (gram, mean) if np.isfinite(gram).all() else (gram, np.nan)


def _inverse(objective: Objective, head: Head, gram: Array, mean: float) -> Callable[[Array], Array] | None:
    if not np.isfinite(mean):
        return None
    damping = mean * (DAMPING_OF_HINGE if objective.name == "squared_hinge" else DAMPING)
    solve = cholesky(gram + (head.l2 + damping) * np.eye(len(gram)))
    of_bias = mean + damping + (head.l2 if objective.penalise_bias else 0.0)

    def inverse(vector: Array) -> Array:
        result = np.empty_like(vector)
        W, b = objective.unpacked(result)
        of_W, of_b = objective.unpacked(vector)
        W[...] = solve(of_W)
        np.divide(of_b, of_bias, out=b)
        return result

    return inverse


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is not used
def _gram(objective: Objective, head: Head, every: int, dtype: Any) -> tuple[Array, float]:
    """``Σ_n c_n x_n x_nᵀ / Σ_n w_n`` (D×D, float64) over each ``every``-th example, and ``Σ_n c_n / Σ_n w_n``."""
    D = objective.features
    W, b = (array.astype(np.float32) for array in objective.unpacked(head.point))
    gram, of_block = np.zeros((D, D)), np.empty((D, D), dtype)
    curvatures = total = 0.0
    first = 0
    for rows in objective.part.blocks():
        chosen = slice(first, None, every)
        first = (first - len(rows.X)) % every
        X = np.ascontiguousarray(rows.X[chosen])
        if not len(X):
            continue
        weight = np.ones(len(X)) if rows.weight is None else rows.weight[chosen]
        c = weight * _curvature(objective, product(X, W) + b, rows.y[chosen])
        curvatures += float(c.sum())
        total += float(weight.sum())
        X = X.astype(dtype) * np.sqrt(c).astype(dtype)[:, None]
        gram += product(X.T, X, of_block)
    if not curvatures > 0:  # nothing is curved: any positive number does, pairs take over
        return np.zeros((D, D)), 1.0
    return gram / total, curvatures / total


def _curvature(objective: Objective, Z: Array, y: Array) -> Array:
    """The mean diagonal of each example's K×K Hessian with respect to its scores, shape (n,)."""
    n, K = Z.shape
    if objective.name == "softmax":
        P = softmax.forward(Z)[0]
        return np.asarray((1.0 - np.einsum("nk,nk->n", P, P)) / K, np.float64)
    if objective.name == "squared_error":
        return np.full(n, 2.0)
    margins = 1.0 + Z - Z[np.arange(n), y, None]
    violated = np.maximum((margins > 0).sum(axis=1) - 1, 0)  # without the label's own, which may be NaN
    if objective.kind == "crammer_singer":
        violated = np.minimum(violated, 1)
    return np.asarray(4.0 * violated / K)
