"""``.npy``: one array, read from the file in pieces and never mapped, so that the memory is the caller's block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError
from ._arrays import described, row_bytes, same_rows, values
from ._base import FileTable, Stamp, chunk_rows, filled, reading
from ._table import Block

SLAB = 1 << 24  # bytes of an array in Fortran's order read at once, since each column costs a seek
OWN_FILE = (
    "; a test part is a file of its own with the names of training:  "
    'np.savez("test.npz", X_train=X_test, y_train=y_test)'
)


class Layout(NamedTuple):
    """How an array lies in its file: from byte ``offset``, in C's order or Fortran's."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the header and the array."""
        return self.offset + self.dtype.itemsize * prod(self.shape)


def read_layout(file: BufferedIOBase, name: str) -> Layout:
    """The header at the start of ``file``, which is left at the first byte of the array.

    Raises:
        DataError: the bytes are no header of a ``.npy`` file.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):  # 3.0 is for names of fields, which no column has
            raise ValueError(f"version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if any(size < 0 for size in shape):
            raise ValueError(f"shape {shape}")
    except (OSError, MemoryError, EOFError):
        raise
    except Exception as error:  # NumPy raises many kinds on bytes that are no header
        raise DataError(f"{name} is no .npy file, or is damaged: {error}") from error
    return Layout(dtype, shape, fortran and len(shape) > 1, file.tell())


def check_size(layout: Layout, size: int, name: str) -> None:
    """Hold the array's size against that of its file.

    Raises:
        DataError: the file has too few bytes, or too many.
    """
    if size == layout.size:
        return
    per_row = row_bytes(layout.dtype, layout.shape)
    if layout.shape and per_row and size < layout.size and not layout.fortran:
        there = max(0, size - layout.offset) // per_row
        raise DataError(f"{name} is cut short: its header says {layout.shape[0]:,} rows, and {there:,} are there")
    raise DataError(
        f"{name} is damaged: an array of shape {layout.shape} takes {layout.size:,} bytes with its header, "
        f"and {size:,} are there"
    )


def common_step(name: str, layouts: Mapping[str, Layout], rows: int) -> int:
    """Rows to read at a time of arrays that stand side by side, for blocks of ``rows``.

    Raises:
        DataError: their numbers of rows differ.
    """
    same_rows(name, {key: layout.shape[0] for key, layout in layouts.items()}, OWN_FILE)
    return chunk_rows(rows, sum(row_bytes(layout.dtype, layout.shape) for layout in layouts.values()))


def read_rows(file: BufferedIOBase, layout: Layout, step: int, name: str, seek: bool = True) -> Iterator[Array]:
    """An array in C's order, ``step`` rows at a time, in one buffer; without ``seek`` from where the file stands.

    With ``seek`` many may read one file by turns.
    """
    total, per_row = layout.shape[0], row_bytes(layout.dtype, layout.shape)
    buffer = np.empty(min(step, total) * per_row, np.uint8)
    for start in range(0, total, step):
        n = min(step, total - start)
        raw = buffer[: n * per_row]
        if seek:
            file.seek(layout.offset + start * per_row)
        have = filled(file, raw)
        if have < len(raw):
            raise DataError(
                f"{name} ends at row {start + have // per_row:,} of {total:,}: it was cut while it was read"
            )
        yield values(raw, layout.dtype, (n, *layout.shape[1:]), name)


def read_fortran_rows(file: BufferedIOBase, layout: Layout, step: int, name: str) -> Iterator[Array]:
    """As `read_rows` for an array (n, width) that lies column after column: a seek per column and chunk."""
    (total, width), item = layout.shape, layout.dtype.itemsize
    buffer = np.empty(min(step, total) * width * item, np.uint8)
    for start in range(0, total, step):
        n = min(step, total - start)
        raw = buffer[: n * width * item]
        for column, part in enumerate(raw.reshape(width, n * item)):
            file.seek(layout.offset + (column * total + start) * item)
            if filled(file, part) < len(part):
                raise DataError(f"{name} ends within column {column} of {width}: it was cut while it was read")
        yield values(raw, layout.dtype, (width, n), name).T


class NpyTable(FileTable):
    """One column named X, (n,) or (n, width).

    Raises:
        DataError: the file is no array of 1 or 2 axes of numbers, booleans or text, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self.refused: Mapping[str, str] = {}
        with reading(path) as file:
            self._stamp = Stamp.of(file.fileno())
            self._layout = read_layout(file, self.name)
        column = described("X", self._layout.dtype, self._layout.shape)
        if isinstance(column, str):
            raise DataError(f"the array in {path} cannot be a column: {column}")
        check_size(self._layout, self._stamp.size, self.name)
        self.columns = (column,)
        self.rows = self._layout.shape[0]

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """The rows in one reused buffer."""
        layout = self._layout
        per_row = row_bytes(layout.dtype, layout.shape)
        step = chunk_rows(rows, per_row, SLAB) if layout.fortran else chunk_rows(rows, per_row)
        read = read_fortran_rows if layout.fortran else read_rows
        with reading(self._path, self._stamp) as file:
            for array in read(file, layout, step, self.name):
                yield {"X": array}


def open_npy(paths: Sequence[Path]) -> list[FileTable]:
    """A table for each file."""
    return [NpyTable(path) for path in paths]
