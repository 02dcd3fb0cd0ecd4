"""Indicators of where an obstacle or source is, without iteration: three sampling methods.

Direct sampling takes any data. Factorisation and linear sampling take the far fields of P and S
waves from all directions. With a_p, a_s the outgoing amplitudes, k^-1/2 a is that of which a rigid
body scatters every bit of energy, so that

    F~ = k_a^-1/2 u_a(x^; d, b) k_b^3/2   (a of the wave measured, b of the wave sent: p, s, s)

makes I + (i/2 pi) F~ unitary, F~ normal, and z is inside exactly if the far field of a force at z
is in the range of (F~* F~)^1/4. (Kirsch 1998; Arens 2001 for elastic waves; the weights are those
that make the flux (lambda + 2 mu) k_p |a_p|^2 + mu k_s |a_s|^2 the norm, rho omega^2 apart.)
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter

from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.inverse.elastic_source_forward import Receivers, frames

CHUNK = 256  # points whose test functions are in memory at a time


def all_waves(receivers: Receivers) -> list[PlaneWave]:
    """P and two S waves in every direction of measurement, in the order of the components."""
    e = frames(receivers.x)
    return [
        PlaneWave(tuple(d), None if k == 0 else tuple(e[k - 1, i]))
        for i, d in enumerate(receivers.x)
        for k in range(3)
    ]


def far_field_operator(
    medium: Medium, receivers: Receivers, data: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """F~ as a matrix (3 R, 3 R) of the data (waves of `all_waves`, 3 R).

    Args:
        medium: of the waves.
        receivers: directions of the far field.
        data: measurements.
        weights: of a quadrature over the directions, (R,); None: equal ones.
    """
    n = len(receivers.x)
    w = np.repeat(np.sqrt(np.full(n, 4 * np.pi / n) if weights is None else weights), 3)
    k = np.tile([medium.k_p, medium.k_s, medium.k_s], n)
    return (w * k**-0.5)[:, None] * data.T * (w * k**1.5)


def _spectrum(
    medium: Medium, receivers: Receivers, data: np.ndarray, z: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """|<u_n, phi_z>|^2 summed over three forces at z, (points, n); sigma_n; the noise's norm.

    phi_z are the far fields of forces at z, of unit norm; the noise of a matrix of independent
    entries with standard deviation s has the spectral norm 2 sqrt(n) s.
    """
    F = far_field_operator(medium, receivers, data)
    U, s, _ = np.linalg.svd(F)
    scale = np.tile([medium.k_p, medium.k_s, medium.k_s], len(receivers.x)) ** -0.5
    out = np.empty((len(z), len(s)))
    for start in range(0, len(z), CHUNK):
        rows = slice(start, start + CHUNK)
        phi = scale[:, None] * receivers.matrix(medium, z[rows])
        phi /= np.linalg.norm(phi, axis=0)
        out[rows] = (np.abs(U.conj().T @ phi) ** 2).reshape(len(s), -1, 3).sum(axis=2).T
    return out, s, max(2 * noise * float(np.linalg.norm(F)) / np.sqrt(len(s)), 1e-12 * s[0])


def factorisation(
    medium: Medium, receivers: Receivers, data: np.ndarray, z: np.ndarray, noise: float
) -> np.ndarray:
    """Picard's criterion 1 / sum |<u_n, phi_z>|^2 / sigma_n over sigma_n above the noise; max 1."""
    power, s, floor = _spectrum(medium, receivers, data, z, noise)
    kept = s > floor
    # what lies in the directions lost to the noise counts as if their sigma were the noise's
    total = power[:, kept] @ (1 / s[kept]) + power[:, ~kept].sum(axis=1) / floor
    out = 1 / total
    return out / out.max()


def linear_sampling(
    medium: Medium, receivers: Receivers, data: np.ndarray, z: np.ndarray, noise: float
) -> np.ndarray:
    """1 / |g| of F~ g = phi_z by Tikhonov's method with the noise's norm as parameter; max 1."""
    power, s, floor = _spectrum(medium, receivers, data, z, noise)
    out = 1 / np.sqrt(power @ (s / (s**2 + floor**2)) ** 2)
    return out / out.max()


def sampling(medium: Medium, receivers: Receivers, data: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The direct sampling indicator at points z (n, 3), of measurements (waves, 3 R); in [0, 1].

    Far fields: sum over waves of |sum_x x^.u_p e^(i k_p x^.z)|^2 and the like for shear waves; near
    fields: |sum_x conj(Phi(x, z)) u(x)|^2. (Ito, Jin and Zou 2012, for elastic waves.)
    """
    out = np.zeros(len(z))
    d = data.reshape(len(data), -1, 3)
    if receivers.far:
        p = np.exp(1j * medium.k_p * (z @ receivers.x.T))
        s = np.exp(1j * medium.k_s * (z @ receivers.x.T))
        e = frames(receivers.x)
        for u in d:
            shear = u[:, 1, None] * e[0] + u[:, 2, None] * e[1]
            out += (np.abs(p @ (u[:, :1] * receivers.x)) ** 2).sum(axis=1)
            out += (np.abs(s @ shear) ** 2).sum(axis=1)
    else:
        for start in range(0, len(z), 512):
            G = receivers.matrix(medium, z[start : start + 512])
            for u in d:
                at = (G.conj().T @ u.ravel()).reshape(-1, 3)
                out[start : start + 512] += (np.abs(at) ** 2).sum(axis=1)
    return out / out.max()


def grid(half_width: float, n: int) -> np.ndarray:
    """A cube of n^3 points about the origin, (n^3, 3)."""
    t = np.linspace(-half_width, half_width, n)
    return np.stack(np.meshgrid(t, t, t, indexing="ij"), axis=-1).reshape(-1, 3)


def peaks(indicator: np.ndarray, z: np.ndarray, count: int) -> np.ndarray:
    """The `count` highest local maxima of an indicator on a cube of points, (count, 3)."""
    n = round(len(z) ** (1 / 3))
    cube = indicator.reshape(n, n, n)
    top = (cube == maximum_filter(cube, size=5)).ravel()
    order = np.argsort(-np.where(top, indicator, -1.0))
    return z[order[:count]]
