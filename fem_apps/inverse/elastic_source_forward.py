"""Far or near fields of a rigid star-shaped obstacle, with their derivatives in its parameters.

The boundary x = c + r(x^) x^, log r a sum of real spherical harmonics, or a sphere. Moving it by h
changes the scattered field by the radiating u' with u' = -(h.n) d_n u on the boundary (u the total
field; domain derivative of Hettlich and of Le Louer), for which the factorised matrix of the method
of fundamental solutions serves again. On a rigid boundary u = 0, so that d_n u follows from the
traction t: d_n u = (t - (lambda + mu)/(lambda + 2 mu) n (n.t))/mu.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fem_apps.fundamental import kupradze
from fem_apps.fundamental import scalar_waves as sw
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.mfs import LeastSquares
from fem_apps.fundamental.surfaces import fibonacci


@dataclass(frozen=True)
class Receivers:
    """Where the scattered field is measured: three complex numbers each and per incident wave.

    Attributes:
        x: directions of the far field (unit vectors), or points, (R, 3).
        far: the far field x^.u_p, theta^.u_s, phi^.u_s; else the displacement at the points.
    """

    x: np.ndarray
    far: bool = True

    def matrix(self, medium: Medium, y: np.ndarray) -> np.ndarray:
        """What is measured of unit forces at y, (3 R, 3 N)."""
        if not self.far:
            return kupradze.displacement(medium, self.x, y)
        p, s = kupradze.far_field_matrices(medium, self.x, y)
        return self._project(p.reshape(len(self.x), 3, -1), s.reshape(len(self.x), 3, -1))

    def of_far_field(self, u_p: np.ndarray, u_s: np.ndarray) -> np.ndarray:
        """The same of far fields (R, 3), (3 R,)."""
        return self._project(u_p[:, :, None], u_s[:, :, None])[:, 0]

    def _project(self, p: np.ndarray, s: np.ndarray) -> np.ndarray:
        e = frames(self.x)
        rows = [np.einsum("ra,rak->rk", self.x, p)]
        rows += [np.einsum("ra,rak->rk", e[k], s) for k in range(2)]
        return np.stack(rows, axis=1).reshape(3 * len(self.x), -1)


def frames(d: np.ndarray) -> np.ndarray:
    """Two unit vectors across each unit vector d (n, 3), orthogonal; (2, n, 3)."""
    least = np.eye(3)[np.argmin(np.abs(d), axis=1)]
    first = np.cross(d, least)
    first /= np.linalg.norm(first, axis=1)[:, None]
    return np.stack([first, np.cross(d, first)])


def real_harmonics(degree: int, x: np.ndarray) -> np.ndarray:
    """Orthonormal real harmonics of directions x, (n, (degree + 1)^2)."""
    Y = sw.harmonics(degree, x)
    n, m = sw.degrees(degree)
    mirror = n * n + n + np.abs(m)
    scale = np.where(m == 0, 1.0, np.sqrt(2.0))
    return scale * np.where(m >= 0, Y[:, mirror].real, Y[:, mirror].imag)


@dataclass(frozen=True)
class Star:
    """The parametrisation: parameters are the centre (3,), then those of r.

    Attributes:
        degree: of the harmonics of log r; 0 is a sphere.
    """

    degree: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return 3 + (self.degree + 1) ** 2

    def sphere(self, centre: np.ndarray, radius: float) -> np.ndarray:
        """The parameters of a sphere."""
        p = np.zeros(self.size)
        p[:3], p[3] = centre, np.log(radius) * np.sqrt(4 * np.pi)
        return p

    def radius(self, p: np.ndarray, d: np.ndarray) -> np.ndarray:
        """R in unit directions d (n, 3)."""
        return np.exp(real_harmonics(self.degree, d) @ p[3:])

    def boundary(self, p: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (n, 3), outward normals (n, 3) and h.n of each parameter (n, size)."""
        r = self.radius(p, d)
        # grad_S log r by the angular momentum operators: grad_S Y = d cross (-i L Y)
        Y = sw.harmonics(self.degree, d)
        c = _complex_coefficients(self.degree, p[3:])
        X = np.stack([-1j * (Y @ (R @ c)) for R in sw.rotations(self.degree)], axis=1)
        slope = np.real(np.cross(d, X))
        normal = d - slope
        normal /= np.linalg.norm(normal, axis=1)[:, None]
        along = np.einsum("na,na->n", normal, d) * r
        hn = np.concatenate([normal, along[:, None] * real_harmonics(self.degree, d)], axis=1)
        return p[:3] + r[:, None] * d, normal, hn


def _complex_coefficients(degree: int, c: np.ndarray) -> np.ndarray:
    """Coefficients of Y_n^m of a sum of real harmonics with coefficients c."""
    n, m = sw.degrees(degree)
    mirror = n * n + n - m
    out = np.zeros(len(c), dtype=complex)
    for i in range(len(c)):
        if m[i] == 0:
            out[i] += c[i]
        elif m[i] > 0:  # sqrt 2 Re Y_n^m
            out[i] += c[i] / np.sqrt(2)
            out[mirror[i]] += (-1.0) ** m[i] * c[i] / np.sqrt(2)
        else:  # sqrt 2 Im Y_n^|m|
            out[mirror[i]] += c[i] / (1j * np.sqrt(2))
            out[i] -= (-1.0) ** m[i] * c[i] / (1j * np.sqrt(2))
    return out


@dataclass(frozen=True)
class Forward:
    """The map from parameters of a rigid obstacle to measurements.

    Attributes:
        medium, waves: outside, and the incident waves.
        receivers: where the field is measured.
        star: parametrisation of the boundary.
        sources: number of point sources; depth: their place, as a factor of r.
    """

    medium: Medium
    waves: tuple[PlaneWave, ...]
    receivers: Receivers
    star: Star
    sources: int = 120
    depth: float = 0.4
    cut: float = 1e-13

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Measurements, complex (waves, 3 R)."""
        return self._evaluate(p, False)[0]

    def doubt(self, p: np.ndarray) -> float:
        """How much the measurements change, relative to them, with half as many sources more."""
        value = self(p)
        finer = replace(self, sources=int(1.5 * self.sources))(p)
        return float(np.linalg.norm(value - finer) / np.linalg.norm(finer))

    def with_derivative(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Measurements (waves, 3 R), and their derivatives (waves, 3 R, parameters)."""
        return self._evaluate(p, True)

    def _densities(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, LeastSquares]:
        """Sources (N, 3), their forces (3 N, waves), and the factor that gave them."""
        x = self.star.boundary(p, fibonacci(2 * self.sources))[0]
        inner = fibonacci(self.sources)
        y = p[:3] + self.depth * self.star.radius(p, inner)[:, None] * inner
        A = LeastSquares(kupradze.displacement(self.medium, x, y), cut=self.cut)
        incident = [w.displacement(self.medium, x).ravel() for w in self.waves]
        return y, A.solve(-np.stack(incident, axis=1)), A

    def _evaluate(self, p: np.ndarray, derivative: bool) -> tuple[np.ndarray, np.ndarray]:
        m = self.medium
        y, c, A = self._densities(p)
        M = self.receivers.matrix(m, y)
        values = (M @ c).T
        if not derivative:
            return values, np.empty(0)
        x, normal, hn = self.star.boundary(p, fibonacci(2 * self.sources))
        t = kupradze.traction(m, x, normal, y) @ c
        t += np.stack([w.traction(m, x, normal).ravel() for w in self.waves], axis=1)
        t = t.reshape(len(x), 3, -1)
        nt = np.einsum("na,naw->nw", normal, t)
        factor = (m.lame_lambda + m.lame_mu) / m.p_modulus
        slope = (t - factor * normal[:, :, None] * nt[:, None]) / m.lame_mu
        data = -slope[:, :, :, None] * hn[:, None, None, :]
        moved = A.solve(data.reshape(3 * len(x), -1))
        shape = (-1, len(self.waves), self.star.size)
        return values, np.moveaxis((M @ moved).reshape(shape), 0, 1)
