"""Ctrl-C, SIGTERM and SIGHUP: an exception where nothing is at stake, a note once a run is being written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(BaseException):
    """Not a KeyboardInterrupt, which click would catch, and no Exception, which others would."""


@contextlib.contextmanager
def signals_raise(*, to_the_end: bool = False) -> Iterator[None]:
    """Inside, a signal raises `Interrupted`, until `note_signals`.

    Args:
        to_the_end: afterwards the process has nothing left to do but end, so that signals are ignored.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = _handle(handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else old)


def note_signals() -> Callable[[], bool]:
    """From now on a signal is only noted: the function that this gives says whether one came."""
    came: list[int] = []  # no threading.Event: its lock would be taken twice by a signal within a signal
    _handle(lambda number, frame: came.append(number))
    return lambda: bool(came)


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Make it the handler of all signals, but of SIGHUP not under nohup; gives what they had before."""
    if threading.current_thread() is not threading.main_thread():  # Python hands signals to the main thread only
        return {}
    nohup = [number for number in SIGNALS if number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in SIGNALS if number not in nohup}
