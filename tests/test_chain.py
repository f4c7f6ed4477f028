"""Chains: again layers, with names, ties, needs and fresh parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xwb
from _tolerances import assert_close

rng = np.random.default_rng(0)


def test_names_and_formula():
    net = xwb.chain(xwb.linear, xwb.relu, xwb.linear)
    assert net.inputs == ("X", "W1", "b1", "W2", "b2")
    assert net.params == ("W1", "b1", "W2", "b2")
    assert net.formula == (
        "H1[n,m] = X[n,d] W1[d,m] + b1[m]; H2[...] = relu(H1[...]); Y[n,m] = H2[n,d] W2[d,m] + b2[m]"
    )
    assert isinstance(net, xwb.Layer)
    nested = xwb.chain(xwb.chain(xwb.linear, xwb.relu), xwb.chain(xwb.linear))
    assert nested.inputs == net.inputs
    assert nested.formula == net.formula


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 3), (0, 3), (1, 3), (2, 4, 3), (3,)])
def test_agrees_with_pytorch(shape, dtype):
    net = xwb.chain(xwb.linear, xwb.tanh, xwb.linear, xwb.gelu.with_options(approximate="tanh"))
    params = net.init((3, 6, 2), rng=1, dtype=dtype)
    X, dY = rng.standard_normal(shape).astype(dtype), rng.standard_normal((*shape[:-1], 2)).astype(dtype)
    leaves = [torch.tensor(a, requires_grad=True) for a in (X, *params)]
    x, W1, b1, W2, b2 = leaves
    value = torch.nn.functional.gelu(torch.tanh(x @ W1 + b1) @ W2 + b2, approximate="tanh")
    value.backward(torch.tensor(dY))
    Y, back = net(X, *params)
    assert_close(Y, value.detach().numpy())
    for actual, leaf in zip(back(dY), leaves, strict=True):
        assert_close(actual, leaf.grad.numpy())
    for actual, leaf in zip(back(dY, factored=True), leaves, strict=True):
        assert_close(np.asarray(actual), leaf.grad.numpy())


def test_needs_skips_what_nobody_asked_for():
    calls = []

    def forward(X):
        return X.copy(), None

    def backward(dY, saved):
        calls.append("backward")
        return dY

    probe = xwb.Layer("probe", "Y[...] = X[...]", forward, backward)
    net = xwb.chain(probe, xwb.linear, xwb.tanh, xwb.linear)
    params = net.init((3, 4, 2), rng=0)
    _, back = net(np.ones((5, 3), np.float32), *params)
    dY = np.ones((5, 2), np.float32)
    everything = back(dY)
    assert calls == ["backward"]
    only = back(dY, needs=net.params)
    assert calls == ["backward"]
    assert only.X is None
    for name in net.params:
        assert np.array_equal(getattr(only, name), getattr(everything, name))
    last = back(dY, needs=("b2",))
    assert [g is None for g in last] == [True, True, True, True, False]
    assert all(g is None for g in back(dY, needs=()))
    assert np.array_equal(back(dY, needs="X").X, everything.X)


@pytest.mark.parametrize(("tie", "sizes"), [("W1", (3, 3, 3)), ("W1.T", (3, 5, 3))])
@pytest.mark.parametrize("factored", [True, False])
def test_a_weight_used_twice(tie, sizes, factored):
    net = xwb.chain(xwb.linear, xwb.sigmoid, xwb.linear, tie={"W2": tie})
    assert net.inputs == ("X", "W1", "b1", "b2")
    W, b1, b2 = net.init(sizes, rng=0, dtype=np.float64)
    X, dY = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    leaves = [torch.tensor(a, requires_grad=True) for a in (X, W, b1, b2)]
    x, w, c1, c2 = leaves
    (torch.sigmoid(x @ w + c1) @ (w.T if tie.endswith("T") else w) + c2).backward(torch.tensor(dY))
    _, back = net(X, W, b1, b2)
    grads = back(dY, factored=factored)
    for actual, leaf in zip(grads, leaves, strict=True):
        assert_close(np.asarray(actual), leaf.grad.numpy())
    if factored:
        assert grads.W1.examples == 4
    assert "W1[m,d]" in net.formula if tie.endswith("T") else net.formula.count("W1[d,m]") == 2


def test_ties_inside_a_nested_chain_stay():
    inner = xwb.chain(xwb.linear, xwb.tanh, xwb.linear, tie={"W2": "W1.T"})
    net = xwb.chain(xwb.linear, inner)
    assert net.inputs == ("X", "W1", "b1", "W2", "b2", "b3")
    params = net.init((3, 4, 5, 4), rng=0, dtype=np.float64)
    report = xwb.check(net, rng.standard_normal((2, 3)), *params)
    assert report.ok, report


def test_ties_of_nested_chains_transpose_twice():
    inner = xwb.chain(xwb.linear, xwb.linear, tie={"W2": "W1.T"})
    net = xwb.chain(xwb.linear, inner, tie={"W2": "W1.T"})
    assert net.inputs == ("X", "W1", "b1", "b2", "b3")
    assert "H2[n,d] W1[d,m]" in net.formula
    report = xwb.check(net, rng.standard_normal((2, 3)), *net.init((3, 4, 3, 4), rng=0, dtype=np.float64))
    assert report.ok, report


def test_a_tied_weight_whose_uses_count_other_examples_is_dense():
    flatten = xwb.Layer(
        "flatten", "Y[...] = X[...]", lambda X: (X.reshape(-1, 3), X.shape), lambda dY, shape: dY.reshape(shape)
    )
    net = xwb.chain(xwb.linear, flatten, xwb.linear, tie={"W2": "W1"})
    params = [rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(3)]
    X, dY = rng.standard_normal((2, 4, 3)), rng.standard_normal((8, 3))
    _, back = net(X, *params)
    for one, other in zip(back(dY), back(dY, factored=True), strict=True):
        assert_close(np.asarray(other), one)


def test_the_same_array_passed_twice_has_two_gradients():
    net = xwb.chain(xwb.linear, xwb.linear)
    W, b = rng.standard_normal((3, 3)), np.zeros(3)
    tied = xwb.chain(xwb.linear, xwb.linear, tie={"W2": "W1", "b2": "b1"})
    X, dY = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    apart, together = net(X, W, b, W, b)[1](dY), tied(X, W, b)[1](dY)
    assert_close(apart.W1 + apart.W2, together.W1)
    assert_close(apart.b1 + apart.b2, together.b1)


def test_init_scales_follow_the_activation():
    net = xwb.chain(xwb.linear, xwb.relu, xwb.linear, xwb.tanh, xwb.linear)
    W1, b1, W2, b2, W3, _ = net.init((400, 300, 200, 100), rng=np.random.default_rng(0))
    assert [a.dtype for a in (W1, b1)] == [np.float32] * 2
    assert (b1 == 0).all()
    assert (b2 == 0).all()
    assert W1.std() == pytest.approx(np.sqrt(2 / 400), rel=0.01)  # He
    assert W2.std() == pytest.approx(np.sqrt(2 / (300 + 200)), rel=0.01)  # Glorot
    assert np.abs(W3).max() <= np.sqrt(6 / (200 + 100))
    again = net.init((400, 300, 200, 100), rng=0)
    assert np.array_equal(W1, again[0])
    assert xwb.relu.init((), rng=0) == []
    before_relu = xwb.chain(xwb.linear).init((400, 300), rng=0, then="relu")[0]
    assert before_relu.std() == pytest.approx(np.sqrt(2 / 400), rel=0.01)
    W, b = xwb.linear.init((3, 2), rng=0, dtype=np.float64)
    assert (W.shape, b.shape, W.dtype) == ((3, 2), (2,), np.dtype(np.float64))


def test_init_says_what_it_needs():
    net = xwb.chain(xwb.linear, xwb.relu, xwb.linear)
    with pytest.raises(xwb.ShapeError, match="need 3 sizes"):
        net.init((64, 10), rng=0)
    with pytest.raises(xwb.ShapeError, match="needs two sizes"):
        xwb.linear.init((64,), rng=0)
    with pytest.raises(xwb.DtypeError, match="neither float32 nor float64"):
        net.init((64, 32, 10), rng=0, dtype=int)
    tied = xwb.chain(xwb.linear, xwb.linear, tie={"W2": "W1"})
    with pytest.raises(xwb.ShapeError, match="tied weight W1"):
        tied.init((3, 4, 5), rng=0)
    scale = xwb.Layer("scale", "Y[n] = X[n] g[n]", lambda X, g: (X * g, (X, g)), lambda dY, s: (dY * s[1], dY * s[0]))
    with pytest.raises(xwb.XwbError, match=r"scale\(X, g\) does not say how g start"):
        xwb.chain(xwb.linear, scale).init((3, 4, 4), rng=0)


def test_a_layer_may_be_called_anything():
    odd = xwb.Layer("my-layer", "Y[...] = X[...]", lambda X: (X, None), lambda dY, saved: dY)
    assert odd(np.ones(3))[1](np.ones(3))._fields == ("X",)
    assert xwb.chain(odd, odd)(np.ones(3))[1](np.ones(3)).X.shape == (3,)


def test_errors_name_the_step():
    net = xwb.chain(xwb.linear, xwb.relu, xwb.linear)
    W1, b1, _, b2 = net.init((3, 4, 2), rng=0)
    with pytest.raises(xwb.ShapeError, match=r"(?s)step 3 of 3, linear\(W2, b2\).*axis d has two sizes"):
        net(np.ones((5, 3), np.float32), W1, b1, np.ones((5, 2), np.float32), b2)
    with pytest.raises(xwb.ShapeError, match="takes 5 arrays and got 2"):
        net(np.ones((5, 3), np.float32), W1)
    with pytest.raises(xwb.ShapeError, match=r"dY must have the shape of Y"):
        net(np.ones((5, 3), np.float32), *net.init((3, 4, 2), rng=0))[1](np.ones((5, 3), np.float32))
    with pytest.raises(xwb.OptionError, match="at least one layer"):
        xwb.chain()
    with pytest.raises(xwb.OptionError, match="takes layers"):
        xwb.chain(xwb.linear, np.tanh)
    with pytest.raises(xwb.OptionError, match="takes layers"):
        xwb.chain(xwb.linear, xwb.softmax_cross_entropy)
    with pytest.raises(xwb.OptionError, match="no parameter W3"):
        xwb.chain(xwb.linear, tie={"W3": "W1"})
    with pytest.raises(xwb.OptionError, match="no earlier parameter"):
        xwb.chain(xwb.linear, xwb.linear, tie={"W1": "W2"})
    with pytest.raises(xwb.OptionError, match="no earlier parameter"):
        xwb.chain(xwb.linear, tie={"W1": "W1.T"})
    with pytest.raises(xwb.OptionError, match="no option 'aproximate'"):
        xwb.gelu.with_options(aproximate="tanh")


def test_absent_bias():
    net = xwb.chain(xwb.linear, xwb.relu, xwb.linear)
    W1, _, W2, b2 = net.init((3, 4, 2), rng=0)
    Y, back = net(np.ones((5, 3), np.float32), W1, None, W2, b2)
    assert back(np.ones_like(Y)).b1 is None


class TestYourOwnLayer:
    def test_a_plain_backward_gets_needs_and_names(self):
        def forward(X, g, *, power=1):
            return X * g**power, (X, g, power)

        def backward(dY, saved):
            X, g, power = saved
            return dY * g**power, (dY * X).sum(0) * power * g ** (power - 1)

        scale = xwb.Layer(
            "scale", "Y[n,m] = X[n,m] g[m]", forward, backward, [({"power": 2}, "Y[n,m] = X[n,m] g[m]**2")]
        )
        assert (scale.inputs, scale.params, scale.options) == (("X", "g"), ("g",), {"power": 1})
        X, g = rng.standard_normal((4, 3)), rng.standard_normal(3)
        assert xwb.check(scale, X, g, power=2).ok
        squared = scale.with_options(power=2)
        assert squared.formula == "Y[n,m] = X[n,m] g[m]**2"
        assert xwb.check(squared, X, g).ok
        with pytest.raises(xwb.OptionError, match="states no formula"):
            scale.with_options(power=3)
        _, back = scale(X, g)
        assert back(X, needs="g").X is None
        net = xwb.chain(xwb.linear, scale)
        assert net.params == ("W1", "b1", "g2")

    def test_a_backward_with_too_few_gradients(self):
        broken = xwb.Layer("broken", "Y[n] = X[n] g[n]", lambda X, g: (X * g, None), lambda dY, saved: dY)
        _, back = broken(np.ones(3), np.ones(3))
        with pytest.raises(xwb.ShapeError, match="returned 1 gradients for 2 inputs"):
            back(np.ones(3))
