"""Controls improved by gradients of the relative entropy: maximum likelihood of target samples.

    J(theta) = -E_{rho_*}[ log rho_N ] + c_1 sum_k |w_k| tau_k + c_2 sum_k |w_k|^2 tau_k,

KL(rho_* | rho_N) up to the entropy of rho_*. In w the derivative by the closed-form map is exact.
In a and b the sum sum_k lam_k tau_k [active] jumps where a particle crosses a hyperplane, and
what automatic differentiation leaves out is a surface integral,

    lam_k tau_k E[ delta(a.x + b) d(a.x + b) ].

It is put back by a kernel estimate: the indicator has the derivative of the logistic function of
(a.x + b) / epsilon, while its value stays exact (`surface`). epsilon -> 0 with many samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from fem_apps.control.normalizing_flow_map import Schedule
from fem_apps.problems.continuity_velocity import double_precision
from fem_apps.surrogates.training import Training, fit

# pieces steeper than this are layers of a staircase: they come in pairs, and stay as they are
STEEP = 100.0
# samples by which the end is compared with the start
JUDGES = 20_000

log = logging.getLogger(__name__)


class Improve(Training):
    """The `[improve]` table: gradient descent on the controls."""

    samples: int = Field(50_000, ge=100, description="of the target, drawn once")
    batch: int = Field(1000, ge=1, description="samples a step")
    rate: float = Field(5e-3, gt=0, description="peak learning rate")
    clip: float = Field(10.0, gt=0, description="largest norm of a gradient")
    pieces: int | None = Field(
        None, ge=1, description="start from this many small random pieces, not the construction"
    )
    surface: float = Field(
        0.05, gt=0, description="epsilon: width of the kernel that estimates surface terms"
    )
    cost_l1: float = Field(0.0, ge=0, description="c_1")
    cost_l2: float = Field(0.0, ge=0, description="c_2")


class Flow(eqx.Module):
    """Controls as weights; durations are 1."""

    w: jax.Array
    a: jax.Array
    b: jax.Array
    free: jax.Array = eqx.field(converter=lambda m: jnp.asarray(m, bool))


def surface_push(w: Any, a: Any, b: Any, x: Any, epsilon: float) -> tuple[Any, Any]:
    """Phi(x) and log det D Phi(x), unit durations, with surface terms in the derivatives."""

    def piece(carry: tuple[Any, Any], theta: tuple[Any, ...]) -> tuple[tuple[Any, Any], None]:
        y, growth = carry
        wk, ak, bk = theta
        rate = jnp.dot(wk, ak)
        small = jnp.abs(rate) < 1e-8
        safe = jnp.where(small, 1.0, rate)
        f = jnp.where(small, 1.0 + rate / 2, jnp.expm1(safe) / safe)
        s = y @ ak + bk
        soft = jax.nn.sigmoid(s / epsilon)
        active = soft + jax.lax.stop_gradient((s > 0) - soft)
        return (y + jnp.maximum(s, 0.0)[:, None] * (f * wk), growth + rate * active), None

    (y, growth), _ = jax.lax.scan(piece, (x, jnp.zeros(x.shape[0], x.dtype)), (w, a, b))
    return y, growth


def likelihood(w: Any, a: Any, b: Any, z: Any, epsilon: float) -> Any:
    """Mean over z, shape (n, d), of -log rho_N(z)."""
    x, growth = surface_push(-w[::-1], a[::-1], b[::-1], z, epsilon)
    log_base = -0.5 * (x**2).sum(axis=1) - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi)
    return -(log_base + growth).mean()


def improve(
    schedule: Schedule,
    samples: np.ndarray,
    control: Improve,
    seed: int,
    *,
    progress: Callable[[float, str], None] | None = None,
    state_file: Path | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[Schedule, np.ndarray]:
    """Improve a schedule on samples of its target, shape (n, d). On one rank.

    Steep pieces, which are layers of staircases, are kept; the others' w and b are free, and a
    where none is steep, lest windows overlap. Windows lie far apart, and what stretches one moves
    all above it: such schedules want a small rate. The start is kept where J did not fall.

    Returns:
        The schedule, all durations 1, and the history of J: rows (step, J).

    Raises:
        SolveError: J is not finite any more.
        Interrupted: `stop` said so; `state_file` continues.
    """
    unit = Schedule(
        schedule.w * schedule.tau[:, None], schedule.a, schedule.b, np.ones_like(schedule.b)
    )
    free = np.linalg.norm(unit.w, axis=1) < STEEP
    turn = bool(free.all())
    with double_precision():
        kept = Flow(
            jnp.asarray(unit.w), jnp.asarray(unit.a), jnp.asarray(unit.b), jnp.asarray(free)
        )

        def controls(m: Flow) -> tuple[Any, Any, Any]:
            mask = m.free[:, None]
            w = jnp.where(mask, m.w, kept.w)
            a = jnp.where(mask, m.a, kept.a) if turn else kept.a
            return w, a, jnp.where(m.free, m.b, kept.b)

        def loss(m: Flow, batch: Any, key: Any) -> Any:
            w, a, b = controls(m)
            size = jnp.sqrt((w**2).sum(axis=1) + 1e-12)
            cost = control.cost_l1 * size.sum() + control.cost_l2 * (w**2).sum()
            return likelihood(w, a, b, batch, control.surface) + cost

        done = fit(
            kept,
            loss,
            np.asarray(samples, float),
            control,
            seed,
            progress=progress,
            state_file=state_file,
            stop=stop,
        )
        some = jnp.asarray(samples[:JUDGES], float)
        before, after = (float(loss(m, some, None)) for m in (kept, done.model))
        if not after < before:
            log.warning(
                "gradient descent left J at %.4g, above %.4g where it began: the start is "
                "kept; take a smaller improve.rate",
                after,
                before,
            )
        w, a, b = (
            np.array(q, dtype=float) for q in controls(done.model if after < before else kept)
        )
    return Schedule(w, a, b, np.ones(len(b))), done.history


def random_pieces(count: int, samples: np.ndarray, rng: np.random.Generator) -> Schedule:
    """Small random pieces whose hyperplanes cross the bulk of base and samples."""
    d = samples.shape[1]
    a = rng.standard_normal((count, d))
    a /= np.linalg.norm(a, axis=1)[:, None]
    through = rng.standard_normal((count, d)) * 0.7
    w = 0.05 * rng.standard_normal((count, d))
    return Schedule(w, a, -np.einsum("kd,kd->k", a, through), np.ones(count))
