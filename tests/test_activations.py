"""relu, tanh, sigmoid, gelu and softmax against PyTorch's autograd, and where the numbers get extreme."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

import xwb
from _tolerances import TOLERANCE, assert_close

DTYPES = [np.float32, np.float64]
GELU_TANH = xwb.gelu.with_options(approximate="tanh")
LAYERS = {
    "relu": (xwb.relu, torch.relu),
    "tanh": (xwb.tanh, torch.tanh),
    "sigmoid": (xwb.sigmoid, torch.sigmoid),
    "gelu": (xwb.gelu, torch.nn.functional.gelu),
    "gelu tanh": (GELU_TANH, lambda X: torch.nn.functional.gelu(X, approximate="tanh")),
    "softmax": (xwb.softmax, lambda X: torch.softmax(X, -1)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def draw(shape, dtype, scale=2.0):
    rng = np.random.default_rng(0)
    return (scale * rng.standard_normal(shape)).astype(dtype), rng.standard_normal(shape).astype(dtype)


def by_torch(function, X, dY):
    leaf = torch.tensor(X, requires_grad=True)
    Y = function(leaf)
    Y.backward(torch.tensor(dY))
    return Y.detach().numpy(), leaf.grad.numpy()


@each_layer
@each_dtype
@pytest.mark.parametrize("shape", [(4, 5), (1, 5), (0, 5), (5,), (2, 3, 5), (3, 0), (4, 1)])
def test_agrees_with_pytorch(name, shape, dtype):
    layer, function = LAYERS[name]
    X, dY = draw(shape, dtype)
    Y, back = layer(X)
    expected_Y, expected_dX = by_torch(function, X, dY)
    assert_close(Y, expected_Y)
    assert_close(back(dY).X, expected_dX)


@each_layer
@each_dtype
def test_views_of_any_strides(name, dtype):
    layer, _ = LAYERS[name]
    X, dY = draw((6, 10), dtype)
    for view in (lambda A: A.T, lambda A: A[::-2, ::2], lambda A: np.broadcast_to(A[:1], A.shape)):
        (Y, back), (expected, expected_back) = layer(view(X)), layer(view(X).copy())
        assert_close(Y, expected)
        assert_close(back(view(dY)).X, expected_back(view(dY).copy()).X)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "softmax"])
def test_a_single_number(name):
    layer, _ = LAYERS[name]
    Y, back = layer(np.asarray(0.3))
    expected, expected_back = layer(np.array([0.3]))
    assert_close(Y, expected[0])
    assert_close(back(np.asarray(2.0)).X, expected_back(np.array([2.0])).X[0])


@each_layer
@each_dtype
def test_extreme_inputs_stay_finite_and_silent(name, dtype):
    """Warnings are errors here; dX is finite for every finite or infinite X."""
    layer, function = LAYERS[name]
    X = np.array([[-np.inf, -1e30, -1e4, -100, 0, 100, 1e4], [0, 1, -1, -np.inf, 1e-30, 5, -5]], dtype)
    Y, back = layer(X)
    dX = back(np.ones_like(X)).X
    assert np.isfinite(Y).all()
    assert np.isfinite(dX).all()
    finite = np.where(np.isfinite(X), X, -1e30).astype(dtype)  # the oracle gives NaN for gelu(−inf)
    expected_Y, expected_dX = by_torch(function, finite, np.ones_like(X))
    assert_close(Y, expected_Y)
    usable = np.isfinite(expected_dX)  # and overflows in gelu′(−1e30)
    assert_close(dX[usable], expected_dX[usable])


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu tanh"])
@each_dtype
def test_plus_infinity_passes(name, dtype):
    Y, back = LAYERS[name][0](np.array([np.inf], dtype))
    assert Y[0] == np.inf
    assert back(np.ones(1, dtype)).X[0] == 1


@each_layer
def test_nan_is_not_hidden(name):
    assert np.isnan(LAYERS[name][0](np.array([np.nan, 1.0]))[0][0])


def exact_gelu(x):
    """Value and derivative; erfc keeps its digits where 1 + erf loses them."""
    gate = 0.5 * math.erfc(-x / math.sqrt(2))
    return x * gate, gate + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def exact_gelu_tanh(x):
    """(1 + tanh u)/2 = 1/(1 + exp(−2u)) in Python's floats."""
    a = 2 * math.sqrt(2 / math.pi)
    gate = 1 / (1 + math.exp(-a * (x + 0.044715 * x**3)))
    other = 1 / (1 + math.exp(a * (x + 0.044715 * x**3)))
    return x * gate, gate + x * gate * other * a * (1 + 3 * 0.044715 * x * x)


def exact_sigmoid(x):
    value = math.exp(x) / (1 + math.exp(x))
    return value, value / (1 + math.exp(x))


TAILS = {
    "sigmoid": (exact_sigmoid, [-80.0, -30.0, -5.0]),
    "gelu": (exact_gelu, [-12.0, -8.0, -3.0]),
    "gelu tanh": (exact_gelu_tanh, [-9.0, -7.0, -3.0]),
}


@pytest.mark.parametrize("name", TAILS)
@each_dtype
def test_the_negative_tail_keeps_its_digits(name, dtype):
    """Each entry relative to itself. exp(−t) turns the rounding of t into an error t times as large: t is below 90."""
    exact, points = TAILS[name]
    X = np.array(points, dtype)
    Y, back = LAYERS[name][0](X)
    values, slopes = np.array([exact(float(x)) for x in X]).T
    allowed = 90 * TOLERANCE[np.dtype(dtype)]
    np.testing.assert_allclose(Y, values, rtol=allowed)
    np.testing.assert_allclose(back(np.ones_like(X)).X, slopes, rtol=allowed)


def test_relu_has_slope_zero_at_zero():
    dX = xwb.relu(np.array([0.0, -0.0, 5e-324]))[1](np.array([1.0, np.inf, 3.0])).X
    assert dX.tolist() == [0.0, 0.0, 3.0]


@each_dtype
def test_softmax_rows(dtype):
    X = np.array([[1e4, 0, -np.inf], [-np.inf, 2, 2], [-np.inf] * 3, [np.inf, 0, 0]], dtype)
    Y, back = xwb.softmax(X)
    assert Y[:2].tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    assert np.isnan(Y[2:]).all()  # as in PyTorch and JAX
    assert np.isfinite(back(np.ones_like(Y)).X[:2]).all()


def test_softmax_ignores_a_constant_and_its_gradient_sums_to_zero():
    X, dY = draw((4, 5), np.float64)
    Y, back = xwb.softmax(X)
    assert_close(xwb.softmax(X + 100.0)[0], Y, times=30)  # X + 100 is rounded itself
    assert np.abs(back(dY).X.sum(-1)).max() <= TOLERANCE[np.dtype(np.float64)]
    assert_close(Y.sum(-1), np.ones(4))


@each_layer
def test_back_is_linear_repeatable_and_mutates_nothing(name):
    layer, _ = LAYERS[name]
    X, dY = draw((3, 4), np.float64)
    before = copy.deepcopy((X, dY))
    Y, back = layer(X)
    value = Y.copy()
    first = back(dY).X
    assert_close(back(-3.0 * dY + X).X, -3.0 * first + back(X).X, times=4)
    assert np.array_equal(back(dY).X, first)
    assert np.array_equal(Y, value)
    for array, kept in zip((X, dY), before, strict=True):
        assert np.array_equal(array, kept)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "softmax"])
def test_saved_is_the_value_alone(name):
    Y, saved = LAYERS[name][0].forward(np.ones((2, 3)))
    assert saved._fields == ("Y",)
    assert saved.Y is Y


def test_gelu_borrows_the_input():
    X = np.ones((2, 3))
    _, saved = xwb.gelu.forward(X)
    assert saved.X is X


@each_layer
def test_changing_what_is_saved_changes_the_result(name):
    """Y, or X for gelu, is not copied: overwritten by those of another call, it gives that call's gradient."""
    layer, _ = LAYERS[name]
    X, dY = draw((3, 4), np.float64)
    other_X = X[::-1].copy()
    Y, back = layer(X)
    other_Y, other_back = layer(other_X)
    before = back(dY).X
    if "gelu" in name:
        X[...] = other_X
    else:
        Y[...] = other_Y
    assert np.array_equal(back(dY).X, other_back(dY).X)
    assert not np.array_equal(back(dY).X, before)


@each_layer
@pytest.mark.parametrize("dtype", [np.int64, np.float16, bool, complex])
def test_other_dtypes_are_refused(name, dtype):
    with pytest.raises(xwb.DtypeError, match=r"neither float32 nor float64[\s\S]*X = X.astype\(np.float32\)"):
        LAYERS[name][0](np.zeros((2, 3), dtype))


@each_layer
def test_dY_must_be_like_Y(name):
    Y, back = LAYERS[name][0](np.ones((2, 3)))
    with pytest.raises(xwb.ShapeError, match=r"the shape of Y\n    dY  \(3,\)     float64\n    Y   \(2, 3\)   float64"):
        back(np.ones(3))
    with pytest.raises(
        xwb.DtypeError,
        match=r"the dtype of Y\n    dY .* float32\n    Y .* float64\n.*type  dY = dY.astype\(np.float64\)",
    ):
        back(Y.astype(np.float32))


def test_options_and_axes():
    with pytest.raises(xwb.OptionError, match="approximate='erf' is none of 'none', 'tanh'"):
        xwb.gelu(np.ones(3), approximate="erf")
    with pytest.raises(xwb.ShapeError, match="single number"):
        xwb.softmax(np.asarray(1.0))
