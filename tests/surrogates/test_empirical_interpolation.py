"""Empirical interpolation: exact for functions of finite rank, its error estimated elsewhere."""

import numpy as np
from mpi4py import MPI

from fem_apps.surrogates.empirical_interpolation import interpolate_empirically

X = np.linspace(0, 1, 201)[None, :]


def run(values, mus, size, tolerance=1e-12):
    return interpolate_empirically(MPI.COMM_SELF, values, X, values(X, mus), size, tolerance, X[0])


def test_finite_rank_is_found_and_reproduced():
    def values(x, mu, xp=np):
        return mu[..., :1] * xp.sin(x[0]) + mu[..., 1:] ** 2 * xp.cos(3 * x[0])

    mus = np.random.default_rng(0).normal(size=(20, 2))
    inter, Q, errors = run(values, mus, 10)
    assert Q.shape[1] == 2
    assert errors[-1] < 1e-12
    new = np.array([[0.3, -1.7]])
    np.testing.assert_allclose(inter.theta(new) @ Q.T, values(X, new), atol=1e-12)


def test_error_falls_and_is_seen():
    def values(x, mu, xp=np):
        return 1 / xp.sqrt((x[0] - mu[..., :1]) ** 2 + 0.1)

    rng = np.random.default_rng(1)
    inter, Q, errors = run(values, rng.uniform(0, 1, (200, 1)), 20, 0.0)
    assert errors[-1] < 1e-3 * errors[0]
    mus = rng.uniform(0, 1, (50, 1))
    true = np.abs(inter.theta(mus) @ Q.T - values(X, mus)).max(axis=1)
    gap = inter.gap(mus)
    assert (gap <= true * (1 + 1e-10)).all()
    assert np.median(true / gap) < 3  # an estimate, not a bound
    B = np.linalg.inv(inter.inverse)
    assert np.allclose(np.diag(B), 1)
    assert np.abs(np.triu(B, 1)).max() < 1e-12
