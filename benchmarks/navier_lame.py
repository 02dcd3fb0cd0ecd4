"""Exterior elastic waves against their peers: ratios taken in one run, docs/benchmarks.md.

./run_mpi.sh python3 benchmarks/navier_lame.py [--small] [--only assembly apply least-squares rings factor methods]

assembly: 3 x 3 blocks of Kupradze's tensor against a numpy broadcast; apply: 1e4 sources without a
matrix, against the same in blocks; least-squares: against numpy.linalg.lstsq; rings: a spheroid by FFT,
against dense lstsq; factor: MUMPS' LDL^T in GF/s against ZGEMM, and 32 right sides at once against one
by one; methods: fundamental solutions against finite elements with a layer at no smaller error.
"""

from __future__ import annotations

import complex_scalars  # noqa: F401
from measure import arguments, interleaved, report  # before numpy: threads

# isort: split
from collections.abc import Callable

import numpy as np
from lame_fem_table import COMM, LAYER, UNIT, P, dofs, relative_error, shells, solved
from petsc4py import PETSc

from fem_apps.fundamental import kupradze, mfs, sphere
from fem_apps.fundamental.axisymmetric import RingLeastSquares, rings_of
from fem_apps.fundamental.bodies import Ellipsoid, shape_of
from fem_apps.fundamental.surfaces import fibonacci
from fem_apps.problems.navier_lame_solve import Scatterer

ROUNDS = 3


def broadcast(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kupradze's matrix as numpy users write it: (M, 3, N, 3)."""
    m = UNIT
    d = x[:, None] - y[None]
    r = np.linalg.norm(d, axis=2)
    e = d / r[..., None]

    def parts(k: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        g = np.exp(1j * k * r) / (4 * np.pi * r)
        return g, (1j * k - 1 / r) * g, (-(k**2) - 2j * k / r + 2 / r**2) * g

    (gs, ds, es), (_, dp, ep) = parts(m.k_s), parts(m.k_p)
    slope = (ds - dp) / m.rho_omega2 / r
    A = gs / m.lame_mu + slope
    B = (es - ep) / m.rho_omega2 - slope
    blocks = A[..., None, None] * np.eye(3) + B[..., None, None] * e[..., :, None] * e[..., None, :]
    return blocks.transpose(0, 2, 1, 3)


def assembly(small: bool) -> None:
    n = 100 if small else 400
    x, y = fibonacci(2 * n), 0.4 * fibonacci(n)
    times = interleaved(
        ROUNDS, numba=lambda: kupradze.displacement(UNIT, x, y), numpy=lambda: broadcast(x, y)
    )
    apart = np.abs(kupradze.displacement(UNIT, x, y) - broadcast(x, y).reshape(6 * n, 3 * n)).max()
    per_pair = 1e9 * times["numba"][1] / (2 * n * n)
    report(
        "D4 assembly", f"{2 * n} x {n} blocks", times, ours="numba", peer="numpy",
        agreement=f"apart {apart:.0e}, ours {per_pair:.1f} ns a pair",
    )  # fmt: skip


def apply(small: bool) -> None:
    n, targets, block = (2000 if small else 10_000), (100 if small else 500), 50
    x, y = 2 * fibonacci(targets), 0.9 * fibonacci(n)
    f = np.random.default_rng(0).normal(size=(n, 3)) + 0j

    def blocked() -> np.ndarray:
        parts = [broadcast(x[k : k + block], y) for k in range(0, targets, block)]
        return np.concatenate([p.reshape(-1, 3 * n) @ f.ravel() for p in parts]).reshape(-1, 3)

    times = interleaved(2, ours=lambda: kupradze.apply(UNIT, x, y, f), numpy=blocked)
    a, b = kupradze.apply(UNIT, x, y, f), blocked()
    per_pair = 1e9 * times["ours"][1] / (targets * n)
    report(
        "apply", f"{n} sources, {targets} points", times, ours="ours", peer="numpy",
        agreement=f"apart {np.linalg.norm(a - b) / np.linalg.norm(b):.0e}, ours {per_pair:.1f} ns a pair",
    )  # fmt: skip


def residuals(A: np.ndarray, b: np.ndarray, *solutions: np.ndarray) -> str:
    size = np.linalg.norm(b)
    return "residuals " + ", ".join(f"{np.linalg.norm(A @ c - b) / size:.2e}" for c in solutions)


def least_squares(small: bool) -> None:
    n = 100 if small else 520
    x, y = fibonacci(2 * n), 0.5 * fibonacci(n)
    A = kupradze.displacement(UNIT, x, y)
    b = -P.displacement(UNIT, x).ravel()

    def ours() -> np.ndarray:
        return mfs.LeastSquares(A.copy(order="F")).solve(b)

    def lstsq() -> np.ndarray:
        return np.linalg.lstsq(A, b, rcond=None)[0]

    times = interleaved(ROUNDS, ours=ours, lstsq=lstsq)
    report(
        "D3 least squares", f"{A.shape[0]} x {A.shape[1]}", times, ours="ours", peer="lstsq",
        agreement=residuals(A, b, ours(), lstsq()),
    )  # fmt: skip


def rings(small: bool) -> None:
    n = 6 if small else 14
    shape = shape_of(Ellipsoid(type="ellipsoid", axes=(0.8, 0.8, 1.0)), lambda p: p)
    boundary, sources = rings_of(shape, 2 * n, 2 * n), rings_of(shape, n, 2 * n, 0.6)
    x, y = boundary.x, sources.x
    b = -P.displacement(UNIT, x).ravel()
    rows = mfs.Boundary(x, boundary.n, np.full(len(x), True))

    def ours() -> np.ndarray:
        return RingLeastSquares(UNIT, boundary, sources, rows).solve(b)

    def lstsq() -> np.ndarray:
        return np.linalg.lstsq(kupradze.displacement(UNIT, x, y), b, rcond=None)[0]

    def dense() -> np.ndarray:
        return mfs.LeastSquares(kupradze.displacement(UNIT, x, y)).solve(b)

    times = interleaved(1, ours=ours, lstsq=lstsq, qr=dense)
    agreement = residuals(kupradze.displacement(UNIT, x, y), b, ours(), lstsq())
    for peer in ("lstsq", "qr"):
        report(
            "D3 body of revolution", f"{3 * len(x)} x {3 * len(y)}, assembly included", times, ours="ours",
            peer=peer, agreement=agreement,
        )  # fmt: skip


def factor(small: bool) -> None:
    for mesh in (shells(3, 2, 3),) if small else (shells(4, 2, 4), shells(6, 3, 5)):
        factor_of(solved(mesh, LAYER), 500 if small else 1500)


def factor_of(s: Scatterer, n: int) -> None:
    flops = 4 * s.ksp.getPC().getFactorMatrix().getMumpsRinfog(3)  # MUMPS counts complex operations
    X = np.random.default_rng(0).normal(size=(2, n, n)) + 1j

    def again() -> None:
        s.ksp.destroy()
        s.ksp = s._solver()

    times = interleaved(2, ours=again, zgemm=lambda: X[0] @ X[1])
    rate = 1e-9 * flops / times["ours"][1], 8e-9 * n**3 / times["zgemm"][1]
    print(
        f"D1 LDL^T {dofs(s)} unknowns: {rate[0]:.1f} GF/s with analysis, ZGEMM {rate[1]:.1f} GF/s |"
        f" ratio {rate[0] / rate[1]:.2f} (CPU)", flush=True,
    )  # fmt: skip
    B = np.random.default_rng(1).normal(size=(s.A.getLocalSize()[0], 32)) + 0j

    def one_by_one() -> np.ndarray:
        return np.stack([s._solve_one(b) for b in B.T], axis=1)

    times = interleaved(1, ours=lambda: s._solve_many(B), single=one_by_one)
    apart = np.abs(s._solve_many(B) - one_by_one()).max() / np.abs(B).max()
    report("D2 32 right sides", f"{dofs(s)} unknowns", times, ours="ours", peer="single", agreement=f"apart {apart:.0e}")  # fmt: skip


def methods(small: bool) -> None:
    mesh = shells(3, 2, 3) if small else shells(5, 2, 3)
    exact = sphere.scatter(UNIT, P)
    kept: dict[str, object] = {}

    def elements() -> None:
        s = solved(mesh, LAYER)
        kept["s"], kept["u"] = s, s.scattered(P)

    x = fibonacci(160)
    y = 0.4 * fibonacci(80)
    b = mfs.Boundary(x, x, np.full(len(x), True))

    def sources() -> np.ndarray:
        return mfs.LeastSquares(kupradze.displacement(UNIT, x, y)).solve(-b.incident(UNIT, P))

    times = interleaved(1, ours=sources, elements=elements)
    s = kept["s"]
    c = sources()
    z = np.concatenate([r * fibonacci(300) for r in (1.05, 1.25, 1.45)])
    u = exact.displacement(z)
    e = np.linalg.norm(kupradze.apply(UNIT, z, y, c) - u) / np.linalg.norm(u)
    memory = s.ksp.getPC().getFactorMatrix().getMumpsInfog(22) * 1e6 / (16 * 9 * len(x) * len(y))  # type: ignore[attr-defined]
    report(
        "D5 sources against elements", f"{3 * len(y)} against {dofs(s)} unknowns", times, ours="ours",
        peer="elements",
        agreement=f"errors in 1 < r < 1.5: {e:.1e}, {relative_error(s, kept['u'], exact.displacement):.1e};"
        f" memory of the matrices 1 : {memory:.0f}",
    )  # fmt: skip


TASKS: dict[str, Callable[[bool], None]] = {
    "assembly": assembly, "apply": apply, "least-squares": least_squares, "rings": rings, "factor": factor,
    "methods": methods,
}  # fmt: skip


def main() -> None:
    only = {
        "nargs": "+",
        "choices": list(TASKS),
        "default": list(TASKS),
        "help": "which comparisons",
    }
    options = arguments(__doc__, only=only)
    if COMM.size > 1:
        raise SystemExit("one rank: the peers are serial")
    for name in options.only:
        TASKS[name](options.small)
    PETSc.garbage_cleanup()


if __name__ == "__main__":
    main()
