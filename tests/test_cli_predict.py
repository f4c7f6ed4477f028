"""``xwb predict`` and ``xwb evaluate`` of a run with a model of rows: files that read back, one line for mistakes."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score

from xwb.cli import main
from xwb.data import Column
from xwb.runs import Run
from xwb.training import DigitsJob, DigitsOptions, Model

XWB = [sys.executable, "-W", "error", "-m", "xwb"]
NAMES = ["width", "height", "depth"]
CLASSES = {
    "text": ["a,b", 'say "no"', "two\nlines", "plain"],
    "integers": [3, 7, 10**30, -1],
    "booleans": [False, True],
}
N = 40
X = np.random.default_rng(0).standard_normal((N, 3)).round(4)


def model_of(classes=(), targets=(), hidden=(), dtype=np.float64, **settings) -> Model:
    rng = np.random.default_rng(1)
    sizes = [3, *hidden, len(classes) or len(targets)]
    params = [a for D, M in pairwise(sizes) for a in (rng.standard_normal((D, M)), rng.random(M))]
    task, loss = ("classification", "softmax") if classes else ("regression", "squared_error")
    return Model(
        [a.astype(dtype) for a in params],
        **{
            "loss": loss,
            "task": task,
            "columns": [Column(name, "number") for name in NAMES],
            "mean": np.array([0.1, -0.2, 0.3]),
            "scale": np.array([1.0, 2.0, 0.5]),
            "classes": classes,
            "targets": targets,
            **settings,
        },
    )


def write_run(path, model, target="kind") -> Model:
    run = Run.create(path, {"job": "fit", "options": {"target": target}})
    model.save(run)
    run.close()
    return model


def write_csv(path, columns) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def by_hand(model, features=X):
    Z = (features - model.mean) / model.scale
    return Z @ model.params[0] + model.params[1]


def softmax_by_hand(scores):
    E = np.exp(scores)
    return E / E.sum(1, keepdims=True)


FEATURES = dict(zip(NAMES, X.T.tolist(), strict=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs of every kind of model, and files of rows."""
    folder = tmp_path_factory.mktemp("runs")
    for name, classes in CLASSES.items():
        write_run(folder / name, model_of(classes))
    write_run(folder / "single", model_of(CLASSES["text"], hidden=(5,), dtype=np.float32))
    write_run(folder / "hinge", model_of(CLASSES["text"], loss="hinge"))
    write_run(folder / "one", model_of(targets=["price"]), "price")
    write_run(folder / "two", model_of(targets=["price", "age, in years"]), ["price", "age, in years"])
    write_run(folder / "beside", model_of(CLASSES["integers"]), "labels.npy")
    write_run(folder / "damaged", model_of(CLASSES["text"]))
    (folder / "damaged" / "model.safetensors").write_bytes(b"nothing")
    Run.create(folder / "running", {"job": "fit"}).close()
    for _ in DigitsJob(DigitsOptions(hidden=(), epochs=1)).run(folder / "digits"):
        pass
    write_csv(folder / "rows.csv", {"other": ["ü"] * N, **dict(reversed(FEATURES.items()))})
    np.save(folder / "rows.npy", X)
    (folder / "folder").mkdir()
    for part in range(4):
        np.save(folder / "folder" / f"{part}.npy", X[10 * part : 10 * part + 10])
    write_csv(folder / "lacking.csv", {"width": [1], "Height": [2]})
    write_csv(folder / "missing.csv", {**FEATURES, "depth": ["1"] * 20 + [""] + ["1"] * (N - 21)})
    np.savez(folder / "several.npz", P=X, Q=X)
    (folder / "rows.txt").write_text("1 2 3\n")
    (folder / "short.npy").write_bytes((folder / "rows.npy").read_bytes()[:-7])
    write_csv(folder / "header.csv", {name: [] for name in NAMES})
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def one_line(text: str) -> bool:
    return text.startswith("xwb: ") and text.endswith("\n") and text.count("\n") == 1


def records(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def call(capfd, *args) -> str:
    assert main(list(map(str, args))) == 0
    said = capfd.readouterr()
    assert said.err == ""
    return said.out


# Predictions.


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("file", ["rows.csv", "rows.npy", "folder"])
def test_one_prediction_per_line(runs, capfd, name, file):
    model = model_of(CLASSES[name])
    expected = [str(CLASSES[name][k]) for k in by_hand(model).argmax(1)]
    said = call(capfd, "predict", runs / name, runs / file)
    assert records(said) == [[label] for label in expected]
    if name == "integers":
        assert said == "".join(f"{label}\n" for label in expected)


def test_several_files_are_one_table(runs, capfd):
    whole = call(capfd, "predict", runs / "integers", runs / "rows.npy")
    parts = [runs / "folder" / f"{part}.npy" for part in range(4)]
    assert call(capfd, "predict", runs / "integers", *parts) == whole


def test_quiet(runs, tmp_path, capfd):
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8)))
    text, digits = [runs / "text", runs / "rows.csv"], [runs / "digits", tmp_path / "images.npy"]
    for args in (text, [*text, "--proba"], digits, [*text, "--out", tmp_path / "p.csv"]):
        assert call(capfd, "predict", *args, "--quiet") == ""
    assert len((tmp_path / "p.csv").read_text().splitlines()) > N
    assert main(["predict", str(runs / "text"), str(runs / "missing.csv"), "--quiet"]) == 2
    assert one_line(capfd.readouterr().err)


@pytest.mark.parametrize("name", CLASSES)
def test_probabilities_read_back(runs, capfd, name):
    model = model_of(CLASSES[name])
    header, *rows = records(call(capfd, "predict", runs / name, runs / "rows.csv", "--proba"))
    assert header == ["label", *(f"p_{one}" for one in CLASSES[name])]
    P = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(P, softmax_by_hand(by_hand(model)), rtol=1e-12)
    assert [row[0] for row in rows] == [str(CLASSES[name][k]) for k in P.argmax(1)]


def test_single_precision_is_written_in_full(runs, capfd):
    _, *rows = records(call(capfd, "predict", runs / "single", runs / "rows.npy", "--proba"))
    P = np.array([row[1:] for row in rows], np.float32)
    np.testing.assert_array_equal(P, Model.load(runs / "single").probabilities(X))


@pytest.mark.parametrize(("name", "targets"), [("one", 1), ("two", 2)])
def test_regression(runs, capfd, tmp_path, name, targets):
    model = Model.load(runs / name)
    expected = by_hand(model)
    rows = records(call(capfd, "predict", runs / name, runs / "rows.csv"))
    np.testing.assert_allclose(np.array(rows, float), expected, rtol=1e-12)
    call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / "p.tsv")
    header, *rows = records((tmp_path / "p.tsv").read_text("utf-8"), "\t")
    assert header == model.targets
    np.testing.assert_allclose(np.array(rows, float), expected, rtol=1e-12)
    call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / "p.npy")
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected if targets > 1 else expected[:, 0], rtol=1e-12)
    call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / "p.jsonl")
    objects = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    assert [list(one) for one in objects] == [model.targets] * N
    np.testing.assert_allclose([list(one.values()) for one in objects], expected, rtol=1e-12)


@pytest.mark.parametrize("name", CLASSES)
def test_into_files(runs, capfd, tmp_path, name):
    model, classes = model_of(CLASSES[name]), CLASSES[name]
    P = softmax_by_hand(by_hand(model))
    expected = [classes[k] for k in P.argmax(1)]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        for proba in ([], ["--proba"]):
            call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / f"p{suffix}", *proba)
            header, *rows = records((tmp_path / f"p{suffix}").read_text("utf-8"), delimiter)
            assert header == ["label", *(f"p_{one}" for one in classes if proba)]
            assert [row[0] for row in rows] == list(map(str, expected))
    call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / "p.npy")
    labels = np.load(tmp_path / "p.npy")
    assert labels.dtype.kind == {"text": "U", "integers": "U", "booleans": "b"}[name]
    assert list(map(str, labels)) == list(map(str, expected))
    call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / "p.npy", "--proba")
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), P, rtol=1e-12)
    call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / "p.jsonl")
    objects = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    assert objects == [{"label": label} for label in expected]
    call(capfd, "predict", runs / name, runs / "rows.csv", "--out", tmp_path / "p.jsonl", "--proba")
    objects = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    assert [one["label"] for one in objects] == expected
    assert all(list(one["probabilities"]) == list(map(str, classes)) for one in objects)
    np.testing.assert_allclose([list(one["probabilities"].values()) for one in objects], P, rtol=1e-12)
    assert tree(tmp_path) == ["p.csv", "p.jsonl", "p.npy", "p.tsv"]


def test_no_rows(runs, capfd, tmp_path):
    assert call(capfd, "predict", runs / "text", runs / "header.csv") == ""
    call(capfd, "predict", runs / "text", runs / "header.csv", "--out", tmp_path / "p.npy", "--proba")
    assert np.load(tmp_path / "p.npy").shape == (0, 4)
    call(capfd, "predict", runs / "text", runs / "header.csv", "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "label\n"


def test_memory_is_bounded_and_many_blocks_are_one_file(runs, tmp_path, monkeypatch):
    """64 MB of rows; what Python and NumPy hold at once is a few blocks."""
    many = np.tile(X, (70_000, 1))
    np.save(tmp_path / "many.npy", many)
    expected = by_hand(Model.load(runs / "one"), many)[:, 0]
    monkeypatch.setattr(Model, "block_rows", 50_000)
    tracemalloc.start()
    try:
        assert main(["predict", str(runs / "one"), str(tmp_path / "many.npy"), "--out", str(tmp_path / "p.npy")]) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < many.nbytes / 4
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_rows_are_counted_over_all_blocks(runs, tmp_path, monkeypatch, capfd, command):
    write_csv(tmp_path / "t.csv", {**FEATURES, "depth": ["1"] * 20 + [""] + ["1"] * (N - 21), "kind": ["plain"] * N})
    monkeypatch.setattr(Model, "block_rows", 6)
    assert main([command, str(runs / "text"), str(tmp_path / "t.csv")]) == 2
    said = capfd.readouterr()
    assert "t.csv, row 21: depth is missing" in said.err
    assert len(records(said.out)) == (18 if command == "predict" else 0)  # three blocks were printed


# Mistakes.


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["text", "lacking.csv"], "lacks 2 of the 3 columns that the model reads (3 features): height, depth"),
        (["text", "several.npz"], "P, Q, each of width 3"),
        (["text", "rows.txt"], "no known suffix"),
        (["text", "short.npy"], "short.npy"),
        (["text", "nothing.csv"], "no such file"),
        (["text", "rows.csv", "rows.npy"], "have two"),
        (["text", "rows.csv", "--out", "p.txt"], ".csv, .tsv, .npy or .jsonl"),
        (["text", "rows.csv", "--out", "nowhere/p.csv"], "cannot write"),
        (["text", "rows.csv", "--out", "rows.csv"], "is the file that is read"),
        (["hinge", "rows.csv", "--proba"], "not probabilities"),
        (["one", "rows.csv", "--proba"], "not probabilities"),
        (["text", "missing.csv", "--out", "p.csv"], "missing.csv, row 21: depth is missing"),
        (["text", "missing.csv", "--out", "p.npy"], "missing.csv, row 21: depth is missing"),
        (["damaged", "rows.csv"], "damaged"),
        (["running", "rows.csv"], "no model"),
        (["nowhere", "rows.csv"], "no such folder"),
        (["folder", "rows.csv"], "no run"),
        (["digits", "rows.npy", "rows.npy"], "one file"),
        (["text"], "FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_in_predict_get_one_line(runs, monkeypatch, capsys, args, match):
    monkeypatch.chdir(runs)
    before = tree(runs), Path("rows.csv").read_bytes()
    assert main(["predict", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert one_line(said.err)
    assert match in said.err
    assert (tree(runs), Path("rows.csv").read_bytes()) == before


def test_a_full_disk_leaves_the_old_file(runs, tmp_path, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "p.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    assert main(["predict", str(runs / "text"), str(runs / "rows.csv"), "--out", str(tmp_path / "p.csv")]) == 1
    assert one_line(capsys.readouterr().err)
    assert tree(tmp_path) == ["p.csv"]
    assert (tmp_path / "p.csv").read_text() == "old"


def test_an_output_that_is_full(runs):
    with open("/dev/full", "w") as device:
        done = subprocess.run([*XWB, "predict", "text", "rows.csv"], cwd=runs, stdout=device, stderr=-1, text=True)
    assert done.returncode == 1
    assert one_line(done.stderr)


def test_a_reader_that_leaves(runs, tmp_path):
    np.save(tmp_path / "many.npy", np.tile(X, (20_000, 1)))
    command = [*XWB, "predict", str(runs / "text"), "many.npy"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_half_written(runs, tmp_path, number):
    """The file beside is there while it is written, and gone after the signal."""
    np.save(tmp_path / "many.npy", np.zeros((20_000_000, 3), np.uint8))
    (tmp_path / "p.csv").write_text("old")
    command = [*XWB, "predict", str(runs / "text"), "many.npy", "--proba", "--out", "p.csv"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1, text=True) as process:
        end = time.monotonic() + 60
        while not any(path.name.endswith(".tmp") and path.stat().st_size for path in tmp_path.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "xwb: interrupted\n")
    assert tree(tmp_path) == ["many.npy", "p.csv"]
    assert (tmp_path / "p.csv").read_text() == "old"


# Evaluation.


@pytest.fixture(scope="module")
def labelled(runs, tmp_path_factory) -> Path:
    """Rows with labels, some of them right."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(7)
    codes = np.where(rng.random(N) < 0.7, by_hand(model_of(CLASSES["text"])).argmax(1), rng.integers(0, 4, N))
    kinds = [CLASSES["text"][k] for k in codes]
    T = by_hand(Model.load(runs / "two")) + rng.standard_normal((N, 2))
    write_csv(
        folder / "t.csv",
        {**FEATURES, "kind": kinds, "price": T[:, 0], "age, in years": T[:, 1], "other": ["x", *kinds[1:]], "w": codes},
    )
    np.save(folder / "labels.npy", np.array(kinds))
    np.save(folder / "short.npy", np.array(kinds[1:]))
    np.save(folder / "strange.npy", np.full(N, "gnu"))
    np.savez(folder / "numbers.npz", **{name: X[:, i] for i, name in enumerate(NAMES)}, kind=np.array([3.0, 7.0] * 20))
    np.save(folder / "codes.npy", codes)
    return folder


def test_evaluate_prints_lines_and_json(runs, labelled, capfd):
    codes = np.load(labelled / "codes.npy")
    right = accuracy_score(codes, by_hand(model_of(CLASSES["text"])).argmax(1))
    said = call(capfd, "evaluate", runs / "text", labelled / "t.csv").splitlines()
    assert said[:2] == ["rows               40", f"accuracy           {100 * right:.1f} %"]
    assert any(line.startswith('say "no"') for line in said)
    assert any(line.startswith("two�lines") for line in said)
    result = json.loads(call(capfd, "evaluate", runs / "text", labelled / "t.csv", "--json"))
    assert result["accuracy"] == pytest.approx(right, rel=1e-12)
    beside = call(capfd, "evaluate", runs / "text", labelled / "t.csv", "--json", "--target", labelled / "labels.npy")
    assert json.loads(beside) == result


def test_evaluate_with_weights(runs, labelled, capfd):
    codes = np.load(labelled / "codes.npy")
    right = accuracy_score(codes, by_hand(model_of(CLASSES["text"])).argmax(1), sample_weight=codes)
    result = json.loads(call(capfd, "evaluate", runs / "text", labelled / "t.csv", "--json", "--weights", "w"))
    assert result["accuracy"] == pytest.approx(right, rel=1e-12)


def test_evaluate_a_float_column_of_integers(runs, labelled, capfd):
    said = [CLASSES["integers"][k] for k in by_hand(model_of(CLASSES["integers"])).argmax(1)]
    right = np.mean([one == label for one, label in zip(said, [3, 7] * 20, strict=True)])
    result = json.loads(call(capfd, "evaluate", runs / "integers", labelled / "numbers.npz", "--json"))
    assert result["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    ("name", "target"), [("one", []), ("two", []), ("two", ["--target", "age, in years"]), ("one", ["--target", "w"])]
)
def test_evaluate_regression(runs, labelled, capfd, name, target):
    rows = records((labelled / "t.csv").read_text("utf-8"))
    table = {column[0]: column[1:] for column in zip(*rows, strict=True)}
    targets = target[1:] or Model.load(runs / name).targets
    args = ["evaluate", runs / name, labelled / "t.csv", *target]
    if len(targets) != len(Model.load(runs / name).targets):
        assert main(list(map(str, args))) == 2
        assert "2 targets a row, and there are 1" in capfd.readouterr().err
        return
    T = np.array([table[one] for one in targets], float).T
    result = json.loads(call(capfd, *args, "--json"))
    assert result["r2"] == pytest.approx(r2_score(T, by_hand(Model.load(runs / name))), rel=1e-9)


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["text", "t.csv", "--target", "nope"], "no column 'nope'"),
        (["text", "t.csv", "--target", "other"], "1 row has a label that the model does not know: 'x' (1 row)"),
        (["text", "t.csv", "--target", "strange.npy"], "xwb: strange.npy: 40 rows have labels that the model does not"),
        (["text", "t.csv", "--target", "short.npy"], "have different numbers of rows"),
        (["text", "t.csv", "--target", "width"], "feature"),
        (["text", "t.csv", "--weights", "kind"], "holds no weights"),
        (["beside", "t.csv"], "trained with the labels in labels.npy"),
        (["text", "labels.npy"], "lacks 3 of the 3 columns"),
        (["digits", "t.csv"], "xwb train FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_in_evaluate_get_one_line(runs, labelled, monkeypatch, capsys, args, match):
    monkeypatch.chdir(labelled)
    assert main(["evaluate", str(runs / args[0]), *args[1:]]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert one_line(said.err)
    assert match in said.err
