"""A and b of the error functional against closed forms, and its exact discrete facts."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem import node_graph
from fem_apps.inverse import interaction_kernels_functional as functional
from fem_apps.inverse.interaction_kernels_atoms import Gaussians, Powers, atoms_of
from fem_apps.inverse.interaction_kernels_data import noise_level, snapshots
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.free_energy import Diffusion

SELF = MPI.COMM_SELF


def interval(h, a=-8.0, b=8.0):
    case = MeshCase(geometry="interval", parameters={"a": a, "b": b, "h": h})
    return node_graph.build(build(SELF, case).mesh)


def gaussian_flow(x, t, kappa, sigma, s0):
    """W = kappa x^2/2 and linear diffusion: a Gaussian of variance s(t)."""
    s = sigma / kappa + (s0 - sigma / kappa) * np.exp(-2 * kappa * t)
    return np.exp(-(x**2) / (2 * s)) / np.sqrt(2 * np.pi * s)


# kappa, sigma, s0, a, the entries A11 A12 A13 A22 A23 A33 averaged over [0, 1]
CLOSED = [
    (1, 0.1, 1.0, 0.5, (0.48909912, 1.71966545, 0.17898698, 8.12738347, 0.40643537, 0.10468736)),
    (1, 0.3, 0.2, 0.75, (0.25676676, 0.39908562, 0.17206433, 0.72952163, 0.23396955, 0.12642274)),
]


def gaussian_quadratic(h, kappa, sigma, s0, a, *, kind="ends", dense=1000, n=41):
    graph = interval(h)
    # psi_2 = x^4/4, psi_3 = 1 - exp(-x^2/2a^2)
    atoms = atoms_of(
        [Powers(type="power", exponents=(2, 4)), Gaussians(type="gaussian", widths=(a,))], 1
    )
    t = np.linspace(0, 1, n)
    rho = np.array([gaussian_flow(graph.x[:, 0], s, kappa, sigma, s0) for s in t])
    data = snapshots(graph, t, rho)
    s = functional.set_up(graph, atoms, dense=dense)
    known = functional.Known((Diffusion(exponent=1, coefficient=sigma),))
    return functional.assemble(s, data, known, kind=kind)


@pytest.mark.parametrize("case", CLOSED)
def test_gaussian_closed_form(case):
    kappa, sigma, s0, a, entries = case
    errors = []
    for h in (0.08, 0.04):
        q = gaussian_quadratic(h, kappa, sigma, s0, a)
        A = np.array(entries)[[0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(3, 3)
        errors.append(max(np.abs(q.A / A - 1).max(), np.abs(q.b / (kappa * A[:, 0]) - 1).max()))
    assert errors[1] < 5e-3
    assert np.log2(errors[0] / errors[1]) > 1.8


def test_windows_and_banks_agree_on_smooth_data():
    case = CLOSED[0][:4]
    q = gaussian_quadratic(0.05, *case, kind="bump")
    fast = gaussian_quadratic(0.05, *case, kind="bump", dense=0)
    assert np.abs(q.A - fast.A).max() < 1e-6 * np.abs(q.A).max()
    assert np.abs(q.b - fast.b).max() < 1e-6 * np.abs(q.b).max()
    assert np.abs(np.linalg.solve(q.A, q.b) - [1, 0, 0]).max() < 2e-2
    assert np.linalg.eigvalsh(q.A).min() > 0


def test_time_term_is_summation_by_parts():
    """Central differences with one-sided ends and trapezoidal weights see only the end points."""
    rng = np.random.default_rng(0)
    K = rng.standard_normal((9, 9))
    K, mu, dt = K + K.T, rng.standard_normal((7, 9)), 0.1
    w = np.full(7, dt)
    w[[0, -1]] /= 2
    rate = np.gradient(mu, dt, axis=0)
    # the symmetric product of neighbours: <d_t mu, K mu> summed is the increment of <mu, K mu>/2
    inner = np.einsum("ti,ij,tj->t", rate, K, mu) @ w
    ends = (mu[-1] @ K @ mu[-1] - mu[0] @ K @ mu[0]) / 2
    assert inner == pytest.approx(ends, rel=1e-12)


def test_noise_bias_is_removed():
    """The mean over many noisy data of the corrected A and b is that of the clean data."""
    graph = interval(0.1, -3, 3)
    atoms = atoms_of([Powers(type="power", exponents=(1.5, 2))], 1)
    t = np.linspace(0, 1, 5)
    x = graph.x[:, 0]
    clean = np.array([np.exp(-(x**2) / (1 + s)) * (1 + 0.3 * s * x) + 0.05 for s in t])
    clean /= (clean @ graph.mass)[:, None]
    s = functional.set_up(graph, atoms)
    known = functional.Known((Diffusion(exponent=2, coefficient=0.5),))
    exact = functional.assemble(s, snapshots(graph, t, clean), known)
    rng, noise = np.random.default_rng(1), 0.2
    raw, fixed = [], []
    from fem_apps.inverse.interaction_kernels_data import Snapshots

    for _ in range(300):
        noisy = Snapshots(t, clean * (1 + noise * rng.standard_normal(clean.shape)))
        for level, out in ((0.0, raw), (noise, fixed)):
            q = functional.assemble(s, noisy, known, noise=level)
            out.append(np.r_[q.A.ravel() / exact.A.ravel() - 1, q.b / exact.b - 1])
    bias, error = np.mean(raw, axis=0), np.mean(fixed, axis=0)
    sd = np.std(fixed, axis=0) / np.sqrt(300)
    assert np.abs(bias).max() > 0.05
    assert (np.abs(error) < 4 * sd + 0.1 * np.abs(bias)).all()


def test_noise_level():
    graph = interval(0.1, -3, 3)
    t = np.linspace(0, 1, 40)
    rho = np.array([gaussian_flow(graph.x[:, 0], s, 1, 0.1, 1.0) for s in t])
    rng = np.random.default_rng(0)
    for s in (0.01, 0.1):
        noisy = snapshots(graph, t, rho * (1 + s * rng.standard_normal(rho.shape)))
        assert noise_level(graph, noisy) == pytest.approx(s, rel=0.1)
    assert noise_level(graph, snapshots(graph, t, rho)) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: (t[::-1], r), "times must increase"),
        (lambda t, r: (t[:1], r[:1]), "one snapshot tells nothing"),
        (lambda t, r: (t, r * np.nan), "not finite"),
        (lambda t, r: (t, r - r.max()), "must be positive|negative"),
        (lambda t, r: (t, r[:1].repeat(len(t), axis=0)), "steady state"),
        (lambda t, r: (t * np.inf, r), "not a finite number"),
    ],
)
def test_bad_data(change, message):
    graph = interval(0.1, -3, 3)
    t = np.linspace(0.1, 1, 5)
    rho = np.array([gaussian_flow(graph.x[:, 0], s, 1, 0.1, 1.0) for s in t])
    with pytest.raises(CaseError, match=message):
        snapshots(graph, *change(t, rho))
