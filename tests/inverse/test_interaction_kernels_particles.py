"""Particle data: the empirical measure's functional, labels, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_atoms import (
    Gaussians,
    Logarithm,
    Powers,
    atoms_of,
    potential,
)
from fem_apps.inverse.interaction_kernels_choose import informed
from fem_apps.inverse.interaction_kernels_estimate import from_paths
from fem_apps.inverse.interaction_kernels_functional import Quadratic
from fem_apps.inverse.interaction_kernels_pairs import likelihood, pair_sums
from fem_apps.inverse.interaction_kernels_particles import (
    Paths,
    diffusion_of,
    paths,
    read_paths,
)
from fem_apps.inverse.interaction_kernels_synthetic import particle_paths

SELF = MPI.COMM_SELF


def swarm(
    dim, atoms, c, *, N=60, sigma=0.0, n=41, seed=0, drift=None, end=1.0, substeps=20, spread=1.0
):
    rng = np.random.default_rng(seed)
    t = np.linspace(0, end, n)
    dW = potential(atoms, c)[1]
    x = particle_paths(
        spread * rng.standard_normal((N, dim)),
        dW,
        t,
        sigma=sigma,
        substeps=substeps,
        rng=rng,
        drift=drift,
    )
    return paths(t, list(x))


@pytest.mark.parametrize("dim", [1, 2])
def test_noiseless_particles_give_the_coefficients(dim):
    atoms = atoms_of(
        [Powers(type="power", exponents=(2, 3)), Gaussians(type="gaussian", widths=(0.8,))], dim
    )
    c = np.array([1.0, 0.0, -0.5])
    q = pair_sums(SELF, atoms, swarm(dim, atoms, c)).form
    assert np.abs(np.linalg.solve(q.A, q.b) - c).max() < 0.02
    assert np.linalg.eigvalsh(q.A).min() > 0


def chi_squares(form, c):
    """Of each eigenvector of F, for g = F c + noise of covariance F."""
    values, Q = np.linalg.eigh(form.A)
    return (Q.T @ (form.b - form.A @ c)) ** 2 / values


@pytest.mark.parametrize(("dim", "N"), [(1, 40), (1, 160), (2, 40)])
def test_residual_of_brownian_particles_is_a_martingale(dim, N):
    """b - A c has the covariance 2 sigma / (N T) A."""
    atoms = atoms_of([Powers(type="power", exponents=(2, 3))], dim)
    c, squares = np.array([1.0, 0.2]), []
    for seed in range(32):
        data = swarm(dim, atoms, c, N=N, sigma=0.1, seed=seed, n=41, substeps=4)
        q = pair_sums(SELF, atoms, data, sigma=0.1).form
        squares.append(chi_squares(Quadratic(N / 0.2 * q.A, N / 0.2 * q.b), c))
    mean = np.mean(squares, axis=0)
    assert (mean > 0.4).all()  # four standard deviations of a mean of 32
    assert (mean < 2).all()


def test_likelihood_of_close_pairs():
    """Sums over time of a pole's point mass err more than near-duplicates' martingale."""
    families = [Logarithm(), Powers(type="power", exponents=(0.5, 1, 2))]
    atoms, c = atoms_of(families, 2), np.array([0.25, 0.0, 0.0, 0.0])
    martingale, whole = [], []
    for seed in range(32):
        data = swarm(2, atoms, c, N=200, sigma=0.1, seed=seed, n=21, spread=0.3)
        sums = pair_sums(SELF, atoms, data, sigma=0.1)
        q = sums.form
        martingale.append(chi_squares(Quadratic(200 / 0.2 * q.A, 200 / 0.2 * q.b), c))
        whole.append(chi_squares(likelihood(sums, 0.1), c))
    assert np.mean(martingale, axis=0).max() > 3
    assert np.mean(whole, axis=0).max() < 2


@pytest.mark.parametrize("dim", [1, 2])
def test_point_mass_of_a_laplacian(dim):
    """E Laplace psi(X - Y) of |x| on the line, log |x| in the plane: 2 p(0) or 2 pi p(0).

    X, Y standard normal, so that X - Y has the density p(0) = (4 pi)^(-dim/2) at 0; b grows by
    sigma E Laplace psi.
    """
    family = Powers(type="power", exponents=(1,)) if dim == 1 else Logarithm()
    atoms = atoms_of([family], dim)
    mass = 2 if dim == 1 else 2 * np.pi
    for seed in range(4):
        rng = np.random.default_rng(seed)
        data = paths(np.array([0.0, 1.0]), rng.standard_normal((2, 500, dim)))
        b = [pair_sums(SELF, atoms, data, sigma=s).form.b[0] for s in (0.0, 1.0)]
        assert b[1] - b[0] == pytest.approx(mass * (4 * np.pi) ** (-dim / 2), rel=0.2)


def test_repulsive_kink_of_brownian_particles():
    """W = |x|^2/2 - |x|: the coefficients need the point mass of the kink."""
    atoms = atoms_of([Powers(type="power", exponents=(1, 2))], 1)
    c = np.array([-1.0, 1.0])
    data = swarm(1, atoms, c, N=600, sigma=0.05, n=41, substeps=4)
    q = pair_sums(SELF, atoms, data, sigma=0.05).form
    assert np.abs(np.linalg.solve(q.A, q.b) - c).max() < 0.25


def test_labels_serve_where_particles_leave():
    """Forward differences of those still there give the same force as the boundary terms."""
    atoms = atoms_of([Powers(type="power", exponents=(2,))], 1)
    whole = swarm(1, atoms, np.ones(1), n=201)
    N = len(whole.x[0])
    kept = [np.arange(N) if n < 150 else np.arange(N - 5) for n in range(201)]
    x = [p[k] for p, k in zip(whole.x, kept, strict=True)]
    q = pair_sums(SELF, atoms, paths(whole.t, x, "open", kept)).form
    assert q.b[0] / q.A[0, 0] == pytest.approx(1.0, abs=0.15)
    with pytest.raises(CaseError, match="enter or leave"):
        paths(whole.t, x)


LINE = [
    Powers(type="power", exponents=(1, 1.5, 2, 3)),
    Gaussians(type="gaussian", widths=(0.5, 1, 2)),
]


def test_likelihood_of_unbounded_laplacians():
    """Without a mollified |x|^1.5 chi^2 of the least eigenvalue is 60 in mean."""
    atoms, c, squares = atoms_of(LINE, 1), np.eye(7)[2], []
    for seed in range(16):
        data = swarm(1, atoms, c, N=200, sigma=0.1, seed=seed, n=21, substeps=10)
        squares.append(chi_squares(likelihood(pair_sums(SELF, atoms, data, sigma=0.1), 0.1), c))
    assert np.mean(squares, axis=0).max() < 2.5


def test_estimate_by_likelihood():
    """Of the second data resamples by halves of the particles choose power(1), gaussian(0.5)."""
    atoms, c = atoms_of(LINE, 1), np.eye(7)[2]
    quiet = SimpleNamespace(
        asked_to_stop=lambda: False, progress=SimpleNamespace(update=lambda *_: None)
    )
    for seed in (0, 7):
        data = swarm(1, atoms, c, N=200, sigma=0.1, seed=seed, n=21, substeps=10)
        found = from_paths(SELF, atoms, [data], 0.1, SolverCase(), quiet, seed=seed)
        assert found.selected.fit.support == (2,)


def test_forces_beyond_all_numbers():
    atoms = atoms_of([Powers(type="power", exponents=(1, 4))], 1)
    x = 1e90 * np.random.default_rng(0).standard_normal((3, 20, 1))
    data = paths(np.arange(3.0), list(x))
    with np.errstate(all="ignore"), pytest.raises(CaseError, match="not finite"):
        informed(likelihood(pair_sums(SELF, atoms, data, sigma=0.1), 0.1))


def test_brownian_particles_that_leave():
    """A forward difference is without bias: no Laplacian as in Ito's formula."""
    atoms = atoms_of([Gaussians(type="gaussian", widths=(0.5,))], 1)
    c = np.array([-1.0])
    whole = swarm(1, atoms, c, N=1000, sigma=0.1, n=41)
    kept = [np.arange(1000 - n) for n in range(41)]
    x = [p[k] for p, k in zip(whole.x, kept, strict=True)]
    q = pair_sums(SELF, atoms, paths(whole.t, x, "open", kept), sigma=0.1).form
    spread = np.sqrt(2 * 0.1 / (980 * q.A[0, 0]))
    assert q.b[0] / q.A[0, 0] == pytest.approx(-1.0, abs=3 * spread)


@pytest.mark.parametrize("dim", [1, 2])
def test_diffusion_is_found_beside_a_strong_drift(dim):
    """Squares of steps would give sigma + |v|^2 dt / (2 dim): twice too much here."""
    atoms = atoms_of([Powers(type="power", exponents=(2,))], dim)
    still = swarm(
        dim, atoms, np.ones(1), N=300, sigma=0.1, drift=lambda x: np.full_like(x, 3.0), n=41
    )
    rng = np.random.default_rng(0)
    who = [rng.permutation(300) for _ in still.t]  # rows in any order
    data = paths(still.t, [p[k] for p, k in zip(still.x, who, strict=True)], "shuffled", who)
    assert diffusion_of([data]) == pytest.approx(0.1, rel=5 / np.sqrt(300 * 40))
    with pytest.raises(CaseError, match="who moved where"):
        diffusion_of([still])


def test_drift_column():
    """A constant drive is a linear external potential: V = -x moves everybody alike."""
    atoms = atoms_of([Powers(type="power", exponents=(2,))], 1)
    data = swarm(1, atoms, np.ones(1), drift=lambda x: np.full_like(x, 0.7))

    def V(x):
        return x[:, 0], np.ones_like(x), np.zeros(len(x))

    q = pair_sums(SELF, atoms, data, drifts=[V]).form
    assert np.allclose(np.linalg.solve(q.A, q.b), [1.0, -0.7], atol=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,y\n0,1\n", "no column 'x'"),
        ("t,x\n0,1\n0,2\n", "one snapshot"),
        ("t,x\n0,1\n0,2\n1,a\n1,3\n", "something else than numbers"),
        ("t,x\n0,1\n0,nan\n1,2\n1,3\n", "not a finite number"),
        ("t,x\n0,1\n0,2\n1,1\n1,2\n", "no particle moves"),
        ("t,x\n0,1\n1,2\n", "fewer than two"),
        ("", "no column"),
    ],
)
def test_bad_files(text, message, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(CaseError, match=message):
        read_paths(path, ("t", "x"))


def test_unsorted_times():
    with pytest.raises(CaseError, match="must increase"):
        paths(np.array([1.0, 0.0]), [np.zeros((3, 1)), np.ones((3, 1))])
    d = Paths(np.array([0.0, 1.0]), (np.zeros((3, 1)), np.ones((3, 1))))
    assert not d.open
