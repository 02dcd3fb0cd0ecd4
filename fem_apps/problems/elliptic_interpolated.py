"""Diffusions that are not affine: the exact operator, and an affine one by empirical interpolation.

The exact a(x; mu) is its interpolant in W. Snapshots and reference solutions solve with it; the
reduced basis is built on a_M = sum_m theta_m(mu) q_m; what a_M leaves out enters the error bound as
an estimate of |a - a_M| at points that the interpolation has not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.meshing import MeshData
from fem_apps.mpi import total
from fem_apps.problems.elliptic import Discretisation, Space, check_positive, discretise, make_space
from fem_apps.problems.elliptic_coefficients import LogNormal, One
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_field import FieldOperator
from fem_apps.surrogates.empirical_interpolation import Interpolation, interpolate_empirically


@dataclass(frozen=True)
class Exact:
    """A(mu) with the exact a(x; mu).

    Attributes:
        D: the discretisation with the interpolated a, of the same space and right sides.
        operator: of the field a.
        features: what a is a function of, at the owned dofs of W, shape (k, n_W).
        interpolation: theta of a_M, and the estimate of its error; None where there is none, and
            D has a at the middle of the ranges instead.
        errors: of the interpolation over its samples, before each function.
    """

    D: Discretisation
    operator: FieldOperator
    features: np.ndarray
    interpolation: Interpolation | None
    errors: np.ndarray

    def field(self, mu: np.ndarray) -> np.ndarray:
        """The exact a on the owned dofs of W."""
        e = self.D.equation
        return e.diffusion.at(self.features, e.named(np.asarray(mu, dtype=float)))

    def solve(
        self, mu: np.ndarray, start: np.ndarray | None = None, rtol: float | None = None
    ) -> np.ndarray:
        """u_0 of the exact problem. Collective.

        Raises:
            CaseError: a is not positive; a term of reaction or Robin that depends on parameters.
            SolveError: CG did not converge.
        """
        _, b = self.assemble(mu)
        return self.operator.solve(b, start, rtol)

    def assemble(self, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A(mu) into `operator.mat`; the field a, and b. Collective.

        Raises:
            CaseError: a is not positive.
        """
        mu = np.asarray(mu, dtype=float)
        D, a = self.D, self.field(mu)
        check_positive(D.space, a, mu, D.equation)
        self.operator.set(a)
        b = D.equation.theta_load(mu) @ D.loads
        if len(D.lifts):
            b -= self.operator.lifted(D.space.lift)
        return a, b


def interpolate_diffusion(
    data: MeshData,
    equation: Equation,
    degree: int,
    samples: np.ndarray,
    *,
    size: int,
    tolerance: float,
) -> Exact:
    """Interpolate a over sample parameters, and discretise. Collective.

    Args:
        data: the mesh.
        equation: its diffusion is not affine.
        degree: of V_h.
        samples: parameters, shape (S, P), the same on all ranks.
        size: most functions q_m; 0 for none.
        tolerance: of the interpolation, relative to max|a|.

    Raises:
        CaseError: a is not finite or not positive at a sample; reaction or Robin terms depend on
            parameters.
    """
    for t in [*equation.reaction, *(c for b in equation.boundary for c in b.coefficient)]:
        if t.theta.strip() != "1":
            raise CaseError(
                f"theta = {t.theta!r}: with a diffusion that is not affine, reaction and robin "
                "terms cannot depend on parameters"
            )
    space = make_space(data, equation, degree)
    x = features(space, equation)
    d = equation.diffusion
    values = d.at(x, equation.named(samples))
    if total(space.comm, int((~np.isfinite(values)).sum())):
        raise CaseError("the diffusion coefficient is not finite at some parameter and place")
    for mu, a in zip(samples, values, strict=True):
        check_positive(space, a, mu, equation)
    if size == 0:
        middle = np.array([0.5 * (low + high) for low, high in equation.ranges.values()])
        a = d.at(x, equation.named(middle))
        check_positive(space, a, middle, equation)
        D = discretise(data, equation, degree, interpolation=(One(), a[:, None]))
        operator = FieldOperator(D.space, equation, rtol=D.solver.rtol)
        return Exact(D, operator, x, None, np.empty(0))
    points = space.points()
    numbers = np.sqrt([2.0, 3.0, 5.0][: len(points)]) @ points
    inter, Q, errors = interpolate_empirically(
        space.comm, d.at, x, values, size, tolerance, numbers
    )
    D = discretise(data, equation, degree, interpolation=(inter, Q))
    operator = FieldOperator(D.space, equation, rtol=D.solver.rtol)
    return Exact(D, operator, x, inter, errors)


def features(space: Space, equation: Equation) -> Any:
    """What `diffusion.at` takes: coordinates, or for log-normal fields the modes. Collective."""
    if isinstance(equation.diffusion, LogNormal):
        from fem_apps.problems.elliptic_random_field import expansion

        return expansion(space, equation.diffusion)[1]
    return space.points()
