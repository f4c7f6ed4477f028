"""Derived functions on PyTorch tensors and JAX arrays: the emitted code, run where the arrays are."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import DtypeError, FormulaError
from ._code import code

if TYPE_CHECKING:
    from ._derivation import Derivation

CALLED = {"torch": "PyTorch tensor", "jax": "JAX array", "numpy": "NumPy array"}
MADE = {"torch": "torch.as_tensor({0})", "jax": "jnp.asarray({0})", "numpy": "np.asarray({0})"}


def framework(arrays: Mapping[str, Any]) -> str:
    """Whose arrays these are: numpy, torch or jax. Nothing is imported for it.

    Raises:
        DtypeError: of several.
    """
    owners = {name: _owner(array) for name, array in arrays.items()}
    found = {owner: name for name, owner in owners.items() if owner in ("torch", "jax")}
    if not found:
        return "numpy"
    chosen, first = next(iter(found.items()))
    for name, owner in owners.items():
        if owner not in (chosen, "number"):
            raise DtypeError(
                f"{first} is a {CALLED[chosen]} and {name} a {CALLED[owner]}; all are to be of one library\n"
                f"type  {name} = {MADE[chosen].format(name)}"
            )
    return chosen


def _owner(array: Any) -> str:
    if type(array) in (int, float):
        return "number"
    if (torch := sys.modules.get("torch")) is not None and isinstance(array, torch.Tensor):
        return "torch"
    if (jax := sys.modules.get("jax")) is not None and isinstance(array, jax.Array):
        return "jax"
    return "numpy"


class Running:
    """The emitted code of one derivation for one library, compiled when it is first used."""

    def __init__(self, derivation: Derivation, backend: str) -> None:
        self.derivation = derivation
        self.backend = backend
        self.library: Any = sys.modules[backend]
        self._parts: dict[tuple[str, bool], Any] = {}

    def _function(self, name: str, values: bool = False) -> Any:
        found = self._parts.get((name, values))
        if found is None:
            source = code(self.derivation, self.backend, {}, values)
            file = f"<xwb {self.backend} code {id(self)}{' values' if values else ''}: {self.derivation.output}>"
            linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
            module: dict[str, Any] = {"__name__": f"xwb_{self.backend}_code"}
            exec(compile(source, file, "exec"), module)
            for part in ("forward", "backward", "layer"):
                function = module.get(part)
                if function is not None:
                    self._parts[part, values] = self.library.jit(function) if self.backend == "jax" else function
            found = self._parts[name, values]
        return found

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except IndexError as error:
            raise FormulaError(f"{self.derivation.formula}: a position is outside its axis: {error}") from None

    def arguments(self, arrays: Mapping[str, Any]) -> list[Any]:
        """The arrays in order, numbers made arrays; checked as NumPy's are, by shapes and dtypes alone."""
        derivation = self.derivation
        dtypes = {n: arrays[n].dtype for n in derivation.differentiable if hasattr(arrays.get(n), "dtype")}
        floats = {name: dtype for name, dtype in dtypes.items() if self._floating(arrays[name])}
        first, wanted = next(iter(floats.items()), ("", "float32"))
        for name, dtype in dtypes.items():
            if dtype != wanted:
                other = name in floats
                fact = f"{first} is {wanted} and {name} {dtype}" if other else f"{name} is {dtype}, not floating"
                raise DtypeError(f"{fact}; type  {name} = {name}{self._spelled(wanted)}")
        derivation._bind({name: self.stand_in(array) for name, array in arrays.items()}, None)
        like = next((array for name, array in arrays.items() if name in floats), None)
        return [self._array(arrays[name], like) for name in derivation.inputs]

    def _floating(self, array: Any) -> bool:
        if self.backend == "torch":
            return bool(array.is_floating_point())
        return bool(self.library.numpy.issubdtype(array.dtype, np.floating))

    def _spelled(self, dtype: Any) -> str:
        """The call that gives an array this dtype."""
        name = str(dtype).removeprefix("torch.")
        return f".to(torch.{name})" if self.backend == "torch" else f'.astype("{name}")'

    def stand_in(self, array: Any) -> Any:
        """A NumPy array of the same shape and kind that takes no memory."""
        if not hasattr(array, "dtype"):
            return array
        name = str(array.dtype).removeprefix("torch.")
        dtype = np.dtype(np.float32) if self._floating(array) else np.dtype(name)
        return np.broadcast_to(np.zeros((), dtype), tuple(array.shape))

    def _array(self, array: Any, like: Any) -> Any:
        if hasattr(array, "dtype"):
            return array
        if self.backend == "torch":
            return self.library.tensor(array, dtype=getattr(like, "dtype", None), device=getattr(like, "device", None))
        return self.library.numpy.asarray(array, getattr(like, "dtype", None))

    def forward(self, arrays: Mapping[str, Any]) -> Any:
        """The output; differentiable by the library's own means, through the derived backward pass."""
        return self._call(self._function("layer"), *self.arguments(arrays))

    def values(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all statements."""
        arguments = self.arguments(arrays)
        with self._plain():
            found: dict[str, Any] = self._call(self._function("forward", True), *arguments)[0]
        return {statement.name: found[statement.name] for statement in self.derivation.named.statements}

    def backward(self, dY: Any, arrays: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
        """The gradients."""
        derivation = self.derivation
        arguments = self.arguments(arrays)
        bound = derivation._bind({name: self.stand_in(array) for name, array in arrays.items()}, None)
        shown = self.stand_in(dY)
        if getattr(shown, "dtype", None) == np.float32 and bound.dtype != np.float32:
            shown = np.broadcast_to(np.zeros((), bound.dtype), shown.shape)
        derivation._like_output(shown, bound)
        like = next((a for a in arguments if self._floating(a)), None)
        if like is not None and hasattr(dY, "dtype") and dY.dtype != like.dtype:
            name = f"d{derivation.output}"
            change = self._spelled(like.dtype)
            raise DtypeError(
                f"backward({name}): {name} is {dY.dtype} and the inputs are {like.dtype}; type  {name} = {name}{change}"
            )
        with self._plain():
            _, saved = self._call(self._function("forward"), *arguments)
            found = self._call(self._function("backward"), self._array(dY, like), saved)
        grads = dict(zip(derivation.differentiable, found, strict=True))
        return {name: grads[name] for name in wanted if grads[name] is not None}

    def _plain(self) -> Any:
        """Nothing here is to be recorded by autograd."""
        from contextlib import nullcontext

        return self.library.no_grad() if self.backend == "torch" else nullcontext()
