"""Tables of docs/imaging.md and docs/noisier2inverse.md: trained priors and trained reconstructions, a line a row.

    ./run_mpi.sh python3 benchmarks/imaging_table.py posterior [--only TEXT] [--rows FILE]
    ./run_mpi.sh python3 benchmarks/imaging_table.py noisier2inverse [--only TEXT] [--rows FILE] [--seeds 0 1 2]

Each row is a shipped case with the overrides that its name says. Rows that the file of `--rows` already has are
printed from it: an interrupted table goes on. Trained weights are kept in the user's cache.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path
from time import process_time

from mpi4py import MPI

from fem_apps.case import application, load
from fem_apps.output.folder import close_run, open_run

EXAMPLES = Path(__file__).parents[1] / "examples/imaging"
POSTERIOR = {
    "tomography, 6 views": ["operator.angles=6"],
    "tomography, 12 views": [],
    "tomography, 24 views": ["operator.angles=24"],
    "blur, 1.5 pixels": ['operator={type="blur", width=1.5}'],
    "super-resolution x2": ['operator={type="downsampling", factor=2}'],
    "super-resolution x4": ['operator={type="downsampling", factor=4}'],
    "a tenth of the pixels": ['operator={type="masking", share=0.1}'],
}
LARGE = ["scanner.size=64", "scanner.angles=60", "scanner.detectors=91"]
RECONSTRUCTION = {
    f"{size} x {size}, sigma = {sigma}": [f"noise.sigma={sigma}", *(LARGE if size == 64 else [])]
    for size in (32, 64)
    for sigma in (2, 3, 5)
}


def run(example: str, overrides: list[str]) -> dict[str, float]:
    """Metrics of a case, run in a folder that goes away."""
    case = load(EXAMPLES / f"{example}.toml", overrides)
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(MPI.COMM_WORLD, case, Path(folder) / "run")
        with contextlib.redirect_stderr(io.StringIO()):
            metrics = application(case.kind).run(case, run)
        close_run(run, case, "done", metrics)
    return metrics


def posterior_row(overrides: list[str], seed: int) -> str:
    m = run("ct_posterior", [*overrides, f"seed={seed}", "output.pictures=false"])
    best = "yes" if m["psnr"] > max(m["psnr_lmmse"], m["psnr_tv_oracle"]) else "no"
    fbp = f"{m['psnr_fbp']:.2f}" if "psnr_fbp" in m else ""
    return (
        f"{m['psnr']:.2f} | {m['psnr_sample']:.2f} | {m['psnr_lmmse']:.2f} | {m['psnr_tv']:.2f}; {m['psnr_tv_oracle']:.2f} |"
        f" {fbp} | {best} | {100 * m['coverage']:.1f} % | {m['interval_width']:.3f} | {m['chi2']:.3f}"
    )


def reconstruction_row(overrides: list[str], seed: int) -> str:
    m = run("noisier2inverse_ct", [*overrides, f"seed={seed}", "output.pictures=false"])
    return (
        f"{m['psnr']:.2f} | {m['psnr_supervised']:.2f} | {m['psnr_noise2inverse']:.2f} | {m['psnr_fbp']:.2f} |"
        f" {m['psnr_tv']:.2f}; {m['psnr_tv_oracle']:.2f} | {m['psnr_lmmse']:.2f} | {m['psnr_supervised'] - m['psnr']:.2f} |"
        f" {m['psnr'] - max(m['psnr_noise2inverse'], m['psnr_fbp']):.2f}"
    )


TABLES = {
    "posterior": (
        POSTERIOR,
        posterior_row,
        "mean | a sample | LMMSE | TV: discrepancy; best | FBP | first | covered | width | chi2",
    ),
    "noisier2inverse": (
        RECONSTRUCTION,
        reconstruction_row,
        "Noisier2Inverse | supervised | Noise2Inverse | FBP | TV: discrepancy; best | LMMSE | below supervised | above the best of Noise2Inverse, FBP",
    ),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--only", default="", help="rows whose name has one of these texts, with |")
    parser.add_argument("--rows", type=Path, help="file that keeps finished rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="+", default=[], help="further overrides of every row")
    given = parser.parse_args()
    cases, row, head = TABLES[given.table]
    done = given.rows.read_text().splitlines() if given.rows and given.rows.exists() else []
    print(f"| case, PSNR in dB | {head} | CPU s |\n|{'---|' * (head.count('|') + 3)}", flush=True)
    for name, overrides in cases.items():
        if not any(text in name for text in given.only.split("|")):
            continue
        for seed in given.seeds:
            start = f"| {name}, seed {seed} |"
            line = next((x for x in done if x.startswith(start)), None)
            if line is None:
                began = process_time()
                line = f"{start} {row([*overrides, *given.set], seed)} | {process_time() - began:.0f} |"
                if given.rows:
                    with given.rows.open("a") as f:
                        f.write(line + "\n")
            print(line, flush=True)
