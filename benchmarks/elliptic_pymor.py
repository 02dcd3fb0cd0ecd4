"""The thermal-block tables of pyMOR: its reduced bases and ours on one grid, with the same parameters.

    ./run_mpi.sh python3 benchmarks/elliptic_pymor.py [--small] [--seeds 3]

Unit square, f = 1, u = 0 on the boundary, P1; weak greedy over 1,000 random parameters, 50 random test parameters,
errors in the H1 seminorm relative to that of u. pyMOR (thermal_block_problem, CoerciveRBReductor, rb_greedy) draws the
parameters; `ours` gets the same ones on the same criss-cross grid of 71 x 71 squares (10,225 dofs), and `aligned` on a
mesh that no block boundary cuts. Of several seeds the range of each entry is printed.
"""

import argparse

import numpy as np
from dolfinx import mesh as dolfinx_mesh
from mpi4py import MPI
from scipy.spatial import cKDTree

from fem_apps.meshing import MeshCase, MeshData, build
from fem_apps.problems.elliptic import discretise, make_space
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.surrogates.reduced_basis import Offline, weak_greedy

CASES = [
    ((2, 2), 0.1, (4, 10, 20, 30)),
    ((3, 2), 0.1, (6, 10, 20, 30)),
    ((3, 3), 0.1, (10, 20, 40)),
    ((3, 2), 1e-4, (10, 30)),
]


def criss_cross(n):
    """PyMOR's grid: n x n squares of four triangles."""
    mesh = dolfinx_mesh.create_unit_square(
        MPI.COMM_SELF, n, n, diagonal=dolfinx_mesh.DiagonalType.crossed
    )
    cells = np.arange(mesh.topology.index_map(2).size_local, dtype=np.int32)
    return MeshData(mesh, dolfinx_mesh.meshtags(mesh, 2, cells, np.zeros_like(cells)), None, {})


def aligned(counts, h):
    nx, ny = counts
    return build(
        MPI.COMM_SELF,
        MeshCase(geometry="blocks", parameters={"h": h, "nx": nx, "ny": ny}),
    )


def rows(errors, norms, bounds):
    """Largest and mean relative error, mean and largest effectivity."""
    relative, effectivity = errors / norms, bounds / errors
    assert effectivity.min() >= 1 - 1e-6
    return relative.max(), relative.mean(), effectivity.mean(), effectivity.max()


def ours(data, counts, least, training, tests, sizes, theirs=None):
    """Our tables; `theirs`: centres of cells and the block of each, to settle cells on a boundary."""
    equation = Equation(diffusion={"type": "blocks", "counts": counts, "range": (least, 1)})
    given = None
    if theirs is not None:
        x = make_space(data, equation).points().T
        distance, at = cKDTree(theirs[0]).query(x)
        assert distance.max() < 1e-12
        given = equation.diffusion, theirs[1][at]
    model = EllipticModel(discretise(data, equation, interpolation=given))
    offline = Offline(model)
    steps = weak_greedy(offline, training, max(sizes))
    U = [model.solve(mu) for mu in tests]
    norms = np.array([model.norm(u) for u in U])
    out = []
    for n in sizes:
        reduced = offline.reduced().of_size(n)
        c = reduced.coefficients(tests)
        V = offline.basis.vectors[:, :n]
        errors = np.array([model.norm(u - V @ x) for u, x in zip(U, c, strict=True)])
        out.append(rows(errors, norms, reduced.error_bound(tests)))
    return out, [s.index for s in steps if s.index >= 0]


def pymor(counts, least, sizes, seed, diameter, number, n_tests):
    """PyMOR's own run; also the parameters that it drew, as arrays, blocks counted along x first."""
    from pymor.algorithms.greedy import rb_greedy
    from pymor.analyticalproblems.thermalblock import thermal_block_problem
    from pymor.core.logger import set_log_levels
    from pymor.discretizers.builtin import discretize_stationary_cg
    from pymor.parameters.functionals import ExpressionParameterFunctional
    from pymor.reductors.coercive import CoerciveRBReductor
    from pymor.tools.random import new_rng

    set_log_levels({"pymor": "ERROR"})
    problem = thermal_block_problem(counts, parameter_range=(least, 1))
    fom, more = discretize_stationary_cg(problem, diameter=diameter)
    with new_rng(seed):
        training = problem.parameter_space.sample_randomly(number)
        tests = problem.parameter_space.sample_randomly(n_tests)
    product = fom.h1_0_semi_product
    reductor = CoerciveRBReductor(
        fom,
        product=product,
        coercivity_estimator=ExpressionParameterFunctional("min(diffusion)", fom.parameters),
    )
    found = rb_greedy(fom, reductor, training, max_extensions=max(sizes))
    rom = found["rom"]
    U = [fom.solve(mu) for mu in tests]
    norms = np.array([u.norm(product)[0] for u in U])
    out = []
    for n in sizes:
        small = reductor.reduce(dims={"RB": n}) if n < rom.solution_space.dim else rom
        V = reductor.bases["RB"][:n]
        errors, bounds = [], []
        for mu, u in zip(tests, U, strict=True):
            errors.append((u - V.lincomb(small.solve(mu).to_numpy())).norm(product)[0])
            bounds.append(float(np.ravel(small.estimate_error(mu))[0]))
        out.append(rows(np.array(errors), norms, np.array(bounds)))
    arrays = [np.array([mu["diffusion"] for mu in mus]) for mus in (training, tests)]
    chosen = [
        int(np.abs(arrays[0] - mu["diffusion"]).sum(axis=1).argmin()) for mu in found["max_err_mus"]
    ]
    centres = more["grid"].centers(0)
    fields = np.array([f.evaluate(centres) for f in problem.diffusion.functions]).T
    return out, chosen, arrays, (centres, fields)


def spread(values):
    """Median [least, largest] where there are several."""
    v = np.array(values)
    if len(v) == 1:
        return f"{v[0]:.1e}" if v[0] < 1 else f"{v[0]:.1f}"
    show = (lambda x: f"{x:.1e}") if v.max() < 1 else (lambda x: f"{x:.1f}")
    return f"{show(np.median(v))} [{show(v.min())}, {show(v.max())}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a coarse grid and few parameters")
    parser.add_argument("--seeds", type=int, default=1, help="training and test sets, from 42 on")
    parser.add_argument("--case", type=int, help="one of the four alone")
    given = parser.parse_args()
    n, number, n_tests = (11, 30, 5) if given.small else (71, 1000, 50)
    print("| blocks, mu in | N | who | largest error | mean | effectivity mean | largest |")
    print("|---|---|---|---|---|---|---|")
    for counts, least, sizes in CASES if given.case is None else [CASES[given.case]]:
        if given.small:
            sizes = [s for s in sizes if s <= 10]
        seen = {"pyMOR": [], "ours": [], "aligned": []}
        same = True
        for seed in range(42, 42 + given.seeds):
            theirs, chosen, (training, tests), cells = pymor(
                counts, least, sizes, seed, 1.000001 / n, number, n_tests
            )
            data = criss_cross(n)
            result, mine = ours(data, counts, least, training, tests, sizes, cells)
            same = same and mine == chosen
            seen["pyMOR"].append(theirs)
            seen["ours"].append(result)
            data = aligned(counts, 0.8 / n)
            seen["aligned"].append(ours(data, counts, least, training, tests, sizes)[0])
        for k, size in enumerate(sizes):
            for who, tables in seen.items():
                cells = [spread([t[k][c] for t in tables]) for c in range(4)]
                name = f"{counts[0]} x {counts[1]}, [{least:g}, 1]"
                print(f"| {name} | {size} | {who} | " + " | ".join(cells) + " |", flush=True)
        print(f"<!-- the same parameters chosen by both greedy algorithms: {same} -->", flush=True)
