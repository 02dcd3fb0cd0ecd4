"""Images made offline to train on: ellipses, Gaussian fields, level sets, photographs.

Pixel (i, j) of a size x size image is centred at x = -1 + (2 j + 1)/size, y = -1 + (2 i + 1)/size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Family = Literal["ellipses", "gaussian-field", "level-set", "photographs"]
SUBPIXELS = 4


@dataclass(frozen=True)
class Ellipses:
    """Ellipses of many images, arrays of shape (images, ellipses); density 0 where there is none.

    Attributes:
        x, y: centres.
        a, b: half-axes.
        angle: of the first axis.
        density: added inside.
    """

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    angle: np.ndarray
    density: np.ndarray

    def __getitem__(self, chosen: slice | np.ndarray) -> Ellipses:
        """Some of the images."""
        return Ellipses(*(getattr(self, f)[chosen] for f in self.__dataclass_fields__))


def random_ellipses(number: int, rng: np.random.Generator, *, inner: int = 5) -> Ellipses:
    """A body with one to `inner` ellipses in it, all within the unit disc."""
    shape = (number, inner + 1)
    radius, around = 0.5 * np.sqrt(rng.uniform(size=shape)), rng.uniform(0, 2 * np.pi, shape)
    x, y = radius * np.cos(around), radius * np.sin(around)
    a, b = rng.uniform(0.08, 0.35, shape), rng.uniform(0.08, 0.35, shape)
    density = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.2, 0.6, shape)
    there = np.arange(inner + 1) <= rng.integers(1, inner + 1, (number, 1))
    x[:, 0], y[:, 0] = rng.uniform(-0.1, 0.1, (2, number))
    a[:, 0], b[:, 0] = rng.uniform(0.55, 0.85, (2, number))
    density[:, 0] = rng.uniform(0.6, 1.0, number)
    return Ellipses(x, y, a, b, rng.uniform(0, np.pi, shape), np.where(there, density, 0.0))


def pixels(size: int) -> np.ndarray:
    """Centres of a row of pixels in [-1, 1]."""
    return -1 + (2 * np.arange(size) + 1) / size


def draw_ellipses(ellipses: Ellipses, size: int, *, subpixels: int = SUBPIXELS) -> np.ndarray:
    """Images (n, size, size): means over subpixels x subpixels points of a pixel."""
    fine = pixels(size * subpixels)
    n, k = ellipses.x.shape
    out = np.zeros((n, size, size))
    for i in range(n):
        image = np.zeros((fine.size, fine.size))
        for j in range(k):
            density = ellipses.density[i, j]
            if density == 0:
                continue
            c, s = np.cos(ellipses.angle[i, j]), np.sin(ellipses.angle[i, j])
            u, v = fine - ellipses.x[i, j], (fine - ellipses.y[i, j])[:, None]
            first = (c * u + s * v) / ellipses.a[i, j]
            second = (c * v - s * u) / ellipses.b[i, j]
            image += density * (first * first + second * second < 1)
        out[i] = image.reshape(size, subpixels, size, subpixels).mean(axis=(1, 3))
    return out


def gaussian_fields(number: int, size: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Periodic Gaussian fields, variance 1, covariance about exp(-|r|^2/(2 length^2))."""
    k = 2 * np.pi * np.fft.fftfreq(size, 2 / size)
    power = np.exp(-((length * k[:, None]) ** 2 + (length * k) ** 2) / 4)
    field = np.fft.ifft2(power * np.fft.fft2(rng.normal(size=(number, size, size)))).real
    return field * size / np.sqrt((power**2).sum())


def photographs(number: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Patches of the photographs that scikit-learn packages, grey, halved in size, from 0 to 1."""
    from sklearn.datasets import load_sample_images

    out = np.empty((number, size, size))
    grey = [p.mean(axis=2) / 255 for p in load_sample_images().images]
    half = [(g[:426:2, :640:2] + g[1:426:2, 1:640:2]) / 2 for g in grey]
    for i, which in enumerate(rng.integers(0, len(half), number)):
        p = half[which]
        r, c = rng.integers(0, np.array(p.shape) - size + 1)
        out[i] = p[r : r + size, c : c + size][:, :: rng.choice([-1, 1])]
    return out


def make_images(family: Family, number: int, size: int, seed: int) -> np.ndarray:
    """Images of a family, shape (number, size, size); the same for the same seed.

    * ellipses: a body with inclusions, densities about 0 to 1.5;
    * gaussian-field: mean 0, variance 1, correlation length 0.3;
    * level-set: .2 + .8 [field > .3] of such a field, two phases;
    * photographs: patches of packaged photographs.
    """
    rng = np.random.default_rng([seed, size])
    match family:
        case "ellipses":
            return draw_ellipses(random_ellipses(number, rng), size)
        case "gaussian-field":
            return gaussian_fields(number, size, 0.3, rng)
        case "level-set":
            return 0.2 + 0.8 * (gaussian_fields(number, size, 0.25, rng) > 0.3)
        case "photographs":
            return photographs(number, size, rng)
