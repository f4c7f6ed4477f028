"""Many heads minimised together: what is shared between them is computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..core import Array
from ._certificate import Certificate, certify
from ._curvature import inverse_curvature
from ._lbfgs import LBFGS
from ._objective import Head, Objective

NOISE = 2.0**-23  # relative rounding of a float32 objective: half a unit in the last place for softmax, more for hinges
RENEWALS = (0, 8, 32, 128, 512, 2048)  # iterations at which the guess at the curvature is renewed
FLAT = 0.1  # of the tolerance: how flat, beside the steepest point seen, an objective without a bound has to be
PAIRS, PAIRS_OF_HINGE = 10, 100  # of L-BFGS: margins that come and go take many to describe
PAIRED = 2**21  # numbers that the steps of one head's pairs may be: 16 MiB, and as much for the changes
MARGIN = 0.5  # of the tolerance that the float32 gradient has to stay below before float64 is asked


class Progress(NamedTuple):
    """Where one head stands after an evaluation."""

    head: int
    evaluation: int
    value: float
    gradient_norm: float
    gap: float | None  # estimated from the float32 gradient
    done: str  # "" while it goes on


class Solved(NamedTuple):
    """A head that was minimised."""

    certificate: Certificate
    iterations: int
    evaluations: int
    stopped: str  # "gap", "noise floor", "limit", "diverged", or where λ = 0 "flat"


class Heads:
    """L-BFGS on several heads of one objective, each evaluation of all of them one pass over the examples.

    ::

        heads = Heads(objective, l2=[1e-3, 1e-4], tolerance=1e-4)
        for progress in heads.run():
            print(progress.value)
        heads.solved[0].certificate.gap

    Args:
        objective: what is minimised.
        l2: λ of every head.
        starts: where they start, vectors of the objective's size; zeros where absent.
        tolerance: a head is done when its certified gap is at most this much of its objective.
        limit: evaluations of one head at most.
    """

    def __init__(
        self,
        objective: Objective,
        l2: Sequence[float],
        *,
        starts: Sequence[Array] | None = None,
        tolerance: float = 1e-4,
        limit: int = 1000,
    ) -> None:
        self.objective, self.l2, self.tolerance, self.limit = objective, list(l2), tolerance, limit
        starts = starts or [np.zeros(objective.size) for _ in l2]
        pairs = PAIRS
        if objective.name == "squared_hinge":
            pairs = min(PAIRS_OF_HINGE, max(PAIRS, PAIRED // objective.size))
        self.solvers = [LBFGS(start, pairs=pairs, noise=NOISE) for start in starts]
        self.solved: dict[int, Solved] = {}
        self.first = 0  # the first of the heads that the last pass was for
        self._renewed = [-1] * len(self.l2)
        self._steepest = [0.0] * len(self.l2)
        self._refused = [math.inf] * len(self.l2)  # the least estimate that float64 did not confirm

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Until every head is done, or ``stop`` says so; what was reached is in `solvers` at any time."""
        while left := [h for h in range(len(self.l2)) if h not in self.solved]:
            self.first = left[0]
            for h in left:
                self._renew(h)
            found = self.objective.evaluate([Head(self.solvers[h].point, self.l2[h]) for h in left])
            for h, one in zip(left, found, strict=True):
                self.solvers[h].tell(*one)
            for h in left:
                yield self._progress(h)
            if stop():
                return

    def _renew(self, h: int) -> None:
        solver = self.solvers[h]
        due = max(number for number in RENEWALS if number <= solver.iterations)
        if due != self._renewed[h]:
            self._renewed[h] = due
            solver.inverse = inverse_curvature(self.objective, Head(solver.x, self.l2[h]))

    def _progress(self, h: int) -> Progress:
        solver, l2 = self.solvers[h], self.l2[h]
        gap = self.objective.gap(solver.gradient, l2)
        stopped = self._stopped(h, gap)
        if stopped:
            certificate = certify(self.objective, Head(solver.x, l2))
            reached = certificate.gap is not None and certificate.gap <= self.tolerance * certificate.value
            if stopped == "gap" and not reached and gap is not None:
                stopped, self._refused[h] = "", gap
            else:
                stopped = "gap" if reached else stopped
                self.solved[h] = Solved(certificate, solver.iterations, solver.evaluations, stopped)
        norm = float(np.linalg.norm(solver.gradient))
        return Progress(h, solver.evaluations, solver.value, norm, gap, stopped)

    def _stopped(self, h: int, gap: float | None) -> str:
        solver, l2 = self.solvers[h], self.l2[h]
        if gap is not None and gap <= min(MARGIN * self.tolerance * solver.value, self._refused[h] / 2):
            return "gap"
        if solver.stalled:
            return "noise floor" if math.isfinite(solver.value) else "diverged"
        norm = float(np.linalg.norm(solver.gradient))
        self._steepest[h] = max(norm, self._steepest[h])
        if l2 == 0 and norm <= FLAT * self.tolerance * self._steepest[h]:
            return "flat"
        return "limit" if solver.evaluations >= self.limit else ""
