"""From data to coefficients: forms, noise, gauges, solver, and the band of W'."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
from mpi4py import MPI

from fem_apps.errors import CaseError, Interrupted, SolveError
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_choose import choose, find_gauges, informed
from fem_apps.inverse.interaction_kernels_data import Snapshots, noise_level, order
from fem_apps.inverse.interaction_kernels_functional import (
    Known,
    Quadratic,
    Setting,
    Window,
    assemble,
)
from fem_apps.inverse.interaction_kernels_join import joined
from fem_apps.inverse.interaction_kernels_kept import Keep, no_keep
from fem_apps.inverse.interaction_kernels_pairs import Drift, likelihood, pair_sums
from fem_apps.inverse.interaction_kernels_particles import Paths
from fem_apps.inverse.interaction_kernels_selection import draws
from fem_apps.inverse.interaction_kernels_sharpen import (
    LIKELIHOOD_RESAMPLES,
    MISFIT,
    NOISY,
    Estimate,
    sharpen,
    use_trajectories,
)
from fem_apps.inverse.interaction_kernels_verify import density_points, pair_distances
from fem_apps.output.folder import Run

log = logging.getLogger(__name__)

# Of densities; for the variance of an estimate that is joined with that of trajectories; of
# particles without a likelihood.
RESAMPLES, JOINED, HALVES = 20, 8, 8


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
        stop_if_asked(run)
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
    informed(form)
    gauges = find_gauges(form, len(s.atoms), names)
    for g in gauges:
        run.note(g[1])
    free = [i for i in range(s.size) if i not in {g[0] for g in gauges}]
    likely = use_trajectories(s, known, solver, noise)

    def distances() -> np.ndarray:
        return np.concatenate(
            [pair_distances(density_points(s.graph, d), len(d.t), seed) for d in data]
        )

    def functional(others: Sequence[Quadratic]) -> Estimate:
        e = choose(form, others, solver, free, s.atoms, distances)
        return replace(e, noise=noise, window=kind, gauges=tuple(g[1] for g in gauges))

    def resampled(wanted: int) -> list[Quadratic]:
        others = []
        for k in range(wanted):
            stop_if_asked(run)
            run.progress.update(0.4 + 0.3 * k / wanted, f"resample {k + 1} of {wanted}")
            one = keep(
                f"resample_{k + 1}",
                lambda k=k: vars(  # type: ignore[misc]
                    _resample(s, data, known, kind, noise, solver.debias, seed, k)
                ),
            )
            others.append(Quadratic(**one))
        return others

    if likely:
        stop_if_asked(run)
        run.progress.update(0.4, "trajectories")
        try:
            found, misfit, shift = sharpen(s, data, known, solver, functional([]), seed, keep)
        except SolveError as e:
            if solver.trajectories:  # asked for
                raise
            found, misfit, shift = functional([]), np.inf, np.zeros(s.size)
            run.note(f"no trajectories: {e}")
        log.info("trajectories: errors of the fit %.2f times those of the noise", misfit**0.5)
        if MISFIT < misfit < np.inf:
            run.note(
                f"the errors of the fit to trajectories are {misfit**0.5:.1f} times those that "
                "the noise makes: the data, or the solution of the flow, err otherwise"
            )
        if misfit <= MISFIT or solver.trajectories:
            chosen = joined(found.selected, form, shift, lambda: resampled(JOINED))
            return replace(found, c=chosen.fit.c, selected=chosen)
        run.note("the error functional's estimate was kept; solver.trajectories = true insists")
    wanted = RESAMPLES if solver.resamples is None else solver.resamples
    many = solver.method in ("auto", "tikhonov") and noise > 1e-4
    return functional(resampled(wanted) if many else [])


def from_paths(
    comm: MPI.Comm,
    atoms: Sequence[Atom],
    data: Sequence[Paths],
    sigma: float,
    solver: SolverCase,
    run: Run,
    drifts: Sequence[Drift] = (),
    seed: int = 0,
    keep: Keep = no_keep,
) -> Estimate:
    """Estimate from particles. Collective.

    The form of Brownian particles is a likelihood, and resamples are its draws. Else, and where
    particles enter or leave, resamples are halves of the particles or of the time.
    """
    brownian = sigma > 0 and not any(d.open for d in data)

    def assembled(d: Paths) -> Quadratic:
        sums = pair_sums(comm, atoms, d, sigma=sigma, drifts=drifts)
        return likelihood(sums, sigma) if brownian else sums.form

    parts = []
    for k, d in enumerate(data):
        stop_if_asked(run)
        run.progress.update(0.1 + 0.4 * k / len(data), f"error functional, {d.name}")
        parts.append(Quadratic(**keep(f"form_{k + 1}", lambda d=d: vars(assembled(d)))))  # type: ignore[misc]
    form = reduce(add, parts)
    informed(form)
    wanted = 0
    if solver.method in ("auto", "tikhonov"):
        default = LIKELIHOOD_RESAMPLES if brownian else HALVES
        wanted = default if solver.resamples is None else solver.resamples
    if brownian:
        rng = np.random.default_rng([seed, 7])
        others = [Quadratic(form.A, b) for b in draws(form.A, form.b, wanted, rng)]
    else:
        others = []
        for k in range(wanted):
            stop_if_asked(run)
            run.progress.update(0.5 + 0.3 * k / wanted, f"resample {k + 1} of {wanted}")
            rng = np.random.default_rng([seed, 7, k])
            halves = [_half(d, rng) for d in data]
            one = keep(
                f"resample_{k + 1}",
                lambda halves=halves: vars(reduce(add, map(assembled, halves))),  # type: ignore[misc]
            )
            others.append(Quadratic(**one))
    count = sum(len(d.x[0]) for d in data) if brownian else 0

    def distances() -> np.ndarray:
        return np.concatenate([pair_distances(_draw(d), len(d.t), seed) for d in data])

    found = choose(form, others, solver, range(len(form.b)), atoms, distances, count)
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


def stop_if_asked(run: Run) -> None:
    """Raise Interrupted after SIGTERM or SIGINT on any rank. Collective."""
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
