"""The scoreboard's own footing: its right layers are right, and every mistake it plants changes a gradient."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from _tolerances import assert_close

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from _mutations import BY_NAME, CAUSES, MUTATIONS, Case, mutants
from _zoo import LAYERS

DTYPES = [np.float64, np.float32]


def affine(X, W, b):
    return X @ W + b


def hinge(Z, y):
    return functional.multi_margin_loss(Z, y, reduction="sum") * Z.shape[1] / len(y)  # PyTorch divides by the classes


# The same layers as others wrote them; autograd derives their gradients.
IN_TORCH = {
    "linear 4×3×5": affine,
    "linear 6×6×6": affine,
    "linear 32×48×24": affine,
    "linear, small units": affine,
    "tanh of linear": lambda X, W, b: torch.tanh(X @ W + b),
    "relu": torch.relu,
    "linear, relu, linear": lambda X, W1, b1, W2, b2: torch.relu(X @ W1 + b1) @ W2 + b2,
    "convolution 3×3": lambda X, K: functional.conv2d(X, K, padding=1),
    "convolution, stride 2": lambda X, K: functional.conv1d(X, K, stride=2),
    "attention": functional.scaled_dot_product_attention,
    "layer norm": lambda X, g, b: functional.layer_norm(X, g.shape, g, b),
    "batch norm": lambda X, g, b: functional.batch_norm(X, None, None, g, b, training=True),
    "softmax": lambda Z: torch.softmax(Z, dim=1),
    "softmax cross-entropy": functional.cross_entropy,
    "multiclass hinge": hinge,
    "squared error": lambda P, T: functional.mse_loss(P, T) * P.shape[1],
    "gather": lambda E, i: functional.embedding(i, E),
    "max": lambda X: X.max(dim=1).values,
    "product": lambda X: X.prod(dim=1),
    "quadratic form": lambda X, A: torch.stack([x @ A @ x for x in X]),
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
    "matrix product": torch.matmul,
    "bilinear": lambda X, A, Z: functional.bilinear(X, Z, A),
    "low-rank adapter": lambda X, W, A, B: X @ (W + 3 * A @ B),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_the_right_pairs_are_right(layer, dtype):
    for seed in range(3):
        case = Case(layer, seed, dtype)
        tensors = [torch.tensor(array) for array in case.arrays]
        for i in case.floats:
            tensors[i].requires_grad_()
        Y = IN_TORCH[layer.name](*tensors)
        # Norms divide by what a difference left over: times 20.
        assert_close(layer.forward(*case.arrays), Y.detach(), times=20)
        expected = torch.autograd.grad(Y, [tensors[i] for i in case.floats], torch.tensor(case.dY))
        for i, grad in zip(case.floats, expected, strict=True):
            assert_close(case.grads[i], grad, times=20)
        assert [case.grads[i] for i in range(len(tensors)) if i not in case.floats] == [None] * (
            len(tensors) - len(case.floats)
        )


def test_the_layers_are_of_a_size_to_check_entry_by_entry():
    assert len(LAYERS) >= 16
    assert len({layer.name for layer in LAYERS}) == len(LAYERS)
    for layer in LAYERS:
        arrays = Case(layer, 0, np.float64).arrays
        assert 10 <= sum(array.size for array in arrays) <= 3000, layer.name
        assert 2 not in {size for array in arrays for size in array.shape}, layer.name  # factor 2 would be ambiguous


def test_the_mutations():
    assert len(MUTATIONS) >= 24
    assert len(BY_NAME) == len(MUTATIONS)
    assert {mutation.cause for mutation in MUTATIONS if mutation.named} == set(CAUSES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_mutant_is_wrong_in_the_dtype_of_the_layer(dtype):
    planted = Counter()
    for layer in LAYERS:
        case = Case(layer, 1, dtype)
        for mutation, (forward, backward), arrays in mutants(layer, 1, dtype):
            planted[mutation.name] += 1
            assert forward is layer.forward
            assert set(mutation.also) <= set(CAUSES)
            for array, expected in zip(arrays, case.arrays, strict=True):
                np.testing.assert_array_equal(array, expected)
            grads = [g for g in backward(case.dY, *arrays) if g is not None]
            right = [g for g in case.grads if g is not None]
            assert [g.dtype for g in grads] == [dtype] * len(right)
            close = [
                g.shape == r.shape
                and np.allclose(g, r, rtol=0, atol=(1e-12 if dtype is np.float64 else 1e-5) * np.abs(r).max())
                for g, r in zip(grads, right, strict=True)
            ]
            assert not all(close), (layer.name, mutation.name, mutation.detail)
    only_float64 = {"scale 1 + 1e-6"} if dtype is np.float32 else set()
    assert set(BY_NAME) - set(planted) == only_float64


def test_a_mutant_is_the_same_every_time():
    layer = LAYERS[0]
    dY = Case(layer, 0, np.float64).dY
    first, again = ([m.pair[1](dY, *m.arrays) for m in mutants(layer, 0, np.float64)] for _ in range(2))
    for grads, others in zip(first, again, strict=True):
        for g, o in zip(grads, others, strict=True):
            np.testing.assert_array_equal(g, o)


def test_what_leaves_the_gradient_as_it_is_is_counted_and_not_planted():
    quadratic = next(layer for layer in LAYERS if layer.name == "quadratic form")  # dA = Σ dy x xᵀ is symmetric
    unchanged = Counter()
    planted = [mutant.mutation.name for mutant in mutants(quadratic, 0, np.float64, unchanged)]
    assert unchanged["transposed"] == 1
    assert "transposed" not in planted


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_equal_mistakes_have_a_cause_in_common(layer):
    """A report sees numbers alone: it cannot tell two mistakes apart that make the same gradients."""
    case = Case(layer, 0, np.float64)
    planted = [(mutation, pair[1](case.dY, *arrays)) for mutation, pair, arrays in mutants(layer, 0, np.float64)]
    for (one, grads), (other, others) in itertools.combinations(planted, 2):
        if all(
            a is b is None or (a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12))
            for a, b in zip(grads, others, strict=True)
        ):
            assert one.is_said_by({other.cause, *other.also}), (one, other)
