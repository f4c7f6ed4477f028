"""The gallery: every layer proved, the command, the pages on disk, the document that is generated from it."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import xwb
from test_cli import one_line, tree
from xwb import RunError
from xwb.algebra import Derivation, slots
from xwb.cli import main
from xwb.proof import operands
from xwb.reports import GALLERY, Entry, Shown, gallery_index, gallery_markdown, write_gallery

ROOT = Path(__file__).resolve().parents[1]
BY_NAME = {entry.name: entry for entry in GALLERY}
SMALL = (BY_NAME["linear-without-bias"], BY_NAME["product"], BY_NAME["rms-norm"])
VOID = {"meta", "link", "br", "hr", "img"}


class Wrong(Entry):
    """An entry whose derivation gives twice the gradient."""

    def derive(self) -> Derivation:
        d = super().derive()
        right = d._backward
        d._backward = lambda *args: {name: 2 * gradient for name, gradient in right(*args).items()}
        return d


WRONG = Wrong(*BY_NAME["gram"])


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    return [entry.show() for entry in GALLERY]


@pytest.fixture
def small(monkeypatch) -> None:
    """A gallery of three layers, each with a plain page."""
    monkeypatch.setattr(xwb.reports, "GALLERY", SMALL)


@pytest.fixture(autouse=True)
def plain_pages(monkeypatch) -> None:
    monkeypatch.setattr(
        Derivation, "html", lambda self, proof=None: f"<p>{self.formula}</p>\n<pre>{proof}</pre>\n", raising=False
    )


# The table.


def test_every_entry_is_proved(shown):
    assert [str(one.proof) for one in shown if not one.proof.ok] == []
    for one in shown:
        assert one.proof.derived
        assert {(row.dtype, row.layout) for row in one.proof.rows} == {
            (dtype, layout) for dtype in ("float64", "float32") for layout in ("contiguous", "strided", "Fortran")
        }


def test_what_has_to_be_there():
    assert len(GALLERY) >= 30
    assert {
        *("linear", "linear-ones", "linear-outputs-first", "linear-numerator", "linear-columns", "linear-without-bias"),
        *("low-rank", "bilinear", "embedding", "softmax-cross-entropy", "hinge-weston-watkins", "hinge-crammer-singer"),
        *("squared-error", "kullback-leibler", "layer-norm", "rms-norm", "batch-norm", "group-norm"),
        *("attention-self", "attention-masked", "attention-multi-head"),
        *(f"convolution-{kind}" for kind in ("1d", "2d", "strided", "dilated", "grouped", "depthwise", "transposed")),
        *("average-pooling", "max-pooling", "gated-linear", "lstm", "factorisation", "gram", "quadratic", "product"),
        "resampling",
    } <= BY_NAME.keys()
    for source in range(5):
        assert any(f"source 00{source}" in entry.about for entry in GALLERY), source


def test_names_and_titles():
    assert len(BY_NAME) == len({entry.title for entry in GALLERY}) == len(GALLERY)
    for entry in GALLERY:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name)
        assert entry.name != "index"
        assert entry.about.endswith(".")
    kinds = [entry.kind for entry in GALLERY]
    assert set(kinds).isdisjoint(entry.title for entry in GALLERY)
    assert len(set(kinds)) == 1 + sum(a != b for a, b in itertools.pairwise(kinds)), "a kind is scattered"


@pytest.mark.parametrize("entry", GALLERY, ids=lambda entry: entry.name)
def test_sizes_hide_no_swapped_axes(entry):
    d = entry.derive()
    assert slots(d).keys() == entry.sizes.keys()
    arrays = operands(d, entry.sizes)
    shapes = {**{name: array.shape for name, array in arrays.items()}, d.output: d.forward(**arrays).shape}
    alike = {"linear-numerator": {"b"}, "quadratic": {"A"}, "gram": {"G"}, "upsampling": {"Y"}}.get(entry.name, set())
    assert {name for name, shape in shapes.items() if len(set(shape) - {1}) < len(shape)} == alike


def test_gradients_name_only_what_stands_above(shown):
    for one in shown:
        known = {f"d{one.derivation.output}"}
        for formula in one.gradients:
            left, right = formula.split(" = ", 1)
            assert set(re.findall(r"\bd[A-Za-z]\w*", right)) <= known, formula
            known.add(re.match(r"\w+", left)[0])


# The document.


def test_the_document_is_what_the_code_says(shown):
    written = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    assert written == gallery_markdown(shown), "type  xwb gallery --markdown > docs/gallery.md"


def test_the_documents_lead_to_it():
    for document in ("README.md", "docs/index.md", "docs/derive.md", "docs/index-notation.md"):
        assert "gallery.md" in (ROOT / document).read_text("utf-8"), document


# The command.


def test_a_line_for_each(small, capfd):
    assert main(["gallery"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    head, *lines, blank, last = said.out.splitlines()
    assert head.split() == ["layer", "gradients", "value", "gradient", "numeric", "seconds", "formula"]
    assert blank == ""
    assert last.startswith("All 3: ")
    for line, entry in zip(lines, SMALL, strict=True):
        first = entry.formula.split("\n")[0]
        assert line.startswith(entry.name)
        assert line.endswith(first + ("; …" if "\n" in entry.formula else ""))
        assert re.search(r"  \de[+-]\d\d  .*\d\.\d  ", line)


def test_one_layer(capfd):
    assert main(["gallery", "linear", "rms-norm", "linear"]) == 0
    said = capfd.readouterr().out
    for name in ("linear", "rms-norm"):
        entry = BY_NAME[name]
        assert said.count(f"{entry.title} ({name})\n{entry.about}\n\n") == 1
        assert xwb.algebra.page(entry.derive()) in said
    assert said.count("formula, closed form and finite differences agree in 6 cases") == 2
    assert 'xwb derive "Y[n,m] = X[n,d] W[d,m] + b[m]" --code numpy\n' in said


def test_the_command_for_the_code_works(capfd):
    assert main(["gallery", "upsampling"]) == 0
    *_, last = capfd.readouterr().out.splitlines()
    assert main(shlex.split(last.removeprefix("Its code: "))[1:]) == 0
    assert "def backward" in capfd.readouterr().out


def test_a_wrong_layer_is_shown_as_wrong(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(xwb.reports, "GALLERY", (SMALL[0], WRONG, SMALL[1]))
    assert main(["gallery"]) == 1
    said = capfd.readouterr().out
    assert re.search(r"^gram .*  WRONG  G\[i,j\]", said, re.MULTILINE)
    assert said.count("WRONG  ") == 2  # in the list, and in the proof below it
    assert said.endswith("\n1 of 3 is wrong.\n")
    assert main(["gallery", "gram"]) == 1
    assert "wrong in 6 of 6 cases" in capfd.readouterr().out
    assert main(["gallery", "--json"]) == 1
    record = json.loads(capfd.readouterr().out)
    assert [layer["proof"]["ok"] for layer in record["layers"]] == [True, False, True]
    assert record["ok"] is False
    assert main(["gallery", "--markdown"]) == 1
    assert one_line(capfd.readouterr().err)
    assert main(["gallery", "--html", str(tmp_path / "pages")]) == 1
    index = (tmp_path / "pages" / "index.html").read_text("utf-8")
    assert "1 of 3 proofs failed" in index
    assert index.count("The proof failed: ") == 1
    assert index.count("Proved in 6 cases") == 2
    assert "wrong in 6 of 6 cases" in (tmp_path / "pages" / "gram.html").read_text("utf-8")


def test_json(small, capfd):
    assert main(["gallery", "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["ok"] is True
    layer = record["layers"][0]
    assert (layer["name"], layer["sizes"]) == ("linear-without-bias", {"n": 2, "d": 3, "m": 4})
    assert layer["gradients"]["W"] == "dW[d,m] = sum[n] X[n,d] dY[n,m]"
    assert layer["proof"]["ok"] is True


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["liner"], "did you mean linear?"),
        (["linear", "--html", "pages"], "without names"),
        (["linear", "--markdown"], "without names"),
        (["--html", "pages", "--json"], "type one of them"),
        (["--markdown", "--json"], "type one of them"),
        (["--frobnicate"], "--frobnicate"),
        (["--html", ""], "empty"),
        (["--html", __file__], "is no folder"),
    ],
)
def test_mistakes_get_one_line(capfd, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    assert main(["gallery", *args]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert one_line(said.err)
    assert words in said.err
    assert tree(tmp_path) == []


# The pages.


class Balanced(HTMLParser):
    """Tags that close what was opened last, ids, and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named["href"]] if tag == "a" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_pages(small, capfd, tmp_path):
    folder = tmp_path / "new" / "pages"
    assert main(["gallery", "--html", str(folder)]) == 0
    said = capfd.readouterr().out
    assert said.startswith("layer")
    assert str(folder / "index.html") in said.splitlines()[-1]
    assert tree(folder) == ["index.html", *sorted(f"{entry.name}.html" for entry in SMALL)]
    index = (folder / "index.html").read_text("utf-8")
    links = Balanced(index).links
    for entry in SMALL:
        assert f"{entry.name}.html" in links
        page = (folder / f"{entry.name}.html").read_text("utf-8")
        assert entry.formula in page
        assert "formula, closed form and finite differences agree" in page


def test_the_whole_index(shown):
    index = gallery_index(shown)
    page = Balanced(index)
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert {link for link in page.links if not link.startswith("#")} == {f"{entry.name}.html" for entry in GALLERY}
    assert "<script" not in index
    assert "dW[d,m] = sum[n] X[n,d] dY[n,m]" in index
    assert "[1 - abs(u[p] - i) &gt; 0]" in index
    assert index.count('<math display="block"') == len(GALLERY)
    assert len(index.encode()) < 2_000_000


def test_an_older_gallery_is_replaced_and_nothing_else(tmp_path):
    write_gallery(tmp_path, SMALL[:2])
    (tmp_path / "notes.txt").write_text("dear")
    (tmp_path / "product.html").write_text("old")
    write_gallery(tmp_path, SMALL[1:])
    assert tree(tmp_path) == sorted(["index.html", "notes.txt", *(f"{entry.name}.html" for entry in SMALL)])
    assert (tmp_path / "notes.txt").read_text() == "dear"
    assert SMALL[1].formula in (tmp_path / "product.html").read_text("utf-8")


def test_a_folder_of_something_else_is_left_alone(small, tmp_path, capfd):
    (tmp_path / "index.html").write_text("<p>my own</p>")
    before = tree(tmp_path)
    assert main(["gallery", "--html", str(tmp_path)]) == 2
    said = capfd.readouterr()
    assert one_line(said.err)
    assert "index.html" in said.err
    assert main(["gallery", "--html", str(tmp_path / "index.html")]) == 2
    assert main(["gallery", "--html", str(tmp_path / "index.html" / "below")]) == 2
    assert tree(tmp_path) == before
    assert (tmp_path / "index.html").read_text() == "<p>my own</p>"


def test_a_folder_that_cannot_be_written_is_said_before_the_proofs(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *args: False)
    proved: list[Shown] = []
    with pytest.raises(RunError, match="permission"):
        write_gallery(tmp_path / "pages", SMALL, proved.append)
    assert proved == []
    assert tree(tmp_path) == []


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    written = []

    def full(path: Path, text: str) -> None:
        if len(written) == 2:
            raise RunError("disk full")
        written.append(path)
        path.write_text(text)

    monkeypatch.setattr("xwb.reports._gallery_pages.write_text", full)
    with pytest.raises(RunError, match="disk full"):
        write_gallery(tmp_path / "a" / "b", SMALL)
    assert len(written) == 2
    assert tree(tmp_path) == []


def test_interrupted(tmp_path):
    code = (
        "import sys; from xwb.algebra import Derivation; from xwb.cli import main\n"
        "Derivation.html = lambda self, proof: str(proof)\nsys.exit(main())"
    )
    command = [sys.executable, "-W", "error", "-c", code, "gallery", "--html", "pages"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(3):
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "xwb: interrupted\n")
    assert tree(tmp_path) == []
