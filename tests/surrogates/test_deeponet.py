"""DeepONet and SIMONet: known operators are learned, sets need no labels."""

import jax
import numpy as np

from fem_apps.surrogates.deeponet import (
    Architecture,
    chamfer_loss,
    deeponet,
    labelled_loss,
    linear_least_squares,
    predict,
    simonet,
)
from fem_apps.surrogates.training import Training, fit

X = np.linspace(0, 1, 21)
MODES = np.stack([np.sin(k * np.pi * X) for k in (1, 2, 3)])


def data(n, seed):
    a = np.random.default_rng(seed).normal(size=(n, 3)) / [1, 2, 3]
    return a, (a @ MODES).astype(np.float32)


def antiderivative(a):
    k = np.arange(1, 4) * np.pi
    return (a / k @ (1 - np.cos(k[:, None] * X))).astype(np.float32)


def test_deeponet_learns_the_antiderivative_and_least_squares_is_exact():
    a, u = data(300, 0)
    b, test = data(100, 1)
    values, points = antiderivative(a), X[:, None]
    model = deeponet(jax.random.key(0), u, points, values, Architecture(width=40, basis=20))
    control = Training(steps=1500, batch=300, rate=3e-3)
    fitted = fit(model, labelled_loss(points), (u, values), control, seed=0)
    exact = antiderivative(b)
    size = np.linalg.norm(exact)
    assert np.linalg.norm(predict(fitted.model, test, points) - exact) < 0.05 * size
    linear = linear_least_squares(u, values)
    assert np.linalg.norm(linear(test) - exact) < 1e-5 * size
    # what is scale and what is shift of the data is not trained
    for name in ("input_scale", "output_scale", "point_shift", "output_shift"):
        np.testing.assert_array_equal(getattr(fitted.model, name), getattr(model, name))


def test_heads_find_the_two_values_of_a_set_without_labels():
    a, u = data(200, 2)
    values = antiderivative(a)
    members = np.stack([values + 1, values - 1], axis=1)
    points = X[:, None]
    model = simonet(jax.random.key(1), u, points, members, Architecture(width=40, basis=20))
    control = Training(steps=1500, batch=200, rate=3e-3)
    order = np.random.default_rng(0).permuted(np.tile([0, 1], (200, 1)), axis=1)
    shuffled = np.take_along_axis(members, order[:, :, None], axis=1)
    fitted = fit(model, chamfer_loss(points), (u, shuffled), control, seed=0)
    heads = predict(fitted.model, u, points)
    distance = np.abs(heads[:, :, None] - members[:, None]).mean(axis=-1)
    assert distance.min(axis=1).max() < 0.25
    assert distance.min(axis=2).max() < 0.25
