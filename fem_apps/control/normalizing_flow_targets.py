"""Targets of a normalising flow: Gaussian mixtures, densities on a grid, samples, pictures.

A target gives its log-density, samples, and the masses of the cells of a grid (d <= 3), which is
all that the construction needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import gammaln, logsumexp, ndtr

# a grid reaches this many standard deviations beyond the means
REACH = 6.0
# numbers that log-densities take at a time
CHUNK = 4_000_000


class Target(Protocol):
    """A probability law on R^d."""

    @property
    def dim(self) -> int:
        """The dimension d."""

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log-density at x, shape (n, d) -> (n,); -inf where there is none."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Independent samples, shape (n, d)."""

    def box(self) -> np.ndarray:
        """Where all but a negligible mass is, shape (d, 2)."""

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """Masses of the cells of a tensor grid."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with diagonal covariance: weights (m,), means and widths (m, d)."""

    weights: np.ndarray
    means: np.ndarray
    widths: np.ndarray

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.means.shape[1]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """See `Target`."""
        out = np.empty(len(x))
        step = max(1, CHUNK // (len(self.weights) * self.dim))
        constant = (
            np.log(self.weights / self.weights.sum())
            - np.log(self.widths).sum(axis=1)
            - 0.5 * self.dim * np.log(2 * np.pi)
        )
        for i in range(0, len(x), step):
            z = (x[i : i + step, None] - self.means) / self.widths
            out[i : i + step] = logsumexp(constant - 0.5 * (z**2).sum(axis=2), axis=1)
        return out

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """See `Target`."""
        k = rng.choice(len(self.weights), n, p=self.weights / self.weights.sum())
        return self.means[k] + self.widths[k] * rng.standard_normal((n, self.dim))

    def box(self) -> np.ndarray:
        """See `Target`."""
        return np.stack(
            [
                (self.means - REACH * self.widths).min(axis=0),
                (self.means + REACH * self.widths).max(axis=0),
            ],
            axis=1,
        )

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """See `Target`."""
        factors = []
        for i, e in enumerate(edges):
            z = (e - self.means[:, i : i + 1]) / self.widths[:, i : i + 1]
            upper = np.where(z[:, :-1] > 0, ndtr(-z[:, :-1]) - ndtr(-z[:, 1:]), np.diff(ndtr(z)))
            factors.append(upper)
        factors[0] = factors[0] * (self.weights / self.weights.sum())[:, None]
        letters = "abc"[: len(edges)]
        return np.einsum(",".join("m" + c for c in letters) + "->" + letters, *factors)


@dataclass(frozen=True)
class Cells:
    """A density that is constant in the cells of a tensor grid: edges (d arrays), masses."""

    edges: tuple[np.ndarray, ...]
    mass: np.ndarray

    @property
    def dim(self) -> int:
        """The dimension d."""
        return len(self.edges)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """See `Target`."""
        volume = self.mass.sum()
        place, inside = [], np.ones(len(x), dtype=bool)
        for i, e in enumerate(self.edges):
            k = np.searchsorted(e, x[:, i], side="right") - 1
            inside &= (k >= 0) & (k < len(e) - 1)
            place.append(np.clip(k, 0, len(e) - 2))
        with np.errstate(divide="ignore"):
            size = sum(np.log(np.diff(e))[k] for e, k in zip(self.edges, place, strict=True))
            out = np.log(self.mass[tuple(place)] / volume) - size
        return np.where(inside, out, -np.inf)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """See `Target`."""
        p = self.mass.ravel() / self.mass.sum()
        k = np.unravel_index(rng.choice(len(p), n, p=p), self.mass.shape)
        return np.stack(
            [e[i] + (e[i + 1] - e[i]) * rng.random(n) for e, i in zip(self.edges, k, strict=True)],
            axis=1,
        )

    def box(self) -> np.ndarray:
        """See `Target`."""
        return np.array([[e[0], e[-1]] for e in self.edges])

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """See `Target`; cells of the two grids are cut by each other."""
        out = self.mass / self.mass.sum()
        for i, (mine, wanted) in enumerate(zip(self.edges, edges, strict=True)):
            low = np.maximum(mine[:-1, None], wanted[None, :-1])
            high = np.minimum(mine[1:, None], wanted[None, 1:])
            share = np.maximum(high - low, 0.0) / np.diff(mine)[:, None]
            out = np.moveaxis(np.tensordot(out, share, axes=(i, 0)), -1, i)
        return out


@dataclass(frozen=True)
class Student:
    """The isotropic Student t law with nu degrees of freedom."""

    nu: float
    dim: int

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """See `Target`."""
        nu, d = self.nu, self.dim
        c = gammaln((nu + d) / 2) - gammaln(nu / 2) - d / 2 * np.log(nu * np.pi)
        return c - (nu + d) / 2 * np.log1p((x**2).sum(axis=1) / nu)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """See `Target`."""
        z = rng.standard_normal((n, self.dim))
        return z / np.sqrt(rng.chisquare(self.nu, (n, 1)) / self.nu)

    def box(self) -> np.ndarray:
        """See `Target`: all but about 1e-6 on each side."""
        reach = max(10.0, np.sqrt(self.nu) * 10 ** (6 / self.nu))
        return np.tile([-min(reach, 1e4), min(reach, 1e4)], (self.dim, 1))

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """See `Target`; by the density at midpoints."""
        centre = np.stack(
            np.meshgrid(*[0.5 * (e[1:] + e[:-1]) for e in edges], indexing="ij"), axis=-1
        )
        size = np.ones(())
        for e in edges:
            size = np.multiply.outer(size, np.diff(e))
        return np.exp(self.log_density(centre.reshape(-1, self.dim))).reshape(size.shape) * size


def kernel_estimate(samples: np.ndarray, bandwidth: float | None = None) -> Mixture:
    """One Gaussian a sample; its widths are the bandwidth times the standard deviations."""
    n, d = samples.shape
    if bandwidth is None:
        bandwidth = (4 / (n * (d + 2))) ** (1 / (d + 4))
    widths = bandwidth * samples.std(axis=0)
    return Mixture(np.ones(n), samples, np.tile(widths, (n, 1)))
