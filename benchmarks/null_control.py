"""Null control: an iteration of conjugate gradients against LinearProblem, and tables of norms.

    G1  one iteration of penalised heat control on the unit square (a march of the adjoint and one of
        the state), one factorisation for all steps, against the same two marches with a DOLFINx
        LinearProblem solved in each step; the script's steps are timed and scaled to the number of
        steps. The results are compared first.
    G2  leapfrog steps of the wave equation (lumped mass, PETSc's product), against the triad: bytes
        that they have to move.
    G3  iterations of conjugate gradients with and without the modal Gramian as preconditioner.

`--tables` prints the tables of docs/null_control.md instead: norms of wave and heat controls against
exact values.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import measure
import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI

from fem_apps.case import validate
from fem_apps.control.null_control_cg import conjugate_gradients
from fem_apps.control.null_control_gramian import Gramian, Modes
from fem_apps.control.null_control_modal import preconditioner
from fem_apps.control.null_control_run import run_case
from fem_apps.fem.split import split
from fem_apps.meshing import MeshCase, build
from fem_apps.output.folder import open_run
from fem_apps.problems.heat import Heat
from fem_apps.problems.wave import Wave, stable_step

SCRIPT_STEPS = 1


def script(s, dt, p0, phi):
    """SCRIPT_STEPS steps of state and adjoint as a straightforward script does them."""
    V = s.V
    u, w = ufl.TrialFunction(V), ufl.TestFunction(V)
    mesh = V.mesh
    mesh.topology.create_connectivity(mesh.topology.dim - 1, mesh.topology.dim)
    from dolfinx.mesh import exterior_facet_indices

    dofs = fem.locate_dofs_topological(V, 1, exterior_facet_indices(mesh.topology))
    bc = fem.dirichletbc(0.0, dofs, V)
    k, kappa = fem.Constant(mesh, dt), fem.Constant(mesh, 0.05)
    old = fem.Function(V)
    a = u * w * ufl.dx + k * kappa * ufl.inner(ufl.grad(u), ufl.grad(w)) * ufl.dx
    L = old * w * ufl.dx
    options = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}
    try:
        problem = fem_petsc.LinearProblem(a, L, [bc], petsc_options=options)
    except TypeError:  # from DOLFINx 0.10 on
        problem = fem_petsc.LinearProblem(
            a, L, bcs=[bc], petsc_options=options, petsc_options_prefix="script_"
        )

    def march():
        out = []
        for start in (p0, phi):
            s.to_function(start, None, old)
            for _ in range(SCRIPT_STEPS):
                old.x.array[:] = problem.solve().x.array
            out.append(old.x.array[s.free].copy())
        return out

    return march


def heat(h, steps, rounds):
    comm = MPI.COMM_WORLD
    data = build(comm, MeshCase(geometry="rectangle", parameters={"h": h}))
    s = split(data, coefficient="0.05", interior="where((x-0.4)**2+(y-0.4)**2 < 0.09, 1, 0)")
    a = Heat(s, 1.0, steps)
    gramian = Gramian(a, 1e-6)
    phi = np.sin(np.pi * s.x[:, 0]) * np.sin(np.pi * s.x[:, 1])
    march = script(s, a.dt, phi, phi)
    # the same step, by the kept factorisation
    y = s.inverse("M")
    p = s.M(phi)
    for n, state in a.march(p, None):
        if n == SCRIPT_STEPS:
            mine = y(state)
            break
    difference = np.abs(mine - march()[0]).max() / np.abs(mine).max()
    times = measure.interleaved(rounds, ours=lambda: gramian(phi), script=march)
    scale = steps / SCRIPT_STEPS
    if comm.rank == 0:
        measure.report(
            "G1", f"{s.size()[0] if comm.size == 1 else len(s.free)} dofs, {steps} steps", times, ours="ours", peer="script",
            agreement=f"a step agrees to {difference:.1e}", scale=scale,
        )  # fmt: skip


def wave(h, rounds, small):
    data = build(MPI.COMM_SELF, MeshCase(geometry="rectangle", parameters={"h": h}))
    s = split(data, mass="lumped", boundary=("left", "right", "bottom", "top"))
    a = Wave(s, 1.0, int(np.ceil(1.0 / (0.9 * stable_step(s, 0.0)))), 0.0)
    stepper = a.march_adjoint(s.x[:, 0] * 0.0 + 1.0, s.x[:, 0] * 0.0)
    n, nnz = len(s.free), s.K.mat.getInfo()["nz_used"]
    tasks, ceilings = measure.ceilings(small)

    def steps():
        nonlocal stepper
        for _ in range(5):
            try:
                next(stepper)
            except StopIteration:
                stepper = a.march_adjoint(s.x[:, 0] * 0.0 + 1.0, s.x[:, 0] * 0.0)

    times = measure.interleaved(rounds, ours=steps, **tasks)
    measure.report(
        "G2", f"{n} dofs, 5 steps", times, ours="ours", peer="triad", agreement="(no peer)",
        machine=ceilings(times), memory=5 * (12 * nnz + 20 * n + 32 * n),
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


def metrics(**case):
    base = {
        "mesh": {"geometry": "interval", "parameters": {"h": case.pop("h")}},
        "output": {"pictures": False, "fields": False},
        "kind": "null-control",
        "name": "table",
    }
    checked = validate({**base, **case}, "table")
    with tempfile.TemporaryDirectory() as folder:
        return run_case(checked, open_run(MPI.COMM_SELF, checked, Path(folder) / "run"))


def tables(small):
    rows = (10, 20) if small else (10, 20, 40, 160)
    print(
        "| 1/h | P1 two-grid | finite differences two-grid | spectral, w h < 1 | mixed | P1, no filter | finite differences, no filter |"
    )
    print("|---|---|---|---|---|---|---|")
    ways = (
        ("consistent", "two-grid", "fox-goodwin"),
        ("lumped", "two-grid", "fox-goodwin"),
        ("lumped", "spectral", "fox-goodwin"),
        ("mixed", "none", "midpoint"),
        ("consistent", "none", "fox-goodwin"),
        ("lumped", "none", "fox-goodwin"),
    )
    for J in rows:
        cells = [str(J)]
        for mass, kind, scheme in ways:
            if J == 160 and kind == "none" and mass != "mixed":
                cells.append("not run")
                continue
            m = metrics(
                h=1 / J, equation="wave", control={"on": ["right"]}, mass=mass,
                initial={"y0": "where(x <= 0.5, 4*x, 0)"}, time={"end": 2.4, "scheme": scheme},
                hum={"filter": kind, "lanczos": 60},
            )  # fmt: skip
            cells.append(
                f"{m['control_norm']:.5g} [{m['cg_iterations']}], {m['observability']:.3g}"
            )
        print("| " + " | ".join(cells) + " |", flush=True)
    print("\n| case | eps | 1/h | norm | final state | iterations |\n|---|---|---|---|---|---|")
    for end, region, y0 in (
        (1.0, "0.3 < x < 0.8", "sin(pi*x)**10"),
        (0.5, "0.2 < x < 0.8", "sin(pi*x)"),
    ):
        for power in (2, 4):
            for J in rows[1:]:
                m = metrics(
                    h=1 / J, equation="heat", coefficient="0.1", initial={"y0": y0},
                    control={"where": f"where({region}, 1, 0)"}, time={"end": end, "steps": 4 * J},
                    hum={"epsilon_power": power, "tolerance": 1e-6, "lanczos": 0, "max_iterations": 2000},
                )  # fmt: skip
                print(
                    f"| T = {end}, {region} | h^{power} | {J} | {m['control_norm']:.4f} | {m['final_norm']:.2e} | {m['cg_iterations']} |",
                    flush=True,
                )


def main():
    arguments = measure.arguments(__doc__, tables={"action": "store_true", "help": "the tables"})
    if arguments.tables:
        tables(arguments.small)
        return
    if arguments.small:
        heat(0.1, 10, 2)
        iterations(0.1, 100)
        wave(0.1, 2, True)
        return
    heat(0.0036, 10, min(arguments.rounds, 3))
    if MPI.COMM_WORLD.size == 1:
        for h in (0.05, 0.025):
            iterations(h, 1000)
        wave(0.0012, arguments.rounds, False)


main()
