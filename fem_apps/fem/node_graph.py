"""The P1 nodes of a mesh as a weighted graph: lumped masses and transmissibilities.

With S_ij = int grad phi_i . grad phi_j and m_i = int phi_i, the edge i-j carries the weight
a_ij = -S_ij (in 2D (cot a + cot b)/2). Everything that a vertex-centred scheme needs is here, on
planar, volume and surface meshes alike; on a flat torus, nodes that the lattice identifies are one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI
from petsc4py import PETSc
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero


@dataclass(frozen=True)
class NodeGraph:
    """Rows of the graph that this rank owns; columns are local: owned first, then ghosts.

    Attributes:
        comm: communicator of the mesh.
        V: the P1 space; on a torus it still has one dof for each image of a node.
        x: coordinates of the owned nodes, shape (n, gdim).
        mass: lumped masses m_i > 0 of the owned nodes.
        indptr, cols, weight: the rows in CSR form, without diagonal; weight = a_ij.
        offset: global number of the first owned node.
        ghosts: global numbers of the ghost nodes.
        stiffness: S as a PETSc matrix (on a torus, of the identified nodes).
        lattice: period vectors, empty unless periodic.
        fold: matrix (dofs of V x nodes) that repeats nodal values on all images; or None.
    """

    comm: MPI.Comm
    V: fem.FunctionSpace
    x: np.ndarray
    mass: np.ndarray
    indptr: np.ndarray
    cols: np.ndarray
    weight: np.ndarray
    offset: int
    ghosts: np.ndarray
    stiffness: PETSc.Mat
    lattice: tuple[tuple[float, ...], ...] = ()
    fold: PETSc.Mat | None = None
    _halo: PETSc.Vec = field(repr=False, default=None)

    @property
    def n(self) -> int:
        """Number of owned nodes."""
        return len(self.mass)

    @cached_property
    def size(self) -> int:
        """Number of nodes on all ranks."""
        return self.comm.allreduce(self.n)

    @cached_property
    def spacing(self) -> float:
        """Typical distance of neighbours: (measure / nodes)^(1/tdim)."""
        return float(
            (self.comm.allreduce(self.mass.sum()) / self.size) ** (1 / self.V.mesh.topology.dim)
        )

    @cached_property
    def obtuse(self) -> float:
        """Share of the edge weights that is negative; 0: the mesh has the M-matrix property."""
        bad = self.comm.allreduce(-float(np.minimum(self.weight, 0).sum()))
        return bad / self.comm.allreduce(float(np.abs(self.weight).sum()))

    def with_ghosts(self, owned: np.ndarray) -> np.ndarray:
        """Nodal values with the neighbours' ghosts appended. Collective."""
        self._halo.array_w[:] = owned
        self._halo.ghostUpdate(addv=PETSc.InsertMode.INSERT, mode=PETSc.ScatterMode.FORWARD)
        with self._halo.localForm() as local:
            return local.array_r.copy()

    def integral(self, values: np.ndarray) -> float:
        """Sum of m_i values_i over all nodes. Collective."""
        return float(self.comm.allreduce(float(self.mass @ values)))

    def to_function(self, values: np.ndarray, u: fem.Function) -> None:
        """Write nodal values into a Function of V, ghosts included. Collective."""
        if self.fold is None:
            u.x.array[: self.n] = values
        else:
            v = self.fold.createVecRight()
            v.array_w[:] = values
            self.fold.mult(v, u.x.petsc_vec)
            v.destroy()
        u.x.scatter_forward()

    def from_function(self, u: fem.Function) -> np.ndarray:
        """Nodal values of a Function of V that has the same value on all images. Collective."""
        dofs = u.x.array[: self.V.dofmap.index_map.size_local]
        return self.from_dofs(dofs) / self.from_dofs(np.ones_like(dofs))

    def from_dofs(self, integrals: np.ndarray) -> np.ndarray:
        """Add what belongs to all images of a node: owned dofs of V -> owned nodes. Collective."""
        if self.fold is None:
            return integrals.copy()
        return _fold_down(self.fold, integrals)


def build(mesh: Any, lattice: tuple[tuple[float, ...], ...] = ()) -> NodeGraph:
    """The node graph of a mesh; `lattice` are the period vectors of a flat torus. Collective.

    Raises:
        CaseError: a lattice is given and opposite sides do not match node by node.
    """
    V = fem.functionspace(mesh, ("Lagrange", 1))
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    S = fem_petsc.assemble_matrix(fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx))
    S.assemble()
    m = fem_petsc.assemble_vector(fem.form(ufl.conj(v) * ufl.dx))
    m.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
    n = V.dofmap.index_map.size_local
    x, mass = (
        V.tabulate_dof_coordinates()[:n, : mesh.geometry.dim].copy(),
        m.array_r[:n].real.copy(),
    )
    m.destroy()
    fold = None
    if lattice:
        fold, x = _fold(mesh.comm, x, lattice)
        whole, S = S, S.PtAP(fold)
        whole.destroy()
        mass = _fold_down(fold, mass)
    return _from_stiffness(mesh.comm, V, x, mass, S, lattice, fold)


def _fold_down(fold: PETSc.Mat, dofs: np.ndarray) -> np.ndarray:
    left, right = fold.createVecLeft(), fold.createVecRight()
    left.array_w[:] = dofs
    fold.multTranspose(left, right)
    out = right.array_r.copy()
    left.destroy()
    right.destroy()
    return out


def _from_stiffness(
    comm: MPI.Comm,
    V: fem.FunctionSpace,
    x: np.ndarray,
    mass: np.ndarray,
    S: PETSc.Mat,
    lattice: Any,
    fold: Any,
) -> NodeGraph:
    indptr, columns, values = S.getValuesCSR()
    first, last = S.getOwnershipRange()
    rows = np.repeat(np.arange(first, last, dtype=columns.dtype), np.diff(indptr))
    keep = columns != rows
    columns, values, rows = columns[keep], values[keep].real, rows[keep] - first
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=last - first))])
    away = (columns < first) | (columns >= last)
    ghosts = np.unique(columns[away])
    local = np.where(away, last - first + np.searchsorted(ghosts, columns), columns - first)
    halo = PETSc.Vec().createGhost(ghosts, size=(last - first, PETSc.DETERMINE), comm=comm)
    return NodeGraph(
        comm=comm,
        V=V,
        x=x,
        mass=mass,
        indptr=indptr.astype(np.int64),
        cols=local.astype(np.int32),
        weight=-values,
        offset=int(first),
        ghosts=ghosts,
        stiffness=S,
        lattice=lattice,
        fold=fold,
        _halo=halo,
    )


def _fold(
    comm: MPI.Comm, x: np.ndarray, lattice: tuple[tuple[float, ...], ...]
) -> tuple[PETSc.Mat, np.ndarray]:
    """Matrix (dofs x nodes), a 1 where the dof is an image of the node; the nodes' coordinates."""
    dofs: list[np.ndarray] = comm.gather(x) or []
    parts = on_rank_zero(
        comm, lambda: _identify(dofs, np.atleast_2d(np.array(lattice, dtype=float)))
    )
    node, coordinates = parts[comm.rank]
    sizes = ((len(x), PETSc.DETERMINE), (len(coordinates), PETSc.DETERMINE))
    P = PETSc.Mat().createAIJ(sizes, nnz=(1, 1), comm=comm)
    first = P.getOwnershipRange()[0]
    rows = np.arange(first, first + len(x), dtype=PETSc.IntType)
    indptr = np.arange(len(x) + 1, dtype=PETSc.IntType)
    P.setValuesIJV(indptr, node.astype(PETSc.IntType), np.ones(len(x)), rowmap=rows)
    P.assemble()
    return P, coordinates


def _identify(dofs: list[np.ndarray], basis: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each rank: the node of each of its dofs, and the coordinates of the nodes it owns."""
    points = np.concatenate(dofs)
    rank_of = np.repeat(np.arange(len(dofs)), [len(d) for d in dofs])
    f = points @ np.linalg.pinv(basis)  # lattice coordinates
    span = f.max(axis=0) - f.min(axis=0)
    wrapped = np.mod(f - f.min(axis=0), 1.0)
    wrapped[wrapped > 1 - 1e-9] = 0.0
    key = wrapped @ basis + (points - f @ basis)
    pairs = cKDTree(key).query_pairs(1e-8 * np.abs(basis).max(), output_type="ndarray")
    joined = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    _, node = connected_components(joined, directed=False)
    on_side = np.abs(f - f.min(axis=0)).min(axis=1) < 1e-9
    if not np.allclose(span, 1, atol=1e-8) or (np.bincount(node)[node[on_side]] < 2).any():
        alone = int((np.bincount(node)[node[on_side]] < 2).sum())
        raise CaseError(
            f"the mesh is not periodic under {basis.tolist()}: it spans {span.tolist()} periods, "
            f"and {alone} of {int(on_side.sum())} nodes on its sides have no image. Mesh opposite "
            "sides alike (gmsh: Periodic Curve)"
        )
    # a node stands where its image of least lattice coordinates does, and is that dof's rank's
    order = np.lexsort((f.sum(axis=1), node))
    representative = order[np.concatenate([[True], np.diff(node[order]) > 0])]
    owner = rank_of[representative]
    by_rank = np.argsort(owner, kind="stable")
    number = np.empty(len(by_rank), dtype=np.int64)
    number[by_rank] = np.arange(len(by_rank))
    columns = np.split(number[node], np.cumsum([len(d) for d in dofs])[:-1])
    coordinates = points[representative[by_rank]]
    places = np.split(coordinates, np.cumsum(np.bincount(owner, minlength=len(dofs)))[:-1])
    return list(zip(columns, places, strict=True))
