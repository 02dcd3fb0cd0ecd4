"""The branch of clustered stationary states of noisy attention on S^(d-1), any d, by continuation.

With noise kappa the unnormalised attention is the gradient flow of

    F(rho) = kappa int rho log rho d sigma - (1/(2 beta)) iint e^{beta x.y} rho rho,

and its stationary states solve rho = exp((k*rho)/(beta kappa))/Z; those of noisy softmax attention
rho = (k*rho)^{1/(beta kappa)}/Z. Zonal states have k*rho = sum_k N_k lambda_k m_k P_k(t),
m_k = int P_k rho. The branch is followed in m = m_1 = |int x rho|: for each m Newton's method finds
kappa and the other modes, on the stable and the unstable side of a fold alike.
Sources: Shalova, Schlichting (arXiv 2412.14813); Mun, Rosenzweig (2606.05140).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from fem_apps.attention.funk_hecke import (
    Normalisation,
    bifurcations,
    eigenvalues,
    multiplicities,
    sharp_beta,
    zonal_polynomials,
    zonal_quadrature,
)
from fem_apps.errors import SolveError

NEWTON_STEPS, NEWTON_TOLERANCE = 50, 1e-13


@dataclass(frozen=True)
class Branch:
    """Clustered states along m, from the bifurcation at m = 0.

    Attributes:
        beta, d, kind: of the equation.
        m: |int x rho|, increasing.
        kappa: the noise that has this state.
        energy: (F(state) - F(uniform)); nan for softmax, which has no free energy.
        modes: m_k of each state, (states, modes).
    """

    beta: float
    d: int
    kind: Normalisation
    m: np.ndarray
    kappa: np.ndarray
    energy: np.ndarray
    modes: np.ndarray

    def density(self, i: int, t: np.ndarray) -> np.ndarray:
        """Density of state i with respect to sigma, at t = x.e."""
        return _Zonal(self.beta, self.d, self.kind, self.modes.shape[1]).density(
            self.kappa[i], self.modes[i], t
        )[0]


@dataclass(frozen=True)
class Transition:
    """How the uniform state loses to the clustered one as the noise falls.

    kappa_1: the uniform state is stable above; kappa_c: equal energies (kappa_1 if continuous);
    kappa_s: fold, no clustered state above; order_parameter: m at kappa_c.
    """

    continuous: bool
    kappa_1: float
    kappa_c: float
    kappa_s: float
    order_parameter: float


class _Zonal:
    """Quadrature and modes; all kernels scaled by exp(-beta)."""

    def __init__(self, beta: float, d: int, kind: Normalisation, modes: int) -> None:
        self.kind, self.beta = kind, beta
        self.t, self.w = zonal_quadrature(d, 4 * modes + 40)
        self.P = zonal_polynomials(d, modes, self.t)
        self.d = d
        self.lam = multiplicities(d, modes) * eigenvalues(beta, d, modes)
        self.scale = np.exp(beta) if kind == "unnormalised" else 1.0

    def density(
        self, kappa: float, m: np.ndarray, t: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rho(t), k*rho (scaled) and d log rho / d(k*rho), up to the constant of the norm."""
        field = (self.lam * m) @ self.P
        log = field * self.scale / (self.beta * kappa)
        slope = np.full_like(field, self.scale / (self.beta * kappa))
        if self.kind == "softmax":
            log, slope = np.log(field) / (self.beta * kappa), 1 / (field * self.beta * kappa)
        top = log.max()
        norm = self.w @ np.exp(log - top)
        if t is None:
            return np.exp(log - top) / norm, field, slope
        there = (self.lam * m) @ zonal_polynomials(self.d, len(m), t)
        log = (
            np.log(there) / (self.beta * kappa)
            if self.kind == "softmax"
            else there * self.scale / (self.beta * kappa)
        )
        return np.exp(log - top) / norm, there, slope

    def newton(self, m1: float, kappa: float, m: np.ndarray) -> tuple[float, np.ndarray]:
        """Kappa and modes with m[1] = m1: int P_k rho - m_k = 0, k >= 1."""
        m, log_kappa = m.copy(), np.log(kappa)
        m[0], m[1] = 1.0, m1
        for _ in range(NEWTON_STEPS):
            rho, _field, slope = self.density(np.exp(log_kappa), m)
            weight = self.w * rho
            mean = self.P @ weight
            residual = (mean - m)[1:]
            centred = self.P - mean[:, None]
            # d mean_k / d m_l = cov(P_k, slope lam_l P_l); by log kappa = -cov(P_k, log rho)
            J = (self.P * weight) @ (
                slope[:, None] * (self.lam[:, None] * self.P).T
                - (weight * slope) @ (self.lam[:, None] * self.P).T
            )
            log = np.log(np.maximum(rho, 1e-300))
            by_kappa = -(centred @ (weight * log))
            J = J[1:, 1:] - np.eye(len(m) - 1)
            J[:, 0] = by_kappa[1:]
            step = np.linalg.solve(J, -residual)
            size = min(1.0, 0.5 / max(abs(step[0]), 1e-300))
            log_kappa += size * step[0]
            m[2:] += size * step[1:]
            if np.abs(step).max() < NEWTON_TOLERANCE * 10 and size == 1.0:
                return float(np.exp(log_kappa)), m
        if np.abs(residual).max() < 1e-9:
            return float(np.exp(log_kappa)), m
        raise SolveError(
            "Newton iteration of a stationary state",
            f"residual {np.abs(residual).max():.1e} at m = {m1:.4g}",
            advice="more modes",
        )

    def energy(self, kappa: float, m: np.ndarray) -> float:
        """F(rho) - F(uniform)."""
        if self.kind == "softmax":
            return float("nan")
        rho, field, _ = self.density(kappa, m)
        weight = self.w * rho
        entropy = weight @ np.log(np.maximum(rho, 1e-300))
        return float(
            kappa * entropy - self.scale * (weight @ field - self.lam[0]) / (2 * self.beta)
        )


def mode_count(beta: float) -> int:
    """Modes beyond which lambda_k/lambda_0 and the sharpest state of a branch are negligible."""
    return int(40 + 2 * beta)


def branch(
    beta: float,
    d: int,
    kind: Normalisation = "unnormalised",
    *,
    states: int = 80,
    m_max: float = 0.97,
    modes: int | None = None,
) -> Branch:
    """Follow the zonal branch that leaves the uniform state at kappa_1.

    Args:
        beta: inverse temperature, > 0.
        d: dimension of the space, >= 2.
        kind: "unnormalised", or "softmax".
        states: number of states, evenly spaced in m.
        m_max: the last m.
        modes: of the expansion; chosen by `mode_count` if left out.

    Raises:
        SolveError: Newton's method fails.
    """
    zonal = _Zonal(beta, d, kind, modes or mode_count(beta))
    m = np.linspace(0.0, m_max, states + 1)[1:]
    kappa = float(bifurcations(beta, d, 1, kind)[0])
    state = np.zeros(len(zonal.lam))
    state[0] = 1.0
    kappas, energies, all_modes = [], [], []
    before: tuple[float, np.ndarray] | None = None
    for value in m:
        guess = state if before is None else 2 * state - before[1]
        start = kappa if before is None else kappa**2 / before[0]
        previous = (kappa, state)
        kappa, state = zonal.newton(float(value), start, guess)
        before = previous
        kappas.append(kappa)
        energies.append(zonal.energy(kappa, state))
        all_modes.append(state)
    return Branch(beta, d, kind, m, np.array(kappas), np.array(energies), np.array(all_modes))


def transition(b: Branch) -> Transition:
    """The kind of transition and its noises, from a branch.

    For softmax, which has no free energy here, kappa_c is nan where the transition is a jump.
    """
    kappa_1 = float(bifurcations(b.beta, b.d, 1, b.kind)[0])
    m, kappa = np.r_[0.0, b.m], np.r_[kappa_1, b.kappa]
    top = int(np.argmax(kappa))
    continuous = b.beta <= sharp_beta(b.d) if b.kind == "unnormalised" else top == 0
    if continuous:
        return Transition(True, kappa_1, kappa_1, kappa_1, 0.0)
    zonal = _Zonal(b.beta, b.d, b.kind, b.modes.shape[1])
    spline = CubicSpline(m, kappa)
    around = (m[max(top - 1, 0)], m[min(top + 1, len(m) - 1)])
    if spline(around[0], 1) <= 0:
        return Transition(False, kappa_1, np.nan, float(kappa[top]), np.nan)
    fold = brentq(lambda s: spline(s, 1), *around, xtol=1e-12)

    def state(value: float) -> tuple[float, np.ndarray]:
        i = int(np.clip(np.searchsorted(b.m, value), 0, len(b.m) - 1))
        return zonal.newton(value, float(spline(value)), b.modes[i])

    kappa_s = state(fold)[0]
    if b.kind == "softmax":
        return Transition(False, kappa_1, np.nan, kappa_s, np.nan)
    sign = b.energy[b.m >= fold]
    later = b.m[b.m >= fold]
    crossing = np.flatnonzero((sign[:-1] > 0) & (sign[1:] <= 0))
    first = later[crossing[0]] if len(crossing) else fold
    last = later[crossing[0] + 1] if len(crossing) else later[0]
    m_c = brentq(lambda s: zonal.energy(*state(s)), first, last, xtol=1e-11)
    return Transition(False, kappa_1, state(m_c)[0], kappa_s, float(m_c))


def states_at(b: Branch, kappa: float) -> list[tuple[float, float]]:
    """(m, F - F(uniform)) of every clustered state that the branch has at a noise."""
    zonal = _Zonal(b.beta, b.d, b.kind, b.modes.shape[1])
    spline = CubicSpline(b.m, b.kappa)
    found = []
    for i in np.flatnonzero((b.kappa[:-1] - kappa) * (b.kappa[1:] - kappa) <= 0):
        value = brentq(
            lambda s, i=i: zonal.newton(s, float(spline(s)), b.modes[i])[0] - kappa,
            b.m[i],
            b.m[i + 1],
            xtol=1e-12,
        )
        at, modes = zonal.newton(value, float(spline(value)), b.modes[i])
        found.append((float(value), zonal.energy(at, modes)))
    return found
