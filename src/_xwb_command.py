"""The script ``xwb``. It is no part of the package, since that imports NumPy, and a signal may come while it does."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> int:
    """Run the command line of the process; a signal before the command handles its own ends it with one line."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from xwb.cli import main as command

    return command()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"xwb: interrupted\n")
    os._exit(130)  # an exception could be caught by whatever is being imported
