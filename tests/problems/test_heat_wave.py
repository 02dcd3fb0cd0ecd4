"""Heat and wave equations: exact discrete adjoints, exact solutions with rates, invariants."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.split import split
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.heat import Heat
from fem_apps.problems.wave import Wave

CONTROLS = {
    "boundary": {"boundary": ("right",)},
    "interior": {"interior": "where(x < 0.5, 1, 0)", "coefficient": "1 + x", "reaction": "1"},
    "one side, flux elsewhere": {"boundary": ("right",), "fixed": ("left",)},
}


def matrices(geometry="interval", h=0.1, mass="consistent", **more):
    data = build(MPI.COMM_SELF, MeshCase(geometry=geometry, parameters={"h": h}))
    return split(data, mass=mass, **(more or CONTROLS["boundary"]))


@pytest.mark.parametrize("geometry", ["interval", "rectangle", "box"])
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("mass", ["consistent", "lumped", "mixed"])
def test_adjoints_are_transposes(geometry, control, mass):
    s = matrices(geometry, 0.4 if geometry == "box" else 0.2, mass, **CONTROLS[control])
    rng = np.random.default_rng(0)
    n, c = len(s.free), len(s.control)
    systems = [Heat(s, 0.5, 7, k) for k in ("implicit-euler", "crank-nicolson", "bdf2")]
    systems += [Wave(s, 0.3, 20, beta) for beta in (0.25, 1 / 12, 0.0)]
    systems += [Wave(s, 0.3, 20, gauss=True)]
    for a in systems:
        e = rng.normal(size=n if isinstance(a, Heat) else (2, n))
        v = rng.normal(size=(len(a.times), c))
        F = a.observe(e)
        left, right = s.dot(a.act(v), e), s.dot(a.weights[:, None] * v, F)
        scale = np.linalg.norm(a.weights[:, None] * v) * np.linalg.norm(F)
        assert abs(left - right) <= 1e-12 * scale
        # the control of the adjoint is the Riesz representative of what it observes
        u = np.stack([s.N(row) for row in a.control(e)])
        np.testing.assert_allclose(u, F, atol=1e-11 * np.abs(F).max())


@pytest.mark.parametrize("mass", ["consistent", "lumped", "mixed"])
@pytest.mark.parametrize("scheme", [{}, {"beta": 1 / 12}, {"gauss": True}])
def test_control_of_the_transpose_brings_the_wave_to_rest(mass, scheme):
    """From the state act(v), the control v ends at rest: the two marches are one scheme."""
    s = matrices(mass=mass)
    a = Wave(s, 0.9, 80, **scheme)
    v = np.random.default_rng(1).normal(size=(81, 1))
    q = a.act(v)
    assert np.abs(a.final(q, v)).max() <= 1e-12 * np.abs(q).max()


def heat_error(h, scheme, steps):
    """Relative error of y = exp(-pi^2 t/4) sin(pi x) + boundary value, y(1) = t cos(t)."""
    s = matrices(h=h, coefficient="0.25", boundary=("right",))
    a = Heat(s, 0.5, steps, scheme)
    # the boundary value that belongs to exp(-k t) sin(k' x), k = k'^2/4, k' = 2.5
    k = 2.5
    t = a.times if scheme != "crank-nicolson" else a.times - a.dt / 2
    v = np.exp(-(k**2) * t / 4)[:, None] * np.sin(k)
    lift = s.functional(f"sin({k}*x)")
    y = a.values(a.final(lift, v), v[-1])
    exact = np.exp(-(k**2) / 8) * np.sin(k * s.x[:, 0])
    return np.linalg.norm(y - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(("scheme", "order"), [("implicit-euler", 1), ("bdf2", 2)])
def test_heat_converges_in_time_to_an_exact_solution_with_boundary_data(scheme, order):
    errors = [heat_error(0.00625, scheme, n) for n in (8, 16)]
    assert np.log2(errors[0] / errors[1]) > order - 0.3


def test_crank_nicolson_of_a_mode():
    s = matrices(h=0.005, coefficient="0.25", boundary=("right",))
    errors = []
    for n in (4, 8):
        a = Heat(s, 0.5, n, "crank-nicolson")
        y = a.values(a.final(s.functional("sin(pi*x)"), None), None)
        errors.append(np.abs(y - np.exp(-(np.pi**2) / 8) * np.sin(np.pi * s.x[:, 0])).max())
    assert np.log2(errors[0] / errors[1]) > 1.8


@pytest.mark.parametrize(("mass", "beta"), [("consistent", 0.25), ("mixed", 0.25), ("lumped", 0)])
def test_wave_of_a_mode_converges_at_second_order(mass, beta):
    errors = []
    for h in (0.05, 0.025):
        s = matrices(h=h, mass=mass)
        a = Wave(s, 1.3, round(1.3 / h * 2), beta)
        q = np.stack([s.functional("sin(2*pi*x)"), -s.functional("sin(pi*x)")])
        w = -a.final(q, None)[1]
        exact = np.cos(np.pi * 1.3) * np.sin(np.pi * s.x[:, 0])
        exact += np.sin(2 * np.pi * 1.3) / (2 * np.pi) * np.sin(2 * np.pi * s.x[:, 0])
        errors.append(np.abs(a.values(w, None) - exact).max())
    assert np.log2(errors[0] / errors[1]) > 1.8


@pytest.mark.parametrize("mass", ["consistent", "lumped"])
def test_gauss_is_of_fourth_order_and_stable_at_any_step(mass):
    """Against the exact motion of the discrete mode: the error is that of time alone."""
    s = matrices(h=0.05, mass=mass)
    phi = np.sin(3 * np.pi * s.x[:, 0])
    omega = np.sqrt(s.dot(phi, s.K(phi)) / s.dot(phi, s.M(phi)))
    errors = []
    for steps in (20, 40):
        a = Wave(s, 1.3, steps, gauss=True)
        w = -a.final(a.start(np.stack([s.M(phi), -2 * s.M(phi)])), None)[1]
        exact = 2 * np.cos(1.3 * omega) + np.sin(1.3 * omega) / omega
        errors.append(np.abs(a.values(w, None) - exact * phi).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)
    a = Wave(s, 1000.0, 200, gauss=True)
    for z, _ in a.march_adjoint(s.x[:, 0] * (1 - s.x[:, 0]), 0 * phi):
        assert np.abs(z).max() < 3


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("geometry", ["interval", "rectangle", "box"])
def test_fused_leapfrog_is_leapfrog(geometry, control):
    """The pass over slices against the same steps through PETSc; 70 rows: slices and a rest."""
    s = matrices(geometry, 0.4 if geometry == "box" else 0.1, "lumped", **CONTROLS[control])
    a, b = (Wave(s, 0.5, 60, 0.0) for _ in range(2))
    b.leapfrog = None
    rng = np.random.default_rng(0)
    e, v = rng.normal(size=(2, len(s.free))), rng.normal(size=(61, len(s.control)))
    for mine, through in (
        (a.observe(e), b.observe(e)),
        (a.control(e), b.control(e)),
        (a.act(v), b.act(v)),
    ):
        np.testing.assert_allclose(mine, through, rtol=0, atol=1e-11 * np.abs(through).max())


def test_wave_conserves_the_energy_of_its_scheme():
    s = matrices("rectangle", 0.2)
    a = Wave(s, 2.0, 60, 0.25)
    M, K = s.M, s.K
    before, energies = None, []
    for _, (phi, _) in zip(range(60), a.march_adjoint(s.x[:, 0] * 0.3, s.x[:, 1]), strict=False):
        if before is not None:
            d, m = (phi - before) / a.dt, (phi + before) / 2
            energies.append(s.dot(d, M(d)) + s.dot(m, K(m)))
        before = phi
    assert np.ptp(energies) <= 1e-12 * energies[0]


def test_leapfrog_at_the_speed_of_light_is_exact():
    """Dt = h, lumped mass: a control v travels unchanged, y(x, t) = v(t - (1 - x))."""
    s = matrices(h=0.05, mass="lumped")
    a = Wave(s, 0.9, 18, 0.0)
    v = np.sin(7 * a.times)[:, None] ** 2
    w = -a.final(np.zeros((2, len(s.free))), v)[1]
    late = 0.9 - (1 - s.x[:, 0])
    exact = np.where(late > 0, np.sin(7 * np.maximum(late, 0)) ** 2, 0)
    np.testing.assert_allclose(a.values(w, None), exact, atol=1e-13)


def test_cfl_is_refused_with_its_number():
    s = matrices(h=0.05, mass="lumped")
    Wave(s, 1.0, 20, 0.0)
    with pytest.raises(CaseError, match=r"CFL condition dt <= 0\.05"):
        Wave(s, 1.0, 15, 0.0)


def test_empty_region_and_sign_of_the_coefficient_are_refused():
    with pytest.raises(CaseError, match="control region is empty"):
        matrices(interior="where(0.42 < x < 0.43, 1, 0)")
    with pytest.raises(CaseError, match="not positive"):
        matrices(boundary=("right",), coefficient="x - 0.5")
    with pytest.raises(CaseError, match="no boundary parts named 'top'"):
        matrices(boundary=("top",))
