"""Cells, facets and quadrature of a mesh as arrays: what a discontinuous Galerkin loop reads.

For each owned cell: quadrature points, det J weights, inverse mass matrix. For each facet of an
owned cell: its two cells, the values of their basis functions at common quadrature points, and
weight times conormal. Periodic sides and facets shared by ranks are facets like all others. The
first cell of a facet is the one of the lower input number, so fluxes do not depend on the rank.

On surfaces the conormals of a facet's two flat cells differ; the flux takes half the sum, so what
leaves one cell enters the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import basix
import numpy as np
from dolfinx import fem
from mpi4py import MPI
from petsc4py import PETSc

from fem_apps.fem.cells import cell_counts, cell_map, tabulate
from fem_apps.meshing import MeshData
from fem_apps.problems.continuity_facets import (
    Facets,
    Reference,
    facets_of,
    inverse_jacobian,
)
from fem_apps.problems.continuity_velocity import Sites

FACET = {
    "interval": "point",
    "triangle": "interval",
    "quadrilateral": "interval",
    "tetrahedron": "triangle",
    "hexahedron": "quadrilateral",
}


@dataclass(frozen=True)
class Cells:
    """A mesh with a discontinuous Lagrange basis of degree k; n owned cells, nb functions each.

    Attributes:
        V: the space; `dofs` its dofs cell by cell, shape (n, nb).
        size: n. ghost cells follow the owned ones in `left`, `right` and in the halo.
        points: cell quadrature points, shape (n, nq, gdim).
        weights: det J times weight, shape (n, nq).
        phi, dphi: basis functions (nq, nb) and their reference derivatives (nq, nb, tdim).
        K: pseudo-inverses of J at the points, shape (n, nq, tdim, gdim).
        mass_inverse: shape (n, nb, nb), or (1, nb, nb) to be divided by `volume` on affine cells.
        mean: weights of a cell's mean value, shape (n, nb) or (1, nb).
        volume: of each owned cell.
        left, right: cells of the facets; right = -1 on the boundary.
        variant_left, variant_right: which rows of `trace` hold the basis functions at its points.
        trace: shape (variants, nfq, nb).
        facet_points: shape (facets, nfq, gdim).
        conormal: weight times conormal out of the left cell, shape (facets, nfq, gdim).
        cell_facets, cell_signs, cell_variants: the facets of each owned cell, shape (n, facets).
        tags: of facets; 0 where untagged or interior.
        extra: reference basis at the vertices and facet points, shape (m, nb): for bounds.
    """

    data: MeshData
    V: fem.FunctionSpace
    degree: int
    affine: bool
    dofs: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    phi: np.ndarray
    dphi: np.ndarray
    K: np.ndarray
    mass_inverse: np.ndarray
    mean: np.ndarray
    volume: np.ndarray
    left: np.ndarray
    right: np.ndarray
    variant_left: np.ndarray
    variant_right: np.ndarray
    trace: np.ndarray
    facet_points: np.ndarray
    facet_points_in_cell: np.ndarray
    facet_cells: np.ndarray
    conormal: np.ndarray
    cell_facets: np.ndarray
    cell_signs: np.ndarray
    cell_variants: np.ndarray
    tags: np.ndarray
    extra: np.ndarray
    _halo: PETSc.Vec = field(repr=False)

    @property
    def comm(self) -> MPI.Comm:
        """The communicator of the mesh."""
        return self.data.mesh.comm

    @property
    def size(self) -> int:
        """Owned cells."""
        return len(self.volume)

    @property
    def sites(self) -> Sites:
        """Cell points, then facet points: where the velocity is wanted."""
        gdim = self.points.shape[2]
        nq, nfq = self.points.shape[1], self.facet_points.shape[1]
        x = np.concatenate([self.points.reshape(-1, gdim), self.facet_points.reshape(-1, gdim)])
        y = self.facet_points_in_cell.reshape(-1, gdim)
        cells = [np.repeat(np.arange(self.size), nq), np.repeat(self.facet_cells, nfq)]
        return Sites(
            x,
            np.concatenate(cells).astype(np.int32),
            np.concatenate([self.points.reshape(-1, gdim), y]),
        )

    def with_ghosts(self, u: np.ndarray) -> np.ndarray:
        """Values (n, nb) with those of ghost cells appended. Collective."""
        if self.comm.size == 1:
            return u
        self._halo.array_w[:] = u.ravel()
        self._halo.ghostUpdate(addv=PETSc.InsertMode.INSERT, mode=PETSc.ScatterMode.FORWARD)
        with self._halo.localForm() as local:
            return local.array_r.reshape(-1, u.shape[1]).copy()

    def integral(self, u: np.ndarray) -> float:
        """Int u over all ranks, from values (n, nb). Collective."""
        return float(self.comm.allreduce(float(self.volume @ self.means(u)), op=MPI.SUM))

    def means(self, u: np.ndarray) -> np.ndarray:
        """Mean values of the owned cells, shape (n,)."""
        return np.einsum("ci,ci->c", np.broadcast_to(self.mean, u.shape), u)

    def to_function(self, u: np.ndarray, f: fem.Function) -> None:
        """Write values into a Function of V, ghosts too. Collective."""
        f.x.array[self.dofs] = u
        f.x.scatter_forward()

    def from_function(self, f: fem.Function) -> np.ndarray:
        """Values (n, nb) of a Function of V."""
        return f.x.array[self.dofs].real.copy()


def build_cells(data: MeshData, degree: int, more: int = 0) -> Cells:
    """Make the arrays. Collective.

    Args:
        data: the mesh; its lattice makes it periodic.
        degree: k of the basis.
        more: added to the degrees of quadrature, 2k in cells and 2k + 1 on facets.

    Raises:
        CaseError: a lattice is given and opposite sides do not match.
    """
    mesh = data.mesh
    name = mesh.topology.cell_name()
    V = fem.functionspace(mesh, ("DG", degree))
    n, local = cell_counts(mesh)
    cell_type, facet_type = (getattr(basix.CellType, c) for c in (name, FACET[name]))
    F = cell_map(mesh)
    element = V.ufl_element().basix_element
    X, w = basix.make_quadrature(cell_type, max(2 * degree + more, 1 if F.affine else 2))
    facets = Reference(cell_type, facet_type, 2 * degree + 1 + more)

    tables = tabulate(element, 1, X)
    a = F.nodes[F.dofmap[:n]]
    geometry = tabulate(F.element, 1, X)
    J = np.einsum("kqn,cnd->cqdk", geometry[1:], a)
    det, K = inverse_jacobian(J)
    weights = w * det
    phi = tables[0]
    mass = np.einsum("cq,qi,qj->cij", weights, phi, phi)
    volume = weights.sum(axis=1)
    mean = np.einsum("cq,qi->ci", weights, phi) / volume[:, None]
    if F.affine:
        mass_inverse = np.linalg.inv(np.einsum("q,qi,qj->ij", w / w.sum(), phi, phi))[None]
        mean = (w / w.sum() @ phi)[None]
    else:
        mass_inverse = np.linalg.inv(mass)
    f = facets_of(data, F, facets, n, local)
    variants = [facets.points(v) for v in f.variants]
    trace = np.array([tabulate(element, 0, x)[0] for x in variants]).reshape(
        len(variants), -1, len(phi[0])
    )
    rows = np.arange(len(f.left))
    sides, signs, which = _by_cell(f, n, rows)
    extra = np.concatenate([basix.geometry(cell_type), X, *variants])
    return Cells(
        data=data,
        V=V,
        degree=degree,
        affine=F.affine,
        dofs=np.array(V.dofmap.list[:n]),
        points=np.einsum("qn,cnd->cqd", geometry[0], a),
        weights=weights,
        phi=np.ascontiguousarray(phi),
        dphi=np.ascontiguousarray(np.moveaxis(tables[1:], 0, -1)),
        K=K,
        mass_inverse=mass_inverse,
        mean=mean,
        volume=volume,
        left=f.left,
        right=f.right,
        variant_left=f.variant_left,
        variant_right=f.variant_right,
        trace=np.ascontiguousarray(trace),
        facet_points=f.points,
        facet_points_in_cell=f.points_in_cell,
        facet_cells=f.cells,
        conormal=f.conormal,
        cell_facets=sides,
        cell_signs=signs,
        cell_variants=which,
        tags=f.tags,
        extra=np.unique(np.round(tabulate(element, 0, extra)[0], 14), axis=0),
        _halo=PETSc.Vec().createGhost(
            f.ghosts.astype(PETSc.IntType),
            size=(n * len(phi[0]), PETSc.DETERMINE),
            bsize=len(phi[0]),
            comm=mesh.comm,
        ),
    )


def _by_cell(f: Facets, n: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Facets of each owned cell, its sign there, and its variant, each (n, facets a cell)."""
    cells = np.concatenate([f.left, f.right])
    facets = np.concatenate([rows, rows])
    signs = np.concatenate([np.ones(len(rows)), -np.ones(len(rows))])
    which = np.concatenate([f.variant_left, f.variant_right])
    mine = np.flatnonzero((cells >= 0) & (cells < n))
    order = mine[np.argsort(cells[mine], kind="stable")]
    shape = (n, -1) if n else (0, 1)
    return (
        facets[order].reshape(shape).astype(np.int32),
        signs[order].reshape(shape),
        which[order].reshape(shape).astype(np.int32),
    )
