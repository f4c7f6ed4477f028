"""A formula that is not executed is decoration: each one, read as loops, is its layer's forward.

The sizes are all different, so that a swapped index cannot hide; values are float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import xwb
from _tolerances import assert_close
from xwb.proof import operands as random_operands
from xwb.proof._loops import evaluate

N, D, M = 4, 3, 5
RULES = [rule for name in xwb.__all__ if isinstance(rule := getattr(xwb, name), xwb.Layer | xwb.Loss)]
CHAINS = {
    "linear relu linear": (xwb.chain(xwb.linear, xwb.relu, xwb.linear), (D, 6, M)),
    "linear tanh linear softmax": (xwb.chain(xwb.linear, xwb.tanh, xwb.linear, xwb.softmax), (D, 6, M)),
    "gelu linear sigmoid": (
        xwb.chain(xwb.gelu.with_options(approximate="tanh"), xwb.linear, xwb.sigmoid),
        (D, M),
    ),
    "nested": (xwb.chain(xwb.linear, xwb.chain(xwb.relu, xwb.linear)), (D, 6, M)),
    "tied": (xwb.chain(xwb.linear, xwb.linear, xwb.linear, tie={"W3": "W2"}), (D, M, M, M)),
    "tied to the transpose": (xwb.chain(xwb.linear, xwb.relu, xwb.linear, tie={"W2": "W1.T"}), (D, 6, D)),
}


def value_of(formula: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The formula's last statement, by loops."""
    return list(evaluate(formula, arrays).values())[-1]


def operands(layer: xwb.Layer, sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """Random arrays for the inputs of a layer with parameters."""
    rng = np.random.default_rng(0)
    shapes = [(N, sizes[0]), *(param.shape for param in layer.init(sizes, rng=rng))]
    return {name: rng.standard_normal(shape) for name, shape in zip(layer.inputs, shapes, strict=True)}


@pytest.mark.parametrize(
    ("rule", "options", "formula"),
    [
        pytest.param(rule, options, formula, id=f"{rule.name}-{number}")
        for rule in RULES
        for number, (options, formula) in enumerate([({}, rule.formula), *rule.variants])
    ],
)
def test_formula_is_the_forward(rule, options, formula):
    positive = {*rule.options, *rule.inputs[1:]} if isinstance(rule, xwb.Loss) else ()
    arrays = random_operands(formula, positive=positive)
    weights = {name: array for name, array in arrays.items() if name in rule.options}
    value, _ = rule.forward(*(arrays[name] for name in rule.inputs), **options, **weights)
    assert_close(value, value_of(formula, arrays))


@pytest.mark.parametrize("name", CHAINS)
def test_formula_of_a_chain_is_its_forward(name):
    net, sizes = CHAINS[name]
    arrays = operands(net, sizes)
    value, _ = net.forward(*arrays.values())
    assert_close(value, value_of(net.formula, arrays))


@pytest.mark.parametrize(
    "wrong",
    [
        "Y[n,m] = X[n,d] W[d,m]",
        "Y[n,m] = X[n,d] (W[d,m] + b[m])",
        "Y[n,m] = X[n,d] W[d,m] - b[m]",
        "Y[n,m] = mean[d](X[n,d] W[d,m]) + b[m]",
    ],
)
def test_a_wrong_formula_is_found(wrong):
    arrays = operands(xwb.linear, (D, M))
    value, _ = xwb.linear.forward(*arrays.values())
    with pytest.raises(AssertionError):
        assert_close(value, value_of(wrong, arrays))
