"""What `prepare` refuses: the fact, the column, the row, the line to type."""

from __future__ import annotations

import numpy as np
import pytest

from xwb import DataError, OptionError
from xwb.data import open_table
from xwb.training import _parts as parts
from xwb.training._prepare import prepare

CSV = "a,b,city,label\n1,2,x,0\n3,4,y,1\n5,6,z,0\n7,8,x,1\n9,0,x,1\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    return path


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, DataError, "features are numbers, and city holds text; leave it out:  --features a,b$"),
        ({"features": ["b", "city"]}, DataError, "city holds text; leave it out:  --features b$"),
        ({"features": ["city"]}, DataError, "city holds text; no column is left"),
        (
            {"features": ["a", "B"]},
            DataError,
            r"--features: .* has no column 'B' \(did you mean b\?\); its columns: a, b",
        ),
        ({"features": ["a", "a"]}, OptionError, "--features names 'a' twice"),
        ({"features": ["a", "label"]}, OptionError, "--features names 'label', which is the target"),
        ({"features": []}, DataError, "has no column left for the features"),
        ({"target": "lable"}, DataError, r"--target: .* has no column 'lable' \(did you mean label\?\)"),
        ({"target": "none.npy"}, DataError, "cannot read none.npy: no such file"),
        ({"features": "a", "weights": "w"}, DataError, "--weights: .* has no column 'w'"),
        ({"features": "a", "weights": "city"}, DataError, "--weights: the column city holds no numbers"),
        ({"features": "a", "weights": ["a", "b"]}, DataError, "--weights takes one column with a value per row"),
        ({"features": "a", "groups": "g"}, DataError, "--groups: .* has no column 'g'"),
        ({"features": "a", "groups": np.ones((5, 2))}, DataError, "--groups takes one column with a value per row"),
        ({"features": "a", "groups": "label"}, OptionError, "a column has one role; the target, .* are label, label"),
        ({"features": "a", "class_weight": "more"}, OptionError, "--class-weight is balanced or nothing"),
        (
            {"features": "a", "class_weight": "balanced", "task": "regression"},
            OptionError,
            "--class-weight balanced is for classes, and the task is regression",
        ),
    ],
)
def test_roles(table, options, error, message):
    with pytest.raises(error, match=message):
        prepare(table, **({"target": "label", "holdout": 0} | options))


def test_only_numbers_are_chosen_by_default(table):
    with prepare(table, "city", holdout=0) as data:
        assert data.feature_names == ["a", "b", "label"]
    with prepare(table, "label", groups="city", weights="b", holdout=0) as data:
        assert data.feature_names == ["a"]


def test_several_matrices(tmp_path):
    np.savez(tmp_path / "a.npz", A=np.ones((4, 2)), B=np.ones((4, 3)), C=np.ones((4, 2, 2)), y=np.arange(4) % 2)
    with pytest.raises(DataError, match=r"A \(width 2\), B \(width 3\); choose, for instance  --features A"):
        prepare(tmp_path / "a.npz", "y")
    with pytest.raises(DataError, match=r"--features: 'C' of .* cannot be read as a column: it has the shape"):
        prepare(tmp_path / "a.npz", "y", features=["C"])
    with prepare(tmp_path / "a.npz", "y", features=["B"], holdout=0) as data:
        assert data.feature_names == ["B[0]", "B[1]", "B[2]"]


@pytest.mark.parametrize("standard", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("holdout", [0, 0.5])
def test_a_feature_that_is_not_finite(monkeypatch, value, standard, holdout):
    monkeypatch.setattr(parts, "BLOCK", 64)
    X, y = np.random.default_rng(0).standard_normal((500, 3)), np.arange(500) % 2
    for row in (0, 430, 431, 432, 433):  # in either part
        bad = X.copy()
        bad[row, 1] = value
        with pytest.raises(
            DataError, match=rf"the array X, row {row + 1}: the feature X\[1\] is {value}; leave the row"
        ):
            prepare(bad, y, standardise=standard, holdout=holdout)


def test_a_missing_cell(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,label\n1,2,0\n3,,1\n5,6,0\n")
    with pytest.raises(DataError, match=r"a\.csv, row 2: the feature b is nan; leave the row out, or write a number"):
        prepare(tmp_path / "a.csv", "label", holdout=0)


def test_numbers_that_are_too_large():
    y = np.arange(10) % 2
    X = np.arange(20.0).reshape(10, 2)
    X[3, 1] = -1e39
    with pytest.raises(DataError, match=r"row 4: the feature X\[1\] is -1e\+39; float32 cannot hold it; standardise"):
        prepare(X, y, standardise=False)
    prepare(X, y)
    X[3, 1] = 1e200
    with pytest.raises(DataError, match=r"the feature X\[1\] has numbers so large that their squares overflow; divide"):
        prepare(X, y, holdout=0)
    X[3, 1] = 1
    test = X.copy()
    test[7, 0] = 1e100
    with pytest.raises(DataError, match=r"row 8: the feature X\[0\] is 1e\+100; it is so far from the other rows"):
        prepare(X, y, test=(test, y))


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_weights_that_are_none(monkeypatch, weight):
    monkeypatch.setattr(parts, "BLOCK", 64)
    weights = np.ones(100)
    weights[70] = weight
    with pytest.raises(DataError, match=f"row 71: weights are finite and not negative; this is {weight}"):
        prepare(np.zeros((100, 1)), np.arange(100) % 2, weights=weights)


def test_weights_that_are_all_0():
    with pytest.raises(DataError, match="the weights of all training rows are 0; some must be positive"):
        prepare(np.zeros((10, 1)), np.arange(10) % 2, weights=np.zeros(10))
    X, y = np.arange(10.0)[:, None], np.arange(10) % 2
    held = np.zeros(10)
    with prepare(X, y, standardise=False) as data:
        held[[int(x) for block in data.parts["train"].blocks() for x in block.X[:, 0]]] = 1
    with pytest.raises(DataError, match="the weights of all validation rows are 0"):
        prepare(X, y, weights=held)


def test_different_numbers_of_rows(table, tmp_path):
    with pytest.raises(DataError, match="--target: the array y has 3 rows, and the array X has 4"):
        prepare(np.zeros((4, 1)), np.arange(3))
    for rows in (4, 6):
        np.save(tmp_path / "y.npy", np.arange(rows) % 2)
        with pytest.raises(DataError, match=rf"different numbers of rows: .*a.csv has 5 and .*y.npy has {rows}"):
            prepare(table, tmp_path / "y.npy", features=["a"], holdout=0)


def test_a_target_of_several_columns_beside(tmp_path):
    with pytest.raises(DataError, match=r"--target takes a column, a \.npy file or an array"):
        prepare(np.zeros((4, 1)), open_table(_npz(tmp_path)))


def _npz(folder):
    np.savez(folder / "y.npz", a=np.arange(4), b=np.arange(4))
    return folder / "y.npz"


def test_tests_that_do_not_fit(table, tmp_path):
    options = {"features": ["a", "b"], "holdout": 0}
    other = tmp_path / "b.csv"
    other.write_text("b,label\n1,0\n")
    with pytest.raises(DataError, match=r"b\.csv lacks 1 of the 2 columns that the model .*: a; its columns: b, l"):
        prepare(table, "label", test=other, **options)
    other.write_text("b,a\n1,0\n")
    with pytest.raises(DataError, match=r"--test: .*b\.csv has no column 'label'"):
        prepare(table, "label", test=other, **options)
    other.write_text("b,a,label\n1,x,0\n")
    with pytest.raises(DataError, match=r"column 'a' of .*b\.csv is text, and the model reads numbers"):
        prepare(table, "label", test=other, **options)
    other.write_text("b,a,label\n1,1,7\n")
    with pytest.raises(DataError, match=r"b\.csv: the target label has labels .* is: '7'; the classes are 0, 1"):
        prepare(table, "label", test=other, **options)
    other.write_text("b,a,label\n")
    with pytest.raises(DataError, match=r"b\.csv has no rows"):
        prepare(table, "label", test=other, **options)
    with pytest.raises(OptionError, match="--test takes features and targets, two files or arrays"):
        prepare(np.zeros((4, 1)), np.arange(4) % 2, test=np.zeros((4, 1)), holdout=0)
    np.savez(tmp_path / "c.npz", x=np.ones(4), y=np.ones((4, 2)))
    np.savez(tmp_path / "d.npz", x=np.ones(4), y=np.ones(4))
    with pytest.raises(DataError, match="--test: y is a number, and the target is a matrix of width 2"):
        prepare(tmp_path / "c.npz", "y", test=tmp_path / "d.npz", holdout=0)


def test_weights_of_the_test_table(tmp_path):
    for name, columns in (("a", "a,w,label"), ("b", "label,w,a"), ("c", "label,a")):
        rows = [{"a": str(i), "w": str(i + 1), "label": str(i % 2)} for i in range(6)]
        lines = [",".join(row[column] for column in columns.split(",")) for row in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join([columns, *lines]))
    options = {"weights": "w", "holdout": 0}
    with prepare(tmp_path / "a.csv", "label", test=tmp_path / "b.csv", **options) as data:
        assert data.parts["test"].weight == 21
    with prepare(tmp_path / "a.csv", "label", test=tmp_path / "c.csv", **options) as data:
        assert data.parts["test"].weight == 6
        assert "the test rows have no weights, and count 1 each" in data.notes
