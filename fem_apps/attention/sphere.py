"""Attention on densities by finite elements: a case of kind sphere-attention.

    d_t rho + div(rho Gamma_rho) = kappa Laplace rho + (c/2) Laplace rho^2

on the unit circle or sphere with layer normalisation, on planar domains without. Gradient fields
(D = beta Q^T K symmetric, V a positive or negative multiple of D) take the implicit edge scheme
with its energy law (`measure`); all others the explicit transport scheme (`measure_transport`).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from pydantic import Field

from fem_apps.attention.model import Attention, heads
from fem_apps.case import Case as AnyCase
from fem_apps.errors import CaseError
from fem_apps.meshing import MeshCase, MeshData
from fem_apps.problems.aggregation_diffusion import Output, Setting, Time
from fem_apps.problems.edge_scheme import EdgeScheme
from fem_apps.problems.initial_density import InitialDensity

log = logging.getLogger(__name__)


class Case(AnyCase):
    """A case of kind sphere-attention."""

    mesh: MeshCase = Field(description="unit circle or sphere; a plane domain without layer norm")
    attention: Attention = Field(default_factory=Attention, description="the field")
    noise: float = Field(0.0, ge=0, description="kappa in kappa Laplace rho")
    repulsion: float = Field(
        0.0,
        ge=0,
        description="c of the localised repulsion (c/2) int rho^2 dsigma, rho the density with "
        "respect to the uniform probability measure sigma",
    )
    initial: InitialDensity = Field(description="the density at time 0")
    time: Time = Field(description="final time and step sizes")
    scheme: EdgeScheme = Field(default_factory=EdgeScheme, description="of gradient fields")
    output: Output = Field(default_factory=Output, description="what is written")
    stop_when_unresolved: bool = Field(
        True, description="end the run where the density concentrates on single nodes"
    )

    @property
    def interaction(self) -> bool:
        """Whether concentration is watched: noise and repulsion prevent it."""
        return not (self.noise or self.repulsion)


def gradient_factor(attention: Attention, d: int) -> tuple[np.ndarray, float] | None:
    """(D, c) with Gamma = c grad_x of z or log z, z = int exp(x.Dy) dmu; None: no gradient.

    D = beta K^T Q must be symmetric, and V = c D.
    """
    if attention.variant not in ("softmax", "unnormalised", "scaled"):
        return None
    if attention.masked or not attention.layer_norm:
        return None
    (head, *more) = heads(attention, d)
    D = attention.beta * head.A
    if more or not np.any(D) or not np.allclose(D, D.T, atol=1e-12 * np.abs(D).max()):
        return None
    k = int(np.argmax(np.abs(D)))
    c = float(head.V.ravel()[k] / D.ravel()[k])
    if c == 0 or not np.allclose(head.V, c * D, rtol=1e-10, atol=1e-12):
        return None
    return (D + D.T) / 2, c


def set_up(data: MeshData, case: Case) -> Setting:
    """Graph, kernel, solver and initial density. Collective.

    Raises:
        CaseError: a mesh, matrices or an initial density that do not fit.
    """
    from fem_apps.attention.fields import make_field
    from fem_apps.attention.measure import LogPotential, SoftmaxSolver
    from fem_apps.attention.measure_kernel import kernel_on_nodes
    from fem_apps.attention.measure_transport import TransportSolver
    from fem_apps.fem import node_graph
    from fem_apps.mpi import same_error
    from fem_apps.problems.edge_scheme import EdgeSolver
    from fem_apps.problems.free_energy import Diffusion, Internal
    from fem_apps.problems.initial_density import initial_density

    attention = case.attention
    if attention.masked:
        raise CaseError("attention.masked: a density has no order of tokens")
    graph = node_graph.build(data.mesh, data.lattice)
    d, tdim = graph.x.shape[1], data.mesh.topology.dim
    if attention.layer_norm and (tdim != d - 1 or data.lattice):
        raise CaseError(
            f"mesh: a {tdim}D mesh in {d} dimensions is no sphere: take the unit circle or sphere, "
            "or attention.layer_norm = false"
        )
    if not attention.layer_norm and tdim != d:
        raise CaseError("attention.layer_norm = false needs a domain, not a curve or surface")
    with same_error(graph.comm):
        norm = np.linalg.norm(graph.x, axis=1) if attention.layer_norm else np.ones(1)
        if np.abs(norm - 1).max(initial=0.0) > 1e-6:
            raise CaseError(f"mesh: a node has norm {norm[np.abs(norm - 1).argmax()]:.6g}, not 1")
    gradient = gradient_factor(attention, d)
    rho = initial_density(case.initial, graph, case.seed, case.file)
    mass = graph.integral(rho)
    if abs(mass - 1) > 1e-9:
        raise CaseError(f"initial.mass = {mass:.6g}: attention is of probability measures; 1")
    if gradient is None:
        if case.repulsion:
            raise CaseError("repulsion: only with a gradient field (V a multiple of Q^T K)")
        solver: Any = TransportSolver(graph, make_field(attention, d), case.noise, mass)
        log.info("transport scheme: the field is no gradient")
        return Setting(graph, None, solver, rho)
    D, c = gradient
    terms = []
    if case.noise:
        terms.append(Diffusion(exponent=1, coefficient=case.noise))
    if case.repulsion:
        area = 2 * np.pi if d == 2 else 4 * np.pi
        terms.append(Diffusion(exponent=2, coefficient=case.repulsion * area / 2))
    H, none = Internal(tuple(terms)), np.zeros(graph.n)
    tolerance = case.time.tolerance
    if attention.variant == "softmax":
        potential: Any = LogPotential(kernel_on_nodes(graph, D, 1.0), c)
        solver = SoftmaxSolver(graph, H, none, potential, case.scheme, mass, tolerance)
    else:
        scale = np.exp(-attention.beta) if attention.variant == "scaled" else 1.0
        potential = kernel_on_nodes(graph, D, -c * scale)
        solver = EdgeSolver(graph, H, none, potential, case.scheme, mass, tolerance)
    return Setting(graph, potential, solver, rho)


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective.

    Raises:
        CaseError, SolveError: see `set_up` and the solvers.
        Interrupted: SIGTERM or SIGINT came; the checkpoint holds the last step.
    """
    from fem_apps import meshing
    from fem_apps.problems.aggregation_diffusion_run import Diagnostics, march_case

    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
    with run.phase("set-up"):
        s = set_up(data, case)
        log.info("%d nodes on %d rank(s)", s.graph.size, run.comm.size)
        diagnose = Diagnostics(s.graph, case)  # type: ignore[arg-type]
    with run.phase("time stepping"):
        metrics = march_case(case, run, s, diagnose)  # type: ignore[arg-type]
    gradient = gradient_factor(case.attention, s.graph.x.shape[1])
    lawless = gradient is None or (
        case.attention.variant == "softmax" and bool(case.noise or case.repulsion)
    )
    if lawless:
        run.note("this equation has no known free energy: energy_increase is left out")
        metrics["energy_increase"] = metrics["free_energy"] = None
    if "order_parameter" not in metrics:
        metrics["order_parameter"] = None
    return metrics
