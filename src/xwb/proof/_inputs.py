"""What a layer or a pair takes, read off its forward before there are arrays."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..core import Layer, Loss, OptionError, unknown
from ._subject import Checkable, parameters_of


class Inputs(NamedTuple):
    """The names of the inputs in order; a call needs at least ``required`` of them."""

    call: str
    names: tuple[str, ...]
    required: int

    def arranged(self, arrays: Mapping[str, Any]) -> list[Any]:
        """Arrays by name in the order of the inputs; None where an optional one is left out before another.

        Raises:
            OptionError: a name that is no input, or an input that is needed and missing.
        """
        self.refuse_unknown(arrays)
        missing = [name for name in self.names[: self.required] if name not in arrays]
        if missing:
            raise OptionError(f"{self.call} needs {' and '.join(missing)}, which nothing gives")
        last = max((i for i, name in enumerate(self.names) if name in arrays), default=-1)
        return [arrays.get(name) for name in self.names[: last + 1]]

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Raises `OptionError` for a name that is no input."""
        for name in names:
            if name not in self.names:
                raise OptionError(
                    f"{self.call} has no input {name}{unknown(name, self.names)}; its inputs: "
                    f"{', '.join(self.names) or 'none'}"
                )


def inputs_of(layer: Checkable) -> Inputs:
    """The inputs of what `check` takes.

    Raises:
        OptionError: something else, or a forward whose parameters have no names of their own.
    """
    if isinstance(layer, tuple | list):
        if len(layer) != 2 or not all(map(callable, layer)):
            raise OptionError(f"a pair is (forward, backward), two functions; got {layer!r}")
        return _of_function(layer[0])
    if isinstance(layer, Layer | Loss):
        parameters = list(inspect.signature(layer._forward).parameters.values())
        optional = sum(p.default is not p.empty for p in parameters if p.name in layer.inputs)
        return Inputs(layer.call, layer.inputs, len(layer.inputs) - optional)
    from ..algebra import Derivation

    if isinstance(layer, Derivation):
        return Inputs(f"{layer.output}({', '.join(layer.inputs)})", layer.inputs, len(layer.inputs))
    raise OptionError(f"a layer, a loss, a derivation or a pair (forward, backward) is expected; got {layer!r}")


def _of_function(function: Any) -> Inputs:
    name = getattr(function, "__name__", "forward")
    parameters = parameters_of(function)
    if not parameters:
        raise OptionError(f"{name} does not name its inputs; type  def {name}(X, W): …  so that they can be told apart")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = tuple(p.name for p in positional)
    required = sum(p.default is p.empty for p in positional)
    return Inputs(f"{name}({', '.join(names)})", names, required)
