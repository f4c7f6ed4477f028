"""Long lines of emitted code, broken as ruff breaks them."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 88


def call(head: str, parts: Sequence[str], end: str, indent: str = "") -> list[str]:
    """``head(parts)end``: on one line, else the parts on a line of their own, else each on one."""
    line = f"{indent}{head}({', '.join(parts)}){end}"
    if len(line) <= WIDTH or not parts:
        return [line]
    inner = f"{indent}    {', '.join(parts)}"
    if len(inner) <= WIDTH:
        return [f"{indent}{head}(", inner, f"{indent}){end}"]
    return [f"{indent}{head}(", *(f"{indent}    {part}," for part in parts), f"{indent}){end}"]


def returned(parts: Sequence[str], indent: str = "    ") -> list[str]:
    """``return a, b``; a tuple always."""
    line = (
        f"{indent}return {', '.join(parts)}"
        if len(parts) > 1
        else f"{indent}return ({''.join(parts)}{',' * len(parts)})"
    )
    if len(line) <= WIDTH:
        return [line]
    return [f"{indent}return (", *(f"{indent}    {part}," for part in parts), f"{indent})"]


def unpacked(names: Sequence[str], value: str, indent: str = "    ") -> list[str]:
    """``a, b = value``."""
    left = ", ".join(names) if len(names) > 1 else f"({names[0]},)"
    line = f"{indent}{left} = {value}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{indent}(", *(f"{indent}    {name}," for name in names), f"{indent}) = {value}"]
