"""Leapfrog marches of the wave equation and its adjoint with lumped mass, in one pass a step.

    z^{n+1} = 2 z^n - z^{n-1} - dt^2 M^{-1} (K z^n + G^T v^n),    M diagonal,

G = K_CI of a boundary control, -B of an interior one. Both touch few rows, `near` the control, so
that a step is the kernel of `fem/sliced_ell.py` and little else. See problems/wave.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from petsc4py import PETSc

from fem_apps.fem.sliced_ell import sliced
from fem_apps.fem.split import Matrix, Split


class Leapfrog:
    """The marches of `problems.wave.Wave` that conjugate gradients need, for beta = 0.

    Args:
        s: matrices of the mesh and the control, of lumped mass.
        dt: time step.
        steps: N.
    """

    def __init__(self, s: Split, dt: float, steps: int) -> None:
        self.s, self.dt, self.steps = s, dt, steps
        self.mass = s.M.mat.getDiagonal().array_r.copy()
        self.ell = sliced(s.K.mat, dt**2 / self.mass)
        coupling = s.K_C if s.K_C is not None else s.B
        assert coupling is not None
        self._sign = 1.0 if s.K_C is not None else -1.0
        self._near, self._G = _near(coupling.mat)
        self._at = self.ell.place[self._near]

    def _force(self, v: np.ndarray) -> np.ndarray:
        """G^T v at the rows near the control."""
        return self._sign * self._G.T(v)

    def states(self, e0: np.ndarray, e1: np.ndarray) -> Iterator[np.ndarray]:
        """Yield packed phi^n, n = 0..N; each is overwritten two steps on. Collective."""
        z = self.ell.pack(e0)
        yield z
        later = np.zeros_like(z)
        self.ell.step(z, later)  # 2 z - dt^2 M^{-1} K z
        later[self.ell.place] = later[self.ell.place] / 2 + self.dt * e1
        before, z = z, later
        for n in range(1, self.steps + 1):
            yield z
            if n < self.steps:
                self.ell.step(z, before)
                before, z = z, before

    def observe(self, e0: np.ndarray, e1: np.ndarray) -> np.ndarray:
        """F^n = G phi^n, shape (N + 1, c). Collective."""
        return np.stack([self._sign * self._G(z[self._at]) for z in self.states(e0, e1)])

    def values(self, e0: np.ndarray, e1: np.ndarray, free: np.ndarray) -> np.ndarray:
        """phi^n at owned free dofs, shape (N + 1, len(free)). Collective."""
        at = self.ell.place[free]
        return np.stack([z[at] for z in self.states(e0, e1)])

    def act(self, v: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """`Wave.act`: (q1, -q0), shape (2, n), of controls v, shape (N + 1, c). Collective."""
        z, before = np.zeros(self.ell.length), np.zeros(self.ell.length)
        for n in range(self.steps, 0, -1):
            self.ell.step(z, before)
            before[self._at] += self._force(weights[n] * v[n]) / self.mass[self._near]
            before, z = z, before
        old = before.copy()
        self.ell.step(z, before)
        # the first step is half the difference of the next one and of the one before
        p0 = 0.5 * self.mass * (before - old)[self.ell.place]
        p0[self._near] += self._force(weights[0] * v[0])
        return np.stack([p0, self.dt * self.mass * z[self.ell.place]])


def _near(G: PETSc.Mat) -> tuple[np.ndarray, Matrix]:
    """Owned columns that G touches, and G without the others. Collective."""
    columns = G.getValuesCSR()[1]
    seen = G.createVecRight()
    seen.setValues(np.unique(columns), np.ones(len(np.unique(columns))))
    seen.assemble()
    near = np.flatnonzero(seen.array_r > 0)
    first = seen.getOwnershipRange()[0]
    rows, wanted = G.getOwnershipRange(), (first + near).astype(PETSc.IntType)
    here = PETSc.IS().createStride(rows[1] - rows[0], rows[0], 1, comm=G.comm)
    part = G.createSubMatrix(here, PETSc.IS().createGeneral(wanted, comm=G.comm))
    seen.destroy()
    return near, Matrix(part)
