"""A discretised elliptic problem as the full model of a reduced basis: products and coercivity.

X is the H1 seminorm product (grad u, grad v) where u is given somewhere on the boundary; else the
energy product at the middle of the parameter ranges. Coercivity in X: `elliptic_bounds`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fem_apps.errors import CaseError
from fem_apps.fem.solvers import factorised, solve
from fem_apps.mpi import extremes, on_rank_zero, total
from fem_apps.problems.elliptic import Discretisation
from fem_apps.problems.elliptic_bounds import enclosing_boxes
from fem_apps.problems.elliptic_coefficients import LogNormal
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_interpolated import Exact
from fem_apps.problems.elliptic_reach import reaches
from fem_apps.problems.elliptic_solver import EllipticSolver
from fem_apps.problems.elliptic_stored import model_functions

DIRECT = 200_000  # most dofs for which X is factorised
SNAPSHOT_RTOL = 1e-12


class EllipticModel:
    """The `FullModel` of a discretisation.

    Attributes:
        product: "seminorm" or "energy".
        weight: a_bar on the owned dofs of W: 1 for the seminorm.
        boxes: what bounds a / a_bar.
        exact: the operator of a diffusion that is not affine.
    """

    def __init__(
        self, D: Discretisation, product: str | None = None, exact: Exact | None = None
    ) -> None:
        """Make X and the boxes. Collective.

        Args:
            D: the discretisation.
            product: X; by default the seminorm where it is a norm.
            exact: what is solved, where D's a is an interpolation.

        Raises:
            CaseError: the seminorm is asked for and u is given nowhere; the energy at the middle of
                the ranges is not positive.
        """
        space = D.space
        self.D, self.comm, self.ranges = D, space.comm, D.equation.ranges
        self.exact = exact
        held = total(space.comm, len(space.fixed)) > 0
        self.product = product or ("seminorm" if held else "energy")
        if self.product == "seminorm" and not held:
            raise CaseError(
                "the H1 seminorm is no norm here: u is given on no part of the boundary"
            )
        self._Q = D.fields.shape[1]
        if self.product == "seminorm":
            u, v = ufl.TrialFunction(space.V), ufl.TestFunction(space.V)
            form = fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * space.dx)
            self.X = fem_petsc.assemble_matrix(form, bcs=space.bcs)
            self.X.assemble()
            weight = np.ones(len(D.fields))
            self._extra: np.ndarray | None = None
        else:
            centre = np.array([0.5 * (a + b) for a, b in self.ranges.values()])
            theta = D.theta(centre)
            self.X = D.matrix.combine(theta).copy()
            weight = D.fields @ theta[: self._Q]
            self._extra = theta[self._Q :]
            if not (total(space.comm, int((weight <= 0).sum())) == 0 and (self._extra >= 0).all()):
                raise CaseError("the energy at the middle of the parameter ranges is no norm")
        self.weight, self._least = weight, extremes(space.comm, weight)[0]
        self.boxes = gathered_boxes(space.comm, D.fields / weight[:, None])
        self._feature_boxes = None
        if exact is not None and isinstance(D.equation.diffusion, LogNormal):
            self._feature_boxes = gathered_boxes(space.comm, exact.features.T)
        self._direct = space.V.mesh.topology.dim < 3 and space.size <= DIRECT
        self._reach = reaches(D, self.X, self._direct) if self._extra is None else None
        made = model_functions(self.functions())
        self.theta, self.theta_load = made["theta"], made["theta_load"]
        self.bound, self.gap = made["bound"], made["gap"]
        self._factor: PETSc.KSP | None = None
        self._cg: EllipticSolver | None = None
        if self._direct:
            self._factor = factorised(self.X, spd=True)
        else:
            self._cg = EllipticSolver(space.V, 1e-13)

    @property
    def right_sides(self) -> np.ndarray:
        """See `FullModel`."""
        return self.D.right_sides

    @property
    def outputs(self) -> np.ndarray:
        """See `FullModel`."""
        return self.D.quantities

    def solve(
        self, mu: np.ndarray, start: np.ndarray | None = None, rtol: float = SNAPSHOT_RTOL
    ) -> np.ndarray:
        """See `FullModel`."""
        return (self.exact or self.D).solve(mu, start, rtol)

    def products(self, u: np.ndarray) -> Any:
        """See `FullModel`."""
        return self.D.matrix.products(u)

    def inner(self, u: np.ndarray) -> np.ndarray:
        """See `FullModel`."""
        x, y = self.X.createVecs()
        x.array_w[:] = u
        self.X.mult(x, y)
        out = y.array_r.copy()
        x.destroy()
        y.destroy()
        return out

    def riesz(self, w: np.ndarray) -> np.ndarray:
        """See `FullModel`."""
        if self._cg is not None:
            return self._cg.solve(self.X, w)
        assert self._factor is not None
        x, y = self.X.createVecs()
        y.array_w[:] = w
        solve(self._factor, y, x, "Riesz representative")
        out = x.array_r.copy()
        x.destroy()
        y.destroy()
        return out

    def norm(self, u: np.ndarray) -> float:
        """|u|_X. Collective."""
        return float(np.sqrt(max(total(self.comm, float(u @ self.inner(u))), 0.0)))

    def functions(self) -> dict[str, Any]:
        """What `model_functions` makes theta, theta_load and bound of, as JSON values."""
        inter = None
        if self.exact is not None and self.exact.interpolation is not None:
            i = self.exact.interpolation
            inter = {k: getattr(i, k).tolist() for k in ("features", "inverse", "watch")}
        return {
            "equation": self.D.equation.model_dump(mode="json", include=set(Equation.model_fields)),
            "lifts": len(self.D.lifts) > 0,
            "boxes": [b.tolist() for b in self.boxes],
            "extra": None if self._extra is None else self._extra.tolist(),
            "reach": None if self._reach is None else self._reach.tolist(),
            "terms": self._Q,
            "interpolation": inter,
            "feature_boxes": self._feature_boxes and [b.tolist() for b in self._feature_boxes],
            "least": self._least,
            "product": self.product,
        }


def gathered_boxes(comm: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`enclosing_boxes` of the rows of all ranks, the same whatever their number. Collective."""
    parts = comm.gather(np.unique(rows, axis=0))
    return on_rank_zero(comm, lambda: enclosing_boxes(np.concatenate(parts)))
