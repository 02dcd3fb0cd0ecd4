"""Surfaces of obstacles from gmsh geometries and mesh files (.geo, .msh, .stl, ...), checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from fem_apps.errors import CaseError
from fem_apps.fundamental.surfaces import Surface, inner_balls, spread

# points of Gauss on a triangle, exact to degree 4: barycentric coordinates and weights
_A, _B = 0.445948490915965, 0.091576213509771
_RULE = np.array(
    [[1 - 2 * t if i == k else t for i in range(3)] for t in (_A, _B) for k in range(3)]
)
_WEIGHT = np.repeat([0.223381589678011, 0.109951743655322], 3)
CLOUD = 12_000  # largest number of points of a cloud


def read_triangles(path: Path, parameters: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, 3) and triangles of a file, (cells, 3), or (cells, 6) where they are curved.

    A .geo is meshed by gmsh, with its triangles curved.

    Raises:
        CaseError: gmsh's or meshio's own error, no triangles.
    """
    if path.suffix.lower() == ".geo":
        return _mesh_geo(path, parameters)
    if parameters:
        raise CaseError(f"parameters: {path} is a mesh, and only a .geo has parameters")
    import meshio

    try:
        mesh = meshio.read(path)
    except (Exception, SystemExit) as e:  # meshio ends the process for some files
        raise CaseError(f"{path}: cannot be read as a mesh ({e})") from None
    for kind in ("triangle6", "triangle"):
        cells = [b.data for b in mesh.cells if b.type == kind]
        if cells:
            return np.asarray(mesh.points, dtype=float)[:, :3], np.concatenate(cells)
    raise CaseError(f"{path}: the file holds no triangles; give the surface of the obstacle")


def _mesh_geo(path: Path, parameters: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    from fem_apps.mesh_gmsh import check_parameters, session

    check_parameters(path.read_text(), parameters, str(path))
    with session(str(path)) as gmsh:
        for name, value in parameters.items():
            gmsh.parser.setNumber(name, [float(value)])
        gmsh.merge(str(path))
        gmsh.model.mesh.generate(2)
        gmsh.model.mesh.setOrder(2)
        groups = [g for d, g in gmsh.model.getPhysicalGroups() if d == 2]
        parts = [e for g in groups for e in gmsh.model.getEntitiesForPhysicalGroup(2, g)]
        parts = parts or [e for _, e in gmsh.model.getEntities(2)]
        tags, x, _ = gmsh.model.mesh.getNodes()
        row = np.full(int(tags.max()) + 1 if len(tags) else 1, -1)
        row[tags.astype(int)] = np.arange(len(tags))
        cells = [
            row[np.asarray(nodes, dtype=int)].reshape(-1, 6)
            for e in parts
            for kind, _, nodes in zip(*gmsh.model.mesh.getElements(2, e), strict=True)
            if kind == 9
        ]
        if not cells:
            raise CaseError(f"{path}: the geometry has no surface")
        return np.asarray(x).reshape(-1, 3), np.concatenate(cells)


def surface_of(x: np.ndarray, cells: np.ndarray, where: str) -> Surface:
    """The cloud of a triangulated closed surface, normals outward.

    Raises:
        CaseError: the surface is open, has facets between more than two triangles, or crosses
            itself.
    """
    corners = _merged(x, cells[:, :3])
    corners, flipped = _oriented(corners, where)
    cells = cells.copy()
    cells[flipped] = cells[flipped][:, [0, 2, 1, 5, 4, 3][: cells.shape[1]]]
    points = x[cells[:, :3]]
    volume = np.einsum("ia,ia->i", points[:, 0], np.cross(points[:, 1], points[:, 2])).sum() / 6
    if volume < 0:
        cells = cells[:, [0, 2, 1, 5, 4, 3][: cells.shape[1]]]
        corners = corners[:, [0, 2, 1]]
    _self_intersection(x[cells[:, :3]], corners, where)
    y, normals, weights = _gauss(x[cells])
    h = np.sqrt(weights.reshape(len(cells), -1).sum(axis=1)).max()
    if len(y) > CLOUD:
        kept = np.sort(np.random.default_rng(0).choice(len(y), CLOUD, replace=False))
        weights = weights * (weights.sum() / weights[kept].sum())
        y, normals, weights = y[kept], normals[kept], weights[kept]
    curved = cells.shape[1] == 6
    return Surface(y, normals, weights, inner_balls(y, normals, y, 0.0 if curved else 2 * h))


def _merged(x: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Corners numbered by place: an .stl repeats each vertex in every triangle."""
    near = cKDTree(x).query_pairs(1e-9 * np.ptp(x, axis=0).max(), output_type="ndarray")
    number = np.arange(len(x))
    for a, b in near[np.lexsort(near.T)]:
        number[max(a, b)] = min(number[max(a, b)], number[min(a, b)])
    return number[number][corners]


def _oriented(corners: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Triangles turned so that neighbours agree, and which ones were."""
    sides = np.concatenate([corners[:, [k, (k + 1) % 3]] for k in range(3)])
    owner = np.tile(np.arange(len(corners)), 3)
    key = np.sort(sides, axis=1)
    order = np.lexsort(key.T[::-1])
    starts = np.flatnonzero(np.r_[True, (key[order][1:] != key[order][:-1]).any(axis=1)])
    counts = np.diff(np.r_[starts, len(order)])
    if (counts == 1).any():
        raise CaseError(
            f"{where}: the surface is open: {(counts == 1).sum()} edges belong to one triangle "
            "only. An obstacle needs a closed surface"
        )
    if (counts > 2).any():
        raise CaseError(
            f"{where}: {(counts > 2).sum()} edges belong to more than two triangles: the surface "
            "is not that of a body"
        )
    a, b = order[starts], order[starts + 1]
    agree = sides[a, 0] == sides[b, 1]  # neighbours pass their common edge in opposite senses
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    n = len(corners)
    i, j = owner[a], owner[b]
    graph = coo_array((np.ones(2 * len(i)), (np.r_[i, j], np.r_[j, i])), shape=(n, n)).tocsr()
    turn = {(p, q): not s for p, q, s in zip(i.tolist(), j.tolist(), agree.tolist(), strict=True)}
    flipped = np.zeros(n, dtype=bool)
    count, label = connected_components(graph, directed=False)
    for c in range(count):
        path, before = breadth_first_order(graph, int(np.argmax(label == c)), directed=False)
        for cell in path[1:].tolist():
            last = int(before[cell])
            flipped[cell] = flipped[last] ^ turn.get((last, cell), turn.get((cell, last), False))
    corners = corners.copy()
    corners[flipped] = corners[flipped][:, [0, 2, 1]]
    return corners, flipped


def _self_intersection(x: np.ndarray, corners: np.ndarray, where: str) -> None:
    """Refuse a surface where an edge of a triangle crosses a triangle that is no neighbour."""
    middle = x.mean(axis=1)
    reach = np.linalg.norm(x - middle[:, None], axis=2).max(axis=1)
    tree = cKDTree(middle)
    pairs = tree.query_pairs(2 * float(reach.max()), output_type="ndarray")
    if not len(pairs):
        return
    d = np.linalg.norm(middle[pairs[:, 0]] - middle[pairs[:, 1]], axis=1)
    pairs = pairs[d <= reach[pairs[:, 0]] + reach[pairs[:, 1]]]
    common = (corners[pairs[:, 0], :, None] == corners[pairs[:, 1], None, :]).any(axis=(1, 2))
    pairs = pairs[~common]
    for p, q in ((0, 1), (1, 0)):
        for k in range(3):
            start, end = x[pairs[:, p], k], x[pairs[:, p], (k + 1) % 3]
            hit = _crosses(start, end - start, x[pairs[:, q]])
            if hit.any():
                place = ", ".join(f"{v:.4g}" for v in start[np.argmax(hit)])
                raise CaseError(
                    f"{where}: the surface crosses itself, the first time about ({place})"
                )


def _crosses(origin: np.ndarray, d: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """Whether segments origin + t d, 0 <= t <= 1, pass through triangles (Moeller-Trumbore)."""
    e1, e2 = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
    p = np.cross(d, e2)
    det = np.einsum("ia,ia->i", e1, p)
    flat = np.abs(det) < 1e-14 * np.linalg.norm(d, axis=1) * np.linalg.norm(
        np.cross(e1, e2), axis=1
    )
    det = np.where(flat, 1.0, det)
    s = origin - triangle[:, 0]
    u = np.einsum("ia,ia->i", s, p) / det
    q = np.cross(s, e1)
    v = np.einsum("ia,ia->i", d, q) / det
    t = np.einsum("ia,ia->i", e2, q) / det
    return ~flat & (u > 0) & (v > 0) & (u + v < 1) & (t > 0) & (t < 1)


def _gauss(nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, unit normals and weights of a rule on straight or curved triangles."""
    L = _RULE
    # dL/ds, dL/dt of the coordinates s = L_1, t = L_2, with L_0 = 1 - s - t
    dL = np.array([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    if nodes.shape[1] == 3:
        phi, dphi = L, np.broadcast_to(dL, (len(L), 3, 2))
    else:  # gmsh and VTK: corners, then the edges 01, 12, 20
        edges = [(0, 1), (1, 2), (2, 0)]
        phi = np.concatenate(
            [L * (2 * L - 1), np.stack([4 * L[:, a] * L[:, b] for a, b in edges], axis=1)], axis=1
        )
        corner = (4 * L - 1)[:, :, None] * dL
        edge = np.stack(
            [4 * (L[:, a, None] * dL[b] + L[:, b, None] * dL[a]) for a, b in edges], axis=1
        )
        dphi = np.concatenate([corner, edge], axis=1)
    x = np.einsum("qk,cka->cqa", phi, nodes)
    tangents = np.einsum("qkt,cka->cqta", dphi, nodes)
    normal = np.cross(tangents[:, :, 0], tangents[:, :, 1])
    area = np.linalg.norm(normal, axis=2)
    weights = 0.5 * area * _WEIGHT
    return x.reshape(-1, 3), (normal / area[..., None]).reshape(-1, 3), weights.ravel()


def boundary_points(surface: Surface, n: int, seed: int = 0) -> np.ndarray:
    """Indices of n points of a cloud, denser where inner balls are small (curvature, edges)."""
    scale = np.clip(surface.depth, 0.1 * surface.depth.max(), None)
    return spread(surface.x, n, scale, seed)
