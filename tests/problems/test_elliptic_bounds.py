"""Coercivity bounds of equations that are not coercive term by term, against eigenvalues."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.meshing import MeshCase, build
from fem_apps.problems.elliptic import discretise
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.problems.elliptic_stored import model_functions
from fem_apps.surrogates.reduced_basis import Offline, weak_greedy
from fem_apps.surrogates.reduced_basis_online import load, save

# -div(a grad u) - k u = 1 with k up to 15 < 2 pi^2, and a negative Robin coefficient
SHIFTED = {
    "parameters": {"k": (-5, 15)},
    "diffusion": {"type": "terms", "terms": [{}]},
    "reaction": [{"theta": "-k"}],
}
ROBIN = {
    "parameters": {"r": (-0.6, 1), "m": (-0.3, 0.3)},
    "diffusion": {"type": "terms", "terms": [{}, {"theta": "m", "value": "sin(3*x)*cos(2*y)"}]},
    "interpolation": 1,
    "boundary": [
        {"on": "left", "value": "1"},
        {"on": "right", "type": "robin", "coefficient": [{"theta": "r"}], "flux": [{}]},
    ],
}


def model_of(equation, h=0.1):
    data = build(MPI.COMM_SELF, MeshCase(geometry="rectangle", parameters={"h": h}))
    return EllipticModel(discretise(data, Equation(**equation), rtol=1e-12))


def dense(A, free):
    ptr, columns, values = A.getValuesCSR()
    import scipy.sparse as sp

    return sp.csr_matrix((values, columns, ptr)).toarray()[np.ix_(free, free)]


@pytest.mark.parametrize("equation", [SHIFTED, ROBIN])
def test_the_bound_is_below_the_least_eigenvalue(equation):
    from scipy.linalg import eigh

    model = model_of(equation)
    D = model.D
    free = np.setdiff1d(np.arange(D.space.size), D.space.fixed)
    X = dense(model.X, free)
    low, high = np.array(list(model.ranges.values())).T
    mus = np.random.default_rng(0).uniform(low, high, (20, len(low)))
    bounds = model.bound(mus)
    assert (D.theta(mus)[:, D.fields.shape[1] :] < 0).any()
    for mu, bound in zip(mus, bounds, strict=True):
        least = eigh(dense(D.matrix.combine(D.theta(mu)), free), X, eigvals_only=True)[0]
        assert 0 < bound <= least * (1 + 1e-9)
        if equation is SHIFTED:  # one term alone is negative: sharp where it is
            assert bound == pytest.approx(min(least, 1.0), rel=1e-5)


def test_reach_of_a_reaction_is_one_over_the_first_eigenvalue():
    model = model_of(SHIFTED, 0.05)
    assert 1 / model.functions()["reach"][0] == pytest.approx(2 * np.pi**2, rel=1e-2)


@pytest.mark.parametrize("equation", [SHIFTED, ROBIN])
def test_certified_without_coercive_terms(equation, tmp_path):
    model = model_of(equation)
    offline = Offline(model)
    low, high = np.array(list(model.ranges.values())).T
    rng = np.random.default_rng(1)
    weak_greedy(offline, rng.uniform(low, high, (50, len(low))), 4)
    mus = rng.uniform(low, high, (50, len(low)))
    reduced = offline.reduced().of_size(min(3, offline.size))
    c = reduced.coefficients(mus)
    bounds = reduced.error_bound(mus, c)
    V = offline.basis.vectors[:, : reduced.size]
    errors = np.array([model.norm(model.solve(m) - V @ x) for m, x in zip(mus, c, strict=True)])
    shown = errors > 1e-9
    assert shown.sum() > 30
    assert (bounds[shown] >= errors[shown]).all()
    save(reduced, tmp_path / "reduced.npz", model.functions())
    again = load(tmp_path / "reduced.npz", model_functions)
    np.testing.assert_allclose(again.error_bound(mus), bounds, rtol=1e-12)
