"""``xwb gallery``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._output import complain, others_to_stderr, say

if TYPE_CHECKING:
    from ..reports import Entry, Shown

COLUMNS = ("layer", "gradients", "value", "gradient", "numeric", "seconds", "formula")
EXAMPLES = """\b
Examples:
  xwb gallery
  xwb gallery layer-norm
  xwb gallery --html gallery"""


@click.command(epilog=EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--html", "directory", metavar="DIR",
    help="Write index.html and a page for each layer into DIR; an older gallery there is overwritten.",
)  # fmt: skip
@click.option("--markdown", is_flag=True, help="Print docs/gallery.md.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def gallery(names: tuple[str, ...], directory: str | None, markdown: bool, as_json: bool) -> int:
    """Show layers that everybody knows, each derived from its formula and proved on the spot.

    Without NAME a line for each: how many gradients it has, and the largest relative errors of value and gradients
    against the formula evaluated by loops, and against finite differences, in float64. With NAME its page, as xwb
    derive prints it, and its proof.
    """
    from ..reports import GALLERY, gallery_markdown, write_gallery

    if directory is not None and not directory.strip():
        raise click.UsageError("--html needs the name of a folder, and this one is empty; type  --html gallery")
    folder = None if directory is None else Path(directory)
    if names and (folder or markdown):
        raise click.UsageError(f"{'--html' if folder else '--markdown'} shows the whole gallery; type it without names")
    if sum(map(bool, (folder, markdown, as_json))) > 1:
        raise click.UsageError("--html, --markdown and --json are three ways to show it; type one of them")
    entries = _named(names) if names else GALLERY
    whole = not (names or markdown or as_json)
    header = [_columns(COLUMNS)]

    def tell(one: Shown) -> None:  # the header with the first layer, when the folder is known to be right
        if whole:
            say("\n".join([*header, _line(one)]))
            header.clear()

    with others_to_stderr(alone=as_json or markdown):
        shown = write_gallery(folder, entries, tell) if folder else _shown(entries, tell)
    wrong = [one for one in shown if not one.proof.ok]
    if as_json:
        say(json.dumps({"ok": not wrong, "layers": [_record(one) for one in shown]}, allow_nan=False))
    elif markdown:
        say(gallery_markdown(shown).rstrip("\n"))
        for one in wrong:
            complain(f"{one.entry.name} is wrong; see  xwb gallery {one.entry.name}")
    elif names:
        say("\n\n".join(_page(one) for one in shown))
    else:
        say("\n" + "\n\n".join([*(f"{one.entry.name}\n{one.proof}" for one in wrong), _conclusion(shown, wrong)]))
        if folder:
            say(f"gallery        {folder}  (look at {folder / 'index.html'})")
    return 1 if wrong else 0


def _named(names: Sequence[str]) -> list[Entry]:
    from ..core import OptionError, unknown
    from ..reports import GALLERY

    by_name = {entry.name: entry for entry in GALLERY}
    for name in names:
        if name not in by_name:
            raise OptionError(f"the gallery has no {name}{unknown(name, by_name)}; xwb gallery lists what it has")
    return [by_name[name] for name in dict.fromkeys(names)]


def _shown(entries: Sequence[Entry], tell: Callable[[Shown], None]) -> list[Shown]:
    shown = []
    for entry in entries:
        shown.append(entry.show())
        tell(shown[-1])
    return shown


def _columns(cells: Sequence[str]) -> str:
    name, *numbers, formula = cells
    return f"{name:<31}" + "".join(f"{number:>10}" for number in numbers) + f"  {formula}"


def _line(one: Shown) -> str:
    first, *more = one.entry.formula.split("\n")
    errors = [f"{error:.0e}" for error in one.proof.largest(dtype="float64")]
    wrong = "" if one.proof.ok else "WRONG  "
    cells = (one.entry.name, str(len(one.derivation.differentiable)), *errors, f"{one.seconds:.1f}")
    return _columns((*cells, wrong + first + "; …" * bool(more)))


def _conclusion(shown: Sequence[Shown], wrong: Sequence[Shown]) -> str:
    if wrong:
        return f"{len(wrong)} of {len(shown)} {'is' if len(wrong) == 1 else 'are'} wrong."
    cases, seconds = sum(len(one.proof.rows) for one in shown), sum(one.seconds for one in shown)
    return (
        f"All {len(shown)}: derivation, loops and finite differences agree in {cases:,} cases, derived and proved in "
        f"{seconds:.0f} s."
    )


def _page(one: Shown) -> str:
    from ..algebra import page
    from ._derive import page_width

    entry = one.entry
    sizes = ", ".join(f"{name} = {size}" for name, size in {**entry.sizes, **entry.given}.items())
    return "\n\n".join(
        [
            f"{entry.title} ({entry.name})\n{entry.about}",
            page(one.derivation, width=page_width()),
            f"Proof, for {sizes}\n{one.proof}",
            f"Its code: {_code_command(one.entry)}",
        ]
    )


def _code_command(entry: Entry) -> str:
    """What to type for forward and backward as source text."""
    formula = "; ".join(entry.formula.split("\n"))
    sizes = ",".join(f"{letter}={size}" for letter, size in entry.given.items())
    return f'xwb derive "{formula}" --code numpy' + f" --sizes {sizes}" * bool(sizes)


def _record(one: Shown) -> dict[str, Any]:
    entry = one.entry
    return {
        "name": entry.name,
        "kind": entry.kind,
        "title": entry.title,
        "formula": entry.formula,
        "sizes": {**entry.sizes, **entry.given},
        "gradients": {name: one.derivation[name].formula for name in one.derivation.differentiable},
        "seconds": round(one.seconds, 3),
        "proof": one.proof.as_dict(),
    }
