"""Gradients of polynomials with whole coefficients, at whole numbers: no rounding, so that ``==`` decides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core import Array
from ._difference import STENCILS, Probe
from ._subject import Pass, Subject, copies

DIRECTIONS = 4
# Entries from −r to r; smaller ones where the sums would leave the whole numbers that float64 holds.
RANGES = (64, 16, 4, 2)
LARGEST = 2.0**48  # leaves room for what is larger on the way to a sum than the sum
HIGHEST_DEGREE = 4
MULTIPLES = {2: 2, 4: 12}  # that make the coefficients of a stencil whole


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
    if degree is None or degree > HIGHEST_DEGREE or not probe.wide:
        return Exact(None)
    order = max(2, degree + degree % 2)
    spent = 0
    for r in RANGES:
        outcome = _attempt(probe.subject, i, order, r, rng)
        spent += 1 + DIRECTIONS * (order + 3)
        if outcome is not None:
            return Exact(outcome, (2 * r + 1.0) ** -DIRECTIONS, spent)
    return Exact(None, evaluations=spent)


def _attempt(subject: Subject, i: int, order: int, r: int, rng: np.random.Generator) -> bool | None:
    def whole(shape: tuple[int, ...]) -> Array:
        return rng.integers(-r, r, shape, endpoint=True).astype(np.float64)

    arrays = [whole(a.shape) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in subject.arrays]
    try:
        with np.errstate(all="ignore"):
            done: Pass = subject.run(*copies(arrays))
            dY = whole(np.shape(done.Y))
            grad = np.asarray(done.back(dY.copy())[i])
            if grad.shape != arrays[i].shape or not _is_whole(grad):
                return None
            agree = []
            for _ in range(DIRECTIONS):
                v = whole(arrays[i].shape)
                line = []
                for t in range(-order // 2 - 1, order // 2 + 2):
                    moved = [*arrays[:i], arrays[i] + t * v, *arrays[i + 1 :]]
                    line.append(np.asarray(subject.value(*copies(moved))))
                if not all(map(_is_whole, line)) or np.diff(line, order + 1, axis=0).any():
                    return None  # other whole numbers may lie beyond a kink
                multiple, middle = MULTIPLES[order], order // 2 + 1
                change = sum(
                    round(multiple * c) * (line[middle + k] - line[middle - k])
                    for k, c in enumerate(STENCILS[order], 1)
                )
                left, right = np.sum(dY * change), multiple * np.sum(grad * v)
                if not (np.sum(np.abs(dY * change)) < LARGEST and multiple * np.sum(np.abs(grad * v)) < LARGEST):
                    return None
                agree.append(bool(left == right))
    except Exception:  # whole numbers need not be in the function's domain
        return None
    return all(agree)


def _is_whole(values: object) -> bool:
    array = np.asarray(values)
    return bool(array.dtype == np.float64 and np.isfinite(array).all() and (array == np.rint(array)).all())
