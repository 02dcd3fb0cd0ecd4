"""A U-Net on square images in equinox, (n, size, size, channels), with or without a noise level.

Residual blocks of two 3x3 convolutions without normalisation (Gruber et al., arXiv 2503.19468, use
none either), strided down, nearest-neighbour up, skips added. Images are folded into `patch` x
`patch` channels first: convolutions are matrix products, and on a CPU few pixels with many channels
run faster than many pixels with few.
"""

from __future__ import annotations

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from pydantic import Field

from fem_apps.case import Table


class Network(Table):
    """Keys of a case's table that say how large a U-Net is."""

    channels: tuple[int, ...] = Field(
        (32, 64), min_length=1, max_length=5, description="channels of each level, finest first"
    )
    patch: int = Field(2, ge=1, le=4, description="pixels of a side folded into channels")
    blocks: int = Field(1, ge=1, le=4, description="residual blocks a level and side")


class Conv(eqx.Module):
    """A convolution with zero padding, kernel (k, k, in, out), channels last; stride 1 or k.

    It is written as one matrix product of gathered neighbours: as fast as XLA's own convolution on
    a CPU, which inside a loop (`lax.scan`, CG) falls to a path some thirty times slower.
    """

    kernel: jax.Array
    bias: jax.Array
    stride: int = eqx.field(static=True)

    def __init__(
        self, size: int, into: int, out: int, key: jax.Array, *, stride: int = 1, gain: float = 1.0
    ) -> None:
        scale = gain * (2.0 / (size * size * into)) ** 0.5
        self.kernel = scale * jax.random.normal(key, (size, size, into, out), jnp.float32)
        self.bias = jnp.zeros(out, jnp.float32)
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shapes (n, h, w, in) -> (n, h/stride, w/stride, out)."""
        n, h, w, _ = x.shape
        k, stride = self.kernel.shape[0], self.stride
        if stride == k:  # no overlap: a reshape
            x = x.reshape(n, h // k, k, w // k, k, -1).transpose(0, 1, 3, 2, 4, 5)
            h, w = h // k, w // k
        else:
            p = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
            x = jnp.concatenate(
                [p[:, i : i + h, j : j + w] for i in range(k) for j in range(k)], axis=-1
            )
        y = x.reshape(n * h * w, -1) @ self.kernel.reshape(-1, self.kernel.shape[-1])
        y = y.reshape(n, h, w, -1)
        return y + self.bias


class Block(eqx.Module):
    """x + conv(act(scale * conv(act(x)) + shift)); scale and shift come from the noise level."""

    first: Conv
    second: Conv
    level: jax.Array | None

    def __init__(self, into: int, width: int, key: jax.Array) -> None:
        a, b = jax.random.split(key)
        self.first = Conv(3, into, into, a)
        self.second = Conv(3, into, into, b, gain=0.1)
        self.level = jnp.zeros((width, 2 * into), jnp.float32) if width else None

    def __call__(self, x: jax.Array, features: jax.Array | None) -> jax.Array:
        """Shapes (n, h, w, c), (n, width) -> (n, h, w, c)."""
        h = self.first(jax.nn.silu(x))
        if self.level is not None and features is not None:
            scale, shift = jnp.split((features @ self.level)[:, None, None, :], 2, axis=-1)
            h = h * (1 + scale) + shift
        return x + self.second(jax.nn.silu(h))


class UNet(eqx.Module):
    """Images (n, size, size, in) and, if `width` > 0, numbers (n,) -> images (n, size, size, out).

    Args:
        network: levels, patch, blocks.
        into, out: channels of input and output.
        width: features of the noise level; 0: none is taken.
        key: of the initial weights.
    """

    first: Conv
    last: Conv
    frequencies: jax.Array | None
    down: list[list[Block]]
    up: list[list[Block]]
    shrink: list[Conv]
    grow: list[Conv]
    patch: int = eqx.field(static=True)

    def __init__(
        self, network: Network, into: int, out: int, key: jax.Array, *, width: int = 0
    ) -> None:
        c, p = network.channels, network.patch
        keys = iter(jax.random.split(key, 4 + 4 * len(c) * (network.blocks + 1)))
        self.patch = p
        self.first = Conv(3, into * p * p, c[0], next(keys))
        self.last = Conv(3, c[0], out * p * p, next(keys), gain=0.1)
        self.frequencies = (
            jax.random.normal(next(keys), (width // 2,), jnp.float32) if width else None
        )

        def blocks(channels: int) -> list[Block]:
            return [Block(channels, width, next(keys)) for _ in range(network.blocks)]

        self.down = [blocks(k) for k in c]
        self.up = [blocks(k) for k in c]
        self.shrink = [Conv(2, a, b, next(keys), stride=2) for a, b in pairwise(c)]
        self.grow = [Conv(1, b, a, next(keys)) for a, b in pairwise(c)]

    def __call__(self, x: jax.Array, level: jax.Array | None = None) -> jax.Array:
        """The network's output."""
        n, size, _, channels = x.shape
        p, features = self.patch, None
        if self.frequencies is not None and level is not None:
            phase = 2 * jnp.pi * level[:, None] * jax.lax.stop_gradient(self.frequencies)
            features = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
        h = x.reshape(n, size // p, p, size // p, p, channels)
        h = h.transpose(0, 1, 3, 2, 4, 5).reshape(n, size // p, size // p, p * p * channels)
        h = self.first(h)
        kept = []
        for k, blocks in enumerate(self.down):
            h = self.shrink[k - 1](h) if k else h
            for block in blocks:
                h = block(h, features)
            kept.append(h)
        for k in reversed(range(len(self.up))):
            if k < len(self.up) - 1:
                h = self.grow[k](h)
                h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2) + kept[k]
            for block in self.up[k]:
                h = block(h, features)
        h = self.last(h)
        h = h.reshape(n, size // p, size // p, p, p, -1).transpose(0, 1, 3, 2, 4, 5)
        return h.reshape(n, size, size, -1)


@eqx.filter_jit
def new_unet(network: Network, into: int, out: int, key: jax.Array, width: int = 0) -> UNet:
    """An untrained `UNet`; its weights are drawn in one compiled function."""
    return UNet(network, into, out, key, width=width)


def check_size(network: Network, size: int) -> None:
    """Whether images of this size can be halved as often as the network does.

    Raises:
        ValueError: says what the size must be a multiple of.
    """
    unit = network.patch * 2 ** (len(network.channels) - 1)
    if size % unit:
        raise ValueError(
            f"images of {size} x {size} do not fit this network: the size must be a multiple of "
            f"{unit} (patch {network.patch}, {len(network.channels)} levels)"
        )


def parameters(model: eqx.Module) -> int:
    """Number of weights."""
    return sum(a.size for a in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
