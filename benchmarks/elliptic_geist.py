"""Test cases T1 to T4 of Geist et al. (arXiv 2004.12131): reduced bases and trained networks on the same problem.

    ./run_mpi.sh python3 benchmarks/elliptic_geist.py [--small] [--h 0.04]

Prints the table of docs/parametric_elliptic.md: largest relative error in the H1 seminorm over the test set by N, and
of POD-NN and DeepONet trained on full solutions.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

from mpi4py import MPI

from fem_apps.case import application, load
from fem_apps.output.folder import close_run, open_run
from fem_apps.output.history import read_history

EXAMPLES = Path(__file__).parents[1] / "examples/parametric_elliptic"
SIZES = (5, 10, 20, 30)
# further cases, as overrides of an example
CASES = [
    ("T1, p = 10, sigma = -1", "geist_t1", []),
    ("T1, p = 10, sigma = 0", "geist_t1", ["diffusion.sigma=0"]),
    ("T2, s = 3, mu = 0.1", "geist_t2", []),
    ("T2, s = 3, mu = 0.001", "geist_t2", ["diffusion.offset=0.001"]),
    ("T3, s = 3, fixed radii", "geist_t3", []),
    ("T3, s = 2, radii too", "geist_t3", ["diffusion.s=2", "diffusion.radius=[0.5, 0.9]"]),
    ("T4, k = 2", "geist_t4", []),
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="coarse and short, for the tests")
    parser.add_argument("--h", type=float, default=0.04, help="mesh size")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    given = parser.parse_args()
    small = given.small
    print(
        "| case | parameters | "
        + " | ".join(f"N = {n}" for n in SIZES)
        + " | effectivity | POD-NN max / mean | DeepONet max / mean |"
    )
    print("|---|---|" + "---|" * (len(SIZES) + 3))
    more = ["output.pictures=false", "output.fields=false"]
    more += [f"mesh.parameters.h={given.h}"]
    more += ["trained.samples=500", "trained.training.steps=3000", "trained.points=300"]
    if small:
        more += ["mesh.parameters.h=0.15", "trained.samples=20", "trained.training.steps=50"]
        more += ["reduced.training=20", "reduced.test=5", "reduced.interpolation_samples=20"]
    for name, example, overrides in CASES[:: 3 if small else 1]:
        if given.only not in name:
            continue
        case = load(EXAMPLES / f"{example}.toml", [*overrides, *more])
        with tempfile.TemporaryDirectory() as folder:
            run = open_run(MPI.COMM_WORLD, case, Path(folder) / "run")
            with contextlib.redirect_stderr(io.StringIO()):
                metrics = application(case.kind).run(case, run)
            close_run(run, case, "done", metrics)
            table = read_history(Path(folder) / "run" / "convergence.csv")
        errors = [
            f"{table['reduced_error_max'][n - 1]:.1e}" if n <= len(table["size"]) else "."
            for n in SIZES
        ]
        assert metrics["violations"] == 0, name
        print(
            f"| {name} | {len(case.ranges)} | "
            + " | ".join(errors)
            + f" | {metrics['effectivity_min']:.2f} to {metrics['effectivity_max']:.1f}"
            + f" | {metrics['pod_nn_error_max']:.1e} / {metrics['pod_nn_error_mean']:.1e}"
            + f" | {metrics['deeponet_error_max']:.1e} / {metrics['deeponet_error_mean']:.1e} |",
            flush=True,
        )
