"""The small case on paper: the 25 equations of source 004, and for other formulas the numbers of `backward`."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from scipy import special

import xwb
from _random_formulas import formulas
from xwb import FormulaError
from xwb.algebra._entries import COMPARE, Node, Sum, Symbol
from xwb.algebra._paper import Paper
from xwb.algebra._pen import Pen

LINEAR = "Y[n,m] = X[n,d] W[d,m]"


def pmatrix(*rows: str) -> str:
    inside = r" \\ ".join(rows)
    return rf"\begin{{pmatrix}} {inside} \end{{pmatrix}}"


def d(above: str, below: str) -> str:
    return rf"\frac{{\partial {above}}}{{\partial {below}}}"


X = pmatrix("x_{1,1} & x_{1,2}", "x_{2,1} & x_{2,2}")
W = pmatrix("w_{1,1} & w_{1,2} & w_{1,3}", "w_{2,1} & w_{2,2} & w_{2,3}")
Y11, Y12, Y13, Y21, Y22, Y23 = (d("L", f"y_{{{i},{j}}}") for i in (1, 2) for j in (1, 2, 3))
X11, X12, X21, X22 = (d("L", f"x_{{{i},{j}}}") for i in (1, 2) for j in (1, 2))
DY = pmatrix(f"{Y11} & {Y12} & {Y13}", f"{Y21} & {Y22} & {Y23}")
# The equations (1) to (25) of Justin Johnson, "Backpropagation for a Linear Layer" (source 004), typed in from it.
SOURCE = [
    rf"X = {X} \quad W = {W}",
    r"Y = XW",
    "= "
    + pmatrix(
        "x_{1,1}w_{1,1} + x_{1,2}w_{2,1} & x_{1,1}w_{1,2} + x_{1,2}w_{2,2} & x_{1,1}w_{1,3} + x_{1,2}w_{2,3}",
        "x_{2,1}w_{1,1} + x_{2,2}w_{2,1} & x_{2,1}w_{1,2} + x_{2,2}w_{2,2} & x_{2,1}w_{1,3} + x_{2,2}w_{2,3}",
    ),
    f"{d('L', 'Y')} = {DY}",
    rf"{d('L', 'X')} = {d('L', 'Y')} {d('Y', 'X')} \quad {d('L', 'W')} = {d('L', 'Y')} {d('Y', 'W')}",
    rf"X = {X} \Rightarrow {d('L', 'X')} = {pmatrix(f'{X11} & {X12}', f'{X21} & {X22}')}",
    rf"{X11} = \sum_{{i=1}}^N \sum_{{j=1}}^M {d('L', 'y_{i,j}')} {d('y_{i,j}', 'x_{1,1}')} = "
    rf"{d('L', 'Y')} \cdot {d('Y', 'x_{1,1}')}",
    f"{d('Y', 'x_{1,1}')} = {pmatrix('w_{1,1} & w_{1,2} & w_{1,3}', '0 & 0 & 0')}",
    f"{X11} = {d('L', 'Y')} {d('Y', 'x_{1,1}')}",
    rf"= {DY} \cdot {pmatrix('w_{1,1} & w_{1,2} & w_{1,3}', '0 & 0 & 0')}",
    f"= {Y11} w_{{1,1}} + {Y12} w_{{1,2}} + {Y13} w_{{1,3}}",
    f"{X12} = {d('L', 'Y')} {d('Y', 'x_{1,2}')}",
    rf"= {DY} \cdot {pmatrix('w_{2,1} & w_{2,2} & w_{2,3}', '0 & 0 & 0')}",
    f"= {Y11} w_{{2,1}} + {Y12} w_{{2,2}} + {Y13} w_{{2,3}}",
    f"{X21} = {d('L', 'Y')} {d('Y', 'x_{2,1}')}",
    rf"= {DY} \cdot {pmatrix('0 & 0 & 0', 'w_{1,1} & w_{1,2} & w_{1,3}')}",
    f"= {Y21} w_{{1,1}} + {Y22} w_{{1,2}} + {Y23} w_{{1,3}}",
    f"{X22} = {d('L', 'Y')} {d('Y', 'x_{2,2}')}",
    rf"= {DY} \cdot {pmatrix('0 & 0 & 0', 'w_{2,1} & w_{2,2} & w_{2,3}')}",
    f"= {Y21} w_{{2,1}} + {Y22} w_{{2,2}} + {Y23} w_{{2,3}}",
    "",
    f"{d('L', 'X')} = "
    + pmatrix(
        f"{Y11} w_{{1,1}} + {Y12} w_{{1,2}} + {Y13} w_{{1,3}} & {Y11} w_{{2,1}} + {Y12} w_{{2,2}} + {Y13} w_{{2,3}}",
        f"{Y21} w_{{1,1}} + {Y22} w_{{1,2}} + {Y23} w_{{1,3}} & {Y21} w_{{2,1}} + {Y22} w_{{2,2}} + {Y23} w_{{2,3}}",
    ),
    f"= {DY} {pmatrix('w_{1,1} & w_{2,1}', 'w_{1,2} & w_{2,2}', 'w_{1,3} & w_{2,3}')}",
    rf"= \boxed{{{d('L', 'Y')} W^T}}",
    rf"\boxed{{{d('L', 'W')} = X^T {d('L', 'Y')}}}",
]

# The same as drawn for a terminal.
DRAWN = """
X = ⎛ x₁₁  x₁₂ ⎞   W = ⎛ w₁₁  w₁₂  w₁₃ ⎞
    ⎝ x₂₁  x₂₂ ⎠       ⎝ w₂₁  w₂₂  w₂₃ ⎠

Y = XW

  = ⎛ x₁₁w₁₁ + x₁₂w₂₁   x₁₁w₁₂ + x₁₂w₂₂   x₁₁w₁₃ + x₁₂w₂₃ ⎞
    ⎝ x₂₁w₁₁ + x₂₂w₂₁   x₂₁w₁₂ + x₂₂w₂₂   x₂₁w₁₃ + x₂₂w₂₃ ⎠

∂L/∂Y = ⎛ ∂L/∂y₁₁  ∂L/∂y₁₂  ∂L/∂y₁₃ ⎞
        ⎝ ∂L/∂y₂₁  ∂L/∂y₂₂  ∂L/∂y₂₃ ⎠

∂L/∂X = ∂L/∂Y ∂Y/∂X   ∂L/∂W = ∂L/∂Y ∂Y/∂W

X = ⎛ x₁₁  x₁₂ ⎞ ⇒ ∂L/∂X = ⎛ ∂L/∂x₁₁  ∂L/∂x₁₂ ⎞
    ⎝ x₂₁  x₂₂ ⎠           ⎝ ∂L/∂x₂₁  ∂L/∂x₂₂ ⎠

           N   M
∂L/∂x₁₁ =  Σ   Σ  ∂L/∂yᵢⱼ ∂yᵢⱼ/∂x₁₁ = ∂L/∂Y · ∂Y/∂x₁₁
          i=1 j=1

∂Y/∂x₁₁ = ⎛ w₁₁  w₁₂  w₁₃ ⎞
          ⎝  0    0    0  ⎠

∂L/∂x₁₁ = ∂L/∂Y ∂Y/∂x₁₁

        = ⎛ ∂L/∂y₁₁  ∂L/∂y₁₂  ∂L/∂y₁₃ ⎞ · ⎛ w₁₁  w₁₂  w₁₃ ⎞
          ⎝ ∂L/∂y₂₁  ∂L/∂y₂₂  ∂L/∂y₂₃ ⎠   ⎝  0    0    0  ⎠

        = ∂L/∂y₁₁ w₁₁ + ∂L/∂y₁₂ w₁₂ + ∂L/∂y₁₃ w₁₃

∂L/∂x₁₂ = ∂L/∂Y ∂Y/∂x₁₂

        = ⎛ ∂L/∂y₁₁  ∂L/∂y₁₂  ∂L/∂y₁₃ ⎞ · ⎛ w₂₁  w₂₂  w₂₃ ⎞
          ⎝ ∂L/∂y₂₁  ∂L/∂y₂₂  ∂L/∂y₂₃ ⎠   ⎝  0    0    0  ⎠

        = ∂L/∂y₁₁ w₂₁ + ∂L/∂y₁₂ w₂₂ + ∂L/∂y₁₃ w₂₃

∂L/∂x₂₁ = ∂L/∂Y ∂Y/∂x₂₁

        = ⎛ ∂L/∂y₁₁  ∂L/∂y₁₂  ∂L/∂y₁₃ ⎞ · ⎛  0    0    0  ⎞
          ⎝ ∂L/∂y₂₁  ∂L/∂y₂₂  ∂L/∂y₂₃ ⎠   ⎝ w₁₁  w₁₂  w₁₃ ⎠

        = ∂L/∂y₂₁ w₁₁ + ∂L/∂y₂₂ w₁₂ + ∂L/∂y₂₃ w₁₃

∂L/∂x₂₂ = ∂L/∂Y ∂Y/∂x₂₂

        = ⎛ ∂L/∂y₁₁  ∂L/∂y₁₂  ∂L/∂y₁₃ ⎞ · ⎛  0    0    0  ⎞
          ⎝ ∂L/∂y₂₁  ∂L/∂y₂₂  ∂L/∂y₂₃ ⎠   ⎝ w₂₁  w₂₂  w₂₃ ⎠

        = ∂L/∂y₂₁ w₂₁ + ∂L/∂y₂₂ w₂₂ + ∂L/∂y₂₃ w₂₃

(nothing)

∂L/∂X = ⎛ ∂L/∂y₁₁ w₁₁ + ∂L/∂y₁₂ w₁₂ + ∂L/∂y₁₃ w₁₃   ∂L/∂y₁₁ w₂₁ + ∂L/∂y₁₂ w₂₂ + ∂L/∂y₁₃ w₂₃ ⎞
        ⎝ ∂L/∂y₂₁ w₁₁ + ∂L/∂y₂₂ w₁₂ + ∂L/∂y₂₃ w₁₃   ∂L/∂y₂₁ w₂₁ + ∂L/∂y₂₂ w₂₂ + ∂L/∂y₂₃ w₂₃ ⎠

                                      ⎛ w₁₁  w₂₁ ⎞
      = ⎛ ∂L/∂y₁₁  ∂L/∂y₁₂  ∂L/∂y₁₃ ⎞ ⎜ w₁₂  w₂₂ ⎟
        ⎝ ∂L/∂y₂₁  ∂L/∂y₂₂  ∂L/∂y₂₃ ⎠ ⎝ w₁₃  w₂₃ ⎠

        ┌──────────┐
      = │ ∂L/∂Y Wᵀ │
        └──────────┘

┌──────────────────┐
│ ∂L/∂W = Xᵀ ∂L/∂Y │
└──────────────────┘
"""


def lines(paper: Paper, number: int) -> list[str]:
    return [line.rstrip() for line in paper.equations[number - 1].text]


def test_the_numbers_are_those_of_the_source():
    paper = xwb.derive(LINEAR).on_paper(n=2, d=2, m=3)
    assert [equation.number for equation in paper.equations] == list(range(1, 26))


@pytest.mark.parametrize("number", range(1, 26))
def test_every_equation_of_the_source(number):
    paper = xwb.derive(LINEAR).on_paper(n=2, d=2, m=3)
    drawn = DRAWN.strip("\n").split("\n\n")[number - 1].split("\n")
    assert paper.equations[number - 1].latex == SOURCE[number - 1]
    assert lines(paper, number) == (drawn if drawn != ["(nothing)"] else [""])


def test_the_page_has_the_equations_in_order_with_their_numbers():
    text, latex = (f(xwb.derive(LINEAR).on_paper(n=2, d=2, m=3)) for f in (str, Paper.latex))
    assert re.findall(r"\((\d+)\)$", text, re.MULTILINE) == [str(n) for n in range(1, 26)]
    assert re.findall(r"\\tag\{(\d+)\}", latex) == [str(n) for n in range(1, 26)]
    assert max(map(len, text.split("\n"))) <= 100
    assert "Equation 5" in text  # sentences refer to the numbers


# ------------------------------------------------------------------------------------- the entries against backward

FORMULAS = [
    (LINEAR, {"n": 2, "d": 2, "m": 3}),
    ("Y[n,m] = X[n,d] W[d,m] + b[m]", {"n": 2, "d": 3, "m": 2}),
    ("Y[p] = x[zero(2*p+r-1)] w[r] + c", {"p": 3, "r": 3}),
    ("Y[n,o,p,q] = X[n,c,p+r,q+s] W[o,c,r,s]", {"n": 1, "o": 2, "c": 2, "p": 2, "q": 1, "r": 2, "s": 2}),
    ("P[n,m] = exp(Z[n,m])/sum[k](exp(Z[n,k]))", {"n": 2, "m": 3}),
    ("L = sum[n](log(sum[m](exp(Z[n,m])))) - Z[n,m] T[n,m]", {"n": 2, "m": 3}),
    ("H[n,h] = tanh(X[n,d] U[d,h] + a[h]); Y[n,m] = H[n,h] V[h,m] + X[n,m]", {"n": 2, "d": 2, "h": 3, "m": 2}),
    (
        "u[n] = mean[d](X[n,d]); v[n] = mean[d]((X[n,d] - u[n])**2); "
        "Y[n,d] = g[d]*(X[n,d] - u[n])/sqrt(v[n] + eps) + b[d]",
        {"n": 2, "d": 3},
    ),
    ("Y[n,m] = E[k[n],m] F[m]", {"k": np.array([0, 2, 2, 1]), "m": 2}),
    ("Y[n,p] = max[r](x[n,2*p+r]) + min(x[n,p+1], c)", {"n": 2, "p": 2, "r": 2}),
    ("Y[i] = relu(A[i,i]) abs(B[i]) + sin(B[i]) cos(B[i])", {"i": 3}),
    (
        "Y[i] = x[wrap(i+j-1)] y[mirror(j+i)] z[reflect(i-j)] w[clamp(i-j)]",
        {"i": 3, "j": 2, **dict.fromkeys("xyzw", (3,))},
    ),
    ("Y[i,j] = where(x[i] > y[j], x[i]**2 y[j], y[j]**3) + [i <= j] x[i]", {"i": 2, "j": 3}),
    ("Y[i] = gelu(x[i]) sigmoid(x[i]) erf(x[i]) - size(i)*i x[i]", {"i": 2}),
    ("Y[i] = prod[j](A[i,j])/x[i]**2 + abs(x[i])**y[i] + x[size(i)-1-i]", {"i": 2, "j": 3}),
    ("L = X[i,j] X[i,j] X[0,1] + s**2 t", {"i": 2, "j": 2}),
    ("S[n] = sum[m](exp(Z[n,m])); L = log(S[0]) - log(S[1])/3 + S[0]**2/S[1]", {"n": 2, "m": 2}),
    ("Y[...,m] = X[...,d] W[d,m]", {"...": 2, "d": 2, "m": 2}),
    ("Y[i] = x[i]/y[i]/(z[i] + y[i])", {"i": 2}),
    ("Q[n] = x[n]; Y[n] = x[n] + 2 + z[n] - z[n]", {"n": 2}),
]


def value(text: str, numbers: dict[str, float]) -> float:
    """What an entry that is written on paper, as text, comes to."""
    text = text.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "**" + m[0].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")), text)
    text = re.sub(r"∂[Lℒ]/∂(\w+)", r"d_\1", text.replace("^", "**").replace("'", "_"))
    text = re.sub(r" = ", " == ", text.replace("≠", "!=").replace("≤", "<=").replace("≥", ">="))
    text = re.sub(r"(\d)([A-Za-z])", r"\1 \2", text)
    text = re.sub(r"(?<=[\w)\]]) (?=[\w(\[])", " * ", text)
    return eval(text.replace("[", "(").replace("]", ")"), {"__builtins__": {}, **FUNCTIONS, **numbers})


FUNCTIONS = {
    **{name: getattr(np, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "abs", "sign", "where")},
    "sigmoid": special.expit,
    "erf": special.erf,
    "erf_": lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x),
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_": lambda x: special.ndtr(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "relu": lambda x: np.maximum(x, 0),
    "max": lambda *xs: np.max(xs),
    "min": lambda *xs: np.min(xs),
}


@pytest.mark.parametrize(("formula", "sizes"), FORMULAS, ids=[formula for formula, _ in FORMULAS])
def test_the_entries_are_the_values_and_the_gradients(formula, sizes):
    """Entries evaluated from their text, one after the other, against `values` and `backward`."""
    derivation = xwb.derive(formula)
    paper = derivation.on_paper(**sizes)
    case, rng = paper._case, np.random.default_rng(0)
    pen = Pen(case)
    arrays = {name: case.known.get(name, rng.uniform(0.2, 1.8, case.shape[name])) for name in derivation.inputs}
    arrays = {name: a if a.dtype.kind == "i" else a * rng.choice([-1, 1], a.shape) for name, a in arrays.items()}
    dY = rng.normal(size=case.shape[derivation.output])
    numbers: dict[str, float] = {}

    def known(name: str, array: np.ndarray, prefix: str = "") -> None:
        for at in case.entries(name):
            numbers[prefix + pen.at(name, at).translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))] = array[at]

    letters = {letter: next(iter(found)) for letter, found in case.letters.items() if letter != "..."}
    expected = derivation.values(letters, **arrays)
    for name in derivation.inputs:
        known(name, arrays[name])
    for name, entries in case.values.items():
        found = np.reshape([value(pen.sum(entry), numbers) for entry in entries.values()], case.shape[name])
        np.testing.assert_allclose(found, expected[name], rtol=1e-12, atol=1e-12)
        known(name, found)
    known(derivation.output, dY, "d_")
    gradients = derivation.backward(dY[()], letters, **arrays)
    for name in case.order:
        entries = [value(pen.sum(case.gradient(name, at)), numbers) for at in case.entries(name)]
        found = np.reshape(entries, case.shape[name]).astype(float)
        if name in gradients:
            np.testing.assert_allclose(found, gradients.pop(name), rtol=1e-10, atol=1e-10)
        known(name, found, "d_")
    assert not gradients


def number(expr: Sum, arrays: dict[str, np.ndarray]) -> float:
    """What an entry comes to; a false bracket counts for nothing, whatever stands beside it."""
    out = 0.0
    for coefficient, product in expr.terms:
        factors = [(factor, factor_number(factor, arrays), float(exponent)) for factor, exponent in product]
        if all(
            x or not (isinstance(f, Node) and (f.head in COMPARE or f.head in ("max=", "min="))) for f, x, _ in factors
        ):
            out += float(coefficient) * np.prod([np.float64(x) ** exponent for _, x, exponent in factors])
    return out


def factor_number(factor: Symbol | Node | Sum, arrays: dict[str, np.ndarray]) -> float:
    match factor:
        case Symbol(tensor, at, adjoint):
            return arrays[f"d{tensor}" if adjoint else tensor][at]
        case Sum():
            return number(factor, arrays)
        case Node("where", (condition, yes, no)):
            return number(yes if number(condition, arrays) else no, arrays)
    first, *others = (number(argument, arrays) for argument in factor.arguments)
    if factor.head in COMPARE:
        return float(COMPARE[factor.head](first, *others))
    if factor.head in ("max=", "min="):
        return (first == FUNCTIONS[factor.head[:-1]](*others)) / others.count(first)
    return (
        np.float64(first) ** others[0]
        if factor.head == "**"
        else FUNCTIONS[factor.head.replace("'", "_")](first, *others)
    )


@settings(max_examples=80, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(formulas())
def test_random_formulas(f):
    """The entries of the page against `backward`, where the page is not too large."""
    derivation = xwb.derive(f.text)
    known = {*derivation.integers, *(name for name in derivation.program.compared if name in f.integers)}
    given = {name: array if name in known else array.shape for name, array in f.arrays.items()}
    letters = {letter for statement in derivation.program.statements for letter in statement.letters}
    refusal = ""
    try:
        paper = derivation.on_paper(**given, **{x: size for x, size in f.sizes.items() if x in letters})
    except FormulaError as error:
        refusal = str(error)
    if refusal:
        assert "too large" in refusal or "... stands for one axis" in refusal
        return
    assert str(paper)
    assert paper.latex()
    case, arrays = paper._case, dict(f.arrays)
    with np.errstate(all="ignore"):
        for name, entries in case.values.items():
            arrays[name] = np.reshape([number(entry, arrays) for entry in entries.values()], case.shape[name])
        arrays[f"d{f.output}"] = f.dY
        for name in case.order:
            entries = [number(case.gradient(name, at), arrays) for at in case.entries(name)]
            arrays[f"d{name}"] = np.reshape(entries, case.shape[name])
        gradients = derivation.backward(f.dY, sizes=f.sizes, **f.arrays)
    np.testing.assert_allclose(arrays[f.output], derivation.forward(sizes=f.sizes, **f.arrays), rtol=1e-8, atol=1e-8)
    for name in gradients:
        np.testing.assert_allclose(arrays.get(f"d{name}", 0.0), gradients[name], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("formula", "sizes"), FORMULAS, ids=[formula for formula, _ in FORMULAS])
def test_every_page_is_well_formed(formula, sizes):
    paper = xwb.derive(formula).on_paper(**sizes)
    text, latex = str(paper), paper.latex()
    assert max(map(len, text.split("\n"))) <= 100
    assert re.findall(r"\((\d+)\)$", text, re.MULTILINE) == [str(equation.number) for equation in paper.equations]
    assert latex.count("{") == latex.count("}")
    assert latex.count(r"\left") == latex.count(r"\right")
    environments = [(a, b) for a, b in re.findall(r"\\(begin|end)\{(\w+)", latex)]
    assert environments.count(("begin", "pmatrix")) == environments.count(("end", "pmatrix"))
    assert not set(re.sub(r"\\texttt\{.*\}", "", latex)) & set("∂₁₂²ᵀ·⎛×≤⇒")
    again = xwb.derive(formula).on_paper(**sizes)
    assert (str(again), again.latex()) == (text, latex)


# --------------------------------------------------------------------------------------------------- other formulas


def test_a_bias_is_added_to_every_row():
    paper = xwb.derive("Y[n,m] = X[n,d] W[d,m] + b[m]").on_paper(n=2, d=1, m=2)
    assert lines(paper, 2) == ["Y = XW + b"]
    assert lines(paper, 3) == ["  = ⎛ x₁₁w₁₁ + b₁   x₁₁w₁₂ + b₂ ⎞", "    ⎝ x₂₁w₁₁ + b₁   x₂₁w₁₂ + b₂ ⎠"]
    *_, b, formula = paper.equations
    assert b.text == ("∂L/∂b = ( ∂L/∂y₁₁ + ∂L/∂y₂₁   ∂L/∂y₁₂ + ∂L/∂y₂₂ )",)
    assert formula.text[1] == "│ db[m] = sum[n] dY[n,m] │"
    assert formula.latex == r"\boxed{\frac{\partial L}{\partial b_{m}} = \sum_{n} \frac{\partial L}{\partial Y_{n,m}}}"


def test_a_convolution_slides():
    paper = xwb.derive("Y[p] = x[p+r] w[r]").on_paper(p=3, r=2)
    assert lines(paper, 3) == ["Y = ( x₁w₁ + x₂w₂   x₂w₁ + x₃w₂   x₃w₁ + x₄w₂ )"]
    assert "∂L/∂x₂ = ∂L/∂Y ∂Y/∂x₂" in str(paper)
    assert "= ( ∂L/∂y₁  ∂L/∂y₂  ∂L/∂y₃ ) · ( w₂  w₁  0 )" in str(paper)


def test_more_than_two_axes_are_matrices_of_matrices():
    paper = xwb.derive("Y[n,c,p] = X[n,c,p]").on_paper(n=2, c=2, p=2)
    assert lines(paper, 1) == ["X = ⎛ ⎛ x₁₁₁  x₁₁₂ ⎞   ⎛ x₂₁₁  x₂₁₂ ⎞ ⎞", "    ⎝ ⎝ x₁₂₁  x₁₂₂ ⎠   ⎝ x₂₂₁  x₂₂₂ ⎠ ⎠"]
    inner = r"\begin{pmatrix} x_{1,1,1} & x_{1,1,2} \\ x_{1,2,1} & x_{1,2,2} \end{pmatrix}"
    assert inner in paper.equations[0].latex


def test_a_repeated_sum_gets_a_letter():
    paper = xwb.derive("P[n,m] = exp(Z[n,m])/sum[k](exp(Z[n,k]))").on_paper(n=1, m=3)
    assert lines(paper, 3) == ["P = ( exp(z₁₁)/s₁  exp(z₁₂)/s₁  exp(z₁₃)/s₁ )"]
    assert lines(paper, 4) == ["s₁ = exp(z₁₁) + exp(z₁₂) + exp(z₁₃)"]


def test_slopes_name_the_values_of_functions():
    paper = xwb.derive("Y[i] = tanh(x[i])").on_paper(i=2)
    assert "∂Y/∂x₁ = ( 1 - y₁²   0 )" in str(paper)


def test_a_value_is_a_step_on_the_way():
    paper = xwb.derive("H[n,h] = relu(X[n,d] U[d,h]); Y[n,m] = H[n,h] V[h,m]").on_paper(n=1, d=1, h=1, m=1)
    assert "∂L/∂H = ∂L/∂Y ∂Y/∂H   ∂L/∂V = ∂L/∂Y ∂Y/∂V   ∂L/∂X = ∂L/∂H ∂H/∂X   ∂L/∂U = ∂L/∂H ∂H/∂U" in str(paper)
    assert "∂L/∂X = ( ∂L/∂h₁₁ [x₁₁u₁₁ > 0] u₁₁ )" in str(paper).replace("⎛", "(").replace("⎞", ")")
    assert "A bracket is 1 where its condition holds and 0 elsewhere." in str(paper)


def test_a_lookup_reads_the_rows_that_it_is_given():
    paper = xwb.derive("Y[n,m] = E[k[n],m]").on_paper(k=[0, 2, 2], m=1)
    assert lines(paper, 1)[1] == "E = ⎜ e₂₁ ⎟   k = ( 0  2  2 )"
    assert "∂L/∂y₂₁ + ∂L/∂y₃₁" in str(paper)
    assert "the values of k count from 0, so 0 stands for the first:" in " ".join(str(paper).split())


def test_indices_as_numbers_count_from_0():
    paper = xwb.derive("Y[i] = i x[i]").on_paper(i=3)
    assert lines(paper, 3) == ["Y = ( 0   x₂   2 x₃ )"]
    assert "as numbers, indices count from 0" in " ".join(str(paper).split())


def test_a_scalar_called_L_is_not_the_loss():
    assert "∂ℒ/∂x = ( ∂ℒ/∂L y₁   ∂ℒ/∂L y₂ )" in str(xwb.derive("L = x[i] y[i]").on_paper(i=2))


def test_entries_keep_their_capital_where_two_tensors_differ_by_it_alone():
    assert lines(xwb.derive("Y[i] = X[i] x[i]").on_paper(i=1), 3) == ["  = ( X₁x₁ )"]


def test_ten_entries_and_more_need_a_comma():
    assert "x₂,₁₀" in str(xwb.derive("Y[i,j] = 2 x[i,j]").on_paper(i=2, j=10))


def test_what_the_output_does_not_depend_on():
    assert "No element of Y depends on z: its gradient is 0." in str(xwb.derive("Y[n] = x[n] + 0*z[n]").on_paper(n=2))
    assert "There is no input that has a gradient." in str(xwb.derive("Y[i,j] = [i == j]").on_paper(i=2, j=2))


def test_classes_of_a_comparison_may_be_given():
    formula = "L = -log(P[n,c]) [y[n] == c]"
    with_values = xwb.derive(formula).on_paper(y=[1, 0], c=2)
    assert lines(with_values, 3) == ["L = -log(p₁₂) - log(p₂₁)"]
    assert "[y₁ = 0]" in str(xwb.derive(formula).on_paper(n=2, c=2))


def test_many_entries_are_not_all_derived_one_by_one():
    text = str(xwb.derive(LINEAR).on_paper(n=4, d=4, m=1))
    assert "and so on for all 16 elements." in text
    assert "∂L/∂x₁₄ = ∂L/∂Y ∂Y/∂x₁₄" in text
    assert "∂L/∂x₂₁ = ∂L/∂Y ∂Y/∂x₂₁" not in text


def test_the_columns_of_a_wide_matrix_go_on_below():
    paper = xwb.derive("Y[i,j] = 2 x[i,j]").on_paper(i=2, j=16)
    first = lines(paper, 1)
    assert first[0].startswith("x = ⎛ x₁,₁ ")
    assert first[0].endswith("⋯")
    assert first[2].startswith("⋯ ")
    assert first[2].endswith("⎞")
    assert r"\setcounter{MaxMatrixCols}{64}" in paper.latex()


# ---------------------------------------------------------------------------------------------------- what is wrong

ERRORS = [
    (LINEAR, {"n": 2}, "the sizes of d and m are missing", "type on_paper(n=2, d=…, m=…)"),
    (LINEAR, {"n": 2, "d": 2, "q": 1}, "no index or input q", "its indices: n, m, d"),
    (LINEAR, {"n": 0, "d": 2, "m": 2}, "on_paper(n=0): a size is an integer from 1 on"),
    (LINEAR, {"n": 2.0, "d": 2, "m": 2}, "on_paper(n=2.0): a size is an integer from 1 on"),
    (LINEAR, {"n": True, "d": 2, "m": 2}, "on_paper(n=True): a size is an integer from 1 on"),
    (LINEAR, {"n": 64, "d": 64, "m": 1}, "too large to write out: X has 4,096 entries", "give smaller sizes"),
    ("L = X[i,j] Y[j,k] Z[k,i]", {"i": 5, "j": 5, "k": 5}, "an entry of L has more than 64 terms", "smaller sizes"),
    ("Y[i] = ((x[i]**1000)**1000)**1000*2**1000", {"i": 1}, "an entry of Y has a number that is too long"),
    ("Y[n,m] = E[k[n],m]", {"n": 2, "m": 2}, "k says which entries are read", "type on_paper(k=[…], …)"),
    ("Y[n,m] = E[k[n],m]", {"k": [0, 3], "m": 2, "E": (3, 2)}, "reads from 3 to 3", "entries 0 to 2"),
    ("Y[n,m] = E[k[n],m]", {"k": [0.5], "m": 2}, "k takes integers"),
    ("Y[n,m] = E[k[n],m]", {"k": [[0]], "m": 2}, "has the shape (1, 1), and the formula gives it 1 axis"),
    ("Y[p] = x[wrap(p+r)] w[r]", {"p": 3, "r": 2}, "the shape of x is missing", "type on_paper(p=3, r=2, x=(…))"),
    (LINEAR, {"X": [[1.0]], "m": 2}, "X is written in letters", "type on_paper(X=(2, 3))"),
    (LINEAR, {"X": (2, 3, 4), "m": 2}, "(2, 3, 4), and the formula gives it 2 axes"),
    (LINEAR, {"X": (2, 3), "W": (2, 2)}, "the index d has two sizes"),
    ("Y[...,m] = X[...,d] W[d,m]", {"d": 2, "m": 2}, "the size of ... is missing", "type on_paper(d=2, m=2, X=(2, 2))"),
    ("Y[n,m] = x[n]", {"n": 2}, "the size of m is missing"),
]


@pytest.mark.parametrize(("formula", "sizes", "parts"), [(f, s, parts) for f, s, *parts in ERRORS])
def test_errors_say_what_to_type(formula, sizes, parts):
    with pytest.raises(FormulaError) as caught:
        xwb.derive(formula).on_paper(**sizes)
    for part in parts:
        assert part in str(caught.value)


def test_shapes_do_in_place_of_letters():
    linear = xwb.derive(LINEAR)
    by_letters, by_shapes = linear.on_paper(n=2, d=2, m=3), linear.on_paper(X=(2, 2), W=(2, 3))
    assert by_letters.equations == by_shapes.equations


def test_an_equation_is_a_named_tuple():
    number, text, latex, mathml = xwb.derive(LINEAR).on_paper(n=1, d=1, m=1).equations[1]
    assert (number, text, latex) == (2, ("Y = XW",), "Y = XW")
    assert mathml == "<mi>Y</mi> = <mi>X</mi> <mi>W</mi>"


def test_numbers_below_each_other():
    ends = [line for line in str(xwb.derive(LINEAR).on_paper(n=1, d=2, m=1)).split("\n") if line.endswith(")")]
    assert all(len(a) == len(b) for a, b in itertools.pairwise(ends))
