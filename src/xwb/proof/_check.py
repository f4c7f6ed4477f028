"""Closed form against finite difference: central differences over every entry, both numbers in a report."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core import FLOATS, Array, Layer, Loss, OptionError, ProofError


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


class Row(NamedTuple):
    """One gradient; ``closed_form`` and ``numeric`` are the two numbers where they differ most."""

    name: str
    shape: tuple[int, ...]
    closed_form: float
    numeric: float
    relative: float  # |closed form − numeric| over the largest numeric entry of this tensor
    allowed: float
    worst: tuple[int, ...]  # the entry
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.relative <= self.allowed  # False for a NaN


class Report:
    """What `check` found: printed, a table with both numbers; ``ok``, ``rows`` and `raise_if_wrong` for programs."""

    def __init__(self, call: str, dtype: np.dtype[Any], rows: list[Row]) -> None:
        self.call = call
        self.dtype = dtype
        self.rows = rows

    @property
    def ok(self) -> bool:
        """Whether every gradient agrees; a report without rows proves nothing and is not ok."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def __str__(self) -> str:
        right, wrong = ([row.name for row in self.rows if row.ok is state] for state in (True, False))
        if wrong:
            names = " and ".join(f"d{name}" for name in wrong)
            fact = f"{names} {'disagrees' if len(wrong) == 1 else 'disagree'} with finite differences"
            conclusion = f"{' and '.join(right)} agree{'s' * (len(right) == 1)}." if right else "None agrees."
        else:
            fact = "closed form against central differences"
            conclusion = f"{', '.join(right)}: closed form and finite difference agree."
        wide = max([5, *(len(row.name) for row in self.rows)])
        shapes = max([5, *(len(str(row.shape)) for row in self.rows)])
        columns = f"closed form     numeric         relative  allowed ({self.dtype})"
        lines = [f"{self.call}: {fact}", f"    {'input':<{wide}}  {'shape':<{shapes}}  {columns}"]
        for row in self.rows:
            remark = row.note or ("" if row.ok else f"worst at {row.worst}")
            line = (
                f"    {row.name:<{wide}}  {row.shape!s:<{shapes}}  {row.closed_form:<14.7e}  {row.numeric:<14.7e}  "
                f"{row.relative:<8.1e}  {row.allowed:<17.1e}  {remark}"
            )
            lines.append(line.rstrip())
        return "\n".join([*lines, conclusion])

    __repr__ = __str__

    def raise_if_wrong(self) -> None:
        """Raises `ProofError` with the report unless every gradient agrees."""
        if not self.ok:
            raise ProofError(str(self))


def check(
    layer: Layer | Loss | tuple[Callable[..., Any], Callable[..., Any]],
    *arrays: Any,
    seed: int = 0,
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
    call, names, value, gradients = _sides(layer, arrays, options)
    inputs: list[Any] = [None if a is None else np.asarray(a) for a in arrays]
    checked = [i for i, a in enumerate(inputs) if a is not None and a.dtype in FLOATS and not _is_target(layer, i)]
    if not checked:
        raise OptionError(f"check: {call} has no float32 or float64 input among these, so no gradient to check")
    dtype = np.result_type(*(inputs[i].dtype for i in checked))
    Y = np.asarray(value(*inputs))
    if Y.dtype.kind != "f":
        raise OptionError(f"check: {call} returns {Y.dtype}, which has no gradient")
    dY = np.random.default_rng(seed).standard_normal(Y.shape).astype(Y.dtype)
    handed: list[Any] = [None if a is None else a.copy() for a in inputs]
    grads = gradients(dY.copy(), *handed)
    wide = [a.astype(np.float64) if a is not None and a.dtype in FLOATS else a for a in inputs]
    # Of a loss the two numbers are shown for dY = 1, as everybody computes them.
    unit = float(dY) if dY.ndim == 0 else 1.0
    rows = []
    for i in checked:
        numeric, uncertain = _central_differences(value, wide, i, dY.astype(np.float64), ALLOWED[dtype].of_terms)
        row = _row(names[i], grads[i], numeric, uncertain, ALLOWED[dtype], unit)
        if not np.array_equal(handed[i], inputs[i], equal_nan=True):
            row = row._replace(relative=np.inf, note="backward changed this input")
        rows.append(row)
    return Report(call, dtype, rows)


def _is_target(layer: Any, position: int) -> bool:
    return isinstance(layer, Loss) and position > 0


def _sides(
    layer: Any, arrays: tuple[Any, ...], options: dict[str, Any]
) -> tuple[str, list[str], Callable[..., Any], Callable[..., Any]]:
    """(the call, the inputs' names, the value, the gradients) of whatever is to be checked."""
    if isinstance(layer, Layer | Loss):

        def gradients(dY: Array, *inputs: Any) -> Any:
            grads = layer(*inputs, **options)[1](dY)
            return (grads,) if isinstance(layer, Loss) else grads

        return layer.call, list(layer.inputs), lambda *inputs: layer.forward(*inputs, **options)[0], gradients
    if not (isinstance(layer, tuple) and len(layer) == 2 and all(callable(side) for side in layer)):
        raise OptionError(f"check takes a layer, a loss or a pair (forward, backward); got {layer!r}")
    if options:
        raise OptionError(f"check: options {', '.join(options)} belong to layers; a pair takes arrays only")
    forward, backward = layer
    name = getattr(forward, "__name__", "forward")
    parameters = list(inspect.signature(forward).parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or len(parameters) < len(arrays):
        names = [f"input {i}" for i in range(1, len(arrays) + 1)]
    else:
        names = [p.name for p in parameters[: len(arrays)]]

    def backward_in_order(dY: Array, *inputs: Any) -> Any:
        grads = backward(dY, *inputs)
        grads = grads if isinstance(grads, tuple | list) else (grads,)
        if len(grads) != len(inputs):
            raise ProofError(
                f"{name}: backward returned {len(grads)} gradients for {len(inputs)} inputs; return one per input"
            )
        return grads

    return f"{name}({', '.join(names)})", names, forward, backward_in_order


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
