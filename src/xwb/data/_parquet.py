"""``.parquet``, by pyarrow: small batches, not mapped, the checksums of pages compared where the file has them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Array, DataError
from ._base import FileTable, Stamp, explained
from ._cells import TEXT
from ._table import Block, Column

VALUES = 1 << 17  # of a batch
BUFFER = 1 << 20  # bytes of a column read ahead


def arrow() -> Any:
    """The module pyarrow, with what this file needs of it.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError('Parquet files need pyarrow; type  pip install "xwb[parquet]"') from error
    return pyarrow


class ParquetTable(FileTable):
    """A column for each field of numbers, booleans or strings, and for lists of numbers of one length.

    A missing number is NaN, and makes a column of integers one of float64; a missing string is empty; booleans and
    lists must all be there.

    Raises:
        DataError: the file is damaged, or two of its fields have one name.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        with explained(path):
            self._stamp = Stamp.of(path)
        refused: dict[str, str] = {}
        columns: list[Column] = []
        self._floats: dict[str, bool] = {}
        with self._file() as file:
            self.rows = int(file.metadata.num_rows)
            self._fields = {field.name: field.type for field in file.schema_arrow}
            if len(self._fields) < len(file.schema_arrow):
                raise DataError(f"{path}: two columns have the same name")
            for name, kind in self._fields.items():
                column = self._described(file, name, kind)
                if isinstance(column, str):
                    refused[name] = column
                else:
                    columns.append(column)
        self.refused: Mapping[str, str] = refused
        self.columns = tuple(columns)

    @contextlib.contextmanager
    def _file(self) -> Iterator[Any]:
        """The open file; what Arrow raises in the body is a DataError."""
        pa = arrow()
        options = {"memory_map": False, "pre_buffer": False, "buffer_size": BUFFER}
        try:
            self._stamp.compare(self._path, self._path, "since it was opened")
            with pa.parquet.ParquetFile(str(self._path), page_checksum_verification=True, **options) as file:
                yield file
        except FileNotFoundError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror}") from error
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
            fact = str(error).partition("\n")[0]
            raise DataError(f"{self._path} is damaged or no Parquet file: {fact}") from error

    def _described(self, file: Any, name: str, kind: Any) -> Column | str:
        types = arrow().types
        strange = f"it has the type {kind}; columns are numbers, booleans, strings, or lists of numbers"
        if types.is_dictionary(kind):
            kind = kind.value_type
        if _is_list(kind):
            if not _is_number(kind.value_type):
                return strange
            width = kind.list_size if types.is_fixed_size_list(kind) else self._first_length(file, name)
            return (
                "its first row is missing, and would tell the width" if width is None else Column(name, "number", width)
            )
        if types.is_boolean(kind):
            return Column(name, "boolean")
        if _is_string(kind):
            return Column(name, "text")
        return Column(name, "number") if _is_number(kind) else strange

    def _first_length(self, file: Any, name: str) -> int | None:
        """The length of the first list, 0 where there are no rows, None where it is missing."""
        for batch in file.iter_batches(1, columns=[name], use_threads=False):
            if len(batch):
                length = batch.column(batch.schema.get_field_index(name)).value_lengths()[0].as_py()
                return None if length is None else int(length)
        return 0

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """Batches of about a hundred thousand values."""
        widths = {column.name: column.width for column in self.columns}
        size = max(1, VALUES // sum(widths[name] or 1 for name in dict.fromkeys(names)))
        have = 0
        with self._file() as file:
            floats = {name for name in names if self._has_missing(file, name)}
            for batch in file.iter_batches(size, columns=list(dict.fromkeys(names)), use_threads=False):
                block = {}
                for name in names:
                    array = batch.column(batch.schema.get_field_index(name))
                    block[name] = self._values(array, name, widths[name], have, name in floats)
                yield block
                have += len(batch)
        if have != self.rows or Stamp.of(self._path) != self._stamp:
            raise DataError(f"{self._path} was changed while it was read, or is damaged: it gave {have:,} rows")

    def _has_missing(self, file: Any, name: str) -> bool:
        """Whether a column of integers is to be float64 throughout, so that no block has another type than the last."""
        types = arrow().types
        kind = self._fields[name]
        kind = kind.value_type if _is_list(kind) or types.is_dictionary(kind) else kind
        if not types.is_integer(kind):
            return False
        if name not in self._floats:
            self._floats[name] = _count_missing(file, name) > 0
        return self._floats[name]

    def _values(self, array: Any, name: str, width: int | None, row: int, as_float: bool) -> Array:
        """A batch of a column, (n,) or (n, width), of which the first is row ``row`` of the file."""
        types = arrow().types
        if types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if _is_string(array.type):
            return np.array([text or "" for text in array.to_pylist()], TEXT)
        if width is not None:
            self._check_lists(array, name, width, row)
            size, array = len(array), array.flatten()
        elif types.is_boolean(array.type) and array.null_count:
            missing = row + _first(array.is_null()) + 1
            raise DataError(f"{self.name}, row {missing:,}, column {name}: a boolean is missing")
        found: Array = array.to_numpy(zero_copy_only=False)
        if as_float:
            found = found.astype(np.float64)
        return found if width is None else found.reshape(size, width)

    def _check_lists(self, array: Any, name: str, width: int, row: int) -> None:
        lengths = array.value_lengths().to_numpy(zero_copy_only=False) if array.null_count == 0 else None
        if lengths is None:
            raise DataError(f"{self.name}, row {row + _first(array.is_null()) + 1:,}, column {name}: a list is missing")
        wrong = np.flatnonzero(lengths != width)
        if len(wrong):
            raise DataError(
                f"{self.name}, row {row + wrong[0] + 1:,}, column {name}: it has {lengths[wrong[0]]} numbers, "
                f"and the first row has {width}"
            )


def _first(mask: Any) -> int:
    return int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])


def _is_list(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_string(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _count_missing(file: Any, name: str) -> int:
    """Missing values of a column: from the file's statistics, or where one lacks by reading the column."""
    metadata = file.metadata
    places = [
        place
        for place in range(metadata.num_columns)
        if (path := metadata.schema.column(place).path) == name or path.startswith(f"{name}.")
    ]
    count = 0
    for group in range(metadata.num_row_groups):
        for place in places:
            statistics = metadata.row_group(group).column(place).statistics
            if statistics is None or not statistics.has_null_count:
                return _read_missing(file, name)
            count += statistics.null_count
    return count


def _read_missing(file: Any, name: str) -> int:
    count = 0
    for batch in file.iter_batches(VALUES, columns=[name], use_threads=False):
        array = batch.column(batch.schema.get_field_index(name))
        count += array.null_count + (array.flatten().null_count if _is_list(array.type) else 0)
    return count


def open_parquet(paths: Sequence[Path]) -> list[FileTable]:
    """A table for each file."""
    return [ParquetTable(path) for path in paths]
