"""Per-example clipping, with nothing per example formed but N numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._blas import Array
from ._errors import DataError, OptionError, ShapeError
from ._factored import FactoredGradient


def clip_per_example(grads: Any, max_norm: float) -> Any:
    """Each example's gradient scaled down to a norm of at most ``max_norm``, and summed again; still factored.

    g_n ← g_n · min(1, c / ‖g_n‖), the norm being over all parameters (Abadi et al. 2016, arXiv:1607.00133). The
    share of an example in db is its rows of the retained dY. Values are those of the loss as reduced: under a
    mean over N examples, ``c`` bounds gradients that carry 1/N.

    Args:
        grads: what ``back(dY, factored=True)`` returned, whose gradient of X is no parameter's and is passed on as
            it is; or a list of gradients of parameters alone. Weights' are `FactoredGradient`, biases' are (M,).
        max_norm: c, positive.

    Returns:
        The named tuple or a list, weights' gradients factored over the borrowed X and scaled rows of dY.

    Raises:
        OptionError: c is not positive.
        ShapeError: the gradients are over different numbers of examples.
        DataError: no factored gradient, a gradient whose examples are not known, or an example whose norm is not
            finite.
    """
    if not max_norm > 0:
        raise OptionError(f"clip_per_example: max_norm={max_norm!r} is not positive")
    named = hasattr(grads, "_fields")
    entries = list(grads)
    weights = {i: g for i, g in enumerate(entries) if isinstance(g, FactoredGradient)}
    if not weights:
        raise DataError("clip_per_example: no factored gradient among these; pass those of back(dY, factored=True)")
    squared = {i: np.square(g.per_example_norms()) for i, g in weights.items()}
    counts = {g.examples for g in weights.values()}
    if len(counts) > 1:
        raise ShapeError(f"clip_per_example: gradients over different numbers of examples, {sorted(counts)}")
    biases: dict[int, FactoredGradient] = {}
    for i, entry in enumerate(entries):
        if entry is None or i in weights or (named and i == 0):
            continue
        nearest = sorted(weights, key=lambda j: (j > i, abs(i - j)))  # a bias follows its weight
        biases[i] = _bias_gradient(entry, [weights[j] for j in nearest], i)
        squared[i] = np.square(biases[i].per_example_norms())
    norms = np.sqrt(sum(squared.values()))
    if not np.isfinite(norms).all():
        n = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise DataError(f"clip_per_example: the gradient of example {n} has the norm {norms[n]}")
    factors = np.minimum(1.0, max_norm / np.maximum(norms, np.finfo(np.float64).tiny))
    for i, gradient in (weights | biases).items():
        clipped = _scale_examples(gradient, factors)
        entries[i] = np.asarray(clipped)[0] if i in biases else clipped
    return type(grads)._make(entries) if named else entries


def _scale_examples(gradient: FactoredGradient, factors: Array) -> FactoredGradient:
    """Σ_n f_n g_n for N factors: the rows of dY are scaled, X stays borrowed."""
    groups = []
    start = 0
    for group in gradient.groups:
        part = factors[start : start + group[0].examples]
        start += len(part)
        groups.append(tuple(term._replace(right=_times(term.right, term.by_row(part))) for term in group))
    return gradient.with_groups(groups)


def _times(right: Array, factors: Array) -> Array:
    """Rounded once, at the end: a factor alone may be too small for float32."""
    return np.multiply(right, factors, dtype=np.float64).astype(right.dtype)


def _uses(gradient: FactoredGradient) -> list[FactoredGradient]:
    """The gradient split by use, for a tied weight; one entry otherwise."""
    count = min(len(group) for group in gradient.groups)
    return [gradient.with_groups([(group[k],) for group in gradient.groups]) for k in range(count)]


def _of_ones(gradient: FactoredGradient) -> FactoredGradient:
    """The gradient of the 1×M weights of a column of ones: the bias's, over the same dY."""
    groups = [
        tuple(term._replace(left=np.ones((len(term.left), 1), gradient.dtype)) for term in group)
        for group in gradient.groups
    ]
    return gradient.with_groups(groups)


def _bias_gradient(db: Array, owners: Sequence[FactoredGradient], position: int) -> FactoredGradient:
    """``db`` as the gradient of the weights, 1×M, of a column of ones over the retained dY.

    That dY is a factor of one of ``owners``, or of one use of a tied weight: the one whose rows sum to db.
    """
    for owner in owners:
        for use in (owner, *_uses(owner)):
            for side in (use, use.T):  # dY is the left factor where the weight was used transposed
                gradient = _of_ones(side)
                if db.shape == gradient.shape[1:] and _sums_to(gradient, db):
                    return gradient
    raise DataError(
        f"clip_per_example: gradient number {position}, of shape {db.shape}, is that of no bias used once beside these "
        "factored gradients, so its share of each example is not known; pass what back(dY, factored=True) returned"
    )


def _sums_to(gradient: FactoredGradient, db: Array) -> bool:
    """Whether the rows of dY sum to ``db``, up to the rounding of two sums of its entries in other orders."""
    total = np.zeros(gradient.shape[1])
    rounding = np.zeros(gradient.shape[1])
    for scale, left, right, _ in gradient.terms:
        total += scale * np.sum(right, axis=0, dtype=np.float64)
        rounding += abs(scale) * len(left) * np.finfo(db.dtype).eps * np.sum(np.abs(right), axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # what is not finite is said later, with its example
        return not np.any(np.abs(total - db) > rounding)
