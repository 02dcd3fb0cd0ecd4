"""The exact flow of v = w (a.x + b)_+ with piecewise-constant controls: map, inverse, log-density.

On one piece of duration tau, with s(x) = (a.x + b)_+ and lam = w.a,

    Phi(x) = x + s(x) f w,   f = (e^(lam tau) - 1) / lam   (tau where lam = 0),

Phi^-1 is the same with -tau, and the density at Phi(x) is that at x times e^(-lam tau) where
a.x + b > 0. So after all pieces

    log rho(z) = log rho_0(Phi^-1(z)) - sum_k lam_k tau_k [active at piece k],

and no differential equation is solved. Source: Alvarez-Lopez, Geshkovski, Ruiz-Balet, Appl. Math.
Optim. 92:33 (2025), arXiv 2412.19366.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

# particles that go through all pieces together: they and their work stay in the first-level cache
BLOCK = 256


@dataclass(frozen=True)
class Schedule:
    """Controls (w, a, b), constant on N pieces: N - 1 switches.

    Attributes:
        w: shape (N, d).
        a: shape (N, d).
        b: shape (N,).
        tau: durations, shape (N,).
    """

    w: np.ndarray
    a: np.ndarray
    b: np.ndarray
    tau: np.ndarray

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.w.shape[1]

    @property
    def switches(self) -> int:
        """Jumps of the controls."""
        return max(len(self.b) - 1, 0)

    @property
    def cost_l1(self) -> float:
        """Sum of |w_k| tau_k: not changed when durations are rescaled."""
        return float(np.linalg.norm(self.w, axis=1) @ self.tau)

    @property
    def cost_l2(self) -> float:
        """Sum of |w_k|^2 tau_k."""
        return float((self.w**2).sum(axis=1) @ self.tau)

    def reversed_in_time(self) -> Schedule:
        """The schedule of the inverse map."""
        return Schedule(-self.w[::-1], self.a[::-1], self.b[::-1], self.tau[::-1])

    def then(self, later: Schedule) -> Schedule:
        """This schedule, and after it another one."""
        pairs = ((getattr(self, k), getattr(later, k)) for k in ("w", "a", "b", "tau"))
        return Schedule(*(np.concatenate(p) for p in pairs))

    def with_durations(self, total: float) -> Schedule:
        """The same map in the time [0, total], all pieces of one length."""
        tau = np.full(len(self.b), total / max(len(self.b), 1))
        return Schedule(self.w * (self.tau / tau)[:, None], self.a, self.b, tau)

    def write(self, path: Path) -> None:
        """As CSV: w_1..w_d, a_1..a_d, b, duration; `continuity_velocity.read_switches` reads it."""
        names = [f"{k}_{i + 1}" for k in "wa" for i in range(self.dim)]
        table = np.column_stack([self.w, self.a, self.b, self.tau])
        np.savetxt(
            path, table, "%.17g", ",", header=",".join([*names, "b", "duration"]), comments=""
        )


def pieces(dim: int, steps: list[tuple[Any, Any, float, float]]) -> Schedule:
    """A schedule of steps (w, a, b, tau); w and a are numbers in one dimension."""
    if not steps:
        return Schedule(np.zeros((0, dim)), np.zeros((0, dim)), np.zeros(0), np.zeros(0))
    w, a, b, tau = zip(*steps, strict=True)
    shape = (-1, dim)
    return Schedule(
        np.array(w, float).reshape(shape),
        np.array(a, float).reshape(shape),
        np.array(b, float),
        np.array(tau, float),
    )


def _factors(s: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Lam tau, and w f, which are the same for all particles."""
    rate = np.einsum("kd,kd->k", s.w, s.a) * s.tau
    with np.errstate(invalid="ignore", divide="ignore"):
        f = np.where(rate == 0, 1.0, np.expm1(rate) / np.where(rate == 0, 1.0, rate)) * s.tau
    return rate, s.w * f[:, None]


def forward(s: Schedule, x: np.ndarray) -> np.ndarray:
    """Phi(x), x of shape (n, d)."""
    return push(s, x)[0]


def inverse(s: Schedule, z: np.ndarray) -> np.ndarray:
    """Phi^-1(z), z of shape (n, d)."""
    return push(s.reversed_in_time(), z)[0]


def push(s: Schedule, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phi(x) and log det D Phi(x), shapes (n, d), (n,)."""
    rate, step = _factors(s)
    y = np.ascontiguousarray(np.asarray(x, dtype=float).reshape(-1, s.dim).T)
    out, growth = np.empty_like(y), np.empty(y.shape[1])
    _flow(y, s.a, s.b, step, rate, out, growth)
    return np.ascontiguousarray(out.T), growth


def log_density(s: Schedule, z: np.ndarray, log_base: Any = None) -> np.ndarray:
    """Log-density of Phi_# rho_0 at z, shape (n,); rho_0 is N(0, I) if left out."""
    x, growth = push(s.reversed_in_time(), z)
    return (log_gaussian(x) if log_base is None else log_base(x)) + growth


def log_gaussian(x: np.ndarray) -> np.ndarray:
    """Log of the standard Gaussian at x, shape (n, d)."""
    return -0.5 * (x**2).sum(axis=1) - 0.5 * x.shape[1] * np.log(2 * np.pi)


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def _flow(x, a, b, step, rate, out, growth):  # type: ignore[no-untyped-def]
    """All pieces on blocks of particles, x of shape (d, n)."""
    d, n = x.shape
    y, s, g = np.empty((d, BLOCK)), np.empty(BLOCK), np.empty(BLOCK)
    for start in range(0, n, BLOCK):
        m = min(BLOCK, n - start)
        for i in range(d):
            for p in range(m):
                y[i, p] = x[i, start + p]
            for p in range(m, BLOCK):
                y[i, p] = 0.0
        g[:] = 0.0
        for k in range(len(b)):
            bk, rk = b[k], rate[k]
            for p in range(BLOCK):
                s[p] = bk
            for i in range(d):
                if a[k, i] != 0.0:
                    for p in range(BLOCK):
                        s[p] += a[k, i] * y[i, p]
            for p in range(BLOCK):
                s[p] = max(s[p], 0.0)
            for i in range(d):
                if step[k, i] != 0.0:
                    for p in range(BLOCK):
                        y[i, p] += s[p] * step[k, i]
            if rk != 0.0:
                for p in range(BLOCK):
                    g[p] += rk if s[p] > 0.0 else 0.0
        for i in range(d):
            for p in range(m):
                out[i, start + p] = y[i, p]
        for p in range(m):
            growth[start + p] = g[p]


# ---------------------------------------------------------------- the same in JAX, for gradients


def jax_push(w: Any, a: Any, b: Any, tau: Any, x: Any) -> tuple[Any, Any]:
    """Phi(x) and log det D Phi(x) in JAX, x of shape (n, d); differentiable in all arguments.

    The derivative of log det in a and b leaves out the surface terms: see `normalizing_flow_train`.
    """
    import jax
    import jax.numpy as jnp

    def piece(carry: tuple[Any, Any], theta: tuple[Any, ...]) -> tuple[tuple[Any, Any], None]:
        y, growth = carry
        wk, ak, bk, tk = theta
        rate = jnp.dot(wk, ak) * tk
        small = jnp.abs(rate) < 1e-8
        safe = jnp.where(small, 1.0, rate)
        f = jnp.where(small, 1.0 + rate / 2, jnp.expm1(safe) / safe) * tk
        s = jnp.maximum(y @ ak + bk, 0.0)
        return (y + s[:, None] * (f * wk), growth + rate * (s > 0)), None

    (y, growth), _ = jax.lax.scan(piece, (x, jnp.zeros(x.shape[0], x.dtype)), (w, a, b, tau))
    return y, growth


def jax_log_density(w: Any, a: Any, b: Any, tau: Any, z: Any) -> Any:
    """Log of the density of Phi_# N(0, I) at z in JAX, shape (n,)."""
    import jax.numpy as jnp

    x, growth = jax_push(-w[::-1], a[::-1], b[::-1], tau[::-1], z)
    return growth - 0.5 * (x**2).sum(axis=1) - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi)
