"""Integrals, norms and interpolation against values known by hand."""

import basix.ufl
import numpy as np
import pytest
import ufl
from dolfinx import default_scalar_type, fem, mesh
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.expressions import parse
from fem_apps.fem.integrals import error_norm, integrate, interpolate, norm, owned


def square(n=8):
    return mesh.create_unit_square(MPI.COMM_SELF, n, n)


def test_integral_of_ufl_and_of_a_compiled_form():
    msh = square()
    x = ufl.SpatialCoordinate(msh)
    form = x[0] * x[1] ** 2 * ufl.dx
    assert np.isclose(integrate(form), 1 / 6, rtol=1e-14)
    assert integrate(fem.form(form, dtype=default_scalar_type)) == integrate(form)


@pytest.mark.parametrize(
    ("kind", "exact"),
    [
        ("L1", 1 / 2),
        ("L2", 1 / np.sqrt(3)),
        ("H1-seminorm", 1.0),
        ("H1", np.sqrt(4 / 3)),
        ("max", 1.0),
    ],
)
def test_norms_of_x(kind, exact):
    u = interpolate(fem.functionspace(square(), ("Lagrange", 1)), lambda x: -x[0])
    assert np.isclose(norm(u, kind), exact, rtol=1e-12)


def test_norm_of_a_vector():
    u = interpolate(fem.functionspace(square(), ("Lagrange", 1, (2,))), [3.0, parse("4")])
    assert np.isclose(norm(u, "L1"), 5.0)
    assert np.isclose(norm(u), 5.0)
    with pytest.raises(ValueError, match="unknown norm"):
        norm(u, "L3")


@pytest.mark.parametrize(("kind", "order"), [("L2", 3), ("H1", 2), ("L1", 3)])
def test_error_norm_shows_the_order_of_interpolation(kind, order):
    exact = parse("sin(3*x)*exp(y)")
    errors = []
    for n in (8, 16):
        V = fem.functionspace(square(n), ("Lagrange", 2))
        errors.append(error_norm(interpolate(V, exact), exact, kind))
    assert np.isclose(np.log2(errors[0] / errors[1]), order, atol=0.1)


def test_error_of_what_is_known_in_closed_form():
    """|x^2 - I_1 x^2| = h^2 / sqrt(120) in L2 for linear interpolation on intervals."""
    msh = mesh.create_unit_interval(MPI.COMM_SELF, 10)
    V = fem.functionspace(msh, ("Lagrange", 1))
    uh = interpolate(V, lambda x: x[0] ** 2)
    x = ufl.SpatialCoordinate(msh)
    for exact in (
        parse("x**2"),
        lambda x: x[0] ** 2,
        x[0] ** 2,
        interpolate(fem.functionspace(msh, ("DG", 2)), parse("x**2")),
    ):
        assert np.isclose(error_norm(uh, exact), 0.01 / np.sqrt(30), rtol=1e-10)
    assert error_norm(interpolate(V, lambda x: 1 + 2 * x[0]), parse("1 + 2*x")) < 1e-14


def test_owned_is_a_view():
    u = fem.Function(fem.functionspace(square(2), ("Lagrange", 1, (2,))))
    owned(u)[:] = 1.0
    assert u.x.array.min() == 1.0
    assert owned(u).size == 18


def test_sources():
    V = fem.functionspace(square(), ("Lagrange", 2))
    x = ufl.SpatialCoordinate(V.mesh)
    by = [
        interpolate(V, lambda x: 2 * x[0] + 1),
        interpolate(V, parse("a*x + t", ("x", "a", "t")), t=1.0, parameters={"a": 2.0}),
        interpolate(V, 2 * x[0] + 1),
        interpolate(
            V, interpolate(fem.functionspace(V.mesh, ("Lagrange", 1)), lambda x: 2 * x[0] + 1)
        ),
    ]
    for u in by[1:]:
        assert np.allclose(u.x.array, by[0].x.array, atol=1e-13)
    assert np.allclose(interpolate(V, 3).x.array, 3.0)
    assert np.allclose(interpolate(V, ufl.as_ufl(0.5)).x.array, 0.5)
    assert interpolate(by[0], 2.0) is by[0]
    assert np.allclose(by[0].x.array, 2.0)


def test_sources_of_vectors():
    V = fem.functionspace(square(3), ("Lagrange", 1, (2,)))
    u = interpolate(V, [parse("x"), -1])
    x = V.tabulate_dof_coordinates()
    assert np.allclose(u.x.array.reshape(-1, 2), np.column_stack([x[:, 0], -np.ones(len(x))]))
    assert np.allclose(interpolate(V, 7.0).x.array, 7.0)
    with pytest.raises(CaseError, match="3 components"):
        interpolate(V, [1, 2, 3])


def test_expression_that_is_not_finite_names_the_place():
    msh = mesh.create_rectangle(MPI.COMM_SELF, [[1, 1], [2, 2]], [2, 2])
    with pytest.raises(CaseError, match=r"'log\(x - 1.25\)' is not finite at \(1, 1\), t = 0"):
        interpolate(fem.functionspace(msh, ("Lagrange", 1)), parse("log(x - 1.25)"))


def disc(n):
    """Triangles from the centre to a regular polygon."""
    angles = 2 * np.pi * np.arange(n) / n
    x = np.vstack([[[0, 0]], np.column_stack([np.cos(angles), np.sin(angles)])])
    cells = np.column_stack([np.zeros(n, int), 1 + np.arange(n), 1 + (np.arange(n) + 1) % n])
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    return mesh.create_mesh(MPI.COMM_SELF, cells=cells.astype(np.int64), x=x, e=element)


def test_from_another_mesh():
    """Between two polygons of one circle the gaps at the rim are filled, exactly if linear."""
    coarse = interpolate(
        fem.functionspace(disc(12), ("Lagrange", 1)), lambda x: 1 + x[0] - 3 * x[1]
    )
    V = fem.functionspace(disc(41), ("Lagrange", 2))
    exact = interpolate(V, lambda x: 1 + x[0] - 3 * x[1])
    assert np.allclose(interpolate(V, coarse).x.array, exact.x.array, atol=1e-12)


def test_from_a_mesh_that_does_not_cover():
    small = mesh.create_rectangle(MPI.COMM_SELF, [[0, 0], [0.5, 1]], [8, 8])
    u = interpolate(fem.functionspace(small, ("Lagrange", 1)), 1.0)
    with pytest.raises(CaseError, match="outside the mesh of"):
        interpolate(fem.functionspace(square(), ("Lagrange", 1)), u)
