"""PETSc solvers with typed errors: every solve checks its reason and says what to try."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from petsc4py import PETSc

from fem_apps.errors import SolveError


def reason_name(reasons: type, value: int) -> str:
    """PETSc's name of a converged reason, such as DIVERGED_MAX_IT."""
    names = {v: k for k, v in vars(reasons).items() if isinstance(v, int) and not k.startswith("_")}
    return names.get(value, str(value))


@contextmanager
def default_options(defaults: Mapping[str, Any], prefix: str = "") -> Iterator[None]:
    """Hold defaults in the option database for a while; what it has under the prefix wins."""
    database = PETSc.Options(prefix)
    mine = {k: v for k, v in defaults.items() if not database.hasName(k)}
    for k, v in mine.items():
        database[k] = v
    try:
        yield
    finally:
        for k in mine:
            del database[k]


def set_options(
    solver: PETSc.KSP | PETSc.SNES, defaults: Mapping[str, Any], prefix: str = ""
) -> None:
    """Give a solver its defaults; what the option database already holds under its prefix wins.

    Solvers within it (`sub_pc_type`, ...) read theirs at its first set-up: see `set_up`.
    """
    solver.setOptionsPrefix(prefix)
    with default_options(defaults, prefix):
        solver.setFromOptions()


def set_up(ksp: PETSc.KSP, defaults: Mapping[str, Any], prefix: str = "") -> None:
    """`set_options` and the first set-up, at which MUMPS, levels and blocks read theirs."""
    with default_options(defaults, prefix):
        set_options(ksp, {}, prefix)
        ksp.setUp()


def factorised(A: PETSc.Mat, *, spd: bool = False, prefix: str = "") -> PETSc.KSP:
    """A sparse direct solver of A, factorised once: MUMPS (Cholesky where A is declared SPD)."""
    ksp = PETSc.KSP().create(A.comm)
    if spd:
        A.setOption(PETSc.Mat.Option.SPD, True)
    ksp.setOperators(A)
    kind = "cholesky" if spd else "lu"
    set_options(
        ksp, {"ksp_type": "preonly", "pc_type": kind, "pc_factor_mat_solver_type": "mumps"}, prefix
    )
    ksp.setUp()
    return ksp


def solve(ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, what: str, time: float | None = None) -> int:
    """Solve A x = b; returns the iterations. Collective.

    Raises:
        SolveError: PETSc's reason says that it did not converge.
    """
    ksp.solve(b, x)
    reason = ksp.getConvergedReason()
    if reason <= 0:
        raise SolveError(
            what,
            reason_name(PETSc.KSP.ConvergedReason, reason),
            time=time,
            history=ksp.getConvergenceHistory(),
            advice="a direct solver: -- -pc_type lu -pc_factor_mat_solver_type mumps",
        )
    return int(ksp.getIterationNumber())


class Newton:
    """SNES for F(x) = 0 on plain arrays: x and F are the owned entries.

    Args:
        J: the Jacobian, or a shell that applies it; P: what the preconditioner is made of.
        residual: F at x, both owned arrays. Collective.
        jacobian: sets the entries of J and P at x. Collective.
        size: of a residual, in the unit of `tolerance`: converged when it is below.
        tolerance: called at each iteration, since rounding may set a floor that depends on x.
    """

    def __init__(
        self,
        J: PETSc.Mat,
        P: PETSc.Mat,
        residual: Callable[[np.ndarray], np.ndarray],
        jacobian: Callable[[np.ndarray], None],
        *,
        size: Callable[[np.ndarray], float],
        tolerance: Callable[[], float],
        options: Mapping[str, Any],
        what: str,
        prefix: str = "",
    ) -> None:
        self.what = what
        self.history: list[float] = []
        self._x, self._f = P.createVecRight(), P.createVecLeft()
        self.snes = PETSc.SNES().create(P.comm)

        def function(snes: PETSc.SNES, x: PETSc.Vec, f: PETSc.Vec) -> None:
            value = residual(x.array_r)
            f.array_w[:] = value
            self._size = size(value)

        def matrix(snes: PETSc.SNES, x: PETSc.Vec, J: PETSc.Mat, P: PETSc.Mat) -> None:
            jacobian(x.array_r)

        def converged(snes: PETSc.SNES, it: int, norms: tuple[float, float, float]) -> Any:
            self.history.append(self._size)
            if not np.isfinite(self._size):
                return PETSc.SNES.ConvergedReason.DIVERGED_FNORM_NAN
            if self._size <= tolerance():
                return PETSc.SNES.ConvergedReason.CONVERGED_FNORM_ABS
            if self._size > 1e4 * self.history[0] and it > 2:
                return PETSc.SNES.ConvergedReason.DIVERGED_DTOL
            return PETSc.SNES.ConvergedReason.ITERATING

        self.snes.setFunction(function, self._f)
        self.snes.setJacobian(matrix, J, P)
        self.snes.setConvergenceTest(converged)
        set_options(self.snes, options, prefix)
        self._late, self._prefix = options, prefix

    def solve(self, x: np.ndarray, time: float | None = None) -> tuple[np.ndarray, int]:
        """Solve from the start x; returns the solution and the number of Newton iterations.

        Raises:
            SolveError: not converged, with PETSc's reason (of the linear solve where that failed).
        """
        self.history = []
        self._x.array_w[:] = x
        with default_options(self._late, self._prefix):
            self.snes.solve(None, self._x)
        self._late = {}
        reason = self.snes.getConvergedReason()
        if reason <= 0:
            name = reason_name(PETSc.SNES.ConvergedReason, reason)
            linear = self.snes.ksp.getConvergedReason()
            if linear < 0:
                name += f", {reason_name(PETSc.KSP.ConvergedReason, linear)} of the linear solve"
            raise SolveError(
                self.what,
                name,
                time=time,
                history=self.history,
                advice="a smaller first step, or -- -pc_type lu -pc_factor_mat_solver_type mumps",
            )
        return self._x.array_r.copy(), int(self.snes.getIterationNumber())

    def destroy(self) -> None:
        """Free the PETSc objects. Collective."""
        for o in (self.snes, self._x, self._f):
            o.destroy()
