"""An estimate, and how whole trajectories on the line sharpen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.inverse import interaction_kernels_selection as selection
from fem_apps.inverse import interaction_kernels_trajectories as trajectories
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_data import Snapshots, gathered, order
from fem_apps.inverse.interaction_kernels_flow import cells
from fem_apps.inverse.interaction_kernels_functional import Known, Quadratic, Setting, Window
from fem_apps.inverse.interaction_kernels_kept import Keep
from fem_apps.inverse.interaction_kernels_misfit import misfit
from fem_apps.inverse.interaction_kernels_selection import Selected
from fem_apps.inverse.interaction_kernels_sparse import Fit, refit
from fem_apps.mpi import on_rank_zero

# Noise above which the functional's window sees all snapshots, and trajectories are worth it.
NOISY = 5e-3
LIKELIHOOD_RESAMPLES = 200
# Variance of the score over what the noise makes, from which the model errs and not the noise:
# errors twice as large as the likelihood says.
MISFIT = 4.0


@dataclass(frozen=True)
class Estimate:
    """Coefficients with what speaks for them.

    Attributes:
        c: all columns: atoms, unknown potentials, unknown diffusion.
        selected: of the last stage.
        functional: the error functional's own choice, before trajectories.
        form: A and b, all data added up.
        noise: relative noise of the densities that was used.
        window: that was used.
        start: initial densities of the data sets, improved by trajectories (owned nodes); or None.
        gauges: columns that the data cannot tell apart from others, and why.
        regularisation: Tikhonov's lambda, or None.
        sigma: diffusion of particles, given or found; None for densities.
    """

    c: np.ndarray
    selected: Selected
    functional: Fit
    form: Quadratic
    noise: float
    window: Window
    start: list[np.ndarray] | None
    gauges: tuple[str, ...]
    regularisation: float | None = None
    sigma: float | None = None


def use_trajectories(s: Setting, known: Known, solver: SolverCase, noise: float) -> bool:
    """Whether whole trajectories sharpen this estimate.

    Raises:
        CaseError: they are asked for and cannot.
    """
    x = s.graph.x
    possible = (
        x.shape[1] == 1
        and s.size == len(s.atoms)
        and s.graph.size <= 400
        and bool(known.diffusion)
        and all(d.exponent >= 1 for d in known.diffusion)
        and solver.method == "auto"
        and not any(a.name.startswith(("spline", "log")) for a in s.atoms)
    )
    if solver.trajectories and not possible:
        raise CaseError(
            "solver.trajectories = true needs a mesh of the line, at most 400 nodes, a dictionary "
            "without splines, nothing unknown besides W, known diffusion, and method = 'auto'"
        )
    # of cleaner data the discretisation is the larger error, and the functional feels less of it
    return possible and noise > NOISY if solver.trajectories is None else solver.trajectories


def sharpen(
    s: Setting,
    data: Sequence[Snapshots],
    known: Known,
    solver: SolverCase,
    estimate: Estimate,
    seed: int,
    keep: Keep,
) -> tuple[Estimate, float, np.ndarray]:
    """The likelihood of trajectories, on rank 0. Collective.

    Returns:
        the estimate, the misfit of the choice (`interaction_kernels_misfit`), and how far the
        discretisation moves its coefficients (`interaction_kernels_join`).

    Raises:
        SolveError: the flow of an estimate cannot be computed.
    """
    graph = s.graph
    at = order(graph)
    x, mass = gathered(graph, graph.x[:, 0]), gathered(graph, graph.mass)
    V = gathered(graph, known.V) if known.V is not None else np.zeros(len(x))
    sets = [gathered(graph, d.rho) for d in data]
    count = LIKELIHOOD_RESAMPLES if solver.resamples is None else solver.resamples

    def choose(form: trajectories.Likelihood) -> Fit:
        if solver.size is not None:
            return selection.candidates(form.F, form.g, solver.size)
        steps = selection.ladder(form.F, form.g, solver.largest)
        return selection.by_criterion(
            steps, len(form.g), form.count, inflation(form.G, form.h, steps)
        )

    def work() -> dict[str, np.ndarray]:
        starts = [
            trajectories.Trajectory(d.t, y, _start(y, mass))
            for d, y in zip(data, sets, strict=True)
        ]
        fit, form, better = trajectories.fit_trajectories(
            cells(x, mass),
            s.atoms,
            known.diffusion,
            lambda z: np.interp(z, x, V),
            starts,
            estimate.c,
            estimate.noise,
            choose,
        )
        rho0 = np.array([b.rho0 for b in better])
        parts = {"F": form.F, "g": form.g, "count": np.array(form.count), "rho0": rho0, "c": fit.c}
        return {**parts, "cost": np.array(fit.cost), "G": form.G, "h": form.h, "shift": form.shift}

    k = keep("trajectories", lambda: on_rank_zero(graph.comm, work))
    F, g = k["F"], k["g"]
    steps = selection.ladder(F, g, solver.largest)
    factor = inflation(k["G"], k["h"], steps)
    stars = selection.draws(F, g, count, np.random.default_rng([seed, 6]), factor)
    chosen = selection.from_likelihood(F, g, int(k["count"]), steps, stars, factor)
    if solver.size is not None:
        support = tuple(int(i) for i in np.flatnonzero(k["c"]))
        chosen = replace(chosen, fit=Fit(support, k["c"], float(k["cost"])))
    found = replace(estimate, c=chosen.fit.c, selected=chosen, start=[r[at] for r in k["rho0"]])
    shift = refit(k["F"], k["shift"], chosen.fit.support).c
    return found, misfit(k["G"], k["h"], found.c, chosen.fit.support), shift


def inflation(G: np.ndarray, h: np.ndarray, steps: Sequence[Fit]) -> float:
    """Misfit of the ladder's largest fit, which has the least bias of a support; at least 1."""
    return max(1.0, misfit(G, h, steps[-1].c, steps[-1].support))


def _start(y: np.ndarray, mass: np.ndarray) -> np.ndarray:
    rho = np.maximum(y[0], 0.0)
    return rho / (mass @ rho)
