"""Null control: an iteration of conjugate gradients against LinearProblem, and tables of norms.

    G1  one iteration of heat and of wave control on the unit square (a march of the adjoint and one of
        the state), one factorisation for all steps, against the same two marches with a DOLFINx
        LinearProblem solved in each step; two of the script's steps are timed and scaled to the
        number of steps. A step's results are compared first. Also on several ranks.
    G2  leapfrog steps of the wave equation (lumped mass) in one fused pass, against the same through
        PETSc's product, and against the triad: bytes of the matrix in rows (12 an entry, 4 a row)
        and of three vectors (32 a row).
    G3  iterations of conjugate gradients with and without the modal Gramian as preconditioner.

The norms of docs/null_control.md are in null_control_tables.py.
"""

from __future__ import annotations

import measure
import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import exterior_facet_indices
from mpi4py import MPI

from fem_apps.control.null_control_cg import conjugate_gradients
from fem_apps.control.null_control_gramian import Gramian, Modes
from fem_apps.control.null_control_modal import preconditioner
from fem_apps.fem.split import split
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.heat import Heat
from fem_apps.problems.wave import Wave, stable_step


def script(s, form, load, after):
    """A step of state and one of adjoint as a straightforward script does them, from `after(None)`.

    Args:
        s: our matrices, for the numbering.
        form: bilinear form of (u, w); load: linear form of (old, w).
        after: the next state from (old, solution), arrays.
    """
    V = s.V
    u, w, old = ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    mesh = V.mesh
    mesh.topology.create_connectivity(mesh.topology.dim - 1, mesh.topology.dim)
    dofs = fem.locate_dofs_topological(V, 1, exterior_facet_indices(mesh.topology))
    bc = fem.dirichletbc(0.0, dofs, V)
    options = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}
    try:
        problem = fem_petsc.LinearProblem(form(u, w), load(old, w), [bc], petsc_options=options)
    except TypeError:  # from DOLFINx 0.10 on
        problem = fem_petsc.LinearProblem(
            form(u, w), load(old, w), bcs=[bc], petsc_options=options,
            petsc_options_prefix="script_",
        )  # fmt: skip

    def march(start):
        for _ in range(2):
            s.to_function(start, None, old)
            old.x.array[:] = after(old.x.array, problem.solve().x.array)
        return old.x.array[s.free].copy()

    return march


def iteration(name, a, gramian, e, mine, march, start, rounds):
    """Our iteration against the script's: 2 of the 2 N steps timed, and scaled."""
    comm = a.s.comm
    theirs = march(start)
    square = [a.s.dot(x, x) for x in (mine - theirs, theirs)]
    times = measure.interleaved(rounds, ours=lambda: gramian(e), script=lambda: march(start))
    n = a.s.size()[0]
    if comm.rank == 0:
        measure.report(
            f"G1 {name}", f"{n} dofs, {a.steps} steps", times, ours="ours", peer="script",
            agreement=f"a step agrees to {np.sqrt(square[0] / square[1]):.1e}",
            scale=a.steps, ranks=comm.size,
        )  # fmt: skip


def heat(h, steps, rounds):
    data = build(MPI.COMM_WORLD, MeshCase(geometry="rectangle", parameters={"h": h}))
    s = split(data, coefficient="0.05", interior="where((x-0.4)**2+(y-0.4)**2 < 0.09, 1, 0)")
    a = Heat(s, 1.0, steps)
    phi = np.sin(np.pi * s.x[:, 0]) * np.sin(np.pi * s.x[:, 1])
    k = fem.Constant(data.mesh, a.dt * 0.05)
    march = script(
        s,
        lambda u, w: u * w * ufl.dx + k * ufl.inner(ufl.grad(u), ufl.grad(w)) * ufl.dx,
        lambda old, w: old * w * ufl.dx,
        lambda old, new: new,
    )
    state = next(p for n, p in a.march(s.M(phi), None) if n == 1)
    mine = s.inverse("M")(state)
    iteration("heat", a, Gramian(a, 1e-6), phi, mine, march, phi, rounds)


def implicit_wave(h, steps, rounds):
    data = build(MPI.COMM_WORLD, MeshCase(geometry="rectangle", parameters={"h": h}))
    s = split(data, boundary=("left", "right", "bottom", "top"))
    a = Wave(s, 0.5 * h * steps, steps)
    phi = np.sin(np.pi * s.x[:, 0]) * np.sin(np.pi * s.x[:, 1])
    k = fem.Constant(data.mesh, 0.25 * a.dt**2)
    march = script(
        s,
        lambda u, w: u * w * ufl.dx + k * ufl.inner(ufl.grad(u), ufl.grad(w)) * ufl.dx,
        lambda old, w: -ufl.inner(ufl.grad(old), ufl.grad(w)) * ufl.dx,
        lambda old, new: old + 0.5 * a.dt**2 * new,
    )
    states = a.march_adjoint(phi, 0 * phi)
    next(states)
    mine = next(states)[0]
    e = np.stack([phi, 0 * phi])
    iteration("wave", a, Gramian(a), e, mine, march, phi, rounds)


def leapfrog(table, rounds, small):
    data = build(MPI.COMM_SELF, MeshCase(geometry="rectangle", **table))
    s = split(data, mass="lumped", boundary=("left", "right", "bottom", "top"))
    a = Wave(s, 1.0, int(np.ceil(1.0 / (0.9 * stable_step(s, 0.0)))), 0.0)
    e = np.cos(3 * s.x[:, 0]), np.sin(2 * s.x[:, 1])
    n, nnz, steps = len(s.free), s.K.mat.getInfo()["nz_used"], 5
    place = a.leapfrog.ell.place
    pairs = zip(a.leapfrog.states(*e), a.march_adjoint(*e), range(steps), strict=False)
    difference = max(np.abs(z[place] - phi).max() for z, (phi, _), _ in pairs)
    tasks, ceilings = measure.ceilings(small)
    marches = {}

    def go(name, start):
        def task():
            for _ in range(steps):
                if next(marches.setdefault(name, start()), None) is None:
                    del marches[name]

        return task

    times = measure.interleaved(
        rounds, fused=go("fused", lambda: a.leapfrog.states(*e)),
        petsc=go("petsc", lambda: a.march_adjoint(*e)), **tasks,
    )  # fmt: skip
    measure.report(
        "G2", f"{n} dofs, {steps} steps", times, ours="fused", peer="petsc",
        agreement=f"{difference:.1e}", machine=ceilings(times),
        memory=steps * (12 * nnz + 36 * n),
    )  # fmt: skip


def iterations(h, modes):
    data = build(MPI.COMM_SELF, MeshCase(geometry="interval", parameters={"h": h}))
    s = split(data, coefficient="0.1", interior="where(0.3 < x < 0.8, 1, 0)")
    a = Heat(s, 1.0, round(4 / h))
    g = Gramian(a, h**4)
    mass = s.inverse("M")
    b = -a.final(s.functional("sin(pi*x)**10"), None)
    counts = []
    for P in (mass, preconditioner(g, Modes(s, modes))):
        first = s.dot(b, mass(b))
        for state in conjugate_gradients(g, P, s.dot, b):
            if s.dot(state.r, mass(state.r)) <= 1e-12 * first:
                break
        counts.append(state.number)
    print(
        f"G3 1/h = {1 / h:.0f}, eps = h^4: {counts[0]} iterations, with {modes} modes {counts[1]}"
    )


def main():
    arguments = measure.arguments(__doc__)
    if arguments.small:
        heat(0.1, 10, 2)
        implicit_wave(0.1, 10, 2)
        iterations(0.1, 100)
        leapfrog({"parameters": {"h": 0.1}}, 2, True)
        return
    heat(0.0034, 10, min(arguments.rounds, 3))
    implicit_wave(0.0034, 10, min(arguments.rounds, 3))
    if MPI.COMM_WORLD.size == 1:
        for h in (0.05, 0.025):
            iterations(h, 1000)
        leapfrog({"parameters": {"h": 0.0044}, "refine": 2}, arguments.rounds, False)


main()
