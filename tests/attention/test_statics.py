"""Branches, jumps, energies with a matrix D, the porous-medium transition (reference values)."""

import numpy as np
import pytest

from fem_apps.attention import bifurcation as bf
from fem_apps.attention import funk_hecke as fh
from fem_apps.attention import layer_norm_energy as le
from fem_apps.attention.porous import critical_repulsion, porous_state
from fem_apps.errors import CaseError, SolveError


@pytest.mark.parametrize(
    ("d", "beta", "kappa_1", "kappa_c", "kappa_s", "m"),
    [
        (2, 3, 1.317790, 1.329455, 1.332871, 0.4815),
        (2, 5, 4.867128, 5.319833, 5.425916, 0.7480),
        (2, 7, 22.291299, 26.410802, 27.304112, 0.8224),
        (3, 2, 0.487191, 0.488715, 0.489197, 0.3968),
        (3, 3, 0.747597, 0.810541, 0.827508, 0.7623),
        (3, 4, 1.280360, 1.549547, 1.617410, 0.8586),
        (3, 7, 9.591554, 15.733353, 17.217620, 0.9411),
    ],
)
def test_jumps(d, beta, kappa_1, kappa_c, kappa_s, m):
    found = bf.transition(bf.branch(beta, d))
    assert not found.continuous
    values = (found.kappa_1, found.kappa_c, found.kappa_s)
    assert values == pytest.approx((kappa_1, kappa_c, kappa_s), abs=6e-7 * 10)
    assert found.order_parameter == pytest.approx(m, abs=6e-5)


def test_continuous_transition_and_amplitude_law():
    b = bf.branch(1, 2)
    found = bf.transition(b)
    assert found.continuous
    assert found.kappa_c == found.kappa_1
    ((m, _),) = bf.states_at(b, found.kappa_1 / 1.005)
    assert m == pytest.approx(0.120283, abs=1e-6)
    lam = fh.eigenvalues(1, 2, 3)
    r = lam[2] / lam[1]
    law = np.sqrt(0.005 * 2 * (1 - r) / (1 - 2 * r))
    assert law == pytest.approx(0.120924, abs=1e-6)


def test_coexistence():
    unstable, stable = bf.states_at(bf.branch(5, 2), 5.0)
    assert unstable == pytest.approx((0.197762, 0.0026098), abs=1e-6)
    assert stable == pytest.approx((0.851060, -0.330992), abs=1e-6)


def test_states_solve_their_equation():
    """rho = exp(k*rho / (beta kappa))/Z on the circle, with k*rho by a sum over angles."""
    b = bf.branch(3, 2, states=40)
    phi = 2 * np.pi * np.arange(400) / 400
    rho = b.density(25, np.cos(phi))
    field = np.exp(3 * np.cos(phi[:, None] - phi)) @ rho / 400
    again = np.exp(field / (3 * b.kappa[25]))
    assert again / again.mean() == pytest.approx(rho, rel=1e-10)
    soft = bf.branch(3, 2, "softmax", states=40)
    rho = soft.density(25, np.cos(phi))
    again = (np.exp(3 * np.cos(phi[:, None] - phi)) @ rho) ** (1 / (3 * soft.kappa[25]))
    assert again / again.mean() == pytest.approx(rho, rel=1e-10)


def test_branch_in_high_dimension():
    found = bf.transition(bf.branch(2.0, 20))
    assert not found.continuous
    assert found.kappa_1 < found.kappa_c < found.kappa_s


@pytest.mark.parametrize(
    ("d2", "a2", "energy"),
    [
        (0.9, -0.21759, 1.2365626),
        (1.05, 0.10167, 1.2798744),
        (1.1, 0.19848, None),
        (1.2, 0.37765, 1.3174332),
        (1.3, 0.53817, 1.3393340),
        (2, None, 1.4381957),
        (5, None, 1.5250879),
    ],
)
def test_minimiser_on_circle(d2, a2, energy):
    found = le.minimise_on_sphere(np.diag([1.0, d2]), 180)
    phi = np.arctan2(found.points[:, 1], found.points[:, 0])
    assert found.gap < 1e-8
    if energy is not None:
        assert found.energy == pytest.approx(energy, abs=6e-8)
    moment = 2 * found.moment(np.cos(2 * phi))
    angles, rho = le.circle_density(1.0, d2)
    assert 2 * (rho * np.cos(2 * angles)).mean() == pytest.approx(moment, abs=1e-8)
    if a2 is not None:
        assert moment == pytest.approx(a2, abs=1e-5)


def test_fourth_amplitude():
    angles, rho = le.circle_density(1.0, 1.3)
    assert 2 * (rho * np.cos(4 * angles)).mean() == pytest.approx(0.07755, abs=1e-5)


def test_axisymmetric_minimisers():
    found = [le.minimise_axisymmetric(1, b, 80).energy for b in (0.25, 1, 4)]
    assert found == pytest.approx([1.0279495, np.sinh(1), 1.2582859], abs=2e-6)


def test_extremisers():
    assert le.maximiser(np.diag([1.0, 3, 4])).energy == pytest.approx(np.exp(4))
    pair = le.maximiser(-np.diag([1.0, 3, 4]))
    assert (pair.kind, pair.energy) == ("antipodal pair", pytest.approx(np.cosh(4)))
    crossing = np.log(np.cosh(1))
    assert crossing == pytest.approx(0.433781, abs=1e-6)
    assert le.maximiser(np.diag([-1, crossing + 1e-6])).kind == "dirac"
    assert le.maximiser(np.diag([-1, crossing - 1e-6])).kind == "antipodal pair"
    assert le.minimiser_kind(np.diag([-1.0, 2])).energy == pytest.approx(np.exp(-1))
    assert le.minimiser_kind(np.diag([0.0, 2])).energy == 1
    assert le.minimiser_kind(np.eye(2)).energy == pytest.approx(1.2660659, abs=1e-7)
    assert le.minimiser_kind(np.eye(3)).energy == pytest.approx(np.sinh(1))
    with pytest.raises(CaseError, match="symmetric"):
        le.maximiser(np.array([[1.0, 2], [0, 1]]))


def test_antipodal_thresholds():
    low, high = np.tanh(1), 1.199679
    assert low == pytest.approx(0.761594, abs=1e-6)
    for d, stable in (
        (low - 1e-5, True),
        (low + 1e-5, False),
        (high - 1e-5, False),
        (high + 1e-5, True),
    ):
        D = np.diag([d, 1.0])
        assert le.antipodal_stable(D) == stable
        assert (le.collective_hessian(D)[-1] < 0) == stable


def test_collective_hessian_by_differences():
    """Second differences of the energy of two equal masses, moved together and apart."""
    L, l, h = 1.0, 0.7, 1e-3
    D = np.diag([l, L])

    def energy(s, t):
        x = np.array([[np.sin(s), np.cos(s)], [-np.sin(t), -np.cos(t)]])
        return np.exp(x @ D @ x.T).mean()

    e0 = energy(0, 0)
    found = [(energy(h, s * h) - 2 * e0 + energy(-h, -s * h)) / (2 * h * h) for s in (1, -1)]
    expected = np.sort(le.collective_hessian(D))
    assert np.sort(found) == pytest.approx(expected, rel=1e-5)


def test_four_particles():
    found = [le.four_particles(1, d2) for d2 in (0.5, 5, 10)]
    assert found == pytest.approx([0.806294, 0.030172, 0.007598], abs=6e-7)


def test_first_order_amplitude():
    assert le.first_order_amplitude(2) / 2 == pytest.approx(2.081653, abs=1e-6)
    phi, rho = le.circle_density(1.0, 1.001)
    slope = 2 * (rho * np.cos(2 * phi)).mean() / 0.001
    assert slope == pytest.approx(2.081653, rel=2e-3)


def test_porous_medium():
    state = porous_state(2, 2, 0.9 * critical_repulsion(2, 2))
    assert state.m == pytest.approx(0.64724, abs=1e-5)
    assert state.energy == pytest.approx(-0.028002, abs=1e-6)
    assert state.support == pytest.approx(0.711, abs=1e-3)
    for d in (2, 3):  # the jump to 1/d
        near = porous_state(2, d, 0.9999 * critical_repulsion(2, d), points=1500)
        assert near.m == pytest.approx(1 / d, rel=2e-2)
    with pytest.raises(SolveError, match="uniform"):
        porous_state(2, 2, 1.1 * critical_repulsion(2, 2))


BAD = {
    "beta": ("beta = 3", "beta = 0", "beta"),
    "d": ("d = 2", "d = 1", "d = 1"),
    "not symmetric": ("[[1, 0], [0, 2]]", "[[1, 1], [0, 2]]", "symmetric"),
    "another size": ("[[1, 0], [0, 2]]", "[[1]]", "2 x 2"),
    "NaN": ("beta = 3", "beta = nan", "beta"),
    "covariance": (None, "sigma = [[1, 0], [0, -1]]", "negative eigenvalue"),
    "unlike": (None, "[attention]\nlayer_norm = false\nQ = [[1, 0]]", "alike"),
    "does not close": (
        None,
        'd = 2\n[attention]\nlayer_norm = false\nvariant = "sigmoid"',
        "affine",
    ),
    "on the sphere": (None, "d = 2\n[attention]\nlayer_norm = true", "layer_norm"),
    "no dimension": (None, "", "dimension"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path, capsys, monkeypatch):
    """One line and status 2, of attention-statics and of gaussian-attention."""
    from fem_apps.cli import main

    old, new, named = BAD[name]
    good = 'kind = "attention-statics"\nd = 2\nbeta = 3\n[landscape]\nD = [[1, 0], [0, 2]]\n'
    text = good.replace(old, new) if old else f'kind = "gaussian-attention"\n{new}\n'
    case = tmp_path / "case.toml"
    case.write_text(text)
    monkeypatch.setattr("sys.argv", ["fem-apps", "run", str(case), "--out", str(tmp_path / "r")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("fem-apps:")]
    assert len(said) == 1
    assert named in said[0]
