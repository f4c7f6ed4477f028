"""The curvature of losses of heads, and the guess at its inverse, against second derivatives by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _convex import classes, numbers, part_of
from xwb.training import _curvature
from xwb.training._curvature import DAMPING, MOST_FEATURES, Curvature
from xwb.training._objective import Head, Objective
from xwb.training._score_curvature import ScoreCurvature

# Sums of a few hundred float32 products, beside float64.
SINGLE = 2e-5


def loss_of(name, kind, z, y):
    """Of one example, by the definitions."""
    if name == "softmax":
        return torch.logsumexp(z, 0) - z[y]
    if name == "squared_error":
        return ((z - y) ** 2).sum()
    margins = torch.clamp(1 + z - z[y], min=0)
    margins = margins[torch.arange(len(z)) != y] ** 2
    return margins.sum() if kind == "weston_watkins" else margins.max()


def hessians(name, kind, Z, y):
    """(n, K, K)"""
    hessian = torch.autograd.functional.hessian
    each = zip(torch.tensor(Z), torch.tensor(y), strict=True)
    return np.array([hessian(lambda z, t=t: loss_of(name, kind, z, t), row).numpy() for row, t in each])


LOSSES = [
    ("softmax", "weston_watkins"),
    ("squared_error", "weston_watkins"),
    ("squared_hinge", "weston_watkins"),
    ("squared_hinge", "crammer_singer"),
]


def scores(name, n=20, K=5):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((n, K)) if name == "squared_error" else rng.integers(0, K, n)
    return rng.standard_normal((n, K)), y


@pytest.mark.parametrize(("name", "kind"), LOSSES)
def test_the_curvature_along_factors(name, kind):
    Z, y = scores(name)
    rng = np.random.default_rng(1)
    weight, A, B = rng.uniform(0, 2, len(Z)), rng.standard_normal(Z.shape), rng.standard_normal(Z.shape)
    h = hessians(name, kind, Z, y)
    curvature = ScoreCurvature.of(name, kind, np.stack([Z + 1, Z], 1), y)
    pairs = np.concatenate([A[:, None] * np.eye(5), B[:, None] * np.eye(5)], 2)  # (n, K, 2K): A_n
    expected = np.einsum("n,nki,nkl,nlj->ij", weight, pairs, h, pairs)
    np.testing.assert_allclose(
        curvature.along(weight, *(np.stack([a * 0, a], 1) for a in (A, B)))[1], expected, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(curvature.means(weight)[1], np.einsum("n,nkk->k", weight, h), rtol=1e-12, atol=1e-12)


def matrix(inverse, size):
    return np.array([inverse(row) for row in np.eye(size)])


@pytest.mark.parametrize("penalise_bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "kind"), LOSSES)
def test_along_each_head_and_its_bias_the_guess_is_the_curvature(name, kind, weighted, penalise_bias):
    part = numbers(K=4, weighted=weighted) if name == "squared_error" else classes(weighted=weighted)
    objective = Objective(part, name, 4, kind=kind, penalise_bias=penalise_bias)
    objective.invariant = False  # which shifts of all classes would be kept out of
    point, l2 = 0.3 * np.random.default_rng(0).standard_normal(objective.size), 1e-2
    found = matrix(Curvature(objective).inverses([Head(point, l2)])[0], objective.size)
    np.testing.assert_allclose(found, found.T, rtol=1e-9, atol=1e-9 * np.abs(found).max())
    assert np.linalg.eigvalsh((found + found.T) / 2)[0] > 0

    (rows,) = part.blocks()
    X, (W, b) = rows.X.astype(np.float64), objective.unpacked(point)
    weight = np.ones(len(X)) if rows.weight is None else rows.weight
    h = hessians(name, kind, X @ W + b, rows.y)
    extended = np.hstack([X, np.ones((len(X), 1))])
    H = np.einsum("n,nd,nkl,ne->dkel", weight / weight.sum(), extended, h, extended).reshape(found.shape)
    damping = np.einsum("n,nkk->", weight / weight.sum(), h) / 4 * DAMPING
    added = np.full(objective.size, l2 + damping)
    added[-4:] -= 0 if penalise_bias else l2
    along = np.zeros((objective.size, 8))
    for k in range(4):
        objective.unpacked(along[:, k])[0][:, k] = W[:, k]
        objective.unpacked(along[:, 4 + k])[1][k] = 1
    expected = along.T @ (H + np.diag(added)) @ along
    np.testing.assert_allclose(
        along.T @ np.linalg.inv(found) @ along, expected, rtol=SINGLE, atol=SINGLE * np.abs(expected).max()
    )


def test_the_guess_is_the_inverse_of_the_curvature_of_squared_error():
    """All rows are in the sample; damping is a hundredth of the curvature 2."""
    part = numbers(N=64, D=5, K=3, weighted=True)
    objective = Objective(part, "squared_error", 3)
    inverse = Curvature(objective).inverses([Head(np.zeros(objective.size), 0.3)])[0]
    (rows,) = part.blocks()
    X = rows.X.astype(np.float64)
    H = 2 * X.T @ (rows.weight[:, None] * X) / part.weight + (0.3 + 2 * DAMPING) * np.eye(5)
    vector = np.random.default_rng(0).standard_normal(objective.size)
    found, (W, b) = objective.unpacked(inverse(vector)), objective.unpacked(vector)
    np.testing.assert_allclose(found[0], np.linalg.solve(H, W), rtol=1e-5)
    np.testing.assert_allclose(found[1], b / (2 + 2 * DAMPING), rtol=1e-6)


@pytest.mark.parametrize(("rows", "features"), [(40, MOST_FEATURES + 1), (8, 500)])
def test_many_features_are_taken_one_by_one(rows, features):
    """And so are more than the decomposition of their moments pays for."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, features)) * rng.uniform(0.1, 3, features)
    objective = Objective(part_of(X, np.arange(rows) % 2), "softmax", 2)
    inverse = Curvature(objective).inverses([Head(np.zeros(objective.size), 0.3)])[0]
    vector = np.zeros(objective.size)
    W = objective.unpacked(vector)[0]
    W[...] = rng.standard_normal((features, 1)) * [1, -1]
    found = objective.unpacked(inverse(vector))[0]
    np.testing.assert_allclose(found, W / (0.25 * (X**2).mean(0)[:, None] + 0.3 + 0.25 * DAMPING), rtol=1e-5)


def test_a_feature_that_few_rows_have_is_not_lost_in_the_sample(monkeypatch):
    """It is uncorrelated with the others, so its place in the inverse is its own."""
    monkeypatch.setattr(_curvature, "MOST", 10)
    X = np.random.default_rng(0).standard_normal((4000, 5))
    X[:, 4] = 0
    X[[100, 2000, 3999]] = [0, 0, 0, 0, 30]
    objective = Objective(part_of(X, np.zeros((4000, 1))), "squared_error", 1)
    inverse = Curvature(objective).inverses([Head(np.zeros(objective.size), 1e-3)])[0]
    unit = np.eye(objective.size)[4]
    np.testing.assert_allclose(inverse(unit)[4], 1 / (2 * 3 * 900 / 4000 + 1e-3 + 2 * DAMPING), rtol=SINGLE)


def test_rows_that_alternate_are_both_in_the_sample(monkeypatch):
    """Half of the rows violate no margin, and have no curvature."""
    monkeypatch.setattr(_curvature, "PER_OUTPUT", 1)
    X = np.where(np.arange(4000) % 2 == 0, -3.0, 0.0)[:, None]
    objective = Objective(part_of(X, np.zeros(4000, int)), "squared_hinge", 2)
    inverse = Curvature(objective).inverses([Head(np.array([-1.0, 0.0, 0, 0]), 1e-3)])[0]
    along = np.array([0.0, 0.0, 1.0, -1.0])  # the biases apart: h = 2 (1 −1; −1 1) where a margin is violated
    assert inverse(along) @ along / 2 == pytest.approx(1 / (4 / 2), rel=0.3)


def test_many_classes_keep_to_their_means(monkeypatch):
    monkeypatch.setattr(_curvature, "MOST_OUTPUTS", 3)
    part = classes()
    objective = Objective(part, "softmax", 4)
    objective.invariant = False
    point = np.random.default_rng(0).standard_normal(objective.size)
    found = matrix(Curvature(objective).inverses([Head(point, 1e-2)])[0], objective.size)
    (rows,) = part.blocks()
    X, (W, b) = rows.X.astype(np.float64), objective.unpacked(point)
    P = torch.softmax(torch.tensor(X @ W + b), 1).numpy()
    means = (P * (1 - P)).mean(0)
    damping = DAMPING * means.mean()
    expected = np.zeros_like(found)
    for k in range(4):
        of_class = np.linalg.inv(means[k] * X.T @ X / len(X) + (1e-2 + damping) * np.eye(8))
        expected[k:32:4, k:32:4] = of_class
        expected[32 + k, 32 + k] = 1 / (means[k] + damping)
    np.testing.assert_allclose(found, expected, rtol=SINGLE, atol=SINGLE * np.abs(expected).max())


@pytest.mark.parametrize("penalise_bias", [False, True])
@pytest.mark.parametrize("loss", ["softmax", "squared_hinge"])
def test_what_is_the_same_for_all_classes_stays_apart(loss, penalise_bias):
    objective = Objective(classes(), loss, 4, penalise_bias=penalise_bias)
    rng = np.random.default_rng(0)
    inverse = Curvature(objective).inverses([Head(rng.standard_normal(objective.size), 1e-2)])[0]
    found = matrix(inverse, objective.size)
    np.testing.assert_allclose(found, found.T, rtol=1e-9, atol=1e-12 * np.abs(found).max())
    assert np.linalg.eigvalsh((found + found.T) / 2)[0] > 0
    shift = np.zeros(objective.size)
    for array in objective.unpacked(shift):
        array[...] = rng.standard_normal((*array.shape[:-1], 1))
    difference = rng.standard_normal(objective.size)
    for array in objective.unpacked(difference):
        array -= array.mean(-1, keepdims=True)
    size = np.abs(found).max()
    for of_shift, of_difference in zip(*map(objective.unpacked, (inverse(shift), inverse(difference))), strict=True):
        np.testing.assert_allclose(of_shift.std(-1), 0, atol=1e-12 * size)
        np.testing.assert_allclose(of_difference.mean(-1), 0, atol=1e-12 * size)


def test_heads_together_are_as_each_alone():
    objective = Objective(classes(weighted=True), "softmax", 4)
    rng = np.random.default_rng(0)
    heads = [Head(rng.standard_normal(objective.size), l2) for l2 in (1e-3, 1.0)]
    vector = rng.standard_normal(objective.size)
    for head, together in zip(heads, Curvature(objective).inverses(heads), strict=True):
        alone = Curvature(objective).inverses([head])[0]
        np.testing.assert_allclose(together(vector), alone(vector), rtol=SINGLE)


def test_no_guess_at_a_point_that_is_not_finite():
    objective = Objective(classes(), "squared_hinge", 4)
    heads = [Head(np.full(objective.size, value), 1e-2) for value in (np.nan, np.inf, 1e60, 0.0)]
    found = Curvature(objective).inverses(heads)
    assert [inverse is None for inverse in found] == [True, True, True, False]
