"""Data of the set-valued map: random initial states, their null controls, distances of sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dolfinx import fem
from mpi4py import MPI
from scipy.optimize import nnls

from fem_apps import meshing
from fem_apps.control.null_control import split_of, system_of
from fem_apps.control.null_control_gramian import Gramian, energy
from fem_apps.control.null_control_set import ControlSet, control_set, on_times
from fem_apps.control.set_valued import Case
from fem_apps.errors import CaseError
from fem_apps.problems.wave import Wave

GRID = 1001
SEED_TRAIN, SEED_TEST = 1, 2


def karhunen_loeve(length: float, energy_kept: float) -> tuple[np.ndarray, np.ndarray]:
    """Grid on [0, 1] and sqrt(lambda_k) e_k of the covariance exp(-(x - x')^2/(2 l^2)).

    Returns:
        Grid (g,) and modes (r, g), as many as hold `energy_kept` of the variance.
    """
    x = np.linspace(0, 1, GRID)
    w = np.full(GRID, 1 / (GRID - 1))
    w[[0, -1]] /= 2
    C = np.exp(-((x[:, None] - x) ** 2) / (2 * length**2))
    values, vectors = np.linalg.eigh(np.sqrt(w)[:, None] * C * np.sqrt(w))
    values, vectors = values[::-1], vectors[:, ::-1]
    r = int(np.searchsorted(np.cumsum(values) / values.sum(), energy_kept)) + 1
    modes = (vectors[:, :r] / np.sqrt(w)[:, None] * np.sqrt(values[:r])).T
    # the sign of an eigenvector is the library's choice
    return x, modes * np.sign(modes @ np.cos(np.pi * 0.3 * x))[:, None]


@dataclass(frozen=True)
class Batch:
    """Data and what belongs to them.

    Attributes:
        sensors: y0, then y1 (waves) at the sensors, shape (n, m).
        least: least-norm controls, shape (n, q).
        heads: labels, shape (n, K, q).
        low, high: ends of the sets, shape (n, q); empty where there is no set.
        before: functionals of the data, shape (n, ...).
    """

    sensors: np.ndarray
    least: np.ndarray
    heads: np.ndarray
    low: np.ndarray
    high: np.ndarray
    before: np.ndarray


class Map:
    """The set-valued map of a case, on this rank alone.

    Raises:
        CaseError: not an interval, more than one control value, a set that is no segment.
    """

    def __init__(self, case: Case) -> None:
        problem = case.null_control()
        data = meshing.build(MPI.COMM_SELF, case.mesh, case.folder)
        if data.mesh.topology.dim != 1 or data.mesh.geometry.dim != 1:
            raise CaseError("set-valued-control needs an interval")
        self.case, self.s = case, split_of(problem, data)
        self.system = system_of(problem, self.s)
        self.gramian, self.space = Gramian(self.system), energy(self.system)
        nothing = np.zeros((2, len(self.s.free)) if self.wave else len(self.s.free))
        t = case.target
        self.set: ControlSet = control_set(
            self.gramian, self.space, nothing, t.control_step, t.tolerance
        )
        if self.set.least.shape[1] != 1:
            raise CaseError("set-valued-control needs a control with one value: one boundary point")
        if t.set != "none" and self.set.dimension != 1:
            raise CaseError(
                f"target.set = {t.set!r}: the set of null controls has {self.set.dimension} free "
                "directions here, and only one (T at the control time) makes a segment; "
                "target.set = 'none' learns selections"
            )
        x = data.mesh.geometry.x[:, 0]
        self.low, self.length = float(x.min()), float(np.ptp(x))
        self.sensors = self.low + self.length * np.linspace(0, 1, case.fields.sensors)
        self.middle = (self.set.edges[:-1] + self.set.edges[1:]) / 2
        self.dt = np.diff(self.set.edges)
        # linear in the data, so one solution a mode is enough
        self._mode_data = self._of_modes(1.0)

    def _of_modes(self, factor: float) -> list[tuple[np.ndarray, ...]]:
        """`data_of` the modes of fields whose lengths are the case's times a factor."""
        f = self.case.fields
        lengths = (f.length, f.velocity_length or f.length)[: 2 if self.wave else 1]
        found: list[tuple[np.ndarray, ...]] = []
        for j, length in enumerate(lengths):
            grid, modes = karhunen_loeve(factor * length / self.length, f.energy)
            for mode in modes:

                def u(x: np.ndarray, grid: np.ndarray = grid, y: np.ndarray = mode) -> np.ndarray:
                    return np.interp((x - self.low) / self.length, grid, y)

                found.append(self.data_of(*(u if i == j else None for i in range(2))))
        return found

    @property
    def wave(self) -> bool:
        """Whether there are two initial data."""
        return isinstance(self.system, Wave)

    def data_of(
        self,
        y0: Callable[[np.ndarray], np.ndarray] | None,
        y1: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sensors (m,), functional of the data, least-norm control (q,) of an initial state."""
        zero = np.zeros_like
        functions = [f or zero for f in (y0, y1)[: 2 if self.wave else 1]]
        seen = np.concatenate([f(self.sensors) for f in functions])
        parts = []
        for f in functions:
            u = fem.Function(self.s.V)
            u.interpolate(lambda x, f=f: f(x[0]))
            parts.append(self._load(u))
        before = parts[0]
        if isinstance(self.system, Wave):
            before = self.system.start(np.stack([parts[1], -parts[0]]))
        free = self.system.final(before, None)  # type: ignore[arg-type]
        return seen, before, self.set.least_of(free)[:, 0]

    def _load(self, u: fem.Function) -> np.ndarray:
        import ufl
        from dolfinx.fem import petsc as fem_petsc

        form = ufl.inner(u, ufl.TestFunction(self.s.V)) * ufl.dx
        b = fem_petsc.assemble_vector(fem.form(form))
        out = b.array_r[self.s.free].copy()
        b.destroy()
        return out

    def random(
        self, seed: int, first: int, last: int, factor: float = 1.0
    ) -> tuple[np.ndarray, ...]:
        """Sensors, functionals, least-norm controls of samples first..last-1 of a seed.

        Sample k depends on the seed and k alone. `factor`: of the correlation lengths.
        """
        data = self._mode_data if factor == 1.0 else self._of_modes(factor)
        r = len(data)
        xi = np.array([np.random.default_rng([seed, k]).normal(size=r) for k in range(first, last)])
        seen, before, least = (np.stack(parts) for parts in zip(*data, strict=True))
        return tuple(np.tensordot(xi.reshape(-1, r), a, axes=1) for a in (seen, before, least))

    def members(self, least: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels (n, K, q) and ends of the sets (n, q) of least-norm controls (n, q)."""
        t = self.case.target
        low = high = np.empty((0, least.shape[1]))
        if t.set != "none":
            n = self.set.basis[0, :, 0]
            n = n * np.sign(n.sum())
            if t.set == "segment":
                low, high = least - t.radius * n, least + t.radius * n
            else:
                low, high = self._amplitude(least, n)
        heads = []
        for name in t.heads:
            if name in ("low", "high"):
                heads.append(low if name == "low" else high)
            else:
                heads.append(np.stack([self.set.selector(name, v[:, None])[:, 0] for v in least]))
        return np.stack(heads, axis=1), low, high

    def _amplitude(self, least: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of {v + c n : max |v + c n| <= bound}: c between max and min of lines over t."""
        ends = []
        for v in least:
            best = self.set.selector("linf", v[:, None])[:, 0]
            bound = self.case.target.amplitude * np.abs(best).max()
            a, b = (-bound - v) / n, (bound - v) / n
            ends.append((v + np.minimum(a, b).max() * n, v + np.maximum(a, b).min() * n))
        low, high = np.array(ends).transpose(1, 0, 2)
        return low, high

    def norm(self, v: np.ndarray) -> np.ndarray:
        """L2(0, T) norm of controls, shape (..., q) -> (...)."""
        return np.sqrt((v**2) @ self.dt)

    def final(self, before: np.ndarray, v: np.ndarray) -> float:
        """Closed loop: norm of the final state under a control (q,), relative to the data's."""
        control = on_times(self.gramian, v[:, None], self.case.target.control_step)
        after = self.system.final(before, control)  # type: ignore[arg-type]
        return self.space.size(after) / self.space.size(before)


def make(case: Case, the_map: Map, comm: MPI.Comm, seed: int, count: int) -> Batch:
    """`count` samples, their labels spread over the ranks. Collective; the same on all ranks."""
    bounds = np.linspace(0, count, comm.size + 1).astype(int)
    sensors, before, least = the_map.random(seed, 0, count)
    mine = slice(bounds[comm.rank], bounds[comm.rank + 1])
    parts = comm.allgather(the_map.members(least[mine]) if mine.stop > mine.start else None)
    heads, low, high = (
        np.concatenate(p) for p in zip(*[p for p in parts if p is not None], strict=True)
    )
    return Batch(sensors, least, heads, low, high, before)


def hull_distance(point: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> float:
    """Distance of a point (q,) to the convex hull of corners (K, q), in the weighted L2 norm."""
    root = np.sqrt(weights)
    A, b = (corners * root).T, point * root
    # sum of the barycentric coordinates is one: a row so heavy that it holds to rounding
    heavy = 1e4 * (np.abs(A).max() + np.abs(b).max() + 1e-300)
    A1 = np.vstack([A, np.full(A.shape[1], heavy)])
    c, _ = nnls(A1, np.append(b, heavy))
    return float(np.linalg.norm(A @ (c / c.sum()) - b))


def hausdorff(p: np.ndarray, q: np.ndarray, weights: np.ndarray) -> float:
    """Hausdorff distance of the convex hulls of corners (K, n) and (L, n).

    The distance to a convex set is convex, so it is largest at a corner.
    """
    return max(
        max(hull_distance(a, q, weights) for a in p), max(hull_distance(a, p, weights) for a in q)
    )
