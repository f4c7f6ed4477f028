"""Numbers as the report of a fit writes them; what is undefined is a dash."""

from __future__ import annotations

ABSENT = "–"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(x: float | None) -> str:
    return ABSENT if x is None else f"{100 * x:.1f} %"


def decimals(x: float | None) -> str:
    return ABSENT if x is None else f"{x:.4f}"


def digits(x: float | None) -> str:
    """Five digits, in whatever unit it has."""
    return ABSENT if x is None else f"{x:.5g}"


def small(x: float | None) -> str:
    """``1.2e-5``."""
    if not x:
        return ABSENT if x is None else "0"
    mantissa, _, power = f"{x:.1e}".partition("e")
    return f"{mantissa}e{int(power)}"


def power_of_ten(label: str) -> str:
    """A tick's label, ``1e-05``, as 10⁻⁵ and ``2e-05`` as 2·10⁻⁵; others as they are."""
    label = "1e-04" if label == "0.0001" else label
    mantissa, _, power = label.partition("e")
    if not power:
        return label
    return ("" if mantissa == "1" else f"{mantissa}·") + "10" + str(int(power)).translate(RAISED)


def count(x: float | None) -> str:
    """Rows, or the sum of their weights."""
    return ABSENT if x is None else f"{x:,}" if isinstance(x, int) else f"{x:,.1f}"


def seconds(x: float | None) -> str:
    """``12.3 s``, or minutes from ten of them on."""
    if x is None:
        return ABSENT
    return f"{x:.2g} s" if x < 1 else f"{x:.1f} s" if x < 600 else f"{x / 60:.0f} min"


def bytes_said(x: float | None) -> str:
    """``123 MiB``; nothing where it is not known."""
    if not x:
        return ""
    return f"{x / 2**30:.1f} GiB" if x >= 2**30 else f"{x / 2**20:.0f} MiB"
