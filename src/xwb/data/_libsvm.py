"""``.svm``, ``.libsvm``, ``.svmlight``: a label, then ``index:value`` for what is not 0, a record a line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core import Array, DataError
from ._base import CHUNK, FileTable, Stamp, reading_text
from ._cells import MISSING, number, texts
from ._table import Block, Column

CHARACTERS = 1 << 20
FEATURES = re.compile(r"(?:[0-9]+:[^\s:_]+(?:\s+|$))*")
PAIR = re.compile(r"[0-9]+:[^\s:_]+")
LARGEST_INDEX = 2**31 - 1
NAMES = ("features_from_0", "features")  # the column's name by the lowest index, which a model has to know


class Sparse(NamedTuple):
    """Some records: a label each, how many features each has, and those, (total,) each."""

    labels: list[str]
    counts: Array
    indices: Array
    values: Array


class Span(NamedTuple):
    """What one pass over a file tells."""

    rows: int
    lowest: int
    highest: int
    numeric: bool  # every label is a number


class LibsvmTable(FileTable):
    """Columns label and features, or features_from_0 where an index is 0; the features dense, float32.

    Args:
        span: of this file.
        lowest, highest: the first and the last index that a feature has, over all files.
    """

    def __init__(self, path: Path, stamp: Stamp, span: Span, lowest: int, highest: int) -> None:
        self.name, self._path, self._stamp = str(path), path, stamp
        self.refused: Mapping[str, str] = {}
        self._lowest, self._width, self._numeric = lowest, highest - lowest + 1, span.numeric
        self.columns = (
            Column("label", "number" if span.numeric else "text"),
            Column(NAMES[lowest], "number", self._width),
        )
        self.rows, self._span = span.rows, span

    def like(self, columns: Sequence[Column]) -> LibsvmTable:
        """As `FileTable.like`, for the features of another libsvm file."""
        for name, _, width in columns:
            if name in NAMES and width is not None:
                lowest = NAMES.index(name)
                return self._spread(lowest, lowest + width - 1)
        return self

    def _spread(self, lowest: int, highest: int) -> LibsvmTable:
        low, high = self._lowest, self._lowest + self._width - 1
        if (low, high) == (lowest, highest):
            return self
        if low < lowest or high > highest:
            raise DataError(
                f"{self.name} has a feature of index {low if low < lowest else high}, and the model reads indices from "
                f"{lowest} to {highest}"
            )
        return LibsvmTable(self._path, self._stamp, self._span, lowest, highest)

    def chunks(self, names: Sequence[str], rows: int, as_text: Collection[str]) -> Iterator[Block]:
        """A megabyte of text at a time, and as many rows of it as are a few megabytes when dense."""
        step = max(1, CHUNK // max(1, self._width * 4))
        with_text = "label" in as_text or not self._numeric
        for part in _records(self._path, self._stamp):
            ends = np.concatenate([[0], np.cumsum(part.counts)])
            for start in range(0, len(part.labels), step):
                stop = min(start + step, len(part.labels))
                block: Block = {}
                for name in names:
                    if name in NAMES:
                        block[name] = self._dense(part, ends, start, stop)
                    else:
                        labels = part.labels[start:stop]
                        block[name] = texts(labels) if with_text else np.array([float(label) for label in labels])
                yield block

    def _dense(self, part: Sparse, ends: Array, start: int, stop: int) -> Array:
        dense = np.zeros((stop - start, self._width), np.float32)
        inside = slice(ends[start], ends[stop])
        rows = np.repeat(np.arange(stop - start), part.counts[start:stop])
        dense[rows, part.indices[inside] - self._lowest] = part.values[inside]
        return dense


def _records(path: Path, stamp: Stamp | None) -> Iterator[Sparse]:
    line = 1
    with reading_text(path, stamp) as text:
        while lines := text.readlines(CHARACTERS):
            yield _parsed(lines, line, path)
            line += len(lines)


def _parsed(lines: Sequence[str], first: int, path: Path) -> Sparse:
    """The records of some lines, of which the first is line ``first`` of the file."""
    labels, features, places = [], [], []
    for place, line in enumerate(lines):
        label, *rest = line.partition("#")[0].split(None, 1) or [""]
        if label:
            labels.append(label)
            features.append(rest[0] if rest else "")
            places.append(place)
    try:
        for label, text in zip(labels, features, strict=True):
            if ":" in label or "," in label or not FEATURES.fullmatch(text):
                raise ValueError(label)
        return _numbers(labels, features)
    except (ValueError, OverflowError) as error:
        for place, label, text in zip(places, labels, features, strict=True):
            if fault := _fault(label, text):
                raise DataError(f"{path}, line {first + place}: {fault}") from error
        raise


def _numbers(labels: list[str], features: list[str]) -> Sparse:
    counts = np.array([text.count(":") for text in features], np.int64)
    flat = " ".join(features).replace(":", " ").split()
    indices = np.array(list(map(int, flat[::2])), np.int64)
    values = np.array(list(map(float, flat[1::2])), np.float64)
    rows = np.repeat(np.arange(len(labels)), counts)
    if len(indices) and indices.max() > LARGEST_INDEX:
        raise ValueError("index")
    where = rows * (LARGEST_INDEX + 1) + indices
    if not (np.diff(where) > 0).all() and len(np.unique(where)) < len(where):
        raise ValueError("twice")
    with np.errstate(over="ignore"):
        return Sparse(labels, counts, indices, values.astype(np.float32))


def _fault(label: str, text: str) -> str | None:
    """What is wrong with one record, or None."""
    pairs = text.split()
    if "," in label:
        return f"the label {label!r} is several; a record has one"
    if ":" in label:
        return f"it has no label before {label!r}"
    for pair in pairs:
        index, _, value = pair.partition(":")
        if index == "qid":
            return f"{pair!r} is for ranking, which xwb does not do"
        if not PAIR.fullmatch(pair) or not _is_number(value):
            return f"{pair!r} is no feature, which is written index:value"
        if int(index) > LARGEST_INDEX:
            return f"the index {index} is larger than {LARGEST_INDEX}"
    times = Counter(int(pair.partition(":")[0]) for pair in pairs)
    twice = [index for index, count in times.items() if count > 1]
    return f"it has index {twice[0]} twice" if twice else None


def _is_number(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return cell not in MISSING


def _scan(path: Path, stamp: Stamp) -> Span:
    span = Span(0, 1, 0, True)
    for part in _records(path, stamp):
        span = Span(
            span.rows + len(part.labels),
            min(span.lowest, int(part.indices.min(initial=1))),
            max(span.highest, int(part.indices.max(initial=0))),
            span.numeric and all(map(_is_number, part.labels)),
        )
    return span


def open_libsvm(paths: Sequence[Path]) -> list[FileTable]:
    """A table for each file, after one pass over all: they share the width, and whether indices begin at 0 or 1.

    Raises:
        DataError: a line that is no record, with its number.
    """
    stamps, spans = [], []
    for path in paths:
        with reading_text(path):
            stamps.append(Stamp.of(path))
        spans.append(_scan(path, stamps[-1]))
    numeric = all(span.numeric for span in spans)
    lowest, highest = min(span.lowest for span in spans), max(span.highest for span in spans)
    return [
        LibsvmTable(path, stamp, span._replace(numeric=numeric), lowest, highest)
        for path, stamp, span in zip(paths, stamps, spans, strict=True)
    ]
