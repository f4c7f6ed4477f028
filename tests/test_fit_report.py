"""The report of a fit: whole, self-contained, escaped, and showing what the run's files say."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest

from _pages import Page, needs_nothing_else
from xwb import RunError
from xwb.reports import render_fit_report, write_fit_report
from xwb.reports._chart import linear_axis
from xwb.reports._fit_numbers import power_of_ten, small
from xwb.runs import Run
from xwb.training._metrics import ClassificationMetrics
from xwb.training._regression_metrics import RegressionMetrics

HOSTILE = ["<script>alert(1)</script>", "a & b", "\"'><img src=x>", "C" * 200]


def classified(K, rows, sure, seed, confusion=True, probabilities=True):
    """The result of random scores that are right as often as ``sure`` says."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, rows)
    scores = rng.standard_normal((rows, K))
    scores[np.arange(rows), y] += sure
    metrics = ClassificationMetrics(K, probabilities=probabilities)
    metrics.add(scores, y)
    result = metrics.result()
    return {**result, "confusion": metrics.confusion.tolist()} if confusion else result


def regressed(K, rows, noise, seed):
    rng = np.random.default_rng(seed)
    T = rng.standard_normal((rows, K)) * 10 + 200
    metrics = RegressionMetrics(K)
    metrics.add(T + noise * rng.standard_normal((rows, K)), T)
    return metrics.result()


def record_of(classes=(), targets=(), **more):
    """What every record has, for ``more`` to change."""
    options = {"target": "kind", "loss": "softmax", "l2": 1e-3, "solver": "auto", "hidden": None, "activation": "relu"}
    options |= {"holdout": 0.2, "seed": 0, "standardise": True}
    data = {
        "source": ["flowers.parquet"],
        "rows": 12_400,
        "parts": {"train": 8_000, "validation": 2_000, "test": 2_400},
        "features": 768,
        "feature_names": [f"embedding[{i}]" for i in range(768)],
        "task": "classification" if classes else "regression",
        "class_counts": {"train": [2_000] * len(classes)} if classes else None,
        "fingerprint": "9f86d081884c7d659a2feaa0c55ad015",
        "notes": ["3 constant features have the scale 1"],
        "streamed": True,
        **({"classes": classes} if classes else {"targets": targets}),
    }
    fit = {"objective": 0.28413, "gap": 1.2e-5, "gradient_norm": 3e-6, "seconds": 4.31, "evaluations": 34}
    fit |= {
        "iterations": 30,
        "solver": "lbfgs",
        "why": "smooth and convex",
        "stopped": "gap below 1e-4 of the objective",
    }
    fit |= {"peak_memory": 412 * 2**20}
    base = {
        "command": ["xwb", "fit", "flowers.parquet", "--target", "kind", "--out", "runs/my flowers"],
        "started": "2026-11-26T13:30:12+00:00",
        "versions": {"xwb": "0.1.0", "numpy": "2.4.6", "python": "3.12.3"},
        "platform": "Linux x86_64, 2 cores",
        "status": "finished",
        "sweep": None,
    }
    for name, value in (("options", options), ("data", data), ("fit", fit)):
        base[name] = {**value, **more.pop(name, {})}
    return {**base, **more}


def descent(evaluations, gap, least=0.28412, **more):
    """Lines whose objective falls geometrically and whose gap follows."""
    above = np.geomspace(1.1, gap, evaluations).tolist()
    return [
        {"evaluation": k, "objective": least + a, "gradient_norm": a, "gap": min(1.5, 2 * a) if k else None, **more}
        | ({"gap": gap} if k == evaluations - 1 else {})
        for k, a in enumerate(above)
    ]


def swept():
    """Nine heads over l2 and two seeds, the metrics best in the middle."""
    heads, lines = [], []
    for i, l2 in enumerate([0.0, *np.geomspace(1e-6, 1, 8).tolist()]):
        better = 2.5 - 0.12 * (i - 4) ** 2 / 4
        metrics = {
            part: classified(4, 900, better + extra, i, confusion=False)
            for part, extra in (("train", 0.9 - 0.1 * i), ("validation", 0))
        }
        head = {"l2": l2, "loss": "softmax", "objective": 0.28 + 0.01 * i, "gap": 1e-5, "evaluations": 20 + i}
        heads.append({**head, "stopped": "gap", "metrics": metrics})
        lines += descent(20 + i, 1e-5, 0.28 + 0.01 * i - 1e-5, head=i)
    sweep = {"grid": {"l2": [head["l2"] for head in heads], "loss": ["softmax"]}, "chosen": 4, "heads": heads}
    fit = {"objective": heads[4]["objective"], "gap": 1e-5}
    names = ["daisy", "rose", "tulip", "sunflower"]
    metrics = {part: classified(4, n, 2.4, n) for part, n in (("train", 8000), ("validation", 2000), ("test", 2400))}
    return record_of(names, sweep=sweep, fit=fit, metrics=metrics), lines


def regression():
    targets = ["price", "area, in m²", "age"]
    record = record_of(
        targets=targets,
        options={"target": targets, "loss": "squared_error"},
        data={"features": 8, "feature_names": list("abcdefgh")},
        fit={"objective": 213.4, "gap": 0.0, "evaluations": 1, "solver": "normal equations", "why": "8 features"},
        metrics={"train": regressed(3, 900, 3, 0), "test": regressed(3, 300, 4, 1)},
    )
    return record, [{"evaluation": 1, "objective": 213.4, "gradient_norm": 1e-13, "gap": 0.0, "seconds": 0.1}]


def network():
    lines = [
        {
            "epoch": k,
            "objective": 4 * 0.93**k + 0.2,
            "gradient_norm": 0.1,
            "gap": None,
            "seconds": k / 3,
            "validation": {"loss": 4 * 0.94**k + 0.35 + 0.002 * k, "accuracy": 0.9 - 0.85 * 0.92**k},
        }
        for k in range(1, 61)
    ]
    names = [f"n0{i:04d} a species of bird with a long name {i}" for i in range(1200)]
    record = record_of(
        names,
        options={"hidden": [512], "solver": "adam", "l2": 0},
        fit={
            "objective": lines[-1]["objective"],
            "gap": None,
            "solver": "adam",
            "seconds": 1234,
            "stopped": "interrupted",
        },
        metrics={
            "train": classified(1200, 4000, 5, 0, confusion=False),
            "validation": classified(1200, 4000, 4, 1, confusion=False),
        },
        status="interrupted",
    )
    return record, lines


def hinge():
    record = record_of(
        [False, True],
        options={"loss": "squared_hinge", "holdout": 0},
        data={"parts": {"train": 50}, "rows": 50, "streamed": False, "notes": []},
        fit={"gap": None, "gradient_norm": None},
        metrics={"train": classified(2, 50, 3, 0, probabilities=False)},
    )
    return record, descent(30, 1e-3)


def hostile():
    record = record_of(
        HOSTILE,
        metrics={"test": classified(4, 400, 1, 0)},
        options={"target": "<mark>kind</mark>"},
        data={"source": ["<i>.csv"], "notes": ["<u>&"], "feature_names": ["<s>"], "features": 1},
        fit={"why": "<em>", "stopped": "<q>"},
        platform="<p>",
        command=["xwb", "<h1>"],
    )
    return record, descent(5, 1e-5)


SMALL = {1e-5: "1.0e-5", 1.2e-5: "1.2e-5"}
SPOKEN = {"train": "training"}
CASES = {"swept": swept, "regression": regression, "network": network, "hinge": hinge, "hostile": hostile}


def write_run(path, record, lines) -> Run:
    run = Run.create(path, {"job": "fit"})
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.save_record(**record)
    run.close()
    return run


@pytest.fixture(scope="module", params=CASES)
def run(request, tmp_path_factory) -> Run:
    return write_run(tmp_path_factory.mktemp("fits") / request.param, *CASES[request.param]())


def text_of(page: str) -> str:
    """What a reader sees, tags taken out."""
    body = page.partition("<body>")[2]
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def tables(page: str) -> list[list[list[str]]]:
    """Every table as rows of cells."""
    found = []
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
        found.append([[html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows])
    return found


def test_the_page_is_whole_and_needs_nothing_else(run):
    text = render_fit_report(run)
    assert len(text.encode()) < 300_000
    page = needs_nothing_else(text)
    assert page.count("img") == 0
    assert page.count("svg") == page.count("desc")
    assert "NaN" not in text
    assert "None" not in text_of(text)


def test_text_is_escaped(tmp_path):
    text = render_fit_report(write_run(tmp_path / "run", *hostile()))
    tags = {tag for tag, _ in Page(text).elements}
    assert tags.isdisjoint({"mark", "script", "img", "i", "u", "s", "em", "q"})
    seen = text_of(text)
    for word in ("<mark>kind</mark>", "<i>.csv", "<u>&", "<s>", "<em>", "<q>", "a & b", "<p>"):
        assert word in seen, word
    assert "<h1>" in seen
    assert "C" * 200 not in tables(text)[1][-1]


@pytest.mark.parametrize("name", CASES)
def test_the_page_shows_the_run(tmp_path, name):
    record, lines = CASES[name]()
    run = write_run(tmp_path / "run", record, lines)
    page = render_fit_report(run)
    seen = " ".join(text_of(page).split())
    part = next(one for one in ("test", "validation", "train") if one in record["metrics"])
    result = record["metrics"][part]
    value = f"{result['r2']:.4f} R²" if "r2" in result else f"{100 * result['accuracy']:.1f} % accuracy"
    assert f"{value} on {result['rows']:,} {SPOKEN.get(part, part)} rows" in seen
    gap = record["fit"]["gap"]
    assert ("within " in seen) == bool(gap)
    assert ("which is its optimum" in seen) == (gap == 0)
    if gap:
        assert f"within {SMALL[gap]} of the optimum" in seen
    assert ("was not finished" in seen) == (record["status"] != "finished")
    assert record["data"]["fingerprint"] in seen
    assert ("Heads that were tried" in seen) == (record["sweep"] is not None)
    assert ("Calibration" in seen) == bool(result.get("calibration"))
    assert ("is \\ said" in seen) == ("confusion" in result)
    for word in [*record["versions"], record["started"], *record["data"]["notes"]]:
        assert word in seen


def test_every_metric_of_every_part(tmp_path):
    record, lines = swept()
    page = render_fit_report(write_run(tmp_path / "run", record, lines))
    table = next(t for t in tables(page) if t[0] == ["", "training", "validation", "test"])
    found = {row[0]: row[1:] for row in table}
    for i, part in enumerate(("train", "validation", "test")):
        result = record["metrics"][part]
        assert found["rows"][i] == f"{result['rows']:,}"
        assert found["accuracy"][i] == f"{100 * result['accuracy']:.1f} %"
        assert found["log loss"][i] == f"{result['log_loss']:.4f}"
        assert found["Brier score"][i] == f"{result['calibration']['brier']:.4f}"
    assert "top-5 accuracy" not in found
    classes = next(t for t in tables(page) if t[0][0] == "class")
    for row, one in zip(classes[1:], record["metrics"]["test"]["per_class"], strict=True):
        assert row[0] == record["data"]["classes"][one["class"]]
        assert row[2] == f"{100 * one['recall']:.1f} %"
    matrix = next(t for t in tables(page) if t[0][0] == "is \\ said")
    counts = np.array([row[1:-1] for row in matrix[1:]], int)
    np.testing.assert_array_equal(counts, record["metrics"]["test"]["confusion"])


def test_the_sweep(tmp_path):
    record, lines = swept()
    page = render_fit_report(write_run(tmp_path / "run", record, lines))
    table = next(t for t in tables(page) if "l2" in t[0])
    heads = record["sweep"]["heads"]
    assert [row[0] for row in table[1:]] == ["chosen" if i == 4 else "" for i in range(len(heads))]
    column = table[0].index("validation accuracy")
    assert [row[column] for row in table[1:]] == [
        f"{100 * h['metrics']['validation']['accuracy']:.1f} %" for h in heads
    ]
    chart = page[page.index('aria-labelledby="sweep-accuracy') :].partition("</svg>")[0]
    assert chart.count('<circle class="dot validation"') == len(heads) - 1  # l2 = 0 has no logarithm
    assert "l2 = 0 has no place" in page
    ring = re.search(r'circle class="mark" cx="([\d.]+)" cy="([\d.]+)"', chart).groups()
    dots = re.findall(r'circle class="dot validation" cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert dots[3] == ring


def test_the_way_to_the_optimum_is_that_of_the_chosen_head(tmp_path):
    record, lines = swept()
    page = render_fit_report(write_run(tmp_path / "run", record, lines))
    chart = page[page.index('aria-labelledby="descent') :].partition("</svg>")[0]
    curve = re.search(r'<polyline class="curve validation"[^>]*points="([^"]*)"', chart)[1].split()
    assert len(curve) == sum(line["head"] == 4 for line in lines)
    heights = [float(point.split(",")[1]) for point in curve]
    assert heights == sorted(heights)  # down the page
    np.testing.assert_allclose(np.diff(heights), np.diff(heights).mean(), atol=0.5)  # geometric is straight here


def test_long_runs_are_thinned(tmp_path):
    record, _ = hinge()
    page = render_fit_report(write_run(tmp_path / "run", record, descent(20_000, 1e-9)))
    assert len(page) < 100_000


def test_a_fit_solved_at_once_has_no_curve(tmp_path):
    page = render_fit_report(write_run(tmp_path / "run", *regression()))
    assert Page(page).count("svg") == 0
    assert "The way to the optimum" not in page


def test_a_chart_has_two_points(tmp_path):
    record, lines = CASES["swept"]()
    lines = [line for line in lines if line["head"] == 4][:2]
    lines[0] |= {"validation": {"accuracy": 0.5}}
    page = render_fit_report(write_run(tmp_path / "run", record, lines))
    assert "descent-title" in page
    assert "validation-accuracy-title" not in page
    lines[1] |= {"objective": record["fit"]["objective"] - record["fit"]["gap"], "gap": None}
    page = render_fit_report(write_run(tmp_path / "run", record, lines))
    assert "descent-title" not in page
    assert "Fewer than two evaluations were measurably above the optimum." in page


def test_ticks_are_powers():
    assert [power_of_ten(label) for label in ("1e-05", "0.0001", "0.001", "1", "2e-05", "1e+06", "8.5e-23")] == [
        "10⁻⁵", "10⁻⁴", "0.001", "1", "2·10⁻⁵", "10⁶", "8.5·10⁻²³"
    ]  # fmt: skip
    assert [small(x) for x in (1.24e-5, 0, None, 31.0)] == ["1.2e-5", "0", "–", "3.1e1"]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (6.5e-23, 1.05e-22, ["7e-23", "8e-23", "9e-23", "1.0e-22"]),
        (-1e-9, 4e-9, ["-1e-9", "0", "1e-9", "2e-9", "3e-9", "4e-9"]),
        (1.2e9, 1.23e9, ["1.200e9", "1.205e9", "1.210e9", "1.215e9", "1.220e9", "1.225e9", "1.230e9"]),
        (0.001, 0.002, ["0.0010", "0.0012", "0.0014", "0.0016", "0.0018", "0.0020"]),
    ],
)
def test_ticks_of_very_small_and_large_numbers_are_short(low, high, labels):
    assert [label.replace("e-0", "e-").replace("e+0", "e") for _, label in linear_axis(low, high).ticks] == labels


def test_many_classes_are_cut_at_the_lowest_recall(tmp_path):
    record, lines = network()
    page = render_fit_report(write_run(tmp_path / "run", record, lines))
    classes = next(t for t in tables(page) if t[0][0] == "class")
    recalls = sorted(one["recall"] for one in record["metrics"]["validation"]["per_class"] if one["recall"] is not None)
    assert [row[2] for row in classes[1:]] == [f"{100 * recall:.1f} %" for recall in recalls[:100]]
    assert "1,100 classes have none lower" in page


def test_the_page_is_written_into_the_run(run):
    path = write_fit_report(run.path)
    assert path == run.path / "report.html"
    assert path.read_text("utf-8") == render_fit_report(run)


def test_what_cannot_be_reported(tmp_path):
    with pytest.raises(RunError, match="no run"):
        write_fit_report(tmp_path)
    with pytest.raises(RunError, match="no results"):
        write_fit_report(Run.create(tmp_path / "a", {"job": "fit"}))
    with pytest.raises(RunError, match="no results"):
        write_fit_report(Run.create(tmp_path / "b", {"job": "digits", "metrics": {}}))
    with pytest.raises(RunError, match="cannot be reported: KeyError"):
        write_fit_report(Run.create(tmp_path / "c", {"job": "fit", "metrics": {}}))


def test_the_epoch_that_was_kept(tmp_path):
    record, lines = network()
    record["options"]["epochs"], record["fit"]["epoch"] = 60, 41
    seen = " ".join(text_of(render_fit_report(write_run(tmp_path / "run", record, lines))).split())
    assert "epoch 41 of 60, the best on validation" in seen
    record["fit"] |= {"refitted": True, "epoch": 60}
    seen = " ".join(text_of(render_fit_report(write_run(tmp_path / "run", record, lines))).split())
    assert "epoch 60 of 60, the last" in seen


def test_weights_are_told(tmp_path):
    record, lines = hostile()
    for weighted in (False, True):
        record["data"]["weighted"] = weighted
        page = render_fit_report(write_run(tmp_path / "run", record, lines))
        seen = " ".join(text_of(page).split())
        assert ("counts by its weight, and what is counted of a class is a sum of weights." in seen) == weighted
        assert ("The numbers are sums of weights." in seen) == weighted
        titles = [title for table in tables(page)[1:] for title in table[0]]
        assert titles.count("weight") == (2 if weighted else 0)  # of each class, and of the calibration


def test_metrics_may_be_missing(tmp_path):
    """A run without lines, of undefined metrics."""
    record, _ = hostile()
    record["metrics"]["test"] |= {"accuracy": None, "log_loss": None, "calibration": {"bins": []}}
    page = render_fit_report(write_run(tmp_path / "run", record, []))
    assert "– accuracy" in " ".join(text_of(page).split())
