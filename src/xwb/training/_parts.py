"""Parts of the data: in memory, in a scratch file, or joined; all give the same blocks and batches."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from io import RawIOBase
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError, OptionError
from ._rows import Part, Rows

BLOCK = 2**21  # features of a block: 8 MiB
CHUNK = 2**14  # features that are read together for batches: 64 KiB
BUFFER = 2**20  # features that are shuffled together: 4 MiB
BUFFER_ROWS = 2**16


class Layout(NamedTuple):
    """What an example is: D features, a class code or K targets, and a weight or none."""

    features: int
    targets: int | None
    weighted: bool

    @property
    def block(self) -> int:
        """Rows of a block, a multiple of 64."""
        return max(64, min(8192, BLOCK // self.features) // 64 * 64)

    @property
    def chunk(self) -> int:
        """Rows that stay together until they are shuffled: a power of 2 up to 64."""
        return 1 << min(6, max(1, CHUNK // self.features).bit_length() - 1)

    @property
    def buffer(self) -> int:
        """Chunks that are shuffled together."""
        return max(1, min(BUFFER_ROWS, BUFFER // self.features) // self.chunk)

    @property
    def row_bytes(self) -> int:
        """Bytes of one example."""
        return 4 * self.features + (4 if self.targets is None else 8 * self.targets) + 8 * self.weighted

    def empty(self, rows: int) -> Rows:
        """Room for some examples as they are stored: codes are int32."""
        y = np.empty(rows, np.int32) if self.targets is None else np.empty((rows, self.targets))
        return Rows(np.empty((rows, self.features), np.float32), y, np.empty(rows) if self.weighted else None)


class StoredPart(ABC):
    """What the kinds of parts share: batches, from chunks of rows that lie anywhere."""

    rows: int
    features: int
    weight: float
    layout: Layout

    @abstractmethod
    def blocks(self) -> Iterator[Rows]:
        """As `Part.blocks`."""

    @abstractmethod
    def chunks(self) -> Array:
        """(m, 2): where chunks of neighbouring rows begin and end."""

    @abstractmethod
    def read(self, start: int, stop: int, into: Rows) -> None:
        """Copy the rows of a chunk."""

    def batches(self, size: int, rng: Any) -> Iterator[Rows]:
        """As `Part.batches`: chunks from anywhere fill 4 MiB, and these are shuffled. The call itself checks ``size``.

        A file sorted by class does no harm: a buffer has at least 64 chunks, or these are single rows.
        """
        if size < 1:
            raise OptionError(f"batches takes a size of at least 1; this is {size}")
        return self._batches(min(size, max(1, self.rows)), rng)

    def _batches(self, size: int, rng: Any) -> Iterator[Rows]:
        batch, have = self.layout.empty(size), 0
        for buffer in self._shuffled(rng):
            rows, places = buffer
            at = 0
            while at < len(places):
                take = min(size - have, len(places) - at)
                _gather(rows, places[at : at + take], cut(batch, have, have + take))
                at, have = at + take, have + take
                if have == size:
                    yield indexed(batch)
                    have = 0
        if have:
            yield indexed(cut(batch, 0, have))

    def _shuffled(self, rng: Any) -> Iterator[tuple[Rows, Array]]:
        """Buffers of rows, and an order of each."""
        chunks, together = self.chunks(), self.layout.buffer
        order = rng.permutation(len(chunks))
        buffer = self.layout.empty(min(together, len(chunks)) * self.layout.chunk)
        for first in range(0, len(order), together):
            n = 0
            for start, stop in chunks[np.sort(order[first : first + together])].tolist():  # a disk reads forwards best
                self.read(start, stop, cut(buffer, n, n + stop - start))
                n += stop - start
            yield buffer, rng.permutation(n)


class MemoryPart(StoredPart):
    """Examples in arrays: X (N, D) float32, y (N,) int32 or (N, K) float64, weight (N,) float64 or None."""

    def __init__(self, layout: Layout, examples: Rows) -> None:
        self.layout, self._examples = layout, examples
        self.rows, self.features = len(examples.X), layout.features
        blocks = spans(self.rows, layout.block).tolist()
        self.weight = sum((weight_of(cut(examples, *span)) for span in blocks), 0.0)  # as a file's are added

    def blocks(self) -> Iterator[Rows]:
        """Views of the arrays."""
        for start in range(0, self.rows, self.layout.block):
            yield indexed(cut(self._examples, start, start + self.layout.block))

    def chunks(self) -> Array:
        """As `StoredPart.chunks`."""
        return spans(self.rows, self.layout.chunk)

    def read(self, start: int, stop: int, into: Rows) -> None:
        """As `StoredPart.read`."""
        for source, target in zip(cut(self._examples, start, stop), into, strict=True):
            if target is not None:
                target[...] = source


class FilePart(StoredPart):
    """Examples in a file from byte ``offset``: block after block, of each its X, its y and its weights.

    The file is read, never mapped, so that the process has in memory what it works on and no more.
    """

    def __init__(self, layout: Layout, file: RawIOBase, offset: int, rows: int, weight: float) -> None:
        self.layout, self._file, self._offset = layout, file, offset
        self.rows, self.features, self.weight = rows, layout.features, weight
        self._lock = threading.Lock()

    def blocks(self) -> Iterator[Rows]:
        """Each block in the same buffers."""
        buffer = self.layout.empty(min(self.layout.block, self.rows))
        for start in range(0, self.rows, self.layout.block):
            stop = min(start + self.layout.block, self.rows)
            block = cut(buffer, 0, stop - start)
            self.read(start, stop, block)
            yield indexed(block)

    def chunks(self) -> Array:
        """As `StoredPart.chunks`."""
        return spans(self.rows, self.layout.chunk)

    def read(self, start: int, stop: int, into: Rows) -> None:
        """As `StoredPart.read`, of rows of one block."""
        first = start // self.layout.block * self.layout.block
        in_block = min(self.layout.block, self.rows - first)
        at = self._offset + first * self.layout.row_bytes
        for array in into:
            if array is not None:
                row = array.nbytes // (stop - start)
                self._fill(at + (start - first) * row, array)
                at += in_block * row

    def _fill(self, at: int, array: Array) -> None:
        view = array.reshape(-1).view(np.uint8).data
        try:
            with self._lock:
                self._file.seek(at)
                while view:
                    n = self._file.readinto(view)
                    if not n:
                        raise DataError("the scratch file is shorter than it was")
                    view = view[n:]
        except ValueError as error:
            raise DataError("the prepared data was closed") from error
        except OSError as error:
            raise DataError(f"cannot read the scratch file: {error.strerror or error}") from error


class JoinedPart(StoredPart):
    """Parts one after another."""

    def __init__(self, parts: tuple[StoredPart, ...]) -> None:
        self._parts, self.layout = parts, parts[0].layout
        self.rows, self.features = sum(part.rows for part in parts), self.layout.features
        self.weight = sum(part.weight for part in parts)
        self._starts = np.cumsum([0, *(part.rows for part in parts)])

    def blocks(self) -> Iterator[Rows]:
        """Those of each part; the last of each may be short."""
        for part in self._parts:
            yield from part.blocks()

    def chunks(self) -> Array:
        """As `StoredPart.chunks`; none has rows of two parts."""
        return np.concatenate([p.chunks() + start for p, start in zip(self._parts, self._starts, strict=False)])

    def read(self, start: int, stop: int, into: Rows) -> None:
        """As `StoredPart.read`."""
        place = int(np.searchsorted(self._starts, start, "right")) - 1
        before = int(self._starts[place])
        self._parts[place].read(start - before, stop - before, into)


def joined(*parts: Part) -> Part:
    """The parts one after another, as one; nothing is copied.

    Raises:
        OptionError: no part, or parts of different examples.
    """
    kept = tuple(part for part in parts if isinstance(part, StoredPart))
    if not kept or len(kept) < len(parts) or len({part.layout for part in kept}) > 1:
        raise OptionError("joined takes at least one part, all of the same prepared data")
    return JoinedPart(kept)


def spans(rows: int, step: int) -> Array:
    """(m, 2): 0 to ``step``, and so on up to ``rows``."""
    starts = np.arange(0, rows, step)
    return np.stack([starts, np.minimum(starts + step, rows)], 1)


def cut(rows: Rows, start: int, stop: int) -> Rows:
    """Views of some of the rows."""
    return Rows(rows.X[start:stop], rows.y[start:stop], None if rows.weight is None else rows.weight[start:stop])


def weight_of(rows: Rows) -> float:
    """The sum of their weights."""
    return float(len(rows.X) if rows.weight is None else rows.weight.sum())


def indexed(rows: Rows) -> Rows:
    """As `Rows` has them: codes as platform integers, which index."""
    return rows._replace(y=rows.y.astype(np.intp)) if rows.y.ndim == 1 else rows


def _gather(source: Rows, places: Array, into: Rows) -> None:
    for array, target in zip(source, into, strict=True):
        if array is not None and target is not None:
            np.take(array, places, 0, out=target, mode="clip")  # clip: with raise, NumPy makes a copy
