"""``xwb train digits``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import widths
from ._output import can_redraw, complain, say

if TYPE_CHECKING:
    from ..training import DigitsJob, DigitsOptions, Epoch

LINES = 10  # about how many epochs are told where no progress bar can be
ROOM = 58  # columns beside the bar: the words, the time left, and the ^C that a terminal echoes


# The defaults are those of DigitsOptions; a test holds the numbers shown here against them.
@click.command()
@click.option(
    "--hidden",
    metavar="WIDTHS",
    callback=widths,
    help="Widths of the hidden layers, such as 256,128, or none for a bare classifier (default 128).",
)
@click.option(
    "--loss",
    type=click.Choice(["softmax", "svm"]),
    help="Cross-entropy, or the multiclass hinge (default softmax).",
)
@click.option("--epochs", type=int, help="Passes over the training images (default 100).")
@click.option("--lr", type=float, help="Learning rate at the start; it falls linearly to 0 (default 0.2).")
@click.option("--batch", type=int, help="Images per step (default 32).")
@click.option("--seed", type=int, help="Draws the split, the first parameters and the order of the images (default 0).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run folder; an older run there is overwritten (default runs/digits-seed0 and the like).",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_obj
def digits(command: list[str], /, out: Path | None, quiet: bool, **given: Any) -> int:
    """Train a classifier on 1,797 real images of handwritten digits.

    First the gradients are checked against finite differences. The parameters kept are those with the best
    validation accuracy. The run folder gets model.safetensors, run.json, metrics.jsonl and report.html.
    """
    from ..core import ProofError
    from ..proof import check
    from ..reports import write_report
    from ..runs import refuse_foreign
    from ..training import DigitsJob, DigitsOptions
    from ._signals import note_signals

    tell: Callable[[str], None] = (lambda text: None) if quiet else say
    started = time.perf_counter()
    options = DigitsOptions(**{name: value for name, value in given.items() if value is not None})
    out = out or _default_folder(options)
    refuse_foreign(out)
    job = DigitsJob(options)

    problem = job.gradient_problem()
    report = check(problem.layer, *problem.params, conduct=False)
    tell(str(report))
    if not report.ok:
        wrong = ", ".join(row.name for row in report.rows if not row.ok)
        raise ProofError(f"the gradients of {wrong} disagree with finite differences; nothing was trained")
    checked = time.perf_counter() - started
    gradient_check = {
        "examples": problem.examples,
        "seconds": round(checked, 3),
        "rows": [row._asdict() for row in report.rows],
    }

    stop = note_signals()
    with _progress(options, quiet) as show:
        for epoch in job.run(out, command=command, gradient_check=gradient_check, stop=stop):
            show(epoch)
    tell(_conclusion(job, time.perf_counter() - started))
    page = write_report(out)  # told after the rest, which a disk that is full now would hide
    tell(f"run            {out}  (look at {page})")
    if job.status == "finished":
        return 0
    complain(f"interrupted; the best parameters so far are in {out}")
    return 130


def _default_folder(options: DigitsOptions) -> Path:
    """``runs/digits-seed0``, with what differs from the usual model in the name: ``runs/digits-none-svm-seed0``."""
    from ..training import DigitsOptions

    words = ["digits"]
    if options.hidden != DigitsOptions.hidden:
        words.append("-".join(map(str, options.hidden)) or "none")
    if options.loss != DigitsOptions.loss:
        words.append(options.loss)
    return Path("runs") / "-".join([*words, f"seed{options.seed}"])


def _conclusion(job: DigitsJob, seconds: float) -> str:
    best, test = job.best, job.test
    assert best is not None
    assert test is not None
    total = len(job.test_part.y)
    return (
        f"test accuracy  {100 * test.accuracy:.1f} %  ({round(test.accuracy * total)} of {total}), with the parameters "
        f"of epoch {best.number}, the best on validation ({100 * best.validation.accuracy:.1f} %)\n"
        f"time           {seconds:.1f} s"
    )


@contextlib.contextmanager
def _progress(options: DigitsOptions, quiet: bool) -> Iterator[Callable[[Epoch], None]]:
    """What is called with each epoch: a bar on a terminal, else a line for some of them."""
    if quiet:
        yield lambda epoch: None
    elif can_redraw():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console()
        bar = BarColumn(max(4, min(40, console.width - ROOM)))
        columns = TextColumn("{task.description}"), bar, TimeRemainingColumn(compact=True)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=options.epochs)
            yield lambda epoch: progress.update(task, completed=epoch.number, description=_words(epoch, options, ""))
    else:
        every = max(1, options.epochs // LINES)

        def line(epoch: Epoch) -> None:
            if epoch.number % every == 0 or epoch.number == options.epochs or not epoch.whole:
                say(_words(epoch, options, f"  validation loss {epoch.validation.loss:.4f}"))

        yield line


def _words(epoch: Epoch, options: DigitsOptions, more: str) -> str:
    wide = len(str(options.epochs))
    return (
        f"epoch {epoch.number:>{wide}}/{options.epochs}  loss {epoch.train.loss:.4f}{more}  "
        f"accuracy {100 * epoch.validation.accuracy:.1f} %"
    )
