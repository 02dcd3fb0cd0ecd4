"""The two-stage Gauss rule for M y'' + K y = 0, as a two-step scheme like Newmark's.

With A = M^{-1} K, x = dt^2 A, its stability function, the (2, 2) Pade approximation of exp, gives

    phi^{n+1} - 2 phi^n + phi^{n-1} = -x D^{-1} phi^n,      D = 1 + x/12 + x^2/144,
    phi^1 = (1 - x D^{-1}/2) phi^0 + dt (1 - x/12) D^{-1} phi'(0),

so that it is Newmark's scheme with S = M D in the place of M + beta dt^2 K: of fourth order,
symmetric in time, stable for every dt (Hairer, Lubich, Wanner, Geometric Numerical Integration,
2006, II.1.3). D = (1 + c x)(1 + conj(c) x), c = (1 + i sqrt3)/24, takes one complex solution,

    S^{-1} b = Re w + Im w/sqrt3,    (M + c dt^2 K) w = b.
"""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc

from fem_apps.fem.split import OWN, Inverse, Split


class GaussInverse:
    """b -> S^{-1} b; real and imaginary parts as one symmetric quasi-definite matrix."""

    def __init__(self, s: Split, dt: float) -> None:
        self.s, self.dt = s, dt
        real = s.sum(dt**2 / 24).mat
        imaginary = s.K.mat.copy()
        imaginary.scale(-np.sqrt(3) * dt**2 / 24)
        minus = real.copy()
        minus.scale(-1.0)
        both = PETSc.Mat().createNest([[real, imaginary], [imaginary, minus]], comm=s.comm)
        both = both.convert("aij")
        own = OWN[s.V.mesh.topology.dim] // 2
        self._solve = Inverse(both, "step of the Gauss rule", own=own, definite=False)

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """S^{-1} b. Collective."""
        w = self._solve(np.concatenate([b, np.zeros_like(b)])).reshape(2, -1)
        return np.asarray(w[0] + w[1] / np.sqrt(3))

    def start(self, q: np.ndarray) -> np.ndarray:
        """The first step's data, of fourth order, from functionals ((y1, phi), -(y0, phi)).

        (1 - x/12) of the velocity, S M^{-1} of the state's functional. Collective.
        """
        mass, K, k = self.s.inverse("M"), self.s.K, self.dt**2 / 12
        Ay = K(mass(q[1]))
        return np.stack([q[0] - k * K(mass(q[0])), q[1] + k * Ay + k**2 * K(mass(Ay))])
