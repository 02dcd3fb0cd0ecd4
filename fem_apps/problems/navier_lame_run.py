"""A case of kind navier-lame as a run: fields over a period, far field, errors, pictures."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import ufl
from dolfinx import fem

from fem_apps import meshing
from fem_apps.compat import geometry_dofmap
from fem_apps.errors import CaseError
from fem_apps.fem.integrals import integrate
from fem_apps.fem.points import PointEvaluator
from fem_apps.fundamental import pictures, sphere
from fem_apps.fundamental.bodies import Sources, Sphere, shape_of
from fem_apps.fundamental.medium import Medium
from fem_apps.fundamental.scattering import Problem as PointProblem
from fem_apps.fundamental.scattering import solve_problem
from fem_apps.mpi import extremes, on_rank_zero
from fem_apps.output.fields import FieldWriter
from fem_apps.output.files import write_whole
from fem_apps.output.folder import Run
from fem_apps.problems import navier_lame_forms as forms
from fem_apps.problems.navier_lame import Case, Problem, incident_of, motion_of
from fem_apps.problems.navier_lame_solve import Scatterer, dofs

log = logging.getLogger(__name__)

# sources of the reference by fundamental solutions, and points of a side of the slice
SOURCES, SLICE = 300, 101
MATERIAL = ("lame_lambda", "lame_mu", "density")


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Mesh, solve, write; returns the metrics. Collective.

    Raises:
        CaseError: a mesh without the parts that the case names, materials that are none.
        SolveError: the solver did not converge.
    """
    wave, motion = incident_of(case), motion_of(case)
    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
    with run.phase("assembly and factorisation"):
        problem = Problem(case.medium.medium(), case.condition, case.truncation, case.inclusion)
        s = Scatterer(data, problem, degree=case.degree, solver=case.solver)
        log.info("%d complex unknowns on %d rank(s)", dofs(s), run.comm.size)
        run.progress.update(0.4, "factorised")
    with run.phase("solve"):
        u = s.scattered(wave) if wave is not None else s.moved(*(motion or ()))
    metrics: dict[str, object] = {"dofs": dofs(s), "iterations": s.iterations}
    with run.phase("diagnostics"):
        run.progress.update(0.6, "errors and energies")
        if wave is not None:
            metrics |= energies(s, u, wave)
        if case.reference is not None:
            metrics["relative_error"] = error_to_reference(case, s, u)
    with run.phase("output"):
        run.progress.update(0.8, "fields and pictures")
        if case.output.fields:
            write_fields(case, run, s, u)
        if case.output.pictures:
            write_pictures(case, run, s, u)
        run.progress.update(1.0, "done")
    return metrics


def energies(s: Scatterer, u: fem.Function, wave: Any) -> dict[str, object]:
    """Cross-section by the flux outwards, extinction by the far field forward.

    sigma = int Im(conj(u) . T u) / ((lambda + 2 mu) k_p) for P waves, / (mu k_s) for S waves, over
    any sphere: here its mean over the shell between scatterers and r = R, int (sigma(u) grad chi)
    . conj(u), which is as exact as the elements' energy, while tractions on a surface are not.
    """
    m = s.problem.medium
    slope = _cut_off_slope(s)
    sigma_u = forms.stress(ufl.grad(u), s.lam, s.mu)
    power = integrate(ufl.inner(ufl.dot(sigma_u, slope), u) * s.dx(s.domain))
    modulus = m.lame_mu * m.k_s if wave.shear else m.p_modulus * m.k_p
    sigma = complex(power).imag / modulus
    forward = far_field_component(s, u, wave.d, wave.a)
    extinction = 4 * np.pi / wave.wave_number(m) * forward.imag
    return {
        "scattering_cross_section": float(sigma),
        "optical_theorem": float(abs(extinction - sigma) / abs(sigma)),
    }


def _cut_off_slope(s: Scatterer) -> Any:
    """Gradient of chi(r), which is 0 where the scatterers are and 1 at r = R. Collective."""
    x = s.data.mesh.geometry.x
    nodes = [s.V.tabulate_dof_coordinates()[s.obstacle_blocks()]]
    dofmap = geometry_dofmap(s.data.mesh)
    nodes += [x[dofmap[s.data.cell_tags.find(t)].ravel()] for t in s.regions]
    reach = np.linalg.norm(np.concatenate(nodes), axis=1)
    _, inner = extremes(s.comm, reach if len(reach) else np.zeros(1))
    R = s.problem.truncation.radius
    r = ufl.sqrt(ufl.dot(s.x, s.x))
    t = (r - inner) / (R - inner)
    slope = ufl.conditional(ufl.gt(ufl.real(t), 0), 6 * t * (1 - t) / (R - inner), 0)
    return slope * s.x / r


def far_field_component(
    s: Scatterer, u: fem.Function, direction: np.ndarray, a: np.ndarray
) -> complex:
    """A component of the far field: a = x^ that of u_p, a across x^ that of u_s. Collective.

    With W = a e^(-i k x^.y): 1/(4 pi (lambda+2mu)), or 1/(4 pi mu), times the integral of
    T W . u - W . T u over any sphere; as in `energies` its mean over a shell,
    int (sigma(W) grad chi) . u - (sigma(u) grad chi) . W.
    """
    m, mesh = s.problem.medium, s.data.mesh
    pressure = abs(float(a @ direction)) > 0.5
    scalar = fem.Constant(mesh, 1j).value.dtype
    k = fem.Constant(mesh, np.asarray(-(m.k_p if pressure else m.k_s), dtype=scalar))
    d, q = (fem.Constant(mesh, np.asarray(v, dtype=scalar)) for v in (direction, a))
    W, G = forms.plane_wave(s.x, k, d, q)
    slope = _cut_off_slope(s)
    of_wave = ufl.dot(forms.stress(G, s.lam, s.mu), slope)
    of_field = ufl.dot(forms.stress(ufl.grad(u), s.lam, s.mu), slope)
    value = integrate((ufl.dot(of_wave, u) - ufl.dot(of_field, W)) * s.dx(s.domain))
    return complex(value) / (4 * np.pi * (m.p_modulus if pressure else m.lame_mu))


def reference_field(case: Case, medium: Medium) -> Any:
    """The exact scattered field as a function of points (n, 3).

    Raises:
        CaseError: a case for which none is known.
    """
    wave, body = incident_of(case), case.reference
    if body is None or wave is None:
        raise CaseError("reference: needs [incident]")
    if isinstance(body, Sphere):
        inside = None
        if case.inclusion:
            try:
                values = [float(getattr(case.inclusion[0], k)) for k in MATERIAL]
            except ValueError:
                raise CaseError("reference: an exact solution needs a constant inclusion") from None
            inside = Medium(values[0], values[1], values[2], medium.omega)
        condition = "inclusion" if inside is not None else case.condition
        return sphere.scatter(
            medium, wave, radius=body.radius, centre=body.centre,
            condition=condition, inside=inside,  # type: ignore[arg-type]
        ).displacement  # fmt: skip
    if case.inclusion:
        raise CaseError("reference: of inclusions only that of a sphere is known")
    solution, notes = solve_problem(
        PointProblem(medium, (shape_of(body, case.file),), wave), Sources(count=SOURCES)
    )
    for note in notes:
        log.info("reference: %s (boundary error %.1e)", note, solution.boundary_error)
    return solution.displacement


def error_to_reference(case: Case, s: Scatterer, u: fem.Function) -> float:
    """Relative L2 error of a case over the cells 'domain'. Collective."""
    return relative_error(s, u, on_rank_zero(s.comm, reference_field, case, s.problem.medium))


def relative_error(s: Scatterer, u: fem.Function, exact: Any) -> float:
    """Relative L2 distance of u from exact(x (n, 3)) -> (n, 3) over 'domain'. Collective."""
    W = fem.functionspace(s.data.mesh, ("Lagrange", s.degree + 1, (3,)))
    e = fem.Function(W)
    _interpolate(e, exact, s.data.cell_tags.find(s.domain))
    difference = u - e
    dx = s.dx(s.domain)
    square = integrate(ufl.inner(difference, difference) * dx)
    return float(np.sqrt(abs(square) / abs(integrate(ufl.inner(e, e) * dx))))


def _interpolate(e: fem.Function, exact: Any, cells: np.ndarray) -> None:
    """Nodal values on some cells alone: elsewhere the exact field may not exist."""
    V = e.function_space
    nodes = np.unique(V.dofmap.list[cells])
    values = e.x.array.reshape(-1, 3)
    values[nodes] = exact(V.tabulate_dof_coordinates()[nodes]) if len(nodes) else 0.0


def total_field(case: Case, s: Scatterer, u: fem.Function) -> fem.Function:
    """The total displacement in the ball, the scattered one in the layer (where it is damped)."""
    wave = incident_of(case)
    total = fem.Function(s.V, name="u_total")
    total.x.array[:] = u.x.array
    if wave is not None:
        m = s.problem.medium
        tags = s.data.cell_tags
        inside = np.concatenate([tags.find(t) for t in (s.domain, *s.regions)])
        nodes = np.unique(s.V.dofmap.list[inside])
        x = s.V.tabulate_dof_coordinates()[nodes]
        total.x.array.reshape(-1, 3)[nodes] += wave.displacement(m, x)
        total.x.scatter_forward()
    return total


def write_fields(case: Case, run: Run, s: Scatterer, u: fem.Function) -> None:
    """fields.bp: u_scattered, u_total, phase, and u_at_t = Re(u e^(-i omega t)) over a period."""
    total = total_field(case, s, u)
    phase = fem.Function(s.V, name="phase")
    phase.x.array[:] = np.angle(total.x.array)
    moving = fem.Function(s.V, name="u_at_t")
    omega = s.problem.medium.omega
    frames = case.output.frames if omega > 0 else 1
    with FieldWriter(run.comm, run.folder, [u, total, phase, moving]) as fields:
        for k in range(frames):
            moving.x.array[:] = np.real(total.x.array * np.exp(-2j * np.pi * k / frames))
            fields.write(2 * np.pi / omega * k / frames if omega > 0 else 0.0)
        for note in fields.notes:
            log.info(note)


def write_pictures(case: Case, run: Run, s: Scatterer, u: fem.Function) -> None:
    """field.png and animation.gif of a slice through the ball. Collective."""
    total = total_field(case, s, u)
    wave = incident_of(case)
    forward = wave.d if wave is not None else np.array([0.0, 0.0, 1.0])
    across = np.cross(forward, [0.0, 1.0, 0.0])
    if np.linalg.norm(across) < 1e-6:
        across = np.array([1.0, 0.0, 0.0])
    across = across / np.linalg.norm(across)
    t = np.linspace(-1, 1, SLICE) * case.truncation.radius
    x = t[None, :, None] * forward + t[:, None, None] * across
    inside = np.linalg.norm(x, axis=2) <= case.truncation.radius
    values = np.full((*x.shape[:2], 3), np.nan, dtype=complex)
    values[inside] = PointEvaluator(s.data.mesh, x[inside])(total)
    plane = pictures.Slice(x, values, t, forward, across)

    def draw() -> None:
        label = "total u" if wave is not None else "u"
        write_whole(run.folder / "field.png", pictures.field(plane, label))
        if s.problem.medium.omega > 0:
            gif = pictures.animation(plane, max(8, case.output.frames))
            write_whole(run.folder / "animation.gif", gif)

    on_rank_zero(run.comm, draw)
