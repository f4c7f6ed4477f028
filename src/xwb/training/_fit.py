"""Training on people's files: heads swept and certified, the best one refitted, everything written down."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DivergedError, OptionError
from ..runs import Run
from ._certificate import Certificate, certify
from ._fit_options import FitOptions, decided, heads_of
from ._heads import Heads
from ._least_squares import NormalEquations
from ._metrics import ClassificationMetrics
from ._model import Model, network
from ._networks import Trainer, mean_loss, penalty
from ._objective import Head, Objective, head_loss
from ._parts import joined
from ._prepare import Prepared, prepare
from ._regression_metrics import RegressionMetrics
from ._rows import Part

STACKED = 32  # columns of all heads together up to which one product for all is faster than warm starts one by one
NAMES_KEPT = 1000  # feature names in run.json


class Event(NamedTuple):
    """What happened to one head: an evaluation of its objective, or an epoch."""

    head: int
    number: int  # of the evaluation or epoch
    epoch: bool
    objective: float
    gradient_norm: float | None
    gap: float | None
    validation: float | None  # accuracy or R², measured now and then
    seconds: float  # since the fit began
    rows: int  # read since the fit began
    stopped: str  # why the head is done; "" while it goes on


@dataclass
class Fitted:
    """One head: its options, and where it got."""

    options: FitOptions
    params: list[Array] = field(default_factory=list)
    objective: float | None = None
    gradient_norm: float | None = None
    gap: float | None = None
    evaluations: int = 0
    iterations: int = 0
    stopped: str = ""
    validation: dict[str, Any] | None = None

    @property
    def label(self) -> dict[str, Any]:
        """The options that a sweep varies."""
        return {name: getattr(self.options, name) for name in ("l2", "loss", "lr", "seed")}


class Fit:
    """One fit: what `fit` does, step by step.

    ::

        with prepare("features.npy", "labels.npy") as data:
            job = Fit(data, FitOptions(l2=1e-3))
            for event in job.run("runs/head"):
                print(event.objective, event.gap)

    Args:
        data: what `prepare` made of the files; a sweep needs a part for validation.
        options: how to train.

    Attributes:
        heads: a `Fitted` for every head of the sweep, or the one.
        best: the position of the chosen one in `heads`.
        final: the `Fitted` that is stored: the chosen one, refitted on train and validation after a sweep.
        metrics: by part, once `run` has ended.
        why: in a line why this solver.
        status: "new", "running", "finished" or "interrupted".

    Raises:
        OptionError: options that do not fit the data.
    """

    def __init__(self, data: Prepared, options: FitOptions | None = None) -> None:
        self.data, self.options = data, options or FitOptions()
        self.outputs = len(data.classes) or len(data.targets)
        if self.options.sweep and "validation" not in data.parts:
            raise OptionError("--sweep chooses by validation, and there is none; give a --holdout, such as 0.2")
        self.heads: list[Fitted] = []
        for one in heads_of(self.options):
            chosen, self.why = decided(one, data.task, len(data.feature_names), self.outputs)
            self.heads.append(Fitted(chosen))
        self.best = 0
        self.final = self.heads[0]
        self.metrics: dict[str, dict[str, Any]] = {}
        self.status = "new"
        self._started = time.perf_counter()
        self._rows = 0

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(
        self,
        out: str | os.PathLike[str],
        *,
        record: Mapping[str, Any] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Train, and write the run folder ``out``; yields an event per evaluation or epoch.

        Leaving the loop early ends the run as ``stop`` does: with what was reached, and status ``"interrupted"``.

        Args:
            out: the folder; one that holds a run is overwritten.
            record: more for ``run.json``.
            stop: asked after every evaluation and step; True ends the training.

        Raises:
            RunError: ``out`` is no run and not empty, is being written by another, or cannot be written.
            DivergedError: no head has a finite loss; what this run had written is removed.
        """
        run = Run.create(out, self._record(record or {}))
        self.status, self._started, self._rows = "running", time.perf_counter(), 0
        try:
            try:
                for event in self._events(stop):
                    run.add_metrics(_as_json(event))
                    yield event
                self.status = "interrupted" if stop() else "finished"
            except (GeneratorExit, KeyboardInterrupt):
                self.status = "interrupted"
                self._finish(run)
                raise
            self._finish(run)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException:
            run.discard()
            raise
        finally:
            run.close()

    def _events(self, stop: Callable[[], bool]) -> Iterator[Event]:
        train = self.data.parts["train"]
        by_loss: dict[tuple[str | None, str], list[int]] = {}
        for h, head in enumerate(self.heads):
            by_loss.setdefault((head.options.loss, head.options.solver), []).append(h)
        for (_, solver), members in by_loss.items():
            minimise = self._convex if solver in ("lbfgs", "normal") else self._by_epochs
            yield from minimise(members, train, stop)
            if stop():
                break
        self._choose()
        self.final = self.heads[self.best]
        if len(self.heads) > 1 and not stop():
            yield from self._refitted(stop)

    def _refitted(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """The chosen head once more, on train and validation together."""
        self.final = Fitted(self.heads[self.best].options, self.heads[self.best].params)
        self.heads.append(self.final)  # for as long as it is trained
        try:
            part = joined(self.data.parts["train"], self.data.parts["validation"])
            minimise = self._convex if self.final.options.solver in ("lbfgs", "normal") else self._by_epochs
            yield from minimise([len(self.heads) - 1], part, stop, refit=True)
        finally:
            self.heads.pop()

    # -- linear heads with a smooth loss -----------------------------------------------------------------------------

    def _convex(
        self, members: Sequence[int], part: Part, stop: Callable[[], bool], refit: bool = False
    ) -> Iterator[Event]:
        options = self.heads[members[0]].options
        assert options.loss is not None
        objective = Objective(part, options.loss, self.outputs, kind=options.kind, penalise_bias=options.penalise_bias)
        if options.solver == "normal":
            yield from self._solved(objective, members)
            return
        starts = [_packed(self.heads[h].params, objective) if self.heads[h].params else None for h in members]
        order = sorted(range(len(members)), key=lambda i: -self.heads[members[i]].options.l2)
        together = len(members) * self.outputs <= STACKED
        groups = [order] if together else [[i] for i in order]
        before: Array | None = None
        for group in groups:
            solvers = Heads(
                objective,
                [self.heads[members[i]].options.l2 for i in group],
                starts=[np.zeros(objective.size) if (s := starts[i]) is None else s for i in group]
                if together or before is None
                else [before],
                tolerance=options.tolerance,
                limit=options.max_evaluations,
            )
            for progress in solvers.run(stop):
                h = members[group[progress.head]]
                self._rows += part.rows if progress.head == solvers.first else 0
                fitted = self.heads[h]
                self._take(fitted, solvers, progress.head, objective)
                measured = None if refit else self._now_and_then(fitted, progress.evaluation, bool(progress.done))
                yield self._event(
                    h,
                    progress.evaluation,
                    False,
                    progress.value,
                    progress.gradient_norm,
                    fitted.gap,
                    measured,
                    progress.done,
                )
            before = solvers.solvers[0].x
            if stop():
                return

    def _take(self, fitted: Fitted, solvers: Heads, h: int, objective: Objective) -> None:
        """What is known of a head now; when it is solved, its certificate."""
        solver, solved = solvers.solvers[h], solvers.solved.get(h)
        if solved is None:
            fitted.params = _unpacked(solver.x, objective)
            fitted.objective, fitted.gradient_norm = solver.value, float(np.linalg.norm(solver.gradient))
            fitted.gap = objective.gap(solver.gradient, fitted.options.l2)
            fitted.evaluations, fitted.iterations = solver.evaluations, solver.iterations
        else:
            self._certified(fitted, solved.certificate, objective)
            fitted.evaluations = solved.evaluations + solved.certificate.evaluations
            fitted.iterations, fitted.stopped = solved.iterations, solved.stopped

    def _certified(self, fitted: Fitted, certificate: Certificate, objective: Objective) -> None:
        fitted.params = _unpacked(certificate.head.point, objective)
        fitted.objective, fitted.gap = certificate.value, certificate.gap
        fitted.gradient_norm, fitted.evaluations = certificate.gradient_norm, certificate.evaluations

    def _solved(self, objective: Objective, members: Sequence[int]) -> Iterator[Event]:
        equations = NormalEquations(objective)
        self._rows += objective.part.rows
        for h in members:
            fitted = self.heads[h]
            l2 = fitted.options.l2
            self._certified(fitted, certify(objective, Head(equations.solve(l2), l2)), objective)
            self._rows += fitted.evaluations * objective.part.rows
            fitted.iterations, fitted.stopped = 1, "solved"
            assert fitted.objective is not None
            measured = self._now_and_then(fitted, 1, True)
            yield self._event(h, 1, False, fitted.objective, fitted.gradient_norm, fitted.gap, measured, fitted.stopped)

    # -- mini-batches --------------------------------------------------------------------------------------------------

    def _by_epochs(
        self, members: Sequence[int], part: Part, stop: Callable[[], bool], refit: bool = False
    ) -> Iterator[Event]:
        for h in members:
            fitted = self.heads[h]
            trainer = Trainer(part, fitted.options, self.outputs)
            best: tuple[float, float] | None = None
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # DivergedError says it, once
                    for epoch in trainer.run(stop):
                        self._rows += part.rows
                        value = epoch.loss + penalty(epoch.params, fitted.options)
                        measured = None if refit else self._measured(epoch.params, fitted.options, "validation")
                        key = _key(measured) if measured else (float(epoch.number), 0.0)
                        if best is None or key > best:
                            best, fitted.params = key, [array.copy() for array in epoch.params]
                            fitted.validation = measured
                        last = not epoch.whole or epoch.number == fitted.options.epochs
                        fitted.stopped = "epochs" if last else ""
                        yield self._event(h, epoch.number, True, value, None, None, _score(measured), fitted.stopped)
            except DivergedError:
                if len(self.heads) == 1:
                    raise
                fitted.stopped, fitted.params, fitted.validation = "diverged", [], None
                yield self._event(h, 0, True, float("inf"), None, None, None, "diverged")
                continue
            self._value(fitted, part)
            if stop():
                return

    def _value(self, fitted: Fitted, part: Part) -> None:
        """The objective of what was kept; certified where it is a linear head and the loss smooth."""
        options = fitted.options
        assert options.loss is not None
        if not options.hidden:
            objective = Objective(
                part, options.loss, self.outputs, kind=options.kind, penalise_bias=options.penalise_bias
            )
            (found,) = objective.evaluate([Head(_packed(fitted.params, objective), options.l2)], np.float64)
            fitted.objective, fitted.gradient_norm = found.value, float(np.linalg.norm(found.gradient))
            fitted.gap = objective.gap(found.gradient, options.l2) if options.penalise_bias else None
            return
        net = network(len(fitted.params) // 2, options.activation)
        loss = mean_loss(net, fitted.params, part, head_loss(options.loss, options.kind))
        fitted.objective = loss + penalty(fitted.params, options)

    # -- measuring and choosing --------------------------------------------------------------------------------------

    def _now_and_then(self, fitted: Fitted, evaluation: int, done: bool) -> float | None:
        """The validation metric at the evaluations 1, 2, 4, 8, … and at the end."""
        if "validation" not in self.data.parts or not (done or evaluation & (evaluation - 1) == 0):
            return None
        fitted.validation = self._measured(fitted.params, fitted.options, "validation")
        return _score(fitted.validation)

    def _measured(self, params: list[Array], options: FitOptions, part: str) -> dict[str, Any] | None:
        """The metrics of parameters on a part, None where there is no such part."""
        if part not in self.data.parts:
            return None
        metrics: ClassificationMetrics | RegressionMetrics = (
            ClassificationMetrics(self.outputs, probabilities=options.loss == "softmax")
            if self.data.task == "classification"
            else RegressionMetrics(self.outputs)
        )
        net = network(len(params) // 2, options.activation)
        weighted = self.data.weighted
        for rows in self.data.parts[part].blocks():
            scores = net.forward(rows.X.astype(params[0].dtype, copy=False), *params)[0]
            weight = rows.weight if weighted else None
            if weight is not None and self.data.class_weights is not None:
                weight = weight / self.data.class_weights[rows.y]
            metrics.add(scores, rows.y, weight)
        return metrics.result()

    def _choose(self) -> None:
        """The head with the best validation metric; of equal ones the more strongly penalised.

        Raises:
            DivergedError: every head diverged.
        """
        alive = [h for h, head in enumerate(self.heads) if head.params]
        if not alive:
            raise DivergedError("training diverged: no head has a finite loss; try a smaller --lr")
        if len(self.heads) > 1:
            self.best = max(
                (h for h in alive if self.heads[h].validation),
                key=lambda h: (_key(self.heads[h].validation or {}), self.heads[h].options.l2),
                default=alive[0],
            )

    def model(self) -> Model:
        """The final head with what it needs to read files."""
        data, options = self.data, self.final.options
        assert options.loss is not None
        return Model(
            self.final.params,
            loss=options.loss,
            task=data.task,
            columns=data.features,
            mean=data.mean,
            scale=data.scale,
            classes=data.classes,
            targets=data.targets if data.task == "regression" else (),
            activation=options.activation,
            kind=options.kind,
            fingerprint=data.fingerprint,
            dtypes=data.dtypes,
        )

    # -- writing it down -----------------------------------------------------------------------------------------------

    def _event(
        self,
        head: int,
        number: int,
        epoch: bool,
        objective: float,
        gradient_norm: float | None,
        gap: float | None,
        validation: float | None,
        stopped: str,
    ) -> Event:
        seconds = time.perf_counter() - self._started
        return Event(head, number, epoch, objective, gradient_norm, gap, validation, seconds, self._rows, stopped)

    def _finish(self, run: Run) -> None:
        seconds = time.perf_counter() - self._started
        if not self.final.params:  # interrupted before anything was reached
            self._choose()
            self.final = self.heads[self.best]
        self.metrics = {
            part: found
            for part in self.data.parts
            if (found := self._measured(self.final.params, self.final.options, part)) is not None
        }
        if len(self.heads) > 1 and (before := self.heads[self.best].validation) is not None:
            self.metrics["validation"] = before  # the final head has learnt from these rows
        self.model().save(run)
        final, options = self.final, self.final.options
        run.save_record(
            status=self.status,
            fit={
                "objective": final.objective,
                "gap": final.gap,
                "gradient_norm": final.gradient_norm,
                "seconds": round(seconds, 3),
                "evaluations": final.evaluations,
                "iterations": final.iterations,
                "solver": options.solver,
                "loss": options.loss,
                "l2": options.l2,
                "why": self.why,
                "stopped": final.stopped or "interrupted",
                "peak_memory": peak_memory(),
            },
            sweep=self._sweep() if len(self.heads) > 1 else None,
            metrics=self.metrics,
        )

    def _sweep(self) -> dict[str, Any]:
        return {
            "grid": {name: list(values) for name, values in self.options.sweep.items()},
            "chosen": self.best,
            "heads": [
                {
                    **head.label,
                    "objective": head.objective,
                    "gap": head.gap,
                    "evaluations": head.evaluations,
                    "stopped": head.stopped or "interrupted",
                    "metrics": {"validation": head.validation} if head.validation else {},
                }
                for head in self.heads
            ],
        }

    def _record(self, more: Mapping[str, Any]) -> dict[str, Any]:
        from importlib.metadata import version  # slow to load, and only a record wants it

        data = self.data
        return {
            "job": "fit",
            "command": [],
            "seed": self.options.seed,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **more,
            "options": {**self.options.as_record(), **more.get("options", {})},
            "data": {
                "source": [],
                **more.get("data", {}),
                "rows": sum(part.rows for part in data.parts.values()),
                "parts": {name: part.rows for name, part in data.parts.items()},
                "features": len(data.feature_names),
                "feature_names": data.feature_names[:NAMES_KEPT],
                "dtypes": data.dtypes,
                "task": data.task,
                "classes": data.classes,
                "targets": data.targets,
                "class_counts": data.class_counts,
                "fingerprint": data.fingerprint,
                "notes": data.notes,
                "streamed": data.streamed,
            },
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("xwb", "numpy", "scipy", "safetensors")},
            },
            "platform": platform.platform(),
        }


def fit(
    source: Any,
    target: Any,
    *,
    out: str | os.PathLike[str] = "runs/fit",
    options: FitOptions | None = None,
    features: Sequence[str] | None = None,
    weights: Any = None,
    groups: Any = None,
    task: str | None = None,
    test: Any = None,
    holdout: float = 0.2,
    standardise: bool = True,
    class_weight: str | None = None,
    memory: int | None = None,
    scratch: Any = None,
    **chosen: Any,
) -> Run:
    """Train a linear head or a small network on a file or arrays, and write a run folder: ``xwb train`` from Python.

    ::

        run = fit("features.npy", "labels.npy", l2=1e-3, out="runs/head")
        run.record["fit"]["gap"], run.record["metrics"]["validation"]["accuracy"]

    Args:
        source, target, features, weights, groups, task, test, holdout, standardise, class_weight, memory, scratch: as
            `prepare` takes them; the seed of the split is that of the options.
        out: the run folder; one that holds a run is overwritten.
        options: how to train; or give its fields by name, ``l2=1e-3, sweep={"l2": [1e-4, 1e-2]}``.

    Returns:
        the run: its ``record`` is what ``run.json`` holds, and `Model.load` takes it.

    Raises:
        OptionError, DataError, RunError, DivergedError: as `prepare`, `FitOptions` and `Fit.run`.
    """
    if options is not None and chosen:
        raise OptionError(f"fit takes options=, or {', '.join(chosen)} by name, not both")
    options = options or FitOptions(**chosen)
    data = prepare(
        source,
        target,
        features=features,
        weights=weights,
        groups=groups,
        task=task,
        test=test,
        holdout=holdout,
        seed=options.seed,
        standardise=standardise,
        class_weight=class_weight,
        memory=memory,
        scratch=scratch,
    )
    more = {
        "options": {"target": described(target), "holdout": holdout, "standardise": standardise, "memory": memory},
        "data": {"source": described_all(source)},
    }
    with data:
        for _ in Fit(data, options).run(out, record=more):
            pass
    return Run.open(out)


def described(given: Any) -> Any:
    """A column, a list of columns or a path as text; arrays as their shape."""
    if given is None or isinstance(given, str | int | float):
        return given
    if isinstance(given, os.PathLike):
        return os.fspath(given)
    if isinstance(given, list | tuple) and all(isinstance(one, str | Path) for one in given):
        return [str(one) for one in given]
    return f"array {np.shape(given)}"


def described_all(source: Any) -> list[str]:
    """`described` of each file."""
    found = described(source)
    return [str(one) for one in found] if isinstance(found, list) else [str(found)]


def peak_memory() -> int | None:
    """The largest resident size of this process so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _packed(params: list[Array], objective: Objective) -> Array:
    point = np.empty(objective.size)
    W, b = objective.unpacked(point)
    W[...], b[...] = params
    return point


def _unpacked(point: Array, objective: Objective) -> list[Array]:
    return [array.copy() for array in objective.unpacked(point)]


def _score(metrics: Mapping[str, Any] | None) -> float | None:
    """The number that a line of progress shows."""
    if metrics is None:
        return None
    found: float | None = metrics.get("accuracy", metrics.get("r2"))
    return found


def _key(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """What the best is the largest by: accuracy, then the logarithm of the loss; of numbers their error alone."""
    if "accuracy" in metrics:
        return metrics["accuracy"] or 0.0, -(metrics.get("log_loss") or 0.0)
    return -float(metrics["rmse"]), 0.0


def _as_json(event: Event) -> dict[str, Any]:
    def finite(value: float | None) -> float | None:
        return value if value is not None and np.isfinite(value) else None

    return {
        "epoch" if event.epoch else "evaluation": event.number,
        "head": event.head,
        "objective": finite(event.objective),
        "gradient_norm": finite(event.gradient_norm),
        "gap": finite(event.gap),
        "validation": None if event.validation is None else {"score": event.validation},
        "seconds": round(event.seconds, 4),
        "stopped": event.stopped,
    }
