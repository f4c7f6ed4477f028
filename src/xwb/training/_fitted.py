"""One head of a fit, and what is told of it while it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..core import Array
from ._fit_options import CONVEX, SWEPT, FitOptions


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
    why: str = ""  # this solver
    params: list[Array] = field(default_factory=list)
    objective: float | None = None
    gradient_norm: float | None = None
    gap: float | None = None
    evaluations: int = 0
    iterations: int = 0
    epoch: int | None = None  # whose parameters these are, of mini-batches
    stopped: str = ""
    validation: dict[str, Any] | None = None

    @property
    def label(self) -> dict[str, Any]:
        """The options that a sweep varies."""
        return {name: getattr(self.options, name) for name in SWEPT}

    @property
    def convex(self) -> bool:
        """Whether a solver for smooth convex functions trains it, and no mini-batches."""
        return self.options.solver in CONVEX
