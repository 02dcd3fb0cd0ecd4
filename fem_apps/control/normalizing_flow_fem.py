"""The controlled continuity equation by finite elements, next to its exact push-forward.

The exact density jumps across every hyperplane: L1 errors are of order 1 where a jump is made
inside cells, (k + 1)/(k + 2) once a later piece moves it. KL needs rho_h > 0: it is floored at
1e-14, and the mass under the floor is told. Both densities are normalised before entropies, total
variation, W1 (in the plane and in space its mean over projections) and Pinsker's bounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mpi4py import MPI
from pydantic import Field

from fem_apps import meshing
from fem_apps.case import Table
from fem_apps.control.normalizing_flow_entropy import pinsker, reverse_pinsker
from fem_apps.control.normalizing_flow_map import Schedule, log_density, log_gaussian
from fem_apps.errors import CaseError
from fem_apps.meshing import MeshCase
from fem_apps.mpi import extremes
from fem_apps.problems.continuity import DG, Problem, Step, Time, evolve
from fem_apps.problems.continuity_dg import DGSolver
from fem_apps.problems.continuity_quadrature import Subcells
from fem_apps.problems.continuity_velocity import half_spaces

FLOOR = 1e-14
# of the projections whose W1 is taken, and bins on each
PROJECTIONS, BINS = 32, 4096
# steeper pieces would need more steps than anyone waits for
STEEPEST = 100.0


class FemTable(Table):
    """The `[fem]` table: solve the controlled equation on a mesh too, and compare."""

    mesh: MeshCase = Field(description="a box that the density stays in, of the target's dimension")
    scheme: DG = Field(
        default_factory=lambda: DG(degree=1, limiter="range"), description="of the transport"
    )
    cfl: float = Field(0.9, gt=0, description="as in a case of kind continuity")


def compare_by_elements(
    comm: MPI.Comm, table: FemTable, schedule: Schedule, folder: Path
) -> tuple[dict[str, float], Step]:
    """Metrics of rho_h(T) against the exact density, and the last step. Collective.

    Raises:
        CaseError: the mesh is of another dimension, or a piece is too steep for a mesh.
    """
    data = meshing.build(comm, table.mesh, folder)
    if data.mesh.geometry.dim != schedule.dim or data.mesh.topology.dim != schedule.dim:
        raise CaseError(f"fem.mesh: a {schedule.dim}D domain is needed")
    steepest = float((np.linalg.norm(schedule.w, axis=1) * schedule.tau).max())
    if steepest > STEEPEST:
        raise CaseError(
            f"fem: a piece has |w| tau = {steepest:.3g} (a layer of a staircase): no mesh resolves "
            f"more than {STEEPEST:g}. Take construction.method = 'pursuit', or improve.pieces"
        )
    v = half_spaces(schedule.w, schedule.a, schedule.b, schedule.tau)
    time = Time(end=float(schedule.tau.sum()), cfl=table.cfl)
    problem = Problem(v)
    step = None
    defect, mass0, outflow = 0.0, None, 0.0
    for step in evolve(
        data, problem, lambda x: np.exp(log_gaussian(x.T)), time, scheme=table.scheme
    ):
        outflow += step.outflow
        mass0 = step.mass + outflow if mass0 is None else mass0
        defect = max(defect, abs(step.mass + outflow - mass0))
    assert step is not None
    solver = step.solver
    assert isinstance(solver, DGSolver)
    metrics = entropies(solver, step.rho, lambda x: log_density(schedule, x.T))
    metrics |= {"fem_steps": step.number, "fem_mass": step.mass, "fem_mass_defect": defect}
    metrics["fem_min"] = step.low
    return metrics, step


def entropies(solver: DGSolver, u: np.ndarray, log_exact: object) -> dict[str, float]:
    """L1, TV, both relative entropies (densities normalised), and the mass under the floor."""
    points = Subcells(solver.cells, True)
    x = points.x.reshape(-1, points.x.shape[2])
    w = points.weights.ravel()
    lp = np.asarray(log_exact(x.T))  # type: ignore[operator]
    p, q = np.exp(lp), points.values(u).ravel()
    comm = solver.comm

    def total(f: np.ndarray) -> float:
        return float(comm.allreduce(float(w @ f), op=MPI.SUM))

    l1 = total(np.abs(p - q))
    low = q < FLOOR
    under = total(np.where(low, p, 0.0))
    mp, mq = total(p), total(np.maximum(q, FLOOR))
    p, q = p / mp, np.maximum(q, FLOOR) / mq
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = total(np.where(p > 0, p * np.log(p / q), 0.0))
        reverse = total(q * np.log(q / np.maximum(p, 1e-300)))
    tv = 0.5 * total(np.abs(p - q))
    seen = p > 1e-12 * extremes(comm, p)[1]
    ratio = extremes(comm, np.log(p[seen] / q[seen]))[1]
    return {
        "fem_l1": l1,
        "fem_tv": tv,
        "fem_w1": projected_w1(comm, x, w * (p - q)),
        "fem_kl": kl,
        "fem_kl_reverse": reverse,
        "fem_pinsker": pinsker(kl),
        "fem_reverse_pinsker": reverse_pinsker(tv, ratio),
        "fem_under_floor": under,
        "fem_outside": 1.0 - mp,
    }


def projected_w1(comm: MPI.Comm, x: np.ndarray, gap: np.ndarray) -> float:
    """Wasserstein-1 distance of two laws, in 2D and 3D its mean over projections. Collective.

    Args:
        comm: of the ranks that share the points.
        x: points, shape (n, d).
        gap: difference of the masses there, of sum 0 over all ranks.
    """
    d = x.shape[1]
    directions = np.random.default_rng(0).standard_normal((PROJECTIONS, d))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    values = []
    for p in np.ones((1, 1)) if d == 1 else directions:
        y = x @ p
        low, high = extremes(comm, y)
        bins = np.minimum(((y - low) / (high - low) * BINS).astype(int), BINS - 1)
        mass = np.bincount(bins, gap, BINS)
        comm.Allreduce(MPI.IN_PLACE, mass)
        values.append(np.abs(np.cumsum(mass)).sum() * (high - low) / BINS)
    return float(np.mean(values))
