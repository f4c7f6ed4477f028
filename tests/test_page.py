"""The page of a derivation for the terminal: what it shows, how it is wrapped, that it is always the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xwb
from _random_formulas import formulas
from test_derive_random import examples
from test_latex import FORMULAS, LINEAR
from xwb.algebra._page import conditions, in_order, page
from xwb.algebra._wrap import wrapped

LSTM = """F[n,h] = sigmoid(X[n,d] Wf[d,h] + H[n,k] Uf[k,h] + bf[h])
I[n,h] = sigmoid(X[n,d] Wi[d,h] + H[n,k] Ui[k,h] + bi[h])
O[n,h] = sigmoid(X[n,d] Wo[d,h] + H[n,k] Uo[k,h] + bo[h])
G[n,h] = tanh(X[n,d] Wg[d,h] + H[n,k] Ug[k,h] + bg[h])
C1[n,h] = F[n,h] C[n,h] + I[n,h] G[n,h]
Y[n,h] = O[n,h] tanh(C1[n,h])"""

PAGE = """\
Y[n,m] = X[n,d] W[d,m] + b[m]

Read as
  Y[n,m] = sum[d] X[n,d] W[d,m] + b[m]
  X is n × d; W is d × m; b is m; Y is n × m; summed: d

Gradients
  dX[n,d] = sum[m] dY[n,m] W[d,m]
  dW[d,m] = sum[n] X[n,d] dY[n,m]
  db[m]   = sum[n] dY[n,m]

Cost
      einsum     matrix          multiply-adds  Jacobian entries avoided
  dX  nm,dm->nd  dY @ W.T        n*m*d          n*n*m*d
  dW  nd,nm->dm  X.T @ dY        n*m*d          n*m*m*d
  db  nm->m      dY.sum(axis=0)  n*m            n*m*m

In the steps L is the loss, dT is ∂L/∂T for any T, and [i == j] is 1 where it holds, else 0.

dX
  1  chain rule over entries  ∂L/∂X[h,i] = dX[h,i] = sum[n,m] dY[n,m] ∂Y[n,m]/∂X[h,i]
                                one entry of X: L depends on it through every entry of Y
  2  product rule             ∂Y[n,m]/∂X[h,i] = sum[d] W[d,m] ∂X[n,d]/∂X[h,i]
                                every other factor stays
  3  Kronecker delta          ∂X[n,d]/∂X[h,i] = [h == n] [i == d]
                                an entry changes itself alone: one delta for each index
  4  collapse                 sum[n,m,d] dY[n,m] W[d,m] [h == n] [i == d] = sum[m] dY[h,m] W[i,m]
                                [h == n] eats the sum over n: n becomes h
                                [i == d] eats the sum over d: d becomes i
  5  regroup                  dX[n,d] = sum[m] dY[n,m] W[d,m]
                              dX = dY @ W.T
                                h is called n again; i is called d again

dW
  1  chain rule over entries  ∂L/∂W[h,i] = dW[h,i] = sum[n,m] dY[n,m] ∂Y[n,m]/∂W[h,i]
                                one entry of W: L depends on it through every entry of Y
  2  product rule             ∂Y[n,m]/∂W[h,i] = sum[d] X[n,d] ∂W[d,m]/∂W[h,i]
  3  Kronecker delta          ∂W[d,m]/∂W[h,i] = [h == d] [i == m]
  4  collapse                 sum[n,m,d] X[n,d] dY[n,m] [h == d] [i == m] = sum[n] X[n,h] dY[n,i]
                                [h == d] eats the sum over d: d becomes h
                                [i == m] eats the sum over m: m becomes i
  5  regroup                  dW[d,m] = sum[n] X[n,d] dY[n,m]
                              dW = X.T @ dY
                                h is called d again; i is called m again

db
  1  chain rule over entries  ∂L/∂b[h] = db[h] = sum[n,m] dY[n,m] ∂Y[n,m]/∂b[h]
                                one entry of b: L depends on it through every entry of Y
  2  sum rule                 ∂Y[n,m]/∂b[h] = ∂b[m]/∂b[h]
                                the other terms do not depend on this entry
  3  Kronecker delta          ∂b[m]/∂b[h] = [h == m]
  4  collapse                 sum[n,m] dY[n,m] [h == m] = sum[n] dY[n,h]
                                [h == m] eats the sum over m: m becomes h
  5  regroup                  db[m] = sum[n] dY[n,m]
                              db = dY.sum(axis=0)
                                h is called m again"""


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_the_page_of_the_linear_layer():
    assert str(xwb.derive(LINEAR)).splitlines() == PAGE.splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("name", [*FORMULAS, "lstm"])
def test_lines_fit(name, width):
    text = page(xwb.derive({**FORMULAS, "lstm": LSTM}[name]), width=width)
    long = [line for line in text.splitlines() if len(line) > width]
    assert [line for line in long if not re.fullmatch(r"[ \d]*([-+=] )?\S+", line)] == []
    if width >= 100:
        assert long == []
    assert text == text.rstrip()
    assert not re.search(r"[ \t]$|\x1b", text, re.MULTILINE)


@examples(60)
@given(formulas().filter(lambda f: "prod[..." not in f.text))
def test_a_page_holds_every_gradient_and_every_step(f):
    d = xwb.derive(f.text, f.sizes)
    text = str(d)
    for name in in_order(d):
        assert squeezed(d[name].formula) in squeezed(text)
        steps = [step for step in d[name].steps if step.rule != "read"]
        section = re.search(rf"^d{name}\n((?: .*\n?)*)", text, re.MULTILINE)[1]
        assert len(re.findall(r"^ +\d+  ", section, re.MULTILINE)) == len(steps)
        rights = squeezed(re.sub(r"^.{31}", "", section, flags=re.MULTILINE))
        assert all(squeezed(step.after) in rights or squeezed(step.after) in squeezed(section) for step in steps)


def test_gradients_come_after_those_they_name():
    assert in_order(xwb.derive(LINEAR)) == ("X", "W", "b")
    for text in [*FORMULAS.values(), LSTM]:
        d = xwb.derive(text)
        order = in_order(d)
        assert sorted(order) == sorted(d._adjoints)
        for at, name in enumerate(order):
            right = d[name].formula.split(" = ", 1)[1]
            assert not [late for late in order[at:] if re.search(rf"\bd{late}\b", right)]


def test_with_respect_to_some():
    d = xwb.derive("H[n,k] = X[n,d] W[d,k]; Y[n,m] = H[n,k] V[k,m]")
    assert in_order(d, ["W"]) == ("H", "W")
    text = page(d, wrt=["W"])
    assert "dV" not in text
    assert "dX" not in text
    assert re.findall(r"^d\w$", text, re.MULTILINE) == ["dH", "dW"]
    with pytest.raises(xwb.FormulaError, match="no tensor Q"):
        page(d, wrt=["Q"])


def test_costs_in_numbers():
    text = page(xwb.derive(LINEAR), sizes={"n": 64, "d": 4096, "m": 4096})
    assert "Cost for n = 64, d = 4096, m = 4096" in text
    (row,) = [line for line in text.splitlines() if line.startswith("  dX  nm")]
    cells = ["dX", "nm,dm->nd", "dY @ W.T", "1,073,741,824", "66 MiB", "none", "68,719,476,736 (256 GiB)"]
    assert re.split(r"  +", row.strip()) == cells
    with pytest.raises(xwb.FormulaError, match="the size of d is missing"):
        page(xwb.derive(LINEAR), sizes={"n": 64})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINEAR, []),
        ("Y[n] = relu(X[n]) + abs(X[n])", ["relu'(0) = 0", "abs'(0) = 0"]),
        ("Y[n] = max(X[n], Z[n])", ["where both operands of max are equal, each has half the slope"]),
        ("Y[n] = min[k](X[n,k])", ["a minimum has slope 1 at its place, shared equally among ties"]),
        ("Y[n] = prod[k](X[n,k])", []),
        ("Y[n] = X[wrap(n+1)] + X[clamp(n-1)]", ["wrap() goes", "clamp() reads the nearest"]),
        ("Y[n] = X[n] [n > 2]", ["constant"]),
        ("Y[n,m] = E[k[n],m]", ["k holds integers"]),
        ("Y[n] = [t[n] > 0] X[n]", ["constant", "t is only compared"]),
        ("Y[n,m] = b[m]", ["n stands only on the left of Y"]),
        ("L = X[n] X[n]", ["L is a number"]),
    ],
)
def test_side_conditions(text, said):
    found = conditions(xwb.derive(text))
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))
    assert ("Side conditions" in str(xwb.derive(text))) == bool(said)


def test_a_tensor_called_L_is_not_the_loss():
    text = str(xwb.derive("L = X[n] X[n]"))
    assert "∂loss/∂X[h] = dX[h] = dL ∂L/∂X[h]" in text
    assert "In the steps dT is ∂loss/∂T" in text


def test_given_sizes_are_told():
    assert conditions(xwb.derive("Y[i] = x[i+1] - x[i]", sizes={"i": 4})) == ["sizes given: i = 4"]
    assert conditions(xwb.derive("Y[n,m] = b[m]", sizes={"n": 2})) == ["sizes given: n = 2"]


def test_what_has_no_gradient():
    assert str(xwb.derive("Y[i] = k[k[i]] + 0")).startswith("Y[i] = k[k[i]] + 0")
    assert "every slope is 0" in str(xwb.derive("Y[i] = x[i] + 0*z[i]"))


def test_a_gradient_without_a_formula():
    d = xwb.derive("Y[i] = prod[...](A[...,i]) x[i]")
    text = str(d)
    assert "dx[i] = " in text
    assert "the gradient of prod[...] has no formula" in text
    assert "the gradient of prod[...] has no formula" in d.latex()
    with pytest.raises(xwb.FormulaError, match="has no formula"):
        page(d, wrt=["A"])


def test_a_page_is_to_be_read(monkeypatch):
    monkeypatch.setattr("xwb.algebra._page.MOST", 20)
    text = str(xwb.derive(LSTM))
    assert re.findall(r"^d\w+$", text, re.MULTILINE) == ["dO", "dH1"]
    assert "The steps to dC1, dF, dC, dI, dG, " in text
    assert text.count("  dbf[h]") == 1


def test_a_note_is_told_once():
    text = str(xwb.derive(LSTM))
    assert text.count("an entry changes itself alone") == 1
    assert text.count("tanh' = ") == 1


def test_pages_do_not_depend_on_the_hash_seed():
    code = (
        "import xwb, sys; sys.path.insert(0, sys.argv[1]); from test_latex import FORMULAS\n"
        "for text in FORMULAS.values(): d = xwb.derive(text); print(d, d.latex())"
    )
    pages = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        here = os.path.dirname(__file__)
        done = subprocess.run([sys.executable, "-c", code, here], capture_output=True, check=True, env=environment)
        pages.add(done.stdout)
    assert len(pages) == 1


# Wrapping.


def test_lines_end_before_the_operators_of_a_sum():
    assert wrapped("Y[i] = aaaa[i] bbbb[i] + cccc[i] dddd[i] - (e[i] + f[i])", 30) == [
        "Y[i] = aaaa[i] bbbb[i]",
        "  + cccc[i] dddd[i]",
        "  - (e[i] + f[i])",
    ]


def test_a_long_product_goes_on_further_right():
    assert wrapped("Y[i] = sum[j] aaaa[i,j] bbbb[i,j] cccc[i,j] + d[i]", 28) == [
        "Y[i] = sum[j] aaaa[i,j]",
        "    bbbb[i,j] cccc[i,j]",
        "  + d[i]",
    ]


def test_index_lists_and_brackets_stay_whole():
    assert wrapped("Y[i] = X[i, size(i) - 1 - i] Z[i, j]", 12)[1:] == ["  = X[i, size(i) - 1 - i]", "    Z[i, j]"]
    assert "[i == n]" in " ".join(wrapped("aaaa bbbb [i == n] cccc", 12)).replace("  ", "")


@given(
    st.recursive(
        st.sampled_from(["x[i]", "long_name[i,j]", "2", "size(n)", "[i == wrap(p+r)]"]),
        lambda inner: st.lists(inner, min_size=1, max_size=4).flatmap(
            lambda parts: st.sampled_from([" ".join(parts), " + ".join(parts), f"({' - '.join(parts)})"])
        ),
        max_leaves=30,
    ),
    st.integers(20, 100),
)
def test_wrapping_changes_nothing_but_spaces(text, width):
    lines = wrapped(f"Y[i] = {text}", width)
    assert " ".join(line.strip() for line in lines) == f"Y[i] = {text}"
    assert all(len(line) <= width or re.fullmatch(r" *([-+=] )?\S+", line) for line in lines)
    assert not any(re.search(r" [-+=]$", line) for line in lines)
