"""The multiclass support vector machine's loss, in its two forms."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, Loss, OptionError
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

CALL = "multiclass_hinge(Z, y)"
KINDS = ("weston_watkins", "crammer_singer")


class HingeSaved(NamedTuple):
    """``∂loss_n/∂Z_nj = slope_n A_nj`` for the wrong classes; the right class gets minus their sum."""

    A: Array  # (..., K): which margins are violated (bool), or by how much; 0 at the labels
    slope: Weight  # (N,) or a number
    position: Array  # (N,): where the labels stand in A
    scale: Weight  # (N,) or a number: each example's factor in the loss
    reduction: str
    dtype: np.dtype[Any]


def _forward(
    Z: Any,
    y: Any,
    *,
    kind: str = "weston_watkins",
    margin: float = 1.0,
    squared: bool = False,
    reduction: str = "mean",
    sample_weight: Any = None,
    class_weight: Any = None,
) -> tuple[Any, HingeSaved]:
    """``L = mean_n Σ_{j ≠ y_n} max(0, margin + Z_nj − Z_{n, y_n})``.

    With h_j = max(0, margin + z_j − z_y) for the wrong classes j ≠ y, s = sample_weight and w = class_weight (ones
    where absent), example n has the loss s_n w_{y_n} times

    =====================  ====================  ============================
    kind                   squared=False         squared=True
    =====================  ====================  ============================
    ``"weston_watkins"``   Σ_j h_j               Σ_j h_j²
    ``"crammer_singer"``   max_j h_j             (max_j h_j)²
    =====================  ====================  ============================

    `torch.nn.functional.multi_margin_loss` with p = 1 or 2 is the first row divided by K, and its mean divides by N
    whatever the weights.

    Args:
        Z: scores, shape (..., K), float32 or float64; the N examples are its leading axes. With K = 1 the loss is 0.
        y: integer labels of shape (...), in 0..K−1.
        kind: the sum over the wrong classes (Weston and Watkins 1999) or their worst (Crammer and Singer 2001).
        margin: by how much the right class should win; any finite number.
        squared: see the table.
        reduction: ``"mean"`` divides by Σ_n s_n w_{y_n}, N without weights; where that is zero, as for N = 0, loss and
            gradient are 0. ``"sum"``; ``"none"``, the weighted losses in the shape (...).
        sample_weight: shape (...) exactly, finite, not negative. Weight 2 is the example twice, 0 its absence.
        class_weight: shape (K,), finite, not negative.

    Returns:
        the loss in Z's dtype, and ``saved``, which borrows the weights. ``back(dloss)`` gives dZ. A margin that is just
        met has gradient 0, and wrong classes that share the maximum share its gradient equally.

        A wrong class with Z = −inf never violates. A right class with −inf gives +inf if any other score is finite.

    Raises:
        ShapeError: y, a weight or dloss does not fit Z; nothing is broadcast.
        DtypeError: Z is not float32 or float64; labels are not integers.
        DataError: a label outside 0..K−1; a weight that is negative or not finite.
        OptionError: an unknown kind or reduction; a margin that is not finite.

    Source: Weston and Watkins 1999, Support vector machines for multi-class pattern recognition; Crammer and Singer
    2001, On the algorithmic implementation of multiclass kernel-based vector machines.
    """
    Z, y = check_scores(CALL, "Z", Z), np.asarray(y)
    check_choice(CALL, "kind", kind, KINDS)
    check_choice(CALL, "reduction", reduction, REDUCTIONS)
    if not math.isfinite(margin):
        raise OptionError(f"{CALL}: margin={margin!r} is not a finite number")
    shape, K = Z.shape[:-1], Z.shape[-1]
    s = check_weight(CALL, "sample_weight", sample_weight, shape, Z.dtype, "example")
    w = check_weight(CALL, "class_weight", class_weight, (K,), Z.dtype, "class")
    labels, _ = read_labels(CALL, ("Z", "y", "k"), Z, y)
    weight = both(s, None if w is None else w[labels])

    position = positions(labels, K)
    H = _violations(Z.reshape(-1, K), labels, position, float(margin))
    slope: Weight = 2.0 if squared else 1.0
    if kind == "weston_watkins":
        losses = over_rows(np.add, np.square(H) if squared else H)
        A = H if squared else H > 0
    else:
        worst = over_rows(np.maximum, H)
        losses = np.square(worst) if squared else worst
        tied = np.equal(H, worst[:, None]) & (H > 0)
        A = np.where(tied, H, 0) if squared else tied
        slope = slope / np.maximum(np.add.reduce(tied, 1, Z.dtype), 1)
    loss, scale = reduce_examples(losses, weight, weight, reduction, shape)
    return loss, HingeSaved(A.reshape(Z.shape), slope, position, scale, reduction, Z.dtype)


def _backward(dloss: Any, saved: HingeSaved) -> Array:
    """``dZ_nj = c_n slope_n A_nj`` for j ≠ y_n, and ``dZ_{n, y_n} = −Σ_{j ≠ y_n} dZ_nj``."""
    A, slope, position, scale, reduction, dtype = saved
    c = dloss_by_example(CALL, dloss, scale, reduction, A.shape[:-1], dtype)
    dZ = scale_rows(A.reshape(-1, A.shape[-1]), c * slope, dtype)
    dZ.reshape(-1)[position] = -over_rows(np.add, dZ)
    return dZ.reshape(A.shape)


def _violations(Z: Array, labels: Array, position: Array, margin: float) -> Array:
    """``h_nj = max(0, margin + Z_nj − Z_{n, y_n})``, and 0 at the labels: a new N×K array."""
    right = Z[np.arange(labels.size), labels][:, None]
    with np.errstate(invalid="ignore"):  # inf − inf: at the labels, and below
        H = np.subtract(Z, right, order="C")
    H += margin  # after the difference: margin − Z_y would round
    np.maximum(H, 0, out=H)
    H.reshape(-1)[position] = 0
    if np.isneginf(right).any():
        H[np.isneginf(Z)] = 0  # −inf − (−inf)
    return H


def _formula(kind: str, squared: bool, margin: str = "1") -> str:
    """The loss of one example, for Z of shape (N, K)."""
    power = "**2" if squared else ""
    violation = f"(1 - [j == y[n]])*relu({margin} + Z[n,j] - Z[n,y[n]])"
    return f"sum[j]({violation}{power})" if kind == "weston_watkins" else f"max[j]({violation}){power}"


_BOTH_WEIGHTS = "sample_weight[n] class_weight[y[n]]"
_SUM, _WORST = (_formula(kind, False) for kind in KINDS)

multiclass_hinge = Loss(
    "multiclass_hinge",
    f"L = mean[n]({_SUM})",
    _forward,
    _backward,
    variants=(
        ({"squared": True}, f"L = mean[n]({_formula(KINDS[0], True)})"),
        ({"kind": "crammer_singer"}, f"L = mean[n]({_WORST})"),
        ({"kind": "crammer_singer", "squared": True}, f"L = mean[n]({_formula(KINDS[1], True)})"),
        ({"margin": 0.5}, f"L = mean[n]({_formula(KINDS[0], False, '0.5')})"),
        ({"kind": "crammer_singer", "margin": 0.5}, f"L = mean[n]({_formula(KINDS[1], False, '0.5')})"),
        ({"reduction": "sum"}, f"L = sum[n]({_SUM})"),
        ({"reduction": "none"}, f"L[n] = {_SUM}"),
        ({"kind": "crammer_singer", "reduction": "none"}, f"L[n] = {_WORST}"),
        ({}, f"L = sum[n](sample_weight[n]*({_SUM})) / sum[n](sample_weight[n])"),
        ({}, f"L = sum[n](class_weight[y[n]]*({_SUM})) / sum[n](class_weight[y[n]])"),
        ({}, f"L = sum[n]({_BOTH_WEIGHTS}*({_SUM})) / sum[n]({_BOTH_WEIGHTS})"),
    ),
)
