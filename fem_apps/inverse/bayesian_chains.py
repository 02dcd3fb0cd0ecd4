"""Markov chains shared by the ranks, kept so that an interrupted run continues to the same draws.

What is kept of a chain is all that its next draw depends on: its state, its random numbers' state,
and what its sampler has learnt. It is the same on any number of ranks, and lies in one file with
the draws so far.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_apps.errors import Interrupted
from fem_apps.inverse.bayesian_mcmc import Memory, StepSize, chain
from fem_apps.mpi import on_rank_zero, same_error
from fem_apps.output.files import npz, write_whole

BLOCK = 20  # draws between two looks at signals
EVERY = 20.0  # seconds between two checkpoints
FILE = "chains.npz"


def sample(
    control: Any, seed: int, posterior: Any, approximation: Any, run: Any
) -> tuple[np.ndarray, float]:
    """All draws (chains, draws, n) on every rank, and the mean acceptance. Collective.

    Args:
        control: the case's table of chains.
        seed: of the case; chain c draws from the generator of (seed, c).
        posterior: what is sampled.
        approximation: Laplace's, where chains start and which gives their first mass.
        run: whose checkpoint is continued, where there is one.

    Raises:
        Interrupted: SIGTERM or SIGINT came between two blocks of draws; `--restart` continues.
    """
    comm = run.comm
    file = run.folder / "checkpoint" / FILE
    kept = on_rank_zero(comm, _read, file) if run.restart else None
    mine = np.arange(comm.rank, control.chains, comm.size)
    rngs, memories, chains = [], [], []
    for c in mine:
        rng = np.random.default_rng([seed, c])
        # apart from each other, so that R-hat can see whether they meet
        start = approximation.samples(1, rng)[0]
        memory: Memory = {}
        if kept is not None:
            memory = unpack({k: v[c] for k, v in kept.items() if k.startswith("chain/")})
            rng.bit_generator.state = json.loads(str(kept["rng"][c]))
        chains.append(
            chain(
                *(control.method, posterior, start, approximation.covariance, rng),
                warmup=control.warmup,
                step=control.step,
                leaps=control.leaps,
                memory=memory,
            )
        )
        rngs.append(rng)
        memories.append(memory)
    total = control.warmup + control.draws
    out = np.zeros((control.chains, total, len(posterior.prior.mean)))
    chance = np.zeros((control.chains, total))
    begun = 0
    if kept is not None:
        begun = kept["draws"].shape[1]
        out[mine, :begun], chance[mine, :begun] = kept["draws"][mine], kept["chance"][mine]

    def keep(done: int) -> None:
        states = [json.dumps(r.bit_generator.state) for r in rngs]
        parts = comm.gather((list(mine), states, [pack(m) for m in memories]))
        draws, chances = comm.reduce(out[:, :done]), comm.reduce(chance[:, :done])

        def write() -> None:
            by_chain = {c: s for part in parts for c, *s in zip(*part, strict=True)}
            texts, packed = zip(*(by_chain[c] for c in range(control.chains)), strict=True)
            arrays = {k: np.stack([p[k] for p in packed]) for k in packed[0]}
            arrays |= {"rng": np.array(texts), "draws": draws, "chance": chances}
            write_whole(file, npz(arrays))

        on_rank_zero(comm, write)

    last = monotonic()
    for first in range(begun, total, BLOCK):
        done = min(first + BLOCK, total)
        with same_error(comm):
            for k in range(first, done):
                for c, draws in zip(mine, chains, strict=True):
                    d = next(draws)
                    out[c, k], chance[c, k] = d.m, d.accepted
        run.progress.update(done / total, f"{control.method}: draw {done}")
        stop = run.asked_to_stop()
        if comm.bcast(stop or done == total or monotonic() - last > EVERY):
            keep(done)
            last = monotonic()
        if stop and done < total:
            raise Interrupted(f"interrupted at draw {done} of {total}; continue with --restart")
    comm.Allreduce(MPI.IN_PLACE, out, op=MPI.SUM)
    comm.Allreduce(MPI.IN_PLACE, chance, op=MPI.SUM)
    return out[:, control.warmup :], float(chance[:, control.warmup :].mean())


def _read(file: Path) -> dict[str, np.ndarray] | None:
    if not file.is_file():
        return None
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as f:
        return {k: f[k] for k in f.files}


def pack(memory: Memory) -> dict[str, np.ndarray]:
    """What a chain remembers, as arrays under `chain/`."""
    arrays = {}
    for key, value in memory.items():
        value = value.numbers() if isinstance(value, StepSize) else value
        arrays[f"chain/{key}"] = np.asarray(value)
    return arrays


def unpack(arrays: dict[str, np.ndarray]) -> Memory:
    """The inverse of `pack`."""
    memory: Memory = {}
    for name, value in arrays.items():
        match name.removeprefix("chain/"):
            case "size":
                memory["size"] = StepSize.of(value)
            case "learnt":
                memory["learnt"] = list(value)
            case key:
                memory[key] = value.item() if value.ndim == 0 else value
    return memory
