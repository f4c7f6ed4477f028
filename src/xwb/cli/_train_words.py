"""What ``xwb train FILE`` says: how it begins, goes on and ends."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training import Event, Fit, Prepared

PARTS = ("test", "validation", "train")  # the first of them that is there is shown in full
WHERE_USED = {  # options that some heads make no use of
    "lr": "epochs",
    "epochs": "epochs",
    "batch": "epochs",
    "tolerance": "lbfgs",
    "max_evaluations": "lbfgs",
    "kind": "hinge",
    "activation": "hidden",
}
STOPPED = {  # what a line of progress ends with
    "gap": "done",
    "solved": "done",
    "epochs": "done",
    "flat": "done: the gradient is nearly 0",
    "noise floor": "done: float32 shows no more progress",
    "limit": "stopped at --max-evaluations",
}
REASONS = {  # of an end before the tolerance was reached
    "limit": "stopped at --max-evaluations before the tolerance was reached",
    "noise floor": "stopped before the tolerance was reached, where float32 rounding hides further progress",
}


def opening(data: Prepared, job: Fit, given: Collection[str]) -> str:
    """The data, what to know of it, and how it is learnt from; ``given`` are the options that were chosen."""
    rows = ", ".join(f"{name} {part.rows:,}" for name, part in data.parts.items())
    what = _many(len(data.classes), "class", "classes") if data.classes else _many(len(data.targets), "target")
    lines = [f"data           {rows} rows; {_many(len(data.feature_names), 'feature')}, {what}"]
    lines += [f"note           {note}" for note in data.notes]
    if idle := _idle(job, given):
        lines.append(f"note           {', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect here")
    ways = Counter(head.why for head in job.heads)
    several = len(job.heads) > 1
    return "\n".join(
        [*lines, *(f"solver         {_many(n, 'head') + '; ' if several else ''}{why}" for why, n in ways.items())]
    )


def _idle(job: Fit, given: Collection[str]) -> list[str]:
    """The chosen options that nothing makes use of."""
    used = set()
    for head in job.heads:
        used.add("hidden" if head.options.hidden else "")
        used.add(head.options.solver if head.convex else "epochs")
        used.add("hinge" if "hinge" in (head.options.loss or "") else "")
    return [f"--{name.replace('_', '-')}" for name in given if WHERE_USED.get(name, "") not in used | {""}]


def conclusion(job: Fit, seconds: float) -> str:
    """What became of it."""
    from ..training import metric_lines

    lines = []
    if len(job.heads) > 1:
        again = ", refitted on train and validation" if job.refitted else ""
        lines += [*_table(job), *_diverged(job), f"chosen         {_label(job, job.best)}{again}"]
    lines += _reached(job)
    first, *others = [part for part in PARTS if part in job.metrics]
    lines += ["", _part(job, first)]
    names = [str(one) for one in job.data.classes or job.data.targets]
    lines += metric_lines(job.metrics[first], names, job.data.weighted)
    scores = [(part, score) for part in others if (score := _score(job.metrics[part])) is not None]
    lines += ["", *(f"{_part(job, part):<14} {told(job, score)}" for part, score in scores)]
    return "\n".join([*lines, f"time           {seconds:.1f} s"])


def _reached(job: Fit) -> list[str]:
    """The objective, how far it is from the optimum, and why no nearer."""
    final, options = job.final, job.final.options
    if final.objective is None:  # interrupted within the first epoch
        return []
    line = f"objective      {final.objective:.6g}"
    if final.gap is not None and final.gap < max(final.objective, 1e-300):
        line += f", at most {final.gap:.2g} above the optimum ({100 * final.gap / final.objective:.2g} % of it)"
    elif final.gap == 0:
        line += ", the optimum"
    elif final.gap is not None:
        line += "; the bound on its distance to the optimum is larger than the objective itself"
    elif not options.hidden and options.l2 == 0:
        line += "; there is no bound on the distance to the optimum, since λ is 0"
    lines = [line]
    if final.epoch is not None:
        which = "the best on validation" if "validation" in job.data.parts and not job.refitted else "the last"
        lines.append(f"kept           epoch {final.epoch} of {options.epochs}, {which}")
    reached = final.objective == 0 or (final.gap is not None and final.gap <= options.tolerance * final.objective)
    if final.stopped in REASONS and not reached:
        lines.append(f"note           {REASONS[final.stopped]}")
    equal = _loss_of_equal_scores(job)
    if final.stopped == "epochs" and final.objective > 2 * equal:
        lines.append(
            f"note           with equal scores for all classes it would be {equal:.3g}; the steps may be too large: "
            f"try  --lr {options.smaller_lr:g}"
        )
    if options.l2 == 0 and job.metrics.get("train", {}).get("accuracy") == 1.0:
        lines.append("note           every training row is right; with --l2 0 the weights grow until training stops")
    return lines


def _loss_of_equal_scores(job: Fit) -> float:
    """What a model that knows nothing has; infinite where the targets are numbers."""
    K, options = job.outputs, job.final.options
    if job.data.task == "regression":
        return math.inf
    if options.loss == "softmax":
        return math.log(K)
    return 1.0 if options.kind == "crammer_singer" else K - 1.0


def _part(job: Fit, part: str) -> str:
    return f"{part} (before the refit)" if part == "validation" and job.refitted else part


def _score(metrics: dict[str, float | None]) -> float | None:
    return metrics.get("accuracy", metrics.get("r2"))


def told(job: Fit, score: float) -> str:
    """``accuracy 93.1 %``."""
    return f"accuracy {100 * score:.1f} %" if job.data.task == "classification" else f"R² {score:.4f}"


def _label(job: Fit, h: int) -> str:
    swept = {name: value for name, value in job.heads[h].label.items() if name in job.options.sweep}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in swept.items()
    )


def _table(job: Fit) -> list[str]:
    """The heads of a sweep, one a line."""
    labels = [_label(job, h) for h in range(len(job.heads))]
    wide = max(map(len, labels))
    lines = [f"{'head':<{wide}}  {'objective':>11}  {'gap':>8}  validation"]
    for h, (label, head) in enumerate(zip(labels, job.heads, strict=True)):
        score = _score(head.validation) if head.validation else None
        cells = [
            "-" if head.objective is None else f"{head.objective:.6g}",
            "-" if head.gap is None else f"{head.gap:.1e}",
            head.stopped or "-" if score is None else told(job, score),
        ]
        lines.append(f"{label:<{wide}}  {cells[0]:>11}  {cells[1]:>8}  {cells[2]}{'  <' if h == job.best else ''}")
    return lines


def _diverged(job: Fit) -> list[str]:
    """A note of heads whose loss left the finite numbers, and what to do."""
    n = sum(head.stopped == "diverged" and not head.convex for head in job.heads)
    if not n:
        return []
    return [f"note           {_many(n, 'head')} diverged, since the steps were too large; try a smaller --lr there"]


def progress(job: Fit, event: Event, left: float | None = None) -> str:
    """An event in a line, what matters most first: a terminal may be narrow.

    Args:
        left: the seconds that are left, as far as is known.
    """
    words = []
    if len(job.heads) > 1:
        words.append(f"head {event.head + 1}/{len(job.heads)}" if event.head < len(job.heads) else "refit")
    if event.stopped == "diverged":
        return "  ".join([*words, "diverged: the loss is no longer finite"])
    words.append(f"{'epoch' if event.epoch else 'evaluation'} {event.number}")
    words.append(f"objective {event.objective:.6g}")
    if event.validation is not None:
        words.append(f"validation {told(job, event.validation)}")
    if left is not None:
        words.append(f"about {max(left, 1):,.0f} s left")
    if event.gap is not None:
        words.append(f"gap {event.gap:.1e}")
    if event.gradient_norm is not None:
        words.append(f"gradient {event.gradient_norm:.1e}")
    if event.seconds > 0:
        words.append(f"{event.rows / event.seconds:,.0f} rows/s")
    if event.stopped:
        words.append(STOPPED.get(event.stopped, event.stopped))
    return "  ".join(words)


def default_folder(file: Path) -> Path:
    """``runs/embeddings`` for ``data/embeddings.csv.gz``."""
    return Path("runs") / (file.resolve().name.split(".")[0] or "fit")


def _many(n: int, one: str, several: str = "") -> str:
    return f"{n:,} {one if n == 1 else several or one + 's'}"
