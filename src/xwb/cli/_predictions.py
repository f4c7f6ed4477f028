"""Predictions block by block, as lines of text or as an array."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from ..core import Array
    from ..training import Model

SUFFIXES = (".csv", ".tsv", ".npy", ".jsonl")


class Lines(Protocol):
    """One format of text.

    Attributes:
        head: the first line, or nothing.
    """

    head: str

    def block(self, scores: Array) -> str:
        """A line for each row of scores, (n, K)."""


def quoted(cell: str, delimiter: str) -> str:
    """As the csv module writes and reads it: with quotes where it needs them."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow([cell])  # quotes what is in its line end
    return line.getvalue().removesuffix("\r\n")


class CsvLines:
    """``label`` or the targets; with probabilities ``label,p_NAME,…`` and a column for every class."""

    def __init__(self, model: Model, proba: bool, delimiter: str = ",") -> None:
        names = ["label", *(f"p_{one}" for one in model.classes if proba)] if model.classes else model.targets
        self.head = delimiter.join(quoted(name, delimiter) for name in names) + "\n"
        self._model, self._proba, self._delimiter = model, proba, delimiter
        self._classes = [quoted(str(one), delimiter) for one in model.classes]

    def block(self, scores: Array) -> str:
        """Numbers have as many digits as tell them from their neighbours."""
        columns: list[list[str]] = []
        if self._classes:
            columns.append([self._classes[code] for code in scores.argmax(axis=1)])
        if self._proba or not self._classes:
            values = self._model.normalised(scores) if self._proba else scores
            columns += values.T.astype(str).tolist()
        return "".join(f"{self._delimiter.join(row)}\n" for row in zip(*columns, strict=True))


class JsonLines:
    """An object a line: ``{"label": "a", "probabilities": {"a": 0.9, "b": 0.1}}``, or the targets by name."""

    head = ""

    def __init__(self, model: Model, proba: bool) -> None:
        self._model, self._proba = model, proba
        self._classes = [json.dumps(one) for one in model.classes]
        names = [str(one) for one in model.classes] if proba else model.targets
        self._names = [json.dumps(name) for name in names]

    def block(self, scores: Array) -> str:
        """Numbers have as many digits as tell them from their neighbours."""
        if not self._classes:
            return "".join(f"{numbers}\n" for numbers in self._numbers(scores))
        labels = [self._classes[code] for code in scores.argmax(axis=1)]
        if not self._proba:
            return "".join(f'{{"label": {label}}}\n' for label in labels)
        pairs = zip(labels, self._numbers(self._model.normalised(scores)), strict=True)
        return "".join(f'{{"label": {label}, "probabilities": {numbers}}}\n' for label, numbers in pairs)

    def _numbers(self, values: Array) -> Iterator[str]:
        for row in values.astype(str).tolist():
            pairs = ", ".join(f"{name}: {number}" for name, number in zip(self._names, row, strict=True))
            yield f"{{{pairs}}}"


class NpyFile:
    """An array that grows: labels (n,), probabilities (n, K), predictions (n,) or, of several targets, (n, K)."""

    def __init__(self, file: BinaryIO, model: Model, proba: bool) -> None:
        import numpy as np

        self._file, self._model, self._proba, self._rows = file, model, proba, 0
        first = self._array(np.zeros((1, model.sizes[-1]), model.dtype))
        self._shape, self._dtype = first.shape[1:], first.dtype
        self._start = self._header()

    def _array(self, scores: Array) -> Array:
        import numpy as np

        if self._proba:
            return self._model.normalised(scores)
        if not self._model.classes:
            return scores if scores.shape[1] > 1 else scores[:, 0]
        values = self._model.decided(scores)
        if values.dtype.kind != "T":
            return values
        longest = max(len(str(one)) for one in self._model.classes)  # .npy files have no text of open length
        return values.astype(np.dtype(("U", max(1, longest))))

    def _header(self) -> int:
        """Write it for the rows so far, and say where it ends; NumPy leaves room for longer numbers."""
        import numpy as np

        descr = np.lib.format.dtype_to_descr(self._dtype)
        header: dict[str, Any] = {"descr": descr, "fortran_order": False, "shape": (self._rows, *self._shape)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def add(self, scores: Array) -> None:
        """Write the rows of one block."""
        array = self._array(scores)
        self._rows += len(array)
        self._file.write(array.tobytes())

    def finish(self) -> None:
        """Write how many rows there are."""
        if self._header() != self._start:
            raise OSError("the header of the .npy file has grown into the array")
