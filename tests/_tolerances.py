"""How far two right computations may lie apart: one table by dtype, with its reason."""

from __future__ import annotations

import numpy as np

# Relative to the largest finite entry of the expected tensor. Two orders of summation over K terms differ by about
# √K unit roundoffs (float32 6e-8, float64 1.1e-16) and at worst K; the tests sum at most some hundred terms.
TOLERANCE = {np.dtype(np.float32): 3e-6, np.dtype(np.float64): 5e-15}


def assert_close(actual, expected, *, times=1.0):
    """Same shape and dtype, the same infinities and NaN, and every entry within ``times`` the table's tolerance."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    finite = np.isfinite(expected)
    assert np.array_equal(actual[~finite], expected[~finite], equal_nan=True), f"{actual}\nexpected\n{expected}"
    assert np.isfinite(actual[finite]).all(), f"{actual}\nexpected\n{expected}"
    if finite.any():
        difference = np.abs(actual[finite].astype(np.float64) - expected[finite].astype(np.float64))
        largest = float(np.abs(expected[finite]).max())
        allowed = times * TOLERANCE[expected.dtype] * largest
        assert difference.max() <= allowed, f"off by {difference.max():.2e}, allowed {allowed:.2e}"
