"""pytest: one line that fails a test with the report of the check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from ..core import Layer, Loss, ProofError, XwbError
from ..proof import Report, check

__all__ = ["assert_gradient"]


def assert_gradient(function: Any, *inputs: Any, seed: int = 0, **options: Any) -> Report:
    """The report of a check that holds; one that does not fails the test, at the test's own line.

    Also a fixture of the same name, which needs no import.

    Args:
        function: what `xwb.check` takes; or what `xwb.adapters.torch.check` or `xwb.adapters.jax.check` takes, if it
            or one of the inputs belongs to PyTorch or JAX.
        inputs: its inputs.
        seed: of dY.
        options: the other arguments of that check.

    Raises:
        ProofError: a gradient is wrong, or else the backward pass is; the message is the report.
        XwbError: a mistake in the call, as that check says it.
    """
    __tracebackhide__ = True
    try:
        report = _check_for(function, inputs)(function, *inputs, seed=seed, **options)
    except XwbError as error:
        raise error.with_traceback(_others_frames(error.__traceback__)) from None
    if not report.ok:
        raise ProofError(str(report))
    return report


def _check_for(function: Any, inputs: tuple[Any, ...]) -> Callable[..., Report]:
    """The check of the library that the function belongs to, else of the first input that belongs to one."""
    if not isinstance(function, Layer | Loss | tuple | list):
        for thing in (function, *_leaves(inputs)):
            libraries = _libraries(thing)
            if "torch" in libraries:
                from . import torch

                return torch.check
            if libraries & {"jax", "jaxlib"}:
                from . import jax

                return jax.check
    return check


def _leaves(thing: Any) -> Iterator[Any]:
    """What containers hold, to any depth."""
    if isinstance(thing, tuple | list | Mapping):
        for inner in thing.values() if isinstance(thing, Mapping) else thing:
            yield from _leaves(inner)
    else:
        yield thing


def _libraries(thing: Any) -> set[str]:
    """The packages that define its class, or a class itself, and what that is derived from."""
    kinds = thing.__mro__ if isinstance(thing, type) else type(thing).__mro__
    return {kind.__module__.split(".")[0] for kind in kinds}


def _others_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without xwb's own frames."""
    if traceback is None:
        return None
    after = _others_frames(traceback.tb_next)
    if traceback.tb_frame.f_globals.get("__name__", "").startswith("xwb."):
        return after
    return TracebackType(after, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)
