"""Many heads minimised together: what is shared between them is computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..core import Array, norm
from ._certificate import Certificate, certify_all
from ._curvature import Curvature
from ._lbfgs import LBFGS
from ._objective import Head, Objective

NOISE = 2.0**-23  # relative rounding of a float32 objective: half a unit in the last place for softmax, more for hinges
RENEWALS = (0, 2, 4, 8, 16, 32, 128, 512, 2048)  # iterations at which the guess at the curvature is renewed
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
    stopped: str  # as in `Solved`; "" while it goes on


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
        curvature: of the objective, where other heads have used it before.

    Attributes:
        solvers: the state of every head, an `LBFGS` each.
        solved: the heads that are done, by position.
    """

    def __init__(
        self,
        objective: Objective,
        l2: Sequence[float],
        *,
        starts: Sequence[Array] | None = None,
        tolerance: float = 1e-4,
        limit: int = 1000,
        curvature: Curvature | None = None,
    ) -> None:
        self.curvature = curvature or Curvature(objective)
        self.objective, self.l2, self.tolerance, self.limit = objective, list(l2), tolerance, limit
        starts = starts or [np.zeros(objective.size) for _ in l2]
        pairs = pairs_kept(objective.name, objective.size)
        self.solvers = [LBFGS(start, pairs=pairs, noise=NOISE) for start in starts]
        self.solved: dict[int, Solved] = {}
        self._renewed = [-1] * len(self.l2)
        self._steepest = [0.0] * len(self.l2)
        self._refused = [math.inf] * len(self.l2)  # the least estimate that float64 did not confirm

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Until every head is done, or ``stop`` says so; what was reached is in `solvers` at any time.

        A head that seems done waits for the others: the certificates of all are computed in the same passes.
        """
        waiting: dict[int, str] = {}
        while len(self.solved) < len(self.l2):
            left = [h for h in range(len(self.l2)) if h not in self.solved and h not in waiting]
            if not left:
                yield from self._certified(waiting)
                waiting.clear()
                continue
            self._renew(left)
            found = self.objective.evaluate([Head(self.solvers[h].point, self.l2[h]) for h in left])
            for h, one in zip(left, found, strict=True):
                self.solvers[h].tell(*one)
                gap = self.objective.gap(self.solvers[h].gradient, self.l2[h])
                if reason := self._stopped(h, gap):
                    waiting[h] = reason
                else:
                    yield self._progress(h, gap)
            if stop():
                return

    def _renew(self, left: Sequence[int]) -> None:
        """New guesses at the curvature for the heads that have come to one of `RENEWALS`."""
        due = {h: max(number for number in RENEWALS if number <= self.solvers[h].iterations) for h in left}
        changed = [h for h in left if due[h] != self._renewed[h]]
        inverses = self.curvature.inverses([Head(self.solvers[h].x, self.l2[h]) for h in changed])
        for h, inverse in zip(changed, inverses, strict=True):
            self._renewed[h] = due[h]
            self.solvers[h].inverse = inverse

    def _certified(self, waiting: Mapping[int, str]) -> Iterator[Progress]:
        """The certificates of heads that seem done; a gap that float64 does not confirm sends its head back."""
        certificates = certify_all(self.objective, [Head(self.solvers[h].x, self.l2[h]) for h in waiting])
        for (h, stopped), certificate in zip(waiting.items(), certificates, strict=True):
            solver = self.solvers[h]
            gap = self.objective.gap(solver.gradient, self.l2[h])
            reached = certificate.gap is not None and certificate.gap <= self.tolerance * certificate.value
            if stopped == "gap" and not reached and gap is not None:
                self._refused[h] = gap
                continue
            stopped = "gap" if reached else stopped
            self.solved[h] = Solved(certificate, solver.iterations, solver.evaluations, stopped)
            yield self._progress(h, gap, stopped)

    def _progress(self, h: int, gap: float | None, stopped: str = "") -> Progress:
        solver = self.solvers[h]
        return Progress(h, solver.evaluations, solver.value, norm(solver.gradient), gap, stopped)

    def _stopped(self, h: int, gap: float | None) -> str:
        """Why a head seems done, a word as in `Solved`; "" while it goes on."""
        solver, l2 = self.solvers[h], self.l2[h]
        if gap is not None and gap <= min(MARGIN * self.tolerance * solver.value, self._refused[h] / 2):
            return "gap"
        if solver.stalled:
            return "noise floor" if math.isfinite(solver.value) else "diverged"
        steepness = norm(solver.gradient)
        self._steepest[h] = max(steepness, self._steepest[h])
        if l2 == 0 and steepness <= FLAT * self.tolerance * self._steepest[h]:
            return "flat"
        return "limit" if solver.evaluations >= self.limit else ""


def pairs_kept(loss: str, size: int) -> int:
    """How many pairs describe the curvature of a head with so many parameters."""
    return min(PAIRS_OF_HINGE, max(PAIRS, PAIRED // size)) if loss == "squared_hinge" else PAIRS
