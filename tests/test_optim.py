"""Optimizers against PyTorch's over 50 steps, from factored and from plain gradients."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

import xwb

STEPS = 50
# 50 steps of rounding, relative to the largest parameter.
ALLOWED = {np.float32: 3e-5, np.float64: 1e-12}
# Where a gradient is nearly zero Adam divides its rounding by itself: a whole step of lr may differ for that entry.
ADAM = {np.float32: 1e-3, np.float64: 1e-12}


def decoupled_sgd(params, *, lr, weight_decay, **options):
    """PyTorch has no decoupled SGD: shrink, then its SGD."""
    inner = torch.optim.SGD(params, lr=lr, **options)

    class Both:
        def step(self):
            with torch.no_grad():
                for p in params:
                    p.mul_(1 - lr * weight_decay)
            inner.step()

    return Both()


CASES = {
    "plain": (xwb.SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "decay": (xwb.SGD(0.1, weight_decay=0.05), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05)),
    "momentum": (xwb.SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "momentum, decay": (
        xwb.SGD(0.1, momentum=0.9, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05),
    ),
    "nesterov": (
        xwb.SGD(0.05, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    ),
    "nesterov, decay": (
        xwb.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.05),
    ),
    "decoupled": (
        xwb.SGD(0.1, weight_decay=0.05, decoupled=True),
        lambda p: decoupled_sgd(p, lr=0.1, weight_decay=0.05),
    ),
    "decoupled momentum": (
        xwb.SGD(0.1, momentum=0.9, weight_decay=0.05, decoupled=True),
        lambda p: decoupled_sgd(p, lr=0.1, weight_decay=0.05, momentum=0.9),
    ),
    "decoupled nesterov": (
        xwb.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.05, decoupled=True),
        lambda p: decoupled_sgd(p, lr=0.05, weight_decay=0.05, momentum=0.9, nesterov=True),
    ),
    "Adam": (xwb.Adam(1e-2), lambda p: torch.optim.Adam(p, lr=1e-2)),
    "Adam, decay": (
        xwb.Adam(1e-2, beta1=0.8, beta2=0.99, eps=1e-6, weight_decay=0.05),
        lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.05),
    ),
    "AdamW": (xwb.AdamW(1e-2), lambda p: torch.optim.AdamW(p, lr=1e-2)),
}


def problem(dtype):
    rng = np.random.default_rng(0)
    net = xwb.chain(xwb.linear, xwb.tanh, xwb.linear)
    params = net.init((6, 8, 4), rng=rng, dtype=dtype)
    return net, params, rng.standard_normal((20, 6)).astype(dtype), rng.integers(0, 4, 20)


def pytorch_params(params, X, y, make, max_norm):
    leaves = [torch.tensor(p, requires_grad=True) for p in params]
    W1, b1, W2, b2 = leaves
    optimizer = make(leaves)
    for _ in range(STEPS):
        for leaf in leaves:
            leaf.grad = None
        scores = torch.tanh(torch.tensor(X) @ W1 + b1) @ W2 + b2
        torch.nn.functional.cross_entropy(scores, torch.tensor(y)).backward()
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(leaves, max_norm)
        optimizer.step()
    return [leaf.detach().numpy() for leaf in leaves]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("max_norm", [None, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_pytorch(case, dtype, max_norm, factored, order):
    optimizer, make = CASES[case]
    optimizer = type(optimizer)(**{**vars(optimizer), "max_norm": max_norm})
    net, params, X, y = problem(dtype)
    expected = pytorch_params(params, X, y, make, max_norm)
    params = [np.array(p, order=order) for p in params]
    arrays = list(params)
    state = optimizer.init(params)
    for _ in range(STEPS):
        Y, back = net(X, *params)
        _, loss_back = xwb.softmax_cross_entropy(Y, y)
        assert optimizer.step(params, back(loss_back(), needs=net.params, factored=factored)[1:], state) is None
    for actual, array, wanted in zip(params, arrays, expected, strict=True):
        assert actual is array
        assert actual.dtype == dtype
        allowed = (ADAM if isinstance(optimizer, xwb.Adam) else ALLOWED)[dtype]
        assert np.abs(actual - wanted).max() <= allowed * np.abs(wanted).max()


def test_a_factored_step_never_forms_dW(monkeypatch):
    net, params, X, y = problem(np.float64)
    monkeypatch.setattr(xwb.FactoredGradient, "__array__", lambda *_: pytest.fail("dW was formed"))
    for optimizer in (
        xwb.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1, max_norm=0.1),
        xwb.SGD(0.1, momentum=0.9, weight_decay=0.1, decoupled=True),
        xwb.SGD(0.1),
    ):
        Y, back = net(X, *params)
        grads = back(xwb.softmax_cross_entropy(Y, y)[1](), needs=net.params, factored=True)[1:]
        optimizer.step(params, grads, optimizer.init(params))


def test_parameters_in_any_strides():
    net, params, X, y = problem(np.float64)
    expected = pytorch_params(params, X, y, CASES["nesterov, decay"][1], None)
    views = [np.repeat(p, 2, axis=0)[::2] for p in params]
    optimizer = CASES["nesterov, decay"][0]
    state = optimizer.init(views)
    for _ in range(STEPS):
        Y, back = net(X, *views)
        optimizer.step(views, back(xwb.softmax_cross_entropy(Y, y)[1](), factored=True)[1:], state)
    for actual, wanted in zip(views, expected, strict=True):
        assert np.abs(actual - wanted).max() < 1e-12


def test_a_gradient_that_borrows_a_parameter_does_not_see_its_step():
    X, W, dY = (np.random.default_rng(0).standard_normal(shape) for shape in ((5, 3), (3, 4), (5, 4)))
    dX, dW, _ = xwb.linear(X, W)[1](dY, factored=True)
    expected = W - 0.1 * X.T @ dY
    optimizer = xwb.SGD(0.1)
    optimizer.step([X, W], [dX, dW], optimizer.init([X, W]))  # the input is learned too
    assert np.allclose(W, expected)


def test_a_plain_gradient_that_is_a_parameter_does_not_see_its_step():
    A, B = np.full(3, 1.0), np.full(3, 2.0)
    optimizer = xwb.SGD(0.1)
    optimizer.step([A, B], [B, A], optimizer.init([A, B]))  # of ⟨A, B⟩
    assert np.allclose(A, 0.8)
    assert np.allclose(B, 1.9)
    W = np.random.default_rng(0).standard_normal((300, 300))
    expected = W - 0.1 * W.T
    optimizer.step([W], [W.T], optimizer.init([W]))
    assert np.allclose(W, expected)


@pytest.mark.parametrize("case", ["Adam", "AdamW", "momentum"])
def test_steps_without_a_gradient_count_for_nothing(case):
    optimizer, make = CASES[case]
    ours, theirs = [np.ones(2), np.ones(2)], [torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    state, reference = optimizer.init(ours), make(theirs)
    for step in range(6):
        grads = [np.array([1.0, -1.0]), None if step < 4 else np.array([1.0, -1.0])]
        optimizer.step(ours, grads, state)
        for leaf, grad in zip(theirs, grads, strict=True):
            leaf.grad = None if grad is None else torch.tensor(grad)
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one, other.detach().numpy(), rtol=1e-12)


def test_the_callers_gradients_stay():
    for optimizer in (xwb.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1, max_norm=0.1), xwb.Adam(0.1)):
        W, grad = np.zeros(3), np.ones(3)
        optimizer.step([W], [grad], optimizer.init([W]))
        assert (grad == 1).all()


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_other_floating_parameters(dtype):
    W = np.ones(3, dtype)
    optimizer = xwb.SGD(0.5, momentum=0.5)
    state = optimizer.init([W])
    for _ in range(2):
        optimizer.step([W], [np.ones(3, dtype)], state)
    assert W.dtype == dtype
    assert (dtype(-0.25) == W).all()
    mixed = np.ones(3)
    xwb.SGD(0.1).step([mixed], [np.ones(3, np.float32)], xwb.SGD(0.1).init([mixed]))
    assert np.allclose(mixed, 0.9)
    single = np.array(1.0)
    xwb.SGD(0.1).step([single], [np.float32(1.0)[()] * np.ones((), np.float32)], xwb.SGD(0.1).init([single]))
    assert np.allclose(single, 0.9)


def test_strided_parameters_are_stepped_to_the_end():
    W = np.zeros((2500, 400))[:, ::2]
    xwb.SGD(1.0).step([W], [np.ones(W.shape)], xwb.SGD(1.0).init([W]))
    assert (W == -1).all()


def test_a_state_that_does_not_fit_is_said_before_anything_is_written():
    params = [np.ones(3), np.ones(4)]
    grads = [np.ones(3), np.ones(4)]
    for optimizer in (xwb.SGD(0.1, momentum=0.9), xwb.Adam(0.1)):
        with pytest.raises(xwb.ShapeError, match="state is of 1 parameters"):
            optimizer.step(params, grads, optimizer.init(params[:1]))
        with pytest.raises(xwb.ShapeError, match="state of parameter 0 has another shape"):
            optimizer.step(params, grads, optimizer.init(params[::-1]))
        state = optimizer.init(params)
        state[-1][1].flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            optimizer.step(params, grads, state)
    with pytest.raises(xwb.OptionError, match="no velocity"):
        xwb.SGD(0.1, momentum=0.9).step(params, grads, xwb.SGD(0.1).init(params))
    for p in params:
        assert (p == 1).all()


def test_the_global_norm_is_taken_in_float64():
    from xwb.training import global_norm

    assert global_norm([np.full(4, 1e25, np.float32)]) == pytest.approx(2e25)


def test_nothing_is_written_when_something_does_not_fit():
    net, params, X, y = problem(np.float64)
    Y, back = net(X, *params)
    grads = list(back(xwb.softmax_cross_entropy(Y, y)[1](), needs=net.params, factored=True)[1:])
    before = [p.copy() for p in params]
    optimizer = xwb.SGD(0.1, momentum=0.9)

    def refused(error, match, params=params, grads=grads, optimizer=optimizer):
        state = optimizer.init(params)
        with pytest.raises(error, match=match):
            optimizer.step(params, grads, state)
        for p, was in zip(params, before, strict=False):
            assert np.array_equal(p, was)
        assert all((v == 0).all() for v in state[-1])

    refused(xwb.ShapeError, "4 parameters and 3 gradients", grads=grads[:3])
    refused(xwb.ShapeError, "parameter 3 has shape", grads=[*grads[:3], np.ones(5)])
    frozen = params[3].copy()
    frozen.flags.writeable = False
    refused(ValueError, "read-only", params=[*params[:3], frozen])
    refused(TypeError, "Cannot cast", params=[*params[:3], params[3].astype(int)])
    bad = [*grads[:3], np.full(4, np.nan)]
    refused(xwb.DataError, "norm of the gradient is nan", grads=bad, optimizer=xwb.SGD(0.1, momentum=0.9, max_norm=1.0))


def test_none_leaves_a_parameter_alone():
    net, params, X, _ = problem(np.float64)
    Y, back = net(X, *params)
    for optimizer in (xwb.SGD(0.1, momentum=0.9), xwb.AdamW(0.1)):
        before = params[0].copy()
        optimizer.step(params, back(np.ones_like(Y), needs=("W2",))[1:], optimizer.init(params))
        assert np.array_equal(params[0], before)
        optimizer.step([None, params[0]], [None, params[0]], optimizer.init([None, params[0]]))
        assert not np.array_equal(params[0], before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: xwb.SGD(-0.1),
        lambda: xwb.SGD(float("nan")),
        lambda: xwb.SGD(0.1, momentum=-1),
        lambda: xwb.SGD(0.1, nesterov=True),
        lambda: xwb.SGD(0.1, max_norm=-1.0),
        lambda: xwb.Adam(0.1, beta1=1.0),
        lambda: xwb.AdamW(0.1, weight_decay=float("inf")),
    ],
)
def test_options_out_of_range(make):
    with pytest.raises(xwb.OptionError):
        make()


class TestTrain:
    def test_it_is_the_loop_written_out(self):
        net, params, X, y = problem(np.float32)
        written_out = [p.copy() for p in params]
        optimizer = xwb.SGD(0.1, momentum=0.9)
        arguments = {"loss": xwb.softmax_cross_entropy, "optimizer": optimizer, "epochs": 3, "batch_size": 8}
        records = list(xwb.train(net, params, X, y, rng=np.random.default_rng(5), **arguments))
        order, state, losses = np.random.default_rng(5), optimizer.init(written_out), []
        for _ in range(3):
            rows = order.permutation(20)
            for start in (0, 8, 16):
                batch = rows[start : start + 8]
                Y, back = net(X[batch], *written_out)
                loss, loss_back = xwb.softmax_cross_entropy(Y, y[batch])
                losses.append(float(loss))
                optimizer.step(written_out, back(loss_back(), needs=net.params)[1:], state)
        assert [r.loss for r in records] == pytest.approx(losses, rel=1e-4)
        assert [(r.step, r.epoch, r.examples, r.epoch_end) for r in records[2:4]] == [(3, 1, 4, True), (4, 2, 8, False)]
        for one, other in zip(params, written_out, strict=True):
            assert np.abs(one - other).max() < 1e-5

    def test_a_loss_without_a_reduction_is_refused(self):
        net, params, X, y = problem(np.float32)
        unreduced = functools.partial(xwb.softmax_cross_entropy, reduction="none")
        steps = xwb.train(net, params, X, y, loss=unreduced, optimizer=xwb.SGD(0.1), epochs=1, batch_size=5, rng=0)
        with pytest.raises(xwb.OptionError, match=r"the loss has shape \(5,\)"):
            next(steps)

    def test_the_last_batch_ends_the_epoch_when_it_is_full(self):
        net, params, X, y = problem(np.float32)
        arguments = {"loss": xwb.softmax_cross_entropy, "optimizer": xwb.SGD(0.1), "epochs": 1, "batch_size": 5}
        ends = [record.epoch_end for record in xwb.train(net, params, X, y, rng=0, **arguments)]
        assert ends == [False, False, False, True]

    def test_break_stops_and_state_goes_on(self):
        net, params, X, y = problem(np.float64)
        optimizer = xwb.Adam(0.01)
        whole = [p.copy() for p in params]
        arguments = {"loss": xwb.softmax_cross_entropy, "optimizer": optimizer, "batch_size": 20, "shuffle": False}
        list(xwb.train(net, whole, X, y, rng=0, epochs=5, **arguments))
        state = optimizer.init(params)
        for record in xwb.train(net, params, X, y, rng=0, epochs=5, state=state, **arguments):
            if record.step == 2:
                break
        list(xwb.train(net, params, X, y, rng=0, epochs=3, state=state, **arguments))
        for one, other in zip(params, whole, strict=True):
            assert np.array_equal(one, other)

    def test_a_diverged_loss_is_not_stepped(self):
        net, params, X, y = problem(np.float64)
        X[7] = np.inf
        arguments = {"loss": xwb.softmax_cross_entropy, "optimizer": xwb.SGD(0.1), "epochs": 1, "batch_size": 5}
        records = []
        with pytest.raises(xwb.DivergedError, match="loss is nan at step 2"), np.errstate(invalid="ignore"):
            records.extend(xwb.train(net, params, X, y, rng=0, shuffle=False, **arguments))
        assert all(np.isfinite(p).all() for p in params)

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"X": np.ones((3, 6))}, xwb.ShapeError, "N examples"),
            ({"X": np.ones((0, 6)), "y": np.ones(0, int)}, xwb.DataError, "no examples"),
            ({"params": []}, xwb.ShapeError, "W1, b1, W2, b2; got 0"),
            ({"batch_size": 0}, xwb.OptionError, "batch_size=0"),
            ({"epochs": -1}, xwb.OptionError, "epochs=-1"),
        ],
    )
    def test_mistakes_are_said_before_the_first_step(self, change, error, match):
        net, params, X, y = problem(np.float64)
        arguments = {"params": params, "X": X, "y": y, "epochs": 1, "batch_size": 5} | change
        with pytest.raises(error, match=match):
            xwb.train(net, loss=xwb.softmax_cross_entropy, optimizer=xwb.SGD(0.1), rng=0, **arguments)
