"""Reduced bases with the exact operator: jumps that move, bounds without estimates."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.problems.elliptic_exact import ExactOffline
from fem_apps.problems.elliptic_interpolated import interpolate_diffusion
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.surrogates.reduced_basis import weak_greedy

MOVING = {"type": "cookies", "s": 1, "radius": [0.5, 0.9]}
ENDS = [{"on": "left", "value": "y"}, {"on": "right", "type": "robin", "coefficient": [{}]}]


def model_of(product=None, **more):
    data = build(MPI.COMM_SELF, MeshCase(geometry="structured_rectangle", parameters={"h": 0.1}))
    equation = Equation(diffusion=MOVING, **more)
    exact = interpolate_diffusion(data, equation, 1, np.array([[0.5, 0.7]]), size=0, tolerance=0)
    return EllipticModel(exact.D, product, exact)


@pytest.mark.parametrize(
    ("product", "more"),
    [(None, {}), (None, {"boundary": ENDS}), ("energy", {"boundary": ENDS, "reaction": [{}]})],
)
def test_bounds_hold_and_snapshots_are_reproduced(product, more):
    model = model_of(product, **more)
    offline = ExactOffline(model)
    rng = np.random.default_rng(0)
    training, tests = (rng.uniform([0, 0.5], [1, 0.9], (n, 2)) for n in (30, 40))
    steps = weak_greedy(offline, training, 6)
    U = np.array([model.solve(mu) for mu in tests])
    means = []
    for n in (2, 6):
        reduced = offline.reduced().of_size(n)
        c = reduced.coefficients(tests)
        errors = np.array([model.norm(u - reduced.vectors @ x) for u, x in zip(U, c, strict=True)])
        bounds = reduced.error_bound(tests, c)
        assert (bounds >= errors * (1 - 1e-9)).all()
        assert (bounds <= 12 * errors).all()  # max a / min a is 11
        means.append(errors.mean())
    assert means[1] < 0.3 * means[0]
    seen = np.array([s.mu for s in steps[:3]])
    assert reduced.error_bound(seen).max() < 1e-9 * bounds.max() + 1e-9


def test_smaller_models_are_corners_of_the_largest():
    model = model_of()
    offline = ExactOffline(model)
    for mu in ([0.2, 0.6], [0.9, 0.8], [0.5, 0.5]):
        offline.extend(model.solve(np.array(mu)))
    mus = np.array([[0.3, 0.7]])
    full = offline.reduced()
    after = full.coefficients(mus), full.of_size(2).coefficients(mus)
    fresh = offline.reduced().of_size(2).coefficients(mus)
    np.testing.assert_allclose(after[1], fresh, rtol=1e-12)
    with pytest.raises(CaseError, match="N = 4"):
        full.of_size(4)
    with pytest.raises(CaseError, match="r1 = 2"):
        full.check(np.array([[0.3, 2.0]]))


def test_a_field_that_is_not_positive_names_the_parameters():
    model = model_of()
    offline = ExactOffline(model)
    offline.extend(model.solve(np.array([0.5, 0.7])))
    with pytest.raises(CaseError, match=r"not positive.*y1 = -2"):
        offline.reduced().coefficients(np.array([[-2.0, 0.7]]))


def test_a_clipped_polynomial_keeps_its_bound():
    """T4: theta of no affine form exists."""
    data = build(MPI.COMM_SELF, MeshCase(geometry="structured_rectangle", parameters={"h": 0.1}))
    equation = Equation(diffusion={"type": "polynomial", "k": 1})
    exact = interpolate_diffusion(data, equation, 1, np.zeros((1, 3)), size=0, tolerance=0)
    model = EllipticModel(exact.D, None, exact)
    assert model.bound(np.zeros((2, 3))).shape == (2,)
    offline = ExactOffline(model)
    rng = np.random.default_rng(0)
    weak_greedy(offline, rng.uniform(-1, 1, (20, 3)), 5)
    reduced = offline.reduced()
    for mu in rng.uniform(-1, 1, (10, 3)):
        c = reduced.coefficients(mu[None])
        error = model.norm(model.solve(mu) - reduced.vectors @ c[0])
        bound = reduced.error_bound(mu[None], c)[0]
        assert error <= bound + 1e-10 * model.norm(model.solve(mu)), (error, bound)
