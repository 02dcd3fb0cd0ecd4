"""Kernel inference: tables of docs/kernel_inference.md, and the speed of assembly.

    ./run_mpi.sh python3 benchmarks/kernel_inference.py table [--repeats 8]       # supports and errors, cases A, B, C
    ./run_mpi.sh python3 benchmarks/kernel_inference.py particles [--repeats 8]   # error against the number of particles
    ./run_mpi.sh python3 benchmarks/kernel_inference.py mesh                      # Lang & Lu's mesh study
    ./run_mpi.sh -n 2 python3 benchmarks/kernel_inference.py speed [--small]      # A and b against direct sums

`speed`: 20 atoms, one of the 101 snapshots is timed (the work is the same for each), on every rank; the
direct sums run over some target rows against all sources for one atom, and are scaled by rows, atoms and
snapshots. numba uses two threads on rank 0 while the other ranks wait.
"""

# ruff: noqa: B023  # every closure is called within its own turn of the loop

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

from pathlib import Path
from time import perf_counter, process_time
from types import SimpleNamespace

import numba
import numpy as np
from mpi4py import MPI

from fem_apps import meshing
from fem_apps.case import load as load_case
from fem_apps.fem import node_graph
from fem_apps.inverse import interaction_kernels_functional as functional
from fem_apps.inverse import interaction_kernels_selection as selection
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_atoms import Powers, atoms_of, potential
from fem_apps.inverse.interaction_kernels_data import Observation, Snapshots, observe, snapshots
from fem_apps.inverse.interaction_kernels_estimate import from_densities
from fem_apps.inverse.interaction_kernels_particles import assemble_paths, paths
from fem_apps.inverse.interaction_kernels_sources import load
from fem_apps.inverse.interaction_kernels_synthetic import particle_paths
from fem_apps.inverse.interaction_kernels_verify import density_points, kernel_error, pair_distances

EXAMPLES = Path(__file__).parents[1] / "examples" / "kernel_inference"
# case, noise, initial data; the best error and support rate of the published-style benchmark's columns
ROWS = [
    ("a", 0.0, 1, 1.7e-3, 100),
    ("a", 0.1, 1, 3.9e-3, 100),
    ("b", 0.01, 1, 2.4e-3, 100),
    ("b", 0.05, 1, 3.8e-2, 50),
    ("b", 0.05, 4, 2.1e-3, 100),
    ("b", 0.1, 1, 1.8e-2, 62),
    ("b", 0.1, 4, 3.3e-3, 100),
    ("c", 0.05, 1, 7.9e-3, 88),
    ("c", 0.05, 4, 2.9e-3, 100),
    ("c", 0.1, 1, 8.4e-3, 100),
    ("c", 0.1, 4, 3.5e-3, 100),
    ("a", 0.05, 4, 3.2e-3, 100),
]
QUIET = SimpleNamespace(
    progress=SimpleNamespace(update=lambda *a: None), note=print, asked_to_stop=lambda: False
)


def setting(name, comm=MPI.COMM_SELF):
    case = load_case(EXAMPLES / f"{name}.toml")
    mesh = meshing.build(comm, case.mesh, case.folder)
    graph = node_graph.build(mesh.mesh)
    atoms = atoms_of(case.dictionary, graph.x.shape[1])
    known = functional.Known(case.diffusion)
    return case, mesh, graph, atoms, known


def table(repeats, rows):
    """The default solver, told neither noise nor size: median error of W' on (0, 3), exact supports."""
    print(
        "| case, noise, data | error (best column) | exact support | functional alone | noise found | s |"
    )
    print("|---|---|---|---|---|---|")
    r = np.linspace(0, 3, 1201)
    for row in rows if rows else range(len(ROWS)):
        name, noise, sets, best, rate = ROWS[row]
        case, mesh, graph, atoms, known = setting(f"benchmark_{name}")
        data = load(case.data, atoms, known, None, mesh, graph, case.folder, 0)
        s = functional.set_up(graph, atoms)
        exact = potential(atoms, data.truth)[1](r)
        found, begun = [], process_time()
        for k in range(repeats):
            rng = np.random.default_rng([k, 11])
            seen = [observe(graph, d, Observation(noise=noise), rng) for d in data.densities[:sets]]
            e = from_densities(s, seen, known, SolverCase(), QUIET, [a.name for a in atoms], k)

            def error(c, atoms=atoms, exact=exact):
                return np.linalg.norm(potential(atoms, c)[1](r) - exact) / np.linalg.norm(exact)

            hit = [
                set(np.flatnonzero(c)) == set(np.flatnonzero(data.truth))
                for c in (e.c, e.functional.c)
            ]
            found.append((error(e.c), hit[0], error(e.functional.c), hit[1], e.noise))
        m = np.array(found, dtype=float)
        mid, mean = np.median(m, axis=0), m.mean(axis=0)
        print(
            f"| {name.upper()} {100 * noise:g} %, {sets} | {mid[0]:.1e} ({best:.1e}) | {100 * mean[1]:.0f} % ({rate} %) "
            f"| {mid[2]:.1e} / {100 * mean[3]:.0f} % | {mean[4]:.4f} | {(process_time() - begun) / repeats:.1f} |",
            flush=True,
        )


def particles(repeats):
    """W = x^2/2 + cubic in a dictionary of two, Brownian particles: error of W' against N."""
    print("| N | dim 1 | dim 2 |\n|---|---|---|")
    sizes, errors = (500, 1000, 2000, 4000, 8000), []
    r = np.linspace(0, 2, 400)[1:]
    for N in sizes:
        line = []
        for dim in (1, 2):
            atoms = atoms_of([Powers(type="power", exponents=(2, 3))], dim)
            W = potential(atoms, np.array([1.0, 0.2]))[1]
            seen = []
            for k in range(repeats):
                rng = np.random.default_rng([N, dim, k])
                t = np.linspace(0, 0.5, 21)
                x = particle_paths(
                    rng.standard_normal((N, dim)), W, t, sigma=0.1, substeps=2, rng=rng
                )
                q = assemble_paths(MPI.COMM_SELF, atoms, paths(t, list(x)), sigma=0.1)
                c = np.linalg.solve(q.A, q.b)
                seen.append(np.linalg.norm(potential(atoms, c)[1](r) - W(r)) / np.linalg.norm(W(r)))
            line.append(np.sqrt(np.mean(np.square(seen))))
        errors.append(line)
        print(f"| {N} | {line[0]:.2e} | {line[1]:.2e} |", flush=True)
    slopes = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    print(f"| slope | {slopes[0]:.2f} | {slopes[1]:.2f} |")


def mesh_study():
    """Lang & Lu's examples on sub-sampled data: slopes in dx of the kernel error and of E."""
    for name in ("cubic", "opinion", "attraction_repulsion"):
        case, _, _, atoms, known = setting(f"lang_lu_{name}")
        fine = meshing.build(
            MPI.COMM_SELF,
            case.mesh.model_copy(update={"parameters": {**case.mesh.parameters, "h": 20 / 1200}}),
        )
        source = case.data.model_copy(update={"mesh": None, "snapshots": 51})
        g = node_graph.build(fine.mesh)
        whole = load(source, atoms, known, None, fine, g, case.folder, 0)
        x, rho, t = g.x[:, 0], whole.densities[0].rho, whole.densities[0].t
        at = np.argsort(x)
        every = [*atoms, *whole.extra]
        sizes, errors, costs = (30, 50, 60, 100, 150, 200, 300), [], []
        for M in sizes:
            coarse = meshing.build(
                MPI.COMM_SELF,
                case.mesh.model_copy(update={"parameters": {**case.mesh.parameters, "h": 20 / M}}),
            )
            graph = node_graph.build(coarse.mesh)
            values = np.array([np.interp(graph.x[:, 0], x[at], row[at]) for row in rho])
            data = snapshots(graph, t, values)
            s = functional.set_up(graph, every)
            q = functional.assemble(s, data, known, kind="ends")
            K = len(atoms)
            A, b = q.A[:K, :K], q.b[:K]
            D = np.diff(np.eye(K), axis=0)
            c, _ = selection.tikhonov(A, b, D.T @ D + 1e-6 * np.eye(K))
            c = np.r_[c, np.zeros(len(whole.extra))]
            d = pair_distances(density_points(graph, data), len(t))
            errors.append(kernel_error(every, c, whole.truth, 3.0, d).weighted)
            # E(truth) - the quadrature's error of the functional at the true kernel
            e = whole.truth
            costs.append(abs(np.linalg.norm(q.A @ e - q.b) / np.linalg.norm(q.b)))
        dx = 20 / np.array(sizes)
        slope = [np.polyfit(np.log(dx), np.log(v), 1)[0] for v in (errors, costs)]
        print(
            f"{name}: kernel error {errors[0]:.2e} -> {errors[-1]:.2e}, slope {slope[0]:.2f}; |A c - b|/|b| "
            f"{costs[0]:.2e} -> {costs[-1]:.2e}, slope {slope[1]:.2f}",
            flush=True,
        )


@numba.njit(parallel=True, fastmath=True)
def direct(rows, x, b, width):
    out = np.empty(len(rows))
    c = -0.5 / width**2
    for i in numba.prange(len(rows)):
        s = 0.0
        for j in range(len(x)):
            u, v = rows[i, 0] - x[j, 0], rows[i, 1] - x[j, 1]
            s += np.exp(c * (u * u + v * v)) * b[j]
        out[i] = s
    return out


def speed(small, rounds=3):
    comm = MPI.COMM_WORLD
    case = load_case(EXAMPLES / "benchmark_a.toml")
    for n in (32, 64) if small else (128, 256, 362):
        box = meshing.MeshCase(
            geometry="rectangle",
            parameters={"x0": -4, "y0": -4, "width": 8, "height": 8, "h": 8 / n * 1.07},
        )
        graph = node_graph.build(meshing.build(comm, box).mesh)
        atoms = atoms_of(case.dictionary, 2)
        s = functional.set_up(graph, atoms, dense=0)
        known = functional.Known(case.diffusion)
        r2 = (graph.x**2).sum(axis=1)
        times = {}
        for count in (3, 6):
            rho = np.array([np.exp(-r2 / (1 + 0.1 * k)) for k in range(count)])
            rho /= np.array([graph.integral(r) for r in rho])[:, None]
            data = Snapshots(np.linspace(0, 1, count), rho)
            best = np.inf
            for _ in range(rounds):
                comm.Barrier()
                begun = perf_counter()
                functional.assemble(s, data, known, kind="ends")
                comm.Barrier()
                best = min(best, perf_counter() - begun)
            times[count] = best
        one = (times[6] - times[3]) / 3
        x = np.concatenate(comm.allgather(graph.x))
        b = np.concatenate(comm.allgather(graph.mass * rho[0]))
        compiled = plain = normal = gemm = 0.0
        if comm.rank == 0:
            rows = x[:: max(1, len(x) // 400)]
            direct(rows, x, b, 0.5)
            compiled = (
                min(_timed(lambda: direct(rows, x, b, 0.5)) for _ in range(rounds))
                * len(x)
                / len(rows)
            )
            few = rows[:40]

            def by_numpy():
                d = (
                    np.subtract.outer(few[:, 0], x[:, 0]) ** 2
                    + np.subtract.outer(few[:, 1], x[:, 1]) ** 2
                )
                return np.exp(-d / 0.5) @ b

            plain = min(_timed(by_numpy) for _ in range(rounds)) * len(x) / len(few)
            X = np.ones((2 * graph.n, 20))
            normal = 2e-9 * X.size * 20 / min(_timed(lambda: X.T @ X, 5) for _ in range(rounds))
            M = np.ones((1500, 1500))
            gemm = 2e-9 * 1500**3 / min(_timed(lambda: M @ M) for _ in range(rounds))
            print(
                f"{len(x)} nodes, {comm.size} ranks: A, b of 20 atoms, 101 snapshots {101 * one:.1f} s; "
                f"ratio to numba (2 threads) {20 * compiled / one:.0f}, to numpy {20 * plain / one:.0f}; "
                f"snapshot {1e3 * one:.0f} ms; per node log node {1e9 * one / len(x) / np.log2(len(x)):.0f} ns; "
                f"normal matrix {normal:.1f} of GEMM's {gemm:.1f} GF/s ({100 * normal / gemm:.0f} %); "
                f"time of 6 over 3 snapshots {times[6] / times[3]:.2f}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        comm.Barrier()


def _timed(f, repeats=1):
    begun = perf_counter()
    for _ in range(repeats):
        f()
    return (perf_counter() - begun) / repeats


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("table", "particles", "mesh", "speed"))
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[], help="of the table; all if left out"
    )
    parser.add_argument("--small", action="store_true")
    a = parser.parse_args()
    if a.what == "table":
        table(a.repeats, a.rows)
    elif a.what == "particles":
        particles(a.repeats)
    elif a.what == "mesh":
        mesh_study()
    else:
        speed(a.small)
