"""Reduced bases for coercive affine problems: weak greedy, POD, residuals that certify them.

    sum_q theta_q(mu) (A_q u, v) = sum_i phi_i(mu) (b_i, v)   for all v in V_N = span of snapshots.

Everything is orthonormal in one inner product X. The residual r(mu) lies in the span of the Riesz
representatives of b_i and A_q phi_n; an orthonormal basis of that span, built beside V_N, turns its
dual norm into the length of a short vector without cancellation (Buhr, Engwer, Ohlberger, Rave,
arXiv 1407.8005). With alpha_LB a lower bound of the coercivity constant in X,

    |u - u_N|_X <= Delta_N(mu) = |r(mu)|_X' / alpha_LB(mu).

Vectors are the owned entries of distributed ones; nothing here knows of finite elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fem_apps.mpi import total
from fem_apps.surrogates.reduced_basis_online import ReducedModel, Theta

# a vector is in a span where orthogonalisation leaves less than this share of it
DEPENDENT = 1e-13


class FullModel(Protocol):
    """What the offline stage needs of a discretised problem. All methods are collective."""

    comm: Any
    ranges: dict[str, tuple[float, float]]
    theta: Theta
    theta_load: Theta
    bound: Theta
    gap: Theta | None

    @property
    def right_sides(self) -> np.ndarray:
        """The b_i, shape (F, n)."""

    @property
    def outputs(self) -> np.ndarray:
        """Quantities of interest, one row each, shape (number, n)."""

    def solve(self, mu: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """The solution at one parameter."""

    def products(self, u: np.ndarray) -> Iterable[np.ndarray]:
        """A_q u for each q, as functionals."""

    def inner(self, u: np.ndarray) -> np.ndarray:
        """X u."""

    def riesz(self, w: np.ndarray) -> np.ndarray:
        """X^-1 w."""


class Span:
    """An X-orthonormal basis that grows; orthogonalises twice, which is enough.

    Attributes:
        vectors: the basis, shape (n, N).
    """

    def __init__(self, model: FullModel, n: int) -> None:
        self._model = model
        self._store: np.ndarray = np.empty((n, 8), order="F")
        self.size = 0

    @property
    def vectors(self) -> np.ndarray:
        """The basis, shape (n, N), a view."""
        return self._store[:, : self.size]

    def add(self, v: np.ndarray, dual: np.ndarray | None = None) -> np.ndarray:
        """Put v into the span; its coordinates in the basis afterwards. Collective.

        Args:
            v: the vector.
            dual: X v where it is known.
        """
        comm, E = self._model.comm, self.vectors
        x = self._model.inner(v) if dual is None else dual
        first = before = np.sqrt(max(total(comm, float(v @ x)), 0.0))
        c, v = np.zeros(self.size), v.copy()
        for _ in range(4):
            if self.size:
                step = total(comm, E.T @ x)
                v -= E @ step
                c += step
                x = self._model.inner(v)
            norm = np.sqrt(max(total(comm, float(v @ x)), 0.0))
            if norm <= DEPENDENT * first or norm > 0.7 * before:
                break
            before = norm
        if norm <= DEPENDENT * first or first == 0.0:
            return c
        if self.size == self._store.shape[1]:
            self._store = np.concatenate([self._store, np.empty_like(self._store)], axis=1)
            self._store = np.asfortranarray(self._store)
        self._store[:, self.size] = v / norm
        self.size += 1
        return np.append(c, norm)


@dataclass
class Step:
    """One step of the greedy: what it saw and what it took."""

    size: int
    largest: float
    index: int
    mu: np.ndarray


class Offline:
    """The reduced model as it grows, one basis vector at a time.

    Attributes:
        basis: V_N, X-orthonormal.
        rank: dimension of the space in which residuals live.
    """

    def __init__(self, model: FullModel) -> None:
        self.model = model
        b = model.right_sides
        self.basis, self._dual = Span(model, b.shape[1]), Span(model, b.shape[1])
        self._columns = [self._dual.add(model.riesz(w), w) for w in b]
        self._operators: np.ndarray | None = None

    @property
    def size(self) -> int:
        """N."""
        return self.basis.size

    @property
    def rank(self) -> int:
        """Dimension of the span of residuals."""
        return self._dual.size

    def extend(self, u: np.ndarray) -> bool:
        """Add a snapshot; False if it was in the span already. Collective."""
        before = self.size
        self.basis.add(u)
        if self.size == before:
            return False
        new = self.basis.vectors[:, before].copy()
        rows = []
        for w in self.model.products(new):
            rows.append(total(self.model.comm, self.basis.vectors.T @ w))
            self._columns.append(self._dual.add(self.model.riesz(w), w))
        row = np.array(rows)
        A = np.zeros((len(row), before + 1, before + 1))
        if self._operators is not None:
            A[:, :before, :before] = self._operators
        A[:, before, :], A[:, :, before] = row, row
        self._operators = A
        return True

    def reduced(self) -> ReducedModel:
        """The online model of what there is so far. Collective."""
        m, Phi = self.model, self.basis.vectors
        G = np.zeros((self.rank, len(self._columns)))
        for k, c in enumerate(self._columns):
            G[: len(c), k] = c
        A = self._operators
        if A is None:
            A = np.zeros((len(m.theta(np.array([_centre(m.ranges)]))[0]), 0, 0))
        return ReducedModel(
            theta=m.theta,
            theta_load=m.theta_load,
            bound=m.bound,
            ranges=dict(m.ranges),
            operators=A,
            loads=total(m.comm, m.right_sides @ Phi),
            residual=G,
            outputs=total(m.comm, m.outputs @ Phi),
            gap=m.gap,
        )


def _centre(ranges: dict[str, tuple[float, float]]) -> np.ndarray:
    return np.array([0.5 * (a + b) for a, b in ranges.values()])


def weak_greedy(
    offline: Offline,
    training: np.ndarray,
    size: int,
    *,
    tolerance: float = 0.0,
    relative: bool = False,
    steps: list[Step] | None = None,
    after: Callable[[Step], None] | None = None,
) -> list[Step]:
    """Extend by the parameter with the largest error bound until N = size. Collective.

    Args:
        offline: what is extended.
        training: parameters, shape (n, P), the same on all ranks.
        size: largest N.
        tolerance: stop where the largest bound is at most this.
        relative: bounds divided by |u_N|_X.
        steps: steps of an interrupted run: their snapshots are taken again.
        after: called after every step, to save or to stop.

    Returns:
        Every step; the last one has index -1 where it only measured the final bound.
    """
    done: list[Step] = []
    taken = np.zeros(len(training), dtype=bool)
    for s in steps or []:
        taken[s.index] = True
        offline.extend(offline.model.solve(s.mu))
        done.append(s)
    while True:
        values = offline.reduced().error_bound(training, relative=relative)
        at = int(values.argmax())
        last = Step(offline.size, float(values[at]), -1, training[at])
        if offline.size >= size or last.largest <= tolerance:
            return [*done, last]
        if offline.model.gap is not None:
            # the gap of an approximate operator stays where a snapshot has been taken
            at = int(np.where(taken, -1.0, values).argmax())
        if taken[at] or not offline.extend(offline.model.solve(training[at])):
            return [*done, last]  # nothing left that rounding does not hide
        taken[at] = True
        step = Step(last.size, float(values[at]), at, training[at])
        done.append(step)
        if after is not None:
            after(step)


def pod(
    model: FullModel, snapshots: np.ndarray, size: int, tolerance: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Proper orthogonal decomposition in X, by the Gram matrix of the snapshots. Collective.

    Args:
        model: for its inner product.
        snapshots: shape (number, n).
        size: largest number of modes.
        tolerance: modes with sigma_k <= tolerance sigma_1 are left out.

    Returns:
        Modes, shape (N, n), and all singular values (square roots of the Gram eigenvalues; those
        under 1e-8 sigma_1 are rounding).
    """
    images = np.array([model.inner(u) for u in snapshots])
    values, vectors = np.linalg.eigh(total(model.comm, snapshots @ images.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    sigma = np.sqrt(np.maximum(values, 0.0))
    n = min(size, int((sigma > max(tolerance, 1e-15) * sigma[0]).sum()))
    return (vectors[:, :n] / sigma[:n]).T @ snapshots, sigma
