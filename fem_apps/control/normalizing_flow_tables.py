"""The `[target]` tables of a case, and the targets that they make.

Moons and rings are mixtures along a curve, samples one Gaussian each (kernel density estimate);
pictures, expressions and checkerboards are constant in cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Table
from fem_apps.control.normalizing_flow_targets import (
    Cells,
    Mixture,
    Student,
    Target,
    kernel_estimate,
)
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.problems.data_files import Find, read_picture

# centres of the mixture along a curve
CENTRES = 48
# most centres of a kernel density estimate
MOST_CENTRES = 20000


class Component(Table):
    """One Gaussian."""

    centre: tuple[float, ...] = Field(description="its mean")
    widths: tuple[float, ...] = Field(description="standard deviations, one an axis")
    weight: float = Field(1.0, gt=0, description="relative to the others'")

    @model_validator(mode="after")
    def _fits(self) -> Component:
        if len(self.widths) != len(self.centre) or min(self.widths) <= 0:
            raise ValueError("widths: as many as centre has coordinates, all positive")
        return self


class GaussiansTable(Table):
    """A mixture of Gaussians with diagonal covariances, in any dimension."""

    type: Literal["gaussians"]
    components: tuple[Component, ...] = Field(min_length=1, description="the Gaussians")

    @model_validator(mode="after")
    def _fits(self) -> GaussiansTable:
        if len({len(c.centre) for c in self.components}) > 1:
            raise ValueError("components: all centres have the same number of coordinates")
        return self


class MoonsTable(Table):
    """Two half-circles of radius 1, one in the other's arms, with Gaussian noise."""

    type: Literal["two-moons"]
    noise: float = Field(0.12, ge=0.05, le=1, description="standard deviation across")


class RingTable(Table):
    """A circle with Gaussian noise."""

    type: Literal["ring"]
    radius: float = Field(2.0, gt=0, description="of the circle")
    noise: float = Field(0.25, gt=0, description="standard deviation across; at least radius/12")

    @model_validator(mode="after")
    def _fits(self) -> RingTable:
        if self.noise < self.radius / 12:
            raise ValueError(f"noise = {self.noise:g} must be at least radius/12")
        return self


class CheckerboardTable(Table):
    """Uniform on the dark squares of a board."""

    type: Literal["checkerboard"]
    squares: int = Field(4, ge=2, le=16, description="on each side")
    side: float = Field(4.0, gt=0, description="length of the board, about the origin")


class StudentTable(Table):
    """Student's t: refused where nu <= 2."""

    type: Literal["student"]
    nu: float = Field(gt=0, description="degrees of freedom")
    dim: int = Field(1, ge=1, le=3, description="dimension")


class SamplesTable(Table):
    """Samples: the target is their kernel density estimate."""

    type: Literal["samples"]
    file: Path = Field(description="CSV, one sample a line, an optional header")
    bandwidth: float | None = Field(
        None, gt=0, description="relative to the standard deviations; Silverman's rule if left out"
    )


class PictureTable(Table):
    """A picture: brightness is density, constant in each pixel."""

    type: Literal["picture"]
    file: Path = Field(description="PNG, JPEG, ...")
    invert: bool = Field(False, description="dark is dense")
    side: float = Field(5.0, gt=0, description="length of its longer side, about the origin")
    pixels: int = Field(128, ge=8, le=1024, description="of its longer side, averaged if more")


class ExpressionTable(Table):
    """A density as an expression on a box, taken as constant in the cells of a fine grid."""

    type: Literal["expression"]
    density: ExpressionText = Field(description="of x, y, z, up to a factor")
    low: tuple[float, ...] = Field(min_length=1, max_length=3, description="corner of the box")
    high: tuple[float, ...] = Field(min_length=1, max_length=3, description="the other corner")
    cells: int = Field(400, ge=10, le=2000, description="on each axis")

    @model_validator(mode="after")
    def _fits(self) -> ExpressionTable:
        if len(self.low) != len(self.high) or any(
            a >= b for a, b in zip(self.low, self.high, strict=True)
        ):
            raise ValueError("low and high: as many coordinates, each low below its high")
        if self.cells ** len(self.low) > 4_000_000:
            raise ValueError(f"cells = {self.cells}: more than 4e6 in all; take fewer")
        return self


TargetTable = Annotated[
    GaussiansTable
    | MoonsTable
    | RingTable
    | CheckerboardTable
    | StudentTable
    | SamplesTable
    | PictureTable
    | ExpressionTable,
    Field(discriminator="type"),
]


def make_target(table: TargetTable, find: Find = Path) -> tuple[Target, np.ndarray | None]:
    """The target of a table, and its samples where that is all that is known. On one rank.

    Raises:
        CaseError: a file that cannot be read or does not fit, an expression that is no density.
    """
    if isinstance(table, GaussiansTable):
        c = table.components
        return (
            Mixture(
                np.array([k.weight for k in c]),
                np.array([k.centre for k in c]),
                np.array([k.widths for k in c]),
            ),
            None,
        )
    if isinstance(table, MoonsTable):
        angle = (np.arange(CENTRES) + 0.5) / CENTRES * np.pi
        upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
        means = np.concatenate([upper, -upper])
        return _even(means, table.noise), None
    if isinstance(table, RingTable):
        angle = np.arange(CENTRES) / CENTRES * 2 * np.pi
        return _even(
            table.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), table.noise
        ), None
    if isinstance(table, CheckerboardTable):
        e = np.linspace(-0.5, 0.5, table.squares + 1) * table.side
        i = np.arange(table.squares)
        return Cells((e, e), ((i[:, None] + i) % 2 == 0).astype(float)), None
    if isinstance(table, StudentTable):
        return Student(table.nu, table.dim), None
    if isinstance(table, PictureTable):
        return _of_picture(table, find(table.file)), None
    if isinstance(table, SamplesTable):
        samples = read_samples(find(table.file))
        return kernel_estimate(samples, table.bandwidth), samples
    return _of_expression(table), None


def _even(means: np.ndarray, width: float) -> Mixture:
    return Mixture(np.ones(len(means)), means, np.full(means.shape, width))


def read_samples(path: Path) -> np.ndarray:
    """Samples (n, d) of a CSV file. Raises CaseError."""
    try:
        lines = path.read_text().splitlines()
        first = next((i for i, line in enumerate(lines) if line.strip()), 0)
        skip = first if _is_row(lines[first] if lines else "") else first + 1
        x = np.loadtxt(lines[skip:], delimiter=",", ndmin=2)
    except (OSError, ValueError, UnicodeDecodeError) as e:
        raise CaseError(f"cannot read {path} as samples, one a line: {e}") from None
    if len(x) < 50 or not np.isfinite(x).all() or (x.std(axis=0) == 0).any():
        raise CaseError(
            f"{path}: {len(x)} samples; at least 50 are needed, finite, not all equal on an axis"
        )
    if len(x) > MOST_CENTRES:
        raise CaseError(f"{path}: {len(x)} samples; at most {MOST_CENTRES} are taken here")
    return x


def _is_row(line: str) -> bool:
    try:
        [float(c) for c in line.split(",")]
    except ValueError:
        return False
    return True


def _of_picture(table: PictureTable, path: Path) -> Cells:
    grey = read_picture(path, table.invert).grey
    step = max(1, -(-max(grey.shape) // table.pixels))
    rows, columns = (n // step for n in grey.shape)
    grey = (
        grey[: rows * step, : columns * step].reshape(rows, step, columns, step).mean(axis=(1, 3))
    )
    if grey.sum() <= 0:
        raise CaseError(f"{path}: the picture is empty (try invert = true)")
    unit = table.side / max(rows, columns)
    x = (np.arange(columns + 1) - columns / 2) * unit
    y = (np.arange(rows + 1) - rows / 2) * unit
    return Cells((x, y), grey[::-1].T.copy())


def _of_expression(table: ExpressionTable) -> Cells:
    edges = tuple(
        np.linspace(a, b, table.cells + 1) for a, b in zip(table.low, table.high, strict=True)
    )
    grid = np.meshgrid(*[0.5 * (e[1:] + e[:-1]) for e in edges], indexing="ij")
    values = np.asarray(parse(table.density).numpy(np.stack([g.ravel() for g in grid]), 0.0))
    values = np.broadcast_to(values, (grid[0].size,)).reshape(grid[0].shape)
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise CaseError(
            "target.density: it must be finite and non-negative, and not zero everywhere"
        )
    return Cells(edges, np.array(values, dtype=float))
