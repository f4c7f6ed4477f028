"""The report pages in a real browser: light and dark, wide and narrow. Run by .ci/run, which installs Chromium.

A page served beside a report opens it in frames of three widths, measures, and writes down what it found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _browser import SCHEMES, browse, check_frames, found_by, measuring, serving

import xwb
from xwb.reports import write_fit_report, write_report
from xwb.training import DigitsJob, DigitsOptions, fit

MODELS = {"network": {}, "bare": {"hidden": ()}, "svm": {"hidden": (), "loss": "svm"}}

FITS = {
    "sweep": {"sweep": {"l2": [1e-4, 1e-2, 1]}},
    "mini-batches": {"hidden": (8,), "epochs": 6},
    "hinge": {"loss": "squared_hinge"},
}

MEASURE = """\
function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const look = e => frame.contentWindow.getComputedStyle(e);
  const paper = look(page.body).backgroundColor;
  const outside = [...page.body.querySelectorAll("*")].filter(e =>
    !e.closest(".scroll") && !e.closest("svg") && e.getBoundingClientRect().right > root.clientWidth + 0.5);
  return {
    client: root.clientWidth, scroll: root.scrollWidth,
    outside: outside.map(e => e.tagName + "." + e.className),
    boxes: [...page.querySelectorAll("svg, img")].every(e => e.getBoundingClientRect().width > 8),
    images: [...page.images].every(i => i.complete && i.naturalWidth === 8), imageCount: page.images.length,
    charts: page.querySelectorAll("svg").length,
    ticks: Math.min(...[...page.querySelectorAll("svg text")].map(t => t.getBoundingClientRect().height)),
    overlaps: [...page.querySelectorAll("svg")].flatMap(svg => {
      const texts = [...svg.querySelectorAll("text")].map(e => [e.textContent, e.getBoundingClientRect()]);
      return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
        Math.min(p.right, q.right) - Math.max(p.left, q.left) > 3 &&  // a box is larger than its ink
        Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 3).map(([b]) => [a, b]));
    }),
    curves: [...page.querySelectorAll("svg .curve")].filter(e => e.checkVisibility()).map(e =>
      [e.getBoundingClientRect().width, e.getBoundingClientRect().height, contrast(look(e).stroke, paper)]),
    cells: [...page.querySelectorAll(".matrix tbody td")].map(e =>
      e.checkVisibility() ? Math.min(e.getBoundingClientRect().width, e.getBoundingClientRect().height) : 0),
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
    paper: luminance(paper),
    contrast: Math.min(...["p", "th", "figcaption", "dt", "dd", ".muted"].map(s => page.querySelector(s))
      .filter(Boolean).map(e => contrast(look(e).color, paper))),
  };
}
"""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with one report of each model and fit, and the address where it is served."""
    folder = tmp_path_factory.mktemp("pages")
    for name, options in MODELS.items():
        job = DigitsJob(DigitsOptions(**options))
        problem = job.gradient_problem()
        report = xwb.check(problem.layer, *problem.params)
        check = {"examples": problem.examples, "rows": [row._asdict() for row in report.rows]}
        for _ in job.run(folder / name, gradient_check=check):
            pass
        write_report(folder / name)
    rng = np.random.default_rng(0)
    kinds = np.array(["a kind with a rather long name", "b", "c"])[np.arange(300) % 3]
    X = rng.standard_normal((300, 6)) + 1.2 * (np.arange(300) % 3)[:, None] * (np.arange(6) % 2)
    for name, options in FITS.items():
        write_fit_report(fit(X, kinds, out=folder / name, **options))
    (folder / "bad").mkdir()
    (folder / "bad" / "report.html").write_text(
        "<!DOCTYPE html><p style='width:1500px'>wide<img src='/missing.png'><script>console.error('oh')</script>"
    )
    with serving(folder) as address:
        yield folder, address


def measured(
    chromium: str, profile: Path, served: tuple[Path, str], model: str, scheme: str
) -> tuple[dict[int, Any], list[str]]:
    """What the frames found by width, and the console's lines."""
    folder, address = served
    (folder / f"measure-{model}.html").write_text(measuring(MEASURE, f"/{model}/report.html"))
    return found_by(chromium, profile, f"{address}/measure-{model}.html", scheme)


def check_legible(page: dict[str, Any], scheme: str) -> None:
    """Charts and text can be read in this scheme."""
    assert page["ticks"] >= 9, "the axes' labels are too small to read"
    assert page["overlaps"] == []
    assert page["paper"] > 0.8 if scheme == "light" else page["paper"] < 0.05
    assert page["contrast"] >= 4.5, "WCAG AA"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", MODELS)
def test_report(chromium, tmp_path, served, model, scheme):
    found, console = measured(chromium, tmp_path, served, model, scheme)
    check_frames(found, console)
    for page in found.values():
        assert page["charts"] == 2
        assert page["boxes"]
        assert page["images"]
        assert page["imageCount"] >= 10
        check_legible(page, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", FITS)
def test_fit_report(chromium, tmp_path, served, name, scheme):
    found, console = measured(chromium, tmp_path, served, name, scheme)
    check_frames(found, console)
    for page in found.values():
        assert page["boxes"]
        wide, high, contrast = zip(*page["curves"], strict=True)
        assert min(wide) > 50
        assert max(high) > 20
        assert min(contrast) >= 3, "WCAG AA of what is no text"
        assert len(page["cells"]) == 3 * (3 + 1)  # with the recalls
        assert min(page["cells"]) > 8
        check_legible(page, scheme)


def test_the_measurement_can_fail(chromium, tmp_path, served):
    found, console = measured(chromium, tmp_path, served, "bad", "light")
    assert any("oh" in line for line in console)
    assert found[390]["scroll"] > 390
    assert found[390]["outside"]
    assert found[390]["fetched"]
    assert not found[390]["images"]
    assert found[390]["charts"] == 0
    assert found[390]["curves"] == found[390]["cells"] == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_screenshot_is_no_blank_page(chromium, tmp_path, served, scheme):
    picture = tmp_path / "page.png"
    address = f"{served[1]}/bare/report.html"
    browse(chromium, tmp_path / "profile", address, scheme, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 30_000  # an empty page compresses to a few thousand bytes
