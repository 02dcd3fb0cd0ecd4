"""Compiled loops of the discontinuous Galerkin scheme: facet fluxes, cell updates, limiters.

`kernels` makes loops for a number of basis functions, quadrature points and facets a cell, which
the compiler then unrolls. A stage of Runge-Kutta is fused with the right-hand side:

    out = a u0 + b (u + dt L(u)),   L(u)_c = M_c^-1 ( int u v . grad phi - sum_F int_F phi F(u) )

with F(u) = (v.n)_+ u_left + (v.n)_- u_right, the upwind flux.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

FAST = {"contract", "nsz", "arcp"}


@dataclass(frozen=True)
class Kernels:
    """The loops of one element."""

    fluxes: Callable[..., None]
    update: Callable[..., None]


@lru_cache
def kernels(nb: int, nq: int, nfq: int, nf: int, tdim: int, affine: bool) -> Kernels:
    """Loops for nb basis functions, nq and nfq points in cells and facets, nf facets a cell."""

    @njit(cache=True, error_model="numpy", fastmath=FAST)
    def fluxes(u, left, right, vl, vr, trace, un, scale, outside, flux):  # type: ignore[no-untyped-def]
        for f in range(len(left)):
            l, r = left[f], right[f]
            tl = vl[f]
            for q in range(nfq):
                s = scale * un[f, q]
                inner = 0.0
                for i in range(nb):
                    inner += trace[tl, q, i] * u[l, i]
                outer = 0.0
                if r >= 0:
                    tr = vr[f]
                    for i in range(nb):
                        outer += trace[tr, q, i] * u[r, i]
                else:
                    outer = outside[-1 - r, q]
                flux[f, q] = max(s, 0.0) * inner + min(s, 0.0) * outer

    @njit(cache=True, error_model="numpy", fastmath=FAST)
    def update(u, u0, a, b, dt, scale, G, phi, dphi, trace, cf, cs, cv, flux, minv, volume, out):  # type: ignore[no-untyped-def]
        r = np.empty(nb)
        for c in range(len(out)):
            for i in range(nb):
                r[i] = 0.0
            for q in range(nq):
                s = 0.0
                for i in range(nb):
                    s += phi[q, i] * u[c, i]
                s *= scale
                for k in range(tdim):
                    g = G[c, q, k] * s
                    for i in range(nb):
                        r[i] += dphi[q, i, k] * g
            for e in range(nf):
                f, v, sign = cf[c, e], cv[c, e], cs[c, e]
                for q in range(nfq):
                    s = sign * flux[f, q]
                    for i in range(nb):
                        r[i] -= trace[v, q, i] * s
            m = 0 if affine else c
            h = dt / volume[c] if affine else dt
            for i in range(nb):
                s = 0.0
                for j in range(nb):
                    s += minv[m, i, j] * r[j]
                out[c, i] = a * u0[c, i] + b * (u[c, i] + h * s)

    return Kernels(fluxes, update)


@njit(cache=True, error_model="numpy", fastmath=FAST)
def update_constant(u, u0, a, b, dt, scale, rate, neighbour, out):  # type: ignore[no-untyped-def]
    """Degree 0: `rate` is the flux v.n |F| / |K| out of each cell, `neighbour` a row of u.

    u has the values of owned cells, ghosts and the outside; rate and neighbour are (n, facets).
    """
    for c in range(len(out)):
        uc = u[c]
        s = 0.0
        for e in range(rate.shape[1]):
            w = scale * rate[c, e]
            s += max(w, 0.0) * uc + min(w, 0.0) * u[neighbour[c, e]]
        out[c] = a * u0[c] + b * (uc - dt * s)


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
