"""``.svm`` against scikit-learn, and every mistake with its line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from _tables import whole
from xwb import DataError
from xwb.data import Column, open_table
from xwb.data import _libsvm as module


@pytest.fixture
def made(tmp_path):
    def make(text, name="a.svm"):
        (tmp_path / name).write_text(text)
        return open_table(tmp_path / name)

    return make


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 15), st.integers(1, 8), st.booleans(), st.integers(1, 16), st.integers(1, 100), st.integers(0, 2**31)
)
def test_what_scikit_learn_writes_and_reads(tmp_path_factory, n, width, zero, rows, characters, seed):
    path = tmp_path_factory.mktemp("svm") / "a.libsvm"
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, width)) * (rng.random((n, width)) < 0.5)
    X[0, 0] = X[-1, -1] = 1  # or the file would tell another width, and another base
    dump_svmlight_file(X, rng.integers(-3, 3, n), str(path), zero_based=zero)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHARACTERS", characters)
        patch.setattr(module, "CHUNK", characters)
        table = open_table(path)
        name = "features_from_0" if zero else "features"
        assert table.columns == (Column("label", "number"), Column(name, "number", width))
        assert table.rows == n
        found = whole(table, [name, "label"], rows)
    expected, labels = load_svmlight_file(str(path), zero_based=zero)
    np.testing.assert_array_equal(found[name], expected.toarray().astype(np.float32))
    np.testing.assert_array_equal(found["label"], labels)


def test_comments_order_and_labels(made):
    table = made("# head\n+1 3:1 1:2.5e0  # note 7:8\n\n-1.50\n1   2:-4\r\n")
    found = whole(table, ["label", "features"])
    assert found["label"].tolist() == [1, -1.5, 1]
    assert found["features"].dtype == np.float32
    assert found["features"].tolist() == [[2.5, 0, 1], [0, 0, 0], [0, -4, 0]]
    assert whole(table, ["label"], as_text=["label"])["label"].tolist() == ["+1", "-1.50", "1"]
    table = made("cat 0:1\ndog 1:1\n")
    assert table.columns == (Column("label", "text"), Column("features_from_0", "number", 2))
    assert whole(table, ["label"])["label"].tolist() == ["cat", "dog"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2:1 qid:3 4:4", r"'qid:3' is for ranking, which xwb does not do"),
        ("1,2 2:1", r"the label '1,2' is several; a record has one"),
        ("3:1 4:1", r"it has no label before '3:1'"),
        ("1 2:1 2:1", r"it has index 2 twice"),
        ("1 5:1 2:1 5:3", r"it has index 5 twice"),
        ("1 2:x", r"'2:x' is no feature, which is written index:value"),
        ("1 2:NA", r"'2:NA' is no feature"),
        ("1 2:1_0", r"'2:1_0' is no feature"),
        ("1 x:2", r"'x:2' is no feature"),
        ("1 -1:2", r"'-1:2' is no feature"),
        ("1 1.0:2", r"'1.0:2' is no feature"),
        ("1 2:", r"'2:' is no feature"),
        ("1 2", r"'2' is no feature"),
        ("1 1:2:3 4", r"'1:2:3' is no feature"),
        ("1 2: 3", r"'2:' is no feature"),
        ("1 2147483648:3", r"the index 2147483648 is larger than 2147483647"),
        ("1 99999999999999999999999:3", r"the index 9+ is larger"),
    ],
)
def test_lines_that_are_no_records(made, monkeypatch, line, message):
    monkeypatch.setattr(module, "CHARACTERS", 12)
    with pytest.raises(DataError, match=r"a\.svm, line 8: " + message):
        made("1 1:1 2:2\n" * 6 + "#\n" + line + "\n1 1:1\n")


def test_files_share_their_width_and_their_base(made, tmp_path):
    made("1 1:1\n", "a.svm")
    made("2 3:3\n", "b.svm")
    assert whole(open_table(tmp_path), ["features"])["features"].tolist() == [[1, 0, 0], [0, 0, 3]]
    made("x 0:5\n", "c.libsvm")
    table = open_table(tmp_path)
    assert whole(table, ["features_from_0"])["features_from_0"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 3], [5, 0, 0, 0]]
    assert whole(table, ["label"])["label"].tolist() == ["1", "2", "x"]


def test_no_records(made):
    table = made("# nothing\n")
    assert table.rows == 0
    assert list(table.blocks(["label", "features"], 2)) == []


@pytest.mark.parametrize(
    ("text", "lowest", "width", "expected"),
    [
        ("1 2:5\n", 1, 2, [[0, 5]]),
        ("1 2:5\n", 1, 4, [[0, 5, 0, 0]]),
        ("1 2:5\n", 0, 4, [[0, 0, 5, 0]]),  # no feature of index 0 occurs, and none is shifted
        ("1 0:7 2:5\n", 0, 4, [[7, 0, 5, 0]]),
        ("1\n", 1, 2, [[0, 0]]),
    ],
)
def test_a_file_with_the_features_of_another(made, tmp_path, text, lowest, width, expected):
    name = ("features_from_0", "features")[lowest]
    wanted = [Column(name, "number", width)]
    table = made(text).like(wanted)
    assert table.columns[1:] == tuple(wanted)
    assert whole(table, [name])[name].tolist() == expected
    made(text, "b.svm")
    joined = open_table(tmp_path).like(wanted)
    assert whole(joined, [name])[name].tolist() == expected * 2
    assert joined.like(wanted) is joined
    assert table.like(wanted) is table


def test_features_that_another_file_has_not(made):
    with pytest.raises(DataError, match=r"a\.svm has a feature of index 3, and the model reads indices from 1 to 2"):
        made("1 3:5\n").like([Column("features", "number", 2)])
    with pytest.raises(DataError, match=r"a\.svm has a feature of index 0, and the model reads indices from 1 to 2"):
        made("1 0:5\n").like([Column("features", "number", 2)])
    table = made("1 3:5\n")
    assert table.like([Column("X", "number", 9)]) is table
