"""Denoisers D(x, s) = E[x0 | x0 + s e = x] in closed form: Gaussian and Gaussian-mixture priors.

The score of the density of x0 + s e is (D - x)/s^2, and the Jacobian dD/dx is Cov(x0 | x)/s^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

jax.config.update("jax_enable_x64", True)


@dataclass(frozen=True)
class Posterior:
    """A Gaussian mixture: the posterior of a mixture prior under y = A x + n.

    Attributes:
        weights: shape (k,).
        means: shape (k, n).
        covariances: shape (k, n, n).
        log_evidence: ln p(y).
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    log_evidence: float

    @property
    def mean(self) -> np.ndarray:
        """Shape (n,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> np.ndarray:
        """Shape (n, n), by the law of total variance."""
        d = self.means - self.mean
        return np.einsum("k,kij->ij", self.weights, self.covariances) + (self.weights * d.T) @ d

    def samples(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (number, n)."""
        which = rng.choice(len(self.weights), number, p=self.weights / self.weights.sum())
        roots = np.linalg.cholesky(self.covariances + 1e-12 * np.eye(self.means.shape[1]))
        e = rng.normal(size=(number, self.means.shape[1]))
        return self.means[which] + np.einsum("pij,pj->pi", roots[which], e)


@dataclass(frozen=True)
class Mixture:
    """sum_k w_k N(mu_k, C_k); with one component a Gaussian.

    Attributes:
        weights: w, shape (k,).
        means: mu, shape (k, n).
        covariances: C, shape (k, n, n).
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        return np.linalg.eigh(self.covariances)  # numpy: it may be made while JAX is tracing

    def _parts(self, x: jax.Array, s: jax.Array | float) -> tuple[jax.Array, jax.Array]:
        """Log of weight times density of each component (batch, k); its denoised x."""
        lam, Q = self._eigen
        mu = jnp.asarray(self.means)
        v = jnp.einsum("kji,bkj->bki", Q, x[:, None, :] - mu)
        total = lam + s**2
        logs = -0.5 * (v * v / total + jnp.log(2 * jnp.pi * total)).sum(axis=-1)
        d = mu + jnp.einsum("kij,bkj->bki", Q, lam / total * v)
        return logs + jnp.log(jnp.asarray(self.weights)), d

    def __call__(self, x: jax.Array, s: jax.Array | float) -> jax.Array:
        """D(x, s), shapes (batch, n), () -> (batch, n)."""
        logs, d = self._parts(x, s)
        return jnp.einsum("bk,bki->bi", jax.nn.softmax(logs, axis=-1), d)

    def responsibilities(self, x: jax.Array, s: float) -> jax.Array:
        """P(component | x), shape (batch, k)."""
        return jax.nn.softmax(self._parts(x, s)[0], axis=-1)

    def log_density(self, x: jax.Array, s: float) -> jax.Array:
        """Log density of x0 + s e, shape (batch,)."""
        return jax.nn.logsumexp(self._parts(x, s)[0], axis=-1)

    def posterior(self, A: np.ndarray, y: np.ndarray, noise: float) -> Posterior:
        """The exact posterior given y = A x + n, n ~ N(0, noise^2 I)."""
        m = len(y)
        means, covariances, logs = [], [], []
        for mu, C in zip(self.means, self.covariances, strict=True):
            G = A @ C @ A.T + noise**2 * np.eye(m)
            gain = np.linalg.solve(G, A @ C).T
            r = y - A @ mu
            means.append(mu + gain @ r)
            covariances.append(C - gain @ A @ C)
            logs.append(-0.5 * (r @ np.linalg.solve(G, r) + np.linalg.slogdet(2 * np.pi * G)[1]))
        weighted = np.log(self.weights) + np.array(logs)
        total = float(logsumexp(weighted))
        return Posterior(np.exp(weighted - total), np.array(means), np.array(covariances), total)

    def samples(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Samples of the prior, shape (number, n)."""
        return Posterior(self.weights, self.means, self.covariances, 0.0).samples(number, rng)


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Mixture:
    """The prior N(mean, covariance)."""
    return Mixture(np.ones(1), np.asarray(mean)[None], np.asarray(covariance)[None])
