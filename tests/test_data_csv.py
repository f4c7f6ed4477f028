"""``.csv`` and ``.tsv`` against Python's csv module, and every mistake with its line."""

from __future__ import annotations

import csv
import gzip
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _tables import whole
from xwb import DataError
from xwb.data import Column, open_table
from xwb.data import _csv as module


@pytest.fixture
def made(tmp_path):
    def make(text, name="a.csv"):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return open_table(tmp_path / name)

    return make


def _all(table, **options):
    found = whole(table, [column.name for column in table.columns], **options)
    return {name: array.tolist() for name, array in found.items()}


KINDS = "n,b,t\n1,true,x\n-2.5e3,FALSE, y \n0,True,3\n"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_kinds_line_ends_and_marks(made, name, end, mark):
    table = made(mark + KINDS.replace("\n", end), name)
    assert table.columns == (Column("n", "number"), Column("b", "boolean"), Column("t", "text"))
    assert table.rows is None
    assert _all(table) == {"n": [1.0, -2500.0, 0.0], "b": [True, False, True], "t": ["x", "y", "3"]}
    assert _all(table, as_text=["n", "b"]) == {
        "n": ["1", "-2.5e3", "0"],
        "b": ["true", "FALSE", "True"],
        "t": ["x", "y", "3"],
    }


def test_tabs_and_semicolons(made):
    assert _all(made("a\tb,c\n1\t2\n", "a.tsv")) == {"a": [1.0], "b,c": [2.0]}
    assert _all(made("a\tb\n1\t2\n", "a.tsv.gz")) == {"a": [1.0], "b": [2.0]}
    assert _all(made("a;b\n1;x,y\n")) == {"a": [1.0], "b": ["x,y"]}
    assert _all(made('"a,b";c\n1;2\n')) == {"a,b": [1.0], "c": [2.0]}
    assert _all(made("a;b,c\n1,2\n")) == {"a;b": [1.0], "c": [2.0]}


def test_quotes(made):
    text = '"a ""1""","b,c"\n"1","x,\ny"\n\n 2 ,"he said ""no"""\n3,5" pipe\n'
    assert _all(made(text)) == {'a "1"': [1.0, 2.0, 3.0], "b,c": ["x,\ny", 'he said "no"', '5" pipe']}


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("1,2.5\n3,4\n", ["0", "1"], [1.0, 2.5]),
        ("1,,nan\n3,4,5\n", ["0", "1", "2"], [1.0, np.nan, np.nan]),
        ("7\n8\n", ["0"], [7.0]),
        ("1,x\n3,4\n", ["1", "x"], [3.0, 4.0]),
        (",x\n3,4\n", ["", "x"], [3.0, 4.0]),
        ("0,1\n3,4\n", ["0", "1"], [0.0, 1.0]),
        ("0,1,2\n3,4,5\n", ["0", "1", "2"], [3.0, 4.0, 5.0]),  # as pandas writes an array
    ],
)
def test_a_first_line_of_numbers_is_a_row(made, text, names, first):
    table = made("\n" + text)
    assert [column.name for column in table.columns] == names
    np.testing.assert_array_equal([column[0] for column in _all(table).values()], first)


def test_missing_numbers(made):
    table = made("a,b,c\n1,,x\nNA,2,\n 3 , ,y\n")
    assert [column.kind for column in table.columns] == ["number", "number", "text"]
    found = _all(table)
    np.testing.assert_array_equal(found["a"], [1, np.nan, 3])
    np.testing.assert_array_equal(found["b"], [np.nan, 2, np.nan])
    assert found["c"] == ["x", "", "y"]
    assert made("a,b\n,1\n").columns[0].kind == "number"


@pytest.mark.parametrize("cell", ["1_000", "１２", "0x10", "1,5", "1 2", "--1", "None"])
def test_what_is_no_number(made, cell):
    for extra in ("1,1", '"1",1'):  # by either reader
        assert made(f'a,b\n{extra}\n"{cell}",2\n').columns[0].kind == "text"


@pytest.mark.parametrize(("odd", "kind"), [(1, "number"), (4, "number"), (5, "text"), (50, "text")])
def test_a_few_odd_cells_are_mistakes_and_many_are_text(tmp_path, odd, kind):
    """Of 45 that are not missing."""
    cells = ["12.5"] * (50 - 5 - odd) + ["?"] * odd + ["", "NA", "", "", ""]
    file = tmp_path / "a.csv"
    file.write_text("id,income\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    table = open_table(file)
    assert table.columns[1].kind == kind
    if kind == "number":
        with pytest.raises(DataError, match=rf"line {52 - 5 - odd}, column income: '\?' is no number; write one, "):
            list(table.blocks(["income"], 10))


@pytest.mark.parametrize("cell", ["1_000", "１２", "0x10", "1 2", "abc"])
@pytest.mark.parametrize("other", ["7", '"7"', ""])
def test_a_later_cell_that_is_no_number(made, monkeypatch, cell, other):
    monkeypatch.setattr(module, "CHARACTERS", 10)
    table = made("".join(["age,b\n", *["1,2\n"] * 40, "\n", f"{cell},{other}\n"]))
    assert table.columns[0].kind == "number"
    with pytest.raises(DataError) as error:
        whole(table, ["b", "age"])
    assert str(error.value).endswith(
        f"a.csv, line 43, column age: {cell!r} is no number; write one, or leave the column out"
    )
    assert whole(table, ["age"], as_text=["age"])["age"][-1] == cell


def test_the_line_of_a_mistake_below_cells_of_many_lines(made, monkeypatch):
    monkeypatch.setattr(module, "CHARACTERS", 30)
    table = made('t,n,b\n"x\ny",1,true\n\n"a\n\n\nb",2,false\n"c\nd",3,false\nx,1,maybe\n')
    assert table.columns[2].kind == "boolean"
    with pytest.raises(DataError, match=r"line 11, column b: 'maybe' is neither true nor false"):
        whole(table, ["b"])


@pytest.mark.parametrize(("row", "size"), [("1,2,3", 3), ("1", 1), ('"1",2,3', 3), ("1,2,", 3)])
def test_rows_with_too_few_and_too_many_cells(made, monkeypatch, row, size):
    monkeypatch.setattr(module, "CHARACTERS", 10)
    table = made("a,b\n" + "1,2\n" * 40 + row + "\n1,2\n")
    for names in (["a"], ["b", "a"]):
        with pytest.raises(DataError, match=rf"a\.csv, line 42: it has {size} cells, and there are 2 columns"):
            whole(table, names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv is empty; its first line would name the columns"),
        ("\n \n", r"a\.csv is empty"),
        ("a,b,a,c,c\n1,2,3,4,5\n", "two columns have the same name: 'a', 'c'"),
        ("a,b\n1\n", "line 2: it has 1 cells, and there are 2 columns"),
        ('a,b\n1,"2\n3,4\n', "line 2: unexpected end of data"),
        ('a,b\n1,"2"x\n', "line 2: ',' expected after '\"'"),
        ('a,"b\n', "the names of the columns cannot be read: unexpected end of data"),
        ("a,b\n1," + "x" * 200_000, r"line 2: field larger than field limit"),
        (b"a,b\n1,\xff\n", r"a\.csv is no UTF-8 text \(there is a byte 0xff\); save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), r"is no UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(made, text, message):
    with pytest.raises(DataError, match=message) as error:
        _all(made(text))
    assert "\n" not in str(error.value)


def test_a_header_without_rows(made):
    table = made("a,b\n\n")
    assert table.rows == 0
    assert list(table.blocks(["a"], 3)) == []


@pytest.mark.parametrize("place", [0, 3, 0.2, 0.5, 0.9, -6, -2])
def test_gzip_damaged(tmp_path, place):
    data = bytearray(gzip.compress(("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(2000))).encode()))
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 0x5A
    (tmp_path / "a.csv.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.csv"):
        _all(open_table(tmp_path / "a.csv.gz"))


def test_gzip_cut_short(tmp_path):
    data = gzip.compress(("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(2000))).encode())
    (tmp_path / "a.csv.gz").write_bytes(data[:-20])
    with pytest.raises(DataError, match=r"a\.csv\.gz is damaged or cut short: Compressed file ended"):
        _all(open_table(tmp_path / "a.csv.gz"))


def test_files_with_the_columns_in_another_order(made, tmp_path):
    made("z,a\n,\n", "0.csv")
    made("a,z\n", "1.csv")
    made("a,z\n1,A1\n", "2.csv")
    made("z,a\n22,2\n", "3.csv")
    (tmp_path / "0.csv").unlink()
    assert _all(open_table(tmp_path)) == {"a": [1.0, 2.0], "z": ["A1", "22"]}  # the first with rows decides the kinds
    made("z,a\n22,x\n", "4.csv")
    with pytest.raises(DataError, match=r"4\.csv, line 2, column a: 'x' is no number"):
        _all(open_table(tmp_path))
    made("z,b\n22,x\n", "4.csv")
    with pytest.raises(DataError, match=r"4\.csv has no column 'a', and .*2\.csv has"):
        open_table(tmp_path)


TEXTS = st.text(st.sampled_from(list('ab",; \n\r\tü1')), max_size=6)
NUMBERS = st.floats(allow_nan=False).map(repr) | st.sampled_from(["", "NA", " 7 ", "+1e5"])


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXTS, NUMBERS, NUMBERS), min_size=1, max_size=12),
    block=st.integers(1, 13),
    characters=st.integers(1, 60),
    # csv.writer quotes a lone \r only where lines end with one.
    style=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
def test_what_csv_writes_is_read(tmp_path_factory, rows, block, characters, style, suffix):
    path = tmp_path_factory.mktemp("csv") / f"a{suffix}"
    stream = io.StringIO()
    end, quoting = style
    writer = csv.writer(stream, lineterminator=end, quoting=quoting, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writerows([("text", "n", "m"), *rows])
    path.write_bytes(stream.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        table = open_table(path)
        patch.setattr(module, "CHARACTERS", characters)
        found = whole(table, ["m", "text", "n"], block, ["text"])
    assert found["text"].tolist() == [row[0].strip() for row in rows]
    for name, place in (("n", 1), ("m", 2)):
        expected = [float(row[place]) if row[place] not in ("", "NA") else np.nan for row in rows]
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("quote", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_many_rows_are_numbers_to_the_last_bit(made, quote):
    X = np.random.default_rng(0).standard_normal((3000, 40)) * 10.0 ** np.arange(-20, 20)
    stream = io.StringIO()
    csv.writer(stream, quoting=quote).writerows([[f"c{i}" for i in range(40)], *X.tolist()])
    table = made(stream.getvalue())
    found = whole(table, [column.name for column in table.columns], 256)
    np.testing.assert_array_equal(np.column_stack(list(found.values())), X)
