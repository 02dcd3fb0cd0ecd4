"""Interaction kernels W(x, y): the `[[interaction]]` tables of a case, and W as a function of r.

The interaction energy is 1/2 iint W(x, y) rho(x) rho(y) with W = strength * w and w as each table
states; r = |x - y| is the Euclidean distance of the space that the nodes lie in (the chord, on a
curve or surface). A negative strength turns repulsion into attraction.

At r = 0: `radial` returns the limit, which is infinite for log r, for r^p with p < 0 and for the
Yukawa kernel in two and three dimensions. A sum over point masses with such a kernel has no
self-interaction term; the convolution mollifies every kernel that is not smooth at the scale of
the node spacing (`fem_apps.fem.convolution_nufft`), which makes that term finite and consistent.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from mpi4py import MPI
from pydantic import Field, model_validator
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.special import k0

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero

Radial = Callable[[np.ndarray], np.ndarray]


class Kernel(Table):
    """What every kernel has."""

    strength: float = Field(
        1.0,
        description="factor of the kernel, any real number; negative turns repulsion to attraction",
    )


class Gaussian(Kernel):
    """w = exp(-r^2 / (2 width^2))."""

    type: Literal["gaussian"] = "gaussian"
    width: float = Field(1.0, gt=0, description="standard deviation, in the mesh's length unit")


class Power(Kernel):
    """w = r^p / p, which attracts for every p; p = 2, 4, ... are polynomials and exact."""

    type: Literal["power"] = "power"
    exponent: float = Field(
        2.0, gt=-3, le=12, description="p, not 0, above minus the space dimension"
    )

    @model_validator(mode="after")
    def _not_zero(self) -> Self:
        if self.exponent == 0:
            raise ValueError("exponent = 0 is constant; the limit of (r^p - 1)/p is type = 'log'")
        return self


class Log(Kernel):
    """w = log r (attracts). The Newtonian kernel of the plane is strength = 1/(2 pi)."""

    type: Literal["log"] = "log"


class Exponential(Kernel):
    """w = exp(-r / length)."""

    type: Literal["exponential"] = "exponential"
    length: float = Field(1.0, gt=0, description="decay length")


class Yukawa(Kernel):
    """Green's function of kappa^2 - Laplace on the whole space.

    exp(-kappa r)/(2 kappa) on the line, K0(kappa r)/(2 pi) in the plane, exp(-kappa r)/(4 pi r) in
    space. With the walls of the mesh instead of the whole space: `screened-poisson`.
    """

    type: Literal["yukawa"] = "yukawa"
    kappa: float = Field(1.0, gt=0, description="inverse screening length")


class Morse(Kernel):
    """w = C_r exp(-r/l_r) - C_a exp(-r/l_a)."""

    type: Literal["morse"] = "morse"
    C_r: float = Field(1.0, description="amplitude of repulsion")
    l_r: float = Field(1.0, gt=0, description="length of repulsion")
    C_a: float = Field(1.0, description="amplitude of attraction")
    l_a: float = Field(2.0, gt=0, description="length of attraction")


class Cosine(Kernel):
    """w = cos(k.(x - y)), with k given as a wave vector or as integers on a torus or circle.

    On a torus with period vectors a_i, `mode` = (n_1, ..., n_d) is the k with k.a_i = 2 pi n_i; a
    single n on a torus of more dimensions is the sum of that mode along each period. On a circle
    about the origin in the plane, `mode` = (n,) is cos(n (angle of x - angle of y)).
    """

    type: Literal["cosine"] = "cosine"
    mode: tuple[int, ...] = Field(
        (), max_length=3, description="integers, on a torus or on a circle"
    )
    wave_vector: tuple[float, ...] = Field(
        (), max_length=3, description="k, radians per length, one entry a dimension"
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.mode) == bool(self.wave_vector):
            raise ValueError("give either mode (integers, on a torus or circle) or wave_vector")
        return self


class VonMises(Kernel):
    """w = exp(beta x.y) for x, y on the unit circle or the unit sphere."""

    type: Literal["von-mises"] = "von-mises"
    beta: float = Field(1.0, ge=-200, le=200, description="inverse temperature; not 0")


class Polynomial(Kernel):
    """w = sum_k c_k r^(2k), k = 0, 1, ..."""

    type: Literal["polynomial"] = "polynomial"
    coefficients: tuple[float, ...] = Field(
        (0.0, 0.5),
        min_length=1,
        max_length=8,
        description="c_0, c_1, c_2, ... of r^0, r^2, r^4, ...",
    )


class Tabulated(Kernel):
    """w(r) through the points (r, W) of a CSV file or of two lists.

    Below the first r (which must not exceed the node spacing) w is constant. The last r must reach
    the diameter of the nodes; on a torus w is zero beyond it and must have died out there. A table
    that goes on until w has died out is resolved best, and only then is its sign class known: cut
    off, it counts as indefinite, which is safe.
    """

    type: Literal["tabulated"] = "tabulated"
    file: Path | None = Field(
        None, description="CSV with columns r, W (a header is allowed), relative to the case"
    )
    r: tuple[float, ...] = Field((), description="distances, increasing; instead of a file")
    W: tuple[float, ...] = Field((), description="values at r")
    interpolation: Literal["cubic", "monotone"] = Field(
        "cubic", description="cubic spline (C2), or monotone between the points (C1)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.file is None) == (not self.r):
            raise ValueError("give either file or the lists r and W")
        if self.r:
            _check_table(np.array(self.r), np.array(self.W))
        return self


class ScreenedPoisson(Kernel):
    """Green's function of kappa^2 - Laplace on the mesh itself, with no flux through its boundary.

    On a surface mesh Laplace is the surface's own (Laplace-Beltrami).
    """

    type: Literal["screened-poisson"] = "screened-poisson"
    kappa: float = Field(1.0, gt=0, description="inverse screening length")


class Poisson(Kernel):
    """Green's function of -Laplace on the mesh, no flux, of mean zero in both arguments."""

    type: Literal["poisson"] = "poisson"


Interaction = Annotated[
    Gaussian
    | Power
    | Log
    | Exponential
    | Yukawa
    | Morse
    | Cosine
    | VonMises
    | Polynomial
    | Tabulated
    | ScreenedPoisson
    | Poisson,
    Field(discriminator="type"),
]


def _check_table(r: np.ndarray, W: np.ndarray) -> None:
    if len(r) != len(W):
        raise ValueError(f"r has {len(r)} entries and W has {len(W)}")
    if len(r) < 4:
        raise ValueError(f"{len(r)} rows are too few for a spline: give at least 4")
    if not (np.isfinite(r).all() and np.isfinite(W).all()):
        raise ValueError("r and W must be finite numbers")
    wrong = np.flatnonzero(np.diff(r) <= 0)
    if len(wrong):
        raise ValueError(
            f"r must increase: row {wrong[0] + 2} has r = {r[wrong[0] + 1]:g} after {r[wrong[0]]:g}"
        )
    if r[0] < 0:
        raise ValueError(f"r must not be negative: the first is {r[0]:g}")


def read_tables(
    comm: MPI.Comm, kernels: Sequence[Kernel], find: Callable[[Path], Path] = Path
) -> list[Kernel]:
    """The kernels with the points of every tabulated one read from its file. Collective.

    Args:
        comm: communicator; rank 0 reads.
        kernels: entries of a case.
        find: gives the path of a file that the case names, such as `Case.file`.

    Raises:
        CaseError: no such file, not numbers, not increasing, not finite.
    """
    return [
        on_rank_zero(comm, _read, k, find) if isinstance(k, Tabulated) and k.file is not None else k
        for k in kernels
    ]


def _read(kernel: Tabulated, find: Callable[[Path], Path]) -> Tabulated:
    assert kernel.file is not None
    path = find(kernel.file)
    try:
        with open(path, newline="", encoding="utf-8") as f:
            rows = [row for row in csv.reader(f) if row and not row[0].lstrip().startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise CaseError(f"interaction.file: cannot read {path}: {e}") from None
    if rows and not _number(rows[0][0]):
        rows = rows[1:]
    points = []
    for i, row in enumerate(rows, 1):
        if len(row) < 2 or not (_number(row[0]) and _number(row[1])):
            raise CaseError(
                f"interaction.file: row {i} of {path} is {','.join(row)!r}: "
                "two numbers r, W are needed"
            )
        points.append((float(row[0]), float(row[1])))
    table = np.array(points).reshape(-1, 2)
    try:
        _check_table(table[:, 0], table[:, 1])
    except ValueError as e:
        raise CaseError(f"interaction.file: {path}: {e}") from None
    return kernel.model_copy(
        update={"file": None, "r": tuple(table[:, 0]), "W": tuple(table[:, 1])}
    )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def radial(kernel: Kernel, dim: int) -> Radial:
    """W(r), strength included, as a function of arrays of distances.

    Args:
        kernel: a kernel that depends on |x - y| alone.
        dim: dimension of the space that the nodes lie in: 1, 2 or 3.

    Returns:
        r (any shape, r >= 0) -> W(r), the limit at r = 0.

    Raises:
        CaseError: the kernel is not a function of distance, or not integrable in this dimension.
    """
    w = _unit(kernel, dim)
    strength = kernel.strength

    def W(r: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return strength * w(np.asarray(r, dtype=float))

    return W


def _unit(kernel: Kernel, dim: int) -> Radial:
    match kernel:
        case Gaussian(width=s):
            return lambda r: np.exp(-(r**2) / (2 * s**2))
        case Power(exponent=p):
            check_integrable(kernel, dim)
            return lambda r: r**p / p
        case Log():
            return np.log
        case Exponential(length=length):
            return lambda r: np.exp(-r / length)
        case Yukawa(kappa=kappa):
            return _yukawa(kappa, dim)
        case Morse(C_r=C_r, l_r=l_r, C_a=C_a, l_a=l_a):
            return lambda r: C_r * np.exp(-r / l_r) - C_a * np.exp(-r / l_a)
        case Polynomial(coefficients=c):
            return lambda r: np.polynomial.polynomial.polyval(r**2, np.array(c))
        case Tabulated():
            return _spline(kernel)
    raise CaseError(
        f"interaction of type {getattr(kernel, 'type', kernel)!r} is not a function of the distance"
    )


def _yukawa(kappa: float, dim: int) -> Radial:
    if dim == 1:
        return lambda r: np.exp(-kappa * r) / (2 * kappa)
    if dim == 2:
        return lambda r: k0(kappa * r) / (2 * np.pi)
    return lambda r: np.exp(-kappa * r) / (4 * np.pi * r)


def _spline(kernel: Tabulated) -> Radial:
    if not kernel.r:
        raise CaseError(
            f"interaction.file = {str(kernel.file)!r} has not been read yet: call read_tables first"
        )
    r, W = np.array(kernel.r), np.array(kernel.W)
    f = CubicSpline(r, W) if kernel.interpolation == "cubic" else PchipInterpolator(r, W)
    end, slope = r[-1], float(f(r[-1], 1))
    # beyond the table only a window that falls to zero sees the kernel; a straight line keeps it C1
    return lambda x: f(np.clip(x, r[0], end)) + slope * np.maximum(x - end, 0)


def check_integrable(kernel: Kernel, dim: int) -> None:
    """Refuse r^p with p <= -dim, which no density can be convolved with.

    Raises:
        CaseError: names the exponent and the bound.
    """
    if isinstance(kernel, Power) and kernel.exponent <= -dim:
        raise CaseError(
            f"interaction.exponent = {kernel.exponent:g}: r^p is not integrable in "
            f"{dim} dimension{'s' * (dim > 1)}; p > {-dim} is needed"
        )
