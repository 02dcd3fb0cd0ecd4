"""The `[mesh]` table of a case, and the distributed mesh that it stands for.

A geometry is meshed once, on rank 0, and kept in the user's cache under the hash of what made it;
a file is read and checked each time. Nothing here imports DOLFINx before a mesh is built.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fem_apps import compat, mesh_gmsh
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.mesh_cache import cache_folder, read_cache, write_cache
from fem_apps.mesh_checks import check
from fem_apps.mesh_meshio import read_meshio
from fem_apps.mesh_raw import SHAPES, RawMesh
from fem_apps.mpi import on_rank_zero, shared

if TYPE_CHECKING:
    from dolfinx.mesh import Mesh, MeshTags
    from mpi4py import MPI

log = logging.getLogger(__name__)

CACHE_FORMAT = 1


class MeshCase(Table):
    """The mesh of a case: a packaged geometry, or a file of the user's own.

    `geometry = "disc"` takes meshes/disc.geo; `file = "my.msh"` takes a mesh in any format that
    meshio reads, or a .geo. `parameters` sets constants of the .geo, such as its mesh size h.
    """

    geometry: str | None = Field(
        None, description="name of a packaged geometry: the file meshes/NAME.geo"
    )
    file: Path | None = Field(
        None,
        description="the user's own mesh (.msh, .vtu, .xdmf, .med, .inp, ...) or geometry (.geo)",
    )
    parameters: dict[str, float] = Field(
        {},
        description=(
            "constants of the .geo, such as h (mesh size) and lengths, in the case's unit of length"
        ),
    )
    order: Literal[1, 2] | None = Field(
        None,
        description=(
            "order of the cells: 1 straight, 2 curved; by default 1 for a geometry, the file's"
            " for a file"
        ),
    )
    dim: Literal[1, 2, 3] | None = Field(
        None, description="topological dimension that the mesh must have"
    )
    refine: int = Field(
        0,
        ge=0,
        le=8,
        description="times that every cell is split, for .geo and .msh (format 4)",
    )
    tags: str | tuple[str, ...] | None = Field(
        None,
        description=(
            "what tells a file's parts, where that is not clear: the name of its cell data with the"
            " tags, or a list of its named sets of cells ([] for no tags)"
        ),
    )
    coincident_nodes: Literal["error", "merge", "keep"] = Field(
        "error",
        description=(
            "two nodes at one place in a file: an error, merged, or kept as the sides of a slit"
        ),
    )
    lattice: tuple[tuple[float, ...], ...] = Field(
        (),
        description="period vectors of a periodic mesh, where its file does not tell them",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.geometry is None) == (self.file is None):
            raise ValueError(f"give either geometry (one of {', '.join(geometries())}) or file")
        if self.geometry is not None:
            if self.geometry not in geometries():
                raise ValueError(
                    f"geometry = {self.geometry!r} is not known; known: {', '.join(geometries())}"
                )
            try:
                mesh_gmsh.check_parameters(
                    _text(self.geometry),
                    self.parameters,
                    f"geometry {self.geometry!r}",
                )
            except CaseError as e:
                raise ValueError(str(e)) from None
        return self


@dataclass(frozen=True)
class MeshData:
    """A distributed mesh and the names of its parts.

    Attributes:
        mesh: the mesh, with ghost cells across the facets that ranks share.
        cell_tags: the tag of every cell.
        facet_tags: the tags of the tagged facets, None where there are none.
        names: (dimension, tag) of each named part.
        lattice: period vectors, empty where the mesh is not periodic.
    """

    mesh: Mesh
    cell_tags: MeshTags
    facet_tags: MeshTags | None
    names: dict[str, tuple[int, int]]
    lattice: tuple[tuple[float, ...], ...] = ()
    _made: dict[str, tuple[Hashable, Any]] = field(default_factory=dict, repr=False, compare=False)

    def once[T](self, name: str, make: Callable[[], T], key: Hashable = None) -> T:
        """What `make()` gives, kept with the mesh until it is asked for with another key.

        In a sweep, cases with the same mesh share it: spaces, matrices, factors that depend on the
        mesh and on `key` alone. Collective if `make` is. What is shared must never be changed.
        """
        if name not in self._made or self._made[name][0] != key:
            self._made[name] = (key, make())
        return self._made[name][1]

    def tag(self, name: str, dim: int) -> int:
        """The tag of a part of dimension `dim`, by its name, or by its number where it has no name.

        Raises:
            CaseError: no such part; the message names those that there are.
        """
        if self.names.get(name, (None,))[0] == dim:
            return self.names[name][1]
        if re.fullmatch(r"-?\d+", name):
            return int(name)
        known = ", ".join(sorted(n for n, (d, _) in self.names.items() if d == dim)) or "none"
        kind = "cells" if dim == self.mesh.topology.dim else "boundary parts"
        raise CaseError(f"the mesh has no {kind} named {name!r}; it has: {known}")


@cache
def geometries() -> dict[str, Path]:
    """The packaged geometries by name."""
    return {p.stem: p for p in sorted((Path(__file__).parent / "meshes").glob("*.geo"))}


@cache
def _text(geometry: str) -> str:
    return geometries()[geometry].read_text()


def build(comm: MPI.Comm, case: MeshCase, folder: Path = Path(".")) -> MeshData:
    """Make or read the mesh of a case and distribute it. Collective.

    The space is as small as the mesh allows: trailing coordinates that are zero everywhere are
    dropped, so a disc is in the plane and a sphere in space. The numbering of input nodes,
    `mesh.geometry.input_global_indices`, does not depend on the number of ranks.

    Args:
        comm: communicator of the mesh.
        case: the table.
        folder: where a relative `file` is looked for: the case's folder.

    Raises:
        CaseError: on every rank, whatever is wrong with the geometry, its parameters or the file.
    """
    return shared(
        comm, ("mesh", case.model_dump_json(), folder), lambda: _build(comm, case, folder)
    )


def _build(comm: MPI.Comm, case: MeshCase, folder: Path) -> MeshData:
    import dolfinx.mesh  # noqa: F401  starts PETSc, a collective: never on rank 0 alone below

    found: list[RawMesh] = []

    def load() -> tuple[Any, ...]:
        raw = _load(case, folder)
        found.append(raw)
        return (
            raw.shape,
            raw.order,
            raw.gdim,
            raw.names,
            raw.lattice,
            len(raw.facets) > 0,
        )

    shape, order, gdim, names, lattice, sides = on_rank_zero(comm, load)
    facet_nodes = SHAPES[SHAPES[shape].facet].nodes(order)
    none = RawMesh(
        np.empty((0, gdim)),
        shape,
        order,
        np.empty((0, SHAPES[shape].nodes(order)), dtype=np.int64),
        np.empty(0, dtype=np.int32),
        np.empty((0, facet_nodes), dtype=np.int64),
        np.empty(0, dtype=np.int32),
    )
    raw = found[0] if found else none
    mesh = _distribute(comm, raw)
    cell_tags = _mesh_tags(mesh, raw.tdim, raw.cells, raw.cell_tags)
    facet_tags = _mesh_tags(mesh, raw.tdim - 1, raw.facets, raw.facet_tags) if sides else None
    return MeshData(mesh, cell_tags, facet_tags, names, lattice)


def _distribute(comm: MPI.Comm, raw: RawMesh) -> Mesh:
    import basix.ufl
    import ufl
    from dolfinx.mesh import create_mesh

    element = basix.ufl.element(
        "Lagrange",
        raw.shape,
        raw.order,
        lagrange_variant=basix.LagrangeVariant.equispaced,
        shape=(raw.gdim,),
        dtype=np.float64,
    )
    partitioner = compat.shared_facet_partitioner()
    return create_mesh(
        comm,
        cells=raw.cells,
        x=raw.points,
        e=ufl.Mesh(element),
        partitioner=partitioner,
    )


def _mesh_tags(mesh: Mesh, dim: int, entities: np.ndarray, values: np.ndarray) -> MeshTags:
    """Tags of entities that rank 0 names by their input nodes; ranks get their ghosts' too."""
    from dolfinx.graph import adjacencylist
    from dolfinx.io.utils import distribute_entity_data
    from dolfinx.mesh import meshtags_from_entities

    local, local_values = distribute_entity_data(mesh, dim, entities, values)
    mesh.topology.create_entities(dim)
    mesh.topology.create_connectivity(dim, 0)
    mesh.topology.create_connectivity(dim, mesh.topology.dim)
    tags = meshtags_from_entities(
        mesh, dim, adjacencylist(local), local_values.astype(np.int32, copy=False)
    )
    tags.name = "cell_tags" if dim == mesh.topology.dim else "facet_tags"
    return tags


# ---------------------------------------------------------------- rank 0


def _load(case: MeshCase, folder: Path) -> RawMesh:
    if case.geometry is not None:
        raw = _mesh_geometry(geometries()[case.geometry], case, packaged=True)
    else:
        raw = _read_file(_existing(folder, case.file or Path()), case)
    where = case.geometry or str(case.file)
    if case.dim is not None and raw.tdim != case.dim:
        raise CaseError(
            f"{where}: this is a {raw.tdim}D mesh of {raw.shape} cells, but the case wants a"
            f" {case.dim}D mesh"
        )
    return raw


def _existing(folder: Path, name: Path) -> Path:
    path = (folder / name).resolve()
    if not path.is_file():
        raise CaseError(
            f"mesh.file: no file {path} (the case names {str(name)!r}, relative to"
            f" {folder.resolve()})"
        )
    try:
        if path.stat().st_size == 0:
            raise CaseError(f"{path}: the file is empty")
        path.open("rb").close()
    except OSError as e:
        raise CaseError(f"{path}: cannot be read ({e.strerror})") from None
    return path


def _read_file(path: Path, case: MeshCase) -> RawMesh:
    import meshio

    if mesh_gmsh.path_is_geometry(path):
        return _mesh_geometry(path, case, packaged=False)
    if case.parameters:
        raise CaseError(f"mesh.parameters: {path} is a mesh, and only a .geo has parameters")
    suffix = path.suffix.lower()
    if suffix not in {".msh", *meshio.extension_to_filetypes}:
        known = " ".join(sorted({".geo", *meshio.extension_to_filetypes}))
        raise CaseError(
            f"{path}: the extension {suffix!r} is not that of a mesh file; known: {known}"
        )
    version = _msh_version(path) if suffix == ".msh" else 0
    if version in (1, 4):
        raw = mesh_gmsh.read_msh(path, order=case.order, refine=case.refine)
    elif case.refine:
        raise CaseError(
            f"mesh.refine = {case.refine}: {path} cannot be refined here; save it as .msh, format 4"
        )
    else:
        raw = read_meshio(path, order=case.order, tags=case.tags)
    return check(_with_lattice(raw, case), str(path), case.coincident_nodes)


def _msh_version(path: Path) -> int:
    """Major version of a .msh file; gmsh would run any other text as the commands of a geometry."""
    data = path.read_bytes()
    head = data.split(None, 2)[:2]
    if head[:1] == [b"$NOD"]:
        return 1
    if head[:1] not in ([b"$MeshFormat"], [b"$Comments"]):
        raise CaseError(f"{path}: not a gmsh mesh: it does not start with $MeshFormat")
    if b"$EndElements" not in data:
        raise CaseError(f"{path}: the file is cut short: it has no $EndElements")
    version = re.search(rb"\$MeshFormat\s+(\d)", data)
    return int(version[1]) if version else 4


def _with_lattice(raw: RawMesh, case: MeshCase) -> RawMesh:
    return replace(raw, lattice=case.lattice) if case.lattice else raw


def _mesh_geometry(path: Path, case: MeshCase, *, packaged: bool) -> RawMesh:
    """Mesh a .geo, or take what the cache has of the same text, parameters, options and gmsh."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise CaseError(f"{path}: cannot be read ({e})") from None
    mesh_gmsh.check_parameters(text, case.parameters, str(path))
    options: dict[str, Any] = {
        "order": case.order or 1,
        "refine": case.refine,
        "dim": case.dim,
        "relocate": packaged,
    }
    kept = None
    whole = not re.search(r"\b(Include|Merge|ShapeFromFile|FileName)\b", text)
    if whole:  # a text that takes in other files does not tell all
        kept = cache_folder() / f"{_digest(text, case, options)}.npz"
    raw = read_cache(kept) if kept else None
    if raw is None:
        log.info("meshing %s", path.name)
        raw = mesh_gmsh.mesh_geometry(path, case.parameters, **options)
        raw = check(_with_lattice(raw, case), str(path), case.coincident_nodes)
        if kept:
            write_cache(kept, raw)
    return raw


def _digest(text: str, case: MeshCase, options: Mapping[str, Any]) -> str:
    import gmsh

    made_of = [
        CACHE_FORMAT,
        text,
        sorted(case.parameters.items()),
        case.lattice,
        case.coincident_nodes,
    ]
    made_of += [sorted(options.items()), gmsh.__version__]
    return hashlib.sha256(json.dumps(made_of, default=str).encode()).hexdigest()[:32]
