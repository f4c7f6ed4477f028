"""``.npz``: a zip file of arrays, each read through zipfile in pieces, packed or not."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Collection, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

import numpy as np

from ..core import Array, DataError
from ._arrays import described, values
from ._base import FileTable, Stamp, filled, reading
from ._npy import Layout, check_size, common_step, read_layout, read_rows
from ._table import Block, Column

ENCRYPTED = 1  # a bit of a member's flags


class NpzTable(FileTable):
    """A column for each array of 1 or 2 axes, under its key; ``rows`` is None where their lengths differ.

    An array in Fortran's order is loaded whole when it is asked for: a packed member cannot be read by columns.

    Raises:
        DataError: the file is no zip file, is damaged or encrypted, or holds two arrays of one name.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self.refused: dict[str, str] = {}
        self._layouts: dict[str, Layout] = {}
        columns: list[Column] = []
        with reading(path) as file, zipfile.ZipFile(file) as archive:
            self._stamp = Stamp.of(file.fileno())
            for info in archive.infolist():
                column = self._column(archive, info)
                columns += [column] if column else []
        self.columns = tuple(columns)
        lengths = {self._layouts[column.name].shape[0] for column in columns}
        self.rows = lengths.pop() if len(lengths) == 1 else None

    def _column(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Column | None:
        key = info.filename.removesuffix(".npy")
        if info.flag_bits & ENCRYPTED:
            raise DataError(f"{self.name} is encrypted")
        if key in self._layouts or key in self.refused:
            raise DataError(f"{self.name} holds two arrays named {key!r}")
        if key == info.filename:
            self.refused[key] = "it is no .npy file"
            return None
        with archive.open(info) as member:
            layout = read_layout(cast(BufferedIOBase, member), f"{self.name}, array {key}")
        column = described(key, layout.dtype, layout.shape)
        if isinstance(column, str):
            self.refused[key] = column
            return None
        check_size(layout, info.file_size, f"{self.name}, array {key}")
        self._layouts[key] = layout
        return column

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """The members of ``names`` side by side, each in its own buffer.

        Raises:
            DataError: also where their numbers of rows differ.
        """
        layouts = {name: self._layouts[name] for name in names}
        step = common_step(self.name, layouts, rows)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(reading(self._path, self._stamp))
            archive = stack.enter_context(zipfile.ZipFile(file))
            members = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in layouts}
            readers = [_rows_of(member, f"{self.name}, array {name}", step) for name, member in members.items()]
            for arrays in zip(*readers, strict=True):
                yield dict(zip(layouts, arrays, strict=True))


def _rows_of(member: IO[bytes], where: str, step: int) -> Iterator[Array]:
    """The rows of a member; the last ones only after zipfile has compared the checksum."""
    file = cast(BufferedIOBase, member)
    layout = read_layout(file, where)
    if layout.fortran:
        yield from _loaded_rows(file, layout, step, where)
        return
    left = layout.shape[0]
    for array in read_rows(file, layout, step, where, seek=False):
        left -= len(array)
        if not left and file.read(1):  # reading up to the end is what makes zipfile compare
            raise DataError(f"{where} is damaged: bytes follow the array")
        yield array


def _loaded_rows(file: BufferedIOBase, layout: Layout, step: int, where: str) -> Iterator[Array]:
    raw = np.empty(layout.size - layout.offset, np.uint8)
    if filled(file, raw) < len(raw) or file.read(1):
        raise DataError(f"{where} is damaged: it has not the bytes that its header says")
    whole = values(raw, layout.dtype, layout.shape[::-1], where).T
    for start in range(0, len(whole), step):
        yield whole[start : start + step]


def open_npz(paths: Sequence[Path]) -> list[FileTable]:
    """A table for each file."""
    return [NpzTable(path) for path in paths]
