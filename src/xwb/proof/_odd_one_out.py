"""Which of formula, closed form and finite differences is the odd one out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._apart import SMALL, apart
from ._check import check_subject
from ._proof import Case, Verdict, said

if TYPE_CHECKING:
    from ._prove import Tried

# What the formula's derivative by loops and that by `derive`, both in float64, may differ by.
DERIVED_ALLOWED = 1e-9


def verdict_of(tried: Sequence[Tried]) -> Verdict:
    """What is wrong with one formula and its closed form, from all its cases."""
    wrong = [one for one in tried if one.case.notes] or [one for one in tried if not one.case.ok]
    right = [one.case for one in tried if one not in wrong]
    first = wrong[0]
    key, sentence = _odd_one_out(first)
    if key == "conduct":
        return Verdict(first.case.variant, key, sentence, first.case.conduct)
    details = [f"first at {said(first.case.sizes) or 'this size'}, {first.case.dtype}, {first.case.layout}:"]
    details += first.case.notes
    if first.report is not None:
        details += [f"d{tensor}: {because}" for tensor, _, because in first.report.diagnosis]
    where = _where([one.case for one in wrong], right)
    return Verdict(first.case.variant, key, f"{sentence} {where}", tuple(details))


def _odd_one_out(first: Tried) -> tuple[str, str]:
    """(key, sentence) from the first case that is wrong."""
    value, gradient, numeric = first.case.agrees
    if first.report is None:
        return "raised", "The closed form raised an error."
    if first.instance.derived:
        for name, exact in first.instance.gradients.items():
            if apart(first.instance.derived[name], exact, SMALL)[0] > DERIVED_ALLOWED:
                return "derive", f"derive is wrong about d{name}: its gradient is not the formula's derivative."
    match value, gradient, numeric:
        case True, True, _ if first.case.conduct:
            return "conduct", "The gradients are the formula's, but the backward pass is not sound."
        case True, False, _ if _forward_follows(first):
            less = ", by less than finite differences resolve" if numeric else ""
            return "closed form", (
                "The closed form is wrong: formula and finite differences agree, its backward is the odd one "
                f"out{less}."
            )
        case True, True, False:
            return "finite difference", "Closed form and formula agree, and finite differences with neither."
        case True, False, True:
            return "formula", (
                "The formula has another derivative than this layer: closed form and finite differences agree."
            )
        case False, True, True:
            return "formula", (
                "The forward is not the formula's value, and the gradients agree all the same: they differ by what "
                "does not depend on the inputs."
            )
        case False, False, True:
            return "formula", (
                "The forward is not the formula's value. Closed form and finite differences agree: the formula is not "
                "this layer's."
            )
        case False, True, False:
            return "forward", (
                "The forward is not the formula's value. The backward is the formula's derivative: the forward is "
                "wrong."
            )
    told = "" if value else "The forward is not the formula's value. "
    return "all", f"{told}No two of formula, closed form and finite differences agree."


def _forward_follows(first: Tried) -> bool:
    """Whether finite differences of the forward are the formula's derivative."""
    instance, case = first.instance, first.case
    subject = instance.subject(case.layout, by_formula=True)
    return all(row.ok for row in check_subject(subject, seed=instance.seed, conduct=False).rows)


def _where(wrong: Sequence[Case], right: Sequence[Case]) -> str:
    """What the wrong cases have in common that the right ones do not all have."""
    if not right:
        return "Wrong in every case."
    common = []
    for name, word in (("dtype", "in"), ("layout", "for inputs that are")):
        values = dict.fromkeys(getattr(case, name) for case in wrong)
        if not set(values) >= {getattr(case, name) for case in right}:
            common.append(f"{word} {' or '.join(values)}")
    common += [
        f"where {letter} is 1"
        for letter in wrong[0].sizes
        if all(_is_one(case, letter) for case in wrong) and not all(_is_one(case, letter) for case in right)
    ]
    for letter in wrong[0].sizes:
        if all(_is_one(case, letter) for case in right) and not any(_is_one(case, letter) for case in wrong):
            return f"Wrong except where {letter} is 1."
    if common:
        return f"Wrong only {', '.join(common)}."
    return f"Wrong in {len(wrong)} of {len(wrong) + len(right)} cases."


def _is_one(case: Case, letter: str) -> bool:
    """Whether an index has one value; of ``...``, one of its axes."""
    size = case.sizes.get(letter)
    return size == 1 or (isinstance(size, tuple) and 1 in size)
