"""Wrong input to ``derive`` is told where it is wrong and what to type; no input raises anything else, or hangs."""

from __future__ import annotations

import itertools
import random
import re
import signal
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import xwb


def ones(*shape):
    return np.ones(shape)


X, W, b = ones(4, 3), ones(3, 2), ones(2)
LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"


def refused(action, *parts: str, caret: str | None = "", error=xwb.FormulaError) -> str:
    """The message of the error that must come; it names ``parts``, and a caret stands below ``caret`` (anything: "").

    A caret is looked for under the line of the formula, which the message repeats with four spaces before it.
    """
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is not in\n{message}"
    if caret is not None:
        assert "^" in message, message
    if caret:
        lines = message.splitlines()
        found = {
            above[m.start() : m.end()]
            for above, below in itertools.pairwise(lines)
            if re.fullmatch(r"[ ^]*\^[ ^]*", below)
            for m in re.finditer(r"\^+", below)
        }
        assert any(caret in text or text in caret for text in found if text), (
            f"{found} do not show {caret!r}\n{message}"
        )
    return message


# -------------------------------------------------------------------------------------------------------- operands


def test_an_unknown_name():
    d = xwb.derive(LINEAR)
    refused(lambda: d.forward(X=X, W=W, b=b, Q=X), "Q", "X", caret=None)
    refused(lambda: d.forward(X=X, w=W, b=b), "w", "W", caret=None)  # the one meant
    refused(lambda: d.backward(ones(4, 2), X=X, W=W, b=b, Y=X), "Y", caret=None)
    refused(lambda: d.jvp(X=(X, X), W=W, b=b, Q=(X, X)), "Q", caret=None)
    for name in ("Q", "n", "dW", "", "x"):
        refused(lambda name=name: d[name], "W", caret=None)


def test_a_missing_operand():
    d = xwb.derive(LINEAR)
    refused(lambda: d.forward(X=X, b=b), "W", caret="W")
    refused(lambda: d.backward(ones(4, 2), W=W), "X", "b", caret="X")
    refused(lambda: d.jvp(X=(X, X), W=W), "b", caret="b")
    refused(d.forward, "X", "W", "b")


def test_an_integer_tensor_has_no_gradient():
    d = xwb.derive("Y[n,d] = E[k[n],d]")
    refused(lambda: d["k"], "k", "integer", caret="k")
    E, k = ones(5, 2), np.array([0, 1])
    assert list(d.backward(ones(2, 2), E=E, k=k)) == ["E"]
    refused(lambda: d.jvp(E=E, k=(k, k)), "k", caret=None)


def test_the_output_has_no_gradient_and_an_earlier_value_has():
    d = xwb.derive("H[n] = X[n,d] v[d]; L = sum[n](H[n]**2)")
    refused(lambda: d["L"], "L", "dL", caret=None)
    assert "dH" in d["H"].formula


def test_mixed_dtypes():
    d = xwb.derive(LINEAR)
    mixed = {"X": X, "W": W.astype(np.float32), "b": b}
    for action in (lambda: d.forward(**mixed), lambda: d.backward(ones(4, 2), **mixed)):
        message = refused(action, "float32", "float64", "W", caret=None, error=xwb.XwbError)
        assert "astype" in message
    refused(
        lambda: d.backward(ones(4, 2).astype(np.float32), X=X, W=W, b=b),
        "float32",
        "float64",
        "dY",
        caret=None,
        error=xwb.XwbError,
    )
    refused(lambda: d.jvp(X=(X, X.astype(np.float32)), W=W, b=b), "float32", "float64", caret=None, error=xwb.XwbError)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, bool, np.float16, np.complex128, np.longdouble, object, str])
def test_other_dtypes(dtype):
    """Integer operands are refused with the line to type, and so is what has no derivative here."""
    d = xwb.derive(LINEAR)
    message = refused(
        lambda: d.forward(X=X.astype(dtype), W=W, b=b),
        "X",
        "" if dtype is str else str(np.dtype(dtype)),
        caret=None,
        error=xwb.XwbError,
    )
    if dtype in (np.int64, np.int32, bool):
        assert "astype" in message


@pytest.mark.parametrize("dtype", [np.float64, bool, object])
def test_a_floating_tensor_where_integers_stand(dtype):
    d = xwb.derive("Y[n,d] = E[k[n],d]")
    message = refused(
        lambda: d.forward(E=ones(5, 2), k=np.array([0, 1]).astype(dtype)),
        "k",
        str(np.dtype(dtype)),
        caret=None,
        error=xwb.XwbError,
    )
    assert "astype" in message


# --------------------------------------------------------------------------------------------------- scope of a sum


@pytest.mark.parametrize(
    ("formula", "letter", "first", "second"),
    [
        ("Y[j] = m[i,j]", "i", "sum[i]", ""),
        ("Y[j] = exp(m[i,j])", "i", "sum[i](exp(m[i,j]))", "exp(sum[i](m[i,j]))"),
        ("Y[n] = X[n,d]", "d", "sum[d]", ""),
        ("Y[n] = X[n,d]*s + t[n]", "d", "sum[d]", ""),
        ("y = x[k]**2", "k", "sum[k]", ""),
        ("y = x[k]**y1[k]", "k", "sum[k]", ""),
        ("y = max(a[i], c[i])", "i", "sum[i]", ""),
        ("y = where(a[i] > 0, a[i], c[i])", "i", "sum[i]", ""),
        ("y = x[i] + z[i]", "i", "sum[i]", ""),
        ("y = log(p[k])", "k", "sum[k](log(p[k]))", "log(sum[k](p[k]))"),
        ("Y[n] = X[n,d]/size(d)", "d", "sum[d]", ""),
        ("y = A[i,i+1]", "i", "sum[i]", ""),
    ],
)
def test_an_index_that_occurs_once(formula, letter, first, second):
    message = refused(lambda: xwb.derive(formula), letter, first, caret=letter)
    assert second.replace(" ", "") in message.replace(" ", "")


@pytest.mark.parametrize(
    ("formula", "letter"),
    [
        ("Y[n] = (X[n,d] W[d]) c[d]", "d"),
        ("y = exp(x[k] y1[k]) z[k]", "k"),
        ("y = A[i,i]**2", "i"),
        ("y = (x[k] z[k] + a[k]) c[k]", "k"),
        ("y = z[k] sigmoid(x[k] y1[k])", "k"),
        ("y = sum[j](A[j,k] B[j,k]) c[k]", "k"),
        ("Y[j] = (A[i,j] x[i])**2 x[i]", "i"),
        ("y = max(x[k] z[k], a[k]) c[k]", "k"),
    ],
)
def test_an_index_summed_inside_a_factor_and_standing_in_another(formula, letter):
    """Summed in one term and free in another is the same mistake."""
    message = refused(lambda: xwb.derive(formula), letter, caret=letter)
    assert f"sum[{letter}]" in message


def test_both_readings_are_right():
    """What the error offers is accepted, and the two differ."""
    m = np.arange(6.0).reshape(3, 2)
    outside = xwb.derive("Y[j] = sum[i](exp(m[i,j]))").forward(m=m)
    inside = xwb.derive("Y[j] = exp(sum[i](m[i,j]))").forward(m=m)
    np.testing.assert_allclose(outside, np.exp(m).sum(0), rtol=1e-14)
    np.testing.assert_allclose(inside, np.exp(m.sum(0)), rtol=1e-14)


# ------------------------------------------------------------------------------------------------ sizes and bounds


def test_a_size_contradiction_quotes_both_sources():
    d = xwb.derive(LINEAR)
    refused(lambda: d.forward(X=X, W=ones(5, 2), b=b), "d", "X", "W", "3", "5", caret="d")
    refused(lambda: d.forward(X=X, W=W, b=ones(7)), "m", "W", "b", "2", "7", caret="m")
    refused(lambda: d.forward(X=X, W=W, b=ones(1)), "m", "W", "b", caret="m")  # no broadcasting
    refused(lambda: xwb.derive("y = A[i,i]").forward(A=ones(3, 4)), "i", "A", "3", "4", caret="i")
    refused(
        lambda: xwb.derive("H[n] = X[n,d] v[d]; Y[n] = H[n] u[n]").forward(X=X, v=ones(3), u=ones(5)),
        "n",
        "u",
        "5",
        "4",
    )
    refused(lambda: xwb.derive("Y[...] = A[...] B[...]").forward(A=ones(2, 3), B=ones(3, 2)), "A", "B", "...")
    refused(lambda: xwb.derive("Y[...] = A[...] B[...]").forward(A=ones(2, 3), B=ones(3)), "A", "B", "...")
    refused(lambda: xwb.derive("Y[...] = A[...] B[...]").forward(A=ones(2, 3), B=ones(6)), "A", "B", "...")


@pytest.mark.parametrize("where", ["derive", "forward", "backward", "jvp"])
def test_a_given_size_larger_than_an_axis(where):
    sizes = {"d": 4}
    d = xwb.derive(LINEAR, sizes=sizes if where == "derive" else None)
    sizes = None if where == "derive" else sizes
    act = {
        "forward": lambda: d.forward(sizes=sizes, X=X, W=W, b=b),
        "backward": lambda: d.backward(ones(4, 2), sizes=sizes, X=X, W=W, b=b),
        "jvp": lambda: d.jvp(sizes=sizes, X=(X, X), W=W, b=b),
    }
    refused(act.get(where, act["forward"]), "d", "4", "3", "X", caret="d")


@pytest.mark.parametrize(
    "sizes", [{"d": -1}, {"d": 2.5}, {"d": "2"}, {"q": 2}, {"X": 2}, {"d": None}, {0: 1}, [3], 3, {"d": True}]
)
def test_sizes_that_are_none(sizes):
    """A letter the formula does not have, or what is no size."""
    d = xwb.derive(LINEAR)
    refused(lambda: d.forward(sizes=sizes, X=X, W=W, b=b), caret=None, error=xwb.XwbError)
    refused(lambda: xwb.derive(LINEAR, sizes=sizes), caret=None, error=xwb.XwbError)


@pytest.mark.parametrize(
    ("formula", "position"),
    [
        ("Y[i] = x[i+1] - x[i]", "i+1"),
        ("Y[i] = x[i] - x[i-1]", "i-1"),
        ("Y[i] = x[i] x[2*i]", "2*i"),
        ("Y[i] = x[i] + x[5]", "5"),
        ("Y[i] = x[i]*[i > 0] + x[i-1]*[i > 0]", "i-1"),
    ],
)
def test_a_read_out_of_bounds(formula, position):
    """The error offers ``zero()``, and a smaller range where there is an index."""
    message = refused(lambda: xwb.derive(formula).forward(x=ones(5)), "x", f"zero({position})", caret=position)
    assert "sizes" in message or position == "5"


def test_the_offered_lines_are_accepted():
    x = np.array([1.0, 4, 9, 16])
    message = refused(lambda: xwb.derive("Y[i] = x[i+1] - x[i]").forward(x=x), "zero(i+1)", "sizes", caret="i+1")
    assert "0 to 3" in message or "4" in message
    np.testing.assert_array_equal(xwb.derive("Y[i] = x[zero(i+1)] - x[i]").forward(x=x), [3, 5, 7, -16])
    np.testing.assert_array_equal(xwb.derive("Y[i] = x[i+1] - x[i]").forward(sizes={"i": 3}, x=x), [3, 5, 7])


@pytest.mark.parametrize("k", [[0, 5], [-1, 0], [0, 2**62], [-(2**63), 0]])
@pytest.mark.parametrize(
    "formula", ["Y[n,d] = E[k[n],d]", "Y[n,d] = E[k[n]+0,d]", "Y[n,d] = E[k[n],d]*[k[n] < 5]*[k[n] >= 0]"]
)
def test_a_gather_out_of_bounds(formula, k):
    d, E, k = xwb.derive(formula), ones(5, 2), np.array(k)
    for action in (
        lambda: d.forward(E=E, k=k),
        lambda: d.backward(ones(2, 2), E=E, k=k),
        lambda: d.jvp(E=(E, E), k=k),
    ):
        refused(action, "k", "E", "4", caret="k[n]")


def test_a_gather_out_of_bounds_of_an_affine_position():
    d = xwb.derive("Y[n] = x[2*k[n]+1]")
    refused(lambda: d.forward(x=ones(5), k=np.array([0, 2])), "k", "x", "5", caret="k[n]")
    refused(lambda: d.forward(x=ones(5), k=np.array([0, -1])), "k", "x", caret="k[n]")
    np.testing.assert_array_equal(
        xwb.derive("Y[n] = x[zero(k[n])]").forward(x=ones(5), k=np.array([5, -1, 0])), [0, 0, 1]
    )


@pytest.mark.parametrize(
    ("formula", "arrays", "name"),
    [
        (LINEAR, {"X": ones(4), "W": W, "b": b}, "X"),
        (LINEAR, {"X": ones(4, 3, 1), "W": W, "b": b}, "X"),
        (LINEAR, {"X": X, "W": W, "b": ones()}, "b"),
        (LINEAR, {"X": X, "W": ones(6), "b": b}, "W"),
        ("y = s*t[]", {"s": ones(1), "t": ones()}, "s"),
        ("y = s*t[]", {"s": ones(), "t": ones(1)}, "t"),
        ("Y[...,m] = X[...,d] W[d,m]", {"X": ones(), "W": W}, "X"),
        ("Y[n,d] = E[k[n],d]", {"E": ones(5, 2), "k": np.array([[0]])}, "k"),
    ],
)
def test_a_wrong_number_of_axes(formula, arrays, name):
    shape = str(arrays[name].shape)
    refused(lambda: xwb.derive(formula).forward(**arrays), name, shape, caret=name)


@pytest.mark.parametrize(
    "formula",
    [
        "y = A[i] + sum[i,j](A[i,j]) + b[i]*x[i]",
        "Y[i] = x[i] + x",
        "Y[n] = X[n,d] X[d]",
        "A[i] = x[i]; y = A[i,j] A[i,j]",
    ],
)
def test_a_tensor_with_two_numbers_of_places(formula):
    refused(lambda: xwb.derive(formula).forward(x=ones(3), b=ones(3), X=ones(3, 3), A=ones(3)))


def test_two_unfixed_indices_in_a_position():
    d = xwb.derive("Y[p] = X[p+r]*s[]") if False else xwb.derive("Y[p] = sum[r](X[p+r])")
    refused(lambda: d.forward(X=ones(5)), "p", "r", "sizes", "X", caret="p+r")
    np.testing.assert_array_equal(d.forward(sizes={"r": 2}, X=ones(5)), [2, 2, 2, 2])


def test_an_index_without_a_size():
    d = xwb.derive("Y[i,j] = x[i]")
    refused(lambda: d.forward(x=ones(3)), "j", "sizes", caret="j")
    assert d.forward(sizes={"j": 2}, x=ones(3)).shape == (3, 2)
    refused(lambda: xwb.derive("Y[p] = x[wrap(p+1)]").forward(x=ones(3)), "p", "sizes", caret="p")
    refused(lambda: xwb.derive("y = sum[i](2)").forward(), "i", "sizes", caret="i")
    refused(lambda: xwb.derive("Y[i] = 1").forward(), "i", "sizes", caret="i")
    refused(lambda: xwb.derive("y = sum[i](size(q)*x[i])").forward(x=ones(3)), "q", "sizes", caret="q")


def test_dy_of_the_wrong_shape_or_dtype():
    d = xwb.derive(LINEAR)
    for dY in (ones(2, 4), ones(4), ones(4, 2, 1), ones(1, 2), ones()):
        refused(
            lambda dY=dY: d.backward(dY, X=X, W=W, b=b), "dY", "(4, 2)", str(dY.shape), caret=None, error=xwb.XwbError
        )
    for dY in (ones(4, 2).astype(int), ones(4, 2).astype(np.float32), ones(4, 2).astype(object), "dY", None):
        refused(lambda dY=dY: d.backward(dY, X=X, W=W, b=b), "dY", caret=None, error=xwb.XwbError)
    assert d.backward(np.ones((4, 2)), X=X, W=W, b=b)["b"].shape == (2,)
    scalar = xwb.derive("L = sum[i](x[i])")
    for dL in (1, 1.0, np.float64(1), np.array(1.0)):
        np.testing.assert_array_equal(scalar.backward(dL, x=ones(3))["x"], ones(3))
    refused(lambda: scalar.backward(ones(1), x=ones(3)), "dL", caret=None, error=xwb.XwbError)


def test_a_tangent_of_the_wrong_shape():
    d = xwb.derive(LINEAR)
    refused(lambda: d.jvp(X=(X, ones(3, 4)), W=W, b=b), "X", "(4, 3)", "(3, 4)", caret=None, error=xwb.XwbError)
    refused(lambda: d.jvp(X=(X,), W=W, b=b), "X", caret=None, error=xwb.XwbError)
    refused(lambda: d.jvp(X=(X, X, X), W=W, b=b), "X", caret=None, error=xwb.XwbError)


@pytest.mark.parametrize("name", ["self", "dY", "text", "arrays", "name", "size_", "derive", "np", "e", "__x"])
def test_any_name_is_a_name(name):
    """Names of the methods' own arguments are free, or refused with a reason."""
    try:
        d = xwb.derive(f"L = sum[i]({name}[i]**2)")
    except xwb.FormulaError:
        return
    x = np.arange(3.0)
    assert d.forward(**{name: x}) == 5
    np.testing.assert_array_equal(d.backward(1.0, **{name: x})[name], 2 * x)
    assert d.jvp(**{name: (x, x)}) == 10
    assert d[name].letters(**{name: x})


def test_a_maximum_of_nothing():
    for kind in ("max", "min", "mean"):
        refused(lambda kind=kind: xwb.derive(f"y = {kind}[i](x[i])").forward(x=ones(0)), "i", kind, caret=None)
    assert xwb.derive("y = sum[i](x[i])").forward(x=ones(0)) == 0
    assert xwb.derive("y = prod[i](x[i])").forward(x=ones(0)) == 1
    refused(lambda: xwb.derive("Y[i] = x[clamp(i)]").forward(sizes={"i": 2}, x=ones(0)), "x", caret=None)
    np.testing.assert_array_equal(xwb.derive("Y[i] = x[zero(i)]").forward(sizes={"i": 2}, x=ones(0)), [0, 0])


@pytest.mark.parametrize(
    "text", ["", "   ", "\n", ";", "Y", "Y =", "= X[i]", "Y[i] = ", "Y[i] X[i]", 3, None, b"Y = x", ["Y = x"]]
)
def test_what_is_no_formula(text):
    refused(lambda: xwb.derive(text), caret=None, error=xwb.XwbError)


@pytest.mark.parametrize(
    ("formula", "caret"),
    [
        ("Y[i] = X[i] * B[і]", "і"),  # Cyrillic
        ("Y[i] = X[i] × B[i]", "×"),
        ("Y[i] = X[i] − B[i]", "−"),
        ("Y[i] = foo(X[i])", "foo"),
        ("Y[i] = X[i]; Y[i] = 2*X[i]", "Y"),
        ("Y[i] = Z[i]; Z[i] = X[i]", "Z"),
        ("Y[i,i] = X[i]", "i"),
        ("Y[i+1] = X[i]", "i+1"),
        ("Y[i] = X[i,...]", "..."),
        ("Y[i] = X[i]/a b", "b"),
        ("sum[i] = X[i]", "sum"),
        ("Y[i] = X[i*i]", "i"),
        ("Y[i] = X[i/2]", "/"),
        ("Y[i] = X[0.5]*b[i]", "0.5"),
        ("Y[i] = X[foo(i)]", "foo"),
        ("H[i] = X[i]; Y[i] = Z[H[i]]", "H"),
        ("lambda = X[i] X[i]", "lambda"),
    ],
)
def test_what_the_grammar_refuses(formula, caret):
    refused(lambda: xwb.derive(formula), caret=caret)


# ------------------------------------------------------------------------------------------------------ the fuzzer

SEEDS = [
    LINEAR,
    "Y[...,m] = X[...,d] W[d,m] + b[m]",
    "P[n,k] = exp(Z[n,k]) / sum[j](exp(Z[n,j])); L = -mean[n](log(P[n,y[n]]))",
    "Y[n,o,p] = X[n,c,zero(2*p+r-1)] K[o,c,r]",
    "Y[i] = x[size(i)-1-i] - x[wrap(i+1)]*[i == 2]",
    "y = prod[i](x[i]) + max[i](abs(x[i])) - where(s > 0, s**2, -s)",
    "Y[n,d] = E[k[n],d] [k[n] != 0]",
    "mu[n] = mean[d](X[n,d]); Y[n,d] = (X[n,d] - mu[n])*(mean[d]((X[n,d] - mu[n])**2) + 1e-5)**-0.5",
    "T[t] = sum[p,r](X[p] K[r] [t == 2*p+r])",
    "y = A[i,i] + max(relu(s), min(t[], 3.5e0))/gelu(s)",
]
PIECES = [
    *"[](){}+-*/^%=<>!.,;: \n_'\"#@&|~\\$`?0123456789ijknpXWYdxs",
    "==",
    "**",
    "...",
    "sum[i](",
    "max(",
    "zero(",
    "size(",
]
PIECES += [
    "[i == j]",
    "where(",
    "X[i]",
    "X[i,j]",
    "s",
    "i",
    "1e999",
    "1e-9",
    "9" * 30,
    "mean[...](",
    "reflect(i-9)",
    "k[i]",
    "x[k[i]]",
]
PIECES += [
    "\t",
    "\x00",
    "é",
    "і",
    "−",
    "\u202e",
    "𝐗",
    "0x1",
    "1_0",
    "dY",
    "sizes",
    "lambda",
    "**-1",
    "**0",
    "/0",
    "2**999",
]


def mutated(r: random.Random) -> str:
    text = r.choice(SEEDS)
    for _ in range(r.choice([1, 1, 1, 2, 4])):
        at = r.randint(0, len(text) - 1) if text else 0
        to = min(at + r.randint(0, 12), len(text))
        kind = r.choice(["letter", "letter", "letter", "sign", "sign", "digit", "cut", "insert", "replace", "repeat"])
        same = {"letter": "[a-zA-Z]", "sign": r"[-+*/()\[\],<>=]", "digit": r"[0-9]"}.get(kind)
        if same and (places := [m.start() for m in re.finditer(same, text)]):
            at = r.choice(places)
            new = r.choice({"letter": "ijkndpmXWYxs", "sign": "-+*/()[],<>=", "digit": "0123579"}[kind])
            text = text[:at] + new + text[at + 1 :]
        elif kind == "cut":
            text = text[:at] + text[to:]
        elif kind == "repeat":
            text = text[:to] + text[at:to] * r.randint(1, 3) + text[to:]
        else:
            text = text[:at] + r.choice(PIECES) + text[at + (kind == "replace") :]
    return text


def places(name: str, text: str) -> int:
    """How many the first access of a tensor has."""
    found = re.search(rf"\b{re.escape(name)}\s*\[", text)
    if not found:
        return 0
    commas, depth = 0, 1
    for c in text[found.end() :]:
        depth += (c in "[(") - (c in ")]")
        commas += c == "," and depth == 1
        if depth == 0:
            break
    return commas + 1 if text[found.end() :].lstrip()[:1] != "]" else 0


@contextmanager
def at_most(seconds: int, what: str):
    """Stops what hangs; only the main thread of a POSIX system can."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        pytest.fail(f"took longer than {seconds} s: {what}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(text: str, r: random.Random) -> int:
    """How far a text gets: 0 refused, 1 derived, 2 also run. Whatever is raised on the way is an XwbError."""
    reached, refusal = 0, None
    try:
        d = xwb.derive(text)
        reached = 1
        arrays = {}
        for name in d.inputs:
            shape = [3] * places(name, text)
            if r.random() < 0.1:
                shape = [r.randint(0, 4) for _ in range(r.randint(0, 3))]
            a = np.random.default_rng(r.randint(0, 99)).integers(-1 if r.random() < 0.1 else 0, 3, shape)
            arrays[name] = a if name in d.integers else a * 0.5
        sizes = {a: r.randint(0, 3) for a in re.findall(r"[a-z]", text)} if r.random() < 0.2 else {}
        try:
            Y = d.forward(sizes=sizes, **arrays)
        except xwb.XwbError:
            sizes = {a: 2 for a in "ijkndpmrt" if re.search(rf"[\[,(]{a}[\],)]", text)}
            Y = d.forward(sizes=sizes, **arrays)
        reached = 2
        assert isinstance(Y, np.ndarray | np.generic)
        found = d.backward(np.ones(np.shape(Y)), sizes=sizes, **arrays)
        assert {n: g.shape for n, g in found.items()} == {n: arrays[n].shape for n in d.inputs if n in found}
        for name in found:
            assert d[name].formula
            assert d[name].program
            assert all(d[name].steps)
        assert str(d)
    except xwb.XwbError as error:
        refusal = error
    if refusal is not None:
        assert str(refusal).strip()
        assert reached > 0 or isinstance(refusal, xwb.FormulaError)
    return reached


@pytest.mark.parametrize("seed", range(40))
def test_no_text_raises_anything_else(seed):
    """Mutations of valid formulas, on arrays of random small shapes."""
    r = random.Random(seed)
    reached = []
    for _ in range(20):
        text = mutated(r)
        with at_most(10, repr(text)):
            try:
                reached.append(tried(text, r))
            except (Exception, RecursionError) as error:
                raise AssertionError(f"{type(error).__name__}: {error}\nfrom {text!r}") from error
    assert 0 in reached


def test_the_fuzzer_reaches_the_engine():
    """Enough of its texts are formulas, and enough of these run."""
    r = random.Random(1)
    reached = [tried(mutated(r), r) for _ in range(150)]
    assert reached.count(0) > 40
    assert reached.count(2) > 20, reached


@pytest.mark.parametrize(
    "text",
    [
        "Y = " + "(" * 5000 + "x" + ")" * 5000,
        "Y = " + "-" * 5000 + "x",
        "Y = " + "x**" * 3000 + "x",
        "Y = " + "x*" * 4000 + "x",
        "Y = " + "+".join(["x"] * 4000),
        "Y = " + "exp(" * 1500 + "x" + ")" * 1500,
        "Y = " + "sum[i](" * 1000 + "x[i]" + ")" * 1000,
        "Y = x[" + "k[" * 1000 + "0" + "]" * 1001,
        "Y[" + ",".join(f"i{n}" for n in range(2000)) + "] = x",
        "; ".join(f"T{n} = x" for n in range(1500)),
        "Y = " + "9" * 9000,
        "Y = 1e" + "9" * 50,
        "Y = x**" + "9" * 500,
        "Y = 2**2**2**2**2**2**2",
        "Y = x" + " " * 200_000,
        "Y = (a + b)**900",
        "Y = " + "(a + b)*" * 60 + "(a + b)",
        "Y = " + "(" * 60 + "a" + " + b)**2" * 60,
        "Y[i] = x[" + "9" * 400 + "*i]",
        "Y[i] = x[zero(i+" + "9" * 400 + ")]",
    ],
    ids=lambda text: f"{text[:12]}…{len(text)}",
)
def test_nothing_is_too_long_or_too_deep(text):
    """An answer or a clear refusal within seconds: no recursion error, no overflow, no explosion of terms."""
    with at_most(10, text[:40]):
        try:
            d = xwb.derive(text)
            arrays = {n: np.float64(0.5) for n in d.inputs} if "[" not in text else {n: ones(3) for n in d.inputs}
            d.forward(**arrays)
            d.backward(1.0, **arrays)
            message = str(d)
        except xwb.XwbError as error:
            message = str(error)[:3000]
        assert 0 < len(message) < 2000 or "^" not in message
