"""Reduced bases on a small algebraic model: certified, stable, stored, the same in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError, SolveError
from fem_apps.surrogates.reduced_basis import Offline, Span, pod, weak_greedy
from fem_apps.surrogates.reduced_basis_batch import BatchSolver
from fem_apps.surrogates.reduced_basis_online import ReducedModel, load, save


class Rod:
    """-(mu u')' = 1 on (0, 1) with p equal pieces, P1 on n interior nodes, u = 0 at the ends."""

    comm = MPI.COMM_SELF
    gap = None

    def __init__(self, p=3, n=89):
        self.p, self.ranges = p, {f"mu{i}": (0.1, 1.0) for i in range(p)}
        h, cells = 1 / (n + 1), (n + 1) // p
        self.A = np.zeros((p, n, n))
        for cell in range(n + 1):
            q = min(cell // cells, p - 1)
            for i in (cell - 1, cell):
                for j in (cell - 1, cell):
                    if 0 <= i < n and 0 <= j < n:
                        self.A[q, i, j] += (1 if i == j else -1) / h
        self.X = self.A.sum(axis=0)
        self.right_sides, self.outputs = np.full((1, n), h), np.full((1, n), h)

    def theta(self, mu, xp=np):
        return mu

    def theta_load(self, mu, xp=np):
        return xp.ones((*mu.shape[:-1], 1))

    def bound(self, mu, xp=np):
        return mu.min(axis=-1)

    def solve(self, mu, start=None):
        return np.linalg.solve(np.tensordot(mu, self.A, axes=1), self.right_sides[0])

    def products(self, u):
        return self.A @ u

    def inner(self, u):
        return self.X @ u

    def riesz(self, w):
        return np.linalg.solve(self.X, w)

    def norm(self, u):
        return np.sqrt(u @ self.X @ u)


@pytest.fixture(scope="module")
def rod():
    return Rod()


@pytest.fixture(scope="module")
def basis(rod):
    offline = Offline(rod)
    training = np.random.default_rng(0).uniform(0.1, 1, (200, rod.p))
    return offline, weak_greedy(offline, training, 20)


def test_the_manifold_of_blocks_on_a_line_has_dimension_2p_minus_1(rod, basis):
    """Singular values drop to rounding after the fifth, and the greedy ends there."""
    offline, steps = basis
    mus = np.random.default_rng(1).uniform(0.1, 1, (40, rod.p))
    _, sigma = pod(rod, np.array([rod.solve(m) for m in mus]), 10)
    assert sigma[4] > 1e-4 * sigma[0]
    assert sigma[5] < 1e-7 * sigma[0]  # square roots of rounding
    assert [s.largest > 1e-10 for s in steps[:5]] == [True] * 5
    assert steps[5].largest < 1e-10  # stable far below 1e-8, where the expanded norm stalls
    assert offline.size <= 7


def test_certified_on_a_thousand_parameters(rod, basis):
    offline, _ = basis
    mus = np.random.default_rng(2).uniform(0.1, 1, (1000, rod.p))
    U = np.array([rod.solve(m) for m in mus])
    full = offline.reduced()
    for n in range(1, 5):
        model = full.of_size(n)
        c = model.coefficients(mus)
        errors = np.array(
            [rod.norm(u - offline.basis.vectors[:, :n] @ v) for u, v in zip(U, c, strict=True)]
        )
        effectivity = model.error_bound(mus) / errors
        assert effectivity.min() >= 1
        assert (effectivity <= (mus.max(axis=1) / mus.min(axis=1)) * (1 + 1e-6)).all()


def test_scaling_of_parameters(basis):
    """u(s mu) = u(mu)/s."""
    model = basis[0].reduced()
    mu = np.array([[0.15, 0.3, 0.2]])
    np.testing.assert_allclose(model.coefficients(2 * mu), model.coefficients(mu) / 2, rtol=1e-10)


def test_span_is_orthonormal_for_nearly_dependent_vectors(rod):
    span, rng = Span(rod, len(rod.X)), np.random.default_rng(3)
    v = rng.normal(size=len(rod.X))
    for k in range(6):
        span.add(v + 10.0 ** (-2 * k) * rng.normal(size=len(v)))
    gram = span.vectors.T @ rod.X @ span.vectors
    np.testing.assert_allclose(gram, np.eye(span.size), atol=1e-12)
    size = span.size
    span.add(span.vectors @ np.ones(size))
    assert span.size == size


def test_pod_modes_are_orthonormal_and_best(rod):
    mus = np.random.default_rng(4).uniform(0.1, 1, (30, rod.p))
    U = np.array([rod.solve(m) for m in mus])
    modes, sigma = pod(rod, U, 3)
    np.testing.assert_allclose(modes @ rod.X @ modes.T, np.eye(3), atol=1e-9)
    off = U - (U @ rod.X @ modes.T) @ modes
    assert np.sum((off @ rod.X) * off) == pytest.approx((sigma[3:] ** 2).sum(), rel=1e-6)


def test_jax_gives_the_same_and_the_derivative(basis):
    model = basis[0].reduced().of_size(4)
    mus = np.random.default_rng(5).uniform(0.1, 1, (7, 3))
    solve, bound = model.compiled()
    np.testing.assert_allclose(solve(mus), model.coefficients(mus), rtol=1e-10)
    np.testing.assert_allclose(bound(mus), model.error_bound(mus), rtol=1e-6)
    with jax.enable_x64(True):
        g = jax.grad(lambda m: model.quantities(m, jnp)[0])(jnp.asarray(mus[0]))
    e = 1e-6 * np.eye(3)
    both = [model.quantities(mus[0] + s * e)[:, 0] for s in (1, -1)]
    np.testing.assert_allclose(g, (both[0] - both[1]) / 2e-6, rtol=1e-6)


def test_refusals(basis):
    model = basis[0].reduced()
    with pytest.raises(CaseError, match=r"mu1 = 2 lies outside the trained range \[0.1, 1\]"):
        model.check([0.5, 2.0, 0.5])
    assert model.check([0.5, 2.0, 0.5], extrapolate=True).shape == (3,)
    with pytest.raises(CaseError, match="has to be 3"):
        model.check([0.5])
    with pytest.raises(CaseError, match="N = 99"):
        model.of_size(99)
    with pytest.raises(CaseError, match="N = 0"):
        model.of_size(0)


def test_stored_and_read(tmp_path, rod, basis):
    model = basis[0].reduced()
    save(model, tmp_path / "m.npz", {"p": 3})
    functions = {"theta": rod.theta, "theta_load": rod.theta_load, "bound": rod.bound}
    again = load(tmp_path / "m.npz", lambda stored: functions)
    mus = np.random.default_rng(6).uniform(0.1, 1, (5, 3))
    np.testing.assert_array_equal(again.error_bound(mus), model.error_bound(mus))
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(CaseError, match="no reduced model"):
        load(tmp_path / "bad.npz", lambda stored: functions)


def test_greedy_continues_from_its_steps(rod):
    training = np.random.default_rng(0).uniform(0.1, 1, (50, rod.p))
    whole = weak_greedy(Offline(rod), training, 4)
    halves = weak_greedy(Offline(rod), training, 4, steps=whole[:2])
    assert [s.index for s in whole] == [s.index for s in halves]


def test_empty_model_is_certified_by_the_load(rod):
    offline = Offline(rod)
    assert isinstance(offline.reduced(), ReducedModel)
    mu = np.array([[0.2, 0.5, 1.0]])
    exact = rod.norm(rod.solve(mu[0]))
    assert offline.reduced().error_bound(mu)[0] >= exact


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_batches_give_the_same(basis, n):
    """Numbers of parameters that do not fill a batch too; sizes with left-over terms."""
    model = basis[0].reduced().of_size(n)
    batch = BatchSolver(model)
    for count in (1, 63, 130):
        mus = np.random.default_rng(7).uniform(0.1, 1, (count, 3))
        u = batch.coefficients(mus)
        np.testing.assert_allclose(u, model.coefficients(mus), rtol=1e-10, atol=1e-14)
        wanted = model.error_bound(mus)
        np.testing.assert_allclose(batch.error_bound(mus, u), wanted, rtol=1e-5, atol=1e-12)
    with pytest.raises(SolveError, match="positive definite"):
        batch.coefficients(np.array([[-1.0, -1.0, -1.0]]))
