"""Aggregation-diffusion equations: the Wasserstein gradient flow of a free energy.

    d_t rho = div( rho grad( H'(rho) + V + W * rho ) ),   no flux, or periodic

on intervals, planar domains, volumes, circles, spheres, any surface mesh. Mass is kept, rho >= 0,
and E(rho) = int H(rho) + int V rho + 1/2 iint W(x, y) rho(x) rho(y) falls; so do their discrete
counterparts, at every accepted step (`edge_scheme`, `log_density`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc
from pydantic import BeforeValidator, Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.fem import node_graph
from fem_apps.fem.convolution import Convolution, make_convolution
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.fem.kernels import Interaction, read_tables
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.time_stepping import Attempt, Step, StepControl, march
from fem_apps.meshing import MeshCase, MeshData
from fem_apps.problems.data_files import Find
from fem_apps.problems.edge_scheme import EdgeScheme, EdgeSolver, State
from fem_apps.problems.free_energy import Diffusion, Internal
from fem_apps.problems.initial_density import (
    FromExpression,
    Initial,
    InitialDensity,
    field_of_file,
    initial_density,
)
from fem_apps.problems.log_density import LogDensity, LogDensitySolver

SOURCE_QUADRATURE = 6


def _edge_by_default(table: object) -> object:
    return {"type": "edge", **table} if isinstance(table, dict) else table


Scheme = Annotated[
    EdgeScheme | LogDensity, Field(discriminator="type"), BeforeValidator(_edge_by_default)
]


class Potential(Table):
    """V: an expression, or a field of a file."""

    expression: ExpressionText | None = Field(None, description="V(x, y, z)")
    file: Path | None = Field(
        None, description="a mesh with point data, or CSV lines x[,y[,z]],value"
    )
    field: str | None = Field(None, description="name of the point data")

    @model_validator(mode="after")
    def _one(self) -> Potential:
        if (self.expression is None) == (self.file is None):
            raise ValueError("give either expression or file")
        return self


class Time(StepControl):
    """The `[time]` table."""

    steady: float = Field(
        0.0, ge=0, description="stop where int |d_t rho| / mass falls below this rate; 0: never"
    )


class Output(Table):
    """What is written, and how often."""

    frames: int = Field(
        40, ge=1, le=10000, description="times at which fields are written; hit exactly"
    )
    spacing: str = Field(
        "linear", pattern="^(linear|log)$", description="of these times: linear or log"
    )
    fields: bool = Field(True, description="fields for ParaView")
    pictures: bool = Field(True, description="pictures and the animation")
    checkpoint: float = Field(
        60.0, ge=0, description="seconds of wall time between checkpoints; 0: every step"
    )
    cluster_threshold: float = Field(
        0.1, gt=0, lt=1, description="a cluster is a part of {rho > this * max rho}"
    )


class Case(AnyCase):
    """A case of kind aggregation-diffusion."""

    mesh: MeshCase = Field(description="the domain")
    diffusion: tuple[Diffusion, ...] = Field((), description="terms of H")
    potential: Potential | None = Field(None, description="V; none if left out")
    interaction: tuple[Interaction, ...] = Field((), description="terms of W")
    source: ExpressionText | None = Field(
        None, description="source term s(x, y, z, t); the energy need not fall then"
    )
    initial: InitialDensity = Field(description="the density at time 0")
    time: Time = Field(description="final time and step sizes")
    scheme: Scheme = Field(default_factory=EdgeScheme, description="discretisation")
    output: Output = Field(default_factory=Output, description="what is written")
    stop_when_unresolved: bool = Field(
        True, description="end the run where the density concentrates on single nodes (blow-up)"
    )


@dataclass(frozen=True)
class Problem:
    """d_t rho = div(rho grad(H'(rho) + V + W*rho)) + s.

    Attributes:
        diffusion: terms of H.
        interaction: terms of W.
        potential: V, an expression of x, y, z, or its table of a case; None: 0.
        source: s, an expression of x, y, z, t; None: 0.
    """

    diffusion: Sequence[Diffusion] = ()
    interaction: Sequence[Interaction] = ()
    potential: str | Potential | None = None
    source: str | None = None


class Solver(Protocol):
    """A discretisation: what `evolve` and the application need of it."""

    graph: NodeGraph
    mass: float

    def start(self, t: float, rho: np.ndarray) -> State:
        """The state of a density without a past."""

    def rate(self, state: State) -> float:
        """Int |d_t rho| / mass."""

    def attempt(self, state: State, dt: float) -> Attempt[State]:
        """One step."""


@dataclass(frozen=True)
class Setting:
    """A problem on a mesh: what is made once, before the first step."""

    graph: NodeGraph
    convolution: Convolution | None
    solver: Solver
    rho0: np.ndarray = field(repr=False)


def set_up(
    data: MeshData,
    problem: Problem,
    rho0: str | Initial,
    *,
    scheme: EdgeScheme | LogDensity | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
    find: Find = Path,
) -> Setting:
    """Make what the steps need: node graph, W * rho, matrices, solver, initial density. Collective.

    Args:
        data: the mesh.
        problem: the equation.
        rho0: initial density: an expression (of mass 1), or a table of a case.
        scheme: of the discretisation; EdgeScheme() if left out.
        tolerance: local error of a step, relative, int |error| / mass; 0: none is estimated.
        seed: of random initial data.
        find: gives the path of a file that a table names.

    Raises:
        CaseError: data that do not fit the mesh.
    """
    scheme = scheme or EdgeScheme()
    graph = data.once("node graph", lambda: node_graph.build(data.mesh, data.lattice))
    comm, x = graph.comm, graph.x
    initial = FromExpression(type="expression", expression=rho0) if isinstance(rho0, str) else rho0
    rho = initial_density(initial, graph, seed, find)
    V = np.zeros(graph.n)
    if isinstance(problem.potential, str):
        V = parse(problem.potential).numpy(x.T)
    elif problem.potential is not None and problem.potential.expression is not None:
        V = parse(problem.potential.expression).numpy(x.T)
    elif problem.potential is not None and problem.potential.file is not None:
        V = field_of_file(graph, problem.potential.file, problem.potential.field, find)
    source = _source(graph, problem.source) if problem.source is not None else None
    convolution = None
    if problem.interaction:
        kernels = tuple(read_tables(comm, problem.interaction, find))
        convolution = data.once(
            "convolution",
            lambda: make_convolution(
                comm,
                kernels,
                x,
                spacing=graph.spacing,
                lattice=graph.lattice,
                stiffness=graph.stiffness,
                mass=graph.mass,
            ),
            key=kernels,
        )
    data_of = (graph, Internal(tuple(problem.diffusion)), V, convolution)
    mass = graph.integral(rho)
    solver: Solver
    if isinstance(scheme, LogDensity):
        solver = LogDensitySolver(*data_of, scheme, mass, tolerance, source)
    else:
        solver = EdgeSolver(*data_of, scheme, mass, tolerance, source)
    return Setting(graph, convolution, solver, rho)


def _source(graph: NodeGraph, text: str) -> Callable[[float], np.ndarray]:
    """T -> (s, phi_i) / m_i: a source is given in integrals, as it changes the mass."""
    mesh = graph.V.mesh
    time = fem.Constant(mesh, PETSc.ScalarType(0.0))
    s = parse(text).ufl(mesh, time)
    if isinstance(s, ufl.classes.Zero):  # UFL makes no form of it
        return lambda t: np.zeros(graph.n)
    form = fem.form(
        s * ufl.TestFunction(graph.V) * ufl.dx(metadata={"quadrature_degree": SOURCE_QUADRATURE})
    )

    def source(t: float) -> np.ndarray:
        time.value = t
        b = fem_petsc.assemble_vector(form)
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        out = graph.from_dofs(b.array_r[: graph.V.dofmap.index_map.size_local]) / graph.mass
        b.destroy()
        return out

    return source


def evolve(
    data: MeshData,
    problem: Problem,
    rho0: str | Initial,
    time: StepControl,
    *,
    scheme: EdgeScheme | LogDensity | None = None,
    outputs: Sequence[float] = (),
) -> Iterator[Step[State]]:
    """Solve the problem; yields every accepted step, nodal values those of the rank. Collective.

    Raises:
        CaseError: data that do not fit the mesh.
        SolveError: the step size fell below `time.dt_min`.
    """
    s = set_up(data, problem, rho0, scheme=scheme, tolerance=time.tolerance)
    state = s.solver.start(0.0, s.rho0)
    yield from march(
        state, s.solver.attempt, time, dt=first_step(s.solver, state, time), outputs=outputs
    )


def first_step(solver: Solver, state: State, time: StepControl) -> float:
    """The first step: as the case says, or so short that the density changes by little."""
    if time.dt is not None:
        return time.dt
    rate = solver.rate(state)
    wanted = (time.tolerance or 1e-3) ** 0.5 * 0.1
    return float(min(wanted / rate if rate > 0 else np.inf, time.end / 10))


def run(case: Case, run: object) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.problems.aggregation_diffusion_run import run_case

    return run_case(case, run)  # type: ignore[arg-type]
