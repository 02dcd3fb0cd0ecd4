"""Targets of a normalising flow: Gaussian mixtures, densities on a grid, samples, pictures.

A target gives its log-density, samples, and the masses of the cells of a grid (d <= 3), which is
all that the construction needs. Smooth ones are Gaussian mixtures: moons and rings are mixtures
along a curve, samples one Gaussian each (kernel density estimate); pictures, expressions and
checkerboards are constant in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator
from scipy.special import gammaln, logsumexp, ndtr

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.problems.data_files import Find, read_picture

# a grid reaches this many standard deviations beyond the means
REACH = 6.0
# centres of the mixture along a curve
CENTRES = 48
# most centres of a kernel density estimate, and points that log-densities take at a time
MOST_CENTRES, CHUNK = 20000, 4_000_000
# radii, in units of the target's size, between which tails are read off a density
FAR = (1e4, 1e5)


class Target(Protocol):
    """A probability law on R^d."""

    @property
    def dim(self) -> int:
        """The dimension d."""

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log-density at x, shape (n, d) -> (n,); -inf where there is none."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Independent samples, shape (n, d)."""

    def box(self) -> np.ndarray:
        """Where all but a negligible mass is, shape (d, 2)."""

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """Masses of the cells of a tensor grid."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with diagonal covariance: weights (m,), means and widths (m, d)."""

    weights: np.ndarray
    means: np.ndarray
    widths: np.ndarray

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.means.shape[1]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """See `Target`."""
        out = np.empty(len(x))
        step = max(1, CHUNK // (len(self.weights) * self.dim))
        constant = (
            np.log(self.weights / self.weights.sum())
            - np.log(self.widths).sum(axis=1)
            - 0.5 * self.dim * np.log(2 * np.pi)
        )
        for i in range(0, len(x), step):
            z = (x[i : i + step, None] - self.means) / self.widths
            out[i : i + step] = logsumexp(constant - 0.5 * (z**2).sum(axis=2), axis=1)
        return out

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """See `Target`."""
        k = rng.choice(len(self.weights), n, p=self.weights / self.weights.sum())
        return self.means[k] + self.widths[k] * rng.standard_normal((n, self.dim))

    def box(self) -> np.ndarray:
        """See `Target`."""
        return np.stack(
            [
                (self.means - REACH * self.widths).min(axis=0),
                (self.means + REACH * self.widths).max(axis=0),
            ],
            axis=1,
        )

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """See `Target`."""
        factors = []
        for i, e in enumerate(edges):
            z = (e - self.means[:, i : i + 1]) / self.widths[:, i : i + 1]
            upper = np.where(z[:, :-1] > 0, ndtr(-z[:, :-1]) - ndtr(-z[:, 1:]), np.diff(ndtr(z)))
            factors.append(upper)
        factors[0] = factors[0] * (self.weights / self.weights.sum())[:, None]
        letters = "abc"[: len(edges)]
        return np.einsum(",".join("m" + c for c in letters) + "->" + letters, *factors)


@dataclass(frozen=True)
class Cells:
    """A density that is constant in the cells of a tensor grid: edges (d arrays), masses."""

    edges: tuple[np.ndarray, ...]
    mass: np.ndarray

    @property
    def dim(self) -> int:
        """The dimension d."""
        return len(self.edges)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """See `Target`."""
        volume = self.mass.sum()
        place, inside = [], np.ones(len(x), dtype=bool)
        for i, e in enumerate(self.edges):
            k = np.searchsorted(e, x[:, i], side="right") - 1
            inside &= (k >= 0) & (k < len(e) - 1)
            place.append(np.clip(k, 0, len(e) - 2))
        with np.errstate(divide="ignore"):
            size = sum(np.log(np.diff(e))[k] for e, k in zip(self.edges, place, strict=True))
            out = np.log(self.mass[tuple(place)] / volume) - size
        return np.where(inside, out, -np.inf)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """See `Target`."""
        p = self.mass.ravel() / self.mass.sum()
        k = np.unravel_index(rng.choice(len(p), n, p=p), self.mass.shape)
        return np.stack(
            [e[i] + (e[i + 1] - e[i]) * rng.random(n) for e, i in zip(self.edges, k, strict=True)],
            axis=1,
        )

    def box(self) -> np.ndarray:
        """See `Target`."""
        return np.array([[e[0], e[-1]] for e in self.edges])

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """See `Target`; cells of the two grids are cut by each other."""
        out = self.mass / self.mass.sum()
        for i, (mine, wanted) in enumerate(zip(self.edges, edges, strict=True)):
            low = np.maximum(mine[:-1, None], wanted[None, :-1])
            high = np.minimum(mine[1:, None], wanted[None, 1:])
            share = np.maximum(high - low, 0.0) / np.diff(mine)[:, None]
            out = np.moveaxis(np.tensordot(out, share, axes=(i, 0)), -1, i)
        return out


@dataclass(frozen=True)
class Student:
    """The isotropic Student t law with nu degrees of freedom."""

    nu: float
    dim: int

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """See `Target`."""
        nu, d = self.nu, self.dim
        c = gammaln((nu + d) / 2) - gammaln(nu / 2) - d / 2 * np.log(nu * np.pi)
        return c - (nu + d) / 2 * np.log1p((x**2).sum(axis=1) / nu)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """See `Target`."""
        z = rng.standard_normal((n, self.dim))
        return z / np.sqrt(rng.chisquare(self.nu, (n, 1)) / self.nu)

    def box(self) -> np.ndarray:
        """See `Target`: all but about 1e-6 on each side."""
        reach = max(10.0, np.sqrt(self.nu) * 10 ** (6 / self.nu))
        return np.tile([-min(reach, 1e4), min(reach, 1e4)], (self.dim, 1))

    def masses(self, edges: Sequence[np.ndarray]) -> np.ndarray:
        """See `Target`; by the density at midpoints."""
        centre = np.stack(
            np.meshgrid(*[0.5 * (e[1:] + e[:-1]) for e in edges], indexing="ij"), axis=-1
        )
        size = np.ones(())
        for e in edges:
            size = np.multiply.outer(size, np.diff(e))
        return np.exp(self.log_density(centre.reshape(-1, self.dim))).reshape(size.shape) * size


# ---------------------------------------------------------------- the tail condition


def refuse_heavy_tails(target: Target, samples: np.ndarray | None, seed: int = 0) -> float:
    """The tail index alpha, P(|x| > r) ~ r^-alpha, estimated; inf for light tails.

    The flow is affine at infinity, so that with a Gaussian base KL(rho_* | rho_N) is finite only
    where rho_* has a finite second moment, alpha > 2 (the relative tail decay of
    Alvarez-Lopez et al., 2025).

    Args:
        target: its density is read at large radii.
        samples: of a target that is known by samples, shape (n, d): Hill's estimator then.
        seed: of directions.

    Raises:
        CaseError: alpha <= 2.
    """
    if samples is not None:
        alpha, error = hill(samples)
        how = f"Hill's estimator on the {len(samples)} samples: {alpha:.2f} +- {error:.2f}"
    else:
        rng = np.random.default_rng(seed)
        direction = rng.standard_normal((64, target.dim))
        direction /= np.linalg.norm(direction, axis=1)[:, None]
        size = float(np.abs(target.box()).max()) if not isinstance(target, Student) else 1.0
        logs = [target.log_density(r * size * direction) for r in FAR]
        finite = np.isfinite(logs[1])
        alpha = np.inf
        if finite.any():
            slope = (logs[1] - logs[0])[finite] / np.log(FAR[1] / FAR[0])
            alpha = float(-slope.max() - target.dim)
        how = f"its density at radii {FAR[0] * size:.3g} to {FAR[1] * size:.3g}"
    if alpha <= 2.0:
        raise CaseError(
            "target: its tails are too heavy: P(|x| > r) falls like r^-alpha with alpha = "
            f"{alpha:.3g} <= 2 (from {how}). The flow is affine at infinity: with a Gaussian base "
            "the relative entropy is infinite whatever the controls. Remedy: cut or transform the "
            "target, or start from a heavier-tailed base"
        )
    return alpha


def hill(samples: np.ndarray) -> tuple[float, float]:
    """Hill's estimate of the tail index from the sqrt(n) largest radii, and its standard error."""
    r = np.sort(np.linalg.norm(samples - np.median(samples, axis=0), axis=1))[::-1]
    k = max(10, int(np.sqrt(len(r))))
    if len(r) <= k + 1 or r[k] <= 0:
        return np.inf, np.inf
    mean = float(np.log(r[:k] / r[k]).mean())
    alpha = 1 / mean if mean > 0 else np.inf
    return alpha, alpha / np.sqrt(k)


# ---------------------------------------------------------------- tables of a case


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


def kernel_estimate(samples: np.ndarray, bandwidth: float | None = None) -> Mixture:
    """One Gaussian a sample; its widths are the bandwidth times the standard deviations."""
    n, d = samples.shape
    if bandwidth is None:
        bandwidth = (4 / (n * (d + 2))) ** (1 / (d + 4))
    widths = bandwidth * samples.std(axis=0)
    return Mixture(np.ones(n), samples, np.tile(widths, (n, 1)))


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
