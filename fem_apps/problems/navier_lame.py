"""Kind navier-lame: elastic waves outside an obstacle by finite elements, in complex scalars.

    div sigma(u) + rho omega^2 u = 0,  sigma(u) = lambda div u I + 2 mu eps(u),  u radiating,

u the field scattered by a rigid body (u = -u_inc), a cavity (T u = -T u_inc), or inclusions
with lambda, mu, rho of their own, in a ball truncated by a perfectly matched layer, dashpots or
the exact Dirichlet-to-Neumann map (`navier_lame_forms`, `navier_lame_dtn`); statics with omega = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.fem.expressions import ExpressionText
from fem_apps.fundamental.bodies import Obstacle
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.tables import IncidentTable, MediumTable, MotionTable, check_drive
from fem_apps.meshing import MeshCase
from fem_apps.problems.navier_lame_forms import Truncation


class Inclusion(Table):
    """Cells with a material of their own; values are numbers or expressions of x, y, z."""

    region: str = Field("inclusion", description="name of the cells in the mesh")
    lame_lambda: ExpressionText = Field(description="first Lame parameter")
    lame_mu: ExpressionText = Field(description="shear modulus")
    density: ExpressionText = Field(description="density")


class Solver(Table):
    """The linear solver."""

    type: Literal["direct", "iterative"] = Field(
        "direct",
        description="direct: MUMPS, LDL^T of the complex symmetric matrix; iterative: CG with "
        "algebraic multigrid and rigid modes (statics), GMRES with overlapping subdomains of a "
        "damped operator (waves)",
    )
    block_low_rank: float = Field(
        0.0, ge=0, lt=1, description="direct: MUMPS' dropping tolerance, corrected by GMRES; 0: off"
    )
    tolerance: float = Field(1e-8, gt=0, lt=1, description="relative residual of iterative solvers")
    damping: float = Field(0.3, ge=0, le=2, description="iterative: imaginary part of omega^2")


class Output(Table):
    """What is written."""

    fields: bool = Field(True, description="fields for ParaView")
    pictures: bool = Field(True, description="pictures, and an animation over a period")
    frames: int = Field(8, ge=2, le=200, description="times of a period in fields and animation")


class Case(AnyCase):
    """A case of kind navier-lame."""

    mesh: MeshCase = Field(
        description="the ball: cells 'domain' ('layer', inclusions), boundary 'obstacle', 'outer'"
    )
    medium: MediumTable = Field(description="the medium outside")
    incident: IncidentTable | None = Field(None, description="a plane wave")
    motion: MotionTable | None = Field(None, description="or a rigid motion of the obstacle")
    condition: Literal["rigid", "cavity", "none"] = Field(
        "rigid", description="on the boundary 'obstacle'; none: there are inclusions only"
    )
    inclusion: tuple[Inclusion, ...] = Field((), description="materials inside the ball")
    truncation: Truncation = Field(default_factory=Truncation, description="of the outside")
    degree: Literal[1, 2, 3] = Field(2, description="degree of the elements")
    solver: Solver = Field(default_factory=Solver, description="linear solver")
    reference: Obstacle | None = Field(
        None,
        description="the same obstacle as a shape: the error against the exact solution (sphere) "
        "or fundamental solutions (others) is a metric",
    )
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _consistent(self) -> Case:
        check_drive(self.medium, self.incident, self.motion)
        if self.medium.omega == 0 and self.truncation.type != "fixed":
            raise ValueError(
                f"omega = 0 does not radiate: truncation.type = {self.truncation.type!r} needs "
                "omega > 0; statics take 'fixed'"
            )
        if self.motion is not None and self.condition != "rigid":
            raise ValueError("[motion] is of a rigid obstacle")
        if self.condition == "none" and not self.inclusion:
            raise ValueError("condition = 'none' needs an inclusion to scatter at")
        for i in self.inclusion:
            for key in ("lame_mu", "density"):
                try:
                    value = float(getattr(i, key))
                except ValueError:
                    continue  # an expression: checked on the mesh
                if value <= 0:
                    raise ValueError(f"inclusion {i.region!r}: {key} = {value:g} must be positive")
        return self


@dataclass(frozen=True)
class Problem:
    """The exterior problem.

    Attributes:
        medium: outside.
        condition: on the obstacle: "rigid", "cavity" or "none".
        truncation: of the outside.
        inclusions: regions with a material of their own.
    """

    medium: Medium
    condition: str = "rigid"
    truncation: Truncation = field(default_factory=Truncation)
    inclusions: tuple[Inclusion, ...] = ()


def incident_of(case: Case) -> PlaneWave | None:
    """The wave of a case."""
    return case.incident.wave() if case.incident is not None else None


def motion_of(case: Case) -> tuple[np.ndarray, np.ndarray] | None:
    """The rigid motion of a case."""
    if case.motion is None:
        return None
    return np.array(case.motion.translation), np.array(case.motion.rotation)


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.problems.navier_lame_run import run_case

    return run_case(case, run)
