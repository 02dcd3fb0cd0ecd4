"""Posterior samplers with a denoiser D(x, s) as the prior: y = A x + n, n ~ N(0, s_n^2 I).

All run down the levels a = s_t > b = s_(t+1) of one grid (Karras et al., arXiv 2206.00364) from x ~
N(0, s_max^2), in the variance-exploding form x_s = x0 + s e. With x0 = D(x, a), K = 1 - (b/a)^2 and
fresh normal xi, the unconditional steps are

    euler:      x' = x + (b - a)(x - x0)/a
    heun:       the mean of the slopes at a and b; euler where b = 0
    ancestral:  x' = (1 - K) x + K x0 + b sqrt(K) xi

A step is a function of its normal numbers, shape (noises, chains, n): for a Gaussian prior it is
affine, and its exact law follows. Samplers of posteriors: `samplers_linear`, `samplers_guided`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fem_apps.errors import Interrupted, SolveError

jax.config.update("jax_enable_x64", True)

# D(x, s): (chains, n), () -> (chains, n)
Denoise = Callable[[jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Sampler:
    """One way down the levels.

    Attributes:
        name: for messages.
        step: (x, a, b, xi) -> x'.
        noises: independent normal arrays that a step takes.
    """

    name: str
    step: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
    noises: int = 1


def levels(steps: int, largest: float = 80.0, smallest: float = 0.01) -> np.ndarray:
    """The grid s_i = (smax^(1/7) + i/(n-1)(smin^(1/7) - smax^(1/7)))^7, i < n, then 0."""
    p = 1 / 7
    t = np.arange(steps) / max(steps - 1, 1)
    return np.append((largest**p + t * (smallest**p - largest**p)) ** 7, 0.0)


def euler(denoise: Denoise) -> Sampler:
    """The probability-flow equation by Euler's method."""

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        return x + (b - a) * (x - denoise(x, a)) / a

    return Sampler("euler", step, 0)


def heun(denoise: Denoise) -> Sampler:
    """The probability-flow equation by Heun's method."""

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        slope = (x - denoise(x, a)) / a
        ahead = x + (b - a) * slope
        safe = jnp.where(b > 0, b, a)
        second = jnp.where(b > 0, (ahead - denoise(ahead, safe)) / safe, slope)
        return x + (b - a) * (slope + second) / 2

    return Sampler("heun", step, 0)


def ancestral_step(
    x: jax.Array, x0: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array
) -> jax.Array:
    """(1 - K) x + K x0 + b sqrt(K) xi."""
    K = 1 - (b / a) ** 2
    return (1 - K) * x + K * x0 + b * jnp.sqrt(K) * xi


def ddim_step(
    x: jax.Array, x0: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array, eta: float
) -> jax.Array:
    """x0 + sqrt(1 - eta^2)(b/a)(x - x0) + eta b xi."""
    return x0 + (1 - eta**2) ** 0.5 * (b / a) * (x - x0) + eta * b * xi


def ancestral(denoise: Denoise) -> Sampler:
    """The reverse process, step by step exact for a fixed x0."""
    return Sampler("ancestral", lambda x, a, b, xi: ancestral_step(x, denoise(x, a), a, b, xi[0]))


def ode_denoise(denoise: Denoise, steps: int, smallest: float = 0.001) -> Denoise:
    """The end of the probability flow from (x, s), by Euler steps on the grid of `levels`.

    The last level is `smallest`, from which one step goes to 0. One step is D(x, s).
    """
    t = np.arange(steps) / max(steps - 1, 1)

    def run(x: jax.Array, s: jax.Array) -> jax.Array:
        p = 1 / 7
        low = jnp.minimum(smallest, s / 2)
        grid = (s**p + t * (low**p - s**p)) ** 7
        for k in range(steps):
            end = grid[k + 1] if k + 1 < steps else 0.0
            x = x + (end - grid[k]) * (x - denoise(x, grid[k])) / grid[k]
        return x

    return run


def sample(
    sampler: Sampler,
    grid: np.ndarray,
    chains: int,
    size: int,
    seeds: Sequence[int],
    *,
    progress: Callable[[float, str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> np.ndarray:
    """Samples of each seed, shape (seeds, chains, size), whatever the other seeds.

    The sampler sees them all as rows (seeds * chains, size), the chains of a seed together.

    Raises:
        SolveError: a sample is not finite.
        Interrupted: `stop` said so.
    """
    if not seeds:
        return np.zeros((0, chains, size))
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))

    def normal(number: jax.Array | int, arrays: int) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            key = jax.random.fold_in(key, number)
            return jax.random.normal(key, (arrays, chains, size), jnp.float64)

        xi = jax.vmap(one)(keys)
        return jnp.moveaxis(xi, 0, 1).reshape(arrays, len(seeds) * chains, size)

    @jax.jit
    def step(x: jax.Array, a: jax.Array, b: jax.Array, number: jax.Array) -> jax.Array:
        return sampler.step(x, a, b, normal(number, sampler.noises))

    x = grid[0] * normal(len(grid), 1)[0]
    for k in range(len(grid) - 1):
        x = step(x, grid[k], grid[k + 1], k)
        if progress is not None:
            x.block_until_ready()
            progress((k + 1) / (len(grid) - 1), f"{sampler.name}: noise {grid[k + 1]:.3g}")
        if stop is not None and stop():
            raise Interrupted(f"sampling interrupted at noise {grid[k + 1]:.3g}")
    if not bool(jnp.isfinite(x).all()):
        raise SolveError(
            f"sampling by {sampler.name}",
            "a sample is not finite",
            advice="more steps, a smaller guidance, or another sampler",
        )
    return np.asarray(x).reshape(len(seeds), chains, size)
