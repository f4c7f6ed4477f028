"""Arrays as columns: what a dtype and a shape mean, and bytes made values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ..core import Array, DataError
from ._base import FileTable
from ._table import Block, Column

KINDS = {"i": "number", "u": "number", "f": "number", "b": "boolean", "U": "text", "S": "text", "T": "text"}
LAST_CHARACTER = 0x10FFFF


def described(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Column | str:
    """The column that an array of this dtype and shape is, or why it is none, "it has the shape (2, 3, 4)"."""
    if dtype.hasobject and dtype.kind != "T":
        return "it holds Python objects, which are not loaded"
    if dtype.kind not in KINDS or not dtype.itemsize:
        return f"it has the dtype {dtype}; columns are numbers, booleans or text"
    if len(shape) not in (1, 2):
        return f"it has the shape {shape}; columns are (n,) or (n, width)"
    return Column(name, KINDS[dtype.kind], shape[1] if len(shape) == 2 else None)


def row_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes of one row, of an array of shape (n, ...)."""
    return dtype.itemsize * prod(shape[1:])


def values(raw: Array, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    """The bytes ``raw``, (size,) uint8, as an array in this machine's byte order; ``raw`` may be overwritten.

    Raises:
        DataError: text that is none.
    """
    array = raw.view(dtype).reshape(shape)
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    if dtype.kind == "U" and array.size and raw.view(np.uint32).max() > LAST_CHARACTER:
        raise DataError(f"{where} is damaged: it holds text with characters that do not exist")
    return decoded(array, where)


def decoded(array: Array, where: str) -> Array:
    """Bytes of dtype S as UTF-8 text; anything else as it is.

    Raises:
        DataError: bytes that are no UTF-8.
    """
    if array.dtype.kind != "S":
        return array
    try:
        text: Array = np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} holds bytes that are no UTF-8 text: {error.object!r}") from error
    return text


def same_rows(name: str, rows: Mapping[str, int], otherwise: str = "") -> int:
    """The number of rows that all have; ``otherwise`` is said to who has others.

    Raises:
        DataError: they differ.
    """
    if len(set(rows.values())) > 1:
        (a, n), (b, m) = min(rows.items(), key=lambda item: item[1]), max(rows.items(), key=lambda item: item[1])
        raise DataError(
            f"{name}: columns of one table have the same number of rows; {a} has {n:,} and {b} has {m:,}{otherwise}"
        )
    return next(iter(rows.values()))


class ArrayTable(FileTable):
    """Arrays in memory as a table; they are not copied.

    Args:
        arrays: by column name, of shape (n,) or (n, width): numbers, booleans or text.

    Raises:
        DataError: no array, another shape or dtype, or arrays of different lengths.
    """

    def __init__(self, arrays: Mapping[str, Any], name: str = "arrays in memory") -> None:
        self.name = name
        self.refused: Mapping[str, str] = {}
        self._arrays = {key: np.asarray(array) for key, array in arrays.items()}
        if not self._arrays:
            raise DataError("a table of arrays has at least one; this one has none")
        columns = []
        for key, array in self._arrays.items():
            column = described(key, array.dtype, array.shape)
            if isinstance(column, str):
                raise DataError(f"the array {key!r} cannot be a column: {column}")
            columns.append(column)
        self.columns = tuple(columns)
        self.rows = same_rows(name, {key: len(array) for key, array in self._arrays.items()})

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """Views of the arrays, ``rows`` rows each."""
        for start in range(0, self.rows or 0, rows):
            part = {name: self._arrays[name][start : start + rows] for name in names}
            yield {name: decoded(array, f"the array {name!r}") for name, array in part.items()}
