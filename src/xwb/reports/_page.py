"""The skeleton that every report shares: one HTML file that needs nothing else, light or dark, wide or narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """The whole document; ``body`` is HTML, ``title`` text, ``style`` CSS that is the page's own."""
    shared = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Nothing may be fetched and no script may run, whatever a name in the run says.
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'; img-src data:\">",
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{shared}{style}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def section(heading: str, *content: str) -> str:
    """A section with its heading (text) and content (HTML)."""
    return "\n".join(["<section>", f"<h2>{escape(heading)}</h2>", *content, "</section>"])


def facts(pairs: Iterable[tuple[str, str]], style: str = "facts") -> str:
    """A list of (name as text, value as HTML)."""
    rows = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="{style}">\n{rows}\n</dl>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table in a box that scrolls if it is too wide; all cells are text, the columns ``numbers`` right-aligned."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=number' * (i in numbers)}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{cells("th", header)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
