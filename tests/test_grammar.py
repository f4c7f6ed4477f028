"""The parser: the tree of every construct, every error with its carets and the line to type, and no third outcome."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import xwb
from xwb.algebra import _tree as tree
from xwb.algebra._text import parse, pointed
from xwb.algebra._tree import Span

FORMULAS = [
    "Y[n,m] = X[n,d] W[d,m] + b[m]",
    "Y[...,k] = exp(X[...,k]) / sum[j](exp(X[...,j]))",
    "dX[n,k] = P[n,k] (dP[n,k] - sum[j](P[n,j] dP[n,j]))",
    "dW[d,m] = sum[n] X[n,d] dY[n,m]",
    "L = mean[n](log(sum[k](exp(Z[n,k]))) - 0.9*Z[n,y[n]] - 0.1*mean[k](Z[n,k]))",
    "L = sum[n](max[j]([j != y[n]]*max(0, 1.5 + Z[n,j] - Z[n,y[n]]))**2) / size(n)",
    "Y[n,o,p,q] = X[n,c,zero(2*p+3*r-1),wrap(q+s)] K[o,c,r,s]",
    "dx[t] = [t == clamp(p+r-1)] g[p] k[r]; dk[r] = sum[p] x[size(p)-1-p] g[p] dx[r]",
    "mu[n] = mean[d](x[n,d]);\nv[n] = mean[d]((x[n,d] - mu[n])**2)\ny[n,d] = (x[n,d] - mu[n]) / (v[n] + eps)**0.5",
    "Y[i] = where(x[i] > 0, x[i]**-2, -alpha*x[i]) [i <= 3]",
    "s = 2**-n**2 c[] k[] - -x; t = (\n  s\n  + 1e-5\n) (s)",
]
LSTM = "\n".join(
    [f"{g}[n,h] = sigmoid(X[n,d] W{g}[d,h] + H[n,e] U{g}[e,h] + b{g}[h])" for g in "IFO"]
    + ["G[n,h] = tanh(X[n,d] Wg[d,h] + H[n,e] Ug[e,h] + bg[h])"]
    + ["C2[n,h] = F[n,h]*C[n,h] + I[n,h]*G[n,h]", "H2[n,h] = O[n,h]*tanh(C2[n,h])"]
)


def show(node: object) -> str:
    """The tree as an s-expression; ``/`` and ``-`` mark the factors that divide and the terms that are negative."""
    match node:
        case tree.Number(_, value):
            return str(value)
        case tree.Name(_, name):
            return name
        case tree.Access(_, name, places):
            return f"{name}[{', '.join(map(show, places))}]"
        case tree.Leading():
            return "..."
        case tree.Mode(_, mode, position):
            return f"({mode} {show(position)})"
        case tree.Size(_, index):
            return f"(size {index})"
        case tree.Call(_, function, arguments):
            return f"({function} {' '.join(map(show, arguments))})"
        case tree.Reduce(_, kind, indices, body):
            return f"({kind}[{','.join(indices)}] {show(body)})"
        case tree.Negative(_, operand):
            return f"(neg {show(operand)})"
        case tree.Power(_, base, exponent):
            return f"(** {show(base)} {show(exponent)})"
        case tree.Product(_, factors):
            return f"(* {' '.join('/' * f.divides + show(f.node) for f in factors)})"
        case tree.Sum(_, terms):
            return f"(+ {' '.join('-' * t.negative + show(t.node) for t in terms)})"
        case tree.Compare(_, op, left, right):
            return f"{op} {show(left)} {show(right)}"
        case tree.Bracket(_, condition):
            return f"[{show(condition)}]"
        case tree.Statement(_, name, indices, body):
            return f"{name}[{','.join(i.name for i in indices)}] = {show(body)}"
    raise TypeError(node)


def body(expression: str) -> str:
    """The tree of an expression."""
    return show(parse(f"Out = {expression}").statements[0].body)


def message(formula: object) -> str:
    with pytest.raises(xwb.FormulaError) as caught:
        parse(formula)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("L = 1", ["L[] = 1"]),
        ("L[] = 1", ["L[] = 1"]),
        ("Y[n,m] = X[n,m]", ["Y[n,m] = X[n, m]"]),
        (" Y [ n , m ] = X [ n , m ] ", ["Y[n,m] = X[n, m]"]),
        ("Y[...] = X[...]", ["Y[...] = X[...]"]),
        ("Y[...,k]=X[...,k]", ["Y[...,k] = X[..., k]"]),
        ("a = 1; b = a", ["a[] = 1", "b[] = a"]),
        ("a = 1\nb = a", ["a[] = 1", "b[] = a"]),
        ("\n;; a = 1 ;\r\n\t;\n b = a ;\n", ["a[] = 1", "b[] = a"]),
        ("a = (\n1\n+ 2)\nY[i,\nj] = x[i,\n\nj]", ["a[] = (+ 1 2)", "Y[i,j] = x[i, j]"]),
        ("a_1 = B_c_2; x2 = a_1", ["a_1[] = B_c_2", "x2[] = a_1"]),
        ("Y[i] = x[k] i; k = 2", ["Y[i] = (* x[k] i)", "k[] = 2"]),  # k is an index in the first, no tensor
        ("dW[d,m] = sum[n] X[n,d] dY[n,m]", ["dW[d,m] = (sum[n] (* X[n, d] dY[n, m]))"]),
        ("Lambda = match; e5 = 1; E = e5", ["Lambda[] = match", "e5[] = 1", "E[] = e5"]),
    ],
)
def test_statements(text, statements):
    formula = parse(text)
    assert [show(statement) for statement in formula.statements] == statements
    assert formula.text == text


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # numbers, exactly
        ("2", "2"),
        ("007", "7"),
        ("0.1", "1/10"),
        (".5", "1/2"),
        ("2.", "2"),
        ("1e-5", "1/100000"),
        ("1.5E+2", "150"),
        ("1e300", str(10**300)),
        ("1e-300", f"1/{10**300}"),
        ("0e999", "0"),
        # sums and products
        ("a + b - c", "(+ a b -c)"),
        ("a - (b - c)", "(+ a -(+ b -c))"),
        ("a*b/c*d", "(* a b /c d)"),
        ("a b c", "(* a b c)"),
        ("a b*c/d", "(* a b c /d)"),
        ("a/b*c d", "(* a /b c d)"),
        ("a/(b c)", "(* a /(* b c))"),
        ("a*(b*c)", "(* a (* b c))"),
        ("2 x", "(* 2 x)"),
        ("a*2 x", "(* a 2 x)"),
        ("a - 2 x", "(+ a -(* 2 x))"),
        ("2(x)", "(* 2 x)"),
        ("2[i == j]", "(* 2 [== i j])"),
        ("x -2", "(+ x -2)"),
        ("((x))", "x"),
        # signs and powers
        ("-x**2", "(neg (** x 2))"),
        ("(-x)**2", "(** (neg x) 2)"),
        ("-x y", "(* (neg x) y)"),
        ("a*-b", "(* a (neg b))"),
        ("a - -b", "(+ a -(neg b))"),
        ("--x", "(neg (neg x))"),
        ("-(a + b)", "(neg (+ a b))"),
        ("x**2**3", "(** x (** 2 3))"),
        ("(x**2)**3", "(** (** x 2) 3)"),
        ("x**-2", "(** x (neg 2))"),
        ("x**+2", "(** x 2)"),
        ("2**-x**2", "(** 2 (neg (** x 2)))"),
        ("x**2 y**3/z**4", "(* (** x 2) (** y 3) /(** z 4))"),
        ("x**-2 y", "(* (** x (neg 2)) y)"),
        ("x**2 (y)", "(* (** x 2) y)"),
        # a name before a parenthesis is a call, a value before one is a factor
        ("exp(x)", "(exp x)"),
        ("exp (x)", "(exp x)"),
        ("exp(x)(y)", "(* (exp x) y)"),
        ("exp(x) (y)", "(* (exp x) y)"),
        ("M[u] (y)", "(* M[u] y)"),
        ("M[u](y)", "(* M[u] y)"),
        ("(x)(y)", "(* x y)"),
        ("x*(y)", "(* x y)"),
        ("2 exp(x)**2 y", "(* 2 (** (exp x) 2) y)"),
        ("max(a, b) min(a, -b)", "(* (max a b) (min a (neg b)))"),
        # accesses
        ("k[]", "k[]"),
        ("x [i]", "x[i]"),
        ("x[0]", "x[0]"),
        ("x[2*p+3*r-1, size(n)-1-n]", "x[(+ (* 2 p) (* 3 r) -1), (+ (size n) -1 -n)]"),
        ("x[zero(p+r-1), wrap( i ), j]", "x[(zero (+ p r -1)), (wrap i), j]"),
        ("x[clamp(i+1), mirror(i), reflect(-i)]", "x[(clamp (+ i 1)), (mirror i), (reflect (neg i))]"),
        ("T[k[i], m]", "T[k[i], m]"),
        ("T[k[zero(i+1)]+p]", "T[(+ k[(zero (+ i 1))] p)]"),
        ("T[zero(k[i]+1)]", "T[(zero (+ k[i] 1))]"),
        ("A[..., i, i]", "A[..., i, i]"),
        # reductions: exactly the parenthesis, or the following product
        ("sum[k](x[k])", "(sum[k] x[k])"),
        ("sum [i,j] (x)", "(sum[i,j] x)"),
        ("sum[...](x[...])", "(sum[...] x[...])"),
        ("sum[..., k](x[..., k])", "(sum[...,k] x[..., k])"),
        ("sum[k] x[k] y[k]/z*2 + 1", "(+ (sum[k] (* x[k] y[k] /z 2)) 1)"),
        ("sum[k](x[k]) y", "(* (sum[k] x[k]) y)"),
        ("sum[k](x) (y)", "(* (sum[k] x) y)"),
        ("sum[k](x)/y", "(* (sum[k] x) /y)"),
        ("a/sum[k] x y", "(* a /(sum[k] (* x y)))"),
        ("a sum[k] x y - b", "(+ (* a (sum[k] (* x y))) -b)"),
        ("sum[k](x[k])**2", "(** (sum[k] x[k]) 2)"),
        ("sum[k] x[k]**2", "(sum[k] (** x[k] 2))"),
        ("sum[k] -x[k] y", "(sum[k] (* (neg x[k]) y))"),
        ("-sum[k] x y", "(neg (sum[k] (* x y)))"),
        ("2**sum[k] x y", "(** 2 (sum[k] (* x y)))"),
        ("sum[k] [k == i] x[k]", "(sum[k] (* [== k i] x[k]))"),
        ("sum[i] max[j] x y", "(sum[i] (max[j] (* x y)))"),
        ("prod[k](x) mean[k](x)", "(* (prod[k] x) (mean[k] x))"),
        ("max[k](x) - min[k](x)", "(+ (max[k] x) -(min[k] x))"),
        ("max[k](max(0, x))", "(max[k] (max 0 x))"),
        # Iverson brackets and where
        ("[i == j]", "[== i j]"),
        ("s*[i == 2]", "(* s [== i 2])"),
        ("(s)[i == 2]", "(* s [== i 2])"),
        ("exp(x) [i < j]", "(* (exp x) [< i j])"),
        ("x[i][i >= 2][i<=3]", "(* x[i] [>= i 2] [<= i 3])"),
        ("[x[i] > 0]**2", "(** [> x[i] 0] 2)"),
        ("[2 i + 1 != y[n]]", "[!= (+ (* 2 i) 1) y[n]]"),
        ("[[i == j] == 1]", "[== [== i j] 1]"),
        ("[i == wrap(p+r-1)]", "[== i (wrap (+ p r -1))]"),
        ("[zero(j) == i]", "[== (zero j) i]"),
        ("where(x > 0, a, b)", "(where > x 0 a b)"),
        ("where([x > 0], a, b)", "(where > x 0 a b)"),
        ("where([i == j] > 0, a, b)", "(where > [== i j] 0 a b)"),
        ("where(i == reflect(j), a, b)", "(where == i (reflect j) a b)"),
        ("where(where(a < b, 1, 2) > 0, a, b)", "(where > (where < a b 1 2) 0 a b)"),
    ],
)
def test_expressions(expression, expected):
    assert body(expression) == expected


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Y = x[k] k; k = 2", True),
        ("Y[k] = k; k = 2", True),
        ("Y = sum[k](k); k = 2", True),
        ("Y = size(k) k; k = 2", True),
        ("Y = [k == zero(i)]; k = 2; i = 3", True),
        ("Y = [zero(i) == k] k i; k = 2; i = 3", True),
        ("Y = x[k[]]; k = 2", False),
        ("Y = x[i] k; k = 2", False),
        ("Y = [i == zero(j)] k; k = 2", False),
        ("Y = [i == k]; k = 2", False),
        ("Y = x[k]; Z = k; k = 2", False),
    ],
)
def test_an_index_is_not_a_tensor_that_is_read(text, index):
    """An index of one statement may be assigned as a tensor by a later one; a tensor that was read may not."""
    if index:
        assert parse(text).statements
    else:
        assert message(text).startswith("`k` is read before it is assigned\n")


@pytest.mark.parametrize("name", tree.FUNCTIONS)
def test_every_function(name):
    arguments = ["x > 0", "y", "z"] if name == "where" else ["x", "y"][: tree.FUNCTIONS[name]]
    node = parse(f"Out = {name}({', '.join(arguments)})").statements[0].body
    assert isinstance(node, tree.Call)
    assert (node.function, len(node.arguments)) == (name, tree.FUNCTIONS[name])


@pytest.mark.parametrize("kind", tree.REDUCTIONS)
def test_every_reduction(kind):
    assert body(f"{kind}[i,j](x[i,j]) y") == f"(* ({kind}[i,j] x[i, j]) y)"


@pytest.mark.parametrize("op", tree.COMPARISONS)
def test_every_comparison(op):
    assert body(f"[a{op}b]") == f"[{op} a b]"


def walk(node: object) -> Iterator[tree.Node]:
    """Every node of a tree, outer ones first."""
    if isinstance(node, tree.Node):
        yield node
    inside = [getattr(node, f.name) for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else node
    if isinstance(inside, list | tuple):
        for child in inside:
            yield from walk(child)


@pytest.mark.parametrize("text", [*FORMULAS, LSTM])
def test_spans(text):
    """The text under a node's span, read alone, is that node."""
    for statement in parse(text).statements:
        for index in statement.indices:
            assert text[slice(*index.span)] == index.name
        for node in walk(statement):
            words = text[slice(*node.span)]
            assert words == words.strip()
            match node:
                case tree.Statement():
                    assert show(parse(words).statements[0]) == show(node)
                case tree.Leading():
                    assert words == "..."
                case tree.Mode():
                    assert body(f"x[{words}]") == f"x[{show(node)}]"
                case tree.Compare():
                    assert body(f"[{words}]") == f"[{show(node)}]"
                case tree.Number() | tree.Name():
                    assert "(" not in words
                    assert body(words) == show(node)
                case _:
                    assert body(f"(\n{words}\n)") == show(node)


LINE = "a line ends its statement; to go on, put the right side in parentheses"
MIDDLE = "type one there"
NUMBER = "a number has at most 30 digits and lies between 1e-300 and 1e300"
SHORTER = "type fewer digits, or pass the number as a scalar such as `c`"
SIDE_BY_SIDE = "of factors side by side, only the first may be a number"
DIVIDED = "after `/`, factors side by side can be read in two ways"
NO_COMPARISON = "this bracket holds no comparison"
SECOND = "type `==` to compare, or `;` before the next statement"
LEADING = "`...` stands only first in an index list"
ERRORS = [
    # juxtaposition
    ("Y = a/b c", "        ^", DIVIDED, "type `a/(b c)` or `a/b*c`"),
    ("Y = 2*a / -b  c[i] d + 1", "              ^^^^^^", DIVIDED, "type `2*a/(-b c[i] d)` or `2*a/-b*c[i] d`"),
    ("Y = a/2 (b + c)", "        ^^^^^^^", DIVIDED, "type `a/(2 (b + c))` or `a/2*(b + c)`"),
    ("Y = a/b 2", "        ^", DIVIDED, "type `a/(b*2)` or `a/b*2`"),
    ("Y = x + a/b[i] [i == 2]", "               ^^^^^^^^", DIVIDED, "type `a/(b[i] [i == 2])` or `a/b[i]*[i == 2]`"),
    ("Y = x 2", "      ^", SIDE_BY_SIDE, "type `2 x` or `x*2`"),
    ("Y = a*x[i] y 2**3 z", "             ^^^^", SIDE_BY_SIDE, "type `2**3 x[i] y` or `x[i] y*2**3`"),
    ("Y = 2 3", "      ^", SIDE_BY_SIDE, "type `2*3`"),
    ("Y = -x 3", "       ^", SIDE_BY_SIDE, "type `-x*3`"),
    ("Y = .5 3", "       ^", SIDE_BY_SIDE, "type `.5*3`"),
    # numbers
    ("Y = 2X[i]", "    ^^", "`2X` runs together", "type `2 X` or `2*X`"),
    ("Y = 1e", "    ^^", "`1e` runs together", "type `1 e` or `1*e`"),
    ("Y = 1.2.3", "    ^^^^^", "`1.2.3` runs together", "type a number as `2`, `0.5` or `1e-5`"),
    ("Y = 1_000", "    ^^^^^", "`1_000` runs together", "type a number as `2`, `0.5` or `1e-5`"),
    ("Y = 1e301", "    ^^^^^", NUMBER, SHORTER),
    ("Y = 1e-301", "    ^^^^^^", NUMBER, SHORTER),
    ("Y = 1e99999", "    ^^^^^^^", NUMBER, SHORTER),
    ("Y = 1234567890.123456789012345678901", "    " + "^" * 32, NUMBER, SHORTER),
    # names
    ("Y = _x", "    ^^", "the name `_x` begins or ends with an underscore", "type `x`"),
    ("Y = x__", "    ^^^", "the name `x__` begins or ends with an underscore", "type `x`"),
    ("Y = _1", "    ^^", "the name `_1` begins or ends with an underscore", "type `x1`"),
    ("Y = _", "    ^", "the name `_` begins or ends with an underscore", "type `x`"),
    ("lambda = 1", "^^^^^^", "`lambda` is a Python keyword", "type another name such as `lambda1`"),
    ("exp[i] = 1", "^^^", "`exp` is a function", "type `exp(…)`, or another name such as `exp1`"),
    ("Y[in] = 1", "  ^^", "`in` is a Python keyword", "type another name such as `in1`"),
    ("Y[zero] = 1", "  ^^^^", "`zero` is a boundary mode", "type `x[zero(…)]`, or another name such as `zero1`"),
    ("Y = sum[if](x)", "        ^^", "`if` is a Python keyword", "type another name such as `if1`"),
    ("Y = sizes", "    ^^^^^", "`sizes` is an argument of derive", "type another name such as `sizes1`"),
    ("Y = if(x)", "    ^^", "`if` is a Python keyword", "type another name such as `if1`"),
    ("Y = size", "    ^^^^", "`size` is the size of an index", "type `size(n)`, or another name such as `size1`"),
    ("Y = exp x", "    ^^^", "`exp` is a function", "type `exp(…)`, or another name such as `exp1`"),
    ("Y = exp[i]", "    ^^^", "`exp` is a function", "type `exp(…)`, or another name such as `exp1`"),
    ("Y = sum x", "    ^^^", "`sum` is a reduction", "type `sum[k](…)`, or another name such as `sum1`"),
    ("Y = x[wrap]", "      ^^^^", "`wrap` is a boundary mode", "type `x[wrap(…)]`, or another name such as `wrap1`"),
    # functions
    (
        "Y = ex (x)",
        "    ^^",
        "there is no function `ex`",
        "did you mean `exp(…)`? a scalar times a parenthesis is `ex*(…)`",
    ),
    (
        "Y = ln(x)",
        "    ^^",
        "there is no function `ln`",
        "did you mean `log(…)`? a scalar times a parenthesis is `ln*(…)`",
    ),
    ("Y = a (b)", "    ^", "there is no function `a`", "a scalar times a parenthesis is `a*(…)`"),
    (
        "Y = Sum(b)",
        "    ^^^",
        "there is no function `Sum`",
        "did you mean `sum[k](…)`? a scalar times a parenthesis is `Sum*(…)`",
    ),
    ("Y = sum(x[i])", "    ^^^", "`sum` does not say over which index", "type `sum[k](…)`"),
    ("Y = 2 mean (x)", "      ^^^^", "`mean` does not say over which index", "type `mean[k](…)`"),
    ("Y = exp()", "    ^^^^^", "`exp` takes 1 argument, not 0", "type `exp(…)`"),
    ("Y = exp(a, b)", "    ^^^^^^^^^", "`exp` takes 1 argument, not 2", "type `exp(…)`"),
    (
        "Y = max(x)",
        "    ^^^^^^",
        "`max` takes 2 arguments, not 1",
        "type `max(…, …)`; over an index it is `max[k](…)`",
    ),
    ("Y = where(a > 0, b)", "    ^^^^^^^^^^^^^^^", "`where` takes 3 arguments, not 2", "type `where(x[i] > 0, …, …)`"),
    (
        "Y = where(a + 1, b, c)",
        "          ^^^^^",
        "the first argument of `where` is a condition",
        "type `where(x[i] > 0, …, …)`",
    ),
    ("Y = size(n+1)", "         ^", "`size` takes the name of one index", "type `size(n)`"),
    ("Y = size(2)", "         ^", "`size` takes the name of one index", "type `size(n)`"),
    ("Y = size()", "         ^", "`size` takes the name of one index", "type `size(n)`"),
    ("Y = size(exp)", "         ^^^", "`exp` is a function", "type `exp(…)`, or another name such as `exp1`"),
    # reductions
    ("Y = sum[](x)", "    ^^^^^", "`sum` names no index", "type `sum[k](…)`"),
    ("Y = sum[2](x)", "        ^", "behind `sum` stand only names of indices", "type `sum[i,j](…)`"),
    ("Y = max[k+1](x)", "         ^", "behind `max` stand only names of indices", "type `max[i,j](…)`"),
    ("Y = sum[i,](x)", "          ^", "behind `sum` stand only names of indices", "type `sum[i,j](…)`"),
    (
        "Y = sum[i,j,i](x)",
        "        ^   ^",
        "the index `i` stands twice behind `sum`",
        "leave one out, or give it a name of its own",
    ),
    ("Y = sum[i,...](x)", "          ^^^", LEADING, "type for example `X[...,d]`"),
    ("Y = sum[k] + 1", "    ^^^^^^ ^", "nothing follows for `sum` to reduce", "type `sum[k](…)`"),
    ("Y = sum[k]", "    ^^^^^^^", "nothing follows for `sum` to reduce", "type `sum[k](…)`"),
    # index lists, boundary modes
    ("Y = x[i,...]", "        ^^^", LEADING, "type for example `X[...,d]`"),
    ("Y = x[...+1]", "         ^", "`+` cannot follow `...`", "type for example `X[...,d]`"),
    ("Y = x[... d]", "          ^", "`d` cannot follow `...`", "type for example `X[...,d]`"),
    ("Y = x[i ...]", "        ^^^", LEADING, "type for example `X[...,d]`"),
    ("Y = x[zero(...)]", "           ^^^", LEADING, "type for example `X[...,d]`"),
    ("Y = ...", "    ^^^", LEADING, "type for example `X[...,d]`"),
    ("Y = x[,i]", "      ^", "a value is missing between `[` and `,`", MIDDLE),
    ("Y = x[i,]", "        ^", "a value is missing between `,` and `]`", MIDDLE),
    (
        "Y = s[i == 2]",
        "      ^^^^^^",
        "a condition stands in the index list of `s`",
        "a scalar times a bracket is `s*[i == 2]`",
    ),
    *[
        (
            text,
            carets,
            "`zero` stands around a whole index position, or on one side of `==`",
            "type `x[zero(i+1)]` or `[i == zero(j+1)]`",
        )
        for text, carets in [
            ("Y = zero(i)", "    ^^^^"),
            ("Y = x[2*zero(i)]", "        ^^^^"),
            ("Y = x[zero(i)+1]", "      ^^^^"),
            ("Y = x[zero(i) j]", "      ^^^^"),
            ("Y = x[(zero(i))]", "       ^^^^"),
            ("Y = x[wrap(zero(i))]", "           ^^^^"),
            ("Y = [zero(i)]", "     ^^^^"),
            ("Y = where(zero(i), 1, 2)", "          ^^^^"),
        ]
    ],
    ("Y = [zero(i) < 2]", "     ^^^^^^^^^^^", "`zero` stands against a bare index under `==`", "type `[i == zero(…)]`"),
    (
        "Y = [i+1 == wrap(j)]",
        "     ^^^^^^^^^^^^^^",
        "`wrap` stands against a bare index under `==`",
        "type `[i == wrap(…)]`",
    ),
    (
        "Y = [zero(i) == wrap(j)]",
        "     ^^^^^^^^^^^^^^^^^^",
        "`zero` stands against a bare index under `==`",
        "type `[i == zero(…)]`",
    ),
    # conditions
    ("Y = []", "    ^^", NO_COMPARISON, "type a condition: `[i == j]`"),
    ("Y = [i]", "    ^^^", NO_COMPARISON, "type a condition: `[i == j]`"),
    ("Y = [i, j]", "    ^^", NO_COMPARISON, "type a condition: `[i == j]`"),
    ("Y = A[i][j]", "        ^^^", NO_COMPARISON, "to index, put all indices into one list: `A[i,j]`"),
    (
        "Y = (a + b)[i]",
        "           ^^^",
        NO_COMPARISON,
        "only a name is indexed; give this one in a statement of its own: `A[i] = …`",
    ),
    ("Y = [i = j]", "       ^", "`=` assigns, it does not compare", "type `==`"),
    ("Y = where(i = j, 1, 2)", "            ^", "`=` assigns, it does not compare", "type `==`"),
    ("Y = [a < b+1 <= c]", "       ^     ^^", "two comparisons in one condition", "type `[a < b+1]*[b+1 <= c]`"),
    *[
        (text, carets, "a comparison stands only in a bracket or first in `where`", more)
        for text, carets, more in [
            ("Y = x > 2", "      ^", "type `[a > b]`, which is 1 or 0, or `where(a > b, …, …)`"),
            ("Y = (i == 2)", "       ^^", "type `[a == b]`, which is 1 or 0, or `where(a == b, …, …)`"),
            ("Y = exp(x != 2)", "          ^^", "type `[a != b]`, which is 1 or 0, or `where(a != b, …, …)`"),
        ]
    ],
    # values that are missing, marks in wrong places
    ("Y[i] =", "      ^", "the right side is missing", "type what the left side is equal to"),
    ("Y = ; Z = 1", "    ^", "the right side is missing", "type what the left side is equal to"),
    ("Y = x +", "       ^", "a value is missing after `+`", "type one, or leave out the `+`"),
    ("Y = x +\n", "       ^", "a value is missing after `+`", "type one, or leave out the `+`"),
    ("Y = x ** ; Z = 1", "         ^", "a value is missing after `**`", "type one, or leave out the `**`"),
    ("Y = x - \t ", "       ^", "a value is missing after `-`", "type one, or leave out the `-`"),
    ("Y = a*/b", "      ^", "a value is missing between `*` and `/`", MIDDLE),
    ("Y = *b", "    ^", "a value is missing between `=` and `*`", MIDDLE),
    ("Y = ()", "     ^", "a value is missing between `(` and `)`", MIDDLE),
    ("Y = exp(x,)", "          ^", "a value is missing between `,` and `)`", MIDDLE),
    ("Y = [== 2]", "     ^^", "a value is missing between `[` and `==`", MIDDLE),
    ("Y = +x", "    ^", "a `+` without a left operand", "leave it out"),
    ("Y = a + +x", "        ^", "a `+` without a left operand", "leave it out"),
    (
        "Y = 3, 4",
        "     ^",
        "a comma stands only between indices or arguments",
        "type a decimal point as `.`, or leave the comma out",
    ),
    (
        "Y = (a, b)",
        "      ^",
        "a comma stands only between indices or arguments",
        "type a decimal point as `.`, or leave the comma out",
    ),
    ("Y = a Z = 2", "        ^", "a second `=` in one statement", SECOND),
    ("Y = (a = 2)", "       ^", "a second `=` in one statement", SECOND),
    # left sides
    ("X[n,d] W[d,m]", "^^^^^^^^^^^^^", "the left side is missing", "type the result first: `Y[n,m] = X[n,d] W[d,m]`"),
    ("a = 1; a + 2 ;", "       ^^^^^", "the left side is missing", "type the result first: `Y[n,m] = a + 2`"),
    ("= x", "^", "the left side is missing", "type the result first: `Y[n,m] = …`"),
    ("Y[i] == x[i]", "     ^^", "`==` compares, it does not assign", "type `=`"),
    ("[i == j]", "^^^^^^^^", "the left side is missing", "type the result first: `Y[n,m] = [i == j]`"),
    ("2 Y = x", "^^^", "the left side is one name with its indices", "type `Y[n,m] = …`"),
    ("A[i] B[j] = x", "^^^^^^^^^", "the left side is one name with its indices", "type `Y[n,m] = …`"),
    ("A[i][j] = x", "^^^^^^^", "the left side is one name with its indices", "type `Y[n,m] = …`"),
    ("Y += x", "^^^", "the left side is one name with its indices", "type `Y[n,m] = …`"),
    (
        "Y[i+1] = x",
        "   ^",
        "on the left side stand only names of indices",
        "type `Y[n,m] = …`, and compute on the right side",
    ),
    (
        "Y[0] = x",
        "  ^",
        "on the left side stand only names of indices",
        "type `Y[n,m] = …`, and compute on the right side",
    ),
    ("Y[i,...] = x", "    ^^^", LEADING, "type for example `X[...,d]`"),
    (
        "Y[i, j,i] = x",
        "  ^    ^",
        "the index `i` stands twice on the left side",
        "leave one out, or give it a name of its own",
    ),
    (
        "A[i] = x[i]; A = 2",
        "^            ^",
        "`A` is assigned twice",
        "choose another name for one of them, such as `A2`",
    ),
    (
        "A[i] = A[i] + 1",
        "^      ^",
        "`A` is read before it is assigned",
        "put its statement first, or choose another name",
    ),
    (
        "L = 2 s; s = 3",
        "      ^  ^",
        "`s` is read before it is assigned",
        "put its statement first, or choose another name",
    ),
    (
        "Y = x[k[i]]; k[i] = i",
        "      ^      ^",
        "`k` is read before it is assigned",
        "put its statement first, or choose another name",
    ),
    # brackets
    ("Y = (x[i]", "    ^    ^", "`(` is not closed", "type `)` where it ends"),
    ("Y = x[i + 1; Z = 2", "     ^     ^", "`[` is not closed", "type `]` where it ends"),
    ("Y = (x[i)", "      ^ ^", "`[` is closed by `)`", "type `]` to close the `[`"),
    ("Y = exp(x]", "       ^ ^", "`(` is closed by `]`", "type `)` to close the `(`"),
    ("Y = x)", "     ^", "`)` closes what nothing opened", "leave it out, or open it before"),
]


@pytest.mark.parametrize(("text", "carets", "fact", "more"), ERRORS, ids=[case[0] for case in ERRORS])
def test_errors(text, carets, fact, more):
    shown = text.replace("\t", " ").rstrip()
    assert message(text) == f"{fact}\n    {shown}\n    {carets}\n{more}"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "A[i] = x[i]\nA[i] = 2\n",
            [
                "`A` is assigned twice",
                "A[i] = x[i]",
                "^",
                "A[i] = 2",
                "^",
                "choose another name for one of them, such as `A2`",
            ],
        ),
        ("Y[i] = x[i] +\n  z[i]", ["a value is missing after `+`", "Y[i] = x[i] +", "             ^", LINE]),
        ("Y[i] = x[i]\r\n  + z[i]", ["a statement begins with `+`", "  + z[i]", "  ^", LINE]),
        (
            "Y[i] = exp(x[i]\nZ[i] = Y[i]",
            ["`(` is not closed", "Y[i] = exp(x[i]", "          ^    ^", "type `)` where it ends"],
        ),
        (
            "Y[i] = exp(\n  x[i]\n+ 1",
            ["`(` is not closed", "Y[i] = exp(", "          ^", "+ 1", "   ^", "type `)` where it ends"],
        ),
        (
            "Y = where(\n  i = j,\n  2, 3)",
            ["`=` assigns, it does not compare", "  i = j,", "    ^", "type `==`"],
        ),
        (
            "Y = exp(a,\n\n\t b\t,\r\n  c)\n",
            [
                "`exp` takes 1 argument, not 3",
                "Y = exp(a,",
                "    ^^^^^^",
                "  b ,",
                "  ^^^",
                "  c)",
                "  ^^",
                "type `exp(…)`",
            ],
        ),
    ],
)
def test_errors_over_several_lines(text, lines):
    assert message(text) == "\n".join([lines[0], *(f"    {line}" for line in lines[1:-1]), lines[-1]])


@pytest.mark.parametrize(
    ("char", "introduced", "more"),
    [
        ("×", "`×` (MULTIPLICATION SIGN)", "type `*`"),
        ("·", "`·` (MIDDLE DOT)", "type `*`"),
        ("÷", "`÷` (DIVISION SIGN)", "type `/`"),
        ("−", "`−` (MINUS SIGN)", "type `-`"),
        ("–", "`–` (EN DASH)", "type `-`"),
        ("²", "`²` (SUPERSCRIPT TWO)", "type `**2`"),
        ("⁴", "`⁴` (SUPERSCRIPT FOUR)", "type `**4`"),
        ("₁", "`₁` (SUBSCRIPT ONE)", "type `1`"),
        ("≤", "`≤` (LESS-THAN OR EQUAL TO)", "type `<=`"),
        ("≠", "`≠` (NOT EQUAL TO)", "type `!=`"),
        ("^", "`^` (CIRCUMFLEX ACCENT)", "type `**` for a power"),
        ("{", "`{` (LEFT CURLY BRACKET)", "type `(` or `[`"),
        ("}", "`}` (RIGHT CURLY BRACKET)", "type `)` or `]`"),
        ("а", "`а` (CYRILLIC SMALL LETTER A)", "type `a`"),
        ("Х", "`Х` (CYRILLIC CAPITAL LETTER HA)", "type `X`"),
        ("α", "`α` (GREEK SMALL LETTER ALPHA)", "type `alpha`"),
        ("ς", "`ς` (GREEK SMALL LETTER FINAL SIGMA)", "type `sigma`"),
        ("Ω", "`Ω` (GREEK CAPITAL LETTER OMEGA)", "type `Omega`"),
        ("λ", "`λ` (GREEK SMALL LETTER LAMDA)", "type `lam`, for lambda is a Python keyword"),
        ("Σ", "`Σ` (GREEK CAPITAL LETTER SIGMA)", "type `sum[k](…)`"),
        ("∑", "`∑` (N-ARY SUMMATION)", "type `sum[k](…)`"),
        ("√", "`√` (SQUARE ROOT)", "type `sqrt(…)`"),
        ("é", "`é` (LATIN SMALL LETTER E WITH ACUTE)", "type `e`"),
        ("ﬁ", "`ﬁ` (LATIN SMALL LIGATURE FI)", "type `fi`"),
        ("𝑥", "`𝑥` (MATHEMATICAL ITALIC SMALL X)", "type `x`"),
        ("（", "`（` (FULLWIDTH LEFT PARENTHESIS)", "type `(`"),
        ("；", "`；` (FULLWIDTH SEMICOLON)", "type `;`"),
        ("\u037e", "`\u037e` (GREEK QUESTION MARK)", "type `;`"),
        ("٣", "`٣` (ARABIC-INDIC DIGIT THREE)", "type `3`"),
        ("…", "`…` (HORIZONTAL ELLIPSIS)", "type `...`"),
        ("@", "`@` (COMMERCIAL AT)", "type the indices: `X[n,d] W[d,m]`"),
        ("ᵀ", "`ᵀ` (MODIFIER LETTER CAPITAL T)", "type the indices in the other order for a transpose: `X[d,n]`"),
        (".", "`.` (FULL STOP)", "type `...` for leading axes, `X[d,n]` for a transpose"),
        (":", "`:` (COLON)", "type an index for each axis: `X[n,d]`"),
        (
            "#",
            "`#` (NUMBER SIGN)",
            "type names of ASCII letters, digits and inner underscores, and the marks `+ - * / ** = ( ) [ ] , ;`",
        ),
        ("\xa0", "the character NO-BREAK SPACE", "type a space"),
        ("\x0c", "the character U+000C", "type a space"),
        ("\r", "the character U+000D", "type a space"),
        ("\x00", "the character U+0000", "leave it out"),
        ("\x1b", "the character U+001B", "leave it out"),
        ("\u200b", "the character ZERO WIDTH SPACE", "leave it out"),
        ("\ufeff", "the character ZERO WIDTH NO-BREAK SPACE", "leave it out"),
        ("\u202e", "the character RIGHT-TO-LEFT OVERRIDE", "leave it out"),
        ("\u0301", "the character COMBINING ACUTE ACCENT", "leave it out"),
        ("\ud800", "the character U+D800", "leave it out"),
    ],
)
def test_strange_characters(char, introduced, more):
    shown = char if introduced.startswith("`") else " " if char == "\r" else "\ufffd"
    picture = f"    Y = a{shown}b\n         ^"
    assert message(f"Y = a{char}b") == f"{introduced} is not part of the notation\n{picture}\n{more}"


@pytest.mark.parametrize("text", ["", " ", "\n", " ;\t;\r\n;"])
def test_nothing_to_read(text):
    assert message(text) == "the formula is empty\ntype for example `Y[n,m] = X[n,d] W[d,m] + b[m]`"


@pytest.mark.parametrize("text", [None, 3, b"Y = x", ["Y = x"]])
def test_no_text(text):
    assert message(text).splitlines() == [
        f"a formula is a str, not {type(text).__name__}",
        "type for example `Y[n,m] = X[n,d] W[d,m] + b[m]`, in quotes",
    ]


def test_reserved_names():
    reserved = {*tree.FUNCTIONS, *tree.REDUCTIONS, *tree.MODES, "sizes", "size", "lambda", "None", "for"}
    for name in reserved:
        for text in (f"{name} = 1", f"Y[{name}] = 1", f"Y = 2*{name}", f"Y = x[{name}]", f"Y = sum[{name}](x)"):
            assert message(text).startswith(f"`{name}` is ")


# Opening, core, closing; how many times the opening may stand, once per level.
NESTED = [
    ("(", "x", ")", 100),
    ("exp(", "x", ")", 100),
    ("where(i < 2, 1, ", "x", ")", 100),
    ("x[", "i", "]", 100),
    ("x[zero(", "i", ")]", 50),
    ("[", "i", " == 1]", 100),
    ("sum[k](", "x", ")", 100),
    ("sum[k] ", "x", "", 100),
    ("-", "x", "", 100),
    ("x**", "x", "", 100),
    ("x**-", "x", "", 50),
    ("-(", "x", ")", 50),
]


@pytest.mark.parametrize(("opening", "core", "closing", "most"), NESTED, ids=[case[0] for case in NESTED])
def test_nesting_is_limited(opening, core, closing, most):
    assert len(list(walk(parse("Y = " + opening * most + core + closing * most)))) > 1
    for levels in (most + 1, 9_000 // len(opening + closing)):
        text = message("Y = " + opening * levels + core + closing * levels)
        assert text.startswith("nested deeper than 100 levels\n")


def test_siblings_are_not_nested():
    assert body("+".join(["-(x[i])**2 sum[k] exp(k)"] * 200)).count("neg") == 200


@pytest.mark.parametrize(
    ("within", "beyond", "fact"),
    [
        ("Y = " + "+".join("x" * 1_000), "Y = " + "-".join("x" * 1_001), "a sum of more than 1,000 terms"),
        ("Y = " + " ".join("x" * 1_000), "Y = " + "*".join("x" * 1_001), "a product of more than 1,000 factors"),
        (
            ";".join(f"a{i} = x" for i in range(200)),
            ";".join(f"a{i} = x" for i in range(201)),
            "more than 200 statements",
        ),
        (
            f"Y[{','.join('abcdefghijklmnopqrstuvwxyz')}] = 1",
            f"Y[{','.join('Aabcdefghijklmnopqrstuvwxyz')}] = 1",
            "more than 26 indices",
        ),
        (f"Y = x[{','.join('i' * 26)}]", f"Y = x[{','.join('i' * 27)}]", "more than 26 indices"),
        (
            "Y = " + " " * 9_995 + "x",
            "Y = " + " " * 9_996 + "x",
            "the formula has 10,001 characters; 10,000 are the limit",
        ),
        ("Y = 1" + "0" * 29, "Y = 1" + "0" * 30, NUMBER),
    ],
)
def test_limits(within, beyond, fact):
    assert parse(within).statements
    assert message(beyond).splitlines()[0] == fact


def test_little_of_the_stack_is_left():
    def dive(frames):
        return dive(frames - 1) if frames else message("Y = " + "(" * 90 + "x" + ")" * 90)

    left = sys.getrecursionlimit() - len(inspect.stack(0))
    assert dive(left - 250) == "the formula is nested deeper than what is left of Python's stack"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "[" * 10_000,
        "Y = " + "(" * 9_996,
        "x " * 5_000,
        "Y=" + "x" * 9_995 + "(x)",
        "Y=" + "1" * 9_998,
        "Y=1e" + "9" * 9_990,
        "Y=a/b" + " c" * 4_000,
        "Y=x" + " 2" * 4_000,
        "Y=" + "-" * 9_998,
        "Y=x" + "**-x" * 2_000,
        "Y=" + "x\n" * 4_000,
        "\n" * 10_000,
        "Y=exp(" + "\n" * 9_990 + ",)",
        "Y=f(" + "x,\n" * 3_000 + ")",
        "Y=max(" + "x,\n" * 3_000 + "x)",
        "Y=max(" + "x,\n" * 3_000 + "^)",
        "Y=[" + "x<" * 4_000 + "x]",
        "Y=" + "\x00" * 9_998,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_no_text_takes_long(text):
    start = time.perf_counter()
    shown = message(text)
    assert time.perf_counter() - start < 1.0  # measured: at most 0.03 s
    assert len(shown) < 2_500


def test_the_lines_around_a_place():
    assert str(pointed("Y = a\nZ\t= b", "fact")) == "fact"
    assert str(pointed("Y = a\nZ\t= b", "fact", Span(10, 11), Span(0, 1), Span(6, 7), more=["one", "two"])) == (
        "fact\n    Y = a\n    ^\n    Z = b\n    ^   ^\none\ntwo"
    )
    assert str(pointed("Y = a\n", "fact", Span(5, 5))) == "fact\n    Y = a\n         ^"
    assert str(pointed("Y = a\nb", "fact", Span(5, 6))) == "fact\n    Y = a\n         ^"
    assert str(pointed("a  b", "fact", Span(1, 3))) == "fact\n    a  b\n     ^^"
    assert str(pointed("a b c", "fact", Span(0, 3), Span(2, 5))) == "fact\n    a b c\n    ^^^^^"


def test_long_lines_are_cut():
    assert str(pointed("x" * 100, "fact", Span(1, 2))).splitlines()[1] == "    " + "x" * 100
    assert str(pointed("x" * 101, "fact", Span(1, 2))).splitlines()[1] == "    " + "x" * 100 + "…"
    text = "Y = " + "".join(f"x{i} + " for i in range(100, 400)) + "z"
    for word in ("Y", "x100", "x110", "x250", "x398", "x399", "z"):
        start = text.index(word)
        _, shown, carets = str(pointed(text, "fact", Span(start, start + len(word)))).splitlines()
        assert len(shown) <= 106
        assert shown[carets.index("^") : carets.index("^") + len(word)] == word
        assert carets.strip() == "^" * len(word)
        assert (shown[4] == "…") == (word not in ("Y", "x100"))
        assert (shown[-1] == "…") == (word not in ("x398", "x399", "z"))
    near = [Span(text.index(word), text.index(word) + 4) for word in ("x200", "x205", "x390")]
    _, first, under, second, below = str(pointed(text, "fact", *near)).splitlines()
    assert [first[i : i + 4] for i in range(len(under)) if under[i - 1 : i + 1] == " ^"] == ["x200", "x205"]
    assert second[below.index("^") :][:4] == "x390"
    _, shown, carets = str(pointed(text, "fact", Span(500, 1_500))).splitlines()
    assert 80 < carets.count("^") <= len(shown) - 4


def test_many_lines_are_cut():
    text = "\n".join(f"x{i}" for i in range(100))
    assert "…" not in str(pointed(text, "fact", Span(0, text.index("x8"))))
    shown = str(pointed(text, "fact", Span(0, len(text)))).splitlines()[1:]
    assert [line.strip() for line in shown if "^" not in line] == [
        "x0",
        "x1",
        "x2",
        "x3",
        "…",
        "x96",
        "x97",
        "x98",
        "x99",
    ]


def test_errors_are_values_of_the_library():
    with pytest.raises(ValueError, match="not closed"):
        parse("Y = (x")
    assert issubclass(xwb.FormulaError, xwb.XwbError)


@pytest.mark.parametrize(("text", "milliseconds"), [(FORMULAS[0], 1.0), (FORMULAS[5], 1.0), (LSTM, 5.0)])
def test_reading_is_fast(text, milliseconds):
    def once():
        start = time.perf_counter()
        parse(text)
        return time.perf_counter() - start

    assert min(once() for _ in range(20)) * 1e3 < milliseconds


# Python's own parser reads the same operators: where only they occur, both trees must agree.
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


def binary(node: object) -> str:
    """Our tree, each sum and product folded from the left."""
    match node:
        case tree.Name(_, name):
            return name
        case tree.Negative(_, operand):
            return f"(-{binary(operand)})"
        case tree.Power(_, base, exponent):
            return f"({binary(base)}**{binary(exponent)})"
        case tree.Sum(_, items) | tree.Product(_, items):
            plus, minus = ("+", "-") if isinstance(node, tree.Sum) else ("*", "/")
            folded = binary(items[0][0])
            for child, inverse in items[1:]:
                folded = f"({folded}{minus if inverse else plus}{binary(child)})"
            return folded
    raise TypeError(node)


def by_python(node: ast.expr) -> str:
    match node:
        case ast.Name(name):
            return name
        case ast.UnaryOp(ast.USub(), operand):
            return f"(-{by_python(operand)})"
        case ast.BinOp(left, op, right):
            return f"({by_python(left)}{OPERATORS[type(op)]}{by_python(right)})"
    raise TypeError(node)


operators = st.sampled_from(["+", "-", "*", "/", "**", " - -", "*-", "**-", "/-"])
names = st.sampled_from(["a", "b", "c", "-a", "--b"])
arithmetic = st.recursive(
    names,
    lambda inner: st.builds(
        lambda first, rest: first + "".join(op + operand for op, operand in rest),
        st.one_of(inner.map("({})".format), names),
        st.lists(st.tuples(operators, st.one_of(inner.map("({})".format), st.sampled_from("abc"))), max_size=4),
    ),
    max_leaves=12,
)


@given(arithmetic)
@example("-a**-b**c*-d/e - f")
def test_precedence_is_pythons(text):
    assert binary(parse(f"Y = {text}").statements[0].body) == by_python(ast.parse(text, mode="eval").body)


def check(text: str) -> None:
    """A tree, or an error whose carets stand under the text; nothing else may come out."""
    try:
        formula = parse(text)
    except xwb.FormulaError as error:
        lines = str(error).splitlines()
        assert len(lines) >= 2 or "nested deeper" in lines[0]
        assert all(len(line) < 400 for line in lines)
        longest = max(map(len, text.split("\n")))
        for line in lines[1:]:
            if set(line) == {"^", " "}:
                assert line.startswith("    ")
                assert len(line) <= 4 + min(longest, 101) + 1
    else:
        for statement in formula.statements:
            for node in walk(statement):
                assert 0 <= node.span.start < node.span.end <= len(text)
            assert parse(text[slice(*statement.span)]).statements


PIECES = [
    *"abij xXY 012.eE+-*/=()[],;<>!\n\t_^{}@:'\\",
    *("**", "==", "<=", "...", "Y[i] = ", "x[i]", "sum[k](", "max[", "max(", "exp(", "zero(", "size(", "where("),
    *("²", "а", "−", "\r", "\x00", "\ud800", "lambda", "1e9", "[i == j]"),
]


@settings(max_examples=400)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
@example("Y = x[zero(i)")
def test_any_text_is_read_or_refused(text):
    check(text)
    check("Y[i] = " + text)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from([*FORMULAS, LSTM]))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 6))
        kept = draw(st.sampled_from(["", "twice", "other"]))
        piece = text[at : at + length]
        text = (
            text[:at] + {"": "", "twice": piece * 2, "other": draw(st.sampled_from(PIECES))}[kept] + text[at + length :]
        )
    return text


@settings(max_examples=600)
@given(mutated())
def test_nearly_right_formulas_are_read_or_refused(text):
    check(text)
