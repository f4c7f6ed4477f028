"""The objective of stacked heads: against PyTorch's autograd in float64, finite differences, and itself in pieces."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

import xwb
from _convex import part_of
from xwb.training._objective import LOSSES, Head, Objective, head_loss
from xwb.training._parts import Layout

KINDS = [("softmax", "weston_watkins"), ("squared_error", "weston_watkins")]
KINDS += [(loss, kind) for loss in ("hinge", "squared_hinge") for kind in ("weston_watkins", "crammer_singer")]
N, D, K = 150, 7, 4
# Of the largest entry. float64: sums of 150 terms. float32: the same in units of 6e-8, and scores rounded to 6e-8 of
# about 5, which the losses pass on.
CLOSE = {np.float64: 1e-13, np.float32: 3e-6}


class SmallBlocks(Layout):
    """Blocks of 64 rows whatever D is."""

    block = 64


def examples(loss, weighted, seed=0, rows=N):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, D)).astype(np.float32)
    y = rng.standard_normal((rows, K)) if loss == "squared_error" else rng.integers(0, K, rows)
    return X, y, rng.uniform(0.1, 5, rows) if weighted else None


def points(H, seed=1):
    """Heads whose entries are float32 numbers, so that both dtypes evaluate the same point."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((H, D * K + K)).astype(np.float32).astype(np.float64)
    return [Head(point, l2) for point, l2 in zip(weights, [0.3, 0.0, 1e-4, 7.0], strict=False)]


def by_pytorch(loss, kind, X, y, weight, head, penalise_bias):
    W = torch.tensor(head.point[: D * K].reshape(D, K), requires_grad=True)
    b = torch.tensor(head.point[D * K :], requires_grad=True)
    Z = torch.tensor(X, dtype=torch.float64) @ W + b
    w = torch.ones(len(X), dtype=torch.float64) if weight is None else torch.tensor(weight)
    t = torch.tensor(y)
    if loss == "softmax":
        losses = torch.nn.functional.cross_entropy(Z, t, reduction="none")
    elif loss == "squared_error":
        losses = ((Z - t) ** 2).sum(1)
    else:
        violation = torch.relu(1 + Z - Z.gather(1, t[:, None])).scatter(1, t[:, None], 0.0)
        violation = violation if kind == "weston_watkins" else violation.max(1, keepdim=True)[0]
        losses = (violation**2 if loss == "squared_hinge" else violation).sum(1)
    value = (w * losses).sum() / w.sum() + head.l2 / 2 * (W**2).sum()
    if penalise_bias:
        value = value + head.l2 / 2 * (b**2).sum()
    value.backward()
    return float(value.detach()), np.concatenate([W.grad.numpy().reshape(-1), b.grad.numpy()])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("penalise_bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "kind"), KINDS)
def test_agrees_with_pytorch(loss, kind, weighted, penalise_bias, dtype):
    X, y, weight = examples(loss, weighted)
    objective = Objective(part_of(X, y, weight), loss, K, kind=kind, penalise_bias=penalise_bias)
    heads = points(3)
    for head, found in zip(heads, objective.evaluate(heads, dtype), strict=True):
        value, gradient = by_pytorch(loss, kind, X, y, weight, head, penalise_bias)
        assert found.gradient.dtype == np.float64
        assert abs(found.value - value) <= CLOSE[dtype] * abs(value)
        assert np.abs(found.gradient - gradient).max() <= CLOSE[dtype] * np.abs(gradient).max()


@pytest.mark.parametrize(("loss", "kind"), KINDS)
def test_gradient_is_the_slope_of_the_value(loss, kind):
    X, y, weight = examples(loss, True)
    objective = Objective(part_of(X, y, weight), loss, K, kind=kind)
    (head,) = points(1)
    rng = np.random.default_rng(2)
    (found,) = objective.evaluate([head], np.float64)
    for _ in range(5):
        direction = rng.standard_normal(objective.size)
        h = 1e-6  # kinks within this of a random point have probability 0.001
        up, down = objective.evaluate([Head(head.point + s * h * direction, head.l2) for s in (1, -1)], np.float64)
        assert (up.value - down.value) / (2 * h) == pytest.approx(float(found.gradient @ direction), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("loss", "kind"), KINDS)
def test_stacked_heads_equal_single_ones(loss, kind, dtype):
    X, y, weight = examples(loss, True)
    objective = Objective(part_of(X, y, weight), loss, K, kind=kind)
    heads = points(4)
    for head, together in zip(heads, objective.evaluate(heads, dtype), strict=True):
        (alone,) = objective.evaluate([head], dtype)
        assert abs(alone.value - together.value) <= CLOSE[dtype] * abs(alone.value)
        assert np.abs(alone.gradient - together.gradient).max() <= CLOSE[dtype] * np.abs(alone.gradient).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39, 1e30, 1e300])
@pytest.mark.parametrize(("loss", "kind"), KINDS)
def test_a_diverging_head_leaves_the_others_their_bits(loss, kind, bad):
    X, y, weight = examples(loss, True)
    objective = Objective(part_of(X, y, weight), loss, K, kind=kind)
    heads = points(3)
    before = objective.evaluate(heads)
    spoilt = [heads[0], Head(heads[1].point * bad, heads[1].l2), heads[2]]
    after = objective.evaluate(spoilt)
    for h in (0, 2):
        assert before[h].value == after[h].value
        np.testing.assert_array_equal(before[h].gradient, after[h].gradient)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", LOSSES)
def test_blocks_do_not_matter_beyond_rounding(loss, dtype):
    X, y, weight = examples(loss, True, rows=500)
    layout = Layout(D, K if loss == "squared_error" else None, True)
    heads = points(2)
    one = Objective(part_of(X, y, weight), loss, K).evaluate(heads, dtype)
    blocked = part_of(X, y, weight, SmallBlocks(*layout))
    assert [len(rows.X) for rows in blocked.blocks()] == [64] * 7 + [52]
    many = Objective(blocked, loss, K).evaluate(heads, dtype)
    for a, b in zip(one, many, strict=True):
        assert abs(a.value - b.value) <= CLOSE[dtype] * abs(a.value)
        assert np.abs(a.gradient - b.gradient).max() <= CLOSE[dtype] * np.abs(a.gradient).max()


def test_the_same_call_gives_the_same_bits():
    X, y, weight = examples("softmax", True, rows=5000)
    objective = Objective(part_of(X, y, weight), "softmax", K)
    first, second = (objective.evaluate(points(2)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.value == b.value
        np.testing.assert_array_equal(a.gradient, b.gradient)


def test_sums_of_blocks_are_float64():
    """2²⁰ equal examples: float32 sums over all of them would be off by up to 2⁻⁴, these by what a block's are."""
    X = np.ones((2**20, 1), np.float32)
    y = np.zeros(2**20, np.int32)
    objective = Objective(part_of(X, y), "softmax", 2)
    (found,) = objective.evaluate([Head(np.array([0.1, 0.0, 0.0, 0.0]), 0.0)])
    p = 1 / (1 + np.exp(np.float64(np.float32(0.1))))
    assert found.value == pytest.approx(-np.log1p(-p), rel=2e-7)
    np.testing.assert_allclose(found.gradient, [-p, p, -p, p], rtol=5e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_weight_is_that_many_rows(weighted):
    X, y, _ = examples("softmax", False)
    counts = np.random.default_rng(0).integers(0, 4, N)
    once = Objective(part_of(X, y, counts.astype(np.float64)), "softmax", K)
    X, y = np.repeat(X, counts, 0), np.repeat(y, counts)
    again = Objective(part_of(X, y, np.ones(len(y)) if weighted else None), "softmax", K)
    for a, b in zip(once.evaluate(points(2), np.float64), again.evaluate(points(2), np.float64), strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-13)
        np.testing.assert_allclose(a.gradient, b.gradient, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_of_the_size_of_all_scores_is_allocated(loss):
    """60,000 rows, 64 features, two heads of 10 outputs: scores in float32 would take 4.8 MB."""
    rng = np.random.default_rng(0)
    rows, features, outputs, H = 60_000, 64, 10, 2
    X = rng.standard_normal((rows, features)).astype(np.float32)
    y = rng.standard_normal((rows, outputs)) if loss == "squared_error" else rng.integers(0, outputs, rows)
    layout = SmallBlocks(features, outputs if loss == "squared_error" else None, False)
    objective = Objective(part_of(X, y, layout=layout), loss, outputs)
    heads = [Head(np.zeros(objective.size), 1e-3)] * H
    objective.evaluate(heads)
    tracemalloc.start()
    try:
        objective.evaluate(heads)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * rows * outputs * H / 8


@pytest.mark.parametrize("features", [1, 3])
def test_one_row_and_fewer_rows_than_classes(features):
    X = np.full((1, features), 2.0, np.float32)
    objective = Objective(part_of(X, np.array([4])), "softmax", 6)
    (found,) = objective.evaluate([Head(np.zeros(objective.size), 1.0)], np.float64)
    assert found.value == pytest.approx(np.log(6))
    dW, db = objective.unpacked(found.gradient)
    onehot = np.eye(6)[4]
    np.testing.assert_allclose(db, 1 / 6 - onehot, atol=1e-15)
    np.testing.assert_allclose(dW, np.outer(np.full(features, 2.0), 1 / 6 - onehot), atol=1e-15)


def test_unpacked_parts_are_views():
    X, y, _ = examples("softmax", False)
    objective = Objective(part_of(X, y), "softmax", K)
    point = np.zeros(objective.size)
    W, b = objective.unpacked(point)
    W[2, 1], b[3] = 5.0, 7.0
    assert (point[2 * K + 1], point[D * K + 3]) == (5.0, 7.0)


def test_the_gap_is_over_what_is_penalised():
    X, y, _ = examples("softmax", False)
    gradient = np.arange(1.0, D * K + K + 1)
    plain = Objective(part_of(X, y), "softmax", K)
    assert plain.gap(gradient, 0.5) == pytest.approx(float(gradient[: D * K] @ gradient[: D * K]))
    assert Objective(part_of(X, y), "softmax", K, penalise_bias=True).gap(gradient, 0.5) == pytest.approx(
        float(gradient @ gradient)
    )
    assert plain.gap(gradient, 0.0) is None
    assert Objective(part_of(X, y), "hinge", K).gap(gradient, 0.5) is None


def test_names_that_are_none_are_refused():
    with pytest.raises(xwb.OptionError, match=r"--loss is one of softmax, .*; got 'soft'"):
        head_loss("soft")
    with pytest.raises(xwb.OptionError, match=r"--kind is one of weston_watkins, .*; got 'ww'"):
        head_loss("hinge", "ww")
