"""How a function is measured: its degree, its noise, its kinks, and slopes whose error stays within its bound."""

from __future__ import annotations

import numpy as np
import pytest

import xwb
from xwb.proof._exact import exact
from xwb.proof._probe import Probe
from xwb.proof._subject import subject_of

rng = np.random.default_rng(7)
X = rng.standard_normal((6, 5))
A = rng.standard_normal((5, 5))


def nothing(dY, *arrays):
    return tuple(np.zeros_like(a) for a in arrays)


def probe_of(forward, *arrays):
    return Probe(subject_of((forward, nothing), arrays, {}), np.random.default_rng([1, 2]))


def softmax(X):
    E = np.exp(X - X.max(axis=-1, keepdims=True))
    return E / E.sum(axis=-1, keepdims=True)


def in_float32(X):
    return softmax(X.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("forward", "degree"),
    [
        (lambda X: np.ones_like(X), 0),
        (lambda X: X @ A.astype(X.dtype) + 1, 1),
        (lambda X: 1e6 + X, 1),
        (lambda X: (X**2).sum(), 2),
        (lambda X: X * X * X, 3),
        (lambda X: np.prod(X, axis=1), 5),
        (lambda X: X**7, None),
        (softmax, None),
        (lambda X: np.maximum(X, 0), None),
        (np.abs, None),
        (np.tanh, None),
        (lambda X: np.where(X > 0, X**2, -(X**2)), None),
    ],
)
def test_degree(forward, degree, dtype):
    assert probe_of(forward, X.astype(dtype)).degree(0) == degree


def test_degree_is_that_in_one_input():
    probe = probe_of(lambda X, W: np.tanh(X) @ W, X, A)
    assert probe.degree(0) is None
    assert probe.degree(1) == 1


@pytest.mark.parametrize(
    ("forward", "method"),
    [
        (lambda X: X @ A, "degree 1: step 1"),
        (lambda X: X**2, "degree 2: step 1"),
        (lambda X: X**3, "degree 3: 4 points"),
        (softmax, "analytic: complex step"),
        (lambda X: np.linalg.norm(X, axis=1), "smooth: 4th order"),  # of the absolute values of complex numbers
        (lambda X: np.sum(X * X.conj()) ** 0.5, "smooth: 4th order"),  # complex, but not analytic
        (xwb.sigmoid, "smooth: 4th order"),  # refuses complex numbers
    ],
)
def test_method(forward, method):
    forward = (lambda X: xwb.sigmoid(X)[0]) if forward is xwb.sigmoid else forward
    assert probe_of(forward, X).method(0) == method


def test_what_is_evaluated_in_float64():
    assert probe_of(softmax, X.astype(np.float32)).dtype == np.float64
    assert probe_of(in_float32, X.astype(np.float32)).dtype == np.float32

    def refuses(X):
        if X.dtype != np.float32:
            raise TypeError("float32 only")
        return X * 2

    assert probe_of(refuses, X.astype(np.float32)).dtype == np.float32
    # Another function in float64 is no better look at this one.
    assert probe_of(lambda X: X if X.dtype == np.float32 else 3 * X, X.astype(np.float32)).dtype == np.float32


def test_noise_is_measured():
    cancelling = probe_of(lambda X: (X + 1e8) - 1e8, X)
    assert 1e-9 < np.median(cancelling.noise) < 1e-7
    assert np.median(probe_of(lambda X: X * 3, X).noise) < 1e-15
    hidden = probe_of(lambda X: in_float32(X).astype(np.float64), X)  # float64 only by name
    assert 1e-10 < np.median(hidden.noise) < 1e-7


QUANTISED = lambda X: in_float32(X).astype(np.float64)  # noqa: E731
EXACT_SLOPES = [
    (lambda X: X @ A, lambda X, V: V @ A),
    (lambda X: X**2, lambda X, V: 2 * X * V),
    (lambda X: X**5, lambda X, V: 5 * X**4 * V),
    (np.tanh, lambda X, V: (1 - np.tanh(X) ** 2) * V),
    (lambda X: np.exp(np.abs(X)), lambda X, V: np.exp(np.abs(X)) * np.sign(X) * V),
    (lambda X: np.maximum(X, 0), lambda X, V: (X > 0) * V),
    (lambda X: np.sin(300 * X), lambda X, V: 300 * np.cos(300 * X) * V),
    (lambda X: 1e9 + np.tanh(X), lambda X, V: (1 - np.tanh(X) ** 2) * V),
    (lambda X: (X + 1e7) - 1e7, lambda X, V: V),
    (lambda X: 1e12 + X, lambda X, V: V),
    (
        QUANTISED,
        lambda X, V: softmax(X) * (V - (softmax(X) * V).sum(-1, keepdims=True)),
    ),
]


@pytest.mark.parametrize(("forward", "slope"), EXACT_SLOPES)
def test_the_bound_holds_and_is_not_loose(forward, slope):
    for seed in range(20):
        X = np.random.default_rng(seed).standard_normal((6, 5))
        probe = Probe(subject_of((forward, nothing), [X], {}), np.random.default_rng([seed, 1]))
        weights = probe.rng.standard_normal(X.size)
        found = probe.slope(0, probe.direction(0), weights)
        right = float(np.sum(found.weights.reshape(X.shape) * slope(X, found.direction)))
        if forward is QUANTISED and found.kinked:
            continue  # steps of float32 inside look like kinks to some lines
        assert not found.kinked
        assert abs(found.value - right) <= found.bound
        assert found.bound < 0.05 * np.linalg.norm(found.direction)


def test_the_bound_of_an_entry_holds():
    for forward, slope in EXACT_SLOPES[:5]:
        probe = probe_of(forward, X)
        weights = probe.rng.standard_normal(probe.Y.size)
        for index, column in zip(
            np.ndindex(X.shape), probe.columns(0, weights, list(np.ndindex(X.shape))), strict=True
        ):
            V = np.zeros_like(X)
            V[index] = 1
            products = weights * column.values
            allowed = column.rounding + column.truncation * np.abs(products).sum() + 1e-13 * np.abs(products).sum()
            assert abs(products.sum() - weights @ slope(X, V).reshape(-1)) <= allowed


class TestKinks:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_are_counted(self, dtype):
        Z = X.astype(dtype)
        Z[0, 0] = Z[2, 3] = 0
        assert probe_of(lambda X: np.maximum(X, 0), Z).kinks == 2
        assert probe_of(np.abs, Z).kinks == 2
        assert probe_of(lambda X: np.abs(X).sum(), Z).kinks == 1
        assert probe_of(np.sign, Z).kinks == 2  # a jump, too, has no slope

    @pytest.mark.parametrize(
        "forward", [np.tanh, softmax, lambda X: X**2, lambda X: np.sin(50 * X), lambda X: X + 1e10]
    )
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_smooth_functions_have_none(self, forward, dtype):
        for scale in (1e-3, 1, 1e3):
            assert probe_of(forward, (scale * X).astype(dtype)).kinks == 0

    def test_a_step_that_crosses_one_is_made_smaller(self):
        Z = np.full((3, 3), 1e-7)  # nearer than the usual step
        probe = probe_of(lambda X: np.abs(X).sum(), np.where(np.eye(3) > 0, Z, 1.0))
        slope = probe.slope(0, np.eye(3), np.ones(1))
        assert not slope.kinked
        assert slope.value == pytest.approx(3.0, abs=1e-6)

    def test_outputs_that_cross_one_lose_their_weight(self):
        Z = X.copy()
        Z[1, 1] = 0
        probe = probe_of(lambda X: np.maximum(X, 0), Z)
        slope = probe.slope(0, probe.direction(0), np.ones(Z.size))
        assert not slope.kinked
        assert np.flatnonzero(slope.weights == 0).tolist() == [6]
        one = np.zeros_like(Z)
        one[1, 1] = 1
        assert probe.slope(0, one, np.ones(Z.size)).kinked  # no other output is left


class TestWholeNumbers:
    def outcome(self, backward, forward=lambda X, W: X @ W, arrays=(X, A)):
        subject = subject_of((forward, backward), arrays, {})
        return [exact(Probe(subject, np.random.default_rng(3)), i, np.random.default_rng(4)) for i in (0, 1)]

    def test_a_right_gradient_passes_with_a_stated_probability_of_a_miss(self):
        for found in self.outcome(lambda dY, X, W: (dY @ W.T, X.T @ dY)):
            assert found.ok is True
            assert 0 < found.miss < 1e-8

    def test_one_unit_in_one_entry_is_found(self):
        def off(dY, X, W):
            dW = X.T @ dY
            dW[2, 1] += 1
            return dY @ W.T, dW

        assert [found.ok for found in self.outcome(off)] == [True, False]

    def test_of_third_degree(self):
        cube = lambda X, W: X**3 + W  # noqa: E731
        arrays = (X, X)
        right = self.outcome(lambda dY, X, W: (3 * X**2 * dY, dY), cube, arrays)
        wrong = self.outcome(lambda dY, X, W: (3 * X**2 * dY + X - X**2, dY), cube, arrays)
        assert [found.ok for found in right] == [True, True]
        assert [found.ok for found in wrong] == [False, True]

    @pytest.mark.parametrize(
        "forward", [lambda X, W: X @ W / 3, lambda X, W: np.tanh(X) @ W, lambda X, W: (X @ W).astype(np.float32)]
    )
    def test_says_nothing_where_numbers_are_not_whole(self, forward):
        assert self.outcome(lambda dY, X, W: (dY @ W.T, X.T @ dY), forward)[0].ok is None

    def test_no_alarm_beyond_a_kink(self):
        """Inactive at the inputs given, a hinge looks like the polynomial 0; at whole numbers it need not be."""
        for far in (3, 20, 50):
            hinge = lambda X, W, far=far: np.maximum(X - far, 0) + W  # noqa: E731
            right = lambda dY, X, W, far=far: (dY * (far < X), dY)  # noqa: E731
            assert self.outcome(right, hinge, (X, X))[0].ok is not False
