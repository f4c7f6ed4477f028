"""``xwb prove``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from ._load import load, spec
from ._output import others_to_stderr, say
from ._sizes import sizes_by_letter, typed_sizes

PARTS = ("value", "gradient", "numeric")
EXAMPLES = """\b
Examples:
  xwb prove linear softmax_cross_entropy
  xwb prove layer.py:quadratic
  xwb prove "Y[n,m] = X[n,d] W[d,m] + b[m]"
  xwb prove --all"""


@click.command(no_args_is_help=True, epilog=EXAMPLES)
@click.argument("targets", nargs=-1, metavar="[LAYER | FILE.py:NAME | FORMULA]...")
@click.option("--all", "everything", is_flag=True, help="Every layer and loss of xwb, and a chain: a line for each.")
@click.option(
    "--sizes", callback=sizes_by_letter, metavar="SIZES",
    help="Sizes of indices that the shapes of the inputs do not say, such as r=2.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the values and of dY (default 0).")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def prove(targets: tuple[str, ...], everything: bool, sizes: dict[str, Any] | None, seed: int, as_json: bool) -> int:
    """Hold a layer's formula, its closed form and finite differences against each other.

    Over all its variants, at sizes that are all different and at 1, in float32 and float64, contiguous and strided. A
    formula alone is derived first, and then evaluated by loops as the third.
    """
    from .. import proof

    if everything and targets:
        raise click.UsageError("--all names every layer; type it alone, or the layers without it")
    if everything and sizes:
        raise click.UsageError("--all goes without --sizes: they belong to one formula")
    if "=" in targets:  # an unquoted formula, which the shell took apart
        targets = (" ".join(targets),)
    tell: Callable[[str], None] = (lambda text: None) if as_json else say
    with others_to_stderr(alone=as_json), typed_sizes():
        layers = _all() if everything else [_layer(target, sizes) for target in targets]
        if everything:
            tell(_line("", "formulas", "cases", *(f"{part} {bits}" for bits in (64, 32) for part in PARTS)))
        proofs: list[Any] = []
        for layer in layers:
            proofs.append(proof.prove(layer, sizes=sizes, seed=seed))
            tell(_summary(proofs[-1]) if everything else "\n" * (len(proofs) > 1) + str(proofs[-1]))
    wrong = [found for found in proofs if not found.ok]
    if as_json:
        say(json.dumps({"ok": not wrong, "proofs": [found.as_dict() for found in proofs]}, allow_nan=False))
    elif everything:
        say("\n" + "\n\n".join([*map(str, wrong), _conclusion(proofs, len(wrong))]))
    return 1 if wrong else 0


def _conclusion(proofs: list[Any], wrong: int) -> str:
    if wrong:
        return f"{wrong} of {len(proofs)} {'is' if wrong == 1 else 'are'} wrong."
    cases = sum(len(found.rows) for found in proofs)
    return f"All {len(proofs)}: formula, closed form and finite differences agree in {cases:,} cases."


def _line(*cells: str) -> str:
    name, *numbers = cells
    return f"{name:<28}" + "".join(f"{number:>13}" for number in numbers)


def _summary(found: Any) -> str:
    errors = [f"{error:.1e}" for dtype in ("float64", "float32") for error in found.largest(dtype=dtype)]
    wrong = "" if found.ok else "  WRONG"
    return _line(found.call, str(len(found.formulas)), str(len(found.rows)), *errors) + wrong


def _public() -> dict[str, Any]:
    """Every layer and loss of the library by name."""
    import xwb

    things = {name: getattr(xwb, name) for name in xwb.__all__}
    return {name: thing for name, thing in things.items() if isinstance(thing, xwb.Layer | xwb.Loss)}


def _all() -> list[Any]:
    """Every layer and loss of the library, and a chain of them."""
    import xwb

    return [*_public().values(), xwb.chain(xwb.linear, xwb.tanh, xwb.linear, xwb.softmax)]


def _layer(target: str, sizes: dict[str, Any] | None) -> Any:
    """What one word of the command line stands for."""
    from ..algebra import derive
    from ..core import OptionError, unknown

    file = spec(target)
    if file is not None:
        return load(file)
    if "=" in target or "[" in target:
        return derive(target, sizes)
    layers = _public()
    if target not in layers:
        raise OptionError(
            f"xwb has no layer {target}{unknown(target, layers)}; it has {', '.join(layers)}; a layer of your own is "
            "FILE.py:NAME"
        )
    return layers[target]
