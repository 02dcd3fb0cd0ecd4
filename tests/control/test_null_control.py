"""HUM against exact norms and published tables; the set of null controls; what is refused."""

import dataclasses

import numpy as np
import pytest
from control import WAVE, case_of, run
from mpi4py import MPI

from fem_apps.control import null_control_run
from fem_apps.control.null_control import split_of, system_of
from fem_apps.control.null_control_cg import conjugate_gradients, lanczos
from fem_apps.control.null_control_gramian import Gramian, Modes, energy
from fem_apps.control.null_control_modal import preconditioner
from fem_apps.control.null_control_set import control_set
from fem_apps.errors import CaseError, Interrupted
from fem_apps.meshing import build
from fem_apps.output.history import read_history

HEAT = {
    "kind": "null-control",
    "equation": "heat",
    "coefficient": "0.1",
    "mesh": {"geometry": "interval", "parameters": {"h": 0.05}},
    "control": {"where": "where(0.3 < x < 0.8, 1, 0)"},
    "initial": {"y0": "sin(pi*x)**10"},
    "time": {"end": 1.0, "steps": 80},
    "hum": {"tolerance": 1e-6, "lanczos": 0},
    "output": {"pictures": False, "fields": False},
}


def gramian_of(base, **changes):
    case = case_of(base, **changes)
    s = split_of(case, build(MPI.COMM_SELF, case.mesh))
    return Gramian(system_of(case, s), case.hum.epsilon or 0.0, case.control.weight), s


@pytest.mark.parametrize(
    ("changes", "exact"),
    [
        ({}, 0.577350),
        ({"initial__y0": "sin(pi*x)"}, 0.478714),
        ({"initial__y0": "sin(pi*x)", "time__end": 3.5}, 0.388824),
        ({"initial__y0": "sin(pi*x)", "initial__y1": "sin(pi*x)"}, 0.513787),
        ({"initial__y0": "x*(1-x)", "initial__y1": "x", "time__end": 3.5}, 0.135015),
    ],
)
def test_exact_norms_of_the_wave(tmp_path, changes, exact):
    errors = []
    for h in (0.05, 0.0125):
        m = run(tmp_path / str(h), WAVE, mesh__parameters__h=h, hum__lanczos=0, **changes)
        errors.append(abs(m["control_norm"] / exact - 1))
        assert m["cg_reason"] == "converged"
        assert m["cg_iterations"] < 20
        assert m["final_state_filtered"] < 1e-7
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 1.8


def test_blow_up_without_a_filter_and_what_the_filter_keeps(tmp_path):
    """Finite differences: the observability constant collapses; two grids keep it, and the norm."""
    low, norm = [], []
    for h in (0.1, 0.05):
        m = run(tmp_path / str(h), WAVE, mass="lumped", hum__filter="none", mesh__parameters__h=h,
                time__scheme="fox-goodwin")  # fmt: skip
        low.append(m["observability"])
        norm.append(m["control_norm"])
        f = run(tmp_path / f"f{h}", WAVE, mesh__parameters__h=h)
        assert f["observability"] > 1
    assert low[1] < 1e-2 * low[0] < 1e-5
    assert norm[1] > 100 * norm[0]


def test_spectral_filter_and_mixed_mass(tmp_path):
    m = run(tmp_path / "s", WAVE, mass="lumped", hum__filter="spectral")
    assert m["control_norm"] == pytest.approx(0.577350, rel=0.06)
    assert 1.5 < m["observability"] < 2.2  # reference: 1.74 to 1.78 semi-discrete, exact 2
    m = run(tmp_path / "m", WAVE, mass="mixed", hum__filter="none", time__steps=96)
    assert m["control_norm"] == pytest.approx(0.577350, rel=0.05)
    assert m["final_state"] < 1e-6


def test_heat_table(tmp_path):
    """Penalised HUM, implicit Euler, N_t = 4/h: the reference's table within 2 %."""
    for eps, norm, final in ((0.0025, 0.2323, 3.6e-3), (0.05**4, 0.2750, 1.0e-4)):
        m = run(tmp_path / "h", HEAT, hum__epsilon=eps)
        assert m["control_norm"] == pytest.approx(norm, rel=0.02)
        assert m["final_norm"] == pytest.approx(final, rel=0.05)
    m = run(tmp_path / "h", HEAT, coefficient="0.1", time__end=0.5, hum__epsilon=0.05**4,
            control__where="where(0.2 < x < 0.8, 1, 0)", initial__y0="sin(pi*x)")  # fmt: skip
    assert m["control_norm"] == pytest.approx(0.9325, rel=0.02)


@pytest.mark.parametrize("control", [{}, {"control__where": None, "control__on": ["right"]}])
def test_the_penalised_control_is_the_minimiser(control):
    """J(v) = |v|^2/2 + |y(T)|^2/(2 eps): its gradient is 0 at HUM's v, second-order Taylor test."""
    g, s = gramian_of(HEAT, hum__epsilon=1e-3, **control)
    a = g.system
    p0 = s.functional("sin(pi*x)**10")

    def J(v):
        p = a.final(p0, v)
        return 0.5 * g.inner(v, v) + 0.5 / g.epsilon * s.dot(p, s.inverse("M")(p))

    *_, state = (
        i
        for i, _ in zip(
            conjugate_gradients(g, s.inverse("M"), s.dot, -a.final(p0, None)),
            range(40),
            strict=False,
        )
    )
    v = g.control(state.x)
    d = np.random.default_rng(0).normal(size=v.shape)
    steps = np.array([1e-1, 1e-2])
    rest = np.array([J(v + h * d) - J(v) for h in steps])
    assert rest[0] / rest[1] == pytest.approx(100, rel=1e-3)
    # away from the minimum the adjoint gives the gradient: the rest falls at slope 2
    w = v + np.random.default_rng(1).normal(size=v.shape)
    gradient = w + g.control(s.inverse("M")(a.final(p0, w))) / g.epsilon
    slope = g.inner(gradient, d)
    rest = np.array([J(w + h * d) - J(w) - h * slope for h in steps])
    assert np.log10(rest[0] / rest[1]) == pytest.approx(2, abs=1e-3)


def test_all_modes_precondition_exactly():
    g, s = gramian_of(HEAT, hum__epsilon=1e-6)
    P = preconditioner(g, Modes(s, 1000))
    b = s.functional("sin(pi*x)**3")
    states = list(zip(conjugate_gradients(g, P, s.dot, b), range(3), strict=False))
    assert states[2][0].rz < 1e-12 * states[0][0].rz


def test_lanczos_finds_the_extreme_eigenvalues():
    g, s = gramian_of(WAVE, hum__filter="none", mesh__parameters__h=0.1)
    P = energy(g.system).riesz
    n = len(s.free)
    unit = np.eye(2 * n).reshape(-1, 2, n)
    A = np.array([g(e).ravel() for e in unit])
    values = np.sort(np.linalg.eigvals(np.array([P(p.reshape(2, n)).ravel() for p in A])).real)
    np.testing.assert_allclose(A, A.T, atol=1e-10)
    start = np.random.default_rng(0).normal(size=(2, n))
    found = lanczos(g, P, s.dot, start, 60, 1e-8)
    assert found.low == pytest.approx(values[0], rel=1e-5)
    assert found.high == pytest.approx(values[-1], rel=1e-5)


def test_weight_makes_a_control_that_begins_and_ends_at_zero(tmp_path):
    m = run(tmp_path / "w", WAVE, control__weight="sin(pi*t/2.4)**2", initial__y0="sin(pi*x)")
    assert m["final_state_filtered"] < 1e-7
    v = np.load(tmp_path / "w" / "control.npz")["v"][:, 0]
    assert abs(v[0]) + abs(v[-1]) < 1e-12 * np.abs(v).max()
    assert m["control_norm"] > 0.4787


# the set at T = 2: {f + c}


def exact_set(t, y1):
    """D'Alembert's control at T = 2 for y0 = sin(pi x) + .5 sin(2 pi x), y1 = sin(pi x) or 0."""

    def y0(x):
        return np.sin(np.pi * x) + 0.5 * np.sin(2 * np.pi * x)

    def Y1(a):
        return y1 * (np.cos(np.pi * a) + 1) / np.pi

    s = np.where(t <= 1, 1 - t, t - 1)
    return np.where(t <= 1, y0(s) + Y1(s), -y0(s) + Y1(s)) / 2


def leapfrog_set(J, y1="sin(pi*x)"):
    g, s = gramian_of(WAVE, mass="lumped", time__end=2.0, time__scheme="leapfrog",
                      time__steps=2 * J, mesh__parameters__h=1 / J, hum__filter="none")  # fmt: skip
    y0 = s.functional("sin(pi*x) + 0.5*sin(2*pi*x)")
    free = g.system.final(np.stack([s.functional(y1), -y0]), None)
    return control_set(g, energy(g.system), free, 2, 1e-3)


def test_set_at_the_control_time_is_a_line_of_constants():
    found = leapfrog_set(50)
    assert found.dimension == 1
    assert found.gap > 1e4
    n = found.basis[0, :, 0]
    assert np.ptp(n) < 1e-6 * abs(n.mean())
    t = (found.edges[:-1] + found.edges[1:]) / 2
    f = exact_set(t, 1.0)
    difference = f - found.least[:, 0]
    # Hausdorff distance of two parallel lines, relative to |f|
    distance = found.norm((difference - difference.mean())[:, None])
    assert distance < 0.01 * found.norm(f[:, None])


def test_selections_are_those_of_the_exact_set():
    """C of f + c: least L2, max and L1, and a bound, to the discretisation."""
    found = leapfrog_set(100)
    f = exact_set((found.edges[:-1] + found.edges[1:]) / 2, 1.0)
    for name, c in (("l2", -0.1591549), ("linf", -0.2381283), ("l1", -0.0146421)):
        v = found.selector(name)[:, 0]
        assert (v - f).mean() == pytest.approx(c, abs=0.01)
    assert found.norm(found.selector("linf"), "max") == pytest.approx(0.6568872, rel=0.01)
    assert found.norm(found.selector("l1"), "L1") == pytest.approx(0.6680933, rel=0.01)
    # constants have no slope: the smoothest is the least here
    np.testing.assert_allclose(found.selector("smooth"), found.least, atol=1e-4)
    v = found.selector("bounded", bound=0.7)
    assert found.norm(v, "max") <= 0.7 + 1e-6
    assert found.norm(found.least) <= found.norm(v) <= found.norm(found.selector("linf"))
    with pytest.raises(CaseError, match=r"the least possible is 0\.6"):
        found.selector("bounded", bound=0.6)


def test_gauss_rule(tmp_path):
    changes = {"initial__y0": "sin(pi*x)", "mesh__parameters__h": 0.025, "time__steps": 96}
    m = run(tmp_path / "g", WAVE, **changes, time__scheme="gauss", hum__lanczos=0)
    assert m["control_norm"] == pytest.approx(0.478714, rel=5e-3)
    assert m["cg_iterations"] < 20
    assert m["final_state_filtered"] < 1e-7


def test_longer_times_have_more_free_directions():
    g, s = gramian_of(WAVE, mass="lumped", time__end=2.4, time__scheme="leapfrog",
                      time__steps=48, mesh__parameters__h=0.05, hum__filter="none")  # fmt: skip
    free = np.zeros((2, len(s.free)))
    # L2(0, .4) + R on control steps of .1
    assert control_set(g, energy(g.system), free, 2, 1e-3).dimension == 5


# runs


@pytest.mark.parametrize("kind", ["none", "spectral"])
def test_interrupted_and_continued_is_the_same(tmp_path, monkeypatch, kind):
    changes = {"mass": "lumped", "hum__filter": kind, "mesh__parameters__h": 0.1}
    whole = run(tmp_path / "a", WAVE, **changes)
    calls = iter([False] * 3 + [True] * 100)
    monkeypatch.setattr(
        null_control_run.Run, "asked_to_stop", lambda self: next(calls), raising=True
    )
    with pytest.raises(Interrupted, match="--restart"):
        run(tmp_path / "b", WAVE, **changes)
    monkeypatch.undo()
    again = run(tmp_path / "b", WAVE, restart=True, **changes)
    assert again.pop("cg_reason") == whole.pop("cg_reason") == "converged"
    assert again == pytest.approx(whole, rel=1e-9)
    rows = [read_history(tmp_path / k / "convergence.csv") for k in "ab"]
    np.testing.assert_array_equal(rows[0]["step"], rows[1]["step"])
    np.testing.assert_allclose(rows[0]["residual"], rows[1]["residual"], rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"time__end": 1.5}, "time.end = 1.5 is below 2"),
        ({"control__on": ["left", "right"], "time__end": 0.9}, "is below 1"),
        ({"mesh__parameters__h": 0.2}, "5 cells"),
        ({"mass": "lumped", "time__scheme": "leapfrog", "time__steps": 20}, "CFL"),
        ({"control__on": ["top"]}, "'top'"),
        ({"control__weight": "-1"}, "control.weight"),
        ({"mass": "lumped", "hum__filter": "spectral", "hum__gamma": 1e-4}, "hum.gamma"),
        ({"set": {"control_step": 1}, "time__steps": 3000}, "at most 2000"),
        ({"time__scheme": "bdf2"}, "time.scheme"),
        ({"time__scheme": "leapfrog"}, "lumped"),
        ({"hum__modes": 3}, "hum.modes"),
        ({"control__where": "1"}, "either on"),
        ({"equation": "heat"}, "hum.filter"),
    ],
)
def test_refused(tmp_path, changes, named):
    with pytest.raises(CaseError, match=named):
        run(tmp_path / "r", WAVE, **changes)


def test_not_converged_and_hardly_seen_is_said(tmp_path):
    case = case_of(WAVE, hum__filter="none", mass="lumped", hum__max_iterations=3)
    handle = null_control_run.Run(
        MPI.COMM_SELF, tmp_path, False, dataclasses.make_dataclass("P", [])()
    )
    handle.progress.update = lambda *a: None
    m = null_control_run.run_case(case, handle)
    assert m["cg_reason"] == "max_iterations"
    assert "3 iterations" in handle.notes[0]
    assert f"observability constant is {m['observability']:.2g}" in handle.notes[1]
