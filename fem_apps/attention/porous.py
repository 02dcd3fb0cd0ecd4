"""Attention with localised repulsion: the porous-medium limit and its degenerate transition.

    F(rho) = (c/2) int rho^2 d sigma - (a/(2 beta)) iint e^{beta x.y} rho rho,
    F - F(uniform) = (1/2) sum_k N_k (c - a lambda_k/beta) m_k^2 for zonal rho, exactly.

Uniform is the global minimiser iff c >= c_1 = a lambda_1/beta; at c_1 all 1 + b.x, |b| <= 1, are,
so that just below the order parameter |int x rho| jumps to 1/d. Beyond, rho =
(const + (a/beta) k*rho)_+ / c, which has a gap. Source: Peletier, Shalova (arXiv 2512.03185).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from fem_apps.attention.funk_hecke import (
    eigenvalues,
    multiplicities,
    zonal_polynomials,
    zonal_quadrature,
)
from fem_apps.errors import SolveError


def critical_repulsion(beta: float, d: int, a: float = 1.0) -> float:
    """c_1 = a lambda_1 / beta."""
    return float(a * eigenvalues(beta, d, 2)[1] * np.exp(beta) / beta)


@dataclass(frozen=True)
class PorousState:
    """A zonal minimiser: density at t = x.e, order parameter, F - F(uniform), support fraction."""

    t: np.ndarray
    density: np.ndarray
    m: float
    energy: float
    support: float


def porous_state(
    beta: float, d: int, c: float, a: float = 1.0, *, points: int = 4000, modes: int = 60
) -> PorousState:
    """The clustered minimiser for c < c_1, by steps that lower F: the attraction is concave.

    Raises:
        SolveError: c >= c_1 (uniform), or no convergence.
    """
    if c >= critical_repulsion(beta, d, a):
        raise SolveError("clustered state", f"c = {c:g} >= c_1: the uniform state is the minimiser")
    t, w = zonal_quadrature(d, points)
    P = zonal_polynomials(d, modes, t)
    N = multiplicities(d, modes)
    lam = a / beta * eigenvalues(beta, d, modes) * np.exp(beta)
    m = np.where(np.arange(modes) < 2, [1.0, 1.0] + [0.0] * (modes - 2), 0.0)

    def project(m: np.ndarray) -> np.ndarray:
        """Rho = (mu + k*rho)_+ / c of mass 1."""
        field = (N * lam * m) @ P
        low, high = c - field.max() - c, c - field.min() + c
        mu = brentq(lambda s: w @ np.maximum(s + field, 0) / c - 1, low, high, xtol=1e-15)
        return np.maximum(mu + field, 0) / c

    for _ in range(20000):
        rho = project(m)
        new = P @ (w * rho)
        if np.abs(new - m).max() < 1e-13:
            break
        m = new
    else:
        raise SolveError("clustered state", "no convergence in 20000 steps")
    energy = 0.5 * (c * (w @ rho**2 - 1) - (N * lam) @ m**2 + lam[0])
    return PorousState(t, rho, float(m[1]), float(energy), float(w @ (rho > 0)))
