"""Tokens in time: dx_i/dt = Gamma_mu(x_i), mu = sum_j m_j delta_{x_j}, adaptive, with events.

* Clusters (pairs closer than a distance) merge at times found by root finding on the dense output,
  as long as there are at most EVENTS of them; the watch takes pairs in blocks.
* Tokens that come closer than the gluing distance become one, with the sum of their masses: what
  made the system stiff is gone, and an explicit method of order 8 takes steps as long as the slow
  motion of the clusters allows, so that lifetimes of 1e7 time units take seconds. The error is that
  of the gluing distance: compare two of them. Where tokens repel, pairs that move apart stay two.
* With noise kappa: geometric Langevin on the sphere, dx = Gamma dt + sqrt(2 kappa) P_x o dB, by
  Euler-Maruyama steps that end on the sphere; random numbers depend on seed and step alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from fem_apps.attention.clusters import labels
from fem_apps.attention.fields import Field, by_blocks
from fem_apps.errors import SolveError

# while there are more clusters than this, merges are seen at output times only: each would end a
# step; the same for tokens that touch
EVENTS = 1024
# a blow-up in finite time: what is left of it at that size is below rounding of the time
INFINITE = 1e5
# distances from inner products have errors of 1e-8, a few per cent of the least gluing distance
GLUE_SLACK = 0.05
MAX_STEPS = 1_000_000


@dataclass(frozen=True)
class Cloud:
    """Tokens at a time, some of them glued.

    Attributes:
        t: time.
        x: positions, (k, d).
        mass: masses, (k,), sum 1.
        leader: index into x of the one that each moves with, (k,): glued ones share it.
        member: index into x of each token, (n,); a large cloud drops those that are glued.
        step: number of steps of the noisy method.
    """

    t: float
    x: np.ndarray
    mass: np.ndarray
    leader: np.ndarray
    member: np.ndarray
    step: int = 0

    @property
    def tokens(self) -> np.ndarray:
        """Positions of all tokens, (n, d)."""
        return self.x[self.member]


def cloud(x: np.ndarray, mass: np.ndarray | None = None) -> Cloud:
    """All tokens distinct, of equal masses unless given."""
    n = len(x)
    mass = np.full(n, 1 / n) if mass is None else np.asarray(mass, dtype=float)
    return Cloud(0.0, np.array(x, dtype=float), mass / mass.sum(), np.arange(n), np.arange(n))


@dataclass(frozen=True)
class Merge:
    """Clusters fewer than before, at a time."""

    t: float
    before: int
    after: int


@dataclass(eq=False)
class Tokens:
    """The integrator of one field.

    Args:
        field: of the tokens.
        tolerance: relative and absolute, of a step.
        cluster: distance below which two tokens belong to one cluster.
        glue: distance below which two tokens become one; 0: never.
        noise: kappa.
        dt: step of the noisy method.
        seed: of the noise.
    """

    field: Field
    tolerance: float = 1e-9
    cluster: float = 0.0447
    glue: float = 1e-6
    noise: float = 0.0
    dt: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        self.on_sphere = self.field.attention.layer_norm
        if self.field.attention.masked:
            self.glue = 0.0  # two tokens at one place see different pasts

    # ------------------------------------------------------------------ equations
    def _rate(self, t: Any, x: Any, args: tuple[Any, ...]) -> Any:
        return self.field(x, x, args[0])[args[2]]

    @cached_property
    def _segment(self) -> Callable[..., Any]:
        term = diffrax.ODETerm(self._rate)
        controller = diffrax.PIDController(rtol=self.tolerance, atol=self.tolerance)

        def before_event(t: Any, y: Any, args: tuple[Any, ...], **_: Any) -> Any:
            room = 1 - jnp.max(jnp.abs(y)) / INFINITE
            gap = circle_gap if self.on_sphere and y.shape[1] == 2 else least_gap
            if args[1].size:
                room = jnp.minimum(room, gap(y, args[1]) / self.cluster**2 - 1)
            if args[3].size:
                room = jnp.minimum(room, gap(y, args[3]) / self.glue**2 - 1)
            return room

        def solve(x: Any, t0: Any, t1: Any, args: tuple[Any, ...]) -> Any:
            finder: Any = optimistix.Bisection(1e-12, 1e-12, flip="detect")  # type: ignore[call-arg]
            event = diffrax.Event(before_event, finder)
            sol = diffrax.diffeqsolve(
                term,
                diffrax.Dopri8(),
                t0,
                t1,
                None,
                x,
                args=args,
                stepsize_controller=controller,
                event=event,
                max_steps=MAX_STEPS,
                throw=False,
            )
            return sol.ts[-1], sol.ys[-1], sol.event_mask, sol.stats["num_steps"]

        return jax.jit(solve)

    @cached_property
    def _noisy(self) -> Callable[..., Any]:
        def steps(x: Any, log_m: Any, first: Any, count: Any, dt: Any) -> Any:
            key = jax.random.key(self.seed)

            def one(k: Any, x: Any) -> Any:
                xi = jax.random.normal(jax.random.fold_in(key, first + k), x.shape)
                if self.on_sphere:
                    xi = xi - jnp.sum(xi * x, axis=1, keepdims=True) * x
                x = x + dt * self.field(x, x, log_m) + jnp.sqrt(2 * self.noise * dt) * xi
                return x / jnp.linalg.norm(x, axis=1, keepdims=True) if self.on_sphere else x

            return jax.lax.fori_loop(0, count, one, x)

        return jax.jit(steps)

    # ------------------------------------------------------------------ segments
    def advance(
        self, c: Cloud, end: float, group: np.ndarray
    ) -> tuple[Cloud, np.ndarray, list[Merge]]:
        """To a time, through merges; group are the clusters' numbers of c.x at its time.

        Returns:
            the cloud, its groups, and the merges on the way.

        Raises:
            SolveError: the integrator fails.
            Burst: the tokens left every bound, in R^d.
        """
        if self.noise:
            return self._advance_noisy(c, end, group)
        merges: list[Merge] = []
        while c.t < end:
            none = np.empty(0, dtype=int)
            watched = group if int(group.max()) < EVENTS else none
            touching = c.leader if self.glue and len(np.unique(c.leader)) <= EVENTS else none
            events = watched.size > 0
            args = (np.log(c.mass), watched, c.leader, touching)
            t, x, fired, steps = self._segment(c.x, np.float64(c.t), np.float64(end), args)
            x, fired = np.array(x), bool(fired)
            self._check(c, x, int(steps))
            if self.on_sphere:
                x /= np.linalg.norm(x, axis=1, keepdims=True)
            c = replace(c, t=float(t) if fired else end, x=x)
            if np.abs(x).max() > 0.5 * INFINITE:
                raise Burst(c)
            if fired or not events or (self.glue and not touching.size):
                before = int(group.max()) + 1
                # a root is found from either side: what triggered the event counts as within
                group = labels(c.x, self.cluster * (1 + 1e-6))
                after = int(group.max()) + 1
                if after < before:
                    merges.append(Merge(c.t, before, after))
                if self.glue:
                    c, group = self._glue(c, group)
        return c, group, merges

    def _advance_noisy(
        self, c: Cloud, end: float, group: np.ndarray
    ) -> tuple[Cloud, np.ndarray, list[Merge]]:
        count = max(1, round((end - c.t) / self.dt))
        dt = (end - c.t) / count
        x = np.array(self._noisy(c.x, jnp.log(c.mass), c.step, count, dt))
        if not np.isfinite(x).all():
            raise SolveError("noisy tokens", "not finite", time=c.t, advice="a smaller time.dt")
        c = replace(c, t=end, x=x, step=c.step + count)
        before = int(group.max()) + 1
        group = labels(x, self.cluster)
        after = int(group.max()) + 1
        return c, group, [Merge(end, before, after)] if after < before else []

    def _check(self, c: Cloud, x: np.ndarray, steps: int) -> None:
        if np.isfinite(x).all() and steps < MAX_STEPS:
            return
        reason = "not finite" if not np.isfinite(x).all() else f"{steps} steps were not enough"
        raise SolveError(
            "token dynamics", reason, time=c.t, advice="a larger tolerance, or tokens.glue > 0"
        )

    def _glue(self, c: Cloud, group: np.ndarray) -> tuple[Cloud, np.ndarray]:
        """Tokens that touch move on together from their centre of mass."""
        same = labels(c.x, self.glue * (1 + GLUE_SLACK))
        k = int(same.max()) + 1
        if k == len(np.unique(c.leader)):
            return c, group
        mass = np.bincount(same, weights=c.mass)
        sums = [np.bincount(same, weights=c.mass * z) / mass for z in c.x.T]
        x = np.stack(sums, axis=1)
        if self.on_sphere:
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
        first = np.unique(same, return_index=True)[1]
        if len(c.x) <= EVENTS or 2 * k > len(c.x):  # arrays of other sizes compile again
            return replace(c, x=x[same], leader=first[same]), group
        small = replace(c, x=x, mass=mass, leader=np.arange(k), member=same[c.member])
        return small, group[first]


def least_gap(x: Any, group: Any) -> Any:
    """Least squared distance of two tokens of different groups; blocks of rows, O(n d) memory."""
    square = jnp.sum(x * x, axis=1)

    def block(rows: tuple[Any, Any]) -> Any:
        xi, gi = rows
        distance = jnp.sum(xi * xi, axis=1)[:, None] + square - 2 * xi @ x.T
        return jnp.min(jnp.where(gi[:, None] != group, distance, 1e30), axis=1)

    return jnp.min(by_blocks(block, (x, group), len(x)))


def circle_gap(x: Any, group: Any) -> Any:
    """The same on the circle, where the two are neighbours: O(n log n)."""
    order = jnp.argsort(jnp.arctan2(x[:, 1], x[:, 0]))
    x, group = x[order], group[order]
    distance = jnp.sum((x - jnp.roll(x, 1, axis=0)) ** 2, axis=1)
    return jnp.min(jnp.where(group != jnp.roll(group, 1), distance, 1e30))


class Burst(Exception):
    """Tokens in R^d left every bound: blow-up of the cloud; `cloud` is the last one."""

    def __init__(self, c: Cloud) -> None:
        super().__init__(f"blow-up at t = {c.t:.6g}")
        self.cloud = c
