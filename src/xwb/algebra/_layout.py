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


def statement(line: str, indent: str = "    ") -> list[str]:
    """One statement that ends in a call: on one line where it fits, else its arguments below it."""
    if len(indent) + len(line) <= WIDTH:
        return [indent + line]
    opening = _opening(line)
    if opening is None:
        return [indent + line]
    parts = _arguments(line[opening + 1 : line.rindex(")")])
    inner = f"{indent}    {', '.join(parts)}"
    head, end = indent + line[: opening + 1], indent + line[line.rindex(")") :]
    if len(inner) <= WIDTH:
        return [head, inner, end]
    below = [text for part in parts for text in statement(f"{part},", f"{indent}    ")]
    return [head, *below, end]


def _opening(line: str) -> int | None:
    """Where the parenthesis opens that closes at the end of a line."""
    if not line.rstrip(",").endswith(")"):
        return None
    depth = 0
    for at in range(len(line) - 1, -1, -1):
        depth += (line[at] in ")]") - (line[at] in "([")
        if depth == 0 and line[at] == "(":
            return at
    return None


def _arguments(text: str) -> list[str]:
    """The arguments of a call, apart at the commas outside all brackets."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]
