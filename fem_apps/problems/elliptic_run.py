"""A case of kind parametric-elliptic as a run: offline, test on unseen parameters, online."""

from __future__ import annotations

import json
import logging
import time as clock
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps import meshing
from fem_apps.errors import CaseError, Interrupted
from fem_apps.mpi import on_rank_zero, total
from fem_apps.output import checkpoint
from fem_apps.output.fields import FieldWriter
from fem_apps.output.files import write_whole
from fem_apps.output.folder import Run
from fem_apps.output.frames import FrameRecorder
from fem_apps.output.history import History
from fem_apps.problems.elliptic import Discretisation, discretise
from fem_apps.problems.elliptic_case import (
    INTERPOLATION,
    SNAPSHOTS,
    SWEEP,
    TEST,
    TRAINING,
    Case,
    sample,
)
from fem_apps.problems.elliptic_exact import ExactOffline
from fem_apps.problems.elliptic_interpolated import Exact, interpolate_diffusion
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.surrogates.reduced_basis import Offline, Step, pod, weak_greedy
from fem_apps.surrogates.reduced_basis_online import ReducedModel, save

log = logging.getLogger(__name__)

# errors this near to the solver's are not compared with bounds
SOLVED = 1e-10


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Build, certify, evaluate, write; returns the metrics. Collective.

    Raises:
        CaseError, SolveError: see the modules of each step.
        Interrupted: SIGTERM or SIGINT came; the checkpoint holds the chosen parameters.
    """
    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
    with run.phase("set-up"):
        D, exact = set_up(case, data)
        model = EllipticModel(D, case.reduced.product, exact)
        log.info(
            "%d degrees of freedom on %d rank(s), %d terms of a, X: %s",
            D.space.size, run.comm.size, D.fields.shape[1], model.product,
        )  # fmt: skip
    with run.phase("offline"):
        offline, bound = build_basis(case, run, model)
        reduced = offline.reduced()
    if run.comm.rank == 0 and isinstance(reduced, ReducedModel):
        save(reduced, run.folder / "reduced.npz", model.functions())
    store_basis(run.folder / "basis", D, offline.basis.vectors)
    with run.phase("test"):
        tests = sample(case, case.reduced.test, [case.seed, TEST])
        table = certify(run, model, offline, reduced, tests)
    trained: dict[str, Any] = {}
    if case.trained is not None:
        from fem_apps.problems.elliptic_trained import train_and_test

        with run.phase("training"):
            trained |= train_and_test(case, run, model, offline, tests)
    if case.sweep is not None:
        with run.phase("sweep"):
            trained |= sweep_both(case, run, D, offline, reduced)
    with run.phase("online"):
        answers = evaluate(case, run, reduced)
    with run.phase("pictures"):
        write_fields(case, run, model, offline, reduced, tests)
        draw_pictures(case, run, table)
    steps = (exact.operator.iterations if exact else D.solver.iterations) or [0]
    return {
        "basis_size": offline.size,
        "estimator_max": bound,
        **{k: v for k, v in table[-1].items() if k != "size"},
        "dofs": D.space.size,
        "cg_iterations_max": max(steps),
        "terms": D.fields.shape[1],
        "interpolation_error": float(exact.errors[-1]) if exact and len(exact.errors) else None,
        **trained,
        **answers,
    }


def set_up(case: Case, data: meshing.MeshData) -> tuple[Discretisation, Exact | None]:
    """The discretisation, and the exact operator where a is not affine. Collective."""
    if case.diffusion.affine:
        return discretise(data, case, case.degree, rtol=case.rtol), None
    r = case.reduced
    exact = interpolate_diffusion(
        data,
        case,
        case.degree,
        sample(case, r.interpolation_samples, [case.seed, INTERPOLATION]),
        size=r.interpolation,
        tolerance=r.interpolation_tolerance,
    )
    return exact.D, exact


def build_basis(case: Case, run: Run, model: EllipticModel) -> tuple[Offline, float]:
    """The basis, by greedy or POD, and the largest bound over the training set. Collective."""
    exact = model.exact is not None and model.exact.interpolation is None
    offline, r = ExactOffline(model) if exact else Offline(model), case.reduced
    training = sample(case, r.training, [case.seed, TRAINING])
    refuse_uncertified(model, training)
    with History(run.comm, run.folder / "history.csv") as history:

        def record(step: Step) -> None:
            history.write({"step": step.size, "largest_bound": step.largest})
            run.progress.update(
                step.size / r.size, f"N = {step.size}, largest bound {step.largest:.3g}"
            )

        if r.method == "pod":
            mus = sample(case, r.snapshots, [case.seed, SNAPSHOTS])
            snapshots = []
            for k, mu in enumerate(mus):
                snapshots.append(model.solve(mu))
                run.progress.update((k + 1) / len(mus), f"snapshot {k + 1}")
                if run.asked_to_stop():
                    _keep(run, [])
                    raise Interrupted("interrupted while taking snapshots; begin with --restart")
            modes, sigma = pod(model, np.array(snapshots), r.size, r.tolerance)
            log.info("POD: sigma_N / sigma_1 = %.3g", sigma[len(modes) - 1] / sigma[0])
            for phi in modes:
                offline.extend(phi)
                values = offline.reduced().error_bound(training, relative=r.relative)
                record(Step(offline.size, float(values.max()), int(values.argmax()), training[0]))
            return offline, float(values.max())
        earlier = [Step(**{**s, "mu": np.array(s["mu"])}) for s in _kept(run)]
        done = list(earlier)
        for s in earlier:
            record(s)

        def after(step: Step) -> None:
            done.append(step)
            record(step)
            _keep(run, done)
            if run.asked_to_stop():
                raise Interrupted(f"interrupted at N = {len(done)}; continue with --restart")

        steps = weak_greedy(
            offline, training, r.size,
            tolerance=r.tolerance, relative=r.relative, steps=earlier, after=after,
        )  # fmt: skip
        record(steps[-1])
    if offline.size == 0:
        raise CaseError("the reduced basis is empty: every bound is below reduced.tolerance")
    return offline, steps[-1].largest


def refuse_uncertified(model: EllipticModel, training: np.ndarray) -> None:
    """Raise CaseError if coercivity cannot be certified at a training parameter."""
    alpha = model.bound(training)
    if not (alpha > 0).all():
        mu = training[int(np.argmin(alpha))]
        at = ", ".join(f"{k} = {v:.4g}" for k, v in zip(model.ranges, mu, strict=True))
        raise CaseError(
            f"the equation is not certified to be coercive at {at}: the diffusion coefficient is "
            f"not positive there, or negative reaction or robin terms outweigh it (lower bound "
            f"{float(alpha.min()):.3g})"
        )


def _keep(run: Run, steps: list[Step]) -> None:
    def write() -> None:
        rows = [{**vars(s), "mu": s.mu.tolist()} for s in steps]
        write_whole(run.folder / "checkpoint" / "greedy.json", json.dumps(rows).encode())

    on_rank_zero(run.comm, write)


def _kept(run: Run) -> list[dict[str, Any]]:
    path = run.folder / "checkpoint" / "greedy.json"
    if not run.restart:
        return []
    return on_rank_zero(run.comm, lambda: json.loads(path.read_text()) if path.is_file() else [])


def store_basis(folder: Path, D: Discretisation, vectors: np.ndarray) -> None:
    """V_N as functions, readable on any number of ranks (`output.checkpoint.load`). Collective."""
    functions = {f"phi_{k}": D.space.function(v) for k, v in enumerate(vectors.T)}
    checkpoint.save(folder, functions, {"size": vectors.shape[1]})


def certify(
    run: Run, model: EllipticModel, offline: Offline, reduced: ReducedModel, tests: np.ndarray
) -> list[dict[str, Any]]:
    """Errors relative to |u|_X and effectivities over the tests, one row for each N. Collective.

    Also written as `convergence.csv`. The error of every N comes from one full solve: its part off
    V_N, and coordinates in V_N, are subtracted before norms are taken.
    """
    N = reduced.size
    sizes = list(range(1, N + 1))
    models = [reduced.of_size(n) for n in sizes]
    c = [m.coefficients(tests) for m in models]
    bounds = np.array([m.error_bound(tests, u) for m, u in zip(models, c, strict=True)])
    Phi, errors, norms = offline.basis.vectors, np.zeros((N, len(tests))), np.zeros(len(tests))
    for k, mu in enumerate(tests):
        u = model.solve(mu, Phi @ c[-1][k])
        p = total(run.comm, Phi.T @ model.inner(u))
        off = model.norm(u - Phi @ p)
        norms[k] = np.hypot(off, np.linalg.norm(p))
        for n in sizes:
            inside = np.append(p[:n] - c[n - 1][k], p[n:])
            errors[n - 1, k] = np.hypot(off, np.linalg.norm(inside))
        run.progress.update((k + 1) / len(tests), f"test {k + 1} of {len(tests)}")
        if run.asked_to_stop():
            raise Interrupted("interrupted while testing; continue with --restart")
    rows = []
    with History(run.comm, run.folder / "convergence.csv") as out:
        for n, e, d in zip(sizes, errors, bounds, strict=True):
            rows.append({"size": n, **summary(e, d, norms)})
            out.write(rows[-1])
    return rows


def summary(errors: np.ndarray, bounds: np.ndarray, norms: np.ndarray) -> dict[str, Any]:
    """Largest and mean relative error and bound, effectivities, and bounds that failed."""
    if not len(errors):
        keys = ("reduced_error_max", "reduced_error_mean", "bound_max", "effectivity_min")
        return dict.fromkeys((*keys, "effectivity_mean", "effectivity_max", "violations"))
    shown = errors > SOLVED * norms
    eff = bounds[shown] / errors[shown] if shown.any() else np.array([np.nan])
    return {
        "reduced_error_max": float((errors / norms).max()),
        "reduced_error_mean": float((errors / norms).mean()),
        "bound_max": float((bounds / norms).max()),
        "effectivity_min": float(eff.min()),
        "effectivity_mean": float(eff.mean()),
        "effectivity_max": float(eff.max()),
        "violations": int((bounds[shown] < errors[shown] * (1 - 1e-9)).sum()),
    }


def sweep_both(
    case: Case, run: Run, D: Discretisation, offline: Offline, reduced: ReducedModel
) -> dict[str, Any]:
    """Quantities at many parameters by full and by reduced solutions, `sweep.csv`. Collective.

    Rates are per second of this rank's processor time, which a shared machine does not change much.
    """
    from fem_apps.problems.elliptic_sweep import sweep
    from fem_apps.surrogates.reduced_basis_batch import BatchSolver

    assert case.sweep is not None
    mus = sample(case, case.sweep.samples, [case.seed, SWEEP])
    online = BatchSolver(reduced)
    online.error_bound(mus[:1])  # compile
    begun = clock.process_time()
    c = online.coefficients(mus)
    by_reduced, bounds = c @ reduced.outputs.T, online.error_bound(mus, c)
    online_time = clock.process_time() - begun
    full = np.empty_like(by_reduced)
    before, begun = len(D.solver.iterations), clock.process_time()
    for done, (k, u) in enumerate(sweep(D, reduced, offline.basis.vectors, mus, case.sweep.rtol)):
        full[k] = total(run.comm, D.quantities @ u)
        run.progress.update((done + 1) / len(mus), f"full solution {done + 1} of {len(mus)}")
        if done % 64 == 0 and run.asked_to_stop():
            raise Interrupted("interrupted while sweeping; continue with --restart")
    full_time = clock.process_time() - begun
    names = [q.name for q in case.quantities]
    with History(run.comm, run.folder / "sweep.csv") as out:
        for mu, q, r, d in zip(mus, full, by_reduced, bounds, strict=True):
            row = dict(zip(reduced.ranges, mu, strict=True))
            row |= {f"{n}_full": v for n, v in zip(names, q, strict=True)}
            row |= {f"{n}_reduced": v for n, v in zip(names, r, strict=True)}
            out.write(row | {"bound": d})
    error = np.abs(by_reduced - full).max(axis=0) / np.abs(full).max(axis=0)
    return {
        "sweep_error_max": float(error.max()),
        "sweep_cg_iterations": sum(D.solver.iterations[before:]) / len(mus),
        "full_solves_per_second": len(mus) / full_time,
        "reduced_solves_per_second": len(mus) / online_time,
    }


def evaluate(case: Case, run: Run, reduced: ReducedModel) -> dict[str, Any]:
    """The `[online]` parameters: `online.csv` with coefficients' norm, bound and quantities."""
    if not case.online.parameters:
        return {}
    model = reduced.of_size(case.online.size or reduced.size)
    mus = model.check(np.array(case.online.parameters), extrapolate=case.online.extrapolate)
    begun = clock.perf_counter()
    c = model.coefficients(mus)
    spent = clock.perf_counter() - begun
    bounds = model.error_bound(mus, c)
    values = c @ model.outputs.T
    names = [q.name for q in case.quantities]
    with History(run.comm, run.folder / "online.csv") as out:
        for mu, u, d, v in zip(mus, c, bounds, values, strict=True):
            row = dict(zip(reduced.ranges, mu, strict=True))
            row |= {"norm": float(np.linalg.norm(u)), "bound": float(d)}
            out.write(row | dict(zip(names, v, strict=True)))
    log.info("%d parameters online in %.3g s", len(mus), spent)
    return {"online_bound_max": float(bounds.max())}


def write_fields(
    case: Case, run: Run, model: EllipticModel, offline: Offline, reduced: ReducedModel, tests: Any
) -> None:
    """Reduced solutions at the first tests with their a, for ParaView; the first for a picture."""
    count = min(case.output.frames, len(tests))
    if not count or not (case.output.fields or case.output.pictures):
        return
    from dolfinx import fem

    D = model.D
    u, a = D.space.function(D.space.lift, "u"), fem.Function(D.space.W, name="a")
    writer = FieldWriter(run.comm, run.folder, [u, a]) if case.output.fields else None
    frames = FrameRecorder(run.folder, u, label="u") if case.output.pictures else None
    c, Q = reduced.coefficients(tests[:count]), D.fields.shape[1]
    for k in range(count):
        u.x.array[: len(D.space.lift)] = D.space.lift + offline.basis.vectors @ c[k]
        of_a = model.exact.field(tests[k]) if model.exact else D.fields @ D.theta(tests[k])[:Q]
        a.x.array[: len(D.fields)] = of_a
        for f in (u, a):
            f.x.scatter_forward()
        if writer is not None:
            writer.write(float(k))
        if frames is not None and k == 0:
            frames.add(0.0)
            frames.save(0.0)
    if writer is not None:
        writer.close()


def draw_pictures(case: Case, run: Run, table: list[dict[str, Any]]) -> None:
    """`convergence.png`, and what every run draws. Collective."""
    if not case.output.pictures:
        return
    from fem_apps.output.pictures import draw
    from fem_apps.problems.elliptic_pictures import convergence

    if table and table[-1]["reduced_error_max"] is not None:
        picture = on_rank_zero(run.comm, lambda: convergence(table) if run.comm.rank == 0 else b"")
        if run.comm.rank == 0:
            write_whole(run.folder / "convergence.png", picture)
    for note in on_rank_zero(run.comm, draw, run.folder):
        run.note(note)
