"""The squared distance between what came out and what should have."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core import Array, Loss, OptionError, ShapeError, one_dtype, shapes_table
from ._operands import check_choice, over_rows
from ._reduction import (
    REDUCTIONS,
    Weight,
    both,
    check_weight,
    dloss_by_example,
    reduce_examples,
    scale_rows,
)
from ._targets import check_scores, positions, read_labels

CALL = "squared_error(Y, T)"


class SquaredErrorSaved(NamedTuple):
    """Half the gradient of each example, and its factor."""

    D: Array  # (..., M): Y − T
    scale: Weight  # (N,) or a number: each example's factor in the loss
    reduction: str


def _forward(
    Y: Any,
    T: Any,
    *,
    reduction: str = "mean",
    sample_weight: Any = None,
    class_weight: Any = None,
) -> tuple[Any, SquaredErrorSaved]:
    """``L = mean_n Σ_m (Y_nm − T_nm)²``: no ½, and never divided by M.

    With s = sample_weight and w = class_weight (ones where absent), example n has the loss ``s_n w_{T_n}`` times the
    squared distance between its row of Y and its target.

    Args:
        Y: outputs, shape (..., M), float32 or float64; the N examples are its leading axes. One output per example is
            M = 1, shape (N, 1): a Y of shape (N,) is a single example.
        T: targets of Y's shape and dtype, which get no gradient; or integer labels of shape (...), in 0..M−1, that
            stand for one-hot rows, which are never formed.
        reduction: ``"mean"`` divides by Σ_n s_n w_{T_n}, N without weights; where that is zero, as for N = 0, loss and
            gradient are 0. ``"sum"``; ``"none"``, the weighted losses in the shape (...).
        sample_weight: shape (...) exactly, finite, not negative. Weight 2 is the example twice, 0 its absence.
        class_weight: shape (M,), finite, not negative; only with labels.

    Returns:
        the loss in Y's dtype, and ``saved``, which borrows the weights. ``back(dloss)`` gives dY.

        PyTorch's ``mse_loss`` with ``reduction="sum"`` is this sum; its mean divides by N M.

    Raises:
        ShapeError: T, a weight or dloss does not fit Y; nothing is broadcast, (N, 1) against (N,) neither.
        DtypeError: Y is not float32 or float64; T is neither of Y's dtype nor of integers.
        DataError: a label outside 0..M−1; a weight that is negative or not finite.
        OptionError: an unknown reduction; class_weight with targets that are no labels.

    Source: Legendre 1805, the method of least squares.
    """
    Y, T = check_scores(CALL, "Y", Y), np.asarray(T)
    check_choice(CALL, "reduction", reduction, REDUCTIONS)
    shape, M = Y.shape[:-1], Y.shape[-1]
    s = check_weight(CALL, "sample_weight", sample_weight, shape, Y.dtype, "example")
    w = check_weight(CALL, "class_weight", class_weight, (M,), Y.dtype, "class")
    if T.dtype.kind == "f":
        _check_targets(Y, T, w)
        D = np.subtract(Y, T, order="C")
        weight = s
    else:
        labels, _ = read_labels(CALL, ("Y", "T", "m"), Y, T)
        D = np.array(Y, order="C")
        D.reshape(-1)[positions(labels, M)] -= 1
        weight = both(s, None if w is None else w[labels])
    losses = over_rows(np.add, np.square(D.reshape(-1, M)))
    loss, scale = reduce_examples(losses, weight, weight, reduction, shape)
    return loss, SquaredErrorSaved(D, scale, reduction)


def _backward(dloss: Any, saved: SquaredErrorSaved) -> Array:
    """``dY_nm = 2 c_n (Y_nm − T_nm)``, with c_n = dloss × the example's factor in the loss."""
    D, scale, reduction = saved
    c = dloss_by_example(CALL, dloss, scale, reduction, D.shape[:-1], D.dtype)
    return scale_rows(D.reshape(-1, D.shape[-1]), 2.0 * c, D.dtype).reshape(D.shape)


def _check_targets(Y: Array, T: Array, w: Array | None) -> None:
    """Targets that are values, not labels."""
    if T.shape != Y.shape:
        table = shapes_table([("Y", Y.shape, f"[..., m]   {Y.dtype}"), ("T", T.shape, str(T.dtype))])
        lines = "Targets have the shape of Y; nothing is broadcast."
        if T.shape == Y.shape[:-1]:
            lines += "\nFor labels type  T = T.astype(np.int64)"
            if Y.shape[-1] == 1:
                lines += "; for one target per example type  T = T[..., None]"
        elif T.shape == (*Y.shape, 1):
            lines += "\nFor one output per example type  Y = Y[..., None]"
        raise ShapeError(f"{CALL}: T does not fit Y\n{table}\n{lines}")
    if T.dtype != Y.dtype:
        one_dtype(CALL, Y=Y, T=T)
    if w is not None:
        raise OptionError(
            f"{CALL}: class_weight needs labels, and T holds values of dtype {T.dtype}; "
            "weigh examples by sample_weight, or pass labels  T.argmax(-1)"
        )


# The loss of one example, for Y of shape (N, M); with a label T[n] for a one-hot row, Σ(Y − onehot)² = ΣY² − 2 Y_T + 1.
_VALUES = "sum[m]((Y[n,m] - T[n,m])**2)"
_LABELS = "sum[m](Y[n,m]**2) - 2*Y[n,T[n]] + 1"
_BOTH_WEIGHTS = "sample_weight[n] class_weight[T[n]]"

squared_error = Loss(
    "squared_error",
    f"L = mean[n]({_VALUES})",
    _forward,
    _backward,
    variants=(
        ({"reduction": "sum"}, f"L = sum[n]({_VALUES})"),
        ({"reduction": "none"}, f"L[n] = {_VALUES}"),
        ({}, f"L = sum[n](sample_weight[n]*{_VALUES}) / sum[n](sample_weight[n])"),
        ({}, f"L = mean[n]({_LABELS})"),
        ({"reduction": "none"}, f"L[n] = {_LABELS}"),
        ({}, f"L = sum[n](class_weight[T[n]]*({_LABELS})) / sum[n](class_weight[T[n]])"),
        ({}, f"L = sum[n]({_BOTH_WEIGHTS}*({_LABELS})) / sum[n]({_BOTH_WEIGHTS})"),
    ),
)
