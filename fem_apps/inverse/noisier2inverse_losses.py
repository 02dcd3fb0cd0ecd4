"""Losses that train f: B-reconstruction -> image from one noisy y per object.

With z = y + alpha w, w of the law of the noise (alpha = 1 if not Gaussian), B a linear
reconstruction (filtered back-projection, or Tikhonov's):

    noisier2inverse   E |A f(B z) - (y - w/alpha)|^2    used as f(B y), or the mean of f(B(y + w_k))
    sobolev           the same in H1, whatever the norm of the others
    two-step          E |A f(B z) - y|^2                used as 2 f(B z) - B z (Noisier2Noise)
    naive             E |A f(B z) - y|^2                used as f(B z): biased
    supervised        E |A f(B z) - A x|^2              used as noisier2inverse: its bound
    supervised-y      E |A f(B y) - A x|^2              the bound of all
    noise2inverse     E |f(mean of 3 sub-reconstructions) - the fourth|^2, 4 folds of the rows
    sparse2inverse    f of 2 of 4 groups of rows, loss on the data of the other 2

|r|^2 is the mean square of r, of its reconstruction B r ("image"), or H1's |r|^2 + |d_s r|^2 +
|d_theta r|^2 with differences along the axes of the data ("sobolev"). Every norm has the same
minimiser in the mean. From few data they do not give the same: A damps what is fine, B raises it,
and correlated noise is smooth, so that "image" listens where the image is and the noise is not.

Gruber, Schwab, Haltmeier, Biguri, Dlaska, Hwang, arXiv 2503.19468; Noisier2Noise arXiv 1910.11908;
Noise2Inverse arXiv 2001.11801; Sparse2Inverse arXiv 2402.16921. E|A f(Bz) - target|^2 exceeds the
error E|A f(Bz) - A x|^2 by (1 + 1/alpha^2) tr Sigma whatever f is, so the held-out loss less that
is an unbiased error: it selects the weights, and no clean image is needed.

What makes the noise of the targets weigh less, for every method alike: y is turned or reflected by
a symmetry of the scanner (f is trained on the symmetrised law of objects), and each w enters as w
and as -w: the targets y -+ w/alpha have the mean y, and of w only what f does to it is left. What
is used is not f itself but its mean over the turns and reflections of an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fem_apps.inverse.noisier2inverse_noise import CorrelatedNoise
from fem_apps.surrogates.unet import UNet

Method = Literal[
    "noisier2inverse",
    "sobolev",
    "two-step",
    "naive",
    "supervised",
    "supervised-y",
    "noise2inverse",
    "sparse2inverse",
]
Norm = Literal["image", "sobolev", "l2"]
FOLDS = 4
SUPERVISED = ("supervised", "supervised-y")


@dataclass(frozen=True)
class Setting:
    """What every loss shares. Data are a (K, J) array: angles or rows of sensors first.

    Attributes:
        size: images are size x size.
        A: the operator, shape (m, n), float32.
        inverse: B of a part of the data (m booleans), shape (n, m), zero where data are left out.
        noise: law of the noise.
        alpha: strength of the recorruption.
        norm: of residuals in the space of data.
        seen: where A is smoothing, networks give `seen` f, shape (n, n): what data cannot tell is
            then not made up.
        symmetries: permutations of the data, shape (G, m): y[g] are data of a turned or reflected
            object, and eps[g] has the law of eps. Each object of a batch gets one at random.
        turns: those of them that permute pixels too, as permutations of flat images, shape (8 or
            4, n): what is used is the mean of f over them, which turns as its argument does.
        antithetic: whether every w of a batch enters as w and as -w.
    """

    size: int
    A: np.ndarray
    inverse: Callable[[np.ndarray], np.ndarray]
    noise: CorrelatedNoise
    alpha: float = 1.0
    norm: Norm = "image"
    seen: np.ndarray | None = None
    symmetries: np.ndarray | None = None
    turns: np.ndarray | None = None
    antithetic: bool = False

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(K, J)."""
        return self.noise.angles, self.noise.detectors

    @cached_property
    def B(self) -> jax.Array:
        """The reconstruction from all data, shape (n, m)."""
        return self.part(tuple(range(FOLDS)))

    def groups(self) -> np.ndarray:
        """The fold of each datum: angles or rows in turn, shape (m,)."""
        return np.repeat(np.arange(self.shape[0]) % FOLDS, self.shape[1])

    def part(self, groups: tuple[int, ...]) -> jax.Array:
        """The reconstruction from some groups alone, shape (n, m)."""
        return jnp.asarray(self.inverse(np.isin(self.groups(), groups)), jnp.float32)


def reconstruct(model: UNet, images: jax.Array, s: Setting) -> jax.Array:
    """The network on flat images, shapes (batch, n) -> (batch, n)."""
    out = model(images.reshape(-1, s.size, s.size, 1)).reshape(images.shape)
    return out if s.seen is None else out @ s.seen.T


def averaged(model: UNet, images: jax.Array, s: Setting) -> jax.Array:
    """The mean of g^-1 f(g v) over turns and reflections g, shapes (batch, n) -> (batch, n).

    Where the law of objects is symmetric so is the best f; the mean takes away what of the error is
    not (its squared error is at most f's mean one over the turned images).
    """
    if s.turns is None:
        return reconstruct(model, images, s)
    back = np.argsort(s.turns, axis=1)
    found = [reconstruct(model, images[:, g], s)[:, h] for g, h in zip(s.turns, back, strict=True)]
    return sum(found[1:], found[0]) / len(found)


def make_loss(method: Method, s: Setting) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """The loss of a batch of rows (y, x), mean over the data; the supervised ones alone read x."""

    def matrices() -> tuple[jax.Array, jax.Array]:
        """A^T and B^T as values that XLA must not fold: it would take minutes to transpose them."""
        return jax.lax.optimization_barrier((At, Bt))

    At, Bt = jnp.array(s.A.T), jnp.array(s.B.T)
    turns = None if s.symmetries is None else jnp.asarray(s.symmetries)

    def turned(key: jax.Array, *data: jax.Array) -> tuple[jax.Array, ...]:
        """Data of each object, all turned alike."""
        if turns is None:
            return data
        g = turns[jax.random.randint(key, (data[0].shape[0],), 0, len(turns))]
        return tuple(jnp.take_along_axis(d, g, axis=1) for d in data)

    def recorrupted(y: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        w = s.noise.draw(key, y.shape[0])
        if s.antithetic:
            w, y = jnp.concatenate([w, -w]), jnp.concatenate([y, y])
        return y + s.alpha * w, y - w / s.alpha

    def mean_square(r: jax.Array) -> jax.Array:
        return jnp.mean(r * r)

    def size(r: jax.Array, norm: Norm = s.norm) -> jax.Array:
        if norm == "image":
            return mean_square(r @ matrices()[1])
        if norm == "l2":
            return mean_square(r)
        q = r.reshape(-1, *s.shape)
        return sum(map(mean_square, (q, jnp.diff(q, axis=1), jnp.diff(q, axis=2))))

    def loss(model: UNet, batch: Any, key: jax.Array) -> jax.Array:
        y, x = batch
        At, Bt = matrices()
        key, turn = jax.random.split(key)
        if method in SUPERVISED:
            y, clean = turned(turn, y, x @ At)
        else:
            (y,) = turned(turn, y)
        if method == "supervised-y":
            return size(reconstruct(model, y @ Bt, s) @ At - clean)
        z, target = recorrupted(y, key)
        r = reconstruct(model, z @ Bt, s) @ At
        copies = z.shape[0] // y.shape[0]
        match method:
            case "supervised":
                return size(r - jnp.concatenate([clean] * copies))
            case "noisier2inverse":
                return size(r - target)
            case "sobolev":
                return size(r - target, "sobolev")
        return size(r - jnp.concatenate([y] * copies))  # two-step, naive

    folds = jnp.stack([s.part((k,)).T for k in range(FOLDS)]) if method == "noise2inverse" else Bt

    def noise2inverse(model: UNet, batch: Any, key: jax.Array) -> jax.Array:
        key, turn = jax.random.split(key)
        (y,) = turned(turn, batch[0])
        parts = y @ jax.lax.optimization_barrier(folds)
        k = jax.random.randint(key, (), 0, FOLDS)
        rest = (parts.sum(axis=0) - parts[k]) / (FOLDS - 1)
        return mean_square(reconstruct(model, rest, s) - parts[k])

    pairs = list(combinations(range(FOLDS), 2)) if method == "sparse2inverse" else []
    inputs = jnp.stack([s.part(p).T for p in pairs] or [Bt])
    others = jnp.asarray([~np.isin(s.groups(), p) for p in pairs], jnp.float32)

    def sparse2inverse(model: UNet, batch: Any, key: jax.Array) -> jax.Array:
        key, turn = jax.random.split(key)
        (y,) = turned(turn, batch[0])
        k = jax.random.randint(key, (), 0, len(pairs))
        r = reconstruct(model, y @ jax.lax.optimization_barrier(inputs)[k], s) @ matrices()[0] - y
        return 2 * mean_square(r * others[k])

    return {"noise2inverse": noise2inverse, "sparse2inverse": sparse2inverse}.get(method, loss)


def estimate(
    method: Method,
    s: Setting,
    model: UNet,
    y: jax.Array,
    *,
    draws: int = 0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Reconstructions, shapes (batch, m) -> (batch, n), by the mean of f over turns.

    Args:
        method: that trained the model.
        s: what it was trained with.
        model: f.
        y: data.
        draws: K > 0: the mean over f(B (y + alpha w_k)), the law that the network was trained on;
            0: f(B y), less noise than it was trained on. Two-step and naive always draw.
        key: of the draws.
    """
    B = s.B
    if method == "noise2inverse":
        folds = jnp.stack([y @ s.part((k,)).T for k in range(FOLDS)])
        rests = (folds.sum(axis=0) - folds) / (FOLDS - 1)
        return sum(averaged(model, r, s) for r in rests) / FOLDS
    if method == "sparse2inverse":
        pairs = list(combinations(range(FOLDS), 2))
        return sum(averaged(model, y @ s.part(p).T, s) for p in pairs) / len(pairs)
    if method in ("two-step", "naive"):
        draws = max(draws, 1)
    if draws == 0 or method == "supervised-y":
        return averaged(model, y @ B.T, s)
    key = jax.random.key(0) if key is None else key
    total = jnp.zeros((y.shape[0], B.shape[0]), jnp.float32)
    for k in jax.random.split(key, draws):
        v = (y + s.alpha * s.noise.draw(k, y.shape[0])) @ B.T
        f = averaged(model, v, s)
        total += 2 * f - v if method == "two-step" else f
    return total / draws
