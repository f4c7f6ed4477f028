"""The metrics of a fit as tables and charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..pages import table
from ._chart import Curve, line_chart, linear_axis
from ._fit_numbers import count, decimals, digits, percent
from ._matrix import confusion_table

PARTS = ("train", "validation", "test")
SPOKEN = {"train": "training", "validation": "validation", "test": "test"}
ROWS = 100  # classes or targets shown
MATRIX = 30  # classes up to which a confusion matrix can be read
Metrics = Mapping[str, dict[str, Any]]
Write = Callable[[Any], str]
# In the order of the table; those within calibration have its name before a dot.
TITLES: dict[str, tuple[str, Write]] = {
    "rows": ("rows", count),
    "accuracy": ("accuracy", percent),
    "top5": ("top-5 accuracy", percent),
    "balanced_accuracy": ("balanced accuracy", percent),
    "macro_f1": ("macro F1", percent),
    "log_loss": ("log loss", decimals),
    "calibration.brier": ("Brier score", decimals),
    "calibration.expected_calibration_error": ("calibration error", percent),
    "r2": ("R²", decimals),
    "mae": ("MAE", digits),
    "rmse": ("RMSE", digits),
    "max_error": ("max error", digits),
}


def decisive(metrics: Metrics) -> str:
    """The part that a verdict is about: the one that the fit saw least of."""
    return next(part for part in reversed(PARTS) if part in metrics)


def main_metric(result: Mapping[str, Any]) -> tuple[str, str, float | None]:
    """Name, words and value of what one asks for first."""
    key = "r2" if "r2" in result else "accuracy"
    title, write = TITLES[key]
    return title, write(result[key]), result[key]


def metrics_table(metrics: Metrics) -> list[str]:
    """A row for each metric, a column for each part."""
    parts = [part for part in PARTS if part in metrics]
    rows = []
    for key, (title, write) in TITLES.items():
        values = [_found(metrics[part], key) for part in parts]
        if any(there for there, _ in values):
            rows.append([title, *(write(value) for _, value in values)])
    return [table(["", *(SPOKEN[part] for part in parts)], rows, numbers=range(1, len(parts) + 1))]


def _found(result: Mapping[str, Any], key: str) -> tuple[bool, Any]:
    outer, _, inner = key.partition(".")
    value = result.get(outer)
    return (outer in result, value) if not inner else (bool(value), (value or {}).get(inner))


def each(metrics: Metrics, names: Sequence[str], weighted: bool = False) -> list[str]:
    """A table of the classes or the targets; of more than a hundred those of the lowest recall or R²."""
    part = decisive(metrics)
    result = metrics[part]
    columns: dict[str, tuple[str, Write]]
    if "per_class" in result:
        rows, one, key = result["per_class"], "class", "recall"
        columns = {"support": (_counted(weighted), count), **{n: (n, percent) for n in ("recall", "precision")}}
        columns["f1"] = ("F1", percent)
    elif "per_target" in result:
        rows, one, key = result["per_target"], "target", "r2"
        columns = {name: TITLES[name] for name in ("r2", "mae", "rmse", "max_error")}
    else:
        return []
    left = len(rows) - ROWS
    if left > 0:
        rows = sorted(rows, key=lambda row: (row[key] is None, row[key]))[:ROWS]
    cells = [[_name(names, row[one]), *(write(row[c]) for c, (_, write) in columns.items())] for row in rows]
    several = {"class": "classes", "target": "targets"}[one]
    more = f" The {ROWS} of the lowest {columns[key][0]} are shown; {left:,} {several} have none lower."
    return [
        '<div class="each">',
        table([one, *(title for title, _ in columns.values())], cells, numbers=range(1, len(columns) + 1)),
        "</div>",
        f"<figcaption>On the {SPOKEN[part]} rows.{more if left > 0 else ''}</figcaption>",
    ]


def _counted(weighted: bool) -> str:
    """The title of a column with numbers of rows, or the sums of their weights."""
    return "weight" if weighted else "rows"


def _name(names: Sequence[str], code: int) -> str:
    name = names[code] if code < len(names) else str(code)
    return name if len(name) <= 60 else f"{name[:59]}…"


def confusion(metrics: Metrics, names: Sequence[str], weighted: bool = False) -> list[str]:
    """The matrix of the part that a verdict is about, where the run stored it and there are not too many classes."""
    part = decisive(metrics)
    counts = metrics[part].get("confusion")
    if not counts or len(counts) > MATRIX:
        return []
    return [
        confusion_table(counts, [_name(names, code) for code in range(len(counts))]),
        f"<figcaption>Each row is what the {SPOKEN[part]} rows are, each column what the model said. Recall is the "
        f"share of a row on the diagonal.{' The numbers are sums of weights.' if weighted else ''}</figcaption>",
    ]


def calibration(metrics: Metrics, weighted: bool = False) -> list[str]:
    """The reliability diagram and its numbers."""
    part = decisive(metrics)
    found = metrics[part].get("calibration") or {}
    bins = found.get("bins")
    if not bins:
        return []
    axis = linear_axis(0, 1)
    confidence, accuracy = ([one[name] for one in bins] for name in ("confidence", "accuracy"))
    curves = [
        Curve("as sure as right", "even", (0, 1), (0, 1)),
        Curve("model", "validation", accuracy, dots=True),
    ]
    said = "; ".join(f"{percent(c)} sure, {percent(a)} right" for c, a in zip(confidence, accuracy, strict=True))
    chart = line_chart(
        "reliability",
        "How often the model is right, by how sure it is",
        f"Accuracy over mean confidence in {len(bins)} bins of the largest probability: {said}.",
        axis,
        axis,
        "largest probability",
        "share that is right",
        confidence,
        curves,
    )
    rows = [
        [
            f"{percent(b['low'])} – {percent(b['high'])}",
            count(b["count"]),
            percent(b["confidence"]),
            percent(b["accuracy"]),
        ]
        for b in bins
    ]
    return [
        '<div class="charts">',
        f"<figure>{chart}</figure>",
        table(["largest probability", _counted(weighted), "mean", "right"], rows, numbers=(1, 2, 3)),
        "</div>",
        f"<figcaption>The {SPOKEN[part]} rows by their largest probability; on the dotted line the model is right as "
        f"often as it says. Expected calibration error {percent(found.get('expected_calibration_error'))}: the mean "
        f"distance from that line, weighted by {'the weights of ' if weighted else ''}rows.</figcaption>",
    ]
