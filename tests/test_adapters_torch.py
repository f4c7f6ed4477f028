"""The check of PyTorch's functions: right ones pass, planted mistakes do not, and nothing of the caller's changes."""

from __future__ import annotations

import concurrent.futures
import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import xwb
from xwb.adapters.torch import _subject, _tensor, check

generator = torch.Generator().manual_seed(0)


def randn(*shape, dtype=torch.float32, device="cpu"):
    return torch.randn(*shape, generator=generator, dtype=dtype).to(device)


X, W, b = randn(4, 3), randn(3, 2), randn(2)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def affine(backward):
    """Y = XW + b as a Function with this ``backward(dY, X, W, b)``."""

    class Affine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, X, W, b):
            ctx.save_for_backward(X, W, b)
            return X @ W + b

        @staticmethod
        def backward(ctx, dY):
            return backward(dY, *ctx.saved_tensors)

    return Affine


def right(dY, X, W, b):
    return dY @ W.T, X.T @ dY, dY.sum(0)


class Scaled(torch.autograd.Function):
    """The newer way to write one: forward without a context."""

    @staticmethod
    def forward(X, factor):
        return X * factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, dY):
        return dY * ctx.factor, None


def names(report):
    return [row.name for row in report.rows]


def gradient_penalty(X):
    (slope,) = torch.autograd.grad((X**3).sum(), X, create_graph=True)
    return (slope**2).sum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("function", "inputs", "options", "expected"),
    [
        (lambda X, W: torch.tanh(X @ W), (X, W), {}, ["X", "W"]),
        (affine(right), (X, W, b), {}, ["X", "W", "b"]),
        (affine(right).apply, (X, W, b), {}, ["X", "W", "b"]),
        (Scaled, (X, 2.5), {}, ["X"]),
        (functional.linear, (X, W.T, None), {}, ["input 1", "input 2"]),
        (functional.layer_norm, (X, (3,), randn(3)), {"eps": 1e-3}, ["input", "weight"]),
        (lambda X, picked: X[picked], (X, torch.tensor([0, 2, 2])), {}, ["X"]),
        (lambda X, kept: torch.where(kept, X, 0.0), (X, X.detach() > 0), {}, ["X"]),
        (gradient_penalty, (X,), {}, ["X"]),
        (nn.CrossEntropyLoss(), (X, torch.tensor([0, 2, 1, 1])), {}, ["input"]),
        (nn.Embedding(5, 2, sparse=True), (torch.tensor([1, 4, 1]),), {}, ["weight"]),
        (nn.Sequential(nn.Linear(3, 2), nn.Tanh()), (X,), {}, ["input", "0.weight", "0.bias"]),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)), (X,), {}, ["input", "0.weight", "0.bias"]),
        (nn.BatchNorm1d(3).eval(), (X,), {}, ["input", "weight", "bias"]),
    ],
)
def test_right_functions_pass(function, inputs, options, expected, dtype):
    if isinstance(function, nn.Module):
        function.to(dtype)
    given = [x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs]
    report = check(function, *given, **options)
    report.raise_if_wrong()
    assert names(report) == expected
    assert report.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.mean(0)), "b"),
        (lambda dY, X, W, b: (dY @ W.T, 2 * X.T @ dY, dY.sum(0)), "W"),
        (lambda dY, X, W, b: (-dY @ W.T, X.T @ dY, dY.sum(0)), "X"),
        (lambda dY, X, W, b: (dY @ W.T, X[1:].T @ dY[1:], dY.sum(0)), "W"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, None), "b"),
        (lambda dY, X, W, b: (torch.ones_like(dY) @ W.T, X.T @ dY, dY.sum(0)), "X"),
        (lambda dY, X, W, b: (dY @ W.T, (X.T @ dY).detach().index_fill(1, torch.tensor(1), 0), dY.sum(0)), "W"),
    ],
)
def test_planted_mistakes_are_found_and_named(planted, name):
    report = check(affine(planted), X, W, b)
    assert [row.name for row in report.rows if not row.ok] == [name]
    assert str(report).startswith(f"Affine(X, W, b): d{name} disagrees")


def test_a_mistake_inside_a_module_is_found():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(W.clone()), nn.Parameter(b.clone())

        def forward(self, X):
            mean = affine(lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.mean(0)))
            return mean.apply(X, self.weight, self.bias)

    report = check(nn.Sequential(nn.Linear(3, 3), Layer()), X)
    assert [row.name for row in report.rows if not row.ok] == ["1.bias"]


def test_what_autograd_says_y_does_not_depend_on_has_the_gradient_zero():
    report = check(lambda X, W: X @ W.detach(), X, W)
    assert [(row.name, row.ok, row.closed_form) for row in report.rows][1:] == [("W", False, 0)]
    assert not check(lambda X: X.detach() ** 2, X).ok
    assert check(lambda X, unused: X**2, X, W).ok


class TestNothingOfTheCallersChanges:
    def test_a_module(self):
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None), nn.Dropout(0.3), nn.Linear(4, 2))
        net[0].weight.requires_grad_(False)
        net[2].eval()
        net[3].bias.grad = torch.ones(2)
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        state = torch.get_rng_state()
        check(net, X)
        assert torch.equal(torch.get_rng_state(), state)
        after = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        assert all(after[name] is tensors[name] and torch.equal(after[name], copies[name]) for name in tensors)
        assert [module.training for module in net] == [True, True, False, True]
        assert torch.equal(net[3].bias.grad, torch.ones(2))
        assert net[3].weight.grad is None
        assert not net[0].weight.requires_grad
        assert net[3].weight.requires_grad

    def test_tensors(self):
        leaf = X.clone().requires_grad_()
        inner = leaf * 2
        copy = inner.detach().clone()
        check(affine(right), inner, W, b).raise_if_wrong()
        assert leaf.grad is None
        assert W.grad is None
        assert not W.requires_grad
        assert torch.equal(inner, copy)

    def test_where_the_function_writes_into_its_input(self):
        def writing(dY, X, W, b):
            X.data.zero_()
            return right(dY, X, W, b)

        given = X.clone()
        assert not check(affine(writing), given, W, b).ok
        assert torch.equal(given, X)


def test_every_evaluation_draws_the_same_and_the_seed_says_what():
    draws = []

    def noisy(X):
        noise = torch.rand(X.shape)
        draws.extend([noise] if X.shape == (4, 3) else [])
        return X * noise

    check(noisy, X, seed=3).raise_if_wrong()
    assert len(draws) > 2
    assert all(torch.equal(noise, draws[0]) for noise in draws)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(X.shape), draws[0])


def test_a_module_that_computes_again_on_the_way_back():
    """A checkpoint must find the parameters of its own evaluation, not those of the module."""

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, X):
            return checkpoint(lambda X: torch.tanh(self.inner(X)), X, use_reentrant=False)

    net = Checkpointed()
    check(net, X).raise_if_wrong()
    subject = _subject(net, (X,), {})
    moved = [subject.arrays[0], *(2 * array for array in subject.arrays[1:])]
    Y, _, back = subject.run(*moved)
    expected = ((1 - Y**2).T @ moved[0], (1 - Y**2).sum(0))
    for grad, right in zip(back(np.ones_like(Y))[1:], expected, strict=True):
        assert np.abs(grad - right).max() < 1e-5


def test_frozen_parameters_are_not_checked_and_tied_ones_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    report = check(net, X)
    report.raise_if_wrong()
    assert names(report) == ["input", "0.weight", "1.bias"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter(mode):
    with mode():
        check(affine(right), X * 2, W, b).raise_if_wrong()
        check(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False).eval()), X * 2).raise_if_wrong()


def test_float32_is_computed_in_float64_where_the_function_takes_it():
    norm = nn.BatchNorm1d(3).eval()
    for function in (torch.tanh, norm):
        subject = _subject(function, (X,), {})
        wide = subject.value(*(array.astype(np.float64) for array in subject.arrays))
        assert wide.dtype == np.float64
        assert subject.value(*subject.arrays).dtype == np.float32
    exact = norm.double()(X.double()).detach().numpy()
    assert np.abs(wide - exact).max() < 1e-12


@pytest.mark.parametrize("refuses", [True, False])
def test_a_function_of_float32_alone(refuses):
    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(ctx, X):
            if refuses and X.dtype != torch.float32:
                raise TypeError("float32 only")
            ctx.save_for_backward(X)
            return X.float() ** 2

        @staticmethod
        def backward(ctx, dY):
            return 2 * ctx.saved_tensors[0] * dY

    subject = _subject(Kernel, (X,), {})
    assert np.array_equal(subject.value(*subject.arrays), (X**2).numpy())
    if refuses:
        with pytest.raises(TypeError, match="float32 only"):
            subject.value(X.double().numpy())
    else:
        assert subject.value(X.double().numpy()).dtype == np.float32


def test_the_way_back_may_be_called_again_and_keeps_nothing_shared():
    subject = _subject(lambda X, W: X * W, (X, X), {})
    handed = [array.copy() for array in subject.arrays]
    Y, _, back = subject.run(*handed)
    dY = np.ones_like(Y)
    first, second = back(dY), back(2 * dY)
    assert np.array_equal(second[0], 2 * first[0])
    Y_sum, _, back_sum = _subject(lambda X, W: X + W, (X, X), {}).run(*handed)
    arrays = [*handed, Y, Y_sum, dY, *first, *second, *back_sum(dY)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_arrays_of_any_layout_are_taken():
    subject = _subject(lambda X: X * 2, (X,), {})
    fixed = subject.arrays[0].copy()
    fixed.flags.writeable = False
    for array in (
        fixed,
        fixed.copy()[::-1],
        fixed.copy()[:, ::-1].T,
        np.broadcast_to(fixed[0], (4, 3)),
        fixed[:0],
        fixed[1, 2],
    ):
        assert np.array_equal(subject.value(array), 2 * array)


def test_what_a_function_saved_is_seen():
    subject = _subject(affine(right), (X, W, b), {})
    saved = subject.run(*subject.arrays).saved
    assert [array.shape for array in saved] == [(4, 3), (3, 2), (2,)]
    assert subject.run(*_subject(torch.tanh, (X,), {}).arrays, W.numpy(), b.numpy()).Y.shape == (4, 2)


def test_complex_inputs_reach_the_function():
    subject = _subject(lambda X: X**2, (X.double(),), {})
    array = X.double().numpy()
    assert np.allclose(subject.value(array + 1e-30j).imag, 2e-30 * array)


@pytest.mark.parametrize("draws", [False, True])
def test_two_threads_at_once(draws):
    """A module holds one set of parameters, and a generator one state: threads must not get each other's."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5 if draws else 0.0))
    parameters = list(net.parameters())
    subject = _subject(net, (X,), {})
    scales = [1.0, 2.0, 3.0, 4.0] * 50

    def evaluate(scale):
        return subject.value(subject.arrays[0], *(np.float32(scale) * array for array in subject.arrays[1:]))

    expected = {scale: evaluate(scale) for scale in set(scales)}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(evaluate, scales))
    finally:
        sys.setswitchinterval(interval)
    assert all(np.array_equal(Y, expected[scale]) for Y, scale in zip(found, scales, strict=True))
    assert all(now is before for now, before in zip(net.parameters(), parameters, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_inputs_stay_on_their_device(device):
    seen = set()

    def function(X, W):
        seen.update([X.device.type, W.device.type])
        return X @ W

    check(function, X.to(device), W.to(device)).raise_if_wrong()
    assert seen == {device}
    check(nn.Linear(3, 2).to(device), X.to(device)).raise_if_wrong()
    assert _tensor(X.numpy(), torch.device("meta")).is_meta  # the one device besides the CPU that is everywhere


@pytest.mark.parametrize("key", [0, "logits"])
def test_one_of_several_outputs(key):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, X):
            Y = self.inner(X)
            return (Y, Y.argmax(1)) if key == 0 else {"logits": Y}

    with pytest.raises(xwb.OptionError, match=rf"type  check\(module, X, output={key!r}\)"):
        check(Net(), X)
    assert names(check(Net(), X, output=key)) == ["X", "inner.weight", "inner.bias"]
    with pytest.raises(xwb.OptionError, match="has no output 7"):
        check(Net(), X, output=7)


def test_an_lstm():
    report = check(nn.LSTM(3, 2, batch_first=True), randn(2, 3, 3), output=0)
    report.raise_if_wrong()
    assert names(report)[:2] == ["input", "weight_ih_l0"]


@pytest.mark.parametrize(
    ("function", "inputs", "options", "says"),
    [
        (
            torch.tanh,
            (X.half(),),
            {},
            r"is torch\.float16, too coarse to take differences of; type  input 1\.float\(\)",
        ),
        (nn.Linear(3, 2).bfloat16(), (X,), {}, r"weight is torch\.bfloat16.*type  module\.float\(\)"),
        (lambda X: X.half(), (X,), {}, r"Y is torch\.float16"),
        (lambda X: X.abs(), (X * 1j,), {}, r"X is torch\.complex64.*X = torch\.complex\(real, imaginary\)"),
        (lambda X: X, (X.to_sparse(),), {}, r"X is sparse_coo.*type  X\.to_dense\(\)"),
        (lambda X: X.to_sparse(), (X,), {}, r"Y is sparse_coo"),
        (lambda X: X, (X.to("meta"),), {}, r"on the device meta.*torch\.randn\(\(4, 3\), device='cpu'\)"),
        (nn.Linear(3, 2, device="meta"), (X,), {}, "weight is on the device meta"),
        (nn.LazyLinear(2), (X,), {}, "weight has no shape yet; call the module once before"),
        (lambda X: (X, X), (X,), {}, r"returns a tuple of 2; say which one, type  check\(f, X, output=0\)"),
        (lambda X: X, (X,), {"output": 0}, "has no output 0; without output="),
        (lambda X: X.sum().item(), (X,), {}, "returns float, and autograd follows tensors only"),
        (lambda X: None, (X,), {}, "returns NoneType"),
        (lambda X: X.long(), (X,), {}, "returns int64, which has no gradient"),
        (lambda X: X * 1j, (X,), {}, "returns complex64, which has no gradient"),
        (torch.tanh, (X.numpy(),), {}, r"type  torch\.from_numpy\(input 1\)"),
        (torch.cat, ([X, X],), {}, r"holds tensors; give them one by one, type  check\(lambda a, b: cat\(\[a, b\]\)"),
        (lambda X, W: X @ W, (X,), {"W": W}, "W is given by keyword, where no gradient is checked"),
        (lambda i: i, (torch.arange(3),), {}, "no float32 or float64 tensor among these"),
        (lambda: W.sum(), (), {}, "no float32 or float64 tensor among these"),
        (nn.Linear, (X,), {}, "Linear is a class; give a module"),
        ((affine, affine), (X,), {}, r"A layer or a pair of NumPy arrays goes to xwb\.check"),
    ],
)
def test_what_it_is_not_given(function, inputs, options, says):
    with pytest.raises(xwb.XwbError, match=says):
        check(function, *inputs, **options)


def test_nested_tensors_are_refused():
    with pytest.raises(xwb.OptionError, match=r"X is nested; type  X\.to_padded_tensor"):
        check(lambda X: X, torch.nested.nested_tensor([X, X], layout=torch.jagged))


def test_seed_and_conduct_reach_the_engine(monkeypatch):
    given = []
    monkeypatch.setattr("xwb.adapters.torch.check_subject", lambda subject, **options: given.append(options))
    check(torch.tanh, X)
    check(torch.tanh, X, seed=5, conduct=False)
    assert given == [{"seed": 0, "conduct": True}, {"seed": 5, "conduct": False}]


def test_without_pytorch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "xwb.adapters.torch")
    with pytest.raises(ModuleNotFoundError, match=r"type  pip install 'xwb\[torch\]'"):
        importlib.import_module("xwb.adapters.torch")
