"""Attention as interacting tokens: a case of kind tokens.

    x_i' = P_{x_i} Gamma_mu(x_i) (+ noise),   mu = (1/n) sum_j delta_{x_j}

until a final time, with merges of clusters found and timed. One rank computes; under MPI the others
wait for it. Needs no DOLFINx.
"""

from __future__ import annotations

import logging
import time as clock
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.attention.clusters import chord, labels
from fem_apps.attention.model import Attention, energy_matrix
from fem_apps.attention.token_data import InitialTokens, initial_tokens
from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero

log = logging.getLogger(__name__)

# of the animation, thinned beyond twice as many
FRAMES_KEPT = 60
CHECKPOINT = "tokens.npz"


class Time(Table):
    """The `[time]` table."""

    end: float = Field(gt=0, description="final time")
    tolerance: float = Field(1e-9, ge=1e-13, le=1e-2, description="error of a step")
    dt: float = Field(0.01, gt=0, description="step of the noisy method; without noise not used")


class Output(Table):
    """What is written, and how often."""

    frames: int = Field(100, ge=1, le=100_000, description="times of the history, hit exactly")
    spacing: Literal["linear", "log"] = Field("linear", description="of these times")
    first: float = Field(0.01, gt=0, description="first of them after 0 with log spacing")
    pictures: bool = Field(True, description="pictures and the animation")
    checkpoint: float = Field(60.0, ge=0, description="seconds between checkpoints; 0: every frame")


class Case(AnyCase):
    """A case of kind tokens."""

    attention: Attention = Field(default_factory=Attention, description="the velocity field")
    tokens: InitialTokens = Field(description="the tokens at time 0")
    time: Time = Field(description="final time and accuracy")
    noise: float = Field(0.0, ge=0, description="kappa of the noise sqrt(2 kappa) dB")
    cluster_cosine: float = Field(
        0.999, gt=-1, lt=1, description="inner product above which two tokens are one cluster"
    )
    glue: float = Field(
        1e-6, ge=0, le=1e-2, description="distance below which two tokens become one; 0: never"
    )
    stop_at_one: bool = Field(False, description="end the run when one cluster is left")
    clock: Literal["time", "arc-length"] = Field(
        "time",
        description="arc-length: the staircase of Geshkovski et al. (2410.06833): unit speed on "
        "the circle, scaled attention; time.end is in units of log(beta)",
    )
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _fits(self) -> Case:
        if 0 < self.glue < 1e-7:
            raise ValueError("glue must be 0, or at least 1e-7 (rounding of distances)")
        if self.clock == "arc-length" and (
            self.attention.variant != "scaled" or self.noise or not self.attention.layer_norm
        ):
            raise ValueError(
                "clock = 'arc-length' is of attention.variant = 'scaled' without noise"
            )
        return self


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective.

    Raises:
        CaseError: tokens or matrices that do not fit.
        SolveError: the integrator fails.
        Interrupted: SIGTERM or SIGINT came; the checkpoint holds the last output time.
    """
    x = on_rank_zero(
        run.comm, initial_tokens, case.tokens, case.attention.layer_norm, case.seed, case.file
    )
    if case.clock == "arc-length":
        from fem_apps.attention.staircase_run import run_staircase

        return run_staircase(case, run, x)
    session = _Session(case, x) if run.comm.rank == 0 else None
    return _march(case, run, session)


def output_times(case: Case) -> np.ndarray:
    """Times after 0 at which the history has a line."""
    n, end = case.output.frames, case.time.end
    if case.output.spacing == "log" and case.output.first < end:
        return np.geomspace(case.output.first, end, n) if n > 1 else np.array([end])
    return np.linspace(0, end, n + 1)[1:]


class _Session:
    """The state of a run, on rank 0."""

    def __init__(self, case: Case, x: np.ndarray) -> None:
        from fem_apps.attention.fields import make_field
        from fem_apps.attention.token_dynamics import Tokens, cloud

        distance = chord(case.cluster_cosine)
        self.case, self.d = case, x.shape[1]
        self.solver = Tokens(
            make_field(case.attention, self.d),
            tolerance=case.time.tolerance,
            cluster=distance,
            glue=case.glue,
            noise=case.noise,
            dt=case.time.dt,
            seed=case.seed,
        )
        self.cloud = cloud(x)
        self.group = labels(x, distance)
        self.merges: list[tuple[float, int, int]] = []
        self.matrix = energy_matrix(case.attention, self.d) if case.attention.layer_norm else None
        self.decrease, self.last = 0.0, -np.inf
        self.number = 0
        self.blow_up: float | None = None
        self.times: list[float] = []
        self.frames: list[np.ndarray] = []
        self.keep()

    @property
    def clusters(self) -> int:
        return int(self.group.max()) + 1

    def row(self) -> dict[str, Any]:
        """The history's line of the present state; follows the energy."""
        import jax.numpy as jnp

        from fem_apps.attention.fields import energy

        c = self.cloud
        mean = c.mass @ c.x
        row: dict[str, Any] = {
            "step": self.number,
            "time": c.t,
            "clusters": self.clusters,
            "order_parameter": float(np.linalg.norm(mean)),
        }
        log_m = jnp.log(c.mass)
        if self.matrix is not None:
            D, sign = self.matrix
            a = self.case.attention
            if np.allclose(D, a.beta * np.eye(self.d)):
                e = float(energy(c.x, log_m, a.beta))
            else:
                e = float(energy(c.x, log_m, 0.0, D))
            row["energy"] = e
            rising = sign * e
            if np.isfinite(self.last):
                self.decrease = max(self.decrease, (self.last - rising) / abs(e))
            self.last = rising
        if not self.case.attention.layer_norm:
            centred = c.x - mean
            covariance = (centred * c.mass[:, None]).T @ centred
            row["trace"] = float(np.trace(covariance))
            row["max_norm"] = float(np.linalg.norm(c.x, axis=1).max())
        return row

    def keep(self) -> None:
        """A frame of the animation, thinned where there are many."""
        self.times.append(self.cloud.t)
        self.frames.append(self.cloud.tokens.copy())
        if len(self.frames) > 2 * FRAMES_KEPT:
            del self.times[1:-1:2], self.frames[1:-1:2]

    def advance(self, t: float) -> dict[str, Any]:
        """To the next output time."""
        from fem_apps.attention.token_dynamics import Burst

        try:
            self.cloud, self.group, merges = self.solver.advance(self.cloud, t, self.group)
        except Burst as e:
            self.cloud, merges = e.cloud, []
            self.blow_up = e.cloud.t
        self.merges += [(m.t, m.before, m.after) for m in merges]
        self.number += 1
        self.keep()
        row = self.row()
        row["stop"] = bool(
            self.blow_up is not None or (self.case.stop_at_one and self.clusters == 1)
        )
        return row

    # ------------------------------------------------------------------ checkpoint
    def save(self, folder: Path) -> None:
        from fem_apps.output.files import npz, write_whole

        c = self.cloud
        arrays = {
            "t": c.t,
            "x": c.x,
            "mass": c.mass,
            "leader": c.leader,
            "member": c.member,
            "step": c.step,
            "group": self.group,
            "merges": np.array(self.merges).reshape(-1, 3),
            "record": np.array([self.decrease, self.last]),
            "number": self.number,
            "times": np.array(self.times),
            "frames": np.array(self.frames),
        }
        (folder / "checkpoint").mkdir(exist_ok=True)
        write_whole(folder / "checkpoint" / CHECKPOINT, npz(arrays))

    def load(self, folder: Path) -> None:
        from fem_apps.attention.token_dynamics import Cloud

        path = folder / "checkpoint" / CHECKPOINT
        try:
            with np.load(path, allow_pickle=False) as f:
                a = {k: f[k] for k in f.files}
            self.cloud = Cloud(
                float(a["t"]), a["x"], a["mass"], a["leader"], a["member"], int(a["step"])
            )
            self.group = a["group"]
            self.merges = [(float(t), int(b), int(e)) for t, b, e in a["merges"]]
            self.decrease, self.last = (float(v) for v in a["record"])
            self.number = int(a["number"])
            self.times, self.frames = list(a["times"]), list(a["frames"])
        except (OSError, ValueError, KeyError, EOFError) as e:
            raise CaseError(f"no usable checkpoint {path}: {e}") from None


def _march(case: Case, run: Any, session: _Session | None) -> dict[str, object]:
    from fem_apps.errors import Interrupted
    from fem_apps.output.history import History

    comm = run.comm
    times = output_times(case)
    if run.restart:
        on_rank_zero(comm, lambda: session.load(run.folder))  # type: ignore[union-attr]
    number = on_rank_zero(comm, lambda: session.number)  # type: ignore[union-attr]
    with (
        run.phase("tokens"),
        History(comm, run.folder / "history.csv", append=run.restart, last_step=number) as history,
    ):
        if not run.restart:
            history.write(on_rank_zero(comm, lambda: session.row()))  # type: ignore[union-attr]
        saved = clock.monotonic()
        for t in times[number:]:
            row = on_rank_zero(comm, lambda t=t: session.advance(float(t)))  # type: ignore[union-attr]
            stop = row.pop("stop")
            history.write(row)
            run.progress.update(t / times[-1], f"t = {t:.4g}, clusters = {row['clusters']}")
            interrupted = run.asked_to_stop()
            due = comm.bcast(clock.monotonic() - saved >= case.output.checkpoint)
            if interrupted or due:
                on_rank_zero(comm, lambda: session.save(run.folder))  # type: ignore[union-attr]
                saved = clock.monotonic()
            if interrupted:
                raise Interrupted(f"interrupted at t = {t:.6g}; continue with --restart")
            if stop:
                break
    with run.phase("pictures"):
        for note in on_rank_zero(comm, _finish, case, run.folder, session):
            run.note(note)
    return on_rank_zero(comm, _metrics, case, session)


def _finish(case: Case, folder: Path, session: _Session) -> list[str]:
    """The last tokens as a table, and the pictures; returns what was left out."""
    from fem_apps.output.files import write_whole

    lines = [",".join(f"x{i}" for i in range(session.d)) + ",cluster"]
    group = session.group[session.cloud.member]
    for row, g in zip(session.cloud.tokens, group, strict=True):
        lines.append(",".join(repr(float(v)) for v in row) + f",{g}")
    write_whole(folder / "tokens.csv", ("\n".join(lines) + "\n").encode())
    if not case.output.pictures:
        return []
    from fem_apps.attention.token_pictures import draw

    return draw(folder, case, session.times, session.frames, session.merges)


def _metrics(case: Case, session: _Session) -> dict[str, object]:
    c = session.cloud
    row = session.row()
    sizes = np.bincount(session.group[c.member])
    lost = [t for t, before, after in session.merges for _ in range(before - after)]
    return {
        "merge_times": lost,
        "clusters": session.clusters,
        "cluster_sizes": sorted((int(s) for s in sizes), reverse=True),
        "energy_decrease": session.decrease if session.matrix is not None else None,
        "energy": row.get("energy"),
        "order_parameter": row["order_parameter"],
        "final_time": c.t,
        "blow_up_time": session.blow_up,
        "tokens": len(c.member),
        "distinct": len(np.unique(c.leader)),
    }
