"""The linear layer against PyTorch, in every shape, stride and dtype it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xwb
from _tolerances import assert_close

DTYPES = [np.float32, np.float64]


def operands(shape, M, dtype, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *size: rng.standard_normal(size).astype(dtype)  # noqa: E731
    return draw(*shape), draw(shape[-1], M), draw(M), draw(*shape[:-1], M)


def torch_linear(X, W, b, dY):
    """Value and gradients by PyTorch's autograd."""
    leaves = [torch.tensor(a, requires_grad=True) for a in (X, W, b) if a is not None]
    Y = leaves[0] @ leaves[1] + (leaves[2] if b is not None else 0)
    Y.backward(torch.tensor(dY))
    grads = [leaf.grad.numpy() for leaf in leaves] + [None] * (b is None)
    return Y.detach().numpy(), grads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3), (1, 3), (0, 3), (3,), (2, 4, 3), (2, 0, 3), (2, 3, 4, 5), (7, 1)])
@pytest.mark.parametrize("M", [1, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_pytorch(shape, M, dtype, bias):
    X, W, b, dY = operands(shape, M, dtype)
    b = b if bias else None
    Y, back = xwb.linear(X, W, b)
    expected_Y, expected = torch_linear(X, W, b, dY)
    assert_close(Y, expected_Y)
    for actual, wanted in zip(back(dY), expected, strict=True):
        if wanted is None:
            assert actual is None
        else:
            assert_close(actual, wanted)


@pytest.mark.parametrize("D", [0, 3])
@pytest.mark.parametrize("M", [0, 2])
def test_no_inputs_or_no_outputs(D, M):
    X, W, b, dY = operands((4, D), M, np.float64)
    Y, back = xwb.linear(X, W, b)
    dX, dW, db = back(dY)
    assert Y.shape == (4, M)
    assert_close(Y, X @ W + b)
    assert_close(dX, dY @ W.T)
    assert_close(dW, X.T @ dY)
    assert_close(db, dY.sum(axis=0))


STRIDES = {
    "C": lambda W: W,
    "F": np.asfortranarray,
    "out-in weight as W.T": lambda W: np.ascontiguousarray(W.T).T,
    "every second row": lambda W: np.repeat(W, 2, axis=0)[::2],
    "every second column": lambda W: np.repeat(W, 2, axis=1)[:, ::2],
    "reversed": lambda W: W[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast": lambda W: np.broadcast_to(W[:1], W.shape),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STRIDES)
def test_any_strides(name, dtype):
    X, W, b, dY = operands((6, 3), 4, dtype)
    for view in STRIDES.values():
        X_view, W_view, dY_view = view(X), STRIDES[name](W), view(dY)
        Y, back = xwb.linear(X_view, W_view, b)
        expected_Y, expected = torch_linear(*(np.array(a) for a in (X_view, W_view, b, dY_view)))
        assert_close(Y, expected_Y)
        for actual, wanted in zip(back(dY_view), expected, strict=True):
            assert_close(actual, wanted)


def test_needs_selects_and_keeps_the_order():
    X, W, b, dY = operands((5, 3), 4, np.float64)
    _, back = xwb.linear(X, W, b)
    grads = back(dY, needs=("b", "X"))
    assert grads._fields == ("X", "W", "b")
    assert grads.W is None
    assert_close(grads.X, dY @ W.T)
    assert_close(grads.b, dY.sum(axis=0))
    assert back(dY, needs="W").X is None
    with pytest.raises(xwb.OptionError, match=r"needs='V': linear\(X, W, b\) has the inputs X, W, b"):
        back(dY, needs=("V",))


def test_the_core_pair_is_the_call():
    X, W, b, dY = operands((5, 3), 4, np.float64)
    Y, saved = xwb.linear.forward(X, W, b)
    assert saved._fields == ("X", "W", "has_b")
    assert sum(a.nbytes for a in saved if isinstance(a, np.ndarray)) == X.nbytes + W.nbytes
    called, back = xwb.linear(X, W, b)
    assert np.array_equal(Y, called)
    for one, other in zip(xwb.linear.backward(dY, saved, needs=("X", "W", "b")), back(dY), strict=True):
        assert np.array_equal(one, other)
    assert xwb.linear.formula == "Y[n,m] = X[n,d] W[d,m] + b[m]"


def test_back_is_linear_repeatable_and_mutates_nothing():
    X, W, b, dY = operands((5, 3), 4, np.float64)
    before = [a.copy() for a in (X, W, b, dY)]
    _, back = xwb.linear(X, W, b)
    first, again, doubled = back(dY), back(dY), back(2 * dY)
    for one, two, three in zip(first, again, doubled, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(2 * one, three)
        assert not np.shares_memory(one, two)
    for array, was in zip((X, W, b, dY), before, strict=True):
        assert np.array_equal(array, was)


def test_saved_borrows_the_callers_arrays():
    X, W, b, dY = operands((5, 3), 4, np.float64)
    _, back = xwb.linear(X, W, b)
    W += 1
    assert_close(back(dY).X, dY @ W.T)
    _, saved = xwb.linear.forward(X, W, b)
    assert saved.X is X
    assert saved.W is W


def test_nan_stays_in_its_row():
    X, W, b, _ = operands((5, 3), 4, np.float64)
    X[2, 1] = np.nan
    Y, _ = xwb.linear(X, W, b)
    assert np.isnan(Y[2]).all()
    assert np.isfinite(np.delete(Y, 2, axis=0)).all()


def ones(*shape, dtype=np.float64):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("X", "W", "b", "words"),
    [
        (ones(32, 64), ones(10, 64), ones(10), ["axis d has two sizes", "d = 64", "d = 10", "pass W.T"]),
        (ones(32, 64), ones(63, 10), ones(10), ["axis d has two sizes", "X  (32, 64)   [n, d]   d = 64"]),
        (ones(32, 64), ones(64, 10), ones(9), ["axis m has two sizes", "m = 10", "m = 9"]),
        (ones(32, 64), ones(64), ones(9), ["W has shape (64,)", "[d, m]"]),
        (np.float64(3.0), ones(64, 2), None, ["X has shape ()", "[..., d]"]),
        (ones(32, 64), ones(64, 10), ones(1, 10), ["b has shape (1, 10)", "[m]"]),
    ],
)
def test_misfits_name_the_fact_the_shapes_and_the_line(X, W, b, words):
    with pytest.raises(xwb.ShapeError) as caught:
        xwb.linear(X, W, b)
    assert isinstance(caught.value, ValueError)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("dtypes", "line"),
    [
        ((np.float32, np.float64, np.float32), "W = W.astype(np.float32)"),
        ((np.int64, np.float64, np.float64), "X = X.astype(np.float64)"),
        (
            (np.int64, np.int64, np.int64),
            "X = X.astype(np.float32); W = W.astype(np.float32); b = b.astype(np.float32)",
        ),
        ((np.float16, np.float16, np.float16), "X = X.astype(np.float32)"),
        ((">f8", "<f8", "<f8"), "X = X.astype(np.float64)"),
    ],
)
def test_dtypes_are_refused_with_the_line_to_type(dtypes, line):
    X, W, b = (a.astype(t) for a, t in zip(operands((5, 3), 4, np.float64), dtypes, strict=False))
    with pytest.raises(xwb.DtypeError) as caught:
        xwb.linear(X, W, b)
    assert isinstance(caught.value, TypeError)
    assert line in str(caught.value)


def test_dY_has_to_be_like_Y():
    X, W, b, dY = operands((5, 3), 4, np.float64)
    _, back = xwb.linear(X, W, b)
    with pytest.raises(xwb.ShapeError, match=r"the shape of Y\n    dY  \(5, 3\)   float64\n    Y   \(5, 4\)   float64"):
        back(dY[:, :3])
    with pytest.raises(xwb.DtypeError, match=r"the dtype of Y[\s\S]*dY = dY.astype\(np.float64\)"):
        back(dY.astype(np.float32))


def test_the_bias_trick():
    X, W, b, _ = operands((5, 3), 4, np.float64)
    Y, _ = xwb.linear(xwb.append_ones(X), xwb.fold_bias(W, b))
    assert_close(Y, X @ W + b)
    assert xwb.append_ones(np.ones((2, 3, 4), np.float32)).shape == (2, 3, 5)
    with pytest.raises(xwb.ShapeError, match="axis m has two sizes"):
        xwb.fold_bias(W, b[:2])


class TestJacobian:
    def test_shape_and_entries(self):
        X, W, b, dY = operands((2, 3), 4, np.float64)
        J = xwb.jacobian(xwb.linear, X, W, b)
        assert J.shape == (2, 4, 2, 3)
        assert_close(np.einsum("nm,nmjd->jd", dY, J), dY @ W.T)
        assert xwb.jacobian(xwb.linear, X, W, b, wrt="W").shape == (2, 4, 3, 4)
        assert xwb.jacobian(xwb.linear, X, W, b, wrt="b").shape == (2, 4, 4)

    @pytest.mark.parametrize("layer", [xwb.relu, xwb.tanh, xwb.sigmoid, xwb.gelu, xwb.softmax])
    def test_of_every_layer_is_that_of_pytorch(self, layer):
        X = np.random.default_rng(0).standard_normal((2, 3))
        function = {"softmax": lambda t: torch.softmax(t, -1), "gelu": torch.nn.functional.gelu}.get(
            layer.name, getattr(torch, layer.name, None)
        )
        expected = torch.autograd.functional.jacobian(function, torch.tensor(X)).numpy()
        assert_close(xwb.jacobian(layer, X), expected)

    def test_of_a_loss_and_of_a_chain(self):
        Z, y = np.random.default_rng(0).standard_normal((3, 4)), np.array([0, 3, 1])
        assert_close(xwb.jacobian(xwb.softmax_cross_entropy, Z, y), xwb.softmax_cross_entropy(Z, y)[1]())
        J = xwb.jacobian(xwb.softmax_cross_entropy, Z, y, reduction="none")
        assert J.shape == (3, 3, 4)
        net = xwb.chain(xwb.linear, xwb.tanh)
        params = net.init((4, 2), rng=0, dtype=np.float64)
        assert xwb.jacobian(net, Z, *params, wrt="W1").shape == (3, 2, 4, 2)

    def test_refuses_what_is_hopeless(self):
        X, W = np.zeros((64, 4096), np.float32), np.zeros((4096, 4096), np.float32)
        with pytest.raises(xwb.XwbError, match=r"68,719,476,736 entries, 256 GiB in float32"):
            xwb.jacobian(xwb.linear, X, W)
        with pytest.raises(xwb.XwbError, match=r"36 entries, 288 bytes.*max_bytes=100"):
            xwb.jacobian(xwb.relu, np.ones((2, 3)), max_bytes=100)

    def test_wants_an_input_with_a_gradient(self):
        with pytest.raises(xwb.OptionError, match="no gradient of 'V'"):
            xwb.jacobian(xwb.linear, ones(2, 3), ones(3, 4), wrt="V")
        with pytest.raises(xwb.OptionError, match="no gradient of 'b'"):
            xwb.jacobian(xwb.linear, ones(2, 3), ones(3, 4), wrt="b")
