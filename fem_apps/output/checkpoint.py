"""Checkpoints: written on N ranks, read on M, exact to the last bit.

A value is keyed by the number of its cell in the input mesh and its place in that cell. Neither
depends on how the mesh was partitioned or its degrees of freedom numbered, and a place in a cell
tells apart what has the same coordinates: both sides of a jump, and both ends of a periodic domain.
The values themselves are stored once per degree of freedom, gathered on rank 0, in one .npz file.

Why not adios4dolfinx, which also reads on M ranks what N wrote: a checkpoint has to survive a crash
while it is written, which one file moved into place does and an ADIOS2 folder does not, and a
restart has to work where DOLFINx has no ADIOS2. Gathering costs 4 bytes a cell and basis function
on rank 0 besides the values; a mesh too large for that is beyond what a case here runs.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.fem.cells import cell_counts, cell_map, input_cells
from fem_apps.fem.integrals import owned
from fem_apps.fem.points import is_lagrange
from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import npz, write_whole

FILE = "checkpoint.npz"
FORMAT = 1
# Meshes are the same when their cells agree to this part of the mesh's size.
SAME_PLACE = 1e-9


def save(folder: str | Path, functions: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before it stays until this one is complete. Collective.

    Args:
        folder: the checkpoint's own folder, made if it is not there.
        functions: Lagrange or discontinuous Lagrange functions of any degree, scalar or vector, at
            least one; the names are what `load` is given. One mesh for all.
        state: what else is needed to continue: JSON values (numbers, text, lists, tables) and numpy
            arrays. The same on all ranks; rank 0's is written.

    Raises:
        CaseError: the file cannot be written.
        ValueError: a function of another kind of element.
    """
    mesh = _one_mesh(functions)
    comm = mesh.comm
    arrays: dict[str, Any] = {}
    cells = _gather_cells(mesh)
    places = comm.gather(_cell_places(mesh))
    if comm.rank == 0:
        arrays["cells"] = _by_input_cell(cells, places)
    for name, u in functions.items():
        V = u.function_space
        count, _ = cell_counts(mesh)
        dofs = V.dofmap.list[:count]
        dofs = V.dofmap.index_map.local_to_global(dofs.ravel().astype(np.int32)).reshape(dofs.shape)
        dofmaps = comm.gather(dofs)
        values = comm.gather(owned(u))
        if comm.rank == 0:
            table = _by_input_cell(cells, dofmaps)
            small = table.max(initial=0) < np.iinfo(np.int32).max
            arrays[f"dofs/{name}"] = table.astype(np.int32 if small else np.int64)
            arrays[f"values/{name}"] = np.concatenate(values).reshape(-1, V.dofmap.index_map_bs)
    kinds = {name: _space(u.function_space) for name, u in functions.items()}

    def write() -> None:
        plain = {}
        for key, value in state.items():
            if isinstance(value, np.ndarray):
                arrays[f"state/{key}"] = value
            else:
                plain[key] = value
        header = {"format": FORMAT, "mesh": _mesh_kind(mesh), "spaces": kinds, "state": plain}
        arrays["header"] = np.frombuffer(
            json.dumps(header, default=_plain).encode(), dtype=np.uint8
        )
        try:
            write_whole(Path(folder) / FILE, npz(arrays))
        except OSError as e:
            raise CaseError(f"cannot write the checkpoint {Path(folder) / FILE}: {e}") from None

    on_rank_zero(comm, write)


def load(folder: str | Path, functions: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint into functions. Collective; any number of ranks.

    Args:
        folder: as given to `save`.
        functions: to be filled, ghosts too; each a name that was saved, on the same mesh and with
            the same element.

    Returns:
        The state, the same on all ranks.

    Raises:
        CaseError: no checkpoint there, a damaged one, or one of another mesh or another space.
    """
    mesh = _one_mesh(functions)
    comm = mesh.comm
    path = Path(folder) / FILE
    cells = _gather_cells(mesh)
    places = comm.gather(_cell_places(mesh))
    local = input_cells(mesh)
    wanted = comm.gather(local)
    kinds = {name: _space(u.function_space) for name, u in functions.items()}
    complex_valued = {name: np.iscomplexobj(u.x.array) for name, u in functions.items()}

    arrays: dict[str, np.ndarray] = {}

    def read() -> dict[str, Any]:
        header, found = _read(path)
        arrays.update(found)
        _require(path, "mesh", header["mesh"], _mesh_kind(mesh))
        _same_cells(path, arrays["cells"], _by_input_cell(cells, places))
        for name, kind in kinds.items():
            if name not in header["spaces"]:
                known = ", ".join(sorted(header["spaces"]))
                raise CaseError(f"the checkpoint {path} has no field {name!r}; it has {known}")
            _require(path, f"space of {name!r}", header["spaces"][name], kind)
            if np.iscomplexobj(arrays[f"values/{name}"]) and not complex_valued[name]:
                raise CaseError(
                    f"the checkpoint {path} is of a complex run: continue in a complex build"
                )
        state = header["state"]
        for key, value in arrays.items():
            if key.startswith("state/"):
                state[key.removeprefix("state/")] = value
        return state

    state = on_rank_zero(comm, read)
    for name, u in functions.items():
        V = u.function_space
        parts = None
        if comm.rank == 0:
            values, dofs = arrays[f"values/{name}"], arrays[f"dofs/{name}"]
            parts = [values[dofs[rows]] for rows in wanted]
        part = comm.scatter(parts)
        bs = V.dofmap.index_map_bs
        u.x.array.reshape(-1, bs)[V.dofmap.list[: len(local)].ravel()] = part.reshape(-1, bs)
        u.x.scatter_forward()
    return state


def _one_mesh(functions: Mapping[str, Any]) -> Any:
    meshes = [u.function_space.mesh for u in functions.values()]
    if not meshes:
        raise ValueError("a checkpoint needs at least one function")
    if any(m.topology._cpp_object is not meshes[0].topology._cpp_object for m in meshes):
        raise ValueError("the functions of a checkpoint live on one mesh")
    return meshes[0]


def _space(V: Any) -> str:
    """The element in words; dofs of a non-Lagrange one may change sign with the partition."""
    if not is_lagrange(V):
        raise ValueError(f"{V.ufl_element()} is not a Lagrange space: it cannot be checkpointed")
    e = V.ufl_element()
    variant = f" {e.lagrange_variant.name}" if e.degree > 2 else ""
    return f"{'DG' if e.discontinuous else 'P'}{e.degree}{variant} {tuple(V.value_shape)}"


def _mesh_kind(mesh: Any) -> str:
    topology = mesh.topology
    count = topology.index_map(topology.dim).size_global
    return f"{count} cells ({topology.cell_name()}) in {mesh.geometry.dim}D"


def _gather_cells(mesh: Any) -> Any:
    """Input numbers of each rank's owned cells, on rank 0."""
    count, _ = cell_counts(mesh)
    return mesh.comm.gather(input_cells(mesh)[:count])


def _cell_places(mesh: Any) -> np.ndarray:
    """A weighted mean of the nodes of each owned cell: it tells where it is and which way round."""
    count, _ = cell_counts(mesh)
    F = cell_map(mesh)
    weights = np.arange(1.0, F.dofmap.shape[1] + 1)
    return np.einsum("n,cnd->cd", weights / weights.sum(), F.nodes[F.dofmap[:count]])


def _by_input_cell(cells: list[np.ndarray], parts: list[np.ndarray]) -> np.ndarray:
    """Rows gathered from the ranks, in the order of the input mesh."""
    out = np.concatenate(parts)
    order = np.concatenate(cells)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError("the cells of this mesh have no numbers of an input (a submesh?)")
    sorted_out = np.empty_like(out)
    sorted_out[order] = out
    return sorted_out


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as f:
            arrays = {key: f[key] for key in f.files}
        header = json.loads(arrays.pop("header").tobytes())
        version = header["format"]
    except FileNotFoundError:
        raise CaseError(f"no checkpoint {path}: nothing to continue from") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise CaseError(
            f"the checkpoint {path} is damaged ({e}): remove it and run again"
        ) from None
    if version != FORMAT:
        raise CaseError(f"the checkpoint {path} has format {version}; this version reads {FORMAT}")
    return header, arrays


def _require(path: Path, what: str, saved: str, here: str) -> None:
    if saved != here:
        raise CaseError(f"the checkpoint {path} is of another {what}: {saved} there, {here} here")


def _same_cells(path: Path, saved: np.ndarray, here: np.ndarray) -> None:
    size = np.ptp(here, axis=0).max(initial=0.0)
    wrong = np.flatnonzero(np.abs(saved - here).max(axis=1) > SAME_PLACE * size)
    if wrong.size:
        c = wrong[0]
        raise CaseError(
            f"the checkpoint {path} is of another mesh: {wrong.size} cells differ, cell {c} is at "
            f"{_place(saved[c])} there, {_place(here[c])} here"
        )


def _place(x: np.ndarray) -> str:
    return "(" + ", ".join(f"{c:.6g}" for c in x) + ")"


def _plain(value: Any) -> Any:
    """JSON numbers of numpy scalars."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} in a checkpoint's state is neither JSON nor an array")
