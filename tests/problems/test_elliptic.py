"""Parametric elliptic problems: exact solutions with their rates, recombination, derivatives."""

from itertools import pairwise

import numpy as np
import pytest
import ufl
from dolfinx import mesh as dolfinx_mesh
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.expressions import parse
from fem_apps.fem.integrals import error_norm
from fem_apps.fem.points import PointEvaluator
from fem_apps.meshing import MeshCase, MeshData, build
from fem_apps.problems.elliptic import discretise, make_space
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_field import FieldOperator
from fem_apps.problems.elliptic_random_field import expansion

# a = m (1 + x/2), c = 1, u = sin(2x) exp(y): f by hand
EXACT = "sin(2*x)*exp(y)"
SOURCES = [
    # -(a u_x)_x - (a u_y)_y = -m/2 u_x - m (1 + x/2)(u_xx + u_yy)
    {"theta": "m", "value": "-cos(2*x)*exp(y) + 3*(1 + x/2)*sin(2*x)*exp(y)"},
    {"value": "sin(2*x)*exp(y)"},
]


def mesh(geometry, h, **parameters):
    return build(MPI.COMM_SELF, MeshCase(geometry=geometry, parameters={"h": h, **parameters}))


def manufactured(degree):
    return Equation(
        parameters={"m": (0.5, 2)},
        diffusion={"type": "terms", "terms": [{"theta": "m", "value": "1 + x/2"}]},
        interpolation=max(1, degree),
        reaction=[{}],
        source=SOURCES,
        boundary=[
            {"on": "left", "value": EXACT},
            {"on": "bottom", "value": EXACT},
            # a d_n u on x = 1 and on y = 1, the latter with + 2 u
            {
                "on": "right",
                "type": "neumann",
                "flux": [{"theta": "m", "value": "1.5*2*cos(2*x)*exp(y)"}],
            },
            {
                "on": "top",
                "type": "robin",
                "coefficient": [{"value": "2"}],
                "flux": [{"theta": "m", "value": f"(1 + x/2)*{EXACT}"}, {"value": f"2*{EXACT}"}],
            },
        ],
    )


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_orders_in_two_dimensions(degree):
    errors = []
    for h in (0.2, 0.1):
        data = build(MPI.COMM_SELF, MeshCase(
            geometry="rectangle", parameters={"h": 0.2}, refine=0 if h == 0.2 else 1,
        ))  # fmt: skip
        D = discretise(data, manufactured(degree), degree, rtol=1e-12)
        u = D.space.function(D.solve([1.3]) + D.space.lift)
        errors.append([error_norm(u, parse(EXACT), kind) for kind in ("L2", "H1-seminorm")])
    rates = np.log2(np.divide(*errors))
    assert rates[0] > degree + 1 - 0.15
    assert rates[1] > degree - 0.1


@pytest.mark.parametrize("degree", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_orders_in_three_dimensions(degree):
    exact = "sin(2*x)*y*(1 + z**2)"
    equation = Equation(
        diffusion={"type": "terms", "terms": [{}]},
        source=[{"value": "4*sin(2*x)*y*(1 + z**2) - 2*sin(2*x)*y"}],
        boundary=[{"on": "boundary", "value": exact}],
    )
    errors = []
    for refine in (1, 2):
        data = build(MPI.COMM_SELF, MeshCase(geometry="box", parameters={"h": 0.5}, refine=refine))
        D = discretise(data, equation, degree, rtol=1e-12)
        u = D.space.function(D.solve([]) + D.space.lift)
        errors.append([error_norm(u, parse(exact), kind) for kind in ("L2", "H1-seminorm")])
    rates = np.log2(np.divide(*errors))
    assert rates[0] > degree + 1 - 0.25
    assert rates[1] > degree - 0.15


SIZES = [10**4, *(pytest.param(n, marks=pytest.mark.slow) for n in (10**5, 10**6))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("dim", [2, 3])
def test_iterations_do_not_grow(dim, degree, size):
    """CG steps to 1e-8 for manufactured solutions, a fresh preconditioner."""
    n = round(size ** (1 / dim) / degree)
    make = dolfinx_mesh.create_unit_square if dim == 2 else dolfinx_mesh.create_unit_cube
    domain = make(MPI.COMM_SELF, *[n] * dim)
    exact, f = {
        2: ("sin(2*x)*exp(y)", "3*sin(2*x)*exp(y)"),
        3: ("sin(2*x)*y*(1 + z**2)", "4*sin(2*x)*y*(1 + z**2) - 2*sin(2*x)*y"),
    }[dim]
    equation = Equation(
        diffusion={"type": "terms", "terms": [{}]},
        source=[{"value": f}],
        boundary=[{"on": "boundary", "value": exact}],
    )
    D = discretise(MeshData(domain, None, None, {}), equation, degree, rtol=1e-8)
    u = D.space.function(D.solve([]) + D.space.lift)
    assert D.space.size > 0.9 * size
    print(f"{dim}D, P{degree}, {D.space.size} dofs: {D.solver.iterations[0]} steps")
    assert D.solver.iterations[0] <= 12
    assert error_norm(u, parse(exact), "L2") < 1e-3


@pytest.mark.parametrize(
    "h", [0.011, *(pytest.param(h, marks=pytest.mark.slow) for h in (0.0035, 0.0011))]
)
def test_iterations_do_not_grow_across_jumps(h):
    D = discretise(mesh("blocks", h), Equation(), rtol=1e-8)
    D.solve([0.1, 1.0, 0.5, 0.2])
    assert D.space.size > 0.7 / h**2
    assert D.solver.iterations[0] <= 12


def test_blocks_on_a_line_are_exact_at_the_nodes():
    """-(mu_i u')' = 1: u' = (c - x)/mu_i, c = int x/mu / int 1/mu; P1 is nodally exact."""
    equation = Equation(diffusion={"type": "blocks", "counts": [2]}, quantities=[{"name": "mean"}])
    D = discretise(mesh("interval", 0.01), equation, rtol=1e-13)
    u = D.solve([0.3, 0.8])
    at = PointEvaluator(D.space.V.mesh, np.array([0.5]))(D.space.function(u))
    c = (0.125 / 0.3 + 0.375 / 0.8) / (0.5 / 0.3 + 0.5 / 0.8)
    assert at[0] == pytest.approx((c * 0.5 - 0.125) / 0.3, rel=1e-9)
    assert at[0] == pytest.approx(0.2272727, abs=1e-7)
    assert D.quantities[0] @ u == pytest.approx(0.1613794, abs=3e-5)


def test_recombination_is_assembly():
    equation = Equation(
        diffusion={"type": "blocks", "counts": [2, 2]},
        reaction=[{"value": "x"}],
        boundary=[{"on": "left"}, {"on": "top", "type": "robin", "coefficient": [{}]}],
    )
    D = discretise(mesh("blocks", 0.1), equation)
    theta = np.array([0.3, 0.9, 0.2, 0.7, 1.0, 1.0])
    F = FieldOperator(D.space, equation)
    F.set(D.fields @ theta[:4])
    difference = D.matrix.combine(theta) - F.mat
    assert difference.norm() < 1e-13 * F.mat.norm()


def parametric():
    return Equation(
        parameters={"s": (1, 2), "p": (1, 2)},
        diffusion={
            "type": "terms",
            "terms": [{"theta": "s*p", "value": "1 + x"}, {"theta": "1 + p**2"}],
        },
        reaction=[{"theta": "s"}],
        source=[{"theta": "exp(s)"}],
        boundary=[{"on": "left", "value": "y"}, {"on": "right", "value": "1"}],
        quantities=[{"name": "q", "weight": "x*y"}],
    )


def test_taylor_by_parameters():
    D = discretise(mesh("rectangle", 0.1), parametric(), rtol=1e-13)
    mu, along = np.array([1.3, 1.6]), np.array([0.7, -0.4])
    u = D.solve(mu)
    g = D.gradient(mu, u, D.adjoint(mu, D.quantities[0])) @ along
    rest = [
        abs(D.quantities[0] @ (D.solve(mu + e * along) - u) - e * g) for e in (0.1, 0.05, 0.025)
    ]
    rates = np.log2(np.divide(rest[:-1], rest[1:]))
    assert (rates > 1.9).all()


@pytest.mark.parametrize("direct", [False, True])
def test_taylor_and_adjoint_by_fields(direct):
    space = make_space(mesh("rectangle", 0.1), Equation(boundary=[{"on": "left"}]), 2)
    F = FieldOperator(space, Equation(boundary=[{"on": "left"}]), direct=direct, rtol=1e-13)
    x = space.points()
    a, da = 1 + x[0] * x[1], np.sin(5 * x[0]) + x[1]
    b = space.vector(ufl.TestFunction(space.V) * space.dx)
    F.set(a)
    u = F.solve(b)
    w = np.random.default_rng(0).normal(size=len(u))
    w[space.fixed] = 0
    lam = F.solve(w)
    du = F.solve(F.tangent(u, da))
    g = F.gradient(u, lam) @ da
    assert w @ du == pytest.approx(g, rel=1e-9)  # <w, du> = <dJ, da>
    rest = []
    for e in (0.01, 0.005, 0.0025):
        F.set(a + e * da)
        rest.append(abs(w @ (F.solve(b) - u) - e * g))
    assert (np.log2(np.divide(rest[:-1], rest[1:])) > 1.85).all()


def test_exponential_covariance_on_a_line():
    """lambda = 2 c/(w^2 + c^2), c = 1/length, (w^2 - c^2) tan w = 2 w c, on [0, 1]."""
    from scipy.optimize import brentq

    c = 1 / 0.3
    equation = Equation(
        diffusion={"type": "log-normal", "covariance": "exponential", "length": 0.3, "sigma": 1.0}
    )
    values, modes = expansion(make_space(mesh("interval", 0.005), equation), equation.diffusion)
    f = lambda w: (w**2 - c**2) * np.sin(w) - 2 * w * c * np.cos(w)  # noqa: E731
    grid = np.linspace(0.1, 30, 3001)
    roots = [brentq(f, p, q) for p, q in pairwise(grid) if f(p) * f(q) < 0]
    exact = np.array([2 * c / (w**2 + c**2) for w in roots[: len(values)]])
    np.testing.assert_allclose(values, exact, rtol=1e-3)
    # psi_k are orthonormal, up to the half cells at both ends
    np.testing.assert_allclose(0.005 * modes @ modes.T, np.diag(values), atol=6e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reaction": [{"value": "x - 2"}]}, "negative"),
        ({"boundary": [{"on": "left", "type": "neumann"}]}, "constant only"),
        ({"boundary": [{"on": "lid"}]}, "lid"),
        ({"source": [{"value": "1", "on": "nowhere"}]}, "nowhere"),
        ({"diffusion": {"type": "terms", "terms": [{"value": "log(x - 0.5)"}]}}, "not finite"),
    ],
)
def test_wrong_data(change, said):
    with pytest.raises(CaseError, match=said):
        discretise(mesh("rectangle", 0.3), Equation(**change))


def test_a_coefficient_that_is_not_positive_names_the_parameters():
    D = discretise(mesh("blocks", 0.3), Equation())
    with pytest.raises(CaseError, match=r"not positive.*-0\.5.*y2 = -0\.5"):
        D.solve([0.1, -0.5, 1, 1])
