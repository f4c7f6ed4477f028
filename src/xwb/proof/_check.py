"""`check`: the gradients of any function against measurements of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._compare import Tensor
from ._conduct import conduct_of
from ._diagnosis import diagnose
from ._point import Point
from ._report import Report
from ._subject import Checkable, Subject, subject_of

STREAM = int.from_bytes(b"xwb", "big")


def check(
    layer: Checkable,
    *arrays: Any,
    seed: int = 0,
    conduct: bool = True,
    needs: Sequence[str] | None = None,
    **options: Any,
) -> Report:
    """The gradients of ⟨dY, Y⟩, for a random dY, against differences of the function, which know no gradient.

    What the function is decides how: along random lines it is found to be a polynomial in an input, and then a step as
    large as the input is exact to rounding, or not; then an imaginary step is tried, and last central differences of
    second and fourth order, whose disagreement bounds their error. Whole numbers and ``==`` are used beside that where
    the function maps them to each other. Steps and bounds follow from the measured noise of both sides. float32
    functions are measured in float64 where they accept it; float32 gradients are then judged by their rounding alone.

    Every entry is moved on its own where that is affordable, else a sample; random directions hold all entries, and
    what they find is located by bisection. Where outputs have a kink they are counted, and all is checked beside it.

    Args:
        layer: a layer, chain, loss or derivation; or a pair ``(forward, backward)`` with ``forward(*arrays) -> Y`` and
            ``backward(dY, *arrays)``, or with ``forward(*arrays) -> (Y, saved)`` and ``backward(dY, saved)``; backward
            returns one gradient per array. Also an object with these two as methods, whose backward may take dY
            alone and go back from the last forward pass.
        arrays: the inputs; those of integers, and None, have no gradient.
        seed: of dY and of all directions.
        conduct: whether to try as well what else goes wrong in a backward pass: not linear in dY, changed or shared
            arrays, a second call, strided inputs, no example, two threads, and so on.
        needs: the names of the inputs whose gradients are checked, where a floating one has none.
        options: the layer's options.

    Returns:
        A report with one row per floating input; it is not raised, see `Report.raise_if_wrong`.

    Raises:
        OptionError: no input has a gradient to check, Y is not floating, or the options do not belong to what is
            checked.
        DataError: Y is not finite anywhere at these inputs.
        ProofError: backward returned another number of gradients than there are inputs.
    """
    return check_subject(subject_of(layer, arrays, options, needs), seed=seed, conduct=conduct)


def check_subject(subject: Subject, *, seed: int = 0, conduct: bool = True) -> Report:
    """`check` for a function of any library's arrays, as an adapter states it."""
    # A stream of its own: the inputs often come from default_rng(0), and a dY equal to X hides a missing transpose.
    rng = np.random.default_rng([STREAM, seed])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the function is tried where it need not be defined
        given = Point(subject, rng)
        kinks = given.probe.kinks
        point = given.away_from_kinks() if kinks else given
        if point.repeats:
            rows = [point.faulty_row(i) or Tensor(point, i).row() for i in subject.checked]
            findings = conduct_of(given, all(row.ok for row in rows)) if conduct else []
            diagnosis = diagnose(point, rows)
        else:  # no difference of its values means anything
            note = "forward gives other values for the same inputs"
            rows = [row for i in subject.checked if (row := point.faulty_row(i, note))]
            findings, diagnosis = [], []
    left_out = int(given.probe.Y.size - given.probe.finite.sum())
    return Report(subject.call, subject.dtype, rows, findings, diagnosis, kinks, left_out)
