"""Cells of text as values: numbers, booleans, text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..core import Array

MISSING = frozenset({"", "NA"})
BOOLEANS = {"true": True, "false": False}
TEXT = np.dtypes.StringDType()
MOST = 0.9  # of the cells that make a column one of numbers, whose other cells are mistakes
LOOKED_AT = 1000  # cells for that


def number(cell: str) -> float:
    """A number as a file writes it; a missing one is NaN.

    Raises:
        ValueError: it is no number. Python's own ``1_000``, and digits of other scripts, are none here.
    """
    cell = cell.strip()
    if cell in MISSING:
        return np.nan
    if "_" in cell or not cell.isascii():
        raise ValueError(cell)
    return float(cell)


def boolean(cell: str) -> bool:
    """True or false in any case.

    Raises:
        ValueError: it is neither.
    """
    found = BOOLEANS.get(cell.strip().lower())
    if found is None:
        raise ValueError(cell)
    return found


def numbers(cells: Sequence[str]) -> Array:
    """(n,) float64.

    Raises:
        ValueError: a cell is no number.
    """
    together = "".join(cells)
    if "_" not in together and together.isascii():  # what float() alone would read otherwise
        try:
            return np.array(list(map(float, cells)))
        except ValueError:
            pass  # a missing one, perhaps
    return np.array([number(cell) for cell in cells], np.float64)


def booleans(cells: Sequence[str]) -> Array:
    """(n,) bool.

    Raises:
        ValueError: a cell is neither true nor false.
    """
    return np.array([boolean(cell) for cell in cells], np.bool_)


def texts(cells: Sequence[str]) -> Array:
    """(n,) text, without the space around each."""
    return np.array([cell.strip() for cell in cells], TEXT)


ONE: dict[str, Callable[[str], object]] = {"number": number, "boolean": boolean, "text": str}
MANY: dict[str, Callable[[Sequence[str]], Array]] = {"number": numbers, "boolean": booleans, "text": texts}
FAULT = {"number": "is no number; write one, or leave the column out", "boolean": "is neither true nor false"}


def fits(cells: Sequence[str], kind: str) -> bool:
    """Whether every cell is of that kind."""
    try:
        MANY[kind](cells)
    except ValueError:
        return False
    return True


def kind_of(cells: Sequence[str]) -> str:
    """``"number"``, ``"boolean"`` or ``"text"``: the first that every cell is; but numbers where almost all are."""
    exact = next((kind for kind in ("number", "boolean") if fits(cells, kind)), "text")
    if exact != "text":
        return exact
    some = [cell for cell in cells[:: len(cells) // LOOKED_AT + 1] if cell.strip() not in MISSING]
    return "number" if sum(fits([cell], "number") for cell in some) > MOST * len(some) else "text"


def first_misfit(cells: Sequence[str], kind: str) -> int:
    """The place of the first cell that is not of that kind; one of them is none."""
    return next(place for place, cell in enumerate(cells) if not fits([cell], kind))
