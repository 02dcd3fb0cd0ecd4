"""Initial tokens of a case: given, random, or the set-ups of the literature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import CaseError

ON_SPHERE = 1e-6


class Angles(Table):
    """Tokens on the circle."""

    type: Literal["angles"]
    angles: tuple[float, ...] = Field(min_length=1, description="angles, radians")


class Positions(Table):
    """Tokens as they are."""

    type: Literal["positions"]
    positions: tuple[tuple[float, ...], ...] = Field(min_length=1, description="one row a token")


class FromFile(Table):
    """Tokens of a file."""

    type: Literal["file"]
    file: Path = Field(description="CSV without header, one token a line; relative to the case")


class Uniform(Table):
    """Independent and uniform on the unit sphere."""

    type: Literal["uniform"]
    n: int = Field(ge=1, le=1_000_000, description="number of tokens")
    d: int = Field(ge=2, le=4096, description="dimension")


class Normal(Table):
    """Independent, N(mean, covariance); without layer normalisation."""

    type: Literal["gaussian"]
    n: int = Field(ge=1, le=1_000_000, description="number of tokens")
    mean: tuple[float, ...] = Field((), description="mean; 0 if left out")
    covariance: tuple[tuple[float, ...], ...] = Field(description="covariance, d x d")


class Orthogonal(Table):
    """The first n unit vectors of R^d: all inner products 0."""

    type: Literal["orthogonal"]
    n: int = Field(ge=1, le=4096, description="number of tokens, at most d")
    d: int = Field(ge=1, le=4096, description="dimension")


class Caps(Table):
    """Tokens uniform in angle about given centres, at most `radius` away: separated data."""

    type: Literal["caps"]
    centres: tuple[tuple[float, ...], ...] = Field(min_length=1, description="one row a cap")
    n: int = Field(ge=1, le=100_000, description="tokens a cap")
    radius: float = Field(0.1, ge=0, le=3.1415926, description="largest angle from the centre")


InitialTokens = Annotated[
    Angles | Positions | FromFile | Uniform | Normal | Orthogonal | Caps,
    Field(discriminator="type"),
]


def initial_tokens(
    initial: InitialTokens,
    on_sphere: bool,
    seed: int = 0,
    find: Callable[[Path], Path] = Path,
) -> np.ndarray:
    """The tokens, (n, d).

    Args:
        initial: a table of a case.
        on_sphere: whether they must lie on the unit sphere.
        seed: of random ones.
        find: gives the path of a file that the case names.

    Raises:
        CaseError: rows of unlike length, not finite, off the sphere, not a covariance.
    """
    rng = np.random.default_rng(seed)
    match initial:
        case Angles(angles=angles):
            x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        case Positions(positions=rows):
            x = _rows(rows, "tokens.positions")
        case FromFile(file=file):
            path = find(file)
            try:
                x = np.loadtxt(path, delimiter=",", ndmin=2)
            except (OSError, ValueError) as e:
                raise CaseError(f"tokens.file: cannot read {path}: {e}") from None
        case Uniform(n=n, d=d):
            x = rng.standard_normal((n, d))
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        case Orthogonal(n=n, d=d):
            if n > d:
                raise CaseError(f"tokens.n = {n}: at most d = {d} vectors are orthogonal")
            x = np.eye(d)[:n]
        case Caps():
            x = _caps(initial, rng)
        case Normal(n=n, mean=mean, covariance=covariance):
            from fem_apps.attention.gaussian_closure import factor

            L = factor(_rows(covariance, "tokens.covariance"))
            if mean and len(mean) != len(L):
                raise CaseError(f"tokens.mean has {len(mean)} entries; {len(L)} are needed")
            x = rng.standard_normal((n, len(L))) @ L.T + np.array(mean or np.zeros(len(L)))
    return check_tokens(x, on_sphere)


def check_tokens(x: np.ndarray, on_sphere: bool) -> np.ndarray:
    """The tokens, made unit vectors to rounding where they have to be.

    Raises:
        CaseError: not finite, or off the sphere; names the first such token.
    """
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise CaseError(
            f"tokens: token {bad[0] + 1} of {len(x)} is not finite: {x[bad[0]].tolist()}"
        )
    if not on_sphere:
        return x
    if x.shape[1] < 2:
        raise CaseError("tokens: with layer normalisation at least 2 dimensions are needed")
    norm = np.linalg.norm(x, axis=1)
    off = np.flatnonzero(np.abs(norm - 1) > ON_SPHERE)
    if len(off):
        raise CaseError(
            f"tokens: token {off[0] + 1} of {len(x)} has norm {norm[off[0]]:.6g}, not 1: normalise "
            "it, or set attention.layer_norm = false"
        )
    return x / norm[:, None]


def _rows(rows: tuple[tuple[float, ...], ...], name: str) -> np.ndarray:
    if len({len(r) for r in rows}) != 1:
        raise CaseError(f"{name}: all rows need one length")
    return np.array(rows, dtype=float)


def _caps(initial: Caps, rng: np.random.Generator) -> np.ndarray:
    centres = _rows(initial.centres, "tokens.centres")
    size = np.linalg.norm(centres, axis=1, keepdims=True)
    if (size == 0).any():
        raise CaseError("tokens.centres: a centre is 0")
    w = np.repeat(centres / size, initial.n, axis=0)
    e = rng.standard_normal(w.shape)
    e -= (e * w).sum(axis=1, keepdims=True) * w
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    angle = initial.radius * rng.uniform(size=(len(w), 1))
    return np.cos(angle) * w + np.sin(angle) * e
