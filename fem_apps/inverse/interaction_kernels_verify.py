"""Verification by simulation: the equation with the estimate against data and against the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse.interaction_kernels_atoms import Atom, kernels_of, potential
from fem_apps.inverse.interaction_kernels_data import Snapshots, gathered, order
from fem_apps.inverse.interaction_kernels_distance import (
    bound,
    convexity,
    w2_close,
    w2_line,
    w2_plane,
)
from fem_apps.inverse.interaction_kernels_functional import Known, Setting, diameter
from fem_apps.inverse.interaction_kernels_kept import Keep
from fem_apps.inverse.interaction_kernels_simulate import densities
from fem_apps.meshing import MeshData
from fem_apps.mpi import on_rank_zero
from fem_apps.problems import aggregation_diffusion as ad

# Of a flow: an estimate that asks for more is steep where the data say nothing of it.
MOST_STEPS = 20_000


@dataclass(frozen=True)
class Comparison:
    """One initial datum: flows by truth and estimate, and the data where there are some.

    Attributes:
        name: of the datum.
        t: times, (n_t,).
        truth: owned nodal densities by the true W, (n_t, n); None where it is not known.
        estimate: by the estimate.
        data: what was seen at these times, NaN beyond.
        w2: distance of estimate and truth.
        w2_bound: its bound; infinite where the energy is not lambda-convex.
        w2_plain: int_0^t |grad (W - What) * mu_s| ds, the bound at lambda = 0; it is T sqrt(E) at
        most.
        w2_data: distance of estimate and data, NaN where there are none.
        w2_noise: distance of the data from the true flow: what noise alone makes of w2_data.
        energy: energy of the estimate's flow, from 0 on, and of the truth's.
    """

    name: str
    t: np.ndarray
    truth: np.ndarray | None
    estimate: np.ndarray
    data: np.ndarray | None = None
    w2: np.ndarray | None = None
    w2_bound: np.ndarray | None = None
    w2_plain: np.ndarray | None = None
    w2_data: np.ndarray | None = None
    w2_noise: np.ndarray | None = None
    energy: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Flows:
    """What the forward solves need: see `densities`."""

    mesh: MeshData
    known: Known
    potential_of: ad.Potential | None
    tolerance: float
    stop: Callable[[], bool] = lambda: False


def compare(
    name: str,
    s: Setting,
    flows: Flows,
    rho0: np.ndarray,
    t: np.ndarray,
    c: np.ndarray,
    truth: np.ndarray | None,
    seen: Snapshots | None = None,
) -> Comparison:
    """Solve with estimate and truth from the same datum, and measure. Collective.

    Args:
        name: of the datum.
        s: the functional's operators.
        flows: the forward problem.
        rho0: owned nodal values of the datum.
        t: times.
        c: estimated coefficients of the atoms.
        truth: true ones, if known.
        seen: data from this datum.

    Raises:
        SolveError: the flow of estimate or truth needs more than `MOST_STEPS`, or fails.
        Interrupted: the run was asked to stop.
    """
    reach, dim = diameter(s.graph), s.graph.x.shape[1]

    def solve(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kernels = kernels_of(s.atoms, coefficients, dim, reach)
        states = list(
            densities(
                flows.mesh,
                kernels,
                flows.known,
                flows.potential_of,
                rho0,
                t,
                tolerance=flows.tolerance,
                stop=flows.stop,
                most=MOST_STEPS,
            )
        )
        energy = np.array([q.energy.total for q in states])
        return np.array([q.rho for q in states]), energy - energy[0]

    estimate, energy = solve(c)
    energies = {"estimate": energy}
    known = w2 = limit = plain = w2_data = w2_noise = data = None
    if truth is not None:
        known, energies["truth"] = solve(truth)
        w2 = _distances(s.graph, estimate, known)
        gap = np.array([force_gap(s, r, c - truth) for r in known])
        plain = bound(t, gap, 0.0)
        limit = bound(t, gap, lambda_of(s, c))
    if seen is not None:
        near = [int(np.argmin(np.abs(seen.t - seen.t[0] - u))) for u in t]
        there = np.array(
            [abs(seen.t[k] - seen.t[0] - u) < 1e-9 for k, u in zip(near, t, strict=True)]
        )
        data = seen.rho[near]
        w2_data = np.where(there, _distances(s.graph, estimate, data), np.nan)
        if known is not None:
            w2_noise = np.where(there, _distances(s.graph, known, data), np.nan)
        data = np.where(there[:, None], data, np.nan)
    return Comparison(name, t, known, estimate, data, w2, limit, plain, w2_data, w2_noise, energies)


def restored(keep: Keep, name: str, graph: NodeGraph, make: Callable[[], Comparison]) -> Comparison:
    """A comparison that an interrupted run has made, or a new one. Collective."""
    fields = ("truth", "estimate", "data")

    def arrays() -> dict[str, np.ndarray]:
        out = dict(vars(make()))
        energy = {f"energy.{k}": v for k, v in out.pop("energy").items()}
        out["name"] = np.array(out["name"])
        for k in fields:
            if out[k] is not None:
                out[k] = gathered(graph, out[k])
        return {k: v for k, v in {**out, **energy}.items() if v is not None}

    found = keep(name, arrays)
    at = order(graph)
    plain: dict[str, Any] = {k: v for k, v in found.items() if "." not in k}
    for k in fields:
        plain[k] = plain[k][:, at] if k in plain else None
    plain["name"] = str(plain["name"])
    energy = {k[7:]: v for k, v in found.items() if k.startswith("energy.")}
    return Comparison(**plain, energy=energy)


def force_gap(s: Setting, rho: np.ndarray, difference: np.ndarray) -> float:
    """|grad (sum_j d_j psi_j * mu)|_L2(mu). Collective."""
    plus = np.maximum(rho, 0)
    Q = s.bank(s.graph.mass * plus)
    g = s.grad((Q @ difference)[:, None])[..., 0]
    return float(np.sqrt(s.graph.integral(plus * (g**2).sum(axis=1))))


def lambda_of(s: Setting, c: np.ndarray) -> float:
    """The convexity constant of the estimate's interaction, at most 0, at the nodes' resolution."""
    dW = potential(s.atoms, c)[1]
    return min(0.0, convexity(dW, s.graph.x.shape[1], diameter(s.graph), s.graph.spacing))


def _distances(graph: NodeGraph, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """W2 of each pair of owned nodal densities. Collective."""
    x = np.stack([gathered(graph, np.ascontiguousarray(c)) for c in graph.x.T], axis=1)
    mass, A, B = gathered(graph, graph.mass), gathered(graph, a), gathered(graph, b)
    edges = _edges(graph)

    def work() -> np.ndarray:
        if x.shape[1] == 1:
            return np.array([w2_line(mass, p, q) for p, q in zip(A, B, strict=True)])
        return np.array(
            [
                min(w2_plane(x, mass * p, mass * q), w2_close(edges, mass, p, q))
                for p, q in zip(A, B, strict=True)
            ]
        )

    return on_rank_zero(graph.comm, work)


def _edges(graph: NodeGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns, weights of all edges, nodes in the order of coordinates. Collective."""
    place = graph.with_ghosts(order(graph).astype(float)).astype(int)
    rows = np.repeat(place[: graph.n], np.diff(graph.indptr))
    parts = graph.comm.allgather((rows, place[graph.cols], graph.weight))
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))  # type: ignore[return-value]


def pair_distances(
    points: Callable[[int, np.random.Generator], np.ndarray], times: int, seed: int = 0
) -> np.ndarray:
    """Distances of pairs drawn from the data: samples of the exploration measure rho_bar.

    Args:
        points: (time index, generator) -> points drawn from the density, (n, dim).
        times: number of snapshots.
        seed: of the draw.
    """
    rng = np.random.default_rng([seed, 9])
    out = []
    for n in np.unique(np.linspace(0, times - 1, 12).astype(int)):
        p, q = points(int(n), rng), points(int(n), rng)
        m = min(len(p), len(q))
        out.append(np.linalg.norm(p[:m] - q[:m], axis=1))
    return np.concatenate(out)


def density_points(
    graph: NodeGraph, data: Snapshots, count: int = 2000
) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Draws nodes by their mass. Collective."""
    x = np.stack([gathered(graph, np.ascontiguousarray(c)) for c in graph.x.T], axis=1)
    mass = np.maximum(gathered(graph, data.rho * graph.mass), 0)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        return x[rng.choice(len(x), count, p=mass[n] / mass[n].sum())]

    return draw


@dataclass(frozen=True)
class KernelError:
    """Errors of W' relative to the truth: plain L2(0, R), and weighted by pair distances."""

    plain: float
    weighted: float


def kernel_error(
    atoms: Sequence[Atom], c: np.ndarray, truth: np.ndarray, radius: float, distances: np.ndarray
) -> KernelError:
    """Relative L2 errors of What' on (0, radius] and in L2(rho_bar)."""
    dW, exact = potential(atoms, c)[1], potential(atoms, truth)[1]
    r = np.linspace(0, radius, 2001)[1:]
    d = distances[distances > 0]

    def relative(x: np.ndarray) -> float:
        size = float(np.linalg.norm(exact(x)))
        return float(np.linalg.norm(dW(x) - exact(x))) / max(size, 1e-300)

    return KernelError(relative(r), relative(d))


def largest(comm: MPI.Comm, parts: Sequence[np.ndarray | None]) -> float | None:
    """The greatest finite entry of some arrays; None without any."""
    values = [float(np.nanmax(p)) for p in parts if p is not None and np.isfinite(p).any()]
    return max(values, default=None)
