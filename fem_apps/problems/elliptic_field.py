"""Elliptic operators whose coefficient is a field: solves, adjoints, derivatives along fields.

    A(a) u = b,   A_ij = int a grad phi_j . grad phi_i + (c phi_j, phi_i) + (r phi_j, phi_i)_Robin

with a in W, constant on cells or Lagrange. A is linear in a, so with J(u(a)) and A lambda = J'(u)

    dJ/da_k = - int w_k grad u . grad lambda,        A du = - A'(da) u.

This is what inverse problems for a conductivity are built from; b is theirs to choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fem_apps.errors import CaseError
from fem_apps.fem.expressions import COORDINATES, parse
from fem_apps.fem.solvers import factorised, solve
from fem_apps.mpi import extremes
from fem_apps.problems.elliptic import Space
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_matrix import assemble_in_place
from fem_apps.problems.elliptic_solver import SPREAD, EllipticSolver


class FieldOperator:
    """A(a) for a changing field a, with everything compiled before.

    Vectors are owned entries: of V for u, b, lambda, of W for a and gradients.

    Attributes:
        space: V, W and the conditions.
        mat: A at the last a.
    """

    def __init__(
        self, space: Space, equation: Equation, *, direct: bool = False, rtol: float = 1e-10
    ) -> None:
        """Compile the forms. Collective.

        Args:
            space: from `make_space`.
            equation: its reaction and Robin terms, at theta = 1, are in A; its diffusion is not.
            direct: a sparse factorisation a field (many right sides), instead of CG with BoomerAMG.
            rtol: of CG.
        """
        V, W = space.V, space.W
        self.space = space
        self._a, self._da = fem.Function(W), fem.Function(W)
        self._u, self._lambda = fem.Function(V), fem.Function(V)
        u, v, w = ufl.TrialFunction(V), ufl.TestFunction(V), ufl.TestFunction(W)
        form = self._a * ufl.inner(ufl.grad(u), ufl.grad(v)) * space.dx
        for t in equation.reaction:
            form += _value(space, t.value) * ufl.inner(u, v) * space.measure(t.on)
        for b in equation.boundary:
            for t in b.coefficient:
                form += _value(space, t.value) * ufl.inner(u, v) * space.measure(t.on or b.on)
        self._form = fem.form(form)
        self._action = fem.form(ufl.action(form, self._u))
        self.mat = fem_petsc.create_matrix(self._form)
        self.mat.setOption(PETSc.Mat.Option.SPD, True)
        self._gradient = fem.form(
            -w * ufl.inner(ufl.grad(self._u), ufl.grad(self._lambda)) * space.dx
        )
        self._tangent = fem.form(-self._da * ufl.inner(ufl.grad(self._u), ufl.grad(v)) * space.dx)
        self._direct, self._factor = direct, None
        self._last: np.ndarray | None = None  # the field of the preconditioner
        self._cg = EllipticSolver(V, rtol)

    @property
    def iterations(self) -> list[int]:
        """CG steps of every solve."""
        return self._cg.iterations

    def set(self, a: np.ndarray) -> None:
        """Assemble A(a). Collective.

        Raises:
            CaseError: a is not positive.
        """
        low, _ = extremes(self.space.comm, a)
        if not low > 0:
            raise CaseError(
                f"the diffusion coefficient is not positive: its least value is {low:g}"
            )
        if self._last is None or _ratio(self.space.comm, a / self._last) > SPREAD:
            self._cg.renew()
            self._last = a.copy()
        _fill(self._a, a)
        assemble_in_place(self.mat, self._form, self.space.bcs)
        if self._factor is not None:
            self._factor.destroy()
            self._factor = None

    def lifted(self, u: np.ndarray) -> np.ndarray:
        """A u_g at the last a, without the conditions; zero on Dirichlet parts. Collective."""
        _fill(self._u, u)
        out = _vector(self._action)
        out[self.space.fixed] = 0.0
        return out

    def solve(
        self, b: np.ndarray, start: np.ndarray | None = None, rtol: float | None = None
    ) -> np.ndarray:
        """u_0 with A u_0 = b, zero on Dirichlet parts; also the adjoint, as A is symmetric.

        Raises:
            SolveError: CG did not converge.
        """
        rhs = b.copy()
        rhs[self.space.fixed] = 0.0
        if not self._direct:
            return self._cg.solve(self.mat, rhs, start, rtol)
        if self._factor is None:
            self._factor = factorised(self.mat, spd=True)
        x, y = self.mat.createVecs()
        y.array_w[:] = rhs
        solve(self._factor, y, x, "factorised elliptic operator")
        out = x.array_r.copy()
        x.destroy()
        y.destroy()
        return out

    def gradient(self, u: np.ndarray, adjoint: np.ndarray) -> np.ndarray:
        """dJ/da_k = -int w_k grad u . grad lambda, shape (n_W,); u with its lift. Collective."""
        _fill(self._u, u)
        _fill(self._lambda, adjoint)
        return _vector(self._gradient)

    def tangent(self, u: np.ndarray, da: np.ndarray) -> np.ndarray:
        """The right side -A'(da) u of A du = -A'(da) u; zero on Dirichlet parts. Collective."""
        _fill(self._u, u)
        _fill(self._da, da)
        out = _vector(self._tangent)
        out[self.space.fixed] = 0.0
        return out


def _ratio(comm: Any, x: np.ndarray) -> float:
    low, high = extremes(comm, x)
    return high / low


def _fill(f: Any, values: np.ndarray) -> None:
    f.x.array[: len(values)] = values
    f.x.scatter_forward()


def _vector(form: Any) -> np.ndarray:
    b = fem_petsc.assemble_vector(form)
    b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
    out = b.array_r.copy()
    b.destroy()
    return out


def _value(space: Space, text: str) -> Any:
    return parse(text, COORDINATES).ufl(space.V.mesh)
