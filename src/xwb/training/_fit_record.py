"""What a fit leaves in run.json and metrics.jsonl."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ._environment import peak_memory, versions
from ._fit_options import FitOptions
from ._fitted import Event, Fitted
from ._prepare import Prepared

NAMES_KEPT = 1000  # feature names in run.json


def begun(data: Prepared, options: FitOptions, more: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that begins; ``more`` adds to it, and to its options and data."""
    return {
        "job": "fit",
        "command": [],
        "seed": options.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
        "options": {**options.as_record(), **more.get("options", {})},
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
            "weighted": data.weighted,
            "fingerprint": data.fingerprint,
            "notes": data.notes,
            "streamed": data.streamed,
        },
        "versions": versions(),
        "platform": platform.platform(),
    }


def used(final: Fitted) -> dict[str, Any]:
    """The options that were decided or swept, as the head that is stored has them."""
    return {name: getattr(final.options, name) for name in ("loss", "l2", "solver", "lr")}


def ended(final: Fitted, seconds: float) -> dict[str, Any]:
    """Where the head that is stored got."""
    options = final.options
    return {
        "objective": final.objective,
        "gap": _finite(final.gap),
        "gradient_norm": _finite(final.gradient_norm),
        "seconds": round(seconds, 3),
        "evaluations": final.evaluations,
        "iterations": final.iterations,
        "epoch": final.epoch,
        "solver": options.solver,
        "loss": options.loss,
        "l2": options.l2,
        "lr": options.lr,
        "why": final.why,
        "stopped": final.stopped or "interrupted",
        "peak_memory": peak_memory(),
    }


def swept(grid: Mapping[str, Sequence[Any]], heads: Sequence[Fitted], chosen: int) -> dict[str, Any]:
    """The heads of a sweep, and which was chosen."""
    return {
        "grid": {name: list(values) for name, values in grid.items()},
        "chosen": chosen,
        "heads": [
            {
                **head.label,
                "objective": head.objective,
                "gap": _finite(head.gap),
                "evaluations": head.evaluations,
                "stopped": head.stopped or "interrupted",
                "metrics": {"validation": _numbers(head.validation)} if head.validation else {},
            }
            for head in heads
        ],
    }


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is said of each class and each target, which only the chosen head has."""
    return {name: value for name, value in metrics.items() if not isinstance(value, list | dict)}


def line(event: Event, task: str) -> dict[str, Any]:
    """An event as a line of metrics.jsonl."""
    name = "accuracy" if task == "classification" else "r2"
    return {
        "epoch" if event.epoch else "evaluation": event.number,
        "head": event.head,
        "objective": _finite(event.objective),
        "gradient_norm": _finite(event.gradient_norm),
        "gap": _finite(event.gap),
        "validation": None if event.validation is None else {name: event.validation},
        "seconds": round(event.seconds, 4),
        "stopped": event.stopped,
    }


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


def _finite(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if value is not None and np.isfinite(value) else None
