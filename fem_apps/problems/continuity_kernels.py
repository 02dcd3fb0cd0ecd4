"""Compiled loops of the discontinuous Galerkin scheme: cell updates, boundary fluxes, limiters.

`update_of` makes the loop for a number of basis functions, quadrature points and facets a cell,
which the compiler then unrolls; its data are as in `continuity_blocks`. A stage of Runge-Kutta is
fused with the right-hand side:

    out = a u0 + b (u + dt L(u)),   L(u)_c = M_c^-1 ( int u v . grad phi - sum_F int_F phi F(u) )

with F(u) = (v.n)_+ u_inside + (v.n)_- u_outside, the upwind flux. The boundary's part follows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from fem_apps.problems.continuity_blocks import BLOCK

FAST = {"contract", "nsz", "arcp"}


@lru_cache
def update_of(
    nb: int, nq: int, tdim: int, nf: int, nfq: int, nk: int, affine: bool
) -> Callable[..., None]:
    """The loop for nb basis functions, nq and nfq points in cells and on facets, nf facets a cell.

    Each part is a product with a small matrix, cells innermost: values at the cell's own points
    by `inside` (nq + nf nfq, nb), the neighbours' by `across` (nfq, nk), and what v rho at all
    points does to the dofs by `weak` (nb, nq tdim + nf nfq), the inverse mass matrix included on
    affine cells.
    """
    rows = nq * tdim + nf * nfq

    @njit(cache=True, error_model="numpy", fastmath=FAST)
    def update(  # type: ignore[no-untyped-def]
        u, u0, a, b, dt, scale, G, un, dofs, inside, across, weak, minv, volume, out
    ):
        U, V = np.zeros((nb, BLOCK)), np.zeros((nb, BLOCK))
        N, S = np.zeros((nf * nk, BLOCK)), np.zeros((rows, BLOCK))
        for block in range(len(dofs)):
            start = block * BLOCK
            m = min(BLOCK, len(volume) - start)
            for p in range(m):
                for i in range(nb):
                    U[i, p] = u[(start + p) * nb + i]
            for j in range(nf * nk):
                for p in range(BLOCK):
                    N[j, p] = u[dofs[block, j, p]]
            for q in range(nq):
                for p in range(BLOCK):
                    s = 0.0
                    for i in range(nb):
                        s += inside[q, i] * U[i, p]
                    s *= scale
                    for k in range(tdim):
                        S[q * tdim + k, p] = s * G[block, q * tdim + k, p]
            for e in range(nf):
                for q in range(nfq):
                    j = e * nfq + q
                    for p in range(BLOCK):
                        inner, outer = 0.0, 0.0
                        for i in range(nb):
                            inner += inside[nq + j, i] * U[i, p]
                        for k in range(nk):
                            outer += across[q, k] * N[e * nk + k, p]
                        s = scale * un[block, j, p]
                        S[nq * tdim + j, p] = max(s, 0.0) * inner + min(s, 0.0) * outer
            for i in range(nb):
                for p in range(BLOCK):
                    s = 0.0
                    for j in range(rows):
                        s += weak[i, j] * S[j, p]
                    V[i, p] = s
            for p in range(m):
                h = dt / volume[start + p] if affine else dt
                for i in range(nb):
                    r = V[i, p]
                    if not affine:
                        r = 0.0
                        for j in range(nb):
                            r += minv[start + p, i, j] * V[j, p]
                    at = (start + p) * nb + i
                    out[at] = a * u0[at] + b * (U[i, p] + h * r)

    return update


@lru_cache
def update_constant_of(nf: int) -> Callable[..., None]:
    """The loop of degree 0: `rate` is the flux v.n |F| / |K| out of each cell, (nf, n)."""

    @njit(cache=True, error_model="numpy", fastmath=FAST)
    def update(u, u0, a, b, dt, scale, rate, neighbour, out):  # type: ignore[no-untyped-def]
        for c in range(len(out)):
            uc = u[c]
            s = 0.0
            for e in range(nf):
                w = scale * rate[e, c]
                s += max(w, 0.0) * uc + min(w, 0.0) * u[neighbour[e, c]]
            out[c] = a * u0[c] + b * (uc - dt * s)

    return update


@njit(cache=True, error_model="numpy")
def update_boundary(  # type: ignore[no-untyped-def]
    u, left, variant, trace, un, scale, outside, bdt, affine, minv, volume, out
):
    """Take what leaves through the boundary's facets off their cells; returns it, a time.

    un and outside are (facets, points), trace (variants, points, nb), minv (1, nb, nb) on affine
    cells, to be divided by `volume`, else (cells, nb, nb).
    """
    total, nb = 0.0, trace.shape[2]
    r = np.empty(nb)
    for f in range(len(left)):
        c = left[f]
        r[:] = 0.0
        for q in range(un.shape[1]):
            inner = 0.0
            for i in range(nb):
                inner += trace[variant[f], q, i] * u[c, i]
            s = scale * un[f, q]
            flux = max(s, 0.0) * inner + min(s, 0.0) * outside[f, q]
            total += flux
            for i in range(nb):
                r[i] += trace[variant[f], q, i] * flux
        m, h = (0, bdt / volume[c]) if affine else (c, bdt)
        for i in range(nb):
            for j in range(nb):
                out[c, i] -= h * minv[m, i, j] * r[j]
    return total


@njit(cache=True, error_model="numpy")
def node_bounds(means, nodes, low, high):  # type: ignore[no-untyped-def]
    """Least and greatest mean of the cells around each node; low and high come in as +-inf."""
    for c in range(len(means)):
        for i in range(nodes.shape[1]):
            v = nodes[c, i]
            low[v] = min(low[v], means[c])
            high[v] = max(high[v], means[c])


@njit(cache=True, error_model="numpy")
def limit_to_nodes(u, means, nodes, low, high):  # type: ignore[no-untyped-def]
    """Scale u - mean in each cell so that every vertex value is within its node's bounds."""
    for c in range(len(means)):
        m, alpha = means[c], 1.0
        # a vertex value that is the mean but for rounding must not flatten an extremal cell
        equal = 1e-13 * abs(m)
        for i in range(nodes.shape[1]):
            d, v = u[c, i] - m, nodes[c, i]
            if d > equal:
                alpha = min(alpha, (high[v] - m) / d)
            elif d < -equal:
                alpha = min(alpha, (low[v] - m) / d)
        alpha = max(alpha, 0.0)
        if alpha < 1.0:
            for i in range(nodes.shape[1]):
                v = nodes[c, i]
                # to rounding, the scaled value may pass its bound
                u[c, i] = min(max(m + alpha * (u[c, i] - m), low[v]), high[v])


@njit(cache=True, error_model="numpy")
def limit_to_range(u, means, points, low, high):  # type: ignore[no-untyped-def]
    """Scale u - mean in each cell so that values at `points` (m, nb) are within [low, high]."""
    for c in range(len(means)):
        m, alpha = means[c], 1.0
        for p in range(len(points)):
            s = 0.0
            for i in range(u.shape[1]):
                s += points[p, i] * u[c, i]
            d = s - m
            if s > high:
                alpha = min(alpha, (high - m) / d)
            elif s < low:
                alpha = min(alpha, (low - m) / d)
        alpha = max(alpha, 0.0)
        if alpha < 1.0:
            for i in range(u.shape[1]):
                u[c, i] = m + alpha * (u[c, i] - m)


def arrays(*xs: Any) -> list[np.ndarray]:
    """C-contiguous copies where needed: the loops are compiled for one layout."""
    return [np.ascontiguousarray(x) for x in xs]
