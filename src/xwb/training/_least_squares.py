"""Squared error in closed form: one pass over the examples, then every λ from one eigendecomposition."""

from __future__ import annotations

import numpy as np

from ..core import Array, product, symmetric_eigen
from ._objective import Objective

MOST_FEATURES = 4096  # beyond, D×D matrices in float64 are larger than what iterations need


class NormalEquations:
    """``(2 XᵀX/N + λ) W = 2 XᵀT/N`` with X and T centred, which is what minimising an unpenalised bias does to them.

    Products and sums are float64.

    Args:
        objective: of squared error.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        D, K = objective.features, objective.outputs
        gram, cross = np.zeros((D, D)), np.zeros((D, K))
        of_X, of_T = np.zeros(D), np.zeros(K)
        origin_X, origin_T = np.zeros(D), np.zeros(K)
        for i, rows in enumerate(objective.part.blocks()):
            if i == 0 and not objective.penalise_bias:  # from near the mean, or centring cancels digits
                origin_X, origin_T = rows.X[0].astype(np.float64), rows.y[0].copy()
            X, T = rows.X - origin_X, rows.y - origin_T
            scaled = X if rows.weight is None else X * rows.weight[:, None]
            gram += product(scaled.T, X)
            cross += product(scaled.T, T)
            of_X += scaled.sum(axis=0)
            of_T += (T if rows.weight is None else T * rows.weight[:, None]).sum(axis=0)
        total = objective.part.weight
        gram, cross, self._mean_X, self._mean_T = gram / total, cross / total, of_X / total, of_T / total
        if objective.penalise_bias:  # then the bias is the weight of a feature that is 1 throughout
            gram = np.block([[gram, self._mean_X[:, None]], [self._mean_X[None], np.ones((1, 1))]])
            cross = np.vstack([cross, self._mean_T])
        else:
            gram -= np.outer(self._mean_X, self._mean_X)
            cross -= np.outer(self._mean_X, self._mean_T)
            self._mean_X, self._mean_T = self._mean_X + origin_X, self._mean_T + origin_T
        self._values, self._vectors = symmetric_eigen(gram)
        self._cross = product(self._vectors.T, cross)

    def solve(self, l2: float) -> Array:
        """The minimiser for this λ as a point of the objective; for λ = 0 the one with the smallest weights."""
        curvature = 2 * self._values + l2
        least = len(curvature) * np.finfo(np.float64).eps * max(float(curvature[-1]), 0.0)
        inverse = np.divide(2.0, curvature, out=np.zeros_like(curvature), where=curvature > least)
        solution = product(self._vectors, self._cross * inverse[:, None])
        point = np.empty(self.objective.size)
        W, b = self.objective.unpacked(point)
        W[...] = solution[: len(W)]
        b[...] = solution[-1] if self.objective.penalise_bias else self._mean_T - self._mean_X @ W
        return point
