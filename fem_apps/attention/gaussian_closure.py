"""Gaussian closure of the Transformer PDE d_t mu + div(mu Gamma_mu) = 0 on R^d.

For the variants below N(alpha, Sigma) stays Gaussian (Castin, Ablin, Carrillo, Peyre, arXiv
2501.18322), A = K^T Q, "+ T" plus transpose:

    softmax     alpha' = V(I + Sigma A) alpha;   Sigma' = V Sigma A Sigma + T
    l2          R = (I + 2 Sigma K^T K)^-1: alpha' = V R (I + 2 Sigma A) alpha;
                Sigma' = 2 V Sigma (I + 2 K^T K Sigma)^-1 A Sigma + T
    multi-head  sums over heads of softmax with C_h = W_h V_h for V
    linear      S = Sigma + alpha alpha^T: alpha' = V S A alpha;  Sigma' = V S A Sigma + T
    sinkhorn    Sigma' = V C^T + T, alpha' = V alpha, with Sigma = L L^T, the singular values
                L^T A^T L = U diag(s) W^T, C = L U diag(f(s)) W^T L^T, f = 2s/(1 + sqrt(1 + 4 s^2))

Every right side is M Sigma + Sigma M^T, so a factor obeys L' = M L: Sigma = L L^T stays positive
semi-definite, of the rank it began with, whatever the step. The clock is slowed by the rate of
growth, ds = (1 + |L'|/|L| + |alpha'|/(1 + |alpha|)) dt, so that a blow-up in finite time is
reached, not jumped over. (Forward Euler in t with clipped eigenvalues, as published, diverges on
flows that cannot.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.integrate import DOP853

from fem_apps.errors import CaseError, SolveError

Variant = Literal["softmax", "l2", "linear", "sinkhorn"]
# a trace is infinite from here on; a rank counts eigenvalues above this part of the first; what
# grows exponentially at most (L2, Sinkhorn) is large enough much earlier
INFINITE, RANK, LARGE = 1e12, 1e-6, 1e8


@dataclass(frozen=True)
class Head:
    """One attention head: A = K^T Q, its key matrix K, and V (C_h = W_h V_h with several heads)."""

    A: np.ndarray
    V: np.ndarray
    K: np.ndarray


def head(Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float = 1.0) -> Head:
    """A head with A = scale K^T Q; K^T K, which L2 attention needs, is not scaled.

    Raises:
        CaseError: Q and K of unlike shapes, or V of another dimension.
    """
    Q, K, V = (np.atleast_2d(np.asarray(M, dtype=float)) for M in (Q, K, V))
    if Q.shape != K.shape:
        raise CaseError(f"Q has shape {Q.shape} and K {K.shape}: they must be alike")
    if V.shape != (Q.shape[1],) * 2:
        raise CaseError(f"V has shape {V.shape}; {Q.shape[1]} x {Q.shape[1]} is needed")
    return Head(scale * K.T @ Q, V, K)


@dataclass(frozen=True)
class Closure:
    """The closed equations of a variant with one or several heads (several: softmax)."""

    variant: Variant
    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        if len(self.heads) > 1 and self.variant != "softmax":
            raise CaseError(f"{self.variant} attention with several heads: only softmax closes")

    @property
    def d(self) -> int:
        """Dimension."""
        return len(self.heads[0].A)

    def rates(self, alpha: np.ndarray, L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Alpha' and L' with Sigma = L L^T."""
        S = L @ L.T
        a, dL = np.zeros(self.d), np.zeros_like(L)
        for h in self.heads:
            match self.variant:
                case "softmax":
                    a = a + h.V @ (alpha + S @ (h.A @ alpha))
                    dL = dL + h.V @ (S @ (h.A @ L))
                case "linear":
                    SA = (S + np.outer(alpha, alpha)) @ h.A
                    a = a + h.V @ (SA @ alpha)
                    dL = dL + h.V @ (SA @ L)
                case "l2":
                    # Sigma (I + 2 K^T K Sigma)^-1 = R Sigma
                    R = np.linalg.inv(np.eye(self.d) + 2 * S @ (h.K.T @ h.K))
                    a = a + h.V @ (R @ (alpha + 2 * S @ (h.A @ alpha)))
                    dL = dL + 2 * h.V @ (R @ (S @ (h.A @ L)))
                case "sinkhorn":
                    U, s, Wt = np.linalg.svd(L.T @ h.A.T @ L)
                    f = 2 * s / (1 + np.sqrt(1 + 4 * s * s))
                    a = a + h.V @ alpha
                    dL = dL + h.V @ (L @ ((Wt.T * f) @ U.T))
        return a, dL

    def sigma_rate(self, S: np.ndarray) -> np.ndarray:
        """Sigma' at a covariance, mean 0."""
        L = factor(S)
        M = self.rates(np.zeros(self.d), L)[1] @ L.T
        return M + M.T


def factor(S: np.ndarray) -> np.ndarray:
    """L with L L^T = S, symmetric positive semi-definite.

    Raises:
        CaseError: S is not.
    """
    S = np.asarray(S, dtype=float)
    if S.ndim != 2 or S.shape[0] != S.shape[1] or not np.allclose(S, S.T, atol=1e-12):
        raise CaseError("sigma: a symmetric matrix is needed")
    values, vectors = np.linalg.eigh(S)
    if values[0] < -1e-12 * max(1.0, abs(values[-1])):
        raise CaseError(f"sigma: a covariance has no negative eigenvalue, this one {values[0]:.3g}")
    return vectors * np.sqrt(np.maximum(values, 0.0))


@dataclass
class Flow:
    """A trajectory of the closure.

    Attributes:
        t, alpha, sigma: the accepted steps.
        blow_up_time: where tr Sigma reaches infinity, or None.
        settled: |Sigma'| fell below the tolerance (and the mean is 0).
    """

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    blow_up_time: float | None = None
    settled: bool = False
    rank: int = field(init=False)

    def __post_init__(self) -> None:
        self.rank = rank(self.sigma[-1])


def rank(S: np.ndarray, threshold: float = RANK) -> int:
    """Number of eigenvalues above a part of the largest; 0 for a vanishing S."""
    values = np.linalg.eigvalsh(S)
    return int((values > threshold * max(values[-1], 1e-6)).sum())


def flow(
    closure: Closure,
    sigma: np.ndarray,
    alpha: np.ndarray | None = None,
    *,
    end: float = np.inf,
    settle: float = 0.0,
    tolerance: float = 1e-10,
    divergence: float = INFINITE,
    outputs: Sequence[float] = (),
    max_steps: int = 100_000,
    watch: Callable[[float, float], None] | None = None,
) -> Flow:
    """Follow the closure to a final time, a limit, or a blow-up.

    Args:
        closure: the equations.
        sigma: initial covariance, (d, d).
        alpha: initial mean, (d,); 0 if left out.
        end: final time.
        settle: stop where |Sigma'|_F falls below; 0: never.
        tolerance: relative, of a step.
        divergence: stop where tr Sigma exceeds this.
        outputs: times (increasing) to return instead of every step, hit exactly.
        max_steps: limit.
        watch: called with t and tr Sigma after every step.

    Raises:
        CaseError: not a covariance.
        SolveError: the integrator fails, or too many steps.
    """
    d = closure.d
    L0 = factor(sigma)
    if L0.shape != (d, d):
        raise CaseError(f"sigma is {len(L0)} x {len(L0)}, the matrices are {d} x {d}")
    a0 = np.zeros(d) if alpha is None else np.asarray(alpha, dtype=float)
    if a0.shape != (d,):
        raise CaseError(f"mean has {a0.size} entries; {d} are needed")
    still = not a0.any()
    if closure.variant in ("l2", "sinkhorn"):
        divergence = min(divergence, LARGE)

    def split(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return y[1 : d + 1], y[d + 1 :].reshape(d, d)

    def rhs(s: float, y: np.ndarray) -> np.ndarray:
        a, L = split(y)
        da, dL = closure.rates(a, L)
        size = np.sqrt(np.sum(L * L)) or 1.0
        slow = 1.0 / (
            1.0 + np.sqrt(np.sum(dL * dL)) / size + np.sqrt(da @ da) / (1 + np.sqrt(a @ a))
        )
        return np.concatenate([[slow], slow * da, slow * dL.ravel()])

    y0 = np.concatenate([[0.0], a0, L0.ravel()])
    absolute = np.full(len(y0), 1e-2 * tolerance)
    wanted = [*outputs] or None
    stops = sorted({*outputs, *([end] if np.isfinite(end) else [])})
    times, means, covariances = [0.0], [a0], [L0 @ L0.T]
    blow_up, settled, steps = None, False, 0
    if wanted and wanted[0] <= 0:
        wanted = wanted[1:]
    y, goal = y0, 0
    # What is left near a limit mostly decays like 1/t: not stiff in the slowed clock. Where V
    # stretches some directions far more than others it is (steps of about 1, to t = 1e4), and
    # implicit methods (BDF, Radau, LSODA) take some of these flows to a spurious blow-up.
    solver = DOP853(rhs, 0.0, y0, np.inf, rtol=max(tolerance, 3e-14), atol=absolute)
    while solver.status == "running":
        before = solver.y.copy()
        message = solver.step()
        steps += 1
        if solver.status == "failed" or steps > max_steps or not np.isfinite(solver.y).all():
            raise SolveError(
                "integration of the Gaussian closure",
                message or ("too many steps" if steps > max_steps else "not finite"),
                time=float(before[0]),
                advice="a larger tolerance",
            )
        dense = solver.dense_output()
        while goal < len(stops) and solver.y[0] >= stops[goal]:
            y = _at_time(dense, stops[goal])
            a, L = split(y)
            if wanted is None or stops[goal] in wanted:
                times.append(stops[goal])
                means.append(a.copy())
                covariances.append(L @ L.T)
            goal += 1
        if stops and goal == len(stops):
            break
        y = solver.y
        a, L = split(y)
        trace = float(np.sum(L * L))
        if wanted is None:
            times.append(float(y[0]))
            means.append(a.copy())
            covariances.append(L @ L.T)
        if watch is not None:
            watch(float(y[0]), trace)
        _da, dL = closure.rates(a, L)
        if trace > divergence:
            rate = 2 * np.sum(L * dL)  # of the trace
            # in finite time the rate grows like trace^2, so that what is left of it is nothing
            if trace >= INFINITE and trace / rate < 1e-6 * y[0]:
                blow_up = float(y[0] + trace / rate)
            if wanted is not None:
                times.append(float(y[0]))
                means.append(a.copy())
                covariances.append(L @ L.T)
            break
        if settle and still and np.linalg.norm(dL @ L.T + L @ dL.T) < settle:
            settled = True
            if wanted is not None:
                times.append(float(y[0]))
                means.append(a.copy())
                covariances.append(L @ L.T)
            break
    return Flow(np.array(times), np.array(means), np.array(covariances), blow_up, settled)


def _at_time(dense: Callable[[float], np.ndarray], t: float) -> np.ndarray:
    """The state of a step where the physical time, its first entry, is t: Newton in s."""
    low, high = dense.t_old, dense.t  # type: ignore[attr-defined]
    for _ in range(200):
        s = 0.5 * (low + high)
        if dense(s)[0] < t:
            low = s
        else:
            high = s
        if high - low <= 1e-15 * abs(high):
            break
    return dense(0.5 * (low + high))


# ------------------------------------------------------------------ exact solutions, V = I softmax
def exact_sigma(sigma: np.ndarray, A: np.ndarray, t: float) -> np.ndarray:
    """Sigma(t) = (Sigma0^-1 - t (A + A^T))^-1 = Sigma0 (I - t H Sigma0)^-1."""
    return sigma @ np.linalg.inv(np.eye(len(sigma)) - t * (A + A.T) @ sigma)


def exact_blow_up(sigma: np.ndarray, A: np.ndarray) -> float:
    """t* = 1 / lambda_max(Sigma0^1/2 H Sigma0^1/2); infinite if H has no positive eigenvalue."""
    L = factor(sigma)
    top = np.linalg.eigvalsh(L.T @ (A + A.T) @ L)[-1]
    return float(1 / top) if top > 0 else np.inf


def exact_limit(sigma: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Sigma(infinity) for A + A^T <= 0: N (N^T Sigma0^-1 N)^-1 N^T, N a basis of its kernel."""
    values, vectors = np.linalg.eigh(A + A.T)
    N = vectors[:, np.abs(values) < 1e-10 * max(np.abs(values).max(), 1e-300)]
    if N.shape[1] == 0:
        return np.zeros_like(sigma)
    return N @ np.linalg.inv(N.T @ np.linalg.solve(sigma, N)) @ N.T


def euler(
    closure: Closure,
    sigma: np.ndarray,
    step: float,
    *,
    tolerance: float = 1e-4,
    divergence: float = 1e3,
    max_steps: int = 100_000,
) -> tuple[np.ndarray, str]:
    """The published scheme: forward Euler with negative eigenvalues cut off.

    Kept to show what it does where the flow is stiff, not to be used.

    Returns:
        the last covariance, and "converged", "diverged" or "unfinished".
    """
    S = np.array(sigma, dtype=float)
    for _ in range(max_steps):
        rate = closure.sigma_rate(S)
        if np.linalg.norm(rate) < tolerance:
            return S, "converged"
        values, vectors = np.linalg.eigh(S + step * rate)
        S = (vectors * np.maximum(values, 0.0)) @ vectors.T
        if not np.isfinite(S).all() or np.trace(S) > divergence:
            return S, "diverged"
    return S, "unfinished"
