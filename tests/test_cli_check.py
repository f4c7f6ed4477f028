"""``xwb check`` and ``xwb prove``: layers in files, in the library and in formulas; one message for every mistake."""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np
import pytest

import xwb
from test_cli import one_line, run
from xwb.cli import main

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
LAYER = """
import numpy as np
import xwb
import beside

def forward(X, W, b=None):
    return X @ W + (0 if b is None else b)

def backward(dY, X, W, b=None):
    return [dY @ W.T, X.T @ dY, *([] if b is None else [dY.sum(0)])]

def mean(dY, X, W, b=None):
    return [dY @ W.T, X.T @ dY, *([] if b is None else [dY.mean(0)])]

def falls(dY, X, W):
    raise ValueError("no\\n  way")

def gather(E, k):
    assert k.max() < len(E)
    return E[k]

def gathered(dY, E, k):
    dE = np.zeros_like(E)
    np.add.at(dE, k, dY)
    return dE, None

def scaled(x, s):
    seen.append(x)
    return s * x

def dscaled(dY, x, s):
    return s * dY, np.sum(dY * x)

seen = []

def square(X):
    return X * X, X

def twice(dY, X):
    return 2 * X * dY

def anything(*arrays):
    return arrays[0]

pair = forward, backward
quadratic = xwb.Layer("quadratic", "Y[...] = X[...]**2", square, twice)
cubic = xwb.Layer("cubic", "Y[...] = X[...]**3", square, twice)
table = xwb.derive("Y[n,d] = E[k[n],d]")
print("hello from", __name__)
if __name__ == "__main__":
    raise SystemExit("run as a script")
"""


SHAPES = ["--shape", "X=4,3", "--shape", "W=3,2", "--shape", "b=2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with ``layer.py``, which imports from its own folder, as the current one."""
    (tmp_path / "layer.py").write_text(LAYER)
    (tmp_path / "beside.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("layer", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("layer", "beside"):
        sys.modules.pop(name, None)


def check(*args, capfd):
    """The exit code, and what the command prints on both streams."""
    code = main(["check", *args])
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    return code, said.out, said.err


@pytest.mark.parametrize(
    "args",
    [
        ["layer.py", "--shape", "X=4,3", "--shape", "W=3,2"],
        ["layer.py", "--shape", "X=4,3", "--shape", "W=3,2", "--shape", "b=2", "--dtype", "float32"],
        ["layer.py:pair", "--shape", "X=4, 3", "--shape", "W=3,2", "--seed", "7"],
        ["layer.py:gather,gathered", "--shape", "E=6,2", "--integers", "k=9:6"],
        ["layer.py:scaled,dscaled", "--shape", "x=5", "--shape", "s="],
        ["layer.py:quadratic"],
        ["layer.py:quadratic", "--shape", "X=2,3,4"],
        ["layer.py:table"],
        ["layer.py:table", "--sizes", "n=9"],
        ["layer.py", "--against", LINEAR],
        ["layer.py", "--against", "Y[n,m] = X[n,d] W[d,m]"],
        ["layer.py", "--against", LINEAR, "--sizes", "n=9,d=1"],
        ["layer.py", "--against", LINEAR, "--shape", "X=7,6"],
        ["layer.py:gather,gathered", "--against", "Y[n,d] = E[k[n],d]", "--integers", "k=30:2"],
    ],
    ids=" ".join,
)
def test_right(folder, capfd, args):
    code, out, err = check(*args, capfd=capfd)
    assert (code, err) == (0, "")
    assert out.startswith("hello from layer\n")
    assert "agree" in out or "right" in out


def test_from_elsewhere(folder, capfd, monkeypatch):
    monkeypatch.chdir("/")
    assert check(f"{folder}/layer.py:pair", "--shape", "X=4,3", "--shape", "W=3,2", capfd=capfd)[0] == 0


def test_shapes_that_follow_from_a_formula(folder, capfd):
    _, out, _ = check("layer.py:table", "--shape", "E=9,2", capfd=capfd)
    assert "(9, 2)" in out


def test_positive_values(folder, capfd):
    for more, signs in ([], {True, False}), (["--positive", "x"], {True}):
        sys.modules.pop("layer", None)
        assert check("layer.py:scaled,dscaled", "--shape", "x=50", "--shape", "s=", *more, capfd=capfd)[0] == 0
        assert set(np.asarray(sys.modules["layer"].seen[0]) > 0) == signs


def test_wrong(folder, capfd):
    code, out, err = check("layer.py:forward,mean", *SHAPES, capfd=capfd)
    assert (code, err) == (1, "")
    assert "db disagrees with finite differences" in out
    code, out, err = check("layer.py:forward,mean", "--against", LINEAR, capfd=capfd)
    assert (code, err) == (1, "")
    assert "3 of 4 parts are right" in out


def test_against_stored_tensors(folder, capfd):
    rng = np.random.default_rng(0)
    X, W, dY = (rng.standard_normal(shape) for shape in [(4, 3), (3, 2), (4, 2)])
    np.savez("right.npz", X=X, W=W, dY=dY, Y=X @ W, dW=X.T @ dY)
    np.savez("wrong.npz", X=X, W=W, dY=dY, dW=X.T @ dY / 4)
    np.savez("none.npz", X=X, dY=dY, dW=X.T @ dY)
    assert check("layer.py", "--reference", "right.npz", capfd=capfd)[0] == 0
    assert check("layer.py", "--reference", "wrong.npz", capfd=capfd)[0] == 1
    for name, words in [("none.npz", "has no W"), ("nowhere.npz", "no file"), ("layer.py", "cannot be read")]:
        code, _, err = check("layer.py", "--reference", name, capfd=capfd)
        assert code == 2
        assert one_line(err)
        assert words in err


def test_json_alone_is_printed(folder, capfd):
    for args in (["--shape", "X=4,3", "--shape", "W=3,2"], ["--against", LINEAR]):
        code, out, err = check("layer.py", *args, "--json", capfd=capfd)
        assert (code, json.loads(out)["ok"], err) == (0, True, "hello from layer\n")
    assert main(["prove", "layer.py:quadratic", "relu", "--json"]) == 0
    said = capfd.readouterr()
    assert [proof["call"] for proof in json.loads(said.out)["proofs"]] == ["quadratic(X)", "relu(X)"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["layer.py:forward,falls", "--shape", "X=4,3", "--shape", "W=3,2"], "layer.py:16: raised ValueError: no way"),
        (["layer.py", "--shape", "X=4,3", "--shape", "W=4,2"], "layer.py:7: raised ValueError: matmul"),
        (["layer.py:gather,gathered", "--shape", "E=3,2", "--integers", "k=99:9"], "raised AssertionError"),
        (["layer.py:forward,falls", "--against", "Y[n,m] = X[n,d] W[d,m]"], "layer.py:16: raised ValueError: no way"),
    ],
)
def test_an_error_in_the_users_code_names_its_line(folder, capfd, args, words):
    code, _, err = check(*args, capfd=capfd)
    assert code == 1
    assert one_line(err)
    assert words in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.py"], "there is no file none.py"),
        (["."], "names no Python file"),
        (["folder.py"], "folder.py is no file"),
        (["imports.py"], "imports.py:1: running the file raised ModuleNotFoundError"),
        (["syntax.py"], "syntax.py:2:"),
        (["falls.py"], "falls.py:1: running the file raised ZeroDivisionError"),
        (["ends.py"], "__name__"),
        (["layer.py:frward"], "layer.py defines no frward (did you mean forward?)"),
        (["layer.py:forward"], "layer.py:forward is one function; a pair is two, type layer.py:FORWARD,BACKWARD"),
        (["layer.py:a,b,c"], "names 3 things"),
        (["layer.py:np"], "is expected; got <module"),
        (["layer.py:anything,anything", "--shape", "X=3"], "does not name its inputs"),
        (["layer.py", "--shape", "X=4,3"], "has no shape for W; type --shape W=…"),
        (["layer.py", "--shape", "X=4,3", "--shape", "w=3,2"], "no input w (did you mean W?); its inputs: X, W, b"),
        (["layer.py", "--integers", "Q=3:2"], "no input Q"),
        (["layer.py", "--positive", "Q"], "no input Q"),
        (["layer.py", "--shape", "X=4,3", "--integers", "X=3:2"], "it is one of the two"),
        (["layer.py", "--shape", "X=4x3"], "type --shape X=32,64"),
        (["layer.py", "--shape", "X"], "type --shape X=32,64"),
        (["layer.py", "--shape", "X=-1"], "type --shape X=32,64"),
        (["layer.py", "--shape", "X=2", "--shape", "X=3"], "X is given twice"),
        (["layer.py", "--shape", "X=100000,100000"], "10,000,000,000 entries"),
        (["layer.py", "--integers", "y=3"], "type --integers y=32:10"),
        (["layer.py", "--integers", "y=3:0"], "type --integers y=32:10"),
        (["layer.py", "--dtype", "float16"], "float16"),
        (["layer.py", "--shape", "X=4,3", "--shape", "W=3,2", "--sizes", "n=4"], "--sizes are those of a formula"),
        (["layer.py", "--against", LINEAR, "--reference", "x.npz"], "type one of them"),
        (["layer.py", "--reference", "x.npz", "--shape", "X=3"], "the inputs are in the file"),
        (["layer.py", "--against", LINEAR + " + c[m]"], "the formula reads X, W, b, c"),
        (["layer.py", "--frobnicate"], "--frobnicate"),
    ],
    ids=str,
)
def test_mistakes_in_the_call(folder, capfd, args, words):
    (folder / "folder.py").mkdir()
    (folder / "imports.py").write_text("import nothing_of_that_name")
    (folder / "syntax.py").write_text("\ndef f(:")
    (folder / "falls.py").write_text("1 / 0")
    (folder / "ends.py").write_text("raise SystemExit(0)")
    code, _, err = check(*args, capfd=capfd)
    assert code == 2
    assert one_line(err)
    assert words in err


@pytest.mark.parametrize("formula", ["Y[n,m] = X[n,d W[d,m]", "Y[n,m,q] = X[n,d] W[d,m] + b[m]"])
def test_a_formula_is_pointed_at(folder, capfd, formula):
    code, _, err = check("layer.py", "--against", formula, capfd=capfd)
    assert code == 2
    assert err.startswith("xwb: ")
    assert "^" in err


def test_an_interruption(folder, capfd):
    (folder / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    assert main(["check", "slow.py"]) == 130
    assert capfd.readouterr().err == "xwb: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_as_a_process(folder):
    done = run(["check", "layer.py", "--shape", "X=4,3", "--shape", "W=3,2"], folder)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(["check", "layer.py:forward,falls", "--shape", "X=4,3", "--shape", "W=3,2"], folder)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = run(["prove", "relu"], folder, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")


# xwb prove


def prove(*args, capfd):
    code = main(["prove", *args])
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    return code, said.out, said.err


@pytest.mark.parametrize(
    "args",
    [["linear"], ["relu", "tanh"], [LINEAR], LINEAR.split(), ["layer.py:quadratic"], ["layer.py:table"]],
    ids=" ".join,
)
def test_proofs(folder, capfd, args):
    code, out, err = prove(*args, capfd=capfd)
    assert (code, err) == (0, "")
    assert "formula, closed form and finite differences agree" in out


def test_sizes_of_a_proof(capfd):
    pool = "Y[n,p] = max[r](X[n,2*p+r])"
    assert prove(pool, "--sizes", "r=2", capfd=capfd)[0] == 0
    code, _, err = prove(pool, capfd=capfd)
    assert code == 2
    assert "--sizes r=…" in err or "--sizes p=…" in err


def test_a_proof_that_fails(folder, capfd):
    code, out, err = prove("relu", "layer.py:cubic", capfd=capfd)
    assert (code, err) == (1, "")
    assert "the formula is not this layer's" in " ".join(out.split())


def test_all(capfd, monkeypatch):
    code, out, err = prove("--all", capfd=capfd)
    assert (code, err) == (0, "")
    rows = [line for line in out.splitlines() if "(" in line]
    rules = [rule for name in xwb.__all__ if isinstance(rule := getattr(xwb, name), xwb.Layer | xwb.Loss)]
    assert len(rows) == len(rules) + 1
    assert all(any(line.startswith(rule.call) for line in rows) for rule in rules)
    assert f"All {len(rows)}: formula, closed form and finite differences agree in" in out
    monkeypatch.setattr(xwb, "__all__", ["relu", "tanh"])
    monkeypatch.setattr(xwb, "relu", xwb.Layer("relu", "Y[...] = X[...]", *((r := xwb.relu)._forward, r._backward)))
    code, out, _ = prove("--all", capfd=capfd)
    assert code == 1
    assert "1 of 3 is wrong." in out
    assert "WRONG" in next(line for line in out.splitlines() if line.startswith("relu(X)"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["linar"], "xwb has no layer linar (did you mean linear?)"),
        (["check"], "xwb has no layer check"),
        (["layer.py"], "layer.py alone names no layer, and it defines quadratic, cubic, table"),
        (["layer.py:pair"], "a pair has none"),
        (["layer.py:quadratc"], "did you mean quadratic?"),
        (["--all", "linear"], "--all names every layer"),
        (["--all", "--sizes", "n=3"], "--all goes without --sizes"),
    ],
    ids=str,
)
def test_mistakes_in_a_proof(folder, capfd, args, words):
    code, _, err = prove(*args, capfd=capfd)
    assert code == 2
    assert one_line(err)
    assert words in err


def test_help(capfd):
    for command, words in (
        ("check", ("--shape", "--against", "--reference", "layer.py")),
        ("prove", ("--all", "FILE.py")),
    ):
        assert main([command, "-h"]) == 0
        said = capfd.readouterr().out
        assert all(word in said for word in words)
        assert "Examples:" in said
        assert main([command]) == 2
        assert "Usage:" in capfd.readouterr().err


METHODS = """
class Linear:
    def forward(self, X, W):
        self.X, self.W = X, W
        return X @ W

    def backward(self, dY):
        return dY @ self.W.T, self.X.T @ dY

    def ends(self, dY):
        raise SystemExit(0)

def masked(X, mask):
    return X * mask

def dmasked(dY, X, mask):
    return dY * mask, None

linear = Linear()
"""


def test_methods_and_inputs_without_a_gradient(folder, capfd):
    (folder / "methods.py").write_text(METHODS)
    shapes = ["--shape", "X=4,3", "--shape", "W=3,2"]
    assert check("methods.py:linear", *shapes, capfd=capfd)[0] == 0
    assert check("methods.py:linear.forward,linear.backward", *shapes, capfd=capfd)[0] == 0
    code, _, complaint = check("methods.py:Linear", *shapes, capfd=capfd)
    assert (code, "is a class" in complaint) == (2, True)
    code, _, complaint = check("methods.py:linear.forward,linear.back", *shapes, capfd=capfd)
    assert (code, "has no attribute back" in complaint) == (2, True)
    mask = ["methods.py:masked,dmasked", "--shape", "X=4,3", "--shape", "mask=4,3"]
    assert check(*mask, capfd=capfd)[0] == 1
    assert check(*mask, "--needs", "X", capfd=capfd)[0] == 0
    assert check(*mask, "--needs", "Q", capfd=capfd)[0] == 2


@pytest.mark.parametrize("more", [[], ["--against", "Y[n,m] = X[n,d] W[d,m]"]])
def test_a_function_that_ends_the_program_is_no_pass(folder, capfd, more):
    (folder / "methods.py").write_text(METHODS)
    shapes = ["--shape", "X=4,3", "--shape", "W=3,2"]
    code, _, complaint = check("methods.py:linear.forward,linear.ends", *shapes, *more, capfd=capfd)
    assert code == 1
    assert "SystemExit" in complaint
