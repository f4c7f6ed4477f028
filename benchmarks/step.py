"""One full training step of a linear softmax classifier: forward, loss, dX, dW, update; float32, two threads.

python benchmarks/step.py                # the table of docs/benchmarks.md
python benchmarks/step.py --shape 64,784,10 --seconds 5
python benchmarks/step.py --memory       # peak memory of one step, in a child process
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

import xwb
from _measure import interleaved, machine

THREADS = 2
SHAPES = [(64, 4096, 4096), (1024, 1024, 1024), (256, 1024, 1024), (256, 768, 32000), (64, 784, 10), (2, 2, 3)]
LR = 1e-6  # small: thousands of steps must not carry W away into denormals or infinities


def operands(N: int, D: int, M: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D), dtype=np.float32)
    W = rng.standard_normal((D, M), dtype=np.float32) / np.float32(D) ** 0.5
    return X, W, np.zeros(M, np.float32), rng.integers(0, M, N)


def floor(N: int, D: int, M: int) -> Callable[[], object]:
    """The three products alone, through xwb's BLAS and layouts, into arrays that exist already."""
    from scipy.linalg.blas import sgemm

    X, W, _, _ = operands(N, D, M)
    Y, dX = np.empty((N, M), np.float32), np.empty((N, D), np.float32)
    dY = np.random.default_rng(1).standard_normal((N, M), dtype=np.float32)

    def step() -> None:
        sgemm(1.0, W.T, X.T, 0.0, Y.T, 0, 0, 1)
        sgemm(1.0, W.T, dY.T, 0.0, dX.T, 1, 0, 1)
        sgemm(-LR, dY.T, X.T, 1.0, W.T, 0, 1, 1)

    return step


def closed_form(N: int, D: int, M: int) -> Callable[[], object]:
    X, W, b, y = operands(N, D, M)

    def step() -> object:
        nonlocal W, b
        Y, back = xwb.linear(X, W, b)
        loss, loss_back = xwb.softmax_cross_entropy(Y, y)
        dX, dW, db = back(loss_back(), factored=True)
        W -= LR * dW
        b -= LR * db
        return loss, dX

    return step


def numpy_step(N: int, D: int, M: int) -> Callable[[], object]:
    X, W, b, y = operands(N, D, M)
    rows = np.arange(N)

    def step() -> object:
        nonlocal W, b
        Y = X @ W + b
        E = np.exp(Y - Y.max(axis=1, keepdims=True))
        P = E / E.sum(axis=1, keepdims=True)
        loss = -np.log(P[rows, y]).mean()
        P[rows, y] -= 1
        dY = P / np.float32(N)
        dX, dW, db = dY @ W.T, X.T @ dY, dY.sum(axis=0)
        W -= LR * dW
        b -= LR * db
        return loss, dX

    return step


def torch_sgd(**options: bool) -> Callable[[int, int, int], Callable[[], object]]:
    """``Linear`` and ``SGD`` as everyone writes them; ``options`` are SGD's and ``set_to_none``."""

    def make(N: int, D: int, M: int) -> Callable[[], object]:
        import torch

        X, W, b, y = (torch.from_numpy(a) for a in operands(N, D, M))
        X.requires_grad_()
        layer = torch.nn.Linear(D, M)
        with torch.no_grad():
            layer.weight.copy_(W.T)
            layer.bias.copy_(b)
        set_to_none = options.get("set_to_none", True)
        chosen = {name: value for name, value in options.items() if name != "set_to_none"}
        optimizer = torch.optim.SGD(layer.parameters(), lr=LR, **chosen)
        cross_entropy = torch.nn.functional.cross_entropy

        def step() -> object:
            optimizer.zero_grad(set_to_none=set_to_none)
            X.grad = None
            loss = cross_entropy(layer(X), y)
            loss.backward()
            optimizer.step()
            return loss, X.grad

        return step

    return make


def torch_addmm(N: int, D: int, M: int) -> Callable[[], object]:
    """What an expert writes by hand: the update inside the product, no autograd."""
    import torch

    X, W, b, y = (torch.from_numpy(a) for a in operands(N, D, M))
    column = y[:, None]
    minus_one = torch.full((N, 1), -1.0)

    @torch.inference_mode()
    def step() -> object:
        logp = torch.log_softmax(torch.addmm(b, X, W), 1)
        loss = -logp.gather(1, column).mean()
        dY = logp.exp_().scatter_add_(1, column, minus_one).div_(N)
        dX = dY @ W.T
        W.addmm_(X.T, dY, beta=1, alpha=-LR)
        b.sub_(dY.sum(0), alpha=LR)
        return loss, dX

    return step


def jax_step(N: int, D: int, M: int) -> Callable[[], object]:
    """Jitted, parameters donated."""
    import jax
    import jax.numpy as jnp

    X, W, b, y = (jnp.asarray(a) for a in operands(N, D, M))

    def loss_of(X: jax.Array, W: jax.Array, b: jax.Array) -> jax.Array:
        logp = jax.nn.log_softmax(X @ W + b)
        return -jnp.take_along_axis(logp, y[:, None], axis=1).mean()

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def updated(X: jax.Array, W: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
        loss, (dX, dW, db) = jax.value_and_grad(loss_of, argnums=(0, 1, 2))(X, W, b)
        return loss, dX, W - LR * dW, b - LR * db

    def step() -> object:
        nonlocal W, b
        loss, dX, W, b = updated(X, W, b)
        return jax.block_until_ready((loss, dX, W, b))

    return step


PYTORCH_SGD = {
    "PyTorch SGD": torch_sgd(),
    "PyTorch SGD fused": torch_sgd(fused=True),
    "PyTorch SGD fused, gradients kept": torch_sgd(fused=True, set_to_none=False),
    "PyTorch SGD foreach": torch_sgd(foreach=True),
}
SIDES = {
    "floor": floor,
    "xwb": closed_form,
    **PYTORCH_SGD,
    "PyTorch addmm_": torch_addmm,
    "JAX": jax_step,
    "NumPy": numpy_step,
}


def agree(N: int, D: int, M: int) -> None:
    """All sides compute the same loss and dX, or the race means nothing."""
    expected = None
    for name, make in SIDES.items():
        if name == "floor":
            continue
        loss, dX, *_ = (np.asarray(a.detach() if hasattr(a, "detach") else a) for a in make(N, D, M)())
        expected = expected or (loss, dX)
        np.testing.assert_allclose(loss, expected[0], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(dX, expected[1], rtol=1e-2, atol=1e-4 * np.abs(expected[1]).max(), err_msg=name)


def table(shapes: list[tuple[int, int, int]], seconds: float) -> None:
    import torch

    agree(6, 5, 4)  # and every library is loaded
    threadpool_limits(THREADS)
    torch.set_num_threads(THREADS)
    print(machine("xwb", "numpy", "scipy", "torch", "jax"), f"\nfloat32, {THREADS} threads, interleaved in one process")
    rows = []
    for shape in shapes:
        times = interleaved({name: make(*shape) for name, make in SIDES.items()}, seconds)
        fastest = min(PYTORCH_SGD, key=lambda name: times[name].median)
        ours = times["xwb"].median
        compared = [times[name] for name in ("floor", fastest, "PyTorch addmm_", "JAX", "NumPy")]
        ratios = "".join(f" {timing.median / ours:.2f} |" for timing in compared)
        rows.append(f"| {' × '.join(map(str, shape))} | {times['xwb']} |{ratios}")
        print(f"\nN, D, M = {shape}    (× is the side's time over xwb's)")
        for name, timing in times.items():
            note = "   fastest PyTorch SGD" if name == fastest else ""
            print(f"    {name:<36}{timing!s:>20}   ×{timing.median / ours:.2f}{note}")
        print(
            f"    xwb is {times[fastest].median / ours:.2f} times as fast as PyTorch's SGD, "
            f"{times['PyTorch addmm_'].median / ours:.2f} times as fast as addmm_, "
            f"and takes {ours / times['floor'].median:.3f} times the floor"
        )

    print("\nThe table of docs/benchmarks.md: xwb's time, and the others' as multiples of it\n")
    print(
        "| N × D × M | xwb | floor | PyTorch SGD | addmm_ | JAX | NumPy |\n|---|---|---|---|---|---|---|",
        *rows,
        sep="\n",
    )


CHILD = """
import numpy as np, xwb
N, D, M = {shape}
warm, _ = xwb.linear(np.ones((N, 256), "f4"), np.ones((256, 256), "f4"))     # BLAS's own buffers exist
xwb.softmax_cross_entropy(warm, np.zeros(N, int))[1]()
rng = np.random.default_rng(0)
X = rng.standard_normal((N, D), dtype=np.float32)
W = rng.standard_normal((D, M), dtype=np.float32)
b, y = np.zeros(M, np.float32), np.zeros(N, int)
def resident(which):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = resident("VmRSS")
Y, back = xwb.linear(X, W, b)
loss, loss_back = xwb.softmax_cross_entropy(Y, y)
dX, dW, db = back(loss_back(), factored=True)
W -= 1e-6 * dW
b -= 1e-6 * db
print(resident("VmHWM") - before, W.nbytes)
"""


def memory(shape: tuple[int, int, int]) -> None:
    """The peak resident memory of one step beyond X, W and b; all that forward saves for backward is counted in."""
    output = subprocess.run(
        [sys.executable, "-c", CHILD.format(shape=shape)], check=True, capture_output=True, text=True
    ).stdout
    peak, weight = map(int, output.split())
    print(
        f"peak memory of a step at N, D, M = {shape}: {peak / 2**20:.2f} MiB beyond X, W, b, "
        f"{peak / weight:.1%} of W's {weight / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), help="N,D,M; default: all")
    parser.add_argument("--seconds", type=float, default=20.0, help="per shape")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    arguments = parser.parse_args()
    if not arguments.memory:
        table([arguments.shape] if arguments.shape else SHAPES, arguments.seconds)
    memory(arguments.shape or SHAPES[0])
