"""Noisier2Inverse with linear maps: closed forms, and training that reaches them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from fem_apps.inverse.noisier2inverse_linear import LinearProblem, split_errors
from fem_apps.inverse.operators_ct import Geometry, projection_matrix


def filtered(m, sigma, tau):
    if sigma == 0:
        return tau**2 * np.eye(m)
    F = gaussian_filter1d(np.eye(m), sigma, axis=0, mode="reflect")
    spike = np.zeros(201)
    spike[100] = 1
    k = gaussian_filter1d(spike, sigma)
    return tau**2 * (0.99 * F @ F.T / (k @ k) + 0.01 * np.eye(m))


def one_dimensional(operator, sigma, tau=0.5, alpha=1.0):
    n, m = 48, 64
    t, s = np.arange(n) / (n - 1), np.arange(m) / (m - 1)
    C = np.exp(-((t[:, None] - t) ** 2) / (2 * 0.05**2)) + 1e-6 * np.eye(n)
    i, j = np.arange(m)[:, None], np.arange(n)
    if operator == "mix":
        A = np.sqrt(2 / 48) * np.sin(np.sqrt(2) * (i + 1) ** 2 * (j + 1))
        np.testing.assert_allclose([A[0, 0], A[-1, -1]], [0.2016268794, 0.1669511781], atol=1e-9)
    else:
        A = np.exp(-((s[:, None] - t) ** 2) / (2 * 0.03**2))
        A /= A.sum(axis=1, keepdims=True)
        np.testing.assert_allclose([A[0, 0], A[32, 24]], [0.4410779545, 0.2817926931], atol=1e-10)
    return LinearProblem(A, C, filtered(m, sigma, tau), alpha)


COLUMNS = [("mix", 0), ("mix", 1), ("mix", 3), ("blur", 0), ("blur", 1), ("blur", 3)]
ROWS = {
    "y": (0.500000, 0.506806, 0.520156, 0.500000, 0.506806, 0.520156),
    "z": (0.707107, 0.716732, 0.735611, 0.707107, 0.716732, 0.735611),
    "N2I(z)": (0.322645, 0.131422, 0.059193, 0.296023, 0.457194, 0.558159),
    "N2I, mean of 16": (0.258437, 0.105467, 0.046292, 0.235264, 0.379065, 0.474948),
    "N2I(y)": (0.253580, 0.103506, 0.045301, 0.230645, 0.373276, 0.468875),
    "supervised(y)": (0.245599, 0.100829, 0.044290, 0.223551, 0.356738, 0.443181),
    "naive(z)": (0.450638, 0.376005, 0.371361, 0.436717, 0.534037, 0.607402),
    "image N2I(z)": (0.436225, 0.229394, 0.102406, 0.412826, 0.577539, 0.635586),
    "image N2I(y)": (0.364686, 0.190321, 0.080214, 0.344118, 0.492057, 0.534193),
    "image LMMSE(y)": (0.349502, 0.183686, 0.077780, 0.332699, 0.471694, 0.505094),
}
SPLIT = [
    (0.734626, 0.842825, 0.833040, 0.297244, 0.482144, 0.518622),
    (0.734626, 0.725058, 0.656964, 0.297244, 0.357717, 0.444225),
]


@pytest.mark.parametrize("column", range(6))
def test_one_dimensional_operators(column):
    problem = one_dimensional(*COLUMNS[column])
    table = problem.table()
    for name, row in ROWS.items():
        assert abs(table[name] - row[column]) < 1e-6, name
    np.testing.assert_allclose(split_errors(problem), [r[column] for r in SPLIT], atol=1e-6)
    # the two-step correction is exact for linear maps
    np.testing.assert_allclose(
        2 * problem.naive() - np.eye(64), problem.noisier2inverse(), atol=1e-8
    )


def test_strength_and_wrong_noise():
    half = one_dimensional("mix", 3, alpha=0.5).table()
    want = {"z": 0.581552, "N2I(z)": 0.048660, "N2I(y)": 0.044385, "naive(z)": 0.466157}
    for name, value in want.items():
        assert abs(half[name] - value) < 1e-6
    p = one_dimensional("mix", 3)
    for assumed, want_z, want_y in (
        (filtered(64, 1, 0.5), 0.403466, 0.241274),
        (filtered(64, 3, 0.4), 0.155593, 0.121983),
    ):
        W = p.mistaken(assumed)
        # z carries the assumed noise on top of the true one
        assert abs(p.data_rmse(W, p.Sigma + assumed) - want_z) < 1e-6
        assert abs(p.data_rmse(W, p.Sigma) - want_y) < 1e-6


@pytest.mark.parametrize(
    ("sigma", "want"),
    [
        (0, (0.18849167, 0.14762828, 0.14329167, 0.26766926, 0.19191353)),
        (2, (0.34298935, 0.27788614, 0.26484427, 0.36500859, 0.26686251)),
    ],
)
def test_fourier_diagonal(sigma, want):
    k = np.fft.fftfreq(64, 1 / 64)
    a, c = 1 / (1 + (k / 4) ** 2), np.exp(-(k**2) / 50)
    c = c / c.mean()
    s = np.full(64, 0.09)
    if sigma:
        g = np.exp(-(sigma**2) * (2 * np.pi * k / 64) ** 2)
        s = 0.09 * (0.99 * g / g.mean() + 0.01)
    table = LinearProblem(np.diag(a), np.diag(c), np.diag(s)).table()
    names = ("N2I(z)", "N2I(y)", "supervised(y)", "naive(z)", "naive map on y")
    np.testing.assert_allclose([table[n] for n in names], want, atol=1e-8)
    image = {
        0: (0.51109038, 0.45420829, 0.43938241),
        2: (0.63650481, 0.54718589, 0.51929321),
    }[sigma]
    names = ("image N2I(z)", "image N2I(y)", "image LMMSE(y)")
    np.testing.assert_allclose([table[n] for n in names], image, atol=1e-8)
    np.testing.assert_allclose(table["clean"], 0.65215732, atol=1e-8)


@pytest.mark.parametrize(
    ("sigma", "want"),
    [
        (0, (0.00354106, 0.00273068, 0.00266698, 0.00770742, 0.52430918, 0.48282207, 0.46921818)),
        (3, (0.00865412, 0.00676407, 0.00658129, 0.01030390, 0.68483749, 0.64430572, 0.62798536)),
    ],
)
def test_finite_element_source(sigma, want):
    """-u'' = f by DOLFINx, 64 P1 cells, correlated sensor noise."""
    from mpi4py import MPI

    from fem_apps.inverse.operators_source import interval_source

    operator, x = interval_source(MPI.COMM_SELF, 64)
    A = operator.dense
    np.testing.assert_allclose(
        A @ np.sin(np.pi * x), np.sin(np.pi * x) / np.pi**2, rtol=2.5e-4, atol=0
    )
    C = np.exp(-((x[:, None] - x) ** 2) / 0.02) + 1e-6 * np.eye(63)
    i = np.arange(63)
    Sigma = 1e-4 * np.eye(63)
    if sigma:
        corr = np.exp(-((i[:, None] - i) ** 2) / (4 * sigma**2))
        Sigma = 1e-4 * (0.99 * corr + 0.01 * np.eye(63))
    table = LinearProblem(A, C, Sigma).table()
    names = ("N2I(z)", "N2I(y)", "supervised(y)", "naive(z)")
    names += ("image N2I(z)", "image N2I(y)", "image LMMSE(y)")
    np.testing.assert_allclose([table[n] for n in names], want, atol=2e-8)
    np.testing.assert_allclose(table["clean"], 0.05163240, atol=1e-8)


def test_toy_tomography():
    N, K, J, sigma, tau = 12, 10, 19, 1.5, 0.15
    angles = (np.arange(K) + 0.5) * np.pi / K
    s = -1.4 + 2.8 * (np.arange(J) + 0.5) / J
    A = projection_matrix(N, Geometry(angles, s)).toarray()
    assert abs(A.sum() - 271.493378440) < 1e-8
    assert np.linalg.matrix_rank(A) == 144
    p = -1 + (2 * np.arange(N) + 1) / N
    r = np.stack(np.meshgrid(p, p), axis=-1).reshape(-1, 2)
    gap = ((r[:, None] - r) ** 2).sum(axis=-1)
    C = 0.25 * np.exp(-gap / (2 * 0.3**2)) + 1e-6 * np.eye(N * N)
    parts = []
    for n in (K, J):
        parts.append(gaussian_filter1d(np.eye(n), sigma, axis=0, mode="wrap"))
    F = np.kron(*parts)
    spike = np.zeros(101)
    spike[50] = 1
    k = gaussian_filter1d(spike, sigma)
    # tau^2 is the interior variance, as with the l2 norm of the two-dimensional response
    Sigma = tau**2 * (0.99 * F @ F.T / (k @ k) ** 2 + 0.01 * np.eye(K * J))
    q = LinearProblem(A, C, Sigma)
    table = q.table()
    want = {
        "clean": 0.475730,
        "y": 0.150002,
        "N2I(z)": 0.105131,
        "N2I(y)": 0.078451,
        "supervised(y)": 0.076648,
        "image N2I(z)": 0.111563,
        "image N2I(y)": 0.084710,
        "image LMMSE(y)": 0.082399,
    }
    for name, value in want.items():
        assert abs(table[name] - value) < 1e-6, (name, table[name])
    W = q.noisier2inverse()
    assert np.linalg.norm(A @ q.image_noisier2inverse() - W) < 1e-10 * np.linalg.norm(W)


def test_least_squares_reaches_the_closed_form():
    """The trained linear map: y - eta regressed on z; its excess error is 64/N of the residual."""
    p = one_dimensional("mix", 3)
    rng = np.random.default_rng(0)
    L, root = np.linalg.cholesky(p.Sigma), np.linalg.cholesky(p.C)
    best = p.data_rmse(p.noisier2inverse(), p.noise_z)
    # the residual of the best map: 2 tr Sigma/m of noise, and the error itself
    residual = 2 * np.trace(p.Sigma) / 64 + best**2
    for N in (5000, 40000):
        x = rng.normal(size=(N, 48)) @ root.T
        y = x @ p.A.T + rng.normal(size=(N, 64)) @ L.T
        eta = rng.normal(size=(N, 64)) @ L.T
        W = np.linalg.lstsq(y + eta, y - eta, rcond=None)[0].T
        excess = p.data_rmse(W, p.noise_z) ** 2 - best**2
        assert 0.9 < excess / (64 / N * residual) < 1.1
    # unbiased risk: the self-supervised loss less 2 tr Sigma is the error against clean data
    z = y + eta
    held = ((z @ W.T - (y - eta)) ** 2).mean(axis=1) - 2 * np.trace(p.Sigma) / 64
    clean = ((z @ W.T - x @ p.A.T) ** 2).mean(axis=1)
    gap = held - clean
    # W has seen these data: its fit of their noise biases the loss down by 2 * 64/N residual
    bias = -2 * 64 / N * residual
    assert abs(gap.mean() - bias) < 4 * gap.std() / np.sqrt(N)
