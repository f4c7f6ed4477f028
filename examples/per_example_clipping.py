"""Clip each example's gradient on real digits, and never form one.

The gradient of a weight for example n is the outer product x_n dy_nᵀ, so its norm is ‖x_n‖ ‖dy_n‖, and a clipped sum is
Xᵀ (dY with scaled rows). The N×D×M per-example gradients are formed here once, for a few examples, to compare.
"""

from __future__ import annotations

import numpy as np

import xwb
from xwb.training import as_features, load_digits


def main() -> None:
    rng = np.random.default_rng(0)
    digits = load_digits()
    X, y = as_features(digits.images), digits.labels.astype(int)
    net = xwb.chain(xwb.linear, xwb.relu, xwb.linear)
    params = net.init((64, 256, 10), rng=rng)
    for _ in xwb.train(
        net, params, X, y, loss=xwb.softmax_cross_entropy, optimizer=xwb.SGD(lr=0.1), epochs=3, batch_size=32, rng=rng
    ):
        pass

    def gradients(rows: np.ndarray) -> tuple:
        scores, back = net(X[rows], *params)
        _, back_loss = xwb.softmax_cross_entropy(scores, y[rows], reduction="sum")
        return back(back_loss(), needs=net.params, factored=True)

    everyone = np.arange(len(y))
    grads = gradients(everyone)
    weights = [grads.W1, grads.W2]
    held = sum(dW.nbytes for dW in weights)
    formed = len(y) * sum(dW.shape[0] * dW.shape[1] * dW.dtype.itemsize for dW in weights)
    print(f"examples: {len(y)}")
    print(f"bytes of the factors: {held:,}")
    print(f"bytes of the per-example gradients, never formed: {formed:,}")

    norms = np.sqrt(sum(dW.per_example_norms() ** 2 for dW in weights))
    hardest = int(norms.argmax())
    print(f"median norm of the weights' gradient: {np.median(norms):.3f}")
    print(f"largest norm, of image {hardest}: {norms[hardest]:.3f}")

    limit = float(np.quantile(norms, 0.9))
    clipped = xwb.clip_per_example(grads, limit)
    print(f"norm of the sum before clipping: {grads.W2.norm():.2f}")
    print(f"norm of the sum after clipping at {limit:.2f}: {clipped.W2.norm():.2f}")

    few = np.argsort(-norms)[:20]
    one_by_one = [np.zeros_like(param) for param in params]
    for n in few:  # the slow way: one backward pass per example, every gradient formed
        own = [np.asarray(gradient) for gradient in gradients(few[few == n])[1:]]
        scale = min(1.0, limit / np.sqrt(sum(np.vdot(g, g) for g in own)))
        for total, gradient in zip(one_by_one, own, strict=True):
            total += scale * gradient
    fast = xwb.clip_per_example(gradients(few), limit)[1:]
    difference = max(np.abs(np.asarray(a) - b).max() / np.abs(b).max() for a, b in zip(fast, one_by_one, strict=True))
    print(f"largest relative difference from one pass per example: {difference:.1e}")


if __name__ == "__main__":
    main()
