"""Kernel inference: tables of docs/kernel_inference.md, and the speed of assembly.

    ./run_mpi.sh python3 benchmarks/kernel_inference.py table [--repeats 8] [--others]  # supports and errors
    ./run_mpi.sh python3 benchmarks/kernel_inference.py particles [--repeats 8]   # error against the number of particles
    ./run_mpi.sh python3 benchmarks/kernel_inference.py mesh                      # Lang & Lu's mesh study
    ./run_mpi.sh -n 2 python3 benchmarks/kernel_inference.py speed [--small]      # A and b against direct sums

`speed`: 20 atoms; the CPU time of a snapshot, all ranks together, times 101 (the work is the same for each). The
direct sums run over some target rows against all sources for one atom, and are scaled by rows, atoms and
snapshots. numba uses two threads of rank 0, all of whose CPU time counts.
"""

# ruff: noqa: B023  # every closure is called within its own turn of the loop

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

from dataclasses import replace
from pathlib import Path
from time import process_time
from types import SimpleNamespace

import numba
import numpy as np
from mpi4py import MPI

from fem_apps import meshing
from fem_apps.case import load as load_case
from fem_apps.fem import node_graph
from fem_apps.inverse import interaction_kernels_functional as functional
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_atoms import Powers, atoms_of, potential
from fem_apps.inverse.interaction_kernels_data import (
    Observation,
    Snapshots,
    observe,
    order,
    snapshots,
)
from fem_apps.inverse.interaction_kernels_estimate import from_densities
from fem_apps.inverse.interaction_kernels_pairs import pair_sums
from fem_apps.inverse.interaction_kernels_particles import diffusion_of, paths
from fem_apps.inverse.interaction_kernels_sources import load
from fem_apps.inverse.interaction_kernels_sparse import best_subset
from fem_apps.inverse.interaction_kernels_synthetic import particle_paths
from fem_apps.inverse.interaction_kernels_tikhonov import penalty, tikhonov
from fem_apps.inverse.interaction_kernels_verify import density_points, pair_distances

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
# truths that no constant of the solver was chosen on: a case's mesh, data and diffusion, another W
OTHERS = [
    (base, noise, sets, truth, None, None)
    for base, truth in (
        ("a", {"power(2)": 0.8, "exponential(1)": -0.6}),
        ("b", {"power(1.5)": 0.5, "gaussian(0.5)": 0.4}),
        ("c", {"cosine(1)": -1.0, "gaussian(1)": -0.5}),
        ("a", {"power(2)": 1.0, "cosine(3)": -0.1, "gaussian(0.5)": 0.3}),
    )
    for noise, sets in ((0.05, 1), (0.05, 4), (0.1, 4))
]
QUIET = SimpleNamespace(
    progress=SimpleNamespace(update=lambda *a: None), note=print, asked_to_stop=lambda: False
)


def setting(name, comm=MPI.COMM_SELF):
    case = load_case(EXAMPLES / f"{name}.toml")
    mesh = meshing.build(comm, case.mesh, case.folder)
    graph = node_graph.build(mesh.mesh)
    atoms = atoms_of(case.dictionary, graph.x.shape[1], case.mesh.parameters.get("h"))
    known = functional.Known(case.diffusion)
    return case, mesh, graph, atoms, known


def table(repeats, rows, others, finer):
    """The default solver, told neither noise nor size: median error of W' on (0, 3), exact supports."""
    print(
        "| case, noise, data | error (best column) | exact support | functional alone | told the size | noise found | s |"
    )
    print("|---|---|---|---|---|---|---|")
    r = np.linspace(0, 3, 1201)
    every = OTHERS if others else [(*row[:3], None, *row[3:]) for row in ROWS]
    kept = {}
    for row in rows if rows else range(len(every)):
        name, noise, sets, truth, best, rate = every[row]
        key = (name, str(truth))
        if key not in kept:
            case, mesh, graph, atoms, known = setting(f"benchmark_{name}")
            source = case.data.model_copy(update={"truth": truth}) if truth else case.data
            data = load(source, atoms, known, None, mesh, graph, case.folder, 0)
            if finer > 1:
                sets_finer = _finer(case, source, atoms, known, graph, finer)
                data = replace(data, densities=sets_finer)
            kept[key] = graph, atoms, known, data, functional.set_up(graph, atoms)
        graph, atoms, known, data, s = kept[key]
        exact = potential(atoms, data.truth)[1](r)
        support = set(np.flatnonzero(data.truth))
        found, begun = [], process_time()
        for k in range(repeats):
            rng = np.random.default_rng([k, 11])
            seen = [observe(graph, d, Observation(noise=noise), rng) for d in data.densities[:sets]]
            e = from_densities(s, seen, known, SolverCase(), QUIET, [a.name for a in atoms], k)
            told = best_subset(e.form.A, e.form.b, len(support))[0].c
            line = []
            for c in (e.c, e.functional.c, told):
                gap = potential(atoms, c)[1](r) - exact
                line += [
                    np.linalg.norm(gap) / np.linalg.norm(exact),
                    set(np.flatnonzero(c)) == support,
                ]
            found.append([*line, e.noise])
        m = np.array(found, dtype=float)
        mid, mean = np.median(m, axis=0), 100 * m.mean(axis=0)
        label = f"{name.upper()} {100 * noise:g} %, {sets}"
        if truth:
            label += ": " + " + ".join(f"{v:g} {k}" for k, v in truth.items())
        goals = (f" ({best:.1e})", f" ({rate} %)") if best else ("", "")
        print(
            f"| {label} | {mid[0]:.1e}{goals[0]} | {mean[1]:.0f} %{goals[1]} "
            f"| {mid[2]:.1e} / {mean[3]:.0f} % | {mid[4]:.1e} / {mean[5]:.0f} % | {mean[6] / 100:.4f} "
            f"| {(process_time() - begun) / repeats:.1f} |",
            flush=True,
        )


def _finer(case, source, atoms, known, graph, times):
    """The data by finite volumes on so many times more cells, averaged over the nodes' own."""
    h, a, b = (case.mesh.parameters[k] for k in ("h", "a", "b"))
    shift = h / 2 - h / (2 * times)
    update = {"parameters": {"a": a - shift, "b": b + shift, "h": h / times}}
    mesh = meshing.build(MPI.COMM_SELF, case.mesh.model_copy(update=update))
    fine = node_graph.build(mesh.mesh)
    data = load(source, atoms, known, None, mesh, fine, case.folder, 0)
    out = []
    for d in data.densities:
        rho = d.rho[:, np.argsort(fine.x[:, 0])].reshape(len(d.t), -1, times).mean(axis=2)
        out.append(snapshots(graph, d.t, rho[:, order(graph)], d.name))
    return out


def particles(repeats, sizes):
    """W = x^2/2 + cubic in a dictionary of two, Brownian particles: error of W' against N.

    sigma is known, then estimated from the particles. Root mean squares over so many repeats of the
    largest N, and of fewer particles over more, in proportion.
    """
    print("| N | dim 1 | dim 1, sigma found | dim 2 | dim 2, sigma found |\n|---|---|---|---|---|")
    errors = []
    r = np.linspace(0, 2, 400)[1:]
    for N in sizes:
        line = []
        for dim in (1, 2):
            atoms = atoms_of([Powers(type="power", exponents=(2, 3))], dim)
            W = potential(atoms, np.array([1.0, 0.2]))[1]
            known, found = [], []
            for k in range(repeats * max(sizes) // N):
                rng = np.random.default_rng([N, dim, k])
                t = np.linspace(0, 0.5, 21)
                x = particle_paths(
                    rng.standard_normal((N, dim)), W, t, sigma=0.1, substeps=2, rng=rng
                )
                sets = paths(t, list(x), labels=[np.arange(N)] * len(t))
                q = pair_sums(MPI.COMM_SELF, atoms, sets, sigma=0.1).form
                free = pair_sums(MPI.COMM_SELF, atoms, sets, sigma=diffusion_of([sets])).form
                for form, out in ((q, known), (free, found)):
                    c = np.linalg.solve(form.A, form.b)[:2]
                    gap = potential(atoms, c)[1](r) - W(r)
                    out.append(np.linalg.norm(gap) / np.linalg.norm(W(r)))
            line += [np.sqrt(np.mean(np.square(e))) for e in (known, found)]
        errors.append(line)
        print(f"| {N} | {' | '.join(f'{e:.2e}' for e in line)} |", flush=True)
    slopes = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    print(f"| slope | {' | '.join(f'{s:.2f}' for s in slopes)} |")


def mesh_study(splines):
    """Lang & Lu's examples on sub-sampled data: slopes in dx of the kernel error and of E.

    The hypothesis space is the case's on every mesh, whose spacing it may follow; or so many splines.
    """
    sizes = (30, 40, 50, 60, 100, 120, 150, 200, 250, 300)
    for name in ("cubic", "opinion", "attraction_repulsion"):
        case, _, _, _, known = setting(f"lang_lu_{name}")

        def grid(cells, case=case):
            update = {"parameters": {**case.mesh.parameters, "h": 20 / cells}}
            mesh = meshing.build(MPI.COMM_SELF, case.mesh.model_copy(update=update))
            return mesh, node_graph.build(mesh.mesh)

        # every size divides the data's, whose nodes are then a choice of them
        fine, g = grid(3000)
        source = case.data.model_copy(update={"mesh": None, "tolerance": 1e-6})
        whole = load(source, [], known, None, fine, g, case.folder, 0)
        x, rho, t = g.x[:, 0], whole.densities[0].rho, whole.densities[0].t
        at = np.argsort(x)

        def sampled(graph, x=x, rho=rho, t=t, at=at):
            values = [np.interp(graph.x[:, 0], x[at], row[at]) for row in rho]
            return snapshots(graph, t, np.array(values))

        def form(graph, data, atoms, known=known):
            return functional.assemble(functional.set_up(graph, atoms), data, known, kind="ends")

        (truth,) = whole.extra
        last = grid(600)[1]
        there = sampled(last)
        d = pair_distances(density_points(last, there), len(t))
        near = d[d > 0]
        exact = truth.slope(near)
        E0 = form(last, there, [truth]).A[0, 0]
        counts, errors, costs, truths, best = [], [], [], [], []
        for M in sizes:
            graph = grid(M)[1]
            data = sampled(graph)
            families = case.dictionary
            if splines:
                families = [f.model_copy(update={"count": splines}) for f in families]
            atoms = atoms_of(families, 1, 20 / M)
            K = len(atoms)
            q = form(graph, data, [*atoms, truth])
            size_of = penalty(
                case.solver.seminorm, atoms, pair_distances(density_points(graph, data), len(t)), 0
            )
            c = tikhonov(q.A[:K, :K], q.b[:K], size_of, case.solver.rule)[0]
            W, dW = potential(atoms, c)
            B = np.stack([a.slope(near) for a in atoms], axis=1)
            closest = B @ np.linalg.lstsq(B, exact, rcond=1e-10)[0]
            counts.append(K)
            errors.append(np.linalg.norm(dW(near) - exact) / np.linalg.norm(exact))
            best.append(np.linalg.norm(closest - exact) / np.linalg.norm(exact))
            # E of the estimate, by the finest form
            A = form(last, there, [replace(truth, name="estimate", psi=W, slope=dW), truth]).A
            costs.append((A[0, 0] - 2 * A[0, 1] + A[1, 1]) / E0)
            gap = q.A[:, K] - q.b
            truths.append(np.linalg.norm(gap) / np.linalg.norm(q.b))
        dx = 20 / np.array(sizes)
        slope = [np.polyfit(np.log(dx), np.log(v), 1)[0] for v in (errors, costs, truths)]
        print(f"{name}, {case.solver.seminorm}, {case.solver.rule}", flush=True)
        print("| cells | splines | kernel error | best of the space | E | A c - b of the truth |")
        print("|---|---|---|---|---|---|")
        for row in zip(sizes, counts, errors, best, costs, truths, strict=True):
            print("| {} | {} | {:.3f} | {:.3f} | {:.1e} | {:.1e} |".format(*row))
        print(f"| slope | | {slope[0]:.2f} | | {slope[1]:.2f} | {slope[2]:.2f} |", flush=True)


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


def speed(sizes, rounds):
    comm = MPI.COMM_WORLD
    case = load_case(EXAMPLES / "benchmark_a.toml")
    for n in sizes:
        box = meshing.MeshCase(
            geometry="rectangle",
            parameters={"x0": -4, "y0": -4, "width": 8, "height": 8, "h": 8 / n * 1.075},
        )
        graph = node_graph.build(meshing.build(comm, box).mesh)
        atoms = atoms_of(case.dictionary, 2)
        s = functional.set_up(graph, atoms, dense=0)
        known = functional.Known(case.diffusion)
        r2 = (graph.x**2).sum(axis=1)
        times = {}
        for count in (2, 4):
            rho = np.array([np.exp(-r2 / (1 + 0.1 * k)) for k in range(count)])
            rho /= np.array([graph.integral(r) for r in rho])[:, None]
            data = Snapshots(np.linspace(0, 1, count), rho)
            best = np.inf
            for _ in range(rounds):
                comm.Barrier()
                begun = process_time()
                functional.assemble(s, data, known, kind="ends")
                best = min(best, comm.allreduce(process_time() - begun))
            times[count] = best
        one = (times[4] - times[2]) / 2
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
                f"time of 4 over 2 snapshots {times[4] / times[2]:.2f}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        comm.Barrier()


def _timed(f, repeats=1):
    begun = process_time()
    for _ in range(repeats):
        f()
    return (process_time() - begun) / repeats


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("table", "particles", "mesh", "speed"))
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[], help="of the table; all if left out"
    )
    parser.add_argument("--others", action="store_true", help="table: other truths")
    parser.add_argument("--finer", type=int, default=1, help="table: cells of the data, times")
    parser.add_argument("--particles", type=int, nargs="+", default=[500, 1000, 2000, 4000, 8000])
    parser.add_argument("--splines", type=int, help="mesh: so many, in place of the cases'")
    parser.add_argument("--small", action="store_true")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[90, 181, 257], help="of speed: nodes a side"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of speed")
    a = parser.parse_args()
    if a.what == "table":
        table(a.repeats, a.rows, a.others, a.finer)
    elif a.what == "particles":
        particles(a.repeats, a.particles)
    elif a.what == "mesh":
        mesh_study(a.splines)
    else:
        speed((32, 64) if a.small else a.sizes, a.rounds)
