"""What a layer is: a formula, a forward and a backward, and the two ways to call them."""

from __future__ import annotations

import copy
import functools
import inspect
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np

from ._blas import Array
from ._errors import FLOATS, DtypeError, OptionError, ShapeError

Variants = Iterable[tuple[dict[str, Any], str]]


def named_tuple(name: str, fields: Sequence[str]) -> Any:
    """A named tuple made from the names of a layer's inputs."""
    return namedtuple(name, fields, rename=True)  # a layer may be called anything


class _Rule:
    """What layers and losses share: a name, a formula, inputs and options read off ``forward``."""

    def __init__(
        self,
        name: str,
        formula: str,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        variants: Variants = (),
        inputs: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.formula = formula
        self.variants = tuple(variants)
        self._forward = forward
        self._backward = backward
        parameters = inspect.signature(forward).parameters.values()
        self.inputs = tuple(inputs or (p.name for p in parameters if p.kind is not p.KEYWORD_ONLY))
        self.options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.__doc__ = inspect.getdoc(forward)

    @property
    def call(self) -> str:
        """The call as it stands in messages, for example ``linear(X, W, b)``."""
        return f"{self.name}({', '.join(self.inputs)})"

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.call}: {self.formula}>"

    def forward(self, *arrays: Any, **options: Any) -> tuple[Any, Any]:
        """The value, and what backward needs: ``(Y, saved)``. ``saved`` borrows the caller's arrays."""
        value: tuple[Any, Any] = self._forward(*arrays, **options)
        return value


class Layer(_Rule):
    """A differentiable function stated three times: formula, closed form, and (in `xwb.check`) finite difference.

    Args:
        name: how messages call it.
        formula: one line of index notation, ``"Y[n,m] = X[n,d] W[d,m] + b[m]"``.
        forward: ``forward(*arrays, **options) -> (Y, saved)``; its positional parameters name the inputs, its
            keyword-only ones the options.
        backward: ``backward(dY, saved) -> gradients`` in the order of the inputs, one array for one input. If it
            takes ``needs`` it gets the names of the gradients wanted and may return None for the others; if it
            takes ``factored`` it gets that flag.
        variants: ``(options, formula)`` for each setting of the options that has another formula.
        inputs: the inputs' names, for a forward that takes ``*arrays``.
        init: ``init((inputs, outputs), rng, dtype, then) -> [parameters]``, ``then`` being the name of the layer
            that follows; without it `init` refuses.

    Called, it returns the value and the way back::

        Y, back = layer(X, W, b)
        dX, dW, db = back(dY)          # also by name: back(dY).W

    ``back`` is linear in dY and may be called any number of times; nothing is mutated.
    """

    derived = False  # whether the closed form was made from the formula

    def __init__(
        self,
        name: str,
        formula: str,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        variants: Variants = (),
        *,
        inputs: Sequence[str] | None = None,
        init: Callable[..., list[Array]] | None = None,
    ) -> None:
        super().__init__(name, formula, forward, backward, variants, inputs)
        self._init = init
        self._takes = {"needs", "factored"} & set(inspect.signature(backward).parameters)
        self._gradients = named_tuple("Gradients", self.inputs)

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the inputs that are parameters: all but the first."""
        return self.inputs[1:]

    def __call__(self, *arrays: Any, **options: Any) -> tuple[Any, Callable[..., Any]]:
        """The value and the way back: ``Y, back = layer(X, ...)``; ``back(dY, needs=..., factored=...)``."""
        Y, saved = self._forward(*arrays, **options)

        def back(dY: Any, needs: Sequence[str] | None = None, factored: bool = False) -> Any:
            return self.backward(dY, saved, needs, factored)

        return Y, back

    def backward(self, dY: Any, saved: Any, needs: Sequence[str] | None = None, factored: bool = False) -> Any:
        """The gradients of ⟨dY, Y⟩ as a named tuple in the order of the inputs.

        Args:
            dY: the shape and dtype of Y.
            saved: what `forward` returned beside Y.
            needs: names of the gradients wanted (default: all); the others are None.
            factored: leave weight gradients as `FactoredGradient` where the layer can.

        Raises:
            ShapeError, DtypeError: dY is not like Y.
            OptionError: ``needs`` names no input.
        """
        needs = self.inputs if needs is None else self._known(needs)
        passed: dict[str, Any] = {}
        if "needs" in self._takes:
            passed["needs"] = needs
        if "factored" in self._takes:
            passed["factored"] = factored
        return self._gradients(*self._in_order(self._backward(dY, saved, **passed), needs))

    def with_options(self, **options: Any) -> Self:
        """The same layer with options fixed, to stand in a chain: ``gelu.with_options(approximate="tanh")``.

        Its formula is that of the matching entry of `variants`.

        Raises:
            OptionError: an unknown option, or a combination for which no variant states a formula.
        """
        for option in options:
            if option not in self.options:
                known = ", ".join(self.options) or "none"
                raise OptionError(f"{self.call} has no option {option!r}; its options: {known}")
        everything = {**self.options, **options}
        stated = [
            formula
            for variant, formula in (({}, self.formula), *self.variants)
            if {**self.options, **variant} == everything
        ]
        if not stated:
            raise OptionError(f"{self.call} states no formula for {options}; see {self.name}.variants")
        fixed = copy.copy(self)
        fixed.formula = stated[0]
        fixed.variants = ()
        fixed.options = {name: default for name, default in self.options.items() if name not in options}
        fixed._forward = functools.partial(self._forward, **options)
        return fixed

    def init(self, sizes: Sequence[int], *, rng: Any, dtype: Any = np.float32, then: str | None = None) -> list[Array]:
        """Fresh parameters for ``sizes = (inputs, outputs)``, in the order of `params`.

        Args:
            sizes: for a linear layer (D, M); for a chain the width before and after each of its linear layers.
            rng: a `numpy.random.Generator` or a seed.
            dtype: float32 or float64.
            then: the name of the activation that follows: He's scale before relu, Glorot's otherwise.

        Raises:
            ShapeError, DtypeError: other sizes, another dtype.
            OptionError: the layer does not say how its parameters start.
        """
        if not self.params:
            return []
        if self._init is None:
            raise OptionError(
                f"{self.call} does not say how {', '.join(self.params)} start; make these arrays yourself, "
                "or give the layer an init: Layer(..., init=...)"
            )
        if len(sizes) != 2:
            raise ShapeError(f"init({tuple(sizes)}): {self.call} needs two sizes, the width before and after it")
        if np.dtype(dtype) not in FLOATS:
            raise DtypeError(f"init: dtype={np.dtype(dtype)} is neither float32 nor float64")
        return self._init(tuple(sizes), np.random.default_rng(rng), np.dtype(dtype), then)

    def _known(self, needs: Sequence[str]) -> Sequence[str]:
        names = (needs,) if isinstance(needs, str) else tuple(needs)
        for name in names:
            if name not in self.inputs:
                raise OptionError(f"needs={name!r}: {self.call} has the inputs {', '.join(self.inputs)}")
        return names

    def _in_order(self, grads: Any, needs: Sequence[str]) -> Sequence[Any]:
        """What ``backward`` returned: one entry per input, None where not needed."""
        entries = grads if isinstance(grads, tuple | list) else (grads,)
        if len(entries) != len(self.inputs):
            raise ShapeError(
                f"{self.call}: backward returned {len(entries)} gradients for {len(self.inputs)} inputs; "
                f"return one per input, in the order {', '.join(self.inputs)}"
            )
        if needs is self.inputs:
            return entries
        return [grad if name in needs else None for name, grad in zip(self.inputs, entries, strict=True)]


class Loss(_Rule):
    """A function from scores and targets to a number, with the gradient of the scores alone.

    Args:
        name, formula, inputs: as for a `Layer`.
        forward: ``forward(Z, y, **options) -> (loss, saved)``, the scores before the targets.
        backward: ``backward(dloss, saved) -> dZ``.
        variants: ``(options, formula)``; a formula that reads ``sample_weight`` or ``class_weight`` is that of a call
            which passes them, and one that reads ``y[n,k]`` that of targets which are probabilities.

    Called::

        loss, back = softmax_cross_entropy(Z, y)
        dZ = back()                    # back(dloss) scales
    """

    def __call__(self, *arrays: Any, **options: Any) -> tuple[Any, Callable[..., Array]]:
        """The loss and the way back: ``loss, back = loss_function(Z, y)``; ``dZ = back(dloss=1.0)``."""
        value, saved = self._forward(*arrays, **options)

        def back(dloss: Any = 1.0) -> Array:
            return self.backward(dloss, saved)

        return value, back

    def backward(self, dloss: Any, saved: Any) -> Array:
        """``dZ``, the gradient of ⟨dloss, loss⟩ with respect to the scores, in their shape and dtype."""
        dZ: Array = self._backward(dloss, saved)
        return dZ
