"""What pictures need of a run, in one small file that is read without DOLFINx."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dolfinx import fem

from fem_apps import compat
from fem_apps.errors import CaseError
from fem_apps.fem.cells import cell_counts, input_cells
from fem_apps.fem.points import is_lagrange
from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import npz, write_whole

FILE = "frames.npz"
# DOLFINx orders the corners of boxes by tensor product, VTK and so pyvista go round.
VTK_ORDER = {"quadrilateral": [0, 1, 3, 2], "hexahedron": [0, 1, 3, 2, 4, 5, 7, 6]}


@dataclass
class _Kept:
    """Frames on rank 0; every `stride`-th of those offered, halved when full."""

    limit: int
    times: list[float]
    values: list[np.ndarray]
    stride: int = 1
    offered: int = 0

    def add(self, t: float, values: np.ndarray) -> None:
        self.times.append(t)
        self.values.append(values)
        if len(self.times) >= self.limit:
            del self.times[1::2], self.values[1::2]
            self.stride *= 2


class FrameRecorder:
    """Keeps up to `limit` frames of one scalar field at the corners of the mesh, in float32.

    When it is full every second frame is dropped, and from then on only every second one taken, so
    the frames stay evenly spread over the run. The last state is always in the file.

    A field that is not P1 is evaluated at the corners of each cell, and averaged where cells meet.
    Complex fields are recorded by their real part.
    """

    def __init__(
        self,
        folder: str | Path,
        u: Any,
        *,
        label: str = "",
        limit: int = 60,
        seconds: float = 60.0,
        resume_until: float | None = None,
    ) -> None:
        """Gather the mesh. Collective.

        Args:
            folder: of the run; `frames.npz` is written there.
            u: the scalar function to be recorded.
            label: what the colour bar says; the function's name if empty.
            limit: most frames kept, at least 4.
            seconds: at most this long after its frame, a frame is in the file.
            resume_until: on restart, the checkpoint's time: frames in the file up to it are kept.
        """
        V = u.function_space
        if V.value_shape:
            raise ValueError("frames are of scalar functions")
        self._comm, self._u = V.mesh.comm, u
        self._path = Path(folder) / FILE
        self._label, self._seconds = label or u.name, seconds
        self._saved = time.monotonic()
        self._corner = u if _is_p1(V) else fem.Function(fem.functionspace(V.mesh, ("DG", 1)))
        dofs, nodes = _samples(self._corner.function_space)
        self._dofs = dofs
        self._kept = _Kept(max(4, limit), [], [])
        self._mesh: dict[str, Any] = {}
        self._last = -np.inf
        gathered = self._comm.gather(nodes)
        mesh = _gather_mesh(V.mesh)
        if self._comm.rank == 0:
            self._mesh, numbers = mesh
            self._index = np.searchsorted(numbers, np.concatenate(gathered))
            self._count = np.bincount(self._index, minlength=len(numbers))
        if resume_until is not None:
            resumed = on_rank_zero(self._comm, self._resume, resume_until)
            self._kept.stride, self._kept.offered, self._last = resumed

    def _resume(self, until: float) -> tuple[int, int, float]:
        """Stride, frames offered and time of the last frame taken over from the file."""
        try:
            with np.load(self._path, allow_pickle=False) as f:
                same = np.array_equal(f["cells"], self._mesh["cells"])
                times, values, stride = f["times"], f["values"], int(f["stride"])
        except (OSError, ValueError, KeyError, EOFError):
            return 1, 0, -np.inf  # pictures are no reason to stop a run
        if not same:
            return 1, 0, -np.inf
        for t, v in zip(times, values, strict=True):
            if t <= until and len(self._kept.times) < self._kept.limit - 1:
                self._kept.times.append(float(t))
                self._kept.values.append(v)
        return (stride, 1, self._kept.times[-1]) if self._kept.times else (1, 0, -np.inf)

    def add(self, t: float) -> None:
        """Offer the present values as the frame at a time. Collective."""
        if t <= self._last:
            return  # the first state of a continued run is the last of what is there
        wanted = self._kept.offered % self._kept.stride == 0
        self._kept.offered += 1
        if not wanted:
            return
        self._last = t
        values = self._gather()

        def keep() -> int:
            self._kept.add(t, values)
            if time.monotonic() - self._saved > self._seconds:
                self._write(self._kept.times, self._kept.values)
            return self._kept.stride

        self._kept.stride = on_rank_zero(self._comm, keep)

    def save(self, t: float) -> None:
        """Write the file, the present values at its end. Collective."""
        values = self._gather()

        def write() -> None:
            times, frames = list(self._kept.times), list(self._kept.values)
            if not times or times[-1] < t:
                times.append(t)
                frames.append(values)
            self._write(times, frames)

        on_rank_zero(self._comm, write)

    def _gather(self) -> np.ndarray:
        """Values at the corners in the order of the input mesh, on rank 0; empty elsewhere."""
        if self._corner is not self._u:
            self._corner.interpolate(self._u)
        parts = self._comm.gather(np.real(self._corner.x.array[self._dofs]))
        if self._comm.rank != 0:
            return np.empty(0, dtype=np.float32)
        total = np.bincount(self._index, weights=np.concatenate(parts), minlength=len(self._count))
        return (total / self._count).astype(np.float32)

    def _write(self, times: list[float], values: list[np.ndarray]) -> None:
        content = {
            **self._mesh,
            "times": np.array(times),
            "values": np.array(values),
            "label": self._label,
            "stride": self._kept.stride,
        }
        try:
            write_whole(self._path, npz(content))
        except OSError as e:
            raise CaseError(f"cannot write {self._path}: {e}") from None
        self._saved = time.monotonic()


def _is_p1(V: Any) -> bool:
    e = V.ufl_element()
    return is_lagrange(V) and e.degree == 1 and not e.discontinuous


def _samples(V: Any) -> tuple[np.ndarray, np.ndarray]:
    """Dofs of this rank to be read, and the input number of each one's node.

    Of P1 the owned dofs, of DG1 all dofs of owned cells: each is read on one rank.
    """
    discontinuous = V.ufl_element().discontinuous
    corners = _corners(V.mesh, ghosts=not discontinuous)
    dofs = V.dofmap.list[: len(corners)].ravel()
    if discontinuous:
        return dofs, corners.ravel()
    owned = V.dofmap.index_map.size_local
    node = np.full(owned + V.dofmap.index_map.num_ghosts, -1, dtype=np.int64)
    node[dofs] = corners.ravel()
    mine = np.flatnonzero(node[:owned] >= 0)
    return mine, node[mine]


def _corners(mesh: Any, *, ghosts: bool = False) -> np.ndarray:
    """Input numbers of the corners of owned cells, ghosts too if asked, (cells, corners)."""
    count = cell_counts(mesh)[1 if ghosts else 0]
    topology = mesh.topology
    per_cell = len(topology.connectivity(topology.dim, 0).links(0)) if count else 1
    numbers = np.asarray(mesh.geometry.input_global_indices, dtype=np.int64)
    return numbers[np.asarray(compat.geometry_dofmap(mesh))[:count, :per_cell]]


def _gather_mesh(mesh: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Corners and cells in the order of the input, and the numbers of the corners; on rank 0."""
    comm, geometry = mesh.comm, mesh.geometry
    corners = _corners(mesh)
    count = len(corners)
    nodes = np.asarray(compat.geometry_dofmap(mesh))[:count, : corners.shape[1]]
    x = comm.gather(geometry.x[nodes.ravel(), : geometry.dim])
    numbers, cells = comm.gather(corners), comm.gather(input_cells(mesh)[:count])
    if comm.rank != 0:
        return {}, np.empty(0, dtype=np.int64)
    filled = [n for n in numbers if len(n)]
    all_corners = np.concatenate(filled)[np.argsort(np.concatenate(cells))]
    order, first = np.unique(np.concatenate([n.ravel() for n in filled]), return_index=True)
    points = np.concatenate(x)[first]
    cell_type = mesh.topology.cell_name()
    table = np.searchsorted(order, all_corners).astype(np.int32)
    table = table[:, VTK_ORDER.get(cell_type, slice(None))]
    return {"points": points, "cells": table, "cell_type": cell_type}, order
