"""Option values that are more than one word: widths, amounts of memory, what a sweep varies."""

from __future__ import annotations

import math
import re
from typing import Any

import click

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
MOST_VALUES = 1000


def widths(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """``none``, ``128`` or ``256,128``."""
    try:
        return value if value is None else () if value == "none" else tuple(map(int, value.split(",")))
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither none nor widths such as 128 or 256,128") from None


def amount(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """``512MB``, ``2GiB``, ``1000000``: bytes."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", value, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{value!r} is no amount of memory such as 512MB or 2GiB")
    if value.strip().isdecimal() and int(value) < UNITS["m"]:  # no program is that small, so a unit was forgotten
        raise click.BadParameter(f"{value} is a number of bytes; for megabytes type  {param.opts[0]} {value.strip()}MB")
    return round(float(found[1]) * UNITS[(found[2] or "").lower()])


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """``a,b,c``."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def sweep(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, list[Any]]:
    """``l2=1e-6:1:13`` (from, to, how many; spaced by a factor), ``l2=0,1e-3``, ``loss=softmax,squared_hinge``."""
    found: dict[str, list[Any]] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name = name.strip()
        if not equals or not text.strip():
            raise click.BadParameter(f"{value!r} is not of the form l2=1e-6:1:13 or loss=softmax,squared_hinge")
        if name in found:
            raise click.BadParameter(f"{name} is given twice; several values are {name}=A,B,C")
        found[name] = _values(name, text)
    return found


def _values(name: str, text: str) -> list[Any]:
    if name == "loss":
        return [word.strip() for word in text.split(",")]
    try:
        values = _spaced(*text.split(":")) if ":" in text else [float(word) for word in text.split(",")]
    except (TypeError, ValueError, OverflowError):
        raise click.BadParameter(
            f"{name}={text} is neither FROM:TO:HOW_MANY, such as 1e-6:1:13 (from 0 < FROM < TO), nor numbers such as "
            "1e-4,1e-3"
        ) from None
    if name == "seed":
        if not all(math.isfinite(value) and value == int(value) for value in values):
            raise click.BadParameter(f"seeds are whole numbers; got {text}")
        return [int(value) for value in values]
    return values


def _spaced(low: str, high: str, count: str) -> list[float]:
    a, b, n = float(low), float(high), int(count)
    if not (0 < a < b < math.inf and 2 <= n <= MOST_VALUES):
        raise ValueError
    powers = [math.log(a) + (math.log(b) - math.log(a)) * i / (n - 1) for i in range(n)]
    return [a, *(float(f"{math.exp(power):.6g}") for power in powers[1:-1]), b]
