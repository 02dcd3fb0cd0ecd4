"""Closed-form denoisers and posteriors against their published and derived numbers."""

import jax
import numpy as np

from fem_apps.surrogates.score_exact import Mixture, gaussian


def planar():
    return Mixture(
        np.array([0.4, 0.3, 0.3]),
        np.array([[-2.0, 0], [1, 1.5], [2, -1]]),
        np.array([[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0], [0, 0.6]], [[0.4, -0.15], [-0.15, 0.3]]]),
    )


def test_mixture_posterior():
    p = planar().posterior(np.array([[1.0, 0.5]]), np.array([0.8]), 0.4)
    np.testing.assert_allclose(p.weights, [0.015283511, 0.407242518, 0.577473970], atol=1e-9)
    want = [[-0.25, 1.166666667], [0.532786885, 1.032786885], [1.530927835, -1]]
    np.testing.assert_allclose(p.means, want, atol=1e-9)
    np.testing.assert_allclose(p.mean, [1.097223570, -0.139048475], atol=1e-9)
    C = p.covariance
    np.testing.assert_allclose(
        [C[0, 0], C[0, 1], C[1, 1]], [0.435328657, -0.659344277, 1.374395665], atol=1e-9
    )
    np.testing.assert_allclose(p.log_evidence, -1.717170872, atol=1e-9)


def test_mixture_denoiser_score_and_covariance():
    prior, x, s = planar(), np.array([[0.3, -0.2]]), 0.7
    r = prior.responsibilities(x, s)[0]
    np.testing.assert_allclose(r, [0.158618232, 0.429641044, 0.411740724], atol=1e-9)
    np.testing.assert_allclose(prior(x, s)[0], [0.656227152, 0.053673378], atol=1e-9)
    cov = s**2 * jax.jacobian(lambda v: prior(v[None], s)[0])(x[0])
    want = [[0.712157942, -0.153747671], [-0.153747671, 0.475713792]]
    np.testing.assert_allclose(cov, want, atol=1e-9)
    score = jax.grad(lambda v: prior.log_density(v[None], s)[0])(x[0])
    np.testing.assert_allclose(score, [0.726994189, 0.517700771], atol=1e-9)
    np.testing.assert_allclose(score, (prior(x, s)[0] - x[0]) / s**2, rtol=1e-12)
    np.testing.assert_allclose(prior.log_density(x, s)[0], -3.758087007, atol=1e-9)


def test_ten_dimensional_mixture():
    prior = Mixture(
        np.array([0.4, 0.3, 0.3]),
        np.array([-5.0, 0, 5])[:, None] * np.ones(10),
        np.array([np.eye(10), np.diag(np.linspace(1, 2, 10)), np.diag(np.linspace(2, 1, 10))]),
    )
    p = prior.posterior(np.eye(10)[[0, 1, 2, 4, 5, 6, 7, 9]], np.full(8, 1.5), 5.0)
    np.testing.assert_allclose(p.weights, [0.00247473, 0.81788292, 0.17964235], atol=1e-8)
    np.testing.assert_allclose(p.mean[[0, 3]], [0.88706838, 0.88583809], atol=1e-8)
    C = p.covariance
    np.testing.assert_allclose([C[0, 0], C[3, 8]], [4.43053847, 3.76821783], atol=1e-8)
    np.testing.assert_allclose(
        [np.trace(C), p.log_evidence], [48.67500919, -21.79856119], atol=1e-8
    )


def test_gaussian_deblurring():
    i = np.arange(32)
    gap = (i[:, None] - i) ** 2
    C = np.exp(-gap / 18) + 1e-6 * np.eye(32)
    A = np.exp(-gap / 4.5)
    A /= A.sum(axis=1, keepdims=True)
    y = np.sin(2 * np.pi * i / 32) + 0.5 * (np.abs(i - 20) < 4)
    p = gaussian(np.zeros(32), C).posterior(A, y, 0.2)
    m, V = p.mean, p.covariances[0]
    np.testing.assert_allclose(m[[16, 10]], [0.12598233, 0.98667449], atol=1e-8)
    misfit = ((y - A @ m) ** 2).sum() / 0.04
    np.testing.assert_allclose(misfit, 4.07170341, atol=1e-7)
    chi2 = (misfit + np.trace(A @ V @ A.T) / 0.04) / 32
    np.testing.assert_allclose(chi2, 0.41875195, atol=1e-8)
    np.testing.assert_allclose(
        [np.trace(V), V[16, 16], V[16, 17]], [0.92304660, 0.02588616, 0.01973988], atol=1e-8
    )
    np.testing.assert_allclose(p.log_evidence, 1.48632484, atol=1e-6)
