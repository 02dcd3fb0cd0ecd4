"""Edge fluxes of d_t rho = div(rho grad(H'(rho) + Phi)) on a node graph, and their Jacobian.

For an edge i-j of weight a (`NodeGraph.weight`), with pressure P, P' = rho H'',

    F_ij = a f_ij,   f_ij = theta_ij M_ij (xi_i - xi_j),   xi = H'(rho) + Phi,
    M_ij = (P(rho_i) - P(rho_j)) / (H'(rho_i) - H'(rho_j)),   theta_ij = min(1, K rho_up / M_ij),

rho_up the value at the end that the flux leaves. M is the mean for which M (H'_i - H'_j) = P_i - P_j:
the logarithmic mean for H = rho log rho (linear diffusion stays linear), the arithmetic one for
H = rho^2; without diffusion it is the arithmetic one. theta = 1 wherever rho_j < (2K - 1) rho_i or
so: smooth solutions see a symmetric, second-order flux, and what leaves a node is at most K times
its density, so that an implicit step is an M-matrix step: positive for any step size where a >= 0.
theta M >= 0 makes -sum F_ij (xi_i - xi_j) <= 0. With `upwind`, theta M = rho_up (first order).

Edges of negative weight (obtuse angles) carry theta M = min(M, K rho_i, K rho_j): consistent and
positive; they may cost the energy law, so the caller checks and drops them where they do (`clip`).

Bessemoulin-Chatard (2012) has the mean for nonlinear diffusion, Bailo, Carrillo, Hu (arXiv
1811.11502) the implicit upwind scheme and its second-order limiter, of which theta is a relative.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# how many times its own density may leave a node, relative to M
LIMIT = 2.0
# below this relative difference of the two ends, M is their mean (a relative error of its square)
NEAR = 1e-5


@njit(cache=True, error_model="numpy")
def edge(ri, rj, Pi, Pj, Hi, Hj, dPi, dPj, dphi, a, upwind, clip):  # type: ignore[no-untyped-def]
    """f_ij, its derivatives by rho_i and rho_j, and theta M, its derivative by phi_i - phi_j.

    ri, rj are the non-negative parts; P, H, dP are the pressure, H' and P' there; dphi = phi_i - phi_j.
    """
    if a < 0.0 and clip:
        return 0.0, 0.0, 0.0, 0.0
    dxi = Hi - Hj + dphi
    mean = 0.5 * (ri + rj)
    if mean == 0.0:  # the one-sided derivatives of an empty edge: only inflow changes it
        return 0.0, max(dxi, 0.0) + dPi, min(dxi, 0.0) - dPj, 0.0
    if Hi == Hj or abs(ri - rj) <= NEAR * mean:
        M = mean
        f, fi, fj = M * dxi, 0.5 * dxi + dPi, 0.5 * dxi - dPj
    else:
        dH = Hi - Hj
        M = (Pi - Pj) / dH
        # dM/drho_i = H''_i (rho_i - M) / dH, with H'' = P'/rho
        Mi = dPi * (1.0 - M / ri) / dH if ri > 0.0 else 0.0
        Mj = dPj * (M / rj - 1.0) / dH if rj > 0.0 else 0.0
        f, fi, fj = Pi - Pj + M * dphi, dPi + Mi * dphi, -dPj + Mj * dphi
    k = 1.0 if upwind else LIMIT
    leaves_i = f >= 0.0 if a >= 0.0 else ri < rj  # a negative edge is bounded by its lower end
    bound = k * (ri if leaves_i else rj)
    if bound < M or (upwind and a >= 0.0):
        if leaves_i:
            fi, fj = k * (dxi + dPi), -k * (ri / rj if rj > 0.0 else 0.0) * dPj
        else:
            fi, fj = k * (rj / ri if ri > 0.0 else 0.0) * dPi, k * (dxi - dPj)
        f, M = bound * dxi, bound
    return f, fi, fj, M


@njit(cache=True, error_model="numpy")
def assemble(indptr, cols, weight, r, P, H, dP, phi, upwind, clip, outflow, diagonal, off, drift):  # type: ignore[no-untyped-def]
    """Row by row: outflow_i = sum_j F_ij, its derivatives, and the weights theta a M of drift.

    The CSR arrays are those of a NodeGraph; r, P, H, dP, phi have the ghosts appended. Fills outflow,
    diagonal (owned nodes), off and drift (entries of the rows).

    Returns:
        The sum of F_ij (xi_i - xi_j) over the owned rows: twice this rank's dissipation.
    """
    work = 0.0
    for i in range(len(outflow)):
        out = diag = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            j, a = cols[k], weight[k]
            f, fi, fj, M = edge(
                r[i], r[j], P[i], P[j], H[i], H[j], dP[i], dP[j], phi[i] - phi[j], a, upwind, clip
            )
            out += a * f
            diag += a * fi
            off[k] = a * fj
            drift[k] = a * M
            work += a * f * (H[i] - H[j] + phi[i] - phi[j])
        outflow[i] = out
        diagonal[i] = diag
    return work


@njit(cache=True, error_model="numpy")
def drift_apply(indptr, cols, drift, w, out):  # type: ignore[no-untyped-def]
    """out_i = sum_j drift_ij (w_i - w_j); w has the ghosts appended."""
    for i in range(len(out)):
        s = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            s += drift[k] * (w[i] - w[cols[k]])
        out[i] = s
