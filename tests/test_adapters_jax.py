"""The check of JAX's functions: right ones pass, planted mistakes do not, and the caller's settings stay."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xwb
from xwb.adapters.jax import _subject, check

rng = np.random.default_rng(0)
X, W, b = (rng.standard_normal(shape).astype(np.float32) for shape in [(4, 3), (3, 2), (2,)])


def affine(backward):
    """Y = XW + b with a rule of its own, ``backward(dY, X, W, b)``, which has no forward mode."""

    @jax.custom_vjp
    def layer(X, W, b):
        return X @ W + b

    layer.defvjp(
        lambda X, W, b: (X @ W + b, (X, W, b)),
        lambda saved, dY: backward(dY, *saved),
    )
    return layer


def right(dY, X, W, b):
    return dY @ W.T, X.T @ dY, dY.sum(0)


def net(params, X):
    for W, b in params["layers"]:
        X = jnp.tanh(X @ W + b)
    return X * params["scale"]


PARAMS = {"layers": [(W, b), (W[:2], b)], "scale": np.float32(2.0), "unused": None}


def names(report):
    return [row.name for row in report.rows]


@pytest.mark.parametrize("convert", [jnp.asarray, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("function", "inputs", "options", "expected"),
    [
        (lambda X, W: jnp.tanh(X @ W), (X, W), {}, ["X", "W"]),
        (jax.jit(lambda X, W: X @ W), (X, W), {}, ["X", "W"]),
        (affine(right), (X, W, b), {}, ["X", "W", "b"]),
        (jax.jit(affine(right)), (X, W, b), {}, ["X", "W", "b"]),
        (lambda X, y: jnp.take_along_axis(X, y[:, None], 1), (X, np.array([0, 2, 1, 1])), {}, ["X"]),
        (lambda X, kept: jnp.where(kept, X, 0), (X, X > 0), {}, ["X"]),
        (lambda X, power, bias: X**power if bias is None else X, (X, 3, None), {}, ["X"]),
        (lambda X, axis=None: X.sum(axis), (X,), {"axis": 1}, ["X"]),
        (functools.partial(jnp.matmul, precision="highest"), (X, W), {}, ["a", "b"]),
        (net, (PARAMS, X), {}, [*(f"params.layers.{i}.{j}" for i in (0, 1) for j in (0, 1)), "params.scale", "X"]),
    ],
)
def test_right_functions_pass(function, inputs, options, expected, convert):
    def converted(leaf):
        return convert(leaf) if getattr(leaf, "dtype", None) == np.float32 else leaf

    report = check(function, *jax.tree_util.tree_map(converted, inputs), **options)
    report.raise_if_wrong()
    assert names(report) == expected
    assert report.dtype == (np.float32 if convert is jnp.asarray else np.float64)


def test_the_keys_of_random_numbers_are_handed_on():
    def dropout(key, X):
        return X * jax.random.bernoulli(key, 0.5, X.shape)

    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        report = check(dropout, key, X.astype(np.float64))
        report.raise_if_wrong()
        assert names(report) == ["X"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, dY.mean(0)), "b"),
        (lambda dY, X, W, b: (dY @ W.T, 2 * X.T @ dY, dY.sum(0)), "W"),
        (lambda dY, X, W, b: (-dY @ W.T, X.T @ dY, dY.sum(0)), "X"),
        (lambda dY, X, W, b: (dY @ W.T, X[1:].T @ dY[1:], dY.sum(0)), "W"),
        (lambda dY, X, W, b: (dY @ W.T, X.T @ dY, None), "b"),
        (lambda dY, X, W, b: (jnp.ones_like(dY) @ W.T, X.T @ dY, dY.sum(0)), "X"),
        (lambda dY, X, W, b: (dY @ W.T, (X.T @ dY).at[1, 1].set(0), dY.sum(0)), "W"),
    ],
)
def test_planted_mistakes_are_found_and_named(planted, name, compiled):
    function = affine(planted)
    report = check(jax.jit(function) if compiled else function, X, W, b)
    assert [row.name for row in report.rows if not row.ok] == [name]
    assert str(report).startswith(f"layer(X, W, b): d{name} disagrees")


def test_a_mistake_in_one_leaf_is_found():
    def planted(params, X):
        stopped = {**params, "scale": jax.lax.stop_gradient(params["scale"])}
        return net(stopped, X)

    report = check(planted, PARAMS, X)
    assert [row.name for row in report.rows if not row.ok] == ["params.scale"]


@pytest.mark.parametrize("setting", [False, True])
def test_float64_is_really_that_and_the_setting_stays(setting):
    seen = set()

    def function(X):
        seen.add((X.dtype.name, jnp.zeros(1).dtype.name))
        return X**2

    with jax.enable_x64(setting):
        check(function, X.astype(np.float64)).raise_if_wrong()
        assert seen == {("float64", "float64")}
        assert jnp.zeros(1).dtype == (jnp.float64 if setting else jnp.float32)
        seen.clear()
        subject = _subject(function, (X,), {})
        Y, _, back = subject.run(X)
        assert (subject.value(X).dtype, Y.dtype, back(Y)[0].dtype) == (np.float32,) * 3
        assert seen == {("float32", "float64" if setting else "float32")}
        assert subject.value(X.astype(np.float64)).dtype == np.float64


def test_a_function_of_float32_alone():
    def refusing(X):
        if X.dtype != jnp.float32:
            raise TypeError("float32 only")
        return X**2

    with pytest.raises(TypeError, match="float32 only"):
        _subject(refusing, (X,), {}).value(X.astype(np.float64))
    assert _subject(lambda X: X.astype("float32"), (X,), {}).value(X.astype(np.float64)).dtype == np.float32


def aligned(array):
    """A copy where JAX would take the memory itself."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_the_way_back_may_be_called_again_and_keeps_nothing_shared():
    subject = _subject(lambda X, W: X @ W, (X, W), {})
    handed = [aligned(array) for array in subject.arrays]
    Y, _, back = subject.run(*handed)
    dY = np.ones_like(Y)
    first = back(dY)
    handed[0][...] = 0
    second = back(2 * dY)
    assert np.array_equal(second[1], 2 * first[1])
    assert all(array.flags.writeable for array in (Y, *first))


def test_complex_inputs_reach_the_function():
    array = X.astype(np.float64)
    assert np.allclose(_subject(lambda X: X**2, (array,), {}).value(array + 1e-30j).imag, 2e-30 * array)


def test_inputs_stay_on_their_device():
    code = """
import jax, numpy as np
from xwb.adapters.jax import _subject, check

second = jax.devices()[1]
X, W = (jax.device_put(np.ones(shape, np.float32), second) for shape in [(2, 3), (3, 2)])
seen = set()

def product(X, W):
    seen.update(X.devices() | W.devices())
    return X @ W

subject = _subject(product, (X, W), {})
subject.value(*subject.arrays)
assert seen == {second}, seen
check(lambda X, W: X @ W, X, W).raise_if_wrong()
"""
    two = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=two)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("function", "inputs", "options", "says"),
    [
        (jnp.tanh, (jnp.asarray(X, jnp.bfloat16),), {}, r"x is bfloat16, too coarse .*; type  x\.astype\('float32'\)"),
        (jnp.tanh, (X.astype(np.float16),), {}, "x is float16"),
        (
            lambda X: X.astype(jnp.float16),
            (X,),
            {},
            r"returns float16.*check\(lambda X: f\(X\)\.astype\('float32'\), X\)",
        ),
        (jnp.abs, (X * 1j,), {}, r"x is complex64.*x = jax\.lax\.complex\(real, imaginary\)"),
        (lambda X: (X, X), (X,), {}, r"returns a tuple of 2.*; type  check\(lambda X: f\(X\)\[0\], X\)"),
        (jax.jit(lambda X, W: {"Y": X}), (X, W), {}, r"type  check\(lambda X, W: f\(X, W\)\['Y'\], X, W\)"),
        (lambda X: None, (X,), {}, "returns a NoneType"),
        (lambda X: X.astype(int), (X,), {}, "returns int32, which has no gradient"),
        (lambda X, W: X @ W, (X,), {"W": W}, "W is given by keyword, where no gradient is checked"),
        (lambda i: i, (np.arange(3),), {}, "no float32 or float64 array among these"),
        (lambda: W.sum(), (), {}, "no float32 or float64 array among these"),
        ((affine, affine), (X,), {}, r"A layer or a pair of NumPy arrays goes to xwb\.check"),
    ],
)
def test_what_it_is_not_given(function, inputs, options, says):
    with pytest.raises(xwb.XwbError, match=says):
        check(function, *inputs, **options)


def test_traced_arrays_are_refused():
    with pytest.raises(xwb.OptionError, match="x is traced and has no numbers yet; call check outside of jit"):
        jax.jit(lambda X: check(jnp.tanh, X).ok)(X)


def test_seed_and_conduct_reach_the_engine(monkeypatch):
    given = []
    monkeypatch.setattr("xwb.adapters.jax.check_subject", lambda subject, **options: given.append(options))
    check(jnp.tanh, X)
    check(jnp.tanh, X, seed=5, conduct=False)
    assert given == [{"seed": 0, "conduct": True}, {"seed": 5, "conduct": False}]


def test_without_jax_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "xwb.adapters.jax")
    with pytest.raises(ModuleNotFoundError, match=r"type  pip install 'xwb\[jax\]'"):
        importlib.import_module("xwb.adapters.jax")
