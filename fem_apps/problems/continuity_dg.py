"""Discontinuous Galerkin with upwind fluxes for d_t rho + div(rho v) = 0, on any mesh.

For all phi in DG(k):

    int phi d_t rho = int rho v.grad phi
                      - sum_F int_F (phi_left - phi_right) ((v.n)_+ rho_left + (v.n)_- rho_right)

with the given density outside where it flows in, and no flux through walls. Time: Shu-Osher
Runge-Kutta of order 1 to 3. After each stage a limiter may scale rho - mean in every cell: means,
and so the mass, stay. The vertex-based one (Kuzmin, 2010) keeps values between neighbouring means;
the range one (Zhang, Shu, 2010) keeps them in a given range, positivity by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from dolfinx import fem
from petsc4py import PETSc
from pydantic import Field, model_validator

from fem_apps.case import Table
from fem_apps.fem import node_graph
from fem_apps.meshing import MeshData
from fem_apps.mpi import extremes
from fem_apps.problems.continuity_blocks import blocked, face
from fem_apps.problems.continuity_boundary import Sides, parts_of
from fem_apps.problems.continuity_cells import Cells, build_cells
from fem_apps.problems.continuity_kernels import (
    arrays,
    limit_to_nodes,
    limit_to_range,
    node_bounds,
    update_boundary,
    update_constant_of,
    update_of,
)
from fem_apps.problems.continuity_velocity import Measure, Velocity

# Shu-Osher form: stage = a u0 + b (stage + dt L), L at t + c dt; weight of each L in the step
STAGES = {
    1: ((0.0, 1.0, 0.0, 1.0),),
    2: ((0.0, 1.0, 0.0, 0.5), (0.5, 0.5, 1.0, 0.5)),
    3: ((0.0, 1.0, 0.0, 1 / 6), (0.75, 0.25, 1.0, 1 / 6), (1 / 3, 2 / 3, 0.5, 2 / 3)),
}
# Means stay in bounds for dt sum_F |F| (v.n)_+ <= this |K| (Zhang, Xia, Shu, 2012: 2/3 of the end
# weight of Gauss-Lobatto quadrature); 1 for k = 0
MEANS = (1.0, 1 / 3, 1 / 9, 1 / 9, 1 / 18)


class DG(Table):
    """Discontinuous Galerkin, upwind."""

    type: Literal["dg"] = "dg"
    degree: int = Field(1, ge=0, le=4, description="k: polynomial degree in each cell")
    limiter: Literal["none", "vertex", "range"] = Field(
        "vertex",
        description=(
            "after every stage: none; vertex: between neighbouring means (k <= 1); range: within"
            " [low, high]"
        ),
    )
    low: float = Field(0.0, description="of the limiter range")
    high: float | None = Field(None, description="of the limiter range; none if left out")
    stages: Literal[1, 2, 3] = Field(3, description="of Runge-Kutta, which are its order")
    quadrature: int = Field(0, ge=0, le=20, description="added to the degrees 2k and 2k + 1")

    @model_validator(mode="after")
    def _fits(self) -> DG:
        if self.limiter == "vertex" and self.degree > 1:
            raise ValueError("limiter = 'vertex' is for degree 0 or 1; use 'range' or 'none'")
        if self.high is not None and self.high <= self.low:
            raise ValueError(f"high = {self.high:g} must be greater than low = {self.low:g}")
        return self


class DGSolver:
    """The scheme on a mesh; a density is an array (owned cells, basis functions).

    Attributes:
        V: the space of densities.
        cells: mesh and basis as arrays.
        outflow: what has left through the boundary during the last step.
    """

    def __init__(self, data: MeshData, velocity: Velocity, sides: Sides, scheme: DG) -> None:
        """Make what the steps need. Collective."""
        self.cells = c = build_cells(data, scheme.degree, scheme.quadrature)
        self.scheme, self.velocity = scheme, velocity
        self.V, self.comm = c.V, c.comm
        self.outflow = 0.0
        self._sites = c.sites
        rows = np.flatnonzero(c.right < 0)
        self._boundary, self._parts = rows, parts_of(data, sides, c.tags[rows])
        self._outside = np.zeros((len(rows), c.trace.shape[1] if scheme.degree else 1))
        self._outside_at: float | None = None
        self._given: tuple[np.ndarray, np.ndarray] | None = None
        self._given_for: tuple[float, int] | None = None
        self._minv, self._volume, self._trace = arrays(c.mass_inverse, c.volume, c.trace)
        self._edge = arrays(c.left[rows], c.variant_left[rows])
        if scheme.limiter == "vertex" and scheme.degree == 1:
            self._nodes = Nodes(data, c)
        if scheme.degree == 0:
            self._trace = self._trace[:, :1].copy()
            own = np.broadcast_to(np.arange(c.size)[:, None], c.cell_facets.shape)
            other = np.where(c.cell_signs > 0, c.right[c.cell_facets], c.left[c.cell_facets])
            neighbour = np.where(other < 0, own, other).T.astype(np.uint32)
            self._neighbour = np.ascontiguousarray(neighbour)
            self._inner = np.where(other < 0, 0.0, c.cell_signs)
            self._update = update_constant_of(len(self._neighbour))
        else:
            self._facing = f = face(c)
            weak = np.concatenate(
                [np.moveaxis(c.dphi, 1, 0).reshape(len(c.phi[0]), -1), -f.inside.T], axis=1
            )
            self._weak = np.ascontiguousarray(c.mass_inverse[0] @ weak if c.affine else weak)
            self._inside = np.concatenate([c.phi, f.inside])
            nq, nb, tdim = c.dphi.shape
            nfq, nk = f.across.shape
            self._update = update_of(nb, nq, tdim, c.cell_facets.shape[1], nfq, nk, c.affine)

    # ------------------------------------------------------------ velocity

    def update_velocity(self, t: float, u: np.ndarray) -> float:
        """Take v at a time for a density; returns its amplitude. Collective."""
        v = self.velocity
        wanted = {"never": (0.0, 0), "time": (t, 0), "density": (t, id(u))}[v.changes]
        if self._given_for != wanted:
            rho = self.measure(u) if v.changes == "density" else self.measure(u[:0])
            self._set(np.asarray(v.at(self._sites, t, rho), dtype=float))
            self._given_for, self._kept = wanted, u  # kept alive, so that its id is its own
        return v.factor(t)

    def measure(self, u: np.ndarray) -> Measure:
        """The density as masses at the cells' quadrature points."""
        c = self.cells
        masses = (u @ c.phi.T) * c.weights[: len(u)]
        return Measure(self.comm, c.points[: len(u)].reshape(-1, c.points.shape[2]), masses.ravel())

    def _set(self, values: np.ndarray) -> None:
        c = self.cells
        n, nq = c.weights.shape
        at_cells, at_facets = values[: n * nq], values[n * nq :].reshape(c.conormal.shape)
        un = np.einsum("fqd,fqd->fq", c.conormal, at_facets)
        for part in self._parts:
            if part.type == "wall":
                un[self._boundary[part.rows]] = 0.0
        if self.scheme.degree == 0:
            un = un.sum(axis=1, keepdims=True)
        self._un = np.ascontiguousarray(un)
        self._un_edge = self._un[self._boundary]
        signed = c.cell_signs[:, :, None] * un[c.cell_facets]
        self._rates = [
            extremes(self.comm, np.maximum(s, 0.0).sum(axis=(1, 2)) / c.volume)[1]
            for s in (signed, -signed)
        ]
        if self.scheme.degree == 0:
            rate = self._inner * un[c.cell_facets, 0] / c.volume[:, None]
            self._given = (np.ascontiguousarray(rate.T), self._neighbour)
        else:
            v = at_cells.reshape(n, nq, -1)
            G = np.einsum("cq,cqkd,cqd->cqk", c.weights, c.K, v)
            self._given = (blocked(G), self._facing.outward(un))

    def _density_outside(self, t: float) -> np.ndarray:
        if self._outside_at is None or (
            t != self._outside_at and any("t" in p.density.names for p in self._parts)
        ):
            x = self.cells.facet_points[self._boundary]
            for p in self._parts:
                at = x[p.rows].reshape(-1, x.shape[2]).T
                values = p.density.numpy(at, t).reshape(-1, x.shape[1])
                self._outside[p.rows] = (
                    values if self.scheme.degree else values.mean(axis=1, keepdims=True)
                )
            self._outside_at = t
        return self._outside

    def largest_step(self, t: float, u: np.ndarray) -> float:
        """The step for which cell means stay within the bounds of forward Euler. Collective."""
        a = self.update_velocity(t, u)
        rate = abs(a) * self._rates[0 if a >= 0 else 1]
        return MEANS[self.scheme.degree] / rate if rate > 0 else np.inf

    # ------------------------------------------------------------ one step

    def step(self, t: float, u: np.ndarray, dt: float) -> np.ndarray:
        """The density at t + dt. Collective."""
        stage, self.outflow = u, 0.0
        for a, b, c, weight in STAGES[self.scheme.stages]:
            out = np.empty(u.shape)
            self.outflow += weight * dt * self.stage(t + c * dt, stage, u, a, b, dt, out)
            stage = self.limit(out)
        return stage

    def stage(
        self,
        t: float,
        u: np.ndarray,
        u0: np.ndarray,
        a: float,
        b: float,
        dt: float,
        out: np.ndarray,
    ) -> float:
        """Compute out = a u0 + b (u + dt L(u)), all contiguous.

        Returns what leaves this rank's boundary a time.
        """
        c, scale = self.cells, self.update_velocity(t, u)
        assert self._given is not None
        full, outside = c.with_ghosts(u).ravel(), self._density_outside(t)
        state = (full, u0.ravel(), a, b, dt, scale, *self._given)
        if self.scheme.degree == 0:
            self._update(*state, out.reshape(-1))
        else:
            f = self._facing
            self._update(
                *state,
                f.dofs,
                self._inside,
                f.across,
                self._weak,
                self._minv,
                self._volume,
                out.reshape(-1),
            )
        edge = (*self._edge, self._trace, self._un_edge, scale, outside, b * dt)
        mass = (c.affine, self._minv, self._volume)
        return float(update_boundary(u, *edge, *mass, out))

    def limit(self, u: np.ndarray) -> np.ndarray:
        """Limit values in place, means kept. Collective."""
        scheme = self.scheme
        if scheme.limiter == "vertex" and scheme.degree == 1:
            means = self.cells.means(u)
            low, high = self._nodes.bounds(means)
            limit_to_nodes(u, means, self._nodes.of_cell, low, high)
        elif scheme.limiter == "range":
            high_end = np.inf if scheme.high is None else scheme.high
            limit_to_range(u, self.cells.means(u), self.cells.extra, scheme.low, high_end)
        return u

    # ------------------------------------------------------------ what a density is

    def project(self, f: Callable[[np.ndarray], np.ndarray], jumps: bool) -> np.ndarray:
        """The L2 projection of f(x), x of shape (gdim, n), limited. See `Subcells`."""
        from fem_apps.problems.continuity_quadrature import Subcells

        return self.limit(Subcells(self.cells, jumps).project(f))

    def errors(
        self, u: np.ndarray, f: Callable[[np.ndarray], np.ndarray], jumps: bool
    ) -> tuple[float, float]:
        """L1 and L2 norms of u - f. Collective."""
        from fem_apps.problems.continuity_quadrature import Subcells

        return Subcells(self.cells, jumps).errors(u, f)

    def mass(self, u: np.ndarray) -> float:
        """Int rho. Collective."""
        return self.cells.integral(u)

    def extremes(self, u: np.ndarray) -> tuple[float, float]:
        """Least and greatest value at nodes and quadrature points. Collective."""
        return extremes(self.comm, u if self.scheme.degree < 2 else u @ self.cells.extra.T)

    def to_function(self, u: np.ndarray, f: fem.Function) -> None:
        """Write a density into a Function of V. Collective."""
        self.cells.to_function(u, f)

    def from_function(self, f: fem.Function) -> np.ndarray:
        """The density of a Function of V."""
        return self.cells.from_function(f)


class Nodes:
    """Vertices, those that the lattice identifies being one; bounds over the cells around each."""

    def __init__(self, data: MeshData, cells: Cells) -> None:
        """Number them. Collective."""
        graph = node_graph.build(data.mesh, data.lattice)
        number = fem.Function(graph.V)
        graph.to_function(graph.offset + np.arange(graph.n, dtype=float), number)
        of_cell = number.x.array[graph.V.dofmap.list[: cells.size]].real.astype(np.int64)
        mine = (of_cell >= graph.offset) & (of_cell < graph.offset + graph.n)
        ghosts = np.unique(of_cell[~mine])
        local = np.where(mine, of_cell - graph.offset, graph.n + np.searchsorted(ghosts, of_cell))
        self.of_cell = np.ascontiguousarray(local, dtype=np.int32)
        self._low, self._high = np.empty((2, graph.n + len(ghosts)))
        self._serial = cells.comm.size == 1
        self._vector = PETSc.Vec().createGhost(
            ghosts.astype(PETSc.IntType), size=(graph.n, PETSc.DETERMINE), comm=cells.comm
        )

    def bounds(self, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest mean around each node. Collective."""
        self._low[:], self._high[:] = np.inf, -np.inf
        node_bounds(means, self.of_cell, self._low, self._high)
        if not self._serial:
            self._low[:] = -self._greatest(-self._low)
            self._high[:] = self._greatest(self._high)
        return self._low, self._high

    def _greatest(self, values: np.ndarray) -> np.ndarray:
        v = self._vector
        with v.localForm() as local:
            local.array_w[:] = values
        v.ghostUpdate(addv=PETSc.InsertMode.MAX, mode=PETSc.ScatterMode.REVERSE)
        v.ghostUpdate(addv=PETSc.InsertMode.INSERT, mode=PETSc.ScatterMode.FORWARD)
        with v.localForm() as local:
            return local.array_r.copy()
