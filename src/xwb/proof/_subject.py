"""What is checked: a function and its claimed backward pass, whatever they were written as."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..core import FLOATS, Array, Layer, Loss, OptionError, ProofError

if TYPE_CHECKING:
    from ..algebra import Derivation

Function: TypeAlias = Callable[..., Any]
Checkable: TypeAlias = "Layer | Loss | Derivation | tuple[Function, Function]"


class Pass(NamedTuple):
    """One forward pass and its way back."""

    Y: Array
    saved: Any  # what forward kept for backward, where that can be seen
    back: Callable[[Array], list[Any]]  # dY -> one gradient per input, None where there is none


class Subject(NamedTuple):
    """A function of arrays with its claimed gradients; adapters make one for functions of other libraries' arrays."""

    call: str  # as in messages, "linear(X, W, b)"
    names: tuple[str, ...]
    arrays: tuple[Any, ...]  # the inputs as NumPy arrays; None where one is absent
    checked: tuple[int, ...]  # the positions of the inputs that have a gradient
    value: Function  # value(*arrays) -> Y
    run: Callable[..., Pass]
    library: str = "NumPy"  # whose arrays it takes: memory is shared and strided in NumPy's own way
    stateful: bool = False  # the way back is from the last forward pass, whichever that was

    @property
    def dtype(self) -> np.dtype[Any]:
        """The coarsest floating dtype among the inputs that have a gradient."""
        return max((self.arrays[i].dtype for i in self.checked), key=lambda dtype: float(np.finfo(dtype).eps))


def subject_of(
    layer: Checkable, arrays: Sequence[Any], options: Mapping[str, Any], needs: Sequence[str] | None = None
) -> Subject:
    """The subject that a layer, loss, derivation or pair is for these inputs.

    Args:
        needs: the names of the inputs whose gradients are checked; those of all that are floating, if None.

    Raises:
        OptionError: something else; options for what has none; arrays that are not NumPy's, or too many or too few of
            them; no floating input; ``needs`` names none.
    """
    for array in arrays:
        library = type(array).__module__.split(".")[0]
        if library in ("torch", "jax", "jaxlib"):
            adapter = f"xwb.adapters.{library.removesuffix('lib')}"
            raise OptionError(f"check takes NumPy arrays, and this is {library}'s; type  {adapter}.check(…)")
    inputs = tuple(None if array is None else np.asarray(array) for array in arrays)
    rule = layer if isinstance(layer, Layer | Loss | tuple | list) else _derived(layer)
    _refuse_named_arrays(rule, options)
    subject = _of_rule(rule, inputs, options) if isinstance(rule, Layer | Loss) else _of_pair(rule, inputs, options)
    for name in needs or ():
        if name not in subject.names:
            raise OptionError(f"check: needs={name!r}: {subject.call} has the inputs {', '.join(subject.names)}")
    wanted = subject.names if needs is None else needs
    checked = tuple(i for i in subject.checked if _is_floating(inputs[i]) and subject.names[i] in wanted)
    for name, array in zip(subject.names, inputs, strict=True):
        if not checked and needs is None and array is not None and array.dtype.kind in "fc":
            raise OptionError(
                f"check: {name} is {array.dtype}, and float32 or float64 is checked; type  {name}.astype(np.float32)"
            )
    if not checked:
        raise OptionError(f"check: {subject.call} has no float32 or float64 input among these, so no gradient to check")
    return subject._replace(checked=checked)


def _refuse_named_arrays(rule: Any, options: Mapping[str, Any]) -> None:
    """Raises `OptionError` where an input is among the options: arrays are told apart by their order."""
    forward: Any = rule[0] if _is_pair(rule) else getattr(rule, "forward", None)
    names = rule.inputs if isinstance(rule, Layer | Loss) else tuple(p.name for p in parameters_of(forward))
    if set(names) & set(options):
        name = rule.name if isinstance(rule, Layer | Loss) else getattr(forward, "__name__", "forward")
        inputs = ", ".join(names)
        raise OptionError(f"check: pass the arrays of {name} in the order {inputs}; type  check(…, {inputs})")


def _derived(layer: Any) -> Any:
    """The layer that a derivation is; anything else as it is."""
    from ..algebra import Derivation  # here, so that `import xwb` does not pay for the engine

    return layer.layer() if isinstance(layer, Derivation) else layer


def _is_floating(array: Any) -> bool:
    return array is not None and array.dtype in FLOATS


def _of_rule(rule: Layer | Loss, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Subject:
    _fits(rule.name, rule._forward, inputs, options)

    def run(*arrays: Any) -> Pass:
        Y, saved = rule.forward(*arrays, **options)

        def back(dY: Array) -> list[Any]:
            if isinstance(rule, Loss):  # targets have no gradient
                return [rule.backward(dY, saved), *[None] * (len(arrays) - 1)]
            return list(rule.backward(dY, saved))

        return Pass(Y, saved, back)

    names = rule.inputs[: len(inputs)]  # the last ones may be left out
    positions = tuple(range(len(names)))
    checked = positions[:1] if isinstance(rule, Loss) else positions
    return Subject(rule.call, names, inputs, checked, lambda *arrays: run(*arrays).Y, run)


def _of_pair(pair: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Subject:
    sides = (getattr(pair, "forward", None), getattr(pair, "backward", None))
    forward, backward = sides if all(map(callable, sides)) else pair if _is_pair(pair) else (None, None)
    if forward is None or backward is None:
        raise OptionError(
            "check takes a layer, a loss, a derivation or a pair (forward, backward), also as methods of one thing; "
            f"got {pair!r}"
        )
    if options:
        raise OptionError(f"check: options {', '.join(options)} belong to layers; a pair takes arrays only")
    name = getattr(forward, "__name__", "forward")
    names = parameter_names(forward, len(inputs))
    _fits(name, forward, inputs)
    stateful = len(inputs) > 0 and _takes_dY_alone(backward)

    def run(*arrays: Any) -> Pass:
        result = forward(*arrays)
        keeps = isinstance(result, tuple) and len(result) == 2
        Y, saved = result if keeps else (result, None)
        if isinstance(Y, tuple | list | dict) or Y is None:
            raise OptionError(
                f"check: {name} returns {type(result).__name__}; a pair's forward returns Y, or (Y, saved) for a "
                "backward(dY, saved)"
            )
        behind = (saved,) if keeps else () if stateful else arrays
        _fits("backward", backward, (Y, *behind))
        return Pass(Y, saved, lambda dY: in_order(name, names, backward(dY, *behind)))

    call = f"{name}({', '.join(names)})"
    every = tuple(range(len(inputs)))
    return Subject(call, names, inputs, every, lambda *arrays: run(*arrays).Y, run, stateful=stateful)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == 2 and all(map(callable, pair))


def _takes_dY_alone(backward: Function) -> bool:
    """Whether a backward takes one argument, and so goes back from what its object has kept."""
    parameters = parameters_of(backward)
    return len(parameters) == 1 and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY


def _fits(name: str, function: Function, arrays: Sequence[Any], options: Mapping[str, Any] | None = None) -> None:
    """Raises `OptionError` if a function does not take so many arguments."""
    try:
        signature = inspect.signature(function)
        signature.bind(*arrays, **(options or {}))
    except ValueError:  # some built-in functions have no signature
        return
    except TypeError as error:
        count = f"{len(arrays)} argument{'s' * (len(arrays) != 1)}"
        raise OptionError(f"check: {name}{signature} is called with {count}: {error}") from None


def copies(arrays: Sequence[Any]) -> list[Any]:
    """The arrays copied, so that nothing which is done to them reaches the caller."""
    return [a.copy() if isinstance(a, np.ndarray) else a for a in arrays]


def same(array: Any, other: Any) -> bool:
    """Whether two inputs hold the same numbers; NaN is the same as NaN."""
    if not isinstance(array, np.ndarray):
        return array is other
    return np.array_equal(array, other, equal_nan=array.dtype.kind in "fc")


def parameters_of(function: Function) -> list[inspect.Parameter]:
    """The parameters of a function; none where they have no names of their own."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        return []
    return [] if any(p.kind is p.VAR_POSITIONAL for p in parameters) else parameters


def parameter_names(function: Function, number: int) -> tuple[str, ...]:
    """The names of a function's first parameters; numbers where it does not say them."""
    names = tuple(p.name for p in parameters_of(function)[:number])
    return names if len(names) == number else tuple(f"input {i}" for i in range(1, number + 1))


def in_order(name: str, inputs: Sequence[str], grads: Any) -> list[Any]:
    """What a backward returned as one entry per input: a single one, several, or a mapping by name.

    Raises:
        ProofError: another number of gradients than inputs.
    """
    if isinstance(grads, Mapping):
        return [grads.get(key, grads.get(f"d{key}")) for key in inputs]
    entries = list(grads) if isinstance(grads, tuple | list) else [grads]
    if len(entries) != len(inputs):
        raise ProofError(
            f"{name}: backward returned {len(entries)} gradients for {len(inputs)} inputs; return one per input, in "
            f"the order {', '.join(inputs)}, None for those without"
        )
    return entries
