"""Compiled loops over the edges of a node graph: group finite elements and flux correction.

Rows are owned nodes, `indptr` and `cols` their neighbours; see `continuity_p1` for the equations.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAST = {"contract", "nsz", "arcp"}


@njit(cache=True, error_model="numpy", fastmath=FAST)
def edge_products(indptr, cols, a, at, v, k, kt):  # type: ignore[no-untyped-def]
    """k_ij = a_ij . v_j and k_ji = a_ji . v_i of the rows i."""
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            j = cols[e]
            s, r = 0.0, 0.0
            for d in range(v.shape[1]):
                s += a[e, d] * v[j, d]
                r += at[e, d] * v[i, d]
            k[e], kt[e] = s, r


@njit(cache=True, error_model="numpy")
def rates(indptr, mass, k, kt, diagonal, sign):  # type: ignore[no-untyped-def]
    """-l_ii / m_i."""
    out = np.empty(len(mass))
    for i in range(len(mass)):
        s = sign * diagonal[i]
        for e in range(indptr[i], indptr[i + 1]):
            s -= max(-sign * k[e], 0.0, -sign * kt[e])
        out[i] = -s / mass[i]
    return out


@njit(cache=True, error_model="numpy", fastmath=FAST)
def low_order(indptr, cols, mass, k, kt, diagonal, a, u, dt, out):  # type: ignore[no-untyped-def]
    """Out = u + dt L u / m, a sum of products of non-negative numbers while dt is small enough."""
    for i in range(len(out)):
        own, s = a * diagonal[i], 0.0
        for e in range(indptr[i], indptr[i + 1]):
            kij = a * k[e]
            d = max(-kij, 0.0, -a * kt[e])
            own -= d
            s += max(kij + d, 0.0) * u[cols[e]]
        h = dt / mass[i]
        out[i] = (1.0 + h * own) * u[i] + h * s


@njit(cache=True, error_model="numpy", fastmath=FAST)
def galerkin(indptr, cols, k, diagonal, a, u, out):  # type: ignore[no-untyped-def]
    """Out = K u."""
    for i in range(len(out)):
        s = diagonal[i] * u[i]
        for e in range(indptr[i], indptr[i + 1]):
            s += k[e] * u[cols[e]]
        out[i] = a * s


@njit(cache=True, error_model="numpy", fastmath=FAST)
def richardson(indptr, cols, mass, m, rhs, w, out):  # type: ignore[no-untyped-def]
    """Out = w + (rhs - M_C w) / m."""
    for i in range(len(out)):
        s = rhs[i]
        for e in range(indptr[i], indptr[i + 1]):
            s -= m[e] * (w[cols[e]] - w[i])
        out[i] = s / mass[i]


@njit(inline="always", error_model="numpy")
def _flux(m, k, kt, a, du, dw, dt):  # type: ignore[no-untyped-def]
    """f_ij from u_i - u_j and w_i - w_j, prelimited."""
    f = dt * (m * dw + max(-a * k, 0.0, -a * kt) * du)
    return 0.0 if f * du < 0.0 else f


@njit(cache=True, error_model="numpy")
def zalesak(indptr, cols, mass, m, k, kt, a, u, w, dt, plus, minus):  # type: ignore[no-untyped-def]
    """R+ and R- of each node."""
    for i in range(len(plus)):
        low, high, p, q = u[i], u[i], 0.0, 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = cols[e]
            low, high = min(low, u[j]), max(high, u[j])
            f = _flux(m[e], k[e], kt[e], a, u[i] - u[j], w[i] - w[j], dt)
            p += max(f, 0.0)
            q += min(f, 0.0)
        room, under = mass[i] * (high - u[i]), mass[i] * (low - u[i])
        plus[i] = min(1.0, room / p) if p > 0.0 else 1.0
        minus[i] = min(1.0, under / q) if q < 0.0 else 1.0


@njit(cache=True, error_model="numpy")
def corrected(indptr, cols, mass, m, k, kt, a, u, w, dt, plus, minus, out):  # type: ignore[no-untyped-def]
    """u_i + sum_j alpha_ij f_ij / m_i, within the bounds of u around i to the last bit."""
    for i in range(len(out)):
        s, low, high = 0.0, u[i], u[i]
        for e in range(indptr[i], indptr[i + 1]):
            j = cols[e]
            low, high = min(low, u[j]), max(high, u[j])
            f = _flux(m[e], k[e], kt[e], a, u[i] - u[j], w[i] - w[j], dt)
            s += f * (min(plus[i], minus[j]) if f > 0.0 else min(minus[i], plus[j]))
        out[i] = min(max(u[i] + s / mass[i], low), high)
