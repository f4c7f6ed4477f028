"""What every backward asks of dY."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Array, DtypeError, ShapeError


def check_dY(call: str, dY: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """``dY`` as an array, once it has the shape and the dtype of Y.

    Raises:
        ShapeError: another shape; nothing is broadcast.
        DtypeError: another dtype, with the line to type.
    """
    given: Array = np.asarray(dY)
    if given.shape != shape:
        raise ShapeError(f"{call}: dY must have the shape of Y\n    dY  {given.shape}\n    Y   {shape}")
    if given.dtype != dtype:
        raise DtypeError(
            f"{call}: dY is {given.dtype} and Y is {dtype}\n"
            f"Results keep one floating dtype; type  dY = dY.astype(np.{dtype})"
        )
    return given
