"""Training on people's files: heads swept and certified, the best one refitted, everything written down."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..core import DivergedError, OptionError
from ..runs import Run, refuse_foreign
from ._fit_options import FitOptions, all_decided
from ._fit_record import begun, described, described_all, ended, line, swept, used
from ._fitted import Event, Fitted
from ._measured import measured, order
from ._minimise import Minimiser
from ._model import Model
from ._parts import joined
from ._prepare import Prepared, prepare
from ._working_set import working_set


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
        refitted: whether it was.
        metrics: by part, once `run` has ended; of a refitted head those of validation are from before.
        status: "new", "running", "finished" or "interrupted".

    Raises:
        OptionError: options that do not fit the data.
    """

    def __init__(self, data: Prepared, options: FitOptions | None = None) -> None:
        self.data, self.options = data, options or FitOptions()
        self.outputs = len(data.classes) or len(data.targets)
        self.options.check_holdout(float("validation" in data.parts))
        heads = all_decided(self.options, data.task, len(data.feature_names), self.outputs)
        self.heads = [Fitted(*head) for head in heads]
        self.best = 0
        self.final = self.heads[0]
        self.refitted = False
        self.metrics: dict[str, dict[str, Any]] = {}
        self.status = "new"
        self._trained = False  # to the end, the refit too
        self._lines: list[dict[str, Any]] = []
        self._noted = 0.0

    def run(
        self,
        out: str | os.PathLike[str],
        *,
        record: Mapping[str, Any] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Train, and write the run folder ``out``; yields an event per evaluation or epoch.

        Leaving the loop early ends the run as ``stop`` does: with what was reached, and status ``"interrupted"``. What
        comes when nothing is left to train interrupts nothing: the run is written, and is ``"finished"``.

        Args:
            out: the folder; one that holds a run is overwritten.
            record: more for ``run.json``.
            stop: asked after every evaluation and step; True ends the training.

        Raises:
            RunError: ``out`` is no run and not empty, is being written by another, or cannot be written.
            DivergedError: no head has a finite loss; what this run had written is removed.
        """
        run = Run.create(out, begun(self.data, self.options, record or {}))
        self.status, whole = "running", False
        self._trained, self._lines, self._noted = False, [], time.monotonic()
        minimiser = Minimiser(self.data, self.outputs, stop)
        try:
            try:
                for event in self._events(minimiser):
                    self._note(run, event)
                    yield event
                self._finish(run, minimiser)
                whole = True
            except (GeneratorExit, KeyboardInterrupt):
                self.status = "interrupted"  # with nothing reached; of the rest `_finish` judges
                if any(head.params for head in self.heads):
                    self._finish(run, minimiser)
                    whole = True
                raise
        finally:
            if not whole:
                run.discard()
            run.close()

    def _note(self, run: Run, event: Event) -> None:
        """Put the event into ``metrics.jsonl``: on disk within a second, or when a head is done."""
        self._lines.append(line(event, self.data.task))
        if event.stopped or time.monotonic() - self._noted > 1.0:
            self._write_lines(run)

    def _write_lines(self, run: Run) -> None:
        run.add_metrics(*self._lines)
        self._lines, self._noted = [], time.monotonic()

    def _events(self, minimiser: Minimiser) -> Iterator[Event]:
        """Train the heads, those of one loss and solver together, then refit the best of several."""
        alike: dict[tuple[str | None, str], dict[int, Fitted]] = {}
        for h, head in enumerate(self.heads):
            alike.setdefault((head.options.loss, head.options.solver), {})[h] = head
        for heads in alike.values():
            yield from minimiser.train(heads, self.data.parts["train"])
            if minimiser.stop():
                break
        if len(self.heads) == 1:
            self._trained = bool(self.heads[0].stopped)
        elif not minimiser.stop():
            self._choose()
            yield from self._refit(minimiser)
            self._trained = self.refitted or not minimiser.stop()

    def _refit(self, minimiser: Minimiser) -> Iterator[Event]:
        """The chosen head once more, on train and validation together; its position is after the last."""
        chosen = self.heads[self.best]
        again = Fitted(chosen.options, chosen.why, chosen.params)
        part = joined(self.data.parts["train"], self.data.parts["validation"])
        try:
            yield from minimiser.train({len(self.heads): again}, part, validate=False)
        except DivergedError:  # the chosen head did not
            return
        if again.stopped:  # else it was interrupted, and the chosen head is further
            self.final, self.refitted = again, True

    def _choose(self) -> None:
        """The head with the best validation metric; of equal ones the more strongly penalised.

        Raises:
            DivergedError: every head diverged.
        """
        alive = [h for h, head in enumerate(self.heads) if head.params]
        if not alive:
            smaller = "smaller values in  --sweep lr" if "lr" in self.options.sweep else "a smaller --lr"
            raise DivergedError(
                f"training diverged: no head has a finite loss, since the steps are too large; try {smaller}"
            )
        compared = [h for h in alive if self.heads[h].validation]
        same_loss = len({self.heads[h].options.loss for h in compared}) <= 1

        def rank(h: int) -> tuple[float, float, float]:
            first, second = order(self.heads[h].validation or {})
            return first, second if same_loss else 0.0, self.heads[h].options.l2

        self.best = max(compared, key=rank) if len(self.heads) > 1 and compared else alive[0]
        self.final = self.heads[self.best]

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
            fingerprint=data.own_fingerprint,
            dtypes=data.dtypes,
        )

    def _finish(self, run: Run, minimiser: Minimiser) -> None:
        """Measure on every part, and write down the model and what became of it."""
        seconds = time.perf_counter() - minimiser.started
        self.status = "finished" if self._trained else "interrupted"
        self._write_lines(run)
        for head in self.heads:
            if not head.stopped:  # the bias is not at its minimum yet, and without that the gap bounds nothing
                head.gap = None
        if not self.refitted:
            self._choose()
        self.metrics = {
            part: found
            for part in self.data.parts
            if (found := measured(self.data, self.final.params, self.final.options, part)) is not None
        }
        if self.refitted and (before := self.heads[self.best].validation) is not None:
            self.metrics["validation"] = before  # the final head has learnt from these rows
        self.model().save(run)
        run.save_record(
            status=self.status,
            options=run.record["options"] | used(self.final),
            fit=ended(self.final, seconds) | {"refitted": self.refitted},
            sweep=swept(self.options.sweep, self.heads, self.best) if len(self.heads) > 1 else None,
            metrics=self.metrics,
        )


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
    options = options or FitOptions.of(chosen)
    options.check_holdout(holdout)
    refuse_foreign(Path(out))
    more = {
        "options": {
            "target": described(target),
            "weights": described(weights),
            "holdout": holdout,
            "standardise": standardise,
            "memory": memory,
        },
        "data": {"source": described_all(source)},
    }
    with prepare(
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
        working=partial(working_set, options),
    ) as data:
        for _ in Fit(data, options).run(out, record=more):
            pass
    return Run.open(out)
