"""Cells of a mesh: their numbers in the input, their sizes, and the map from the reference cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import basix.ufl
import numpy as np
from mpi4py import MPI

from fem_apps import compat


def cell_counts(mesh: Any) -> tuple[int, int]:
    """Owned cells of this rank, and owned cells with ghosts."""
    index_map = mesh.topology.index_map(mesh.topology.dim)
    return index_map.size_local, index_map.size_local + index_map.num_ghosts


def input_cells(mesh: Any) -> np.ndarray:
    """Number in the input mesh of every local cell, ghosts too, shape (cells,).

    It does not depend on the rank count. A submesh has no input: there it is DOLFINx's global
    number, which does.
    """
    index_map = mesh.topology.index_map(mesh.topology.dim)
    _, local = cell_counts(mesh)
    try:
        original = np.asarray(mesh.topology.original_cell_index, dtype=np.int64)
    except RuntimeError:  # submesh
        original = np.empty(0, dtype=np.int64)
    if original.size >= local:
        return original[:local]
    return index_map.local_to_global(np.arange(local, dtype=np.int32)).astype(np.int64)


def largest_cell(mesh: Any) -> float:
    """Largest diameter h of a cell, over all ranks. Collective."""
    owned, _ = cell_counts(mesh)
    cells = np.arange(owned, dtype=np.int32)
    h = mesh.h(mesh.topology.dim, cells).max() if owned else 0.0
    return float(mesh.comm.allreduce(float(h), op=MPI.MAX))


def tabulate(element: Any, derivatives: int, X: np.ndarray) -> np.ndarray:
    """Basis functions of a scalar basix element, shape (derivatives, points, basis functions).

    Basix aborts the process when it is given no points.
    """
    if len(X) == 0:
        order = 1 if derivatives == 0 else 1 + X.shape[1]
        return np.zeros((order, 0, element.dim))
    return element.tabulate(derivatives, X)[..., 0]


@dataclass(frozen=True)
class CellMap:
    """The maps x = F(X) from the reference cell, for many pairs of a cell and a point at once.

    Attributes:
        element: scalar Lagrange element of the geometry.
        nodes: coordinates of the geometry's nodes, shape (nodes, gdim).
        dofmap: nodes of each local cell, shape (cells, nodes a cell).
        simplex: whether the reference cell is a simplex (else a box).
    """

    element: Any
    nodes: np.ndarray
    dofmap: np.ndarray
    simplex: bool

    @property
    def affine(self) -> bool:
        """Whether F is affine on every cell."""
        return self.simplex and self.element.degree == 1

    def push_forward(self, cells: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The points x = F(X), shapes (n,), (n, tdim) -> (n, gdim)."""
        phi = tabulate(self.element, 0, X)[0]
        return np.einsum("pn,pnd->pd", phi, self.nodes[self.dofmap[cells]])

    def pull_back(self, cells: np.ndarray, x: np.ndarray) -> np.ndarray:
        """X that minimises |F(X) - x|, by Gauss-Newton, shapes (n,), (n, gdim) -> (n, tdim).

        On a surface it is the foot of the perpendicular. X may lie outside the reference cell;
        iterates are kept within one cell's size of it, where F is still a map.
        """
        tdim = _dimension(self.element)
        corner = 1.0 / (tdim + 1) if self.simplex else 0.5
        X = np.full((len(x), tdim), corner)
        if len(x) == 0:
            return X
        a = self.nodes[self.dofmap[cells]]
        scale = np.ptp(a, axis=1).max(axis=1)
        for _ in range(1 if self.affine else 30):
            tables = tabulate(self.element, 1, X)
            r = x - np.einsum("pn,pnd->pd", tables[0], a)
            J = np.einsum("kpn,pnd->pdk", tables[1:], a)
            dX = _least_squares(J, r)
            X = X + dX
            if not self.affine:
                X = np.clip(X, -1.0, 2.0)
                moved = np.abs(np.einsum("pdk,pk->pd", J, dX)).max(axis=1)
                if (moved <= 1e-15 * scale).all():
                    break
        return X

    def clamp(self, X: np.ndarray) -> np.ndarray:
        """The nearest points of the reference cell, shape (n, tdim)."""
        X = np.asarray(X)
        if not self.simplex:
            return np.clip(X, 0.0, 1.0)
        inside = (X >= 0.0).all(axis=1) & (X.sum(axis=1) <= 1.0)
        out = np.maximum(X, 0.0)
        beyond = ~inside & (out.sum(axis=1) > 1.0)
        if beyond.any():  # projection onto the face sum(X) = 1, after Duchi et al. (2008)
            u = -np.sort(-X[beyond], axis=1)
            excess = (np.cumsum(u, axis=1) - 1.0) / np.arange(1, X.shape[1] + 1)
            active = np.count_nonzero(u > excess, axis=1) - 1
            out[beyond] = np.maximum(X[beyond] - excess[np.arange(len(u)), active, None], 0.0)
        out[inside] = X[inside]
        return out


def cell_map(mesh: Any) -> CellMap:
    """The cell map of a mesh.

    Raises:
        ValueError: prisms or pyramids.
    """
    name = mesh.topology.cell_name()
    if name not in ("interval", "triangle", "tetrahedron", "quadrilateral", "hexahedron"):
        raise ValueError(f"cells of type {name} are not supported here")
    cmap = compat.coordinate_element(mesh)
    element = basix.ufl.element(
        "Lagrange", name, cmap.degree, lagrange_variant=basix.LagrangeVariant(cmap.variant)
    )
    return CellMap(
        element.basix_element,
        np.array(mesh.geometry.x[:, : mesh.geometry.dim]),
        np.asarray(compat.geometry_dofmap(mesh)),
        name in ("interval", "triangle", "tetrahedron"),
    )


def _dimension(element: Any) -> int:
    return {"interval": 1, "triangle": 2, "quadrilateral": 2}.get(element.cell_type.name, 3)


def _least_squares(J: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Minimisers of |J dX - r|, shapes (n, gdim, tdim), (n, gdim) -> (n, tdim)."""
    if J.shape[1] == J.shape[2]:
        return np.linalg.solve(J, r[..., None])[..., 0]
    Jt = J.transpose(0, 2, 1)
    return np.linalg.solve(Jt @ J, Jt @ r[..., None])[..., 0]
