"""The three statements of a layer: every planted mistake is found, and the odd one out is named."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

import xwb

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
RULES = [rule for name in xwb.__all__ if isinstance(rule := getattr(xwb, name), xwb.Layer | xwb.Loss)]


def forward(X, W, b):
    return X @ W + b, (X, W)


def backward(dY, saved):
    X, W = saved
    return dY @ W.T, X.T @ dY, dY.sum(0)


def mine(formula=LINEAR, forward=forward, backward=backward, variants=()):
    return xwb.Layer("mine", formula, forward, backward, variants)


def db(bias):
    """A backward whose db alone is another."""
    return lambda dY, saved: (*backward(dY, saved)[:2], bias(dY))


def the_verdict(proof):
    assert not proof.ok
    with pytest.raises(xwb.ProofError, match="wrong in"):
        proof.raise_if_wrong()
    (verdict,) = proof.verdicts
    assert verdict.sentence in " ".join(str(proof).split())
    return verdict


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_layer_of_the_library(rule):
    proof = xwb.prove(rule)
    proof.raise_if_wrong()
    assert len(proof.formulas) == 1 + len(rule.variants)
    for variant in range(len(proof.formulas)):
        rows = [row for row in proof.rows if row.variant == variant]
        assert {row.dtype for row in rows} == {"float32", "float64"}
        assert {row.layout for row in rows} == {"contiguous", "strided", "Fortran"}
        assert any(1 in np.ravel(next(iter(row.sizes.values()))) for row in rows)
        assert len({str(row.sizes) for row in rows}) >= 3


def test_sizes_that_are_asked_for():
    proof = xwb.prove(xwb.derive("Y[...,m] = X[...,d] W[d,m]"), at={"...": (2, 3), "d": 7})
    proof.raise_if_wrong()
    assert [dict(row.sizes) for row in proof.rows] == [{"...": (2, 3), "d": 7, "m": 2}] * 6
    with pytest.raises(xwb.FormulaError, match="no index q"):
        xwb.prove(mine(), at={"q": 3})


@pytest.mark.parametrize(
    "layer",
    [
        mine(),
        xwb.chain(xwb.linear, xwb.relu, xwb.linear),
        xwb.chain(xwb.linear, xwb.linear, tie={"W2": "W1.T"}),
        xwb.derive("Y[n,p] = sum[r] X[n,zero(p+r-1)] K[r]"),
        xwb.derive("Y[n,p] = max[r](X[n,2*p+r])", {"r": 2}),
        xwb.derive("Y[n,d] = E[k[n],d]"),
        xwb.derive("Y[n] = log(X[n])*s").layer(),
        xwb.derive("Y[n,k] = [y[n] == k]*X[n,k]"),
        xwb.derive("m[n] = mean[d](X[n,d]); Y[n,d] = (X[n,d] - m[n]) / sqrt(mean[k]((X[n,k] - m[n])**2) + 1e-5)"),
        xwb.linear.with_options(),
    ],
    ids=str,
)
def test_layers_of_other_kinds(layer):
    xwb.prove(layer).raise_if_wrong()


def test_a_derived_layer_is_said_to_be_one_object_with_its_formula():
    proof = xwb.prove(xwb.derive(LINEAR))
    assert proof.derived
    assert "derived from the formula" in str(proof)
    assert not xwb.prove(xwb.linear).derived


def test_a_backward_that_changes_an_input_is_found():
    def falls(dY, saved):
        grads = backward(dY, saved)
        saved[0][...] = 0
        return grads

    assert the_verdict(xwb.prove(mine(backward=falls))).wrong == "conduct"
    assert xwb.prove(mine(backward=falls), conduct=False).ok


def test_sizes_that_no_array_says():
    def pool(X):
        pairs = X.reshape(len(X), -1, 2)
        return pairs.max(-1), (X.shape, pairs)

    def back(dY, saved):
        shape, pairs = saved
        return (dY[..., None] * (pairs == pairs.max(-1, keepdims=True))).reshape(shape)

    layer = xwb.Layer("pool", "Y[n,p] = max[r](X[n,2*p+r])", pool, back)
    assert xwb.prove(layer, sizes={"r": 2}).ok
    with pytest.raises(xwb.FormulaError, match="sizes="):
        xwb.prove(layer)


@pytest.mark.parametrize(
    ("layer", "wrong", "words"),
    [
        (mine(backward=db(lambda dY: dY.mean(0))), "closed form", "except where n is 1"),
        (mine(backward=db(lambda dY: -dY.sum(0))), "closed form", "in every case"),
        (mine(backward=db(lambda dY: dY.sum(0) * (1 + 1e-9))), "closed form", "only in float64"),
        (mine(backward=db(lambda dY: dY.sum(0) * (1 + (dY.dtype == "f4")))), "closed form", "only in float32"),
        (mine(backward=db(lambda dY: dY.sum(0) * (1 + (len(dY) == 1)))), "closed form", "only where n is 1"),
        (
            mine(backward=db(lambda dY: dY.sum(0) * (1 + (not dY.flags.c_contiguous)))),
            "closed form",
            "only for inputs that are strided or Fortran",
        ),
        (mine(backward=db(lambda dY: dY.sum(0) * np.r_[[0], [1] * (dY.shape[1] - 1)])), "closed form", "every case"),
        (mine("Y[n,m] = X[n,d] W[d,m] - b[m]"), "formula", "the formula is not this layer's"),
        (mine("Y[n,m] = X[n,d] W[d,m] + b[m] + 1"), "formula", "does not depend on the inputs"),
        (mine("Y[n,m] = X[n,d] W[d,m] + 1.001*b[m]"), "formula", "the formula is not this layer's"),
        (mine(forward=lambda X, W, b: (X @ W - b, (X, W))), "forward", "the forward is wrong"),
        (mine(forward=lambda X, W, b: (X @ W - b, (X, W)), backward=db(lambda dY: 2 * dY.sum(0))), "all", "No two"),
        (mine(backward=lambda dY, saved: backward(dY, saved)[:2]), "raised", "raised an error"),
        (mine(backward=db(lambda dY: dY.sum())), "closed form", "odd one out"),
        (mine(backward=db(lambda dY: None)), "closed form", "odd one out"),
    ],
)
def test_the_odd_one_out_is_named(layer, wrong, words):
    verdict = the_verdict(xwb.prove(layer))
    assert verdict.wrong == wrong
    assert words in verdict.sentence


def test_both_numbers_are_shown():
    proof = xwb.prove(mine(backward=db(lambda dY: 2 * dY.sum(0))))
    (note,) = next(row for row in proof.rows if not row.ok).notes
    closed_form, formula = (float(words.split(",")[0]) for words in note.split(" is ")[1].split("by the formula "))
    assert note.startswith("db[")
    assert closed_form == pytest.approx(2 * formula)
    assert note in str(proof)
    assert "first at n = 2, m = 3, d = 4, float64, contiguous" in str(proof)


def test_each_tensor_has_one_note():
    proof = xwb.prove(mine(backward=db(lambda dY: dY.sum())))  # wrong beside the loops, `derive` and differences
    assert all(len(row.notes) == 1 for row in proof.rows)


def test_only_one_variant_is_wrong():
    def scaled(X, *, power=2):
        return X**power, (X, power)

    def back(dY, saved):
        X, power = saved
        return dY * (2 * X if power == 2 else 2 * X**2)

    proof = xwb.prove(xwb.Layer("power", "Y[...] = X[...]**2", scaled, back, [({"power": 3}, "Y[...] = X[...]**3")]))
    verdict = the_verdict(proof)
    assert (verdict.variant, verdict.wrong) == (1, "closed form")
    assert "WRONG  power=3: Y[...] = X[...]**3" in str(proof)
    assert all(row.ok for row in proof.rows if row.variant == 0)


def test_an_error_names_its_line():
    def falls(dY, saved):
        raise IndexError("too far")

    verdict = the_verdict(xwb.prove(mine(backward=falls)))
    assert any("IndexError: too far (test_prove.py:" in detail for detail in verdict.details)


def test_targets_that_must_be_probabilities_and_weights_that_must_be_positive():
    def loss(Z, T, *, weight=None):
        if (np.asarray(T) < 0).any() or (weight is not None and (np.asarray(weight) < 0).any()):
            raise xwb.DataError("negative")
        w = 1 if weight is None else weight[:, None]
        return np.sum(w * T * Z), (w, T)

    formulas = "L = sum[n,k](T[n,k] Z[n,k])", "L = sum[n,k](weight[n] T[n,k] Z[n,k])"
    rule = xwb.Loss("mine", formulas[0], loss, lambda dloss, saved: dloss * saved[0] * saved[1], [({}, formulas[1])])
    xwb.prove(rule).raise_if_wrong()


def test_where_the_formula_has_no_value_nothing_is_proved():
    layer = xwb.Layer("root", "Y[n] = sqrt(-X[n]**2 - 1)", lambda X: (X, X), lambda dY, saved: dY)
    proof = xwb.prove(layer)
    assert not proof.ok
    assert not proof.rows
    assert "no finite value" in str(proof)


@pytest.mark.parametrize("thing", [(forward, backward), forward, None, mine("")])
def test_without_a_formula(thing):
    with pytest.raises(xwb.OptionError, match=r"xwb\.check\(…\).*--against"):
        xwb.prove(thing)


def test_a_formula_that_names_something_else():
    with pytest.raises(xwb.OptionError, match=r"mine\(X, W, b\) has no input or option B"):
        xwb.prove(mine("Y[n,m] = X[n,d] W[d,m] + B[m]"))


def test_a_formula_may_do_without_the_last_inputs():
    no_bias = xwb.Layer("linear", "Y[n,m] = X[n,d] W[d,m]", *((r := xwb.linear)._forward, r._backward))
    xwb.prove(no_bias).raise_if_wrong()


def test_json():
    right, wrong = (json.loads(xwb.prove(layer).to_json()) for layer in (mine(), mine(backward=db(lambda dY: None))))
    assert (right["ok"], right["verdicts"]) == (True, [])
    assert right["formulas"] == [{"options": "{}", "formula": LINEAR}]
    assert right["rows"][0]["sizes"] == {"n": 2, "m": 3, "d": 4}
    assert wrong["ok"] is False
    assert wrong["verdicts"][0]["wrong"] == "closed form"
    assert wrong["rows"][0]["gradient"] is None  # infinite


def test_the_same_seed_gives_the_same_proof():
    assert str(xwb.prove(mine())) == str(xwb.prove(mine()))
    assert str(xwb.prove(mine(), seed=1)) != str(xwb.prove(mine()))


def test_it_is_quick():
    started = time.perf_counter()
    xwb.prove(xwb.linear)
    assert time.perf_counter() - started < 5
