"""``xwb train FILE``; ``xwb train digits`` is the command of `_train_digits`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import amount, names, sweep, widths
from ._output import complain, say
from ._train_digits import digits

if TYPE_CHECKING:
    from ..training import Event, Fit, Prepared

EVERY = 2.0  # seconds between lines of progress where no bar can be


class _Train(click.Command):
    """``digits`` in the place of a file is a job with options of its own."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        if args[:1] == ["digits"]:
            return digits.make_context(f"{info_name} digits", args[1:], *more, **extra)
        return super().make_context(info_name, args, *more, **extra)


# The defaults are those of FitOptions; a test holds the numbers shown here against them.
@click.command(cls=_Train)
@click.argument("files", type=click.Path(path_type=Path), metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--target",
    metavar="COLUMN|LABELS.npy",
    required=True,
    help="What is to be predicted: a column, several as A,B, or a file of labels.",
)
@click.option("--features", metavar="A,B,...", callback=names, help="Columns to predict from (default: all others).")
@click.option("--weights", metavar="COLUMN", help="The weight of each row.")
@click.option("--groups", metavar="COLUMN", help="Rows of one group stay together in the split.")
@click.option("--task", type=click.Choice(["classification", "regression"]), help="What the target is.")
@click.option("--holdout", type=float, help="The fraction held out for validation; 0 trains on all (default 0.2).")
@click.option("--test", type=click.Path(path_type=Path), metavar="FILE", help="Rows for the test alone.")
@click.option("--test-target", type=click.Path(path_type=Path), metavar="LABELS.npy", help="Their labels, in a file.")
@click.option("--class-weight", type=click.Choice(["balanced"]), help="All classes weigh the same.")
@click.option("--no-standardise", is_flag=True, help="Leave features as they are, not at mean 0 and deviation 1.")
@click.option(
    "--loss",
    type=click.Choice(["softmax", "squared_hinge", "hinge", "squared_error"]),
    help="Default: softmax for classes, squared_error for numbers.",
)
@click.option("--kind", type=click.Choice(["weston_watkins", "crammer_singer"]), help="Of the hinges.")
@click.option("--l2", type=float, help="λ of the penalty λ/2 ‖W‖² (default 0.0001).")
@click.option("--penalise-bias", is_flag=True, help="The penalty counts the bias too.")
@click.option("--hidden", metavar="WIDTHS", callback=widths, help="Hidden layers, such as 256,128 (default: none).")
@click.option("--activation", type=click.Choice(["relu", "tanh", "gelu", "sigmoid"]), help="Between them.")
@click.option(
    "--solver",
    type=click.Choice(["auto", "lbfgs", "normal", "sgd", "adam"]),
    help="Default auto, which says what it chose.",
)
@click.option("--lr", type=float, help="Learning rate of sgd and adam at the start; it falls linearly to 0.")
@click.option("--epochs", type=int, help="Passes of sgd and adam (default 30).")
@click.option("--batch", type=int, help="Rows per step of sgd and adam (default 64).")
@click.option("--tolerance", type=float, help="L-BFGS stops at this certified gap, of the objective (default 0.0001).")
@click.option("--max-evaluations", type=int, help="Or at so many evaluations of a head (default 1000).")
@click.option(
    "--sweep",
    metavar="NAME=VALUES",
    multiple=True,
    callback=sweep,
    help="Train a head for each value and keep the best on validation: l2=1e-6:1:13, loss=softmax,squared_hinge, "
    "lr=..., seed=...; given twice it makes a grid.",
)
@click.option("--seed", type=int, help="Draws the split, parameters and the order of rows (default 0).")
@click.option("--memory", metavar="AMOUNT", callback=amount, help="Of the whole process at most, such as 512MB.")
@click.option("--scratch", type=click.Path(path_type=Path), metavar="DIR", help="Where what does not fit is put.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run folder; an older run there is overwritten (default runs/ and the name of FILE).",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object, and nothing else.")
@click.pass_obj
def train(command: list[str], /, **given: Any) -> int:
    """Train a linear head or a small network on a file of features.

    FILE is .npy, .npz, .csv, .tsv, .parquet, .safetensors or libsvm text, several files of one kind, or a folder of
    them; larger than memory is fine. `xwb train digits` trains on images that ship with xwb, with options of its own.

    A linear head with a smooth loss is trained to a certified distance from the optimum. The run folder gets
    model.safetensors, run.json, metrics.jsonl and report.html; xwb predict and xwb evaluate read it.
    """
    from ..core import OptionError
    from ..reports import write_fit_report
    from ..runs import refuse_foreign
    from ..training import Fit, FitOptions, prepare
    from ._signals import note_signals

    out = given.pop("out") or _default_folder(given["files"][0])
    quiet, as_json = given.pop("quiet"), given.pop("as_json")
    tell: Callable[[str], None] = (lambda text: None) if quiet or as_json else say
    started = time.perf_counter()
    chosen = {name: given.pop(name) for name in CHOSEN}
    options = FitOptions(**{name: value for name, value in chosen.items() if value is not None})
    refuse_foreign(out)
    files, target = given["files"], given["target"]
    test = given["test"]
    if given["test_target"] is not None:
        if test is None:
            raise OptionError("--test-target goes with --test FILE")
        test = (test, given["test_target"])
    columns = target if target.endswith(".npy") or "," not in target else [name.strip() for name in target.split(",")]
    with prepare(
        files[0] if len(files) == 1 else list(files),
        Path(target) if target.endswith(".npy") else columns,
        features=given["features"],
        weights=given["weights"],
        groups=given["groups"],
        task=given["task"],
        test=test,
        holdout=0.2 if given["holdout"] is None else given["holdout"],
        seed=options.seed,
        standardise=not given["no_standardise"],
        class_weight=given["class_weight"],
        memory=given["memory"],
        scratch=given["scratch"],
    ) as data:
        job = Fit(data, options)
        tell(_opening(data, job))
        ready = time.perf_counter() - started
        record = {
            "command": command,
            "options": {
                "target": target,
                "holdout": given["holdout"],
                "standardise": not given["no_standardise"],
                "class_weight": given["class_weight"],
                "memory": given["memory"],
            },
            "data": {"source": [str(file) for file in files], "seconds": round(ready, 3)},
        }
        stop = note_signals()
        with _progress(job, quiet or as_json) as show:
            for event in job.run(out, record=record, stop=stop):
                show(event)
    tell(_conclusion(job, time.perf_counter() - started))
    page = write_fit_report(out)
    tell(f"run            {out}  (look at {page})")
    if as_json:
        from ..runs import Run

        found = Run.open(out).record
        say(json.dumps({name: found[name] for name in ("status", "fit", "sweep", "metrics")} | {"run": str(out)}))
    if job.status == "finished":
        return 0
    complain(f"interrupted; what was reached is in {out}")
    return 130


CHOSEN = (
    "loss",
    "kind",
    "l2",
    "penalise_bias",
    "hidden",
    "activation",
    "solver",
    "lr",
    "epochs",
    "batch",
    "tolerance",
    "max_evaluations",
    "sweep",
    "seed",
)


def _default_folder(file: Path) -> Path:
    """``runs/embeddings`` for ``data/embeddings.csv.gz``."""
    return Path("runs") / (file.name.split(".")[0] or "fit")


def _opening(data: Prepared, job: Fit) -> str:
    rows = ", ".join(f"{name} {part.rows:,}" for name, part in data.parts.items())
    what = (
        f"{len(data.classes):,} classes"
        if data.task == "classification"
        else f"{len(data.targets)} target" + "s" * (len(data.targets) > 1)
    )
    lines = [f"data           {rows} rows; {len(data.feature_names):,} features, {what}"]
    lines += [f"note           {note}" for note in data.notes]
    heads = f"{len(job.heads)} heads; " if len(job.heads) > 1 else ""
    return "\n".join([*lines, f"solver         {heads}{job.why}"])


def _conclusion(job: Fit, seconds: float) -> str:
    from ..training import metric_lines

    final, options = job.final, job.final.options
    assert final.objective is not None
    lines = []
    if len(job.heads) > 1:
        lines += _table(job)
        again = ", refitted on train and validation" if job.status == "finished" else ""
        lines.append(f"chosen         {_label(job, job.best)}{again}")
    bound = f"{final.objective:.6g}"
    if final.gap is not None:
        bound += f", at most {final.gap:.2g} above the optimum ({_relative(final.gap, final.objective)})"
    elif not options.hidden and options.l2 == 0:
        bound += "; there is no bound on the distance to the optimum, since λ is 0"
    lines.append(f"objective      {bound}")
    if final.stopped in ("limit", "noise floor"):
        reason = {
            "limit": f"stopped after {final.evaluations:,} evaluations; --max-evaluations allows more",
            "noise floor": "stopped where float32 rounding hides further progress",
        }[final.stopped]
        lines.append(f"note           {reason}")
    if options.l2 == 0 and job.metrics.get("train", {}).get("accuracy") == 1.0:
        lines.append(
            "note           every training row is right: without --l2 the weights grow for as long as you let them"
        )
    for part in ("test", "validation", "train"):
        if part in job.metrics:
            before = " (before the refit)" if part == "validation" and len(job.heads) > 1 else ""
            lines += ["", f"{part}{before}"]
            lines += metric_lines(job.metrics[part], [str(c) for c in job.data.classes or job.data.targets])
            break
    for part in ("validation", "train"):
        if part in job.metrics and part not in lines[-0:]:
            score = job.metrics[part].get("accuracy", job.metrics[part].get("r2"))
            if score is not None:
                lines.append(f"{part:<14} {_percent(job, score)}")
    return "\n".join([*lines, f"time           {seconds:.1f} s"])


def _percent(job: Fit, score: float) -> str:
    return f"accuracy {100 * score:.1f} %" if job.data.task == "classification" else f"R² {score:.4f}"


def _relative(gap: float, objective: float) -> str:
    return f"{100 * gap / objective:.2g} % of it" if objective > 0 else "it is 0"


def _label(job: Fit, h: int) -> str:
    head = job.heads[h]
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in head.label.items()
        if name in job.options.sweep
    )


def _table(job: Fit) -> list[str]:
    """The heads of a sweep, one a line."""
    labels = [_label(job, h) for h in range(len(job.heads))]
    wide = max(map(len, labels))
    lines = [f"{'head':<{wide}}  {'objective':>11}  {'gap':>8}  validation"]
    for h, (label, head) in enumerate(zip(labels, job.heads, strict=True)):
        score = None
        if head.validation:
            score = head.validation.get("accuracy", head.validation.get("r2"))
        cells = [
            "-" if head.objective is None else f"{head.objective:.6g}",
            "-" if head.gap is None else f"{head.gap:.1e}",
            head.stopped or "-" if score is None else _percent(job, score),
        ]
        lines.append(f"{label:<{wide}}  {cells[0]:>11}  {cells[1]:>8}  {cells[2]}{'  <' if h == job.best else ''}")
    return lines


@contextlib.contextmanager
def _progress(job: Fit, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """What is called with each event: a line that changes on a terminal, else a line now and then."""
    if quiet:
        yield lambda event: None
    elif sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console()
        with Live(console=console, transient=True, refresh_per_second=8) as live:
            yield lambda event: live.update(Text(_words(job, event), no_wrap=True, overflow="ellipsis"))
    else:
        told = [-EVERY]

        def line(event: Event) -> None:
            if event.stopped or event.seconds - told[0] >= EVERY:
                told[0] = event.seconds
                say(_words(job, event))

        yield line


def _words(job: Fit, event: Event) -> str:
    many = len(job.options.sweep) > 0
    words = [f"head {event.head + 1}/{len(job.heads)}"] if many and event.head < len(job.heads) else []
    words.append(f"{'epoch' if event.epoch else 'evaluation'} {event.number}")
    words.append(f"objective {event.objective:.6g}")
    if event.gradient_norm is not None:
        words.append(f"gradient {event.gradient_norm:.1e}")
    if event.gap is not None:
        words.append(f"gap {event.gap:.1e}")
    if event.validation is not None:
        words.append(f"validation {_percent(job, event.validation)}")
    if event.seconds > 0:
        words.append(f"{event.rows / event.seconds:,.0f} rows/s")
    if event.epoch:
        epochs = job.heads[min(event.head, len(job.heads) - 1)].options.epochs
        left = event.seconds / event.number * (epochs - event.number) if event.number else 0
        words.append(f"{left:.0f} s left")
    return "  ".join([*words, event.stopped])
