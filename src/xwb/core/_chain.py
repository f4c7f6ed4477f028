"""Layers one after another, which is again a layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._blas import Array
from ._errors import OptionError, ShapeError, XwbError
from ._factored import FactoredGradient
from ._layer import Layer, named_tuple


class _Source(NamedTuple):
    """Where a step's parameter comes from: an input of the chain, transposed or not."""

    name: str
    transposed: bool

    def pick(self, arrays: Mapping[str, Any]) -> Any:
        array = arrays[self.name]
        return array.T if self.transposed and array is not None else array


class _Step(NamedTuple):
    layer: Layer
    sources: tuple[_Source, ...]

    def __str__(self) -> str:
        return f"{self.layer.name}({', '.join(name for name, _ in self.sources) or 'no parameters'})"


def _sum_tied(first: Any, second: Any) -> Any:
    """The gradient of a weight used twice, over the same examples."""
    factored = isinstance(first, FactoredGradient) and isinstance(second, FactoredGradient)
    # A layer in between may have changed what the first axis counts; then nobody can say whose examples these are.
    if factored and first.examples == second.examples:
        return first.add(second, same_examples=True)
    return np.asarray(first) + np.asarray(second)


class Chain(Layer):
    """What `chain` returns; ``layers`` are its layers, nested chains flattened."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self._steps = tuple(steps)
        self.layers = tuple(step.layer for step in steps)
        first = self.layers[0].inputs[0]
        inputs = (first, *dict.fromkeys(source.name for step in steps for source in step.sources))
        if len(set(inputs)) < len(inputs):
            raise OptionError(f"chain: the input {first} has the name of a parameter; rename one")
        super().__init__("chain", _formula(steps, first), self._run, self._run_back, inputs=inputs)
        self.__doc__ = f"{' → '.join(str(step) for step in steps)}"
        self._saved = named_tuple("Saved", [f"{step.layer.name}{i}" for i, step in enumerate(steps, 1)])

    def _run(self, *arrays: Any) -> tuple[Any, Any]:
        if len(arrays) != len(self.inputs):
            raise ShapeError(f"{self.call} takes {len(self.inputs)} arrays and got {len(arrays)}")
        named = dict(zip(self.inputs, arrays, strict=True))
        Y = arrays[0]
        saved = []
        for number, step in enumerate(self._steps, 1):
            try:
                Y, kept = step.layer.forward(Y, *(source.pick(named) for source in step.sources))
            except XwbError as error:
                raise type(error)(f"{self.call}, step {number} of {len(self._steps)}, {step}:\n{error}") from None
            saved.append(kept)
        return Y, self._saved._make(saved)

    def _run_back(self, dY: Any, saved: Any, needs: Sequence[str], factored: bool) -> list[Any]:
        grads: dict[str, Any] = dict.fromkeys(self.inputs)
        first = self.inputs[0]
        wanted = [
            [name for name, source in zip(step.layer.params, step.sources, strict=True) if source.name in needs]
            for step in self._steps
        ]
        # dY has to reach back to the earliest step that somebody wants something from.
        last = 0 if first in needs else next((i for i, names in enumerate(wanted) if names), len(wanted))
        for i in range(len(self._steps) - 1, last - 1, -1):
            layer, sources = self._steps[i]
            goes_on = i > last or first in needs
            step_needs = [layer.inputs[0], *wanted[i]] if goes_on else wanted[i]
            dY, *dparams = layer.backward(dY, saved[i], step_needs, factored)
            for (name, transposed), grad in zip(sources, dparams, strict=True):
                if grad is not None:
                    grad = grad.T if transposed else grad
                    grads[name] = grad if grads[name] is None else _sum_tied(grads[name], grad)
        if first in needs:
            grads[first] = dY
        return list(grads.values())

    def init(self, sizes: Sequence[int], *, rng: Any, dtype: Any = np.float32, then: str | None = None) -> list[Array]:
        rng = np.random.default_rng(rng)
        weighted = [i for i, step in enumerate(self._steps) if step.sources]
        if len(sizes) != len(weighted) + 1:
            raise ShapeError(
                f"init({tuple(sizes)}): {len(weighted)} layers with parameters need {len(weighted) + 1} sizes, "
                "the width before and after each"
            )
        params: dict[str, Array] = {}
        for width, i in enumerate(weighted):
            layer, sources = self._steps[i]
            follower = self.layers[i + 1].name if i + 1 < len(self.layers) else then
            fresh = layer.init(sizes[width : width + 2], rng=rng, dtype=dtype, then=follower)
            for (name, transposed), array in zip(sources, fresh, strict=True):
                shape = array.shape[::-1] if transposed else array.shape
                if params.setdefault(name, array).shape != shape:
                    raise ShapeError(
                        f"init({tuple(sizes)}): the tied weight {name} would be {params[name].shape} in one "
                        f"layer and {shape} in another"
                    )
        return list(params.values())


def chain(*layers: Layer, tie: Mapping[str, str] | None = None) -> Chain:
    """Layers one after another; the result is again a layer.

    Args:
        layers: at least one. The first input of each is the value of the one before; their parameters become the
            chain's, numbered by layers with parameters: ``chain(linear, relu, linear)`` has the inputs
            X, W1, b1, W2, b2. Chains inside are flattened.
        tie: weights used twice, by name: ``{"W2": "W1"}``, or ``{"W2": "W1.T"}`` for the transpose. W2 is then no
            input; the gradient of W1 is the sum over its uses.

    Returns:
        A `Layer` with `init` for all its parameters, and `params` to name them:
        ``dX, *dparams = back(dY, needs=net.params)`` skips the first layer's dX.

    Raises:
        OptionError: no layers, or a tie that names no parameter.
    """
    if not layers:
        raise OptionError("chain() needs at least one layer: chain(linear, relu, linear)")
    ties = {name: _Source(target.removesuffix(".T"), target.endswith(".T")) for name, target in (tie or {}).items()}
    steps: list[_Step] = []
    number = 0
    known: set[str] = set()
    for layer in layers:
        if not isinstance(layer, Layer):
            raise OptionError(f"chain takes layers; got {layer!r}")
        inner = layer._steps if isinstance(layer, Chain) else [_Step(layer, _own_sources(layer))]
        renamed: dict[str, _Source] = {}  # an inner chain's names, ties included -> this chain's
        for step in inner:
            number += bool(step.sources)
            sources = []
            for local, source in zip(step.layer.params, step.sources, strict=True):
                name = f"{local}{number}"
                if source.name not in renamed:
                    tied = ties.pop(name, None)
                    if tied is None:
                        known.add(name)
                    elif tied.name not in known:
                        raise OptionError(
                            f"tie: {name} is tied to {tied.name!r}, which is no earlier parameter; "
                            f"before it stand {', '.join(sorted(known)) or 'none'}"
                        )
                    renamed[source.name] = tied or _Source(name, False)
                target = renamed[source.name]
                sources.append(_Source(target.name, target.transposed != source.transposed))
            steps.append(_Step(step.layer, tuple(sources)))
    if ties:
        raise OptionError(f"tie: the chain has no parameter {', '.join(ties)}; it has {', '.join(sorted(known))}")
    return Chain(steps)


def _own_sources(layer: Layer) -> tuple[_Source, ...]:
    return tuple(_Source(name, False) for name in layer.params)


def _formula(steps: Sequence[_Step], first: str) -> str:
    """The layers' formulas as statements of one, each reading the one before: ``H1[...] = ...; Y[...] = ...``."""
    statements = []
    value = first
    for number, step in enumerate(steps, 1):
        result = "Y" if number == len(steps) else f"H{number}"
        lines = [line.strip() for line in re.split(r"[;\n]", step.layer.formula) if line.strip()]
        assigned = [line.split("[")[0].split("=")[0].strip() for line in lines]
        names = {name: f"{name}{number}" for name in assigned[:-1]}
        names[assigned[-1]] = result
        names[step.layer.inputs[0]] = value
        transposed = set()
        for local, source in zip(step.layer.params, step.sources, strict=True):
            names[local] = source.name
            if source.transposed:
                transposed.add(local)
        statements += [_rename(line, names, transposed) for line in lines]
        value = result
    return "; ".join(statements)


def _rename(line: str, names: Mapping[str, str], transposed: set[str]) -> str:
    """One statement with its tensors renamed; ``W[d,m]`` of a transposed W reads ``W1[m,d]``."""
    for name in transposed:
        line = re.sub(rf"\b({name})\[([^,\[\]]*),([^,\[\]]*)\]", r"\1[\3,\2]", line)
    return re.sub(r"[A-Za-z]\w*", lambda word: names.get(word[0], word[0]), line)
