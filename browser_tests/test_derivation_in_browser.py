"""The page of a derivation in a real browser: MathML is drawn, rules open, nothing scrolls but the boxes that may.

A page served beside it opens it in frames of three widths, unfolds everything, measures, and writes down what it found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _browser import SCHEMES, browse, check_frames, found_by, measuring, serving

import xwb
from xwb.algebra import Derivation

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
FORMULAS = {
    "attention": "S[...,i,j] = Q[...,i,d] K[...,j,d]/sqrt(size(d));"
    "P[...,i,j] = exp(S[...,i,j])/sum[k](exp(S[...,i,k])); Y[...,i,v] = P[...,i,j] V[...,j,v]",
    "norm": "mu[n] = mean[d](X[n,d]); v[n] = mean[d]((X[n,d] - mu[n])**2);"
    "Y[n,d] = gamma[d] (X[n,d] - mu[n])/sqrt(v[n] + 1e-5) + beta[d]",
    "convolution": "Y[n,k,i,j] = X[n,c,zero(2*i+p-1),wrap(j+q-1)] K[k,c,p,q] + b[k]",
    "cases": "Y[i] = where(X[i] > 0, X[i]**a, -abs(X[i])) + sigmoid(X[i]) erf(X[i])",
    "long": "Y[n] = " + " + ".join(f"long_name_{i}[n] tanh(other_name_{i}[n])" for i in range(12)),
}
PAGES = ("linear", "wrong", *FORMULAS)

MEASURE = """\
const wait = time => new Promise(done => setTimeout(done, time));
async function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement, all = s => [...page.querySelectorAll(s)];
  const look = e => frame.contentWindow.getComputedStyle(e), box = e => e.getBoundingClientRect();
  const paper = look(page.body).backgroundColor;
  const folded = all("details").filter(e => !e.open).length;
  all("details").forEach(e => e.open = true);
  const tip = page.querySelector("button.tip"), said = page.getElementById(tip.getAttribute("popovertarget"));
  const closed = !said.checkVisibility();
  tip.focus();
  const focused = page.activeElement === tip;
  tip.click();
  const opened = said.matches(":popover-open") && said.checkVisibility();
  const inside = box(said).left >= 0 && box(said).right <= root.clientWidth + 0.5;
  const wide = box(said).width, readable = contrast(look(said).color, look(said).backgroundColor);
  said.hidePopover();
  const tabs = all(".tabs input"), panels = () => all(".panel").map(e => e.checkVisibility());
  const first = panels();
  if (tabs.length) tabs[1].click();
  const copy = page.querySelector("button.copy");
  copy.click();
  await wait(200);
  const outside = all("body *").filter(e => !e.closest(".scroll") && box(e).right > root.clientWidth + 0.5);
  const maths = all("math").filter(e => e.checkVisibility());
  const fractions = all("mfrac").filter(e => e.checkVisibility());
  return {
    client: root.clientWidth, scroll: root.scrollWidth, folded, closed, focused, opened, inside, wide, readable,
    outside: outside.map(e => e.tagName + "." + e.className),
    maths: maths.length, flat: maths.filter(e => box(e).width < 2 || box(e).height < 5).length,
    fractions: fractions.length, low: fractions.filter(e => box(e).height < 1.3 * parseFloat(look(e).fontSize)).length,
    annotations: all("annotation").filter(e => e.checkVisibility()).length,
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
    first, second: panels(), copied: copy.textContent, hidden: all("button.copy").filter(e => e.hidden).length,
    paper: luminance(paper),
    contrast: Math.min(...["p", "th", "td", "dt", "dd", "a", "li", "summary", "figcaption", ".muted", ".tip", "h3",
      "code", ".state", ".wrong .state", ".wrong strong", ".right .state"].map(s => page.querySelector(s))
      .filter(Boolean).map(e => contrast(look(e).color, paper))),
    wrong: all("tr.wrong").length, alerts: all("[role=alert]").length,
  };
}
"""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with the pages, and the address where it is served."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    linear = xwb.derive(LINEAR)

    def wrong(dY: Any, X: Any, W: Any, b: Any) -> tuple[Any, ...]:
        return dY @ W.T, X.T @ dY / 2, dY.sum(axis=0)

    reports = {
        "linear": xwb.check(linear, *arrays),
        "wrong": xwb.check((lambda X, W, b: X @ W + b, wrong), *arrays),
    }
    pages = {name: linear.html(report) for name, report in reports.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Derivation, "code", lambda self, backend: f"# {backend}\n{'x = 1  # long ' * 20}", raising=False)
        pages |= {name: xwb.derive(formula).html() for name, formula in FORMULAS.items()}
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
        (folder / f"measure-{name}.html").write_text(measuring(MEASURE, f"/{name}.html"), "utf-8")
    with serving(folder) as address:
        yield folder, address


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_page(chromium, tmp_path, served, name, scheme):
    found, console = found_by(chromium, tmp_path, f"{served[1]}/measure-{name}.html", scheme)
    check_frames(found, console)
    for page in found.values():
        assert page["maths"] > 30
        assert page["flat"] == 0
        assert page["fractions"] > 20
        assert page["low"] == 0, "fractions are not drawn as such"
        assert page["annotations"] == 0
        assert page["folded"] >= 2
        assert page["closed"]
        assert page["focused"]
        assert page["opened"]
        assert page["inside"]
        assert page["wide"] > 200
        assert page["readable"] >= 4.5
        assert page["hidden"] == 0, "the script brings the buttons to life"
        assert page["copied"] != "copy"
        assert page["paper"] > 0.8 if scheme == "light" else page["paper"] < 0.05
        assert page["contrast"] >= 4.5, "WCAG AA"
        assert (page["wrong"], page["alerts"]) == ((1, 1) if name == "wrong" else (0, 0))
        if name in FORMULAS:
            assert (page["first"], page["second"]) == ([True, False, False], [False, True, False])


def test_the_page_is_read_without_its_script(chromium, tmp_path, served):
    """Another script at its place is refused by the browser; then buttons that would do nothing are not shown."""
    folder, address = served
    text = (folder / "linear.html").read_text("utf-8")
    assert "b.hidden=false" in text
    (folder / "refused.html").write_text(text.replace("b.hidden=false", "document.title='ran';b.hidden=false"), "utf-8")
    dom, log = browse(chromium, tmp_path, f"{address}/refused.html", "light", "--dump-dom")
    assert "Content Security Policy" in log
    assert "<title>ran" not in dom
    assert dom.count('hidden="">copy</button>') == text.count("hidden>copy</button>") > 5


def test_a_screenshot_is_no_blank_page(chromium, tmp_path, served):
    picture = tmp_path / "page.png"
    browse(chromium, tmp_path / "profile", f"{served[1]}/norm.html", "light", f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 30_000
