"""The Jacobian, for the cases small enough to look at."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._blas import Array
from ._errors import OptionError
from ._layer import Layer, Loss


def _bytes(count: int) -> str:
    """A number of bytes with its binary unit: ``256 GiB``."""
    power = min(max(count, 1).bit_length() - 1, 60) // 10
    return f"{count / 1024**power:.4g} {['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'][power]}"


def jacobian(
    layer: Layer | Loss, *arrays: Any, wrt: str | None = None, max_bytes: int = 2**28, **options: Any
) -> Array:
    """∂Y/∂X entry by entry, of shape Y.shape + X.shape, from one backward pass per entry of Y.

    It is hopeless to form at real sizes, and never needed (source 004): ``back(dY)`` is its product with dY.

    Args:
        layer: any layer, chain or loss.
        arrays: its inputs.
        wrt: the input's name, the first by default ("X" for layers); of a loss the scores.
        max_bytes: the budget, 256 MiB by default.
        options: the layer's options.

    Raises:
        OptionError: the Jacobian would be larger than the budget, its entries and bytes are said; or ``wrt`` names no
            input with a gradient.
    """
    differentiable = layer.inputs[:1] if isinstance(layer, Loss) else layer.inputs
    wrt = differentiable[0] if wrt is None else wrt
    given = {name: array for name, array in zip(layer.inputs, arrays, strict=False) if array is not None}
    possible = [name for name in differentiable if name in given]
    if wrt not in possible:
        raise OptionError(
            f"jacobian: {layer.call} has no gradient of {wrt!r} here; wrt is one of {', '.join(possible)}"
        )
    value, back = layer(*arrays, **options)
    Y, X = np.asarray(value), np.asarray(given[wrt])
    entries = Y.size * X.size
    if entries * Y.itemsize > max_bytes:
        raise OptionError(
            f"jacobian: ∂Y/∂{wrt} of {layer.name} has {Y.shape} × {X.shape} = {entries:,} entries, "
            f"{_bytes(entries * Y.itemsize)} in {Y.dtype}; the budget max_bytes={max_bytes} is {_bytes(max_bytes)}.\n"
            "You never need it: back(dY) is its product with dY."
        )
    rows = np.empty((Y.size, *X.shape), Y.dtype)
    for i in range(Y.size):
        dY = np.zeros(Y.shape, Y.dtype)
        dY.flat[i] = 1.0
        rows[i] = back(dY) if isinstance(layer, Loss) else getattr(back(dY, needs=(wrt,)), wrt)
    return rows.reshape(Y.shape + X.shape)
