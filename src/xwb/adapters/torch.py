"""PyTorch: what autograd returns for a function, an `autograd.Function` or a module, held against measurements."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DtypeError, OptionError
from ..proof import Pass, Report, Subject, check_subject, parameter_names

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    line = "xwb.adapters.torch needs PyTorch; type  pip install 'xwb[torch]'"
    raise ModuleNotFoundError(line, name="torch") from None

__all__ = ["check"]

CHECKED = (torch.float32, torch.float64)


def check(
    function: Callable[..., Any],
    *inputs: Any,
    seed: int = 0,
    conduct: bool = True,
    output: Any = None,
    **options: Any,
) -> Report:
    """`xwb.check` for a function of PyTorch tensors: the gradients that autograd returns, against measurements.

    It works on copies: tensors and their ``grad``, a module's buffers and training mode, and the generators of random
    numbers stay as they are. A function that draws random numbers, as dropout does, draws the same ones each time.
    Where autograd says that Y does not depend on an input, its gradient counts as 0.

    Args:
        function: any callable, an `autograd.Function` or its ``apply``, or a module, whose parameters are checked too,
            by their dotted names; frozen ones are not.
        inputs: the function's positional arguments, on any device. Tensors of float32 or float64 are checked, those of
            integers and booleans have no gradient, and what is no tensor is handed on as it is.
        seed: of dY, and of what the function draws.
        conduct: whether to try what else a backward pass gets wrong, as in `xwb.check`.
        output: the position or the key of the output to check, where the function returns several.
        options: the function's keyword arguments; a tensor to be checked is given by position.

    Returns:
        A report with one row per floating tensor; it is not raised, see `Report.raise_if_wrong`.

    Raises:
        OptionError: the function returns no tensor, or several; no input has a gradient to check; or a tensor is one
            whose entries cannot be moved, such as a sparse one.
        DtypeError: a tensor is floating or complex, and neither float32 nor float64.
    """
    return check_subject(_subject(function, inputs, options, output, seed), seed=seed, conduct=conduct)


def _subject(
    function: Any, inputs: Sequence[Any], options: Mapping[str, Any], output: Any = None, seed: int = 0
) -> Subject:
    """The subject that a function is for these inputs: its tensors, and after them its module's parameters."""
    rule = _rule_of(function, len(inputs))
    _refuse_hidden(rule, inputs, options)
    given = [(name, thing) for name, thing in zip(rule.inputs, inputs, strict=True) if isinstance(thing, torch.Tensor)]
    parameters = [] if rule.module is None else list(rule.module.named_parameters())
    names = tuple(name for name, _ in [*given, *parameters])
    tensors = [tensor for _, tensor in [*given, *parameters]]
    for i, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        typed = name if i < len(given) else "module"
        _refuse_unfit(name, tensor, typed)
        if tensor.is_complex():
            raise DtypeError(
                f"check: {name} is {tensor.dtype}; give its real and its imaginary part as two tensors, and begin with "
                f" {typed} = torch.complex(real, imaginary)"
            )
    checked = tuple(
        i
        for i, tensor in enumerate(tensors)
        if tensor.is_floating_point() and (i < len(given) or tensor.requires_grad)  # a frozen parameter has none
    )
    if not checked:
        raise OptionError(f"check: {rule.call} has no float32 or float64 tensor among these, so no gradient to check")
    evaluate = _Evaluation(rule, inputs, options, output, tensors, checked, seed)

    def run(*arrays: Any) -> Pass:
        leaves, Y = evaluate(arrays)
        # Those of a Function; what PyTorch's own operations keep cannot be seen.
        saved = tuple(_shown(tensor) for tensor in getattr(Y.grad_fn, "saved_tensors", ()) if tensor is not None)

        def back(dY: Array) -> list[Any]:
            grads: list[Any] = [None] * len(leaves)
            for i, grad in zip(checked, evaluate.gradients(leaves, Y, _tensor(dY, Y.device)), strict=True):
                grads[i] = _array(torch.zeros_like(leaves[i]) if grad is None else grad)
            return grads

        return Pass(_array(Y), saved, back)

    return Subject(
        call=rule.call,
        names=names,
        arrays=tuple(_array(tensor) for tensor in tensors),
        checked=checked,
        value=lambda *arrays: _array(evaluate(arrays)[1]),
        run=run,
        library="PyTorch",
    )


class _Rule(NamedTuple):
    """What is checked, whichever way it was given."""

    name: str
    inputs: tuple[str, ...]  # the names of the positional arguments
    apply: Callable[..., Any]
    module: torch.nn.Module | None = None

    @property
    def call(self) -> str:
        """As in messages."""
        return f"{self.name}({', '.join(self.inputs)})"

    @property
    def typed(self) -> str:
        """What stands for it in a line to type."""
        return "module" if self.module is not None else self.name if self.name.isidentifier() else "f"


def _rule_of(function: Any, number: int) -> _Rule:
    """The name, the names of the inputs and the way to call what was given with so many inputs."""
    if isinstance(function, torch.nn.Module):
        return _Rule(type(function).__name__, parameter_names(function.forward, number), function, function)
    owner: Any = function if isinstance(function, type) else getattr(function, "__self__", None)
    if torch.autograd.Function in getattr(owner, "__mro__", ()):
        takes_context = owner.setup_context is torch.autograd.Function.setup_context
        forward = functools.partial(owner.forward, None) if takes_context else owner.forward
        return _Rule(owner.__name__, parameter_names(forward, number), owner.apply)
    if isinstance(function, type) and issubclass(function, torch.nn.Module):
        raise OptionError(f"check: {function.__name__} is a class; give a module,  check({function.__name__}(…), …)")
    if not callable(function):
        raise OptionError(
            f"check takes a function of tensors, an autograd.Function or a module; got {function!r}. A layer or a pair "
            "of NumPy arrays goes to xwb.check"
        )
    name = getattr(function, "__name__", type(function).__name__)
    return _Rule(name, parameter_names(function, number), function)


class _Evaluation:
    """The function as one of NumPy arrays, in the order of the subject's.

    Autograd records every evaluation, those for the value alone too: otherwise a function that differentiates inside
    fails, and a module may take a path that is not the one checked.
    """

    def __init__(
        self,
        rule: _Rule,
        inputs: Sequence[Any],
        options: Mapping[str, Any],
        output: Any,
        tensors: Sequence[torch.Tensor],
        checked: Sequence[int],
        seed: int,
    ) -> None:
        self._rule = rule
        self._inputs = inputs
        self._options = options
        self._output = output
        self._tensors = tensors
        self._checked = checked
        self._seed = seed
        self._parameters = [] if rule.module is None else [name for name, _ in rule.module.named_parameters()]
        self._generators: list[torch.Generator] = []
        self._alone: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        generators = _generators(self._tensors)
        with _draws_of(generators, seed):
            before = [generator.get_state() for generator in generators]
            self([_array(tensor) for tensor in self._tensors])
            if any(not torch.equal(g.get_state(), state) for g, state in zip(generators, before, strict=True)):
                self._generators = generators
        if self._generators or rule.module is not None:
            # A module holds the parameters of one evaluation at a time, a generator the draws of one.
            self._alone = threading.Lock()

    def __call__(self, arrays: Sequence[Any]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The tensors made of the arrays, and Y as autograd recorded it from them."""
        with _recording():
            leaves = [_tensor(array, old.device) for array, old in zip(arrays, self._tensors, strict=True)]
            for i in self._checked:
                leaves[i].requires_grad_()
            given = iter(leaves)
            inputs = [next(given) if isinstance(old, torch.Tensor) else old for old in self._inputs]
            with self._alone, _draws_of(self._generators, self._seed):
                result = self._holding(leaves, lambda: self._rule.apply(*inputs, **self._options))
        return leaves, self._one_tensor(result)

    def gradients(self, leaves: Sequence[torch.Tensor], Y: torch.Tensor, dY: torch.Tensor) -> Sequence[Any]:
        """What autograd returns for the checked ones among the leaves: None where Y does not depend on one."""
        moving = [leaves[i] for i in self._checked]
        if not Y.requires_grad:
            return [None] * len(moving)

        def grad() -> Any:
            return torch.autograd.grad(Y, moving, dY, retain_graph=True, allow_unused=True)

        with _recording(), self._alone:
            # With its parameters held: a checkpoint runs the module's forward again on the way back.
            found: Sequence[Any] = self._holding(leaves, grad)
        return found

    def _holding(self, leaves: Sequence[torch.Tensor], action: Callable[[], Any]) -> Any:
        """The action's result while the module, if there is one, holds the last leaves for its parameters."""
        if self._rule.module is None:
            return action()
        state = dict(zip(self._parameters, leaves[len(leaves) - len(self._parameters) :], strict=True))
        wide = any(leaves[i].dtype == torch.float64 and self._tensors[i].dtype == torch.float32 for i in self._checked)
        for name, buffer in self._rule.module.named_buffers():
            # A copy, so that running statistics stay; widened with the inputs, since operands do not mix dtypes.
            copy = buffer.detach().clone()
            state[name] = copy.double() if wide and copy.dtype == torch.float32 else copy
        holder = torch.nn.Module()
        holder.add_module("held", self._rule.module)
        holder.forward = action
        return torch.func.functional_call(holder, {f"held.{name}": tensor for name, tensor in state.items()}, ())

    def _one_tensor(self, result: Any) -> torch.Tensor:
        """The output to check.

        Raises:
            OptionError: it is no tensor, or none with entries.
            DtypeError: it is floating, and neither float32 nor float64.
        """
        call = self._rule.call
        several = isinstance(result, tuple | list | Mapping)
        if several and self._output is None:
            first = repr(next(iter(result))) if isinstance(result, Mapping) and result else "0"
            typed = ", ".join([self._rule.typed, *self._rule.inputs])
            raise OptionError(
                f"check: {call} returns a {type(result).__name__} of {len(result)}; say which one, type  "
                f"check({typed}, output={first})"
            )
        if self._output is not None:
            try:
                result = result[self._output] if several else None
            except (LookupError, TypeError):
                result = None
            if result is None:
                raise OptionError(f"check: {call} has no output {self._output!r}; without output= it checks Y itself")
        if not isinstance(result, torch.Tensor):
            raise OptionError(
                f"check: {call} returns {type(result).__name__}, and autograd follows tensors only; return a tensor"
            )
        _refuse_unfit("Y", result, "Y")
        return result


def _recording() -> contextlib.AbstractContextManager[Any]:
    """Autograd records, whatever mode the caller is in: leaving the mode of inference lifts `no_grad` as well."""
    mode: contextlib.AbstractContextManager[Any] = torch.inference_mode(False)
    return mode


def _generators(tensors: Sequence[torch.Tensor]) -> list[torch.Generator]:
    """The generators that a function of these tensors draws from, where PyTorch hands them out."""
    found = [torch.default_generator]
    for device in sorted({tensor.device for tensor in tensors}, key=str):
        of_kind = getattr(getattr(torch, device.type, None), "default_generators", ())
        found += [of_kind[device.index]] if len(of_kind) else []
    return found


@contextlib.contextmanager
def _draws_of(generators: Sequence[torch.Generator], seed: int) -> Iterator[None]:
    """Inside, the generators start from the seed; afterwards they go on as if nothing had been."""
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _tensor(array: Any, device: torch.device) -> torch.Tensor:
    """The array as a tensor, on the CPU in the same memory: what the function changes is seen to have changed."""
    array = np.asarray(array)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # PyTorch has neither
    return torch.from_numpy(array).to(device)


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor outside of autograd, with every entry, as a gradient may leave entries out."""
    return tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()


def _array(tensor: torch.Tensor) -> Array:
    """The tensor's entries as an array of its own, in the same order in memory."""
    return np.array(_dense(tensor).numpy(force=True), order="K")


def _shown(tensor: torch.Tensor) -> Array:
    """What a Function saved, as an array on the same memory where that is possible."""
    dense = _dense(tensor)
    low = dense.is_floating_point() and dense.dtype not in CHECKED
    return np.asarray((dense.float() if low else dense).numpy(force=True))


def _holds_numbers(thing: Any) -> bool:
    """Whether there is a floating tensor, or an array, in an argument that is not a tensor itself."""
    if isinstance(thing, Mapping):
        return any(map(_holds_numbers, thing.values()))
    if isinstance(thing, tuple | list):
        return any(map(_holds_numbers, thing))
    if isinstance(thing, torch.Tensor):
        return bool(thing.is_floating_point() or thing.is_complex())
    return isinstance(thing, np.ndarray)


def _refuse_hidden(rule: _Rule, inputs: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Numbers are given where they are seen, so that no gradient goes unchecked in silence.

    Raises:
        OptionError: an argument is an array, or holds tensors, or is a floating tensor given by keyword.
    """
    by_position = zip(rule.inputs, inputs, strict=True)
    for name, given in [*((n, g) for n, g in by_position if not isinstance(g, torch.Tensor)), *options.items()]:
        if isinstance(given, np.ndarray):
            raise OptionError(f"check: {name} is a NumPy array; type  torch.from_numpy({name})")
        if _holds_numbers(given) and isinstance(given, torch.Tensor):
            raise OptionError(f"check: {name} is given by keyword, where no gradient is checked; give it by position")
        if _holds_numbers(given):
            raise OptionError(
                f"check: {name} is a {type(given).__name__} that holds tensors; give them one by one, type  "
                f"check(lambda a, b: {rule.typed}([a, b]), a, b)"
            )


def _refuse_unfit(name: str, tensor: torch.Tensor, typed: str) -> None:
    """A tensor has one entry per index, which can be read and moved; ``typed`` is what stands for it in a program.

    Raises:
        OptionError: it has none, or not all of them.
        DtypeError: it is floating and too coarse for differences.
    """
    if torch.nn.parameter.is_lazy(tensor):
        raise OptionError(f"check: {name} has no shape yet; call the module once before")
    if tensor.is_meta:
        raise OptionError(
            f"check: {name} is on the device meta, which holds no numbers; make it on another one, for example  "
            f"torch.randn({tuple(tensor.shape)}, device='cpu')"
        )
    if tensor.is_nested:
        raise OptionError(f"check: {name} is nested; type  {typed}.to_padded_tensor(0.0)")
    if tensor.layout is not torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        raise OptionError(f"check: {name} is {kind}, which leaves entries out; type  {typed}.to_dense()")
    if tensor.is_floating_point() and tensor.dtype not in CHECKED:
        raise DtypeError(f"check: {name} is {tensor.dtype}, too coarse to take differences of; type  {typed}.float()")
