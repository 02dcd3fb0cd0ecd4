"""Hypothesis spaces for an interaction potential W(x) = psi(|x|): dictionaries and B-splines.

An atom is a radial potential psi with psi(0) = 0 wherever that is finite (W is defined up to a
constant), its derivative psi', and the kernel of the forward problem that has the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.interpolate import BSpline

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import parse
from fem_apps.fem.kernels import Cosine, Exponential, Gaussian, Kernel, Log, Power, Tabulated

Radial = Callable[[np.ndarray], np.ndarray]

# Points of a table that stands for an atom without a kernel of its own.
TABLE = 400


@dataclass(frozen=True)
class Atom:
    """One radial potential of a hypothesis space.

    Attributes:
        name: how the case and the report call it.
        psi: r -> psi(r), psi(0) = 0 unless singular.
        slope: r -> psi'(r); 0 at r = 0, as the force of a point on itself.
        kernel: (strength, dimension, greatest distance) -> the forward problem's table.
        end: radius up to which a spline's space reaches; 0 for others.
    """

    name: str
    psi: Radial
    slope: Radial
    kernel: Callable[[float, int, float], Kernel]
    end: float = 0.0


class Powers(Table):
    """|x|^p / p."""

    type: Literal["power"] = "power"
    exponents: tuple[float, ...] = Field(min_length=1, description="p, each not 0, above -dim + 1")

    @model_validator(mode="after")
    def _not_zero(self) -> Powers:
        if 0 in self.exponents:
            raise ValueError("exponent 0 is constant; its limit is type = 'log'")
        return self

    def atoms(self) -> list[Atom]:
        """One atom for each exponent."""
        return [
            Atom(
                f"power({p:g})",
                lambda r, p=p: _masked(r, p, lambda s: s**p / p),  # type: ignore[misc]
                lambda r, p=p: _masked(r, p - 1, lambda s: s ** (p - 1)),  # type: ignore[misc]
                lambda a, d, R, p=p: Power(exponent=p, strength=a),  # type: ignore[misc]
            )
            for p in self.exponents
        ]


class Cosines(Table):
    """cos(w |x|) - 1."""

    type: Literal["cosine"] = "cosine"
    frequencies: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="w")

    def atoms(self) -> list[Atom]:
        """One atom for each frequency."""
        return [
            Atom(
                f"cosine({w:g})",
                lambda r, w=w: np.cos(w * r) - 1,  # type: ignore[misc]
                lambda r, w=w: -w * np.sin(w * r),  # type: ignore[misc]
                lambda a, d, R, w=w: (  # type: ignore[misc]
                    Cosine(wave_vector=(w,), strength=a)
                    if d == 1
                    else _table(lambda r: a * (np.cos(w * r) - 1), R)
                ),
            )
            for w in self.frequencies
        ]


class Gaussians(Table):
    """1 - exp(-|x|^2 / (2 s^2))."""

    type: Literal["gaussian"] = "gaussian"
    widths: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="s")

    def atoms(self) -> list[Atom]:
        """One atom for each width."""
        return [
            Atom(
                f"gaussian({s:g})",
                lambda r, s=s: -np.expm1(-(r**2) / (2 * s**2)),  # type: ignore[misc]
                lambda r, s=s: r / s**2 * np.exp(-(r**2) / (2 * s**2)),  # type: ignore[misc]
                lambda a, d, R, s=s: Gaussian(width=s, strength=-a),  # type: ignore[misc]
            )
            for s in self.widths
        ]


class Exponentials(Table):
    """1 - exp(-|x| / l)."""

    type: Literal["exponential"] = "exponential"
    lengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="l")

    def atoms(self) -> list[Atom]:
        """One atom for each length."""
        return [
            Atom(
                f"exponential({l:g})",
                lambda r, l=l: -np.expm1(-r / l),  # type: ignore[misc]
                lambda r, l=l: np.where(r > 0, np.exp(-r / l) / l, 0.0),  # type: ignore[misc]
                lambda a, d, R, l=l: Exponential(length=l, strength=-a),  # type: ignore[misc]
            )
            for l in self.lengths
        ]


class Morses(Table):
    """C_r exp(-|x|/l_r) - C_a exp(-|x|/l_a), shifted to 0 at 0; an atom for each pair."""

    type: Literal["morse"] = "morse"
    repulsion: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="l_r")
    attraction: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="l_a")
    ratio: float = Field(2.0, gt=0, description="C_r / C_a, with C_a = 1")

    def atoms(self) -> list[Atom]:
        """One atom for each pair."""
        out = []
        for lr in self.repulsion:
            for la in self.attraction:
                C = self.ratio

                def psi(r: np.ndarray, lr: float = lr, la: float = la, C: float = C) -> np.ndarray:
                    return C * np.expm1(-r / lr) - np.expm1(-r / la)

                def slope(
                    r: np.ndarray, lr: float = lr, la: float = la, C: float = C
                ) -> np.ndarray:
                    f = -C / lr * np.exp(-r / lr) + np.exp(-r / la) / la
                    return np.where(r > 0, f, 0.0)

                out.append(
                    Atom(
                        f"morse({lr:g},{la:g})",
                        psi,
                        slope,
                        lambda a, d, R, psi=psi: _table(lambda r: a * psi(r), R),  # type: ignore[misc]
                    )
                )
        return out


class Logarithm(Table):
    """log |x| (singular: no value at 0)."""

    type: Literal["log"] = "log"

    def atoms(self) -> list[Atom]:
        """The atom."""
        return [
            Atom(
                "log",
                lambda r: _masked(r, -1, np.log),
                lambda r: _masked(r, -1, lambda s: 1 / s),
                lambda a, d, R: Log(strength=a),
            )
        ]


class Splines(Table):
    """B-splines for psi'(r) on [0, r_max], psi by integration; 0 force beyond r_max."""

    type: Literal["splines"] = "splines"
    count: Annotated[int, Field(ge=2, le=200)] | Literal["data"] = Field(
        12, description="number of basis functions; data: from the spacing of the data's nodes"
    )
    smoothness: float | None = Field(
        None,
        gt=0,
        description="count = data: derivatives s that the force has in L2 (0.5 for a jump); "
        "None: degree + 1",
    )
    degree: int = Field(2, ge=0, le=5, description="of psi'")
    r_max: float = Field(gt=0, description="end of the radii")
    odd: bool = Field(
        True,
        description="leave out the one spline that is not 0 at 0: W' of a smooth W is odd; false "
        "for kernels with a kink",
    )
    r_min: float = Field(
        0.0, ge=0, description="begin of the radii: below it the force is constant"
    )

    def resolved(self, spacing: float | None) -> Splines:
        """The splines that data of a spacing h resolve, where count = "data".

        (R/h)^(2/(s + 1)) intervals on the radii of length R: a force of smoothness s is
        approximated to n^-s, n coefficients amplify the functional's error h^2 by n, and both are
        h^(2 s/(s + 1)) then, as the optima of Lang & Lu 2020 (arXiv:2010.15694) suggest. None is
        shorter than 2 h.

        Raises:
            CaseError: no spacing is known.
        """
        if self.count != "data":
            return self
        if spacing is None:
            raise CaseError('splines.count = "data" needs densities on a mesh; give a number')
        cells = (self.r_max - self.r_min) / spacing
        s = self.degree + 1 if self.smoothness is None else self.smoothness
        intervals = int(np.ceil(min(cells ** (2 / (s + 1)), cells / 2)))
        return self.model_copy(update={"count": min(max(intervals + self.degree, 2), 200)})

    def atoms(self) -> list[Atom]:
        """One atom for each B-spline; count is a number (`resolved`)."""
        if self.count == "data":
            raise CaseError('splines.count = "data" needs densities on a mesh; give a number')
        if self.count <= self.degree:
            raise CaseError(f"splines.count = {self.count}: more than the degree are needed")
        inner = np.linspace(self.r_min, self.r_max, self.count - self.degree + 1)
        knots = np.r_[[self.r_min] * self.degree, inner, [self.r_max] * self.degree]
        out = []
        first = int(self.odd and self.r_min == 0 and self.degree > 0)
        for k in range(first, self.count):
            B = BSpline(knots, np.eye(self.count)[k], self.degree)
            I = B.antiderivative()
            start, a, b = float(B(self.r_min)), self.r_min, self.r_max

            def psi(r: np.ndarray, I=I, B=B, start=start, a=a, b=b) -> np.ndarray:  # type: ignore[no-untyped-def]
                inside = I(np.clip(r, a, b)) - I(a)
                return inside + start * np.minimum(r, a)

            def slope(r: np.ndarray, B=B, start=start, a=a, b=b) -> np.ndarray:  # type: ignore[no-untyped-def]
                f = np.where(r < a, start, np.where(r <= b, B(np.clip(r, a, b)), 0.0))
                return np.where(r > 0, f, 0.0)

            out.append(
                Atom(
                    f"spline({k})",
                    psi,
                    slope,
                    lambda c, d, R, psi=psi: _table(lambda r: c * psi(r), R),  # type: ignore[misc]
                    self.r_max,
                )
            )
        return out


Family = Annotated[
    Powers | Cosines | Gaussians | Exponentials | Morses | Logarithm | Splines,
    Field(discriminator="type"),
]


def atoms_of(families: Sequence[Family], dim: int, spacing: float | None = None) -> list[Atom]:
    """All atoms of a dictionary.

    Args:
        families: the case's.
        dim: of space.
        spacing: of the data's nodes, for splines whose number follows it.

    Raises:
        CaseError: an exponent whose force is not integrable in this dimension; a name twice;
            splines that need a spacing without one.
    """
    families = [f.resolved(spacing) if isinstance(f, Splines) else f for f in families]
    atoms = [a for family in families for a in family.atoms()]
    for family in families:
        if isinstance(family, Powers):
            bad = [p for p in family.exponents if p <= 1 - dim]
            if bad:
                raise CaseError(
                    f"dictionary: exponent {bad[0]:g} has a force that is not integrable in "
                    f"{dim} dimension{'s' * (dim > 1)}; p > {1 - dim} is needed"
                )
        if isinstance(family, Logarithm) and dim == 1:
            raise CaseError("dictionary: log has a force that is not integrable on the line")
    names = [a.name for a in atoms]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise CaseError(f"dictionary: {', '.join(twice)} is there twice")
    return atoms


def atom_of_force(text: str, reach: float) -> Atom:
    """The potential of a force phi(r) given as an expression of x = r; psi(0) = 0.

    Args:
        text: phi, an expression of x.
        reach: greatest distance.

    Raises:
        CaseError: the expression is not finite on (0, reach].
    """
    r = np.linspace(0, 1.1 * reach, 20_001)
    force = parse(text)

    def slope(s: np.ndarray) -> np.ndarray:
        s = np.asarray(s, dtype=float)
        flat = force.numpy(np.atleast_2d(np.maximum(s.ravel(), 1e-12)))
        f = np.broadcast_to(flat, (s.size,)).reshape(s.shape)
        return np.where(s > 0, f, 0.0)

    f = slope(np.maximum(r, r[1] / 2))
    if not np.isfinite(f).all():
        raise CaseError(f"data.force = {text!r} is not finite on (0, {reach:.3g}]")
    W = np.concatenate([[0.0], np.cumsum((f[1:] + f[:-1]) / 2 * r[1])])

    def psi(s: np.ndarray) -> np.ndarray:
        return np.interp(s, r, W)

    return Atom("truth", psi, slope, lambda a, d, R: _table(lambda s: a * psi(s), R))


def find_atom(atoms: Sequence[Atom], name: str) -> int:
    """Number of an atom by its name.

    Raises:
        CaseError: no such atom.
    """
    names = [a.name for a in atoms]
    if name not in names:
        raise CaseError(f"no atom {name!r} in the dictionary; it has: {', '.join(names)}")
    return names.index(name)


def potential(atoms: Sequence[Atom], c: np.ndarray) -> tuple[Radial, Radial]:
    """W(r) = sum_j c_j psi_j(r) and W'(r)."""
    used = [(float(c[j]), a) for j, a in enumerate(atoms) if c[j] != 0]

    def W(r: np.ndarray) -> np.ndarray:
        return np.sum([f * a.psi(r) for f, a in used], axis=0) if used else np.zeros_like(r)

    def dW(r: np.ndarray) -> np.ndarray:
        return np.sum([f * a.slope(r) for f, a in used], axis=0) if used else np.zeros_like(r)

    return W, dW


def kernels_of(atoms: Sequence[Atom], c: np.ndarray, dim: int, reach: float) -> list[Kernel]:
    """The forward problem's kernels of sum_j c_j psi_j; `reach` is the greatest distance."""
    return [a.kernel(float(c[j]), dim, reach) for j, a in enumerate(atoms) if c[j] != 0]


def _table(W: Radial, reach: float) -> Tabulated:
    r = np.linspace(0, 1.05 * reach, TABLE)
    return Tabulated(r=tuple(r), W=tuple(np.asarray(W(r), dtype=float)))


def _masked(r: np.ndarray, exponent: float, f: Radial) -> np.ndarray:
    """f(r), 0 at r = 0: a point does not act on itself."""
    r = np.asarray(r, dtype=float)
    if exponent > 0:
        return f(r)
    return np.where(r > 0, f(np.where(r > 0, r, 1.0)), 0.0)
