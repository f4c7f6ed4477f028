"""Normal equations against NumPy's lstsq and scikit-learn's Ridge."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from _convex import numbers, part_of
from xwb.training._least_squares import NormalEquations
from xwb.training._objective import Head, Objective
from xwb.training._parts import Layout

# Relative to the largest entry; forming XᵀX squares the conditioning, which is below 100 here.
CLOSE = 1e-10


def examples(part):
    rows = [(r.X.astype(np.float64), r.y.copy(), r.weight) for r in part.blocks()]
    X, T = np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows])
    return X, T, np.ones(len(X)) if rows[0][2] is None else np.concatenate([r[2] for r in rows])


def solved(part, l2, *, penalise_bias=False):
    objective = Objective(part, "squared_error", next(part.blocks()).y.shape[1], penalise_bias=penalise_bias)
    point = NormalEquations(objective).solve(l2)
    return objective, point, *objective.unpacked(point)


def assert_near(actual, expected, close=CLOSE):
    assert np.abs(actual - expected).max() <= close * np.abs(expected).max()


@pytest.mark.parametrize("l2", [1e-4, 0.1, 30.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_ridge(weighted, l2):
    """Ridge minimises Σ w (…)² + α‖W‖², so α = λ/2 Σ w."""
    part = numbers(weighted=weighted)
    X, T, w = examples(part)
    _, _, W, b = solved(part, l2)
    ridge = Ridge(alpha=l2 / 2 * w.sum(), solver="cholesky").fit(X, T, sample_weight=w)
    assert_near(W, ridge.coef_.T)
    assert_near(b, ridge.intercept_)


@pytest.mark.parametrize("l2", [1e-4, 0.1, 30.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_penalised_bias_is_the_weight_of_a_feature(weighted, l2):
    part = numbers(weighted=weighted)
    X, T, w = examples(part)
    _, point, _, _ = solved(part, l2, penalise_bias=True)
    A = np.hstack([X, np.ones((len(X), 1))])
    ridge = Ridge(alpha=l2 / 2 * w.sum(), fit_intercept=False, solver="cholesky").fit(A, T, sample_weight=w)
    assert_near(point, ridge.coef_.T.reshape(-1))


@pytest.mark.parametrize("weighted", [False, True])
def test_without_a_penalty_it_is_lstsq(weighted):
    part = numbers(weighted=weighted)
    X, T, w = examples(part)
    _, point, _, _ = solved(part, 0.0)
    A = np.hstack([X, np.ones((len(X), 1))])
    root = np.sqrt(w)[:, None]
    assert_near(point, np.linalg.lstsq(A * root, T * root)[0].reshape(-1))


@pytest.mark.parametrize("penalise_bias", [False, True])
@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_duplicate_and_constant_columns_and_fewer_rows_than_columns(l2, penalise_bias):
    """λ = 0: the smallest weights, which lstsq finds too."""
    rng = np.random.default_rng(0)
    for rows in (100, 4):
        X = rng.standard_normal((rows, 6)).astype(np.float32)
        X[:, 1], X[:, 4] = 0.1, X[:, 2]
        T = rng.standard_normal((rows, 2))
        objective, point, W, _ = solved(part_of(X, T), l2, penalise_bias=penalise_bias)
        X = X.astype(np.float64)
        (found,) = objective.evaluate([Head(point, l2)], np.float64)
        assert np.linalg.norm(found.gradient) <= 1e-10
        assert_near(W[2], W[4])
        if not penalise_bias:
            assert np.abs(W[1]).max() <= 1e-12  # the bias does what a constant could
        if l2 == 0:
            A = np.hstack([X, np.ones((rows, 1))]) if penalise_bias else X - X.mean(0)
            expected = np.linalg.lstsq(A, T if penalise_bias else T - T.mean(0), rcond=1e-8)[0]
            assert_near(point[: expected.size], expected.reshape(-1))


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_one_row(l2):
    """No weights, and the bias is its target."""
    _, _, W, b = solved(part_of(np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0]])), l2)
    np.testing.assert_array_equal(W, 0.0)
    np.testing.assert_array_equal(b, [4.0, 5.0])


@pytest.mark.parametrize("far", [1e3, 1e5])
def test_features_far_from_zero_keep_their_digits(far):
    """As they are without standardising: of 16 digits centring would cancel twice those of ``far``."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((300, 4)) + far).astype(np.float32)
    T = X.astype(np.float64) @ rng.standard_normal((4, 2)) + 0.1 * rng.standard_normal((300, 2))
    _, _, W, _ = solved(part_of(X, T), 1e-3)
    centred = X.astype(np.float64) - X.astype(np.float64).mean(0)
    expected = np.linalg.solve(centred.T @ centred / 300 + 5e-4 * np.eye(4), centred.T @ (T - T.mean(0)) / 300)
    assert_near(W, expected)


def test_a_constant_column_of_1e30_is_no_feature():
    part = numbers(D=5)
    X, T, _ = examples(part)
    _, _, expected, _ = solved(part, 1e-3)
    _, _, W, b = solved(part_of(np.hstack([X, np.full((len(X), 1), 1e30)]), T), 1e-3)
    assert_near(W[:5], expected)
    np.testing.assert_array_equal(W[5], 0.0)
    assert np.isfinite(b).all()


def test_blocks_do_not_matter():
    class SmallBlocks(Layout):
        block = 64

    part = numbers(weighted=True)
    X, T, w = examples(part)
    _, point, _, _ = solved(part, 1e-2)
    _, blocked, _, _ = solved(part_of(X, T, w, SmallBlocks(8, 3, True)), 1e-2)
    assert_near(blocked, point, 1e-13)


def test_every_penalty_from_one_decomposition():
    part = numbers()
    objective = Objective(part, "squared_error", 3)
    equations = NormalEquations(objective)
    for l2 in (1.0, 0.0, 1e-3, 1.0):
        np.testing.assert_array_equal(equations.solve(l2), NormalEquations(objective).solve(l2))
