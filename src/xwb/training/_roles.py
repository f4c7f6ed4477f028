"""Which column is what: features, target, weights, groups, and a model's features; and columns side by side."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core import Array, DataError, OptionError, listed, unknown
from ..data import ArrayTable, Block, Column, FileTable, Table, open_table


class Field(NamedTuple):
    """One column, and the table that it is in."""

    table: Table
    column: Column


class Renamed:
    """A table of one column, under another name; a `Table`."""

    def __init__(self, table: Table, column: str) -> None:
        self._table, self.name, self.rows = table, table.name, table.rows
        self.columns: tuple[Column, ...] = (table.columns[0]._replace(name=column),)

    def blocks(self, names: Sequence[str], rows: int, as_text: Collection[str] = ()) -> Iterator[Block]:
        """As `Table.blocks`."""
        own = self._table.columns[0].name
        for block in self._table.blocks([own], rows, [own] if as_text else []):
            yield dict.fromkeys(names, block[own])


class Roles(NamedTuple):
    """The columns that are used."""

    features: tuple[Field, ...]
    target: tuple[Field, ...]
    weights: Field | None
    groups: Field | None


def as_table(source: Any, name: str) -> Table:
    """A path, several, a table, or an array, which becomes the column ``name``."""
    if hasattr(source, "blocks") and hasattr(source, "columns"):
        table: Table = source
        return table
    if _is_path(source) or (isinstance(source, list | tuple) and source and all(map(_is_path, source))):
        return open_table(source)
    return ArrayTable({name: np.asarray(source)}, f"the array {name}")


def find_roles(table: Table, target: Any, features: Any, weights: Any, groups: Any) -> Roles:
    """The columns for each role; what is no column of ``table`` is a ``.npy`` file or an array beside it.

    Raises:
        DataError: a column is not there, is text where numbers are needed, has two roles, or a choice must be made.
    """
    beside = _fields(table, target, "y", "--target")
    single = {"--weights": _fields(table, weights, "weights", "--weights") if weights is not None else ()}
    single["--groups"] = _fields(table, groups, "groups", "--groups") if groups is not None else ()
    for option, found in single.items():
        if len(found) > 1 or any(field.column.width is not None for field in found):
            raise DataError(f"{option} takes one column with a value per row")
    if any(field.column.kind != "number" for field in single["--weights"]):
        raise DataError(f"--weights: the column {single['--weights'][0].column.name} holds no numbers")
    others = [field.column.name for field in (*beside, *sum(single.values(), ())) if field.table is table]
    taken = set(others)
    if len(taken) < len(others):
        raise OptionError(f"a column has one role; the target, the weights and the groups are {listed(others)}")
    chosen = _default_features(table, taken) if features is None else _named_features(table, features, taken)
    return Roles(chosen, beside, *((found or (None,))[0] for found in single.values()))


def matched(table: Table, wanted: Sequence[Column]) -> tuple[Field, ...]:
    """The columns of ``table`` that are ``wanted``, in that order.

    They are found by their names, wherever they stand. Where no name is there, the one matrix of the right width is
    taken: an array in a ``.npy`` file has no name of its own. Features that a libsvm file lacks at its end are 0.

    Raises:
        DataError: columns are missing, or have another width or text; or no name is there and several would fit.
    """
    table = table.like(wanted) if isinstance(table, FileTable) else table
    there = {column.name: column for column in table.columns}
    if not any(column.name in there for column in wanted):
        fits = _by_width(width(wanted), table)
        if len(fits) == 1:
            return (Field(table, fits[0]),)
        if fits:
            raise DataError(
                f"{table.name} has several columns that could be the model's {listed([c.name for c in wanted])}: "
                f"{listed([c.name for c in fits])}, each of width {width(wanted)}; give one of them that name"
            )
    missing = [column.name for column in wanted if column.name not in there]
    if missing:
        raise _lacking(missing, wanted, table)
    for column in wanted:
        _check_fit(column, there[column.name], table)
    return tuple(Field(table, there[column.name]) for column in wanted)


def matched_targets(table: Table, columns: Sequence[Column]) -> tuple[Field, ...]:
    """The target's columns in a test table, by name and width; the labels themselves are checked later.

    Raises:
        DataError: one is missing, or has another width.
    """
    fields = tuple(Field(table, _column(table, column.name, "--test")) for column in columns)
    for field, column in zip(fields, columns, strict=True):
        if field.column.width != column.width:
            raise DataError(f"--test: {column.name} is {_said(field.column)}, and the target is {_said(column)}")
    return fields


def read(fields: Sequence[Field], rows: int, as_text: Sequence[Field] = ()) -> Iterator[list[Array]]:
    """The columns side by side, ``rows`` rows at a time, whatever tables they are in; views as `Table.blocks` gives.

    Raises:
        DataError: the tables have different numbers of rows.
    """
    tables = {id(field.table): field.table for field in fields}
    readers = []
    for key, table in tables.items():
        names = dict.fromkeys(field.column.name for field in fields if id(field.table) == key)
        texts = {field.column.name for field in as_text if id(field.table) == key}
        readers.append(table.blocks(list(names), rows, texts))
    start = 0
    for blocks in zip_longest(*readers):
        sizes = [0 if block is None else len(next(iter(block.values()))) for block in blocks]
        if len(set(sizes)) > 1:
            said = [f"{table.name} has {start + size:,}" for table, size in zip(tables.values(), sizes, strict=True)]
            at_least = " or more" if max(sizes) == rows else ""
            raise DataError(f"features and targets have different numbers of rows: {' and '.join(said)}{at_least}")
        by_table = dict(zip(tables, blocks, strict=True))
        yield [by_table[id(field.table)][field.column.name] for field in fields]
        start += sizes[0]


def stacked(arrays: Sequence[Array]) -> Array:
    """Columns (n,) and (n, width) as one array (n, D), of their own dtype where they share it, else float64."""
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return arrays[0]
    dtypes = {array.dtype for array in arrays}
    wide = [array.reshape(len(array), -1) if array.ndim == 1 else array for array in arrays]
    out = np.empty((len(wide[0]), sum(a.shape[1] for a in wide)), dtypes.pop() if len(dtypes) == 1 else np.float64)
    at = 0
    for array in wide:
        out[:, at : at + array.shape[1]] = array
        at += array.shape[1]
    return out


def width(columns: Sequence[Column]) -> int:
    """How many numbers a row of the columns has."""
    return sum(1 if column.width is None else column.width for column in columns)


def scalar_names(columns: Sequence[Column]) -> list[str]:
    """A name for each number of a row: that of the column, or ``name[i]`` in a matrix."""
    names: list[str] = []
    for name, _, width in columns:
        names += [name] if width is None else [f"{name}[{i}]" for i in range(width)]
    return names


def _is_path(one: Any) -> bool:
    return isinstance(one, str | os.PathLike)


def _fields(table: Table, spec: Any, name: str, option: str) -> tuple[Field, ...]:
    """The columns of ``table`` that ``spec`` names, or the one column of what it is: a file, or an array ``name``."""
    there = {column.name for column in table.columns}
    if isinstance(spec, str) and (spec in there or not spec.lower().endswith(".npy")):
        spec = [spec]
    if isinstance(spec, list | tuple) and len(spec) == 1 and isinstance(spec[0], str) and spec[0] not in there:
        several = [one.strip() for one in spec[0].split(",")]  # a name may have a comma in it
        spec = several if len(several) > 1 and there & set(several) else spec
    if isinstance(spec, list | tuple) and spec and all(isinstance(one, str) for one in spec):
        return tuple(Field(table, _column(table, one, option)) for one in spec)
    other = as_table(spec, name)
    if len(other.columns) != 1:
        raise DataError(f"{option} takes a column, a .npy file or an array; {other.name} has columns of its own")
    if other.rows is not None and table.rows is not None and other.rows != table.rows:
        raise DataError(f"{option}: {other.name} has {other.rows:,} rows, and {table.name} has {table.rows:,}")
    if isinstance(spec, str | os.PathLike) and Path(spec).suffix.lower() == ".npy":
        other = Renamed(other, Path(spec).stem)  # its column has no name of its own
    return (Field(other, other.columns[0]),)


def _by_width(D: int, table: Table) -> list[Column]:
    matrices = [column for column in table.columns if column.width == D]
    if D == 1 and len(table.columns) == 1:  # numbers without a second axis are a matrix of width 1
        matrices = list(table.columns)
    return [column for column in matrices if column.kind != "text"]


def _lacking(missing: Sequence[str], wanted: Sequence[Column], table: Table) -> DataError:
    refused = getattr(table, "refused", {})
    why = "".join(f"; {name!r} cannot be read as a column: {refused[name]}" for name in missing if name in refused)
    known = [column.name for column in table.columns]
    near = unknown(missing[0], known) if len(missing) == 1 else ""
    D = width(wanted)
    return DataError(
        f"{table.name} lacks {len(missing)} of the {len(wanted)} columns that the model reads "
        f"({D} feature{'s' * (D > 1)}): {listed(missing)}{near}{why}; its columns: {listed(known)}"
    )


def _check_fit(wanted: Column, found: Column, table: Table) -> None:
    if found.kind == "text":
        raise DataError(f"column {wanted.name!r} of {table.name} is text, and the model reads numbers there")
    if width([found]) != width([wanted]):
        raise DataError(
            f"column {wanted.name!r} of {table.name} has the width {width([found])}, "
            f"and the model reads {width([wanted])} features there"
        )


def _column(table: Table, name: str, option: str) -> Column:
    for column in table.columns:
        if column.name == name:
            return column
    refused = getattr(table, "refused", {})
    if name in refused:
        raise DataError(f"{option}: {name!r} of {table.name} cannot be read as a column: {refused[name]}")
    known = [column.name for column in table.columns]
    raise DataError(
        f"{option}: {table.name} has no column {name!r}{unknown(name, known)}; its columns: {listed(known)}"
    )


def _default_features(table: Table, taken: set[str]) -> tuple[Field, ...]:
    rest = [column for column in table.columns if column.name not in taken]
    _refuse_text(table, rest)
    matrices = [f"{column.name} (width {column.width})" for column in rest if column.width is not None]
    if len(matrices) > 1:
        first = next(column.name for column in rest if column.width is not None)
        raise DataError(
            f"{table.name} has several matrices that could be the features: {listed(matrices)}; "
            f"choose, for instance  --features {first}"
        )
    return _some(table, rest)


def _named_features(table: Table, names: Any, taken: set[str]) -> tuple[Field, ...]:
    names = [names] if isinstance(names, str) else list(map(str, names))
    columns = [_column(table, name, "--features") for name in names]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"--features names {name!r} twice")
        if name in taken:
            raise OptionError(f"--features names {name!r}, which is the target, the weights or the groups")
    _refuse_text(table, columns)
    return _some(table, columns)


def _refuse_text(table: Table, columns: Sequence[Column]) -> None:
    texts = [column.name for column in columns if column.kind == "text"]
    if texts:
        rest = ",".join(column.name for column in columns if column.kind != "text")
        line = f"leave {'it' if len(texts) == 1 else 'them'} out:  --features {rest}" if rest else "no column is left"
        verb = "holds" if len(texts) == 1 else "hold"
        raise DataError(f"{table.name}: features are numbers, and {listed(texts)} {verb} text; {line}")


def _some(table: Table, columns: Sequence[Column]) -> tuple[Field, ...]:
    if not width(columns):
        raise DataError(f"{table.name} has no column left for the features")
    return tuple(Field(table, column) for column in columns)


def _said(column: Column) -> str:
    return f"a {column.kind}" if column.width is None else f"a matrix of width {column.width}"
