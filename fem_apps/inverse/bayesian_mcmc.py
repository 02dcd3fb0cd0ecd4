"""Markov chains for posteriors with Gaussian priors, and what they are worth.

A chain is a generator of states; its random numbers come from its own generator, so that it does
not matter which rank runs it. What its next draw depends on besides those is in its memory, a table
that it renews with each draw; one that is given a memory goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from fem_apps.errors import SolveError
from fem_apps.inverse.bayesian_posterior import Posterior, Prior

Memory = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """A state of a chain.

    Attributes:
        m: the parameter.
        accepted: probability with which the last proposal was accepted.
        warm: whether the sampler has finished adapting itself.
    """

    m: np.ndarray
    accepted: float
    warm: bool = True


def pcn(
    misfit: Callable[[np.ndarray], float],
    prior: Prior,
    start: np.ndarray,
    beta: float,
    rng: np.random.Generator,
    *,
    warmup: int = 0,
    target: float = 0.25,
    memory: Memory | None = None,
) -> Iterator[Draw]:
    """Preconditioned Crank-Nicolson (Cotter et al., 2013), reversible for the prior.

    m' = mu + sqrt(1 - beta^2)(m - mu) + beta (xi - mu), xi from the prior; accepted with
    probability min(1, exp(misfit(m) - misfit(m'))). In the warm-up beta is adapted to accept at the
    rate `target`.
    """
    memory = {} if memory is None else memory
    if not memory:
        memory.update(k=0, m=np.array(start), value=misfit(start), beta=beta)
    m, value, beta = memory["m"], memory["value"], memory["beta"]
    for k in count(memory["k"]):
        step = beta * (prior.root @ rng.normal(size=len(m)))
        trial = prior.mean + np.sqrt(1 - beta**2) * (m - prior.mean) + step
        new = _or_infinity(misfit, trial)
        chance = float(np.exp(min(0.0, value - new)))
        if rng.uniform() < chance:
            m, value = trial, new
        if k < warmup:
            beta = float(np.clip(beta * np.exp((chance - target) / (1 + k) ** 0.6), 1e-4, 1.0))
        memory.update(k=k + 1, m=m, value=value, beta=beta)
        yield Draw(m.copy(), chance, k >= warmup)


def random_walk(
    cost: Callable[[np.ndarray], float],
    start: np.ndarray,
    width: float,
    rng: np.random.Generator,
    *,
    memory: Memory | None = None,
) -> Iterator[Draw]:
    """Metropolis' random walk m' = m + width xi with a density exp(-cost) in m."""
    memory = {} if memory is None else memory
    if not memory:
        memory.update(m=np.array(start), value=cost(start))
    m, value = memory["m"], memory["value"]
    while True:
        trial = m + width * rng.normal(size=len(m))
        new = _or_infinity(cost, trial)
        chance = float(np.exp(min(0.0, value - new)))
        if rng.uniform() < chance:
            m, value = trial, new
        memory.update(m=m, value=value)
        yield Draw(m.copy(), chance)


@dataclass
class StepSize:
    """Dual averaging of a leapfrog step (Hoffman and Gelman, 2014)."""

    step: float
    target: float = 0.8
    _mu: float = field(init=False)
    _error: float = 0.0
    _mean: float = 0.0
    _count: int = 0

    def __post_init__(self) -> None:
        """Aim at longer steps first."""
        self._mu = np.log(10 * self.step)

    def update(self, accepted: float) -> None:
        """Learn from an acceptance probability."""
        self._count += 1
        t = self._count
        self._error += (self.target - accepted - self._error) / (t + 10)
        log_step = self._mu - np.sqrt(t) / 0.05 * self._error
        self._mean += t**-0.75 * (log_step - self._mean)
        self.step = float(np.exp(log_step))

    def settle(self) -> None:
        """Take the average."""
        self.step = float(np.exp(self._mean))

    def numbers(self) -> list[float]:
        """All that it knows; see `of`."""
        return [self.step, self.target, self._mu, self._error, self._mean, self._count]

    @staticmethod
    def of(numbers: Any) -> StepSize:
        """The one that gave these `numbers`."""
        step, target, mu, error, mean, updates = map(float, numbers)
        size = StepSize(step, target, error, mean, int(updates))
        size._mu = mu
        return size


def hmc(
    cost_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    covariance: np.ndarray,
    rng: np.random.Generator,
    *,
    warmup: int,
    leaps: int = 16,
    memory: Memory | None = None,
) -> Iterator[Draw]:
    """Hamiltonian Monte Carlo; the inverse mass is a covariance, learnt again twice in the warm-up.

    Between leaps/2 and leaps leapfrog steps a draw, their number at random, against resonances.

    Args:
        cost_gradient: negative log density and its gradient.
        start: first state.
        covariance: first inverse mass, such as that of the Laplace approximation.
        rng: of this chain.
        warmup: draws in which step and mass are adapted.
        leaps: most leapfrog steps a draw.
        memory: of an earlier part of this chain; filled.
    """
    n = len(start)
    memory = {} if memory is None else memory
    if not memory:
        value, g = cost_gradient(start)
        memory.update(k=0, m=np.array(start), value=value, g=g, size=StepSize(0.1), learnt=[])
        memory["L"] = np.linalg.cholesky(covariance)
    m, value, g, L = (memory[key] for key in ("m", "value", "g", "L"))
    size, learnt = memory["size"], memory["learnt"]
    renew = {warmup // 3, 2 * warmup // 3}
    for k in count(memory["k"]):
        # in the coordinates m = L x the mass is the identity
        p = rng.normal(size=n)
        energy = value + 0.5 * float(p @ p)
        trial, new, gn = m, value, g
        try:
            for _ in range(int(rng.integers(leaps // 2, leaps + 1))):
                p = p - 0.5 * size.step * (L.T @ gn)
                trial = trial + size.step * (L @ p)
                new, gn = cost_gradient(trial)
                p = p - 0.5 * size.step * (L.T @ gn)
                if not new + 0.5 * float(p @ p) - energy < 1000:
                    break
            change = energy - new - 0.5 * float(p @ p)
        except SolveError:
            change = -np.inf
        chance = float(np.exp(min(0.0, change))) if change == change else 0.0
        if rng.uniform() < chance:
            m, value, g = trial, new, gn
        if k < warmup:
            size.update(chance)
            learnt.append(m)
            if k + 1 in renew and len(learnt) > n // 4:
                recent = np.array(learnt[len(learnt) // 3 :])
                # shrunk towards the first guess: few correlated draws know little of a covariance
                weight = len(recent) / (len(recent) + 2.0 * n)
                L = np.linalg.cholesky(
                    weight * np.cov(recent.T) + (1 - weight) * covariance + 1e-10 * np.eye(n)
                )
                size = StepSize(size.step)
            if k + 1 == warmup:
                size.settle()
                learnt = []
        memory.update(k=k + 1, m=m, value=value, g=g, L=L, size=size, learnt=learnt)
        yield Draw(m.copy(), chance, k >= warmup)


def _or_infinity(cost: Callable[[np.ndarray], float], m: np.ndarray) -> float:
    try:
        return cost(m)
    except SolveError:
        return np.inf


def effective_samples(chains: np.ndarray) -> np.ndarray:
    """Effective sample size of each component, shapes (chains, draws, n) -> (n,).

    c T / (1 + 2 sum rho_k), autocorrelations of all chains about their common mean, summed up to
    the first negative pair (Geyer, 1992; Gelman et al., Bayesian Data Analysis, 11.5).
    """
    c, T, n = chains.shape
    size = 1 << (2 * T - 1).bit_length()
    centred = chains - chains.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, size, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, size, axis=1)[:, :T].mean(axis=0) / T
    within = covariance[0] * T / (T - 1)
    between = chains.mean(axis=1).var(axis=0, ddof=1) if c > 1 else np.zeros(n)
    total = within * (T - 1) / T + between
    total = np.where(total > 0, total, 1.0)
    rho = 1 - (within - covariance * T / (T - 1)) / total
    rho[0] = 1.0
    pairs = rho[: T // 2 * 2].reshape(-1, 2, n).sum(axis=1)
    pairs = np.minimum.accumulate(np.where(np.cumsum(pairs < 0, axis=0) > 0, 0.0, pairs), axis=0)
    return c * T / np.maximum(2 * pairs.sum(axis=0) - 1, 1 / np.log10(max(c * T, 10)))


def r_hat(chains: np.ndarray) -> np.ndarray:
    """Split R-hat of each component, shapes (chains, draws, n) -> (n,)."""
    c, T, n = chains.shape
    halves = chains[:, : T // 2 * 2].reshape(2 * c, T // 2, n)
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    h = T // 2
    return np.sqrt((h - 1) / h + between / np.where(within > 0, within, 1.0))


def chain(
    method: str,
    posterior: Posterior,
    start: np.ndarray,
    covariance: np.ndarray,
    rng: np.random.Generator,
    *,
    warmup: int,
    step: float,
    leaps: int,
    memory: Memory | None = None,
) -> Iterator[Draw]:
    """The chain of a method: pcn, random-walk or hmc; see them."""
    match method:
        case "pcn":
            return pcn(
                *(posterior.misfit, posterior.prior, start, step, rng),
                warmup=warmup,
                memory=memory,
            )
        case "random-walk":
            return random_walk(posterior.cost, start, step, rng, memory=memory)
        case "hmc":
            return hmc(
                *(posterior.cost_gradient, start, covariance, rng),
                warmup=warmup,
                leaps=leaps,
                memory=memory,
            )
    raise ValueError(method)
