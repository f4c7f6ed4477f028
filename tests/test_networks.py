"""Mini-batches against the same loop in PyTorch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from _convex import classes, numbers, part_of
from xwb import DivergedError
from xwb.training._fit_options import FitOptions, decided
from xwb.training._networks import MOMENTUM, Trainer, mean_loss, penalty
from xwb.training._objective import Head, Objective, head_loss

# Two epochs of float32 steps, relative to the largest parameter.
CLOSE = 2e-5
# Where a gradient is nearly zero Adam divides its rounding by itself: a whole step of lr may differ for that entry.
CLOSE_ADAM = 2e-3

LOSSES = {
    "softmax": lambda Z, t: torch.nn.functional.cross_entropy(Z, t, reduction="none"),
    "squared_error": lambda Z, t: ((Z - t) ** 2).sum(1),
    "hinge": lambda Z, t: torch.relu(1 + Z - Z.gather(1, t[:, None])).scatter(1, t[:, None], 0.0).sum(1),
}


def chosen(**options):
    options = {"epochs": 2, "batch": 32, "l2": 0.1, "seed": 3} | options
    task = "regression" if options["loss"] == "squared_error" else "classification"
    return decided(FitOptions(**options), task, 8, 4)[0]


def part_for(loss, weighted):
    return numbers(N=150, K=4, weighted=weighted) if loss == "squared_error" else classes(N=150, weighted=weighted)


def centre_and_spread(part, options):
    """The mean of targets and the root of their mean variance; a penalised bias is not moved."""
    if options.loss != "squared_error":
        return 0.0, 1.0
    blocks = [(rows.y.copy(), np.ones(len(rows.y)) if rows.weight is None else rows.weight) for rows in part.blocks()]
    Y, w = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    mean = np.average(Y, 0, w)
    return 0.0 if options.penalise_bias else mean, np.sqrt(np.average((Y - mean) ** 2, 0, w).mean())


def by_pytorch(part, options, start, rng):
    """Parameters after the epochs, and the mean loss of each epoch; targets are learnt as (t − m)/s."""
    leaves = [torch.tensor(p, requires_grad=True) for p in start]
    m, s = centre_and_spread(part, options)
    decays = [options.l2 if i >= len(leaves) - 2 else options.l2 / s**2 for i in range(len(leaves))]
    groups = [
        {"params": [leaf], "weight_decay": decay if i % 2 == 0 or options.penalise_bias else 0.0}
        for i, (leaf, decay) in enumerate(zip(leaves, decays, strict=True))
    ]
    optimizer = (
        torch.optim.SGD(groups, lr=options.lr, momentum=MOMENTUM)
        if options.solver == "sgd"
        else torch.optim.Adam(groups, lr=options.lr)
    )
    steps, step, means = options.epochs * -(-part.rows // options.batch), 0, []
    for _ in range(options.epochs):
        total = weight = 0.0
        for rows in part.batches(options.batch, rng):
            t = torch.tensor(((rows.y - m) / s).astype(np.float32) if rows.y.ndim > 1 else rows.y)
            w = torch.ones(len(rows.X)) if rows.weight is None else torch.tensor(rows.weight.astype(np.float32))
            Z = torch.tensor(rows.X)
            for i in range(0, len(leaves), 2):
                Z = (torch.relu(Z) if i else Z) @ leaves[i] + leaves[i + 1]
            loss = (w * LOSSES[options.loss](Z, t)).sum() / w.sum()
            total, weight = total + float(loss.detach()) * float(w.sum()), weight + float(w.sum())
            for group in optimizer.param_groups:
                group["lr"] = options.lr * (1 - step / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        means.append(total / weight * s**2)
    *before, W, b = [leaf.detach().numpy() for leaf in leaves]
    return [*before, W * s, b * s + m], means


@pytest.mark.parametrize("penalise_bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hidden", [(), (6,), (7, 5)])
@pytest.mark.parametrize(("loss", "solver"), [("softmax", "sgd"), ("softmax", "adam"), ("squared_error", "sgd")])
def test_agrees_with_pytorch(loss, solver, hidden, weighted, penalise_bias):
    lr = 0.01 if loss == "squared_error" else None
    options = chosen(loss=loss, solver=solver, hidden=hidden, lr=lr, penalise_bias=penalise_bias)
    part = part_for(loss, weighted)
    trainer, twin = Trainer(part, options, 4), Trainer(part, options, 4)
    expected, means = by_pytorch(part, options, [p.copy() for p in twin.params], twin._rng)
    epochs = list(trainer.run())
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert all(epoch.whole for epoch in epochs)
    np.testing.assert_allclose([epoch.loss for epoch in epochs], means, rtol=1e-4)
    for actual, wanted in zip(epochs[-1].params, expected, strict=True):
        assert actual.dtype == np.float32
        close = CLOSE_ADAM if solver == "adam" else CLOSE
        assert np.abs(actual - wanted).max() <= close * max(1.0, np.abs(wanted).max())


def test_a_hinge_agrees_with_pytorch():
    options = chosen(loss="hinge", solver="sgd", lr=0.05)
    part = part_for("hinge", True)
    twin = Trainer(part, options, 4)
    expected, _ = by_pytorch(part, options, [p.copy() for p in twin.params], twin._rng)
    *_, last = Trainer(part, options, 4).run()
    for actual, wanted in zip(last.params, expected, strict=True):
        assert np.abs(actual - wanted).max() <= CLOSE


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("penalise_bias", [False, True])
def test_the_bias_is_decayed_only_where_it_is_penalised(penalise_bias, solver):
    """Examples without a gradient: what changes was decayed."""
    options = chosen(loss="hinge", solver=solver, hidden=(6,), penalise_bias=penalise_bias, lr=0.01)
    part = part_of(np.zeros((50, 8)), np.zeros(50, int))
    trainer = Trainer(part, options, 4)
    trainer.params = [np.ones_like(p) for p in trainer.params]
    trainer.params[3][0] = 100.0  # the class wins by more than the margin
    before = [p.copy() for p in trainer.params]
    *_, last = trainer.run()
    for i, (one, other) in enumerate(zip(before, last.params, strict=True)):
        decayed = i % 2 == 0 or penalise_bias
        assert (other < one).all() if decayed else np.array_equal(one, other)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_convex_head_starts_at_zero_and_comes_near_the_optimum(solver):
    options = chosen(loss="softmax", solver=solver, epochs=40, lr=0.05, l2=1e-2)
    part = part_for("softmax", True)
    trainer = Trainer(part, options, 4)
    assert not any(p.any() for p in trainer.params)
    *_, last = trainer.run()
    objective = Objective(part, "softmax", 4)
    point = np.concatenate([p.reshape(-1).astype(np.float64) for p in last.params])
    (found,) = objective.evaluate([Head(point, 1e-2)], np.float64)
    assert objective.gap(found.gradient, 1e-2) <= 0.02 * found.value
    value = mean_loss(trainer.net, last.params, part, head_loss("softmax")) + penalty(last.params, options)
    assert value == pytest.approx(found.value, rel=1e-6)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_what_targets_are_measured_in_makes_no_difference(solver, hidden):
    """But for the penalty, which is of weights in these units."""
    options = chosen(loss="squared_error", solver=solver, hidden=hidden, lr=0.01, l2=0.0)
    (rows,) = numbers(K=4).blocks()
    *_, plain = Trainer(part_of(rows.X, rows.y), options, 4).run()
    *_, other = Trainer(part_of(rows.X, 1e6 * rows.y - 3e6), options, 4).run()
    assert other.loss == pytest.approx(1e12 * plain.loss, rel=1e-5)
    scores = [
        Trainer(part_of(rows.X, rows.y), options, 4).net.forward(rows.X, *epoch.params)[0] for epoch in (plain, other)
    ]
    np.testing.assert_allclose(scores[1], 1e6 * scores[0] - 3e6, rtol=1e-4, atol=1e-4 * 1e6)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_targets_that_are_all_the_same(value):
    options = chosen(loss="squared_error", solver="adam", hidden=(6,))
    part = part_of(np.ones((40, 8)), np.full((40, 4), value))
    *_, last = Trainer(part, options, 4).run()
    assert all(np.isfinite(p).all() for p in last.params)
    assert last.loss < 1.0


def test_the_penalty_counts_what_is_decayed():
    params = [np.full((2, 3), 2.0, np.float32), np.full(3, 5.0, np.float32)] * 2
    plain = chosen(loss="softmax", solver="sgd", hidden=(3,), l2=0.5)
    assert penalty(params, plain) == 0.25 * 2 * 24
    assert penalty(params, dataclasses.replace(plain, penalise_bias=True)) == 0.25 * 2 * (24 + 75)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    part = part_for("softmax", False)
    runs = [list(Trainer(part, chosen(loss="softmax", solver="sgd", hidden=(5,), seed=s), 4).run()) for s in (1, 1, 2)]
    for one, other in zip(runs[0][-1].params, runs[1][-1].params, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(runs[0][-1].params[0], runs[2][-1].params[0])


def test_divergence_is_an_error_that_names_the_rate():
    options = chosen(loss="squared_error", solver="sgd", hidden=(8,), lr=1e3, epochs=50)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(DivergedError, match=r"diverged in epoch \d+: .* no longer finite, .*; try  --lr 0\.1$"),
    ):
        list(Trainer(part_for("squared_error", False), options, 4).run())


def test_a_last_step_that_diverges_is_an_error_too():
    """One batch, one step: no loss sees what it led to."""
    options = chosen(loss="squared_error", solver="sgd", lr=3e38, epochs=1, batch=1000)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(DivergedError, match="diverged in epoch 1: the parameters are no longer finite"),
    ):
        list(Trainer(part_for("squared_error", False), options, 4).run())


def test_stop_ends_in_the_middle_of_an_epoch():
    asked = []
    options = chosen(loss="softmax", solver="sgd")
    (epoch,) = Trainer(part_for("softmax", False), options, 4).run(lambda: asked.append(1) or len(asked) == 3)
    assert (epoch.number, epoch.whole, len(asked)) == (1, False, 3)
    assert np.isfinite(epoch.loss)


def test_the_mean_loss_is_that_of_the_objective():
    for loss in ("softmax", "squared_error"):
        part = part_for(loss, True)
        trainer = Trainer(part, chosen(loss=loss, solver="sgd"), 4)
        params = [np.random.default_rng(0).standard_normal(p.shape).astype(np.float32) for p in trainer.params]
        point = np.concatenate([p.reshape(-1).astype(np.float64) for p in params])
        (found,) = Objective(part, loss, 4).evaluate([Head(point, 0.0)], np.float64)
        assert mean_loss(trainer.net, params, part, head_loss(loss)) == pytest.approx(found.value, rel=1e-6)
