"""Files made ready for training: split, standardised, coded, and stored in memory or on disk, in passes over blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core import Array, DataError, OptionError, listed
from ..data import Column
from ._labels import check_labels, survey
from ._parts import Layout
from ._passes import Fingerprint, Reader, Recipe, Source, Sums, add_up, pack
from ._roles import Roles, as_table, find_roles, matched, matched_targets
from ._rows import Part
from ._split import check_holdout, choose
from ._storage import Storage

UNEVEN = 100  # times as many rows of one class as of another, which is worth a note


@dataclass
class Prepared:
    """Data ready for training, and how it was made. Close it, or use it in a ``with``, to give the disk back.

    Attributes:
        parts: "train", and where asked for "validation" and "test".
        features: the columns used, in order.
        feature_names: D names, ``name[i]`` for the numbers of a matrix.
        task: "classification" or "regression".
        classes: the labels by code, sorted; empty for regression.
        targets: the name of the target, or of each of several.
        class_counts: rows of each class, by part; empty for regression.
        weighted: whether the examples have weights of their own.
        class_weights: (K,) what ``class_weight`` multiplied the weights by, or None.
        mean, scale: (D,) float64; a feature is (x − mean)/scale.
        fingerprint: SHA-256 of the values as they were read, whatever file and blocks they came in.
        own_fingerprint: the same without the test rows.
        notes: what a reader of the results should know, a sentence each.
        streamed: whether the parts are on disk.
        dtypes: of each column of features, as read.
    """

    parts: dict[str, Part]
    features: tuple[Column, ...]
    feature_names: list[str]
    task: str
    classes: list[Any]
    targets: list[str]
    class_counts: dict[str, list[int]]
    weighted: bool
    class_weights: Array | None
    mean: Array
    scale: Array
    fingerprint: str
    own_fingerprint: str
    notes: list[str]
    streamed: bool
    dtypes: dict[str, str]
    _storage: Storage = field(repr=False)

    def close(self) -> None:
        """Remove the scratch file, if there is one; its parts cannot be read any more."""
        self._storage.close()

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prepare(
    source: Any,
    target: Any,
    *,
    features: Sequence[str] | None = None,
    weights: Any = None,
    groups: Any = None,
    task: str | None = None,
    test: Any = None,
    holdout: float = 0.2,
    seed: int = 0,
    standardise: bool = True,
    class_weight: str | None = None,
    memory: int | None = None,
    scratch: Any = None,
    working: Callable[[str, int, int, int], int] | None = None,
) -> Prepared:
    """Make a table ready for training linear heads; its rows are never all in memory unless they fit in the budget.

    Args:
        source: what `xwb.data.open_table` takes, or an array X (N, D).
        target: a column, several as a list or "A,B" (regression), a ``.npy`` file, or an array y (N,) or (N, K).
        features: columns; None for every column of numbers or booleans that is nothing else.
        weights: a column of weights, or an array (N,).
        groups: a column, or an array (N,), whose equal values are never split.
        task: "classification", "regression", or None: text, booleans and integers are classes, and so are floats that
            are all whole, of at most 100 values with at least 10 rows each on average. More than 100 integers with
            fewer rows each may be either: the task has to be said.
        test: a table with the same columns; a pair (X, y) where ``target`` is no column.
        holdout: the fraction that is held out for validation, of each class where there are no groups.
        seed: of that draw.
        standardise: features have mean 0 and standard deviation 1 over the training rows.
        class_weight: "balanced" makes all classes of the training part weigh the same.
        memory: bytes for the whole process; None for half of what is available.
        scratch: the folder for what does not fit; None for the system's.
        working: from the task, rows of a part, D and K, the bytes that training takes beside the data.

    Raises:
        OptionError: an option that contradicts another or does not exist, or ``memory`` is too little for ``working``.
        DataError: the data cannot be read, or not learnt from: the row, the column and what to do.
    """
    holdout, seed = check_holdout(holdout, seed)
    if class_weight not in (None, "balanced"):
        raise OptionError(f"--class-weight is balanced or nothing; this is {class_weight!r}")
    table = as_table(source, "X")
    roles = find_roles(table, target, features, weights, groups)
    targets = survey(roles.target, task)
    if class_weight and not targets.classes:
        raise OptionError("--class-weight balanced is for classes, and the task is regression")
    data = Source(roles, targets, choose(targets.counts, roles.groups, holdout, seed))
    tested = None if test is None else _test_source(data, target, test)
    layout = _layout(data, class_weight)
    sizes, outputs = _sizes(data, tested), len(targets.classes) or len(targets.names)
    needed = working(targets.task, max(sizes.values()), layout.features, outputs) if working else 0
    storage = Storage(layout, sizes, memory, scratch, needed)
    try:
        reader = Reader(data, layout.block, storage.room)
        sums = add_up(data, reader.first())
        factors = _balanced(data, sums) if class_weight else None
        D = layout.features
        mean, scale = (sums.moments.mean, sums.moments.scale) if standardise else (np.zeros(D), np.ones(D))
        recipe = Recipe(mean, scale, factors, layout.weighted, standardise)
        parts, own, whole = _packed(reader, data, tested, recipe, storage)
    except BaseException:
        storage.close()
        raise
    return Prepared(
        parts=parts,
        features=tuple(field.column for field in roles.features),
        feature_names=data.features,
        task=targets.task,
        classes=targets.classes,
        targets=targets.names,
        class_counts=_class_counts(data, tested, sums),
        weighted=roles.weights is not None,
        class_weights=factors,
        mean=mean,
        scale=scale,
        fingerprint=whole,
        own_fingerprint=own,
        notes=_notes(data, tested, sums, storage, factors is not None),
        streamed=storage.streamed,
        dtypes=dict(zip((field.column.name for field in roles.features), sums.dtypes, strict=True)),
        _storage=storage,
    )


def _test_source(data: Source, target: Any, test: Any) -> Source:
    """The test table with the columns of the training data, its labels checked."""
    beside = data.roles.target[0].table is not data.roles.features[0].table
    if beside and not (isinstance(test, tuple) and len(test) == 2):
        raise OptionError("--test takes features and targets, two files or arrays, where --target is no column")
    table = as_table(test[0] if beside else test, "X")
    features = matched(table, [field.column for field in data.roles.features])
    if beside:
        fields = find_roles(table, test[1], [field.column.name for field in features], None, None).target
    else:
        fields = matched_targets(table, [field.column for field in data.roles.target])
    weights = data.roles.weights
    named = weights is not None and weights.column.name in {column.name for column in table.columns}
    roles = Roles(features, fields, matched(table, [weights.column])[0] if weights and named else None, None)
    return Source(roles, check_labels(fields, data.targets), None)


def _layout(data: Source, class_weight: str | None) -> Layout:
    weighted = data.roles.weights is not None or class_weight is not None
    return Layout(len(data.features), None if data.targets.classes else len(data.targets.names), weighted)


def _sizes(data: Source, tested: Source | None) -> dict[str, int]:
    assert data.holdout is not None
    held = data.holdout.rows
    sizes = {"train": data.targets.rows - held} | ({"validation": held} if held else {})
    return sizes | ({"test": tested.targets.rows} if tested else {})


def _balanced(data: Source, sums: Sums) -> Array:
    """(K,) N/(K n_c), of weights of the training part."""
    absent = [label for label, total in zip(data.targets.classes, sums.totals, strict=True) if not total]
    if absent:
        raise DataError(f"--class-weight balanced: no training row with a weight is of the class {listed(absent)}")
    factors: Array = sums.weight / (len(sums.totals) * sums.totals)
    return factors


def _packed(
    reader: Reader, data: Source, tested: Source | None, recipe: Recipe, storage: Storage
) -> tuple[dict[str, Part], str, str]:
    """The parts, and the fingerprint without the test rows and with them."""
    fingerprint = Fingerprint()
    writers = {name: storage.writer(name) for name in _sizes(data, tested)}
    test = writers.pop("test", None)
    pack(data, reader.second(), recipe, list(writers.values()), fingerprint)
    own = fingerprint.hexdigest()
    if tested is not None and test is not None:
        pack(tested, tested.blocks(reader.rows), recipe, [test], fingerprint)
        writers["test"] = test
    parts: dict[str, Part] = {name: writer.finish() for name, writer in writers.items()}
    empty = [name for name, part in parts.items() if not part.weight]
    if empty:
        raise DataError(f"{data.name}: the weights of all {listed(empty)} rows are 0; some must be positive")
    return parts, own, fingerprint.hexdigest()


def _class_counts(data: Source, tested: Source | None, sums: Sums) -> dict[str, list[int]]:
    if not data.targets.classes:
        return {}
    counts = {"train": sums.counts[0].tolist(), "validation": sums.counts[1].tolist()}
    if tested is not None:
        counts["test"] = tested.targets.counts.tolist()
    return {name: counts[name] for name in _sizes(data, tested)}


def _notes(data: Source, tested: Source | None, sums: Sums, storage: Storage, balanced: bool) -> list[str]:
    notes = [f"{data.targets.task}, {data.targets.reason}"]
    constant = np.flatnonzero(sums.moments.constant)
    if len(constant):
        notes.append(
            f"{len(constant):,} of {len(data.features):,} features have one value in all training rows: "
            f"{listed([data.features[place] for place in constant])}"
        )
    absent = [label for label, n in zip(data.targets.classes, sums.counts[0], strict=False) if not n]
    if absent:
        notes.append(f"no training row is of the class {listed(absent)}")
    unseen = [label for label, n in zip(data.targets.classes, sums.counts[1], strict=False) if not n]
    if 0 < len(unseen) < len(data.targets.classes):  # all of them where nothing is held out
        notes.append(f"no validation row is of the class {listed(unseen)}")
    if (counts := sums.counts[0][sums.counts[0] > 0]).size and counts.max() >= UNEVEN * counts.min() and not balanced:
        rarest = data.targets.classes[int(np.flatnonzero(sums.counts[0] == counts.min())[0])]
        notes.append(
            f"the class {rarest} has {counts.min():,} of {counts.sum():,} training rows; --class-weight balanced makes "
            "all classes weigh the same"
        )
    if data.roles.weights and tested is not None and tested.roles.weights is None:
        notes.append("the test rows have no weights, and count 1 each")
    if storage.streamed:
        notes.append(f"the prepared data, {storage.bytes / 1e6:,.3g} MB, does not fit in memory and is read from disk")
    return notes
