"""Linear heads: xwb in memory and streamed beside scikit-learn, PyTorch and SciPy on the same objective.

python benchmarks/heads.py                     # one head, the tables of docs/benchmarks.md
python benchmarks/heads.py --sweep             # thirteen values of λ
python benchmarks/heads.py --rows 20000        # smaller

The objective is mean cross-entropy + λ/2 ‖W‖², the bias unpenalised, on float32 features that are standardised before
anybody sees them. Every side runs in a process of its own, one after another and in turns, and records (seconds,
objective) as it goes; the objective of what it reached is computed again in float64. Seconds begin when the features
are in memory (for the streamed side: on disk) and end when the objective was reached, so they include preparing.

* xwb: `xwb.training.fit` without standardising and holdout, as `xwb train` runs it.
* scikit-learn: `LogisticRegression(C=1/(λN))`, which shows no objective on its way: fitted with falling tolerances, and
  the fastest fit that reaches the target counts.
* PyTorch: full-batch `LBFGS` (strong Wolfe, history 10); `Adam` in mini-batches of 1,024, learning
  rate 0.01 falling linearly over 20 epochs, the best of its epochs.
* SciPy: `minimize(method="L-BFGS-B")` with a float32 gradient by NumPy, as one would write it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from _measure import machine

KINDS = ("isotropic", "power law")
SIDES = ("xwb", "xwb streamed", "scikit-learn", "PyTorch L-BFGS", "PyTorch Adam", "SciPy")
TARGETS = (1e-2, 1e-3, 1e-4)
MEMORY = 130 * 10**6  # of the streamed side
PATIENCE = 150.0  # seconds for one rival; what it has not reached by then is said to be not reached
TEST_ROWS = 10_000


def make(kind: str, rows: int, features: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features, with a power-law spectrum k⁻¹ behind a rotation if asked; labels of a random softmax."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, features), np.float32)
    if kind == "power law":
        turn = np.linalg.qr(rng.standard_normal((features, features)))[0]
        X = (X * np.arange(1, features + 1, dtype=np.float32) ** -1.0) @ turn.T.astype(np.float32)
    X = (X - X.mean(0)) / X.std(0)
    scores = X @ rng.standard_normal((features, classes)).astype(np.float32)
    scores *= 3 / scores.std()
    return X, (scores + rng.gumbel(size=scores.shape)).argmax(1)


def exact(X: np.ndarray, y: np.ndarray, W: np.ndarray, b: np.ndarray, l2: float) -> float:
    """The objective in float64."""
    total = 0.0
    for i in range(0, len(X), 4096):
        Z = X[i : i + 4096].astype(np.float64) @ W + b
        top = Z.max(1)
        total += float((np.log(np.exp(Z - top[:, None]).sum(1)) + top - Z[np.arange(len(Z)), y[i : i + 4096]]).sum())
    return total / len(X) + l2 / 2 * float((W * W).sum())


class Enough(Exception):
    """A rival took longer than the patience."""


# -- the sides: each gives [(seconds, objective)], and W, b ------------------------------------------------------------


def xwb_side(folder: Path, X: Any, y: Any, K: int, l2: float, streamed: bool, tolerance: float) -> Any:
    from xwb.training import Fit, FitOptions, prepare

    source, target = (folder / "X.npy", folder / "y.npy") if streamed else (X, y)
    started = time.perf_counter()
    with prepare(
        source, target, holdout=0, standardise=False, memory=MEMORY if streamed else None, scratch=folder
    ) as data:
        assert data.streamed == streamed, "the budget decides it"
        job = Fit(data, FitOptions(l2=l2, tolerance=tolerance))
        trace = [(time.perf_counter() - started, event.objective) for event in job.run(folder / "run")]
        return trace, *job.final.params


def sklearn_side(X: Any, y: Any, K: int, l2: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    trace = []
    W, b = np.zeros((X.shape[1], K)), np.zeros(K)
    for tolerance in (1e-3, 1e-4, 3e-5, 1e-5):
        model = LogisticRegression(C=1 / (l2 * len(X)), tol=tolerance, max_iter=5000)
        started = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - started
        W, b = columns(model, K)
        trace.append((seconds, exact(X, y, W, b, l2)))
        if sum(seconds for seconds, _ in trace) > PATIENCE:
            break
    return trace, W, b


def columns(model: Any, K: int) -> tuple[np.ndarray, np.ndarray]:
    """W (D, K) and b (K,) of a scikit-learn model in float64; of two classes it has the difference alone."""
    W, b = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    return (np.hstack([-W / 2, W / 2]), np.concatenate([-b / 2, b / 2])) if K == 2 else (W, b)


def torch_side(X: Any, y: Any, K: int, l2: float, adam: bool) -> Any:
    import torch

    A, t = torch.from_numpy(X), torch.from_numpy(y)
    W = torch.zeros(X.shape[1], K, requires_grad=True)
    b = torch.zeros(K, requires_grad=True)
    loss = torch.nn.functional.cross_entropy
    trace = []
    started = time.perf_counter()
    if adam:
        epochs, batch = 20, 1024
        optimizer: Any = torch.optim.Adam([W, b], lr=0.01)
        steps = epochs * -(-len(X) // batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        spent = 0.0
        for _ in range(epochs):
            began = time.perf_counter()
            order = torch.randperm(len(X))
            for i in range(0, len(X), batch):
                rows = order[i : i + batch]
                optimizer.zero_grad()
                (loss(A[rows] @ W + b, t[rows]) + l2 / 2 * (W * W).sum()).backward()
                optimizer.step()
                schedule.step()
            spent += time.perf_counter() - began
            trace.append((spent, exact(X, y, W.detach().double().numpy(), b.detach().double().numpy(), l2)))
        return trace, W.detach().double().numpy(), b.detach().double().numpy()
    optimizer = torch.optim.LBFGS(
        [W, b], max_iter=5000, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=1e-7
    )

    def closure() -> Any:
        optimizer.zero_grad()
        value = loss(A @ W + b, t) + l2 / 2 * (W * W).sum()
        value.backward()
        trace.append((time.perf_counter() - started, float(value)))
        if trace[-1][0] > PATIENCE:
            raise Enough
        return value

    with contextlib.suppress(Enough):
        optimizer.step(closure)
    return trace, W.detach().double().numpy(), b.detach().double().numpy()


def scipy_side(X: Any, y: Any, K: int, l2: float) -> Any:
    from scipy.optimize import minimize

    N, D = X.shape
    trace: list[tuple[float, float]] = []
    best: list[Any] = [np.inf, np.zeros(D * K + K)]
    rows = np.arange(N)
    started = time.perf_counter()

    def value_and_gradient(point: np.ndarray) -> Any:
        W, b = point[: D * K].reshape(D, K), point[D * K :]
        Z = X @ W.astype(np.float32)
        Z += b.astype(np.float32)
        Z -= Z.max(1, keepdims=True)
        right = Z[rows, y]
        np.exp(Z, out=Z)
        total = Z.sum(1)
        value = float((np.log(total) - right).mean(dtype=np.float64)) + l2 / 2 * float((W * W).sum())
        Z /= total[:, None]
        Z[rows, y] -= 1
        Z /= N
        trace.append((time.perf_counter() - started, value))
        best[:] = min(best, [value, point.copy()], key=lambda found: found[0])
        if trace[-1][0] > PATIENCE:
            raise Enough
        return value, np.concatenate([(X.T @ Z).astype(np.float64).ravel() + l2 * W.ravel(), Z.sum(0, np.float64)])

    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-10, "gtol": 1e-9}
    with contextlib.suppress(Enough):
        minimize(value_and_gradient, np.zeros(D * K + K), jac=True, method="L-BFGS-B", options=options)
    return trace, best[1][: D * K].reshape(D, K), best[1][D * K :]


# -- one process -----------------------------------------------------------------------------------------------------


def child(side: str, folder: Path, l2: float, tolerance: float) -> None:
    """Run a side on the files of a folder and print what it recorded."""
    K = int((folder / "classes").read_text())
    streamed = side == "xwb streamed"
    X = y = None
    if not streamed:
        X, y = np.load(folder / "X.npy"), np.load(folder / "y.npy")
    loaded = peak()
    if side.startswith("xwb"):
        trace, W, b = xwb_side(folder, X, y, K, l2, streamed, tolerance)
    elif side == "scikit-learn":
        trace, W, b = sklearn_side(X, y, K, l2)
    elif side == "SciPy":
        trace, W, b = scipy_side(X, y, K, l2)
    else:
        trace, W, b = torch_side(X, y, K, l2, side.endswith("Adam"))
    at_most = peak()
    X, y = np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "y.npy")
    test_X, test_y = np.load(folder / "test_X.npy"), np.load(folder / "test_y.npy")
    accuracy = float(((test_X @ W + b).argmax(1) == test_y).mean())
    print(
        json.dumps(
            {
                "trace": trace,
                "reached": exact(X, y, np.asarray(W, np.float64), np.asarray(b, np.float64), l2),
                "peak": at_most,
                "loaded": loaded,
                "accuracy": accuracy,
            }
        )
    )


def peak() -> float:
    """The largest resident size of this process so far, in MB; of Linux, where a child does not inherit it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def run(side: str, folder: Path, l2: float, tolerance: float = 2e-5) -> dict[str, Any]:
    """What `child` prints of a side, in a process of its own."""
    words = [sys.executable, __file__, "--child", side, "--folder", str(folder)]
    words += ["--l2", str(l2), "--tolerance", str(tolerance)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def first(trace: list[tuple[float, float]], below: float) -> float | None:
    """When the objective was first below a value."""
    return min((seconds for seconds, value in trace if value <= below), default=None)


def heads(rows: int, features: int, classes: int, rounds: int, kinds: list[str], sides: list[str], l2: float) -> None:
    """The table of each kind: every side, ``rounds`` times, in turns."""
    for kind in kinds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, kind, rows, features, classes)
            runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
            for number in range(rounds):
                for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                    runs[side].append(run(side, folder, l2))
                    time.sleep(1)
        best = min(one["reached"] for found in runs.values() for one in found)
        print(f"\n{kind}, {rows:,} × {features}, {classes} classes, λ = {l2:g}; best objective {best:.6f}\n")
        print("| side | to 1 % | to 0.1 % | to 0.01 % | peak memory | test accuracy | reached |")
        print("|---|---|---|---|---|---|---|")
        for side, found in runs.items():
            cells = []
            for target in TARGETS:
                times = [t for one in found if (t := first(one["trace"], best * (1 + target))) is not None]
                cells.append(spread(times) if len(times) == len(found) else "not reached")
            above = statistics.median(one["reached"] / best - 1 for one in found)
            memory = max(one["peak"] for one in found)
            accuracy = statistics.median(one["accuracy"] for one in found)
            print(
                f"| {side} | {' | '.join(cells)} | {memory:.0f} MB | {accuracy:.2%} | {above:.1e} above |", flush=True
            )


def spread(times: list[float]) -> str:
    """The median and half the range."""
    half = (max(times) - min(times)) / 2
    return f"{statistics.median(times):.2f} s ± {half / statistics.median(times):.0%}"


def write(folder: Path, kind: str, rows: int, features: int, classes: int) -> None:
    """The files that `child` reads."""
    X, y = make(kind, rows + TEST_ROWS, features, classes)
    for name, array in (("X", X[:rows]), ("y", y[:rows]), ("test_X", X[rows:]), ("test_y", y[rows:])):
        np.save(folder / f"{name}.npy", array)
    (folder / "classes").write_text(str(classes))


# -- the sweep ---------------------------------------------------------------------------------------------------------


def sweep(rows: int, features: int, classes: list[int], kind: str) -> None:
    """Thirteen λ, each to 0.1 %: xwb's sweep and its one fit at λ = 1e-6, and scikit-learn's thirteen fits."""
    values = [10.0**power for power in np.linspace(-6, 0, 13)]
    print(f"\n{kind}, {rows:,} × {features}; λ = 1e-6 … 1\n")
    print("| classes | xwb, 13 heads | one fit, λ = 1e-6 | ratio | scikit-learn | ratio | largest gap of xwb |")
    print("|---|---|---|---|---|---|---|")
    for K in classes:
        X, y = make(kind, rows, features, K)
        all_of_it, found = our_sweep(X, y, values)
        time.sleep(1)
        alone, _ = our_sweep(X, y, values[:1])
        gap = max(head.gap / head.objective for head in found)
        time.sleep(1)
        bounds = [head.objective - head.gap for head in found]
        theirs, fits = 0.0, 0
        for l2, bound in zip(values, bounds, strict=True):
            theirs, fits = theirs + sklearn_to(X, y, K, l2, bound), fits + 1
            if theirs > PATIENCE:
                break
        more = "" if fits == len(values) else "more than "
        print(
            f"| {K} | {all_of_it:.1f} s | {alone:.1f} s | {all_of_it / alone:.1f} | {theirs:.1f} s, {fits} fits | "
            f"{more}{theirs / all_of_it:.1f} | {gap:.1e} |",
            flush=True,
        )


def our_sweep(X: Any, y: Any, values: list[float]) -> tuple[float, list[Any]]:
    """Seconds of training, and the heads. The refit of the chosen one is left out: the rivals do not do it."""
    from xwb.training import Fit, FitOptions, prepare

    chosen: dict[str, Any] = {"sweep": {"l2": values}} if len(values) > 1 else {"l2": values[0]}
    with prepare(X, y, holdout=0.01, standardise=False) as data, tempfile.TemporaryDirectory() as out:
        job = Fit(data, FitOptions(tolerance=1e-3, **chosen))
        left = len(values)
        started = seconds = time.perf_counter()
        for event in job.run(out):
            left -= bool(event.stopped)
            if not left:
                seconds = time.perf_counter() - started
                break
        return seconds, job.heads


def sklearn_to(X: Any, y: Any, K: int, l2: float, bound: float) -> float:
    """Seconds of the fastest of scikit-learn's fits that is within 0.1 % of a lower bound of the optimum."""
    from sklearn.linear_model import LogisticRegression

    for tolerance in (1e-3, 1e-4, 1e-5):
        model = LogisticRegression(C=1 / (l2 * len(X)), tol=tolerance, max_iter=5000)
        started = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - started
        if exact(X, y, *columns(model, K), l2) <= bound * 1.001:
            break
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", default="100", help="several, separated by commas, for --sweep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--l2", type=float, default=1e-4)
    parser.add_argument("--tolerance", type=float, default=2e-5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.folder, given.l2, given.tolerance)
        return
    print(machine("xwb", "numpy", "scipy", "scikit-learn", "torch"))
    kinds, classes = given.kinds.split(","), [int(word) for word in given.classes.split(",")]
    if given.sweep:
        sweep(given.rows, given.features, classes, kinds[0])
    else:
        heads(given.rows, given.features, classes[0], given.rounds, kinds, given.sides.split(","), given.l2)


if __name__ == "__main__":
    main()
