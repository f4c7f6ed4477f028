"""The bound on the gap: never below the gap to an optimum found by others, and not far above it."""

from __future__ import annotations

import numpy as np
import pytest

from _convex import classes, numbers, optimum, part_of
from xwb.training import _certificate
from xwb.training._certificate import certify
from xwb.training._heads import Heads
from xwb.training._least_squares import NormalEquations
from xwb.training._objective import Head, Objective

# Two float64 values of one function differ by some roundings of their size.
ROUNDING = 1e-14

PROBLEMS = {
    "softmax": ("softmax", classes),
    "softmax of two": ("softmax", lambda **options: classes(K=2, **options)),
    "softmax 1:400": ("softmax", lambda **options: classes(N=1000, K=2, lift=8.0, **options)),
    "squared hinge": ("squared_hinge", classes),
    "squared hinge of two": ("squared_hinge", lambda **options: classes(K=2, **options)),
    "squared hinge 1:400": ("squared_hinge", lambda **options: classes(N=1000, K=2, lift=8.0, **options)),
    "squared error": ("squared_error", numbers),
}


def problem(name, *, seed=0, weighted=False, penalise_bias=False):
    loss, make = PROBLEMS[name]
    part = make(seed=seed, weighted=weighted)
    outputs = next(part.blocks()).y
    K = outputs.shape[1] if outputs.ndim > 1 else int(outputs.max()) + 1
    return Objective(part, loss, K, penalise_bias=penalise_bias)


def largest_curvature(objective, l2):
    """L: of the scores' Hessian at most ½ for softmax, 2 for squared error, 2K for the hinge, times that of X."""
    (rows,) = objective.part.blocks()
    X = rows.X.astype(np.float64)
    if objective.penalise_bias:
        X = np.hstack([X, np.ones((len(X), 1))])
    w = np.ones(len(X)) if rows.weight is None else rows.weight
    of_X = np.linalg.eigvalsh(X.T @ (w[:, None] * X) / w.sum())[-1]
    return {"softmax": 0.5, "squared_error": 2.0, "squared_hinge": 2.0 * objective.outputs}[objective.name] * of_X + l2


def check(objective, certificate, least, l2):
    """The bound holds, is that of the formula, and exceeds the gap by L/λ at most."""
    assert certificate.gap is not None
    gap = certificate.value - least
    assert certificate.gap >= gap - ROUNDING * abs(least)
    (found,) = objective.evaluate([certificate.head], np.float64)
    counted = found.gradient if objective.penalise_bias else objective.unpacked(found.gradient)[0]
    assert certificate.value == found.value
    assert certificate.gap == pytest.approx(float(np.sum(counted**2)) / (2 * l2), rel=1e-12)
    assert certificate.gradient_norm == np.linalg.norm(found.gradient)
    factor = largest_curvature(objective, l2) / l2
    assert certificate.gap <= factor * gap * 1.01 + factor * ROUNDING * abs(least)
    if not objective.penalise_bias:
        assert np.linalg.norm(objective.unpacked(found.gradient)[1]) <= 1e-10


@pytest.mark.parametrize("penalise_bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_never_below_the_gap_and_never_far_above(name, weighted, penalise_bias):
    """What L-BFGS ends at, rough and fine, at two λ; random points too."""
    objective = problem(name, seed=len(name), weighted=weighted, penalise_bias=penalise_bias)
    rng = np.random.default_rng(0)
    for l2 in (3e-2, 1e-4):
        least, x = optimum(objective, l2)
        for tolerance in (1e-1, 1e-3):
            heads = Heads(objective, [l2], tolerance=tolerance)
            list(heads.run())
            check(objective, heads.solved[0].certificate, least, l2)
        for distance in (1.0, 1e-2):
            check(objective, certify(objective, Head(x + distance * rng.standard_normal(len(x)), l2)), least, l2)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PROBLEMS)
def test_within_a_factor_of_1000(name, seed):
    """Where λ is at least L/1,000."""
    objective = problem(name, seed=seed)
    for share in (1e-3, 1e-2):
        l2 = share * largest_curvature(objective, 0.0)
        least, _ = optimum(objective, l2)
        heads = Heads(objective, [l2], tolerance=1e-4)
        list(heads.run())
        found = heads.solved[0].certificate
        assert found.value - least - ROUNDING * least <= found.gap <= 1000 * (found.value - least + ROUNDING * least)


@pytest.mark.parametrize("distance", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_bias_is_minimised_and_the_weights_stay(name, distance):
    objective = problem(name, seed=1, weighted=True)
    rng = np.random.default_rng(2)
    point = 0.3 * rng.standard_normal(objective.size)
    objective.unpacked(point)[1][...] += distance * rng.standard_normal(objective.outputs)
    before = point.copy()
    found = certify(objective, Head(point, 1e-2))
    np.testing.assert_array_equal(point, before)
    np.testing.assert_array_equal(objective.unpacked(found.head.point)[0], objective.unpacked(point)[0])
    (there,) = objective.evaluate([found.head], np.float64)
    assert np.linalg.norm(objective.unpacked(there.gradient)[1]) <= 1e-10
    assert found.value <= objective.evaluate([Head(point, 1e-2)], np.float64)[0].value
    assert found.evaluations <= (30 if distance > 1 else 8)


def with_curvature(monkeypatch, factor):
    """The curvature that Newton's method is told, times something."""
    along = _certificate._along_biases
    monkeypatch.setattr(
        _certificate,
        "_along_biases",
        lambda *given: [(value, gradient, hessian * factor) for value, gradient, hessian in along(*given)],
    )


def test_a_step_that_goes_too_far_is_shortened(monkeypatch):
    """Four times too far: a quarter of it is right. A pass each for the start, the step, its quarter, all gradients."""
    with_curvature(monkeypatch, 1 / 4)
    objective = problem("squared error")
    found = certify(objective, Head(np.ones(objective.size), 1e-2))
    assert found.gap is not None
    assert found.evaluations == 4


def test_a_bias_that_takes_too_long_gets_no_bound(monkeypatch):
    with_curvature(monkeypatch, 4)
    objective = problem("squared error")
    found = certify(objective, Head(np.full(objective.size, 1e3), 1e-2))
    assert found.gap is None
    assert found.evaluations == _certificate.PASSES == 30


def test_a_penalised_bias_is_left_alone():
    objective = problem("softmax", penalise_bias=True)
    point = np.random.default_rng(0).standard_normal(objective.size)
    found = certify(objective, Head(point, 1e-2))
    np.testing.assert_array_equal(found.head.point, point)
    assert found.evaluations == 1


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_targets_of_any_scale_need_few_passes(scale):
    """One absolute threshold would be below the rounding of the large ones, and no demand of the small."""
    (rows,) = numbers().blocks()
    objective = Objective(part_of(rows.X, rows.y * scale), "squared_error", 3)
    found = certify(objective, Head(np.zeros(objective.size), 1e-2))
    assert found.evaluations <= 4
    assert found.gap is not None
    (there,) = objective.evaluate([found.head], np.float64)
    assert np.linalg.norm(objective.unpacked(there.gradient)[1]) <= 1e-12 * scale


def test_no_bound_is_below_what_float64_tells_apart():
    """Squared error at the solution: the gradient says 1e-30 of the value."""
    objective = problem("squared error")
    point = NormalEquations(objective).solve(0.1)
    found = certify(objective, Head(point, 0.1))
    assert found.gap == 2.0**-52 * found.value


def test_targets_of_any_scale_are_bounded():
    """Their mean is all there is to learn, and the gradient of 1e-10 that says so is none of a target near 1."""
    (rows,) = numbers().blocks()
    for scale in (1e-11, 1e-100):
        objective = Objective(part_of(rows.X, scale * (4 + 1e-3 * rows.y)), "squared_error", 3)
        found = certify(objective, Head(np.zeros(objective.size), 1.0))
        assert found.value < 1e-3 * scale**2
        assert found.gap is not None


def test_classes_far_apart_have_a_bias_too():
    """All losses are far below 1e-10, and the bias is where a third of them comes from."""
    X, y = np.array([[-1.0], [1.0], [1.1]]), np.array([0, 1, 1])
    for loss, value in (("softmax", 28.0), ("squared_hinge", 0.499999)):
        objective = Objective(part_of(X, y), loss, 2)
        point = np.array([-value / 2, value / 2, -1e-7, 1e-7])
        found = certify(objective, Head(point, 1e-15))
        least = certify(objective, found.head).value
        assert objective.evaluate([Head(point, 1e-15)], np.float64)[0].value > least
        assert found.gap is None or found.value <= least * (1 + 1e-9)


def test_no_bound_without_a_penalty_or_with_kinks():
    part = classes()
    for loss, l2 in (("softmax", 0.0), ("squared_hinge", 0.0), ("hinge", 1e-2), ("hinge", 0.0)):
        objective = Objective(part, loss, 4)
        found = certify(objective, Head(np.zeros(objective.size), l2))
        assert found.gap is None
        assert np.isfinite(found.value)


def test_no_bound_where_kinks_keep_the_bias_from_its_minimum():
    """Crammer and Singer's squared hinge at W = 0: the worst classes are tied."""
    rng = np.random.default_rng(1)
    part = part_of(rng.standard_normal((60, 3)), rng.integers(0, 3, 60))
    objective = Objective(part, "squared_hinge", 3, kind="crammer_singer")
    for seed in range(5):
        point = np.random.default_rng(seed).standard_normal(objective.size)
        found = certify(objective, Head(point, 1e-2))
        (there,) = objective.evaluate([found.head], np.float64)
        assert (found.gap is None) == (np.linalg.norm(objective.unpacked(there.gradient)[1]) > 1e-10)
        assert np.isfinite(found.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_head_that_is_not_finite_gets_no_bound(name, bad):
    objective = problem(name)
    found = certify(objective, Head(np.linspace(-1, 1, objective.size) + bad, 1e-2))
    assert found.gap is None
    assert found.evaluations == 1


def test_a_class_that_no_example_has():
    """Its bias would go to −∞: the certificate ends, finite, and its bound holds for what it found."""
    (rows,) = classes(K=3).blocks()
    objective = Objective(part_of(rows.X, rows.y), "softmax", 4)
    found = certify(objective, Head(np.zeros(objective.size), 1e-1))
    assert np.isfinite(found.head.point).all()
    assert found.evaluations <= 30
    least, _ = optimum(Objective(part_of(rows.X, rows.y), "softmax", 3), 1e-1)
    assert found.gap is None or found.gap >= found.value - least
