"""Exterior elastic waves by finite elements at size: MUMPS on 2 ranks, and statics by multigrid.

./run_mpi.sh -n 2 python3 benchmarks/lame_fem_scale.py waves --n 10
./run_mpi.sh -n 2 python3 benchmarks/lame_fem_scale.py statics --n 15 30 60

waves: LDL^T of the complex symmetric matrix as the application has it, with block low rank, with pivoting, and
the LU that PETSc's MUMPS does by default (numbers 0 to 3 of --only); rate of the factorisation against ZGEMM
on all ranks at once, one solve, memory as MUMPS counts it; --many: 32 right sides against one by one.
statics: CG with algebraic multigrid and rigid modes, a moving rigid sphere in a ball of radius 1.5.
"""

from __future__ import annotations

import argparse
import resource
from time import perf_counter, process_time

import complex_scalars  # noqa: F401
import numpy as np
from lame_fem_table import COMM, P, Truncation, build, dofs, shells
from mpi4py import MPI
from petsc4py import PETSc

from fem_apps.fem.solvers import default_options
from fem_apps.fundamental.medium import Medium
from fem_apps.problems.navier_lame import Problem, Solver
from fem_apps.problems.navier_lame_solve import Scatterer

BLOCK_LOW_RANK = 1e-5


def tell(line: str) -> None:
    if COMM.rank == 0:
        print(line, flush=True)


def peak() -> float:
    """GB that all ranks have used at most."""
    return COMM.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1e6


def factor_seconds() -> np.ndarray:
    """What PETSc has logged of factorisations: analysis (ordering), and numbers."""
    seconds = [
        sum(
            PETSc.Log.Event(f"Mat{kind}{part}").getPerfInfo()["time"]
            for kind in ("LUFactor", "CholFctr")
        )
        for part in ("Sym", "Num")
    ]
    return np.array(seconds)


def zgemm(n: int = 1500) -> float:
    """GF/s of all ranks together, complex products of n x n, the best of three."""
    X = np.random.default_rng(COMM.rank).normal(size=(2, n, n)) + 1j
    seconds = []
    for _ in range(3):
        COMM.barrier()
        start = perf_counter()
        X[0] @ X[1]
        COMM.barrier()
        seconds.append(perf_counter() - start)
    return COMM.allreduce(8e-9 * n**3) / COMM.allreduce(min(seconds), op=MPI.MAX)


def many(s: Scatterer, columns: int = 32, singles: int = 8) -> str:
    """How many times faster `columns` right sides at once are than one by one."""
    B = np.random.default_rng(COMM.rank).normal(size=(s.A.getLocalSize()[0], columns)) + 0j
    s._solve_one(B[:, 0])  # MUMPS takes its memory at the first
    start = perf_counter()
    s._solve_many(B)
    together = perf_counter() - start
    start = perf_counter()
    for b in B.T[:singles]:
        s._solve_one(b)
    single = (perf_counter() - start) / singles
    return f"{columns} right sides {together:.2f} s, one {single:.2f} s: {columns * single / together:.1f}"


def waves(n: int, only: list[int], count: bool) -> None:
    PETSc.Log.begin()
    peak_rate = zgemm()
    data = build(COMM, shells(n, -(-n // 2), -(-4 * n // 5)))
    problem = Problem(Medium(2.0, 1.0, 1.0, 2.0), truncation=Truncation(type="pml", strength=3))
    ours = None
    kinds = (
        ("LDL^T", Solver(), {}),
        (f"LDL^T, block low rank {BLOCK_LOW_RANK:g}", Solver(block_low_rank=BLOCK_LOW_RANK), {}),
        ("LDL^T, pivoting", Solver(), {"mat_mumps_cntl_1": 0.01}),
        (
            "LU, MUMPS' defaults",
            Solver(),
            {"pc_type": "lu", "mat_mumps_icntl_14": 20, "mat_mumps_cntl_1": 0.01},
        ),
    )
    for name, solver, options in [kinds[k] for k in only]:
        with default_options(options):
            start, before, cpu = perf_counter(), factor_seconds(), process_time()
            s = Scatterer(data, problem, solver=solver)
            made, (analysis, factor) = perf_counter(), factor_seconds() - before
            cpu = COMM.allreduce(process_time() - cpu)
            u = s.scattered(P)
            end = perf_counter()
        F = s.ksp.getPC().getFactorMatrix()
        gigabytes, flops = F.getMumpsInfog(22) / 1e3, F.getMumpsRinfog(3)
        x = u.x.array[: s.A.getLocalSize()[0]].copy()
        ours = (factor, gigabytes, x) if ours is None else ours
        apart = [COMM.allreduce(float(np.vdot(v, v).real)) for v in (x - ours[2], x)]
        tell(
            f"| {name} | {dofs(s)} unknowns | factor {factor:.1f} s"
            f" ({factor / ours[0]:.2f}) {4e-9 * flops / factor:.1f} GF/s, {4e-9 * flops / factor / peak_rate:.2f} of ZGEMM, analysis {analysis:.1f} s,"
            f" assembly {made - start - analysis - factor:.1f} s, CPU of all {cpu:.1f} s | solve {end - made:.2f} s, {s.iterations} iterations |"
            f" {gigabytes:.2f} GB ({gigabytes / ours[1]:.2f}) | {flops:.2e} complex operations |"
            f" difference {np.sqrt(apart[0] / apart[1]):.1e} | process peak {peak():.1f} GB | ranks {COMM.size} |"
        )
        if count:
            tell(f"| {name} | {many(s)} |")
        for o in (s.ksp, s.A):
            o.destroy()
        PETSc.garbage_cleanup()


def statics(n: int) -> None:
    data = build(COMM, shells(n, max(1, n // 4), 0))
    problem = Problem(Medium(2.0, 1.0, 1.0, 0.0), truncation=Truncation(type="fixed"))
    start = perf_counter()
    s = Scatterer(data, problem, degree=1, solver=Solver(type="iterative"))
    made = perf_counter()
    s.moved(np.array([0.0, 0.0, 1.0]), np.zeros(3))
    end = perf_counter()
    tell(
        f"| statics, P1, n = {n} | {dofs(s)} unknowns | {s.iterations} iterations to {s.options.tolerance:g} |"
        f" assembly and set-up {made - start:.1f} s, solve {end - made:.1f} s | process peak {peak():.1f} GB |"
        f" ranks {COMM.size} |"
    )
    for o in (s.ksp, s.A):
        o.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["waves", "statics"])
    parser.add_argument("--n", type=int, nargs="+", default=[4])
    parser.add_argument(
        "--only", type=int, nargs="+", default=[0, 1, 2, 3], help="solvers of waves, by number"
    )
    parser.add_argument("--many", action="store_true", help="waves: 32 right sides as well")
    options = parser.parse_args()
    for n in options.n:
        if options.what == "waves":
            waves(n, options.only, options.many)
        else:
            statics(n)


if __name__ == "__main__":
    main()
