"""Steps z_next = 2 z - z_before - s A z in one pass over memory, for a sparse A of short rows.

The rows of A are stored in slices of eight, padded to the longest of the slice (sliced ELLPACK;
Monakov, Lokhmotov, Avetisyan 2010; Kreutzer et al. 2014, arXiv 1307.6209), so that eight rows are
one register; rows are sorted by length within windows, which leaves hardly any padding.
The vectors live in that order and are never copied. A step has to move

    12 B an entry of A (value and 32-bit column), 4 B + 32 B a row (slice; s, z, z_before twice).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numba import njit
from petsc4py import PETSc

LANES, WINDOW = 8, 4096


@njit(cache=True, fastmath=True, boundscheck=False, error_model="numpy")
def _step(start, columns, values, scale, z, before):  # type: ignore[no-untyped-def]
    """Overwrite `before` by 2 z - before - scale A z; indices are unsigned: no wrap-around test."""
    for k in range(len(start) - 1):
        a = b = c = d = e = f = g = h = 0.0
        for at in range(start[k], start[k + 1]):
            p = at * 8
            a += values[p] * z[columns[p]]
            b += values[p + 1] * z[columns[p + 1]]
            c += values[p + 2] * z[columns[p + 2]]
            d += values[p + 3] * z[columns[p + 3]]
            e += values[p + 4] * z[columns[p + 4]]
            f += values[p + 5] * z[columns[p + 5]]
            g += values[p + 6] * z[columns[p + 6]]
            h += values[p + 7] * z[columns[p + 7]]
        q = k * 8
        before[q] = 2.0 * z[q] - before[q] - scale[q] * a
        before[q + 1] = 2.0 * z[q + 1] - before[q + 1] - scale[q + 1] * b
        before[q + 2] = 2.0 * z[q + 2] - before[q + 2] - scale[q + 2] * c
        before[q + 3] = 2.0 * z[q + 3] - before[q + 3] - scale[q + 3] * d
        before[q + 4] = 2.0 * z[q + 4] - before[q + 4] - scale[q + 4] * e
        before[q + 5] = 2.0 * z[q + 5] - before[q + 5] - scale[q + 5] * f
        before[q + 6] = 2.0 * z[q + 6] - before[q + 6] - scale[q + 6] * g
        before[q + 7] = 2.0 * z[q + 7] - before[q + 7] - scale[q + 7] * h


@dataclass(frozen=True)
class SlicedEll:
    """Made by `sliced`; packed vectors have the owned rows, padding to whole slices, then ghosts.

    Attributes:
        place: of the owned rows in a packed vector, shape (n,).
        length: of a packed vector.
        scale: s, packed.
        start, columns, values: the slices.
        ghosts: where the packed vector's ghosts begin; sf: fetches them, None on one rank.
    """

    place: np.ndarray
    length: int
    scale: np.ndarray
    start: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    ghosts: int
    sf: PETSc.SF | None

    def pack(self, x: np.ndarray) -> np.ndarray:
        """A packed vector of owned values, shape (n,)."""
        z = np.zeros(self.length)
        z[self.place] = x
        return z

    def step(self, z: np.ndarray, before: np.ndarray) -> None:
        """Overwrite `before` by 2 z - before - s A z, packed. Collective."""
        if self.sf is not None:
            ghosts = np.empty(self.length - self.ghosts)
            self.sf.bcastBegin(MPI.DOUBLE, z[: self.ghosts], ghosts, MPI.REPLACE)
            self.sf.bcastEnd(MPI.DOUBLE, z[: self.ghosts], ghosts, MPI.REPLACE)
            z[self.ghosts :] = ghosts
        _step(self.start, self.columns, self.values, self.scale, z, before)


def sliced(A: PETSc.Mat, scale: np.ndarray) -> SlicedEll:
    """Slices of a PETSc matrix (AIJ, square) and s, shape (n,), one number a row. Collective."""
    indptr, columns, values = A.getValuesCSR()
    n, (first, last) = len(indptr) - 1, A.getOwnershipRange()
    lengths = np.diff(indptr)
    order = np.lexsort((np.arange(n), -lengths, np.arange(n) // WINDOW))
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    slices = -(-n // LANES)
    padded = slices * LANES

    # columns of other ranks follow the owned rows
    own = (columns >= first) & (columns < last)
    foreign = np.unique(columns[~own])
    local = np.empty(len(columns), dtype=np.int64)
    local[own] = place[columns[own] - first]
    local[~own] = padded + np.searchsorted(foreign, columns[~own])
    sf = _exchange(A, place, foreign, padded) if A.comm.size > 1 else None

    row = np.repeat(np.arange(n), lengths)
    in_row = np.arange(len(columns)) - np.repeat(indptr[:-1], lengths)
    width = np.zeros(padded, dtype=np.int64)
    width[place] = lengths
    width = width.reshape(slices, LANES).max(axis=1, initial=0)
    start = np.concatenate([[0], np.cumsum(width)])
    # a padded entry is 0 times the row's own value
    cols = np.repeat(np.arange(slices), width)[:, None] * LANES + np.arange(LANES)
    vals = np.zeros(cols.shape)
    at = place[row]
    cols[start[at // LANES] + in_row, at % LANES] = local
    vals[start[at // LANES] + in_row, at % LANES] = values
    s = np.zeros(padded)
    s[place] = scale
    return SlicedEll(
        place, padded + len(foreign), s, start.astype(np.uint64),
        cols.ravel().astype(np.uint32), vals.ravel(), padded, sf,
    )  # fmt: skip


def _exchange(A: PETSc.Mat, place: np.ndarray, foreign: np.ndarray, padded: int) -> PETSc.SF:
    """A star forest from packed owned values to the ghosts. Collective."""
    comm = A.comm.tompi4py()
    bounds = A.getOwnershipRanges()
    owner = np.searchsorted(bounds, foreign, side="right") - 1
    # ask the owners where they have put these rows
    asked = comm.alltoall([foreign[owner == r] - bounds[r] for r in range(comm.size)])
    answers = comm.alltoall([place[rows] for rows in asked])
    remote = np.column_stack([owner, np.concatenate(answers)]).astype(PETSc.IntType)
    sf = PETSc.SF().create(A.comm)
    sf.setGraph(padded, None, remote)
    sf.setUp()
    return sf
