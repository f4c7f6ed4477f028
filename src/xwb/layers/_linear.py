"""The linear layer, Y = XW + b."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import (
    FLOATS,
    Array,
    FactoredGradient,
    Layer,
    ShapeError,
    column_sums,
    one_dtype,
    product,
    two_sizes,
)
from ._operands import check_dY

FORMULA = "Y[n,m] = X[n,d] W[d,m] + b[m]"
CALL = "linear(X, W, b)"


class LinearSaved(NamedTuple):
    """What backward needs; X and W are the caller's arrays."""

    X: Array  # (..., D)
    W: Array  # (D, M)
    has_b: bool


def _forward(X: Array, W: Array, b: Array | None = None) -> tuple[Array, LinearSaved]:
    """``Y = XW + b``.

    Args:
        X: (..., D), float32 or float64; the leading axes are the examples'.
        W: (D, M), same dtype, any strides: an (M, D) weight is passed as ``W.T``, without a copy.
        b: (M,), same dtype, or None.

    Returns:
        Y, (..., M), C-ordered, and ``saved``, which borrows X and W: changing one before ``back`` changes the result.

    Raises:
        ShapeError, DtypeError: the operands do not fit together.

    Source: 000, 004 (docs/conventions.md).
    """
    X, W = np.asarray(X), np.asarray(W)
    dtype = X.dtype
    b = b if b is None else np.asarray(b)
    if not (dtype in FLOATS and W.dtype == dtype and (b is None or b.dtype == dtype)):
        one_dtype(CALL, X=X, W=W, b=b)
    if not (X.ndim and W.ndim == 2 and X.shape[-1] == W.shape[0] and (b is None or b.shape == W.shape[1:])):
        raise _misfit(X, W, b)
    rows = X if X.ndim == 2 else _rows(X)
    Y = np.empty((rows.shape[0], W.shape[1]), dtype)
    if b is None:
        product(rows, W, Y)
    else:
        Y[...] = b  # the accumulator starts as the bias: no pass over Y afterwards
        product(rows, W, Y, 1.0, 1.0)
    return (Y if X.ndim == 2 else Y.reshape(*X.shape[:-1], W.shape[1])), LinearSaved(X, W, b is not None)


def _backward(
    dY: Array, saved: LinearSaved, needs: Sequence[str] = ("X", "W", "b"), factored: bool = False
) -> tuple[Array | None, Array | FactoredGradient | None, Array | None]:
    """``dX = dY Wᵀ``, ``dW = Xᵀ dY``, ``db = Σ dY`` over the examples.

    Args:
        dY: (..., M), the shape and dtype of Y.
        saved: from `_forward`.
        needs: the gradients wanted; the others are None.
        factored: dW as the pair (X, dY) that it is a product of.

    Returns:
        dX (..., D), dW (D, M) and db (M,); db is None if there was no b.

    Raises:
        ShapeError, DtypeError: dY is not like Y.

    Source: 000 to 004 (docs/conventions.md).
    """
    X, W, has_b = saved
    M = W.shape[1]
    dY = check_dY(CALL, dY, (*X.shape[:-1], M), X.dtype)
    rows = dY if dY.ndim == 2 else _rows(dY)
    dX: Array | None = None
    dW: Array | FactoredGradient | None = None
    if "X" in needs:
        dX = product(rows, W.T)
        if X.ndim != 2:
            dX = dX.reshape(X.shape)
    if "W" in needs:
        left = X if X.ndim == 2 else _rows(X)
        if factored:
            dW = FactoredGradient.of_rows(left, rows, X.shape[0] if X.ndim > 1 else 1)
        else:
            dW = product(left.T, rows)
    db = column_sums(rows) if has_b and "b" in needs else None
    return dX, dW, db


def _rows(A: Array) -> Array:
    """The leading axes as one: (..., K) as a matrix."""
    return A.reshape(math.prod(A.shape[:-1]), A.shape[-1])


def _misfit(X: Array, W: Array, b: Array | None) -> ShapeError:
    """The one reason why these shapes do not fit."""
    shapes = {"X": (X.shape, "[..., d]"), "W": (W.shape, "[d, m]")} | ({} if b is None else {"b": (b.shape, "[m]")})
    if X.ndim == 0 or W.ndim != 2 or (b is not None and b.ndim != 1):
        axes = {"X": X.ndim > 0, "W": W.ndim == 2, "b": b is None or b.ndim == 1}
        wrong = next(name for name, right in axes.items() if not right)
        shape, indices = shapes[wrong]
        return ShapeError(f"{CALL}: {wrong} has shape {shape}, and {FORMULA} wants {indices}")
    D, M = W.shape
    if X.shape[-1] != D:
        more = [f"{FORMULA} sums over d, so both must agree."]
        if X.shape[-1] == M:
            more.append("W fits if transposed: PyTorch and scikit-learn store (out, in); pass W.T.")
        sizes = [
            ("X", X.shape, "[n, d]" if X.ndim == 2 else "[..., d]", X.shape[-1]),
            ("W", W.shape, "[d, m]", D),
        ]
        return two_sizes(CALL, "d", sizes, *more)
    assert b is not None
    sizes = [("W", W.shape, "[d, m]", M), ("b", b.shape, "[m]", b.shape[0])]
    return two_sizes(CALL, "m", sizes, f"{FORMULA} adds b[m] to every row, so both must agree.")


def _init(sizes: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any], then: str | None) -> list[Array]:
    """W and b = 0 for (D, M): He et al. 2015 (arXiv:1502.01852) before relu, std √(2/D); else Glorot and Bengio
    2010, uniform in ±√(6/(D + M))."""
    D, M = sizes
    if then == "relu":
        W = rng.standard_normal((D, M)) * math.sqrt(2 / max(1, D))
    else:
        bound = math.sqrt(6 / max(1, D + M))
        W = rng.uniform(-bound, bound, (D, M))
    return [W.astype(dtype), np.zeros(M, dtype)]


linear = Layer("linear", FORMULA, _forward, _backward, init=_init)
