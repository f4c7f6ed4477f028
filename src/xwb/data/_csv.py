"""``.csv`` and ``.tsv``, packed by gzip or not: a header, then a record a line; cells may be quoted."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from ..core import Array, DataError, listed
from ._base import FileTable, Stamp, reading_text
from ._cells import FAULT, MANY, first_misfit, fits, kind_of
from ._table import Block, Column

CHARACTERS = 1 << 20  # read at a time
QUOTED = re.compile(r'"[^"]*"')


class Records(NamedTuple):
    """Some records: their cells, and the line that each begins in."""

    cells: list[list[str]]
    lines: list[int]


class CsvTable(FileTable):
    """A column for each name of the first line; columns "0", "1", … where that line holds only numbers.

    A first line 0,1,2 and so on, from three columns, is the names that pandas gives to columns without any. The kind
    of a column is that of all its cells in the first megabyte. Numbers are float64, and NaN where a cell is empty or
    NA.

    Args:
        kinds: those of the columns by name, where another file decides them.

    Raises:
        DataError: the file is empty, is no UTF-8 text, has two columns of one name or lines with too few cells.
    """

    def __init__(self, path: Path, kinds: Mapping[str, str] | None = None) -> None:
        self.name, self._path = str(path), path
        self.refused: Mapping[str, str] = {}
        self._stamp: Stamp | None = None
        with reading_text(path) as text:
            stamp = Stamp.of(path)
            self._delimiter = self._find_delimiter(text)
        self._stamp = stamp
        self._headed = True
        with reading_text(path, stamp) as text:
            first = self._header(text)[0]
        self._headed = not _only_numbers(first)
        names = [cell.strip() for cell in first] if self._headed else [str(i) for i in range(len(first))]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise DataError(f"{path}: two columns have the same name: {listed([repr(name) for name in twice])}")
        self._places = {name: place for place, name in enumerate(names)}
        sample = next(self._records(), Records([], [])).cells
        self.rows = None if sample else 0
        by_place = list(zip(*sample, strict=True)) or [()] * len(names)
        self.columns = tuple(
            Column(name, (kinds or {}).get(name) or kind_of(cells)) for name, cells in zip(names, by_place, strict=True)
        )

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """About a megabyte of text at a time."""
        kinds = {column.name: "text" if column.name in as_text else column.kind for column in self.columns}
        wanted = {name: kinds[name] for name in names}
        with reading_text(self._path, self._stamp) as text:
            for number, lines in self._lines(text):
                quick = None if _quoted(lines) else self._quick(lines, wanted)
                yield quick or self._careful(self._parsed(number, lines, text), wanted)

    def _find_delimiter(self, text: TextIO) -> str:
        line = next((line for line in text if line.strip()), None)
        if line is None:
            raise DataError(f"{self.name} is empty; its first line would name the columns")
        if self._path.name.lower().removesuffix(".gz").endswith(".tsv"):
            return "\t"
        bare = QUOTED.sub("", line)
        return ";" if ";" in bare and "," not in bare else ","

    def _header(self, text: TextIO) -> tuple[list[str], int]:
        """The first record, and how many lines it and what is above it are."""
        reader = csv.reader(text, delimiter=self._delimiter, strict=True)
        try:
            row = next(row for row in reader if any(cell.strip() for cell in row))
        except (csv.Error, StopIteration) as error:
            raise DataError(f"{self.name}: the names of the columns cannot be read: {error}") from error
        return row, reader.line_num

    def _lines(self, text: TextIO) -> Iterator[tuple[int, list[str]]]:
        """The lines below the header, and the number of the first; the last may be within a quoted cell.

        Whoever reads on in ``text`` to the end of that cell adds its lines to the list.
        """
        number = 1 + (self._header(text)[1] if self._headed else 0)
        while lines := text.readlines(CHARACTERS):
            yield number, lines
            number += len(lines)

    def _records(self) -> Iterator[Records]:
        with reading_text(self._path, self._stamp) as text:
            for number, lines in self._lines(text):
                records = self._parsed(number, lines, text)
                if records.cells:
                    yield records

    def _parsed(self, number: int, lines: list[str], text: TextIO) -> Records:
        """The records of ``lines``, the first of them line ``number``, with what the last needs from ``text``."""
        least = len(lines)
        reader = csv.reader(_continued(lines, text), delimiter=self._delimiter, strict=True)
        cells, begun = [], []
        line = number
        try:
            while reader.line_num < least:
                line = number + reader.line_num
                row = next(reader)
                if row and (len(row) > 1 or row[0].strip() or len(self._places) == 1):
                    cells.append(row)
                    begun.append(line)
        except csv.Error as error:
            raise DataError(f"{self.name}, line {line}: {error}") from error
        self._check_widths(cells, begun)
        return Records(cells, begun)

    def _check_widths(self, cells: list[list[str]], begun: list[int]) -> None:
        width = len(self._places)
        for row, line in zip(cells, begun, strict=True):
            if len(row) != width:
                raise DataError(f"{self.name}, line {line}: it has {len(row)} cells, and there are {width} columns")

    def _quick(self, lines: list[str], wanted: Mapping[str, str]) -> Block | None:
        """Lines without a quote by NumPy's own reader; None where that cannot be, whatever the reason."""
        numbers = [name for name, kind in wanted.items() if kind == "number"]
        others = [name for name in wanted if name not in numbers]
        commas = len(self._places) - 1
        if not commas or not numbers or any(line.count(self._delimiter) != commas for line in lines):
            return None
        try:
            places = [self._places[name] for name in numbers]
            values = np.loadtxt(lines, delimiter=self._delimiter, usecols=places, comments=None, ndmin=2)
            block: dict[str, Array] = dict(zip(numbers, values.T, strict=True))
            if others:
                rows = [line.rstrip("\r\n").split(self._delimiter) for line in lines]
                block |= {name: MANY[wanted[name]]([row[self._places[name]] for row in rows]) for name in others}
        except ValueError:
            return None
        return {name: block[name] for name in wanted}

    def _careful(self, records: Records, wanted: Mapping[str, str]) -> Block:
        """Any records; what is wrong is said with its line."""
        block: Block = {}
        by_place = list(zip(*records.cells, strict=True)) or [()] * len(self._places)
        for name, kind in wanted.items():
            cells = by_place[self._places[name]]
            try:
                block[name] = MANY[kind](cells)
            except ValueError as error:
                bad = first_misfit(cells, kind)
                where = f"{self.name}, line {records.lines[bad]}, column {name}"
                raise DataError(f"{where}: {cells[bad]!r} {FAULT[kind]}") from error
        return block


def _continued(lines: list[str], text: TextIO) -> Iterator[str]:
    """The lines, then those of ``text``, each added to ``lines``."""
    yield from lines[:]
    for line in text:
        lines.append(line)
        yield line


def _quoted(lines: Iterable[str]) -> bool:
    return any('"' in line for line in lines)


def _only_numbers(cells: Sequence[str]) -> bool:
    """Whether a first line is a record and no header."""
    if len(cells) > 2 and [cell.strip() for cell in cells] == [str(i) for i in range(len(cells))]:
        return False  # pandas writes these names
    return fits(cells, "number") and any(cell.strip() for cell in cells)


def open_csv(paths: Sequence[Path]) -> list[FileTable]:
    """A table for each file; the first that has rows decides the kinds of the columns of all."""
    tables: list[CsvTable] = []
    kinds: dict[str, str] | None = None
    for path in paths:
        table = CsvTable(path, kinds)
        tables.append(table)
        if kinds is None and table.rows is None:
            kinds = {column.name: column.kind for column in table.columns}
    return list(tables)
