"""A wrong gradient beside the numeric one: what a diagnosis is tried on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from ..core import Array
from ._point import Point
from ._report import Row

# Every entry is measured if entries × outputs, and entries × what a forward pass reads, are at most this; else random
# directions stand for them, of which the second half leaves the edges of all axes alone.
JACOBIAN, READ, DIRECTIONS = 2**22, 2**26, 6
SECONDS = 5.0  # and if moving each entry takes a slow function no longer
# How closely an explanation has to fit, relative to the largest number: by how the numeric side was measured.
FITS_EXACT, FITS_SMOOTH, FITS_FLOAT32 = 1e-9, 1e-6, 1e-3
OUTPUTS = 24  # rows of the Jacobian that the claimed one is held against

Said: TypeAlias = tuple[str, str]
"""A cause, as a key for programs, and the sentence for a reader."""
Change: TypeAlias = Callable[[Sequence[Any], Array], tuple[Array, Array]]
"""(gradients, dY) -> (a gradient, a dY) that should belong together if the change explains the mistake."""


class Evidence:
    """One wrong gradient, claimed and numeric, for two dY.

    Attributes:
        dYs: two dY as one row each.
        grads: for each of them all claimed gradients, in the shapes of the inputs.
    """

    def __init__(self, point: Point, i: int, row: Row) -> None:
        self.point, self.i, self.row, self.probe = point, i, row, point.probe
        self.name = point.subject.names[i]
        self.started = time.monotonic()
        self.shape: tuple[int, ...] = self.probe.arrays[i].shape
        self.size = math.prod(self.shape)
        self.outputs: tuple[int, ...] = self.probe.shape
        self.claim = point.finest  # in float64, if it computes in it, for it is wrong there too
        self.dYs = [point.weights, point.rng.standard_normal(point.weights.size)]
        self.grads = [self.back(weights) for weights in self.dYs]

    def back(self, weights: Array) -> list[Any]:
        """The claimed gradients for another dY; None for what is no array of numbers."""
        return [_numbers(grad) for grad in self.point.back(self.claim, weights)]

    @cached_property
    def every_entry(self) -> bool:
        """Whether entries are compared, not directions."""
        affordable = self.size * self.probe.Y.size <= JACOBIAN and self.size * self.probe.read <= READ
        return bool(affordable and self.size * self.probe.seconds <= SECONDS)

    @cached_property
    def directions(self) -> Array:
        """(directions, entries)."""
        directions = np.array([self.probe.direction(self.i) for _ in range(DIRECTIONS)])
        inside = np.zeros(self.shape)
        inside[tuple(slice(1, -1) if n > 2 else slice(None) for n in self.shape)] = 1.0
        directions[DIRECTIONS // 2 :] *= inside
        return directions.reshape(DIRECTIONS, -1)

    @cached_property
    def slopes(self) -> Array:
        """(entries or directions, outputs): the numeric Jacobian, or its products with the directions."""
        if self.every_entry:
            indices = list(np.ndindex(self.shape))
            found = [column.values for column in self.probe.columns(self.i, self.point.weights, indices)]
        else:
            found = [self.probe.jacobian_times(self.i, d.reshape(self.shape)) for d in self.directions]
        return np.array(found).reshape(-1, self.probe.Y.size)

    def seen(self, grad: Array) -> Array:
        """A gradient as it is compared: its entries, or its products with the directions."""
        return grad.reshape(-1) if self.every_entry else self.directions @ grad.reshape(-1)

    @cached_property
    def claimed(self) -> list[Array]:
        """What is seen of the claimed gradient, for each dY."""
        return [self.seen(grads[self.i]) for grads in self.grads]

    @cached_property
    def numeric(self) -> list[Array]:
        """What should be."""
        return [self.slopes @ weights for weights in self.dYs]

    @cached_property
    def fits_within(self) -> float:
        """The difference that counts as none, relative to the largest number."""
        if not self.probe.wide:
            return FITS_FLOAT32
        exact = self.probe.degree(self.i) is not None or self.probe.analytic
        return FITS_EXACT if exact else FITS_SMOOTH

    def alike(self, given: Array, wanted: Array, times: float = 1.0) -> Array:
        """Where two rows of numbers agree."""
        alike: Array = np.abs(given - wanted) <= times * self.fits_within * float(np.abs(wanted).max(initial=0.0))
        return alike

    def are_right(self, grads: Sequence[Array]) -> bool:
        """Whether these are the gradients for the two dY."""
        pairs = zip(grads, self.numeric, strict=True)
        return all(bool(self.alike(self.seen(grad), numeric).all()) for grad, numeric in pairs)

    def fits(self, change: Change, where: Array | slice = slice(None)) -> bool:
        """Whether a change makes both sides agree, for both dY; ``where`` are the rows of `seen` that count."""
        for grads, weights in zip(self.grads, self.dYs, strict=True):
            grad, dY = change(grads, weights.reshape(self.outputs))
            if grad.shape != self.shape:
                return False
            wanted = self.slopes @ dY.reshape(-1)
            if not wanted.any() or not self.alike(self.seen(grad), wanted)[where].all():
                return False
        return True

    @cached_property
    def wrong(self) -> Array:
        """Which entries (or directions) are wrong for one of the two dY."""
        both = [~self.alike(given, wanted, 8) for given, wanted in zip(self.claimed, self.numeric, strict=True)]
        wrong: Array = both[0] | both[1]
        return wrong

    @cached_property
    def some_outputs(self) -> Array:
        """Some outputs that depend on this input."""
        reached = np.flatnonzero(np.abs(self.slopes).max(axis=0, initial=0.0) > 0)
        return reached if reached.size <= OUTPUTS else self.point.rng.choice(reached, OUTPUTS, replace=False)

    def claimed_rows(self, outputs: Sequence[int] | Array) -> Array:
        """(outputs, entries): rows of the claimed Jacobian, the gradients for a dY that is 1 at one output."""
        rows = []
        for output in outputs:
            one = np.zeros(self.probe.Y.size)
            one[output] = 1.0
            rows.append(self.back(one)[self.i].reshape(-1))
        return np.array(rows).reshape(len(outputs), self.size)


def _numbers(grad: Any) -> Array | None:
    try:
        return None if grad is None else np.asarray(grad, np.float64)
    except (TypeError, ValueError):
        return None
