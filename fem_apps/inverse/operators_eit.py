"""Electrical impedance tomography: complete electrode model, P1, exact derivatives.

Find (u, U), sum U_l = 0, with

    int sigma grad u . grad v + sum_l (1/z_l) int_{e_l} (u - U_l)(v - V_l) = sum_l I_l V_l

for all (v, V) (Somersalo, Cheney, Isaacson, 1992). Data are the voltages U of the L - 1 current
patterns I = e_1 - e_(k+1). The nodal block A = K(sigma) + sum M_l/z_l is a band with one Cholesky
factor; the electrodes are eliminated by the dense Schur complement S = D - C^T A^-1 C on vectors of
sum zero, of which U is the solution: S U = I.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import ufl
from dolfinx import fem, mesh
from scipy.linalg import cho_factor, cho_solve

from fem_apps.errors import SolveError
from fem_apps.inverse.operators_fem import Stiffness
from fem_apps.inverse.operators_source import sparse

log = logging.getLogger(__name__)

# Part by which an electrode's length may be wrong before it is told.
UNEQUAL = 0.05


def mean_free(L: int) -> np.ndarray:
    """Orthonormal columns that span the vectors of sum zero, shape (L, L - 1)."""
    return np.linalg.qr(np.eye(L) - 1.0 / L)[0][:, : L - 1]


@dataclass(frozen=True)
class ElectrodeModel:
    """m -> voltages of all patterns, sigma = exp(P m) on cells; data ordered pattern by pattern.

    Attributes:
        stiffness: with the electrodes' boundary mass as its fixed part.
        C: -(1/z_l) int_{e_l} phi_i, shape (nodes, L).
        D: |e_l|/z_l, shape (L,).
        P: parameters to cells.
        currents: I, one pattern a row of sum zero, shape (patterns, L).
    """

    stiffness: Stiffness
    C: np.ndarray
    D: np.ndarray
    P: sp.csr_matrix
    currents: np.ndarray

    def at(self, m: np.ndarray) -> LinearisedElectrodes:
        """The potentials and everything that derivatives need. Raises SolveError."""
        return self.at_conductivity(np.exp(self.P @ m))

    def at_conductivity(self, sigma: np.ndarray) -> LinearisedElectrodes:
        """The same for a conductivity of the cells."""
        solve = self.stiffness.solver(sigma)
        Q = mean_free(len(self.D))
        X = solve(self.C @ Q)
        try:
            schur = cho_factor(Q.T @ (self.D[:, None] * Q) - (self.C @ Q).T @ X)
        except np.linalg.LinAlgError as e:
            raise SolveError(
                "the electrodes' equations", str(e), advice="conductivities within a narrower range"
            ) from None
        return LinearisedElectrodes(self, sigma, solve, Q, X, schur)


@dataclass(frozen=True)
class LinearisedElectrodes:
    """An `ElectrodeModel` at sigma.

    Attributes:
        model: the operator.
        kappa: conductivity of the cells.
        solve: A^-1 on nodal vectors.
        Q: basis of electrode vectors of sum zero.
        X: A^-1 C Q.
        schur: Cholesky factor of Q^T S Q.
    """

    model: ElectrodeModel
    kappa: np.ndarray
    solve: Callable[[np.ndarray], np.ndarray]
    Q: np.ndarray
    X: np.ndarray
    schur: Any

    def system(self, load: np.ndarray, currents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(u, U) for loads on nodes and electrodes, shapes (nodes, k), (L, k); U has sum zero."""
        lifted = self.solve(load) if load.any() else np.zeros_like(load)
        w = cho_solve(self.schur, self.Q.T @ currents - (self.model.C @ self.Q).T @ lifted)
        return lifted - self.X @ w, self.Q @ w

    @cached_property
    def potentials(self) -> tuple[np.ndarray, np.ndarray]:
        """(u, U) of every pattern, shapes (nodes, patterns), (L, patterns)."""
        I = self.model.currents.T
        return self.system(np.zeros((len(self.model.C), I.shape[1])), I)

    @property
    def data(self) -> np.ndarray:
        """Voltages, shape (patterns L,)."""
        return self.potentials[1].T.ravel()

    @property
    def state(self) -> np.ndarray:
        """The first pattern's potential, for pictures."""
        return self.potentials[0][:, 0]

    def _push(self, dk: np.ndarray, u: np.ndarray) -> np.ndarray:
        """K(dk) u of every pattern."""
        s = self.model.stiffness
        return np.stack([s.action(dk, column) for column in u.T], axis=1)

    def _density(self, u: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Grad u . grad p by cell, summed over patterns."""
        s = self.model.stiffness
        return np.einsum("cik,cij,cjk->c", u[s.dofs], s.K, p[s.dofs], optimize=True)

    def _adjoint(self, w: np.ndarray) -> np.ndarray:
        """The solution p with -w on the electrodes (the matrix is symmetric)."""
        W: np.ndarray = -w.reshape(self.model.currents.shape).T
        return self.system(np.zeros((len(self.model.C), W.shape[1])), W)[0]

    def jvp(self, h: np.ndarray) -> np.ndarray:
        """J h."""
        u, U = self.potentials
        dk = self.kappa * (self.model.P @ h)
        return self.system(-self._push(dk, u), np.zeros_like(U))[1].T.ravel()

    def vjp(self, w: np.ndarray) -> np.ndarray:
        """J^T w: one more solve of every pattern."""
        return self.model.P.T @ (self.kappa * self._density(self.potentials[0], self._adjoint(w)))

    def jacobian(self) -> np.ndarray:
        """J, shape (patterns L, n): all products of patterns and unit electrodes, L solves."""
        s, u = self.model.stiffness, self.potentials[0]
        p = self.system(np.zeros_like(self.model.C), -np.eye(len(self.model.D)))[0]
        products = (s.K @ u[s.dofs]).transpose(0, 2, 1) @ p[s.dofs]
        J = self.model.P.T @ (self.kappa[:, None] * products.reshape(len(products), -1))
        return np.ascontiguousarray(J.T)

    def hessian(
        self, h: np.ndarray, w: np.ndarray, weight: float, *, gauss_newton: bool = False
    ) -> np.ndarray:
        """The Hessian of weight |U - y|^2/2 applied to h, w = weight (U - y)."""
        u, U = self.potentials
        dk = self.kappa * (self.model.P @ h)
        du, dU = self.system(-self._push(dk, u), np.zeros_like(U))
        if gauss_newton:
            dp = self.system(np.zeros_like(u), -weight * dU)[0]
            return self.model.P.T @ (self.kappa * self._density(u, dp))
        p = self._adjoint(w)
        dp = self.system(-self._push(dk, p), -weight * dU)[0]
        g = dk * self._density(u, p) + self.kappa * (self._density(du, p) + self._density(u, dp))
        return self.model.P.T @ g


def electrode_model(
    V: Any,
    electrodes: Sequence[np.ndarray],
    contact: Sequence[float],
    P: sp.csr_matrix,
    currents: np.ndarray | None = None,
) -> ElectrodeModel:
    """The model of a mesh.

    Args:
        V: P1 space on a mesh of one rank.
        electrodes: facets of each electrode.
        contact: z_l.
        P: parameters to cells.
        currents: patterns, shape (patterns, L); e_1 - e_(k+1) where left out.
    """
    domain = V.mesh
    tdim = domain.topology.dim
    facets = np.concatenate(electrodes).astype(np.int32)
    marks = np.concatenate([np.full(len(e), k) for k, e in enumerate(electrodes)]).astype(np.int32)
    order = np.argsort(facets)
    tags = mesh.meshtags(domain, tdim - 1, facets[order], marks[order])
    ds = ufl.Measure("ds", domain=domain, subdomain_data=tags)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    one = fem.Constant(domain, 1.0)
    L = len(electrodes)
    boundary = sum(fem.Constant(domain, 1.0 / z) * u * v * ds(k) for k, z in enumerate(contact))
    C = np.stack(
        [-fem.assemble_vector(fem.form(one * v * ds(k))).array / z for k, z in enumerate(contact)],
        axis=1,
    )
    D = -C.sum(axis=0)
    if currents is None:
        currents = np.hstack([np.ones((L - 1, 1)), -np.eye(L - 1)])
    stiffness = Stiffness(V, np.zeros(0, int), sparse(boundary).tocoo())
    return ElectrodeModel(stiffness, C, D, P, np.asarray(currents, float))


def disc_impedance(
    comm: Any, *, electrodes: int, contact: float, h: float, pixels: int
) -> tuple[ElectrodeModel, np.ndarray]:
    """The unit disc with equal electrodes on half of its circle, log-conductivity of square pixels.

    Args:
        comm: of size 1.
        electrodes: L.
        contact: z_l of all.
        h: size of the triangles.
        pixels: a side of [-1, 1]^2.

    Returns:
        The model, and the pixels (row by row, y upwards) that hold a cell: its unknowns.
    """
    from fem_apps.meshing import MeshCase, build

    domain = build(comm, MeshCase(geometry="disc", parameters={"h": h, "radius": 1.0})).mesh
    V = fem.functionspace(domain, ("Lagrange", 1))
    domain.topology.create_connectivity(1, 2)
    facets = mesh.exterior_facet_indices(domain.topology)
    middle = mesh.compute_midpoints(domain, 1, facets)
    turn = np.mod(np.arctan2(middle[:, 1], middle[:, 0]) / (2 * np.pi) * electrodes, electrodes)
    found = [facets[(turn >= k) & (turn < k + 0.5)] for k in range(electrodes)]
    if min(map(len, found)) == 0:
        from fem_apps.errors import CaseError

        raise CaseError(
            f"problem.h = {h:g} is too coarse for {electrodes} electrodes: one has no facet"
        )
    cells = domain.topology.index_map(2).size_local
    centre = mesh.compute_midpoints(domain, 2, np.arange(cells, dtype=np.int32))
    i, j = np.clip(((centre[:, :2].T + 1) * pixels / 2).astype(int), 0, pixels - 1)
    inside, number = np.unique(j * pixels + i, return_inverse=True)
    P = sp.csr_matrix((np.ones(cells), (np.arange(cells), number)), shape=(cells, len(inside)))
    model = electrode_model(V, found, [contact] * electrodes, P)
    lengths, wanted = contact * model.D, np.pi / electrodes
    if np.abs(lengths / wanted - 1).max() > UNEQUAL:
        log.warning(
            "electrodes are %.3g to %.3g long on this mesh, not %.3g: their ends are no nodes; "
            "problem.h = pi/(2 k electrodes), k a whole number, makes them so",
            *(lengths.min(), lengths.max(), wanted),
        )
    return model, inside
