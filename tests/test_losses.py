"""multiclass_hinge and squared_error against PyTorch's autograd, and what all losses have in common."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import xwb
from _losses import K, W, dloss_like, each_dtype, each_reduction, gradient, operands
from _tolerances import assert_close

ALL = [xwb.softmax_cross_entropy, xwb.multiclass_hinge, xwb.squared_error]
KINDS = ["weston_watkins", "crammer_singer"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_squared = pytest.mark.parametrize("squared", [False, True])


def torch_gradient(losses, leaf, reduction, weight=None):
    """`gradient` from the losses of the examples as a torch tensor: Σ weight · loss / Σ weight for the mean."""
    weight = np.ones(losses.shape) if weight is None else weight
    losses = losses * torch.tensor(weight, dtype=losses.dtype)
    value = losses if reduction == "none" else losses.sum() / (weight.sum() if reduction == "mean" else 1)
    value.backward(torch.tensor(dloss_like(value.detach().numpy())) if reduction == "none" else None)
    return value.detach().numpy(), leaf.grad.numpy()


def weight_of(y, sample_weight, class_weight):
    """s_n w_{y_n}, ones where absent."""
    w = 1.0 if class_weight is None else class_weight[y]
    return np.broadcast_to((1.0 if sample_weight is None else sample_weight) * w, y.shape)


# -------------------------------------------------------------------------------------------------------------- hinge


def torch_hinge(Z, y, kind, margin, squared):
    """From the definition; amax shares ties equally, relu has slope 0 at 0."""
    leaf = torch.tensor(Z, requires_grad=True)
    target = torch.tensor(y)[..., None]
    violations = torch.relu(margin + leaf - leaf.gather(-1, target))
    violations = violations * torch.ones_like(leaf).scatter(-1, target, 0)
    if kind == "weston_watkins":
        return (violations**2 if squared else violations).sum(-1), leaf
    worst = violations.amax(-1)
    return worst**2 if squared else worst, leaf


@each_dtype
@each_reduction
@each_squared
@each_kind
@pytest.mark.parametrize("margin", [1.0, 0.25, 0.0, -0.5])
@pytest.mark.parametrize("weights", ["none", "sample", "class", "both"])
@pytest.mark.parametrize("shape", [(7,), (1,), (), (2, 4)])
def test_hinge_agrees_with_pytorch(shape, weights, margin, kind, squared, reduction, dtype):
    Z, y, _, s = operands(shape, dtype)
    s, w = s if weights in ("sample", "both") else None, W if weights in ("class", "both") else None
    if y.size == 1:
        y, s = np.full(shape, 4), None if s is None else s + 1
    value, dZ = gradient(
        xwb.multiclass_hinge,
        Z,
        y,
        reduction,
        kind=kind,
        margin=margin,
        squared=squared,
        sample_weight=s,
        class_weight=w,
    )
    expected, expected_dZ = torch_gradient(*torch_hinge(Z, y, kind, margin, squared), reduction, weight_of(y, s, w))
    assert_close(value, expected, times=2)
    assert_close(dZ, expected_dZ, times=2)


@each_dtype
@each_squared
@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("margin", [1.0, 0.25])
def test_weston_watkins_is_K_times_multi_margin_loss(margin, weight, squared, dtype):
    Z, y, _, _ = operands((7,), dtype)
    leaf = torch.tensor(Z, requires_grad=True)
    losses = torch.nn.functional.multi_margin_loss(
        leaf,
        torch.tensor(y),
        p=2 if squared else 1,
        margin=margin,
        weight=None if weight is None else torch.tensor(weight.astype(dtype)),
        reduction="none",
    )
    value, dZ = gradient(xwb.multiclass_hinge, Z, y, "none", margin=margin, squared=squared, class_weight=weight)
    expected, expected_dZ = torch_gradient(K * losses, leaf, "none")
    assert_close(value, expected)
    assert_close(dZ, expected_dZ)


@each_dtype
@each_squared
def test_ties_share_and_met_margins_rest(squared, dtype):
    Z = np.array([[0, 2, 2, 1], [3, 2, 2, 2], [0, 0, 0, 0]], dtype)  # violations 3, 3, 2; 0, 0, 0; 1, 1, 1
    value, back = xwb.multiclass_hinge(Z, np.zeros(3, int), kind="crammer_singer", squared=squared, reduction="none")
    assert_close(value, np.array([9, 0, 1] if squared else [3, 0, 1], dtype))
    third, half = np.array([-1, 1 / 3, 1 / 3, 1 / 3]), np.array([-1, 0.5, 0.5, 0])
    assert_close(back(), np.array([6 * half, 0 * half, 2 * third] if squared else [half, 0 * half, third], dtype))
    summed = xwb.multiclass_hinge(Z, np.zeros(3, int), squared=squared, reduction="sum")[1]()
    assert summed[1].tolist() == [0, 0, 0, 0]


@each_kind
@each_squared
def test_hinge_of_infinite_scores(kind, squared):
    inf = np.inf
    Z = np.array([[0, -inf, -1], [-inf, 0, -inf], [-inf, -inf, -inf], [inf, 5, -inf], [1e4, -1e4, 0]])
    value, back = xwb.multiclass_hinge(Z, np.zeros(5, int), kind=kind, squared=squared, reduction="none")
    assert value.tolist() == [0, inf, 0, 0, 0]
    dZ = back()
    assert dZ[[0, 2, 3, 4]].tolist() == [[0, 0, 0]] * 4
    slope = inf if squared else 1
    assert dZ[1].tolist() == [-slope, slope, 0]
    large = xwb.multiclass_hinge(Z[4:], np.array([1]), kind=kind)[0]
    assert large == (20001 if kind == "crammer_singer" else 20001 + 10001)
    assert np.isnan(xwb.multiclass_hinge(np.array([[np.nan, 0.0]]), np.array([1]), kind=kind)[0])


# ------------------------------------------------------------------------------------------------------ squared error


@each_dtype
@each_reduction
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(7,), (1,), (), (2, 4)])
def test_squared_error_agrees_with_pytorch(shape, weighted, reduction, dtype):
    Y, _, T, s = operands(shape, dtype)
    s = s + 1 if weighted else None
    leaf = torch.tensor(Y, requires_grad=True)
    losses = torch.nn.functional.mse_loss(leaf, torch.tensor(T), reduction="none").sum(-1)
    value, dY = gradient(xwb.squared_error, Y, T, reduction, sample_weight=s)
    expected, expected_dY = torch_gradient(losses, leaf, reduction, s)
    assert_close(value, expected)
    assert_close(dY, expected_dY)


@each_dtype
@each_reduction
@pytest.mark.parametrize("weights", ["none", "sample", "class", "both"])
def test_squared_error_of_labels(weights, reduction, dtype):
    Y, y, _, s = operands((2, 4), dtype)
    s, w = s if weights in ("sample", "both") else None, W if weights in ("class", "both") else None
    value, dY = gradient(xwb.squared_error, Y, y, reduction, sample_weight=s, class_weight=w)
    leaf = torch.tensor(Y, requires_grad=True)
    losses = ((leaf - torch.nn.functional.one_hot(torch.tensor(y), K)) ** 2).sum(-1)
    expected, expected_dY = torch_gradient(losses, leaf, reduction, weight_of(y, s, w))
    assert_close(value, expected, times=2)
    assert_close(dY, expected_dY, times=2)


def test_squared_error_has_no_half_and_no_division_by_M():
    value, back = xwb.squared_error(np.array([[1.0, 2.0], [0.0, 0.0]]), np.zeros((2, 2)))
    assert value == 2.5
    assert back().tolist() == [[1.0, 2.0], [0.0, 0.0]]


# ---------------------------------------------------------------------------------------------------- laws of all three

LOSSES = {
    "cross-entropy": (xwb.softmax_cross_entropy, {}, True),
    "cross-entropy, smoothed": (xwb.softmax_cross_entropy, {"label_smoothing": 0.1}, True),
    "cross-entropy, ignoring": (xwb.softmax_cross_entropy, {"ignore_index": 1}, True),
    "cross-entropy, probabilities": (xwb.softmax_cross_entropy, {}, False),
    "Weston-Watkins": (xwb.multiclass_hinge, {}, True),
    "Weston-Watkins, squared": (xwb.multiclass_hinge, {"squared": True}, True),
    "Crammer-Singer": (xwb.multiclass_hinge, {"kind": "crammer_singer"}, True),
    "Crammer-Singer, squared": (xwb.multiclass_hinge, {"kind": "crammer_singer", "squared": True}, True),
    "squared error": (xwb.squared_error, {}, False),
    "squared error of labels": (xwb.squared_error, {}, True),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


def problem(name, shape=(6,), dtype=np.float64):
    """The loss, its options, scores and fitting targets, sample weights."""
    loss, options, labels = LOSSES[name]
    Z, y, T, s = operands(shape, dtype)
    return loss, options, Z, (y if labels else T), s


@each_loss
@each_dtype
@each_reduction
def test_no_examples(name, reduction, dtype):
    for shape in ((0,), (2, 0)):
        loss, options, Z, y, _ = problem(name, shape, dtype)
        value, dZ = gradient(loss, Z, y, reduction, **options)
        assert_close(value, np.zeros(shape if reduction == "none" else (), dtype))
        assert_close(dZ, np.zeros((*shape, K), dtype))


@each_loss
@each_dtype
def test_no_weight(name, dtype):
    """A mean whose divisor is zero is 0, even where the loss is infinite."""
    loss, options, Z, y, s = problem(name, dtype=dtype)
    Z[0] = [np.inf, 0, -np.inf, np.nan, 1]
    value, back = loss(Z, y, sample_weight=0 * s, **options)
    assert_close(value, np.zeros((), dtype))
    assert_close(back(), np.zeros_like(Z))


@each_loss
@each_reduction
def test_one_class(name, reduction):
    """Nothing to choose: no loss but the squared error's; ignoring class 0 leaves no example."""
    loss, options, labels = LOSSES[name]
    options = {"ignore_index": 0} if "ignore_index" in options else options
    Z = np.array([[1e4], [-3.0], [0.5]])
    y = np.zeros(3, int) if labels else np.ones((3, 1))
    value, dZ = gradient(loss, Z, y, reduction, **options)
    if loss is not xwb.squared_error:
        assert_close(value, np.zeros(3 if reduction == "none" else ()))
        assert_close(dZ, np.zeros((3, 1)))
    else:
        expected = gradient(loss, Z, np.ones((3, 1)), reduction)
        assert_close(value, expected[0])
        assert_close(dZ, expected[1])


@each_loss
@each_reduction
def test_an_infinite_loss_of_weight_zero_counts_nothing(name, reduction):
    loss, options, Z, y, s = problem(name)
    s[:] = [0, 0, 1, 2, 1, 1]
    Z[0, :2] = [np.inf, np.inf]
    Z[1] = -np.inf
    value, dZ = gradient(loss, Z, y, reduction, sample_weight=s, **options)
    kept, back = loss(Z[2:], y[2:], reduction=reduction, sample_weight=s[2:], **options)
    assert_close(value[2:] if reduction == "none" else value, kept)
    assert_close(dZ[2:], back(dloss_like(value)[2:]) if reduction == "none" else back())
    assert not dZ[:2].any()
    assert not (reduction == "none" and value[:2].any())


@each_loss
@each_reduction
def test_weight_two_is_the_example_twice_and_zero_its_absence(name, reduction):
    loss, options, Z, y, s = problem(name)
    times = s.astype(int)
    assert set(times) >= {0, 2}
    value, back = loss(Z, y, reduction=reduction, sample_weight=s, **options)
    repeated, repeated_back = loss(
        np.repeat(Z, times, axis=0), np.repeat(y, times, axis=0), reduction=reduction, **options
    )
    example = np.repeat(np.arange(len(Z)), times)
    summed = np.zeros_like(Z)
    np.add.at(summed, example, repeated_back())
    assert_close(back(), summed)
    if reduction == "none":
        assert_close(value, np.bincount(example, repeated, minlength=len(Z)))
    else:
        assert_close(value, repeated)


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name][2] and "smoothed" not in name])
@each_reduction
def test_class_weights_are_sample_weights_of_the_labels(name, reduction):
    loss, options, Z, y, s = problem(name)
    classes = gradient(loss, Z, y, reduction, class_weight=W, sample_weight=s, **options)
    samples = gradient(loss, Z, y, reduction, sample_weight=s * W[y], **options)
    assert_close(classes[0], samples[0])
    assert_close(classes[1], samples[1])


@each_loss
def test_reductions_agree(name):
    loss, options, Z, y, _ = problem(name, (2, 3))
    each, each_back = loss(Z, y, reduction="none", **options)
    total, total_back = loss(Z, y, reduction="sum", **options)
    mean, mean_back = loss(Z, y, **options)
    used = np.count_nonzero(y != options["ignore_index"]) if "ignore_index" in options else 6
    assert each.shape == (2, 3)
    assert_close(total, each.sum())
    assert_close(mean * used, total)
    assert_close(each_back(), total_back())
    assert_close(mean_back() * used, total_back())


@each_loss
@each_dtype
@each_reduction
def test_back_is_linear_repeatable_and_mutates_nothing(name, reduction, dtype):
    loss, options, Z, y, s = problem(name, (2, 3), dtype)
    s = s + 1
    before = copy.deepcopy((Z, y, s))
    value, back = loss(Z, y, reduction=reduction, sample_weight=s, **options)
    first = back()
    assert first.dtype == Z.dtype
    assert first.shape == Z.shape
    assert_close(back(-2.5), (-2.5 * first).astype(dtype))
    assert_close(back(np.float64(3)), (3 * first).astype(dtype))
    if reduction == "none":
        u, v = dloss_like(value), dloss_like(value)[::-1]
        assert_close(back((2 * u + v).astype(dtype)), 2 * back(u) + back(v), times=3)
        assert_close(back(u), u[..., None] * first)
    assert np.array_equal(back(), first)
    assert type(value) is (np.ndarray if reduction == "none" else dtype)
    for array, kept in zip((Z, y, s), before, strict=True):
        assert np.array_equal(array, kept)


@each_loss
def test_finite_differences(name):
    loss, options, Z, y, s = problem(name, (3,))
    dZ = loss(Z, y, sample_weight=s + 1, **options)[1]()
    numeric = np.zeros_like(Z)
    for at in np.ndindex(Z.shape):
        step = np.zeros_like(Z)
        step[at] = 1e-6
        upper, lower = (loss(Z + sign * step, y, sample_weight=s + 1, **options)[0] for sign in (1, -1))
        numeric[at] = (upper - lower) / 2e-6
    np.testing.assert_allclose(dZ, numeric, atol=1e-8 * max(1, np.abs(dZ).max()))


def test_of_scores_and_targets_saved_borrows_only_probabilities():
    Z, y, T, _ = operands((4,), np.float64)
    assert xwb.softmax_cross_entropy.forward(Z, T)[1].target.T.base is T
    for loss, target in ((xwb.softmax_cross_entropy, y), (xwb.multiclass_hinge, y), (xwb.squared_error, T)):
        back = loss(Z, target)[1]
        dZ = back()
        Z, Z_before = Z + 0, Z
        Z_before[...] = np.nan
        assert np.array_equal(back(), dZ)


@pytest.mark.parametrize("rule", ALL)
def test_variants_name_options_that_exist(rule):
    for options, formula in rule.variants:
        assert set(options) <= set(rule.options)
        assert formula.startswith("L[n] = " if options.get("reduction") == "none" else "L = ")
        assert ("sum[n](" in formula) == (options.get("reduction") == "sum" or " / sum[n" in formula)


# --------------------------------------------------------------------------------------------------------- the errors

Z0, Y0 = np.zeros((4, 3)), np.zeros(4, np.int64)
SHARED_ERRORS = [
    (xwb.DtypeError, r"neither float32 nor float64[\s\S]*astype\(np.float32\)", Z0.astype(int), Y0, {}),
    (xwb.ShapeError, r"shape \(\); it needs a last axis", np.asarray(0.0), Y0, {}),
    (xwb.ShapeError, r"shape \(4, 0\); it needs a last axis", Z0[:, :0], Y0, {}),
    (xwb.OptionError, "reduction='avg' is none of 'mean', 'sum', 'none'", Z0, Y0, {"reduction": "avg"}),
    (xwb.DtypeError, r"is bool, and labels are integers[\s\S]*\.astype\(np.int64\)", Z0, Y0 > 0, {}),
    (xwb.ShapeError, r"do not fit [\s\S]*\(4, 1\)[\s\S]*type  . = .\[\.\.\., 0\]", Z0, Y0[:, None], {}),
    (xwb.ShapeError, r"One label per example: . must have shape \(4,\)", Z0, Y0[:2], {}),
    (xwb.DataError, r".\[2\] is 3, which is no class: . has [KM] = 3.* to 2$", Z0, np.array([0, 2, 3, -1]), {}),
    (xwb.DataError, r".\[1\] is 3, which is no class", Z0, np.array([0, 3, 1, 0]), {}),
    (xwb.DataError, r".\[1\] is -1, which is no class", Z0, np.array([0, -1, 3, 0]), {}),
    (xwb.DataError, r". is 7, which is no class", Z0[0], np.array(7), {}),
    (xwb.ShapeError, r"sample_weight has shape \(4, 1\) and needs \(4,\)", Z0, Y0, {"sample_weight": np.ones((4, 1))}),
    (xwb.ShapeError, r"sample_weight has shape \(\) and needs \(4,\)", Z0, Y0, {"sample_weight": 2.0}),
    (xwb.DataError, r"sample_weight\[1\] is -1.0", Z0, Y0, {"sample_weight": [1, -1.0, 0, 0]}),
    (xwb.DataError, r"sample_weight\[3\] is nan", Z0, Y0, {"sample_weight": [1, 1, 0, np.nan]}),
    (xwb.DataError, r"class_weight\[0\] is inf", Z0, Y0, {"class_weight": [np.inf, 1, 0]}),
    (xwb.DataError, r"1e\+300.*float32", Z0.astype(np.float32), Y0, {"class_weight": [1, 1, 1e300]}),
    (xwb.ShapeError, r"class_weight has shape \(2,\) and needs \(3,\)", Z0, Y0, {"class_weight": [1, 2]}),
    (xwb.DtypeError, "class_weight is complex128", Z0, Y0, {"class_weight": [1j, 1, 1]}),
]  # fmt: skip


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("case", range(len(SHARED_ERRORS)))
def test_errors_of_all(loss, case):
    kind, message, Z, y, options = SHARED_ERRORS[case]
    with pytest.raises(kind, match=message) as raised:
        loss(Z, y, **options)
    assert str(raised.value).startswith(loss.call + ":")
    assert "ignore_index" not in str(raised.value) or loss is xwb.softmax_cross_entropy


@pytest.mark.parametrize("loss", ALL)
def test_dloss_errors(loss):
    _, back = loss(Z0, Y0)
    with pytest.raises(xwb.ShapeError, match=r"dloss has shape \(1,\); with reduction='mean' it is a number"):
        back(np.ones(1))
    _, back = loss(Z0, Y0, reduction="none")
    with pytest.raises(xwb.ShapeError, match=r"a number or has the loss's shape \(4,\)"):
        back(np.ones((4, 1)))
    with pytest.raises(xwb.DtypeError, match=r"dloss = dloss.astype\(np.float64\)"):
        back(np.ones(4, np.float32))


def test_errors_of_the_hinge():
    for option, message in (
        ({"kind": "one_vs_rest"}, "kind='one_vs_rest' is none of 'weston_watkins', 'crammer_singer'"),
        ({"margin": np.inf}, "margin=inf is not a finite number"),
    ):
        with pytest.raises(xwb.OptionError, match=message):
            xwb.multiclass_hinge(Z0, Y0, **option)
    with pytest.raises(xwb.DtypeError, match=r"y must be integer labels[\s\S]*y = y.argmax\(-1\)"):
        xwb.multiclass_hinge(Z0, Z0)


@pytest.mark.parametrize(
    ("Y", "T", "kind", "message"),
    [
        (Z0[:, :1], Z0[:, 0], xwb.ShapeError, r"T does not fit Y[\s\S]*nothing is broad[\s\S]*T = T\[\.\.\., None\]"),
        (Z0[:, 0], Z0[:, :1], xwb.ShapeError, r"T does not fit Y[\s\S]*Y = Y\[\.\.\., None\]"),
        (Z0, Z0[:, 0], xwb.ShapeError, r"T does not fit Y[\s\S]*T = T.astype\(np.int64\)"),
        (Z0, Z0.astype(np.float32), xwb.DtypeError, r"T = T.astype\(np.float64\)"),
        (Z0, Z0.astype(np.int64), xwb.ShapeError, r"for values type  T = T.astype\(np.float64\)"),
    ],
)  # fmt: skip
def test_errors_of_squared_error(Y, T, kind, message):
    with pytest.raises(kind, match=message):
        xwb.squared_error(Y, T)


def test_class_weights_need_labels():
    with pytest.raises(xwb.OptionError, match="class_weight needs labels"):
        xwb.squared_error(Z0, Z0, class_weight=[1, 2, 3])
