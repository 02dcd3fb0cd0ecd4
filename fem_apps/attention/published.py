"""Explicit schemes of the publications, kept to reproduce their tables and to show what they do.

They are no solvers: `token_dynamics` and `layer_norm_energy` are. Adding the field before the
projection slows time by 1 + dt <x, Ax>, and may turn a token over where tau e^lambda > 1. Sources:
Geshkovski, Koubbi, Polyanskiy, Rigollet (arXiv 2410.06833); Burger et al. (2501.03096).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fem_apps.attention.clusters import CLOSE, chord, count
from fem_apps.attention.pair_sums import LOG2E, exp2


def euler_merges(
    x: np.ndarray, beta: float, dt: float, end: float, *, tangent: bool, close: float = CLOSE
) -> list[tuple[float, int]]:
    """(time, clusters) after each change under x <- normalise(x + dt softmax(beta X X^T) X).

    Args:
        x: tokens, (n, d).
        beta: inverse temperature.
        dt: step.
        end: final time.
        tangent: whether the field is projected on the tangent space first; published: it is not.
        close: inner product of two tokens of one cluster.
    """
    x, before, pairs = np.array(x), count(x, chord(close)), -1
    out: list[tuple[float, int]] = []
    for step in range(1, round(end / dt) + 1):
        s = beta * x @ x.T
        w = np.exp(s - s.max(axis=1, keepdims=True))
        v = w @ x / w.sum(axis=1, keepdims=True)
        if tangent:
            v -= (v * x).sum(axis=1, keepdims=True) * x
        x = x + dt * v
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        now = int((x @ x.T > close).sum())
        if now == pairs:
            continue
        pairs, after = now, count(x, chord(close))
        if after != before:
            out.append((step * dt, after))
            before = after
        if after == 1:
            break
    return out


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def extremise(x, y, d1, d2, tau, steps, sign):  # type: ignore[no-untyped-def]
    """X <- normalise(X + sign (tau/n) exp(X D X^T) X D) on the circle, D = diag(d1, d2), in place.

    sign = 1 climbs iint exp(x.Dy), -1 descends it (Burger et al.).
    """
    n = len(x)
    u, v = np.empty(n), np.empty(n)
    for _ in range(steps):
        for i in range(n):
            a, b = LOG2E * d1 * x[i], LOG2E * d2 * y[i]
            s = t = 0.0
            for j in range(n):
                w = exp2(a * x[j] + b * y[j])
                s += w * x[j]
                t += w * y[j]
            u[i] = x[i] + sign * tau / n * d1 * s
            v[i] = y[i] + sign * tau / n * d2 * t
        for i in range(n):
            r = 1.0 / np.sqrt(u[i] * u[i] + v[i] * v[i])
            x[i], y[i] = u[i] * r, v[i] * r


def two_cluster_runs(d: float, repeats: int, *, n: int = 100, seed: int = 0) -> int:
    """How many of `repeats` ascents with D = diag(d, 1) end in two clusters (figure 2).

    Published: n = 100 uniform tokens, tau = 0.1, 1500 steps.
    """
    rng = np.random.default_rng([seed, round(1e6 * d)])
    two = 0
    for _ in range(repeats):
        z = rng.standard_normal((n, 2))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        x, y = z.T.copy()
        extremise(x, y, d, 1.0, 0.1, 1500, 1.0)
        two += count(np.stack([x, y], axis=1), 0.2) == 2
    return two


def four_particle_ratio(d2: float, tau: float, steps: int = 10_000) -> float:
    """tanh(a^2)/tanh(d2 b^2) after four tokens descended, D = diag(1, d2); d2 at the minimum."""
    angle = np.pi / 4 + np.pi / 2 * np.arange(4)
    x, y = np.cos(angle), np.sin(angle)
    extremise(x, y, 1.0, d2, tau, steps, -1.0)
    return float(np.mean(np.tanh(x**2) / np.tanh(d2 * y**2)))
