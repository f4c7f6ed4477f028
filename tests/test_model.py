"""The stored model: its scores by NumPy's own products, its columns, its file, and labels by their value."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

from xwb import DataError, DtypeError, OptionError, RunError, ShapeError
from xwb.data import ArrayTable, Column, open_table
from xwb.runs import Run
from xwb.training import Model, evaluate
from xwb.training._class_codes import ClassCodes

SIZES = (4, 5, 3)
NAMES = ("a", "b", "c", "d")
ERF = np.vectorize(math.erf)
BY_HAND = {
    "relu": lambda Z: np.where(Z > 0, Z, 0),
    "tanh": lambda Z: (np.exp(Z) - np.exp(-Z)) / (np.exp(Z) + np.exp(-Z)),
    "gelu": lambda Z: Z * (1 + ERF(Z / math.sqrt(2))) / 2,
    "sigmoid": lambda Z: 1 / (1 + np.exp(-Z)),
}


def arrays(sizes=SIZES, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    params = [a for D, M in pairwise(sizes) for a in (rng.standard_normal((D, M)), rng.random(M))]
    return [a.astype(dtype) for a in params], rng.standard_normal(sizes[0]), rng.uniform(0.5, 2, sizes[0])


def made(sizes=SIZES, dtype=np.float64, **settings) -> Model:
    params, mean, scale = arrays(sizes, dtype)
    usual = {"loss": "softmax", "task": "classification", "columns": [Column(name, "number") for name in NAMES]}
    if settings.get("task") != "regression":
        usual["classes"] = ["x", "y", "z"]
    return Model(params, **{**usual, "mean": mean, "scale": scale, **settings})


def features(n=7, D=4, seed=1):
    return np.random.default_rng(seed).standard_normal((n, D))


def by_hand(X, params, mean, scale, activation="relu"):
    """Row by row and sum by sum, without a matrix product."""
    H = (X - mean) / scale
    for i in range(0, len(params), 2):
        H = (H[:, :, None] * params[i][None]).sum(1) + params[i + 1]
        H = BY_HAND[activation](H) if i + 2 < len(params) else H
    return H


# What it answers.


@pytest.mark.parametrize("activation", BY_HAND)
def test_scores_by_hand(activation):
    X = features()
    expected = by_hand(X, *arrays(), activation)
    np.testing.assert_allclose(made(activation=activation).scores(X), expected, rtol=1e-12, atol=1e-12)
    single = made(dtype=np.float32, activation=activation).scores(X)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-5)


def test_standardised_in_float64_before_the_cast():
    """1e9 and 1e9 + 1 are one number in float32."""
    model = made((4, 3), np.float32, mean=np.full(4, 1e9), scale=np.ones(4))
    X = features(D=4).round(3) + 1e9
    np.testing.assert_allclose(model.scores(X), by_hand(X - 1e9, model.params, 0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float16, np.uint64])
def test_features_of_any_number_type(dtype):
    X = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], dtype)
    np.testing.assert_allclose(made().scores(X), by_hand(X.astype(float), *arrays()), rtol=1e-12)


def test_predictions_and_probabilities():
    X = features(50)
    scores = by_hand(X, *arrays())
    model = made()
    said = model.predict(X)
    assert [str(one) for one in said] == ["xyz"[k] for k in scores.argmax(1)]
    E = np.exp(scores)
    np.testing.assert_allclose(model.probabilities(X), E / E.sum(1, keepdims=True), rtol=1e-9)
    assert model.predict(X[:0]).shape == (0,)
    predicted = made(task="regression", loss="squared_error", targets=["p", "q", "r"]).predict(X)
    np.testing.assert_allclose(predicted, scores, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("classes", "kind"),
    [
        (["b", "a", "ü,\n"], "T"),
        ([5, -3, 2**62], "i"),
        ([1, 2, 10**30], "U"),
        ([1, 2, 2**63], "U"),
        ([np.int64(4), np.int64(1), np.int64(2)], "i"),
    ],
)
def test_the_type_of_the_predictions(classes, kind):
    model = made(classes=classes)
    said = model.predict(features(40))
    assert said.dtype.kind == kind
    assert set(map(str, said.tolist())) <= set(map(str, classes))


def test_boolean_classes():
    assert made((4, 2), classes=[False, True]).predict(features()).dtype == np.bool_


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_scores_of_a_hinge_are_no_probabilities(loss):
    with pytest.raises(OptionError, match="not probabilities"):
        made(loss=loss).probabilities(features())


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (np.zeros((2, 3)), ShapeError, r"\(2, 3\) and needs \(n, 4\)"),
        (np.zeros(4), ShapeError, r"\(4,\)"),
        (np.array([["1"] * 4]), DtypeError, "<U1"),
        (np.array([[0, 0, 0, 0], [0, 0, np.nan, 0]]), DataError, r"t.csv, row 12: c is missing"),
        (np.array([[0, np.inf, 0, 0]]), DataError, "row 11: b is inf"),
        (np.array([[0, 0, 0, 1e300]]), DataError, "row 11: d is 1e\\+300, too large .* float32"),
    ],
)
def test_features_that_cannot_be(X, error, match):
    with pytest.raises(error, match=match):
        made(dtype=np.float32, activation="tanh").scores(X, where="t.csv", first=10)


# Folding.


@pytest.mark.parametrize("sizes", [(4, 3), SIZES])
def test_folded(sizes):
    model, X = made(sizes), features()
    np.testing.assert_allclose(by_hand(X, model.folded(), 0, 1), model.scores(X), rtol=1e-11, atol=1e-11)
    W, b = model.folded()[:2]
    params, mean, scale = arrays(sizes)
    np.testing.assert_allclose(W, params[0] / scale[:, None], rtol=1e-14)
    np.testing.assert_allclose(b, params[1] - (mean / scale) @ params[0], rtol=1e-12)


def test_folding_an_offset_of_1e9():
    """Seven digits are left in float64, as the docstring says, and none in float32."""
    model = made((4, 3), np.float32, mean=np.full(4, 1e9), scale=np.ones(4))
    X = features(D=4) + 1e9
    right = by_hand(X - 1e9, [a.astype(float) for a in model.params], 0, 1)
    W, b = model.folded(np.float64)
    lost = np.abs(X @ W + b - right).max()
    said = np.finfo(float).eps * (1e9 * np.abs(W)).sum(0).max()
    assert lost <= 4 * said < 1e-5
    W, b = model.folded()
    assert W.dtype == b.dtype == np.float32
    assert np.abs(X.astype(np.float32) @ W + b - right).max() > 1


def test_folding_that_leaves_float32():
    with pytest.raises(OptionError, match="float64"):
        made(dtype=np.float32, scale=np.full(4, 1e-40)).folded()
    with pytest.raises(OptionError, match="float16"):
        made().folded(np.float16)


# The columns it reads.


def test_columns_by_name_in_any_order_and_among_others(tmp_path):
    X = features(10).round(3)
    path = tmp_path / "t.csv"
    rows = [f"{row[2]},hello,{row[0]},{row[3]},{row[1]}" for row in X.tolist()]
    path.write_text("\n".join(["c,name,a,d,b", *rows]) + "\n")
    blocks = list(made().read(open_table(path), 4))
    assert [len(block) for block in blocks] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), X)


def test_matrices_and_single_columns_together():
    X = features(6)
    columns = [Column("m", "number", 2), Column("s", "boolean"), Column("t", "number", 1)]
    table = ArrayTable({"t": X[:, 3], "s": X[:, 2:3], "m": X[:, :2]})
    (block,) = made(columns=columns).read(table, 10)
    np.testing.assert_array_equal(block, X)


@pytest.mark.parametrize("name", ["X", "anything"])
def test_one_matrix_needs_no_name(tmp_path, name):
    X = features(6).astype(np.float32)
    np.savez(tmp_path / "t.npz", **{name: X, "y": np.zeros(6), "wide": np.zeros((6, 5))})
    (block,) = made().read(open_table(tmp_path / "t.npz"), 10)
    np.testing.assert_array_equal(block, X)
    np.save(tmp_path / "t.npy", X[:, 0])
    model = made((1, 3), columns=[Column("a", "number")], mean=np.zeros(1), scale=np.ones(1))
    (block,) = model.read(open_table(tmp_path / "t.npy"), 10)
    np.testing.assert_array_equal(block, X[:, :1])


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"a": 1, "d": 1}, "lacks 2 of the 4 columns .*: b, c; its columns: a, d"),
        ({"A": 1, "b": 1, "c": 1, "d": 1}, r": a \(did you mean A\?\)"),
        ({"P": 4, "Q": 4}, "several columns that could be .*: P, Q, each of width 4"),
        ({"a": 1, "Q": 4}, "lacks 3 of the 4 columns"),
        ({"a": 2, "b": 1, "c": 1, "d": 1}, "'a' of .* has the width 2, and the model reads 1"),
        ({"a": "x", "b": 1, "c": 1, "d": 1}, "'a' of .* is text"),
    ],
)
def test_columns_that_do_not_fit(table, match):
    columns = {n: np.full(3, "x") if w == "x" else np.zeros((3, w)) for n, w in table.items()}
    with pytest.raises(DataError, match=match):  # by the call, before a block is asked for
        made().read(ArrayTable(columns), 10)


# Its file.


def saved(tmp_path, model) -> Run:
    run = Run.create(tmp_path / "run", {"job": "fit"})
    model.save(run)
    run.close()
    return run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "settings",
    [
        {"classes": ["ü\n,\"'", "", "\ud800"], "activation": "gelu", "dtypes": {"b": "float64", "a": "int8"}},
        {"classes": [3, -1, 10**30], "loss": "hinge", "kind": "crammer_singer", "fingerprint": "f00"},
        {"task": "regression", "loss": "squared_error", "targets": ["p", "q", "T[0]"]},
    ],
)
def test_saved_and_loaded(tmp_path, dtype, settings):
    model = made(dtype=dtype, **settings)
    again = Model.load(saved(tmp_path, model).path)
    for name in ("loss", "task", "activation", "kind", "classes", "targets", "columns", "fingerprint", "dtypes"):
        assert getattr(again, name) == getattr(model, name), name
    for one, other in zip(
        [*again.params, again.mean, again.scale], [*model.params, model.mean, model.scale], strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    X = features()
    np.testing.assert_array_equal(again.scores(X), model.scores(X))


def test_the_same_model_has_the_same_bytes(tmp_path):
    files = []
    for name, dtypes in (("p", {"a": "int8", "b": "int8"}), ("q", {"b": "int8", "a": "int8"})):
        files.append(saved(tmp_path / name, made(dtypes=dtypes)).model_path.read_bytes())
    assert files[0] == files[1]
    assert b"xwb model 1" in files[0]


def other(name, value):
    return lambda tensors, metadata: (tensors, {**metadata, name: value})


def changed(name, change):
    return lambda tensors, metadata: ({**tensors, name: change(tensors[name])}, metadata)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (other("format", "xwb model 2"), "'xwb model 2'"),
        (other("format", "xwb classifier 1"), "xwb classifier 1"),
        (other("loss", '"l2"'), "loss is one of"),
        (other("loss", "softmax"), "no model that this xwb reads"),
        (other("columns", "[[1]]"), "no model that this xwb reads"),
        (other("columns", '[["a", "number", "4"]]'), "a column is"),
        (other("columns", '[["a", "number", 3]]'), "D = 3"),
        (other("classes", '["a", "b"]'), "K = 2"),
        (other("classes", '["a", "b", 3]'), "all int, all str"),
        (other("classes", '["a", "b", "b"]'), "no two are equal"),
        (other("classes", '"abc"'), "no list"),
        (other("targets", '["t"]'), "no targets"),
        (other("task", '"regression"'), "one of classification"),
        (lambda t, m: (t, {k: v for k, v in m.items() if k != "classes"}), "lacks 'classes'"),
        (lambda t, m: ({k: v for k, v in t.items() if k != "mean"}, m), "lacks 'mean'"),
        (lambda t, m: ({k: v for k, v in t.items() if k != "b1"}, m), "its tensors are W1, W2, b2"),
        (changed("W1", lambda W: W[:3]), "do not lead"),
        (changed("b1", lambda b: b[:3]), "do not lead"),
        (changed("W2", lambda W: W * np.nan), "not finite"),
        (changed("W2", lambda W: W.astype(np.float32)), "all float32 or all float64"),
        (changed("mean", lambda m: m + np.inf), "not finite"),
        (changed("mean", lambda m: m.astype(np.float32)), "mean and scale"),
        (changed("scale", lambda s: s[:2]), "have the shape"),
        (changed("scale", lambda s: s * 0), "positive"),
    ],
)
def test_files_that_are_no_model(tmp_path, change, match):
    run = saved(tmp_path, made())
    run.save_model(*change(*run.load_model()))
    with pytest.raises(RunError, match=match) as caught:
        Model.load(run)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_model_and_a_damaged_one(tmp_path):
    with pytest.raises(RunError, match="no model"):
        Model.load(Run.create(tmp_path / "empty", {}))
    run = saved(tmp_path, made())
    run.model_path.write_bytes(run.model_path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match="damaged"):
        Model.load(run)


# Labels by their value.


@pytest.mark.parametrize(
    ("classes", "labels", "codes"),
    [
        ([3, 1], np.array(["3", "1", "3.0", " 1 "]), [0, 1, 0, 1]),
        ([3, 1], np.array([3.0, 1.0], np.float32), [0, 1]),
        ([3, 1], np.array([[1], [3]], np.uint8), [1, 0]),
        ([2**60 + 1, 2**60], np.array([str(2**60), str(2**60 + 1)]), [1, 0]),
        (["3", "a", "007"], np.array([3, 3]), [0, 0]),
        (["3", "a", "007"], np.array(["a", "007", "3.0"], np.dtypes.StringDType()), [1, 2, 0]),
        (["0.1", "0.2"], np.array([0.1, 0.2], np.float32), [0, 1]),
        (["3", "3.0"], np.array(["3.0", "3"]), [1, 0]),
        ([False, True], np.array([True, False]), [1, 0]),
        ([False, True], np.array(["TRUE", "false", "1"]), [1, 0, 1]),
        (["True", "False"], np.array([True, False]), [0, 1]),
        ([0, 1], np.array([True, False]), [1, 0]),
        ([0, 1], np.array([], np.float64), []),
    ],
)
def test_labels_by_value(classes, labels, codes):
    found = ClassCodes(classes)
    np.testing.assert_array_equal(found.of(labels, "y"), codes)
    found.refuse_unknown("y")


@pytest.mark.parametrize(
    ("classes", "labels", "match"),
    [
        ([3, 1], ["3", "x", "7", "x"], r"column y: 3 rows have labels .* 'x' \(2 rows\), '7' \(1 row\); .*: 3, 1$"),
        ([3, 1], [3, np.nan, 3.5], r"2 rows .* a missing one \(1 row\).* 3.5 \(1 row\)|3.5 .* a missing one"),
        (["3", "3.0"], [3, 3], r"3 \(2 rows\)"),
        (["a", "b"], ["A"], r"1 row has a label .*: 'A' \(1 row\); its classes: 'a', 'b'"),
        ([7], ["007", "1_0"], "'007'"),
        ([0, 1], [np.inf], "inf"),
    ],
)
def test_labels_that_no_class_has(classes, labels, match):
    found = ClassCodes(classes)
    for label in labels:  # over several blocks
        found.of(np.array([label]), "column y")
    with pytest.raises(DataError, match=match):
        found.refuse_unknown("column y")


def test_numbers_that_are_no_labels_end_early():
    with pytest.raises(DataError, match="5,000 rows"):
        ClassCodes([1]).of(np.linspace(2, 3, 5000), "y")


# Measured.


def test_evaluation_against_sklearn():
    X, rng = features(500), np.random.default_rng(3)
    codes, weight = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
    model = made()
    scores = by_hand(X, *arrays())
    P = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    columns = {name: X[:, i] for i, name in enumerate(NAMES)}
    table = ArrayTable({"y": np.array(["x", "y", "z"])[codes], **columns, "w": weight})
    model_blocks = type("Small", (Model,), {"block_rows": 64})  # many blocks
    model.__class__ = model_blocks
    result = evaluate(model, table, ["y"], weights="w")
    assert result["rows"] == 500
    assert result["accuracy"] == pytest.approx(accuracy_score(codes, scores.argmax(1), sample_weight=weight), rel=1e-12)
    assert result["log_loss"] == pytest.approx(log_loss(codes, P, sample_weight=weight), rel=1e-9)
    beside = evaluate(model, ArrayTable(columns), labels=ArrayTable({"X": np.array(["x", "y", "z"])[codes]}))
    assert beside["accuracy"] == pytest.approx(accuracy_score(codes, scores.argmax(1)), rel=1e-12)
    assert evaluate(made(loss="hinge"), table, ["y"])["accuracy"] == beside["accuracy"]
    assert "log_loss" not in evaluate(made(loss="hinge"), table, ["y"])


@pytest.mark.parametrize("columns", [["p", "q", "r"], ["T"]])
def test_regression_against_sklearn(columns):
    X = features(300)
    scores = by_hand(X, *arrays())
    T = scores + np.random.default_rng(5).standard_normal(scores.shape)
    model = made(task="regression", loss="squared_error", targets=["p", "q", "r"])
    table = ArrayTable({**dict(zip(NAMES, X.T, strict=True)), "T": T, **dict(zip("pqr", T.T, strict=True))})
    result = evaluate(model, table, columns)
    assert result["r2"] == pytest.approx(r2_score(T, scores), rel=1e-9)
    assert [one["rmse"] for one in result["per_target"]] == pytest.approx(
        np.sqrt(mean_squared_error(T, scores, multioutput="raw_values")), rel=1e-9
    )


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        ({"target": ["z"]}, DataError, "has no column 'z'; its columns: a, b, c, d, y"),
        ({"target": []}, DataError, "no target named"),
        ({"target": ["a"]}, OptionError, "'a' .* is a feature"),
        ({"target": ["y"], "weights": "b"}, OptionError, "'b' .* is a feature"),
        ({"target": ["y"], "weights": "nope"}, DataError, "no column 'nope'"),
        ({"target": ["y"], "weights": "y"}, DataError, "holds no weights"),
        ({"target": ["y"], "weights": "w"}, DataError, "row 2: -1.0 is no weight"),
        ({"target": ["strange"]}, DataError, r"1 row has a label .*'q' \(1 row\); its classes: 'x', 'y', 'z'"),
        ({"target": ["M"]}, DataError, "1 label a row, and there are 2"),
        ({"labels": ArrayTable({"X": np.array(["x"] * 4)})}, DataError, "different numbers of rows: 3 and 4"),
    ],
)
def test_evaluations_that_cannot_be(call, error, match):
    columns = {**dict(zip(NAMES, features(3).T, strict=True)), "y": np.array(list("xyz")), "w": [0.0, -1, 0]}
    table = ArrayTable({**columns, "strange": np.array(list("xqz")), "M": np.zeros((3, 2))})
    with pytest.raises(error, match=match):
        evaluate(made(), table, **call)


@pytest.mark.parametrize(
    ("T", "match"), [([1, np.nan, 2], "row 2: a target is missing"), (["1", "2", "x"], "they are text")]
)
def test_targets_that_cannot_be(T, match):
    model = made((4, 1), task="regression", loss="squared_error", targets=["t"])
    table = ArrayTable({**dict(zip(NAMES, features(3).T, strict=True)), "t": np.array(T)})
    with pytest.raises(DataError, match=match):
        evaluate(model, table, ["t"])


def test_the_settings_are_json_in_the_file(tmp_path):
    metadata = saved(tmp_path, made()).load_model()[1]
    assert json.loads(metadata["classes"]) == ["x", "y", "z"]
    assert metadata["format"] == "xwb model 1"
