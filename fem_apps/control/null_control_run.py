"""A case of kind null-control as a run: conjugate gradients, closed loop, set, metrics."""

from __future__ import annotations

import logging
import time as clock
from typing import Any

import numpy as np
from dolfinx import fem
from mpi4py import MPI

from fem_apps import meshing
from fem_apps.control import null_control_pictures as pictures
from fem_apps.control.null_control import Case, coarse_mesh, split_of, system_of
from fem_apps.control.null_control_cg import Iterate, conjugate_gradients, lanczos
from fem_apps.control.null_control_gramian import (
    Gramian,
    Modes,
    Space,
    energy,
    modes_below,
    spectral,
    two_grid,
    whole_space,
)
from fem_apps.control.null_control_modal import preconditioner
from fem_apps.control.null_control_set import ControlSet, control_set, on_times, require_small
from fem_apps.errors import Interrupted
from fem_apps.fem.split import Split
from fem_apps.mpi import on_rank_zero
from fem_apps.output import checkpoint
from fem_apps.output.fields import FieldWriter
from fem_apps.output.files import npz, write_whole
from fem_apps.output.folder import Run
from fem_apps.output.frames import FrameRecorder
from fem_apps.output.history import History
from fem_apps.problems.heat import Heat
from fem_apps.problems.wave import Wave

log = logging.getLogger(__name__)

ROWS = 400  # of the history
HARDLY = 1e-2  # observability below this times the largest eigenvalue is told


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Set up, find the control, apply it, write; returns the metrics. Collective.

    On a line, rank 0 does it alone: there is so little to do in a step that the ranks would spend
    the time on messages.

    Raises:
        CaseError: data that do not fit the mesh; T below the waves' time; CFL violated.
        SolveError: a linear solve failed.
        Interrupted: SIGTERM or SIGINT came; the checkpoint holds the last iteration.
    """
    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
    if data.mesh.topology.dim > 1 or run.comm.size == 1:
        return _run(case, run, data)
    everyone = run.comm

    def alone() -> dict[str, object]:
        run.comm = MPI.COMM_SELF
        try:
            return _run(case, run, meshing.build(run.comm, case.mesh, case.folder))
        finally:
            run.comm = everyone

    return on_rank_zero(everyone, alone)


def _run(case: Case, run: Run, data: meshing.MeshData) -> dict[str, object]:
    with run.phase("set-up"):
        s = split_of(case, data)
        system = system_of(case, s)
        n, c = s.size()
        log.info(
            "%d free and %d control dofs on %d rank(s), h = %.3g, %d steps of %.3g",
            n, c, run.comm.size, s.h, system.steps, system.dt,
        )  # fmt: skip
        gramian = Gramian(system, _epsilon(case, s), case.control.weight)
        if case.set is not None:
            require_small(gramian, case.set.control_step)
        space = _space(case, system)
        before, free = _states(case, system)
        # a wave is sought backwards in time: its adjoint data are those at T
        right = np.stack([free[0], -free[1]]) if isinstance(system, Wave) else -free
    with run.phase("conjugate gradients"):
        found = _solve(case, run, gramian, space, right)
        control = _control(gramian, space, found["iterate"])
    metrics: dict[str, object] = {
        "control_norm": gramian.norm(control),
        "weighted_norm": gramian.weighted_norm(control),
        **_final(system, space, before, free, control),
        "cg_iterations": found["iterate"].number,
        "cg_residual": found["residual"],
        "cg_reason": found["reason"],
        "epsilon": gramian.epsilon,
        "dofs": n,
        "control_dofs": c,
        "steps": system.steps,
        "h": s.h,
    }
    if case.hum.lanczos:
        with run.phase("observability"):
            metrics |= _observability(case, run, gramian, space)
    whole: ControlSet | None = None
    if case.set is not None:
        with run.phase("set"):
            whole, more = _set(case, run, gramian, space, before, free)
            metrics |= more
    with run.phase("closed loop"):
        _apply(case, run, system, before, control)
    with run.phase("pictures"):
        _write(case, run, gramian, control, whole)
    return metrics


def _epsilon(case: Case, s: Split) -> float:
    if case.hum.epsilon is not None:
        return case.hum.epsilon
    return s.h**case.hum.epsilon_power if case.equation == "heat" else 0.0


def _space(case: Case, system: Heat | Wave) -> Space:
    if isinstance(system, Heat) or case.hum.filter == "none":
        return whole_space(system)
    if case.hum.filter == "two-grid":
        return two_grid(system, split_of(case, coarse_mesh(case, system.s.comm)))
    modes = modes_below(system.s, case.hum.gamma / system.s.h**2)
    log.info("spectral filter: %d modes", len(modes.values))
    return spectral(system, modes)


def _states(case: Case, system: Heat | Wave) -> tuple[np.ndarray, np.ndarray]:
    """Functionals of the initial state, and of the final state without control."""
    y0 = system.s.functional(case.initial.y0)
    if isinstance(system, Heat):
        return y0, system.final(y0, None)
    q = system.start(np.stack([system.s.functional(case.initial.y1), -y0]))
    return q, system.final(q, None)


def _control(gramian: Gramian, space: Space, iterate: Iterate) -> np.ndarray:
    v = gramian.control(space.prolong(iterate.x))
    return v[::-1] if isinstance(gramian.system, Wave) else v


def _solve(
    case: Case, run: Run, gramian: Gramian, space: Space, right: np.ndarray
) -> dict[str, Any]:
    """Conjugate gradients with their history, checkpoints and the reason why they stopped."""
    riesz = space.riesz
    if case.hum.modes and gramian.epsilon > 0:
        riesz = preconditioner(gramian, Modes(gramian.s, case.hum.modes))
    b = space.restrict(right)
    size = np.sqrt(max(space.dot(b, space.riesz(b)), 0.0))
    start = _load(run, gramian.s, space, b) if run.restart else None
    number = start.number if start else 0
    reason, saved = "nothing to control", clock.monotonic()

    def apply(e: np.ndarray) -> np.ndarray:
        return space.restrict(gramian(space.prolong(e)))

    with History(
        run.comm, run.folder / "convergence.csv", append=number > 0, last_step=number
    ) as rows:
        state = Iterate(0, np.zeros_like(b), b, b, 0.0)
        residual = 0.0
        for state in conjugate_gradients(apply, riesz, space.dot, b, start):
            # measured in the norm of the final state, whatever preconditions
            residual = np.sqrt(max(space.dot(state.r, space.riesz(state.r)), 0.0)) / (size or 1.0)
            if state.number > number or start is None:
                rows.write({"step": state.number, "residual": residual})
            run.progress.update(
                float(np.clip(np.log(residual or 1e-300) / np.log(case.hum.tolerance), 0, 1)) + 0.0,
                f"iteration {state.number}: residual {residual:.2e}",
            )
            if residual <= case.hum.tolerance:
                reason = "converged"
                break
            if state.number >= case.hum.max_iterations:
                reason = "max_iterations"
                break
            reason = "breakdown"  # unless another iterate follows
            interrupted = run.asked_to_stop()
            due = run.comm.bcast(clock.monotonic() - saved >= case.output.checkpoint)
            if interrupted or due:
                _save(run, gramian.s, space, state)
                saved = clock.monotonic()
            if interrupted:
                raise Interrupted(
                    f"interrupted after {state.number} iterations; continue with --restart"
                )
    if reason in ("max_iterations", "breakdown"):
        run.note(
            f"conjugate gradients stopped after {state.number} iterations at a residual of "
            f"{residual:.2e} ({reason}): the control is not the one wanted. The observability "
            "constant says whether there is one: a filter, a later T, a larger control region"
        )
    return {"iterate": state, "residual": residual, "reason": reason}


def _save(run: Run, s: Split, space: Space, state: Iterate) -> None:
    """Iterates are functions of the space's mesh, or coefficients."""
    functions: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for name in ("x", "r", "d"):
        for k, part in enumerate(np.atleast_2d(getattr(state, name))):
            if space.split is None:
                more[f"{name}{k}"] = part
            else:
                u = functions[f"{name}{k}"] = fem.Function(space.split.V)
                space.split.to_function(part, None, u)
    functions = functions or {"none": fem.Function(s.V)}
    more |= {"number": state.number, "rz": state.rz}
    checkpoint.save(run.folder / "checkpoint", functions, more)


def _load(run: Run, s: Split, space: Space, like: np.ndarray) -> Iterate:
    shape = np.atleast_2d(like).shape
    names = [f"{n}{k}" for n in ("x", "r", "d") for k in range(shape[0])]
    functions: dict[str, Any] = {}
    if space.split is not None:
        functions = {name: fem.Function(space.split.V) for name in names}
    more = checkpoint.load(run.folder / "checkpoint", functions or {"none": fem.Function(s.V)})

    def read(name: str) -> np.ndarray:
        parts = [
            functions[f"{name}{k}"].x.array[space.split.free]
            if space.split is not None
            else more[f"{name}{k}"]
            for k in range(shape[0])
        ]
        return np.stack(parts).reshape(like.shape)

    return Iterate(more["number"], read("x"), read("r"), read("d"), more["rz"])


def _final(
    system: Heat | Wave, space: Space, before: np.ndarray, free: np.ndarray, control: np.ndarray
) -> dict[str, object]:
    """The final state in closed loop, relative to the one without control."""
    after = system.final(before, control)
    whole = energy(system)
    size = whole.size(after)
    return {
        "final_state": size / (whole.size(free) or 1.0),
        "final_state_filtered": space.size(after) / (space.size(free) or 1.0),
        "final_norm": size,
        "free_final_norm": whole.size(free),
        "initial_norm": whole.size(before),
    }


def _observability(case: Case, run: Run, gramian: Gramian, space: Space) -> dict[str, object]:
    bare = Gramian(gramian.system, 0.0, case.control.weight)
    x = gramian.s.x
    # rough, and the same on any number of ranks
    rough = np.sin(1e4 * (x @ np.sqrt(np.arange(2.0, x.shape[1] + 2)) + 0.1 + case.seed))
    shape = (2, 1) if isinstance(gramian.system, Wave) else (1,)
    start = space.restrict(np.tile(gramian.s.M(rough), shape))
    found = lanczos(
        lambda e: space.restrict(bare(space.prolong(e))),
        space.riesz,
        space.dot,
        start,
        case.hum.lanczos,
    )
    if isinstance(gramian.system, Wave) and found.low < HARDLY * found.high:
        run.note(
            f"the observability constant is {found.low:.2g}, {found.low / found.high:.1g} of the "
            "largest eigenvalue: there are waves that the control region hardly sees by time.end, "
            "and controls of them are large; a later T, a larger region, or a filter"
        )
    return {
        "observability": found.low,
        "gramian_norm": found.high,
        "lanczos_steps": found.steps,
        "observability_residual": found.residual,
    }


def _set(
    case: Case, run: Run, gramian: Gramian, space: Space, before: np.ndarray, free: np.ndarray
) -> tuple[ControlSet, dict[str, object]]:
    assert case.set is not None
    step = case.set.control_step
    plain = Gramian(gramian.system)
    found = control_set(plain, space, free, step, case.set.tolerance)
    out: dict[str, object] = {"set_dimension": found.dimension, "set_gap": found.gap}
    for name in ("l2", "l1", "linf", "smooth"):
        v = found.selector(name)
        out[f"{name}_norm"] = found.norm(v)
        out[f"{name}_int_abs"], out[f"{name}_max"] = found.norm(v, "L1"), found.norm(v, "max")
    if case.set.bound is not None:
        out["bounded_norm"] = found.norm(found.selector("bounded", bound=case.set.bound))
    after = gramian.system.final(before, on_times(gramian, found.selector("linf"), step))
    out["linf_final_state"] = space.size(after) / (space.size(free) or 1.0)
    return found, out


def _apply(
    case: Case, run: Run, system: Heat | Wave, before: np.ndarray, control: np.ndarray
) -> None:
    """Run the equation under the control, writing fields, frames and history."""
    s, N = system.s, system.steps
    u = fem.Function(s.V, name="y")
    shown = set(np.unique(np.linspace(0, N, min(case.output.frames, N + 1)).astype(int)))
    rows = set(np.unique(np.linspace(0, N, min(ROWS, N + 1)).astype(int)))
    fields = FieldWriter(run.comm, run.folder, [u]) if case.output.fields else None
    frames = FrameRecorder(run.folder, u, label="y") if case.output.pictures else None
    shift = 0 if isinstance(system, Wave) else 1
    with History(run.comm, run.folder / "history.csv") as history:
        for n, w in system.march(before, control):
            v = control[n - shift] if n >= shift else None
            if n in rows or n in shown:
                y = system.values(w, v)
                zero = np.zeros(len(s.control)) if v is None else v
                row = {
                    "step": n,
                    "time": n * system.dt,
                    "state_norm": np.sqrt(max(s.dot(y, s.M(y)), 0.0)),
                    "control_norm": np.sqrt(max(s.dot(zero, s.N(zero)), 0.0)),
                }
                if n in rows:
                    history.write(row)
            if n in shown:
                s.to_function(y, v, u)
                if fields is not None:
                    fields.write(n * system.dt)
                if frames is not None:
                    frames.add(n * system.dt)
    if fields is not None:
        fields.close()
    if frames is not None:
        frames.save(N * system.dt)


def _write(
    case: Case, run: Run, gramian: Gramian, control: np.ndarray, whole: ControlSet | None
) -> None:
    """`control.npz` with the control, and the pictures."""
    s, system = gramian.s, gramian.system
    x, v = s.comm.gather(s.x_control), s.comm.gather(control)

    def write() -> None:
        points, values = np.concatenate(x), np.concatenate(v, axis=1)
        order = np.lexsort(points.T[::-1])
        content = {"t": system.times, "x": points[order], "v": values[:, order]}
        if whole is not None:
            content |= {"set_edges": whole.edges, "set_least": whole.least}
            content |= {"set_basis": whole.basis, "set_singular": whole.singular}
        write_whole(run.folder / "control.npz", npz(content))
        if case.output.pictures:
            picture = pictures.control(run.folder, case.title or case.name, whole)
            write_whole(run.folder / "control.png", picture)

    on_rank_zero(run.comm, write)
    if case.output.pictures:
        from fem_apps.output.pictures import draw

        for note in on_rank_zero(run.comm, draw, run.folder):
            run.note(note)
