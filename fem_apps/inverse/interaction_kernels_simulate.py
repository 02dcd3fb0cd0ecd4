"""Synthetic data of a known truth: the case's table, and the simulators that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from dolfinx import fem
from mpi4py import MPI
from pydantic import Field, model_validator

from fem_apps import meshing
from fem_apps.case import Table
from fem_apps.errors import CaseError, Interrupted, SolveError
from fem_apps.fem import node_graph
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.fem.integrals import interpolate
from fem_apps.fem.kernels import Kernel
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.time_stepping import Attempt, StepControl, march
from fem_apps.inverse.interaction_kernels_atoms import (
    Atom,
    atom_of_force,
    find_atom,
    kernels_of,
    potential,
)
from fem_apps.inverse.interaction_kernels_data import Snapshots, gathered, order, snapshots
from fem_apps.inverse.interaction_kernels_functional import Known, diameter
from fem_apps.inverse.interaction_kernels_kept import Keep
from fem_apps.inverse.interaction_kernels_particles import Paths, paths
from fem_apps.inverse.interaction_kernels_synthetic import finite_volumes, particle_paths
from fem_apps.meshing import MeshCase, MeshData
from fem_apps.mpi import on_rank_zero
from fem_apps.problems import aggregation_diffusion as ad


class Simulation(Table):
    """Data that a simulation makes, with a known truth."""

    type: Literal["simulation"]
    truth: dict[str, float] = Field(
        {}, description='the true W: coefficients of atoms, such as {"power(2)" = 1}'
    )
    force: ExpressionText | None = Field(
        None, description="the true W'(r) as an expression of x = r, where it is in no dictionary"
    )
    initial: tuple[ExpressionText, ...] = Field(
        min_length=1, description="initial densities up to a factor; one data set each"
    )
    end: float = Field(gt=0, description="final time")
    snapshots: int = Field(101, ge=1, description="number of equidistant times, 0 and end included")
    solver: Literal["finite-volumes", "finite-elements", "particles"] = Field(
        "finite-elements",
        description="finite-volumes: explicit, on the line, equal cells, shares no code with the "
        "forward solver; finite-elements: the forward solver; particles: Euler-Maruyama",
    )
    mesh: MeshCase | None = Field(
        None, description="finite-elements: another mesh for the data, best a finer one"
    )
    tolerance: float = Field(1e-4, gt=0, description="finite-elements: local error of a step")
    particles: int = Field(2000, ge=2, description="particles: their number N")
    substeps: int = Field(10, ge=1, description="particles: time steps between two snapshots")

    @model_validator(mode="after")
    def _one_truth(self) -> Simulation:
        if bool(self.truth) == (self.force is not None):
            raise ValueError("give either truth or force")
        return self


@dataclass(frozen=True)
class Data:
    """What was loaded.

    Attributes:
        densities: clean data sets.
        particles: data sets of particles.
        truth: coefficients of the true W, where known; of the dictionary's atoms, then of `extra`.
        extra: the true W itself, where it is in no dictionary.
        held_out: particles of the time that is not fitted.
    """

    densities: list[Snapshots] = field(default_factory=list)
    particles: list[Paths] = field(default_factory=list)
    truth: np.ndarray | None = None
    extra: list[Atom] = field(default_factory=list)
    held_out: list[Paths] = field(default_factory=list)


def coefficients(atoms: Sequence[Atom], truth: dict[str, float]) -> np.ndarray:
    """The true coefficients. Raises CaseError for an atom that is not in the dictionary."""
    c = np.zeros(len(atoms))
    for name, value in truth.items():
        c[find_atom(atoms, name)] = value
    return c


def nodal(graph: NodeGraph, text: str) -> np.ndarray:
    """A density from an expression, of mass 1. Collective."""
    rho = np.broadcast_to(parse(text).numpy(graph.x.T), (graph.n,)).astype(float)
    low = graph.comm.allreduce(float(rho.min(initial=np.inf)), MPI.MIN)
    mass = graph.integral(rho)
    if not (np.isfinite(mass) and mass > 0 and low >= 0):
        raise CaseError(f"initial density {text!r}: it must be >= 0 with a positive mass")
    return rho / mass


def densities(
    data: MeshData,
    kernels: Sequence[Kernel],
    known: Known,
    potential_of: ad.Potential | None,
    rho0: np.ndarray,
    times: np.ndarray,
    *,
    tolerance: float = 1e-4,
    stop: Callable[[], bool] = lambda: False,
    most: int = 10**9,
) -> Iterator[ad.State]:
    """Solve the forward problem: its states at the times, owned nodal densities. Collective.

    Args:
        data: the mesh.
        kernels: of W.
        known: its diffusion is used.
        potential_of: V.
        rho0: owned nodal values at times[0].
        times: increasing.
        tolerance: local error of a step, relative.
        stop: whether the run was asked to stop; collective.
        most: limit of the steps that are tried.

    Raises:
        SolveError: a step fails, or more than `most` are needed.
        Interrupted: `stop` says so.
    """
    problem = ad.Problem(known.diffusion, list(kernels), potential_of)  # type: ignore[arg-type]
    s = ad.set_up(data, problem, "1", tolerance=tolerance)
    state = s.solver.start(0.0, np.maximum(rho0, 0.0))
    yield state
    wanted = [float(t - times[0]) for t in times[1:]]
    if not wanted:
        return
    control = StepControl(end=wanted[-1], tolerance=tolerance)
    dt = ad.first_step(s.solver, state, control)
    tried = count()

    def attempt(state: ad.State, dt: float) -> Attempt[ad.State]:
        k = next(tried)
        if k % 20 == 0 and stop():
            raise Interrupted("interrupted; --restart goes on, to the same answer")
        if k < most:
            return s.solver.attempt(state, dt)
        # the march cuts the step to nothing and ends with this as its reason
        raise SolveError(
            "the flow of a kernel",
            f"more than {most} steps were needed",
            time=state.t,
            advice="a kernel of less steep forces, where pairs of the data tell little of it",
        )

    for step in march(state, attempt, control, dt=dt, outputs=wanted):
        if step.at_output:
            yield step.state


def simulate(
    source: Simulation,
    atoms: Sequence[Atom],
    known: Known,
    potential_of: ad.Potential | None,
    data: MeshData,
    graph: NodeGraph,
    folder: Path,
    seed: int,
    progress: Callable[[float, str], None],
    keep: Keep,
) -> Data:
    """Data of a known truth; each set is kept. Collective."""
    comm, dim = graph.comm, graph.x.shape[1]
    extra = [] if source.force is None else [atom_of_force(source.force, diameter(graph))]
    truth = np.r_[coefficients(atoms, source.truth), np.ones(len(extra))]
    atoms = [*atoms, *extra]
    times = np.linspace(0, source.end, source.snapshots) if source.snapshots > 1 else np.zeros(1)
    W, dW = potential(atoms, truth)
    out = Data(truth=truth, extra=extra)
    if source.solver == "finite-volumes" and (dim != 1 or len(known.diffusion) != 1):
        raise CaseError(
            "data.solver = 'finite-volumes' is for the line and one diffusion term; "
            "take finite-elements"
        )
    if source.solver == "particles" and any(d.exponent != 1 for d in known.diffusion):
        raise CaseError("data.solver = 'particles' has linear diffusion only (exponent 1)")
    sigma = known.diffusion[0].coefficient if known.diffusion else 0.0
    own, own_graph = data, graph
    if source.solver == "finite-elements" and source.mesh is not None:
        own = meshing.build(comm, source.mesh, folder)
        own_graph = node_graph.build(own.mesh, own.lattice)
    for k, text in enumerate(source.initial):
        progress(k / len(source.initial), f"data set {k + 1} of {len(source.initial)}")
        name = f"data set {k + 1}"
        rho0 = nodal(own_graph, text)
        if source.solver == "particles":

            def move(k: int = k, rho0: np.ndarray = rho0) -> dict[str, np.ndarray]:
                x0 = _sample(graph, rho0, source.particles, np.random.default_rng([seed, k]))
                rng = np.random.default_rng([seed, k, 1])
                steps = {"sigma": sigma, "substeps": source.substeps, "rng": rng}
                return {"x": on_rank_zero(comm, particle_paths, x0, dW, times, **steps)}

            x = keep(f"data_{k + 1}", move)["x"]
            who = [np.arange(x.shape[1])] * len(times)
            out.particles.append(paths(times, list(x), name, who))
            continue

        def make(rho0: np.ndarray = rho0) -> dict[str, np.ndarray]:
            if source.solver == "finite-volumes":
                d = known.diffusion[0]
                V = gathered(graph, known.V) if known.V is not None else None
                x, start = np.sort(gathered(graph, graph.x[:, 0])), gathered(graph, rho0)
                more = {"sigma": d.coefficient, "m": d.exponent, "V": V}
                return {"rho": on_rank_zero(comm, finite_volumes, x, start, W, times, **more)}
            kernels = kernels_of(atoms, truth, dim, diameter(own_graph))
            steps = densities(
                own, kernels, known, potential_of, rho0, times, tolerance=source.tolerance
            )
            rho = np.array([_carry(own_graph, graph, s.rho) for s in steps])
            return {"rho": gathered(graph, rho)}

        rho = keep(f"data_{k + 1}", make)["rho"][:, order(graph)]
        out.densities.append(snapshots(graph, times, rho, name))
    return out


def _carry(source: NodeGraph, target: NodeGraph, rho: np.ndarray) -> np.ndarray:
    """Nodal values on another mesh of the same domain."""
    if source is target:
        return rho
    u = fem.Function(source.V)
    source.to_function(rho, u)
    return target.from_function(interpolate(target.V, u))


def _sample(graph: NodeGraph, rho: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points of a density: a node by its mass, then uniform in a box about it. Collective."""
    x = np.stack([gathered(graph, c) for c in graph.x.T], axis=1)
    p = gathered(graph, rho * graph.mass)
    at = rng.choice(len(p), count, p=p / p.sum())
    return x[at] + graph.spacing * (rng.random((count, x.shape[1])) - 0.5)
