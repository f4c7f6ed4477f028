"""How results are written: columns for a reader, JSON for a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, indented."""
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "    " + "  ".join(cell.ljust(width) for cell, width in zip(line, wide, strict=True)).rstrip() for line in cells
    ]


def plain(value: Any) -> Any:
    """A value as JSON has it: None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
