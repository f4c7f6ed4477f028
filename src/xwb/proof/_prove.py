"""Formula, closed form and finite difference, each held against the other two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..core import Array, DataError, Layer, Loss, OptionError
from ._apart import ALLOWED, SMALL, apart, scale
from ._check import check_subject
from ._odd_one_out import verdict_of
from ._operands import LAYOUTS, as_dtype, draw_until, fit_sizes, lay_out, several_sizes
from ._proof import Case, Error, Formula, Proof, Verdict
from ._raised import own_line, raised
from ._report import Report
from ._subject import Pass, Subject

if TYPE_CHECKING:
    from ..algebra import Derivation, Fit, Size

Provable: TypeAlias = "Layer | Loss | Derivation"

DTYPES = (np.dtype(np.float64), np.dtype(np.float32))
# A closed form that misses by more than ALLOWED is run again on inputs moved by one rounding: TIMES what that changes
# is its own rounding, as where nearly all of it cancels. Forgiven are at most MOST times what the table allows.
MOVES, TIMES, MOST = 4, 10, 100


def prove(
    layer: Provable,
    *,
    sizes: Mapping[str, int] | None = None,
    at: Mapping[str, Size] | None = None,
    seed: int = 0,
    conduct: bool = True,
) -> Proof:
    """Hold formula, closed form and finite differences against each other: three statements, no two of one source.

    The closed form is what runs. Its value is held against the formula evaluated by loops; its gradients against the
    exact derivative of these loops, against `derive`, and against finite differences (`check`, which needs no
    formula). Every variant is tried at sizes that are all different, one of them 1, in float32 and float64, contiguous,
    strided and in Fortran's order. If one of the three is the odd one out, the proof says which.

    Args:
        layer: a layer, chain or loss with a formula, or what `derive` returns.
        sizes: of indices that the shapes of the arrays do not say, by letter.
        at: prove at these sizes alone, as for `operands`: ``{"n": 4, "...": (2, 3)}``.
        seed: of the values and of dY.
        conduct: whether to try what else goes wrong in a backward pass, as `check` does.

    Returns:
        A `Proof`; it is not raised, see `Proof.raise_if_wrong`.

    Raises:
        OptionError: there is no formula; or it names what is neither an input nor an option.
        FormulaError: the formula cannot be read, or does not say some size.
    """
    from ..algebra import Derivation, derive

    derivation = layer if isinstance(layer, Derivation) else None
    if derivation is not None and sizes:
        derivation = derive(derivation.formula, {**derivation.program.sizes, **sizes})
    rule = derivation.layer() if derivation is not None else layer
    if not isinstance(rule, Layer | Loss) or not rule.formula:
        raise OptionError(_without_formula(layer))
    derived = isinstance(rule, Layer) and rule.derived
    formulas = [Formula(options, text) for options, text in (({}, rule.formula), *rule.variants)]
    rows: list[Case] = []
    verdicts: list[Verdict] = []
    skipped: list[tuple[int, Mapping[str, Size]]] = []
    for variant, formula in enumerate(formulas):
        stated = _Stated(rule, formula, variant, derivation, sizes, derived)
        rng = np.random.default_rng(seed)
        tried: list[Tried] = []
        fits = several_sizes(stated.derivation) if at is None else [fit_sizes(stated.derivation, at)]
        for number, fitted in enumerate(fits):
            for dtype in DTYPES:
                instance = _Instance(stated, fitted, dtype, rng, seed)
                if instance.finite:
                    tried += instance.cases(thorough=conduct and number == 0)
                elif (variant, fitted.sizes) not in skipped:
                    skipped.append((variant, fitted.sizes))
        rows += [one.case for one in tried]
        if not all(one.case.ok for one in tried):
            verdicts.append(verdict_of(tried))
    return Proof(rule.call, formulas, rows, verdicts, derived, skipped)


def _without_formula(layer: Any) -> str:
    what = (
        layer.call if isinstance(layer, Layer | Loss) else "a pair" if isinstance(layer, tuple | list) else repr(layer)
    )
    return (
        f"prove takes a layer, a loss or a derivation, with a formula, and {what} has none; without one type  "
        'xwb.check(…), and to hold a pair against one type  xwb check FILE.py:NAME --against "Y[n,m] = …"'
    )


# -- one formula and its closed form -----------------------------------------------------------------------------------


class _Stated:
    """A layer with its options as one formula says it."""

    def __init__(
        self,
        rule: Layer | Loss,
        formula: Formula,
        variant: int,
        derivation: Derivation | None,
        sizes: Mapping[str, int] | None,
        derived: bool,
    ) -> None:
        from ..algebra import derive

        self.rule, self.options, self.variant, self.derived = rule, formula.options, variant, derived
        self.derivation = derivation or derive(formula.text, sizes)
        named = self.derivation.inputs
        for name in named:
            if name not in rule.inputs and name not in rule.options:
                raise OptionError(
                    f"prove: {rule.call} has no input or option {name}, which its formula names: {formula.text}"
                )
        self.inputs = [name if name in named else None for name in rule.inputs]
        while self.inputs and self.inputs[-1] is None:  # a bias that this formula does without
            self.inputs.pop()
        self.weights = [name for name in named if name not in rule.inputs]
        candidates = self.inputs[:1] if isinstance(rule, Loss) else self.inputs
        discrete = {None, *self.derivation.integers, *self.derivation.program.compared}
        self.checked = [name for name in candidates if name is not None and name not in discrete]

    def run(self, arrays: Mapping[str, Array]) -> Pass:
        """The closed form."""
        inputs = [None if name is None else arrays[name] for name in self.inputs]
        weights = {name: arrays[name] for name in self.weights}
        Y, saved = self.rule.forward(*inputs, **self.options, **weights)

        def back(dY: Array) -> list[Any]:
            grads = self.rule.backward(dY, saved)
            return [grads] if isinstance(self.rule, Loss) else list(grads)

        return Pass(Y, saved, back)


class Tried(NamedTuple):
    """A case with what a verdict needs to know."""

    instance: _Instance
    case: Case
    found: Mapping[str, Any]  # the closed form's value and gradients
    report: Report | None


class _Instance:
    """One formula at one assignment of sizes: the inputs' values, and what the formula makes of them in float64."""

    def __init__(self, stated: _Stated, fitted: Fit, dtype: np.dtype[Any], rng: np.random.Generator, seed: int) -> None:
        from ._loops import derivative, evaluate

        self.stated, self.sizes, self.dtype, self.seed = stated, fitted.sizes, dtype, seed
        derivation = stated.derivation
        self.arrays: dict[str, Any] = draw_until(derivation, fitted, rng, dtype, stated.weights, self._accepted)
        text, letters = derivation.formula, derivation.program.sizes
        self.Y = np.asarray(list(evaluate(text, self.arrays, letters).values())[-1], np.float64)
        dY = np.asarray(rng.standard_normal(self.Y.shape), dtype)
        self.dY = dY.astype(np.float64)
        self.gradients = {
            name: np.asarray(derivative(text, self.arrays, name, self.dY, letters), np.float64)
            for name in stated.checked
        }
        wide: dict[str, Any] = {name: as_dtype(array, np.float64) for name, array in self.arrays.items()}
        self.derived = {} if stated.derived else derivation.backward(self.dY, **wide)
        self.finite = all(np.isfinite(array).all() for array in (self.Y, *self.gradients.values()))

    def _accepted(self, arrays: dict[str, Array]) -> bool:
        """Whether the closed form takes these values, as targets that have to be probabilities."""
        try:
            self.stated.run(arrays)
        except DataError:
            return False
        except Exception:  # shown as a case that is wrong
            return True
        return True

    def cases(self, thorough: bool) -> list[Tried]:
        """Every layout; ``thorough`` lets `check` also try how the backward pass behaves."""
        tried: list[Tried] = []
        for layout in LAYOUTS:
            tried.append(self._case(layout, thorough and not tried, tried[0] if tried else None))
        return tried

    def _case(self, layout: str, conduct: bool, plain: Tried | None) -> Tried:
        """One layout. ``plain`` is the case of contiguous arrays: if the gradients are the same, so are differences."""
        found: dict[str, Any] = {}
        report: Report | None = None
        value = gradient = numeric = Error(np.inf, ALLOWED[self.dtype])
        notes: dict[str, str] = {}  # by tensor, or of the exception
        faults: list[str] = []
        try:
            found = self._closed_form(self.arrays, layout)
            value, gradient, notes = self._against_formula(found, layout)
            if plain is not None and not plain.case.notes and self._alike(found, plain.found):
                report, numeric = plain.report, plain.case.errors[-1]
            else:
                report = check_subject(self.subject(layout), seed=self.seed, conduct=conduct)
                numeric, others = self._against_differences(report)
                notes.update({name: note for name, note in others.items() if name not in notes})
                faults = [f"{name}: {detail}" for name, ok, detail in report.findings if ok is False]
        except Exception as error:
            line = own_line(error)
            notes["exception"] = raised(error) + (f" ({line})" if line else "")
            report = None
        errors = (*value, *gradient, *numeric)
        case = Case(
            self.stated.variant, self.sizes, self.dtype.name, layout, *errors, tuple(notes.values()), tuple(faults)
        )
        return Tried(self, case, found, report)

    def _closed_form(self, arrays: Mapping[str, Array], layout: str) -> dict[str, Any]:
        """The value and the gradients by name, those that the formula has."""
        done = self.stated.run(self._laid_out(arrays, self.dtype, layout))
        grads = done.back(self._laid_out({"dY": self.dY}, self.dtype, layout)["dY"])
        named = dict(zip(self.stated.rule.inputs, grads, strict=False))
        return {"Y": done.Y, **{f"d{name}": named.get(name) for name in self.stated.checked}}

    def _against_formula(self, found: Mapping[str, Any], layout: str) -> tuple[Error, Error, dict[str, str]]:
        """The error of the value, the largest of the gradients, and a note on each tensor that is wrong."""
        exact = [("Y", self.Y), *((f"d{name}", gradient) for name, gradient in self.gradients.items())]
        exact += [(f"d{name}", self.derived[name]) for name in self.gradients if name in self.derived]
        errors: list[Error] = []
        notes: dict[str, str] = {}
        for name, expected in exact:
            error, note = self._tensor_apart(name, expected, found, layout)
            errors.append(error)
            if note:
                notes.setdefault(name, note)
        value, *gradients = errors
        return value, max(gradients, key=Error.excess, default=Error(0.0, ALLOWED[self.dtype])), notes

    def _tensor_apart(self, name: str, expected: Array, found: Mapping[str, Any], layout: str) -> tuple[Error, str]:
        """The error of one tensor, and both numbers where it is too large."""
        allowed = ALLOWED[self.dtype]
        if found[name] is None:
            return Error(np.inf, allowed), f"{name} is missing"
        relative, entry, fact = apart(found[name], expected, SMALL)
        if fact:
            return Error(relative, allowed), f"{name} {fact}"
        if not relative <= allowed:
            noise = self._noise(found, layout)[name]
            allowed = min(max(allowed, noise / scale(expected, SMALL)), MOST * allowed)
        error = Error(relative, allowed)
        if relative <= allowed:
            return error, ""
        number = np.asarray(found[name])[entry]
        return error, f"{name}{list(entry)} is {number:.7g}, by the formula {expected[entry]:.7g}"

    def _noise(self, found: Mapping[str, Any], layout: str) -> dict[str, float]:
        """How far the closed form moves with its inputs' rounding."""
        rng = np.random.default_rng(self.seed)
        unit = float(np.finfo(self.dtype).eps)
        noise = dict.fromkeys(found, 0.0)
        for _ in range(MOVES):
            arrays = {
                name: (array * (1 + unit * rng.choice([-1, 1], array.shape))).astype(array.dtype)
                if array.dtype.kind == "f"
                else array
                for name, array in self.arrays.items()
            }
            for name, moved in self._closed_form(arrays, layout).items():
                if moved is not None and np.shape(moved) == np.shape(found[name]):
                    change = np.max(np.abs(np.asarray(moved, np.float64) - found[name]), initial=0)
                    noise[name] = max(noise[name], TIMES * float(change))
        return noise

    def _alike(self, found: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Whether two layouts give the same gradients but for rounding."""
        pairs = [(found[name], other[name]) for name in found if name != "Y"]
        return all(a is not None and apart(a, np.asarray(b), SMALL)[0] <= ALLOWED[self.dtype] for a, b in pairs)

    def _against_differences(self, report: Report) -> tuple[Error, dict[str, str]]:
        """The relative error where it is worst, and a note with both numbers for each gradient that is wrong."""
        worst = Error(0.0, ALLOWED[self.dtype])
        notes: dict[str, str] = {}
        for row in report.rows:
            difference = abs(row.closed_form - row.numeric)
            # Relative to SMALL where the whole tensor is smaller, as the other errors are.
            largest = difference / row.relative if 0 < row.relative < np.inf else SMALL
            smaller = min(1.0, largest / SMALL)
            error = Error(row.relative * smaller, max(row.allowed * smaller, ALLOWED[self.dtype]))
            if not error.relative <= error.allowed:
                fact = row.note or f"is {row.closed_form:.7g}, by finite differences {row.numeric:.7g}"
                notes[f"d{row.name}"] = f"d{row.name}{list(row.worst)} {fact}"
            worst = max(worst, error, key=Error.excess)
        return worst, notes

    def _laid_out(self, arrays: Mapping[str, Array], dtype: Any, layout: str) -> dict[str, Array]:
        return {name: lay_out(as_dtype(array, dtype), layout) for name, array in arrays.items()}

    def subject(self, layout: str, by_formula: bool = False) -> Subject:
        """The closed form for `check`, its inputs laid out; or its forward beside the formula's gradients."""
        stated, rule = self.stated, self.stated.rule
        arrays = self._laid_out(self.arrays, self.dtype, layout)

        def run(*inputs: Any) -> Pass:
            floating = next(a.dtype for a in inputs if a is not None and a.dtype.kind == "f")
            named: dict[str, Any] = {name: a for name, a in zip(stated.inputs, inputs, strict=True) if name is not None}
            named.update({name: as_dtype(arrays[name], floating) for name in stated.weights})
            if layout != LAYOUTS[0]:  # there they are handed on, so that changes to them are seen
                named = {name: lay_out(a, layout) for name, a in named.items()}
            done = stated.run(named)

            def back(dY: Array) -> list[Any]:
                if by_formula:
                    found = stated.derivation.backward(dY, **named)
                    return [None if name is None else found.get(name) for name in stated.inputs]
                grads = done.back(dY if layout == LAYOUTS[0] else lay_out(np.asarray(dY), layout))
                return [*grads, *[None] * len(stated.inputs)][: len(stated.inputs)]

            return Pass(done.Y, done.saved, back)

        checked = tuple(i for i, name in enumerate(stated.inputs) if name in stated.checked)
        inputs = tuple(None if name is None else arrays[name] for name in stated.inputs)
        names = tuple(rule.inputs[: len(inputs)])
        return Subject(rule.call, names, inputs, checked, lambda *given: run(*given).Y, run)
