"""DeepONet and SIMONet: networks whose input is a function and whose output is one, or several.

DeepONet (Lu, Jin, Pang, Zhang, Karniadakis 2021, arXiv 1910.03193): with the values
u = (u(x_1), ..., u(x_m)) of the input function at m sensors,

    G(u)(y) = sum_k b_k(u) t_k(y) + b_0,      branch b: R^m -> R^p,   trunk t: R^d -> R^p.

SIMONet (single input, multiple outputs) has K heads on one branch and one trunk,

    G_j(u)(y) = sum_k b_jk(u) t_k(y) + b_j0,   j = 1..K,  branch R^m -> R^{K x p},

each head a selection of a set-valued map; together they approximate its values (our reading of
Garcia-Cervera, Kessler, Pedregal, Periago, "On universal approximation of set-valued maps and
DeepONet approximation of the controllability map", 2024). A DeepONet is a SIMONet with one head,
and that is how it is made here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from fem_apps.case import Table
from fem_apps.surrogates.training import Loss

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
}


class Architecture(Table):
    """Keys of a case's table that say how large the networks are."""

    width: int = Field(100, ge=1, description="neurons of a hidden layer")
    depth: int = Field(1, ge=0, description="hidden layers of branch and trunk")
    basis: int = Field(40, ge=1, description="p, functions of the trunk")
    activation: Literal["relu", "tanh", "gelu"] = Field("relu", description="of the hidden layers")
    linear_branch: bool = Field(
        False,
        description="add a linear map to the branch (a skip); the rest starts as 0",
    )


class SIMONet(eqx.Module):
    """K output functions of one input function; see the module's equation.

    Attributes:
        branch: R^m -> R^{K p}.
        trunk: R^d -> R^p; its output is activated, as in the published DeepONets.
        skip: linear map added to the branch, or None.
        bias: b_j0, shape (K,).
        input_shift, input_scale, output_shift, output_scale, point_shift, point_scale: affine maps
            to and from the units of the data; static, so that no optimiser takes them for weights.
    """

    branch: eqx.nn.MLP
    trunk: eqx.nn.MLP
    skip: eqx.nn.Linear | None
    bias: jax.Array
    input_shift: float = eqx.field(static=True)
    input_scale: float = eqx.field(static=True)
    point_shift: tuple[float, ...] = eqx.field(static=True)
    point_scale: tuple[float, ...] = eqx.field(static=True)
    output_shift: float = eqx.field(static=True)
    output_scale: float = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    basis: int = eqx.field(static=True)

    def coefficients(self, u: jax.Array) -> jax.Array:
        """The coefficients b_jk of one input, shape (m,) -> (K, p)."""
        scaled = (u - self.input_shift) / self.input_scale
        b = self.branch(scaled)
        if self.skip is not None:
            b = b + self.skip(scaled)
        return b.reshape(self.heads, self.basis)

    def functions(self, y: jax.Array) -> jax.Array:
        """The trunk's functions at points, shape (q, d) -> (q, p)."""
        return jax.vmap(self.trunk)(
            (y - np.array(self.point_shift, y.dtype)) / np.array(self.point_scale, y.dtype)
        )

    def combine(self, b: jax.Array, t: jax.Array) -> jax.Array:
        """Values of coefficients (n, K, p) and trunk functions (q, p): shape (n, K, q)."""
        values = jnp.einsum("nkp,qp->nkq", b, t) / np.sqrt(self.basis) + self.bias[:, None]
        return self.output_shift + self.output_scale * values

    def __call__(self, u: jax.Array, y: jax.Array) -> jax.Array:
        """All heads for a batch of inputs, shapes (n, m), (q, d) -> (n, K, q).

        The trunk is evaluated once for the batch.
        """
        return self.combine(jax.vmap(self.coefficients)(u), self.functions(y))


def simonet(
    key: jax.Array,
    sensors: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    architecture: Architecture,
) -> SIMONet:
    """An untrained SIMONet, in float32, scaled to the data that it will be trained on.

    Args:
        key: of the initial weights (Glorot normal; biases zero).
        sensors: inputs of the training set, shape (n, m).
        points: where outputs are wanted, shape (q, d); they set the scale of the trunk's input.
        values: outputs of the training set, shape (n, K, q).
        architecture: sizes.
    """
    heads, m, d = values.shape[1], sensors.shape[1], points.shape[1]
    keys = jax.random.split(key, 5)
    activate = ACTIVATIONS[architecture.activation]
    size = (architecture.width, architecture.depth)
    branch = eqx.nn.MLP(m, heads * architecture.basis, *size, activate, key=keys[0])
    trunk = eqx.nn.MLP(d, architecture.basis, *size, activate, activate, key=keys[1])
    skip = None
    if architecture.linear_branch:
        skip = eqx.nn.Linear(m, heads * architecture.basis, use_bias=False, key=keys[2])
    branch, trunk, skip = (
        _glorot(net, k) for net, k in zip((branch, trunk, skip), keys[2:], strict=True)
    )
    if skip is not None:
        # training starts from a linear map and learns what differs from one (as residual networks
        # do; Zhang, Dauphin, Ma 2019, arXiv 1901.09321): of few samples it then fits less noise
        last = branch.layers[-1].weight
        branch = eqx.tree_at(lambda m: m.layers[-1].weight, branch, jnp.zeros_like(last))
    low, high = points.min(axis=0), points.max(axis=0)
    half = np.where(high > low, (high - low) / 2, 1.0)
    return SIMONet(
        branch,
        trunk,
        skip,
        jnp.zeros(heads, dtype=jnp.float32),
        float(sensors.mean()),
        float(sensors.std()) or 1.0,
        tuple(map(float, (low + high) / 2)),
        tuple(map(float, half)),
        float(values.mean()),
        float(values.std()) or 1.0,
        heads,
        architecture.basis,
    )


def deeponet(
    key: jax.Array,
    sensors: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    architecture: Architecture,
) -> SIMONet:
    """An untrained DeepONet: a SIMONet with one head; `values` has shape (n, q)."""
    return simonet(key, sensors, points, values[:, None], architecture)


def _glorot(net: Any, key: jax.Array) -> Any:
    """The same network with Glorot normal weights and zero biases, float32."""
    if net is None:
        return None
    layers = net.layers if isinstance(net, eqx.nn.MLP) else (net,)
    new = []
    for layer, k in zip(layers, jax.random.split(key, len(layers)), strict=True):
        out, into = layer.weight.shape
        weight = jax.random.normal(k, (out, into), dtype=jnp.float32) * np.float32(
            np.sqrt(2.0 / (out + into))
        )
        layer = eqx.tree_at(lambda m: m.weight, layer, weight)
        if layer.bias is not None:
            layer = eqx.tree_at(lambda m: m.bias, layer, jnp.zeros(out, dtype=jnp.float32))
        new.append(layer)
    return (
        eqx.tree_at(lambda m: m.layers, net, tuple(new)) if isinstance(net, eqx.nn.MLP) else new[0]
    )


def labelled_loss(points: np.ndarray) -> Loss:
    """Mean square error over heads and points, relative to the data's variance.

    The data of `training.fit` are (sensors (n, m), values (n, K, q)), or (n, q) for one head.
    """
    y = jnp.asarray(points, dtype=jnp.float32)

    def loss(model: SIMONet, batch: Any, key: jax.Array) -> jax.Array:
        u, values = batch
        error = model(u, y) - values.reshape(u.shape[0], model.heads, -1)
        return jnp.mean(error**2) / model.output_scale**2

    return loss


def chamfer_loss(points: np.ndarray) -> Loss:
    """Symmetric Chamfer distance between the heads and S sampled members of each set.

    No member is the label of a head: every head is drawn to the member nearest to it and every
    member draws the head nearest to it, so the loss does not change when members are permuted.

    The data of `training.fit` are (sensors (n, m), members (n, S, q)).
    """
    y = jnp.asarray(points, dtype=jnp.float32)

    def loss(model: SIMONet, batch: Any, key: jax.Array) -> jax.Array:
        u, members = batch
        heads = model(u, y)
        square = jnp.mean((heads[:, :, None] - members[:, None]) ** 2, axis=-1)
        both = square.min(axis=1).mean(axis=-1) + square.min(axis=2).mean(axis=-1)
        return jnp.mean(both) / model.output_scale**2

    return loss


def predict(model: SIMONet, sensors: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values in numpy float64, shapes (n, m), (q, d) -> (n, K, q); (n, q) for one head."""
    u, y = (jnp.asarray(a, dtype=jnp.float32) for a in (sensors, points))
    out = np.asarray(eqx.filter_jit(lambda m, u, y: m(u, y))(model, u, y), dtype=np.float64)
    return out[:, 0] if model.heads == 1 else out


def linear_least_squares(sensors: np.ndarray, values: np.ndarray) -> Callable[[Any], np.ndarray]:
    """The affine map of least squares from sensors (n, m) to values (n, ...): the honest baseline.

    Singular values below 1e-10 of the largest are dropped: random fields of a few modes leave most
    directions of the sensors unseen.

    Returns:
        The map, (k, m) -> (k, ...).
    """
    mean, shape = sensors.mean(axis=0), values.shape[1:]
    flat = values.reshape(len(values), -1)
    offset = flat.mean(axis=0)
    weights = np.linalg.lstsq(sensors - mean, flat - offset, rcond=1e-10)[0]

    def apply(u: np.ndarray) -> np.ndarray:
        return ((np.asarray(u) - mean) @ weights + offset).reshape(-1, *shape)

    return apply
