"""Score models: denoisers trained on images (Karras et al., arXiv 2206.00364).

    D(x, s) = E[x0 | x0 + s e = x] = c_skip x + c_out N(c_in x, ln(s)/4),   score: (D(x, s) - x)/s^2
    loss: E lambda(s) |D(x0 + s e, s) - x0|^2,   ln s ~ N(-1.2, 1.2^2)

with c_skip = sd^2/(s^2 + sd^2), c_out = s sd/sqrt(s^2 + sd^2), c_in = 1/sqrt(s^2 + sd^2) and
lambda = (s^2 + sd^2)/(s sd)^2, where sd is the standard deviation of the centred data.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from fem_apps.surrogates.unet import Network, UNet, new_unet

LEVEL_FEATURES = 64
LOG_MEAN, LOG_STD = -1.2, 1.2


class Denoiser(eqx.Module):
    """D(x, s) of a trained network; the network works in float32, its caller as he likes.

    Attributes:
        network: the U-Net N.
        mean: of all pixels of the training images.
        sd: their standard deviation.
        size: images are size x size.
    """

    network: UNet
    mean: float = eqx.field(static=True)
    sd: float = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __call__(self, x: jax.Array, s: jax.Array | float) -> jax.Array:
        """Denoise flat images, shapes (n, size^2), () or (n,) -> (n, size^2), in x's precision."""
        s = jnp.broadcast_to(jnp.asarray(s, jnp.float32), x.shape[:1])[:, None]
        v = (x - self.mean).astype(jnp.float32)
        total = s**2 + self.sd**2
        images = (v / jnp.sqrt(total)).reshape(-1, self.size, self.size, 1)
        out = self.network(images, jnp.log(s[:, 0]) / 4).reshape(v.shape)
        d = self.sd**2 / total * v + s * self.sd / jnp.sqrt(total) * out
        return d.astype(x.dtype) + self.mean


def new_denoiser(network: Network, images: np.ndarray, seed: int) -> Denoiser:
    """An untrained denoiser for images of shape (n, size, size)."""
    unet = new_unet(network, 1, 1, jax.random.key(seed), LEVEL_FEATURES)
    return Denoiser(unet, float(images.mean()), float(images.std()), images.shape[-1])


def loss(model: Denoiser, batch: jax.Array, key: jax.Array) -> jax.Array:
    """The weighted denoising loss of a batch of images (n, size, size)."""
    a, b = jax.random.split(key)
    n = batch.shape[0]
    x0 = batch.reshape(n, -1).astype(jnp.float32)
    s = jnp.exp(LOG_MEAN + LOG_STD * jax.random.normal(a, (n,), jnp.float32))
    x = x0 + s[:, None] * jax.random.normal(b, x0.shape, jnp.float32)
    weight = (s**2 + model.sd**2) / (s * model.sd) ** 2
    return jnp.mean(weight[:, None] * (model(x, s) - x0) ** 2)
