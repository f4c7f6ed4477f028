"""How good a stored model is on a table with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ..core import Array, DataError, OptionError, listed
from ..data import Block, Table
from ._class_codes import ClassCodes
from ._metrics import ClassificationMetrics
from ._model import Model
from ._passes import Fingerprint, Raw
from ._regression_metrics import RegressionMetrics
from ._roles import matched, stacked, width


def evaluate(
    model: Model,
    table: Table,
    target: Sequence[str] = (),
    *,
    labels: Table | None = None,
    weights: str | None = None,
) -> dict[str, Any]:
    """The metrics of a model on all rows of a table, read in blocks.

    Labels are the classes that have their value: 3, ``"3"`` in a CSV file and 3.0 are the same one.

    Args:
        target: the columns with the labels, or with the targets in the model's order.
        labels: a table of one column instead, which has the same rows.
        weights: the column with the weight of each row.

    Returns:
        what ``result()`` of `ClassificationMetrics` or `RegressionMetrics` gives, and ``trained_on``: whether these
        are the rows that the model was trained on, those held out among them.

    Raises:
        DataError: columns are missing or do not fit, labels that no class has, targets that are not finite.
        OptionError: the target or the weights are features of the model.
    """
    features = {field.column.name for field in matched(table, model.columns)}
    truth = _Truth(model, labels or table, [labels.columns[0].name] if labels else list(target))
    named = [*([] if labels else truth.names), *([weights] if weights else [])]
    for name in named:
        if name in features:
            raise OptionError(
                f"column {name!r} of {table.name} is a feature of the model, so it is no target or weight"
            )
    as_text = [] if labels else truth.as_text
    blocks = model.read_with(table, model.block_rows, named, as_text)
    metrics, fingerprint = _metrics(model), Fingerprint()
    rows = 0
    for X, block, other in _side_by_side(blocks, table, labels, truth, model.block_rows):
        y = truth.of(other)
        s = _weights(block[weights], table, weights, rows) if weights else None
        fingerprint.add(Raw(rows, X, y.astype(np.int32 if model.classes else np.float64), None, None, []))
        if not truth.unknown:
            metrics.add(model.scores(X, where=table.name, first=rows), y, s)
        rows += len(X)
    truth.finish()
    fingerprint.end(model.sizes[0], model.classes)
    return {**metrics.result(), "trained_on": fingerprint.hexdigest() == model.fingerprint}


def _metrics(model: Model) -> ClassificationMetrics | RegressionMetrics:
    if model.task == "regression":
        return RegressionMetrics(len(model.targets))
    return ClassificationMetrics(len(model.classes), probabilities=model.loss == "softmax")


def _side_by_side(
    blocks: Iterator[tuple[Array, Block]], table: Table, labels: Table | None, truth: _Truth, rows: int
) -> Iterator[tuple[Array, Block, Block]]:
    """Features, their block, and the block that the labels are in."""
    if labels is None:
        yield from ((X, block, block) for X, block in blocks)
        return
    differ = f"{table.name} and {labels.name} have different numbers of rows"
    if table.rows is not None and labels.rows is not None and table.rows != labels.rows:
        raise DataError(f"{differ}: {table.rows:,} and {labels.rows:,}")
    for pair, other in zip_longest(blocks, labels.blocks(truth.names, rows, truth.as_text)):
        if pair is None or other is None or len(pair[0]) != len(other[truth.names[0]]):
            raise DataError(differ)
        yield *pair, other


def _weights(s: Array, table: Table, name: str, first: int) -> Array:
    where = f"column {name!r} of {table.name}"
    if s.ndim == 2 and s.shape[1] == 1:
        s = s[:, 0]
    if s.ndim != 1 or s.dtype.kind not in "biuf":
        raise DataError(f"{where} holds no weights, which are one number per row")
    valid = (s >= 0) & (s < np.inf)
    if not valid.all():
        n = int(np.argmin(valid))
        raise DataError(f"{where}, row {first + n + 1}: {s[n]} is no weight; weights are finite and not negative")
    return s


class _Truth:
    """The labels or targets of a table.

    Attributes:
        names: their columns.
        as_text: those that are wanted as the file has them.
        unknown: whether a label so far was no class.
    """

    def __init__(self, model: Model, table: Table, names: list[str]) -> None:
        there = {column.name: column for column in table.columns}
        missing = [name for name in names if name not in there]
        if missing or not names:
            known = listed(list(there))
            what = f"no column {' and no column '.join(map(repr, missing))}" if missing else "no target named"
            raise DataError(f"{table.name} has {what}; its columns: {known}; name the target with --target")
        self.names, self.unknown = names, False
        one = table.name if len(there) == 1 else f"column {names[0]!r} of {table.name}"  # a .npy file names no column
        self._where = one if len(names) == 1 else f"the targets in {table.name}"
        self._codes = ClassCodes(model.classes) if model.task == "classification" else None
        self.as_text = names if self._codes else []
        self._rows = 0
        columns = [there[name] for name in names]
        K = 1 if self._codes else len(model.targets)
        if width(columns) != K:
            what = "label" if self._codes else f"target{'s' * (K > 1)}"
            raise DataError(f"{self._where}: the model has {K} {what} a row, and there are {width(columns)}")
        if self._codes is None and any(column.kind == "text" for column in columns):
            raise DataError(f"{self._where}: they are text, and the model predicts numbers")

    def of(self, block: Block) -> Array:
        """Codes (n,), or targets (n, K)."""
        if self._codes:
            codes = self._codes.of(block[self.names[0]], self._where)
            self.unknown = self.unknown or bool((codes < 0).any())
            return codes
        T = stacked([block[name] for name in self.names])
        if not np.isfinite(T).all():
            n = int(np.argmin(np.isfinite(T).all(1)))
            raise DataError(f"{self._where}, row {self._rows + n + 1}: a target is missing or infinite")
        self._rows += len(T)
        return T

    def finish(self) -> None:
        """Raise `DataError` for the labels that are no class."""
        if self._codes:
            self._codes.refuse_unknown(self._where)
