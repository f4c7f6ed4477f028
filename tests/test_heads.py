"""Heads minimised together: ends, words, and data that are hard or odd."""

from __future__ import annotations

import numpy as np
import pytest

from _convex import classes, numbers, optimum, part_of
from xwb.training import _heads, load_digits
from xwb.training._curvature import Curvature
from xwb.training._heads import Heads
from xwb.training._objective import Objective

WORDS = {"gap", "noise floor", "limit", "flat", "diverged"}
SMOOTH = ["softmax", "squared_hinge"]


def run(objective, l2, **options):
    heads = Heads(objective, l2, **options)
    return heads, list(heads.run())


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("loss", [*SMOOTH, "squared_error"])
def test_every_head_comes_within_the_tolerance(loss, tolerance):
    part = numbers(K=4) if loss == "squared_error" else classes()
    objective = Objective(part, loss, 4)
    l2 = [1.0, 1e-2, 1e-3]
    heads, progress = run(objective, l2, tolerance=tolerance)
    assert sorted(heads.solved) == [0, 1, 2]
    for h, solved in heads.solved.items():
        assert solved.stopped == "gap"
        least, _ = optimum(objective, l2[h])
        assert solved.certificate.value - least <= solved.certificate.gap <= tolerance * solved.certificate.value
        assert solved.evaluations <= 40
        mine = [one for one in progress if one.head == h]
        assert [one.evaluation for one in mine] == list(range(1, solved.evaluations + 1))
        assert [one.stopped for one in mine] == [""] * (len(mine) - 1) + ["gap"]


def test_heads_that_are_done_stay_as_they_are():
    objective = Objective(classes(), "softmax", 4)
    heads = Heads(objective, [10.0, 1e-6], tolerance=1e-4)
    kept = None
    for progress in heads.run():
        if kept is not None:
            assert progress.head == 1
        if progress.stopped and kept is None:
            assert progress.head == 0
            kept = heads.solved[0], heads.solvers[0].x.copy(), heads.solvers[0].evaluations
    assert heads.solved[0] is kept[0]
    np.testing.assert_array_equal(heads.solvers[0].x, kept[1])
    assert heads.solvers[0].evaluations == kept[2] < heads.solvers[1].evaluations


@pytest.mark.parametrize("trouble", ["enormous λ", "no number", "infinite", "float32 overflows", "far away"])
@pytest.mark.parametrize("loss", SMOOTH)
def test_one_diverging_head_does_not_disturb_the_others(loss, trouble):
    objective = Objective(classes(), loss, 4)
    l2, start = [1e-2, 1e-2, 1e-3], np.random.default_rng(0).standard_normal(objective.size)
    l2[1] = 1e30 if trouble == "enormous λ" else 1e-2
    start *= {"no number": np.nan, "infinite": np.inf, "float32 overflows": 1e60, "far away": 1e15}.get(trouble, 1.0)
    zeros = np.zeros(objective.size)
    heads, _ = run(objective, l2, starts=[zeros, start, zeros])
    assert heads.solved[1].stopped in WORDS
    if trouble in ("no number", "infinite", "float32 overflows"):
        assert heads.solved[1].stopped == "diverged"
        gap = heads.solved[1].certificate.gap
        assert gap is None or gap > 1e50  # float64 has numbers for 1e60
    else:
        assert np.isfinite(heads.solved[1].certificate.head.point).all()
    for h in (0, 2):
        alone, _ = run(objective, [l2[h]])
        together, single = heads.solved[h], alone.solved[0]
        assert together.stopped == single.stopped == "gap"
        # Products with more columns round otherwise; both are within their gaps of the optimum.
        assert abs(together.certificate.value - single.certificate.value) <= single.certificate.gap
        assert abs(together.evaluations - single.evaluations) <= 3


def test_no_more_evaluations_than_the_limit():
    heads, progress = run(Objective(classes(), "softmax", 4), [1e-3, 1e-4], tolerance=1e-6, limit=3)
    assert [solved.stopped for solved in heads.solved.values()] == ["limit", "limit"]
    assert len(progress) == 6
    assert all(solved.certificate.gap > 1e-6 * solved.certificate.value for solved in heads.solved.values())


def test_stop_is_asked_after_every_pass():
    passes = []
    heads = Heads(Objective(classes(), "softmax", 4), [1e-3, 1e-4])
    assert len(list(heads.run(lambda: passes.append(1) or len(passes) == 4))) == 8
    assert heads.solved == {}
    assert all(np.isfinite(solver.value) for solver in heads.solvers)
    list(heads.run())  # and goes on
    assert [solved.stopped for solved in heads.solved.values()] == ["gap", "gap"]


def test_a_warm_start_is_done_at_once():
    objective = Objective(classes(), "softmax", 4)
    first, _ = run(objective, [1e-2], tolerance=1e-6)
    again, _ = run(objective, [1e-2], starts=[first.solved[0].certificate.head.point], tolerance=1e-4)
    assert again.solved[0].evaluations == 1


def test_float64_has_the_last_word(monkeypatch):
    """Where float32 says yes far too early."""
    monkeypatch.setattr(_heads, "MARGIN", 100.0)
    heads, _ = run(Objective(classes(), "softmax", 4), [1e-2, 1e-4])
    for solved in heads.solved.values():
        assert solved.stopped == "gap"
        assert solved.certificate.gap <= 1e-4 * solved.certificate.value


def test_float64_is_not_asked_at_every_evaluation(monkeypatch):
    """A float32 estimate that says yes where float64 says no is believed again once it has halved."""
    asked, certify_all = [], _heads.certify_all

    def never(objective, heads):
        asked.append(1)
        return [one._replace(gap=np.inf) for one in certify_all(objective, heads)]

    monkeypatch.setattr(_heads, "certify_all", never)
    heads, _ = run(Objective(classes(), "softmax", 4), [1e-2])
    assert heads.solved[0].stopped == "noise floor"
    assert 2 <= len(asked) < heads.solved[0].evaluations / 1.5


@pytest.mark.parametrize(("loss", "most"), [("softmax", 60), ("squared_hinge", 100), ("squared_error", 70)])
def test_ill_conditioned_features_need_a_few_dozen_evaluations(loss, most, monkeypatch):
    """Rotated features whose spectrum falls as k⁻², as those of images: condition 3,600 squared."""
    rng = np.random.default_rng(0)
    N, D, K = 3000, 60, 5
    Q = np.linalg.qr(rng.standard_normal((D, D)))[0]
    X = (rng.standard_normal((N, D)) * np.arange(1, D + 1) ** -2.0) @ Q
    X *= np.sqrt(D) / np.linalg.norm(X.std(0))
    Z = X @ Q.T @ (rng.standard_normal((D, K)) * 3) + rng.gumbel(size=(N, K))
    objective = Objective(part_of(X, Z if loss == "squared_error" else Z.argmax(1)), loss, K)
    heads, _ = run(objective, [1e-3, 1e-4])
    assert [solved.stopped for solved in heads.solved.values()] == ["gap", "gap"]
    assert max(solved.evaluations for solved in heads.solved.values()) <= most
    monkeypatch.setattr(Curvature, "inverses", lambda _, heads: [None] * len(heads))
    plain, _ = run(objective, [1e-3, 1e-4])
    assert max(solved.evaluations for solved in plain.solved.values()) > 2 * most


@pytest.mark.parametrize(("loss", "l2", "most"), [("softmax", 1e-5, 130), ("squared_hinge", 1e-3, 350)])
def test_digits_are_separable_and_certified(loss, l2, most):
    digits = load_digits()
    X = digits.images.reshape(len(digits.images), -1).astype(np.float64)[:1437]
    X = (X - X.mean(0)) / np.where(X.std(0) > 0, X.std(0), 1)
    objective = Objective(part_of(X, digits.labels[:1437]), loss, 10)
    heads, _ = run(objective, [l2])
    assert heads.solved[0].stopped == "gap"
    assert heads.solved[0].evaluations <= most


def odd(name):
    """Features, classes and K of data that break solvers."""
    rng = np.random.default_rng(0)
    X, y, K = rng.standard_normal((300, 5)), rng.integers(0, 3, 300), 3
    if name == "separable":
        y = (X[:, 0] > 0).astype(int) + 0
        X[:, 0] += np.sign(X[:, 0])
        K = 2
    elif name == "1:10,000":
        X = rng.standard_normal((10_001, 5))
        y, K = np.zeros(10_001, int), 2
        y[77] = 1
    elif name == "constant and duplicate columns":
        X[:, 1], X[:, 3] = 7.0, X[:, 2]
    elif name == "zeros":
        X[:] = 0
    elif name == "one feature of 1e30":
        X[:, 2] *= 1e30
    elif name == "all features of 1e30":
        X *= 1e30
    elif name == "features of 1e-30":
        X *= 1e-30
    elif name == "one row":
        X, y, K = X[:1], y[:1], 3
    elif name == "more classes than rows":
        X, y, K = X[:4], np.array([0, 3, 9, 5]), 12
    elif name == "one class":
        y[:] = 1
    return X, y, K


ODD = ["separable", "1:10,000", "constant and duplicate columns", "zeros", "one feature of 1e30"]
ODD += ["all features of 1e30", "features of 1e-30", "one row", "more classes than rows", "one class"]
CLASSES_WITHOUT_ROWS = {"more classes than rows", "one row", "one class"}  # their biases go to −∞, if not penalised
CERTIFIED = set(ODD) - {"one feature of 1e30", "all features of 1e30"}


@pytest.mark.parametrize("penalise_bias", [False, True])
@pytest.mark.parametrize("loss", SMOOTH)
@pytest.mark.parametrize("name", ODD)
def test_odd_data_end_with_finite_weights_and_a_word(name, loss, penalise_bias):
    X, y, K = odd(name)
    objective = Objective(part_of(X, y), loss, K, penalise_bias=penalise_bias)
    l2 = [0.0, 1e-3]
    heads, _ = run(objective, l2, limit=500)
    at_zero = np.log(K) if loss == "softmax" else K - 1
    for h, solved in heads.solved.items():
        certificate = solved.certificate
        assert solved.stopped in WORDS - {"diverged"}
        assert np.isfinite(certificate.head.point).all()
        assert np.isfinite(certificate.value)
        assert certificate.value <= at_zero * (1 + 1e-12)
        assert (certificate.gap is None) == (l2[h] == 0) or name in CLASSES_WITHOUT_ROWS
    if name in CERTIFIED and (penalise_bias or name not in CLASSES_WITHOUT_ROWS):
        assert heads.solved[1].stopped == "gap"


def test_features_of_1e30_are_learnt_from():
    """Their squares are beyond float32; the objective is that of features of 1 with λ/1e60, next to none."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 5))
    y = (X @ rng.standard_normal((5, 3)) + rng.gumbel(size=(300, 3))).argmax(1)
    small, _ = run(Objective(part_of(X, y), "softmax", 3), [0.0])
    large, _ = run(Objective(part_of(X * 1e30, y), "softmax", 3), [0.0])
    assert large.solved[0].stopped in ("flat", "noise floor")
    assert large.solved[0].certificate.value == pytest.approx(small.solved[0].certificate.value, rel=1e-4)
