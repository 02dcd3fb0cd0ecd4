"""Densities in time: validation, normalisation, noise and downsampling models, noise level.

A data set is checked before anything is computed; what cannot be identified from it is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.mpi import total

# Relative change of the density over the whole data below which they are steady.
STEADY = 1e-6
# Mass of the negative part above which a snapshot is no density.
NEGATIVE = 0.2


class Observation(Table):
    """How a density is observed: noise and downsampling, to make data of known difficulty."""

    noise: float = Field(
        0.0, ge=0, lt=1, description="s of rho (1 + s e), e standard normal at each node and time"
    )
    every: int = Field(1, ge=1, description="keep every so many-th snapshot")
    blocks: int = Field(
        1,
        ge=1,
        description="on the line: average over so many neighbouring nodes, then interpolate",
    )


@dataclass(frozen=True)
class Snapshots:
    """One trajectory of a density.

    Attributes:
        t: times, (n_t,), increasing.
        rho: nodal values of the owned nodes, (n_t, n), each row of mass 1.
        name: for messages.
    """

    t: np.ndarray
    rho: np.ndarray
    name: str = "data"


def snapshots(graph: NodeGraph, t: np.ndarray, rho: np.ndarray, name: str = "data") -> Snapshots:
    """Checked and normalised snapshots: every row has mass 1 by lumped quadrature. Collective.

    Raises:
        CaseError: says what is wrong with the data, or what they cannot identify.
    """
    t, rho = np.asarray(t, dtype=float), np.asarray(rho, dtype=float)
    comm = graph.comm
    if not np.isfinite(t).all():
        raise CaseError(f"{name}: a time is not a finite number")
    if len(t) < 2:
        raise CaseError(
            f"{name}: one snapshot tells nothing of the motion: W enters through how the density "
            "changes; give at least two times"
        )
    wrong = np.flatnonzero(np.diff(t) <= 0)
    if len(wrong):
        raise CaseError(
            f"{name}: times must increase: t[{wrong[0] + 1}] = {t[wrong[0] + 1]:g} comes after "
            f"{t[wrong[0]]:g}; sort the snapshots"
        )
    bad = total(comm, (~np.isfinite(rho)).sum(axis=1))
    if bad.any():
        n = int(np.flatnonzero(bad)[0])
        raise CaseError(f"{name}: {bad[n]} values at t = {t[n]:g} are not finite numbers")
    mass = total(comm, rho @ graph.mass)
    below = total(comm, np.maximum(-rho, 0) @ graph.mass)
    n = int(np.argmin(mass))
    if mass[n] <= 0:
        raise CaseError(f"{name}: the mass at t = {t[n]:g} is {mass[n]:g}; it must be positive")
    n = int(np.argmax(below / mass))
    if below[n] > NEGATIVE * mass[n]:
        raise CaseError(
            f"{name}: {100 * below[n] / mass[n]:.0f} % of the mass at t = {t[n]:g} is negative: "
            "this is no noisy density; are the data centred or differences?"
        )
    rho = rho / mass[:, None]
    moved = total(comm, np.abs(rho - rho[0]) @ graph.mass)
    if moved.max() <= STEADY:
        raise CaseError(
            f"{name}: all snapshots are the same: at a steady state the data say only that "
            "grad(H'(rho) + V + W*rho) = 0 on the support; the null directions of W are silent; "
            "give a transient"
        )
    return Snapshots(t, rho, name)


def observe(
    graph: NodeGraph, data: Snapshots, model: Observation, rng: np.random.Generator
) -> Snapshots:
    """The data as an instrument with noise and few pixels sees them. Collective.

    Random numbers are those of the node's number in the order of its coordinates, so that they do
    not depend on the ranks.
    """
    t, rho = data.t[:: model.every], data.rho[:: model.every]
    if model.blocks > 1:
        rho = _blocks(graph, rho, model.blocks)
    if model.noise > 0:
        e = rng.standard_normal((len(t), graph.size))
        rho = rho * (1 + model.noise * e[:, order(graph)])
    return snapshots(graph, t, rho, data.name)


def order(graph: NodeGraph) -> np.ndarray:
    """Place of every owned node in the lexicographic order of all coordinates. Collective."""
    parts = graph.comm.allgather(graph.x)
    every = np.round(np.concatenate(parts), 10)
    place = np.empty(len(every), dtype=int)
    place[np.lexsort(every.T[::-1])] = np.arange(len(every))
    start = sum(len(p) for p in parts[: graph.comm.rank])
    return place[start : start + graph.n]


def gathered(graph: NodeGraph, values: np.ndarray) -> np.ndarray:
    """Owned nodal values (..., n) as all of them in the order of coordinates. Collective."""
    out = np.zeros((*values.shape[:-1], graph.size))
    out[..., order(graph)] = values
    return total(graph.comm, out)


def _blocks(graph: NodeGraph, rho: np.ndarray, size: int) -> np.ndarray:
    if graph.x.shape[1] != 1:
        raise CaseError("observation.blocks: block averages are for the line; use a coarser mesh")
    x, m = gathered(graph, graph.x[:, 0]), gathered(graph, graph.mass)
    every, at = gathered(graph, rho), order(graph)
    starts = np.arange(0, len(x) - len(x) % size, size)
    mass = np.add.reduceat(m, starts)
    centres = np.add.reduceat(m * x, starts) / mass
    means = np.add.reduceat(every * m, starts, axis=1) / mass
    return np.array([np.interp(x, centres, row)[at] for row in means])


def noise_level(graph: NodeGraph, data: Snapshots) -> float:
    """Relative standard deviation of the noise, from differences in time of orders 1 to 6.

    A difference of order p of independent noise has the variance C(2p, p) s^2 rho^2, while that of
    a smooth density falls with p: the least of the estimates counts (median of absolute values,
    where the density is above 5 % of its maximum). Collective.

    Returns:
        s; 0 where there are fewer than four snapshots.
    """
    every = gathered(graph, data.rho)
    mean = every.mean(axis=0)
    found = []
    for p in range(1, min(6, len(data.t) - 3) + 1):
        d = np.diff(every, n=p, axis=0) / np.sqrt(comb(2 * p, p))
        middle = np.array([every[i : i + p + 1].mean(axis=0) for i in range(len(d))])
        seen = (middle > 0.05 * mean.max()) & (middle > 0)
        if seen.any():
            found.append(float(np.median(np.abs(d[seen]) / middle[seen])) / 0.6745)
    return min(found, default=0.0)
