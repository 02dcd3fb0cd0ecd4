"""Where the data come from: simulations, run folders, arrays, pictures, particle trajectories.

Densities end as `Snapshots` on the case's nodes, particles as `Paths`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from dolfinx import fem
from mpi4py import MPI
from pydantic import Field, model_validator

from fem_apps import meshing
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem import node_graph
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.fem.integrals import interpolate
from fem_apps.fem.kernels import Kernel
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.points import PointEvaluator
from fem_apps.fem.time_stepping import StepControl, march
from fem_apps.inverse.interaction_kernels_atoms import (
    Atom,
    atom_of_force,
    find_atom,
    kernels_of,
    potential,
)
from fem_apps.inverse.interaction_kernels_data import Snapshots, gathered, order, snapshots
from fem_apps.inverse.interaction_kernels_functional import Known, diameter
from fem_apps.inverse.interaction_kernels_particles import Paths, paths, read_paths
from fem_apps.inverse.interaction_kernels_synthetic import finite_volumes, particle_paths
from fem_apps.meshing import MeshCase, MeshData
from fem_apps.mpi import on_rank_zero
from fem_apps.problems import aggregation_diffusion as ad
from fem_apps.problems.data_files import interpolate_scattered, read_picture


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


class Arrays(Table):
    """Densities in .npz files: t (n_t,), x (n, dim), rho (n_t, n), interpolated to the nodes."""

    type: Literal["arrays"]
    files: tuple[Path, ...] = Field(min_length=1, description="one data set each")


class RunFolders(Table):
    """Run folders of kind aggregation-diffusion (their frames.npz: output.pictures = true)."""

    type: Literal["runs"]
    folders: tuple[Path, ...] = Field(min_length=1, description="one data set each")


class Images(Table):
    """Pictures of a plane density, one a time; brightness is density."""

    type: Literal["images"]
    files: tuple[Path, ...] = Field(min_length=1, description="in the order of time")
    times: tuple[float, ...] = Field(min_length=1, description="one a picture")
    extent: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1")
    invert: bool = Field(False, description="dark is dense")

    @model_validator(mode="after")
    def _same(self) -> Images:
        if len(self.files) != len(self.times):
            raise ValueError(f"{len(self.files)} files and {len(self.times)} times")
        return self


class Trajectories(Table):
    """Particle trajectories in CSV files with a header, labelled or not."""

    type: Literal["trajectories"]
    files: tuple[Path, ...] = Field(min_length=1, description="one data set each")
    columns: tuple[str, ...] = Field(
        ("t", "x"), min_length=2, max_length=4, description="names of the time and coordinates"
    )
    label: str | None = Field(
        None,
        description="column that says who is who; needed where particles enter or leave",
    )
    rate: float = Field(1.0, gt=0, description="times are divided by this: frames a unit of time")
    deposit: bool = Field(
        False,
        description="true: deposit on the mesh, conservatively; false: the empirical measure",
    )
    train: float = Field(
        1.0, gt=0, le=1, description="share of the time that is fitted; the rest is predicted"
    )


Source = Annotated[
    Simulation | Arrays | RunFolders | Images | Trajectories, Field(discriminator="type")
]


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
    for step in march(state, s.solver.attempt, control, dt=dt, outputs=wanted):
        if step.at_output:
            yield step.state


def load(
    source: Source,
    atoms: Sequence[Atom],
    known: Known,
    potential_of: ad.Potential | None,
    data: MeshData,
    graph: NodeGraph,
    folder: Path,
    seed: int,
    progress: Callable[[float, str], None] = lambda f, s: None,
) -> Data:
    """Data of a case. Collective.

    Raises:
        CaseError: files that cannot be read or say nothing, an unknown atom, a solver that does
        not fit.
    """
    comm = graph.comm
    match source:
        case Simulation():
            return _simulate(
                source, atoms, known, potential_of, data, graph, folder, seed, progress
            )
        case Arrays(files=files):
            found = [
                on_rank_zero(comm, _read_arrays, _file(folder, f), graph.x.shape[1]) for f in files
            ]
            return Data(
                [
                    snapshots(graph, t, _onto(graph, x, rho), f.name)
                    for (t, x, rho), f in zip(found, files, strict=True)
                ]
            )
        case RunFolders(folders=folders):
            out = []
            for f in folders:
                t, x, rho = on_rank_zero(
                    comm, _read_frames, (folder / f).resolve(), graph.x.shape[1]
                )
                out.append(snapshots(graph, t, _onto(graph, x, rho), f.name))
            return Data(out)
        case Images():
            if graph.x.shape[1] != 2:
                raise CaseError("data.type = 'images' needs a plane mesh")
            rho = np.array(
                [
                    on_rank_zero(comm, read_picture, _file(folder, f), source.invert).sample(
                        graph.x, source.extent
                    )
                    for f in source.files
                ]
            )
            return Data([snapshots(graph, np.array(source.times), rho, "images")])
        case Trajectories():
            return _trajectories(source, graph, folder)


def _simulate(
    source: Simulation,
    atoms: Sequence[Atom],
    known: Known,
    potential_of: ad.Potential | None,
    data: MeshData,
    graph: NodeGraph,
    folder: Path,
    seed: int,
    progress: Callable[[float, str], None],
) -> Data:
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
    own, own_graph = data, graph
    if source.solver == "finite-elements" and source.mesh is not None:
        own = meshing.build(comm, source.mesh, folder)
        own_graph = node_graph.build(own.mesh, own.lattice)
    for k, text in enumerate(source.initial):
        progress(k / len(source.initial), f"data set {k + 1} of {len(source.initial)}")
        name = f"data set {k + 1}"
        rho0 = nodal(own_graph, text)
        if source.solver == "particles":
            x0 = _sample(graph, rho0, source.particles, np.random.default_rng([seed, k]))
            sigma = known.diffusion[0].coefficient if known.diffusion else 0.0
            x = on_rank_zero(
                comm,
                particle_paths,
                x0,
                dW,
                times,
                sigma=sigma,
                substeps=source.substeps,
                rng=np.random.default_rng([seed, k, 1]),
            )
            who = [np.arange(len(x0))] * len(times)
            out.particles.append(paths(times, list(x), name, who))
            continue
        if source.solver == "finite-volumes":
            at = order(graph)
            V = gathered(graph, known.V) if known.V is not None else None
            d = known.diffusion[0]
            rho = on_rank_zero(
                comm,
                finite_volumes,
                np.sort(gathered(graph, graph.x[:, 0])),
                gathered(graph, rho0),
                W,
                times,
                sigma=d.coefficient,
                m=d.exponent,
                V=V,
            )[:, at]
        else:
            kernels = kernels_of(atoms, truth, dim, diameter(own_graph))
            steps = densities(
                own, kernels, known, potential_of, rho0, times, tolerance=source.tolerance
            )
            rho = np.array([_carry(own_graph, graph, s.rho) for s in steps])
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


def _trajectories(source: Trajectories, graph: NodeGraph, folder: Path) -> Data:
    comm, dim = graph.comm, graph.x.shape[1]
    if len(source.columns) != dim + 1:
        raise CaseError(
            f"data.columns = {list(source.columns)}: the time and {dim} coordinates are needed"
        )
    out = Data()
    for f in source.files:
        whole = on_rank_zero(
            comm, read_paths, _file(folder, f), source.columns, source.rate, source.label
        )
        cut = whole.t[0] + source.train * (whole.t[-1] - whole.t[0])
        n = int(np.searchsorted(whole.t, cut * (1 + 1e-12), side="right"))
        if n < 2:
            raise CaseError(
                f"{whole.name}: data.train = {source.train:g} leaves less than two times"
            )
        fitted = whole.between(0, n)
        if source.deposit:
            rho = np.array([deposit(graph, p) for p in fitted.x])
            out.densities.append(snapshots(graph, fitted.t, rho, whole.name))
        else:
            out.particles.append(fitted)
        if len(whole.t) - n >= 2:
            out.held_out.append(whole.between(n - 1, len(whole.t)))
    return out


def deposit(graph: NodeGraph, x: np.ndarray) -> np.ndarray:
    """The density of particles: each gives its mass 1/N to the nodes of its cell. Collective.

    Raises:
        CaseError: a particle lies outside the mesh.
    """
    E = PointEvaluator(graph.V.mesh, x, missing="error").matrix(graph.V)
    ones, out = E.createVecLeft(), E.createVecRight()
    ones.set(1.0 / len(x))
    E.multTranspose(ones, out)
    rho = graph.from_dofs(out.array_r[: graph.V.dofmap.index_map.size_local]) / graph.mass
    for o in (E, ones, out):
        o.destroy()
    return rho


def _onto(graph: NodeGraph, x: np.ndarray, rho: np.ndarray) -> np.ndarray:
    return np.array([interpolate_scattered(x, r, graph.x, surface=False) for r in rho])


def _file(folder: Path, name: Path) -> Path:
    found = (folder / name).resolve()
    if not found.is_file():
        raise CaseError(
            f"no file {found} (the case names {str(name)!r}, relative to its own folder)"
        )
    return found


def _read_arrays(path: Path, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as f:
            t, x, rho = (np.asarray(f[k], dtype=float) for k in ("t", "x", "rho"))
    except KeyError as e:
        raise CaseError(f"{path}: the array {e} is missing; t, x and rho are needed") from None
    except (OSError, ValueError, EOFError) as e:
        raise CaseError(f"cannot read {path}: {e}") from None
    x = x.reshape(len(x), -1)
    if x.shape[1] != dim or rho.shape != (len(t), len(x)):
        raise CaseError(
            f"{path}: t {t.shape}, x {x.shape}, rho {rho.shape} do not fit: (n_t,), (n, {dim}), "
            "(n_t, n) are needed"
        )
    return t, x, rho


def _read_frames(folder: Path, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from fem_apps.output.plot_field import read_frames

    if not folder.is_dir():
        raise CaseError(f"no run folder {folder}")
    try:
        frames: Any = read_frames(folder / "frames.npz")
    except CaseError as e:
        raise CaseError(
            f"{folder}: {e}; run the case with output.pictures = true and at most 60 frames"
        ) from None
    return frames.times, frames.points[:, :dim].astype(float), frames.values.astype(float)
