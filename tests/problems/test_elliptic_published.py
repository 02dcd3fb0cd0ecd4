"""Published numbers: RBniCSx tutorial 01, and pyMOR's thermal block."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.case import load
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.elliptic import discretise
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.problems.elliptic_sweep import path
from fem_apps.surrogates.reduced_basis import Offline, pod, weak_greedy


def test_rbnicsx_tutorial_01():
    """Its greedy parameters, its orders of magnitude: a disc in [-1, 1]^2, mesh size 0.1."""
    data = build(MPI.COMM_SELF, MeshCase(geometry="square_with_disc", parameters={"h": 0.1}))
    case = load("examples/parametric_elliptic/disc.toml")
    model = EllipticModel(discretise(data, case))
    grid = np.array([(a, b) for a in np.linspace(0.1, 10, 10) for b in np.linspace(0, 1, 10)])
    np.testing.assert_allclose(model.bound(grid), np.minimum(grid[:, 0], 1), rtol=1e-9)
    offline = Offline(model)
    steps = weak_greedy(offline, grid, 5)
    assert [s.index for s in steps[:5]] == [9, 99, 29, 19, 59]
    orders = [int(np.floor(np.log10(s.largest))) for s in steps[:5]]
    assert orders[1:] == [0, -2, -5, -6]
    snapshots = np.array([model.solve(m) for m in grid])
    modes, sigma = pod(model, snapshots, 4)
    assert [int(np.floor(np.log10(s / sigma[0]))) for s in sigma[:4]] == [0, -1, -3, -5]
    mu = np.array([[8.0, 1.0]])
    u = model.solve(mu[0])
    reduced = offline.reduced().of_size(4)
    error = model.norm(u - offline.basis.vectors[:, :4] @ reduced.coefficients(mu)[0])
    assert 1e-8 < error < 1e-6
    assert error <= reduced.error_bound(mu)[0] < 1e-6
    by_pod = Offline(model)
    for phi in modes:
        by_pod.extend(phi)
    v = by_pod.basis.vectors @ by_pod.reduced().coefficients(mu)[0]
    assert 1e-10 < model.norm(u - v) < 1e-7


# blocks, least mu, N -> largest and mean relative error, largest effectivity of pyMOR 2026.1.1
PYMOR = [
    (
        (2, 2),
        0.1,
        {4: (4.1e-1, 2.3e-1), 10: (3.6e-2, 1.8e-2), 20: (1.8e-3, 9.5e-4), 30: (1.9e-4, 1.2e-4)},
        4.8,
    ),
    (
        (3, 2),
        0.1,
        {6: (5.3e-1, 2.5e-1), 10: (2.7e-1, 1.4e-1), 20: (3.2e-2, 2.0e-2), 30: (1.1e-2, 6.3e-3)},
        5.2,
    ),
    ((3, 3), 0.1, {10: (3.1e-1, 1.8e-1), 20: (1.5e-1, 8.4e-2), 40: (1.8e-2, 1.2e-2)}, 6.1),
    ((3, 2), 1e-4, {10: (7.9e-1, 6.0e-1), 30: (4.3e-2, 2.1e-2)}, 63),
]


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "least", "rows", "effectivity"), PYMOR)
def test_pymor_thermal_block(counts, least, rows, effectivity):
    data = build(
        MPI.COMM_SELF,
        MeshCase(geometry="blocks", parameters={"h": 0.011, "nx": counts[0], "ny": counts[1]}),
    )
    equation = Equation(diffusion={"type": "blocks", "counts": counts, "range": (least, 1)})
    model = EllipticModel(discretise(data, equation))
    P = counts[0] * counts[1]
    offline = Offline(model)
    weak_greedy(offline, np.random.default_rng(0).uniform(least, 1, (1000, P)), max(rows))
    mus = np.random.default_rng(1).uniform(least, 1, (50, P))
    U = [model.solve(m) for m in mus]
    for n, (largest, mean) in rows.items():
        reduced = offline.reduced().of_size(n)
        c = reduced.coefficients(mus)
        Phi = offline.basis.vectors[:, :n]
        e = np.array([model.norm(u - Phi @ v) for u, v in zip(U, c, strict=True)])
        relative = e / [model.norm(u) for u in U]
        assert relative.max() < 1.3 * largest  # other training sets move entries by some 10 %
        assert relative.mean() < 1.3 * mean
        eff = reduced.error_bound(mus) / e
        assert eff.min() >= 1
        assert eff.max() < 1.5 * effectivity
        print(
            counts,
            least,
            n,
            f"{relative.max():.1e} {relative.mean():.1e} {eff.mean():.1f} {eff.max():.1f}",
        )


BLOCKS = {"type": "blocks", "counts": (2, 2), "range": (0.1, 1)}
# a of either sign in its terms: min theta would be negative
SIGNED = {
    "type": "terms",
    "terms": [{}, {"theta": "m", "value": "sin(pi*x)"}, {"theta": "n", "value": "cos(pi*y)"}],
}
CERTIFIED = {
    "2 x 2, [0.1, 1]": ({"diffusion": BLOCKS}, {}),
    "3 x 2, [1e-4, 1]": (
        {"diffusion": {**BLOCKS, "counts": (3, 2), "range": (1e-4, 1)}},
        {"nx": 3},
    ),
    "3 x 3, [0.1, 1]": ({"diffusion": {**BLOCKS, "counts": (3, 3)}}, {"nx": 3, "ny": 3}),
    "a of either sign": (
        {
            "diffusion": SIGNED,
            "interpolation": 1,
            "parameters": {"m": (-0.45, 0.45), "n": (-0.45, 0.45), "f": (-1, 1)},
            "source": [{"value": "x"}, {"theta": "f"}],
            "boundary": [
                {"on": "left", "value": "y"},
                {"on": "top", "type": "robin", "coefficient": [{"theta": "2 + m"}]},
                {"on": "right", "type": "neumann", "flux": [{"theta": "f*n"}]},
            ],
        },
        {},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CERTIFIED)
def test_error_is_below_the_estimator_on_a_thousand_parameters(name):
    equation, parameters = CERTIFIED[name]
    data = build(MPI.COMM_SELF, MeshCase(geometry="blocks", parameters={"h": 0.02, **parameters}))
    model = EllipticModel(discretise(data, Equation(**equation)))
    low, high = np.array(list(model.ranges.values())).T
    rng = np.random.default_rng([0, 7])
    offline = Offline(model)
    weak_greedy(offline, rng.uniform(low, high, (500, len(low))), 30)
    mus = rng.uniform(low, high, (1000, len(low)))
    mus = mus[path(mus)]
    Phi, full = offline.basis.vectors, offline.reduced()
    sizes = [n for n in (5, 10, 20, 30) if n <= full.size]
    c = {n: full.of_size(n).coefficients(mus) for n in sizes}
    bounds = {n: full.of_size(n).error_bound(mus, c[n]) for n in sizes}
    effectivity = {n: np.full(len(mus), np.inf) for n in sizes}
    for k, mu in enumerate(mus):
        u = model.solve(mu, Phi @ c[sizes[-1]][k])
        for n in sizes:
            error = model.norm(u - Phi[:, :n] @ c[n][k])
            if error > 1e-9 * model.norm(u):  # the solver's own error is below 1e-10
                effectivity[n][k] = bounds[n][k] / error
    for n in sizes:
        known = effectivity[n][np.isfinite(effectivity[n])]
        print(f"{name}: {model.D.space.size} dofs, N = {n}, {len(known)} parameters, "
              f"bound/error {known.min():.4f} to {known.max():.1f}")  # fmt: skip
        assert known.min() >= 1 - 1e-7
        assert len(known) > 900 or n == sizes[-1]
