"""The upwind right-hand side of the continuity equation: our loops against DOLFINx's `assemble_vector`.

C1: DG0, C2: DG1, on gmsh triangles (and tetrahedra), one rank, one thread: what one Runge-Kutta stage
needs. The peer assembles the weak form of docs/continuity.md with forms compiled before and then
applies the inverse mass matrix, which is diagonal by blocks, by a kept matrix product. Ours is the
whole stage, out = a u0 + b (u + dt L(u)). Results are compared first.

    ./run_mpi.sh python3 benchmarks/transport.py [--small] [--triangles 0.0018] [--tetrahedra 0.025]
"""

from __future__ import annotations

from measure import arguments, ceilings, interleaved, report

import numpy as np  # isort: skip
import ufl  # isort: skip
from dolfinx import __version__, fem  # isort: skip
from dolfinx.fem import petsc as fem_petsc  # isort: skip
from mpi4py import MPI  # isort: skip

from fem_apps.meshing import MeshCase, build  # isort: skip
from fem_apps.problems.continuity_dg import DG, DGSolver  # isort: skip
from fem_apps.problems.continuity_velocity import expressions  # isort: skip

options = arguments(
    __doc__,
    triangles={"type": float, "default": 0.0018, "help": "mesh size in the plane"},
    tetrahedra={"type": float, "default": 0.025, "help": "mesh size in space"},
)
tasks, rates = ceilings(options.small)


def bytes_a_stage(solver: DGSolver) -> float:
    """What a stage has to move: every array once, u, u0 and the result; neighbours' values free."""
    c = solver.cells
    tables = sum(x.nbytes for x in solver._given)
    if solver.scheme.degree:
        tables += solver._facing.dofs.nbytes + c.volume.nbytes
    return tables + 3 * 8.0 * c.size * c.phi.shape[1]


for geometry, h, v in (
    ("rectangle", 0.02 if options.small else options.triangles, ["0.5 - y", "x - 0.5"]),
    ("box", 0.2 if options.small else options.tetrahedra, ["0.5 - y", "x - 0.5", "1"]),
):
    data = build(MPI.COMM_SELF, MeshCase(geometry=geometry, parameters={"h": h}))
    for degree in (0, 1):
        solver = DGSolver(data, expressions(v), {}, DG(degree=degree, limiter="none"))
        c, V = solver.cells, solver.V
        u, phi = fem.Function(V), ufl.TestFunction(V)
        u.interpolate(lambda x: 1 + np.sin(3 * x[0]) * x[1])
        x, n = ufl.SpatialCoordinate(data.mesh), ufl.FacetNormal(data.mesh)
        w = ufl.as_vector([0.5 - x[1], x[0] - 0.5, ufl.as_ufl(1.0)][: len(v)])
        un = (ufl.dot(w, n) + abs(ufl.dot(w, n))) / 2
        dS, ds = (m(degree=2 * degree + 1) for m in (ufl.dS, ufl.ds))
        L = -(phi("+") - phi("-")) * (un("+") * u("+") - un("-") * u("-")) * dS - phi * un * u * ds
        if degree:
            L += ufl.inner(u * w, ufl.grad(phi)) * ufl.dx(degree=2 * degree)
        form = fem.form(L)
        b = fem_petsc.assemble_vector(form)
        M = fem_petsc.assemble_matrix(fem.form(ufl.TrialFunction(V) * phi * ufl.dx))
        M.assemble()
        start = solver.from_function(u)
        out, dt = np.empty_like(start), 1e-4
        solver.update_velocity(0.0, start)

        def peer(b=b, form=form):
            with b.localForm() as local:
                local.set(0.0)
            fem_petsc.assemble_vector(b, form)

        def ours(solver=solver, start=start, out=out, dt=dt):
            solver.stage(0.0, start, start, 0.0, 1.0, dt, out)

        ours(), peer()
        rate, product = M.createVecRight(), M.createVecLeft()
        rate.array_w[c.dofs.ravel()] = ((out - start) / dt).ravel()
        M.mult(rate, product)
        gap = np.abs(product.array - b.array).max() / np.abs(b.array).max()
        name = f"dg{degree}"
        times = interleaved(options.rounds, **{name: ours, "assemble_vector": peer}, **tasks)

        def per_cell(task, times=times, cells=c.size):
            return 1e9 * times[task][1] / cells

        report(
            f"C{degree + 1}",
            f"{geometry}, {start.size} dofs, {1e-6 * bytes_a_stage(solver):.0f} MB,"
            f" {per_cell(name):.1f} against {per_cell('assemble_vector'):.0f} ns CPU a cell",
            times,
            ours=name,
            peer="assemble_vector",
            agreement=f"agreement {gap:.1e}",
            machine=rates(times),
            memory=bytes_a_stage(solver),
            versions=f"DOLFINx {__version__}",
        )
