"""Densities on S^1, S^2 and R^2: linear rates, stationary branches, invariants, tokens, closure."""

import json

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.attention import bifurcation as bf
from fem_apps.attention import gaussian_closure as gc
from fem_apps.attention.funk_hecke import growth_rates
from fem_apps.attention.gaussian import closure
from fem_apps.attention.model import Attention
from fem_apps.attention.sphere import Case, gradient_factor, set_up
from fem_apps.cli import main
from fem_apps.errors import CaseError
from fem_apps.fem.time_stepping import march
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.aggregation_diffusion import first_step

CIRCLE = {"geometry": "circle", "parameters": {"h": 0.05}, "order": 2}
SPHERE = {"geometry": "sphere", "parameters": {"h": 0.25}, "order": 2}


def case_of(mesh, attention, expression, end, tolerance=1e-4, **more):
    return Case(
        kind="sphere-attention",
        mesh=mesh,
        attention=attention,
        initial={"type": "expression", "expression": expression},
        time={"end": end, "tolerance": tolerance},
        **more,
    )


def evolve(case):
    s = set_up(build(MPI.COMM_WORLD, MeshCase(**case.mesh.model_dump()), "."), case)
    state = s.solver.start(0.0, s.rho0)
    steps = [state]
    for step in march(
        state, s.solver.attempt, case.time, dt=first_step(s.solver, state, case.time)
    ):
        steps.append(step.state)
    return s, steps


def mode(s, rho, values):
    return s.graph.integral(rho * values) / s.graph.integral(values**2)


@pytest.mark.parametrize(
    ("variant", "noise", "V"),
    [
        ("unnormalised", 0.0, 1.0),
        ("softmax", 0.0, 1.0),
        ("softmax", 0.3, 1.0),
        ("softmax", 0.0, -1.0),
    ],
)
def test_growth_rates_on_the_circle(variant, noise, V):
    beta, k, end = 5.0, 3, 0.05
    case = case_of(
        CIRCLE,
        Attention(variant=variant, beta=beta, V=V),
        "1 + 0.001*(4*x**3 - 3*x)",
        end,
        1e-7,
        noise=noise,
    )
    s, steps = evolve(case)
    theta = np.arctan2(s.graph.x[:, 1], s.graph.x[:, 0])
    a = [mode(s, st.rho, np.cos(k * theta)) for st in (steps[0], steps[-1])]
    exact = V * growth_rates(beta, 2, 4, variant)[3] - noise * 9
    assert np.log(a[1] / a[0]) / end == pytest.approx(exact, rel=1e-2, abs=5e-3)
    mass = [s.graph.integral(st.rho) for st in steps]
    assert np.ptp(mass) < 1e-13
    if not noise:
        energies = np.array([st.energy.total for st in steps])
        assert (np.diff(energies) <= 1e-10 * abs(energies[0])).all()


def test_growth_rate_on_the_sphere():
    case = case_of(
        SPHERE, Attention(variant="unnormalised", beta=2), "1 + 0.001*(3*z**2 - 1)", 0.1, 1e-5
    )
    s, steps = evolve(case)
    y = 3 * s.graph.x[:, 2] ** 2 - 1
    a = [mode(s, st.rho, y) for st in (steps[0], steps[-1])]
    exact = growth_rates(2, 3, 3, "unnormalised")[2]
    assert np.log(a[1] / a[0]) / 0.1 == pytest.approx(exact, rel=3e-2)


@pytest.mark.parametrize(("geometry", "sizes"), [("circle", (0.2, 0.1)), ("sphere", (0.4, 0.2))])
def test_stationary_state_is_on_the_branch(geometry, sizes):
    """Noisy attention, beta = 3: order parameter of the branch; order h^2 on the sphere."""
    d, kappa = (2, 1.1) if geometry == "circle" else (3, 0.6)
    (*_, (m, _)) = bf.states_at(bf.branch(3, d), kappa)
    errors = []
    for h in sizes:
        mesh = {"geometry": geometry, "parameters": {"h": h}, "order": 2}
        a = Attention(variant="unnormalised", beta=3)
        s, steps = evolve(case_of(mesh, a, "exp(2*x)", 40.0, 1e-3, noise=kappa))
        centre = [s.graph.integral(steps[-1].rho * c) for c in s.graph.x.T]
        errors.append(abs(np.linalg.norm(centre) - m))
    if geometry == "circle":  # evenly spaced nodes: more than order h^2
        assert errors[1] < 1e-5
    else:
        assert errors[1] < 5e-3
        assert errors[1] < 0.4 * errors[0]


def test_repulsive_minimiser():
    """V = -D, D = diag(1, 1.3): the density descends to amplitude 0.53817, energy 1.33933."""
    D = ((1.0, 0), (0, 1.3))
    a = Attention(variant="softmax", beta=1, K=D, V=tuple(tuple(-v for v in r) for r in D))
    s, steps = evolve(case_of(CIRCLE, a, "1 + 0.3*x", 60.0, 1e-3))
    rho = steps[-1].rho
    energies = np.array([st.energy.total for st in steps])
    assert (np.diff(energies) <= 1e-10).all()
    assert 2 * energies[-1] == pytest.approx(1.3393340, abs=2e-4)
    cos2 = s.graph.x[:, 0] ** 2 - s.graph.x[:, 1] ** 2
    assert 2 * s.graph.integral(rho * cos2) == pytest.approx(0.53817, abs=1e-2)


def test_porous_medium_jump():
    """c = 0.9 c_1 on the circle, beta = 2: m = 0.64724, F - F(uniform) = -0.028002."""
    from fem_apps.attention.porous import critical_repulsion

    c = 0.9 * critical_repulsion(2, 2)
    a = Attention(variant="unnormalised", beta=2)
    s, steps = evolve(case_of(CIRCLE, a, "1 + 0.9*x", 60.0, 1e-3, repulsion=c))
    rho = steps[-1].rho
    m = np.hypot(*[s.graph.integral(rho * z) for z in s.graph.x.T])
    assert m == pytest.approx(0.64724, abs=2e-3)
    uniform = s.solver.start(0.0, np.full_like(rho, 1 / (2 * np.pi))).energy.total
    assert steps[-1].energy.total - uniform == pytest.approx(-0.028002, abs=3e-4)
    assert min(st.rho.min() for st in steps) >= 0


def test_both_schemes_agree():
    """The gradient scheme and the transport scheme on the same softmax field."""
    a = Attention(variant="softmax", beta=3)
    case = case_of(CIRCLE, a, "1 + 0.3*x + 0.2*y**2", 1.0)
    s, steps = evolve(case)
    heads = [{"V": 0.5}, {"V": 0.5}]
    other = case_of(CIRCLE, Attention(beta=3, heads=heads), "1 + 0.3*x + 0.2*y**2", 1.0)
    assert gradient_factor(other.attention, 2) is None
    t, later = evolve(other)
    difference = s.graph.integral(np.abs(steps[-1].rho - later[-1].rho))
    assert difference < 5e-3
    assert t.graph.integral(later[-1].rho) == pytest.approx(1, abs=1e-13)


def test_plane_against_closure():
    """A Gaussian under softmax in the plane: covariance of the closure, order h^2."""
    A = ((0.6, -0.5), (0.5, -0.3))
    a = Attention(variant="softmax", K=A, layer_norm=False)
    S0, t = np.array([[0.10, 0.02], [0.02, 0.08]]), 0.5
    inverse = np.linalg.inv(S0)
    q = f"({inverse[0, 0]}*x**2 + 2*{inverse[0, 1]}*x*y + {inverse[1, 1]}*y**2)"
    mean = np.array([0.0, 0.0])
    exact = gc.flow(closure(a, 2), S0, mean, end=t, outputs=[t]).sigma[-1]
    errors = []
    for h in (0.16, 0.08):
        box = {"x0": -1.6, "y0": -1.6, "width": 3.2, "height": 3.2, "h": h}
        mesh = {"geometry": "rectangle", "parameters": box}
        s, steps = evolve(case_of(mesh, a, f"exp(-{q}/2)", t))
        rho, x = steps[-1].rho, s.graph.x
        S = np.array([[s.graph.integral(rho * x[:, i] * x[:, j]) for j in (0, 1)] for i in (0, 1)])
        errors.append(np.linalg.norm(S - exact))
    assert errors[1] < 0.02 * np.linalg.norm(exact)
    assert errors[1] < 0.4 * errors[0]


def test_tokens_against_closure():
    """The covariance of n tokens tends to the closure's at n^(-1/2)."""
    from fem_apps.attention.fields import make_field
    from fem_apps.attention.token_dynamics import Tokens, cloud

    a = Attention(variant="softmax", K=((0.6, -0.5), (0.5, -0.3)), layer_norm=False)
    S0, t = np.array([[0.5, 0.1], [0.1, 0.4]]), 0.5
    exact = gc.flow(closure(a, 2), S0, end=t, outputs=[t]).sigma[-1]
    rng = np.random.default_rng(0)
    errors = []
    solver = Tokens(make_field(a, 2), cluster=1e-6, glue=0.0, tolerance=1e-6)
    for n, repeats in ((125, 12), (2000, 3)):
        found = []
        for _ in range(repeats):
            x = rng.standard_normal((n, 2)) @ gc.factor(S0).T
            c = solver.advance(cloud(x), t, np.arange(n))[0]
            found.append(np.linalg.norm(np.cov(c.x.T, bias=True) - exact))
        errors.append(np.sqrt(np.mean(np.square(found))))
    assert 2 < errors[0] / errors[1] < 8  # sqrt(16) = 4


def test_errors():
    def bad(match, **change):
        table = {
            "mesh": CIRCLE,
            "attention": Attention(),
            "expression": "1 + 0.1*x",
            "end": 1.0,
            **change,
        }
        case = case_of(
            table.pop("mesh"),
            table.pop("attention"),
            table.pop("expression"),
            1.0,
            **{k: v for k, v in table.items() if k != "end"},
        )
        with pytest.raises(CaseError, match=match):
            set_up(build(MPI.COMM_WORLD, MeshCase(**case.mesh.model_dump()), "."), case)

    bad("no sphere", mesh={"geometry": "disc", "parameters": {"h": 0.5}})
    bad("norm 2", mesh={"geometry": "circle", "parameters": {"h": 0.5, "radius": 2}})
    bad("order of tokens", attention=Attention(masked=True))
    bad("multiple of", attention=Attention(V=((0, -1), (1, 0))), repulsion=1.0)
    bad("domain", attention=Attention(layer_norm=False))


def test_wrong_keys(tmp_path, capsys, monkeypatch):
    case = tmp_path / "case.toml"
    case.write_text(
        'kind = "sphere-attention"\nnoise = -1\n[mesh]\ngeometry = "circle"\n'
        '[initial]\ntype = "uniform"\n[time]\nend = 1\n'
    )
    monkeypatch.setattr("sys.argv", ["fem-apps", "run", str(case), "--out", str(tmp_path / "r")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "noise" in capsys.readouterr().err


@pytest.mark.parametrize("heads", [False, True])
def test_restart(heads, tmp_path, monkeypatch):
    """Continued to a later end from the checkpoint: the same answer."""
    case = tmp_path / "case.toml"
    extra = "heads = [{ V = 0.5 }, { V = 0.5 }]\n" if heads else ""
    case.write_text(
        'kind = "sphere-attention"\n[mesh]\ngeometry = "circle"\nparameters = { h = 0.1 }\n'
        f"[attention]\nbeta = 3\n{extra}"
        '[initial]\ntype = "expression"\nexpression = "1 + 0.3*x"\n[time]\nend = 1\n'
        "[output]\npictures = false\nfields = false\nframes = 2\ncheckpoint = 0\n"
    )

    def go(out, *more):
        monkeypatch.setattr("sys.argv", ["fem-apps", "run", str(case), "--out", str(out), *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return json.loads((out / "summary.json").read_text())["metrics"]

    full = go(tmp_path / "a", "--set", "time.end=2", "--set", "output.frames=4")
    go(tmp_path / "b")
    part = go(tmp_path / "b", "--restart", "--set", "time.end=2", "--set", "output.frames=4")
    # the first step after the end of the short run may differ: it was cut to land there
    assert part["order_parameter"] == pytest.approx(full["order_parameter"], rel=1e-3)
    assert part["mass_drift"] < 1e-12
