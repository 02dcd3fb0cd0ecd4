"""Internal energies H, the discrete free energy of a density, and its moments and clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fem_apps.case import Table
from fem_apps.fem.node_graph import NodeGraph

# where log rho and rho^(m-1), m < 1, stop following rho to vacuum; only potentials ever see it
FLOOR = 1e-300


class Diffusion(Table):
    """One term of H: coefficient * rho log rho for exponent 1, else coefficient * rho^m / (m - 1).

    The equation then has coefficient * Laplace(rho^m).
    """

    exponent: float = Field(
        1.0, gt=0, description="m: 1 linear, > 1 porous medium, < 1 fast diffusion"
    )
    coefficient: float = Field(1.0, gt=0, description="sigma > 0 in sigma Laplace(rho^m)")


@dataclass(frozen=True)
class Internal:
    """H with its derivatives: P = rho H' - H, so that div(rho grad H'(rho)) = Laplace P(rho)."""

    terms: tuple[Diffusion, ...] = ()

    def density(self, r: np.ndarray) -> np.ndarray:
        """H(rho), for rho >= 0."""
        out = np.zeros_like(r)
        for d in self.terms:
            m, s = d.exponent, d.coefficient
            out += s * r * np.log(np.maximum(r, FLOOR)) if m == 1 else s * r**m / (m - 1)
        return out

    def fields(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P, H' and P' at rho >= 0."""
        P, H1, P1 = np.zeros_like(r), np.zeros_like(r), np.zeros_like(r)
        floor = np.maximum(r, FLOOR)
        for d in self.terms:
            m, s = d.exponent, d.coefficient
            if m == 1:
                P += s * r
                H1 += s * (np.log(floor) + 1)
                P1 += s
            else:
                power = (floor if m < 1 else r) ** (m - 1)
                P += s * power * r
                H1 += s * m / (m - 1) * power
                P1 += s * m * power
        return P, H1, P1


@dataclass(frozen=True)
class Energy:
    """The parts of E = int H(rho) + int V rho + 1/2 int rho W*rho, by lumped quadrature."""

    internal: float
    external: float
    interaction: float

    @property
    def total(self) -> float:
        """The free energy."""
        return self.internal + self.external + self.interaction

    @property
    def magnitude(self) -> float:
        """Sum of the parts' absolute values: the scale of rounding in `total`."""
        return abs(self.internal) + abs(self.external) + abs(self.interaction)


def energy(
    graph: NodeGraph, H: Internal, V: np.ndarray, rho: np.ndarray, w: np.ndarray | None
) -> Energy:
    """The discrete free energy; V and w = W*rho are nodal values. Collective."""
    m = graph.mass
    parts = np.array(
        [m @ H.density(rho), m @ (V * rho), 0.5 * (m @ (rho * w)) if w is not None else 0.0]
    )
    return Energy(*(float(p) for p in graph.comm.allreduce(parts)))


def moments(graph: NodeGraph, rho: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Mass, centre of mass, and second moment int |x|^2 rho about the origin. Collective."""
    b = graph.mass * rho
    local = np.concatenate([[b.sum()], b @ graph.x, [b @ (graph.x**2).sum(axis=1)]])
    out = graph.comm.allreduce(local)
    return float(out[0]), out[1:-1] / out[0], float(out[-1])


def cluster_counter(graph: NodeGraph) -> Callable[[np.ndarray, float], int]:
    """A function (rho, threshold) -> number of connected parts of {rho > threshold * max rho}.

    Parts are connected along mesh edges, across periodic sides too. Collective.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    comm = graph.comm
    numbers = np.concatenate([graph.offset + np.arange(graph.n), graph.ghosts])
    rows = np.repeat(np.arange(graph.n), np.diff(graph.indptr)) + graph.offset
    edges = comm.gather(np.stack([rows, numbers[graph.cols]])[:, rows < numbers[graph.cols]])
    pairs = np.concatenate(edges, axis=1) if edges is not None else None

    def count(rho: np.ndarray, threshold: float) -> int:
        parts: Sequence[np.ndarray] | None = comm.gather(rho)
        found = 0
        if parts is not None and pairs is not None:
            whole = np.concatenate(parts)
            inside = whole > threshold * whole.max()
            i, j = pairs[:, inside[pairs[0]] & inside[pairs[1]]]
            joined = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(whole),) * 2)
            labels = connected_components(joined, directed=False)[1]
            found = len(np.unique(labels[inside]))
        return int(comm.bcast(found))

    return count
