"""Scalar and vector waves, the addition theorem, and exact solutions for the sphere."""

import numpy as np
import pytest
from scipy.special import spherical_jn, spherical_yn

from fem_apps.fundamental import kupradze, sphere
from fem_apps.fundamental import scalar_waves as sw
from fem_apps.fundamental.medium import Medium, PlaneWave
from fem_apps.fundamental.vector_waves import (
    VectorWaves,
    plane_wave_coefficients,
    scalar_addition_theorem,
    source_coefficients,
    sphere_rule,
)

MEDIUM = Medium(2.0, 1.0, 1.3, 3.1)
UNIT = Medium(2.0, 1.0, 1.0, 2.0)  # k_p = 1, k_s = 2
RNG = np.random.default_rng(0)


def test_bessel_and_hankel():
    x = np.array([1e-3, 0.3, np.pi, 4.4934, 10.0, 60.0])
    n = np.arange(21)
    for x0 in (0.5, 7.0):
        w = np.exp(sw.log_scale(20, x0))
        j = np.array([spherical_jn(n, t) for t in x])
        y = np.array([spherical_yn(n, t) for t in x])
        envelope = np.abs(j) + np.abs(np.roll(j, -1, axis=1))  # j_n may vanish
        assert (np.abs(sw.bessel(20, x, x0) / w - j)[:, :-1] < 1e-12 * envelope[:, :-1]).all()
        h = sw.hankel(20, x, x0) * w
        assert np.allclose(h.imag, y, rtol=1e-11, atol=1e-15)


def test_no_overflow_at_degree_400():
    """The Wronskian j_n h_(n-1) - j_(n-1) h_n = i/x^2, of scaled functions."""
    x = np.array([3.0])
    j, h = sw.bessel(400, x, 3.0)[0], sw.hankel(400, x, 3.0)[0]
    assert np.isfinite(j).all()
    assert np.isfinite(h).all()
    wronskian = (
        j[1:] * h[:-1] * 3.0 / (2 * np.arange(1, 401) + 1)
        - j[:-1] * h[1:] * (2 * np.arange(1, 401) + 1) / 3.0
    )
    assert np.abs(wronskian / (1j / 9.0) - 1).max() < 1e-12


@pytest.mark.parametrize("outgoing", [True, False])
def test_ladder_differentiates(outgoing):
    n, k, r0 = 4, 1.7, 0.8
    x = np.array([[0.5, -0.7, 0.4], [0.0, 0.0, 0.9]])  # the second on the polar axis
    D = sw.ladder(n, r0, k * r0, outgoing)
    high = sw.values(n + 1, k, x, r0, outgoing=outgoing)
    h = 1e-3
    for a in range(3):
        e = h * np.eye(3)[a]

        def u(t):
            return sw.values(n, k, t, r0, outgoing=outgoing)

        numeric = (8 * (u(x + e) - u(x - e)) - u(x + 2 * e) + u(x - 2 * e)) / (12 * h)
        exact = (D[a].T @ high.T).T
        assert np.abs(numeric - exact).max() < 1e-7 * np.abs(exact).max()


@pytest.mark.parametrize("outgoing", [True, False])
def test_vector_waves_have_the_right_divergence_and_traction(outgoing):
    w = VectorWaves(MEDIUM, 3, outgoing, 1.0, (0.1, 0.0, 0.0))
    x = np.array([[0.6, -0.7, 0.5], [0.1, 0.0, 1.1]])
    n = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])
    h = 1e-3
    grad = np.empty((2, 3, 3, w.columns), dtype=complex)
    for b in range(3):
        e = h * np.eye(3)[b]

        def u(t):
            return w.displacement(t).reshape(2, 3, -1)

        grad[:, :, b] = (8 * (u(x + e) - u(x - e)) - u(x + 2 * e) + u(x - 2 * e)) / (12 * h)
    sigma = MEDIUM.stress(np.moveaxis(grad, -1, 1))
    t = np.einsum("pkab,pb->pak", sigma, n).reshape(6, -1)
    assert np.abs(t - w.traction(x, n)).max() < 1e-7 * np.abs(t).max()
    k = (w.degree + 1) ** 2
    div = np.einsum("paak->pk", grad)
    assert np.abs(div[:, k:]).max() < 1e-7 * np.abs(grad).max()
    curl = grad[:, 2, 1, :k] - grad[:, 1, 2, :k]
    assert np.abs(curl).max() < 1e-7 * np.abs(grad).max()


def test_addition_theorems():
    y = np.array([[0.2, -0.25, 0.1], [0.0, 0.0, 0.3]])
    x = np.array([[0.7, -0.6, 0.4], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0], [1.0, 0.2, 0.0]])
    phi = kupradze.displacement(MEDIUM, x, y)
    size = np.abs(phi).max()
    errors = [
        np.abs(scalar_addition_theorem(MEDIUM, x, y, n) - phi).max() / size for n in (5, 10, 30)
    ]
    assert errors[2] < 1e-13
    assert errors[0] > errors[1] > errors[2]
    w = VectorWaves(MEDIUM, 30, True, 0.6)
    hansen = w.displacement(x) @ source_coefficients(w, y)
    assert np.abs(hansen - phi).max() / size < 1e-13


@pytest.mark.parametrize(
    "wave", [PlaneWave((1, 2, 2)), PlaneWave((1, 2, 2), (2, 1, -2)), PlaneWave()]
)
def test_plane_waves(wave):
    w = VectorWaves(MEDIUM, 25, False, 1.0, (0.3, 0.1, -0.2))
    x = RNG.uniform(-0.8, 0.8, (10, 3))
    u = w.field(x, plane_wave_coefficients(w, wave))
    assert np.abs(u - wave.displacement(MEDIUM, x)).max() < 1e-12


def test_translation():
    """Outgoing waves about one centre are regular ones about another."""
    w = VectorWaves(MEDIUM, 6, True, 1.0)
    c = RNG.normal(size=w.columns)
    there = VectorWaves(MEDIUM, 24, False, 0.8, (3.0, 0.5, 0.0))
    x = np.asarray(there.centre) + 0.5 * RNG.uniform(-1, 1, (10, 3))
    u = w.field(x, c)
    seen = sphere.expand(there, lambda at: w.field(at, c))
    assert np.abs(there.field(x, seen) - u).max() < 1e-9 * np.abs(u).max()


P, S = PlaneWave(), PlaneWave((0, 0, 1), (1, 0, 0))
TABLE = [
    (P, "rigid", (1.4807146510, 12.1281342747, 7.5447817884),
     (-.165570157+.031529629j, .124177618-.023647222j, -.088292243-.508639497j)),
    (P, "cavity", (3.8309074576, 4.3320586353, 5.9969367752),
     (-.238467279+.137818838j, .178850459-.103364129j, .174650768-.050825181j)),
    (S, "rigid", (.3790041961, 10.9228786360, 11.6808870282),
     (-.211501680-.567104307j, .144355992+.040421255j, -.126490228+.104657410j)),
    (S, "cavity", (.1353768324, 4.2103683203, 4.4811219850),
     (.108367325+.051060310j, .044165839-.062088155j, -.167045239-.142679277j)),
]  # fmt: skip


@pytest.mark.parametrize(("wave", "condition", "powers", "u"), TABLE)
def test_sphere_table(wave, condition, powers, u):
    s = sphere.scatter(UNIT, wave, condition=condition)
    found = (*s.energies(), s.cross_section())
    assert np.allclose(found, powers, rtol=0, atol=1e-9)
    assert np.allclose(s.displacement(np.array([[1.2, -0.9, 0.4]]))[0], u, rtol=0, atol=2e-9)
    # optical theorem, from the far field alone
    u_p, u_s = s.far_field(wave.d[None])
    forward = (u_s if wave.shear else u_p)[0] @ wave.a
    optical = 4 * np.pi / wave.wave_number(UNIT) * forward.imag
    assert abs(optical / s.cross_section() - 1) < 1e-12


def test_coefficients_of_the_table():
    s = sphere.scatter(UNIT, P)
    c = s.waves.unscaled(s.coefficients)
    k = (s.waves.degree + 1) ** 2
    n = np.arange(3)
    A = c[n * n + n] / np.sqrt(4 * np.pi / (2 * n + 1))
    expected = [-.208073418+.045351287j, -.4522928-.017596044j, .10446723-.099318065j]  # fmt: skip
    assert np.allclose(A, expected, rtol=0, atol=2e-9)
    n = np.arange(1, 3)
    N = c[2 * k - 1 + n * n + n - 1]
    B = N / (UNIT.k_s * np.sqrt(n * (n + 1)) * np.sqrt(4 * np.pi / (2 * n + 1)))
    expected = [-1.018130401+.339721191j, .273558309-.289430707j]  # fmt: skip
    assert np.allclose(B, expected, rtol=0, atol=2e-9)


@pytest.mark.parametrize(("wave", "value"), [(P, 7.4126067152), (S, 8.0698570437)])
def test_higher_frequency(wave, value):
    assert abs(sphere.scatter(Medium(2, 1, 1, 10), wave).cross_section() - value) < 1e-9


def test_inclusion_and_its_limits():
    inside = Medium(5.0, 3.0, 2.0, 2.0)
    s = sphere.scatter(UNIT, P, condition="inclusion", inside=inside)
    assert np.allclose(
        (*s.energies(), s.cross_section()), (0.3307412020, 2.9310162738, 1.7962493389), atol=1e-9
    )
    s = sphere.scatter(UNIT, S, condition="inclusion", inside=inside)
    assert abs(s.cross_section() - 2.8347218246) < 1e-9
    same = sphere.scatter(UNIT, P, condition="inclusion", inside=UNIT)
    assert same.cross_section() < 1e-25
    soft = sphere.scatter(UNIT, P, condition="inclusion", inside=Medium(2e-8, 1e-8, 1e-8, 2.0))
    assert abs(soft.cross_section() - 5.9969367752) < 1e-6


@pytest.mark.parametrize("condition", ["rigid", "cavity"])
def test_any_direction_is_a_rotation_and_boundary_values_vanish(condition):
    wave = PlaneWave((1, 2, 2), (2, 1, -2))
    s = sphere.scatter(UNIT, wave, condition=condition, radius=0.7, centre=(0.2, -0.1, 0.4))
    n = sphere_rule(8)[0]
    x = np.array([0.2, -0.1, 0.4]) + 0.7 * n
    if condition == "rigid":
        total = s.displacement(x) + wave.displacement(UNIT, x)
    else:
        t = (s.waves.traction(x, n) @ s.coefficients).reshape(-1, 3)
        total = t + wave.traction(UNIT, x, n)
    assert np.abs(total).max() < 1e-12


def test_reciprocity_of_the_sphere():
    a, b = PlaneWave((1, 2, 2)), np.array([0.0, 0.6, 0.8])
    q = np.array([0.0, 0.8, -0.6])
    left = (
        sphere.scatter(UNIT, PlaneWave(a.d, (2, 1, -2))).far_field(b[None])[0][0]
        @ b
        * UNIT.p_modulus
    )
    p = PlaneWave(a.d, (2, 1, -2)).a
    right = -UNIT.lame_mu * (sphere.scatter(UNIT, PlaneWave(-b)).far_field(-a.d[None])[1][0] @ p)
    assert abs(left - right) < 1e-13
    del q


def test_dirichlet_to_neumann():
    T, torsion = sphere.dirichlet_to_neumann(UNIT, 1.5, 2)
    assert abs(T[0, 0, 0] - (-.820512821+2.769230769j)) < 1e-9  # fmt: skip
    expected = [
        [[-1.066666667+2.222222222j, 1.066666667+1.244444444j],
         [.533333333+.622222222j, -1.733333333+1.644444444j]],
        [[-1.880987573+1.483987518j, 4.261455083+2.962062736j],
         [.710242514+.493677123j, -2.517271583+1.308096568j]],
    ]  # fmt: skip
    assert np.allclose(T[1:], expected, rtol=0, atol=1e-9)
    expected = [-1.4+1.8j, -1.589743590+1.384615385j]  # fmt: skip
    assert np.allclose(torsion[1:], expected, rtol=0, atol=1e-9)
    assert np.allclose(T[1:, 0, 1], np.array([2, 6]) * T[1:, 1, 0])


def test_low_frequency_limit_of_the_rigid_sphere():
    s = sphere.scatter(Medium(2, 1, 1, 1e-4), P)
    assert np.allclose(s.energies(), (0.4654211339, 14.8934762837), rtol=1e-6)


def test_pulsation_torsion_and_translation():
    X = UNIT.k_s
    T, torsion = sphere.dirichlet_to_neumann(UNIT, 1.0, 1)
    xp = UNIT.k_p
    assert abs(T[0, 0, 0] + (4 * (1 - 1j * xp) - 4 * xp**2) / (1 - 1j * xp)) < 1e-13
    torque = 8 * np.pi / 3 * (3 - 3j * X - X**2) / (1 - 1j * X)
    assert abs(-torsion[1] * 8 * np.pi / 3 - torque) < 1e-12
    slow = Medium(2, 1, 1, 1e-5)
    T, _ = sphere.dirichlet_to_neumann(slow, 1.0, 1)
    t = T[1] @ [1, 1]
    assert abs(-4 * np.pi / 3 * (t[0] + 2 * t[1]) - 16.7552) < 1e-3
    x = RNG.normal(size=(5, 3))
    x /= np.linalg.norm(x, axis=1)[:, None]
    d = np.array([1.0, 2.0, 3.0])
    assert np.abs(sphere.translating_sphere(Medium(2, 1, 1, 0), 1.0, d, x) - d).max() < 1e-14
    for omega in (0.0, 2.0):
        u = sphere.twisting_sphere(Medium(2, 1, 1, omega), 1.0, d, x)
        assert np.abs(u - np.cross(d, x)).max() < 1e-14
