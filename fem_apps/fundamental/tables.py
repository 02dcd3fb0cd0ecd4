"""Tables of a case that all elastic kinds share: medium, incident wave, rigid motion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fundamental.medium import Medium, PlaneWave

Vector = tuple[float, float, float]


class MediumTable(Table):
    """The medium outside the obstacles."""

    lame_lambda: float = Field(1.0, description="first Lame parameter, lambda + 2 mu/3 > 0")
    lame_mu: float = Field(1.0, gt=0, description="shear modulus")
    density: float = Field(1.0, gt=0, description="density")
    omega: float = Field(1.0, ge=0, description="angular frequency; 0: statics")

    @model_validator(mode="after")
    def _speeds(self) -> MediumTable:
        try:
            self.medium()
        except CaseError as e:
            raise ValueError(str(e)) from None
        return self

    def medium(self) -> Medium:
        """As the medium of the equations."""
        return Medium(self.lame_lambda, self.lame_mu, self.density, self.omega)


class IncidentTable(Table):
    """A plane wave of amplitude 1."""

    type: Literal["P", "S"] = Field("P", description="pressure or shear wave")
    direction: Vector = Field((0.0, 0.0, 1.0), description="direction of travel, of any length")
    polarisation: Vector | None = Field(None, description="of a shear wave, across its direction")

    @model_validator(mode="after")
    def _wave(self) -> IncidentTable:
        if (self.type == "S") != (self.polarisation is not None):
            raise ValueError("a wave of type S needs polarisation, one of type P has none")
        try:
            self.wave()
        except CaseError as e:
            raise ValueError(str(e)) from None
        return self

    def wave(self) -> PlaneWave:
        """As the wave of the equations."""
        return PlaneWave(self.direction, self.polarisation)


class MotionTable(Table):
    """A rigid motion of all obstacles, about the origin."""

    translation: Vector = Field((0.0, 0.0, 0.0), description="displacement")
    rotation: Vector = Field((0.0, 0.0, 0.0), description="small rotation vector")


def check_drive(
    medium: MediumTable, incident: IncidentTable | None, motion: MotionTable | None
) -> None:
    """Refuse both or neither of wave and motion, and waves at omega = 0. Raises ValueError."""
    if (incident is None) == (motion is None):
        raise ValueError("give either [incident] or [motion]")
    if medium.omega == 0 and incident is not None:
        raise ValueError(
            "omega = 0 has no waves and no radiation: give omega > 0, or for statics "
            "[motion] instead of [incident]"
        )
