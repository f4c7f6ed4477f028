"""Labels of a file as the codes of a model's classes: the same value is the same class, however it is written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..core import Array, DataError, listed
from ._classes import BOOLEANS, decimal

Class = int | str | bool
MOST = 1000  # unknown labels that are counted; more are no labels but numbers


class ClassCodes:
    """From labels to codes; 3, ``"3"`` in a CSV file and 3.0 in a column of floats are the same class.

    Args:
        classes: all of one type, in the order of their codes.
    """

    def __init__(self, classes: Sequence[Class]) -> None:
        self._classes = list(classes)
        self._texts = {one: code for code, one in enumerate(classes) if isinstance(one, str)}
        values = [_number(one) for one in classes]
        times = Counter(values)  # "3" and "3.0" are two classes that a number cannot tell apart
        self._numbers = {value: code for code, value in enumerate(values) if value is not None and times[value] == 1}
        self._booleans = any(isinstance(one, bool) for one in classes)
        self._unknown: Counter[str] = Counter()

    def of(self, labels: Array, where: str) -> Array:
        """Codes of one block, shape (n,); −1 where no class has that value, which `refuse_unknown` tells.

        Args:
            labels: (n,) or (n, 1): text, numbers or booleans.
            where: the column and its file, for messages.

        Raises:
            DataError: there are several labels in a row, or more than a thousand that no class has.
        """
        if labels.ndim != 1 and labels.shape[1] != 1:
            raise DataError(f"{where} has {labels.shape[1]} numbers a row; a label is one value")
        values, place, counts = np.unique(labels.reshape(-1), return_inverse=True, return_counts=True)
        found = [self._code(value) for value in _plain(values)]
        for value, code, count in zip(_plain(values), found, counts.tolist(), strict=True):
            if code < 0:
                self._unknown[_said(value)] += count
        if len(self._unknown) > MOST:
            self.refuse_unknown(where)
        return np.array(found, np.intp)[place.reshape(-1)]

    def refuse_unknown(self, where: str) -> None:
        """Raise `DataError` if any block had a label that is no class, with each such label and its rows."""
        if not self._unknown:
            return
        rows = self._unknown.total()
        labels = [f"{label} ({count:,} row{'s' * (count > 1)})" for label, count in self._unknown.most_common()]
        raise DataError(
            f"{where}: {rows:,} row{'s have labels' if rows > 1 else ' has a label'} that the model does not know: "
            f"{listed(labels)}; its classes: {listed([_said(one) for one in self._classes])}"
        )

    def _code(self, value: Class | float) -> int:
        if isinstance(value, str):
            if value in self._texts:
                return self._texts[value]
            if self._booleans and (word := value.strip().lower()) in BOOLEANS:
                return self._numbers.get(int(BOOLEANS[word]), -1)
        elif isinstance(value, bool) and self._texts:
            return next((self._texts[text] for text in (str(value), str(value).lower()) if text in self._texts), -1)
        number = _number(value)
        return -1 if number is None else self._numbers.get(number, -1)


def _plain(values: Array) -> list[Class | float]:
    """Python's values; a float32 0.1 is the number that it is written as, not the nearest float64."""
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        return [float(str(value)) for value in values]
    plain: list[Class | float] = values.tolist()
    return plain


def _number(value: Class | float) -> int | float | None:
    """An integer where it is one, whatever its size; None for text that is no finite number."""
    if isinstance(value, str):
        text = value.strip()
        found = decimal(text)
        if found is None:
            return None
        try:
            return int(text)  # of any size, where a float would be rounded
        except ValueError:
            value = found
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else value
    return int(value)


def _said(value: Class | float) -> str:
    missing = value == "" or value != value
    return "a missing one" if missing else repr(value) if isinstance(value, str) else str(value)
