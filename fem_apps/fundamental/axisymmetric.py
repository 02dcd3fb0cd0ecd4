"""Fundamental solutions for bodies of revolution: block-circulant matrices, solved by FFT.

Sources and boundary points lie on rings about the axis, K equally spaced on each. In cylindrical
components the block of source (j, q) at point (i, p) depends on p - q mod K alone, since Phi turns
with space: Phi(Rx, Ry) = R Phi(x, y) R^T. The discrete Fourier transform over p makes of the
3MK x 3NK least-squares problem K problems 3M x 3N, one for each azimuthal mode: K^2 times fewer
operations, K times fewer entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.fundamental import mfs
from fem_apps.fundamental.bodies import Shape
from fem_apps.fundamental.medium import Medium


@dataclass(frozen=True)
class Rings:
    """Points on rings about an axis through `centre`, K on each; angles 2 pi p/K.

    Attributes:
        rho, z: radius and height of each ring, (M,).
        normals: their outward normals, radial and axial part, (M, 2).
        count: K.
        axis: 0, 1 or 2, the axis of revolution.
        centre: on the axis, (3,).
    """

    rho: np.ndarray
    z: np.ndarray
    normals: np.ndarray
    count: int
    axis: int
    centre: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        """Unit vectors radial, azimuthal, axial at angle p; (K, 3 components, 3 vectors)."""
        t = 2 * np.pi * np.arange(self.count) / self.count
        a, b = (self.axis + 1) % 3, (self.axis + 2) % 3
        out = np.zeros((self.count, 3, 3))
        out[:, a, 0], out[:, b, 0] = np.cos(t), np.sin(t)
        out[:, a, 1], out[:, b, 1] = -np.sin(t), np.cos(t)
        out[:, self.axis, 2] = 1.0
        return out

    def _space(self, radial: np.ndarray, axial: np.ndarray) -> np.ndarray:
        e = self.frames
        x = radial[:, None, None] * e[None, :, :, 0] + axial[:, None, None] * e[None, :, :, 2]
        return x.reshape(-1, 3)

    @property
    def x(self) -> np.ndarray:
        """The points, ring by ring, (M K, 3)."""
        return self.centre + self._space(self.rho, self.z)

    @property
    def n(self) -> np.ndarray:
        """Their outward normals, (M K, 3)."""
        return self._space(self.normals[:, 0], self.normals[:, 1])


def rings_of(shape: Shape, rings: int, count: int, offset: float = 0.0) -> Rings:
    """Rings on a sphere or spheroid, at Gauss-Legendre latitudes.

    Args:
        shape: a sphere, or an ellipsoid with two equal axes.
        rings: M.
        count: K.
        offset: 0: the boundary; else the confocal surface with the least semi-axis times
            1 - offset (of a sphere: the sphere of radius (1 - offset) a).

    Raises:
        CaseError: a body that is not one of revolution about a coordinate axis.
    """
    axes = shape.axes
    equal = [k for k in range(3) if axes is not None and axes[k - 2] == axes[k - 1]]
    if axes is None or not equal:
        raise CaseError(
            "method = 'axisymmetric': for spheres, and ellipsoids with two equal axes; take "
            "method = 'mfs'"
        )
    axis = equal[-1]
    a = np.sqrt(axes**2 - axes.min() ** 2 * (1 - (1 - offset) ** 2))
    z, _ = np.polynomial.legendre.leggauss(rings)
    across, along = float(a[axis - 1]), float(a[axis])
    s = np.sqrt(1 - z * z)
    normals = np.stack([s / across, z / along], axis=1)
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    centre = np.array(shape.body.centre, dtype=float)
    return Rings(across * s, along * z, normals, count, axis, centre)


class RingLeastSquares:
    """min |A c - b| for sources and boundary points on rings; the interface of `LeastSquares`.

    Attributes:
        condition: the largest of the modes'.
        rank: columns that count.
        singular: whether that of any mode is so to rounding.
    """

    def __init__(self, medium: Medium, boundary: Rings, sources: Rings, rows: mfs.Boundary) -> None:
        """Assemble one source a ring, transform, factorise each mode.

        Args:
            medium: of the waves.
            boundary: rings on the obstacle.
            sources: rings inside it, with the same axis and K.
            rows: the points of `boundary` with one condition on all, which scales the rows.

        Raises:
            SolveError: entries that are not finite.
        """
        K = boundary.count
        if sources.count != K or sources.axis != boundary.axis:
            raise ValueError("sources and boundary need the same axis and number of points")
        self._boundary, self._sources = boundary, sources
        first = sources.x[::K]
        A = mfs.PointSources(medium, first).rows(rows)
        M, N = len(boundary.rho), len(sources.rho)
        A = A.reshape(M, K, 3, N, 3)
        A = np.einsum("pca,ipcjd,db->pjbia", boundary.frames, A, sources.frames[0], optimize=True)
        modes = np.fft.fft(A, axis=0).reshape(K, 3 * N, 3 * M)
        self._modes = [mfs.LeastSquares(B.T) for B in modes]
        self.rank = sum(f.rank for f in self._modes)
        self.singular = any(f.singular for f in self._modes)

    @cached_property
    def condition(self) -> float:
        """The largest of the modes'."""
        return max(f.condition for f in self._modes)

    def solve(self, b: np.ndarray) -> np.ndarray:
        """C for one right side (3 M K,) or several (3 M K, k), in Cartesian components."""
        K, M, N = self._boundary.count, len(self._boundary.rho), len(self._sources.rho)
        f = b.reshape(M, K, 3, -1)
        f = np.einsum("pca,ipck->piak", self._boundary.frames, f, optimize=True)
        modes = np.fft.fft(f, axis=0).reshape(K, 3 * M, -1)
        c = np.empty((K, 3 * N, modes.shape[2]), dtype=complex)
        for k, mode in enumerate(self._modes):
            c[k] = mode.solve(modes[k])
        space = np.fft.ifft(c, axis=0).reshape(K, N, 3, -1)
        space = np.einsum("pca,pjak->jpck", self._sources.frames, space, optimize=True)
        out = space.reshape(3 * N * K, -1)
        return out[:, 0] if b.ndim == 1 else out


def ring_problem(
    medium: Medium, shape: Shape, count: int, offset: float, oversampling: float
) -> tuple[mfs.PointSources, mfs.Boundary, RingLeastSquares]:
    """Sources, boundary points and factor of a body of revolution with about `count` sources.

    Rings and points on each are as many as spread evenly: K = 2 N.

    Raises:
        CaseError: no body of revolution, or a condition that changes on it.
    """
    if shape.body.rigid_where is not None:
        raise CaseError("method = 'axisymmetric': not with rigid_where")
    N = max(2, round(np.sqrt(count / 2)))
    K = 2 * N
    boundary = rings_of(shape, int(np.ceil(oversampling * N)), K)
    sources = rings_of(shape, N, K, offset)
    rigid = shape.body.condition == "rigid"
    b = mfs.Boundary(boundary.x, boundary.n, np.full(len(boundary.x), rigid), shape.surface.size)
    factor = RingLeastSquares(medium, boundary, sources, b)
    return mfs.PointSources(medium, sources.x), b, factor
