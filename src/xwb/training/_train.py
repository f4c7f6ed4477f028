"""The loop: forward, loss, backward, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError, DivergedError, Layer, OptionError, ShapeError
from ._optim import Optimizer


class StepRecord(NamedTuple):
    """What one step did."""

    step: int  # counted from 1 over all epochs
    epoch: int  # counted from 1
    loss: float  # of the batch, before the step
    examples: int  # rows in the batch
    epoch_end: bool


def train(
    net: Layer,
    params: Sequence[Array],
    X: Array,
    y: Array,
    *,
    loss: Callable[[Array, Array], tuple[Any, Callable[[], Array]]],
    optimizer: Optimizer,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator | int,
    shuffle: bool = True,
    state: Any = None,
) -> Iterator[StepRecord]:
    """Train ``params`` in place and yield a record after each step; stop with ``break``.

    Args:
        net: a layer or chain with inputs (X, *params).
        params: the arrays to step, in the order of ``net.params``.
        X: (N, ...), the dtype of the parameters.
        y: (N, ...), whatever the loss takes.
        loss: ``loss(Y, y) -> (value, back)``, such as `softmax_cross_entropy`.
        optimizer: `SGD`, `Adam`, `AdamW`, or what has their ``init`` and ``step``.
        epochs: passes over the N examples.
        batch_size: examples per step; the last batch of an epoch may have fewer.
        rng: generator or seed of the order of the examples, drawn anew for each epoch.
        shuffle: False takes the examples as they come.
        state: the optimizer's, to go on from; by default a fresh one.

    Raises:
        ShapeError, DataError, OptionError: before the first step, if the arguments do not fit together.
        DivergedError: the loss of a batch is not finite; the parameters are as after the step before.
    """
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y):
        raise ShapeError(f"train: X has shape {X.shape} and y {y.shape}; both start with the N examples")
    if len(X) == 0:
        raise DataError("train: X and y have no examples")
    if len(params) != len(net.params):
        raise ShapeError(f"train: {net.call} has the parameters {', '.join(net.params)}; got {len(params)} arrays")
    if epochs < 0:
        raise OptionError(f"train: epochs={epochs} is negative")
    if batch_size < 1:
        raise OptionError(f"train: batch_size={batch_size} is below 1")
    generator = np.random.default_rng(rng)
    state = optimizer.init(params) if state is None else state
    N = len(X)

    def steps() -> Iterator[StepRecord]:
        step = 0
        for epoch in range(1, epochs + 1):
            order = generator.permutation(N) if shuffle else np.arange(N)
            for start in range(0, N, batch_size):
                rows = order[start : start + batch_size]
                Y, back = net(X[rows], *params)
                value, loss_back = loss(Y, y[rows])
                step += 1
                if np.ndim(value) != 0:
                    raise OptionError(f"train: the loss has shape {np.shape(value)}, and one number is stepped along")
                if not math.isfinite(value):
                    raise DivergedError(
                        f"train: the loss is {value} at step {step} (epoch {epoch}); the parameters are those before "
                        "it. Lower the learning rate, or look for values that are not finite in X"
                    )
                _, *grads = back(loss_back(), needs=net.params, factored=True)
                optimizer.step(params, grads, state)
                yield StepRecord(step, epoch, float(value), len(rows), start + batch_size >= N)

    return steps()
