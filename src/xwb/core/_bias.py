"""The bias trick: a bias is the weight of a column of ones (source 000: "append a 1 to each input in X")."""

from __future__ import annotations

import numpy as np

from ._blas import Array
from ._errors import one_dtype, two_sizes


def append_ones(X: Array) -> Array:
    """X, shape (..., D), with a last column of ones: (..., D + 1), so that ``append_ones(X) @ fold_bias(W, b)`` is
    ``X @ W + b``. Raises `DtypeError` for other dtypes than float32 and float64."""
    X = np.asarray(X)
    one_dtype("append_ones(X)", X=X)
    return np.concatenate([X, np.ones((*X.shape[:-1], 1), X.dtype)], axis=-1)


def fold_bias(W: Array, b: Array) -> Array:
    """W, D×M, with b, (M,), as its last row: (D + 1)×M. Raises `ShapeError`, `DtypeError` where they do not fit."""
    W, b = np.asarray(W), np.asarray(b)
    one_dtype("fold_bias(W, b)", W=W, b=b)
    if W.ndim != 2 or b.shape != W.shape[1:]:
        sizes = [
            ("W", W.shape, "[d, m]", W.shape[-1] if W.ndim else 0),
            ("b", b.shape, "[m]", b.shape[-1] if b.ndim else 0),
        ]
        raise two_sizes("fold_bias(W, b)", "m", sizes, "b becomes the last row of W, so it has as many entries.")
    return np.concatenate([W, b[None, :]])
