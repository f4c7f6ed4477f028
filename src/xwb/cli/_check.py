"""``xwb check``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ._load import load, spec, users_code
from ._output import others_to_stderr, say
from ._sizes import integers_by_name, shapes_by_name, sizes_by_letter, typed_sizes

EXAMPLES = """\b
Examples:
  xwb check layer.py --shape X=32,64 --shape W=64,10
  xwb check layer.py:my_linear,my_linear_backward --shape X=5,4 --shape W=4,3
  xwb check loss.py:hinge --shape Z=32,10 --integers y=32:10
  xwb check homework.py --against "Y[n,m] = X[n,d] W[d,m] + b[m]"
  xwb check layer.py:quadratic --reference stored.npz"""

Shapes = dict[str, tuple[int, ...]]
Integers = dict[str, tuple[tuple[int, ...], int]]


@click.command(no_args_is_help=True, epilog=EXAMPLES)
@click.argument("target", metavar="FILE.py[:NAME]")
@click.option(
    "--shape", "shapes", multiple=True, callback=shapes_by_name, metavar="NAME=32,64",
    help="The shape of an input, which gets random values; may be given again. NAME= is a scalar.",
)  # fmt: skip
@click.option(
    "--integers", multiple=True, callback=integers_by_name, metavar="NAME=32:10",
    help="An input of integers, here 32 from 0 to 9; may be given again.",
)  # fmt: skip
@click.option("--positive", multiple=True, metavar="NAME", help="An input with values from 0.5 to 1.5 instead.")
@click.option("--dtype", type=click.Choice(["float64", "float32"]), default="float64", help="Default float64.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the values and of dY (default 0).")
@click.option("--against", metavar="FORMULA", help='Mark it part by part against a formula, "Y[n,m] = X[n,d] W[d,m]".')
@click.option(
    "--sizes", callback=sizes_by_letter, metavar="SIZES",
    help="Sizes by letter, n=4,d=3, with --against or for a layer with a formula; without them all are different.",
)  # fmt: skip
@click.option(
    "--reference", type=click.Path(path_type=Path), metavar="FILE.npz",
    help="Mark it against stored tensors: inputs by name, Y, dY and the gradients dX, dW, …",
)  # fmt: skip
@click.option(
    "--needs", multiple=True, metavar="NAME",
    help="An input whose gradient is checked, where a floating one has none; may be given again.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; what FILE.py prints goes to stderr.")
def check(
    target: str,
    shapes: Shapes,
    integers: Integers,
    positive: tuple[str, ...],
    dtype: str,
    seed: int,
    against: str | None,
    sizes: dict[str, Any] | None,
    reference: Path | None,
    needs: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check a backward pass of your own against finite differences.

    NAME in FILE.py is a pair (forward, backward), a layer, a loss or a derivation; NAME,NAME are two functions, and
    FILE.py alone means its forward and its backward. A pair is forward(X, W) -> Y and backward(dY, X, W) -> (dX, dW);
    or forward(X, W) -> (Y, saved) and backward(dY, saved).
    """
    from .. import proof
    from ..core import OptionError

    file = spec(target)
    if file is None:
        raise OptionError(f"{target} names no Python file; type  xwb check FILE.py:NAME")
    if against is not None and reference is not None:
        raise click.UsageError("--against and --reference are two ways to mark; type one of them")
    if needs and (against is not None or reference is not None):
        raise click.UsageError("--needs goes without --against and --reference, which say themselves what is compared")
    if reference is not None and (shapes or integers or positive or sizes):
        raise click.UsageError("--reference goes without shapes and sizes: the inputs are in the file")
    with others_to_stderr(alone=as_json):
        layer = load(file, ("forward", "backward"))
        inputs = proof.inputs_of(_no_function(layer, target))
        inputs.refuse_unknown([*shapes, *integers, *positive, *needs])
        result: Any
        with users_code(), typed_sizes():
            if reference is not None:
                result = proof.reference(layer, reference)
            else:
                random = _Random(inputs, shapes, integers, positive, sizes, dtype, seed)
                if against is not None:
                    result = proof.grade(layer, against, random.for_formula(against), seed=seed)
                else:
                    result = proof.check(layer, *random.for_layer(layer), seed=seed, needs=needs or None)
    say(result.to_json() if as_json else str(result))
    return 0 if result.ok else 1


def _no_function(layer: Any, target: str) -> Any:
    """What is named, as a pair if it has the two as methods, unless it is one function or a class."""
    from ..core import Layer, Loss, OptionError

    if isinstance(layer, type):
        raise OptionError(f"{target} is a class; name a thing made of it, with forward and backward as its methods")
    if callable(getattr(layer, "forward", None)) and callable(getattr(layer, "backward", None)):
        return layer if hasattr(layer, "inputs") else (layer.forward, layer.backward)
    if callable(layer) and not isinstance(layer, Layer | Loss):
        file = target.rpartition(":")[0]
        raise OptionError(f"{target} is one function; a pair is two, type  {file}:FORWARD,BACKWARD")
    return layer


class _Random:
    """The inputs, as the options say and with random values."""

    def __init__(
        self,
        inputs: Any,
        shapes: Shapes,
        integers: Integers,
        positive: tuple[str, ...],
        sizes: Mapping[str, Any] | None,
        dtype: str,
        seed: int,
    ) -> None:
        import numpy as np

        from ..core import OptionError

        twice = sorted(set(shapes) & set(integers))
        if twice:
            raise OptionError(f"{twice[0]} is given by --shape and by --integers; it is one of the two")
        self.inputs, self.positive, self.sizes, self.dtype, self.seed = inputs, positive, sizes, dtype, seed
        rng = np.random.default_rng(seed)
        self.given: dict[str, Any] = {
            name: np.asarray(
                rng.uniform(0.5, 1.5, shape) if name in positive else rng.standard_normal(shape), np.dtype(dtype)
            )
            for name, shape in shapes.items()
        }
        self.given.update({name: np.asarray(rng.integers(0, end, shape)) for name, (shape, end) in integers.items()})

    def for_layer(self, layer: Any) -> list[Any]:
        """The inputs in order; those that were left out in the shapes that the layer's formula gives them."""
        from ..algebra import Derivation
        from ..core import OptionError

        missing = [name for name in self.inputs.names[: self.inputs.required] if name not in self.given]
        formula = getattr(layer, "formula", None)
        if missing and formula:
            drawn = self._drawn(layer if isinstance(layer, Derivation) else formula, {})
            return list(
                self.inputs.arranged({**{n: a for n, a in drawn.items() if n in self.inputs.names}, **self.given})
            )
        if missing:
            typed = " ".join(f"--shape {name}=…" for name in missing)
            raise OptionError(f"{self.inputs.call} has no shape for {', '.join(missing)}; type  {typed}")
        if self.sizes:
            raise OptionError("--sizes are those of a formula, and every shape is given; type only one of the two")
        return list(self.inputs.arranged(self.given))

    def for_formula(self, text: str) -> list[Any]:
        """The inputs in the function's order, each in the shape that its partner in the formula has."""
        from ..algebra import derive
        from ..proof import match

        derivation = derive(text)
        names = self.inputs.names
        if len(names) != len(derivation.inputs):  # the optional ones may stay away
            names = names[: self.inputs.required]
        partner = dict(zip(names, match(names, derivation), strict=True))
        drawn = self._drawn(derivation, partner)
        return [self.given.get(name, drawn[partner[name]]) for name in names]

    def _drawn(self, formula: Any, partner: Mapping[str, str]) -> dict[str, Any]:
        from ..proof import operands

        return operands(
            formula,
            self.sizes,
            shapes={partner.get(name, name): array.shape for name, array in self.given.items()},
            rng=self.seed,
            dtype=self.dtype,
            positive=[partner.get(name, name) for name in self.positive],
        )
