"""Optimizers that step arrays in place, through factored gradients where they are factored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..core import Array, DataError, FactoredGradient, OptionError, ShapeError, add_scaled, refuse_unwritable

Gradient = Array | FactoredGradient
Params = Sequence[Array | None]
Gradients = Sequence[Gradient | None]


def global_norm(grads: Gradients) -> float:
    """√Σ‖g‖² over all gradients, in float64, forming none of the factored ones; None counts nothing."""
    squares = (
        g.norm() ** 2 if isinstance(g, FactoredGradient) else float(np.sum(np.square(g, dtype=np.float64)))
        for g in grads
        if g is not None
    )
    return math.sqrt(sum(squares))


def _add(out: Array, alpha: float, grad: Gradient, beta: float = 1.0) -> None:
    """``out ← beta · out + alpha · grad`` in place."""
    if isinstance(grad, FactoredGradient):
        grad.add_into(out, alpha, beta)
        return
    if beta != 1.0:
        out *= beta
    if out.dtype == grad.dtype:
        add_scaled(out, alpha, grad)
    else:
        out += alpha * grad


def _borrows(grad: Gradient, param: Array) -> bool:
    return grad.borrows(param) if isinstance(grad, FactoredGradient) else np.may_share_memory(grad, param)


def _check_state(params: Params, *parts: Sequence[Array | None]) -> None:
    """Raise `ShapeError` or `ValueError` unless each part of a state has a writable array like each parameter."""
    for part in parts:
        if len(part) != len(params):
            raise ShapeError(
                f"step: the state is of {len(part)} parameters, and there are {len(params)}; state = opt.init(params)"
            )
        for i, (param, array) in enumerate(zip(params, part, strict=True)):
            if array is not None and (param is None or array.shape != param.shape):
                raise ShapeError(f"step: the state of parameter {i} has another shape; state = opt.init(params)")
            if array is not None:
                refuse_unwritable(array, array.dtype)


class Optimizer(Protocol):
    """What `train` asks of an optimizer."""

    def init(self, params: Params) -> Any:
        """The state before the first step."""

    def step(self, params: Params, grads: Gradients, state: Any) -> None:
        """One step, written into the arrays of ``params`` and ``state``."""


@dataclass
class _Optimizer:
    """What the optimizers share: the learning rate, decay, clipping, and the checks before anything is written."""

    lr: float

    def _check(self, **positive_or_zero: float | None) -> None:
        for name, value in positive_or_zero.items():
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise OptionError(f"{type(self).__name__}: {name}={value!r} is no finite number from 0 on")

    def _pairs(
        self, params: Params, grads: Gradients, max_norm: float | None
    ) -> tuple[list[tuple[int, Array, Gradient]], float]:
        """The (position, parameter, gradient) to step and the clipping factor; nothing has been written yet.

        Raises:
            ShapeError, ValueError, TypeError: a gradient does not fit its parameter, or that cannot be written.
            DataError: the norm that clipping needs is not finite.
        """
        if len(params) != len(grads):
            raise ShapeError(
                f"step: {len(params)} parameters and {len(grads)} gradients; pass one each, None to leave one"
            )
        pairs = [
            (i, p, g) for i, (p, g) in enumerate(zip(params, grads, strict=True)) if p is not None and g is not None
        ]
        for i, param, grad in pairs:
            if param.shape != grad.shape:
                raise ShapeError(f"step: parameter {i} has shape {param.shape}, its gradient {grad.shape}")
            refuse_unwritable(param, grad.dtype)
            if param.dtype.kind != "f":
                raise TypeError(f"step: parameter {i} is {param.dtype}; only floating parameters can be stepped")
        # A gradient that borrows a parameter must not see that one's step.
        pairs = [(i, p, g.copy() if any(_borrows(g, q) for _, q, _ in pairs) else g) for i, p, g in pairs]
        if max_norm is None:
            return pairs, 1.0
        norm = global_norm([g for _, _, g in pairs])
        if not math.isfinite(norm):
            raise DataError(f"step: the norm of the gradient is {norm}, nothing was stepped; lower the learning rate")
        return pairs, min(1.0, max_norm / (norm + 1e-6))


class SGDState(NamedTuple):
    """One velocity per parameter; none without momentum."""

    velocity: list[Array | None]


@dataclass
class SGD(_Optimizer):
    """Gradient descent: ``W ← W − lr · dW``, a factored dW going into W by one BLAS call.

    Args:
        lr: the learning rate; may be changed between steps.
        momentum: μ of ``V ← μ V + dW; W ← W − lr · V`` (PyTorch's form, without dampening).
        nesterov: ``W ← W − lr (dW + μ V)`` instead.
        weight_decay: λ; ``dW + λ W`` in the place of dW (coupled), of every parameter.
        decoupled: decay outside the gradient instead: ``W ← (1 − lr λ) W − …`` (Loshchilov and Hutter,
            arXiv:1711.05101).
        max_norm: clip the global norm of all gradients, before decay: ``dW · min(1, c / (norm + 1e-6))`` as PyTorch's
            ``clip_grad_norm_``.

    ::

        state = opt.init(params)
        opt.step(params, grads, state)     # writes into the arrays of params and state

    Raises:
        OptionError: a negative or non-finite number, or Nesterov without momentum.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decoupled: bool = False
    max_norm: float | None = None

    def __post_init__(self) -> None:
        self._check(lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, max_norm=self.max_norm)
        if self.nesterov and not self.momentum:
            raise OptionError("SGD: nesterov=True looks ahead along the velocity; give it a momentum, such as 0.9")

    def init(self, params: Params) -> SGDState:
        """The state before the first step: zeros like the parameters, if there is momentum."""
        return SGDState([None if p is None or not self.momentum else np.zeros_like(p) for p in params])

    def step(self, params: Params, grads: Gradients, state: SGDState) -> None:
        """One step, written into the arrays of ``params`` and ``state``; where a gradient is None nothing changes.

        Raises:
            ShapeError, ValueError, TypeError: a gradient does not fit its parameter, or that cannot be written.
            DataError: the norm that clipping needs is not finite.

        Nothing has been written then.
        """
        pairs, clip = self._pairs(params, grads, self.max_norm)
        _check_state(params, state.velocity)
        if self.momentum and any(state.velocity[i] is None for i, _, _ in pairs):
            raise OptionError("SGD: the state has no velocity, and there is momentum; state = opt.init(params)")
        shrink = 1.0 - self.lr * self.weight_decay
        for i, W, dW in pairs:
            V = state.velocity[i]
            if V is None:
                _add(W, -self.lr * clip, dW, shrink)  # coupled and decoupled decay are one without a velocity
                continue
            _add(V, clip, dW, self.momentum)
            coupled = self.weight_decay and not self.decoupled
            if coupled:
                add_scaled(V, self.weight_decay, W)
            if self.nesterov:
                _add(W, -self.lr * clip, dW, shrink)
                add_scaled(W, -self.lr * self.momentum, V)
            else:
                if self.weight_decay and self.decoupled:
                    W *= shrink
                add_scaled(W, -self.lr, V)


class AdamState(NamedTuple):
    """Steps taken by each parameter (integers), and its first and second moments."""

    steps: Array
    first: list[Array | None]
    second: list[Array | None]


@dataclass
class Adam(_Optimizer):
    """Adam (Kingma and Ba, arXiv:1412.6980), in PyTorch's form. Forms a factored dW, one parameter at a time.

    Args:
        lr: the learning rate; may be changed between steps.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: λ, coupled: ``dW + λ W``. For decoupled decay take `AdamW`.
        max_norm: clip the global norm of all gradients, as `SGD` does.

    Raises:
        OptionError: a number out of its range.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_norm: float | None = None
    _decoupled = False

    def __post_init__(self) -> None:
        self._check(lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, max_norm=self.max_norm)
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= beta < 1:
                raise OptionError(f"{type(self).__name__}: {name}={beta!r} is not in [0, 1)")

    def init(self, params: Params) -> AdamState:
        """The state before the first step: no steps taken, zeros like the parameters."""
        first, second = ([None if p is None else np.zeros_like(p) for p in params] for _ in range(2))
        return AdamState(np.zeros(len(params), np.int64), first, second)

    def step(self, params: Params, grads: Gradients, state: AdamState) -> None:
        """One step, written into the arrays of ``params`` and ``state``; where a gradient is None nothing changes.

        Raises:
            ShapeError, ValueError, TypeError: a gradient does not fit its parameter, or that cannot be written.
            DataError: the norm that clipping needs is not finite.

        Nothing has been written then.
        """
        pairs, clip = self._pairs(params, grads, self.max_norm)
        _check_state(params, state.first, state.second)
        for i, W, grad in pairs:
            state.steps[i] += 1
            first_bias, second_bias = (1.0 - beta ** int(state.steps[i]) for beta in (self.beta1, self.beta2))
            first, second = state.first[i], state.second[i]
            assert first is not None
            assert second is not None
            dW = np.array(grad, W.dtype)  # the one dense gradient, ours to overwrite
            if clip != 1.0:
                dW *= clip
            if self.weight_decay and self._decoupled:
                W *= 1.0 - self.lr * self.weight_decay
            elif self.weight_decay:
                dW += self.weight_decay * W
            first *= self.beta1
            first += (1.0 - self.beta1) * dW
            second *= self.beta2
            np.square(dW, out=dW)
            dW *= 1.0 - self.beta2
            second += dW
            denominator = np.sqrt(second, out=dW)
            denominator /= math.sqrt(second_bias)
            denominator += self.eps
            update = np.divide(first, denominator, out=denominator)
            update *= self.lr / first_bias
            W -= update


@dataclass
class AdamW(Adam):
    """Adam with decoupled decay, ``W ← (1 − lr λ) W`` before the step (Loshchilov and Hutter, arXiv:1711.05101).

    Arguments as `Adam`; ``weight_decay`` is 0.01 by default, as in PyTorch.
    """

    weight_decay: float = 0.01
    _decoupled = True
