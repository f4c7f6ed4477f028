"""How the losses of heads are curved: the K×K Hessian of each example's loss with respect to its scores.

All of them are a diagonal less products of two vectors, ``h_n = diag(d_n) − Σ_i u_ni v_niᵀ``, so that no h_n is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core import Array, product
from ..layers import softmax


class ScoreCurvature(NamedTuple):
    """The Hessians h, K×K each, of n examples and H heads."""

    diagonal: Array  # (n, H, K): d
    pairs: Sequence[tuple[Array, Array]]  # each (n, H, K): u and v

    @classmethod
    def of(cls, loss: str, kind: str, Z: Array, y: Array) -> ScoreCurvature:
        """At the scores Z (n, H, K) of examples with the classes y (n,), or targets; of hinges where no margin is 0.

        Args:
            loss: ``"softmax"``, ``"squared_error"`` or ``"squared_hinge"``.
            kind: of the hinge, where it is one.
        """
        if loss == "softmax":
            P = softmax.forward(Z)[0]
            return cls(P, [(P, P)])
        if loss == "squared_error":
            return cls(np.full_like(Z, 2.0), [])
        labels = np.zeros_like(Z)
        np.put_along_axis(labels, np.broadcast_to(y[:, None, None], (*Z.shape[:2], 1)), 1, 2)
        margins = 1.0 + Z - np.take_along_axis(Z, y[:, None, None], 2)
        violated = ((margins > 0) & (labels == 0)).astype(Z.dtype)
        if kind == "crammer_singer":
            worst = np.where(labels == 0, margins, -np.inf).argmax(axis=2)[:, :, None]
            of_worst = np.take_along_axis(violated, worst, 2)
            violated[...] = 0
            np.put_along_axis(violated, worst, of_worst, 2)
        violated *= 2  # Σ_j 2 (e_j − e_y)(e_j − e_y)ᵀ over the violated j
        diagonal = violated + labels * violated.sum(axis=2, keepdims=True)
        return cls(diagonal, [(violated, labels), (labels, violated)])

    def means(self, weight: Array) -> Array:
        """``Σ_n w_n h_n[k, k]``, (H, K) float64, for weights (n,)."""
        diagonal = self.diagonal - sum(u * v for u, v in self.pairs)
        return np.asarray(np.einsum("n,nhk->hk", weight, diagonal.astype(np.float64)))

    def along(self, weight: Array, *factors: Array) -> Array:
        """``Σ_n w_n A_nᵀ h_n A_n``, (H, mK, mK) float64, where ``A_n = [diag(a_n1) … diag(a_nm)]`` of each head.

        Args:
            weight: (n,).
            factors: m arrays a, each (n, H, K).
        """
        (_, H, K), m = self.diagonal.shape, len(factors)
        w, each = weight.astype(self.diagonal.dtype)[:, None, None], np.arange(K)
        diagonals = np.zeros((H, m, K, m, K))
        for i, a in enumerate(factors):
            weighted = w * self.diagonal * a
            for j, b in enumerate(factors):
                diagonals[:, i, each, j, each] = np.einsum("nhk,nhk->hk", weighted, b)
        total = diagonals.reshape(H, m * K, m * K)
        for u, v in self.pairs:
            left = np.concatenate([w * u * a for a in factors], 2)
            right = np.concatenate([v * a for a in factors], 2)
            for h in range(H):
                total[h] -= product(left[:, h].T, right[:, h])
        return total
