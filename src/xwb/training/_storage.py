"""Where prepared examples are put: arrays in memory where they fit in the budget, else a file that nothing leaves."""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from io import RawIOBase
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..core import DataError, OptionError
from ._parts import FilePart, Layout, MemoryPart, StoredPart, cut, weight_of
from ._rows import Rows

SPARE = 64 * 2**20  # bytes for the blocks that are worked on
MARGIN = 1.02  # in the amount that is proposed: two processes never have the same size
UNKNOWN = 2**30  # bytes taken to be available where the system does not say


class Writer(Protocol):
    """Takes the examples of one part."""

    def add(self, rows: Rows) -> None:
        """The next examples, as they are stored."""

    def finish(self) -> StoredPart:
        """The part, once all are there."""


class Storage:
    """Room for parts of known sizes.

    Args:
        sizes: rows of each part by name.
        memory: bytes for the whole process; None for half of what the machine has available.
        scratch: the folder for the file; None for the system's.
        working: bytes that what is done with the parts takes beside them; 0 where that is not known.

    Attributes:
        bytes: what the parts take.
        streamed: whether they are in a file.
        room: bytes of the budget that are left.

    Raises:
        DataError: the file cannot be made, or the disk has too little room.
        OptionError: ``memory`` is too little for what is done with the parts.
    """

    def __init__(
        self, layout: Layout, sizes: dict[str, int], memory: int | None, scratch: Any, working: int = 0
    ) -> None:
        self.bytes = layout.row_bytes * sum(sizes.values())
        budget = check_memory(memory)
        needed = resident() + max(SPARE, working)
        if working and memory is not None and budget < needed:
            said = f"{budget / 1e6:,.0f}MB is" if budget >= 1e6 else f"{budget} is a number of bytes, and"
            raise OptionError(
                f"--memory {said} too little: the program takes {resident() / 1e6:,.0f} MB and this "
                f"training {max(SPARE, working) / 1e6:,.0f} MB beside the data; "
                f"give at least  --memory {math.ceil(needed * MARGIN / 1e6)}MB"
            )
        room = budget - needed - self.bytes
        self.streamed = room < 0
        self.room = max(0, room)
        self.file: RawIOBase | None = scratch_file(self.bytes, scratch) if self.streamed else None
        self._layout, self._sizes = layout, sizes
        self._offsets = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))

    def writer(self, name: str) -> Writer:
        """What takes the examples of the part ``name``."""
        rows = self._sizes[name]
        if self.file is None:
            return MemoryWriter(self._layout, rows)
        return FileWriter(self._layout, rows, self.file, self._offsets[name] * self._layout.row_bytes)

    def close(self) -> None:
        """Give the disk back."""
        if self.file is not None:
            self.file.close()


class MemoryWriter:
    """Fills arrays."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self._layout, self._examples, self._have = layout, layout.empty(rows), 0

    def add(self, rows: Rows) -> None:
        """As `Writer.add`."""
        self._have = _copy(rows, self._examples, self._have)

    def finish(self) -> MemoryPart:
        """As `Writer.finish`."""
        _check_rows(self._have, len(self._examples.X))
        for array in self._examples:
            if array is not None:
                array.flags.writeable = False  # blocks are views
        return MemoryPart(self._layout, self._examples)


class FileWriter:
    """Fills a block and writes it, again and again."""

    def __init__(self, layout: Layout, rows: int, file: RawIOBase, offset: int) -> None:
        self._layout, self._rows, self._file, self._offset = layout, rows, file, offset
        self._block = layout.empty(min(layout.block, rows))
        self._have = self._written = 0
        self._weight = 0.0

    def add(self, rows: Rows) -> None:
        """As `Writer.add`."""
        n, start = len(rows.X), 0
        while start < n:
            stop = min(n, start + len(self._block.X) - self._have)
            self._have = _copy(cut(rows, start, stop), self._block, self._have)
            start = stop
            if self._have == len(self._block.X):
                self._write()

    def finish(self) -> FilePart:
        """As `Writer.finish`."""
        if self._have:
            self._write()
        _check_rows(self._written, self._rows)
        return FilePart(self._layout, self._file, self._offset, self._rows, self._weight)

    def _write(self) -> None:
        block = cut(self._block, 0, self._have)
        self._weight += weight_of(block)
        try:
            self._file.seek(self._offset + self._written * self._layout.row_bytes)
            for array in block:
                rest = memoryview(b"") if array is None else array.reshape(-1).view(np.uint8).data
                while rest:  # an unbuffered write may take a part
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise DataError(
                f"cannot write the scratch file: {error.strerror or error}; give another folder with --scratch"
            ) from error
        self._written, self._have = self._written + self._have, 0


def scratch_file(size: int, folder: Any) -> RawIOBase:
    """A file without a name, or one that goes when it is closed, so that nothing is left even after a kill.

    Raises:
        DataError: it cannot be made there, or fewer than ``size`` bytes are free.
    """
    place = Path(tempfile.gettempdir() if folder is None else folder)
    try:
        free = shutil.disk_usage(place).free
        if free < size:
            raise DataError(
                f"the prepared data needs {size / 1e9:.3g} GB in {place}, and {free / 1e9:.3g} GB are free; "
                "give another folder with --scratch"
            )
        return tempfile.TemporaryFile(buffering=0, dir=place)  # on Windows in a wrapper that passes everything on
    except OSError as error:
        fact = error.strerror or error
        raise DataError(f"cannot write in {place}: {fact}; give another folder with --scratch") from error


def check_memory(memory: Any) -> int:
    """The budget in bytes.

    Raises:
        OptionError: it is no positive number.
    """
    if memory is None:
        return available() // 2 + resident()
    if isinstance(memory, bool) or not isinstance(memory, int | np.integer) or memory < 1:
        raise OptionError(f"--memory is a number of bytes from 1; this is {memory!r}")
    return int(memory)


def available() -> int:
    """Bytes of memory that the machine has for programs."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"))
        if found:
            return 1024 * int(found[1])
    except OSError:
        pass  # no Linux
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError, ValueError):
        return 0


def _copy(rows: Rows, into: Rows, at: int) -> int:
    """Copy to ``into`` from row ``at``; the row after the last."""
    stop = at + len(rows.X)
    _check_rows(min(stop, len(into.X)), stop)
    for source, target in zip(rows, cut(into, at, stop), strict=True):
        if source is not None and target is not None:
            target[...] = source
    return stop


def _check_rows(have: int, expected: int) -> None:
    if have != expected:
        raise DataError("the rows changed while they were read; prepare them again")
