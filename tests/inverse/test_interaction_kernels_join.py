"""The error functional's estimate joined with that of trajectories: errors of known size."""

from collections import Counter

import numpy as np
import pytest

from fem_apps.inverse.interaction_kernels_functional import Quadratic
from fem_apps.inverse.interaction_kernels_join import joined
from fem_apps.inverse.interaction_kernels_selection import Selected
from fem_apps.inverse.interaction_kernels_sparse import Fit

TRUTH = np.array([0.0, 1.0, -2.0])
AT = (1, 2)
SPREAD = 0.01
RNG = np.random.default_rng(0)
NOISE = SPREAD * RNG.normal(size=(40, 3)) * (TRUTH != 0)


def by_trajectories(error):
    c = TRUTH + error
    return Selected(Fit(AT, c, 0.0), [], 1.0, c + NOISE, Counter())


def by_functional(error, noise):
    """Its minimum on the support is TRUTH + error; the other column is parallel to none."""
    A = np.array([[1.0, 0.2, 0.1], [0.2, 2.0, 0.3], [0.1, 0.3, 1.0]])
    return Quadratic(A, A @ (TRUTH + (error + noise) * (TRUTH != 0)))


def test_what_the_discretisation_does_not_move_is_kept():
    chosen = by_trajectories(0.0)

    def never():
        raise AssertionError("resamples cost time")

    assert joined(chosen, by_functional(0.3, 0.0), 0.5 * SPREAD * (TRUTH != 0), never) is chosen


@pytest.mark.parametrize("size", [0.1, 0.4])
def test_opposite_errors_cancel_in_part(size):
    """Trajectories err by e, their shift, the functional by -e: V_t = e^2, V_f = 3 e^2."""
    e = size * np.array([0.0, 1.0, 0.5])
    others = [by_functional(-e, SPREAD * z) for z in RNG.normal(size=(8, 3))]
    found = joined(by_trajectories(e), by_functional(-e, 0.0), e, lambda: others)
    np.testing.assert_allclose(found.fit.c - TRUTH, e / 2, atol=0.02 * size)
    # the band knows of it
    error = np.abs(found.fit.c - TRUTH)[1:]
    assert (error < 1.5 * found.samples.std(axis=0)[1:].max()).all()
    assert found.samples.mean(axis=0) == pytest.approx(found.fit.c, abs=SPREAD)


def test_a_functional_without_error_takes_over():
    """The functional errs by noise alone: trajectories, 100 spreads away, count for less."""
    e = 100 * SPREAD * np.array([0.0, 1.0, 0.5])
    others = [by_functional(0.0, SPREAD * z) for z in RNG.normal(size=(8, 3))]
    found = joined(by_trajectories(e), by_functional(0.0, 0.0), 10 * e, lambda: others)
    assert np.abs(found.fit.c - TRUTH).max() < 0.6 * np.abs(e).max()
