"""Construction in any dimension: one-dimensional maps along directions, by projection pursuit.

The target's samples are flowed towards the Gaussian: in each round the direction p whose marginal
is farthest from N(0, 1) is taken, and x -> x + (T^-1(p.x) - p.x) p makes that marginal Gaussian,
which lowers the entropy by the marginal's own (Friedman 1987; Laparra, Camps-Valls, Malo 2011).
Each map is `normalizing_flow_1d`'s, so the schedule has pieces w = lam p, a = p alone: half-spaces
are compressed and expanded, nothing is sheared, and amplitudes stay moderate. The rounds in
opposite order take N(0, I) to the target.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from fem_apps.control.normalizing_flow_1d import Law, Line, entropy_constant, interpolant
from fem_apps.control.normalizing_flow_map import Schedule, inverse, log_density, pieces
from fem_apps.control.normalizing_flow_targets import Target

SAMPLES, HELD_OUT = 20_000, 10_000
DIRECTIONS, REFINED = 60, 40
BINS = 400
# a round that lowers the held-out entropy by less than this is the last
WORTH = 2e-4


def build_pursuit(
    target: Target,
    accuracy: float,
    *,
    rng: np.random.Generator,
    most_pieces: int = 2000,
    samples: np.ndarray | None = None,
) -> tuple[Schedule, float]:
    """A schedule, and the entropy KL(rho_* | rho_N) on held-out samples.

    Args:
        target: of any dimension.
        accuracy: relative entropy at which it stops.
        rng: of samples and directions.
        most_pieces: limit.
        samples: training samples, where these are all that is known.
    """
    x = target.sample(SAMPLES, rng) if samples is None else samples
    held = target.sample(HELD_OUT, rng)
    log_p = target.log_density(held)
    schedule = pieces(target.dim, [])
    z = x.copy()
    best = float((log_p - log_density(schedule, held)).mean())
    idle = 0
    while best > accuracy and len(schedule.b) < most_pieces and idle < 3:
        p = _direction(z, rng)
        law, T = _map_along(z @ p)
        step = T.steps(p)
        longer = step.then(schedule)
        kl = float((log_p - log_density(longer, held)).mean())
        if kl > best - WORTH:
            idle += 1
            continue
        idle, best, schedule = 0, kl, longer
        z = inverse(step, z)
        del law
    return schedule, best


def _map_along(y: np.ndarray) -> tuple[Law, Line]:
    """The smoothed law of samples, and a map with as many knots as they can tell."""
    law = _smooth_law(y)
    c = entropy_constant(law)
    count = int(np.clip(np.ceil(np.sqrt(c * len(y) / 4)), 2, 25))
    return law, interpolant(law, count)


def _smooth_law(y: np.ndarray) -> Law:
    spread = y.std()
    low, high = y.min() - spread, y.max() + spread
    edges = np.linspace(low, high, BINS + 1)
    counts = np.histogram(y, edges)[0].astype(float)
    quartile = np.subtract(*np.percentile(y, [75, 25])) / 1.349
    width = 0.7 * min(spread, quartile) * len(y) ** -0.2 / (edges[1] - edges[0])
    return Law(edges, gaussian_filter1d(counts, max(width, 0.5)) + 1e-9)


def _direction(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The unit vector with the least Gaussian marginal: axes, principal axes, random, refined."""
    d = z.shape[1]
    if d == 1:
        return np.ones(1)
    sub = z[:4000]
    eigenvectors = np.linalg.eigh(np.cov(sub.T))[1].T
    candidates = np.concatenate(
        [np.eye(d), eigenvectors, _unit(rng.standard_normal((DIRECTIONS, d)))]
    )
    scores = [_distance(sub @ p) for p in candidates]
    best, score = candidates[int(np.argmax(scores))], max(scores)
    width = 0.5
    for _ in range(REFINED):
        trial = _unit(best + width * rng.standard_normal(d))
        s = _distance(sub @ trial)
        if s > score:
            best, score = trial, s
        else:
            width *= 0.93
    return best


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _distance(y: np.ndarray) -> float:
    """An estimate of KL(law of y | N(0,1)) from masses of cells that are equal under N(0, 1)."""
    u = ndtr(y)
    n, cells = len(u), 40
    share = np.bincount(np.minimum((u * cells).astype(int), cells - 1), minlength=cells) / n
    some = share > 0
    bulk = float((share[some] * np.log(share[some] * cells)).sum())
    # cells do not see how far out the outermost samples are
    return bulk + 0.5 * max(float((y**2).mean()) - 1 - np.log(max(y.var(), 1e-12)), 0.0) * 0.2
