"""Relative entropy, total variation, W1 of a controlled density against its target, with bounds.

TV = 1/2 int |p - q|. Pinsker: TV <= sqrt(KL/2). Reverse Pinsker (Verdu 2014; Sason, arXiv
1503.07118): if dP/dQ <= 1/beta then KL(P|Q) <= log(1/beta) / (1 - beta) TV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from fem_apps.control.normalizing_flow_map import Schedule, forward, log_density, log_gaussian
from fem_apps.control.normalizing_flow_targets import Target

CELLS, GAUSS = 1000, 6
PROJECTIONS = 64


@dataclass(frozen=True)
class Comparison:
    """A target rho_* against rho_N.

    Attributes:
        kl: KL(rho_* | rho_N); kl_error its standard error (0: by quadrature).
        kl_reverse: KL(rho_N | rho_*); inf where rho_* has holes that rho_N fills.
        tv: total variation.
        w1: Wasserstein-1 distance in 1D, its mean over projections in more.
        pinsker: sqrt(kl / 2), above tv.
        reverse_pinsker: bound of kl by the greatest ratio seen.
    """

    kl: float
    kl_error: float
    kl_reverse: float
    tv: float
    w1: float
    pinsker: float
    reverse_pinsker: float


def compare(
    target: Target, schedule: Schedule, n: int = 40_000, rng: np.random.Generator | None = None
) -> Comparison:
    """Compare a target with what a schedule makes of N(0, I).

    In one dimension by quadrature, in more by n samples of each.
    """
    rng = rng or np.random.default_rng(0)
    if target.dim == 1:
        return _on_a_line(target, schedule)
    x = target.sample(n, rng)
    d = target.log_density(x) - log_density(schedule, x)
    base = rng.standard_normal((n, target.dim))
    z = forward(schedule, base)
    reverse = log_density(schedule, z) - target.log_density(z)
    tv = float(np.maximum(1 - np.exp(-d), 0.0).mean())
    directions = rng.standard_normal((PROJECTIONS, target.dim))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    w1 = float(np.mean([wasserstein_distance(x @ p, z @ p) for p in directions]))
    kl = float(d.mean())
    return Comparison(
        kl,
        float(d.std() / np.sqrt(n)),
        float(reverse.mean()),
        tv,
        w1,
        pinsker(kl),
        reverse_pinsker(tv, float(d.max())),
    )


def line_quadrature(target: Target, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on the line, split at every jump of either density: Gauss-Legendre."""
    ends = forward(schedule, np.array([[-9.0], [9.0]]))[:, 0]
    low, high = target.box()[0]
    low, high = min(low, ends[0]), max(high, ends[1])
    breaks = [np.linspace(low, high, CELLS + 1), getattr(target, "edges", (np.empty(0),))[0]]
    for k in np.flatnonzero(schedule.a[:, 0]):
        later = Schedule(*(getattr(schedule, n)[k + 1 :] for n in ("w", "a", "b", "tau")))
        breaks.append(forward(later, -schedule.b[k : k + 1, None] / schedule.a[k : k + 1])[:, 0])
    e = np.unique(np.clip(np.concatenate(breaks), low, high))
    X, w = np.polynomial.legendre.leggauss(GAUSS)
    half = np.diff(e)[:, None] / 2
    return (e[:-1, None] + half * (1 + X)).ravel(), (half * w).ravel()


def _on_a_line(target: Target, schedule: Schedule) -> Comparison:
    y, w = line_quadrature(target, schedule)
    lp, lq = target.log_density(y[:, None]), log_density(schedule, y[:, None])
    p, q = np.exp(lp), np.exp(lq)
    p, q = p / (w @ p), q / (w @ q)
    some = p > 0
    d = np.where(some, lp - lq, 0.0)
    kl = float(w @ (p * d))
    reverse = float((w * q * (lq - lp))[q > 0].sum())
    tv = float(0.5 * (w @ np.abs(p - q)))
    w1 = float(w @ np.abs(np.cumsum(w * (p - q))))
    ratio = float(d[p > 1e-12 * p.max()].max())
    return Comparison(kl, 0.0, reverse, tv, w1, pinsker(kl), reverse_pinsker(tv, ratio))


def pinsker(kl: float) -> float:
    """The largest TV that a relative entropy allows."""
    return float(np.sqrt(max(kl, 0.0) / 2))


def reverse_pinsker(tv: float, log_ratio: float) -> float:
    """The largest KL(P|Q) that a TV allows where log dP/dQ <= log_ratio."""
    if not np.isfinite(log_ratio):
        return float("inf")
    return float(log_ratio / (-np.expm1(-log_ratio)) * tv) if log_ratio > 0 else tv


def entropy_along(
    target: Target, schedule: Schedule, n: int, rng: np.random.Generator, most: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Times and KL(rho_t | rho_*) after (up to `most` of) the pieces, by n samples."""
    x = rng.standard_normal((n, schedule.dim))
    log_q = log_gaussian(x)
    stops = np.unique(np.linspace(0, len(schedule.b), most + 1).astype(int))
    times = np.concatenate([[0.0], np.cumsum(schedule.tau)])
    values, begin = [], 0
    from fem_apps.control.normalizing_flow_map import push

    for stop in stops:
        part = Schedule(*(getattr(schedule, k)[begin:stop] for k in ("w", "a", "b", "tau")))
        x, growth = push(part, x)
        log_q -= growth
        values.append(float((log_q - target.log_density(x)).mean()))
        begin = stop
    return times[stops], np.array(values)
