"""Matrix products through SciPy's BLAS, and only through it.

NumPy's and SciPy's wheels each carry an OpenBLAS with its own thread pool; products that alternate between the two
make the pools fight for the cores, so every product of a step goes through this file.

BLAS thinks in columns: a C-ordered matrix is its transpose there. ``C = A B`` in C order is therefore asked for as
``Cᵀ = Bᵀ Aᵀ``, with no copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._errors import FLOATS

Array = NDArray[Any]

# Bytes of a buffer that stays in a core's cache.
CACHE = 2**21


class _Routines(NamedTuple):
    gemm: Callable[..., Array]
    gemv: Callable[..., Array]
    axpy: Callable[..., Array]
    dot: Callable[..., float]


class _BySciPy(dict[np.dtype[Any], _Routines]):
    """BLAS routines by dtype, imported at the first product so that ``import xwb`` does not pay for SciPy."""

    def __missing__(self, dtype: np.dtype[Any]) -> _Routines:
        if self:
            raise KeyError(dtype)
        from scipy.linalg import blas

        _keep_freed_memory()
        self[np.dtype(np.float32)] = _Routines(blas.sgemm, blas.sgemv, blas.saxpy, blas.sdot)
        self[np.dtype(np.float64)] = _Routines(blas.dgemm, blas.dgemv, blas.daxpy, blas.ddot)
        return self[dtype]


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that one step frees for the next one, instead of paging it in anew.

    Freeing a large block raises the size up to which it does so; 32 MiB, header included, is the most it accepts.
    """
    np.empty(2**25 - 2**16, np.uint8)


_blas = _BySciPy()


def in_blas_order(A: Array) -> bool:
    """Whether BLAS can write into the matrix ``A`` as it lies in memory."""
    flags = A.flags
    return (flags.c_contiguous or flags.f_contiguous) and flags.aligned and flags.writeable


def refuse_unwritable(out: Array, dtype: np.dtype[Any]) -> None:
    """Raise NumPy's own error where NumPy would refuse to add ``dtype`` into ``out``: read-only, or of integers."""
    if not (out.flags.writeable and out.dtype == dtype):
        nothing = out.reshape(-1)[:0] if out.ndim == 0 else out[:0]
        np.add(nothing, np.empty(nothing.shape, dtype), out=nothing)


def product(A: Array, B: Array, out: Array | None = None, alpha: float = 1.0, beta: float = 0.0) -> Array:
    """``alpha A B``, or ``out = alpha A B + beta out`` in place.

    Args:
        A: R×K, float32 or float64. Copied by BLAS only if neither C- nor F-contiguous.
        B: K×C, same dtype.
        out: R×C, same dtype, `in_blas_order`, sharing no memory with A or B (BLAS does not check).
        alpha: scale of the product.
        beta: scale of what ``out`` holds; 0 overwrites it, NaN included.

    Returns:
        ``out``, or a new C-ordered array.
    """
    if out is None:
        out = np.empty((A.shape[0], B.shape[1]), A.dtype)
        beta = 0.0
    if out.size == 0:
        return out
    if A.shape[1] == 0:
        if beta == 0.0:
            out.fill(0.0)
        elif beta != 1.0:
            out *= beta
        return out
    if out.flags.c_contiguous:
        A, B, target = B.T, A.T, out.T
    else:
        target = out
    trans_a = trans_b = 0
    if not A.flags.f_contiguous:
        A, trans_a = A.T, 1
    if not B.flags.f_contiguous:
        B, trans_b = B.T, 1
    written = _blas[out.dtype].gemm(alpha, A, B, beta, target, trans_a, trans_b, 1)
    if written is not target:  # f2py made a copy: never for `in_blas_order`, and never lost
        target[...] = written
    return out


def column_sums(A: Array) -> Array:
    """``Σ_r A[r]`` of an R×C matrix, as the product of Aᵀ with ones: faster than a sum and with less rounding."""
    if A.size == 0:
        return np.zeros(A.shape[1], A.dtype)
    ones = np.ones(A.shape[0], A.dtype)
    if A.flags.c_contiguous:
        return _blas[A.dtype].gemv(1.0, A.T, ones)
    return _blas[A.dtype].gemv(1.0, A, ones, trans=1)


def dot(x: Array, y: Array) -> float:
    """``Σ_i x_i y_i`` of two vectors of one dtype; for long ones NumPy's ``@`` would wake its own BLAS's threads."""
    return float(_blas[x.dtype].dot(x, y)) if x.size else 0.0


def norm(x: Array) -> float:
    """``√Σ x_i²`` of a vector; 0 or infinite where the squares leave the dtype."""
    return math.sqrt(dot(x, x))


def add_scaled(out: Array, alpha: float, A: Array) -> None:
    """``out += alpha A`` in place, for arrays of one shape and dtype, without a temporary of their size where they are
    float32 or float64 and contiguous."""
    if out.size == 0:
        return
    for order in ("C", "F") if out.dtype in FLOATS else ():
        if in_blas_order(out) and out.flags[order] and A.flags[order]:
            flat = out.reshape(-1, order=order)
            written = _blas[out.dtype].axpy(A.reshape(-1, order=order), flat, a=alpha)
            if written is not flat:
                flat[...] = written
            return
    rows = tile_rows(out.size // len(out), len(out), out.itemsize)
    for start in range(0, len(out), rows):
        out[start : start + rows] += alpha * A[start : start + rows]


def tile_rows(columns: int, rows: int, itemsize: int) -> int:
    """How many rows of ``columns`` entries fit in a buffer of `CACHE` bytes, at least one."""
    return max(1, min(rows, CACHE // max(1, columns * itemsize)))
