"""Gradients that are right for other inputs: an operand transposed, left out, or of an earlier call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core import Array
from ._evidence import Evidence, Said
from ._point import Point, fault, flat, gradients
from ._probe import Probe, moved

DIRECTIONS = 3


def right_for_other_operands(evidence: Evidence) -> Said | None:
    """(cause, sentence) if the gradient is right for operands that were transposed, flipped, exchanged, 1 or 0."""
    probe, i = evidence.probe, evidence.i
    directions = [probe.direction(i) for _ in range(DIRECTIONS)]
    claimed = [np.array([float(np.sum(d * grads[i])) for d in directions]) for grads in evidence.grads]
    here = np.array([probe.jacobian_times(i, direction) for direction in directions])
    if all(evidence.alike(given, here @ w, 8).all() for given, w in zip(claimed, evidence.dYs, strict=True)):
        return None  # as it is right along these directions, every change that changes nothing would fit
    for cause, words, arrays in _other_operands(evidence.point, i):
        try:
            there = Probe(evidence.point.subject, evidence.point.rng, arrays)
        except Exception:  # other shapes need not fit
            continue
        if there.shape != evidence.outputs:
            continue
        slopes = np.array([there.jacobian_times(i, direction) for direction in directions])
        pairs = [(given, slopes @ weights) for given, weights in zip(claimed, evidence.dYs, strict=True)]
        if all(wanted.any() and evidence.alike(given, wanted, 4).all() for given, wanted in pairs):
            return cause, f"it is right for {words}."
    return None


def _other_operands(point: Point, i: int) -> Iterator[tuple[str, str, list[Any]]]:
    """(cause, what was done, the inputs), for the gradient by input ``i``."""
    arrays, names, checked = list(point.probe.arrays), point.subject.names, point.subject.checked

    def with_one(j: int, array: Array) -> list[Any]:
        return [array if k == j else a for k, a in enumerate(arrays)]

    for j in checked:
        name, A = names[j], arrays[j]
        for a, b in itertools.combinations(range(A.ndim), 2):
            if A.shape[a] == A.shape[b]:
                words = f"{name} transposed" if A.ndim == 2 else f"{name} with its axes {a} and {b} exchanged"
                yield "transpose", words, with_one(j, A.swapaxes(a, b).copy())
        for axes in itertools.chain.from_iterable(itertools.combinations(range(A.ndim), number) for number in (1, 2)):
            if all(A.shape[axis] > 1 for axis in axes):
                along = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes[0]} and {axes[1]}"
                yield "flipped", f"{name} running backwards along {along}", with_one(j, np.flip(A, axes).copy())
        if j != i:
            yield "chain rule factor", f"{name} = 1: the factor {name} is lost", with_one(j, np.ones_like(A))
            yield "lost term", f"{name} = 0: the term with {name} is lost", with_one(j, np.zeros_like(A))
    for j, k in itertools.combinations(checked, 2):
        if arrays[j].shape == arrays[k].shape:
            exchanged = with_one(j, arrays[k])
            exchanged[k] = arrays[j]
            yield "transpose", f"{names[j]} and {names[k]} exchanged", exchanged


def holds_elsewhere(evidence: Evidence, times: float) -> bool:
    """Whether a factor is the same for other inputs too, along a direction; true where these cannot be had."""
    point, i = evidence.point, evidence.i
    directions = {j: point.probe.direction(j) for j in point.subject.checked}
    arrays = [moved(a, directions[k]) if k in directions else a for k, a in enumerate(evidence.claim.arrays)]
    try:
        there = Probe(point.subject, point.rng, arrays)
        claimed = float(np.sum(directions[i] * np.asarray(gradients(point.subject, arrays, point.weights)[i], float)))
        wanted = float(there.jacobian_times(i, directions[i]) @ point.weights)
    except Exception:  # the function need not be defined there
        return True
    # Half of what it differs from 1 by tells a factor of the formula from one of these numbers.
    return not abs(claimed - times * wanted) > 0.5 * abs(times - 1) * abs(wanted)


def stale(point: Point, wrong: Sequence[int]) -> Said | None:
    """(cause, sentence) if some inputs are those of an earlier call.

    Then every wrong gradient ignores these of the inputs that it should depend on, and no others; and no right gradient
    should depend on them.
    """
    arrays = point.probe.arrays
    movable = [j for j, a in enumerate(arrays) if isinstance(a, np.ndarray) and a.size > 1]
    comparable = [i for i in point.subject.checked if not fault(point.finest.grads[i], arrays[i])]
    wrong = [i for i in wrong if i in comparable]
    if not wrong or _are_dY(point, wrong):
        return None
    should, ignored = _dependence(point, comparable, movable)
    candidates = [{j} for j in movable] + ([set(movable)] if len(movable) > 1 else [])
    for kept in candidates:
        explained = all(ignored[i] and ignored[i] == should[i] & kept for i in wrong)
        contradicted = any(should[i] & kept for i in comparable if i not in wrong)
        if explained and not contradicted:
            names = " and ".join(point.subject.names[j] for j in sorted(kept))
            return "stale", f"it stays the same when {names} changes: a value kept from an earlier call."
    return None


def _are_dY(point: Point, wrong: Sequence[int]) -> bool:
    """Whether these are a number times dY: then a factor is lost, and nothing is kept."""
    for i in wrong:
        grad, dY = flat(point.finest.grads[i]), point.weights
        if dY.size and grad.size % dY.size == 0:
            dY = np.repeat(dY, grad.size // dY.size)
        if grad.size != dY.size:
            return False
        ratio = grad / np.where(dY == 0, 1.0, dY)
        if ratio.max() - ratio.min() > 1e-6 * np.abs(ratio).max():
            return False
    return True


def _dependence(
    point: Point, comparable: Sequence[int], movable: Sequence[int]
) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """For each gradient the inputs that it should depend on, and those of them that it does not."""
    claim, probe = point.finest, point.probe
    should: dict[int, set[int]] = {i: set() for i in comparable}
    ignored: dict[int, set[int]] = {i: set() for i in comparable}
    directions = {i: probe.direction(i) for i in comparable}
    here = {i: float(probe.jacobian_times(i, directions[i]) @ point.weights) for i in comparable}
    for j in movable:
        change = _change(point, j)
        try:
            there = Probe(point.subject, point.rng, [change(a) if k == j else a for k, a in enumerate(probe.arrays)])
            arrays = [change(a) if k == j else a for k, a in enumerate(claim.arrays)]
            grads = gradients(point.subject, arrays, point.weights)
        except Exception:  # the function need not be defined there
            continue
        for i in comparable:
            slope = float(there.jacobian_times(i, directions[i]) @ point.weights)
            if abs(slope - here[i]) > 1e-4 * max(abs(slope), abs(here[i])):
                should[i].add(j)
                if np.array_equal(flat(grads[i]), flat(claim.grads[i])):
                    ignored[i].add(j)
    return should, ignored


def _change(point: Point, j: int) -> Callable[[Array], Array]:
    """Another value for one input; labels and positions keep their range."""
    if j not in point.subject.checked:
        return lambda a: np.roll(a, 1)
    direction = point.probe.direction(j)
    return lambda a: moved(a, direction)
