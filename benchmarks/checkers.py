"""Which gradient checker finds which mistake: the same wrong NumPy pairs on the same arrays, judged by each of them.

python benchmarks/checkers.py                        # the tables of docs/benchmarks.md
python benchmarks/checkers.py --only attention --seeds 0 --checkers xwb,gradcheck
python benchmarks/checkers.py --wrong-causes         # and every mistake that xwb found and called by another name
python benchmarks/checkers.py --false-alarms 1000    # right gradients, xwb alone
python benchmarks/checkers.py --million              # one wrong entry among a million

Every tool runs with its default tolerances, once per pair:

* `torch.autograd.gradcheck`, slow and fast, on a `torch.autograd.Function` made of the pair; PyTorch itself sums a
  gradient with an axis too many to the shape of its input, so that this mistake is none there;
* `jax.test_util.check_grads`, order 1, reverse on a `custom_vjp`, forward on a `custom_jvp` whose Jacobian is the one
  that backward gives row by row, for one-hot dY;
* HIPS autograd's `check_grads`, order 1, reverse, on a `primitive`: higher orders would differentiate backward itself;
* the relative error of the course CS231n: central differences with h = 1e-5 for a random dY, the largest
  |a − b| / max(1e-8, |a| + |b|) of each tensor, "wrong" above 1e-4.

In float32 only xwb and JAX run: gradcheck warns that its defaults are for float64, and the steps of HIPS autograd
(1e-6) and of CS231n (1e-5) drown in float32's rounding.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import statistics
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import autograd.extend
import autograd.test_util
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.autograd.gradcheck import GradcheckError, gradcheck

import xwb
from _measure import machine
from _mutations import BY_NAME, Case, Mutation, mutants
from _zoo import LAYERS, Array, Layer, linear_sizes

THREADS = 2
CS231N_STEP, CS231N_THRESHOLD = 1e-5, 1e-4
BASE = "gradcheck"  # whose time is 1
jax.config.update("jax_enable_x64", True)


class Disagreement(AssertionError):
    """A checker found the gradient wrong; ``report`` is xwb's."""

    def __init__(self, text: str, report: Any = None) -> None:
        super().__init__(text)
        self.report = report


# What the tools raise to say that a gradient is wrong; anything else broke on the way there.
MISMATCH = (AssertionError, GradcheckError, xwb.ProofError)


class Pair(NamedTuple):
    """What is judged: functions of the floating arrays alone; ``backward`` gives their gradients alone."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    arrays: tuple[Array, ...]
    whole: tuple[tuple[Callable[..., Any], Callable[..., Any]], tuple[Array, ...]]  # with the integers, as planted
    seed: int


def pair_of(forward: Callable[..., Any], backward: Callable[..., Any], arrays: tuple[Array, ...], seed: int) -> Pair:
    """The pair for every checker; the integers among the arrays stay as they are."""
    floats = [i for i, array in enumerate(arrays) if array.dtype.kind == "f"]

    def filled(some: tuple[Any, ...]) -> list[Any]:
        whole: list[Any] = list(arrays)
        for i, array in zip(floats, some, strict=True):
            whole[i] = np.asarray(array)
        return whole

    def forward_of_floats(*some: Any) -> Array:
        return np.asarray(forward(*filled(some)))

    def backward_of_floats(dY: Any, *some: Any) -> tuple[Array, ...]:
        grads = backward(np.asarray(dY), *filled(some))
        return tuple(grads[i] for i in floats)

    given = tuple(array.copy() for array in arrays)
    some = tuple(given[i] for i in floats)
    return Pair(forward_of_floats, backward_of_floats, some, ((forward, backward), given), seed)


# --- the checkers -------------------------------------------------------------------------------------------------


def by_xwb(pair: Pair) -> None:
    report = xwb.check(pair.whole[0], *pair.whole[1])
    if not report.ok:
        raise Disagreement(str(report), report)


def torch_function(pair: Pair) -> Callable[..., torch.Tensor]:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(*tensors)
            return torch.tensor(pair.forward(*(t.detach().numpy() for t in tensors)))

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dY: torch.Tensor) -> tuple[torch.Tensor, ...]:
            grads = pair.backward(dY.numpy(), *(t.detach().numpy() for t in ctx.saved_tensors))
            return tuple(torch.tensor(g) for g in grads)

    return Function.apply


def by_gradcheck(pair: Pair, fast: bool = False) -> None:
    torch.manual_seed(pair.seed)
    inputs = tuple(torch.tensor(a, requires_grad=True) for a in pair.arrays)
    gradcheck(torch_function(pair), inputs, fast_mode=fast)


def by_gradcheck_fast(pair: Pair) -> None:
    by_gradcheck(pair, fast=True)


# Made once for all pairs of the same shapes: compiling anew for each pair would be nine tenths of JAX's time.
at_hand: list[Pair] = []


def jax_shape(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(array), array.dtype)


def value_at_hand(*arrays: Any) -> Array:
    return at_hand[0].forward(*arrays)


def gradients_at_hand(dY: Any, *arrays: Any) -> tuple[Array, ...]:
    return at_hand[0].backward(dY, *arrays)


def along_at_hand(arrays: Any, directions: Any) -> Array:
    """Row k of the Jacobian, which is backward of a one-hot dY, times the directions."""
    arrays, directions = tuple(map(np.asarray, arrays)), tuple(map(np.asarray, directions))
    Y_dot = np.zeros_like(at_hand[0].forward(*arrays))
    for k in np.ndindex(Y_dot.shape):
        one_hot = np.zeros_like(Y_dot)
        one_hot[k] = 1
        Y_dot[k] = sum(map(np.vdot, at_hand[0].backward(one_hot, *arrays), directions))
    return Y_dot


@functools.cache
def jax_reverse(value: jax.ShapeDtypeStruct, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Callable[..., Any]:
    @jax.custom_vjp
    def function(*arrays: Any) -> Any:
        return jax.pure_callback(value_at_hand, value, *arrays)

    def backward(arrays: Any, dY: Any) -> Any:
        return jax.pure_callback(gradients_at_hand, inputs, dY, *arrays)

    function.defvjp(lambda *arrays: (function(*arrays), arrays), backward)
    return function


@functools.cache
def jax_forward(value: jax.ShapeDtypeStruct, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Callable[..., Any]:
    @jax.custom_jvp
    def function(*arrays: Any) -> Any:
        return jax.pure_callback(value_at_hand, value, *arrays)

    @function.defjvp
    def rule(arrays: Any, directions: Any) -> Any:
        return function(*arrays), jax.pure_callback(along_at_hand, value, arrays, directions)

    return function


def by_jax(pair: Pair, make: Callable[..., Any], mode: str) -> None:
    at_hand[:] = [pair]
    function = make(jax_shape(pair.forward(*pair.arrays)), tuple(map(jax_shape, pair.arrays)))
    jax.test_util.check_grads(function, tuple(map(jnp.asarray, pair.arrays)), order=1, modes=(mode,))


def by_jax_forward(pair: Pair) -> None:
    by_jax(pair, jax_forward, "fwd")


def by_jax_reverse(pair: Pair) -> None:
    by_jax(pair, jax_reverse, "rev")


def by_autograd(pair: Pair) -> None:
    np.random.seed(pair.seed)  # noqa: NPY002  autograd draws its directions from there
    function = autograd.extend.primitive(lambda *arrays: pair.forward(*arrays)[()])
    autograd.extend.defvjp_argnums(function, lambda argnums, Y, arrays, kwargs: lambda dY: pair.backward(dY, *arrays))
    argnums = tuple(range(len(pair.arrays)))
    autograd.test_util.check_grads(function, argnums, modes=["rev"], order=1)(*pair.arrays)


def by_cs231n(pair: Pair) -> None:
    arrays = [a.copy() for a in pair.arrays]
    dY = np.random.default_rng(pair.seed).standard_normal(pair.forward(*arrays).shape)
    for X, dX in zip(arrays, pair.backward(dY, *arrays), strict=True):
        numeric = np.empty_like(X)
        for k in np.ndindex(X.shape):
            x = X[k]
            X[k] = x + CS231N_STEP
            up = pair.forward(*arrays)
            X[k] = x - CS231N_STEP
            down = pair.forward(*arrays)
            X[k] = x
            numeric[k] = np.sum((up - down) * dY) / (2 * CS231N_STEP)
        error = np.max(np.abs(dX - numeric) / np.maximum(1e-8, np.abs(dX) + np.abs(numeric)))
        if not error <= CS231N_THRESHOLD:  # NaN is wrong
            raise Disagreement(f"relative error {error:.1e}")


CHECKERS: dict[str, Callable[[Pair], None]] = {
    "xwb": by_xwb,
    BASE: by_gradcheck,
    "gradcheck fast": by_gradcheck_fast,
    "JAX forward": by_jax_forward,
    "JAX reverse": by_jax_reverse,
    "autograd": by_autograd,
    "CS231n": by_cs231n,
}
IN_FLOAT32 = ("xwb", "JAX forward", "JAX reverse")
FOR_A_MILLION = ("xwb", "gradcheck fast")  # entry by entry takes hours


class Verdict(NamedTuple):
    """What a checker said of one pair."""

    wrong: bool
    seconds: float
    broke: str = ""  # the exception, where it was not one that says "wrong"
    causes: frozenset[str] = frozenset()  # xwb's diagnosis
    text: str = ""


def judge(checker: Callable[[Pair], None], pair: Pair) -> Verdict:
    """Time one check; a tool that breaks has not let the mistake pass, but is marked."""
    started = time.perf_counter()
    try:
        checker(pair)
    except MISMATCH as error:
        seconds = time.perf_counter() - started
        report = error.report if isinstance(error, Disagreement) else None
        causes = frozenset(entry.cause for entry in getattr(report, "diagnosis", None) or [])
        return Verdict(True, seconds, causes=causes, text=str(error))
    except Exception as error:
        return Verdict(True, time.perf_counter() - started, broke=type(error).__name__, text=str(error))
    return Verdict(False, time.perf_counter() - started)


# --- the scoreboard -----------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """One pair, with a mistake or right, and what each checker said."""

    layer: str
    seed: int
    mutation: Mutation | None
    verdicts: dict[str, Verdict]

    def __str__(self) -> str:
        what, detail = (self.mutation.name, self.mutation.detail) if self.mutation else ("right", "")
        return f"{self.layer}, seed {self.seed}: {what}{f' ({detail})' if detail else ''}"


def trials(
    layers: tuple[Layer, ...], seeds: list[int], dtype: Any, checkers: list[str], unchanged: Counter[str]
) -> Iterator[Trial]:
    """Every right pair and every mutant; the checkers take turns on each, every time in another order."""
    turn = 0
    for layer, seed in itertools.product(layers, seeds):
        right = (None, (layer.forward, layer.backward), Case(layer, seed, dtype).arrays)
        for mutation, sides, arrays in (right, *mutants(layer, seed, dtype, unchanged)):
            turn = (turn + 1) % len(checkers)
            order = checkers[turn:] + checkers[:turn]
            verdicts = {name: judge(CHECKERS[name], pair_of(*sides, arrays, seed)) for name in order}
            yield Trial(layer.name, seed, mutation, verdicts)


def scoreboard(
    layers: tuple[Layer, ...], seeds: list[int], dtype: Any, checkers: list[str], wrong_causes: bool
) -> None:
    """The tables of one dtype."""
    unchanged: Counter[str] = Counter()
    judged = list(trials(layers, seeds, dtype, checkers, unchanged))
    planted = [(trial, trial.mutation) for trial in judged if trial.mutation]
    right = [trial for trial in judged if not trial.mutation]
    kinds = {mutation.name for _, mutation in planted}
    skipped = f"; {unchanged.total()} that would have left the gradient as it is not planted" if unchanged else ""
    print(
        f"\n## {np.dtype(dtype)}: {len(planted)} mistakes of {len(kinds)} kinds in {len(layers)} layers, "
        f"seeds {', '.join(map(str, seeds))}{skipped}\n"
    )
    base = sum(trial.verdicts[BASE].seconds for trial in judged) if BASE in checkers else None
    print("| checker | found | … by breaking | false alarms | median | total | time beside gradcheck's |")
    print("|---|---|---|---|---|---|---|")
    for name in checkers:
        said = [trial.verdicts[name] for trial, _ in planted]
        seconds = [trial.verdicts[name].seconds for trial in judged]
        print(
            f"| {name} | {sum(v.wrong for v in said)} of {len(said)} | {sum(bool(v.broke) for v in said)} "
            f"| {sum(trial.verdicts[name].wrong for trial in right)} of {len(right)} "
            f"| {statistics.median(seconds) * 1e3:.2f} ms | {sum(seconds):.1f} s "
            f"| {f'{sum(seconds) / base:.2f}' if base else '–'} |"
        )
    print_mistakes(planted, checkers)
    for name in checkers:
        for trial in right:
            if trial.verdicts[name].wrong:
                verdict = trial.verdicts[name]
                print(f"false alarm of {name}: {trial}{f' ({verdict.broke})' if verdict.broke else ''}")
    if "xwb" in checkers:
        print_causes(planted, wrong_causes)


def share(part: int, whole: int) -> str:
    """How a part of so many is shown in a cell."""
    return "all" if part == whole else str(part)


def print_mistakes(planted: list[tuple[Trial, Mutation]], checkers: list[str]) -> None:
    """A table: how many mistakes of each kind were found, and of how many xwb named the cause."""
    print(f"\n| mistake | planted | {' | '.join(checkers)} | cause named |\n|---|---|{'---|' * len(checkers)}---|")
    groups = defaultdict(list)
    for trial, mutation in planted:
        groups[mutation.name].append((trial, mutation))
    for name, group in sorted(groups.items(), key=lambda item: list(BY_NAME).index(item[0])):
        cells = []
        for checker in checkers:
            verdicts = [trial.verdicts[checker] for trial, _ in group]
            broke = any(verdict.broke for verdict in verdicts)
            cells.append(share(sum(verdict.wrong for verdict in verdicts), len(group)) + "!" * broke)
        said = "–"
        if BY_NAME[name].named and "xwb" in checkers:
            said = share(sum(m.is_said_by(trial.verdicts["xwb"].causes) for trial, m in group), len(group))
        print(f"| {name} | {len(group)} | {' | '.join(cells)} | {said} |")
    print("\n!: some by an exception that says something else than that the gradient is wrong\n")


def print_causes(planted: list[tuple[Trial, Mutation]], wrong_causes: bool) -> None:
    """What xwb missed, and how often it named the cause."""
    judged = [(trial, mutation, trial.verdicts["xwb"]) for trial, mutation in planted]
    missed = [trial for trial, _, verdict in judged if not verdict.wrong]
    print(f"missed by xwb: {len(missed)} of {len(planted)}", *missed, sep="\n    ")
    for trial, _, verdict in judged:
        if verdict.broke:
            print(f"xwb broke: {trial}: {verdict.broke}: {verdict.text}")
    with_name = [one for one in judged if one[1].named]
    otherwise = [(trial, mutation, v) for trial, mutation, v in with_name if not mutation.is_said_by(v.causes)]
    named = len(with_name) - len(otherwise)
    print(f"cause named by xwb: {named} of {len(with_name)} that have a name, {named / max(1, len(with_name)):.1%}")
    if wrong_causes:
        for trial, mutation, verdict in otherwise:
            said = ", ".join(sorted(verdict.causes)) or "nothing"
            print(f"    {trial}: expected {' or '.join((mutation.cause, *mutation.also))}, said {said}")


def warm_up(checkers: list[str]) -> None:
    """Each tool once, untimed: what it loads and compiles at its first call is not the price of a check."""
    case = Case(LAYERS[0], 0, np.float64)
    for name in checkers:
        judge(CHECKERS[name], pair_of(case.layer.forward, case.layer.backward, case.arrays, 0))


# --- right gradients, and a large tensor --------------------------------------------------------------------------


def false_alarms(layers: tuple[Layer, ...], runs: int) -> None:
    """xwb on right pairs: the layers in both dtypes, seed after seed, until there were so many runs."""
    alarms, seconds = 0, 0.0
    for run in range(runs):
        seed, which = divmod(run, 2 * len(layers))
        layer, dtype = layers[which // 2], (np.float64, np.float32)[which % 2]
        arrays = Case(layer, seed, dtype).arrays
        verdict = judge(by_xwb, pair_of(layer.forward, layer.backward, arrays, seed))
        seconds += verdict.seconds
        if verdict.wrong:
            alarms += 1
            print(f"false alarm: {layer.name}, seed {seed}, {np.dtype(dtype)} {verdict.broke}\n{verdict.text}\n")
    print(f"xwb: {alarms} false alarms in {runs} runs on right gradients, {seconds:.1f} s")


def million(seeds: list[int], checkers: list[str]) -> None:
    """A linear layer with a million weights and one entry of dW wrong."""
    layer = linear_sizes(8, 1000, 1000)
    print(f"\n| 1,000,000 entries of dW | {' | '.join(checkers)} |\n|---|{'---|' * len(checkers)}")
    for seed in seeds:
        case = Case(layer, seed, np.float64)
        sides = {"right": layer.backward, "one zeroed": case.of_entry(0.0), "one 2 % off": case.of_entry(1.02)}
        for what, backward in sides.items():
            cells = []
            for name in checkers:
                verdict = judge(CHECKERS[name], pair_of(layer.forward, backward, case.arrays, seed))
                cells.append(f"{verdict.broke or ('wrong' if verdict.wrong else 'passed')}, {verdict.seconds:.2f} s")
            print(f"| {what}, seed {seed} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--only", metavar="LAYER", help="the layers whose name begins so")
    parser.add_argument(
        "--checkers", type=lambda text: text.split(","), default=list(CHECKERS), help="some of the names"
    )
    parser.add_argument("--wrong-causes", action="store_true", help="list every mistake that xwb calls otherwise")
    parser.add_argument("--false-alarms", type=int, metavar="N", help="N right gradients, xwb alone")
    parser.add_argument("--million", action="store_true", help="one wrong entry among a million")
    arguments = parser.parse_args()
    layers = tuple(layer for layer in LAYERS if layer.name.startswith(arguments.only or ""))
    if not layers:
        parser.error(f"no layer begins with {arguments.only!r}; there are {', '.join(layer.name for layer in LAYERS)}")
    if unknown := set(arguments.checkers) - set(CHECKERS):
        parser.error(f"no checker {', '.join(unknown)}; there are {', '.join(CHECKERS)}")
    warnings.simplefilter("ignore")  # planted mistakes divide by zero, and the tools say so
    logging.getLogger("jax").setLevel(logging.CRITICAL)  # it logs what it raises
    torch.set_num_threads(THREADS)
    print(machine("xwb", "numpy", "scipy", "torch", "jax", "autograd"))
    with threadpool_limits(THREADS):
        if arguments.false_alarms:
            false_alarms(layers, arguments.false_alarms)
        elif arguments.million:
            million(arguments.seeds, [name for name in arguments.checkers if name in FOR_A_MILLION])
        else:
            warm_up(arguments.checkers)
            scoreboard(layers, arguments.seeds, np.float64, arguments.checkers, arguments.wrong_causes)
            narrow = [name for name in arguments.checkers if name in IN_FLOAT32]
            if narrow:
                scoreboard(layers, arguments.seeds, np.float32, narrow, arguments.wrong_causes)


if __name__ == "__main__":
    main()
