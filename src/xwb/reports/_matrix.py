"""A confusion matrix as a table, shaded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

LONG = 9  # letters of a class in the header


def confusion_table(counts: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """How many rows of each class (a row) were given each class (a column), with the recall of each.

    Args:
        counts: (K, K), rows or the sums of their weights.
        names: of the classes.
    """
    header = "".join(f'<th scope="col" title="{escape(name)}">{escape(_short(name))}</th>' for name in names)
    body = []
    for truth, row in enumerate(counts):
        total = sum(row)
        cells = []
        for answer, count in enumerate(row):
            if not count:
                cells.append('<td class="none">0</td>')
                continue
            kind = "hit" if answer == truth else "miss"
            # A single mistake is to be seen, and the text stays readable on the deepest shade.
            shade = 0.38 * count / total if kind == "hit" else min(0.5, 0.22 + 0.07 * count)
            cells.append(f'<td class="{kind}" style="--shade:{shade:.2f}">{count:.6g}</td>')
        recall = f"{100 * row[truth] / total:.1f} %" if total else "–"
        name = f'<th scope="row" title="{escape(names[truth])}">{escape(_short(names[truth], 2 * LONG))}</th>'
        body.append(f'<tr>{name}{"".join(cells)}<td class="recall">{recall}</td></tr>')
    return "\n".join(
        [
            '<div class="scroll" tabindex="0"><table class="matrix">',
            f'<thead><tr><th class="corner">is \\ said</th>{header}<th class="recall">recall</th></tr></thead>',
            "<tbody>",
            *body,
            "</tbody></table></div>",
        ]
    )


def _short(name: str, long: int = LONG) -> str:
    return name if len(name) <= long else f"{name[: long - 1]}…"
