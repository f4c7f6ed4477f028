"""``xwb derive``: the page, LaTeX, the small case on paper; mistakes that point at the formula, pipes, terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import xwb
from test_cli import XWB, on_terminal, one_line, run
from test_page import LSTM, PAGE
from xwb.algebra import html, latex, page
from xwb.cli import main

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
TWO = "H[n,k] = X[n,d] W[d,k]; Y[n,m] = H[n,k] V[k,m]"


def derive(*args, capfd) -> str:
    """What the command prints, with nothing on stderr."""
    assert main(["derive", *args]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    return said.out


def test_the_page(capfd):
    assert derive(LINEAR, capfd=capfd) == PAGE + "\n"


def test_only_some_gradients(capfd):
    d = xwb.derive(TWO)
    assert derive(TWO, "--wrt", "W", capfd=capfd) == page(d, wrt=["W"]) + "\n"
    assert derive(TWO, "--wrt", "V", "--wrt", "X", capfd=capfd) == page(d, wrt=["V", "X"]) + "\n"


def test_costs_in_numbers(capfd):
    said = derive(LINEAR, "--sizes", "n=64, d=4096,m=4096", capfd=capfd)
    assert said == page(xwb.derive(LINEAR), sizes={"n": 64, "d": 4096, "m": 4096}) + "\n"
    assert "68,719,476,736 (256 GiB)" in said
    said = derive("Y[n,d] = E[k[n],d]", "--sizes", "n=64,E=50257x768", capfd=capfd)
    assert "E = 50257 × 768" in said


def test_latex(capfd):
    assert derive(TWO, "--latex", "--wrt", "V", capfd=capfd) == latex(xwb.derive(TWO), wrt=["V"]) + "\n"


def test_on_paper(capfd):
    paper = xwb.derive(LINEAR).on_paper(n=2, d=2, m=3)
    assert derive(LINEAR, "--paper", "n=2,d=2,m=3", capfd=capfd) == f"{paper}\n"
    assert derive(LINEAR, "--paper", "n=2,d=2,m=3", "--latex", capfd=capfd) == f"{paper.latex()}\n"


def test_html(tmp_path, capfd):
    file = tmp_path / "page.html"
    assert derive(TWO, "--html", str(file), capfd=capfd) == f"wrote {file}\n"
    assert file.read_text("utf-8") == xwb.derive(TWO).html()
    assert derive(LINEAR, "--html", str(file), "--wrt", "W", "--sizes", "n=64,d=4096,m=4096", capfd=capfd)
    assert file.read_text("utf-8") == html(xwb.derive(LINEAR), wrt=["W"], sizes={"n": 64, "d": 4096, "m": 4096})
    assert derive(LINEAR, "--html", str(file), "--paper", "n=1,d=2,m=1", capfd=capfd)
    assert file.read_text("utf-8") == html(xwb.derive(LINEAR), paper={"n": 1, "d": 2, "m": 1})
    assert list(tmp_path.iterdir()) == [file]
    assert derive(LINEAR, "--html", "-", capfd=capfd) == xwb.derive(LINEAR).html()


def test_html_of_a_mistake_leaves_the_file(tmp_path, capfd):
    file = tmp_path / "page.html"
    file.write_text("before")
    assert main(["derive", "Y[n] = X[n,d]", "--html", str(file)]) == 2
    assert main(["derive", LINEAR, "--html", str(file), "--paper", "n=99,d=99,m=99"]) == 2
    assert file.read_text() == "before"


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_code(library, capfd):
    assert derive(LINEAR, "--code", library, capfd=capfd) == xwb.derive(LINEAR).code(library)
    product = "Y[n,m] = A[n,d] B[d,k] C[k,m]"
    said = derive(product, "--code", library, "--sizes", "n=10,d=1000,k=10,m=1000", capfd=capfd)
    assert said == xwb.derive(product).code(library, n=10, d=1000, k=10, m=1000)


@pytest.mark.parametrize(
    "other", [["--wrt", "W"], ["--paper", "n=2,d=2,m=3"], ["--latex"], ["--sizes", "W=2x3"], ["--html", "-"]]
)
def test_code_goes_alone(other, capfd):
    assert main(["derive", LINEAR, "--code", "numpy", *other]) == 2
    assert "--code" in capfd.readouterr().err


def test_a_formula_on_stdin(tmp_path):
    done = run(["derive", "-"], tmp_path, input=LINEAR + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == PAGE + "\n"
    several = run(["derive", "-", "--wrt", "C"], tmp_path, input=LSTM)
    assert several.stdout == page(xwb.derive(LSTM), wrt=["C"]) + "\n"


def test_the_formula_is_pointed_at(capfd):
    assert main(["derive", "Y[n,m] = X[n,d] W[d,m] + é[m]"]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    first, formula, carets, instead = said.err.splitlines()
    assert first.startswith("xwb: `é`")
    assert carets.index("^") == formula.index("é")
    assert instead == "type `e`"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([""], "empty"),
        (["Y[n] = X[n,d]"], "occurs once"),
        (["Y[n] = X[n]" + " + X[n]" * 5000], "10,000 are the limit"),
        (["Y[n] = X[n] dX[n]"], "dX is the gradient of X"),
        ([LINEAR, "--wrt", "Q"], "no tensor Q"),
        (["Y[n] = E[k[n]]", "--wrt", "k"], "integer"),
        ([LINEAR, "--sizes", "n=64"], "--sizes d=…"),
        ([LINEAR, "--sizes", "n=64,q=3"], "no index or input q"),
        (["Y[n,d] = E[k[n],d]", "--sizes", "n=64,d=3"], "--sizes T=50257x768,…"),
        ([LINEAR, "--paper", "n=2,d=2"], "type --paper n=2,d=2,m=…"),
        ([LINEAR, "--paper", "n=2x3"], ""),
        ([LINEAR, "--paper", "n=99,d=99,m=99"], "too large"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_in_the_formula_or_its_names(capfd, args, words):
    assert main(["derive", *args]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("xwb: ")
    assert words in said.err
    assert "cost(" not in said.err
    assert "on_paper(" not in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "args",
    [
        [LINEAR, "--sizes", ""],
        [LINEAR, "--sizes", "n"],
        [LINEAR, "--sizes", "n=64;d=3"],
        [LINEAR, "--sizes", "n=-1"],
        [LINEAR, "--sizes", "n=1.5"],
        [LINEAR, "--sizes", "n=٣"],
        [LINEAR, "--sizes", "n=2,n=3"],
        [LINEAR, "--sizes", "n=" + "9" * 5000],
        [LINEAR, "--sizes", "n=2x"],
        [LINEAR, "--paper", "n=two"],
        [LINEAR, "--paper", "n=2,d=2,m=3", "--wrt", "W"],
        [LINEAR, "--paper", "n=2,d=2,m=3", "--sizes", "n=2"],
        [LINEAR, "--latex", "--sizes", "n=2,d=2,m=3"],
        [LINEAR, "--latex", "--html", "page.html"],
        [LINEAR, "--html", "missing/page.html"],
        [LINEAR, "--html"],
        [LINEAR, "--frobnicate"],
        [LINEAR, "--wrt"],
    ],
    ids=lambda args: " ".join(args[1:])[:30],
)
def test_mistakes_in_the_options_get_one_line(capfd, args):
    assert main(["derive", *args]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert one_line(said.err)


def test_sizes_say_what_to_type(capfd):
    assert main(["derive", LINEAR, "--sizes", "n:64"]) == 2
    assert "type --sizes n=64,d=4096,m=4096" in capfd.readouterr().err
    assert main(["derive", LINEAR, "--paper", "n:2"]) == 2
    assert "type --paper n=2,d=2,m=3" in capfd.readouterr().err


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"Y[n] = X[n]\0"])
def test_stdin_that_is_no_formula(tmp_path, data):
    done = subprocess.run([*XWB, "derive", "-"], input=data, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"xwb: ")
    assert b"Traceback" not in done.stderr


def test_stdin_that_never_ends_is_not_waited_for(tmp_path):
    with open("/dev/zero", "rb") as zeros:
        done = subprocess.run([*XWB, "derive", "-"], stdin=zeros, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2


def test_closed_streams(tmp_path):
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *XWB, "derive", "-"], capture_output=True, check=False)
    assert done.returncode == 2
    assert one_line(done.stderr.decode())
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *XWB, "derive", LINEAR], check=False)
    assert done.returncode == 0


def test_an_interruption(monkeypatch, capfd):
    class Stdin:
        def __init__(self) -> None:
            self.buffer = self

        def read(self, most: int) -> bytes:
            os.kill(os.getpid(), signal.SIGINT)
            return b""

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert main(["derive", "-"]) == 130
    assert capfd.readouterr() == ("", "xwb: interrupted\n")


def test_a_reader_that_leaves(tmp_path):
    process = subprocess.Popen([*XWB, "derive", LSTM], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


def test_an_output_that_is_full(tmp_path):
    with open("/dev/full", "w") as device:
        done = subprocess.run([*XWB, "derive", LINEAR], stdout=device, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert one_line(done.stderr)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_sets_the_width(tmp_path, columns):
    said = on_terminal(["derive", LINEAR], tmp_path, COLUMNS=str(columns)).replace("\r\n", "\n")
    assert said == page(xwb.derive(LINEAR), width=columns) + "\n"
    assert max(map(len, said.splitlines())) <= columns


def test_an_encoding_without_the_signs(tmp_path):
    done = run(["derive", LINEAR], tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2202L/\\u2202X[h,i]" in done.stdout


def test_help(capfd):
    assert main(["derive", "--help"]) == 0
    said = capfd.readouterr().out
    assert "docs/derive.md" in said
    for option in ("--wrt", "--sizes", "--paper", "--latex"):
        assert option in said
    assert main(["derive"]) == 2
    assert "Usage:" in capfd.readouterr().err
