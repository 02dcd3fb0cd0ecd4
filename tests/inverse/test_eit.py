"""Impedance tomography: exact voltages, analytic eigenvalues of a disc, adjoints."""

import numpy as np
import pytest
import scipy.sparse as sp
from dolfinx import fem, mesh
from mpi4py import MPI

from fem_apps.inverse.operators_eit import disc_impedance, electrode_model, mean_free


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


def test_concentric_inclusion_has_its_analytic_eigenvalues():
    """Current cos(n t) on the whole circle, continuum model: second order in h."""
    from fem_apps.inverse.operators_fem import Stiffness

    errors = []
    for h in (0.2, 0.1, 0.05):
        from fem_apps.meshing import MeshCase, build

        domain = build(
            MPI.COMM_SELF, MeshCase(geometry="disc", parameters={"h": h, "radius": 1.0})
        ).mesh
        V = fem.functionspace(domain, ("Lagrange", 1))
        x = V.tabulate_dof_coordinates()
        # one node at the rim is held: the potential is determined up to a constant
        rim = np.flatnonzero(np.hypot(x[:, 0], x[:, 1]) > 1 - 1e-9)
        s = Stiffness(V, rim[:1])
        cells = domain.topology.index_map(2).size_local
        centre = mesh.compute_midpoints(domain, 2, np.arange(cells, dtype=np.int32))
        sigma = np.where(np.hypot(*centre[:, :2].T) < 0.5, 2.0, 1.0)
        import ufl

        t = ufl.atan2(ufl.SpatialCoordinate(domain)[1], ufl.SpatialCoordinate(domain)[0])
        row = []
        for n, want in ((1, 0.846153846154), (2, 0.479591836735)):
            load = fem.assemble_vector(
                fem.form(ufl.cos(n * t) * ufl.TestFunction(V) * ufl.ds)
            ).array
            u = s.extend(s.solver(sigma)(load[s.free]))
            # projection of the boundary values on cos(n t)
            row.append(abs(u @ load / np.pi - want))
            if n == 1 and h == 0.05:
                empty = s.extend(s.solver(np.ones(cells))(load[s.free])) @ load / np.pi
                assert abs(empty - 1) < 0.01
        errors.append(row)
    # the inclusion's rim is met by whole triangles only: first order at least
    assert np.all(np.array(errors[-1]) < 0.02)
    assert np.all(np.array(errors[-1]) < 0.5 * np.array(errors[0]))


def test_mean_free_basis():
    Q = mean_free(5)
    np.testing.assert_allclose(Q.T @ Q, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(Q.sum(axis=0), 0, atol=1e-14)
