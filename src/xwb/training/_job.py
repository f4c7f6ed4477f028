"""The job ``xwb train digits``, for Python: the data split, the classifier trained, everything written down."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DivergedError, OptionError
from ..runs import Run
from ._classifier import LOSSES, Classifier, Score
from ._digits import CREDIT, as_features, load_digits, stratified_split
from ._environment import versions
from ._gradient_problem import GradientProblem, gradient_problem
from ._optim import SGD
from ._train import train


@dataclass(frozen=True)
class DigitsOptions:
    """What can be chosen. The defaults were chosen by the validation part alone, over seeds 0 to 4.

    Args:
        hidden: widths of the hidden layers; ``()`` is the bare linear classifier.
        loss: ``"softmax"`` or ``"svm"``.
        epochs: passes over the training part.
        lr: the learning rate of SGD at the start; it falls linearly to 0 over the run.
        momentum: its momentum, in [0, 1).
        weight_decay: its coupled weight decay: λ in the gradient's term λW, on weights and biases alike.
        max_norm: what the norm of the whole gradient is clipped to.
        batch: examples per step, at most 1,078.
        seed: draws the split, the first parameters and the order of the examples.

    Raises:
        OptionError: a value outside its range.
    """

    hidden: tuple[int, ...] = (128,)
    loss: str = "softmax"
    epochs: int = 100
    lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 3e-4
    max_norm: float = 1.0
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        def need(name: str, good: bool, what: str) -> None:
            if not good:
                raise OptionError(f"{name} must be {what}; got {getattr(self, name)}")

        need("hidden", all(1 <= width <= 65536 for width in self.hidden), "widths from 1 to 65536")
        need("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}")
        need("epochs", self.epochs >= 1, "at least 1")
        need("lr", 0 < self.lr < float("inf"), "a positive number")
        need("momentum", 0 <= self.momentum < 1, "at least 0 and below 1")
        need("weight_decay", 0 <= self.weight_decay < float("inf"), "zero or a positive number")
        need("max_norm", self.max_norm > 0, "a positive number")
        need("batch", self.batch >= 1, "at least 1")
        need("seed", self.seed >= 0, "zero or a positive whole number")


class Epoch(NamedTuple):
    """What is known when an epoch ends; number 0 is before the first step."""

    number: int
    steps: int  # since the start
    whole: bool  # False if training was stopped inside the epoch
    train: Score
    validation: Score
    best: bool  # the best validation accuracy so far (at equal accuracy the lower loss)
    seconds: float  # of training, since the start


class Part(NamedTuple):
    """Some of the examples: features X (N, 64) in float32, labels y (N,)."""

    X: Array
    y: Array


class DigitsJob:
    """One training job on the shipped digits.

    ::

        job = DigitsJob(DigitsOptions(seed=1))
        problem = job.gradient_problem()
        check = xwb.check(problem.layer, *problem.params, conduct=False)
        for epoch in job.run("runs/digits-seed1"):
            print(epoch.number, epoch.validation.accuracy)
        print(job.test.accuracy)

    Attributes:
        train, validation, test_part: the three parts of the data, a `Part` each.
        classifier: its parameters are the fresh ones until `run` ends, then the best ones.
        best: the `Epoch` that those parameters come from, once there is one.
        test: the `Score` on the test part, once `run` has ended; looked at once, for no choice.
        status: ``"new"``, ``"running"``, ``"finished"`` or ``"interrupted"``.

    Raises:
        OptionError: a batch larger than the training part.
    """

    def __init__(self, options: DigitsOptions | None = None) -> None:
        self.options = options or DigitsOptions()
        self.data = load_digits()
        self.split = stratified_split(self.data.labels, self.options.seed)
        X, y = as_features(self.data.images), self.data.labels.astype(np.intp)
        self.train, self.validation, self.test_part = (Part(X[rows], y[rows]) for rows in self.split)
        if self.options.batch > len(self.train.y):
            raise OptionError(
                f"batch must be at most {len(self.train.y)}, the training examples; got {self.options.batch}"
            )
        # One stream for the parameters and the order of examples; the split has its own.
        self._rng = np.random.default_rng([self.options.seed, 1])
        sizes = (X.shape[1], *self.options.hidden, int(y.max()) + 1)
        self.classifier = Classifier.fresh(sizes, self.options.loss, rng=self._rng)
        self.best: Epoch | None = None
        self.test: Score | None = None
        self.status = "new"

    def gradient_problem(self) -> GradientProblem:
        """The whole net with its loss, on a batch of training examples, as ``xwb.check`` takes it."""
        return gradient_problem(self.classifier, *self.train, seed=self.options.seed)

    def run(
        self,
        out: str | os.PathLike[str],
        *,
        command: Sequence[str] = (),
        gradient_check: Mapping[str, Any] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Epoch]:
        """Train, and write the run folder ``out``; yields each epoch when it is on disk.

        The parameters kept are those of the epoch with the best validation accuracy. Leaving the loop early (``break``)
        ends the run as ``stop`` does: with the best parameters so far, and status ``"interrupted"``.

        Args:
            out: the folder; one that holds a run is overwritten.
            command: the words that started the job, for the record.
            gradient_check: what it found, for the record; anything that JSON can hold.
            stop: asked after every step; True ends the training.

        Raises:
            RunError: ``out`` is no run and not empty, is being written by another, or cannot be written.
            DivergedError: the loss is no longer finite; what this run had written is removed.
        """
        run = Run.create(out, self._record(command, gradient_check))
        self.status, started = "running", time.perf_counter()
        best, status = self.classifier.params, "interrupted"

        def finish() -> None:
            self.classifier.params, self.status = best, status
            self._write_result(run, time.perf_counter() - started)

        try:
            for epoch in self._epochs(stop):
                run.add_metrics(_as_json(epoch))
                if epoch.best:
                    self.best, best = epoch, [array.copy() for array in self.classifier.params]
                yield epoch
            if epoch.whole and epoch.number == self.options.epochs:
                status = "finished"
            finish()
        except (GeneratorExit, KeyboardInterrupt):
            finish()
            raise
        except BaseException:
            run.discard()
            raise
        finally:
            run.close()

    def _epochs(self, stop: Callable[[], bool]) -> Iterator[Epoch]:
        options, classifier = self.options, self.classifier
        started = time.perf_counter()
        highest = (-1.0, 0.0)

        def measured(number: int, steps: int, whole: bool) -> Epoch:
            nonlocal highest
            seconds = time.perf_counter() - started
            train, validation = classifier.evaluate(*self.train), classifier.evaluate(*self.validation)
            if not np.isfinite([train.loss, validation.loss]).all():
                raise DivergedError("the loss is not finite")
            key = (validation.accuracy, -validation.loss)
            better, highest = key > highest, max(key, highest)
            return Epoch(number, steps, whole, train, validation, better, seconds)

        yield measured(0, 0, True)
        optimizer = SGD(
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            max_norm=options.max_norm,
        )
        records = train(
            classifier.net,
            classifier.params,
            *self.train,
            loss=LOSSES[options.loss],
            optimizer=optimizer,
            epochs=options.epochs,
            batch_size=options.batch,
            rng=self._rng,
        )
        total = options.epochs * -(-len(self.train.y) // options.batch)
        for number in range(1, options.epochs + 1):
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # DivergedError says it, once
                    for record in records:
                        optimizer.lr = options.lr * (1 - record.step / total)
                        if record.epoch_end or stop():
                            break
                    epoch = measured(number, record.step, record.epoch_end)
            except DivergedError as error:
                raise DivergedError(
                    f"training diverged in epoch {number}: the loss is no longer finite; try an lr below {options.lr:g}"
                ) from error
            yield epoch
            if stop():
                return

    def _write_result(self, run: Run, seconds: float) -> None:
        parts = {"train": self.train, "validation": self.validation, "test": self.test_part}
        scores = {name: self.classifier.evaluate(*part) for name, part in parts.items()}
        self.test = scores["test"]
        self.classifier.save(run)
        run.save_record(
            status=self.status,
            best_epoch=self.best.number if self.best else 0,
            training_seconds=round(seconds, 3),
            metrics={name: score._asdict() for name, score in scores.items()},
        )

    def _record(self, command: Sequence[str], gradient_check: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "job": "digits",
            "command": list(command),
            "options": asdict(self.options),
            "seed": self.options.seed,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {
                "name": "digits",
                "sha256": self.data.sha256,
                "examples": len(self.data.labels),
                "split": {name: len(rows) for name, rows in self.split._asdict().items()},
                "credit": CREDIT,
            },
            "versions": versions(),
            "platform": platform.platform(),
            "gradient_check": gradient_check,
        }


def _as_json(epoch: Epoch) -> dict[str, Any]:
    return {
        "epoch": epoch.number,
        "steps": epoch.steps,
        "whole": epoch.whole,
        "train": epoch.train._asdict(),
        "validation": epoch.validation._asdict(),
        "best": epoch.best,
        "seconds": round(epoch.seconds, 4),
    }
