"""POD-NN fits a smooth map from parameters to coefficients."""

import jax
import numpy as np

from fem_apps.surrogates.pod_nn import PerceptronTable, loss, pod_nn, predict
from fem_apps.surrogates.training import Training, fit


def test_smooth_coefficients_are_learnt():
    rng = np.random.default_rng(0)
    mu = rng.uniform(0.1, 1, (300, 2))
    c = np.stack([1 / (mu[:, 0] + mu[:, 1]), mu[:, 0] * mu[:, 1], 5 + 0 * mu[:, 0]], axis=1)
    model = pod_nn(
        jax.random.key(0), {"a": (0.1, 1), "b": (0.1, 1)}, c, PerceptronTable(width=32, depth=2)
    )
    data = (mu.astype(np.float32), c.astype(np.float32))
    model = fit(model, loss, data, Training(steps=1500, rate=5e-3), seed=0).model
    test = rng.uniform(0.15, 0.95, (50, 2))
    exact = np.stack([1 / test.sum(axis=1), test.prod(axis=1), np.full(50, 5.0)], axis=1)
    error = np.linalg.norm(predict(model, test) - exact, axis=1)
    assert error.mean() < 0.03 * model.size
