"""Mistakes to plant in the backward passes of `_zoo`: each with the cause that a good report would name.

A mutation takes a `Case`, a right layer on its arrays, and returns a wrong backward pass, or None where it does not
apply. The same layer and seed give the same mistake. `mutants` lets through only those that change the gradient.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from _zoo import Array, Backward, Layer

CAUSES = (
    "constant factor",
    "sign",
    "mean for sum",
    "sum for mean",
    "transpose",
    "missing sum",
    "flipped",
    "shift",
    "swapped",
    "chain rule factor",
    "lost term",
    "low precision",
    "ignores dY",
    "not linear in dY",
    "stale",
    "one entry",
    "some entries",
    "example dropped",
    "zero",
    "wrong axis",
    "kink",
    "added constant",
)
# Relative to the largest entry of the tensor: above what two right orders of summation differ by, below every mistake.
CHANGED = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}


class Case:
    """A layer, its arrays for one seed and dtype, a random dY, and the right gradients for it."""

    def __init__(self, layer: Layer, seed: int, dtype: Any) -> None:
        self.layer = layer
        self.dtype = np.dtype(dtype)
        self.seed = seed
        self.arrays = layer.operands(self.rng("operands"), dtype)
        Y = np.asarray(layer.forward(*self.arrays))
        self.dY: Array = np.asarray(self.rng("dY").standard_normal(Y.shape), Y.dtype)
        self.grads = layer.backward(self.dY, *self.arrays)
        self.floats = [i for i, g in enumerate(self.grads) if g is not None]
        self.largest = max(self.floats, key=lambda i: self.arrays[i].size)
        self.examples = len(self.dY) if self.dY.ndim else len(self.arrays[0])

    def rng(self, purpose: str) -> np.random.Generator:
        """Its own stream for every purpose, so that a new mutation moves no other."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.layer.name}: {purpose}".encode())])

    def pick(self, purpose: str, suits: Callable[[Array], bool] = lambda g: True) -> int | None:
        """The position of one of the gradients that suit."""
        positions = [i for i in self.floats if suits(self.grads[i])]
        return int(self.rng(purpose).choice(positions)) if positions else None

    def typical_entry(self, position: int) -> tuple[int, ...]:
        """The entry whose size is nearest to the median of those that are not zero."""
        size = np.abs(self.grads[position])
        median = np.median(size[size > 0])
        return tuple(int(i) for i in np.unravel_index(np.argmin(np.abs(size - median)), size.shape))

    def changed_from(self, grads: tuple[Any, ...], expected: tuple[Any, ...]) -> list[int]:
        """The positions at which two tuples of gradients differ by more than rounding."""
        return [i for i in self.floats if _differ(grads[i], expected[i], CHANGED[self.dtype])]

    def changed(self, backward: Backward) -> list[int]:
        """The positions at which a backward pass differs from the right one for this dY."""
        return self.changed_from(backward(self.dY, *self.arrays), self.grads)

    def of_tensor(self, position: int | None, change: Callable[[Array], Array]) -> Backward | None:
        """The right backward pass with one of its gradients changed."""
        if position is None:
            return None
        right = self.layer.backward

        def backward(dY: Array, *arrays: Array) -> tuple[Any, ...]:
            grads = right(dY, *arrays)
            return tuple(change(g) if i == position else g for i, g in enumerate(grads))

        return backward

    def of_gradient(self, position: int | None, wrong: Callable[..., Array]) -> Backward | None:
        """The right backward pass with one of its gradients replaced by ``wrong(dY, *arrays)``."""
        if position is None:
            return None
        right = self.layer.backward

        def backward(dY: Array, *arrays: Array) -> tuple[Any, ...]:
            grads = list(right(dY, *arrays))
            grads[position] = wrong(dY, *arrays)
            return tuple(grads)

        return backward

    def of_entry(self, factor: float) -> Backward | None:
        """The right backward pass with one typical entry of its largest gradient multiplied."""
        entry = self.typical_entry(self.largest)

        def change(g: Array) -> Array:
            g = g.copy()
            g[entry] *= factor
            return g

        return self.of_tensor(self.largest, change)

    def of_dY(self, change: Callable[[Array], Array]) -> Backward:
        """The right backward pass of a changed dY."""
        right = self.layer.backward
        return lambda dY, *arrays: right(change(dY), *arrays)

    def by_example(self, dY: Array, *arrays: Array) -> tuple[Any, ...]:
        """The gradients with another axis in front: what every single example contributes."""
        parts = [self.layer.backward(_only(dY, n), *arrays) for n in range(len(dY))]
        return tuple(None if tensor[0] is None else np.stack(tensor) for tensor in zip(*parts, strict=True))

    def pick_summed(self, purpose: str) -> int | None:
        """The position of one of the gradients in which several examples contribute to one entry."""
        if self.dY.ndim == 0:
            return None
        parts = self.by_example(self.dY, *self.arrays)
        summed = {id(self.grads[i]) for i in self.floats if ((parts[i] != 0).sum(axis=0) > 1).any()}
        return self.pick(purpose, lambda g: id(g) in summed)


def _differ(actual: Any, expected: Array, allowed: float) -> bool:
    """Whether two gradients differ by more than ``allowed`` times the largest entry, or in shape."""
    if np.shape(actual) != expected.shape:
        return True
    difference = np.abs(np.asarray(actual, np.float64) - expected)
    return not np.max(difference, initial=0.0) <= allowed * np.max(np.abs(expected), initial=0.0)  # NaN differs


def _only(dY: Array, n: int) -> Array:
    """dY for one example, and 0 for all others."""
    alone = np.zeros_like(dY)
    alone[n] = dY[n]
    return alone


def _square(g: Array) -> bool:
    return g.ndim >= 2 and g.shape[-1] == g.shape[-2] > 1


# --- one entry, some entries --------------------------------------------------------------------------------------


def one_entry_zeroed(case: Case) -> Backward | None:
    return case.of_entry(0.0)


def one_entry_off(case: Case) -> Backward | None:
    return case.of_entry(1.02)


def last_row_zeroed(case: Case) -> Backward | None:
    """Of a tensor whose last row is not the last example's: that is `last_example_dropped`."""
    dropped = last_example_dropped(case)
    if dropped is None or case.dY.ndim == 0:
        return None

    def zeroed(g: Array) -> Array:
        g = g.copy()
        g[-1] = 0
        return g

    without = dropped(case.dY, *case.arrays)
    own = {id(g) for g, d in zip(case.grads, without, strict=True) if g is not None and _differ(zeroed(g), d, 1e-6)}
    return case.of_tensor(case.pick("last row", lambda g: id(g) in own and len(g) > 1), zeroed)


def tenth_of_entries_off(case: Case) -> Backward | None:
    shape = case.grads[case.largest].shape
    factor = np.where(case.rng("tenth").random(shape) < 0.1, 1.1, 1.0).astype(case.dtype)
    return case.of_tensor(case.largest, lambda g: g * factor)


def noise(case: Case) -> Backward | None:
    shape = case.grads[case.largest].shape
    factor = (1 + 0.01 * case.rng("noise").standard_normal(shape)).astype(case.dtype)
    return case.of_tensor(case.largest, lambda g: g * factor)


# --- factors ------------------------------------------------------------------------------------------------------


def scale_millionth(case: Case) -> Backward | None:
    if case.dtype != np.float64:
        return None  # in float32 that is ten roundings
    return case.of_tensor(case.pick("millionth"), lambda g: g * (1 + 1e-6))


def scale_nine_ten_thousandths(case: Case) -> Backward | None:
    right = case.layer.backward
    return lambda dY, *arrays: tuple(None if g is None else g * 1.0009 for g in right(dY, *arrays))


def factor_two(case: Case) -> Backward | None:
    return case.of_tensor(case.pick("factor"), lambda g: 2 * g)


def sign(case: Case) -> Backward | None:
    return case.of_tensor(case.pick("sign"), lambda g: -g)


def mean_for_sum(case: Case) -> Backward | None:
    return case.of_tensor(case.pick("mean"), lambda g: g / case.examples)


def mean_for_sum_last_axis(case: Case) -> Backward | None:
    if case.dY.ndim < 2 or case.dY.shape[-1] == case.examples:
        return None
    return case.of_tensor(case.pick("mean, last axis"), lambda g: g / case.dY.shape[-1])


def sum_for_mean(case: Case) -> Backward | None:
    return case.of_tensor(case.pick("sum"), lambda g: g * case.examples)


def zero(case: Case) -> Backward | None:
    return case.of_tensor(case.pick("zero"), np.zeros_like)


def constant_added(case: Case) -> Backward | None:
    constant = 1e-3 * float(np.sqrt(np.mean(np.square(case.grads[case.largest], dtype=np.float64))))
    return case.of_tensor(case.largest, lambda g: g + constant)


# --- axes ---------------------------------------------------------------------------------------------------------


def transposed(case: Case) -> Backward | None:
    return case.of_tensor(case.pick("transposed", _square), lambda g: g.swapaxes(-1, -2).copy())


def dY_transposed(case: Case) -> Backward | None:
    return case.of_dY(lambda dY: dY.T.copy()) if case.dY.ndim == 2 and _square(case.dY) else None


def wrong_axis_summed(case: Case) -> Backward | None:
    """A vector's gradient summed over the other axis of a square dY."""
    if case.dY.ndim != 2 or not _square(case.dY):
        return None
    position = case.pick("wrong axis", lambda g: g.ndim == 1)
    return case.of_gradient(position, lambda dY, *arrays: case.layer.backward(dY.T.copy(), *arrays)[position])


def off_by_one(case: Case) -> Backward | None:
    position = case.pick("off by one", lambda g: g.shape[-1] > 1)
    return case.of_tensor(position, lambda g: np.roll(g, 1, axis=-1))


def off_by_one_first_axis(case: Case) -> Backward | None:
    position = case.pick("off by one, first axis", lambda g: g.ndim > 1 and len(g) > 1)
    return case.of_tensor(position, lambda g: np.roll(g, 1, axis=0))


def dY_shifted(case: Case) -> Backward | None:
    return case.of_dY(lambda dY: np.roll(dY, 1, axis=0)) if case.dY.ndim else None


def reversed_axis(case: Case) -> Backward | None:
    return case.of_tensor(case.pick("reversed"), lambda g: g[..., ::-1].copy())


def swapped(case: Case) -> Backward | None:
    """The first two gradients of one shape, unless they are each other's negative: then it is the sign."""
    for a in case.floats:
        for b in case.floats:
            if a < b and case.grads[a].shape == case.grads[b].shape and (case.grads[a] != -case.grads[b]).any():
                right, order = case.layer.backward, list(range(len(case.grads)))
                order[a], order[b] = b, a
                return lambda dY, *arrays: tuple(map(right(dY, *arrays).__getitem__, order))
    return None


# --- sums over examples -------------------------------------------------------------------------------------------


def last_example_dropped(case: Case) -> Backward | None:
    if case.dY.ndim:
        return case.of_dY(lambda dY: np.concatenate([dY[:-1], np.zeros_like(dY[-1:])]))
    right = case.layer.backward

    def backward(dY: Array, *arrays: Array) -> tuple[Any, ...]:
        grads = right(dY, *arrays)
        return tuple(None if g is None else np.concatenate([g[:-1], np.zeros_like(g[-1:])]) for g in grads)

    return backward


def last_example_alone(case: Case) -> Backward | None:
    """A loop over the examples that assigns where it should add."""
    position = case.pick_summed("alone")
    return case.of_gradient(position, lambda dY, *arrays: case.layer.backward(_only(dY, -1), *arrays)[position])


def sum_missing(case: Case) -> Backward | None:
    """The sum over the examples never taken: the gradient has an axis too many, as dY for a bias."""
    position = case.pick_summed("sum missing")
    return case.of_gradient(position, lambda dY, *arrays: case.by_example(dY, *arrays)[position])


# --- what goes in -------------------------------------------------------------------------------------------------


def stale_inputs(case: Case) -> Backward | None:
    """The arrays of an earlier call."""
    earlier, right = case.layer.operands(case.rng("earlier"), case.dtype), case.layer.backward
    return lambda dY, *arrays: right(dY, *earlier)


def one_stale_input(case: Case) -> Backward | None:
    """One of the arrays is that of an earlier call."""
    if len(case.arrays) < 2:
        return None
    earlier, right = case.layer.operands(case.rng("earlier"), case.dtype), case.layer.backward

    def with_stale(position: int) -> Backward:
        def backward(dY: Array, *arrays: Array) -> tuple[Any, ...]:
            return right(dY, *(earlier[i] if i == position else a for i, a in enumerate(arrays)))

        return backward

    candidates = [with_stale(int(i)) for i in case.rng("one stale").permutation(len(case.arrays))]
    return next((backward for backward in candidates if case.changed(backward)), None)


def ignores_dY(case: Case) -> Backward | None:
    return case.of_dY(np.ones_like)


def not_linear(case: Case) -> Backward | None:
    return case.of_dY(lambda dY: dY * np.abs(dY))


def lower_precision(case: Case) -> Backward | None:
    """Everything in the next lower precision."""
    lower, right, dtype = {"f4": np.float16, "f8": np.float32}[case.dtype.str[1:]], case.layer.backward, case.dtype

    def backward(dY: Array, *arrays: Array) -> tuple[Any, ...]:
        with np.errstate(all="ignore"):
            grads = right(dY.astype(lower), *(a.astype(lower) if a.dtype.kind == "f" else a for a in arrays))
        return tuple(None if g is None else g.astype(dtype) for g in grads)

    return backward


def rounded_to_bfloat16(case: Case) -> Backward | None:
    """All gradients rounded to eight significant bits."""
    right = case.layer.backward

    def rounded(g: Array) -> Array:
        mantissa, exponent = np.frexp(g)
        return np.ldexp(np.round(mantissa * 256) / 256, exponent)

    return lambda dY, *arrays: tuple(None if g is None else rounded(g) for g in right(dY, *arrays))


class Mutation(NamedTuple):
    """A way to be wrong, and the cause that describes it."""

    name: str
    cause: str  # one of CAUSES; "" where nothing better than "wrong" can be said
    plant: Callable[[Case], Backward | None] | None  # None: only layers have it, among their own mistakes
    detail: str = ""
    also: tuple[str, ...] = ()  # causes that describe the same numbers as well

    @property
    def named(self) -> bool:
        """Whether there is more to say of it than that it is wrong."""
        return bool(self.cause)

    def is_said_by(self, causes: Collection[str]) -> bool:
        """Whether a report that gives these causes has named it."""
        return not {self.cause, *self.also}.isdisjoint(causes)


MUTATIONS = (
    Mutation("one entry zeroed", "one entry", one_entry_zeroed),
    Mutation("one entry 2 % off", "one entry", one_entry_off),
    # The last row of a vector is one entry, and that of a kernel's gradient what the last channel of dY leaves out.
    Mutation("last row zeroed", "some entries", last_row_zeroed, also=("one entry", "example dropped")),
    Mutation("a tenth of the entries 10 % off", "some entries", tenth_of_entries_off, also=("one entry",)),
    Mutation("noise of 1 %", "", noise),
    Mutation("scale 1 + 1e-6", "constant factor", scale_millionth),
    Mutation("scale 1.0009", "constant factor", scale_nine_ten_thousandths),
    Mutation("factor 2", "constant factor", factor_two),
    Mutation("sign", "sign", sign),
    Mutation("mean for sum", "mean for sum", mean_for_sum),
    Mutation("mean for sum, last axis", "mean for sum", mean_for_sum_last_axis),
    Mutation("sum for mean", "sum for mean", sum_for_mean),
    Mutation("zero", "zero", zero),
    Mutation("constant added", "added constant", constant_added),
    Mutation("transposed", "transpose", transposed),
    Mutation("dY transposed", "wrong axis", dY_transposed, also=("transpose",)),
    Mutation("wrong axis", "wrong axis", wrong_axis_summed),
    Mutation("off by one", "shift", off_by_one),
    Mutation("off by one, first axis", "shift", off_by_one_first_axis),
    Mutation("dY shifted by one example", "shift", dY_shifted),
    Mutation("flipped", "flipped", reversed_axis),
    Mutation("swapped", "swapped", swapped),
    Mutation("last example dropped", "example dropped", last_example_dropped),
    Mutation("last example alone", "missing sum", last_example_alone, also=("example dropped",)),
    Mutation("sum missing", "missing sum", sum_missing),
    Mutation("stale inputs", "stale", stale_inputs),
    Mutation("one stale input", "stale", one_stale_input),
    Mutation("ignores dY", "ignores dY", ignores_dY, also=("zero",)),  # softmax's gradient for ones is zero
    Mutation("not linear in dY", "not linear in dY", not_linear),
    Mutation("lower precision", "low precision", lower_precision),
    Mutation("rounded to bfloat16", "low precision", rounded_to_bfloat16),
    Mutation("chain-rule factor lost", "chain rule factor", None),
    Mutation("term lost", "lost term", None),
    Mutation("wrong side of the kink", "kink", None),
    Mutation("kink shifted", "kink", None),
    Mutation("repetitions overwrite", "missing sum", None),
    Mutation("applied twice", "", None),
    Mutation("not a number", "", None),
)
BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


class Mutant(NamedTuple):
    """A planted mistake: the pair with the wrong backward, and the arrays on which it is wrong."""

    mutation: Mutation
    pair: tuple[Callable[..., Any], Backward]
    arrays: tuple[Array, ...]


def mutants(layer: Layer, seed: int, dtype: Any, unchanged: Counter[str] | None = None) -> Iterator[Mutant]:
    """Every mutation that applies to the layer; those that leave the gradient as it is are only counted."""
    case = Case(layer, seed, dtype)
    planted = [(mutation, mutation.plant(case)) for mutation in MUTATIONS if mutation.plant]
    for kind, detail, backward, also in layer.mistakes:
        mutation = BY_NAME[kind]
        planted.append((mutation._replace(detail=detail, also=(*mutation.also, *also)), backward))
    for mutation, wrong in planted:
        if wrong is None:
            continue
        if case.changed(wrong):
            yield Mutant(mutation, (layer.forward, wrong), case.arrays)
        elif unchanged is not None:
            unchanged[mutation.name] += 1
