"""From data to coefficients: forms, noise, gauges, solver, and the band of W'."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_apps.errors import CaseError, Interrupted
from fem_apps.inverse import interaction_kernels_selection as selection
from fem_apps.inverse import interaction_kernels_sparse as sparse
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_data import Snapshots, noise_level, order
from fem_apps.inverse.interaction_kernels_functional import (
    Known,
    Quadratic,
    Setting,
    Window,
    assemble,
)
from fem_apps.inverse.interaction_kernels_kept import Keep, no_keep
from fem_apps.inverse.interaction_kernels_particles import Paths, assemble_paths
from fem_apps.inverse.interaction_kernels_selection import Selected
from fem_apps.inverse.interaction_kernels_sharpen import (
    NOISY,
    Estimate,
    sharpen,
    use_trajectories,
)
from fem_apps.inverse.interaction_kernels_sparse import Fit
from fem_apps.inverse.interaction_kernels_tikhonov import penalty, tikhonov
from fem_apps.inverse.interaction_kernels_tikhonov import solve as regularised
from fem_apps.inverse.interaction_kernels_verify import density_points, pair_distances
from fem_apps.output.folder import Run

log = logging.getLogger(__name__)

# Part of a column's square that other columns may leave before it is a gauge of theirs.
GAUGE = 1e-5
RESAMPLES = 20


def from_densities(
    s: Setting,
    data: Sequence[Snapshots],
    known: Known,
    solver: SolverCase,
    run: Run,
    names: Sequence[str],
    seed: int = 0,
    keep: Keep = no_keep,
) -> Estimate:
    """Estimate from densities. Collective.

    Args:
        s: the functional's operators.
        data: observed densities.
        known: the known part of the flow.
        solver: the case's table.
        run: for progress, notes and interruption.
        names: of all columns.
        seed: of the resamples.
        keep: for forms and trajectories.
    """
    noise = solver.noise
    if noise is None:
        noise = float(np.median([noise_level(s.graph, d) for d in data]))
        if all(len(d.t) < 5 for d in data):
            run.note("too few snapshots to estimate the noise from; give solver.noise")
    kind: Window = "bump" if noise > NOISY else "ends"
    if solver.window != "auto":
        kind = solver.window
    log.info("noise %.3g, window %s", noise, kind)
    removed = noise if solver.debias and noise > 1e-3 else 0.0
    parts = []
    for k, d in enumerate(data):
        _check(run)
        run.progress.update(0.1 + 0.3 * k / len(data), f"error functional, {d.name}")
        if len(d.t) < 3 and kind == "bump":
            raise CaseError(
                f"{d.name}: two snapshots have no interior time: solver.window = 'ends' is needed"
            )
        one = keep(
            f"form_{k + 1}",
            lambda d=d: vars(assemble(s, d, known, kind=kind, noise=removed)),  # type: ignore[misc]
        )
        parts.append(Quadratic(**one))
    form = reduce(add, parts)
    _informed(form)
    gauges = find_gauges(form, len(s.atoms), names)
    for g in gauges:
        run.note(g[1])
    free = [i for i in range(s.size) if i not in {g[0] for g in gauges}]
    likely = use_trajectories(s, known, solver, noise)
    wanted = RESAMPLES if solver.resamples is None else solver.resamples
    if likely or solver.method != "auto":
        wanted = 0 if likely else wanted
    others = []
    if solver.method in ("auto", "tikhonov") and noise > 1e-4 and not likely:
        for k in range(wanted):
            _check(run)
            run.progress.update(0.4 + 0.3 * k / wanted, f"resample {k + 1} of {wanted}")
            one = keep(
                f"resample_{k + 1}",
                lambda k=k: vars(  # type: ignore[misc]
                    _resample(s, data, known, kind, noise, solver.debias, seed, k)
                ),
            )
            others.append(Quadratic(**one))

    def distances() -> np.ndarray:
        return np.concatenate(
            [pair_distances(density_points(s.graph, d), len(d.t), seed) for d in data]
        )

    estimate = _choose(form, others, solver, free, s.atoms, distances)
    estimate = replace(estimate, noise=noise, window=kind, gauges=tuple(g[1] for g in gauges))
    if not likely:
        return estimate
    _check(run)
    run.progress.update(0.4, "trajectories")
    return sharpen(s, data, known, solver, estimate, seed, keep)


def from_paths(
    comm: MPI.Comm,
    atoms: Sequence[Atom],
    data: Sequence[Paths],
    sigma: float,
    solver: SolverCase,
    run: Run,
    drifts: Sequence[object] = (),
    seed: int = 0,
    keep: Keep = no_keep,
) -> Estimate:
    """Estimate from particles; resamples are halves of the particles. Collective."""

    def assembled(sets: Sequence[Paths]) -> dict[str, np.ndarray]:
        forms = [assemble_paths(comm, atoms, d, sigma=sigma, drifts=drifts) for d in sets]  # type: ignore[arg-type]
        return vars(reduce(add, forms))

    parts = []
    for k, d in enumerate(data):
        _check(run)
        run.progress.update(0.1 + 0.4 * k / len(data), f"error functional, {d.name}")
        parts.append(Quadratic(**keep(f"form_{k + 1}", lambda d=d: assembled([d]))))  # type: ignore[misc]
    form = reduce(add, parts)
    _informed(form)
    wanted = 8 if solver.resamples is None else solver.resamples
    others = []
    for k in range(wanted if solver.method in ("auto", "tikhonov") else 0):
        _check(run)
        run.progress.update(0.5 + 0.3 * k / wanted, f"resample {k + 1} of {wanted}")
        rng = np.random.default_rng([seed, 7, k])
        halves = [_half(d, rng) for d in data]
        one = keep(f"resample_{k + 1}", lambda halves=halves: assembled(halves))  # type: ignore[misc]
        others.append(Quadratic(**one))
    free = list(range(len(form.b)))

    def distances() -> np.ndarray:
        return np.concatenate([pair_distances(_draw(d), len(d.t), seed) for d in data])

    found = _choose(form, others, solver, free, atoms, distances)
    return replace(found, noise=0.0, window="ends", sigma=sigma)


def _draw(d: Paths) -> Callable[[int, np.random.Generator], np.ndarray]:
    return lambda n, rng: rng.permuted(d.x[n], axis=0)


def _half(d: Paths, rng: np.random.Generator) -> Paths:
    """Half of the particles, or half of the time."""
    if not d.open:
        if d.labels is not None:  # the same particles at all times, in any order
            order = [np.argsort(l) for l in d.labels]
            d = Paths(d.t, tuple(p[k] for p, k in zip(d.x, order, strict=True)), d.name)
        kept = rng.permutation(len(d.x[0])) < max(2, len(d.x[0]) // 2)
        return Paths(d.t, tuple(p[kept] for p in d.x), d.name)
    # where particles enter and leave, half of the time: half of a crowd would see another density
    n = len(d.t)
    first = int(rng.integers(0, n - n // 2))
    return d.between(first, first + max(3, n // 2))


def find_gauges(form: Quadratic, atoms: int, names: Sequence[str]) -> list[tuple[int, str]]:
    """Columns besides W's that other columns reproduce: not identifiable, and fixed at 0.

    With a constant mean mbar, W += c |x|^2/2 and V += -c |x|^2/2 + c mbar.x leave the flow
    unchanged;
    a narrow kernel mimics quadratic diffusion.
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(form.A), 1e-300))
    A = form.A * np.outer(scale, scale)
    out: list[tuple[int, str]] = []
    kept = list(range(atoms))
    for k in range(atoms, len(A)):
        block = A[np.ix_(kept, kept)]
        values, Q = np.linalg.eigh(block)
        good = values > 1e-9 * values[-1]
        t = (Q[:, good].T @ A[kept, k]) / values[good]
        rest = 1 - float(t @ (values[good] * t))
        if rest < GAUGE:
            x = Q[:, good] @ t
            strongest = [names[kept[i]] for i in np.argsort(-np.abs(x))[:3]]
            out.append(
                (
                    k,
                    f"{names[k]} cannot be told from a combination of other terms (mainly "
                    f"{', '.join(strongest)}; {max(rest, 0):.1e} is left): a gauge freedom of "
                    "these data; it was fixed at 0. Remedy: a mean that moves, more initial data",
                )
            )
        else:
            kept.append(k)
    return out


def _informed(form: Quadratic) -> None:
    if not np.isfinite(form.A).all() or not np.isfinite(form.b).all():
        raise CaseError("the error functional is not finite: an atom is singular where data are")
    if not np.trace(form.A) > 0:
        raise CaseError(
            "the data give no force to any atom of the dictionary: nothing can be identified"
        )


def _check(run: Run) -> None:
    if run.asked_to_stop():
        raise Interrupted("interrupted; --restart goes on, to the same answer")


def _resample(
    s: Setting,
    data: Sequence[Snapshots],
    known: Known,
    kind: Window,
    noise: float,
    debias: bool,
    seed: int,
    k: int,
) -> Quadratic:
    """The form of the data with as much noise again. Collective."""
    parts = []
    at = order(s.graph)
    for i, d in enumerate(data):
        rng = np.random.default_rng([seed, 5, k, i])
        e = rng.standard_normal((len(d.t), s.graph.size))[:, at]
        rho = d.rho * (1 + noise * e)
        rho = rho / np.array([s.graph.integral(r) for r in rho])[:, None]
        more = float(np.sqrt(2)) * noise if debias and noise > 1e-3 else 0.0
        parts.append(assemble(s, Snapshots(d.t, rho, d.name), known, kind=kind, noise=more))
    return reduce(add, parts)


def _choose(
    form: Quadratic,
    others: Sequence[Quadratic],
    solver: SolverCase,
    free: Sequence[int],
    atoms: Sequence[Atom],
    distances: Callable[[], np.ndarray],
) -> Estimate:
    """The case's solver on the columns that are free; atoms always are."""
    f: Any = np.ix_(free, free)
    A, b = form.A[f], form.b[list(free)]
    method, size = solver.method, solver.size
    lam = None
    if method == "tikhonov":
        size_of = penalty(solver.seminorm, atoms, distances(), len(b) - len(atoms))
        c, lam = tikhonov(A, b, size_of, solver.rule)
        fit = Fit(tuple(range(len(b))), c, float(c @ A @ c - 2 * b @ c))
        again = [regularised(q.A[f], q.b[list(free)], size_of, lam) for q in others]
        samples = np.array(again).reshape(-1, len(b))
        chosen = Selected(fit, [fit], 1.0, samples, Counter())
    elif method == "auto" and size is None:
        few = [Quadratic(q.A[f], q.b[list(free)]) for q in others]
        chosen = selection.from_resamples(Quadratic(A, b), few, solver.largest)
    else:
        fit = _sized(A, b, solver, size)
        again = [sparse.refit(q.A[f], q.b[list(free)], fit.support).c for q in others]
        chosen = Selected(fit, [fit], 1.0, np.array(again).reshape(-1, len(b)), Counter())
    chosen = _widen(chosen, free, len(form.b))
    return Estimate(chosen.fit.c, chosen, chosen.fit, form, 0.0, "ends", None, (), lam)


def _sized(A: np.ndarray, b: np.ndarray, solver: SolverCase, size: int | None) -> Fit:
    if solver.method == "stlsq":
        return sparse.sequential_thresholding(A, b, solver.threshold)
    if size is None:
        raise CaseError(f"solver.method = {solver.method!r} needs solver.size")
    if size > len(b):
        raise CaseError(f"solver.size = {size}: there are only {len(b)} columns")
    if solver.method == "lasso":
        return sparse.lasso(A, b, size)
    if solver.method == "partinv":
        Phi, u = sparse.square_root(A, b)
        among = sparse.partial_inversion(Phi, u, max(solver.kept, size))
        return sparse.best_subset(A, b, min(size, len(among)), among)[0]
    if solver.method == "subspace-pursuit":
        return sparse.refit(A, b, sparse.subspace_pursuit(*sparse.square_root(A, b), size))
    return selection.candidates(A, b, size)


def _widen(chosen: Selected, free: Sequence[int], n: int) -> Selected:
    """Back to all columns."""

    def wide(f: Fit) -> Fit:
        c = np.zeros(n)
        c[list(free)] = f.c
        return Fit(tuple(free[i] for i in f.support), c, f.cost)

    samples = np.zeros((len(chosen.samples), n))
    samples[:, list(free)] = chosen.samples
    supports = Counter({tuple(free[i] for i in k): v for k, v in chosen.supports.items()})
    return replace(
        chosen,
        fit=wide(chosen.fit),
        ladder=[wide(f) for f in chosen.ladder],
        samples=samples,
        supports=supports,
    )
