"""The benchmark of Aristoff and Bangerth: published numbers, derivatives, modes, chains."""

import numpy as np
import pytest
from dolfinx import fem, mesh
from mpi4py import MPI

from fem_apps.inverse.bayesian_mcmc import effective_samples, hmc, pcn, r_hat, random_walk
from fem_apps.inverse.bayesian_posterior import Posterior, Prior, laplace, lbfgs, newton_cg
from fem_apps.inverse.conductivity import (
    published_data,
    square_conductivity,
    true_conductivity,
)
from fem_apps.inverse.operators_fem import cell_matrices

K = np.arange(64.0)
PRIOR = Prior(np.full(64, 4.0), 4 * np.eye(64))


@pytest.fixture(scope="module")
def posterior():
    return Posterior(square_conductivity(MPI.COMM_SELF), published_data(), 0.05, PRIOR)


@pytest.mark.parametrize(
    ("theta", "want"),
    [
        (np.ones(64), -228.510844004),
        (K + 1, -6412.82113914),
        (np.exp(np.sin(K)), -303.551145654),
        (np.exp(np.sin(K**2) / 2), -205.742540183),
        (true_conductivity(), -0.278068441),
    ],
    ids=["ones", "k+1", "exp sin k", "exp sin k^2/2", "truth"],
)
def test_log_likelihoods(posterior, theta, want):
    assert abs(posterior.misfit(np.log(theta)) + want) < 1e-8 * abs(want)


def test_derivatives_by_their_published_values(posterior):
    m, h = np.sin(K), np.cos(K)
    at = posterior.model.at(m)
    # the centre of the square is a datum: p = q = 7
    assert abs(at.data[6 * 13 + 6] - 0.704193505843) < 1e-11
    _, g = posterior.misfit_gradient(m)
    want = [7.050131262, 58.010111042, 4.188749334]
    np.testing.assert_allclose(g[[0, 9, 36]], want, rtol=1e-9)
    assert abs(np.linalg.norm(g) - 157.288406128) < 1e-7
    cost, g = posterior.cost_gradient(m)
    assert abs(cost - 435.387188836) < 1e-7
    assert abs(g @ h + 102.644410520) < 1e-7
    # Taylor remainders: second order with the gradient, third with the Hessian
    Hh = posterior.misfit_hessian(m)(h) + PRIOR.precision(h)
    eps = np.array([4e-3, 2e-3, 1e-3, 5e-4])
    change = np.array([posterior.cost(m + e * h) - cost - e * (g @ h) for e in eps])
    np.testing.assert_allclose(change, [2.000e-3, 5.002e-4, 1.251e-4, 3.127e-5], rtol=5e-4)
    np.testing.assert_allclose(np.log2(change[:-1] / change[1:]), 2, atol=1e-3)
    third = np.abs(change - eps**2 / 2 * (h @ Hh))
    np.testing.assert_allclose(np.log2(third[:-1] / third[1:]), 3, atol=0.02)


def test_adjoint_and_symmetry(posterior):
    rng = np.random.default_rng(0)
    m, h, k, w = rng.normal(size=(4, 64))
    w = rng.normal(size=169)
    at = posterior.model.at(m)
    a, b = at.jvp(h) @ w, h @ at.vjp(w)
    assert abs(a - b) < 1e-12 * abs(a)
    J = at.jacobian()
    np.testing.assert_allclose(J @ h, at.jvp(h), rtol=0, atol=1e-12 * np.abs(J @ h).max())
    for gauss_newton in (False, True):
        H = posterior.misfit_hessian(m, gauss_newton=gauss_newton)
        a, b = k @ H(h), h @ H(k)
        assert abs(a - b) < 1e-10 * abs(a)
    # Gauss-Newton is J^T J
    np.testing.assert_allclose(
        posterior.misfit_hessian(m, gauss_newton=True)(h), at.vjp(at.jvp(h)) / 0.05**2, rtol=1e-9
    )


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
@pytest.mark.parametrize("degree", [1, 2])
def test_cell_matrices_are_those_of_dolfinx(cell, degree):
    import ufl

    domain = mesh.create_unit_square(MPI.COMM_SELF, 3, 2, getattr(mesh.CellType, cell))
    V = fem.functionspace(domain, ("Lagrange", degree))
    kappa = fem.Function(fem.functionspace(domain, ("DG", 0)))
    kappa.x.array[:] = np.arange(1.0, len(kappa.x.array) + 1)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    form = fem.form(kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    want = fem.assemble_matrix(form).to_dense()
    got = np.zeros_like(want)
    for c, (dofs, Kc) in enumerate(zip(V.dofmap.list, cell_matrices(V), strict=True)):
        got[np.ix_(dofs, dofs)] += kappa.x.array[c] * Kc
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_data_converge_with_the_mesh():
    """Q1 against the published data: 32 and 64 squares a side."""
    m, z = np.log(true_conductivity()), published_data()
    for cells, want in ((32, 0.011142), (64, 0.001676)):
        found = np.abs(square_conductivity(MPI.COMM_SELF, cells=cells).at(m).data - z).max()
        assert abs(found - want) < 1e-6


def test_modes_and_laplace(posterior):
    rough = lbfgs(posterior, PRIOR.mean)
    assert abs(rough.cost - 128.86290084) < 1e-6
    mode = newton_cg(posterior, rough.m)
    assert abs(mode.cost - 128.86290084) < 2e-8
    assert mode.gradient_norm < 1e-5
    assert abs(posterior.misfit(mode.m) - 2.683881) < 1e-6
    approximation = laplace(posterior, mode.m)
    lam = approximation.eigenvalues
    assert abs(lam[0] - 1176.42) < 0.01
    assert abs(lam[-1] + 0.405) < 1e-3
    assert (lam > 1).sum() == 58
    H = posterior.misfit_hessian(mode.m)
    whole = np.stack([H(e) for e in np.eye(64)]) + np.eye(64) / 4
    np.testing.assert_allclose(approximation.covariance @ whole, np.eye(64), atol=1e-6)
    draws = approximation.samples(20000, np.random.default_rng(0))
    np.testing.assert_allclose(
        np.cov(draws.T), approximation.covariance, atol=0.05 * approximation.covariance.max()
    )


def test_pcn_is_reversible_for_the_prior():
    """Zero likelihood: always accepted, the law of the prior kept, also for mean != 0."""
    C = np.array([[2.0, 0.5], [0.5, 1.0]])
    prior = Prior(np.array([3.0, -1.0]), C)
    chain = pcn(lambda m: 0.0, prior, prior.mean, 0.8, np.random.default_rng(0))
    draws = [next(chain) for _ in range(40000)]
    assert min(d.accepted for d in draws) == 1.0
    m = np.array([d.m for d in draws])
    worth = effective_samples(m[None]).min()
    assert np.abs(m.mean(axis=0) - prior.mean).max() < 4 * np.sqrt(2 / worth)
    np.testing.assert_allclose(np.cov(m.T), C, atol=12 / np.sqrt(worth))


def test_chains_sample_a_gaussian_posterior():
    """Linear model: exact mean and variance, by three samplers."""

    class Linear:
        def at(self, m):
            from types import SimpleNamespace

            A = np.array([[1.0, 0.5]])
            return SimpleNamespace(data=A @ m, vjp=lambda w: A.T @ w, jvp=lambda h: A @ h)

    A, y, s = np.array([[1.0, 0.5]]), np.array([0.8]), 0.4
    prior = Prior(np.array([1.0, -1.0]), np.diag([1.0, 2.0]))
    P = Posterior(Linear(), y, s, prior)
    exact = np.linalg.inv(A.T @ A / s**2 + np.linalg.inv(prior.covariance))
    mean = exact @ (A.T @ y / s**2 + np.linalg.solve(prior.covariance, prior.mean))
    rngs = [np.random.default_rng([7, k]) for k in range(3)]
    chains = {
        "hmc": (hmc(P.cost_gradient, prior.mean, np.eye(2), rngs[0], warmup=500), 4000),
        "pcn": (pcn(P.misfit, prior, prior.mean, 0.5, rngs[1]), 30000),
        "walk": (random_walk(P.cost, prior.mean, 0.8, rngs[2]), 30000),
    }
    for name, (chain, number) in chains.items():
        m = np.array([d.m for d in (next(chain) for _ in range(number + 500)) if d.warm])[-number:]
        worth = effective_samples(m[None])
        error = np.abs(m.mean(axis=0) - mean) / np.sqrt(np.diag(exact) / worth)
        assert error.max() < 4, name
        np.testing.assert_allclose(np.diag(np.cov(m.T)), np.diag(exact), rtol=0.15)


def test_effective_sample_size_and_r_hat():
    rng = np.random.default_rng(0)
    white = rng.normal(size=(4, 2000, 1))
    assert 0.8 < effective_samples(white)[0] / 8000 < 1.25
    assert r_hat(white)[0] < 1.01
    x, rho = np.zeros((4, 4000)), 0.9
    for t in range(1, 4000):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=4)
    assert 0.7 < effective_samples(x[..., None])[0] / (16000 * (1 - rho) / (1 + rho)) < 1.4
    apart = white + 3 * np.arange(4)[:, None, None]
    assert r_hat(apart)[0] > 2
