"""How far a term reaches in the product X: the largest eigenvalue of C u = lambda X u, by SLEPc."""

from __future__ import annotations

from typing import Any

import numpy as np
import ufl
from petsc4py import PETSc

from fem_apps.errors import SolveError
from fem_apps.fem.solvers import set_options
from fem_apps.problems.elliptic import Discretisation
from fem_apps.problems.elliptic_solver import options

TOLERANCE, SAFETY = 1e-9, 1e-6  # of the eigenvalue, and what is added to it
DRAWS = 256


def reaches(D: Discretisation, X: PETSc.Mat, direct: bool) -> np.ndarray | None:
    """lambda_q of every reaction and Robin term, if one of them may be negative. Collective.

    Args:
        D: the discretisation.
        X: matrix of the inner product, the identity on held dofs.
        direct: X is factorised, else CG with BoomerAMG.

    Raises:
        SolveError: SLEPc did not converge.
    """
    Q = D.fields.shape[1]
    low, high = np.array(list(D.equation.ranges.values())).reshape(-1, 2).T
    mus = np.random.default_rng(0).uniform(low, high, (DRAWS, len(low)))
    if not (D.theta(mus)[:, Q:] < 0).any():
        return None
    count = D.theta(mus[:1]).shape[1]
    return np.array([_largest(D, X, np.eye(count)[q], direct) for q in range(Q, count)])


def _largest(D: Discretisation, X: PETSc.Mat, theta: np.ndarray, direct: bool) -> float:
    from slepc4py import SLEPc

    C = D.matrix.combine(theta).copy()
    C.setOption(PETSc.Mat.Option.SPD, False)
    first, _ = C.getOwnershipRange()
    C.zeroRowsColumns((D.space.fixed + first).astype(PETSc.IntType), diag=0.0)
    eps = SLEPc.EPS().create(C.comm)
    eps.setOperators(C, X)
    eps.setProblemType(SLEPc.EPS.ProblemType.GHEP)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_REAL)
    eps.setTolerances(TOLERANCE, 500)
    # the same start whatever the number of ranks
    start = C.createVecRight()
    start.array_w[:] = np.abs(D.space.vector(ufl.TestFunction(D.space.V) * D.space.dx))
    start.array_w[D.space.fixed] = 0.0
    eps.setInitialSpace([start])
    if direct:
        inner: dict[str, Any] = {
            "ksp_type": "preonly",
            "pc_type": "cholesky",
            "pc_factor_mat_solver_type": "mumps",
        }
    else:
        V = D.space.V
        inner = {**options(V.mesh.topology.dim, V.ufl_element().degree), "ksp_rtol": 1e-13}
    set_options(eps.getST().getKSP(), inner)
    eps.solve()
    if eps.getConverged() < 1:
        raise SolveError("largest eigenvalue of a reaction or Robin term", "not converged")
    found = float(eps.getEigenvalue(0).real)
    for x in (eps, C, start):
        x.destroy()
    return max(found, 0.0) * (1 + SAFETY)
