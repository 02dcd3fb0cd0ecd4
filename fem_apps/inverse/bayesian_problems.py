"""The forward problems of kind bayesian-inverse, with their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fem_apps.inverse.bayesian import Case, Conductivity, Impedance, covariance
from fem_apps.inverse.bayesian_posterior import Posterior, Prior


@dataclass(frozen=True)
class Setting:
    """A posterior, and what pictures need.

    Attributes:
        posterior: of the unknowns.
        truth: the unknowns that made the data, where they are known.
        shape: unknowns as an image (rows, columns).
        cell_image: the unknown of each pixel; -1 outside the domain.
    """

    posterior: Posterior
    truth: np.ndarray | None
    shape: tuple[int, int]
    cell_image: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """The pixel of each unknown in the flat image."""
        return np.flatnonzero(self.cell_image.ravel() >= 0)

    def image(self, m: np.ndarray) -> np.ndarray:
        """Unknowns as an image; NaN outside the domain."""
        return np.where(self.cell_image >= 0, m[self.cell_image], np.nan)


def build(case: Case, comm: Any) -> Setting:
    """The setting of a case, on a communicator of size 1."""
    match case.problem:
        case Conductivity():
            return _conductivity(case, case.problem, comm)
        case Impedance():
            return _impedance(case, case.problem, comm)


def _conductivity(case: Case, p: Conductivity, comm: Any) -> Setting:
    from fem_apps.inverse.conductivity import (
        published_data,
        square_conductivity,
        true_conductivity,
    )

    model = square_conductivity(
        comm,
        cells=p.cells,
        squares=p.squares,
        points=p.points,
        source=p.source,
        degree=p.degree,
    )
    q = p.squares
    # the published conductivity, on any number of squares
    place = (np.arange(q) * 8) // q
    example = np.log(true_conductivity().reshape(8, 8)[np.ix_(place, place)].ravel())
    data = published_data() if p.data == "published" else None
    return _setting(case, model, example, np.arange(q * q).reshape(q, q), data)


def _impedance(case: Case, p: Impedance, comm: Any) -> Setting:
    from fem_apps.inverse.operators_eit import disc_impedance

    model, inside = disc_impedance(
        comm, electrodes=p.electrodes, contact=p.contact, h=p.h, pixels=p.pixels
    )
    q = p.pixels
    number = np.full(q * q, -1)
    number[inside] = np.arange(len(inside))
    j, i = np.divmod(inside, q)
    x, y = (2 * i + 1) / q - 1, (2 * j + 1) / q - 1
    example = np.where((x - 0.35) ** 2 + (y - 0.2) ** 2 < 0.3**2, np.log(3.0), 0.0)
    example = np.where((x + 0.35) ** 2 + (y + 0.3) ** 2 < 0.3**2, -np.log(3.0), example)
    return _setting(case, model, example + case.prior.mean, number.reshape(q, q), None)


def _setting(
    case: Case, model: Any, example: np.ndarray, cell_image: np.ndarray, data: np.ndarray | None
) -> Setting:
    """Truth, data and prior of a model whose unknowns are numbered along the rows of an image."""
    inside = np.flatnonzero(cell_image.ravel() >= 0)
    truth, d = example, case.diffusion
    if d is not None and case.truth == "image":
        from fem_apps.surrogates.score_images import make_images

        # apart from the training images
        image = make_images(d.prior.family, 1, d.prior.size, d.prior.seed + 7919 * (case.seed + 1))
        truth = d.offset + d.factor * image.ravel()[inside]
    if data is None:
        rng = np.random.default_rng([case.seed, 1000003])
        data = model.at(truth).data
        data = data + case.noise * rng.normal(size=len(data))
    if d is not None and case.prior.learnt:
        from fem_apps.surrogates.score_training import training_images

        images = training_images(d.prior).reshape(d.prior.images, -1)[:, inside].astype(float)
        C = d.factor**2 * np.cov(images.T)
        C += 1e-6 * C.trace() / len(C) * np.eye(len(C))
        prior = Prior(d.offset + d.factor * images.mean(axis=0), C)
    else:
        j, i = np.divmod(inside, cell_image.shape[1])
        C = covariance(case.prior, np.stack([i, j], axis=1).astype(float))
        prior = Prior(np.full(len(inside), case.prior.mean), C)
    return Setting(Posterior(model, data, case.noise, prior), truth, cell_image.shape, cell_image)
