"""Sparse minimisers of a quadratic cost c.A c - 2 b.c over a coherent dictionary.

With A = Q Lam Q^T the cost is |Phi c - u|^2 up to a constant, Phi = Lam^(1/2) Q^T, u = Lam^(-1/2)
Q^T b (`square_root`); columns of Phi are normalised before any selection. All solvers return a
`Fit`; supports are sorted tuples of column numbers.

* `partial_inversion`: PartInv (Chen, Divekar & Needell 2013, arXiv:1311.0314; used for interaction
  kernels by Carrillo, Estrada-Rodriguez, Mikolas & Tang 2024, arXiv:2402.06355). The kept block is
  inverted exactly, and its coefficients compete with the correlations of the residual outside.
* `subspace_pursuit` (Dai & Milenkovic 2009, arXiv:0803.0811), `matching_pursuit` (OMP).
* `best_subset`: exhaustive, for small supports; `swap_descent` improves any support by single
swaps.
* `sequential_thresholding` (Brunton, Proctor & Kutz 2016), `lasso` (scikit-learn's path, refitted).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

# Eigenvalues of A below this part of the largest are noise of rounding.
CUT = 1e-12
# Subsets that exhaustive search may try.
MAX_SUBSETS = 300_000


@dataclass(frozen=True)
class Fit:
    """A sparse minimiser.

    Attributes:
        support: columns with a coefficient, sorted.
        c: all coefficients, (columns,).
        cost: c.A c - 2 b.c, 0 for no coefficient at all.
    """

    support: tuple[int, ...]
    c: np.ndarray
    cost: float


def refit(A: np.ndarray, b: np.ndarray, support: Iterable[int]) -> Fit:
    """Least squares on a support, (n, n), (n,) -> Fit; columns scaled, rank-deficiency cut off."""
    s = sorted(int(i) for i in support)
    c = np.zeros(len(b))
    if s:
        block = A[np.ix_(s, s)]
        scale = 1 / np.sqrt(np.maximum(np.diag(block), 1e-300))
        c[s] = scale * np.linalg.lstsq(block * np.outer(scale, scale), scale * b[s], rcond=1e-13)[0]
    return Fit(tuple(s), c, float(c @ A @ c - 2 * b @ c))


def square_root(A: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phi (rank, n) and u (rank,) with |Phi c - u|^2 = c.A c - 2 b.c + constant."""
    values, Q = np.linalg.eigh((A + A.T) / 2)
    keep = values > CUT * values[-1]
    root = np.sqrt(values[keep])
    return root[:, None] * Q[:, keep].T, (Q[:, keep].T @ b) / root


def normalised(Phi: np.ndarray) -> np.ndarray:
    """Columns of unit length; zero columns stay."""
    return Phi / np.maximum(np.linalg.norm(Phi, axis=0), 1e-300)


def _largest(x: np.ndarray, size: int) -> tuple[int, ...]:
    """Places of the entries of largest absolute value, sorted."""
    return tuple(sorted(int(k) for k in np.argsort(-np.abs(x))[:size]))


def partial_inversion(
    Phi: np.ndarray, u: np.ndarray, size: int, iterations: int = 50
) -> tuple[int, ...]:
    """PartInv: the `size` columns that it keeps.

    x_I = pinv(Phi_I) u on the kept set I; on its complement x_J = Phi_J^T (u - Phi_I x_I); the next
    I are the largest entries of both. It ends where I repeats, with the set of least residual.

    Args:
        Phi: (rows, n).
        u: (rows,).
        size: number of columns kept, at most min(rows, n).
        iterations: limit.
    """
    P = normalised(Phi)
    size = min(size, *P.shape)
    kept = _largest(P.T @ u, size)
    best, least, seen = kept, np.inf, set()
    for _ in range(iterations):
        if kept in seen:
            break
        seen.add(kept)
        x = np.zeros(P.shape[1])
        x[list(kept)] = np.linalg.lstsq(P[:, list(kept)], u, rcond=None)[0]
        r = u - P @ x
        if r @ r < least:
            best, least = kept, float(r @ r)
        outside = np.ones(P.shape[1], dtype=bool)
        outside[list(kept)] = False
        x[outside] = P[:, outside].T @ r
        kept = _largest(x, size)
    return best


def subspace_pursuit(
    Phi: np.ndarray, u: np.ndarray, size: int, iterations: int = 50
) -> tuple[int, ...]:
    """Subspace pursuit: the `size` columns of (rows, n) that it keeps."""
    P = normalised(Phi)
    size = min(size, *P.shape)
    kept = np.argsort(-np.abs(P.T @ u))[:size]
    r = u - P[:, kept] @ np.linalg.lstsq(P[:, kept], u, rcond=None)[0]
    for _ in range(iterations):
        union = np.union1d(kept, np.argsort(-np.abs(P.T @ r))[:size])
        x = np.linalg.lstsq(P[:, union], u, rcond=None)[0]
        new = union[np.argsort(-np.abs(x))[:size]]
        residual = u - P[:, new] @ np.linalg.lstsq(P[:, new], u, rcond=None)[0]
        if residual @ residual >= r @ r * (1 - 1e-12):
            break
        kept, r = new, residual
    return tuple(sorted(int(k) for k in kept))


def matching_pursuit(Phi: np.ndarray, u: np.ndarray, size: int) -> tuple[int, ...]:
    """Orthogonal matching pursuit: one column after another."""
    P = normalised(Phi)
    kept: list[int] = []
    r = u
    for _ in range(min(size, *P.shape)):
        kept.append(int(np.argmax(np.abs(P.T @ r))))
        r = u - P[:, kept] @ np.linalg.lstsq(P[:, kept], u, rcond=None)[0]
    return tuple(sorted(set(kept)))


def best_subset(
    A: np.ndarray, b: np.ndarray, size: int, among: Sequence[int] | None = None, count: int = 1
) -> list[Fit]:
    """The `count` supports of `size` columns with the least cost, by trying all of them.

    Args:
        A: (n, n).
        b: (n,).
        size: columns in a support.
        among: columns to choose from; all if None.
        count: how many, best first.

    Raises:
        ValueError: more subsets than `MAX_SUBSETS`.
    """
    columns = np.arange(len(b)) if among is None else np.array(sorted(among))
    if comb(len(columns), size) > MAX_SUBSETS:
        raise ValueError(f"{comb(len(columns), size)} subsets of {size} are too many to try")
    scale = 1 / np.sqrt(np.maximum(np.diag(A), 1e-300))
    As, bs = A * np.outer(scale, scale), b * scale
    sets = columns[np.array(list(combinations(range(len(columns)), size)), dtype=int)]
    blocks = As[sets[:, :, None], sets[:, None, :]]
    values, Q = np.linalg.eigh(blocks)
    t = np.einsum("nij,ni->nj", Q, bs[sets])
    kept = values > 1e-11 * values[:, -1:]
    costs = -(np.where(kept, t, 0.0) ** 2 / np.where(kept, values, 1.0)).sum(axis=1)
    order = np.argsort(costs, kind="stable")[:count]
    return [refit(A, b, sets[i]) for i in order]


def swap_descent(A: np.ndarray, b: np.ndarray, support: Sequence[int]) -> Fit:
    """Exchange one column at a time for the better as long as the cost falls."""
    fit = refit(A, b, support)
    while True:
        inside, found = set(fit.support), fit
        for i in fit.support:
            for j in set(range(len(b))) - inside:
                trial = refit(A, b, (inside - {i}) | {j})
                if trial.cost < found.cost * (1 + 1e-12) and trial.cost < found.cost:
                    found = trial
        if found is fit:
            return fit
        fit = found


def sequential_thresholding(
    A: np.ndarray, b: np.ndarray, threshold: float = 0.1, iterations: int = 20
) -> Fit:
    """STLSQ: refit, drop what is below `threshold` times the largest, until nothing is dropped.

    Coefficients are compared after scaling the columns of A to unit diagonal.
    """
    size = np.sqrt(np.maximum(np.diag(A), 0))
    support: tuple[int, ...] = tuple(range(len(b)))
    for _ in range(iterations):
        fit = refit(A, b, support)
        weight = np.abs(fit.c) * size
        new = tuple(i for i in support if weight[i] >= threshold * weight.max(initial=0.0))
        if new == support:
            break
        support = new
    return refit(A, b, support)


def lasso(A: np.ndarray, b: np.ndarray, size: int) -> Fit:
    """The first support of `size` columns on the LASSO path (LARS, scikit-learn), refitted."""
    from sklearn.linear_model import lars_path_gram

    scale = 1 / np.sqrt(np.maximum(np.diag(A), 1e-300))
    _, _, path = lars_path_gram(
        b * scale, A * np.outer(scale, scale), n_samples=1, method="lasso", max_iter=20 * len(b)
    )
    counts = (path != 0).sum(axis=0)
    fitting = np.flatnonzero(counts <= size)
    at = fitting[np.argmax(counts[fitting])]
    return refit(A, b, [int(k) for k in np.flatnonzero(path[:, at])])
