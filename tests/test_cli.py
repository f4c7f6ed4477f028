"""The command: one line and an exit code for every mistake, a clean end when interrupted, output that pipes bear."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import xwb
from xwb import RunError
from xwb.cli import commands, main
from xwb.runs import Run, _store
from xwb.training import Classifier, DigitsJob, DigitsOptions, as_features, load_digits

XWB = [sys.executable, "-W", "error", "-m", "xwb"]
QUICK = ["train", "digits", "--hidden", "none", "--epochs", "3"]
IMAGES = load_digits().images


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the runs ``softmax``, ``svm``, ``damaged`` and ``running``, and files of images."""
    folder = tmp_path_factory.mktemp("predict")
    for name, loss in (("softmax", "softmax"), ("svm", "svm"), ("damaged", "softmax")):
        job = DigitsJob(DigitsOptions(hidden=(), epochs=3, loss=loss))
        for _ in job.run(folder / name):
            pass
    model = folder / "damaged" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\xff")
    Run.create(folder / "running", {})
    np.save(folder / "good.npy", IMAGES)
    np.save(folder / "shape.npy", np.zeros((3, 63)))
    np.save(folder / "nan.npy", np.full((1, 64), np.nan))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "short.npy").write_bytes((folder / "good.npy").read_bytes()[:-7])
    (folder / "folder").mkdir()
    return folder


def one_line(text: str) -> bool:
    return text.startswith("xwb: ") and text.endswith("\n") and text.count("\n") == 1


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def run(args, cwd, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*XWB, *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False, **options)


# What it says of itself.


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for code in ("0  ", "1  ", "2  ", "130"):
        assert re.search(rf"^\s+{code}\s*\w+", said, re.MULTILINE)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"xwb {xwb.__version__}\n"


def test_help_states_the_real_defaults(capsys):
    assert main(["train", "digits", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    options = DigitsOptions()
    for name in ("loss", "epochs", "lr", "batch", "seed"):
        assert re.search(rf"--{name} (?:(?! --).)*\(default {getattr(options, name)}\)", said), name
    assert f"(default {','.join(map(str, options.hidden))})" in said


def test_help_is_light(tmp_path):
    heavy = ["scipy", "rich", "safetensors"]
    code = f"import sys; from xwb.cli import main; main(['--help']); assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


@pytest.mark.parametrize("args", [[], ["train"]])
def test_without_a_command_it_shows_help(capsys, args):
    assert main(args) == 2
    said = capsys.readouterr().err
    assert said.startswith(" ".join(["Usage: xwb", *args]))
    assert "--help" in said


# Training.


def test_train_on_a_pipe(tmp_path):
    done = run([*QUICK, "--seed", "2"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search(r"[^\n -~\u2013]", done.stdout)  # no control characters
    folder = tmp_path / "runs" / "digits-none-seed2"
    assert tree(folder) == ["metrics.jsonl", "model.safetensors", "report.html", "run.json"]
    record = json.loads((folder / "run.json").read_text())
    assert record["command"] == ["xwb", *QUICK, "--seed", "2"]
    assert [row["name"] for row in record["gradient_check"]["rows"]] == ["W1", "b1"]
    for row in record["gradient_check"]["rows"]:
        assert f"{row['closed_form']:.7e}" in done.stdout
        assert f"{row['numeric']:.7e}" in done.stdout
    assert len(re.findall(r"^epoch \d/3  loss", done.stdout, re.MULTILINE)) == 4
    assert f"test accuracy  {100 * record['metrics']['test']['accuracy']:.1f} %" in done.stdout
    assert "runs/digits-none-seed2" in done.stdout.splitlines()[-1]


def test_the_same_command_gives_the_same_model_in_another_process(tmp_path):
    models = []
    for name in ("a", "b"):
        assert run(["train", "digits", "--epochs", "4", "--quiet", "--out", name], tmp_path).returncode == 0
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_quiet_says_nothing(tmp_path, capfd):
    assert main([*QUICK, "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_run_is_overwritten_and_only_a_run(tmp_path, capfd):
    out = str(tmp_path / "run")
    assert main([*QUICK, "--out", out]) == 0
    assert main([*QUICK, "--out", out, "--seed", "1"]) == 0
    assert Run.open(out).record["seed"] == 1
    capfd.readouterr()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("dear")
    assert main([*QUICK, "--out", str(tmp_path / "thesis")]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert one_line(said.err)
    assert tree(tmp_path / "thesis") == ["chapter"]


@pytest.mark.parametrize(
    "args",
    [
        ["--hidden", "many"],
        ["--hidden", "128,"],
        ["--hidden", ""],
        ["--hidden", "0"],
        ["--hidden", "-5"],
        ["--hidden", "9" * 30],
        ["--loss", "l2"],
        ["--lr", "0"],
        ["--lr", "-1"],
        ["--lr", "nan"],
        ["--lr", "fast"],
        ["--epochs", "0"],
        ["--epochs", "-1"],
        ["--epochs", "1.5"],
        ["--batch", "0"],
        ["--batch", "1079"],
        ["--seed", "-1"],
        ["--seed"],
        ["--frobnicate"],
        ["extra"],
        ["--out", "file"],
        ["--out", "file/below"],
        ["--out", "x" * 300],
        ["--out", "."],
    ],
    ids=lambda args: " ".join(args)[:30],
)
def test_mistakes_in_train_get_one_line(tmp_path, monkeypatch, capsys, args):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main([*QUICK[:2], *args]) == 2
    said = capsys.readouterr()
    assert one_line(said.err)
    assert tree(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "args", [["frobnicate"], ["train", "letters"], ["--frobnicate"], ["predict"], ["predict", "x"]]
)
def test_other_mistakes_get_one_line(capsys, args):
    assert main(args) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert one_line(said.err)


def test_divergence_is_an_exit_code_of_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--lr", "1e30"]) == 1
    said = capsys.readouterr().err
    assert one_line(said)
    assert "diverged" in said
    assert tree(tmp_path) == []


def test_a_gradient_that_disagrees_stops_everything(tmp_path, monkeypatch, capsys):
    check = xwb.proof.check

    def planted(layer, *arrays, conduct):
        pair = (lambda *a: layer(*a)[0], lambda dY, *a: [2 * g for g in layer(*a)[1](dY)])
        return check(pair, *arrays, conduct=conduct)

    monkeypatch.setattr(xwb.proof, "check", planted)
    monkeypatch.chdir(tmp_path)
    assert main(QUICK) == 1
    said = capsys.readouterr()
    assert "worst at" in said.out
    assert one_line(said.err)
    assert "disagree" in said.err
    assert tree(tmp_path) == []


def test_a_full_disk_is_an_exit_code_of_1(tmp_path, monkeypatch, capsys):
    def full(file, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_store, "_write_all", full)
    monkeypatch.chdir(tmp_path)
    assert main(QUICK) == 1
    assert one_line(capsys.readouterr().err)


def test_a_page_that_cannot_be_written_does_not_hide_the_accuracy(tmp_path, monkeypatch, capsys):
    def full(run):
        raise RunError("cannot write: No space left on device") from OSError(errno.ENOSPC, "")

    monkeypatch.setattr(xwb.reports, "write_report", full)
    assert main([*QUICK, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    assert "test accuracy" in said.out
    assert one_line(said.err)


def test_two_processes_do_not_share_a_folder(tmp_path):
    with training(tmp_path) as process:
        second = run([*QUICK, "--out", "run"], tmp_path)
        assert second.returncode == 2
        assert one_line(second.stderr)
        assert "another xwb" in second.stderr
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    assert Run.open(tmp_path / "run").record["status"] == "interrupted"
    Classifier.load(tmp_path / "run")


def test_too_little_memory_is_an_exit_code_of_1(runs, monkeypatch, capsys):
    def full(path):
        raise MemoryError

    monkeypatch.setattr(xwb.training, "read_images", full)
    assert main(["predict", str(runs / "softmax"), str(runs / "good.npy")]) == 1
    assert capsys.readouterr().err == "xwb: out of memory\n"


# Interruption.


def wait_for(condition, process, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@contextlib.contextmanager
def training(cwd, *before):
    """A process in the midst of a training without end, into ``run``; ``before`` stands before the command."""
    metrics = cwd / "run" / "metrics.jsonl"
    process = subprocess.Popen(
        [*before, *XWB, "train", "digits", "--epochs", "1000000", "--out", "run"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            wait_for(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 5, process)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_package_is_imported(number):
    code = f"""
import os, sys, _xwb_command

class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            os.kill(os.getpid(), {int(number)})

assert not {{"numpy", "xwb"}} & set(sys.modules)
sys.meta_path.insert(0, Sender())
sys.exit(_xwb_command.main())
"""
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "xwb: interrupted\n")


def test_the_script_runs_the_command():
    entry = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]["scripts"][
        "xwb"
    ]
    module, function = entry.split(":")
    code = f"import sys; from {module} import {function} as main; sys.exit(main())"
    for words, result in (
        (["--version"], (0, f"xwb {xwb.__version__}\n")),
        (["evaluate", "nowhere", "x.csv"], (2, "")),
    ):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_training_keeps_what_it_reached(tmp_path, runs, number):
    with training(tmp_path) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert one_line(err)
    assert "interrupted" in err
    assert "test accuracy" in out
    assert tree(tmp_path / "run") == ["metrics.jsonl", "model.safetensors", "report.html", "run.json"]
    record = Run.open(tmp_path / "run").record
    assert record["status"] == "interrupted"
    assert record["metrics"]["test"]["accuracy"] > 0.5
    assert "was interrupted" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert run(["predict", "run", runs / "good.npy"], tmp_path).stdout.count("\n") == len(IMAGES)


def test_many_interruptions_are_one(tmp_path):
    with training(tmp_path) as process:
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        out, err = process.communicate()
    assert process.returncode == 130
    assert one_line(err)
    assert "best parameters so far are in run" in err
    assert "test accuracy" in out


def test_an_interruption_after_training_changes_nothing(tmp_path, monkeypatch, capsys):
    run_command = commands.main

    def interrupted(*args, **options):
        code = run_command(*args, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return code

    monkeypatch.setattr(commands, "main", interrupted)
    assert main([*QUICK, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == ""


def test_nohup_is_respected(tmp_path):
    with training(tmp_path, "nohup") as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_before_training_leaves_nothing(tmp_path, monkeypatch, capsys, number):
    before = signal.getsignal(number)
    monkeypatch.setattr(xwb.proof, "check", lambda *args, conduct: os.kill(os.getpid(), number))
    monkeypatch.chdir(tmp_path)
    assert main(QUICK) == 130
    assert capsys.readouterr().err == "xwb: interrupted\n"
    assert tree(tmp_path) == []
    assert signal.getsignal(number) == before


# Terminals and pipes.


def on_terminal(args, cwd, **variables) -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **variables}
    process = subprocess.Popen([*XWB, *args], cwd=cwd, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(60) == 0
    return said.decode()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_gets_a_progress_bar(tmp_path, columns):
    environment = {name: "" for name in ("NO_COLOR",) if name in os.environ}
    said = on_terminal([*QUICK, "--epochs", "60"], tmp_path, COLUMNS=str(columns), **environment)
    lines = re.findall(r"epoch[^\r\n]*", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said))
    assert max(len(line.rstrip()) for line in lines) <= columns - len("^C")
    assert re.search(r"epoch \d+/60  loss [\d.]+  accuracy [\d.]+ %", said)
    assert re.search(r"\x1b\[[\d;]*m", said)
    assert "test accuracy" in said


def test_no_color_is_respected(tmp_path):
    said = on_terminal([*QUICK, "--epochs", "60"], tmp_path, NO_COLOR="1")
    assert "test accuracy" in said
    assert not re.search(r"\x1b\[[\d;]*m", said)


def test_a_dumb_terminal_gets_lines(tmp_path):
    said = on_terminal([*QUICK, "--epochs", "60"], tmp_path, TERM="dumb")
    assert "\x1b" not in said
    assert re.search(r"^epoch 60/60  loss [\d.]+  validation loss [\d.]+  accuracy", said, re.MULTILINE)


def test_closed_streams(tmp_path):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *XWB, *QUICK, "--out", "run"], cwd=tmp_path, check=False
    )
    assert done.returncode == 0
    assert Run.open(tmp_path / "run").record["status"] == "finished"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *XWB, *QUICK, "--out", "run"],
        cwd=tmp_path,
        check=False,
        stderr=subprocess.PIPE,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(("name", "encoding"), [(b"by\xfftes", "utf-8"), ("ü".encode(), "ascii")])
def test_names_that_cannot_be_told(tmp_path, name, encoding):
    done = run(
        [*QUICK, "--out", os.fsdecode(name)],
        tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / os.fsdecode(name) / "report.html").exists()


def test_training_goes_on_when_its_reader_leaves(tmp_path):
    process = subprocess.Popen(
        [*XWB, *QUICK, "--epochs", "50", "--out", "run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0
    assert Run.open(tmp_path / "run").record["status"] == "finished"


def test_predict_bears_a_reader_that_leaves(runs, tmp_path):
    np.save(tmp_path / "many.npy", np.concatenate([IMAGES] * 40))  # more lines than a pipe holds
    process = subprocess.Popen(
        [*XWB, "predict", runs / "softmax", "many.npy"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("args", [["train", "digits", "--epochs", "1"], ["predict", "softmax", "good.npy"]])
def test_an_output_that_is_full(runs, tmp_path, args):
    args = [*args, "--out", tmp_path / "run"] if args[0] == "train" else args
    with open("/dev/full", "w") as device:
        done = subprocess.run([*XWB, *args], cwd=runs, stdout=device, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert one_line(done.stderr)
    assert "No space left" in done.stderr


# Predicting.


@pytest.mark.parametrize(
    "images", [IMAGES, IMAGES.reshape(-1, 64).astype(float), IMAGES[0], IMAGES[0].ravel(), IMAGES[:0]]
)
def test_predict_prints_one_label_per_line(runs, tmp_path, capfd, images):
    np.save(tmp_path / "images.npy", images)
    assert main(["predict", str(runs / "softmax"), str(tmp_path / "images.npy")]) == 0
    said = capfd.readouterr()
    labels = Classifier.load(runs / "softmax").predict(as_features(images))
    assert said.out == "".join(f"{label}\n" for label in labels)
    assert said.err == ""


def test_predict_with_probabilities(runs, capfd):
    assert main(["predict", str(runs / "softmax"), str(runs / "good.npy"), "--proba"]) == 0
    table = np.array([line.split("\t") for line in capfd.readouterr().out.splitlines()], float)
    assert table.shape == (len(IMAGES), 11)
    np.testing.assert_allclose(table[:, 1:].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(table[:, 1:].argmax(axis=1), table[:, 0])


def test_predict_into_files(runs, tmp_path, capfd):
    classifier = Classifier.load(runs / "softmax")
    labels = classifier.predict(as_features(IMAGES))
    call = ["predict", str(runs / "softmax"), str(runs / "good.npy"), "--out"]
    assert main([*call, str(tmp_path / "labels.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), labels)
    assert main([*call, str(tmp_path / "labels.csv")]) == 0
    assert (tmp_path / "labels.csv").read_text() == "label\n" + "".join(f"{label}\n" for label in labels)
    assert main([*call, str(tmp_path / "p.npy"), "--proba"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), classifier.probabilities(as_features(IMAGES)))
    assert main([*call, str(tmp_path / "p.csv"), "--proba"]) == 0
    table = np.genfromtxt(tmp_path / "p.csv", delimiter=",", names=True)
    assert table.dtype.names == ("label", *(f"p{c}" for c in range(10)))
    np.testing.assert_array_equal(table["label"], labels)
    assert capfd.readouterr() == ("", "")
    assert tree(tmp_path) == ["labels.csv", "labels.npy", "p.csv", "p.npy"]


@pytest.mark.parametrize(
    "args",
    [
        ["softmax", "missing.npy"],
        ["softmax", "folder"],
        ["softmax", "shape.npy"],
        ["softmax", "nan.npy"],
        ["softmax", "objects.npy"],
        ["softmax", "short.npy"],
        ["softmax", "softmax/run.json"],
        ["missing", "good.npy"],
        ["folder", "good.npy"],
        ["good.npy", "good.npy"],
        ["running", "good.npy"],
        ["damaged", "good.npy"],
        ["svm", "good.npy", "--proba"],
        ["softmax", "good.npy", "--out", "labels.txt"],
        ["softmax", "good.npy", "--out", "missing/labels.csv"],
        ["softmax", "good.npy", "--out", "good.npy/labels.csv"],
        ["softmax"],
        ["softmax", "good.npy", "more"],
    ],
    ids=" ".join,
)
def test_mistakes_in_predict_get_one_line(runs, monkeypatch, capsys, args):
    monkeypatch.chdir(runs)
    before = tree(runs)
    assert main(["predict", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert one_line(said.err)
    assert tree(runs) == before
