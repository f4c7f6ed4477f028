"""Long formulas on several lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

OPERATORS = ("+ ", "- ", "= ")
AFTER = (" + ", " - ", " = ")
# A line shorter than this is not worth ending.
STUB = 12


def wrapped(text: str, width: int, indent: int = 2) -> list[str]:
    """Lines of at most ``width`` columns, from the second on indented.

    A term of a sum that does not fit begins a line of its own; one that is longer than a line goes on two columns
    further right. Lines end at spaces, preferably outside all parentheses; never inside an index list, even where a
    line becomes too long.
    """
    costs = dict(_breaks(text))
    starts = [0, *(at + 1 for at, cost in costs.items() if cost == 0)]
    lines = [""]
    for start, end in itertools.pairwise([*starts, len(text) + 1]):
        piece = text[start : end - 1]
        line = f"{lines[-1]} {piece}" if start else piece
        if lines[-1].startswith(" " * (indent + 2)) or (len(line) > width and start > STUB):
            lines.append(" " * indent + piece)
        else:
            lines[-1] = line
        while len(line := lines[-1]) > width and (at := _best(costs, end - 1 - len(line), line, width)):
            left = indent if costs[end - 1 - len(line) + at] == 0 else indent + 2
            lines[-1:] = [line[:at], " " * left + line[at + 1 :]]
    return [line.rstrip() for line in lines]


def _best(costs: Mapping[int, int], first: int, line: str, width: int) -> int | None:
    """Where to end a line that is too long: the last of the cheapest places. ``first``: where it begins in the text."""
    blank = len(line) - len(line.lstrip())
    places = {at - first: cost for at, cost in costs.items() if blank < at - first < len(line)}
    early, stub = blank + (width - blank) // 3, blank + STUB
    inside = {at: cost + 2 * (at < early) + 4 * (at < stub) for at, cost in places.items() if at <= width}
    if inside:
        return min(inside, key=lambda at: (inside[at], -at))
    return next(iter(places), None)


def _breaks(text: str) -> Iterator[tuple[int, int]]:
    """Where a line may end, and at what cost: the depth of brackets, and one more within a product."""
    depth = lists = 0
    opened: list[bool] = []
    for at, char in enumerate(text):
        if char in "([":
            is_list = char == "[" and at > 0 and (text[at - 1].isalnum() or text[at - 1] == "_")
            opened.append(is_list)
            depth, lists = depth + 1, lists + is_list
        elif char in ")]" and opened:
            depth, lists = depth - 1, lists - opened.pop()
        elif char == " " and not lists and at > 1 and text[at - 2 : at + 1] not in AFTER:
            yield at, 3 * depth + (text[at + 1 : at + 3] not in OPERATORS)
