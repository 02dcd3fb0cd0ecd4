"""The set of all null controls of a small problem, as an affine space, and members of it.

Controls are constant on time steps of their own, a few steps of the equation long: with controls as
fine as the state, sequences that alternate from step to step are null controls of the discrete
equation alone. In an orthonormal basis of these controls, with A the map to the final state,

    { z : A z + y_free(T) = 0 } = z_0 + ker A,     z_0 orthogonal to ker A: the least norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cvxpy as cp
import numpy as np

from fem_apps.control.null_control_gramian import Gramian, Space
from fem_apps.errors import CaseError, SolveError
from fem_apps.problems.wave import Wave

# columns of A: each costs a solution of the equation
LARGEST = 2000


@dataclass(frozen=True)
class ControlSet:
    """Null controls v = v_0 + sum_k c_k n_k; made by `control_set`.

    Attributes:
        edges: of the control's time steps, shape (m + 1,).
        least: v_0, the least norm, nodal values shape (m, c).
        basis: n_k, orthonormal in L2, shape (d, m, c).
        singular: singular values of the map to the final state, falling.
        weights: integral of each nodal value's hat in space, shape (c,).
        norm_matrix: mass matrix of the control space, shape (c, c).
    """

    edges: np.ndarray
    least: np.ndarray
    basis: np.ndarray
    singular: np.ndarray
    weights: np.ndarray
    norm_matrix: np.ndarray

    @property
    def dimension(self) -> int:
        """Free directions."""
        return len(self.basis)

    @property
    def gap(self) -> float:
        """Ratio of the smallest singular value that counts to the largest that does not."""
        rank = len(self.singular) - self.dimension
        if rank in (0, len(self.singular)):
            return np.inf
        return float(self.singular[rank - 1] / max(self.singular[rank], 1e-300))

    def norm(self, v: np.ndarray, kind: str = "L2") -> float:
        """L2, L1 or max norm of nodal values, shape (m, c)."""
        dt = np.diff(self.edges)
        if kind == "L2":
            return float(np.sqrt(np.einsum("t,tc,cd,td->", dt, v, self.norm_matrix, v)))
        if kind == "L1":
            return float(dt @ np.abs(v) @ self.weights)
        return float(np.abs(v).max())

    @cached_property
    def selector(self) -> Selector:
        """The convex problems, kept."""
        return Selector(self)


class Selector:
    """Members of a set that are best in some sense, by convex problems that are compiled once.

    `l1`: sparsest, min int |v|; `linf`: min max |v|, the bang-bang side; `smooth`: min int |v_t|^2;
    `bounded`: min |v| with |v| <= bound.
    """

    def __init__(self, s: ControlSet) -> None:
        self._set = s
        m, c = s.least.shape
        self._v0, self._bound = cp.Parameter(m * c), cp.Parameter(nonneg=True)
        d = cp.Variable(max(s.dimension, 1))
        N = s.basis.reshape(s.dimension, -1).T if s.dimension else np.zeros((m * c, 1))
        self._v = self._v0 + N @ d
        dt = np.diff(s.edges)
        sizes = np.outer(dt, s.weights).ravel()
        jump = np.kron(np.diff(np.eye(m), axis=0) / np.sqrt(dt[:-1, None]), np.eye(c))
        # z_0 is orthogonal to the basis: |v|^2 = |z_0|^2 + |d|^2
        self._problems = {
            "l1": cp.Problem(cp.Minimize(sizes @ cp.abs(self._v))),
            "linf": cp.Problem(cp.Minimize(cp.max(cp.abs(self._v)))),
            "smooth": cp.Problem(cp.Minimize(cp.sum_squares(jump @ self._v))),
            "bounded": cp.Problem(
                cp.Minimize(cp.sum_squares(d)), [cp.max(cp.abs(self._v)) <= self._bound]
            ),
        }

    def __call__(
        self, name: str, least: np.ndarray | None = None, bound: float | None = None
    ) -> np.ndarray:
        """The member, shape (m, c).

        Args:
            name: l2, l1, linf, smooth or bounded.
            least: least-norm control of other data; the set's own if None.
            bound: of |v|, for `bounded`.

        Raises:
            CaseError: no null control is below the bound.
            SolveError: the solver failed.
        """
        v0 = self._set.least if least is None else least
        if name == "l2":
            return v0
        self._v0.value = v0.ravel()
        if bound is not None:
            self._bound.value = bound
        problem = self._problems[name]
        problem.solve(solver=cp.CLARABEL)
        if problem.status in ("infeasible", "infeasible_inaccurate"):
            least_max = self._set.norm(self("linf", v0), "max")
            raise CaseError(
                f"set.bound = {bound:g}: every null control exceeds it somewhere; the least "
                f"possible is {least_max:.6g}"
            )
        if problem.status not in ("optimal", "optimal_inaccurate"):
            raise SolveError(f"selection {name}", problem.status, advice="a larger set.tolerance")
        return np.asarray(self._v.value).reshape(v0.shape)


def time_blocks(gramian: Gramian, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of control steps of k steps, and their values at the equation's times, (times, m)."""
    system = gramian.system
    m = -(-system.steps // k)
    edges = np.minimum(k * np.arange(m + 1), system.steps)
    middle = np.arange(system.steps) // k
    into = np.zeros((system.steps, m))
    into[np.arange(system.steps), middle] = 1.0
    if isinstance(system, Wave):  # nodes in time: the mean of the steps on both sides
        nodes = np.zeros((system.steps + 1, m))
        nodes[:-1] += into / 2
        nodes[1:] += into / 2
        nodes[[0, -1]] *= 2
        into = nodes
    return system.dt * edges, into


def control_set(
    gramian: Gramian, space: Space, free_state: np.ndarray, step: int, tolerance: float
) -> ControlSet:
    """The set of controls that bring the final state to zero on `space`. Collective.

    Args:
        gramian: of the equation; its weight is not used.
        space: where the final state is tested.
        free_state: the final state without control, a functional.
        step: steps of the equation in a step of the control.
        tolerance: singular values below this times the largest count as zero.

    Raises:
        CaseError: too many controls for dense algebra.
    """
    s = gramian.s
    edges, into = time_blocks(gramian, step)
    counts = s.comm.allgather(len(s.control))
    first, c, m = sum(counts[: s.comm.rank]), sum(counts), len(edges) - 1
    if c * m > LARGEST:
        raise CaseError(
            f"[set]: {m} time steps x {c} control values = {m * c}, at most {LARGEST}; a larger "
            "set.control_step or a coarser mesh"
        )
    mass = _dense_mass(gramian, first, c)
    # an orthonormal basis of the control space: the columns of N^{-1/2}
    values, vectors = np.linalg.eigh(mass)
    root = vectors / np.sqrt(values) @ vectors.T
    mine = slice(first, first + len(s.control))
    dt = np.diff(edges)
    columns = []
    for j in range(m):
        for i in range(c):
            v = np.outer(into[:, j], root[mine, i] / np.sqrt(dt[j]))
            columns.append(space.restrict(_final(gramian, v)))
    represented = [space.riesz(a) for a in columns]
    target = space.restrict(free_state)
    gram = np.array([[space.dot(a, z) for z in represented] for a in columns])
    right = -np.array([space.dot(target, z) for z in represented])
    eigenvalues, E = np.linalg.eigh(gram)
    eigenvalues, E = np.maximum(eigenvalues[::-1], 0.0), E[:, ::-1]
    singular = np.sqrt(eigenvalues)
    rank = int((singular > tolerance * singular[0]).sum())
    z0 = E[:, :rank] @ ((E[:, :rank].T @ right) / eigenvalues[:rank])
    to_values = np.einsum("t,cd->tcd", 1 / np.sqrt(dt), root)

    def nodal(z: np.ndarray) -> np.ndarray:
        return np.einsum("tcd,td->tc", to_values, z.reshape(m, c))

    basis = np.array([nodal(z) for z in E[:, rank:].T]).reshape(-1, m, c)
    return ControlSet(edges, nodal(z0), basis, singular, mass.sum(axis=1), mass)


def _final(gramian: Gramian, v: np.ndarray) -> np.ndarray:
    """The final state of a control from rest, as a functional."""
    system = gramian.system
    if isinstance(system, Wave):
        return system.final(np.zeros((2, len(gramian.s.free))), v)
    return system.act(v)


def on_times(gramian: Gramian, v: np.ndarray, step: int) -> np.ndarray:
    """Values of a control, shape (m, c of all ranks), at the equation's times, on this rank."""
    s = gramian.s
    counts = s.comm.allgather(len(s.control))
    first = sum(counts[: s.comm.rank])
    return time_blocks(gramian, step)[1] @ v[:, first : first + len(s.control)]


def _dense_mass(gramian: Gramian, first: int, c: int) -> np.ndarray:
    s = gramian.s
    rows: np.ndarray = np.zeros((c, c))
    for i in range(c):
        e = np.zeros(len(s.control))
        if first <= i < first + len(e):
            e[i - first] = 1.0
        rows[first : first + len(e), i] = s.N(e)
    return np.asarray(s.comm.allreduce(rows))
