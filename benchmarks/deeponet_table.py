"""DeepONets of the least-norm control of the wave equation: the tables of docs/set_valued_control.md.

    rows     errors at the (length, samples) of the published experiments, 1000 unseen data, plain
             networks and such with a linear branch, next to linear least squares
    study    error against samples, width and sensors, with fitted rates; and a picture

`--out FOLDER` keeps the rows in FOLDER (an interrupted table goes on) and the picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fem_apps.case import load
from fem_apps.control.set_valued_run import run_case
from fem_apps.output.folder import close_run, open_run

CASE = Path(__file__).parents[1] / "examples/null_control/wave_set.toml"
# lengths and samples; published errors were re-trained with 20,000 steps of Adam
ROWS = ((0.5, 100, "1.9"), (0.5, 1000, "2.3"), (0.25, 1000, "4.3"), (0.0625, 100, "165"))
BASE = {
    "fields.length": 0.125, "samples.stages": [400], "network.width": 50, "fields.sensors": 51,
    "training.steps": 1500, "mesh.parameters.h": 0.02, "time.steps": 100,
}  # fmt: skip
AXES = {
    "samples": ("samples.stages", (50, 100, 200, 400)),
    "width": ("network.width", (4, 10, 25, 50)),
    "sensors": ("fields.sensors", (3, 5, 9, 17)),
}
NAMES = ("test_error", "linear_test_error", "error_sine", "linear_error_sine", "error_rough",
         "linear_error_rough", "final_state", "linear_final_state")  # fmt: skip


def trained(out: Path, small: bool, **keys: object) -> dict[str, float]:
    """Metrics of a DeepONet of the least-norm control; kept in `out`."""
    name = "_".join(f"{k.split('.')[-1]}-{v}" for k, v in keys.items()).replace(" ", "")
    kept = out / f"{name}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    sets = {
        "target.set": "none", "target.heads": ["l2"], "samples.test": 1000, "samples.closed_loop": 5,
        "output.pictures": False, **keys,
    }  # fmt: skip
    if small:
        sets |= {"training.steps": 100, "mesh.parameters.h": 0.05, "time.steps": 40}
    case = load(CASE, [f"{k}={json.dumps(v)}" for k, v in sets.items()])
    handle = open_run(MPI.COMM_SELF, case, out / "runs" / name, overwrite=True)
    metrics = run_case(case, handle)
    close_run(handle, case, "done", metrics)
    found = {k: metrics[k] for k in NAMES}
    kept.write_text(json.dumps(found))
    return found


def rows(out: Path, small: bool, seed: int | None = None) -> None:
    """The table of (length, samples)."""
    print("| l | n | published architecture | plain | linear branch | linear least squares | sin, sin: plain / linear branch / least squares | rough, the same |\n"
          "|---|---|---|---|---|---|---|---|")  # fmt: skip
    for length, n, published in ROWS:
        keys = {"fields.length": length, "samples.stages": [n], "training.steps": 10000}
        if small:
            del keys["training.steps"]
        if seed is not None:
            keys["seed"] = seed
        plain, branch = (
            trained(out, small, **keys, **{"network.linear_branch": b}) for b in (False, True)
        )

        def cell(name: str, plain: dict = plain, branch: dict = branch) -> str:
            values = (plain[name], branch[name], plain[f"linear_{name}"])
            return " / ".join(f"{100 * v:.1f} %" for v in values)

        print(
            f"| {length:g} | {n} | {published} % | {100 * plain['test_error']:.2f} % | "
            f"{100 * branch['test_error']:.2f} % | {plain['linear_test_error']:.0e} | "
            f"{cell('error_sine')} | {cell('error_rough')} |",
            flush=True,
        )


def study(out: Path, small: bool) -> None:
    """Error of plain networks against samples, width, sensors: error ~ number^-rate."""
    print("| over | | " + " | ".join(f"{k + 1}." for k in range(4)) + " | rate |")
    print("|---|---|" + "---|" * 5)
    curves = {}
    for axis, (key, values) in AXES.items():
        errors: dict[str, list[float]] = {"network": [], "least squares": []}
        for value in values[:2] if small else values:
            m = trained(out, small, **{**BASE, key: [value] if axis == "samples" else value})
            errors["network"].append(m["test_error"])
            errors["least squares"].append(m["linear_test_error"])
        print(f"| {axis} | | " + " | ".join(map(str, values)) + " | |")
        for name, e in errors.items():
            r = rate(values[: len(e)], e)
            cells = " | ".join(f"{100 * x:.2g} %" if x > 1e-6 else f"{x:.0e}" for x in e)
            # least squares jumps to rounding: there is no rate
            told = f"{r:.2f}" if min(e) > 1e-6 else "-"
            print(f"| | {name} | {cells} | {told} |", flush=True)
            curves[axis, name] = (values[: len(e)], e, r)
    draw(out, curves)


def rate(numbers, errors) -> float:
    """Least-squares slope of log error over log number, from the first to the smallest error."""
    last = max(int(np.argmin(errors)), 1) + 1
    x, y = np.log(numbers[:last]), np.log(np.maximum(errors[:last], 1e-16))
    return float(-np.polyfit(x, y, 1)[0])


def draw(out: Path, curves) -> None:
    """`deeponet_study.png`."""
    import matplotlib.pyplot as plt

    from fem_apps.output.files import write_whole
    from fem_apps.output.plot_style import png, style

    style()
    figure, axes = plt.subplots(1, 3, figsize=(8.3, 2.5), layout="constrained", sharey=True)
    for ax, axis in zip(axes, AXES, strict=True):
        for name, mark in (("network", "o-"), ("least squares", "^:")):
            numbers, errors, r = curves[axis, name]
            label = f"{name}, rate {r:.2f}" if min(errors) > 1e-6 else f"{name} (to 1e-15)"
            ax.loglog(numbers, np.maximum(errors, 1e-4), mark, ms=3, label=label)
        ax.set_xticks(numbers, [str(v) for v in numbers])
        ax.set_xticks([], minor=True)
        ax.set_xlabel(axis)
        ax.set_ylim(5e-5, 3)
        ax.legend(fontsize=6, loc="center left")
    axes[0].set_ylabel("test error (cut at 1e-4)")
    write_whole(out / "deeponet_study.png", png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="rows, study; both if left out")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and picture")
    parser.add_argument("--seed", type=int, help="of the rows' data and networks")
    parser.add_argument("--small", action="store_true", help="a look, in seconds")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.tables or ("rows", "study"):
        if name == "rows":
            rows(arguments.out, arguments.small, arguments.seed)
        else:
            study(arguments.out, arguments.small)


main()
