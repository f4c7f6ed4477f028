"""What a check found: both numbers for every gradient, what else was tried, and why a wrong one is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._written import INDENT, Result, columns, listed, record, wrapped


class Row(NamedTuple):
    """One gradient; ``closed_form`` and ``numeric`` are the two numbers at the entry where they differ most."""

    name: str
    shape: tuple[int, ...]
    closed_form: float
    numeric: float
    relative: float  # |closed form − numeric| over the largest numeric entry of this tensor
    allowed: float
    worst: tuple[int, ...]  # the entry
    note: str = ""
    method: str = ""  # how the numeric values were found, and why so
    entries: int = 0  # compared one by one
    directions: int = 0  # random ones, in which all entries move at once
    miss: float | None = None  # with `==` on whole numbers too: the probability that a wrong gradient passes, at most
    evaluations: int = 0  # forward passes spent on it
    kinks: int = 0  # entries that were not compared, for the function has a kink there

    @property
    def ok(self) -> bool:
        """Whether the two agree."""
        return bool(self.relative <= self.allowed)  # False for a NaN


class Finding(NamedTuple):
    """One way to misbehave that was tried: ``ok`` is None where it could not be."""

    name: str
    ok: bool | None
    detail: str = ""


class Diagnosis(NamedTuple):
    """Why a gradient is wrong, tested against fresh numbers before it is said."""

    tensor: str
    cause: str  # a key for programs, "mean for sum"; "not recognised" where nothing fits
    sentence: str


class Report(Result):
    """What `check` found: printed, a table with both numbers; attributes for programs.

    Attributes:
        call: what was checked, ``linear(X, W, b)``.
        dtype: the floating dtype of its inputs.
        rows: one `Row` per gradient.
        findings: one `Finding` for each other way in which a backward pass goes wrong.
        diagnosis: one `Diagnosis` for each gradient that is wrong.
        kinks: outputs that have a kink at the inputs given; the gradients were then checked beside them.
        left_out: outputs that are not finite at these inputs, and have no slope.
    """

    def __init__(
        self,
        call: str,
        dtype: np.dtype[Any],
        rows: Sequence[Row],
        findings: Sequence[Finding] = (),
        diagnosis: Sequence[Diagnosis] = (),
        kinks: int = 0,
        left_out: int = 0,
    ) -> None:
        self.call = call
        self.dtype = dtype
        self.rows = list(rows)
        self.findings = list(findings)
        self.diagnosis = list(diagnosis)
        self.kinks = kinks
        self.left_out = left_out

    @property
    def ok(self) -> bool:
        """Whether every gradient agrees and nothing else is wrong; a report without rows proves nothing."""
        return bool(self.rows) and all(row.ok for row in self.rows) and not self._faults

    @property
    def _faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.ok is False]

    def __str__(self) -> str:
        return "\n".join([f"{self.call}: {self._fact()}", *self._table(), *self._conclusion()])

    def _fact(self) -> str:
        wrong = [f"d{row.name}" for row in self.rows if not row.ok]
        if wrong:
            return f"{listed(wrong)} {'disagrees' if len(wrong) == 1 else 'disagree'} with finite differences"
        if self._faults:
            return "the gradients agree with finite differences, but the backward pass is not sound"
        return "closed form against finite differences"

    def _table(self) -> list[str]:
        allowed = f"allowed ({self.dtype})"
        cells = [("input", "shape", "closed form", "numeric", "relative", allowed, "method", "forwards", "")]
        cells += [
            (
                row.name,
                str(row.shape),
                f"{row.closed_form:.7e}",
                f"{row.numeric:.7e}",
                f"{row.relative:.1e}",
                f"{row.allowed:.1e}",
                row.method,
                str(row.evaluations),
                row.note or ("" if row.ok else f"worst at {row.worst}"),
            )
            for row in self.rows
        ]
        return columns(cells)

    def _conclusion(self) -> list[str]:
        right, wrong = ([row.name for row in self.rows if row.ok is state] for state in (True, False))
        if wrong:
            sentences = [f"{listed(right)} agree{'s' * (len(right) == 1)}." if right else "None agrees."]
        else:
            sentences = [f"{', '.join(right)}: closed form and finite difference agree."]
        sentences += self._coverage()
        sentences += [f"d{tensor}: {sentence}" for tensor, _, sentence in self.diagnosis]
        sentences += [f"Wrong: {name}: {detail}" for name, _, detail in self._faults]
        held = [finding.name for finding in self.findings if finding.ok]
        if held:
            sentences.append(f"Also held: {', '.join(held)}.")
        reasons: dict[str, list[str]] = {}
        for name, ok, detail in self.findings:
            if ok is None:
                reasons.setdefault(detail, []).append(name)
        left = [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]
        if left:
            sentences.append(f"Not tried: {'; '.join(left)}.")
        return wrapped(sentences, INDENT)

    def _coverage(self) -> Iterator[str]:
        """What was compared: entries, directions, whole numbers, kinks."""
        compared = [row for row in self.rows if row.method]
        for row in compared:
            if row.entries < math.prod(row.shape) and not row.kinks and row.ok:
                yield f"{row.name}: {row.entries:,} entries one by one, and all at once in {row.directions} directions."
        whole = [row for row in compared if row.miss is not None and row.ok]
        if whole:
            names, miss = ", ".join(row.name for row in whole), max(row.miss or 0 for row in whole)
            yield f"{names}: == on whole numbers too, which a wrong gradient passes with a probability of {miss:.0e}."
        if self.left_out:
            outputs = "output is" if self.left_out == 1 else "outputs are"
            yield f"{self.left_out} {outputs} not finite at these inputs, and left out."
        if self.kinks:
            outputs = "output has" if self.kinks == 1 else "outputs have"
            yield f"{self.kinks} {outputs} a kink at these inputs, so all was checked a little beside them."
        for row in compared:
            if row.kinks:
                entries = "entry" if row.kinks == 1 else "entries"
                yield f"{row.name}: {row.kinks} {entries} left out, where Y has a kink."

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes: call, dtype, ok, rows, findings, kinks, left_out, diagnosis."""
        return {
            "call": self.call,
            "dtype": str(self.dtype),
            "ok": self.ok,
            "rows": [record(row) for row in self.rows],
            "findings": [finding._asdict() for finding in self.findings],
            "kinks": self.kinks,
            "left_out": self.left_out,
            "diagnosis": [diagnosis._asdict() for diagnosis in self.diagnosis],
        }
