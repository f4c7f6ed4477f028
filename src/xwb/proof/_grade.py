"""A forward and a backward marked part by part against a formula."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import algebra
from ..core import Array, OptionError
from ._apart import ALLOWED, SMALL
from ._check import check_subject
from ._marks import Grade, mark
from ._operands import as_derivation, as_dtype
from ._report import Diagnosis
from ._subject import Checkable, Pass, Subject, copies, subject_of

if TYPE_CHECKING:
    from ..algebra import Derivation

# Index combinations times entries of the inputs up to which the exact derivative by loops takes less than a second.
BY_LOOPS = 50_000


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

    Returns:
        A `Grade`; it is not raised, see `Grade.raise_if_wrong`.

    Raises:
        OptionError: another number of inputs than the formula has.
        FormulaError: the formula cannot be read, or the arrays do not fit it.
    """
    derivation = as_derivation(formula)
    subject = subject_of(layer, _in_order(layer, arrays), {})
    matched = match(subject.names, derivation)
    named = dict(zip(matched, subject.arrays, strict=True))
    wide: dict[str, Any] = {name: as_dtype(array, np.float64) for name, array in named.items()}
    Y = np.asarray(derivation.forward(**wide), np.float64)
    dY = np.asarray(np.random.default_rng(seed).standard_normal(Y.shape), subject.dtype)
    exact = _exact(derivation, wide, dY)

    done = subject.run(*copies(subject.arrays))
    grads = done.back(dY.copy())
    allowed = ALLOWED[subject.dtype]
    # Inputs below one make gradients below one; what may cancel in them is smaller too.
    size = max((float(np.max(np.abs(a), initial=0)) for a in wide.values() if a.dtype.kind == "f"), default=1.0)
    least = SMALL * min(1.0, size)
    value = mark(derivation.output, done.Y, exact[derivation.output], allowed, least)
    gradients = [
        mark(f"d{subject.names[i]}", grads[i], exact[f"d{matched[i]}"], allowed, least)
        for i in subject.checked
        if matched[i] in derivation.differentiable
    ]
    wrong = {part.name for part in gradients if not part.ok}
    diagnosis = _diagnosis(subject, derivation, matched, wrong, seed)
    pairs = zip(subject.names, matched, strict=True)
    remarks = [f"{own} is the {name} of the formula." for own, name in pairs if own != name]
    return Grade(subject.call, derivation.formula, [value, *gradients], diagnosis, remarks)


def _in_order(layer: Checkable, arrays: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    """The inputs in the order of the function's own names; as they are where these are not the names given."""
    if not isinstance(arrays, Mapping):
        return list(arrays)
    names = subject_of(layer, list(arrays.values()), {}).names
    return [arrays[name] for name in names] if set(names) == set(arrays) else list(arrays.values())


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
