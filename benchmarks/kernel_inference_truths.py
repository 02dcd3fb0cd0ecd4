"""Kernel inference from Brownian particles: the table of other truths in docs/kernel_inference.md.

    ./run_mpi.sh python3 benchmarks/kernel_inference_truths.py [--seeds 4] [--rows 0 1 2 3 4]

Three data sets of 2,000 particles on the line and in the plane; about 20 minutes on one core.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from mpi4py import MPI

from fem_apps import meshing
from fem_apps.case import validate
from fem_apps.fem import node_graph
from fem_apps.inverse.interaction_kernels_atoms import atoms_of
from fem_apps.inverse.interaction_kernels_estimate import from_paths
from fem_apps.inverse.interaction_kernels_functional import Known
from fem_apps.inverse.interaction_kernels_metrics import kernel_error
from fem_apps.inverse.interaction_kernels_report import SEEN
from fem_apps.inverse.interaction_kernels_sources import load
from fem_apps.inverse.interaction_kernels_verify import pair_distances

# W, sigma, steps between two snapshots
ROWS = [
    ({"gaussian(0.5)": -1}, 0.05, 4),
    ({"gaussian(0.5)": 1, "power(2)": 1}, 0.05, 4),
    ({"exponential(1)": -1.5}, 0.05, 4),
    ({"power(3)": 0.5, "power(1)": -0.5}, 0.1, 4),
    ({"power(2)": 1, "gaussian(1)": 2}, 0.5, 8),
]
DICTIONARY = [
    {"type": "power", "exponents": [1, 2, 3, 4]},
    {"type": "gaussian", "widths": [0.3, 0.5, 1, 2]},
    {"type": "exponential", "lengths": [0.5, 1, 2]},
]
INITIAL = {
    1: ["exp(-(x-1)**2/0.5) + exp(-(x+1.5)**2/0.3)", "exp(-x**2/4)", "exp(-x**2/0.1)"],
    2: [
        "exp(-((x-1)**2+y**2)/0.3) + exp(-((x+1)**2+(y-1)**2)/0.3)",
        "exp(-(x**2+y**2))",
        "exp(-(x**2+y**2)/0.1)",
    ],
}
MESHES = {
    1: {"geometry": "interval", "parameters": {"a": -6, "b": 6, "h": 0.1}},
    2: {
        "geometry": "rectangle",
        "parameters": {"x0": -4, "y0": -4, "width": 8, "height": 8, "h": 0.2},
    },
}
QUIET = SimpleNamespace(
    asked_to_stop=lambda: False, progress=SimpleNamespace(update=lambda *_: None), note=print
)


def one(dim, truth, sigma, substeps, seed):
    """Whether the support is exact, the kernel's error, the stability, the support's names."""
    comm = MPI.COMM_SELF
    raw = {
        "kind": "kernel-inference",
        "folder": Path("."),
        "name": "truths",
        "mesh": MESHES[dim],
        "diffusion": [{"exponent": 1, "coefficient": sigma}],
        "dictionary": DICTIONARY,
        "data": {
            "type": "simulation",
            "solver": "particles",
            "truth": truth,
            "initial": INITIAL[dim],
            "end": 1,
            "snapshots": 41 if dim == 1 else 21,
            "particles": 2000,
            "substeps": substeps,
        },
    }
    case = validate(raw, "truths")
    mesh = meshing.build(comm, case.mesh, case.folder)
    graph = node_graph.build(mesh.mesh, mesh.lattice)
    atoms = atoms_of(case.dictionary, dim, None)
    known = Known(case.diffusion, None)
    data = load(case.data, atoms, known, None, mesh, graph, case.folder, seed)
    found = from_paths(comm, atoms, data.particles, sigma, case.solver, QUIET, seed=seed)
    first = data.particles[0]
    distances = pair_distances(lambda n, rng: rng.permuted(first.x[n], axis=0), len(first.t), seed)
    radius = float(np.quantile(distances, SEEN))
    error = kernel_error(atoms, found.c, data.truth, radius, distances).plain
    exact = set(np.flatnonzero(found.c)) == set(np.flatnonzero(data.truth))
    names = [atoms[i].name for i in found.selected.fit.support]
    return exact, error, found.selected.stability, names


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ROWS)))
    a = parser.parse_args()
    for row in a.rows:
        truth, sigma, substeps = ROWS[row]
        for dim in (1, 2):
            found = [one(dim, truth, sigma, substeps, seed) for seed in range(a.seeds)]
            print(
                f"{truth}, sigma {sigma}, dim {dim}: {sum(f[0] for f in found)} of {a.seeds}, "
                f"greatest error {max(f[1] for f in found):.3f}; stability "
                + ", ".join(f"{f[2]:.2f} {'exact' if f[0] else f[3]}" for f in found),
                flush=True,
            )
