"""Integrals and point values on any number of ranks equal those on one."""

import numpy as np
import pytest
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.cells import input_cells
from fem_apps.fem.expressions import parse
from fem_apps.fem.integrals import error_norm, integrate, interpolate, norm, owned
from fem_apps.fem.points import PointEvaluator
from fem_apps.mpi import total

COMM = MPI.COMM_WORLD
GRID = np.array(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))).reshape(2, -1).T


def square(comm):
    return mesh.create_unit_square(comm, 8, 8, ghost_mode=mesh.GhostMode.shared_facet)


def by_cell(msh):
    """A function that jumps over every facet: the number of the cell in the input."""
    u = fem.Function(fem.functionspace(msh, ("DG", 0)))
    u.x.array[u.function_space.dofmap.list[:, 0]] = input_cells(msh)
    return u


def test_shared_facets_take_the_same_cell_on_any_number_of_ranks():
    points = np.vstack([GRID, np.random.default_rng(0).random((50, 2))])
    alone = square(MPI.COMM_SELF)
    expected = PointEvaluator(alone, points)(by_cell(alone))
    msh = square(COMM)
    assert np.array_equal(PointEvaluator(msh, points)(by_cell(msh)), expected)


def test_values_mask_and_error_on_every_rank():
    msh = square(COMM)
    u = interpolate(
        fem.functionspace(msh, ("Lagrange", 2, (2,))), lambda x: np.stack([x[0] * x[1], x[0] ** 2])
    )
    points = np.vstack([GRID, [[1.5, 0.0]]])
    at = PointEvaluator(msh, points)
    values = at(u)
    exact = np.column_stack([points[:, 0] * points[:, 1], points[:, 0] ** 2])
    assert np.allclose(values[:-1], exact[:-1], atol=1e-12)
    assert np.isnan(values[-1]).all()
    assert not at.found[-1]
    with pytest.raises(CaseError, match="number 81"):
        PointEvaluator(msh, points, missing="error")


@pytest.mark.parametrize("shape", [(), (2,)])
def test_matrix(shape):
    msh = square(COMM)
    V = fem.functionspace(msh, ("Lagrange", 2, shape))
    u = interpolate(
        V, (lambda x: np.stack([x[0] * x[1], x[0]])) if shape else (lambda x: x[0] * x[1])
    )
    points = np.vstack([GRID, [[1.5, 0.0]], GRID[::-1]])
    at = PointEvaluator(msh, points)
    E = at.matrix(V)
    values = E @ u.x.petsc_vec
    first, last = E.getOwnershipRange()
    expected = at(u).reshape(-1)
    expected[np.isnan(expected)] = 0.0
    assert np.allclose(values.array, expected[first:last], atol=1e-13)
    ones, load = E.createVecLeft(), E.createVecRight()
    ones.set(1.0)
    E.multTranspose(ones, load)
    assert np.isclose(load.sum(), 2 * 81 * (2 if shape else 1))
    assert load.getLocalSize() == owned(u).size
    # <E^T f, u> = f . E u
    assert np.isclose(load.dot(u.x.petsc_vec), values.sum())


def test_more_ranks_than_cells_near_the_points():
    msh = mesh.create_unit_interval(COMM, max(3, COMM.size))
    u = interpolate(fem.functionspace(msh, ("Lagrange", 1)), lambda x: x[0])
    assert np.allclose(PointEvaluator(msh, np.array([0.0, 1 / 3, 0.99]))(u), [0.0, 1 / 3, 0.99])


def test_integrals_and_norms():
    exact = parse("sin(3*x)*exp(y)")
    results = []
    for msh in (square(MPI.COMM_SELF), square(COMM)):
        uh = interpolate(fem.functionspace(msh, ("Lagrange", 1)), exact)
        results.append(
            [
                integrate(uh**2 * ufl.dx),
                *(norm(uh, kind) for kind in ("L1", "L2", "H1", "max")),
                error_norm(uh, exact),
                total(msh.comm, owned(uh).size),
            ]
        )
    assert np.allclose(results[0], results[1], rtol=1e-11)


def test_interpolation_from_another_mesh():
    other = mesh.create_unit_square(COMM, 5, 7)
    u = interpolate(fem.functionspace(other, ("Lagrange", 2)), lambda x: x[0] * x[1])
    V = fem.functionspace(square(COMM), ("Lagrange", 2))
    assert np.allclose(
        interpolate(V, u).x.array, interpolate(V, lambda x: x[0] * x[1]).x.array, atol=1e-12
    )
    half = mesh.create_rectangle(COMM, [[0, 0], [0.5, 1]], [6, 6], cell_type=mesh.CellType.triangle)
    with pytest.raises(CaseError, match="outside the mesh of"):
        interpolate(V, interpolate(fem.functionspace(half, ("Lagrange", 1)), 1.0))


def test_an_expression_that_fails_on_one_rank_fails_on_all():
    V = fem.functionspace(square(COMM), ("Lagrange", 1))
    with pytest.raises(CaseError, match="is not finite at"):
        interpolate(V, parse("sqrt(x + y - 0.1)"))
