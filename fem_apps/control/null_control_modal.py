"""Preconditioning of penalised heat control by the Gramian of the first eigenfunctions.

With K phi_k = lambda_k M phi_k a step of the scheme multiplies phi_k by a number, so that
phi_k(t_n) = g_k^n phi_k, and the exact Gramian of the span of r eigenfunctions is the dense matrix

    Lambda_kl = sum_n dt a_k^n a_l^n (F_k, N^{-1} F_l),

made from one observation of each eigenfunction at the control region. The rest of the space is
left to the penalty, eps M: the heat equation damps it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fem_apps.control.null_control_gramian import Gramian, Modes

Map = Callable[[np.ndarray], np.ndarray]


def modal_gramian(gramian: Gramian, modes: Modes) -> np.ndarray:
    """(phi_k, Lambda phi_l), shape (r, r), by marching each eigenfunction. Collective."""
    controls = [gramian.control(phi) for phi in modes.vectors]
    scaled = np.sqrt(gramian.system.weights)[:, None]
    root = gramian.root
    rows = []
    for v in controls:
        u = v if root is None else np.divide(v, root, out=np.zeros_like(v), where=root > 0)
        rows.append(scaled * u)
    masses = [np.stack([gramian.s.N(u) for u in rows_k]) for rows_k in rows]
    left = np.stack([u.ravel() for u in rows])
    right = np.stack([u.ravel() for u in masses])
    return np.asarray(gramian.s.comm.allreduce(left @ right.T))


def preconditioner(gramian: Gramian, modes: Modes) -> Map:
    """P = Phi (Lambda_r + eps)^{-1} Phi^T + (M^{-1} - Phi Phi^T)/eps. Collective.

    Requires eps > 0.
    """
    eps, mass = gramian.epsilon, gramian.s.inverse("M")
    A = modal_gramian(gramian, modes)
    factor = cho_factor(A + eps * np.eye(len(A)))

    def apply(p: np.ndarray) -> np.ndarray:
        c = modes.coefficients(p)
        return mass(p) / eps + (cho_solve(factor, c) - c / eps) @ modes.vectors

    return apply
