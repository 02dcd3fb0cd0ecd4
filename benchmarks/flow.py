"""C4: particles through many switches, exactly, against diffrax and (where installed) torch on the CPU.

Ours runs cache-sized blocks of particles through all pieces, with the growth factors computed once.
The peers: the same closed form in JAX (scan over pieces, all particles at a time); the same in torch
on the first pieces, scaled; diffrax solving the differential equation with Tsit5 at 1e-6 on fewer
particles and pieces, scaled. Results are compared first. torch runs as a second process of the Python
that FEM_APPS_TORCH_PYTHON names (a CPU build will do), by its own clocks, right after the others.

    ./run_mpi.sh python3 benchmarks/flow.py [--small] [--d 2 10]
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from measure import arguments, ceilings, interleaved, report

import numpy as np  # isort: skip
import diffrax  # isort: skip
import jax  # isort: skip
import jax.numpy as jnp  # isort: skip

from fem_apps.control.normalizing_flow_map import Schedule, jax_push, push  # isort: skip

jax.config.update("jax_enable_x64", True)
options = arguments(
    __doc__, d={"type": int, "nargs": "+", "default": [2, 10], "help": "dimensions"}
)
tasks, rates = ceilings(options.small)
particles, pieces = (20_000, 50) if options.small else (1_000_000, 1000)
few, some = (500, 5) if options.small else (20_000, 20)
first_pieces = min(pieces, 100)
TORCH = os.environ.get("FEM_APPS_TORCH_PYTHON")
CHILD = """
import json, sys, time
import numpy, torch
torch.set_num_threads(1)
f = numpy.load(sys.argv[1])
tw, ta, tb, tx = (torch.as_tensor(f[k]) for k in ("w", "a", "b", "x"))
best = [1e9, 1e9]
for _ in range(3):
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        y, growth = tx.clone(), torch.zeros(len(tx), dtype=tx.dtype)
        for w, a, b in zip(tw, ta, tb):
            z = y @ a + b
            rate = torch.dot(w, a)
            y.addr_(torch.clamp(z, min=0), w * (torch.expm1(rate) / rate))
            growth += rate * (z > 0)
    best = [min(best[0], time.perf_counter() - wall), min(best[1], time.process_time() - cpu)]
numpy.save(sys.argv[2], y.numpy())
print(json.dumps(best))
"""


def by_torch(s: Schedule, x: np.ndarray) -> tuple[tuple[float, float], np.ndarray]:
    """Best (wall, CPU) seconds of the closed form in torch, and where the particles end."""
    assert TORCH is not None
    hidden = ("PYTHON", "LD_LIBRARY")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "in.npz"), Path(folder, "out.npy")
        np.savez(given, w=s.w, a=s.a, b=s.b, x=x)
        command = [TORCH, "-c", CHILD, str(given), str(found)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        wall, cpu = json.loads(done.stdout)
        return (wall, cpu), np.load(found)


def field(t, y, theta):
    """Velocity, and the rate of log det."""
    w, a, b = theta
    z = a @ y[:-1] + b
    return jnp.append(jnp.maximum(z, 0) * w, jnp.where(z > 0, w @ a, 0.0))


@jax.jit
def solve(x, w, a, b, tau):
    """All pieces one after the other, adaptively."""

    def one(y, theta):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5(),
            0.0,
            theta[3],
            0.1,
            y,
            theta[:3],
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        ).ys[-1]

    def piece(y, theta):
        return jax.vmap(one, in_axes=(0, None))(y, theta), None

    start = jnp.concatenate([x, jnp.zeros((len(x), 1))], axis=1)
    return jax.lax.scan(piece, start, (w, a, b, tau))[0]


for d in options.d:
    rng = np.random.default_rng(d)
    s = Schedule(
        0.02 * rng.standard_normal((pieces, d)),
        rng.standard_normal((pieces, d)),
        rng.standard_normal(pieces),
        np.ones(pieces),
    )
    x = rng.standard_normal((particles, d))
    on_device = jnp.asarray(x)
    scan = jax.jit(jax_push)
    theta = tuple(map(jnp.asarray, (s.w, s.a, s.b, s.tau)))
    first = tuple(q[:some] for q in theta)

    todo = {
        "flow": lambda s=s, x=x: push(s, x),
        "jax": lambda scan=scan, theta=theta, x=on_device: jax.block_until_ready(scan(*theta, x)),
        "diffrax": lambda first=first, x=on_device[:few]: jax.block_until_ready(solve(x, *first)),
    }
    ours = push(s, x)
    gap = {"jax": float(np.abs(ours[0] - np.asarray(scan(*theta, on_device)[0])).max())}
    part = push(Schedule(s.w[:some], s.a[:some], s.b[:some], s.tau[:some]), x[:few])
    ode = np.asarray(solve(on_device[:few], *first))
    gap["diffrax"] = float(np.abs(part[0] - ode[:, :-1]).max())
    scale = {"jax": 1.0, "diffrax": particles / few * pieces / some}
    times = interleaved(min(options.rounds, 3), **todo, **tasks)
    if TORCH:
        part = Schedule(
            s.w[:first_pieces], s.a[:first_pieces], s.b[:first_pieces], np.ones(first_pieces)
        )
        times["torch"], y = by_torch(part, x)
        gap["torch"] = float(np.abs(push(part, x)[0] - y).max())
        scale["torch"] = pieces / first_pieces
    for peer, e in gap.items():
        cost = 1e9 * times["flow"][1] / particles / pieces
        report(
            "C4",
            f"d={d}, {particles} particles, {pieces} pieces, {cost:.2f} ns each",
            times,
            ours="flow",
            peer=peer,
            agreement=f"agreement {e:.1e}",
            machine=rates(times),
            scale=scale[peer],
        )
