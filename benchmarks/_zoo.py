"""Layers to plant mistakes in: pairs ``forward(*arrays) -> Y``, ``backward(dY, *arrays) -> gradients`` in plain NumPy.

Each is right and keeps its dtype. Beside it stand the mistakes that only this layer can have: backward passes as they
are really got wrong. No axis has two entries, so that a factor 2 is never the size of something.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf, expit

Array = np.ndarray[Any, np.dtype[Any]]
Backward = Callable[..., tuple[Any, ...]]


class Mistake(NamedTuple):
    """A backward pass that is wrong in a way of its layer."""

    kind: str  # the name of a mutation in `_mutations`
    detail: str
    backward: Backward
    also: tuple[str, ...] = ()  # further causes that describe the same numbers


class Layer(NamedTuple):
    """A right pair, arrays to run it on, and its own mistakes. Integer inputs get None for a gradient."""

    name: str
    forward: Callable[..., Any]
    backward: Backward
    operands: Callable[[np.random.Generator, Any], tuple[Array, ...]]
    mistakes: tuple[Mistake, ...] = ()


def normal(*shapes: tuple[int, ...], scale: float = 1.0) -> Callable[[np.random.Generator, Any], tuple[Array, ...]]:
    """Operands of these shapes: ``scale`` times standard normal."""

    def operands(rng: np.random.Generator, dtype: Any) -> tuple[Array, ...]:
        return tuple((scale * rng.standard_normal(shape)).astype(dtype) for shape in shapes)

    return operands


# --- linear: X (N, D), W (D, M), b (M,) ---------------------------------------------------------------------------


def linear(X, W, b):
    return X @ W + b


def linear_backward(dY, X, W, b):
    return dY @ W.T, X.T @ dY, dY.sum(axis=0)


def linear_sizes(N, D, M):
    return Layer(f"linear {N}×{D}×{M}", linear, linear_backward, normal((N, D), (D, M), (M,)))


def small_linear(X, W, b):
    """A linear layer whose inputs are measured in small units, so that dW is small."""
    return X @ W + b


def small_linear_operands(rng, dtype):
    X, W, b = normal((7, 4), (4, 3), (3,))(rng, dtype)
    return (1e-6 * X).astype(dtype), W, b


# --- elementwise --------------------------------------------------------------------------------------------------


def tanh_linear(X, W, b):
    return np.tanh(X @ W + b)


def tanh_linear_backward(dY, X, W, b):
    dZ = dY * (1 - np.tanh(X @ W + b) ** 2)
    return dZ @ W.T, X.T @ dZ, dZ.sum(axis=0)


def tanh_without_slope(dY, X, W, b):
    return dY @ W.T, X.T @ dY, dY.sum(axis=0)


def tanh_without_square(dY, X, W, b):
    dZ = dY * (1 - np.tanh(X @ W + b))
    return dZ @ W.T, X.T @ dZ, dZ.sum(axis=0)


def relu(X):
    return np.maximum(X, 0)


def relu_backward(dY, X):
    return (dY * (X > 0),)


def away_from_zero(rng, dtype):
    """X (6, 7), every entry at least a tenth from relu's kink."""
    X = rng.standard_normal((6, 7))
    return ((X + np.copysign(0.1, X)).astype(dtype),)


def sigmoid(X):
    return expit(X)


def sigmoid_backward(dY, X):
    Y = expit(X)
    return (dY * Y * (1 - Y),)


def gelu(X):
    """Y = X Φ(X)."""
    return X * (1 + erf(X / math.sqrt(2))) / 2


def gelu_backward(dY, X):
    """dX = dY (Φ(X) + X φ(X))."""
    return (dY * ((1 + erf(X / math.sqrt(2))) / 2 + X * np.exp(-X * X / 2) / math.sqrt(2 * math.pi)),)


def gelu_without_density(dY, X):
    return (dY * (1 + erf(X / math.sqrt(2))) / 2,)


# --- linear, relu, linear: X (N, D), W1 (D, H), b1 (H,), W2 (H, M), b2 (M,) ---------------------------------------


def two_layers(X, W1, b1, W2, b2):
    return np.maximum(X @ W1 + b1, 0) @ W2 + b2


def two_layers_from(dY, X, W1, W2, Z, mask):
    """The gradients with ``mask`` (N, H) between the layers, Z (N, H) before relu."""
    H = np.maximum(Z, 0)
    dZ = (dY @ W2.T) * mask
    return dZ @ W1.T, X.T @ dZ, dZ.sum(axis=0), H.T @ dY, dY.sum(axis=0)


def two_layers_backward(dY, X, W1, b1, W2, b2):
    Z = X @ W1 + b1
    return two_layers_from(dY, X, W1, W2, Z, Z > 0)


def two_layers_without_mask(dY, X, W1, b1, W2, b2):
    Z = X @ W1 + b1
    return two_layers_from(dY, X, W1, W2, Z, np.ones_like(Z))


def two_layers_inverted(dY, X, W1, b1, W2, b2):
    Z = X @ W1 + b1
    return two_layers_from(dY, X, W1, W2, Z, Z < 0)


def two_layers_mask_without_bias(dY, X, W1, b1, W2, b2):
    return two_layers_from(dY, X, W1, W2, X @ W1 + b1, X @ W1 > 0)


# --- convolution --------------------------------------------------------------------------------------------------


def windows(X, R, S):
    """(N, C, P, Q, R, S): the patch around every pixel of X (N, C, P, Q), zero beyond the edge."""
    padded = np.pad(X, ((0, 0), (0, 0), (R // 2, R // 2), (S // 2, S // 2)))
    return sliding_window_view(padded, (R, S), axis=(2, 3))


def convolution(X, K):
    """Y[n,o,p,q] = Σ X[n,c,p+r−1,q+s−1] K[o,c,r,s]: X (N, C, P, Q), K (O, C, 3, 3)."""
    return np.einsum("ncpqrs,ocrs->nopq", windows(X, *K.shape[2:]), K)


def convolution_from(dY, X, K, K_back):
    dX = np.einsum("nopqrs,ocrs->ncpq", windows(dY, *K.shape[2:]), K_back)
    return dX, np.einsum("ncpqrs,nopq->ocrs", windows(X, *K.shape[2:]), dY)


def convolution_backward(dY, X, K):
    return convolution_from(dY, X, K, K[:, :, ::-1, ::-1])


def convolution_kernel_kept(dY, X, K):
    return convolution_from(dY, X, K, K)


def convolution_kernel_transposed(dY, X, K):
    return convolution_from(dY, X, K, K[:, :, ::-1, ::-1].swapaxes(2, 3))


def convolution_flipped_kernel_gradient(dY, X, K):
    dX, dK = convolution_backward(dY, X, K)
    return dX, dK[:, :, ::-1, ::-1].copy()


def convolution_edge_shifted(dY, X, K):
    dX, dK = convolution_backward(dY, X, K)
    shifted = np.zeros_like(dX)
    shifted[..., 1:] = dX[..., :-1]
    return shifted, dK


def strided(X, K):
    """Y[n,o,p] = Σ X[n,c,2p+r] K[o,c,r]: X (N, C, L), K (O, C, R)."""
    return np.einsum("ncpr,ocr->nop", sliding_window_view(X, K.shape[2], axis=2)[:, :, ::2], K)


def strided_from(dY, X, K, K_back):
    dX = np.zeros_like(X)
    for r in range(K.shape[2]):
        dX[:, :, r : r + 2 * dY.shape[2] - 1 : 2] += np.einsum("nop,oc->ncp", dY, K_back[:, :, r])
    return dX, np.einsum("ncpr,nop->ocr", sliding_window_view(X, K.shape[2], axis=2)[:, :, ::2], dY)


def strided_backward(dY, X, K):
    return strided_from(dY, X, K, K)


def strided_kernel_flipped(dY, X, K):
    return strided_from(dY, X, K, K[:, :, ::-1])


# --- softmax and what is made of it -------------------------------------------------------------------------------


def softmax(Z):
    E = np.exp(Z - Z.max(axis=-1, keepdims=True))
    return E / E.sum(axis=-1, keepdims=True)


def softmax_backward(dY, Z):
    P = softmax(Z)
    return (P * (dY - (P * dY).sum(axis=-1, keepdims=True)),)


def softmax_diagonal_only(dY, Z):
    """As if the Jacobian were diagonal: P (1 − P)."""
    P = softmax(Z)
    return (P * (1 - P) * dY,)


def softmax_wrong_axis(dY, Z):
    P = softmax(Z)
    return (P * (dY - (P * dY).sum(axis=0, keepdims=True)),)


def softmax_without_factor(dY, Z):
    P = softmax(Z)
    return (dY - (P * dY).sum(axis=-1, keepdims=True),)


def attention(Q, K, V):
    """Q (I, E), K (J, E), V (J, E)."""
    return softmax(Q @ K.T * Q.shape[1] ** -0.5) @ V


def attention_from(dY, Q, K, V, forward_scale, scale, sum_term=True):
    P = softmax(Q @ K.T * forward_scale)
    dP = dY @ V.T
    dS = P * (dP - (P * dP).sum(axis=1, keepdims=True)) * scale if sum_term else P * dP * scale
    return dS @ K, dS.T @ Q, P.T @ dY


def attention_backward(dY, Q, K, V):
    scale = Q.shape[1] ** -0.5
    return attention_from(dY, Q, K, V, scale, scale)


def attention_without_scale(dY, Q, K, V):
    return attention_from(dY, Q, K, V, Q.shape[1] ** -0.5, 1.0)


def attention_without_sum(dY, Q, K, V):
    scale = Q.shape[1] ** -0.5
    return attention_from(dY, Q, K, V, scale, scale, sum_term=False)


def attention_scale_forgotten_in_softmax(dY, Q, K, V):
    return attention_from(dY, Q, K, V, 1.0, Q.shape[1] ** -0.5)


def cross_entropy(Z, y):
    """The mean over n of log Σ exp Z[n] − Z[n,y[n]]: Z (N, M), y (N,) integers."""
    top = Z.max(axis=1)
    return (top + np.log(np.exp(Z - top[:, None]).sum(axis=1)) - Z[np.arange(len(y)), y]).sum() / len(y)


def cross_entropy_from(dY, y, P):
    dZ = P.copy()
    dZ[np.arange(len(y)), y] -= 1
    return dZ * (dY / len(y)), None


def cross_entropy_backward(dY, Z, y):
    return cross_entropy_from(dY, y, softmax(Z))


def cross_entropy_without_softmax(dY, Z, y):
    return cross_entropy_from(dY, y, np.zeros_like(Z))


def cross_entropy_without_target(dY, Z, y):
    return softmax(Z) * (dY / len(y)), None


def cross_entropy_softmax_of_columns(dY, Z, y):
    return cross_entropy_from(dY, y, softmax(Z.T).T)


def cross_entropy_softmax_twice(dY, Z, y):
    return cross_entropy_from(dY, y, softmax(softmax(Z)))


def labelled(rng, dtype):
    """Z (6, 5) and y (6,), integers below 5."""
    return (2 * rng.standard_normal((6, 5))).astype(dtype), rng.integers(0, 5, 6)


# --- other losses -------------------------------------------------------------------------------------------------


def excess(Z, y, margin=1.0):
    """margin + Z[n,m] − Z[n,y[n]], and −∞ for the right class: (N, M)."""
    E = Z - Z[np.arange(len(y)), y][:, None] + margin
    E[np.arange(len(y)), y] = -np.inf
    return E


def hinge(Z, y):
    """Weston and Watkins: the mean over n of the sum over the wrong classes of max(0, 1 + Z[n,m] − Z[n,y[n]])."""
    return np.maximum(excess(Z, y), 0).sum() / len(y)


def hinge_from(dY, y, active):
    dZ = active.copy()
    dZ[np.arange(len(y)), y] -= active.sum(axis=1)
    return dZ * (dY / len(y)), None


def hinge_backward(dY, Z, y):
    return hinge_from(dY, y, (excess(Z, y) > 0).astype(Z.dtype))


def hinge_without_margin(dY, Z, y):
    return hinge_from(dY, y, (excess(Z, y, margin=0.0) > 0).astype(Z.dtype))


def hinge_inverted(dY, Z, y):
    return hinge_from(dY, y, (np.isfinite(E := excess(Z, y)) & (E < 0)).astype(Z.dtype))


def hinge_without_right_class(dY, Z, y):
    return (excess(Z, y) > 0) * (dY / len(y)), None


def hinge_right_class_once(dY, Z, y):
    """−1 for the right class, as the one-against-one hinge has it, not −(number of active classes)."""
    dZ = (excess(Z, y) > 0).astype(Z.dtype)
    dZ[np.arange(len(y)), y] -= dZ.any(axis=1)
    return dZ * (dY / len(y)), None


def squared_error(P, T):
    """The mean over n of Σ (P − T)²: P and T (N, M)."""
    return ((P - T) ** 2).sum() / len(P)


def squared_error_backward(dY, P, T):
    dP = 2 * (P - T) * (dY / len(P))
    return dP, -dP


def squared_error_without_two(dY, P, T):
    dP = (P - T) * (dY / len(P))
    return dP, -dP


def squared_error_without_target(dY, P, T):
    dP = 2 * P * (dY / len(P))
    return dP, -2 * (P - T) * (dY / len(P))


# --- selections and products --------------------------------------------------------------------------------------


def gather(E, i):
    """Y[n] = E[i[n]]: E (V, D), i (N,) integers with repetitions."""
    return E[i]


def gather_backward(dY, E, i):
    dE = np.zeros_like(E)
    np.add.at(dE, i, dY)
    return dE, None


def gather_overwriting(dY, E, i):
    dE = np.zeros_like(E)
    dE[i] = dY
    return dE, None


def gather_next_row(dY, E, i):
    dE = np.zeros_like(E)
    np.add.at(dE, (i + 1) % len(E), dY)
    return dE, None


def looked_up(rng, dtype):
    """E (7, 4) and i (9,): more look-ups than rows, so that some repeat."""
    return rng.standard_normal((7, 4)).astype(dtype), rng.integers(0, 7, 9)


def maximum(X):
    """Y[n] = max over d of X[n,d]."""
    return X.max(axis=1)


def maximum_from(dY, X, chosen):
    dX = np.zeros_like(X)
    dX[np.arange(len(X)), chosen] = dY
    return (dX,)


def maximum_backward(dY, X):
    return maximum_from(dY, X, X.argmax(axis=1))


def maximum_of_minimum(dY, X):
    return maximum_from(dY, X, X.argmin(axis=1))


def maximum_of_size(dY, X):
    return maximum_from(dY, X, np.abs(X).argmax(axis=1))


def maximum_everywhere(dY, X):
    return (np.broadcast_to(dY[:, None], X.shape).astype(X.dtype),)


def product(X):
    """Y[n] = Π over d of X[n,d]."""
    return X.prod(axis=1)


def product_backward(dY, X):
    """dX[n,d] = dY[n] times the product of the others, from both sides, so that zeros do no harm."""
    ones = np.ones_like(X[:, :1])
    before = np.cumprod(np.hstack([ones, X[:, :-1]]), axis=1)
    after = np.cumprod(np.hstack([ones, X[:, :0:-1]]), axis=1)[:, ::-1]
    return (dY[:, None] * before * after,)


def product_of_those_before(dY, X):
    return (dY[:, None] * np.cumprod(np.hstack([np.ones_like(X[:, :1]), X[:, :-1]]), axis=1),)


def product_itself(dY, X):
    return (dY[:, None] * X.prod(axis=1, keepdims=True) * np.ones_like(X),)


def product_divided(dY, X):
    with np.errstate(invalid="ignore", divide="ignore"):
        return (dY[:, None] * X.prod(axis=1, keepdims=True) / X,)


def one_zero(rng, dtype):
    """X (4, 5) with one entry that is exactly zero."""
    X = rng.standard_normal((4, 5))
    X[1, 2] = 0
    return (X.astype(dtype),)


def quadratic(X, A):
    """Y[n] = X[n]ᵀ A X[n]: X (N, D), A (D, D), not symmetric."""
    return ((X @ A) * X).sum(axis=1)


def quadratic_backward(dY, X, A):
    return dY[:, None] * (X @ (A + A.T)), X.T @ (dY[:, None] * X)


def quadratic_without_transpose(dY, X, A):
    return dY[:, None] * (X @ A.T), X.T @ (dY[:, None] * X)


def quadratic_as_if_symmetric(dY, X, A):
    return 2 * dY[:, None] * (X @ A.T), X.T @ (dY[:, None] * X)


def matrix_product(A, B):
    """A (L, K), B (K, M)."""
    return A @ B


def matrix_product_backward(dY, A, B):
    return dY @ B.T, A.T @ dY


def bilinear(X, A, Z):
    """Y[n,o] = X[n]ᵀ A[o] Z[n]: X and Z (N, D), A (O, D, D)."""
    return np.einsum("ni,oij,nj->no", X, A, Z)


def bilinear_backward(dY, X, A, Z):
    dX = np.einsum("no,oij,nj->ni", dY, A, Z)
    dA = np.einsum("no,ni,nj->oij", dY, X, Z)
    return dX, dA, np.einsum("no,ni,oij->nj", dY, X, A)


def bilinear_sides_exchanged(dY, X, A, Z):
    dX, _, dZ = bilinear_backward(dY, X, A, Z)
    return dX, np.einsum("no,ni,nj->oij", dY, Z, X), dZ


def bilinear_transposed_in_dx(dY, X, A, Z):
    dX = np.einsum("no,oji,nj->ni", dY, A, Z)
    return dX, *bilinear_backward(dY, X, A, Z)[1:]


def adapter(X, W, A, B):
    """Y = XW + 3 (XA) B: X (N, D), W (D, M), A (D, R), B (R, M)."""
    return X @ W + 3 * (X @ A) @ B


def adapter_from(dY, X, W, A, B, scale, through_adapter):
    dH = scale * dY @ B.T
    dX = dY @ W.T
    return dX + dH @ A.T if through_adapter else dX, X.T @ dY, X.T @ dH, scale * (X @ A).T @ dY


def adapter_backward(dY, X, W, A, B):
    return adapter_from(dY, X, W, A, B, 3, True)


def adapter_without_scale(dY, X, W, A, B):
    return adapter_from(dY, X, W, A, B, 1, True)


def adapter_one_path(dY, X, W, A, B):
    return adapter_from(dY, X, W, A, B, 3, False)


# --- norms --------------------------------------------------------------------------------------------------------


def normalised(X, axis):
    """(X − mean) / σ along ``axis``, and 1/σ, with σ² the variance + 1e-5."""
    centred = X - X.mean(axis=axis, keepdims=True)
    inverse = 1 / np.sqrt((centred**2).mean(axis=axis, keepdims=True) + 1e-5)
    return centred * inverse, inverse


def norm_backward_along(axis, axis_of_means=None, mean=True, projection=True, divided=True):
    """The backward pass of a norm along ``axis`` with gain and bias (D,); the other arguments leave parts out."""
    means = axis if axis_of_means is None else axis_of_means

    def backward(dY, X, g, b):
        H, inverse = normalised(X, axis)
        dH = dY * g
        dX = dH.copy()
        if mean:
            dX -= dH.mean(axis=means, keepdims=True)
        if projection:
            dX -= H * (dH * H).mean(axis=means, keepdims=True)
        return dX * inverse if divided else dX, (dY * H).sum(axis=0), dY.sum(axis=0)

    return backward


def layer_norm(X, g, b):
    """Each row of X (N, D) normalised; gain and bias (D,)."""
    return normalised(X, 1)[0] * g + b


def batch_norm(X, g, b):
    """Each column of X (N, D) normalised; gain and bias (D,)."""
    return normalised(X, 0)[0] * g + b


def norm_without_gain(axis):
    right = norm_backward_along(axis)

    def backward(dY, X, g, b):
        return right(dY, X, np.ones_like(g), b)[0], *right(dY, X, g, b)[1:]

    return backward


def norm_gain_of_raw_input(axis):
    right = norm_backward_along(axis)

    def backward(dY, X, g, b):
        dX, _, db = right(dY, X, g, b)
        return dX, (dY * X).sum(axis=0), db

    return backward


def norm_mistakes(axis):
    return (
        Mistake("chain-rule factor lost", "not divided by σ", norm_backward_along(axis, divided=False)),
        Mistake("chain-rule factor lost", "dX without the gain", norm_without_gain(axis)),
        Mistake("chain-rule factor lost", "gain's gradient from X, not the normalised X", norm_gain_of_raw_input(axis)),
        Mistake("term lost", "mean and σ as constants", norm_backward_along(axis, mean=False, projection=False)),
        Mistake("term lost", "σ as a constant", norm_backward_along(axis, projection=False)),
        Mistake("term lost", "mean as a constant", norm_backward_along(axis, mean=False)),
        Mistake("wrong axis", "means along the other axis", norm_backward_along(axis, axis_of_means=1 - axis)),
    )


LAYERS = (
    linear_sizes(4, 3, 5),
    linear_sizes(6, 6, 6),
    linear_sizes(32, 48, 24),
    Layer("linear, small units", small_linear, linear_backward, small_linear_operands),
    Layer(
        "tanh of linear",
        tanh_linear,
        tanh_linear_backward,
        normal((5, 4), (4, 3), (3,), scale=0.7),
        (
            Mistake("chain-rule factor lost", "without 1 − Y²", tanh_without_slope),
            Mistake("chain-rule factor lost", "1 − Y for 1 − Y²", tanh_without_square),
        ),
    ),
    Layer(
        "relu",
        relu,
        relu_backward,
        away_from_zero,
        (
            Mistake("chain-rule factor lost", "without the mask", lambda dY, X: (dY.copy(),), ("kink",)),
            Mistake("wrong side of the kink", "mask inverted", lambda dY, X: (dY * (X < 0),)),
            Mistake("kink shifted", "mask X > ½", lambda dY, X: (dY * (X > 0.5),), ("some entries",)),
        ),
    ),
    Layer(
        "linear, relu, linear",
        two_layers,
        two_layers_backward,
        normal((7, 4), (4, 6), (6,), (6, 3), (3,)),
        (
            Mistake("chain-rule factor lost", "without the mask", two_layers_without_mask, ("kink",)),
            Mistake("wrong side of the kink", "mask inverted", two_layers_inverted),
            Mistake("kink shifted", "mask from XW without b", two_layers_mask_without_bias),
        ),
    ),
    Layer(
        "convolution 3×3",
        convolution,
        convolution_backward,
        normal((3, 4, 6, 5), (5, 4, 3, 3)),
        (
            Mistake("flipped", "dX with the kernel not flipped", convolution_kernel_kept),
            Mistake("flipped", "dK flipped", convolution_flipped_kernel_gradient),
            Mistake("transposed", "dX with the kernel transposed", convolution_kernel_transposed),
            Mistake("off by one", "dX shifted, zero at the edge", convolution_edge_shifted),
        ),
    ),
    Layer(
        "convolution, stride 2",
        strided,
        strided_backward,
        normal((3, 4, 9), (5, 4, 3)),
        (Mistake("flipped", "dX with the kernel flipped", strided_kernel_flipped),),
    ),
    Layer(
        "attention",
        attention,
        attention_backward,
        normal((5, 4), (6, 4), (6, 4)),
        (
            Mistake("chain-rule factor lost", "without 1/√E", attention_without_scale, ("constant factor",)),
            Mistake("term lost", "softmax without its sum", attention_without_sum),
            Mistake("chain-rule factor lost", "softmax of unscaled scores", attention_scale_forgotten_in_softmax),
        ),
    ),
    Layer("layer norm", layer_norm, norm_backward_along(1), normal((5, 7), (7,), (7,)), norm_mistakes(1)),
    Layer("batch norm", batch_norm, norm_backward_along(0), normal((8, 5), (5,), (5,)), norm_mistakes(0)),
    Layer(
        "softmax",
        softmax,
        softmax_backward,
        normal((5, 5)),
        (
            Mistake("term lost", "without the sum", lambda dY, Z: (softmax(Z) * dY,)),
            Mistake("term lost", "the Jacobian's diagonal alone", softmax_diagonal_only),
            Mistake("wrong axis", "the sum along the other axis", softmax_wrong_axis),
            Mistake("chain-rule factor lost", "without P in front", softmax_without_factor),
        ),
    ),
    Layer(
        "softmax cross-entropy",
        cross_entropy,
        cross_entropy_backward,
        labelled,
        (
            Mistake("term lost", "without the softmax", cross_entropy_without_softmax),
            Mistake("term lost", "without −1 at the label", cross_entropy_without_target, ("some entries",)),
            Mistake("wrong axis", "softmax of the columns", cross_entropy_softmax_of_columns),
            Mistake("applied twice", "softmax of the softmax", cross_entropy_softmax_twice),
        ),
    ),
    Layer(
        "multiclass hinge",
        hinge,
        hinge_backward,
        labelled,
        (
            Mistake("kink shifted", "without the margin", hinge_without_margin, ("some entries",)),
            Mistake("wrong side of the kink", "the classes within the margin", hinge_inverted),
            Mistake("term lost", "nothing for the right class", hinge_without_right_class, ("some entries",)),
            Mistake("term lost", "−1 for the right class, not −count", hinge_right_class_once, ("some entries",)),
        ),
    ),
    Layer(
        "squared error",
        squared_error,
        squared_error_backward,
        normal((7, 4), (7, 4)),
        (
            Mistake("chain-rule factor lost", "without 2", squared_error_without_two, ("constant factor",)),
            Mistake("term lost", "dP without −T", squared_error_without_target),
        ),
    ),
    Layer(
        "gather",
        gather,
        gather_backward,
        looked_up,
        (
            Mistake("repetitions overwrite", "assigned, not added", gather_overwriting, ("some entries",)),
            Mistake("off by one", "added to the next row", gather_next_row),
        ),
    ),
    Layer(
        "max",
        maximum,
        maximum_backward,
        normal((5, 8)),
        (
            Mistake("wrong side of the kink", "to the smallest entry", maximum_of_minimum),
            Mistake("kink shifted", "to the largest in size", maximum_of_size, ("some entries",)),
            Mistake("chain-rule factor lost", "to every entry", maximum_everywhere, ("kink",)),
        ),
    ),
    Layer(
        "product",
        product,
        product_backward,
        one_zero,
        (
            Mistake("chain-rule factor lost", "the product of those before", product_of_those_before),
            Mistake("chain-rule factor lost", "Y for Y/X", product_itself),
            Mistake("not a number", "Y/X where X is zero", product_divided, ("one entry",)),
        ),
    ),
    Layer(
        "quadratic form",
        quadratic,
        quadratic_backward,
        normal((5, 4), (4, 4)),
        (
            Mistake("term lost", "dX = Ax, without Aᵀx", quadratic_without_transpose),
            Mistake("term lost", "2Ax, as for a symmetric A", quadratic_as_if_symmetric),
        ),
    ),
    Layer(
        "sigmoid",
        sigmoid,
        sigmoid_backward,
        normal((5, 5)),
        (
            Mistake("chain-rule factor lost", "without 1 − Y", lambda dY, X: (dY * expit(X),)),
            Mistake("chain-rule factor lost", "without Y(1 − Y)", lambda dY, X: (dY.copy(),)),
            Mistake("applied twice", "Y taken for X", lambda dY, X: sigmoid_backward(dY, expit(X))),
        ),
    ),
    Layer(
        "gelu",
        gelu,
        gelu_backward,
        normal((4, 6)),
        (Mistake("term lost", "without X φ(X)", gelu_without_density),),
    ),
    Layer("matrix product", matrix_product, matrix_product_backward, normal((4, 6), (6, 5))),
    Layer(
        "bilinear",
        bilinear,
        bilinear_backward,
        normal((5, 4), (3, 4, 4), (5, 4)),
        (
            Mistake("transposed", "dA with X and Z exchanged", bilinear_sides_exchanged),
            Mistake("transposed", "dX with A transposed", bilinear_transposed_in_dx),
        ),
    ),
    Layer(
        "low-rank adapter",
        adapter,
        adapter_backward,
        normal((6, 5), (5, 4), (5, 3), (3, 4)),
        (
            Mistake("chain-rule factor lost", "without the scale 3", adapter_without_scale, ("constant factor",)),
            Mistake("term lost", "dX through W alone", adapter_one_path),
        ),
    ),
)
