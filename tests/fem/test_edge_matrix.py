"""Edge fluxes and their matrix: derivatives, antisymmetry, exact linear diffusion, entries."""

from __future__ import annotations

import numpy as np
import pytest
from dolfinx.mesh import create_unit_square
from mpi4py import MPI

from fem_apps.fem import edge_flux, edge_matrix, node_graph
from fem_apps.problems.free_energy import Diffusion, Internal


@pytest.fixture(scope="module")
def graph():
    mesh = create_unit_square(MPI.COMM_SELF, 9, 8)
    rng = np.random.default_rng(1)
    mesh.geometry.x[:, :2] += rng.uniform(
        -0.05, 0.05, (len(mesh.geometry.x), 2)
    )  # obtuse angles too
    return node_graph.build(mesh)


def fluxes(graph, H, rho, phi, upwind=False, clip=False, tau=1.0):
    A = edge_matrix.create(graph)
    outflow, drift = np.zeros(graph.n), np.zeros(len(A.here))
    r = np.maximum(rho, 0.0)
    work, _ = edge_flux.assemble(
        A.edges,
        r,
        *H.fields(r),
        phi,
        upwind,
        clip,
        tau,
        graph.mass,
        A.diagonal,
        A.here,
        A.back,
        outflow,
        A.values,
        drift,
    )
    A.changed()
    return outflow, A, work, drift


@pytest.mark.parametrize("upwind", [False, True])
@pytest.mark.parametrize("exponent", [0.5, 1, 2, 3])
def test_jacobian_is_the_derivative(graph, exponent, upwind):
    rng = np.random.default_rng(2)
    rho, phi = 0.2 + rng.random(graph.n), 0.3 * rng.standard_normal(graph.n)
    H = Internal((Diffusion(exponent=exponent, coefficient=0.7),))
    direction, eps, tau = rng.standard_normal(graph.n), 1e-6, 0.3
    plus = fluxes(graph, H, rho + eps * direction, phi, upwind)[0]
    minus = fluxes(graph, H, rho - eps * direction, phi, upwind)[0]
    _, A, _, _ = fluxes(graph, H, rho, phi, upwind, tau=tau)
    x, y = A.mat.createVecs()
    x.array_w[:] = direction
    A.mat.mult(x, y)
    wanted = graph.mass * direction + tau * (plus - minus) / (2 * eps)
    assert np.abs(y.array_r - wanted).max() < 1e-7 * np.abs(wanted).max()


def test_linear_diffusion_is_the_stiffness_matrix(graph):
    # the limiter leaves a positive edge alone while the ends differ by little
    rho = 1 + 0.2 * np.random.default_rng(3).random(graph.n)
    outflow, _, _, _ = fluxes(graph, Internal((Diffusion(),)), rho, np.zeros(graph.n))
    x, y = graph.stiffness.createVecs()
    x.array_w[:] = rho
    graph.stiffness.mult(x, y)
    assert np.abs(outflow - y.array_r).max() < 1e-13 * np.abs(y.array_r).max()


@pytest.mark.parametrize("clip", [False, True])
def test_flux_changes_sign_with_its_ends(clip):
    """Bit by bit, with vacuum, equal ends and edges of negative weight."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        r = rng.random(2) * rng.integers(0, 2, 2) * 10.0 ** rng.integers(-12, 2, 2)
        for exponent in (1.0, 2.0, 3.0):
            P, H, dP = Internal((Diffusion(exponent=exponent),)).fields(r)
            s = np.divide(1.0, r, out=np.zeros(2), where=r > 0)
            dphi, a = rng.standard_normal(2)
            there = edge_flux.edge(*r, *s, *P, *H, *dP, dphi, a, False, clip)
            around = edge_flux.edge(
                *r[::-1], *s[::-1], *P[::-1], *H[::-1], *dP[::-1], -dphi, a, False, clip
            )
            F, Fi, Fj, M, dxi = there
            assert around == (-F, -Fj, -Fi, M, -dxi)
            assert F * dxi * np.sign(a) >= 0


@pytest.mark.parametrize("exponent", [0.5, 1, 2, 3])
def test_fluxes_of_vanishing_densities_are_finite(graph, exponent):
    """A front's tail goes through all magnitudes down to the denormal numbers."""
    rho = 10.0 ** np.random.default_rng(6).uniform(-330, 0, graph.n)
    H = Internal((Diffusion(exponent=exponent),))
    outflow, A, work, _ = fluxes(graph, H, rho, np.linspace(0, 1, graph.n))
    assert np.isfinite(work)
    assert np.isfinite(outflow).all()
    assert np.isfinite(A.values).all()


def test_work_is_the_dissipation(graph):
    rng = np.random.default_rng(5)
    rho, phi = rng.random(graph.n), rng.standard_normal(graph.n)
    H = Internal((Diffusion(exponent=2),))
    outflow, _, work, drift = fluxes(graph, H, rho, phi)
    xi = H.fields(rho)[1] + phi
    assert work == pytest.approx(outflow @ xi, rel=1e-12)
    applied = np.empty(graph.n)
    edge_flux.drift_apply(edge_matrix.create(graph).edges, drift, xi, applied)
    assert np.allclose(applied, outflow, atol=1e-13 * np.abs(outflow).max())


@pytest.mark.parametrize(
    ("exponent", "upwind"),
    # upwind, the flux of fast diffusion has an infinite derivative at vacuum
    [(0.5, False), (1, False), (2, False), (3, False), (1, True), (2, True), (3, True)],
)
def test_densities_that_underflow_give_finite_fluxes(exponent, upwind):
    """Differences of H' have no reciprocal where densities are subnormal, or small to a power."""
    for small in (1e-320, 1e-310, 1e-300, 1e-155, 1e-105, 1e-60):
        for other in (0.0, 1e-323, 3e-155, 1.0):
            r = np.array([small, other])
            P, H, dP = Internal((Diffusion(exponent=exponent),)).fields(r)
            s = np.divide(1.0, np.maximum(r, edge_flux.SMALLEST), out=np.zeros(2), where=r > 0)
            for dphi in (-1.0, 0.0, 1.0):
                assert np.isfinite(
                    edge_flux.edge(*r, *s, *P, *H, *dP, dphi, 1.0, upwind, False)
                ).all()
