"""Exact solutions with interaction: moment laws, phase transitions, steady states, growth rates."""

import json
from pathlib import Path

import numpy as np
import pytest
from aggregation import advance, evolve, mesh_of, orders
from scipy.special import ive, spherical_in

from fem_apps.cli import main
from fem_apps.fem.kernels import Cosine, Exponential, Gaussian, Log, Polynomial, VonMises
from fem_apps.fem.time_stepping import StepControl, march
from fem_apps.output.history import read_history
from fem_apps.problems import aggregation_diffusion as ad
from fem_apps.problems.edge_scheme import EdgeScheme
from fem_apps.problems.free_energy import Diffusion, moments
from fem_apps.problems.initial_density import Component, FromExpression, FromGaussians

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def steady(data, problem, rho0, *, rate=1e-9, tolerance=1e-4, dt_max=10.0):
    """The state in which int |d_t rho| / mass has fallen below `rate`, by bounded steps of order 1.

    Steps of order 2 extrapolate W * rho, and close to a steady state wander within the tolerance.
    """
    s = ad.set_up(data, problem, rho0, scheme=EdgeScheme(order=1), tolerance=tolerance)
    control = StepControl(end=1e4, tolerance=tolerance, dt_max=dt_max)
    state = s.solver.start(0.0, s.rho0)
    for step in march(state, s.solver.attempt, control, dt=ad.first_step(s.solver, state, control)):
        assert (step.state.rho >= 0).all()
        if s.solver.rate(step.state) < rate:
            return s.graph, step.state
    raise AssertionError(f"not steady: rate {s.solver.rate(step.state):.1e}")


def test_variance_of_a_gaussian_under_quadratic_attraction():
    """Gaussians stay Gaussian, each axis with s(t) = sigma + (s0 - sigma) exp(-2 t)."""
    sigma, s0, end = 0.5, 0.2, 0.5
    exact = sigma + (s0 - sigma) * np.exp(-2 * end)
    problem = ad.Problem(
        diffusion=[Diffusion(coefficient=sigma)], interaction=[Polynomial(coefficients=(0, 0.5))]
    )
    rho0 = FromGaussians(type="gaussians", components=[Component(centre=(0, 0), width=np.sqrt(s0))])
    variance, density = [], []
    for h in (1 / 2, 1 / 4, 1 / 8):
        done = evolve(mesh_of("disc", h=h, radius=5), problem, rho0, end, tolerance=1e-6)
        assert done.keeps_the_structure()
        r2 = (done.graph.x**2).sum(axis=1)
        variance.append(abs(moments(done.graph, done.state.rho)[2] / 2 - exact) / exact)
        truth = np.exp(-r2 / 2 / exact) / (2 * np.pi * exact)
        density.append(done.graph.integral(np.abs(done.state.rho - truth)))
    assert variance[-1] <= 1e-3
    assert orders(density).min() >= 1.9
    assert orders(variance).min() >= 1.9


def order_parameter_of_kuramoto(K):
    """R = I1(K r)/I0(K r), its positive root by bisection, D = 1."""
    low, high = 1e-3, 1.0
    for _ in range(60):
        r = (low + high) / 2
        low, high = (r, high) if ive(1, K * r) / ive(0, K * r) > r else (low, r)
    return r


@pytest.mark.parametrize("K", [2.05, 2.5, 5.0, 8.0])
def test_order_parameter_of_noisy_kuramoto(K):
    problem = ad.Problem(
        diffusion=[Diffusion()], interaction=[Cosine(type="cosine", mode=(1,), strength=-K)]
    )
    graph, state = steady(mesh_of("circle", h=2 * np.pi / 100), problem, "1 + 0.5*x")
    r = np.linalg.norm(moments(graph, state.rho)[1])
    assert abs(r - order_parameter_of_kuramoto(K)) <= 1e-4


def mean_of_desai_zwanzig(D):
    """The positive root of m = <x>_m, weight exp(-(V + (x - m)^2/2)/D), by bisection."""
    x = np.linspace(-4, 4, 20001)
    V = x**4 / 4 - x**2 / 2
    low, high = 1e-2, 1.5
    for _ in range(60):
        m = (low + high) / 2
        e = -(V + (x - m) ** 2 / 2) / D
        w = np.exp(e - e.max())
        low, high = (m, high) if (x @ w) / w.sum() > m else (low, m)
    return m


@pytest.mark.parametrize("D", [0.1, 0.2, 0.35, 0.4])
def test_mean_of_desai_zwanzig(D):
    problem = ad.Problem(
        diffusion=[Diffusion(coefficient=D)],
        interaction=[Polynomial(coefficients=(0, 0.5))],
        potential="x**4/4 - x**2/2",
    )
    rho0 = FromExpression(type="expression", expression="exp(-(x-0.7)**2/0.4)")
    graph, state = steady(mesh_of("interval", a=-4, b=4, h=0.03), problem, rho0)
    assert abs(moments(graph, state.rho)[1][0] - mean_of_desai_zwanzig(D)) <= 1e-4


@pytest.mark.parametrize("eps", [0.5, 0.1])
def test_steady_state_of_exponential_attraction(eps):
    """Rho = A (cos w x - cos w L) on [-L, L], eps rho - G * rho constant, G = exp(-|x|)/2."""
    w = np.sqrt((1 - eps) / eps)
    L = (np.pi - np.arctan(w)) / w
    A = 1 / (2 * np.sin(w * L) / w - 2 * L * np.cos(w * L))
    problem = ad.Problem(
        diffusion=[Diffusion(exponent=2, coefficient=eps / 2)],
        interaction=[Exponential(type="exponential", strength=-0.5)],
    )
    maximum, support = [], []
    for n in (25, 50, 100):
        h = L / n
        data = mesh_of("interval", a=-2 * L, b=2 * L, h=h)
        graph, state = steady(data, problem, f"exp(-(x/{L})**2)", rate=1e-8)
        maximum.append(abs(state.rho.max() / (A * (1 - np.cos(w * L))) - 1))
        inside = graph.x[state.rho > 1e-6 * state.rho.max(), 0]
        support.append(abs((inside.max() - inside.min()) / 2 / L - 1))
    assert maximum[-1] <= 1e-2
    assert (np.array(support) <= 1.01 / np.array([25, 50, 100])).all()  # a cell
    assert orders(maximum).mean() > 1


def test_steady_bump_of_cubic_diffusion():
    """rho ~ sqrt(distance to the front): m = 3, W = -exp(-x^2/2)/sqrt(2 pi), nu = 1.48, mass 1."""
    problem = ad.Problem(
        diffusion=[Diffusion(exponent=3, coefficient=2 * 1.48 / 3)],
        interaction=[Gaussian(width=1.0, strength=-1 / np.sqrt(2 * np.pi))],
    )
    graph, state = steady(mesh_of("interval", a=-4, b=4, h=0.02), problem, "exp(-x**2)", rate=1e-8)
    inside = graph.x[state.rho > 1e-6, 0]
    assert abs((inside.max() - inside.min()) / 2 - 2.0034225220) <= 0.02
    assert abs(state.rho.max() - 0.3332025982) <= 1e-3
    assert abs(moments(graph, state.rho)[2] - 0.9545705289) <= 2e-3


def test_second_moment_of_keller_segel_below_the_critical_mass():
    """m2' = 4 M (1 - M / 8 pi) on the plane."""
    M = 6 * np.pi
    problem = ad.Problem(
        diffusion=[Diffusion()], interaction=[Log(type="log", strength=1 / (2 * np.pi))]
    )
    rho0 = FromGaussians(
        type="gaussians", mass=M, components=[Component(centre=(0, 0), width=np.sqrt(0.5))]
    )
    setting = ad.set_up(mesh_of("disc", h=0.15, radius=5.5), problem, rho0, tolerance=1e-4)
    seen = []

    def watch(state):
        seen.append((state.t, moments(setting.graph, state.rho)[2]))

    done = advance(setting, StepControl(end=0.4, tolerance=1e-4), watch=watch)
    assert done.keeps_the_structure()
    t, m2 = np.array(seen).T
    slope = np.polyfit(t, m2, 1)[0]
    assert abs(slope / (4 * M * (1 - M / (8 * np.pi))) - 1) <= 0.01


def test_blow_up_of_keller_segel_is_reported(tmp_path, monkeypatch):
    """Mass 10 pi: m2 falls at the exact rate until the blow-up, which is before T* = 1."""
    out, case = tmp_path / "run", EXAMPLES / "aggregation_diffusion" / "keller_segel.toml"
    sets = ["mesh.parameters.h=0.1", "output.pictures=false", "output.fields=false"]
    sets = [a for s in sets for a in ("--set", s)]
    monkeypatch.setattr("sys.argv", ["fem-apps", "run", str(case), "--out", str(out), *sets])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    summary = json.loads((out / "summary.json").read_text())
    assert 0.3 < summary["metrics"]["blow_up_time"] <= 1.0
    assert any("blow-up" in note for note in summary["notes"])
    history = read_history(out / "history.csv")
    early = history["time"] <= 0.5 * summary["metrics"]["blow_up_time"]
    slope = np.polyfit(history["time"][early], history["second_moment"][early], 1)[0]
    M = 10 * np.pi
    assert abs(slope / (4 * M * (1 - M / (8 * np.pi))) - 1) <= 0.01


def test_linear_growth_rates_on_the_sphere():
    """Degree l about uniform: -l (l + 1) (sigma + strength i_l(beta)), i_l modified spherical."""
    beta, sigma, strength, end = 3.0, 0.2, -1 / 3, 0.05
    problem = ad.Problem(
        diffusion=[Diffusion(coefficient=sigma)],
        interaction=[VonMises(type="von-mises", beta=beta, strength=strength)],
    )
    bump = "(z + (3*z**2-1)/2 + (5*z**3-3*z)/2 + (35*z**4-30*z**2+3)/8)"
    data, control = mesh_of("sphere", h=0.04), StepControl(end=end, tolerance=0, dt=end / 20)
    runs = []
    # the uniform density of an irregular mesh moves by itself: the difference of two runs does not
    for sign in "+-":
        setting = ad.set_up(data, problem, f"1 {sign} 0.001*{bump}", tolerance=1e-3)
        done = advance(setting, control, dt=end / 20)
        assert done.keeps_the_structure()
        runs.append((setting.rho0, done.state.rho))
    z = done.graph.x[:, 2]
    for l in range(1, 5):
        basis = np.polynomial.Legendre.basis(l)(z)
        before, after = (done.graph.integral((p - m) * basis) for p, m in zip(*runs, strict=True))
        exact = -l * (l + 1) * (sigma + strength * spherical_in(l, beta))
        assert abs(np.log(after / before) / end / exact - 1) <= 0.01, l
