"""A PETSc matrix on a node graph whose values live in one numpy array that we may overwrite.

PETSc's own insertion searches every entry's place; here places are found once and a kernel writes
straight into PETSc's storage (`createAIJWithArrays` with separate diagonal and off-diagonal blocks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from petsc4py import PETSc

from fem_apps.fem.node_graph import NodeGraph


@dataclass(frozen=True)
class EdgeMatrix:
    """Attributes:
    mat: the matrix, rows and columns numbered as the graph's nodes.
    values: its entries; call `changed` after writing.
    diagonal: places in `values` of the diagonal, shape (n,).
    entries: places in `values` of the graph's edges, in the order of `graph.cols`.
    """

    mat: PETSc.Mat
    values: np.ndarray
    diagonal: np.ndarray
    entries: np.ndarray

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
    values = np.zeros(len(order))
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
        ghost = block(slice(inside, None), graph.ghosts[j[inside:] - n])
        mat = PETSc.Mat().createAIJWithArrays(sizes, (own, ghost), comm=graph.comm)
    mat.assemble()
    return EdgeMatrix(mat, values, place[nnz:], place[:nnz])
