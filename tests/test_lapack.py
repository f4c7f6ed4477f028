"""Symmetric systems that rounding, or a number that is none, has spoilt."""

from __future__ import annotations

import numpy as np
import pytest

from xwb.core import cholesky


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cholesky_refuses_what_is_not_finite(bad):
    """And does not look for a multiple of the identity that helps, for ever."""
    A = np.eye(3)
    A[2, 0] = A[0, 2] = bad
    with pytest.raises(ValueError, match="infs or NaNs"):
        cholesky(A)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_cholesky_of_a_matrix_that_is_only_nearly_positive(rank):
    factor = np.random.default_rng(0).standard_normal((5, rank)) * 1e3
    A = factor @ factor.T
    B = A @ np.ones((5, 2))
    found = cholesky(A.copy())(B)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(A @ found, B, atol=1e-3)
