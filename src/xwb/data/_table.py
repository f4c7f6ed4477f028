"""What every file of data is to the rest: a table of named columns, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Protocol

from ..core import Array

Block = dict[str, Array]


class Column(NamedTuple):
    """One column: a value per row, or a row of ``width`` numbers per row."""

    name: str
    kind: str  # "number", "boolean" or "text"
    width: int | None = None  # None: one value per row


class Table(Protocol):
    """Rows that can be read again and again, always the same in the same order.

    Attributes:
        name: of the file or files, as messages say it.
        columns: in the order of the file.
        rows: their number, or None where only reading them all tells.
    """

    name: str
    columns: tuple[Column, ...]
    rows: int | None

    def blocks(self, names: Sequence[str], rows: int, as_text: Collection[str] = ()) -> Iterator[Block]:
        """The named columns, ``rows`` rows at a time; only the last block has fewer, and none is empty.

        Args:
            names: columns of this table; others are not read where the format allows.
            rows: at least 1.
            as_text: columns that a text format gives as it has them, strings of dtype ``StringDType`` or ``U``;
                a format with types of its own ignores it.

        Returns:
            arrays by name, (n,) or (n, width); numbers in the file's own type where it has one, else float64. They may
            be views of buffers that the next block overwrites.

        Raises:
            DataError: the file is damaged, was changed while it was read, or a value is no number.
        """
