"""2-Wasserstein distances of densities on nodes, and the stability bound of an estimate.

If the energy with the estimate is lambda-convex along geodesics,

    W2(mu_t, muhat_t) <= int_0^t exp(-lambda (t - s)) |grad (W - What) * mu_s|_L2(mu_s) ds,

at equal initial data (differentiate W2^2 / 2 along both flows; Carrillo, Estrada-Rodriguez, Mikolas
& Tang 2024, arXiv:2402.06355). An interaction potential with second derivatives >= lambda, and a
diffusion that is displacement convex (m >= 1 - 1/dim), make such an energy, for lambda <= 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Radial = Callable[[np.ndarray], np.ndarray]

# Support points of a plane measure in the transport problem.
BINS = 30


def w2_line(width: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two densities that are constant on adjoining cells, exact, by quantiles.

    Args:
        width: of the cells, (n,).
        a: cell averages, (n,); negative parts are cut off, masses scaled to 1.
        b: the other's.
    """
    x = np.concatenate([[0.0], np.cumsum(width)])
    quantiles = []
    for r in (a, b):
        mass = np.maximum(r, 0) * width
        F = np.concatenate([[0.0], np.cumsum(mass)]) / mass.sum()
        quantiles.append(F / F[-1])
    Fa, Fb = quantiles
    u = np.unique(np.concatenate([Fa, Fb]))
    mid = (u[1:] + u[:-1]) / 2
    total = 0.0
    # both quantile functions are linear on each interval of u; two Gauss points are exact
    half = (u[1:] - u[:-1]) / 2
    for z in (-(3**-0.5), 3**-0.5):
        s = mid + z * half
        total += float(half @ (_quantile(s, Fa, x) - _quantile(s, Fb, x)) ** 2)
    return float(np.sqrt(total))


def _quantile(u: np.ndarray, F: np.ndarray, x: np.ndarray) -> np.ndarray:
    k = np.clip(np.searchsorted(F, u, side="right") - 1, 0, len(x) - 2)
    rise = np.maximum(F[k + 1] - F[k], 1e-300)
    return x[k] + np.clip((u - F[k]) / rise, 0, 1) * (x[k + 1] - x[k])


def w2_sets(x: np.ndarray, p: np.ndarray, y: np.ndarray, q: np.ndarray) -> float:
    """Distance of two discrete measures, (n, dim), (n,), (m, dim), (m,): POT's network simplex."""
    import ot

    if x.shape[1] == 1:
        return float(
            np.sqrt(max(ot.wasserstein_1d(x[:, 0], y[:, 0], p / p.sum(), q / q.sum(), p=2), 0))
        )
    cost = ot.dist(x, y)
    return float(np.sqrt(max(ot.emd2(p / p.sum(), q / q.sum(), cost, numItermax=10**6), 0)))


def w2_plane(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two measures on the same nodes, (n, dim), masses (n,) each, gathered into bins.

    The mass of each bin sits at its centre of mass, so that the error is of second order in the
    bins.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    place = np.minimum(((x - low) / (high - low) * BINS).astype(int), BINS - 1)
    flat = np.ravel_multi_index(tuple(place.T), (BINS,) * x.shape[1])
    sets = []
    for mass in (np.maximum(a, 0), np.maximum(b, 0)):
        total = np.bincount(flat, mass, BINS ** x.shape[1])
        kept = total > 1e-7 * mass.sum()
        centre = [np.bincount(flat, mass * c, len(total))[kept] / total[kept] for c in x.T]
        sets += [np.stack(centre, axis=1), total[kept]]
    return w2_sets(*sets)


def convexity(dW: Radial, dim: int, reach: float, resolution: float) -> float:
    """The least eigenvalue of the Hessian of W(|x|), |x| <= reach, by differences of `resolution`.

    A concave kink (W'' = -infinity at 0) shows as a large negative number that grows as the
    resolution does: then there is no bound.
    """
    r = np.arange(resolution, reach + resolution, resolution)
    f = np.asarray(dW(r), dtype=float)
    second = np.diff(f) / resolution
    out = min(float(second.min()), float(f[0] / resolution))
    if dim > 1:
        out = min(out, float((f / r).min()))
    return out


def bound(t: np.ndarray, gap: np.ndarray, lam: float) -> np.ndarray:
    """The bound at the times, from gap(s) = |grad (W - What) * mu_s|_L2(mu_s), both (n_t,)."""
    out = np.zeros(len(t))
    for n in range(1, len(t)):
        dt = t[n] - t[n - 1]
        # the greater end of each interval, so that the sum is no less than the integral of a
        # monotone integrand
        grow = np.exp(np.clip(-lam * dt, None, 700.0))
        out[n] = out[n - 1] * grow + max(gap[n], gap[n - 1]) * dt * max(grow, 1.0)
    return out
