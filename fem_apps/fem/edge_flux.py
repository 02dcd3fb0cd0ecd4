"""Edge fluxes of d_t rho = div(rho grad(H'(rho) + Phi)) on a node graph, and their Jacobian.

For an edge i-j of weight a (`NodeGraph.weight`), with pressure P, P' = rho H'',

    F_ij = a f_ij,   f_ij = theta_ij M_ij (xi_i - xi_j),   xi = H'(rho) + Phi,
    M_ij = (P(rho_i) - P(rho_j)) / (H'(rho_i) - H'(rho_j)),   theta_ij = min(1, K rho_up / M_ij),

rho_up the value at the end that the flux leaves. M is the mean with M (H'_i - H'_j) = P_i - P_j:
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
# reciprocals of smaller densities, or of smaller differences of H', would overflow
SMALLEST = 1e-300


@njit(inline="always", error_model="numpy")
def edge(ri, rj, si, sj, Pi, Pj, Hi, Hj, dPi, dPj, dphi, a, upwind, clip):  # type: ignore[no-untyped-def]
    """F_ij, its derivatives by rho_i and rho_j, a theta M (that by phi_i - phi_j), and xi_i - xi_j.

    P, H, dP are the pressure, H' and P' at the non-negative parts of ri, rj, and si, sj the parts'
    reciprocals (0 for 0); dphi = phi_i - phi_j. Selections rather than branches: which end a flux
    leaves is not to be predicted. Exchanging i and j changes the sign of F and xi, bit by bit.

    Newton's iterates may be negative: there K rho_up goes on linearly, which leaves the solution
    of a step non-negative (sum the equations of the negative nodes) and the derivatives right.
    """
    dH = Hi - Hj
    dxi = dH + dphi
    mean = 0.5 * (max(ri, 0.0) + max(rj, 0.0))
    empty = mean == 0.0
    near = abs(dH) <= SMALLEST or empty or abs(ri - rj) <= NEAR * mean
    inverse = 1.0 / (1.0 if near else dH)
    M = mean if near else (Pi - Pj) * inverse
    f = mean * dxi if near else (Pi - Pj) + M * dphi
    # dM/drho_i = H''_i (rho_i - M) / dH, with H'' = P'/rho; a value that is 0 has no share in M
    fi = dPi + (0.5 * dxi if near else (dPi * (1.0 - M * si) * inverse * dphi if ri > 0.0 else 0.0))
    fj = -dPj + (
        0.5 * dxi if near else (dPj * (M * sj - 1.0) * inverse * dphi if rj > 0.0 else 0.0)
    )
    negative = a < 0.0  # such an edge is bounded by its lower end
    leaves_i = ri < rj if negative else (dxi if empty else f) >= 0.0
    k = 1.0 if upwind else LIMIT
    bound = k * (ri if leaves_i else rj)
    bound = max(bound, 0.0) if negative else bound
    cut = bound < M or (upwind and not negative)
    f = bound * dxi if cut else f
    fi = (k * (dxi + dPi) if leaves_i else k * rj * si * dPi) if cut else fi
    fj = (-k * ri * sj * dPj if leaves_i else k * (dxi - dPj)) if cut else fj
    M = bound if cut else M
    # an empty edge has no mean to differentiate: what leaves it is drift
    fi = k * max(dxi, 0.0) + dPi if empty else fi
    fj = k * min(dxi, 0.0) - dPj if empty else fj
    weight = 0.0 if clip and negative else a
    return weight * f, weight * fi, weight * fj, weight * M, dxi


@njit(cache=True, error_model="numpy")
def assemble(  # type: ignore[no-untyped-def]
    edges, r, P, H, dP, phi, upwind, clip, tau, mass, diagonal, here, back, outflow, values, drift
):
    """Fluxes out of the nodes, and diag(mass) + tau d(outflow)/d(rho), each edge taken once.

    `edges`, `diagonal`, `here`, `back`, `values` are those of an `EdgeMatrix`, all of whose entries
    are set. r, P, H, dP, phi are values at the owned nodes, then at the ghosts; P, H, dP those at
    max(r, 0). `outflow` is set to sum_j F_ij at the owned nodes, scratch after them; `drift` to
    a theta M of the edges.

    Returns:
        sum F_ij (xi_i - xi_j) over this rank's edges, half of it where the other end is a ghost:
        its share of the dissipation; and sum_i |d outflow_i / d rho_i| rho_i.
    """
    indptr, cols, weight = edges
    n = len(mass)
    diag, s = np.zeros(len(r)), np.empty(len(r))
    for i in range(len(r)):
        s[i] = 1.0 / max(r[i], SMALLEST) if r[i] > 0.0 else 0.0
        outflow[i] = 0.0
    work = size = 0.0
    for i in range(n):
        ri, si, Pi, Hi, dPi, phi_i = r[i], s[i], P[i], H[i], dP[i], phi[i]
        out = diag_i = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = cols[e]
            F, Fi, Fj, M, dxi = edge(
                ri,
                r[j],
                si,
                s[j],
                Pi,
                P[j],
                Hi,
                H[j],
                dPi,
                dP[j],
                phi_i - phi[j],
                weight[e],
                upwind,
                clip,
            )
            out += F
            outflow[j] -= F
            diag_i += Fi
            diag[j] -= Fj
            values[here[e]] = tau * Fj
            values[back[e]] = -tau * Fi
            drift[e] = M
            work += F * dxi if j < n else 0.5 * F * dxi
        # rows before this one have added their share, and none after it will
        outflow[i] += out
        diag[i] += diag_i
        values[diagonal[i]] = mass[i] + tau * diag[i]
        size += abs(diag[i] * ri)
    return work, size


@njit(cache=True, error_model="numpy")
def drift_apply(edges, drift, w, out):  # type: ignore[no-untyped-def]
    """out_i = sum_j drift_ij (w_i - w_j); w has the ghosts appended, and out room for them."""
    indptr, cols, _ = edges
    out[:] = 0.0
    for i in range(len(indptr) - 1):
        s = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            flow = drift[e] * (w[i] - w[cols[e]])
            s += flow
            out[cols[e]] -= flow
        out[i] += s
