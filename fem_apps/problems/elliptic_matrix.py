"""sum_q theta_q A_q in place: terms of one pattern, recombined straight into PETSc's storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from dolfinx.fem import petsc as fem_petsc
from numba import njit
from petsc4py import PETSc


class AffineMatrix:
    """A(theta) = sum_q theta_q A_q, rows and columns of held dofs replaced by the identity.

    Terms are stored by entry, and only where they are not zero: a term of one block costs nothing
    elsewhere, and entries that a single term touches are one product.

    Attributes:
        mat: A at the last theta; made by `finish`.
        lifted: A_q u_g of every term, before rows and columns were replaced.
    """

    def __init__(self, pattern: Any, bcs: list[Any], fixed: np.ndarray) -> None:
        """Begin with the pattern of a form. Collective."""
        self._scratch = fem_petsc.create_matrix(pattern)
        self._bcs, self._fixed = bcs, fixed
        self._csr: tuple[np.ndarray, np.ndarray] | None = None
        self._terms: list[np.ndarray] = []
        self.lifted: list[np.ndarray] = []

    def add(self, form: Any, lift: np.ndarray) -> None:
        """Assemble a term, whose pattern lies in the given one. Collective."""
        A = self._scratch
        A.zeroEntries()
        fem_petsc.assemble_matrix(A, form)
        A.assemble()
        x, y = A.createVecs()
        x.array_w[:] = lift
        A.mult(x, y)
        self.lifted.append(y.array_r.copy())
        A.zeroEntries()
        fem_petsc.assemble_matrix(A, form, bcs=self._bcs)
        A.assemble()
        indptr, columns, values = A.getValuesCSR()
        if self._csr is None:
            self._csr = indptr, columns
        self._terms.append(values.copy())
        for v in (x, y):
            v.destroy()

    def finish(self) -> None:
        """Make `mat`. Collective."""
        assert self._csr is not None
        indptr, columns = self._csr
        first, last = self._scratch.getOwnershipRange()
        n = last - first
        rows = np.repeat(np.arange(n), np.diff(indptr))
        here = (columns >= first) & (columns < last)
        order = np.concatenate([np.flatnonzero(here), np.flatnonzero(~here)])
        held = np.zeros(n, dtype=bool)
        held[self._fixed] = True
        unit = held[rows] & (columns == rows + first)
        one = unit.astype(float)
        terms = np.array([np.where(unit, 0.0, t) for t in self._terms] + [one])[:, order]
        rows, columns = rows[order], columns[order]
        self._values = np.zeros(len(order) + 1)
        inside = int(here.sum())

        def block(part: slice, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            ptr = np.concatenate([[0], np.cumsum(np.bincount(rows[part], minlength=n))])
            return ptr.astype(PETSc.IntType), cols.astype(PETSc.IntType), self._values[part]

        sizes = ((n, PETSc.DETERMINE), (n, PETSc.DETERMINE))
        own = block(slice(0, inside), columns[:inside] - first)
        comm = self._scratch.comm
        if comm.size == 1:
            self.mat = PETSc.Mat().createAIJWithArrays(sizes, own, comm=comm)
        else:
            ghost = block(slice(inside, len(order)), columns[inside:])
            self.mat = PETSc.Mat().createAIJWithArrays(sizes, (own, ghost), comm=comm)
        self.mat.assemble()
        self._make_sparse(terms)
        self._scratch.destroy()
        self._terms, self._csr = [], None
        self.mat.setOption(PETSc.Mat.Option.SPD, True)

    def _make_sparse(self, terms: np.ndarray) -> None:
        counts = (terms != 0).sum(axis=0)
        self._dense = float(counts.mean()) > 0.5 * len(terms)
        self._count = len(terms) - 1
        if self._dense:
            self._table = np.ascontiguousarray(terms.T)
            return
        # the first term of every entry, then the rest of those that have several
        q = (terms != 0).argmax(axis=0)
        self._single = q.astype(np.uint32), terms[q, np.arange(terms.shape[1])]
        rest = terms.copy()
        rest[q, np.arange(terms.shape[1])] = 0.0
        k, e = np.nonzero(rest.T)
        self._rest = k.astype(np.uint32), e.astype(np.uint32), rest[e, k]

    def combine(self, theta: np.ndarray) -> PETSc.Mat:
        """A(theta), in `mat`. Collective."""
        full = np.append(np.asarray(theta, dtype=float), 1.0)
        assert len(full) == self._count + 1
        if self._dense:
            np.dot(self._table, full, out=self._values[:-1])
        else:
            _combine(*self._single, *self._rest, full, self._values)
        self.mat.stateIncrease()
        self.mat.assemble()
        return self.mat

    def products(self, u: np.ndarray) -> Iterator[np.ndarray]:
        """A_q u of every term, u zero on held dofs; destroys the values of `mat`. Collective."""
        x, y = self.mat.createVecs()
        x.array_w[:] = u
        for q in range(self._count):
            A = self.combine(np.eye(self._count)[q])
            A.mult(x, y)
            out = y.array_r.copy()
            out[self._fixed] = 0.0
            yield out
        for v in (x, y):
            v.destroy()


@njit(cache=True, error_model="numpy")
def _combine(q, value, place, term, more, theta, out):  # type: ignore[no-untyped-def]
    for k in range(len(q)):
        out[k] = theta[q[k]] * value[k]
    for k in range(len(place)):
        out[place[k]] += theta[term[k]] * more[k]


def assemble_in_place(A: PETSc.Mat, form: Any, bcs: list[Any]) -> PETSc.Mat:
    """A form whose coefficients have changed, into its matrix. Collective."""
    A.zeroEntries()
    fem_petsc.assemble_matrix(A, form, bcs=bcs)
    A.assemble()
    return A
