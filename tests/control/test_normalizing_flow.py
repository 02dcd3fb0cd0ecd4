"""Normalising flows: the exact map, constructions against reference figures, entropies, tails."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fem_apps.control.normalizing_flow import Construction, construct
from fem_apps.control.normalizing_flow_1d import Law, entropy, entropy_constant, interpolant
from fem_apps.control.normalizing_flow_bounds import (
    switches_for_measures,
    switches_for_pairs,
)
from fem_apps.control.normalizing_flow_entropy import (
    compare,
    line_quadrature,
    pinsker,
    reverse_pinsker,
)
from fem_apps.control.normalizing_flow_map import (
    forward,
    inverse,
    jax_log_density,
    log_density,
    pieces,
)
from fem_apps.control.normalizing_flow_pursuit import build_pursuit
from fem_apps.control.normalizing_flow_strips import build_strips, reference_strips
from fem_apps.control.normalizing_flow_tails import hill, refuse_heavy_tails
from fem_apps.control.normalizing_flow_targets import Mixture, Student, kernel_estimate
from fem_apps.errors import CaseError
from fem_apps.problems.continuity_velocity import double_precision

FOUR = Mixture(
    np.array([0.3, 0.3, 0.25, 0.15]),
    np.array([(-2, -1), (0, 1.5), (2, -0.5), (1.2, 2.5)]),
    np.array([(0.6, 0.8), (0.7, 0.5), (0.5, 0.9), (0.8, 0.4)]),
)
TWO = Mixture(np.array([0.5, 0.5]), np.array([[-2.0], [2.0]]), np.array([[0.5], [0.8]]))
WORKED = pieces(
    2,
    [
        ((0.8, -0.4), (1, 0.5), 0.2, 1),
        ((-0.6, 0.9), (0.3, -1), 0.5, 0.5),
        ((0, 1.2), (1, 0), -0.3, 1),
    ],
)
PLACES = np.array([(0, 0), (1, -0.5), (-1.2, 0.7), (2, 2)], dtype=float)


def standard(dim):
    return Mixture(np.ones(1), np.zeros((1, dim)), np.ones((1, dim)))


def law_of(target):
    edges = np.linspace(*target.box()[0], 20001)
    return Law(edges, target.masses([edges]))


def test_worked_example():
    wanted = [-1.92397496, -5.74832253, -2.80287707, -2.47487951]
    assert np.abs(log_density(WORKED, PLACES) - wanted).max() < 1.5e-8
    before = inverse(WORKED, PLACES[1:2])
    assert np.abs(before - [1.40438774, -2.39344647]).max() < 1.5e-8


@pytest.mark.parametrize(
    ("steps", "kl", "reverse", "tv"),
    [
        ([(1, 1, 0, np.log(2))], 0.40342641, 0.15907359, 0.16133728),
        (
            [(0.5, 1, -0.5, 1), (-0.4, -1, -0.3, 1), (0.7, 1, -1.5, 0.5)],
            0.26652982,
            0.10783888,
            0.14177274,
        ),
    ],
)
def test_worked_entropies(steps, kl, reverse, tv):
    """KL(rho_N | rho_B), the other way round, and total variation."""
    c = compare(standard(1), pieces(1, steps))
    assert abs(c.kl_reverse - kl) < 1e-8
    assert abs(c.kl - reverse) < 1e-8
    assert abs(c.tv - tv) < 1e-6
    assert c.tv <= c.pinsker
    assert c.kl <= c.reverse_pinsker


def test_inverse():
    rng = np.random.default_rng(0)
    s = pieces(3, [(rng.normal(size=3), rng.normal(size=3), rng.normal(), 0.5) for _ in range(20)])
    x = rng.normal(size=(1000, 3))
    assert np.abs(inverse(s, forward(s, x)) - x).max() < 1e-11
    d = log_density(s, forward(s, x))
    with double_precision():
        same = np.asarray(jax_log_density(s.w, s.a, s.b, s.tau, jnp.asarray(forward(s, x))))
    assert np.abs(d - same).max() < 1e-11


def test_durations():
    s = WORKED.with_durations(0.3)
    assert abs(s.tau.sum() - 0.3) < 1e-15
    assert np.abs(forward(s, PLACES) - forward(WORKED, PLACES)).max() < 1e-14
    assert abs(s.cost_l1 - WORKED.cost_l1) < 1e-13


def test_log_density_against_an_ode_solver():
    """Map and log det by diffrax on each piece, to 1e-10: no event lies inside a piece."""
    with double_precision():

        def field(t, y, theta):
            w, a, b = theta
            s = a @ y[:2] + b
            return jnp.append(jnp.maximum(s, 0) * w, jnp.where(s > 0, w @ a, 0.0))

        @jax.jit
        def solve(x, w, a, b, tau):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(field),
                diffrax.Dopri8(),
                0.0,
                tau,
                0.01,
                jnp.append(x, 0.0),
                (w, a, b),
                stepsize_controller=diffrax.PIDController(rtol=1e-13, atol=1e-14),
            ).ys[-1]

        for x in inverse(WORKED, PLACES):
            y, growth = x, 0.0
            for w, a, b, tau in zip(WORKED.w, WORKED.a, WORKED.b, WORKED.tau, strict=True):
                out = np.asarray(solve(jnp.asarray(y), w, a, b, tau))
                y, growth = out[:2], growth + out[2]
            exact = -0.5 * x @ x - np.log(2 * np.pi) - growth
            assert np.abs(y - forward(WORKED, x[None])[0]).max() < 1e-10
            assert abs(log_density(WORKED, y[None])[0] - exact) < 1e-10


# knots, KL, KL reversed, TV of the reference, mixed knots with tail slopes .5 and .8
LINE = {5: (0.402, 0.519, 0.348), 17: (0.0589, 0.0689, 0.107), 33: (0.0167, 0.0176, 0.0541)}
LINE |= {129: (1.02e-3, 1.02e-3, 0.0127)}


@pytest.mark.parametrize("count", LINE)
def test_line_reference(count):
    T = interpolant(law_of(TWO), count, "mixed", tails=(0.5, 0.8))
    s = T.steps(np.ones(1))
    assert s.switches == count + 1
    assert np.abs(forward(s, T.x[:, None])[:, 0] - T.y).max() < 1e-12
    c = compare(TWO, s)
    for mine, wanted in zip((c.kl, c.kl_reverse, c.tv), LINE[count], strict=True):
        assert abs(mine / wanted - 1) < 0.006
    assert c.tv <= c.pinsker
    z, weight = line_quadrature(TWO, s)
    assert abs(weight @ np.exp(log_density(s, z[:, None])) - 1) < 1e-12


def test_line_optimal():
    """Far below the reference at every number of knots; KL ~ C / N^2 with the predicted C."""
    law = law_of(TWO)
    kl = []
    for count, (reference, _, tv) in LINE.items():
        T = interpolant(law, count)
        c = compare(TWO, T.steps(np.ones(1)))
        kl.append(c.kl)
        assert c.kl < 0.2 * reference
        assert c.tv < 0.5 * tv
        assert abs(entropy(law, T)[0] / c.kl - 1) < 0.05
    assert abs(np.log(kl[3] / kl[2]) / np.log(129 / 33) + 2) < 0.1
    assert abs(entropy_constant(law) / 129**2 / kl[3] - 1) < 0.15


# strips, knots a strip, switches, KL, its standard error, TV of the reference
PLANE = [(2, 9, 36, 0.409, 0.0035, 0.383), (4, 9, 66, 0.167, 0.0026, 0.215)]
PLANE += [(16, 17, 398, 0.0234, 0.0011, 0.0706)]


@pytest.mark.parametrize(("strips", "knots", "switches", "kl", "error", "tv"), PLANE)
def test_plane_reference(strips, knots, switches, kl, error, tv):
    plan = reference_strips(FOUR, strips, knots)
    assert plan.schedule.switches == switches
    c = compare(FOUR, plan.schedule, 40_000, np.random.default_rng(1))
    assert abs(c.kl - kl) < 3 * np.hypot(error, c.kl_error)
    assert c.tv <= c.pinsker
    assert c.kl <= c.reverse_pinsker


@pytest.mark.parametrize(("accuracy", "most"), [(0.167, 40), (0.0234, 200)])
def test_plane_few_switches(accuracy, most):
    """At most the entropy asked, with a fraction of the reference's switches (66, 398)."""
    plan = build_strips(FOUR, accuracy)
    c = compare(FOUR, plan.schedule, 40_000, np.random.default_rng(2))
    assert plan.schedule.switches <= most
    assert c.kl - 3 * c.kl_error < accuracy
    assert abs(plan.predicted - c.kl) < 4 * c.kl_error + 0.05 * c.kl


def test_three_dimensions():
    target = Mixture(
        np.ones(2),
        np.array([[-1.0, 0, 1], [1, 1, -1]]),
        np.array([[0.6, 0.8, 0.7], [0.8, 0.6, 0.9]]),
    )
    accuracy = 0.15
    s, facts = construct(target, accuracy)
    c = compare(target, s, 20_000, np.random.default_rng(0))
    assert c.kl - 3 * c.kl_error < accuracy
    assert facts["strips"][0] >= 2


@pytest.mark.parametrize("dim", [2, 5])
def test_pursuit(dim):
    """Any dimension: amplitudes stay moderate, the entropy of one Gaussian is far exceeded."""
    rng = np.random.default_rng(dim)
    target = Mixture(np.ones(2), 1.5 * rng.normal(size=(2, dim)), 0.5 + 0.5 * rng.random((2, dim)))
    s, kl = build_pursuit(target, 0.1, rng=rng)
    c = compare(target, s, 20_000, np.random.default_rng(0))
    assert c.kl < 0.1 + 4 * c.kl_error
    assert abs(kl - c.kl) < 6 * c.kl_error
    assert np.linalg.norm(s.w, axis=1).max() < 10


def test_strips_are_for_three_dimensions():
    with pytest.raises(CaseError, match="pursuit"):
        construct(standard(4), 0.1, Construction(method="strips"))


@pytest.mark.parametrize("nu", [1.5, 2.0])
def test_heavy_tails_are_refused(nu):
    with pytest.raises(CaseError, match="tails are too heavy"):
        refuse_heavy_tails(Student(nu, 1), None)
    if nu < 2:
        x = Student(nu, 2).sample(5000, np.random.default_rng(3))
        with pytest.raises(CaseError, match="Hill"):
            refuse_heavy_tails(kernel_estimate(x), x)


def test_light_tails_pass():
    assert abs(refuse_heavy_tails(Student(5.0, 1), None) - 5) < 1e-3
    assert refuse_heavy_tails(FOUR, None) > 100
    x = FOUR.sample(3000, np.random.default_rng(0))
    assert refuse_heavy_tails(kernel_estimate(x), x) > 2
    alpha, error = hill(Student(3.0, 1).sample(40000, np.random.default_rng(1)))
    assert abs(alpha - 3) < 4 * error


def test_published_counts():
    """The values of the reference; a bound that is far above what strips need."""
    assert switches_for_measures(2, 2, 0.5) == 5833
    assert switches_for_measures(2, 4, 0.25) == 7776
    assert switches_for_measures(1, 1, 0.1) == 91
    assert switches_for_pairs(10, 3, 2) == 7
    assert switches_for_pairs(2, 3, 5) == 0
    with pytest.raises(ValueError, match="width"):
        switches_for_measures(3, 2, 0.1)


def test_bounds():
    assert pinsker(0.5) == 0.5
    assert abs(reverse_pinsker(0.1, np.log(2.0)) - 0.2 * np.log(2.0)) < 1e-15
