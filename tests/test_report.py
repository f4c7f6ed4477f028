"""The report page: whole, self-contained, escaped, and showing what the run's files say."""

from __future__ import annotations

import re

import pytest

import xwb
from _pages import Page, needs_nothing_else
from xwb import RunError
from xwb.reports import render_report, write_report
from xwb.reports._chart import linear_axis, log_axis
from xwb.runs import Run
from xwb.training import DigitsJob, DigitsOptions


@pytest.fixture(scope="module", params=["network", "bare", "svm", "interrupted", "hopeless"])
def run(request, tmp_path_factory) -> Run:
    options = {
        "network": {},
        "bare": {"hidden": ()},
        "svm": {"hidden": (), "loss": "svm"},
        "interrupted": {"hidden": (300,)},
        "hopeless": {"hidden": (), "lr": 1e-9},
    }[request.param]
    job = DigitsJob(DigitsOptions(epochs=4, **options))
    problem = job.gradient_problem()
    report = xwb.check(problem.layer, *problem.params, conduct=False)
    check = {"examples": problem.examples, "rows": [row._asdict() for row in report.rows]}
    out = tmp_path_factory.mktemp("runs") / request.param
    steps = iter(range(10**9))
    stop = (lambda: next(steps) > 40) if request.param == "interrupted" else (lambda: False)
    for _ in job.run(out, command=["xwb", "<b>&'\""], gradient_check=check, stop=stop):
        pass
    return Run.open(out)


def test_the_page_is_whole_and_needs_nothing_else(run):
    text = render_report(run)
    assert len(text.encode()) < 1_000_000
    needs_nothing_else(text)


def test_the_page_is_usable_without_eyes_and_in_the_dark(run):
    text = render_report(run)
    page = Page(text)
    assert page.count("svg") == page.count("desc") == 2
    assert all("alt" in attributes for tag, attributes in page.elements if tag == "img")
    assert '<html lang="en">' in text
    assert "prefers-color-scheme: dark" in text
    assert "color-scheme: light dark" in text


def test_the_page_shows_the_run(run):
    text = render_report(run)
    metrics = run.record["metrics"]
    wrong = round((1 - metrics["test"]["accuracy"]) * 360)
    assert f"{100 * metrics['test']['accuracy']:.1f} %" in text
    assert f"{360 - wrong} of 360" in text
    assert text.count("<li>") == min(wrong, 60)
    assert f"epoch {run.record['best_epoch']} kept" in text
    assert run.record["data"]["sha256"] in text
    assert "10.24432/C50P49" in text
    for row in run.record["gradient_check"]["rows"]:
        assert f"{row['closed_form']:+.10e}" in text
        assert f"{row['numeric']:+.10e}" in text
    # The confusion matrix has every test image once.
    cells = re.findall(r'<td class="(?:hit|miss|none)"[^>]*>(\d+)</td>', text)
    assert (len(cells), sum(map(int, cells))) == (100, 360)
    assert (run.record["status"] == "interrupted") == ("was interrupted" in text)
    bare = run.record["options"]["hidden"] == []
    assert ("weights of class 9" in text) == bare
    assert ("first-layer weights of 128 units" in text) == (not bare)


def test_text_is_escaped(run):
    text = render_report(run)
    assert "<b>&'" not in text
    assert "&lt;b&gt;&amp;" in text


def test_the_page_is_written_into_the_run(run):
    path = write_report(run.path)
    assert path == run.path / "report.html"
    assert path.read_text("utf-8") == render_report(run)


def test_what_cannot_be_reported(tmp_path):
    with pytest.raises(RunError, match="no run"):
        write_report(tmp_path)
    with pytest.raises(RunError, match="no results"):
        write_report(Run.create(tmp_path / "run", {"job": "digits"}))
    other = {"job": "digits", "metrics": {}, "data": {"sha256": "0"}}
    with pytest.raises(RunError, match="other data"):
        write_report(Run.create(tmp_path / "run", other))


def test_files_that_do_not_belong_together(tmp_path):
    for _ in DigitsJob(DigitsOptions(hidden=(), epochs=1)).run(tmp_path):
        pass
    run = Run.open(tmp_path)
    run.metrics_path.unlink()
    with pytest.raises(RunError, match="lacks epoch"):
        write_report(run)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 100, ["0", "20", "40", "60", "80", "100"]),
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 7, ["0", "2", "4", "6"]),
        (-0.5, 0.5, ["-0.4", "-0.2", "0.0", "0.2", "0.4"]),
    ],
)
def test_linear_axis(low, high, labels):
    axis = linear_axis(low, high)
    assert [label for _, label in axis.ticks] == labels
    assert (axis.place(low), axis.place(high)) == (0, 1)


def test_axes_in_percent_of_nothing_and_of_decades():
    assert [label for _, label in linear_axis(0.94, 1, 0.01, " %").ticks] == [f"{n} %" for n in range(94, 101)]
    assert linear_axis(3, 3).ticks
    assert [label for _, label in log_axis([0.004, 2.3]).ticks] == ["0.01", "0.1", "1"]
    assert [label for _, label in log_axis([0.3, 2.3]).ticks] == ["0.5", "1", "2"]
    assert log_axis([0.0, 0.0]).place(0.0) < 0
    assert not log_axis([2.3, 2.31]).logarithmic
    assert [label for _, label in linear_axis(0, 2, least=1).ticks] == ["0", "1", "2"]
