"""Interaction kernels from noisy data of a gradient flow: which W explains what was seen.

    d_t mu = div( mu grad( H'(mu) + V + W*mu ) ),   W(x) = sum_j c_j psi_j(|x|), few c_j not 0

Densities or particle positions, noisy and sparse in time, on the line or in the plane. The
quadratic error functional (`interaction_kernels_functional`, `interaction_kernels_pairs`)
over a dictionary or B-splines (`_atoms`); sparse solvers and model selection (`_sparse`,
`_selection`); on the line the estimate is sharpened by whole trajectories (`_trajectories`)
unless these fit worse than their noise allows (`_misfit`); then the equation with the estimate is
solved and compared with data and truth (`_verify`). After Carrillo,
Estrada-Rodriguez, Mikolas & Tang (2024, arXiv:2402.06355) and Lang & Lu (2020, arXiv:2010.15694).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.fem.expressions import ExpressionText
from fem_apps.inverse.interaction_kernels_atoms import Family
from fem_apps.inverse.interaction_kernels_data import Observation
from fem_apps.inverse.interaction_kernels_sources import Source
from fem_apps.meshing import MeshCase
from fem_apps.problems.aggregation_diffusion import Potential
from fem_apps.problems.free_energy import Diffusion


class Unknown(Table):
    """What is estimated besides W."""

    potentials: tuple[ExpressionText, ...] = Field(
        (), description="terms of V to be estimated, each an expression of x, y"
    )
    diffusion: tuple[float, ...] = Field(
        (), description="exponents m of terms sigma rho^m/(m - 1) whose sigma is to be estimated"
    )


class SolverCase(Table):
    """How the coefficients are found."""

    method: Literal[
        "auto", "best-subset", "partinv", "subspace-pursuit", "stlsq", "lasso", "tikhonov"
    ] = Field(
        "auto",
        description="auto: all of the sparse solvers, support size by model selection; the others "
        "need size; tikhonov: for splines, lambda by rule",
    )
    size: int | None = Field(None, ge=1, description="size of the support; None: model selection")
    largest: int = Field(4, ge=1, le=12, description="limit of the support")
    kept: int = Field(8, ge=1, description="partinv: columns kept; then the best subset of them")
    threshold: float = Field(0.1, gt=0, lt=1, description="stlsq: relative threshold")
    seminorm: Literal["identity", "L2", "H1", "RKHS"] = Field(
        "H1",
        description="tikhonov: what is kept small: the coefficients, W' at the pair distances that "
        "the data have, W'', or W' in the data-adaptive reproducing kernel space",
    )
    rule: Literal["l-curve", "gcv", "quasi-optimal"] = Field(
        "l-curve", description="tikhonov: of lambda; gcv: generalised cross-validation"
    )
    window: Literal["auto", "ends", "bump"] = Field(
        "auto", description="of the functional in time; auto: bump where there is noise"
    )
    noise: float | None = Field(
        None, ge=0, lt=1, description="relative noise of the densities; None: estimated"
    )
    debias: bool = Field(True, description="remove the expectation of the noise from A and b")
    trajectories: bool | None = Field(
        None,
        description="sharpen by the likelihood of whole trajectories; None: on the line, for a "
        "dictionary and known diffusion, where they fit as well as the noise allows",
    )
    resamples: int | None = Field(
        None,
        ge=0,
        le=2000,
        description="for stability and band; None: 200 for a likelihood, 8 for halves of "
        "particles, else 20",
    )


class Verify(Table):
    """What the estimate is checked against."""

    initial: ExpressionText | None = Field(
        None, description="a new initial datum: truth and estimate are both solved from it"
    )
    horizon: float = Field(
        1.0, ge=1, description="solve up to this many times the data's last time"
    )
    times: int = Field(21, ge=2, le=2001, description="times of the comparison")
    tolerance: float = Field(1e-4, gt=0, description="local error of a step of the solver")


class Output(Table):
    """What is written."""

    radius: float | None = Field(
        None,
        gt=0,
        description="end of the radii of kernel errors; None: 99 % of the pair distances",
    )
    frames: int = Field(20, ge=1, le=1000, description="times of the fields that are written")
    fields: bool = Field(True, description="fields for ParaView: data and estimate")
    pictures: bool = Field(True, description="the report's pictures")


class Case(AnyCase):
    """A case of kind kernel-inference."""

    mesh: MeshCase = Field(description="the domain")
    data: Source = Field(description="what was seen")
    observation: Observation = Field(
        default_factory=Observation, description="noise and downsampling put on densities"
    )
    dictionary: tuple[Family, ...] = Field(min_length=1, description="the hypothesis space of W")
    diffusion: tuple[Diffusion, ...] = Field((), description="known terms of H")
    potential: Potential | None = Field(None, description="known V")
    unknown: Unknown = Field(default_factory=Unknown, description="estimated besides W")
    solver: SolverCase = Field(default_factory=SolverCase, description="how it is estimated")
    verify: Verify = Field(default_factory=Verify, description="verification by simulation")
    output: Output = Field(default_factory=Output, description="what is written")


def run(case: Case, run: object) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.inverse.interaction_kernels_run import run_case

    return run_case(case, run)  # type: ignore[arg-type]
