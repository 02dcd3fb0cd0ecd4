"""Kupradze's tensor: published values, symmetry, the equation, the static limit, both formulas."""

import numpy as np
import pytest

from fem_apps.errors import CaseError
from fem_apps.fundamental import kupradze
from fem_apps.fundamental.medium import Medium, PlaneWave

MEDIUM = Medium(2.0, 1.0, 1.3, 3.1)
X, Y = np.array([[0.7, -1.1, 0.9]]), np.array([[0.1, 0.2, -0.3]])
RNG = np.random.default_rng(1)


def test_values_of_the_reference():
    phi = kupradze.displacement(MEDIUM, X, Y)
    expected = {
        (0, 0): 0.032118398 + 0.017946434j,
        (0, 1): 0.008413837 + 0.009303471j,
        (0, 2): -0.007766619 - 0.008587819j,
        (1, 1): 0.017771727 + 0.002082823j,
        (2, 2): 0.020468470 + 0.005064705j,
    }
    for (a, b), value in expected.items():
        assert abs(phi[a, b] - value) < 1e-9
        assert abs(phi[b, a] - value) < 1e-9
    t = kupradze.traction(MEDIUM, X, np.array([[3, 4, -5]]) / np.sqrt(50), Y)
    expected = {
        (0, 0): 0.033552422 - 0.057183780j,
        (0, 1): 0.043685619 + 0.026796041j,
        (1, 0): 0.084814935 - 0.054802739j,
        (1, 2): 0.051316820 - 0.010892630j,
        (2, 2): 0.033141427 - 0.045340854j,
    }
    for (a, b), value in expected.items():
        assert abs(t[a, b] - value) < 1e-9


def test_series_and_closed_form_join(monkeypatch):
    """Both formulas where each is good: the threshold moved across the same points."""
    y = np.zeros((1, 3))
    for r in (0.5, 0.69, 0.71, 0.9):
        r = r / MEDIUM.k_s
        a = np.array(
            kupradze._closed.py_func(r, MEDIUM.k_p, MEDIUM.k_s, 1.0, MEDIUM.rho_omega2, True)
        )
        b = np.array(kupradze._summed.py_func(r, MEDIUM.k_s, 1.0, kupradze.series(MEDIUM)))
        assert np.abs(a - b).max() < 1e-13 * np.abs(b).max()
    del y, monkeypatch


def test_against_many_digits():
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    for kr in (1e-6, 1e-3, 0.3, 0.699, 0.701, 1.0, 3.0, 20.0, 50.0):
        r = mpmath.mpf(kr) / mpmath.mpf(MEDIUM.k_s)
        ks, kp = mpmath.mpf(MEDIUM.k_s), mpmath.mpf(MEDIUM.k_p)

        def F(t, ks=ks, kp=kp):
            return (mpmath.expj(ks * t) - mpmath.expj(kp * t)) / (
                4 * mpmath.pi * t * MEDIUM.rho_omega2
            )

        f1, f2 = mpmath.diff(F, r), mpmath.diff(F, r, 2)
        a = mpmath.expj(ks * r) / (4 * mpmath.pi * r) + f1 / r
        b = f2 - f1 / r
        phi = kupradze.displacement(MEDIUM, np.array([[float(r), 0, 0]]), np.zeros((1, 3)))
        size = abs(complex(a + b))
        assert abs(phi[0, 0] - complex(a + b)) < 1e-13 * size
        assert abs(phi[1, 1] - complex(a)) < 1e-13 * size


def test_static_limit_is_kelvin():
    still = Medium(2.0, 1.0, 1.3, 0.0)
    d = (X - Y)[0]
    r = np.linalg.norm(d)
    e = d / r
    lam, mu = 2.0, 1.0
    kelvin = ((lam + 3 * mu) * np.eye(3) + (lam + mu) * np.outer(e, e)) / (
        8 * np.pi * mu * (lam + 2 * mu) * r
    )
    assert np.abs(kupradze.displacement(still, X, Y) - kelvin).max() < 1e-15
    slow = Medium(2.0, 1.0, 1.3, 1e-7)
    assert np.abs(kupradze.displacement(slow, X, Y) - kelvin).max() < 1e-6 * np.abs(kelvin).max()


@pytest.mark.parametrize("omega", [0.0, 0.1, 3.1])
def test_gradient_traction_and_equation(omega):
    medium = Medium(2.0, 1.0, 1.3, omega)
    force = RNG.normal(size=(1, 3)) + 1j * RNG.normal(size=(1, 3))
    g = kupradze.gradient(medium, X, Y, force)[0]
    h = 1e-3
    E = np.eye(3)

    def u(x):
        return kupradze.apply(medium, x, Y, force)[0]

    def stencil(a):  # fourth order
        return (
            8 * (u(X + h * E[a]) - u(X - h * E[a])) - u(X + 2 * h * E[a]) + u(X - 2 * h * E[a])
        ) / (12 * h)

    assert np.abs(g - np.stack([stencil(a) for a in range(3)], axis=1)).max() < 1e-9
    n = np.array([[3, 4, -5]]) / np.sqrt(50)
    t = kupradze.traction(medium, X, n, Y) @ force[0]
    assert np.abs(t - medium.stress(g) @ n[0]).max() < 1e-14
    # div sigma + rho omega^2 u = 0 away from the source
    div = np.zeros(3, dtype=complex)
    for a in range(3):
        s = [
            medium.stress(kupradze.gradient(medium, X + k * h * E[a], Y, force)[0])[:, a]
            for k in (-2, -1, 1, 2)
        ]
        div += (8 * (s[2] - s[1]) - s[3] + s[0]) / (12 * h)
    assert np.abs(div + medium.rho_omega2 * u(X)).max() < 1e-9


def test_apply_is_the_matrix_and_far_field_the_limit():
    x, y = RNG.normal(size=(300, 3)) * 3, RNG.uniform(-0.5, 0.5, (200, 3))
    force = RNG.normal(size=(200, 3)) + 1j * RNG.normal(size=(200, 3))
    matrix = kupradze.displacement(MEDIUM, x, y)
    assert (
        np.abs(matrix @ force.ravel() - kupradze.apply(MEDIUM, x, y, force).ravel()).max() < 1e-12
    )
    d = x[:20] / np.linalg.norm(x[:20], axis=1)[:, None]
    p, s = kupradze.far_field(MEDIUM, d, y, force)
    errors = []
    for R in (1e3, 1e4):
        u = kupradze.apply(MEDIUM, R * d, y, force) * R
        limit = np.exp(1j * MEDIUM.k_p * R) * p + np.exp(1j * MEDIUM.k_s * R) * s
        errors.append(np.abs(u - limit).max() / np.abs(limit).max())
    assert errors[1] < 1e-3
    assert 8 < errors[0] / errors[1] < 12  # first order in 1/R


def test_double_layer_is_the_transposed_traction():
    n = np.array([[0.0, 0.6, 0.8]])
    assert (
        np.abs(kupradze.double_layer(MEDIUM, X, Y, n) - kupradze.traction(MEDIUM, Y, n, X).T).max()
        == 0
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((2, -1, 1, 1), "lame_mu"),
        ((-1, 1, 1, 1), "lame_lambda"),
        ((1, 1, 0, 1), "density"),
        ((1, 1, 1, -1), "omega"),
    ],
)
def test_wrong_media(values, word):
    with pytest.raises(CaseError, match=word):
        Medium(*values)


def test_wrong_waves():
    with pytest.raises(CaseError, match="direction"):
        PlaneWave((0, 0, 0))
    with pytest.raises(CaseError, match="polarised across"):
        PlaneWave((0, 0, 1), (0, 0, 2))
