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
    truth = np.log(true_conductivity().reshape(8, 8)[np.ix_(place, place)].ravel())
    if p.data == "published":
        data = published_data()
    else:
        rng = np.random.default_rng([case.seed, 1000003])
        data = model.at(truth).data
        data = data + case.noise * rng.normal(size=len(data))
    j, i = np.divmod(np.arange(q * q), q)
    C = covariance(case.prior, np.stack([i, j], axis=1).astype(float))
    prior = Prior(np.full(q * q, case.prior.mean), C)
    return Setting(
        Posterior(model, data, case.noise, prior),
        truth,
        (q, q),
        np.arange(q * q).reshape(q, q),
    )


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
    truth = np.where((x - 0.35) ** 2 + (y - 0.2) ** 2 < 0.3**2, np.log(3.0), 0.0)
    truth = np.where((x + 0.35) ** 2 + (y + 0.3) ** 2 < 0.3**2, -np.log(3.0), truth)
    truth = truth + case.prior.mean
    rng = np.random.default_rng([case.seed, 1000003])
    data = model.at(truth).data
    data = data + case.noise * rng.normal(size=len(data))
    C = covariance(case.prior, np.stack([i, j], axis=1).astype(float))
    prior = Prior(np.full(len(inside), case.prior.mean), C)
    return Setting(Posterior(model, data, case.noise, prior), truth, (q, q), number.reshape(q, q))
