"""``xwb train FILE``; ``xwb train digits`` is the command of `_train_digits`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import amount, names, sweep, widths
from ._output import can_redraw, complain, say
from ._time_left import TimeLeft
from ._train_digits import digits
from ._train_words import conclusion, default_folder, opening, progress

if TYPE_CHECKING:
    from ..training import Event, Fit, FitOptions, Prepared

EVERY = 2.0  # seconds between lines of progress where no bar can be


class _Train(click.Command):
    """``digits`` in the place of a file is a job with options of its own."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        if args[:1] == ["digits"]:
            return digits.make_context(f"{info_name} digits", args[1:], *more, **extra)
        return super().make_context(info_name, args, *more, **extra)


# The defaults are those of FitOptions and prepare; a test holds the numbers shown here against them.
@click.command(cls=_Train, no_args_is_help=True)
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
@click.option(
    "--holdout", type=float, default=0.2, help="The fraction held out for validation; 0 trains on all (default 0.2)."
)
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
    from ..reports import write_fit_report
    from ..runs import refuse_foreign
    from ..training import Fit, FitOptions, prepare
    from ._signals import note_signals

    out = given.pop("out") or default_folder(given["files"][0])
    quiet, as_json = given.pop("quiet"), given.pop("as_json")
    tell: Callable[[str], None] = (lambda text: None) if quiet or as_json else say
    started = time.perf_counter()
    chosen = {one.name: value for one in fields(FitOptions) if (value := given.pop(one.name)) is not None}
    options = FitOptions(**chosen)
    source = _source(given, options)
    refuse_foreign(out)
    with prepare(**source) as data:
        job = Fit(data, options)
        tell(opening(data, job, chosen))
        record = _record(command, given, data, time.perf_counter() - started)
        stop = note_signals()
        with _advice(given["no_standardise"]), _progress(job, quiet or as_json) as show:
            for event in job.run(out, record=record, stop=stop):
                show(event)
    tell(conclusion(job, time.perf_counter() - started))
    page = write_fit_report(out)  # told after the rest, which a disk that is full now would hide
    tell(f"run            {out}  (look at {page})")
    if as_json:
        say(_json(out))
    if job.status == "finished":
        return 0
    complain(f"interrupted; what was reached is in {out}")
    return 130


@contextlib.contextmanager
def _advice(as_they_are: bool) -> Iterator[None]:
    """What `DivergedError` says, and what helps where the features are left as they are."""
    from ..core import DivergedError

    try:
        yield
    except DivergedError as error:
        if not as_they_are:
            raise
        raise DivergedError(f"{error}, or leave out --no-standardise: large features make large steps") from error


def _source(given: dict[str, Any], options: FitOptions) -> dict[str, Any]:
    """What `prepare` is called with."""
    from ..training import working_set

    files, target = given["files"], given["target"]
    beside = target.lower().endswith(".npy")
    test = _test(given, beside)
    options.check_holdout(given["holdout"])
    as_given = ("features", "weights", "groups", "task", "holdout", "class_weight", "memory", "scratch")
    return {
        "source": files[0] if len(files) == 1 else list(files),
        "target": Path(target) if beside else target,
        "test": test,
        "seed": options.seed,
        "standardise": not given["no_standardise"],
        "working": partial(working_set, options),
        **{name: given[name] for name in as_given},
    }


def _test(given: dict[str, Any], beside: bool) -> Path | tuple[Path, Path] | None:
    """The file of the test rows, and where ``beside`` (the target is a file of labels) that of their labels."""
    from ..core import OptionError

    test, labels = given["test"], given["test_target"]
    if labels is not None:
        if test is None or not beside:
            raise OptionError(
                "--test-target goes with --test FILE and --target LABELS.npy, labels beside the features"
                + _own_file(given)
            )
        return test, labels
    if test is not None and beside:
        raise OptionError(f"--test {test} takes  --test-target LABELS.npy  too, since --target is a file of labels")
    file: Path | None = test
    return file


def _own_file(given: dict[str, Any]) -> str:
    """How a test part in columns of the training file is given."""
    labels = str(given["test_target"])
    if given["test"] is None or labels.lower().endswith(".npy"):
        return ""
    pairs = [f"{name}={name.replace('train', 'test')}" for name in given["features"] or ["X"]]
    pairs.append(f"{given['target']}={labels}")
    return (
        "; a test part is a file of its own with the names of training:  "
        f'np.savez("test.npz", {", ".join(pairs)})  and  --test test.npz'
    )


def _record(command: list[str], given: dict[str, Any], data: Prepared, seconds: float) -> dict[str, Any]:
    """What ``run.json`` has beside what the job itself knows."""
    kept = {name: given[name] for name in ("weights", "groups", "class_weight", "memory", "holdout")}
    return {
        "command": command,
        "options": {
            "target": data.targets if len(data.targets) > 1 and "," in given["target"] else given["target"],
            **kept,
            "standardise": not given["no_standardise"],
        },
        "data": {"source": [str(file) for file in given["files"]], "seconds": round(seconds, 3)},
    }


def _json(out: Path) -> str:
    from ..runs import Run

    found = Run.open(out).record
    names = "classes" if found["data"]["classes"] else "targets"  # by position, as the metrics have them
    shown = {name: found[name] for name in ("status", "fit", "sweep", "metrics")}
    return json.dumps(shown | {names: found["data"][names], "run": str(out)})


@contextlib.contextmanager
def _progress(job: Fit, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """What is called with each event: a line that changes on a terminal, else a line now and then."""
    left = TimeLeft(job)
    if quiet:
        yield lambda event: None
    elif can_redraw():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console()
        with Live(console=console, transient=True, refresh_per_second=8) as live:
            yield lambda event: live.update(
                Text(progress(job, event, left.after(event)), no_wrap=True, overflow="ellipsis")
            )
    else:
        told = [-EVERY]

        def line(event: Event) -> None:
            seconds = left.after(event)
            if event.stopped or event.seconds - told[0] >= EVERY:
                told[0] = event.seconds
                say(progress(job, event, seconds))

        yield line
