"""Closed form against finite difference: central differences over every entry, both numbers in a report."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core import FLOATS, Array, OptionError
from ._report import Report, Row
from ._subject import Checkable, Subject, subject_of


class Allowance(NamedTuple):
    """What a right closed form may differ by."""

    of_entry: float  # of the entry itself: truncation of the differences, and the closed form's rounding
    of_largest: float  # of the largest entry of its tensor: rounding of sums that cancel
    of_terms: float  # of |dY Y / x|: rounding of a slope where the function is nearly flat


# float64: the truncation h²f'''/6 at h = 6e-6, with room for third derivatives of 1e4; reductions of 1e5 terms.
# float32: unit roundoff 6e-8 times reductions of a thousand terms.
ALLOWED = {
    np.dtype(np.float64): Allowance(1e-7, 1e-11, 1e-13),
    np.dtype(np.float32): Allowance(1e-4, 1e-4, 1e-4),
}
# The first step balances truncation (h²) against rounding (u/h); the others are tried where rounding wins all the same.
STEPS = (6e-6, 1e-3, 1.0, 1e3)
EPSILON = float(np.finfo(np.float64).eps)
# The part of an entry that may be rounding before larger steps are tried, and before the entry counts as not resolved.
SHARP, RESOLVED = 1e-5, 1e-2


def check(
    layer: Checkable,
    *arrays: Any,
    seed: int = 0,
    conduct: bool = True,
    **options: Any,
) -> Report:
    """The gradients of ⟨dY, Y⟩, for a random dY, against central differences at every entry of every input.

    The closed form runs on copies of the arrays; the differences are taken in float64, whatever the dtype, with a step
    of 6e-6 · max(1, |x|), or larger ones where Y is so large that rounding would drown it. Costs two forward passes
    per entry, eight where larger steps are tried. Where rounding may still hide more than a hundredth of the largest
    entry, a hundredth is allowed, and what differs by more is called "not resolved" and is not ok. Points where the
    function has a kink are not recognised: there a right gradient may disagree.

    Args:
        layer: a layer, chain or loss; or a pair ``(forward, backward)`` with ``forward(*arrays) -> Y`` and
            ``backward(dY, *arrays) -> one gradient per array`` (None for those without).
        arrays: the inputs; those of integers, and None, have no gradient.
        seed: of dY.
        options: the layer's options.

    Returns:
        A report with one row per floating input; it is not raised, see `Report.raise_if_wrong`.

    Raises:
        OptionError: no input has a gradient to check, Y is not floating, or the options do not belong to what is
            checked.
        ProofError: a pair's backward returned another number of gradients than there are inputs.
    """
    return check_subject(subject_of(layer, arrays, options), seed=seed, conduct=conduct)


def check_subject(subject: Subject, *, seed: int = 0, conduct: bool = True) -> Report:
    """`check` for a function of any library's arrays, as an adapter states it."""
    inputs, checked, dtype = subject.arrays, subject.checked, subject.dtype
    Y = np.asarray(subject.value(*inputs))
    if Y.dtype.kind != "f":
        raise OptionError(f"check: {subject.call} returns {Y.dtype}, which has no gradient")
    dY = np.random.default_rng(seed).standard_normal(Y.shape).astype(Y.dtype)
    handed: list[Any] = [None if a is None else a.copy() for a in inputs]
    grads = subject.run(*handed).back(dY.copy())
    wide = [a.astype(np.float64) if a is not None and a.dtype in FLOATS else a for a in inputs]
    # Of a loss the two numbers are shown for dY = 1, as everybody computes them.
    unit = float(dY) if dY.ndim == 0 else 1.0
    rows = []
    for i in checked:
        numeric, uncertain = _central_differences(
            subject.value, wide, i, dY.astype(np.float64), ALLOWED[dtype].of_terms
        )
        row = _row(subject.names[i], grads[i], numeric, uncertain, ALLOWED[dtype], unit)
        if not np.array_equal(handed[i], inputs[i], equal_nan=True):
            row = row._replace(relative=np.inf, note="backward changed this input")
        rows.append(row)
    return Report(subject.call, dtype, rows)


class _Slope(NamedTuple):
    """One central difference of ⟨dY, Y⟩."""

    value: float
    rounding: float  # what the rounding of Y may contribute to it
    terms: float  # the largest |dY Y|

    def agrees(self, other: _Slope) -> bool:
        return abs(self.value - other.value) <= self.rounding + other.rounding


def _central_differences(
    value: Callable[..., Any], arrays: list[Any], position: int, dY: Array, of_terms: float
) -> tuple[Array, Array]:
    """∂⟨dY, Y⟩/∂x at every entry of one array, and how far rounding may put each comparison off."""
    X = arrays[position]
    moved = list(arrays)

    def slope(index: tuple[int, ...], step: float) -> _Slope:
        sides = []
        for x in (X[index] + step, X[index] - step):
            moved[position] = X.copy()
            moved[position][index] = x
            sides.append((x, np.asarray(value(*moved), np.float64)))
        (high, Y_high), (low, Y_low) = sides
        difference = Y_high - Y_low
        size = np.abs(dY) * np.maximum(np.abs(Y_high), np.abs(Y_low))
        terms = float(np.max(size, initial=0.0))
        # The entries that moved are rounded; one that should have may have stayed.
        rounding = EPSILON * (4 * float(np.sum(size[difference != 0.0])) + terms)
        return _Slope(float(np.sum(dY * difference)) / (high - low), rounding / (high - low), terms)

    numeric, uncertain = np.empty(X.shape), np.empty(X.shape)
    for index in np.ndindex(X.shape):
        around = max(1.0, abs(float(X[index])))
        best = slope(index, STEPS[0] * around)
        if best.rounding > SHARP * abs(best.value):
            # A larger step is as good as exact if one larger still agrees: its truncation would be far more.
            slopes = [best, *(slope(index, step * around) for step in STEPS[1:])]
            agree = [one.agrees(larger) for one, larger in itertools.pairwise(slopes)]
            k = 0
            while k + 1 < len(agree) and agree[k] and agree[k + 1]:
                k += 1
            best = slopes[k]
        numeric[index] = best.value
        uncertain[index] = best.rounding + of_terms * best.terms / around
    return numeric, uncertain


def _row(name: str, closed_form: Any, numeric: Array, uncertain: Array, allowed: Allowance, unit: float) -> Row:
    """The two tensors where they differ most beyond what is allowed, both over ``unit``."""
    if closed_form is None or np.asarray(closed_form).shape != numeric.shape:
        fact = (
            "no gradient returned" if closed_form is None else f"the gradient has shape {np.asarray(closed_form).shape}"
        )
        return Row(name, numeric.shape, np.nan, np.nan, np.inf, allowed.of_entry, (), fact)
    closed = np.asarray(closed_form).astype(np.float64)
    if numeric.size == 0:
        return Row(name, numeric.shape, 0.0, 0.0, 0.0, allowed.of_entry, ())
    difference = np.abs(closed - numeric)
    largest = float(np.max(np.abs(numeric)))
    bound = allowed.of_entry * np.abs(numeric) + allowed.of_largest * largest + uncertain
    unresolved = (bound > RESOLVED * largest) & (largest > 0)
    bound = np.where(unresolved, RESOLVED * largest, bound)
    excess = np.where(difference > 0, difference / np.maximum(bound, np.finfo(np.float64).tiny), 0.0)
    excess[np.isnan(difference)] = np.inf
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
    scale = largest or 1.0
    note = ""
    if unresolved[worst] and excess[worst] > 1:
        note = f"not resolved at {worst}: finite differences are off by up to {uncertain[worst]:.1e} there"
    return Row(
        name,
        numeric.shape,
        float(closed[worst]) / unit,
        float(numeric[worst]) / unit,
        float(difference[worst]) / scale,
        float(bound[worst]) / scale,
        worst,
        note,
    )
