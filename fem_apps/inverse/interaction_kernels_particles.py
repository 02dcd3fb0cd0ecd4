"""The quadratic error functional of particle data: the empirical measure, no mesh.

For dX_i = -grad(W * mu_N + V)(X_i) dt + sqrt(2 sigma) dB_i with mu_N = (1/N) sum_i delta_{X_i},

    A_kl = (1/T) sum_n w_n (1/N) sum_i grad Phi_k(X_i) . grad Phi_l(X_i),
    b_k  = -(1/T) { [e_k(mu_N)]_0^T - sigma sum_n w_n (1/N) sum_i Laplace Phi_k(X_i) },

e_k = (1/2N^2) sum_ij psi_k(|X_i - X_j|) or (1/N) sum_i V_k(X_i): Ito's formula for e_k, so labels
are not needed (arXiv:2604.02581). Where particles enter or leave it does not hold; there labels
give forward differences V_i, and -(1/T) sum_n w_n (1/N) sum_i V_i . grad Phi_k(X_i) takes the
place of b. Sums over pairs i != j. With N particles A has a bias of order 1/N from the pairs that
a triple sum takes twice; with noise in the paths A and b err by N^(-1/2). More exactly, of the
true coefficients c the residual b - A c is a martingale over N T, of covariance 2 sigma / (N T) A:
N T / (2 sigma) (c.A c - 2 b.c) is -2 log of the likelihood of the paths (Girsanov).

A kink (|x| on the line) or a pole (log |x| in the plane) has a Dirac measure in its Laplacian,
which no pair meets: there the term is the density of pairs at distance 0. For atoms whose force
does not vanish at 0, Laplace psi in a ball of radius eps is its mean, dim psi'(eps) / eps, the flux
through the sphere over the volume; the error is of order eps^2.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_functional import Quadratic, time_weights
from fem_apps.mpi import total

# Points of the table of psi, psi', Laplace psi that pairs are looked up in.
TABLE = 4096
# Radius of the ball of mean Laplacians: so many spreads of the particles over N^(1/2). It holds
# N pairs at least in the plane, and the error eps^2 falls as 1/N.
BALL = 2.0
# An atom whose force falls by less than this from eps to eps / 100 is singular at 0.
SINGULAR = 0.2


@dataclass(frozen=True)
class Paths:
    """Positions in time.

    Attributes:
        t: times, (n_t,).
        x: one array (N_n, dim) a time.
        name: for messages.
        labels: who is who, (N_n,) a time; only needed where particles enter or leave.
    """

    t: np.ndarray
    x: tuple[np.ndarray, ...]
    name: str = "particles"
    labels: tuple[np.ndarray, ...] | None = None

    @property
    def open(self) -> bool:
        """Whether particles enter or leave."""
        if self.labels is None:
            return False
        first = np.sort(self.labels[0])
        return any(not np.array_equal(np.sort(l), first) for l in self.labels)

    def between(self, first: int, last: int) -> Paths:
        """The snapshots first, ..., last - 1."""
        labels = None if self.labels is None else self.labels[first:last]
        return Paths(self.t[first:last], self.x[first:last], self.name, labels)


def paths(
    t: np.ndarray,
    x: Sequence[np.ndarray],
    name: str = "particles",
    labels: Sequence[np.ndarray] | None = None,
) -> Paths:
    """Checked trajectories.

    Raises:
        CaseError: says what is wrong with the data, or what they cannot identify.
    """
    t = np.asarray(t, dtype=float)
    if len(t) < 2:
        raise CaseError(
            f"{name}: one snapshot tells nothing of the motion; give at least two times"
        )
    if not (np.isfinite(t).all() and all(np.isfinite(p).all() for p in x)):
        raise CaseError(f"{name}: a time or a position is not a finite number")
    if (np.diff(t) <= 0).any():
        raise CaseError(f"{name}: times must increase; sort the snapshots")
    few = [n for n, p in enumerate(x) if len(p) < 2]
    if few:
        raise CaseError(f"{name}: fewer than two particles at t = {t[few[0]]:g}: no pair interacts")
    if all(p.shape == x[0].shape and np.allclose(p, x[0]) for p in x):
        raise CaseError(
            f"{name}: no particle moves: the data say only that the forces vanish at these "
            "positions; give a transient"
        )
    counts = [len(p) for p in x]
    if labels is None and len(set(counts)) > 1:
        n = next(i for i, k in enumerate(counts) if k != counts[0])
        raise CaseError(
            f"{name}: {counts[0]} particles at t = {t[0]:g} and {counts[n]} at t = {t[n]:g}: where "
            "particles enter or leave, who moved where is needed: name the label's column, or put "
            "the particles on a mesh (data.deposit = true)"
        )
    marks = None if labels is None else tuple(np.asarray(l) for l in labels)
    return Paths(t, tuple(np.asarray(p, dtype=float) for p in x), name, marks)


def read_paths(
    path: Path, columns: Sequence[str], rate: float = 1.0, label: str | None = None
) -> Paths:
    """Trajectories of a CSV file with a header.

    Args:
        path: the file.
        columns: names of the time's column and of the coordinates'.
        rate: rows' times are divided by this (frames a unit of time).
        label: name of the column that says who is who.

    Raises:
        CaseError: no such column, not numbers, one snapshot only, NaN.
    """
    try:
        with path.open(newline="", encoding="utf-8") as f:
            rows = list(csv.reader(f))
    except (OSError, UnicodeDecodeError) as e:
        raise CaseError(f"cannot read {path}: {e}") from None
    header = [c.strip() for c in rows[0]] if rows else []
    columns = [*columns, *([label] if label else [])]
    missing = [c for c in columns if c not in header]
    if missing:
        raise CaseError(f"{path} has no column {missing[0]!r}; it has: {', '.join(header)}")
    at = [header.index(c) for c in columns]
    try:
        table = np.array([[float(row[i]) for i in at] for row in rows[1:] if row])
    except (ValueError, IndexError):
        raise CaseError(f"{path}: a row has something else than numbers") from None
    if not len(table):
        raise CaseError(f"{path} has no rows")
    if not np.isfinite(table).all():
        raise CaseError(f"{path}: a value is not a finite number")
    t = np.unique(table[:, 0])
    parts = [table[table[:, 0] == s] for s in t]
    if label is None:
        return paths(t / rate, [p[:, 1:] for p in parts], path.name)
    return paths(t / rate, [p[:, 1:-1] for p in parts], path.name, [p[:, -1] for p in parts])


@numba.njit(cache=True, fastmath=True)
def _pairs(x, first, last, step, table):  # type: ignore[no-untyped-def]
    """For rows first..last: forces (rows, dim, K), sums of psi (K,) and of Laplace psi (K,).

    The table holds psi, Laplace psi and psi' of a radius side by side, (radii, K, 3).
    """
    N, dim = x.shape
    K = table.shape[1]
    F = np.zeros((last - first, dim, K))
    e, l = np.zeros(K), np.zeros(K)
    for i in range(first, last):
        for j in range(N):
            if i == j:
                continue
            r2 = 0.0
            for d in range(dim):
                r2 += (x[i, d] - x[j, d]) ** 2
            r = np.sqrt(r2)
            place = min(r / step, table.shape[0] - 1.001)
            k0 = int(place)
            a = place - k0
            inverse = 1 / max(r, 1e-300)
            for k in range(K):
                e[k] += (1 - a) * table[k0, k, 0] + a * table[k0 + 1, k, 0]
                l[k] += (1 - a) * table[k0, k, 1] + a * table[k0 + 1, k, 1]
                f = ((1 - a) * table[k0, k, 2] + a * table[k0 + 1, k, 2]) * inverse
                for d in range(dim):
                    F[i - first, d, k] += f * (x[i, d] - x[j, d])
    return F, e, l


def assemble_paths(
    comm: MPI.Comm,
    atoms: Sequence[Atom],
    data: Paths,
    *,
    sigma: float = 0.0,
    drifts: Sequence[Atom] = (),
) -> Quadratic:
    """A and b from positions; the rows of pairs are shared by the ranks. Collective.

    Args:
        comm: communicator.
        atoms: interaction potentials.
        data: positions, the same on all ranks.
        sigma: known diffusion.
        drifts: further columns, external potentials V_k = coordinate monomials (`monomials`).
    """
    dim = data.x[0].shape[1]
    reach = max(float(np.linalg.norm(np.ptp(p, axis=0))) for p in data.x)
    r = np.linspace(0, 1.001 * reach, TABLE)
    psi = np.stack([a.psi(r) for a in atoms], axis=1)
    slope = np.stack([_at_zero(a.slope, r) for a in atoms], axis=1)
    second = np.gradient(slope, r, axis=0)
    laplace = second + (dim - 1) * slope / np.maximum(r, r[1] / 2)[:, None]
    _in_ball(laplace, r, atoms, data)
    table = np.stack([psi, laplace, slope], axis=2)
    K, n_t = len(atoms), len(data.t)
    size = K + len(drifts)
    A, b, energies = np.zeros((size, size)), np.zeros(size), np.zeros((n_t, size))
    w = time_weights(data.t) if len(data.t) % 2 else _trapezoidal(data.t)
    if data.open:
        w = np.append(np.diff(data.t), 0.0)  # of the forward differences
    for n, x in enumerate(data.x):
        N = len(x)
        first, last = N * comm.rank // comm.size, N * (comm.rank + 1) // comm.size
        F, e, l = _pairs(np.ascontiguousarray(x), first, last, r[1], table)
        energies[n, :K] = e / (2 * N**2)
        b[:K] += w[n] * sigma * l / N**2
        rows = [F / N]
        for k, V in enumerate(drifts):
            value, gradient, laplacian = V(x[first:last])  # type: ignore[operator]
            rows.append(gradient[:, :, None])
            energies[n, K + k] = value.sum() / N
            b[K + k] += w[n] * sigma * laplacian.sum() / N
        X = np.concatenate(rows, axis=2)
        if data.open and n + 1 < n_t:
            v, moved = steps(data, n)
            X = X * moved[first:last, None, None]
            b -= w[n] / N * np.tensordot(v[first:last], X, axes=([0, 1], [0, 1]))
        X = X.reshape(-1, size)
        A += w[n] / N * X.T @ X
    if not data.open:
        b -= energies[-1] - energies[0]
    both = total(comm, np.vstack([A, b[None]])) / (data.t[-1] - data.t[0])
    return Quadratic((both[:-1] + both[:-1].T) / 2, both[-1])


def particle_time(data: Paths) -> float:
    """N T; over 2 sigma it makes the data's form a likelihood."""
    return float(np.mean([len(p) for p in data.x]) * (data.t[-1] - data.t[0]))


def steps(data: Paths, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Forward difference quotients (N, dim) at a snapshot, and who is there at the next (N,)."""
    x, dt = data.x[n], data.t[n + 1] - data.t[n]
    if data.labels is None:
        return (data.x[n + 1] - x) / dt, np.ones(len(x), dtype=bool)
    v, moved = np.zeros_like(x), np.zeros(len(x), dtype=bool)
    _, here, there = np.intersect1d(data.labels[n], data.labels[n + 1], return_indices=True)
    v[here], moved[here] = (data.x[n + 1][there] - x[here]) / dt, True
    return v, moved


def diffusion_of(data: Sequence[Paths]) -> float:
    """Sigma from differences of successive velocities of the same particle.

    For v_n = (X_{n+1} - X_n) / dt_n the drift and its first change in time drop out of

        E |v_{n+1} - v_n|^2 = 2 dim sigma (1/dt_n + 1/dt_{n+1}) + O(dt);

    the error is O((N n_t)^(-1/2)).

    Args:
        data: labelled, three times at least.

    Raises:
        CaseError: no labels, or nobody who is seen three times in a row.
    """
    square = expected = 0.0
    for d in data:
        if d.labels is None:
            raise CaseError(
                f"{d.name}: the diffusion of particles is estimated from who moved where: name the "
                "label's column (data.label), give diffusion, or take data.deposit = true"
            )
        dim = d.x[0].shape[1]
        for n in range(len(d.t) - 2):
            v, moved = steps(d, n)
            u, on = steps(d, n + 1)
            _, here, there = np.intersect1d(
                d.labels[n][moved], d.labels[n + 1][on], return_indices=True
            )
            gap = u[on][there] - v[moved][here]
            square += float((gap**2).sum())
            rates = 1 / (d.t[n + 1] - d.t[n]) + 1 / (d.t[n + 2] - d.t[n + 1])
            expected += 2 * dim * len(gap) * float(rates)
    if expected == 0:
        raise CaseError("nobody is seen at three times in a row: the diffusion cannot be estimated")
    return square / expected


def _at_zero(slope, r: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Psi' with its limit at 0+, which the look-up between 0 and the first point needs."""
    f = np.asarray(slope(r), dtype=float).copy()
    f[0] = 2 * f[1] - f[2] if abs(f[1]) < 10 * abs(f[2]) + 1e-300 else f[1]
    return f


def _in_ball(laplace: np.ndarray, r: np.ndarray, atoms: Sequence[Atom], data: Paths) -> None:
    """Means of singular Laplacians in a ball, in place of the table's values there."""
    dim = data.x[0].shape[1]
    spread = np.sqrt(np.mean([p.var(axis=0).mean() for p in data.x]))
    wanted = BALL * spread / np.sqrt(min(len(p) for p in data.x))
    last = max(2, int(wanted / r[1]))
    eps = (last + 0.5) * r[1]  # to where the look-up goes over to the next value
    for k, a in enumerate(atoms):
        near, at = np.asarray(a.slope(np.array([eps / 100, eps])), dtype=float)
        if abs(near) > SINGULAR * abs(at):
            laplace[: last + 1, k] = dim * at / eps


def _trapezoidal(t: np.ndarray) -> np.ndarray:
    w = np.zeros(len(t))
    w[1:] += np.diff(t) / 2
    w[:-1] += np.diff(t) / 2
    return w
