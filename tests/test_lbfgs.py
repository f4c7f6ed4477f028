"""L-BFGS that is asked and told: against SciPy, strong Wolfe conditions, states, values that are no numbers, noise."""

from __future__ import annotations

import io
import json
import math
import pickle

import numpy as np
import pytest
from scipy.optimize import minimize

from xwb.training._lbfgs import FLATTER, LBFGS, SUFFICIENT, _Search

# Relative to the optimum: the gradient tests stop at 1e-9, and the conditioning of these functions is below 1e4.
SAME_POINT = 1e-5


def quadratic(P=30, condition=1e3, seed=0):
    """½ xᵀHx − cᵀx with eigenvalues from 1 to ``condition``, and its minimiser."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((P, P)))[0]
    H = (Q * np.geomspace(1, condition, P)) @ Q.T
    c = rng.standard_normal(P)
    return (lambda x: (0.5 * float(x @ H @ x) - float(c @ x), H @ x - c)), np.linalg.solve(H, c), H


def rosenbrock(x):
    d = x[1:] - x[:-1] ** 2
    gradient = np.zeros_like(x)
    gradient[:-1] = -400 * x[:-1] * d - 2 * (1 - x[:-1])
    gradient[1:] += 200 * d
    return 100 * float(d @ d) + float((1 - x[:-1]) @ (1 - x[:-1])), gradient


def log_sum_exp(x):
    """log Σ exp(A x + b) + |x|²/200 with 40 terms."""
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((40, len(x))), rng.standard_normal(40)
    scores = A @ x + b
    top = scores.max()
    e = np.exp(scores - top)
    return top + math.log(e.sum()) + float(x @ x) / 200, A.T @ (e / e.sum()) + x / 100


def minimised(f, x0, *, small=1e-9, limit=2000, **options):
    """The solver once the gradient is small or it stalls."""
    solver = LBFGS(x0, **options)
    while not solver.stalled and np.linalg.norm(solver.gradient) > small:
        solver.tell(*f(solver.point))
        assert solver.evaluations <= limit
    return solver


@pytest.mark.parametrize(
    ("f", "x0", "evaluations"),
    [
        (quadratic()[0], np.zeros(30), 400),
        (quadratic(condition=1.0)[0], np.ones(30), 5),
        (rosenbrock, np.array([-1.2, 1.0]), 60),
        (rosenbrock, np.full(20, -1.0), 200),
        (log_sum_exp, np.full(7, 5.0), 60),
    ],
    ids=["quadratic", "sphere", "rosenbrock", "rosenbrock of 20", "log-sum-exp"],
)
def test_finds_what_scipy_finds(f, x0, evaluations):
    solver = minimised(f, x0, noise=1e-14)
    assert np.linalg.norm(solver.gradient) <= 1e-9
    assert solver.evaluations <= evaluations
    reference = minimize(f, x0, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
    assert np.abs(solver.x - reference.x).max() <= SAME_POINT * max(1.0, np.abs(reference.x).max())
    assert solver.value == f(solver.x)[0]
    np.testing.assert_array_equal(solver.gradient, f(solver.x)[1])


def test_the_start_is_not_written_to():
    x0 = np.full(5, -1.0)
    LBFGS(x0).x[:] = 0
    np.testing.assert_array_equal(x0, -1.0)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize("f", [quadratic(condition=1e4)[0], rosenbrock, log_sum_exp])
def test_every_step_satisfies_the_strong_wolfe_conditions(f, noise):
    rng = np.random.default_rng(1)
    solver = LBFGS(rng.standard_normal(30), noise=noise)
    solver.tell(*f(solver.point))
    steps = 0
    while not solver.stalled and np.linalg.norm(solver.gradient) > 1e-6:
        x, value, gradient = solver.x, solver.value, solver.gradient
        before = solver.iterations
        while solver.iterations == before and not solver.stalled:
            trial, found = solver.point, f(solver.point)
            solver.tell(*found)
        if solver.iterations > before:
            assert solver.x is trial
            move = trial - x
            slope = float(gradient @ move)
            assert slope < 0
            rounding = 1e-12 * (abs(value) + abs(slope))
            assert found[0] <= value + SUFFICIENT * slope + noise * abs(value) + rounding
            assert abs(float(found[1] @ move)) <= FLATTER * abs(slope) + rounding
            steps += 1
    assert steps == solver.iterations >= 5


def test_the_conditions_are_those_of_the_books():
    assert (SUFFICIENT, FLATTER) == (1e-4, 0.9)


MIDDLES = (13, 14, 23, 35)  # evaluations after which a line search is under way


@pytest.mark.parametrize(
    ("value", "slope", "accepted"),
    [
        (4.9997, -8.9, True),  # 5 − 1e-4 · 0.25 · 10 = 4.99975
        (4.9998, -8.9, False),
        (4.9, -9.1, False),
        (4.9, 9.1, False),
        (4.9, 8.9, True),
        (math.nan, 0.0, False),
        (-math.inf, 0.0, False),
        (4.9, math.nan, False),
    ],
)
def test_what_a_search_accepts(value, slope, accepted):
    assert _Search(5.0, -10.0, 0.25).accepts(value, slope) is accepted
    assert _Search(5.0, -10.0, 0.25, tolerance=1e-3).accepts(4.9998, -8.9)
    assert not _Search(5.0, -10.0, 0.25, tolerance=1e-3).accepts(5.001, -8.9)


def by_pickle(state):
    return pickle.loads(pickle.dumps(state))


def by_json_and_npz(state):
    file = io.BytesIO()
    np.savez(file, **{name: value for name, value in state.items() if isinstance(value, np.ndarray)})
    file.seek(0)
    plain = json.loads(json.dumps({name: v for name, v in state.items() if not isinstance(v, np.ndarray)}))
    with np.load(file) as arrays:
        return plain | {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("through", [by_pickle, by_json_and_npz])
@pytest.mark.parametrize("stop", [0, 1, 2, 7, *MIDDLES])
def test_a_restored_state_goes_on_to_the_same_bits(stop, through):
    solver = LBFGS(np.full(10, -1.5), pairs=4, noise=1e-12)
    for _ in range(stop):
        solver.tell(*rosenbrock(solver.point))
    state = solver.state()
    other = LBFGS.restore(through(state))
    middle = other._search.trials > 0
    for _ in range(40):
        np.testing.assert_array_equal(solver.point, other.point)
        solver.tell(*rosenbrock(solver.point))
        other.tell(*rosenbrock(other.point))
        assert (solver.value, solver.iterations, solver.evaluations, solver.stalled) == (
            other.value,
            other.iterations,
            other.evaluations,
            other.stalled,
        )
        np.testing.assert_array_equal(solver.gradient, other.gradient)
    assert middle == (stop in MIDDLES)


def test_a_state_does_not_change_as_the_solver_goes_on():
    solver = LBFGS(np.full(6, -1.5))
    for _ in range(7):
        solver.tell(*rosenbrock(solver.point))
    state = solver.state()
    before = by_pickle(state)
    solver.x[:] = solver.point[:] = solver.gradient[:] = np.nan
    solver._direction[:] = np.nan
    for name in ("x", "point", "gradient", "direction", "steps", "changes"):
        np.testing.assert_array_equal(state[name], before[name])
    assert state["numbers"] == before["numbers"]
    assert state["search"] == before["search"]


@pytest.mark.parametrize("bad", [math.inf, math.nan, -math.inf])
def test_a_function_that_is_not_defined_everywhere(bad):
    """Σ x − log x, defined for positive x: its minimum is 1."""

    def barrier(x):
        if (x <= 0).any():
            return bad, np.full_like(x, np.nan)
        return float(np.sum(x - np.log(x))), 1 - 1 / x

    solver = minimised(barrier, np.array([1e-3, 50.0, 2.0]))
    np.testing.assert_allclose(solver.x, 1.0, atol=1e-8)


def test_a_cliff_far_below_the_first_step():
    """Defined only within 1e-9 of the start: the search gets there in its trials."""

    def narrow(x):
        inside = np.abs(x - 1).max() < 1e-9
        return (
            (float(1e12 * (x - 1) @ (x - 1) + 1e3 * x.sum()), 2e12 * (x - 1) + 1e3) if inside else (np.nan, x * np.nan)
        )

    solver = minimised(narrow, np.ones(2), small=1.0)
    np.testing.assert_allclose(solver.x - 1, -5e-10, rtol=1e-2)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_finite_value_with_a_gradient_that_is_not_is_not_accepted(bad):
    def f(x):
        value, gradient = rosenbrock(x)
        return value, gradient if np.abs(x).max() < 1.15 else gradient * bad

    with np.errstate(invalid="ignore"):
        solver = minimised(f, np.array([-1.1, 1.0]))
    np.testing.assert_allclose(solver.x, 1.0, atol=1e-6)


@pytest.mark.parametrize("bad", [math.inf, math.nan, -math.inf])
def test_a_start_without_a_value_stalls(bad):
    solver = LBFGS(np.ones(3))
    solver.tell(bad, np.ones(3))
    assert solver.stalled
    solver = LBFGS(np.ones(3))
    solver.tell(1.0, np.array([1.0, bad, 0.0]))
    assert solver.stalled
    np.testing.assert_array_equal(solver.x, 1.0)


@pytest.mark.parametrize("relative", [1e-7, 1e-6])
@pytest.mark.parametrize("seed", range(8))
def test_stops_soon_after_it_reaches_the_floor(relative, seed):
    """Noise of the value cannot stop it before the gradient is noise too; then a few dozen evaluations are left."""
    rng = np.random.default_rng(seed)
    f, best, _ = quadratic(condition=100.0, seed=seed)
    least, floor = f(best)[0], relative * math.sqrt(30)

    def noisy(x):
        value, gradient = f(x)
        of_value, of_gradient = rng.uniform(-1, 1), rng.standard_normal(len(x))
        return (value - least + 1) * (1 + relative * of_value), gradient + relative * of_gradient

    solver, reached = LBFGS(np.zeros(30), noise=relative), None
    while not solver.stalled:
        solver.tell(*noisy(solver.point))
        if reached is None and np.linalg.norm(f(solver.x)[1]) <= 2 * floor:
            reached = solver.evaluations
        assert solver.evaluations < 200
    assert reached is not None
    assert solver.evaluations - reached <= 70
    assert np.linalg.norm(f(solver.x)[1]) <= 3 * floor


def test_noise_of_the_gradient_alone_bounds_how_flat_it_gets():
    """With exact values it goes on until the gradient is rounding."""
    rng = np.random.default_rng(0)
    f, _, _ = quadratic(condition=100.0)
    solver = LBFGS(np.zeros(30), noise=1e-7)
    while not solver.stalled:
        value, gradient = f(solver.point)
        solver.tell(value, gradient + 1e-8 * rng.standard_normal(30))
        assert solver.evaluations < 200
    assert np.linalg.norm(f(solver.x)[1]) <= 1e-6


def test_a_start_that_is_optimal_needs_one_evaluation():
    solver = LBFGS(np.ones(4))
    solver.tell(*rosenbrock(solver.point))
    assert solver.stalled
    assert (solver.evaluations, solver.iterations, solver.value) == (1, 0, 0.0)
    np.testing.assert_array_equal(solver.x, 1.0)


def test_rounding_of_float64_ends_it_too():
    """No noise given and no limit: it stalls by itself."""
    f, best, _ = quadratic()
    solver = minimised(f, np.zeros(30), small=0.0, limit=600)
    assert solver.stalled
    np.testing.assert_allclose(solver.x, best, atol=1e-6)


def test_the_exact_inverse_makes_it_newtons_method():
    f, _, H = quadratic(condition=1e6)
    solver = LBFGS(np.ones(30))
    solver.inverse = lambda v: np.linalg.solve(H, v)
    while not np.linalg.norm(solver.gradient) <= 1e-6:
        assert solver.evaluations < 2
        solver.tell(*f(solver.point))
    plain = minimised(f, np.ones(30), small=1e-6, limit=10000)
    assert plain.evaluations > 100


def test_the_inverse_may_be_replaced_between_steps():
    """Rough ones, of another scale each time, in the middle of searches: the pairs and the search put it right."""
    f, best, H = quadratic(condition=1e4)
    rng = np.random.default_rng(0)
    solver = LBFGS(np.ones(30))
    while np.linalg.norm(solver.gradient) > 1e-5:  # beyond, the values' own rounding decides
        if solver.evaluations % 3 == 0:
            rough = np.linalg.inv(H + np.diag(rng.uniform(0, 3, 30))) * 10.0 ** rng.integers(-3, 4)
            solver.inverse = lambda v, rough=rough: rough @ v
        solver.tell(*f(solver.point))
        assert not solver.stalled
        assert solver.evaluations < 150
    np.testing.assert_allclose(solver.x, best, atol=1e-4)


def test_an_inverse_that_gives_no_numbers_is_passed_over():
    solver = LBFGS(np.array([-1.2, 1.0]))
    solver.inverse = lambda v: v * np.nan
    while not solver.stalled and np.linalg.norm(solver.gradient) > 1e-6:
        solver.tell(*rosenbrock(solver.point))
        assert solver.evaluations < 20000
    np.testing.assert_allclose(solver.x, 1.0, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_functions_of_any_scale(scale):
    f, best, _ = quadratic(condition=10.0)

    def scaled(x):
        value, gradient = f(x)
        return scale * value, scale * gradient

    solver = minimised(scaled, np.zeros(30), small=1e-7 * scale, limit=100)  # below, the values round
    np.testing.assert_allclose(solver.x, best, atol=1e-6)


def test_memory_is_that_of_the_pairs():
    solver = minimised(rosenbrock, np.full(20, -1.0), pairs=3)
    assert solver.state()["steps"].shape == solver.state()["changes"].shape == (3, 20)
