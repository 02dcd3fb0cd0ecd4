"""Meshes from the files that meshio reads, on one rank."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.mesh_raw import SHAPES, Block, RawMesh, assemble, dolfinx_order, independent_periods

log = logging.getLogger(__name__)

MESHIO_CELLS = {
    "vertex": ("point", 1),
    "line": ("interval", 1),
    "line3": ("interval", 2),
    "triangle": ("triangle", 1),
    "triangle6": ("triangle", 2),
    "quad": ("quadrilateral", 1),
    "quad9": ("quadrilateral", 2),
    "tetra": ("tetrahedron", 1),
    "tetra10": ("tetrahedron", 2),
    "hexahedron": ("hexahedron", 1),
    "hexahedron27": ("hexahedron", 2),
}
# where writers of other formats keep the tags of the cells
TAG_ARRAYS = (
    "gmsh:physical",
    "cell_tags",
    "medit:ref",
    "name_to_read",
    "CellEntityIds",
    "avsucd:material",
    "su2:tag",
)


def read_meshio(
    path: Path, *, order: int | None = None, tags: str | Sequence[str] | None = None
) -> RawMesh:
    """A mesh from any file that meshio reads.

    Tags come from the cell data named `tags`, else from a name that the format uses for them
    (gmsh:physical, cell_tags, medit:ref, name_to_read, ...), else from named sets of cells, else
    from the only cell data of whole numbers. Names come from the format's own table, if any.
    `tags` may also list named sets of cells to use; an empty list uses no tags.

    Raises:
        CaseError: unreadable, or what `assemble` refuses.
    """
    import meshio

    said = io.StringIO()  # meshio prints, and exits, where a file is not what its name says
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            mesh = meshio.read(path)
    except (Exception, SystemExit) as e:
        reason = said.getvalue() or (
            f"{type(e).__name__}: {e}" if not isinstance(e, SystemExit) else ""
        )
        raise CaseError(
            f"{path}: cannot be read as a {path.suffix} mesh ({' '.join(reason.split())})"
        ) from None
    values, names = _tags(mesh, path, tags)
    blocks = []
    for k, b in enumerate(mesh.cells):
        shape, found = MESHIO_CELLS.get(b.type, (b.type, 1))
        nodes = np.asarray(b.data)
        if shape in SHAPES:
            nodes = nodes.astype(np.int64)[:, dolfinx_order(shape, nodes.shape[1], "vtk")]
        value, untagged = values[k]
        blocks.append(Block(shape, found, nodes, value, untagged, b.dim))
    points = np.atleast_2d(np.asarray(mesh.points, dtype=np.float64))
    return assemble(
        points,
        blocks,
        names,
        where=str(path),
        order=order,
        lattice=_periods(mesh, points),
    )


def _tags(
    mesh: Any, path: Path, wanted: str | Sequence[str] | None
) -> tuple[list[tuple[np.ndarray, np.ndarray]], dict[str, tuple[int, int]]]:
    """For each block its tags and which of them are missing; and the names of the parts."""
    sizes = [len(b.data) for b in mesh.cells]
    data = {n: [np.asarray(a) for a in arrays] for n, arrays in mesh.cell_data.items()}
    # some of meshio's readers give no data for some blocks
    data = {n: arrays for n, arrays in data.items() if [len(a) for a in arrays] == sizes}
    whole = [
        n for n, arrays in data.items() if n != "gmsh:geometrical" and all(map(_whole, arrays))
    ]
    sets = {n: s for n, s in mesh.cell_sets.items() if not n.startswith("gmsh:")}
    if wanted is not None and not isinstance(wanted, str):
        if missing := [n for n in wanted if n not in sets]:
            raise CaseError(
                f"{path}: no set of cells {missing[0]!r} to take the tags from; there is:"
                f" {', '.join(sets) or 'none'}"
            )
        return _tags_of_sets(mesh, {n: sets[n] for n in wanted}, path)
    if wanted is not None and wanted not in data:
        raise CaseError(
            f"{path}: no cell data {wanted!r} to take the tags from; there is:"
            f" {', '.join(data) or 'none'}"
        )
    if wanted is not None and wanted not in whole:
        raise CaseError(
            f"{path}: the cell data {wanted!r} is not one whole number a cell, so it cannot be tags"
        )
    known = [n for n in TAG_ARRAYS if n in whole]
    name = wanted or (known[0] if known else whole[0] if len(whole) == 1 and not sets else None)
    if name is None:
        return _tags_of_sets(mesh, sets, path)
    # 0 means "in no group" in these two
    grouped = name in ("gmsh:physical", "cell_tags")
    values = [(a.astype(np.int32), (a == 0) & grouped) for a in data[name]]
    names: dict[str, tuple[int, int]] = {}
    if name == "gmsh:physical":
        names = {str(n): (int(d), int(t)) for n, (t, d) in mesh.field_data.items()}
    elif name == "cell_tags":  # MED: the groups that each family of cells is in
        for family, groups in (getattr(mesh, "cell_tags", None) or {}).items():
            having = zip(mesh.cells, data[name], strict=True)
            dims = [b.dim for b, a in having if (a == family).any()]
            names |= {str(g): (dims[0], int(family)) for g in groups if dims}
    return values, names


def _whole(a: np.ndarray) -> bool:
    """Whether an array holds one whole number a cell."""
    if a.ndim != 1:
        return False
    return np.issubdtype(a.dtype, np.integer) or bool(
        np.isfinite(a).all() and (a == np.round(a)).all()
    )


def _tags_of_sets(
    mesh: Any, sets: Mapping[str, Sequence[Any]], path: Path
) -> tuple[list[tuple[np.ndarray, np.ndarray]], dict[str, tuple[int, int]]]:
    """Tags 1, 2, ... for the named sets of cells; a set of all cells counts only where alone."""
    values = [np.zeros(len(b.data), dtype=np.int32) for b in mesh.cells]
    for name, s in sets.items():  # some of meshio's readers give sets that do not fit their cells
        sizes = [len(b.data) for b in mesh.cells]
        indices = [np.asarray([] if k is None else k, dtype=int) for k in s]
        fits = [
            not k.size or (k.min() >= 0 and k.max() < n)
            for k, n in zip(indices, sizes, strict=False)
        ]
        if len(indices) != len(sizes) or not all(fits):
            log.warning(
                "%s: the set of cells %r does not fit the cells; sets are ignored", path, name
            )
            return [(v, v == 0) for v in values], {}
    names: dict[str, tuple[int, int]] = {}
    for dim in sorted({b.dim for b in mesh.cells}):
        blocks = [k for k, b in enumerate(mesh.cells) if b.dim == dim]
        count = sum(len(values[k]) for k in blocks)
        here = {
            n: {k: np.asarray(s[k], dtype=int) for k in blocks if s[k] is not None}
            for n, s in sets.items()
        }
        held = {n: sum(map(len, s.values())) for n, s in here.items()}
        proper = [n for n in here if 0 < held[n] < count]
        proper = proper or [n for n in here if held[n] == count][:1]
        for name in proper:
            tag = len(names) + 1
            names[name] = (dim, tag)
            for k, cells in here[name].items():
                twice = values[k][cells]
                if twice.any():
                    other = next(n for n, (d, t) in names.items() if t == twice.max())
                    raise CaseError(
                        f"{path}: cells tagged twice, by the sets {other!r} and {name!r};"
                        " list the sets to use in mesh.tags ([] for none)"
                    )
                values[k][cells] = tag
    return [(v, v == 0) for v in values], names


def _periods(mesh: Any, points: np.ndarray) -> list[np.ndarray]:
    """Period vectors of the $Periodic section of a .msh file of format 2."""
    pairs = []
    for _, _, _, nodes in getattr(mesh, "gmsh_periodic", None) or ():
        nodes = np.asarray(nodes, dtype=int).reshape(-1, 2)
        if len(nodes) and nodes.max() < len(points):
            pairs.append(points[nodes[:, 0]] - points[nodes[:, 1]])
    return independent_periods(pairs)
