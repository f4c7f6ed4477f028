"""What the formats share: the checks of a call, blocks of one size from chunks of any, files that stay the same."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from ..core import Array, DataError, OptionError, listed, unknown
from ._table import Block, Column

CHUNK = 1 << 22  # bytes read at a time, unless the caller's block is larger


class FileTable(ABC):
    """A table whose format says only what its columns are and how chunks of rows are read.

    Attributes:
        name, columns, rows: as `Table` has them.
        refused: what the file holds besides, by name, and why it is no column: "it has the shape (2, 3, 4)".
    """

    name: str
    columns: tuple[Column, ...]
    rows: int | None
    refused: Mapping[str, str]

    @abstractmethod
    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """The columns ``names``, checked already, in chunks of any number of rows; ``rows`` is what suits best."""

    def blocks(self, names: Sequence[str], rows: int, as_text: Collection[str] = ()) -> Iterator[Block]:
        """As `Table.blocks`; the names are checked by the call itself, before the first block is asked for."""
        if not names or rows < 1:
            raise OptionError(f"blocks takes at least one name and one row; names = {names!r}, rows = {rows}")
        known = [column.name for column in self.columns]
        there = set(known)
        for name in [*names, *as_text]:
            if name in self.refused:
                raise DataError(f"{self.name}: {name!r} cannot be read as a column: {self.refused[name]}")
            if name not in there:
                raise DataError(
                    f"{self.name} has no column {name!r}{unknown(name, known)}; its columns: {listed(known)}"
                )
        return rebatched(self.chunks(names, rows, as_text), rows)

    def like(self, columns: Sequence[Column]) -> FileTable:
        """The table, with the width of ``columns`` where its format leaves out features that are 0 in every row.

        Raises:
            DataError: it has features that ``columns`` has not.
        """
        return self


def rebatched(chunks: Iterable[Block], rows: int) -> Iterator[Block]:
    """The same rows in blocks of exactly ``rows``, the last one of what is left; chunks may have any sizes, and 0.

    A block within a chunk is a view of it, so a chunk that is a reused buffer makes a block that is one.
    """
    kept: list[Block] = []  # copies of what is too little for a block
    have = 0
    for chunk in chunks:
        size = len(next(iter(chunk.values())))
        start = 0
        if have and have + size >= rows:
            start = rows - have
            yield _joined([*kept, _part(chunk, 0, start)])
            kept, have = [], 0
        if not have:
            while start + rows <= size:
                yield _part(chunk, start, start + rows)
                start += rows
        if start < size:
            kept.append({name: array.copy() for name, array in _part(chunk, start, size).items()})
            have += size - start
    if have:
        yield _joined(kept)


def _part(chunk: Block, start: int, stop: int) -> Block:
    return {name: array[start:stop] for name, array in chunk.items()}


def _joined(parts: list[Block]) -> Block:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def chunk_rows(rows: int, row_bytes: int, target: int = CHUNK) -> int:
    """Rows to read at a time: a multiple of ``rows`` of about ``target`` bytes, so that blocks are views of it."""
    return rows * max(1, target // max(1, rows * row_bytes))


class Stamp(NamedTuple):
    """What tells a changed file from the one that was opened."""

    size: int
    modified: int

    @classmethod
    def of(cls, file: Path | int) -> Stamp:
        """Of a path or a descriptor."""
        found = os.stat(file)
        return cls(found.st_size, found.st_mtime_ns)

    def compare(self, file: Path | int, path: Path, moment: str) -> None:
        """Raise `DataError` if ``file``, which is ``path`` or its descriptor, is another than it was.

        Args:
            moment: when it changed, such as "while it was read".
        """
        if Stamp.of(file) != self:
            raise DataError(f"{path} was changed {moment}; open it again")


@contextlib.contextmanager
def reading(path: Path, stamp: Stamp | None = None) -> Iterator[io.BufferedReader]:
    """The file open for reading, closed at the end; ``stamp`` is what it must have, before and after.

    Raises:
        DataError: also for what the body raises because of the file's bytes.
    """
    with explained(path), open(path, "rb") as file:
        if stamp is not None:
            stamp.compare(file.fileno(), path, "since it was opened")
        yield file
        if stamp is not None:
            stamp.compare(file.fileno(), path, "while it was read")


@contextlib.contextmanager
def reading_text(path: Path, stamp: Stamp | None = None) -> Iterator[TextIO]:
    """As `reading`, for UTF-8 text with or without its mark, unpacked where the name ends in ``.gz``.

    Lines keep their ends, as the csv module wants them.
    """
    with reading(path, stamp) as file:
        unpacked = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")
        yield text
        text.detach()  # or its end would close the file before the stamp is compared


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What reading ``path`` raises, as a DataError of one line."""
    try:
        yield
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut short: {error}") from error
    except NotImplementedError as error:  # zipfile's: a compression method, or an encryption, that it does not know
        raise DataError(
            f"{path} is packed in a way that cannot be read here ({error}); "
            "write it again with np.savez or np.savez_compressed"
        ) from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path} is no UTF-8 text (there is a byte 0x{byte:02x}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def filled(file: io.BufferedIOBase, raw: Array) -> int:
    """Read into ``raw``, (n,) uint8, until it is full or the file ends; how many bytes were there."""
    view = raw.data if raw.size else memoryview(b"")
    have = 0
    while have < len(view):
        more = file.readinto(view[have:])
        if not more:
            break
        have += more
    return have
