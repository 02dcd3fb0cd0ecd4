"""Tables of eigenvalues, growth rates, mode switches and bifurcations (reference values)."""

import numpy as np
import pytest

from fem_apps.attention import funk_hecke as fh


@pytest.mark.parametrize(
    ("d", "values"),
    [
        (2, [2.8296056, 2.0978000, 1.0054317, 0.3492232]),
        (3, [2.1465051, 1.2568328, 0.5071580, 0.1543155]),
    ],
)
def test_eigenvalues(d, values):
    assert fh.eigenvalues(2.3, d, 4) * np.exp(2.3) == pytest.approx(values, abs=1e-7)


@pytest.mark.parametrize("d", [2, 3, 5, 16, 300])
def test_expansion_of_the_kernel(d):
    """The kernel is the sum of its modes, and the eigenvalues are projections of the kernel."""
    beta, count = 4.0, 60
    t, w = fh.zonal_quadrature(d, 100)
    P, lam = fh.zonal_polynomials(d, count, t), fh.eigenvalues(beta, d, count)
    kernel = np.exp(beta * (t - 1))
    assert P @ (w * kernel) == pytest.approx(lam, abs=1e-13)
    if d < 300:
        assert (fh.multiplicities(d, count) * lam) @ P == pytest.approx(kernel, abs=1e-11)


def test_growth_rates():
    usa = fh.growth_rates(5, 2, 4, "unnormalised")
    assert usa[1:] == pytest.approx([4.86713, 14.00449, 18.59607], rel=1e-6)
    assert fh.growth_rates(5, 2, 4)[3] == pytest.approx(0.682678, rel=2e-6)
    assert fh.growth_rates(2, 2, 3, "unnormalised")[2] == pytest.approx(1.377897, rel=1e-6)
    assert fh.growth_rates(5, 2, 4, "unnormalised", 0.3)[3] == pytest.approx(15.896070, rel=1e-7)
    assert fh.growth_rates(5, 2, 4, "softmax", 0.3)[3] == pytest.approx(-2.017322, rel=1e-6)
    s2 = fh.growth_rates(5, 3, 6, "unnormalised")
    assert s2[[1, 3, 5]] == pytest.approx([4.74954, 9.97809, 4.47085], rel=1e-5)


def test_fastest_mode_and_switches():
    betas = (1, 2, 3, 4, 5, 6, 7, 10, 15, 30, 50)
    assert [fh.fastest_mode(b, 2) for b in betas] == [1, 2, 2, 3, 3, 3, 4, 4, 5, 8, 10]
    circle = [fh.mode_switch(k, 2) for k in (1, 2, 4, 6)]
    assert circle == pytest.approx([1.0445, 3.1654, 10.2285, 21.2405], abs=6e-5)
    sphere = [fh.mode_switch(k, 3) for k in (1, 3, 4, 6)]
    assert sphere == pytest.approx([1.8162, 7.9624, 12.4774, 24.4891], abs=6e-5)


@pytest.mark.parametrize(
    ("beta", "d", "values"),
    [
        (1, 2, [0.565159, 0.135748, 0.0221684]),
        (2, 2, [0.795318]),
        (5, 2, [4.86713, 3.50112, 2.06623]),
        (1, 3, [0.367879, 0.0715629, 0.0100651]),
        (2, 3, [0.487191]),
        (5, 3, [2.37477, 1.543265, 0.831507]),
    ],
)
def test_bifurcations(beta, d, values):
    assert fh.bifurcations(beta, d, len(values)) == pytest.approx(values, rel=3e-6)


def test_small_beta_limit():
    assert fh.bifurcations(1e-6, 7, 1)[0] == pytest.approx(1 / 7, rel=1e-5)


def test_sharp_beta():
    found = [fh.sharp_beta(d) for d in (2, 3, 5, 8, 32, 128)]
    values = [2.446918, 1.816155, 1.445485, 1.266553, 1.063481, 1.015686]
    assert found == pytest.approx(values, abs=1e-6)
    assert fh.sharp_beta(1000) == pytest.approx(1, abs=3e-3)
