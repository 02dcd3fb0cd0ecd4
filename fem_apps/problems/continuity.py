"""The continuity equation: transport of a density by any velocity, mass and positivity kept.

    d_t rho + div(rho v) = 0,   v given, a network, or a function of rho itself

in conservative form on intervals, planar domains, volumes, curves and surfaces; boundaries open,
walls, or periodic. Schemes: `DG` (degree k, upwind, limited), `P1` (flux-corrected transport), and
`Galerkin` (Crank-Nicolson, SUPG or plain) to compare with.

    problem = Problem(velocity=["0.5 - y", "x - 0.5"])
    for step in evolve(mesh, problem, "exp(-50*((x-.5)**2 + (y-.75)**2))", Time(end=6.28)):
        use(step.t, step.mass, step.rho)

A velocity that depends on the density is a callable v(x, t, rho), x of shape (n, gdim):

    def v(x, t, rho):                        # v[rho](x) = int K(x, y) drho(y)
        y, mass = rho.everywhere             # points (m, gdim), masses (m,) of all ranks
        return kernel(x, y) @ mass           # shape (n, gdim)

    Problem(velocity=v)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from dolfinx import fem
from mpi4py import MPI
from pydantic import BeforeValidator, Field

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError, SolveError
from fem_apps.fem import node_graph
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.meshing import MeshCase, MeshData
from fem_apps.mpi import same_error
from fem_apps.problems.continuity_boundary import Side, Sides
from fem_apps.problems.continuity_dg import DG, DGSolver
from fem_apps.problems.continuity_galerkin import Galerkin, GalerkinSolver
from fem_apps.problems.continuity_p1 import P1, P1Solver
from fem_apps.problems.continuity_quadrature import may_jump
from fem_apps.problems.continuity_velocity import (
    Measure,
    Velocity,
    VelocityTable,
    mean_field,
    velocity_of,
)
from fem_apps.problems.data_files import Find
from fem_apps.problems.initial_density import (
    FromExpression,
    FromGaussians,
    Initial,
    InitialDensity,
    initial_density,
)

__all__ = [
    "DG",
    "P1",
    "Galerkin",
    "Measure",
    "Problem",
    "Side",
    "Step",
    "Time",
    "Velocity",
    "evolve",
    "mean_field",
    "set_up",
]


def _dg_by_default(table: object) -> object:
    return {"type": "dg", **table} if isinstance(table, dict) else table


Scheme = Annotated[DG | P1 | Galerkin, Field(discriminator="type"), BeforeValidator(_dg_by_default)]


class Time(Table):
    """The `[time]` table."""

    end: float = Field(gt=0, description="final time")
    dt: float | None = Field(None, gt=0, description="length of steps; from `cfl` if left out")
    cfl: float = Field(
        0.9, gt=0, description="step relative to the largest that keeps means (or nodes) positive"
    )
    dt_max: float | None = Field(None, gt=0, description="largest step")


class Output(Table):
    """What is written, and how often."""

    frames: int = Field(
        40, ge=1, le=10000, description="times at which fields are written; hit exactly"
    )
    fields: bool = Field(True, description="fields for ParaView")
    pictures: bool = Field(True, description="pictures and the animation")
    checkpoint: float = Field(
        60.0, ge=0, description="seconds of wall time between checkpoints; 0: every step"
    )


class Case(AnyCase):
    """A case of kind continuity."""

    mesh: MeshCase = Field(description="the domain")
    velocity: VelocityTable = Field(description="v")
    boundary: dict[str, Side] = Field(
        {},
        description="sides by the mesh's names; `default` is for the others (open, nothing enters)",
    )
    initial: InitialDensity = Field(description="the density at time 0")
    exact: ExpressionText | Literal["initial"] | None = Field(
        None,
        description="the solution at the final time, an expression of x, y, z, t, or 'initial'",
    )
    time: Time = Field(description="final time and step sizes")
    scheme: Scheme = Field(default_factory=DG, description="discretisation")
    output: Output = Field(default_factory=Output, description="what is written")


@dataclass(frozen=True)
class Problem:
    """d_t rho + div(rho v) = 0.

    Attributes:
        velocity: expressions ["v_x", ...], a Function, a callable v(x, t, rho), or a `Velocity`.
        boundary: sides by name; `default` for the others. Open, and nothing enters, if left out.
    """

    velocity: Any
    boundary: Sides = field(default_factory=dict)


class Solver(Protocol):
    """A discretisation; a density is an array of this rank's values."""

    V: fem.FunctionSpace
    outflow: float

    def step(self, t: float, u: np.ndarray, dt: float) -> np.ndarray:
        """The density at t + dt; sets `outflow`, what left through this rank's boundary."""

    def largest_step(self, t: float, u: np.ndarray) -> float:
        """The step for which positivity is certain."""

    def project(self, f: Callable[[np.ndarray], np.ndarray], jumps: bool) -> np.ndarray:
        """The density nearest to f(x), x of shape (gdim, n)."""

    def errors(
        self, u: np.ndarray, f: Callable[[np.ndarray], np.ndarray], jumps: bool
    ) -> tuple[float, float]:
        """L1 and L2 norms of u - f."""

    def mass(self, u: np.ndarray) -> float:
        """Int rho."""

    def extremes(self, u: np.ndarray) -> tuple[float, float]:
        """Least and greatest value."""

    def measure(self, u: np.ndarray) -> Measure:
        """The density as a discrete measure."""

    def to_function(self, u: np.ndarray, f: fem.Function) -> None:
        """Write a density into a Function of V."""

    def from_function(self, f: fem.Function) -> np.ndarray:
        """The density of a Function of V."""


@dataclass(frozen=True)
class Step:
    """A state: number of steps, time, density (values of this rank), the step's length.

    Attributes:
        mass: int rho, over all ranks.
        low, high: extremes over all ranks.
        outflow: what has left through the boundary in this step, over all ranks.
        at_output: whether its time was asked for.
        solver: `to_function(rho, f)` makes a Function of `solver.V`, `measure(rho)` a measure.
    """

    number: int
    t: float
    rho: np.ndarray
    dt: float
    mass: float
    low: float
    high: float
    outflow: float
    at_output: bool
    solver: Solver = field(repr=False)


def set_up(data: MeshData, problem: Problem, scheme: DG | P1 | Galerkin | None = None) -> Solver:
    """The discretisation of a problem on a mesh. Collective.

    Raises:
        CaseError: boundary or velocity do not fit the mesh.
    """
    scheme = scheme or DG()
    velocity = velocity_of(problem.velocity)
    if isinstance(scheme, P1):
        return P1Solver(data, velocity, problem.boundary, scheme)
    if isinstance(scheme, Galerkin):
        return GalerkinSolver(data, velocity, problem.boundary, scheme)
    return DGSolver(data, velocity, problem.boundary, scheme)


def start(
    solver: Solver,
    data: MeshData,
    rho0: str | Initial | Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    find: Find = Path,
) -> np.ndarray:
    """The initial density: a text (as it is), a callable of x (gdim, n), a table. Collective.

    Raises:
        CaseError: a density that is negative or not finite, or data that do not fit.
    """
    if isinstance(rho0, str):
        rho0 = FromExpression(type="expression", expression=rho0, normalise=False)
    comm = data.mesh.comm
    if callable(rho0):
        return solver.project(rho0, False)
    if isinstance(rho0, FromExpression):
        e = parse(rho0.expression)
        u = solver.project(_checked(comm, lambda x: e.numpy(x, 0.0)), may_jump(e))
    elif isinstance(rho0, FromGaussians) and not data.lattice:
        u = solver.project(_gaussians(rho0, data.mesh.geometry.dim), False)
    else:
        graph = node_graph.build(data.mesh, data.lattice)
        nodal, f = fem.Function(graph.V), fem.Function(solver.V)
        graph.to_function(initial_density(rho0, graph, seed, find), nodal)
        f.interpolate(nodal)
        f.x.scatter_forward()
        u = solver.from_function(f)
    mass = solver.mass(u)
    if mass <= 0:
        raise CaseError("initial: the density is zero on the whole mesh")
    return u * (rho0.mass / mass) if rho0.normalise else u


def _checked(
    comm: MPI.Comm, f: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    def g(x: np.ndarray) -> np.ndarray:
        with same_error(comm):
            values = np.asarray(f(x))
            if not np.isfinite(values).all():
                raise CaseError("initial: the density is not finite somewhere on the mesh")
            if (values < 0).any():
                i = int(values.argmin())
                raise CaseError(
                    f"initial: the density is negative: {values[i]:.4g} at {x[:, i].tolist()}"
                )
        return values

    return g


def _gaussians(initial: FromGaussians, gdim: int) -> Callable[[np.ndarray], np.ndarray]:
    for c in initial.components:
        if len(c.centre) != gdim:
            raise CaseError(f"initial: centre = {list(c.centre)} on a mesh in {gdim}D")

    def f(x: np.ndarray) -> np.ndarray:
        out = np.zeros(x.shape[1])
        for c in initial.components:
            r2 = ((x - np.array(c.centre)[:, None]) ** 2).sum(axis=0) / c.width**2
            out += c.weight / c.width**gdim * np.exp(-r2 / 2)
        return out

    return f


def advance(
    solver: Solver,
    comm: MPI.Comm,
    u: np.ndarray,
    velocity: Velocity,
    time: Time,
    *,
    t: float = 0.0,
    number: int = 0,
    outputs: Sequence[float] = (),
) -> Iterator[Step]:
    """Yield every step after (t, u) up to `time.end`, hitting `outputs` and jumps of v. Collective.

    Raises:
        SolveError: the density is no longer finite, or grows without bound.
    """
    goals = sorted(
        {float(s) for s in (*outputs, *velocity.breaks) if t < s < time.end} | {time.end}
    )
    shown = {*map(float, outputs), time.end}
    first = solver.extremes(u)
    size = max(abs(first[0]), abs(first[1]), 1e-300)
    for goal in goals:
        while t < goal:
            left = goal - t
            dt = _step_size(solver, velocity, u, t, left, time)
            u = solver.step(t, u, dt)
            landed = dt >= left * (1 - 1e-12)
            t, number = (goal if landed else t + dt), number + 1
            low, high = solver.extremes(u)
            if not (np.isfinite(low) and np.isfinite(high)) or max(-low, high) > 1e12 * size:
                raise SolveError(
                    f"step {number} of the continuity equation",
                    f"the density is not finite or exceeds 1e12 times its start (dt = {dt:.3g})",
                    time=t,
                    advice="a smaller time.cfl or time.dt, or a limiter",
                )
            outflow = float(comm.allreduce(solver.outflow))
            yield Step(
                number,
                t,
                u,
                dt,
                solver.mass(u),
                low,
                high,
                outflow,
                landed and goal in shown,
                solver,
            )


def _step_size(
    solver: Solver, velocity: Velocity, u: np.ndarray, t: float, left: float, time: Time
) -> float:
    """Equal steps to the goal: of the length asked for, or as long as the bound allows."""
    longest = time.dt
    if longest is None:
        longest = time.cfl * solver.largest_step(t, u)
        if velocity.changes == "time" or velocity.amplitude is not None:
            # v at the end of the step bounds its later stages
            end = t + min(longest, left * (1 - 1e-9), time.dt_max or np.inf)
            longest = min(longest, time.cfl * solver.largest_step(end, u))
    longest = min(longest, time.dt_max or np.inf)
    if longest >= left * (1 - 1e-9):
        return left
    return left / np.ceil(left / longest - 1e-9)


def evolve(
    data: MeshData,
    problem: Problem,
    rho0: str | Initial | Callable[[np.ndarray], np.ndarray],
    time: Time,
    *,
    scheme: DG | P1 | Galerkin | None = None,
    outputs: Sequence[float] = (),
) -> Iterator[Step]:
    """Solve the problem; yields every step. Collective.

    Args:
        data: the mesh.
        problem: the equation.
        rho0: an expression, a callable of x (gdim, n), or a table of a case.
        time: final time and step sizes.
        scheme: DG() if left out.
        outputs: times to hit.

    Raises:
        CaseError: data that do not fit the mesh.
        SolveError: the density is no longer finite.
    """
    velocity = velocity_of(problem.velocity)
    solver = set_up(data, Problem(velocity, problem.boundary), scheme)
    u = start(solver, data, rho0)
    yield from advance(solver, data.mesh.comm, u, velocity, time, outputs=outputs)


def run(case: Case, run: object) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.problems.continuity_run import run_case

    return run_case(case, run)  # type: ignore[arg-type]
