"""Values of functions at points, and the sparse matrix of that evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from dolfinx import geometry
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.cells import cell_counts, cell_map, input_cells, largest_cell, tabulate

# In units of the largest cell diameter: a point this near to the mesh is on it, and cells this
# much apart in distance are equally near.
ON_MESH, TIE = 1e-8, 1e-10


class PointEvaluator:
    """Evaluates functions of a mesh at fixed points; built once, used for every function and step.

    Each point belongs to one cell: the nearest one (distance 0 inside), and of equally near ones,
    as at a facet, the one with the least number in the input mesh. So a point counts once, and the
    choice, which a discontinuous function shows, does not depend on the rank count.

    On a surface or a curve in space, and up to `tolerance` anywhere, a point off the mesh is moved
    to the nearest point of its cell.

    Attributes:
        points: the points, shape (n, gdim).
        found: which of them lie on the mesh, shape (n,), the same on all ranks.
        distance: distance to the mesh, shape (n,); inf where not found.
    """

    def __init__(
        self, mesh: Any, points: np.ndarray, *, tolerance: float | None = None, missing: str = "nan"
    ) -> None:
        """Find the cell of every point. Collective.

        Args:
            mesh: of intervals, triangles, quadrilaterals, tetrahedra or hexahedra, of any order.
            points: the same on every rank, shape (n, gdim); shape (n,) on a line.
            tolerance: how far off the mesh a point may lie. By default 1e-8 h, and h/4 on a surface
                or a curve in space, with h the largest cell diameter.
            missing: "nan" gives NaN at points off the mesh, "error" refuses them.

        Raises:
            CaseError: with missing="error", a point off the mesh; names the first one.
        """
        gdim, tdim = mesh.geometry.dim, mesh.topology.dim
        x = np.asarray(points, dtype=np.float64)
        x = x.reshape(-1, 1) if x.ndim == 1 and gdim == 1 else np.atleast_2d(x)
        if x.shape[1] != gdim:
            raise CaseError(
                f"points of shape {x.shape} on a mesh in {gdim}D; give shape (n, {gdim})"
            )
        if missing not in ("nan", "error"):
            raise ValueError(f"missing = {missing!r}")
        self.mesh, self.points = mesh, x
        self._map = cell_map(mesh)
        h = largest_cell(mesh)
        if tolerance is None:
            tolerance = 0.25 * h if tdim < gdim else ON_MESH * h
        # Cells near a point are looked for close by first: a wide search has many candidates.
        n = len(x)
        self.distance = np.full(n, np.inf)
        owner = np.full(n, -1)
        cells, X = np.zeros(n, dtype=np.int32), np.zeros((n, tdim))
        for reach in sorted({min(tolerance, ON_MESH * h), tolerance}):
            rows = np.flatnonzero(~np.isfinite(self.distance))
            d, o, c, Xc = self._nearest(x[rows], reach, h)
            self.distance[rows], owner[rows], cells[rows], X[rows] = d, o, c, Xc
        self.found = np.isfinite(self.distance)
        if missing == "error" and not self.found.all():
            lost = np.flatnonzero(~self.found)
            raise CaseError(
                f"{lost.size} of {n} points lie outside the mesh; the first is number {lost[0]}, "
                f"at {tuple(x[lost[0]].tolist())}"
            )
        self._rows = np.flatnonzero(self.found & (owner == mesh.comm.rank))
        self._cells, self._X = cells[self._rows], X[self._rows]
        self._tables: dict[Any, sp.csr_matrix] = {}

    def _nearest(
        self, x: np.ndarray, reach: float, h: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """For each point the distance, the owning rank, its cell and the place in it. Collective.

        The last two mean something on the owner alone.
        """
        comm, n = self.mesh.comm, len(x)
        rows, cells = self._candidates(x, reach, h)
        X = self._map.clamp(self._map.pull_back(cells, x[rows]))
        gap = np.linalg.norm(self._map.push_forward(cells, X) - x[rows], axis=1)
        close = gap <= reach
        rows, cells, X, gap = rows[close], cells[close], X[close], gap[close]

        distance = np.full(n, np.inf)
        np.minimum.at(distance, rows, gap)
        comm.Allreduce(MPI.IN_PLACE, distance, op=MPI.MIN)
        numbers = input_cells(self.mesh)[cells]
        tied = gap <= distance[rows] + TIE * h
        none = np.iinfo(np.int64).max
        least = np.full(n, none)
        np.minimum.at(least, rows[tied], numbers[tied])
        comm.Allreduce(MPI.IN_PLACE, least, op=MPI.MIN)
        mine = tied & (numbers == least[rows])
        owner = np.full(n, comm.size)
        owner[rows[mine]] = comm.rank
        comm.Allreduce(MPI.IN_PLACE, owner, op=MPI.MIN)
        cell, place = np.zeros(n, dtype=np.int32), np.zeros((n, X.shape[1]))
        cell[rows[mine]], place[rows[mine]] = cells[mine], X[mine]
        return distance, owner, cell, place

    def _candidates(self, x: np.ndarray, reach: float, h: float) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (row, owned cell) whose boxes are within reach of each other."""
        owned, _ = cell_counts(self.mesh)
        empty = np.zeros(0, dtype=np.int32)
        if owned == 0 or len(x) == 0:
            return empty, empty
        # the nodes of a curved cell do not quite bound it
        padding = reach + (0.1 * h if self._map.element.degree > 1 else ON_MESH * h)
        tree = geometry.bb_tree(
            self.mesh,
            self.mesh.topology.dim,
            entities=np.arange(owned, dtype=np.int32),
            padding=padding,
        )
        x3 = np.zeros((len(x), 3))
        x3[:, : x.shape[1]] = x
        hits = geometry.compute_collisions_points(tree, x3)
        rows = np.repeat(np.arange(len(x), dtype=np.int32), np.diff(hits.offsets))
        return rows, np.asarray(hits.array, dtype=np.int32)

    def __call__(self, u: Any) -> np.ndarray:
        """Values of a function at the points. Collective.

        Returns:
            The same on every rank, in the order of the points: shape (n,) for a scalar function,
            (n, components) for a vector; NaN at points off the mesh.
        """
        V = u.function_space
        local, bs = self._local(V)
        size = max(1, int(np.prod(V.value_shape)))
        if local is not None:
            values = np.asarray(local @ u.x.array.reshape(-1, bs))
        else:
            x3 = np.zeros((len(self._rows), 3))
            x3[:, : self.points.shape[1]] = self._map.push_forward(self._cells, self._X)
            values = np.zeros((0, size), dtype=u.x.array.dtype)
            if len(self._rows):
                values = np.asarray(u.eval(x3, self._cells)).reshape(-1, size)
        out = np.zeros((len(self.points), size), dtype=u.x.array.dtype)
        out[self._rows] = values
        self.mesh.comm.Allreduce(MPI.IN_PLACE, out, op=MPI.SUM)
        out[~self.found] = np.nan
        return out if V.value_shape else out[:, 0]

    def matrix(self, V: Any) -> Any:
        """The sparse matrix E of the evaluation: E u = values at the points. Collective.

        E^T takes values at points to a load vector: it deposits point masses.

        Args:
            V: a Lagrange space, scalar or vector, continuous or not, on the evaluator's mesh.

        Returns:
            PETSc AIJ matrix. Rows: points, for a vector `components * point + component`, laid out
            as PETSc decides; empty for points off the mesh. Columns: degrees of freedom of V, laid
            out as V's vectors.

        Raises:
            ValueError: not a Lagrange space.
        """
        from petsc4py import PETSc

        local, bs = self._local(V)
        if local is None:
            raise ValueError(f"{V.ufl_element()} is not a Lagrange space")
        comm, n, index_map = self.mesh.comm, len(self.points), V.dofmap.index_map
        # PETSc's rows are in blocks of points, which are not the owners' ones: every rank gets all.
        k = V.dofmap.list.shape[1]
        columns, values = np.zeros((n, k), dtype=np.int64), np.zeros((n, k))
        columns[self._rows] = index_map.local_to_global(local.indices.astype(np.int32)).reshape(
            -1, k
        )
        values[self._rows] = local.data.reshape(-1, k)
        comm.Allreduce(MPI.IN_PLACE, columns, op=MPI.SUM)
        comm.Allreduce(MPI.IN_PLACE, values, op=MPI.SUM)

        E = PETSc.Mat().create(comm)
        size = (index_map.size_local * bs, index_map.size_global * bs)
        E.setSizes(((PETSc.DECIDE, n * bs), size))
        E.setType(PETSc.Mat.Type.AIJ)
        first, last = E.getOwnershipRange()
        point, component = np.divmod(np.arange(first, last), bs)
        kept = self.found[point]
        offsets = np.concatenate([[0], np.cumsum(kept * k)])
        j = (columns[point] * bs + component[:, None])[kept]
        v = values[point][kept].astype(PETSc.ScalarType)
        E.setPreallocationCSR(
            (offsets.astype(PETSc.IntType), j.ravel().astype(PETSc.IntType), v.ravel())
        )
        E.assemble()
        return E

    def _local(self, V: Any) -> tuple[sp.csr_matrix | None, int]:
        """Basis functions at this rank's points, (points, local dofs of a part), and block size.

        None for spaces whose basis functions are not plain pull-backs.
        """
        if V.mesh.topology._cpp_object is not self.mesh.topology._cpp_object:
            raise ValueError("the function lives on another mesh")
        bs = V.dofmap.index_map_bs
        if not is_lagrange(V):
            return None, bs
        key = V._cpp_object
        if key not in self._tables:
            phi = tabulate(V.element.basix_element, 0, self._X)[0]
            dofs = V.dofmap.list[self._cells]
            offsets = np.arange(len(self._rows) + 1) * dofs.shape[1]
            index_map = V.dofmap.index_map
            shape = (len(self._rows), index_map.size_local + index_map.num_ghosts)
            self._tables[key] = sp.csr_matrix((phi.ravel(), dofs.ravel(), offsets), shape=shape)
        return self._tables[key], bs


def is_lagrange(V: Any) -> bool:
    """Whether V is a whole scalar or blocked space of (discontinuous) Lagrange elements."""
    element = V.ufl_element()
    shape = int(np.prod(V.value_shape)) if V.value_shape else 1
    return (
        element.family_name == "P"
        and V.dofmap.index_map_bs == shape
        and V.dofmap.bs == shape
        and not V.element.needs_dof_transformations
    )
