"""The exact Dirichlet-to-Neumann map on a sphere, as a matrix of low rank.

On r = R the vector harmonics Y r^, grad_S Y and r^ x grad_S Y (real Y_n^m) diagonalise the map up
to 2 x 2 blocks (`fundamental.sphere.dirichlet_to_neumann`): the truncated one is B M B^T with
B_iq = int phi_i . A_q, of rank 3(n+1)^2 - 2. The matrix K - B M B^T is never formed: with K^-1 at
hand, Woodbury's formula costs one solve a mode, once. K holds the dashpots, and M is what the exact
map has more than these, so that K has no interior resonances and higher degrees leave through the
dashpots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc

from fem_apps.fem.integrals import owned
from fem_apps.fundamental import scalar_waves as sw
from fem_apps.fundamental.medium import Medium
from fem_apps.fundamental.sphere import dirichlet_to_neumann
from fem_apps.mpi import total


def harmonic_fields(n_max: int, x: np.ndarray) -> list[np.ndarray]:
    """Real vector harmonics Y r^, grad_S Y, r^ x grad_S Y at points x (points, 3), for each (n, m).

    Returns:
        Three arrays (modes, points, 3); modes n^2 + n + m, those with m < 0 take the sine.
    """
    r = x / np.linalg.norm(x, axis=1)[:, None]
    n, m = sw.degrees(n_max)
    to_real = np.zeros((len(n), len(n)), dtype=complex)
    mirror = n * n + n - m
    for i in range(len(n)):
        if m[i] == 0:
            to_real[i, i] = 1
        elif m[i] > 0:  # sqrt 2 Re Y
            to_real[i, i], to_real[i, mirror[i]] = 1 / np.sqrt(2), (-1.0) ** m[i] / np.sqrt(2)
        else:  # sqrt 2 Im Y_n^|m|
            to_real[i, mirror[i]], to_real[i, i] = (
                -1j / np.sqrt(2),
                1j * (-1.0) ** m[i] / np.sqrt(2),
            )
    Y = sw.harmonics(n_max, r)
    X = np.stack([-1j * (Y @ R) for R in sw.rotations(n_max)], axis=-1)  # (points, modes, 3)
    X = np.real(np.einsum("qk,pka->qpa", to_real, X))
    radial = np.real(Y @ to_real.T).T[:, :, None] * r
    return [radial, np.cross(r[None], X), X]


@dataclass
class ModalDtN:
    """Solves (K - B M B^T) x = b from solves with K.

    Attributes:
        B: owned rows of the modes, (owned dofs, modes).
        comm: of the mesh.
    """

    B: np.ndarray
    comm: Any
    _solve: Callable[[np.ndarray], np.ndarray]
    _Y: np.ndarray
    _core: np.ndarray

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """The solution's owned entries from those of the right side. Collective."""
        x = self._solve(b)
        inner = total(self.comm, self.B.T @ x)
        return x + self._Y @ np.linalg.solve(self._core, inner)


def modal_dtn(
    V: Any,
    ds: Any,
    medium: Medium,
    radius: float,
    n_max: int,
    dashpots: tuple[complex, complex],
    solve_many: Callable[[np.ndarray], np.ndarray],
    solve_one: Callable[[np.ndarray], np.ndarray],
) -> ModalDtN:
    """Set up the map. Collective.

    Args:
        V: vector Lagrange space.
        ds: measure of the sphere.
        medium: outside.
        radius: R.
        n_max: largest degree.
        dashpots: the factors of u_n and u_t that K already has.
        solve_many: K^-1 of owned right sides (owned dofs, columns).
        solve_one: the same of one (owned dofs,).
    """
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    mass = fem_petsc.assemble_matrix(fem.form(ufl.inner(u, v) * ds))
    mass.assemble()
    f = fem.Function(V)
    where = V.tabulate_dof_coordinates()[: V.dofmap.index_map.size_local]
    near = np.abs(np.linalg.norm(where, axis=1) - radius) < 0.05 * radius
    fields = harmonic_fields(n_max, where[near])
    n, _ = sw.degrees(n_max)
    T, twist = dirichlet_to_neumann(medium, radius, n_max)
    N1 = n * (n + 1.0)
    columns, product = [], mass.createVecLeft()
    for kind, start in enumerate((0, 1, 1)):
        for q in range(start, len(n)):
            values = np.zeros((len(where), 3))
            values[near] = fields[kind][q]
            owned(f)[:] = values.ravel()
            mass.mult(f.x.petsc_vec, product)
            columns.append(product.array_r.copy())
    product.destroy()
    mass.destroy()
    B = np.stack(columns, axis=1)
    k = len(n)
    M = np.zeros((3 * k - 2, 3 * k - 2), dtype=complex)
    area = radius**2
    along, across = dashpots
    # a_q = b_q . u / (R^2 |A_q|^2), and the traction against A_q gives another R^2 |A_q|^2
    r = np.arange(k)
    t = k - 1 + np.arange(1, k)
    x = 2 * k - 2 + np.arange(1, k)
    M[r, r] = (T[n, 0, 0] - along) / area
    D = n[1:]
    # u_t and t_t multiply r grad Y = grad_S Y
    M[r[1:], t] = T[D, 0, 1] / (area * N1[1:])
    M[t, r[1:]] = T[D, 1, 0] / area
    M[t, t] = (T[D, 1, 1] - across) / (area * N1[1:])
    M[x, x] = (twist[D] - across) / (area * N1[1:])
    Y = solve_many(B)
    # (K - B M B^T)^-1 = K^-1 + Y (M^-1 - B^T Y)^-1 Y^T; written so that M may be singular
    inner = total(V.mesh.comm, B.T @ Y)
    core = np.linalg.solve(np.eye(len(M)) - M @ inner, M)
    return ModalDtN(B, V.mesh.comm, solve_one, Y @ core, np.eye(len(M), dtype=complex))
