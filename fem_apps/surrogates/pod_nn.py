"""POD-NN: a network from parameters to coefficients of POD modes (Hesthaven, Ubbiali 2018).

    u(mu) ~ sum_k c_k(mu) phi_k,    c: R^P -> R^N a multilayer perceptron,

trained on the coefficients of full solutions. With modes orthonormal in X its loss is the mean
squared error in X, so a mode counts as much as it matters. A baseline: it has no error bound.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from fem_apps.case import Table


class PerceptronTable(Table):
    """Keys of a case's table that say how large the network is."""

    width: int = Field(128, ge=1, description="neurons of a hidden layer")
    depth: int = Field(3, ge=1, description="hidden layers")


class PodNN(eqx.Module):
    """mu -> c; scaled to its data, float32.

    Attributes:
        net: the perceptron.
        low, width: of the parameters; mean, size: of the coefficients. Not trained.
    """

    net: eqx.nn.MLP
    low: tuple[float, ...] = eqx.field(static=True)
    width: tuple[float, ...] = eqx.field(static=True)
    mean: tuple[float, ...] = eqx.field(static=True)
    size: float = eqx.field(static=True)

    def __call__(self, mu: jax.Array) -> jax.Array:
        """Coefficients, shape (N,), of one parameter, shape (P,)."""
        x = 2 * (mu - jnp.array(self.low)) / jnp.array(self.width) - 1
        return jnp.array(self.mean) + self.size * self.net(x)


def pod_nn(
    key: jax.Array,
    ranges: dict[str, tuple[float, float]],
    coefficients: np.ndarray,
    table: PerceptronTable,
) -> PodNN:
    """An untrained network, scaled to coefficients of shape (n, N)."""
    low, high = np.array(list(ranges.values())).T
    centred = coefficients - coefficients.mean(axis=0)
    net = eqx.nn.MLP(
        len(low), coefficients.shape[1], table.width, table.depth, jax.nn.gelu, key=key,
        dtype=jnp.float32,
    )  # fmt: skip
    return PodNN(
        net,
        tuple(map(float, low)),
        tuple(map(float, np.where(high > low, high - low, 1.0))),
        tuple(map(float, coefficients.mean(axis=0))),
        float(np.sqrt((centred**2).sum(axis=1).mean())) or 1.0,
    )


def loss(model: PodNN, batch: Any, key: jax.Array) -> jax.Array:
    """Mean squared error in X, relative to the data's spread; data: (mu (n, P), c (n, N))."""
    mu, c = batch
    return jnp.mean(jnp.sum((jax.vmap(model)(mu) - c) ** 2, axis=-1)) / model.size**2


def predict(model: PodNN, mu: np.ndarray) -> np.ndarray:
    """Coefficients in float64, shape (n, N)."""
    run = eqx.filter_jit(lambda m, x: jax.vmap(m)(x))
    return np.asarray(run(model, jnp.asarray(mu, dtype=jnp.float32)), dtype=np.float64)
