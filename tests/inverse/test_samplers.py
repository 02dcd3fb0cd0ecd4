"""Samplers against exact laws: for a Gaussian prior every step is affine."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fem_apps.errors import CaseError
from fem_apps.inverse import samplers, samplers_guided, samplers_linear
from fem_apps.inverse.operators import from_matrix, from_model
from fem_apps.inverse.samplers import levels, sample
from fem_apps.surrogates.score_exact import gaussian

PRIOR = gaussian(np.zeros(1), np.array([[4.0]]))
ONE = from_matrix("identity", np.eye(1))
Y, NOISE = np.array([2.0]), 1.0


def exact_flow(x, a):
    """The end of the probability flow of N(0, 4)."""
    return jnp.sqrt(4 / (4 + a**2)) * x


def make(name):
    guided, linear = samplers_guided, samplers_linear
    return {
        "euler": lambda: samplers.euler(PRIOR),
        "heun": lambda: samplers.heun(PRIOR),
        "ancestral": lambda: samplers.ancestral(PRIOR),
        "moment-matching": lambda: guided.moment_matching(PRIOR, ONE, Y, NOISE),
        "pigdm": lambda: guided.pigdm(PRIOR, ONE, Y, NOISE),
        "pigdm-ddim": lambda: guided.pigdm(PRIOR, ONE, Y, NOISE, eta=1.0),
        "ddnm+": lambda: linear.ddnm_plus(PRIOR, ONE, Y, NOISE),
        "ddrm": lambda: linear.ddrm(PRIOR, ONE, Y, NOISE),
        "diffpir": lambda: linear.diffpir(PRIOR, ONE, Y, NOISE),
        "daps": lambda: guided.split("daps", exact_flow, ONE, Y, NOISE),
        "gibbs": lambda: guided.split("gibbs", PRIOR, ONE, Y, NOISE, v=4.0),
    }[name]()


# mean and variance after 20, 100, 1000 levels (closed form; see docs/imaging.md)
TABLE = {
    "euler": [(0, 3.184350), (0, 3.826686), (0, 3.980149)],
    "heun": [(0, 4.196294), (0, 4.004155), (0, 3.997467)],
    "ancestral": [(0, 2.580533), (0, 3.649678), (0, 3.963062)],
    "moment-matching": [(1.599800, 0.492284), (1.599800, 0.721965), (1.599800, 0.791645)],
    "pigdm": [(1.880678, 0.362185), (1.828211, 0.591336), (1.818190, 0.661108)],
    "pigdm-ddim": [(1.163953, 0.481930), (1.526871, 0.410230), (1.593124, 0.400817)],
    "ddnm+": [(1.882363, 0.028758), (1.981283, 0.003383), (1.997873, 0.000379)],
    "ddrm": [(1.626834, 0.211796), (1.820810, 0.084070), (1.964210, 0.017147)],
    "diffpir": [(1.736900, 0.459479), (1.665007, 0.641707), (1.609004, 0.721766)],
    "daps": [(1.811704, 0.880714), (1.785194, 0.885583), (1.778632, 0.888449)],
    "gibbs": [(1.6, 0.8), (1.6, 0.8), (1.6, 0.8)],
}


def law(sampler, grid):
    """Mean and variance at the end, from the sampler's own steps."""
    noises = sampler.noises

    @jax.jit
    def affine(a, b):
        # rows: x = 0; x = 1; then each noise alone
        x = jnp.zeros((2 + noises, 1)).at[1].set(1.0)
        xi = jnp.concatenate([jnp.zeros((noises, 2)), jnp.eye(noises)], axis=1)[..., None]
        out = sampler.step(x, a, b, xi)[:, 0]
        return out[0], out[1] - out[0], jnp.sum((out[2:] - out[0]) ** 2)

    mean, variance = 0.0, grid[0] ** 2
    for a, b in pairwise(grid):
        be, al, ga = (float(v) for v in affine(a, b))
        mean, variance = al * mean + be, al**2 * variance + ga
    return mean, variance


def test_grid():
    want = [80, 44.51313, 23.47461, 11.60721, 5.304009, 2.195721, 0.8002736, 0.2459652]
    np.testing.assert_allclose(levels(10), [*want, 0.0594697, 0.01, 0], rtol=1e-6)


@pytest.mark.parametrize("name", TABLE)
def test_law_for_a_gaussian_prior(name):
    sampler = make(name)
    for n, want in zip((20, 100, 1000), TABLE[name], strict=True):
        np.testing.assert_allclose(law(sampler, levels(n)), want, atol=6e-7)


def test_samples_have_that_law():
    """10^5 independent scalars agree within Monte-Carlo error."""
    N = 10**5
    out = sample(make("moment-matching"), levels(20), N, 1, [1])[0, :, 0]
    assert abs(out.mean() - 1.599800) < 4 * np.sqrt(0.4923 / N)
    assert abs(out.var() / 0.492284 - 1) < 4 * np.sqrt(2 / N)
    other = sample(make("moment-matching"), levels(20), N, 1, [2])[0, :, 0]
    assert abs(np.corrcoef(out, other)[0, 1]) < 4 / np.sqrt(N)


def test_samples_of_a_seed_do_not_depend_on_others():
    step = make("ancestral")
    both = sample(step, levels(10), 3, 1, [5, 6])
    np.testing.assert_array_equal(both[1], sample(step, levels(10), 3, 1, [6])[0])


def problem(seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(5, 10)) / np.sqrt(10)
    C = np.diag(np.linspace(0.05, 4, 10))
    prior = gaussian(np.zeros(10), C)
    x = prior.samples(1, rng)[0]
    y = A @ x + noise * rng.normal(size=5)
    return prior, from_matrix("dense", A), y, noise


def test_moment_matching_score_is_exact_for_gaussian_priors():
    """Identity 5: (D - x)/s^2 + g is the conditional score at every (x, s)."""
    prior, A, y, noise = problem()
    x = np.random.default_rng(1).normal(size=(3, 10))
    step = samplers_guided.moment_matching(prior, A, y, noise, iterations=50, tolerance=1e-14).step
    C = prior.covariances[0]
    for a in (0.1, 1.0, 10.0):
        # the step to b with xi = 0 moves by (a^2 - b^2) times the score
        b = 0.5 * a
        score = (step(jnp.asarray(x), a, b, jnp.zeros((1, 3, 10))) - x) / (a**2 - b**2)
        Ca = C + a**2 * np.eye(10)
        gain = A.dense @ C @ np.linalg.inv(Ca)
        S = A.dense @ (C - C @ np.linalg.inv(Ca) @ C) @ A.dense.T + noise**2 * np.eye(5)
        want = -np.linalg.solve(Ca, x.T).T + (y - x @ gain.T) @ np.linalg.solve(S, gain)
        np.testing.assert_allclose(score, want, rtol=1e-8, atol=1e-10)


def test_gauss_newton_draw_is_exact_for_linear_operators():
    """The same affine map of x, and the same law of what is drawn."""
    prior, A, y, noise = problem()
    F = from_model(
        "host", A.shape, lambda x: A.dense @ x, lambda x, w: A.dense.T @ w, lambda x: A.dense
    )
    x, a, b = jnp.asarray(np.random.default_rng(1).normal(size=(3, 10))), 1.5, 0.7
    exact = samplers_guided.split("gibbs", prior, A, y, noise, v=1.0).step
    ours = samplers_guided.split("gibbs", prior, F, y, noise, v=1.0, gauss_newton=2).step
    zero = jnp.zeros((2, 3, 10))
    np.testing.assert_allclose(ours(x, a, b, zero), exact(x, a, b, zero), rtol=1e-9, atol=1e-11)

    def spread(step):
        columns = [
            step(x, a, b, zero.at[:, :, k].set(jnp.array([[1.0], [0.0]])))[0] for k in range(10)
        ]
        B = np.stack(columns) - step(x, a, b, zero)[0]
        return B.T @ B

    np.testing.assert_allclose(spread(ours), spread(exact), rtol=1e-9, atol=1e-11)


def test_gauss_newton_draw_is_centred_at_the_mode():
    prior, A, y, noise = problem()
    F = from_model(
        *("bent", A.shape),
        lambda x: np.sinh(A.dense @ x),
        lambda x, w: A.dense.T @ (np.cosh(A.dense @ x) * w),
        lambda x: np.cosh(A.dense @ x)[:, None] * A.dense,
    )
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 10)))
    step = samplers_guided.split("gibbs", prior, F, y, noise, v=1.0, gauss_newton=30).step
    z, z0, r2 = step(x, 1.5, 0.0, jnp.zeros((2, 3, 10))), prior(x, 1.5), 1.5**2 / (1.5**2 + 1)
    g = jax.vmap(lambda z: jax.grad(lambda z: jnp.sum((jnp.sinh(A.dense @ z) - y) ** 2))(z))(z)
    np.testing.assert_allclose(g / (2 * noise**2) + (z - z0) / r2, 0, atol=1e-6)


def test_ddnm_is_consistent_to_rounding_and_no_posterior():
    prior, A, _, _ = problem()
    y = A.dense @ np.ones(10)
    out = sample(samplers_linear.ddnm(prior, A, y), levels(50), 4, 10, [0])[0]
    assert np.abs(out @ A.dense.T - y).max() < 1e-13


def test_limits_of_pigdm_and_diffpir_are_ddnm():
    """Identity 3: with s_n -> 0 the corrections are those of the pseudo-inverse."""
    prior, A, y, _ = problem()
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 10)))
    zero = jnp.zeros((1, 2, 10))
    xh = samplers_linear.diffpir(prior, A, y, 1e-7).step(x, 1.0, 0.0, zero)
    x0 = prior(x, 1.0)
    np.testing.assert_allclose(xh, x0 + A.pseudo_inverse(y - x0 @ A.dense.T), rtol=1e-9)
    C = prior.covariances[0]
    J = C @ np.linalg.inv(C + np.eye(10))
    moved = samplers_guided.pigdm(prior, A, y, 0.0, eta=0.0).step(x, 1.0, 0.0, zero) - x0
    np.testing.assert_allclose(moved, A.pseudo_inverse(y - x0 @ A.dense.T) @ J, rtol=1e-9)


def test_range_and_null_space():
    """Identity 1."""
    _, A, _, _ = problem()
    P = np.eye(10) - np.asarray(A.pseudo_inverse(A.dense.T).T)
    np.testing.assert_allclose(P @ P, P, atol=1e-14)
    np.testing.assert_allclose(P, P.T, atol=1e-14)
    np.testing.assert_allclose(A.dense @ P, 0, atol=1e-14)


@pytest.mark.parametrize("name", ["moment-matching", "gibbs", "dps", "langevin"])
def test_posterior_of_ten_unknowns(name):
    """Means over 2000 samples: moment matching and exact Gibbs to Monte-Carlo error."""
    prior, A, y, noise = problem()
    exact = prior.posterior(A.dense, y, noise)
    guided = samplers_guided
    sampler = {
        "moment-matching": lambda: guided.moment_matching(prior, A, y, noise),
        "gibbs": lambda: guided.split("gibbs", prior, A, y, noise, v=1.0),
        "langevin": lambda: guided.split(
            "gibbs", prior, A, y, noise, v=1.0, langevin=40, curvature=40.0, step_size=0.5
        ),
        "dps": lambda: guided.dps(prior, A, y, zeta=0.3),
    }[name]()
    out = sample(sampler, levels(100, smallest=0.02), 2000, 10, [3])[0]
    error = np.linalg.norm(out.mean(axis=0) - exact.mean) / np.sqrt(np.trace(exact.covariance))
    assert error < {"moment-matching": 0.05, "gibbs": 0.3, "dps": 1.0, "langevin": 0.3}[name]
    if name == "moment-matching":
        np.testing.assert_allclose(np.trace(np.cov(out.T)), np.trace(exact.covariance), rtol=0.12)


def test_langevin_steps_have_their_own_variance():
    """x' = x - h p x + sqrt(2h) xi is stationary with variance 1/(p (1 - h p/2)), not 1/p."""
    draw = samplers_guided._langevin_draw(ONE, np.zeros(1), 1.0, 60, 1.0, 0.5)
    xi = jnp.asarray(np.random.default_rng(0).normal(size=(60, 100_000, 1)))
    z = np.asarray(draw(jnp.zeros((100_000, 1)), 0.5, xi))
    p, h = 3.0, 0.5 / 3
    want = 1 / (p * (1 - h * p / 2))
    assert abs(z.var() / want - 1) < 0.02
    assert want > 1.3 / p


def test_nonlinear_operators_are_refused_where_singular_values_are_needed():
    square = from_model("square", (1, 1), lambda x: x**2, lambda x, w: 2 * x * w)
    with pytest.raises(CaseError, match="not linear"):
        samplers_linear.ddrm(PRIOR, square, Y, NOISE)
    # and taken where a derivative is enough
    out = sample(samplers_guided.dps(PRIOR, square, Y), levels(20), 3, 1, [0])
    assert np.isfinite(out).all()
