"""The P1 matrix of -div(kappa grad), kappa constant on each cell, as a linear map of kappa.

    A_ij = sum_T kappa_T S^T_ij,   S^T_ij = int_T grad phi_i . grad phi_j

The S^T are computed once; after that a matrix is a pass over the edges of the mesh. The diagonal is
minus the sum of its row, which is exact, as constants are in the kernel of every S^T; by symmetry
an edge is computed once, and then gathered into both of its rows. (TensorGalerkin, arXiv
2602.05052, has the same map for GPUs.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from petsc4py import PETSc

from fem_apps.compat import coordinate_element, geometry_dofmap
from fem_apps.fem.edge_matrix import EdgeMatrix, create
from fem_apps.fem.node_graph import NodeGraph

BLOCK = 256


@dataclass(frozen=True)
class CellStiffness:
    """kappa -> A(kappa) in place; made by `cell_stiffness`.

    Attributes:
        matrix: A, on the nodes of the graph; no boundary condition is in it.
    """

    matrix: EdgeMatrix
    _number: np.ndarray = field(repr=False)
    _edge_of: np.ndarray = field(repr=False)
    _start: np.ndarray = field(repr=False)
    _cell: np.ndarray = field(repr=False)
    _part: np.ndarray = field(repr=False)
    _row: np.ndarray = field(repr=False)
    _a: np.ndarray = field(repr=False)
    _halo: PETSc.Vec = field(repr=False)

    def assemble(self, kappa: np.ndarray) -> PETSc.Mat:
        """A(kappa), in `matrix.mat`; kappa has a value for each owned cell. Collective."""
        A = self.matrix
        if self._halo.comm.size > 1:
            self._halo.array_w[:] = kappa
            self._halo.ghostUpdate(addv=PETSc.InsertMode.INSERT, mode=PETSc.ScatterMode.FORWARD)
            with self._halo.localForm() as local:
                kappa = local.array_r.copy()
        _edges(self._start, self._cell, self._part, kappa, self._a)
        _gather(
            A.edges, A.here, self._number, self._edge_of, self._row, self._a, A.diagonal, A.values
        )
        A.changed()
        return A.mat


def cell_stiffness(graph: NodeGraph) -> CellStiffness:
    """The map for the mesh of a graph, of straight cells; without periods. Collective."""
    mesh = graph.V.mesh
    assert not graph.lattice
    assert coordinate_element(mesh).degree == 1
    comm, cells = graph.comm, mesh.topology.index_map(mesh.topology.dim)
    dofs = graph.V.dofmap.list[: cells.size_local]
    x = mesh.geometry.x[geometry_dofmap(mesh)[: cells.size_local]]
    edges = x[:, 1:] - x[:, :1]
    gram = edges @ edges.transpose(0, 2, 1)
    volume = np.sqrt(np.linalg.det(gram)) / (
        2.0 if mesh.topology.dim == 2 else 6.0 if mesh.topology.dim == 3 else 1.0
    )
    # grad phi_a . grad phi_b, a, b > 0, is the inverse of the Gram matrix; phi_0 = 1 - the others
    local = np.zeros((len(x), x.shape[1], x.shape[1]))
    local[:, 1:, 1:] = np.linalg.inv(gram) * volume[:, None, None]
    local[:, 0, 1:] = local[:, 1:, 0] = -local[:, 1:, 1:].sum(axis=1)
    a, b = np.nonzero(~np.eye(x.shape[1], dtype=bool))
    number = graph.V.dofmap.index_map.local_to_global(dofs.ravel().astype(np.int32)).reshape(
        dofs.shape
    )
    cell = cells.local_range[0] + np.repeat(np.arange(len(x)), len(a))
    i, j, cell, part = _to_owners(
        graph, number[:, a].ravel(), number[:, b].ravel(), cell, local[:, a, b].ravel()
    )
    matrix = create(graph)
    indptr, cols, _ = matrix.edges
    names = np.concatenate([graph.offset + np.arange(graph.n), graph.ghosts])
    rows = np.repeat(np.arange(graph.n), np.diff(indptr))
    total = graph.size
    # the edge of each part, by the global numbers of its ends
    keys = names[rows] * total + names[cols]
    order = np.argsort(keys)
    near = (j >= graph.offset) & (j < graph.offset + graph.n)
    keep = (i < j) | ~near
    i, j, cell, part = i[keep], j[keep], cell[keep], part[keep]
    edge = order[np.searchsorted(keys[order], i * total + j)]
    # within a block of rows, edges of equally many cells follow each other: foreseen loop lengths
    count = np.bincount(edge, minlength=len(cols))
    number = np.argsort(np.lexsort((count, rows // BLOCK)))
    edge = number[edge]
    order = np.lexsort((cell, edge))
    edge, cell, part = edge[order], cell[order], part[order]
    start = np.concatenate([[0], np.cumsum(np.bincount(edge, minlength=len(cols)))])
    # the edge behind each entry of the block of owned columns; behind the diagonal, one of weight 0
    own = np.flatnonzero(cols < graph.n)
    edge_of = np.full(graph.n + 2 * len(own), len(cols))
    edge_of[matrix.here[own]] = edge_of[matrix.back[own]] = number[own]
    places = np.concatenate([rows[own], cols[own], np.arange(graph.n)])
    row = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=graph.n))])
    mine = (cell >= cells.local_range[0]) & (cell < cells.local_range[1])
    ghosts = np.unique(cell[~mine])
    place = np.where(
        mine, cell - cells.local_range[0], cells.size_local + np.searchsorted(ghosts, cell)
    )
    halo = PETSc.Vec().createGhost(
        ghosts.astype(PETSc.IntType), size=(cells.size_local, PETSc.DETERMINE), comm=comm
    )
    return CellStiffness(
        matrix,
        number.astype(np.uint32),
        edge_of.astype(np.uint32),
        start.astype(np.uint32),
        place.astype(np.uint32),
        part,
        row.astype(np.uint32),
        np.zeros(len(cols) + 1),
        halo,
    )


def _to_owners(graph: NodeGraph, i: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Send rows (i, ...) to the ranks that own the nodes i. Collective."""
    comm = graph.comm
    firsts = np.array(comm.allgather(graph.offset))
    owner = np.searchsorted(firsts, i, side="right") - 1
    send = [[c[owner == r] for c in (i, *columns)] for r in range(comm.size)]
    received = comm.alltoall(send)
    return [np.concatenate(parts) for parts in zip(*received, strict=True)]


@njit(cache=True, error_model="numpy")
def _edges(start, cell, part, kappa, a):  # type: ignore[no-untyped-def]
    low = start[0]
    for e in range(len(start) - 1):
        high = start[e + 1]
        s = 0.0
        for c in range(low, high):
            s += part[c] * kappa[cell[c]]
        low = high
        a[e] = s


@njit(cache=True, error_model="numpy")
def _gather(edges, here, number, edge_of, row, a, diagonal, values):  # type: ignore[no-untyped-def]
    indptr, cols, _ = edges
    for i in range(len(diagonal)):
        s = 0.0
        for k in range(row[i], row[i + 1]):
            value = a[edge_of[k]]
            values[k] = value
            s += value
        values[diagonal[i]] = -s
    if len(values) - 1 > len(edge_of):
        for i in range(len(diagonal)):
            for e in range(indptr[i], indptr[i + 1]):
                if cols[e] >= len(diagonal):
                    values[here[e]] = a[number[e]]
                    values[diagonal[i]] -= a[number[e]]
