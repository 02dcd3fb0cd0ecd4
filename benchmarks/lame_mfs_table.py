"""Fundamental solutions: every published row beside what is measured; docs/fundamental_solutions.md.

./run_mpi.sh python3 benchmarks/lame_mfs_table.py
    [default sphere ellipsoid force traction static resonance qr mixed]

lambda = 2, mu = rho = 1; errors are the largest on 1999 other points. `default`: where the package puts
as many sources by itself. The others: sources as published, Fibonacci points, twice as many points of
collocation; "own points": the package's lattices, 2.5 times as many. A row ends in the largest of
measured / published, and in "yes" where each figure, rounded to the digits of the published one, is
at or below it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from fem_apps.fundamental import kupradze, mfs, mfs_qr, sphere, surfaces
from fem_apps.fundamental.bodies import Ellipsoid, Sources, Sphere, shape_of
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.scattering import Problem, solve_problem

P, OBLIQUE = PlaneWave(), PlaneWave((1, 2, 2))
BALL = (1.0, 1.0, 1.0)
FLAT, MILD = (1.0, 0.8, 0.6), (1.0, 0.9, 0.8)
FORCE, INSIDE = np.array([1.0, 0.5, -0.7]), (0.15, -0.1, 0.05)
TORSION = 4.493409458 / 0.5  # k_s of the first torsional resonance inside R_s = .5


def boundary(axes: tuple[float, ...], n: int, rigid: bool = True) -> mfs.Boundary:
    x, normals, _ = surfaces.on_ellipsoid(np.array(axes), np.zeros(3), n)
    return mfs.Boundary(x, normals, np.full(n, rigid))


def wave_error(
    k_s: float, axes: tuple[float, ...], y: np.ndarray, wave: PlaneWave, rigid: bool = True
) -> mfs.Solution:
    """Scattering of a plane wave by sources y."""
    m = Medium(2, 1, 1, k_s)
    b, f = boundary(axes, 2 * len(y), rigid), boundary(axes, 1999, rigid)
    return mfs.solve(mfs.PointSources(m, y), b, f, b.incident(m, wave), f.incident(m, wave))


def pole(axes: tuple[float, ...]) -> np.ndarray:
    """Along the greatest semi-axis (z of equal ones): a force inside is felt least there."""
    return np.eye(3)[2 - int(np.argmax(axes[::-1]))]


def spread(n: int, own: bool, axes: tuple[float, ...] = BALL) -> np.ndarray:
    """Points on the unit sphere: the published Fibonacci ones, or the package's own."""
    return surfaces.lattice(n, pole(axes)) if own else surfaces.fibonacci(n)


def force_error(
    k_s: float, axes: tuple[float, ...], y: np.ndarray, y0: tuple[float, ...], *,
    rigid: bool = True, normals: np.ndarray | None = None, own: bool = False,
) -> tuple[float, float, mfs.Solution]:  # fmt: skip
    """Data of a force inside: largest component of the error over the largest |u|, |c|."""
    m, at = Medium(2, 1, 1, k_s), np.array([y0])
    b, f = boundary(axes, 2 * len(y), rigid), boundary(axes, 1999, rigid)
    if own:
        n = int(2.5 * len(y))
        x, normal, _ = surfaces.on_ellipsoid(np.array(axes), np.zeros(3), n, pole(axes))
        b = mfs.Boundary(x, normal, np.full(n, rigid))
    force = mfs.PointSources(m, at)
    data, fresh = (-(force.rows(x) @ FORCE) for x in (b, f))
    s = mfs.solve(mfs.PointSources(m, y, normals), b, f, data, fresh)
    return s.boundary_error, s.coefficient_norm, s


def row(name: str, *pairs: tuple[str, float, float]) -> str:
    """Name, measured (published) of each quantity, the worst ratio, whether at or below."""
    cells = " | ".join(f"{what} {seen:.1e} ({known:.1e})" for what, seen, known in pairs)
    worst = max(seen / known for _, seen, known in pairs)
    below = all(float(f"{seen:.{digits(known)}e}") <= known for _, seen, known in pairs)
    return f"| {name} | {cells} | {worst:.2f} {'yes' if below else 'no'} |"


def digits(known: float) -> int:
    """Digits after the first of a published figure, 0 or 1."""
    return int(float(f"{known:.0e}") != known)


SPHERE = {
    (1, 0.3): {50: (8e-3, 4e-4, 3e4), 100: (4e-5, 5e-7, 3e6), 200: (1e-7, 3e-10, 1e9), 400: (3e-11, 4e-14, 1.5e12)},
    (1, 0.5): {50: (3e-2, 1e-3, 9e2), 100: (1e-3, 1e-5, 1e4), 200: (3e-5, 8e-8, 5e5), 400: (2e-7, 1e-10, 4e7)},
    (1, 0.7): {50: (7e-2, 4e-3, 87), 100: (1e-2, 2e-4, 4e2), 200: (9e-4, 3e-6, 3e3), 400: (3e-5, 9e-8, 3e4)},
    (2, 0.4): {150: (9e-5, 1e-6, 7e5), 300: (2e-7, 6e-10, 2e8)},
    (5, 0.3): {100: (0.14, 6e-2, 2e5), 200: (9e-4, 2e-4, 1e8), 400: (1e-7, 6e-10, 3e11), 700: (3e-10, 2e-11, 8e15)},
    (5, 0.7): {100: (0.49, 0.11, 97), 200: (2e-2, 3e-3, 4e2), 400: (8e-4, 1e-5, 6e3)},
}  # fmt: skip


def solved(
    axes: tuple[float, ...], k_s: float, n: int, wave: PlaneWave, rigid: bool
) -> tuple[mfs.Solution, str]:
    """By the package's own placement, with its name."""
    condition: Any = "rigid" if rigid else "cavity"
    body: Any = Ellipsoid(type="ellipsoid", axes=axes, condition=condition)
    if axes == BALL:
        body = Sphere(type="sphere", condition=condition)
    p = Problem(Medium(2, 1, 1, k_s), (shape_of(body, lambda p: p),), wave)
    s, notes = solve_problem(p, Sources(count=n))
    return s, notes[0].split("placed by ")[1]


def fresh_error(s: mfs.Solution, axes: tuple[float, ...], wave: PlaneWave, rigid: bool) -> float:
    f = boundary(axes, 1999, rigid)
    data = f.incident(s.basis.medium, wave)
    lengths = np.linalg.norm(data.reshape(-1, 3), axis=1)
    return float(np.abs(s.basis.rows(f) @ s.c + data).max() / lengths.max())


def default_rows() -> Iterator[str]:
    """The package's own placement against the best published row of as many sources."""
    x = 2 * surfaces.fibonacci(500)
    best: dict[tuple[int, int], tuple[float, float]] = {}
    for (k, _), rows in SPHERE.items():
        for n, (bc, far, _) in rows.items():
            old = best.get((k, n), (np.inf, np.inf))
            best[k, n] = min(old[0], bc), min(old[1], far)
    for (k, n), (bc, far) in best.items():
        s, where = solved(BALL, 2 * k, n, P, True)
        u = sphere.scatter(s.basis.medium, P).displacement(x)
        e = float(np.linalg.norm(s.displacement(x) - u) / np.linalg.norm(u))
        error = fresh_error(s, BALL, P, True)
        yield row(f"sphere, k_p a = {k}, N = {n}, {where}", ("bc", error, bc), ("r=2", e, far))
    for axes, k_s, n, rigid, known in (
        (FLAT, 2, 100, True, 2e-2), (FLAT, 2, 225, True, 4e-3), (FLAT, 2, 400, True, 1.5e-4), (FLAT, 10, 400, True, 1.5e-3),
        (MILD, 2, 400, True, 7e-7), (MILD, 2, 400, False, 4e-5),
    ):  # fmt: skip
        s, where = solved(axes, k_s, n, OBLIQUE, rigid)
        name = f"{axes}, {'rigid' if rigid else 'cavity'}, k_s = {k_s}, N = {n}, {where}"
        yield row(name, ("bc", fresh_error(s, axes, OBLIQUE, rigid), known))


def sphere_rows() -> Iterator[str]:
    """Rigid sphere: error on the boundary, at |x| = 2."""
    x = 2 * surfaces.fibonacci(500)
    for (k, R), rows in SPHERE.items():
        u = sphere.scatter(Medium(2, 1, 1, 2 * k), P).displacement(x)
        for N, (bc, far, condition) in rows.items():
            s = wave_error(2 * k, BALL, R * surfaces.fibonacci(N), P)
            e = float(np.linalg.norm(s.displacement(x) - u) / np.linalg.norm(u))
            line = row(
                f"k_p a = {k}, R_s = {R}, N = {N}", ("bc", s.boundary_error, bc), ("r=2", e, far)
            )
            yield f"{line} cond {s.condition:.1e} ({condition:.1e}) |"


def confocal(axes: tuple[float, ...], q: float, n: int) -> np.ndarray:
    a = np.array(axes)
    return np.sqrt(a**2 - a.min() ** 2 + q * q) * surfaces.fibonacci(n)


def ellipsoid_rows() -> Iterator[str]:
    """Rigid ellipsoid 1 : .8 : .6, scaled and confocal sources; the milder one."""
    for k_s, scaled, conf in (
        (2, (8e-2, 5e-3, 5e-3), (1.5e-4, 4e-4, 1.5e-3, 9e-3)),
        (10, (0.27, 5e-2, 7e-2), (1.5e-3, 3e-3, 9e-3, 0.11)),
    ):
        for s, known in zip((0.4, 0.6, 0.8), scaled, strict=True):
            found = wave_error(k_s, FLAT, s * np.array(FLAT) * surfaces.fibonacci(400), OBLIQUE)
            yield row(f"k_s = {k_s}, scaled {s}", ("bc", found.boundary_error, known))
        for q, known in zip((0.15, 0.25, 0.35, 0.45), conf, strict=True):
            found = wave_error(k_s, FLAT, confocal(FLAT, q, 400), OBLIQUE)
            yield row(f"k_s = {k_s}, confocal {q}", ("bc", found.boundary_error, known))
    for n, s, q, known in ((100, 0.6, None, 0.10), (100, None, 0.15, 2e-2), (225, 0.6, None, 1.5e-2), (225, None, 0.25, 4e-3)):  # fmt: skip
        y = confocal(FLAT, q, n) if q else s * np.array(FLAT) * surfaces.fibonacci(n)
        name = f"confocal {q}" if q else f"scaled {s}"
        yield row(
            f"k_s = 2, N = {n}, {name}",
            ("bc", wave_error(2, FLAT, y, OBLIQUE).boundary_error, known),
        )
    for rigid, known in ((True, 7e-7), (False, 4e-5)):
        e = wave_error(2, MILD, confocal(MILD, 0.3, 400), OBLIQUE, rigid).boundary_error
        yield row(f"1 : .9 : .8, q = .3, {'rigid' if rigid else 'cavity'}", ("bc", e, known))


def force_rows() -> Iterator[str]:
    """A force inside the ellipsoid, sources s times the boundary."""
    table = {2: {0.4: (2e-4, 1e-6), 0.6: (1e-2, 7e-4), 0.8: (0.14, 4e-2)}, 10: {0.4: (5e-4, 2e-6), 0.6: (0.23, 7e-3), 0.8: (1.2, 0.35)}}  # fmt: skip
    for k_s, rows in table.items():
        for s, known in rows.items():
            for n, e in zip((100, 225), known, strict=True):
                for own in (False, True):
                    y = s * np.array(FLAT) * spread(n, own, FLAT)
                    found = force_error(k_s, FLAT, y, INSIDE, own=own)[0]
                    name = f"k_s = {k_s}, s = {s}, N = {n}{', own points' * own}"
                    yield row(name, ("bc", found, e))


def traction_rows() -> Iterator[str]:
    """Collocated tractions of a force inside the sphere, k_s = 2, s = .4; errors of u on the boundary."""
    m, at = Medium(2, 1, 1, 2.0), np.array([[0.15, -0.1, 0.1]])
    x = boundary(BALL, 1999).x
    u = kupradze.apply(m, x, at, FORCE)
    for n, known in ((100, 2.5e-5), (300, 3e-9)):
        for own in (False, True):
            y = 0.4 * spread(n, own)
            s = force_error(2, BALL, y, (0.15, -0.1, 0.1), rigid=False, own=own)[2]
            found = float(np.abs(s.displacement(x) - u).max() / np.linalg.norm(u, axis=1).max())
            yield row(f"traction, N = {n}{', own points' * own}", ("u", found, known))


def static_rows() -> Iterator[str]:
    """Kelvin's tensor, a force inside the unit sphere; where it was is not published."""
    for R, rows in {0.3: (8e-5, 1e-6, 3e-9), 0.7: (4e-2, 5e-3, 4e-4)}.items():
        for n, known in zip((50, 100, 200), rows, strict=True):
            for own in (False, True):
                found = force_error(0.0, BALL, R * spread(n, own), INSIDE, own=own)[0]
                name = f"static, R_s = {R}, N = {n}{', own points' * own}"
                yield row(name, ("bc", found, known))


def resonance_rows() -> Iterator[str]:
    """R_s = .5, N = 200, a force inside: at the resonance, beside it, and the cures."""
    f, y0 = surfaces.fibonacci(200), INSIDE
    for k_s, e, c in (
        (8.0, 1.7e-5, 1.6),
        (8.95, 1.4e-4, 12),
        (TORSION, 0.7, 1.4e5),
        (9.4, 3e-5, 1.7),
    ):
        found = force_error(k_s, BALL, 0.5 * f, y0)
        yield f"| k_s = {k_s:.5f} | error {found[0]:.1e} ({e:.0e}), |c| {found[1]:.1e} ({c:.0e}) |"
    for own in (False, True):
        f = spread(200, own)
        two = np.concatenate([r * spread(100, own) for r in (0.5, 0.35)])
        for name, y, n, known in (
            ("R_s = .45", 0.45 * f, None, 5e-6), ("two surfaces", two, None, 5e-7), ("combined", 0.5 * f, f, 2e-5),
        ):  # fmt: skip
            e = force_error(TORSION, BALL, y, y0, normals=n, own=own)[0]
            yield row(f"k_s = {TORSION:.5f}, {name}{', own points' * own}", ("bc", e, known))
    shear = PlaneWave((0, 0, 1), (1, 0, 0))
    for x, what in ((4.493409458, "torsional"), (4.31103920, "spheroidal")):
        for n in (100, 200, 400):
            for wave, letter in ((P, "P"), (shear, "S")):
                p = Problem(
                    Medium(2, 1, 1, 2 * x), (shape_of(Sphere(type="sphere"), lambda p: p),), wave
                )
                s = Sources(count=n, placement="scaled", fraction=0.5)
                off, _ = solve_problem(p, s.model_copy(update={"resonance_check": False}))
                on, notes = solve_problem(p, s)
                yield (
                    f"| {what}, N = {n}, {letter} wave | unchecked {off.boundary_error:.1e}, checked"
                    f" {on.boundary_error:.1e} | {notes[0] if notes else 'not found'} |"
                )


def qr_rows() -> Iterator[str]:
    """Condition and error of plain sources, MFS-QR, multipoles with as many unknowns."""
    rows = (
        (1, 0.5, 200, (5e5, 3e-5), (1.5e3, 3e-5), (2.7e2, 6e-14)), (1, 0.2, 200, (3e11, 1e-9), (1.8e4, 1e-9), None),
        (1, 0.1, 200, (5e15, 1e-9), (8e4, 2e-11), None), (2, 0.15, 150, (2e11, 2e-6), (4.5e3, 2e-6), (45, 7e-8)),
        (5, 0.5, 200, (6e4, 3.5e-3), (31, 3.5e-3), (7, 4e-5)),
    )  # fmt: skip
    for k, R, n, plain, qr, multi in rows:
        m, b, f, y = Medium(2, 1, 1, 2 * k), boundary(BALL, 2 * n), boundary(BALL, 1999), R * surfaces.fibonacci(n)  # fmt: skip
        bases = (
            (mfs.PointSources(m, y), plain), (mfs_qr.mfs_qr(m, b, [(np.arange(2 * n), y)]), qr),
            (mfs_qr.multipoles(m, b, [np.arange(2 * n)], int(np.sqrt(n + 1)) - 1), multi),
        )  # fmt: skip
        cells = []
        for basis, known in bases:
            s = mfs.solve(basis, b, f, b.incident(m, P), f.incident(m, P))
            told = f" ({known[0]:.0e} / {known[1]:.0e})" if known else ""
            cells.append(f"{s.condition:.1e} / {s.boundary_error:.1e}{told}")
        yield f"| k_p a = {k}, R_s = {R}, N = {n} | " + " | ".join(cells) + " |"


def mixed_rows() -> Iterator[str]:
    """A sphere rigid where x > 0, else a cavity: errors by the distance from the change; all cavity."""
    m, edges = Medium(2, 1, 1, 2.0), (0, 0.03, 0.1, 0.3, 0.6, 1.1)
    for where, condition, counts in (("x", "rigid", (120, 240, 480)), (None, "cavity", (240,))):
        body = Sphere(type="sphere", rigid_where=where, condition=condition)  # type: ignore[arg-type]
        p = Problem(m, (shape_of(body, lambda p: p),), P)
        fresh = p.boundary(3001, 1)
        far = np.abs(fresh.x[:, 0])
        for n in counts:
            s, _ = solve_problem(p, Sources(count=n, placement="offset", fraction=0.6))
            e = np.abs((s.basis.rows(fresh) @ s.c + p.data(fresh)).reshape(-1, 3)).max(axis=1)
            rings = [e[(far >= a) & (far < b)].max() for a, b in itertools.pairwise(edges)]
            defect = mfs.energy_balance(s, m, P, 40).defect
            yield (
                f"| {where or condition}, N = {n} | " + " | ".join(f"{r:.1e}" for r in rings)
                + f" | rms {s.boundary_error_rms:.1e} | defect {defect:.1e} |"
            )  # fmt: skip


TABLES = {n[: -len("_rows")]: f for n, f in globals().copy().items() if n.endswith("_rows")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], default=list(TABLES))
    for name in parser.parse_args().tables:
        print(f"{name}: {(TABLES[name].__doc__ or '').strip()}", flush=True)
        for line in TABLES[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
