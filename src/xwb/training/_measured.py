"""How good parameters are on a part of prepared data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import Array
from ._fit_options import FitOptions
from ._metrics import ClassificationMetrics
from ._model import network
from ._prepare import Prepared
from ._regression_metrics import RegressionMetrics

MATRIX = 30  # classes up to which a confusion matrix is kept; more cannot be read


def measured(data: Prepared, params: Sequence[Array], options: FitOptions, part: str) -> dict[str, Any] | None:
    """The metrics of parameters on a part, None where there is no such part."""
    if part not in data.parts:
        return None
    metrics: ClassificationMetrics | RegressionMetrics = (
        ClassificationMetrics(len(data.classes), probabilities=options.loss == "softmax")
        if data.task == "classification"
        else RegressionMetrics(len(data.targets))
    )
    net = network(len(params) // 2, options.activation)
    for rows in data.parts[part].blocks():
        scores = net.forward(rows.X.astype(params[0].dtype, copy=False), *params)[0]
        weight = rows.weight if data.weighted else None
        if weight is not None and data.class_weights is not None:  # measured by the weights that were given
            weight = weight / data.class_weights[rows.y]
        metrics.add(scores, rows.y, weight)
    result = metrics.result()
    if isinstance(metrics, ClassificationMetrics) and metrics.confusion is not None and len(data.classes) <= MATRIX:
        result["confusion"] = metrics.confusion.tolist()
    return result


def score(metrics: Mapping[str, Any] | None) -> float | None:
    """The number that a line of progress shows: accuracy or R²."""
    if metrics is None:
        return None
    found: float | None = metrics.get("accuracy", metrics.get("r2"))
    return found


def order(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """What the best is the largest by: accuracy, then the logarithm of the loss; of numbers their error alone."""
    if "accuracy" in metrics:
        return metrics["accuracy"] or 0.0, -(metrics.get("log_loss") or 0.0)
    return -float(metrics["rmse"]), 0.0
