"""Cases of kind strassen-network: the solver network of a parametric elliptic problem.

The equation, its mesh and its reduced basis are those of kind parametric-elliptic; the network maps
mu to the finite-element solution, built weight by weight from Strassen's products.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fem_apps.case import Table
from fem_apps.problems.elliptic_case import Case as EllipticCase
from fem_apps.problems.elliptic_case import Reduced


class NetworkTable(Table):
    """The `[network]` table."""

    epsilon: float = Field(
        1e-4,
        gt=0,
        lt=1,
        description="accuracy |u_net - u_h|_X / |u_h|_X: the basis by its bound over the training "
        "parameters, the network for all",
    )
    activation: Literal["relu", "square", "relu2"] = Field(
        "relu", description="of the hidden layers"
    )
    form: Literal["inverse", "applied"] = Field(
        "inverse", description="the inverse times f, or its factors applied to f one by one"
    )
    levels: int | None = Field(
        None, ge=0, le=6, description="levels of Strassen; by default those with fewest weights"
    )
    basis_share: float = Field(
        0.8, gt=0, lt=1, description="share of epsilon that the reduced basis may use"
    )


class Case(EllipticCase):
    """A case of kind strassen-network."""

    reduced: Reduced = Field(
        default_factory=lambda: Reduced(size=60, relative=True),
        description="the reduced basis; its size is the largest that epsilon may ask for",
    )
    network: NetworkTable = Field(default_factory=NetworkTable, description="the network")

    @model_validator(mode="after")
    def _only_its_own(self) -> Case:
        if self.trained is not None or self.online.parameters:
            raise ValueError(
                "tables trained and online are for kind = 'parametric-elliptic': this one tests "
                "its network on reduced.test parameters, and on those of [sweep]"
            )
        return self


def run(case: Case, run: object) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.surrogates.strassen_run import run_case

    return run_case(case, run)  # type: ignore[arg-type]
