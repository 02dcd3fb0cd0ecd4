"""Exact solutions for a sphere: scattering by a rigid one, a cavity, an inclusion; DtN; statics.

With u = u_r Y r^ + u_t r grad Y and N1 = n(n+1), the potentials P = grad(z(k_p r) Y) and
S = curl curl(x z(k_s r) Y) give 2 x 2 systems per degree, the torsional curl(x z(k_s r) Y) a scalar
(Ying and Truell 1956; Pao and Mow 1973).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fem_apps.fundamental import scalar_waves as sw
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.vector_waves import (
    Triple,
    VectorWaves,
    plane_wave_coefficients,
    sphere_rule,
)

Condition = Literal["rigid", "cavity", "inclusion"]


@dataclass(frozen=True)
class Radial:
    """Radial parts at one radius of degrees 0..n: u_r, u_t, t_r, t_t of P and S; u, t of torsion.

    Attributes:
        P, S: (n + 1, 4), complex.
        torsion: (n + 1, 2).
    """

    P: np.ndarray
    S: np.ndarray
    torsion: np.ndarray


def radial(medium: Medium, n_max: int, r: float, r0: float, *, outgoing: bool) -> Radial:
    """Radial parts of the scaled waves of `scalar_waves` at a radius r."""
    lam, mu = medium.lame_lambda, medium.lame_mu
    n = np.arange(n_max + 1)
    N1 = n * (n + 1.0)
    f = sw.hankel if outgoing else sw.bessel

    def z_and_slope(k: float) -> tuple[np.ndarray, np.ndarray]:
        z = f(n_max + 1, np.array([k * r]), k * r0)
        return z[0, :-1], sw.derivatives(z, np.array([k * r]), k * r0, outgoing)[0]

    k = medium.k_p
    z, d = z_and_slope(k)
    second = -2 * d / (k * r) - (1 - N1 / (k * r) ** 2) * z
    P = [
        k * d,
        z / r,
        2 * mu * k**2 * second - lam * k**2 * z,
        2 * mu * (k * d / r - z / r**2),
    ]
    k = medium.k_s
    z, d = z_and_slope(k)
    S = [
        N1 * z / r,
        z / r + k * d,
        2 * mu * N1 * (k * d / r - z / r**2),
        mu * (-2 * k * d / r + (2 * N1 - 2) * z / r**2 - k**2 * z),
    ]
    torsion = [z, mu * (k * d - z / r)]
    return Radial(*(np.stack(rows, axis=1).astype(complex) for rows in (P, S, torsion)))


@dataclass(frozen=True)
class Scattering:
    """The field scattered by a sphere, an outgoing sum of vector waves.

    Attributes:
        waves: outgoing waves about the centre.
        coefficients: of the scaled waves, (columns,).
        incident: the plane wave.
        radius: of the sphere.
    """

    waves: VectorWaves
    coefficients: np.ndarray
    incident: PlaneWave
    radius: float

    def displacement(self, x: np.ndarray) -> np.ndarray:
        """The scattered u at points x (points, 3), |x - centre| >= radius."""
        return self.waves.field(np.asarray(x, dtype=float), self.coefficients)

    def far_field(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """U_p and u_s in unit directions, (points, 3) each."""
        return self.waves.far_field(directions, self.coefficients)

    def energies(self) -> tuple[float, float]:
        """I_P = int |u_p|^2 and I_S = int |u_s|^2 of the far field over all directions."""
        c = self.waves.unscaled(self.coefficients)
        k = (self.waves.degree + 1) ** 2
        power = np.abs(c) ** 2
        return float(power[:k].sum()), float(power[k:].sum()) / self.waves.medium.k_s**2

    def cross_section(self) -> float:
        """The scattering cross-section."""
        return cross_section(self.waves.medium, self.incident, *self.energies())


def cross_section(medium: Medium, incident: PlaneWave, I_P: float, I_S: float) -> float:
    """Scattered power over the incident intensity, from the integrals of the far field."""
    out = medium.p_modulus * medium.k_p * I_P + medium.lame_mu * medium.k_s * I_S
    if incident.shear:
        return out / (medium.lame_mu * medium.k_s)
    return out / (medium.p_modulus * medium.k_p)


def degree_for(medium: Medium, radius: float) -> int:
    """A degree at which incident waves are resolved to rounding on a sphere."""
    x = medium.k_s * radius
    return int(x + 8 * np.cbrt(x) + 14)


def scatter(
    medium: Medium,
    incident: PlaneWave,
    *,
    radius: float = 1.0,
    centre: Triple = (0.0, 0.0, 0.0),
    condition: Condition = "rigid",
    inside: Medium | None = None,
    degree: int | None = None,
) -> Scattering:
    """Scattering of a plane wave by a sphere, exact up to the truncation at a degree.

    Args:
        medium: outside; omega > 0.
        incident: P or S wave, any direction.
        radius: of the sphere.
        centre: of the sphere.
        condition: "rigid" (u = 0), "cavity" (traction 0), "inclusion" (both continuous).
        inside: medium of an inclusion, at the same omega.
        degree: of the expansion; by default what resolves the incident wave to rounding.
    """
    n = degree if degree is not None else degree_for(medium, radius)
    regular = VectorWaves(medium, n, False, radius, centre)
    outgoing = VectorWaves(medium, n, True, radius, centre)
    incoming = plane_wave_coefficients(regular, incident)
    j = radial(medium, n, radius, radius, outgoing=False)
    h = radial(medium, n, radius, radius, outgoing=True)
    degrees = sw.degrees(n)[0]
    k = len(degrees)
    # N = (s_n/k_s) S, M = s_n tor: the same factors for incident and scattered waves
    s = np.sqrt(np.maximum(degrees * (degrees + 1.0), 1.0)) * medium.k_s
    cP, cM = incoming[:k], np.concatenate([[0], incoming[k : 2 * k - 1]])
    cS = np.concatenate([[0], incoming[2 * k - 1 :]]) / s
    aP, aS, aM = np.zeros(k, complex), np.zeros(k, complex), np.zeros(k, complex)
    if condition == "inclusion":
        if inside is None:
            raise ValueError("an inclusion needs its medium")
        i = radial(inside, n, radius, radius, outgoing=False)
    for m in range(n + 1):
        at = degrees == m
        load = -(np.outer(j.P[m], cP[at]) + np.outer(j.S[m], cS[at]))
        twist = -np.outer(j.torsion[m], cM[at])
        if condition == "inclusion":
            A = np.stack([h.P[m], h.S[m], -i.P[m], -i.S[m]], axis=1)
            T = np.stack([h.torsion[m], -i.torsion[m]], axis=1)
        else:
            rows = slice(0, 2) if condition == "rigid" else slice(2, 4)
            A, load = np.stack([h.P[m, rows], h.S[m, rows]], axis=1), load[rows]
            row = 0 if condition == "rigid" else 1
            T, twist = h.torsion[m, row].reshape(1, 1), twist[row : row + 1]
        if m == 0:  # radial alone: no tangential rows, no S, no torsion
            A, load = A[::2, ::2], load[::2]
            aP[at] = _scaled_solve(A, load)[0]
            continue
        solution = _scaled_solve(A, load)
        aP[at], aS[at] = solution[0], solution[1]
        aM[at] = _scaled_solve(T, twist)[0]
    c = np.concatenate([aP, aM[1:], (aS * s)[1:]])
    return Scattering(outgoing, c, incident, radius)


def _scaled_solve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solve with rows and columns brought to unit size: displacements and tractions differ."""
    row = np.abs(A).max(axis=1)
    column = np.abs(A / row[:, None]).max(axis=0)
    return np.linalg.solve(A / row[:, None] / column, b / row[:, None]) / column[:, None]


def dirichlet_to_neumann(
    medium: Medium, radius: float, n_max: int
) -> tuple[np.ndarray, np.ndarray]:
    """Traction of radiating fields on a sphere from their displacement, degree by degree.

    Returns:
        (n_max + 1, 2, 2): (t_r, t_t) of (u_r, u_t), fields u_r Y r^ + u_t r grad Y; in degree 0
        only the entry rr counts. (n_max + 1,): torsional t/u.
    """
    h = radial(medium, n_max, radius, radius, outgoing=True)
    T = np.zeros((n_max + 1, 2, 2), dtype=complex)
    T[0, 0, 0] = h.P[0, 2] / h.P[0, 0]
    for n in range(1, n_max + 1):
        U = np.stack([h.P[n, :2], h.S[n, :2]], axis=1)
        F = np.stack([h.P[n, 2:], h.S[n, 2:]], axis=1)
        T[n] = _scaled_solve(U.T, F.T).T
    return T, h.torsion[:, 1] / h.torsion[:, 0]


def expand(waves: VectorWaves, field: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Coefficients of a field in regular or outgoing waves, from its values on a sphere.

    By projection on vector harmonics on |x - centre| = r0, and a 2 x 2 system a degree, singular
    only where regular waves of a degree vanish on the sphere. Exact for fields of the waves'
    degree; what is above it is filtered by the quadrature. With a field of outgoing waves about
    another centre this is the translation of waves.

    Args:
        waves: regular or outgoing.
        field: displacement at points (n, 3), shape (n, 3).
    """
    n = waves.degree
    x, w = sphere_rule(2 * n + 10)
    u = field(np.asarray(waves.centre) + waves.radius * x)
    Y = sw.harmonics(n, x)
    weighted = w[:, None] * Y.conj()
    a_r = weighted.T @ np.einsum("pa,pa->p", u, x)
    # X = -i L Y and grad_S Y = x cross X, both of square norm n(n+1)
    X = [(-1j * (R.T @ Y.T)).T for R in sw.rotations(n)]
    degree = sw.degrees(n)[0]
    N1 = np.maximum(degree * (degree + 1.0), 1.0)
    turned = np.cross(u, x)  # u . (x cross X) = (u cross x) . X
    a_x = sum((w * u[:, a]) @ X[a].conj() for a in range(3)) / N1
    a_t = sum((w * turned[:, a]) @ X[a].conj() for a in range(3)) / N1
    z = radial(waves.medium, n, waves.radius, waves.radius, outgoing=waves.outgoing)
    s = np.sqrt(N1)
    P, S = np.zeros(len(degree), complex), np.zeros(len(degree), complex)
    P[0] = a_r[0] / z.P[0, 0]
    for m in range(1, n + 1):
        at = degree == m
        A = np.stack([z.P[m, :2], z.S[m, :2]], axis=1)
        P[at], S[at] = _scaled_solve(A, np.stack([a_r[at], a_t[at]]))
    M = s * a_x / z.torsion[degree, 0]
    return np.concatenate([P, M[1:], (S * s * waves.medium.k_s)[1:]])


def translating_sphere(medium: Medium, radius: float, d: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Static displacement about a rigid sphere moved by d, at points x (points, 3).

    u = 3a/(2(5 - 6 nu)) {[(3 - 4 nu) I + e e^T]/r + a^2 (I - 3 e e^T)/(3 r^3)} d; the force is
    24 pi mu a (1 - nu)/(5 - 6 nu) d.
    """
    nu = medium.lame_lambda / (2 * (medium.lame_lambda + medium.lame_mu))
    r = np.linalg.norm(x, axis=1)[:, None]
    e = x / r
    along = e * (e @ d)[:, None]
    near = radius**2 * (d - 3 * along) / (3 * r**3)
    return 1.5 * radius / (5 - 6 * nu) * (((3 - 4 * nu) * d + along) / r + near)


def twisting_sphere(medium: Medium, radius: float, axis: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Displacement about a sphere turned as u = axis cross x on it, at points x; any omega."""

    def h1(t: np.ndarray | float) -> np.ndarray:  # times k^2, so that it is finite at k = 0
        return -np.exp(1j * medium.k_s * t) * (medium.k_s * t + 1j) / np.asarray(t) ** 2

    r = np.linalg.norm(x, axis=1)
    return (radius * h1(r) / h1(radius) / r)[:, None] * np.cross(axis, x)
