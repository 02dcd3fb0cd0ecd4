"""Log-density Galerkin scheme for linear diffusion: u = log rho in P1, on any mesh.

    (e^u - rho^n, v)_h + dt (e^u grad(sigma u + I V + I(W*rho^*)), grad v) = 0   for all v in P1

with (., .)_h lumped at the nodes. rho = e^u > 0 and mass is kept (v = 1) for any step size, and the
energy falls on any mesh, acute or not: test with v = sigma u + V + W*rho^* and use the convexity of
sigma rho log rho at each node. rho^* is as in `edge_scheme`. (Metti, Xu, Liu 2016; Fu, Xu, arXiv
2105.01163, who do not lump; lumping makes every density > 0 a valid initial one.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.convolution import Convolution
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.solvers import Newton
from fem_apps.fem.time_stepping import Attempt
from fem_apps.mpi import extremes
from fem_apps.problems.edge_scheme import SOLVER, THETA, State, predicted_error
from fem_apps.problems.free_energy import Internal, energy

# log rho starts from this times the maximum where an initial density vanishes
VACUUM = 1e-12


class LogDensity(Table):
    """The log-density Galerkin scheme: linear diffusion on any mesh; order 1 in time."""

    type: Literal["log-density"]
    quadrature: int = Field(4, ge=1, le=10, description="degree of the quadrature of the flux")
    newton_tolerance: float = Field(
        1e-12, gt=0, description="sum of |residuals| over the mass that ends Newton"
    )


@dataclass
class LogDensitySolver:
    """The scheme on a mesh's nodes; forms, matrices are made once. Arguments as of EdgeSolver."""

    graph: NodeGraph
    H: Internal
    external: np.ndarray
    convolution: Convolution | None
    scheme: LogDensity
    mass: float
    tolerance: float
    source: Callable[[float], np.ndarray] | None = None
    theta: float = field(init=False)

    def __post_init__(self) -> None:
        if len(self.H.terms) != 1 or self.H.terms[0].exponent != 1:
            raise CaseError(
                "scheme.type = 'log-density' needs one [[diffusion]] table, of exponent 1"
            )
        V, mesh = self.graph.V, self.graph.V.mesh
        dx = ufl.dx(metadata={"quadrature_degree": self.scheme.quadrature})
        self._u, self._phi = u, phi = fem.Function(V), fem.Function(V)
        v, w = ufl.TestFunction(V), ufl.TrialFunction(V)
        self._tau = fem.Constant(mesh, PETSc.ScalarType(0.0))
        sigma = fem.Constant(mesh, PETSc.ScalarType(self.H.terms[0].coefficient))
        xi = sigma * u + phi
        flux = self._tau * ufl.inner(ufl.exp(u) * ufl.grad(xi), ufl.grad(v)) * dx
        self._flux = fem.form(flux)
        self._work = fem.form(ufl.exp(u) * ufl.inner(ufl.grad(xi), ufl.grad(xi)) * dx)
        self._J = _Folded(self.graph, ufl.derivative(flux, u, w))
        self.theta = THETA[self.convolution.sign] if self.convolution is not None else 0.0
        self._newton = {False: self._solver(self._J.mat)}
        if self.theta:
            self._L = _Folded(
                self.graph, self._tau * ufl.inner(ufl.exp(u) * ufl.grad(w), ufl.grad(v)) * dx
            )
            shell = PETSc.Mat().createPython(
                self._J.mat.getSizes(), _WithConvolution(self), self.graph.comm
            )
            shell.setUp()
            self._newton[True] = self._solver(shell)

    def _solver(self, J: PETSc.Mat) -> Newton:
        return Newton(
            J,
            self._J.mat,
            self._residual,
            self._jacobian,
            size=lambda f: float(self.graph.comm.allreduce(np.abs(f).sum())) / self.mass,
            tolerance=lambda: self.scheme.newton_tolerance,
            # entries are as small as the density: no pivot is too small
            options={**SOLVER, "snes_linesearch_type": "bt", "sub_pc_factor_zeropivot": 1e-200},
            what="Newton iteration of the log-density",
        )

    def _residual(self, u: np.ndarray) -> np.ndarray:
        g, rho = self.graph, np.exp(u)
        phi = self._fixed
        if self._theta:
            assert self.convolution is not None
            phi = phi + self._theta * self.convolution(g.mass * rho)
        g.to_function(u, self._u)
        g.to_function(phi, self._phi)
        b = fem_petsc.assemble_vector(self._flux)
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        outflow = g.from_dofs(b.array_r[: g.V.dofmap.index_map.size_local])
        b.destroy()
        return g.mass * (rho - self._target) + outflow

    def _jacobian(self, u: np.ndarray) -> None:
        self._J.assemble(self.graph.mass * np.exp(u))
        if self._theta:
            self._L.assemble()

    def start(self, t: float, rho: np.ndarray) -> State:
        """The state of a density; vacuum is filled to 1e-12 of the maximum. Collective."""
        top = extremes(self.graph.comm, rho)[1]
        filled = np.maximum(rho, VACUUM * top)
        filled *= self.graph.integral(rho) / self.graph.integral(filled)
        w = self._w(filled)
        return State(t, filled, w, energy(self.graph, self.H, self.external, filled, w))

    def rate(self, state: State) -> float:
        """Int |d_t rho| / mass at a state. Collective."""
        self._target, self._tau.value, self._theta = state.rho, 1.0, 0.0
        self._fixed = self.external + (state.w if state.w is not None else 0.0)
        f = self._residual(np.log(state.rho))
        return float(self.graph.comm.allreduce(np.abs(f).sum())) / self.mass

    def attempt(self, state: State, dt: float) -> Attempt[State]:
        """A backward Euler step. Collective."""
        g, t = self.graph, state.t + dt
        self._fixed = (
            self.external if state.w is None else self.external + (1 - self.theta) * state.w
        )
        self._target = state.rho if self.source is None else state.rho + dt * self.source(t)
        self._tau.value, self._theta = dt, self.theta
        u, iterations = self._newton[self.theta > 0].solve(np.log(state.rho), t)
        rho = np.exp(u)
        rho *= g.integral(self._target) / g.integral(
            rho
        )  # what the tolerance left of the mass balance
        w = self._w(rho)
        work = float(g.comm.allreduce(fem.assemble_scalar(self._work)))
        past = ((state.t, state.rho, state.w),)
        new = State(t, rho, w, energy(g, self.H, self.external, rho, w), work, 1, past)
        error = (
            predicted_error(g, state, rho, dt) / (self.mass * self.tolerance)
            if self.tolerance
            else 0.0
        )
        return Attempt(new, error, 1, iterations)

    def _w(self, rho: np.ndarray) -> np.ndarray | None:
        return None if self.convolution is None else self.convolution(self.graph.mass * rho)


class _Folded:
    """A bilinear form's matrix on the nodes; on a torus, all images of a node are summed."""

    def __init__(self, graph: NodeGraph, a: ufl.Form) -> None:
        self._form, self._fold = fem.form(a), graph.fold
        self._whole = fem_petsc.assemble_matrix(self._form)
        self._whole.assemble()
        self.mat = self._whole if self._fold is None else self._whole.PtAP(self._fold)
        self._diagonal = self.mat.createVecLeft()

    def assemble(self, diagonal: np.ndarray | None = None) -> None:
        """Assemble again, in place, and add a diagonal. Collective."""
        self._whole.zeroEntries()
        fem_petsc.assemble_matrix(self._whole, self._form)
        self._whole.assemble()
        if self._fold is not None:
            self._whole.PtAP(self._fold, result=self.mat)
        if diagonal is not None:
            self._diagonal.array_w[:] = diagonal
            self.mat.setDiagonal(self._diagonal, addv=PETSc.InsertMode.ADD)


class _WithConvolution:
    """The exact Jacobian with an implicit W * rho: J + theta L W diag(m rho)."""

    def __init__(self, solver: LogDensitySolver) -> None:
        self.s = solver

    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Y = (J + theta L W diag(m rho)) x."""
        s, g = self.s, self.s.graph
        assert s.convolution is not None
        s._J.mat.mult(x, y)
        w, z = y.duplicate(), y.duplicate()
        w.array_w[:] = s.convolution(g.mass * np.exp(g.from_function(s._u)) * x.array_r)
        s._L.mat.mult(w, z)
        y.axpy(s._theta, z)
        w.destroy()
        z.destroy()
