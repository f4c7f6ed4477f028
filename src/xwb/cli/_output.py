"""What the commands print."""

from __future__ import annotations

import contextlib
import os
import sys


def say(text: str) -> None:
    """Print, and go on in silence when nobody reads any more: the run folder is what the work is for."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_output()


def complain(message: str) -> None:
    """One line on stderr."""
    print("xwb:", " ".join(message.split()), file=sys.stderr)


def drop_output() -> None:
    """What Python still holds for stdout goes nowhere, instead of failing once more at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError):  # a stdout that is no file, as in a notebook
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
