"""The bias trick: a bias is the weight of a column of ones (source 000: "append a 1 to each input in X")."""

from __future__ import annotations

import numpy as np

from ._blas import Array
from ._errors import ShapeError, one_dtype, shapes_table, two_sizes


def append_ones(X: Array) -> Array:
    """X with a last column of ones, so that ``append_ones(X) @ fold_bias(W, b)`` is ``X @ W + b``.

    Args:
        X: (..., D), float32 or float64.

    Returns:
        (..., D + 1), a new array.

    Raises:
        ShapeError, DtypeError: X is a single number, or of another dtype.
    """
    X = np.asarray(X)
    one_dtype("append_ones(X)", X=X)
    if X.ndim == 0:
        raise ShapeError("append_ones(X): X is a single number, shape (); it needs a last axis")
    return np.concatenate([X, np.ones((*X.shape[:-1], 1), X.dtype)], axis=-1)


def fold_bias(W: Array, b: Array) -> Array:
    """W with b as its last row.

    Args:
        W: (D, M), float32 or float64.
        b: (M,), same dtype.

    Returns:
        (D + 1, M), a new array.

    Raises:
        ShapeError, DtypeError: they do not fit together.
    """
    W, b = np.asarray(W), np.asarray(b)
    one_dtype("fold_bias(W, b)", W=W, b=b)
    if W.ndim != 2 or b.ndim != 1:
        table = shapes_table([("W", W.shape, "[d, m]"), ("b", b.shape, "[m]")])
        raise ShapeError(f"fold_bias(W, b): W has to be a matrix and b a vector\n{table}")
    if b.shape != W.shape[1:]:
        sizes = [
            ("W", W.shape, "[d, m]", W.shape[-1]),
            ("b", b.shape, "[m]", b.shape[-1]),
        ]
        raise two_sizes("fold_bias(W, b)", "m", sizes, "b becomes the last row of W, so it has as many entries.")
    return np.concatenate([W, b[None, :]])
