"""The factored gradient: right in every operation, refusing every other, and safe where BLAS is not."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest

import xwb
from _tolerances import assert_close

DTYPES = [np.float32, np.float64]
rng = np.random.default_rng(0)


def factored(shape=(5, 3), M=4, dtype=np.float64):
    """(dW, X, dY)."""
    X = rng.standard_normal(shape).astype(dtype)
    dY = rng.standard_normal((*shape[:-1], M)).astype(dtype)
    return xwb.FactoredGradient(X, dY), X, dY


def per_example(X, dY):
    """The N×D×M gradients in float64 by einsum, which shares no code with the library."""
    X, dY = (A.reshape(len(A), -1, A.shape[-1]).astype(np.float64) for A in (X, dY))
    return np.einsum("ntd,ntm->ndm", X, dY)


def dense(X, dY):
    return per_example(X, dY).sum(axis=0)


SHAPES = [(5, 3), (1, 3), (2, 6, 3), (2, 2, 3, 4)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
class TestValues:
    def test_dense(self, shape, dtype):
        dW, X, dY = factored(shape, dtype=dtype)
        assert_close(np.asarray(dW), dense(X, dY).astype(dtype))
        assert np.asarray(dW, np.float64).dtype == np.float64
        assert (dW.shape, dW.dtype, dW.ndim) == ((shape[-1], 4), np.dtype(dtype), 2)

    def test_operations(self, shape, dtype):
        dW, X, dY = factored(shape, dtype=dtype)
        G = dense(X, dY).astype(dtype)
        B, v = (rng.standard_normal(size).astype(dtype) for size in ((4, 2), 4))
        A = rng.standard_normal((2, shape[-1])).astype(dtype)
        for actual, expected in [
            (0.5 * dW, 0.5 * G),
            (dW * np.float64(0.5), 0.5 * G),
            (np.float64(0.5) * dW, 0.5 * G),
            (dW / 4, G / 4),
            (-dW, -G),
            (dW + dW, 2 * G),
            (dW.T, G.T),
            (dW.T.T, G),
            (dW @ B, G @ B),
            (dW @ v, G @ v),
            (A @ dW, A @ G),
            (v @ dW.T, v @ G.T),
            (sum([dW, dW, dW]), 3 * G),
        ]:
            assert_close(np.asarray(actual), expected, times=10)

    def test_norms_and_moments(self, shape, dtype):
        dW, X, dY = factored(shape, dtype=dtype)
        dW = -0.5 * dW
        g = -0.5 * per_example(X, dY)
        assert dW.norm() == pytest.approx(np.linalg.norm(g.sum(0)), rel=1e-6 if dtype == np.float32 else 1e-12)
        assert_close(dW.per_example(), g.astype(dtype))
        assert_close(dW.per_example_norms(), np.sqrt((g**2).sum((1, 2))), times=10)
        assert_close(dW.second_moment(), (g**2).sum(0).astype(dtype), times=10)
        assert dW.examples == shape[0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_step_in_place(shape, dtype, order):
    dW, X, dY = factored(shape, dtype=dtype)
    W = np.array(rng.standard_normal((shape[-1], 4)), dtype, order=order)
    expected = (W - 0.1 * dense(X, dY)).astype(dtype)
    same = W
    W -= 0.1 * dW
    assert W is same
    assert_close(W, expected)
    W += 0.1 * dW
    assert_close(W, (expected + 0.1 * dense(X, dY)).astype(dtype))


class TestTheStepWhereBlasDoesNotProtectUs:
    def test_read_only_is_refused_as_numpy_refuses(self):
        dW, _, _ = factored()
        W = np.ones((3, 4))
        W.flags.writeable = False
        with pytest.raises(ValueError, match="output array is read-only"):
            W -= dW
        assert (W == 1).all()

    def test_integers_are_refused_as_numpy_refuses(self):
        dW, _, _ = factored()
        W = np.ones((3, 4), np.int64)
        with pytest.raises(TypeError, match="Cannot cast ufunc"):
            W -= dW
        assert (W == 1).all()

    @pytest.mark.parametrize("which", ["X", "dY", "both"])
    def test_W_shares_memory_with_a_factor(self, which):
        n = 600  # BLAS copies small matrices before it writes; this it does not
        memory = rng.standard_normal((2 * n, n))
        X, dY = rng.standard_normal((n, n)), rng.standard_normal((n, n))
        W = memory[:n]
        if which in ("X", "both"):
            X = memory[n // 2 : n // 2 + n]
        if which in ("dY", "both"):
            dY = memory[n // 3 : n // 3 + n]
        expected = W - 0.1 * dense(X, dY)
        W -= 0.1 * xwb.FactoredGradient(X, dY)
        assert_close(W, expected)

    @pytest.mark.parametrize("view", [np.s_[::2, :], np.s_[:, ::2], np.s_[::-1, ::3], np.s_[1:4, 1:5]])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
    @pytest.mark.parametrize("factor_dtype", DTYPES)
    def test_other_strides_and_dtypes_step_W_itself(self, view, dtype, factor_dtype):
        memory = rng.standard_normal((1100, 1100)).astype(dtype)  # larger than a tile
        W = memory[view]
        X, dY = (rng.standard_normal((3, size)).astype(factor_dtype) for size in W.shape)
        expected = memory.astype(np.float64)
        expected[view] -= 0.1 * dense(X, dY)
        W -= 0.1 * xwb.FactoredGradient(X, dY)
        lowest = max(np.dtype(dtype), np.dtype(factor_dtype), key=lambda t: np.finfo(t).eps)
        assert np.abs(memory - expected).max() < 20 * np.finfo(lowest).eps

    @pytest.mark.parametrize(("N", "D", "M"), [(0, 3, 4), (5, 0, 4), (5, 3, 0), (0, 0, 0)])
    def test_empty_axes(self, N, D, M):
        dW = xwb.FactoredGradient(np.ones((N, D)), np.ones((N, M)))
        W = np.ones((D, M))
        W -= 0.1 * dW
        assert_close(W, np.ones((D, M)) - 0.1 * N)
        assert np.asarray(dW).shape == (D, M)
        assert dW.norm() == pytest.approx(np.sqrt(N**2 * D * M))
        assert dW.per_example().shape == (N, D, M)
        assert dW.per_example_norms().shape == (N,)
        assert_close(dW.second_moment(), np.full((D, M), float(N)))
        velocity = np.full((D, M), 2.0)
        dW.add_into(velocity, beta=0.5)
        assert_close(velocity, np.full((D, M), 1.0 + N))

    def test_dX_taken_before_the_step_is_right_and_after_it_is_not(self):
        X, W, dY = rng.standard_normal((5, 3)), rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
        _, back = xwb.linear(X, W)
        before = dY @ W.T
        dX, dW, _ = back(dY, factored=True)
        W -= 0.1 * dW
        assert_close(dX, before)
        assert np.abs(back(dY).X - before).max() > 1e-3  # W is borrowed: the docstring says so

    def test_a_wrong_shape(self):
        dW, _, _ = factored()
        W = np.ones((4, 3))
        with pytest.raises(xwb.ShapeError, match=r"\(3, 4\) cannot be added into an array of shape \(4, 3\)"):
            W -= dW

    def test_memory_map(self, tmp_path):
        W = np.memmap(tmp_path / "W", np.float64, "w+", shape=(3, 4))
        dW, X, dY = factored()
        W -= dW
        assert_close(np.array(W), -dense(X, dY))


def test_it_borrows_and_copy_owns():
    dW, X, dY = factored()
    owned = dW.copy()
    expected = dense(X, dY)
    X *= 2
    assert_close(np.asarray(dW), 2 * expected)
    assert_close(np.asarray(owned), expected)
    assert np.shares_memory(dW.terms[0].left, X)


def test_pickle_and_repr():
    dW, X, dY = factored()
    again = pickle.loads(pickle.dumps(-0.5 * dW))
    assert_close(np.asarray(again), -0.5 * dense(X, dY))
    assert repr(dW) == "FactoredGradient(3×4 float64: 1 term over 5 examples, 280 bytes of factors for 96 bytes dense)"


@pytest.mark.parametrize(
    "operation",
    [
        lambda dW: dW - dW,
        lambda dW: dW + 1,
        lambda dW: 1 + dW,
        lambda dW: dW + np.ones((3, 4)),
        lambda dW: np.ones((3, 4)) + dW,
        lambda dW: np.ones((3, 4)) - dW,
        lambda dW: dW * np.ones((3, 4)),
        lambda dW: np.ones((3, 4)) * dW,
        lambda dW: dW * 1j,
        lambda dW: dW / np.ones((3, 4)),
        lambda dW: 1 / dW,
        lambda dW: dW**2,
        lambda dW: abs(dW),
        lambda dW: +dW,
        lambda dW: ~dW,
        lambda dW: 5 % dW,
        lambda dW: divmod(dW, 2),
        lambda dW: dW * np.array(1j),
        lambda dW: dW.__setitem__(0, 1),
        lambda dW: dW[0],
        lambda dW: len(dW),
        lambda dW: list(dW),
        lambda dW: float(dW),
        lambda dW: dW == 0,
        lambda dW: dW > 0,
        lambda dW: bool(dW),
        lambda dW: dW @ dW,
        lambda dW: np.exp(dW),
        lambda dW: np.sum(dW),
        lambda dW: np.linalg.norm(dW),
        lambda dW: np.dot(dW, np.ones(4)),
        lambda dW: np.add.reduce(dW),
        lambda dW: np.multiply.outer(2.0, dW),
        lambda dW: np.multiply(2.0, dW, where=False),
        lambda dW: np.add(np.ones((3, 4)), dW, out=np.ones((3, 4))),
        lambda dW: dW.sum(),
        lambda dW: dW.reshape(12),
    ],
)
def test_everything_else_raises_and_says_what_to_type(operation):
    dW, _, _ = factored()
    with pytest.raises(TypeError, match=r"np\.asarray\(dW\)"):
        operation(dW)


def test_a_probe_for_an_attribute_is_answered():
    assert not hasattr(factored()[0], "sum")


class TestAddition:
    def test_micro_batches_keep_their_factors_until_dense_is_smaller(self):
        D, M = 40, 50
        whole = np.zeros((D, M))
        total = None
        kinds = []
        for _ in range(12):
            dW, X, dY = factored((4, D), M)
            whole += dense(X, dY)
            total = dW if total is None else total + dW
            kinds.append(bool(total.terms))
            assert_close(np.asarray(total), whole, times=10)
            assert total.nbytes < 2 * D * M * 8
        assert kinds[0]
        assert not all(kinds)
        W = np.zeros((D, M))
        W -= 0.5 * total
        assert_close(W, -0.5 * whole, times=10)
        assert total.norm() == pytest.approx(np.linalg.norm(whole))
        assert_close(total.T @ np.ones(D), whole.T @ np.ones(D), times=10)

    def test_other_examples_are_counted_on(self):
        (one, X1, dY1), (two, X2, dY2) = factored((2, 30), 40), factored((3, 30), 40)
        both = one + 2 * two
        assert both.examples == 5
        g = np.concatenate([per_example(X1, dY1), 2 * per_example(X2, dY2)])
        assert_close(both.per_example(), g)
        assert_close(both.per_example_norms(), np.sqrt((g**2).sum((1, 2))))
        assert_close(both.second_moment(), (g**2).sum(0))
        assert both.norm() == pytest.approx(np.linalg.norm(g.sum(0)))

    def test_a_tied_weight_adds_within_the_example(self):
        (one, X1, dY1), (two, X2, dY2) = factored((5, 3), 4), factored((5, 2, 3), 4)
        both = one.add(-two, same_examples=True)
        assert both.examples == 5
        g = per_example(X1, dY1) - per_example(X2, dY2)
        assert_close(both.per_example(), g)
        assert_close(both.per_example_norms(), np.sqrt((g**2).sum((1, 2))))
        assert_close(both.second_moment(), (g**2).sum(0))
        assert_close(np.asarray(both), g.sum(0))
        with pytest.raises(xwb.ShapeError, match="same_examples=True"):
            one.add(factored((4, 3), 4)[0], same_examples=True)

    def test_per_example_quantities_are_lost_with_the_factors(self):
        total = factored()[0] + factored()[0]
        for quantity in ("per_example", "per_example_norms", "second_moment"):
            with pytest.raises(xwb.XwbError, match="before adding"):
                getattr(total, quantity)()

    def test_products_that_do_not_fit_are_named_as_typed(self):
        dW, _, _ = factored()
        with pytest.raises(xwb.ShapeError, match=r"dW @ B: dW is \(3, 4\) and B is \(3,\)"):
            dW @ np.ones(3)
        with pytest.raises(xwb.ShapeError, match=r"A @ dW: A is \(5, 2\) and dW is \(3, 4\)"):
            np.ones((5, 2)) @ dW

    def test_a_dense_part_takes_part_in_everything(self):
        dW, X, dY = factored((9, 3), 4)
        total, G = dW + dW, 2 * dense(X, dY)
        assert not total.terms
        v, strided = rng.standard_normal(4), np.zeros((6, 4))[::2]
        copied = (0.5 * total).copy()
        assert not np.shares_memory(copied._dense[1], total._dense[1])
        assert_close(np.asarray(copied), 0.5 * G)
        assert (0.5 * total).norm() == pytest.approx(0.5 * np.linalg.norm(G))
        assert_close((0.5 * total) @ v, 0.5 * G @ v, times=10)
        assert_close(np.asarray(total.add(dW, same_examples=True)), 1.5 * G)
        strided -= 0.5 * total
        assert_close(strided, -0.5 * G)

    def test_only_what_fits(self):
        dW, _, _ = factored()
        with pytest.raises(xwb.ShapeError, match="cannot be added"):
            dW + dW.T
        with pytest.raises(xwb.DtypeError):
            dW + factored(dtype=np.float32)[0]


class TestCancellation:
    """Σ_n g_n nearly zero although every g_n is large: the Gram form alone would return noise."""

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_norm(self, dtype):
        X = rng.standard_normal((1, 200)).astype(dtype)
        dY = rng.standard_normal((1, 300)).astype(dtype)
        nearly = dY + dY * dtype(1e-6) * rng.standard_normal(300).astype(dtype)
        X, dY = np.concatenate([X, X]), np.concatenate([dY, -nearly])
        expected = np.linalg.norm(dense(X, dY))
        assert xwb.FactoredGradient(X, dY).norm() == pytest.approx(expected, rel=1e-9)

    def test_per_example_norm_of_a_sequence(self):
        x, g = rng.standard_normal(200), rng.standard_normal(300)
        X = np.stack([[x, x], [x, 2 * x]])
        dY = np.stack([[g, -g * (1 + 1e-9)], [g, g]])
        expected = [np.linalg.norm(one) for one in per_example(X, dY)]
        assert np.allclose(xwb.FactoredGradient(X, dY).per_example_norms(), expected, rtol=1e-6)

    def test_exactly_zero_and_not_finite(self):
        X, dY = np.ones((2, 30)), np.array([[1.0] * 30, [-1.0] * 30])
        assert xwb.FactoredGradient(X, dY).norm() == 0.0
        X[0, 0] = np.nan
        assert np.isnan(xwb.FactoredGradient(X, dY).norm())


@pytest.mark.parametrize(("N", "D", "M"), [(3, 700, 40), (600, 20, 30), (700, 1100, 600)])
def test_norm_by_gram_and_by_tiles(N, D, M):
    dW, X, dY = factored((N, D), M, np.float32)
    assert dW.norm() == pytest.approx(np.linalg.norm(dense(X, dY)), rel=1e-9)


def test_more_rows_than_are_widened_at_a_time():
    dW, X, dY = factored((5000, 3), 4)
    assert dW.norm() == pytest.approx(np.linalg.norm(dense(X, dY)), rel=1e-12)
    V = np.zeros((6, 4))[::2]
    V -= dW
    assert_close(V, -dense(X, dY), times=10)
    assert_close(dW.second_moment(), (per_example(X, dY) ** 2).sum(0), times=10)


def test_the_cheaper_form_of_the_norm_is_taken(monkeypatch):
    few, many = factored((3, 700), 600)[0], factored((600, 20), 30)[0]
    monkeypatch.setattr(xwb.FactoredGradient, "_tiles", lambda *_: pytest.fail("tiles"))
    few.norm()
    monkeypatch.undo()
    monkeypatch.setattr(xwb.FactoredGradient, "_gram", lambda *_: pytest.fail("Gram"))
    many.norm()


def test_beta_zero_overwrites_what_a_strided_array_holds():
    dW, X, dY = factored()
    V = np.full((6, 4), np.nan)[::2]
    dW.add_into(V, beta=0.0)
    assert_close(V, dense(X, dY))


def test_float32_squares_do_not_overflow_apart():
    X, dY = np.full((1, 1), 1e25, np.float32), np.full((1, 1), 1e-25, np.float32)
    assert_close(xwb.FactoredGradient(X, dY).second_moment(), np.ones((1, 1), np.float32))


def test_one_example_without_leading_axes():
    dW = xwb.FactoredGradient(np.ones(3), np.ones(4))
    assert (dW.examples, dW.shape) == (1, (3, 4))
    assert_close(np.asarray(np.negative(dW)), -np.ones((3, 4)))


class TestClipPerExample:
    def net(self):
        net = xwb.chain(xwb.linear, xwb.tanh, xwb.linear)
        params = net.init((3, 4, 2), rng=0, dtype=np.float64)
        X, y = rng.standard_normal((6, 3)), np.array([0, 1, 1, 0, 1, 0])
        return net, params, X, y

    def example_gradients(self, net, params, X, y):
        """One backward pass per example: the independent way."""
        rows = []
        for n in range(len(X)):
            Y, back = net(X[n : n + 1], *params)
            _, loss_back = xwb.softmax_cross_entropy(Y, y[n : n + 1])
            rows.append([g / len(X) for g in back(loss_back())[1:]])  # the mean over N
        return rows

    @pytest.mark.parametrize("c", [0.01, 0.05, 100.0])
    def test_against_one_pass_per_example(self, c):
        net, params, X, y = self.net()
        Y, back = net(X, *params)
        grads = back(xwb.softmax_cross_entropy(Y, y)[1](), factored=True)
        clipped = xwb.clip_per_example(grads, c)
        rows = self.example_gradients(net, params, X, y)
        norms = [np.sqrt(sum(np.sum(g**2) for g in row)) for row in rows]
        for k, actual in enumerate(clipped[1:]):
            expected = sum(min(1, c / norm) * row[k] for norm, row in zip(norms, rows, strict=True))
            assert_close(np.asarray(actual), expected, times=100)  # examples nearly cancel in db
        assert isinstance(clipped.W1, xwb.FactoredGradient)
        assert np.array_equal(clipped.X, grads.X)
        as_list = xwb.clip_per_example(list(grads[1:]), c)
        for one, other in zip(as_list, clipped[1:], strict=True):
            assert np.array_equal(np.asarray(one), np.asarray(other))

    def test_tied_weights_and_sequences(self):
        net = xwb.chain(xwb.linear, xwb.tanh, xwb.linear, tie={"W2": "W1.T"})
        params = net.init((3, 4, 3), rng=0, dtype=np.float64)
        X, T = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2, 3))
        Y, back = net(X, *params)
        clipped = xwb.clip_per_example(back(xwb.squared_error(Y, T, reduction="sum")[1](), factored=True), 0.5)
        expected = [np.zeros_like(p) for p in params]
        for n in range(len(X)):
            Y, back = net(X[n], *params)
            grads = back(xwb.squared_error(Y, T[n], reduction="sum")[1]())[1:]
            factor = min(1.0, 0.5 / np.sqrt(sum(np.sum(g**2) for g in grads)))
            for total, g in zip(expected, grads, strict=True):
                total += factor * g
        for actual, wanted in zip(clipped[1:], expected, strict=True):
            assert_close(np.asarray(actual), wanted, times=10)

    def test_a_bias_gradient_that_vanishes_is_still_recognised(self):
        X = rng.standard_normal((1000, 5)).astype(np.float32)
        dY = rng.standard_normal((1000, 3)).astype(np.float32)
        dY -= dY.mean(axis=0)
        W, b = np.zeros((5, 3), np.float32), np.zeros(3, np.float32)
        clipped = xwb.clip_per_example(xwb.linear(X, W, b)[1](dY, factored=True), 1.0)
        norms = np.sqrt(1 + (X.astype(np.float64) ** 2).sum(1)) * np.linalg.norm(dY.astype(np.float64), axis=1)
        factors = np.minimum(1, 1 / norms)[:, None]
        assert_close(clipped.b, (factors * dY).sum(0).astype(np.float32), times=10)

    def test_micro_batches_any_order_and_examples_without_gradient(self):
        X, dY = rng.standard_normal((5, 30)), rng.standard_normal((5, 40))
        X[2] = 0
        whole = xwb.FactoredGradient(X, dY)
        parts = xwb.FactoredGradient(X[:2], dY[:2]) + xwb.FactoredGradient(X[2:], dY[2:])
        expected = np.asarray(xwb.clip_per_example([whole], 3.0)[0])
        assert_close(np.asarray(xwb.clip_per_example([parts], 3.0)[0]), expected)
        db = dY.sum(0)
        other = xwb.FactoredGradient(rng.standard_normal((5, 7)), rng.standard_normal((5, 40)))
        first = xwb.clip_per_example([whole, db, other], 3.0)
        second = xwb.clip_per_example([other, whole, db], 3.0)
        assert_close(first[1], second[2])

    def test_the_bound_holds_where_the_factor_alone_is_subnormal(self):
        X, dY = np.full((1, 1), 1e20, np.float32), np.full((1, 1), 1e17, np.float32)
        (clipped,) = xwb.clip_per_example([xwb.FactoredGradient(X, dY)], 1e-8)
        assert clipped.norm() == pytest.approx(1e-8, rel=1e-6)

    def test_different_numbers_of_examples(self):
        with pytest.raises(xwb.ShapeError, match=r"different numbers of examples, \[4, 5\]"):
            xwb.clip_per_example([factored((4, 3))[0], factored((5, 3))[0]], 1.0)

    def test_what_it_cannot_do(self):
        net, params, X, y = self.net()
        Y, back = net(X, *params)
        dY = xwb.softmax_cross_entropy(Y, y)[1]()
        grads = back(dY, factored=True)
        with pytest.raises(xwb.OptionError, match="positive"):
            xwb.clip_per_example(grads, 0.0)
        with pytest.raises(xwb.DataError, match="no factored gradient"):
            xwb.clip_per_example(back(dY), 1.0)
        with pytest.raises(xwb.DataError, match="is that of no bias used once"):
            xwb.clip_per_example([grads.W1, grads.b1 + 1], 1.0)
        dY[3] = np.inf
        with pytest.raises(xwb.DataError, match="example 3 has the norm inf"), np.errstate(invalid="ignore"):
            xwb.clip_per_example(back(dY, needs=("W2", "b2"), factored=True), 1.0)


def test_constructor_refuses_what_does_not_belong_together():
    with pytest.raises(xwb.ShapeError, match="leading axes differ"):
        xwb.FactoredGradient(np.ones((5, 3)), np.ones((4, 2)))
    with pytest.raises(xwb.DtypeError):
        xwb.FactoredGradient(np.ones((5, 3)), np.ones((5, 2), np.float32))


def test_a_whole_step_allocates_less_than_a_tenth_of_W():
    N, D, M = 16, 2048, 2048
    X, W, b = (np.ones(shape, np.float32) for shape in ((N, D), (D, M), (M,)))
    y = np.zeros(N, np.int64)

    def step():
        nonlocal W, b
        Y, back = xwb.linear(X, W, b)
        _, loss_back = xwb.softmax_cross_entropy(Y, y)
        _, dW, db = back(loss_back(), factored=True)
        W -= 0.1 * dW
        b -= 0.1 * db
        return dW.norm(), dW.per_example_norms()

    step()
    tracemalloc.start()
    step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < W.nbytes / 10


def test_there_is_no_dense_matrix_to_share():
    with pytest.raises(ValueError, match="no dense matrix to share"):
        np.array(factored()[0], copy=False)
