"""Samplers guided by a likelihood: PiGDM, moment matching, DPS; DAPS and annealed Gibbs sampling.

With x0 = D(x, a), J = dD/dx, g an approximation of grad_x ln p(y | x):

    pigdm            g = J^T A^T (r^2 A A^T + s_n^2 I)^-1 (y - A x0),   r^2 = a^2 v/(a^2 + v)
    moment matching  the same with Cov(x0 | x) = a^2 J in place of r^2 I, by conjugate gradients
                     x' = ancestral step + K a^2 g   (the score plus g);   pigdm also DDIM + r^2 g
    dps              x' = ancestral step - zeta grad_x |y - F(x0(x))|
    daps             z ~ N(ODE(x, a), r^2 I) x likelihood, x' = z + b xi;   r = a
    gibbs            z ~ N(D(x, a), r^2 I) x likelihood, x' = z + b xi;     r^2 = a^2 v/(a^2 + v)

The last draw z from the exact Gaussian where A is linear and has singular values, else by
Gauss-Newton's method and the Gaussian at its end, or by unadjusted Langevin steps. Song et al.
(ICLR 2023); Boys et al., arXiv 2310.06721 and Rozet et al., 2405.13712; Chung et al., 2209.14687;
Zhang et al., 2407.01521.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fem_apps.inverse.operators import Operator
from fem_apps.inverse.samplers import Denoise, Sampler, ancestral_step, ddim_step


def variance(a: jax.Array, v: float) -> jax.Array:
    """Of x0 given x = x0 + a e, for x0 ~ N(0, v)."""
    return a**2 * v / (a**2 + v)


def pigdm(
    denoise: Denoise,
    operator: Operator,
    y: np.ndarray,
    noise: float,
    *,
    v: float = 1.0,
    eta: float | None = None,
) -> Sampler:
    """Pseudo-inverse guidance: in the score of the ancestral step, or with eta in a DDIM step."""
    S, yu = operator.spectrum, jnp.asarray(y) @ operator.spectrum.U

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        x0, pull = jax.vjp(lambda x: denoise(x, a), x)
        r2 = variance(a, v)
        (g,) = pull((S.s / (r2 * S.s**2 + noise**2) * (yu - S.s * (x0 @ S.Vt.T))) @ S.Vt)
        if eta is None:
            return ancestral_step(x, x0, a, b, xi[0]) + (a**2 - b**2) * g
        return ddim_step(x, x0, a, b, xi[0], eta) + r2 * g

    return Sampler("pigdm", step)


def conjugate_gradients(
    H: Callable[[jax.Array], jax.Array],
    b: jax.Array,
    iterations: int,
    tolerance: float,
    floor: float = 0.0,
) -> jax.Array:
    """Solve H w = b row by row, shapes (batch, m), H >= floor.

    The Jacobian of a trained denoiser is neither symmetric nor definite: where the curvature falls
    below the floor, which no covariance can, a row stops.
    """

    def dot(u: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(u * v, axis=-1, keepdims=True)

    limit = tolerance**2 * dot(b, b)

    def going(state: tuple[jax.Array, ...]) -> jax.Array:
        k, _, _, _, rr, alive = state
        return (k < iterations) & jnp.any(alive & (rr > limit))

    def turn(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        k, w, r, p, rr, alive = state
        Hp = H(p)
        curvature = dot(p, Hp)
        alive = alive & (curvature > 0.999 * floor * dot(p, p)) & (rr > limit)
        t = jnp.where(alive, rr / jnp.where(alive, curvature, 1.0), 0.0)
        w, r = w + t * p, r - t * Hp
        new = dot(r, r)
        p = r + jnp.where(alive, new / jnp.where(rr > 0, rr, 1.0), 0.0) * p
        return k + 1, w, r, p, jnp.where(alive, new, rr), alive

    rr = dot(b, b)
    state = (jnp.asarray(0), jnp.zeros_like(b), b, b, rr, jnp.ones_like(rr, dtype=bool))
    return jax.lax.while_loop(going, turn, state)[1]


def moment_matching(
    denoise: Denoise,
    operator: Operator,
    y: np.ndarray,
    noise: float,
    *,
    iterations: int = 30,
    tolerance: float = 1e-6,
) -> Sampler:
    """Moment matching: exact for Gaussian priors, at every (x, s)."""
    A, At = operator.apply, operator.adjoint
    assert At is not None
    target = jnp.asarray(y)

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        x0, pull = jax.vjp(lambda x: denoise(x, a), x)

        def H(w: jax.Array) -> jax.Array:
            return a**2 * A(pull(At(w))[0]) + noise**2 * w

        w = conjugate_gradients(H, target - A(x0), iterations, tolerance, noise**2)
        return ancestral_step(x, x0, a, b, xi[0]) + (a**2 - b**2) * pull(At(w))[0]

    return Sampler("moment-matching", step)


def dps(denoise: Denoise, operator: Operator, y: np.ndarray, *, zeta: float = 1.0) -> Sampler:
    """Diffusion posterior sampling: any differentiable operator; zeta stands for the noise."""
    target = jnp.asarray(y)

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        def distance(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            x0 = denoise(x, a)
            r = target - operator.apply(x0)
            return jnp.sum(jnp.sqrt(jnp.sum(r * r, axis=-1) + 1e-300)), x0

        (_, x0), g = jax.value_and_grad(distance, has_aux=True)(x)
        return ancestral_step(x, x0, a, b, xi[0]) - zeta * g

    return Sampler("dps", step)


def _exact_draw(operator: Operator, y: np.ndarray, noise: float) -> Callable[..., jax.Array]:
    """(z0, r^2, xi) -> a sample of N(z0, r^2 I) times the likelihood."""
    S, yu = operator.spectrum, jnp.asarray(y) @ operator.spectrum.U

    def draw(z0: jax.Array, r2: jax.Array, xi: jax.Array) -> jax.Array:
        precision = S.s**2 / noise**2 + 1 / r2
        move = S.s / noise**2 / precision * (yu - S.s * (z0 @ S.Vt.T))
        row = xi[0] @ S.Vt.T
        z = jnp.sqrt(r2) * (xi[0] - row @ S.Vt) + (row / jnp.sqrt(precision)) @ S.Vt
        return z0 + move @ S.Vt + z

    return draw


def _langevin_draw(
    operator: Operator, y: np.ndarray, noise: float, steps: int, curvature: float, step: float
) -> Callable[..., jax.Array]:
    """The same by z' = z - h (grad f + (z - z0)/r^2) + sqrt(2h) xi, h = step/(curvature + r^-2)."""
    target = jnp.asarray(y)

    def misfit(z: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((operator.apply(z) - target) ** 2) / noise**2

    slope = jax.grad(misfit)

    def draw(z0: jax.Array, r2: jax.Array, xi: jax.Array) -> jax.Array:
        h = step / (curvature + 1 / r2)

        def move(z: jax.Array, e: jax.Array) -> tuple[jax.Array, None]:
            return z - h * (slope(z) + (z - z0) / r2) + jnp.sqrt(2 * h) * e, None

        return jax.lax.scan(move, z0, xi[:steps])[0]

    return draw


def _gauss_newton_draw(
    operator: Operator, y: np.ndarray, noise: float, iterations: int
) -> Callable[..., jax.Array]:
    """The same from N(z*, H^-1), z* the mode by Gauss-Newton, H = F'^T F'/s_n^2 + I/r^2 at z*.

    Exact for linear operators. Each step is the best of its lengths 1, 1/2, 1/4, 1/8, 1/16, 0.
    """
    target, jacobian = jnp.asarray(y), operator.jacobian
    assert jacobian is not None
    lengths = jnp.array([1.0, 0.5, 0.25, 0.125, 0.0625, 0.0])

    def draw(z0: jax.Array, r2: jax.Array, xi: jax.Array) -> jax.Array:
        def cost(z: jax.Array) -> jax.Array:
            r = (operator.apply(z) - target) / noise
            return jnp.sum(r * r, axis=-1) + jnp.sum((z - z0) ** 2, axis=-1) / r2

        def factor(z: jax.Array) -> tuple[jax.Array, jax.Array]:
            J = jacobian(z) / noise
            eye = jnp.eye(z.shape[-1]) / r2
            return J, jnp.linalg.cholesky(jnp.einsum("bmi,bmj->bij", J, J) + eye)

        def solve(L: jax.Array, g: jax.Array, trans: int) -> jax.Array:
            return jax.scipy.linalg.solve_triangular(L, g[..., None], lower=True, trans=trans)[
                ..., 0
            ]

        def move(z: jax.Array, _: None) -> tuple[jax.Array, None]:
            J, L = factor(z)
            r = (operator.apply(z) - target) / noise
            p = solve(L, solve(L, jnp.einsum("bmi,bm->bi", J, r) + (z - z0) / r2, 0), 1)
            trials = z - lengths[:, None, None] * p
            best = jnp.argmin(jax.vmap(cost)(trials), axis=0)
            return jnp.take_along_axis(trials, best[None, :, None], axis=0)[0], None

        z, _ = jax.lax.scan(move, z0, length=iterations)
        return z + solve(factor(z)[1], xi[0], 1)

    return draw


def split(
    name: str,
    anchor: Denoise,
    operator: Operator,
    y: np.ndarray,
    noise: float,
    *,
    v: float | None = None,
    langevin: int = 0,
    curvature: float = 0.0,
    step_size: float = 0.1,
    gauss_newton: int = 0,
) -> Sampler:
    """DAPS and annealed Gibbs sampling: draw z from the anchored likelihood, then add noise again.

    Args:
        name: daps or gibbs.
        anchor: (x, a) -> z0; the end of the probability flow, or D.
        operator: A, or F.
        y: the data.
        noise: s_n.
        v: prior variance in r^2 = a^2 v/(a^2 + v); None: r = a.
        langevin: Langevin steps; 0: the exact draw, for linear operators.
        curvature: of the likelihood, at most; for the length of the Langevin steps.
        gauss_newton: Gauss-Newton steps, in place of both, for an operator with a Jacobian.
        step_size: of Langevin steps, in units of the inverse largest curvature (stable below 2).
    """
    if gauss_newton:
        draw = _gauss_newton_draw(operator, y, noise, gauss_newton)
    elif langevin:
        draw = _langevin_draw(operator, y, noise, langevin, curvature, step_size)
    else:
        draw = _exact_draw(operator, y, noise)

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        r2 = a**2 if v is None else variance(a, v)
        return draw(anchor(x, a), r2, xi[:-1]) + b * xi[-1]

    return Sampler(name, step, (langevin or 1) + 1)
