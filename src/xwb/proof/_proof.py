"""What `prove` found: the errors of every case, the formulas that are wrong, and which corner is the odd one out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._apart import ALLOWED
from ._written import INDENT, Result, columns, record, wrapped

if TYPE_CHECKING:
    from ..algebra import Size


class Error(NamedTuple):
    """A relative error and what is allowed."""

    relative: float
    allowed: float

    def excess(self) -> float:
        """How many times what is allowed."""
        return np.inf if np.isnan(self.relative) else self.relative / (self.allowed or np.finfo(float).tiny)


class Case(NamedTuple):
    """One case of a proof: the relative errors of the closed form, where they are largest."""

    variant: int  # which of `Proof.formulas`
    sizes: Mapping[str, Size]
    dtype: str
    layout: str
    value: float  # against the formula's value
    value_allowed: float
    gradient: float  # against the formula's derivatives
    gradient_allowed: float
    numeric: float  # against finite differences
    numeric_allowed: float
    notes: tuple[str, ...] = ()  # where they disagree, with both numbers
    conduct: tuple[str, ...] = ()  # how the backward pass misbehaves otherwise

    @property
    def ok(self) -> bool:
        """Whether all three agree, and the backward pass behaves."""
        return not self.notes and not self.conduct and self.agrees == (True, True, True)

    @property
    def errors(self) -> tuple[Error, Error, Error]:
        """Of value, gradient and finite difference."""
        return (
            Error(self.value, self.value_allowed),
            Error(self.gradient, self.gradient_allowed),
            Error(self.numeric, self.numeric_allowed),
        )

    @property
    def agrees(self) -> tuple[bool, bool, bool]:
        """Whether the closed form agrees with the formula's value, its derivatives, and finite differences."""
        value, gradient, numeric = (error.relative <= error.allowed for error in self.errors)
        return value, gradient, numeric


class Verdict(NamedTuple):
    """What is wrong with one formula and its closed form."""

    variant: int
    wrong: str  # "closed form", "formula", "forward", … as a key for programs
    sentence: str
    details: tuple[str, ...]


class Formula(NamedTuple):
    """A formula, and the options of the closed form that it is of."""

    options: Mapping[str, Any]
    text: str

    def __str__(self) -> str:
        return ": ".join(
            [*filter(None, [", ".join(f"{name}={value!r}" for name, value in self.options.items())]), self.text]
        )


class Proof(Result):
    """What `prove` found: printed, a line for each formula and what is wrong; attributes for programs.

    Attributes:
        call: what was proved, ``linear(X, W, b)``.
        formulas: one `Formula` for each variant.
        rows: one `Case` for each variant, assignment of sizes, dtype and layout.
        verdicts: one `Verdict` for each variant that is wrong.
        derived: whether the closed form was made from the formula by `derive`.
        skipped: the sizes for which the formula has no finite value.
    """

    def __init__(
        self,
        call: str,
        formulas: Sequence[Formula],
        rows: Sequence[Case],
        verdicts: Sequence[Verdict] = (),
        derived: bool = False,
        skipped: Sequence[tuple[int, Mapping[str, Size]]] = (),
    ) -> None:
        self.call = call
        self.formulas = list(formulas)
        self.rows = list(rows)
        self.verdicts = list(verdicts)
        self.derived = derived
        self.skipped = list(skipped)

    @property
    def ok(self) -> bool:
        """Whether all agree, in at least one case of every formula."""
        proved = {row.variant for row in self.rows}
        return len(proved) == len(self.formulas) > 0 and all(row.ok for row in self.rows)

    def largest(self, variant: int | None = None, dtype: str | None = None) -> tuple[float, float, float]:
        """The errors of value, gradient and finite difference, each of the case that comes closest to its allowance."""
        rows = [row for row in self.rows if variant in (None, row.variant) and dtype in (None, row.dtype)]
        if not rows:
            return np.nan, np.nan, np.nan
        errors = zip(*(row.errors for row in rows), strict=True)
        value, gradient, numeric = (max(column, key=Error.excess).relative for column in errors)
        return value, gradient, numeric

    def __str__(self) -> str:
        return "\n".join([f"{self.call}: {self._fact()}", *self._table(), *self._conclusion()])

    def _fact(self) -> str:
        wrong = sum(not row.ok for row in self.rows)
        if wrong:
            return f"wrong in {wrong} of {len(self.rows)} cases"
        if not self.ok:
            return "nothing is proved"
        return f"formula, closed form and finite differences agree in {len(self.rows)} cases"

    def _table(self) -> list[str]:
        dtypes = ("float64", "float32")
        parts = ("value", "gradient", "numeric")
        cells = [["cases", *(f"{part} {dtype[-2:]}" for dtype in dtypes for part in parts), "formula"]]
        for variant, formula in enumerate(self.formulas):
            count = sum(row.variant == variant for row in self.rows)
            errors = [f"{error:.1e}" for dtype in dtypes for error in self.largest(variant, dtype)]
            wrong = any(verdict.variant == variant for verdict in self.verdicts)
            cells.append([str(count), *errors, f"{'WRONG  ' if wrong else ''}{formula}"])
        return columns(cells)

    def _conclusion(self) -> list[str]:
        allowed = " and ".join(f"{ALLOWED[np.dtype(dtype)]:.0e} in {dtype}" for dtype in ("float64", "float32"))
        sentences = [
            "Relative errors of the closed form against the formula (value, gradient) and against finite differences "
            f"(numeric), the largest of all cases; allowed {allowed}, and what check allows for finite differences."
        ]
        if self.derived:
            sentences.append(
                "The closed form was derived from the formula, so the two are one; the formula is evaluated by loops, "
                "which share nothing with derive but the parser."
            )
        if self.skipped:
            sizes = dict.fromkeys(said(sizes) for _, sizes in self.skipped)
            sentences.append(f"Left out, since the formula has no finite value there: {'; '.join(sizes)}.")
        lines = wrapped(sentences)
        for verdict in self.verdicts:
            lines += ["", str(self.formulas[verdict.variant]), *wrapped([verdict.sentence])]
            lines += [INDENT + detail for detail in verdict.details]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes: call, ok, derived, formulas, rows, verdicts, skipped."""
        return {
            "call": self.call,
            "ok": self.ok,
            "derived": self.derived,
            "formulas": [{"options": repr(dict(options)), "formula": text} for options, text in self.formulas],
            "rows": [record(row) for row in self.rows],
            "verdicts": [verdict._asdict() for verdict in self.verdicts],
            "skipped": [{"variant": variant, "sizes": sizes} for variant, sizes in self.skipped],
        }


def said(sizes: Mapping[str, Size]) -> str:
    """``n = 2, d = 3``."""
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())
