"""What the five source texts state, each in its own letters, layout and batch reduction.

The sources, by the short names used in the docstrings and test ids:

* 000: slides, Y = XW, X: B×d_in, W: d_in×d_out, cost C
* 001: handwritten notes, Y = W Xᵀ + b then transposed, W: m×n (outputs first), K examples
* 002: notes in numerator layout, y = xW + b, ∂L/∂y: M_out×N
* 003: handwritten, the slides' derivation by hand
* 004: J. Johnson, "Backpropagation for a Linear Layer" (April 19, 2017), Y = XW, example N = 2, D = 2, M = 3

The expected values come from Python loops over exact integers, never from a matrix product; with integers in
float64 every comparison below is ``==``, unless a softmax stands in it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import xwb
from _tolerances import assert_close

N, D, M = 5, 4, 3


def integers(*shape: int, seed: int = 0) -> np.ndarray:
    """Small nonzero integers as float64: every product and sum of them below is exact."""
    rng = np.random.default_rng([seed, *shape])
    return (rng.integers(1, 10, shape) * rng.choice([-1, 1], shape)).astype(np.float64)


def equal(actual: object, expected: object) -> None:
    """Same shape and every entry ``==``."""
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected, dtype=np.float64), strict=True)


def central_difference(loss, array: np.ndarray, index: tuple[int, ...]) -> float:
    """(loss(a + 1) − loss(a − 1)) / 2 at one entry: exact for a loss linear in the entry."""
    plus, minus = array.copy(), array.copy()
    plus[index] += 1
    minus[index] -= 1
    return (loss(plus) - loss(minus)) / 2


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X: N×D, W: D×M, b: M, dY: N×M, in the library's layout."""
    return integers(N, D), integers(D, M), integers(M), integers(N, M)


class TestSource000:
    """000, slides: Y = XW, X: B×d_in, W: d_in×d_out; ∂C/∂Y has the shape of Y."""

    def test_each_output_is_a_weighted_sum(self):
        """000: (x1, x2) -> (y1, y2, y3) with y_j = w_1j x_1 + w_2j x_2."""
        (x1, x2), w = (3.0, -2.0), [[2.0, 5.0, -1.0], [4.0, -3.0, 7.0]]
        Y, _ = xwb.linear(np.array([[x1, x2]]), np.array(w))
        y1 = w[0][0] * x1 + w[1][0] * x2
        y2 = w[0][1] * x1 + w[1][1] * x2
        y3 = w[0][2] * x1 + w[1][2] * x2
        equal(Y, [[y1, y2, y3]])

    def test_batch_reuses_the_matrix_form(self, batch):
        """000, "Dealing with Batches": every row of Y is the single-example form of that row of X."""
        X, W, _, _ = batch
        Y, _ = xwb.linear(X, W)
        assert Y.shape == (N, M)
        for n in range(N):
            equal(Y[n], [sum(X[n, d] * W[d, m] for d in range(D)) for m in range(M)])
            equal(xwb.linear(X[n : n + 1], W)[0], Y[n : n + 1])

    def test_bias_as_a_column_of_ones(self, batch):
        """000: "How would you handle the bias term? Append a 1 to each input in X.\""""
        X, W, b, dY = batch
        ones, folded = xwb.append_ones(X), xwb.fold_bias(W, b)
        equal(ones, [[*X[n], 1] for n in range(N)])
        equal(folded, [*W, b])
        Y, back = xwb.linear(X, W, b)
        Y_folded, back_folded = xwb.linear(ones, folded)
        equal(Y_folded, Y)
        dX, dW, db = back(dY)
        d_ones, d_folded, absent = back_folded(dY)
        equal(d_ones[:, :D], dX)
        equal(d_folded, [*dW, db])
        assert absent is None

    def test_gradient_of_the_scores_has_their_shape(self, batch):
        """000, "Structure of ∂C/∂Y": C is a scalar, ∂C/∂Y has the size of Y."""
        X, W, _, _ = batch
        Y, _ = xwb.linear(X, W)
        C, back = xwb.squared_error(Y, np.zeros_like(Y), reduction="sum")
        assert np.ndim(C) == 0
        equal(back(), [[2 * Y[n, m] for m in range(M)] for n in range(N)])

    def test_jacobian_for_one_example_is_w_transposed(self, batch):
        """000, "Setting up the Jacobian": ∂y_j/∂x_i = w_ij, the matrix Wᵀ."""
        X, W, _, _ = batch
        J = xwb.jacobian(xwb.linear, X[:1], W, wrt="X")
        assert J.shape == (1, M, 1, D)
        equal(J[0, :, 0, :], [[W[i, j] for i in range(D)] for j in range(M)])

    def test_gradient_of_the_input(self, batch):
        """000: ∂C/∂x_i = Σ_j ∂C/∂y_j w_ij; for a batch ∂C/∂X = ∂C/∂Y Wᵀ."""
        X, W, _, dY = batch
        dX = xwb.linear(X, W)[1](dY).X
        equal(dX, [[sum(dY[n, j] * W[i, j] for j in range(M)) for i in range(D)] for n in range(N)])

    def test_gradient_of_the_weights_entry_by_entry(self, batch):
        """000: for one example ∂C/∂w_ij = ∂C/∂y_j · x_i, together Xᵀ ∂C/∂Y."""
        X, W, _, dY = batch
        dW = xwb.linear(X[:1], W)[1](dY[:1]).W
        equal(dW, [[dY[0, j] * X[0, i] for j in range(M)] for i in range(D)])

    def test_gradient_of_the_weights_for_a_batch(self, batch):
        """000: ∂C/∂W = Xᵀ ∂C/∂Y for batch input, the sum of the single-example ones."""
        X, W, _, dY = batch
        dW = xwb.linear(X, W)[1](dY).W
        assert dW.shape == W.shape
        equal(dW, [[sum(X[n, i] * dY[n, j] for n in range(N)) for j in range(M)] for i in range(D)])

    def test_where_the_two_gradients_go(self, batch):
        """000, "Observations": ∂C/∂X goes on to the earlier layer, ∂C/∂W updates this layer's W."""
        X, W1, _, _ = batch
        W2 = integers(M, 2)
        dY = integers(N, 2, seed=1)
        net = xwb.chain(xwb.linear, xwb.linear)
        Y, back = net(X, W1, None, W2, None)
        dX, dW1, _, dW2, _ = back(dY)
        H, back_1 = xwb.linear(X, W1)
        Y_2, back_2 = xwb.linear(H, W2)
        equal(Y, Y_2)
        dH = back_2(dY).X
        equal(dH, [[sum(dY[n, k] * W2[j, k] for k in range(2)) for j in range(M)] for n in range(N)])
        equal(dX, back_1(dH).X)
        equal(dW1, back_1(dH).W)
        equal(dW2, back_2(dY).W)
        before = W2.copy()
        W2 -= 0.5 * back_2(dY, factored=True).W  # the update: only this layer's weights move
        equal(W2, before - 0.5 * dW2)

    def test_global_context(self, batch):
        """000, "Useful Properties": every output depends on every input (of its example, and of no other)."""
        X, W, _, _ = batch
        J = xwb.jacobian(xwb.linear, X, W, wrt="X")
        for n in range(N):
            for other in range(N):
                assert np.all((J[n, :, other, :] != 0) == (n == other))

    def test_information_mixing(self):
        """000, "Useful Properties": inputs are combined; equal weights give a multiple of their sum."""
        X = integers(2, D)
        Y, _ = xwb.linear(X, np.full((D, 1), 3.0))
        equal(Y, [[3 * sum(X[n])] for n in range(2)])

    def test_last_layer_after_an_activation(self, batch):
        """000, "Common usage": often the last layer; activation functions come after the others."""
        X, W, b, _ = batch
        W2, b2 = integers(M, 2), integers(2)
        net = xwb.chain(xwb.linear, xwb.relu, xwb.linear)
        assert net.inputs == ("X", "W1", "b1", "W2", "b2")
        Y, _ = net(X, W, b, W2, b2)
        H = [[max(0, sum(X[n, d] * W[d, m] for d in range(D)) + b[m]) for m in range(M)] for n in range(N)]
        equal(Y, [[sum(H[n][m] * W2[m, k] for m in range(M)) + b2[k] for k in range(2)] for n in range(N)])


class TestSource001:
    """001, handwritten notes: Y = W Xᵀ + b then transposed, W: m×n, b: m; K examples; grad = ∂L/∂Y: K×m."""

    K, m, n = N, M, D

    @pytest.fixture
    def notes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """X: K×n, W: m×n, b: m, grad: K×m."""
        return integers(self.K, self.n), integers(self.m, self.n), integers(self.m), integers(self.K, self.m)

    def test_eq_1_and_2_forward(self, notes):
        """001, eq. 1 and 2: y_i = Σ_j w_ij x_j + b_i, for every example; W goes in as W.T, without a copy."""
        X, W, b, _ = notes
        Y, saved = xwb.linear.forward(X, W.T, b)
        source = [[sum(W[i, l] * X[k, l] for l in range(self.n)) + b[i] for k in range(self.K)] for i in range(self.m)]
        equal(Y.T, source)  # W Xᵀ + b is m×K; "We will take transpose of Y"
        assert np.shares_memory(saved.W, W)

    def test_eq_3_to_5_the_tensor(self, notes):
        """001, eq. 3, 4, 5: (∂y_i/∂w)_kl = x_l if k = i, else 0; ∂y/∂w is an m×m×n tensor."""
        X, W, b, _ = notes
        x = X[:1]
        J = xwb.jacobian(xwb.linear, x, W.T, b, wrt="W")
        assert J.shape == (1, self.m, self.n, self.m)
        tensor = J[0].transpose(0, 2, 1)  # our W is the source's transposed
        assert tensor.shape == (self.m, self.m, self.n)
        for i in range(self.m):
            for k in range(self.m):
                for l in range(self.n):
                    assert tensor[i, k, l] == (x[0, l] if k == i else 0)

    def test_eq_6_and_7_one_example(self, notes):
        """001, eq. 6, 7: grad @ ∂y/∂w = gradᵀ @ x, an m×n matrix."""
        X, W, b, grad = notes
        dW = xwb.linear(X[:1], W.T, b)[1](grad[:1]).W
        assert dW.T.shape == W.shape
        assert np.shares_memory(dW.T, dW)  # in the source's layout at no cost
        equal(dW.T, [[grad[0, i] * X[0, j] for j in range(self.n)] for i in range(self.m)])

    def test_dw_of_a_batch_is_grad_transposed_x(self, notes):
        """001: gradᵀ @ X, the sum over the batch of the one-example gradients."""
        X, W, b, grad = notes
        dW = xwb.linear(X, W.T, b)[1](grad).W
        K = range(self.K)
        equal(dW.T, [[sum(grad[k, i] * X[k, j] for k in K) for j in range(self.n)] for i in range(self.m)])

    def test_eq_8_to_10_bias_of_one_example(self, notes):
        """001, eq. 8, 9, 10: ∂y/∂b = I, so that ∂L/∂b = ∂L/∂y for one example."""
        X, W, b, grad = notes
        J = xwb.jacobian(xwb.linear, X[:1], W.T, b, wrt="b")
        equal(J[0], [[1 if i == j else 0 for j in range(self.m)] for i in range(self.m)])
        equal(xwb.linear(X[:1], W.T, b)[1](grad[:1]).b, grad[0])

    def test_eq_11_bias_of_a_batch(self, notes):
        """001, eq. 11: ∂y/∂b is the identity once per example; the gradients combine into Σ_k grad_k."""
        X, W, b, grad = notes
        J = xwb.jacobian(xwb.linear, X, W.T, b, wrt="b")
        for k in range(self.K):
            equal(J[k], [[1 if i == j else 0 for j in range(self.m)] for i in range(self.m)])
        equal(xwb.linear(X, W.T, b)[1](grad).b, [sum(grad[k, i] for k in range(self.K)) for i in range(self.m)])

    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_per_example_gradients_combine_by(self, notes, reduction):
        """001: "combine once we find for each input in batch by taking their avg or sum" (1/K, or 1)."""
        X, W, b, _ = notes
        T = integers(self.K, self.m, seed=1)
        Y, back = xwb.linear(X, W.T, b)
        _, back_loss = xwb.squared_error(Y, T, reduction=reduction)
        dW, db = back(back_loss())[1:]
        grad = 2 * (Y - T)  # of each example's own loss, whatever the reduction
        share = 1 / self.K if reduction == "mean" else 1
        total = [
            [sum(grad[k, i] * X[k, j] for k in range(self.K)) * share for j in range(self.n)] for i in range(self.m)
        ]
        assert_close(dW.T, total)
        bias = [sum(grad[k, i] for k in range(self.K)) * share for i in range(self.m)]
        assert_close(db, bias)

    def test_per_example_gradients_are_independent(self, notes):
        """001: "consider each input in batch independent": each example alone gives its own."""
        X, W, b, grad = notes
        per_example = xwb.linear(X, W.T, b)[1](grad, factored=True).W.per_example()
        assert per_example.shape == (self.K, self.n, self.m)
        for k in range(self.K):
            equal(per_example[k].T, [[grad[k, i] * X[k, j] for j in range(self.n)] for i in range(self.m)])
            equal(per_example[k], xwb.linear(X[k : k + 1], W.T, b)[1](grad[k : k + 1]).W)

    def test_one_matrix_product_does_them_all(self, notes):
        """001: "we generally combine this process […] and make single matrix operation"."""
        X, W, b, grad = notes
        back = xwb.linear(X, W.T, b)[1]
        per_example = back(grad, factored=True).W.per_example()
        equal(back(grad).W, [[sum(per_example[:, j, i]) for i in range(self.m)] for j in range(self.n)])

    def test_eq_12_gradient_of_the_input(self, notes):
        """001, eq. 12: ∂y/∂x = W, ∂L/∂x = [g_1 w_11 + … + g_m w_m1, …], for a batch grad @ W."""
        X, W, b, grad = notes
        equal(xwb.jacobian(xwb.linear, X[:1], W.T, b, wrt="X")[0, :, 0, :], W)
        dX = xwb.linear(X, W.T, b)[1](grad).X
        source = [[sum(grad[k, i] * W[i, j] for i in range(self.m)) for j in range(self.n)] for k in range(self.K)]
        equal(dX, source)


class TestSource002:
    """002, notes: y = xW + b, b: 1×M_out; numerator layout: ∂L/∂y is M_out×N, ∇_W L like W."""

    @pytest.fixture
    def notes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x: N×M_in, W: M_in×M_out, b: 1×M_out, ∂L/∂y: M_out×N."""
        return integers(N, D), integers(D, M), integers(1, M), integers(M, N)

    def test_forward(self, notes):
        """002: y_ij = Σ_l x_il W_lj + b_j, b a row 1×M_out, passed as b[0] without a copy."""
        x, W, b, _ = notes
        y, _ = xwb.linear(x, W, b[0])
        equal(y, [[sum(x[i, l] * W[l, j] for l in range(D)) + b[0, j] for j in range(M)] for i in range(N)])

    def test_kronecker_delta_of_the_weights(self, notes):
        """002, box 1: ∂y_ij/∂W_hk = δ_kj x_ih."""
        x, W, b, _ = notes
        J = xwb.jacobian(xwb.linear, x, W, b[0], wrt="W")
        assert J.shape == (N, M, D, M)
        for i, j, h, k in np.ndindex(J.shape):
            assert J[i, j, h, k] == int(k == j) * x[i, h]

    def test_gradient_of_the_weights(self, notes):
        """002, box 1: ∂L/∂W = (∂L/∂y) x, M_out×M_in, by its double sum; ∇_W L = (∂L/∂W)ᵀ, the shape of W."""
        x, W, b, dL_dy = notes
        dL_dW = np.empty((M, D))
        for h in range(D):
            for k in range(M):
                dL_dW[k, h] = sum(
                    dL_dy[j, i] * int(k == j) * x[i, h] for i in range(N) for j in range(M)
                )  # entry (i, j) of the matrix ∂L/∂y stands at [j, i]: numerator layout
        nabla_W = xwb.linear(x, W, b[0])[1](dL_dy.T).W
        assert nabla_W.shape == W.shape
        equal(nabla_W, dL_dW.T)
        assert np.shares_memory(nabla_W.T, nabla_W)
        (term,) = xwb.linear(x, W, b[0])[1](dL_dy.T, factored=True).W.terms
        assert np.shares_memory(term.right, dL_dy)  # and so is dY, seen through a view
        equal(nabla_W.T, [[sum(dL_dy[k, i] * x[i, h] for i in range(N)) for h in range(D)] for k in range(M)])

    def test_kronecker_delta_of_the_bias(self, notes):
        """002, box 2: ∂y_ij/∂b_k = δ_kj."""
        x, W, b, _ = notes
        J = xwb.jacobian(xwb.linear, x, W, b[0], wrt="b")
        for i, j, k in np.ndindex(J.shape):
            assert J[i, j, k] == int(k == j)

    def test_gradient_of_the_bias(self, notes):
        """002, box 2: ∇_b L = (∂L/∂y) 1 by its double sum, as a row 1×M_out."""
        x, W, b, dL_dy = notes
        db = xwb.linear(x, W, b[0])[1](dL_dy.T).b
        source = [sum(dL_dy[j, i] * int(k == j) for i in range(N) for j in range(M)) for k in range(M)]
        equal(db[np.newaxis], [source])
        equal(db, [sum(dL_dy[k, i] * 1 for i in range(N)) for k in range(M)])

    def test_kronecker_delta_of_the_input(self, notes):
        """002, box 3: ∂y_ij/∂x_lk = δ_il W_kj."""
        x, W, b, _ = notes
        J = xwb.jacobian(xwb.linear, x, W, b[0], wrt="X")
        assert J.shape == (N, M, N, D)
        for i, j, l, k in np.ndindex(J.shape):
            assert J[i, j, l, k] == int(i == l) * W[k, j]

    def test_gradient_of_the_input(self, notes):
        """002, box 3: ∂L/∂x = W (∂L/∂y), M_in×N, by its double sum."""
        x, W, b, dL_dy = notes
        dx = xwb.linear(x, W, b[0])[1](dL_dy.T).X
        dL_dx = np.empty((D, N))
        for l in range(N):
            for k in range(D):
                dL_dx[k, l] = sum(dL_dy[j, i] * int(i == l) * W[k, j] for i in range(N) for j in range(M))
        equal(dx.T, dL_dx)
        equal(dx.T, [[sum(W[k, j] * dL_dy[j, l] for j in range(M)) for l in range(N)] for k in range(D)])


class TestSource003:
    """003, handwritten: the slides' derivation; indices (component, example), so columns are examples."""

    W = np.array([[2.0, -5.0, 3.0], [7.0, 4.0, -6.0]])

    def test_single_example(self):
        """003: [y_1 y_2 y_3] = [x_1 x_2] W, y_1 = w_11 x_1 + w_21 x_2."""
        x1, x2 = 8.0, -3.0
        y = xwb.linear(np.array([[x1, x2]]), self.W)[0]
        equal(y, [[self.W[0, j] * x1 + self.W[1, j] * x2 for j in range(3)]])

    def test_mini_batch(self):
        """003: rewritten "to handle mini-batches", row k holds the components x_1k, x_2k of example k."""
        x = integers(2, 2)  # x[component, example]: columns are examples
        Y, saved = xwb.linear.forward(x.T, self.W)
        assert np.shares_memory(saved.X, x)  # taken as it lies, without a copy
        equal(Y.T, [[sum(self.W[i, j] * x[i, k] for i in range(2)) for k in range(2)] for j in range(3)])

    def test_dc_dx_11_sums_over_the_outputs(self):
        """003: ∂C/∂x_11 = Σ_j ∂C/∂y_j1 ∂y_j1/∂x_11, with the partial derivatives measured."""
        x, g = integers(2, 1), integers(3, 1)  # one example, as a column
        dX = xwb.linear(x.T, self.W)[1](g.T).X
        measured = [central_difference(lambda a, j=j: xwb.linear(a.T, self.W)[0][0, j], x, (0, 0)) for j in range(3)]
        assert measured == [self.W[0, j] for j in range(3)]
        assert dX[0, 0] == sum(g[j, 0] * measured[j] for j in range(3))

    def test_jacobian_is_w_transposed(self):
        """003: ∂Y/∂X = [[w_11 w_21], [w_12 w_22], [w_13 w_23]] = Wᵀ."""
        J = xwb.jacobian(xwb.linear, integers(1, 2), self.W, wrt="X")
        (w11, w12, w13), (w21, w22, w23) = self.W
        equal(J[0, :, 0, :], [[w11, w21], [w12, w22], [w13, w23]])

    @pytest.mark.parametrize("examples", [1, 2, 5])
    def test_gradient_of_the_input(self, examples):
        """003: ∂C/∂X = ∂C/∂Y Wᵀ for one example, "easily extended to the mini-batch"."""
        X, dY = integers(examples, 2), integers(examples, 3)
        dX = xwb.linear(X, self.W)[1](dY).X
        equal(dX, [[sum(dY[k, j] * self.W[i, j] for j in range(3)) for i in range(2)] for k in range(examples)])

    def test_properties(self):
        """003: every output depends upon every input; frequently the last layer, without activation."""
        J = xwb.jacobian(xwb.linear, integers(1, 2), self.W, wrt="X")
        assert np.all(J != 0)
        net = xwb.chain(xwb.tanh, xwb.linear)
        x = integers(1, 2)
        Y = net(x, self.W, None)[0]
        expected = [[sum(math.tanh(x[0, i]) * self.W[i, j] for i in range(2)) for j in range(3)]]
        assert_close(Y, expected)


class TestSource004:
    """004, Johnson: the case N = 2, D = 2, M = 3 entry by entry, then the general formulas."""

    X = np.array([[3.0, -2.0], [5.0, 7.0]])
    W = np.array([[2.0, -1.0, 4.0], [6.0, 8.0, -3.0]])
    dY = np.array([[1.0, -4.0, 2.0], [9.0, 5.0, -7.0]])

    def test_eq_1_to_3_forward(self):
        """004, eq. (1)-(3): the forward product written out."""
        (x11, x12), (x21, x22) = self.X
        (w11, w12, w13), (w21, w22, w23) = self.W
        Y, _ = xwb.linear(self.X, self.W)
        assert Y[0, 0] == x11 * w11 + x12 * w21 == -6
        assert Y[0, 1] == x11 * w12 + x12 * w22 == -19
        assert Y[0, 2] == x11 * w13 + x12 * w23 == 18
        assert Y[1, 0] == x21 * w11 + x22 * w21 == 52
        assert Y[1, 1] == x21 * w12 + x22 * w22 == 51
        assert Y[1, 2] == x21 * w13 + x22 * w23 == -1

    @pytest.mark.parametrize("name", ["softmax_cross_entropy", "multiclass_hinge"])
    def test_eq_4_the_loss_gives_dy(self, name):
        """004, eq. (4): scores go to "the softmax or multiclass SVM loss"; dY has the shape of Y."""
        y = np.array([2, 0])
        Y, back = xwb.linear(self.X / 10, self.W)
        L, back_loss = getattr(xwb, name)(Y, y)
        assert np.ndim(L) == 0
        dY = back_loss()
        assert dY.shape == Y.shape
        expected, value = np.empty_like(dY), 0.0
        for n in range(2):
            s, correct = list(Y[n]), y[n]
            if name == "softmax_cross_entropy":
                total = sum(math.exp(z) for z in s)
                value += math.log(total) - s[correct]
                expected[n] = [math.exp(z) / total - (j == correct) for j, z in enumerate(s)]
            else:
                margins = [j != correct and 1 + z - s[correct] > 0 for j, z in enumerate(s)]
                value += sum(1 + z - s[correct] for z, over in zip(s, margins, strict=True) if over)
                expected[n] = [over - sum(margins) * (j == correct) for j, over in enumerate(margins)]
        assert_close(L, value / 2)
        assert_close(dY, expected / 2)
        dX, dW = back(dY)[:2]
        assert (dX.shape, dW.shape) == (self.X.shape, self.W.shape)

    def test_eq_5_chain_rule_with_jacobians(self):
        """004, eq. (5): ∂L/∂X = ∂L/∂Y ∂Y/∂X and ∂L/∂W = ∂L/∂Y ∂Y/∂W, the Jacobians formed for once."""
        dX, dW = xwb.linear(self.X, self.W)[1](self.dY)[:2]
        for wrt, grad in (("X", dX), ("W", dW)):
            J = xwb.jacobian(xwb.linear, self.X, self.W, wrt=wrt)
            assert J.shape == (2, 3, *grad.shape)
            for p, q in np.ndindex(grad.shape):
                assert grad[p, q] == sum(self.dY[i, j] * J[i, j, p, q] for i in range(2) for j in range(3))

    def test_never_form_the_jacobian(self):
        """004: "more than 68 billion numbers", "256 GB" for N = 64, D = M = 4096 in 32 bits: refused."""
        X, W = np.zeros((64, 4096), np.float32), np.zeros((4096, 4096), np.float32)
        assert 64 * 4096 * 64 * 4096 == 68_719_476_736
        with pytest.raises(xwb.XwbError, match=r"68,719,476,736") as caught:
            xwb.jacobian(xwb.linear, X, W, wrt="X")
        assert "256 GiB" in str(caught.value)

    def test_the_product_needs_no_jacobian(self):
        """004: "without explicitly forming the Jacobian": at that size the gradients are no trouble."""
        X, W = np.zeros((64, 4096), np.float32), np.zeros((4096, 4096), np.float32)
        X[3, 5], W[7, 11] = 2, 3
        dY = np.zeros((64, 4096), np.float32)
        dY[3, 11] = 5
        dX, dW = xwb.linear(X, W)[1](dY, factored=True)[:2]
        assert (dX[3, 7], np.count_nonzero(dX)) == (15, 1)
        assert dW.norm() == 10

    @pytest.mark.parametrize(
        ("entry", "dy_dx"),
        [
            pytest.param((0, 0), [[2, -1, 4], [0, 0, 0]], id="(7)-(11)"),
            pytest.param((0, 1), [[6, 8, -3], [0, 0, 0]], id="(12)-(14)"),
            pytest.param((1, 0), [[0, 0, 0], [2, -1, 4]], id="(15)-(17)"),
            pytest.param((1, 1), [[0, 0, 0], [6, 8, -3]], id="(18)-(20)"),
        ],
    )
    def test_eq_7_to_20_dot_products(self, entry, dy_dx):
        """004, eq. (7)-(20): ∂L/∂x_ij is the dot product of ∂L/∂Y with ∂Y/∂x_ij, one entry at a time."""
        equal(xwb.jacobian(xwb.linear, self.X, self.W, wrt="X")[:, :, *entry], dy_dx)
        dot = sum(self.dY[i, j] * dy_dx[i][j] for i in range(2) for j in range(3))
        assert xwb.linear(self.X, self.W)[1](self.dY).X[entry] == dot

    def test_eq_6_and_22_to_24_assembled(self):
        """004, eq. (6), (22)-(24): the four entries make ∂L/∂X = ∂L/∂Y Wᵀ, of the shape of X."""
        (g11, g12, g13), (g21, g22, g23) = self.dY
        (w11, w12, w13), (w21, w22, w23) = self.W
        dX = xwb.linear(self.X, self.W)[1](self.dY).X
        assert dX.shape == self.X.shape
        assert dX[0, 0] == g11 * w11 + g12 * w12 + g13 * w13 == 14
        assert dX[0, 1] == g11 * w21 + g12 * w22 + g13 * w23 == -32
        assert dX[1, 0] == g21 * w11 + g22 * w12 + g23 * w13 == -15
        assert dX[1, 1] == g21 * w21 + g22 * w22 + g23 * w23 == 115

    def test_eq_25_gradient_of_the_weights(self):
        """004, eq. (25): ∂L/∂W = Xᵀ ∂L/∂Y, of the shape of W, one component at a time."""
        (g11, g12, g13), (g21, g22, g23) = self.dY
        (x11, x12), (x21, x22) = self.X
        dW = xwb.linear(self.X, self.W)[1](self.dY).W
        assert dW.shape == self.W.shape
        assert dW[0, 0] == x11 * g11 + x21 * g21 == 48
        assert dW[0, 1] == x11 * g12 + x21 * g22 == 13
        assert dW[0, 2] == x11 * g13 + x21 * g23 == -29
        assert dW[1, 0] == x12 * g11 + x22 * g21 == 61
        assert dW[1, 1] == x12 * g12 + x22 * g22 == 43
        assert dW[1, 2] == x12 * g13 + x22 * g23 == -53

    @pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 3), (7, 3, 5), (4, 6, 2)], ids=str)
    def test_holds_for_any_sizes(self, sizes):
        """004: derived for N = D = 2, M = 3, "but it holds for any values of N, D, and M"."""
        n, d, m = sizes
        X, W, dY = integers(n, d), integers(d, m), integers(n, m)
        dX, dW = xwb.linear(X, W)[1](dY)[:2]
        equal(dX, [[sum(dY[i, k] * W[j, k] for k in range(m)) for j in range(d)] for i in range(n)])
        equal(dW, [[sum(X[i, j] * dY[i, k] for i in range(n)) for k in range(m)] for j in range(d)])

    def test_tensors_of_any_shape(self):
        """004: "even when the inputs and outputs […] are tensors of arbitrary shape": leading axes."""
        X, W, dY = integers(2, 3, D), integers(D, M), integers(2, 3, M)
        Y, back = xwb.linear(X, W)
        dX, dW = back(dY)[:2]
        assert (Y.shape, dX.shape, dW.shape) == (dY.shape, X.shape, W.shape)
        for i, t, d in np.ndindex(X.shape):
            assert dX[i, t, d] == sum(dY[i, t, m] * W[d, m] for m in range(M))
        for d, m in np.ndindex(W.shape):
            assert dW[d, m] == sum(X[i, t, d] * dY[i, t, m] for i in range(2) for t in range(3))

    def test_the_strategy_on_a_convolution(self):
        """004: "particularly valuable for example when deriving backpropagation for a convolutional layer".

        The strategy: on a small case collect, one element at a time, the terms that each input takes part in;
        read off the general formula; hold it against the Jacobian and finite differences.
        """

        def forward(X, K):
            P = X.shape[1] - K.shape[0] + 1
            return sum(X[:, r : r + P] * K[r] for r in range(K.shape[0])), (X, K)

        def backward(dY, saved):
            X, K = saved
            P = dY.shape[1]
            dX, dK = np.zeros_like(X), np.empty_like(K)
            for r in range(K.shape[0]):  # read off: x_{p+r} meets k_r in y_p
                dX[:, r : r + P] += dY * K[r]
                dK[r] = np.sum(X[:, r : r + P] * dY)
            return dX, dK

        convolution = xwb.Layer("convolution", "Y[n,p] = X[n,p+r] K[r]", forward, backward)
        X, K, dY = integers(2, 6), integers(3), integers(2, 4)
        Y, back = convolution(X, K)
        equal(Y, [[sum(X[n, p + r] * K[r] for r in range(3)) for p in range(4)] for n in range(2)])
        dX, dK = back(dY)
        for n, t in np.ndindex(X.shape):
            assert dX[n, t] == sum(dY[n, p] * K[r] for p in range(4) for r in range(3) if p + r == t)
        for r in range(3):
            assert dK[r] == sum(dY[n, p] * X[n, p + r] for n in range(2) for p in range(4))
        equal(xwb.jacobian(convolution, X, K, wrt="K")[1], [[X[1, p + r] for r in range(3)] for p in range(4)])
        assert xwb.check(convolution, X, K).ok


@pytest.mark.parametrize(
    ("source", "formula", "forms"),
    [
        ("000", "Y[n,m] = X[n,d] W[d,m]", {"X": "dY @ W.T", "W": "X.T @ dY"}),
        ("001", "y[m,n] = W[m,d] X[n,d] + b[m]", {"W": "dy @ X", "X": "dy.T @ W", "b": "dy.sum(axis=1)"}),
        ("002", "y[n,m] = x[n,d] W[d,m] + b[m]", {"W": "x.T @ dy", "b": "dy.sum(axis=0)", "x": "dy @ W.T"}),
        ("003", "Y[m,n] = W[d,m] X[d,n]", {"W": "X @ dY.T", "X": "W @ dY"}),
        ("004", "Y[n,m] = X[n,d] W[d,m] + b[m]", {"X": "dY @ W.T", "W": "X.T @ dY", "b": "dY.sum(axis=0)"}),
    ],
)
def test_the_backward_pass_is_derived_in_the_convention_of_each_source(source, formula, forms):
    """000-004: what the sources derive by hand, `xwb.derive` derives, in the layout of the source."""
    d = xwb.derive(formula)
    assert {name: d[name].matrix for name in d.inputs} == dict(forms)


def test_numerator_layout_is_the_transpose_of_the_derived_gradient(batch):
    """002: ∂L/∂W = (∂L/∂y) x is M×D, with ∂L/∂y: M×N; ∇_W L is its transpose, D×M. Likewise ∂L/∂x = W (∂L/∂y)."""
    x, W, _, dy = batch
    grads = xwb.derive("y[n,m] = x[n,d] W[d,m]").backward(dy, x=x, W=W)
    numerator = dy.T
    equal(grads["W"].T, numerator @ x)
    equal(grads["x"].T, W @ numerator)
