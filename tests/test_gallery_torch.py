"""Every formula of the gallery is the layer that it is called: value and gradients are those of PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import xwb
from test_derive_known import close, in_torch
from xwb.proof import operands
from xwb.reports import GALLERY

MORE = 3  # than the sizes at which an entry is proved


class Same(NamedTuple):
    """PyTorch's layer, a function of the entry's inputs in order."""

    function: object
    sizes: dict = {}  # noqa: RUF012 (of a tuple)
    given: dict = {}  # noqa: RUF012


def weston_watkins(y, Z):
    return F.multi_margin_loss(Z, y) * Z.shape[1]  # PyTorch divides by the number of classes


def crammer_singer(Z, y):
    return (Z + 1 - F.one_hot(y, Z.shape[1])).amax(1).sub(Z.gather(1, y[:, None])[:, 0]).mean()


def multi_head(X, A, B, C, W):
    O = F.scaled_dot_product_attention(X @ A, X @ B, X @ C)
    return torch.einsum("hte,hem->tm", O, W)


def group_norm(X, g, b):
    return F.group_norm(X.flatten(1, 2), X.shape[1], g.flatten(), b.flatten()).reshape(X.shape)


def grouped(X, K, b):
    Y = F.conv1d(X.flatten(1, 2), K.flatten(0, 1), b.flatten(), groups=K.shape[0])
    return Y.unflatten(1, b.shape)


def lstm(X, W, H, U, b, C):
    stacked = [weight.transpose(1, 2).flatten(0, 1) for weight in (W, U)]
    return torch.lstm_cell(X, (H, C), *stacked, b.flatten(), torch.zeros_like(b).flatten())[0]


def resampling(X, u, v):
    """Points between -1 and 1, the column first."""
    rows, columns = X.shape[1:]
    grid = torch.stack([2 * v / (columns - 1) - 1, 2 * u / (rows - 1) - 1], 1)
    return F.grid_sample(X[None], grid[None, None], padding_mode="zeros", align_corners=True)[0, :, 0]


def upsampling(X):
    Y = F.interpolate(X[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    return Y.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))


SAME = {
    "linear": Same(lambda X, W, b: F.linear(X, W.T, b)),
    "linear-without-bias": Same(torch.matmul),
    "linear-ones": Same(lambda X, W: torch.cat([X, torch.ones_like(X[:, :1])], 1) @ W),
    "linear-outputs-first": Same(lambda W, X, b: F.linear(X, W, b)),
    "linear-numerator": Same(lambda x, W, b: x @ W + b),
    "linear-columns": Same(lambda X, W: (X.T @ W).T),
    "linear-leading-axes": Same(lambda X, W, b: F.linear(X, W.T, b), {"...": (4, 2, 3)}),
    "low-rank": Same(lambda X, A, W, s, B: X @ (W + s * A @ B)),
    "bilinear": Same(lambda X, W, V, b: F.bilinear(X, V, W, b)),
    "embedding": Same(lambda E, k: F.embedding(k, E)),
    "softmax-cross-entropy": Same(F.cross_entropy),
    "cross-entropy-of-probabilities": Same(lambda Z, T: F.cross_entropy(Z, T)),
    "hinge-weston-watkins": Same(weston_watkins),
    "hinge-crammer-singer": Same(crammer_singer),
    "squared-error": Same(lambda Y, T: F.mse_loss(Y, T) * T.shape[1]),
    "kullback-leibler": Same(lambda P, Q: F.kl_div(Q.log(), P, reduction="sum")),
    "logistic": Same(lambda t, z: F.softplus(-t * z).mean()),
    "huber": Same(F.huber_loss),
    "layer-norm": Same(lambda X, g, b: F.layer_norm(X, X.shape[1:], g, b)),
    "rms-norm": Same(lambda X, g: F.rms_norm(X, X.shape[1:], g, 1e-5)),
    "batch-norm": Same(lambda X, g, b: F.batch_norm(X, None, None, g, b, training=True)),
    "group-norm": Same(group_norm),
    "softmax": Same(lambda Z: Z.softmax(1)),
    "attention": Same(F.scaled_dot_product_attention),
    "attention-self": Same(lambda X, A, B, C: F.scaled_dot_product_attention(X @ A, X @ B, X @ C)),
    "attention-masked": Same(lambda Q, K, V: F.scaled_dot_product_attention(Q, K, V, is_causal=True)),
    "attention-multi-head": Same(multi_head),
    "convolution-1d": Same(F.conv1d),
    "convolution-2d": Same(lambda X, K, b: F.conv2d(X, K, b, padding=1)),
    "convolution-strided": Same(lambda X, K, b: F.conv1d(X, K, b, stride=2)),
    "convolution-dilated": Same(lambda X, K, b: F.conv1d(X, K, b, dilation=2)),
    "convolution-grouped": Same(grouped),
    "convolution-depthwise": Same(lambda X, K: F.conv2d(X, K[:, None], groups=K.shape[0])),
    "convolution-transposed": Same(lambda X, K, b: F.conv_transpose1d(X, K, b, stride=2), given={"t": 2 * 7 + 5}),
    "average-pooling": Same(lambda X: F.avg_pool2d(X, (2, 3)), {"...": (3, 2)}),
    "max-pooling": Same(lambda X: F.max_pool2d(X, (2, 4), 2), {"...": (3, 2)}, given={"p": 2, "q": 4}),
    "two-layers": Same(lambda X, W, b, V, c: (X @ W + b).relu() @ V + c),
    "gated-linear": Same(lambda X, W, V: F.glu(torch.cat([X @ W, X @ V], 1))),
    "gated-swish": Same(lambda X, W, V, U: F.silu(X @ W) * (X @ V) @ U),
    "gelu-block": Same(lambda X, W, b, V, c: F.gelu(X @ W + b) @ V + c),
    "lstm": Same(lstm, {"j": 4, "h": 3, "k": 3}),
    "factorisation": Same(lambda U, u, V, v, A: ((U[u] * V[v]).sum(1) - A).square().mean()),
    "gram": Same(lambda X: X.T @ X),
    "quadratic": Same(lambda X, A: torch.einsum("ni,ij,nj->n", X, A, X)),
    "distances": Same(lambda A, B: torch.cdist(A, B, compute_mode="donot_use_mm_for_euclid_dist") ** 2),
    "cosine": Same(lambda A, B: F.cosine_similarity(A[:, None], B[None], 2)),
    "product": Same(lambda X: X.prod(1)),
    "resampling": Same(resampling),
    "upsampling": Same(upsampling),
}


def agrees(entry, formula: str, same: Same) -> None:
    """Value and every gradient of a formula, at sizes that are not the table's."""
    sizes = {letter: size + MORE if isinstance(size, int) else size for letter, size in entry.sizes.items()}
    d = xwb.derive(formula, {**entry.given, **same.given})
    arrays = operands(d, {**sizes, **same.sizes}, rng=5)
    Y, dY, gradients = in_torch(same.function, arrays)
    close(d.forward(**arrays), Y, 50, 0)
    found = d.backward(dY, **arrays)
    assert found.keys() == gradients.keys()
    for name, expected in gradients.items():
        close(found[name], expected, 50, np.abs(dY).max())


@pytest.mark.parametrize("entry", GALLERY, ids=lambda entry: entry.name)
def test_entry_is_pytorchs(entry):
    agrees(entry, entry.formula, SAME[entry.name])


def test_every_comparison_is_of_an_entry():
    assert SAME.keys() == {entry.name for entry in GALLERY}


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("layer-norm", "1e-5", "1e-4"),
        ("convolution-2d", "zero(i+p-1)", "zero(i+p)"),
        ("convolution-transposed", "2*p+r", "p+2*r"),
        ("attention", "sqrt(size(d))", "sqrt(size(u))"),
        ("attention-masked", "[u <= t]", "[u < t+1+1]"),
        ("hinge-weston-watkins", "1 +", "2 +"),
        ("lstm", "A[n,2,h]", "A[n,3,h]"),
        ("upsampling", "2*r-1", "1-2*r"),
        ("squared-error", "mean[n](sum[m]", "mean[n](mean[m]"),
    ],
)
def test_another_layer_is_not_taken_for_it(name, right, wrong):
    entry = next(entry for entry in GALLERY if entry.name == name)
    assert right in entry.formula
    with pytest.raises(AssertionError):
        agrees(entry, entry.formula.replace(right, wrong), SAME[name])
