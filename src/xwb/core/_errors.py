"""What can go wrong, and how it is said: the fact, the shapes with their letters, the line to type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

SHOWN = 8  # names in a message, unless they are what to type


class XwbError(Exception):
    """Root of every error that xwb raises on purpose."""


class ShapeError(XwbError, ValueError):
    """Operands whose shapes do not fit together."""


class DtypeError(XwbError, TypeError):
    """Operands that are not all float32 or all float64."""


class OptionError(XwbError, ValueError):
    """An option, or an operand's name, that does not exist or contradicts another."""


class DataError(XwbError, ValueError):
    """Values that the computation is not defined for, such as a label out of range."""


class DivergedError(DataError):
    """Training whose loss left the finite numbers."""


class FormulaError(XwbError, ValueError):
    """Index notation that cannot be read."""


class ProofError(XwbError, AssertionError):
    """A gradient that disagrees with its proof."""


class RunError(XwbError):
    """A run folder that cannot be written or read."""


def shapes_table(rows: Iterable[tuple[str, tuple[int, ...], str]]) -> str:
    """Lines ``name  shape   note`` in aligned columns, for the middle of a message."""
    cells = [(name, str(shape), note) for name, shape, note in rows]
    wide_name = max(len(name) for name, _, _ in cells)
    wide_shape = max(len(shape) for _, shape, _ in cells)
    return "\n".join(f"    {name:<{wide_name}}  {shape:<{wide_shape}}   {note}".rstrip() for name, shape, note in cells)


def two_sizes(
    call: str, letter: str, operands: Iterable[tuple[str, tuple[int, ...], str, int]], *more: str
) -> ShapeError:
    """The error for one index letter with two sizes; ``operands`` are (name, shape, indices, size)."""
    table = shapes_table((name, shape, f"{idx}   {letter} = {size}") for name, shape, idx, size in operands)
    return ShapeError("\n".join([f"{call}: axis {letter} has two sizes", table, *more]))


FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def one_dtype(call: str, **operands: Any) -> np.dtype[Any]:
    """The floating dtype that all operands (whatever has a shape and a dtype) share; absent ones, None, have no say.

    Raises:
        DtypeError: when they do not share float32 or float64, with the line to type.
    """
    present = {name: a for name, a in operands.items() if a is not None}
    dtypes: dict[str, np.dtype[Any]] = {name: a.dtype for name, a in present.items()}
    first = next(iter(dtypes.values()))
    if first in FLOATS and all(dtype == first for dtype in dtypes.values()):
        return first
    strange = [name for name, dtype in dtypes.items() if dtype not in FLOATS]
    fact = (
        f"{' and '.join(strange)} {'is' if len(strange) == 1 else 'are'} neither float32 nor float64"
        if strange
        else "operands mix float32 and float64"
    )
    target = next((dtype for dtype in dtypes.values() if dtype in FLOATS), FLOATS[0])
    to_cast = [name for name, dtype in dtypes.items() if dtype != target]
    lines = [f"{name} = {name}.astype(np.{target.name})" for name in to_cast]
    table = shapes_table((name, a.shape, str(a.dtype)) for name, a in present.items())
    raise DtypeError(f"{call}: {fact}\n{table}\nResults keep one floating dtype; type  {'; '.join(lines)}")


def listed(names: Sequence[Any]) -> str:
    """``"a, b, c, … and 12 more"``; ``"none"`` where there are no names."""
    rest = len(names) - SHOWN
    text = ", ".join(map(str, names[:SHOWN] if rest > 1 else names)) or "none"
    return f"{text}, … and {rest} more" if rest > 1 else text


def unknown(name: str, known: Iterable[str]) -> str:
    """``" (did you mean X?)"`` where a known name is near."""
    known = list(known)
    near = [one for one in known if one.casefold() == name.casefold()]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
