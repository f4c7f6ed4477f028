"""The report of a run of ``xwb train FILE``, from its folder alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..core import RunError
from ..pages import facts, section
from ..runs import Run
from ._fit_curves import convergence, sweep
from ._fit_metrics import PARTS, SPOKEN, calibration, confusion, decisive, each, main_metric, metrics_table
from ._fit_numbers import bytes_said, digits, seconds, small
from ._run_page import results, run_page, written

LONG = 60  # letters of a name
NAMES_SHOWN = 12  # of features, and of classes with their counts
LOSSES = {
    "softmax": "softmax cross-entropy",
    "squared_hinge": "the squared multiclass hinge",
    "hinge": "the multiclass hinge",
    "squared_error": "squared error",
}
STOPPED = {
    "gap": "at the tolerance",
    "solved": "solved in closed form",
    "flat": "where the gradient is nearly 0",
    "noise floor": "where float32 rounding hides further progress",
    "limit": "at the limit of evaluations",
    "epochs": "after the last epoch",
}


def write_fit_report(run: Run | str | os.PathLike[str]) -> Path:
    """Write ``report.html`` of a run of ``xwb train FILE`` and return its path.

    Raises:
        RunError: the folder is no run of this job with results, or it cannot be written.
    """
    return written(run, render_fit_report)


def render_fit_report(run: Run) -> str:
    """The page as text, from ``run.json`` and ``metrics.jsonl``.

    Raises:
        RunError: as `write_fit_report`.
    """
    record = results(run, "fit")
    try:
        return _page(record, run.metrics())
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{run.record_path} cannot be reported: {type(error).__name__} {error}") from error


def _page(record: Mapping[str, Any], lines: Sequence[dict[str, Any]]) -> str:
    data, options = record["data"], record["options"]
    names = [str(one) for one in data.get("classes") or data.get("targets") or []]
    weighted = bool(data.get("weighted"))
    title = f"{_target(options['target'], names)} from {data['features']:,} feature{'s' * (data['features'] != 1)}"
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_model(record, names))}</p>"]
    if record["status"] != "finished":
        body.append(
            f'<p class="notice">The fit was not finished; its status is {escape(str(record["status"]))}. '
            "The model is the best that was reached.</p>"
        )
    body += [f'<p class="verdict">{_verdict(record)}</p>', _headline(record)]
    parts = [
        ("Training" if record["fit"].get("gap") is None else "The way to the optimum", convergence(record, lines)),
        ("Heads that were tried", sweep(record)),
        ("How good it is", [*metrics_table(record["metrics"]), *_before(record), *_weights(record)]),
        ("Confusion", confusion(record["metrics"], names, weighted)),
        (f"Each {'class' if data.get('classes') else 'target'}", each(record["metrics"], names, weighted)),
        ("Calibration", calibration(record["metrics"], weighted)),
        ("How it was made", [_provenance(record, names)]),
    ]
    body += [section(heading, *content) for heading, content in parts if content]
    return run_page(title, body)


def _target(target: Any, names: Sequence[str]) -> str:
    """What is predicted, short enough for a heading."""
    words = [target] if isinstance(target, str) else list(target or names)
    text = ", ".join(map(str, words))
    return _short(text)


def _short(name: Any) -> str:
    return str(name) if len(str(name)) <= LONG else f"{str(name)[: LONG - 1]}…"


def _model(record: Mapping[str, Any], names: Sequence[str]) -> str:
    data, options = record["data"], record["options"]
    hidden = list(options.get("hidden") or [])
    sizes = "–".join(map(str, [data["features"], *hidden, len(names)]))
    kind = f"{sizes} {options.get('activation', 'relu')} network" if hidden else f"linear head, {sizes}"
    name = record["fit"].get("loss") or options.get("loss")  # what was asked for may be nothing
    loss = LOSSES.get(name, str(name))
    rows = data["parts"].get("train", data["rows"])
    if record["fit"].get("refitted"):
        rows += data["parts"].get("validation", 0)
    return f"A {kind}, trained with {loss} on {rows:,} rows of {data['rows']:,}."


def _verdict(record: Mapping[str, Any]) -> str:
    part = decisive(record["metrics"])
    name, value, _ = main_metric(record["metrics"][part])
    rows = record["metrics"][part]["rows"]
    said = f"<b>{escape(value)}</b> {escape(name)} on {rows:,} {SPOKEN[part]} rows. "
    if part == "train":
        said += "No rows were held out, so nothing is known of others. "
    fit = record["fit"]
    if fit.get("objective") is None:
        return said
    if fit.get("gap") == 0:
        return said + f"The objective is {digits(fit['objective'])}, which is its optimum."
    if fit.get("gap") is not None and fit["gap"] < fit["objective"]:
        gap = f"<span>{small(fit['gap'])}</span>"  # a browser would break it at the minus of its exponent
        return said + f"The objective is {digits(fit['objective'])}, within {gap} of the optimum."
    return said + f"The objective is {digits(fit['objective'])}, without a bound for how far it is from the least one."


def _before(record: Mapping[str, Any]) -> list[str]:
    """What the validation rows are of a head that has learnt from them in the end."""
    if not record["fit"].get("refitted") or "validation" not in record["metrics"]:
        return []
    return [
        "<figcaption>The validation rows were measured before the chosen head was trained once more, on them too."
        "</figcaption>"
    ]


def _weights(record: Mapping[str, Any]) -> list[str]:
    """What weights do to the numbers."""
    if not record["data"].get("weighted"):
        return []
    counts = ", and what is counted of a class is a sum of weights" if record["data"].get("classes") else ""
    return [f"<figcaption>Each row counts by its weight{counts}.</figcaption>"]


def _headline(record: Mapping[str, Any]) -> str:
    fit = record["fit"]
    pairs = []
    for part in reversed(PARTS):
        if part in record["metrics"]:
            name, value, _ = main_metric(record["metrics"][part])
            pairs.append((f"{SPOKEN[part]} {name}", escape(value)))
    pairs.append(("objective", digits(fit.get("objective"))))
    if fit.get("gap") is not None:
        pairs.append(("gap to the optimum", small(fit["gap"])))
    elif fit.get("gradient_norm") is not None:
        pairs.append(("gradient norm", small(fit["gradient_norm"])))
    if fit.get("evaluations"):  # mini-batches have none
        pairs.append(("evaluations", f"{fit['evaluations']:,}"))
    pairs.append(("time", seconds(fit["seconds"])))
    return facts(pairs, "numbers")


def _provenance(record: Mapping[str, Any], names: Sequence[str]) -> str:
    data, fit, options = record["data"], record["fit"], record["options"]
    command = shlex.join(record["command"]) if record.get("command") else "from Python"
    sources = data["source"] if isinstance(data["source"], list) else [data["source"]]
    split = ", ".join(f"{part} {count:,}" for part, count in data["parts"].items() if count)
    why, solver = str(fit.get("why") or ""), str(fit.get("solver") or "")
    solver = why if why.startswith(solver) else ", ".join(filter(None, (solver, why)))
    stopped = STOPPED.get(str(fit.get("stopped")), str(fit.get("stopped") or ""))
    pairs = [
        ("command", f"<code>{escape(command)}</code>"),
        ("data", escape(_few(sources))),
        ("rows", f"{data['rows']:,}: {escape(split)}" + (", read in blocks" if data.get("streamed") else "")),
        ("features", escape(f"{data['features']:,}: {_few(data.get('feature_names') or [], data['features'])}")),
        ("classes" if data.get("classes") else "targets", escape(_few(names))),
        *((f"classes, {part}", escape(_counts(names, n))) for part, n in (data.get("class_counts") or {}).items()),
        ("fingerprint", f"<code>{escape(str(data.get('fingerprint', '')))}</code>"),
        ("notes", "<br>".join(escape(str(note)) for note in data.get("notes") or [])),
        ("options", escape(", ".join(f"{name} {_said(value)}" for name, value in options.items()))),
        ("solver", escape(solver)),
        ("stopped", escape(stopped)),
        ("kept", _kept(record)),
        ("memory at most", bytes_said(fit.get("peak_memory"))),
        ("started", escape(str(record.get("started", "")))),
        ("versions", escape(", ".join(f"{name} {number}" for name, number in record.get("versions", {}).items()))),
        ("platform", escape(str(record.get("platform", "")))),
    ]
    return facts((name, value) for name, value in pairs if value)


def _kept(record: Mapping[str, Any]) -> str:
    """The epoch that the parameters are of; nothing where there were none."""
    epoch = record["fit"].get("epoch")
    if epoch is None:
        return ""
    chosen = "validation" in record["metrics"] and not record["fit"].get("refitted")
    return f"epoch {epoch:,} of {record['options']['epochs']:,}, {'the best on validation' if chosen else 'the last'}"


def _few(names: Sequence[Any], total: int | None = None) -> str:
    """``a, b, c, … and 12 more``."""
    shown = [_short(name) for name in names[:NAMES_SHOWN]]
    rest = (len(names) if total is None else total) - len(shown)
    return ", ".join(shown) + (f", … and {rest:,} more" if rest > 0 and shown else "")


def _counts(names: Sequence[str], counts: Sequence[float]) -> str:
    if len(counts) > NAMES_SHOWN or len(counts) != len(names):
        return f"{min(counts, default=0):,} to {max(counts, default=0):,} rows each"
    return ", ".join(f"{_short(name)} {count:,}" for name, count in zip(names, counts, strict=True))


def _said(value: Any) -> str:
    if value is None or value in ((), [], {}):
        return "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} = {_said(values)}" for name, values in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
