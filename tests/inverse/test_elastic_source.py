"""Inverse elastic scattering: Taylor tests of the domain derivative, recovery, bad input."""

import numpy as np
import pytest

from fem_apps.case import validate
from fem_apps.errors import CaseError
from fem_apps.fundamental import kupradze, sphere
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.surfaces import fibonacci
from fem_apps.fundamental.vector_waves import sphere_rule
from fem_apps.inverse.elastic_source import check_radius
from fem_apps.inverse.elastic_source_forward import Forward, Receivers, Star, real_harmonics
from fem_apps.inverse.elastic_source_run import with_noise
from fem_apps.inverse.elastic_source_sampling import (
    all_waves,
    factorisation,
    far_field_operator,
    grid,
    linear_sampling,
    peaks,
    sampling,
)
from fem_apps.inverse.elastic_source_solve import gauss_newton, locate_sources

MEDIUM = Medium(2.0, 1.0, 1.0, 2.0)
WAVES = (PlaneWave(), PlaneWave((1, 0, 0), (0, 1, 0)))


def test_real_harmonics_are_orthonormal():
    d = fibonacci(5000)
    Y = real_harmonics(4, d)
    assert np.abs(4 * np.pi / 5000 * Y.T @ Y - np.eye(25)).max() < 2e-3


def test_normals_of_stars():
    star = Star(3)
    p = np.random.default_rng(0).normal(size=star.size) * 0.1
    d = fibonacci(50)
    _, normal, _ = star.boundary(p, d)
    for e in np.eye(3):
        t = np.cross(d, e)  # tangents of the boundary by differences
        step = 1e-5
        ends = []
        for s in (step, -step):
            m = d + s * t
            m /= np.linalg.norm(m, axis=1)[:, None]
            ends.append(star.boundary(p, m)[0])
        assert np.abs(np.einsum("na,na->n", ends[0] - ends[1], normal)).max() < 1e-8


@pytest.mark.parametrize("far", [True, False])
def test_domain_derivative_passes_taylor(far):
    star = Star(2)
    rng = np.random.default_rng(1)
    p = star.sphere(np.array([0.2, -0.1, 0.1]), 0.9)
    p[4:] += 0.05 * rng.normal(size=star.size - 4)
    receivers = Receivers((1 if far else 4) * fibonacci(15), far)
    forward = Forward(MEDIUM, WAVES, receivers, star, 200, 0.4)
    value, slope = forward.with_derivative(p)
    h = rng.normal(size=star.size)
    h /= np.linalg.norm(h)
    rest = [
        np.linalg.norm(forward(p + t * h) - value - t * slope @ h) / np.linalg.norm(value)
        for t in (0.02, 0.01)
    ]
    assert 3.5 < rest[0] / rest[1] < 4.5  # second order
    central = (forward(p + 1e-3 * h) - forward(p - 1e-3 * h)) / 2e-3
    assert np.linalg.norm(slope @ h - central) < 1e-4 * np.linalg.norm(central)


def test_derivative_of_the_cross_section_of_a_sphere():
    """Published: d sigma/da = 15.104766 (P wave, rigid, a = 1)."""
    sections = [sphere.scatter(MEDIUM, WAVES[0], radius=a).cross_section() for a in (1.001, 0.999)]
    assert abs((sections[0] - sections[1]) / 0.002 - 15.104766) < 1e-4


def test_sphere_without_noise():
    receivers = Receivers(fibonacci(20))
    exact = [sphere.scatter(MEDIUM, w, radius=0.8, centre=(0.3, -0.2, 0.1)) for w in WAVES]
    data = np.stack([receivers.of_far_field(*s.far_field(receivers.x)) for s in exact])
    star = Star(0)
    forward = Forward(MEDIUM, WAVES, receivers, star, 120, 0.4)
    found = gauss_newton(forward, data, star.sphere(np.zeros(3), 1.0), noise=0.0)
    assert np.abs(found.p[:3] - [0.3, -0.2, 0.1]).max() < 1e-5
    assert abs(star.radius(found.p, fibonacci(1))[0] - 0.8) < 1e-5
    assert len(found.residuals) < 10


@pytest.mark.parametrize("far", [True, False])
def test_sources(far):
    medium = Medium(2, 1, 1, 6)
    true = np.array([[0.6, -0.4, 0.3], [-0.7, 0.5, 0.1]])
    f = np.array([[1, 0, 0.5], [0, 1, -1]]) + 0j
    receivers = Receivers((1 if far else 4) * fibonacci(60), far)
    data = receivers.matrix(medium, true) @ f.ravel()
    z = grid(1.5, 21)
    first = peaks(sampling(medium, receivers, data[None], z), z, 2)
    y, force, residual = locate_sources(medium, receivers, data, first)
    order = np.argsort(-y[:, 0])
    assert residual < 1e-8
    assert np.abs(y[order] - true).max() < 1e-7
    assert np.abs(force[order] - f).max() < 1e-6


def test_measured_components_are_those_of_the_field():
    receivers = Receivers(fibonacci(9))
    y, f = np.array([[0.1, 0.2, -0.1]]), np.array([[1.0, 2.0, 3.0]])
    direct = receivers.of_far_field(*kupradze.far_field(MEDIUM, receivers.x, y, f))
    assert np.abs(receivers.matrix(MEDIUM, y) @ f.ravel() - direct).max() < 1e-15


def all_far_fields(receivers, radius, centre):
    """Exact far fields of a rigid sphere for P and S waves from all directions."""
    out = []
    for w in all_waves(receivers):
        s = sphere.scatter(MEDIUM, w, radius=radius, centre=centre)
        out.append(receivers.of_far_field(*s.far_field(receivers.x)))
    return np.stack(out)


def test_far_field_operator_is_normal_and_conserves_energy():
    d, w = sphere_rule(18)
    receivers = Receivers(d)
    F = far_field_operator(MEDIUM, receivers, all_far_fields(receivers, 0.6, (0.2, 0.1, -0.1)), w)
    S = np.eye(len(F)) + 1j / (2 * np.pi) * F
    assert np.abs(S.conj().T @ S - np.eye(len(F))).max() < 1e-8
    assert np.abs(F @ F.conj().T - F.conj().T @ F).max() < 1e-7 * np.linalg.norm(F, 2) ** 2


@pytest.mark.parametrize("method", [factorisation, linear_sampling])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_sampling_methods_find_a_sphere(method, noise):
    centre, radius = np.array([0.4, -0.3, 0.2]), 0.7
    receivers = Receivers(fibonacci(60))
    data = with_noise(all_far_fields(receivers, radius, tuple(centre)), noise, 3)
    z = grid(1.6, 17)
    indicator = method(MEDIUM, receivers, data, z, noise)
    inside = np.linalg.norm(z - centre, axis=1) < radius
    # the volume of the sphere, filled with the highest values, is mostly the sphere itself
    highest = np.argsort(-indicator)[: inside.sum()]
    assert inside[highest].mean() > 0.8
    weight = indicator**4
    assert np.linalg.norm(weight @ z / weight.sum() - centre) < 0.1


RAW = {
    "kind": "elastic-inverse",
    "medium": {"omega": 4},
    "incident": [{"type": "P"}],
    "truth": {"type": "sphere", "centre": [0, 0, 0], "radius": 1},
}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"medium": {"omega": 0}}, "omega = 0"),
        ({"incident": []}, "incident"),
        ({"truth": {"type": "sphere", "centre": [0, 0, 0], "radius": 0}}, "radius"),
        ({"measurement": {"type": "near-field", "radius": 0.5}}, "outside"),
        ({"measurement": {"noise": -1}}, "noise"),
        ({"start": {"method": "linear"}, "measurement": {"type": "near-field"}}, "far fields"),
    ],
)
def test_bad_cases(changes, word):
    with pytest.raises(CaseError, match=word):
        validate(RAW | changes)


def test_radius_that_is_not_positive():
    with pytest.raises(CaseError, match="positive in every direction"):
        check_radius(np.array([1.0, -0.1]), "x")
