"""Log-likelihood and gradient of the Aristoff-Bangerth problem, against a straightforward DOLFINx script.

The script compiles its forms before the loop, assembles by `assemble_matrix` into a matrix made once,
factorises by MUMPS with the symbolic part reused, and solves state and adjoint with the same factor; ours is
fem_apps.inverse.conductivity. Both give the gradient by the 64 log-conductivities.
"""

from __future__ import annotations

from measure import arguments, ceilings, interleaved, report  # isort: skip

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI
from petsc4py import PETSc

from fem_apps.inverse.bayesian_posterior import Posterior, Prior
from fem_apps.inverse.conductivity import published_data, square_conductivity
from fem_apps.inverse.operators_fem import boundary_nodes, point_matrix


def script(cells, y, noise):
    """theta -> misfit and gradient, written as a DOLFINx user would."""
    model = square_conductivity(MPI.COMM_SELF, cells=cells)
    V, P = model.stiffness.V, model.P
    domain = V.mesh
    kappa = fem.Function(fem.functionspace(domain, ("DG", 0)))
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    a = fem.form(kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    L = fem.form(fem.Constant(domain, 10.0) * v * ufl.dx)
    bc = fem.dirichletbc(0.0, boundary_nodes(V), V)
    state, adjoint = fem.Function(V), fem.Function(V)
    W = ufl.TestFunction(kappa.function_space)
    g = fem.form(ufl.inner(ufl.grad(state), ufl.grad(adjoint)) * W * ufl.dx)
    A = fem_petsc.create_matrix(a)
    b = fem_petsc.assemble_vector(L)
    fem.petsc.set_bc(b, [bc])
    t = np.arange(1, 14) / 14
    E = point_matrix(V, np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2))
    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("lu")
    ksp.getPC().setFactorSolverType("mumps")
    load = b.duplicate()

    def once(m):
        kappa.x.array[:] = np.exp(P @ m)
        A.zeroEntries()
        fem_petsc.assemble_matrix(A, a, [bc])
        A.assemble()
        ksp.setOperators(A)
        ksp.solve(b, state.x.petsc_vec)
        r = E @ state.x.array - y
        load.array[:] = -(E.T @ r) / noise**2
        fem.petsc.set_bc(load, [bc])
        ksp.solve(load, adjoint.x.petsc_vec)
        return 0.5 * float(r @ r) / noise**2, P.T @ (kappa.x.array * fem.assemble_vector(g).array)

    return once


def main():
    """Print the ratio for 32 and 64 squares a side."""
    options = arguments(__doc__)
    tasks, speeds = ceilings(options.small)
    y, m = published_data(), np.sin(np.arange(64.0))
    for cells in (32,) if options.small else (32, 64, 128):
        prior = Prior(np.full(64, 4.0), 4 * np.eye(64))
        ours = Posterior(square_conductivity(MPI.COMM_SELF, cells=cells), y, 0.05, prior)
        peer = script(cells, y, 0.05)
        (va, ga), (vb, gb) = ours.misfit_gradient(m), peer(m)
        gap = np.linalg.norm(ga - gb) / np.linalg.norm(gb)
        assert gap < 1e-9 and abs(va - vb) < 1e-9 * abs(vb)
        times = interleaved(
            options.rounds,
            ours=lambda ours=ours: ours.misfit_gradient(m),
            script=lambda peer=peer: peer(m),
            **tasks,
        )
        report(
            "H4",
            f"{cells} x {cells} Q1",
            times,
            ours="ours",
            peer="script",
            agreement=f"gradients agree to {gap:.0e}",
            machine=speeds(times),
        )


if __name__ == "__main__":
    main()
