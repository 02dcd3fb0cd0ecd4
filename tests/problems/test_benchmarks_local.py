"""Exact solutions without interaction: Barenblatt, decay on a torus, published triangle tables."""

import numpy as np
import pytest
import sympy as sp
from aggregation import advance, barenblatt, evolve, mesh_of, orders

from fem_apps.fem.convolution import Convolution
from fem_apps.fem.time_stepping import StepControl
from fem_apps.problems import aggregation_diffusion as ad
from fem_apps.problems.edge_scheme import EdgeScheme, EdgeSolver
from fem_apps.problems.free_energy import Diffusion
from fem_apps.problems.initial_density import FromExpression


def spread(m, h, tolerance=1e-5, **grading):
    """Barenblatt from t = 1 to 3 on an unstructured disc: the outcome, errors and their kind."""
    data = mesh_of("disc", h=h, radius=3, **grading)
    problem = ad.Problem(diffusion=[Diffusion(exponent=m)])
    setting = ad.set_up(data, problem, "1", tolerance=tolerance)
    x = setting.graph.x
    setting.rho0[:] = barenblatt(x, 1.0, m)[0]
    setting.solver.mass = setting.graph.integral(setting.rho0)
    done = advance(setting, StepControl(end=3, tolerance=tolerance), t0=1.0, dt=0.01 * h)
    exact, front = barenblatt(x, 3.0, m)
    rho, g = done.state.rho, done.graph
    away = np.abs(np.linalg.norm(x, axis=1) - front) > 3 * h
    error = np.abs(rho - exact)
    return done, {
        "density": g.integral(error),
        "pressure": g.integral(np.abs(rho ** (m - 1) - exact ** (m - 1))),
        "away": g.integral(error * away),
    }


def test_barenblatt_m2():
    runs = [spread(2, h) for h in (0.4, 0.2, 0.1, 0.05)]
    for done, _ in runs:
        assert done.keeps_the_structure()
    assert orders([e["density"] for _, e in runs]).min() >= 1.8


def test_barenblatt_m3():
    """The front is Hoelder-1/2: no P1 function comes closer than O(h^1.5) in L1 to the density."""
    runs = [spread(3, h) for h in (0.4, 0.2, 0.1, 0.05)]
    for done, _ in runs:
        assert done.keeps_the_structure()
    errors = {k: [e[k] for _, e in runs] for k in runs[0][1]}
    assert orders(errors["density"]).mean() >= 1.45
    assert orders(errors["pressure"]).min() >= 1.8
    # what is left is the front's
    assert errors["away"][-1] < 0.1 * errors["density"][-1]


def test_barenblatt_m3_on_a_mesh_graded_to_the_front():
    """Cells of size h^1.5 at the final front, and four times the nodes as h is halved."""
    front = barenblatt(np.zeros((1, 2)), 3.0, 3)[1]
    sizes = (0.4, 0.2, 0.1, 0.05)
    runs = [spread(3, h, front=front, front_h=h * (h / 0.4) ** 0.5) for h in sizes]
    for done, _ in runs:
        assert done.keeps_the_structure()
    nodes = [done.graph.n for done, _ in runs]
    assert nodes[-1] < 4.2 * nodes[-2]
    assert orders([e["density"] for _, e in runs]).min() >= 1.8


def test_no_source_is_a_source():
    """A source that UFL simplifies to nothing."""
    data = mesh_of("interval", a=0, b=1, h=0.1)
    problem = ad.Problem(diffusion=[Diffusion()], source="0*x")
    done = evolve(data, problem, "1+x", 0.1)
    assert done.mass_drift <= 1e-12


@pytest.mark.parametrize("geometry", ["torus_interval", "torus_square"])
def test_decay_on_a_torus(geometry):
    """A cosine decays at the exact rate, across the sides that are one; second order."""
    k, errors = 2 * np.pi, []
    for h in (0.1, 0.05, 0.025):
        problem = ad.Problem(diffusion=[Diffusion(coefficient=0.3)])
        done = evolve(mesh_of(geometry, h=h), problem, f"1+0.5*cos({k}*x)", 0.1, tolerance=1e-6)
        assert done.keeps_the_structure()
        exact = 1 + 0.5 * np.exp(-0.3 * k**2 * 0.1) * np.cos(k * done.graph.x[:, 0])
        errors.append(np.abs(done.state.rho - exact).max())
    assert errors[-1] < 1e-3
    assert orders(errors).min() > 1.7


def relative_l2(graph, rho, exact):
    """The tables' norm: nodal, with the control volumes as weights."""
    return np.sqrt(graph.integral((rho - exact) ** 2) / graph.integral(exact**2))


x, y, t = sp.symbols("x y t")


def source(rho, xi):
    """What is to be added so that rho solves the equation with chemical potential xi."""
    flux = sum(sp.diff(rho * sp.diff(xi, v), v) for v in (x, y))
    return str(sp.simplify(sp.diff(rho, t) - flux))


def test_published_table_on_the_square():
    """Ex. 1 of the public repository ZengPing35/Y_Aggregation-Diffusion: m = 3, polynomial W."""
    u, v = sp.symbols("u v")
    V = x**2 * y**2 * (1 - x) ** 2 * (1 - y) ** 2
    rho = sp.exp(-t) * V + sp.Rational(1, 10)
    kernel = -sp.Rational(1, 1000) * (x - u) ** 2 * (y - v) ** 2
    there = rho.subs({x: u, y: v}, simultaneous=True)
    W_rho = sp.integrate(sp.integrate(sp.expand(kernel * there), (u, 0, 1)), (v, 0, 1))
    s = source(rho, sp.Rational(3, 2) * rho**2 + V + W_rho)
    problem = ad.Problem(diffusion=[Diffusion(exponent=3)], potential=str(V), source=s)
    rho0 = FromExpression(type="expression", expression=f"{V} + 0.1", normalise=False)
    for h, published in ((1 / 4, 4.7276e-3), (1 / 8, 1.3945e-3), (1 / 16, 3.2329e-4)):
        local = ad.set_up(mesh_of("rectangle", h=h), problem, rho0)
        g, given = local.graph, local.solver
        K = -1e-3 * np.prod((g.x[:, None] - g.x) ** 2, axis=2)
        W = Convolution("indefinite", "dense", g.n, (lambda b, K=K: K @ b,))
        solver = EdgeSolver(
            g, given.H, given.external, W, EdgeScheme(), given.mass, 1e-6, given.source
        )
        setting = ad.Setting(g, W, solver, local.rho0)
        done = advance(setting, StepControl(end=0.2, tolerance=1e-6), dt=1e-4)
        exact = np.exp(-0.2) * np.prod(g.x**2 * (1 - g.x) ** 2, axis=1) + 0.1
        assert relative_l2(g, done.state.rho, exact) <= published


@pytest.mark.parametrize(
    ("h", "published"),
    [(1 / 2, 1.4794e-2), (1 / 4, 3.1056e-3), (1 / 16, 2.2869e-4), (1 / 32, 4.5062e-5)],
)
def test_published_table_on_the_disc(h, published):
    """Ex. 2 of the same: H = rho log rho; its W = 1 has no gradient and is left out."""
    bump = sp.sin(sp.pi * (x**2 + y**2) / 2)
    rho = sp.exp(-t) * (bump + 10)
    V = bump / 100
    problem = ad.Problem(
        diffusion=[Diffusion()], potential=str(V), source=source(rho, sp.log(rho) + V)
    )
    rho0 = FromExpression(type="expression", expression=f"{bump} + 10", normalise=False)
    done = evolve(mesh_of("disc", h=h), problem, rho0, 0.1, tolerance=1e-6)
    r2 = (done.graph.x**2).sum(axis=1)
    exact = np.exp(-0.1) * (np.sin(np.pi * r2 / 2) + 10)
    assert relative_l2(done.graph, done.state.rho, exact) <= published
