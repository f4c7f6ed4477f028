"""Which columns of a table are a model's features, and those columns as one matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core import Array, DataError, unknown
from ..data import Block, Column, Table

SHOWN = 12  # column names in a message


def width(columns: Sequence[Column]) -> int:
    """D: how many features the columns are together."""
    return sum(1 if column.width is None else column.width for column in columns)


def feature_name(columns: Sequence[Column], d: int) -> str:
    """What a message calls feature d: ``age``, or ``X[17]`` of a column that has a row of numbers per row."""
    for column in columns:
        size = width([column])
        if d < size:
            return column.name if column.width is None else f"{column.name}[{d}]"
        d -= size
    raise IndexError(d)


def matched(wanted: Sequence[Column], table: Table) -> list[str]:
    """The names of the table's columns that are ``wanted``, in that order.

    They are found by their names, wherever they stand. Where no name is there, the one matrix of the right width is
    taken: an array in a ``.npy`` file has no name of its own.

    Raises:
        DataError: columns are missing, or have another width or text; or no name is there and several would fit.
    """
    there = {column.name: column for column in table.columns}
    if not any(column.name in there for column in wanted):
        fits = _by_width(width(wanted), table)
        if len(fits) == 1:
            return fits
        if fits:
            raise DataError(
                f"{table.name} has several columns that could be the model's {shortened([c.name for c in wanted])}: "
                f"{shortened(fits)}, each of width {width(wanted)}; give one of them that name"
            )
    missing = [column.name for column in wanted if column.name not in there]
    if missing:
        raise _lacking(missing, wanted, table)
    for column in wanted:
        _check(column, there[column.name], table)
    return [column.name for column in wanted]


def _by_width(D: int, table: Table) -> list[str]:
    matrices = [column for column in table.columns if column.width == D]
    if D == 1 and len(table.columns) == 1:  # numbers without a second axis are a matrix of width 1
        matrices = list(table.columns)
    return [column.name for column in matrices if column.kind != "text"]


def _lacking(missing: Sequence[str], wanted: Sequence[Column], table: Table) -> DataError:
    refused = getattr(table, "refused", {})
    why = "".join(f"; {name!r} cannot be read as a column: {refused[name]}" for name in missing if name in refused)
    known = [column.name for column in table.columns]
    near = unknown(missing[0], known) if len(missing) == 1 else ""
    size = width(wanted)
    return DataError(
        f"{table.name} lacks {len(missing)} of the {len(wanted)} columns that the model reads "
        f"({size} feature{'s' * (size > 1)}): {shortened(missing)}{near}{why}; its columns: {shortened(known)}"
    )


def _check(wanted: Column, found: Column, table: Table) -> None:
    if found.kind == "text":
        raise DataError(f"column {wanted.name!r} of {table.name} is text, and the model reads numbers there")
    if width([found]) != width([wanted]):
        raise DataError(
            f"column {wanted.name!r} of {table.name} has the width {width([found])}, "
            f"and the model reads {width([wanted])} features there"
        )


def assembled(block: Block, names: Sequence[str]) -> Array:
    """The columns side by side, (n, D): float64, or the only column as it is."""
    parts = [block[name] if block[name].ndim == 2 else block[name][:, None] for name in names]
    if len(parts) == 1:
        return parts[0]
    D = sum(part.shape[1] for part in parts)
    X = np.empty((len(parts[0]), D))
    start = 0
    for part in parts:
        X[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return X


def shortened(names: Sequence[str]) -> str:
    """``a, b, c, … and 12 more``."""
    rest = len(names) - SHOWN
    shown = ", ".join(names[:SHOWN] if rest > 1 else names) or "none"
    return f"{shown}, … and {rest} more" if rest > 1 else shown
