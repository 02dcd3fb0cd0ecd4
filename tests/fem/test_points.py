"""Point evaluation on curves, plane domains, surfaces and volumes."""

import basix.ufl
import numpy as np
import pytest
import ufl
from dolfinx import default_scalar_type, fem, mesh
from mpi4py import MPI
from petsc4py import PETSc

from fem_apps.errors import CaseError
from fem_apps.fem.integrals import integrate, interpolate
from fem_apps.fem.points import PointEvaluator

RNG = np.random.default_rng(1)


def sphere(degree=1, refinements=2):
    """An octahedron refined onto the unit sphere; the nodes of curved cells lie on it too."""
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    faces = [[a, b, c] for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    for _ in range(refinements):
        corners, faces = _split(corners, np.array(faces))
    x, cells = corners, np.array(faces)
    if degree == 2:
        x, fine = _split(corners, cells)
        fine = fine.reshape(4, len(cells), 3)  # corners a, b, c and the middle triangle bc, ca, ab
        cells = np.column_stack([cells, fine[3]])
    element = basix.ufl.element("Lagrange", "triangle", degree, shape=(3,))
    return mesh.create_mesh(MPI.COMM_SELF, cells=cells.astype(np.int64), x=x, e=element)


def _split(x, cells):
    edges = np.sort(np.concatenate([cells[:, [1, 2]], cells[:, [2, 0]], cells[:, [0, 1]]]), axis=1)
    edges, index = np.unique(edges, axis=0, return_inverse=True)
    middle = x[edges].mean(axis=1)
    middle /= np.linalg.norm(middle, axis=1)[:, None]
    bc, ca, ab = len(x) + index.reshape(3, -1)
    a, b, c = cells.T
    fine = np.concatenate(
        [np.column_stack(t) for t in ([a, ab, ca], [ab, b, bc], [ca, bc, c], [bc, ca, ab])]
    )
    return np.vstack([x, middle]), fine


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("family", ["Lagrange", "DG"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: mesh.create_unit_interval(MPI.COMM_SELF, 9),
        lambda: mesh.create_unit_square(MPI.COMM_SELF, 5, 4),
        lambda: mesh.create_unit_square(MPI.COMM_SELF, 5, 4, mesh.CellType.quadrilateral),
        lambda: mesh.create_unit_cube(MPI.COMM_SELF, 3, 2, 2),
        lambda: mesh.create_unit_cube(MPI.COMM_SELF, 2, 2, 2, mesh.CellType.hexahedron),
    ],
    ids=["interval", "triangle", "quadrilateral", "tetrahedron", "hexahedron"],
)
def test_polynomials_are_exact(make, family, degree):
    msh = make()
    gdim = msh.geometry.dim

    def f(x):
        return sum((i + 1) * x[i] ** degree for i in range(gdim)) + x[0]

    u = interpolate(fem.functionspace(msh, (family, degree)), f)
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * gdim)).reshape(gdim, -1).T
    points = np.vstack([RNG.random((40, gdim)), corners])
    at = PointEvaluator(msh, points, missing="error")
    assert np.allclose(at(u), f(points.T), atol=1e-12)
    assert np.allclose((at.matrix(u.function_space) @ u.x.petsc_vec).array, at(u), atol=1e-13)


def test_vectors_and_deposits():
    msh = mesh.create_unit_square(MPI.COMM_SELF, 6, 6)
    V = fem.functionspace(msh, ("Lagrange", 2, (2,)))
    u = interpolate(V, lambda x: np.stack([x[0] * x[1], x[1] ** 2]))
    points = RNG.random((30, 2))
    at = PointEvaluator(msh, points)
    E = at.matrix(V)
    exact = np.column_stack([points[:, 0] * points[:, 1], points[:, 1] ** 2])
    assert np.allclose(at(u), exact, atol=1e-12)
    assert np.allclose((E @ u.x.petsc_vec).array.reshape(-1, 2), exact, atol=1e-12)
    load = E.createVecRight()
    ones = E.createVecLeft()
    ones.set(1.0)
    E.multTranspose(ones, load)
    assert np.isclose(load.sum(), 60.0)  # a partition of unity deposits every point's mass
    assert E.getType() in (PETSc.Mat.Type.SEQAIJ, PETSc.Mat.Type.MPIAIJ)


def test_points_outside():
    msh = mesh.create_unit_square(MPI.COMM_SELF, 6, 6)
    u = interpolate(fem.functionspace(msh, ("Lagrange", 1)), lambda x: x[0])
    points = np.array([[0.5, 0.5], [1.2, 0.5], [0.25, 1 + 1e-12], [0.5, 1.01]])
    at = PointEvaluator(msh, points)
    assert at.found.tolist() == [True, False, True, False]
    assert np.isnan(at(u)).tolist() == [False, True, False, True]
    with pytest.raises(CaseError, match=r"2 of 4 points .* number 1, at \(1.2, 0.5\)"):
        PointEvaluator(msh, points, missing="error")
    near = PointEvaluator(msh, points, tolerance=0.02)
    assert near.found.tolist() == [True, False, True, True]
    assert np.isclose(near(u)[3], 0.5)
    assert np.isclose(near.distance[3], 0.01)
    with pytest.raises(CaseError, match="give shape"):
        PointEvaluator(msh, np.zeros((3, 3)))
    assert PointEvaluator(msh, np.zeros((0, 2)))(u).shape == (0,)


def test_small_and_large_meshes():
    for size in (1e-7, 1e6):
        msh = mesh.create_rectangle(MPI.COMM_SELF, [[0, 0], [size, size]], [5, 5])
        u = interpolate(fem.functionspace(msh, ("Lagrange", 1)), lambda x, s=size: x[0] / s)
        at = PointEvaluator(msh, size * np.array([[0.3, 0.7], [1.5, 0.5], [1 + 1e-3, 0.5]]))
        assert at.found.tolist() == [True, False, False]
        assert np.isclose(at(u)[0], 0.3)


def test_other_elements():
    msh = mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    V = fem.functionspace(msh, ("N1curl", 1))
    u = interpolate(V, lambda x: np.stack([1 - x[1], x[0]]))
    at = PointEvaluator(msh, [[0.3, 0.4], [2.0, 0.0]])
    assert np.allclose(at(u)[0], [0.6, 0.3])
    assert np.isnan(at(u)[1]).all()
    with pytest.raises(ValueError, match="not a Lagrange space"):
        at.matrix(V)


def test_curved_triangles_of_a_disc():
    """A point between the chord and the arc is in the curved cell, one beyond the arc is not."""
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    rim = np.column_stack([np.cos(angles), np.sin(angles)])
    x = np.vstack([[[0, 0]], rim, rim[::2] / 2])
    a = 1 + np.arange(0, 16, 2)
    b = 1 + (np.arange(0, 16, 2) + 2) % 16
    half = 17 + np.arange(8)
    cells = np.column_stack([np.zeros(8, int), a, b, a + 1, np.roll(half, -1), half])
    element = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))
    msh = mesh.create_mesh(MPI.COMM_SELF, cells=cells.astype(np.int64), x=x, e=element)
    u = interpolate(fem.functionspace(msh, ("Lagrange", 2)), lambda x: x[0])
    r = np.array([[0.99 * np.cos(np.pi / 8), 0.99 * np.sin(np.pi / 8)], [1.01, 0.0]])
    at = PointEvaluator(msh, r)
    assert at.found.tolist() == [True, False]
    assert np.isclose(at(u)[0], r[0, 0], atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2])
def test_sphere_takes_points_of_the_true_surface(degree):
    errors = []
    for refinements in (2, 3):
        msh = sphere(degree, refinements)
        u = interpolate(fem.functionspace(msh, ("Lagrange", degree)), lambda x: x[0] * x[2])
        points = RNG.standard_normal((200, 3))
        points /= np.linalg.norm(points, axis=1)[:, None]
        at = PointEvaluator(msh, points, missing="error")
        errors.append(np.abs(at(u) - points[:, 0] * points[:, 2]).max())
        assert at.distance.max() < (0.06 if degree == 1 else 0.005)
    assert errors[1] < errors[0] / 2.5
    assert not PointEvaluator(msh, [[0.0, 0.0, 0.1]]).found[0]


def test_curve_in_the_plane():
    angles = np.linspace(0, 2 * np.pi, 41)[:-1]
    x = np.column_stack([np.cos(angles), np.sin(angles)])
    cells = np.column_stack([np.arange(40), (np.arange(40) + 1) % 40])
    element = basix.ufl.element("Lagrange", "interval", 1, shape=(2,))
    msh = mesh.create_mesh(MPI.COMM_SELF, cells=cells.astype(np.int64), x=x, e=element)
    u = interpolate(fem.functionspace(msh, ("Lagrange", 1)), lambda x: np.arctan2(x[1], x[0]))
    theta = np.array([0.1, 1.0, 2.5])
    at = PointEvaluator(msh, np.column_stack([np.cos(theta), np.sin(theta)]), missing="error")
    assert np.allclose(at(u), theta, atol=2e-3)


def test_point_masses_integrate_to_their_number():
    """Depositing by E^T and testing with 1 counts each point once, on facets too."""
    msh = mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    V = fem.functionspace(msh, ("Lagrange", 1))
    grid = np.array(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))).reshape(2, -1).T
    at = PointEvaluator(msh, grid)
    one = interpolate(V, 1.0)
    assert np.isclose(at(one).sum(), 81)
    assert np.isclose(integrate(one * ufl.dx), 1.0)
    assert at(one).dtype == default_scalar_type
