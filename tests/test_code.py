"""``d.code`` and derived functions on tensors: against autograd and loops; formatted, stable, products shared."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

import xwb
from xwb.proof._loops import derivative, evaluate


@pytest.fixture(autouse=True, scope="module")
def in_double_precision():
    with jax.enable_x64(True):
        yield


jnp = jax.numpy

BACKENDS = ("numpy", "torch", "jax")
LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
ENTROPY = "L = mean[n](log(sum[k](exp(Z[n,k]))) - Z[n,y[n]])"
ATTENTION = (
    "S[h,n,m] = Q[h,n,d] K[h,m,d]/sqrt(size(d)); P[h,n,m] = exp(S[h,n,m])/sum[k](exp(S[h,n,k])); "
    "Y[h,n,d] = P[h,n,m] V[h,m,d]"
)
ADAPTER = "Y[n,m] = X[n,d] W[d,m] + X[n,d] A[d,r] B[r,m]"
NORM = (
    "mu[n] = mean[d](X[n,d]); v[n] = mean[d]((X[n,d]-mu[n])**2); Y[n,d] = (X[n,d]-mu[n])/sqrt(v[n]+0.00001)*g[d] + b[d]"
)
CONVOLUTION = "Y[n,o,p,q] = X[n,c,zero(p+r-1),zero(q+s-1)] K[o,c,r,s]"
LAYERS = {
    LINEAR: [(5, 4), (4, 3), (3,)],
    ATTENTION: [(2, 5, 4), (2, 6, 4), (2, 6, 4)],
    ADAPTER: [(5, 6), (6, 7), (6, 2), (2, 7)],
    NORM: [(5, 6), (6,), (6,)],
    CONVOLUTION: [(2, 3, 6, 5), (4, 3, 3, 3)],
    "Y[n,o,p] = X[n,c,2*p+3*r+1] K[o,c,r]": [(2, 3, 14), (4, 3, 3)],
    "Y[n,o,p] = X[n,c,zero(2*p+3*r-2)] K[o,c,r]": [(2, 3, 13), (4, 3, 3)],
    "Y[n,o,p,q] = X[n,c,zero(p+2*r-1),zero(2*q+s-1)] K[o,c,r,s]": [(2, 3, 7, 6), (4, 3, 2, 3)],
    "Y[n,o,p,q] = X[n,c,zero(2*p+r-1),zero(q+2*s-3)] K[o,c,r,s]": [(2, 3, 7, 6), (4, 3, 3, 2)],
    "Y[n,g,o,p,q,t] = X[n,g,c,zero(p+r-1),q+s,zero(t+2*u)] K[g,o,c,r,s,u]": [(1, 2, 2, 4, 5, 3), (2, 3, 2, 3, 2, 2)],
    "Y[n,c,p] = X[n,c,p+r] K[c,r]": [(2, 3, 9), (3, 4)],
    "Y[n,g,o,p] = X[n,g,c,zero(p+r-1)] K[g,o,c,r]": [(2, 3, 2, 9), (3, 4, 2, 3)],
    "Y[p] = x[clamp(p+r-1)] w[r]": [(6,), (3,), {"p": 6}],
    "Y[...,m] = gelu(X[...,d] W[d,m])": [(2, 3, 4), (4, 5)],
    "L = mean[...](X[...,d]**2 w[d])": [(2, 3, 4), (4,)],
    "Y[i] = sigmoid(A[i,i]) + erf(x[i])": [(4, 4), (4,)],
    "y[n] = prod[k](x[n,k])": [(3, 4)],
    "L = sum[n](exp(v[n]-v[n])) + mean[n](v[n]) + prod[n](v[n]-v[n]+2)": [(3,)],  # x - x is a number without axes
    "Y[n] = exp(x[n]-x[n])/sum[m](exp(x[m]-x[m]))*x[n]": [(3,)],
    "y[n] = prod[k](x[n,k]) + prod[k](x[n,k]**2)/a[n]": [(3, 4), (3,)],  # slopes of reductions inside a bracket
    "M[n] = max[k](x[n,k]); y[n] = exp(M[n])/exp(min[k](x[n,k]))": [(3, 4)],
    "Y[i] = where(x[i] > 0, x[i]**2, sin(x[i])) + [i >= 1]*s": [(4,), ()],
    "Y[n,m] = b[m]": [(3,), {"n": 4}],
}


def module(d, backend: str, **options) -> dict:
    """The code, executed."""
    names: dict = {}
    exec(compile(d.code(backend, **options), f"<{backend}>", "exec"), names)
    if backend == "jax" and "*" not in str(inspect.signature(names["forward"])):
        names.update({name: jax.jit(names[name]) for name in ("forward", "backward")})  # one compilation, not many
    return names


def made(backend: str, array):
    return {"numpy": np.asarray, "torch": torch.as_tensor, "jax": jnp.asarray}[backend](array)


def inputs(d, shapes, dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {n: rng.standard_normal(s).astype(dtype) for n, s in zip(d.inputs, shapes, strict=True)}


def split(shapes):
    return (shapes[:-1], shapes[-1]) if isinstance(shapes[-1], dict) else (shapes, {})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("formula", LAYERS)
def test_code_agrees_with_finite_differences(formula, backend):
    """The forward pass is the loops'; the gradients are its slopes, measured."""
    from xwb.proof._loops import derivative, evaluate

    shapes, sizes = split(LAYERS[formula])
    d = xwb.derive(formula, sizes)
    arrays = inputs(d, shapes)
    functions = module(d, backend)
    Y, saved = functions["forward"](*(made(backend, arrays[n]) for n in d.inputs))
    expected = np.asarray(evaluate(formula, arrays, sizes)[d.output], np.float64)
    np.testing.assert_allclose(np.asarray(Y), expected, rtol=1e-9, atol=1e-12)
    dY = np.random.default_rng(4).standard_normal(expected.shape)
    gradients = functions["backward"](made(backend, dY), saved)
    for name, gradient in zip(d.differentiable, gradients, strict=True):
        slopes = np.asarray(derivative(formula, arrays, name, dY, sizes), np.float64)
        np.testing.assert_allclose(np.asarray(gradient), slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("formula", LAYERS)
def test_float32_stays(formula):
    shapes, sizes = split(LAYERS[formula])
    d = xwb.derive(formula, sizes)
    arrays = inputs(d, shapes, np.float32)
    for backend in BACKENDS:
        functions = module(d, backend)
        Y, saved = functions["forward"](*(made(backend, arrays[n]) for n in d.inputs))
        dY = np.ones(np.shape(Y), np.float32)
        for array in (Y, *functions["backward"](made(backend, dY), saved)):
            assert str(array.dtype).removeprefix("torch.") == "float32"


@pytest.mark.parametrize("formula", LAYERS)
def test_autograd_takes_the_derived_backward_pass(formula):
    shapes, sizes = split(LAYERS[formula])
    d = xwb.derive(formula, sizes)
    layer = module(d, "torch")["layer"]
    tensors = [torch.from_numpy(np.array(a)).requires_grad_() for a in inputs(d, shapes).values()]
    assert torch.autograd.gradcheck(layer, tensors)


@pytest.mark.parametrize("name", ["saved", "ctx", "Saved", "layer", "forward", "torch"])
def test_autograd_takes_outputs_that_are_called_like_what_the_code_uses(name):
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    found = xwb.derive(f"{name}[i] = x[i]**2").forward(x=x)
    found.sum().backward()
    assert found.tolist() == [1, 1, 1]
    assert x.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize("formula", [LINEAR, ENTROPY, ATTENTION, CONVOLUTION, NORM])
def test_jax_compiles_and_differentiates(formula):
    d = xwb.derive(formula)
    shapes = LAYERS.get(formula, [(5, 7)])
    arrays = dict(zip(d.inputs, (np.random.default_rng(0).standard_normal(s) for s in shapes), strict=False))
    if formula == ENTROPY:
        arrays["y"] = np.array([0, 6, 2, 2, 1])
    layer = module(d, "jax")["layer"]
    names = list(d.differentiable)

    def loss(*floats):
        return layer(*({**arrays, **dict(zip(names, floats, strict=True))}[n] for n in d.inputs)).sum()

    found = jax.jit(jax.grad(loss, argnums=tuple(range(len(names)))))(*(jnp.asarray(arrays[n]) for n in names))
    dY = np.ones(np.shape(d.forward(**arrays)))
    for name, gradient in zip(names, found, strict=True):
        np.testing.assert_allclose(gradient, d.backward(dY, **arrays)[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_size_that_no_array_says_is_passed_by_keyword(backend):
    functions = module(xwb.derive("L = sum[n](n*s)"), backend)
    value, saved = functions["forward"](made(backend, np.float64(2)), n=4)
    assert float(value) == 12
    assert float(functions["backward"](made(backend, np.float64(1)), saved)[0]) == 6
    if backend == "jax":
        assert float(jax.jit(jax.grad(lambda s: functions["layer"](s, 4)))(2.0)) == 6
    else:
        s = torch.tensor(2.0, requires_grad=True)
        functions["layer"](s, n=4).backward()
        assert s.grad == 6


# -- ties, kinks, guards -------------------------------------------------------------------------------------------

KINKS = [
    ("Y[i] = relu(x[i])", [0, -1, 2], [0, 0, 1]),
    ("Y[i] = abs(x[i])", [0, -1, 2], [0, -1, 1]),
    ("Y[i] = sign(x[i])", [0, -1, 2], [0, 0, 0]),
    ("Y[i] = max(x[i], 1)", [1, 0, 2], [0.5, 0, 1]),
    ("y = max[k](x[k])", [2, 1, 2], [0.5, 0, 0.5]),
    ("y = min[k](x[k])", [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
    ("y = prod[k](x[k])", [2, 0, 3], [0, 6, 0]),
    ("Y[i] = where(x[i] > 0, sqrt(x[i]), 0)", [0, 4, 1], [0, 0.25, 0.5]),
    ("Y[i] = [x[i] > 0]*log(x[i])", [0, 4, 1], [0, 0.25, 1]),
    ("y = [x[i] > 0] log(x[i])", [0, 4, 1], [0, 0.25, 1]),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("formula", "x", "slopes"), KINKS)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")
def test_ties_and_kinks_are_pinned(formula, x, slopes, backend):
    functions = module(xwb.derive(formula), backend)
    Y, saved = functions["forward"](made(backend, np.array(x, np.float64)))
    assert np.isfinite(np.asarray(Y)).all()
    (gradient,) = functions["backward"](made(backend, np.ones(np.shape(Y))), saved)
    np.testing.assert_allclose(np.asarray(gradient), slopes, rtol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_are_stable(backend):
    """Against PyTorch's own loss and softmax, at scores of ±10,000 in float32."""
    rng = np.random.default_rng(0)
    Z, y = (1e4 * rng.standard_normal((6, 9))).astype(np.float32), rng.integers(0, 9, 6)
    scores = torch.from_numpy(Z.copy()).double().requires_grad_()

    functions = module(xwb.derive(ENTROPY), backend)
    L, saved = functions["forward"](made(backend, Z), made(backend, y))
    (dZ,) = functions["backward"](made(backend, np.float32(1)), saved)
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(y))
    loss.backward()
    np.testing.assert_allclose(float(L), float(loss.detach()), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(dZ), scores.grad.numpy(), atol=1e-7)

    functions = module(xwb.derive("P[n,k] = exp(Z[n,k])/sum[h](exp(Z[n,h]))"), backend)
    P, saved = functions["forward"](made(backend, Z))
    dP = rng.standard_normal(Z.shape).astype(np.float32)
    softmax = torch.softmax(scores, 1)
    (expected,) = torch.autograd.grad(softmax, scores, torch.from_numpy(dP).double())
    np.testing.assert_allclose(np.asarray(P), softmax.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(np.asarray(functions["backward"](made(backend, dP), saved)[0]), expected, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_exponentials_of_the_loss_are_computed_once(backend):
    """Backward scales those of forward by one number for each row; what is said stays ``exp(Z - lse)``."""
    text = xwb.derive(ENTROPY).code(backend)
    backward = text[text.index("def backward") :]
    statements = [line for line in text.splitlines() if "#" not in line.partition("exp")[0]]
    assert len(re.findall(r"(?:np\.|jnp\.|\.)exp_?\(", "\n".join(statements))) == 1
    assert "# dZ[n,k] = dL exp(Z[n,k] - lse[n])/size(n)" in backward
    assert "dZ = E * (t / total)[:, None]" in backward


@pytest.mark.parametrize(
    ("formula", "exponentials"),
    [
        ("lse[n] = log(sum[k](exp(Z[n,k]))); Y[n,k] = exp(Z[n,k] - lse[n])", 1),
        ("lse[n] = log(sum[k](exp(Z[n,k]))); Y[n,k] = exp(2*Z[n,k] - lse[n])", 2),
        ("lse[n] = log(sum[k](exp(Z[n,k]))) + 1; Y[n,k] = exp(Z[n,k] - lse[n])", 2),
        ("lse[n] = log(sum[k](exp(Z[n,k]))); Y[n,k] = exp(Z[n,k] - 2*lse[n])", 2),
    ],
)
def test_what_is_subtracted_from_an_exponent(formula, exponentials):
    """Only the logarithm of a sum in which the exponential stands is divided by instead."""
    d = xwb.derive(formula)
    Z = np.array([[3e2, -3e2, 0.5], [1.5, 2.5, -1.0]])
    functions = module(d, "numpy")
    Y, saved = functions["forward"](Z)
    lse = torch.logsumexp(scores := torch.from_numpy(Z).requires_grad_(), 1, keepdim=True) + ("+ 1" in formula)
    expected = torch.exp(scores * (2 if "2*Z" in formula else 1) - lse * (2 if "2*lse" in formula else 1))
    np.testing.assert_allclose(Y, expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(
        functions["backward"](np.ones_like(Y), saved)[0],
        torch.autograd.grad(expected.sum(), scores)[0],
        rtol=1e-9,
        atol=1e-12,
    )
    forward = d.code("numpy").partition("def backward")[0]
    assert forward.count("np.exp(") == exponentials


def test_scores_are_scaled_while_they_are_small():
    """Not the products of queries and keys, which may be larger than all inputs."""
    text = xwb.derive(ATTENTION).code("numpy")
    assert "S = Q @ (K / math.sqrt(d)).mT" in text
    assert "dQ = dS @ (K / math.sqrt(d))" in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("formula", [LINEAR, ATTENTION, NORM, CONVOLUTION, "Y[...,m] = gelu(X[...,d] W[d,m])"])
def test_half_precision_on_torch(formula, dtype):
    d = xwb.derive(formula)
    arrays = {n: torch.from_numpy(a).to(dtype) for n, a in inputs(d, LAYERS[formula]).items()}
    Y = d.forward(**arrays)
    wide = {n: a.double().numpy() for n, a in arrays.items()}
    dY = torch.ones_like(Y)
    assert Y.dtype == dtype
    np.testing.assert_allclose(Y.double(), d.forward(**wide), rtol=0.1, atol=0.1)
    for name, gradient in d.backward(dY, **arrays).items():
        expected = d.backward(dY.double().numpy(), **wide)[name]
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient.double(), expected, rtol=0.1, atol=0.05 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_positions_do_not_count_from_the_end(backend):
    functions = module(xwb.derive(ENTROPY), backend)
    Z = made(backend, np.zeros((3, 4)))
    for y in ([0, -1, 2], [0, 4, 2]):
        with pytest.raises(IndexError):
            functions["forward"](Z, made(backend, np.array(y)))


def test_a_long_sum_is_written():
    d = xwb.derive("Y[i] = " + " + ".join(f"x{k}[i]" for k in range(400)))
    assert "def backward" in d.code("numpy")


# -- what the text is ----------------------------------------------------------------------------------------------


def test_code_is_formatted_and_free_of_lint(tmp_path):
    ruff = Path(sys.executable).with_name("ruff")
    formulas = [*LAYERS, ENTROPY, *(formula for formula, _, _ in KINKS), "Y[n] = E[k[n]] max[m](x[n,m] W[n,m])"]
    for number, formula in enumerate(formulas):
        for backend in BACKENDS:
            source = xwb.derive(formula).code(backend)
            assert "xwb" not in source
            (tmp_path / f"{backend}{number}.py").write_text(source, "utf-8")
    options = ["--isolated", "--no-cache", "--line-length", "88"]
    done = subprocess.run([ruff, "format", *options, "--diff", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    select = ["--select", "E,F"]
    done = subprocess.run([ruff, "check", *options, *select, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_code_of_a_linear_layer():
    text = xwb.derive(LINEAR).code("numpy")
    assert (
        text.split("\n\n\n", 2)[2]
        == '''\
def forward(X, W, b):
    """Y, and what backward needs."""
    # Y[n,m] = sum[d] X[n,d] W[d,m] + b[m]
    Y = X @ W  # (n, m)
    Y += b
    return Y, Saved(X, W)


def backward(dY, saved):
    """dX, dW, db, from dY and what forward saved."""
    X, W = saved
    # dX[n,d] = sum[m] dY[n,m] W[d,m]
    dX = dY @ W.T  # (n, d)
    # dW[d,m] = sum[n] X[n,d] dY[n,m]
    dW = X.T @ dY  # (d, m)
    # db[m] = sum[n] dY[n,m]
    db = dY.sum(axis=0)  # (m,)
    return dX, dW, db
'''
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_adapter_shares_its_products(backend):
    """Eight matrix products: X W, X A, (X A) B; dY Wᵀ, dY Bᵀ, (dY Bᵀ) Aᵀ; Xᵀ dY, Xᵀ (dY Bᵀ), (X A)ᵀ dY."""
    text = xwb.derive(ADAPTER).code(backend)
    assert len(re.findall(r" @ ", text)) == 9
    assert text.count("X @ A") == text.count("dY @ B.T") == 1


H = "mu[n] = mean[d](X[n,d]); v[n] = mean[d]((X[n,d] - mu[n])**2); H[n,d] = (X[n,d] - mu[n])/sqrt(v[n] + 0.01); "
A = H + "A[n,d] = H[n,d] g[d] + b[d]; "


@pytest.mark.parametrize(
    ("formula", "count", "shapes"),
    [
        (NORM, 1, [(5, 6), (6,), (6,)]),
        ("Y[...,d] = (X[...,d]-mean[k](X[...,k]))/sqrt(mean[k]((X[...,k]-mean[j](X[...,j]))**2)+1)*g[d]", 1,
         [(2, 3, 4), (4,)]),
        (H + "Y[n,m] = H[n,d] W[d,m]", 1, [(5, 6), (6, 3)]),
        (A + "Y[n,m] = tanh(A[n,d] + c[d]) W[d,m]", 1, [(5, 6), (6,), (6,), (6,), (6, 2)]),
        (A + "Y[n,d] = X[n,d] + A[n,d]", 1, [(5, 6), (6,), (6,)]),
        (A + "Y[n,d] = H[n,d] + A[n,d]", 1, [(5, 6), (6,), (6,)]),
        (H + "Y[n,d] = H[n,d] g[d] + g[d]", 1, [(5, 6), (6,)]),
        (A + "m2[n] = mean[d](A[n,d]); v2[n] = mean[d]((A[n,d]-m2[n])**2); Y[n,d] = (A[n,d]-m2[n])/sqrt(v2[n]+1)", 2,
         [(5, 6), (6,), (6,)]),
        (H.replace("mean[d](X", "2*mean[d](X") + "Y[n,d] = H[n,d] g[d]", 0, [(5, 6), (6,)]),
        (H.replace("v[n] + 0.01", "2*v[n] + 0.01") + "Y[n,d] = H[n,d] g[d]", 0, [(5, 6), (6,)]),
        (H + "Y[n,d] = H[n,d] v[n] + b[d]", 0, [(5, 6), (6,)]),
        (H.replace("mean[d]", "mean[n]").replace("mu[n]", "mu[d]").replace("v[n]", "v[d]") + "Y[n,d] = H[n,d] g[d]", 0,
         [(6, 6), (6,)]),
    ],
)  # fmt: skip
def test_layer_normalisations_are_pytorchs_own(formula, count, shapes):
    """Where the closed form is exactly that, over the last axis; whatever else the program does."""
    d = xwb.derive(formula)
    text = d.code("torch")
    assert text.count("torch.native_layer_norm(") == text.count("native_layer_norm_backward(") == count
    functions, arrays = module(d, "torch"), inputs(d, shapes)
    tensors = [torch.from_numpy(array) for array in arrays.values()]
    Y, saved = functions["forward"](*tensors)
    np.testing.assert_allclose(Y, d.forward(**arrays), rtol=1e-10, atol=1e-12)
    dY = np.random.default_rng(4).standard_normal(Y.shape)
    gradients = functions["backward"](torch.from_numpy(dY), saved)
    for gradient, expected in zip(gradients, d.backward(dY, **arrays).values(), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-11)


def test_sizes_choose_the_order_of_products():
    d = xwb.derive("Y[n,m] = A[n,d] B[d,k] C[k,m]")
    assert "AB = A @ B" in d.code("numpy", n=10, d=1000, k=10, m=1000)
    assert "BC = B @ C" in d.code("numpy", n=1000, d=1000, k=1000, m=2)


def test_another_backend_is_refused():
    with pytest.raises(xwb.OptionError, match="numpy, torch, jax"):
        xwb.derive(LINEAR).code("tensorflow")
    with pytest.raises(xwb.FormulaError, match="no index z"):
        xwb.derive(LINEAR).code("numpy", z=3)


@pytest.mark.parametrize("formula", [LINEAR, ENTROPY, ADAPTER, NORM, ATTENTION, CONVOLUTION])
def test_nothing_is_larger_than_inputs_and_outputs(formula):
    """At no time is there more than saved values, results and one array of the largest size beside them."""
    d = xwb.derive(formula)
    shapes = {
        LINEAR: [(300, 200), (200, 400), (400,)],
        ADAPTER: [(100, 700), (700, 600), (700, 2), (2, 600)],
        NORM: [(800, 300), (300,), (300,)],
        ATTENTION: [(4, 150, 60)] * 3,
        ENTROPY: [(100, 900), (100,)],
        CONVOLUTION: [(16, 8, 24, 24), (8, 8, 3, 3)],
    }[formula]
    arrays = [a.astype(np.float32) for a in inputs(d, shapes).values()]
    if formula == ENTROPY:
        arrays[1] = np.arange(100)
    functions = module(d, "numpy")
    Y, saved = functions["forward"](*arrays)
    dY = np.ones_like(Y)
    functions["backward"](dY, saved)
    tracemalloc.start()
    Y, saved = functions["forward"](*arrays)
    grads = functions["backward"](dY, saved)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    own = sum(a.nbytes for a in (Y, *grads, *(s for s in saved if not any(s is a for a in arrays))))
    largest = max(a.nbytes for a in (*arrays, Y, *saved))
    assert peak <= own + 1.1 * largest


# -- derived functions on tensors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", [LINEAR, ATTENTION, "H[n,k] = tanh(X[n,d] V[d,k]); Y[n,m] = H[n,k] W[k,m]"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_forward_and_backward_on_tensors(formula, backend):
    d = xwb.derive(formula)
    arrays = inputs(d, LAYERS.get(formula, [(5, 4), (4, 3), (3, 2)]))
    tensors = {n: made(backend, a) for n, a in arrays.items()}
    Y = d.forward(**arrays)
    dY = np.random.default_rng(0).standard_normal(Y.shape)
    np.testing.assert_allclose(np.asarray(d.forward(**tensors)), Y, rtol=1e-12)
    for name, value in d.values(**tensors).items():
        assert type(value) is type(tensors[d.inputs[0]])
        np.testing.assert_allclose(np.asarray(value), d.values(**arrays)[name], rtol=1e-12)
    found = d.backward(made(backend, dY), **tensors)
    for name, gradient in d.backward(dY, **arrays).items():
        assert type(found[name]) is type(tensors[name])
        np.testing.assert_allclose(np.asarray(found[name]), gradient, rtol=1e-10, atol=1e-13)


def test_tensors_are_checked_as_arrays_are():
    d = xwb.derive(LINEAR)
    X, W, b = torch.ones(3, 4), torch.ones(5, 2), torch.ones(2)
    with pytest.raises(xwb.FormulaError, match="the index d has two sizes"):
        d.forward(X=X, W=W, b=b)
    with pytest.raises(xwb.FormulaError, match="b is missing"):
        d.forward(X=X, W=W)
    with pytest.raises(xwb.DtypeError, match=r"type  b = torch\.as_tensor\(b\)"):
        d.forward(X=X, W=torch.ones(4, 2), b=np.ones(2, np.float32))
    with pytest.raises(xwb.DtypeError, match=r"type  b = b\.to\(torch\.float32\)"):
        d.forward(X=X, W=torch.ones(4, 2), b=b.double())
    with pytest.raises(xwb.DtypeError, match=r"X is torch\.int64, not floating; type  X = X\.to\(torch\.float32\)"):
        d.forward(X=X.long(), W=torch.ones(4, 2), b=b)
    with pytest.raises(xwb.ShapeError, match="dY has the shape of Y"):
        d.backward(torch.ones(3, 3), X=X, W=torch.ones(4, 2), b=b)
    with pytest.raises(xwb.FormulaError, match="outside its axis"):
        xwb.derive("Y[n] = x[k[n]]").forward(x=torch.ones(3), k=torch.tensor([0, 3]))


def test_grad_flows_through_forward():
    d = xwb.derive(LINEAR)
    X, W, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [(3, 4), (4, 2), (2,)])
    d.forward(X=X, W=W, b=b).square().sum().backward()
    expected = torch.autograd.grad((X @ W + b).square().sum(), (X, W, b))
    for tensor, gradient in zip((X, W, b), expected, strict=True):
        torch.testing.assert_close(tensor.grad, gradient)
    slope = jax.grad(lambda x: d.forward(X=x, W=jnp.ones((4, 2)), b=jnp.ones(2)).sum())(jnp.ones((3, 4)))
    np.testing.assert_array_equal(slope, np.full((3, 4), 2.0))


def test_nothing_is_imported_for_numpy():
    run = "import sys, numpy as np, xwb; d = xwb.derive('Y[i] = x[i]**2'); d.forward(x=np.ones(2)); d.code('torch')"
    run += "; assert not {'torch', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", run], check=True)


THREE, MARKS = np.random.default_rng(3).standard_normal((3, 2, 4)), np.array([1, 3, 2])
UNUSUAL = [
    # one gradient is what another is added to
    ("Y[i] = X[i] + X[zero(i)] + W[i]", {"X": THREE[0, 0], "W": THREE[0, 1]}, {}),
    # a position that its gathers cancel in
    ("Y[i,j] = X[i,j,zero(-e[i]+e[i])]*2", {"X": THREE, "e": MARKS}, {}),
    ("Y[i,j,k] = X[i,j,3-k] + X[wrap(e[2*j]-1),reflect(-e[i]+e[i]+1),wrap(k+1)]", {"X": THREE, "e": MARKS}, {"k": 3}),
    # a size follows from one that is another one's equal by a later statement
    (
        "Z[i] = -max[j1](X[e[2*i],zero(e[j1])]*W[]); Y[i] = [i < i]*2*Z[i] + mean[j](X[K[j],zero(i+e[j])])",
        {"X": THREE[:, 0, :2], "W": THREE[0, 0, 0], "e": np.array([0, 0, 1]), "K": np.array([1, 1, 1])},
        {},
    ),
    # a bracket stands for an index that another takes for its range
    (
        "S[i] = sum[j](X[j]*[i == clamp(e[j+i]+j)]); Y[i] = b[i]*S[K[]]",
        {"X": THREE[0, :, 0], "b": THREE[:, 0, 0], "e": np.array([0, 0, 1, 1]), "K": np.array(1)},
        {"j": 2, "i": 3},
    ),
    # numbers alone are in the dtype of the inputs
    ("Y[i] = X[i] + where(size(i) == 2, tanh(2), 0)", {"X": THREE[0, :, 0]}, {}),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("formula", "arrays", "sizes"), UNUSUAL)
def test_unusual_programs(formula, arrays, sizes, backend):
    d = xwb.derive(formula, sizes)
    names = module(d, backend)
    expected = evaluate(formula, arrays, sizes)[d.output].astype(float)
    Y, saved = names["forward"](*(made(backend, arrays[name]) for name in d.inputs))
    np.testing.assert_allclose(np.asarray(Y), expected, rtol=1e-14)
    dY = np.random.default_rng(4).standard_normal(expected.shape)
    found = names["backward"](made(backend, dY), saved)
    for name, gradient in zip(d.differentiable, found, strict=True):
        expected = derivative(formula, arrays, name, dY, sizes)
        np.testing.assert_allclose(np.asarray(gradient), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("formula", "arrays"),
    [
        # part of a product beside a bracket is not named without the bracket
        ("Y[n] = [X[n] != 0]*exp(X[n])/sum[m](exp(X[m]))/X[n]", {"X": [0.0, 1, 2]}),
        ("Y[n] = [X[n] > 0]*X[n]/sqrt(sum[m](X[m]**2))*sqrt(W[n])", {"X": [0.0, 1, 2], "W": [-1.0, 2, 3]}),
        ("Y[n] = [X[n] > 0]*exp(X[n])/sum[m](exp(X[m]))*log(X[n])", {"X": [-1.0, 0, 1, 2]}),
        # a root of an entry is infinite or no number where the entry is negative
        ("Y[n] = exp(-([X[n] > 0]*a[n]*X[n]**1.5))", {"X": [-1.0, 0, 1, 2], "a": [1.0, 2, 3, 4]}),
        (
            "H = sum[n](where(s > 0, ([v[n] > 0]*s*v[n]**1.5)*log(s), ([v[n] > 0]*s*v[n]**1.5)))",
            {"s": 1.5, "v": [-1.0, 0, 1, 2]},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_false_brackets_shield_from_infinities(formula, arrays):
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    d = xwb.derive(formula)
    Y = d.forward(**arrays)
    np.testing.assert_allclose(Y, evaluate(formula, arrays, {})[d.output].astype(float))
    dY = np.arange(1.0, Y.size + 1).reshape(Y.shape)
    found = d.backward(dY, **arrays)
    names = module(d, "numpy")
    run = dict(zip(d.differentiable, names["backward"](dY, names["forward"](*arrays.values())[1]), strict=True))
    for name in d.differentiable:
        expected = derivative(formula, arrays, name, dY, {})
        again = xwb.derive(d[name].program)
        needed = {n: a for n, a in {**arrays, f"d{d.output}": dY}.items() if n in again.inputs}
        for actual in (found[name], run[name], again.forward(sizes=d[name].letters(**arrays), **needed)):
            np.testing.assert_allclose(actual, expected, atol=1e-12, err_msg=f"{d[name].formula}")


@pytest.mark.parametrize(
    ("formula", "shape"),
    [
        ("Y[i] = " + "tanh(" * 95 + "x[i]" + ")" * 95, (3,)),
        ("Y[n,k] = " + " + ".join(["exp(x[n,k])/sum[j](exp(x[n,j]))"] * 150), (3, 4)),
    ],
)
def test_what_is_too_long_to_be_written_is_computed(formula, shape):
    d = xwb.derive(formula)
    x = np.random.default_rng(0).standard_normal(shape)
    tensor = torch.tensor(x, requires_grad=True)
    found, dY = tensor, np.arange(float(x.size)).reshape(shape)
    for _ in range(95 if x.ndim == 1 else 1):
        found = found.tanh() if x.ndim == 1 else 150 * found.softmax(1)
    (expected,) = torch.autograd.grad(found, tensor, torch.from_numpy(dY))
    with pytest.raises(xwb.FormulaError, match="backward computes it"):
        d["x"].formula  # noqa: B018
    run = module(d, "numpy")
    for actual in (d.backward(dY, x=x)["x"], run["backward"](dY, run["forward"](x)[1])[0]):
        np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_products_of_many_sums_are_not_multiplied_out():
    """2**39 terms otherwise."""
    d = xwb.derive("Y[i] = " + "*".join(f"(x[i]/y[i] + {n}*y[i])" for n in range(1, 40)) + "/z[i]")
    x, y, z = np.full((3, 2), [0.25, 0.5])
    run = module(d, "numpy")
    dY = np.ones(2)
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, y, z)]
    product = 1 / tensors[2]
    for n in range(1, 40):
        product = product * (tensors[0] / tensors[1] + n * tensors[1])
    product.sum().backward()
    for name, actual, tensor in zip("xyz", run["backward"](dY, run["forward"](x, y, z)[1]), tensors, strict=True):
        np.testing.assert_allclose(actual, tensor.grad)
        np.testing.assert_allclose(d.backward(dY, x=x, y=y, z=z)[name], tensor.grad)


def test_statements_are_looked_through_once(monkeypatch):
    from xwb.algebra import _gradient

    seen = []
    look = _gradient._reads_leading
    monkeypatch.setattr(_gradient, "_reads_leading", lambda node: seen.append(node) or look(node))
    xwb.derive("Y[i] = " + " + ".join(["x[i]"] * 200)).backward(np.ones(3), x=np.ones(3))
    assert len(seen) < 5000
