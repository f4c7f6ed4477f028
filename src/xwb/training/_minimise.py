"""Heads trained on one part of prepared data: by L-BFGS or normal equations where that certifies, else by epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import numpy as np

from ..core import Array, DivergedError, norm
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
        """Train heads that share loss and solver.

        Args:
            heads: by their positions; they change as they are trained.
            part: the rows to learn from.
            validate: measure on the validation rows; not where ``part`` holds them.

        Raises:
            DivergedError: a head that is alone has no finite loss; of several it is noted.
        """
        self._validate = validate and "validation" in self.data.parts
        first = next(iter(heads.values()))
        if not first.convex:
            yield from self._by_epochs(heads, part)
        elif first.options.solver == "normal":
            yield from self._by_equations(self._objective(part, first.options), heads)
        else:
            yield from self._by_lbfgs(self._objective(part, first.options), heads)

    def _objective(self, part: Part, options: FitOptions) -> Objective:
        assert options.loss is not None
        return Objective(part, options.loss, self.outputs, kind=options.kind, penalise_bias=options.penalise_bias)

    # -- linear heads with a smooth loss -----------------------------------------------------------------------------

    def _by_lbfgs(self, objective: Objective, heads: Mapping[int, Fitted]) -> Iterator[Event]:
        """Several heads in one product, the most penalised first; the next begin where the last of these ended."""
        positions = sorted(heads, key=lambda h: -heads[h].options.l2)
        curvature, before, together = Curvature(objective), np.zeros(objective.size), group_size(self.outputs)
        for first in range(0, len(positions), together):
            group = positions[first : first + together]
            starts = [_packed(heads[h].params, objective) if heads[h].params else before for h in group]
            before = yield from self._descend(curvature, heads, group, starts)
            if self.stop():
                return

    def _descend(
        self, curvature: Curvature, heads: Mapping[int, Fitted], group: Sequence[int], starts: Sequence[Array]
    ) -> Generator[Event, None, Array]:
        """Train the heads of one group; returns the point (D·K + K,) where the last of them ended."""
        objective, options = curvature.objective, heads[group[0]].options
        solvers = Heads(
            objective,
            [heads[h].options.l2 for h in group],
            starts=starts,
            tolerance=options.tolerance,
            limit=options.max_evaluations,
            curvature=curvature,
        )
        rows, passes = self.rows, objective.passes
        for progress in solvers.run(self.stop):
            h = group[progress.head]
            self.rows = rows + (objective.passes - passes) * objective.part.rows
            _take(heads[h], solvers, progress, objective)
            yield self._evaluated(h, heads[h], progress.evaluation)
        return solvers.solvers[-1].x

    def _by_equations(self, objective: Objective, heads: Mapping[int, Fitted]) -> Iterator[Event]:
        equations = NormalEquations(objective)
        solutions = [Head(equations.solve(fitted.options.l2), fitted.options.l2) for fitted in heads.values()]
        certificates = certify_all(objective, solutions)
        self.rows += (1 + objective.passes) * objective.part.rows  # one for the equations
        for (h, fitted), certificate in zip(heads.items(), certificates, strict=True):
            _take_certificate(fitted, certificate, objective)
            fitted.iterations, fitted.evaluations, fitted.stopped = 1, certificate.evaluations, "solved"
            yield self._evaluated(h, fitted, 1)
            if self.stop():
                return

    # -- mini-batches --------------------------------------------------------------------------------------------------

    def _by_epochs(self, heads: Mapping[int, Fitted], part: Part) -> Iterator[Event]:
        for h, fitted in heads.items():
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # DivergedError says it, once
                    yield from self._epochs(h, fitted, part)
                    self._evaluate(fitted, part)
            except DivergedError:
                if len(heads) == 1:
                    raise
                fitted.stopped, fitted.params, fitted.validation = "diverged", [], None
                fitted.objective = fitted.gradient_norm = fitted.gap = fitted.epoch = None
                yield self._event(h, fitted, 0, float("inf"), epoch=True)
            if self.stop():
                return

    def _epochs(self, h: int, fitted: Fitted, part: Part) -> Iterator[Event]:
        """Every epoch; kept is the one that is best on validation, without it the last."""
        best: tuple[float, float] | None = None
        for epoch in Trainer(part, fitted.options, self.outputs).run(self.stop):
            self.rows += part.rows
            found = measured(self.data, epoch.params, fitted.options, "validation") if self._validate else None
            key = order(found) if found else (float(epoch.number), 0.0)
            if best is None or key > best:
                best, fitted.params = key, [array.copy() for array in epoch.params]
                fitted.validation, fitted.epoch = found, epoch.number
            fitted.stopped = "epochs" if epoch.whole and epoch.number == fitted.options.epochs else ""
            value = epoch.loss + penalty(epoch.params, fitted.options)
            yield self._event(h, fitted, epoch.number, value, score(found), epoch=True)

    def _evaluate(self, fitted: Fitted, part: Part) -> None:
        """Note the objective of what was kept, and its gradient's norm where it is a linear head.

        Raises:
            DivergedError: it is not finite.
        """
        options = fitted.options
        assert options.loss is not None
        if options.hidden:
            net = network(len(fitted.params) // 2, options.activation)
            loss = mean_loss(net, fitted.params, part, head_loss(options.loss, options.kind))
            fitted.objective = loss + penalty(fitted.params, options)
        else:
            objective = self._objective(part, options)
            (found,) = objective.evaluate([Head(_packed(fitted.params, objective), options.l2)], np.float64)
            fitted.objective, fitted.gradient_norm = found.value, norm(found.gradient)
            fitted.gap = objective.gap(found.gradient, options.l2) if options.penalise_bias else None
        if not np.isfinite(fitted.objective):
            raise DivergedError("training diverged: the loss is no longer finite; try a smaller --lr")

    # -- telling -------------------------------------------------------------------------------------------------------

    def _evaluated(self, h: int, fitted: Fitted, number: int) -> Event:
        """An evaluation: what is known of the head, and now and then its validation, which is measured for it."""
        assert fitted.objective is not None
        event = self._event(h, fitted, number, fitted.objective)
        event = event._replace(gradient_norm=fitted.gradient_norm, gap=fitted.gap)
        if self._validate and (fitted.stopped or number & (number - 1) == 0):  # at 1, 2, 4, 8, …
            fitted.validation = measured(self.data, fitted.params, fitted.options, "validation")
            event = event._replace(validation=score(fitted.validation))
        return event

    def _event(
        self,
        h: int,
        fitted: Fitted,
        number: int,
        objective: float,
        validation: float | None = None,
        *,
        epoch: bool = False,
    ) -> Event:
        return Event(
            head=h,
            number=number,
            epoch=epoch,
            objective=objective,
            gradient_norm=None,
            gap=None,
            validation=validation,
            seconds=time.perf_counter() - self.started,
            rows=self.rows,
            stopped=fitted.stopped,
        )


def group_size(outputs: int) -> int:
    """How many heads of K = ``outputs`` go together through the examples."""
    return max(1, STACKED // max(1, outputs))


def _take(fitted: Fitted, solvers: Heads, progress: Progress, objective: Objective) -> None:
    """Note what is known of a head now; when it is solved, its certificate."""
    solver, solved = solvers.solvers[progress.head], solvers.solved.get(progress.head)
    if solved is None:
        fitted.params = _unpacked(solver.x, objective)
        fitted.objective, fitted.gradient_norm, fitted.gap = progress.value, progress.gradient_norm, progress.gap
        fitted.evaluations, fitted.iterations = solver.evaluations, solver.iterations
    else:
        _take_certificate(fitted, solved.certificate, objective)
        fitted.evaluations = solved.evaluations + solved.certificate.evaluations
        fitted.iterations, fitted.stopped = solved.iterations, solved.stopped


def _take_certificate(fitted: Fitted, certificate: Certificate, objective: Objective) -> None:
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
