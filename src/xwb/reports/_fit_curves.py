"""How a fit came near its optimum, and what the heads of a sweep reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..pages import table
from ._chart import Axis, Curve, line_chart, linear_axis, log_axis
from ._fit_metrics import SPOKEN, TITLES
from ._fit_numbers import count, digits, power_of_ten, small

POINTS = 400  # of a curve
TICKS = 8
AXES = ("l2", "lr")  # of a sweep's curve: the first that was varied
HEADS = 200  # rows of the table
Lines = Sequence[dict[str, Any]]


def convergence(record: Mapping[str, Any], lines: Lines) -> list[str]:
    """The distance from the optimum by evaluation or epoch, and what it did to the validation rows.

    Nothing where there is one point, as of a closed form.
    """
    chosen = (record.get("sweep") or {}).get("chosen")
    lines = [line for line in lines if chosen is None or line.get("head", chosen) == chosen]
    lines = [line for line in lines if line.get("objective") is not None]
    if len(lines) < 2:
        return []
    unit = "epoch" if "epoch" in lines[0] else "evaluation"
    lines = _thinned(lines)
    reached = record["fit"] if chosen is None else record["sweep"]["heads"][chosen]  # not the refitted head
    figures, key = _descent(reached, lines, unit)
    validation = _validation(lines, unit)
    figures += validation
    key += ", and how good the model was on the validation rows." if validation else "."
    which = " of the chosen head" if chosen is not None else ""
    if not figures:
        return [f"<p>{key}</p>"]
    return ['<div class="charts">', *figures, "</div>", f"<figcaption>{key} By {unit}{which}.</figcaption>"]


def _thinned(lines: Lines) -> Lines:
    """The first, the last and some between."""
    if len(lines) <= POINTS:
        return lines
    return [lines[round(i * (len(lines) - 1) / (POINTS - 1))] for i in range(POINTS)]


def _descent(fit: Mapping[str, Any], lines: Lines, unit: str) -> tuple[list[str], str]:
    steps = [line[unit] for line in lines]
    if fit.get("gap") is None:
        values = [line["objective"] for line in lines]
        said = f"From {digits(values[0])} to {digits(values[-1])}."
        curves = [Curve("objective", "validation", values, dots=len(lines) < 3)]
        chart = line_chart(
            "descent", "Objective", said, _steps(steps), _log(values), unit, "objective", steps, curves
        )  # fmt: skip
        return [f"<figure>{chart}</figure>"], "The objective"
    least = fit["objective"] - fit["gap"]  # no objective is below it
    curves = []
    for name, style, pairs in (
        ("gap", "train", [(line[unit], line.get("gap")) for line in lines]),
        ("distance", "validation", [(line[unit], line["objective"] - least) for line in lines]),
    ):
        seen = [(step, value) for step, value in pairs if value is not None and value > 0]
        if len(seen) > 1:
            curves.append(Curve(name, style, [v for _, v in seen], [s for s, _ in seen], dots=len(seen) < 3))
    if not curves:
        return [], "Fewer than two evaluations were measurably above the optimum"
    values = [value for curve in curves for value in curve.values]
    chart = line_chart(
        "descent",
        "Distance from the optimum",
        f"The objective minus a lower bound of its optimum, {digits(least)}; at the end {small(fit['gap'])}.",
        _steps(steps),
        _log(values),
        unit,
        "above the optimum, at most",
        steps,
        curves,
    )
    keys = {
        "distance": '<span class="key validation"></span> objective minus the last lower bound of the optimum',
        "gap": '<span class="key train"></span> gap between the objective and its lower bound as it was known then',
    }
    drawn = {curve.name for curve in curves}
    return [f"<figure>{chart}</figure>"], " &ensp; ".join(text for name, text in keys.items() if name in drawn)


def _validation(lines: Lines, unit: str) -> list[str]:
    figures = []
    measured = [line for line in lines if line.get("validation")]
    for name in ("accuracy", "r2", "loss"):
        seen = [(line[unit], line["validation"][name]) for line in measured if line["validation"].get(name) is not None]
        if len(seen) < 2:
            continue
        steps, values = [step for step, _ in seen], [value for _, value in seen]
        title = {"r2": "validation R²"}.get(name, f"validation {name}")
        chart = line_chart(
            f"validation-{name}",
            title.capitalize(),
            f"From {digits(values[0])} to {digits(values[-1])}.",
            _steps(steps),
            _share(values) if name == "accuracy" else _linear(values),
            unit,
            title,
            steps,
            [Curve(title, "validation", values, dots=len(seen) < 3)],
        )
        figures.append(f"<figure>{chart}</figure>")
    return figures


def sweep(record: Mapping[str, Any]) -> list[str]:
    """The table of the heads and, over l2 or the learning rate, what each reached."""
    tried = record.get("sweep")
    if not tried or not tried.get("heads"):
        return []
    heads, chosen = tried["heads"], tried["chosen"]
    varied = [name for name, values in tried["grid"].items() if len(values) > 1] or list(tried["grid"])
    return [*_sweep_charts(heads, chosen, varied), *_sweep_table(heads, chosen, varied)]


def _sweep_table(heads: Sequence[dict[str, Any]], chosen: int, varied: Sequence[str]) -> list[str]:
    measured = [part for part in ("validation", "train") if any(part in (h.get("metrics") or {}) for h in heads)]
    keys = [k for k in ("accuracy", "log_loss", "r2", "rmse") if any(k in _of(h, p) for h in heads for p in measured)]
    pairs = [(part, key) for part in measured for key in keys]
    header = ["", *varied, *(f"{SPOKEN[part]} {TITLES[key][0]}" for part, key in pairs)]
    ends = {"objective": digits, "gap": small, "evaluations": count}
    ends = {name: write for name, write in ends.items() if any(head.get(name) for head in heads)}
    header += [*ends, "stopped"]
    rows = []
    for i, head in enumerate(heads[:HEADS]):
        cells = ["chosen" if i == chosen else "", *(_value(head.get(name)) for name in varied)]
        cells += [TITLES[key][1](_of(head, part).get(key)) for part, key in pairs]
        cells += [write(head.get(name)) for name, write in ends.items()]
        rows.append([*cells, _value(head.get("stopped"))])
    left = len(heads) - HEADS
    more = [f"<figcaption>{left:,} more heads are in run.json.</figcaption>"] if left > 0 else []
    return ['<div class="heads">', table(header, rows, numbers=range(1, len(header) - 1)), "</div>", *more]


def _of(head: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (head.get("metrics") or {}).get(part) or {}
    return found


def _value(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _sweep_charts(heads: Sequence[dict[str, Any]], chosen: int, varied: Sequence[str]) -> list[str]:
    axis = next((name for name in AXES if name in varied), None)
    if axis is None:
        return []
    others = [name for name in varied if name != axis]
    best = heads[chosen]
    alike = [head for head in heads if all(head.get(name) == best.get(name) for name in others)]
    shown = sorted((head for head in alike if (head.get(axis) or 0) > 0), key=lambda head: head[axis])
    main = next((k for k in ("accuracy", "r2") if k in _of(best, "validation")), None)
    if main is None or sum(main in _of(head, "validation") for head in shown) < 2:
        return []
    keys = [main, *(k for k in ("log_loss", "rmse") if k in _of(best, "validation"))]
    figures = [f"<figure>{_sweep_chart(axis, key, shown, best)}</figure>" for key in keys]
    zero = f" The head with {axis} = 0 has no place on the axis." if len(shown) < len(alike) else ""
    fixed = ", ".join(f"{name} {_value(best.get(name))}" for name in others)
    all_have = f" All have {escape(fixed)}." if fixed else ""
    of_train = any(_of(head, "train") for head in shown)
    trained = ' &ensp; <span class="key train"></span> training rows' if of_train else ""
    return [
        '<div class="charts">',
        *figures,
        "</div>",
        f'<figcaption><span class="key validation"></span> validation rows{trained}; '
        f"the ring is the head that was chosen.{zero}{all_have}</figcaption>",
    ]


def _sweep_chart(axis: str, key: str, heads: Sequence[dict[str, Any]], best: Mapping[str, Any]) -> str:
    curves = []
    for part in ("train", "validation"):
        seen = [(head[axis], _of(head, part)[key]) for head in heads if _of(head, part).get(key) is not None]
        if seen:  # of the training rows, a sweep may have measured none
            curves.append(Curve(part, part, [v for _, v in seen], [x for x, _ in seen], dots=True))
    xs = [head[axis] for head in heads]
    values = [value for curve in curves for value in curve.values]
    title = f"{TITLES[key][0]} over {axis}"
    value = _of(best, "validation")[key]
    ringed = value is not None and (best.get(axis) or 0) > 0
    return line_chart(
        f"sweep-{key}",
        title[0].upper() + title[1:],
        f"Of {len(heads)} heads, {axis} from {xs[0]:g} to {xs[-1]:g}; chosen is {_value(best.get(axis))}, "
        f"with {TITLES[key][1](value)} on the validation rows.",
        _log(xs),
        _share(values) if key == "accuracy" else _linear(values),
        f"{axis} (logarithmic)",
        TITLES[key][0],
        xs,
        curves,
        (best[axis], value, f"{axis} {_value(best[axis])} chosen") if ringed else None,
    )


def _steps(steps: Sequence[float]) -> Axis:
    return linear_axis(min(0, steps[0]), max(1, steps[-1]), least=1)


def _log(values: Sequence[float]) -> Axis:
    """Logarithmic, with few enough ticks to be read; linear where a value is not positive."""
    if any(value <= 0 for value in values):
        return _linear(values)
    axis = log_axis(values)
    return _raised(axis._replace(ticks=axis.ticks[:: -(-len(axis.ticks) // TICKS)]))


def _linear(values: Sequence[float]) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * (high - low)
    return _raised(linear_axis(low - room, high + room))


def _raised(axis: Axis) -> Axis:
    return axis._replace(ticks=[(at, power_of_ten(label)) for at, label in axis.ticks])


def _share(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), 0.002)
    return linear_axis(max(0.0, low - room), min(1.0, high + room), unit=0.01, suffix=" %")
