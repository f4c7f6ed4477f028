"""Gradients of polynomials with whole coefficients, at whole numbers: no rounding, so that ``==`` decides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core import Array
from ._probe import STENCILS, Probe, order_for
from ._subject import Subject, copies

DIRECTIONS = 4  # each divides the probability of a miss by the number of whole numbers to draw from
# Entries from −r to r; smaller ones where the sums would leave the whole numbers that float64 holds.
RANGES = (64, 16, 4, 2)
LARGEST = 2.0**48  # leaves room for what is larger on the way to a sum than the sum
MULTIPLES = {2: 2, 4: 12}  # that make the coefficients of a stencil whole; a sixth order leaves the range


class Exact(NamedTuple):
    """The outcome for one input: ``ok`` is None where the function or its gradient leaves the whole numbers."""

    ok: bool | None
    miss: float = 1.0  # the probability that a wrong gradient passes, at most
    evaluations: int = 0


def exact(probe: Probe, i: int, rng: np.random.Generator) -> Exact:
    """Compare ⟨dY, J v⟩ with ⟨Jᵀ dY, v⟩ for whole x, dY and v, by ``==``, where the function is a polynomial along v.

    A gradient that is wrong at x differs from the right one by a vector e ≠ 0, and a v with entries drawn from a set S
    has ⟨e, v⟩ = 0 with a probability of at most 1/|S| (Schwartz 1980, Zippel 1979).
    """
    degree = probe.degree(i)
    if degree is None or order_for(degree) not in MULTIPLES or not probe.wide:
        return Exact(None)
    evaluations = 0

    def value(*arrays: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        return np.asarray(probe.subject.value(*copies(arrays)))

    subject = probe.subject._replace(value=value)
    for r in RANGES:
        try:
            ok = _attempt(subject, i, order_for(degree), r, rng)
        except Exception:  # whole numbers need not be in the function's domain
            ok = None
        if ok is not None:
            return Exact(ok, (2 * r + 1.0) ** -DIRECTIONS, evaluations)
    return Exact(None, evaluations=evaluations)


def _attempt(subject: Subject, i: int, order: int, r: int, rng: np.random.Generator) -> bool | None:
    """Whether both sides agree in every direction; None where one of them is not whole, or too large."""

    def whole(shape: tuple[int, ...]) -> Array:
        return rng.integers(-r, r, shape, endpoint=True).astype(np.float64)

    arrays = [whole(a.shape) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in subject.arrays]
    done = subject.run(*copies(arrays))
    dY = whole(np.shape(done.Y))
    grad = np.asarray(done.back(dY.copy())[i])
    if grad.shape != arrays[i].shape or not _is_whole(grad):
        return None
    agree = []
    for _ in range(DIRECTIONS):
        v = whole(arrays[i].shape)
        change = _change_along(subject, arrays, i, v, order)
        if change is None or not _sum(np.abs(dY * change)) < LARGEST > MULTIPLES[order] * _sum(np.abs(grad * v)):
            return None
        agree.append(_sum(dY * change) == MULTIPLES[order] * _sum(grad * v))
    return all(agree)


def _change_along(subject: Subject, arrays: list[Array], i: int, v: Array, order: int) -> Array | None:
    """The derivative along v, times a whole multiple; None where it is not whole, or not that of a polynomial."""
    middle = order // 2 + 1
    line = []
    for t in range(-middle, middle + 1):
        Y = subject.value(*(a + t * v if k == i else a for k, a in enumerate(arrays)))
        if not _is_whole(Y):
            return None
        line.append(Y)
    if np.diff(line, order + 1, axis=0).any():
        return None  # a kink lies on the way to other whole numbers
    change = np.zeros(line[0].shape)
    for k, c in enumerate(STENCILS[order], 1):
        change += round(MULTIPLES[order] * c) * (line[middle + k] - line[middle - k])
    return change


def _sum(values: Array) -> float:
    return float(np.sum(values))


def _is_whole(values: Array) -> bool:
    return bool(values.dtype == np.float64 and np.isfinite(values).all() and (values == np.rint(values)).all())
