"""Where the data come from: simulations, run folders, arrays, pictures, particle trajectories.

Densities end as `Snapshots` on the case's nodes, particles as `Paths`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.points import PointEvaluator
from fem_apps.inverse.interaction_kernels_atoms import (
    Atom,
)
from fem_apps.inverse.interaction_kernels_data import snapshots
from fem_apps.inverse.interaction_kernels_functional import Known
from fem_apps.inverse.interaction_kernels_kept import Keep, no_keep
from fem_apps.inverse.interaction_kernels_particles import read_paths
from fem_apps.inverse.interaction_kernels_simulate import Data, Simulation, simulate
from fem_apps.meshing import MeshData
from fem_apps.mpi import on_rank_zero
from fem_apps.problems import aggregation_diffusion as ad
from fem_apps.problems.data_files import interpolate_scattered, read_picture


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
    keep: Keep = no_keep,
) -> Data:
    """Data of a case; simulated ones are kept. Collective.

    Raises:
        CaseError: files that cannot be read or say nothing, an unknown atom, a solver that does
        not fit.
    """
    comm = graph.comm
    match source:
        case Simulation():
            return simulate(
                source, atoms, known, potential_of, data, graph, folder, seed, progress, keep
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
