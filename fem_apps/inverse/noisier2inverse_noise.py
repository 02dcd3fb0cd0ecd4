"""Correlated measurement noise of known law: filtered white noise on a (K, J) array.

    eps = intensity * (F w)/|k|_2,   F: convolution with k, a Gaussian of standard deviation sigma

(Gruber et al., arXiv 2503.19468: scipy's gaussian_filter, divided by the norm of its impulse
response, so that the marginal standard deviation stays `intensity`). The filter is stationary: the
detector axis is padded and cropped, the angles are continued by p(t + pi, s) = p(t, -s). On a grid
of sensors both axes are padded and cropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter1d

Law = Literal["gaussian", "laplace"]


@dataclass(frozen=True)
class CorrelatedNoise:
    """The law of eps on a (K, J) array.

    Attributes:
        angles, detectors: K, J; rows and columns of a grid of sensors.
        intensity: marginal standard deviation.
        sigma: of the filter, in samples, along both axes; 0: white.
        law: of the white noise before the filter; "laplace" has variance 1 too.
        half_circle: whether the first axis is the angles of a half circle, or rows of sensors.
    """

    angles: int
    detectors: int
    intensity: float
    sigma: float
    law: Law = "gaussian"
    half_circle: bool = True

    @cached_property
    def _filters(self) -> tuple[np.ndarray, np.ndarray]:
        """Filters: angles (K, 2K) or padded rows, and padded detectors (J, J + 2 reach)."""
        K, J = self.angles, self.detectors
        reach = int(4 * self.sigma + 0.5)
        spike = np.zeros(2 * reach + 1)
        spike[reach] = 1.0
        taps = gaussian_filter1d(spike, self.sigma, mode="constant") if self.sigma else spike
        taps = taps / np.linalg.norm(taps)
        across = _padded(J, taps)
        if not self.half_circle:
            return _padded(K, taps), across
        along = np.zeros((K, 2 * K))
        for i in range(K):
            np.add.at(along[i], (i + np.arange(-reach, reach + 1)) % (2 * K), taps)
        return along, across

    def draw(self, key: jax.Array, number: int) -> jax.Array:
        """Samples, shape (number, K J), float32."""
        along, across = (jnp.asarray(f, jnp.float32) for f in self._filters)
        rows = self.angles if self.half_circle else along.shape[1]
        shape = (number, rows, across.shape[1])
        if self.law == "laplace":
            w = jax.random.laplace(key, shape, jnp.float32) / np.float32(np.sqrt(2))
        else:
            w = jax.random.normal(key, shape, jnp.float32)
        w = w @ across.T
        if self.half_circle:
            w = jnp.concatenate([w, w[:, :, ::-1]], axis=1)
        return np.float32(self.intensity) * (along @ w).reshape(number, -1)

    @cached_property
    def covariance(self) -> np.ndarray:
        """Sigma, shape (K J, K J)."""
        along, across = self._filters
        K, J = self.angles, self.detectors
        if not self.half_circle:
            return self.intensity**2 * np.kron(along @ along.T, across @ across.T)
        # eps[k, j] = sum_i (along[k, i] across[j] + along[k, K+i] across[J-1-j]) . w[i]
        L = np.kron(along[:, :K], across) + np.kron(along[:, K:], across[::-1])
        return self.intensity**2 * L.reshape(K * J, -1) @ L.T


def _padded(n: int, taps: np.ndarray) -> np.ndarray:
    """The filter of a padded axis, shape (n, n + len(taps) - 1)."""
    out = np.zeros((n, n + len(taps) - 1))
    for i in range(n):
        out[i, i : i + len(taps)] = taps
    return out


def half_circle_symmetries(angles: int, detectors: int) -> np.ndarray:
    """Turns by k pi/K and reflections, as permutations of a flat (K, J) array: shape (4 K, K J).

    The angles t_k = k pi/K, detectors symmetric about 0: p(t + pi, s) = p(t, -s).
    """
    K, J = angles, detectors
    number = np.arange(K * J).reshape(K, J)
    circle = np.concatenate([number, number[:, ::-1]])  # all of the circle
    k = np.arange(K)
    turns = [circle[(g + way * k) % (2 * K)] for g in range(2 * K) for way in (1, -1)]
    return np.stack(turns).reshape(-1, K * J).astype(np.int32)


def grid_symmetries(rows: int, columns: int) -> np.ndarray:
    """The symmetries of a rectangle, or square, as permutations of a flat array: (4 or 8, m).

    The first four are those of a rectangle.
    """
    number = np.arange(rows * columns).reshape(rows, columns)
    found = [number[::a, ::b] for a in (1, -1) for b in (1, -1)]
    if rows == columns:
        found += [f.T for f in found]
    return np.stack(found).reshape(-1, rows * columns).astype(np.int32)
