"""Reduced models for large batches: small Cholesky factorisations, many parameters side by side.

64 parameters share one loop: their matrices are stored entry by entry, 64 numbers each, so that
every operation of the factorisation is one on vectors (structure of arrays). The error bound of the
batch is one matrix product.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fem_apps.errors import SolveError
from fem_apps.surrogates.reduced_basis_online import ReducedModel

WIDTH = 64


class BatchSolver:
    """u_N and Delta_N of a model for arrays of parameters, compiled for its size.

    Args:
        model: theta positive where the matrix is to be positive definite, as its bound certifies.
    """

    def __init__(self, model: ReducedModel) -> None:
        self.model = model
        rows, columns = np.tril_indices(model.size)
        # lower triangles, row by row: shape (Q, N (N + 1)/2)
        self._operators = np.ascontiguousarray(model.operators[:, rows, columns])
        self._loads = np.ascontiguousarray(model.loads)
        # without the rows that are zero, G^T G = R^T R with R square: the shortest that is stable
        R: np.ndarray = np.asarray(np.linalg.qr(model.residual, mode="r"))
        self._residual = np.ascontiguousarray(R.T)

    def coefficients(self, mu: np.ndarray) -> np.ndarray:
        """u_N, shape (n, N), of parameters of shape (n, P).

        Raises:
            SolveError: the reduced matrix is not positive definite.
        """
        theta = np.ascontiguousarray(self.model.theta(mu))
        phi = np.ascontiguousarray(self.model.theta_load(mu))
        out = np.empty((len(mu), self.model.size))
        ok = _solve(self._operators, self._loads, theta, phi, out, WIDTH)
        if not ok:
            raise SolveError(
                "reduced Cholesky factorisation",
                "a matrix is not positive definite",
                advice="parameters for which the equation is coercive",
            )
        return out

    def error_bound(self, mu: np.ndarray, u: np.ndarray | None = None) -> np.ndarray:
        """Delta_N, shape (n,)."""
        m = self.model
        if u is None:
            u = self.coefficients(mu)
        theta, phi = m.theta(mu), m.theta_load(mu)
        r = np.empty((len(mu), self._residual.shape[0]))
        _residual_entries(np.ascontiguousarray(theta), np.ascontiguousarray(phi), u, r)
        product = r @ self._residual
        delta = np.sqrt(np.einsum("ij,ij->i", product, product))
        if m.gap is not None:
            delta += m.gap(mu) * np.sqrt(np.einsum("ij,ij->i", u, u))
        alpha = m.bound(mu)
        return np.where(alpha > 0, delta / np.where(alpha > 0, alpha, 1.0), np.inf)


@njit(cache=True, fastmath=True, error_model="numpy")
def _residual_entries(theta, phi, u, out):  # type: ignore[no-untyped-def]
    n, Q = theta.shape
    F, N = phi.shape[1], u.shape[1]
    for i in range(n):
        for f in range(F):
            out[i, f] = phi[i, f]
        for k in range(N):
            v = -u[i, k]
            for q in range(Q):
                out[i, F + k * Q + q] = v * theta[i, q]


@njit(cache=True, fastmath=True, error_model="numpy")
def _solve(operators, loads, theta, phi, out, width):  # type: ignore[no-untyped-def]
    # `width` is not a constant on purpose: loops of known length would be unrolled into scalar code
    n, N = out.shape
    Q, entries = operators.shape
    F = loads.shape[0]
    A, b = np.empty((entries, width)), np.empty((N, width))
    t, p = np.empty((Q, width)), np.empty((F, width))
    s = np.empty(width)
    good = True
    for first in range(0, n, width):
        for w in range(width):
            at = min(first + w, n - 1)
            for q in range(Q):
                t[q, w] = theta[at, q]
            for f in range(F):
                p[f, w] = phi[at, f]
        for e in range(entries):
            for w in range(width):
                s[w] = operators[0, e] * t[0, w]
            _add(s, operators[:, e], t, 1, Q)
            for w in range(width):
                A[e, w] = s[w]
        for k in range(N):
            for w in range(width):
                s[w] = loads[0, k] * p[0, w]
            _add(s, loads[:, k], p, 1, F)
            for w in range(width):
                b[k, w] = s[w]
        # row by row: L_ij = (A_ij - sum_k L_ik L_jk)/L_jj, the right side as one more row
        for i in range(N):
            oi = i * (i + 1) // 2
            for j in range(i):
                oj = j * (j + 1) // 2
                _subtract(s, A, oi, A, oj, A[oi + j], j)
                for w in range(width):
                    A[oi + j, w] = s[w] * A[oj + j, w]  # the diagonal holds 1/L_jj
            _subtract(s, A, oi, A, oi, A[oi + i], i)
            least = s[0]
            for w in range(width):
                least = min(least, s[w])
                A[oi + i, w] = 1.0 / np.sqrt(s[w])
            good = good and least > 0.0
            _subtract(s, A, oi, b, 0, b[i], i)
            for w in range(width):
                b[i, w] = s[w] * A[oi + i, w]
        for i in range(N - 1, -1, -1):
            oi = i * (i + 1) // 2
            for w in range(width):
                b[i, w] *= A[oi + i, w]
            for k in range(i):
                for w in range(width):
                    b[k, w] -= A[oi + k, w] * b[i, w]
        for w in range(min(width, n - first)):
            for k in range(N):
                out[first + w, k] = b[k, w]
    return good


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _subtract(s, X, x, Y, y, start, count):  # type: ignore[no-untyped-def]
    """S = start - sum_{k < count} X[x + k] Y[y + k], four terms a pass."""
    n = len(s)
    for w in range(n):
        s[w] = start[w]
    k = 0
    while k + 4 <= count:
        for w in range(n):
            s[w] -= (
                X[x + k, w] * Y[y + k, w]
                + X[x + k + 1, w] * Y[y + k + 1, w]
                + X[x + k + 2, w] * Y[y + k + 2, w]
                + X[x + k + 3, w] * Y[y + k + 3, w]
            )
        k += 4
    while k < count:
        for w in range(n):
            s[w] -= X[x + k, w] * Y[y + k, w]
        k += 1


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _add(s, a, t, first, last):  # type: ignore[no-untyped-def]
    """S += sum_{first <= q < last} a_q t_q, three terms a pass."""
    n = len(s)
    q = first
    while q + 3 <= last:
        for w in range(n):
            s[w] += a[q] * t[q, w] + a[q + 1] * t[q + 1, w] + a[q + 2] * t[q + 2, w]
        q += 3
    while q < last:
        for w in range(n):
            s[w] += a[q] * t[q, w]
        q += 1
