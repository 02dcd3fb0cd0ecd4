"""The wave equation with a control, and its exact discrete adjoint.

    y_tt = div(c^2 grad y) - r y [+ chi v],    (y, y_t)(0) = (y0, y1),
    y = 0, or y = v, on the boundary

P1 in space, Newmark's two-step scheme in time (gamma = 1/2), S = M + beta dt^2 K:

    S (phi^{n+1} - 2 phi^n + phi^{n-1}) = -dt^2 K phi^n,
    phi^0 = e0,   phi^1 = e0 + dt e1 - dt^2/2 S^{-1} K e0.

beta = 1/4: the midpoint (one-stage Gauss) rule, unconditionally stable; beta = 1/12: of fourth
order (Fox-Goodwin); beta = 0 with lumped mass: leapfrog, dt <= 2/sqrt(lambda_max(M^{-1} K)). All
are symmetric in time. Or S of the two-stage Gauss rule (problems/gauss.py): of fourth order and
unconditionally stable. The adjoint phi is observed by the functionals F^n = D phi^n,

    F^n = K_CI phi^n - S_CI S^{-1} K phi^n     (boundary: int phi_tt w + c^2 grad phi . grad w),
    F^n = -B phi^n                             (interior).

The first is the variational flux (Glowinski, Li, Lions 1990), which keeps the order that the
gradient of P1 loses. The controlled state moves by its moments w = S_II y + S_IC v,

    w^{n+1} - 2 w^n + w^{n-1} = -dt^2 (K S^{-1} w^n + D^T v^n),

which is the transpose: from q = ((y1, phi_i), (y0, phi_i)) to rest, with w_n = 1, 1/2 at both ends,

    q1 . e0 - q0 . e1 = sum_n dt w_n v^n . F^n     for all e = (e0, e1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.fem.split import Inverse, Matrix, Split
from fem_apps.problems.gauss import GaussInverse
from fem_apps.problems.leapfrog import Leapfrog

Pair = tuple[np.ndarray, np.ndarray]


class Wave:
    """The discrete equation on [0, T]; controls have shape (N + 1, c), a row a time t_n = n dt.

    Args:
        s: matrices of the mesh and the control.
        end: T.
        steps: N.
        beta: Newmark's parameter.
        gauss: take the two-stage Gauss rule; beta is then that of the flux, 1/12.

    Raises:
        CaseError: beta < 1/4 and dt beyond the stability limit (CFL).
    """

    def __init__(
        self, s: Split, end: float, steps: int, beta: float = 0.25, *, gauss: bool = False
    ) -> None:
        beta = 1 / 12 if gauss else beta
        self.s, self.end, self.steps, self.beta = s, end, steps, beta
        self.dt = end / steps
        self.times = self.dt * np.arange(steps + 1)
        self.weights = np.full(steps + 1, self.dt)
        self.weights[[0, -1]] /= 2
        self.inverse: Inverse | GaussInverse
        if gauss:
            self.inverse = GaussInverse(s, self.dt)
        else:
            S = s.sum(beta * self.dt**2) if beta else s.M
            self.inverse = s.factor(S, "step of the wave equation", diagonal=s.lumped and beta == 0)
        self._S_C: Matrix | None = None
        if s.M_C is not None and not (s.lumped and beta == 0):
            self._S_C = s.sum(beta * self.dt**2, control=True)
        if beta < 0.25 and not gauss:
            self._require_stable()
        self.leapfrog = Leapfrog(s, self.dt, steps) if s.lumped and beta == 0 else None

    def _require_stable(self) -> None:
        limit = stable_step(self.s, self.beta)
        if self.dt > limit * (1 + 1e-9):
            raise CaseError(
                f"the time step {self.dt:.4g} violates the CFL condition dt <= {limit:.4g} of "
                f"beta = {self.beta:.4g}: at least {int(np.ceil(self.end / limit))} steps, or "
                "scheme = 'midpoint'"
            )

    def start(self, q: np.ndarray) -> np.ndarray:
        """What marches start from, of functionals ((y1, phi_i), -(y0, phi_i)). Collective."""
        return self.inverse.start(q) if isinstance(self.inverse, GaussInverse) else q

    def _observe(self, phi: np.ndarray, a: np.ndarray) -> np.ndarray:
        """D phi, given a = -S^{-1} K phi."""
        if self.s.K_C is not None:
            F = self.s.K_C(phi)
            return F if self._S_C is None else F + self._S_C(a)
        assert self.s.B is not None
        return -self.s.B(phi)

    def _push(self, b: np.ndarray, g: np.ndarray) -> np.ndarray:
        """K S^{-1} b + D^T g."""
        if self.s.K_C is not None:
            r = b if self._S_C is None else b - self._S_C.T(g)
            return self.s.K(self.inverse(r)) + self.s.K_C.T(g)
        assert self.s.B is not None
        return self.s.K(self.inverse(b)) - self.s.B.T(g)

    def march_adjoint(self, e0: np.ndarray, e1: np.ndarray) -> Iterator[Pair]:
        """Yield (phi^n, -S^{-1} K phi^n), n = 0..N. Collective."""
        before, phi = e0, e0
        for n in range(self.steps + 1):
            a = -self.inverse(self.s.K(phi))
            yield phi, a
            if n == 0:
                before, phi = phi, phi + self.dt * e1 + 0.5 * self.dt**2 * a
            else:
                before, phi = phi, 2 * phi - before + self.dt**2 * a

    def observe(self, e: np.ndarray) -> np.ndarray:
        """F, shape (N + 1, c), of e = (e0, e1), shape (2, n). Collective."""
        if self.leapfrog is not None:
            return self.leapfrog.observe(e[0], e[1])
        F = np.empty((self.steps + 1, len(self.s.control)))
        for n, (phi, a) in enumerate(self.march_adjoint(e[0], e[1])):
            F[n] = self._observe(phi, a)
        return F

    def control(self, e: np.ndarray) -> np.ndarray:
        """N^{-1} F, shape (N + 1, c): the control that the adjoint of e gives. Collective."""
        if self.s.B is None:
            return np.stack([self.s.N_inverse(F) for F in self.observe(e)])
        at = np.searchsorted(self.s.free, self.s.control)
        if self.leapfrog is not None:
            return -self.leapfrog.values(e[0], e[1], at)
        return np.stack([-phi[at] for phi, _ in self.march_adjoint(e[0], e[1])])

    def act(self, v: np.ndarray) -> np.ndarray:
        """The transpose of `observe`: (q1, -q0), shape (2, n), that the control v brings to rest.

        act(v)[0] . e0 + act(v)[1] . e1 = sum_n dt w_n v^n . F^n. Collective.
        """
        if self.leapfrog is not None:
            return self.leapfrog.act(v, self.weights)
        dt = self.dt
        b1 = np.zeros(len(self.s.free))
        b2 = b1
        for n in range(self.steps, 0, -1):
            b = 2 * b1 - b2 - self._push(dt**2 * b1, -self.weights[n] * v[n])
            b1, b2 = b, b1
        p0 = b1 - b2 - self._push(0.5 * dt**2 * b1, -self.weights[0] * v[0])
        return np.stack([p0, dt * b1])

    def march(self, q: np.ndarray, v: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (n, w^n), n = 0..N, from q = ((y1, phi_i), -(y0, phi_i)). Collective."""
        none = np.zeros((1, len(self.s.control)))
        dt, before, w = self.dt, -q[1], -q[1]
        for n in range(self.steps + 1):
            yield n, w
            if n == self.steps:
                break
            f = self._push(w, none[0] if v is None else v[n])
            if n == 0:
                before, w = w, w + dt * q[0] - 0.5 * dt**2 * f
            else:
                before, w = w, 2 * w - before - dt**2 * f

    def final(self, q: np.ndarray, v: np.ndarray | None) -> np.ndarray:
        """((y_t(T), phi_i), -(y(T), phi_i)), shape (2, n). Collective."""
        before = w = -q[1]
        for n, state in self.march(q, v):
            before, w = (w, state) if n else (state, state)
        last = np.zeros(len(self.s.control)) if v is None else v[-1]
        velocity = (w - before) / self.dt - 0.5 * self.dt * self._push(w, last)
        return np.stack([velocity, -w])

    def values(self, w: np.ndarray, v: np.ndarray | None) -> np.ndarray:
        """Nodal values of the moments w, with the boundary value v. Collective."""
        return self.inverse(w if v is None or self._S_C is None else w - self._S_C.T(v))


def stable_step(s: Split, beta: float) -> float:
    """The largest stable dt, 2/sqrt((1 - 4 beta) lambda_max(M^{-1} K)), inf for beta >= 1/4.

    lambda_max by 60 steps of the power method with Rayleigh quotients, after which it is a lower
    bound good to about a percent: what is refused is unstable. Collective.
    """
    if beta >= 0.25:
        return np.inf
    solve = s.inverse("M")
    # the same start on any number of ranks: it depends on places, and is rough
    z = np.cos(1e4 * (s.x @ np.arange(1.0, s.x.shape[1] + 1) + 0.3))
    top = 0.0
    for _ in range(60):
        Kz, Mz = s.K(z), s.M(z)
        top = max(top, s.dot(z, Kz) / s.dot(z, Mz))
        z = solve(Kz)
        z /= np.sqrt(s.dot(z, z))
    return float(2 / np.sqrt((1 - 4 * beta) * top))
