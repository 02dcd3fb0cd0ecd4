"""W * rho by solving for it: (kappa^2 M + S) c = M rho, or S c = M rho, on the mesh itself.

S is the P1 stiffness matrix (grad, grad) and M = diag(m) the lumped masses, so W is the discrete
Green's function with no flux through the boundary; on a surface mesh, of the surface's own Laplace
operator. b = M rho enters as it is, hence the operator b -> c is symmetric and positive. It is
factorised once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_apps.errors import CaseError, SolveError
from fem_apps.fem.kernels import Poisson, ScreenedPoisson

# Above these sizes an iterative solve beats factors; couplings a row: few (2D) or many (3D).
MAX_DIRECT_ROWS = {"few": 1_500_000, "many": 60_000}


@dataclass(frozen=True)
class PdePass:
    """One screened Poisson or Poisson solve; call it with owned masses. Collective."""

    comm: MPI.Comm
    ksp: Any
    strength: float
    mass: np.ndarray | None
    total_mass: float
    signs: frozenset[int]
    route: str

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Owned masses (n_owned,) to owned potentials (n_owned,)."""
        A, _ = self.ksp.getOperators()
        c, rhs = A.createVecs()
        try:
            rhs.array[:] = b if self.mass is None else self._without_mean(b)
            if self.mass is not None and A.getOwnershipRange()[0] == 0 and len(b):
                rhs.array[0] = 0.0  # the node that fixes the constant
            self.ksp.solve(rhs, c)
            if self.ksp.getConvergedReason() < 0:
                raise SolveError(
                    "solve of the interaction potential",
                    f"KSP reason {self.ksp.getConvergedReason()}",
                    advice="a mesh without degenerate cells, or type = 'yukawa'",
                )
            out = self.strength * c.array.real
        finally:
            c.destroy()
            rhs.destroy()
        if self.mass is not None:
            out -= self.comm.allreduce(float(self.mass @ out)) / self.total_mass
        return out

    def _without_mean(self, b: np.ndarray) -> np.ndarray:
        assert self.mass is not None
        return b - self.mass * (self.comm.allreduce(float(b.sum())) / self.total_mass)

    def destroy(self) -> None:
        """Free the factors and the matrix."""
        A, _ = self.ksp.getOperators()
        A.destroy()
        self.ksp.destroy()


def pde_pass(
    comm: MPI.Comm,
    kernel: ScreenedPoisson | Poisson,
    count: int,
    stiffness: Any,
    mass: np.ndarray | None,
) -> PdePass:
    """Factorise, or set the multigrid up, once. Collective.

    Args:
        comm: communicator.
        kernel: screened Poisson or Poisson.
        count: number of all nodes.
        stiffness: PETSc Mat, assembled (grad u, grad v) of P1 functions; left as it is.
        mass: owned lumped masses, in the order of the matrix rows.

    Raises:
        CaseError: no stiffness matrix or masses were given, or their sizes differ from the nodes'.
    """
    import petsc4py.PETSc

    PETSc: Any = petsc4py.PETSc
    if stiffness is None or mass is None:
        raise CaseError(
            f"interaction.type = {kernel.type!r} solves on the mesh and needs its stiffness "
            "matrix and masses"
        )
    sizes = stiffness.getSizes()[0]
    right = comm.allreduce(sizes[0] == len(mass) and sizes[1] == count, op=MPI.LAND)
    if not right:
        raise CaseError(
            f"interaction.type = {kernel.type!r}: {sizes[1]} matrix rows and {count} nodes do "
            "not match"
        )
    A = stiffness.copy()
    if isinstance(kernel, ScreenedPoisson):
        diagonal = A.createVecLeft()
        diagonal.array[:] = kernel.kappa**2 * mass
        A.setDiagonal(diagonal, addv=PETSc.InsertMode.ADD_VALUES)
        diagonal.destroy()
    else:
        A.zeroRowsColumns([0] if A.getOwnershipRange()[0] == 0 and len(mass) else [], diag=1.0)
    fixed = None if isinstance(kernel, ScreenedPoisson) else np.asarray(mass)
    for option in (PETSc.Mat.Option.SYMMETRIC, PETSc.Mat.Option.SPD):
        A.setOption(option, True)
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    method = _solver(ksp, PETSc, count, A)
    ksp.setUp()
    signs = frozenset({int(np.sign(kernel.strength))} - {0})
    total = comm.allreduce(float(np.sum(mass)))
    return PdePass(
        comm,
        ksp,
        kernel.strength,
        fixed,
        total,
        signs,
        f"{kernel.type}: {method}",
    )


def _solver(ksp: Any, PETSc: Any, count: int, A: Any) -> str:
    many = A.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"] > 10 * count
    pc = ksp.getPC()
    if count <= MAX_DIRECT_ROWS["many" if many else "few"]:
        ksp.setType("preonly")
        pc.setType("cholesky")
        if PETSc.Sys.hasExternalPackage("mumps"):
            pc.setFactorSolverType("mumps")
            return "sparse Cholesky (MUMPS)"
        return "sparse Cholesky"
    ksp.setType("cg")
    ksp.setTolerances(rtol=1e-13, max_it=500)
    if PETSc.Sys.hasExternalPackage("hypre"):
        pc.setType("hypre")
        pc.setHYPREType("boomeramg")
    else:
        pc.setType("gamg")
    return f"conjugate gradients ({pc.getType()})"


def merge(kernels: Sequence[ScreenedPoisson | Poisson]) -> list[ScreenedPoisson | Poisson]:
    """Kernels with equal kappa as one with the summed strength: one matrix each."""
    sums: dict[float, ScreenedPoisson | Poisson] = {}
    for k in kernels:
        key = k.kappa if isinstance(k, ScreenedPoisson) else 0.0
        sums[key] = (
            k
            if key not in sums
            else k.model_copy(update={"strength": k.strength + sums[key].strength})
        )
    return list(sums.values())
