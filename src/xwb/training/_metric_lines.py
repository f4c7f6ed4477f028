"""What a terminal shows of the metrics: aligned lines of plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

ROWS = 20  # classes or targets shown at most
NAME = 32  # letters of a name shown at most

ABSENT = "–"


def lines(result: dict[str, Any], names: Sequence[str] | None = None, weighted: bool = False) -> list[str]:
    """The result of `ClassificationMetrics` or `RegressionMetrics` as lines for a terminal.

    Args:
        result: as ``result()`` gives it, or as JSON gives it back.
        names: of the classes or targets, in the order of their codes; None for the codes.
        weighted: whether rows had weights, which a line then says.

    Returns:
        the metrics, one a line; then a table of at most 20 classes or targets in their order. Of more, those of the
        lowest recall or R² come first (undefined ones last), and a line says how many are left out.
    """
    if "per_class" in result:
        said = "each row counts by its weight, and support is a sum of weights"
        return _classification(result, names, said if weighted else "")
    return _regression(result, names, "each row counts by its weight" if weighted else "")


def _classification(result: dict[str, Any], names: Sequence[str] | None, weights: str) -> list[str]:
    calibration = result.get("calibration", {})
    pairs = [
        ("rows", _count(result["rows"])),
        ("weights", weights),
        ("accuracy", _percent(result["accuracy"])),
        ("top-5 accuracy", _percent(result["top5"]) if "top5" in result else ""),
        ("balanced accuracy", _percent(result["balanced_accuracy"])),
        ("macro F1", _percent(result["macro_f1"])),
        ("log loss", _decimals(result["log_loss"]) if "log_loss" in result else ""),
        ("Brier score", _decimals(calibration["brier"]) if calibration else ""),
        ("calibration error", _percent(calibration["expected_calibration_error"]) if calibration else ""),
    ]
    columns = [("support", _count), ("recall", _percent), ("precision", _percent), ("f1", _percent)]
    return [*_pairs(pairs), "", *_table(result["per_class"], "class", "classes", "recall", columns, names)]


def _regression(result: dict[str, Any], names: Sequence[str] | None, weights: str) -> list[str]:
    columns: list[tuple[str, Callable[[Any], str]]] = [
        ("r2", _decimals),
        ("mae", _digits),
        ("rmse", _digits),
        ("max_error", _digits),
    ]
    numbers = [(_title(name), write(result[name])) for name, write in columns]
    shown = _pairs([("rows", _count(result["rows"])), ("weights", weights), *numbers])
    if "per_target" not in result:
        return shown
    return [*shown, "", *_table(result["per_target"], "target", "targets", "r2", columns, names)]


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """``name  value`` with the values below each other; those without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    wide = max(len(name) for name, _ in shown)
    return [f"{name:<{wide}}  {value}" for name, value in shown]


def _table(
    rows: Sequence[dict[str, Any]],
    one: str,
    many: str,
    key: str,
    columns: Sequence[tuple[str, Callable[[Any], str]]],
    names: Sequence[str] | None,
) -> list[str]:
    """A line of titles and one for each row, numbers to the right; the lowest ``key`` first if there are too many."""
    kept = rows
    if len(rows) > ROWS:
        kept = sorted(rows, key=lambda row: (row[key] is None, row[key]))[:ROWS]
    cells = [[one, *(_title(name) for name, _ in columns)]]
    for row in kept:
        name = _plain(str(row[one] if names is None else names[row[one]]))
        cells.append([name, *(write(row[column]) for column, write in columns)])
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shown = [
        "  ".join([f"{first:<{wide[0]}}", *(f"{cell:>{w}}" for cell, w in zip(rest, wide[1:], strict=True))])
        for first, *rest in cells
    ]
    if len(kept) < len(rows):
        left = len(rows) - len(kept)
        shown.append(f"left out: {left:,} {one if left == 1 else many} with no lower {_title(key)}")
    return shown


def _title(name: str) -> str:
    return {"r2": "R²", "mae": "MAE", "rmse": "RMSE", "f1": "F1"}.get(name, name.replace("_", " "))


def _plain(name: str) -> str:
    """A name from a file, without what would move the cursor, and not too long."""
    name = "".join(letter if letter.isprintable() else "�" for letter in name)
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _count(x: float) -> str:
    """Rows, or the sum of their weights."""
    return f"{x:,}" if isinstance(x, int) else f"{x:,.1f}" if x >= 1000 else _digits(x)


def _percent(x: float | None) -> str:
    return ABSENT if x is None else f"{100 * x:.1f} %"


def _decimals(x: float | None) -> str:
    return ABSENT if x is None else f"{x:.4f}"


def _digits(x: float | None) -> str:
    """Five digits, in whatever unit the targets have."""
    return ABSENT if x is None else f"{x:.5g}"
