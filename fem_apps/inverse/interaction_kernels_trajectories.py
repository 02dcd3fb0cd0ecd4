"""Gauss-Newton on whole trajectories, on the line: a likelihood for dictionary coefficients.

Data y(t, x) = rho(t, x; c, rho0) (1 + s e). About an estimate (c, rho0), with sensitivities S_j =
d rho / d c_j of every atom of the dictionary and R_k of smooth relative changes B_k of the
unknown rho0 (cubic B-splines), the residual is linear in the new coefficients, and minus twice
the log likelihood is

    chi^2(c) = sum (y - rho - S (c - c_0) - R a)^2 / (s^2 rho^2 + 9 delta^2),   least over a,

a quadratic form again, F and g: sparse solvers apply as they do to the error functional, the
Bayesian information criterion chooses the size of the support, and F is the Fisher information,
from which come the band and resamples. delta is the difference of solutions on the data's cells
and on cells half as wide: where the forward solution is not resolved, data do not count. It is
started from the error functional's estimate; it needs no derivative of the data and no debiasing.

Forward solutions: cells about the nodes, differences of P(rho) and a van Leer limited upwind
drift -grad(W*rho + V), Heun's method, all perturbations in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from scipy.interpolate import BSpline

from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_sparse import Fit
from fem_apps.problems.free_energy import Diffusion, Internal

# B-splines for the initial density, relative step of differences, floor of the standard deviation.
NUISANCE, STEP, ROUNDING = 34, 1e-4, 1e-4
# The data have a discretisation error of their own: delta counts so many times.
DISTRUST = 3.0


@dataclass(frozen=True)
class Cells:
    """Cells on the line: widths and centres, (n,)."""

    width: np.ndarray
    centre: np.ndarray


def cells(x: np.ndarray, mass: np.ndarray) -> Cells:
    """The control volumes of sorted P1 nodes."""
    edges = x[0] + np.concatenate([[0.0], np.cumsum(mass)])
    return Cells(mass, (edges[1:] + edges[:-1]) / 2)


def halves(c: Cells) -> Cells:
    """Every cell cut in two."""
    width = np.repeat(c.width / 2, 2)
    centre = np.repeat(c.centre, 2)
    centre[::2] -= c.width / 4
    centre[1::2] += c.width / 4
    return Cells(width, centre)


def refined(r: np.ndarray) -> np.ndarray:
    """Averages on the halves, limited slopes, (n,) -> (2 n,)."""
    s = np.zeros_like(r)
    a, b = r[1:-1] - r[:-2], r[2:] - r[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        s[1:-1] = np.where(a * b > 0, 2 * a * b / (a + b), 0.0)
    out = np.repeat(r, 2)
    out[::2] -= s / 4
    out[1::2] += s / 4
    return out


@numba.njit(cache=True)
def _rates(R, Q, width, gap, sigma, m):  # type: ignore[no-untyped-def]
    """Rates of a batch of densities R (n, B) with drift potentials Q (n, B)."""
    n, B = R.shape
    out = np.empty((n, B))
    for k in range(B):
        before = 0.0
        for j in range(n):
            flux = 0.0
            if j < n - 1:
                u = -(Q[j + 1, k] - Q[j, k]) / gap[j]
                d = R[j + 1, k] - R[j, k]
                if u > 0:
                    e = R[j, k] - R[j - 1, k] if j > 0 else 0.0
                    s = 2 * d * e / (d + e) if d * e > 0 else 0.0
                    flux = (R[j, k] + s / 2) * u
                else:
                    e = R[j + 2, k] - R[j + 1, k] if j < n - 2 else 0.0
                    s = 2 * d * e / (d + e) if d * e > 0 else 0.0
                    flux = (R[j + 1, k] - s / 2) * u
                for i in range(len(m)):
                    if m[i] == 1:
                        flux -= sigma[i] * d / gap[j]
                    else:
                        a, b = max(R[j + 1, k], 0.0), max(R[j, k], 0.0)
                        flux -= sigma[i] * (a ** m[i] - b ** m[i]) / gap[j]
            out[j, k] = (before - flux) / width[j]
            before = flux
    return out


def solve(
    c: Cells,
    rho0: np.ndarray,
    K: np.ndarray,
    V: np.ndarray,
    diffusion: Sequence[Diffusion],
    t: np.ndarray,
    dt: float,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Densities of a batch at the times.

    Args:
        c: cells.
        rho0: (n, B).
        K: W(|x_i - x_j|), (n, n).
        V: external potential, (n,).
        diffusion: terms of H.
        t: (n_t,).
        dt: largest step.
        change: masses (n, B) -> addition to the drift potentials (n, B).

    Returns:
        (n_t, n, B).
    """
    gap = np.diff(c.centre)
    sigma = np.array([d.coefficient for d in diffusion])
    m = np.array([d.exponent for d in diffusion])

    def rate(R: np.ndarray) -> np.ndarray:
        mu = R * c.width[:, None]
        Q = K @ mu + V[:, None]
        if change is not None:
            Q += change(mu)
        return _rates(R, Q, c.width, gap, sigma, m)

    R = np.ascontiguousarray(rho0, dtype=float)
    out = np.empty((len(t), *R.shape))
    out[0] = R
    for n in range(1, len(t)):
        steps = int(np.ceil((t[n] - t[n - 1]) / dt))
        h = (t[n] - t[n - 1]) / steps
        for _ in range(steps):
            a = R + h * rate(R)
            R = (R + a + h * rate(a)) / 2
        out[n] = R
    return out


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
        count: number of values.
        update: new coefficients -> new data sets with improved rho0.
    """

    F: np.ndarray
    g: np.ndarray
    const: float
    count: int
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
    """
    fine = halves(c)
    tables = np.array([_table(a, c) for a in atoms])
    K, V0 = np.tensordot(coefficients, tables, 1), V(c.centre)
    used = [int(j) for j in np.flatnonzero(coefficients)]
    K_fine = sum(
        (coefficients[j] * _table(atoms[j], fine) for j in used), 0 * _table(atoms[0], fine)
    )
    n_atoms = len(atoms)
    B = _splines(c, NUISANCE) if noise > 1e-3 else np.zeros((0, len(c.width)))
    F, g, const, count = np.zeros((n_atoms, n_atoms)), np.zeros(n_atoms), 0.0, 0
    kept = []
    for one in data:
        dt = _step(c, one.y, K, V0, diffusion)
        changed = [one.rho0] * (1 + n_atoms)
        for b in B:
            p = one.rho0 * b
            changed.append(one.rho0 + STEP * (p - one.rho0 * (c.width @ p)))

        def change(mu: np.ndarray) -> np.ndarray:
            out = np.zeros_like(mu)
            for j in range(n_atoms):
                out[:, 1 + j] = STEP * (tables[j] @ mu[:, 1 + j])
            return out

        runs = solve(c, np.stack(changed, axis=1), K, V0, diffusion, one.t, dt, change)
        coarse = runs[..., 0]
        sharp = solve(
            fine, refined(one.rho0)[:, None], K_fine, V(fine.centre), diffusion, one.t, dt / 4
        )[..., 0]
        sharp = sharp.reshape(len(one.t), -1, 2).mean(axis=2)
        gap = DISTRUST * (sharp - coarse)
        w = 1 / np.sqrt((noise * sharp) ** 2 + gap**2 + (ROUNDING * sharp.max()) ** 2)
        S = ((runs[..., 1:] - coarse[..., None]) / STEP * w[..., None]).reshape(
            -1, n_atoms + len(B)
        )
        r = ((one.y - sharp) * w).ravel()
        S, R = S[:, :n_atoms], S[:, n_atoms:]
        # r - S (c - c_0) - R a: eliminate a
        M = R.T @ R
        M += 1e-8 * np.trace(M) / max(len(M), 1) * np.eye(len(M))
        P = np.linalg.solve(M, R.T @ np.c_[S, r]) if len(B) else np.zeros((0, n_atoms + 1))
        G, h = S.T @ (S - R @ P[:, :-1]), S.T @ (r - R @ P[:, -1])
        F += G
        g += h + G @ coefficients
        const += r @ (r - R @ P[:, -1]) + 2 * h @ coefficients + coefficients @ G @ coefficients
        count += r.size
        kept.append(P)

    def update(new: np.ndarray) -> list[Trajectory]:
        out = []
        for one, P in zip(data, kept, strict=True):
            e = (P[:, -1] - P[:, :-1] @ (new - coefficients)) @ B if len(B) else 0.0
            rho0 = one.rho0 * (1 + np.clip(e, -0.5, 0.5))
            out.append(Trajectory(one.t, one.y, rho0 / (c.width @ rho0)))
        return out

    return Likelihood((F + F.T) / 2, g, float(const), count, update)


def fit_trajectories(
    c: Cells,
    atoms: Sequence[Atom],
    diffusion: Sequence[Diffusion],
    V: Callable[[np.ndarray], np.ndarray],
    data: Sequence[Trajectory],
    start: np.ndarray,
    noise: float,
    choose: Callable[[Likelihood], Fit],
    iterations: int = 3,
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


def _step(
    c: Cells, y: np.ndarray, K: np.ndarray, V: np.ndarray, diffusion: Sequence[Diffusion]
) -> float:
    """A stable step, from the data's densities and the estimate's drift."""
    top = 1.3 * np.maximum(y, 0).max(axis=0)
    D = np.maximum(Internal(tuple(diffusion)).fields(top)[2], 0)
    gap = np.diff(c.centre)
    narrow = np.minimum(c.width[1:], c.width[:-1])
    spread = (np.maximum(D[1:], D[:-1]) / (gap * narrow)).max(initial=0.0)
    u = np.abs(np.diff((y * c.width) @ K.T + V, axis=1)).max(axis=0) / gap
    return 1 / (5 * spread + 2.5 * 1.3 * float((u / narrow).max(initial=0.0)) + 1e-12)
