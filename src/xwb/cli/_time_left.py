"""How long a fit goes on, judged by how far its heads are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training import Event, Fit

LEAST = 0.05  # of the work that has to be done before the rest can be told


class TimeLeft:
    """Seconds that a fit will still take, from its events.

    A head trained in epochs is as far as its epochs are. One with a bound on its gap is as far as the logarithm of the
    gap has come from its first value to the tolerance, since L-BFGS takes about as many evaluations for each digit.
    """

    def __init__(self, job: Fit) -> None:
        self._job = job
        heads = len(job.heads)
        self._done = [0.0] * (heads + (heads > 1))  # the last for the refit
        self._first: dict[int, float] = {}

    def after(self, event: Event) -> float | None:
        """None where it cannot be told: too early, or nothing says how far a head is."""
        h = event.head
        self._done[h] = 1.0 if event.stopped else max(self._done[h], self._share(event))
        done = sum(self._done) / len(self._done)
        return event.seconds * (1 - done) / done if LEAST <= done < 1 else None

    def _share(self, event: Event) -> float:
        options = self._job.heads[min(event.head, len(self._job.heads) - 1)].options
        if event.epoch:
            return event.number / options.epochs
        if not event.gap or not event.objective > 0:
            return 0.0
        first = self._first.setdefault(event.head, event.gap)
        wanted = options.tolerance * event.objective
        if not wanted < first < math.inf:
            return 0.0
        return min(math.log(first / max(event.gap, wanted)) / math.log(first / wanted), 0.99)
