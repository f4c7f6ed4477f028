"""What a derivation gives beside its numbers: forms, costs, steps, a layer; and what it never forms."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given

import xwb
from _random_formulas import formulas
from _tolerances import assert_close
from test_derive_random import examples

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
CONVOLUTION = "Y[n,o,p] = X[n,c,zero(p+r-1)] K[o,c,r]"


def integers(*shape: int) -> np.ndarray:
    rng = np.random.default_rng([1, *shape])
    return rng.integers(-4, 5, shape).astype(np.float64)


MATRICES = [
    (LINEAR, {"X": "dY @ W.T", "W": "X.T @ dY", "b": "dY.sum(axis=0)"}),
    ("Y[m,n] = W[m,d] X[n,d] + b[m]", {"W": "dY @ X", "X": "dY.T @ W", "b": "dY.sum(axis=1)"}),
    ("G[i,j] = X[i,k] X[j,k]", {"X": "dG @ X + dG.T @ X"}),
    ("q = x[i] A[i,j] x[j]", {"x": "dq * (A @ x + A.T @ x)", "A": "np.outer(dq * x, x)"}),
    ("y[i] = A[i,j] x[j]", {"A": "np.outer(dy, x)", "x": "A.T @ dy"}),
    ("Y[n,k] = X[n,d] A[d,r] B[r,k]", {"A": "X.T @ dY @ B.T", "B": "A.T @ (X.T @ dY)"}),
    ("Y[n,m] = X[n,m] g[m]", {"X": "dY * g", "g": "(X * dY).sum(axis=0)"}),
    ("L = sum[n,m]((Y[n,m] - T[n,m])**2)", {"Y": "2 * dL * (Y - T)", "T": "-2 * dL * (Y - T)"}),
    ("y = A[i,i]", {"A": None}),
    ("Y[n,k] = tanh(X[n,k])", {"X": None}),
    (CONVOLUTION, {"X": None, "K": None}),
]


@pytest.mark.parametrize(("formula", "forms"), MATRICES)
def test_matrix_notation(formula, forms):
    d = xwb.derive(formula)
    assert {name: d[name].matrix for name in forms} == forms


def _same_numbers(d, name: str, form: str | None) -> bool:
    """Whether a matrix form exists and gives the gradient at sizes 1 and 3, all equal and all different."""
    if form is None:
        return False
    ranges = {letter: d.classes.find(r) for s in d.program.statements for letter, r in s.letters.items()}
    different = {kind: number + 2 for number, kind in enumerate(dict.fromkeys(ranges.values()))}
    for by_range in (dict.fromkeys(different, 1), dict.fromkeys(different, 3), different):
        sizes = {letter: by_range[kind] for letter, kind in ranges.items()}
        arrays = {
            tensor: integers(*(sizes[letter] for letter in re.findall(r"\w+", places or "")))
            for tensor in d.inputs
            for places in [next(iter(re.findall(rf"\b{tensor}\[([^\]]*)\]", d.formula)), "")]
        }
        dY = integers(*np.shape(d.forward(**arrays)))
        expected = d.backward(dY, **arrays)[name]
        np.testing.assert_array_equal(eval(form, {"np": np, **arrays, f"d{d.output}": dY}), expected)
    return True


@pytest.mark.parametrize(("formula", "forms"), [case for case in MATRICES if any(case[1].values())])
def test_matrix_notation_gives_the_gradient(formula, forms):
    d = xwb.derive(formula)
    for name in forms:
        assert _same_numbers(d, name, d[name].matrix)


@examples(150)
@given(formulas(polynomial=True))
def test_forms_of_random_formulas(f):
    """Where an einsum or a matrix form is claimed, NumPy gives the gradient from it, with `==` on integers."""
    if "prod[..." in f.text:
        return  # its gradient has no formula
    d = xwb.derive(f.text, f.sizes)
    gradients = d.backward(f.dY, **f.arrays)
    known = {**f.arrays, **d.values(**f.arrays), f"d{f.output}": f.dY}
    for name in f.floats:
        g = d[name]
        body = g.formula.split(" = ", 1)[1]
        named = [known.get(tensor) for tensor in re.findall(r"(?!sum\b)\b([A-Za-z]\w*)(?=\[| |$)", body)]
        if any(array is None for array in named):
            continue  # the gradient of an earlier value, which backward does not give
        if g.matrix is not None:
            np.testing.assert_array_equal(np.asarray(eval(g.matrix, {"np": np, **known})), gradients[name])
        if g.einsum is not None:
            np.testing.assert_array_equal(np.einsum(g.einsum, *named), gradients[name])


@pytest.mark.parametrize(
    ("formula", "name", "subscripts"),
    [
        (LINEAR, "X", "nm,dm->nd"),
        (LINEAR, "W", "nd,nm->dm"),
        (LINEAR, "b", "nm->m"),
        ("Y[...,m] = X[...,d] W[d,m]", "X", "...m,dm->...d"),
        ("Y[...,m] = X[...,d] W[d,m]", "W", None),  # an ellipsis cannot be summed
        ("y = A[i,i]", "A", None),
        ("Y[n,k] = 2*X[n,k]", "X", None),
        ("Y[n] = sum[k](X[n] + 0*A[n,k])", "X", None),
    ],
)
def test_einsum(formula, name, subscripts):
    assert xwb.derive(formula)[name].einsum == subscripts


class TestCost:
    def test_the_jacobian_of_source_004(self):
        """N = 64, D = M = 4096: more than 68 billion entries, 256 GiB in float32."""
        cost = xwb.derive(LINEAR)["X"].cost(n=64, d=4096, m=4096)
        assert cost.jacobian_entries == (64 * 4096) ** 2 == 68_719_476_736
        assert cost.jacobian_bytes == 256 * 2**30
        assert cost.multiply_adds == 64 * 4096 * 4096
        assert cost.flops == 2 * cost.multiply_adds
        assert cost.bytes == 4 * (64 * 4096 + 4096 * 4096 + 64 * 4096)
        assert cost.largest_temporary == 0

    def test_in_double_precision(self):
        one, two = (xwb.derive(LINEAR)["W"].cost(n=2, d=3, m=4, dtype=dtype) for dtype in ("float32", "float64"))
        assert (two.bytes, two.jacobian_bytes) == (2 * one.bytes, 2 * one.jacobian_bytes)
        assert two.multiply_adds == one.multiply_adds

    def test_symbolic(self):
        cost = xwb.derive(LINEAR)["W"].cost()
        assert cost.multiply_adds == "n*m*d"
        assert cost.jacobian_entries == "n*m*m*d"
        assert cost.largest_temporary == "0"

    def test_the_cheapest_order_of_products_is_counted(self):
        """dA of a low-rank adapter: (dY Bᵀ) first, N·R entries, never N·D·M."""
        cost = xwb.derive("Y[n,m] = X[n,d] A[d,r] B[r,m]")["A"].cost(n=256, d=1024, r=8, m=1024)
        assert cost.multiply_adds == 256 * 1024 * 8 + 256 * 1024 * 8
        assert cost.largest_temporary == 4 * 256 * 8

    def test_a_convolution_by_letters_and_by_shapes(self):
        d = xwb.derive("Y[n,o,p] = X[n,c,p+r] K[o,c,r]")
        by_letters = d["K"].cost(n=2, c=3, o=4, p=5, r=3)
        assert by_letters == d["K"].cost(X=(2, 3, 7), K=(4, 3, 3))
        assert by_letters.multiply_adds == 2 * 3 * 4 * 5 * 3
        assert by_letters.jacobian_entries == (2 * 4 * 5) * (4 * 3 * 3)

    @pytest.mark.parametrize(
        ("sizes", "said"),
        [({"q": 3}, "no index or input q"), ({"n": 3}, "missing"), ({"n": -1, "d": 2, "m": 2}, "a size is an integer")],
    )
    def test_errors(self, sizes, said):
        with pytest.raises(xwb.FormulaError, match=said):
            xwb.derive(LINEAR)["W"].cost(**sizes)


class TestSteps:
    def test_the_rules_in_the_order_of_source_002(self):
        """002: entries, chain rule, slope of one entry, Id_kj x_ih, summed out, read off as a matrix product."""
        steps = xwb.derive("y[i,j] = x[i,l] W[l,j] + b[j]")["W"].steps
        assert [step.rule for step in steps] == [
            "read",
            "chain rule over entries",
            "product rule",
            "Kronecker delta",
            "collapse",
            "regroup",
        ]
        assert steps[0].after == "y[i,j] = sum[l] x[i,l] W[l,j] + b[j]"
        assert steps[1].after == "dW[h,k] = sum[i,j] dy[i,j] ∂y[i,j]/∂W[h,k]"
        assert steps[2].after == "sum[l] x[i,l] ∂W[l,j]/∂W[h,k]"
        assert steps[3].after == "[h == l] [k == j]"
        assert steps[4].after == "sum[i] x[i,h] dy[i,k]"
        assert steps[5].after == "dW[l,j] = sum[i] x[i,l] dy[i,j]"
        assert steps[5].note.endswith("as einsum: il,ij->lj; as matrices: x.T @ dy")

    def test_one_step_for_each_occurrence(self):
        rules = [step.rule for step in xwb.derive("G[i,j] = X[i,k] X[j,k]")["X"].steps]
        assert rules.count("product rule") == rules.count("collapse") == 2

    def test_a_bracket_that_remains_says_why(self):
        steps = xwb.derive("Y[n,p] = X[n,2*p+3*r] K[r]")["X"].steps
        (collapse,) = (step for step in steps if step.rule == "collapse")
        assert "[i == 2*p+3*r] remains: no summed index has the coefficient 1 or -1 in it" in collapse.note

    @pytest.mark.parametrize(
        ("formula", "rule", "note"),
        [
            ("Y[n] = tanh(X[n])", "function rule", "tanh' = 1 - tanh**2"),
            ("Y[n] = X[n]**3", "power rule", "(x**a)' = a x**(a-1)"),
            ("y[n] = max[k](X[n,k])", "reduction rule", "shared equally among ties"),
            ("Y[n] = where(X[n] > 1, X[n], 2)", "branch rule", "the branch that is taken"),
        ],
    )
    def test_rules_are_named(self, formula, rule, note):
        assert any(rule in step.rule and note in step.note for step in xwb.derive(formula)["X"].steps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plain_number_takes_the_dtype_of_the_arrays(dtype):
    X = np.ones(3, dtype)
    for s in (2, 2.5):
        assert_close(xwb.derive("Y[n] = s X[n]").forward(s=s, X=X), s * X)
    labels = np.array([0, 1, 1])
    np.testing.assert_array_equal(xwb.derive("Y[n] = s*[y[n] == 1]").forward(s=2.5, y=labels), [0, 2.5, 2.5])


class TestLayer:
    def test_in_a_chain(self):
        """A derived layer stands where the closed form stands."""
        derived = xwb.chain(xwb.derive(LINEAR).layer(), xwb.relu, xwb.linear)
        closed = xwb.chain(xwb.linear, xwb.relu, xwb.linear)
        assert derived.inputs == closed.inputs
        arrays = [integers(*shape) for shape in [(4, 3), (3, 6), (6,), (6, 5), (5,)]]
        Y, back = derived(*arrays)
        expected, expected_back = closed(*arrays)
        assert_close(Y, expected)
        dY = integers(4, 5)
        for mine, theirs in zip(back(dY), expected_back(dY), strict=True):
            assert_close(mine, theirs)
        dX, *dparams = back(dY, needs=derived.params)
        assert dX is None
        assert all(grad is not None for grad in dparams)

    def test_is_checked_like_any_layer(self):
        xwb.check(
            xwb.derive("Y[n,m] = tanh(X[n,d] W[d,m])").layer(), integers(4, 3) / 4, integers(3, 5) / 4
        ).raise_if_wrong()

    def test_an_integer_input_has_no_gradient(self):
        E, k = integers(5, 2), np.array([1, 1, 4])
        layer = xwb.derive("Y[n,d] = E[k[n],d]").layer()
        assert layer.inputs == ("E", "k")
        Y, back = layer(E, k)
        np.testing.assert_array_equal(Y, E[k])
        dE, dk = back(np.ones_like(Y))
        assert dk is None
        np.testing.assert_array_equal(dE, [[0, 0], [2, 2], [0, 0], [0, 0], [1, 1]])

    def test_the_number_of_arrays(self):
        with pytest.raises(xwb.ShapeError, match="takes 3 arrays and got 2"):
            xwb.derive(LINEAR).layer()(integers(4, 3), integers(3, 5))


@pytest.mark.parametrize(
    ("formula", "shapes"),
    [
        (LINEAR, {"X": (64, 128), "W": (128, 96), "b": (96,)}),
        (CONVOLUTION, {"X": (8, 16, 200), "K": (16, 16, 3)}),
        ("P[n,k] = exp(Z[n,k])/sum[j](exp(Z[n,j]))", {"Z": (64, 500)}),
        ("y[n] = prod[k](X[n,k])", {"X": (300, 300)}),
    ],
)
def test_nothing_of_the_size_of_the_jacobian_is_formed(formula, shapes):
    d = xwb.derive(formula)
    arrays = {name: integers(*shape) / 8 for name, shape in shapes.items()}
    dY = integers(*d.forward(**arrays).shape)
    d.backward(dY, **arrays)
    tracemalloc.start()
    d.backward(dY, **arrays)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    jacobian = 8 * dY.size * max(array.size for array in arrays.values())
    everything = 8 * (dY.size + sum(array.size for array in arrays.values()))
    assert peak < 12 * everything < jacobian / 10
