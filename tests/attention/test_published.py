"""Reference values that no other test file holds; docs/attention_values.md lists them all."""

import numpy as np
import pytest

from fem_apps.attention import closed_forms as cf
from fem_apps.attention import funk_hecke as fh
from fem_apps.attention import gaussian_closure as gc
from fem_apps.attention import layer_norm_energy as le
from fem_apps.attention import published as pb
from fem_apps.attention import staircase as st
from fem_apps.attention.clusters import chord, labels
from fem_apps.attention.fields import make_field
from fem_apps.attention.gaussian import Ranks, rank_histogram
from fem_apps.attention.model import Attention
from fem_apps.attention.token_dynamics import Tokens, cloud

I = np.eye(2)
KINETIC = (0.0621971, 0.2143230, 1.8191226, 2.9110710, -3.0952483)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def merges_of(attention, x, end, mass=None):
    solver = Tokens(make_field(attention, x.shape[1]), cluster=chord(0.999))
    return solver.advance(cloud(x, mass), end, labels(x, chord(0.999)))[2]


# ------------------------------------------------------------------ kernel and linear theory
@pytest.mark.parametrize("d", [2, 3])
def test_rank_of_the_kernel(d):
    """First L with lambda_L/lambda_0 < 1e-12."""
    found = []
    for beta in (1, 2, 5, 10, 50):
        lam = fh.eigenvalues(beta, d, 80)
        found.append(int(np.flatnonzero(lam < 1e-12 * lam[0])[0]))
    assert np.abs(np.array(found) - [12, 15, 21, 27, 55]).max() <= 1


def test_sharp_threshold_scaling():
    """K_# = beta^(d/2)/(2^(d/2) Gamma(d/2) I_(d/2)(beta)) = 1/(2 kappa_1) (Mun, Rosenzweig)."""
    from scipy.special import gamma, iv

    for d, beta in ((2, 1.0), (3, 2.0), (5, 1.3), (8, 4.0)):
        k = beta ** (d / 2) / (2 ** (d / 2) * gamma(d / 2) * iv(d / 2, beta))
        assert 1 / (2 * fh.bifurcations(beta, d, 1)[0]) == pytest.approx(k, rel=1e-12)


def test_repulsive_limits():
    """Softmax: mode rates k(k+d-2) lambda_k/lambda_0 in time t/beta; heat as beta grows."""
    k = np.arange(1, 4)
    rates = 400 * fh.growth_rates(400.0, 3, 4, "softmax")[1:]
    assert rates == pytest.approx(k * (k + 1.0), rel=0.02)


@pytest.mark.slow
def test_periodic_clusters():
    """beta = 5: from equal amplitudes of all modes k = 3 wins, at (2 pi j - arg mu_k)/k.

    Bruno, Pasqualotto, Agazzi (2410.23228). At beta = 7 the rates of modes 3 and 4 differ by 6 %,
    and which of them wins depends on the draw.
    """
    rng, phi = np.random.default_rng(1), 2 * np.pi * np.arange(400) / 400
    theta = phi.copy()
    for k in range(1, 9):
        theta += 0.01 / k * np.sin(k * phi + rng.uniform(0, 2 * np.pi))
    field = make_field(Attention(variant="unnormalised", beta=5), 2)
    solver = Tokens(field, cluster=1e-9, glue=0.0, tolerance=1e-5)
    x = solver.advance(cloud(circle(theta)), 0.6, np.zeros(400, dtype=int))[0].x
    later = np.arctan2(x[:, 1], x[:, 0])
    moments = [np.mean(np.exp(-1j * k * later)) for k in range(1, 8)]
    assert int(np.argmax(np.abs(moments))) + 1 == fh.fastest_mode(5, 2) == 3
    first = np.mean(np.exp(-3j * theta))
    assert np.angle(moments[2] / first) == pytest.approx(0, abs=0.35)


# ------------------------------------------------------------------ lifetimes, simulated
@pytest.mark.slow
@pytest.mark.parametrize("beta", [0, 1, 4, 8, 12, 20])
def test_lifetimes_simulated(beta):
    exact = {0: 3.8002, 1: 4.27107, 4: 10.8312, 8: 196.716, 12: 6889.03, 20: 1.21918e7}
    merges = merges_of(Attention(beta=beta), circle([0, np.pi / 2]), 2e7)
    assert merges[0].t == pytest.approx(exact[beta], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "start", "time"),
    [
        (Attention(beta=4, variant="scaled"), np.pi / 2, 17.8622),
        (Attention(beta=12, variant="scaled"), np.pi / 2, 13774.3),
        (Attention(beta=4), 2 * np.pi / 3, 61.3217),
        (Attention(beta=12), 2 * np.pi / 3, 3.35405e6),
        (Attention(beta=8, masked=True), np.pi / 2, 393.43238),
    ],
    ids=["scaled 4", "scaled 12", "wide 4", "wide 12", "causal"],
)
def test_other_lifetimes_simulated(attention, start, time):
    merges = merges_of(attention, circle([0, start]), 2 * time)
    assert merges[0].t == pytest.approx(time, rel=1e-5)


def test_equiangular_rates():
    """Rates at g -> 1: 2 (SA), 2 e^beta (USA); n = 2, beta = 0: g = tanh t."""
    for kind, rate in (("softmax", 2.0), ("unnormalised", 2 * np.exp(3.0))):
        g = 1 - 1e-7
        assert cf.equiangular_rate(g, 3.0, 32, kind) / 1e-7 == pytest.approx(rate, rel=1e-5)
    assert cf.equiangular_time(0, 2, close=np.tanh(1.3)) == pytest.approx(1.3, rel=1e-9)


def test_orthogonal_curve():
    """The largest beta of linspace(.1, 9, 50) whose 128 orthogonal tokens have met by t = 30."""
    betas = np.linspace(0.1, 9, 50)
    met = [cf.equiangular_time(float(b), 128) <= 30 for b in betas]
    largest = betas[np.flatnonzero(met)[-1]]
    assert cf.equiangular_time(float(largest), 128) <= 30 < cf.equiangular_time(largest + 0.2, 128)
    assert 7 < largest < 8.5


def test_hemisphere():
    """Wendel's probabilities; a small case by linear programming."""
    from scipy.optimize import linprog

    found = [cf.hemisphere_probability(32, d) for d in (2, 16, 32)]
    assert found == pytest.approx([1.49e-8, 0.5, 1.0], rel=2e-3)
    rng = np.random.default_rng(0)
    n, d, draws = 7, 3, 400
    inside = 0
    for _ in range(draws):
        x = rng.standard_normal((n, d))
        done = linprog(np.zeros(d), A_ub=-x, b_ub=-np.ones(n), bounds=(None, None))
        inside += done.status == 0
    p = cf.hemisphere_probability(n, d)
    assert inside / draws == pytest.approx(p, abs=3 * np.sqrt(p * (1 - p) / draws))


def test_usa_keeps_rotation():
    """Sum x_i ^ x_i' = 0 under unnormalised attention in any dimension."""
    x = np.random.default_rng(2).standard_normal((20, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    f = make_field(Attention(variant="unnormalised", beta=3), 5)
    wedge = x.T @ np.asarray(f(x, x, np.full(20, -np.log(20))))
    assert wedge - wedge.T == pytest.approx(0, abs=1e-12)


def test_lemma():
    """u' = u(1-u)e^{beta(u-1)}: 1 - u = e^{-c beta} by e^{beta(1-u0)}/u0 + beta^2 c e/(beta-1)."""
    from scipy.integrate import quad

    for beta, u0, c in ((8.0, 0.3, 0.5), (20.0, 0.6, 0.3)):
        rate = lambda g, b=beta: 1 / (g * (1 - g) * np.exp(b * (g - 1)))  # noqa: E731
        time = quad(rate, u0, 1 - np.exp(-c * beta), limit=500, points=[1 - 1 / beta])[0]
        assert time <= np.exp(beta * (1 - u0)) / u0 + beta**2 * c * np.e / (beta - 1)


# ------------------------------------------------------------------ published Euler, staircase
def test_published_kinetic():
    """Merges of the published step 0.1: 5 -> 4 at 1.4, 2 -> 1 at 364.1; projected first 329.8."""
    plain = pb.euler_merges(circle(KINETIC), 4.0, 0.1, 400.0, tangent=False)
    projected = pb.euler_merges(circle(KINETIC), 4.0, 0.1, 400.0, tangent=True)
    assert plain[0] == (pytest.approx(1.4, abs=1e-9), 4)
    assert plain[-1] == (pytest.approx(364.1, abs=1e-6), 1)
    assert projected[-1] == (pytest.approx(329.8, abs=1e-6), 1)


def test_staircase_levels():
    """2 beta E half-way between two merges at beta = 3000 is sum m_q^2/n^2: .28, .44, .52, 1."""
    found = st.staircase(st.PUBLISHED, 3000)
    middle = np.interp((found.merges[1:] + found.merges[:-1]) / 2, found.s, found.energy)
    assert middle == pytest.approx([0.28, 0.44, 0.52], abs=1e-3)
    assert found.energy[-1] == pytest.approx(1.0, abs=1e-12)


def test_first_value_of_the_staircase():
    """2 beta E(0) at beta = 2000 in 30 digits: .21316, where the reference prints .2133."""
    import mpmath as mp

    mp.mp.dps = 30
    unit = mp.log(2000) / mp.sqrt(2000) / 2
    th = [unit * mp.mpf(z) for z in ("0", "0.5", "2", "4", "7")]
    e = sum(mp.exp(2000 * (mp.cos(a - b) - 1)) for a in th for b in th) / 25
    assert float(e) == pytest.approx(0.21316, abs=6e-6)
    assert st.published_rule(st.PUBLISHED, 2000.0, 1)[0] == pytest.approx(float(e), rel=1e-12)


# ------------------------------------------------------------------ Gaussian closure
Q35 = np.array([[0.458055, 0.308350], [0.231487, 0.277425]])
V35 = np.array([[2.669378, -0.691530], [-0.691530, 2.687446]])
TWO_LINES = np.array([[-0.228085, -1.283865], [-0.567607, -1.062401]])


@pytest.mark.parametrize("variant", ["softmax", "l2", "multi-head", "sinkhorn"])
def test_converges_to_zero(variant):
    """Q of full rank, K = -Q, V > 0: the covariance vanishes, like 1/t."""
    assert np.random.RandomState(35).rand(2, 2) == pytest.approx(Q35, abs=1e-6)
    if variant == "multi-head":
        parts = tuple(
            gc.Head(-np.outer(q, q), np.outer(e, e) @ V35, q[None])
            for q, e in zip(Q35, I, strict=True)
        )
        c = gc.Closure("softmax", parts)
    else:
        c = gc.Closure(variant, (gc.head(Q35, -Q35, V35, 1 if variant == "sinkhorn" else 2**-0.5),))
    ends = [np.trace(gc.flow(c, I / 2, end=t, outputs=[t]).sigma[-1]) for t in (1e3, 1e4)]
    assert ends[1] < 0.02
    assert ends[1] == pytest.approx(ends[0] / 10, rel=0.3)


def test_line_from_the_identity():
    """Limit .5 n n^T from I/2, the same for softmax and L2."""
    q = np.array([[0.406324, 0.913729]])
    n = np.array([-0.913729, 0.406324])
    exact = gc.exact_limit(I / 2, -q.T @ q)
    assert exact == pytest.approx(np.outer(n, n) / 2, abs=1e-6)
    for variant in ("softmax", "l2"):
        c = gc.Closure(variant, (gc.head(q, -q, I, 2**-0.5),))
        f = gc.flow(c, I / 2, settle=1e-11, tolerance=1e-9)
        assert f.sigma[-1] == pytest.approx(exact, abs=2e-5)


def test_spectra_of_the_matrices():
    assert np.linalg.eigvalsh(TWO_LINES + TWO_LINES.T) == pytest.approx(
        [-3.321257, 0.740285], abs=3e-6
    )
    E = np.array([[0.246175, 0.685216], [0.396288, 1.848125]])
    assert np.linalg.eigvalsh(E + E.T) == pytest.approx([0.161454, 4.027145], abs=3e-6)
    Q = np.array([[-0.096784, 0.422202], [-0.225462, -0.637943]])
    K = np.array([[-0.016286, 1.044217], [-1.084880, -2.205925]])
    assert pytest.approx(E, abs=3e-6) == K.T @ Q


def test_rank_one_states():
    """The limit lines u of the two-lines experiment: u^T A u = 0, and c u u^T stands still."""
    V = np.array([[-0.348894, 0.983703], [0.580923, 0.070284]])
    for u in ((0.991219, -0.132232), (0.527786, -0.849377)):
        u = np.array(u)
        assert u @ TWO_LINES @ u == pytest.approx(0, abs=2e-6)
        c = gc.Closure("softmax", (gc.Head(TWO_LINES, V, I),))
        assert c.sigma_rate(0.7 * np.outer(u, u)) == pytest.approx(0, abs=2e-6)


def test_sinkhorn_growth():
    """1-D Sinkhorn grows at most like e^{2 |v| t}."""
    c = gc.Closure("sinkhorn", (gc.Head(5 * np.eye(1), 0.8 * np.eye(1), np.eye(1)),))
    f = gc.flow(c, np.eye(1), end=3.0, outputs=[1.0, 2.0, 3.0])
    growth = np.diff(np.log(f.sigma[:, 0, 0])) / np.diff(f.t)
    assert (growth < 1.6).all()
    assert growth[-1] > 1.5


@pytest.mark.parametrize("variant", ["softmax", "l2"])
def test_rank_histograms_identity(variant):
    """V = I, exact: each of the 100 draws has its own Q."""
    attention = Attention(layer_norm=False, variant=variant)
    found = rank_histogram(attention, Ranks(dimensions=(3, 4, 5)))
    assert found["3"] == [1, 31, 68, 0]
    assert found["5"] == [0, 0, 46, 54, 0, 0]
    assert found["4"] == [0, 32, 68, 0, 0]


def test_rank_distribution():
    """The published 100 draws lie within three binomial errors of 1500 others."""
    more = Ranks(draws=1500, seed_q=1, seed_sigma=2)
    found = rank_histogram(Attention(layer_norm=False), more)
    for d, counts in (("3", [1, 31, 68, 0]), ("5", [0, 0, 46, 54, 0, 0])):
        p = np.array(found[d]) / 1500
        error = 3 * np.sqrt(p * (1 - p) / 100) + 0.01
        assert (np.abs(np.array(counts) / 100 - p) <= error).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "seed", "counts"),
    [
        ("softmax", 26, {"3": [0, 25, 74, 1], "5": [0, 0, 36, 64, 0, 0]}),
        ("l2", 27, {"3": [1, 23, 75, 1], "4": [0, 24, 76, 0, 0]}),
    ],
)
def test_rank_histograms_gram(variant, seed, counts):
    """V = G^T G, stopped at |Sigma'| < 5e-5."""
    attention = Attention(layer_norm=False, variant=variant)
    found = rank_histogram(attention, Ranks(value="gram", seed_v=seed))
    for d, expected in counts.items():
        assert np.abs(np.array(found[d]) - expected).max() <= 1


@pytest.mark.slow
def test_rank_histogram_of_euler():
    """The published forward Euler on the same draws, V = I, d = 3: 3, 48, 49 for 1, 31, 68."""
    ranks = Ranks(dimensions=(3,), euler_step=(0.09,))
    found = rank_histogram(Attention(layer_norm=False), ranks)
    assert found["3 euler"] == [3, 48, 49, 0, 0]


# ------------------------------------------------------------------ layer normalisation
PAIRS = {0: 99, 2: 99, 5: 99, 6: 95, 8: 84, 9: 50, 10: 0, 12: 0, 15: 0, 17: 94, 19: 99}
# published counts of 100 runs at D = diag(dd, 1), dd = linspace(0, 1.5, 20)[key]; 98 to 100 where
# the reference says no more


@pytest.mark.parametrize("index", [0, 8, 9, 12, 17])
def test_figure_2(index):
    """Share of runs that end in two clusters, within three binomial errors of both samples."""
    repeats, share = 30, PAIRS[index] / 100
    found = pb.two_cluster_runs(np.linspace(0, 1.5, 20)[index], repeats) / repeats
    p = max(0.5 * (found + share), 0.02)
    assert found == pytest.approx(share, abs=3 * np.sqrt(p * (1 - p) * (1 / 100 + 1 / repeats)))


@pytest.mark.slow
@pytest.mark.parametrize("index", PAIRS)
def test_figure_2_in_full(index):
    """100 runs, as published."""
    found = pb.two_cluster_runs(np.linspace(0, 1.5, 20)[index], 100, seed=1)
    p = max(0.005 * (found + PAIRS[index]), 0.02)
    assert found == pytest.approx(PAIRS[index], abs=300 * np.sqrt(p * (1 - p) * 2 / 100))


def test_figure_4():
    """Descent of four tokens: tau = 0.05 gives d2 up to 5 and collapses from 6; 5e-4 does not."""
    for d2 in (0.5, 2.0, 5.0):
        assert pb.four_particle_ratio(d2, 0.05) == pytest.approx(d2, rel=1e-3)
    for d2 in (6.0, 8.0, 10.0):
        assert pb.four_particle_ratio(d2, 0.05) == pytest.approx(0, abs=1e-6)
    assert pb.four_particle_ratio(6.0, 5e-4) == pytest.approx(5.99992, abs=1e-5)
    # the published 5.9993 is that of single precision
    angle = np.pi / 4 + np.pi / 2 * np.arange(4)
    x, D = circle(angle).astype(np.float32), np.diag([1, 6]).astype(np.float32)
    for _ in range(10_000):
        x = x - np.float32(5e-4 / 4) * (np.exp(x @ D @ x.T) @ x @ D)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    ratio = np.mean(np.tanh(x[:, 0] ** 2) / np.tanh(6 * x[:, 1] ** 2))
    assert ratio == pytest.approx(5.9993, abs=1e-4)


def test_large_eigenvalue_limits():
    """D = diag(1, d2), d2 -> infinity: the energy of the minimiser tends to cosh 1."""
    gaps = [np.cosh(1) - le.minimise_on_sphere(np.diag([1.0, d]), 180).energy for d in (5, 10, 15)]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.3 * gaps[0]


@pytest.mark.parametrize("dd", [0.2, 0.6, 1.3])
def test_figure_7(dd):
    """D = diag(-1, dd): one cluster has e^dd, the two pairs cosh 1 and cosh dd."""
    D = np.diag([-1.0, dd])
    energy = lambda x: np.exp(np.array(x) @ D @ np.array(x).T).mean()  # noqa: E731
    assert energy([[0, 1.0]]) == pytest.approx(np.exp(dd))
    assert energy([[1.0, 0], [-1, 0]]) == pytest.approx(1.543081, abs=1e-6)
    assert energy([[0, 1.0], [0, -1]]) == pytest.approx(np.cosh(dd))
    assert le.maximiser(D).energy == pytest.approx(max(np.exp(dd), np.cosh(1)))


@pytest.mark.parametrize(
    ("d2", "modes", "value"), [(3.1, 24, 8.05e-3), (4.0, 36, 8.75e-4), (5.0, 48, 7.1e-5)]
)
def test_support_in_many_digits(d2, modes, value):
    """The density of constant potential stays positive beyond d2 = 3.073 (220 digits)."""
    import mpmath as mp

    mp.mp.dps = 220
    p, q = (1 + mp.mpf(d2)) / 2, (1 - mp.mpf(d2)) / 2
    bp = [mp.besseli(k, p) for k in range(2 * modes)]
    bq = [mp.besseli(k, q) for k in range(2 * modes)]

    def entry(j, k):
        return bp[j + k] * bq[abs(j - k)] + bp[abs(j - k)] * bq[j + k]

    A = mp.matrix(modes - 1, modes - 1)
    b = mp.matrix(modes - 1, 1)
    for j in range(1, modes):
        b[j - 1] = -entry(j, 0) / 2
        for k in range(1, modes):
            A[j - 1, k - 1] = entry(j, k)
    c = mp.lu_solve(A, b)
    least = min(
        1 + 2 * mp.fsum(c[j - 1] * mp.cos(2 * j * phi) for j in range(1, modes))
        for phi in (mp.pi * i / 100 for i in range(51))
    )
    assert float(least) == pytest.approx(value, rel=2e-3)
