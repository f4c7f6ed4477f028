"""Random formulas: loops, derived program, PyTorch and JAX agree, both modes are adjoint, and every text parses back.

``XWB_EXAMPLES=2000 pytest tests/test_derive_random.py`` draws that many other examples; without it the same few
hundred are drawn every time.
"""

from __future__ import annotations

import os
import re
from fractions import Fraction

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

import xwb
from _random_formulas import Formula, InJax, InTorch, formulas
from xwb.proof._loops import derivative, evaluate, tangent


def examples(count: int):
    """So many examples: the same ones each time, or as many new ones as XWB_EXAMPLES says."""
    wanted = os.environ.get("XWB_EXAMPLES")
    return settings(
        max_examples=int(wanted) if wanted else count,
        derandomize=not wanted,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if wanted else [])],  # shrinking takes minutes: by hand only
    )


def equal(actual, expected) -> None:
    """Same shape and every entry ``==``."""
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected, np.float64), strict=True)


def close(actual, expected, f: Formula) -> None:
    """Same shape and dtype; apart by no more than rounding.

    Every value of the forward pass is at most ``f.largest``, and a function's condition is at most some hundred:
    1e-13 of the largest value and gradient is rounding, and a wrong term is 1e10 times as large.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == np.float64
    scale = f.largest * max(1.0, np.abs(expected).max(initial=0))
    assert np.abs(actual - expected).max(initial=0) <= 1e-11 * scale, f"{actual}\nexpected\n{expected}"


def agree(f: Formula):
    return equal if f.polynomial else lambda actual, expected: close(actual, expected, f)


def directions(f: Formula) -> dict[str, np.ndarray]:
    """A tangent of small integers for every floating input."""
    rng = np.random.default_rng(7)
    return {n: rng.integers(-2, 3, f.arrays[n].shape).astype(np.float64) for n in f.floats}


def dot(a, b):
    """Σ a·b, exact: binary fractions have no rounding here."""
    pairs = zip(np.asarray(a).ravel().tolist(), np.asarray(b).ravel().tolist(), strict=True)
    return sum((Fraction(x) * Fraction(y) for x, y in pairs), Fraction(0))


def loops_agree_with_torch(f: Formula) -> None:
    Y, gradients = InTorch(f).gradients(f.arrays, f.dY)
    agree(f)(evaluate(f.text, f.arrays, f.sizes)[f.output].astype(np.float64), Y)
    for name in f.floats:
        agree(f)(derivative(f.text, f.arrays, name, f.dY, f.sizes), gradients[name])


def engine_agrees(f: Formula, Y, gradients) -> None:
    d = xwb.derive(f.text)
    agree(f)(d.forward(sizes=f.sizes, **f.arrays), Y)
    found = d.backward(f.dY, sizes=f.sizes, **f.arrays)
    assert list(found) == [n for n in d.inputs if n in f.floats]
    for name in f.floats:
        agree(f)(found[name], gradients[name])


@examples(120)
@given(formulas(polynomial=True))
def test_polynomials_are_equal_in_loops_and_torch(f):
    loops_agree_with_torch(f)


@examples(120)
@given(formulas())
def test_loops_agree_with_torch(f):
    loops_agree_with_torch(f)


@examples(300)
@given(formulas(polynomial=True))
def test_polynomials_are_exact(f):
    Y = evaluate(f.text, f.arrays, f.sizes)[f.output].astype(np.float64)
    engine_agrees(f, Y, {n: derivative(f.text, f.arrays, n, f.dY, f.sizes) for n in f.floats})


@examples(300)
@given(formulas())
def test_the_engine_agrees_with_torch(f):
    engine_agrees(f, *InTorch(f).gradients(f.arrays, f.dY))


@examples(40)
@given(formulas())
def test_the_engine_agrees_with_jax(f):
    engine_agrees(f, *InJax(f).gradients(f.arrays, f.dY))


@examples(120)
@given(formulas(polynomial=True))
def test_forward_and_backward_mode_are_adjoint(f):
    """⟨dY, J ẋ⟩ == ⟨Jᵀ dY, ẋ⟩, all inputs moving at once and each alone."""
    d, steps = xwb.derive(f.text), directions(f)
    gradients = d.backward(f.dY, sizes=f.sizes, **f.arrays)
    for moving in [list(steps), *([n] for n in steps if len(steps) > 1)]:
        pairs = {n: (a, steps[n]) if n in moving else a for n, a in f.arrays.items()}
        Ydot = d.jvp(sizes=f.sizes, **pairs)
        equal(Ydot, tangent(f.text, f.arrays, {n: steps[n] for n in moving}, f.sizes))
        assert dot(f.dY, Ydot) == sum(dot(gradients[n], steps[n]) for n in moving)


@examples(80)
@given(formulas())
def test_forward_mode_of_any_function(f):
    d, steps = xwb.derive(f.text), directions(f)
    Ydot = d.jvp(sizes=f.sizes, **{n: (a, steps[n]) if n in steps else a for n, a in f.arrays.items()})
    close(Ydot, tangent(f.text, f.arrays, steps, f.sizes).astype(np.float64), f)


def texts_parse_back(f: Formula) -> None:
    """Read by the loops and by ``derive``, the printed program gives what ``backward`` does.

    The sizes are given to ``derive``: what it prints must know which of them are smaller than an axis. The gradient
    of ``prod[...]`` alone has no formula, since the grammar cannot leave out one entry of ``...``.
    """
    if "prod[..." in f.text:
        return
    d = xwb.derive(f.text, f.sizes)
    gradients = d.backward(f.dY, sizes=f.sizes, **f.arrays)
    arrays = {**f.arrays, f"d{f.output}": f.dY}
    for name in f.floats:
        g = d[name]
        letters = g.letters(**f.arrays)
        again = xwb.derive(g.program)
        agree(f)(evaluate(g.program, arrays, letters)[f"d{name}"].astype(np.float64), gradients[name])
        needed = {n: a for n, a in arrays.items() if n in again.inputs}
        agree(f)(again.forward(sizes=letters, **needed), gradients[name])


@examples(120)
@given(formulas(polynomial=True))
def test_every_polynomial_gradient_parses_back(f):
    texts_parse_back(f)


@examples(100)
@given(formulas())
def test_every_gradient_parses_back(f):
    texts_parse_back(f)


@examples(60)
@given(formulas())
def test_inputs_stand_in_order_of_appearance(f):
    d = xwb.derive(f.text)
    words = re.findall(r"[A-Za-z]\w*", f.text)
    assert list(d.inputs) == sorted(f.arrays, key=words.index)
    assert set(d.integers) == f.positions
    assert d.output == f.output
    assert set(d.values(sizes=f.sizes, **f.arrays)) >= {s.name for s in f.statements}


@examples(30)
@given(formulas())
def test_the_same_formula_prints_the_same(f):
    d, again = xwb.derive(f.text), xwb.derive(f.text)
    assert [d[n].program for n in f.floats] == [again[n].program for n in f.floats]
    assert str(d) == str(again)
