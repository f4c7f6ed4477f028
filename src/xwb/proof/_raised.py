"""Exceptions from other people's code: what, and on which of their lines."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

# xwb itself, and the folders of Python and of installed packages.
FOREIGN = [Path(__file__).resolve().parents[1]]
FOREIGN += [Path(sysconfig.get_paths()[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")]


def own_line(error: BaseException) -> str:
    """``layer.py:12``: the last line that the exception came through which belongs to whoever called; else empty."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<"):
            path = Path(frame.filename).resolve()
            if not any(path.is_relative_to(folder) for folder in FOREIGN):
                return f"{path.name}:{frame.lineno}"
    return ""


def raised(error: BaseException) -> str:
    """``raised ValueError: negative``."""
    words = " ".join(str(error).split())
    return f"raised {type(error).__name__}{': ' if words else ''}{words}"
