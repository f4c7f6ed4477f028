"""What the tests of the losses share: operands, and a loss's value with its gradient."""

from __future__ import annotations

import numpy as np
import pytest

DTYPES = [np.float32, np.float64]
REDUCTIONS = ["mean", "sum", "none"]
K = 5
W = np.array([0.5, 0.0, 2.0, 1.0, 3.0])  # class weights
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def operands(shape, dtype):
    """Scores, labels that name every class, target probabilities, sample weights with a zero."""
    rng = np.random.default_rng(0)
    Z = (3 * rng.standard_normal((*shape, K))).astype(dtype)
    y = rng.permutation(np.arange(int(np.prod(shape))) % K).reshape(shape)
    T = rng.random((*shape, K)).astype(dtype)
    T /= T.sum(-1, keepdims=True)
    return Z, y, T, rng.integers(0, 4, shape).astype(dtype)


def dloss_like(value):
    return np.random.default_rng(1).standard_normal(value.shape).astype(value.dtype)


def gradient(loss, Z, y, reduction="mean", **options):
    """Value and dZ, for ones or, with "none", for some dloss of the loss's shape."""
    value, back = loss(Z, y, reduction=reduction, **options)
    return value, back(dloss_like(value)) if reduction == "none" else back()
