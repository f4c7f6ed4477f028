"""What `grade` and `reference` found: the value and each gradient, right or wrong for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Array
from ._apart import apart
from ._report import Diagnosis
from ._written import INDENT, Result, columns, record, wrapped


class Part(NamedTuple):
    """The value or one gradient; ``given`` and ``expected`` are the two numbers where they differ most."""

    name: str  # "Y", "dW"
    shape: tuple[int, ...]  # expected
    given: float
    expected: float
    relative: float
    allowed: float
    worst: tuple[int, ...]
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether this part is right."""
        return self.relative <= self.allowed  # False for a NaN


class Grade(Result):
    """What `grade` or `reference` found: printed, a table with both numbers; attributes for programs.

    Attributes:
        call: what was graded, ``forward(X, W, b)``.
        against: the formula, or the name of the file.
        parts: one `Part` for the value and one for each gradient.
        diagnosis: one `Diagnosis` for each gradient whose mistake is recognised.
        remarks: how inputs were matched, where their names differ.
    """

    def __init__(
        self,
        call: str,
        against: str,
        parts: Sequence[Part],
        diagnosis: Sequence[Diagnosis] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        self.call = call
        self.against = against
        self.parts = list(parts)
        self.diagnosis = list(diagnosis)
        self.remarks = list(remarks)

    @property
    def ok(self) -> bool:
        """Whether every part is right."""
        return bool(self.parts) and all(part.ok for part in self.parts)

    @property
    def right(self) -> int:
        """How many parts are right."""
        return sum(part.ok for part in self.parts)

    def __str__(self) -> str:
        reasons = [f"d{tensor}: {sentence}" for tensor, _, sentence in self.diagnosis]
        title = f"{self.call} against {self.against}: {self._score()}"
        return "\n".join([title, *self._table(), *wrapped([*self.remarks, *reasons], INDENT)])

    def _score(self) -> str:
        if self.ok:
            return "all parts are right" if len(self.parts) > 1 else "right"
        return f"{self.right} of {len(self.parts)} parts {'is' if self.right == 1 else 'are'} right"

    def _table(self) -> list[str]:
        cells: list[Sequence[str]] = [("part", "shape", "yours", "expected", "relative", "allowed", "")]
        cells += [
            (
                part.name,
                str(part.shape),
                f"{part.given:.7e}",
                f"{part.expected:.7e}",
                f"{part.relative:.1e}",
                f"{part.allowed:.1e}",
                "right" if part.ok else f"WRONG: {part.note or f'worst at {part.worst}'}",
            )
            for part in self.parts
        ]
        return columns(cells)

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes: call, against, ok, parts, diagnosis, remarks."""
        return {
            "call": self.call,
            "against": self.against,
            "ok": self.ok,
            "parts": [record(part) for part in self.parts],
            "diagnosis": [diagnosis._asdict() for diagnosis in self.diagnosis],
            "remarks": self.remarks,
        }


def mark(name: str, found: Any, expected: Array, allowed: float, least: float = 0.0) -> Part:
    """One tensor marked against what it should be."""
    if found is None:
        return Part(name, expected.shape, np.nan, np.nan, np.inf, allowed, (), "none was returned")
    relative, worst, fact = apart(found, expected, least)
    if fact or expected.size == 0:
        return Part(name, expected.shape, np.nan, np.nan, relative, allowed, worst, fact)
    return Part(name, expected.shape, float(np.asarray(found)[worst]), float(expected[worst]), relative, allowed, worst)
