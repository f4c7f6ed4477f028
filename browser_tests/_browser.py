"""Pages served to a browser, and what it finds there."""

from __future__ import annotations

import contextlib
import functools
import html
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WIDTHS = (390, 768, 1280)
SCHEMES = {"dark": 0, "light": 1}

# The contrast of two colours by WCAG.
CONTRAST = """function luminance(colour) {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
"""

# The page opens another in frames, measures each, and writes down what it found.
FRAMES = """<!DOCTYPE html><title>measure</title><link rel="icon" href="data:,"><body>
<script>
const widths = %s, found = {};
%s
%s
Promise.all(widths.map(width => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0;display:block`;
  frame.onload = async () => { found[width] = await measure(frame); done(); };
  frame.src = "%s";
  document.body.append(frame);
}))).then(() => { document.title = "done"; document.body.textContent = JSON.stringify(found); });
</script>
"""


def measuring(measure: str, address: str) -> str:
    """A page for `found_by`: what the script's ``measure(frame)`` finds of ``address`` at every width."""
    return FRAMES % (list(WIDTHS), CONTRAST, measure, address)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address where a folder is served."""
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
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


def found_by(chromium: str, profile: Path, address: str, scheme: str) -> tuple[dict[int, Any], list[str]]:
    """What a measuring page found by width, and the console's lines."""
    dom, log = browse(chromium, profile, address, scheme, "--dump-dom")
    assert "<title>done</title>" in dom, (dom[-2000:], log[-2000:])
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", dom, re.DOTALL)[1]))
    return {int(width): values for width, values in found.items()}, re.findall(r".*:CONSOLE.*", log)


def check_frames(found: dict[int, Any], console: list[str]) -> None:
    """At every width the page fits, fetches nothing, and its scripts have nothing to complain of."""
    assert console == []
    assert sorted(found) == sorted(WIDTHS)
    for width, page in found.items():
        assert page["client"] == width
        assert page["scroll"] <= width, "the page scrolls sideways"
        assert page["outside"] == []
        assert page["fetched"] == []
