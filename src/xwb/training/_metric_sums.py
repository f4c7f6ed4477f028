"""What the metrics share: blocks of rows checked, sums over rows, and quotients that may be undefined."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core import FLOATS, Array, DataError, DtypeError, OptionError, ShapeError, one_dtype, shapes_table


def positive(call: str, name: str, value: Any) -> int:
    """``value`` as an integer of at least 1.

    Raises:
        OptionError: it is none.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise OptionError(f"{call}: {name}={value!r} is no positive integer")
    return number


def check_scores(call: str, scores: Array, y: Array, K: int) -> None:
    """Nothing, once scores are floating of shape (n, K) and y integers of shape (n,).

    Raises:
        ShapeError, DtypeError: they are not.
    """
    rows = [("scores", scores.shape, f"[n, k]   {scores.dtype}"), ("y", y.shape, f"[n]   {y.dtype}")]
    if scores.ndim != 2 or y.shape != scores.shape[:1] or scores.shape[1] != K:
        raise ShapeError(
            f"{call}: needs scores of shape (n, {K}) and a label for each row\n{shapes_table(rows)}\n"
            f"There are K = {K} classes; nothing is broadcast."
        )
    if scores.dtype not in FLOATS:
        one_dtype(call, scores=scores)
    if y.dtype.kind not in "iu":
        raise DtypeError(
            f"{call}: y is {y.dtype}, and labels are integers\n{shapes_table(rows)}\ntype  y = y.astype(np.int64)"
        )


def codes(call: str, y: Array, K: int) -> Array:
    """Labels as platform integers.

    Raises:
        DataError: one outside 0..K−1.
    """
    valid = (y >= 0) & (y < K)
    if not valid.all():
        n = int(np.argmin(valid))
        raise DataError(
            f"{call}: y[{n}] is {y[n]}, which is no class: scores have K = {K}, so labels run from 0 to {K - 1}"
        )
    return y.astype(np.intp, copy=False)


def check_matrices(call: str, predictions: Array, T: Array, M: int) -> None:
    """Nothing, once both are real numbers of shape (n, M).

    Raises:
        ShapeError, DtypeError, DataError: they are not, or hold what is not finite.
    """
    both = (("predictions", predictions), ("T", T))
    table = shapes_table((name, A.shape, f"[n, m]   {A.dtype}") for name, A in both)
    if predictions.ndim != 2 or T.shape != predictions.shape or T.shape[1] != M:
        raise ShapeError(
            f"{call}: needs predictions and T of the same shape (n, {M})\n{table}\n"
            f"There are M = {M} targets; nothing is broadcast."
        )
    for name, A in both:
        if A.dtype.kind not in "iuf":
            raise DtypeError(f"{call}: {name} is {A.dtype}, and is compared as real numbers\n{table}")
        finite = np.isfinite(A)
        if not finite.all():
            n, m = divmod(int(np.argmin(finite)), M)
            raise DataError(f"{call}: {name}[{n}, {m}] is {A[n, m]}; metrics need finite numbers")


def weights(call: str, weight: Any, n: int) -> Array | None:
    """A weight per row as float64; None stays None.

    Raises:
        ShapeError: not exactly (n,).
        DtypeError: not real numbers.
        DataError: a negative, infinite or NaN weight.
    """
    if weight is None:
        return None
    given = np.asarray(weight)
    if given.shape != (n,):
        raise ShapeError(f"{call}: weight has shape {given.shape} and needs ({n},), one per row; nothing is broadcast")
    if given.dtype.kind not in "biuf":
        raise DtypeError(f"{call}: weight is {given.dtype}, and weights are real numbers")
    result: Array = given.astype(np.float64, copy=False)
    valid = (result >= 0) & (result < np.inf)
    if not valid.all():
        at = int(np.argmin(valid))
        raise DataError(f"{call}: weight[{at}] is {given[at]}; weights are finite and not negative")
    return result


def without_zeros(weight: Array | None, *arrays: Array) -> tuple[Array | None, list[Array]]:
    """The rows that count: those whose weight is not 0."""
    if weight is None or weight.all():
        return weight, list(arrays)
    kept = weight > 0
    return weight[kept], [A[kept] for A in arrays]


def added(sums: Array, at: Array, weight: Array | None) -> Array:
    """``sums[at_n] += weight_n``, perhaps in place: int64 counts as long as there is no weight, then float64."""
    if weight is not None:
        sums = sums.astype(np.float64, copy=False)
    np.add.at(sums, at, 1 if weight is None else weight)
    return sums


def total(x: Array, weight: Array | None) -> int | float:
    """``Σ_n weight_n x_n``: of booleans without weights an integer, else a number in float64."""
    if weight is not None:
        return float(np.add.reduce(x * weight, dtype=np.float64))
    return int(np.count_nonzero(x)) if x.dtype == np.bool_ else float(np.add.reduce(x, dtype=np.float64))


def ratio(numerator: Any, denominator: Any) -> Array:
    """The quotient in float64, NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    undefined = np.full(numerator.shape, np.nan)
    with np.errstate(invalid="ignore"):  # infinity by infinity is undefined too
        quotient: Array = np.divide(numerator, denominator, out=undefined, where=denominator != 0)
    return quotient


def number(x: Any) -> float | None:
    """For JSON: None for what is not finite."""
    return float(x) if math.isfinite(x) else None


def mean_defined(values: Iterable[float]) -> float | None:
    """The mean of those that are not NaN; None if none is."""
    defined = [float(x) for x in values if not math.isnan(x)]
    return math.fsum(defined) / len(defined) if defined else None
