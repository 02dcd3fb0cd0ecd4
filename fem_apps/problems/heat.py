"""The heat equation with a control, and its exact discrete adjoint.

    y_t = div(kappa grad y) - r y [+ chi v],     y(0) = y0,     y = 0 or y = v on the boundary

P1 in space. In time the functional p = M y + M_IC v (the moments of the whole y_h, its controlled
boundary values included) moves, v being constant on a step:

    theta:  (M + theta dt K) y^theta = p^n - M_IC v + theta dt E v,
            p^{n+1} = p^n - dt K y^theta + dt E v,       E = -K_IC (boundary), B^T (interior);

    BDF2:   the same with (4 p^n - p^{n-1})/3 for p^n, 2 dt/3 for dt and theta = 1. Its first step
            is a theta step with theta = 2/3: the same matrix, so one factorisation for all.

The adjoint is the transpose, step by step: for lambda^N = phi_T it runs
lambda^n = lambda^{n+1} - dt S^{-1} K lambda^{n+1}, and what it gives at the control is, for a
boundary control, the variational flux -int (lambda_t w + kappa grad lambda . grad w): of higher
order than the gradient of P1 (Glowinski, Lions, Acta Numerica 1995).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from fem_apps.fem.split import Split

Scheme = Literal["implicit-euler", "crank-nicolson", "bdf2"]
THETA = {"implicit-euler": 1.0, "crank-nicolson": 0.5, "bdf2": 2.0 / 3.0}


class Heat:
    """The discrete equation on [0, T]; controls have shape (N, c), a row a step.

    Args:
        s: matrices of the mesh and the control.
        end: T.
        steps: N.
        scheme: in time.
    """

    def __init__(self, s: Split, end: float, steps: int, scheme: Scheme = "implicit-euler") -> None:
        self.s, self.end, self.steps, self.scheme = s, end, steps, scheme
        self.dt = end / steps
        self.times = self.dt * np.arange(1, steps + 1)
        self.weights = np.full(steps, self.dt)
        self.theta = THETA[scheme]
        self._S = s.factor(s.sum(self.theta * self.dt), "step of the heat equation")

    def _source(self, v: np.ndarray) -> np.ndarray:
        """E v."""
        if self.s.K_C is not None:
            return -self.s.K_C.T(v)
        assert self.s.B is not None
        return self.s.B.T(v)

    def _source_T(self, q: np.ndarray) -> np.ndarray:
        """E^T q."""
        if self.s.K_C is not None:
            return -self.s.K_C(q)
        assert self.s.B is not None
        return self.s.B(q)

    def _step(
        self, p: np.ndarray, v: np.ndarray | None, dt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(p^{n+1}, y) of one step of S; `theta * dt` is always that of S."""
        implicit = self.theta * self.dt
        if v is None:
            y = self._S(p)
            return p - dt * self.s.K(y), y
        E = self._source(v)
        r = p + implicit * E
        if self.s.M_C is not None:
            r -= self.s.M_C.T(v)
        y = self._S(r)
        return p + dt * (E - self.s.K(y)), y

    def march(self, p0: np.ndarray, v: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (n, p^n), n = 0..N, from p^0 = (y0, phi_i), under a control. Collective."""
        yield 0, p0
        before, p = p0, p0
        for n in range(self.steps):
            control = None if v is None else v[n]
            if self.scheme == "bdf2" and n > 0:
                c = (4 * p - before) / 3
                before, (p, _) = p, self._step(c, control, 2 * self.dt / 3)
            else:
                before, (p, _) = p, self._step(p, control, self.dt)
            yield n + 1, p

    def final(self, p0: np.ndarray, v: np.ndarray | None) -> np.ndarray:
        """(y(T), phi_i), shape (n,). Collective."""
        p = p0
        for _, state in self.march(p0, v):
            p = state
        return p

    def act(self, v: np.ndarray) -> np.ndarray:
        """(y(T), phi_i) of the control v, shape (N, c), from y0 = 0. Collective."""
        return self.final(np.zeros(len(self.s.free)), v)

    def march_adjoint(self, phi: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (n, lambda, q), n = N-1..0: duals of p^{n+1} and, times -dt, of its change."""
        lam, later = phi, np.zeros_like(phi)
        for n in reversed(range(self.steps)):
            second = self.scheme == "bdf2" and n > 0
            q = -(2 * self.dt / 3 if second else self.dt) * self._S(self.s.K(lam))
            yield n, lam, q
            c = lam + q
            lam, later = (later + 4 * c / 3, -c / 3) if second else (later + c, np.zeros_like(c))

    def observe(self, phi: np.ndarray) -> np.ndarray:
        """The transpose of `act`: F, shape (N, c), with act(v) . phi = sum_n dt v^n . F^n.

        F^n are functionals on the control space: B phi, or the variational flux. Collective.
        """
        F = np.empty((self.steps, len(self.s.control)))
        implicit = self.theta * self.dt
        for n, lam, q in self.march_adjoint(phi):
            dt = 2 * self.dt / 3 if self.scheme == "bdf2" and n > 0 else self.dt
            F[n] = dt * self._source_T(lam) + implicit * self._source_T(q)
            if self.s.M_C is not None:
                F[n] -= self.s.M_C(q)
        return F / self.dt

    def control(self, phi: np.ndarray) -> np.ndarray:
        """N^{-1} F, shape (N, c): the control that the adjoint of phi gives. Collective."""
        if self.s.B is None:
            return np.stack([self.s.N_inverse(F) for F in self.observe(phi)])
        at = np.searchsorted(self.s.free, self.s.control)
        v = np.empty((self.steps, len(at)))
        for n, lam, q in self.march_adjoint(phi):
            dt = 2 / 3 if self.scheme == "bdf2" and n > 0 else 1.0
            v[n] = dt * lam[at] + self.theta * q[at]
        return v

    def values(self, p: np.ndarray, v: np.ndarray | None) -> np.ndarray:
        """Nodal values of the moments p, with the boundary value v. Collective."""
        if v is not None and self.s.M_C is not None:
            p = p - self.s.M_C.T(v)
        return self.s.inverse("M")(p)
