"""Sizes and shapes as they are typed."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import click

# Entries of one array; a check visits many of them.
MOST_ENTRIES = 10**8
EXAMPLES = {"paper": "n=2,d=2,m=3", "sizes": "n=64,d=4096,m=4096"}


def sizes_by_letter(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """``n=64,d=4096``, or a tensor's shape, ``E=50257x768``."""
    if value is None:
        return None
    example = EXAMPLES[str(param.name)]
    sizes: dict[str, Any] = {}
    for part in map(str.strip, value.split(",")):
        name, _, size = part.partition("=")
        if not re.fullmatch(r"[A-Za-z]\w*=[0-9]{1,18}(x[0-9]{1,18})*", part, re.ASCII):
            raise click.BadParameter(f"{part!r} is no size; type --{param.name} {example}")
        if name in sizes:
            raise click.BadParameter(f"{name} has two sizes; type --{param.name} {example}")
        sizes[name] = tuple(map(int, size.split("x"))) if "x" in size else int(size)
    return sizes


def shapes_by_name(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """``X=32,64``, given once for each input; ``s=`` is a scalar."""
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values:
        match = re.fullmatch(r"([A-Za-z_]\w*)=((?:[0-9]{1,18}(?:,[0-9]{1,18})*)?)", value.replace(" ", ""), re.ASCII)
        if match is None:
            raise click.BadParameter(f"{value!r} is no shape; type --shape X=32,64, or --shape s= for a scalar")
        _once(match[1], shapes)
        shapes[match[1]] = _shape(match[1], match[2])
    return shapes


def integers_by_name(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[tuple[int, ...], int]]:
    """``y=32:10``, an input of shape (32,) with values from 0 to 9."""
    integers: dict[str, tuple[tuple[int, ...], int]] = {}
    for value in values:
        pattern = r"([A-Za-z_]\w*)=((?:[0-9]{1,18}(?:,[0-9]{1,18})*)?):([0-9]{1,18})"
        match = re.fullmatch(pattern, value.replace(" ", ""), re.ASCII)
        if match is None or int(match[3]) == 0:
            raise click.BadParameter(f"{value!r} says no integers; type --integers y=32:10 for 32 values from 0 to 9")
        _once(match[1], integers)
        integers[match[1]] = (_shape(match[1], match[2]), int(match[3]))
    return integers


@contextlib.contextmanager
def typed_sizes() -> Iterator[None]:
    """What a message tells to type in Python, ``sizes={'r': 2}``, as it is typed here."""
    from ..core import FormulaError

    def option(call: re.Match[str]) -> str:
        return f"--sizes {call[1].replace(': ', '=').replace(chr(39), '').replace(', ', ',')}"

    try:
        yield
    except FormulaError as error:
        raise FormulaError(re.sub(r"sizes=\{([^{}]*)\}", option, str(error))) from None


def _once(name: str, found: dict[str, Any]) -> None:
    if name in found:
        raise click.BadParameter(f"{name} is given twice")


def _shape(name: str, text: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in text.split(",") if size)
    if math.prod(shape) > MOST_ENTRIES:
        raise click.BadParameter(f"{name} would have {math.prod(shape):,} entries; {MOST_ENTRIES:,} are the limit")
    return shape
