"""Functions of one array: relu, tanh, sigmoid, gelu, softmax. Each forward stands directly above its backward.

All take X of any shape (softmax: over the last axis), float32 or float64, and return Y of the same shape and dtype.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core import Array, Layer, ShapeError
from ._operands import check_choice, check_dY, check_floating, over_rows

# --------------------------------------------------------------------------------------------------------------- relu


class ReluSaved(NamedTuple):
    """Y decides where the gradient passes: Y > 0 exactly where X > 0."""

    Y: Array  # (...)


def _relu_forward(X: Any) -> tuple[Array, ReluSaved]:
    """``Y = max(X, 0)``, entry by entry.

    Args:
        X: any shape, float32 or float64; ±inf allowed.

    Returns:
        Y, like X. The gradient at X = 0 is 0, the choice of PyTorch and JAX. ``saved`` holds Y itself: changing Y
        before ``back`` changes the result.

    Raises:
        DtypeError: X is neither float32 nor float64, or dY is not of Y's dtype.
        ShapeError: dY has not Y's shape.

    Source: Nair and Hinton 2010, Rectified linear units improve restricted Boltzmann machines.
    """
    X = check_floating("relu(X)", "X", X)
    Y = np.asarray(np.maximum(X, 0))
    return Y, ReluSaved(Y)


def _relu_backward(dY: Any, saved: ReluSaved) -> Array:
    """``dX = dY [Y > 0]``."""
    (Y,) = saved
    dY = check_dY("relu(X)", dY, Y.shape, Y.dtype)
    return np.where(Y > 0, dY, 0)  # not a product: 0 · inf would be NaN


relu = Layer("relu", "Y[...] = relu(X[...])", _relu_forward, _relu_backward)


# --------------------------------------------------------------------------------------------------------------- tanh


class TanhSaved(NamedTuple):
    """tanh′ is a function of Y alone."""

    Y: Array  # (...)


def _tanh_forward(X: Any) -> tuple[Array, TanhSaved]:
    """``Y = tanh(X)``, entry by entry.

    Args:
        X: any shape, float32 or float64; ±inf allowed.

    Returns:
        Y, like X. ``saved`` holds Y itself: changing Y before ``back`` changes the result.

    Raises:
        DtypeError: X is neither float32 nor float64, or dY is not of Y's dtype.
        ShapeError: dY has not Y's shape.

    Source: LeCun, Bottou, Orr and Müller 1998, Efficient BackProp, section 4.4.
    """
    X = check_floating("tanh(X)", "X", X)
    Y = np.asarray(np.tanh(X))
    return Y, TanhSaved(Y)


def _tanh_backward(dY: Any, saved: TanhSaved) -> Array:
    """``dX = dY (1 − Y²)``."""
    (Y,) = saved
    dY = check_dY("tanh(X)", dY, Y.shape, Y.dtype)
    dX = np.multiply(Y, Y, out=np.empty_like(Y))
    np.subtract(1, dX, out=dX)
    dX *= dY
    return dX


tanh = Layer("tanh", "Y[...] = tanh(X[...])", _tanh_forward, _tanh_backward)


# ------------------------------------------------------------------------------------------------------------ sigmoid


class SigmoidSaved(NamedTuple):
    """The derivative is a function of Y alone."""

    Y: Array  # (...)


def _sigmoid_forward(X: Any) -> tuple[Array, SigmoidSaved]:
    """``Y = 1 / (1 + exp(−X))``, entry by entry, accurate also where it is tiny.

    Args:
        X: any shape, float32 or float64; ±inf allowed.

    Returns:
        Y, like X. ``saved`` holds Y itself: changing Y before ``back`` changes the result.

    Raises:
        DtypeError: X is neither float32 nor float64, or dY is not of Y's dtype.
        ShapeError: dY has not Y's shape.

    Source: Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating errors; computed by
    `scipy.special.expit`.
    """
    from scipy.special import expit  # here, so that `import xwb` does not pay for SciPy

    X = check_floating("sigmoid(X)", "X", X)
    Y = np.asarray(expit(X))
    return Y, SigmoidSaved(Y)


def _sigmoid_backward(dY: Any, saved: SigmoidSaved) -> Array:
    """``dX = dY Y (1 − Y)``."""
    (Y,) = saved
    dY = check_dY("sigmoid(X)", dY, Y.shape, Y.dtype)
    dX = np.subtract(1, Y, out=np.empty_like(Y))
    dX *= Y
    dX *= dY
    return dX


sigmoid = Layer("sigmoid", "Y[...] = sigmoid(X[...])", _sigmoid_forward, _sigmoid_backward)


# --------------------------------------------------------------------------------------------------------------- gelu

# Beyond ±40 the gate is 0 or 1 and flat in float64 as well: exp(−40²/2) = 0. Clipping there keeps X² from overflowing.
_FLAT = 40.0
_SLOPE, _CUBIC = 2 * (2 / np.pi) ** 0.5, 0.044715 * 2 * (2 / np.pi) ** 0.5


def _normal_gate(X: Array, with_slope: bool) -> tuple[Array, Array | None]:
    """``g = Φ(X)``, the normal distribution function, and ``g′ = exp(−X²/2) / √(2π)``."""
    from scipy.special import ndtr

    gate = ndtr(X, out=np.empty_like(X))
    if not with_slope:
        return gate, None
    slope = np.clip(X, -_FLAT, _FLAT, out=np.empty_like(X))
    slope *= slope
    slope *= -0.5
    np.exp(slope, out=slope)
    slope *= (2 * np.pi) ** -0.5
    return gate, slope


def _tanh_gate(X: Array, with_slope: bool) -> tuple[Array, Array | None]:
    """``g = (1 + tanh(u))/2 = σ(2u)`` with ``2u = X (a + c X²)``, and ``g′ = g (1 − g) (a + 3 c X²)``.

    1 + tanh(u) cancels for negative X; σ(2u) is the same number and does not.
    """
    from scipy.special import expit

    X = np.clip(X, -_FLAT, _FLAT, out=np.empty_like(X))
    square = np.multiply(X, X, out=np.empty_like(X))
    square *= _CUBIC
    gate = np.add(square, _SLOPE, out=np.empty_like(X))
    gate *= X
    expit(gate, out=gate)
    if not with_slope:
        return gate, None
    slope = np.multiply(square, 3, out=square)
    slope += _SLOPE
    slope *= gate
    slope *= np.subtract(1, gate, out=X)
    return gate, slope


_GATES = {"none": _normal_gate, "tanh": _tanh_gate}


class GeluSaved(NamedTuple):
    """X is the caller's array, borrowed: the gate is cheaper to compute again than to keep."""

    X: Array  # (...)
    approximate: str


def _gelu_forward(X: Any, *, approximate: str = "none") -> tuple[Array, GeluSaved]:
    """``Y = X Φ(X)``, entry by entry, Φ the normal distribution function: Φ(x) = (1 + erf(x/√2))/2.

    Args:
        X: any shape, float32 or float64; ±inf allowed.
        approximate: ``"none"``, or ``"tanh"`` for (1 + tanh(√(2/π) (x + 0.044715 x³)))/2 in place of Φ(x).

    Returns:
        Y, like X, accurate also in the negative tail. Y is 0 at X = −inf, the limit, where PyTorch returns NaN.
        ``saved`` borrows X: changing X before ``back`` changes the result.

    Raises:
        DtypeError: X is neither float32 nor float64, or dY is not of Y's dtype.
        ShapeError: dY has not Y's shape.
        OptionError: another value of ``approximate``.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; `scipy.special.ndtr`.
    """
    X = check_floating("gelu(X)", "X", X)
    check_choice("gelu(X)", "approximate", approximate, _GATES)
    gate, _ = _GATES[approximate](X, with_slope=False)
    Y = np.maximum(X, np.finfo(X.dtype).min, out=np.empty_like(X))  # −inf · 0 would be NaN
    Y *= gate
    return Y, GeluSaved(X, approximate)


def _gelu_backward(dY: Any, saved: GeluSaved) -> Array:
    """``dX = dY (g + X g′)`` for ``Y = X g(X)``."""
    X, approximate = saved
    dY = check_dY("gelu(X)", dY, X.shape, X.dtype)
    gate, slope = _GATES[approximate](X, with_slope=True)
    assert slope is not None
    slope *= np.clip(X, -_FLAT, _FLAT)
    slope += gate
    slope *= dY
    return slope


gelu = Layer(
    "gelu",
    "Y[...] = 0.5*X[...]*(1 + erf(X[...]/sqrt(2)))",
    _gelu_forward,
    _gelu_backward,
    variants=(
        (
            {"approximate": "tanh"},
            "Y[...] = 0.5*X[...]*(1 + tanh(sqrt(2/3.141592653589793)*(X[...] + 0.044715*X[...]**3)))",
        ),
    ),
)


# ------------------------------------------------------------------------------------------------------------ softmax


class SoftmaxSaved(NamedTuple):
    """The gradient needs the probabilities alone."""

    Y: Array  # (..., K)


def _softmax_forward(X: Any) -> tuple[Array, SoftmaxSaved]:
    """``Y_k = exp(X_k) / Σ_j exp(X_j)`` over the last axis.

    Args:
        X: shape (..., K), float32 or float64. The maximum is subtracted first, so large X are harmless; an X of
            −inf has probability 0. A row that is −inf throughout, or that holds +inf, is NaN, as in PyTorch and JAX.

    Returns:
        Y, like X; each row sums to 1. ``saved`` holds Y itself: changing Y before ``back`` changes the result.

    Raises:
        DtypeError: X is neither float32 nor float64, or dY is not of Y's dtype.
        ShapeError: X has no axis, or dY has not Y's shape.

    Source: Bridle 1990, Probabilistic interpretation of feedforward classification network outputs.
    """
    X = check_floating("softmax(X)", "X", X)
    if X.ndim == 0:
        raise ShapeError("softmax(X): X is a single number, shape (); its last axis is normalised, so it needs one")
    Y = np.empty(X.shape, X.dtype)
    if Y.size:
        rows, out = X.reshape(-1, X.shape[-1]), Y.reshape(-1, X.shape[-1])
        with np.errstate(invalid="ignore"):  # inf − inf in the rows that are NaN
            np.subtract(rows, over_rows(np.maximum, rows)[:, None], out)
        np.exp(out, out=out)
        out /= over_rows(np.add, out)[:, None]
    return Y, SoftmaxSaved(Y)


def _softmax_backward(dY: Any, saved: SoftmaxSaved) -> Array:
    """``dX_k = Y_k (dY_k − Σ_j Y_j dY_j)``."""
    (Y,) = saved
    dY = check_dY("softmax(X)", dY, Y.shape, Y.dtype)
    dX: Array = Y * dY
    np.subtract(dY, np.add.reduce(dX, axis=-1, keepdims=True), out=dX)
    dX *= Y
    return dX


softmax = Layer("softmax", "Y[...,k] = exp(X[...,k]) / sum[j](exp(X[...,j]))", _softmax_forward, _softmax_backward)
