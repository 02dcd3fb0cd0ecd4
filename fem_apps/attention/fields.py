"""Velocity fields of attention, for tokens and for measures alike, in JAX.

    Gamma_mu(x) = sum_heads V_h int w(x, y) y dmu(y),   mu = sum_j m_j delta_{y_j},

with the weights w of `model.Attention`; with layer normalisation P_x Gamma, P_x v = v - <x, v> x.
Exponents are shifted by their maximum, so any beta is safe. Pairs are taken in blocks: memory is
O((n + k) d). On CPUs the sums of large problems are those of `pair_sums`.
Sources: Castin et al. (arXiv 2501.18322), Geshkovski et al. (2312.10794), Sander et al.
(2110.11773).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fem_apps.attention.model import Attention, HeadArrays, heads
from fem_apps.attention.pair_sums import compiled_sums

jax.config.update("jax_enable_x64", True)

# entries of a block of weights, and pairs from which the compiled sums pay
BLOCK, COMPILED = 2**18, 2**18
SINKHORN_STEPS, SINKHORN_TOLERANCE = 2000, 1e-12

Array = Any


@dataclass(frozen=True, eq=False)
class Field:
    """The field of an `[attention]` table in d dimensions.

    Attributes:
        attention: variant, beta, mask, layer normalisation.
        heads: its matrices.
        d: dimension.
        compiled: whether large sums on a CPU leave JAX.
    """

    attention: Attention
    heads: tuple[HeadArrays, ...]
    d: int
    compiled: bool = True

    def __call__(self, x: Array, y: Array, log_m: Array) -> Array:
        """Gamma_mu(x), projected where there is layer normalisation.

        Args:
            x: where, (n, d); with a mask x is y.
            y: support of mu, (k, d).
            log_m: logarithms of the masses, (k,).

        Returns:
            (n, d).
        """
        v = sum(self._head(h, x, y, log_m) for h in self.heads)
        if not self.attention.layer_norm:
            return v
        u = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        return v - jnp.sum(u * v, axis=1, keepdims=True) * u

    def normaliser(self, x: Array, y: Array, log_m: Array) -> Array:
        """Log int exp(beta <Qx, Ky>) dmu(y) of the first head, (n,)."""
        return self._exponential(self.heads[0], x, y, log_m)[1]

    def _head(self, h: HeadArrays, x: Array, y: Array, log_m: Array) -> Array:
        beta = self.attention.beta
        match self.attention.variant:
            case "softmax":
                return self._exponential(h, x, y, log_m)[0] @ h.V.T
            case "unnormalised" | "scaled":
                mean, log_z = self._exponential(h, x, y, log_m)
                shift = beta if self.attention.variant == "scaled" else 0.0
                return jnp.exp(log_z - shift)[:, None] * (mean @ h.V.T)
            case "l2":
                # exp(-beta |Qx|^2) cancels
                square = jnp.sum((y @ h.K.T) ** 2, axis=1)
                return self._means(2 * beta * x @ h.A.T, y, log_m - beta * square)[0] @ h.V.T
            case "sinkhorn":
                return beta * self._sinkhorn(h, x, y, log_m) @ h.V.T
            case "linear":
                if self.attention.masked:
                    weight = lambda s: s  # noqa: E731
                    return self._weighted(weight, beta * x @ h.A.T, y, log_m) @ h.V.T
                moments = (y * jnp.exp(log_m)[:, None]).T @ y
                return beta * x @ h.A.T @ moments @ h.V.T
            case "sigmoid":
                return self._weighted(jax.nn.sigmoid, beta * x @ h.A.T, y, log_m) @ h.V.T
        raise ValueError(self.attention.variant)

    def _exponential(self, h: HeadArrays, x: Array, y: Array, log_m: Array) -> tuple[Array, Array]:
        return self._means(self.attention.beta * x @ h.A.T, y, log_m)

    def _means(self, a: Array, y: Array, b: Array) -> tuple[Array, Array]:
        """Mean of y under the weights exp(a_i.y + b), and the log of their sum."""
        masked = self.attention.masked
        large = a.shape[0] * y.shape[0] >= COMPILED and not masked
        if self.compiled and large and a.dtype == jnp.float64 and jax.default_backend() == "cpu":
            sums, c = _call_compiled(a, y, b)
        else:
            sums, c = _blocked_sums(a, y, b, masked)
        return sums[:, :-1] / sums[:, -1:], jnp.log(sums[:, -1]) + c

    def _weighted(self, weight: Callable[[Array], Array], a: Array, y: Array, b: Array) -> Array:
        """sum_j m_j weight(a_i.y_j) y_j in blocks."""
        values = y * jnp.exp(b)[:, None]

        def block(rows: tuple[Array, Array]) -> Array:
            ai, i = rows
            w = weight(ai @ y.T)
            if self.attention.masked:
                w = jnp.where(jnp.arange(len(y)) <= i[:, None], w, 0.0)
            return w @ values

        return by_blocks(block, (a, jnp.arange(a.shape[0])), len(y))

    def _sinkhorn(self, h: HeadArrays, x: Array, y: Array, log_m: Array) -> Array:
        """Mean of y under the bistochastic K(x, y) = exp(beta<Qx,Ky> + f(x) + g(y)); f where x is.

        Sinkhorn-Knopp in the logarithmic domain between mu and itself; then one step at x.
        """
        beta = self.attention.beta
        forward, backward = beta * y @ h.A.T, beta * y @ h.A

        def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            _f, g, _, k = state
            f_new = -self._means(forward, y, log_m + g)[1]
            g_new = -self._means(backward, y, log_m + f_new)[1]
            # the row sums that f leaves behind
            change = jnp.max(jnp.abs(g_new - g))
            return f_new, g_new, change, k + 1

        def go_on(state: tuple[Array, Array, Array, Array]) -> Array:
            return (state[2] > SINKHORN_TOLERANCE) & (state[3] < SINKHORN_STEPS)

        zero = jnp.zeros(len(y))
        _, g, _, _ = jax.lax.while_loop(go_on, step, (zero, zero, jnp.array(jnp.inf), 0))
        return self._means(beta * x @ h.A.T, y, log_m + g)[0]


def make_field(attention: Attention, d: int, *, compiled: bool = True) -> Field:
    """The field of a case's table in d dimensions.

    Raises:
        CaseError: matrices that do not fit.
    """
    return Field(attention, heads(attention, d), d, compiled)


def by_blocks(block: Callable[[Any], Any], rows: tuple[Array, ...], k: int) -> Array:
    """The block function over rows of arrays, as many at a time as BLOCK allows of k each."""
    n = rows[0].shape[0]
    size = max(1, min(n, BLOCK // max(k, 1)))
    if size >= n:
        return block(rows)
    count = math.ceil(n / size)

    def cut(z: Array) -> Array:
        padded = jnp.pad(z, ((0, count * size - n), *((0, 0),) * (z.ndim - 1)), mode="edge")
        return padded.reshape(count, size, *z.shape[1:])

    out = jax.lax.map(block, tuple(cut(z) for z in rows))
    return jax.tree.map(lambda z: z.reshape(count * size, *z.shape[2:])[:n], out)


def _blocked_sums(a: Array, y: Array, b: Array, masked: bool) -> tuple[Array, Array]:
    """sum_j exp(a_i.y_j + b_j - c_i) (y_j, 1), and c_i, the largest exponent of the row."""
    # a column of ones: numerator and denominator from one matrix product
    values = jnp.concatenate([y, jnp.ones((len(y), 1))], axis=1)

    def block(rows: tuple[Array, Array]) -> tuple[Array, Array]:
        ai, i = rows
        s = ai @ y.T + b
        if masked:
            s = jnp.where(jnp.arange(len(y)) <= i[:, None], s, -jnp.inf)
        c = jnp.max(s, axis=1)
        return jnp.exp(s - c[:, None]) @ values, c

    return by_blocks(block, (a, jnp.arange(a.shape[0])), len(y))


def _call_compiled(a: Array, y: Array, b: Array) -> tuple[Array, Array]:
    n, d = a.shape
    shapes = (
        jax.ShapeDtypeStruct((n, d + 1), jnp.float64),
        jax.ShapeDtypeStruct((n,), jnp.float64),
    )
    return jax.pure_callback(_compiled, shapes, a, y, b)


def _compiled(a: Array, y: Array, b: Array) -> tuple[np.ndarray, np.ndarray]:
    return compiled_sums(np.asarray(a), np.asarray(y), np.asarray(b))


def energy(
    x: Array, log_m: Array, beta: float, D: np.ndarray | None = None, compiled: bool = True
) -> Array:
    """2 beta E scaled by exp(-beta): sum_ij m_i m_j exp(beta (<x_i, x_j> - 1)), in (0, 1].

    With D: iint exp(x.Dy) dmu dmu as it is. Overflow-free for any beta on the sphere.
    """
    a = beta * x if D is None else x @ D
    if compiled and len(x) ** 2 >= COMPILED and jax.default_backend() == "cpu":
        sums, c = _call_compiled(a, x, log_m)
    else:
        sums, c = _blocked_sums(a, x, log_m, False)
    shift = beta if D is None else 0.0
    return jnp.sum(jnp.exp(log_m + jnp.log(sums[:, -1]) + c - shift))
