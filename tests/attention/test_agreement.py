"""Tokens, densities and Gaussians on the same data, every variant; invariants of the densities.

With -s the observed errors and slopes are printed.
"""

import numpy as np
import pytest
from mpi4py import MPI
from scipy.optimize import minimize_scalar

from fem_apps.attention import gaussian_closure as gc
from fem_apps.attention.fields import make_field
from fem_apps.attention.gaussian import closure
from fem_apps.attention.model import Attention
from fem_apps.attention.sphere import Case, set_up
from fem_apps.attention.token_dynamics import Tokens, cloud
from fem_apps.fem.time_stepping import march
from fem_apps.inverse.interaction_kernels_distance import w2_sets
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.aggregation_diffusion import first_step

Q = ((0.8, -0.3), (0.2, 1.1))
K = ((1.0, 0.4), (-0.2, 0.7))
V = ((0.9, -0.5), (0.4, 0.8))
GENERAL = {"Q": Q, "K": K, "V": V}
HEADS = ({"Q": Q, "K": K, "V": 0.6}, {"V": V})
VARIANTS = {
    v: Attention(variant=v, beta=1.5, **GENERAL)
    for v in ("softmax", "unnormalised", "scaled", "l2", "sinkhorn", "linear", "sigmoid")
} | {"heads": Attention(beta=1.5, heads=HEADS)}
START = "1 + 0.5*x + 0.3*x*y"


def show(what, errors, factor):
    """Errors and the slope between the last two, whose sizes differ by a factor."""
    slope = np.log(errors[-1] / errors[-2]) / np.log(factor)
    print(f"{what}: {', '.join(f'{e:.3g}' for e in errors)}; slope {-slope:.2f}")
    return slope


def start(theta):
    return (1 + 0.5 * np.cos(theta) + 0.15 * np.sin(2 * theta)) / (2 * np.pi)


def evolve(mesh, attention, expression, end, tolerance=1e-5, **time):
    """Set-up and states of a case of kind sphere-attention."""
    case = Case(
        kind="sphere-attention",
        mesh=mesh,
        attention=attention,
        initial={"type": "expression", "expression": expression},
        time={"end": end, "tolerance": tolerance, **time},
    )
    s = set_up(build(MPI.COMM_WORLD, MeshCase(**case.mesh.model_dump()), "."), case)
    states = [s.solver.start(0.0, s.rho0)]
    dt = time.get("dt") or first_step(s.solver, states[0], case.time)
    states += [m.state for m in march(states[0], s.solver.attempt, case.time, dt=dt)]
    return s, states


def round_mesh(name, h):
    return {"geometry": name, "parameters": {"h": h}, "order": 2}


def quantiles(theta, rho, u):
    """Of a density on the circle that is linear between angles."""
    order = np.argsort(theta)
    fine = np.linspace(-np.pi, np.pi, 40_001)
    f = np.interp(fine, theta[order], rho[order], period=2 * np.pi)
    F = np.concatenate([[0.0], np.cumsum((f[1:] + f[:-1]) / 2)])
    return np.interp(u, F / F[-1], fine)


def w2_circle(a, b):
    """Of two measures by their quantiles at the same levels: least over where the circle is cut."""

    def cost(shift):
        n = len(a)
        x = np.concatenate([a - 2 * np.pi, a, a + 2 * np.pi])
        moved = np.interp(np.arange(n) + shift * n, np.arange(-n, 2 * n), x)
        return np.mean((moved - b) ** 2)

    return np.sqrt(minimize_scalar(cost, bounds=(-0.3, 0.3), options={"xatol": 1e-9}).fun)


def solver_of(attention, d=2, tolerance=1e-7):
    return Tokens(make_field(attention, d), cluster=1e-9, glue=0.0, tolerance=tolerance)


def tokens_at(solver, theta, end):
    x = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    y = solver.advance(cloud(x), end, np.zeros(len(x), dtype=int))[0].x
    return np.sort(np.arctan2(y[:, 1], y[:, 0]))


def density_quantiles(attention, h, end, u):
    s, states = evolve(round_mesh("circle", h), attention, START, end)
    return quantiles(np.arctan2(s.graph.x[:, 1], s.graph.x[:, 0]), states[-1].rho, u)


def levels(n):
    return (np.arange(n) + 0.5) / n


GRID = np.linspace(-np.pi, np.pi, 4001)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_as_tokens_and_as_densities(name):
    """Q, K, V general: tokens at quantiles against finite elements on the circle, W2, order h^2."""
    u = levels(600)
    tokens = tokens_at(solver_of(VARIANTS[name]), quantiles(GRID, start(GRID), u), 0.4)
    errors = [w2_circle(density_quantiles(VARIANTS[name], h, 0.4, u), tokens) for h in (0.2, 0.1)]
    show(f"W2, {name}, h = 0.2, 0.1", errors, 2)
    assert errors[1] < 2e-3
    assert errors[1] < 0.4 * errors[0]


def test_random_tokens_on_the_circle():
    """W2 of n independent tokens and the density falls like n^(-1/2)."""
    a, end, rng = VARIANTS["softmax"], 0.4, np.random.default_rng(0)
    errors, solver = [], solver_of(a)
    for n, repeats in ((100, 24), (1600, 6)):
        u = levels(n)
        exact = density_quantiles(a, 0.05, end, u)
        found = [
            w2_circle(
                exact, tokens_at(solver, quantiles(GRID, start(GRID), rng.uniform(size=n)), end)
            )
            for _ in range(repeats)
        ]
        errors.append(np.sqrt(np.mean(np.square(found))))
    slope = show("W2 on the circle, n = 100, 1600", errors, 16)
    assert slope == pytest.approx(-0.5, abs=0.12)


SPHERE = Attention(beta=2, variant="softmax")


def sphere_tokens(n, rng):
    """Independent, of density 1 + 0.8 z."""
    u = rng.uniform(size=n)
    z = np.clip((-1 + np.sqrt(1 - 1.6 * (0.6 - 2 * u))) / 0.8, -1, 1)  # (z + 0.4 z^2 + 0.6)/2 = u
    phi = rng.uniform(0, 2 * np.pi, n)
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


def test_sphere():
    """S^2: second moments at n^(-1/2) and h^2, W2 (POT) of n tokens at n^(-1/2)."""
    end, rng = 0.5, np.random.default_rng(0)
    moments, sets = [], None
    for h in (0.4, 0.2, 0.1):
        s, states = evolve(round_mesh("sphere", h), SPHERE, "1 + 0.8*z", end, 1e-4)
        mass, x = s.graph.mass * states[-1].rho, s.graph.x
        moments.append(np.append(x.T @ mass, ((x * mass[:, None]).T @ x).ravel()))
        if h == 0.1:
            sets = x, mass
    errors = [np.linalg.norm(m - moments[2]) for m in moments[:2]]
    show("moments on the sphere, h = 0.4, 0.2 (against 0.1)", errors, 2)
    assert errors[1] < 0.35 * errors[0]  # against h = 0.1: 3/15 for order 2
    solver = solver_of(SPHERE, 3, 1e-6)
    apart, far = [], []
    for n, repeats in ((60, 12), (960, 4)):
        one, two = [], []
        for _ in range(repeats):
            y = solver.advance(cloud(sphere_tokens(n, rng)), end, np.zeros(n, dtype=int))[0].x
            m = np.append(y.mean(axis=0), (y.T @ y / n).ravel())
            one.append(np.linalg.norm(m - moments[2]))
            two.append(w2_sets(y, np.full(n, 1 / n), *sets))
        apart.append(np.sqrt(np.mean(np.square(one))))
        far.append(np.sqrt(np.mean(np.square(two))))
    slope = show("moments on the sphere, n = 60, 960", apart, 16)
    assert slope == pytest.approx(-0.5, abs=0.17)
    slope = show("W2 on the sphere, n = 60, 960", far, 16)
    assert slope == pytest.approx(-0.45, abs=0.12)


# ------------------------------------------------------------------ closure
PLANE = {
    "softmax": Attention(layer_norm=False, variant="softmax", beta=0.7, **GENERAL),
    "l2": Attention(layer_norm=False, variant="l2", beta=0.7, **GENERAL),
    "sinkhorn": Attention(layer_norm=False, variant="sinkhorn", beta=0.7, **GENERAL),
    "linear": Attention(layer_norm=False, variant="linear", beta=0.7, **GENERAL),
    "heads": Attention(layer_norm=False, beta=0.7, heads=HEADS),
}


@pytest.mark.parametrize("name", PLANE)
def test_the_closure_is_the_field(name):
    """Gamma of a Gaussian by Gauss-Hermite points is the affine field of the closure."""
    S = np.array([[0.5, 0.1], [0.1, 0.4]])
    alpha = np.zeros(2) if name == "sinkhorn" else np.array([0.3, -0.2])
    t, w = np.polynomial.hermite_e.hermegauss(32)
    w = w / w.sum()
    z = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
    L = gc.factor(S)
    y, log_m = alpha + z @ L.T, np.log(np.outer(w, w).ravel())
    x = alpha + np.array([[0.0, 0.0], [0.5, -0.3], [-0.8, 0.6]])
    found = np.asarray(make_field(PLANE[name], 2)(x, y, log_m))
    da, dL = closure(PLANE[name], 2).rates(alpha, L)
    assert found == pytest.approx(da + (x - alpha) @ np.linalg.solve(L.T, dL.T), abs=1e-9)


def test_three_ways_in_the_plane():
    """Covariance of tokens, of finite elements and of the closure, softmax with general Q, K, V."""
    a = Attention(layer_norm=False, variant="softmax", beta=0.7, **GENERAL)
    S0, end = np.array([[0.10, 0.02], [0.02, 0.08]]), 0.5
    exact = gc.flow(closure(a, 2), S0, end=end, outputs=[end]).sigma[-1]
    P = np.linalg.inv(S0)
    q = f"exp(-({P[0, 0]}*x**2 + {2 * P[0, 1]}*x*y + {P[1, 1]}*y**2)/2)"
    box = {"x0": -1.6, "y0": -1.6, "width": 3.2, "height": 3.2, "h": 0.08}
    s, states = evolve({"geometry": "rectangle", "parameters": box}, a, q, end, 1e-4)
    x, mass = s.graph.x, s.graph.mass * states[-1].rho
    density = (x * mass[:, None]).T @ x
    t, w = np.polynomial.hermite_e.hermegauss(24)
    z = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
    m = np.outer(w, w).ravel() / w.sum() ** 2
    solver = solver_of(a, tolerance=1e-9)
    c = solver.advance(cloud(z @ gc.factor(S0).T, m), end, np.zeros(len(z), dtype=int))[0]
    tokens = (c.x * c.mass[:, None]).T @ c.x
    assert tokens == pytest.approx(exact, abs=1e-8)
    assert np.linalg.norm(density - exact) < 0.02 * np.linalg.norm(exact)


# ------------------------------------------------------------------ invariants of the densities
def test_rotation_of_the_sphere():
    """Rotated initial data: the rotated density, to order h^2."""
    c, s_ = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, 0, s_], [0, 1, 0], [-s_, 0, c]])  # e_z to (s, 0, c)
    errors = []
    for h in (0.4, 0.2):
        means = []
        for z in ("z", f"({s_}*x + {c}*z)"):
            s, states = evolve(round_mesh("sphere", h), SPHERE, f"1 + 0.8*{z}", 0.5, 1e-4)
            means.append(s.graph.x.T @ (s.graph.mass * states[-1].rho))
        errors.append(np.linalg.norm(turn @ means[0] - means[1]))
    show("rotation, h = 0.4, 0.2", errors, 2)
    assert errors[1] < 2e-3
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("heads", [False, True], ids=["gradient scheme", "transport scheme"])
def test_energy_identity(heads):
    """E(T) - E(0) = int int |Gamma|^2 rho under unnormalised attention, to order h^2."""
    beta, end = 2.0, 0.3
    a = Attention(variant="unnormalised", beta=beta)
    if heads:
        a = Attention(variant="unnormalised", beta=beta, heads=({"V": 0.5}, {"V": 0.5}))
    errors = []
    for h in (0.2, 0.1):
        s, states = evolve(round_mesh("circle", h), a, "1 + 0.5*x", end, 1e-7)
        x, field = s.graph.x, make_field(a, 2)
        E, D = [], []
        for state in states:
            m = s.graph.mass * state.rho
            E.append(m @ np.exp(beta * x @ x.T) @ m / (2 * beta))
            D.append(m @ (np.asarray(field(x, x, np.log(m))) ** 2).sum(axis=1))
        t = np.array([state.t for state in states])
        errors.append(abs(E[-1] - E[0] - np.trapezoid(D, t)) / (E[-1] - E[0]))
    show(f"energy identity (transport scheme: {heads}), h = 0.2, 0.1", errors, 2)
    assert errors[1] < 5e-3
    assert errors[1] < 0.4 * errors[0]
