"""What can be chosen for a fit, what of it is varied, and what is decided where nothing was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product as grid
from typing import Any

from ..core import OptionError, unknown
from ._least_squares import MOST_FEATURES
from ._model_checks import ACTIVATIONS
from ._objective import KINDS, LOSSES

SOLVERS = ("auto", "lbfgs", "normal", "sgd", "adam")
CONVEX = ("lbfgs", "normal")  # solvers of smooth convex functions, which draw nothing
SWEPT = ("l2", "loss", "lr", "seed")
LISTS = {  # what to write in Python
    "l2": "numpy.geomspace(1e-3, 1, 3).tolist()",
    "loss": '["softmax", "squared_hinge"]',
    "lr": "[1e-3, 1e-2]",
    "seed": "[0, 1, 2]",
}
USUAL_LR = {"sgd": 0.1, "adam": 1e-3}
MOST_HEADS = 1000


@dataclass(frozen=True)
class FitOptions:
    """How heads and small networks are trained.

    Args:
        loss: ``"softmax"``, ``"squared_hinge"``, ``"hinge"`` or ``"squared_error"``; None: softmax for classes, squared
            error for numbers.
        kind: of the hinges: ``"weston_watkins"`` (sum over the wrong classes) or ``"crammer_singer"`` (their worst).
        l2: λ of the penalty λ/2 ‖W‖².
        penalise_bias: the penalty counts the bias too.
        hidden: widths of hidden layers; ``()`` is a linear head.
        activation: between linear layers.
        solver: ``"lbfgs"``, ``"normal"`` (equations), ``"sgd"``, ``"adam"``, or ``"auto"``.
        lr: learning rate of sgd (None: 0.1) and adam (None: 0.001) at the start; it falls linearly to 0.
        epochs, batch: of sgd and adam: passes over the training rows, rows per step.
        tolerance: L-BFGS is done when its certified gap is at most this much of the objective.
        max_evaluations: of one head by L-BFGS.
        seed: draws parameters and the order of rows of sgd and adam.
        sweep: values to try by option, of ``l2``, ``loss``, ``lr`` and ``seed``; several make a grid.

    Raises:
        OptionError: a value outside its range.
    """

    loss: str | None = None
    kind: str = "weston_watkins"
    l2: float = 1e-4
    penalise_bias: bool = False
    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    solver: str = "auto"
    lr: float | None = None
    epochs: int = 30
    batch: int = 64
    tolerance: float = 1e-4
    max_evaluations: int = 1000
    seed: int = 0
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def need(name: str, good: bool, what: str) -> None:
            if not good:
                raise OptionError(f"--{name.replace('_', '-')} must be {what}; got {getattr(self, name)}")

        need("loss", self.loss is None or self.loss in LOSSES, f"one of {', '.join(LOSSES)}")
        need("kind", self.kind in KINDS, f"one of {', '.join(KINDS)}")
        need("l2", 0 <= self.l2 < math.inf, "zero or a positive number")
        need("hidden", all(1 <= width <= 65536 for width in self.hidden), "widths from 1 to 65536")
        need("activation", self.activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")
        need("solver", self.solver in SOLVERS, f"one of {', '.join(SOLVERS)}")
        need("lr", self.lr is None or 0 < self.lr < math.inf, "a positive number")
        need("epochs", self.epochs >= 1, "at least 1")
        need("batch", self.batch >= 1, "at least 1")
        need("tolerance", 0 < self.tolerance < 1, "between 0 and 1")
        need("max_evaluations", self.max_evaluations >= 1, "at least 1")
        need("seed", self.seed >= 0, "zero or a positive whole number")
        if not isinstance(self.sweep, Mapping):
            raise OptionError(f'sweep is a dict, such as  sweep={{"l2": [1e-4, 1e-3, 1e-2]}}; got {self.sweep!r}')
        for name, values in self.sweep.items():
            if name not in SWEPT:
                raise OptionError(f"--sweep varies {', '.join(SWEPT)}; got {name!r}{unknown(name, SWEPT)}")
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise OptionError(
                    f"sweep gives {name} a list of values, such as  sweep={{{name!r}: {LISTS[name]}}}; got {values!r}"
                )
            if not values:
                raise OptionError(f"--sweep {name} has no values")
        if math.prod(map(len, self.sweep.values())) > MOST_HEADS:
            raise OptionError(f"--sweep makes more than {MOST_HEADS:,} heads")

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> FitOptions:
        """The options that were given by name.

        Raises:
            OptionError: as the class, and for a name that is none.
        """
        known = [one.name for one in fields(cls)]
        for name in chosen:
            if name not in known:
                raise OptionError(
                    f"fit takes no option {name}{unknown(name, known)}; its options are {', '.join(known)}"
                )
        return cls(**chosen)

    def check_holdout(self, holdout: float) -> None:
        """Raise `OptionError` for a sweep without rows to choose by."""
        if self.sweep and not holdout:
            raise OptionError("--sweep chooses by validation, and there is none; give a --holdout, such as 0.2")

    def single(self, **values: Any) -> FitOptions:
        """The options of one head of the sweep."""
        return replace(self, sweep={}, **values)

    @property
    def smaller_lr(self) -> float:
        """Of decided options: what to try after a rate that was too large, a tenth and at most the usual one."""
        assert self.lr is not None
        return min(self.lr / 10, USUAL_LR[self.solver])

    def as_record(self) -> dict[str, Any]:
        """For ``run.json``."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return plain | {"hidden": list(self.hidden), "sweep": {name: list(v) for name, v in self.sweep.items()}}


def heads_of(options: FitOptions) -> list[FitOptions]:
    """The options of every head: one, or the grid of the sweep in the order given."""
    names = list(options.sweep)
    return [options.single(**dict(zip(names, values, strict=True))) for values in grid(*options.sweep.values())]


def all_decided(options: FitOptions, task: str, features: int, outputs: int) -> list[tuple[FitOptions, str]]:
    """`decided` of every head.

    Raises:
        OptionError: as `decided`, and where a sweep varies what no head makes use of.
    """
    heads = [decided(one, task, features, outputs) for one in heads_of(options)]
    idle = [name for name in ("lr", "seed") if name in options.sweep]
    if idle and all(head.solver in CONVEX for head, _ in heads):
        raise OptionError(
            f"--sweep {idle[0]} changes nothing, since the solver is {heads[0][0].solver}; sweep l2, or type  "
            "--solver adam"
        )
    return heads


def decided(options: FitOptions, task: str, features: int, outputs: int) -> tuple[FitOptions, str]:
    """The options with loss, solver and learning rate chosen, and in a line why that solver.

    Args:
        task: ``"classification"`` or ``"regression"``.
        features, outputs: D, and K classes or targets.

    Raises:
        OptionError: a loss that is for the other task, or a solver that cannot minimise it.
    """
    loss = options.loss or ("softmax" if task == "classification" else "squared_error")
    if (loss == "squared_error") != (task == "regression"):
        what = "numbers" if task == "regression" else "classes"
        raise OptionError(
            f"--loss {loss} does not fit a target of {what}; --task says what the target is, where xwb guessed wrong"
        )
    kinked = loss == "hinge" or (loss == "squared_hinge" and options.kind == "crammer_singer" and outputs > 2)
    solver, why = options.solver, f"{options.solver}, as asked"
    if solver == "auto":
        solver, why = _automatic(loss, bool(options.hidden), kinked, features)
    elif solver in CONVEX:
        if options.hidden:
            raise OptionError(f"--solver {solver} is for linear heads; networks take --solver adam or sgd")
        if solver == "normal" and loss != "squared_error":
            raise OptionError(f"--solver normal is for squared error; for {loss} take --solver lbfgs")
        if solver == "lbfgs" and kinked:
            raise OptionError(f"--solver lbfgs needs a smooth loss, and {loss} has kinks; take --solver adam or sgd")
    lr = options.lr or USUAL_LR.get(solver)
    return replace(options, loss=loss, solver=solver, lr=lr), why


def _automatic(loss: str, hidden: bool, kinked: bool, features: int) -> tuple[str, str]:
    if hidden:
        return "adam", "adam: a network has no closed form and no certificate, so mini-batches"
    if kinked:
        return "adam", f"adam: {loss} has kinks, where L-BFGS would stall, so mini-batches"
    if loss == "squared_error" and features <= MOST_FEATURES:
        return "normal", f"normal equations: squared error over {features:,} features is solved in one pass"
    return "lbfgs", f"lbfgs: {loss} over a linear head is smooth and convex, so it converges to a certified gap"
