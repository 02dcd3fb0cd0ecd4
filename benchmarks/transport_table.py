"""LeVeque's rotation and swirl: the tables of docs/continuity.md, a line a scheme.

    ./run_mpi.sh python3 benchmarks/transport_table.py --n 32 64 128 --flow rotation --rows rows.md

Rows that the file of `--rows` already has are printed from it: an interrupted table goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from mpi4py import MPI

from fem_apps.fem.expressions import parse
from fem_apps.meshing import MeshCase, MeshData, build
from fem_apps.problems.continuity import (
    DG,
    P1,
    Galerkin,
    Problem,
    Side,
    Time,
    Velocity,
    evolve,
)
from fem_apps.problems.continuity_velocity import expressions

BODIES = parse(
    "where((x-.5)**2 + (y-.75)**2 <= .0225 and (abs(x-.5) >= .025 or y >= .85), 1, 0)"
    " + max(0, 1 - sqrt((x-.5)**2 + (y-.25)**2)/.15)"
    " + (1 + cos(pi*min(sqrt((x-.25)**2 + (y-.5)**2)/.15, 1)))/4"
)
SCHEMES = {
    "P1 low order": P1(method="low-order"),
    "P1 Galerkin": Galerkin(type="galerkin", supg=False),
    "P1 SUPG": Galerkin(type="galerkin"),
    "P1 FCT": P1(),
    "DG0": DG(degree=0, limiter="none"),
    "DG1": DG(degree=1, limiter="none"),
    "DG1 vertex": DG(degree=1),
    "DG1 range": DG(degree=1, limiter="range", high=1.0),
    "DG2 range": DG(degree=2, limiter="range", high=1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[32])
    parser.add_argument("--flow", choices=["rotation", "swirl"], default="rotation")
    parser.add_argument("--schemes", nargs="+", choices=list(SCHEMES), default=list(SCHEMES))
    parser.add_argument("--rows", type=Path, help="file that keeps finished rows")
    options = parser.parse_args()
    if options.flow == "rotation":
        v, end, step = expressions(["0.5 - y", "x - 0.5"]), 2 * np.pi, 0.128
    else:
        swirl = ["sin(pi*x)**2*sin(2*pi*y)", "-sin(pi*y)**2*sin(2*pi*x)"]
        v, end, step = expressions(swirl, "cos(pi*t/1.5)"), 1.5, 0.064
    comm = MPI.COMM_WORLD
    kept = options.rows.read_text() if options.rows and options.rows.exists() else ""
    done = {r.split("|")[1].strip(): r for r in kept.splitlines()}
    for n in options.n:
        data = build(comm, MeshCase(geometry="structured_rectangle", parameters={"h": 1 / n}))
        for name in options.schemes:
            title = f"{options.flow} n={n} {name}"
            row = done.get(title) or one_row(
                title, data, SCHEMES[name], v, Time(end=end, dt=step / n)
            )
            if comm.rank == 0:
                print(row, flush=True)
                if options.rows and title not in done:
                    with options.rows.open("a") as file:
                        file.write(row + "\n")


def one_row(title: str, data: MeshData, scheme: DG | P1 | Galerkin, v: Velocity, time: Time) -> str:
    """Errors at the end; extremes over all steps, and at the end; mass drift, mass balance; cost."""
    low, high, mass, outflow, began = np.inf, -np.inf, None, 0.0, perf_counter()
    problem = Problem(v, {"default": Side(type="fixed")})
    for s in evolve(data, problem, BODIES.text, time, scheme=scheme):
        low, high, outflow = min(low, s.low), max(high, s.high), outflow + s.outflow
        mass = s.mass + outflow if mass is None else mass
    spent = (perf_counter() - began) / s.number
    l1, l2 = s.solver.errors(s.rho, lambda x: BODIES.numpy(x, 0.0), True)
    return (
        f"| {title} | {l1:.4g} / {l2:.4g} | {low:.3g}, {high:.4f} | {s.low:.3g}, {s.high:.4f} |"
        f" {(s.mass - mass) / mass:.1e} | {(s.mass + outflow - mass) / mass:.1e} |"
        f" {1e3 * spent:.1f} ms |"
    )


main()
