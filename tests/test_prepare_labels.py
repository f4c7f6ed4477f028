"""Targets: which are classes, what the classes are, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from xwb import DataError, OptionError
from xwb.training import _labels as labels
from xwb.training._prepare import prepare


def _csv(path, texts):
    path.write_text("x,label\n" + "\n".join(f"{i},{text}" for i, text in enumerate(texts)) + "\n")
    return path


def _codes(data):
    return np.concatenate([block.y.copy() for block in data.parts["train"].blocks()])


CASES = {
    "integers": (["10", "9", "-1", "10"], [-1, 9, 10]),
    "large integers": ([str(2**70), "0", str(2**70), str(-(2**65))], [-(2**65), 0, 2**70]),
    "padded with zeros": (["007", "7", "007", "12"], ["007", "12", "7"]),
    "booleans": (["True", "false", "TRUE", "False"], [False, True]),
    "whole floats": (["1.0", "0.0", "1.0", "0.0"] * 5, [0, 1]),
    "signed": (["+1", "-1", "+1", "-1"] * 5, [-1, 1]),
    "text": (["b", "a", "é", "b"], ["a", "b", "é"]),
    "text and numbers": (["1e3", "True", "abc", "007"], ["007", "1e3", "True", "abc"]),
    "numbers and booleans": (["1", "True", "1", "0"], ["0", "1", "True"]),
}


@pytest.mark.parametrize("case", CASES)
def test_classes_of_a_csv_file(tmp_path, case):
    texts, classes = CASES[case]
    with prepare(_csv(tmp_path / "a.csv", texts), "label", holdout=0) as data:
        assert data.task == "classification"
        assert data.classes == classes
        assert [type(one) for one in data.classes] == [type(one) for one in classes]
        named = [data.classes[code] for code in _codes(data)]
        kind = type(classes[0])
        read = {int: lambda t: int(t.removesuffix(".0")), bool: lambda t: t.lower() == "true", str: str}[kind]
        assert named == [read(text) for text in texts]
        assert data.class_counts["train"] == [named.count(one) for one in classes]


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array([3, -2, 3], np.int8), [-2, 3]),
        (np.array([2**64 - 1, 0, 7], np.uint64), [0, 7, 2**64 - 1]),
        (np.array([1.0, 0, 1, 0] * 5), [0, 1]),
        (np.array([True, False]), [False, True]),
        (np.array(["b", "007", "b"]), ["007", "b"]),
        (np.array(["10", "9"]), ["10", "9"]),  # text that says so is text
        (np.array([b"b", b"a"]), ["a", "b"]),
    ],
)
def test_classes_of_an_array(y, classes):
    with prepare(np.arange(len(y))[:, None], y, holdout=0) as data:
        assert data.classes == classes
        assert [type(one) for one in data.classes] == [type(one) for one in classes]
        kind = type(classes[0])
        expected = [one.decode() if isinstance(one, bytes) else kind(one) for one in y.tolist()]
        assert [data.classes[code] for code in _codes(data)] == expected


FLOATS = {
    "fractions": ([0.5, 1, 1, 1, 1], "regression"),
    "10 rows of each": ([0, 1] + [1] * 18, "classification"),
    "fewer": ([0, 1] + [1] * 17, "regression"),
    "100": ([*range(100)] * 10, "classification"),
    "101": ([*range(101)] * 20, "regression"),
}


@pytest.mark.parametrize("form", ["array", "csv"])
@pytest.mark.parametrize("case", FLOATS)
def test_the_task_of_floats(tmp_path, case, form):
    values, task = FLOATS[case]
    values = [float(value) for value in values]
    source = _csv(tmp_path / "a.csv", values) if form == "csv" else np.arange(len(values))[:, None]
    with prepare(source, "label" if form == "csv" else np.array(values), holdout=0) as data:
        assert data.task == task
        assert data.notes[0].startswith(f"{task}, since the target ")
        other = {"regression": "--task classification", "classification": "--task regression"}[task]
        assert (other in data.notes[0]) == (case != "fractions")
        if task == "regression":
            np.testing.assert_array_equal(_codes(data)[:, 0], values)


def test_many_integers_of_few_rows_may_be_either(tmp_path):
    values = list(range(3000))
    for source, target in (
        (_csv(tmp_path / "a.csv", values), "label"),
        (np.arange(3000)[:, None], np.array(values)),
    ):
        with pytest.raises(DataError, match=r"3,000 different integers in 3,000 rows; .*  --task regression, .*"):
            prepare(source, target, holdout=0)
        with prepare(source, target, holdout=0, task="classification") as data:
            assert data.classes == values
        with prepare(source, target, holdout=0, task="regression") as data:
            np.testing.assert_array_equal(_codes(data)[:, 0], values)
    for rows, classes in ((1010, 101), (300, 100)):  # ten rows each, or no more than a hundred
        with prepare(np.zeros((rows, 1)), np.arange(rows) % classes, holdout=0) as data:
            assert len(data.classes) == classes


def test_booleans_as_numbers():
    with prepare(np.arange(4)[:, None], np.array([True, False, True, True]), task="regression", holdout=0) as data:
        np.testing.assert_array_equal(_codes(data), [[1.0], [0], [1], [1]])


def test_several_targets(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,a,b\n1,2,3\n4,5,6\n7,8,9\n")
    with prepare(path, ["b", "a"], holdout=0) as data:
        assert (data.task, data.targets, data.feature_names) == ("regression", ["b", "a"], ["x"])
        np.testing.assert_array_equal(_codes(data), [[3, 2], [6, 5], [9, 8]])
    with pytest.raises(DataError, match="--task classification takes one target"):
        prepare(path, ["b", "a"], task="classification")


@pytest.mark.parametrize("blank", ["", "NA", "nan", "NaN"])
def test_a_missing_label(tmp_path, blank):
    path = _csv(tmp_path / "a.csv", ["1", "2", blank, "1"])
    for task in (None, "classification"):
        with pytest.raises(DataError, match=r"a\.csv, row 3: the target label is missing; leave the row out"):
            prepare(path, "label", task=task)
    with pytest.raises(DataError, match=r"a\.csv, row 3: the target label is nan; leave the row out"):
        prepare(path, "label", task="regression")


def test_a_missing_label_of_text(tmp_path):
    with pytest.raises(DataError, match="row 2: the target label is missing"):
        prepare(_csv(tmp_path / "a.csv", ["a", "", "b"]), "label")
    with prepare(_csv(tmp_path / "b.csv", ["NA", "DE", "nan"]), "label", holdout=0) as data:  # Namibia
        assert data.classes == ["DE", "NA", "nan"]


def test_the_row_of_what_is_missing_counts_from_the_first_block():
    y = np.zeros(20_000)
    y[::2] = 1
    y[17_000] = np.nan
    with pytest.raises(DataError, match="row 17,001: the target y is missing"):
        prepare(np.zeros((20_000, 1)), y)
    y[17_000] = np.inf
    with pytest.raises(DataError, match="row 17,001: the target y is inf"):
        prepare(np.zeros((20_000, 1)), y, task="regression")
    Y = np.zeros((20_000, 2))
    Y[9000, 1] = -np.inf
    with pytest.raises(DataError, match=r"row 9,001: the target y\[1\] is -inf; leave the row out, or write the num"):
        prepare(np.zeros((20_000, 1)), Y)


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (np.ones(4, int), None, "has one class only, 1"),
        (np.array(["a"] * 4), None, "has one class only, 'a'"),
        (np.array([0.5, 1, 1, 1]), "classification", "has the value 0.5, and classes are text, integers or booleans"),
        (np.array([np.inf, 1, 1, 1]), "classification", "has the value inf, and classes are"),
        (np.array(["a", "b", "a", "b"]), "regression", "holds text, and regression takes numbers; .*--task classif"),
        (np.zeros((4, 2), int), "classification", "--task classification takes one target with a label per row"),
    ],
)
def test_targets_that_are_refused(y, task, message):
    with pytest.raises(DataError, match=message):
        prepare(np.arange(4)[:, None], y, task=task, holdout=0)


def test_a_task_that_is_none():
    with pytest.raises(OptionError, match="--task is classification or regression; this is 'ranking'"):
        prepare(np.zeros((4, 1)), np.arange(4), task="ranking")


def test_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n")
    for task in (None, "classification", "regression"):
        with pytest.raises(DataError, match="has no rows"):
            prepare(np.zeros((0, 2)), np.zeros(0, int), task=task)


def test_too_many_classes(monkeypatch):
    monkeypatch.setattr(labels, "MOST", 9)
    with pytest.raises(DataError, match=r"more than 9 different values, too many for classes.*--task regression"):
        prepare(np.zeros((10, 1)), np.arange(10))


@pytest.mark.parametrize(
    ("trained", "tested", "codes"),
    [
        (np.array([1, 5, 1]), np.array([5.0, 1.0]), [1, 0]),
        (np.array([1, 5, 1]), np.array(["5", "1"]), [1, 0]),
        (np.array(["1", "5"]), np.array([5, 1]), [1, 0]),
        (np.array([True, False]), np.array(["TRUE", "false"]), [1, 0]),
    ],
)
def test_test_labels_of_another_type(trained, tested, codes):
    X = np.arange(9)[:, None]
    with prepare(X[: len(trained)], trained, test=(X[: len(tested)], tested), holdout=0) as data:
        (block,) = data.parts["test"].blocks()
        np.testing.assert_array_equal(block.y, codes)
        assert data.class_counts["test"] == np.bincount(codes, minlength=2).tolist()


@pytest.mark.parametrize(
    ("trained", "tested", "message"),
    [
        (
            np.array([0, 1]),
            np.array([2, 1, 9]),
            "labels that no class of the training data is: 2, 9; the classes are 0, 1",
        ),
        (np.array([0, 1]), np.array([True, False]), "is: False, True; the classes are 0, 1"),
        (np.array([False, True]), np.array([0, 1]), "is: 0, 1; the classes are False, True"),
        (np.array([0, 1]), np.array(["01", "1"]), "is: '01'; the classes are 0, 1"),
        (np.array(["a", "b"]), np.array([0.5, 1]), r"is: 0\.5, 1\.0; the classes are 'a', 'b'"),
    ],
)
def test_test_labels_that_are_no_class(trained, tested, message):
    X = np.arange(9)[:, None]
    with pytest.raises(DataError, match=message):
        prepare(X[: len(trained)], trained, test=(X[: len(tested)], tested), holdout=0)


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (np.array([0, np.nan, 1]), None, r"labels\.npy, row 2: the target labels is missing"),
        (np.array([3, 3, 3]), None, r"labels\.npy: the target labels has one class only"),
        (np.array(["a", "b", "a"]), "regression", r"labels\.npy: the target labels holds text"),
        (np.array([[0, 1], [0, np.inf], [0, 2]]), None, r"labels\.npy, row 2: the target labels\[1\] is inf"),
    ],
)
def test_a_target_in_a_npy_file_is_called_as_the_file(tmp_path, y, task, message):
    np.save(tmp_path / "labels.npy", y)
    with pytest.raises(DataError, match=message):
        prepare(np.arange(3)[:, None], str(tmp_path / "labels.npy"), task=task, holdout=0)


def test_the_names_of_targets_in_a_npy_file(tmp_path):
    X = np.arange(4.0)[:, None]
    np.save(tmp_path / "price.npy", X + 0.5)
    with prepare(X, tmp_path / "price.npy", test=(X, tmp_path / "price.npy"), holdout=0) as data:
        assert data.targets == ["price[0]"]
    np.save(tmp_path / "strange.npy", np.array([0, 7]))
    np.save(tmp_path / "labels.npy", np.array([0, 1, 0, 1]))
    with pytest.raises(DataError, match=r"strange\.npy: the target strange has labels that no class .* is: 7"):
        prepare(X, tmp_path / "labels.npy", test=(X[:2], tmp_path / "strange.npy"), holdout=0)


@pytest.mark.parametrize("labels", [np.arange(60) % 3, np.arange(60) % 2 == 0, np.array(["a", "b"] * 30)])
def test_a_matrix_of_width_1_is_one_target(labels):
    with prepare(np.zeros((60, 2)), labels[:, None]) as tall, prepare(np.zeros((60, 2)), labels) as flat:
        assert tall.classes == flat.classes
        np.testing.assert_array_equal(_codes(tall), _codes(flat))
        assert tall.fingerprint == flat.fingerprint
