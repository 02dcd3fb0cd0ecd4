"""Lifetimes, equiangular times, Kuramoto, constants of the metastability theorem."""

import numpy as np
import pytest

from fem_apps.attention import closed_forms as cf


def test_lifetimes():
    half = np.pi / 2
    found = [cf.two_cluster_time(b, half) for b in (0, 1, 4, 8, 12, 20)]
    values = [3.8002, 4.27107, 10.8312, 196.716, 6889.03, 1.21918e7]
    assert found == pytest.approx(values, rel=1e-5)
    assert cf.two_cluster_time(4, half, "scaled") == pytest.approx(17.8622, rel=1e-5)
    assert cf.two_cluster_time(12, half, "scaled") == pytest.approx(13774.3, rel=1e-5)
    assert cf.two_cluster_time(4, 2 * np.pi / 3) == pytest.approx(61.3217, rel=1e-5)
    assert cf.two_cluster_time(12, 2 * np.pi / 3) == pytest.approx(3.35405e6, rel=1e-5)


def test_causal():
    assert cf.causal_time(1, np.pi / 2) == pytest.approx(8.54214, rel=1e-5)
    assert cf.causal_time(8, np.pi / 2) == pytest.approx(393.43238, rel=1e-7)


def test_equiangular():
    sa = [cf.equiangular_time(b, 32) for b in (0.1, 2, 4, 6, 8)]
    assert sa == pytest.approx([5.1921, 5.4584, 6.9535, 15.9953, 73.4457], rel=1e-5)
    longer = [cf.equiangular_time(b, 128) for b in (1, 6, 9)]
    assert longer == pytest.approx([5.9090, 10.3530, 82.5934], rel=1e-5)
    usa = [cf.equiangular_time(b, 32, "unnormalised") for b in (0.1, 2, 8)]
    assert usa == pytest.approx([4.86072, 1.88042, 0.73449], rel=1e-5)


def test_kuramoto_order():
    assert cf.kuramoto_order(0.3, 2) == pytest.approx(0.6497905376, abs=1e-10)


def test_theorem_constants():
    m = cf.metastability(2 * np.pi / 3, 30, 20, 0.01)
    assert m.alpha == pytest.approx(-0.12262, abs=1e-5)
    assert m.gamma == pytest.approx(0.43758, abs=1e-5)
    assert m.t1 == pytest.approx(1260.8, abs=0.1)
    assert m.t2 == pytest.approx(1.8786e6, rel=1e-4)
    assert cf.metastability(2 * np.pi / 3, 30, 11.59, 0.01).gamma < 0
    assert cf.metastability(2 * np.pi / 3, 30, 11.7, 0.01).gamma > 0
