"""JAX: what `jax.vjp` returns for a function, its custom rules and its compiled code, held against measurements."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core import FLOATS, Array, DtypeError, OptionError
from ..proof import Pass, Report, Subject, check_subject, parameter_names

try:
    import jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    line = "xwb.adapters.jax needs JAX; type  pip install 'xwb[jax]'"
    raise ModuleNotFoundError(line, name="jax") from None

__all__ = ["check"]

WIDE = (np.dtype(np.float64), np.dtype(np.complex128))


def check(function: Callable[..., Any], *inputs: Any, seed: int = 0, conduct: bool = True, **options: Any) -> Report:
    """`xwb.check` for a function of JAX arrays: the gradients that `jax.vjp` returns, against measurements.

    Only the reverse mode is used, which is all that a `jax.custom_vjp` has. The setting ``jax_enable_x64`` stays as it
    is: an evaluation in float64 switches it on for itself.

    Args:
        function: any callable, compiled by `jax.jit` or not, with custom rules or without.
        inputs: the function's positional arguments: arrays of JAX or NumPy, or pytrees of them, whose leaves are then
            named by their paths, ``params.W``. Arrays of float32 or float64 are checked, those of integers and booleans
            have no gradient, and what is no array is handed on as it is.
        seed: of dY.
        conduct: whether to try what else a backward pass gets wrong, as in `xwb.check`.
        options: the function's keyword arguments; an array to be checked is given by position.

    Returns:
        A report with one row per floating array; it is not raised, see `Report.raise_if_wrong`.

    Raises:
        OptionError: the function does not return one array, no input has a gradient to check, or an array is traced.
        DtypeError: an array is floating or complex, and neither float32 nor float64.
    """
    return check_subject(_subject(function, inputs, options), seed=seed, conduct=conduct)


def _subject(function: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> Subject:
    """The subject that a function is for these inputs: the arrays among their leaves, in JAX's order."""
    if not callable(function):
        raise OptionError(
            f"check takes a function of JAX arrays; got {function!r}. A layer or a pair of NumPy arrays goes to "
            "xwb.check"
        )
    name = getattr(function, "__name__", type(function).__name__)
    parameters = parameter_names(function, len(inputs))
    call = f"{name}({', '.join(parameters)})"
    paths, tree = jax.tree_util.tree_flatten_with_path(tuple(inputs))
    leaves = [leaf for _, leaf in paths]
    places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]
    names = tuple(_dotted(parameters, paths[i][0]) for i in places)
    for leaf_name, i in zip(names, places, strict=True):
        _refuse_unfit(leaf_name, leaves[i])
    for option, given in options.items():
        if any(_is_array(leaf) and leaf.dtype.kind in "fc" for leaf in jax.tree_util.tree_leaves(given)):
            raise OptionError(f"check: {option} is given by keyword, where no gradient is checked; give it by position")
    arrays = tuple(np.array(leaves[i]) for i in places)
    checked = tuple(i for i, array in enumerate(arrays) if array.dtype in FLOATS)
    if not checked:
        raise OptionError(f"check: {call} has no float32 or float64 array among these, so no gradient to check")

    def evaluate(given: Sequence[Any]) -> Any:
        filled = list(leaves)
        for i, array in zip(places, given, strict=True):
            filled[i] = array
        Y = function(*jax.tree_util.tree_unflatten(tree, filled), **options)
        return _one_array(Y, name, parameters)

    def placed(given: Sequence[Any]) -> list[Any]:
        return [_placed(array, leaves[i]) for i, array in zip(places, given, strict=True)]

    def value(*given: Any) -> Array:
        with _precision(given):
            return np.array(evaluate(placed(given)))

    def run(*given: Any) -> Pass:
        def of_checked(*moving: Any) -> Any:
            together = list(fixed)
            for i, array in zip(checked, moving, strict=True):
                together[i] = array
            return evaluate(together)

        with _precision(given):
            fixed = placed(given)
            Y, vjp = jax.vjp(of_checked, *(fixed[i] for i in checked))

        def back(dY: Array) -> list[Any]:
            grads: list[Any] = [None] * len(given)
            with _precision([*given, dY]):
                for i, grad in zip(checked, vjp(jax.numpy.array(dY)), strict=True):
                    grads[i] = np.array(grad)
            return grads

        return Pass(np.array(Y), None, back)

    return Subject(call, names, arrays, checked, value, run, library="JAX")


def _precision(arrays: Sequence[Any]) -> contextlib.AbstractContextManager[Any]:
    """In which float64 arrays stay what they are; float32 ones are computed with as the caller has set JAX."""
    wide = any(np.asarray(array).dtype in WIDE for array in arrays)
    return jax.enable_x64(True) if wide else contextlib.nullcontext()


def _placed(array: Any, leaf: Any) -> Any:
    """A copy of the NumPy array, on the devices of the leaf that it stands for."""
    copy = jax.numpy.array(array)
    return jax.device_put(copy, leaf.sharding) if isinstance(leaf, jax.Array) and leaf.committed else copy


def _is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers; the keys of random numbers are none."""
    if isinstance(leaf, jax.Array):
        return not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)
    return isinstance(leaf, np.ndarray | np.generic)


def _dotted(parameters: Sequence[str], path: Sequence[Any]) -> str:
    """``params.layers.0.W`` for a leaf's path, which begins with the position of the argument."""
    first, *rest = (getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path)
    return ".".join([parameters[first], *map(str, rest)])


def _one_array(Y: Any, name: str, parameters: Sequence[str]) -> Any:
    """The value, if it is one array.

    Raises:
        OptionError: it is several.
        DtypeError: it is floating, and neither float32 nor float64.
    """
    arguments = ", ".join(parameters)
    typed = f"check(lambda {arguments}: {name if name.isidentifier() else 'f'}({arguments})%s, {arguments})"
    if not isinstance(Y, jax.Array | np.ndarray | np.generic | float | int | complex):
        first = repr(next(iter(Y))) if isinstance(Y, Mapping) and Y else "0"
        number = f" of {len(Y)}" if isinstance(Y, tuple | list | Mapping) else ""
        raise OptionError(
            f"check: {name}({arguments}) returns a {type(Y).__name__}{number}, and one array is checked at a time; "
            f"type  {typed % f'[{first}]'}"
        )
    Y = jax.numpy.asarray(Y)
    if jax.numpy.issubdtype(Y.dtype, jax.numpy.floating) and Y.dtype not in FLOATS:
        line = typed % ".astype('float32')"
        raise DtypeError(
            f"check: {name}({arguments}) returns {Y.dtype}, too coarse to take differences of; type  {line}"
        )
    return Y


def _refuse_unfit(name: str, leaf: Any) -> None:
    """The entries of an array can be read and moved.

    Raises:
        OptionError: it is traced, and has none yet.
        DtypeError: it is floating or complex, and neither float32 nor float64.
    """
    if isinstance(leaf, jax.core.Tracer):
        raise OptionError(f"check: {name} is traced and has no numbers yet; call check outside of jit, grad and vmap")
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.complexfloating):
        raise DtypeError(
            f"check: {name} is {leaf.dtype}; give its real and its imaginary part as two arrays, and begin with  "
            f"{name} = jax.lax.complex(real, imaginary)"
        )
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating) and leaf.dtype not in FLOATS:
        raise DtypeError(
            f"check: {name} is {leaf.dtype}, too coarse to take differences of; type  {name}.astype('float32')"
        )
