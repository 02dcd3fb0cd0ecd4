"""Continuous Galerkin and SUPG in the conservative form, Crank-Nicolson: to compare with.

For all phi, with u' = (u - u^n)/dt, u_ = (u + u^n)/2 and v at t + dt/2,

    int (phi + tau v.grad phi) u' + int tau v.grad phi div(u_ v)
        - int u_ v.grad phi + int_open phi u_ v.n = 0,

    tau = ((2/dt)^2 + (2 |v| / h)^2)^(-1/2),   tau = 0 in plain Galerkin,

h the cell's diameter. The time derivative is part of the stabilised residual: leaving it out costs
accuracy. Nothing bounds the density: it undershoots, and without inflow data plain Galerkin blows
up where the flow enters. v is interpolated in P2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import meshtags
from petsc4py import PETSc
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.cells import cell_map
from fem_apps.fem.integrals import integrate, owned
from fem_apps.fem.solvers import default_options, solve
from fem_apps.meshing import MeshData
from fem_apps.mpi import extremes
from fem_apps.problems.continuity_boundary import Sides
from fem_apps.problems.continuity_p1 import boundary_parts, nodal_errors
from fem_apps.problems.continuity_velocity import Measure, Sites, Velocity

SOLVER = {"ksp_type": "bcgs", "pc_type": "bjacobi", "sub_pc_type": "ilu", "ksp_rtol": 1e-12}


class Galerkin(Table):
    """Continuous P1 by Crank-Nicolson: no bounds are kept."""

    type: Literal["galerkin"]
    supg: bool = Field(True, description="streamline upwind Petrov-Galerkin; false: plain Galerkin")


class GalerkinSolver:
    """The scheme on a mesh; a density is the array of owned nodes' values."""

    def __init__(self, data: MeshData, velocity: Velocity, sides: Sides, scheme: Galerkin) -> None:
        """Compile the forms. Collective.

        Raises:
            CaseError: a periodic mesh, or a side that the mesh does not have.
        """
        if data.lattice:
            raise CaseError("scheme.type = 'galerkin' is not for periodic meshes: take dg or p1")
        mesh = data.mesh
        self.comm, self.velocity, self.scheme, self.outflow = mesh.comm, velocity, scheme, 0.0
        self.V = V = fem.functionspace(mesh, ("Lagrange", 1))
        W = fem.functionspace(mesh, ("Lagrange", 2, (mesh.geometry.dim,)))
        self._v = v = fem.Function(W)
        n = W.dofmap.index_map.size_local
        x = W.tabulate_dof_coordinates()[:n, : mesh.geometry.dim]
        cells = np.zeros(n + W.dofmap.index_map.num_ghosts, dtype=np.int32)
        table = W.dofmap.list
        cells[table.ravel()] = np.repeat(np.arange(len(table), dtype=np.int32), table.shape[1])
        self._sites = Sites(x, cells[:n], x)
        self._old, self._dt = fem.Function(V), fem.Constant(mesh, 1.0)
        self._s, self._t = fem.Constant(mesh, 1.0), fem.Constant(mesh, 0.0)
        facets, parts = boundary_parts(data, sides)
        dim = mesh.topology.dim - 1
        self._fixed = [
            (fem.locate_dofs_topological(V, dim, f), p.density)
            for f, p in zip(facets, parts, strict=True)
            if p.type == "fixed"
        ]
        self._values = fem.Function(V)
        every = [d for d, _ in self._fixed]
        rows = np.unique(np.concatenate(every)) if every else np.empty(0, dtype=np.int32)
        self._bcs = [fem.dirichletbc(self._values, rows.astype(np.int32))]
        ds = _measure(data, facets)

        u, phi = ufl.TrialFunction(V), ufl.TestFunction(V)
        w, dt = self._s * v, self._dt
        h, speed = ufl.CellDiameter(mesh), ufl.sqrt(ufl.dot(w, w))
        tau = 1 / ufl.sqrt((2 / dt) ** 2 + (2 * speed / h) ** 2)
        upwind = tau * ufl.dot(w, ufl.grad(phi))
        middle = (u + self._old) / 2
        wn = ufl.dot(w, ufl.FacetNormal(mesh))
        through = []
        for i, p in enumerate(parts):
            if p.type != "wall":
                outside = p.density.ufl(mesh, self._t)
                positive, negative = ufl.max_value(wn, 0.0), ufl.min_value(wn, 0.0)
                if p.type == "fixed":
                    positive, negative = wn, 0.0 * wn
                through.append((ds(i), positive, negative * outside))
        F = phi * (u - self._old) / dt * ufl.dx - middle * ufl.dot(w, ufl.grad(phi)) * ufl.dx
        if scheme.supg:
            divergence = ufl.dot(w, ufl.grad(middle)) + middle * ufl.div(w)
            F += upwind * ((u - self._old) / dt + divergence) * ufl.dx
        for where, out, into in through:
            F += phi * (middle * out + into) * where
        self._a, L = fem.form(ufl.lhs(F)), ufl.rhs(F)
        # L is B u^n and what flows in: a product costs less than an assembly every step
        self._b_form = fem.form(ufl.derivative(L, self._old))
        entering = [
            -phi * into * where
            for where, _, into in through
            if not isinstance(into, ufl.constantvalue.Zero)
        ]
        self._inflow = fem.form(sum(entering[1:], entering[0])) if entering else None
        self._through = [fem.form((self._old * out + into) * where) for where, out, into in through]
        self._mass = fem.form(self._old * ufl.dx)
        self._A = fem_petsc.assemble_matrix(self._a, bcs=self._bcs)
        self._A.assemble()
        self._B = fem_petsc.assemble_matrix(self._b_form)
        self._b, self._x = self._A.createVecLeft(), self._A.createVecRight()
        self._ksp = PETSc.KSP().create(mesh.comm)
        self._ksp.setOperators(self._A)
        self._ksp.setInitialGuessNonzero(True)
        with default_options(SOLVER):
            self._ksp.setFromOptions()
        self._rhs = fem_petsc.assemble_vector(fem.form(phi * ufl.dx))
        self._for: tuple[float, ...] | None = None

    def _velocity(self, t: float, u: np.ndarray) -> float:
        v = self.velocity
        if v.changes != "never" or self._for is None:
            values = np.asarray(v.at(self._sites, t, self.measure(u)))
            owned(self._v)[:] = values.ravel()
            self._v.x.scatter_forward()
        return v.factor(t)

    def step(self, t: float, u: np.ndarray, dt: float) -> np.ndarray:
        """The density at t + dt. Collective.

        Raises:
            SolveError: the linear solve did not converge.
        """
        a, options = self._velocity(t + dt / 2, u), {}
        self._s.value, self._dt.value, self._t.value = a, dt, t + dt / 2
        self.to_function(u, self._old)
        for dofs, density in self._fixed:
            x = self.V.tabulate_dof_coordinates()[dofs, : self._sites.x.shape[1]]
            self._values.x.array[dofs] = density.numpy(x.T, t + dt)
        wanted = (a, dt) if self.velocity.changes == "never" else (a, dt, t)
        if wanted != self._for:
            self._A.zeroEntries()
            fem_petsc.assemble_matrix(self._A, self._a, bcs=self._bcs)
            self._A.assemble()
            self._B.zeroEntries()
            fem_petsc.assemble_matrix(self._B, self._b_form)
            self._B.assemble()
            options, self._for = SOLVER, wanted
        with self._rhs.localForm() as local:
            local.set(0.0)
        if self._inflow is not None:
            fem_petsc.assemble_vector(self._rhs, self._inflow)
        if self._values.x.array.any():
            fem_petsc.apply_lifting(self._rhs, [self._a], bcs=[self._bcs])
        self._rhs.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        self._x.array_w[:] = u
        self._B.mult(self._x, self._b)
        self._rhs.axpy(1.0, self._b)
        self._bcs[0].set(self._rhs.array_w)
        self._b.array_w[:] = self._rhs.array_r
        with default_options(options):
            solve(self._ksp, self._b, self._x, "Crank-Nicolson step", t)
        new = self._x.array_r.copy()
        self.to_function((u + new) / 2, self._old)
        self.outflow = dt * sum(float(np.real(fem.assemble_scalar(f))) for f in self._through)
        return new

    def largest_step(self, t: float, u: np.ndarray) -> float:
        """Min over nodes of P2 of h / (2 |v|) with the smallest h. Collective."""
        a = self._velocity(t, u)
        speed = np.linalg.norm(owned(self._v).reshape(-1, self._sites.x.shape[1]), axis=1)
        fastest = abs(a) * extremes(self.comm, speed)[1]
        mesh = self.V.mesh
        cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        h = extremes(self.comm, mesh.h(mesh.topology.dim, cells))[0]
        return h / (2 * fastest) if fastest > 0 else np.inf

    def project(self, f: Callable[[np.ndarray], np.ndarray], jumps: bool) -> np.ndarray:
        """Nodal values of f(x), x of shape (gdim, n); fixed ones as the boundary has them."""
        n = self.V.dofmap.index_map.size_local
        u = np.asarray(
            f(self.V.tabulate_dof_coordinates()[:n, : self._sites.x.shape[1]].T), dtype=float
        )
        for dofs, density in self._fixed:
            rows = dofs[dofs < n]
            x = self.V.tabulate_dof_coordinates()[rows, : self._sites.x.shape[1]]
            u[rows] = density.numpy(x.T, 0.0)
        return u

    def errors(
        self, u: np.ndarray, f: Callable[[np.ndarray], np.ndarray], jumps: bool
    ) -> tuple[float, float]:
        """L1 and L2 norms of u - f. Collective."""
        return nodal_errors(self.V, lambda v: self.to_function(u, v), f, jumps)

    def measure(self, u: np.ndarray) -> Measure:
        """The density as masses at the cells' midpoints: exact for affine cells."""
        mesh = self.V.mesh
        n = mesh.topology.index_map(mesh.topology.dim).size_local
        F = cell_map(mesh)
        nodes = F.nodes[F.dofmap[:n]]
        if self.velocity.changes != "density":
            return Measure(self.comm, nodes[:0, 0], np.zeros(0))
        f = fem.Function(self.V)
        self.to_function(u, f)
        volume = fem.assemble_vector(fem.form(ufl.TestFunction(_constants(mesh)) * ufl.dx)).array[
            :n
        ]
        value = f.x.array[self.V.dofmap.list[:n]].mean(axis=1)
        return Measure(self.comm, nodes.mean(axis=1), value * volume)

    def mass(self, u: np.ndarray) -> float:
        """Int rho. Collective."""
        self.to_function(u, self._old)
        return float(np.real(integrate(self._mass)))

    def extremes(self, u: np.ndarray) -> tuple[float, float]:
        """Least and greatest value. Collective."""
        return extremes(self.comm, u)

    def to_function(self, u: np.ndarray, f: fem.Function) -> None:
        """Write a density into a Function of V. Collective."""
        owned(f)[:] = u
        f.x.scatter_forward()

    def from_function(self, f: fem.Function) -> np.ndarray:
        """The density of a Function of V."""
        return owned(f).real.copy()


def _constants(mesh: Any) -> fem.FunctionSpace:
    return fem.functionspace(mesh, ("DG", 0))


def _measure(data: MeshData, facets: list[np.ndarray]) -> Any:
    """Ds(i) is the i-th part of the boundary."""
    dim = data.mesh.topology.dim - 1
    number = np.repeat(np.arange(len(facets), dtype=np.int32), [len(f) for f in facets])
    rows = np.concatenate([np.empty(0, dtype=np.int32), *facets]).astype(np.int32)
    order = np.argsort(rows)
    tags = meshtags(data.mesh, dim, rows[order], number[order])
    return ufl.Measure("ds", domain=data.mesh, subdomain_data=tags)
