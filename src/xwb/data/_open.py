"""From a path to a table: the format by the suffix, several files as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..core import DataError, unknown
from ._base import FileTable
from ._csv import open_csv
from ._libsvm import open_libsvm
from ._npy import open_npy
from ._npz import open_npz
from ._parquet import open_parquet
from ._safetensors import open_safetensors
from ._table import Block, Column, Table


class Format(NamedTuple):
    """What files with some suffixes are, and what opens them, a table for each."""

    suffixes: tuple[str, ...]
    open: Callable[[Sequence[Path]], list[FileTable]]


FORMATS = (
    Format((".parquet",), open_parquet),
    Format((".csv", ".csv.gz"), open_csv),
    Format((".tsv", ".tsv.gz"), open_csv),
    Format((".npy",), open_npy),
    Format((".npz",), open_npz),
    Format((".safetensors",), open_safetensors),
    Format((".svm", ".libsvm", ".svmlight"), open_libsvm),
)
SUFFIXES = [suffix for format in FORMATS for suffix in format.suffixes]
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def open_table(source: Source) -> Table:
    """The table in a file, in several files of one format, or in all files of a folder that have a known suffix.

    Several files are one table, in the order given, those of a folder by name; their columns must be the same.

    Raises:
        DataError: a file is missing, damaged, or has no known suffix; the folder has none; formats or columns differ.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        name, paths = (f"{path}", [path]) if not path.is_dir() else (f"the folder {path}", _files_in(path))
    else:
        paths = [Path(one) for one in source]
        name = f"{paths[0]} and {len(paths) - 1} more" if paths else ""
    if not paths:
        raise DataError("the list of files is empty; name one at least")
    format = _one_format(paths)
    for path in paths:
        if not path.is_file():
            raise DataError(f"cannot read {path}: {'it is no file' if path.exists() else 'no such file'}")
    tables = format.open(paths)
    return tables[0] if len(tables) == 1 else Joined(tables, name)


def _format_of(path: Path) -> Format | None:
    return next((format for format in FORMATS if path.name.lower().endswith(format.suffixes)), None)


def _files_in(folder: Path) -> list[Path]:
    """Hidden files, and those that begin with an underscore, are other programs' notes."""
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from error
    found = [path for path in inside if _format_of(path) and path.is_file()]
    if not found:
        raise DataError(f"the folder {folder} has no file with a known suffix: {', '.join(SUFFIXES)}")
    return found


def _one_format(paths: Sequence[Path]) -> Format:
    first, *others = [(path, _format_of(path)) for path in paths]
    for path, format in (first, *others):
        if format is None:
            near = unknown(path.suffix, SUFFIXES) if path.suffix else ""
            raise DataError(f"{path} has no known suffix{near}: {', '.join(SUFFIXES)}")
        if format is not first[1]:
            raise DataError(f"files of one table have one format; {first[0]} and {path} have two")
    assert first[1] is not None
    return first[1]


class Joined(FileTable):
    """Tables of the same columns, one after another.

    Raises:
        DataError: a column is missing in one, is there only in one, or is of another kind or width.
    """

    def __init__(self, tables: Sequence[FileTable], name: str) -> None:
        # A file without rows may not know what its columns are.
        self._tables = [table for table in tables if table.rows != 0] or list(tables[:1])
        first = self._tables[0]
        for other in self._tables[1:]:
            _compare(first, other)
        self.name, self.columns, self.refused = name, first.columns, first.refused
        counts = [table.rows for table in self._tables]
        self.rows = None if None in counts else sum(count or 0 for count in counts)

    def like(self, columns: Sequence[Column]) -> FileTable:
        """As `FileTable.like`."""
        alike = [table.like(columns) for table in self._tables]
        return self if alike == self._tables else Joined(alike, self.name)

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """Those of each table in turn."""
        for table in self._tables:
            yield from table.chunks(names, rows, as_text)


def _compare(first: FileTable, other: FileTable) -> None:
    wanted = {column.name: column for column in first.columns}
    there = {column.name: column for column in other.columns}
    for name in [*wanted, *there]:
        if name not in there:
            raise DataError(f"{other.name} has no column {name!r}, and {first.name} has")
        if name not in wanted:
            raise DataError(f"{other.name} has a column {name!r}, and {first.name} has not")
        if wanted[name] != there[name]:
            raise DataError(
                f"column {name!r} is {_said(there[name])} in {other.name} and {_said(wanted[name])} in {first.name}"
            )


def _said(column: Column) -> str:
    return column.kind if column.width is None else f"{column.kind} of width {column.width}"
