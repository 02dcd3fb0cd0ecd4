"""Networks that map the initial state of a wave or heat equation to its null controls.

The set-valued map is U(y0, y1) = {v : y(T) = y_t(T) = 0}: the closed affine set v_0 + N of
`null_control_set`, whose directions N do not depend on the data. U is unbounded, so Hausdorff
distances are those of a bounded part:

    segment    {v_0 + c n : |c| <= radius}: a linear function of the data, exactly;
    amplitude  {v in U : max |v| <= amplitude times the least possible}: not a linear one.

A DeepONet learns a selection (one head), a SIMONet several at once; the convex hull of the heads
approximates the set (Cellina's theorem asks for convex values; Michael's gives continuous
selections). Garcia-Cervera, Kessler, Pedregal, Periago (2024). Linear least squares on the same
data stands next to every network.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.control import null_control
from fem_apps.control.null_control import Control, Time
from fem_apps.fem.expressions import ExpressionText
from fem_apps.fem.split import Mass
from fem_apps.meshing import MeshCase
from fem_apps.surrogates.deeponet import Architecture
from fem_apps.surrogates.training import Training

HeadName = Literal["l2", "l1", "linf", "smooth", "low", "high"]


class Fields(Table):
    """Gaussian random fields of covariance exp(-(x - x')^2/(2 length^2)), by Karhunen-Loeve modes.

    As many modes as hold `energy` of the variance: at 0.99 these are 3, 5, 8, 14, 28 for lengths
    0.5, 0.25, ..., 0.03125.
    """

    length: float = Field(0.25, gt=0, description="correlation length of y0")
    velocity_length: float | None = Field(None, gt=0, description="of y1; that of y0 if left out")
    energy: float = Field(0.99, gt=0, lt=1, description="share of the variance that is kept")
    sensors: int = Field(101, ge=2, description="points at which a network sees y0 and y1, each")


class Samples(Table):
    """How many random data."""

    stages: tuple[int, ...] = Field(
        (100, 500, 1000), description="samples of each training stage, the weights go on"
    )
    test: int = Field(200, ge=1, description="unseen samples")
    closed_loop: int = Field(20, ge=1, description="of these, applied to the finite elements")

    @model_validator(mode="after")
    def _growing(self) -> Samples:
        if not self.stages or list(self.stages) != sorted(set(self.stages)) or self.stages[0] < 2:
            raise ValueError("stages: growing numbers of samples, at least 2")
        return self


class Target(Table):
    """What the network approximates."""

    set: Literal["segment", "amplitude", "none"] = Field(
        "segment", description="bounded part of the set; none: the heads are selections only"
    )
    radius: float = Field(1.0, gt=0, description="segment: half its length in L2")
    amplitude: float = Field(
        1.5, gt=1, description="amplitude: bound of |v| over the least possible one"
    )
    heads: tuple[HeadName, ...] = Field(
        ("low", "high"),
        description="members that the heads learn: ends of the set, or best in some sense",
    )
    control_step: int = Field(2, ge=1, description="steps of the equation in one of the control")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="what counts as a free direction")


class Network(Architecture):
    """Size and loss of the network."""

    loss: Literal["labelled", "chamfer"] = Field(
        "labelled", description="chamfer: no labels, members of the set drawn at random"
    )
    members: int = Field(8, ge=2, description="members drawn from each set, for chamfer")


class Output(Table):
    """What is written."""

    pictures: bool = Field(True, description="pictures")


class Case(AnyCase):
    """A case of kind set-valued-control; the equation is as in null-control, on an interval."""

    equation: Literal["heat", "wave"] = Field("wave", description="heat or wave")
    mesh: MeshCase = Field(description="the domain, an interval")
    coefficient: ExpressionText = Field("1", description="kappa or c^2")
    reaction: ExpressionText = Field("0", description="r(x)")
    control: Control = Field(description="where the control acts")
    time: Time = Field(description="T and the steps")
    mass: Mass = Field("consistent", description="mass matrix: consistent, lumped or mixed")
    fields: Fields = Field(default_factory=Fields, description="the random initial states")
    samples: Samples = Field(default_factory=Samples, description="how many")
    target: Target = Field(default_factory=Target, description="what is learned")
    network: Network = Field(default_factory=Network, description="the network")
    training: Training = Field(default_factory=Training, description="of each stage")
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _fits(self) -> Case:
        ends = {"low", "high"} & set(self.target.heads)
        if self.target.set == "none" and ends:
            raise ValueError("target.heads: low and high are the ends of a target.set, give one")
        if self.network.loss == "chamfer" and self.target.set == "none":
            raise ValueError("network.loss = 'chamfer' draws members of a target.set, give one")
        self.null_control()
        return self

    def null_control(self) -> null_control.Case:
        """The control problem as a case of its own."""
        return null_control.Case(
            kind="null-control",
            equation=self.equation,
            mesh=self.mesh,
            coefficient=self.coefficient,
            reaction=self.reaction,
            control=self.control,
            initial=null_control.Initial(y0="0"),
            time=self.time,
            mass=self.mass,
            folder=self.folder,
        )


def run(case: Case, run: object) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.control.set_valued_run import run_case

    return run_case(case, run)  # type: ignore[arg-type]
