"""The main job from Python: its accuracy, its record, its end when stopped, and the classifier it leaves."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

import xwb
from xwb import OptionError, RunError
from xwb.runs import Run, _store
from xwb.training import Classifier, DigitsJob, DigitsOptions, gradient_problem

MODELS = {
    "network": ({}, 0.97),
    "bare": ({"hidden": ()}, 0.95),
    "svm network": ({"loss": "svm"}, 0.97),
    "bare svm": ({"hidden": (), "loss": "svm"}, 0.95),
}
QUICK = {"hidden": (16,), "epochs": 3}


def finished(out, **options) -> DigitsJob:
    job = DigitsJob(DigitsOptions(**options))
    for _ in job.run(out):
        pass
    return job


@pytest.mark.parametrize("model", MODELS)
def test_accuracy_over_five_seeds(tmp_path, model):
    options, wanted = MODELS[model]
    accuracies = []
    for seed in range(5):
        job = finished(tmp_path / str(seed), **options, seed=seed)
        record = json.loads((tmp_path / str(seed) / "run.json").read_text())
        assert record["metrics"]["test"]["accuracy"] == job.test.accuracy
        assert record["training_seconds"] < 10
        accuracies.append(job.test.accuracy)
    assert np.mean(accuracies) >= wanted


def test_what_is_written(tmp_path):
    started = time.perf_counter()
    job = finished(tmp_path / "run", **QUICK, seed=7)
    run = Run.open(tmp_path / "run")
    record = run.record
    assert (record["status"], record["seed"], record["job"]) == ("finished", 7, "digits")
    assert record["options"] == {**vars(DigitsOptions(**QUICK, seed=7)), "hidden": [16]}
    assert record["data"]["sha256"] == job.data.sha256
    assert record["data"]["split"] == {"train": 1078, "validation": 359, "test": 360}
    assert {"xwb", "python", "numpy", "scipy"} <= set(record["versions"])
    assert 0 < record["training_seconds"] < time.perf_counter() - started
    lines = run.metrics()
    assert [(line["epoch"], line["steps"], line["whole"]) for line in lines] == [
        (epoch, 34 * epoch, True) for epoch in range(4)
    ]
    best = max(lines, key=lambda line: (line["validation"]["accuracy"], -line["validation"]["loss"]))
    assert record["best_epoch"] == best["epoch"] == job.best.number
    # The stored parameters are those of the best epoch, and the fractions are fractions of the parts.
    classifier = Classifier.load(run)
    for name, part in {"train": job.train, "validation": job.validation, "test": job.test_part}.items():
        right = (classifier.predict(part.X) == part.y).mean()
        assert record["metrics"][name]["accuracy"] == pytest.approx(right, abs=1e-12)
    assert record["metrics"]["validation"] == best["validation"]


def test_the_kept_parameters_are_the_best_not_the_last(tmp_path):
    job = DigitsJob(DigitsOptions(epochs=40, hidden=()))  # which learns no more for the last half
    epochs = list(job.run(tmp_path / "run"))
    assert not epochs[-1].best
    assert Classifier.load(tmp_path / "run").evaluate(*job.validation) == job.best.validation


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        finished(tmp_path / name, **QUICK, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("hidden", [(), (16,), (12, 9)])
@pytest.mark.parametrize("loss", ["softmax", "svm"])
@pytest.mark.parametrize("seed", range(3))
def test_its_gradients_agree_with_finite_differences(hidden, loss, seed):
    problem = DigitsJob(DigitsOptions(hidden=hidden, loss=loss, seed=seed)).gradient_problem()
    report = xwb.check(problem.layer, *problem.params, conduct=False)
    report.raise_if_wrong()
    assert [row.name for row in report.rows] == [f"{p}{i}" for i in range(1, len(hidden) + 2) for p in "Wb"]


@pytest.mark.parametrize("seed", range(5))
def test_the_gradients_of_a_net_with_dead_layers_agree(seed):
    job = DigitsJob(DigitsOptions(hidden=(4,) * 12, seed=seed))
    problem = job.gradient_problem()
    xwb.check(problem.layer, *problem.params, conduct=False).raise_if_wrong()
    assert not any(b.any() for b in job.classifier.params[1::2])  # moved in the copy alone


def test_a_check_takes_few_entries_of_a_wide_net():
    job = DigitsJob(DigitsOptions(hidden=(128,)))
    assert [p.size for p in job.gradient_problem().params] == [p.size for p in job.classifier.params]
    job = DigitsJob(DigitsOptions(hidden=(1024, 1024)))
    problem = job.gradient_problem()
    entries = sum(p.size for p in job.classifier.params)
    assert max(p.size for p in problem.params) * entries <= 2**29
    assert min(p.size for p in problem.params) == 10


def test_a_gradient_problem_goes_back_from_where_it_was():
    problem = DigitsJob(DigitsOptions(hidden=(12,))).gradient_problem()
    there = [2 * p for p in problem.params]
    wanted = problem.layer(*problem.params)[1](1.0)
    _, back = problem.layer(*problem.params)
    problem.layer(*there)
    for grad, want in zip(back(1.0), wanted, strict=True):
        np.testing.assert_array_equal(grad, want)


def test_large_parameters_are_sampled_and_a_planted_mistake_is_found():
    job = DigitsJob(DigitsOptions(hidden=(12, 9)))
    problem = gradient_problem(job.classifier, *job.train, seed=0, whole=100, sample=50)
    assert [p.shape for p in problem.params] == [(50,), (12,), (50,), (9,), (50,), (10,)]
    xwb.check(problem.layer, *problem.params, conduct=False).raise_if_wrong()

    def wrong(dloss, saved):
        grads = problem.layer.backward(dloss, saved)
        return [*grads[:2], grads[2] * 2, *grads[3:]]

    layer = xwb.Layer("wrong", problem.layer.formula, problem.layer.forward, wrong, inputs=problem.layer.inputs)
    report = xwb.check(layer, *problem.params, conduct=False)
    assert [row.name for row in report.rows if not row.ok] == ["W2"]


def test_stop_ends_inside_an_epoch(tmp_path):
    asked = iter(range(10**9))
    job = DigitsJob(DigitsOptions(epochs=1000, hidden=(16,)))
    epochs = list(job.run(tmp_path / "run", stop=lambda: next(asked) > 50))
    assert (epochs[-1].whole, epochs[-1].steps) == (False, 52)
    run = Run.open(tmp_path / "run")
    assert run.record["status"] == job.status == "interrupted"
    assert run.metrics()[-1]["whole"] is False
    assert Classifier.load(run).evaluate(*job.test_part) == job.test


@pytest.mark.parametrize("how", ["break", "KeyboardInterrupt"])
def test_leaving_the_loop_keeps_the_best(tmp_path, how):
    job = DigitsJob(DigitsOptions(epochs=1000, hidden=(16,)))
    epochs = job.run(tmp_path / "run")
    for epoch in epochs:
        if epoch.number == 3:
            break
    if how == "break":
        epochs.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            epochs.throw(KeyboardInterrupt)
    assert Run.open(tmp_path / "run").record["status"] == "interrupted"
    assert Classifier.load(tmp_path / "run").evaluate(*job.validation) == job.best.validation


@pytest.mark.parametrize("loss", ["softmax", "svm"])
def test_divergence_is_told_and_leaves_nothing(tmp_path, loss):
    job = DigitsJob(DigitsOptions(lr=1e30, loss=loss))
    with pytest.raises(xwb.DivergedError, match="diverged in epoch 1"):
        list(job.run(tmp_path / "runs" / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(path, value):
        raise RunError("cannot write: No space left on device")

    job = DigitsJob(DigitsOptions(**QUICK))
    monkeypatch.setattr(_store, "append_json_lines", full)
    with pytest.raises(RunError, match="No space left"):
        list(job.run(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"epochs": 0},
        {"epochs": -3},
        {"batch": 0},
        {"batch": 1079},
        {"seed": -1},
        {"hidden": (0,)},
        {"hidden": (10**12,)},
        {"loss": "l2"},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"max_norm": 0.0},
    ],
    ids=str,
)
def test_options_outside_their_range_are_refused_in_one_line(options):
    with pytest.raises(OptionError, match=rf"^{next(iter(options))} .*; got [^\n]*$"):
        DigitsJob(DigitsOptions(**options))


def test_probabilities():
    job = DigitsJob(DigitsOptions(**QUICK))
    probabilities = job.classifier.probabilities(job.test_part.X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), job.classifier.predict(job.test_part.X))
    with pytest.raises(OptionError, match="svm"):
        DigitsJob(DigitsOptions(loss="svm")).classifier.probabilities(job.test_part.X)


def test_load_refuses_what_is_no_classifier(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.save_model({"W": np.zeros((2, 2), np.float32)}, {"format": "something else"})
    with pytest.raises(RunError, match="no classifier"):
        Classifier.load(run)
    run.close()
    finished(tmp_path / "run", **QUICK)
    data = bytearray(run.model_path.read_bytes())
    data[-3] ^= 1
    run.model_path.write_bytes(data)
    with pytest.raises(RunError, match="damaged"):
        Classifier.load(tmp_path / "run")


@pytest.mark.parametrize(("spoil", "said"), [("sizes", "other sizes"), ("values", "not finite")])
def test_load_refuses_a_classifier_that_cannot_be(tmp_path, spoil, said):
    job = finished(tmp_path / "run", **QUICK)
    run = Run.open(tmp_path / "run")
    params, metadata = run.load_model()
    if spoil == "sizes":
        params["W1"] = params["W1"][:-1]
    else:
        params["b2"][3] = np.nan
    run.save_model(params, metadata)
    with pytest.raises(RunError, match=said):
        Classifier.load(run)
    job.classifier.save(run)
    Classifier.load(run)
