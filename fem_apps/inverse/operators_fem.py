"""Elliptic parameter-to-data maps with exact discrete adjoints: -div(kappa grad u) = f.

The meshes of inverse problems are small and their solves many, so a mesh lives on one rank, and
samples or chains are what is shared out. K(kappa) = sum_c kappa_c K_c is written straight into a
band, its nodes in reverse Cuthill-McKee order, and factorised by LAPACK's banded Cholesky.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import basix
import numpy as np
import scipy.sparse as sp
import ufl
from dolfinx import fem, mesh
from petsc4py import PETSc
from scipy.linalg import lapack
from scipy.sparse.csgraph import reverse_cuthill_mckee

from fem_apps.errors import SolveError
from fem_apps.fem.cells import cell_map, tabulate
from fem_apps.fem.points import PointEvaluator

LARGEST = 1e60  # conductivity beyond which products of states and adjoints underflow


def on_one_rank(domain: Any) -> None:
    """Refuse a mesh that is spread over ranks. Raises ValueError."""
    if domain.comm.size > 1:
        raise ValueError("this operator wants its mesh whole: build it on a communicator of size 1")


class Band:
    """Symmetric positive definite matrices of one sparsity, as bands; Cholesky by LAPACK.

    Args:
        rows, columns: entries that may be written, both triangles or one, repeats allowed.
        size: order of the matrix.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, size: int) -> None:
        pattern = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
        self.order = reverse_cuthill_mckee(sp.csr_matrix(pattern + pattern.T), symmetric_mode=True)
        place = np.empty(size, dtype=np.int64)
        place[self.order] = np.arange(size)
        self._place = place
        i, j = place[rows], place[columns]
        self.lower = i >= j  # entries above the diagonal are their mirror images
        self.width = int((i - j).max()) + 1
        # Fortran order: column j of the band is contiguous
        self.slots = ((i - j) + self.width * j)[self.lower]
        self.size = size

    def factorise(self, band: np.ndarray, what: str) -> Callable[[np.ndarray], np.ndarray]:
        """The solver b -> A^-1 b, shapes (size,) or (size, k), of a band of shape (width * size,).

        Raises:
            SolveError: the matrix is not positive definite.
        """
        ab = band.reshape((self.width, self.size), order="F")
        factor, info = lapack.dpbtrf(ab, lower=1)
        if info != 0:
            raise SolveError(
                what, f"LAPACK's dpbtrf: info = {info}", advice="parameters within a narrower range"
            )
        order, place = self.order, self._place

        def solve(b: np.ndarray) -> np.ndarray:
            x, _ = lapack.dpbtrs(factor, b[order], lower=1)
            return x.reshape(b.shape)[place]

        return solve


def cell_matrices(V: Any) -> np.ndarray:
    """Integrals of grad phi_i . grad phi_j by cell, (cells, k, k), exact on affine cells."""
    domain = V.mesh
    F = cell_map(domain)
    kind = domain.basix_cell()
    X, w = basix.make_quadrature(kind, 2 * V.ufl_element().degree)
    geometry = tabulate(F.element, 1, X)
    x = F.nodes[F.dofmap]
    J = np.einsum("kqn,cnd->cqdk", geometry[1:], x)
    dphi = tabulate(V.element.basix_element, 1, X)[1:]
    gradient = np.einsum("cqkd,kqi->cqid", np.linalg.inv(J), dphi)
    scale = np.abs(np.linalg.det(J)) * w
    return np.einsum("cq,cqid,cqjd->cij", scale, gradient, gradient)


class Stiffness:
    """K(kappa) = sum_c kappa_c K_c + a fixed part, on the free nodes; kappa is constant on cells.

    Args:
        V: Lagrange space on a mesh of one rank.
        fixed: nodes with u = 0.
        extra: a symmetric matrix over all nodes added to K, such as a boundary mass.
    """

    def __init__(self, V: Any, fixed: np.ndarray, extra: sp.coo_matrix | None = None) -> None:
        on_one_rank(V.mesh)
        self.V, n = V, V.dofmap.index_map.size_local
        self.dofs = V.dofmap.list.astype(np.int64)
        self.K = cell_matrices(V)
        free = np.setdiff1d(np.arange(n), fixed)
        number = np.full(n, -1)
        number[free] = np.arange(len(free))
        self.free, self.nodes = free, n
        k = self.dofs.shape[1]
        cells = np.repeat(np.arange(len(self.dofs)), k * k)
        rows = number[np.repeat(self.dofs, k, axis=1).ravel()]
        columns = number[np.tile(self.dofs, k).ravel()]
        kept = (rows >= 0) & (columns >= 0)
        rows, columns = rows[kept], columns[kept]
        extra = sp.coo_matrix((n, n)) if extra is None else extra.tocoo()
        more = (number[extra.row], number[extra.col])
        self.band = Band(
            np.concatenate([rows, more[0]]), np.concatenate([columns, more[1]]), len(free)
        )
        lower, slots = self.band.lower, self.band.slots
        inner = int(lower[: len(rows)].sum())
        shape = (self.band.width * len(free), len(self.dofs))
        entries = (
            self.K.ravel()[kept][lower[: len(rows)]],
            (slots[:inner], cells[kept][lower[: len(rows)]]),
        )
        self._write = sp.csr_matrix(entries, shape=shape)
        self._fixed_part = np.zeros(shape[0])
        np.add.at(self._fixed_part, slots[inner:], extra.data[lower[len(rows) :]])

    def solver(self, kappa: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """B -> K(kappa)^-1 b on free nodes. Raises SolveError."""
        return self.band.factorise(self._write @ kappa + self._fixed_part, "the elliptic equation")

    def energy(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Integrals of grad u . grad v by cell, the derivative of v.K u; u, v over all nodes."""
        return np.einsum("ci,cij,cj->c", v[self.dofs], self.K, u[self.dofs], optimize=True)

    def action(self, dkappa: np.ndarray, u: np.ndarray) -> np.ndarray:
        """K(dkappa) u on the free nodes, u over all nodes."""
        local = np.einsum("cij,cj->ci", self.K, u[self.dofs]) * dkappa[:, None]
        return np.bincount(self.dofs.ravel(), local.ravel(), self.nodes)[self.free]

    def extend(self, u: np.ndarray) -> np.ndarray:
        """Values on the free nodes as values on all nodes, 0 elsewhere."""
        out = np.zeros((self.nodes, *u.shape[1:]))
        out[self.free] = u
        return out


def point_matrix(V: Any, points: np.ndarray) -> sp.csr_matrix:
    """E u = values at the points, shape (points, nodes), on one rank. Raises CaseError."""
    E = PointEvaluator(V.mesh, points, missing="error").matrix(V)
    first, columns, values = E.getValuesCSR()
    return sp.csr_matrix((values, columns, first), shape=E.getSize())


def load_vector(V: Any, f: Any) -> np.ndarray:
    """The integrals of f phi_i, over all nodes; f a number or a UFL expression."""
    domain = V.mesh
    f = fem.Constant(domain, PETSc.ScalarType(f)) if isinstance(f, int | float) else f
    return fem.assemble_vector(fem.form(f * ufl.TestFunction(V) * ufl.dx)).array.copy()


def boundary_nodes(V: Any) -> np.ndarray:
    """Nodes of V on the boundary of its mesh."""
    domain = V.mesh
    tdim = domain.topology.dim
    domain.topology.create_connectivity(tdim - 1, tdim)
    facets = mesh.exterior_facet_indices(domain.topology)
    return fem.locate_dofs_topological(V, tdim - 1, facets)


@dataclass(frozen=True)
class LogConductivity:
    """m -> B u with -div(exp(P m) grad u) = f, u = 0 on the boundary.

    Attributes:
        stiffness: K on the free nodes.
        f: load on the free nodes.
        P: parameters to cells, shape (cells, n).
        B: free nodes to data, shape (m, free nodes).
    """

    stiffness: Stiffness
    f: np.ndarray
    P: sp.csr_matrix
    B: sp.csr_matrix

    @cached_property
    def Pt(self) -> sp.csr_matrix:
        """P^T."""
        return self.P.T.tocsr()

    @cached_property
    def Bt(self) -> sp.csr_matrix:
        """B^T."""
        return self.B.T.tocsr()

    def at(self, m: np.ndarray) -> LinearisedConductivity:
        """The state and everything that its derivatives need. Raises SolveError."""
        kappa = np.exp(self.P @ m)
        if not (kappa < LARGEST).all():
            raise SolveError(
                "the elliptic equation",
                f"the conductivity exceeds {LARGEST:g}",
                advice="a prior of smaller variance, or a shorter step",
            )
        solve = self.stiffness.solver(kappa)
        return LinearisedConductivity(self, kappa, solve, solve(self.f))


@dataclass(frozen=True)
class LinearisedConductivity:
    """A `LogConductivity` at m: data, first and second derivatives, one factorisation for all.

    Attributes:
        model: the operator.
        kappa: conductivity of the cells.
        solve: K^-1.
        u: the state on the free nodes.
    """

    model: LogConductivity
    kappa: np.ndarray
    solve: Callable[[np.ndarray], np.ndarray]
    u: np.ndarray

    @cached_property
    def state(self) -> np.ndarray:
        """The state on all nodes."""
        return self.model.stiffness.extend(self.u)

    @property
    def data(self) -> np.ndarray:
        """B u, shape (m,)."""
        return self.model.B @ self.u

    def jvp(self, h: np.ndarray) -> np.ndarray:
        """J h: B du with K du = -K(kappa P h) u."""
        dk = self.kappa * (self.model.P @ h)
        return self.model.B @ self.solve(-self.model.stiffness.action(dk, self.state))

    def vjp(self, w: np.ndarray) -> np.ndarray:
        """J^T w: P^T(kappa grad u . grad p) with K p = -B^T w."""
        p = self.model.stiffness.extend(self.solve(-(self.model.Bt @ w)))
        return self.model.Pt @ (self.kappa * self.model.stiffness.energy(self.state, p))

    def jacobian(self) -> np.ndarray:
        """J, shape (m, n): one adjoint solve for each datum."""
        s = self.model.stiffness
        p = s.extend(self.solve(-self.model.Bt.toarray()))
        products = np.einsum("ci,cij,cjm->cm", self.state[s.dofs], s.K, p[s.dofs], optimize=True)
        return np.ascontiguousarray((self.model.Pt @ (self.kappa[:, None] * products)).T)

    def hessian(
        self, h: np.ndarray, w: np.ndarray, weight: float, *, gauss_newton: bool = False
    ) -> np.ndarray:
        """H h of weight |B u - y|^2/2, w = weight (B u - y): two solves more.

        K du = -K(dk) u,  K dp = -K(dk) p - weight B^T B du,
        H h = P^T(dk grad u . grad p + kappa (grad du . grad p + grad u . grad dp)).
        """
        s, P = self.model.stiffness, self.model.P
        dk = self.kappa * (P @ h)
        du = self.solve(-s.action(dk, self.state))
        pull = weight * (self.model.Bt @ (self.model.B @ du))
        if gauss_newton:
            dp = s.extend(self.solve(-pull))
            return self.model.Pt @ (self.kappa * s.energy(self.state, dp))
        p = s.extend(self.solve(-(self.model.Bt @ w)))
        dp = s.extend(self.solve(-s.action(dk, p) - pull))
        g = dk * s.energy(self.state, p)
        g += self.kappa * (s.energy(s.extend(du), p) + s.energy(self.state, dp))
        return self.model.Pt @ g
