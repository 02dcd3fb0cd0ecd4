"""A mesh as plain arrays on one rank.

`RawMesh` is what every reader makes, what `mesh_checks` looks at and what `meshing` distributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fem_apps.errors import CaseError


class Shape(NamedTuple):
    """A cell type: dimension, vertices, nodes of the quadratic cell, and the type of its facets."""

    tdim: int
    vertices: int
    quadratic: int
    facet: str

    def nodes(self, order: int) -> int:
        """Number of nodes of a cell of order 1 or 2."""
        return self.vertices if order == 1 else self.quadratic


SHAPES = {
    "point": Shape(0, 1, 1, ""),
    "interval": Shape(1, 2, 3, "point"),
    "triangle": Shape(2, 3, 6, "interval"),
    "quadrilateral": Shape(2, 4, 9, "interval"),
    "tetrahedron": Shape(3, 4, 10, "triangle"),
    "hexahedron": Shape(3, 8, 27, "quadrilateral"),
}


@dataclass(frozen=True)
class Block:
    """Cells of one kind as a reader found them.

    Attributes:
        shape: a key of `SHAPES`, or the file's own name of a cell that is not supported.
        order: polynomial order of the map from the reference cell, 1 or 2.
        nodes: rows of `RawMesh.points`, shape (cells, nodes a cell), in DOLFINx's order.
        tags: one tag a cell; `untagged` is True where there is none.
        dim: topological dimension.
    """

    shape: str
    order: int
    nodes: np.ndarray
    tags: np.ndarray
    untagged: np.ndarray
    dim: int


@dataclass(frozen=True)
class RawMesh:
    """A mesh of one cell type on one rank.

    Attributes:
        points: coordinates of the nodes, shape (nodes, gdim).
        shape: type of the cells, a key of `SHAPES`.
        order: 1 (straight) or 2 (curved cells).
        cells: nodes of each cell in DOLFINx's order, shape (cells, nodes a cell).
        cell_tags: one tag a cell.
        facets: nodes of the tagged facets, shape (tagged facets, nodes a facet).
        facet_tags: one tag a tagged facet.
        names: (dimension, tag) of each named part.
        lattice: period vectors, none where the mesh is not periodic.
    """

    points: np.ndarray
    shape: str
    order: int
    cells: np.ndarray
    cell_tags: np.ndarray
    facets: np.ndarray
    facet_tags: np.ndarray
    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    lattice: tuple[tuple[float, ...], ...] = ()

    @property
    def tdim(self) -> int:
        """Topological dimension of the cells."""
        return SHAPES[self.shape].tdim

    @property
    def gdim(self) -> int:
        """Dimension of the space that the nodes are in."""
        return int(self.points.shape[1])

    @property
    def vertices(self) -> np.ndarray:
        """Vertices of each cell, shape (cells, vertices a cell)."""
        return self.cells[:, : SHAPES[self.shape].vertices]


def dolfinx_order(shape: str, nodes: int, source: str) -> np.ndarray:
    """Permutation of a cell's nodes from the order of `source` ("gmsh" or "vtk") to DOLFINx's."""
    from dolfinx import cpp

    perm = cpp.io.perm_gmsh if source == "gmsh" else cpp.io.perm_vtk
    return (
        np.arange(1)
        if shape == "point"
        else np.asarray(perm(cpp.mesh.to_type(shape), nodes), dtype=int)
    )


def assemble(
    points: np.ndarray,
    blocks: Sequence[Block],
    names: Mapping[str, tuple[int, int]],
    *,
    where: str,
    order: int | None = None,
    lattice: Sequence[Any] = (),
) -> RawMesh:
    """One `RawMesh` of what a reader found: the cells are those of the highest dimension.

    Nodes that no cell uses are dropped, and so are trailing coordinates that are zero everywhere.
    Cells without any tag in the whole mesh get the tag 1 and the name "domain".

    Args:
        points: nodes, shape (nodes, up to 3).
        blocks: cells and facets; other dimensions are ignored.
        names: (dimension, tag) of each named part.
        where: the file, for messages.
        order: wanted order of the cells; the file's own if None.
        lattice: period vectors, in up to 3 coordinates.

    Raises:
        CaseError: no cells, several or unsupported types of cells, some untagged, a wrong order.
    """
    blocks = [b for b in blocks if len(b.nodes)]
    tdim = max((b.dim for b in blocks), default=0)
    if tdim == 0:
        raise CaseError(f"{where}: the mesh holds no cells")
    top = [b for b in blocks if b.dim == tdim]
    kinds = sorted({(b.shape, b.order) for b in top})
    if len(kinds) > 1 or kinds[0][0] not in SHAPES:
        raise CaseError(_wrong_kinds(where, top))
    shape, found = kinds[0]
    cells, tags, untagged = (
        np.concatenate([getattr(b, a) for b in top]) for a in ("nodes", "tags", "untagged")
    )
    names = {n: (d, t) for n, (d, t) in names.items() if tdim - 1 <= d <= tdim}
    if untagged.all():
        tags = np.ones(len(cells), dtype=np.int32)
        names = {n: p for n, p in names.items() if p[0] != tdim and n != "domain"} | {
            "domain": (tdim, 1)
        }
    elif untagged.any():
        raise CaseError(
            f"{where}: {untagged.sum()} of {len(cells)} cells have no tag. Put every cell in"
            " one physical group"
            " (or none at all, where one tag for all is meant)"
        )
    side = SHAPES[shape].facet
    width = SHAPES[side].nodes(found)
    sides = [b for b in blocks if b.shape == side and b.nodes.shape[1] == width]
    facets = np.concatenate(
        [np.empty((0, width), dtype=np.int64), *(b.nodes[~b.untagged] for b in sides)]
    )
    facet_tags = np.concatenate(
        [np.empty(0, dtype=np.int32), *(b.tags[~b.untagged] for b in sides)]
    )

    order = order or found
    if order > found:
        raise CaseError(
            f"{where}: order = {order} was asked, but its cells are straight (order 1) and the file"
            " does not say how they curve. Leave order out, or mesh the geometry with order 2"
        )
    if order < found:
        cells, facets = cells[:, : SHAPES[shape].vertices], facets[:, : SHAPES[side].vertices]
    # a tagged facet away from every cell bounds nothing
    facets, facet_tags = (a[np.isin(facets, cells).all(axis=1)] for a in (facets, facet_tags))
    if cells.min() < 0 or cells.max() >= len(points):
        raise CaseError(f"{where}: a cell names a node that the file does not hold")
    points, vectors = _flatten(np.asarray(points, dtype=np.float64), lattice, tdim)
    used = np.zeros(len(points), dtype=bool)
    used[cells] = True
    new = np.cumsum(used) - 1
    return RawMesh(
        points=np.ascontiguousarray(points[used]),
        shape=shape,
        order=order,
        cells=new[cells].astype(np.int64),
        cell_tags=tags.astype(np.int32),
        facets=new[facets].astype(np.int64),
        facet_tags=facet_tags.astype(np.int32),
        names=dict(names),
        lattice=tuple(tuple(float(x) for x in v) for v in vectors),
    )


def _wrong_kinds(where: str, blocks: Sequence[Block]) -> str:
    counts: dict[str, int] = {}
    for b in blocks:
        name = b.shape + (" of order 2" if b.order == 2 else "")
        counts[name] = counts.get(name, 0) + len(b.nodes)
    there = ", ".join(f"{n} {name}" for name, n in counts.items())
    if len(counts) > 1:
        return f"{where}: cells of several types ({there}); a mesh is of one: recombine or split"
    known = ", ".join(s for s in SHAPES if s != "point")
    return f"{where}: cells of an unsupported type ({there}); supported, of order 1 or 2: {known}"


def _flatten(
    points: np.ndarray, lattice: Sequence[Any], tdim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drop trailing coordinates that are zero, down to the dimension of the cells."""
    gdim = points.shape[1]
    size = np.ptp(points, axis=0).max() if np.isfinite(points).all() else np.inf
    while gdim > tdim and np.abs(points[:, gdim - 1]).max() <= 1e-12 * size:
        gdim -= 1
    if not np.isfinite(size):
        gdim = max(tdim, min(gdim, points.shape[1]))
    vectors = np.array(lattice, dtype=np.float64).reshape(len(lattice), -1 if len(lattice) else 3)
    return points[:, :gdim], vectors[:, :gdim]


def independent_periods(pairs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Linearly independent period vectors out of the differences x(node) - x(master), by side.

    Sides that are not related by a translation (rotations) give none.
    """
    found: list[np.ndarray] = []
    for difference in pairs:
        mean = difference.mean(axis=0)
        size = float(np.linalg.norm(mean))
        if size == 0.0 or np.abs(difference - mean).max() > 1e-6 * size:
            continue
        mean = np.where(np.abs(mean) < 1e-12 * size, 0.0, mean)
        lead = mean[np.argmax(np.abs(mean))]
        if np.linalg.matrix_rank(np.array([*found, mean]), tol=1e-9 * size) > len(found):
            found.append(mean if lead > 0 else -mean)
    return found
