"""A guess at the inverse of the curvature of a head's objective, so that L-BFGS has little left to learn.

The Hessian of the mean loss is Σ_n h_n ⊗ x_n x_nᵀ / N, with a K×K matrix h_n for each example. The guess takes each
class for itself: h̄_k S + λ with the mean h̄_k of h_n[k, k], where S = Σ_n x_n x_nᵀ / N is decomposed once for all heads
and points. What that misses most is that an example is the less curved the larger its scores are: along w_k itself, and
along the biases. These are 2K directions, and there, where it takes the scores alone, the Hessian is computed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core import Array, cholesky, product, symmetric_eigen
from ._objective import Head, Objective
from ._score_curvature import ScoreCurvature

MOST_FEATURES = 2048  # beyond, decomposing S takes longer than the iterations it saves: its diagonal does
MOST_OUTPUTS = 1024  # beyond, the directions of the heads themselves are too many
DEARER = 16  # D² / NK up to which S is worth decomposing: about as many evaluations
DAMPING = 0.01  # of the mean curvature, added: the samples are rough
FEWEST, MOST = 4, 40  # rows of the sample for S, in multiples of D
SHARE, PER_OUTPUT = 8, 100  # rows of the sample for the 2K directions: N/SHARE, and at least PER_OUTPUT·K


class Curvature:
    """What the guesses for all heads of one objective share."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._eigen: tuple[Array, Array | None] | None = None

    def inverses(self, heads: Sequence[Head]) -> list[Callable[[Array], Array] | None]:
        """``v ↦ C⁻¹ v`` of vectors (D·K + K,), the guess C being that at each head's point; None where not finite.

        One pass over the examples, and one more the first time, or two where features are beyond 1e19.
        """
        if not heads:
            return []
        if self._eigen is None:
            self._eigen = self._decomposed()
        values, vectors = self._eigen
        if not np.isfinite(values).all():
            return [None] * len(heads)
        return [
            _Inverse(self.objective, head, values, vectors, means, hessian)
            if np.isfinite(means).all() and (hessian is None or np.isfinite(hessian).all())
            else None
            for head, (means, hessian) in zip(heads, self._along_heads(heads), strict=True)
        ]

    def _decomposed(self) -> tuple[Array, Array | None]:
        """The eigenvalues (D,) of S and its eigenvectors (D, D), or its diagonal and None."""
        D, work = self.objective.features, DEARER * self.objective.part.rows * self.objective.outputs
        whole = D <= MOST_FEATURES and work >= D * D
        wanted = min(max(2 * work // max(D, 1), FEWEST * D), MOST * D) if whole else 0
        moments = self._second_moments(wanted, np.float32)
        if not np.isfinite(moments).all():  # features beyond 1e19: their squares are beyond float32
            moments = self._second_moments(wanted, np.float64)
        if not whole or not np.isfinite(moments).all():
            return moments.diagonal() if whole else moments, None
        values, vectors = symmetric_eigen(moments)
        return np.maximum(values, 0.0), vectors

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is not used
    def _second_moments(self, wanted: int, dtype: Any) -> Array:
        """S (D, D) in float64 from about ``wanted`` rows, but its diagonal from all; of no rows the diagonal alone.

        A feature that few rows have is next to nothing in a sample, and the guess would be far too flat along it.
        """
        D = self.objective.features
        diagonal, total = np.zeros(D), np.zeros((D, D) if wanted else 0)
        of_sample = np.empty(total.shape, dtype)
        for X, _, weight, chosen in self._blocks(wanted):
            X = X.astype(dtype) * np.sqrt(weight).astype(dtype)[:, None]
            diagonal += np.einsum("nd,nd->d", X, X)
            if wanted:
                total += product(X[chosen].T, X[chosen], of_sample)
        diagonal /= self.objective.part.weight
        if not wanted:
            return diagonal
        sampled = total.diagonal()
        scale = np.sqrt(np.divide(diagonal, sampled, out=np.zeros(D), where=sampled > 0))
        total *= scale
        total *= scale[:, None]
        np.fill_diagonal(total, diagonal)
        return total

    @np.errstate(over="ignore", invalid="ignore")
    def _along_heads(self, heads: Sequence[Head]) -> list[tuple[Array, Array | None]]:
        """Of each head the means (K,) of h_n[k, k], and the Hessian (2K, 2K) along its w_k and its biases, or None."""
        o, H = self.objective, len(heads)
        K = o.outputs
        W = np.concatenate([o.unpacked(head.point)[0] for head in heads], 1).astype(np.float32)
        b = np.concatenate([o.unpacked(head.point)[1] for head in heads]).astype(np.float32)
        whole = K <= MOST_OUTPUTS
        means, hessians = np.zeros((H, K)), np.zeros((H, 2 * K, 2 * K) if whole else H)
        weights = 0.0
        for X, y, weight, chosen in self._blocks(max(o.part.rows // SHARE, PER_OUTPUT * K)):
            y, weight = y[chosen], weight[chosen]
            weights += float(weight.sum())
            XW = product(X[chosen], W)
            A, Z = XW.reshape(-1, H, K), (XW + b).reshape(-1, H, K)  # A: how the scores move along each w_k
            curvature = ScoreCurvature.of(o.name, o.kind, Z, y)
            means += curvature.means(weight)
            if whole:
                hessians += curvature.along(weight, A, np.ones_like(A))
        scale = 1.0 / weights if weights else 0.0
        return [(means[h] * scale, hessians[h] * scale if whole else None) for h in range(H)]

    def _blocks(self, wanted: int) -> Iterator[tuple[Array, Array, Array, Any]]:
        """X (n, D), targets and weights (n,) of each block, and which rows are among about ``wanted`` at random."""
        rng, share = np.random.default_rng(0), wanted / max(self.objective.part.rows, 1)
        for rows in self.objective.part.blocks():
            n = len(rows.X)
            weight = np.ones(n) if rows.weight is None else rows.weight
            yield rows.X, rows.y, weight, slice(None) if share >= 1 else rng.random(n) < share


class _Inverse:
    """The inverse of one head's guess, linear and positive definite: called with a vector (D·K + K,).

    Args:
        objective: of the head.
        head: at whose point the guess is made.
        values, vectors: of S; without vectors S is the diagonal matrix of the values.
        means: (K,) of h_n[k, k].
        hessian: (2K, 2K) along w_k and along the biases, of the mean loss alone; None: the guess stays as it is there.
    """

    def __init__(
        self,
        objective: Objective,
        head: Head,
        values: Array,
        vectors: Array | None,
        means: Array,
        hessian: Array | None,
    ) -> None:
        self._unpacked, self._invariant, self._vectors = objective.unpacked, objective.invariant, vectors
        if not means.mean() > 0:  # nothing is curved: any positive number does, pairs take over
            means = np.ones_like(means)
        damping = DAMPING * float(means.mean())
        added_W, added_b = head.l2 + damping, damping + (head.l2 if objective.penalise_bias else 0.0)
        self._curvature_W = values[:, None] * means + added_W  # (D, K), along the eigenvectors of S
        self._curvature_b = means + added_b  # (K,)
        self._solve: Callable[[Array], Array] | None = None
        if hessian is not None:
            W, _ = objective.unpacked(head.point)
            self._solve_along(W, hessian, added_W, added_b)

    def _solve_along(self, W: Array, hessian: Array, added_W: float, added_b: float) -> None:
        """Take the Hessian as it is along the 2K directions, each scaled to have curvature 1 in the guess."""
        turned = W if self._vectors is None else product(self._vectors.T, W)
        lengths = np.sqrt(np.einsum("dk,dk->k", turned * turned, self._curvature_W))
        scale_W = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        self._scale_b = 1 / np.sqrt(self._curvature_b)
        self._directions = W * scale_W  # (D, K)
        squares = np.concatenate([added_W * np.einsum("dk,dk->k", W, W), np.full_like(lengths, added_b)])
        scale = np.concatenate([scale_W, self._scale_b])
        hessian = (hessian + np.diag(squares)) * np.outer(scale, scale)
        hessian += np.diag((scale == 0).astype(np.float64))  # a class without weights has no direction yet
        self._solve = cholesky(hessian)

    def __call__(self, vector: Array) -> Array:
        if not self._invariant:
            return self._times(vector)
        # A change that is the same for all classes changes no loss, and must not come from one that does.
        rest = vector.copy()
        (W, b), (mean_W, mean_b) = self._unpacked(rest), (a.mean(-1, keepdims=True) for a in self._unpacked(vector))
        W -= mean_W
        b -= mean_b
        result = self._times(rest)
        W, b = self._unpacked(result)
        W += self._divided(mean_W, self._curvature_W.mean(axis=1, keepdims=True)) - W.mean(axis=1, keepdims=True)
        b += mean_b / self._curvature_b.mean() - b.mean()
        return result

    def _times(self, vector: Array) -> Array:
        """As if no loss were invariant."""
        result = np.empty_like(vector)
        (W, b), (of_W, of_b) = self._unpacked(result), self._unpacked(vector)
        W[...] = self._divided(of_W, self._curvature_W)
        np.divide(of_b, self._curvature_b, out=b)
        if self._solve is not None:
            along = np.concatenate([np.einsum("dk,dk->k", self._directions, of_W), of_b * self._scale_b])
            of_heads, of_biases = np.split(self._solve(along) - along, 2)  # there the guess was the identity
            W += self._directions * of_heads
            b += self._scale_b * of_biases
        return result

    def _divided(self, of_W: Array, curvatures: Array) -> Array:
        """By curvatures (D, K or 1) along the eigenvectors of S."""
        if self._vectors is None:
            return np.asarray(of_W / curvatures)
        return product(self._vectors, product(self._vectors.T, of_W) / curvatures)
