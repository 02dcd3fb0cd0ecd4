"""Implicit vertex-centred scheme for d_t rho = div(rho grad(H'(rho) + V + W*rho)) + source.

With lumped masses m_i and the edge fluxes F_ij of `fem.edge_flux`, a step of order 1 solves

    m_i (rho_i - rho_i^n) / dt + sum_j F_ij(rho; Phi) = m_i s_i,   Phi = V + W * rho^*,

and for any dt keeps mass exactly, rho >= 0, and lets the discrete free energy fall, as rho^* is
rho^n, rho, or their mean as the sign of W on functions of zero mass asks (rho^n for a negative W,
rho for a positive one, the mean always; checked in Bailo, Carrillo, Hu, arXiv 1811.11502).
A step of order 2 is the two-step BDF with W*rho extrapolated; it is taken only where it keeps
positivity and energy, and a step of order 1 stands in where it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from petsc4py import PETSc
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import SolveError
from fem_apps.fem.edge_flux import assemble, drift_apply
from fem_apps.fem.edge_matrix import create
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.solvers import Newton
from fem_apps.fem.time_stepping import Attempt
from fem_apps.problems.free_energy import Energy, Internal, energy

if TYPE_CHECKING:
    from fem_apps.fem.convolution import Convolution

# relative energy increase that counts as one; negative mass over what Newton may leave of it
ENERGY_SLACK, NEGATIVE_SLACK = 2e-11, 10.0
# share of the new density in rho^*, by the sign of W on functions of zero mass
THETA = {"negative": 0.0, "positive": 1.0, "indefinite": 0.5}
SOLVER = {
    "snes_type": "newtonls",
    "snes_linesearch_type": "basic",
    "snes_max_it": 30,
    "ksp_type": "gmres",
    "ksp_gmres_restart": 60,
    "ksp_rtol": 1e-6,
    "ksp_max_it": 200,
    "pc_type": "bjacobi",
    "sub_pc_type": "ilu",
    "sub_pc_factor_levels": 1,
}
# linear solves only as sharp as the Newton step is good (Eisenstat, Walker 1996)
INEXACT = {"snes_ksp_ew": True, "snes_ksp_ew_rtol0": 1e-2, "snes_ksp_ew_rtolmax": 1e-2}


class EdgeScheme(Table):
    """The vertex-centred scheme: any H, any Delaunay mesh, vacuum."""

    type: Literal["edge"] = Field("edge", description="this scheme")
    mobility: Literal["limited", "upwind"] = Field(
        "limited",
        description="limited: second order where smooth; upwind: first order, the most robust",
    )
    order: Literal[1, 2] = Field(
        2, description="order in time; 1 keeps the structure at any step size"
    )
    newton_tolerance: float = Field(
        1e-12, gt=0, description="sum of |residuals| over the mass that ends Newton"
    )


@dataclass(frozen=True)
class State:
    """A density in time, with what the multistep method and the error estimate need of the past.

    rho, w: owned nodal values of the density and of W*rho (None without interaction).
    past: up to two earlier (t, rho, w), latest first.
    """

    t: float
    rho: np.ndarray
    w: np.ndarray | None
    energy: Energy
    dissipation: float = 0.0
    order: int = 1
    past: tuple[tuple[float, np.ndarray, np.ndarray | None], ...] = ()


@dataclass
class EdgeSolver:
    """The scheme on one graph; matrices and solver are made once.

    Args:
        external: nodal values of V (time-independent; the energy law is about such V).
        source: t -> nodal values of the source, or None.
        mass: the total mass, the unit of tolerances.
    """

    graph: NodeGraph
    H: Internal
    external: np.ndarray
    convolution: Convolution | None
    scheme: EdgeScheme
    mass: float
    tolerance: float
    source: Callable[[float], np.ndarray] | None = None
    theta: float = field(init=False)
    clip: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        g = self.graph
        self.theta = THETA[self.convolution.sign] if self.convolution is not None else 0.0
        self._matrix = create(g)
        self._outflow = np.zeros(g.n + len(g.ghosts))
        self._drift = np.zeros(len(self._matrix.here))
        self._newton = {w: self._solver(w) for w in ({False, True} if self.theta else {False})}

    def _solver(self, implicit_w: bool) -> Newton:
        J = P = self._matrix.mat
        if implicit_w:
            J = PETSc.Mat().createPython(P.getSizes(), _WithConvolution(self), self.graph.comm)
            J.setUp()
        return Newton(
            J,
            P,
            self._residual,
            self._jacobian,
            size=lambda f: float(self.graph.comm.allreduce(np.abs(f).sum())) / self.mass,
            tolerance=lambda: self.scheme.newton_tolerance + self._floor,
            # GMRES applies the convolution once an iteration, BiCGStab, cheaper otherwise, twice
            options={**SOLVER, **INEXACT, "ksp_type": "gmres" if implicit_w else "bcgs"},
            what="Newton iteration of the density",
        )

    # ------------------------------------------------------------ the equations of one step
    def _residual(self, rho: np.ndarray) -> np.ndarray:
        g = self.graph
        phi = self._phi
        if self._theta:
            assert self.convolution is not None
            phi = phi + self._theta * self.convolution(g.mass * rho)
        # one exchange of ghosts for both
        r = g.with_ghosts(rho)
        A = self._matrix
        self._work, size = assemble(
            A.edges,
            r,
            *self.H.fields(np.maximum(r, 0.0)),
            g.with_ghosts(phi),
            self.scheme.mobility == "upwind",
            self.clip,
            self._tau,
            g.mass,
            A.diagonal,
            A.here,
            A.back,
            self._outflow,
            A.values,
            self._drift,
        )
        # rounding of the fluxes, which cancel in the sum
        self._floor = (
            float(g.comm.allreduce(4 * np.finfo(float).eps * self._tau * size)) / self.mass
        )
        return g.mass * (rho - self._target) + self._tau * self._outflow[: g.n]

    def _jacobian(self, rho: np.ndarray) -> None:
        # SNES asks for it where it last asked for the residual, which has written the entries
        self._matrix.changed()

    def _solve(
        self,
        target: np.ndarray,
        tau: float,
        phi: np.ndarray,
        theta: float,
        start: np.ndarray,
        t: float,
    ) -> tuple[np.ndarray, int]:
        """Rho with m (rho - target) + tau * outflow(rho; phi + theta W*rho) = 0, kept positive."""
        self._target, self._tau, self._phi, self._theta = target, tau, phi, theta
        rho, iterations = self._newton[theta > 0].solve(start, t)
        negative = -self.graph.integral(np.minimum(rho, 0.0)) / self.mass
        if negative > NEGATIVE_SLACK * (self.scheme.newton_tolerance + self._floor):
            raise SolveError(
                "positivity of the density",
                f"{negative:.1e} of the mass is negative",
                time=t,
                advice="a smaller newton_tolerance",
            )
        # what the iteration left of the mass balance, and below 0, both below the tolerance
        rho = np.maximum(rho, 0.0)
        return rho * (self.graph.integral(target) / self.graph.integral(rho)), iterations

    # ------------------------------------------------------------ steps
    def start(self, t: float, rho: np.ndarray) -> State:
        """The state of a density with no past. Collective."""
        w = self._w(rho)
        return State(t, rho, w, energy(self.graph, self.H, self.external, rho, w))

    def rate(self, state: State) -> float:
        """Rate of change int |d_t rho| / mass at a state. Collective."""
        self._tau, self._target, self._theta = 1.0, state.rho, 0.0
        self._phi = self.external + (state.w if state.w is not None else 0.0)
        f = self._residual(state.rho)
        return float(self.graph.comm.allreduce(np.abs(f).sum())) / self.mass

    def attempt(self, state: State, dt: float) -> Attempt[State]:
        """A step of the chosen order; of order 1 where 2 would break the structure. Collective."""
        if self.scheme.order == 2 and state.past:
            try:
                done = self._bdf2(state, dt)
            except SolveError:
                done = None
            if done is not None:
                return done
        return self._euler(state, dt)

    def _euler(self, state: State, dt: float) -> Attempt[State]:
        t = state.t + dt
        phi = self.external if state.w is None else self.external + (1 - self.theta) * state.w
        target = state.rho if self.source is None else state.rho + dt * self.source(t)
        rho, iterations = self._solve(target, dt, phi, self.theta, np.maximum(state.rho, 0.0), t)
        new = self._finish(state, t, rho, dt, 1)
        if not self.clip and self.graph.obtuse and self._rises(state, new):
            self.clip = True
            try:
                return self._euler(state, dt)
            finally:
                self.clip = False
        error = (
            predicted_error(self.graph, state, rho, dt) / (self.mass * self.tolerance)
            if self.tolerance
            else 0.0
        )
        return Attempt(new, error, 1, iterations)

    def _bdf2(self, state: State, dt: float) -> Attempt[State] | None:
        t, (before, old, w_old) = state.t + dt, state.past[0]
        h = state.t - before
        q = dt / h
        beta = (1 + q) / (1 + 2 * q)
        # rho - target = beta dt rate, target = rho^n + q^2/(1+2q) (rho^n - rho^(n-1))
        target = state.rho + q * q / (1 + 2 * q) * (state.rho - old)
        # a target below 0 by more than a step may leave makes positivity uncertain
        if self.graph.integral(np.minimum(target, 0.0)) < -self.scheme.newton_tolerance * self.mass:
            return None
        if self.source is not None:
            target = target + beta * dt * self.source(t)
        phi = self.external
        if state.w is not None and w_old is not None:
            phi = phi + state.w + q * (state.w - w_old)
        guess = np.maximum(state.rho + q * (state.rho - old), 0.0)
        rho, iterations = self._solve(target, beta * dt, phi, 0.0, guess, t)
        new = self._finish(state, t, rho, beta * dt, 2)
        if self._rises(state, new):
            return None
        error = 0.0
        if self.tolerance and len(state.past) == 2:
            # against the parabola through the last three values, whose error has a known ratio
            times = np.array([state.t, before, state.past[1][0]])
            weights = [np.prod([(t - b) / (a - b) for b in times if b != a]) for a in times]
            predicted = weights[0] * state.rho + weights[1] * old + weights[2] * state.past[1][1]
            parabola = (t - times[0]) * (t - times[1]) * (t - times[2]) / 6
            bdf = dt * dt * (dt + h) ** 2 / (6 * (2 * dt + h))
            error = bdf / (bdf + parabola) * self._distance(rho, predicted)
        elif self.tolerance:
            error = predicted_error(self.graph, state, rho, dt) / (self.mass * self.tolerance)
        return Attempt(new, error, 2, iterations)

    def _finish(self, state: State, t: float, rho: np.ndarray, tau: float, order: int) -> State:
        w = self._w(rho)
        dissipation = float(self.graph.comm.allreduce(self._work))
        past = ((state.t, state.rho, state.w), *state.past)[:2]
        e = energy(self.graph, self.H, self.external, rho, w)
        return State(t, rho, w, e, dissipation, order, past)

    def _w(self, rho: np.ndarray) -> np.ndarray | None:
        return None if self.convolution is None else self.convolution(self.graph.mass * rho)

    def _rises(self, old: State, new: State) -> bool:
        if self.source is not None:
            return False
        return new.energy.total - old.energy.total > ENERGY_SLACK * old.energy.magnitude

    def _distance(self, a: np.ndarray, b: np.ndarray) -> float:
        return self.graph.integral(np.abs(a - b)) / self.mass / self.tolerance


def predicted_error(graph: NodeGraph, state: State, rho: np.ndarray, dt: float) -> float:
    """Error int |e| of a backward Euler step, by the line through two densities; 0 without them."""
    if not state.past:
        return 0.0
    before, old, _ = state.past[0]
    h = state.t - before
    line = state.rho + (dt / h) * (state.rho - old)
    return dt / (2 * dt + h) * graph.integral(np.abs(rho - line))


class _WithConvolution:
    """The exact Jacobian: the sparse part, and theta tau L(theta M) W m for the implicit W*rho."""

    def __init__(self, solver: EdgeSolver) -> None:
        self.s = solver

    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        s = self.s
        assert s.convolution is not None
        s._matrix.mat.mult(x, y)
        w = s.convolution(s.graph.mass * x.array_r)
        out = np.empty(s.graph.n + len(s.graph.ghosts))
        drift_apply(s._matrix.edges, s._drift, s.graph.with_ghosts(w), out)
        y.array_w[:] += s._tau * s._theta * out[: s.graph.n]
