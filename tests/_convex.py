"""Small problems for the solvers of linear heads, and their optima in float64."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from xwb.training._objective import Head
from xwb.training._parts import Layout, MemoryPart
from xwb.training._rows import Rows


def part_of(X, y, weight=None, layout=None):
    """Arrays as a part: class codes or targets (N, K)."""
    layout = layout or Layout(X.shape[1], None if y.ndim == 1 else y.shape[1], weight is not None)
    stored = y.astype(np.int32) if y.ndim == 1 else y
    return MemoryPart(layout, Rows(np.ascontiguousarray(X, np.float32), stored, weight))


def classes(N=200, D=8, K=4, *, seed=0, noise=1.5, lift=0.0, weighted=False):
    """Standardised features and classes drawn from a softmax; ``lift`` makes class 0 that much more likely."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, D))
    X = (X - X.mean(0)) / X.std(0)
    Z = X @ rng.standard_normal((D, K)) + noise * rng.gumbel(size=(N, K))
    Z[:, 0] += lift
    return part_of(X, Z.argmax(1), rng.uniform(0.1, 3, N) if weighted else None)


def numbers(N=200, D=8, K=3, *, seed=0, weighted=False):
    """Standardised features and targets that follow them with noise."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, D))
    X = (X - X.mean(0)) / X.std(0)
    T = X @ rng.standard_normal((D, K)) + rng.standard_normal((N, K)) + 5.0
    return part_of(X, T, rng.uniform(0.1, 3, N) if weighted else None)


def optimum(objective, l2):
    """The least value and where it is: SciPy's L-BFGS-B, then Newton's method with differences of gradients."""

    def at(x):
        return objective.evaluate([Head(x, l2)], np.float64)[0]

    options = {"maxiter": 5000, "maxfun": 5000, "ftol": 0.0, "gtol": 1e-10, "maxcor": 30}
    x = minimize(lambda x: tuple(at(x)), np.zeros(objective.size), jac=True, method="L-BFGS-B", options=options).x
    best = at(x)
    for _ in range(8):
        h = 1e-6
        shifted = [Head(x + h * e, l2) for e in np.eye(len(x))]
        H = np.array([(one.gradient - best.gradient) / h for one in objective.evaluate(shifted, np.float64)])
        trial = x - np.linalg.lstsq((H + H.T) / 2, best.gradient, rcond=1e-9)[0]
        found = at(trial)
        if np.linalg.norm(found.gradient) >= np.linalg.norm(best.gradient):
            break
        x, best = trial, found
    assert np.linalg.norm(best.gradient) < 1e-9
    return best.value, x
