"""Impedance tomography: exact voltages, analytic eigenvalues of a disc, adjoints."""

import numpy as np
import pytest
import scipy.sparse as sp
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI
from scipy.linalg import eigh, null_space

from fem_apps.inverse.operators_eit import disc_impedance, electrode_model, mean_free
from fem_apps.inverse.operators_fem import Stiffness, boundary_nodes
from fem_apps.inverse.operators_source import sparse
from fem_apps.meshing import MeshCase, build


def bar(z1=0.01, z2=0.05, current=0.3):
    """L = 2, H = 1, electrodes on the whole ends."""
    domain = mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [2.0, 1.0]], [8, 4])
    V = fem.functionspace(domain, ("Lagrange", 1))
    ends = [
        mesh.locate_entities_boundary(domain, 1, lambda x, a=a: np.isclose(x[0], a))
        for a in (0.0, 2.0)
    ]
    cells = domain.topology.index_map(2).size_local
    P = sp.csr_matrix(np.ones((cells, 1)))
    return electrode_model(V, ends, [z1, z2], P, current * np.array([[1.0, -1.0]]))


def test_bar_is_exact():
    m = np.array([np.log(1.5)])
    at = bar().at(m)
    U = at.data
    assert abs(U[0] - U[1] - 0.418) < 1e-12
    assert abs(U.sum()) < 1e-14
    # d/dsigma = -.2666..., and d/dm = sigma d/dsigma
    d = at.jvp(np.ones(1))
    assert abs((d[0] - d[1]) / 1.5 + 0.266666667) < 1e-9


@pytest.fixture(scope="module")
def disc():
    return disc_impedance(MPI.COMM_SELF, electrodes=8, contact=0.02, h=0.15, pixels=6)


def test_adjoint_hessian_and_taylor(disc):
    model, inside = disc
    n = len(inside)
    rng = np.random.default_rng(0)
    m, h, k = 0.3 * rng.normal(size=(3, n))
    at = model.at(m)
    w = rng.normal(size=len(at.data))
    a, b = at.jvp(h) @ w, h @ at.vjp(w)
    assert abs(a - b) < 1e-12 * max(abs(a), np.linalg.norm(at.jvp(h)) * np.linalg.norm(w))
    J = at.jacobian()
    np.testing.assert_allclose(J @ h, at.jvp(h), rtol=0, atol=1e-12 * np.abs(J @ h).max())
    np.testing.assert_allclose(J.T @ w, at.vjp(w), rtol=0, atol=1e-12 * np.abs(J.T @ w).max())
    y, weight = np.zeros(len(w)), 4.0

    def misfit(m):
        return weight * 0.5 * ((model.at(m).data - y) ** 2).sum()

    r = weight * (at.data - y)
    g, Hh = at.vjp(r), at.hessian(h, r, weight)
    eps = np.array([4e-2, 2e-2, 1e-2])
    second = np.array([misfit(m + e * h) - misfit(m) - e * (g @ h) for e in eps])
    third = second - eps**2 / 2 * (h @ Hh)
    np.testing.assert_allclose(np.log2(np.abs(second[:-1] / second[1:])), 2, atol=0.05)
    np.testing.assert_allclose(np.log2(np.abs(third[:-1] / third[1:])), 3, atol=0.1)
    assert abs(k @ Hh - h @ at.hessian(k, r, weight)) < 1e-10 * np.abs(Hh).sum()


def test_reciprocity_and_sum(disc):
    model, inside = disc
    at = model.at(np.zeros(len(inside)))
    U = at.potentials[1]
    np.testing.assert_allclose(U.sum(axis=0), 0, atol=1e-12)
    M = model.currents @ U
    np.testing.assert_allclose(M, M.T, atol=1e-12)


def test_large_contact_impedance():
    model, inside = disc_impedance(MPI.COMM_SELF, electrodes=8, contact=1e4, h=0.15, pixels=6)
    at = model.at(np.zeros(len(inside)))
    U = at.potentials[1]
    want = model.currents.T / model.D[:, None]
    want -= want.mean(axis=0)
    np.testing.assert_allclose(U, want, rtol=1e-3, atol=1e-3 * np.abs(want).max())


@pytest.mark.parametrize(("electrodes", "h", "told"), [(16, 0.1, False), (6, 0.25, True)])
def test_electrodes_that_end_between_nodes_are_told(electrodes, h, told, caplog):
    disc_impedance(MPI.COMM_SELF, electrodes=electrodes, contact=0.01, h=h, pixels=4)
    assert ("their ends are no nodes" in caplog.text) == told


TWO_DISCS = """
Point(1) = {0, 0, 0, h};
For k In {0:1}  // the rim, and the interface
  q = 10 * k;
  a = k ? r : 1;
  Point(q + 2) = {a, 0, 0, h};
  Point(q + 3) = {-a/2, a * Sqrt(3)/2, 0, h};
  Point(q + 4) = {-a/2, -a * Sqrt(3)/2, 0, h};
  Circle(q + 1) = {q + 2, 1, q + 3};
  Circle(q + 2) = {q + 3, 1, q + 4};
  Circle(q + 3) = {q + 4, 1, q + 2};
  Curve Loop(q + 1) = {q + 1, q + 2, q + 3};
EndFor
Plane Surface(1) = {11};
Plane Surface(2) = {1, 11};
Physical Surface("inclusion") = {1};
Physical Surface("outside") = {2};
"""


def neumann_to_dirichlet(path, refine, inside, outside):
    """The discrete map's eigenvalues, descending: boundary currents to boundary voltages."""
    built = build(MPI.COMM_SELF, MeshCase(file=path, refine=refine))
    domain = built.mesh
    V = fem.functionspace(domain, ("Lagrange", 1))
    rim = boundary_nodes(V)
    # one node is held: a potential is known up to a constant
    s = Stiffness(V, rim[:1])
    sigma = np.full(len(s.dofs), outside)
    sigma[built.cell_tags.find(built.names["inclusion"][1])] = inside
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    M = sparse(u * v * ufl.ds).tocsr()[:, rim].toarray()
    # currents without net charge
    Z = null_space(M.sum(axis=0)[None])
    loads = M @ Z
    potentials = s.extend(s.solver(sigma)(loads[s.free]))
    return eigh(loads.T @ potentials, loads[rim].T @ Z, eigvals_only=True)[::-1]


@pytest.mark.parametrize(("r", "s1", "s0"), [(0.5, 2.0, 1.0), (0.7, 0.2, 1.5), (0.3, 50.0, 0.8)])
def test_two_discs_have_their_analytic_eigenvalues_to_second_order(r, s1, s0, tmp_path):
    """Inclusion of radius r in the unit disc: (1 - mu r^2n)/(n s0 (1 + mu r^2n)), cos and sin.

    Meshes fitted to both circles, refined onto them: polygons, so the geometry counts too.
    """
    path = tmp_path / "two_discs.geo"
    path.write_text(f"h = 0.16;\nr = {r};\n{TWO_DISCS}")
    n = np.repeat(np.arange(1, 5), 2)
    mu = (s1 - s0) / (s1 + s0)
    want = (1 - mu * r ** (2 * n)) / (n * s0 * (1 + mu * r ** (2 * n)))
    found = [neumann_to_dirichlet(path, k, s1, s0)[: len(n)] for k in range(3)]
    errors = np.abs(np.array(found) / want - 1)
    rates = np.log2(errors[:-1] / errors[1:])
    assert np.all(errors[-1] < 1e-3 * n)
    assert np.all((rates > 1.9) & (rates < 2.2)), (errors, rates)


def test_mean_free_basis():
    Q = mean_free(5)
    np.testing.assert_allclose(Q.T @ Q, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(Q.sum(axis=0), 0, atol=1e-14)
