"""The objective of linear heads, mean loss + λ/2‖W‖², and its gradient, for many heads in one pass over the examples.

Products are float32 where the loss is minimised and float64 where the result is certified; what blocks of examples add
up to is float64 in both. No more than one block's scores exist at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, OptionError, column_sums, dot, product
from ..layers import multiclass_hinge, softmax_cross_entropy, squared_error
from ._parts import cut
from ._rows import Part, Rows

LOSSES = ("softmax", "squared_hinge", "hinge", "squared_error")
KINDS = ("weston_watkins", "crammer_singer")
SUMMED = 256  # rows whose float32 gradients are added in float32: BLAS adds a column's one by one
COPIED = 1024  # rows that are float64 at a time


def head_loss(loss: str, kind: str = "weston_watkins") -> Callable[..., Any]:
    """The loss by the name it has on the command line: called with scores and targets it gives values and the way back.

    Raises:
        OptionError: there is none of that name, or no such kind of hinge.
    """
    if loss not in LOSSES:
        raise OptionError(f"--loss is one of {', '.join(LOSSES)}; got {loss!r}")
    if kind not in KINDS:
        raise OptionError(f"--kind is one of {', '.join(KINDS)}; got {kind!r}")
    if loss == "softmax":
        return softmax_cross_entropy
    if loss == "squared_error":
        return squared_error
    return partial(multiclass_hinge, kind=kind, squared=loss == "squared_hinge")


class Head(NamedTuple):
    """One head: where it stands, and how strongly its weights are penalised."""

    point: Array  # (D·K + K,) float64: W row by row, then b
    l2: float


class Evaluated(NamedTuple):
    """The objective at a point and its gradient there."""

    value: float
    gradient: Array  # (D·K + K,) float64


class Piece(NamedTuple):
    """Some examples, and what H heads make of them."""

    X: Array  # (n, D), of the type of the products
    y: Array  # (n,) or (n, K)
    share: Array  # (n,) float64: w_n / Σ w
    Z: Array  # (n, H, K): the scores
    losses: Array  # (H,) float64: the examples' part of each head's mean loss
    dZ: Array  # (n, H, K): the gradient of these


class Objective:
    """``F(W, b) = Σ_n w_n loss(x_n W + b, y_n) / Σ_n w_n + λ/2 ‖W‖²`` over one part of the data.

    Args:
        part: the examples, N rows of D features.
        loss: a name of `LOSSES`.
        outputs: K, the classes or targets.
        kind: of the hinge, where it is one.
        penalise_bias: adds λ/2 ‖b‖².

    Attributes:
        size: D·K + K, the numbers of a point.
        invariant: whether a number added to all scores of an example changes no loss.
        passes: over the examples so far, for one head or several.

    Raises:
        OptionError: as `head_loss`.
    """

    def __init__(
        self, part: Part, loss: str, outputs: int, *, kind: str = "weston_watkins", penalise_bias: bool = False
    ) -> None:
        self.part, self.name, self.kind, self.penalise_bias = part, loss, kind, penalise_bias
        self.loss = head_loss(loss, kind)
        self.invariant = loss != "squared_error"
        self.features, self.outputs = part.features, outputs
        self.size = self.features * outputs + outputs
        self.passes = 0

    def unpacked(self, point: Array) -> tuple[Array, Array]:
        """W (D, K) and b (K,) as views of a point."""
        weights = self.features * self.outputs
        return point[:weights].reshape(self.features, self.outputs), point[weights:]

    def gap(self, gradient: Array, l2: float) -> float | None:
        """``‖∇F‖² / 2λ`` over what is penalised, (D·K + K,); None where that says nothing.

        Which is where λ = 0, and of the hinge, whose subgradients are not small at the optimum.
        """
        if l2 <= 0 or self.name == "hinge":
            return None
        penalised = gradient if self.penalise_bias else self.unpacked(gradient)[0]
        return dot(penalised.reshape(-1), penalised.reshape(-1)) / (2 * l2)

    @np.errstate(over="ignore", invalid="ignore")  # a head that diverges is not finite, and says so itself
    def evaluate(self, heads: Sequence[Head], dtype: Any = np.float32) -> list[Evaluated]:
        """Values and gradients of all heads, from one pass over the examples.

        Args:
            heads: H of them, whose W stand side by side in one D×HK matrix.
            dtype: of the products, float32 or float64.
        """
        D, K, H = self.features, self.outputs, len(heads)
        dW, db, losses = np.zeros((D, H * K)), np.zeros(H * K), np.zeros(H)
        part_of_dW = np.empty((D, H * K), dtype)
        for piece in self.pieces(heads, dtype):
            losses += piece.losses
            dZ = piece.dZ.reshape(-1, H * K)
            dW += product(piece.X.T, dZ, part_of_dW)
            for start in range(0, len(dZ), SUMMED):
                db += column_sums(dZ[start : start + SUMMED])
        out = []
        for h, head in enumerate(heads):
            gradient = np.empty(self.size)
            g_W, g_b = self.unpacked(gradient)
            of_W, of_b = self.unpacked(head.point)
            g_W[...] = dW.reshape(D, H, K)[:, h] + head.l2 * of_W
            g_b[...] = db[h * K : h * K + K]
            if self.penalise_bias:
                g_b += head.l2 * of_b
            out.append(Evaluated(float(losses[h]) + self.penalty(head), gradient))
        return out

    def penalty(self, head: Head) -> float:
        """``λ/2 ‖W‖²``, and of the bias where that is penalised."""
        W, b = self.unpacked(head.point)
        squares = dot(W.reshape(-1), W.reshape(-1))
        return head.l2 / 2 * (squares + float(b @ b) if self.penalise_bias else squares)

    def pieces(self, heads: Sequence[Head], dtype: Any = np.float32) -> Iterator[Piece]:
        """All examples with their scores and losses, some rows at a time; the arrays are lent until the next.

        Args:
            heads, dtype: as `evaluate` takes them.
        """
        D, K, H = self.features, self.outputs, len(heads)
        W, b = np.empty((D, H, K), dtype), np.empty((H, K), dtype)
        for h, head in enumerate(heads):
            W[:, h], b[h] = self.unpacked(head.point)
        scale = 1.0 / self.part.weight
        self.passes += 1
        for rows in self._rows(dtype):
            n = len(rows.X)
            Z = product(rows.X, W.reshape(D, H * K)).reshape(n, H, K)
            Z += b
            y = np.broadcast_to(rows.y[:, None], (n, H, *rows.y.shape[1:]))
            losses, back = self.loss(Z, y.astype(dtype) if rows.y.ndim > 1 else y, reduction="none")
            share = np.full(n, scale) if rows.weight is None else rows.weight * scale
            dZ = back(np.broadcast_to(share.astype(dtype)[:, None], (n, H)))
            yield Piece(rows.X, rows.y, share, Z, share @ losses.astype(np.float64), dZ)

    def _rows(self, dtype: Any) -> Iterator[Rows]:
        """All examples with features of this dtype: blocks of float32, or float64 copies of parts of them."""
        if dtype == np.float32:
            yield from self.part.blocks()
            return
        for rows in self.part.blocks():
            for start in range(0, len(rows.X), COPIED):
                piece = cut(rows, start, start + COPIED)
                yield piece._replace(X=piece.X.astype(dtype))
