"""Samplers for linear operators, by singular values: DDNM, DDNM+, DDRM, DiffPIR.

With A = U diag(sig) V^T, ybar = U^T y/sig and se = s_n/sig, x0 = D(x, a), K = 1 - (b/a)^2, c = b
sqrt(K):

    ddnm       xh = A^+ y + (I - A^+ A) x0 in place of x0 in the ancestral step: A x = y in the end
    ddnm+      xh = x0 + L A^+(y - A x0), L = 1 if c >= K se else c/(K se);
               x' = (1-K) x + K xh + noise of variance c^2 - (K L se)^2
    ddrm       b >= se: x' = (1-eta_b) x0 + eta_b ybar + sqrt(b^2 - eta_b^2 se^2) xi
               b <  se: x' = x0 + sqrt(1-eta^2)(b/se)(ybar - x0) + eta b xi;   null space: DDIM
    diffpir    xh = argmin |y - A x|^2 + rho |x - x0|^2, rho = lam s_n^2/a^2;
               x' = xh + b(sqrt(zeta) xi + sqrt(1-zeta)(x - xh)/a)

Wang, Yu, Zhang, arXiv 2212.00490; Kawar et al., 2201.11793; Zhu et al., 2305.08995.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fem_apps.inverse.operators import Operator
from fem_apps.inverse.samplers import Denoise, Sampler, ancestral_step, ddim_step


def ddnm(denoise: Denoise, operator: Operator, y: np.ndarray) -> Sampler:
    """Range and null space, exact consistency: for data without noise."""
    Vt, ybar = operator.spectrum.Vt, _ybar(operator, y)

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        x0 = denoise(x, a)
        return ancestral_step(x, x0 + (ybar - x0 @ Vt.T) @ Vt, a, b, xi[0])

    return Sampler("ddnm", step)


def ddnm_plus(denoise: Denoise, operator: Operator, y: np.ndarray, noise: float) -> Sampler:
    """DDNM for noisy data: corrects no more than the step's own noise can cover."""
    S, ybar = operator.spectrum, _ybar(operator, y)
    se = noise / S.s

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        K = 1 - (b / a) ** 2
        c = b * jnp.sqrt(K)
        x0 = denoise(x, a)
        L = jnp.minimum(1.0, c / (K * jnp.maximum(se, 1e-300)))
        xh = x0 + (L * (ybar - x0 @ S.Vt.T)) @ S.Vt
        row = xi[0] @ S.Vt.T
        scale = jnp.sqrt(jnp.maximum(c**2 - (K * L * se) ** 2, 0.0))
        z = c * (xi[0] - row @ S.Vt) + (scale * row) @ S.Vt
        return (1 - K) * x + K * xh + z

    return Sampler("ddnm+", step)


def ddrm(
    denoise: Denoise,
    operator: Operator,
    y: np.ndarray,
    noise: float,
    *,
    eta: float = 0.85,
    eta_b: float = 1.0,
) -> Sampler:
    """Denoising diffusion restoration."""
    S, ybar = operator.spectrum, _ybar(operator, y)
    se = noise / S.s

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        x0 = denoise(x, a)
        free = ddim_step(x, x0, a, b, xi[0], eta)
        d, e = x0 @ S.Vt.T, xi[0] @ S.Vt.T
        spread = jnp.sqrt(jnp.maximum(b**2 - eta_b**2 * se**2, 0.0))
        early = (1 - eta_b) * d + eta_b * ybar + spread * e
        share = b / jnp.maximum(se, 1e-300)
        late = d + (1 - eta**2) ** 0.5 * share * (ybar - d) + eta * b * e
        row = jnp.where(b >= se, early, late)
        return free + (row - free @ S.Vt.T) @ S.Vt

    return Sampler("ddrm", step)


def diffpir(
    denoise: Denoise,
    operator: Operator,
    y: np.ndarray,
    noise: float,
    *,
    lam: float = 1.0,
    zeta: float = 0.3,
) -> Sampler:
    """Half-quadratic splitting with a diffusion denoiser."""
    S, yu = operator.spectrum, jnp.asarray(y) @ operator.spectrum.U

    def step(x: jax.Array, a: jax.Array, b: jax.Array, xi: jax.Array) -> jax.Array:
        x0 = denoise(x, a)
        rho = lam * noise**2 / a**2
        xh = x0 + (S.s / (S.s**2 + rho) * (yu - S.s * (x0 @ S.Vt.T))) @ S.Vt
        return xh + b * (zeta**0.5 * xi[0] + (1 - zeta) ** 0.5 * (x - xh) / a)

    return Sampler("diffpir", step)


def _ybar(operator: Operator, y: np.ndarray) -> jax.Array:
    S = operator.spectrum
    return jnp.asarray(y) @ S.U / S.s
