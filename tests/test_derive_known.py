"""Layers everyone knows, derived from one line each, against PyTorch's own operations and values worked out by hand."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import xwb
from _tolerances import assert_close


def integers(*shape: int, seed: int = 0) -> np.ndarray:
    """Small nonzero integers as float64: every product and sum of them below is exact."""
    random = np.random.default_rng([seed, *shape])
    return (random.integers(1, 5, shape) * random.choice([-1, 1], shape)).astype(np.float64)


def equal(actual, expected) -> None:
    """Same shape and every entry ``==``."""
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected, np.float64), strict=True)


def in_torch(function, arrays, dY=None):
    """Y, dY and the gradients of the floating arrays, all in float64; dY of small integers where none is given."""
    tensors = {n: torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a) for n, a in arrays.items()}
    floats = {n: t.requires_grad_() for n, t in tensors.items() if t.is_floating_point()}
    Y = function(*tensors.values())
    dY = integers(*Y.shape, seed=1) if dY is None else np.asarray(dY, np.float64)
    found = torch.autograd.grad(Y, list(floats.values()), torch.tensor(dY), allow_unused=True)
    pairs = zip(floats.items(), found, strict=True)
    return Y.detach().numpy(), dY, {n: np.zeros(t.shape) if g is None else g.numpy() for (n, t), g in pairs}


def same_as_torch(formula, function, arrays, sizes=None) -> None:
    """Forward and every gradient ``==`` PyTorch's on small integers."""
    d = xwb.derive(formula)
    Y, dY, gradients = in_torch(function, arrays)
    equal(d.forward(sizes=sizes, **arrays), Y)
    found = d.backward(dY, sizes=sizes, **arrays)
    assert found.keys() == gradients.keys()
    for name, expected in gradients.items():
        equal(found[name], expected)


def gradient(formula, dY=1.0, sizes=None, **arrays):
    """The gradients of a formula; checked against its forward mode, one entry at a time."""
    d = xwb.derive(formula)
    arrays = {n: np.asarray(a, np.float64) if np.asarray(a).dtype.kind == "f" else a for n, a in arrays.items()}
    found = d.backward(np.asarray(dY, np.float64), sizes=sizes, **arrays)
    for name, expected in found.items():
        for index in np.ndindex(expected.shape):
            direction = np.zeros_like(expected)
            direction[index] = 1
            step = d.jvp(sizes=sizes, **{n: (a, direction) if n == name else a for n, a in arrays.items()})
            assert abs(np.sum(dY * step) - expected[index]) <= 1e-15, (name, index)
    return found


# --------------------------------------------------------------------------------------------------- convolutions

GRID = list(itertools.product((1, 2, 3), (1, 2, 3), (1, 2, 3), (0, 1, 2)))  # stride, dilation, kernel, padding


def position(stride: int, dilation: int, padding: int, p: str, r: str) -> str:
    """``zero(2*p+3*r-1)``, as a person would write it."""
    text = (p if stride == 1 else f"{stride}*{p}") + "+" + (r if dilation == 1 else f"{dilation}*{r}")
    return f"zero({text}-{padding})" if padding else text


@pytest.mark.parametrize(("stride", "dilation", "kernel", "padding"), GRID)
def test_convolution_of_one_axis(stride, dilation, kernel, padding):
    """The whole grid; the number of positions follows from the shapes, symmetric padding included."""
    same_as_torch(
        f"Y[n,o,p] = X[n,c,{position(stride, dilation, padding, 'p', 'r')}] K[o,c,r] + b[o]",
        lambda X, K, b: F.conv1d(X, K, b, stride=stride, dilation=dilation, padding=padding),
        {"X": integers(2, 2, 8), "K": integers(3, 2, kernel), "b": integers(3)},
    )


@pytest.mark.parametrize(("one", "other"), list(zip(GRID, GRID[40:] + GRID[:40], strict=True)))
def test_convolution_of_two_axes(one, other):
    """Every combination on each axis, beside a different one on the other."""
    (s1, d1, k1, p1), (s2, d2, k2, p2) = one, other
    same_as_torch(
        f"Y[n,o,p,q] = X[n,c,{position(s1, d1, p1, 'p', 'r')},{position(s2, d2, p2, 'q', 's')}] K[o,c,r,s]",
        lambda X, K: F.conv2d(X, K, stride=(s1, s2), dilation=(d1, d2), padding=(p1, p2)),
        {"X": integers(2, 2, 7, 8), "K": integers(2, 2, k1, k2)},
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_depthwise_grouped_and_transposed_convolution(stride, kernel):
    X = integers(2, 3, 7)
    same_as_torch(
        f"Y[n,c,p] = X[n,c,{stride}*p+r] K[c,r]",
        lambda X, K: F.conv1d(X, K[:, None], stride=stride, groups=3),
        {"X": X, "K": integers(3, kernel)},
    )
    same_as_torch(
        f"Y[n,g,o,p] = X[n,g,c,zero(r-1+p*{stride})] K[g,o,c,r]",
        lambda X, K: F.conv1d(X.flatten(1, 2), K.flatten(0, 1), stride=stride, padding=1, groups=2).unflatten(
            1, (2, 3)
        ),
        {"X": integers(2, 2, 2, 7), "K": integers(2, 3, 2, kernel)},
    )
    same_as_torch(
        f"Y[n,o,t] = X[n,c,p] K[c,o,r] [t == {stride}*p+r]",
        lambda X, K: F.conv_transpose1d(X, K, stride=stride),
        {"X": X, "K": integers(3, 2, kernel)},
        sizes={"t": stride * 6 + kernel},
    )


def test_large_arrays():
    """Larger than the blocks in which the engine copies, adds and guards."""
    same_as_torch(
        "Y[n,o,p,q] = X[n,c,zero(p+r-1),zero(q+s-1)] K[o,c,r,s]",
        lambda X, K: F.conv2d(X, K, padding=1),
        {"X": integers(2, 8, 48, 48), "K": integers(4, 8, 3, 3)},
    )
    same_as_torch(
        "Y[n,p,r] = X[n,p+2*r]*c[r]",
        lambda X, c: X.as_strided((20, 202, 150), (500, 1, 2)) * c,
        {"X": integers(20, 500), "c": integers(150)},
    )
    same_as_torch(
        "D[i,j] = sum[d]((A[i,d] - B[j,d])**2)",
        lambda A, B: ((A[:, None] - B) ** 2).sum(2),
        {"A": integers(300, 4), "B": integers(400, 4)},
    )
    x = np.tile([0.0, -1, 4, 0.25], (1100, 1100))
    d = xwb.derive("Y[i] = sum[j]([x[i,j] > 0]*sqrt(x[i,j]))")
    equal(d.forward(x=x), np.full(1100, 1100 * 2.5))
    equal(d.backward(np.ones(1100), x=x)["x"], np.tile([0, 0, 0.25, 1], (1100, 1100)))


def test_a_convolution_that_flips_its_kernel():
    same_as_torch(
        "Y[p] = X[p-r+size(r)-1] K[r]",
        lambda X, K: F.conv1d(X[None, None], K.flip(0)[None, None])[0, 0],
        {"X": integers(9), "K": integers(3)},
    )


def test_a_convolution_of_three_axes():
    same_as_torch(
        "Y[n,o,p,q,t] = X[n,c,zero(p+r-1),2*q+s,t+u] K[o,c,r,s,u]",
        lambda X, K: F.conv3d(X, K, stride=(1, 2, 1), padding=(1, 0, 0)),
        {"X": integers(1, 2, 3, 5, 4), "K": integers(2, 2, 3, 2, 3)},
    )


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 2), (3, 1), (2, 3)])
def test_pooling(size, stride):
    """Maximum, minimum, sum and mean over a window whose size is given."""
    X = np.random.default_rng(0).permutation(2 * 3 * 8 * 7).reshape(2, 3, 8, 7).astype(np.float64)  # no ties
    window = f"X[n,c,{stride}*p+r,{stride}*q+s]"
    for formula, function in [
        (f"Y[n,c,p,q] = max[r,s]({window})", lambda X: F.max_pool2d(X, size, stride)),
        (f"Y[n,c,p,q] = max[r](max[s](-{window}))", lambda X: F.max_pool2d(-X, size, stride)),
        (f"Y[n,c,p,q] = min[r,s] {window}", lambda X: -F.max_pool2d(-X, size, stride)),
        (f"Y[n,c,p,q] = sum[r,s] {window}", lambda X: F.avg_pool2d(X, size, stride, divisor_override=1)),
    ]:
        same_as_torch(formula, function, {"X": X}, sizes={"r": size, "s": size})
    d = xwb.derive(f"Y[n,c,p,q] = mean[r,s]({window})", sizes={"r": size, "s": size})
    Y, dY, gradients = in_torch(lambda X: F.avg_pool2d(X, size, stride), {"X": X})
    assert_close(d.forward(X=X), Y)
    assert_close(d.backward(dY, X=X)["X"], gradients["X"])


# ----------------------------------------------------------------------------------------------- boundaries, indices

MODES = {"clamp": "edge", "wrap": "wrap", "mirror": "symmetric", "reflect": "reflect"}  # NumPy's names


def reads(mode: str, size: int, before: int, after: int) -> np.ndarray:
    """The entry of the axis behind each position from -before to size - 1 + after; ``size`` stands for a zero."""
    if mode == "zero":
        return np.pad(np.arange(size), (before, after), constant_values=size)
    return np.pad(np.arange(size), (before, after), mode=MODES[mode])


@pytest.mark.parametrize("mode", ["zero", *MODES])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 1), (2, 0), (0, 3), (4, 7), (13, 11)])
def test_boundary_modes(mode, size, before, after):
    """Forward reads through an index map, backward adds through it; far outside the axis too."""
    source = reads(mode, size, before, after)
    X, dY = integers(2, size), integers(2, len(source), seed=1)
    d, sizes = xwb.derive(f"Y[n,p] = X[n,{mode}(p-{before})]"), {"p": len(source)}
    equal(d.forward(sizes=sizes, X=X), np.pad(X, ((0, 0), (0, 1)))[:, source])
    expected = np.zeros((2, size + 1))
    np.add.at(expected, (slice(None), source), dY)
    equal(d.backward(dY, sizes=sizes, X=X)["X"], expected[:, :size])
    flipped = xwb.derive(f"Y[n,p] = X[n,{mode}({len(source) - 1 - before}-p)]")
    equal(flipped.forward(sizes=sizes, X=X), np.pad(X, ((0, 0), (0, 1)))[:, source[::-1]])
    equal(flipped.backward(dY[:, ::-1], sizes=sizes, X=X)["X"], expected[:, :size])


@pytest.mark.parametrize(
    ("mode", "padding"), [("zero", "constant"), ("clamp", "replicate"), ("wrap", "circular"), ("reflect", "reflect")]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_under_each_boundary_mode(mode, padding, stride):
    same_as_torch(
        f"Y[n,o,p,q] = X[n,c,{mode}({stride}*p+r-1),{mode}(q+2*s-2)] K[o,c,r,s]",
        lambda X, K: F.conv2d(F.pad(X, (2, 2, 1, 1), mode=padding), K, stride=(stride, 1), dilation=(1, 2)),
        {"X": integers(2, 2, 5, 4), "K": integers(2, 2, 3, 3)},
        sizes={"p": (5 - 1) // stride + 1, "q": 4},
    )


INDEXING = [
    ("Y[i] = A[i,i]", lambda A: A.diagonal(), [(3, 3)]),
    ("y = A[i,i]", lambda A: A.trace(), [(3, 3)]),
    ("y = sum[i](A[i,i])", lambda A: A.trace(), [(1, 1)]),
    ("Y[i] = A[i,i,i]", lambda A: torch.einsum("iii->i", A), [(3, 3, 3)]),
    ("y = A[i,i,i]", lambda A: torch.einsum("iii->", A), [(3, 3, 3)]),
    ("Y[i,j] = A[i,i,j]", lambda A: torch.einsum("iij->ij", A), [(3, 3, 2)]),
    ("Y[j,i] = A[i,j,i]", lambda A: torch.einsum("iji->ji", A), [(3, 2, 3)]),
    ("Y[j] = A[i,i,j]", lambda A: torch.einsum("iij->j", A), [(3, 3, 2)]),
    ("Y[i,j] = A[i,i,j,j]", lambda A: torch.einsum("iijj->ij", A), [(3, 3, 2, 2)]),
    ("Y[i] = A[i,i] x[i]", lambda A, x: A.diagonal() * x, [(3, 3), (3,)]),
    ("y = A[i,i] B[i,i]", lambda A, B: (A.diagonal() * B.diagonal()).sum(), [(3, 3), (3, 3)]),
    ("y = A[i,j] A[j,i]", lambda A: (A @ A).trace(), [(3, 3)]),
    ("Y[i] = A[i,i] - A[size(i)-1-i,i]", lambda A: A.diagonal() - A.flip(0).diagonal(), [(3, 3)]),
    ("Y[i,j] = A[i,j] + A[j,i]", lambda A: A + A.T, [(3, 3)]),
    ("Y[i,j] = A[j,i]", lambda A: A.T, [(3, 2)]),
    ("Y[i,j] = x[i] x[j]", lambda x: torch.outer(x, x), [(3,)]),
    ("Y[i,j] = x[i] [i == j]", torch.diag, [(3,)], {"j": 3}),
    ("y = x[i] y1[i]", lambda x, y1: x @ y1, [(3,), (3,)]),
    ("Y[i] = x[size(i)-1-i]", lambda x: x.flip(0), [(4,)]),
    ("Y[i] = x[0] x[i] - x[3]", lambda x: x[0] * x - x[3], [(4,)]),
    ("Y[i,j] = x[i+j]", lambda x: x.unfold(0, 2, 1), [(5,)], {"j": 2}),
    ("Y[i] = sum[j](x[j]*[j <= i])", lambda x: x.cumsum(0), [(5,)], {"i": 5}),
    ("Y[i,j] = A[i,j]*[i >= j]", lambda A: A.tril(), [(3, 4)]),
    ("Y[i] = i*x[i] + size(i)", lambda x: torch.arange(4.0) * x + 4, [(4,)]),
    ("Y[i] = x[i+1] - x[i]", lambda x: x.diff(), [(5,)], {"i": 4}),
    ("Y[i] = x[zero(i+1)] - x[i]", lambda x: torch.cat([x.diff(), -x[-1:]]), [(5,)]),
    ("Y[i] = x[wrap(i+1)]", lambda x: x.roll(-1), [(5,)], {"i": 5}),
    ("Y[i] = x[i]", lambda x: x[:3], [(5,)], {"i": 3}),
    ("Y[i,j] = x[i]", lambda x: x[:, None].expand(3, 2), [(3,)], {"j": 2}),
    ("Y[i] = s", lambda s: s.expand(3), [()], {"i": 3}),
    ("y = s*t", lambda s, t: s * t, [(), ()]),
    ("y = s[]**3 - s", lambda s: s**3 - s, [()]),
    ("Y[...] = 2*X[...]", lambda X: 2 * X, [(2, 3)]),
    ("Y[...] = 2*X[...]", lambda X: 2 * X, [()]),
    ("y = sum[...](X[...])", lambda X: X.sum(), [(2, 3)]),
    ("Y[d] = sum[...](X[...,d])", lambda X: X.sum((0, 1)), [(2, 3, 2)]),
    ("Y[...,i] = X[...,j] W[j,i] v[...]", lambda X, W, v: X @ W * v[..., None], [(2, 3, 2), (2, 4), (2, 3)]),
    (
        "Y[i,j] = A[i,k] B[k,j]; Z[i] = Y[i,i]; w = Z[i] Z[i]",
        lambda A, B: ((A @ B).diagonal() ** 2).sum(),
        [(3, 2), (2, 3)],
    ),
    ("y = prod[i](x[i])", lambda x: x.prod(), [(4,)]),
    ("Y[n] = prod[i,j](X[n,i,j])", lambda X: X.flatten(1).prod(1), [(2, 2, 3)]),
    ("y = sum[i](prod[j](A[i,j] + x[j]))", lambda A, x: (A + x).prod(1).sum(), [(3, 3), (3,)]),
]


@pytest.mark.parametrize("case", INDEXING, ids=[c[0] for c in INDEXING])
def test_indexing(case):
    formula, function, shapes, *sizes = case
    names = xwb.derive(formula).inputs
    arrays = {n: integers(*shape, seed=i) for i, (n, shape) in enumerate(zip(names, shapes, strict=True))}
    same_as_torch(formula, function, arrays, *sizes)


def test_gathers():
    """Repeated, unordered, of every integer type; an entry never read has gradient zero."""
    E, dY = integers(5, 3), integers(4, 3, seed=1)
    for dtype in (np.int64, np.int32, np.int8, np.uint8, np.uint16):
        k = np.array([3, 0, 3, 1], dtype)
        same_as_torch("Y[n,d] = E[k[n],d]", lambda E, k: E[k.long()], {"E": E, "k": k})
        found = xwb.derive("Y[n,d] = E[k[n]+1,d]").backward(dY, E=E, k=k)["E"]
        expected = np.zeros_like(E)
        np.add.at(expected, k.astype(int) + 1, dY)
        equal(found, expected)
    wide = np.array([200, 0], np.uint8)  # 2*200 is no uint8
    equal(xwb.derive("Y[n] = x[2*k[n]]").forward(x=np.arange(500.0), k=wide), [400, 0])
    same_as_torch(
        "Y[n] = Z[n,y[n]]",
        lambda Z, y: Z.gather(1, y[:, None])[:, 0],
        {"Z": integers(4, 3), "y": np.array([2, 0, 1, 1])},
    )
    same_as_torch(
        "Y[n,t] = E[k[n,t],t] E[k[n,0],t]",
        lambda E, k: E[k, torch.arange(3)] * E[k[:, :1], torch.arange(3)],
        {"E": E, "k": np.array([[0, 4, 4], [4, 0, 1]])},
    )
    same_as_torch("y = x[k[]]", lambda x, k: x[k], {"x": integers(4), "k": np.array(2)})


# -------------------------------------------------------------------------------------------------- zeros and ties


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([2.0, 3, 5], [15, 10, 6]),
        ([2.0, 0, 5], [0, 10, 0]),
        ([0.0, 3, 0], [0, 0, 0]),
        ([0.0, 0, 0], [0, 0, 0]),
        ([0.0], [1]),
    ],
)
def test_products_without_with_one_and_with_two_zeros(x, expected):
    equal(gradient("y = prod[i](x[i])", x=x)["x"], expected)
    squares = [2 * a * np.prod([b**2 for j, b in enumerate(x) if j != i]) for i, a in enumerate(x)]
    equal(gradient("y = prod[i](x[i]**2)", x=x)["x"], squares)
    twice = np.array([expected, expected]) * np.prod(x)
    equal(gradient("y = prod[i,j](A[i,j])", A=[x, x])["A"], twice)
    equal(gradient("y = prod[i](prod[j](A[i,j]))", A=[x, x])["A"], twice)
    rows = [expected, np.multiply(-2, expected), [3] * len(x)]
    equal(gradient("Y[n] = prod[i](X[n,i])", dY=[1, -2, 3], X=[x, x, [1.0] * len(x)])["X"], rows)


TIES = [
    ("y = relu(x)", {"x": 0.0}, {"x": 0}),
    ("y = max(x, 0)", {"x": 0.0}, {"x": 0}),
    ("y = max(0, x)", {"x": 0.0}, {"x": 0}),
    ("y = max(0, 0 - x)", {"x": 0.0}, {"x": 0}),
    ("y = abs(x)", {"x": 0.0}, {"x": 0}),
    ("y = abs(-x)", {"x": -0.0}, {"x": 0}),
    ("y = sign(x)", {"x": 0.0}, {"x": 0}),
    ("y = sign(x)*x", {"x": -3.0}, {"x": -1}),
    ("y = min(x, 0)", {"x": 0.0}, {"x": 0.5}),
    ("y = max(x, 1)", {"x": 1.0}, {"x": 0.5}),
    ("y = max(a, b)", {"a": 2.0, "b": 2.0}, {"a": 0.5, "b": 0.5}),
    ("y = min(a, b)", {"a": 2.0, "b": 2.0}, {"a": 0.5, "b": 0.5}),
    ("y = max(a, b)", {"a": 2.0, "b": 1.0}, {"a": 1, "b": 0}),
    ("y = min(a, b)", {"a": 2.0, "b": 1.0}, {"a": 0, "b": 1}),
    ("y = max(a, 3*a)", {"a": 0.0}, {"a": 2}),
    ("y = max(a, max(b, c))", {"a": 2.0, "b": 2.0, "c": 2.0}, {"a": 0.5, "b": 0.25, "c": 0.25}),
    ("y = max[i](x[i])", {"x": [3.0, 1, 3]}, {"x": [0.5, 0, 0.5]}),
    ("y = min[i](x[i])", {"x": [1.0, 1, 1, 2]}, {"x": [1 / 3, 1 / 3, 1 / 3, 0]}),
    ("y = -max[i](-x[i])", {"x": [1.0, 1, 2]}, {"x": [0.5, 0.5, 0]}),
    ("y = max[i,j](A[i,j])", {"A": [[5.0, 5], [5, 1]]}, {"A": [[1 / 3, 1 / 3], [1 / 3, 0]]}),
    ("y = max[i](max[j](A[i,j]))", {"A": [[5.0, 5], [5, 1]]}, {"A": [[0.25, 0.25], [0.5, 0]]}),
    ("y = max[j](max[i](A[i,j]))", {"A": [[5.0, 5], [5, 1]]}, {"A": [[0.25, 0.5], [0.25, 0]]}),
    ("y = min[i](min[j](A[i,j]))", {"A": [[5.0, 5], [5, 9]]}, {"A": [[0.25, 0.25], [0.5, 0]]}),
    ("y = max[i](min[j](A[i,j]))", {"A": [[5.0, 5], [5, 9]]}, {"A": [[0.25, 0.25], [0.5, 0]]}),
    ("m[i] = max[j](A[i,j]); y = max[i](m[i])", {"A": [[5.0, 5], [5, 1]]}, {"A": [[0.25, 0.25], [0.5, 0]]}),
    ("y = max[i](relu(x[i]))", {"x": [-1.0, -2, 0]}, {"x": [0, 0, 0]}),
    ("y = max[i](relu(x[i]))", {"x": [2.0, 2, -1]}, {"x": [0.5, 0.5, 0]}),
    ("y = max[i](s)", {"s": 2.0}, {"s": 1}, {"i": 3}),
    ("y = max[i,j](x[i])", {"x": [2.0, 2, 1]}, {"x": [0.5, 0.5, 0]}, {"j": 3}),
    ("y = sum[i](max(x[i], x[0]))", {"x": [1.0, 1, 0]}, {"x": [2.5, 0.5, 0]}),
    ("y = max[i](x[i] x[0])", {"x": [1.0, 1, 0]}, {"x": [1.5, 0.5, 0]}),
    ("y = sum[i](relu(x[i])**2)", {"x": [0.0, 1, -1]}, {"x": [0, 2, 0]}),
    ("y = max(x, 0) + min(x, 0)", {"x": 0.0}, {"x": 0.5}),
    ("y = x*[x > 0]", {"x": 0.0}, {"x": 0}),
    ("y = x*[x >= 0]", {"x": 0.0}, {"x": 1}),
    ("y = where(x > 0, x**2, -3*x)", {"x": 0.0}, {"x": -3}),
    ("y = where(x == 0, x, 2*x)", {"x": 0.0}, {"x": 1}),
    ("y = x**0", {"x": 0.0}, {"x": 0}),
    ("y = x**1", {"x": 0.0}, {"x": 1}),
    ("y = x**2", {"x": 0.0}, {"x": 0}),
]


@pytest.mark.parametrize("case", TIES, ids=[f"{c[0]} {c[1]}" for c in TIES])
def test_ties_and_kinks(case):
    """The values that GRAMMAR.md writes down: zero at the kink of relu, abs and sign, else equal shares."""
    formula, arrays, expected, *sizes = case
    found = gradient(formula, sizes=sizes[0] if sizes else None, **arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-15, atol=0, strict=False)


GUARDED = [
    ("Y[i] = where(x[i] > 0, sqrt(x[i]), 0)", [0.0, -1, 4], [0, 0, 0.25]),
    ("Y[i] = where(x[i] <= 0, 0, log(x[i]))", [0.0, -1, 4], [0, 0, 0.25]),
    ("Y[i] = [x[i] > 0]*sqrt(x[i])", [0.0, -1, 4], [0, 0, 0.25]),
    ("Y[i] = sqrt(x[i]) [x[i] > 0]", [0.0, -1, 4], [0, 0, 0.25]),
    ("Y[i] = [x[i] != 0]/x[i]", [0.0, -1, 4], [0, -1, -0.0625]),
    ("Y[i] = where(x[i] != 0, x[i]*log(x[i]), 0)", [0.0, 1, 1], [0, 1, 1]),
    ("Y[i] = [x[i] > 0]*x[i]**-0.5", [0.0, -1, 4], [0, 0, -0.0625]),
    ("Y[i] = where(x[i] > 0, 1/x[i], x[i])", [0.0, -1, 4], [1, 1, -0.0625]),
]


@pytest.mark.parametrize(("formula", "x", "expected"), GUARDED, ids=[c[0] for c in GUARDED])
def test_a_guard_shields_from_infinite_derivatives(formula, x, expected):
    d, x = xwb.derive(formula), np.array(x)
    assert np.isfinite(d.forward(x=x)).all()
    assert_close(d.backward(np.ones(3), x=x)["x"], np.array(expected, float))
    assert_close(d.jvp(x=(x, np.ones(3))), np.array(expected, float))


# ------------------------------------------------------------------------------------------------------- stability

Z = [[200.0, -200, 0], [-200, -200, -200], [200, 200, 200], [0, 1, -1], [-200, 199, 200], [88, 89, 90], [3, -104, 1]]
HIDDEN = torch.eye(7, 3, dtype=torch.bool)

STABLE = [
    ("P[n,k] = exp(Z[n,k]) / sum[j](exp(Z[n,j]))", lambda Z: Z.softmax(1)),
    ("P[n,k] = exp(Z[n,k] - max[j](Z[n,j])) / sum[j](exp(Z[n,j] - max[j](Z[n,j])))", lambda Z: Z.softmax(1)),
    ("P[n,k] = exp(Z[n,k])*[k != n] / sum[j](exp(Z[n,j])*[j != n])", lambda Z: Z.masked_fill(HIDDEN, -1e9).softmax(1)),
    ("L[n] = log(sum[k](exp(Z[n,k])))", lambda Z: Z.logsumexp(1)),
    ("L[n] = log(sum[k]([k != n]*exp(Z[n,k])))", lambda Z: Z.masked_fill(HIDDEN, -1e9).logsumexp(1)),
    ("L = mean[n](log(sum[k](exp(Z[n,k]))))", lambda Z: Z.logsumexp(1).mean()),
    ("L[n] = 0.5*log(sum[k] exp(2*Z[n,k]))", lambda Z: (2 * Z).logsumexp(1) / 2),
    ("L[n,k] = Z[n,k] - log(sum[j](exp(Z[n,j])))", lambda Z: Z.log_softmax(1)),
    ("L[n,k] = log(exp(Z[n,k]) / sum[j](exp(Z[n,j])))", lambda Z: Z.log_softmax(1)),
    ("L[n,k] = log(1 + exp(-Z[n,k]))", lambda Z: F.softplus(-Z, threshold=1e9)),
    ("L = mean[n,k](log(1 + exp(Z[n,k])))", lambda Z: F.softplus(Z, threshold=1e9).mean()),
    ("L[n] = log(exp(Z[n,0]) + exp(Z[n,1]))", lambda Z: torch.logaddexp(Z[:, 0], Z[:, 1])),
    ("S[n,k] = 1/(1 + exp(-Z[n,k]))", torch.sigmoid),
    ("S[n,k] = exp(Z[n,k])/(exp(Z[n,k]) + 1)", torch.sigmoid),
    ("S[n,k] = sigmoid(Z[n,k])", torch.sigmoid),
    ("S[n,k] = tanh(Z[n,k])", torch.tanh),
    ("S[n,k] = gelu(Z[n,k])", F.gelu),
    ("S[n,k] = erf(Z[n,k])", torch.erf),
    ("S[n,k] = Z[n,k]*sigmoid(Z[n,k])", F.silu),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("formula", "function"), STABLE, ids=[c[0] for c in STABLE])
def test_stable_at_200(formula, function, dtype):
    """Finite and right in float32 where exp(200) is not, forward, backward and forward mode."""
    d, scores = xwb.derive(formula), np.array(Z, dtype)
    Y, dY, gradients = in_torch(function, {"Z": scores})
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert_close(d.forward(Z=scores), Y.astype(dtype), times=4)
        assert_close(d.backward(dY.astype(dtype), Z=scores)["Z"], gradients["Z"].astype(dtype), times=4)
        step = np.ones_like(scores)
        Ydot = d.jvp(Z=(scores, step))
    assert Ydot.dtype == dtype
    assert np.isfinite(Ydot).all()
    whole = np.abs(gradients["Z"]).sum() + 1
    assert abs(np.sum(dY * Ydot) - gradients["Z"].sum()) <= (1e-5 if dtype == np.float32 else 1e-14) * whole


# ---------------------------------------------------------------------------------------------------------- layers


class Known(NamedTuple):
    """A layer in index notation and in PyTorch; an axis of a shape is one letter of ``dims``."""

    name: str
    formula: str
    shapes: str  # "X:nd W:dm b:m"; "k:n<v" are integers below the size of v, "P:nk!" positive
    function: object
    dims: dict = {}  # noqa: RUF012 (of a tuple)
    times: float = 20.0
    empty: bool = True  # whether N = 0 makes sense


def attention(Q, K, V):
    return F.scaled_dot_product_attention(Q, K, V)


def lstm(X, H, C, W, U, b):
    i, f, o, g = (X @ W[a] + H @ U[a] + b[a] for a in range(4))
    return o.sigmoid() * (f.sigmoid() * C + i.sigmoid() * g.tanh()).tanh()


def multi_head(X, Q, K, V, W):
    q, k, v = (torch.einsum("btd,hde->bhte", X, w) for w in (Q, K, V))
    return torch.einsum("bhte,hed->btd", F.scaled_dot_product_attention(q, k, v), W)


def hinge(Z, y):
    margins = (1 + Z - Z.gather(1, y[:, None])).relu()
    return (margins * (torch.arange(Z.shape[1]) != y[:, None])).sum(1).mean()


SOFTMAX = "P[h,q,k] = exp(S[h,q,k]) / sum[k](exp(S[h,q,k]))"
LAYERS = [
    Known("linear", "Y[n,m] = X[n,d] W[d,m] + b[m]", "X:nd W:dm b:m", lambda X, W, b: X @ W + b),
    Known("linear, PyTorch's layout", "Y[n,m] = X[n,d] W[m,d] + b[m]", "X:nd W:md b:m", F.linear),
    Known("linear, leading axes", "Y[...,m] = X[...,d] W[d,m] + b[m]", "X:ntd W:dm b:m", lambda X, W, b: X @ W + b),
    Known("batched matrices", "Y[b,i,j] = A[b,i,k] B[b,k,j]", "A:nij B:njk", torch.bmm),
    Known(
        "chain of matrices",
        "Y[i,m] = A[i,j] B[j,k] C[k,l] D[l,m]",
        "A:ni B:ij C:jk D:km",
        lambda A, B, C, D: A @ B @ C @ D,
    ),
    Known(
        "bilinear",
        "Y[n,o] = X[n,i] W[o,i,j] V[n,j] + b[o]",
        "X:ni V:nj W:oij b:o",
        F.bilinear,
    ),
    Known(
        "low-rank adapter",
        "Y[n,m] = X[n,d] W[d,m] + 2*X[n,d] A[d,r] B[r,m]",
        "X:nd W:dm A:dr B:rm",
        lambda X, W, A, B: X @ W + 2 * X @ A @ B,
    ),
    Known("embedding", "Y[n,t,d] = E[k[n,t],d]", "E:vd k:nt<v", lambda E, k: F.embedding(k, E)),
    Known("embedding, summed", "Y[n,d] = sum[t](E[k[n,t],d])", "E:vd k:nt<v", lambda E, k: E[k].sum(1)),
    Known(
        "matrix factorisation",
        "L = sum[e]((R[e] - U[u[e],f] V[v[e],f])**2)",
        "R:n U:if V:jf u:n<i v:n<j",
        lambda R, U, V, u, v: ((R - (U[u] * V[v]).sum(1)) ** 2).sum(),
    ),
    Known("Gram matrix", "G[i,j] = X[n,i] X[n,j]", "X:ni", lambda X: X.T @ X),
    Known("quadratic form", "q = x[i] A[i,j] x[j]", "x:i A:ii", lambda x, A: x @ A @ x),
    Known("quadratic forms", "q[n] = X[n,i] A[i,j] X[n,j]", "X:ni A:ii", lambda X, A: ((X @ A) * X).sum(1)),
    Known(
        "distances", "D[i,j] = sum[d]((A[i,d] - B[j,d])**2)", "A:nd B:md", lambda A, B: ((A[:, None] - B) ** 2).sum(2)
    ),
    Known(
        "cosine similarity",
        "S[n,m] = A[n,d] B[m,d] / (sqrt(sum[d](A[n,d]**2)) * sqrt(sum[d](B[m,d]**2)))",
        "A:nd B:md",
        lambda A, B: F.cosine_similarity(A[:, None], B[None], 2),
    ),
    Known(
        "squared error",
        "L = mean[n](sum[m]((Y[n,m] - T[n,m])**2))",
        "Y:nm T:nm",
        lambda Y, T: ((Y - T) ** 2).sum(1).mean(),
        empty=False,
    ),
    Known("squared error, mean", "L = mean[n,m]((Y[n,m] - T[n,m])**2)", "Y:nm T:nm", F.mse_loss, empty=False),
    Known("absolute error", "L = mean[n,m](abs(Y[n,m] - T[n,m]))", "Y:nm T:nm", F.l1_loss, empty=False),
    Known(
        "Huber",
        "L = sum[n,m](where(abs(Y[n,m] - T[n,m]) <= 1, (Y[n,m] - T[n,m])**2/2, abs(Y[n,m] - T[n,m]) - 0.5))",
        "Y:nm T:nm",
        lambda Y, T: F.huber_loss(Y, T, reduction="sum"),
    ),
    Known("hinge", "L = mean[n](sum[k](max(0, 1 + Z[n,k] - Z[n,y[n]]) [k != y[n]]))", "Z:nk y:n<k", hinge, empty=False),
    Known("binary hinge", "L[n] = max(0, 1 - t[n] z[n])", "t:n z:n", lambda t, z: (1 - t * z).relu()),
    Known(
        "Kullback-Leibler",
        "L = sum[n,k](P[n,k]*(log(P[n,k]) - log(Q[n,k])))",
        "P:nk! Q:nk!",
        lambda P, Q: (P * (P.log() - Q.log())).sum(),
    ),
    Known(
        "cross-entropy",
        "L = mean[n](log(sum[k](exp(Z[n,k]))) - Z[n,y[n]])",
        "Z:nk y:n<k",
        F.cross_entropy,
        empty=False,
    ),
    Known(
        "cross-entropy with probabilities",
        "L = -mean[n](sum[k](T[n,k]*(Z[n,k] - log(sum[j](exp(Z[n,j]))))))",
        "T:nk! Z:nk",
        lambda T, Z: F.cross_entropy(Z, T),
        empty=False,
    ),
    Known(
        "cross-entropy in two statements",
        "P[n,k] = exp(Z[n,k]) / sum[j](exp(Z[n,j])); L = -sum[n](log(P[n,y[n]]))",
        "Z:nk y:n<k",
        lambda Z, y: F.cross_entropy(Z, y, reduction="sum"),
    ),
    Known("logistic loss", "L[n] = log(1 + exp(-t[n]*z[n]))", "t:n z:n", lambda t, z: F.softplus(-t * z)),
    Known("softmax", "P[n,k] = exp(Z[n,k]) / sum[j](exp(Z[n,j]))", "Z:nk", lambda Z: Z.softmax(1)),
    Known("log-softmax", "P[...,k] = Z[...,k] - log(sum[j](exp(Z[...,j])))", "Z:ntk", lambda Z: Z.log_softmax(2)),
    Known(
        "layer norm",
        "mu[n] = mean[d](X[n,d]); v[n] = mean[d]((X[n,d] - mu[n])**2)\n"
        "Y[n,d] = (X[n,d] - mu[n]) / sqrt(v[n] + 1e-5) * g[d] + b[d]",
        "X:nd g:d b:d",
        lambda X, g, b: F.layer_norm(X, X.shape[1:], g, b),
    ),
    Known(
        "layer norm in one statement",
        "Y[...,d] = (X[...,d] - mean[i](X[...,i])) / sqrt(mean[j]((X[...,j] - mean[i](X[...,i]))**2) + 1e-5)",
        "X:ntd",
        lambda X: F.layer_norm(X, X.shape[2:]),
    ),
    Known(
        "RMS norm",
        "Y[n,d] = X[n,d] / sqrt(mean[d](X[n,d]**2) + 1e-5) * g[d]",
        "X:nd g:d",
        lambda X, g: F.rms_norm(X, X.shape[1:], g, 1e-5),
    ),
    Known(
        "group norm",
        "mu[n,g] = mean[c,p](X[n,g,c,p]); v[n,g] = mean[c,p]((X[n,g,c,p] - mu[n,g])**2)\n"
        "Y[n,g,c,p] = (X[n,g,c,p] - mu[n,g])*(v[n,g] + 1e-5)**-0.5*w[g,c] + b[g,c]",
        "X:ngcp w:gc b:gc",
        lambda X, w, b: torch.group_norm(X.flatten(1, 2), X.shape[1], w.flatten(), b.flatten()).reshape(X.shape),
    ),
    Known(
        "batch norm",
        "mu[c] = mean[n,p](X[n,c,p]); v[c] = mean[n,p]((X[n,c,p] - mu[c])**2)\n"
        "Y[n,c,p] = w[c]*(X[n,c,p] - mu[c])/sqrt(v[c] + 1e-5) + b[c]",
        "X:ncp w:c b:c",
        lambda X, w, b: (
            ((X - X.mean((0, 2), keepdim=True)) / (X.var((0, 2), unbiased=False, keepdim=True) + 1e-5).sqrt())
            * w[:, None]
            + b[:, None]
        ),
        empty=False,
    ),
    Known(
        "weight norm",
        "Y[n,m] = X[n,d] V[d,m] g[m] / sqrt(sum[d](V[d,m]**2))",
        "X:nd V:dm g:m",
        lambda X, V, g: X @ (V * g / V.norm(dim=0)),
    ),
    Known(
        "gated unit",
        "A[n,m] = X[n,d] W[d,m]; B[n,m] = X[n,d] V[d,m]; Y[n,m] = A[n,m]*sigmoid(B[n,m])",
        "X:nd W:dm V:dm",
        lambda X, W, V: F.glu(torch.cat([X @ W, X @ V], 1)),
    ),
    Known(
        "gated unit in one statement",
        "Y[n,m] = sum[d](X[n,d] W[d,m]) * gelu(X[n,d] V[d,m])",
        "X:nd W:dm V:dm",
        lambda X, W, V: (X @ W) * F.gelu(X @ V),
    ),
    Known(
        "two layers",
        "H[n,h] = relu(X[n,d] W[d,h] + b[h]); Y[n,m] = H[n,h] V[h,m] + c[m]",
        "X:nd W:dh b:h V:hm c:m",
        lambda X, W, b, V, c: (X @ W + b).relu() @ V + c,
    ),
    Known(
        "attention",
        f"S[h,q,k] = Q[h,q,d] K[h,k,d] / sqrt(size(d)); {SOFTMAX}; Y[h,q,d] = P[h,q,k] V[h,k,d]",
        "Q:htd K:htd V:htd",
        attention,
    ),
    Known(
        "attention, masked",
        f"S[h,q,k] = where(k <= q, Q[h,q,d] K[h,k,d] / sqrt(size(d)), -1e9); {SOFTMAX}; Y[h,q,d] = P[h,q,k] V[h,k,d]",
        "Q:htd K:htd V:htd",
        lambda Q, K, V: F.scaled_dot_product_attention(Q, K, V, is_causal=True),
    ),
    Known(
        "attention, multi-head",
        "q[b,h,t,e] = X[b,t,d] Q[h,d,e]; k[b,h,t,e] = X[b,t,d] K[h,d,e]; v[b,h,t,e] = X[b,t,d] V[h,d,e]\n"
        "S[b,h,t,u] = q[b,h,t,e] k[b,h,u,e] / sqrt(size(e)); P[b,h,t,u] = exp(S[b,h,t,u]) / sum[u](exp(S[b,h,t,u]))\n"
        "O[b,h,t,e] = P[b,h,t,u] v[b,h,u,e]; Y[b,t,d] = O[b,h,t,e] W[h,e,d]",
        "X:ntd Q:hde K:hde V:hde W:hed",
        multi_head,
    ),
    Known(
        "LSTM cell",
        "I[n,h] = sigmoid(X[n,d] W[0,d,h] + H[n,e] U[0,e,h] + b[0,h])\n"
        "F[n,h] = sigmoid(X[n,d] W[1,d,h] + H[n,e] U[1,e,h] + b[1,h])\n"
        "O[n,h] = sigmoid(X[n,d] W[2,d,h] + H[n,e] U[2,e,h] + b[2,h])\n"
        "G[n,h] = tanh(X[n,d] W[3,d,h] + H[n,e] U[3,e,h] + b[3,h])\n"
        "c[n,h] = F[n,h]*C[n,h] + I[n,h]*G[n,h]\n"
        "Y[n,h] = O[n,h]*tanh(c[n,h])",
        "X:nd H:nh C:nh W:4dh U:4hh b:4h",
        lstm,
    ),
    Known("Swish", "Y[n] = x[n]*sigmoid(x[n])", "x:n", F.silu),
    Known("Mish", "Y[n] = x[n]*tanh(log(1 + exp(x[n])))", "x:n", F.mish),
    Known("leaky relu", "Y[n] = where(x[n] > 0, x[n], 0.01*x[n])", "x:n", lambda x: F.leaky_relu(x, 0.01)),
    Known("ELU", "Y[n] = where(x[n] > 0, x[n], exp(x[n]) - 1)", "x:n", F.elu),
    Known("softsign", "Y[n] = x[n]/(1 + abs(x[n]))", "x:n", F.softsign),
    Known(
        "weighted mean",
        "m[d] = sum[n](w[n] X[n,d]) / sum[n](w[n])",
        "w:n! X:nd",
        lambda w, X: w @ X / w.sum(),
        empty=False,
    ),
    Known("powers", "Y[n] = w[n]**x[n] - 2**x[n] + w[n]**1.5", "w:n! x:n", lambda w, x: w**x - 2**x + w**1.5),
    Known(
        "every function",
        "Y[n] = sin(x[n]) cos(x[n]) erf(x[n]) + gelu(x[n])/exp(x[n]) - log(w[n]) sqrt(w[n])",
        "x:n w:n!",
        lambda x, w: x.sin() * x.cos() * x.erf() + F.gelu(x) / x.exp() - w.log() * w.sqrt(),
    ),
]
DIMS = {"n": 4, "t": 3, "d": 5, "m": 2, "i": 3, "j": 4, "k": 3, "l": 2, "o": 2, "r": 2, "v": 6, "f": 3}
DIMS |= {"h": 2, "e": 3, "g": 2, "c": 3, "p": 4, "4": 4}


def inputs(layer: Known, dtype, dims) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    arrays = {}
    for word in layer.shapes.split():
        name, axes = word.split(":")
        axes, _, below = axes.partition("<")
        shape = [dims[a] for a in axes.rstrip("!")]
        if below:
            arrays[name] = random.integers(0, dims[below], shape)
        else:
            a = random.uniform(0.5, 2, shape) if axes.endswith("!") else random.standard_normal(shape)
            arrays[name] = a.astype(dtype)
    return arrays


def laid_out(a: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another order of memory."""
    if layout == "Fortran":
        return np.asfortranarray(a)
    if layout == "strided":
        wide = np.full([2 * n + 1 for n in a.shape], 77, a.dtype)
        view = wide[tuple(slice(1, 2 * n + 1, 2) for n in a.shape)]
        view[...] = a
        return view
    back = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[back])[back]


def agrees(layer: Known, arrays, dtype, given=None) -> None:
    """Forward and every gradient, in the dtype of the arrays, which stay as they are."""
    given = arrays if given is None else given
    d = xwb.derive(layer.formula)
    Y, dY, gradients = in_torch(layer.function, arrays)
    dY = (dY / 2).astype(dtype)
    assert_close(d.forward(**given), Y.astype(dtype), times=layer.times)
    found = d.backward(dY, **given)
    assert found.keys() == gradients.keys()
    scale = max(np.abs(a).max(initial=0) for a in (dY, *gradients.values()))
    for name, expected in gradients.items():
        close(found[name], (expected / 2).astype(dtype), layer.times, scale)
    for name, a in given.items():
        np.testing.assert_array_equal(a, arrays[name])
    for one, other in itertools.combinations([*found.values(), dY, *given.values()], 2):
        assert not np.shares_memory(one, other)


def close(actual, expected, times, scale) -> None:
    """As `assert_close`, but relative to the largest gradient of all, and to dY: one may be a small difference."""
    wide = np.append(expected.ravel(), scale).astype(expected.dtype)
    assert actual.shape == expected.shape
    assert_close(np.append(actual.ravel(), wide[-1]).astype(actual.dtype), wide, times=times)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layer", LAYERS, ids=[x.name for x in LAYERS])
def test_layer(layer, dtype):
    agrees(layer, inputs(layer, dtype, DIMS | layer.dims), dtype)


@pytest.mark.parametrize("layout", ["Fortran", "strided", "reversed"])
@pytest.mark.parametrize("layer", LAYERS, ids=[x.name for x in LAYERS])
def test_layer_on_any_memory_layout(layer, layout):
    arrays = inputs(layer, np.float64, DIMS | layer.dims)
    agrees(layer, arrays, np.float64, {n: laid_out(a, layout) for n, a in arrays.items()})


@pytest.mark.parametrize("layer", LAYERS, ids=[x.name for x in LAYERS])
def test_layer_of_size_one(layer):
    """Every axis of size 1 (a gate's four stay four)."""
    agrees(layer, inputs(layer, np.float64, dict.fromkeys(DIMS, 1) | {"4": 4}), np.float64)


@pytest.mark.parametrize("layer", [x for x in LAYERS if x.empty and "n" in x.shapes], ids=lambda x: x.name)
def test_layer_of_an_empty_batch(layer):
    """N = 0: parameters get gradients of zeros, inputs empty ones."""
    arrays = inputs(layer, np.float64, DIMS | layer.dims | {"n": 0})
    d = xwb.derive(layer.formula)
    try:
        Y = in_torch(layer.function, arrays)[0]
    except RuntimeError:  # some of PyTorch's own layers refuse it
        Y = d.forward(**arrays)
    np.testing.assert_array_equal(d.forward(**arrays), Y, strict=True)
    found = d.backward(np.ones(Y.shape), **arrays)
    for name, g in found.items():
        np.testing.assert_array_equal(g, np.zeros(arrays[name].shape), strict=True)


def test_read_only_arrays_are_enough():
    for layer in LAYERS[:5]:
        arrays = inputs(layer, np.float64, DIMS | layer.dims)
        for a in arrays.values():
            a.flags.writeable = False
        agrees(layer, arrays, np.float64)


def test_one_derivation_for_many_arrays():
    """Sizes, dtypes and values of one call leave nothing behind for the next."""
    layer = next(x for x in LAYERS if x.name == "attention")
    d = xwb.derive(layer.formula)
    for n, dtype in [(2, np.float64), (5, np.float32), (1, np.float64), (2, np.float64)]:
        arrays = inputs(layer, dtype, DIMS | {"t": n, "h": n})
        Y, dY, gradients = in_torch(layer.function, arrays)
        assert_close(d.forward(**arrays), Y.astype(dtype), times=20)
        for name, expected in gradients.items():
            assert_close(d.backward(dY.astype(dtype), **arrays)[name], expected.astype(dtype), times=40)


def test_results_are_the_callers():
    """Neither the output nor a gradient is a view of an operand, of dY or of another gradient."""
    for formula in (
        "Y[i,j] = A[j,i]",
        "Y[i,j] = A[i,j] + B[i,j]",
        "Y[i,j] = A[i,j]",
        "Y[i] = A[i,i]",
        "Y[...] = A[...]",
    ):
        d = xwb.derive(formula)
        arrays = {n: integers(3, 3, seed=i) for i, n in enumerate(d.inputs)}
        Y = d.forward(**arrays)
        dY = np.ones_like(Y)
        results = [Y, *d.backward(dY, **arrays).values()]
        for one, other in itertools.combinations([*results, dY, *arrays.values()], 2):
            assert not np.shares_memory(one, other)
        for result in results:
            result += 100
        assert (dY == 1).all()
        for i, n in enumerate(d.inputs):
            equal(arrays[n], integers(3, 3, seed=i))
