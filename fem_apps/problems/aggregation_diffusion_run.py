"""A case of kind aggregation-diffusion as a run: history, fields, checkpoints, metrics."""

from __future__ import annotations

import logging
import time as clock
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from dolfinx import fem

from fem_apps import meshing
from fem_apps.errors import Interrupted
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.time_stepping import Step, march, output_times
from fem_apps.mpi import extremes, on_rank_zero
from fem_apps.output import checkpoint
from fem_apps.output.fields import FieldWriter
from fem_apps.output.folder import Run
from fem_apps.output.frames import FrameRecorder
from fem_apps.output.history import History
from fem_apps.problems.aggregation_diffusion import Case, Problem, Setting, first_step, set_up
from fem_apps.problems.edge_scheme import State
from fem_apps.problems.free_energy import cluster_counter, moments

log = logging.getLogger(__name__)

# a peak is not resolved where a node is this much denser than its neighbours (a Gaussian of
# standard deviation 1.5 h), has this share of the mass, and this many times the initial maximum
SPIKE, SHARE, GROWTH = 1.25, 0.01, 4.0


@dataclass
class Record:
    """What a run accumulates over its steps; part of the checkpoint."""

    mass: float
    energy: float
    first_max: float
    mass_drift: float = 0.0
    min_density: float = np.inf
    max_density: float = 0.0
    energy_increase: float = 0.0
    newton_iterations: int = 0
    rejected: int = 0
    first_order_steps: int = 0


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Set up, march, write; returns the metrics. Collective.

    Raises:
        CaseError, SolveError: see `set_up` and `march`.
        Interrupted: SIGTERM or SIGINT came; the checkpoint holds the last step.
    """
    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
    with run.phase("set-up"):
        problem = Problem(case.diffusion, case.interaction, case.potential, case.source)
        s = set_up(
            data,
            problem,
            case.initial,
            scheme=case.scheme,
            tolerance=case.time.tolerance,
            seed=case.seed,
            find=case.file,
        )
        log.info(
            "%d nodes on %d rank(s), spacing %.3g", s.graph.size, run.comm.size, s.graph.spacing
        )
        if s.convolution is not None:
            log.info("W * rho: %s; %s", s.convolution.route, s.convolution.sign)
        if s.graph.obtuse > 0:
            run.note(
                f"{100 * s.graph.obtuse:.2g} % of the edge weights are negative (obtuse angles); "
                "where they would raise the energy they are dropped for the step"
            )
        diagnose = Diagnostics(s.graph, case)
    with run.phase("time stepping"):
        return _march(case, run, s, diagnose)


def _march(case: Case, run: Run, s: Setting, diagnose: Diagnostics) -> dict[str, object]:
    u = fem.Function(s.graph.V, name="rho")
    state, number, dt, record = _begin(case, run, s, u)
    outputs = output_times(0.0, case.time.end, case.output.frames, case.output.spacing)
    append = number > 0
    with (
        History(run.comm, run.folder / "history.csv", append=append, last_step=number) as history,
        _fields(case, run, [u]) as fields,
    ):
        s.graph.to_function(state.rho, u)
        frames = None
        if case.output.pictures:
            frames = FrameRecorder(
                run.folder, u, label="density", resume_until=state.t if append else None
            )

        def show(step: Step[State]) -> None:
            s.graph.to_function(step.state.rho, u)
            if fields is not None:
                fields.write(step.state.t)
            if frames is not None:
                frames.add(step.state.t)

        step = Step(number, state, 0.0, dt, 0, 0, True)
        row = diagnose(step, record)
        if not append:
            history.write(row)
            show(step)
        saved, stopped = clock.monotonic(), None
        for step in march(
            state, s.solver.attempt, case.time, dt=dt, outputs=outputs, number=number
        ):
            row = diagnose(step, record)
            history.write(row)
            stopped = _reason_to_stop(case, s, step.state, record, diagnose)
            if step.at_output or stopped:
                show(step)
            run.progress.update(
                step.state.t / case.time.end,
                f"t = {step.state.t:.4g}, E = {row['free_energy']:.6g}, dt = {step.dt:.2g}",
            )
            interrupted = run.asked_to_stop()
            due = run.comm.bcast(clock.monotonic() - saved >= case.output.checkpoint)
            if interrupted or due:
                _save(run, s, step, record)
                saved = clock.monotonic()
                if frames is not None:
                    s.graph.to_function(step.state.rho, u)
                    frames.save(step.state.t)
            if interrupted:
                raise Interrupted(f"interrupted at t = {step.state.t:.6g}; continue with --restart")
            if stopped:
                run.note(stopped)
                break
        if frames is not None:
            frames.save(step.state.t)
    with run.phase("pictures"):
        if case.output.pictures:
            from fem_apps.output.pictures import draw

            for note in on_rank_zero(run.comm, draw, run.folder):
                run.note(note)
    return _metrics(record, row, step, stopped)


def _begin(case: Case, run: Run, s: Setting, u: fem.Function) -> tuple[State, int, float, Record]:
    if not run.restart:
        state = s.solver.start(0.0, s.rho0)
        mass = s.graph.integral(s.rho0)
        top = extremes(s.graph.comm, s.rho0)[1]
        record = Record(mass, state.energy.total, top)
        return state, 0, first_step(s.solver, state, case.time), record
    functions = {name: fem.Function(s.graph.V) for name in ("rho", "past_0", "past_1")}
    saved = checkpoint.load(run.folder / "checkpoint", functions)
    fields = [s.graph.from_function(functions[n]) for n in ("rho", "past_0", "past_1")]
    state = s.solver.start(saved["t"], fields[0])
    past = [s.solver.start(t, r) for t, r in zip(saved["past"], fields[1:], strict=False)]
    state = replace(state, past=tuple((p.t, p.rho, p.w) for p in past))
    return state, saved["step"], saved["dt"], Record(**saved["record"])


def _save(run: Run, s: Setting, step: Step[State], record: Record) -> None:
    functions = {name: fem.Function(s.graph.V) for name in ("rho", "past_0", "past_1")}
    densities = [step.state.rho, *(rho for _, rho, _ in step.state.past)]
    for f, rho in zip(functions.values(), densities, strict=False):
        s.graph.to_function(rho, f)
    state = {
        "t": step.state.t,
        "step": step.number,
        "dt": step.dt_next,
        "past": [t for t, _, _ in step.state.past],
        "record": asdict(record),
    }
    checkpoint.save(run.folder / "checkpoint", functions, state)


class _fields:
    """The field writer as a context, or None where the case wants no fields."""

    def __init__(self, case: Case, run: Run, functions: list[fem.Function]) -> None:
        self._run = run
        self._writer = FieldWriter(run.comm, run.folder, functions) if case.output.fields else None

    def __enter__(self) -> FieldWriter | None:
        return self._writer

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
            for note in self._writer.notes:
                log.info(note)


class Diagnostics:
    """The line of the history that belongs to a step."""

    def __init__(self, graph: NodeGraph, case: Case) -> None:
        self.graph = graph
        self._clusters = cluster_counter(graph)
        self._threshold = case.output.cluster_threshold
        self._closed = graph.V.mesh.topology.dim < graph.x.shape[1]
        rows = np.repeat(np.arange(graph.n), np.diff(graph.indptr))
        self._rows, self._degree = rows, np.maximum(np.diff(graph.indptr), 1)

    def __call__(self, step: Step[State], record: Record) -> dict[str, Any]:
        """The line; updates the record. Collective."""
        g, state = self.graph, step.state
        mass, centre, second = moments(g, state.rho)
        low, high = extremes(g.comm, state.rho)
        e = state.energy
        record.mass_drift = max(record.mass_drift, abs(mass - record.mass) / record.mass)
        record.min_density = min(record.min_density, low)
        record.max_density = max(record.max_density, high)
        if step.number:
            record.energy_increase = max(
                record.energy_increase, (e.total - record.energy) / max(e.magnitude, 1e-300)
            )
            # a continued run shows the state of its checkpoint again, as a step of length 0
            record.first_order_steps += state.order == 1 and step.dt > 0
        record.energy = e.total
        record.newton_iterations += step.iterations
        record.rejected += step.rejected
        row = {
            "step": step.number,
            "time": state.t,
            "dt": step.dt,
            "mass": mass,
            "min": low,
            "max": high,
            "free_energy": e.total,
            "internal_energy": e.internal,
            "external_energy": e.external,
            "interaction_energy": e.interaction,
            "dissipation": state.dissipation,
            **{f"centre_{'xyz'[k]}": float(c) for k, c in enumerate(centre)},
            "second_moment": second,
            "clusters": self._clusters(state.rho, self._threshold),
            "order": state.order,
            "iterations": step.iterations,
            "rejected": step.rejected,
        }
        if self._closed:
            row["order_parameter"] = float(np.linalg.norm(centre))
        elif g.lattice:
            row["order_parameter"] = self._fourier(state.rho) / mass
        return row

    def unresolved(self, state: State, first_max: float) -> bool:
        """Whether some node is much denser than its neighbours: a peak that is not resolved."""
        g = self.graph
        neighbours = (
            np.bincount(self._rows, g.with_ghosts(state.rho)[g.cols], minlength=g.n) / self._degree
        )
        total = g.integral(state.rho)
        spikes = (
            (state.rho > SPIKE * neighbours)
            & (g.mass * state.rho > SHARE * total)
            & (state.rho > GROWTH * first_max)
        )
        return bool(g.comm.allreduce(int(spikes.sum())))

    def _fourier(self, rho: np.ndarray) -> float:
        """|int exp(2 pi i f_1) rho|, f_1 the first lattice coordinate."""
        f = self.graph.x @ np.linalg.pinv(np.array(self.graph.lattice))
        wave = np.exp(2j * np.pi * f[:, 0])
        return float(abs(self.graph.comm.allreduce(complex(self.graph.mass @ (rho * wave)))))


def _reason_to_stop(
    case: Case, s: Setting, state: State, record: Record, diagnose: Diagnostics
) -> str | None:
    watched = case.stop_when_unresolved and case.interaction
    if watched and diagnose.unresolved(state, record.first_max):
        return f"blow-up: from t = {state.t:.6g} on the mesh does not resolve the density"
    if case.time.steady and s.solver.rate(state) < case.time.steady:
        return f"steady at t = {state.t:.6g}"
    return None


def _metrics(
    record: Record, row: dict[str, Any], step: Step[State], stopped: str | None
) -> dict[str, object]:
    last = {
        k: v
        for k, v in row.items()
        if k not in ("step", "dt", "mass", "min", "max", "order", "iterations", "rejected")
    }
    return {
        **{k: v for k, v in asdict(record).items() if k not in ("mass", "energy", "first_max")},
        **last,
        "final_min": row["min"],
        "final_max": row["max"],
        "steps": step.number,
        "blow_up_time": step.state.t if stopped and stopped.startswith("blow-up") else None,
    }
