"""Positions of particles in time, checked; velocities and diffusion of labelled ones."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fem_apps.errors import CaseError


@dataclass(frozen=True)
class Paths:
    """Positions in time.

    Attributes:
        t: times, (n_t,).
        x: one array (N_n, dim) a time.
        name: for messages.
        labels: who is who, (N_n,) a time; only needed where particles enter or leave.
    """

    t: np.ndarray
    x: tuple[np.ndarray, ...]
    name: str = "particles"
    labels: tuple[np.ndarray, ...] | None = None

    @property
    def open(self) -> bool:
        """Whether particles enter or leave."""
        if self.labels is None:
            return False
        first = np.sort(self.labels[0])
        return any(not np.array_equal(np.sort(l), first) for l in self.labels)

    def between(self, first: int, last: int) -> Paths:
        """The snapshots first, ..., last - 1."""
        labels = None if self.labels is None else self.labels[first:last]
        return Paths(self.t[first:last], self.x[first:last], self.name, labels)


def paths(
    t: np.ndarray,
    x: Sequence[np.ndarray],
    name: str = "particles",
    labels: Sequence[np.ndarray] | None = None,
) -> Paths:
    """Checked trajectories.

    Raises:
        CaseError: says what is wrong with the data, or what they cannot identify.
    """
    t = np.asarray(t, dtype=float)
    if len(t) < 2:
        raise CaseError(
            f"{name}: one snapshot tells nothing of the motion; give at least two times"
        )
    if not (np.isfinite(t).all() and all(np.isfinite(p).all() for p in x)):
        raise CaseError(f"{name}: a time or a position is not a finite number")
    if (np.diff(t) <= 0).any():
        raise CaseError(f"{name}: times must increase; sort the snapshots")
    few = [n for n, p in enumerate(x) if len(p) < 2]
    if few:
        raise CaseError(f"{name}: fewer than two particles at t = {t[few[0]]:g}: no pair interacts")
    if all(p.shape == x[0].shape and np.allclose(p, x[0]) for p in x):
        raise CaseError(
            f"{name}: no particle moves: the data say only that the forces vanish at these "
            "positions; give a transient"
        )
    counts = [len(p) for p in x]
    if labels is None and len(set(counts)) > 1:
        n = next(i for i, k in enumerate(counts) if k != counts[0])
        raise CaseError(
            f"{name}: {counts[0]} particles at t = {t[0]:g} and {counts[n]} at t = {t[n]:g}: where "
            "particles enter or leave, who moved where is needed: name the label's column, or put "
            "the particles on a mesh (data.deposit = true)"
        )
    marks = None if labels is None else tuple(np.asarray(l) for l in labels)
    return Paths(t, tuple(np.asarray(p, dtype=float) for p in x), name, marks)


def read_paths(
    path: Path, columns: Sequence[str], rate: float = 1.0, label: str | None = None
) -> Paths:
    """Trajectories of a CSV file with a header.

    Args:
        path: the file.
        columns: names of the time's column and of the coordinates'.
        rate: rows' times are divided by this (frames a unit of time).
        label: name of the column that says who is who.

    Raises:
        CaseError: no such column, not numbers, one snapshot only, NaN.
    """
    try:
        with path.open(newline="", encoding="utf-8") as f:
            rows = list(csv.reader(f))
    except (OSError, UnicodeDecodeError) as e:
        raise CaseError(f"cannot read {path}: {e}") from None
    header = [c.strip() for c in rows[0]] if rows else []
    columns = [*columns, *([label] if label else [])]
    missing = [c for c in columns if c not in header]
    if missing:
        raise CaseError(f"{path} has no column {missing[0]!r}; it has: {', '.join(header)}")
    at = [header.index(c) for c in columns]
    try:
        table = np.array([[float(row[i]) for i in at] for row in rows[1:] if row])
    except (ValueError, IndexError):
        raise CaseError(f"{path}: a row has something else than numbers") from None
    if not len(table):
        raise CaseError(f"{path} has no rows")
    if not np.isfinite(table).all():
        raise CaseError(f"{path}: a value is not a finite number")
    t = np.unique(table[:, 0])
    parts = [table[table[:, 0] == s] for s in t]
    if label is None:
        return paths(t / rate, [p[:, 1:] for p in parts], path.name)
    return paths(t / rate, [p[:, 1:-1] for p in parts], path.name, [p[:, -1] for p in parts])


def steps(data: Paths, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Forward difference quotients (N, dim) at a snapshot, and who is there at the next (N,)."""
    x, dt = data.x[n], data.t[n + 1] - data.t[n]
    if data.labels is None:
        return (data.x[n + 1] - x) / dt, np.ones(len(x), dtype=bool)
    v, moved = np.zeros_like(x), np.zeros(len(x), dtype=bool)
    _, here, there = np.intersect1d(data.labels[n], data.labels[n + 1], return_indices=True)
    v[here], moved[here] = (data.x[n + 1][there] - x[here]) / dt, True
    return v, moved


def diffusion_of(data: Sequence[Paths]) -> float:
    """Sigma from differences of successive velocities of the same particle.

    For v_n = (X_{n+1} - X_n) / dt_n the drift and its first change in time drop out of

        E |v_{n+1} - v_n|^2 = 2 dim sigma (1/dt_n + 1/dt_{n+1}) + O(dt);

    the error is O((N n_t)^(-1/2)).

    Args:
        data: labelled, three times at least.

    Raises:
        CaseError: no labels, or nobody who is seen three times in a row.
    """
    square = expected = 0.0
    for d in data:
        if d.labels is None:
            raise CaseError(
                f"{d.name}: the diffusion of particles is estimated from who moved where: name the "
                "label's column (data.label), give diffusion, or take data.deposit = true"
            )
        dim = d.x[0].shape[1]
        for n in range(len(d.t) - 2):
            v, moved = steps(d, n)
            u, on = steps(d, n + 1)
            _, here, there = np.intersect1d(
                d.labels[n][moved], d.labels[n + 1][on], return_indices=True
            )
            gap = u[on][there] - v[moved][here]
            square += float((gap**2).sum())
            rates = 1 / (d.t[n + 1] - d.t[n]) + 1 / (d.t[n + 2] - d.t[n + 1])
            expected += 2 * dim * len(gap) * float(rates)
    if expected == 0:
        raise CaseError("nobody is seen at three times in a row: the diffusion cannot be estimated")
    return square / expected
