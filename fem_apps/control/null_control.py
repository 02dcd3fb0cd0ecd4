"""Null control of heat and wave equations by the Hilbert uniqueness method (HUM).

Of all controls v that bring y from (y0, y1) to rest at T, the one of least norm is v = the adjoint
state seen at the control region (Lions 1988; Glowinski, Lions 1995):

    heat   y_t  = div(kappa grad y) - r y,    min 1/2 |v|^2 + 1/(2 eps) |y(T)|^2
    wave   y_tt = div(c^2 grad y) - r y,      min 1/2 |v|^2,  y(T) = y_t(T) = 0 (filtered space)

with y = v on a part of the boundary, or a source chi v. The Gramian is that of the discrete
equation, exactly (problems/heat.py, wave.py); semi-discrete waves of high frequency do not travel,
so that their controls blow up with the mesh unless they are filtered (Zuazua 2005).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from mpi4py import MPI
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.fem.split import Mass, Split, split
from fem_apps.meshing import MeshCase, MeshData, build
from fem_apps.problems.heat import Heat
from fem_apps.problems.wave import Wave, stable_step

HEAT = ("implicit-euler", "crank-nicolson", "bdf2")
BETA = {"midpoint": 0.25, "fox-goodwin": 1 / 12, "leapfrog": 0.0, "gauss": 1 / 12}


class Control(Table):
    """Where the control acts: boundary parts, or a part of the domain."""

    on: tuple[str, ...] = Field((), description="names of boundary parts where y = v")
    where: ExpressionText | None = Field(
        None, description="chi(x, y, z) of a source chi v: 1 on the control region, 0 elsewhere"
    )
    cells: tuple[str, ...] = Field((), description="names of parts of the domain, instead of where")
    weight: ExpressionText = Field(
        "1", description="rho(x, y, z, t) >= 0: int v^2/rho is minimised, v = 0 where rho = 0"
    )

    @model_validator(mode="after")
    def _one(self) -> Control:
        if bool(self.on) == bool(self.where is not None or self.cells):
            raise ValueError("give either on (boundary parts), or where or cells (a source)")
        return self


class Time(Table):
    """Final time and steps."""

    end: float = Field(gt=0, description="T")
    steps: int | None = Field(
        None, ge=2, description="number of time steps; chosen from the mesh if left out"
    )
    scheme: (
        Literal[
            "implicit-euler",
            "crank-nicolson",
            "bdf2",
            "midpoint",
            "fox-goodwin",
            "leapfrog",
            "gauss",
        ]
        | None
    ) = Field(
        None,
        description=(
            "heat: implicit-euler (default), crank-nicolson, bdf2; wave: midpoint (default), "
            "fox-goodwin (4th order), gauss (two stages, 4th order, any step), "
            "leapfrog (explicit, with mass = lumped)"
        ),
    )


class Hum(Table):
    """How the Gramian is inverted."""

    filter: Literal["none", "two-grid", "spectral"] = Field(
        "none", description="of the wave's adjoint data"
    )
    gamma: float = Field(
        1.0, gt=0, description="spectral filter: keep the modes with lambda_k h^2 <= gamma"
    )
    epsilon: float | None = Field(
        None, ge=0, description="penalty; left out: h^epsilon_power for heat, 0 for the wave"
    )
    epsilon_power: float = Field(4.0, gt=0, description="p of epsilon = h^p; 4 for P1 (Boyer 2013)")
    tolerance: float = Field(1e-8, gt=0, lt=1, description="of the residual, relative")
    max_iterations: int = Field(500, ge=1, description="of conjugate gradients")
    modes: int = Field(
        0, ge=0, description="heat: eigenfunctions whose Gramian preconditions; 0: none"
    )
    lanczos: int = Field(
        40, ge=0, description="most Lanczos steps for the observability constant; 0: leave it out"
    )


class Initial(Table):
    """The initial state."""

    y0: ExpressionText = Field(description="y(0)")
    y1: ExpressionText = Field("0", description="y_t(0), of a wave")


class Selections(Table):
    """The set of all null controls of a small problem, and members of it."""

    control_step: int = Field(
        2, ge=1, description="steps of the equation that a step of the control takes"
    )
    tolerance: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description="directions that move the final state by less than this (relative) are free",
    )
    bound: float | None = Field(None, gt=0, description="also the least norm with |v| <= bound")


class Output(Table):
    """What is written, and how often."""

    frames: int = Field(40, ge=2, le=10000, description="times at which fields are written")
    fields: bool = Field(True, description="fields for ParaView")
    pictures: bool = Field(True, description="pictures and the animation")
    checkpoint: float = Field(60.0, ge=0, description="seconds of wall time between checkpoints")


class Case(AnyCase):
    """A case of kind null-control."""

    equation: Literal["heat", "wave"] = Field(description="heat or wave")
    mesh: MeshCase = Field(description="the domain")
    coefficient: ExpressionText = Field(
        "1", description="kappa (heat) or c^2 (wave), an expression of x, y, z"
    )
    reaction: ExpressionText = Field("0", description="r(x, y, z)")
    fixed: tuple[str, ...] | None = Field(
        None, description="boundary parts where y = 0; left out: all but the controlled ones"
    )
    control: Control = Field(description="where the control acts")
    initial: Initial = Field(description="the state at time 0")
    time: Time = Field(description="T and the steps")
    mass: Mass = Field("consistent", description="mass matrix: consistent, lumped or mixed")
    hum: Hum = Field(default_factory=Hum, description="the inversion")
    set: Selections | None = Field(None, description="the set of all null controls")
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _fits(self) -> Case:
        heat, scheme = self.equation == "heat", self.time.scheme
        if scheme is not None and (scheme in HEAT) != heat:
            names = ", ".join(HEAT if heat else BETA)
            raise ValueError(
                f"time.scheme = {scheme!r} is not of the {self.equation} equation: {names}"
            )
        if scheme == "leapfrog" and self.mass != "lumped":
            raise ValueError("time.scheme = 'leapfrog' is explicit: give mass = 'lumped'")
        if heat and self.hum.filter != "none":
            raise ValueError("hum.filter is for the wave equation; heat has hum.epsilon")
        if not heat and self.hum.modes:
            raise ValueError("hum.modes is for the heat equation; the wave has hum.filter")
        return self


def split_of(case: Case, data: MeshData) -> Split:
    """The matrices of a case on a mesh. Collective."""
    return split(
        data,
        coefficient=case.coefficient,
        reaction=case.reaction,
        fixed=case.fixed,
        boundary=case.control.on,
        interior=case.control.where,
        cells=case.control.cells,
        mass=case.mass,
    )


def system_of(case: Case, s: Split) -> Heat | Wave:
    """The discrete equation of a case. Collective.

    Raises:
        CaseError: T below the time that waves need, or the CFL condition violated.
    """
    end, steps, scheme = case.time.end, case.time.steps, case.time.scheme
    if case.equation == "heat":
        return Heat(s, end, steps or int(np.ceil(4 / s.h)), scheme or "implicit-euler")  # type: ignore[arg-type]
    speed = np.sqrt(_largest(case.coefficient, s))
    needed = control_time(s, speed)
    if end < needed * (1 - 1e-9):
        raise CaseError(
            f"time.end = {end:g} is below {needed:.4g}: the waves of speed up to {speed:.4g} that "
            "start farthest from the control region have not met it by then, so no control brings "
            "all of them to rest"
        )
    beta = BETA[scheme or "midpoint"]
    if steps is None:
        dt = 0.9 * stable_step(s, beta) if beta == 0 else 0.5 * s.h / speed
        steps = int(np.ceil(end / dt - 1e-9))
    return Wave(s, end, steps, beta, gauss=scheme == "gauss")


def control_time(s: Split, speed: float) -> float:
    """2 max dist(x, control region)/c: below it a wave exists that is never seen. Collective.

    Distances are straight lines, and c is the largest speed, so this is a lower bound of the time
    of unique continuation (Tataru), and that one of the time of geometric control (Bardos, Lebeau,
    Rauch 1992), which is not computed.
    """
    from scipy.spatial import cKDTree

    region = np.concatenate(s.comm.allgather(s.x_control))
    owned = s.V.dofmap.index_map.size_local
    x = s.V.tabulate_dof_coordinates()[:owned, : s.x.shape[1]]
    farthest = cKDTree(region).query(x)[0].max(initial=0.0)
    return 2 * float(s.comm.allreduce(float(farthest), op=MPI.MAX)) / speed


def _largest(text: str, s: Split) -> float:
    values = parse(text).numpy(s.V.tabulate_dof_coordinates()[:, : s.x.shape[1]].T)
    return float(s.comm.allreduce(float(values.max(initial=0.0)), op=MPI.MAX))


def coarse_mesh(case: Case, comm: MPI.Comm) -> MeshData:
    """The mesh twice as coarse that a two-grid filter takes its data from. Collective.

    Where the case splits its cells (`refine`), the mesh before the last split; on an interval the
    mesh of twice the size.

    Raises:
        CaseError: there is none that is nested.
    """
    mesh = case.mesh
    if mesh.refine:
        table = mesh.model_copy(update={"refine": mesh.refine - 1})
    elif mesh.geometry == "interval":
        p = {"h": 0.05, "a": 0.0, "b": 1.0, **mesh.parameters}
        cells = int(np.ceil((p["b"] - p["a"]) / p["h"] - 1e-9))
        if cells % 2 or cells < 4:
            raise CaseError(
                f"hum.filter = 'two-grid': the interval has {cells} cells, which is no even number "
                "of at least 4; change mesh.parameters.h"
            )
        twice = 2 * (p["b"] - p["a"]) / cells
        table = mesh.model_copy(update={"parameters": {**mesh.parameters, "h": twice}})
    else:
        raise CaseError(
            "hum.filter = 'two-grid' needs nested meshes: give mesh.refine = 1 (and twice the h), "
            "whose coarse mesh is the one before the last split"
        )
    return build(comm, table, case.folder)


def run(case: Case, run: object) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.control.null_control_run import run_case

    return run_case(case, run)  # type: ignore[arg-type]
