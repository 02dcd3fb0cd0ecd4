"""Parametric elliptic problems against pyMOR, DOLFINx's LinearProblem, and PETSc's defaults.

    ./run_mpi.sh python3 benchmarks/elliptic.py [--small] [--only online,sweep,reassembly,poisson,coarsening]

online: 10^4 reduced solves and error bounds, against rom.solve and rom.estimate_error of pyMOR with the same
matrices and the same basis (CoerciveRBReductor). sweep: full solves of a thermal block to a relative residual of 1e-8,
against LinearProblem with CG and BoomerAMG for every parameter. reassembly: the matrix of a parameter, against
assemble_matrix in place. poisson: one solve of 1e6 dofs in 2D and 3D, against PETSc's defaults (GMRES, ILU).
coarsening: CG steps and times with an aggressive first coarsening, also for higher degrees and for jumps on unstructured meshes.
"""

from measure import arguments, ceilings, interleaved, once, report, seconds  # isort: skip  sets the thread counts

import os
from time import process_time

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI

from fem_apps.fem.solvers import default_options
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.elliptic import discretise
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_matrix import assemble_in_place
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.problems.elliptic_solver import options
from fem_apps.problems.elliptic_sweep import sweep
from fem_apps.surrogates.reduced_basis import Offline, weak_greedy
from fem_apps.surrogates.reduced_basis_batch import BatchSolver


def thermal_block(h, rtol=1e-10):
    data = build(MPI.COMM_SELF, MeshCase(geometry="blocks", parameters={"h": h}))
    return discretise(data, Equation(), rtol=rtol)


def greedy(D, size, training=500):
    offline = Offline(EllipticModel(D))
    weak_greedy(offline, np.random.default_rng(0).uniform(0.1, 1, (training, 4)), size)
    return offline


def pymor_model(D, offline, N):
    """PyMOR's reduced model of the same matrices, product and basis."""
    import scipy.sparse as sp
    from pymor.core.logger import set_log_levels
    from pymor.models.basic import StationaryModel
    from pymor.operators.constructions import LincombOperator, VectorOperator
    from pymor.operators.numpy import NumpyMatrixOperator
    from pymor.parameters.functionals import (
        ExpressionParameterFunctional,
        ProjectionParameterFunctional,
    )
    from pymor.reductors.coercive import CoerciveRBReductor

    set_log_levels({"pymor": "ERROR"})

    def csr(A):
        indptr, columns, values = A.getValuesCSR()
        return sp.csr_matrix((values, columns, indptr))

    parts = [csr(D.matrix.combine(np.eye(4)[q])) for q in range(4)]
    held = sp.diags(np.isin(np.arange(len(D.space.lift)), D.space.fixed).astype(float))
    # the identity of held rows is in every part: once is enough
    operators = [NumpyMatrixOperator((A - held).tocsr()) for A in parts] + [
        NumpyMatrixOperator(held.tocsr())
    ]
    operator = LincombOperator(
        operators, [ProjectionParameterFunctional("mu", 4, i) for i in range(4)] + [1.0]
    )
    b = operator.range.from_numpy(D.right_sides[0][:, None])
    product = NumpyMatrixOperator(csr(offline.model.X))
    fom = StationaryModel(operator, VectorOperator(b), products={"x": product})
    reductor = CoerciveRBReductor(
        fom,
        RB=operator.source.from_numpy(offline.basis.vectors[:, :N].copy()),
        product=product,
        coercivity_estimator=ExpressionParameterFunctional("min(mu)", {"mu": 4}),
        check_orthonormality=False,
    )
    return reductor.reduce()


def online(rounds, small):
    """B1, B2: batches of 10^4 online."""
    D = thermal_block(0.1 if small else 0.02)
    N, S, part = 20, 1000 if small else 10_000, 50 if small else 200
    offline = greedy(D, N, 100)
    model = offline.reduced()
    try:
        rom = pymor_model(D, offline, model.size)
    except ImportError as e:
        print(f"B1, B2 skipped: pyMOR is not here ({e}); pip install pymor")
        return
    mus = np.random.default_rng(1).uniform(0.1, 1, (S, 4))
    peers = [rom.parameters.parse(list(mu)) for mu in mus[:part]]
    batch = BatchSolver(model)
    u = batch.coefficients(mus)
    theirs = np.array([rom.solve(mu).to_numpy().ravel() for mu in peers])
    same = np.abs(theirs - u[:part]).max() / np.abs(u).max()
    bounds = np.array([float(np.ravel(rom.estimate_error(mu))[0]) for mu in peers])
    same_bound = np.abs(batch.error_bound(mus[:part]) / bounds - 1).max()
    assert same < 1e-10, same
    tasks, machine = ceilings(small)
    times = interleaved(
        rounds,
        batch=lambda: batch.coefficients(mus),
        bound=lambda: batch.error_bound(mus, u),
        numpy=lambda: model.coefficients(mus),
        pymor=lambda: [rom.solve(mu) for mu in peers],
        pymor_bound=lambda: [rom.estimate_error(mu) for mu in peers],
        **tasks,
    )
    size = f"N={model.size}, {S} parameters"
    flops = 2 * S * (model.size**3 / 6 + model.size**2 * (1 + 0.5 * 4))
    gemm = machine(times)[1]
    share = f"{flops / times['batch'][0] / 1e9 / gemm:.0%} of GEMM"
    report("B1", size, times, ours="batch", peer="pymor", scale=S / part,
           agreement=f"difference {same:.1e}, {share}", machine=machine(times))  # fmt: skip
    report(
        "B1",
        size,
        times,
        ours="batch",
        peer="numpy",
        agreement="same model",
        machine=machine(times),
    )
    report("B2", size, times, ours="bound", peer="pymor_bound", scale=S / part,
           agreement=f"difference {same_bound:.1e}", machine=machine(times))  # fmt: skip


def linear_problem(D, a):
    """DOLFINx's LinearProblem as its demos use it, CG with BoomerAMG, made once."""
    V = D.space.V
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    form = a * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
    load = fem.Constant(V.mesh, 1.0) * v * ufl.dx
    settings = {
        "ksp_type": "cg",
        "ksp_rtol": 1e-8,
        "pc_type": "hypre",
        "pc_hypre_type": "boomeramg",
    }
    return fem_petsc.LinearProblem(form, load, bcs=D.space.bcs, petsc_options=settings)


def full_sweep(rounds, small):
    """B3: full solves per second."""
    D = thermal_block(0.05 if small else 0.0043, 1e-8)
    begun = process_time()
    offline = greedy(D, 30 if small else 96, 200)
    spent = process_time() - begun
    reduced, basis = offline.reduced(), np.ascontiguousarray(offline.basis.vectors)
    mus = np.random.default_rng(1).uniform(0.1, 1, (64 if small else 256, 4))
    part = 2 if small else 4
    a = fem.Function(D.space.W)
    problem = linear_problem(D, a)

    def theirs():
        out = []
        for mu in mus[:part]:
            a.x.array[:] = D.fields @ mu
            out.append(problem.solve().x.array.copy())
        return out

    before = len(D.solver.iterations)
    found = dict(sweep(D, reduced, basis, mus, 1e-8))
    steps = sum(D.solver.iterations[before:]) / len(mus)
    model = offline.model
    difference = max(model.norm(found[k] - u) / model.norm(u) for k, u in enumerate(theirs()))
    assert difference < 1e-5, difference
    tasks, machine = ceilings(small)
    times = interleaved(
        min(rounds, 3),
        sweep=lambda: list(sweep(D, reduced, basis, mus, 1e-8)),
        linear_problem=theirs,
        **tasks,
    )
    report("B3", f"{D.space.size} dofs, {len(mus)} parameters, N={reduced.size} made in {spent:.0f} s (CPU), {steps:.2f} CG steps a solve",
           times, ours="sweep", peer="linear_problem", scale=len(mus) / part,
           agreement=f"difference {difference:.1e} in H1", machine=machine(times))  # fmt: skip


def reassembly(rounds, small):
    """The matrix of the next parameter."""
    D = thermal_block(0.05 if small else 0.0043)
    V = D.space.V
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    a = fem.Function(D.space.W)
    form = fem.form(a * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    A = fem_petsc.create_matrix(form)
    mu = np.array([0.3, 0.9, 0.2, 0.5])
    a.x.array[:] = D.fields @ mu
    difference = (assemble_in_place(A, form, D.space.bcs) - D.matrix.combine(mu)).norm() / A.norm()
    assert difference < 1e-13
    tasks, machine = ceilings(small)
    times = interleaved(
        rounds,
        combine=lambda: D.matrix.combine(mu),
        petsc=lambda: assemble_in_place(A, form, D.space.bcs),
        **tasks,
    )
    nnz = int(A.getInfo()["nz_used"])
    report("B-reassembly", f"{D.space.size} dofs, {nnz} entries", times, ours="combine", peer="petsc",
           agreement=f"difference {difference:.1e}", machine=machine(times), memory=nnz * 20.0)  # fmt: skip


AGGRESSIVE = {"pc_hypre_boomeramg_agg_nl": 1, "pc_hypre_boomeramg_agg_num_paths": 2}


def poisson(rounds, small):
    """One Poisson solve, set-up included, against PETSc's defaults and those of its multigrids."""
    # PETSc's defaults measure the preconditioned residual; the others are held to the true one, as ours
    equal = {"ksp_norm_type": "unpreconditioned"}
    peers = {
        "PETSc's defaults (GMRES, ILU)": {"ksp_max_it": 300},
        "CG, ILU": {"ksp_type": "cg", "ksp_max_it": 5000, **equal},
        "CG, GAMG": {"ksp_type": "cg", "pc_type": "gamg", **equal},
        "CG, BoomerAMG as PETSc has it": {"ksp_type": "cg", "pc_type": "hypre", **equal},
        "ours, first coarsening aggressive": {**options(3), **AGGRESSIVE},
    }
    for tdim, n, rtol in ((2, 40 if small else 1000, 1e-5), (3, 10 if small else 100, 1e-8)):
        A, b, _V = laplace(structured(tdim, n), 1)
        ours, said = solved(A, b, options(tdim), rtol)
        print(f"Poisson, P1, {tdim}D, {A.size[0]} dofs, to {rtol:g}: ours {seconds(ours[0])} ({said})", flush=True)  # fmt: skip
        for name, settings in peers.items():
            spent, said = solved(A, b, settings, rtol)
            print(f"  {name}: {seconds(spent[0])}, ratio {spent[0] / ours[0]:.3g} (wall) "
                  f"{spent[1] / ours[1]:.3g} (CPU) | {said} | load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip


def coarsening(rounds, small):
    """CG steps to 1e-8 with and without an aggressive first coarsening."""
    n = 4 if small else 33
    meshes = [(f"structured, P{k}", structured(3, 3 * n // k), k, 0.0) for k in (1, 2, 3)]
    for geometry, h in (("rectangle", 0.1 / n), ("box", 0.7 / n)):
        mesh = build(MPI.COMM_SELF, MeshCase(geometry=geometry, parameters={"h": h})).mesh
        meshes.append((f"{geometry}, unstructured, jumps of 10, P1", mesh, 1, 10.0))
    for name, mesh, degree, contrast in meshes:
        A, b, _V = laplace(mesh, degree, contrast)
        settings = options(mesh.topology.dim, degree)
        for kind, more in (("ours", {}), ("aggressive", AGGRESSIVE)):
            spent, said = solved(A, b, {**settings, **more}, 1e-8)
            print(f"{name}, {A.size[0]} dofs, {kind}: {said}, {seconds(spent[0])}", flush=True)


def structured(tdim, n):
    from dolfinx import mesh as dolfinx_mesh

    if tdim == 2:
        return dolfinx_mesh.create_unit_square(MPI.COMM_SELF, n, n)
    return dolfinx_mesh.create_unit_cube(MPI.COMM_SELF, n, n, n)


def laplace(mesh, degree, contrast=0.0):
    """Matrix and right side of -div(a grad u) = 1, u = 0; a = contrast in every other octant, else 1."""
    from dolfinx import mesh as dolfinx_mesh

    tdim = mesh.topology.dim
    V = fem.functionspace(mesh, ("Lagrange", degree))
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    mesh.topology.create_connectivity(tdim - 1, tdim)
    facets = dolfinx_mesh.exterior_facet_indices(mesh.topology)
    held = fem.locate_dofs_topological(V, tdim - 1, facets)
    a = fem.Function(fem.functionspace(mesh, ("DG", 0)))
    a.x.array[:] = 1.0
    if contrast:
        cells = np.arange(mesh.topology.index_map(tdim).size_local, dtype=np.int32)
        upper = dolfinx_mesh.compute_midpoints(mesh, tdim, cells)[:, :tdim] > 0.5
        a.x.array[cells[upper.sum(axis=1) % 2 == 1]] = contrast
    form = fem.form(a * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    A = fem_petsc.assemble_matrix(form, bcs=[fem.dirichletbc(0.0, held, V)])
    A.assemble()
    b = fem_petsc.assemble_vector(fem.form(fem.Constant(mesh, 1.0) * v * ufl.dx))
    b.array_w[held] = 0.0
    return A, b, V  # V: the communicator of A and b goes with its mesh


def solved(A, b, settings, rtol):
    """Wall and CPU time of one solve, preconditioner included; steps and the true residual."""
    from petsc4py import PETSc

    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    with default_options({**settings, "ksp_rtol": rtol}):
        ksp.setOperators(A)
        ksp.setFromOptions()
        x, r = A.createVecs()
        spent = once(lambda: ksp.solve(b, x))
    A.mult(x, r)
    r.aypx(-1.0, b)
    reached = r.norm() / b.norm()
    steps, reason = ksp.getIterationNumber(), ksp.getConvergedReason()
    ksp.destroy()
    end = "" if reason > 0 else ", not converged: the ratio is a lower bound"
    return spent, f"{steps} steps, residual {reached:.1e}{end}"


PARTS = {
    "online": online,
    "sweep": full_sweep,
    "reassembly": reassembly,
    "poisson": poisson,
    "coarsening": coarsening,
}

if __name__ == "__main__":
    given = arguments(__doc__, only={"default": ",".join(PARTS), "help": "parts, with commas"})
    for name in given.only.split(","):
        PARTS[name](2 if given.small else given.rounds, given.small)
