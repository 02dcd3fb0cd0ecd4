"""Parametric elliptic problems: -div(a(x; mu) grad u) + c u = f on a mesh, for many mu.

Weak form: with V_0 the functions of Pk that vanish where u is given, and u = u_0 + u_g,

    (a grad u, grad v) + (c u, v) + (r u, v)_Robin = (f, v) + (h, v)_flux   for all v in V_0.

`discretise` makes what every solve shares; `Space` is the part that also serves operators with a
field for coefficient (`elliptic_field`). Vectors here are the owned entries, numpy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI
from petsc4py import PETSc

from fem_apps.errors import CaseError
from fem_apps.fem.expressions import COORDINATES, parse
from fem_apps.fem.integrals import interpolate, owned
from fem_apps.meshing import MeshData
from fem_apps.mpi import extremes, total
from fem_apps.problems.elliptic_coefficients import Term, Terms
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_matrix import AffineMatrix
from fem_apps.problems.elliptic_solver import EllipticSolver


@dataclass(frozen=True)
class Space:
    """V_h = Pk with its Dirichlet data, the space W of coefficients, and measures by name.

    Attributes:
        data: the mesh.
        V: the space of u; W: that of a, cellwise constant or Lagrange.
        bcs: homogeneous conditions for V_0; `fixed`: owned dofs that they hold.
        lift: u_g, owned entries, zero off the Dirichlet parts.
        dx, ds: measures with the mesh's tags.
    """

    data: MeshData
    V: Any
    W: Any
    bcs: list[Any]
    fixed: np.ndarray
    lift: np.ndarray
    dx: Any
    ds: Any

    @property
    def comm(self) -> MPI.Comm:
        """Communicator of the mesh."""
        return self.V.mesh.comm

    @property
    def size(self) -> int:
        """Number of degrees of freedom on all ranks."""
        return self.V.dofmap.index_map.size_global

    def measure(self, on: str | None) -> Any:
        """The measure of a named part: of the domain, or of its boundary. Raises CaseError."""
        if on is None:
            return self.dx
        if on == "boundary":
            return self.ds
        dim = self.data.names.get(on, (self.V.mesh.topology.dim, 0))[0]
        tag = self.data.tag(on, dim)
        return (self.dx if dim == self.V.mesh.topology.dim else self.ds)(tag)

    def vector(self, form: Any) -> np.ndarray:
        """Owned entries of an assembled linear form; nothing is set to zero. Collective."""
        b = fem_petsc.assemble_vector(fem.form(form))
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        out = b.array_r.copy()
        b.destroy()
        return out

    def function(self, values: np.ndarray, name: str = "u") -> Any:
        """The function in V with these owned entries, ghosts up to date. Collective."""
        u = fem.Function(self.V, name=name)
        u.x.array[: len(values)] = values
        u.x.scatter_forward()
        return u

    def points(self) -> np.ndarray:
        """Coordinates of the owned dofs of W, shape (gdim, n)."""
        n = self.W.dofmap.index_map.size_local
        return self.W.tabulate_dof_coordinates()[:n, : self.V.mesh.geometry.dim].T


def make_space(data: MeshData, equation: Equation, degree: int = 1) -> Space:
    """The spaces of an equation on a mesh. Collective.

    Raises:
        CaseError: a boundary part that the mesh does not have, or a boundary value that is not
            finite.
    """
    mesh = data.mesh
    tdim = mesh.topology.dim
    mesh.topology.create_connectivity(tdim - 1, tdim)
    V = fem.functionspace(mesh, ("Lagrange", degree))
    kind = ("DG", 0) if equation.degree_of_a == 0 else ("Lagrange", equation.degree_of_a)
    dx = ufl.Measure("dx", domain=mesh, subdomain_data=data.cell_tags)
    ds = ufl.Measure("ds", domain=mesh, subdomain_data=data.facet_tags)
    u_g = fem.Function(V)
    dofs: list[np.ndarray] = []
    conditions = [b for b in equation.boundary if b.type == "dirichlet"]
    if not equation.boundary:
        dofs.append(fem.locate_dofs_topological(V, tdim - 1, _facets(data, "boundary")))
    for b in conditions:
        here = fem.locate_dofs_topological(V, tdim - 1, _facets(data, b.on))
        g = interpolate(V, parse(b.value, COORDINATES))
        u_g.x.array[here] = g.x.array[here]
        dofs.append(here)
    for b in equation.boundary:
        _facets(data, b.on)
    u_g.x.scatter_forward()
    robin = any(b.type == "robin" for b in equation.boundary)
    if not conditions and equation.boundary and not robin and not equation.reaction:
        raise CaseError(
            "u is given nowhere, and there is neither a reaction nor a robin condition: u is "
            "determined up to a constant only"
        )
    here = np.unique(np.concatenate(dofs)).astype(np.int32) if dofs else np.empty(0, np.int32)
    zero = fem.Function(V)
    bcs = [fem.dirichletbc(zero, here)]
    n = V.dofmap.index_map.size_local
    return Space(
        data, V, fem.functionspace(mesh, kind), bcs, here[here < n], owned(u_g).copy(), dx, ds
    )


def _facets(data: MeshData, on: str) -> np.ndarray:
    from dolfinx.mesh import exterior_facet_indices

    if on == "boundary":
        return exterior_facet_indices(data.mesh.topology)
    tag = data.tag(on, data.mesh.topology.dim - 1)
    if data.facet_tags is None:
        raise CaseError(f"the mesh has no tagged boundary parts, so none named {on!r}")
    return data.facet_tags.find(tag)


class AffineCoefficient(Protocol):
    """theta_q of an affine a."""

    def theta(self, mu: Mapping[str, Any], xp: ModuleType = np) -> Any:
        """theta_q(mu), shape (..., Q), of named parameters of shape (...)."""


@dataclass(frozen=True)
class Discretisation:
    """A(mu) u_0 = b(mu) for an affine a: the matrices and vectors of every term.

    Attributes:
        equation: what is solved; `space`: where.
        coefficient: the affine a: the equation's own, or its empirical interpolation.
        fields: a_q on the owned dofs of W, shape (n_W, Q).
        matrix: A(theta) = sum_q theta_q A_q on V_0, the terms of a first, then c, then Robin.
        loads: rows of b that do not come from u_g, shape (F, n); `lifts`: -A_q u_g, shape (Q', n).
        solver: CG with BoomerAMG, reused.
        quantities: one row each, shape (number, n).
    """

    equation: Equation
    space: Space
    coefficient: AffineCoefficient
    fields: np.ndarray = field(repr=False)
    matrix: AffineMatrix = field(repr=False)
    loads: np.ndarray = field(repr=False)
    lifts: np.ndarray = field(repr=False)
    quantities: np.ndarray = field(repr=False)
    solver: EllipticSolver = field(repr=False)

    def theta(self, mu: Any, xp: Any = np) -> Any:
        """Coefficients of the matrix, shape (..., Q'), of parameters of shape (..., P)."""
        e = self.equation
        return xp.concatenate(
            [self.coefficient.theta(e.named(mu), xp), e.theta_operator(mu, xp)], axis=-1
        )

    def theta_load(self, mu: Any, xp: Any = np) -> Any:
        """Coefficients of `loads`, then of `lifts` where there are any, shape (..., F')."""
        phi = self.equation.theta_load(mu, xp)
        return xp.concatenate([phi, self.theta(mu, xp)], axis=-1) if len(self.lifts) else phi

    @property
    def right_sides(self) -> np.ndarray:
        """`loads` and `lifts`, shape (F', n)."""
        return np.vstack([self.loads, self.lifts]) if len(self.lifts) else self.loads

    def solve(
        self, mu: np.ndarray, start: np.ndarray | None = None, rtol: float | None = None
    ) -> np.ndarray:
        """u_0 at one parameter, shape (P,); add `space.lift` for u. Collective.

        Raises:
            CaseError: a(x; mu) is not positive.
            SolveError: CG did not converge.
        """
        mu = np.asarray(mu, dtype=float)
        theta = self.theta(mu)
        check_positive(self.space, self.fields @ theta[: self.fields.shape[1]], mu, self.equation)
        b = self.theta_load(mu) @ self.right_sides
        return self.solver.solve(self.matrix.combine(theta), b, start, rtol, theta)

    def adjoint(self, mu: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """lambda_0 with A(mu) lambda_0 = weights (A is symmetric), zero on Dirichlet parts."""
        rhs = weights.copy()
        rhs[self.space.fixed] = 0.0
        theta = self.theta(np.asarray(mu, float))
        return self.solver.solve(self.matrix.combine(theta), rhs, theta=theta)

    def gradient(self, mu: np.ndarray, u: np.ndarray, adjoint: np.ndarray) -> np.ndarray:
        """d/d mu of a quantity of u, shape (P,): lambda^T (db/dmu - dA/dmu u_0). Collective.

        Args:
            mu: the parameter.
            u: u_0 there.
            adjoint: that of the quantity's weights.
        """
        import jax
        import jax.numpy as jnp

        in_A = np.array([-adjoint @ y for y in self.matrix.products(u)])
        both = total(self.space.comm, np.concatenate([in_A, self.right_sides @ adjoint]))
        with jax.enable_x64(True):
            along = jax.grad(
                lambda m: jnp.concatenate([self.theta(m, jnp), self.theta_load(m, jnp)]) @ both
            )(jnp.asarray(mu, dtype=float))
            return np.asarray(along)


def discretise(
    data: MeshData,
    equation: Equation,
    degree: int = 1,
    *,
    interpolation: tuple[AffineCoefficient, np.ndarray] | None = None,
    rtol: float = 1e-10,
) -> Discretisation:
    """Assemble every term of an affine equation. Collective.

    Args:
        data: the mesh.
        equation: the problem.
        degree: of V_h.
        interpolation: theta_q and a_q on the owned dofs of W, shape (n_W, Q), to take the place of
            a diffusion that is not affine.
        rtol: of the residual in CG.

    Raises:
        CaseError: see `make_space`; a coefficient that is not finite; c or a Robin coefficient that
            is negative somewhere.
    """
    space = make_space(data, equation, degree)
    if interpolation is None:
        coefficient: Any = equation.diffusion
        fields = affine_fields(space, equation)
    else:
        coefficient, fields = interpolation
    u, v = ufl.TrialFunction(space.V), ufl.TestFunction(space.V)
    a = fem.Function(space.W)
    n_W = len(fields)
    diffusion = fem.form(a * ufl.inner(ufl.grad(u), ufl.grad(v)) * space.dx)
    extra: list[tuple[Any, Any]] = [(c, ufl.inner(u, v)) for c in equation.reaction]
    extra += [(r, ufl.inner(u, v)) for b in equation.boundary for r in b.coefficient]
    robin_on = [b.on for b in equation.boundary for _ in b.coefficient]
    places = [c.on for c in equation.reaction] + robin_on
    for t, _ in extra:
        x = space.V.tabulate_dof_coordinates()[:, : data.mesh.geometry.dim].T
        if extremes(space.comm, parse(t.value, COORDINATES).numpy(x))[0] < 0:
            raise CaseError(f"reaction or robin coefficient {t.value!r} is negative on the mesh")
    forms = [
        _value(space, t) * form * space.measure(t.on if t.on else place)
        for (t, form), place in zip(extra, places, strict=True)
    ]
    pattern = a * ufl.inner(ufl.grad(u), ufl.grad(v)) * space.dx
    for f in forms:
        pattern += f
    matrix = AffineMatrix(fem.form(pattern), space.bcs, space.fixed)
    for q in range(fields.shape[1]):
        a.x.array[:n_W] = fields[:, q]
        a.x.scatter_forward()
        matrix.add(diffusion, space.lift)
    for f in forms:
        matrix.add(fem.form(f), space.lift)
    matrix.finish()
    sources = [(t, space.measure(t.on)) for t in equation.source]
    sources += [(t, space.measure(t.on or b.on)) for b in equation.boundary for t in b.flux]
    loads = np.array([space.vector(_value(space, t) * v * m) for t, m in sources])
    loads = loads.reshape(-1, len(space.lift))
    lifts: np.ndarray = np.empty((0, len(space.lift)))
    if total(space.comm, float(np.abs(space.lift).sum())) > 0:
        lifts = -np.array(matrix.lifted)
    for rows in (loads, lifts):
        rows[:, space.fixed] = 0.0
    quantities = np.array(
        [
            space.vector(_ufl(data.mesh, q.weight) * v * space.measure(q.on))
            for q in equation.quantities
        ]
    ).reshape(-1, len(space.lift))
    solver = EllipticSolver(space.V, rtol)
    return Discretisation(
        equation, space, coefficient, fields, matrix, loads, lifts, quantities, solver
    )


def _value(space: Space, term: Term) -> Any:
    return _ufl(space.V.mesh, term.value)


def _ufl(mesh: Any, text: str) -> Any:
    value = parse(text, COORDINATES).ufl(mesh)
    # a form with a factor that UFL knows to be zero has no arguments left
    return fem.Constant(mesh, PETSc.ScalarType(0)) if value == 0 else value


def affine_fields(space: Space, equation: Equation) -> np.ndarray:
    """a_q on the owned dofs of W, shape (n_W, Q). Collective."""
    d = equation.diffusion
    if not d.affine:
        raise ValueError("this coefficient is not affine; give fields of its interpolation")
    x = space.points()
    fields = d.fields(x).T
    for q, t in enumerate(d.terms if isinstance(d, Terms) else ()):
        if t.on is None:
            continue
        if equation.degree_of_a != 0:
            raise CaseError("diffusion.terms with 'on' jump between cells: interpolation must be 0")
        tag = space.data.tag(t.on, space.V.mesh.topology.dim)
        inside = np.zeros(space.W.dofmap.list.max(initial=-1) + 1, dtype=bool)
        inside[space.W.dofmap.list[space.data.cell_tags.find(tag), 0]] = True
        fields[~inside[: len(x.T)], q] = 0.0
    bad = ~np.isfinite(fields).all(axis=1)
    if total(space.comm, int(bad.sum())):
        raise CaseError("diffusion: a term is not finite somewhere on the mesh")
    return fields


def check_positive(space: Space, a: np.ndarray, mu: np.ndarray, equation: Equation) -> None:
    """Raise CaseError on all ranks if a is not positive. Collective."""
    low, _ = extremes(space.comm, a)
    if not low > 0:
        at = ", ".join(f"{k} = {v:g}" for k, v in zip(equation.ranges, mu, strict=True))
        raise CaseError(
            f"the diffusion coefficient is not positive: it is {low:g} somewhere on the mesh"
            + (f" at {at}" if at else "")
        )
