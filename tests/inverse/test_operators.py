"""Adjoints of every operator to rounding; tomography; correlated noise."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.inverse import operators as ops
from fem_apps.inverse.noisier2inverse_noise import (
    CorrelatedNoise,
    grid_symmetries,
    half_circle_symmetries,
)
from fem_apps.inverse.operators_ct import (
    ellipse_sinograms,
    fbp,
    parallel_beam,
    projection_matrix,
    ramp_filter,
    tomography,
)
from fem_apps.inverse.operators_source import (
    heat_blur,
    interval_source,
    source_to_boundary,
    source_to_sensors,
)
from fem_apps.surrogates.score_images import Ellipses, draw_ellipses

OPERATORS = {
    "blur": lambda: ops.blur(16, 1.5),
    "downsampling": lambda: ops.downsampling(16, 4),
    "masking": lambda: ops.masking(16, 0.3, 0),
    "tomography": lambda: tomography(16, parallel_beam(6, 21)),
    "source to boundary": lambda: source_to_boundary(MPI.COMM_SELF, 8, 10),
    "source to sensors": lambda: source_to_sensors(
        MPI.COMM_SELF, 8, 10, np.array([[0.1, -0.3], [0.9, 0.9], [-0.5, 0.2]])
    ),
    "heat": lambda: heat_blur(MPI.COMM_SELF, 8, 10, 0.01),
    "source on an interval": lambda: interval_source(MPI.COMM_SELF, 20)[0],
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint(name):
    A = OPERATORS[name]()
    m, n = A.shape
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, n)), rng.normal(size=(2, m))
    y, z = A.apply(jnp.asarray(x)), A.adjoint(jnp.asarray(w))
    assert y.shape == (2, m)
    assert z.shape == (2, n)
    left, right = (np.asarray(y) * w).sum(), (x * np.asarray(z)).sum()
    assert abs(left - right) < 1e-12 * np.linalg.norm(y) * np.linalg.norm(w)
    # JAX's derivative is the adjoint
    _, pull = jax.vjp(A.apply, jnp.asarray(x))
    np.testing.assert_allclose(pull(jnp.asarray(w))[0], z, atol=1e-12 * np.abs(z).max())
    np.testing.assert_allclose(x @ A.dense.T, y, atol=1e-12 * np.abs(y).max())


@pytest.mark.parametrize("name", ["blur", "downsampling", "masking", "tomography"])
def test_pseudo_inverse(name):
    A = OPERATORS[name]()
    y = np.random.default_rng(1).normal(size=(1, A.shape[1])) @ A.dense.T
    back = np.asarray(A.pseudo_inverse(y)) @ A.dense.T
    np.testing.assert_allclose(back, y, atol=1e-4 * np.abs(y).max())


def test_whitening():
    A = OPERATORS["downsampling"]()
    m = A.shape[0]
    C = np.exp(-np.abs(np.subtract.outer(np.arange(m), np.arange(m))) / 3.0)
    rng = np.random.default_rng(0)
    noise = np.linalg.cholesky(C) @ rng.normal(size=(m, 20000))
    _, white = ops.whitened(A, noise, C)
    np.testing.assert_allclose(np.cov(white), np.eye(m), atol=0.05)


def test_downsampling_refuses_a_factor_that_does_not_divide():
    with pytest.raises(CaseError, match=r"operator\.factor = 3"):
        ops.downsampling(16, 3)


def phantom():
    def row(*v):
        return np.array([v])

    return Ellipses(
        row(0.2, -0.3, 0.0),
        row(-0.1, 0.25, 0.0),
        row(0.5, 0.2, 0.9),
        row(0.25, 0.35, 0.7),
        row(np.pi / 6, -0.4, 0.3),
        row(1.7, -0.6, 1.0),
    )


def test_ellipse_sinograms_and_their_moments():
    from fem_apps.inverse.operators_ct import Geometry

    p = ellipse_sinograms(phantom(), Geometry(np.array([0.7]), np.array([0.1])))
    assert abs(p[0, 0, 0] - 2.0730410659) < 1e-10
    p = ellipse_sinograms(phantom(), Geometry(np.array([2.3]), np.array([-0.2])))
    assert abs(p[0, 0, 0] - 3.2444005991) < 1e-10
    s = np.linspace(-1.4, 1.4, 200001)
    p = ellipse_sinograms(phantom(), Geometry(np.array([0.7]), s))[0, 0]
    moments = [(s**k * p).sum() * (s[1] - s[0]) for k in range(3)]
    np.testing.assert_allclose(moments, [2.5148449192, 0.0681376668, 0.4186740914], atol=1e-6)


@pytest.mark.parametrize(
    ("N", "K", "J", "want"), [(64, 60, 91, 0.052730), (128, 180, 181, 0.033572)]
)
def test_filtered_back_projection(N, K, J, want):
    geometry = parallel_beam(K, J)
    p = ellipse_sinograms(phantom(), geometry).reshape(1, -1)
    truth = draw_ellipses(phantom(), N, subpixels=8).reshape(1, -1)
    assert abs(np.sqrt(((fbp(p, N, geometry) - truth) ** 2).mean()) - want) < 5e-6


def test_projector_agrees_with_line_integrals():
    """Projection of the pixels tends to the exact sinogram."""
    geometry = parallel_beam(7, 41)
    exact = ellipse_sinograms(phantom(), geometry).ravel()
    errors = []
    for N in (32, 64, 128):
        x = draw_ellipses(phantom(), N).ravel()
        errors.append(np.sqrt(((projection_matrix(N, geometry) @ x - exact) ** 2).mean()))
    assert errors[2] < 0.45 * errors[0] < 0.05


def test_ramp_filter_is_symmetric():
    h = ramp_filter(np.linspace(-1, 1, 9))
    np.testing.assert_array_equal(h, h.T)
    assert h[0, 2] == 0.0


@pytest.mark.parametrize("sigma", [0.0, 2.0, 3.0])
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_correlated_noise_has_its_law(sigma, law):
    K, J, tau = 36, 11, 0.5
    noise = CorrelatedNoise(K, J, tau, sigma, law)
    w = np.asarray(noise.draw(jax.random.key(0), 4000), float)
    C = noise.covariance
    # the marginal is tau everywhere, edges too
    np.testing.assert_allclose(np.diag(C), tau**2, rtol=5e-3 if sigma else 1e-12)
    lag = C.reshape(K, J, K, J)[5, 4, 5, 5] / tau**2
    want = {0.0: 0.0, 2.0: 0.939413, 3.0: 0.972604}[sigma]
    assert abs(lag - want) < 1e-3
    sample = w.T @ w / len(w)
    assert np.abs(sample - C).max() < 6 * tau**2 * np.sqrt(2 / len(w))
    # angles are continued by p(t + pi, s) = p(t, -s): neighbours across the end are correlated
    across = C.reshape(K, J, K, J)[K - 1, 2, 0, J - 3] / tau**2
    assert abs(across - want) < 2e-2


def test_correlated_noise_of_a_grid_of_sensors():
    K, J, tau = 12, 9, 0.5
    noise = CorrelatedNoise(K, J, tau, 2.0, half_circle=False)
    w = np.asarray(noise.draw(jax.random.key(0), 4000), float)
    C = noise.covariance
    np.testing.assert_allclose(np.diag(C), tau**2, rtol=1e-12)
    corners = C.reshape(K, J, K, J)
    assert abs(corners[5, 4, 5, 5] / tau**2 - 0.939413) < 1e-3
    # opposite edges are strangers
    assert abs(corners[K - 1, 2, 0, 2]) < 1e-3 * tau**2
    assert np.abs(w.T @ w / len(w) - C).max() < 6 * tau**2 * np.sqrt(2 / len(w))


@pytest.mark.parametrize(
    ("K", "J", "half_circle", "number"), [(12, 7, True, 48), (12, 9, False, 4), (9, 9, False, 8)]
)
def test_symmetries_leave_the_law_of_the_noise(K, J, half_circle, number):
    G = (half_circle_symmetries if half_circle else grid_symmetries)(K, J)
    assert len(np.unique(G, axis=0)) == len(G) == number
    C = CorrelatedNoise(K, J, 0.5, 1.0, half_circle=half_circle).covariance
    for g in G:
        np.testing.assert_allclose(C[np.ix_(g, g)], C, atol=1e-14)


def test_symmetries_turn_and_reflect_the_object():
    """p[g], for some g, is the sinogram of the ellipses turned by k pi/K, or of their mirror's."""
    geometry, e = parallel_beam(12, 21), phantom()
    p = ellipse_sinograms(e, geometry).ravel()
    found = p[half_circle_symmetries(12, 21)]
    for k in range(24):
        for mirror in (1, -1):
            turn = k * np.pi / 12
            c, s = np.cos(turn), np.sin(turn)
            moved = replace(
                e,
                x=c * e.x - s * mirror * e.y,
                y=s * e.x + c * mirror * e.y,
                angle=mirror * e.angle + turn,
            )
            want = ellipse_sinograms(moved, geometry).ravel()
            assert np.abs(found - want).max(axis=1).min() < 1e-12


def test_gain_of_filtered_back_projection():
    """Image noise over sinogram noise in the disc: 2.548 (white), 1.140 (sigma 3)."""
    geometry = parallel_beam(60, 91)
    p = -1 + (2 * np.arange(64) + 1) / 64
    disc = (np.hypot(*np.meshgrid(p, p)) < 1).ravel()
    for sigma, want in ((0.0, 2.548), (3.0, 1.140)):
        w = CorrelatedNoise(60, 91, 1.0, sigma).draw(jax.random.key(1), 60)
        std = fbp(np.asarray(w, float), 64, geometry)[:, disc].std()
        assert abs(std - want) < 0.06 * want
