"""A layer of one's own: root mean square normalisation, its backward derived by hand, checked, trained in a chain.

    Y[n,d] = X[n,d] g[d] r[n]        with  r[n] = (mean_k X[n,k]² + ε)^(-1/2)

One element at a time: y_nd depends on x_nd itself and, through r_n, on every x_nk of its example,

    ∂y_nd/∂x_nk = g_d r_n δ_dk − x_nd g_d r_n³ x_nk / D,        ∂y_nd/∂g_k = x_nd r_n δ_dk.

Summed against dY, with a_nd = dy_nd g_d:

    dX[n,k] = r_n a_nk − x_nk r_n³ mean_d(a_nd x_nd),           dg[k] = Σ_n dy_nk x_nk r_n.

(Zhang and Sennrich 2019, arXiv:1910.07467, for the layer.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import xwb
from xwb.training import as_features, load_digits

EPSILON = 1e-5


class Saved(NamedTuple):
    """What backward needs: N×D, D and N×1."""

    X: np.ndarray
    g: np.ndarray
    r: np.ndarray


def forward(X: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, Saved]:
    """Y = X g r, for X of shape (N, D) and g of shape (D,)."""
    r = 1 / np.sqrt(np.mean(X * X, axis=1, keepdims=True) + X.dtype.type(EPSILON))
    return X * g * r, Saved(X, g, r)


def backward(dY: np.ndarray, saved: Saved) -> tuple[np.ndarray, np.ndarray]:
    """dX and dg, as derived above."""
    X, g, r = saved
    a = dY * g
    dX = r * a - X * r**3 * np.mean(a * X, axis=1, keepdims=True)
    return dX, np.sum(dY * X * r, axis=0)


def init(sizes: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype, then: str | None) -> list[np.ndarray]:
    """g = 1; the layer is as wide before as after."""
    return [np.ones(sizes[1], dtype)]


rms_norm = xwb.Layer(
    "rms_norm", "Y[n,d] = X[n,d] g[d] / sqrt(mean[k](X[n,k]**2) + 0.00001)", forward, backward, init=init
)


def main() -> None:
    rng = np.random.default_rng(0)
    report = xwb.check(rms_norm, rng.standard_normal((4, 6)), rng.standard_normal(6))
    print(report)
    report.raise_if_wrong()
    print(f"largest relative difference: {max(row.relative for row in report.rows):.1e}")

    digits = load_digits()
    X, y = as_features(digits.images), digits.labels.astype(int)
    order = rng.permutation(len(y))
    train, test = order[:1437], order[1437:]
    net = xwb.chain(xwb.linear, rms_norm, xwb.relu, xwb.linear)  # X, W1, b1, g2, W3, b3
    params = net.init((64, 64, 64, 10), rng=rng)
    steps = xwb.train(
        net,
        params,
        X[train],
        y[train],
        loss=xwb.softmax_cross_entropy,
        optimizer=xwb.SGD(lr=0.1, momentum=0.9),
        epochs=20,
        batch_size=32,
        rng=rng,
    )
    losses = [step.loss for step in steps]
    print(f"loss of the first batch: {losses[0]:.4f}")
    print(f"loss of the last batch: {losses[-1]:.4f}")
    scores, _ = net(X[test], *params)
    print(f"test images right: {np.mean(scores.argmax(axis=1) == y[test]):.4f}")


if __name__ == "__main__":
    main()
