"""Training: it fits, continues to the same weights, and keeps them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fem_apps.errors import Interrupted, SolveError
from fem_apps.surrogates import weights
from fem_apps.surrogates.training import Training, fit


def regression():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    y = x @ np.float32([1.0, -2.0, 0.5]) + 0.3
    model = eqx.nn.Linear(3, 1, key=jax.random.key(1))
    return model, (x, y[:, None])


def loss(model, batch, key):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def test_linear_regression_is_solved():
    model, data = regression()
    fitted = fit(model, loss, data, Training(steps=800, rate=0.05, batch=64), seed=0)
    np.testing.assert_allclose(fitted.model.weight[0], [1.0, -2.0, 0.5], atol=1e-3)
    np.testing.assert_allclose(fitted.model.bias, 0.3, atol=1e-3)
    assert fitted.history[-1, 0] == fitted.steps == 800


def test_interrupted_and_continued_gives_the_same_weights(tmp_path):
    model, data = regression()
    control = Training(steps=200, average=0.99)
    whole = fit(model, loss, data, control, seed=3)
    calls = iter([False, True])
    with pytest.raises(Interrupted):
        fit(
            *(model, loss, data, control),
            seed=3,
            state_file=tmp_path / "state.npz",
            stop=lambda: next(calls),
        )
    again = fit(model, loss, data, control, seed=3, state_file=tmp_path / "state.npz")
    np.testing.assert_array_equal(whole.model.weight, again.model.weight)
    np.testing.assert_array_equal(whole.history, again.history)
    assert not (tmp_path / "state.npz").exists()


def test_watched_models_may_be_kept():
    model, data = regression()
    seen = []
    control = Training(steps=150, average=0.99)
    fitted = fit(
        *(model, loss, data, control), seed=3, chunk=50, watch=lambda m, k: seen.append((k, m))
    )
    assert [k for k, _ in seen] == [50, 100, 150]
    errors = [float(loss(m, data, None)) for _, m in seen]
    assert errors[0] > errors[1] > errors[2]
    np.testing.assert_array_equal(seen[-1][1].weight, fitted.model.weight)


def test_divergence_is_an_error():
    model, data = regression()
    with pytest.raises(SolveError, match="loss is"):
        fit(model, lambda m, b, k: loss(m, b, k) / 0.0, data, Training(steps=60), seed=0)


def test_weights_are_kept_by_what_made_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, data = regression()
    key = weights.fingerprint(table=Training(), data=data[0], seed=1)
    assert key != weights.fingerprint(table=Training(steps=7), data=data[0], seed=1)
    assert key != weights.fingerprint(table=Training(), data=data[0] + 1, seed=1)
    other = eqx.nn.Linear(3, 1, key=jax.random.key(2))
    found, path = weights.kept(model, key, lambda: other)
    again, _ = weights.kept(model, key, lambda: pytest.fail("it is in the cache"))
    np.testing.assert_array_equal(found.weight, again.weight)
    path.write_bytes(b"damaged")
    mended, _ = weights.kept(model, key, lambda: model)
    np.testing.assert_array_equal(mended.weight, model.weight)
