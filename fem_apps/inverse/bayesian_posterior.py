"""Posteriors with Gaussian priors and Gaussian noise, their modes, and the Laplace approximation.

cost(m) = |F(m) - y|^2/(2 s_n^2) + (m - mu).R (m - mu)/2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, eigsh

from fem_apps.errors import SolveError

FARTHEST = 10.0  # prior standard deviations that L-BFGS may search
DENSE = 400  # parameters up to which the Hessian is made whole


class Linearised(Protocol):
    """A forward model at a parameter."""

    @property
    def data(self) -> np.ndarray:
        """F(m)."""

    def jvp(self, h: np.ndarray) -> np.ndarray:
        """F'(m) h."""

    def vjp(self, w: np.ndarray) -> np.ndarray:
        """F'(m)^T w."""

    def jacobian(self) -> np.ndarray:
        """F'(m), shape (m, n)."""

    def hessian(
        self, h: np.ndarray, w: np.ndarray, weight: float, *, gauss_newton: bool = False
    ) -> np.ndarray:
        """The Hessian of weight |F - y|^2/2 applied to h, w = weight (F - y)."""


class Model(Protocol):
    """A forward model m -> F(m)."""

    def at(self, m: np.ndarray) -> Linearised:
        """Its linearisation."""


@dataclass(frozen=True)
class Prior:
    """N(mean, covariance).

    Attributes:
        mean: shape (n,).
        covariance: shape (n, n).
    """

    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def root(self) -> np.ndarray:
        """L with L L^T = covariance."""
        return np.linalg.cholesky(self.covariance)

    @cached_property
    def _factor(self) -> Any:
        return cho_factor(self.covariance, lower=True)

    def precision(self, h: np.ndarray) -> np.ndarray:
        """R h."""
        return cho_solve(self._factor, h)


@dataclass(frozen=True)
class Posterior:
    """The posterior of m given y = F(m) + n, n ~ N(0, noise^2 I).

    Attributes:
        model: F.
        data: y.
        noise: s_n.
        prior: of m.
    """

    model: Model
    data: np.ndarray
    noise: float
    prior: Prior

    def misfit(self, m: np.ndarray) -> float:
        """|F(m) - y|^2/(2 s_n^2)."""
        return 0.5 * float(((self.model.at(m).data - self.data) ** 2).sum()) / self.noise**2

    def misfit_gradient(self, m: np.ndarray) -> tuple[float, np.ndarray]:
        """The misfit and its gradient: one solve and one adjoint solve."""
        F = self.model.at(m)
        r = F.data - self.data
        return 0.5 * float(r @ r) / self.noise**2, F.vjp(r / self.noise**2)

    def cost(self, m: np.ndarray) -> float:
        """The negative log posterior up to a constant."""
        d = m - self.prior.mean
        return self.misfit(m) + 0.5 * float(d @ self.prior.precision(d))

    def cost_gradient(self, m: np.ndarray) -> tuple[float, np.ndarray]:
        """The cost and its gradient."""
        value, g = self.misfit_gradient(m)
        d = m - self.prior.mean
        Rd = self.prior.precision(d)
        return value + 0.5 * float(d @ Rd), g + Rd

    def misfit_hessian(
        self, m: np.ndarray, *, gauss_newton: bool = False
    ) -> Callable[[np.ndarray], np.ndarray]:
        """The action h -> H h of the misfit's Hessian at m."""
        F = self.model.at(m)
        weight = self.noise**-2
        w = weight * (F.data - self.data)
        return lambda h: F.hessian(h, w, weight, gauss_newton=gauss_newton)


@dataclass(frozen=True)
class Mode:
    """A local minimum of the cost.

    Attributes:
        m: the mode.
        cost: there.
        gradient_norm: there.
        history: cost and gradient norm, iteration by iteration.
        cg_iterations: Hessian actions.
    """

    m: np.ndarray
    cost: float
    gradient_norm: float
    history: list[tuple[float, float]]
    cg_iterations: int = 0


def lbfgs(posterior: Posterior, start: np.ndarray, *, iterations: int = 500) -> Mode:
    """The mode by L-BFGS in the coordinates of the whitened prior.

    Where a trial step goes so far that F cannot be solved, a steep bowl about the prior's mean
    stands in for the cost: the line search then shortens the step.
    """
    L, mean = posterior.prior.root, posterior.prior.mean
    history: list[tuple[float, float]] = []

    def whitened(x: np.ndarray) -> tuple[float, np.ndarray]:
        try:
            value, g = posterior.cost_gradient(mean + L @ x)
        except SolveError:
            if not history:
                raise
            steep = 1e3 * (1 + history[0][0])
            return steep * (1 + float(x @ x)), 2 * steep * x
        history.append((value, float(np.linalg.norm(g))))
        return value, L.T @ g

    x0 = np.linalg.solve(L, start - mean)
    options = {"maxiter": iterations, "ftol": 1e-14, "gtol": 1e-7, "maxcor": 30}
    bounds = [(-FARTHEST, FARTHEST)] * len(x0)
    x = minimize(whitened, x0, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    m = mean + L @ x
    value, g = posterior.cost_gradient(m)
    return Mode(m, value, float(np.linalg.norm(g)), history)


def newton_cg(
    posterior: Posterior, start: np.ndarray, *, tolerance: float = 1e-8, iterations: int = 100
) -> Mode:
    """The mode by inexact Newton: CG preconditioned by the prior, stopped at negative curvature.

    Forcing min(1/2, sqrt(|g|/|g_0|)) (Eisenstat and Walker, 1996), Armijo backtracking, the full
    Hessian. Ends where |g| <= tolerance max(1, |g_0|) or rounding forbids a decrease.

    Raises:
        SolveError: not converged.
    """
    C = posterior.prior.covariance
    m = np.array(start, dtype=float)
    value, g = posterior.cost_gradient(m)
    first = float(np.linalg.norm(g))
    history, actions = [(value, first)], 0
    for _ in range(iterations):
        norm = float(np.linalg.norm(g))
        if norm <= tolerance * max(1.0, first):
            return Mode(m, value, norm, history, actions)
        H = posterior.misfit_hessian(m)
        forcing = min(0.5, (norm / first) ** 0.5)
        p, used = _steihaug(_plus(H, posterior.prior), g, C, forcing * norm)
        actions += used
        slope, t = float(g @ p), 1.0
        while t > 1e-10:
            try:
                trial, g_trial = posterior.cost_gradient(m + t * p)
            except SolveError:  # too far: the conductivity overflows
                trial = np.inf
            if trial <= value + 1e-4 * t * slope + 1e-13 * abs(value):
                break
            t /= 2
        else:
            break
        m, value, g = m + t * p, trial, g_trial
        history.append((value, float(np.linalg.norm(g))))
    raise SolveError(
        "Newton-CG for the mode",
        "no decrease of the cost",
        history=[b for _, b in history],
        advice="another start, or a larger noise",
    )


def _plus(H: Callable[[np.ndarray], np.ndarray], prior: Prior) -> Callable[..., np.ndarray]:
    """The Hessian of the cost from that of the misfit."""
    return lambda h: H(h) + prior.precision(h)


def _steihaug(
    H: Callable[[np.ndarray], np.ndarray], g: np.ndarray, C: np.ndarray, tolerance: float
) -> tuple[np.ndarray, int]:
    """A descent direction p, H p = -g up to the tolerance, and the actions used."""
    p, r = np.zeros_like(g), -g
    z = C @ r
    d, rz = z, r @ z
    for k in range(len(g)):
        Hd = H(d)
        curvature = d @ Hd
        if curvature <= 0:
            return (d if k == 0 else p), k + 1
        t = rz / curvature
        p, r = p + t * d, r - t * Hd
        if np.linalg.norm(r) <= tolerance:
            break
        z = C @ r
        rz, before = r @ z, rz
        d = z + rz / before * d
    return p, k + 1


@dataclass(frozen=True)
class Laplace:
    """N(mode, R^-1 - V diag(lam/(1+lam)) V^T) with H V = R V diag(lam), V^T R V = I.

    Villa, Petra, Ghattas, hIPPYlib (2021). Directions with eigenvalues at most `-1` are refused.

    Attributes:
        mean: the mode.
        eigenvalues: lam, descending.
        V: shape (n, r).
        prior: whose covariance the low-rank term corrects.
    """

    mean: np.ndarray
    eigenvalues: np.ndarray
    V: np.ndarray
    prior: Prior

    @property
    def covariance(self) -> np.ndarray:
        """Shape (n, n)."""
        lam = self.eigenvalues
        return self.prior.covariance - (self.V * (lam / (1 + lam))) @ self.V.T

    def samples(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """(I - V S V^T R) prior samples, S = I - (I + Lam)^(-1/2), shape (number, n)."""
        x = self.prior.root @ rng.normal(size=(len(self.mean), number))
        S = 1 - (1 + self.eigenvalues) ** -0.5
        return (self.mean[:, None] + x - (self.V * S) @ (self.V.T @ self.prior.precision(x))).T


def laplace(
    posterior: Posterior, mode: np.ndarray, *, rank: int | None = None, gauss_newton: bool = False
) -> Laplace:
    """The Laplace approximation at a mode.

    Args:
        posterior: of the parameters.
        mode: where its cost is least.
        rank: eigenpairs kept; None: all, where there are at most `DENSE` parameters.
        gauss_newton: leave out second derivatives.

    Raises:
        SolveError: the Hessian is not positive definite: no mode.
    """
    H, n = posterior.misfit_hessian(mode, gauss_newton=gauss_newton), len(mode)
    L = posterior.prior.root
    if n <= DENSE:
        whole = np.stack([L.T @ H(c) for c in L.T], axis=1)
        lam, W = eigh((whole + whole.T) / 2)
    else:
        A = LinearOperator((n, n), matvec=lambda x: L.T @ H(L @ x.ravel()), dtype=float)
        lam, W = eigsh(A, k=min(rank or 50, n - 1), which="LA", v0=np.ones(n))
    lam, W = lam[::-1], W[:, ::-1]
    if rank is not None:
        lam, W = lam[:rank], W[:, :rank]
    if lam.min() <= -1:
        raise SolveError(
            "the Laplace approximation", f"least eigenvalue {lam.min():.3g} <= -1", advice="a mode"
        )
    return Laplace(np.array(mode), lam, L @ W, posterior.prior)
