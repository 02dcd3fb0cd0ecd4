"""A case of kind continuity as a run: history, fields, checkpoints, metrics."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from dolfinx import fem

from fem_apps import meshing
from fem_apps.errors import Interrupted
from fem_apps.fem.expressions import parse
from fem_apps.fem.time_stepping import output_times
from fem_apps.mpi import on_rank_zero
from fem_apps.output import checkpoint
from fem_apps.output.fields import FieldWriter
from fem_apps.output.folder import Run
from fem_apps.output.frames import FrameRecorder
from fem_apps.output.history import History
from fem_apps.problems.continuity import (
    Case,
    Problem,
    Solver,
    Step,
    advance,
    set_up,
    start,
)
from fem_apps.problems.continuity_quadrature import may_jump
from fem_apps.problems.continuity_velocity import velocity_of_case
from fem_apps.problems.initial_density import FromExpression

log = logging.getLogger(__name__)


@dataclass
class Record:
    """What a run accumulates over its steps; part of the checkpoint."""

    mass: float
    min_density: float
    max_density: float
    mass_drift: float = 0.0
    outflow: float = 0.0
    mass_defect: float = 0.0

    def see(self, step: Step) -> None:
        """Take a step in."""
        self.min_density = min(self.min_density, step.low)
        self.max_density = max(self.max_density, step.high)
        self.outflow += step.outflow
        self.mass_drift = (step.mass - self.mass) / self.mass
        self.mass_defect = max(
            self.mass_defect, abs(step.mass + self.outflow - self.mass) / self.mass
        )


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Set up, march, write; returns the metrics. Collective.

    Raises:
        CaseError, SolveError: see `set_up`, `start` and `advance`.
        Interrupted: SIGTERM or SIGINT came; the checkpoint holds the last step.
    """
    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
    with run.phase("set-up"):
        gdim = data.mesh.geometry.dim
        velocity = velocity_of_case(run.comm, case.velocity, gdim, case.file)
        solver = set_up(data, Problem(velocity, case.boundary), case.scheme)
        dofs = solver.V.dofmap.index_map
        log.info("%d degrees of freedom on %d rank(s)", dofs.size_global, run.comm.size)
        rho = fem.Function(solver.V, name="rho")
        rho0 = start(solver, data, case.initial, case.seed, case.file)
        exact = _exact(case)
    with run.phase("time stepping"):
        low, high = solver.extremes(rho0)
        step = Step(0, 0.0, rho0, 0.0, solver.mass(rho0), low, high, 0.0, True, solver)
        record = Record(step.mass, low, high)
        if run.restart:
            step, record = _continued(run, solver, rho)
        step = _march(case, run, solver, velocity, rho, step, record)
    metrics: dict[str, object] = asdict(record)
    metrics |= {"final_min": step.low, "final_max": step.high, "final_mass": step.mass}
    with run.phase("errors"):
        l1 = l2 = None
        if exact is not None:
            f, jumps = exact
            l1, l2 = solver.errors(step.rho, f, jumps)
            metrics["start_l1_error"] = None
            if case.exact == "initial":
                metrics["start_l1_error"] = solver.errors(rho0, f, jumps)[0]
    metrics |= {"l1_error": l1, "l2_error": l2, "steps": step.number, "time": step.t}
    metrics["dofs"] = dofs.size_global
    with run.phase("pictures"):
        if case.output.pictures:
            from fem_apps.output.pictures import draw

            for note in on_rank_zero(run.comm, draw, run.folder):
                run.note(note)
    return metrics


def _exact(case: Case) -> tuple[Callable[[np.ndarray], np.ndarray], bool] | None:
    if case.exact is None:
        return None
    text, t = case.exact, case.time.end
    if text == "initial":
        from fem_apps.errors import CaseError

        if not isinstance(case.initial, FromExpression) or case.initial.normalise:
            raise CaseError(
                "exact = 'initial' needs initial.type = 'expression' with initial.normalise = false"
            )
        text, t = case.initial.expression, 0.0
    e = parse(text)
    return (lambda x: e.numpy(x, t)), may_jump(e)


def _march(
    case: Case,
    run: Run,
    solver: Solver,
    velocity: Any,
    rho: fem.Function,
    step: Step,
    record: Record,
) -> Step:
    append = step.number > 0
    outputs = output_times(0.0, case.time.end, case.output.frames)
    solver.to_function(step.rho, rho)
    with ExitStack() as stack:
        history = stack.enter_context(
            History(run.comm, run.folder / "history.csv", append=append, last_step=step.number)
        )
        fields = frames = None
        if case.output.fields:
            fields = stack.enter_context(FieldWriter(run.comm, run.folder, [rho]))
        if case.output.pictures:
            resume = step.t if append else None
            frames = FrameRecorder(run.folder, rho, label="density", resume_until=resume)

        def show(step: Step) -> None:
            solver.to_function(step.rho, rho)
            if fields is not None:
                fields.write(step.t)
            if frames is not None:
                frames.add(step.t)

        if not append:
            history.write(_row(step, record))
            show(step)
        saved = clock.monotonic()
        begin = step
        for step in advance(
            solver,
            run.comm,
            begin.rho,
            velocity,
            case.time,
            t=begin.t,
            number=begin.number,
            outputs=outputs,
        ):
            record.see(step)
            history.write(_row(step, record))
            if step.at_output:
                show(step)
            run.progress.update(step.t / case.time.end, f"t = {step.t:.4g}, dt = {step.dt:.2g}")
            interrupted = run.asked_to_stop()
            if interrupted or run.comm.bcast(clock.monotonic() - saved >= case.output.checkpoint):
                solver.to_function(step.rho, rho)
                state = {"t": step.t, "step": step.number, "record": asdict(record)}
                checkpoint.save(run.folder / "checkpoint", {"rho": rho}, state)
                saved = clock.monotonic()
                if frames is not None:
                    frames.save(step.t)
            if interrupted:
                raise Interrupted(f"interrupted at t = {step.t:.6g}; continue with --restart")
        if frames is not None:
            solver.to_function(step.rho, rho)
            frames.save(step.t)
    return step


def _continued(run: Run, solver: Solver, rho: fem.Function) -> tuple[Step, Record]:
    saved = checkpoint.load(run.folder / "checkpoint", {"rho": rho})
    u = solver.from_function(rho)
    low, high = solver.extremes(u)
    step = Step(saved["step"], saved["t"], u, 0.0, solver.mass(u), low, high, 0.0, True, solver)
    return step, Record(**saved["record"])


def _row(step: Step, record: Record) -> dict[str, Any]:
    return {
        "step": step.number,
        "time": step.t,
        "dt": step.dt,
        "mass": step.mass,
        "min": step.low,
        "max": step.high,
        "outflow": record.outflow,
        "mass_defect": record.mass_defect,
    }
