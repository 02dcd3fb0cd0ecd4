"""Test cases T1 to T4 of Geist et al. (arXiv 2004.12131): reduced bases and trained networks on the same problem.

    ./run_mpi.sh python3 benchmarks/elliptic_geist.py [--small] [--h 0.01] [--only TEXT]

Prints the table of docs/parametric_elliptic.md: largest relative error in the H1 seminorm over the test set by N, and
of POD-NN and DeepONet trained on 1,000 full solutions. P1 on 100 x 100 squares, a interpolated in P1, as published.
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
EXACT = ["reduced.interpolation=0", "reduced.training=100"]
RADII = ["diffusion.s=2", "diffusion.radius=[0.5, 0.9]"]
CASES = [
    ("T1, p = 10, sigma = -1", "geist_t1", []),
    ("T1, p = 10, sigma = 0", "geist_t1", ["diffusion.sigma=0"]),
    ("T2, s = 3, mu = 0.1", "geist_t2", []),
    ("T2, s = 3, mu = 0.001", "geist_t2", ["diffusion.offset=1e-3"]),
    ("T2, s = 3, mu = 0.0001", "geist_t2", ["diffusion.offset=1e-4"]),
    ("T2, s = 5, mu = 0.1", "geist_t2", ["diffusion.counts=[5, 5]"]),
    ("T3, s = 3, fixed radii", "geist_t3", []),
    (
        "T3, s = 2, radii too",
        "geist_t3",
        [*RADII, "reduced.interpolation=0", "reduced.training=100"],
    ),
    ("T3, s = 2, radii too, 60 interpolated", "geist_t3", RADII),
    ("T4, k = 2", "geist_t4", EXACT),
    ("T4, k = 2, 60 interpolated", "geist_t4", []),
]
NETWORKS = ["trained.samples=1000", "trained.points=500"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="coarse and short, for the tests")
    parser.add_argument("--h", type=float, default=0.01, help="mesh size; 0.01 as published")
    parser.add_argument("--steps", type=int, default=6000, help="of the trainings")
    parser.add_argument("--only", default="", help="rows whose name has one of these texts, with |")
    given = parser.parse_args()
    small = given.small
    print(
        "| case | parameters | "
        + " | ".join(f"N = {n}" for n in SIZES)
        + " | effectivity | violated | POD-NN max / mean | DeepONet max / mean |"
    )
    print("|---|---|" + "---|" * (len(SIZES) + 4))
    more = ["output.pictures=false", "output.fields=false", f"mesh.parameters.h={given.h}"]
    NETWORKS += [f"trained.training.steps={given.steps}"]
    if small:
        more += ["mesh.parameters.h=0.1", "reduced.training=20", "reduced.test=5"]
        more += ["reduced.interpolation_samples=20"]
        NETWORKS += ["trained.samples=20", "trained.training.steps=50"]
    for name, example, overrides in CASES[:: 3 if small else 1]:
        if not any(text in name for text in given.only.split("|")):
            continue
        networks = [] if "interpolated" in name else NETWORKS
        case = load(EXAMPLES / f"{example}.toml", [*overrides, *networks, *more])
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
        # what interpolation leaves out is estimated: there a bound may fail
        assert metrics["violations"] == 0 or "interpolated" in name, name
        print(
            f"| {name} | {len(case.ranges)} | "
            + " | ".join(errors)
            + f" | {metrics['effectivity_min']:.2f} to {metrics['effectivity_max']:.1f} | {metrics['violations']}"
            + "".join(
                f" | {metrics[f'{who}_error_max']:.1e} / {metrics[f'{who}_error_mean']:.1e}"
                if networks
                else " | ."
                for who in ("pod_nn", "deeponet")
            )
            + " |",
            flush=True,
        )
