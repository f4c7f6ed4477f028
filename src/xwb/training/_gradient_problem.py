"""A classifier's whole loss as a function of its parameters, for a check against finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, Layer
from ._classifier import LOSSES, Classifier


class GradientProblem(NamedTuple):
    """What ``xwb.check(layer, *params)`` takes."""

    layer: Layer  # from the parameters to the loss on a batch
    params: list[Array]  # float64: whole, or a vector of the entries that stand for one
    examples: int  # in the batch


def gradient_problem(
    classifier: Classifier,
    X: Array,
    y: Array,
    *,
    seed: int,
    examples: int = 8,
    whole: int = 8192,
    sample: int = 512,
) -> GradientProblem:
    """The loss of ``classifier`` on a batch, in float64, as a function of its parameters.

    The batch is the examples that lie farthest from a kink of relu or hinge, where no derivative exists and a finite
    difference would measure a mixture of two.

    Args:
        classifier: only read; the parameters are copied.
        X, y: features (N, D) and labels (N,) to take the batch from.
        seed: draws the entries of large parameters.
        examples: size of the batch.
        whole: a parameter with more entries than this is represented by ``sample`` of them.
        sample: so many.
    """
    net, loss = classifier.net, LOSSES[classifier.loss]
    params = [array.astype(np.float64) for array in classifier.params]
    X = X.astype(np.float64)
    rows = np.argsort(-_distance_from_kinks(classifier, params, X, y), kind="stable")[:examples]
    X, y = X[rows], y[rows]
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.choice(a.size, sample, False)) if a.size > whole else None for a in params]

    def filled(parts: Sequence[Array]) -> list[Array]:
        whole = [param.copy() for param in params]
        for part, at, param in zip(parts, drawn, whole, strict=True):
            param.flat[slice(None) if at is None else at] = part.ravel()
        return whole

    def forward(*parts: Array) -> Any:
        scores, back = net(X, *filled(parts))
        value, back_loss = loss(scores, y)
        return value, (back, back_loss)

    def backward(dloss: Any, saved: Any) -> list[Array]:
        back, back_loss = saved
        grads = back(back_loss(dloss), needs=net.params)[1:]
        return [grad if at is None else grad.flat[at] for grad, at in zip(grads, drawn, strict=True)]

    layer = Layer(classifier.loss, net.formula, forward, backward, inputs=net.params)
    parts = [a.copy() if at is None else a.flat[at] for a, at in zip(params, drawn, strict=True)]
    return GradientProblem(layer, parts, len(y))


def _distance_from_kinks(classifier: Classifier, params: Sequence[Array], X: Array, y: Array) -> Array:
    """For each example, how far its nearest hidden unit (or hinge) is from where its slope jumps; shape (N,)."""
    distance = np.full(len(X), np.inf)
    for W, b in zip(params[:-2:2], params[1:-2:2], strict=True):
        Z = X @ W + b
        distance = np.minimum(distance, np.abs(Z).min(axis=1))
        X = np.maximum(Z, 0)
    if classifier.loss == "svm":
        scores = X @ params[-2] + params[-1]
        rows = np.arange(len(X))
        violation = 1 + scores - scores[rows, y, None]
        violation[rows, y] = np.inf
        distance = np.minimum(distance, np.abs(violation).min(axis=1))
    return distance
