"""Meshes made or read by gmsh, on one rank, in a session that ends whatever happens."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.mesh_raw import (
    SHAPES,
    Block,
    RawMesh,
    assemble,
    dolfinx_order,
    independent_periods,
)

log = logging.getLogger(__name__)

GMSH_CELLS = {
    15: ("point", 1),
    1: ("interval", 1),
    8: ("interval", 2),
    2: ("triangle", 1),
    9: ("triangle", 2),
    3: ("quadrilateral", 1),
    10: ("quadrilateral", 2),
    4: ("tetrahedron", 1),
    11: ("tetrahedron", 2),
    5: ("hexahedron", 1),
    12: ("hexahedron", 2),
}
MOST_NODES = (
    3e8  # an h that asks for more is a slip of the pen, and would fill the memory before it fails
)


def constants(text: str) -> dict[str, float]:
    """Numbers that a .geo lets its caller set, each with its declared `Min` (else -inf).

    They are the names in `DefineConstant[...]` and those that the text guards with `Exists(...)`.
    """
    text = re.sub(r'("[^"\n]*")|//[^\n]*|/\*.*?\*/', lambda m: m[1] or " ", text, flags=re.DOTALL)
    found: dict[str, float] = dict.fromkeys(
        re.findall(r"\bExists\s*\(\s*(\w+)\s*\)", text), -np.inf
    )
    for start in re.finditer(r"\bDefineConstant\s*\[", text):
        for item in _split(text[start.end() :]):
            name, _, value = (part.strip() for part in item.partition("="))
            if re.fullmatch(r"\w+", name) and not value.startswith('"'):
                least = re.search(r"\bMin\s+([-+.\deE]+)", value)
                found[name] = float(least[1]) if least else -np.inf
    return found


def _split(text: str) -> list[str]:
    """The comma-separated items up to the bracket that closes the list."""
    items, depth, quoted = [""], 0, False
    for c in text:
        quoted ^= c == '"'
        if not quoted:
            depth += (c in "[{(") - (c in "]})")
            if depth < 0:
                break
            if c == "," and depth == 0:
                items.append("")
                continue
        items[-1] += c
    return items


def check_parameters(text: str, parameters: Mapping[str, float], where: str) -> None:
    """Refuse parameters that the .geo text does not declare, or below what it allows.

    Raises:
        CaseError: names the parameter, its value and what is allowed.
    """
    known = constants(text)
    for name, value in parameters.items():
        if name not in known:
            raise CaseError(
                f"parameters.{name}: {where} has no such constant; it has:"
                f" {', '.join(known) or 'none'}"
            )
        if not np.isfinite(value):
            raise CaseError(f"parameters.{name} = {value}: must be finite")
        if value < known[name] or (name == "h" and value <= 0):
            raise CaseError(
                f"parameters.{name} = {value:g}: must be positive, at least"
                f" {max(known[name], 0.0):g}"
            )


@contextmanager
def session(where: str) -> Iterator[Any]:
    """Gmsh with an empty, quiet model; its errors become CaseError with gmsh's own words.

    Raises:
        CaseError: gmsh reported an error, or its Python module does not load.
    """
    try:
        import gmsh
    except (ImportError, OSError) as e:
        raise CaseError(
            f"gmsh's Python module does not load ({e}): install python3-gmsh, or `pip install gmsh`"
        ) from e
    ours = not gmsh.isInitialized()
    if ours:
        gmsh.initialize(readConfigFiles=False, interruptible=False)
    before = None if ours else gmsh.model.getCurrent()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.logger.start()
        gmsh.onelab.clear()
        gmsh.parser.clear()
        gmsh.model.add("fem_apps")
        try:
            yield gmsh
        except Exception as e:
            if type(e) is not Exception:  # gmsh raises the plain one
                raise
            raise CaseError(f"{where}: gmsh: {_errors(gmsh) or e}") from None
        for line in gmsh.logger.get():
            if line.startswith("Warning"):
                log.debug("gmsh: %s", line)
    finally:
        gmsh.logger.stop()
        if ours:
            gmsh.finalize()
        else:
            gmsh.model.remove()
            gmsh.model.setCurrent(before)


def _errors(gmsh: Any) -> str:
    """The first errors that gmsh logged, in one line."""
    lines = [m.split(":", 1)[1].strip() for m in gmsh.logger.get() if m.startswith("Error")]
    return "; ".join(lines[:3])


def _merge(gmsh: Any, path: Path, where: str) -> None:
    gmsh.merge(str(path))
    if errors := _errors(gmsh):  # not every error of the parser is an exception
        raise CaseError(f"{where}: gmsh: {errors}")


def mesh_geometry(
    path: Path,
    parameters: Mapping[str, float],
    *,
    order: int = 1,
    refine: int = 0,
    dim: int | None = None,
    relocate: bool = False,
) -> RawMesh:
    """Mesh a .geo file up to the highest dimension that it has a physical group of.

    Args:
        path: the .geo file.
        parameters: values for its constants, already checked.
        order: 1, or 2 for curved cells.
        refine: times that every cell is split, new nodes going onto the geometry.
        dim: dimension to mesh, where that is more than its physical groups tell.
        relocate: for the packaged geometries: limit the size of the mesh, and move the nodes of
            triangulations to better places, which leaves no obtuse pairs of angles (a P1 stiffness
            matrix with non-positive entries off the diagonal).

    Raises:
        CaseError: gmsh's own error, no physical group and no geometry, or what `assemble` refuses.
    """
    where = str(path)
    with session(where) as gmsh:
        for name, value in parameters.items():
            gmsh.parser.setNumber(name, [float(value)])
        _merge(gmsh, path, where)
        groups = gmsh.model.getPhysicalGroups()
        tdim = max((d for d, _ in groups), default=0) or gmsh.model.getDimension()
        tdim = max(tdim, min(dim or 0, gmsh.model.getDimension()))
        if tdim < 1:
            raise CaseError(f"{where}: the geometry is empty; it needs at least one curve")
        if relocate:
            _check_size(gmsh, tdim)
        gmsh.model.mesh.generate(tdim)
        if relocate and tdim == 2:
            gmsh.model.mesh.optimize("Relocate2D")
        return _finish(gmsh, tdim, where, order, refine)


def _check_size(gmsh: Any, tdim: int) -> None:
    h = float(gmsh.parser.getNumber("h")[0])
    box = np.array(gmsh.model.getBoundingBox(-1, -1))
    extent = np.sort(box[3:] - box[:3])[::-1]
    nodes = float(np.prod(extent[:tdim] / h))
    if nodes > MOST_NODES:
        raise CaseError(
            f"parameters.h = {h:g}: asks for about {nodes:.0e} nodes; at most {MOST_NODES:.0e}"
        )


def read_msh(path: Path, *, order: int | None = None, refine: int = 0) -> RawMesh:
    """Read a .msh file of format 1 or 4 (in format 2 a tag belongs to a cell, which gmsh forgets).

    Raises:
        CaseError: gmsh's own error, or what `assemble` refuses.
    """
    where = str(path)
    with session(where) as gmsh:
        _merge(gmsh, path, where)
        types = gmsh.model.mesh.getElementTypes()
        dims = [gmsh.model.mesh.getElementProperties(t)[1] for t in types]
        if not dims:
            raise CaseError(f"{where}: the mesh holds no cells")
        orders = {
            gmsh.model.mesh.getElementProperties(t)[2]
            for t, d in zip(types, dims, strict=True)
            if d
        }
        if refine and orders != {1}:
            raise CaseError(
                f"{where}: refine = {refine} needs straight cells; this mesh has order"
                f" {max(orders)}"
            )
        return _finish(
            gmsh,
            max(dims),
            where,
            order if orders - {1} or order == 2 else None,
            refine,
        )


def _finish(gmsh: Any, tdim: int, where: str, order: int | None, refine: int) -> RawMesh:
    for _ in range(refine):
        gmsh.model.mesh.refine()
    made = path_is_geometry(where)
    if made and order == 2:
        gmsh.model.mesh.setOrder(2)
        if tdim > 1 and _folded(gmsh, tdim):
            gmsh.model.mesh.optimize("HighOrder")
    tags, x, _ = gmsh.model.mesh.getNodes()
    if not len(tags):
        raise CaseError(f"{where}: the mesh holds no cells")
    by_tag = np.argsort(
        tags
    )  # the numbering of nodes is the file's, whatever order gmsh lists them in
    points = np.asarray(x).reshape(-1, 3)[by_tag]
    row = np.full(int(tags.max()) + 1, -1, dtype=np.int64)
    row[tags[by_tag].astype(np.int64)] = np.arange(len(tags))
    blocks = [b for d in range(tdim - 1, tdim + 1) for b in _blocks(gmsh, d, row, where)]
    lattice = _declared_lattice(gmsh) if made else []
    lattice = lattice or _periodic_sides(gmsh, tdim, row, points)
    return assemble(
        points,
        blocks,
        _names(gmsh, tdim, where),
        where=where,
        order=order,
        lattice=lattice,
    )


def path_is_geometry(where: str | Path) -> bool:
    """Whether a file is a geometry for gmsh to mesh, by its extension."""
    return Path(where).suffix.lower() == ".geo"


def _folded(gmsh: Any, dim: int) -> bool:
    cells = [int(t) for tags in gmsh.model.mesh.getElements(dim)[1] for t in tags]
    return bool(cells) and min(gmsh.model.mesh.getElementQualities(cells, "minDetJac")) <= 0


def _blocks(gmsh: Any, dim: int, row: np.ndarray, where: str) -> Iterator[Block]:
    """Cells of one dimension, entity by entity, each in at most one physical group."""
    for _, entity in gmsh.model.getEntities(dim):
        groups = gmsh.model.getPhysicalGroupsForEntity(dim, entity)
        types, elements, nodes = gmsh.model.mesh.getElements(dim, entity)
        if len(groups) > 1 and len(types):
            named = " and ".join(repr(gmsh.model.getPhysicalName(dim, g) or int(g)) for g in groups)
            raise CaseError(
                f"{where}: {'cells' if dim else 'points'} of dimension {dim} are tagged twice:"
                f" entity {entity} is in"
                f" the physical groups {named}; keep it in one"
            )
        tag = int(groups[0]) if len(groups) else 0
        for t, e, n in zip(types, elements, nodes, strict=True):
            name, _, _, width = gmsh.model.mesh.getElementProperties(t)[:4]
            shape, order = GMSH_CELLS.get(int(t), (name, 1))
            cells = row[np.asarray(n, dtype=np.int64).reshape(-1, width)]
            if shape in SHAPES:
                cells = cells[:, dolfinx_order(shape, width, "gmsh")]
            missing = np.full(len(e), not len(groups))
            yield Block(shape, order, cells, np.full(len(e), tag, dtype=np.int32), missing, dim)


def _names(gmsh: Any, tdim: int, where: str) -> dict[str, tuple[int, int]]:
    names: dict[str, tuple[int, int]] = {}
    for d, t in gmsh.model.getPhysicalGroups():
        name = gmsh.model.getPhysicalName(d, t)
        if not name or d < tdim - 1 or d > tdim:
            continue
        if name in names:
            raise CaseError(
                f"{where}: the name {name!r} stands for two physical groups; give them"
                " different names"
            )
        names[name] = (int(d), int(t))
    return names


def _declared_lattice(gmsh: Any) -> list[np.ndarray]:
    """The period vectors that a .geo declares: `lattice() = {v1_x, v1_y, v1_z, v2_x, ...}`."""
    values = np.array(
        gmsh.parser.getNumber("lattice") if "lattice" in gmsh.parser.getNames() else []
    )
    return list(values[: len(values) // 3 * 3].reshape(-1, 3))


def _periodic_sides(gmsh: Any, tdim: int, row: np.ndarray, points: np.ndarray) -> list[np.ndarray]:
    """The period vectors that `Periodic Curve`, `Periodic Surface` or a $Periodic section tell."""
    pairs = []
    for d, entity in gmsh.model.getEntities(tdim - 1):
        master, slaves, masters, _ = gmsh.model.mesh.getPeriodicNodes(d, entity)
        if master != entity and len(slaves):
            pairs.append(
                points[row[np.asarray(slaves, dtype=int)]]
                - points[row[np.asarray(masters, dtype=int)]]
            )
    return independent_periods(pairs)
