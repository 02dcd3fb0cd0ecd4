"""W * rho on unstructured nodes: ours against all pairs, in numpy and compiled on both cores.

    ./run_mpi.sh python3 benchmarks/convolution.py [--nodes 66049 100000 1000000] [--threads 2]

One process, the tasks of a size taken in turn, best of the rounds of each (wall). The direct sums
run over a subset of target rows against all sources and are scaled by rows; their cost is exactly
proportional to it. The compiled sum is numba with fastmath and parallel rows on `--threads` cores;
ours runs on one core and on as many. Before timing, ours is compared with the direct sum on the
subset. What is made once (plans, tables) is timed apart.
"""

from __future__ import annotations

import argparse
import os
from time import perf_counter

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--nodes", type=int, nargs="+", default=[66_049, 100_000, 1_000_000])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=5)
arguments = parser.parse_args()
for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(arguments.threads)

import finufft  # noqa: E402
import numba  # noqa: E402
import numpy as np  # noqa: E402
from mpi4py import MPI  # noqa: E402

from fem_apps.fem.convolution import dense_sum, make_convolution  # noqa: E402
from fem_apps.fem.kernels import Gaussian, Kernel, Log  # noqa: E402


@numba.njit(parallel=True, fastmath=True)
def gaussian_rows(rows, x, b, width):
    """-sum_j exp(-|x_i - x_j|^2 / 2 width^2) b_j for some rows i."""
    out = np.empty(len(rows))
    c = -0.5 / width**2
    for i in numba.prange(len(rows)):
        s = 0.0
        for j in range(len(x)):
            u = rows[i, 0] - x[j, 0]
            v = rows[i, 1] - x[j, 1]
            s += np.exp(c * (u * u + v * v)) * b[j]
        out[i] = -s
    return out


@numba.njit(parallel=True, fastmath=True)
def log_rows(rows, x, b):
    """sum_{j != i} log|x_i - x_j| b_j for some rows i."""
    out = np.empty(len(rows))
    for i in numba.prange(len(rows)):
        s = 0.0
        for j in range(len(x)):
            u = rows[i, 0] - x[j, 0]
            v = rows[i, 1] - x[j, 1]
            r = u * u + v * v
            s += 0.5 * np.log(r if r > 0 else 1.0) * b[j]
        out[i] = s
    return out


def interleaved(rounds, tasks):
    """Best wall time of each task, the tasks taken in turn."""
    for f in tasks.values():
        f()
    best = dict.fromkeys(tasks, np.inf)
    for i in range(rounds):
        for name in sorted(tasks, reverse=bool(i % 2)):
            start = perf_counter()
            tasks[name]()
            best[name] = min(best[name], perf_counter() - start)
    return best


def compare(kernel: Kernel, n: int) -> None:
    """Print times and ratios at n perturbed nodes of [-4, 4]^2 with a Gaussian density."""
    rng = np.random.default_rng(0)
    side = round(n**0.5)
    line = np.linspace(-4, 4, side)
    h = line[1] - line[0]
    x = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    x = x + rng.uniform(-0.3, 0.3, x.shape) * h
    n = len(x)
    b = h**2 * np.exp(-(x**2).sum(axis=1) / 0.72) / (0.72 * np.pi)
    start = perf_counter()
    one = make_convolution(MPI.COMM_SELF, [kernel], x, spacing=h, threads=1)
    made = perf_counter() - start
    both = make_convolution(MPI.COMM_SELF, [kernel], x, spacing=h, threads=arguments.threads)
    some = rng.choice(n, min(n, max(16, 40_000_000 // n)), replace=False)
    few = some[: max(4, len(some) // 8)]
    rows = np.ascontiguousarray(x[some])
    if isinstance(kernel, Gaussian):
        compiled = lambda: gaussian_rows(rows, x, b, kernel.width)  # noqa: E731
        dense = lambda: dense_sum(kernel, x, b, few)  # noqa: E731
    else:
        compiled = lambda: log_rows(rows, x, b)  # noqa: E731
        dense = lambda: -dense_sum(Gaussian(), x, b, few)  # noqa: E731  same work, no pole
    exact = compiled()
    error = np.abs(one(b)[some] - exact).max() / np.abs(exact).max()
    tasks = {"ours 1": lambda: one(b), "ours n": lambda: both(b), "numba": compiled, "numpy": dense}
    t = interleaved(arguments.rounds, tasks)
    numba_full, numpy_full = t["numba"] * n / len(some), t["numpy"] * n / len(few)
    print(
        f"{kernel.type} N={n}: ours {t['ours 1']:.4f} s (1 thread) {t['ours n']:.4f} s "
        f"({arguments.threads} threads), made once in {made:.2f} s | "
        f"numba, {arguments.threads} threads, {len(some)} rows scaled: {numba_full:.1f} s "
        f"({1e9 * numba_full / n**2:.2f} ns a pair), ratio {numba_full / t['ours 1']:.0f} "
        f"(1 thread of ours) {numba_full / t['ours n']:.0f} (equal threads) | "
        f"numpy, {len(few)} rows scaled: {numpy_full:.0f} s, "
        f"ratio {numpy_full / t['ours 1']:.0f} | "
        f"difference {error:.1e} | {one.route} | load {os.getloadavg()[0]:.1f}, "
        f"finufft {finufft.__version__}, numba {numba.__version__}",
        flush=True,
    )


if __name__ == "__main__":
    for count in arguments.nodes:
        compare(Gaussian(width=0.5, strength=-1.0), count)
        compare(Log(), count)
