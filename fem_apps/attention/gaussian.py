"""Attention in its Gaussian closure: a case of kind gaussian-attention.

d_t mu + div(mu Gamma_mu) = 0 with mu = N(alpha, Sigma), followed to a final time, a limit, or the
blow-up (`gaussian_closure`). With `[portrait]` also from a grid of covariances (d = 2), with
`[ranks]` from random draws: the rank histograms. One rank computes. Needs no DOLFINx.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.attention import gaussian_closure as gc
from fem_apps.attention.model import Attention, HeadArrays, array, heads
from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero

log = logging.getLogger(__name__)


class Time(Table):
    """The `[time]` table."""

    end: float | None = Field(None, gt=0, description="final time; none if left out")
    settle: float = Field(
        1e-9, ge=0, description="stop where |Sigma'| falls below it; 0: never (then give end)"
    )
    tolerance: float = Field(1e-10, ge=1e-13, le=1e-3, description="relative error of a step")
    divergence: float = Field(
        gc.INFINITE, gt=0, description="stop where the trace exceeds it; below 1e12 no blow-up time"
    )

    @model_validator(mode="after")
    def _ends(self) -> Time:
        if self.end is None and self.settle == 0:
            raise ValueError("give end, or settle > 0")
        return self


class Portrait(Table):
    """A phase portrait, d = 2: trace 1, (a - b, 2c) on a grid inside the cone of covariances."""

    points: int = Field(10, ge=2, le=60, description="points a side of the grid")
    half_width: float = Field(0.5, gt=0, le=1, description="the grid covers [-h, h]^2")
    divergence: float = Field(1e3, gt=1, description="trace at which a trajectory has diverged")
    settle: float = Field(1e-7, gt=0, description="|Sigma'| at which it has converged")


class Ranks(Table):
    """Rank histogram of limits: Q and Sigma0 normal, K = -Q (numpy's legacy generators).

    Every draw has a Q of its own, d//2 x d (and a G): one generator runs through all draws of all
    d. Sigma0 = S S^T, S normal, from a generator that starts again for each d.
    """

    dimensions: tuple[int, ...] = Field((3, 4, 5), min_length=1, description="values of d")
    draws: int = Field(100, ge=1, le=100_000, description="draws for each d")
    value: Literal["identity", "gram"] = Field("identity", description="V = I, or G^T G, G normal")
    threshold: float = Field(0.1, gt=0, description="an eigenvalue above it counts")
    seed_q: int = Field(40, ge=0, description="seed of Q")
    seed_sigma: int = Field(41, ge=0, description="seed of Sigma0")
    seed_v: int = Field(26, ge=0, description="seed of G (published: 26 softmax, 27 l2)")
    settle: float = Field(5e-5, gt=0, description="|Sigma'| at which a limit is reached")
    euler_step: tuple[float, ...] = Field(
        (), description="steps, one for each d: also run the published forward Euler"
    )

    @model_validator(mode="after")
    def _steps(self) -> Ranks:
        if self.euler_step and len(self.euler_step) != len(self.dimensions):
            raise ValueError("euler_step needs one step for each of dimensions")
        if min(self.euler_step, default=1.0) <= 0:
            raise ValueError("euler_step must be positive")
        if min(self.dimensions) < 2:
            raise ValueError("dimensions must be at least 2: Q has d//2 rows")
        return self


class Output(Table):
    """What is written."""

    frames: int = Field(200, ge=2, le=100_000, description="most lines of the history")
    pictures: bool = Field(True, description="pictures")


class Case(AnyCase):
    """A case of kind gaussian-attention."""

    attention: Attention = Field(
        default_factory=lambda: Attention(layer_norm=False), description="the field; on R^d"
    )
    scaled: bool = Field(
        False, description="A = K^T Q / sqrt(d/H), H heads (softmax and l2 as published)"
    )
    sigma: tuple[tuple[float, ...], ...] | None = Field(
        None, description="initial covariance; identity/d if left out"
    )
    mean: tuple[float, ...] = Field((), description="initial mean; 0 if left out")
    d: int | None = Field(None, ge=1, le=200, description="dimension, if no matrix says it")
    time: Time = Field(default_factory=Time, description="when it ends")
    portrait: Portrait | None = Field(None, description="a phase portrait too")
    ranks: Ranks | None = Field(None, description="a rank histogram too")
    output: Output = Field(default_factory=Output, description="what is written")


def dimension(case: Case) -> int:
    """Of the covariance, from whatever says it."""
    if case.sigma is not None:
        return len(case.sigma)
    if case.mean:
        return len(case.mean)
    a = case.attention
    for table in a.heads or (a,):
        for M in (table.Q, table.K, table.V):
            if not isinstance(M, float | int):
                return len(M[0])
    if case.d is None:
        raise CaseError("the dimension is not known: give d, or sigma")
    return case.d


def closure(attention: Attention, d: int, scaled: bool = False) -> gc.Closure:
    """The closed equations of an attention field.

    Raises:
        CaseError: the variant does not keep Gaussians, layer normalisation or a mask is set, the
            matrices do not fit.
    """
    if attention.layer_norm:
        raise CaseError("attention.layer_norm = true: on the sphere no Gaussian stays one; false")
    if attention.masked:
        raise CaseError("attention.masked: the closure is of measures without positions")
    if attention.variant not in ("softmax", "l2", "linear", "sinkhorn"):
        raise CaseError(
            f"attention.variant = {attention.variant!r}: its field is not affine on Gaussians, "
            "which do not stay Gaussian; closed: softmax, l2, linear, sinkhorn"
        )
    beta = attention.beta

    def one(h: HeadArrays) -> gc.Head:
        factor = beta / np.sqrt(d / max(len(attention.heads), 1)) if scaled else beta
        # l2: weight exp(-beta |Qx - Ky|^2); sinkhorn: Gamma = beta int V y K(x, y) dmu
        V = beta * h.V if attention.variant == "sinkhorn" else h.V
        return gc.Head(factor * h.A, V, np.sqrt(beta) * h.K)

    return gc.Closure(attention.variant, tuple(one(h) for h in heads(attention, d)))


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective.

    Raises:
        CaseError: matrices that do not fit, a variant that does not close.
        SolveError: the integrator fails.
    """
    d = dimension(case)
    closed = closure(case.attention, d, case.scaled)
    sigma = np.eye(d) / d if case.sigma is None else array(case.sigma, d, "sigma")
    gc.factor(sigma)
    mean = np.array(case.mean) if case.mean else np.zeros(d)
    with run.phase("trajectory"):
        flow = on_rank_zero(run.comm, _trajectory, case, closed, sigma, mean)
    _history(case, run, flow)
    last = flow.sigma[-1]
    metrics: dict[str, object] = {
        "blow_up_time": flow.blow_up_time,
        "rank": flow.rank,
        "final_time": float(flow.t[-1]),
        "settled": flow.settled,
        "trace": float(np.trace(last)),
        "sigma": last.tolist(),
        "mean": flow.alpha[-1].tolist(),
        "exact_blow_up_time": _exact(case, closed, sigma, mean),
    }
    portrait = ranks = None
    if case.portrait is not None:
        if d != 2:
            raise CaseError(f"portrait: covariances of 2 dimensions are drawn, not of {d}")
        with run.phase("portrait"):
            portrait = on_rank_zero(run.comm, phase_portrait, closed, case.portrait)
        metrics["portrait"] = portrait_counts(portrait)
    if case.ranks is not None:
        with run.phase("ranks"):
            ranks = on_rank_zero(run.comm, rank_histogram, case.attention, case.ranks)
        metrics["ranks"] = ranks
    with run.phase("pictures"):
        if case.output.pictures:
            from fem_apps.attention.gaussian_pictures import draw

            on_rank_zero(run.comm, draw, run.folder, flow, portrait, ranks)
    return metrics


def _trajectory(case: Case, closed: gc.Closure, sigma: np.ndarray, mean: np.ndarray) -> gc.Flow:
    return gc.flow(
        closed,
        sigma,
        mean,
        end=np.inf if case.time.end is None else case.time.end,
        settle=case.time.settle,
        tolerance=case.time.tolerance,
        divergence=case.time.divergence,
    )


def _exact(case: Case, closed: gc.Closure, sigma: np.ndarray, mean: np.ndarray) -> float | None:
    """t* by the formula, where there is one: softmax, one head, V = I, mean 0."""
    (h, *more) = closed.heads
    if (
        more
        or closed.variant != "softmax"
        or mean.any()
        or not np.array_equal(h.V, np.eye(len(h.V)))
    ):
        return None
    t = gc.exact_blow_up(sigma, h.A)
    return t if np.isfinite(t) else None


def _history(case: Case, run: Any, flow: gc.Flow) -> None:
    from fem_apps.output.history import History

    with History(run.comm, run.folder / "history.csv") as history:
        every = max(1, int(np.ceil(len(flow.t) / case.output.frames)))
        kept = sorted({*range(0, len(flow.t), every), len(flow.t) - 1})
        for i in kept:
            values = np.linalg.eigvalsh(flow.sigma[i])
            history.write(
                {
                    "step": i,
                    "time": flow.t[i],
                    "trace": values.sum(),
                    "least_eigenvalue": values[0],
                    "greatest_eigenvalue": values[-1],
                    "mean_norm": np.linalg.norm(flow.alpha[i]),
                    "rank": gc.rank(flow.sigma[i]),
                }
            )


# ------------------------------------------------------------------ many trajectories
def cone_grid(points: int, half_width: float) -> list[np.ndarray]:
    """Covariances [[a, c], [c, b]] of trace 1 with (a - b, 2c) on a grid, inside the cone."""
    g = np.linspace(-half_width, half_width, points)
    out = []
    for u in g:
        for v in g:
            if u * u + v * v <= 1:
                out.append(np.array([[(1 + u) / 2, v / 2], [v / 2, (1 - u) / 2]]))
    return out


def phase_portrait(closed: gc.Closure, portrait: Portrait) -> list[tuple[str, gc.Flow]]:
    """Trajectories from the grid, each with "converged" or "diverged"."""
    out = []
    for sigma in cone_grid(portrait.points, portrait.half_width):
        flow = gc.flow(
            closed, sigma, settle=portrait.settle, divergence=portrait.divergence, tolerance=1e-7
        )
        out.append(("converged" if flow.settled else "diverged", flow))
    return out


def portrait_counts(portrait: list[tuple[str, gc.Flow]]) -> dict[str, int]:
    """How many diverged, and how many converged to each line (or point, or the whole plane)."""
    ends: dict[str, int] = {}
    for how, flow in portrait:
        key = how
        if how == "converged":
            values, vectors = np.linalg.eigh(flow.sigma[-1])
            if values[-1] < 1e-3:
                key = "point"
            elif values[0] < 0.05 * values[-1]:
                u = vectors[:, -1] * np.sign(vectors[0, -1] or 1)
                key = f"line ({u[0]:.2f}, {u[1]:.2f})"
            else:
                key = "plane"
        ends[key] = ends.get(key, 0) + 1
    return ends


def rank_histogram(attention: Attention, ranks: Ranks) -> dict[str, object]:
    """Counts of limits with 0, 1, 2, ... eigenvalues above the threshold, for each d.

    For V = I (softmax and L2) from the exact limit N (N^T Sigma0^-1 N)^-1 N^T; else by following
    the flow. Under "d euler" the published scheme from the same draws, in a last bin those that it
    does not bring to a limit (the publication draws Sigma0 again for these). The rank itself is
    d - d//2 for almost every draw; the threshold counts less.
    """
    q = np.random.RandomState(ranks.seed_q)
    v = np.random.RandomState(ranks.seed_v)
    exact = ranks.value == "identity" and attention.variant in ("softmax", "l2")
    out: dict[str, object] = {}
    all_q = [[q.randn(d // 2, d) for _ in range(ranks.draws)] for d in ranks.dimensions]
    for j, d in enumerate(ranks.dimensions):
        s = np.random.RandomState(ranks.seed_sigma)
        counts, euler = np.zeros(d + 1, dtype=int), np.zeros(d + 2, dtype=int)
        for Q in all_q[j]:
            G = v.randn(d, d) if ranks.value == "gram" else np.eye(d)
            closed = _repulsive(attention, Q, G.T @ G)
            S = s.randn(d, d)
            sigma = S @ S.T
            if exact:
                limit = gc.exact_limit(sigma, closed.heads[0].A)
            else:
                limit = gc.flow(closed, sigma, settle=ranks.settle, tolerance=1e-8).sigma[-1]
            counts[_large(limit, ranks.threshold)] += 1
            if ranks.euler_step:
                tolerance = 1e-4 if ranks.value == "identity" else 5e-5
                last, how = gc.euler(
                    closed, sigma, ranks.euler_step[j], tolerance=tolerance, max_steps=60_000
                )
                euler[_large(last, ranks.threshold) if how == "converged" else d + 1] += 1
        out[str(d)] = counts.tolist()
        if ranks.euler_step:
            out[f"{d} euler"] = euler.tolist()
    return out


def _repulsive(attention: Attention, Q: np.ndarray, V: np.ndarray) -> gc.Closure:
    """K = -Q, A scaled as published."""
    table = Attention(
        variant=attention.variant,
        beta=attention.beta,
        layer_norm=False,
        Q=_tuple(Q),
        K=_tuple(-Q),
        V=_tuple(V),
    )
    return closure(table, Q.shape[1], attention.variant != "sinkhorn")


def _large(S: np.ndarray, threshold: float) -> int:
    return int((np.linalg.eigvalsh(S) > threshold).sum())


def _tuple(M: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in M)
