"""Networks and training of denoisers, with tiny budgets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fem_apps.surrogates import score
from fem_apps.surrogates.score_images import make_images
from fem_apps.surrogates.score_training import ImagePrior, trained_denoiser, training_images
from fem_apps.surrogates.training import Training
from fem_apps.surrogates.unet import Network, check_size, new_unet, parameters

SMALL = Network(channels=(8, 16), patch=2)


def test_convolution_is_a_convolution():
    from fem_apps.surrogates.unet import Conv

    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3), jnp.float32)
    for size, stride in ((3, 1), (2, 2), (1, 1)):
        conv = Conv(size, 3, 5, jax.random.key(1), stride=stride)
        want = jax.lax.conv_general_dilated(
            x, conv.kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        np.testing.assert_allclose(conv(x), want, atol=1e-5)


def test_sizes():
    unet = new_unet(SMALL, 1, 1, jax.random.key(0))
    assert unet(jnp.zeros((2, 16, 16, 1), jnp.float32)).shape == (2, 16, 16, 1)
    assert parameters(unet) < 20000
    with pytest.raises(ValueError, match="multiple of 4"):
        check_size(SMALL, 18)


@pytest.mark.parametrize("family", ["ellipses", "gaussian-field", "level-set", "photographs"])
def test_images(family):
    a = make_images(family, 60, 16, seed=1)
    np.testing.assert_array_equal(a, make_images(family, 60, 16, seed=1))
    assert np.abs(a - make_images(family, 60, 16, seed=2)).max() > 0.1
    if family == "gaussian-field":
        assert abs(a.var() - 1) < 0.15
    if family == "photographs":
        assert 0 <= a.min() < a.max() <= 1


def test_training_denoises(tmp_path, monkeypatch):
    """On Gaussian fields the loss tends to the LMMSE one; weights come back from the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prior = ImagePrior(
        family="gaussian-field",
        size=8,
        images=400,
        network=SMALL,
        training=Training(steps=120, batch=32, rate=4e-3, average=0.9),
    )
    images = training_images(prior)
    untrained = score.new_denoiser(SMALL, images, 0)
    model, path = trained_denoiser(prior, images)
    assert path.is_file()
    again, _ = trained_denoiser(prior, images)
    np.testing.assert_array_equal(again.network.last.kernel, model.network.last.kernel)
    x = make_images("gaussian-field", 200, 8, 9).reshape(200, -1)
    s = 0.5
    noisy = x + s * np.random.default_rng(0).normal(size=x.shape)

    def error(f):
        return float(np.mean((np.asarray(f(jnp.asarray(noisy), s)) - x) ** 2))

    assert error(model) < 0.75 * error(untrained)
    assert error(model) < 0.7 * s**2
    # float64 in, float64 out; a level for each row
    out = model(jnp.asarray(noisy), jnp.full(200, s))
    assert out.dtype == jnp.float64
    np.testing.assert_allclose(out, model(jnp.asarray(noisy), s), atol=1e-6)
