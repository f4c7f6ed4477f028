"""What the reports of both kinds of run share: results to begin with, the page's style, the file that it becomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..core import RunError
from ..pages import page
from ..runs import Run


def written(run: Run | str | os.PathLike[str], render: Callable[[Run], str]) -> Path:
    """Write ``report.html`` as ``render`` has it, and return its path.

    Raises:
        RunError: the folder is no run, or it cannot be written.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    run.save_report(render(run))
    return run.report_path


def results(run: Run, job: str) -> dict[str, Any]:
    """The record of a run of ``job`` that has metrics.

    Raises:
        RunError: it is of another job, or has none.
    """
    record = run.record
    if record.get("job") != job or "metrics" not in record:
        raise RunError(f"{run.path} has no results to report; its status is {record.get('status')!r}")
    return record


def run_page(title: str, body: Sequence[str]) -> str:
    """The whole page."""
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return page(f"{title} · xwb", body, style)
