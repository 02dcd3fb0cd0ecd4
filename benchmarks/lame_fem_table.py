"""Exterior elastic waves by finite elements: the tables of docs/navier_lame.md, a line a row.

./run_mpi.sh python3 benchmarks/lame_fem_table.py lysmer layer order ellipsoid others

Relative L2 errors of the scattered field over 1 < r < 1.5 (rigid unit sphere, plane P wave, lambda = 2,
mu = rho = 1) against the exact series; on the ellipsoid against fundamental solutions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import complex_scalars  # noqa: F401
import numpy as np
from mpi4py import MPI

from fem_apps.fundamental import sphere
from fem_apps.fundamental.bodies import Ellipsoid, Sources, shape_of
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.scattering import Problem as PointProblem
from fem_apps.fundamental.scattering import solve_problem
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.navier_lame import Inclusion, Problem
from fem_apps.problems.navier_lame_forms import Truncation
from fem_apps.problems.navier_lame_run import energies, relative_error
from fem_apps.problems.navier_lame_solve import Scatterer, dofs

COMM = MPI.COMM_WORLD
UNIT = Medium(2.0, 1.0, 1.0, 2.0)
P = PlaneWave()
OBLIQUE = PlaneWave((1, 2, 2))
LAYER = Truncation(type="pml")
EXACT_MAP = Truncation(type="dtn", degree=6)
AXES = (1.0, 0.9, 0.8)


def shells(n: int, nr: int, nl: int, R: float = 1.5) -> MeshCase:
    """Curved hexahedra: n across a sixth of the sphere, nr and nl through domain and layer."""
    d = 0.5 if nl else 0.0
    numbers = {"h": 0.5, "R": R, "d": d, "n": n, "nr": nr, "nl": nl}
    return MeshCase(geometry="spherical_shells", order=2, parameters=numbers)


def solved(mesh: MeshCase, truncation: Truncation, degree: int = 2, **how: object) -> Scatterer:
    problem = Problem(UNIT, truncation=truncation, **how)  # type: ignore[arg-type]
    return Scatterer(build(COMM, mesh), problem, degree=degree)


def on_sphere(
    mesh: MeshCase, t: Truncation, degree: int = 2, condition: str = "rigid"
) -> tuple[int, float, dict]:
    """Unknowns, error and energies of one solution."""
    s = solved(mesh, t, degree, condition=condition)
    u = s.scattered(P)
    exact = sphere.scatter(UNIT, P, condition=condition)  # type: ignore[arg-type]
    return dofs(s), relative_error(s, u, exact.displacement), energies(s, u, P)


def lysmer() -> Iterator[str]:
    """The floor of the dashpots; published 18.34 %, 18.36 % by the same unknowns."""
    for (n, nr), published in (((3, 2), 18.34), ((4, 3), 18.36)):
        N, e, _ = on_sphere(shells(n, nr, 0), Truncation(type="lysmer"))
        yield f"| dashpots, {N} unknowns | {100 * e:.2f} % | {published} % |"
    N, e, _ = on_sphere(shells(4, 3, 0), Truncation(type="lysmer", curvature=True))
    yield f"| dashpots with curvature, {N} unknowns | {100 * e:.2f} % | |"
    for n, nr in ((3, 2), (4, 3)):
        N, e, _ = on_sphere(shells(n, nr, 0), EXACT_MAP)
        yield f"| exact map of degree 6, {N} unknowns | {100 * e:.3f} % | |"


def layer() -> Iterator[str]:
    """The layer with the published unknowns (7 194 for .45 %) and finer; its error against S."""
    for n, nr, nl, published in ((3, 2, 3, "0.45 %"), (4, 2, 3, ""), (5, 2, 3, "")):
        N, e, _ = on_sphere(shells(n, nr, nl), LAYER)
        yield f"| layer S = 3, n = {n}, {N} unknowns | {100 * e:.3f} % | {published} |"
    for S, published in ((1, "8 %"), (2, "1 %"), (3, ""), (4, "0.014 %")):
        N, e, m = on_sphere(shells(5, 3, 5), Truncation(type="pml", strength=S))
        sigma = abs(m["scattering_cross_section"] / 7.5447817884 - 1)
        yield (
            f"| layer S = {S}, {N} unknowns | {100 * e:.3f} % (cross-section {sigma:.1e},"
            f" optical theorem {m['optical_theorem']:.1e}) | {published} |"
        )


def order() -> Iterator[str]:
    """Orders of P1 and P2 with S = 4, whose truncation is 1.4e-4: layer and domain refined together."""
    t = Truncation(type="pml", strength=4)
    for degree, sizes in ((1, (4, 8, 12, 16)), (2, (2, 4, 6))):
        last = None
        for n in sizes:
            N, e, _ = on_sphere(shells(n, n // 2, n), t, degree)
            rate = f"{np.log(last[1] / e) / np.log(n / last[0]):.2f}" if last else ""
            last = n, e
            yield f"| P{degree}, layer, n = {n}, {N} unknowns | {e:.3e} | {rate} |"
    for degree, sizes in ((1, (3, 6, 12)), (2, (2, 4, 8))):
        last = None
        for n in sizes:
            N, e, _ = on_sphere(shells(n, max(n // 2, 1), 0), EXACT_MAP, degree)
            rate = f"{np.log(last[1] / e) / np.log(n / last[0]):.2f}" if last else ""
            last = n, e
            yield f"| P{degree}, exact map, n = {n}, {N} unknowns | {e:.3e} | {rate} |"


def tetrahedra(h: float, axes: tuple[float, ...], **more: float) -> MeshCase:
    numbers = {"h": h, "d": 0.0, **dict(zip("abc", axes, strict=True)), **more}
    return MeshCase(geometry="exterior_ellipsoid", order=2, parameters=numbers)


def ellipsoid() -> Iterator[str]:
    """Ellipsoid 1 : .9 : .8 against fundamental solutions; the unit sphere by the same elements."""
    point = PointProblem(
        UNIT, (shape_of(Ellipsoid(type="ellipsoid", axes=AXES), lambda p: p),), OBLIQUE
    )
    exact, _ = solve_problem(point, Sources(count=400, placement="confocal", fraction=0.375))
    yield f"| fundamental solutions, 1200 unknowns | boundary error {exact.boundary_error:.1e} | |"
    last = None
    for h in (0.6, 0.4, 0.28):
        errors = []
        for axes, wave in ((AXES, OBLIQUE), ((1.0, 1.0, 1.0), P)):
            s = solved(tetrahedra(h, axes), EXACT_MAP)
            u = s.scattered(wave)
            field = exact.displacement if axes is AXES else sphere.scatter(UNIT, P).displacement
            errors.append(relative_error(s, u, field))
            if axes is AXES:
                sigma, N = energies(s, u, wave)["scattering_cross_section"], dofs(s)
        # the order in the size that the number of unknowns gives
        rate = f"{3 * np.log(last[1] / errors[0]) / np.log(N / last[0]):.2f}" if last else ""
        last = N, errors[0]
        yield (
            f"| tetrahedra P2, h = {h}, {N} unknowns | {errors[0]:.2e}; sphere {errors[1]:.2e} | {rate} |"
            f" cross-section {sigma:.5f} (6.21232) |"
        )


def others() -> Iterator[str]:
    """Cavity and inclusion against the exact series."""
    N, e, m = on_sphere(shells(4, 3, 0), EXACT_MAP, condition="cavity")
    yield f"| cavity, {N} unknowns | {100 * e:.3f} % | {m['scattering_cross_section']:.5f} (5.99694) |"
    inside = Inclusion(lame_lambda="5", lame_mu="3", density="2")
    for h in (0.6, 0.4):
        mesh = tetrahedra(h, (1.0, 1.0, 1.0), filled=1)
        s = solved(mesh, EXACT_MAP, condition="none", inclusions=(inside,))
        u = s.scattered(P)
        exact = sphere.scatter(UNIT, P, condition="inclusion", inside=Medium(5.0, 3.0, 2.0, 2.0))
        e = relative_error(s, u, exact.displacement)
        sigma = energies(s, u, P)["scattering_cross_section"]
        yield f"| inclusion, h = {h}, {dofs(s)} unknowns | {100 * e:.3f} % | {sigma:.5f} (1.79625) |"


TABLES = {f.__name__: f for f in (lysmer, layer, order, ellipsoid, others)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], default=list(TABLES))
    for name in parser.parse_args().tables:
        for line in TABLES[name]():
            if COMM.rank == 0:
                print(line, flush=True)


if __name__ == "__main__":
    main()
