"""Kind fundamental-solutions: scattering by obstacles, by the method of fundamental solutions.

    mu Lap u + (lambda + mu) grad div u + rho omega^2 u = 0 outside the obstacles, u radiating,
    u = -u_inc (rigid) or T u = -T u_inc (cavity) on their boundaries,

or, instead of an incident wave, rigid obstacles that move: u = translation + rotation x x.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fundamental import mfs, mfs_qr, resonance
from fem_apps.fundamental.axisymmetric import ring_problem
from fem_apps.fundamental.bodies import Obstacle, Shape, Sources, check_apart, shape_of
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.tables import IncidentTable, MediumTable, MotionTable, check_drive

log = logging.getLogger(__name__)

# what "auto" tries: sources this deep in the inner balls; on ellipsoids, spheres among them,
# confocal ones (few sources do best far inside, many where the condition is 1e12); on rings
DEPTHS, CONFOCAL = (0.3, 0.4, 0.5, 0.65, 0.8), (0.1, 0.15, 0.2, 0.3, 0.45, 0.65)
RINGS = (0.2, 0.3, 0.45, 0.6)
# what an error at the boundary counts where the matrix is singular to rounding: it is then of all
# wave lengths and does not fall off away from the body as that of too few sources does
ROUNDING = 100.0


class Output(Table):
    """What is written."""

    fields: bool = Field(True, description="slice through the obstacles for ParaView")
    pictures: bool = Field(True, description="pictures, and an animation over a period")
    frames: int = Field(24, ge=2, le=200, description="frames of the animation")
    half_width: float | None = Field(
        None, gt=0, description="of the slice that is shown; by default 2.5 times the obstacles"
    )


class Case(AnyCase):
    """A case of kind fundamental-solutions."""

    medium: MediumTable = Field(description="the medium outside")
    incident: IncidentTable | None = Field(None, description="a plane wave")
    motion: MotionTable | None = Field(None, description="or a rigid motion of the obstacles")
    obstacle: tuple[Obstacle, ...] = Field(min_length=1, description="the obstacles")
    sources: Sources = Field(default_factory=Sources, description="number and place of the sources")
    method: Literal["mfs", "axisymmetric", "combined", "mfs-qr", "multipole"] = Field(
        "mfs",
        description="point forces; the same on rings about the axis of one sphere or spheroid, "
        "solved mode by mode by FFT; forces and dipoles combined (no resonances, rigid only); "
        "point forces in the basis of MFS-QR; vector waves about each obstacle's centre",
    )
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _consistent(self) -> Case:
        check_drive(self.medium, self.incident, self.motion)
        if self.medium.omega == 0 and self.method not in ("mfs", "axisymmetric"):
            raise ValueError(f"omega = 0: statics take method = 'mfs', not {self.method!r}")
        mixed = [o for o in self.obstacle if o.condition != "rigid" or o.rigid_where is not None]
        if mixed and self.method == "combined":
            raise ValueError("method = 'combined' is for rigid obstacles")
        if mixed and self.motion is not None:
            raise ValueError("[motion] is of rigid obstacles")
        if self.method == "axisymmetric":
            if len(self.obstacle) > 1 or self.sources.file is not None:
                raise ValueError("method = 'axisymmetric' is for one obstacle, no sources.file")
            if self.sources.placement in ("offset", "scaled"):
                raise ValueError("method = 'axisymmetric' takes placement = 'confocal' or 'auto'")
        return self


@dataclass(frozen=True)
class Problem:
    """Obstacles in a medium, and what sets it in motion.

    Attributes:
        medium: outside.
        shapes: the obstacles.
        wave: an incident plane wave, or
        motion: translation and rotation of rigid obstacles.
    """

    medium: Medium
    shapes: tuple[Shape, ...]
    wave: PlaneWave | None = None
    motion: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def forward(self) -> np.ndarray | None:
        """Direction of the incident wave."""
        return None if self.wave is None else self.wave.d

    def collocation(self, count: int, sources: int) -> tuple[mfs.Boundary, list[np.ndarray]]:
        """Points of collocation of all obstacles, `count` each, and the rows of each obstacle.

        A mesh may have fewer than were asked; where conditions change points crowd.
        """
        parts = [s.collocation(count, sources, self.forward) for s in self.shapes]
        weights = np.concatenate([p[2] for p in parts])
        rows = np.split(np.arange(len(weights)), np.cumsum([len(p[0]) for p in parts])[:-1])
        b = self._boundary([p[:2] for p in parts])
        return (b if (weights == 1).all() else replace(b, weights=weights)), rows

    def boundary(self, count: int, seed: int = 0) -> mfs.Boundary:
        """Boundary points of all obstacles, `count` each, evenly spread."""
        return self._boundary([s.sample(count, seed, self.forward) for s in self.shapes])

    def _boundary(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> mfs.Boundary:
        rigid = [s.rigid(x) for s, (x, _) in zip(self.shapes, parts, strict=True)]
        length = max(s.surface.size for s in self.shapes)
        x, n = (np.concatenate(p) for p in zip(*parts, strict=True))
        return mfs.Boundary(x, n, np.concatenate(rigid), length)

    def data(self, boundary: mfs.Boundary) -> np.ndarray:
        """Rows of the incident field, or of minus the motion."""
        if self.wave is not None:
            return boundary.incident(self.medium, self.wave)
        if self.motion is None:
            raise ValueError("neither wave nor motion")
        t, r = self.motion
        return -(t + np.cross(r, boundary.x)).ravel().astype(complex)


@dataclass(frozen=True)
class Plan:
    """A choice of sources: "offset", 0.5 and the like."""

    placement: str
    fraction: float


def solve_problem(
    problem: Problem, sources: Sources, method: str = "mfs", own: np.ndarray | None = None
) -> tuple[mfs.Solution, list[str]]:
    """Solve, with the best of the placements that `sources` allows.

    Args:
        problem: what is to be solved.
        sources: number and place.
        method: as in `Case.method`.
        own: sources of the user's own, (N, 3).

    Returns:
        The solution and notes about what was chosen.

    Raises:
        CaseError: sources outside, a method that does not fit.
    """
    per_body = int(np.ceil(sources.count * sources.oversampling))
    boundary, rows = problem.collocation(per_body, sources.count)
    fresh = problem.boundary(max(997, int(1.3 * per_body)) | 1, seed=1)
    fresh_data = problem.data(fresh)
    checked = sources.resonance_check and method in ("mfs", "axisymmetric", "mfs-qr")

    def attempt(plan: Plan | None) -> tuple[mfs.Solution, float]:
        points = boundary
        basis: Any
        factor: mfs.Factor
        if method == "axisymmetric" and plan is not None:
            basis, points, factor = ring_problem(
                problem.medium, problem.shapes[0], sources.count, 1 - plan.fraction,
                sources.oversampling,
            )  # fmt: skip
            of_each = [basis.y]
        else:
            parts = _parts(problem, sources, method, plan, own)
            basis = _basis(problem, sources, method, parts, boundary, rows)
            factor = mfs.LeastSquares(basis.rows(boundary))
            of_each = [p[0] for p in parts if len(p[0])]
        solution = mfs.solve(basis, points, fresh, problem.data(points), fresh_data, factor=factor)
        if not (checked and resonance.possible(problem.medium, of_each)):
            return solution, 0.0
        return solution, resonance.strength(basis, points, factor, of_each)

    if method == "multipole" or own is not None:
        solution, strength = attempt(None)
        if strength > resonance.SUSPECT:
            return solution, [
                f"forces inside the sources' surface need coefficients {strength:.1e} times their "
                "size: an interior resonance of it, or sources that are too few"
            ]
        return solution, []
    if sources.placement != "auto":
        plan = Plan(sources.placement, float(sources.fraction or 0.5))
        first, strength = attempt(plan)
        if strength > resonance.SUSPECT:
            return _away_from_resonance(attempt, first, strength, plan)
        return first, []
    best: mfs.Solution | None = None
    chosen: Plan | None = None
    least = np.inf
    mixed = any(s.mixed is not None for s in problem.shapes)
    for plan in _plans(problem, method):
        try:
            solution, strength = attempt(plan)
        except CaseError as e:
            log.debug("sources %s: %s", plan, e)
            continue
        log.info(
            "sources %s %.2g: boundary error %.2e, |c| %.1e",
            plan.placement, plan.fraction, solution.boundary_error, solution.coefficient_norm,
        )  # fmt: skip
        # at a resonance that this wave does not excite the error is small by chance; where
        # conditions change the largest is that of the point next to the change
        error = solution.boundary_error_rms if mixed else solution.boundary_error
        score = error * max(1.0, strength / resonance.SUSPECT)
        score *= ROUNDING if solution.factor.singular else 1.0
        if score < least:
            best, chosen, least = solution, plan, score
    if best is None or chosen is None:
        raise CaseError("sources.placement = 'auto': no placement fits these obstacles")
    return best, [f"sources placed by '{chosen.placement}', fraction {chosen.fraction:g}"]


def _plans(problem: Problem, method: str) -> Iterator[Plan]:
    if method == "mfs-qr":
        yield from (Plan("scaled", f) for f in (0.1, 0.3, 0.5))
        return
    if method == "axisymmetric":
        yield from (Plan("confocal", f) for f in RINGS)
    elif all(s.axes is not None for s in problem.shapes):
        yield from (Plan("confocal", f) for f in CONFOCAL)
    else:
        yield from (Plan("offset", f) for f in DEPTHS)


def _parts(
    problem: Problem, sources: Sources, method: str, plan: Plan | None, own: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sources of each obstacle with the normals of their surface; none for multipoles."""
    if method == "multipole":
        return []
    if own is None:
        if plan is None:
            raise ValueError("no plan")
        chosen = plan.placement, plan.fraction, sources.count, problem.forward
        return [s.sources(*chosen) for s in problem.shapes]
    if method == "combined":
        raise CaseError("sources.file: not with method = 'combined', which needs normals")
    inside = np.stack([s.contains(own) for s in problem.shapes])
    if not inside.any(axis=0).all():
        at = own[np.argmin(inside.any(axis=0))]
        place = ", ".join(f"{v:.4g}" for v in at)
        raise CaseError(f"sources.file: the source at ({place}) is outside all obstacles")
    owner = np.argmax(inside, axis=0)
    return [(own[owner == k], own[owner == k]) for k in range(len(problem.shapes))]


def _basis(
    problem: Problem,
    sources: Sources,
    method: str,
    parts: list[tuple[np.ndarray, np.ndarray]],
    boundary: mfs.Boundary,
    rows: list[np.ndarray],
) -> Any:
    m = problem.medium
    if method == "multipole":
        degree = int(np.sqrt(sources.count + 1)) - 1
        return mfs_qr.multipoles(m, boundary, rows, degree)
    if method == "mfs-qr":
        return mfs_qr.mfs_qr(m, boundary, [(r, p[0]) for r, p in zip(rows, parts, strict=True)])
    y = np.concatenate([p[0] for p in parts])
    if 1.05 * len(y) > len(boundary.x):
        raise CaseError(
            f"sources: {len(y)} sources for {len(boundary.x)} boundary points; raise "
            "sources.oversampling, or refine the surface mesh"
        )
    if method == "combined":
        return mfs.PointSources(m, y, np.concatenate([p[1] for p in parts]))
    return mfs.PointSources(m, y)


def _away_from_resonance(
    attempt: Any, first: mfs.Solution, strength: float, plan: Plan
) -> tuple[mfs.Solution, list[str]]:
    """Move the sources a little; an interior resonance of their surface is gone then."""
    best = first
    note: list[str] = []
    for factor in (0.9, 1.1):
        nearby = Plan(plan.placement, min(factor * plan.fraction, 0.95))
        try:
            other, needed = attempt(nearby)
        except CaseError:
            continue
        if needed > strength / resonance.FALLS or (
            note and other.boundary_error > best.boundary_error
        ):
            continue
        best = other
        note = [
            f"interior resonance of the sources' surface at fraction {plan.fraction:g} (a force "
            f"inside takes coefficients {strength:.1e} times its size): moved to "
            f"{nearby.fraction:g} ({needed:.1e} times), boundary error "
            f"{first.boundary_error:.1e} to {best.boundary_error:.1e}"
        ]
    return best, note


def problem_of(case: Case) -> Problem:
    """The problem of a case. Raises CaseError for surfaces that are none."""
    shapes = [shape_of(body, case.file) for body in case.obstacle]
    check_apart(shapes)
    motion = None
    if case.motion is not None:
        motion = (np.array(case.motion.translation), np.array(case.motion.rotation))
    wave = case.incident.wave() if case.incident is not None else None
    return Problem(case.medium.medium(), tuple(shapes), wave, motion)


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.fundamental.scattering_run import run_case

    return run_case(case, run)
