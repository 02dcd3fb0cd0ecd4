"""Sweeps of full solves: the residual of every one of them, in an order that visits all."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.elliptic import discretise
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.problems.elliptic_sweep import path, sweep
from fem_apps.surrogates.reduced_basis import Offline, weak_greedy


def test_path_visits_every_parameter_once_and_shortens_the_way():
    mus = np.random.default_rng(0).uniform(0.1, 1, (200, 4))
    order = path(mus)
    assert sorted(order) == list(range(200))
    steps = [np.abs(np.diff(np.log(mus[o]), axis=0)).sum() for o in (order, np.arange(200))]
    assert steps[0] < 0.7 * steps[1]


@pytest.mark.parametrize("size", [3, 25])
def test_every_solution_is_one_of_the_full_problem(size):
    data = build(MPI.COMM_SELF, MeshCase(geometry="blocks", parameters={"h": 0.1}))
    D = discretise(data, Equation(boundary=[{"on": "boundary", "value": "x"}]))
    offline = Offline(EllipticModel(D))
    rng = np.random.default_rng(0)
    weak_greedy(offline, rng.uniform(0.1, 1, (60, 4)), size)
    mus = rng.uniform(0.1, 1, (40, 4))
    found = dict(sweep(D, offline.reduced(), offline.basis.vectors, mus, 1e-9))
    assert sorted(found) == list(range(40))
    for k, u in found.items():
        exact = D.solve(mus[k], rtol=1e-13)
        assert np.abs(u - exact).max() < 1e-6 * np.abs(exact).max()
    with pytest.raises(CaseError, match="y1 = 7"):
        next(sweep(D, offline.reduced(), offline.basis.vectors, np.full((1, 4), 7.0), 1e-9))
