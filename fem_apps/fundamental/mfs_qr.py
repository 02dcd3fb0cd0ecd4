"""MFS-QR: the span of the point sources in a basis without cancellation, and plain multipoles.

By the addition theorem the collocation matrix is A = Psi C, Psi outgoing vector waves and C their
coefficients of each source, which fall off like (R_source/R_boundary)^n. With C = D C', D the row
norms in falling order, and C'^T = Q R, the basis A conj(Q) D_1^-1 = Psi E^T spans what A spans,
and E_ij = R_ij d_j/d_i (j >= i) is computed entry by entry without loss of digits.
(Antunes 2018 for Laplace's equation; here for Navier's.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.fundamental.medium import Medium
from fem_apps.fundamental.mfs import Boundary
from fem_apps.fundamental.vector_waves import VectorWaves, source_coefficients

MAX_DEGREE = 90


@dataclass(frozen=True)
class WaveBasis:
    """Combinations of outgoing vector waves about one centre for each obstacle.

    Attributes:
        medium: of the waves.
        waves: one set of outgoing waves an obstacle.
        combine: for each, the matrix (waves' columns, basis columns).
    """

    medium: Medium
    waves: tuple[VectorWaves, ...]
    combine: tuple[np.ndarray, ...]

    def rows(self, boundary: Boundary) -> np.ndarray:
        """The rows of all basis fields on a boundary, (3M, columns), in Fortran order."""
        blocks = [wave_rows(w, boundary) @ E for w, E in zip(self.waves, self.combine, strict=True)]
        return np.asfortranarray(np.concatenate(blocks, axis=1))

    def _parts(self, c: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([E.shape[1] for E in self.combine])[:-1]
        return [E @ part for E, part in zip(self.combine, np.split(c, ends), strict=True)]

    def displacement(self, x: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Displacement of a combination at points, (M, 3)."""
        parts = zip(self.waves, self._parts(c), strict=True)
        return np.asarray(sum(w.field(x, part) for w, part in parts))

    def far_field(self, d: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Its far fields u_p, u_s, (M, 3) each."""
        fields = [w.far_field(d, p) for w, p in zip(self.waves, self._parts(c), strict=True)]
        return np.asarray(sum(f[0] for f in fields)), np.asarray(sum(f[1] for f in fields))


def wave_rows(waves: VectorWaves, boundary: Boundary) -> np.ndarray:
    """Rows of vector waves on a boundary, (3M, columns)."""
    r = boundary.rigid
    out = np.empty((3 * len(r), waves.columns), dtype=complex)
    if r.any():
        out[np.repeat(r, 3)] = waves.displacement(boundary.x[r])
    if not r.all():
        out[np.repeat(~r, 3)] = waves.traction(boundary.x[~r], boundary.normals[~r])
    return out * boundary.scale(boundary_medium(waves))[:, None]


def boundary_medium(waves: VectorWaves) -> Medium:
    """The medium that scales tractions."""
    return waves.medium


def mfs_qr(
    medium: Medium,
    boundary: Boundary,
    parts: list[tuple[np.ndarray, np.ndarray]],
) -> WaveBasis:
    """The basis of MFS-QR.

    Args:
        medium: omega > 0.
        boundary: points of collocation of all obstacles.
        parts: for each obstacle the rows of its points in `boundary`, and its sources (N, 3).

    Raises:
        CaseError: sources not all nearer to their centre than the obstacle's boundary is.
    """
    waves, combine = [], []
    for rows, y in parts:
        x = boundary.x[rows]
        centre = 0.5 * (x.max(axis=0) + x.min(axis=0))
        near = float(np.linalg.norm(x - centre, axis=1).min())
        far = float(np.linalg.norm(y - centre, axis=1).max())
        if far >= 0.97 * near:
            raise CaseError(
                f"method = 'mfs-qr': sources are up to {far:.3g} from the centre of their "
                f"obstacle, whose boundary comes as near as {near:.3g}; multipoles about one "
                "centre need sources within it. Take method = 'mfs', or sources further in"
            )
        # the tail beyond the degree is rounding, and there are waves enough for all sources
        degree = int(np.log(1e-17) / np.log(far / near) + medium.k_s * near)
        degree = max(degree, int(np.ceil(np.sqrt(len(y) + 1))) + 4)
        if degree > MAX_DEGREE:
            raise CaseError(
                f"method = 'mfs-qr': multipoles of degree {degree} would be needed for sources "
                f"{far:.3g} from their centre (boundary {near:.3g}); put them further in, or take "
                "method = 'mfs'"
            )
        w = VectorWaves(medium, degree, True, near, tuple(centre.tolist()))
        part = Boundary(x, boundary.normals[rows], boundary.rigid[rows], boundary.length)
        size = np.sqrt((np.abs(wave_rows(w, part)) ** 2).mean(axis=0))
        C = size[:, None] * source_coefficients(w, y)
        d = np.linalg.norm(C, axis=1)
        order = np.argsort(-d, kind="stable")
        d = d[order]
        unit = C[order] / np.maximum(d, 1e-300)[:, None]
        R = np.linalg.qr(unit.T, mode="r")
        count = len(R)
        E = R * (d[None, :] / d[:count, None])
        back = np.empty((len(d), count), dtype=complex)
        back[order] = E.T
        waves.append(w)
        combine.append(back / size[:, None])
    return WaveBasis(medium, tuple(waves), tuple(combine))


def multipoles(
    medium: Medium, boundary: Boundary, parts: list[np.ndarray], degree: int
) -> WaveBasis:
    """Plain vector waves up to a degree about each obstacle, columns of unit rms on its boundary.

    Args:
        medium: omega > 0.
        boundary: points of collocation of all obstacles.
        parts: for each obstacle the rows of its points in `boundary`.
        degree: of the waves.
    """
    waves, combine = [], []
    for rows in parts:
        x = boundary.x[rows]
        centre = 0.5 * (x.max(axis=0) + x.min(axis=0))
        near = float(np.linalg.norm(x - centre, axis=1).min())
        w = VectorWaves(medium, degree, True, near, tuple(centre.tolist()))
        part = Boundary(x, boundary.normals[rows], boundary.rigid[rows], boundary.length)
        size = np.sqrt((np.abs(wave_rows(w, part)) ** 2).mean(axis=0))
        waves.append(w)
        combine.append(np.diag(1 / size))
    return WaveBasis(medium, tuple(waves), tuple(combine))
