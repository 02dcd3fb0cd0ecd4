"""The method of fundamental solutions for scattering by rigid bodies and cavities.

    u(x) = sum_j Phi(x, y_j) c_j,   y_j inside the obstacles,

with c from collocation of u = -u_inc (rigid) or T u = -T u_inc (cavity) at about twice as many
boundary points, in least squares. Everything u has to satisfy elsewhere it does exactly: the error
is that on the boundary, measured at points that were not used. (Fairweather, Karageorghis, Martin
2003; arXiv 2508.00515.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from scipy.linalg import lapack, svd, svdvals

from fem_apps.errors import SolveError
from fem_apps.fundamental import kupradze
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.sphere import cross_section
from fem_apps.fundamental.vector_waves import sphere_rule

# singular values of R are computed up to this size, above it LAPACK's estimate is taken
EXACT_CONDITION = 1500
CUT = 1e-15


@dataclass(frozen=True)
class Boundary:
    """Points of the obstacles' boundaries.

    Attributes:
        x, normals: points and outward unit normals, (M, 3).
        rigid: where u = 0 is asked; elsewhere T u = 0, (M,).
        length: a size of the obstacles, which makes tractions comparable with displacements.
        weights: of the points in least squares, their areas' square roots, (M,); None: 1.
    """

    x: np.ndarray
    normals: np.ndarray
    rigid: np.ndarray
    length: float = 1.0
    weights: np.ndarray | None = None

    def scale(self, medium: Medium) -> np.ndarray:
        """Factor of each row: weights, and 1/(mu (k_s + 1/length)) for tractions."""
        factor = 1.0 / (medium.lame_mu * (medium.k_s + 1.0 / self.length))
        rows = np.where(self.rigid, 1.0, factor)
        return np.repeat(rows if self.weights is None else rows * self.weights, 3)

    def data(self, displacement: np.ndarray, traction: np.ndarray, medium: Medium) -> np.ndarray:
        """The rows of a field from its values (M, 3) at all points; (3M,)."""
        rows = np.where(self.rigid[:, None], displacement, traction)
        return rows.ravel() * self.scale(medium)

    def incident(self, medium: Medium, wave: PlaneWave) -> np.ndarray:
        """The rows of a plane wave, (3M,)."""
        return self.data(
            wave.displacement(medium, self.x), wave.traction(medium, self.x, self.normals), medium
        )


class Factor(Protocol):
    """A factorised collocation matrix: `LeastSquares`, or one that uses symmetry."""

    singular: bool

    @property
    def condition(self) -> float:
        """Of the matrix."""

    def solve(self, b: np.ndarray) -> np.ndarray:
        """C for one right side (3M,) or several (3M, k)."""


class Basis(Protocol):
    """Radiating fields: point sources, or vector waves."""

    medium: Medium

    def rows(self, boundary: Boundary) -> np.ndarray:
        """Their rows on a boundary, (3M, columns)."""

    def displacement(self, x: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Displacement of a combination at points, (M, 3)."""

    def far_field(self, d: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Its far fields u_p, u_s, (M, 3) each."""


@dataclass(frozen=True)
class PointSources:
    """Unit forces at points inside the obstacles; or combined ones, D + i mu k_s Phi.

    Attributes:
        medium: of the waves.
        y: sources, (N, 3).
        normals: of the surface of the sources: then they are combined, which has no resonances.
    """

    medium: Medium
    y: np.ndarray
    normals: np.ndarray | None = None

    def _both(self, x: np.ndarray) -> np.ndarray:
        A = kupradze.displacement(self.medium, x, self.y)
        if self.normals is None:
            return A
        A *= 1j * self.medium.lame_mu * self.medium.k_s
        return A + kupradze.double_layer(self.medium, x, self.y, self.normals)

    def rows(self, boundary: Boundary) -> np.ndarray:
        """The rows of all sources on a boundary, (3M, 3N), in Fortran order."""
        r = boundary.rigid
        if r.all() and boundary.weights is None:
            return self._both(boundary.x)
        if self.normals is not None:
            raise ValueError("combined sources are for rigid obstacles")
        A = kupradze.traction(self.medium, boundary.x, boundary.normals, self.y)
        if r.any():
            A[np.repeat(r, 3)] = kupradze.displacement(self.medium, boundary.x[r], self.y)
        A *= boundary.scale(self.medium)[:, None]
        return A

    def displacement(self, x: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Displacement of a combination at points, (M, 3)."""
        if self.normals is None:
            return kupradze.apply(self.medium, x, self.y, c)
        return (self._both(x) @ c).reshape(-1, 3)

    def far_field(self, d: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Its far fields u_p, u_s, (M, 3) each."""
        if self.normals is None:
            return kupradze.far_field(self.medium, d, self.y, c)
        return _combined_far_field(self.medium, d, self.y, self.normals, c)


def _combined_far_field(
    medium: Medium, d: np.ndarray, y: np.ndarray, normals: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Far field of D + i mu k_s Phi: sources e^(-ik d.y) and their tractions at y."""
    m = medium
    c = c.reshape(-1, 3)
    phase = d @ y.T
    dn, dc = d @ normals.T, d @ c.T
    nc = np.einsum("ja,ja->j", normals, c)
    # traction at y of the plane wave d e^(-i k_p d.y): -i k_p [lambda n + 2 mu (n.d) d] e^(...)
    e = np.exp(-1j * m.k_p * phase) / (4 * np.pi * m.p_modulus)
    p = -1j * m.k_p * (m.lame_lambda * nc + 2 * m.lame_mu * dn * dc) + 1j * m.lame_mu * m.k_s * dc
    u_p = d * np.sum(e * p, axis=1)[:, None]
    e = np.exp(-1j * m.k_s * phase) / (4 * np.pi * m.lame_mu)
    v = -1j * m.k_s * m.lame_mu * ((e * dn) @ c + (e * dc) @ normals)
    v += 1j * m.lame_mu * m.k_s * (e @ c)
    return u_p, v - d * np.einsum("ia,ia->i", d, v)[:, None]


class LeastSquares:
    """min |A c - b|, A factorised once: QR, and where R is singular to rounding its SVD, cut off.

    Attributes:
        condition: of A in the 2-norm (above `EXACT_CONDITION` columns LAPACK's 1-norm estimate).
        rank: columns that count.
        singular: whether A is so to rounding.
    """

    def __init__(self, A: np.ndarray, *, cut: float = CUT) -> None:
        """Factorise; A is overwritten where it is in Fortran order.

        Raises:
            SolveError: A is not finite.
        """
        m, n = A.shape
        if m < n:
            raise ValueError(f"{m} equations for {n} unknowns")
        # LAPACK's best workspace: with the least one it is not blocked, and 3 to 5 times slower
        work = int(lapack.zgeqrf_lwork(m, n)[0].real)
        self._qr, self._tau, _, info = lapack.zgeqrf(A, lwork=work, overwrite_a=True)
        if info or not np.isfinite(self._tau).all():
            raise SolveError("QR of the collocation matrix", "its entries are not finite")
        R = np.triu(self._qr[:n])
        self._pseudo: tuple[np.ndarray, ...] | None = None
        reciprocal, info = lapack.ztrcon(R)
        self._estimate, self.rank = 1.0 / max(float(reciprocal), 1e-300), n
        self.singular = self._estimate > 0.1 / cut
        if self.singular:
            U, s, Vh = svd(R)
            self.rank = int((s > cut * s[0]).sum())
            k = self.rank
            self._pseudo = (U[:, :k].conj().T, s[:k], Vh[:k].conj().T)
            self.__dict__["condition"] = float(s[0] / s[-1]) if s[-1] > 0 else np.inf
        self._n = n

    @cached_property
    def condition(self) -> float:
        """Computed when it is asked for: the singular values of R cost more than its making."""
        if self._n > EXACT_CONDITION:
            return self._estimate
        s = svdvals(np.triu(self._qr[: self._n]))
        return float(s[0] / s[-1])

    def solve(self, b: np.ndarray) -> np.ndarray:
        """C for one right side (M,) or several (M, k)."""
        block = np.asfortranarray(b.reshape(len(b), -1), dtype=complex)
        work = int(lapack.zunmqr("L", "C", self._qr, self._tau, block, -1)[1][0].real)
        y = lapack.zunmqr("L", "C", self._qr, self._tau, block, work)[0][: self._n]
        if self._pseudo is not None:
            Uh, s, V = self._pseudo
            c = V @ ((Uh @ y) / s[:, None])
        else:
            c, info = lapack.ztrtrs(self._qr[: self._n], y)
            if info:
                raise SolveError("triangular solve of the collocation matrix", f"info = {info}")
        return c[:, 0] if b.ndim == 1 else c


@dataclass(frozen=True)
class Solution:
    """A scattered field and what is known of its error.

    Attributes:
        basis: the radiating fields.
        c: their coefficients.
        boundary_error: largest component of the residual at fresh boundary points, over the largest
            length of the incident field there.
        factor: of the least-squares matrix.
        coefficient_norm: |c|; it explodes where the sources cannot represent the field.
        boundary_error_rms: root mean square of the residual over that of the incident field.
    """

    basis: Any
    c: np.ndarray
    boundary_error: float
    factor: Factor
    coefficient_norm: float
    boundary_error_rms: float

    @property
    def condition(self) -> float:
        """Of the least-squares matrix."""
        return self.factor.condition

    def displacement(self, x: np.ndarray) -> np.ndarray:
        """The scattered displacement at points, (M, 3)."""
        return self.basis.displacement(x, self.c)

    def far_field(self, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """U_p and u_s in unit directions, (M, 3) each."""
        return self.basis.far_field(d, self.c)


def solve(
    basis: Basis,
    boundary: Boundary,
    fresh: Boundary,
    data: np.ndarray,
    fresh_data: np.ndarray,
    *,
    cut: float = CUT,
    factor: Factor | None = None,
) -> Solution:
    """The combination whose rows on a boundary are -data, with its error on fresh points.

    Args:
        basis: radiating fields.
        boundary: points of collocation.
        fresh: points for the error.
        data: rows of the incident field on `boundary`, (3M,).
        fresh_data: the same on `fresh`.
        cut: relative size of singular values that are dropped, where it comes to that.
        factor: of `basis.rows(boundary)`, if it is at hand.
    """
    factor = factor or LeastSquares(basis.rows(boundary), cut=cut)
    c = factor.solve(-data)
    residual = basis.rows(fresh) @ c + fresh_data
    lengths = np.sqrt((np.abs(fresh_data.reshape(-1, 3)) ** 2).sum(axis=1))
    error = np.abs(residual).max() / max(float(lengths.max()), 1e-300)
    rms = float(np.linalg.norm(residual)) / max(float(np.linalg.norm(lengths)), 1e-300)
    return Solution(basis, c, float(error), factor, float(np.linalg.norm(c)), rms)


@dataclass(frozen=True)
class Balance:
    """Energies of a far field.

    Attributes:
        I_P, I_S: integrals of |u_p|^2 and |u_s|^2 over all directions.
        cross_section: scattered power over incident intensity.
        extinction: what the optical theorem says that it is, from the forward direction.
        defect: their relative difference.
    """

    I_P: float
    I_S: float
    cross_section: float
    extinction: float
    defect: float


def energy_balance(solution: Any, medium: Medium, wave: PlaneWave, degree: int) -> Balance:
    """The optical theorem: scattered power against forward extinction; holds for any obstacles.

    sigma = 4 pi/k_p Im d.u_p(d) for P waves, 4 pi/k_s Im p.u_s(d) for S waves.

    Args:
        solution: anything with `far_field`.
        medium: of the waves.
        wave: the incident wave, of unit amplitude.
        degree: of the quadrature over directions, about 2 k_s times the obstacles' size and more.
    """
    d, w = sphere_rule(degree)
    u_p, u_s = solution.far_field(d)
    I_P = float(w @ np.sum(np.abs(u_p) ** 2, axis=1))
    I_S = float(w @ np.sum(np.abs(u_s) ** 2, axis=1))
    sigma = cross_section(medium, wave, I_P, I_S)
    u_p, u_s = solution.far_field(wave.d[None])
    forward = (u_s if wave.shear else u_p)[0] @ wave.a
    extinction = 4 * np.pi / wave.wave_number(medium) * float(forward.imag)
    return Balance(I_P, I_S, sigma, extinction, abs(extinction - sigma) / sigma)
