"""How results are written: lines for a reader, JSON for a program, an error where one is wrong."""

from __future__ import annotations

import json
import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from ..core import ProofError

WIDTH, INDENT = 110, "    "


class Result(ABC):
    """What `check`, `grade` and `prove` return; ``str`` of it is what is printed."""

    @property
    @abstractmethod
    def ok(self) -> bool:
        """Whether all is right."""

    @abstractmethod
    def __str__(self) -> str: ...

    def __repr__(self) -> str:
        return str(self)

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes."""

    def to_json(self) -> str:
        """The keys of `as_dict` as a JSON object; null for a number that is not finite."""
        return json.dumps(self.as_dict(), allow_nan=False)

    def raise_if_wrong(self) -> None:
        """Raises `ProofError` with all that is printed unless all is right."""
        if not self.ok:
            raise ProofError(str(self))


def columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, indented."""
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        INDENT + "  ".join(cell.ljust(width) for cell, width in zip(line, wide, strict=True)).rstrip() for line in cells
    ]


def wrapped(sentences: Iterable[str], indent: str = "") -> list[str]:
    """Each sentence on lines of its own, with ``indent`` before those after the first."""
    return [line for sentence in sentences for line in textwrap.wrap(sentence, WIDTH, subsequent_indent=indent)]


def record(row: Any) -> dict[str, Any]:
    """The fields of a row and whether it is ``ok``, as JSON has them: None for a number that is not finite."""
    fields = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row._asdict().items()
    }
    return {**fields, "ok": row.ok}


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
