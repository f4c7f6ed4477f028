"""What a label is, in whatever file and type it is written: an integer, true or false, or text."""

from __future__ import annotations

import re
from typing import Any

PADDED = re.compile(r"[+-]?0[0-9]")
BOOLEANS = {"true": True, "false": False}


def as_class(value: Any, kind: type) -> Any:
    """A value of any file as a class of the type ``kind``; None where it is none."""
    if kind is str:
        return value if isinstance(value, str) else str(value) if type(value) is int else None
    if kind is bool:
        return BOOLEANS.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    return whole(value) if isinstance(value, str | float) else value


def whole(value: str | float) -> int | None:
    """The integer that a text or a float is, or None."""
    if isinstance(value, str) and is_integer(value):
        return int(value)
    found = decimal(value) if isinstance(value, str) else value
    return int(found) if found is not None and found.is_integer() else None


def is_integer(text: str) -> bool:
    """Whether a text is what Python writes for an integer."""
    try:
        return str(int(text)) == text
    except ValueError:  # no number, or one of thousands of digits
        return False


def decimal(text: str) -> float | None:
    """The number that a text is, or None; a number padded with zeros is a name, as 007."""
    if "_" in text or not text.isascii() or PADDED.match(text):  # the first is Python's own 1_000
        return None
    try:
        return float(text)
    except ValueError:
        return None
