"""Linear finite-element operators: a source from its solution, inside or on the boundary; heat.

Each applies one factorised solve, its adjoint the transposed solve with the same factor: exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import ufl
from dolfinx import fem, mesh
from scipy.sparse.linalg import splu

from fem_apps.inverse.operators import Operator, from_solver
from fem_apps.inverse.operators_fem import on_one_rank, point_matrix


def sparse(form: Any) -> sp.csc_matrix:
    """The assembled matrix of a bilinear form on one rank."""
    return fem.assemble_matrix(fem.form(form)).to_scipy().tocsc()


def source_to_state(
    V: Any,
    fixed: np.ndarray,
    *,
    observe: sp.csr_matrix | None = None,
    absorption: float = 0.0,
) -> Operator:
    """F -> B u with -div grad u + absorption u = f, u = 0 on `fixed`, no flux elsewhere.

    f is in V too, zero on `fixed`, and is given by its values on the free nodes: A = B K^-1 M.

    Args:
        V: space on a mesh of one rank.
        fixed: nodes with u = 0.
        observe: B, over the free nodes; all of them where left out.
        absorption: must be positive where no node is fixed.
    """
    on_one_rank(V.mesh)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    mass = sparse(u * v * ufl.dx)
    free = np.setdiff1d(np.arange(mass.shape[0]), fixed)
    M = mass[free][:, free].tocsr()
    stiffness = sparse(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)[free][:, free]
    factor = splu((stiffness + absorption * M).tocsc())
    B = sp.eye(len(free), format="csr") if observe is None else observe.tocsr()
    Bt = B.T.tocsr()
    return from_solver(
        "source to state",
        (B.shape[0], len(free)),
        lambda f: B @ factor.solve(M @ f),
        lambda w: M @ factor.solve(np.ascontiguousarray(Bt @ w), trans="T"),
    )


def interval_source(comm: Any, cells: int) -> tuple[Operator, np.ndarray]:
    """-u'' = f on (0, 1), u = 0 at the ends, P1; data at all inner nodes, and their places."""
    domain = mesh.create_unit_interval(comm, cells)
    V = fem.functionspace(domain, ("Lagrange", 1))
    x = V.tabulate_dof_coordinates()[:, 0]
    fixed = np.flatnonzero((x < 1e-12) | (x > 1 - 1e-12))
    free = np.setdiff1d(np.arange(len(x)), fixed)
    order = np.argsort(x[free])
    back = np.argsort(order)
    inner = source_to_state(V, fixed)
    apply, adjoint = inner.apply, inner.adjoint
    assert adjoint is not None
    # nodes in the order of their places
    named = Operator(
        "source on an interval",
        inner.shape,
        lambda f: apply(f[..., back])[..., order],
        lambda w: adjoint(w[..., back])[..., order],
    )
    return named, x[free][order]


def pixels_to_nodes(V: Any, size: int) -> sp.csr_matrix:
    """Bilinear interpolation of a size x size image on [-1, 1]^2 at the nodes of V, row by row."""
    x = V.tabulate_dof_coordinates()[:, :2]
    place = np.clip((x + 1) * size / 2 - 0.5, 0.0, size - 1.0)
    low = np.minimum(place.astype(int), size - 2)
    t = place - low
    n = len(x)
    parts = []
    for dx in (0, 1):
        for dy in (0, 1):
            w = np.where(dx, t[:, 0], 1 - t[:, 0]) * np.where(dy, t[:, 1], 1 - t[:, 1])
            column = (low[:, 1] + dy) * size + low[:, 0] + dx
            parts.append(sp.csr_matrix((w, (np.arange(n), column)), shape=(n, size * size)))
    return sum(parts).tocsr()


def source_to_boundary(comm: Any, size: int, cells: int, absorption: float = 1.0) -> Operator:
    """An image of a source on [-1, 1]^2 -> its solution on the boundary.

    -div grad u + absorption u = f, no flux; a datum for each boundary node of cells x cells
    squares, each cut into two triangles.
    """
    domain = mesh.create_rectangle(comm, [[-1.0, -1.0], [1.0, 1.0]], [cells, cells])
    V = fem.functionspace(domain, ("Lagrange", 1))
    x = V.tabulate_dof_coordinates()
    edge = np.flatnonzero(np.abs(x[:, :2]).max(axis=1) > 1 - 1e-12)
    B = sp.eye(len(x), format="csr")[edge]
    inner = source_to_state(V, np.zeros(0, int), observe=B, absorption=absorption)
    return _on_pixels("source to boundary", inner, pixels_to_nodes(V, size))


def source_to_sensors(
    comm: Any, size: int, cells: int, points: np.ndarray, absorption: float = 1.0
) -> Operator:
    """An image of a source on [-1, 1]^2 -> its solution at sensors.

    -div grad u + absorption u = f, no flux; P1 on cells x cells squares, each cut into two.

    Args:
        comm: of size 1.
        size: pixels of a side.
        cells: squares of a side.
        points: places of the sensors, shape (m, 2).
        absorption: positive.
    """
    domain = mesh.create_rectangle(comm, [[-1.0, -1.0], [1.0, 1.0]], [cells, cells])
    V = fem.functionspace(domain, ("Lagrange", 1))
    inner = source_to_state(
        V, np.zeros(0, int), observe=point_matrix(V, points), absorption=absorption
    )
    return _on_pixels("source to sensors", inner, pixels_to_nodes(V, size))


def heat_blur(comm: Any, size: int, cells: int, time: float, steps: int = 10) -> Operator:
    """An image -> the temperature after `time`, no flux, on triangles of [-1, 1]^2.

    Implicit Euler steps; data are the temperatures at the nodes nearest to the pixels' centres.
    """
    domain = mesh.create_rectangle(comm, [[-1.0, -1.0], [1.0, 1.0]], [cells, cells])
    V = fem.functionspace(domain, ("Lagrange", 1))
    on_one_rank(domain)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    M = sparse(u * v * ufl.dx).tocsr()
    K = sparse(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    factor = splu((M + time / steps * K).tocsc())
    P = pixels_to_nodes(V, size)
    x = V.tabulate_dof_coordinates()[:, :2]
    p = -1 + (2 * np.arange(size) + 1) / size
    centres = np.stack(np.meshgrid(p, p), axis=-1).reshape(-1, 2)
    nearest = ((centres[:, None] - x) ** 2).sum(axis=-1).argmin(axis=1)
    B = sp.eye(len(x), format="csr")[nearest]

    def forth(f: np.ndarray) -> np.ndarray:
        for _ in range(steps):
            f = factor.solve(M @ f)
        return B @ f

    def back(w: np.ndarray) -> np.ndarray:
        w = B.T @ w
        for _ in range(steps):
            w = M @ factor.solve(w, trans="T")
        return w

    return _on_pixels("heat", from_solver("heat", (len(nearest), len(x)), forth, back), P)


def _on_pixels(name: str, inner: Operator, P: sp.csr_matrix) -> Operator:
    """An operator of nodal values as one of pixels: A P."""
    import jax

    dense = P.toarray()
    adjoint = inner.adjoint
    assert adjoint is not None

    def apply(x: jax.Array) -> jax.Array:
        return inner.apply(x @ dense.T)

    def transposed(w: jax.Array) -> jax.Array:
        return adjoint(w) @ dense

    return Operator(name, (inner.shape[0], P.shape[1]), apply, transposed)
