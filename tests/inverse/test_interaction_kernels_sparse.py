"""Sparse solvers on random matrices, coherent ones too; transport distances; model selection."""

import numpy as np
import pytest

from fem_apps.inverse import interaction_kernels_selection as selection
from fem_apps.inverse import interaction_kernels_sparse as sparse
from fem_apps.inverse.interaction_kernels_atoms import Powers, Splines, atoms_of
from fem_apps.inverse.interaction_kernels_distance import (
    bound,
    convexity,
    w2_close,
    w2_line,
    w2_plane,
)
from fem_apps.inverse.interaction_kernels_functional import Quadratic
from fem_apps.inverse.interaction_kernels_tikhonov import Penalty, penalty, solve, tikhonov


def coherent(rng, common, rows=60, n=200, s=5):
    """Gaussian columns with a common component, and a sparse truth."""
    Phi = rng.standard_normal((rows, n)) + common * rng.standard_normal((rows, 1))
    Phi /= np.linalg.norm(Phi, axis=0)
    support = np.sort(rng.choice(n, s, replace=False))
    x = np.zeros(n)
    x[support] = rng.choice([-1, 1], s) * (1 + rng.random(s))
    return Phi, Phi @ x, tuple(support.tolist())


def rate(solver, common, repeats=20):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(repeats):
        Phi, u, support = coherent(rng, common)
        hits += set(support) <= set(solver(Phi, u))
    return hits / repeats


def test_partial_inversion_and_pursuit_recover_incoherent_supports():
    assert rate(lambda P, u: sparse.partial_inversion(P, u, 5), 0.0) >= 0.95
    assert rate(lambda P, u: sparse.subspace_pursuit(P, u, 5), 0.0) >= 0.95
    assert rate(lambda P, u: sparse.matching_pursuit(P, u, 5), 0.0) >= 0.9


def test_partial_inversion_under_coherence_needs_more_columns():
    """At coherence .95 it fails with the size of the support and succeeds with four times it."""
    few = rate(lambda P, u: sparse.partial_inversion(P, u, 5), 3.0)
    many = rate(lambda P, u: sparse.partial_inversion(P, u, 20), 3.0)
    assert many >= 0.95
    assert few < many


def test_square_root_keeps_the_cost():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((9, 6))
    A, b = X.T @ X, X.T @ rng.standard_normal(9)
    Phi, u = sparse.square_root(A, b)
    c = rng.standard_normal(6)
    assert np.sum((Phi @ c - u) ** 2) - u @ u == pytest.approx(c @ A @ c - 2 * b @ c)


@pytest.fixture
def problem():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((50, 12)) + 2 * rng.standard_normal((50, 1))
    c = np.zeros(12)
    c[[3, 7]] = 1.0, -0.5
    return X.T @ X / 50, X.T @ (X @ c) / 50, c


@pytest.mark.parametrize(
    "solve",
    [
        lambda A, b: sparse.best_subset(A, b, 2)[0],
        lambda A, b: sparse.swap_descent(A, b, (0, 1)),
        lambda A, b: sparse.sequential_thresholding(A, b, 0.2),
        lambda A, b: sparse.lasso(A, b, 2),
        lambda A, b: selection.candidates(A, b, 2),
    ],
)
def test_every_solver_finds_a_clean_pair(solve, problem):
    A, b, c = problem
    fit = solve(A, b)
    assert fit.support == (3, 7)
    assert np.allclose(fit.c, c, atol=1e-8)
    assert fit.cost == pytest.approx(-b @ c)


def test_model_selection_stops_at_the_truth(problem):
    A, b, _ = problem
    rng = np.random.default_rng(3)
    steps = selection.ladder(2000 * A, 2000 * b, 4)
    stars = selection.draws(2000 * A, 2000 * b, 50, rng)
    found = selection.from_likelihood(2000 * A, 2000 * b, 1000, steps, stars)
    assert found.fit.support == (3, 7)
    assert found.stability >= 0.9
    others = [
        Quadratic(A, b + 1e-3 * np.linalg.cholesky(A) @ rng.standard_normal(12)) for _ in range(12)
    ]
    assert selection.from_resamples(Quadratic(A, b), others, 4).fit.support == (3, 7)


@pytest.mark.parametrize("rule", ["l-curve", "gcv", "quasi-optimal"])
def test_tikhonov_lies_between_noise_and_smoothing(rule):
    rng = np.random.default_rng(4)
    t = np.linspace(0, 1, 30)
    truth = np.sin(np.pi * t)
    X = np.exp(-(np.subtract.outer(np.linspace(0, 1, 80), t) ** 2) / 0.02)
    y = X @ truth + 0.05 * rng.standard_normal(80)
    D = np.diff(np.eye(30), axis=0)
    size = Penalty(D.T @ D + 1e-10 * np.eye(30))
    c, lam = tikhonov(X.T @ X, X.T @ y, size, rule)
    free = np.linalg.lstsq(X, y, rcond=1e-12)[0]
    assert lam > 0
    assert np.linalg.norm(c - truth) < 0.15 * np.linalg.norm(truth)
    assert np.linalg.norm(c - truth) < 0.1 * np.linalg.norm(free - truth)


def test_adaptive_space_leaves_out_what_data_do_not_see():
    """Directions of rounding in A keep their noise in L2 and are 0 in the RKHS."""
    rng = np.random.default_rng(5)
    Q = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    values = np.r_[1, 0.5, 0.2, 0.1, 1e-9 * np.ones(4)]
    A, truth = (Q * values) @ Q.T, Q[:, :3] @ np.ones(3)
    b = A @ truth + 1e-6 * rng.standard_normal(8)
    lam = 1e-8
    flat, adaptive = (solve(A, b, Penalty(np.eye(8), a), lam) for a in (False, True))
    assert np.abs(Q[:, 4:].T @ flat).max() > 1
    assert np.abs(Q[:, 4:].T @ adaptive).max() < 1e-5
    assert np.abs(adaptive - truth).max() < 1e-3
    exact = np.linalg.solve(A + lam * np.linalg.inv(A), b)
    assert adaptive == pytest.approx(exact, abs=1e-7)


def test_penalties_of_a_linear_force():
    """W = x^2/2: int W'^2 d rho_bar = mean r^2, int W''^2 dr = the reach."""
    atoms = atoms_of([Powers(type="power", exponents=(2,))], 1)
    r = np.random.default_rng(6).random(200_000) * 2
    assert penalty("L2", atoms, r, 1).B[0, 0] == pytest.approx((r**2).mean(), rel=1e-3)
    assert penalty("H1", atoms, r, 0).B[0, 0] == pytest.approx(r.max(), rel=1e-3)
    assert penalty("RKHS", atoms, r, 0).adaptive


def test_roughness_counts_beyond_the_data():
    """Splines where no pair is: a rough W' has its price there, whatever the data's distances."""
    atoms = atoms_of([Splines(type="splines", count=8, degree=2, r_max=4)], 1)
    near, far = (penalty("H1", atoms, np.linspace(0, R, 100), 0).B for R in (1, 4))
    assert near == pytest.approx(far, rel=1e-6)
    assert near[-2, -2] > 0.1 * near[1, 1]


def test_w2_of_gaussians():
    """Gaussians on the line: W2^2 = (m1 - m2)^2 + (s1 - s2)^2; order h^2 by cell averages."""
    errors = []
    for n in (200, 400):
        h = 20 / n
        x = -10 + h * (np.arange(n) + 0.5)
        a, b = np.exp(-(x**2) / 2), np.exp(-((x - 1) ** 2) / (2 * 1.5**2)) / 1.5
        errors.append(abs(w2_line(np.full(n, h), a, b) - np.sqrt(1.25)))
    assert errors[1] < 2e-4
    assert errors[1] < errors[0] / 3
    g = np.linspace(-5, 5, 41)
    X = np.array([(p, q) for p in g for q in g])
    a = np.exp(-(X**2).sum(axis=1) / 2)
    b = np.exp(-((X - [1, 0]) ** 2).sum(axis=1) / 2)
    assert w2_plane(X, a, b) == pytest.approx(1.0, rel=0.02)
    assert w2_plane(X, a, a) < 1e-7


def test_w2_of_close_measures():
    """A Gaussian shifted by a tenth of the spacing: a plan between nodes would not see it."""
    n, h = 200, 0.05
    x = h * (np.arange(n) - n / 2)
    i = np.arange(n - 1)
    edges = (np.r_[i, i + 1], np.r_[i + 1, i], np.full(2 * n - 2, 1 / h))
    a, b = np.exp(-(x**2) / 2), np.exp(-((x - 0.1 * h) ** 2) / 2)
    assert w2_close(edges, np.full(n, h), a, b) == pytest.approx(0.1 * h, rel=0.01)


def test_convexity_and_bound():
    assert convexity(lambda r: r + np.sin(2 * r), 1, 4.0, 1e-3) == pytest.approx(-1.0, abs=1e-3)
    assert convexity(lambda r: 2 * r, 2, 4.0, 1e-3) == pytest.approx(2.0)
    assert convexity(lambda r: -(r**0.5), 1, 4.0, 1e-3) < -10  # a concave kink
    t = np.linspace(0, 1, 2001)
    assert bound(t, np.ones_like(t), -1.0)[-1] == pytest.approx(np.e - 1, rel=1e-3)
    assert bound(t, np.ones_like(t), 0.0)[-1] == pytest.approx(1.0)
