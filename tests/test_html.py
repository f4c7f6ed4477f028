"""The page of a derivation: well-formed, complete, self-contained, escaped; a wrong proof looks wrong."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import re
import unicodedata
from html import unescape as html_unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import xwb
from _read_latex import check as check_latex
from _read_mathml import check, equations
from test_latex import FORMULAS, LINEAR
from test_page import LSTM
from xwb.algebra import Derivation, html
from xwb.algebra._explained import RULES
from xwb.algebra._steps import CHANGED

VOID = {"meta", "link", "input", "br"}
EVERY = {**FORMULAS, "lstm": LSTM}


@functools.cache
def page_of(name: str) -> str:
    """The page of one of the known layers."""
    return xwb.derive(EVERY[name]).html()


class Page(HTMLParser):
    """A page as a tree of elements, parsed strictly: every element is closed, and in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = ElementTree.Element("root")
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root], [node.tag for node in self.open]

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        node = ElementTree.SubElement(self.open[-1], tag, {name: value or "" for name, value in attributes})
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        node = self.open[-1]
        if len(node):
            node[-1].tail = (node[-1].tail or "") + data
        else:
            node.text = (node.text or "") + data

    def all(self, tag: str, **attributes: str) -> list[ElementTree.Element]:
        found = self.root.iter(tag)
        return [n for n in found if all(n.get(k.rstrip("_")) == v for k, v in attributes.items())]

    def section(self, name: str) -> ElementTree.Element:
        (found,) = self.all("section", id=name)
        return found

    def sections(self) -> list[str]:
        return [node.get("id") for node in self.all("section")]


def words(node: ElementTree.Element) -> str:
    return " ".join("".join(node.itertext()).split())


def copied(page: Page, label: str) -> str:
    """What the button with that label copies."""
    (button,) = [b for b in page.all("button") if b.get("aria-label") == f"copy {label}"]
    (code,) = page.all("code", id=button.get("data-of"))
    return "".join(code.itertext())


def arrays() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)


@pytest.mark.parametrize("name", EVERY)
def test_pages_are_well_formed(name):
    text = page_of(name)
    page = Page(text)
    ids = [node.get("id") for node in page.root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.get("href").removeprefix("#") in ids
    for attribute in ("data-of", "popovertarget", "for"):
        assert {node.get(attribute) for node in page.root.iter() if node.get(attribute)} <= set(ids)
    levels = [int(node.tag[1]) for node in page.root.iter() if re.fullmatch(r"h\d", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1


@pytest.mark.parametrize("name", EVERY)
def test_every_formula_would_be_drawn(name):
    found = re.findall(r"<math.*?</math>", page_of(name), re.DOTALL)
    assert len(found) > 10
    for math in found:
        check(math)


@pytest.mark.parametrize("name", EVERY)
def test_pages_need_nothing_else(name):
    text = page_of(name)
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    assert not [n for n in page.root.iter() if n.get("src") or n.tag in ("iframe", "object", "embed", "img", "base")]
    assert [n.get("href") for n in page.all("link")] == ["data:,"]
    assert not [name for n in page.root.iter() for name in n.attrib if name.startswith("on")]


def test_the_one_script_is_allowed_by_its_hash():
    page = Page(xwb.derive(LINEAR).html())
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (policy,) = [m.get("content") for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == (f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'")
    assert all(button.get("hidden") == "" for button in page.all("button", class_="copy"))


def test_sections():
    page = Page(xwb.derive(LINEAR).html())
    assert page.sections() == [
        "formula", "gradients", "steps", "rules", "paper", "cost", *(["code"] if hasattr(Derivation, "code") else []),
        "latex",
    ]  # fmt: skip
    with_kink = Page(xwb.derive("Y[n] = relu(X[n])").html())
    assert "conditions" in with_kink.sections()
    assert "relu'(0) = 0" in words(with_kink.section("conditions"))


def test_the_formula_and_the_gradients():
    d = xwb.derive(LINEAR)
    page = Page(d.html())
    assert copied(page, "the formula") == LINEAR
    assert "X is n×d; W is d×m; b is m; Y is n×m." in drawn_words(page.section("formula"))
    for name in "XWb":
        gradient = d[name]
        assert copied(page, f"the formula of d{name}") == gradient.formula
        assert copied(page, f"the einsum of d{name}") == gradient.einsum
        assert copied(page, f"the matrix form of d{name}") == gradient.matrix
    drawn = [re.sub(r"\s+", " ", math) for math in re.findall(r"<math display.*?</math>", d.html(), re.DOTALL)]
    assert equations(drawn[0]) == ["Y[n,m] = sum[d](X[n,d]*W[d,m]) + b[m]"]


def drawn_words(node: ElementTree.Element) -> str:
    """The words, of formulas only what is drawn."""
    if node.tag == "annotation":
        return ""
    return (node.text or "") + "".join(drawn_words(child) + (child.tail or "") for child in node)


def test_statements_stand_on_lines_of_their_own():
    source = copied(Page(xwb.derive("H[n] = 2  X[n];\n Y[n] = H[n]**2").html()), "the formula")
    assert source == "H[n] = 2 X[n]\nY[n] = H[n]**2"
    xwb.derive(source)


@pytest.mark.parametrize("name", EVERY)
def test_steps(name):
    """Every step of every gradient is there, with its rule and its formulas."""
    d = xwb.derive(EVERY[name])
    page = Page(page_of(name))
    folded = page.section("steps").findall("details")
    gradients = [d[g] for g in d._adjoints]
    assert len(folded) == len(gradients)
    assert [each.get("open") for each in folded] == ["", *[None] * (len(folded) - 1)]
    by_name = {words(each.find("summary/h3")).split()[-1]: each for each in folded}
    assert len(by_name) == len(folded)
    for each in folded:
        items = each.findall("ol/li")
        rules = [words(item.find("div[@class='rule']")) for item in items]
        texts = [math.get("alttext") for item in items for math in item.findall(".//math[@display]")]
        (gradient,) = [g for g in gradients if g.formula in " ".join(texts)]
        steps = [step for step in gradient.steps if step.rule != "read"]
        assert rules == [step.rule for step in steps]
        for step, item in zip(steps, items, strict=True):
            shown = " ".join(math.get("alttext") for math in item.findall(".//math[@display]"))
            assert step.after in shown
            if step.rule not in ("chain rule over entries", "regroup", *CHANGED):
                assert step.before in shown


def test_several_occurrences_are_told_apart():
    page = Page(xwb.derive("Y[n] = X[n] X[n] + A[n,k] X[k]").html())
    text = words(page.section("steps"))
    assert r"\right|_{1}" in text
    assert r"\right|_{2}" in text


def test_every_rule_is_explained():
    source = "".join(p.read_text("utf-8") for p in Path(xwb.__file__).parent.glob("algebra/_*.py"))
    used = set(re.findall(r"""(?:Rule|Step)\(\s*"([^"]+)\"""", source)) | {"sum rule"}
    assert {"product rule", "power rule", "chain rule over entries", "collapse", "regroup", "read"} <= used
    assert used <= set(RULES)
    assert {"reuse", "cancel", "factor", "substitute"} <= set(RULES)
    for name, said in RULES.items():
        assert said.endswith("."), name
        assert said.count(". ") <= 1, f"{name}: one or two sentences"


def test_rules_open_without_a_script():
    page = Page(xwb.derive("Y[n] = X[n]**2 tanh(X[n])").html())
    buttons = [b for b in page.all("button") if b.get("popovertarget")]
    assert {words(b) for b in buttons} >= {"product rule", "power rule", "function rule", "collapse"}
    for button in buttons:
        (tip,) = [n for n in page.all("div") if n.get("id") == button.get("popovertarget")]
        assert tip.get("popover") == ""
        assert words(tip).startswith(words(button))
        assert button.get("title") == RULES[words(button)]
        assert button.get("type") == "button"
    listed = [words(dt) for dt in page.section("rules").iter("dt")]
    assert sorted(listed) == sorted({words(b) for b in buttons})


def test_the_small_case():
    d = xwb.derive(LINEAR)
    page = Page(d.html())
    paper = d.on_paper(n=2, m=3, d=2)
    section = page.section("paper")
    assert f"{len(paper.equations)} equations" in words(section)
    assert words(section.find(".//code")) == LINEAR
    numbers = [words(e[-1]) for e in section.iter("div") if e.get("class") == "equation"]
    assert numbers == [f"({equation.number})" for equation in paper.equations]
    assert Page(html(d, paper={"n": 1, "d": 1, "m": 1})).section("paper").find("details") is not None
    with pytest.raises(xwb.FormulaError, match="too large"):
        html(d, paper={"n": 99, "d": 99, "m": 99})


@pytest.mark.parametrize("name", FORMULAS)
def test_the_small_case_in_mathml_says_what_it_says_in_latex(name):
    """The same letters and numbers in the same order."""
    try:
        paper = xwb.derive(FORMULAS[name]).on_paper(**SMALL[name])
    except xwb.FormulaError as error:
        pytest.fail(str(error))
    for number, _, latex, mathml in paper.equations:
        drawn = unicodedata.normalize("NFKC", html_unescape(re.sub(r"<[^>]*>", "", mathml)))
        assert re.findall(r"[^\W_]", _plain(latex)) == re.findall(r"[^\W_]", drawn), number


def _plain(latex: str) -> str:
    """LaTeX without its commands; those that are words or Greek letters as these."""
    latex = re.sub(r"\\(begin|end)\{\w+\}|\^T", "", latex)
    return re.sub(r"\\([A-Za-z]+)", lambda command: PLAIN.get(command[1], ""), latex)


PLAIN = {word: word for word in ("exp", "log", "sin", "cos", "tanh", "max", "min")}
PLAIN |= {"alpha": "α", "beta": "β", "gamma": "γ", "mu": "μ", "theta": "θ"}
SMALL = {
    "linear": {"n": 2, "d": 2, "m": 3},
    "cross-entropy": {"n": 2, "m": 3},
    "labels": {"n": 2, "m": 3, "y": [0, 2]},
    "convolution": {"n": 1, "k": 1, "i": 2, "j": 1, "c": 1, "p": 2, "q": 1, "X": (1, 1, 3, 1)},
    "attention": {"i": 2, "d": 1, "j": 2, "v": 1, "Q": (1, 2, 1), "K": (1, 2, 1), "V": (1, 2, 1)},
    "norm": {"n": 1, "d": 2},
    "pooling": {"n": 1, "i": 2, "r": 2},
    "product": {"n": 1, "k": 3},
    "cases": {"i": 2},
    "kinks": {"n": 2},
    "names": {"n": 2, "k1": 2},
    "numbers": {"n": 2},
}


def test_a_small_case_that_cannot_be():
    gathered = Page(xwb.derive("Y[n,d] = E[k[n],d]").html())
    assert "28 equations" in words(gathered.section("paper"))
    many = Page(xwb.derive("Y[a,b,c,d,e] = A[a,b,c,d,e,f,g,h] B[f,g,h]").html())
    assert "The small case is left out" in words(many.section("paper"))


def test_costs():
    d = xwb.derive(LINEAR)
    assert "n*d*m" in words(Page(d.html()).section("cost")).replace("n*m*d", "n*d*m")
    said = words(Page(html(d, sizes={"n": 64, "d": 4096, "m": 4096})).section("cost"))
    assert "For n = 64, d = 4096, m = 4096." in said
    assert "68,719,476,736 (256 GiB)" in said


def test_latex_comes_along():
    d = xwb.derive(LINEAR)
    assert copied(Page(d.html()), "the LaTeX source") == d.latex()
    for note in re.findall(r"<annotation[^>]*>(.*?)</annotation>", d.html(), re.DOTALL):
        source = note.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
        if "align*" in source:
            check_latex(source)


def test_code_in_tabs(monkeypatch):
    monkeypatch.setattr(Derivation, "code", lambda self, backend: f"# {backend}\nif a < b: pass", raising=False)
    page = Page(xwb.derive(LINEAR).html())
    section = page.section("code")
    tabs = section.findall(".//input")
    assert [tab.get("id") for tab in tabs] == ["tab-numpy", "tab-torch", "tab-jax"]
    assert [tab.get("checked") for tab in tabs] == ["", None, None]
    assert [words(label) for label in section.findall(".//label")] == ["NumPy", "PyTorch", "JAX"]
    for backend, name in (("numpy", "NumPy"), ("torch", "PyTorch"), ("jax", "JAX")):
        assert copied(page, f"the code for {name}") == f"# {backend}\nif a < b: pass"


def test_code_that_cannot_be_written(monkeypatch):
    def code(self, backend):
        raise xwb.FormulaError("no")

    monkeypatch.setattr(Derivation, "code", code, raising=False)
    assert "code" not in Page(xwb.derive(LINEAR).html()).sections()


def test_only_some_gradients():
    d = xwb.derive("H[n,k] = X[n,d] W[d,k]; Y[n,m] = H[n,k] V[k,m]")
    page = Page(html(d, wrt=["V"]))
    assert [words(h) for h in page.section("gradients").iter("h3")] == ["The gradient of VV"]  # drawn, and in LaTeX
    with pytest.raises(xwb.FormulaError, match="no tensor Q"):
        html(d, wrt=["Q"])


# -- the proof -----------------------------------------------------------------------------------------------------


def wrong_backward(dY, X, W, b):
    return dY @ W.T, X.T @ dY / 2, dY.sum(0)


def test_a_proof_that_holds():
    d = xwb.derive(LINEAR)
    page = Page(d.html(proof=xwb.check(d, *arrays())))
    section = page.section("proof")
    rows = section.findall(".//tbody/tr")
    assert [row.get("class") for row in rows] == ["right"] * 3
    assert [words(row.find("th")) for row in rows] == ["X", "W", "b"]
    assert all(words(row).endswith("agrees") for row in rows)
    assert "WRONG" not in words(page.root)
    assert not page.all("p", role="alert")


def test_a_proof_that_fails_looks_so():
    d = xwb.derive(LINEAR)
    report = xwb.check((lambda X, W, b: X @ W + b, wrong_backward), *arrays())
    assert not report.ok
    page = Page(d.html(proof=report))
    (alert,) = page.all("p", role="alert")
    assert "WRONG" in words(alert)
    section = page.section("proof")
    assert [row.get("class") for row in section.findall(".//tbody/tr")] == ["right", "wrong", "right"]
    assert "DISAGREES" in words(section.findall(".//tbody/tr")[1])
    assert "the ratio is 1/2" in words(section)
    assert "<lambda>(X, W, b)" in words(section)  # escaped, or the parser had not seen it


def test_a_proof_of_all_sizes():
    d = xwb.derive(LINEAR)
    page = Page(d.html(proof=xwb.prove(d)))
    (row,) = page.section("proof").findall(".//tbody/tr")
    assert row.get("class") == "right"
    assert LINEAR in words(row)
    wrong = xwb.Layer("wrong", LINEAR, xwb.linear.forward, _half, inputs=("X", "W", "b"))
    page = Page(d.html(proof=xwb.prove(wrong)))
    assert page.section("proof").find(".//tbody/tr").get("class") == "wrong"
    assert len(page.all("p", role="alert")) == 1


def _half(dY, saved, needs=None):
    return [None if g is None else g / 2 for g in xwb.linear.backward(dY, saved, needs=needs)]


def test_what_is_no_proof():
    with pytest.raises(TypeError, match="what check or prove returns, not str"):
        xwb.derive(LINEAR).html(proof="it is right")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda: xwb.check(xwb.relu, arrays()[0]), r"it is of relu\(X\), and this page is of Y\(X, W, b\)"),
        (
            lambda: xwb.prove(xwb.derive("Y[n,m] = X[n,d] W[m,d] + b[m]"), conduct=False),
            r"it is of Y\[n,m\] = X\[n,d\] W\[m,d\] \+ b\[m\], and this page is of",
        ),
        (
            lambda: xwb.check(xwb.derive("Y[n,m] = X[n] W[n,m] + b[m]"), np.ones(3), *arrays()[1:]),
            "X is 3, and X has 2 axes",
        ),
    ],
)  # fmt: skip
def test_a_proof_of_another_layer(found, words):
    with pytest.raises(ValueError, match=words):
        xwb.derive(LINEAR).html(proof=found())


def test_a_proof_of_the_same_layer_written_otherwise():
    d = xwb.derive(LINEAR)
    assert "Agrees" in d.html(proof=xwb.prove(xwb.derive("Y[n,m] = X[n,d]*W[d,m]  + b[m]"), conduct=False))
    assert "Agrees" in d.html(proof=xwb.prove(xwb.linear, conduct=False))


def test_the_box_says_why_a_proof_failed():
    d = xwb.derive(LINEAR)
    report = xwb.check((lambda X, W, b: X @ W + b, wrong_backward), *arrays())
    (alert,) = Page(d.html(proof=report)).all("p", role="alert")
    assert "dW: the ratio is 1/2 at every entry" in words(alert)
    report = xwb.check(d, *arrays())
    report.findings[0] = report.findings[0]._replace(ok=False, detail="dX is not finite")
    page = Page(d.html(proof=report))
    assert {row.get("class") for row in page.section("proof").findall(".//tbody/tr")} == {"right"}
    assert "dX is not finite" in words(page.all("p", role="alert")[0])
    report.rows = []
    assert "Nothing was compared." in d.html(proof=report)


def test_order_of_gradients_and_shapes():
    """Values in the order in which they are needed, then inputs as they appear."""
    d = xwb.derive("A[i,j] = X[i,d] W[d,j]\nB[i] = sum[j](exp(A[i,j]))\nY[i,j] = A[i,j]/B[i]*g[j]")
    page = Page(d.html())
    shown = [node.get("id") for node in page.all("article")]
    assert shown[-3:] == ["d-X", "d-W", "d-g"]
    assert shown.index("d-B") < shown.index("d-A") < shown.index("d-X")
    (shapes,) = re.findall(r"\bX is .*?Y is [^.]*", drawn_words(page.section("formula")))
    assert [part.split()[0] for part in shapes.split("; ") if part[0] != "U"] == ["X", "W", "A", "B", "g", "Y"]
    assert "Derived from index notation" in words(page.root)
    assert "Derived from one line of index notation" in words(Page(page_of("linear")).root)


# -- what is hostile, what is long ---------------------------------------------------------------------------------


def test_text_is_escaped():
    """A formula in which `<` could begin an element."""
    text = xwb.derive("Y[n] = where(b<script, script, X[n]) + [b<script]").html()
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert copied(page, "the formula") == "Y[n] = where(b<script, script, X[n]) + [b<script]"
    shown = re.sub(r"(?s)<(style|script)>.*?</\1>", "", text)
    assert not re.search(r"<[^a-z/!]", shown)


def test_a_report_cannot_bring_markup():
    d = xwb.derive(LINEAR)
    report = xwb.check(d, *arrays())
    report.call = "<img src=x onerror=alert(1)>"
    page = Page(d.html(proof=report))
    assert not page.all("img")
    assert "<img src=x" in words(page.section("proof"))


def test_long_formulas_stay_short_pages():
    d = xwb.derive("Y[n] = " + " ".join(f"X{i}[n]" for i in range(120)))
    str(d)  # what the page needs as well is found by now
    text = d.html()
    assert len(text) < 2_500_000
    page = Page(text)
    assert "left out here" in words(page.section("steps"))
    assert copied(page, "the formula of dX119") == d["X119"].formula
    assert "Left out" in words(page.section("latex"))


def test_pages_are_the_same_each_time():
    assert xwb.derive(LSTM).html() == page_of("lstm")
