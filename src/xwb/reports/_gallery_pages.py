"""The gallery as pages: an index and a page for each layer, and as the document in ``docs/``."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from ..core import RunError
from ..pages import page
from ..runs import make_folder, write_text
from ._gallery import Entry, Shown

TITLE = "Gallery"
INTRODUCTION = (
    "Layers that everybody knows, each as one formula in index notation. The gradients below it were derived from that "
    "formula; dT is the gradient of T."
)
COLUMNS = 120  # of the document
# What makes a folder one that may be written again.
MARK = '<main data-xwb="gallery">'


def gallery_index(shown: Sequence[Shown]) -> str:
    """The index as an HTML page: every layer with its formula, its gradients and what its proof found."""
    kinds = list(_by_kind(shown))
    wrong = sum(not one.proof.ok for one in shown)
    body = [
        MARK,
        f"<h1>{TITLE}</h1>",
        f"<p>{escape(INTRODUCTION)} Each layer was proved when this page was made: value and gradients against the "
        f"formula evaluated by loops, and against finite differences.</p>",
        f'<p class="muted">{_count(shown)}</p>',
    ]
    if wrong:
        body.append(f'<p class="notice">{wrong} of {len(shown)} proofs failed.</p>')
    links = (f'<a href="#kind-{_anchor(kind)}">{escape(kind)}</a>' for kind, _ in kinds)
    body += [f"<nav><p>{' · '.join(links)}</p></nav>"]
    for kind, members in kinds:
        body += [f'<section id="kind-{_anchor(kind)}">', f"<h2>{escape(kind)}</h2>"]
        body += [_article(one) for one in members]
        body.append("</section>")
    style = files(__package__).joinpath("gallery.css").read_text(encoding="utf-8")
    return page(TITLE, [*body, "</main>"], style)


def _article(one: Shown) -> str:
    entry = one.entry
    return "\n".join(
        [
            f'<article id="{entry.name}">',
            f'<h3><a href="{entry.name}.html">{escape(entry.title)}</a></h3>',
            f'<p><code class="muted">{entry.name}</code> {escape(entry.about)}</p>',
            f'<div class="formula scroll">{one.drawn}</div>',
            f"<pre><code>{escape(entry.formula)}\n\n{escape(chr(10).join(one.gradients))}</code></pre>",
            _proved(one),
            "</article>",
        ]
    )


def _proved(one: Shown) -> str:
    if not one.proof.ok:
        said = " ".join(verdict.sentence for verdict in one.proof.verdicts) or "nothing is proved"
        return f'<p class="notice">The proof failed: {escape(said)}</p>'
    value, gradient, numeric = (f"{error:.0e}" for error in one.proof.largest(dtype="float64"))
    return (
        f'<p class="muted">Proved in {len(one.proof.rows)} cases: value to {value}, gradients to {gradient}, finite '
        f"differences to {numeric} in float64.</p>"
    )


def gallery_markdown(shown: Sequence[Shown]) -> str:
    """``docs/gallery.md``: what the formulas say, and no number that another machine would measure otherwise."""
    kinds = list(_by_kind(shown))
    lines = [
        f"# {TITLE}",
        "",
        *_paragraph(
            f"{INTRODUCTION} `xwb gallery` proves all of them on the spot and says to what error, `xwb gallery NAME` "
            "shows one with every step, and `xwb gallery --html DIR` writes a page for each. [Index notation for a "
            "first time](index-notation.md) says how to read them, [the reference](derive.md) what else can be "
            "written; the sources are [named here](conventions.md#sources)."
        ),
        "",
        "This page is generated: `xwb gallery --markdown > docs/gallery.md`.",
        "",
    ]
    for kind, members in kinds:
        links = (f"[{one.entry.title}](#{_anchor(one.entry.title)})" for one in members)
        lines += _paragraph(f"* [{kind}](#{_anchor(kind)}): {'; '.join(links)}", "  ")
    for kind, members in kinds:
        lines += ["", f"## {kind}"]
        for one in members:
            entry = one.entry
            lines += ["", f"### {entry.title}", "", *_paragraph(f"`{entry.name}`: {entry.about}"), ""]
            lines += ["```text", entry.formula, "", *one.gradients, "```"]
    return "\n".join([*lines, ""])


def _paragraph(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _by_kind(shown: Sequence[Shown]) -> Iterator[tuple[str, list[Shown]]]:
    for kind, members in itertools.groupby(shown, lambda one: one.entry.kind):
        yield kind, list(members)


def _anchor(heading: str) -> str:
    """What links to a heading in Markdown, on GitHub at least."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _count(shown: Sequence[Shown]) -> str:
    return f"{len(shown)} layer{'s' * (len(shown) != 1)}"


# -- on disk -----------------------------------------------------------------------------------------------------------


def write_gallery(
    folder: str | os.PathLike[str], entries: Iterable[Entry], tell: Callable[[Shown], None] = lambda one: None
) -> list[Shown]:
    """Prove the entries and write ``index.html`` and a page for each into ``folder``.

    Everything is proved and rendered before the first file is written, and the index is written last.

    Args:
        folder: a new or empty one, or one with an older gallery, of which only the pages written anew are replaced.
        entries: of the gallery.
        tell: called with each entry when it is proved.

    Raises:
        RunError: ``folder`` holds something else, or cannot be written.
    """
    folder = Path(folder)
    refuse_other_folders(folder)
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    new: list[Path] = []
    try:
        make_folder(folder)
        if not os.access(folder, os.W_OK | os.X_OK):  # said before the proofs, which take their time
            raise RunError(f"cannot write into {folder}: permission denied")
        shown: list[Shown] = []
        pages: dict[str, str] = {}
        for entry in entries:
            one = entry.show()
            pages[f"{entry.name}.html"] = one.derivation.html(proof=one.proof)
            shown.append(one)
            tell(one)
        for name, text in {**pages, "index.html": gallery_index(shown)}.items():
            path = folder / name
            if not os.path.lexists(path):
                new.append(path)
            write_text(path, text)
    except BaseException:  # an interrupt too: no folder is left that would then be refused
        with contextlib.suppress(OSError):
            for path in new:
                path.unlink(missing_ok=True)
            for made in missing:
                made.rmdir()
        raise
    return shown


def refuse_other_folders(folder: Path) -> None:
    """Raise `RunError` if ``folder`` holds anything but a gallery or nothing."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise RunError(f"{folder} exists and is no folder; a gallery is a folder, give another one")
    try:
        written = MARK.encode() in (folder / "index.html").read_bytes()
    except OSError:
        written = False
    try:
        others = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror or error}") from error
    if others and not written:
        raise RunError(f"{folder} holds {sorted(others)[0]} and no gallery, so it is left alone; give another folder")
