"""The gradient flow on the line with all its sensitivities, for the likelihood of trajectories.

    d_t rho = d_x( rho d_x(W*rho + V) ) + d_xx P(rho),   W = sum_j c_j psi_j, no flux at the ends

on cells about the data's nodes: van Leer limited upwind drift, explicit; diffusion implicit
(Newton, tridiagonal), so that a step follows the drift and not the square of the spacing. In time
the L-stable scheme of order 2 with two implicit stages (Ascher, Ruuth & Spiteri 1997, "2,2,2").
`solve` differentiates the discrete scheme itself: d rho / d c_j of every atom of the dictionary
and the images of changes of the initial density, in one batch beside the flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from fem_apps.errors import SolveError
from fem_apps.problems.free_energy import Diffusion

GAMMA = 1 - 0.5**0.5
DELTA = 1 - 0.5 / GAMMA
# Of Newton's method, relative; and its steps at most.
NEWTON, NEWTON_STEPS = 1e-11, 30
# Between two snapshots: an estimate that asks for more is no estimate.
MOST_STEPS = 1000


@dataclass(frozen=True)
class Cells:
    """Cells on the line: widths and centres, (n,)."""

    width: np.ndarray
    centre: np.ndarray


@dataclass(frozen=True)
class Flow:
    """What drives the density.

    Attributes:
        cells: n of them.
        K: W(|x_i - x_j|), (n, n).
        V: external potential, (n,).
        diffusion: terms of H.
    """

    cells: Cells
    K: np.ndarray
    V: np.ndarray
    diffusion: tuple[Diffusion, ...]


def cells(x: np.ndarray, mass: np.ndarray) -> Cells:
    """The control volumes of sorted P1 nodes."""
    edges = x[0] + np.concatenate([[0.0], np.cumsum(mass)])
    return Cells(mass, (edges[1:] + edges[:-1]) / 2)


def halves(c: Cells) -> Cells:
    """Every cell cut in two."""
    width = np.repeat(c.width / 2, 2)
    centre = np.repeat(c.centre, 2)
    centre[::2] -= c.width / 4
    centre[1::2] += c.width / 4
    return Cells(width, centre)


def refined(r: np.ndarray) -> np.ndarray:
    """Averages on the halves, limited slopes, (n,) -> (2 n,)."""
    s = np.zeros_like(r)
    a, b = r[1:-1] - r[:-2], r[2:] - r[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        s[1:-1] = np.where(a * b > 0, 2 * a * b / (a + b), 0.0)
    out = np.repeat(r, 2)
    out[::2] -= s / 4
    out[1::2] += s / 4
    return out


@numba.njit(cache=True)
def _drift(r, Q, width, gap):  # type: ignore[no-untyped-def]
    """Rate by the drift potential Q, (n,)."""
    n = len(r)
    out = np.empty(n)
    before = 0.0
    for j in range(n):
        flux = 0.0
        if j < n - 1:
            u = -(Q[j + 1] - Q[j]) / gap[j]
            d = r[j + 1] - r[j]
            if u > 0:
                e = r[j] - r[j - 1] if j > 0 else 0.0
                s = 2 * d * e / (d + e) if d * e > 0 else 0.0
                flux = (r[j] + s / 2) * u
            else:
                e = r[j + 2] - r[j + 1] if j < n - 2 else 0.0
                s = 2 * d * e / (d + e) if d * e > 0 else 0.0
                flux = (r[j + 1] - s / 2) * u
        out[j] = (before - flux) / width[j]
        before = flux
    return out


@numba.njit(cache=True, fastmath=True)
def _drift_change(r, Q, p, dQ, width, gap):  # type: ignore[no-untyped-def]
    """Derivative of `_drift` along columns: p, dQ (n, B)."""
    n, B = p.shape
    out = np.zeros((n, B))
    for j in range(n - 1):
        u = -(Q[j + 1] - Q[j]) / gap[j]
        d = r[j + 1] - r[j]
        if u > 0:
            near, e_low, e_high, sign = j, j - 1, j, 0.5
        else:
            near, e_low, e_high, sign = j + 1, j + 1, j + 2, -0.5
        inside = e_low >= 0 and e_high < n
        e = r[e_high] - r[e_low] if inside else 0.0
        s = ds_d = ds_e = 0.0
        if d * e > 0:
            s = 2 * d * e / (d + e)
            ds_d = 2 * (e / (d + e)) ** 2
            ds_e = 2 * (d / (d + e)) ** 2
        value = r[near] + sign * s
        for k in range(B):
            change = p[near, k]
            if d * e > 0:
                change += sign * (
                    ds_d * (p[j + 1, k] - p[j, k]) + ds_e * (p[e_high, k] - p[e_low, k])
                )
            flux = change * u - value * (dQ[j + 1, k] - dQ[j, k]) / gap[j]
            out[j, k] -= flux / width[j]
            out[j + 1, k] += flux / width[j + 1]
    return out


@numba.njit(cache=True)
def _pressure(r, sigma, m):  # type: ignore[no-untyped-def]
    """P(rho) and P'(rho), of the positive part."""
    n = len(r)
    P, P1 = np.zeros(n), np.zeros(n)
    for j in range(n):
        for i in range(len(m)):
            if m[i] == 1:
                P[j] += sigma[i] * r[j]
                P1[j] += sigma[i]
            elif r[j] > 0:
                q = sigma[i] * r[j] ** (m[i] - 1)
                P[j] += q * r[j]
                P1[j] += m[i] * q
    return P, P1


@numba.njit(cache=True)
def _spread(P, width, gap):  # type: ignore[no-untyped-def]
    """Laplace P, (n,)."""
    n = len(P)
    out = np.zeros(n)
    for j in range(n - 1):
        flux = (P[j] - P[j + 1]) / gap[j]
        out[j] -= flux / width[j]
        out[j + 1] += flux / width[j + 1]
    return out


@numba.njit(cache=True)
def _matrix(P1, width, gap, a):  # type: ignore[no-untyped-def]
    """1 - a Laplace P' as three diagonals (n, 3), eliminated: multiplier, pivot, upper."""
    n = len(P1)
    T = np.zeros((n, 3))
    for j in range(n):
        left = a / gap[j - 1] if j > 0 else 0.0
        right = a / gap[j] if j < n - 1 else 0.0
        T[j, 1] = 1 + (left + right) * P1[j] / width[j]
        if j > 0:
            T[j, 0] = -left * P1[j - 1] / width[j]
        if j < n - 1:
            T[j, 2] = -right * P1[j + 1] / width[j]
    for j in range(1, n):
        T[j, 0] /= T[j - 1, 1]
        T[j, 1] -= T[j, 0] * T[j - 1, 2]
    return T


@numba.njit(cache=True, fastmath=True)
def _solve(T, x):  # type: ignore[no-untyped-def]
    """Solve with an eliminated matrix in place, x (n, B)."""
    n, B = x.shape
    for j in range(1, n):
        for k in range(B):
            x[j, k] -= T[j, 0] * x[j - 1, k]
    for k in range(B):
        x[n - 1, k] /= T[n - 1, 1]
    for j in range(n - 2, -1, -1):
        for k in range(B):
            x[j, k] = (x[j, k] - T[j, 2] * x[j + 1, k]) / T[j, 1]


@numba.njit(cache=True)
def _implicit(start, rhs, a, width, gap, sigma, m):  # type: ignore[no-untyped-def]
    """R - a Laplace P(R) = rhs by Newton's method: R, its matrix, its Laplace P; ok."""
    R = start.copy()
    size = np.abs(rhs).max()
    for _ in range(NEWTON_STEPS):
        P, P1 = _pressure(R, sigma, m)
        L = _spread(P, width, gap)
        T = _matrix(P1, width, gap, a)
        x = (rhs - R + a * L).reshape(-1, 1)
        _solve(T, x)
        R = R + x[:, 0]
        if np.abs(x).max() <= NEWTON * size:
            P, P1 = _pressure(R, sigma, m)
            return R, _matrix(P1, width, gap, a), _spread(P, width, gap), True
    return R, T, L, False


def solve(
    f: Flow,
    rho0: np.ndarray,
    t: np.ndarray,
    steps: int,
    *,
    atoms: np.ndarray | None = None,
    initial: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The density at the times, and its sensitivities.

    Args:
        f: the flow.
        rho0: (n,).
        t: (n_t,).
        steps: time steps between two of them.
        atoms: psi_j(|x_i - x_k|), (K, n, n), for d rho / d c_j.
        initial: changes of rho0, (count, n).

    Returns:
        rho (n_t, n), and d rho (n_t, n, K + count), 0 columns for neither.

    Raises:
        SolveError: Newton's method does not converge.
    """
    c = f.cells
    n, width, gap = len(c.width), c.width, np.diff(c.centre)
    sigma = np.array([d.coefficient for d in f.diffusion])
    m = np.array([d.exponent for d in f.diffusion])
    K = 0 if atoms is None else len(atoms)
    extra = np.zeros((0, n)) if initial is None else initial
    p = np.concatenate([np.zeros((n, K)), extra.T], axis=1)
    batch = p.shape[1] > 0
    flat = None if atoms is None else np.ascontiguousarray(atoms.reshape(K * n, n))

    def drift(R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Q = f.K @ (R * width) + f.V
        return Q, _drift(R, Q, width, gap)

    def change(R: np.ndarray, Q: np.ndarray, p: np.ndarray) -> np.ndarray:
        dQ = f.K @ (p * width[:, None])
        if flat is not None:
            dQ[:, :K] += (flat @ (R * width)).reshape(K, n).T
        return _drift_change(R, Q, p, dQ, width, gap)

    def implicit(start: np.ndarray, rhs: np.ndarray, a: float) -> tuple[np.ndarray, ...]:
        R, T, L, ok = _implicit(start, rhs, a, width, gap, sigma, m)
        if not ok:
            raise SolveError(
                "Newton iteration of a trajectory's diffusion",
                f"not converged in {NEWTON_STEPS} steps",
                advice="solver.trajectories = false",
            )
        return R, T, L

    R = np.array(rho0, dtype=float)
    out, changed = np.empty((len(t), n)), np.empty((len(t), n, p.shape[1]))
    out[0], changed[0] = R, p
    for k in range(1, len(t)):
        h = (t[k] - t[k - 1]) / steps
        a = GAMMA * h
        for _ in range(steps):
            Q0, E0 = drift(R)
            Y, T1, L1 = implicit(R, R + a * E0, a)
            Q1, E1 = drift(Y)
            rhs = R + h * (DELTA * E0 + (1 - DELTA) * E1 + (1 - GAMMA) * L1)
            Z, T2, _ = implicit(Y, rhs, a)
            if batch:
                e0 = change(R, Q0, p)
                y = p + a * e0
                kept = y.copy()
                _solve(T1, y)
                l1 = (y - kept) / a
                e1 = change(Y, Q1, y)
                p = p + h * (DELTA * e0 + (1 - DELTA) * e1 + (1 - GAMMA) * l1)
                _solve(T2, p)
            R = Z
        out[k], changed[k] = R, p
    return out, changed


def steps_needed(f: Flow, rho: np.ndarray, t: np.ndarray, courant: float) -> int:
    """Steps between two times, so that the drift passes `courant` of a cell in each at most.

    Args:
        f: the flow.
        rho: densities that it will pass about, (n_t, n).
        t: times.
        courant: part of a cell.

    Raises:
        SolveError: more than `MOST_STEPS`.
    """
    c = f.cells
    gap = np.diff(c.centre)
    u = np.abs(np.diff(np.maximum(rho, 0) * c.width @ f.K.T + f.V, axis=1)) / gap
    fastest = float((u / np.minimum(c.width[1:], c.width[:-1])).max(initial=0.0))
    steps = np.diff(t).max() * fastest / courant
    if not steps < MOST_STEPS:
        raise SolveError(
            "the flow of an estimate",
            f"its drift asks for {steps:.2g} steps between two snapshots",
            advice="solver.trajectories = false; more data; a smaller dictionary",
        )
    return max(1, int(np.ceil(steps)))
