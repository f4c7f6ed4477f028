"""Closed forms: as short as a person would write them, and right where shortness tempts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import xwb
from xwb.algebra import parse, tree

ATTENTION = """S[h,i,j] = Q[h,i,e] K[h,j,e]/sqrt(size(e))
P[h,i,j] = exp(S[h,i,j])/sum[k](exp(S[h,i,k]))
O[h,i,e] = P[h,i,j] V[h,j,e]"""
MASKED = """S[i,j] = Q[i,e] K[j,e]/sqrt(size(e))
P[i,j] = [j <= i] exp(S[i,j])/sum[k]([k <= i] exp(S[i,k]))
O[i,e] = P[i,j] V[j,e]"""
HEADS = """Q[h,t,k] = X[t,d] A[h,d,k]
K[h,t,k] = X[t,d] B[h,d,k]
V[h,t,e] = X[t,d] C[h,d,e]
S[h,t,u] = Q[h,t,k] K[h,u,k]/sqrt(size(k))
P[h,t,u] = exp(S[h,t,u])/sum[w](exp(S[h,t,w]))
O[h,t,e] = P[h,t,u] V[h,u,e]
Y[t,m] = O[h,t,e] W[h,e,m]"""
SOFTMAX = "P[n,k] = exp(Z[n,k])/sum[j](exp(Z[n,j]))"
LSTM = """I[n,h] = sigmoid(X[n,d] Wi[d,h] + H[n,k] Ui[k,h] + bi[h])
F[n,h] = sigmoid(X[n,d] Wf[d,h] + H[n,k] Uf[k,h] + bf[h])
G[n,h] = tanh(X[n,d] Wg[d,h] + H[n,k] Ug[k,h] + bg[h])
O[n,h] = sigmoid(X[n,d] Wo[d,h] + H[n,k] Uo[k,h] + bo[h])
M[n,h] = F[n,h] C[n,h] + I[n,h] G[n,h]
Y[n,h] = O[n,h] tanh(M[n,h])"""
MEAN = "mu[n] = mean[d](X[n,d]); v[n] = mean[d]((X[n,d] - mu[n])**2)"

FORMS = [
    (SOFTMAX, {"Z": "dZ[n,k] = P[n,k] (dP[n,k] - sum[j] P[n,j] dP[n,j])"}),
    (
        "m[n] = max[k](Z[n,k]); E[n,k] = exp(Z[n,k] - m[n]); S[n] = sum[k](E[n,k]); P[n,k] = E[n,k]/S[n]",
        {"Z": "dZ[n,k] = P[n,k] (dP[n,k] - sum[h] P[n,h] dP[n,h])", "m": "dm[n] = 0"},
    ),
    (
        f"{SOFTMAX}; L = -sum[n,k](T[n,k] log(P[n,k]))",
        {"Z": "dZ[n,k] = dL*(P[n,k] sum[j] T[n,j] - T[n,k])", "P": "dP[n,k] = -T[n,k] dL/P[n,k]"},
    ),
    (
        f"{SOFTMAX}; L = sum[n,k](T[n,k] (log(T[n,k]) - log(P[n,k])))",
        {"Z": "dZ[n,k] = dL*(P[n,k] sum[j] T[n,j] - T[n,k])"},
    ),
    (f"{SOFTMAX}; L = -mean[n](log(P[n,y[n]]))", {"Z": "dZ[n,k] = dL*(P[n,k] - [k == y[n]])/size(n)"}),
    (
        "L = mean[n](log(sum[k](exp(Z[n,k]))) - Z[n,y[n]])",
        {"Z": "dZ[n,k] = dL*(exp(Z[n,k] - lse[n]) - [k == y[n]])/size(n)"},
    ),
    ("l[n] = log(sum[k](exp(m[n,k])))", {"m": "dm[n,k] = exp(m[n,k] - l[n]) dl[n]"}),
    (
        "p[n] = sigmoid(z[n]); L = -sum[n](t[n] log(p[n]) + (1 - t[n])*log(1 - p[n]))",
        {"z": "dz[n] = dL*(p[n] - t[n])"},
    ),
    ("n[i] = sqrt(sum[k](m[i,k]**2))", {"m": "dm[i,k] = dn[i] m[i,k]/n[i]"}),
    ("n = sqrt(m[k] m[k])", {"m": "dm[k] = dn m[k]/n"}),
    ("L = sum[n,m]((Y[n,m] - T[n,m])**2)", {"Y": "dY[n,m] = 2 dL*(Y[n,m] - T[n,m])"}),
    (
        f"{MEAN}; y[n,d] = (X[n,d] - mu[n])/sqrt(v[n] + eps)",
        {"X": "dX[n,d] = (dy[n,d] - mean[h](dy[n,h]) - y[n,d] mean[h](dy[n,h] y[n,h]))/sqrt(v[n] + eps)"},
    ),
    (
        f"{MEAN}; Y[n,d] = (X[n,d] - mu[n])/sqrt(v[n] + 1e-5)*g[d] + b[d]",
        {
            "X": "dX[n,d] = (dU[n,d] - mean[h](dU[n,h]) - U[n,d] mean[h](dU[n,h] U[n,h]))/sqrt(v[n] + 1e-5)",
            "U": "dU[n,d] = dY[n,d] g[d]",
            "g": "dg[d] = sum[n] U[n,d] dY[n,d]",
        },
    ),
    (
        "Y[n,d] = (X[n,d] - mean[k](X[n,k]))/sqrt(mean[k]((X[n,k] - mean[j](X[n,j]))**2) + 1e-5)*g[d] + b[d]",
        {"X": "dX[n,d] = (dU[n,d] - mean[k](dU[n,k]) - U[n,d] mean[k](dU[n,k] U[n,k]))/R[n]"},
    ),
    (
        "r[n] = sqrt(mean[d](X[n,d]**2) + eps); y[n,d] = X[n,d]/r[n]",
        {"X": "dX[n,d] = (dy[n,d] - y[n,d] mean[h](dy[n,h] y[n,h]))/r[n]"},
    ),
    (
        "Y[n,d] = X[n,d]/sqrt(mean[k](X[n,k]**2) + 1e-5)*g[d]",
        {"X": "dX[n,d] = (dU[n,d] - U[n,d] mean[k](dU[n,k] U[n,k]))/R[n]"},
    ),
    (
        "mu[c] = mean[n,p](X[n,c,p]); v[c] = mean[n,p]((X[n,c,p] - mu[c])**2); "
        "y[n,c,p] = (X[n,c,p] - mu[c])/sqrt(v[c] + eps); Y[n,c,p] = y[n,c,p] g[c] + b[c]",
        {
            "X": "dX[n,c,p] = (dy[n,c,p] - mean[h,i](dy[h,c,i]) - y[n,c,p] mean[h,i](dy[h,c,i] y[h,c,i]))"
            "/sqrt(v[c] + eps)"
        },
    ),
    (
        "y[n,u,c] = (X[n,u,c] - mean[k](X[n,u,k]))/sqrt(mean[k]((X[n,u,k] - mean[j](X[n,u,j]))**2) + eps)",
        {"X": "dX[n,u,c] = (dy[n,u,c] - mean[k](dy[n,u,k]) - y[n,u,c] mean[k](dy[n,u,k] y[n,u,k]))/R[n,u]"},
    ),
    (
        ATTENTION,
        {
            "V": "dV[h,j,e] = sum[i] P[h,i,j] dO[h,i,e]",
            "P": "dP[h,i,j] = sum[e] dO[h,i,e] V[h,j,e]",
            "S": "dS[h,i,j] = P[h,i,j] (dP[h,i,j] - sum[k] P[h,i,k] dP[h,i,k])",
            "Q": "dQ[h,i,e] = sum[j] dS[h,i,j] K[h,j,e]/sqrt(size(e))",
            "K": "dK[h,j,e] = sum[i] dS[h,i,j] Q[h,i,e]/sqrt(size(e))",
        },
    ),
    (
        MASKED,
        {
            "V": "dV[j,e] = sum[i] P[i,j] dO[i,e]",
            "P": "dP[i,j] = sum[e] dO[i,e] V[j,e]",
            "S": "dS[i,j] = P[i,j] (dP[i,j] - sum[k] P[i,k] dP[i,k])",
            "Q": "dQ[i,e] = sum[j] dS[i,j] K[j,e]/sqrt(size(e))",
        },
    ),
    (
        HEADS,
        {
            "V": "dV[h,t,e] = sum[u] P[h,u,t] dO[h,u,e]",
            "S": "dS[h,t,u] = P[h,t,u] (dP[h,t,u] - sum[w] P[h,t,w] dP[h,t,w])",
            "K": "dK[h,t,k] = sum[u] dS[h,u,t] Q[h,u,k]/sqrt(size(k))",
            "W": "dW[h,e,m] = sum[t] O[h,t,e] dY[t,m]",
        },
    ),
    (
        "O[h,i,e] = exp(Q[h,i,d] K[h,j,d])/sum[k](exp(Q[h,i,d] K[h,k,d]))*V[h,j,e]",
        {
            "A": "dA[h,i,j] = U[h,i,j] (dU[h,i,j] - sum[k] U[h,i,k] dU[h,i,k])",
            "U": "dU[h,i,j] = sum[e] dO[h,i,e] V[h,j,e]",
            "Q": "dQ[h,i,d] = sum[j] dA[h,i,j] K[h,j,d]",
        },
    ),
    (
        LSTM,
        {
            "M": "dM[n,h] = dY[n,h] O[n,h] (1 - H1[n,h]**2)",
            "A_I": "dA_I[n,h] = dM[n,h] G[n,h] I[n,h] (1 - I[n,h])",
            "A_F": "dA_F[n,h] = dM[n,h] C[n,h] F[n,h] (1 - F[n,h])",
            "A_G": "dA_G[n,h] = dM[n,h] I[n,h] (1 - G[n,h]**2)",
            "A_O": "dA_O[n,h] = dY[n,h] H1[n,h] O[n,h] (1 - O[n,h])",
            "Wf": "dWf[d,h] = sum[n] X[n,d] dA_F[n,h]",
            "C": "dC[n,h] = dM[n,h] F[n,h]",
        },
    ),
    (
        "L = sum[n,k](relu(Z[n,k] - Z[n,y[n]] + 1))",
        {
            "Z": "dZ[n,k] = dL*([Z[n,k] - Z[n,y[n]] + 1 > 0] - [k == y[n]] sum[h] [Z[n,h] - Z[n,y[n]] + 1 > 0])",
        },
    ),
    ("L = sum[n](relu(1 - t[n] z[n]))", {"z": "dz[n] = -dL*t[n] [1 - t[n] z[n] > 0]"}),
    (
        "Y[n,m] = tanh(X[n,d] W[d,k] + b[k]) V[k,m]",
        {"A": "dA[n,k] = (1 - H[n,k]**2) sum[m] dY[n,m] V[k,m]", "W": "dW[d,k] = sum[n] X[n,d] dA[n,k]"},
    ),
    (
        "Y[n,o,p,q] = X[n,c,zero(p+r-1),zero(q+s-1)] K[o,c,r,s]",
        {
            "K": "dK[o,c,r,s] = sum[n,p,q] X[n,c,zero(p+r-1),zero(q+s-1)] dY[n,o,p,q]",
            "X": "dX[n,c,t,u] = sum[o,r,s] dY[n,o,zero(t+1-r),zero(u+1-s)] K[o,c,r,s]",
        },
    ),
    (
        "c[n] = x[n,d] y[n,d]/sqrt(sum[d](x[n,d]**2))/sqrt(sum[d](y[n,d]**2))",
        {"x": "dx[n,d] = dc[n] (U1[n,d] - c[n] U[n,d])/R[n]"},
    ),
]


@pytest.mark.parametrize(("formula", "forms"), FORMS)
def test_forms(formula, forms):
    """Exactly, up to the order of factors and terms."""
    d = xwb.derive(formula)
    for name, form in forms.items():
        found = d[name].formula
        assert _unordered(found) == _unordered(form), found


def _unordered(text):
    """A statement as nested tuples in which factors and terms have no order."""
    (statement,) = parse(text).statements
    return statement.name, [index.name for index in statement.indices], _node(statement.body)


def _node(node):
    match node:
        case tree.Sum():
            return "sum", sorted(((term.negative, _node(term.node)) for term in node.terms), key=repr)
        case tree.Product():
            factors: list[object] = []
            for factor in node.factors:
                inner = _node(factor.node)
                nested = not factor.divides and inner[0] == "product"
                factors += inner[1] if nested else [(factor.divides, inner)]
            return "product", sorted(factors, key=repr)
        case tree.Negative():
            return "product", sorted([(False, ("-1",)), *_factors(_node(node.operand))], key=repr)
        case tree.Reduce():
            return node.kind, sorted(node.indices), _node(node.body)
        case tree.Power():
            return "power", _node(node.base), _node(node.exponent)
        case tree.Call():
            return node.function, [_node(argument) for argument in node.arguments]
        case tree.Bracket():
            return "bracket", node.condition.op, _node(node.condition.left), _node(node.condition.right)
        case tree.Access():
            return node.name, [_node(place) for place in node.places]
        case tree.Mode():
            return node.mode, _node(node.position)
        case tree.Number():
            return ("number", node.value)
        case tree.Name():
            return (node.name,)
        case tree.Size():
            return "size", node.index
    raise TypeError(node)


def _factors(node):
    return node[1] if node[0] == "product" else [(False, node)]


def test_forms_are_compared_strictly():
    assert _unordered("a = b c") == _unordered("a = c b")
    for other in ("a = b/c", "a = -b c", "a = b c + b", "a = b c**2", "a = 2 b c"):
        assert _unordered("a = b c") != _unordered(other)


# -- the form chosen is the cheaper one ------------------------------------------------------------------------------


def test_the_cost_is_that_of_the_closed_form():
    assert xwb.derive(SOFTMAX)["Z"].cost().multiply_adds == "2*n*k"
    sizes = {"n": 64, "k": 1000}
    d = xwb.derive(f"{SOFTMAX}; L = -sum[n,k](T[n,k] log(P[n,k]))")
    assert d["Z"].cost(**sizes).multiply_adds <= 5 * 64 * 1000
    assert d["Z"].cost(**sizes).largest_temporary == 4 * 64 * 1000


def test_a_contraction_is_named_where_it_is_used_twice():
    d = xwb.derive(ATTENTION)
    contraction = 8 * 512 * 512 * 64
    cost = d["S"].cost(h=8, i=512, j=512, e=64)
    assert cost.multiply_adds < contraction, "dP is not multiplied out in it again"


def test_a_low_rank_adapter_is_four_products_without_a_large_temporary():
    d = xwb.derive("Y[n,m] = X[n,d] W[d,m] + X[n,d] A[d,r] B[r,m]")
    sizes = {"n": 256, "d": 1024, "m": 512, "r": 8}
    thin = 256 * 1024 * 8 + 256 * 512 * 8
    assert d["A"].cost(**sizes).multiply_adds == d["B"].cost(**sizes).multiply_adds == thin
    for name in "ABX":
        assert d[name].cost(**sizes).largest_temporary <= 4 * 256 * 1024
    code = d.code("numpy", **sizes)
    products = [line for line in code.splitlines() if "@" in line and not line.lstrip().startswith("#")]
    assert len(products) == 9, "X W and the gradients of both; X A and dY B' once each, and what they are multiplied by"


# -- right where shortness tempts ------------------------------------------------------------------------------------


def gradients(formula, in_torch, **arrays):
    """Those of derive, and PyTorch's."""
    d = xwb.derive(formula)
    dY = np.random.default_rng(1).standard_normal(np.shape(d.forward(**arrays)))
    found = d.backward(dY, **arrays)
    leaves = {name: torch.tensor(a, requires_grad=a.dtype.kind == "f") for name, a in arrays.items()}
    Y = in_torch(**leaves)
    wanted = [name for name in d.differentiable if leaves[name].requires_grad]
    theirs = torch.autograd.grad(Y, [leaves[name] for name in wanted], torch.tensor(dY), allow_unused=True)
    return {name: (found[name], np.asarray(grad)) for name, grad in zip(wanted, theirs, strict=True)}


X = np.random.default_rng(0).standard_normal((3, 4))


@pytest.mark.parametrize(
    ("formula", "in_torch"),
    [
        ("Y[i,j] = sqrt(X[i,j]**2)", lambda X: (X**2).sqrt()),
        ("S[i,j] = X[i,j]**2; Y[i,j] = sqrt(S[i,j]) X[i,j]", lambda X: (X**2).sqrt() * X),
        ("Y[i,j] = where(X[i,j] > 0, X[i,j], -2 X[i,j])**2", lambda X: torch.where(X > 0, X, -2 * X) ** 2),
        ("Y[i,j] = X[i,j]**3/X[i,j]**2/sum[k](X[i,k]**2)", lambda X: X / (X**2).sum(1, keepdim=True)),
        ("S[i] = sum[j](X[i,j]); Y[i,j] = X[i,j]/S[i]**2", lambda X: X / X.sum(1, keepdim=True) ** 2),
        (
            "P[i,j] = exp(X[i,j])/sum[k](exp(X[i,k])); Y[i,j] = P[i,j]**2/P[i,0]",
            lambda X: _softmax(X) ** 2 / _softmax(X)[:, :1],
        ),
        ("P[i,j] = exp(X[i,j])/sum[k](exp(X[k,j])); Y[i] = sum[j](P[i,j]**2)", lambda X: (X.softmax(0) ** 2).sum(1)),
        (
            "P[i,j] = exp(2*X[i,j])/sum[k](exp(2*X[i,k])); Y = sum[i,j](P[i,j] X[i,j])",
            lambda X: ((2 * X).softmax(1) * X).sum(),
        ),
        (
            "P[i,j] = exp(X[i,j])/sum[k,l](exp(X[k,l])); Y[i] = sum[j](P[i,j] X[i,j])",
            lambda X: (X.flatten().softmax(0).reshape(X.shape) * X).sum(1),
        ),
        (
            "y[i,j] = (X[i,j] - mean[k](X[i,k]))/sqrt(mean[k](X[i,k]**2) + 1)",
            lambda X: (X - X.mean(1, True)) / ((X**2).mean(1, True) + 1).sqrt(),
        ),
        ("m[i] = max[j](X[i,j]); Y[i,j] = exp(X[i,j] - m[i])", lambda X: (X - X.amax(1, True)).exp()),
    ],
)
def test_nothing_is_lost(formula, in_torch):
    for found, expected in gradients(formula, in_torch, X=X).values():
        assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def _softmax(X):
    return X.softmax(1)


def test_a_false_bracket_shields_what_stands_beside_it():
    """The bracket stays with the quotient: 0, not 0/0."""
    d = xwb.derive("Y[i] = [x[i] > 0] z[i]/x[i] + [x[i] <= 0] z[i]")
    grads = d.backward(np.ones(3), x=np.array([2.0, 0.0, -1.0]), z=np.array([1.0, 3.0, 3.0]))
    assert_allclose(grads["x"], [-0.25, 0, 0])
    assert_allclose(grads["z"], [0.5, 1, 1])


def test_a_range_that_is_shorter_than_its_axis_is_another_range():
    """With k shorter than Z is wide, the sum is not that of P."""
    rng = np.random.default_rng(0)
    Z, dP = rng.standard_normal((2, 5)), rng.standard_normal((2, 5))
    for d, sizes in ((xwb.derive(SOFTMAX), {"j": 3}), (xwb.derive(SOFTMAX, sizes={"j": 3}), None)):
        P = d.forward(sizes, Z=Z)
        inside = np.arange(5) < 3
        expected = P * (dP - inside * (P * dP).sum(1, keepdims=True))
        assert_allclose(P, np.exp(Z) / np.exp(Z[:, :3]).sum(1, keepdims=True))
        assert_allclose(d.backward(dP, sizes, Z=Z)["Z"], expected)


def test_parts_get_names_that_nothing_has():
    d = xwb.derive("Y[U,R] = (X[U,R] - mean[k](X[U,k]))/sqrt(mean[k](X[U,k]**2) + A)*G[R]")
    assert set(d.values(X=X, A=np.array(1.0), G=np.ones(4))) == {"Y", "U1", "R1"}
    assert "U1" in d["G"].formula


def test_named_parts_come_with_the_values_and_the_program():
    d = xwb.derive("Y[n,d] = X[n,d]/sqrt(mean[k](X[n,k]**2) + 1e-5)*g[d]")
    arrays = {"X": X, "g": np.arange(4.0)}
    dY = np.ones_like(X)
    values = d.values(**arrays)
    again = xwb.derive(d["X"].program)
    known = {name: array for name, array in {**arrays, "dY": dY}.items() if name in again.inputs}
    assert_allclose(again.forward(**known), d.backward(dY, **arrays)["X"])
    assert_allclose(values["U"] * values["R"][:, None], X)


def test_logarithms_of_probabilities_stay_finite():
    Z = np.array([[1e4, -1e4, 0.0]], np.float32)
    T = np.array([[0.0, 1.0, 0.0]], np.float32)
    d = xwb.derive(f"{SOFTMAX}; L = -sum[n,k](T[n,k] log(P[n,k]))")
    assert d.forward(Z=Z, T=T) == 2e4
    assert_allclose(d.backward(1.0, Z=Z, T=T)["Z"], [[1, -1, 0]])
    labels = xwb.derive(f"{SOFTMAX}; L = -mean[n](log(P[n,y[n]]))")
    assert labels.forward(Z=Z, y=np.array([1])) == 2e4
    assert_allclose(labels.backward(1.0, Z=Z, y=np.array([1]))["Z"], [[1, -1, 0]])


def test_a_derivation_goes_through_pickle():
    d = xwb.derive(SOFTMAX, sizes={"k": 4, "j": 4})
    tensor = torch.tensor(X)
    assert d.forward(Z=tensor).shape == (3, 4), "what was compiled for tensors is not what is pickled"
    again = pickle.loads(pickle.dumps(d))
    assert again["Z"].formula == d["Z"].formula
    assert_allclose(again.backward(X, Z=X)["Z"], d.backward(X, Z=X)["Z"])


# -- steps ----------------------------------------------------------------------------------------------------------


def test_steps_lead_to_the_closed_form():
    d = xwb.derive(f"{SOFTMAX}; L = -sum[n,k](T[n,k] log(P[n,k]))")
    steps = d["Z"].steps
    rules = [step.rule for step in steps]
    assert rules[rules.index("regroup") + 1 :] == ["reuse", "factor", "substitute", "cancel", "factor"]
    for before, after in zip(steps[rules.index("regroup") :], steps[rules.index("regroup") + 1 :], strict=False):
        assert before.after == after.before
    assert steps[-1].after == d["Z"].formula
    reuse = steps[rules.index("reuse")]
    assert "P[n,k] = exp(Z[n,k])/sum[j](exp(Z[n,j]))" in reuse.note


def test_every_step_has_the_value_of_the_gradient():
    """Each form on the way is read back and evaluated."""
    text = "Y[n,d] = (X[n,d] - mean[k](X[n,k]))/sqrt(mean[k]((X[n,k] - mean[j](X[n,j]))**2) + 1e-5)*g[d]"
    d = xwb.derive(text)
    arrays = {"X": X, "g": np.arange(1.0, 5.0)}
    dY = np.random.default_rng(2).standard_normal(X.shape)
    expected = d.backward(dY, **arrays)["X"]
    lines = d["X"].program.split("; ")
    known = {**arrays, **d.values(**arrays), "dY": dY}
    for name in ("U", "R"):
        known[f"d{name}"] = xwb.derive(d[name].program).forward(
            **{n: a for n, a in known.items() if n in xwb.derive(d[name].program).inputs}
        )
    forms = [step.after for step in d["X"].steps if step.rule in ("reuse", "cancel", "factor", "substitute")]
    assert len(forms) > 3
    assert lines[-1] == forms[-1]
    for form in forms:
        again = xwb.derive(form)
        assert_allclose(again.forward(**{name: known[name] for name in again.inputs}), expected, rtol=1e-9, atol=1e-12)


def test_a_value_that_repeats_is_not_named_for_what_it_repeats():
    """Y[i] is the maximum for every i: the slope of the maximum is not written with one of them."""
    d = xwb.derive("Y[i] = max[j](X[j]*2)", {"i": 2})
    assert d["X"].formula.startswith("dX[j] = 2 [A[j] == max[h](A[h])] sum[k](dY[k])")
    assert_allclose(d.backward(np.array([1.0, 2.0]), X=np.array([0.0, 3.0]))["X"], [0.0, 6.0])
