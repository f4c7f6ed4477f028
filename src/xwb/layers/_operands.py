"""What layers and losses ask of their operands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core import FLOATS, Array, DtypeError, OptionError, ShapeError, one_dtype, shapes_table

FEW = 16  # columns


def check_floating(call: str, name: str, X: Any) -> Array:
    """``X`` as an array, once it is float32 or float64.

    Raises:
        DtypeError: another dtype, with the line to type.
    """
    given: Array = np.asarray(X)
    if given.dtype not in FLOATS:
        one_dtype(call, **{name: given})
    return given


def over_rows(ufunc: np.ufunc, A: Array) -> Array:
    """``ufunc.reduce(A, 1)`` of an R×C matrix; few columns are reduced as columns, up to fifty times as fast."""
    found: Array = ufunc.reduce(np.ascontiguousarray(A.T), 0) if 0 < A.shape[1] <= FEW else ufunc.reduce(A, 1)
    return found


def check_choice(call: str, option: str, value: object, allowed: Iterable[str]) -> None:
    """Nothing, once ``value`` is one of those allowed.

    Raises:
        OptionError: another value, with the list.
    """
    choices = tuple(allowed)
    if value not in choices:
        raise OptionError(f"{call}: {option}={value!r} is none of {', '.join(map(repr, choices))}")


def check_dY(call: str, dY: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """``dY`` as an array, once it has the shape and the dtype of Y.

    Raises:
        ShapeError: another shape; nothing is broadcast.
        DtypeError: another dtype, with the line to type.
    """
    given: Array = np.asarray(dY)
    if given.shape == shape and given.dtype == dtype:
        return given
    table = shapes_table([("dY", given.shape, str(given.dtype)), ("Y", shape, str(dtype))])
    if given.shape != shape:
        raise ShapeError(f"{call}: dY must have the shape of Y\n{table}\nNothing is broadcast.")
    raise DtypeError(
        f"{call}: dY must have the dtype of Y\n{table}\n"
        f"Results keep one floating dtype; type  dY = dY.astype(np.{dtype})"
    )
