"""A classifier's whole loss as a function of its parameters, for a check against finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, Layer
from ._classifier import LOSSES, Classifier

ENTRIES_READ = 2**29  # by the check of one parameter, about: its sample times the entries of the net


class GradientProblem(NamedTuple):
    """What ``xwb.check(layer, *params, conduct=False)`` takes: sampled parameters are shared between its calls."""

    layer: Layer  # from the parameters to the loss on a batch
    params: list[Array]  # float64: each whole, or a vector of the entries that stand for it
    examples: int  # in the batch


def gradient_problem(
    classifier: Classifier,
    X: Array,
    y: Array,
    *,
    seed: int,
    examples: int = 8,
    whole: int = 20_000,
    sample: int = 512,
) -> GradientProblem:
    """The loss of ``classifier`` on a batch, in float64, as a function of its parameters.

    The batch is the examples that lie farthest from a kink of relu or hinge, where no derivative exists and a finite
    difference would measure a mixture of two.

    Args:
        classifier: only read; the parameters are copied.
        X, y: features (N, D) and labels (N,) to take the batch from.
        seed: moves the biases, and draws the entries of large parameters.
        examples: size of the batch.
        whole: of a net with more entries than this, each parameter is represented by ``sample`` of its own.
        sample: so many; fewer in a net so large that they would take long.
    """
    net, loss = classifier.net, LOSSES[classifier.loss]
    params = [array.astype(np.float64) for array in classifier.params]
    rng = np.random.default_rng(seed)
    for b in params[1::2]:  # fresh biases are 0, which puts every unit above a dead layer right on relu's kink
        b += 0.1 * rng.standard_normal(b.shape)
    X = X.astype(np.float64)
    rows = np.argsort(-_distance_from_kinks(classifier, params, X, y), kind="stable")[:examples]
    X, y = X[rows], y[rows]
    entries = sum(a.size for a in params)
    most = max(1, min(sample, ENTRIES_READ // entries)) if entries > whole else entries
    drawn = [np.sort(rng.choice(a.size, most, False)) if a.size > most else None for a in params]

    def run(parts: Sequence[Array]) -> Any:
        """The loss and the two steps back; sampled ``params`` are written over, for a copy of a wide net takes long."""
        given = list(parts)
        for i, at in enumerate(drawn):
            if at is not None:
                params[i].flat[at] = parts[i]
                given[i] = params[i]
        scores, back = net(X, *given)
        value, back_loss = loss(scores, y)
        return value, back, back_loss

    def forward(*parts: Array) -> Any:
        return run(parts)[0], parts

    def backward(dloss: Any, parts: Sequence[Array]) -> list[Array]:
        _, back, back_loss = run(parts)
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
