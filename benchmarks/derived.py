"""The derived programs, forward and backward, beside NumPy by hand, PyTorch's autograd and JAX; float32, two threads.

python benchmarks/derived.py                        # the tables of docs/benchmarks.md
python benchmarks/derived.py --only attention --seconds 5
python benchmarks/derived.py --memory               # what the NumPy programs allocate
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.nn import functional

import _by_hand
import xwb
from _by_hand import BY_HAND
from _formulas import FORMULAS
from _measure import Timing, interleaved, machine
from xwb.algebra import Derivation

THREADS = 2
os.environ["NPROC"] = str(THREADS)  # the size of XLA's pool of threads, read at JAX's first computation

Program = Callable[[], tuple[Any, ...]]  # forward and backward: Y and the gradients


class Case(NamedTuple):
    """A layer of FORMULAS and BY_HAND at one size; forward in PyTorch and in JAX, in all ways that may be fastest."""

    size: str
    shapes: dict[str, tuple[int, ...]]
    in_torch: dict[str, Callable[..., Any]]
    in_jax: dict[str, Callable[..., Any]]


def _cross_entropy_in_jax(Z: Any, y: Any) -> Any:
    return (jax.nn.logsumexp(Z, axis=1) - jnp.take_along_axis(Z, y[:, None], axis=1)[:, 0]).mean()


def _one_hot_in_jax(Z: Any, y: Any) -> Any:
    return (jax.nn.logsumexp(Z, axis=1) - (Z * jax.nn.one_hot(y, Z.shape[1])).sum(axis=1)).mean()


def _norm_in_jax(X: Any, g: Any, b: Any) -> Any:
    centred = X - X.mean(1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(1, keepdims=True) + 1e-5) * g + b


def _convolution_in_torch(X: Any, K: Any) -> Any:
    return functional.conv2d(X, K, padding=1)


CHANNELS_LAST = "conv2d, channels last"  # all four-dimensional tensors are given in that layout

CASES = {
    "linear": Case(
        "256 × 1024 × 1024",
        {"X": (256, 1024), "W": (1024, 1024), "b": (1024,)},
        {"@": lambda X, W, b: X @ W + b, "addmm": lambda X, W, b: torch.addmm(b, X, W)},
        {"JAX": lambda X, W, b: X @ W + b},
    ),
    "softmax cross-entropy": Case(
        "1024 × 32000",
        {"Z": (1024, 32000), "y": (1024,)},
        {"cross_entropy": functional.cross_entropy},
        {"JAX": _cross_entropy_in_jax, "JAX, one-hot": _one_hot_in_jax},
    ),
    "attention": Case(
        "8 heads, 512 tokens, width 64",
        dict.fromkeys(("Q", "K", "V"), (8, 512, 64)),
        {
            "softmax": lambda Q, K, V: torch.softmax((Q * Q.shape[-1] ** -0.5) @ K.mT, dim=-1) @ V,
            "scaled_dot_product_attention": functional.scaled_dot_product_attention,
        },
        {"JAX": lambda Q, K, V: jax.nn.softmax((Q * Q.shape[-1] ** -0.5) @ K.mT) @ V},
    ),
    "low-rank adapter": Case(
        "256 × 1024 × 1024, rank 8",
        {"X": (256, 1024), "W": (1024, 1024), "A": (1024, 8), "B": (8, 1024)},
        {
            "@": lambda X, W, A, B: X @ W + X @ A @ B,
            "addmm": lambda X, W, A, B: torch.addmm(X @ W, X @ A, B),
        },
        {"JAX": lambda X, W, A, B: X @ W + X @ A @ B},
    ),
    "convolution": Case(
        "32 × 64 × 32 × 32, 64 filters 3 × 3",
        {"X": (32, 64, 32, 32), "K": (64, 64, 3, 3)},
        {"conv2d": _convolution_in_torch, CHANNELS_LAST: _convolution_in_torch},
        {"JAX": lambda X, K: jax.lax.conv_general_dilated(X, K, (1, 1), "SAME")},
    ),
    "layer norm": Case(
        "4096 × 1024",
        {"X": (4096, 1024), "g": (1024,), "b": (1024,)},
        {"layer_norm": lambda X, g, b: functional.layer_norm(X, g.shape, g, b)},
        {"JAX": _norm_in_jax},
    ),
}


def operands(case: Case) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays and dY: normal, and labels for y."""
    rng = np.random.default_rng(0)
    arrays = {k: rng.standard_normal(s, dtype=np.float32) for k, s in case.shapes.items() if k != "y"}
    if "y" in case.shapes:
        arrays["y"] = rng.integers(0, case.shapes["Z"][1], case.shapes["y"])
    output = jax.eval_shape(case.in_jax["JAX"], *arrays.values()).shape
    return arrays, rng.standard_normal(output, dtype=np.float32)[()]


def emitted(d: Derivation, target: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``forward(*arrays) -> (Y, saved)`` and ``backward(dY, saved) -> gradients`` of the emitted source text."""
    names: dict[str, Any] = {}
    exec(compile(d.code(target), _emitted_from(target), "exec"), names)
    return names["forward"], names["backward"]


def _emitted_from(target: str) -> str:
    return f"<derived {target}>"


def both(forward: Callable[..., Any], backward: Callable[..., Any], dY: Any, *arrays: Any) -> tuple[Any, ...]:
    Y, saved = forward(*arrays)
    return Y, *backward(dY, saved)


def numpy_programs(name: str, each: _by_hand.Each) -> tuple[functools.partial[Any], functools.partial[Any]]:
    """The derived one and the one by hand."""
    arrays, dY = operands(CASES[name])
    d = xwb.derive(FORMULAS[name])
    hand = BY_HAND[name]
    forward, backward = functools.partial(hand.forward, each), functools.partial(hand.backward, each)
    return (
        functools.partial(both, *emitted(d, "numpy"), dY, *(arrays[k] for k in d.inputs)),
        functools.partial(both, forward, backward, dY, *arrays.values()),
    )


def at_run_time(name: str) -> Program:
    """``d.forward`` and ``d.backward``, which interpret the derivation."""
    arrays, dY = operands(CASES[name])
    d = xwb.derive(FORMULAS[name])
    return lambda: (d.forward(**arrays), *d.backward(dY, **arrays).values())


def by_autograd(name: str, way: str, dtype: torch.dtype = torch.float32) -> Program:
    arrays, dY = operands(CASES[name])
    layout = torch.channels_last if way == CHANNELS_LAST else torch.contiguous_format

    def tensor(array: Any) -> torch.Tensor:
        made = torch.tensor(array)
        return made.to(dtype, memory_format=layout) if made.is_floating_point() else made

    tensors = [tensor(array) for array in arrays.values()]
    differentiable = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    given, forward = tensor(dY), CASES[name].in_torch[way]

    def program() -> tuple[Any, ...]:
        Y = forward(*tensors)
        return Y.detach(), *torch.autograd.grad(Y, differentiable, given)

    return program


def torch_program(name: str) -> Program:
    """The emitted PyTorch code."""
    arrays, dY = operands(CASES[name])
    d = xwb.derive(FORMULAS[name])
    tensors = [torch.tensor(arrays[k]) for k in d.inputs]
    return functools.partial(both, *emitted(d, "torch"), torch.tensor(dY), *tensors)


def by_jax(name: str, way: str) -> Program:
    arrays, dY = operands(CASES[name])
    forward, given = CASES[name].in_jax[way], jnp.asarray(dY)
    floating = [jnp.asarray(a) for a in arrays.values() if a.dtype == np.float32]
    labels = [jnp.asarray(a) for a in arrays.values() if a.dtype != np.float32]

    @jax.jit
    def value_and_gradients(dY: Any, floating: Any, labels: Any) -> tuple[Any, ...]:
        Y, back = jax.vjp(lambda *floating: forward(*floating, *labels), *floating)
        return Y, *back(dY)

    return lambda: jax.block_until_ready(value_and_gradients(given, floating, labels))


DERIVED, AT_RUN_TIME, HAND, POOL, EMITTED_TORCH = (
    "derived NumPy",
    "run-time engine",
    "NumPy by hand",
    "… in a thread pool",
    "derived PyTorch",
)


def programs(name: str, pool: _by_hand.Each) -> dict[str, Program]:
    derived, by_hand = numpy_programs(name, _by_hand.in_turn)
    sides = {DERIVED: derived, AT_RUN_TIME: at_run_time(name), HAND: by_hand}
    if BY_HAND[name].pieces:
        sides[POOL] = numpy_programs(name, pool)[1]
    sides |= {way: by_autograd(name, way) for way in CASES[name].in_torch}
    sides |= {way: by_jax(name, way) for way in CASES[name].in_jax}
    return sides | {EMITTED_TORCH: torch_program(name)}


def agree(name: str, sides: Mapping[str, Program]) -> None:
    """All sides compute what PyTorch computes in float64, or the race means nothing.

    An entry is a sum of up to 32,768 products (the filters' gradient), added up in float32 in an order of each side's
    own, and its error grows with the terms and not with the sum: hence a ten-thousandth of the entry and of the median
    entry. The median, because almost all entries of the gradient of a softmax are small.
    """
    exact = by_autograd(name, next(iter(CASES[name].in_torch)), torch.float64)()
    for side, program in sides.items():
        for found, expected in zip(program(), (t.numpy() for t in exact), strict=True):
            near = 1e-4 * np.median(np.abs(expected))
            np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4, atol=near, err_msg=f"{name}: {side}")


def race(names: list[str], seconds: float) -> None:
    threadpool_limits(THREADS)
    torch.set_num_threads(THREADS)
    pool = _by_hand.in_threads(THREADS)
    print(machine("xwb", "numpy", "scipy", "torch", "jax"), f"\nfloat32, {THREADS} threads, interleaved in one process")
    in_numpy, in_torch = [], []
    for name in names:
        case = CASES[name]
        sides = programs(name, pool)
        agree(name, sides)
        times = interleaved(sides, seconds)
        autograd, jitted = (min(ways, key=lambda way: times[way].median) for ways in (case.in_torch, case.in_jax))
        title = f"{name}, {case.size}"
        print(f"\n{title}    (× is the side's time over the derived NumPy program's)")
        for side, timing in times.items():
            note = "   PyTorch's autograd" if side in case.in_torch else ""
            print(f"    {side:<36}{timing!s:>20}   ×{timing.median / times[DERIVED].median:.2f}{note}")
        in_numpy.append(row(title, times, DERIVED, (AT_RUN_TIME, HAND, POOL, autograd, jitted)))
        in_torch.append(row(title, times, EMITTED_TORCH, (autograd,)) + f" {autograd} |")
    print("\nThe tables of docs/benchmarks.md: the derived program's time, and the others' as multiples of it\n")
    print(f"| layer | {DERIVED} | {AT_RUN_TIME} | {HAND} | {POOL} | PyTorch | JAX |\n|---|---|---|---|---|---|---|")
    print(*in_numpy, sep="\n")
    print(f"\n| layer | {EMITTED_TORCH} | autograd | by |\n|---|---|---|---|")
    print(*in_torch, sep="\n")


def row(title: str, times: Mapping[str, Timing], derived: str, others: tuple[str, ...]) -> str:
    ratios = (f"{times[side].median / times[derived].median:.2f}" if side in times else "–" for side in others)
    return f"| {title} | {times[derived]} | {' | '.join(ratios)} |"


class Allocations:
    """What NumPy allocates in functions of some files, seen after every bytecode: ``sys.settrace(…)``.

    ``most`` bounds the largest temporary from above: it is the most that came to be during one operation.
    """

    def __init__(self, *filenames: str) -> None:
        self.filenames = filenames
        self.most = self.peak = self._before = 0

    def __call__(self, frame: Any, event: str, argument: object) -> Allocations | None:
        if frame.f_code.co_filename not in self.filenames:
            return None
        frame.f_trace_opcodes = True
        self.look()
        return self

    def look(self) -> None:
        now, peak = tracemalloc.get_traced_memory()
        self.most, self.peak = max(self.most, peak - self._before), max(self.peak, peak)
        self._before = now
        tracemalloc.reset_peak()


def allocations(program: functools.partial[Any], filename: str) -> tuple[int, ...]:
    """Bytes: kept for backward; temporaries of forward and of backward, at their peak; the most in one operation."""
    forward, backward, dY, *arrays = program.args
    program()  # what is made once exists
    seen, temporaries = Allocations(filename), []

    def traced(function: Callable[..., Any], *arguments: Any) -> Any:
        seen.peak = 0
        sys.settrace(seen)
        try:
            result = function(*arguments)
        finally:
            sys.settrace(None)
        seen.look()
        temporaries.append(seen.peak - tracemalloc.get_traced_memory()[0])
        return result

    tracemalloc.start()
    try:
        Y, saved = traced(forward, *arrays)
        kept = tracemalloc.get_traced_memory()[0] - Y.nbytes
        traced(backward, dY, saved)
    finally:
        tracemalloc.stop()
    return kept, *temporaries, seen.most


def memory(names: list[str]) -> None:
    print(machine("xwb", "numpy"), "\nMiB beyond the inputs, Y and the gradients\n")
    print("| layer | largest input or output | program | kept for backward | forward | backward | in one operation |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        derived, by_hand = numpy_programs(name, _by_hand.in_turn)
        largest = max(array.nbytes for array in (*operands(CASES[name])[0].values(), *derived()))
        for title, program, filename in (
            (DERIVED, derived, _emitted_from("numpy")),
            (HAND, by_hand, _by_hand.__file__),
        ):
            figures = (f"{number / 2**20:.2f}" for number in allocations(program, filename))
            print(f"| {name} | {largest / 2**20:.2f} | {title} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES), metavar="NAME", help=f"one of: {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="per layer")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    arguments = parser.parse_args()
    chosen = [arguments.only] if arguments.only else list(CASES)
    if arguments.memory:
        memory(chosen)
    else:
        race(chosen, arguments.seconds)
