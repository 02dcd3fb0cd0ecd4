"""The controllability Gramian of a heat or wave equation, and the inner products of its data.

The Hilbert uniqueness method (Lions 1988) solves

    Lambda e = b,    Lambda = L N^{-1} L^T,    v = N^{-1} L^T e,

L the map from controls to the final (heat), or initial (wave), state, L^T the observation of the
adjoint equation. For the heat equation (Lambda + eps M) phi_T = -y_free(T) is solved, whose v
minimises 1/2 |v|^2 + 1/(2 eps) |y(T)|^2 (Boyer 2013). With a weight rho(x, t) the norm is
int v^2/rho.

The data e are sought in a space, whose inner product is given by its Riesz map from functionals to
data:

    energy      H1_0 x L2 (wave, boundary), L2 x H^-1 (wave, interior), L2 (heat);
    two-grid    the same on a mesh twice as coarse (Glowinski 1992; Ignat, Zuazua 2009);
    spectral    the eigenfunctions with lambda_k h^2 <= gamma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from petsc4py import PETSc

from fem_apps.errors import CaseError, SolveError
from fem_apps.fem.expressions import parse
from fem_apps.fem.points import PointEvaluator
from fem_apps.fem.split import Matrix, Split
from fem_apps.problems.heat import Heat
from fem_apps.problems.wave import Wave

Map = Callable[[np.ndarray], np.ndarray]


def _same(x: np.ndarray) -> np.ndarray:
    return x


@dataclass(frozen=True)
class Space:
    """A space of data.

    Attributes:
        riesz: from functionals on the space to its elements.
        dot: value of a functional at an element.
        prolong: to data of the mesh; restrict: the transpose.
        split: of the mesh whose free values the elements are; None where they are coefficients.
    """

    riesz: Map
    dot: Callable[[np.ndarray, np.ndarray], float]
    prolong: Map = _same
    restrict: Map = _same
    split: Split | None = None

    def size(self, functional: np.ndarray) -> float:
        """Norm of a functional of the mesh, in the dual of the space. Collective."""
        p = self.restrict(functional)
        return float(np.sqrt(max(self.dot(p, self.riesz(p)), 0.0)))


class Gramian:
    """Lambda (+ eps M) on data e: shape (2, n) of a wave, (n,) of heat.

    Args:
        system: the equation.
        epsilon: penalty on the final state, 0 for none.
        weight: rho(x, y, z, t), positive; "1" for the plain L2 norm.

    Raises:
        CaseError: a weight that is negative somewhere.
    """

    def __init__(self, system: Heat | Wave, epsilon: float = 0.0, weight: str = "1") -> None:
        self.system, self.s, self.epsilon = system, system.s, epsilon
        self.root: np.ndarray | None = None
        if weight not in ("1", "1.0"):
            rho = parse(weight)
            values = np.stack([rho.numpy(self.s.x_control.T, t) for t in system.times])
            low = float(self.s.comm.allreduce(float(-values.min(initial=0.0))))
            if not np.isfinite(values).all() or low > 0:
                raise CaseError(f"control.weight = {weight!r} is negative or not finite somewhere")
            self.root = np.sqrt(values)

    def control(self, e: np.ndarray) -> np.ndarray:
        """The control of e, shape (times, c). Collective."""
        if self.root is None:
            return self.system.control(e)
        F = self.root * self.system.observe(e)
        return self.root * np.stack([self.s.N_inverse(f) for f in F])

    def __call__(self, e: np.ndarray) -> np.ndarray:
        """Lambda e + eps M e, a functional. Collective."""
        out = self.system.act(self.control(e))
        return out + self.epsilon * self.s.M(e) if self.epsilon else out

    def inner(self, u: np.ndarray, v: np.ndarray) -> float:
        """Int u v over the control region and time. Collective."""
        rows = sum(
            w * float(a @ self.s.N(b)) for w, a, b in zip(self.system.weights, u, v, strict=True)
        )
        return float(self.s.comm.allreduce(rows))

    def norm(self, v: np.ndarray) -> float:
        """|v| in L2 of the control region and time. Collective."""
        return float(np.sqrt(self.inner(v, v)))

    def weighted_norm(self, v: np.ndarray) -> float:
        """(int v^2/rho)^(1/2), the norm that is minimised. Collective."""
        if self.root is None:
            return self.norm(v)
        return self.norm(np.divide(v, self.root, out=np.zeros_like(v), where=self.root > 0))


def energy(system: Heat | Wave) -> Space:
    """All discrete data, in the norms of the equation: final states are measured by it."""
    s = system.s
    return Space(_pairs(s, isinstance(system, Wave)), s.dot, split=s)


def _pairs(s: Split, wave: bool) -> Map:
    mass = s.inverse("M")
    if not wave:
        return mass
    if s.B is not None:
        return lambda p: np.stack([mass(p[0]), mass(s.K(mass(p[1])))])
    stiffness = s.inverse("K")
    return lambda p: np.stack([stiffness(p[0]), mass(p[1])])


def whole_space(system: Heat | Wave) -> Space:
    """All discrete data, for conjugate gradients without a filter.

    With the mixed mass the flux of a mode is 1/cos(k h/2) times what its energy says: there M is
    replaced by M + h^2/4 K, so that the largest eigenvalue of the Gramian does not grow.
    """
    s = system.s
    if isinstance(system, Heat) or s.B is not None or s.mass != "mixed":
        return energy(system)
    stiffness, both = s.inverse("K"), s.factor(s.sum(s.h**2 / 4), "modified norm")
    return Space(lambda p: np.stack([both(s.M(stiffness(p[0]))), both(p[1])]), s.dot, split=s)


def prolongation(coarse: Split, fine: Split) -> Matrix:
    """Interpolation of coarse free dofs in fine free dofs. Collective."""
    comm = fine.comm
    parts = comm.allgather(fine.x)
    points = np.concatenate(parts)
    evaluator = PointEvaluator(coarse.V.mesh, points, tolerance=0.25 * coarse.h, missing="error")
    E = evaluator.matrix(coarse.V)
    first = sum(len(p) for p in parts[: comm.rank])
    rows = np.arange(first, first + len(fine.x))
    columns = coarse.V.dofmap.index_map.local_range[0] + coarse.free
    here = [PETSc.IS().createGeneral(i.astype(PETSc.IntType), comm=comm) for i in (rows, columns)]
    return Matrix(E.createSubMatrix(*here))


def _each(f: Map) -> Map:
    return lambda p: np.stack([f(q) for q in p])


def two_grid(system: Wave, coarse: Split) -> Space:
    """The data of a coarse mesh. Collective."""
    Pi = prolongation(coarse, system.s)
    return Space(_pairs(coarse, True), coarse.dot, _each(Pi), _each(Pi.T), coarse)


class Modes:
    """Eigenpairs K phi = lambda M phi, the smallest first, phi^T M phi = 1, by SLEPc. Collective.

    Args:
        s: the matrices.
        count: how many.

    Attributes:
        values: lambda, shape (r,).
        vectors: owned entries, shape (r, n).

    Raises:
        SolveError: SLEPc found fewer.
    """

    def __init__(self, s: Split, count: int) -> None:
        from slepc4py import SLEPc

        count = min(count, s.size()[0])
        solver = SLEPc.EPS().create(s.comm)
        solver.setOperators(s.K.mat, s.M.mat)
        solver.setProblemType(SLEPc.EPS.ProblemType.GHEP)
        solver.setDimensions(count)
        solver.setTarget(0.0)
        solver.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
        solver.setTolerances(1e-12)
        transform = solver.getST()
        transform.setType(SLEPc.ST.Type.SINVERT)
        pc = transform.getKSP().getPC()
        transform.getKSP().setType("preonly")
        pc.setType("cholesky")
        pc.setFactorSolverType("mumps")
        solver.setFromOptions()
        solver.solve()
        if solver.getConverged() < count:
            raise SolveError(
                "eigenvalue problem of the modes",
                f"{solver.getConverged()} of {count} converged",
                advice="fewer modes, or -- -eps_ncv 200",
            )
        x = s.K.mat.createVecRight()
        self.values: np.ndarray = np.empty(count)
        self.vectors: np.ndarray = np.empty((count, len(s.free)))
        for k in range(count):
            self.values[k] = solver.getEigenpair(k, x).real
            self.vectors[k] = x.array_r / np.sqrt(s.dot(x.array_r, s.M(x.array_r)))
        solver.destroy()
        self.comm = s.comm

    def coefficients(self, p: np.ndarray) -> np.ndarray:
        """(p, phi_k) of a functional, shape (r,), the same on all ranks. Collective."""
        return np.asarray(self.comm.allreduce(self.vectors @ p))


def modes_below(s: Split, cut: float) -> Modes:
    """All eigenpairs with lambda <= cut. Collective."""
    count = 16
    n = s.size()[0]
    while True:
        modes = Modes(s, count)
        if modes.values[-1] > cut or count >= n:
            break
        count = min(2 * count, n)
    keep = modes.values <= cut
    if not keep.any():
        raise CaseError(
            f"hum.gamma: no eigenvalue is below gamma/h^2 = {cut:.4g}, the smallest is "
            f"{modes.values[0]:.4g}; a larger gamma or a finer mesh"
        )
    modes.values, modes.vectors = modes.values[keep], modes.vectors[keep]
    return modes


def spectral(system: Wave, modes: Modes) -> Space:
    """The span of eigenfunctions; its elements are coefficients, the same on all ranks."""
    lam = modes.values
    riesz = np.stack([1 / lam, np.ones_like(lam)] if system.s.B is None else [lam**0, lam])
    return Space(
        lambda p: riesz * p,
        lambda p, e: float(np.vdot(p, e)),
        _each(lambda c: c @ modes.vectors),
        _each(modes.coefficients),
    )
