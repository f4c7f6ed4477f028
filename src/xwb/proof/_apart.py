"""Two tensors held against each other, and what two right computations may differ by."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Array

# Relative to the largest entry. float64: sums of a hundred terms leave 1e-14; the rest is room for cancellation, and
# far below every mistake that is not rounding. float32: unit roundoff 6e-8, for the same sums where they cancel to a
# tenth. float16: unit roundoff 5e-4, for a value that was rounded a few times.
ALLOWED: dict[np.dtype[Any], float] = {
    np.dtype(np.float64): 1e-11,
    np.dtype(np.float32): 1e-4,
    np.dtype(np.float16): 1e-2,
}
# Beside inputs and dY of size one, a tensor that is smaller than this throughout is what terms that cancel leave.
SMALL = 1e-2


def apart(found: Any, expected: Array, least: float = 0.0) -> tuple[float, tuple[int, ...], str]:
    """The largest difference relative to the largest entry, or to ``least`` if that is more; where; why no number."""
    array = np.asarray(found)
    if array.shape != expected.shape:
        return np.inf, (), f"has the shape {array.shape}, expected {expected.shape}"
    if array.dtype.kind not in "fiu":
        return np.inf, (), f"has the dtype {array.dtype}"
    if array.size == 0:
        return 0.0, (), ""
    wide = array.astype(np.float64)
    with np.errstate(invalid="ignore"):  # the same infinity is the same
        difference = np.where(wide == expected, 0.0, np.abs(wide - expected))
    difference[np.isnan(difference)] = np.inf
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
    return float(difference[worst]) / scale(expected, least), worst, ""


def scale(expected: Array, least: float = 0.0) -> float:
    """What errors are relative to."""
    finite = expected[np.isfinite(expected)]
    return max(float(np.max(np.abs(finite), initial=0)), least) or 1.0
