"""Parametrised diffusion coefficients a(x; mu): tables of a case, and their values.

Affine ones are sums a = sum_q theta_q(mu) a_q(x); the others are given pointwise. Both are replaced
by their interpolant, constant on cells or P1, so that bounds of a are bounds of finitely many
values. Functions take `xp`, numpy or jax.numpy; nothing here imports DOLFINx.

Test cases T1 to T4: Geist, Petersen, Raslan, Schneider, Kutyniok, J. Sci. Comput. 88 (2021), arXiv
2004.12131, with a as their program has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import comb
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from fem_apps.case import Table
from fem_apps.fem.expressions import COORDINATES, Expression, parse

Range = tuple[float, float]
Parameters = Mapping[str, Any]


def of_parameters(text: str, mu: Parameters, xp: ModuleType) -> Any:
    """An expression of parameters alone; broadcast to their common shape."""
    e, shape = parse(text, tuple(mu)), np.shape(next(iter(mu.values()), 0.0))
    flat = {k: xp.reshape(xp.asarray(v), (-1,)) for k, v in mu.items()}
    size = int(np.prod(shape))
    if xp is np:
        return np.broadcast_to(e.numpy(np.empty((0, size)), **flat), (size,)).reshape(shape)
    return xp.broadcast_to(xp.asarray(e.jax(xp.empty((0, size)), **flat), float), (size,)).reshape(
        shape
    )


class Term(Table):
    """One summand theta(mu) * value(x), on the whole domain or on one of its parts."""

    theta: str = Field("1", description="expression of the parameters")
    value: str = Field("1", description="expression of x, y, z")
    on: str | None = Field(None, description="name of the part of the mesh; the whole if left out")

    @field_validator("theta", "value", mode="before")
    @classmethod
    def _text(cls, v: Any) -> Any:
        return str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v

    @field_validator("value")
    @classmethod
    def _of_space(cls, v: str) -> str:
        parse(v, COORDINATES)
        return v


class One:
    """theta of a coefficient that does not depend on parameters."""

    def theta(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """1, shape (..., 1)."""
        return xp.ones((*np.shape(next(iter(mu.values()), 0.0)), 1))


class Coefficient(Table):
    """What every family has; `y1 ... yp` are its own parameters."""

    degree: ClassVar[int] = 0

    @property
    def affine(self) -> bool:
        """Whether a is a sum of theta_q(mu) a_q(x); else it is only known pointwise."""
        return True

    def lower(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """A lower bound of a that holds without looking at the mesh; 0 where none is known."""
        return 0.0

    def own(self) -> dict[str, Range]:
        """Ranges of the parameters that the family adds to the case's own."""
        return {}

    def _y(self, mu: Parameters, xp: ModuleType) -> Any:
        return xp.stack([xp.asarray(mu[k]) for k in self.own()], axis=-1)

    def theta(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """theta_q(mu), shape (..., Q), of an affine family."""
        raise NotImplementedError

    def fields(self, x: np.ndarray) -> np.ndarray:
        """a_q at points x of shape (gdim, n): shape (Q, n), of an affine family."""
        raise NotImplementedError

    def at(self, features: Any, mu: Parameters, xp: ModuleType = np) -> Any:
        """A at points (their coordinates, or what else `features` are), shape (..., n)."""
        return self.theta(mu, xp) @ xp.asarray(self.fields(np.asarray(features)))


class Terms(Coefficient):
    """a = sum_q theta_q(mu) a_q(x), term by term: any affine coefficient."""

    type: Literal["terms"] = "terms"
    terms: tuple[Term, ...] = Field(min_length=1, description="the summands")

    def theta(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """See the base class."""
        return xp.stack([of_parameters(t.theta, mu, xp) for t in self.terms], axis=-1)

    def fields(self, x: np.ndarray) -> np.ndarray:
        """See the base class; the parts `on` which terms stand are the mesh's business."""
        return np.stack([parse(t.value, COORDINATES).numpy(x) for t in self.terms])


class Blocks(Coefficient):
    """Thermal block, chessboard (T2): a = offset + y_k on the k-th block, x fastest."""

    type: Literal["blocks"] = "blocks"
    counts: tuple[int, ...] = Field(
        (2, 2), min_length=1, max_length=3, description="blocks an axis"
    )
    box: tuple[Range, ...] | None = Field(
        None, description="the box that is divided, one range an axis; [0, 1] each if left out"
    )
    offset: float = Field(0.0, ge=0, description="constant added everywhere")
    range: Range = Field((0.1, 1.0), description="of every y_k")

    def own(self) -> dict[str, Range]:
        """See the base class."""
        return {f"y{k + 1}": self.range for k in range(int(np.prod(self.counts)))}

    def theta(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """Offset + y: the indicators of the blocks sum to one."""
        return self.offset + self._y(mu, xp)

    def fields(self, x: np.ndarray) -> np.ndarray:
        """The indicators of the blocks."""
        number, stride = np.zeros(x.shape[1], dtype=int), 1
        for axis, n in enumerate(self.counts):
            low, high = self.box[axis] if self.box else (0.0, 1.0)
            # a node on a block's boundary belongs to the block that begins there, whatever rounding
            place = np.floor((x[axis] - low) / (high - low) * n + 1e-10)
            number += stride * np.clip(place, 0, n - 1).astype(int)
            stride *= n
        return (np.arange(stride)[:, None] == number).astype(float)


class Cookies(Coefficient):
    """Cookies (T3): a = offset + y_k on the k-th disc of an s x s grid of the unit square.

    With a range of radii these are s^2 further parameters, in units of half a cell, and a is not
    affine: only P1 or cellwise interpolation at moving places.
    """

    type: Literal["cookies"] = "cookies"
    s: int = Field(3, ge=1, description="discs an axis")
    offset: float = Field(0.1, gt=0, description="a outside the discs")
    range: Range = Field((0.0, 1.0), description="of every y_k")
    radius: float | Range = Field(0.8, description="in units of 1/(2 s); a range: a parameter each")
    degree: ClassVar[int] = 1

    @property
    def affine(self) -> bool:
        """Not where radii are parameters."""
        return isinstance(self.radius, float)

    def lower(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """The offset, and less where a y_k is negative."""
        return self.offset + xp.minimum(self._y(mu, xp)[..., : self.s**2].min(axis=-1), 0.0)

    def own(self) -> dict[str, Range]:
        """See the base class; radii r1 ... come after y1 ... ."""
        n = self.s**2
        own = {f"y{k + 1}": self.range for k in range(n)}
        if not isinstance(self.radius, float):
            own |= {f"r{k + 1}": self.radius for k in range(n)}
        return own

    def theta(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """(1, y_1, ...)."""
        y = self._y(mu, xp)
        return xp.concatenate([xp.ones_like(y[..., :1]), y], axis=-1)

    def _distance(self, x: Any, xp: ModuleType) -> Any:
        c = (np.arange(self.s) + 0.5) / self.s
        cx, cy = (a.reshape(-1, 1) for a in np.meshgrid(c, c))
        return xp.sqrt((x[0] - cx) ** 2 + (x[1] - cy) ** 2) * 2 * self.s

    def fields(self, x: np.ndarray) -> np.ndarray:
        """The offset, and the indicators of the discs."""
        inside = (self._distance(x, np) <= self.radius).astype(float)
        return np.vstack([np.full((1, x.shape[1]), self.offset), inside])

    def at(self, features: Any, mu: Parameters, xp: ModuleType = np) -> Any:
        """See the base class."""
        if self.affine:
            return super().at(features, mu, xp)
        v, n = self._y(mu, xp), self.s**2
        inside = self._distance(xp.asarray(features), xp) <= v[..., n:, None]
        return self.offset + xp.sum(xp.where(inside, v[..., :n, None], 0.0), axis=-2)


class Trigonometric(Coefficient):
    """Trigonometric polynomials (T1), as coded by Geist et al.

    a = mu + sum_{j<=p} (1 + j^sigma y_j (1 + sin(floor((j+2)/2) pi x) sin(ceil((j+2)/2) pi y)))
    """

    type: Literal["trigonometric"] = "trigonometric"
    p: int = Field(2, ge=1, description="number of terms")
    mu: float = Field(1.0, gt=0, description="constant part")
    sigma: float = Field(-1.0, description="exponent of the weights j^sigma")
    range: Range = Field((0.0, 1.0), description="of every y_j")
    degree: ClassVar[int] = 1

    def own(self) -> dict[str, Range]:
        """See the base class."""
        return {f"y{j}": self.range for j in range(1, self.p + 1)}

    def theta(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """(1, y_1, ...)."""
        y = self._y(mu, xp)
        return xp.concatenate([xp.ones_like(y[..., :1]), y], axis=-1)

    def fields(self, x: np.ndarray) -> np.ndarray:
        """The constant mu + p, and the weighted waves."""
        rows = [np.full(x.shape[1], self.mu + self.p)]
        for j in range(1, self.p + 1):
            wave = np.sin((j + 2) // 2 * np.pi * x[0]) * np.sin((j + 3) // 2 * np.pi * x[1])
            rows.append(float(j) ** self.sigma * (1 + wave))
        return np.stack(rows)


class Polynomial(Coefficient):
    """Clipped polynomials (T4): a = max(mu, sum_{i+j<=k} y_ij x^i y^j), not affine."""

    type: Literal["polynomial"] = "polynomial"
    k: int = Field(2, ge=0, description="degree; (k+2)(k+1)/2 parameters")
    mu: float = Field(0.1, gt=0, description="a is at least this")
    range: Range = Field((-1.0, 1.0), description="of every coefficient")
    degree: ClassVar[int] = 1

    @property
    def affine(self) -> bool:
        """No."""
        return False

    def lower(self, mu: Parameters, xp: ModuleType = np) -> Any:
        """The level at which a is clipped."""
        return self.mu

    def own(self) -> dict[str, Range]:
        """See the base class."""
        return {f"y{j + 1}": self.range for j in range(comb(self.k + 2, 2))}

    def at(self, features: Any, mu: Parameters, xp: ModuleType = np) -> Any:
        """See the base class."""
        powers = [(i, d - i) for d in range(self.k + 1) for i in range(d, -1, -1)]
        monomials = xp.stack([features[0] ** i * features[1] ** j for i, j in powers])
        return xp.maximum(self.mu, self._y(mu, xp) @ monomials)


class LogNormal(Coefficient):
    """Log-normal fields: a = exp(mean + sum_k sqrt(lambda_k) psi_k(x) y_k), y_k standard normal.

    lambda_k, psi_k: largest eigenpairs of the covariance sigma^2 C(|x - x'| / length) in L2, see
    `elliptic_random_field`. Parameters are drawn from the normal law; a reduced model is trusted
    for |y_k| <= `bound`.
    """

    type: Literal["log-normal"] = "log-normal"
    terms: int = Field(6, ge=1, description="terms of the Karhunen-Loeve expansion")
    mean: float = Field(0.0, description="of log a")
    sigma: float = Field(0.5, gt=0, description="standard deviation of log a")
    length: float = Field(0.3, gt=0, description="correlation length, unit of the mesh")
    covariance: Literal["exponential", "gaussian", "matern32"] = Field(
        "gaussian", description="C(r): exp(-r), exp(-r^2/2), (1 + sqrt(3) r) exp(-sqrt(3) r)"
    )
    bound: float = Field(3.0, gt=0, description="parameters lie in [-bound, bound]")
    degree: ClassVar[int] = 1

    @property
    def affine(self) -> bool:
        """No."""
        return False

    def own(self) -> dict[str, Range]:
        """See the base class."""
        return {f"y{k + 1}": (-self.bound, self.bound) for k in range(self.terms)}

    def at(self, features: Any, mu: Parameters, xp: ModuleType = np) -> Any:
        """See the base class; features are sqrt(lambda_k) psi_k, shape (K, n)."""
        return xp.exp(self.mean + self._y(mu, xp) @ features)


class Pointwise(Coefficient):
    """Any coefficient: one expression of x, y, z and the case's parameters, not affine."""

    type: Literal["expression"] = "expression"
    value: str = Field(description="expression of x, y, z and the parameters")
    degree: ClassVar[int] = 1

    @property
    def affine(self) -> bool:
        """No."""
        return False

    def at(self, features: Any, mu: Parameters, xp: ModuleType = np) -> Any:
        """See the base class."""
        e: Expression = self._parsed(tuple(mu))
        columns = {k: xp.asarray(v)[..., None] for k, v in mu.items()}
        if xp is np:
            shape = np.broadcast_shapes(*(np.shape(v) for v in columns.values()), (1,))
            rows = [
                e.numpy(features, **{k: np.broadcast_to(v, shape)[i] for k, v in columns.items()})
                for i in product(*map(range, shape[:-1]))
            ]
            return np.reshape(rows, (*shape[:-1], features.shape[1]))
        return xp.asarray(e.jax(features, **columns))

    def _parsed(self, names: tuple[str, ...]) -> Expression:
        return parse(self.value, (*COORDINATES, *names))


Diffusion = Annotated[
    Terms | Blocks | Cookies | Trigonometric | Polynomial | LogNormal | Pointwise,
    Field(discriminator="type"),
]
