"""The checker: right gradients pass, planted mistakes do not, and both numbers are shown."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import xwb

rng = np.random.default_rng(0)
X, W, b = rng.standard_normal((5, 3)), rng.standard_normal((3, 3)), rng.standard_normal(3)


def forward(X, W, b):
    return X @ W + b


def right(dY, X, W, b):
    return dY @ W.T, X.T @ dY, dY.sum(axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (xwb.linear, [(4, 3), (3, 2), (2,)]),
        (xwb.linear, [(4, 3), (3, 2)]),
        (xwb.linear, [(0, 3), (3, 2), (2,)]),
        (xwb.relu, [(4, 3)]),
        (xwb.tanh, [(4, 3)]),
        (xwb.sigmoid, [(2, 4, 3)]),
        (xwb.gelu, [(4, 3)]),
        (xwb.softmax, [(4, 3)]),
        (xwb.chain(xwb.linear, xwb.tanh, xwb.linear), [(4, 3), (3, 5), (5,), (5, 2), (2,)]),
    ],
)
def test_layers_pass(layer, shapes, dtype):
    report = xwb.check(layer, *(rng.standard_normal(shape).astype(dtype) for shape in shapes))
    report.raise_if_wrong()
    assert [row.name for row in report.rows] == list(layer.inputs[: len(shapes)])


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (xwb.softmax_cross_entropy, {}),
        (xwb.softmax_cross_entropy, {"reduction": "none", "label_smoothing": 0.1}),
        (xwb.multiclass_hinge, {"squared": True}),
        (xwb.multiclass_hinge, {"kind": "crammer_singer"}),
    ],
)
def test_losses_pass(loss, options):
    report = xwb.check(loss, rng.standard_normal((5, 4)), np.array([0, 3, 2, 1, 1]), **options)
    assert report.ok, report
    assert [row.name for row in report.rows] == ["Z"]


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY / 5, dY.sum(0)), "W"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.mean(0)), "b"),
        (lambda dY, X, W, b: (dY @ W, X.T @ dY, dY.sum(0)), "X"),
        (lambda dY, X, W, b: (dY @ W.T, -X.T @ dY, dY.sum(0)), "W"),
        (lambda dY, X, W, b: (2 * dY @ W.T, X.T @ dY, dY.sum(0)), "X"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY * (1 + 1e-6), dY.sum(0)), "W"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY[:-1].sum(0)), "b"),
        (lambda dY, X, W, b: (dY @ W.T, np.full((3, 3), np.nan), dY.sum(0)), "W"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY), "b"),
        (lambda dY, X, W, b: (dY @ W.T, None, dY.sum(0)), "W"),
    ],
)
def test_planted_mistakes_are_found_and_named(planted, name):
    report = xwb.check((forward, planted), X, W, b)
    assert not report.ok
    assert [row.name for row in report.rows if not row.ok] == [name]
    with pytest.raises(xwb.ProofError, match=f"d{name} disagrees with finite differences"):
        report.raise_if_wrong()


def test_one_entry_is_found_and_both_numbers_are_shown():
    def one_zero(dY, X, W, b):
        dX, dW, db = right(dY, X, W, b)
        dW[1, 2] = 0
        return dX, dW, db

    report = xwb.check((forward, one_zero), X, W, b)
    row = report.rows[1]
    assert row.worst == (1, 2)
    assert row.closed_form == 0
    assert f"{row.numeric:.7e}" in str(report)
    assert "worst at (1, 2)" in str(report)
    assert "X and b agree." in str(report)


def test_success_shows_both_numbers_too():
    report = xwb.check((forward, right), X, W, b)
    assert report.ok
    for row in report.rows:
        assert f"{row.closed_form:.7e}" in str(report)
        assert row.relative < 1e-9
    assert "X, W, b: closed form and finite difference agree." in str(report)
    assert str(report).startswith("forward(X, W, b): closed form against finite differences")


def test_of_a_loss_the_numbers_are_the_gradient_itself_and_dloss_still_counts():
    Z, y = rng.standard_normal((5, 4)), np.array([0, 3, 2, 1, 1])
    (row,) = xwb.check(xwb.softmax_cross_entropy, Z, y).rows
    assert row.closed_form == pytest.approx(xwb.softmax_cross_entropy(Z, y)[1]()[row.worst])
    ignores_dloss = (lambda Z: np.sum(Z**2), lambda dloss, Z: 2 * Z)
    assert not xwb.check(ignores_dloss, Z).ok


def test_the_callers_arrays_stay():
    before = W.copy()
    xwb.check((forward, right), X, W, b)
    assert np.array_equal(W, before)


class TestRoundingDoesNotHideMistakes:
    def test_large_inputs(self):
        big = 1e9 + rng.random((50, 3))
        assert xwb.check((forward, right), big, W, b).ok
        mean = (forward, lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.mean(0)))
        assert [row.ok for row in xwb.check(mean, big, W, b).rows] == [True, True, False]

    def test_a_large_constant(self):
        assert xwb.check((lambda X: X + 1e12, lambda dY, X: 1 * dY), X).ok
        assert not xwb.check((lambda X: X + 1e12, lambda dY, X: -dY), X).ok
        assert xwb.check((lambda X: X + 1e6, lambda dY, X: 1 * dY), X).ok
        assert not xwb.check((lambda X: X + 1e6, lambda dY, X: 1.1 * dY), X).ok

    def test_small_rows_beside_large_ones(self):
        scales = np.array([1e8, 1.0, 1.0])
        wide, W_small = X * scales, W / scales[:, None]
        product = lambda X, W: X @ W  # noqa: E731

        def flipped(dY, X, W):
            dW = X.T @ dY
            dW[1:] *= -1
            return dY @ W.T, dW

        assert xwb.check((product, lambda dY, X, W: (dY @ W.T, X.T @ dY)), wide, W_small).ok
        assert not xwb.check((product, flipped), wide, W_small).ok

    def test_the_step_grows_with_the_entry(self):
        assert xwb.check((lambda X: X**2, lambda dY, X: 2 * X * dY), np.full((2, 2), 1e8)).ok

    def test_float32_is_held_to_its_own_tolerance(self):
        X32 = X.astype(np.float32)
        assert xwb.check((lambda X: X**2, lambda dY, X: 2 * X * dY), X32).ok
        assert not xwb.check((lambda X: X**2, lambda dY, X: 2 * X * dY * np.float32(1.001)), X32).ok

    def test_what_cannot_be_resolved_is_not_ok(self):
        saturated = 1000 * np.array([[1.0, -1.0], [-1.0, 1.0]])
        report = xwb.check((lambda X: np.tanh(X) + 1e-9 * X, lambda dY, X: 0 * dY), saturated)
        assert not report.ok


def test_a_backward_that_changes_its_input_is_caught_and_the_callers_array_stays():
    def zeroing(dY, X):
        X *= 0
        return np.zeros_like(X)

    ones = np.ones(3)
    report = xwb.check((lambda X: X**2, zeroing), ones)
    assert (ones == 1).all()
    assert not report.ok
    assert "nothing changed: backward changed X" in str(report)


def test_an_integer_value_and_an_empty_report_prove_nothing():
    with pytest.raises(xwb.OptionError, match="returns int64, which has no gradient"):
        xwb.check((lambda X: (1000 * X).astype(np.int64), lambda dY, X: 0 * X), X)
    assert not type(xwb.check(xwb.relu, X))("nothing", np.dtype(float), []).ok


def test_what_it_is_not_given():
    with pytest.raises(xwb.OptionError, match="takes a layer, a loss, a derivation or a pair"):
        xwb.check(forward, X, W, b)
    with pytest.raises(xwb.OptionError, match="no gradient to check"):
        xwb.check((forward, right), X.astype(int), W.astype(int), b.astype(int))
    with pytest.raises(xwb.OptionError, match="belong to layers"):
        xwb.check((forward, right), X, W, b, power=2)
    with pytest.raises(xwb.ProofError, match="2 gradients for 3 inputs"):
        xwb.check((forward, lambda dY, *arrays: right(dY, *arrays)[:2]), X, W, b)


def test_a_forward_that_refuses_moved_inputs():
    """It is smooth where it is defined."""

    def root(X):
        if (X <= 0).any():
            raise ValueError("positive numbers only")
        return np.sqrt(X)

    positive = 0.5 + rng.random((4, 3))
    assert xwb.check((root, lambda dY, X: dY / (2 * np.sqrt(X))), positive).ok
    assert not xwb.check((root, lambda dY, X: dY / np.sqrt(X)), positive).ok


def test_an_input_that_looks_like_the_random_directions_is_no_blind_spot():
    """With a dY equal to X the gradient of a square W is symmetric, and a transpose invisible."""
    for seed in range(3):
        X = np.random.default_rng(seed).standard_normal((6, 4))
        W = np.random.default_rng(seed).standard_normal((4, 4))
        transposed = (lambda X, W: X @ W, lambda dY, X, W: (dY @ W.T, dY.T @ X))
        assert not xwb.check(transposed, X, W, seed=seed).ok


def test_the_report_as_json():
    wrong = (forward, lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.sum(0) * np.nan))
    stored = json.loads(xwb.check(wrong, X, W, b).to_json())
    assert stored["ok"] is False
    assert [row["ok"] for row in stored["rows"]] == [True, True, False]
    assert stored["rows"][2]["closed_form"] is None
    assert stored["rows"][0]["shape"] == [5, 3]
    assert stored["diagnosis"][0]["cause"] == "not finite"
    assert {finding["name"] for finding in stored["findings"]} >= {"linear in dY", "two threads"}


def test_a_pair_that_keeps_something():
    keeps = (lambda X, W: (X @ W, (X, W)), lambda dY, saved: (dY @ saved[1].T, saved[0].T @ dY))
    assert xwb.check(keeps, X, W).ok
    by_name = (lambda X, W: X @ W, lambda dY, X, W: {"W": X.T @ dY, "X": dY @ W.T})
    assert xwb.check(by_name, X, W).ok


def test_a_derivation_is_checked():
    report = xwb.check(xwb.derive("Y[n,m] = tanh(X[n,d] W[d,m])"), X, W)
    assert report.ok
    assert [row.name for row in report.rows] == ["X", "W"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_and_inputs_that_are_not_finite(dtype):
    """A mask of −inf stands in attention's scores; its entries cannot be moved, and stay."""
    Z = rng.standard_normal((4, 5)).astype(dtype)
    Z[0, 3] = Z[2, 0] = -np.inf
    assert xwb.check(xwb.softmax, Z).ok
    logarithm = (np.log, lambda dY, X: dY / X)
    assert xwb.check(logarithm, np.array([1.0, 2.0, -1.0, 3.0], dtype)).ok
    with pytest.raises(xwb.DataError, match="not finite anywhere"):
        xwb.check(logarithm, np.array([-1.0, -2.0], dtype))


def test_ill_conditioned_layers_raise_no_alarm():
    def norm(X):
        return (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-5)

    def back(dY, X):
        inverse = 1 / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
        H = (X - X.mean(-1, keepdims=True)) * inverse
        return inverse * (dY - dY.mean(-1, keepdims=True) - H * (dY * H).mean(-1, keepdims=True))

    for dtype, offset in itertools.product((np.float32, np.float64), (0, 100, 1e4)):
        for seed in range(3):
            Z = (np.random.default_rng(seed).standard_normal((7, 6)) + offset).astype(dtype)
            assert xwb.check((norm, back), Z, conduct=False).ok, (dtype, offset, seed)


def test_features_narrower_than_a_step_are_not_missed():
    """At a thousand times these inputs most of tanh is flat, and steep where XW is 0."""
    for seed in range(20):
        grid = np.random.default_rng(seed)
        Q, R = grid.integers(-4, 5, (4, 3)) / 4, grid.integers(-4, 5, (3, 5)) / 4
        for scale in (1, 2.0**10):
            xwb.check(xwb.derive("Y[n,m] = tanh(X[n,d] W[d,m])"), scale * Q, scale * R).raise_if_wrong()


class TestWhatLooksWrongAndIsNot:
    """Right gradients of functions that are hard to measure; each raised an alarm once."""

    def right(self, forward, backward, *arrays, **options):
        for seed in range(5):
            report = xwb.check((forward, backward), *arrays, seed=seed, **options)
            assert report.ok, report

    def test_nearly_a_polynomial(self):
        E = 1e-3 * rng.standard_normal((4, 3))
        soft = lambda X: np.exp(X) / np.exp(X).sum(1, keepdims=True)  # noqa: E731
        back = lambda dY, X: soft(X) * (dY - (dY * soft(X)).sum(1, keepdims=True))  # noqa: E731
        self.right(soft, back, E)
        self.right(soft, back, E.astype(np.float32))

    def test_the_edge_of_the_domain(self):
        self.right(np.log, lambda dY, X: dY / X, np.array([1.0, 2.0, 1e-6, 0.5]))
        entropy = lambda P: -(P * np.log(P)).sum(1)  # noqa: E731
        self.right(
            entropy, lambda dY, P: -dY[:, None] * (np.log(P) + 1), np.array([[1e-12, 0.5, 0.5], [0.2, 0.3, 0.5]])
        )

    def test_a_second_derivative_that_jumps(self):
        elu = lambda X: np.where(X > 0, X, np.expm1(np.minimum(X, 0)))  # noqa: E731
        slope = lambda dY, X: dY * np.where(X > 0, 1, np.exp(np.minimum(X, 0)))  # noqa: E731
        self.right(elu, slope, np.zeros((6, 5)))

    def test_jumps_and_ties(self):
        sparse = np.maximum(rng.standard_normal((4, 6)), 0)

        def unsorted(dY, X):
            dX = np.zeros_like(X)
            np.put_along_axis(dX, np.argsort(X, axis=1, kind="stable"), dY, axis=1)
            return dX

        self.right(lambda X: np.sort(X, axis=1), unsorted, sparse)
        gated = lambda X, Z: np.where(X > 0, X * Z, Z)  # noqa: E731
        self.right(
            gated, lambda dY, X, Z: (np.where(X > 0, dY * Z, 0), np.where(X > 0, dY * X, dY)), sparse, sparse + 1
        )

    def test_a_gradient_of_nothing(self):
        self.right(lambda X: (X - X.mean(0)).sum(0), lambda dY, X: 0 * X, X)
        self.right(lambda X: X**7, lambda dY, X: 7 * X**6 * dY, np.zeros((3, 4)))

    def test_saturated_in_float32(self):
        def back(dY, X, W, b):
            H = np.tanh(X @ W + b)
            dZ = dY * (1 - H * H)
            return dZ @ W.T, X.T @ dZ, dZ.sum(0)

        large = [3 * a.astype(np.float32) for a in (X, W, b)]
        self.right(lambda X, W, b: np.tanh(X @ W + b), back, *large)

    def test_a_loss_that_is_a_python_number(self):
        mean_square = lambda A: float((A**2).mean())  # noqa: E731
        self.right(mean_square, lambda dL, A: (2 * dL / A.size * A).astype(A.dtype), X.astype(np.float32))

    def test_examples_in_pairs(self):
        def loss(A, B):
            S = A @ B.T
            return -np.mean(np.diag(S) - np.log(np.exp(S).sum(1)))

        def back(dL, A, B):
            P = np.exp(A @ B.T)
            dS = dL * (P / P.sum(1, keepdims=True) - np.eye(len(P))) / len(P)
            return dS @ B, dS.T @ A

        self.right(loss, back, X, X[::-1].copy())

    def test_a_number_at_a_kink(self):
        self.right(np.abs, lambda dY, x: np.asarray(dY * np.sign(x)), np.array(0.0))


def test_rounding_is_not_taken_for_kinks():
    """A float32 function far from 0: it has no kinks, and a wrong entry is no kink either."""

    def log_softmax(X):
        Z = X.astype(np.float32) - X.astype(np.float32).max(-1, keepdims=True)
        return Z - np.log(np.exp(Z).sum(-1, keepdims=True))

    def wrong(dY, X):
        dX = (dY - np.exp(log_softmax(X)) * dY.sum(-1, keepdims=True)).astype(X.dtype)
        dX[0, 3] = 0
        return dX

    for seed in range(10):
        far = (np.random.default_rng(seed).standard_normal((4, 6)) + 1000).astype(np.float32)
        assert not xwb.check((log_softmax, wrong), far, seed=seed, conduct=False).ok


def test_methods_of_one_thing_and_a_state():
    class Linear:
        def forward(self, X, W):
            self.X, self.W = X, W
            return X @ W

        def backward(self, dY):
            return dY @ self.W.T, self.X.T @ dY

    report = xwb.check(Linear(), X, W)
    assert report.ok, report
    assert "goes back from the last forward pass" in str(report)
    Linear.backward = lambda self, dY: (dY @ self.W.T, -self.X.T @ dY)
    assert [d.cause for d in xwb.check(Linear(), X, W).diagnosis] == ["sign"]


def test_inputs_without_a_gradient():
    weighted = (lambda X, mask: X * mask, lambda dY, X, mask: (dY * mask, None))
    assert xwb.check(weighted, X, 1.0 * (X > 0), needs=["X"]).ok
    report = xwb.check(weighted, X, 1.0 * (X > 0))
    assert [row.ok for row in report.rows] == [True, False]
    assert "name the others as needs" in str(report)
    with pytest.raises(xwb.OptionError, match="needs='Q'"):
        xwb.check(weighted, X, X, needs=["Q"])


def test_a_function_of_chance_is_not_compared():
    draws = np.random.default_rng(0)
    report = xwb.check((lambda X: X * (draws.random(X.shape) > 0.5), lambda dY, X: dY.copy()), X)
    assert not report.ok
    assert "forward gives other values for the same inputs" in str(report)
    assert report.diagnosis == []


def test_outputs_that_are_left_out_are_told():
    report = xwb.check((np.log, lambda dY, X: dY / X), np.array([1.0, -1.0, 2.0, -3.0]))
    assert report.left_out == 2
    assert "2 outputs are not finite at these inputs, and left out." in str(report)


@pytest.mark.parametrize("strange", [[[1, 2], [3]], "gradient", 1j * np.ones((5, 3)), np.full((5, 3), None)])
def test_gradients_that_are_no_numbers(strange):
    report = xwb.check((lambda X: 2 * X, lambda dY, X: (strange,)), X)
    assert not report.ok
    assert report.rows[0].note


def test_a_call_that_does_not_fit():
    with pytest.raises(xwb.OptionError, match="forward\\(X, W, b\\) is called with 2 arguments"):
        xwb.check((forward, right), X, W)
    with pytest.raises(xwb.OptionError, match="is called with 4 arguments"):
        xwb.check((forward, lambda dY, X: dY), X, W, b)


def test_arrays_by_name_are_told_their_order():
    d = xwb.derive("Y[n,m] = X[n,d] W[d,m] + b[m]")
    X, W, b = np.ones((4, 3)), np.ones((3, 2)), np.ones(2)
    for layer in (d, (lambda X, W, b: X @ W + b, lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.sum(0))), xwb.linear):
        with pytest.raises(xwb.OptionError, match=r"in the order X, W, b; type  check\(…, X, W, b\)"):
            xwb.check(layer, X=X, W=W, b=b)
