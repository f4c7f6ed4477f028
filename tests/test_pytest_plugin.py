"""The pytest plugin: the fixture and the function, what a failing test shows, and what loading it costs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import xwb
from xwb.adapters.pytest import assert_gradient as imported

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
PAIR = """
import numpy as np

X = np.arange(6.0).reshape(2, 3)

def square(X):
    return X**2

def right(dY, X):
    return 2 * X * dY

def wrong(dY, X):
    return X * dY
"""


@jax.custom_vjp
def halved(X):
    return X**2


halved.defvjp(lambda X: (X**2, X), lambda X, dY: (X * dY,))


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, X):
        ctx.save_for_backward(X)
        return X**2

    @staticmethod
    def backward(ctx, dY):
        return dY * ctx.saved_tensors[0]


X, W, b = np.random.default_rng(0).standard_normal((4, 3)), np.eye(3, 2), np.zeros(2)
T = torch.tensor(X)


def test_it_is_registered():
    (entry,) = {entry.value for entry in importlib.metadata.entry_points(group="pytest11", name="xwb")}
    assert entry == "_xwb_pytest"


@pytest.mark.parametrize(
    ("function", "inputs", "options", "names"),
    [
        (xwb.linear, (X, W, b), {}, ["X", "W", "b"]),
        (xwb.derive("Y[n] = sum[d](X[n,d] v[d])"), (X, X[0]), {}, ["X", "v"]),
        (xwb.softmax_cross_entropy, (X, np.array([0, 1, 2, 0])), {"reduction": "sum"}, ["Z"]),
        ((lambda X: X**2, lambda dY, X: 2 * X * dY), (X,), {}, ["X"]),
        (lambda X: X**2, (T,), {"seed": 1}, ["X"]),
        (torch.nn.Linear(3, 2).double(), (T,), {}, ["input", "weight", "bias"]),
        (lambda X: X**2, (jnp.asarray(X),), {}, ["X"]),
        (jax.jit(lambda X: X**2), (X,), {}, ["X"]),
        (lambda params: params["X"] ** 2, ({"X": jnp.asarray(X)},), {}, ["params.X"]),
    ],
)
def test_it_returns_the_report_of_the_library_concerned(assert_gradient, function, inputs, options, names):
    assert assert_gradient is imported
    assert [row.name for row in assert_gradient(function, *inputs, **options).rows] == names


def test_the_seed_says_which_dY(assert_gradient):
    first, again, other = (assert_gradient(xwb.linear, X, W, b, seed=seed).rows for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        ((lambda X: X**2, lambda dY, X: X * dY), (X,)),
        (Halved, (T,)),
        (Halved.apply, (T,)),
        (halved, (X,)),
        (jax.jit(halved), (jnp.asarray(X),)),
    ],
)
def test_a_wrong_gradient_fails(assert_gradient, function, inputs):
    with pytest.raises(xwb.ProofError, match="dX disagrees with finite differences"):
        assert_gradient(function, *inputs)


def test_a_failing_test_shows_the_report_and_its_own_line_alone(pytester):
    pytester.makepyfile(
        PAIR
        + """
def test_square(assert_gradient):
    assert_gradient((square, wrong), X)
"""
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">   *assert_gradient((square, wrong), X)",
            "E   *ProofError: square(X): dX disagrees with finite differences",
            "E   *input  shape *closed form *numeric*",
            "E   *X      (2, 3)*",
            "test_*.py:*: ProofError",
        ]
    )
    result.stdout.no_fnmatch_line("*xwb/*.py*")
    result.stdout.no_fnmatch_line("*xwb\\*.py*")


def test_a_mistake_in_the_call_shows_its_message_and_the_frames_of_others(pytester):
    pytester.makepyfile(
        PAIR
        + """
import xwb
from xwb.adapters.pytest import assert_gradient

def test_options():
    assert_gradient((square, right), X, power=2)

def misfit(X):
    return xwb.linear(X, X)[0]

def test_inside():
    assert_gradient((misfit, right), X)
"""
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E   *OptionError: check: options power belong to layers; a pair takes arrays only",
            ">   *assert_gradient((misfit, right), X)",
            "    def misfit(X):",
            ">   *return xwb.linear(X, X)*",
            "E   *ShapeError: linear(X, W, b): axis d has two sizes",
        ]
    )
    result.stdout.no_fnmatch_line("*xwb/*.py*")


def test_a_property_may_use_the_fixture(pytester):
    pytester.makepyfile(
        PAIR
        + """
from hypothesis import given, settings, strategies

@settings(max_examples=3, database=None)
@given(strategies.floats(0.5, 1))
def test_square(assert_gradient, x):
    assert_gradient((square, right), np.array([x]))
"""
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_loading_it_imports_neither_numpy_nor_the_package():
    """pytest loads it at every start, in projects that never use it, before coverage is measured."""
    code = "import sys, _xwb_pytest; print(*[name for name in ('numpy', 'scipy', 'xwb') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_the_function_imports_no_library_before_it_is_needed():
    code = (
        "import sys, numpy as np, xwb; from xwb.adapters.pytest import assert_gradient; "
        "assert_gradient(xwb.relu, np.ones((2, 2))); "
        "print(*[name for name in ('torch', 'jax', 'pytest') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
