"""Karhunen-Loeve expansions of Gaussian fields on a mesh: SLEPc, covariance applied in N log N.

    int C(x, x') psi_k(x') dx' = lambda_k psi_k(x),   log a = mean + sum_k sqrt(lambda_k) psi_k y_k.

With lumped masses m_i the eigenproblem is that of M^1/2 C M^1/2, symmetric, of which SLEPc needs
products alone; C is a convolution (`fem.convolution`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fem_apps.errors import SolveError
from fem_apps.fem import kernels
from fem_apps.fem.convolution import make_convolution
from fem_apps.mpi import total
from fem_apps.problems.elliptic import Space
from fem_apps.problems.elliptic_coefficients import LogNormal

SEED = 20150101


def expansion(space: Space, law: LogNormal) -> tuple[np.ndarray, np.ndarray]:
    """lambda_k and sqrt(lambda_k) psi_k on the owned dofs of W, shape (K, n). Collective.

    Args:
        space: W is P1 or cellwise constant.
        law: covariance and number of terms.

    Raises:
        SolveError: SLEPc did not converge.
    """
    from slepc4py import SLEPc

    comm, W = space.comm, space.W
    m_form = fem_petsc.assemble_vector(fem.form(ufl.TestFunction(W) * space.dx))
    m_form.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
    mass = m_form.array_r.copy()
    m_form.destroy()
    x = np.ascontiguousarray(space.points().T)
    count = total(comm, len(mass))
    spacing = (total(comm, float(mass.sum())) / count) ** (1 / space.V.mesh.topology.dim)
    C = make_convolution(comm, [_kernel(law, x, comm)], x, spacing=float(spacing), mass=mass)
    root = np.sqrt(mass)

    class Covariance:
        def mult(self, A: Any, v: Any, w: Any) -> None:
            w.array_w[:] = root * C(root * v.array_r)

    sizes = ((len(mass), PETSc.DETERMINE), (len(mass), PETSc.DETERMINE))
    A = PETSc.Mat().createPython(sizes, Covariance(), comm=comm)
    A.setUp()
    eps = SLEPc.EPS().create(comm)
    eps.setOperators(A)
    eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_REAL)
    eps.setDimensions(law.terms, max(2 * law.terms, law.terms + 16))
    eps.setTolerances(1e-10, 200)
    first = A.createVecRight()
    first.array_w[:] = root * _start(x)
    eps.setInitialSpace([first])
    eps.solve()
    if eps.getConverged() < law.terms:
        raise SolveError(
            "eigenvalues of the covariance",
            f"{eps.getConverged()} of {law.terms} converged",
            advice="fewer terms, or a longer correlation length",
        )
    values, modes, v = [], [], A.createVecRight()
    for k in range(law.terms):
        values.append(float(np.real(eps.getEigenpair(k, v))))
        mode = v.array_r / root
        mode *= _sign(comm, mass * mode * _start(x)) / np.sqrt(total(comm, float(mass @ mode**2)))
        modes.append(np.sqrt(max(values[-1], 0.0)) * mode)
    for o in (eps, A, first, v):
        o.destroy()
    C.destroy()
    return np.array(values), np.array(modes)


def _start(x: np.ndarray) -> np.ndarray:
    """A function without symmetry, the same whatever the ranks: every mode is in it."""
    rng = np.random.default_rng(SEED)
    k, phase = rng.normal(size=(x.shape[1], 40)), rng.uniform(0, 2 * np.pi, 40)
    return 1.0 + np.cos(4 * x @ k + phase).sum(axis=1)


def _sign(comm: Any, x: np.ndarray) -> float:
    return 1.0 if total(comm, float(x.sum())) >= 0 else -1.0


def _kernel(law: LogNormal, x: np.ndarray, comm: Any) -> Any:
    s = law.sigma**2
    if law.covariance == "gaussian":
        return kernels.Gaussian(strength=s, width=law.length)
    if law.covariance == "exponential":
        return kernels.Exponential(strength=s, length=law.length)
    low = np.array(comm.allgather(x.min(axis=0, initial=np.inf))).min(axis=0)
    high = np.array(comm.allgather(x.max(axis=0, initial=-np.inf))).max(axis=0)
    far = max(float(np.linalg.norm(high - low)), 25 * law.length)
    r = np.linspace(0.0, far * 1.01, 4000)
    z = np.sqrt(3) * r / law.length
    return kernels.Tabulated(strength=s, r=tuple(r), W=tuple((1 + z) * np.exp(-z)))
