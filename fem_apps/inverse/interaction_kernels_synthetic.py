"""Simulators that share no code with the forward solver: data that no inverse crime has made.

* `finite_volumes`: explicit second-order finite volumes on the line (Carrillo, Chertock & Huang
  2015, arXiv:1402.4252): velocities -grad xi at faces, minmod slopes (theta = 2), SSP-RK3;
* `particle_paths`: N interacting particles, dX_i = -(1/N) sum_j grad W(X_i - X_j) dt - grad V dt +
  sqrt(2 sigma) dB_i by Euler and Maruyama.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

Radial = Callable[[np.ndarray], np.ndarray]


@numba.njit(cache=True)
def _minmod(a: float, b: float, c: float) -> float:
    if a > 0 and b > 0 and c > 0:
        return min(a, b, c)
    if a < 0 and b < 0 and c < 0:
        return max(a, b, c)
    return 0.0


@numba.njit(cache=True)
def _rate(r: np.ndarray, K: np.ndarray, V: np.ndarray, h: float, sigma: float, m: float):  # type: ignore[no-untyped-def]
    n = len(r)
    xi = K @ r * h + V
    for j in range(n):
        if m == 1:
            xi[j] += sigma * np.log(max(r[j], 1e-300))
        else:
            xi[j] += sigma * m / (m - 1) * r[j] ** (m - 1)
    out, before, fastest = np.empty(n), 0.0, 0.0
    slope = np.zeros(n)
    for j in range(1, n - 1):
        slope[j] = _minmod(2 * (r[j] - r[j - 1]), (r[j + 1] - r[j - 1]) / 2, 2 * (r[j + 1] - r[j]))
    for j in range(n):
        flux = 0.0
        if j < n - 1:
            u = -(xi[j + 1] - xi[j]) / h
            fastest = max(fastest, abs(u))
            flux = (r[j] + slope[j] / 2) * u if u > 0 else (r[j + 1] - slope[j + 1] / 2) * u
        out[j] = (before - flux) / h
        before = flux
    return out, fastest


@numba.njit(cache=True)
def _march(r, K, V, h, sigma, m, times):  # type: ignore[no-untyped-def]
    out = np.empty((len(times), len(r)))
    out[0] = r
    for q in range(1, len(times)):
        t = times[q - 1]
        while t < times[q] - 1e-13:
            k, fastest = _rate(r, K, V, h, sigma, m)
            D = sigma if m == 1 else sigma * m * np.max(r) ** (m - 1)
            dt = min(0.4 * h / (2 * fastest + 1e-12), 0.2 * h * h / (D + 1e-300), times[q] - t)
            a = r + dt * k
            k, _ = _rate(a, K, V, h, sigma, m)
            a = 0.75 * r + 0.25 * (a + dt * k)
            k, _ = _rate(a, K, V, h, sigma, m)
            r = r / 3 + 2 / 3 * (a + dt * k)
            t += dt
        out[q] = r
    return out


def finite_volumes(
    x: np.ndarray,
    rho0: np.ndarray,
    W: Radial,
    times: np.ndarray,
    *,
    sigma: float,
    m: float,
    V: np.ndarray | None = None,
) -> np.ndarray:
    """Cell averages at the times, no flux at the ends.

    Args:
        x: centres of equal cells, (n,).
        rho0: cell averages at the first time, (n,).
        W: r -> W(r).
        times: (n_t,), increasing.
        sigma: of sigma Laplace(rho^m).
        m: exponent, 1 or greater.
        V: external potential at the centres.

    Returns:
        (n_t, n).
    """
    K = np.asarray(W(np.abs(x[:, None] - x[None, :])), dtype=float)
    V = np.zeros_like(x) if V is None else np.asarray(V, dtype=float)
    return _march(
        np.array(rho0, dtype=float), K, V, float(x[1] - x[0]), float(sigma), float(m), times
    )


def particle_paths(
    x0: np.ndarray,
    dW: Radial,
    times: np.ndarray,
    *,
    sigma: float = 0.0,
    substeps: int = 1,
    rng: np.random.Generator | None = None,
    drift: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Positions of N particles at the times.

    Args:
        x0: positions at the first time, (N, dim).
        dW: r -> W'(r).
        times: (n_t,).
        sigma: diffusion: noise of variance 2 sigma dt a step and direction.
        substeps: steps between two times.
        rng: of the noise.
        drift: x (N, dim) -> -grad V(x).

    Returns:
        (n_t, N, dim).
    """
    x, out = np.array(x0, dtype=float), np.empty((len(times), *x0.shape))
    out[0] = x
    rng = rng or np.random.default_rng(0)
    for n in range(1, len(times)):
        dt = (times[n] - times[n - 1]) / substeps
        for _ in range(substeps):
            v = _mean_force(x, dW)
            if drift is not None:
                v = v + drift(x)
            x = x + dt * v
            if sigma > 0:
                x = x + np.sqrt(2 * sigma * dt) * rng.standard_normal(x.shape)
        out[n] = x
    return out


def _mean_force(x: np.ndarray, dW: Radial) -> np.ndarray:
    """-(1/N) sum_j W'(|x_i - x_j|) (x_i - x_j)/|x_i - x_j|, W' from a table of 20,000 radii."""
    reach = float(np.linalg.norm(np.ptp(x, axis=0))) + 1e-12
    r = np.linspace(0, 1.001 * reach, 20_000)
    table = np.asarray(dW(r), dtype=float).copy()
    table[0] = 2 * table[1] - table[2]  # the limit at 0+
    return _sum_forces(np.ascontiguousarray(x), table, float(r[1]))


@numba.njit(cache=True, fastmath=True)
def _sum_forces(x, table, step):  # type: ignore[no-untyped-def]
    N, dim = x.shape
    out = np.zeros_like(x)
    for i in range(N):
        for j in range(i):
            r2 = 0.0
            for d in range(dim):
                r2 += (x[i, d] - x[j, d]) ** 2
            r = np.sqrt(r2)
            k = int(r / step)
            a = r / step - k
            f = ((1 - a) * table[k] + a * table[k + 1]) / max(r, 1e-300) / N
            for d in range(dim):
                g = f * (x[i, d] - x[j, d])
                out[i, d] -= g
                out[j, d] += g
    return out
