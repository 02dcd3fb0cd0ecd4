"""Projection and errors of densities that may jump inside cells.

Where a density has jumps, Gauss quadrature of whatever degree is no better than first order, and
what counts is many points: cells are cut into 6^tdim equal parts (36 triangles), their centroids
the points. Elsewhere Gauss quadrature of degree 2k + 4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import basix
import numpy as np
from mpi4py import MPI

from fem_apps.fem.cells import cell_map, tabulate
from fem_apps.fem.expressions import Expression
from fem_apps.problems.continuity_cells import Cells

CUTS = 6
SMOOTH_MORE = 4
# where one of these occurs, a text may jump or kink
JUMPING = ("where", "sign", "abs", "min", "max")


def may_jump(e: Expression) -> bool:
    """Whether an expression has a function that jumps or kinks."""
    return any(f"{name}(" in e.text.replace(" ", "") for name in JUMPING)


@lru_cache
def points_and_weights(cell: str, degree: int, jumps: bool) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature of the reference cell: points (m, tdim), weights (m,)."""
    kind = getattr(basix.CellType, cell)
    if not jumps:
        X, w = basix.make_quadrature(kind, 2 * degree + SMOOTH_MORE)
        return X, w
    simplex = cell in ("triangle", "tetrahedron")
    if cell == "tetrahedron":  # eight-fold cuts have no equal parts: Gauss in each of CUTS^3 boxes
        X, w = basix.make_quadrature(kind, 12)
        return X, w
    tdim = {"interval": 1, "triangle": 2, "quadrilateral": 2, "hexahedron": 3}[cell]
    i = np.stack(np.meshgrid(*[np.arange(CUTS)] * tdim, indexing="ij"), axis=-1).reshape(-1, tdim)
    if not simplex:
        return (i + 0.5) / CUTS, np.full(len(i), CUTS**-tdim)
    up = i[i.sum(axis=1) < CUTS] + 1 / 3
    down = i[i.sum(axis=1) < CUTS - 1] + 2 / 3
    X = np.concatenate([up, down]) / CUTS
    return X, np.full(len(X), 0.5 / CUTS**2)


class Subcells:
    """Quadrature points of the owned cells for given data."""

    def __init__(self, cells: Cells, jumps: bool) -> None:
        """Tabulate."""
        self._cells = cells
        mesh = cells.data.mesh
        X, w = points_and_weights(mesh.topology.cell_name(), cells.degree, jumps)
        F = cell_map(mesh)
        a = F.nodes[F.dofmap[: cells.size]]
        J = np.einsum("kqn,cnd->cqdk", tabulate(F.element, 1, X)[1:], a)
        self.weights = w * np.sqrt(np.linalg.det(np.swapaxes(J, -1, -2) @ J))
        self.x = np.einsum("qn,cnd->cqd", tabulate(F.element, 0, X)[0], a)
        self._phi = tabulate(cells.V.ufl_element().basix_element, 0, X)[0]

    def _values(self, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.asarray(f(self.x.reshape(-1, self.x.shape[2]).T)).reshape(self.x.shape[:2])

    def values(self, u: np.ndarray) -> np.ndarray:
        """A density (n, nb) at the points."""
        return u @ self._phi.T

    def project(self, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Values (n, nb) of the L2 projection of f(x), x of shape (gdim, m)."""
        rhs = np.einsum("cq,cq,qi->ci", self.weights, self._values(f), self._phi)
        k = self._cells
        if k.affine:
            return rhs @ k.mass_inverse[0].T / k.volume[:, None]
        return np.einsum("cij,cj->ci", k.mass_inverse, rhs)

    def errors(self, u: np.ndarray, f: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """L1 and L2 norms of u - f over all ranks. Collective."""
        e = self.values(u) - self._values(f)
        local = np.array([(self.weights * abs(e)).sum(), (self.weights * e**2).sum()])
        l1, l2 = self._cells.comm.allreduce(local, op=MPI.SUM)
        return float(l1), float(np.sqrt(l2))
