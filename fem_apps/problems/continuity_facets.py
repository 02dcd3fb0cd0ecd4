"""Facets of a mesh's owned cells as arrays: both sides, quadrature points, conormals.

Facets on periodic sides are paired under the lattice, on rank 0, and then are like all others: the
cell across them may be a ghost that DOLFINx does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import basix
import numpy as np
from mpi4py import MPI
from scipy.spatial import cKDTree

from fem_apps.errors import CaseError
from fem_apps.fem.cells import input_cells, tabulate
from fem_apps.meshing import MeshData
from fem_apps.mpi import on_rank_zero

# two sides of a periodic mesh match up to this part of its size
SAME_PLACE = 1e-7


def inverse_jacobian(J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sqrt(det J^T J) and the pseudo-inverse of J, shapes (..., gdim, tdim)."""
    if J.shape[-1] == J.shape[-2]:
        return np.abs(np.linalg.det(J)), np.linalg.inv(J)
    G = np.swapaxes(J, -1, -2) @ J
    return np.sqrt(np.linalg.det(G)), np.linalg.solve(G, np.swapaxes(J, -1, -2))


class Reference:
    """Facets of the reference cell: outward area vectors, and quadrature seen from a cell.

    A variant is the tuple of a cell's vertex numbers in the order of the facet's own vertices.
    """

    def __init__(self, cell: Any, facet: Any, degree: int) -> None:
        self.vertices = basix.geometry(cell)
        self.sides = basix.topology(cell)[-2]
        point = facet == basix.CellType.point
        X, w = (np.zeros((1, 0)), np.ones(1)) if point else basix.make_quadrature(facet, degree)
        self.weights = w
        if point:
            self.shape = np.ones((1, 1))
        else:
            P1 = basix.create_element(basix.ElementFamily.P, facet, 1)
            self.shape = P1.tabulate(0, X)[0, :, :, 0]
        normals = basix.cell.facet_outward_normals(cell)
        # area vectors: outward normals times the facet's measure over its parameter domain's
        self.area = np.array(
            [n * self._scale(side, facet) for n, side in zip(normals, self.sides, strict=True)]
        )

    def _scale(self, side: list[int], facet: Any) -> float:
        v = self.vertices[side]
        if len(side) == 1:
            return 1.0
        A = (v[1:3] - v[0]) if facet != basix.CellType.interval else v[1:2] - v[0]
        return float(np.sqrt(np.linalg.det(A @ A.T)))

    def points(self, variant: tuple[int, ...]) -> np.ndarray:
        """Reference points of the cell at the facet's quadrature points."""
        return self.shape @ self.vertices[list(variant)]

    def side(self, variant: tuple[int, ...]) -> int:
        """The facet's number in the cell."""
        return next(i for i, s in enumerate(self.sides) if set(s) == set(variant))


@dataclass
class Facets:
    """Facets of owned cells; see `continuity_cells.Cells`. `ghosts` are global numbers."""

    left: np.ndarray
    right: np.ndarray
    variant_left: np.ndarray
    variant_right: np.ndarray
    variants: list[tuple[int, ...]]
    points: np.ndarray
    points_in_cell: np.ndarray
    cells: np.ndarray
    conormal: np.ndarray
    tags: np.ndarray
    ghosts: np.ndarray


def facets_of(data: MeshData, F: Any, reference: Reference, n: int, local: int) -> Facets:
    """Facets of the n owned cells among `local` ones. Collective.

    Raises:
        CaseError: a facet with more than two cells, or periodic sides that do not match.
    """
    mesh = data.mesh
    topology, tdim = mesh.topology, mesh.topology.dim
    topology.create_entities(tdim - 1)
    for dims in ((tdim - 1, tdim), (tdim - 1, 0), (tdim, 0), (tdim, tdim - 1)):
        topology.create_connectivity(*dims)
    of_facet = topology.connectivity(tdim - 1, tdim)
    # in 1D DOLFINx's facets are the vertices themselves
    facet_vertices = topology.connectivity(tdim - 1, 0) if tdim > 1 else None
    cell_vertices = topology.connectivity(tdim, 0)
    number = input_cells(mesh)
    offsets, links = np.asarray(of_facet.offsets), np.asarray(of_facet.array)
    count = np.diff(offsets)
    if mesh.comm.allreduce(int(count.max(initial=0)), op=MPI.MAX) > 2:
        raise CaseError("the mesh branches: a facet with more than two cells has no two sides")
    first = links[np.minimum(offsets[:-1], len(links) - 1)]
    second = np.where(count == 2, links[np.minimum(offsets[:-1] + 1, len(links) - 1)], -1)
    swap = (second >= 0) & (number[second] < number[first])
    left, right = np.where(swap, second, first), np.where(swap, first, second)
    keep = np.flatnonzero((count > 0) & ((left < n) | ((right >= 0) & (right < n))))
    left, right = left[keep].astype(np.int64), right[keep].astype(np.int64)

    per_cell = len(reference.vertices)
    vertex = np.asarray(cell_vertices.array).reshape(-1, per_cell)[:local]
    width = len(reference.sides[0])
    own = (
        np.asarray(facet_vertices.array).reshape(-1, width)[keep]
        if facet_vertices is not None
        else keep[:, None]
    )
    place_left = _places(vertex, left, own)
    place_right = _places(vertex, np.where(right >= 0, right, left), own)
    place_right[right < 0] = -1

    variants: list[tuple[int, ...]] = []
    index: dict[tuple[int, ...], int] = {}

    def numbered(places: np.ndarray) -> np.ndarray:
        out = np.full(len(places), -1, dtype=np.int64)
        rows: Any
        rows, inverse = np.unique(places, axis=0, return_inverse=True)
        for r, row in enumerate(rows):
            if row[0] >= 0:
                key = tuple(int(i) for i in row)
                if key not in index:
                    index[key] = len(variants)
                    variants.append(key)
                out[inverse.ravel() == r] = index[key]
        return out

    variant_left, variant_right = numbered(place_left), numbered(place_right)
    points, conormal = _geometry(F, reference, variants, left, variant_left)
    inner = np.flatnonzero(right >= 0)
    _, other = _geometry(F, reference, variants, right[inner], variant_right[inner])
    conormal[inner] = 0.5 * (conormal[inner] - other)

    index_map = topology.index_map(tdim)
    ghosts = np.asarray(index_map.ghosts, dtype=np.int64)
    cells, points_in_cell = left.copy(), points.copy()
    if data.lattice:
        sides = np.flatnonzero((right < 0) & (left < n))
        corners = F.nodes[_vertex_nodes(F, vertex)[own[sides]]]
        first, last = index_map.local_range
        mine = left[sides].copy()
        pair = _pair(
            mesh.comm,
            data.lattice,
            _Sides(
                mine + first,
                number[mine],
                place_left[sides],
                corners,
                points[sides],
                conormal[sides],
            ),
        )
        known = {int(g): n + i for i, g in enumerate(ghosts)}
        for g in np.concatenate([pair.left, pair.right]):
            if g >= 0 and not first <= g < last:
                known.setdefault(int(g), n + len(known))
        ghosts = np.array(list(known), dtype=np.int64)

        def local_cell(g: np.ndarray) -> np.ndarray:
            inside = (g >= first) & (g < last)
            return np.array(
                [i - first if here else known[int(i)] for i, here in zip(g, inside, strict=True)],
                dtype=np.int64,
            )

        rows = np.flatnonzero(pair.right >= 0)
        f = sides[rows]
        left[f], right[f] = local_cell(pair.left[rows]), local_cell(pair.right[rows])
        variant_left[f] = numbered(pair.places_left[rows])
        variant_right[f] = numbered(pair.places_right[rows])
        points[f], conormal[f] = pair.points[rows], pair.conormal[rows]
        own_variant = np.where(pair.first[rows], variant_left[f], variant_right[f])
        points_in_cell[f] = _geometry(F, reference, variants, mine[rows], own_variant)[0]
        # where this rank has both copies of a facet, one stays
        once: Any = np.unique(pair.number, return_index=True)[1]
        stay = np.delete(np.arange(len(left)), sides[np.setdiff1d(np.arange(len(sides)), once)])
        left, right, cells, keep = left[stay], right[stay], cells[stay], keep[stay]
        variant_left, variant_right = variant_left[stay], variant_right[stay]
        points, points_in_cell, conormal = points[stay], points_in_cell[stay], conormal[stay]
    tags: Any = np.zeros(len(left), dtype=np.int32)
    if data.facet_tags is not None:
        by_facet = np.zeros(len(count), dtype=np.int32)
        by_facet[data.facet_tags.indices] = data.facet_tags.values
        tags = np.where(right < 0, by_facet[keep], 0).astype(np.int32)
    return Facets(
        left.astype(np.int32),
        right.astype(np.int32),
        variant_left.astype(np.int32),
        variant_right.astype(np.int32),
        variants,
        np.ascontiguousarray(points),
        np.ascontiguousarray(points_in_cell),
        cells.astype(np.int32),
        np.ascontiguousarray(conormal),
        tags,
        ghosts,
    )


def _places(vertex: np.ndarray, cells: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Which vertex of its cell each vertex of a facet is, shape (facets, vertices a facet)."""
    return np.argmax(vertex[cells][:, None, :] == own[:, :, None], axis=2)


def _vertex_nodes(F: Any, vertex: np.ndarray) -> np.ndarray:
    """Geometry node of each local vertex."""
    nodes = np.zeros(vertex.max(initial=0) + 1, dtype=np.int64)
    nodes[vertex.ravel()] = F.dofmap[: len(vertex), : vertex.shape[1]].ravel()
    return nodes


def _geometry(
    F: Any,
    reference: Reference,
    variants: list[tuple[int, ...]],
    cells: np.ndarray,
    which: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Points and weighted conormals (facets, nfq, gdim) of facets as their cells see them."""
    nfq, gdim = len(reference.weights), F.nodes.shape[1]
    points, conormal = np.zeros((len(cells), nfq, gdim)), np.zeros((len(cells), nfq, gdim))
    for v in np.unique(which):
        rows = np.flatnonzero(which == v)
        X = reference.points(variants[v])
        tables = tabulate(F.element, 1, X)
        a = F.nodes[F.dofmap[cells[rows]]]
        points[rows] = np.einsum("qn,cnd->cqd", tables[0], a)
        det, K = inverse_jacobian(np.einsum("kqn,cnd->cqdk", tables[1:], a))
        area = reference.area[reference.side(variants[v])]
        conormal[rows] = (reference.weights * det)[..., None] * np.einsum("cqkd,k->cqd", K, area)
    return points, conormal


@dataclass
class _Sides:
    """Facets on the sides of a periodic mesh: their cells, vertices, points, conormals."""

    cell: np.ndarray
    number: np.ndarray
    places: np.ndarray
    corners: np.ndarray
    points: np.ndarray
    conormal: np.ndarray


@dataclass
class _Paired:
    """The same facets, each as both copies are to see it; right = -1 where there is no partner."""

    left: np.ndarray
    right: np.ndarray
    places_left: np.ndarray
    places_right: np.ndarray
    points: np.ndarray
    conormal: np.ndarray
    first: np.ndarray
    number: np.ndarray


def _pair(comm: MPI.Comm, lattice: Any, sides: _Sides) -> _Paired:
    """Find the partner of each facet under the lattice. Collective."""
    parts: Any = comm.gather(sides)
    basis = np.atleast_2d(np.array(lattice, dtype=float))

    def match() -> list[_Paired]:
        every = _Sides(
            *(np.concatenate([getattr(p, k) for p in parts]) for k in _Sides.__annotations__)
        )
        paired = _match(every, basis)
        cut = np.cumsum([len(p.cell) for p in parts])[:-1]
        columns = [np.split(getattr(paired, k), cut) for k in _Paired.__annotations__]
        return [_Paired(*c) for c in zip(*columns, strict=True)]

    return on_rank_zero(comm, match)[comm.rank]


def _match(s: _Sides, basis: np.ndarray) -> _Paired:
    """Pairs of equal centres modulo the lattice; the first of a pair has the lower cell."""
    size = float(np.abs(basis).max())
    gdim = s.corners.shape[2]
    origin = s.corners.reshape(-1, gdim).min(axis=0)
    centre = _wrapped(s.corners.mean(axis=1) - origin, basis, size)
    pairs = cKDTree(centre).query_pairs(10 * SAME_PLACE * size, output_type="ndarray")
    i = np.arange(len(centre))
    partner = i.copy()
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    alone = partner == i
    first = np.where(
        (s.number[partner] < s.number) | ((s.number[partner] == s.number) & (partner < i)),
        partner,
        i,
    )
    second = partner[first]
    corner = _wrapped(s.corners.reshape(-1, gdim) - origin, basis, size).reshape(s.corners.shape)
    gap = np.linalg.norm(corner[first][:, :, None] - corner[second][:, None], axis=3)
    if gap.min(axis=2).max(initial=0.0) > 100 * SAME_PLACE * size:
        raise CaseError(f"the sides of the mesh do not match under the lattice {basis.tolist()}")
    places = np.take_along_axis(s.places[second], gap.argmin(axis=2), axis=1)
    right = np.where(alone, -1, s.cell[second])
    return _Paired(
        s.cell[first],
        right,
        s.places[first],
        places,
        s.points[first],
        s.conormal[first],
        first == i,
        first,
    )


def _wrapped(x: np.ndarray, basis: np.ndarray, size: float) -> np.ndarray:
    f = x @ np.linalg.pinv(basis)
    whole = np.mod(f, 1.0)
    whole[whole > 1 - SAME_PLACE] = 0.0
    return whole @ basis + (x - f @ basis)
