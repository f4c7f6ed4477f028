"""MathML of derivations: what it looks like, that it means what the formula means, that a browser would draw it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given

import xwb
from _random_formulas import formulas
from _read_latex import check as check_latex
from _read_mathml import check, equations, statement
from test_derive_random import agree, examples
from test_latex import FORMULAS, LINEAR
from xwb.algebra import mathml
from xwb.algebra._mathml import Formula, displayed, inline, mathml_printer, mrow
from xwb.algebra._print import Letters


def read_back(f, name: str) -> str:
    """The program of a gradient printed in MathML, in the letters of the usual one, and read again."""
    d = xwb.derive(f.text, f.sizes)
    names = {*d.program.spans, *(f"d{name}" for name in d.program.spans)}
    d._text = lambda: mathml_printer(d)(Letters(d.classes, names))
    return "; ".join(statement(mrow(line)) for line in d[name].program.split("; "))


@examples(150)
@given(formulas().filter(lambda f: "prod[..." not in f.text))
def test_mathml_means_what_the_formula_means(f):
    if "prod[..." in f.text:
        return  # its gradient has no formula
    d = xwb.derive(f.text, f.sizes)
    arrays = {**f.arrays, f"d{f.output}": f.dY}
    gradients = d.backward(f.dY, **f.arrays)
    for name in f.floats:
        again = xwb.derive(read_back(f, name))
        needed = {n: arrays[n] for n in again.inputs}
        agree(f)(again.forward(sizes=d[name].letters(**f.arrays), **needed), gradients[name])


@examples(60)
@given(formulas().filter(lambda f: "prod[..." not in f.text))
def test_any_derivation_would_be_drawn(f):
    check(xwb.derive(f.text, f.sizes).mathml())


@pytest.mark.parametrize("name", FORMULAS)
def test_known_layers_would_be_drawn(name):
    check(xwb.derive(FORMULAS[name]).mathml())


@pytest.mark.parametrize("name", FORMULAS)
def test_statements_are_read_back_equal(name):
    """The statements that stand in the block give the same values as the formula."""
    d = xwb.derive(FORMULAS[name])
    count = len(d.named.statements)
    again = xwb.derive("; ".join(_without_derivatives(d)[:count]))
    assert sorted(again.inputs) == sorted(d.inputs)
    rng = np.random.default_rng(3)
    sizes = {"i": 2, "k": 3, "j": 4, "p": 2, "q": 2, "d": 3, "n": 2, "m": 3, "v": 2, "c": 2, "r": 2, "k1": 3}
    arrays = {}
    for tensor in d.inputs:
        places = next((s.places[tensor] for s in d.program.statements if tensor in s.places), {})
        shape = [_length(place, sizes) for _, place in sorted(places.items())]
        integers = tensor in d.integers
        arrays[tensor] = rng.integers(0, 2, shape) if integers else rng.uniform(0.1, 1.0, shape)
    open_sizes = {"convolution": {"i": 2, "j": 2}, "pooling": {"i": 2, "r": 2}}.get(name, {})
    np.testing.assert_allclose(
        again.forward(sizes=open_sizes, **arrays), d.forward(sizes=open_sizes, **arrays), rtol=1e-12
    )


def _length(place, sizes) -> int:
    return sizes.get(place.index.letter, 2) if place.index else 5


def _without_derivatives(d) -> list[str]:
    """The equations of the block that are no matrix forms."""
    table = ElementTree.fromstring(d.mathml()).find("semantics")[0]
    for line in [line for line in table if line.find(".//mo[.='⊤']") is not None]:
        table.remove(line)
    math = f"<math><semantics>{ElementTree.tostring(table, 'unicode')}<annotation/></semantics></math>"
    return equations(math)


def test_the_block_of_a_linear_layer():
    found = _without_derivatives(xwb.derive(LINEAR))
    assert found[:3] == [
        "Y[n,m] = sum[d](X[n,d]*W[d,m]) + b[m]",
        "dX[n,d] = sum[m](dY[n,m]*W[d,m])",
        "dW[d,m] = sum[n](X[n,d]*dY[n,m])",
    ]


def test_the_gradient_of_the_weights():
    d = xwb.derive(LINEAR)
    weights = mathml(d, wrt=["W"])
    rows = ElementTree.fromstring(weights).findall(".//mtr")
    said = ["".join("".join(row.itertext()).split()) for row in rows]
    assert said == ["Yn,m=∑dXn,d\u2062Wd,m+bm", "∂L∂Wd,m=∑nXn,d\u2062∂L∂Yn,m", "∂L∂W=X⊤\u2062∂L∂Y"]
    with pytest.raises(xwb.FormulaError, match="no tensor Q"):
        mathml(d, wrt=["Q"])


@pytest.mark.parametrize("name", FORMULAS)
def test_the_formula_comes_along_in_latex_and_as_text(name):
    d = xwb.derive(FORMULAS[name])
    math = ElementTree.fromstring(d.mathml())
    source = math.find("semantics/annotation").text
    check_latex(source)
    texts = math.get("alttext").split("; ")
    assert [text.split(" = ")[0].split("[")[0] for text in texts][: len(d.named.statements)] == list(d.named.values)
    assert texts[len(d.named.statements) - 1] == d.explicit.split("; ")[-1] or d.named is not d.program
    for gradient in (d[name].formula for name in d.differentiable):
        assert gradient in math.get("alttext")


def test_long_sums_go_on_in_the_next_line():
    terms = " + ".join(f"A{i}[n,k] B{i}[k,m]" for i in range(8))
    block = mathml(xwb.derive(f"Y[n,m] = {terms}"), wrt=["A0"])
    first, more, *_ = ElementTree.fromstring(block).findall(".//mtr")
    assert "".join(first[0].itertext()) != ""
    assert "".join(more[0].itertext()) == ""
    assert re.findall(r"A(\d)", "".join([*first.itertext(), *more.itertext()])) == [str(i) for i in range(8)]


def test_a_loss_called_L_and_the_loss_are_told_apart():
    block = xwb.derive("L = X[n] X[n]").mathml()
    assert "<mi>∂</mi><mi>ℒ</mi>" in block
    assert "<mi>∂</mi><mi>L</mi>" in block


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("-2 <mi>x</mi>", '<mrow><mo form="prefix">−</mo><mn>2</mn><mo>&#8290;</mo><mi>x</mi></mrow>'),
        ("<mi>x</mi> - 1", "<mrow><mi>x</mi><mo>−</mo><mn>1</mn></mrow>"),
        ("<mi>x</mi> = -1", '<mrow><mi>x</mi><mo>=</mo><mo form="prefix">−</mo><mn>1</mn></mrow>'),
        ("0.5", "<mn>0.5</mn>"),
        ("<mi>x</mi>", "<mi>x</mi>"),
    ],
)
def test_rows(row, expected):
    assert mrow(row) == expected


def test_numbers_with_powers_of_ten():
    d = xwb.derive("Y[n] = 1e-12 X[n] + 1.5e-7")
    assert (
        '<msup><mn>10</mn><mrow><mo form="prefix" lspace="0" rspace="0">−</mo><mn>12</mn></mrow></msup>' in d.mathml()
    )
    assert r"10^{-12} X_{n} + 1.5 \cdot 10^{-7}" in d.latex()
    found = _without_derivatives(d)[0]
    assert np.allclose(xwb.derive(found).forward(X=np.ones(2)), 1e-12 + 1.5e-7, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "shown",
    [
        "<mfrac><mi>x</mi></mfrac>",
        "<mrow>x</mrow>",
        "<mrow><mi>x</mi>y</mrow>",
        "<mfenced><mi>x</mi></mfenced>",
        "<mi></mi>",
        "<mi onclick=''>x</mi>",
        "<mtable><mtr><mtd/></mtr><mtr/></mtable>",
        "<mi>x</mi></math><math>",
    ],
)
def test_the_check_can_fail(shown):
    right = inline("x", "x", "<mi>x</mi>")
    check(right)
    with pytest.raises((AssertionError, ElementTree.ParseError)):
        check(right.replace("<mi>x</mi>", shown))
    with pytest.raises(AssertionError):
        check("<math><semantics><mi>x</mi></semantics></math>")


def test_text_is_escaped():
    for math in (inline("a < b", "a < b & c", "<mi>a</mi>"), displayed([Formula('"<', "<>", "<mi>a</mi> = 1")])):
        ElementTree.fromstring(math)


def test_leading_axes_that_are_summed_stay_apart_from_those_that_are_not():
    found = _without_derivatives(xwb.derive("Y[...] = X[...] sum[...](exp(b[...]))"))
    assert "dX[...] = dY[...]*sum[...](exp(b[...]))" in found


def test_what_could_be_read_in_two_ways_is_told_apart():
    assert "<mi>s</mi><mo>·</mo><mrow><mo>(</mo>" in xwb.derive("Y[i] = s*(X[i] + 1)").mathml()
    cases = xwb.derive("Y[i] = where(X[i] > 0, X[i], 1) X[i]").mathml()
    assert '<mrow><mo>(</mo><mrow><mo form="prefix">{</mo>' in cases
