"""Ctrl-C and SIGTERM: an exception where nothing is at stake, a flag while a run is being written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Not a KeyboardInterrupt, which click would catch, and no Exception, which others would."""


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python hands signals to the main thread only
        yield
        return
    before = [signal.signal(number, handler) for number in SIGNALS]
    try:
        yield
    finally:
        for number, old in zip(SIGNALS, before, strict=True):
            signal.signal(number, old)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Inside, a signal raises `Interrupted`."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    with _handled(handler):
        yield


@contextlib.contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """Inside, a signal is only noted: the function that this gives says whether one came."""
    came = threading.Event()
    with _handled(lambda number, frame: came.set()):
        yield came.is_set
