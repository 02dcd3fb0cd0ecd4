"""B: a sweep of small cases against the bare solves, and against a process for every case.

Cases: aggregation-diffusion on a gmsh rectangle (porous medium with Gaussian attraction), one parameter varied,
no fields, no pictures. Three ways, each of which gives the same free energies:

  sweep      `mpirun -n 2 fem-apps sweep`: groups of one rank
  bare       the solves alone: `run(case, run)` of the application in one process, the mesh shared, nothing recorded
  processes  `fem-apps run` as a process for every case (some cases, scaled)

The overhead of the sweep is what its ranks do besides `run`: CPU time of the whole command, starting included, over
that of the bare solves. CPU times, since several programs may share the machine. Further: how long `table` and `plot`
take on a record of 10,000 rows.
"""

from measure import arguments, seconds  # isort: skip  sets the thread counts

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CASE = """
kind = "aggregation-diffusion"
[mesh]
geometry = "rectangle"
parameters = {{ width = 2, height = 2, h = {h} }}
[[diffusion]]
exponent = 2
coefficient = 0.1
[[interaction]]
type = "gaussian"
strength = -0.5
width = 0.3
[initial]
type = "expression"
expression = "1 + 0.2*cos(3*x)*cos(2*y)"
[time]
end = 1
[output]
pictures = false
fields = false
frames = 1
"""
KEY = "diffusion.0.coefficient"


def child(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all that it starts."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, sum(after[:2]) - sum(before[:2])


def bare(case: Path, scratch: Path, n: int) -> tuple[float, float, list[float]]:
    """Wall and CPU seconds of n solves in this process, after one that compiles; the free energies."""
    from mpi4py import MPI

    from fem_apps import mpi
    from fem_apps.case import application, read
    from fem_apps.output.folder import Run, Stop
    from fem_apps.output.progress import Progress
    from fem_apps.sweep.plan import make_plan

    comm = MPI.COMM_SELF.Dup()
    mpi.share(comm)
    plan = make_plan(read(case), [f"{KEY}=0.1:0.2:{n}"])
    cases = [plan.case(p) for p in plan.points()]
    module = application(cases[0].kind)
    scratch.mkdir()

    def solve(c: Any) -> float:
        run = Run(comm, scratch, False, Progress(comm, quiet=True), _stop=Stop())
        return module.run(c, run)["free_energy"]

    solve(cases[0])
    begun, cpu = time.perf_counter(), time.process_time()
    energies = [solve(c) for c in cases]
    return time.perf_counter() - begun, time.process_time() - cpu, energies


def throughput(scratch: Path, n: int, few: int, h: float) -> None:
    """Print the lines of the sweep."""
    case = scratch / "case.toml"
    case.write_text(CASE.format(h=h))
    python = [sys.executable, "-m", "fem_apps"]
    run = [*python, "run", str(case), "--out", str(scratch / "one"), "--overwrite"]
    child(run)  # compile, mesh, touch files
    alone = [child([*run, "--set", f"{KEY}={0.1 + 0.1 * i / few}"]) for i in range(few)]
    wall_1, cpu_1 = (n / few * sum(t[i] for t in alone) for i in (0, 1))
    over = ["--over", f"{KEY}=0.1:0.2:{n}"]
    mpirun = ["mpirun", "-n", "2", *python]
    wall, cpu = child([*mpirun, "sweep", str(case), "--out", str(scratch / "s"), *over])
    start = child(
        [*mpirun, "sweep", str(case), "--out", str(scratch / "t"), "--over", f"{KEY}=1,2"]
    )
    wall_b, cpu_b, energies = bare(case, scratch / "bare", n)

    from fem_apps.sweep.table import load

    table = load(scratch / "s")
    assert table.values("status") == ["done"] * n
    worst = max(abs(a - b) for a, b in zip(table.values("free_energy"), energies, strict=True))
    assert worst == 0, worst
    solving = sum(table.values("wall"))
    print(
        f"B sweep of {n} cases on 2 ranks: wall {seconds(wall)}, CPU {seconds(cpu)} ({seconds(1e3 * cpu / n)[:-2]} s a "
        f"thousand), of which starting {seconds(start[1])} | bare solves CPU {seconds(cpu_b)}, wall {seconds(wall_b)} | "
        f"overhead {100 * (cpu / cpu_b - 1):.1f} % (CPU, all), {100 * ((cpu - start[1]) / cpu_b - 1):.1f} % (CPU, "
        f"without starting), {100 * (1 - solving / (2 * wall)):.1f} % of the ranks' wall time outside `run`",
        flush=True,
    )
    print(
        f"B a process a case ({few} of {n}, scaled): CPU {seconds(cpu_1)}, wall on 2 cores {seconds(wall_1 / 2)} | ratio "
        f"{cpu_1 / cpu:.1f} (CPU) {wall_1 / 2 / wall:.1f} (wall) | free energies equal to the last bit | load "
        f"{os.getloadavg()[0]:.1f}",
        flush=True,
    )


def large_record(scratch: Path, n: int) -> None:
    """Print how long `table` and `plot` take on n rows."""
    import numpy as np

    from fem_apps.case import read
    from fem_apps.sweep.plan import make_plan
    from fem_apps.sweep.record import Outcome, Record

    case = scratch / "case.toml"
    case.write_text(CASE.format(h=0.2))
    side = round(n**0.5)
    plan = make_plan(read(case), [f"{KEY}=0.1:0.3:{side}", f"interaction.0.width=0.1:0.4:{side}"])
    noise = np.random.default_rng(0).random((plan.size, 20))
    with Record(scratch / "large", plan, {"kind": "aggregation-diffusion"}) as record:
        record.store(
            Outcome(p.id, "done", {f"m{j}": v for j, v in enumerate(noise[p.id])}, 0.1, 1)
            for p in plan.points()
        )
    python = [sys.executable, "-m", "fem_apps"]
    folder, end = str(scratch / "large"), ["--where", "coefficient > 0.2", "--sort", "-m3"]
    png = ["--out", str(scratch / "p.png")]
    for name, words in (
        ("table", ["table", folder]),
        ("table, filtered and sorted", ["table", folder, *end]),
        ("table --csv", ["table", folder, "--csv", str(scratch / "t.csv")]),
        ("table --parquet", ["table", folder, "--parquet", str(scratch / "t.parquet")]),
        (
            "plot, heat map",
            ["plot", folder, "--x", "coefficient", "--y", "width", "--z", "m1", *png],
        ),
        (
            "plot, points",
            [
                "plot",
                folder,
                "--x",
                "m0",
                "--y",
                "m1",
                "--by",
                "status",
                "--style",
                "scatter",
                *png,
            ],
        ),
    ):
        times = [child([*python, *words]) for _ in range(3)]
        best = min(t[0] for t in times), min(t[1] for t in times)
        print(
            f"B {plan.size} rows, {name}: wall {seconds(best[0])}, CPU {seconds(best[1])}",
            flush=True,
        )


if __name__ == "__main__":
    given = arguments(
        __doc__, cases={"type": int, "default": 1000}, h={"type": float, "default": 0.06}
    )
    with tempfile.TemporaryDirectory() as folder:
        large_record(Path(folder), 100 if given.small else 10_000)
        throughput(
            Path(folder), 20 if given.small else given.cases, 2 if given.small else 10, given.h
        )
