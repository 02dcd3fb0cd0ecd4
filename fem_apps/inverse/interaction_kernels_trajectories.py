"""Gauss-Newton on whole trajectories, on the line: a likelihood for dictionary coefficients.

Data y(t, x) = rho(t, x; c, rho0) (1 + s e). About an estimate (c, rho0), with sensitivities S_j =
d rho / d c_j of every atom of the dictionary and R_k of relative changes B_k of the unknown
rho0 (cubic B-splines), the residual is linear in the new coefficients, and minus twice
the log likelihood is

    chi^2(c) = sum (y - rho - S (c - c_0) - R a)^2 / (s^2 rho^2 + 16 delta^2), least over a,

a quadratic form again, F and g: sparse solvers apply as they do to the error functional, the
Bayesian information criterion chooses the size of the support, and F is the Fisher information,
from which come the band and resamples. rho is extrapolated (Richardson) from the solutions on the
data's cells and on cells half as wide in half the time steps; delta is their difference: where the
data's own cells do not resolve the flow, data do not count. The first and last cell do not count
either: control volumes of P1 nodes have half a cell there, data from cells a whole one, and
mass that gathers at a wall has twice the density in half a cell. It is started from the error
functional's estimate; it needs no derivative of the data and no debiasing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from fem_apps.errors import SolveError
from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_flow import (
    Cells,
    Flow,
    halves,
    refined,
    solve,
    steps_needed,
)
from fem_apps.inverse.interaction_kernels_misfit import blocks
from fem_apps.inverse.interaction_kernels_sparse import Fit
from fem_apps.problems.free_energy import Diffusion

# B-splines for the initial density, at most, else one a cell: what noise of the first snapshot
# they do not resolve, and a flow with m = 3 and little mass does not smooth, would bend the
# coefficients.
# Floor of the standard deviation.
NUISANCE, ROUNDING = 200, 1e-4
# Part of a cell that the drift passes in a step.
COURANT = 0.5
# Cells at each end that do not count.
WALL = 1
# Data that come from cells of their own err as the flow does on them, at all times alike: so much
# does delta count. With 2 a spurious atom fitted it in case A.
DISTRUST = 4.0
# Derivatives from which a flow has blown up: their squares must not overflow.
HUGE = 1e100


@dataclass(frozen=True)
class Trajectory:
    """One data set on the line, gathered: t (n_t,), y (n_t, n), a starting rho0 (n,)."""

    t: np.ndarray
    y: np.ndarray
    rho0: np.ndarray


@dataclass(frozen=True)
class Likelihood:
    """chi^2(c) = const + c.F c - 2 g.c over all data, and the improved initial densities.

    Attributes:
        F: Fisher information, (n, n).
        g: (n,).
        const: chi^2 of c = 0.
        count: number of values that count.
        G: scores by blocks, of `interaction_kernels_misfit`, (blocks, n, n).
        h: likewise, (blocks, n).
        shift: g of residuals delta: F^-1 shift is how far coefficients move where the data err by
            what the extrapolation corrects, (n,).
        update: new coefficients -> new data sets with improved rho0.
    """

    F: np.ndarray
    g: np.ndarray
    const: float
    count: int
    G: np.ndarray
    h: np.ndarray
    shift: np.ndarray
    update: Callable[[np.ndarray], list[Trajectory]]


def likelihood(
    c: Cells,
    atoms: Sequence[Atom],
    diffusion: Sequence[Diffusion],
    V: Callable[[np.ndarray], np.ndarray],
    data: Sequence[Trajectory],
    coefficients: np.ndarray,
    noise: float,
) -> Likelihood:
    """The quadratic form about an estimate.

    Args:
        c: cells of the data.
        atoms: the dictionary.
        diffusion: known terms of H.
        V: known external potential, centres -> values.
        data: data sets.
        coefficients: the estimate, (atoms,).
        noise: relative standard deviation s.

    Raises:
        SolveError: the flow of the estimate blows up.
    """
    fine, K = halves(c), len(atoms)
    tables = np.array([_table(a, c) for a in atoms])
    flow = Flow(c, np.tensordot(coefficients, tables, 1), V(c.centre), tuple(diffusion))
    used = [int(j) for j in np.flatnonzero(coefficients)]
    K_fine = sum(
        (coefficients[j] * _table(atoms[j], fine) for j in used), 0 * _table(atoms[0], fine)
    )
    flow_fine = Flow(fine, K_fine, V(fine.centre), tuple(diffusion))
    B = _splines(c, min(len(c.width), NUISANCE)) if noise > 1e-3 else np.zeros((0, len(c.width)))
    F, g, const, count = np.zeros((K, K)), np.zeros(K), 0.0, 0
    kept, parts, shift = [], [], np.zeros(K)
    for one in data:
        steps = steps_needed(flow, one.y, one.t, COURANT)
        changes = one.rho0 * B
        changes -= np.outer(changes @ c.width, one.rho0)
        coarse, S = solve(flow, one.rho0, one.t, steps, atoms=tables, initial=changes)
        sharp, _ = solve(flow_fine, refined(one.rho0), one.t, 2 * steps)
        sharp = sharp.reshape(len(one.t), -1, 2).mean(axis=2)
        gap = coarse - sharp
        sharp = sharp - gap / 3  # Richardson
        w = 1 / np.sqrt(
            (noise * sharp) ** 2 + (DISTRUST * gap) ** 2 + (ROUNDING * sharp.max()) ** 2
        )
        w[:, :WALL] = w[:, w.shape[1] - WALL :] = 0
        S = (S * w[..., None]).reshape(w.size, -1)
        r = ((one.y - sharp) * w).ravel()
        if not ((np.abs(S) < HUGE).all() and np.isfinite(r).all()):
            raise SolveError(
                "the flow of an estimate",
                "its derivatives are not finite",
                advice="solver.trajectories = false",
            )
        S, R = S[:, :K], S[:, K:]
        # r - S (c - c_0) - R a: eliminate a
        M = R.T @ R
        M += 1e-8 * np.trace(M) / max(len(M), 1) * np.eye(len(M))
        P = np.linalg.solve(M, R.T @ np.c_[S, r]) if len(M) else np.zeros((0, K + 1))
        S0, r0 = S - R @ P[:, :-1], r - R @ P[:, -1]
        G, h = S.T @ S0, S.T @ r0
        shift += S0.T @ (gap * w).ravel()
        F += G
        g += h + G @ coefficients
        const += r @ r0 + 2 * h @ coefficients + coefficients @ G @ coefficients
        count += int(np.count_nonzero(w))
        kept.append(P)
        parts.append(blocks(S0, r0, coefficients, len(one.t)))

    def update(new: np.ndarray) -> list[Trajectory]:
        out = []
        for one, P in zip(data, kept, strict=True):
            a = P[: len(B), -1] - P[: len(B), :-1] @ (new - coefficients)
            rho0 = one.rho0 * (1 + np.clip(a @ B, -0.5, 0.5))
            out.append(Trajectory(one.t, one.y, rho0 / (c.width @ rho0)))
        return out

    by_block, score = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    return Likelihood((F + F.T) / 2, g, float(const), count, by_block, score, shift, update)


def fit_trajectories(
    c: Cells,
    atoms: Sequence[Atom],
    diffusion: Sequence[Diffusion],
    V: Callable[[np.ndarray], np.ndarray],
    data: Sequence[Trajectory],
    start: np.ndarray,
    noise: float,
    choose: Callable[[Likelihood], Fit],
    iterations: int = 6,
) -> tuple[Fit, Likelihood, list[Trajectory]]:
    """Gauss-Newton: form, choose a support, start again from it, until nothing changes.

    Args:
        c: cells of the data.
        atoms: the dictionary.
        diffusion: known terms of H.
        V: known external potential.
        data: data sets.
        start: first estimate of the coefficients.
        noise: relative standard deviation s.
        choose: the sparse minimiser of a form.
        iterations: limit.

    Returns:
        the last choice, the form it was chosen from, and the data with improved initial densities.
    """
    data = list(data)
    before = start
    for _ in range(iterations):
        form = likelihood(c, atoms, diffusion, V, data, before, noise)
        fit = choose(form)
        data = form.update(fit.c)
        moved = np.abs(fit.c - before).max() / max(np.abs(fit.c).max(), 1e-300)
        before = fit.c
        if moved < 2e-3:
            break
    return fit, form, data


def _table(atom: Atom, c: Cells) -> np.ndarray:
    return np.asarray(atom.psi(np.abs(c.centre[:, None] - c.centre[None, :])), dtype=float)


def _splines(c: Cells, count: int) -> np.ndarray:
    low, high = c.centre[0] - c.width[0], c.centre[-1] + c.width[-1]
    knots = np.r_[[low] * 3, np.linspace(low, high, count - 2), [high] * 3]
    return BSpline.design_matrix(c.centre, knots, 3).toarray().T
