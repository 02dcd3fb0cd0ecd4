"""A PETSc matrix on a node graph whose values live in one numpy array that we may overwrite.

PETSc's own insertion searches every entry's place; here places are found once and a kernel writes
straight into PETSc's storage (`createAIJWithArrays`, diagonal and off-diagonal blocks apart).
Kernels take each edge once, and write both of its entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from petsc4py import PETSc

from fem_apps.fem.node_graph import NodeGraph


@dataclass(frozen=True)
class EdgeMatrix:
    """A matrix, the array of its entries, and where the edges of the graph are in it.

    Attributes:
        mat: the matrix, rows and columns numbered as the graph's nodes.
        values: its entries, and one more that nothing reads; call `changed` after writing.
        diagonal: places in `values` of the diagonal, shape (n,).
        edges: (indptr, cols, weight), the entries of the graph with i < j, each edge once. Ghosts
            follow the owned nodes, so an edge to a ghost is here; its other row is another rank's.
        here: places in `values` of these entries.
        back: places of the entries j, i; the one that nothing reads where j is a ghost.
    """

    mat: PETSc.Mat
    values: np.ndarray
    diagonal: np.ndarray
    edges: tuple[np.ndarray, np.ndarray, np.ndarray]
    here: np.ndarray
    back: np.ndarray

    def changed(self) -> None:
        """Tell PETSc that `values` were overwritten. Collective."""
        self.mat.stateIncrease()
        self.mat.assemble()


def create(graph: NodeGraph) -> EdgeMatrix:
    """A matrix with the graph's pattern and diagonal, all entries zero. Collective."""
    n, nnz = graph.n, len(graph.cols)
    rows = np.repeat(np.arange(n), np.diff(graph.indptr))
    # edges, then the diagonal; sorted by block, row, column
    i = np.concatenate([rows, np.arange(n)])
    j = np.concatenate([graph.cols, np.arange(n)])
    order = np.lexsort((j, i, j >= n))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    values = np.zeros(len(order) + 1)
    i, j = i[order], j[order]
    inside = int((j < n).sum())

    def block(part: slice, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        indptr = np.concatenate([[0], np.cumsum(np.bincount(i[part], minlength=n))])
        return indptr.astype(PETSc.IntType), columns.astype(PETSc.IntType), values[part]

    sizes = ((n, PETSc.DETERMINE), (n, PETSc.DETERMINE))
    own = block(slice(0, inside), j[:inside])
    if graph.comm.size == 1:
        mat = PETSc.Mat().createAIJWithArrays(sizes, own, comm=graph.comm)
    else:
        ghost = block(slice(inside, nnz + n), graph.ghosts[j[inside:] - n])
        mat = PETSc.Mat().createAIJWithArrays(sizes, (own, ghost), comm=graph.comm)
    mat.assemble()
    upper, lower = np.flatnonzero(rows < graph.cols), np.flatnonzero(rows > graph.cols)
    upper = upper[np.lexsort((graph.cols[upper], rows[upper]))]
    lower = lower[np.lexsort((rows[lower], graph.cols[lower]))]
    back = np.full(len(upper), nnz + n)
    mutual = graph.cols[upper] < n
    assert np.array_equal(graph.cols[upper][mutual], rows[lower])
    assert np.array_equal(rows[upper][mutual], graph.cols[lower])
    back[mutual] = place[lower]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[upper], minlength=n))])
    # unsigned: no test for an index from the end
    cols, here, back = (a.astype(np.uint32) for a in (graph.cols[upper], place[upper], back))
    edges = (indptr, cols, graph.weight[upper])
    return EdgeMatrix(mat, values, place[nnz:].astype(np.uint32), edges, here, back)
