"""A fit: what it reaches, what it chooses, what it leaves in the run folder, and what it does when it cannot go on."""

from __future__ import annotations

import errno
import json
import os
import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import brier_score_loss
from sklearn.svm import LinearSVC

from test_cli import tree
from xwb import DataError, DivergedError, OptionError, RunError
from xwb.runs import Run, _store
from xwb.training import Fit, FitOptions, Model, _minimise, fit, prepare, working_set
from xwb.training._fit_record import described, described_all
from xwb.training._fitted import Fitted
from xwb.training._minimise import Minimiser
from xwb.training._objective import Objective

RNG = np.random.default_rng(0)
N, D, K = 300, 5, 3
CODES = RNG.integers(0, K, N)
X = (RNG.standard_normal((K, D))[CODES] + RNG.standard_normal((N, D))).round(3)
Y = np.array(["cow", "dog", "emu"])[CODES]
T = X @ RNG.standard_normal((D, 2)) + RNG.standard_normal((N, 2))
WHOLE = ["metrics.jsonl", "model.safetensors", "run.json"]


def strictly(text):
    """Read JSON that has neither NaN nor infinity."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def events(data, out, options=None, **more):
    return list(Fit(data, options).run(out, **more))


# What is left.


def test_the_run_folder(tmp_path):
    run = fit(X, Y, out=tmp_path / "run", test=(X[:50], Y[:50]), l2=1e-2)
    assert tree(tmp_path / "run") == WHOLE
    record = strictly((tmp_path / "run" / "run.json").read_text())
    assert record == run.record
    assert record["status"] == "finished"
    assert set(record["metrics"]) == {"train", "validation", "test"}
    found = record["fit"]
    assert 0 < found["objective"] < np.log(3)
    assert 0 <= found["gap"] <= 1e-4 * found["objective"]
    assert found["evaluations"] > found["iterations"] > 0
    assert found["seconds"] > 0
    assert (found["solver"], found["loss"], found["stopped"], found["refitted"]) == ("lbfgs", "softmax", "gap", False)
    assert record["data"]["class_counts"]["test"] == [int((Y[:50] == name).sum()) for name in ("cow", "dog", "emu")]
    model = Model.load(run)
    accuracy = float((model.predict(X[:50]) == Y[:50]).mean())
    assert record["metrics"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert np.sum(record["metrics"]["test"]["confusion"]) == 50


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, {"loss": "softmax", "solver": "lbfgs", "l2": 1e-4, "lr": None}),
        ({"hidden": (3,), "epochs": 1}, {"loss": "softmax", "solver": "adam", "lr": 1e-3}),
        ({"sweep": {"l2": [1e-2], "loss": ["squared_hinge"]}}, {"loss": "squared_hinge", "l2": 1e-2}),
    ],
)
def test_the_options_that_were_used_are_recorded(tmp_path, given, used):
    run = fit(X, Y, out=tmp_path / "run", **given)
    assert {name: Run.open(run.path).record["options"][name] for name in used} == used
    assert run.record["options"]["target"] == "array (300,)"


def test_lines_of_metrics(tmp_path):
    with prepare(X, Y) as data:
        seen = events(data, tmp_path / "run", FitOptions(l2=1e-3))
    lines = [strictly(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["evaluation"] for line in lines] == [event.number for event in seen] == [*range(1, len(seen) + 1)]
    assert lines[-1]["objective"] < lines[0]["objective"]
    measured = [line["evaluation"] for line in lines if line["validation"]]
    assert measured == [*(2**i for i in range(12) if 2**i < len(lines)), len(lines)]
    assert lines[-1]["validation"]["accuracy"] == seen[-1].validation
    assert [bool(line["stopped"]) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert seen[-1].rows >= len(seen) * data.parts["train"].rows


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "squared_hinge"},
        {"hidden": (8,), "epochs": 2, "batch": 512},
        {"solver": "sgd", "epochs": 2, "batch": 512, "lr": 0.01},
        {"sweep": {"l2": [1e-3, 1e-1]}},
    ],
    ids=str,
)
def test_on_disk_and_in_memory_are_the_same_bits(tmp_path, options):
    rows = np.random.default_rng(2).integers(0, N, 20_000)  # several blocks
    features = X[rows] + np.linspace(0, 1, len(rows))[:, None]
    for name, memory in (("memory", None), ("disk", 1)):
        with prepare(features, Y[rows], memory=memory) as data:
            assert data.streamed == (name == "disk")
            assert sum(1 for _ in data.parts["train"].blocks()) > 1
            events(data, tmp_path / name, FitOptions(**options))
    memory, disk = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("memory", "disk"))
    assert memory == disk


def test_the_seed_decides(tmp_path):
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(X, Y, out=tmp_path / name, hidden=(4,), epochs=2, seed=seed)
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1] != models[2]


def test_what_is_said_of_sources(tmp_path):
    assert described("label") == "label"
    assert described(["a", "b"]) == ["a", "b"]
    assert described(tmp_path / "a.npy") == str(tmp_path / "a.npy")
    assert described(X) == "array (300, 5)"
    assert described_all([tmp_path / "a", tmp_path / "b"]) == [str(tmp_path / "a"), str(tmp_path / "b")]


# What is reached, beside another library.


@pytest.mark.parametrize("loss", ["softmax", "squared_hinge", "squared_error"])
def test_the_optimum_is_that_of_another_library(tmp_path, loss):
    l2 = 1e-2
    C = 1 / (l2 * N)
    y = (CODES > 0).astype(int)
    settings = {"holdout": 0, "standardise": False, "l2": l2, "tolerance": 1e-10, "loss": loss}
    params = Model.load(fit(X, T if loss == "squared_error" else y, out=tmp_path / "run", **settings)).params
    if loss == "squared_error":  # mean (s − t)² over rows, summed over targets
        other = Ridge(alpha=l2 * N / 2, tol=1e-12).fit(X, T)
        np.testing.assert_allclose(params[0], other.coef_.T, rtol=1e-6)
        return
    difference = params[0][:, 1] - params[0][:, 0]
    if loss == "softmax":  # two columns share what one would do: half the penalty
        other = LogisticRegression(C=2 * C, tol=1e-10, max_iter=10_000).fit(X, y)
        np.testing.assert_allclose(difference, other.coef_[0], atol=1e-4)
    else:
        other = LinearSVC(C=C, loss="squared_hinge", fit_intercept=False).fit(X, y)
        assert np.corrcoef(difference, other.coef_[0])[0, 1] > 0.98


def test_what_the_document_says_of_another_library(tmp_path):
    """docs/train.md: C of three classes, n of weighted rows, the Brier score of two classes."""
    weights = np.random.default_rng(2).random(N)
    settings = {"holdout": 0, "standardise": False, "l2": 1e-2, "tolerance": 1e-10}
    W = Model.load(fit(X, Y, weights=weights, out=tmp_path / "three", **settings)).params[0]
    other = LogisticRegression(C=1 / (weights.sum() * 1e-2), tol=1e-10, max_iter=10_000).fit(X, Y, weights)
    np.testing.assert_allclose((W - W.mean(1, keepdims=True)).T, other.coef_, atol=1e-4)
    run = fit(X, CODES > 0, out=tmp_path / "two", **settings)
    score = brier_score_loss(CODES > 0, Model.load(run).probabilities(X)[:, 1])
    assert run.record["metrics"]["train"]["calibration"]["brier"] == pytest.approx(2 * score)


def test_weights_are_repetitions(tmp_path):
    times = np.random.default_rng(1).integers(1, 4, N)
    settings = {"holdout": 0, "standardise": False, "tolerance": 1e-9, "l2": 1e-2}
    weighted = fit(X, Y, weights=times.astype(float), out=tmp_path / "a", **settings)
    repeated = fit(np.repeat(X, times, 0), np.repeat(Y, times), out=tmp_path / "b", **settings)
    assert weighted.record["fit"]["objective"] == pytest.approx(repeated.record["fit"]["objective"], rel=1e-8)
    for a, b in zip(Model.load(weighted).params, Model.load(repeated).params, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)  # both are within a gap of 1e-9
    assert weighted.record["metrics"]["train"]["accuracy"] == pytest.approx(
        repeated.record["metrics"]["train"]["accuracy"]
    )


def test_balanced_classes_are_measured_with_the_weights_that_were_given(tmp_path):
    y = np.where(np.arange(N) < 20, "rare", "often")
    run = fit(X, y, out=tmp_path / "run", class_weight="balanced", weights=np.full(N, 2.0))
    for part, rows in run.record["data"]["parts"].items():
        assert run.record["metrics"][part]["rows"] == rows
        assert [one["support"] for one in run.record["metrics"][part]["per_class"]] == pytest.approx(
            [2 * n for n in run.record["data"]["class_counts"][part]]
        )


# Data that is hard.

ROWS = np.arange(8.0)
HARD = {
    "separable without a penalty": (np.array([[-2.0], [-1], [1], [2]] * 9), [0, 0, 1, 1] * 9, {"l2": 0}),
    "separable hinge": (np.array([[-2.0], [-1], [1], [2]] * 9), [0, 0, 1, 1] * 9, {"l2": 0, "loss": "squared_hinge"}),
    "1 in 10,000": (np.r_[np.zeros((10_000, 2)), np.ones((1, 2))], [0] * 10_000 + [1], {}),
    "constant and twice": (np.stack([ROWS, ROWS, ROWS * 0], 1), [0, 1] * 4, {"l2": 0}),
    "1e30": (1e30 * X, Y, {}),
    "1e30 as it is": (1e30 * X, Y, {"standardise": False}),
    "1e-30": (1e-30 * X, Y, {}),
    "one row": (X[:1], [1.5], {}),
    "as many classes as rows": (X[:6], list("abcdef"), {}),
    "equal targets": (X, np.full(N, 7.5), {"l2": 0}),
    "a large penalty": (X, Y, {"l2": 1e300}),
    "a small penalty": (X, Y, {"l2": 1e-300, "max_evaluations": 30}),
    "columns twice without a penalty": (np.c_[X, X], T[:, 0], {"l2": 0}),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_data_gives_finite_weights(tmp_path, case):
    features, target, options = HARD[case]
    run = fit(features, np.array(target), out=tmp_path / "run", holdout=0, **options)
    strictly(run.record_path.read_text())
    assert np.isfinite(run.record["fit"]["objective"])
    assert all(np.isfinite(array).all() for array in Model.load(run).params)
    if "penalty" in case and options["l2"] == 0:
        assert run.record["fit"]["gap"] is None


# Sweeps.


def test_a_sweep_keeps_the_best_and_fits_it_again(tmp_path):
    run = fit(X, Y, out=tmp_path / "run", sweep={"l2": [1e-4, 1e-2, 100]}, tolerance=1e-8)
    swept, record = run.record["sweep"], run.record
    scores = [head["metrics"]["validation"]["accuracy"] for head in swept["heads"]]
    losses = [-head["metrics"]["validation"]["log_loss"] for head in swept["heads"]]
    assert swept["chosen"] == max(range(3), key=lambda h: (scores[h], losses[h]))
    assert record["metrics"]["validation"]["log_loss"] == -losses[swept["chosen"]]  # from before the refit
    assert record["fit"]["refitted"]
    assert [head["l2"] for head in swept["heads"]] == [1e-4, 1e-2, 100]
    assert all(head["gap"] <= 1e-8 * head["objective"] for head in swept["heads"])
    with prepare(X, Y) as data:  # the same, alone
        job = Fit(data, FitOptions(l2=record["fit"]["l2"], tolerance=1e-8))
        list(job.run(tmp_path / "alone"))
        alone = Run.open(tmp_path / "alone").record
        assert swept["heads"][swept["chosen"]]["objective"] == pytest.approx(alone["fit"]["objective"], rel=1e-7)
    assert record["fit"]["objective"] != pytest.approx(alone["fit"]["objective"], rel=1e-7)
    lines = [strictly(line) for line in run.metrics_path.read_text().splitlines()]
    assert {line["head"] for line in lines} == {0, 1, 2, 3}
    assert not any(line["validation"] for line in lines if line["head"] == 3)


def test_the_epoch_that_was_kept_is_recorded(tmp_path):
    with prepare(X, Y) as data:
        seen = events(data, tmp_path / "run", FitOptions(hidden=(4,), epochs=8, lr=0.1, batch=8))
    run = Run.open(tmp_path / "run")
    epoch, accuracy = run.record["fit"]["epoch"], run.record["metrics"]["validation"]["accuracy"]
    assert epoch < 8
    assert accuracy == max(event.validation for event in seen) == seen[epoch - 1].validation
    assert fit(X, Y, out=tmp_path / "last", holdout=0, solver="sgd", epochs=2).record["fit"]["epoch"] == 2
    assert fit(X, Y, out=tmp_path / "none").record["fit"]["epoch"] is None


def test_the_refit_learns_from_all_rows(tmp_path):
    def settings(sweep):
        return {"standardise": False, "tolerance": 1e-10, "l2": 1e-2, "sweep": sweep}

    refitted = fit(X, Y, out=tmp_path / "a", **settings({"l2": [1e-2, 1e3]}))
    everything = fit(X, Y, out=tmp_path / "b", holdout=0, **settings({}))
    assert refitted.record["fit"]["objective"] == pytest.approx(everything.record["fit"]["objective"], rel=1e-9)


def test_many_columns_go_in_groups(tmp_path, monkeypatch):
    """The most penalised first; the next begin where the last of these ended."""
    monkeypatch.setattr(_minimise, "STACKED", 2 * 3)
    settings = {"l2": [1e-3, 1e-2, 1e-1, 1]}
    run = fit(X, Y, out=tmp_path / "run", sweep=settings)
    assert [head["stopped"] for head in run.record["sweep"]["heads"]] == ["gap"] * 4
    heads = [line["head"] for line in run.metrics()]
    second = min(heads.index(0), heads.index(1))
    assert (set(heads[:second]), set(heads[second:])) == ({3, 2}, {1, 0, 4})
    first = {h: next(line["objective"] for line in run.metrics() if line["head"] == h) for h in range(4)}
    assert first[3] == first[2] == pytest.approx(np.log(3), rel=1e-6)
    assert max(first[0], first[1]) < 0.9 * np.log(3)


def test_rows_are_those_of_all_passes(tmp_path, monkeypatch):
    """Also of passes whose first head then waits, and of certificates."""
    passes, pieces = [], Objective.pieces
    monkeypatch.setattr(Objective, "pieces", lambda self, *args: passes.append(1) or pieces(self, *args))
    with prepare(X, Y, holdout=0.2) as data:
        minimiser = Minimiser(data, 3)
        heads = {h: Fitted(FitOptions(loss="softmax", solver="lbfgs", l2=l2)) for h, l2 in enumerate((1e-4, 1e-2, 1.0))}
        for event in minimiser.train(heads, data.parts["train"]):
            last = event
        assert last.rows == len(passes) * data.parts["train"].rows


def test_a_grid(tmp_path):
    run = fit(
        X, Y, out=tmp_path / "run", sweep={"loss": ["softmax", "hinge"], "lr": [0.01, 0.1]}, epochs=2, solver="adam"
    )
    assert [(h["loss"], h["lr"]) for h in run.record["sweep"]["heads"]] == [
        ("softmax", 0.01),
        ("softmax", 0.1),
        ("hinge", 0.01),
        ("hinge", 0.1),
    ]
    assert run.record["fit"]["why"] == "adam, as asked"


def test_of_equal_heads_the_more_penalised_is_chosen(tmp_path):
    with prepare(X, Y) as data:
        job = Fit(data, FitOptions(sweep={"l2": [1e-3, 1e-2], "loss": ["softmax", "squared_hinge"]}))
        for head in job.heads:
            head.params, head.validation = [X], {"accuracy": 0.5}
            if head.options.loss == "softmax":
                head.validation["log_loss"] = 0.1  # the hinges have none, and are not the better for it
        job._choose()
        assert job.final.options.l2 == 1e-2
        assert job.final.options.loss == "softmax"


def test_regression_chooses_the_least_error(tmp_path):
    run = fit(X, T, out=tmp_path / "run", sweep={"l2": [100, 1e-3, 10]})
    assert run.record["sweep"]["chosen"] == 1
    assert run.record["fit"]["solver"] == "normal"
    assert len(run.record["metrics"]["validation"]["per_target"]) == 2


# What ends early.


def test_leaving_the_loop_keeps_what_was_reached(tmp_path):
    with prepare(X, Y) as data:
        job = Fit(data, FitOptions(sweep={"l2": [1e-5, 1e-4]}))
        for event in job.run(tmp_path / "run"):
            if event.number == 4:
                break
    record = strictly((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == job.status == "interrupted"
    assert [head["stopped"] for head in record["sweep"]["heads"]] == ["interrupted"] * 2
    assert [head["gap"] for head in record["sweep"]["heads"]] == [None] * 2  # no bound before the bias is minimised
    assert record["fit"]["gap"] is None
    assert tree(tmp_path / "run") == WHOLE
    Model.load(tmp_path / "run")


@pytest.mark.parametrize(
    "options",
    [{}, {"hidden": (4,)}, {"sweep": {"l2": [1e-3, 1e-2]}}, {"sweep": {"lr": [1e-3, 1e-2]}, "solver": "adam"}],
    ids=str,
)
@pytest.mark.parametrize("after", [0, 3])
def test_stop(tmp_path, options, after):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > after

    with prepare(X, Y) as data:
        job = Fit(data, FitOptions(**options))
        list(job.run(tmp_path / "run", stop=stop))
    record = strictly((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert record["fit"]["stopped"] == "interrupted"
    assert not record["fit"]["refitted"]
    assert record["metrics"]["validation"]["rows"] == 60
    Model.load(tmp_path / "run")


def test_a_refit_that_is_stopped_leaves_the_chosen_head(tmp_path):
    with prepare(X, Y) as data:
        job = Fit(data, FitOptions(sweep={"l2": [1e-3, 1e-2]}))
        seen = {"head": 0}
        for event in job.run(tmp_path / "run", stop=lambda: seen["head"] == 2):
            seen["head"] = event.head
    record = Run.open(tmp_path / "run").record
    assert record["status"] == "interrupted"
    chosen = record["sweep"]["heads"][record["sweep"]["chosen"]]
    assert record["fit"]["objective"] == chosen["objective"]
    assert record["fit"]["gap"] == chosen["gap"]


@pytest.mark.parametrize("times", [1, 3])
def test_a_keyboard_interrupt(tmp_path, monkeypatch, times):
    """Before anything is reached nothing is left; later, what was reached."""
    whole, calls = Objective.evaluate, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == times:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(Objective, "evaluate", interrupted)
    with prepare(X, Y) as data, pytest.raises(KeyboardInterrupt):
        events(data, tmp_path / "run")
    assert tree(tmp_path) == ([] if times == 1 else ["run", *(f"run/{name}" for name in WHOLE)])


@pytest.mark.parametrize("after", [3, 10**6])
def test_an_interrupt_while_the_run_is_written(tmp_path, monkeypatch, after):
    """It writes the run once more, each line once; where nothing was left to train the run is finished."""
    whole, calls, asked = Run.save_model, [], []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(Run, "save_model", interrupted)
    with prepare(X, Y) as data, pytest.raises(KeyboardInterrupt):
        list(Fit(data).run(tmp_path / "run", stop=lambda: asked.append(1) or len(asked) > after))
    run = Run.open(tmp_path / "run")
    assert run.record["status"] == ("interrupted" if after == 3 else "finished")
    numbers = [line["evaluation"] for line in run.metrics()]
    assert numbers == sorted(set(numbers))
    assert numbers
    Model.load(run)


@pytest.mark.parametrize("options", [{}, {"solver": "adam", "epochs": 2}, {"sweep": {"l2": [1e-3, 1e-2]}}], ids=str)
def test_a_stop_after_the_last_event_interrupts_nothing(tmp_path, options):
    with prepare(X, Y) as data:
        job = Fit(data, FitOptions(**options))
        last, seen = len(job.heads) if len(job.heads) > 1 else 0, {"last": False}
        for event in job.run(tmp_path / "run", stop=lambda: seen["last"]):
            seen["last"] = event.head == last and bool(event.stopped)
    assert seen["last"]
    assert job.status == Run.open(tmp_path / "run").record["status"] == "finished"


def test_a_stop_at_the_last_step_interrupts_nothing(tmp_path):
    with prepare(X, Y, holdout=0) as data:
        job = Fit(data, FitOptions(solver="adam", epochs=2, batch=100))
        left = iter(range(-(-N // 100) * 2 - 1))  # a step each
        list(job.run(tmp_path / "run", stop=lambda: next(left, None) is None))
    assert job.status == "finished"
    assert job.final.stopped == "epochs"


def test_divergence_leaves_nothing(tmp_path):
    with pytest.raises(DivergedError, match=r"try  --lr 0\.1$"):
        fit(X, Y, out=tmp_path / "run", solver="sgd", lr=1e30)
    with pytest.raises(DivergedError, match=r"no head has a finite loss, .*; try smaller values in  --sweep lr$"):
        fit(X, Y, out=tmp_path / "run", solver="sgd", sweep={"lr": [1e30, 1e31]})
    with pytest.raises(DivergedError, match=r"try a smaller --lr$"):
        fit(X, Y, out=tmp_path / "run", solver="sgd", lr=1e30, sweep={"l2": [1e-4, 1]})
    assert tree(tmp_path) == []


def test_a_head_that_diverges_is_noted(tmp_path):
    run = fit(X, Y, out=tmp_path / "run", solver="sgd", epochs=2, sweep={"lr": [1e30, 0.01]})
    first, second = run.record["sweep"]["heads"]
    assert (first["stopped"], first["objective"], first["metrics"]) == ("diverged", None, {})
    assert second["stopped"] == "epochs"
    assert run.record["sweep"]["chosen"] == 1
    assert run.record["fit"]["lr"] == 0.01


def test_a_refit_that_diverges_leaves_the_chosen_head(tmp_path, monkeypatch):

    trained = _minimise.Trainer.run

    def diverges(self, stop):
        if self.part.rows == N:
            raise DivergedError("no")
        return trained(self, stop)

    monkeypatch.setattr(_minimise.Trainer, "run", diverges)
    run = fit(X, Y, out=tmp_path / "run", solver="sgd", epochs=2, sweep={"lr": [0.1, 0.01]})
    assert not run.record["fit"]["refitted"]
    assert run.record["status"] == "finished"
    Model.load(run)


@pytest.mark.parametrize("file", WHOLE)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, file):
    written = _store._write_all

    def full(stream, data):
        if file.removesuffix("json") in str(stream.name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(stream, data)

    monkeypatch.setattr(_store, "_write_all", full)
    with pytest.raises(RunError, match="No space left"):
        fit(X, Y, out=tmp_path / "run")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


# What is refused.


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"options": FitOptions(), "l2": 1}, "fit takes options=, or l2 by name, not both"),
        ({"holdout": 0, "sweep": {"l2": [1, 2]}}, "--sweep chooses by validation"),
        ({"sweep": {"lr": [1, 2]}}, "--sweep lr changes nothing, since the solver is lbfgs"),
        ({"sweep": {"seed": [1, 2]}}, "--sweep seed changes nothing"),
        ({"sweep": {"l3": [1, 2]}}, "--sweep varies l2, loss, lr, seed; got 'l3'"),
        ({"sweep": {"l2": []}}, "--sweep l2 has no values"),
        ({"sweep": "l2=1e-3:1:3"}, r'sweep is a dict, such as  sweep={"l2": \[1e-4, 1e-3, 1e-2\]}; got'),
        ({"sweep": {"l2": "1e-3:1:3"}}, r"sweep={'l2': numpy.geomspace\(1e-3, 1, 3\).tolist\(\)}; got '1e-3:1:3'"),
        ({"sweep": {"l2": np.ones(2)}}, "sweep gives l2 a list of values"),
        ({"sweep": {"seed": 3}}, r"sweep={'seed': \[0, 1, 2\]}; got 3"),
        ({"lamda": 3}, "fit takes no option lamda; its options are loss, kind, l2,"),
        ({"sed": 3}, r"fit takes no option sed \(did you mean seed\?\); its options"),
        ({"sweep": {"l2": [*range(2000)]}}, "more than 1,000 heads"),
        ({"loss": "squared_error"}, "--loss squared_error does not fit a target of classes"),
        ({"solver": "normal"}, "--solver normal is for squared error"),
        ({"solver": "lbfgs", "hidden": (3,)}, "--solver lbfgs is for linear heads"),
        ({"solver": "lbfgs", "loss": "hinge"}, "hinge has kinks"),
        ({"l2": float("nan")}, "--l2 must be"),
        ({"hidden": (0,)}, "--hidden must be"),
        ({"tolerance": 1}, "--tolerance must be"),
        ({"memory": 1}, r"--memory 1 is a number of bytes, and too little: .*; give at least  --memory \d+MB"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_options_that_do_not_go_together(tmp_path, given, match):
    with pytest.raises(OptionError, match=match):
        fit(X, Y, out=tmp_path / "run", **given)
    assert tree(tmp_path) == []


def test_a_folder_that_is_no_run_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "thesis").write_text("dear")
    for out in ("thesis", "thesis/below"):
        with pytest.raises(RunError, match="no folder"):
            fit(tmp_path / "missing.npy", "y", out=tmp_path / out)
    with pytest.raises(DataError):
        fit(tmp_path / "missing.npy", "y", out=tmp_path / "run")


# Memory.


def test_the_amount_that_is_asked_for_is_enough(tmp_path):
    with pytest.raises(OptionError) as caught:
        fit(X, Y, out=tmp_path / "run", memory=1)
    found = re.search(r"--memory (\d+)MB$", str(caught.value))
    assert found
    run = fit(X, Y, out=tmp_path / "run", memory=int(found[1]) * 10**6)
    assert run.record["status"] == "finished"


def test_the_working_set_grows_with_what_is_trained():
    def of(features, outputs, task="classification", **options):
        return working_set(FitOptions(**options), task, 10**6, features, outputs)

    assert of(100, 10) < of(1000, 10) < of(1000, 100)
    assert of(1000, 2) < of(1000, 2, sweep={"l2": [1, 2, 3, 4]})  # side by side
    assert of(3000, 1, "regression") > 4 * 8 * 3000**2  # D×D matrices
    assert of(100, 10, hidden=(5000,)) > of(100, 10, hidden=(50,))
    assert of(5000, 200) - of(5000, 100) > 28 * 8 * 5000 * 100  # what L-BFGS keeps
    assert of(100, 2, loss="squared_hinge") - of(100, 2) > 170 * 8 * 200  # more pairs, while heads are small
    assert of(100, 2, loss="squared_hinge", max_evaluations=10) == of(100, 2, max_evaluations=10)
    assert of(100, 10, hidden=(5000, 5000)) - of(100, 10, hidden=(10_000,)) > 5 * 4 * 5000**2  # and what Adam does
    assert working_set(FitOptions(hidden=(4,), batch=10**9), "classification", 100, 10, 3) < 10**8
    with pytest.raises(OptionError):
        of(10, 3, loss="squared_error")
