"""Scalar spherical waves z_n(kr) Y_n^m, scaled so that no degree overflows, and their derivatives.

    regular:   w_n j_n(kr) Y_n^m,   outgoing:  h_n(kr) / w_n Y_n^m,   w_n = (2n+1)!! / (k r0)^n

with a reference radius r0: products of a regular and an outgoing wave are those of the unscaled
ones, and both are of moderate size about r = r0, for any degree and down to k = 0.
Y_n^m is orthonormal with the Condon-Shortley phase (scipy's `sph_harm_y`), its column n^2 + n + m.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.special import sph_harm_y_all


def degrees(n_max: int) -> tuple[np.ndarray, np.ndarray]:
    """N and m of every column, ((n_max + 1)^2,) each."""
    n = np.repeat(np.arange(n_max + 1), 2 * np.arange(n_max + 1) + 1)
    return n, np.arange(len(n)) - n * n - n


def harmonics(n_max: int, x: np.ndarray) -> np.ndarray:
    """Y_n^m of the directions of points x (points, 3); (points, (n_max + 1)^2)."""
    x = np.atleast_2d(x)
    theta = np.arctan2(np.hypot(x[:, 0], x[:, 1]), x[:, 2])
    table = sph_harm_y_all(n_max, n_max, theta, np.arctan2(x[:, 1], x[:, 0]))
    n, m = degrees(n_max)
    return np.ascontiguousarray(table[n, m].T)


def log_scale(n_max: int, x0: float) -> np.ndarray:
    """Log w_n of the degrees 0..n_max, w_n = (2n+1)!!/x0^n."""
    steps = np.log((2 * np.arange(1, n_max + 1) + 1) / x0)
    return np.concatenate([[0.0], np.cumsum(steps)])


def bessel(n_max: int, x: np.ndarray, x0: float) -> np.ndarray:
    """W_n j_n(x), shape (len(x), n_max + 1), x >= 0.

    Downward recurrence of j_n (2n+1)!!/x^n, normalised by the larger of j_0 and j_1.
    """
    x = np.atleast_1d(np.asarray(x, dtype=float))
    top = n_max + 30 + int(1.2 * x.max(initial=0.0)) + 2
    square: np.ndarray = x * x
    above: np.ndarray
    here: np.ndarray
    above, here = np.zeros_like(x), np.full_like(x, 1e-200)
    out: np.ndarray = np.empty((len(x), n_max + 2))
    for n in range(top, -1, -1):
        if n <= n_max + 1:
            out[:, n] = here
        if n:
            above, here = here, here - square / ((2 * n + 1) * (2 * n + 3)) * above
            big = np.abs(here) > 1e100
            if big.any():
                above[big] *= 1e-100
                here[big] *= 1e-100
                out[big] *= 1e-100
    with np.errstate(invalid="ignore", divide="ignore"):
        first = np.where(
            x < 0.5,
            1 - square / 10 * (1 - square / 28 * (1 - square / 54)),
            3 * (np.sin(x) / x - np.cos(x)) / square,
        )
    zeroth = np.sinc(x / np.pi)
    by_zeroth = np.abs(zeroth) >= np.abs(x * first / 3)
    factor = np.where(by_zeroth, zeroth, first) / np.where(by_zeroth, out[:, 0], out[:, 1])
    return out[:, : n_max + 1] * factor[:, None] * (x / x0)[:, None] ** np.arange(n_max + 1)


def hankel(n_max: int, x: np.ndarray, x0: float) -> np.ndarray:
    """H_n^(1)(x) / w_n, x > 0, (len(x), n_max + 1): upwards in x^(n+1) h_n / (2n-1)!!."""
    x = np.atleast_1d(np.asarray(x, dtype=float))
    out = np.empty((len(x), n_max + 2), dtype=complex)
    out[:, 0] = -1j * np.exp(1j * x)
    out[:, 1] = -np.exp(1j * x) * (x + 1j)
    square = x * x
    for n in range(1, n_max + 1):
        out[:, n + 1] = out[:, n] - square / ((2 * n + 1) * (2 * n - 1)) * out[:, n - 1]
    powers = np.arange(n_max + 1)
    return out[:, : n_max + 1] * (x0 / x)[:, None] ** powers / ((2 * powers + 1) * x[:, None])


def derivatives(z: np.ndarray, x: np.ndarray, x0: float, outgoing: bool) -> np.ndarray:
    """Dz_n/dx = n z_n/x - z_(n+1) of scaled functions z (points, n + 2); (points, n + 1)."""
    n = np.arange(z.shape[1] - 1)
    step = (2 * n + 3) / x0 if outgoing else x0 / (2 * n + 3)
    return n * z[:, :-1] / np.asarray(x)[:, None] - step * z[:, 1:]


def values(n_max: int, k: float, x: np.ndarray, r0: float, *, outgoing: bool) -> np.ndarray:
    """Scaled waves of degrees up to n_max at points x (points, 3); (points, (n_max + 1)^2)."""
    r = np.linalg.norm(x, axis=1)
    radial = (hankel if outgoing else bessel)(n_max, k * r, k * r0)
    return radial[:, degrees(n_max)[0]] * harmonics(n_max, x)


@lru_cache(maxsize=64)
def ladder(n_max: int, r0: float, x0: float, outgoing: bool) -> tuple[sp.csr_array, ...]:
    """Cartesian derivatives: three matrices from coefficients of degree n_max to n_max + 1.

    d_z (z_n Y_n^m) = k (a_n^m z_(n-1) Y_(n-1)^m - a_(n+1)^m z_(n+1) Y_(n+1)^m) and the like for
    d_x +- i d_y: only scalar harmonics, no singularity on the polar axis.
    """
    n, m = degrees(n_max)
    down: np.ndarray
    up: np.ndarray
    # k w_n/w_(n-1) and k w_n/w_(n+1), for outgoing waves the inverses
    if outgoing:
        down, up = x0**2 / (r0 * (2 * n + 1)), (2 * n + 3) / r0
    else:
        down, up = (2 * n + 1) / r0, x0**2 / (r0 * (2 * n + 3))

    def a(n: np.ndarray, m: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(n * n - m * m, 0) / ((2 * n - 1.0) * (2 * n + 1)))

    def b(n: np.ndarray, m: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum((n + m) * (n + m - 1), 0) / ((2 * n - 1.0) * (2 * n + 1)))

    def matrix(low: np.ndarray, high: np.ndarray, shift: int) -> sp.csr_array:
        rows, columns, entries = [], [], []
        for change, value in ((-1, low * down), (1, high * up)):
            to_n, to_m = n + change, m + shift
            kept = (to_n >= 0) & (np.abs(to_m) <= to_n) & (value != 0)
            rows.append((to_n * to_n + to_n + to_m)[kept])
            columns.append(np.flatnonzero(kept))
            entries.append(value[kept])
        shape = ((n_max + 2) ** 2, (n_max + 1) ** 2)
        ijv = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns)))
        return sp.csr_array(ijv, shape=shape)

    plus = matrix(b(n, -m), b(n + 1, m + 1), 1)
    minus = matrix(-b(n, m), -b(n + 1, 1 - m), -1)
    return (
        sp.csr_array((plus + minus) / 2),
        sp.csr_array((plus - minus) / 2j),
        matrix(a(n, m), -a(n + 1, m), 0),
    )


@lru_cache(maxsize=16)
def rotations(n_max: int) -> tuple[sp.csr_array, ...]:
    """The angular momentum operators L_a = -i (x cross grad)_a on Y_n^m, ((n_max + 1)^2)^2 each."""
    n, m = degrees(n_max)
    size = len(n)
    raised = np.sqrt((n - m) * (n + m + 1.0))
    up = sp.csr_array(
        (raised[m < n], (np.flatnonzero(m < n) + 1, np.flatnonzero(m < n))), shape=(size, size)
    )
    down = sp.csr_array(up.T)
    diagonal = sp.csr_array(sp.diags_array(m.astype(float)))
    return sp.csr_array((up + down) / 2), sp.csr_array((up - down) / 2j), diagonal
