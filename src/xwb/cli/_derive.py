"""``xwb derive``."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from ._output import say
from ._sizes import sizes_by_letter

# Characters read from stdin; a formula has 10,000 at most, and what never ends is not to be waited for.
MOST = 2**16
# Columns of the page: those of the terminal within these bounds, elsewhere the usual ones.
NARROW, USUAL, WIDE = 60, 100, 140


@click.command(no_args_is_help=True)
@click.argument("formula", nargs=-1, required=True)  # unquoted, the shell takes it apart at the spaces
@click.option("--wrt", multiple=True, metavar="NAME", help="Only the gradient of this tensor; may be given again.")
@click.option(
    "--sizes",
    metavar="SIZES",
    callback=sizes_by_letter,
    help="Costs in numbers for these sizes, such as n=64,d=4096,m=4096; E=50257x768 is a tensor's shape. "
    "The derivation itself holds for all sizes.",
)
@click.option(
    "--paper",
    metavar="SIZES",
    callback=sizes_by_letter,
    help="The small case instead, every entry written out, such as n=2,d=2,m=3.",
)
@click.option("--latex", is_flag=True, help="Print LaTeX, for the body of a document that loads amsmath.")
@click.option(
    "--html",
    metavar="FILE",
    help="Write one page in HTML, with everything: the steps to unfold, the small case, costs; - prints it.",
)
@click.option(
    "--code",
    type=click.Choice(["numpy", "torch", "jax"]),
    help="Print forward and backward as source text for this library, which imports nothing of xwb.",
)
def derive(
    formula: tuple[str, ...],
    wrt: tuple[str, ...],
    sizes: dict[str, Any] | None,
    paper: dict[str, Any] | None,
    latex: bool,
    html: str | None,
    code: str | None,
) -> None:
    """Derive the backward pass of a layer written in index notation.

    FORMULA is one or more statements, in quotes: "Y[n,m] = X[n,d] W[d,m] + b[m]". With - it is read from stdin. What
    can be written is in docs/derive.md.
    """
    from .. import algebra
    from ..core import FormulaError
    from ..runs import write_bytes

    if html is not None and latex:
        raise click.UsageError("--html goes without --latex: the page has a LaTeX source of its own")
    if paper is not None and html is None and (wrt or sizes is not None):
        raise click.UsageError(f"--paper goes without {'--wrt' if wrt else '--sizes'}: it writes out every gradient")
    if latex and sizes is not None:
        raise click.UsageError("--latex goes without --sizes: it shows no costs")
    if code is not None and (wrt or paper is not None or latex or html is not None):
        other = "--wrt" if wrt else "--paper" if paper is not None else "--latex" if latex else "--html"
        raise click.UsageError(f"--code goes without {other}: it prints the whole program and nothing else")
    if code is not None and any(not isinstance(size, int) for size in (sizes or {}).values()):
        raise click.UsageError("--code takes --sizes by letter, n=64,d=4096: they choose the order of the products")
    derivation = algebra.derive(_stdin() if formula == ("-",) else " ".join(formula))
    try:
        if html is not None:
            text = algebra.html(derivation, wrt=wrt or None, sizes=sizes, paper=paper)
        elif paper is not None:
            page = derivation.on_paper(**paper)
            text = page.latex() if latex else str(page)
        elif code is not None:
            text = derivation.code(code, **(sizes or {})).rstrip("\n")
        elif latex:
            text = algebra.latex(derivation, wrt=wrt or None)
        else:
            text = algebra.page(derivation, wrt=wrt or None, sizes=sizes, width=page_width())
    except FormulaError as error:
        raise FormulaError(_in_options(str(error))) from None
    if html is not None and html != "-":
        write_bytes(Path(html), text.encode())
        say(f"wrote {html}")
    else:
        say(text.removesuffix("\n"))


def _in_options(message: str) -> str:
    """What a message tells to type in Python, ``cost(n=64, E=(50257, 768))``, as it is typed here."""

    def option(call: re.Match[str]) -> str:
        if "[" in call[2]:
            return call[0]  # positions, which no option takes
        sizes = call[2].replace("(rows, columns)", "(50257, 768)")
        sizes = re.sub(r"\(([^()]*)\)", lambda shape: shape[1].replace(", ", "x"), sizes)
        return f"--{'sizes' if call[1] == 'cost' else 'paper'} {sizes.replace(', ', ',')}"

    return re.sub(r"\b(cost|on_paper)\(((?:[^()]|\([^()]*\))*)\)", option, message)


def _stdin() -> str:
    """The formula on stdin.

    Raises:
        OptionError: stdin is closed, or holds no text.
    """
    from ..core import OptionError

    try:
        return sys.stdin.buffer.read(MOST).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OptionError("stdin holds no UTF-8 text; a formula such as Y[i] = X[i]**2 is expected there") from None
    except AttributeError:
        raise OptionError("stdin is closed; a formula is expected there after -") from None


def page_width() -> int:
    """Columns of the page."""
    if not sys.stdout.isatty():
        return USUAL
    return max(NARROW, min(shutil.get_terminal_size().columns, WIDE))
