"""``.safetensors``: a header in JSON and the tensors one after another, read from the file in pieces.

The header is read here and not by the library, which maps the file. Format:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..core import Array, DataError
from ._arrays import described
from ._base import FileTable, Stamp, reading
from ._npy import Layout, common_step, read_rows
from ._table import Block, Column

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
    "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip
LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000  # that of the library


class SafetensorsTable(FileTable):
    """A column for each tensor of 1 or 2 axes; ``rows`` is None where their lengths differ. BF16 becomes float32.

    Raises:
        DataError: the header is damaged, or does not fit the file.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        with reading(path) as file:
            self._stamp = Stamp.of(file.fileno())
            header, data = _read_header(file, self._stamp.size, self.name)
        self._halves = {name for name, entry in header.items() if entry["dtype"] == "BF16"}
        self._layouts: dict[str, Layout] = {}
        refused: dict[str, str] = {}
        columns: list[Column] = []
        for name, entry in header.items():
            layout = _layout(name, entry, data, self.name)
            column = described(name, layout.dtype, layout.shape) if layout else _strange(entry)
            if layout and isinstance(column, Column):
                columns.append(column)
                self._layouts[name] = layout
            else:
                refused[name] = str(column)
        self.refused: Mapping[str, str] = refused
        self.columns = tuple(columns)
        lengths = {layout.shape[0] for layout in self._layouts.values()}
        self.rows = lengths.pop() if len(lengths) == 1 else None

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """The tensors of ``names`` side by side, each in its own buffer.

        Raises:
            DataError: also where their numbers of rows differ.
        """
        layouts = {name: self._layouts[name] for name in names}
        step = common_step(self.name, layouts, rows)
        with reading(self._path, self._stamp) as file:
            readers = [read_rows(file, layout, step, self.name) for layout in layouts.values()]
            for arrays in zip(*readers, strict=True):
                yield {
                    name: _widened(array) if name in self._halves else array
                    for name, array in zip(layouts, arrays, strict=True)
                }


def _widened(array: Array) -> Array:
    """BF16, as uint16, to float32: the upper half of its bits."""
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _strange(entry: Mapping[str, Any]) -> str:
    return f"it has the type {entry['dtype']}, which NumPy has not"


def _read_header(file: BinaryIO, size: int, name: str) -> tuple[dict[str, dict[str, Any]], int]:
    """The tensors by name, without the metadata, and where their bytes begin; checked against the file's size."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    start = LENGTH_BYTES + length
    if size < LENGTH_BYTES or length > LARGEST_HEADER or start > size:
        raise DataError(f"{name} is no .safetensors file, or is cut short: its header would end at byte {start:,}")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_once)
        header.pop("__metadata__", None)
        spans = sorted(_span(entry) for entry in header.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{name} is no .safetensors file, or is damaged: its header cannot be read") from error
    end = 0
    for begin, stop in spans:
        if begin != end or stop < begin:
            raise DataError(f"{name} is damaged: its tensors overlap, or leave a gap, at byte {start + end:,}")
        end = stop
    if start + end != size:
        raise DataError(f"{name} is cut short or damaged: its header says {start + end:,} bytes, {size:,} are there")
    return header, start


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _span(entry: Mapping[str, Any]) -> tuple[int, int]:
    begin, stop = entry["data_offsets"]
    for number in (begin, stop, *entry["shape"]):
        if type(number) is not int or number < 0:
            raise ValueError("sizes are integers")
    if type(entry["dtype"]) is not str:
        raise TypeError("a type is a word")
    return begin, stop


def _layout(tensor: str, entry: Mapping[str, Any], data: int, name: str) -> Layout | None:
    """Where a tensor lies; None where NumPy has no such dtype."""
    if entry["dtype"] not in DTYPES:
        return None
    begin, stop = entry["data_offsets"]
    layout = Layout(np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"]), False, data + begin)
    if layout.size != data + stop:
        raise DataError(
            f"{name} is damaged: tensor {tensor!r} of shape {layout.shape} and type {entry['dtype']} "
            f"takes {layout.size - layout.offset:,} bytes, and its header says {stop - begin:,}"
        )
    return layout


def open_safetensors(paths: Sequence[Path]) -> list[FileTable]:
    """A table for each file."""
    return [SafetensorsTable(path) for path in paths]
