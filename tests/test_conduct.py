"""What else a backward pass gets wrong: each misbehaviour is planted alone, in a layer whose numbers are right."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import xwb

rng = np.random.default_rng(5)
X, W, V = rng.standard_normal((6, 4)), rng.standard_normal((4, 3)), rng.standard_normal((4, 3))


def forward(X, W):
    return X @ W


def backward(dY, X, W):
    return dY @ W.T, X.T @ dY


def faults(pair, *arrays):
    """The names of what is wrong beside the numbers, which have to be right."""
    report = xwb.check(pair, *(arrays or (X, W)))
    assert all(row.ok for row in report.rows), report
    return [finding.name for finding in report.findings if finding.ok is False]


def test_a_right_pair_has_no_fault_and_all_was_tried():
    report = xwb.check((forward, backward), X, W)
    assert report.ok
    assert [(f.name, f.detail) for f in report.findings if not f.ok] == [
        ("one array for two inputs", "no two inputs have the same shape")
    ]
    assert len(report.findings) == 15


def test_without_conduct_nothing_is_tried():
    report = xwb.check((forward, lambda dY, X, W: (dY @ W.T, (X.T @ dY).astype(np.float32) * 1.0)), X, W, conduct=False)
    assert report.findings == []


def test_dtype():
    narrow = (X.astype(np.float32), W.astype(np.float32))
    assert faults((forward, lambda dY, X, W: (dY @ W.T, (X.T @ dY).astype(np.float64))), *narrow) == ["dtype kept"]


class TestChanges:
    def test_an_input_in_forward(self):
        def adds(X, W):
            Y = X @ W
            W += 1
            return Y

        report = xwb.check((adds, lambda dY, X, W: backward(dY, X, W - 1)), X, W)
        assert all(row.ok for row in report.rows)
        assert "forward changed W" in [f.detail for f in report.findings if f.ok is False]

    def test_an_input_in_backward(self):
        def halves(dY, X, W):
            grads = dY @ W.T, X.T @ dY
            X *= 0.5
            return grads

        assert "nothing changed" in faults((forward, halves))

    def test_dY(self):
        def scales(dY, X, W):
            grads = dY @ W.T, X.T @ dY
            dY *= 2
            return grads

        assert "nothing changed" in faults((forward, scales))

    def test_saved(self):
        def keeps(X, W):
            return X @ W, {"inputs": [X.copy(), W.copy()]}

        def spends(dY, saved):
            X, W = saved["inputs"]
            grads = dY @ W.T, X.T @ dY
            saved["inputs"][0][...] = 0
            return grads

        report = xwb.check((keeps, spends), X, W)
        assert next((f.name, f.detail) for f in report.findings if f.ok is False) == (
            "nothing changed",
            "backward changed saved['inputs'][0]",
        )
        assert "callable twice" in [f.name for f in report.findings if f.ok is False]

    def test_the_callers_arrays_stay(self):
        def zeroing(dY, X, W):
            X[...] = W[...] = 0
            return backward(dY, X, W)

        before = X.copy(), W.copy()
        xwb.check((forward, zeroing), X, W)
        assert np.array_equal(before[0], X)
        assert np.array_equal(before[1], W)


class TestShares:
    def test_dY(self):
        assert faults((lambda X: X + 1, lambda dY, X: dY), X) == ["nothing shared"]
        assert faults((lambda X: X + 1, lambda dY, X: dY[::1]), X) == ["nothing shared"]
        assert faults((lambda X: X + 1, lambda dY, X: dY.copy()), X) == []

    def test_another_gradient(self):
        def same(dY, X, Z):
            both = dY.copy()
            return both, both

        assert faults((lambda X, Z: X + Z, same), X, 2 * X) == ["nothing shared"]

    def test_an_array_of_its_own(self):
        out = {}

        def reused(dY, X):
            buffer = out.setdefault(dY.shape, np.zeros(dY.shape))
            np.multiply(dY, 2, out=buffer)
            return buffer

        assert "nothing shared" in [f.name for f in xwb.check((lambda X: 2 * X, reused), X).findings if f.ok is False]


class TestCalls:
    def test_a_second_one(self):
        def keeps(X, W):
            return X @ W, [X, W]

        def pops(dY, saved):
            W, X = saved.pop(), saved.pop()
            return dY @ W.T, X.T @ dY

        report = xwb.check((keeps, pops), X, W)
        assert next(f for f in report.findings if f.name == "callable twice").detail.startswith("it raised IndexError")

    def test_after_another_forward_pass(self):
        kept = {}

        def remembers(X, W):
            kept["X"], kept["W"] = X, W
            return X @ W

        assert "after another forward pass" in faults((remembers, lambda dY, X, W: backward(dY, kept["X"], kept["W"])))

    def test_random(self):
        draws = np.random.default_rng(0)

        def dropped(dY, X, W):
            grads = backward(dY, X, W)
            return grads[0], grads[1] * (draws.random(grads[1].shape) > 0.5)

        report = xwb.check((forward, dropped), X, W)
        assert "deterministic" in [f.name for f in report.findings if f.ok is False]

    def test_two_threads(self):
        shared = {"dY": None}
        barrier = threading.Barrier(2)

        def through_a_global(dY, X, W):
            shared["dY"] = dY
            try:
                barrier.wait(0.2 if threading.active_count() > 1 else 0)  # lets the other thread write
            except threading.BrokenBarrierError:
                barrier.reset()
            return backward(shared["dY"], X, W)

        assert faults((forward, through_a_global)) == ["two threads"]


class TestOfDY:
    def test_ignored_at_this_point(self):
        """The gradients of a sum are right for dY = 1 only."""
        report = xwb.check((lambda X: np.sum(X**2), lambda dY, X: 2 * X), X)
        assert not report.ok
        assert {f.name for f in report.findings if f.ok is False} >= {"depends on dY", "linear in dY"}

    def test_not_linear(self):
        clipped = lambda dY, X, W: backward(np.clip(dY, -3.5, 3.5), X, W)  # noqa: E731
        assert "large and tiny dY" in faults((forward, clipped))
        biased = lambda dY, X, W: (dY @ W.T, X.T @ dY + 1e-18)  # noqa: E731
        assert set(faults((forward, biased))) & {"linear in dY", "large and tiny dY"}


class TestInputs:
    def test_fortran_order(self):
        raveled = lambda dY, X: (2 * dY * X.ravel(order="K").reshape(X.shape),)  # noqa: E731
        assert faults((lambda X: X**2, raveled), X) == ["strided and Fortran-ordered arrays"]

    def test_strided_dY(self):
        def by_pointer(dY, X):
            flat = np.lib.stride_tricks.as_strided(dY, (dY.size,), (dY.itemsize,)) if dY.size else dY.reshape(-1)
            return 2 * flat.reshape(dY.shape)

        assert faults((lambda X: 2 * X, by_pointer), X) == ["strided and Fortran-ordered arrays"]

    def test_one_array_for_two(self):
        def by_identity(dY, X, Z):
            grads = {id(X): dY * Z, id(Z): dY * X.copy()}
            grads = {id(X): dY * Z} | ({id(Z): dY * X} if X is not Z else {id(X): 2 * dY * X})
            return grads[id(X)], grads[id(Z)]

        assert faults((lambda X, Z: X * Z, by_identity), X, 2 * X) == ["one array for two inputs"]

    def test_one_example(self):
        def squeezing(dY, X, W):
            dY, X = np.squeeze(dY), np.squeeze(X)
            return (dY @ W.T).reshape(-1, 4), X.T @ dY

        assert faults((forward, squeezing)) == ["N = 1"]

    def test_no_example(self):
        def starting_from_the_first(dY, X, W):
            dW = np.outer(X[0], dY[0])
            for x, dy in zip(X[1:], dY[1:], strict=True):
                dW += np.outer(x, dy)
            return dY @ W.T, dW

        assert faults((forward, starting_from_the_first)) == ["N = 0"]

    def test_a_loss_over_examples_and_labels(self):
        y = np.array([0, 2, 1, 1, 0, 2])

        def loss(Z, y):
            return -np.mean((Z - np.log(np.exp(Z).sum(1, keepdims=True)))[np.arange(len(y)), y])

        def always_six(dL, Z, y):
            P = np.exp(Z) / np.exp(Z).sum(1, keepdims=True)
            P[np.arange(len(y)), y] -= 1
            return dL * P / 6, None

        assert faults((loss, always_six), rng.standard_normal((6, 3)), y) == ["N = 1"]

    def test_positions_are_no_examples(self):
        """Cutting a table would leave its positions out of bounds."""
        E, k = rng.standard_normal((5, 3)), np.array([0, 4, 4, 2])

        def gathered(dY, E, k):
            dE = np.zeros_like(E)
            np.add.at(dE, k, dY)
            return dE, None

        assert faults((lambda E, k: E[np.minimum(k, len(E) - 1)] if len(E) else E, gathered), E, k) == []

    def test_large_ones(self):
        def softmax(X):
            E = np.exp(X - X.max(axis=1, keepdims=True, initial=-np.inf))
            return E / E.sum(axis=1, keepdims=True)

        def overflowing(dY, X):
            E = np.exp(X)
            P = E / E.sum(axis=1, keepdims=True)
            return P * (dY - (P * dY).sum(axis=1, keepdims=True))

        report = xwb.check((softmax, overflowing), X)
        (fault,) = [f for f in report.findings if f.ok is False]
        assert fault.name == "large and tiny inputs"
        assert "not finite, though Y is" in fault.detail

    def test_tiny_ones(self):
        def with_epsilon(dY, X):
            return (
                dY / (2 * np.sqrt(np.abs(X)) + 1e-12) * np.sign(X) if X.size == 0 or np.abs(X).max() > 0.1 else 0 * dY
            )

        assert faults((lambda X: np.sqrt(np.abs(X)), lambda dY, X: with_epsilon(dY, X)), X) == ["large and tiny inputs"]


def test_faults_are_told_and_raised():
    report = xwb.check((lambda X: X + 1, lambda dY, X: dY), X)
    assert not report.ok
    assert "the gradients agree with finite differences, but the backward pass is not sound" in str(report)
    assert "Wrong: nothing shared: dX shares its memory with dY" in str(report)
    with pytest.raises(xwb.ProofError, match="nothing shared"):
        report.raise_if_wrong()
