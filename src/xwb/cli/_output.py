"""What the commands print."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any


def ready_output() -> None:
    """Make stdout and stderr bear any text: closed, it goes nowhere; what their encoding lacks is escaped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # as Python makes them, a descriptor that is not theirs to close
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print, and go on in silence when nobody reads any more: the run folder is what the work is for."""
    pour(f"{text}\n")


def pour(text: str) -> bool:
    """Print lines, for what is nothing but output: whether anybody still reads."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # a closed pipe, a closed terminal
            raise
        drop_output()
        return False
    return True


def can_redraw() -> bool:
    """Whether stdout is a terminal on which a line can change."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def others_to_stderr(alone: bool) -> contextlib.AbstractContextManager[Any]:
    """What other code prints goes to stderr where the command's own output is to stand ``alone``."""
    return contextlib.redirect_stdout(sys.stderr) if alone else contextlib.nullcontext()


def complain(message: str) -> None:
    """One line on stderr."""
    print("xwb:", " ".join(message.split()), file=sys.stderr)


def point_out(message: str) -> None:
    """Lines on stderr as they are, for carets that point at the line above."""
    print("xwb:", message, file=sys.stderr)


def drop_output() -> None:
    """What Python still holds for stdout goes nowhere, instead of failing once more at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError):  # a stdout that is no file, as in a notebook
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
