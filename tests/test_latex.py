"""LaTeX of derivations: what it looks like, that it means what the formula means, that it would compile."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

import xwb
from _random_formulas import formulas
from _read_latex import check, statement
from test_derive_random import agree, examples
from xwb.algebra._latex import in_text, latex, matrix_form, named, printer_for
from xwb.algebra._print import Letters

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
FORMULAS = {
    "linear": LINEAR,
    "cross-entropy": "P[n,m] = exp(Z[n,m])/sum[j](exp(Z[n,j])); L = -mean[n](T[n,m] log(P[n,m]))",
    "labels": "L = mean[n](log(sum[m](exp(Z[n,m]))) - Z[n,y[n]])",
    "convolution": "Y[n,k,i,j] = X[n,c,zero(2*i+p-1),wrap(j+q-1)] K[k,c,p,q] + b[k]",
    "attention": "S[...,i,j] = Q[...,i,d] K[...,j,d]/sqrt(size(d));"
    "P[...,i,j] = exp(S[...,i,j])/sum[k](exp(S[...,i,k])); Y[...,i,v] = P[...,i,j] V[...,j,v]",
    "norm": "mu[n] = mean[d](X[n,d]); v[n] = mean[d]((X[n,d] - mu[n])**2);"
    "Y[n,d] = gamma[d] (X[n,d] - mu[n])/sqrt(v[n] + 1e-5) + beta[d]",
    "pooling": "Y[n,i] = max[r](X[n,2*i+r])",
    "product": "Y[n] = prod[k](X[n,k])",
    "cases": "Y[i] = where(X[i] > 0, X[i]**a, -abs(X[i])) + sigmoid(X[i]) erf(X[i])",
    "kinks": "Y[n] = relu(X[n]) + max(X[n], Z[n]) + sign(X[n]) gelu(X[n])",
    "names": "out_1[n] = long_name[n,k1] W2[k1] size(k1) + n theta[n]",
    "numbers": "Y[n] = X[n]**3/3 + 0.5 s X[n] - 1e-12 X[n]**0.5 - 2/X[n]",
}


def gradient_of_W() -> str:
    document = xwb.derive(LINEAR).latex()
    start = document.index("The gradient of $W$")
    return document[start : document.index("\\end{align*}", start)]


def test_the_gradient_of_the_weights():
    assert gradient_of_W().splitlines() == [
        r"The gradient of $W$:",
        r"\begin{align*}",
        r"\frac{\partial L}{\partial W_{h,i}} &= \sum_{n,m} \frac{\partial L}{\partial Y_{n,m}} "
        r"\frac{\partial Y_{n,m}}{\partial W_{h,i}} && \text{chain rule over entries} \\",
        r"\frac{\partial Y_{n,m}}{\partial W_{h,i}} &= \sum_{d} X_{n,d} "
        r"\frac{\partial W_{d,m}}{\partial W_{h,i}} && \text{product rule} \\",
        r"\frac{\partial W_{d,m}}{\partial W_{h,i}} &= \left[ h = d \right] \left[ i = m \right] "
        r"&& \text{Kronecker delta} \\",
        r"\frac{\partial L}{\partial W_{h,i}} &= \sum_{n,m,d} X_{n,d} \frac{\partial L}{\partial Y_{n,m}} "
        r"\left[ h = d \right] \left[ i = m \right] \\",
        r"&= \sum_{n} X_{n,h} \frac{\partial L}{\partial Y_{n,i}} && \text{collapse} \\",
        r"\frac{\partial L}{\partial W_{d,m}} &= \sum_{n} X_{n,d} \frac{\partial L}{\partial Y_{n,m}} "
        r"&& \text{regroup} \\",
        r"\frac{\partial L}{\partial W} &= X^{\top} \frac{\partial L}{\partial Y} && \text{matrix form}",
    ]


@pytest.mark.parametrize("name", FORMULAS)
def test_documents_would_compile(name):
    document = xwb.derive(FORMULAS[name]).latex()
    check(document)
    assert document.count(r"\begin{align*}") == 1 + len(xwb.derive(FORMULAS[name])._adjoints)


@pytest.mark.parametrize(
    "wrong",
    [
        r"\begin{align*} a &= b",
        r"\begin{align*} \left( a \end{align*}",
        r"a_{b}",
        r"\begin{align*} a_b \end{align*}",
        r"$\frac{a}{b}",
        r"\begin{align*} \foo \end{align*}",
        r"$a {b$",
        r"\begin{align*} \text{a_b} \end{align*}",
        r"\begin{align*} \left( a & \right) \end{align*}",
        r"∂",
    ],
)
def test_the_check_can_fail(wrong):
    with pytest.raises(AssertionError):
        check(wrong)


def read_back(f, name: str) -> str:
    """The program of a gradient printed in LaTeX, in the letters of the usual one, and read again."""
    d = xwb.derive(f.text, f.sizes)
    names = {*d.program.spans, *(f"d{name}" for name in d.program.spans)}
    d._text = lambda: printer_for(d)(Letters(d.classes, names))
    return "; ".join(map(statement, d[name].program.split("; ")))


@examples(150)
@given(formulas().filter(lambda f: "prod[..." not in f.text))
def test_latex_means_what_the_formula_means(f):
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
def test_any_document_would_compile(f):
    check(xwb.derive(f.text, f.sizes).latex())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dY @ W.T", r"\frac{\partial L}{\partial Y} W^{\top}"),
        ("dY.T @ X", r"\left( \frac{\partial L}{\partial Y} \right)^{\top} X"),
        ("dY.sum(axis=0)", r"\left( \frac{\partial L}{\partial Y} \right)^{\top} \mathbf{1}"),
        ("dY.sum(axis=1)", r"\frac{\partial L}{\partial Y} \mathbf{1}"),
        ("dY.sum()", r"\mathbf{1}^{\top} \frac{\partial L}{\partial Y} \mathbf{1}"),
        ("(dY * Y).sum(axis=0)", r"\left( \frac{\partial L}{\partial Y} \odot Y \right)^{\top} \mathbf{1}"),
        ("2 * (X @ W)", r"2 \, X W"),
        ("-2 * X", r"-2 \, X"),
        ("X @ (W + W)", r"X \left( W + W \right)"),
        ("np.outer(b, b)", r"b b^{\top}"),
        ("b @ b", r"b^{\top} b"),
        ("b @ W.T", r"\left( W^{\top} \right)^{\top} b"),
        ("W @ b", r"W b"),
        ("X**2", r"X^{\circ 2}"),
        ("(X @ W)**2 * Y", r"\left( X W \right)^{\circ 2} \odot Y"),
        ("Y * (X @ W)", r"Y \odot \left( X W \right)"),
        ("Y * b", r"Y \operatorname{diag} \left( b \right)"),
        ("X * b[:, None]", r"\operatorname{diag} \left( b \right) X"),
        ("X - (W + W)", r"X - \left( W + W \right)"),
        ("X[0]", None),
        ("f(X)", None),
    ],
)
def test_matrix_forms(text, expected):
    assert matrix_form(text, xwb.derive(LINEAR)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("X", "X"),
        ("W1", r"\mathit{W1}"),
        ("long_name", r"\mathit{long\_name}"),
        ("mu", r"\mu"),
        ("Gamma", r"\Gamma"),
        ("pi", r"\mathit{pi}"),
        ("...", r"\ldots"),
    ],
)
def test_names(name, expected):
    assert named(name) == expected


def test_a_loss_called_L_and_the_loss_are_told_apart():
    document = xwb.derive("L = X[n] X[n]").latex()
    assert r"$\mathcal{L}$ is the loss" in document
    assert r"\frac{\partial \mathcal{L}}{\partial X_{n}} &= 2 \frac{\partial \mathcal{L}}{\partial L} X_{n}" in document


def test_only_the_wanted_gradients_and_what_they_name():
    d = xwb.derive("H[n,k] = X[n,d] W[d,k]; Y[n,m] = H[n,k] V[k,m]")
    assert re.findall(r"The gradient of \$(\w)\$", latex(d, wrt=["W"])) == ["H", "W"]
    assert re.findall(r"The gradient of \$(\w)\$", latex(d, wrt=["V"])) == ["V"]
    with pytest.raises(xwb.FormulaError, match="no tensor Q"):
        latex(d, wrt=["Q"])


def test_long_sums_go_on_in_the_next_line():
    terms = " + ".join(f"A{i}[n,k] B{i}[k,m]" for i in range(8))
    first = xwb.derive(f"Y[n,m] = {terms}").latex().split(r"\end{align*}")[0]
    assert first.count("\\\\\n") == 1
    assert first.count("&=") == 1
    assert re.findall(r"A(\d)", first.split("align*}")[1]) == [str(i) for i in range(8)]


def test_signs_of_text_are_escaped():
    assert in_text("50 % of x_1 & {y} < 2**(n)") == r"50 \% of x\_1 \& \{y\} $<$ 2$^{(n)}$"


def test_leading_axes_that_are_summed_stay_apart_from_those_that_are_not():
    d = xwb.derive("Y[...] = X[...] sum[...](exp(b[...]))")
    assert (
        r"\frac{\partial L}{\partial X_{\ldots}} &= \frac{\partial L}{\partial Y_{\ldots}} \sum_{\ldots} \exp"
        in d.latex()
    )
