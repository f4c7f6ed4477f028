"""What a report says of a wrong gradient: a cause and a sentence, true of the numbers, and that it knows of none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import xwb

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from _mutations import mutants
from _zoo import LAYERS

rng = np.random.default_rng(11)
N, D, M = 6, 4, 3
X, W, b = rng.standard_normal((N, D)), rng.standard_normal((D, M)), rng.standard_normal(M)
S = rng.standard_normal((D, D))  # a square weight


def linear(X, W, b):
    return X @ W + b


def said(forward, backward, *arrays, **options):
    """(tensor, cause, sentence) of each wrong gradient."""
    return [tuple(d) for d in xwb.check((forward, backward), *arrays, conduct=False, **options).diagnosis]


def of_W(change):
    return lambda dY, X, W, b: (dY @ W.T, change(X.T @ dY), dY.sum(0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("backward", "tensor", "cause", "words"),
    [
        (of_W(lambda g: -g), "W", "sign", "wrong sign at every entry"),
        (of_W(lambda g: 2 * g), "W", "constant factor", "2 times what it should be"),
        (of_W(lambda g: g * g.dtype.type(1.0009)), "W", "constant factor", "1.0009"),
        (of_W(lambda g: g / N), "W", "mean for sum", "the ratio is 1/6 at every entry: a mean over axis 0 of Y"),
        (of_W(lambda g: g / M), "W", "mean for sum", "a mean over axis 1 of Y stands where a sum belongs"),
        (of_W(lambda g: g * N), "W", "sum for mean", "the ratio is 6"),
        (of_W(lambda g: 0 * g), "W", "zero", "0 everywhere"),
        (of_W(lambda g: g + 1), "W", "added constant", "1 is added to every entry"),
        (of_W(lambda g: np.roll(g, 1, 0)), "W", "shift", "shifted by 1 along axis 0"),
        (of_W(lambda g: g[:, ::-1].copy()), "W", "flipped", "backwards along axis 1"),
        (of_W(lambda g: g.T.copy()), "W", "transpose", "return dW.T"),
        (of_W(lambda g: g.reshape(-1)), "W", "shape", "dW.reshape((4, 3))"),
        (of_W(lambda g: None), "W", "zero", "backward returns None"),
        (of_W(lambda g: g * np.where(np.arange(M) == 1, np.nan, 1)), "W", "not finite", "4 of 12 entries"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY), "b", "missing sum", "over axis 0"),
        (
            lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.sum(1)),
            "b",
            "wrong axis",
            "summed over axis 1 instead of axis 0",
        ),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY[-1].copy()), "b", "missing sum", "the last slice of dY on axis 0"),
        (lambda dY, X, W, b: (dY @ W.T, X[1:].T @ dY[1:], dY.sum(0)), "W", "example dropped", "the first slice of dY"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ np.roll(dY, 1, 0), dY.sum(0)), "W", "shift", "shifted by 1 along axis 0"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ np.ones_like(dY), dY.sum(0)), "W", "ignores dY", "the same for every dY"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ (dY * dY), dY.sum(0)), "W", "not linear in dY", "does not double"),
    ],
)
def test_of_a_linear_layer(backward, tensor, cause, words, dtype):
    ((name, found, sentence),) = said(linear, backward, *(a.astype(dtype) for a in (X, W, b)))
    assert (name, found) == (tensor, cause)
    assert words in sentence


def test_of_a_square_weight():
    ((_, cause, sentence),) = said(lambda X, W: X @ W, lambda dY, X, W: (dY @ W, X.T @ dY), X, S)
    assert (cause, sentence) == ("transpose", "it is right for W transposed.")
    ((_, cause, sentence),) = said(lambda X, W: X @ W, lambda dY, X, W: (dY @ W.T, dY.T @ X), X, S)
    assert (cause, sentence) == ("transpose", "it is transposed.")


def test_of_entries():
    def one(g):
        g[1, 2] *= 1.02
        return g

    ((_, cause, sentence),) = said(linear, of_W(one), X, W, b)
    assert cause == "one entry"
    assert "only the entry (1, 2) is wrong: 1.02 times" in sentence

    def row(g):
        g[2] = 0
        return g

    ((_, cause, sentence),) = said(linear, of_W(row), X, W, b)
    assert (cause, sentence) == ("some entries", "only the slice 2 on axis 0 is wrong: it is 0.")


def test_one_entry_of_a_million_is_located():
    wide = rng.standard_normal((3, 1000)), rng.standard_normal((1000, 1000))

    def one(dY, X, W):
        dW = X.T @ dY
        dW[123, 456] = 0
        return dY @ W.T, dW

    report = xwb.check((lambda X, W: X @ W, one), *wide, conduct=False)
    assert [row.ok for row in report.rows] == [True, False]
    assert report.rows[1].worst == (123, 456)
    assert [d.cause for d in report.diagnosis] == ["one entry"]


def test_of_low_precision():
    half = lambda g: g.astype(np.float16).astype(g.dtype)  # noqa: E731
    ((_, cause, sentence),) = said(linear, of_W(half), X, W, b)
    assert cause == "low precision"
    assert "float16" in sentence
    in_float32 = lambda dY, X, W, b: (dY @ W.T, (X.T @ dY.astype(np.float32)) * 1.0, dY.sum(0))  # noqa: E731
    ((_, cause, sentence),) = said(linear, in_float32, X, W, b)
    assert cause == "low precision"
    assert "float32" in sentence
    ((_, cause, _),) = said(linear, of_W(half), *(a.astype(np.float32) for a in (X, W, b)))
    assert cause == "low precision"


def test_of_two_operands():
    product = lambda A, B: A * B  # noqa: E731
    found = said(product, lambda dY, A, B: (dY * A, dY * B), X, 2 * X + 1)
    assert [cause for _, cause, _ in found] == ["swapped", "swapped"]
    assert found[0][2] == "dB has the value that it should have."


def test_of_lost_factors_and_terms():
    Z = X[:, :M]
    ((_, cause, sentence),) = said(lambda Z: np.tanh(Z), lambda dY, Z: dY.copy(), Z)
    assert cause == "chain rule factor"
    assert "each entry lacks a factor that depends on Z and not on dY" in sentence

    gated = lambda X, g: np.tanh(X) * g  # noqa: E731
    ((name, cause, sentence),) = said(
        gated, lambda dY, X, g: (dY * (1 - np.tanh(X) ** 2), (dY * np.tanh(X)).sum(0)), X, np.arange(1.0, D + 1)
    )
    assert (name, cause, sentence) == ("X", "chain rule factor", "it is right for g = 1: the factor g is lost.")

    def softmax(Z):
        E = np.exp(Z)
        return E / E.sum(axis=1, keepdims=True)

    ((_, cause, sentence),) = said(softmax, lambda dY, Z: softmax(Z) * dY, rng.standard_normal((4, 4)))
    assert cause == "lost term"
    assert "a term that is a sum over an axis is lost" in sentence
    ((_, cause, sentence),) = said(
        lambda X, T: ((X - T) ** 2).sum(), lambda dL, X, T: (2 * dL * X, 2 * dL * (T - X)), X, 2 * X + 1
    )
    assert (cause, sentence) == ("lost term", "it is right for T = 0: the term with T is lost.")


def test_of_a_kernel():
    def convolved(x, k):
        return np.stack([x[:, i : i + 6] @ k for i in range(x.shape[1] - 5)], 1)

    def backward(dY, x, k, flipped=False):
        dx = np.zeros_like(x)
        for i in range(dY.shape[1]):
            dx[:, i : i + 6] += dY[:, i, None] * (k[::-1] if flipped else k)
        return dx, sum(x[:, i : i + 6].T @ dY[:, i] for i in range(dY.shape[1]))

    x, k = rng.standard_normal((3, 12)), rng.standard_normal(6)
    assert said(convolved, backward, x, k) == []
    assert said(convolved, lambda dY, x, k: backward(dY, x, k, True), x, k) == [
        ("x", "flipped", "it is right for k running backwards along axis 0.")
    ]


def test_of_a_value_kept_from_an_earlier_call():
    kept = []

    def first_only(dY, X, W, b):
        kept.append(X.copy())
        return dY @ W.T, kept[0].T @ dY, dY.sum(0)

    first_only(np.ones((N, M)), 3 * X + 1, W, b)
    ((name, cause, sentence),) = said(linear, first_only, X, W, b)
    assert (name, cause, sentence) == (
        "W",
        "stale",
        "it stays the same when X changes: a value kept from an earlier call.",
    )


def test_of_a_kink():
    relu = lambda X: np.maximum(X, 0)  # noqa: E731
    ((_, cause, _),) = said(relu, lambda dY, X: dY * (X < 0), X)
    assert cause == "kink"


def test_of_nothing_known():
    def net(X, V):
        return np.tanh(X @ S) @ V

    def almost(dY, X, V):
        H = np.tanh(X @ S)
        return ((dY @ V.T) * (1 - H**2)) @ (S.T + noise), H.T @ dY

    noise = rng.standard_normal(S.shape)
    assert said(net, almost, X, rng.standard_normal((D, D))) == [
        ("X", "not recognised", "the mistake is none of those that are recognised.")
    ]


def test_every_wrong_gradient_has_one_and_right_ones_none():
    both = lambda dY, X, W, b: (-dY @ W.T, X.T @ dY, dY.mean(0))  # noqa: E731
    report = xwb.check((linear, both), X, W, b)
    assert [(d.tensor, d.cause) for d in report.diagnosis] == [("X", "sign"), ("b", "mean for sum")]
    assert "dX: it has the wrong sign at every entry." in str(report)
    assert xwb.check(xwb.linear, X, W, b).diagnosis == []


QUICK = [
    layer
    for layer in LAYERS
    if layer.name
    in ("linear 4×3×5", "linear 6×6×6", "convolution, stride 2", "layer norm", "relu", "softmax", "product")
]


@pytest.mark.parametrize("layer", QUICK, ids=lambda layer: layer.name)
def test_of_the_planted_mistakes_of_the_benchmark(layer):
    """benchmarks/checkers.py has all layers and seeds; these are some, with a seed of their own."""
    missed, named, right = [], 0, 0
    for mutant in mutants(layer, 17, np.float64):
        report = xwb.check(mutant.pair, *mutant.arrays)
        if report.ok:
            missed.append(mutant.mutation.name)
        if mutant.mutation.named:
            named += 1
            right += mutant.mutation.is_said_by({d.cause for d in report.diagnosis})
    assert missed == []
    assert right >= 0.9 * named


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_right_gradients_raise_no_alarm(layer, dtype):
    report = xwb.check((layer.forward, layer.backward), *layer.operands(np.random.default_rng(23), dtype))
    assert report.ok, report
