"""The code of random formulas, run on NumPy arrays, PyTorch tensors and JAX arrays, against the engine and autograd.

``XWB_EXAMPLES=2000 pytest tests/test_code_random.py`` draws that many other examples.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from hypothesis import given

import xwb
from _random_formulas import Formula, InTorch, formulas
from test_derive_random import close, examples


@pytest.fixture(autouse=True, scope="module")
def in_double_precision():
    with jax.enable_x64(True):
        yield


def arrays(f: Formula, backend: str):
    made = {"numpy": np.asarray, "torch": lambda a: torch.from_numpy(np.array(a)), "jax": jax.numpy.asarray}[backend]
    return {name: made(array) for name, array in f.arrays.items()}, made(f.dY)


def as_numpy(array) -> np.ndarray:
    return array.numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def agrees(f: Formula, backend: str) -> None:
    """Value and gradients are PyTorch's own; nothing that was passed in is changed; nothing of xwb is imported."""
    d = xwb.derive(f.text, f.sizes)
    source = d.code(backend)
    assert "xwb" not in source
    module: dict = {}
    exec(compile(source, "<code>", "exec"), module)
    given_arrays, dY = arrays(f, backend)
    Y, saved = module["forward"](*(given_arrays[name] for name in d.inputs))
    found = module["backward"](dY, saved)
    expected, gradients = InTorch(f).gradients(f.arrays, f.dY)
    close(as_numpy(Y), expected, f)
    assert len(found) == len(d.differentiable)
    for name, gradient in zip(d.differentiable, found, strict=True):
        if name in f.floats:
            close(as_numpy(gradient), gradients[name], f)
        else:
            assert gradient is None
    for name, array in given_arrays.items():
        np.testing.assert_array_equal(as_numpy(array), f.arrays[name])


@examples(120)
@given(formulas())
def test_numpy(f):
    agrees(f, "numpy")


@examples(60)
@given(formulas(polynomial=True))
def test_numpy_on_polynomials(f):
    agrees(f, "numpy")


@examples(120)
@given(formulas())
def test_torch(f):
    agrees(f, "torch")


@examples(12)
@given(formulas())
def test_jax(f):
    agrees(f, "jax")


@examples(60)
@given(formulas())
def test_the_code_of_all_sizes_takes_those_that_arrays_do_not_say(f):
    """Without given sizes the code holds for every size; what no array says is passed by keyword."""
    d = xwb.derive(f.text)
    try:
        expected = d.forward(**f.arrays)
    except xwb.FormulaError:
        return  # some size has to be given: what it is then is another program
    module: dict = {}
    exec(compile(d.code("numpy"), "<code>", "exec"), module)
    Y, saved = module["forward"](*(f.arrays[name] for name in d.inputs))
    close(Y, expected, f)
    gradients = d.backward(f.dY, **f.arrays) if expected.shape == f.dY.shape else {}
    for name, gradient in zip(d.differentiable, module["backward"](f.dY, saved) if gradients else (), strict=False):
        if name in gradients:
            close(gradient, gradients[name], f)
