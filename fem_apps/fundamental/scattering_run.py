"""A case of kind fundamental-solutions as a run: far field, slice, pictures, metrics."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.fundamental import mfs, pictures, sphere
from fem_apps.fundamental.bodies import Sphere
from fem_apps.fundamental.scattering import Case, Problem, problem_of, solve_problem
from fem_apps.fundamental.surfaces import fibonacci
from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import write_whole

log = logging.getLogger(__name__)

EXACT_POINTS = 500


def run_case(case: Case, run: Any) -> dict[str, object]:
    """Solve on rank 0, whose dense matrices are the whole work; other ranks get the metrics.

    Raises:
        CaseError: obstacles or sources that are wrong.
    """
    return on_rank_zero(run.comm, _solve_and_write, case, run)


def _solve_and_write(case: Case, run: Any) -> dict[str, object]:
    with run.phase("surfaces"):
        problem = problem_of(case)
        own = _own_sources(case)
    with run.phase("solve"):
        run.progress.update(0.1, "least squares")
        solution, notes = solve_problem(problem, case.sources, case.method, own)
        for note in notes:
            run.note(note)
        log.info("boundary error %.2e", solution.boundary_error)
    with run.phase("diagnostics"):
        run.progress.update(0.6, "far field and energy balance")
        metrics = diagnose(problem, solution)
        basis = solution.basis
        metrics["sources"] = len(basis.y) if isinstance(basis, mfs.PointSources) else 0
        _far_field(run.folder, solution)
    with run.phase("output"):
        run.progress.update(0.8, "slice and pictures")
        if case.output.fields or case.output.pictures:
            plane = slice_of(problem, solution, case.output.half_width)
            if case.output.fields:
                write_slice(run.folder / "fields.xdmf", plane)
            if case.output.pictures:
                _pictures(case, run, problem, solution, plane)
        run.progress.update(1.0, "done")
    return metrics


def _own_sources(case: Case) -> np.ndarray | None:
    if case.sources.file is None:
        return None
    path = case.file(case.sources.file)
    try:
        y = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as e:
        raise CaseError(f"{path}: not lines x,y,z: {e}") from None
    if y.shape[1] != 3 or not np.isfinite(y).all():
        raise CaseError(f"{path}: give lines x,y,z of finite numbers")
    return y


def diagnose(problem: Problem, solution: mfs.Solution) -> dict[str, object]:
    """What is known of a solution: errors, conditioning, energies."""
    metrics: dict[str, object] = {
        "boundary_error": solution.boundary_error,
        "boundary_error_rms": solution.boundary_error_rms,
        "condition": solution.condition,
        "coefficient_norm": solution.coefficient_norm,
    }
    m = problem.medium
    if problem.wave is not None:
        size = max(s.surface.size + np.linalg.norm(s.surface.centre) for s in problem.shapes)
        degree = 2 * sphere.degree_for(m, float(size))
        b = mfs.energy_balance(solution, m, problem.wave, degree)
        metrics |= {
            "optical_theorem": b.defect,
            "scattering_cross_section": b.cross_section,
            "I_P": b.I_P,
            "I_S": b.I_S,
        }
        body = problem.shapes[0].body
        if len(problem.shapes) == 1 and isinstance(body, Sphere) and body.rigid_where is None:
            exact = sphere.scatter(
                m, problem.wave, radius=body.radius, centre=body.centre, condition=body.condition
            )
            x = np.array(body.centre) + 2 * body.radius * fibonacci(EXACT_POINTS)
            u = exact.displacement(x)
            error = np.linalg.norm(solution.displacement(x) - u) / np.linalg.norm(u)
            metrics["relative_error"] = float(error)
            metrics["cross_section_error"] = abs(b.cross_section / exact.cross_section() - 1)
    elif m.omega == 0:
        force = solution.c.reshape(-1, 3).sum(axis=0).real
        metrics |= {f"force_{a}": float(f) for a, f in zip("xyz", force, strict=True)}
    return metrics


def _far_field(folder: Path, solution: mfs.Solution) -> None:
    """far_field.csv: a direction a line, then real and imaginary parts of u_p and u_s."""
    d = fibonacci(400)
    if solution.basis.medium.omega == 0:
        return
    u_p, u_s = solution.far_field(d)
    columns = [d, *(part(u) for u in (u_p, u_s) for part in (np.real, np.imag))]
    names = ["x", "y", "z"]
    names += [f"u_{w}_{a}_{p}" for w in "ps" for p in ("re", "im") for a in "xyz"]
    text = [",".join(names)]
    text += [",".join(f"{v:.17g}" for v in row) for row in np.concatenate(columns, axis=1)]
    write_whole(folder / "far_field.csv", ("\n".join(text) + "\n").encode())


def slice_of(
    problem: Problem, solution: mfs.Solution, half_width: float | None, n: int = 141
) -> pictures.Slice:
    """The total displacement on a square in the plane of the wave, NaN inside obstacles."""
    centres = np.array([s.surface.centre for s in problem.shapes])
    middle = 0.5 * (centres.max(axis=0) + centres.min(axis=0))
    reach = max(np.linalg.norm(s.surface.centre - middle) + s.surface.size for s in problem.shapes)
    L = half_width or 2.5 * float(reach)
    forward = problem.wave.d if problem.wave is not None else np.array([0.0, 0.0, 1.0])
    across = problem.wave.a if problem.wave is not None and problem.wave.shear else None
    if across is None:
        spread = centres[-1] - centres[0]
        spread = spread - (spread @ forward) * forward
        across = spread if np.linalg.norm(spread) > 1e-9 * reach else np.cross(forward, [0, 1, 0])
        if np.linalg.norm(across) < 1e-9:
            across = np.array([1.0, 0.0, 0.0])
        across = across - (across @ forward) * forward
        across = across / np.linalg.norm(across)
    t = np.linspace(-L, L, n)
    x = middle + t[None, :, None] * forward + t[:, None, None] * across
    flat = x.reshape(-1, 3)
    hidden = np.zeros(len(flat), dtype=bool)
    for s in problem.shapes:
        near = np.linalg.norm(flat - s.surface.centre, axis=1) <= 1.001 * s.surface.size
        hidden[near] |= s.contains(flat[near])
    u = np.full((len(flat), 3), np.nan, dtype=complex)
    u[~hidden] = solution.displacement(flat[~hidden])
    if problem.wave is not None:
        u[~hidden] += problem.wave.displacement(problem.medium, flat[~hidden])
    return pictures.Slice(x, u.reshape(n, n, 3), t, forward, across)


def write_slice(path: Path, plane: pictures.Slice) -> None:
    """The slice as XDMF for ParaView: real and imaginary part, 0 inside obstacles."""
    import meshio

    n = len(plane.t)
    k = np.arange(n * n).reshape(n, n)
    quads = np.stack([k[:-1, :-1], k[:-1, 1:], k[1:, 1:], k[1:, :-1]], axis=-1).reshape(-1, 4)
    u = np.nan_to_num(plane.u.reshape(-1, 3))
    data = {"u_real": u.real.copy(), "u_imag": u.imag.copy(), "u_abs": np.linalg.norm(u, axis=1)}
    mesh = meshio.Mesh(plane.x.reshape(-1, 3), [("quad", quads)], point_data=data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meshio.write(path, mesh, data_format="XML")


def _pictures(
    case: Case, run: Any, problem: Problem, solution: mfs.Solution, plane: pictures.Slice
) -> None:
    kinds = ["u"] if problem.wave is None else ["total u"]
    write_whole(run.folder / "field.png", pictures.field(plane, kinds[0]))
    if problem.medium.omega > 0:
        write_whole(run.folder / "animation.gif", pictures.animation(plane, case.output.frames))
        angle = np.linspace(0, 2 * np.pi, 361)
        d = np.cos(angle)[:, None] * plane.forward + np.sin(angle)[:, None] * plane.across
        u_p, u_s = solution.far_field(d)
        write_whole(run.folder / "far_field.png", pictures.far_field(angle, u_p, u_s))
