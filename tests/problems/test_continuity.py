"""Continuity equation: tables of LeVeque's rotation, exact solutions with rates, invariants."""

import basix.ufl
import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dm
from dolfinx.fem import petsc as fem_petsc
from transport import BODIES, ROTATION, SELF, Outcome, mesh_of, orders, time, unit_box

from fem_apps.errors import CaseError
from fem_apps.fem.expressions import parse
from fem_apps.meshing import MeshData
from fem_apps.problems.continuity import DG, P1, Galerkin, Problem, Side, evolve, set_up
from fem_apps.problems.continuity_dg import DGSolver
from fem_apps.problems.continuity_velocity import (
    expressions,
    function,
    half_spaces,
    mean_field,
    network,
)

FIXED = {"default": Side(type="fixed")}


def rotation(n, scheme, boundary=None):
    data = mesh_of("structured_rectangle", h=1 / n)
    problem = Problem(ROTATION, boundary or {})
    done = Outcome(data, problem, BODIES, time(2 * np.pi, dt=0.128 / n), scheme)
    exact = parse(BODIES)
    return done, *done.errors(lambda x: exact.numpy(x, 0.0), True)


# L1 and L2 errors of the reference after one turn on 32 x 32 right-diagonal squares
TABLE = {
    "low order": (P1(method="low-order"), 0.1122, 0.2306, True),
    "fct": (P1(), 0.0490, 0.1413, True),
    "dg0": (DG(degree=0, limiter="none"), 0.1132, 0.2108, True),
    "dg1": (DG(degree=1, limiter="none"), 0.0376, 0.1078, False),
    "dg1 vertex": (DG(degree=1), 0.0507, 0.1347, True),
}


@pytest.mark.parametrize("name", TABLE)
def test_rotation_table(name):
    scheme, l1, l2, bounded = TABLE[name]
    done, e1, e2 = rotation(32, scheme, FIXED)
    assert abs(e1 / l1 - 1) < 0.01
    assert abs(e2 / l2 - 1) < 0.01
    assert done.defect < 1e-12
    if bounded:
        assert done.low >= -1e-15
        assert done.high <= 1 + 1e-13
    else:
        assert done.low < -0.01


@pytest.mark.slow
@pytest.mark.parametrize(("supg", "l1", "l2"), [(True, 0.0503, 0.1262), (False, 0.0919, 0.1506)])
def test_rotation_galerkin(supg, l1, l2):
    _, e1, e2 = rotation(32, Galerkin(type="galerkin", supg=supg), FIXED)
    assert e1 < 1.05 * l1
    assert e2 < 1.05 * l2


@pytest.mark.parametrize(
    ("scheme", "l1", "l2"),
    [
        (P1(), 0.0526, 0.1387),
        (DG(degree=0, limiter="none"), 0.1009, 0.1887),
        (DG(degree=1), 0.0547, 0.1382),
    ],
)
def test_swirl_table(scheme, l1, l2):
    """Deformed and back; v.n = 0 on the boundary, so mass is exact."""
    n = 32
    v = expressions(
        ["sin(pi*x)**2*sin(2*pi*y)", "-sin(pi*y)**2*sin(2*pi*x)"], amplitude="cos(pi*t/1.5)"
    )
    data = mesh_of("structured_rectangle", h=1 / n)
    done = Outcome(data, Problem(v, FIXED), BODIES, time(1.5, dt=0.064 / n), scheme)
    exact = parse(BODIES)
    e1, e2 = done.errors(lambda x: exact.numpy(x, 0.0), True)
    assert abs(e1 / l1 - 1) < 0.02
    assert abs(e2 / l2 - 1) < 0.02
    assert done.drift < (1e-12 if isinstance(scheme, DG) else 3e-4)
    assert done.defect < 1e-12
    assert done.low >= -1e-15


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_orders_on_the_torus(degree):
    """A sine carried round a periodic square: L2 order k + 1, mass to rounding."""
    errors = []
    for h in (0.2, 0.1):
        data = mesh_of("torus_square", h=h)
        scheme = DG(degree=degree, limiter="none")
        f = "2 + sin(2*pi*x)*cos(2*pi*y)"
        done = Outcome(data, Problem(["1", "0.5"]), f, time(0.5, cfl=0.5), scheme)
        exact = parse("2 + sin(2*pi*(x-.5))*cos(2*pi*(y-.25))")
        errors.append(done.errors(lambda x, e=exact: e.numpy(x, 0.0))[1])
        assert done.drift < 1e-12
        assert done.outflow == 0.0
    assert orders(errors)[0] > degree + (0.5 if degree == 0 else 0.8)


@pytest.mark.parametrize("scheme", [DG(degree=1), P1()])
def test_limited_order_on_smooth_data(scheme):
    """Limited, with extrema: more than first order in L1 is seen."""
    errors = []
    for h in (0.1, 0.05):
        data = mesh_of("torus_square", h=h)
        f = "2 + sin(2*pi*x)*cos(2*pi*y)"
        done = Outcome(data, Problem(["1", "0.5"]), f, time(0.5, cfl=0.4), scheme)
        exact = parse("2 + sin(2*pi*(x-.5))*cos(2*pi*(y-.25))")
        errors.append(done.errors(lambda x, e=exact: e.numpy(x, 0.0))[0])
        assert done.drift < 1e-12
    assert orders(errors)[0] > 1.5


# mesh, velocity, a divergence-free field
FREE_STREAM = {
    "interval": (lambda: mesh_of("interval", h=0.1), ["1"]),
    "gmsh": (lambda: mesh_of("disc", h=0.3), ["-y", "x"]),
    "quadrilaterals": (lambda: skewed(dm.CellType.quadrilateral), ["1 + y", "x"]),
    "tetrahedra": (lambda: unit_box(3, 3), ["y", "z", "x"]),
    "hexahedra": (lambda: unit_box(3, 3, dm.CellType.hexahedron), ["y", "z", "x"]),
}


def skewed(cell):
    data = unit_box(2, 6, cell)
    x = data.mesh.geometry.x
    x[:, 0] += 0.1 * np.sin(3 * x[:, 1]) * x[:, 0]
    return data


@pytest.mark.parametrize("name", FREE_STREAM)
def test_constants_stay(name):
    """div v = 0 and the same constant outside: nothing changes, on any cells."""
    make, v = FREE_STREAM[name]
    side = {"default": Side(density="3")}
    scheme = DG(degree=1, limiter="none", quadrature=2)
    done = Outcome(make(), Problem(v, side), "3", time(0.05), scheme)
    assert abs(done.low - 3) < 1e-12
    assert abs(done.high - 3) < 1e-12
    assert done.defect < 1e-13


def test_sphere():
    """A rigid rotation of the sphere by a full turn; mass to rounding; DG1 limited, P1."""
    data = mesh_of("sphere", h=0.2)
    v = ["-y", "x", "0"]
    exact = parse("exp(-4*((x-.6)**2 + y**2 + (z-.8)**2))")
    for scheme, most in ((DG(degree=1), 0.2), (P1(), 0.25)):
        done = Outcome(data, Problem(v), exact.text, time(2 * np.pi, cfl=0.5), scheme)
        e1, _ = done.errors(lambda x: exact.numpy(x, 0.0))
        assert done.drift < 1e-12
        assert done.low >= 0
        assert e1 < most * done.mass0


def test_walls():
    """Nothing passes a wall, whatever v is; the density piles up there."""
    data = mesh_of("rectangle", h=0.2)
    sides = {"default": Side(type="wall")}
    for scheme in (DG(degree=0), DG(degree=1), P1()):
        done = Outcome(data, Problem(["1", "0"], sides), "1", time(0.3), scheme)
        assert done.drift < 1e-12
        assert done.low >= 0
        assert done.high > 2


def test_mixed_sides():
    """Inflow on the left, walls elsewhere on P1: what has come in is what was let in."""
    data = mesh_of("rectangle", h=0.2)
    sides = {"left": Side(density="2"), "default": Side(type="wall")}
    for scheme in (DG(degree=1), P1()):
        done = Outcome(data, Problem(["1", "0"], sides), "1", time(0.2), scheme)
        assert done.defect < 1e-12
        assert done.outflow < -0.3


def test_velocities_agree():
    """One field as expressions, Function, callable of rho, network: the same solution."""
    import jax.numpy as jnp

    data = mesh_of("rectangle", h=0.2)
    u = fem.Function(fem.functionspace(data.mesh, ("Lagrange", 1, (2,))))
    u.interpolate(lambda x: np.stack([0.5 - x[1], x[0] - 0.5]))
    fields = [
        expressions(ROTATION),
        function(u),
        mean_field(lambda x, t, rho: np.stack([0.5 - x[:, 1], x[:, 0] - 0.5], axis=1)),
        network(lambda x, t: jnp.array([0.5 - x[1], x[0] - 0.5])),
    ]
    ends = [
        Outcome(data, Problem(v), "exp(-20*(x-.5)**2 - 20*(y-.7)**2)", time(0.3, dt=0.01)).step.rho
        for v in fields
    ]
    for other in ends[1:]:
        assert np.abs(other - ends[0]).max() < 1e-12


@pytest.mark.parametrize("scheme", [DG(degree=1), P1()])
def test_velocity_of_the_density(scheme):
    """v = mean - x: every point moves to the mean as exp(-t), and so does the spread."""
    data = mesh_of("interval", a=-4, b=4, h=0.05)

    def v(x, t, rho):
        y, mass = rho.everywhere
        return mass @ y / mass.sum() - x

    s, c, end = 0.6, 0.3, 0.5
    done = Outcome(data, Problem(v), f"exp(-(x-{c})**2/(2*{s}**2))", time(end, cfl=0.4), scheme)
    shrunk = s * np.exp(-end)
    e1, _ = done.errors(lambda x: np.exp(end) * np.exp(-((x[0] - c) ** 2) / (2 * shrunk**2)))
    assert e1 < 0.02 * done.mass0
    assert done.defect < 1e-12


# L1 errors of the reference: rho_0 = N(0,1) on (-8, 16), v = (x - x_h)_+, T = ln 2
STRETCH = {(0, True): (6.20e-2, 3.13e-2), (1, True): (1.43e-3, 3.45e-4)}
STRETCH |= {(0, False): (8.35e-2, 4.39e-2), (1, False): (1.36e-2, 6.55e-3)}


@pytest.mark.parametrize(("degree", "aligned"), STRETCH)
def test_half_space(degree, aligned):
    """A jump made on a node: order k + 1; inside a cell: order 1."""
    errors = []
    for n in (96, 192):
        h = 24 / n
        xh = 0.0 if aligned else 0.5 * h
        data = mesh_of("interval", a=-8, b=16, h=h)
        v = half_spaces([[1.0]], [[1.0]], [-xh], [np.log(2)])
        scheme = DG(degree=degree, limiter="none")
        done = Outcome(
            data,
            Problem(v),
            lambda x: np.exp(-(x[0] ** 2) / 2) / np.sqrt(2 * np.pi),
            time(np.log(2), dt=0.1 * h / 16),
            scheme,
        )

        def exact(x, xh=xh):
            y = np.where(x[0] > xh, xh + (x[0] - xh) / 2, x[0])
            return np.exp(-(y**2) / 2) / np.sqrt(2 * np.pi) / np.where(x[0] > xh, 2, 1)

        errors.append(done.errors(exact, True)[0])
    for e, wanted in zip(errors, STRETCH[degree, aligned], strict=True):
        assert abs(e / wanted - 1) < 0.1
    assert orders(errors)[0] > (degree + 1 if aligned else 1) - 0.15


ASSEMBLED = {
    "interval": (lambda: mesh_of("interval", h=0.2), 2),
    "triangles, degree 0": (lambda: unit_box(2, 5), 0),
    "triangles": (lambda: unit_box(2, 5), 1),
    "gmsh triangles": (lambda: mesh_of("disc", h=0.4), 3),
    "quadrilaterals, degree 0": (lambda: skewed(dm.CellType.quadrilateral), 0),
    "quadrilaterals": (lambda: skewed(dm.CellType.quadrilateral), 2),
    "tetrahedra": (lambda: unit_box(3, 3), 1),
    "tetrahedra, degree 3": (lambda: unit_box(3, 2), 3),
    "hexahedra": (lambda: unit_box(3, 2, dm.CellType.hexahedron), 1),
}


@pytest.mark.parametrize("name", ASSEMBLED)
@pytest.mark.parametrize("factor", [1.0, -0.7])
def test_equals_assembled_form(name, factor):
    """A stage a u0 + b (u + dt L(u)) against DOLFINx's own assembly of the weak form."""
    make, k = ASSEMBLED[name]
    data = make()
    dim = data.mesh.geometry.dim
    field = ["0.5 - y + x", "x + 0.2*z", "0.3 - x"][:dim] if dim > 1 else ["1 + x"]
    field = [c if dim > 2 else c.replace(" + 0.2*z", "") for c in field]
    v = expressions(field, amplitude=f"{factor} + 0*t")
    solver = DGSolver(data, v, {}, DG(degree=k, limiter="none"))
    u = fem.Function(solver.V)
    u.interpolate(lambda x: 1 + x[0] * x[1] + np.sin(3 * x[0]))
    phi, n = ufl.TestFunction(solver.V), ufl.FacetNormal(data.mesh)
    x = ufl.SpatialCoordinate(data.mesh)
    components = [1 + x[0]]
    if dim > 1:
        z = x[2] if dim > 2 else 0.0
        components = [0.5 - x[1] + x[0], x[0] + 0.2 * z, 0.3 - x[0]][:dim]
    w = ufl.as_vector([factor * c for c in components])
    un = (ufl.dot(w, n) + abs(ufl.dot(w, n))) / 2
    dS, ds = (m(degree=2 * k + 1) for m in (ufl.dS, ufl.ds))
    L = -(phi("+") - phi("-")) * (un("+") * u("+") - un("-") * u("-")) * dS - phi * un * u * ds
    if k:
        L += ufl.inner(u * w, ufl.grad(phi)) * ufl.dx(degree=2 * k)
    b = fem_petsc.assemble_vector(fem.form(L)).array
    now, before = solver.from_function(u), np.cos(solver.from_function(u))
    out = np.empty_like(now)
    solver.stage(0.0, now, before, 0.75, 0.25, 0.1, out)
    M = fem_petsc.assemble_matrix(
        fem.form(ufl.TrialFunction(solver.V) * phi * ufl.dx(degree=max(2 * k, 2)))
    )
    M.assemble()
    rate, product = M.createVecRight(), M.createVecLeft()
    change = (out - 0.75 * before - 0.25 * now) / 0.025
    rate.array_w[solver.cells.dofs.ravel()] = change.ravel()
    M.mult(rate, product)
    assert np.abs(product.array - b).max() < 1e-13


def test_orders_in_space():
    """Degree 1 on tetrahedra of a periodic box: L2 order 2, mass to rounding."""
    errors = []
    for h in (0.25, 0.125):
        data = mesh_of("torus_box", h=h)
        f, moved = (f"2 + sin(2*pi*(x-{s}))*cos(2*pi*(z-{s}))" for s in (0.0, 0.1))
        scheme = DG(degree=1, limiter="none")
        done = Outcome(data, Problem(["1", "0.5", "1"]), f, time(0.1, cfl=0.5), scheme)
        exact = parse(moved)
        errors.append(done.errors(lambda x, e=exact: e.numpy(x, 0.0))[1])
        assert done.drift < 1e-12
    assert orders(errors)[0] > 1.7


def test_branching_mesh_is_refused():
    """Three triangles on one edge have no two sides."""
    x = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]], dtype=float)
    cells = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    e = ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(3,)))
    try:
        mesh = dm.create_mesh(SELF, cells=cells, x=x, e=e)
    except RuntimeError:
        return  # DOLFINx refuses it itself
    with pytest.raises(CaseError, match="branches"):
        set_up(MeshData(mesh, None, None, {}), Problem(["1", "0", "0"]))


def test_steps_land_on_outputs_and_switches():
    data = mesh_of("interval", h=0.1)
    v = half_spaces([[1.0], [-1.0]], [[0.0], [0.0]], [1.0, 1.0], [0.13, 0.2])
    times = [s.t for s in evolve(data, Problem(v), "1", time(0.33), outputs=[0.2])]
    for t in (0.13, 0.2, 0.33):
        assert min(abs(t - s) for s in times) < 1e-15
