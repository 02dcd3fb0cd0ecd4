"""What every benchmark shares: tasks taken in turn in one process, ceilings of the machine, the line printed.

Import it before numpy: it sets the thread counts. A ratio is taken within one run, from the best
wall and CPU times of each task, after the results have been compared; absolute times of a shared
machine mean little.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from time import perf_counter, process_time


def _threads() -> int:
    for i, word in enumerate(sys.argv):
        if word.startswith("--threads"):
            return int(word.partition("=")[2] or sys.argv[i + 1])
    return 1


THREADS = _threads()
for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = str(THREADS)

import numba  # noqa: E402
import numpy as np  # noqa: E402

Times = dict[str, tuple[float, float]]
GEMM, DISTURBED, SAMPLE = 1500, 0.7, 0.03


def arguments(doc: str | None, **more: dict[str, object]) -> argparse.Namespace:
    """The command line: --small, --rounds, --threads, and what `more` adds (name=add_argument's keywords)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--small", action="store_true", help="sizes that finish in seconds, for the tests"
    )
    parser.add_argument("--rounds", type=int, default=7, help="times that every task is taken")
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS, numba and OpenMP")
    for name, keywords in more.items():
        parser.add_argument(f"--{name}", **keywords)  # type: ignore[arg-type]
    return parser.parse_args()


def once(task: Callable[[], object], repeats: int = 1) -> tuple[float, float]:
    """Wall and CPU seconds of one call, the mean of `repeats`."""
    wall, cpu = perf_counter(), process_time()
    for _ in range(repeats):
        task()
    return (perf_counter() - wall) / repeats, (process_time() - cpu) / repeats


def interleaved(rounds: int, **tasks: Callable[[], object]) -> Times:
    """Best (wall, CPU) seconds of each task, the tasks taken in turn, forwards and backwards.

    A task shorter than `SAMPLE` is repeated until it takes that long, so that none starts from caches
    that another one has emptied.
    """
    for task in tasks.values():
        task()  # compile, touch pages
    repeats = {name: max(1, int(SAMPLE / once(task)[0])) for name, task in tasks.items()}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for r in range(rounds):
        for name in sorted(tasks, reverse=bool(r % 2)):
            seen[name].append(once(tasks[name], repeats[name]))
    if "triad" in seen:
        wall = sorted(w for w, _ in seen["triad"])
        if wall[0] < DISTURBED * wall[len(wall) // 2]:
            print(
                f"disturbed: the triad's median is {wall[len(wall) // 2] / wall[0]:.2f} times its best",
                flush=True,
            )
    return {name: (min(w for w, _ in t), min(c for _, c in t)) for name, t in seen.items()}


@numba.njit(parallel=True, fastmath=True)
def _triad(a, b, c):  # type: ignore[no-untyped-def]
    for i in numba.prange(len(a)):
        a[i] = b[i] + 3.0 * c[i]


def ceilings(
    small: bool,
) -> tuple[dict[str, Callable[[], object]], Callable[[Times], tuple[float, float]]]:
    """Tasks `triad` and `gemm`, and what turns their times into GB/s (24 B an entry) and GF/s.

    Three arrays of 300 MB, of 8 MB if `small` (then a cache is measured).
    """
    n = 10**6 if small else 300 * 10**6 // 8
    a, b, c = np.zeros(n), np.ones(n), np.ones(n)
    x, y = np.ones((GEMM, GEMM)), np.ones((GEMM, GEMM))
    tasks: dict[str, Callable[[], object]] = {
        "triad": lambda: _triad(a, b, c),
        "gemm": lambda: x @ y,
    }
    return tasks, lambda t: (24e-9 * n / t["triad"][0], 2e-9 * GEMM**3 / t["gemm"][0])


def seconds(t: float) -> str:
    """A time in a readable unit."""
    return f"{t:.2f} s" if t >= 1 else f"{1e3 * t:.2f} ms"


def report(
    identifier: str,
    size: str,
    times: Times,
    *,
    ours: str,
    peer: str,
    agreement: str,
    machine: tuple[float, float] | None = None,
    scale: float = 1.0,
    memory: float = 0.0,
    versions: str = "",
    ranks: int = 1,
) -> None:
    """Print one line: sizes, times, the ratio peer/ours by wall and CPU, agreement, ceilings, load.

    Args:
        ours: the task that is ours; `peer` the other.
        scale: the peer's time is multiplied by this (a part was timed).
        memory: bytes that ours has to move, for its fraction of the triad; 0: not told.
    """
    (wall, cpu), (wall_peer, cpu_peer) = times[ours], times[peer]
    parts = [
        f"{identifier} {size}: ours ({ours}) {seconds(wall)}, {peer} {seconds(wall_peer * scale)}",
        f"ratio {wall_peer * scale / wall:.3g} (wall) {cpu_peer * scale / max(cpu, 1e-9):.3g} (CPU)",
        agreement,
    ]
    if machine:
        triad, gemm = machine
        share = (
            f", ours at {100e-9 * memory / wall / triad:.0f} % of it moving {1e-6 * memory:.0f} MB"
            if memory
            else ""
        )
        parts.append(f"triad {triad:.1f} GB/s{share}, GEMM {gemm:.0f} GF/s")
    parts.append(f"threads {THREADS}, ranks {ranks}, load {os.getloadavg()[0]:.1f}")
    if versions:
        parts.append(versions)
    print(" | ".join(parts), flush=True)
