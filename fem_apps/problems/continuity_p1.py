"""Continuous P1 group finite elements for d_t rho + div(rho v) = 0: low order, and flux-corrected.

With c_ij = int phi_i grad phi_j, lumped masses m_i, and v rho interpolated in the nodes,

    m_i d_t u_i = sum_j k_ij u_j,   k_ij = -c_ij . v_j

(next to a wall k_ij = c_ji . v_j, which is the same inside).

* Low order: d_ij = max(-k_ij, 0, -k_ji), l_ij = k_ij + d_ij, by Heun's method; positive for
  dt <= m_i / |l_ii|.
* FEM-FCT, linearised (Kuzmin, J. Comput. Phys. 228 (2009) 2517): u^L the low-order solution at
  t + dt, M_C w = K u^L by five Richardson sweeps, antidiffusive fluxes

      f_ij = dt (m_ij (w_i - w_j) + d_ij (u^L_i - u^L_j)),   0 where f_ij (u^L_j - u^L_i) > 0,

  and Zalesak's limiter with the bounds of u^L among neighbours:
  u_i = u^L_i + sum_j alpha_ij f_ij / m_i.

Fluxes are antisymmetric and k has the column sums of the boundary alone, so mass changes only by
what crosses it. On periodic meshes identified nodes are one; on surfaces grad is tangential.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import exterior_facet_indices, meshtags
from petsc4py import PETSc
from pydantic import Field
from scipy.spatial import cKDTree

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem import node_graph
from fem_apps.meshing import MeshData
from fem_apps.mpi import extremes, total
from fem_apps.problems.continuity_boundary import Part, Sides, parts_of
from fem_apps.problems.continuity_p1_kernels import (
    corrected,
    edge_products,
    galerkin,
    low_order,
    rates,
    richardson,
    zalesak,
)
from fem_apps.problems.continuity_velocity import Measure, Sites, Velocity

SWEEPS = 5


class P1(Table):
    """Continuous P1 by nodes and edges."""

    type: Literal["p1"] = "p1"
    method: Literal["fct", "low-order"] = Field(
        "fct", description="flux-corrected transport, or its positive low-order part alone"
    )


class P1Solver:
    """The scheme on a mesh; a density is the array of owned nodes' values.

    Attributes:
        V: the P1 space.
        graph: its nodes.
        outflow: what has left through this rank's boundary during the last step.
    """

    def __init__(self, data: MeshData, velocity: Velocity, sides: Sides, scheme: P1) -> None:
        """Make what the steps need. Collective.

        Raises:
            CaseError: a side that the mesh does not have; open sides of a surface.
        """
        self.graph = g = node_graph.build(data.mesh, data.lattice)
        self.scheme, self.velocity, self.V, self.comm = scheme, velocity, g.V, g.comm
        self.outflow = 0.0
        facets, parts = boundary_parts(data, sides)
        entries = []
        for A in _matrices(data, g.V, facets, parts):
            B = A if g.fold is None else A.PtAP(g.fold)
            T = B.transpose(PETSc.Mat())
            entries.append((*_entries(B, g), _entries(T, g)[0]))
        off, diagonal, transposed = (list(e) for e in zip(*entries, strict=True))
        self._m = off.pop()
        self._k = [np.ascontiguousarray(np.stack(e, axis=1)) for e in (off, transposed[:-1])]
        self._k_diagonal = np.stack(diagonal[:-1], axis=1)
        self._indptr, self._cols = g.indptr, g.cols
        self._sites = Sites(g.x, _cells_of_nodes(g), g.x)
        self._hold(data, facets, parts)
        self._given: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._given_for: tuple[float, int] | None = None

    # ------------------------------------------------------------ boundary

    def _hold(self, data: MeshData, facets: list[np.ndarray], parts: list[Part]) -> None:
        """Nodes of open and fixed sides, and int_open phi_i n of all nodes."""
        dim, g = data.mesh.topology.dim - 1, self.graph
        self._normal = np.zeros_like(g.x)
        for d, form in enumerate(_normal_forms(data, self.V, facets, parts)):
            b = fem_petsc.assemble_vector(form)
            b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
            self._normal[:, d] = g.from_dofs(b.array_r[: self.V.dofmap.index_map.size_local].real)
            b.destroy()
        self._held = []
        for f, part in zip(facets, parts, strict=True):
            if part.type != "wall":
                nodes = fem.locate_dofs_topological(self.V, dim, f)
                self._held.append((nodes[nodes < g.n], part))

    def _impose(self, t: float, u: np.ndarray, share: float) -> None:
        """Set what is held: fixed nodes, and open ones where v.n < 0; counts it as inflow."""
        a = self.velocity.factor(t)
        for nodes, part in self._held:
            rows = nodes
            if part.type == "open":
                vn = np.einsum("nd,nd->n", self._normal[nodes], self._nodal[nodes])
                rows = nodes[a * vn < 0]
            given = part.density.numpy(self.graph.x[rows].T, t)
            self.outflow += share * float(self.graph.mass[rows] @ (u[rows] - given))
            u[rows] = given

    # ------------------------------------------------------------ velocity

    def update_velocity(self, t: float, u: np.ndarray) -> float:
        """Take v at a time for a density; returns its amplitude. Collective."""
        v, g = self.velocity, self.graph
        wanted = {"never": (0.0, 0), "time": (t, 0), "density": (t, id(u))}[v.changes]
        if self._given_for != wanted:
            at = np.asarray(v.at(self._sites, t, self.measure(u)), dtype=float)
            everywhere = np.stack([g.with_ghosts(c) for c in at.T], axis=1)
            k, kt = np.empty(len(g.cols)), np.empty(len(g.cols))
            edge_products(g.indptr, g.cols, self._k[0], self._k[1], everywhere, k, kt)
            diagonal = np.einsum("nd,nd->n", self._k_diagonal, at)
            self._given, self._nodal = (k, kt, diagonal), at
            self._given_for, self._kept = wanted, u
            self._rates = [
                extremes(self.comm, rates(g.indptr, g.mass, k, kt, diagonal, s))[1]
                for s in (1.0, -1.0)
            ]
        return v.factor(t)

    def measure(self, u: np.ndarray) -> Measure:
        """The density as lumped masses at the nodes."""
        return Measure(self.comm, self.graph.x, self.graph.mass * u)

    def largest_step(self, t: float, u: np.ndarray) -> float:
        """The step up to which the low-order scheme is positive. Collective."""
        a = self.update_velocity(t, u)
        rate = abs(a) * self._rates[0 if a >= 0 else 1]
        return 1 / rate if rate > 0 else np.inf

    # ------------------------------------------------------------ one step

    def step(self, t: float, u: np.ndarray, dt: float) -> np.ndarray:
        """The density at t + dt. Collective."""
        self.outflow = 0.0
        first = self._euler(t, u, dt)
        self.update_velocity(t + dt, first)
        self._impose(t + dt, first, 0.5)
        low = 0.5 * (u + self._euler(t + dt, first, dt))
        self._impose(t + dt, low, 1.0)
        return low if self.scheme.method == "low-order" else self._correct(t + dt, low, dt)

    def _euler(self, t: float, u: np.ndarray, dt: float) -> np.ndarray:
        g, a = self.graph, self.update_velocity(t, u)
        assert self._given is not None
        out = np.empty_like(u)
        low_order(g.indptr, g.cols, g.mass, *self._given, a, g.with_ghosts(u), dt, out)
        through = np.einsum("nd,nd->n", self._normal, self._nodal)
        self.outflow += 0.5 * dt * a * float(through @ u)
        return out

    def _correct(self, t: float, low: np.ndarray, dt: float) -> np.ndarray:
        """Add the limited antidiffusive fluxes."""
        g, a = self.graph, self.update_velocity(t, low)
        assert self._given is not None
        indptr, cols, mass, (k, kt, diagonal) = g.indptr, g.cols, g.mass, self._given
        full = g.with_ghosts(low)
        rate, w = np.empty_like(low), np.zeros_like(low)
        galerkin(indptr, cols, k, diagonal, a, full, rate)
        for _ in range(SWEEPS):
            richardson(indptr, cols, mass, self._m, rate, g.with_ghosts(w), w)
        w = g.with_ghosts(w)
        plus, minus = np.empty_like(low), np.empty_like(low)
        zalesak(indptr, cols, mass, self._m, k, kt, a, full, w, dt, plus, minus)
        plus, minus, out = g.with_ghosts(plus), g.with_ghosts(minus), np.empty_like(low)
        corrected(indptr, cols, mass, self._m, k, kt, a, full, w, dt, plus, minus, out)
        self._impose(t, out, 1.0)
        return out

    # ------------------------------------------------------------ what a density is

    def project(self, f: Callable[[np.ndarray], np.ndarray], jumps: bool) -> np.ndarray:
        """Nodal values of f(x), x of shape (gdim, n); held ones as the boundary has them."""
        u = np.asarray(f(self.graph.x.T), dtype=float)
        self.update_velocity(0.0, u)
        self._impose(0.0, u, 0.0)
        self.outflow = 0.0
        return u

    def errors(
        self, u: np.ndarray, f: Callable[[np.ndarray], np.ndarray], jumps: bool
    ) -> tuple[float, float]:
        """L1 and L2 norms of u - f. Collective."""
        return nodal_errors(self.V, lambda v: self.to_function(u, v), f, jumps)

    def mass(self, u: np.ndarray) -> float:
        """Int rho. Collective."""
        return self.graph.integral(u)

    def extremes(self, u: np.ndarray) -> tuple[float, float]:
        """Least and greatest value. Collective."""
        return extremes(self.comm, u)

    def to_function(self, u: np.ndarray, f: fem.Function) -> None:
        """Write a density into a Function of V. Collective."""
        self.graph.to_function(u, f)

    def from_function(self, f: fem.Function) -> np.ndarray:
        """The density of a Function of V."""
        return self.graph.from_function(f)


def nodal_errors(
    V: fem.FunctionSpace,
    write: Callable[[fem.Function], None],
    f: Callable[[np.ndarray], np.ndarray],
    jumps: bool,
) -> tuple[float, float]:
    """L1 and L2 norms of a P1 function minus f, with the quadrature of `Subcells`. Collective."""
    from fem_apps.problems.continuity_cells import build_cells
    from fem_apps.problems.continuity_quadrature import Subcells

    cells = build_cells(MeshData(V.mesh, None, None, {}), 1)
    u, discontinuous = fem.Function(V), fem.Function(cells.V)
    write(u)
    discontinuous.interpolate(u)
    return Subcells(cells, jumps).errors(cells.from_function(discontinuous), f)


# ---------------------------------------------------------------- set-up


def boundary_parts(data: MeshData, sides: Sides) -> tuple[list[np.ndarray], list[Part]]:
    """Facets (local) of each part of the boundary; none of a periodic mesh, whose rest is walls.

    Raises:
        CaseError: a side that the mesh does not have; open sides of a surface.
    """
    mesh, dim = data.mesh, data.mesh.topology.dim - 1
    mesh.topology.create_entities(dim)
    mesh.topology.create_connectivity(dim, dim + 1)
    facets = exterior_facet_indices(mesh.topology)
    index_map = mesh.topology.index_map(dim)
    tags = np.zeros(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    if data.facet_tags is not None:
        tags[data.facet_tags.indices] = data.facet_tags.values
    parts = parts_of(data, sides, tags[facets])
    if data.lattice:
        return [], []
    here = [facets[p.rows] for p in parts]
    count = [total(mesh.comm, len(f)) for f in here]
    opens = any(c and p.type != "wall" for p, c in zip(parts, count, strict=True))
    if opens and dim + 1 < mesh.geometry.dim:
        raise CaseError(
            "boundary: on surfaces and curves in space nodal schemes have walls alone; for open "
            "sides take scheme.type = 'dg'"
        )
    return here, parts


def _split(data: MeshData, facets: list[np.ndarray], parts: list[Part]) -> tuple[bool, bool, Any]:
    """Whether there are walls, whether there are open sides, and the measure ds(1) of these."""
    comm, dim = data.mesh.comm, data.mesh.topology.dim - 1
    is_open = [f for f, p in zip(facets, parts, strict=True) if p.type != "wall"]
    closed = sum(len(f) for f, p in zip(facets, parts, strict=True) if p.type == "wall")
    here = np.sort(np.concatenate(is_open)) if is_open else np.empty(0, dtype=np.int32)
    opens = bool(total(comm, len(here)))
    # without a boundary both forms are the same in the plane, and this one conserves on surfaces
    walls = bool(total(comm, closed)) or not opens
    tags = meshtags(data.mesh, dim, here.astype(np.int32), np.ones(len(here), dtype=np.int32))
    return walls, opens, ufl.Measure("ds", domain=data.mesh, subdomain_data=tags)


def _matrices(
    data: MeshData, V: fem.FunctionSpace, facets: list[np.ndarray], parts: list[Part]
) -> list[PETSc.Mat]:
    """Matrices of k, one a component of v, and the consistent mass last."""
    walls, opens, ds = _split(data, facets, parts)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    forms = []
    for d in range(data.mesh.geometry.dim):
        form = u * ufl.grad(v)[d] * ufl.dx if walls else -v * ufl.grad(u)[d] * ufl.dx
        if walls and opens:
            form -= u * v * ufl.FacetNormal(data.mesh)[d] * ds(1)
        forms.append(form)
    out = []
    for form in (*forms, u * v * ufl.dx):
        A = fem_petsc.assemble_matrix(fem.form(form))
        A.assemble()
        out.append(A)
    return out


def _normal_forms(
    data: MeshData, V: fem.FunctionSpace, facets: list[np.ndarray], parts: list[Part]
) -> list[fem.Form]:
    """Int_open phi n, one form a component; none where nothing is open."""
    walls, opens, ds = _split(data, facets, parts)
    v = ufl.TestFunction(V)
    if not opens:
        return []
    gdim = data.mesh.geometry.dim
    if not walls:
        return [fem.form(ufl.grad(v)[d] * ufl.dx) for d in range(gdim)]
    return [fem.form(v * ufl.FacetNormal(data.mesh)[d] * ds(1)) for d in range(gdim)]


def _entries(A: PETSc.Mat, g: node_graph.NodeGraph) -> tuple[np.ndarray, np.ndarray]:
    """Entries off and on the diagonal; the former in the order of the graph's edges."""
    indptr, columns, values = A.getValuesCSR()
    first, last = A.getOwnershipRange()
    on = columns == np.repeat(np.arange(first, last), np.diff(indptr))
    assert len(columns) - on.sum() == len(g.cols)
    return values[~on].real.copy(), values[on].real.copy()


def _cells_of_nodes(g: node_graph.NodeGraph) -> np.ndarray:
    """A local cell at each owned node (on a torus, at one of its images on this rank)."""
    dofmap = g.V.dofmap
    index_map = dofmap.index_map
    cell = np.zeros(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    table = dofmap.list
    cell[table.ravel()] = np.repeat(np.arange(len(table), dtype=np.int32), table.shape[1])
    if g.fold is None or not g.n:
        return cell[: g.n]
    x = g.V.tabulate_dof_coordinates()[: index_map.size_local, : g.x.shape[1]]
    return cell[cKDTree(x).query(g.x)[1]]
