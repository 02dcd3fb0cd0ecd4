"""The equation of a case: coefficients, sources, boundary conditions, parameters with their ranges.

    -div(a(x; mu) grad u) + c u = f,   u = g,   a d_n u = h,   or   a d_n u + r u = h.

Nothing here imports DOLFINx.
"""

from __future__ import annotations

from functools import cached_property
from types import ModuleType
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from fem_apps.case import Table
from fem_apps.fem.expressions import COORDINATES, parse
from fem_apps.problems.elliptic_coefficients import (
    Blocks,
    Diffusion,
    Pointwise,
    Range,
    Term,
    Terms,
    of_parameters,
)


class Boundary(Table):
    """A condition on one named part of the boundary.

    dirichlet: u = value; neumann: a d_n u = flux; robin: a d_n u + coefficient u = flux.
    """

    on: str = Field(description="name of the part; 'boundary' is all of it")
    type: Literal["dirichlet", "neumann", "robin"] = Field("dirichlet", description="which one")
    value: str = Field("0", description="dirichlet: u, an expression of x, y, z")
    flux: tuple[Term, ...] = Field((), description="neumann, robin: the sum of these; 0 if none")
    coefficient: tuple[Term, ...] = Field((), description="robin: at least 0, the sum of these")

    @field_validator("value", mode="before")
    @classmethod
    def _text(cls, v: Any) -> Any:
        return str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v

    @model_validator(mode="after")
    def _fits(self) -> Boundary:
        parse(self.value, COORDINATES)
        if self.type == "dirichlet" and (self.flux or self.coefficient):
            raise ValueError("a dirichlet condition has a value, no flux and no coefficient")
        if self.type == "robin" and not self.coefficient:
            raise ValueError("a robin condition needs a coefficient")
        if self.type == "neumann" and self.coefficient:
            raise ValueError("a neumann condition has no coefficient; type = 'robin' has one")
        return self


class Quantity(Table):
    """A quantity of interest: the integral of weight * u over the domain or one of its parts."""

    name: str = Field(description="its name in tables")
    weight: str = Field("1", description="expression of x, y, z")
    on: str | None = Field(None, description="a part of the domain or of its boundary")


class Equation(Table):
    """-div(a(x; mu) grad u) + c u = f with its boundary conditions and parameters.

    Attributes:
        parameters: ranges of the parameters that expressions may use.
        diffusion: a; `reaction`: c; `source`: f; `boundary`: conditions, u = 0 if none.
    """

    parameters: dict[str, Range] = Field({}, description="name = [low, high] of each parameter")
    diffusion: Diffusion = Field(default_factory=Blocks, description="a, positive")
    interpolation: Literal[0, 1, 2, 3] | None = Field(
        None, description="degree of a's interpolant; 0: constant on cells; by default the family's"
    )
    reaction: tuple[Term, ...] = Field(
        (), description="c, the sum of these; values at least 0, theta of any sign"
    )
    source: tuple[Term, ...] = Field((Term(),), description="f, the sum of these")
    boundary: tuple[Boundary, ...] = Field((), description="conditions; if none, u = 0 everywhere")
    quantities: tuple[Quantity, ...] = Field((), description="quantities of interest")

    @model_validator(mode="after")
    def _names(self) -> Equation:
        clash = set(self.parameters) & (set(self.diffusion.own()) | {*COORDINATES, "t", "pi", "e"})
        if clash:
            raise ValueError(f"parameters {sorted(clash)} have names that are taken")
        for name, (low, high) in self.ranges.items():
            if not low <= high:
                raise ValueError(f"parameter {name}: the range [{low:g}, {high:g}] is empty")
        names = tuple(self.ranges)
        for t in self.linear_terms():
            parse(t.theta, names)
        if isinstance(self.diffusion, Terms):
            for t in self.diffusion.terms:
                parse(t.theta, names)
        if isinstance(self.diffusion, Pointwise):
            parse(self.diffusion.value, (*COORDINATES, *names))
        return self

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """All parameters: the case's own, then the family's."""
        return {**self.parameters, **self.diffusion.own()}

    @property
    def degree_of_a(self) -> int:
        """Degree of the interpolant of a."""
        return self.diffusion.degree if self.interpolation is None else self.interpolation

    def linear_terms(self) -> list[Term]:
        """Every term but those of a, in the order: c, Robin c, f, fluxes."""
        robin = [t for b in self.boundary for t in b.coefficient]
        return [*self.reaction, *robin, *self.source, *(t for b in self.boundary for t in b.flux)]

    def named(self, mu: Any) -> dict[str, Any]:
        """An array of parameters, shape (..., P), by name."""
        return {k: mu[..., i] for i, k in enumerate(self.ranges)}

    def theta_operator(self, mu: Any, xp: ModuleType = np) -> Any:
        """Theta of reaction and Robin terms, shape (..., R)."""
        robin = [t for b in self.boundary for t in b.coefficient]
        return self._stack([*self.reaction, *robin], mu, xp)

    def theta_load(self, mu: Any, xp: ModuleType = np) -> Any:
        """Theta of source and flux terms, shape (..., F)."""
        return self._stack([*self.source, *(t for b in self.boundary for t in b.flux)], mu, xp)

    def _stack(self, terms: list[Term], mu: Any, xp: ModuleType) -> Any:
        if not terms:
            return xp.zeros((*mu.shape[:-1], 0))
        named = self.named(mu) or {"": xp.zeros(mu.shape[:-1])}
        columns = [
            of_parameters(t.theta, named, xp)
            if self.ranges
            else xp.full(mu.shape[:-1], float(parse(t.theta, ()).numpy(np.empty((0, 1)))[0]))
            for t in terms
        ]
        return xp.stack(columns, axis=-1)
