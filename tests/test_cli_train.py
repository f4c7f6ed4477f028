"""``xwb train FILE``: every kind of file, one line for every mistake, the budget of memory, interruptions, words."""

from __future__ import annotations

import csv
import errno
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import xwb.reports
from test_cli import XWB, on_terminal, one_line, tree, wait_for
from xwb import RunError
from xwb.cli import main
from xwb.runs import Run
from xwb.training import FitOptions, Model, fit, prepare

RNG = np.random.default_rng(0)
N, D = 150, 4
CODES = RNG.integers(0, 3, N)
X = (1.5 * RNG.standard_normal((3, D))[CODES] + RNG.standard_normal((N, D))).astype(np.float32).round(3)
ANIMALS = np.array(["cow", "dog", "emu"])[CODES].tolist()
FEATURES = {f"x{i}": X[:, i].tolist() for i in range(D)}
PRICES = (X @ RNG.standard_normal((D, 2)) + 0.1 * RNG.standard_normal((N, 2))).round(4)
WHOLE = ["metrics.jsonl", "model.safetensors", "report.html", "run.json"]


def write(path, columns, delimiter=","):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with the same examples in files of every format, and files with something wrong."""
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "X.npy", X)
    np.save(folder / "codes.npy", CODES)
    np.save(folder / "other.npy", CODES[::-1])
    np.save(folder / "animals.npy", ANIMALS)
    np.savez(folder / "both.npz", X=X, code=CODES)
    np.savez(folder / "split.npz", X_train=X[:90], y_train=CODES[:90], X_test=X[90:], y_test=CODES[90:])
    save_file({"X": X, "code": CODES}, folder / "both.safetensors")
    write(folder / "a.csv", {**FEATURES, "animal": ANIMALS})
    write(folder / "a.tsv", {**FEATURES, "animal": ANIMALS}, "\t")
    write(folder / "true.csv", {**FEATURES, "ok": CODES > 0})
    write(folder / "all.csv", {**FEATURES, "animal": ANIMALS, "w": RNG.random(N).round(2), "who": np.arange(N) // 5})
    write(folder / "price.csv", {**FEATURES, "price": PRICES[:, 0]})
    write(folder / "prices.csv", {**FEATURES, "price": PRICES[:, 0], "size": PRICES[:, 1]})
    write(folder / "comma.csv", {**FEATURES, "price, in €": PRICES[:, 0]})
    write(folder / "test.csv", {"animal": ANIMALS[:30], **{name: values[:30] for name, values in FEATURES.items()}})
    lists = pa.array(list(X), pa.list_(pa.float32()))
    pq.write_table(pa.table({"embedding": lists, "animal": ANIMALS}), folder / "a.parquet")
    (folder / "parts").mkdir()
    for i in range(3):
        cut = slice(50 * i, 50 * i + 50)
        write(folder / "parts" / f"{i}.csv", {**{k: v[cut] for k, v in FEATURES.items()}, "animal": ANIMALS[cut]})
    lines = [f"{y} " + " ".join(f"{i + 1}:{x}" for i, x in enumerate(row)) for y, row in zip(CODES, X, strict=True)]
    (folder / "a.svm").write_text("\n".join(lines) + "\n")
    write(folder / "text.csv", {**FEATURES, "city": ANIMALS, "animal": ANIMALS})
    write(folder / "blank.csv", {**FEATURES, "animal": ["", *ANIMALS[1:]]})
    write(folder / "one.csv", {**FEATURES, "animal": ["cow"] * N})
    write(folder / "strange.csv", {**FEATURES, "animal": ["yak"] * N})
    write(folder / "huge.csv", {"x": [0.5] * 9, "z": [*range(9)], "y": [0.1] * 3 + [1e200] + [0.1] * 5})
    np.save(folder / "nan.npy", np.where(np.arange(D) + np.arange(N)[:, None] == 20, np.nan, X))
    np.save(folder / "short.npy", CODES[:-1])
    np.save(folder / "five.npy", X[:5])
    np.save(folder / "five_codes.npy", np.arange(5))
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter").write_text("dear")
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    return tmp_path / "run"


def record_of(path):
    def refuse(word):
        raise AssertionError(word)

    return json.loads((path / "run.json").read_text(), parse_constant=refuse)


# Files and options.

FORMATS = {
    "npy": "X.npy --target codes.npy",
    "labels of text": "X.npy --target animals.npy",
    "npz": "both.npz --target code",
    "csv": "a.csv --target animal",
    "tsv": "a.tsv --target animal",
    "parquet": "a.parquet --target animal",
    "safetensors": "both.safetensors --target code",
    "libsvm": "a.svm --target label",
    "folder": "parts --target animal",
    "several": "parts/0.csv parts/1.csv parts/2.csv --target animal",
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_model(here, capsys, name):
    assert main(["train", *FORMATS[name].split(), "--out", str(here), "--quiet"]) == 0
    assert tree(here) == WHOLE
    record = record_of(here)
    assert record["metrics"]["validation"]["accuracy"] > 0.8
    main(["train", *FORMATS["csv"].split(), "--out", str(here.parent / "csv"), "--quiet"])
    same = record_of(here.parent / "csv")
    assert record["fit"]["objective"] == pytest.approx(same["fit"]["objective"], rel=1e-4)
    assert capsys.readouterr().out == ""
    words = FORMATS[name].split()
    source = words[: words.index("--target")]
    assert main(["predict", str(here), *source]) == 0
    answers = capsys.readouterr().out.splitlines()
    truth = ANIMALS if record["data"]["classes"] == ["cow", "dog", "emu"] else list(map(str, CODES))
    assert np.mean([a == b for a, b in zip(answers, truth, strict=True)]) > 0.8
    assert main(["evaluate", str(here), *source, *(words[-2:] if words[-1].endswith(".npy") else [])]) == 0


def test_a_libsvm_file_may_lack_the_last_features(here, tmp_path, capsys):
    rows = [f"{y} 1:{row[0]} 2:{row[1]}" for y, row in zip(CODES, X, strict=True)]
    texts = {"short": rows, "whole": [f"{row} 4:0" for row in rows], "larger": [f"{row} 5:1" for row in rows]}
    for name, lines in texts.items():
        (tmp_path / f"{name}.svm").write_text("\n".join(lines) + "\n")
    said = []
    for name in ("short", "whole"):
        file = str(tmp_path / f"{name}.svm")
        assert main(["train", "a.svm", "--target", "label", "--test", file, "--out", str(here), "--quiet"]) == 0
        assert main(["predict", str(here), file]) == main(["evaluate", str(here), file]) == 0
        said.append((record_of(here)["metrics"], capsys.readouterr().out))
    assert said[0] == said[1]
    for command in (["predict", str(here)], ["evaluate", str(here)], ["train", "a.svm", "--target", "label", "--test"]):
        assert main([*command, str(tmp_path / "larger.svm")]) == 2
        assert "has a feature of index 5, and the model reads indices from 1 to 4" in capsys.readouterr().err


JOBS = {  # how the fit ends, and what it says among the rest
    "true.csv --target ok": ("gap", r"since the target is true or false"),
    "price.csv --target price": ("solved", r"since the target has fractions"),
    "prices.csv --target price,size": ("solved", r"target .*\nprice .*\nsize "),
    "comma.csv --target price,_in_€": ("solved", r"1 target"),
    "price.csv --target price --solver lbfgs": ("gap", r"solver         lbfgs, as asked"),
    "price.csv --target price --l2 0": ("solved", r"no bound on the distance to the optimum, since λ is 0"),
    "all.csv --target animal --weights w --groups who": ("gap", r"train 120, validation 30 rows; 4 features, 3 class"),
    "all.csv --target animal --weights w --features x0": ("gap", r"\nweights +each row counts by its weight, and supp"),
    "all.csv --target w --weights who --features x0": ("solved", r"\nweights +each row counts by its weight\n"),
    "all.csv --target animal --features x0,x2 --class-weight balanced": ("gap", r"2 features"),
    "a.csv --target animal --test test.csv --holdout 0": ("gap", r"train 150, test 30 rows(.|\n)*\ntest\nrows +30\n"),
    "X.npy --target codes.npy --test X.npy --test-target codes.npy": ("gap", r"\n\nvalidation +acc.*\ntrain +acc"),
    "a.csv --target animal --no-standardise --penalise-bias": ("gap", r"above the optimum"),
    "a.csv --target animal --hidden 8,4 --epochs 2": ("epochs", r"a network has no closed form"),
    "a.csv --target animal --hidden 8 --epochs 3": ("epochs", r"kept +epoch \d of 3, the best on validation\n"),
    "a.csv --target animal --hidden 8 --epochs 3 --holdout 0": ("epochs", r"kept +epoch 3 of 3, the last\n"),
    "a.csv --target animal --loss squared_hinge": ("gap", r"lbfgs: squared_hinge"),
    "a.csv --target animal --loss hinge --epochs 2": ("epochs", r"hinge has kinks"),
    "a.csv --target animal --loss squared_hinge --kind crammer_singer --epochs 2": ("epochs", r"has kinks"),
    "price.csv --target price --solver sgd --epochs 2": ("epochs", r"epoch 2 .* done\n"),
    "a.csv --target animal --max-evaluations 2": ("limit", r"note +stopped at --max-evaluations before"),
    "a.csv --target animal --lr 1 --epochs 9": ("gap", r"note +--lr, --epochs have no effect here\n"),
    "a.csv --target animal --sweep l2=1e-4:1:3": ("gap", r"\nl2 1 .*\nchosen +l2 .*, refitted on train and validation"),
    "a.csv --target animal --sweep loss=softmax,squared_hinge --sweep l2=0,1": (
        "gap",
        r"2 heads; lbfgs: squared_hinge(.|\n)* <\n",
    ),
    "a.csv --target animal --hidden 4 --epochs 2 --sweep lr=0.1,0.01": ("epochs", r"refit  epoch 2"),
    "a.csv --target animal --solver adam --epochs 2 --sweep seed=1,2": ("epochs", r"head 2/2  epoch 2 "),
    "a.csv --target animal --sweep loss=hinge,softmax --sweep l2=0.1,1 --epochs 2": ("gap|epochs", r"2 heads; adam"),
    "a.csv --target animal --memory 4GB": ("gap", r"objective"),
}


@pytest.mark.parametrize("job", JOBS)
def test_what_it_trains_and_says(here, capsys, job):
    stopped, words = JOBS[job]
    assert main(["train", *(word.replace("_in_", " in ") for word in job.split()), "--out", str(here)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert re.search(words, said.out)
    assert not re.search(r" $", said.out, re.MULTILINE)
    assert said.out.splitlines()[-1].split()[:2] == ["run", str(here)]
    record = record_of(here)
    assert re.fullmatch(stopped, record["fit"]["stopped"])
    assert tree(here) == WHOLE
    assert len(re.findall(r"^validation\b", said.out, re.MULTILINE)) == ("validation" in record["metrics"])
    Model.load(here)


def test_whole_floats(here, capsys):
    np.save(here.parent / "y.npy", np.arange(N) % 100 * 1.0)
    call = ["train", "X.npy", "--target", str(here.parent / "y.npy"), "--out", str(here)]
    assert main(call) == 0
    assert re.search(
        r"regression, since .*150 rows; --task classification makes each a class\n", capsys.readouterr().out
    )
    assert main([*call, "--task", "classification", "--holdout", "0", "--max-evaluations", "2"]) == 0
    assert "classification, as asked" in capsys.readouterr().out


def test_rare_classes_are_told(here, capsys):
    y = np.zeros(5000, int)
    y[:2] = 1
    np.savez(here.parent / "rare.npz", X=np.arange(5000.0)[:, None], y=y)
    assert main(["train", str(here.parent / "rare.npz"), "--target", "y", "--out", str(here)]) == 0
    said = capsys.readouterr().out
    assert "no validation row is of the class 1\n" in said
    assert "the class 1 has 2 of 4,000 training rows; --class-weight balanced makes" in said


def test_json_and_quiet(here, capfd):
    call = ["train", "a.csv", "--target", "animal", "--out", str(here)]
    assert main([*call, "--json"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    found = json.loads(said.out)
    assert set(found) == {"status", "fit", "sweep", "metrics", "classes", "run"}
    assert found["classes"] == ["cow", "dog", "emu"]
    assert found["metrics"] == record_of(here)["metrics"]
    assert main(["evaluate", str(here), "a.csv", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["classes"] == ["cow", "dog", "emu"]
    assert main([*call, "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_json_of_numbers(here, capfd):
    assert main(["train", "prices.csv", "--target", "price,size", "--out", str(here), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["targets"] == ["price", "size"]
    assert main(["evaluate", str(here), "prices.csv", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["targets"] == ["price", "size"]


def test_the_record_has_the_call(here):
    call = ["train", "prices.csv", "--target", "price,size", "--out", str(here), "--quiet", "--holdout", "0.5"]
    assert main(call) == 0
    record = record_of(here)
    assert record["command"] == ["xwb", *call]
    assert record["options"]["target"] == ["price", "size"]
    assert record["options"]["holdout"] == 0.5
    assert record["data"]["source"] == ["prices.csv"]


def test_the_usual_folder(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(files / "a.csv"), "--target", "animal", "--quiet"]) == 0
    assert tree(tmp_path) == ["runs", "runs/a", *(f"runs/a/{name}" for name in WHOLE)]


def test_help_states_the_real_defaults(capsys):
    assert main(["train", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    options = FitOptions()
    numbers = {n: getattr(options, n) for n in ("l2", "epochs", "batch", "tolerance", "max_evaluations", "seed")}
    numbers["holdout"] = inspect.signature(prepare).parameters["holdout"].default
    for name, number in numbers.items():
        option = name.replace("_", "-")
        assert re.search(rf"--{option} (?:(?! --).)*\(default {number}\)", said), name


# Mistakes.

MISTAKES = {
    "a.csv": "Missing option '--target'",
    "--target animal": "Missing argument",
    "missing.csv --target y": "no such file",
    "a.csv --target animl": "did you mean animal?",
    "a.csv --target animal --features x0,x9": "no column 'x9'",
    "a.csv --target animal --weights x11": "did you mean x1",
    "a.csv --target animal --weights animal": "--weights: the column animal holds no numbers",
    "a.csv --target animal --groups animal": "a column has one role",
    "text.csv --target animal": "city holds text; leave it out:  --features x0,x1,x2,x3",
    "nan.npy --target codes.npy": "row 18: the feature X[3] is nan",
    "blank.csv --target animal": "row 1: the target animal is missing",
    "one.csv --target animal": "one class only",
    "a.csv --target animal --test strange.csv": "labels that no class of the training data is: 'yak'",
    "a.csv --target animal --test price.csv": "no column 'animal'",
    "a.csv --target animal --test-target codes.npy": "--test-target goes with",
    "a.csv --target animal --test test.csv --test-target codes.npy": "--test-target goes with",
    "split.npz --features X_train --target y_train --test split.npz --test-target y_test": "a file of its "
    'own with the names of training: np.savez("test.npz", X_train=X_test, y_train=y_test) and --test test.npz',
    "split.npz --features X_train --target y_test": "has 60 and X_train has 90; a test "
    'part is a file of its own with the names of training: np.savez("test.npz", X_train=X_test, y_train=y_test)',
    "X.npy --target codes.npy --test X.npy": "takes  --test-target LABELS.npy  too",
    "X.npy --target short.npy": "149 rows",
    "huge.csv --target y": "row 4: the target y is 1e+200, and squares of such numbers overflow",
    "huge.csv --target x --features z --weights y": "row 4: the weight is 1e+200, and only their ratios count",
    "five.npy --target five_codes.npy": "none of the 5 classes has 3 rows",
    "a.csv --target animal --task regression": "holds text",
    "price.csv --target price --task classification": "none of the",
    "price.csv --target price --loss softmax": "does not fit a target of numbers",
    "a.csv --target animal --loss squared_error": "does not fit a target of classes",
    "price.csv --target price --class-weight balanced": "the task is regression",
    "a.csv --target animal --l2 -1": "--l2 must be",
    "a.csv --target animal --l2 much": "'--l2'",
    "a.csv --target animal --lr 0": "--lr must be",
    "a.csv --target animal --epochs 0": "--epochs must be",
    "a.csv --target animal --batch 0": "--batch must be",
    "a.csv --target animal --seed -1": "--seed must be",
    "a.csv --target animal --tolerance 1": "--tolerance must be",
    "a.csv --target animal --max-evaluations 0": "--max-evaluations must be",
    "a.csv --target animal --hidden 0": "--hidden must be",
    "a.csv --target animal --hidden many": "neither none nor widths",
    "a.csv --target animal --hidden 4 --solver lbfgs": "is for linear heads",
    "a.csv --target animal --solver normal": "is for squared error",
    "a.csv --target animal --solver lbfgs --loss hinge": "has kinks",
    "a.csv --target animal --holdout 1": "--holdout is a fraction",
    "a.csv --target animal --holdout nan": "--holdout is a fraction",
    "a.csv --target animal --memory lots": "no amount of memory",
    "a.csv --target animal --memory 10MB": "--memory 10MB is too little",
    "a.csv --target animal --memory 300": "300 is a number of bytes; for megabytes type --memory 300MB",
    "one.csv --target x0 --features x1 --groups animal": "--groups animal has one value in all 150 rows, and rows of",
    "a.csv --target animal --sweep l2": "not of the form",
    "a.csv --target animal --sweep l3=1": "did you mean lr?",
    "a.csv --target animal --sweep l2=a": "nor numbers",
    "a.csv --target animal --sweep l2=1:0.1:3": "nor numbers",
    "a.csv --target animal --sweep l2=1e-6:1:1": "nor numbers",
    "a.csv --target animal --sweep l2=nan": "--l2 must be",
    "a.csv --target animal --sweep l2=1 --sweep l2=2": "given twice",
    "a.csv --target animal --sweep loss=softmx": "--loss must be one of",
    "a.csv --target animal --sweep seed=1.5": "seeds are whole numbers",
    "a.csv --target animal --sweep seed=inf": "seeds are whole numbers",
    "a.csv --target animal --sweep lr=0.1,1": "changes nothing, since the solver is lbfgs",
    "a.csv --target animal --sweep l2=0,1 --holdout 0": "chooses by validation",
    "a.csv --target animal --out thesis": "is no run of xwb",
    "a.csv --target animal --out a.csv": "is no folder",
    "a.csv --target animal --out a.csv/run": "is no folder",
    "a.csv a.tsv --target animal": "have one format",
    "letters --target animal": "no known suffix",
}


@pytest.mark.parametrize("args", MISTAKES)
def test_mistakes_get_one_line(files, monkeypatch, capsys, args):
    monkeypatch.chdir(files)
    before = tree(files)
    assert main(["train", *args.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert one_line(said.err)
    assert " ".join(MISTAKES[args].split()) in said.err
    assert tree(files) == before


def test_divergence_is_an_exit_code_of_1(here, capsys):
    call = ["train", "a.csv", "--target", "animal", "--solver", "sgd", "--lr", "1e30", "--out", str(here)]
    assert main(call) == 1
    assert one_line(capsys.readouterr().err)
    assert not here.exists()


DIVERGED = {
    "--lr 1e30": r"^xwb: training diverged in epoch 1: .*, since the steps are too large; try --lr 0\.1$",
    "--sweep lr=1e30,1e31": r"no head has a finite loss, .*; try smaller values in --sweep lr$",
    "--lr 0.05 --no-standardise": r"try --lr 0\.005, or leave out --no-standardise: large features make large steps$",
}


@pytest.mark.parametrize("options", DIVERGED)
def test_what_to_do_when_training_diverged(here, tmp_path, capsys, options):
    write(tmp_path / "large.csv", {name: 1e25 * np.array(x) for name, x in FEATURES.items()} | {"animal": ANIMALS})
    call = ["train", str(tmp_path / "large.csv"), "--target", "animal", "--solver", "sgd", "--out", str(here)]
    assert main([*call, *options.split()]) == 1
    said = capsys.readouterr().err
    assert one_line(said)
    assert re.search(DIVERGED[options], said)
    assert not here.exists()


SAID_OF_LARGE_STEPS = {
    "--sweep lr=1e30,0.1": r"\nnote +1 head diverged, since the steps were too large; try a smaller --lr there\n",
    "--lr 1e8 --epochs 2": r"\nnote +with equal scores .* 1\.1; the steps may be too large: try  --lr 0\.1\n",
    "--lr 1e8 --epochs 2 --loss hinge": r"\nnote +with equal scores for all classes it would be 2; ",
}


@pytest.mark.parametrize("options", SAID_OF_LARGE_STEPS)
def test_steps_that_were_too_large(here, capsys, options):
    call = ["train", "a.csv", "--target", "animal", "--solver", "sgd", "--out", str(here)]
    assert main([*call, *options.split()]) == 0
    assert re.search(SAID_OF_LARGE_STEPS[options], capsys.readouterr().out)


def test_a_page_that_cannot_be_written_does_not_hide_the_rest(here, monkeypatch, capsys):
    def full(run):
        raise RunError("cannot write: No space left on device") from OSError(errno.ENOSPC, "")

    monkeypatch.setattr(xwb.reports, "write_fit_report", full)
    assert main(["train", "a.csv", "--target", "animal", "--out", str(here)]) == 1
    said = capsys.readouterr()
    assert re.search(r"^objective", said.out, re.MULTILINE)
    assert one_line(said.err)


def test_an_older_run_stays_when_the_file_is_wrong(here):
    assert main(["train", "a.csv", "--target", "animal", "--quiet", "--out", str(here)]) == 0
    before = (here / "model.safetensors").read_bytes()
    assert main(["train", "nan.npy", "--target", "codes.npy", "--out", str(here)]) == 2
    assert (here / "model.safetensors").read_bytes() == before


# Memory.

PEAK = r"""
import re, sys
from pathlib import Path
from xwb.cli import main
code = main(sys.argv[1:])
print(1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_the_whole_process_keeps_to_the_budget(tmp_path):
    rows, width, budget = 300_000, 256, 160_000_000  # 307 MB; 150 MB do here, more threads take more
    rng = np.random.default_rng(0)
    block = rng.standard_normal((1000, width), np.float32)
    codes = rng.integers(0, 10, rows)
    with open(tmp_path / "X.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
        for _ in range(rows // len(block)):
            block.tofile(file)
    np.save(tmp_path / "y.npy", codes)
    args = ["train", "X.npy", "--target", "y.npy", "--memory", "160MB", "--max-evaluations", "2", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PEAK, *args], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    for name in ("X.npy", "y.npy"):  # pytest keeps the folders of the last runs
        (tmp_path / name).unlink()
    assert done.returncode == 0, done.stderr
    assert "does not fit in memory and is read from disk" in done.stdout
    assert record_of(tmp_path / "run")["data"]["streamed"]
    assert int(done.stderr) < budget


# Interruption, pipes, terminals.


def interrupted(files, out, number, *more):
    """The process after a signal in the midst of training."""
    args = ["train", files / "a.csv", "--target", "animal", "--epochs", "1000000", "--out", out, *more]
    process = subprocess.Popen([*XWB, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    with process:
        try:
            wait_for(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 5, process)
            process.send_signal(number)
            said, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, said, err


@pytest.mark.parametrize(
    ("number", "more"),
    [
        (signal.SIGINT, ["--hidden", "4"]),
        (signal.SIGTERM, ["--solver", "sgd", "--sweep", "lr=0.01,0.001"]),
    ],
)
def test_an_interruption_keeps_what_was_reached(files, tmp_path, number, more):
    out = tmp_path / "run"
    code, said, err = interrupted(files, out, number, *more)
    assert code == 130
    assert one_line(err)
    assert f"what was reached is in {out}" in err
    assert re.search(r"^validation$", said, re.MULTILINE)
    assert tree(out) == WHOLE
    assert record_of(out)["status"] == "interrupted"
    assert main(["predict", str(out), str(files / "a.csv"), "--out", str(tmp_path / "p.csv")]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_preparing_leaves_nothing(here, monkeypatch, capsys, number):
    from xwb.training import _prepare

    monkeypatch.setattr(_prepare, "pack", lambda *args: os.kill(os.getpid(), number))
    assert main(["train", "a.csv", "--target", "animal", "--out", str(here)]) == 130
    assert capsys.readouterr().err == "xwb: interrupted\n"
    assert not here.exists()


def test_a_reader_that_leaves(files, tmp_path):
    args = ["train", files / "a.csv", "--target", "animal", "--out", "run"]
    process = subprocess.Popen([*XWB, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0
    assert tree(tmp_path / "run") == WHOLE


def test_an_output_that_is_full(files, tmp_path):
    with open("/dev/full", "w") as device:
        args = [*XWB, "train", files / "a.csv", "--target", "animal", "--out", tmp_path / "run"]
        done = subprocess.run(args, stdout=device, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert one_line(done.stderr)
    assert not (tmp_path / "run").exists()


def test_a_terminal_gets_a_line_that_changes(files, tmp_path):
    call = ["train", files / "a.csv", "--target", "animal", "--out", "run"]
    said = on_terminal([*call, "--hidden", "4", "--epochs", "300"], tmp_path)
    assert re.search(
        r"epoch \d+  objective [\d.]+  validation accuracy [\d.]+ %  about [\d,]+ s left  [\d,]+ rows/s", said
    )
    assert "\x1b" in said
    assert "objective  " in said
    said = on_terminal(call, tmp_path, TERM="dumb")
    assert "\x1b" not in said
    assert re.search(r"^evaluation 1  objective .*gap [\d.e+-]+ ", said, re.MULTILINE)


# The page.


def test_the_page_of_a_sweep(here):
    call = "train a.csv --target animal --sweep loss=softmax,squared_hinge --sweep l2=1e-3,1e-2,1 --quiet"
    assert main([*call.split(), "--out", str(here)]) == 0
    page = (here / "report.html").read_text()
    record = Run.open(here).record
    loss = {"softmax": "softmax cross-entropy", "squared_hinge": "the squared multiclass hinge"}[record["fit"]["loss"]]
    assert f"trained with {loss} on 150 rows of 150" in page
    assert "measured before the chosen head was trained once more" in page
    for title in ("Heads that were tried", "The way to the optimum", "Confusion", "Validation accuracy"):
        assert title in page
    for wrong in ("None", "{&#x27;", "{}", "training rows; the ring", "lbfgs, lbfgs"):
        assert wrong not in page
    least = record["sweep"]["heads"][record["sweep"]["chosen"]]
    assert f"a lower bound of its optimum, {least['objective'] - least['gap']:.5g}" in page


def test_the_page_of_a_network(here):
    call = "train a.csv --target animal --hidden 4 --epochs 3 --quiet"
    assert main([*call.split(), "--out", str(here)]) == 0
    page = (here / "report.html").read_text()
    assert "A 4–4–3 relu network, trained with softmax cross-entropy on 120 rows of 150" in page
    assert "after the last epoch" in page
    assert "evaluations</dt>" not in page


# What evaluate knows of the run.

SEEN = "note           these are the rows it was trained on: expect less of new ones"


@pytest.mark.parametrize(
    ("job", "same", "new"),
    [
        ("a.csv --target animal --test test.csv", "a.csv", "test.csv"),
        ("X.npy --target codes.npy", "both.npz --target code", "X.npy --target other.npy"),
        ("price.csv --target price", "prices.csv", "prices.csv --target size"),
    ],
)
def test_evaluate_knows_the_rows_that_the_model_was_trained_on(here, capsys, job, same, new):
    assert main(["train", *job.split(), "--out", str(here), "--quiet"]) == 0
    for call, seen in ((same, True), (new, False)):
        assert main(["evaluate", str(here), *call.split()]) == 0
        assert (SEEN in capsys.readouterr().out.splitlines()) == seen
        assert main(["evaluate", str(here), *call.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["trained_on"] == seen


def test_evaluate_weighs_rows_as_training_did(here, capsys):
    call = "all.csv --target animal --features x0,x1,x2,x3 --weights w --test all.csv"
    assert main(["train", *call.split(), "--out", str(here), "--quiet"]) == 0
    accuracy = record_of(here)["metrics"]["test"]["accuracy"]
    found, said = {}, {}
    for words in ("all.csv", "all.csv --weights who", "a.csv"):
        assert main(["evaluate", str(here), *words.split()]) == 0
        said[words] = capsys.readouterr().out
        assert main(["evaluate", str(here), *words.split(), "--json"]) == 0
        found[words] = json.loads(capsys.readouterr().out)
    assert {words: one["weights"] for words, one in found.items()} == {
        "all.csv": "w",
        "all.csv --weights who": "who",
        "a.csv": None,
    }
    assert found["all.csv"]["accuracy"] == pytest.approx(accuracy, rel=1e-12)
    assert found["a.csv"]["accuracy"] != pytest.approx(accuracy, rel=1e-12)
    assert "note           rows weigh what the column w says, as in training; --weights COLUMN" in said["all.csv"]
    assert "note           rows count 1 each: a.csv lacks the weights of training, w; --weights COLUMN" in said["a.csv"]
    assert "as in training" not in said["all.csv --weights who"]
    weights = "weights            each row counts by its weight, and support is a sum of weights"
    assert [weights in text.splitlines() for text in said.values()] == [True, True, False]


def test_evaluate_of_a_run_from_python_knows_its_weights(here, capsys):
    for weights, said in (("w", "rows weigh what the column w says"), (CODES + 1.0, "of training, array (150,);")):
        fit("all.csv", "animal", features=list(FEATURES), weights=weights, out=here)
        assert main(["evaluate", str(here), "all.csv"]) == 0
        assert said in capsys.readouterr().out
