"""Streamed metrics against scikit-learn's on all rows at once, and what a terminal shows of them."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk

import xwb
from xwb.training._metric_lines import lines
from xwb.training._metrics import ClassificationMetrics
from xwb.training._regression_metrics import RegressionMetrics

# Two orders of summation of some hundred terms of the size of the result, with float64's unit roundoff of 1.1e-16; the
# absolute part is for means of terms that nearly vanish, such as −log p of a p near 1, where p itself is rounded.
CLOSE = {"rel": 1e-13, "abs": 1e-15}

each_weight = pytest.mark.parametrize("weighted", [False, True], ids=["rows", "weights"])
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def close(expected):
    return pytest.approx(expected, **CLOSE)


def weight_like(y, weighted):
    return np.random.default_rng(9).uniform(0.1, 3, len(y)) if weighted else None


def streamed(metrics, cuts, *arrays):
    """``metrics`` after the rows of the arrays (or None) in blocks that end at the cuts."""
    n = len(arrays[0])
    for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
        metrics.add(*(None if A is None else A[start:stop] for A in arrays))
    return metrics


def same(split, whole):
    """Counts, and what is made of counts, equal; what is made of rounded sums nearly."""
    assert split.keys() == whole.keys()
    for key, expected in whole.items():
        if isinstance(expected, dict):
            same(split[key], expected)
        elif isinstance(expected, list):
            assert len(split[key]) == len(expected)
            for one, other in zip(split[key], expected, strict=True):
                same(one, other)
        elif key in {"log_loss", "brier", "confidence", "expected_calibration_error", "r2", "mae", "rmse"}:
            assert split[key] == close(expected), key
        else:
            assert split[key] == expected, key
            assert type(split[key]) is type(expected)


# ------------------------------------------------------------------------------------------------------ classification


def examples(case):
    """Scores in float64 and labels."""
    rng = np.random.default_rng(3)
    n, K = {"two classes": (60, 2), "three": (60, 3), "many": (500, 300), "single row": (1, 8)}.get(case, (200, 8))
    scores, y = 2 * rng.standard_normal((n, K)), rng.integers(0, K, n)
    scores[np.arange(n), y] += 1
    if case == "one class":
        y[:] = 2
    elif case == "absent classes":  # 0 only labelled, 1 only predicted, 2 neither
        y[(y == 1) | (y == 2)] = 0
        scores[:, [0, 2]] = -9
    elif case == "tied":
        scores = np.round(scores / 3)
    elif case == "far apart":
        scores = np.where(scores > 1, 1e4, -1e4) + np.round(scores)
    return scores, y


CASES = ["two classes", "three", "eight", "many", "single row", "one class", "absent classes", "tied", "far apart"]
each_case = pytest.mark.parametrize("case", CASES)


@each_dtype
@each_weight
@each_case
def test_classification_agrees_with_scikit_learn(case, weighted, dtype):
    scores, y = examples(case)
    scores, weight = scores.astype(dtype), weight_like(y, weighted)
    K = scores.shape[1]
    predicted, given = scores.argmax(1), {"sample_weight": weight}
    metrics = streamed(ClassificationMetrics(K, probabilities=True), [len(y) // 3], scores, y, weight)
    result = metrics.result()

    assert result["rows"] == len(y)
    assert result["accuracy"] == close(sk.accuracy_score(y, predicted, **given))
    assert result["macro_f1"] == close(sk.f1_score(y, predicted, average="macro", **given))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        assert result["balanced_accuracy"] == close(sk.balanced_accuracy_score(y, predicted, **given))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        y, predicted, labels=np.arange(K), zero_division=np.nan, **given
    )
    for name, values in {"precision": precision, "recall": recall, "f1": f1, "support": support}.items():
        got = [math.nan if row[name] is None else row[name] for row in result["per_class"]]
        assert got == pytest.approx(values.tolist(), nan_ok=True, **CLOSE), name
    assert [row["class"] for row in result["per_class"]] == list(range(K))
    if K > 5:
        assert result["top5"] == close(sk.top_k_accuracy_score(y, scores, k=5, labels=np.arange(K), **given))
    else:
        assert "top5" not in result
    if K > 256:
        assert metrics.confusion is None
    else:
        expected = sk.confusion_matrix(y, predicted, labels=np.arange(K), **given)
        assert metrics.confusion.dtype == (np.float64 if weighted else np.int64)
        assert metrics.confusion.tolist() == [close(row) for row in expected.tolist()]


@each_dtype
@each_weight
@each_case
def test_probabilities_agree_with_scikit_learn_and_a_plain_softmax(case, weighted, dtype):
    scores, y = examples(case)
    scores, weight = scores.astype(dtype), weight_like(y, weighted)
    n, K = scores.shape
    result = streamed(ClassificationMetrics(K, probabilities=True), [n // 2], scores, y, weight).result()

    wide, onehot = scores.astype(np.float64), np.eye(K)[y]
    p = softmax(wide, axis=1)
    plain = np.average(-log_softmax(wide, axis=1)[np.arange(n), y], weights=weight)
    assert result["log_loss"] == close(plain)
    if case != "far apart":  # scikit-learn clips probabilities at 2e-16
        assert result["log_loss"] == close(sk.log_loss(y, p, labels=np.arange(K), sample_weight=weight))
    brier = np.average(((p - onehot) ** 2).sum(1), weights=weight)
    assert result["calibration"]["brier"] == close(brier)


def calibration_by_hand(p, y, weight):
    """The bins of Guo et al. 2017, row by row: (m − 1) / 15 < p ≤ m / 15."""
    bins = [[0.0, 0.0, 0.0] for _ in range(15)]
    for row, label, w in zip(p, y, weight, strict=True):
        m = next(m for m in range(1, 16) if row.max() <= m / 15)
        for i, x in enumerate((1, row.max(), row.argmax() == label)):
            bins[m - 1][i] += w * x
    total = sum(count for count, _, _ in bins)
    error = sum(count / total * abs(right / count - sure / count) for count, sure, right in bins if count)
    return error, [
        {"low": m / 15, "high": (m + 1) / 15, "count": count, "confidence": sure / count, "accuracy": right / count}
        for m, (count, sure, right) in enumerate(bins)
        if count
    ]


@each_weight
@each_case
def test_calibration_agrees_with_a_loop(case, weighted):
    scores, y = examples(case)
    weight = weight_like(y, weighted)
    result = streamed(ClassificationMetrics(scores.shape[1], probabilities=True), [1], scores, y, weight).result()
    p = softmax(scores, axis=1)
    if case == "tied":  # rows whose p is the largest several times, none of them on an edge
        assert (np.abs(p.max(1)[:, None] - np.arange(16) / 15) > 1e-9).all()
    error, bins = calibration_by_hand(p, y, np.ones(len(y)) if weight is None else weight)
    assert result["calibration"]["expected_calibration_error"] == close(error)
    assert result["calibration"]["bins"] == [close(one) for one in bins]


def test_the_edges_of_the_bins():
    """Equal scores of three classes have p = 5 / 15, the upper edge of a bin, and are predicted as the first."""
    metrics = ClassificationMetrics(3, probabilities=True)
    metrics.add(np.zeros((4, 3)), [0, 0, 0, 1])
    metrics.add(np.array([[-1e4, 1e4, 0]]), [1])
    low, high = metrics.result()["calibration"]["bins"]
    assert low == {"low": 4 / 15, "high": 5 / 15, "count": 4, "confidence": 1 / 3, "accuracy": 0.75}
    assert high == {"low": 14 / 15, "high": 1.0, "count": 1, "confidence": 1.0, "accuracy": 1.0}


def test_without_probabilities_nothing_is_said_of_them():
    scores, y = examples("eight")
    result = streamed(ClassificationMetrics(8, probabilities=False), [], scores, y).result()
    with_them = streamed(ClassificationMetrics(8, probabilities=True), [], scores, y).result()
    assert with_them.keys() - result.keys() == {"log_loss", "calibration"}
    assert result == {key: value for key, value in with_them.items() if key in result}
    assert "top5" not in ClassificationMetrics(5, probabilities=False).result()


cuts_of = st.lists(st.integers(0, 40), max_size=6).map(sorted)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), K=st.sampled_from([1, 2, 7, 257]), cuts=cuts_of, whole=st.booleans())
def test_blocks_change_no_count_and_sums_only_by_rounding(seed, K, cuts, whole):
    rng = np.random.default_rng(seed)
    scores, y = rng.standard_normal((40, K), dtype=np.float32) * 3, rng.integers(0, K, 40, dtype=np.int16)
    scores = np.round(scores) if whole else scores  # ties, and probabilities on the edges of bins
    one, other = (ClassificationMetrics(K, probabilities=True) for _ in range(2))
    one, other = streamed(one, [], scores, y), streamed(other, cuts, np.asfortranarray(scores), y)
    same(other.result(), one.result())
    assert np.array_equal(other.confusion, one.confusion) if K <= 256 else other.confusion is None


@pytest.mark.parametrize("K", [8, 300])
def test_a_row_of_weight_0_is_no_row_and_weight_2_is_two(K):
    rng = np.random.default_rng(5)
    scores, y = rng.standard_normal((50, K)), rng.integers(0, K, 50)
    weight = rng.integers(0, 3, 50)
    y[0], weight[0] = K - 1, 0
    weighted = streamed(ClassificationMetrics(K, probabilities=True), [7], scores, y, weight).result()
    again = np.repeat(np.arange(50), weight)
    repeated = streamed(ClassificationMetrics(K, probabilities=True), [], scores[again], y[again]).result()
    assert (weighted.pop("rows"), repeated.pop("rows")) == (50, len(again))
    for row in [*repeated["per_class"], *repeated["calibration"]["bins"]]:
        for name in row.keys() & {"support", "count"}:
            row[name] = float(row[name])
    same(weighted, repeated)


def test_a_block_without_weights_among_weighted_ones_counts_as_ones():
    scores, y = examples("eight")
    weight = weight_like(y, True)
    weight[:50] = 1
    mixed, given = (ClassificationMetrics(8, probabilities=True) for _ in range(2))
    mixed.add(scores[:50], y[:50])
    mixed.add(scores[50:], y[50:], weight[50:])
    same(mixed.result(), streamed(given, [50], scores, y, weight).result())


def test_nothing_is_undefined_in_json():
    empty = ClassificationMetrics(6, probabilities=True)
    empty.add(np.zeros((0, 6)), np.zeros(0, np.int64))
    empty.add(np.zeros((1, 6)), [0], [0.0])
    result = json.loads(json.dumps(empty.result(), allow_nan=False))
    assert result == empty.result()
    assert [result[name] for name in ("rows", "accuracy", "top5", "log_loss", "macro_f1")] == [
        1,
        None,
        None,
        None,
        None,
    ]
    assert result["calibration"] == {"expected_calibration_error": None, "bins": [], "brier": None}
    assert lines(result)[1] == "accuracy           –"

    ruled_out = ClassificationMetrics(2, probabilities=True)
    ruled_out.add(np.array([[0, -np.inf], [1e308, -1e308]]), [1, 1])
    result = json.loads(json.dumps(ruled_out.result(), allow_nan=False))
    assert (result["log_loss"], result["calibration"]["brier"]) == (None, 2.0)
    weighted = ClassificationMetrics(2, probabilities=True)
    weighted.add(np.array([[0, -np.inf], [0, 0]]), [1, 1], [0, 1])
    assert weighted.result()["log_loss"] == close(math.log(2))


def test_labels_of_a_small_integer_type_reach_many_classes():
    metrics = ClassificationMetrics(300, probabilities=False)
    metrics.add(np.eye(300, dtype=np.float32)[[7, 255]], np.array([7, 255], np.uint8))
    metrics.add(np.eye(300, dtype=np.float32)[[7]], np.array([7], np.int8))
    assert metrics.result()["accuracy"] == 1.0


def scores_with(value):
    scores = np.zeros((4, 3))
    scores[2, 1] = value
    return scores


Y = np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.zeros((4, 2)), Y), xwb.ShapeError, r"scores  \(4, 2\)   \[n, k\]   float64\n.*\(4,\).*\nThere are K = 3"),
        ((np.zeros(3), Y), xwb.ShapeError, r"needs scores of shape \(n, 3\)"),
        ((np.zeros((4, 3)), Y[:3]), xwb.ShapeError, r"y       \(3,\)     \[n\]"),
        ((np.zeros((4, 3)), Y[:, None]), xwb.ShapeError, "nothing is broadcast"),
        ((np.zeros((4, 3), np.int64), Y), xwb.DtypeError, "scores is neither float32 nor float64"),
        ((np.zeros((4, 3)), Y.astype(float)), xwb.DtypeError, r"type  y = y.astype\(np.int64\)"),
        (
            (np.zeros((4, 3)), np.array([0, 3, 0, 0])),
            xwb.DataError,
            r"y\[1\] is 3, .* K = 3, so labels run from 0 to 2",
        ),
        ((np.zeros((4, 3)), np.array([0, 0, -1, 0])), xwb.DataError, r"y\[2\] is -1"),
        ((scores_with(np.nan), Y), xwb.DataError, r"scores\[2, 1\] is nan"),
        ((scores_with(np.inf), Y), xwb.DataError, r"scores\[2, 1\] is inf"),
        ((np.full((4, 3), -np.inf), Y), xwb.DataError, r"scores\[0, 0\] is -inf; the largest of a row is finite"),
        ((np.zeros((4, 3)), Y, np.ones(3)), xwb.ShapeError, r"weight has shape \(3,\) and needs \(4,\)"),
        ((np.zeros((4, 3)), Y, 1.0), xwb.ShapeError, r"weight has shape \(\)"),
        ((np.zeros((4, 3)), Y, np.ones(4) * 1j), xwb.DtypeError, "weights are real numbers"),
        ((np.zeros((4, 3)), Y, [1, 1, -1, 1]), xwb.DataError, r"weight\[2\] is -1"),
        ((np.zeros((4, 3)), Y, [1, 1, np.nan, 1]), xwb.DataError, r"weight\[2\] is nan"),
        ((np.zeros((4, 3)), Y, [1, np.inf, 1, 1]), xwb.DataError, r"weight\[1\] is inf"),
    ],
)
def test_mistakes_are_said_and_count_nothing(arguments, error, words):
    metrics = ClassificationMetrics(3, probabilities=True)
    metrics.add(np.eye(3), [0, 1, 1])
    before = metrics.result()
    with pytest.raises(error, match=words):
        metrics.add(*arguments)
    assert metrics.result() == before


@pytest.mark.parametrize("size", [0, -1, 2.5, None])
def test_sizes_are_positive_integers(size):
    with pytest.raises(xwb.OptionError, match="no positive integer"):
        ClassificationMetrics(size, probabilities=False)
    with pytest.raises(xwb.OptionError, match="no positive integer"):
        RegressionMetrics(size)


# ---------------------------------------------------------------------------------------------------------- regression


def pairs(M, n=90):
    """Predictions and targets in float64."""
    rng = np.random.default_rng(4)
    T = rng.standard_normal((n, M)) * np.arange(1, M + 1) + 3
    return T + 0.5 * rng.standard_normal((n, M)), T


def expected_of(predictions, T, weight):
    given = {"sample_weight": weight}
    return {
        "r2": sk.r2_score(T, predictions, **given),
        "mae": sk.mean_absolute_error(T, predictions, **given),
        "rmse": sk.root_mean_squared_error(T, predictions, **given),
        "max_error": np.abs(predictions - T).max(),
    }


@each_dtype
@each_weight
@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("n", [2, 90])
def test_regression_agrees_with_scikit_learn(n, M, weighted, dtype):
    predictions, T = pairs(M, n)
    predictions, T, weight = predictions.astype(dtype), T.astype(dtype), weight_like(T, weighted)
    result = streamed(RegressionMetrics(M), [1, n // 2], predictions, T, weight).result()
    predictions, T = predictions.astype(np.float64), T.astype(np.float64)
    each = [{"target": m, **expected_of(predictions[:, m : m + 1], T[:, m : m + 1], weight)} for m in range(M)]
    expected = {"rows": n, **expected_of(predictions, T, weight)}
    assert result.pop("per_target", None) == (None if M == 1 else [close(one) for one in each])
    assert result == close(expected)


@settings(max_examples=60, deadline=None)
@given(cuts=cuts_of, weighted=st.booleans())
def test_blocks_of_a_regression_matter_only_by_rounding(cuts, weighted):
    predictions, T = pairs(2, 40)
    weight = weight_like(T, weighted)
    whole = streamed(RegressionMetrics(2), [], predictions, T, weight).result()
    same(streamed(RegressionMetrics(2), cuts, predictions, T, weight).result(), whole)


@pytest.mark.parametrize("first", ["as the rest", "far away"])
def test_targets_far_from_0(first):
    """Squares of 1e8 are 1e16, and float64 has 16 digits; a first row far away that hardly counts changes nothing."""
    rng = np.random.default_rng(6)
    near, error = rng.uniform(-1, 1, (200, 1)), rng.uniform(-0.1, 0.1, (200, 1))
    T = 1e8 + near
    near, weight = T - 1e8, np.ones(200)  # exact
    predictions = T + error
    unexplained = math.fsum(((predictions - T) ** 2).ravel())
    mean = math.fsum(near.ravel()) / 200
    expected = 1 - unexplained / math.fsum(((near - mean) ** 2).ravel())
    if first == "far away":
        T, predictions = np.vstack([[[0.0]], T]), np.vstack([[[0.0]], predictions])
        weight = np.append(1e-30, weight)
    # Means of blocks that lie 1e8 from the first row are rounded by 1e-8, and their differences are squared.
    tolerance = {"rel": 1e-12 if first == "as the rest" else 1e-10}
    for cuts in ([], [1], [50, 130]):
        result = streamed(RegressionMetrics(1), cuts, predictions, T, weight).result()
        assert result["r2"] == pytest.approx(expected, **tolerance)


def test_r2_of_a_constant_target_is_that_of_scikit_learn():
    """The mean of equal numbers such as 0.1 is rounded, and still they are constant."""
    T = np.full((7, 3), 0.1)
    predictions = T + np.array([0, 1e-3, 1])
    result = streamed(RegressionMetrics(3), [3, 4], predictions, T, weight_like(T, True)).result()
    assert [row["r2"] for row in result["per_target"]] == [1.0, 0.0, 0.0]
    zeros = np.zeros((7, 3))
    assert result["r2"] == close(sk.r2_score(zeros, predictions - T))


def test_regression_of_few_rows():
    metrics = RegressionMetrics(1)
    metrics.add(np.zeros((0, 1)), np.zeros((0, 1)))
    assert metrics.result() == {"rows": 0, "r2": None, "mae": None, "rmse": None, "max_error": None}
    metrics.add([[3]], [[1]])
    assert metrics.result() == {"rows": 1, "r2": None, "mae": 2.0, "rmse": 2.0, "max_error": 2.0}
    metrics.add([[1e3]], [[1]], [0])
    assert metrics.result() == {"rows": 2, "r2": None, "mae": 2.0, "rmse": 2.0, "max_error": 2.0}


def test_regression_beyond_float64_is_none_in_json():
    metrics = RegressionMetrics(2)
    metrics.add(np.ones((2, 2)), np.zeros((2, 2)))
    metrics.add(np.full((3, 2), 1e308), np.array([[-1e308, 1e200], [0, 2e200], [1e308, 1e200]]))
    result = json.loads(json.dumps(metrics.result(), allow_nan=False))
    assert [result[name] for name in ("r2", "mae", "rmse", "max_error")] == [None] * 4
    assert [row["r2"] for row in result["per_target"]] == [None, None]
    assert result["per_target"][1]["max_error"] == 1e308
    single = RegressionMetrics(2)
    single.add([[1.7e308, 1.7e308]], [[0, 0]])
    assert single.result()["mae"] is None  # the sum of two


def test_a_row_of_weight_0_is_no_row_of_a_regression():
    predictions, T = pairs(2)
    weight = weight_like(T, True)
    weight[::2] = 0
    predictions[::2] += 1e6
    given = streamed(RegressionMetrics(2), [11], predictions, T, weight).result()
    kept = streamed(RegressionMetrics(2), [], predictions[1::2], T[1::2], weight[1::2]).result()
    assert (given.pop("rows"), kept.pop("rows")) == (90, 45)
    same(given, kept)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.zeros((3, 2)), np.zeros((4, 2))), xwb.ShapeError, r"predictions  \(3, 2\)   \[n, m\]"),
        ((np.zeros((4, 3)), np.zeros((4, 2))), xwb.ShapeError, r"T            \(4, 2\)   \[n, m\]"),
        ((np.zeros((4, 3)), np.zeros((4, 3))), xwb.ShapeError, "There are M = 2 targets"),
        ((np.zeros(4), np.zeros(4)), xwb.ShapeError, r"shape \(n, 2\)"),
        ((np.zeros((4, 2)), np.array([["a", "b"]] * 4)), xwb.DtypeError, "T is <U1"),
        ((scores_with(np.nan)[:, :2], np.zeros((4, 2))), xwb.DataError, r"predictions\[2, 1\] is nan"),
        ((np.zeros((4, 2)), scores_with(-np.inf)[:, :2]), xwb.DataError, r"T\[2, 1\] is -inf"),
        ((np.zeros((4, 2)), np.zeros((4, 2)), [1, 1, 1, -1]), xwb.DataError, r"weight\[3\] is -1"),
    ],
)
def test_mistakes_in_a_regression_are_said_and_count_nothing(arguments, error, words):
    metrics = RegressionMetrics(2)
    metrics.add(*pairs(2))
    before = metrics.result()
    with pytest.raises(error, match=words):
        metrics.add(*arguments)
    assert metrics.result() == before


# --------------------------------------------------------------------------------------------------------------- lines


def test_lines_of_a_classifier():
    metrics = ClassificationMetrics(3, probabilities=True)
    metrics.add(np.repeat(np.log([[8, 1, 1], [1, 8, 1]]), [900, 600], axis=0), np.repeat([0, 1, 0], [750, 450, 300]))
    expected = """\
rows               1,500
accuracy           70.0 %
balanced accuracy  69.0 %
macro F1           67.0 %
log loss           0.8470
Brier score        0.4800
calibration error  10.0 %

class     support  recall  precision      F1
cat         1,050  71.4 %     83.3 %  76.9 %
dog�[31m      450  66.7 %     50.0 %  57.1 %
cow             0       –          –       –
"""
    assert lines(json.loads(json.dumps(metrics.result())), ["cat", "dog\x1b[31m", "cow"]) == expected.splitlines()


def test_lines_of_many_classes_show_the_worst():
    K = 23
    metrics = ClassificationMetrics(K, probabilities=False)
    y = np.repeat(np.arange(K - 1), 30)  # the last class never occurs
    right = np.tile(np.arange(30), K - 1) > y  # the later the class, the worse
    metrics.add(np.eye(K)[np.where(right, y, 0)], y)
    shown = lines(metrics.result())
    table = shown[shown.index("") + 1 :]
    assert [line.split()[0] for line in table] == ["class", *map(str, range(21, 1, -1)), "left"]
    assert table[-1] == "left out: 3 classes with no lower recall"
    assert {len(line) for line in table[:-1]} == {len(table[0])}
    assert "top-5 accuracy" in shown[2]


def test_lines_of_a_weighted_classifier():
    metrics = ClassificationMetrics(2, probabilities=False)
    metrics.add(np.eye(2), [0, 0], [1234.56, 0.25])
    table = lines(metrics.result(), ["a" * 40, "b"])[-3:]
    assert [line.split() for line in table] == [
        ["class", "support", "recall", "precision", "F1"],
        ["a" * 31 + "…", "1,234.8", "100.0", "%", "100.0", "%", "100.0", "%"],
        ["b", "0", "–", "0.0", "%", "0.0", "%"],
    ]


def test_lines_of_a_regression():
    T = np.array([[1.0, 1e6], [2.0, 2e6], [3.0, 4e6]])
    metrics = RegressionMetrics(2)
    metrics.add(T + np.array([[0, 1], [0.5, 0], [0, 0]]), T)
    expected = """\
rows       3
R²         0.9375
MAE        0.25
RMSE       0.43301
max error  1

target      R²      MAE     RMSE  max error
length  0.8750  0.16667  0.28868        0.5
price   1.0000  0.33333  0.57735          1
"""
    assert lines(metrics.result(), ["length", "price"]) == expected.splitlines()
    one = RegressionMetrics(1)
    one.add(T[:, :1], T[:, :1])
    exact = ["rows       3", "R²         1.0000", "MAE        0", "RMSE       0", "max error  0"]
    assert lines(one.result(), ["length"]) == exact


def test_lines_of_many_targets_show_the_worst():
    T = np.random.default_rng(8).standard_normal((30, 21))
    metrics = RegressionMetrics(21)
    metrics.add(T * (1 - 0.01 * np.arange(21)), T)
    table = lines(metrics.result())[6:]
    assert [line.split()[0] for line in table] == ["target", *map(str, range(20, 0, -1)), "left"]
    assert table[-1] == "left out: 1 target with no lower R²"
