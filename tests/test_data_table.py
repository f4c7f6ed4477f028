"""What holds for every table: names, blocks of one size, many passes, several files, files that change."""

from __future__ import annotations

import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _tables import whole
from xwb import DataError, OptionError
from xwb.data import SUFFIXES, ArrayTable, Column, open_table
from xwb.data._base import rebatched

ROWS = 23


def _parquet(path, X, y):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"X": pa.array(X.tolist(), pa.list_(pa.float64())), "y": y}), path, row_group_size=5)


def _safetensors(path, X, y):
    from safetensors.numpy import save_file

    save_file({"X": X, "y": y}, path)


def _csv(path, X, y):
    lines = ["a,b,y", *(f"{float(row[0])!r},{float(row[1])!r},{label}" for row, label in zip(X, y, strict=True))]
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _tsv(path, X, y):
    lines = ["a\tb\ty", *(f"{float(row[0])!r}\t{float(row[1])!r}\t{label}" for row, label in zip(X, y, strict=True))]
    path.write_text("\n".join(lines))


def _svm(path, X, y):
    lines = [f"{label} 1:{float(row[0])!r} 2:{float(row[1])!r}" for row, label in zip(X, y, strict=True)]
    path.write_text("\n".join(lines))


WRITERS = {
    ".npy": lambda path, X, y: np.save(path, X),
    ".npz": lambda path, X, y: np.savez(path, X=X, y=y),
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".csv": _csv,
    ".csv.gz": _csv,
    ".tsv": _tsv,
    ".svm": _svm,
}
EVERY = pytest.mark.parametrize("suffix", list(WRITERS))


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    return rng.standard_normal((ROWS, 2)), rng.integers(0, 9, ROWS)


def _written(folder, suffix, data, name="t"):
    path = folder / f"{name}{suffix}"
    WRITERS[suffix](path, *data)
    return path


def _features(found):
    return np.column_stack([found["a"], found["b"]]) if "a" in found else found.get("X", found.get("features"))


@EVERY
@pytest.mark.parametrize("rows", [1, 5, ROWS - 1, ROWS, 10**12])
def test_every_format_gives_the_rows_in_blocks_of_any_size(tmp_path, data, suffix, rows):
    table = open_table(_written(tmp_path, suffix, data))
    assert table.rows in (ROWS, None if "sv" in suffix and suffix != ".svm" else ROWS)
    found = whole(table, [column.name for column in table.columns], rows)
    np.testing.assert_array_equal(_features(found), data[0].astype(_features(found).dtype))
    label = found.get("y", found.get("label"))
    assert label is None or label.tolist() == data[1].tolist()


@EVERY
def test_two_iterations_by_turns(tmp_path, data, suffix):
    table = open_table(_written(tmp_path, suffix, data))
    name = table.columns[0].name
    expected = whole(table, [name], ROWS)[name]
    one, two = table.blocks([name], 4), table.blocks([name], 3)
    np.testing.assert_array_equal(next(one)[name], expected[:4])
    np.testing.assert_array_equal(next(two)[name], expected[:3])
    np.testing.assert_array_equal(next(one)[name], expected[4:8])
    np.testing.assert_array_equal(next(two)[name], expected[3:6])
    for gone in (one, two):
        gone.close()


@EVERY
def test_an_abandoned_iteration_closes_its_files(tmp_path, data, suffix):
    table = open_table(_written(tmp_path, suffix, data))
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return
    before = len(list(descriptors.iterdir()))
    blocks = table.blocks([table.columns[0].name], 2)
    next(blocks)
    assert len(list(descriptors.iterdir())) > before
    blocks.close()
    assert len(list(descriptors.iterdir())) == before


@EVERY
def test_a_file_changed_between_two_passes(tmp_path, data, suffix):
    path = _written(tmp_path, suffix, data)
    table = open_table(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"was changed since it was opened; open it again"):
        next(table.blocks([table.columns[0].name], 2))


@EVERY
def test_a_file_changed_during_a_pass(tmp_path, data, suffix):
    path = _written(tmp_path, suffix, data)
    table = open_table(path)
    blocks = table.blocks([table.columns[0].name], 2)
    next(blocks)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"was changed while it was read"):
        list(blocks)


@EVERY
def test_several_files_are_one_table(tmp_path, data, suffix):
    X, y = data
    for name, part in (("a", slice(0, 9)), ("b", slice(9, 10)), ("c", slice(10, None))):
        _written(tmp_path, suffix, (X[part], y[part]), name)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".a.csv").touch()
    (tmp_path / "notes.md").touch()
    table = open_table(tmp_path)
    assert table.name == f"the folder {tmp_path}"
    names = [column.name for column in table.columns]
    for rows in (1, 4, 100):
        found = whole(table, names, rows)
        np.testing.assert_array_equal(_features(found), X.astype(_features(found).dtype))
    paths = [tmp_path / f"{name}{suffix}" for name in "ba"]
    table = open_table(paths)
    assert table.name == f"{paths[0]} and 1 more"
    found = _features(whole(table, names))
    np.testing.assert_array_equal(found, np.concatenate([X[9:10], X[:9]]).astype(found.dtype))


@EVERY
def test_unknown_columns(tmp_path, data, suffix):
    table = open_table(_written(tmp_path, suffix, data))
    name = table.columns[-1].name
    with pytest.raises(DataError, match=rf"has no column '{name}{name}'.* its columns: {table.columns[0].name}"):
        table.blocks([name, name * 2], 5)


def test_a_near_name_is_proposed_and_many_are_shortened():
    table = ArrayTable({f"column{i}": np.zeros(3) for i in range(30)})
    with pytest.raises(DataError) as error:
        table.blocks(["Column7"], 1)
    assert str(error.value) == (
        "arrays in memory has no column 'Column7' (did you mean column7?); its columns: column0, column1, column2, "
        "column3, column4, column5, column6, column7, … and 22 more"
    )
    with pytest.raises(DataError, match="no column 'x'"):
        table.blocks(["column1"], 1, as_text=["x"])


@pytest.mark.parametrize(("names", "rows"), [([], 3), (["X"], 0)])
def test_no_names_and_no_rows(names, rows):
    with pytest.raises(OptionError, match="at least one name and one row"):
        ArrayTable({"X": np.zeros(3)}).blocks(names, rows)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 12))
def test_rebatched_from_chunks_of_any_sizes(sizes, rows):
    ends = np.cumsum([0, *sizes])
    buffer = np.empty((9, 2), np.int64)

    def chunks():
        for start, stop in itertools.pairwise(ends):
            buffer[: stop - start] = np.arange(2 * start, 2 * stop).reshape(-1, 2)  # overwritten by the next
            yield {"a": buffer[: stop - start]}

    found = [block["a"].copy() for block in rebatched(chunks(), rows)]
    assert [len(block) for block in found[:-1]] == [rows] * (len(found) - 1)
    assert not found or 0 < len(found[-1]) <= rows
    assert [x for block in found for x in block.ravel()] == list(range(2 * ends[-1]))


def test_arrays_in_memory():
    arrays = {
        "X": np.arange(12.0).reshape(6, 2).T.copy().T,
        "y": np.array(list("abcabc")),
        "b": np.arange(6) > 2,
        "s": np.array([b"x", "ü".encode()] * 3),
        "t": np.array(["one", "two", ""] * 2, np.dtypes.StringDType()),
    }
    table = ArrayTable(arrays)
    assert table.columns == (
        Column("X", "number", 2),
        Column("y", "text"),
        Column("b", "boolean"),
        Column("s", "text"),
        Column("t", "text"),
    )
    assert table.rows == 6
    found = whole(table, list(arrays), 4)
    assert found.pop("s").tolist() == ["x", "ü"] * 3
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has at least one; this one has none"),
        ({"X": np.zeros((2, 3, 4))}, r"the array 'X' cannot be a column: it has the shape \(2, 3, 4\)"),
        ({"X": np.zeros(())}, r"it has the shape \(\)"),
        ({"X": np.zeros(3, complex)}, "it has the dtype complex128; columns are numbers, booleans or text"),
        ({"X": np.array([None])}, "it holds Python objects, which are not loaded"),
        ({"X": np.zeros(3), "y": np.zeros(2)}, "the same number of rows; y has 2 and X has 3"),
    ],
)
def test_arrays_that_are_no_columns(arrays, message):
    with pytest.raises(DataError, match=message):
        ArrayTable(arrays)


def test_bytes_that_are_no_text():
    with pytest.raises(DataError, match="the array 's' holds bytes that are no UTF-8 text"):
        next(ArrayTable({"s": np.array([b"\xff"])}).blocks(["s"], 1))


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.npy").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.npy").mkdir()
    for source, message in [
        (tmp_path / "c.csv", r"cannot read .*c\.csv: no such file"),
        (tmp_path / "c.txt", rf"c\.txt has no known suffix.*: {', '.join(SUFFIXES)}"),
        (tmp_path / "c.cvs", r"has no known suffix \(did you mean \.csv\?\)"),
        (tmp_path / "c", r"/c has no known suffix: "),
        (tmp_path / "empty", rf"the folder .* has no file with a known suffix: {', '.join(SUFFIXES)}"),
        (tmp_path, r"one format; .*a\.csv and .*b\.npy have two"),
        ([], "the list of files is empty"),
        ([tmp_path / "folder.npy", tmp_path / "b.npy"], r"cannot read .*folder\.npy: it is no file"),
    ]:
        with pytest.raises(DataError, match=message) as error:
            open_table(source)
        assert "\n" not in str(error.value)


def test_a_path_may_be_a_string_and_its_suffix_in_capitals(tmp_path):
    (tmp_path / "A.CSV").write_text("x\n1\n")
    assert open_table(str(tmp_path / "A.CSV")).columns == (Column("x", "number"),)


def test_files_whose_columns_differ(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((3, 2)), y=np.zeros(3))
    for arrays, message in [
        ({"X": np.zeros((3, 2))}, r"b\.npz has no column 'y', and .*a\.npz has"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3), "z": np.zeros(3)}, r"b\.npz has a column 'z', and .*a\.npz has not"),
        ({"X": np.zeros((3, 4)), "y": np.zeros(3)}, r"'X' is number of width 4 in .*b\.npz and number of width 2 in"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3, bool)}, r"'y' is boolean in .*b\.npz and number in .*a\.npz"),
    ]:
        np.savez(tmp_path / "b.npz", **arrays)
        with pytest.raises(DataError, match=message):
            open_table(tmp_path)
    np.savez(tmp_path / "b.npz", X=np.zeros((0, 5)), y=np.zeros(0))  # without rows, whatever its width
    assert open_table(tmp_path).rows == 3
