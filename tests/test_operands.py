"""Random operands: shapes that a formula says, integers that point inside, memory as asked, finite values."""

from __future__ import annotations

import numpy as np
import pytest

import xwb
from xwb.algebra import derive, slots
from xwb.proof import operands
from xwb.proof._loops import evaluate
from xwb.proof._operands import LAYOUTS, several_sizes

LINEAR = "Y[n,m] = X[n,d] W[d,m] + b[m]"
NLL = "L = mean[n](log(sum[k](exp(Z[n,k]))) - Z[n,y[n]])"


def shapes(formula, **options):
    return {name: array.shape for name, array in operands(formula, **options).items()}


@pytest.mark.parametrize(
    ("formula", "sizes", "expected"),
    [
        (LINEAR, {}, {"X": (2, 4), "W": (4, 3), "b": (3,)}),
        (LINEAR, {"n": 7, "d": 3}, {"X": (7, 3), "W": (3, 2), "b": (2,)}),
        (NLL, {}, {"Z": (2, 3), "y": (2,)}),
        ("Y[...,m] = X[...,d] W[d,m]", {"d": 2, "m": 9}, {"X": (3, 4, 2), "W": (2, 9)}),
        ("Y[...,m] = X[...,d] W[d,m]", {"...": ()}, {"X": (3,), "W": (3, 2)}),
        ("Y[...] = relu(X[...])", {"...": (4, 1, 2)}, {"X": (4, 1, 2)}),
        ("Y[n,p] = X[n,zero(p+r-1)] K[r]", {"n": 2, "p": 6, "r": 3}, {"X": (2, 6), "K": (3,)}),
        ("Y[n,p] = X[n,2*p+r] K[r]", {"n": 2, "p": 3, "r": 2}, {"X": (2, 6), "K": (2,)}),
        ("Y[p] = A[p] X[wrap(p+1)]", {"p": 4}, {"A": (4,), "X": (2,)}),
        ("Y[n,d] = E[k[n],d]", {"n": 5, "size(E,0)": 9}, {"E": (9, 2), "k": (5,)}),
        ("Y[n] = s*X[n]", {}, {"s": (), "X": (2,)}),
        ("H[...] = tanh(X[...]); Y[n,m] = H[n,d] W[d,m]", {"d": 5}, {"X": (2, 5), "W": (5, 3)}),
    ],
)
def test_shapes(formula, sizes, expected):
    assert shapes(formula, sizes=sizes) == expected


def test_the_other_shapes_follow_from_those_given():
    assert shapes(LINEAR, shapes={"X": (32, 64)}) == {"X": (32, 64), "W": (64, 3), "b": (3,)}
    assert shapes("Y[...,m] = X[...,d] W[d,m]", shapes={"X": (5, 6, 7)})["W"][0] == 7
    with pytest.raises(xwb.FormulaError, match="d has two sizes"):
        operands(LINEAR, shapes={"X": (3, 4), "W": (5, 6)})
    with pytest.raises(xwb.FormulaError, match="n = 4 is asked for, and the shapes given make n = 3"):
        operands(LINEAR, {"n": 4}, shapes={"X": (3, 4)})


@pytest.mark.parametrize("formula", ["Y[p] = X[p+r] K[r]", "Y[i] = X[i] V[size(n)-1-i] + sum[n](V[n])", LINEAR])
def test_open_sizes_are_chosen_so_that_every_index_has_a_value(formula):
    arrays = operands(formula)
    assert np.isfinite(derive(formula).forward(**arrays)).all()


@pytest.mark.parametrize(
    ("formula", "sizes", "words"),
    [
        ("Y[n,k] = X[n]", None, "sizes={'k': …}"),
        ("Y[p] = max[r](X[2*p+r])", None, "sizes={'"),
        (LINEAR, {"q": 3}, "no index q"),
        ("Y[n,m] = X[n,d] W[", None, ""),
    ],
)
def test_a_size_that_nothing_says(formula, sizes, words):
    with pytest.raises(xwb.FormulaError) as caught:
        operands(formula, sizes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("formula", "name", "low", "high"),
    [
        (NLL, "y", 0, 2),
        ("Y[n,d] = E[k[n],d]", "k", 0, 3),
        ("Y[n] = T[k[n]-1] U[k[n]]", "k", 1, None),
        ("Y[n,r] = T[k[n]+r] K[r]", "k", 0, None),
        ("Y[n,k] = [y[n] == k]*X[n,k]", "y", 0, 2),
    ],
)
def test_integers_point_inside(formula, name, low, high):
    drawn = [operands(formula, rng=seed) for seed in range(20)]
    values = np.concatenate([arrays[name].ravel() for arrays in drawn])
    assert values.dtype.kind == "i"
    assert values.min() == low
    assert high is None or values.max() == high
    for arrays in drawn:
        evaluate(formula, arrays)  # raises where one is out of bounds


def test_an_integer_is_repeated():
    assert all(len(set(operands(NLL, {"n": 4, "k": 9}, rng=seed)["y"])) < 4 for seed in range(20))


def test_axes_that_one_integer_points_into_are_alike():
    assert shapes("L[n] = w[y[n]] Z[n,y[n]] + sum[k](Z[n,k])")["w"] == (3,)


def test_signs():
    assert (operands(LINEAR, {"n": 9, "d": 9})["X"] < 0).any()
    for formula in (
        "Y[n] = log(X[n])*A[n]",
        "Y[n] = sqrt(X[n])*A[n]",
        "Y[n] = X[n]**A[n]",
        "Y[n] = A[n]/log(X[n] A[n])",
    ):
        arrays = operands(formula, {"n": 30})
        assert (arrays["X"] > 0).all()
        assert np.isfinite(derive(formula).forward(**arrays)).all()
    assert (operands("Y[n] = log(X[n])*A[n]", {"n": 30})["A"] < 0).any()
    assert (operands(LINEAR, {"n": 9}, positive=["W"])["W"] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dtypes_and_layouts(dtype, layout):
    arrays = operands(NLL, dtype=dtype, layout=layout)
    assert arrays["Z"].dtype == dtype
    assert arrays["Z"].flags.c_contiguous == (layout == "contiguous")
    assert arrays["Z"].flags.f_contiguous == (layout == "Fortran")
    plain = operands(NLL, dtype=dtype)
    assert all(np.array_equal(arrays[name], plain[name]) for name in plain)


def test_another_layout():
    with pytest.raises(xwb.OptionError, match="contiguous, strided, Fortran"):
        operands(LINEAR, layout="C")


def test_several_sizes_are_all_different_and_each_is_once_1():
    found = [fitted.sizes for fitted in several_sizes(derive(LINEAR))]
    assert all(len(set(sizes.values())) == 3 for sizes in found)
    assert {name for sizes in found for name, size in sizes.items() if size == 1} == {"n", "d", "m"}
    many = derive("Y[a,b,c,d] = X[a,b,e] V[e,c,f] W[f,d,g] U[g]")
    assert len(slots(many)) == 7
    assert all(fitted.combinations <= 300 for fitted in several_sizes(many))
