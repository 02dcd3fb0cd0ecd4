"""Controls improved by the adjoint of the finite-element transport: densities on a mesh.

    min over theta of  J = -int rho_* log max(rho_h(T), floor) + c_1 sum |w_k| + c_2 sum |w_k|^2,

rho_h the discontinuous Galerkin solution with v = sum_i w_ki (a_ki.x + b_ki)_+ on the k-th of N
pieces of length 1, of any width. No particle, no closed form: what `normalizing_flow_train` cannot
do, width above 1, is the same here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_apps.control.normalizing_flow_map import log_gaussian
from fem_apps.control.normalizing_flow_targets import Target
from fem_apps.meshing import MeshData
from fem_apps.problems.continuity import DG
from fem_apps.problems.continuity_adjoint import Transport
from fem_apps.problems.continuity_dg import DGSolver
from fem_apps.problems.continuity_velocity import double_precision, expressions

FLOOR = 1e-8


@dataclass(frozen=True)
class Controls:
    """Neurons of every piece: w, a of shape (N, p, d), b of shape (N, p)."""

    w: np.ndarray
    a: np.ndarray
    b: np.ndarray


def field(theta: Any, x: Any, t: float) -> Any:
    """The velocity sum_i w_i (a_i.x + b_i)_+ of the piece floor(t), x of shape (n, d)."""
    import jax.numpy as jnp

    w, a, b = theta
    # a stage at the end of a piece belongs to it: steps do not cross a switch
    k = jnp.clip(jnp.floor(t).astype(int), 0, w.shape[0] - 1)
    return jnp.maximum(x @ a[k].T + b[k], 0.0) @ w[k]


class MeshControl:
    """J and its gradient on a mesh."""

    def __init__(
        self,
        data: MeshData,
        target: Target,
        pieces: int,
        *,
        steps_per_piece: int = 20,
        degree: int = 1,
        cost_l1: float = 0.0,
        cost_l2: float = 0.0,
    ) -> None:
        """Set up the transport. Collective.

        Args:
            data: a domain that the density stays in.
            target: rho_*.
            pieces: N.
            steps_per_piece: Runge-Kutta steps of each piece.
            degree: of the discontinuous Galerkin space, at least 1.
            cost_l1: c_1.
            cost_l2: c_2.
        """
        dim = data.mesh.geometry.dim
        self.solver = s = DGSolver(
            data, expressions(["0"] * dim), {}, DG(degree=degree, limiter="none")
        )
        c = s.cells
        # inside a piece the stages at its end would see the next one's controls: stay within
        local = np.linspace(0.0, 1.0 - 1e-9, steps_per_piece + 1)
        times = np.concatenate([local[:-1] + k for k in range(pieces)] + [[pieces - 1e-9]])
        self.transport = Transport(s, field, times)
        self.start = s.project(lambda x: np.exp(log_gaussian(x.T)), False)
        x = c.points.reshape(-1, dim)
        self._weight = np.exp(target.log_density(x)).reshape(c.weights.shape) * c.weights
        self._costs = (cost_l1, cost_l2)

    def value_and_gradient(self, controls: Controls) -> tuple[float, Controls]:
        """J, and dJ/d(w, a, b). Collective; the same on every rank."""
        theta = (controls.w, controls.a, controls.b)
        s, c = self.solver, self.solver.cells
        states = self.transport.forward(theta, self.start)
        rho = states[-1] @ c.phi.T
        ok = rho > FLOOR
        local = -(self._weight * np.log(np.where(ok, rho, FLOOR))).sum()
        value = float(s.comm.allreduce(float(local), op=MPI.SUM))
        u_bar = np.where(ok, -self._weight / np.where(ok, rho, 1.0), 0.0) @ c.phi
        gw, ga, gb = self.transport.gradient(theta, states, u_bar)
        c1, c2 = self._costs
        size = np.linalg.norm(controls.w, axis=2, keepdims=True)
        value += c1 * float(size.sum()) + c2 * float((controls.w**2).sum())
        gw = gw + c1 * controls.w / np.maximum(size, 1e-12) + 2 * c2 * controls.w
        return value, Controls(gw, ga, gb)

    def improve(
        self, controls: Controls, steps: int, rate: float = 0.02
    ) -> tuple[Controls, list[float]]:
        """Adam; returns the best controls and the history of J. Collective."""
        import optax

        method = optax.adam(rate)
        with double_precision():
            theta: Any = (controls.w, controls.a, controls.b)
            state = method.init(theta)
            history, best = [], (np.inf, controls)
            for _ in range(steps):
                now = Controls(*(np.asarray(q) for q in theta))
                value, g = self.value_and_gradient(now)
                history.append(value)
                if value < best[0]:
                    best = (value, now)
                change, state = method.update((g.w, g.a, g.b), state)
                theta = optax.apply_updates(theta, change)
        return best[1], history
