"""Kind elastic-inverse: a rigid obstacle or point sources from far or near fields with noise.

Data are those of the scattering problem of docs/fundamental_solutions.md for several incident
waves, made by another method than the inversion uses (the exact series for a sphere, a finer set of
sources for other shapes), with complex Gaussian noise of a relative level. A first guess comes from
a sampling method; then Gauss-Newton with the domain derivative (obstacles) or variable projection
(sources).
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import ExpressionText
from fem_apps.fundamental.tables import IncidentTable, MediumTable, Vector

log = logging.getLogger(__name__)


class TrueSphere(Table):
    """A rigid sphere: centre and radius are sought."""

    type: Literal["sphere"]
    centre: Vector = Field(description="true centre")
    radius: float = Field(gt=0, description="true radius")


class TrueStar(Table):
    """A rigid star-shaped body: r as a function of the unit direction (x, y, z) is sought."""

    type: Literal["star"]
    centre: Vector = Field((0.0, 0.0, 0.0), description="true centre")
    radius: ExpressionText = Field(description="r(x, y, z) of unit vectors, positive")
    degree: int = Field(5, ge=1, le=12, description="of the harmonics in which log r is sought")


class TrueSources(Table):
    """Point forces: positions and complex amplitudes are sought."""

    type: Literal["sources"]
    positions: tuple[Vector, ...] = Field(min_length=1, description="true positions")
    forces: tuple[Vector, ...] = Field(min_length=1, description="their forces")

    @model_validator(mode="after")
    def _same(self) -> TrueSources:
        if len(self.positions) != len(self.forces):
            raise ValueError("give as many forces as positions")
        return self


class Measurement(Table):
    """What is measured."""

    type: Literal["far-field", "near-field"] = Field("far-field", description="kind of data")
    receivers: int = Field(60, ge=4, le=5000, description="directions, or points on a sphere")
    radius: float = Field(5.0, gt=0, description="near-field: of the sphere of receivers")
    noise: float = Field(0.05, ge=0, lt=1, description="relative level of complex Gaussian noise")


class Start(Table):
    """Where the iteration begins."""

    sampling: bool = Field(True, description="centre by `method`; else the one given here")
    method: Literal["direct", "factorisation", "linear"] = Field(
        "direct",
        description="sampling method; all but the direct one measure, for this, far fields of "
        "P and S waves from all directions of measurement, with the same noise",
    )
    centre: Vector = Field((0.0, 0.0, 0.0), description="first centre, without sampling")
    radius: float = Field(1.0, gt=0, description="first radius")
    half_width: float = Field(2.0, gt=0, description="of the cube that is sampled")
    points: int = Field(25, ge=5, le=101, description="of the cube, in each direction")


class Output(Table):
    """What is written."""

    pictures: bool = Field(True, description="pictures")
    frames: int = Field(6, ge=1, le=100, description="iterations shown in the picture, at most")


class Case(AnyCase):
    """A case of kind elastic-inverse."""

    medium: MediumTable = Field(description="the medium")
    incident: tuple[IncidentTable, ...] = Field((), description="incident waves")
    truth: Annotated[TrueSphere | TrueStar | TrueSources, Field(discriminator="type")] = Field(
        description="what made the data"
    )
    measurement: Measurement = Field(default_factory=Measurement, description="the data")
    start: Start = Field(default_factory=Start, description="first guess")
    sources: int | None = Field(
        None,
        ge=20,
        le=3000,
        description="point sources of the forward map; by default as many as make what it predicts "
        "sure to a fifth of the noise",
    )
    depth: float = Field(0.4, gt=0, lt=1, description="their place, as a factor of r")
    iterations: int = Field(30, ge=1, le=500, description="most iterations")
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _consistent(self) -> Case:
        if self.medium.omega == 0:
            raise ValueError("omega = 0 has no waves and no far field: give omega > 0")
        if isinstance(self.truth, TrueSources) == bool(self.incident):
            raise ValueError("obstacles need [[incident]] waves, point sources have none")
        if self.start.method != "direct" and (
            self.measurement.type != "far-field" or isinstance(self.truth, TrueSources)
        ):
            raise ValueError(
                f"start.method = {self.start.method!r} is for far fields of obstacles only"
            )
        if self.measurement.type == "near-field":
            far = 0.0
            if isinstance(self.truth, TrueSphere):
                far = float(np.linalg.norm(self.truth.centre)) + self.truth.radius
            elif isinstance(self.truth, TrueSources):
                far = max(float(np.linalg.norm(y)) for y in self.truth.positions)
            if far >= self.measurement.radius:
                raise ValueError(
                    f"measurement.radius = {self.measurement.radius:g}: the receivers must be "
                    f"outside of what is sought, which reaches to {far:.3g}"
                )
        return self


def check_radius(values: np.ndarray, text: str) -> None:
    """Refuse a radius that is not positive. Raises CaseError."""
    if not (np.isfinite(values).all() and values.min() > 0):
        raise CaseError(
            f"truth.radius = {text!r}: must be positive in every direction, is {values.min():.3g}"
        )


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.inverse.elastic_source_run import run_case

    return run_case(case, run)
