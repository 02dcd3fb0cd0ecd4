"""The flow on the line: exact Gaussians, order in time, sensitivities against differences."""

import numpy as np
import pytest

from fem_apps.inverse.interaction_kernels_atoms import Gaussians, Powers, atoms_of, potential
from fem_apps.inverse.interaction_kernels_flow import Cells, Flow, halves, refined, solve
from fem_apps.problems.free_energy import Diffusion

ATOMS = atoms_of(
    [Powers(type="power", exponents=(1.5, 2)), Gaussians(type="gaussian", widths=(0.5,))], 1
)


def grid(n, end=4.0):
    h = 2 * end / n
    return Cells(np.full(n, h), -end + h * (np.arange(n) + 0.5))


def flow(c, coefficients, m, sigma):
    r = np.abs(np.subtract.outer(c.centre, c.centre))
    tables = np.array([a.psi(r) for a in ATOMS])
    K = np.tensordot(coefficients, tables, 1)
    return Flow(c, K, 0.1 * c.centre**2, (Diffusion(exponent=m, coefficient=sigma),)), tables


def test_gaussians_stay_gaussian():
    """W = x^2/2, sigma = .1, V = x^2/10: variance s' = 2 sigma - 2 (1 + .2) s; order 2 in h."""
    errors = []
    for n in (80, 160):
        c = grid(n)
        f, _ = flow(c, [0, 1, 0], 1, 0.1)
        t = np.linspace(0, 1, 11)
        s = 0.1 / 1.2 + (0.5 - 0.1 / 1.2) * np.exp(-2.4 * t)
        exact = np.exp(-(c.centre**2) / (2 * s[:, None])) / np.sqrt(2 * np.pi * s[:, None])
        rho, none = solve(f, exact[0], t, 20)
        assert none.shape == (11, n, 0)
        assert rho @ c.width == pytest.approx(np.ones(11), abs=1e-4)
        errors.append(np.abs(rho[-1] - exact[-1]) @ c.width)
    assert errors[1] < 3e-3
    assert errors[1] < errors[0] / 3


def test_second_order_in_time():
    c = grid(80)
    f, _ = flow(c, [0.5, 1, -0.5], 2, 0.3)
    rho0 = np.exp(-((c.centre - 1) ** 2) / 0.3) + np.exp(-((c.centre + 1) ** 2) / 0.5)
    rho0 /= rho0 @ c.width
    t = np.linspace(0, 0.5, 6)
    runs = [solve(f, rho0, t, k)[0][-1] for k in (8, 16, 64)]
    errors = [np.abs(r - runs[-1]).max() for r in runs[:2]]
    assert errors[1] < errors[0] / 2.8
    assert np.abs(runs[-1] @ c.width - 1) < 1e-10


@pytest.mark.parametrize("m", [1, 2, 3])
def test_sensitivities_are_derivatives(m):
    """Of the discrete flow, against central differences."""
    c, co = grid(60), np.array([0.4, 1.0, -0.7])
    x = c.centre
    rho0 = np.exp(-((x - 1) ** 2) / 0.3) + np.exp(-((x + 1.2) ** 2) / 0.5) + 0.02
    rho0 /= rho0 @ c.width
    change = rho0 * np.sin(x)
    f, tables = flow(c, co, m, 0.2)
    t = np.linspace(0, 0.5, 4)
    _, S = solve(f, rho0, t, 8, atoms=tables, initial=change[None])
    # along the initial density the limiter's switches leave kinks
    for direction, tolerance in ((np.r_[1, -0.5, 0.7, 0], 1e-6), (np.eye(4)[3], 1e-3)):
        wanted, e = S @ direction, 1e-4
        ends = [
            solve(
                flow(c, co + z * direction[:3], m, 0.2)[0], rho0 + z * direction[3] * change, t, 8
            )[0]
            for z in (e, -e)
        ]
        gap = np.abs((ends[0] - ends[1]) / (2 * e) - wanted).max()
        assert gap < tolerance * np.abs(wanted).max()


def test_halves_keep_the_mass():
    c = grid(20)
    fine = halves(c)
    rho = np.exp(-(c.centre**2))
    assert refined(rho) @ fine.width == pytest.approx(rho @ c.width, rel=1e-14)
    assert fine.centre == pytest.approx(grid(40).centre)
    W, dW = potential(ATOMS, np.array([0, 1.0, 0]))
    assert W(np.array([2.0])) == pytest.approx(2.0)
    assert dW(np.array([2.0])) == pytest.approx(2.0)
