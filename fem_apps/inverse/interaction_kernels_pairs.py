"""The quadratic error functional of particle data: the empirical measure, no mesh.

For dX_i = -grad(W * mu_N + V)(X_i) dt + sqrt(2 sigma) dB_i with mu_N = (1/N) sum_i delta_{X_i},

    A_kl = (1/T) sum_n w_n (1/N) sum_i grad Phi_k(X_i) . grad Phi_l(X_i),
    b_k  = -(1/T) { [e_k(mu_N)]_0^T - sigma sum_n w_n (1/N) sum_i Laplace Phi_k(X_i) },

e_k = (1/2N^2) sum_ij psi_k(|X_i - X_j|) or (1/N) sum_i V_k(X_i): Ito's formula for e_k, so labels
are not needed (arXiv:2604.02581). Where particles enter or leave it does not hold; there labels
give forward differences V_i, and -(1/T) sum_n w_n (1/N) sum_i V_i . grad Phi_k(X_i) takes the
place of b. Sums over pairs i != j.

**Likelihood.** Of the true c, b - A c is a martingale over N T: its covariance is
2 sigma / (N T) A, and were all times seen, N T / (2 sigma) (c.A c - 2 b.c) would be -2 log of the
likelihood of the paths (Girsanov). Sums over time add an error of covariance R, which may be far
above that of the martingale of near-duplicate atoms: close pairs come and go between two
snapshots. With both,

    S = 2 sigma / (N T) A + R,    |b - A c|^2 in S^(-1) = const + c.A S^(-1) A c - 2 b.S^(-1) A c.

R is found from second differences in time of the summands of b - A c: noise that is independent
from one snapshot to the next has six times its covariance there, a smooth course next to nothing.

A kink (|x| on the line) or a pole (log |x| in the plane) has a Dirac measure in its Laplacian,
which no pair meets, and that of |x|^1.5 is seen by too few. Where Laplacians are needed, atoms
whose force does not fall to 0 as r does are mollified: psi goes on as a parabola in a ball of
radius eps, with psi' = psi'(eps) r / eps and Laplace psi = dim psi'(eps) / eps, the mean of the
true one. The error is of order eps^2, and pairs that meet between two snapshots, whose forces
nobody saw, weigh no more than others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from mpi4py import MPI

from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_functional import Quadratic, time_weights
from fem_apps.inverse.interaction_kernels_particles import Paths, steps
from fem_apps.mpi import total

# x (n, dim) -> V (n,), grad V (n, dim), Laplace V (n,)
Drift = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

# Points of the table of psi, psi', Laplace psi that pairs are looked up in.
TABLE = 4096
# Radius of the ball of mollified atoms: so many spreads of the particles over N^(1/2). It holds
# N pairs at least in the plane, and the error eps^2 falls as 1/N.
BALL = 2.0
# An atom whose force from eps to eps / 100 falls to no less than this is singular at 0; that of a
# bounded Laplacian falls to 0.01.
SINGULAR = 0.03
# Part of the greatest eigenvalue of A below which the data say nothing of a direction.
SILENT = 1e-12


@dataclass(frozen=True)
class Sums:
    """The summands in time.

    Attributes:
        w: weights, (n_t,).
        A: (n_t, K, K).
        b: (n_t, K), less the energies.
        energies: [e_k]_0^T, (K,); 0 where particles enter or leave.
        T: time from first to last.
        count: mean number of particles.
    """

    w: np.ndarray
    A: np.ndarray
    b: np.ndarray
    energies: np.ndarray
    T: float
    count: float

    @property
    def form(self) -> Quadratic:
        """A and b."""
        A = np.tensordot(self.w, self.A, 1) / self.T
        return Quadratic((A + A.T) / 2, (self.w @ self.b - self.energies) / self.T)

    def noise(self, c: np.ndarray) -> np.ndarray:
        """R, the covariance of the error of sums over time in b - A c, (K, K)."""
        if len(self.w) < 3:
            return np.zeros((len(c), len(c)))
        D = np.diff(self.b - self.A @ c, n=2, axis=0)
        return (self.w**2).sum() / self.T**2 * D.T @ D / (6 * len(D))


def likelihood(sums: Sums, sigma: float) -> Quadratic:
    """F = A S^(-1) A, g = A S^(-1) b: c.F c - 2 g.c = const - 2 log of the likelihood of b.

    Args:
        sums: of particles that neither enter nor leave.
        sigma: diffusion, positive.

    Returns:
        The form; `sums.form` where that is not finite.
    """
    q = sums.form
    if not np.isfinite(q.A).all():
        return q
    values, Q = np.linalg.eigh(q.A)
    seen = values > SILENT * values[-1]
    W = Q[:, seen] * np.sqrt(values[seen])  # A = W W^T
    half = Q[:, seen] / np.sqrt(values[seen])
    R = half.T @ sums.noise(half @ (half.T @ q.b)) @ half
    inner = np.linalg.inv(2 * sigma / (sums.count * sums.T) * np.eye(len(R)) + R)
    return Quadratic(W @ inner @ W.T, W @ inner @ (half.T @ q.b))


def pair_sums(
    comm: MPI.Comm,
    atoms: Sequence[Atom],
    data: Paths,
    *,
    sigma: float = 0.0,
    drifts: Sequence[Drift] = (),
) -> Sums:
    """Summands of A and b; the rows of pairs are shared by the ranks. Collective.

    Args:
        comm: communicator.
        atoms: interaction potentials.
        data: positions, the same on all ranks.
        sigma: known diffusion.
        drifts: further columns, external potentials V_k.
    """
    dim = data.x[0].shape[1]
    table, step = _table(atoms, data, dim, sigma > 0 and not data.open)
    K, n_t = len(atoms), len(data.t)
    size = K + len(drifts)
    A, b, energies = np.zeros((n_t, size, size)), np.zeros((n_t, size)), np.zeros((n_t, size))
    for n, x in enumerate(data.x):
        N = len(x)
        first, last = N * comm.rank // comm.size, N * (comm.rank + 1) // comm.size
        F, e, l = _pairs(np.ascontiguousarray(x), first, last, step, table)
        energies[n, :K] = e / (2 * N**2)
        laplace, rows = [l / N**2], [F / N]
        for k, V in enumerate(drifts):
            value, gradient, laplacian = V(x[first:last])
            rows.append(gradient[:, :, None])
            energies[n, K + k] = value.sum() / N
            laplace.append(np.array([laplacian.sum() / N]))
        X = np.concatenate(rows, axis=2)
        if not data.open:
            b[n] = sigma * np.concatenate(laplace)
        elif n + 1 < n_t:
            v, moved = steps(data, n)
            X = X * moved[first:last, None, None]
            b[n] = -np.tensordot(v[first:last], X, axes=([0, 1], [0, 1])) / N
        X = X.reshape(-1, size)
        A[n] = X.T @ X / N
    T = float(data.t[-1] - data.t[0])
    if data.open:
        w = np.append(np.diff(data.t), 0.0)  # of the forward differences
        change = np.zeros(size)
    else:
        w = time_weights(data.t) if n_t % 2 else _trapezoidal(data.t)
        change = energies[-1] - energies[0]
    every = total(comm, np.concatenate([A, b[:, None]], axis=1))
    count = float(np.mean([len(p) for p in data.x]))
    return Sums(w, every[:, :-1], every[:, -1], total(comm, change), T, count)


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


def _table(
    atoms: Sequence[Atom], data: Paths, dim: int, mollified: bool
) -> tuple[np.ndarray, float]:
    """Psi, Laplace psi and psi' on equidistant radii, (radii, K, 3), and their distance."""
    reach = max(float(np.linalg.norm(np.ptp(p, axis=0))) for p in data.x)
    r = np.linspace(0, 1.001 * reach, TABLE)
    psi = np.stack([a.psi(r) for a in atoms], axis=1)
    slope = np.stack([_at_zero(a.slope, r) for a in atoms], axis=1)
    second = np.gradient(slope, r, axis=0)
    laplace = second + (dim - 1) * slope / np.maximum(r, r[1] / 2)[:, None]
    if mollified:
        spread = np.sqrt(np.mean([p.var(axis=0).mean() for p in data.x]))
        wanted = BALL * spread / np.sqrt(min(len(p) for p in data.x))
        inside = slice(max(2, int(wanted / r[1])) + 1)
        eps = (inside.stop - 0.5) * r[1]  # to where the look-up goes over to the next value
        for k, a in enumerate(atoms):
            near, at = np.asarray(a.slope(np.array([eps / 100, eps])), dtype=float)
            if abs(near) > SINGULAR * abs(at):
                psi[inside, k] = a.psi(np.array([eps]))[0] + at / (2 * eps) * (
                    r[inside] ** 2 - eps**2
                )
                slope[inside, k] = at * r[inside] / eps
                laplace[inside, k] = dim * at / eps
    return np.stack([psi, laplace, slope], axis=2), float(r[1])


def _at_zero(slope, r: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Psi' with its limit at 0+, which the look-up between 0 and the first point needs."""
    f = np.asarray(slope(r), dtype=float).copy()
    f[0] = 2 * f[1] - f[2] if abs(f[1]) < 10 * abs(f[2]) + 1e-300 else f[1]
    return f


def _trapezoidal(t: np.ndarray) -> np.ndarray:
    w = np.zeros(len(t))
    w[1:] += np.diff(t) / 2
    w[:-1] += np.diff(t) / 2
    return w
