"""What `xwb.derive` takes, and what its programs take beside hand-written NumPy and PyTorch's autograd.

python benchmarks/derive.py              # both tables of docs/benchmarks.md
python benchmarks/derive.py --seconds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import xwb
from _measure import interleaved, machine

THREADS = 2
LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
CONVOLUTION = "Y[n,o,p,q] = X[n,c,zero(p+r-1),zero(q+s-1)] K[o,c,r,s]"
ATTENTION = """S[h,i,j] = Q[h,i,e] K[h,j,e]/sqrt(size(e))
P[h,i,j] = exp(S[h,i,j])/sum[k](exp(S[h,i,k]))
O[h,i,e] = P[h,i,j] V[h,j,e]"""
FORMULAS = {
    "linear": LINEAR,
    "softmax cross-entropy": "L = mean[n](log(sum[k](exp(Z[n,k]))) - Z[n,y[n]])",
    "convolution": CONVOLUTION,
    "layer norm": "Y[n,d] = (X[n,d] - mean[k](X[n,k]))/sqrt(mean[k]((X[n,k] - mean[j](X[n,j]))**2) + 1e-5)*g[d] + b[d]",
    "attention": ATTENTION,
    "multi-head attention": """Q[n,h,i,e] = X[n,i,d] WQ[d,h,e]
K[n,h,j,e] = X[n,j,d] WK[d,h,e]
V[n,h,j,e] = X[n,j,d] WV[d,h,e]
S[n,h,i,j] = Q[n,h,i,e] K[n,h,j,e]/sqrt(size(e))
P[n,h,i,j] = exp(S[n,h,i,j])/sum[k](exp(S[n,h,i,k]))
A[n,h,i,e] = P[n,h,i,j] V[n,h,j,e]
Y[n,i,d] = A[n,h,i,e] WO[h,e,d]""",
    "LSTM cell": """I[n,h] = sigmoid(X[n,d] Wi[d,h] + H[n,k] Ui[k,h] + bi[h])
F[n,h] = sigmoid(X[n,d] Wf[d,h] + H[n,k] Uf[k,h] + bf[h])
G[n,h] = tanh(X[n,d] Wg[d,h] + H[n,k] Ug[k,h] + bg[h])
O[n,h] = sigmoid(X[n,d] Wo[d,h] + H[n,k] Uo[k,h] + bo[h])
M[n,h] = F[n,h] C[n,h] + I[n,h] G[n,h]
Y[n,h] = O[n,h] tanh(M[n,h])""",
}


def derivations() -> None:
    """Milliseconds to derive: ready to run, with every gradient's formula, with the whole page of steps."""
    print("| layer | derive | … and all formulas | … and the page |\n|---|---|---|---|")
    for name, text in FORMULAS.items():
        samples = []
        for _ in range(21):
            started = time.perf_counter()
            d = xwb.derive(text)
            ready = time.perf_counter()
            for tensor in d.differentiable:
                _ = d[tensor].formula
            printed = time.perf_counter()
            str(d)
            samples.append((ready - started, printed - started, time.perf_counter() - started))
        medians = (f"{statistics.median(column) * 1e3:.1f} ms" for column in zip(*samples, strict=True))
        print(f"| {name} | {' | '.join(medians)} |")


class Case(NamedTuple):
    """A layer at one size, three times: forward and backward of each, given arrays and dY."""

    formula: str
    shapes: dict[str, tuple[int, ...]]
    by_hand: Callable[..., Any]
    in_torch: Callable[..., Any]


def linear_by_hand(dY: Any, X: Any, W: Any, b: Any) -> tuple[Any, ...]:
    return X @ W + b, dY @ W.T, X.T @ dY, dY.sum(axis=0)


def convolution_by_hand(dY: Any, X: Any, K: Any) -> tuple[Any, ...]:
    """im2col one example at a time."""
    padded = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, K.shape[2:], axis=(2, 3))
    flat = K.reshape(len(K), -1)
    Y, dX, dK = np.empty_like(dY), np.zeros_like(padded), np.zeros_like(flat)
    for n, window in enumerate(windows):
        columns = window.transpose(0, 3, 4, 1, 2).reshape(flat.shape[1], -1)
        dy = dY[n].reshape(len(K), -1)
        Y[n] = (flat @ columns).reshape(Y[n].shape)
        dK += dy @ columns.T
        back = (flat.T @ dy).reshape(*K.shape[1:], *dY.shape[2:])
        for r, s in np.ndindex(*K.shape[2:]):
            dX[n, :, r : r + dY.shape[2], s : s + dY.shape[3]] += back[:, r, s]
    return Y, dX[:, :, 1:-1, 1:-1], dK.reshape(K.shape)


def attention_by_hand(dO: Any, Q: Any, K: Any, V: Any) -> tuple[Any, ...]:
    scale = np.float32(Q.shape[-1] ** -0.5)
    S = Q @ K.mT * scale
    P = np.exp(S - S.max(axis=-1, keepdims=True))
    P /= P.sum(axis=-1, keepdims=True)
    dP = dO @ V.mT
    dS = P * (dP - (P * dP).sum(axis=-1, keepdims=True)) * scale
    return P @ V, dS @ K, dS.mT @ Q, P.mT @ dO


def attention_in_torch(Q: Any, K: Any, V: Any) -> Any:
    return torch.softmax(Q @ K.mT / Q.shape[-1] ** 0.5, dim=-1) @ V


CASES = {
    "linear, 256 × 1024 × 1024": Case(
        LINEAR,
        {"X": (256, 1024), "W": (1024, 1024), "b": (1024,)},
        linear_by_hand,
        lambda X, W, b: X @ W + b,
    ),
    "convolution, 32 × 64 × 32 × 32, 64 filters 3 × 3": Case(
        CONVOLUTION,
        {"X": (32, 64, 32, 32), "K": (64, 64, 3, 3)},
        convolution_by_hand,
        lambda X, K: torch.nn.functional.conv2d(X, K, padding=1),
    ),
    "attention, 8 heads, 512 tokens, width 64": Case(
        ATTENTION,
        {"Q": (8, 512, 64), "K": (8, 512, 64), "V": (8, 512, 64)},
        attention_by_hand,
        attention_in_torch,
    ),
}


def programs(seconds: float) -> None:
    """Forward and backward, float32: the derived program, NumPy by hand, PyTorch's autograd."""
    print("| forward and backward | derived | NumPy by hand | PyTorch |\n|---|---|---|---|")
    for name, case in CASES.items():
        rng = np.random.default_rng(0)
        arrays = {k: rng.standard_normal(shape, dtype=np.float32) for k, shape in case.shapes.items()}
        d = xwb.derive(case.formula)
        dY = rng.standard_normal(d.forward(**arrays).shape, dtype=np.float32)
        torch_dY = torch.tensor(dY)
        tensors = {k: torch.tensor(array, requires_grad=True) for k, array in arrays.items()}

        def derived(d: Any = d, dY: Any = dY, arrays: Any = arrays) -> tuple[Any, ...]:
            return d.forward(**arrays), *d.backward(dY, **arrays).values()

        def by_hand(case: Any = case, dY: Any = dY, arrays: Any = arrays) -> tuple[Any, ...]:
            return case.by_hand(dY, **arrays)

        def by_torch(case: Any = case, dY: Any = torch_dY, tensors: Any = tensors) -> tuple[Any, ...]:
            Y = case.in_torch(**tensors)
            return Y.detach(), *torch.autograd.grad(Y, list(tensors.values()), dY)

        for mine, hand, theirs in zip(derived(), by_hand(), by_torch(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
            np.testing.assert_allclose(hand, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
        times = interleaved({"derived": derived, "hand": by_hand, "torch": by_torch}, seconds)
        mine = times["derived"]
        ratios = (f"{times[side].median / mine.median:.2f}" for side in ("hand", "torch"))
        print(f"| {name} | {mine} | {' | '.join(ratios)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row of the second table")
    seconds = parser.parse_args().seconds
    print(machine("numpy", "scipy", "torch"), "\n")
    derivations()
    print("\nRatios: how many times as long as the derived program each takes.\n")
    torch.set_num_threads(THREADS)
    with threadpool_limits(THREADS):
        programs(seconds)


if __name__ == "__main__":
    main()
