"""Attention: sums over all pairs, and the phase diagram, against torch, KeOps and numpy.

    ./run_mpi.sh python3 benchmarks/attention.py [--small] [--rounds 5] [--only E1 E3 E4 phase memory jax]

E1: softmax means in d = 3, n = 4096, ns a pair, against torch's scaled_dot_product_attention (SDPA), KeOps on
    the CPU, JAX's naive softmax and its row blocks (what runs on another device).
E3: d = 64: fraction of GEMM on the 4 n^2 d flops.
E4: circle by Fourier modes and NUFFT, against SDPA timed at a smaller n and scaled by the pairs.
memory: noisy steps of `--tokens` tokens in `--dimension` dimensions with their clusters: seconds, bytes over n d.
phase: one row of the phase diagram against the published stepping in numpy, and in torch.

KeOps is in the extra `benchmarks`. torch needs a Python that has it (a CPU build will do): name it in
FEM_APPS_TORCH_PYTHON; it runs as a second process, started once, that takes its turn with ours. What is not
there is left out and said. Results are compared before anything is timed. CPU ratios are of one thread each.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent))
import jax
import jax.numpy as jnp
import numpy as np
from measure import arguments, ceilings, interleaved, report

from fem_apps.attention import phase_diagram as pd
from fem_apps.attention.fields import make_field
from fem_apps.attention.model import Attention
from fem_apps.attention.pair_sums import compiled_sums
from fem_apps.attention.token_dynamics import Tokens, cloud

CHILD = r"""
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[1])); torch.set_grad_enabled(False)
data = {}
for line in sys.stdin:
    task = json.loads(line)
    if task["what"] == "make":
        g = torch.Generator().manual_seed(0)
        x = torch.randn(task["n"], task["d"], generator=g, dtype=torch.float64)
        data[task["name"]] = x / x.norm(dim=1, keepdim=True)
        print(json.dumps(data[task["name"]].tolist() if task.get("show") else 0), flush=True)
        continue
    if task["what"] == "version":
        print(json.dumps(torch.__version__), flush=True); continue
    wall, cpu = time.perf_counter(), time.process_time()
    if task["what"] == "sdpa":
        x = data[task["name"]][None, None]
        out = torch.nn.functional.scaled_dot_product_attention(x, x, x, scale=task["beta"])[0, 0]
        first = out[0].tolist()
    else:
        x = data[task["name"]].reshape(task["batch"], -1, data[task["name"]].shape[1])
        for _ in range(task["steps"]):
            a = torch.softmax(task["beta"] * x @ x.mT, dim=-1) @ x
            a = a - (a * x).sum(-1, keepdim=True) * x
            x = x + task["dt"] * a
            x = x / x.norm(dim=-1, keepdim=True)
        first = x[0, 0].tolist()
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, first]), flush=True)
"""


class Torch:
    """The second process; its own clocks count."""

    def __init__(self, threads: int) -> None:
        python = os.environ.get("FEM_APPS_TORCH_PYTHON")
        self.there = bool(python)
        if not python:
            print("torch left out: name a Python with torch in FEM_APPS_TORCH_PYTHON", flush=True)
            return
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment.pop("LD_LIBRARY_PATH", None)
        self.process = subprocess.Popen(
            [python, "-c", CHILD, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            self.version = self.ask(what="version")
        except (OSError, json.JSONDecodeError):
            print(f"torch left out: {python} cannot import it", flush=True)
            self.there = False

    def ask(self, **task):
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def best(self, rounds: int, **task) -> tuple[float, float]:
        times = [self.ask(**task)[:2] for _ in range(rounds)]
        return min(t[0] for t in times), min(t[1] for t in times)


def unit(n: int, d: int) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def peers(n: int, d: int, beta: float):
    """KeOps where it is there, JAX naive and in blocks."""
    x = unit(n, d)
    log_m = np.full(n, -np.log(n))
    naive = jax.jit(lambda x: jax.nn.softmax(beta * x @ x.T, axis=1) @ x)
    blocks = make_field(Attention(beta=beta, layer_norm=False), d, compiled=False)
    rows = jax.jit(lambda x: blocks(x, x, log_m))
    tasks = {
        "JAX naive": lambda: naive(x).block_until_ready(),
        "JAX blocks": lambda: rows(x).block_until_ready(),
    }
    try:
        from pykeops.numpy import LazyTensor
    except Exception as e:
        print(f"KeOps left out: {type(e).__name__}", flush=True)
    else:
        X, Y, one = LazyTensor(x[:, None]), LazyTensor(x[None]), np.c_[x, np.ones(n)]
        tasks["KeOps"] = lambda: (beta * (X | Y)).exp() @ one  # beta small: no shift needed
    return x, log_m, tasks


def means(beta, x, log_m):
    s, _ = compiled_sums(beta * x, x, log_m)
    return s[:, :-1] / s[:, -1:]


def e1(options, torch):
    n, beta = (1024, 4.0) if options.small else (4096, 4.0)
    x, log_m, tasks = peers(n, 3, beta)
    reference = np.asarray(jax.nn.softmax(beta * x @ x.T, axis=1) @ x)
    error = np.abs(means(beta, x, log_m) - reference).max()
    tasks["ours"] = lambda: means(beta, x, log_m)
    run_all(options, torch, "E1", n, 3, beta, tasks, f"error {error:.1e}")


def e3(options, torch):
    n = 1024 if options.small else 10_000
    beta, d = 4.0, 64
    x = unit(n, d)
    log_m = np.full(n, -np.log(n))
    rows = 200
    s = beta * x[:rows] @ x.T
    w = np.exp(s - s.max(axis=1, keepdims=True))
    error = np.abs(means(beta, x, log_m)[:rows] - w @ x / w.sum(axis=1, keepdims=True)).max()
    top, _ = ceilings(True)
    tasks = {"ours": lambda: means(beta, x, log_m), "gemm": top["gemm"]}
    times = run_all(options, torch, "E3", n, d, beta, tasks, f"error {error:.1e}")
    gemm = 2e-9 * 1500**3 / times["gemm"][1]
    ours = 4e-9 * n * n * d / times["ours"][1]
    print(
        f"E3 n={n} d={d}: {ours:.1f} of {gemm:.1f} GF/s of GEMM: {100 * ours / gemm:.0f} %",
        flush=True,
    )


def run_all(options, torch, name, n, d, beta, tasks, agreement):
    if torch.there:
        torch.ask(what="make", name=name, n=n, d=d)
        sdpa = lambda: torch.ask(what="sdpa", name=name, beta=beta)  # noqa: E731
        tasks = {**tasks, "torch SDPA": sdpa}
    times = interleaved(options.rounds, **tasks)
    if torch.there:  # its own process has its own clock
        times["torch SDPA"] = torch.best(options.rounds, what="sdpa", name=name, beta=beta)
    for peer in tasks:
        if peer not in ("ours", "gemm"):
            report(name, f"n={n} d={d}", times, ours="ours", peer=peer, agreement=agreement)
    for task, (wall, cpu) in sorted(times.items()):
        if task != "gemm":
            print(
                f"   {task}: {1e9 * wall / n**2:.2f} ns a pair (wall) {1e9 * cpu / n**2:.2f} (CPU)"
            )
    return times


def e4(options, torch):
    for n in (4096,) if options.small else (65_536, 1_000_000):
        angle = np.random.default_rng(0).uniform(0, 2 * np.pi, n)
        x, beta = np.stack([np.cos(angle), np.sin(angle)], axis=1), 9.0
        log_m = np.full(n, -np.log(n))
        rows = slice(0, 50)
        w = np.exp(beta * (x[rows] @ x.T - 1))
        error = np.abs(means(beta, x, log_m)[rows] - w @ x / w.sum(axis=1, keepdims=True)).max()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times = interleaved(options.rounds, ours=lambda x=x, m=log_m: means(9.0, x, m))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        line = (
            f"E4 n={n}: ours {1e3 * times['ours'][0]:.2f} ms, CPU {1e3 * times['ours'][1]:.2f} ms"
        )
        if torch.there:
            k = min(n, 8192)
            torch.ask(what="make", name="E4", n=k, d=2)
            _, cpu = torch.best(options.rounds, what="sdpa", name="E4", beta=beta)
            line += f" | SDPA {cpu * (n / k) ** 2:.1f} s (n = {k}, scaled)"
            line += f" | ratio {cpu * (n / k) ** 2 / times['ours'][1]:.0f} (CPU)"
        print(f"{line} | error {error:.1e} | memory grew by {grown / 1024:.0f} MiB", flush=True)


def published_step(x, beta, dt, steps):
    """The stepping of the public experiment on a batch, with the projection: (batch, n, d)."""
    for _ in range(steps):
        s = beta * x @ x.transpose(0, 2, 1)
        w = np.exp(s - s.max(axis=2, keepdims=True))
        a = w @ x / w.sum(axis=2, keepdims=True)
        a -= (a * x).sum(axis=2, keepdims=True) * x
        x = x + dt * a
        x /= np.linalg.norm(x, axis=2, keepdims=True)
    return x


def phase(options, torch):
    batch, steps, d = (128, 20, 2) if options.small else (256, 100, 2)
    n, beta, dt = 32, 5.0, 0.1
    x = unit(batch * n, d).reshape(batch, n, d)

    def ours(x=x):
        done = []
        for part in x.reshape(-1, pd.LANES, n, d):
            y = pd.lanes_of(part)
            pd.follow(y, d, beta, dt, steps, 0.999, True, np.zeros(1))
            done.append(y.reshape(n, d + 1, pd.LANES)[:, :d].transpose(2, 0, 1))
        return np.concatenate(done)

    # both step with the masses of all other tokens and their own
    error = np.abs(ours() - published_step(x, beta, dt, steps)).max()
    tasks = {"ours": ours, "numpy": lambda: published_step(x, beta, dt, steps)}
    times = interleaved(options.rounds, **tasks)
    size = f"n={n} d={d} batch={batch} steps={steps}"
    agreement = f"error {error:.1e}"
    report("phase", size, times, ours="ours", peer="numpy", agreement=agreement)
    if torch.there:
        torch.ask(what="make", name="phase", n=batch * n, d=d)
        times["torch"] = torch.best(
            options.rounds, what="step", name="phase", beta=beta, dt=dt, steps=steps, batch=batch
        )
        report("phase", size, times, ours="ours", peer="torch", agreement=agreement)
    pairs = batch * steps * n * n
    print(
        f"   ours {1e9 * times['ours'][1] / pairs:.2f} ns a pair; 90 x 300 steps x 2048: "
        f"{times['ours'][1] / pairs * 90 * 300 * 2048 * n * n:.0f} s of one core",
        flush=True,
    )


def memory(options, torch):
    """Langevin steps as a case of kind tokens takes them; the peak above what was there before."""
    n, d = (3000, 32) if options.small else (options.tokens, options.dimension)
    x = unit(n, d)
    solver = Tokens(make_field(Attention(beta=4.0), d), noise=1e-3, dt=0.01)
    c, group = cloud(x), np.zeros(n, dtype=int)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    c, group, _ = solver.advance(c, 0.02, group)
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(
        f"memory n={n} d={d}: 2 steps and the clusters in {perf_counter() - start:.1f} s, peak "
        f"{peak / 2**20:.0f} MiB above the tokens, {peak / (8 * n * d):.1f} n d numbers "
        f"({8 * n * n / 2**20:.0f} MiB would be n^2); order {np.linalg.norm(c.x.mean(axis=0)):.4f}",
        flush=True,
    )


def on_device(options, torch):
    """What JAX itself does on the device it has: unchanged on a GPU."""
    device = jax.devices()[0]
    for n, d in ((2048, 3), (2048, 64)) if options.small else ((16_384, 3), (16_384, 64)):
        x = jnp.asarray(unit(n, d))
        log_m = jnp.full(n, -jnp.log(n))
        f = make_field(Attention(beta=4.0), d, compiled=False)
        step = jax.jit(lambda x, f=f, m=log_m: f(x, x, m))
        y = jnp.ones((4096, 4096))
        gemm = jax.jit(lambda y: y @ y)
        times = interleaved(
            options.rounds,
            ours=lambda s=step, x=x: s(x).block_until_ready(),
            gemm=lambda g=gemm, y=y: g(y).block_until_ready(),
        )
        peak, ours = 2e-9 * 4096**3 / times["gemm"][0], 4e-9 * n * n * d / times["ours"][0]
        print(
            f"jax on {device.device_kind}, n={n} d={d}: {1e9 * times['ours'][0] / n**2:.3f} ns a pair, "
            f"{ours:.1f} of {peak:.1f} GF/s of its GEMM ({100 * ours / peak:.0f} %)",
            flush=True,
        )


def main() -> None:
    names = {"E1": e1, "E3": e3, "E4": e4, "phase": phase, "memory": memory, "jax": on_device}
    usual = [n for n in names if n != "memory"]
    options = arguments(
        __doc__,
        only={"nargs": "+", "choices": [*names], "default": usual},
        tokens={"type": int, "default": 100_000, "help": "of the measurement of memory"},
        dimension={"type": int, "default": 512, "help": "of the measurement of memory"},
    )
    torch = Torch(options.threads)
    for name in options.only:
        names[name](options, torch)


if __name__ == "__main__":
    main()
