"""The size of a support and how sure it is: information criterion, stability under resampled noise.

`candidates` runs PartInv at several sizes (as its source advises: a few times the support),
subspace pursuit and swap descent, and tries all small subsets where they are few enough. The
ladder of least costs by size is then cut

* by the extended Bayesian information criterion (Chen & Chen 2008) where the form is a
  likelihood, and then by the share of resamples in which the support is the best of its size;
* else by stability: the largest support that comes back in most of the forms of resampled noise,
  all of whose coefficients are well above their spread, and that lowers the cost by more than a
  trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, lgamma, log

import numpy as np

from fem_apps.inverse import interaction_kernels_sparse as sparse
from fem_apps.inverse.interaction_kernels_functional import Quadratic
from fem_apps.inverse.interaction_kernels_sparse import Fit

# Sizes that PartInv keeps; all subsets are tried up to this number of them.
KEPT, ALL_SUBSETS = (4, 8, 12, 16), 20_000
# Share of the resamples that have to agree; coefficient over spread; least relative gain of an
# atom.
AGREE, SIGNIFICANT, TRACE = 0.6, 3.0, 1e-3
# Share of the resamples of a likelihood, whose noise is that of the data once, not twice.
CERTAIN = 0.9
# Gain over penalty from which an atom more is no artefact, stable or not.
OVERWHELMING = 5.0


@dataclass(frozen=True)
class Selected:
    """A support with what speaks for it.

    Attributes:
        fit: the estimate.
        ladder: the best fit of each size, from 1 on.
        stability: share of the resamples that choose the same support.
        samples: coefficients of the resamples on the chosen support, (resamples, n).
        supports: how often each support came back.
    """

    fit: Fit
    ladder: list[Fit]
    stability: float
    samples: np.ndarray
    supports: Counter[tuple[int, ...]]


def candidates(A: np.ndarray, b: np.ndarray, size: int) -> Fit:
    """The least cost that the solvers find with `size` columns."""
    n = len(b)
    if comb(n, size) <= ALL_SUBSETS:
        return sparse.best_subset(A, b, size)[0]
    Phi, u = sparse.square_root(A, b)
    found = [
        sparse.swap_descent(A, b, sparse.subspace_pursuit(Phi, u, size)),
        sparse.swap_descent(A, b, sparse.matching_pursuit(Phi, u, size)),
    ]
    for kept in KEPT:
        among = sparse.partial_inversion(Phi, u, max(kept, size))
        if len(among) >= size and comb(len(among), size) <= ALL_SUBSETS:
            found.append(sparse.best_subset(A, b, size, among)[0])
    return min(found, key=lambda f: f.cost)


def ladder(A: np.ndarray, b: np.ndarray, largest: int) -> list[Fit]:
    """The best fit of each size 1, ..., largest."""
    return [candidates(A, b, s) for s in range(1, min(largest, len(b)) + 1)]


def by_criterion(steps: Sequence[Fit], columns: int, count: int, inflation: float = 1.0) -> Fit:
    """Least chi^2 / inflation + s log(count) + 2 log binomial(columns, s): extended BIC."""
    return min(
        steps,
        key=lambda f: (
            f.cost / inflation
            + len(f.support) * log(count)
            + 2 * _log_binomial(columns, len(f.support))
        ),
    )


def draws(
    F: np.ndarray, g: np.ndarray, number: int, rng: np.random.Generator, inflation: float = 1.0
) -> list[np.ndarray]:
    """Resamples g* = g + (inflation F)^(1/2) e of a likelihood, whose g has that covariance."""
    values, Q = np.linalg.eigh(F)
    root = Q * np.sqrt(np.maximum(inflation * values, 0))
    return [g + root @ rng.standard_normal(len(g)) for _ in range(number)]


def _log_binomial(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def from_likelihood(
    F: np.ndarray,
    g: np.ndarray,
    count: int,
    steps: list[Fit],
    stars: Sequence[np.ndarray],
    inflation: float = 1.0,
    certain: float = CERTAIN,
) -> Selected:
    """Support by extended BIC, made smaller until it is the best of its size in most resamples.

    An atom that only fits the discretisation error of the forward solution has rivals that do so
    as well; where there is no such error, `certain = 0` leaves the criterion alone.

    Args:
        F: Fisher information.
        g: with it, chi^2 = const + c.F c - 2 g.c.
        count: number of values.
        steps: the ladder of F and g.
        stars: resamples of g (`draws`).
        inflation: variance of g over F, of `interaction_kernels_misfit`.
        certain: share of the resamples that have to agree.
    """
    size = len(by_criterion(steps, len(g), count, inflation).support)
    while True:
        fit = steps[size - 1]
        supports = Counter(candidates(F, star, size).support for star in stars)
        share = supports[fit.support] / max(len(stars), 1)
        if size == 1 or not len(stars) or share >= certain:
            break
        penalty = log(count) + 2 * (_log_binomial(len(g), size) - _log_binomial(len(g), size - 1))
        if steps[size - 2].cost - fit.cost > OVERWHELMING * inflation * penalty:
            break  # which atoms is not sure, but that there are so many is
        size -= 1
    samples = np.array([sparse.refit(F, star, fit.support).c for star in stars])
    return Selected(fit, steps, share, samples.reshape(-1, len(g)), supports)


def from_resamples(form: Quadratic, others: Sequence[Quadratic], largest: int) -> Selected:
    """Support by its stability over forms of resampled noise.

    Args:
        form: of the data.
        others: of the same data with more noise.
        largest: limit of the support.
    """
    steps = ladder(form.A, form.b, largest)
    again = [ladder(q.A, q.b, len(steps)) for q in others]
    chosen = 0
    for s in range(1, len(steps)):
        support = steps[s].support
        gain = (steps[s - 1].cost - steps[s].cost) / abs(steps[s - 1].cost)
        same = np.mean([a[s].support == support for a in again]) if again else 1.0
        c = np.array([sparse.refit(q.A, q.b, support).c[list(support)] for q in others])
        spread = c.std(axis=0) if len(c) > 1 else np.zeros(len(support))
        clear = np.abs(steps[s].c[list(support)]) > SIGNIFICANT * spread
        if gain > TRACE and same >= AGREE and clear.all():
            chosen = s
    fit = steps[chosen]
    supports = Counter(a[chosen].support for a in again)
    samples = np.array([sparse.refit(q.A, q.b, fit.support).c for q in others])
    share = supports[fit.support] / len(again) if again else 1.0
    return Selected(fit, steps, share, samples.reshape(-1, len(form.b)), supports)
