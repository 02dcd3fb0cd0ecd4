"""CG with BoomerAMG for symmetric positive definite systems that come one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
from petsc4py import PETSc

from fem_apps.errors import SolveError
from fem_apps.fem.solvers import set_options, solve

# a preconditioner of an earlier matrix is kept while CG takes at most EXTRA more steps than with a
# fresh one, and while the two matrices are equivalent up to SPREAD
EXTRA, SPREAD = 6, 2.0


class EllipticSolver:
    """Solves A x = b one after another, with a preconditioner that is kept while it serves.

    Attributes:
        iterations: CG steps of every solve so far.
        setups: times that the preconditioner was made.
    """

    def __init__(self, V: Any, rtol: float = 1e-10, prefix: str = "") -> None:
        """Begin, for matrices of the space V."""
        self._ksp = PETSc.KSP().create(V.mesh.comm)
        self._defaults = options(V.mesh.topology.dim, V.ufl_element().degree)
        self._prefix, self.rtol = prefix, rtol
        self.iterations: list[int] = []
        self.setups = 0
        self._fresh = 0
        self._mat: PETSc.Mat | None = None
        self._theta: np.ndarray | None = None
        self._set = self._stale = False

    def renew(self) -> None:
        """Make the preconditioner again at the next solve."""
        self._stale = True

    def solve(
        self,
        A: PETSc.Mat,
        b: np.ndarray,
        start: np.ndarray | None = None,
        rtol: float | None = None,
        theta: np.ndarray | None = None,
    ) -> np.ndarray:
        """Owned entries of the solution; the residual is at most rtol |b|. Collective.

        Args:
            A: the matrix, the same object while only its entries change.
            b: the right side.
            start: of the iteration.
            rtol: instead of the solver's.
            theta: coefficients of A where it is a positive sum: those of two matrices tell how
                well one preconditions the other.

        Raises:
            SolveError: CG did not converge.
        """
        ksp = self._ksp
        fresh = self._mat is None or self._stale
        if theta is not None and self._theta is not None and not fresh:
            fresh = _spread(theta, self._theta) > SPREAD
        if self._mat is not A:
            ksp.setOperators(A)
            self._mat, fresh = A, True
        if not self._set:
            set_options(ksp, self._defaults, self._prefix)
            self._set = True
        ksp.getPC().setReusePreconditioner(not fresh)
        x, rhs = A.createVecs()
        rhs.array_w[:] = b
        ksp.setInitialGuessNonzero(start is not None)
        if start is not None:
            x.array_w[:] = start
        ksp.setTolerances(rtol=rtol or self.rtol, atol=1e-300)
        what = "CG of the elliptic equation"
        try:
            steps = solve(ksp, rhs, x, what)
        except SolveError:
            if fresh:
                raise
            fresh = True  # the preconditioner of another matrix was not good enough
            ksp.getPC().setReusePreconditioner(False)
            ksp.setOperators(A)
            x.array_w[:] = 0.0 if start is None else start
            steps = solve(ksp, rhs, x, what)
        self.iterations.append(steps)
        if fresh:
            self._fresh, self.setups = steps, self.setups + 1
            self._theta = theta
        self._stale = steps > self._fresh + EXTRA
        out = x.array_r.copy()
        x.destroy()
        rhs.destroy()
        return out


def _spread(theta: np.ndarray, other: np.ndarray) -> float:
    """Condition of sum theta_q A_q relative to sum other_q A_q, of positive coefficients."""
    if not ((theta > 0).all() and (other > 0).all()):
        return 0.0 if np.array_equal(theta, other) else np.inf
    ratio = theta / other
    return float(ratio.max() / ratio.min())


def options(tdim: int, degree: int = 1) -> dict[str, Any]:
    """CG with one V-cycle of BoomerAMG; coarsening as hypre's manual advises for the dimension.

    P3 in 3D has longer rows: with 4 entries a row of the interpolation its steps grow (9, 11 at
    1e4, 1e5 dofs), with 8 they do not.
    """
    return {
        "ksp_type": "cg",
        "ksp_norm_type": "unpreconditioned",
        "ksp_max_it": 200,
        "pc_type": "hypre",
        "pc_hypre_type": "boomeramg",
        "pc_hypre_boomeramg_coarsen_type": "HMIS",
        "pc_hypre_boomeramg_interp_type": "ext+i",
        "pc_hypre_boomeramg_strong_threshold": 0.25 if tdim < 3 else 0.5,
        "pc_hypre_boomeramg_P_max": 8 if (tdim, degree) == (3, 3) else 4,
        "pc_hypre_boomeramg_relax_type_all": "symmetric-SOR/Jacobi",
    }
