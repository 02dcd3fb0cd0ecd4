"""Adjoint identity and Taylor tests: transport on a mesh, particles, surface terms, training."""

import jax.numpy as jnp
import numpy as np
import pytest
from transport import mesh_of, unit_box

from fem_apps.control.normalizing_flow_entropy import compare
from fem_apps.control.normalizing_flow_map import Schedule, jax_log_density, log_density, pieces
from fem_apps.control.normalizing_flow_mesh import Controls, MeshControl
from fem_apps.control.normalizing_flow_targets import Mixture
from fem_apps.control.normalizing_flow_train import Improve, improve, likelihood, random_pieces
from fem_apps.problems.continuity import DG
from fem_apps.problems.continuity_adjoint import Transport
from fem_apps.problems.continuity_dg import DGSolver
from fem_apps.problems.continuity_velocity import double_precision, expressions

TWO = Mixture(np.ones(2), np.array([[-1.0, 0.0], [1.0, 0.5]]), np.array([[0.7, 0.8], [0.6, 0.7]]))


def slopes(f, gradient, theta, direction, sizes=(4e-3, 2e-3, 1e-3, 5e-4)):
    """Orders of the second-order Taylor remainder."""
    base, along = f(theta), float((gradient * direction).sum())
    r = [abs(f(theta + h * direction) - base - h * along) for h in sizes]
    return np.log2(np.array(r[:-1]) / np.array(r[1:]))


@pytest.mark.parametrize("data", [unit_box(2, 5), mesh_of("disc", h=0.4)], ids=["square", "disc"])
def test_adjoint_identity(data):
    """(lambda, L u) = (L^T lambda, u) to rounding."""
    s = DGSolver(data, expressions(["0.3 - y", "x + 0.1"]), {}, DG(degree=2, limiter="none"))
    rng = np.random.default_rng(0)
    u, lam = rng.normal(size=(2, s.cells.size, s.cells.phi.shape[1]))
    out = np.empty_like(u)
    s.stage(0.0, u, u, 0.0, 1.0, 1.0, out)
    adjoint = Transport(s, lambda p, x, t: x * p, np.array([0.0, 1.0]))
    back, _ = adjoint.transposed(lam, u)
    one, two = (lam * (out - u)).sum(), (back * u).sum()
    assert abs(one - two) < 1e-12 * (np.abs(lam * (out - u)).sum())


def test_taylor_on_a_mesh():
    """d/d(w, a, b) of the entropy of the finite-element density: remainder of order 2.

    The steps are so small that no kink of (a.x + b)_+ crosses a quadrature point.
    """
    control = MeshControl(
        mesh_of("rectangle", h=0.6, width=8, height=8, x0=-4, y0=-4), TWO, 2, steps_per_piece=8
    )
    rng = np.random.default_rng(1)
    w, a = 0.4 * rng.normal(size=(2, 2, 2, 2))
    b = 0.5 + 0.3 * rng.normal(size=(2, 2))
    _, g = control.value_and_gradient(Controls(w, a, b))
    for name in ("w", "a", "b"):
        theta = {"w": w, "a": a, "b": b}
        direction = rng.normal(size=theta[name].shape)

        def f(value, name=name, theta=theta):
            return control.value_and_gradient(Controls(**(theta | {name: value})))[0]

        small = (2e-6, 1e-6, 5e-7)
        order = slopes(f, getattr(g, name), theta[name], direction, small)
        assert np.abs(order - 2).max() < 0.05


def test_mesh_control_lowers_the_entropy():
    control = MeshControl(
        mesh_of("rectangle", h=0.6, width=8, height=8, x0=-4, y0=-4), TWO, 2, steps_per_piece=6
    )
    rng = np.random.default_rng(0)
    start = random_pieces(4, TWO.sample(100, rng), rng)
    start = Controls(start.w.reshape(2, 2, 2), start.a.reshape(2, 2, 2), start.b.reshape(2, 2))
    _, history = control.improve(start, 15, rate=0.05)
    assert min(history) < history[0] - 0.1


def test_taylor_of_particles():
    """In w the closed form is differentiated exactly."""
    rng = np.random.default_rng(3)
    s = random_pieces(6, rng.normal(size=(10, 2)), rng)
    w = 0.5 * rng.normal(size=s.w.shape)
    z = TWO.sample(200, rng)
    with double_precision():
        import jax

        def f(w):
            return -jax_log_density(w, s.a, s.b, s.tau, jnp.asarray(z)).mean()

        g = np.asarray(jax.grad(f)(jnp.asarray(w)))
        # the direction is one piece's, the first: whether z is active in the others may change
        direction = np.zeros_like(w)
        direction[0] = rng.normal(size=2)
        order = slopes(lambda v: float(f(jnp.asarray(v))), g, w, direction, (1e-3, 5e-4, 2.5e-4))
    assert np.abs(order - 2).max() < 0.05


def test_surface_term():
    """dJ/db = pathwise + surface term: .702119 = .969090 - .266971 for the reference's example."""
    z = np.linspace(-8, 8, 400001)
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    w, a = np.array([[0.7]]), np.array([[1.0]])

    def entropy(b):
        """KL(rho_N | rho_B): the samples are the base's, so push forward."""
        from fem_apps.control.normalizing_flow_map import push

        x, growth = push(Schedule(w, a, np.array([b]), np.ones(1)), z[:, None])
        return weight @ (-growth + 0.5 * x[:, 0] ** 2 - 0.5 * z**2)

    with double_precision():
        import jax

        from fem_apps.control.normalizing_flow_train import surface_push

        def by_kernel(b, epsilon):
            x, growth = surface_push(w, a, b, jnp.asarray(z)[:, None], epsilon)
            return (jnp.asarray(weight) * (-growth + 0.5 * x[:, 0] ** 2)).sum()

        slope = jax.grad(by_kernel)(jnp.array([0.3]), 0.01)[0]
    assert abs(entropy(0.3) - 0.598752) < 1e-5
    assert abs(float(slope) - 0.702119) < 2e-4


def test_training_pays():
    """Twelve trained pieces beat what as many constructed ones reach; the state is continued."""
    rng = np.random.default_rng(0)
    samples = TWO.sample(5000, rng)
    control = Improve(steps=200, batch=500, rate=0.02)
    before = random_pieces(12, samples, rng)
    after, _ = improve(before, samples, control, 0)
    kl = compare(TWO, after, 20000, np.random.default_rng(1)).kl
    assert kl < 0.1
    assert kl < 0.5 * compare(TWO, before, 20000, np.random.default_rng(1)).kl


def test_training_is_the_same_when_continued(tmp_path):
    from fem_apps.errors import Interrupted

    rng = np.random.default_rng(0)
    samples = TWO.sample(1000, rng)
    start = random_pieces(3, samples, rng)
    control = Improve(steps=100, batch=50)
    whole, _ = improve(start, samples, control, 5)
    calls = []
    with pytest.raises(Interrupted):
        improve(
            start,
            samples,
            control,
            5,
            state_file=tmp_path / "s.npz",
            stop=lambda: calls.append(1) or len(calls) == 1,
        )
    again, _ = improve(start, samples, control, 5, state_file=tmp_path / "s.npz")
    assert np.array_equal(whole.w, again.w)
    assert np.array_equal(whole.b, again.b)


def test_training_that_fails_keeps_the_start():
    rng = np.random.default_rng(0)
    samples = TWO.sample(500, rng)
    start = random_pieces(3, samples, rng)
    after, _ = improve(start, samples, Improve(steps=5, batch=50, rate=5.0), 0)
    assert np.array_equal(after.w, start.w)
    assert np.array_equal(after.b, start.b)


def test_steep_pieces_stay():
    """Staircases are not touched by training; what they do stays done."""
    s = pieces(2, [((0, 1e5), (1, 0), 0.0, 1.0), ((0.1, 0), (1, 0), 0.2, 1.0)])
    samples = TWO.sample(200, np.random.default_rng(0))
    after, _ = improve(s, samples, Improve(steps=5, batch=50), 0)
    assert np.array_equal(after.w[0], s.w[0])
    assert not np.array_equal(after.w[1], s.w[1])
    assert np.array_equal(after.a, s.a)


def test_likelihood_is_the_log_density():
    rng = np.random.default_rng(0)
    s = random_pieces(5, rng.normal(size=(10, 2)), rng)
    z = rng.normal(size=(50, 2))
    with double_precision():
        value = float(likelihood(s.w, s.a, s.b, jnp.asarray(z), 0.1))
    assert abs(value + log_density(s, z).mean()) < 1e-12
