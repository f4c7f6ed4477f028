"""A forward and a backward marked part by part: against a formula, or against tensors that somebody stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import algebra
from ..core import Array, OptionError
from ._apart import ALLOWED, SMALL, apart
from ._check import check_subject
from ._operands import as_derivation, as_dtype
from ._report import Diagnosis
from ._subject import Checkable, Pass, Subject, subject_of
from ._written import INDENT, Result, columns, record, wrapped

if TYPE_CHECKING:
    from ..algebra import Derivation

# Index combinations times entries of the inputs up to which the exact derivative by loops takes less than a second.
BY_LOOPS = 50_000


class Part(NamedTuple):
    """The value or one gradient; ``given`` and ``expected`` are the two numbers where they differ most."""

    name: str  # "Y", "dW"
    shape: tuple[int, ...]  # expected
    given: float
    expected: float
    relative: float
    allowed: float
    worst: tuple[int, ...]
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether this part is right."""
        return self.relative <= self.allowed  # False for a NaN


class Grade(Result):
    """What `grade` found: printed, a table with both numbers; attributes for programs.

    Attributes:
        call: what was graded, ``forward(X, W, b)``.
        against: the formula, or the name of the file.
        parts: one `Part` for the value and one for each gradient.
        diagnosis: one `Diagnosis` for each gradient whose mistake is recognised.
        remarks: how inputs were matched, where their names differ.
    """

    def __init__(
        self,
        call: str,
        against: str,
        parts: Sequence[Part],
        diagnosis: Sequence[Diagnosis] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        self.call = call
        self.against = against
        self.parts = list(parts)
        self.diagnosis = list(diagnosis)
        self.remarks = list(remarks)

    @property
    def ok(self) -> bool:
        """Whether every part is right."""
        return bool(self.parts) and all(part.ok for part in self.parts)

    @property
    def right(self) -> int:
        """How many parts are right."""
        return sum(part.ok for part in self.parts)

    def __str__(self) -> str:
        reasons = [f"d{tensor}: {sentence}" for tensor, _, sentence in self.diagnosis]
        title = f"{self.call} against {self.against}: {self._score()}"
        return "\n".join([title, *self._table(), *wrapped([*self.remarks, *reasons], INDENT)])

    def _score(self) -> str:
        if self.ok:
            return "all parts are right" if len(self.parts) > 1 else "right"
        return f"{self.right} of {len(self.parts)} parts {'is' if self.right == 1 else 'are'} right"

    def _table(self) -> list[str]:
        cells: list[Sequence[str]] = [("part", "shape", "yours", "expected", "relative", "allowed", "")]
        cells += [
            (
                part.name,
                str(part.shape),
                f"{part.given:.7e}",
                f"{part.expected:.7e}",
                f"{part.relative:.1e}",
                f"{part.allowed:.1e}",
                "right" if part.ok else f"WRONG: {part.note or f'worst at {part.worst}'}",
            )
            for part in self.parts
        ]
        return columns(cells)

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes: call, against, ok, parts, diagnosis, remarks."""
        return {
            "call": self.call,
            "against": self.against,
            "ok": self.ok,
            "parts": [record(part) for part in self.parts],
            "diagnosis": [diagnosis._asdict() for diagnosis in self.diagnosis],
            "remarks": self.remarks,
        }


def part(name: str, found: Any, expected: Array, allowed: float, least: float = 0.0) -> Part:
    """One tensor marked against what it should be."""
    if found is None:
        return Part(name, expected.shape, np.nan, np.nan, np.inf, allowed, (), "none was returned")
    relative, worst, fact = apart(found, expected, least)
    if fact or expected.size == 0:
        return Part(name, expected.shape, np.nan, np.nan, relative, allowed, worst, fact)
    return Part(name, expected.shape, float(np.asarray(found)[worst]), float(expected[worst]), relative, allowed, worst)


def grade(
    layer: Checkable,
    formula: str | Derivation,
    arrays: Sequence[Any] | Mapping[str, Any],
    *,
    seed: int = 0,
) -> Grade:
    """Mark a forward and a backward against a formula: the value, then each gradient.

    Each gradient is held against the formula's, whatever the forward computes: a wrong forward does not spoil the
    marks of a right backward. Small cases are evaluated by loops over every index, large ones by `derive`.

    Args:
        layer: a pair ``(forward, backward)``, a layer or a loss, as for `check`.
        formula: in index notation, or what `derive` made of it.
        arrays: the inputs, in order or by name. They are matched with those of the formula by name, the others in
            order of appearance; the grade says so.
        seed: of dY.

    Raises:
        OptionError: another number of inputs than the formula has.
        FormulaError: the formula cannot be read, or the arrays do not fit it.
    """
    derivation = as_derivation(formula)
    given = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
    subject = subject_of(layer, given, {})
    if isinstance(arrays, Mapping):
        given = [arrays[name] for name in subject.names] if set(arrays) == set(subject.names) else given
        subject = subject_of(layer, given, {})
    matched = match(subject.names, derivation)
    named = dict(zip(matched, subject.arrays, strict=True))
    wide: dict[str, Any] = {name: as_dtype(array, np.float64) for name, array in named.items()}
    rng = np.random.default_rng(seed)
    Y = np.asarray(derivation.forward(**wide), np.float64)
    dY = np.asarray(rng.standard_normal(Y.shape), subject.dtype)
    exact = _exact(derivation, wide, dY)

    done = subject.run(*(None if array is None else array.copy() for array in subject.arrays))
    allowed = ALLOWED[subject.dtype]
    size = max((float(np.max(np.abs(a), initial=0)) for a in wide.values() if a.dtype.kind == "f"), default=1.0)
    least = SMALL * min(1.0, size)
    parts = [part(derivation.output, done.Y, exact[derivation.output], allowed, least)]
    grads = done.back(dY.copy())
    parts += [
        part(f"d{subject.names[i]}", grads[i], exact[f"d{matched[i]}"], allowed, least)
        for i in subject.checked
        if matched[i] in derivation.differentiable
    ]
    wrong = {one.name for one in parts[1:] if not one.ok}
    remarks = [
        f"{own} is the {name} of the formula." for own, name in zip(subject.names, matched, strict=True) if own != name
    ]
    return Grade(
        subject.call, derivation.formula, parts, _diagnosis(subject, derivation, matched, wrong, seed), remarks
    )


def match(names: Sequence[str], derivation: Derivation) -> list[str]:
    """The formula's name of each input: the same, or but for capitals; those left over in order.

    Raises:
        OptionError: the numbers of inputs differ.
    """
    if len(names) != len(derivation.inputs):
        raise OptionError(
            f"the function takes {', '.join(names)}, and the formula reads {', '.join(derivation.inputs)}: one array "
            f"for each input of {derivation.formula}"
        )
    found: dict[str, str] = {}
    left = list(derivation.inputs)
    for alike in (str, str.casefold, lambda name: ""):
        for name in names:
            partner = next((one for one in left if alike(one) == alike(name)), None)
            if name not in found and partner is not None:
                found[name] = partner
                left.remove(partner)
    return [found[name] for name in names]


def _exact(derivation: Derivation, arrays: dict[str, Any], dY: Array) -> dict[str, Array]:
    """The formula's value and gradients in float64."""
    from ._loops import derivative, evaluate

    dY = dY.astype(np.float64)
    shapes = {name: array.shape for name, array in arrays.items()}
    entries = sum(math.prod(shape) for shape in shapes.values())
    text, letters = derivation.formula, derivation.program.sizes
    if algebra.fit(derivation, {}, shapes).combinations * entries > BY_LOOPS:
        grads = derivation.backward(dY, **arrays)
        return {
            derivation.output: np.asarray(derivation.forward(**arrays)),
            **{f"d{name}": grad for name, grad in grads.items()},
        }
    out = {derivation.output: np.asarray(list(evaluate(text, arrays, letters).values())[-1], np.float64)}
    for name in derivation.differentiable:
        if arrays[name].dtype.kind == "f":
            out[f"d{name}"] = np.asarray(derivative(text, arrays, name, dY, letters), np.float64)
    return out


def _diagnosis(
    subject: Subject, derivation: Derivation, matched: Sequence[str], wrong: set[str], seed: int
) -> list[Diagnosis]:
    """What `check` says of a wrong backward beside the formula's value."""
    if not wrong:
        return []

    def value(*arrays: Any) -> Any:
        return derivation.forward(**dict(zip(matched, arrays, strict=True)))

    def run(*arrays: Any) -> Pass:
        return Pass(value(*arrays), None, subject.run(*arrays).back)

    try:
        report = check_subject(subject._replace(value=value, run=run), seed=seed, conduct=False)
    except Exception:  # the marks stand; only their reasons are missing
        return []
    return [diagnosis for diagnosis in report.diagnosis if f"d{diagnosis.tensor}" in wrong]
