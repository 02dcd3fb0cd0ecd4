"""Elliptic problems and their reduced bases on any number of ranks equal those on one."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.meshing import MeshCase, build
from fem_apps.mpi import total
from fem_apps.problems.elliptic import discretise, make_space
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_interpolated import interpolate_diffusion
from fem_apps.problems.elliptic_random_field import expansion
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.surrogates.reduced_basis import Offline, pod, weak_greedy

COMM = MPI.COMM_WORLD
MUS = np.random.default_rng(0).uniform(0.1, 1, (60, 4))


def mesh(comm, h=0.1):
    return build(comm, MeshCase(geometry="blocks", parameters={"h": h}))


def equation(**more):
    return Equation(
        boundary=[
            {"on": "left", "value": "y"},
            {"on": "top", "type": "robin", "coefficient": [{}], "flux": [{"value": "x"}]},
        ],
        quantities=[{"name": "mean"}],
        **more,
    )


def numbers(comm):
    """Quantities, a gradient, and everything of a greedy basis that a user sees."""
    D = discretise(mesh(comm), equation(), 2, rtol=1e-13)
    u = D.solve(MUS[0])
    q = total(comm, float(D.quantities[0] @ u))
    g = D.gradient(MUS[0], u, D.adjoint(MUS[0], D.quantities[0]))
    D.matrix.combine(D.theta(MUS[0]))
    model = EllipticModel(D, "energy")
    offline = Offline(model)
    steps = weak_greedy(offline, MUS[:40], 5)
    reduced = offline.reduced()
    _, sigma = pod(model, np.array([model.solve(m) for m in MUS[:4]]), 3)
    return [
        q, *g, *[s.largest for s in steps], *[s.index for s in steps],
        *reduced.error_bound(MUS[40:]), *reduced.quantities(MUS[40:])[:, 0], *sigma,
    ]  # fmt: skip


def test_same_numbers():
    np.testing.assert_allclose(numbers(COMM), numbers(MPI.COMM_SELF), rtol=1e-6)


def interpolated(comm):
    e = Equation(diffusion={"type": "log-normal", "terms": 3, "length": 0.5})
    mus = np.random.default_rng(1).standard_normal((25, 3)).clip(-2, 2)
    exact = interpolate_diffusion(mesh(comm), e, 1, mus, size=8, tolerance=0.0)
    model = EllipticModel(exact.D, None, exact)
    offline = Offline(model)
    weak_greedy(offline, mus, 3)
    reduced = offline.reduced()
    return [
        *exact.errors, *exact.interpolation.features.ravel(), *reduced.error_bound(mus),
        *expansion(make_space(mesh(comm), e), e.diffusion)[0],
    ]  # fmt: skip


def test_same_interpolation():
    np.testing.assert_allclose(
        interpolated(COMM), interpolated(MPI.COMM_SELF), rtol=1e-5, atol=1e-9
    )


def test_an_error_is_every_ranks():
    D = discretise(mesh(COMM), Equation())
    with pytest.raises(CaseError, match="not positive"):
        D.solve([1.0, 1.0, 1.0, -1.0])
    with pytest.raises(CaseError, match="lid"):
        discretise(mesh(COMM), Equation(boundary=[{"on": "lid"}]))
