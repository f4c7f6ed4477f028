"""softmax_cross_entropy against PyTorch's autograd, option by option and in their products."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import xwb
from _losses import REDUCTIONS, K, W, dloss_like, each_dtype, each_reduction, gradient, operands
from _tolerances import assert_close
from xwb.layers import _cross_entropy


def by_torch(Z, y, reduction, s=None, divisor=None, **options):
    """torch's own cross_entropy; with sample weights s or another divisor, that of its ``reduction="none"``."""
    leaf = torch.tensor(Z, requires_grad=True)
    target = torch.tensor(y)
    flat = target.reshape(-1, K) if target.is_floating_point() else target.reshape(-1)
    if options.get("weight") is not None:
        options["weight"] = torch.tensor(options["weight"].astype(Z.dtype))
    plain = s is None and divisor is None
    value = torch.nn.functional.cross_entropy(
        leaf.reshape(-1, K), flat, reduction=reduction if plain else "none", **options
    )
    if value.ndim:
        value = value.reshape(Z.shape[:-1])
    if not plain:
        value = value if s is None else value * torch.tensor(s)
        value = value if reduction == "none" else value.sum() / (divisor if reduction == "mean" else 1)
    value.backward(torch.tensor(dloss_like(value.detach().numpy())) if reduction == "none" else None)
    return value.detach().numpy(), leaf.grad.numpy()


@each_dtype
@each_reduction
@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize("shape", [(7,), (1,), (), (2, 3), (2, 1, 3)])
def test_labels_agree_with_pytorch(shape, ignored, smoothing, weight, reduction, dtype):
    Z, y, _, _ = operands(shape, dtype)
    if y.size == 1:
        y = np.full(shape, 4)  # not ignored, not of weight zero: PyTorch's mean would be NaN
    value, dZ = gradient(
        xwb.softmax_cross_entropy,
        Z,
        y,
        reduction=reduction,
        class_weight=weight,
        label_smoothing=smoothing,
        ignore_index=ignored,
    )
    expected, expected_dZ = by_torch(
        Z, y, reduction, weight=weight, label_smoothing=smoothing, ignore_index=-100 if ignored is None else ignored
    )
    assert_close(value, expected, times=2)
    assert_close(dZ, expected_dZ, times=2)


@each_dtype
@each_reduction
@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(7,), (1,), (), (2, 3)])
def test_probabilities_agree_with_pytorch(shape, smoothing, weight, reduction, dtype):
    """But for the divisor of a weighted mean: PyTorch divides by N, we by the weights."""
    Z, _, T, _ = operands(shape, dtype)
    options = {"reduction": reduction, "class_weight": weight, "label_smoothing": smoothing}
    divisor = None if weight is None else float((T * W).sum())
    value, dZ = gradient(xwb.softmax_cross_entropy, Z, T, **options)
    expected, expected_dZ = by_torch(Z, T, reduction, divisor=divisor, weight=weight, label_smoothing=smoothing)
    assert_close(value, expected, times=2)
    assert_close(dZ, expected_dZ, times=2)


@each_dtype
@each_reduction
@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target", ["labels", "ignored", "probabilities"])
def test_sample_weights(target, smoothing, weight, reduction, dtype):
    """s_n times PyTorch's loss of each example, over Σ s_n w_{y_n} of those used, or Σ s_n Σ_k w_k T_nk."""
    Z, y, T, s = operands((2, 4), dtype)
    w = np.ones(K) if weight is None else weight
    soft = target == "probabilities"
    share = (T * w).sum(-1) if soft else w[y] * ((y != 2) if target == "ignored" else 1)
    ignored = {"ignore_index": 2} if target == "ignored" else {}
    value, dZ = gradient(
        xwb.softmax_cross_entropy,
        Z,
        T if soft else y,
        reduction=reduction,
        sample_weight=s,
        class_weight=weight,
        label_smoothing=smoothing,
        **ignored,
    )
    expected, expected_dZ = by_torch(
        Z, T if soft else y, reduction, s, float((s * share).sum()), weight=weight, label_smoothing=smoothing, **ignored
    )
    assert_close(value, expected, times=2)
    assert_close(dZ, expected_dZ, times=2)


CORNERS = list(itertools.product(["labels", "probabilities"], REDUCTIONS, [False, True], [False, True], [0.0, 0.1]))


@each_dtype
@pytest.mark.parametrize("block", [1, 12])
def test_blocks_change_nothing(block, dtype, monkeypatch):
    """Rows are taken in blocks; one row, or two with a remainder, at a time."""
    Z, y, T, s = operands((7,), dtype)

    def everything():
        return [
            gradient(
                xwb.softmax_cross_entropy,
                Z,
                y if target == "labels" else T,
                reduction=reduction,
                sample_weight=s if weighed else None,
                class_weight=W if classes else None,
                label_smoothing=smoothing,
            )
            for target, reduction, weighed, classes, smoothing in CORNERS
        ]

    whole = everything()
    monkeypatch.setattr(_cross_entropy, "BLOCK", block)
    for (value, dZ), (expected, expected_dZ) in zip(everything(), whole, strict=True):
        assert_close(value, expected)
        assert_close(dZ, expected_dZ)


@each_dtype
def test_many_classes(dtype):
    rng = np.random.default_rng(0)
    Z, y = rng.standard_normal((3, 70_000)).astype(dtype), np.array([69_999, 0, 35_000], np.uint32)
    value, back = xwb.softmax_cross_entropy(Z, y)
    expected, expected_back = xwb.softmax_cross_entropy(Z.astype(np.float64), y)
    reference = torch.nn.functional.cross_entropy(torch.tensor(Z, dtype=torch.float64), torch.tensor(y.astype(int)))
    assert_close(expected, reference.numpy())
    assert_close(value, expected.astype(dtype))
    assert_close(back(), expected_back().astype(dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i4"])
def test_labels_of_any_integer_dtype(dtype):
    rng = np.random.default_rng(0)
    Z, y = rng.standard_normal((4, 100)), np.array([0, 99, 50, 7])
    value, back = xwb.softmax_cross_entropy(Z, y.astype(dtype))
    expected, expected_back = xwb.softmax_cross_entropy(Z, y)
    assert value == expected
    assert np.array_equal(back(), expected_back())


def test_scores_of_any_strides():
    Z, y, T, _ = operands((6,), np.float64)
    for target in (y, T):
        expected, expected_back = xwb.softmax_cross_entropy(Z, target)
        for view in (np.asfortranarray(Z), np.repeat(Z, 2, axis=1)[:, ::2], Z[::-1].copy()[::-1]):
            value, back = xwb.softmax_cross_entropy(view, target)
            assert_close(value, expected)
            assert_close(back(), expected_back())


# ----------------------------------------------------------------------------------------------------------- the laws


@each_reduction
@pytest.mark.parametrize("options", [{}, {"class_weight": W}, {"class_weight": W, "label_smoothing": 0.1}])
def test_one_hot_probabilities_are_labels(options, reduction):
    Z, y, _, s = operands((2, 4), np.float64)
    for weights in ({}, {"sample_weight": s}):
        labels = gradient(xwb.softmax_cross_entropy, Z, y, reduction=reduction, **options, **weights)
        onehot = gradient(xwb.softmax_cross_entropy, Z, np.eye(K)[y], reduction=reduction, **options, **weights)
        assert_close(labels[0], onehot[0])
        assert_close(labels[1], onehot[1])


def test_smoothing_mixes_the_labels_with_all_classes():
    Z, y, _, _ = operands((7,), np.float64)
    mixed = 0.9 * np.eye(K)[y] + 0.1 / K
    smooth = gradient(xwb.softmax_cross_entropy, Z, y, reduction="mean", label_smoothing=0.1)
    expected = gradient(xwb.softmax_cross_entropy, Z, mixed, reduction="mean")
    assert_close(smooth[0], expected[0])
    assert_close(smooth[1], expected[1])


@each_reduction
def test_ignoring_is_leaving_out(reduction):
    """Also when the scores of an ignored example are NaN, −inf throughout, or +inf."""
    Z, y, _, _ = operands((8,), np.float64)
    used = y != 3
    Z[~used] = np.array([np.nan, -np.inf])[:, None][: (~used).sum()]
    Z[np.flatnonzero(~used)[0], 0] = np.inf
    s = np.where(used, 1.0, 0.0)
    for options in ({"ignore_index": 3}, {"sample_weight": s}):
        value, dZ = gradient(xwb.softmax_cross_entropy, Z, y, reduction=reduction, **options)
        kept, back = xwb.softmax_cross_entropy(Z[used], y[used], reduction=reduction)
        expected = back(dloss_like(value)[used]) if reduction == "none" else back()
        assert_close(value[used] if reduction == "none" else value, kept)
        assert_close(dZ[used], expected)
        assert not dZ[~used].any()
        assert not (reduction == "none" and value[~used].any())


@pytest.mark.parametrize("label", [-100, -1, 10**12])
def test_the_ignored_label_need_not_be_a_class(label):
    Z, _, _, _ = operands((3,), np.float64)
    value, back = xwb.softmax_cross_entropy(Z, np.array([0, label, 4]), ignore_index=label)
    assert_close(value, xwb.softmax_cross_entropy(Z[::2], np.array([0, 4]))[0])
    assert not back()[1].any()


# ------------------------------------------------------------------------------------------------------- the extremes


@each_dtype
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_large_scores(smoothing, dtype):
    Z = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4]], dtype)
    value, dZ = gradient(xwb.softmax_cross_entropy, Z, np.array([1, 0, 2]), reduction="none", label_smoothing=smoothing)
    leaf = torch.tensor(Z, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        leaf, torch.tensor([1, 0, 2]), reduction="none", label_smoothing=smoothing
    )
    expected.backward(torch.tensor(dloss_like(value)))
    assert_close(value, expected.detach().numpy())
    assert_close(dZ, leaf.grad.numpy())


@each_dtype
def test_scores_of_minus_infinity(dtype):
    Z = np.array([[0, -np.inf, 0], [-np.inf, 1, -np.inf]], dtype)
    value, back = xwb.softmax_cross_entropy(Z, np.array([0, 1]), reduction="none")
    assert_close(value, np.array([np.log(2), 0], dtype))
    assert_close(back(), np.array([[-0.5, 0, 0.5], [0, 0, 0]], dtype))
    impossible, back = xwb.softmax_cross_entropy(Z, np.array([1, 0]))
    assert impossible == np.inf
    assert_close(back(), np.array([[0.5, -1, 0.5], [-1, 1, 0]], dtype) / 2)


def test_what_has_no_target_costs_nothing():
    """0 · log 0 = 0, where PyTorch gives NaN."""
    Z = np.array([[0.0, -np.inf, 0.0]])
    value, back = xwb.softmax_cross_entropy(Z, np.array([[0.5, 0.0, 0.5]]))
    assert_close(value, np.float64(np.log(2)))
    assert_close(back(), np.zeros((1, 3)))
    unweighted = xwb.softmax_cross_entropy(
        Z, np.array([0]), class_weight=[1, 0, 1], label_smoothing=0.3, reduction="sum"
    )[0]
    assert_close(unweighted, np.float64(np.log(2) * (0.7 + 0.3 * 2 / 3)))
    assert xwb.softmax_cross_entropy(Z, np.array([1]), class_weight=[1, 0, 1], reduction="sum")[0] == 0


def test_a_row_without_any_possible_class_is_nan():
    for row in ([-np.inf] * 3, [np.inf, 0.0, 0.0]):
        assert np.isnan(xwb.softmax_cross_entropy(np.array([row]), np.array([0]))[0])


# --------------------------------------------------------------------------------------------------------- the errors


Z0, Y0, T0 = np.zeros((4, 3)), np.zeros(4, np.int64), np.full((4, 3), 1 / 3)
ERRORS = {
    "probabilities of another dtype": (
        xwb.DtypeError, r"mix float32 and float64[\s\S]*y = y.astype\(np.float64\)", T0.astype(np.float32), {},
    ),
    "probabilities of another shape": (
        xwb.ShapeError, r"neither as labels nor as probabilities[\s\S]*\(4, 3\)[\s\S]*\(4, 2\)", T0[:, :2], {},
    ),
    "ignoring probabilities": (xwb.OptionError, "is a label, and y holds probabilities", T0, {"ignore_index": 0}),
    "ignore_index no integer": (xwb.OptionError, "ignore_index=0.5 is not an integer", Y0, {"ignore_index": 0.5}),
    "smoothing": (xwb.OptionError, "label_smoothing=1.5 is not between 0 and 1", Y0, {"label_smoothing": 1.5}),
    "smoothing NaN": (xwb.OptionError, "label_smoothing=nan", Y0, {"label_smoothing": np.nan}),
    "floats as labels": (xwb.DtypeError, r"labels are integers[\s\S]*y = y.astype\(np.int64\)", np.zeros(4), {}),
    "negative label": (
        xwb.DataError, r"y\[3\] is -100[\s\S]*run from 0 to 2\n.*ignore_index=-100", np.array([0, 1, 2, -100]), {},
    ),
    "integers as one-hot": (
        xwb.ShapeError, r"y = y.argmax\(-1\); for values type  y = y.astype\(np.float64\)", np.eye(4, 3, dtype=int), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    kind, message, y, options = ERRORS[name]
    with pytest.raises(kind, match=message):
        xwb.softmax_cross_entropy(Z0, y, **options)
