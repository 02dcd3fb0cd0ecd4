"""The compiled stepping against plain numpy, and the diagram against the orthogonal start."""

import numpy as np
import pytest

from fem_apps.attention import phase_diagram as pd
from fem_apps.attention.clusters import close_pairs


def plain(x, beta, dt, steps, softmax):
    for _ in range(steps):
        w = np.exp(beta * x @ x.transpose(0, 2, 1))
        w /= w.sum(axis=2, keepdims=True) if softmax else x.shape[1]
        a = w @ x
        a -= (a * x).sum(axis=2, keepdims=True) * x
        x = x + dt * a
        x = x / np.linalg.norm(x, axis=2, keepdims=True)
    return x


@pytest.mark.parametrize(("d", "clouds"), [(2, 5), (2, pd.LANES), (3, 5), (16, 5)])
@pytest.mark.parametrize("softmax", [True, False])
def test_stepping(d, clouds, softmax):
    x = np.random.default_rng(d).standard_normal((clouds, 12, d))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    lanes, met = pd.lanes_of(x), np.zeros(2)
    pd.follow(lanes, d, 1.5, 0.05, 6, 0.9, softmax, met)
    expected = plain(x, 1.5, 0.05, 12, softmax)
    found = lanes.reshape(12, d + 1, clouds)[:, :d].transpose(2, 0, 1)
    assert found == pytest.approx(expected, abs=1e-13)
    pairs = close_pairs(expected @ expected.transpose(0, 2, 1), 0.9).sum() * 12 * 11 / 2
    assert met[1] == pytest.approx(pairs)


def test_orthogonal_start():
    """In 256 dimensions tokens meet when orthogonal ones do."""
    case = pd.Case(
        kind="attention-phase-diagram", n=16, d=256, batch=2, end=10, checkpoints=50, step=0.05
    )
    share = pd.row(case, 0, 3.0)
    times = case.end * np.arange(1, 51) / 50
    met = times[np.argmax(share > 0.5)]
    exact = pd.equiangular_time(3.0, 16)
    assert met == pytest.approx(exact, rel=0.1)
