"""The report page in a real browser: light and dark, wide and narrow. Run by .ci/run, which installs Chromium.

A page served beside the report opens it in frames of two widths, measures, and writes down what it found.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import xwb
from xwb.reports import write_report
from xwb.training import DigitsJob, DigitsOptions

MODELS = {"network": {}, "bare": {"hidden": ()}, "svm": {"hidden": (), "loss": "svm"}}
WIDTHS = (390, 768, 1280)
SCHEMES = {"dark": 0, "light": 1}

MEASURE = """<!DOCTYPE html><title>measure</title><link rel="icon" href="data:,"><body>
<script>
const widths = %s, found = {};
function luminance(colour) {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
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
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
    paper: luminance(paper),
    contrast: Math.min(...["p", "th", "figcaption", "dt", "dd", ".muted"].map(s => page.querySelector(s))
      .filter(Boolean).map(e => contrast(look(e).color, paper))),
  };
}
Promise.all(widths.map(width => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0;display:block`;
  frame.onload = () => { found[width] = measure(frame); done(); };
  frame.src = "%s";
  document.body.append(frame);
}))).then(() => { document.title = "done"; document.body.textContent = JSON.stringify(found); });
</script>
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium")
    assert path, "these tests need Debian's chromium: apt-get install chromium"
    return path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with one report of each model, and the address where it is served."""
    folder = tmp_path_factory.mktemp("pages")
    for name, options in MODELS.items():
        job = DigitsJob(DigitsOptions(**options))
        problem = job.gradient_problem()
        report = xwb.check(problem.layer, *problem.params)
        check = {"examples": problem.examples, "rows": [row._asdict() for row in report.rows]}
        for _ in job.run(folder / name, gradient_check=check):
            pass
        write_report(folder / name)
    (folder / "bad").mkdir()
    (folder / "bad" / "report.html").write_text(
        "<!DOCTYPE html><p style='width:1500px'>wide<img src='/missing.png'><script>console.error('oh')</script>"
    )
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def browse(chromium: str, profile: Path, address: str, scheme: str, *more: str) -> tuple[str, str]:
    """The page's DOM after its scripts, and what Chromium wrote to stderr."""
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            "--window-size=1400,1000",
            "--virtual-time-budget=20000",
            *more,
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


def measured(
    chromium: str, profile: Path, served: tuple[Path, str], model: str, scheme: str
) -> tuple[dict[int, Any], list[str]]:
    """What the frames found by width, and the console's lines."""
    folder, address = served
    (folder / f"measure-{model}.html").write_text(MEASURE % (list(WIDTHS), f"/{model}/report.html"))
    dom, log = browse(chromium, profile, f"{address}/measure-{model}.html", scheme, "--dump-dom")
    assert "<title>done</title>" in dom, (dom[-2000:], log[-2000:])
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", dom, re.DOTALL)[1]))
    return {int(width): values for width, values in found.items()}, re.findall(r".*:CONSOLE.*", log)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", MODELS)
def test_report(chromium, tmp_path, served, model, scheme):
    found, console = measured(chromium, tmp_path, served, model, scheme)
    assert console == []
    assert sorted(found) == sorted(WIDTHS)
    for width, page in found.items():
        assert page["client"] == width
        assert page["scroll"] <= width, "the page scrolls sideways"
        assert page["outside"] == []
        assert page["fetched"] == []
        assert page["charts"] == 2
        assert page["boxes"]
        assert page["images"]
        assert page["imageCount"] >= 10
        assert page["ticks"] >= 9, "the axes' labels are too small to read"
        assert page["paper"] > 0.8 if scheme == "light" else page["paper"] < 0.05
        assert page["contrast"] >= 4.5, "WCAG AA"


def test_the_measurement_can_fail(chromium, tmp_path, served):
    found, console = measured(chromium, tmp_path, served, "bad", "light")
    assert any("oh" in line for line in console)
    assert found[390]["scroll"] > 390
    assert found[390]["outside"]
    assert found[390]["fetched"]
    assert not found[390]["images"]
    assert found[390]["charts"] == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_screenshot_is_no_blank_page(chromium, tmp_path, served, scheme):
    picture = tmp_path / "page.png"
    address = f"{served[1]}/bare/report.html"
    browse(chromium, tmp_path / "profile", address, scheme, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 30_000  # an empty page compresses to a few thousand bytes
