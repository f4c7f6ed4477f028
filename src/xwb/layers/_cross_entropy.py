"""Softmax and cross-entropy in one: the scores may be large, and the gradient is p − target."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DtypeError, Loss, OptionError, ShapeError, one_dtype, shapes_table
from ._operands import check_choice, over_rows
from ._reduction import (
    REDUCTIONS,
    Weight,
    both,
    check_weight,
    dloss_by_example,
    reduce_examples,
    times,
)
from ._targets import check_scores, positions, read_labels

CALL = "softmax_cross_entropy(Z, y)"

# Entries per pass over the scores: the four steps of a softmax then find their rows in the processor's cache.
BLOCK = 2**17

# Both kinds of target are numbers q: an example's loss is −Σ_k q_k log p_k, and its gradient p Σ_k q_k − q.


class Labels(NamedTuple):
    """``q_nk = hit_n [k == y_n] + spread_k``, never formed."""

    position: Array  # (N,): where the labels stand in the N×K scores
    hit: Weight  # (N,) or a number
    spread: Weight  # (K,) or a number

    def part(self, start: int, stop: int, K: int) -> Labels:
        """The targets of some examples."""
        hit = self.hit if isinstance(self.hit, float) else self.hit[start:stop]
        return Labels(self.position[start:stop] - start * K, hit, self.spread)

    def dot(self, A: Array) -> Array:
        """``Σ_k q_nk A_nk`` with 0 · (−inf) = 0."""
        position, hit, spread = self
        result = times(hit, A.reshape(-1).take(position))
        if not isinstance(spread, float):
            result += np.add.reduce(times(spread, A), 1)
        elif spread != 0.0:
            result += spread * np.add.reduce(A, 1)
        return result

    def subtract(self, dZ: Array, c: Weight) -> None:
        """``dZ_nk −= c_n q_nk``."""
        position, hit, spread = self
        if not isinstance(spread, float) or spread != 0.0:
            dZ -= _column(c) * spread
        flat = dZ.reshape(-1)
        flat[position] = flat.take(position) - c * hit


class Probabilities(NamedTuple):
    """``q_nk = w_k ((1 − smoothing) T_nk + smoothing / K)``; T is the caller's array."""

    T: Array  # (N, K)
    class_weight: Array | None  # (K,)
    smoothing: float

    def part(self, start: int, stop: int, K: int) -> Probabilities:
        """The targets of some examples."""
        return self._replace(T=self.T[start:stop])

    def q(self) -> Array:
        """The numbers q as a matrix: T itself where nothing changes it."""
        T, w, smoothing = self
        q = T if smoothing == 0.0 else T * (1.0 - smoothing) + smoothing / T.shape[1]
        return q if w is None else q * w

    def dot(self, A: Array) -> Array:
        """``Σ_k q_nk A_nk`` with 0 · (−inf) = 0."""
        result: Array = np.add.reduce(times(self.q(), A), 1)
        return result

    def subtract(self, dZ: Array, c: Weight) -> None:
        """``dZ_nk −= c_n q_nk``."""
        dZ -= _column(c) * self.q()


class CrossEntropySaved(NamedTuple):
    """What backward needs; target probabilities and weights are the caller's arrays."""

    E: Array  # (..., K): exp(Z − max), so that p = E / S
    S: Array  # (N,): Σ_k E
    Q: Weight  # (N,) or a number: Σ_k q_k
    target: Labels | Probabilities
    scale: Weight  # (N,) or a number: each example's factor in the loss
    reduction: str


def _forward(
    Z: Any,
    y: Any,
    *,
    reduction: str = "mean",
    sample_weight: Any = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> tuple[Any, CrossEntropySaved]:
    """``L = mean_n(−log p_{n, y_n})`` with ``p = softmax(Z)``.

    With s = sample_weight and w = class_weight (ones where absent) and ε = label_smoothing, example n has the loss

    * for labels y: ``s_n (−(1 − ε) w_y log p_y − ε/K Σ_k w_k log p_k)``, as in PyTorch;
    * for probabilities T: ``s_n (−Σ_k w_k ((1 − ε) T_k + ε/K) log p_k)``, as in PyTorch.

    Args:
        Z: scores (logits), shape (..., K), float32 or float64; the N examples are its leading axes.
        y: integer labels of shape (...), in 0..K−1; or target probabilities T of shape (..., K) in Z's dtype. They get
            no gradient, and are not checked to be positive or to sum to 1.
        reduction: ``"mean"``; ``"sum"``; or ``"none"``, the weighted losses in the shape (...). The mean divides

            * by N if there are neither weights nor ignored examples, for either kind of y and any ε;
            * for labels by Σ_n s_n w_{y_n} over the examples that are not ignored, as in PyTorch;
            * for probabilities by Σ_n s_n Σ_k w_k T_nk, the same number if T is one-hot (PyTorch: always N), without
              class weights by Σ_n s_n.

            Smoothing does not change the divisor. Where it is zero, as for N = 0, loss and gradient are 0.
        sample_weight: shape (...) exactly, finite, not negative. Weight 2 is the example twice, 0 its absence.
        class_weight: shape (K,), finite, not negative.
        label_smoothing: ε in 0..1 (Szegedy et al. 2016, arXiv:1512.00567).
        ignore_index: examples with this label count nothing, whatever their scores: loss 0, gradient 0, no part in
            the divisor. Any integer, a class or not. Labels only.

    Returns:
        the loss in Z's dtype, and ``saved``, which borrows target probabilities and weights. ``back(dloss)``
        gives dZ.

        Scores may be ±1e4, or −inf: p is 0 there. If the label's own score is −inf, the loss is +inf and the gradient
        still p − onehot. Where a target is 0 its score costs nothing, −inf included (PyTorch: NaN). A row that is −inf
        throughout, or that holds +inf, gives NaN.

    Raises:
        ShapeError: y, a weight or dloss does not fit Z; nothing is broadcast.
        DtypeError: Z is not float32 or float64; labels are not integers; probabilities are not of Z's dtype.
        DataError: a label outside 0..K−1; a weight that is negative or not finite.
        OptionError: an unknown reduction; ε outside 0..1; ignore_index not an integer, or given with probabilities.

    Source: Bridle 1989, Training stochastic model recognition algorithms as networks can lead to maximum mutual
    information estimation of parameters.
    """
    Z, y = check_scores(CALL, "Z", Z), np.asarray(y)
    check_choice(CALL, "reduction", reduction, REDUCTIONS)
    if not 0.0 <= label_smoothing <= 1.0:
        raise OptionError(f"{CALL}: label_smoothing={label_smoothing!r} is not between 0 and 1")
    shape, K, smoothing = Z.shape[:-1], Z.shape[-1], float(label_smoothing)
    s = check_weight(CALL, "sample_weight", sample_weight, shape, Z.dtype, "example")
    w = check_weight(CALL, "class_weight", class_weight, (K,), Z.dtype, "class")
    smooth = smoothing * (1.0 if w is None else float(np.mean(w, dtype=np.float64)))  # ε/K Σ_k w_k

    target: Labels | Probabilities
    if y.dtype.kind == "f":
        T = _probabilities(Z, y, ignore_index)
        target = Probabilities(T, w, smoothing)
        share = np.add.reduce(T if w is None else T * w, -1)  # Σ_k w_k T_nk
        Q: Weight = (1.0 - smoothing) * share + smooth
        counted = s if w is None else both(s, share)
    else:
        labels, used = read_labels(CALL, ("Z", "y", "k"), Z, y, _integer(ignore_index), skips=True)
        if used is not None:
            s = both(s, used.astype(Z.dtype))
        hit: Weight = 1.0 - smoothing if w is None else (1.0 - smoothing) * w[labels]
        target = Labels(positions(labels, K), hit, smoothing / K if w is None else w * (smoothing / K))
        Q = hit + smooth
        counted = s if w is None else both(s, w[labels])

    E, S, cross = _softmax(Z.reshape(-1, K), target)
    losses = times(Q, np.log(S))
    losses -= cross
    loss, scale = reduce_examples(losses, s, counted, reduction, shape)
    return loss, CrossEntropySaved(E.reshape(Z.shape), S, Q, target, scale, reduction)


def _backward(dloss: Any, saved: CrossEntropySaved) -> Array:
    """``dZ_nk = c_n (p_nk Σ_j q_nj − q_nk)``, with c_n = dloss × the example's factor in the loss."""
    E, S, Q, target, scale, reduction = saved
    c = dloss_by_example(CALL, dloss, scale, reduction, E.shape[:-1], E.dtype)
    if isinstance(scale, float) and scale == 0.0:
        return np.zeros_like(E)
    dZ: Array = E.reshape(-1, E.shape[-1]) * (c * Q / S)[:, None]
    target.subtract(dZ, c)
    if not isinstance(scale, float) and (unused := scale == 0).any():
        dZ[unused] = 0  # whatever their scores: 0 · NaN is NaN
    return dZ.reshape(E.shape)


def _softmax(Z: Array, target: Labels | Probabilities) -> tuple[Array, Array, Array]:
    """``E = exp(Z − max)``, ``S = Σ_k E`` and ``Σ_k q_k (Z_k − max)``."""
    N, K = Z.shape
    E = np.empty((N, K), Z.dtype)
    with np.errstate(invalid="ignore"):  # inf − inf in the rows that are NaN
        if N * K <= BLOCK:
            return E, *_softmax_rows(Z, E, target)
        step = max(1, BLOCK // K)
        S, cross = np.empty((2, N), Z.dtype)
        for i in range(0, N, step):
            j = i + step
            S[i:j], cross[i:j] = _softmax_rows(Z[i:j], E[i:j], target.part(i, j, K))
    return E, S, cross


def _softmax_rows(Z: Array, E: Array, target: Labels | Probabilities) -> tuple[Array, Array]:
    """Writes E; the four passes of one block."""
    np.subtract(Z, over_rows(np.maximum, Z)[:, None], E)
    cross = target.dot(E)
    np.exp(E, E)
    return over_rows(np.add, E), cross


def _column(c: Weight) -> Any:
    """One factor per example, ready to multiply the rows of an N×K matrix."""
    return c if isinstance(c, float) else c[:, None]


def _integer(ignore_index: Any) -> int | None:
    try:
        return None if ignore_index is None else operator.index(ignore_index)
    except TypeError:
        raise OptionError(f"{CALL}: ignore_index={ignore_index!r} is not an integer") from None


def _probabilities(Z: Array, T: Array, ignore_index: int | None) -> Array:
    """Target probabilities as an N×K matrix."""
    if T.shape != Z.shape:
        table = shapes_table([("Z", Z.shape, f"[..., k]   {Z.dtype}"), ("y", T.shape, str(T.dtype))])
        if T.shape == Z.shape[:-1]:
            raise DtypeError(f"{CALL}: y is {T.dtype}, and labels are integers\n{table}\ntype  y = y.astype(np.int64)")
        raise ShapeError(
            f"{CALL}: y fits neither as labels nor as probabilities\n{table}\n"
            f"Labels are integers of shape {Z.shape[:-1]}, probabilities floating of shape {Z.shape}."
        )
    if T.dtype != Z.dtype:
        one_dtype(CALL, Z=Z, y=T)
    if ignore_index is not None:
        raise OptionError(
            f"{CALL}: ignore_index={ignore_index!r} is a label, and y holds probabilities; "
            "leave examples out with sample_weight = 0"
        )
    return T.reshape(-1, T.shape[-1])


# The loss of one example, for Z of shape (N, K): of a label, smoothed, of probabilities.
_NLL = "log(sum[k](exp(Z[n,k]))) - Z[n,y[n]]"
_SMOOTH = "log(sum[k](exp(Z[n,k]))) - 0.9*Z[n,y[n]] - 0.1*mean[k](Z[n,k])"
_LOG_P = "(Z[n,k] - log(sum[j](exp(Z[n,j]))))"
_SMOOTH_WEIGHTED = f"0.9*class_weight[y[n]]*({_NLL}) - 0.1*mean[k](class_weight[k]*{_LOG_P})"
_SOFT = f"-sum[k](y[n,k]*{_LOG_P})"
_BOTH_WEIGHTS = "sample_weight[n] class_weight[y[n]]"
_USED = "(1 - [y[n] == 0])"

softmax_cross_entropy = Loss(
    "softmax_cross_entropy",
    f"L = mean[n]({_NLL})",
    _forward,
    _backward,
    variants=(
        ({"reduction": "sum"}, f"L = sum[n]({_NLL})"),
        ({"reduction": "none"}, f"L[n] = {_NLL}"),
        ({}, f"L = sum[n](sample_weight[n]*({_NLL})) / sum[n](sample_weight[n])"),
        ({"reduction": "sum"}, f"L = sum[n](sample_weight[n]*({_NLL}))"),
        ({}, f"L = sum[n](class_weight[y[n]]*({_NLL})) / sum[n](class_weight[y[n]])"),
        ({}, f"L = sum[n]({_BOTH_WEIGHTS}*({_NLL})) / sum[n]({_BOTH_WEIGHTS})"),
        ({"label_smoothing": 0.1}, f"L = mean[n]({_SMOOTH})"),
        ({"label_smoothing": 0.1, "reduction": "none"}, f"L[n] = {_SMOOTH}"),
        ({"label_smoothing": 0.1}, f"L = sum[n]({_SMOOTH_WEIGHTED}) / sum[n](class_weight[y[n]])"),
        ({"ignore_index": 0}, f"L = sum[n]({_USED}*({_NLL})) / sum[n]({_USED})"),
        ({"ignore_index": 0, "reduction": "sum"}, f"L = sum[n]({_USED}*({_NLL}))"),
        ({}, f"L = mean[n]({_SOFT})"),
        ({"reduction": "none"}, f"L[n] = {_SOFT}"),
        ({}, f"L = sum[n](sample_weight[n]*({_SOFT})) / sum[n](sample_weight[n])"),
        ({}, f"L = sum[n](-sum[k](class_weight[k] y[n,k]*{_LOG_P})) / sum[n,k](class_weight[k] y[n,k])"),
        ({"label_smoothing": 0.1}, f"L = mean[n](-sum[k]((0.9*y[n,k] + 0.1/size(k))*{_LOG_P}))"),
    ),
)
