"""The staircase as a run of kind tokens with clock = "arc-length"."""

from __future__ import annotations

from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero


def run_staircase(case: Any, run: Any, x: np.ndarray) -> dict[str, object]:
    """Follow the tokens of a case at unit speed; returns the metrics. Collective.

    Raises:
        CaseError: not on the circle, or beta <= 1.
        SolveError: see `staircase`.
    """
    from fem_apps.attention.staircase import Staircase, limit_merges, staircase
    from fem_apps.output.history import History

    beta = case.attention.beta
    if x.shape[1] != 2:
        raise CaseError(f"clock = 'arc-length' is of tokens on the circle, not in {x.shape[1]}D")
    if beta <= 1:
        raise CaseError(f"attention.beta = {beta:g}: the unit log(beta) needs beta > 1")
    a = case.attention
    if a.heads or a.masked or any(M != 1.0 for M in (a.Q, a.K, a.V)):
        raise CaseError("clock = 'arc-length': Q = K = V = identity, one head, no mask")
    unit = np.log(beta)
    theta = np.arctan2(x[:, 1], x[:, 0])

    def follow() -> Staircase:
        return staircase(
            theta, beta, end=case.time.end * unit, glue=max(case.glue, 1e-7), samples=100
        )

    with run.phase("staircase"):
        found = on_rank_zero(run.comm, follow)
    rows = len(found.s)
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, case.output.frames + 1)).astype(int))
    with History(run.comm, run.folder / "history.csv") as history:
        for i in chosen:
            before = int((found.merges <= found.s[i]).sum())
            history.write(
                {
                    "step": int(i),
                    "time": found.s[i] / unit,
                    "clusters": len(theta) - before,
                    "energy": found.energy[i],
                }
            )
    if case.output.pictures:
        from fem_apps.attention.token_pictures import draw

        frames = [np.stack([np.cos(t), np.sin(t)], axis=1) for t in found.angles[chosen]]
        merges = [(t, 2, 1) for t in found.merge_times]
        times = list(found.s[chosen] / unit)
        with run.phase("pictures"):
            for note in on_rank_zero(run.comm, draw, run.folder, case, times, frames, merges):
                run.note(note)
    limit, plateaus = limit_merges(theta)
    drop = float(np.maximum(-np.diff(found.energy), 0).max(initial=0.0))
    return {
        "merge_times": found.merge_times.tolist(),
        "clusters": len(theta) - len(found.merges),
        "energy_decrease": drop,
        "energy": found.energy[-1],
        "limit_merge_times": (limit / unit).tolist(),
        "plateaus": plateaus.tolist(),
    }
