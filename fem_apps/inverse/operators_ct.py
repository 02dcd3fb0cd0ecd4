"""Parallel-beam tomography: exact projections of pixels and of ellipses, filtered back-projection.

The image is on [-1, 1]^2, pixel index iy N + ix. A ray (t, s) is the line x cos t + y sin t = s;
rays are ordered with the detector fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from fem_apps.inverse.operators import Operator, from_matrix
from fem_apps.surrogates.score_images import Ellipses, pixels


@dataclass(frozen=True)
class Geometry:
    """Angles and detectors of a parallel beam.

    Attributes:
        angles: t, shape (K,).
        detectors: s, equispaced, shape (J,).
    """

    angles: np.ndarray
    detectors: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(K, J)."""
        return len(self.angles), len(self.detectors)


def parallel_beam(angles: int, detectors: int, reach: float = 1.4) -> Geometry:
    """Angles k pi/K, detectors linspace(-reach, reach, J)."""
    return Geometry(np.pi * np.arange(angles) / angles, np.linspace(-reach, reach, detectors))


def projection_matrix(size: int, geometry: Geometry) -> sp.csr_matrix:
    """Lengths of the intersections of rays and pixels (Siddon, 1985), exact, shape (K J, N^2)."""
    edges = np.linspace(-1, 1, size + 1)
    rows, columns, lengths = [], [], []
    for k, t in enumerate(geometry.angles):
        c, s = np.cos(t), np.sin(t)
        for j, offset in enumerate(geometry.detectors):
            # the ray is (offset c - u s, offset s + u c), u its arc length
            cuts = [np.array([-2.0, 2.0])]
            if abs(s) > 1e-14:
                cuts.append((offset * c - edges) / s)
            if abs(c) > 1e-14:
                cuts.append((edges - offset * s) / c)
            u = np.sort(np.concatenate(cuts))
            middle, length = (u[1:] + u[:-1]) / 2, np.diff(u)
            ix = np.floor((offset * c - middle * s + 1) * size / 2).astype(int)
            iy = np.floor((offset * s + middle * c + 1) * size / 2).astype(int)
            hit = (length > 1e-14) & (ix >= 0) & (ix < size) & (iy >= 0) & (iy < size)
            columns.append(iy[hit] * size + ix[hit])
            lengths.append(length[hit])
            rows.append(np.full(int(hit.sum()), k * len(geometry.detectors) + j))
    data = (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_matrix(data, shape=(geometry.angles.size * geometry.detectors.size, size * size))


def tomography(size: int, geometry: Geometry) -> Operator:
    """Parallel-beam CT of size x size images; its adjoint is the transpose of the same lengths."""
    return from_matrix("tomography", projection_matrix(size, geometry))


def ellipse_sinograms(ellipses: Ellipses, geometry: Geometry) -> np.ndarray:
    """Exact line integrals, shape (images, K, J).

    p(t, s) = 2 r a b sqrt(q^2 - s'^2)/q^2 for |s'| < q, with q^2 = a^2 cos^2(t-phi) + b^2
    sin^2(t-phi) and s' = s - c.(cos t, sin t).
    """
    t = geometry.angles[:, None]
    out = np.zeros((len(ellipses.x), *geometry.shape))
    for k in range(ellipses.x.shape[1]):
        at = [getattr(ellipses, f)[:, k, None, None] for f in ("x", "y", "a", "b", "angle")]
        x, y, a, b, angle = at
        q2 = (a * np.cos(t - angle)) ** 2 + (b * np.sin(t - angle)) ** 2
        s = geometry.detectors - x * np.cos(t) - y * np.sin(t)
        chord = 2 * a * b * np.sqrt(np.maximum(q2 - s * s, 0.0)) / q2
        out += ellipses.density[:, k, None, None] * chord
    return out


def ramp_filter(detectors: np.ndarray) -> np.ndarray:
    """The ramp filter, a matrix (J, J): h_0 = 1/(4 d^2), h_n = -1/(pi n d)^2 for odd n."""
    d = detectors[1] - detectors[0]
    n = np.arange(len(detectors))[:, None] - np.arange(len(detectors))
    odd = n % 2 != 0
    h = np.where(odd, -1.0 / (np.pi * np.where(odd, n, 1) * d) ** 2, 0.0)
    h[n == 0] = 1 / (4 * d * d)
    return d * h


def fbp_matrix(size: int, geometry: Geometry) -> sp.csr_matrix:
    """Back-projection with linear interpolation, of filtered projections: shape (N^2, K J).

    Times `ramp_filter` it is filtered back-projection: see `fbp`.
    """
    x = pixels(size)
    first, d = geometry.detectors[0], geometry.detectors[1] - geometry.detectors[0]
    J = len(geometry.detectors)
    parts = []
    for t in geometry.angles:
        place = ((np.cos(t) * x + np.sin(t) * x[:, None]).ravel() - first) / d
        low = np.floor(place).astype(int)
        weight = place - low
        rows = np.arange(size * size)
        both = [(low, 1 - weight), (low + 1, weight)]
        inside = (low >= 0) & (low + 1 < J)
        parts.append(
            sum(
                sp.csr_matrix((w[inside], (rows[inside], c[inside])), shape=(size * size, J))
                for c, w in both
            )
        )
    return sp.hstack(parts, format="csr") * (np.pi / len(geometry.angles))


def fbp(sinograms: np.ndarray, size: int, geometry: Geometry) -> np.ndarray:
    """Filtered back-projection, shapes (..., K J) -> (..., size^2)."""
    K, J = geometry.shape
    filtered = sinograms.reshape(-1, K, J) @ ramp_filter(geometry.detectors)
    out = (fbp_matrix(size, geometry) @ filtered.reshape(-1, K * J).T).T
    return out.reshape(*sinograms.shape[:-1], size * size)
