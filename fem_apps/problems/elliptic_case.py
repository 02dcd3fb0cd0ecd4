"""Cases of kind parametric-elliptic: an equation, a mesh, and the reduced basis built for it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.meshing import MeshCase
from fem_apps.problems.elliptic_coefficients import LogNormal
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.surrogates.deeponet import Architecture
from fem_apps.surrogates.pod_nn import PerceptronTable
from fem_apps.surrogates.training import Training

# streams of random numbers
TRAINING, TEST, SNAPSHOTS, INTERPOLATION, DATA, SWEEP = 1, 2, 3, 4, 5, 6


class Reduced(Table):
    """The `[reduced]` table: how the basis is made, and on what it is tested."""

    method: Literal["greedy", "pod"] = Field("greedy", description="weak greedy, or POD")
    size: int = Field(20, ge=1, description="largest N")
    training: int = Field(1000, ge=1, description="random parameters that the greedy chooses from")
    snapshots: int = Field(100, ge=1, description="full solves for POD")
    tolerance: float = Field(
        0.0, ge=0, description="stop at this bound of the error (POD: share of the first mode)"
    )
    relative: bool = Field(False, description="the greedy looks at bounds relative to |u_N|_X")
    test: int = Field(200, ge=0, description="random parameters, not those of the training")
    product: Literal["seminorm", "energy"] | None = Field(
        None, description="X: H1 seminorm, or energy at the middle of the ranges"
    )
    interpolation: int = Field(
        60,
        ge=0,
        description="most functions of an empirical interpolation; 0: none, the reduced model has "
        "the exact operator: a bound without estimates, online costs that grow with the mesh",
    )
    interpolation_tolerance: float = Field(1e-8, ge=0, description="of it, relative to max |a|")
    interpolation_samples: int = Field(300, ge=1, description="parameters that it looks at")


class Online(Table):
    """The `[online]` table: parameters at which the reduced model is evaluated."""

    parameters: tuple[tuple[float, ...], ...] = Field((), description="one list for each")
    size: int | None = Field(None, ge=1, description="N; that of the basis if left out")
    extrapolate: bool = Field(False, description="allow parameters outside the trained ranges")


class Sweep(Table):
    """The `[sweep]` table: many full and reduced solutions, of which the quantities are kept."""

    samples: int = Field(10000, ge=1, description="random parameters")
    rtol: float = Field(1e-8, gt=0, lt=1e-2, description="of the residual of full solutions")


class Trained(Table):
    """The `[trained]` table: networks trained on full solutions, to compare with."""

    samples: int = Field(1000, ge=2, description="parameters with full solutions to train on")
    modes: int = Field(40, ge=1, description="POD modes of POD-NN")
    points: int = Field(1000, ge=1, description="nodes at which DeepONet is trained")
    pod_nn: PerceptronTable = Field(default_factory=PerceptronTable, description="its size")
    deeponet: Architecture = Field(
        default_factory=lambda: Architecture(width=128, depth=3, basis=64, activation="gelu"),
        description="its size",
    )
    training: Training = Field(
        default_factory=lambda: Training(steps=20000, batch=64, rate=2e-3), description="of both"
    )


class Output(Table):
    """What is written."""

    frames: int = Field(4, ge=0, le=100, description="solutions among the tests that are written")
    fields: bool = Field(True, description="fields for ParaView")
    pictures: bool = Field(True, description="pictures")


class Case(AnyCase, Equation):
    """A case of kind parametric-elliptic."""

    mesh: MeshCase = Field(description="the domain")
    degree: int = Field(1, ge=1, le=3, description="of the finite elements")
    rtol: float = Field(1e-12, gt=0, lt=1e-2, description="of the residual in CG")
    reduced: Reduced = Field(default_factory=Reduced, description="the reduced basis")
    online: Online = Field(default_factory=Online, description="where it is evaluated")
    sweep: Sweep | None = Field(None, description="full and reduced solutions; none if left out")
    trained: Trained | None = Field(None, description="networks to compare with; none if left out")
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _certified(self) -> Case:
        if self.degree_of_a > 1:
            raise ValueError(
                "interpolation: the bounds of a hold for 0 and 1 (more is for solves in Python)"
            )
        if not self.ranges:
            raise ValueError("no parameters: give [parameters] or a diffusion that has its own")
        if self.sweep is not None and not (self.diffusion.affine and self.quantities):
            raise ValueError("sweep: for affine diffusions, and with [[quantities]] to be kept")
        for mu in self.online.parameters:
            if len(mu) != len(self.ranges):
                raise ValueError(
                    f"online.parameters: {len(mu)} values for {len(self.ranges)} parameters "
                    f"({', '.join(self.ranges)})"
                )
        return self


def sample(equation: Equation, number: int, seed: list[int]) -> np.ndarray:
    """Random parameters, shape (number, P): uniform, or the normal law of a log-normal field."""
    rng = np.random.default_rng(seed)
    ranges = np.array(list(equation.ranges.values())).reshape(-1, 2)
    mu = rng.uniform(ranges[:, 0], ranges[:, 1], (number, len(ranges)))
    d = equation.diffusion
    if isinstance(d, LogNormal):
        y = rng.standard_normal((number, d.terms))
        while (out := np.abs(y) > d.bound).any():
            y[out] = rng.standard_normal(int(out.sum()))
        mu[:, -d.terms :] = y
    return mu


def run(case: Case, run: object) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.problems.elliptic_run import run_case

    return run_case(case, run)  # type: ignore[arg-type]
