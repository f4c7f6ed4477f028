"""Mini-batches: networks, and heads whose loss has kinks, stepped through factored gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, Chain, DivergedError
from ._fit_options import FitOptions
from ._model import network
from ._objective import head_loss
from ._optim import SGD, Adam
from ._rows import Part

MOMENTUM = 0.9  # of sgd


class Epoch(NamedTuple):
    """A network after a pass over the training rows."""

    number: int
    params: list[Array]  # the next epoch may step on them
    loss: float  # the mean over the pass, without the penalty
    whole: bool


class Trainer:
    """Trains ``chain(linear, activation, ..., linear)``; the bias is not decayed unless it is to be penalised.

    Targets that are numbers are learnt as (y − m)/s, so that steps suit whatever they are measured in; the last layer
    of what an epoch gives takes that back, and the decay of the layers before it is λ/s², which leaves the objective as
    it is.

    Args:
        part: the training rows.
        options: decided ones, with a solver of mini-batches.
        outputs: K.
    """

    def __init__(self, part: Part, options: FitOptions, outputs: int) -> None:
        assert options.loss is not None
        assert options.lr is not None
        self.part, self.options = part, options
        self.loss = head_loss(options.loss, options.kind)
        self.sizes = (part.features, *options.hidden, outputs)
        self.net: Chain = network(len(self.sizes) - 1, options.activation)
        self._rng = np.random.default_rng([options.seed, 2])
        self.params: list[Array] = self.net.init(self.sizes, rng=self._rng)
        if not options.hidden:
            self.params = [np.zeros_like(array) for array in self.params]  # convex: nothing to break the symmetry of
        self._lr = options.lr
        self._centre: Array | float = 0.0  # m
        self._spread = 1.0  # s
        if options.loss == "squared_error":
            mean, self._spread = _mean_and_spread(part)
            self._centre = 0.0 if options.penalise_bias else mean
        before, last = options.l2 / self._spread**2, options.l2
        decays = [before, before] * (len(self.params) // 2 - 1) + [last, last]
        self._decays = [decay if i % 2 == 0 or options.penalise_bias else 0.0 for i, decay in enumerate(decays)]

    def _optimizer(self, decay: float) -> SGD | Adam:
        if self.options.solver == "sgd":
            return SGD(self._lr, momentum=MOMENTUM, weight_decay=decay)
        return Adam(self._lr, weight_decay=decay)

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Epoch]:
        """The epochs.

        Raises:
            DivergedError: the loss or a parameter is no longer finite.
        """
        options, params = self.options, self.params
        decays = sorted(set(self._decays))
        optimizers = [self._optimizer(decay) for decay in decays]
        ours = [[p if own == decay else None for p, own in zip(params, self._decays, strict=True)] for decay in decays]
        states: list[Any] = [opt.init(own) for opt, own in zip(optimizers, ours, strict=True)]
        steps = max(1, options.epochs * -(-self.part.rows // options.batch))
        step = 0
        for number in range(1, options.epochs + 1):
            total = weight = 0.0
            whole = True
            for rows in self.part.batches(options.batch, self._rng):
                scores, back = self.net(rows.X, *params)
                w = None if rows.weight is None else rows.weight.astype(scores.dtype)
                y = ((rows.y - self._centre) / self._spread).astype(scores.dtype) if rows.y.ndim > 1 else rows.y
                value, back_loss = self.loss(scores, y, sample_weight=w)
                share = float(len(rows.X)) if w is None else float(w.sum(dtype=np.float64))
                total, weight = total + share * float(value), weight + share
                if not np.isfinite(value):
                    raise self._diverged(number, "loss is")
                grads = back(back_loss(), needs=self.net.params, factored=True)[1:]
                for opt, own, state in zip(optimizers, ours, states, strict=True):
                    opt.lr = self._lr * (1 - step / steps)
                    opt.step(own, grads, state)
                step += 1
                if step < steps and stop():  # after the last step nothing is left to interrupt
                    whole = False
                    break
            found = self._in_units_of_targets(params)
            if not all(np.isfinite(array).all() for array in found):  # no loss has seen the last step
                raise self._diverged(number, "parameters are")
            yield Epoch(number, found, total / weight * self._spread**2 if weight else 0.0, whole)
            if not whole:
                return

    def _in_units_of_targets(self, params: list[Array]) -> list[Array]:
        if self.options.loss != "squared_error":
            return params
        *before, W, b = params
        return [*before, W * np.float32(self._spread), (b * self._spread + self._centre).astype(b.dtype)]

    def _diverged(self, epoch: int, what: str) -> DivergedError:
        return DivergedError(
            f"training diverged in epoch {epoch}: the {what} no longer finite, since the steps are too large; "
            f"try  --lr {self.options.smaller_lr:g}"
        )


def _mean_and_spread(part: Part) -> tuple[Array, float]:
    """The mean (K,) of targets, and the root of their mean variance; 1 where that is 0."""
    first, sums, squares = next(iter(part.blocks())).y[0].copy(), 0.0, 0.0
    for rows in part.blocks():
        weight = np.ones(len(rows.y)) if rows.weight is None else rows.weight
        Y = rows.y - first
        sums, squares = sums + weight @ Y, squares + weight @ (Y * Y)
    mean = np.asarray(sums / part.weight)
    spread = float(np.sqrt(np.mean(np.maximum(squares / part.weight - mean * mean, 0.0))))
    return first + mean, spread or 1.0


def penalty(params: list[Array], options: FitOptions) -> float:
    """λ/2 ‖W‖² over all layers, with the biases where they are penalised."""
    counted = params if options.penalise_bias else params[::2]
    return options.l2 / 2 * sum(float(np.vdot(p, p.astype(np.float64))) for p in counted)


def mean_loss(net: Chain, params: list[Array], part: Part, loss: Callable[..., Any]) -> float:
    """The weighted mean loss over a part, summed in float64."""
    total = 0.0
    for rows in part.blocks():
        X = rows.X.astype(params[0].dtype, copy=False)
        scores = net.forward(X, *params)[0]
        y = rows.y.astype(scores.dtype) if rows.y.ndim > 1 else rows.y
        losses = np.asarray(loss(scores, y, reduction="none")[0], np.float64)
        total += float(losses @ (np.ones(len(X)) if rows.weight is None else rows.weight))
    return total / part.weight
