"""Empirical interpolation: a(x; mu) ~ sum_m theta_m(mu) q_m(x), exact at M points of the mesh.

Barrault, Maday, Nguyen, Patera (2004). The q_m are differences of snapshots, each scaled to 1 at
its own point; theta solves a lower triangular system with the values of a at the points. A few more
points, chosen the same way, watch the error: it is estimated there, not bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

WATCHERS = 12


@dataclass(frozen=True)
class Interpolation:
    """theta of an empirical interpolation; needs a at its points only.

    Attributes:
        values: a at the points of given features, `Coefficient.at`.
        features: of the M points and then of the watchers, shape (k, M + K).
        inverse: B^-1, shape (M, M); `watch`: q_m at the watchers, shape (M, K).
    """

    values: Callable[..., Any]
    features: np.ndarray
    inverse: np.ndarray
    watch: np.ndarray

    def theta(self, mu: Any, xp: ModuleType = np) -> Any:
        """theta_m(mu), shape (..., M)."""
        M = len(self.inverse)
        return self.values(self.features[:, :M], mu, xp) @ xp.asarray(self.inverse).T

    def gap(self, mu: Any, xp: ModuleType = np) -> Any:
        """Largest |a - a_M| at the watchers, shape (...); an estimate of the maximum norm."""
        M = len(self.inverse)
        a = self.values(self.features, mu, xp)
        theta = a[..., :M] @ xp.asarray(self.inverse).T
        return abs(a[..., M:] - theta @ xp.asarray(self.watch)).max(axis=-1)


def interpolate_empirically(
    comm: Any,
    values: Callable[..., Any],
    features: np.ndarray,
    snapshots: np.ndarray,
    size: int,
    tolerance: float,
    numbers: np.ndarray,
) -> tuple[Interpolation, np.ndarray, np.ndarray]:
    """Choose points and functions greedily. Collective.

    Args:
        comm: communicator.
        values: `Coefficient.at`.
        features: of the owned points, shape (k, n).
        snapshots: a at the owned points, shape (S, n).
        size: most functions M.
        tolerance: stop where the largest error is at most this share of max|a|.
        numbers: of the owned points, the same whatever the number of ranks: they break ties.

    Returns:
        The interpolation, the q_m at the owned points of shape (n, M), and the largest errors
        before each function, then after the last one.
    """
    residual = snapshots.astype(float).copy()
    top = _largest(comm, np.abs(residual).ravel())
    functions: list[np.ndarray] = []
    points: list[np.ndarray] = []  # features of each point
    rows: list[np.ndarray] = []  # q_0 ... at each point
    errors: list[float] = []
    M = 0
    for m in range(size + WATCHERS):
        worst = np.array([_largest(comm, np.abs(r)) for r in residual])
        s = int(worst.argmax())
        if m == M:
            errors.append(float(worst[s]))
            if m < size and worst[s] > tolerance * top:
                M = m + 1
        if worst[s] <= 1e-14 * top:
            break
        rank, place = _locate(comm, np.abs(residual[s]), worst[s], numbers)
        mine = comm.rank == rank
        here = comm.bcast(
            (features[:, place], residual[:, place].copy(), [q[place] for q in functions])
            if mine
            else None,
            root=rank,
        )
        q = residual[s] / here[1][s]
        points.append(here[0])
        rows.append(np.array([*here[2], 1.0]))
        functions.append(q)
        residual -= here[1][:, None] * q
        if len(points) == M + WATCHERS:
            break
    B = np.zeros((M, M))
    for i in range(M):
        B[i, : i + 1] = rows[i][: i + 1]
    watch = np.array([r[:M] for r in rows[M:]]).reshape(-1, M).T
    if watch.shape[1] == 0:  # nothing is left to watch
        points.append(points[0])
        watch = B[0][:, None]
    Q = np.array(functions[:M]).T.reshape(-1, M)
    at = np.array(points).T
    return Interpolation(values, at, np.linalg.inv(B), watch), Q, np.array(errors)


def _largest(comm: Any, x: np.ndarray) -> float:
    return max(comm.allgather(float(x.max(initial=0.0))))


def _locate(comm: Any, x: np.ndarray, value: float, numbers: np.ndarray) -> tuple[int, int]:
    """Rank and place of an entry equal to `value` (up to rounding), the one of least number."""
    near = np.flatnonzero(x >= value * (1 - 1e-10))
    place = int(near[numbers[near].argmin()]) if len(near) else -1
    least = comm.allgather(float(numbers[place]) if place >= 0 else np.inf)
    return int(np.argmin(least)), place
