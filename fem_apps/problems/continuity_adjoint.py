"""Adjoint of the unlimited DG transport: gradients in the parameters of the velocity.

A stage is y_{s+1} = a_s u + b_s (y_s + dt M^-1 R(v) y_s), linear in the density. Backwards, with
mu = M^-1 lambda,

    R^T mu at j = int phi_j v.grad mu - sum_F (v.n)_+- phi_j (mu_left - mu_right),

and the derivative in v weighs the same products: at cell points rho grad mu, at facet points the
jump of mu times the upwind value (the upwind side frozen, which is right but where v.n = 0). States
at steps are kept, stages computed again. Exact to rounding as a transpose; the gradient is that of
the discrete solution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_apps.problems.continuity_blocks import unblocked
from fem_apps.problems.continuity_dg import STAGES, DGSolver
from fem_apps.problems.continuity_velocity import Measure, Sites, Velocity, double_precision

# a parametrised field v(theta, x, t), x of shape (n, gdim), in JAX
Field = Callable[[Any, Any, float], Any]


class Transport:
    """Rho(T) as a function of theta, and the gradient of functions of it.

    Args:
        solver: of the scheme, its limiter "none"; its velocity is replaced.
        field: v(theta, x, t).
        times: of the steps, from 0 to T.
    """

    def __init__(self, solver: DGSolver, field: Field, times: np.ndarray) -> None:
        if solver.scheme.limiter != "none" or solver.scheme.degree == 0:
            raise ValueError("the adjoint is that of degree >= 1 without a limiter")
        self.solver, self.times = solver, np.asarray(times, float)
        import jax

        def pulled(theta: Any, x: Any, t: float, v_bar: Any) -> Any:
            return jax.vjp(lambda p: field(p, x, t), theta)[1](v_bar)[0]

        self._field, self._pulled = jax.jit(field), jax.jit(pulled)
        self._sites = solver.cells.sites
        c = solver.cells
        self._volume = c.volume if c.affine else np.ones(c.size)

    def forward(self, theta: Any, u0: np.ndarray) -> list[np.ndarray]:
        """Densities at all times. Collective."""
        self._use(theta)
        states = [u0]
        for t, dt in zip(self.times, np.diff(self.times), strict=False):
            states.append(self.solver.step(float(t), states[-1], float(dt)))
        return states

    def _use(self, theta: Any) -> None:
        def at(sites: Sites, t: float, rho: Measure) -> np.ndarray:
            with double_precision():
                return np.asarray(self._field(theta, sites.x, t))

        self.solver.velocity = Velocity(at, "time")
        self.solver._given_for = None

    def gradient(self, theta: Any, states: list[np.ndarray], u_bar: np.ndarray) -> Any:
        """Gradient in theta of J(rho(T)), from dJ/du, shape (n, nb); u_bar becomes dJ/du0.

        Collective; the same on every rank.
        """
        import jax
        import jax.numpy as jnp

        s = self.solver
        total: Any = None
        lam = u_bar
        for n in range(len(self.times) - 2, -1, -1):
            t, dt, u = float(self.times[n]), float(self.times[n + 1] - self.times[n]), states[n]
            stages, y = [], u
            for a, b, c, _ in STAGES[s.scheme.stages]:
                stages.append(y)
                out = np.empty_like(y)
                s.stage(t + c * dt, y, u, a, b, dt, out)
                y = out
            at_start = np.zeros_like(u)
            for (a, b, c, _), y in zip(
                reversed(STAGES[s.scheme.stages]), reversed(stages), strict=True
            ):
                s.update_velocity(t + c * dt, y)
                at_start += a * lam
                back, v_bar = self.transposed(lam, y)
                with double_precision():
                    g = self._pulled(theta, self._sites.x, t + c * dt, jnp.asarray(b * dt * v_bar))
                total = g if total is None else jax.tree.map(lambda p, q: p + q, total, g)
                lam = b * (lam + dt * back)
            lam = lam + at_start
        u_bar[:] = lam
        return jax.tree.map(lambda p: s.comm.allreduce(np.asarray(p), op=MPI.SUM), total)

    def transposed(self, lam: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """L^T lambda, and the derivative of (lambda, L u) by v at the sites. Collective."""
        s, c = self.solver, self.solver.cells
        assert s._given is not None
        G, un = unblocked(s._given[0], (*c.weights.shape, c.dphi.shape[2])), s._un
        if c.affine:
            mu = lam @ c.mass_inverse[0] / c.volume[:, None]
        else:
            mu = np.einsum("cij,cj->ci", c.mass_inverse, lam)
        slope = np.einsum("ci,qik->cqk", mu, c.dphi)
        out = np.einsum("cqk,cqk->cq", G, slope) @ c.phi

        full_mu, full_u = c.with_ghosts(mu), c.with_ghosts(u)
        inner = np.flatnonzero(c.right >= 0)

        def traces(w: np.ndarray, outside: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            left = np.einsum("fqi,fi->fq", c.trace[c.variant_left], w[c.left])
            right = np.zeros_like(left)
            right[inner] = np.einsum(
                "fqi,fi->fq", c.trace[c.variant_right[inner]], w[c.right[inner]]
            )
            if outside is not None:
                right[s._boundary] = outside
            return left, right

        mu_left, mu_right = traces(full_mu, None)
        u_left, u_right = traces(full_u, s._outside)
        jump = mu_left - mu_right
        weight = np.where(
            c.cell_signs[..., None] > 0,
            np.maximum(un, 0.0)[c.cell_facets],
            np.minimum(un, 0.0)[c.cell_facets],
        )
        out -= np.einsum("ceq,ceqi->ci", weight * jump[c.cell_facets], c.trace[c.cell_variants])

        rho = u @ c.phi.T
        at_cells = np.einsum("cq,cqk,cqkd->cqd", c.weights * rho, slope, c.K)
        at_facets = -(jump * np.where(un >= 0, u_left, u_right))[..., None] * c.conormal
        at_facets[c.left >= c.size] = 0.0  # those are the other rank's
        for part in s._parts:
            if part.type == "wall":
                at_facets[s._boundary[part.rows]] = 0.0
        gdim = c.conormal.shape[2]
        v_bar = np.concatenate([at_cells.reshape(-1, gdim), at_facets.reshape(-1, gdim)])
        return out, v_bar
