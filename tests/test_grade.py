"""Marks against a formula and against stored tensors: each part is right or wrong for itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

import xwb
from xwb.proof import grade, operands, reference

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
X, W, b = operands(LINEAR).values()


def forward(X, W, b):
    return X @ W + b


def backward(dY, X, W, b):
    return dY @ W.T, X.T @ dY, dY.sum(0)


def marks(graded):
    return {part.name: part.ok for part in graded.parts}


def test_all_parts_are_right():
    graded = grade((forward, backward), LINEAR, (X, W, b))
    assert marks(graded) == {"Y": True, "dX": True, "dW": True, "db": True}
    assert graded.ok
    graded.raise_if_wrong()
    assert "all parts are right" in str(graded)
    assert grade(xwb.linear, LINEAR, (X, W, b)).ok
    assert grade(xwb.linear, LINEAR, {"W": W, "b": b, "X": X}).ok
    assert grade(xwb.derive(LINEAR), xwb.derive(LINEAR), (X, W, b)).ok


@pytest.mark.parametrize(
    ("forward", "backward", "wrong"),
    [
        (forward, lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.mean(0)), ["db"]),
        (forward, lambda dY, X, W, b: (dY @ W.T, -X.T @ dY, dY.sum(0)), ["dW"]),
        (forward, lambda dY, X, W, b: (dY @ W.T, (X.T @ dY).T, dY.sum(0)), ["dW"]),
        (forward, lambda dY, X, W, b: (None, X.T @ dY, 2 * dY.sum(0)), ["dX", "db"]),
        (forward, lambda dY, X, W, b: (dY @ W.T, X.T @ dY, np.full(3, np.nan)), ["db"]),
        (lambda X, W, b: X @ W - b, backward, ["Y"]),
        (lambda X, W, b: (X @ W).sum(), backward, ["Y"]),
        (lambda X, W, b: X @ W - b, lambda dY, X, W, b: (dY, X.T @ dY, -dY.sum(0)), ["Y", "dX", "db"]),
    ],
)
def test_what_is_wrong_is_marked_wrong_and_the_rest_right(forward, backward, wrong):
    graded = grade((forward, backward), LINEAR, (X, W, b))
    assert [part.name for part in graded.parts if not part.ok] == wrong
    assert graded.right == 4 - len(wrong)
    assert f"{graded.right} of 4 parts" in str(graded)
    with pytest.raises(xwb.ProofError, match="WRONG"):
        graded.raise_if_wrong()


def test_both_numbers_are_shown():
    graded = grade((forward, lambda dY, X, W, b: (*backward(dY, X, W, b)[:2], 3 * dY.sum(0))), LINEAR, (X, W, b))
    db = graded.parts[-1]
    assert db.given == pytest.approx(3 * db.expected)
    assert f"{db.given:.7e}" in str(graded)
    assert f"WRONG: worst at {db.worst}" in str(graded)


@pytest.mark.parametrize(
    ("names", "formula", "remarks"),
    [
        ("X, W, bias", LINEAR, ["bias is the b of the formula."]),
        ("x, w, b", LINEAR, ["x is the X of the formula.", "w is the W of the formula."]),
        ("W, A, c", LINEAR, ["A is the X of the formula.", "c is the b of the formula."]),
        ("X, W, b", LINEAR, []),
    ],
)
def test_inputs_are_matched_by_name_and_else_in_order(names, formula, remarks):
    scope: dict = {}
    first, second, third = names.split(", ")
    product = f"{first} @ {second}" if first != "W" else f"{second} @ {first}"
    exec(f"def f({names}): return {product} + {third}", scope)
    arrays = {"X": X, "W": W, "b": b, "x": X, "w": W, "A": X}
    graded = grade((scope["f"], lambda *a: [None] * 3), formula, [arrays.get(n, b) for n in names.split(", ")])
    assert graded.parts[0].ok
    assert graded.remarks == remarks


def test_another_number_of_inputs():
    with pytest.raises(xwb.OptionError, match="takes X, W, and the formula reads X, W, b"):
        grade((lambda X, W: X @ W, lambda dY, X, W: (dY @ W.T, X.T @ dY)), LINEAR, (X, W))


def test_an_optional_input_is_left_out():
    no_bias = "Y[n,m] = X[n,d] W[d,m]"
    assert marks(grade(xwb.linear, no_bias, operands(no_bias))) == {"Y": True, "dX": True, "dW": True}


def test_integers_and_losses():
    nll = xwb.softmax_cross_entropy.formula
    arrays = operands(nll, {"n": 5, "k": 4})
    graded = grade(xwb.softmax_cross_entropy, nll, [arrays["Z"], arrays["y"]])
    assert marks(graded) == {"L": True, "dZ": True}
    table = "Y[n,d] = E[k[n],d]"
    arrays = operands(table)
    pair = lambda E, k: E[k], lambda dY, E, k: (np.eye(len(E))[:, k] @ dY, None)
    assert marks(grade(pair, table, [arrays["E"], arrays["k"]])) == {"Y": True, "dE": True}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_cases_are_graded_without_loops(dtype):
    arrays = [a.astype(dtype) for a in operands(LINEAR, {"n": 64, "d": 50, "m": 40}).values()]
    assert grade((forward, backward), LINEAR, arrays).ok
    assert not grade((forward, lambda *a: [1.001 * g for g in backward(*a)]), LINEAR, arrays).ok


def test_small_gradients_are_not_taken_for_rounding():
    tiny = [1e-6 * X, 1e-6 * W, 1e-6 * b]
    assert grade((forward, backward), LINEAR, tiny).ok
    assert not grade((forward, lambda *a: [1.001 * g for g in backward(*a)]), LINEAR, tiny).ok


def test_json_of_a_grade():
    said = json.loads(grade((forward, lambda *a: (None, *backward(*a)[1:])), LINEAR, (X, W, b)).to_json())
    assert said["ok"] is False
    assert [part["ok"] for part in said["parts"]] == [True, False, True, True]
    assert said["parts"][1]["relative"] is None


DY = np.random.default_rng(0).standard_normal((len(X), W.shape[1]))
STORED = {"X": X, "W": W, "b": b, "Y": X @ W + b, "dY": DY, "dX": DY @ W.T, "dW": X.T @ DY, "db": DY.sum(0)}


def without(*names):
    return {name: array for name, array in STORED.items() if name not in names}


class TestReference:
    def test_right(self, tmp_path):
        np.savez(tmp_path / "stored.npz", **STORED)
        graded = reference((forward, backward), tmp_path / "stored.npz")
        assert marks(graded) == {"Y": True, "dX": True, "dW": True, "db": True}
        assert graded.against == "stored.npz"
        assert reference(xwb.linear, STORED).ok
        assert marks(reference(xwb.linear, without("dX", "Y"))) == {"dW": True, "db": True}
        assert marks(reference(xwb.linear, without("dX", "dW", "db", "dY"))) == {"Y": True}
        assert marks(reference(xwb.linear, {**without("b", "db"), "Y": X @ W})) == {
            "Y": True,
            "dX": True,
            "dW": True,
        }

    @pytest.mark.parametrize("name", ["Y", "dX", "dW", "db"])
    def test_wrong(self, name):
        graded = reference((forward, backward), {**STORED, name: STORED[name] * 1.01})
        assert [part.name for part in graded.parts if not part.ok] == [name]

    @pytest.mark.parametrize(("dtype", "allowed"), [(np.float16, 1e-2), (np.float32, 1e-4), (np.float64, 1e-11)])
    def test_the_coarsest_dtype_says_what_is_allowed(self, dtype, allowed):
        stored = {**STORED, "dW": STORED["dW"].astype(dtype)}
        graded = reference((forward, backward), stored)
        assert graded.ok
        assert {part.name: part.allowed for part in graded.parts} == {
            "Y": 1e-11,
            "dX": 1e-11,
            "dW": allowed,
            "db": 1e-11,
        }
        assert not reference((forward, backward), {**stored, "dW": stored["dW"] * dtype(1 + 3 * allowed)}).ok

    def test_a_loss_needs_no_dloss(self):
        Z, y = np.random.default_rng(0).standard_normal((4, 3)), np.array([0, 2, 1, 1])
        loss, back = xwb.softmax_cross_entropy(Z, y)
        assert reference(xwb.softmax_cross_entropy, {"Z": Z, "y": y, "Y": loss, "dZ": back()}).ok
        assert reference(xwb.squared_error, {"Y": Z, "T": 0 * Z, "L": (Z**2).sum() / 4, "dY": Z / 2}).ok

    @pytest.mark.parametrize(
        ("stored", "words"),
        [
            ("W", "has no W, which"),
            ("dY", "has no dY, with which the gradients were made"),
            ("Y dX dW db", "nothing to compare"),
        ],
    )
    def test_what_is_missing(self, stored, words):
        with pytest.raises(xwb.DataError, match=words):
            reference((forward, backward), without(*stored.split()))

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"dw": W}, r"dw, which is neither .* \(did you mean dW\?\)"),
            ({"dW": W.T}, "dW has the shape"),
            ({"dY": X}, "dY has the shape"),
            ({"W": np.array(["a"])}, "numbers are expected"),
        ],
    )
    def test_what_does_not_fit(self, more, words):
        with pytest.raises(xwb.DataError, match=words):
            reference((forward, backward), {**STORED, **more})

    def test_files_that_are_none(self, tmp_path):
        np.save(tmp_path / "one.npy", X)
        (tmp_path / "text.npz").write_text("X = 1")
        np.savez(tmp_path / "objects.npz", X=np.array([{}], object))
        for name, words in [
            ("none.npz", "no file"),
            ("one.npy", "one array"),
            ("text.npz", "cannot be read"),
            ("objects.npz", "cannot be read"),
            (".", "cannot be read"),
        ]:
            with pytest.raises(xwb.DataError, match=words):
                reference((forward, backward), tmp_path / name)
