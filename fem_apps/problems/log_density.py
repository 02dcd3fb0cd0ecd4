"""Log-density Galerkin scheme for linear diffusion: u = log rho in P_k, on any mesh.

    (e^u - rho^n, v) + dt (e^u grad(sigma u + I V + I(W*rho^*)), grad v) = 0   for all v in P_k

One backward Euler step; rho = e^u > 0, mass is kept exactly (v = 1), and the energy falls for any step
size and any mesh: test with v = sigma u + V + W*rho^* and use convexity of sigma rho log rho, at each
quadrature point (Metti, Xu, Liu 2016; Fu, Xu, arXiv 2105.01163). V and W*rho have to be in P_k for
that, so W acts on the integrals of rho against the basis: a symmetric operator again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI
from petsc4py import PETSc
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.convolution import Convolution
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.solvers import Newton
from fem_apps.fem.time_stepping import Attempt
from fem_apps.problems.edge_scheme import SOLVER, THETA, State, predicted_error
from fem_apps.problems.free_energy import Energy, Internal

# where an initial density vanishes, log rho starts from this times its maximum
VACUUM = 1e-12


class LogDensity(Table):
    """The log-density Galerkin scheme: linear diffusion on any mesh, acute or not; order 1 in time."""

    type: Literal["log-density"] = "log-density"
    quadrature: int = Field(4, ge=2, le=10, description="degree of the quadrature that stands for (e^u, v)")
    newton_tolerance: float = Field(1e-12, gt=0, description="sum of |residuals| over the mass that ends Newton")


@dataclass
class LogDensitySolver:
    """The scheme on the P1 nodes of a mesh; forms and matrices are made once.

    `State.rho` are the projections (rho, phi_i) / m_i, so that lumped sums over nodes are integrals.
    """

    graph: NodeGraph
    H: Internal
    external: np.ndarray
    convolution: Convolution | None
    scheme: LogDensity
    mass: float
    tolerance: float
    source: Callable[[float], np.ndarray] | None = None
    _theta: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if len(self.H.terms) != 1 or self.H.terms[0].exponent != 1:
            raise CaseError("scheme.type = 'log-density' needs linear diffusion alone: one [[diffusion]], exponent 1")
        V, mesh = self.graph.V, self.graph.V.mesh
        dx = ufl.dx(metadata={"quadrature_degree": self.scheme.quadrature})
        self._u, self._phi = fem.Function(V), fem.Function(V)
        self._dt = fem.Constant(mesh, PETSc.ScalarType(0.0))
        self._sigma = sigma = self.H.terms[0].coefficient
        u, v, w = self._u, ufl.TestFunction(V), ufl.TrialFunction(V)
        rho = ufl.exp(u)
        xi = fem.Constant(mesh, PETSc.ScalarType(sigma)) * u + self._phi
        F = rho * v * dx + self._dt * ufl.inner(rho * ufl.grad(xi), ufl.grad(v)) * dx
        self._F = fem.form(F)
        self._rho_form = fem.form(rho * v * dx)
        self._entropy = fem.form(sigma * rho * u * dx)
        self._work = fem.form(rho * ufl.inner(ufl.grad(xi), ufl.grad(xi)) * dx)
        self._J = _Folded(self.graph, ufl.derivative(F, u, w))
        self._newton = {False: self._solver(self._J.mat)}
        sign = self.convolution.sign if self.convolution is not None else "negative"
        self.theta = THETA[sign]
        if self.theta:
            self._L = _Folded(self.graph, ufl.inner(rho * ufl.grad(w), ufl.grad(v)) * dx)
            self._B = _Folded(self.graph, rho * w * v * dx)
            shell = PETSc.Mat().createPython(self._J.mat.getSizes(), _WithConvolution(self), self.graph.comm)
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
            options={**SOLVER, "snes_linesearch_type": "bt"},
            what="Newton iteration of the log-density",
        )

    def _integrals(self, form: fem.Form) -> np.ndarray:
        b = fem_petsc.assemble_vector(form)
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        out = self.graph.from_dofs(b.array_r[: self.graph.V.dofmap.index_map.size_local])
        b.destroy()
        return out

    def _residual(self, u: np.ndarray) -> np.ndarray:
        g = self.graph
        g.to_function(u, self._u)
        phi = self._fixed
        if self._theta:
            assert self.convolution is not None
            phi = phi + self._theta * self.convolution(self._integrals(self._rho_form))
        g.to_function(phi, self._phi)
        return self._integrals(self._F) - g.mass * self._target

    def _jacobian(self, u: np.ndarray) -> None:
        self._J.assemble()
        if self._theta:
            self._L.assemble()
            self._B.assemble()

    def _solve(
        self, target: np.ndarray, dt: float, phi: np.ndarray, theta: float, guess: np.ndarray, t: float
    ) -> tuple[np.ndarray, int]:
        """Integrals / m of e^u with u the solution; `_u` holds u afterwards."""
        self._target, self._fixed, self._theta = target, phi, theta
        self._dt.value = dt
        u, iterations = self._newton[theta > 0].solve(np.log(guess), t)
        self.graph.to_function(u, self._u)
        rho = self._integrals(self._rho_form) / self.graph.mass
        shift = np.log(self.graph.integral(target) / self.graph.integral(rho))  # what the tolerance left of the mass
        self.graph.to_function(u + shift, self._u)
        return rho * np.exp(shift), iterations

    def start(self, t: float, rho: np.ndarray) -> State:
        """The state whose projections on the nodes are rho. Collective."""
        top = float(self.graph.comm.allreduce(float(rho.max(initial=0.0)), op=MPI.MAX))
        rho = np.maximum(rho, VACUUM * top)
        rho, _ = self._solve(rho, 0.0, np.zeros_like(rho), 0.0, rho, t)
        return self._state(t, rho, 0.0, ())

    def rate(self, state: State) -> float:
        """int |d_t rho| / mass at a state. Collective."""
        self._solve(state.rho, 0.0, np.zeros_like(state.rho), 0.0, state.rho, state.t)
        self._theta, self._fixed = 0.0, self.external + (state.w if state.w is not None else 0.0)
        self._target, self._dt.value = state.rho, 1.0
        f = self._residual(self.graph.from_function(self._u))
        return float(self.graph.comm.allreduce(np.abs(f).sum())) / self.mass

    def attempt(self, state: State, dt: float) -> Attempt[State]:
        """A backward Euler step. Collective."""
        t = state.t + dt
        phi = self.external if state.w is None else self.external + (1 - self.theta) * state.w
        target = state.rho if self.source is None else state.rho + dt * self.source(t)
        rho, iterations = self._solve(target, dt, phi, self.theta, np.maximum(state.rho, 1e-300), t)
        new = self._state(t, rho, dt, ((state.t, state.rho, state.w), *state.past)[:1])
        error = predicted_error(self.graph, state, rho, dt) / (self.mass * self.tolerance) if self.tolerance else 0.0
        return Attempt(new, error, 1, iterations)

    def _state(self, t: float, rho: np.ndarray, dt: float, past: tuple) -> State:  # type: ignore[type-arg]
        comm, b = self.graph.comm, self.graph.mass * rho
        w = None if self.convolution is None else self.convolution(b)
        parts = [fem.assemble_scalar(self._entropy), b @ self.external, 0.5 * (b @ w) if w is not None else 0.0]
        e = Energy(*(float(p) for p in comm.allreduce(np.array(parts))))
        work = float(comm.allreduce(fem.assemble_scalar(self._work))) if dt else 0.0
        return State(t, rho, w, e, work, 1, past)


class _Folded:
    """A bilinear form's matrix on the nodes (on a torus, with all images of a node summed)."""

    def __init__(self, graph: NodeGraph, a: ufl.Form) -> None:
        self._form, self._fold = fem.form(a), graph.fold
        self._whole = fem_petsc.create_matrix(self._form)
        self.mat = self._whole
        if self._fold is not None:
            self._fill()
            self.mat = self._whole.PtAP(self._fold)

    def _fill(self) -> None:
        self._whole.zeroEntries()
        fem_petsc.assemble_matrix(self._whole, self._form)
        self._whole.assemble()

    def assemble(self) -> None:
        """Assemble again, in place. Collective."""
        self._fill()
        if self._fold is not None:
            self._whole.PtAP(self._fold, result=self.mat)


class _WithConvolution:
    """The exact Jacobian with an implicit W * rho: J + theta dt L W B."""

    def __init__(self, solver: LogDensitySolver) -> None:
        self.s = solver

    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """y = (J + theta dt L W B) x."""
        s = self.s
        assert s.convolution is not None
        s._J.mat.mult(x, y)
        b, z = y.duplicate(), y.duplicate()
        s._B.mat.mult(x, b)
        b.array_w[:] = s.convolution(b.array_r.copy())
        s._L.mat.mult(b, z)
        y.axpy(s._theta * float(np.real(s._dt.value)), z)
        b.destroy()
        z.destroy()
