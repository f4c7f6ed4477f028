"""What else goes wrong in a backward pass: its manners beside its numbers, each tried once and reported by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from ..core import Array
from ._point import BESIDE, Point, beside, fault, flat, gradients, passed
from ._probe import FLOAT32, FLOAT64, Probe, moved
from ._raised import own_line, raised
from ._report import Finding
from ._subject import Subject, copies, same

# Far from 1, and so little that what is not tiny itself stays away from the smallest numbers.
DY_FACTOR = {FLOAT64: 2.0**100, FLOAT32: 2.0**20}
INPUT_FACTORS = (2.0**10, 2.0**-10)
THREADS, ROUNDS = 2, 8
OTHERS = (1.0, 2.0**-5, 2.0**-15)  # how far other inputs are, in units of the inputs' scales
DEPTH = 5  # of nested containers in ``saved``


def conduct_of(point: Point, right: bool = True) -> list[Finding]:
    """Everything that is tried on a backward pass beside its numbers; ``right`` says whether these are."""
    conduct = _Conduct(point, right)
    tried: list[tuple[str, Callable[[], str | None]]] = [
        ("dtype kept", conduct.dtype_kept),
        ("nothing changed", conduct.nothing_changed),
        ("nothing shared", conduct.nothing_shared),
        ("callable twice", conduct.twice),
        ("after another forward pass", conduct.after_another_forward),
        ("deterministic", conduct.deterministic),
        ("depends on dY", conduct.depends_on_dY),
        ("linear in dY", conduct.linear),
        ("large and tiny dY", conduct.sizes_of_dY),
        ("strided and Fortran-ordered arrays", conduct.layouts),
        ("one array for two inputs", conduct.one_array_twice),
        ("N = 1", lambda: conduct.examples(1)),
        ("N = 0", lambda: conduct.examples(0)),
        ("large and tiny inputs", conduct.sizes_of_inputs),
        ("two threads", conduct.threads),
    ]
    return [_finding(name, attempt) for name, attempt in tried]


class _NotTried(Exception):
    """Why an attempt says nothing."""


def _finding(name: str, attempt: Callable[[], str | None]) -> Finding:
    try:
        fact = attempt()
    except _NotTried as reason:
        return Finding(name, None, str(reason))
    except Exception as error:  # the backward pass may fail in any way
        line = own_line(error)
        return Finding(name, False, f"it {raised(error)}{f' ({line})' if line else ''}")
    return Finding(name, not fact, fact or "")


class _Conduct:
    """One subject at the inputs given, and what is tried on it. An attempt returns what is wrong, None if nothing."""

    def __init__(self, point: Point, right: bool) -> None:
        self.point = point
        self.right = right
        self.subject: Subject = point.subject
        self.arrays = list(point.subject.arrays)
        self.dY = point.dY
        self.rng = point.rng
        self.other_dY = self.rng.standard_normal(self.dY.shape).astype(self.dY.dtype)
        claim = point.own
        self.grads = claim.grads
        self.noise = claim.noise
        # Two right ways to compute a gradient differ by far less, relative to its largest entry, and mistakes by more.
        self.loose = float(np.sqrt(claim.unit))
        # What is left where nearly all of a gradient cancels.
        self.floor = {i: 2.0**14 * claim.unit * typical for i, typical in point.typical.items()}
        self.compared = [i for i in self.subject.checked if not fault(self.grads[i], self.arrays[i])]

    # -- shared ------------------------------------------------------------------------------------------------------

    def _back(self, arrays: Sequence[Any], dY: Array | None = None) -> list[Any]:
        return passed(self.subject, arrays).back((self.dY if dY is None else dY).copy())

    def _differ(self, grads: Sequence[Any], expected: Sequence[Any], where: str = "") -> str | None:
        """Which gradients are not what is expected."""
        for i in self.compared:
            given, wanted = np.asarray(grads[i]), np.asarray(expected[i])
            if given.shape != wanted.shape:
                return f"d{self.subject.names[i]} has shape {given.shape} instead of {wanted.shape}{where}"
            allowed = self.loose * _largest(wanted) + self.noise[i].max(initial=0.0) + self.floor[i]
            alike = (flat(given) == flat(wanted)) | (np.isnan(flat(given)) & np.isnan(flat(wanted)))
            off = np.where(alike, 0.0, np.abs(flat(given) - flat(wanted)))
            if off.size and not float(off.max()) <= allowed:
                worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
                return (
                    f"d{self.subject.names[i]} is {flat(given)[worst]:.7g} instead of {flat(wanted)[worst]:.7g}{where}"
                )
        return None

    @cached_property
    def _others(self) -> list[Any]:
        """Other inputs of the same shapes, at which the function is defined too."""
        for distance in OTHERS:
            others = list(self.arrays)
            for i in self.subject.checked:
                others[i] = moved(self.arrays[i], distance * self.point.probe.direction(i))
            try:
                if np.isfinite(passed(self.subject, others).Y)[self.point.probe.finite.reshape(self.dY.shape)].all():
                    return others
            except Exception:  # it need not be defined there
                continue
        raise _NotTried("forward refuses other inputs")

    def _not_if_stateful(self) -> None:
        if self.subject.stateful:
            raise _NotTried("backward(dY) goes back from the last forward pass")

    # -- arrays ------------------------------------------------------------------------------------------------------

    def dtype_kept(self) -> str | None:
        """Each gradient has the dtype of its input."""
        for i in self.compared:
            given, wanted = np.asarray(self.grads[i]).dtype, self.arrays[i].dtype
            if given != wanted:
                name = self.subject.names[i]
                return f"d{name} is {given} for a {wanted} {name}; type  d{name}.astype({name}.dtype)"
        return None

    def nothing_changed(self) -> str | None:
        """Neither direction writes into the inputs, dY, Y or what is saved."""
        handed = copies(self.arrays)
        done = self.subject.run(*handed)
        changed = self._changed(handed, self.arrays)
        if changed:
            return f"forward changed {changed}"
        Y, kept = np.array(done.Y), [(path, array, array.copy()) for path, array in _arrays_in(done.saved, "saved")]
        dY = self.dY.copy()
        done.back(dY)
        changed = self._changed([*handed, dY], [*self.arrays, self.dY])
        if changed:
            return f"backward changed {changed}"
        if not np.array_equal(Y, done.Y, equal_nan=True):
            return "backward changed Y"
        for path, array, before in kept:
            if not same(array, before):
                return f"backward changed {path}"
        return None

    def _changed(self, arrays: Sequence[Any], before: Sequence[Any]) -> str | None:
        names = [*self.subject.names, "dY"] if len(arrays) > len(self.arrays) else self.subject.names
        for name, array, old in zip(names, arrays, before, strict=True):
            if not same(array, old):
                return name
        return None

    def nothing_shared(self) -> str | None:
        """No gradient is, or looks into, another array."""
        if self.subject.library != "NumPy":
            raise _NotTried(f"{self.subject.library} has its own memory")
        handed = copies(self.arrays)
        done = self.subject.run(*handed)
        dY = self.dY.copy()
        first, second = done.back(dY), done.back(dY)
        grads = {self.subject.names[i]: first[i] for i in self.compared}
        again = {self.subject.names[i]: second[i] for i in self.compared}
        there = [("dY", dY), *zip(self.subject.names, handed, strict=True), *_arrays_in(done.saved, "saved")]
        there += [(f"the d{name} of another call", grad) for name, grad in again.items()]
        for name, grad in grads.items():
            others = [(f"d{other}", array) for other, array in grads.items() if other != name]
            for other, array in [*there, *others]:
                if all(isinstance(a, np.ndarray) for a in (grad, array)) and np.may_share_memory(grad, array):
                    return f"d{name} shares its memory with {other}: writing into one changes the other; return a copy"
        return None

    # -- calls -------------------------------------------------------------------------------------------------------

    def twice(self) -> str | None:
        """The way back may be gone twice."""
        done = passed(self.subject, self.arrays)
        done.back(self.dY.copy())
        return self._differ(done.back(self.dY.copy()), self.grads, " the second time")

    def after_another_forward(self) -> str | None:
        """What one forward keeps survives another."""
        self._not_if_stateful()
        first = passed(self.subject, self.arrays)
        passed(self.subject, self._others).back(self.other_dY.copy())
        return self._differ(first.back(self.dY.copy()), self.grads, ": what forward keeps is lost to the next call")

    def deterministic(self) -> str | None:
        """The same inputs give the same numbers."""
        value = np.asarray(passed(self.subject, self.arrays).Y)
        first = np.asarray(passed(self.subject, self.arrays).Y)
        if not np.allclose(value, first, rtol=self.loose, atol=self.loose * _largest(first), equal_nan=True):
            return "forward gives other values for the same inputs"
        return self._differ(self._back(self.arrays), self.grads, " for the same inputs")

    def depends_on_dY(self) -> str | None:
        """Another dY gives other gradients."""
        others = self._back(self.arrays, self.other_dY)
        for i in self.compared:
            grad = np.asarray(self.grads[i])
            if grad.size and grad.any() and np.array_equal(grad, others[i]):
                return f"d{self.subject.names[i]} is the same for another dY"
        return None

    def linear(self) -> str | None:
        """No gradient for no dY, and for 2 dY₁ − 3 dY₂ the same combination of gradients."""
        zeros = self._back(self.arrays, np.zeros_like(self.dY))
        found = self._differ(zeros, [None if g is None else np.zeros_like(g) for g in self.grads], " for dY = 0")
        if found:
            return found
        combined = self._back(self.arrays, 2 * self.dY - 3 * self.other_dY)
        others = self._back(self.arrays, self.other_dY)
        expected = [
            None if g is None else 2 * np.asarray(g) - 3 * np.asarray(o)
            for g, o in zip(self.grads, others, strict=True)
        ]
        return self._differ(combined, expected, " for 2 dY₁ − 3 dY₂")

    def sizes_of_dY(self) -> str | None:
        """A factor of dY is a factor of the gradients, however large."""
        for factor in (DY_FACTOR[self.subject.dtype], 1 / DY_FACTOR[self.subject.dtype]):
            sizes = [_largest(np.asarray(self.grads[i])) * factor for i in self.compared]
            limits = np.finfo(self.subject.dtype)
            if any(size and not limits.tiny / limits.eps < size < limits.max * limits.eps for size in sizes):
                continue  # the factor itself leaves the range of the numbers
            scaled = self._back(self.arrays, self.dY * self.dY.dtype.type(factor))
            back = [None if g is None else np.asarray(g) / np.asarray(g).dtype.type(factor) for g in scaled]
            found = self._differ(back, self.grads, f" when dY is {factor:.0e} times as large")
            if found:
                return found
        return None

    # -- inputs ------------------------------------------------------------------------------------------------------

    def layouts(self) -> str | None:
        """Where the entries stand in memory makes no difference."""
        if self.subject.library != "NumPy":
            raise _NotTried(f"{self.subject.library} lays out its own arrays")
        for name, laid in LAYOUTS.items():
            arrays = [laid(a) if isinstance(a, np.ndarray) else a for a in self.arrays]
            try:
                done = self.subject.run(*arrays)
            except Exception as error:
                raise _NotTried(f"forward refuses {name} arrays: {error}") from None
            Y = np.asarray(passed(self.subject, self.arrays).Y)
            if not np.allclose(done.Y, Y, rtol=self.loose, atol=self.loose * _largest(Y), equal_nan=True):
                return f"forward gives other values for {name} arrays"
            found = self._differ(done.back(laid(self.dY)), self.grads, f" for {name} arrays")
            if found:
                return found
        return None

    def one_array_twice(self) -> str | None:
        """One array for two inputs has two gradients, as two arrays that are equal have."""
        for i, j in itertools.combinations(self.subject.checked, 2):
            first, second = self.arrays[i], self.arrays[j]
            if (first.shape, first.dtype) == (second.shape, second.dtype):
                apart, together = list(self.arrays), list(self.arrays)
                apart[j] = first.copy()
                together[i] = together[j] = first.copy()
                found = self.subject.run(*together).back(self.dY.copy())
                names = f"{self.subject.names[i]} and {self.subject.names[j]}"
                return self._differ(found, self._back(apart), f" when {names} are the same array")
        raise _NotTried("no two inputs have the same shape")

    def examples(self, number: int) -> str | None:
        """The gradients for so few examples."""
        cut = self._cut(number)
        try:
            value = np.asarray(passed(self.subject, cut).Y)
        except Exception as error:
            raise _NotTried(f"forward refuses it: {error}") from None
        if value.size and not np.isfinite(value).any():
            raise _NotTried("forward is not finite there")
        return self._right_at(cut)

    def _cut(self, number: int) -> list[Any]:
        """The inputs with ``number`` examples on the first axis of those that have one for each example."""
        first = self.arrays[self.subject.checked[0]]
        N = len(first) if first.ndim else 0
        if N < 3:
            raise _NotTried("of fewer than 3 examples it does not show which inputs have them")
        axes = [i for i, a in enumerate(self.arrays) if isinstance(a, np.ndarray) and a.ndim]
        alike = [i for i in axes if len(self.arrays[i]) == N]
        labels = [i for i in axes if self.arrays[i].dtype.kind in "iub"]
        # Which inputs have a row per example shows when one is dropped, for nothing broadcasts N − 1 to N.
        # A loss takes examples from all of them, a layer may have a weight that is as long by chance.
        choices = [[self.subject.checked[0]], alike]
        for chosen in choices if self.dY.ndim else reversed(choices):
            if any(i not in chosen for i in labels):  # they may be positions in what is cut
                continue
            fewer = [a[: N - 1] if i in chosen else a for i, a in enumerate(self.arrays)]
            try:
                Y = np.asarray(passed(self.subject, fewer).Y)
            except Exception:
                continue
            if self.dY.ndim == 0 or (Y.ndim and len(Y) == (N - 1 if len(self.dY) == N else len(self.dY))):
                return [a[:number] if i in chosen else a for i, a in enumerate(self.arrays)]
        raise _NotTried("no axis of the inputs runs over examples")

    def sizes_of_inputs(self) -> str | None:
        """The gradients are right at a thousand times these inputs, and at a thousandth."""
        tried = 0
        for factor in INPUT_FACTORS:
            scaled = list(self.arrays)
            for i in self.subject.checked:
                scaled[i] = self.arrays[i] * self.arrays[i].dtype.type(factor)
            try:
                value = np.asarray(passed(self.subject, scaled).Y)
            except Exception:
                continue
            if np.isfinite(value).all():
                tried += 1
                found = self._right_at(scaled)
                if found:
                    return f"{found} when all inputs are {factor:.0e} times as large"
        if not tried:
            raise _NotTried("forward is not finite there")
        return None

    def _right_at(self, arrays: Sequence[Any]) -> str | None:
        """What is wrong with the gradients for other inputs: with their shapes, or along a random direction."""
        if not self.right:
            raise _NotTried("the gradients are wrong as it is")
        there = Probe(self.subject, self.rng, arrays)
        if there.kinks:
            there = Probe(self.subject, self.rng, beside(there, BESIDE[0]))
        in_float64 = there.wide and len(self.point.claims) > 1
        inputs = there.arrays if in_float64 else there.given
        weights = self.rng.standard_normal(there.Y.size)
        grads = gradients(self.subject, inputs, weights)
        loose = float(np.sqrt(there.unit))
        for i in self.compared:
            name = self.subject.names[i]
            note = fault(grads[i], inputs[i])
            if note:
                return f"d{name}: {note}, and {name} {inputs[i].shape}"
            if not np.isfinite(np.asarray(grads[i])).all():
                return f"d{name} is not finite, though Y is"
            direction = there.direction(i)
            slope = there.slope(i, direction, weights)
            if not slope.resolved:
                continue
            kept = grads if slope.weights is weights else gradients(self.subject, inputs, slope.weights)
            closed = float(np.sum(np.asarray(kept[i], np.float64) * slope.direction))
            # Where the function is flat, the rounding of its values is all that is left of the gradient.
            some = self.point.typical[i] * float(np.linalg.norm(direction))
            if not abs(closed - slope.value) <= slope.bound + loose * max(abs(slope.value), some):
                return f"d{name} gives {closed:.7g} along a direction instead of {slope.value:.7g}"
        return None

    # -- threads -----------------------------------------------------------------------------------------------------

    def threads(self) -> str | None:
        """Two threads at once get what each would get alone."""
        self._not_if_stateful()
        work = [(self.arrays, self.dY), (self._others, self.other_dY)]
        expected = [self._back(*one) for one in work]
        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(lambda k: self._back(*work[k % 2]), range(THREADS * ROUNDS)))
        for k, grads in enumerate(results):
            found = self._differ(grads, expected[k % 2], " when two threads call at once")
            if found:
                return found
        return None


def _largest(Y: Array) -> float:
    finite = Y[np.isfinite(Y)]
    return float(np.abs(finite).max(initial=0.0))


def _every_second(a: Array) -> Array:
    """The same entries, with others between them in memory."""
    wide = np.zeros(tuple(2 * n for n in a.shape), a.dtype)
    every: Any = (*(slice(None, None, 2) for _ in a.shape), ...)
    view: Array = wide[every]
    view[...] = a
    return view


def _backwards(a: Array) -> Array:
    """The same entries, stored from the last to the first."""
    every: Any = (*(slice(None, None, -1) for _ in a.shape), ...)
    view: Array = a[every].copy()[every]
    return view


LAYOUTS: Mapping[str, Callable[[Array], Array]] = {
    "Fortran-ordered": lambda a: np.array(a, order="F"),
    "strided": _every_second,
    "backward strided": _backwards,
}


def _arrays_in(saved: Any, path: str, depth: int = DEPTH) -> Iterator[tuple[str, Array]]:
    """The arrays that a nest of tuples, lists, mappings and objects holds, each with the path to it."""
    if isinstance(saved, np.ndarray):
        yield path, saved
    elif depth:
        parts: Iterable[tuple[str, Any]] = ()
        if isinstance(saved, tuple) and hasattr(saved, "_fields"):
            parts = ((f".{name}", part) for name, part in zip(saved._fields, saved, strict=True))
        elif isinstance(saved, tuple | list):
            parts = ((f"[{k}]", part) for k, part in enumerate(saved))
        elif isinstance(saved, Mapping):
            parts = ((f"[{key!r}]", part) for key, part in saved.items())
        elif hasattr(saved, "__dict__"):
            parts = ((f".{name}", part) for name, part in vars(saved).items())
        for name, part in parts:
            yield from _arrays_in(part, path + name, depth - 1)
