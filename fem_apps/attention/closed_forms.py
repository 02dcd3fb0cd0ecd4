"""Token systems that reduce to one equation: lifetimes by quadrature, and the theorem's constants.

On the sphere, x_i' = P_{x_i} sum_j w_ij x_j with softmax weights (SA), or with
w_ij = exp(beta (<x_i, x_j> - 1)) / n (scaled USA). Sources: Geshkovski et al. (arXiv 2312.10794,
2410.06833); Watanabe, Strogatz (1994) for beta = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.integrate import quad
from scipy.stats import binom

from fem_apps.attention.clusters import CLOSE


def two_cluster_speed(
    u: np.ndarray | float, beta: float, kind: Literal["softmax", "scaled"], share: float = 0.5
) -> np.ndarray | float:
    """-u' of the angle u between two clusters of masses share, 1 - share.

    SA: sin u [(1-p) e / (p + (1-p) e) + p e / ((1-p) + p e)], e = exp(beta (cos u - 1));
    scaled USA: sin u e, for any masses.
    """
    e = np.exp(beta * (np.cos(u) - 1))
    p, q = share, 1 - share
    weight = e if kind == "scaled" else q * e / (p + q * e) + p * e / (q + p * e)
    return np.sin(u) * weight


def two_cluster_time(
    beta: float,
    start: float,
    kind: Literal["softmax", "scaled"] = "softmax",
    share: float = 0.5,
    close: float = CLOSE,
) -> float:
    """Time until two clusters at angle `start` have cos u = close: int du / (-u')."""

    # in log u: the integrand has a peak at the start, wide 1/beta, and 1/u at the end
    def integrand(s: float) -> float:
        u = np.exp(s)
        return float(u / two_cluster_speed(u, beta, kind, share))

    low, high = np.log(np.arccos(close)), np.log(start)
    knots = [high - c / (1 + beta) for c in (0.1, 1.0, 10.0) if high - c / (1 + beta) > low]
    return quad(integrand, low, high, epsabs=0, epsrel=1e-12, limit=500, points=knots)[0]


def causal_time(beta: float, start: float, close: float = CLOSE) -> float:
    """The same for the second token of causal softmax attention, whose first token stands still."""
    return 2 * two_cluster_time(beta, start, "softmax", 0.5, close)


def equiangular_rate(
    g: np.ndarray | float, beta: float, n: int, kind: Literal["softmax", "unnormalised"]
) -> np.ndarray | float:
    """G' of the common inner product of n tokens.

    SA 2 e^{beta g} (1-g)((n-1)g+1) / (e^beta + (n-1) e^{beta g}); USA (2/n) e^{beta g} (...).
    """
    shape = (1 - g) * ((n - 1) * g + 1)
    if kind == "unnormalised":
        return 2 / n * np.exp(beta * g) * shape
    return 2 * shape / (np.exp(beta * (1 - g)) + n - 1)


def equiangular_time(
    beta: float,
    n: int,
    kind: Literal["softmax", "unnormalised"] = "softmax",
    start: float = 0.0,
    close: float = CLOSE,
) -> float:
    """Time until n tokens with equal inner products `start` (0: orthogonal) have `close`."""
    middle = (start + close) / 2
    left = quad(
        lambda g: 1 / equiangular_rate(g, beta, n, kind), start, middle, epsabs=0, limit=500
    )
    right = quad(  # g = 1 - e^-s: the rate vanishes linearly at 1
        lambda s: np.exp(-s) / equiangular_rate(1 - np.exp(-s), beta, n, kind),
        -np.log(1 - middle),
        -np.log(1 - close),
        epsabs=0,
        limit=500,
    )
    return left[0] + right[0]


def hemisphere_probability(n: int, d: int) -> float:
    """That n uniform points of S^(d-1) lie in one open hemisphere (Wendel 1962).

    2^-(n-1) sum_{k < d} C(n-1, k). Such tokens end as one cluster, exponentially fast.
    """
    return float(binom.cdf(d - 1, n - 1, 0.5))


def kuramoto_order(r0: float, t: float) -> float:
    """R(t) of beta = 0 on the circle from the Poisson kernel of order r0 (n -> infinity)."""
    c = r0**2 / (1 - r0**2) * np.exp(t)
    return float(np.sqrt(c / (1 + c)))


def cross_ratio(a: float, b: float, c: float, d: float) -> float:
    """The Watanabe-Strogatz invariant of four angles under beta = 0."""
    s = np.sin
    return float(s((a - b) / 2) * s((c - d) / 2) / (s((a - d) / 2) * s((c - b) / 2)))


@dataclass(frozen=True)
class Metastability:
    """Constants of the theorem of arXiv 2410.06833: clusters form by T1 and stay until T2.

    alpha: greatest inner product between the doubled caps; gamma > 0: separated.
    """

    alpha: float
    gamma: float
    t1: float
    t2: float


def metastability(
    angle: float, n: int, beta: float, eps: float, share: float = 0.5
) -> Metastability:
    """Constants for n tokens in caps {<x, w_q> >= 1 - eps} whose centres are `angle` apart.

    lambda = share (1 - alpha); T1 = 2n e^{8 eps beta} + e n lambda beta^2/(beta-1),
    T2 = (eps/n) e^{(1-alpha) beta}.

    Args:
        angle: least angle between two centres, radians.
        n: number of tokens.
        beta: inverse temperature, > 1.
        eps: height of the caps, < 1/16.
        share: lambda over 1 - alpha, in (0, 1).
    """
    alpha = np.cos(max(angle - 2 * np.arccos(1 - 2 * eps), 0.0))
    gamma = 1 - alpha - 8 * eps - np.log(2 * n**2 / eps) / beta
    lam = share * (1 - alpha)
    t1 = 2 * n * np.exp(8 * eps * beta) + np.e * n * lam * beta**2 / (beta - 1)
    t2 = eps / n * np.exp((1 - alpha) * beta)
    return Metastability(float(alpha), float(gamma), float(t1), float(t2))
