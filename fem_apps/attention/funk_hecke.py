"""The kernel exp(beta x.y) on S^(d-1) in Gegenbauer modes: eigenvalues, growth rates, bifurcations.

sigma is the uniform probability measure, N_k the number of harmonics of degree k, P_k the
Gegenbauer polynomials with P_k(1) = 1, and

    exp(beta x.y) = sum_k N_k lambda_k P_k(x.y),
    lambda_k = Gamma(d/2) (2/beta)^(d/2-1) I_(k+d/2-1)(beta)      (Funk 1915, Hecke 1917).

A mode of degree k about the uniform density grows at k(k+d-2) (lambda_k/beta - kappa) under the
unnormalised attention with noise kappa, with lambda_k/lambda_0 for lambda_k under softmax.
Sources: Geshkovski et al. (arXiv 2312.10794), Bruno et al. (2410.23228), Shalova, Schlichting
(2412.14813), Mun, Rosenzweig (2606.05140).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, hyp0f1, ive, roots_gegenbauer, roots_legendre

Normalisation = Literal["softmax", "unnormalised"]


def eigenvalues(beta: float, d: int, count: int) -> np.ndarray:
    """exp(-beta) lambda_k(beta), k = 0, ..., count - 1: scaled, so that no beta overflows.

    Args:
        beta: inverse temperature, >= 0.
        d: dimension of the space, >= 2.
        count: how many.

    Returns:
        (count,).
    """
    if beta == 0:
        return (np.arange(count) == 0).astype(float)
    nu = d / 2 - 1
    first = ive(nu, beta)
    if first > 1e-200:
        first *= np.exp(gammaln(d / 2) + nu * np.log(2 / beta))
    else:  # large d
        first = hyp0f1(d / 2, beta**2 / 4) * np.exp(-beta)
    ratios = [bessel_ratio(k + nu, beta) for k in range(count - 1)]
    return first * np.cumprod([1.0, *ratios])


def bessel_ratio(nu: float, x: float) -> float:
    """I_(nu+1)(x) / I_nu(x) by Gauss's continued fraction, without overflow at any nu and x."""
    below, terms = 0.0, int(50 + 1.5 * x)
    for k in range(terms, 0, -1):
        below = 1 / (2 * (nu + k) / x + below)
    return below


def multiplicities(d: int, count: int) -> np.ndarray:
    """N_k, the number of harmonics of degree k = 0, ..., count - 1 on S^(d-1)."""
    k = np.arange(count)
    if d == 2:
        return np.where(k == 0, 1.0, 2.0)
    log = gammaln(k + d - 2) - gammaln(k + 1) - gammaln(d - 1)
    return (2 * k + d - 2) * np.exp(log)


def laplace(d: int, count: int) -> np.ndarray:
    """Minus the eigenvalues of the Laplace-Beltrami operator, k (k + d - 2)."""
    k = np.arange(count)
    return k * (k + d - 2.0)


def growth_rates(
    beta: float, d: int, count: int, kind: Normalisation = "softmax", kappa: float = 0.0
) -> np.ndarray:
    """Growth rate of each mode about the uniform density, V = I; for V = -I minus it.

    Args:
        beta: inverse temperature, > 0.
        d: dimension.
        count: modes k = 0, ..., count - 1.
        kind: softmax, or unnormalised attention.
        kappa: noise, coefficient of the Laplace-Beltrami operator.

    Returns:
        (count,).
    """
    scaled = eigenvalues(beta, d, count)
    lam = scaled / scaled[0] if kind == "softmax" else scaled * np.exp(beta)
    return laplace(d, count) * (lam / beta - kappa)


def fastest_mode(beta: float, d: int) -> int:
    """The degree that grows fastest from the uniform density; the same for both attentions."""
    count = int(20 + 4 * np.sqrt(beta + 1) + beta)
    return int(np.argmax(laplace(d, count) * eigenvalues(beta, d, count)))


def mode_switch(k: int, d: int) -> float:
    """The beta at which the fastest degree changes from k to k + 1."""

    def difference(beta: float) -> float:
        lam = eigenvalues(beta, d, k + 2) * laplace(d, k + 2)
        return float((lam[k] - lam[k + 1]) / lam[k])

    return float(brentq(difference, 1e-3, 20.0 * (k + 1) ** 2 + 20, xtol=1e-12))


def bifurcations(
    beta: float, d: int, count: int, kind: Normalisation = "unnormalised"
) -> np.ndarray:
    """Noise kappa_k = lambda_k / beta, k = 1, ..., count, where mode k of the uniform state turns.

    With softmax kappa_k = lambda_k / (beta lambda_0). The uniform state is stable for kappa above
    kappa_1.
    """
    scaled = eigenvalues(beta, d, count + 1)
    factor = 1 / scaled[0] if kind == "softmax" else np.exp(beta)
    return scaled[1:] * factor / beta


def sharp_beta(d: int) -> float:
    """beta_* with I_(d/2+1)/I_(d/2) = 1/d: the transition is continuous up to it, a jump above.

    Mun, Rosenzweig (arXiv 2606.05140).
    """
    return float(brentq(lambda b: bessel_ratio(d / 2, b) - 1 / d, 0.5, 10.0, xtol=1e-13))


def zonal_quadrature(d: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes t = x.e and weights of the uniform probability measure for zonal functions."""
    if d == 2:
        t = np.cos(np.pi * (np.arange(points) + 0.5) / points)
        return t, np.full(points, 1 / points)
    if d == 3:
        t, w = roots_legendre(points)
        return t, w / 2
    t, w = roots_gegenbauer(points, d / 2 - 1)
    return t, w / w.sum()


def zonal_polynomials(d: int, count: int, t: np.ndarray) -> np.ndarray:
    """P_k(t), k = 0, ..., count - 1, with P_k(1) = 1: (count, len(t))."""
    out = np.empty((count, len(t)))
    out[0] = 1.0
    if count > 1:
        out[1] = t
    for k in range(1, count - 1):
        out[k + 1] = ((2 * k + d - 2) * t * out[k] - k * out[k - 1]) / (k + d - 2)
    return out
