"""Scores and integer labels as every loss reads them: Z as a matrix, y as positions in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Array, DataError, DtypeError, ShapeError, shapes_table
from ._operands import check_floating

Names = tuple[str, str, str]  # of the scores, of the labels, and the letter of the scores' last axis


def check_scores(call: str, name: str, Z: Any) -> Array:
    """``Z`` as scores of shape (..., K), K ≥ 1.

    Raises:
        ShapeError: no axis, or an empty last one.
        DtypeError: neither float32 nor float64.
    """
    given = check_floating(call, name, Z)
    if given.ndim == 0 or given.shape[-1] == 0:
        raise ShapeError(f"{call}: {name} has shape {given.shape}; it needs a last axis, and not an empty one")
    return given


def read_labels(
    call: str, names: Names, Z: Array, y: Array, ignore_index: int | None = None, skips: bool = False
) -> tuple[Array, Array | None]:
    """Labels as N platform integers in 0..K−1, and which of the N are used (None: all).

    Args:
        call, names: how messages call the function; Z, y and the letter of Z's last axis.
        Z: scores, shape (..., K).
        y: labels, shape (...), any integer dtype.
        ignore_index: the label of examples that are not used; they read as 0.
        skips: whether the caller has an ``ignore_index`` at all, for the message.

    Raises:
        DtypeError: y is not of an integer dtype.
        ShapeError: y has another shape; nothing is broadcast.
        DataError: a label that is no class.
    """
    if y.dtype.kind not in "iu" or y.shape != Z.shape[:-1]:
        raise _no_labels(call, names, Z, y)
    K = Z.shape[-1]
    labels = y.reshape(-1).astype(np.intp, copy=False)
    used = None
    if ignore_index is not None:
        used = labels != ignore_index
        labels = np.where(used, labels, 0)
    if labels.size:
        # Read as unsigned, a negative label is huge: one search finds both ends.
        unsigned = labels.view(np.uintp)
        if unsigned.item(unsigned.argmax()) >= K:
            first = int(np.argmax(unsigned >= K))
            raise _no_class(call, names, Z, y, np.unravel_index(first, y.shape), skips)
    return labels, used


def positions(labels: Array, K: int) -> Array:
    """Where the labels' scores stand in a C-ordered N×K matrix read as one row."""
    return np.arange(0, labels.size * K, K) + labels


def _no_labels(call: str, names: Names, Z: Array, y: Array) -> ShapeError | DtypeError:
    scores, label, letter = names
    table = shapes_table([(scores, Z.shape, f"[..., {letter}]   {Z.dtype}"), (label, y.shape, str(y.dtype))])
    if y.dtype.kind not in "iu":
        if y.dtype.kind == "f" and y.shape == Z.shape:
            fact, line = f"{label} must be integer labels", f"{label} = {label}.argmax(-1)"
        else:
            fact, line = f"{label} is {y.dtype}, and labels are integers", f"{label} = {label}.astype(np.int64)"
        return DtypeError(f"{call}: {fact}\n{table}\nFor labels of shape {Z.shape[:-1]} type  {line}")
    if y.shape == Z.shape:
        more = (
            f"A row of integers is no label. For labels type  {label} = {label}.argmax(-1); "
            f"for values type  {label} = {label}.astype(np.{Z.dtype})"
        )
    elif y.shape == (*Z.shape[:-1], 1):
        more = f"Nothing is broadcast; type  {label} = {label}[..., 0]"
    else:
        more = f"One label per example: {label} must have shape {Z.shape[:-1]}."
    return ShapeError(f"{call}: labels {label} do not fit {scores}\n{table}\n{more}")


def _no_class(call: str, names: Names, Z: Array, y: Array, at: tuple[Any, ...], skips: bool) -> DataError:
    scores, labels, letter = names
    K, label = Z.shape[-1], y[at]
    where = f"[{', '.join(str(int(i)) for i in at)}]" if at else ""
    more = ""
    if skips and label < 0:
        more = f"\nTo leave out the examples with this label pass  ignore_index={label}"
    return DataError(
        f"{call}: {labels}{where} is {label}, which is no class: {scores} has {letter.upper()} = {K}, "
        f"so labels run from 0 to {K - 1}{more}"
    )
