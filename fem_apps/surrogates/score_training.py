"""The denoiser of a family of images: from the user's cache, else trained and kept there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from pydantic import Field

from fem_apps.case import Table
from fem_apps.surrogates import score, weights
from fem_apps.surrogates.score_images import Family, make_images
from fem_apps.surrogates.training import Training, fit
from fem_apps.surrogates.unet import Network, check_size

jax.config.update("jax_enable_x64", True)

VERSION = 1  # of what trains: raised when the same table no longer gives the same weights


class ImagePrior(Table):
    """Keys of a case's table that say which images a denoiser learns, and how."""

    family: Family = Field("ellipses", description="what the images show")
    size: int = Field(32, ge=8, le=128, description="pixels of a side")
    images: int = Field(10000, ge=16, description="number of training images")
    network: Network = Field(
        default_factory=lambda: Network(channels=(32, 64, 64)), description="the U-Net"
    )
    training: Training = Field(
        default_factory=lambda: Training(steps=2500, batch=16, rate=2e-3, average=0.998),
        description="the training",
    )
    seed: int = Field(0, ge=0, description="of images, weights and batches")


def training_images(prior: ImagePrior) -> np.ndarray:
    """The images that a prior learns, shape (images, size, size), float32."""
    return make_images(prior.family, prior.images, prior.size, prior.seed).astype(np.float32)


def trained_denoiser(
    prior: ImagePrior,
    images: np.ndarray,
    *,
    progress: Callable[[float, str], None] | None = None,
    state_file: Path | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[score.Denoiser, Path]:
    """The denoiser of a prior, and the file that holds its weights. On one rank.

    Args:
        prior: what is learnt.
        images: its `training_images`.
        progress: see `fit`.
        state_file: see `fit`.
        stop: see `fit`.

    Raises:
        ValueError: the network does not fit the size of the images.
        Interrupted, SolveError: see `fit`.
    """
    check_size(prior.network, prior.size)
    model = score.new_denoiser(prior.network, images, prior.seed)

    def train() -> Any:
        return fit(
            *(model, score.loss, images, prior.training, prior.seed),
            chunk=20,
            progress=progress,
            state_file=state_file,
            stop=stop,
        ).model

    key = weights.fingerprint(what="denoiser", version=VERSION, prior=prior)
    return weights.kept(model, key, train)
