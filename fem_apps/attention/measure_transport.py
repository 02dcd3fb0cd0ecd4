"""Attention on a density with any field: d_t mu + div(mu Gamma_mu) = kappa Laplace mu, on any mesh.

Fields that are no gradients (V not a multiple of Q^T K, several heads, L2, Sinkhorn, ...) have
fluxes on the edges of the node graph,

    F_ij = q_ij rho_ij + kappa a_ij (rho_i - rho_j),
    q_ij = a_ij (Gamma_i + Gamma_j)/2 . (x_j - x_i),

rho_ij the mean of both ends, but at most twice the end that the flux leaves: second order where rho
is smooth, and positive for dt sum_j (2 |q_ij| + kappa a_ij) <= m_i. Time: three-stage strong
stability preserving Runge-Kutta (Shu, Osher 1988) at a share of that bound. Gamma at the nodes is
the token code's own, with the nodal masses as the masses of tokens: all pairs, O(N^2 / ranks).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from mpi4py import MPI
from numba import njit

from fem_apps.attention.fields import Field
from fem_apps.errors import CaseError
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.time_stepping import Attempt
from fem_apps.problems.edge_scheme import State
from fem_apps.problems.free_energy import Energy

# of the step that keeps positivity; masses below the floor are no masses
SHARE, FLOOR = 0.8, 1e-290


@njit(cache=True, error_model="numpy")
def _fluxes(indptr, cols, weight, x, v, rho, kappa, outflow, bound):  # type: ignore[no-untyped-def]
    """Fluxes out of the owned nodes, and sum_j (2 |q_ij| + kappa |a_ij|); rows hold each edge."""
    for i in range(len(indptr) - 1):
        out = size = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j, a = cols[e], weight[e]
            q = 0.0
            for k in range(x.shape[1]):
                q += 0.5 * (v[i, k] + v[j, k]) * (x[j, k] - x[i, k])
            q *= a
            up = rho[i] if q >= 0.0 else rho[j]
            out += q * min(0.5 * (rho[i] + rho[j]), 2.0 * max(up, 0.0))
            # a negative weight diffuses backwards: left out, as it is of one sign with others
            d = kappa * max(a, 0.0)
            out += d * (rho[i] - rho[j])
            size += 2.0 * abs(q) + d
        outflow[i] = out
        bound[i] = size


@dataclass
class TransportSolver:
    """The scheme on one graph.

    Args:
        graph: the nodes.
        field: Gamma.
        kappa: noise.
        mass: total mass.
    """

    graph: NodeGraph
    field: Field
    kappa: float
    mass: float

    def __post_init__(self) -> None:
        g = self.graph
        if g.lattice:
            raise CaseError("mesh: attention is not periodic; take a mesh without a lattice")
        self._x = np.stack([g.with_ghosts(c) for c in g.x.T], axis=1)
        self._counts = np.array(g.comm.allgather(g.n))
        self._all_x = np.concatenate(g.comm.allgather(g.x))
        self._gamma = jax.jit(self.field)
        self._last: tuple[float, np.ndarray] | None = None

    def velocity(self, rho: np.ndarray) -> np.ndarray:
        """Gamma at the owned nodes, (n, d). Collective."""
        g = self.graph
        b = np.empty(self._counts.sum())
        g.comm.Allgatherv(
            [np.ascontiguousarray(g.mass * rho), MPI.DOUBLE], [b, self._counts, None, MPI.DOUBLE]
        )
        return np.asarray(self._gamma(g.x, self._all_x, np.log(np.maximum(b, FLOOR))))

    def _rate(self, rho: np.ndarray) -> tuple[np.ndarray, float]:
        """d_t rho, and the longest step of positivity. Collective."""
        g = self.graph
        v = self.velocity(rho)
        v = np.stack([g.with_ghosts(np.ascontiguousarray(c)) for c in v.T], axis=1)
        outflow, bound = np.empty(g.n), np.empty(g.n)
        _fluxes(
            g.indptr, g.cols, g.weight, self._x, v, g.with_ghosts(rho), self.kappa, outflow, bound
        )
        limit = float(np.min(g.mass / np.maximum(bound, 1e-300), initial=np.inf))
        return -outflow / g.mass, g.comm.allreduce(limit, op=MPI.MIN)

    # ------------------------------------------------------------------ what `march` needs
    def start(self, t: float, rho: np.ndarray) -> State:
        """The state of a density. Collective."""
        return State(t, rho, None, Energy(0.0, 0.0, 0.0))

    def rate(self, state: State) -> float:
        """Int |d_t rho| / mass. Collective."""
        return self.graph.integral(np.abs(self._rate(state.rho)[0])) / self.mass

    def attempt(self, state: State, dt: float) -> Attempt[State]:
        """One step; its error is above the tolerance where it is too long. Collective."""
        rho = state.rho
        first, limit = self._rate(rho)
        error = (dt / (SHARE * limit)) ** 4
        if error > 2:
            return Attempt(state, error, 3, 0)
        one = rho + dt * first
        two = 0.75 * rho + 0.25 * (one + dt * self._rate(one)[0])
        new = rho / 3 + 2 / 3 * (two + dt * self._rate(two)[0])
        negative = float(self.graph.comm.allreduce(np.min(new, initial=0.0), op=MPI.MIN))
        if negative < 0:
            return Attempt(state, 50.0, 3, 0)
        return Attempt(State(state.t + dt, new, None, Energy(0.0, 0.0, 0.0)), error, 3, 0)
