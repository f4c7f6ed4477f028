"""The passes over a table: rows with their codes, weights and lots; what they add up to; and how they are packed."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError
from ._labels import LARGE, Targets
from ._moments import Moments, standardise
from ._roles import Roles, read, scalar_names, stacked
from ._rows import Rows
from ._split import Holdout
from ._storage import Writer


class Raw(NamedTuple):
    """Some rows as they are read, borrowed until the next are."""

    start: int  # rows before them
    X: Array  # (n, D), of the file's type
    y: Array  # (n,) int32 codes, or (n, K) float64
    weight: Array | None  # (n,) float64
    held: Array | None  # (n,) bool: for validation; None for a table that is not split
    dtypes: list[str]  # of each column of features


class Source(NamedTuple):
    """A table, what its columns are, and how it is split."""

    roles: Roles
    targets: Targets
    holdout: Holdout | None

    @property
    def name(self) -> str:
        """As messages say it."""
        return self.roles.features[0].table.name

    @property
    def features(self) -> list[str]:
        """D names."""
        return scalar_names([field.column for field in self.roles.features])

    def blocks(self, rows: int) -> Iterator[Raw]:
        """All rows, from the first."""
        roles, targets = self.roles, self.targets
        D, K = len(roles.features), len(roles.target)
        extra = [field for field in (roles.weights, roles.groups) if field is not None]
        names = [field for field in (*targets.read_as_text(roles.target), roles.groups) if field is not None]
        lots = self.holdout.start() if self.holdout else None
        start = 0
        for arrays in read([*roles.features, *roles.target, *extra], rows, names):
            X = stacked(arrays[:D])
            y = targets.coded(arrays[D : D + K], roles.target, start)
            weight = self._weights(arrays[D + K], start) if roles.weights else None
            groups = arrays[-1] if roles.groups else y if targets.classes else np.zeros(len(y), np.intp)
            held = lots.mask(groups) if lots else None
            yield Raw(start, X, y, weight, held, [array.dtype.name for array in arrays[:D]])
            start += len(X)

    def _weights(self, values: Array, start: int) -> Array:
        weight = values.astype(np.float64)
        bad = ~((weight >= 0) & (weight < np.inf))
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"{self.name}, row {start + row + 1:,}: weights are finite and not negative; this is {weight[row]}"
            )
        if len(weight) and weight.max() > LARGE:
            row = int(weight.argmax())
            raise DataError(
                f"{self.name}, row {start + row + 1:,}: the weight is {weight[row]}, and only their ratios count; "
                "divide all by a power of 10"
            )
        return weight

    def refuse(self, raw: Raw, finite: Array, otherwise: str) -> None:
        """Raise for the first value that is not finite, (n, D) bool; ``otherwise`` says what the raw one makes."""
        bad = np.argwhere(~finite)
        if not len(bad):
            return
        row, place = bad[0].tolist()
        value = raw.X[row, place]
        fact = otherwise if np.isfinite(value) else "leave the row out, or write a number"
        raise DataError(
            f"{self.name}, row {raw.start + row + 1:,}: the feature {self.features[place]} is {value}; {fact}"
        )


class Reader:
    """All rows of a source twice; the second time from memory, where they fit in ``room`` bytes.

    Only rows that were put together from several columns: a single matrix is read again as fast as it is copied.
    """

    def __init__(self, source: Source, rows: int, room: int) -> None:
        self.rows, self._source, self._room = rows, source, room
        self._kept: deque[Raw] | None = deque() if len(source.roles.features) > 1 else None

    def first(self) -> Iterator[Raw]:
        """The rows as they are read."""
        for raw in self._source.blocks(self.rows):
            per_row = raw.X.nbytes // len(raw.X) + raw.y.nbytes // len(raw.y) + 16
            if per_row * self._source.targets.rows > self._room:
                self._kept = None
            if self._kept is not None:
                self._kept.append(raw)
            yield raw

    def second(self) -> Iterator[Raw]:
        """The same again; what was kept is let go as it is given."""
        if self._kept is None:
            yield from self._source.blocks(self.rows)
        while self._kept:
            yield self._kept.popleft()


class Sums(NamedTuple):
    """What the second pass tells."""

    moments: Moments  # of the features of the training rows
    counts: Array  # (2, K) rows of each class: train, validation; (2, 0) for regression
    totals: Array  # (K,) their weights in the training part
    weight: float  # of the training part
    dtypes: list[str]  # of each column of features


def add_up(source: Source, blocks: Iterator[Raw]) -> Sums:
    """The second pass, over ``blocks``.

    Raises:
        DataError: a feature of a training row is not finite, a weight is not right, or all weights are 0.
    """
    K = len(source.targets.classes)
    moments, counts = Moments(len(source.features)), np.zeros((2, K), np.int64)
    totals, weight, dtypes = np.zeros(K), 0.0, [""]
    for raw in blocks:
        train = np.ones(len(raw.X), np.bool_) if raw.held is None else ~raw.held
        X = raw.X if train.all() else raw.X[train]
        if not moments.add(X):
            source.refuse(raw, np.isfinite(raw.X), "")
            _refuse_large(source, moments)
        ones = train if raw.weight is None else raw.weight * train
        weight += float(ones.sum())
        if K:
            counts[0] += np.bincount(raw.y[train], minlength=K)
            counts[1] += np.bincount(raw.y[~train], minlength=K)
            totals += np.bincount(raw.y, ones, K)
        dtypes = raw.dtypes
    if not weight:
        raise DataError(f"{source.name}: the weights of all training rows are 0; some must be positive")
    return Sums(moments, counts, totals, weight, dtypes)


def _refuse_large(source: Source, moments: Moments) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        place = int(np.argmin(np.isfinite(moments.scale + moments.mean)))
    raise DataError(
        f"{source.name}: the feature {source.features[place]} has numbers so large that their squares overflow; "
        "divide it by a power of 10"
    )


class Fingerprint:
    """SHA-256 of features and targets as they are read; blocks of any size give the same."""

    def __init__(self) -> None:
        self._features, self._targets = hashlib.sha256(), hashlib.sha256()
        self._shapes: list[Any] = []
        self._rows = 0

    def add(self, raw: Raw) -> None:
        """The next rows."""
        self._features.update(np.ascontiguousarray(raw.X).data)
        self._targets.update(np.ascontiguousarray(raw.y).data)
        self._rows = raw.start + len(raw.X)

    def end(self, features: int, classes: list[Any]) -> None:
        """A table of D ``features`` is read to its end."""
        self._shapes.append([self._rows, features, classes])

    def hexdigest(self) -> str:
        """Of all so far."""
        parts = [self._features.hexdigest(), self._targets.hexdigest(), self._shapes]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Recipe(NamedTuple):
    """How a raw row becomes an example."""

    mean: Array  # (D,)
    scale: Array  # (D,)
    factors: Array | None  # (K,) of the weights of each class
    weighted: bool
    standardised: bool

    def rows(self, source: Source, raw: Raw) -> Rows:
        """The examples as they are stored.

        Raises:
            DataError: a feature is not finite, or float32 cannot hold it.
        """
        if self.standardised:
            X = standardise(raw.X, self.mean, self.scale)
            fact = "it is so far from the other rows that float32 cannot hold it standardised"
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                X = raw.X.astype(np.float32)
            fact = "float32 cannot hold it; standardise the features"
        finite = np.isfinite(X)
        if not finite.all():
            source.refuse(raw, finite, fact)
        weight = raw.weight
        if self.weighted:
            weight = np.ones(len(X)) if weight is None else weight
            weight = weight if self.factors is None else weight * self.factors[raw.y]
        return Rows(X, raw.y, weight if self.weighted else None)


def pack(
    source: Source, blocks: Iterator[Raw], recipe: Recipe, writers: list[Writer], fingerprint: Fingerprint
) -> None:
    """The third pass, over ``blocks``: training rows to the first writer, the others to the second, if there is one."""
    for raw in blocks:
        fingerprint.add(raw)
        examples = recipe.rows(source, raw)
        if raw.held is None or len(writers) == 1:
            writers[0].add(examples)
            continue
        for writer, mask in zip(writers, (~raw.held, raw.held), strict=True):
            weight = None if examples.weight is None else examples.weight[mask]
            writer.add(Rows(examples.X[mask], examples.y[mask], weight))
    fingerprint.end(len(source.features), source.targets.classes)
