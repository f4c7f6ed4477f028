"""What losses share after the loss of each example: weights, reductions, and how dloss reaches the examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import Array, DataError, DtypeError, ShapeError

REDUCTIONS = ("mean", "sum", "none")

# A number for all examples (or classes), or an array with one for each.
Weight = float | Array


def check_weight(
    call: str, option: str, weight: Any, shape: tuple[int, ...], dtype: np.dtype[Any], each: str
) -> Array | None:
    """A weight option as a flat array of ``dtype``; None stays None.

    Args:
        call, option: how messages call the function and the option.
        weight: what was passed for it.
        shape, dtype: the shape it has to have, and the dtype it gets.
        each: what has one weight, "example" or "class", for the message.

    Raises:
        ShapeError: not exactly ``shape``; nothing is broadcast.
        DtypeError: not real numbers.
        DataError: a negative, infinite or NaN weight.
    """
    if weight is None:
        return None
    given = np.asarray(weight)
    if given.dtype.kind not in "biuf":
        raise DtypeError(f"{call}: {option} is {given.dtype}, and weights are real numbers")
    if given.shape != shape:
        raise ShapeError(
            f"{call}: {option} has shape {given.shape} and needs {shape}, one weight per {each}; nothing is broadcast"
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, and is refused as that
        flat: Array = given.reshape(-1).astype(dtype, copy=False)
    valid = (flat >= 0) & (flat < np.inf)
    if not valid.all():
        at = np.unravel_index(int(np.argmin(valid)), shape)
        where = f"[{', '.join(str(int(i)) for i in at)}]" if at else ""
        raise DataError(f"{call}: {option}{where} is {given[at]}; weights are finite and not negative ({dtype})")
    return flat


def times(weight: Weight, x: Array) -> Array:
    """``weight · x`` with 0 · (±inf or NaN) = 0, so that what has no weight has no say. May overwrite x."""
    if isinstance(weight, float):
        if weight == 0.0:
            return np.zeros_like(x)
        if weight != 1.0:
            x *= weight
        return x
    return np.multiply(x, weight, out=np.zeros_like(x), where=weight != 0)


def both(first: Array | None, second: Array | None) -> Array | None:
    """The product of two optional weights."""
    if first is None or second is None:
        return first if second is None else second
    return first * second


def scale_rows(A: Array, factor: Weight, dtype: np.dtype[Any]) -> Array:
    """``factor_n A_nk`` with the 0 · inf = 0 of `times`: an example without weight has no gradient. A may be bool."""
    if isinstance(factor, float):
        return np.zeros(A.shape, dtype) if factor == 0.0 else np.multiply(A, factor, dtype=dtype)
    rows = factor[:, None]
    return np.multiply(A, rows, out=np.zeros(A.shape, dtype), where=rows != 0)


def reduce_examples(
    losses: Array, weight: Array | None, counted: Array | None, reduction: str, shape: tuple[int, ...]
) -> tuple[Any, Weight]:
    """The reduced loss, and the factor each example's loss has in it.

    Args:
        losses: (N,), before ``weight``; may be overwritten.
        weight: (N,) factors, or None for ones.
        counted: (N,), what each example adds to the divisor of the mean, or None for ones.
        reduction: one of `REDUCTIONS`.
        shape: the leading axes, which ``"none"`` restores.

    Returns:
        the loss in the dtype of ``losses``, and its derivative by them. Sums accumulate in float64. A mean whose
        divisor is zero is 0, and so is its derivative.
    """
    scale: Weight = 1.0 if weight is None else weight
    if weight is not None:
        losses = times(weight, losses)
    if reduction == "none":
        return losses.reshape(shape), scale
    value = float(np.add.reduce(losses, 0, np.float64))
    if reduction == "mean":
        total = float(losses.size if counted is None else np.add.reduce(counted, dtype=np.float64))
        if total == 0.0:
            return losses.dtype.type(0), 0.0
        value /= total
        scale = scale / total
    return losses.dtype.type(value), scale


def dloss_by_example(
    call: str, dloss: Any, scale: Weight, reduction: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Weight:
    """``dloss`` times each example's factor: a number, or (N,).

    Args:
        shape, dtype: the leading axes and the dtype of the scores.

    Raises:
        ShapeError: dloss is neither a number nor, for ``reduction="none"``, of the loss's shape.
        DtypeError: such an array has another dtype than the loss.
    """
    if type(dloss) is float:
        return dloss * scale
    given = np.asarray(dloss)
    if given.ndim == 0:
        return float(given) * scale
    if reduction != "none" or given.shape != shape:
        wanted = f"is a number or has the loss's shape {shape}" if reduction == "none" else "is a number"
        raise ShapeError(f"{call}: dloss has shape {given.shape}; with reduction={reduction!r} it {wanted}")
    if given.dtype != dtype:
        raise DtypeError(
            f"{call}: dloss is {given.dtype} and the loss is {dtype}; type  dloss = dloss.astype(np.{dtype})"
        )
    return given.reshape(-1) * scale
