"""The staircase of metastable attention on the circle: gradient flow of the energy at unit speed.

For scaled unnormalised attention g_i = (1/n^2) sum_j e^{beta(cos(theta_j - theta_i) - 1)}
sin(theta_j - theta_i), and d theta / ds = g / |g|: every metastable state lasts the time that its
next merge is long, and 2 beta E = (1/n^2) sum_ij e^{beta(cos - 1)} against s / log(beta) is a
staircase. The largest exponent is factored out of g, which does not underflow at any beta.
Source: Geshkovski, Koubbi, Polyanskiy, Rigollet (arXiv 2410.06833).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from scipy.integrate import solve_ivp

from fem_apps.errors import SolveError

# start angles of the published experiment, for every beta
PUBLISHED = 0.5 * np.array([0, 0.5, 2, 4, 7]) * np.log(2000) / np.sqrt(2000)


@dataclass(frozen=True)
class Staircase:
    """Arc length s, 2 beta E, angles of the tokens at each; arc lengths of the merges."""

    beta: float
    s: np.ndarray
    energy: np.ndarray
    angles: np.ndarray
    merges: np.ndarray

    @property
    def merge_times(self) -> np.ndarray:
        """S / log(beta), the published unit."""
        return self.merges / np.log(self.beta)


def direction(theta: np.ndarray, mass: np.ndarray, beta: float) -> np.ndarray:
    """D theta / ds of distinct tokens with multiplicities; the norm is over all tokens."""
    gap = theta[None, :] - theta[:, None]
    exponent = beta * (np.cos(gap) - 1)
    np.fill_diagonal(exponent, -np.inf)
    force = (mass * np.exp(exponent - exponent.max()) * np.sin(gap)).sum(axis=1)
    return force / np.sqrt(mass @ force**2)


def energy(theta: np.ndarray, mass: np.ndarray, beta: float) -> float:
    """2 beta E, in (0, 1]."""
    gap = theta[None, :] - theta[:, None]
    return float(mass @ np.exp(beta * (np.cos(gap) - 1)) @ mass / mass.sum() ** 2)


def staircase(
    theta: np.ndarray,
    beta: float,
    *,
    end: float = np.inf,
    glue: float = 1e-7,
    samples: int = 400,
    watch: Callable[[float, int], None] | None = None,
) -> Staircase:
    """Follow tokens at unit speed until one is left, or to an arc length.

    Args:
        theta: start angles, (n,).
        beta: inverse temperature, > 1.
        end: last arc length.
        glue: angle at which two tokens become one, at their centre of mass.
        samples: of the profile, between two merges.
        watch: called with s and the number of clusters after each merge.

    Raises:
        SolveError: no two tokens approach within the circle's length per token.
    """
    order = np.argsort(theta)
    member = np.empty(len(theta), dtype=int)
    member[order] = np.arange(len(theta))
    x: Any = np.array(theta, dtype=float)[order]
    mass: Any = np.ones(len(theta))
    s, merges = 0.0, []
    out_s, out_e, out_x = [0.0], [energy(x, mass, beta)], [x[member]]

    def gaps(x: np.ndarray) -> np.ndarray:
        return np.abs(np.remainder(np.diff(x, append=x[:1]) + np.pi, 2 * np.pi) - np.pi)

    while len(x) > 1 and s < end:

        def close(_: float, x: np.ndarray) -> float:
            return float(gaps(x).min() - glue)

        close.terminal = True  # type: ignore[attr-defined]
        if close(0.0, x) > 0:
            longest = min(end - s, 2 * np.pi * len(theta))
            sol = solve_ivp(
                lambda _, y, mass=mass: direction(y, mass, beta),
                (0.0, longest),
                x,
                method="DOP853",
                rtol=1e-10,
                atol=1e-12,
                events=close,
                dense_output=True,
                first_step=1e-6,
            )
            last = sol.t[-1]
            for step in np.linspace(0, last, samples + 1)[1:]:
                y = sol.sol(step)
                out_s.append(s + step)
                out_e.append(energy(y, mass, beta))
                out_x.append(y[member])
            s, x = s + last, sol.y[:, -1]
            if sol.status == 0 and s < end:
                raise SolveError("staircase", f"no merge within an arc length of {longest:g}")
            if sol.status == 0:
                break
        i = int(np.argmin(gaps(x)))
        j = (i + 1) % len(x)
        step = np.remainder(x[j] - x[i] + np.pi, 2 * np.pi) - np.pi
        x[i] += step * mass[j] / (mass[i] + mass[j])
        mass[i] += mass[j]
        member[member == j] = i
        member[member > j] -= 1
        x, mass = np.delete(x, j), np.delete(mass, j)
        merges.append(s)
        out_s.append(s)
        out_e.append(energy(x, mass, beta))
        out_x.append(x[member])
        if watch is not None:
            watch(s, len(x))
    return Staircase(beta, np.array(out_s), np.array(out_e), np.array(out_x), np.array(merges))


def limit_merges(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges as beta -> infinity: cumulative arc lengths, and the plateaus of 2 beta E.

    Only the closest pair moves: masses a, b at gap D meet at their centre of mass after
    D sqrt(ab/(a+b)). Tokens on an arc (no pair meets the long way round).
    """
    x: Any = np.sort(theta).astype(float)
    mass: Any = np.ones(len(theta))
    s, lengths, plateaus = 0.0, [], [float((mass**2).sum() / mass.sum() ** 2)]
    while len(x) > 1:
        i = int(np.argmin(np.diff(x)))
        a, b = mass[i], mass[i + 1]
        s += (x[i + 1] - x[i]) * np.sqrt(a * b / (a + b))
        x[i] = (a * x[i] + b * x[i + 1]) / (a + b)
        mass[i] = a + b
        x, mass = np.delete(x, i + 1), np.delete(mass, i + 1)
        lengths.append(s)
        plateaus.append(float((mass**2).sum() / mass.sum() ** 2))
    return np.array(lengths), np.array(plateaus)


@njit(cache=True)
def published_rule(theta, beta, steps, size=1e-5):  # type: ignore[no-untyped-def]
    """2 beta E after every step of the published rule: theta += 1e-5 log(beta) g/|g|.

    Tokens closer than 1e-3 become one once |g| < 1e-5; the rule ends (nan) when one is left.
    """
    n = len(theta)
    theta = theta.copy()
    out = np.full(steps + 1, np.nan)
    label = np.arange(n)
    g = np.empty(n)
    for step in range(steps + 1):
        e = norm = 0.0
        top = -np.inf
        for i in range(n):
            for j in range(n):
                z = beta * (np.cos(theta[j] - theta[i]) - 1.0)
                e += np.exp(z)
                if label[i] != label[j]:
                    top = max(top, z)
        out[step] = e / n**2
        if top == -np.inf:
            break
        for i in range(n):
            g[i] = 0.0
            for j in range(n):
                if label[i] != label[j]:
                    d = theta[j] - theta[i]
                    g[i] += np.exp(beta * (np.cos(d) - 1.0) - top) * np.sin(d)
            norm += g[i] ** 2
        norm = np.sqrt(norm)
        for i in range(n):
            theta[i] += size * np.log(beta) * g[i] / norm
        if norm * np.exp(top) / n**2 < 1e-5:
            for i in range(n):
                for j in range(i):
                    if label[i] != label[j] and abs(theta[i] - theta[j]) < 1e-3:
                        old = label[i]
                        for k in range(n):
                            if label[k] == old:
                                label[k] = label[j]
                                theta[k] = theta[j]
    return out
