"""What makes a mesh wrong: looked at once, on one rank, before it is distributed."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Literal

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.mesh_raw import RawMesh

log = logging.getLogger(__name__)

CHUNK = 50_000  # cells whose Jacobians are in memory at a time
FLAT = 1e-12  # volume over size**tdim below which a cell has none


def check(
    raw: RawMesh, where: str, coincident: Literal["error", "merge", "keep"] = "error"
) -> RawMesh:
    """The mesh with coincident nodes merged where asked, once everything about it is right.

    Args:
        raw: the mesh.
        where: the file or geometry, for messages.
        coincident: what to do with two nodes at one place: refuse them, merge them, or keep them
            (a slit, whose two sides are not connected).

    Returns:
        The mesh, its tagged facets once each.

    Raises:
        CaseError: coordinates that are not finite, coincident nodes, cells that occur twice or
            have no volume or are turned inside out or overlap their neighbour, facets between more
            than two cells, facets tagged twice, period vectors that match no nodes.
    """
    if not np.isfinite(raw.points).all():
        bad = int((~np.isfinite(raw.points)).any(axis=1).sum())
        raise CaseError(
            f"{where}: {bad} of {len(raw.points)} nodes have coordinates that are not finite"
            " numbers"
        )
    if coincident != "keep":
        raw = _coincident(raw, where, merge=coincident == "merge")
    _volumes(raw, where)
    _repeated(raw, where)
    table = _facets(raw)
    _neighbours(raw, table, where)
    raw = _tagged_facets(raw, table, where)
    _lattice(raw, table, where)
    return raw


def _at(x: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in x) + ")"


def _coincident(raw: RawMesh, where: str, merge: bool) -> RawMesh:
    from scipy.spatial import cKDTree

    pairs = cKDTree(raw.points).query_pairs(1e-10 * _size(raw), output_type="ndarray")
    if not len(pairs):
        return raw
    if not merge:
        raise CaseError(
            f"{where}: {len(pairs)} pairs of nodes coincide, the first at"
            f" {_at(raw.points[pairs[0, 0]])}, so that cells"
            ' there are not connected. Set coincident_nodes = "merge" to join them, or "keep"'
            " if it is a slit"
        )
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(raw.points)
    _, group = connected_components(
        coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n)), directed=False
    )
    _, first, new = np.unique(group, return_index=True, return_inverse=True)
    order = np.argsort(first)  # the kept nodes stay in the file's order
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    new = rank[new]
    return dataclasses.replace(
        raw,
        points=raw.points[first[order]],
        cells=new[raw.cells],
        facets=new[raw.facets],
    )


def _size(raw: RawMesh) -> float:
    return float(np.ptp(raw.points, axis=0).max())


def _basix_cell(shape: str) -> Any:
    import basix

    return getattr(basix.CellType, shape)


def jacobians(x: np.ndarray, shape: str, order: int, at: np.ndarray) -> np.ndarray:
    """Jacobian of the map from the reference cell, J[c, q, i, k] = d x_i / d X_k.

    Args:
        x: nodes of each cell in DOLFINx's order, shape (cells, nodes a cell, gdim).
        shape: a key of `SHAPES`.
        order: order of the cells.
        at: reference points, shape (points, tdim).
    """
    import basix

    element = basix.create_element(
        basix.ElementFamily.P,
        _basix_cell(shape),
        order,
        basix.LagrangeVariant.equispaced,
        dtype=np.float64,
    )
    gradients = np.asarray(element.tabulate(1, at))[1:, :, :, 0]
    return np.einsum("kqn,cni->cqik", gradients, x)


def _volumes(raw: RawMesh, where: str) -> None:
    """Refuse cells whose Jacobian determinant vanishes or changes its sign.

    The determinant is sampled on a lattice of points. On surfaces it is that of the Jacobian seen
    in the tangent space at the middle of the cell: negative where the cell turns back on itself.
    """
    import basix

    affine = raw.order == 1 and raw.shape in ("interval", "triangle", "tetrahedron")
    n = 1 if affine else 2 if raw.order == 1 else 4
    at = np.asarray(
        basix.create_lattice(_basix_cell(raw.shape), n, basix.LatticeType.equispaced, True)
    )
    middle = at.mean(axis=0, keepdims=True)
    flat, inverted = [], []
    for start in range(0, len(raw.cells), CHUNK):
        x = raw.points[raw.cells[start : start + CHUNK]]
        size = np.ptp(x, axis=1).max(axis=1)[:, None] ** raw.tdim
        tangents, R = np.linalg.qr(jacobians(x, raw.shape, raw.order, middle)[:, 0])
        J = jacobians(x, raw.shape, raw.order, middle if affine else at)
        det = np.linalg.det(np.einsum("cik,cqil->cqkl", tangents, J))
        det = np.where(np.linalg.det(R)[:, None] < 0, -det, det)
        none = (np.abs(det) <= FLAT * size).all(axis=1)
        flat.append(start + np.flatnonzero(none))
        inverted.append(start + np.flatnonzero(~none & (det <= FLAT * size).any(axis=1)))
    word = ("length", "area", "volume")[raw.tdim - 1]
    for cells, what in (
        (np.concatenate(flat), f"have no {word}"),
        (np.concatenate(inverted), "are inverted"),
    ):
        if len(cells):
            place = _at(raw.points[raw.vertices[cells[0]]].mean(axis=0))
            raise CaseError(
                f"{where}: {len(cells)} of {len(raw.cells)} cells {what}, the first about {place}"
            )


def _groups(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order that sorts rows, and for each sorted row whether it equals the one before."""
    order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    return order, np.concatenate([[False], (rows[1:] == rows[:-1]).all(axis=1)]) if len(
        rows
    ) else np.empty(0, bool)


def _repeated(raw: RawMesh, where: str) -> None:
    order, same = _groups(np.sort(raw.vertices, axis=1))
    again = np.flatnonzero(same)
    if not len(again):
        return
    tags = raw.cell_tags[order]
    differ = tags[again] != tags[again - 1]
    place = _at(raw.points[raw.vertices[order[again[0]]]].mean(axis=0))
    if differ.any():
        a, b = tags[again[differ][0] - 1], tags[again[differ][0]]
        raise CaseError(
            f"{where}: {differ.sum()} cells are tagged twice (tags {a} and {b}), the first"
            f" about {place};"
            " keep each in one physical group"
        )
    raise CaseError(f"{where}: {len(again)} cells occur twice, the first about {place}")


@dataclasses.dataclass(frozen=True)
class _Facets:
    """The facets of all cells, sorted: `again` marks those that equal the one before."""

    rows: np.ndarray
    cell: np.ndarray
    again: np.ndarray


def _facets(raw: RawMesh) -> _Facets:
    import basix

    local = np.array(basix.topology(_basix_cell(raw.shape))[raw.tdim - 1])
    rows = np.sort(raw.cells[:, local], axis=2).reshape(-1, local.shape[1])
    order, again = _groups(rows)
    return _Facets(rows[order], order // len(local), again)


def _neighbours(raw: RawMesh, table: _Facets, where: str) -> None:
    third = np.flatnonzero(table.again[1:] & table.again[:-1])
    if len(third):
        place = _at(raw.points[table.rows[third[0]]].mean(axis=0))
        raise CaseError(
            f"{where}: {len(third)} facets are between more than two cells, the first about {place}"
        )
    if raw.order > 1 or raw.tdim != raw.gdim:
        return
    second = np.flatnonzero(table.again)
    facets = table.rows[second]
    a, b = (_side(raw, facets, table.cell[k]) for k in (second, second - 1))
    folded = np.flatnonzero(a * b > 0)
    if len(folded):
        place = _at(raw.points[facets[folded[0]]].mean(axis=0))
        raise CaseError(
            f"{where}: {len(folded)} pairs of neighbouring cells overlap (inverted cells), the"
            f" first about {place}"
        )


def _side(raw: RawMesh, facets: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """On which side of each facet the middle of a cell is: +1 or -1."""
    origin = raw.points[facets[:, 0]]
    edges = [raw.points[facets[:, k]] - origin for k in range(1, raw.tdim)]
    edges.append(raw.points[raw.vertices[cells]].mean(axis=1) - origin)
    return np.sign(np.linalg.det(np.stack(edges, axis=1)))


def _tagged_facets(raw: RawMesh, table: _Facets, where: str) -> RawMesh:
    """Each tagged facet once; facets that no cell has are dropped."""
    if not len(raw.facets):
        return raw
    marked = np.sort(raw.facets[:, : table.rows.shape[1]], axis=1)
    order, same = _groups(marked)
    tags = raw.facet_tags[order]
    clash = np.flatnonzero(same & (tags != np.roll(tags, 1)))
    if len(clash):
        named = {t: n for n, (d, t) in raw.names.items() if d == raw.tdim - 1}
        a, b = (repr(named.get(int(t), int(t))) for t in (tags[clash[0] - 1], tags[clash[0]]))
        place = _at(raw.points[marked[order[clash[0]]]].mean(axis=0))
        raise CaseError(
            f"{where}: {len(clash)} facets are tagged twice (as {a} and {b}), the first about"
            f" {place}"
        )
    once = np.sort(order[~same])
    both, again = _groups(np.concatenate([table.rows[~table.again], marked[once]]))
    found = np.zeros(len(both), dtype=bool)
    found[both[again]] = True
    kept = once[found[-len(once) :]]
    if len(kept) < len(once):
        log.warning(
            "%s: %d tagged facets belong to no cell and are left out",
            where,
            len(once) - len(kept),
        )
    return dataclasses.replace(raw, facets=raw.facets[kept], facet_tags=raw.facet_tags[kept])


def _lattice(raw: RawMesh, table: _Facets, where: str) -> None:
    """Refuse a period vector that takes no side of the mesh to another."""
    if not raw.lattice:
        return
    from scipy.spatial import cKDTree

    vectors = np.array(raw.lattice)
    if vectors.shape[1] != raw.gdim or np.linalg.matrix_rank(vectors) < len(vectors):
        raise CaseError(
            f"{where}: the lattice {raw.lattice} must be independent vectors of {raw.gdim}"
            " numbers each"
        )
    alone = ~table.again & ~np.append(table.again[1:], False)
    outside = np.unique(table.rows[alone])
    x = raw.points[outside]
    for v in vectors:
        partners = (
            cKDTree(x).query(x + v, distance_upper_bound=1e-8 * _size(raw))[0]
            if len(x)
            else np.empty(0)
        )
        if np.isfinite(partners).sum() < raw.tdim:
            raise CaseError(
                f"{where}: no side of the mesh has its nodes repeated at the period vector"
                f" {_at(v)}; a periodic mesh"
                " needs matching nodes on opposite sides (Periodic Curve or Periodic Surface in"
                " gmsh)"
            )


def edge_cotangents(x: np.ndarray) -> np.ndarray:
    """Cotangents of the angles of triangles, (cells, 3): the k-th at vertex k, opposite edge k.

    Half their sum over the two cells of an edge is minus the entry of the P1 stiffness matrix.
    """
    a, b = np.roll(x, -1, axis=1) - x, np.roll(x, -2, axis=1) - x
    dot = np.einsum("cki,cki->ck", a, b)
    cross = np.sqrt(
        np.maximum(
            np.einsum("cki,cki->ck", a, a) * np.einsum("cki,cki->ck", b, b) - dot**2,
            0.0,
        )
    )
    return dot / np.maximum(cross, np.finfo(float).tiny)
