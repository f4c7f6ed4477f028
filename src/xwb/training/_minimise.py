"""Heads trained on one part of prepared data: by L-BFGS or normal equations where that certifies, else by epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import numpy as np

from ..core import Array, DivergedError
from ._certificate import Certificate, certify_all
from ._curvature import Curvature
from ._fit_options import FitOptions
from ._fitted import Event, Fitted
from ._heads import Heads, Progress
from ._least_squares import NormalEquations
from ._measured import measured, order, score
from ._model import network
from ._networks import Trainer, mean_loss, penalty
from ._objective import Head, Objective, head_loss
from ._prepare import Prepared
from ._rows import Part

STACKED = 256  # columns of heads in one product: with more of them a column costs no less


class Minimiser:
    """Trains heads, and counts the rows that were read for them.

    Args:
        data: whose part for validation says now and then how good a head is.
        outputs: K.
        stop: asked after every evaluation and step; True ends the training.
    """

    def __init__(self, data: Prepared, outputs: int, stop: Callable[[], bool] = lambda: False) -> None:
        self.data, self.outputs, self.stop = data, outputs, stop
        self.started = time.perf_counter()
        self.rows = 0
        self._validate = True

    def train(self, heads: Mapping[int, Fitted], part: Part, *, validate: bool = True) -> Iterator[Event]:
        """Train heads, given by their positions, that share loss and solver; they change as they are trained.

        Args:
            validate: measure on the validation rows; not where ``part`` holds them.

        Raises:
            DivergedError: a head that is alone has no finite loss; of several it is noted.
        """
        self._validate = validate and "validation" in self.data.parts
        if not next(iter(heads.values())).convex:
            yield from self._by_epochs(heads, part, alone=len(heads) == 1)
            return
        objective = self._objective(part, next(iter(heads.values())).options)
        if next(iter(heads.values())).options.solver == "normal":
            yield from self._solved(objective, heads)
        else:
            yield from self._descents(objective, heads)

    def _objective(self, part: Part, options: FitOptions) -> Objective:
        assert options.loss is not None
        return Objective(part, options.loss, self.outputs, kind=options.kind, penalise_bias=options.penalise_bias)

    # -- linear heads with a smooth loss -----------------------------------------------------------------------------

    def _descents(self, objective: Objective, heads: Mapping[int, Fitted]) -> Iterator[Event]:
        """Several heads in one product, the most penalised first; the next begin where the last of these ended."""
        positions = sorted(heads, key=lambda h: -heads[h].options.l2)
        curvature, before, together = Curvature(objective), np.zeros(objective.size), stacked(self.outputs)
        for first in range(0, len(positions), together):
            group = positions[first : first + together]
            starts = [_packed(heads[h].params, objective) if heads[h].params else before for h in group]
            before = yield from self._descent(curvature, heads, group, starts)
            if self.stop():
                return

    def _descent(
        self, curvature: Curvature, heads: Mapping[int, Fitted], group: Sequence[int], starts: Sequence[Array]
    ) -> Generator[Event, None, Array]:
        """Gives where the last of the group ended."""
        objective, options = curvature.objective, heads[group[0]].options
        solvers = Heads(
            objective,
            [heads[h].options.l2 for h in group],
            starts=starts,
            tolerance=options.tolerance,
            limit=options.max_evaluations,
            curvature=curvature,
        )
        for progress in solvers.run(self.stop):
            h = group[progress.head]
            self.rows += objective.part.rows if progress.head == solvers.first else 0
            _take(heads[h], solvers, progress, objective)
            yield self._event(h, heads[h], progress.evaluation)
        return solvers.solvers[-1].x

    def _solved(self, objective: Objective, heads: Mapping[int, Fitted]) -> Iterator[Event]:
        equations = NormalEquations(objective)
        self.rows += objective.part.rows
        solutions = [Head(equations.solve(fitted.options.l2), fitted.options.l2) for fitted in heads.values()]
        for (h, fitted), certificate in zip(heads.items(), certify_all(objective, solutions), strict=True):
            _certified(fitted, certificate, objective)
            self.rows += certificate.evaluations * objective.part.rows
            fitted.iterations, fitted.evaluations, fitted.stopped = 1, certificate.evaluations, "solved"
            yield self._event(h, fitted, 1)
            if self.stop():
                return

    # -- mini-batches --------------------------------------------------------------------------------------------------

    def _by_epochs(self, heads: Mapping[int, Fitted], part: Part, *, alone: bool) -> Iterator[Event]:
        for h, fitted in heads.items():
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # DivergedError says it, once
                    yield from self._epochs(h, fitted, part)
                    self._value(fitted, part)
            except DivergedError:
                if alone:
                    raise
                fitted.stopped, fitted.params, fitted.validation = "diverged", [], None
                fitted.objective = fitted.gradient_norm = fitted.gap = fitted.epoch = None
                yield self._event(h, fitted, 0, epoch=True, objective=float("inf"))
            if self.stop():
                return

    def _epochs(self, h: int, fitted: Fitted, part: Part) -> Iterator[Event]:
        """Every epoch; kept is the one that is best on validation, without it the last."""
        best: tuple[float, float] | None = None
        for epoch in Trainer(part, fitted.options, self.outputs).run(self.stop):
            self.rows += part.rows
            if not all(np.isfinite(array).all() for array in epoch.params):
                raise DivergedError(f"training diverged in epoch {epoch.number}: the parameters are no longer finite")
            found = measured(self.data, epoch.params, fitted.options, "validation") if self._validate else None
            key = order(found) if found else (float(epoch.number), 0.0)
            if best is None or key > best:
                best, fitted.params = key, [array.copy() for array in epoch.params]
                fitted.validation, fitted.epoch = found, epoch.number
            fitted.stopped = "epochs" if epoch.whole and epoch.number == fitted.options.epochs else ""
            value = epoch.loss + penalty(epoch.params, fitted.options)
            yield self._event(h, fitted, epoch.number, epoch=True, objective=value, validation=score(found))

    def _value(self, fitted: Fitted, part: Part) -> None:
        """The objective of what was kept, with its gradient where it is a linear head."""
        options = fitted.options
        assert options.loss is not None
        if options.hidden:
            net = network(len(fitted.params) // 2, options.activation)
            loss = mean_loss(net, fitted.params, part, head_loss(options.loss, options.kind))
            fitted.objective = loss + penalty(fitted.params, options)
        else:
            objective = self._objective(part, options)
            (found,) = objective.evaluate([Head(_packed(fitted.params, objective), options.l2)], np.float64)
            fitted.objective, fitted.gradient_norm = found.value, float(np.linalg.norm(found.gradient))
            fitted.gap = objective.gap(found.gradient, options.l2) if options.penalise_bias else None
        if not np.isfinite(fitted.objective):
            raise DivergedError("training diverged: the loss is no longer finite; try a smaller --lr")

    # -- telling -------------------------------------------------------------------------------------------------------

    def _event(
        self,
        h: int,
        fitted: Fitted,
        number: int,
        *,
        epoch: bool = False,
        objective: float | None = None,
        validation: float | None = None,
    ) -> Event:
        """An event of a head; of an evaluation it has what is known of the head, now and then its validation."""
        seconds = time.perf_counter() - self.started
        if epoch:
            value = float("nan") if objective is None else objective
            return Event(h, number, True, value, None, None, validation, seconds, self.rows, fitted.stopped)
        assert fitted.objective is not None
        if self._validate and (fitted.stopped or number & (number - 1) == 0):  # at 1, 2, 4, 8, …
            fitted.validation = measured(self.data, fitted.params, fitted.options, "validation")
            validation = score(fitted.validation)
        return Event(
            h,
            number,
            False,
            fitted.objective,
            fitted.gradient_norm,
            fitted.gap,
            validation,
            seconds,
            self.rows,
            fitted.stopped,
        )


def stacked(outputs: int) -> int:
    """How many heads go together through the examples."""
    return max(1, STACKED // max(1, outputs))


def _take(fitted: Fitted, solvers: Heads, progress: Progress, objective: Objective) -> None:
    """What is known of a head now; when it is solved, its certificate."""
    solver, solved = solvers.solvers[progress.head], solvers.solved.get(progress.head)
    if solved is None:
        fitted.params = _unpacked(solver.x, objective)
        fitted.objective, fitted.gradient_norm = solver.value, float(np.linalg.norm(solver.gradient))
        fitted.gap = objective.gap(solver.gradient, fitted.options.l2)
        fitted.evaluations, fitted.iterations = solver.evaluations, solver.iterations
    else:
        _certified(fitted, solved.certificate, objective)
        fitted.evaluations = solved.evaluations + solved.certificate.evaluations
        fitted.iterations, fitted.stopped = solved.iterations, solved.stopped


def _certified(fitted: Fitted, certificate: Certificate, objective: Objective) -> None:
    fitted.params = _unpacked(certificate.head.point, objective)
    fitted.objective, fitted.gap = certificate.value, certificate.gap
    fitted.gradient_norm = certificate.gradient_norm


def _packed(params: Sequence[Array], objective: Objective) -> Array:
    point = np.empty(objective.size)
    W, b = objective.unpacked(point)
    W[...], b[...] = params
    return point


def _unpacked(point: Array, objective: Objective) -> list[Array]:
    return [array.copy() for array in objective.unpacked(point)]
