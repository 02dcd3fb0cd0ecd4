"""Riccati solutions, invariants, blow-up, laws in one dimension, rank histograms."""

import numpy as np
import pytest

from fem_apps.attention import gaussian_closure as gc
from fem_apps.attention.gaussian import (
    Portrait,
    Ranks,
    closure,
    cone_grid,
    phase_portrait,
    portrait_counts,
    rank_histogram,
)
from fem_apps.attention.model import Attention
from fem_apps.errors import CaseError

I = np.eye(2)
EXPLOSION = np.array([[0.246175, 0.685216], [0.396288, 1.848125]]) / np.sqrt(2)


def softmax(A, V=None):
    return gc.Closure("softmax", (gc.Head(A, np.eye(len(A)) if V is None else V, np.eye(len(A))),))


def test_exact_covariance():
    rng = np.random.default_rng(0)
    for d in (1, 2, 5):
        A = rng.standard_normal((d, d))
        S = np.eye(d) + 0.2 * np.ones((d, d))
        t = 0.5 * min(gc.exact_blow_up(S, A), 1.0)
        found = gc.flow(softmax(A), S, end=t, tolerance=1e-13, outputs=[t]).sigma[-1]
        exact = gc.exact_sigma(S, A, t)
        assert np.abs(found - exact).max() < 1e-10 * np.abs(exact).max()


def test_mean():
    f = gc.flow(
        softmax(np.diag([-0.7, 0.4])),
        np.diag([1.3, 0.5]),
        np.array([1.0, -2]),
        end=1.2,
        tolerance=1e-12,
        outputs=[1.2],
    )
    assert f.alpha[-1] == pytest.approx([1.86065926, -9.20834754], abs=1e-7)


def test_blow_up():
    assert gc.exact_blow_up(I / 2, EXPLOSION) == pytest.approx(0.702340, abs=1e-6)
    f = gc.flow(softmax(EXPLOSION), I / 2)
    assert f.blow_up_time == pytest.approx(0.702340, abs=1e-6)
    assert f.rank == 1


def test_multi_head_explosion():
    """Trace 1e3 at t = 0.674373 from I/2: two heads, A scaled by sqrt(d/H) = 1."""
    Q = np.array([[-0.096784, 0.422202], [-0.225462, -0.637943]])
    K = np.array([[-0.016286, 1.044217], [-1.084880, -2.205925]])
    parts = []
    for h in range(2):
        C = np.zeros((2, 2))
        C[h, h] = 1.0
        parts.append(gc.Head(np.outer(K[h], Q[h]), C, K[h : h + 1]))
    f = gc.flow(gc.Closure("softmax", tuple(parts)), I / 2, divergence=1e3)
    trace = np.trace(f.sigma, axis1=1, axis2=2)
    t = np.interp(np.log(1e3), np.log(trace[-3:]), f.t[-3:])
    assert t == pytest.approx(0.674373, abs=2e-5)


@pytest.mark.parametrize("variant", ["softmax", "l2"])
def test_limit_and_conserved_vector(variant):
    q = np.array([[0.406324, 0.913729]])
    q /= np.linalg.norm(q)
    n = np.array([-q[0, 1], q[0, 0]])
    c = gc.Closure(variant, (gc.head(q, -q, I, 2**-0.5),))
    S = np.array([[0.5, 0.1], [0.1, 0.4]])
    f = gc.flow(c, S, settle=1e-10, tolerance=1e-10)
    exact = np.outer(n, n) / (n @ np.linalg.solve(S, n))
    assert f.sigma[-1] == pytest.approx(exact, abs=1e-4)  # the approach is O(1/t)
    middle = f.sigma[len(f.sigma) // 3]
    assert np.linalg.solve(middle, n) == pytest.approx(np.linalg.solve(S, n), abs=1e-6)


def test_two_head_plane():
    """Second head empty, V = I: Sigma_22 and q.Sq/((Sq)_2)^2 stay; the limit from I/2."""
    q = np.array([0.406324, 0.913729])
    q /= np.linalg.norm(q)
    head = gc.Head(-np.outer(q, q), np.diag([1.0, 0]), q[None, :])
    f = gc.flow(gc.Closure("softmax", (head,)), I / 2, settle=1e-11)
    S = f.sigma[-1]
    exact = np.array([[q[1] ** 2 / 2, -q[0] * q[1] / 2], [-q[0] * q[1] / 2, 0.5]])
    assert pytest.approx(exact, abs=1e-4) == S
    assert exact == pytest.approx(np.array([[0.417451, -0.185635], [-0.185635, 0.5]]), abs=1e-6)
    assert f.sigma[:, 1, 1] == pytest.approx(0.5, abs=1e-8)
    Sq = f.sigma @ q
    invariant = (Sq @ q) / Sq[:, 1] ** 2
    assert invariant == pytest.approx(invariant[0], rel=1e-6)


def test_one_dimension():
    """Softmax, L2 and Sinkhorn laws of the variance."""
    v, a, s0, t = 0.7, -1.3, 0.8, 2.0
    one = np.eye(1)
    f = gc.flow(softmax(a * one, v * one), s0 * one, end=t, outputs=[t])
    assert f.sigma[-1, 0, 0] == pytest.approx(s0 / (1 - 2 * v * a * s0 * t), rel=1e-7)
    k, q = 1.1, 0.6
    c = gc.Closure("l2", (gc.Head(k * q * one, v * one, k * one),))
    s = gc.flow(c, s0 * one, end=t, outputs=[t]).sigma[-1, 0, 0]
    law = lambda s: -1 / s + 2 * k * k * np.log(s)  # noqa: E731
    assert law(s) - law(s0) == pytest.approx(4 * v * k * q * t, rel=1e-7)
    c = gc.Closure("sinkhorn", (gc.Head(a * one, v * one, one),))
    rate = c.sigma_rate(s0 * one)[0, 0]
    s = a * s0
    assert rate == pytest.approx(2 * v * 2 * s / (1 + np.sqrt(1 + 4 * s * s)) * s0)


def test_sinkhorn_coupling():
    """Sigma^-1 C = A^T (Sigma - C^T Sigma^-1 C), with C read off Sigma' for V = I."""
    rng = np.random.default_rng(1)
    A, L = rng.standard_normal((2, 3, 3))
    S = L @ L.T
    c = gc.Closure("sinkhorn", (gc.Head(A, np.eye(3), np.eye(3)),))
    F = gc.factor(S)
    Ct = c.rates(np.zeros(3), F)[1] @ F.T  # V C^T
    C = Ct.T
    left = np.linalg.solve(S, C)
    assert left == pytest.approx(A.T @ (S - C.T @ np.linalg.solve(S, C)), abs=1e-10)


def test_l2_and_sinkhorn_never_blow_up():
    for variant in ("l2", "sinkhorn"):
        c = gc.Closure(variant, (gc.Head(EXPLOSION, I, I),))
        assert gc.flow(c, I / 2).blow_up_time is None


def test_small_covariance():
    """The normalised variants agree to leading order, L2 with A for A/2."""
    A = np.array([[0.3, -0.8], [0.5, 0.1]])
    S = 1e-6 * np.array([[2.0, 0.3], [0.3, 1.0]])
    rates = [
        gc.Closure(v, (gc.Head(M, I, 0.5 * I),)).sigma_rate(S)
        for v, M in (("softmax", A), ("sinkhorn", A), ("l2", A / 2))
    ]
    assert rates[1] == pytest.approx(rates[0], rel=1e-4)
    assert rates[2] == pytest.approx(rates[0], rel=1e-4)


def test_trace_law():
    """V > 0 symmetric, K = -Q: tr(V^-1 Sigma) falls."""
    V = np.array([[2.669378, -0.691530], [-0.691530, 2.687446]])
    Q = np.array([[0.458055, 0.308350], [0.231487, 0.277425]])
    for variant in ("softmax", "l2"):
        f = gc.flow(gc.Closure(variant, (gc.head(Q, -Q, V, 2**-0.5),)), I / 2, settle=1e-3)
        trace = np.einsum("ij,tji->t", np.linalg.inv(V), f.sigma)
        assert (np.diff(trace) <= 1e-12).all()


def test_euler_misses_the_limit():
    """The published scheme, V = I, from a large covariance: it settles, elsewhere."""
    q = np.array([[0.406324, 0.913729]])
    c = gc.Closure("softmax", (gc.head(q, -q, I, 2**-0.5),))
    S = 5 * np.array([[1.0, 0.3], [0.3, 0.6]])
    exact = gc.exact_limit(S, c.heads[0].A)
    found, how = gc.euler(c, S, 0.5)
    assert how == "converged"
    assert np.linalg.norm(found - exact) > 0.1 * np.linalg.norm(exact)
    f = gc.flow(c, S, settle=1e-9)
    assert np.linalg.norm(f.sigma[-1] - exact) < 1e-3 * np.linalg.norm(exact)


def test_rank_histograms():
    """Limits have rank at most ceil(d/2); with a threshold of 0.1 some count as less."""
    attention = Attention(layer_norm=False)
    found = rank_histogram(attention, Ranks(dimensions=(3, 5), draws=40))
    for d, counts in found.items():
        assert sum(counts) == 40
        assert sum(counts[(int(d) + 1) // 2 + 1 :]) == 0
    gram = rank_histogram(
        attention, Ranks(dimensions=(3,), draws=1, value="gram", euler_step=(0.3,))
    )
    assert sum(gram["3"]) == sum(gram["3 euler"]) == 1


def test_grids():
    sizes = [len(cone_grid(n, h)) for n, h in ((10, 0.5), (20, 1.0), (30, 1.0), (40, 1.0))]
    assert sizes == [100, 276, 648, 1184]


def test_what_does_not_close():
    for a in (
        Attention(layer_norm=False, variant="sigmoid"),
        Attention(),
        Attention(layer_norm=False, masked=True),
    ):
        with pytest.raises(CaseError):
            closure(a, 2)
    with pytest.raises(CaseError, match="alike"):
        gc.head(np.eye(2), np.ones((1, 2)), np.eye(2))
    with pytest.raises(CaseError, match="negative eigenvalue"):
        gc.factor(np.diag([1.0, -1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("V", "points", "counts"),
    [
        (((-0.348894, 0.983703), (0.580923, 0.070284)), 20, {149, 127}),
        (((1.831753, -0.376888), (0.348112, -0.116282)), 30, {57, 591}),
    ],
    ids=["two lines", "both"],
)
def test_published_portraits(V, points, counts):
    """How many of the grid's trajectories end where."""
    K = ((-0.228085, -0.567607), (-1.283865, -1.062401))
    closed = closure(Attention(layer_norm=False, K=K, V=V), 2)
    portrait = phase_portrait(closed, Portrait(points=points, half_width=1))
    assert set(portrait_counts(portrait).values()) == counts
