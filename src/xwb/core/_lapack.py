"""Symmetric systems, through SciPy: of the same library as the products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._blas import Array


def cholesky(A: Array) -> Callable[[Array], Array]:
    """``B ↦ A⁻¹ B`` for a symmetric positive definite D×D matrix; A is used up.

    Where rounding has made A indefinite, a multiple of the identity is added until it is not.

    Raises:
        ValueError: A holds an infinity or NaN, which nothing that is added makes positive.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    trace = float(np.trace(A)) / max(1, len(A))
    added = 0.0
    while True:
        try:
            factor = cho_factor(A + added * np.eye(len(A)) if added else A, lower=True)
            break
        except LinAlgError:
            added = max(10 * added, 1e-12 * trace, 1e-300)
    return lambda B: np.asarray(cho_solve(factor, B, check_finite=False))


def symmetric_eigen(A: Array) -> tuple[Array, Array]:
    """Eigenvalues (D,), ascending, and eigenvectors as columns (D, D) of a symmetric D×D matrix."""
    from scipy.linalg import eigh

    values, vectors = eigh(A, check_finite=False)
    return values, vectors
