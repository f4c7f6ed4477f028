"""Targets: whether they are classes or numbers, which classes there are, and a code for each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..core import Array, DataError, OptionError, listed
from ._classes import as_class, decimal, is_integer
from ._roles import Field, read, scalar_names

FEW, ROWS_OF_EACH = 100, 10  # distinct whole numbers that may well be classes, and rows of each on average
MOST = 1_000_000  # classes
LARGE = 1e15  # target: float32 has to hold sums of squares
ROWS = 8192
TASKS = ("classification", "regression")
OTHERWISE = "--task classification makes each a class", "--task regression makes them numbers"


@dataclass(frozen=True)
class Targets:
    """What one pass over the targets tells."""

    task: str
    rows: int
    names: list[str]  # of the target, or of each of several
    classes: list[Any]  # sorted; empty for regression
    counts: Array  # (K,) rows of each class; (1,) all rows for regression
    reason: str  # why the task is this one

    @cached_property
    def codes(self) -> dict[Any, int]:
        """The code of each class."""
        return {label: code for code, label in enumerate(self.classes)}

    @cached_property
    def known(self) -> Array | None:
        """The classes, (K,) int64, where they are such integers."""
        small = all(type(label) is int and -(2**63) <= label < 2**63 for label in self.classes)
        return np.array(self.classes, np.int64) if small else None

    def _found(self, labels: Array) -> Array:
        assert self.known is not None
        codes = np.searchsorted(self.known, labels).astype(np.int32)
        if not (self.known[np.minimum(codes, len(self.known) - 1)] == labels).all():
            raise DataError("the labels changed while they were read; prepare them again")
        return codes

    def read_as_text(self, fields: Sequence[Field]) -> Sequence[Field]:
        """The columns that a text format is to give as it has them."""
        return fields if self.classes else ()

    def coded(self, arrays: Sequence[Array], fields: Sequence[Field], start: int) -> Array:
        """The next rows as codes, (n,) int32, or as numbers, (n, K) float64; ``start`` rows were before."""
        if not self.classes:
            return numbers(arrays, fields, start)
        labels = arrays[0].reshape(-1)
        if self.known is not None and labels.dtype.kind == "i":
            return self._found(labels)
        unique, places = np.unique(labels, return_inverse=True)
        kind = type(self.classes[0])
        codes = np.array([self.codes[as_class(value, kind)] for value in unique.tolist()], np.int32)
        return codes[places]


def survey(fields: Sequence[Field], task: str | None) -> Targets:
    """Read the targets once and say what they are.

    Raises:
        OptionError: ``task`` is none.
        DataError: a target is missing or not finite, one class only, or too many; or integers that may be either.
    """
    if task is not None and task not in TASKS:
        raise OptionError(f"--task is {' or '.join(TASKS)}; this is {task!r}")
    several = len(fields) > 1 or fields[0].column.width not in (None, 1)
    if task == "classification" and several:
        raise DataError("--task classification takes one target with a label per row; these are several columns")
    if task == "regression" or several:
        return _regression(fields, "as asked" if task else "since there are several targets")
    counts = _distinct(fields[0], task)
    if isinstance(counts, str):
        return _regression(fields, counts)
    return _classification(fields[0], counts, task)


def check_labels(fields: Sequence[Field], targets: Targets) -> Targets:
    """Read the targets of a test table once; ``targets`` with its rows and counts.

    Raises:
        DataError: labels that are no class of the training data, or numbers that are missing.
    """
    if not targets.classes:
        return _regression(fields, targets.reason)
    counts = _distinct(fields[0], "classification")
    assert isinstance(counts, dict)
    kind, known = type(targets.classes[0]), targets.codes
    strange = [value for value in counts if as_class(value, kind) not in known]
    if strange:
        raise DataError(
            f"{fields[0].table.name}: the target {fields[0].column.name} has labels that no class of the training data "
            f"is: {listed([repr(one) for one in strange])}; the classes are "
            f"{listed([repr(one) for one in targets.classes])}"
        )
    rows = np.zeros(len(known), np.int64)
    for value, n in counts.items():
        rows[known[as_class(value, kind)]] += n
    if not counts:
        raise DataError(f"{fields[0].table.name} has no rows")
    return replace(targets, rows=int(rows.sum()), counts=rows)


def numbers(arrays: Sequence[Array], fields: Sequence[Field], start: int) -> Array:
    """Targets as (n, K) float64.

    Raises:
        DataError: one is not finite or too large, with its row and column.
    """
    Y = np.concatenate([array.reshape(len(array), -1).astype(np.float64) for array in arrays], 1)
    for bad, fact in (
        (~np.isfinite(Y), "; leave the row out, or write the number"),
        (np.abs(Y) > LARGE, ", and squares of such numbers overflow; divide it by a power of 10"),
    ):
        if bad.any():
            row, place = np.argwhere(bad)[0].tolist()
            name = scalar_names([field.column for field in fields])[place]
            raise DataError(
                f"{fields[0].table.name}, row {start + row + 1:,}: the target {name} is {Y[row, place]}{fact}"
            )
    return Y


def _regression(fields: Sequence[Field], reason: str) -> Targets:
    for field in fields:
        if field.column.kind == "text":
            raise DataError(
                f"{field.table.name}: the target {field.column.name} holds text, and regression takes numbers; "
                "type  --task classification"
            )
    rows = 0
    for arrays in read(fields, ROWS):
        rows += len(numbers(arrays, fields, rows))
    if not rows:
        raise DataError(f"{fields[0].table.name} has no rows")
    names = scalar_names([field.column for field in fields])
    return Targets("regression", rows, names, [], np.array([rows]), reason)


def _distinct(field: Field, task: str | None) -> dict[Any, int] | str:
    """How often each label occurs, as it is read; where the targets are to be read as numbers, the reason for that."""
    counts: dict[Any, int] = {}
    names, integers, rows = False, True, 0  # whether one was no number, whether all were integers
    guessed = task is None and field.column.kind == "number"
    for (values,) in read([field], ROWS, [field]):
        values = values.reshape(-1)  # of a matrix of width 1
        _refuse_missing(field, values, rows)
        found, times = np.unique(values, return_counts=True)
        for value, n in zip(found.tolist(), times.tolist(), strict=True):
            if value not in counts:
                counts[value] = 0
                names = names or isinstance(value, bool) or (isinstance(value, str) and decimal(value) is None)
                integers = integers and (is_integer(value) if isinstance(value, str) else isinstance(value, int))
                if guessed and not names and _fraction(value):
                    return "since the target has fractions"
            counts[value] += n
        rows += len(values)
        if len(counts) > MOST:
            raise DataError(
                f"{field.table.name}: the target {field.column.name} has more than {MOST:,} different values, too many "
                "for classes; if they are numbers, type  --task regression"
            )
        if guessed and not (names or integers) and len(counts) > FEW:
            return f"since the target has more than {FEW} different numbers with a decimal point; {OTHERWISE[0]}"
    if not guessed or names or rows >= ROWS_OF_EACH * len(counts):
        return counts
    if not integers:
        return (
            f"since the target has {len(counts):,} different numbers with a decimal point in {rows:,} rows; "
            f"{OTHERWISE[0]}"
        )
    if len(counts) > FEW:
        raise DataError(
            f"{field.table.name}: the target {field.column.name} has {len(counts):,} different integers in {rows:,} "
            "rows; if they are numbers, type  --task regression, and if each is a class,  --task classification"
        )
    return counts


def _fraction(value: Any) -> bool:
    number = decimal(value) if isinstance(value, str) else value
    return number is not None and not isinstance(number, int) and not number.is_integer()


def _refuse_missing(field: Field, values: Array, start: int) -> None:
    """Raise for a label that is NaN or empty; in a column of numbers, also NA and nan."""
    if values.dtype.kind == "f":
        missing = np.isnan(values)
    elif values.dtype.kind in "UT":
        missing = values == ""
        if field.column.kind == "number":
            missing |= (values == "NA") | (values == "nan") | (values == "NaN")
    else:
        return
    if missing.any():
        raise DataError(
            f"{field.table.name}, row {start + int(missing.argmax()) + 1:,}: the target {field.column.name} is "
            "missing; leave the row out, or write the label"
        )


def _classification(field: Field, counts: dict[Any, int], task: str | None) -> Targets:
    where, rows = f"{field.table.name}: the target {field.column.name}", sum(counts.values())
    if not rows:
        raise DataError(f"{field.table.name} has no rows")
    kind = _kind(field, counts)
    totals: dict[Any, int] = {}
    for value, n in counts.items():
        label = as_class(value, kind)
        if label is None:
            raise DataError(f"{where} has the value {value!r}, and classes are text, integers or booleans")
        totals[label] = totals.get(label, 0) + n
    if len(totals) == 1:
        raise DataError(f"{where} has one class only, {next(iter(totals))!r}; there is nothing to tell apart")
    classes = sorted(totals)
    said = {int: f"{len(totals):,} different integers; {OTHERWISE[1]}", bool: "true or false", str: "text"}[kind]
    reason = "as asked" if task else f"since the target is {said}"
    return Targets("classification", rows, [field.column.name], classes, np.array([totals[c] for c in classes]), reason)


def _kind(field: Field, values: dict[Any, int]) -> type:
    """int, bool or str: what the labels are; text of a column of numbers or booleans is read."""
    first = next(iter(values))
    if not isinstance(first, str) or field.column.kind == "text":
        return str if isinstance(first, str) else bool if isinstance(first, bool) else int
    return next((kind for kind in (int, bool) if all(as_class(value, kind) is not None for value in values)), str)
