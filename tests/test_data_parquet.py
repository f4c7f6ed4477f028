"""``.parquet`` against pyarrow's own whole reading, and damaged."""

from __future__ import annotations

import datetime
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from _tables import whole
from xwb import DataError
from xwb.data import Column, open_table
from xwb.data import _parquet as module

N = 25


@pytest.fixture
def made(tmp_path):
    def make(columns, **options):
        pq.write_table(
            columns if isinstance(columns, pa.Table) else pa.table(columns), tmp_path / "a.parquet", **options
        )
        return open_table(tmp_path / "a.parquet")

    return make


def _column(kind):
    values = np.random.default_rng(2).integers(0, 100, N)
    if pa.types.is_boolean(kind):
        return pa.array(values > 50)
    return pa.array(values).cast(pa.float32()).cast(kind) if kind == pa.float16() else pa.array(values).cast(kind)


SCALARS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
SCALARS += [pa.float16(), pa.float32(), pa.float64(), pa.bool_()]


@pytest.mark.parametrize("group", [1, 7, N])
def test_numbers_and_booleans_in_their_own_type(made, monkeypatch, group):
    monkeypatch.setattr(module, "VALUES", 50)
    columns = {str(kind): _column(kind) for kind in SCALARS}
    table = made(columns, row_group_size=group)
    assert table.rows == N
    assert table.columns == tuple(Column(name, "boolean" if name == "bool" else "number") for name in columns)
    for rows in (1, 4, N):
        for name, array in whole(table, list(columns), rows).items():
            expected = columns[name].to_numpy(zero_copy_only=False)
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


def test_strings(made):
    words = ["a", "ü", "", "long " * 20, None] * 5
    kinds = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    table = made({str(kind): pa.array(words, pa.string()).cast(kind) for kind in kinds}, row_group_size=7)
    for name, array in whole(table, [str(kind) for kind in kinds], 4).items():
        assert Column(name, "text") in table.columns
        assert array.tolist() == [word or "" for word in words]


@pytest.mark.parametrize("list_of", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3)])
@pytest.mark.parametrize("kind", [pa.int16(), pa.float16(), pa.float64()])
def test_lists_are_columns_of_a_width(made, list_of, kind):
    X = np.arange(3 * N).reshape(N, 3).astype(kind.to_pandas_dtype())
    table = made({"X": pa.array(list(X), list_of(kind))}, row_group_size=7)
    assert table.columns == (Column("X", "number", 3),)
    for rows in (1, 4, N):
        found = whole(table, ["X"], rows)["X"]
        assert found.dtype == X.dtype
        np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize("statistics", [True, False])
def test_missing_values(made, monkeypatch, statistics):
    monkeypatch.setattr(module, "VALUES", 3)
    columns = {
        "i": pa.array([1, 2, 3, 4, None, 6]),
        "j": pa.array([1, 2, 3, 4, 5, 2**60 + 1]),
        "f": pa.array([1, None, 3, 4, 5, 6], pa.float32()),
        "h": pa.array([1, None, 3, 4, 5, 6], pa.float32()).cast(pa.float16()),
        "d": pa.array([1, None, 3, 4, 5, 6]).dictionary_encode(),
        "X": pa.array([[1, 2], [3, 4], [5, None]] * 2),
        "F": pa.array([[1.0, 2], [3, None], [5, 6]] * 2),
    }
    table = made(columns, row_group_size=2, write_statistics=statistics)
    for rows in (1, 6):
        blocks = list(table.blocks(list(columns), rows))
        assert {name: array.dtype for name, array in blocks[0].items()} == {
            "i": np.float64, "j": np.int64, "f": np.float32, "h": np.float16,
            "d": np.float64, "X": np.float64, "F": np.float64,
        }  # fmt: skip
        found = whole(table, list(columns), rows)
        np.testing.assert_array_equal(found["i"], [1, 2, 3, 4, np.nan, 6])
        assert found["j"].tolist() == [1, 2, 3, 4, 5, 2**60 + 1]
        for name in "fhd":
            np.testing.assert_array_equal(found[name], [1, np.nan, 3, 4, 5, 6])
        np.testing.assert_array_equal(found["X"], [[1, 2], [3, 4], [5, np.nan]] * 2)
        np.testing.assert_array_equal(found["F"], [[1, 2], [3, np.nan], [5, 6]] * 2)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([True, False, False, None]), r"a\.parquet, row 4, column c: a boolean is missing"),
        (pa.array([[1, 2], [1, 2], None, [1, 2]]), r"row 3, column c: a list is missing"),
        (pa.array([[1, 2], [1, 2], None, [1, 2]], pa.list_(pa.int32(), 2)), r"row 3, column c: a list is missing"),
        (pa.array([[1, 2], [1, 2], [1], [1, 2, 3]]), r"row 3, column c: it has 1 numbers, and the first row has 2"),
        (pa.array([[], [1]]), r"row 2, column c: it has 1 numbers, and the first row has 0"),
    ],
)
def test_rows_that_cannot_be(made, monkeypatch, column, message):
    monkeypatch.setattr(module, "VALUES", 2)
    with pytest.raises(DataError, match=message):
        whole(made({"c": column}), ["c"], 1)


def test_types_that_are_no_columns(made):
    day = datetime.datetime(2020, 1, 1)
    columns = {
        "time": pa.array([day, day]),
        "money": pa.array([1, 2]).cast(pa.decimal128(30, 2)),
        "struct": pa.array([{"a": 1}, {"a": 2}]),
        "bytes": pa.array([b"a", b"b"]),
        "words": pa.array([["a"], ["b"]]),
        "nothing": pa.nulls(2),
        "late": pa.array([None, [1]]),
        "x": pa.array([1, 2]),
    }
    table = made(columns)
    assert table.columns == (Column("x", "number"),)
    for name, message in {"time": r"type timestamp\[us\]", "money": r"type decimal128\(30, 2\)"}.items():
        with pytest.raises(DataError, match=f"'{name}' cannot be read as a column: it has the {message}; columns are"):
            table.blocks([name], 1)
    with pytest.raises(DataError, match="its first row is missing, and would tell the width"):
        table.blocks(["late"], 1)
    assert set(table.refused) == set(columns) - {"x"}


def test_names_with_dots(made):
    table = made({"a": [1, 2], "a.b": [3.5, None], "c": pa.array([{"a": 1}] * 2)})
    found = whole(table, ["a", "a.b"])
    np.testing.assert_array_equal(found["a"], [1, 2])
    np.testing.assert_array_equal(found["a.b"], [3.5, np.nan])


def test_two_columns_of_one_name(made):
    with pytest.raises(DataError, match="two columns have the same name"):
        made(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]))


def test_no_rows(made):
    table = made({"a": pa.array([], pa.int64()), "X": pa.array([], pa.list_(pa.int8()))})
    assert table.rows == 0
    assert list(table.blocks(["a", "X"], 3)) == []


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_a_flipped_byte_of_a_page(made, tmp_path, compression):
    options = {"write_page_checksum": True, "use_dictionary": False, "compression": compression}
    table = made({"a": np.random.default_rng(0).standard_normal(1000)}, **options)
    path = tmp_path / "a.parquet"
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    table = open_table(path)
    with pytest.raises(DataError, match=r"a\.parquet is damaged or no Parquet file: .*"):
        whole(table, ["a"])


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 1000, b"PAR1" + b"x" * 1000 + b"PAR1"])
def test_what_is_no_parquet_file(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet is damaged or no Parquet file") as error:
        open_table(tmp_path / "a.parquet")
    assert "\n" not in str(error.value)


def test_a_file_cut_short(made, tmp_path):
    made({"a": np.arange(1000)})
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged or no Parquet file"):
        open_table(path)


def test_strings_that_are_no_text(made, tmp_path):
    made({"s": pa.array(["abcdefgh"])}, compression="none", use_dictionary=False, write_statistics=False)
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abc\xffefgh"))
    with pytest.raises(DataError, match=r"is damaged or no Parquet file: .*utf-8"):
        whole(open_table(path), ["s"])


def test_without_pyarrow(made, tmp_path, monkeypatch):
    made({"a": [1]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError) as error:
        open_table(tmp_path / "a.parquet")
    assert str(error.value) == 'Parquet files need pyarrow; type  pip install "xwb[parquet]"'


def test_a_file_that_is_gone(made, tmp_path):
    table = made({"a": [1]})
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.parquet: No such file"):
        next(table.blocks(["a"], 1))
