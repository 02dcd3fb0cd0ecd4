"""Solvers of exterior Navier-Lame: MUMPS, multigrid for statics, a shifted Laplacian."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from petsc4py import PETSc

from fem_apps.errors import SolveError
from fem_apps.fem.solvers import set_up
from fem_apps.problems.navier_lame import Solver

log = logging.getLogger(__name__)

BLOCK = 32  # right sides that MUMPS takes at a time
# MUMPS' memory beyond what it foresees, per cent, raised while it ends with one of these errors:
# on several ranks the need depends on which of them is busy
WORKSPACE, TOO_SMALL = (60, 150, 400), (-8, -9, -14, -15, -17, -20)
FACTOR_RESIDUAL = 1e-9  # relative, of what a factorisation without pivoting solves


def direct(A: PETSc.Mat, o: Solver) -> PETSc.KSP:
    """MUMPS' LDL^T of a complex symmetric matrix, with pivoting where it needs that. Collective.

    The search for pivots is a fifth of the time, and was never needed yet.

    Raises:
        SolveError: the factorisation failed; MUMPS' error is in the message.
    """
    ksp = _factorised(A, o, pivoting=False)
    if _is_exact(ksp, A, o):
        return ksp
    log.info("LDL^T without pivoting is not exact for this matrix: with pivoting")
    ksp.destroy()
    return _factorised(A, o, pivoting=True)


def _factorised(A: PETSc.Mat, o: Solver, *, pivoting: bool) -> PETSc.KSP:
    options: dict[str, Any] = {
        "ksp_type": "preonly",
        "pc_type": "cholesky",  # LDL^T of a complex symmetric matrix
        "pc_factor_mat_solver_type": "mumps",
    }
    if not pivoting:
        options["mat_mumps_cntl_1"] = 0.0
    if o.block_low_rank > 0:
        options |= {
            "ksp_type": "gmres",
            "ksp_rtol": o.tolerance,
            "mat_mumps_icntl_35": 1,
            "mat_mumps_cntl_7": o.block_low_rank,
        }
    for workspace in WORKSPACE:
        ksp = PETSc.KSP().create(A.comm)
        ksp.setOperators(A)
        set_up(ksp, options | {"mat_mumps_icntl_14": workspace})
        error = _mumps_error(ksp)
        if error[0] >= 0:
            break
        log.info("MUMPS, workspace + %d %%: INFOG(1), INFOG(2) = %d, %d", workspace, *error)
        if error[0] not in TOO_SMALL or workspace == WORKSPACE[-1]:
            if pivoting:
                raise SolveError(
                    "factorisation",
                    f"MUMPS INFOG(1) = {error[0]}, INFOG(2) = {error[1]}",
                    advice="more ranks or memory, or solver.type = 'iterative'",
                )
            break
        ksp.destroy()
    return ksp


def _mumps_error(ksp: PETSc.KSP) -> tuple[int, int]:
    """INFOG(1) and INFOG(2), 0 for another solver."""
    pc = ksp.getPC()
    if pc.getFactorSolverType() != "mumps":
        return 0, 0
    factor = pc.getFactorMatrix()
    return factor.getMumpsInfog(1), factor.getMumpsInfog(2)


def _is_exact(ksp: PETSc.KSP, A: PETSc.Mat, o: Solver) -> bool:
    """Whether MUMPS solves A x = b, b of ones, but for rounding. Collective."""
    if ksp.getPC().getFactorSolverType() != "mumps":
        return True  # the options chose another solver
    b, x = A.createVecs()
    b.set(1.0)
    ksp.getPC().apply(b, x)
    size = b.norm()
    b.axpy(-1.0, A @ x)
    residual = b.norm() / size
    for v in (b, x):
        v.destroy()
    bound = FACTOR_RESIDUAL if o.block_low_rank == 0 else 0.1
    return bool(residual < bound)  # not where it is no number


def multigrid(A: PETSc.Mat, o: Solver) -> PETSc.KSP:
    """CG with algebraic multigrid, for statics; A has its near null space. Collective."""
    ksp = PETSc.KSP().create(A.comm)
    ksp.setOperators(A)
    set_up(
        ksp,
        {
            "ksp_type": "cg",
            "ksp_rtol": o.tolerance,
            "ksp_max_it": 200,
            "pc_type": "gamg",
            "pc_gamg_threshold": 0.02,
            "mg_levels_ksp_type": "chebyshev",
            "mg_levels_pc_type": "jacobi",
            "mg_levels_ksp_max_it": 4,
        },
    )
    return ksp


def shifted_laplacian(A: PETSc.Mat, P: PETSc.Mat, o: Solver) -> PETSc.KSP:
    """GMRES with subdomain solves of the damped matrix P. Collective."""
    ksp = PETSc.KSP().create(A.comm)
    ksp.setOperators(A, P)
    set_up(
        ksp,
        {
            "ksp_type": "gmres",
            "ksp_gmres_restart": 100,
            "ksp_rtol": o.tolerance,
            "ksp_max_it": 600,
            "pc_type": "asm",
            "pc_asm_overlap": 2,
            "sub_pc_type": "lu",
            "sub_pc_factor_mat_solver_type": "mumps",
        },
    )
    return ksp


def rigid_modes(V: Any, A: PETSc.Mat) -> PETSc.NullSpace:
    """The six rigid motions, for algebraic multigrid."""
    x = V.tabulate_dof_coordinates()[: V.dofmap.index_map.size_local]
    modes = [np.tile(e, (len(x), 1)) for e in np.eye(3)] + [np.cross(e, x) for e in np.eye(3)]
    vectors: list[PETSc.Vec] = []
    for m in modes:
        v = A.createVecRight()
        v.array_w[:] = m.ravel()
        for w in vectors:
            v.axpy(-v.dot(w), w)
        v.normalize()
        vectors.append(v)
    return PETSc.NullSpace().create(vectors=vectors, comm=A.comm)


def solve_many(ksp: PETSc.KSP, B: np.ndarray) -> np.ndarray:
    """A^-1 B by the factor, owned rows (dofs, columns), `BLOCK` columns at a time. Collective."""
    factor = ksp.getPC().getFactorMatrix()
    out = np.empty(B.shape, dtype=PETSc.ScalarType)
    for start in range(0, B.shape[1], BLOCK):
        part = B[:, start : start + BLOCK]
        size = ((len(B), None), (None, part.shape[1]))
        dense = [PETSc.Mat().createDense(size, comm=factor.comm) for _ in "bx"]
        for D in dense:
            D.setUp()
        dense[0].getDenseArray()[:] = part
        for D in dense:
            D.assemble()
        factor.matSolve(*dense)
        out[:, start : start + BLOCK] = dense[1].getDenseArray()
        for D in dense:
            D.destroy()
    return out
