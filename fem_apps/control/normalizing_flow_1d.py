"""One dimension: laws, the monotone rearrangement, knots, and its exact realisation by pieces.

Any increasing piecewise-linear T with knots x_1 < ... < x_N -> y_1 < ... < y_N and tail slopes is
the flow of at most N + 2 pieces (N + 1 switches): a translation, and at each knot a half-line
stretched by the ratio of the slopes that meet there (at one knot, both half-lines). T interpolates
F_*^-1(F_B(.)), so that every cell between two knots has exactly its mass; what is left is
log T', constant in each cell:

    KL(rho_* | T_# rho_B) ~ 1/24 sum_i h_i^2 int_i (d/dx log T')^2 rho_B dx,

least, for a number of knots, where their density goes as ((log T')'^2 rho_B)^(1/3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from fem_apps.control.normalizing_flow_map import Schedule, pieces

Knots = Literal["optimal", "mixed"]

# knots lie in [-REACH, REACH] of the base
REACH = 4.0
GRID = 1501
# share of the knots that is spread evenly, so that cells stay small where nothing happens
EVEN = 0.15


@dataclass(frozen=True)
class Law:
    """A law on the line with a piecewise-constant density: masses of cells between `edges`."""

    edges: np.ndarray
    masses: np.ndarray

    @cached_property
    def _cumulated(self) -> tuple[np.ndarray, np.ndarray]:
        """Mass left and right of each edge, both summed from their own small end."""
        m = self.masses / self.masses.sum()
        left = np.concatenate([[0.0], np.cumsum(m)])
        right = np.concatenate([np.cumsum(m[::-1])[::-1], [0.0]])
        return left, right

    def quantile_of_normal(self, x: np.ndarray) -> np.ndarray:
        """F^-1(Phi(x)), the monotone rearrangement of N(0, 1); accurate in both tails."""
        left, right = self._cumulated
        low = _interpolate(ndtr(x), left, self.edges)
        high = _interpolate(ndtr(-x), right[::-1], self.edges[::-1])
        return np.where(x < 0, low, high)

    def normal_of(self, y: np.ndarray) -> np.ndarray:
        """Phi^-1(F(y)), the inverse of the rearrangement."""
        left, right = self._cumulated
        low = ndtri(np.clip(np.interp(y, self.edges, left), 1e-300, 1.0))
        high = -ndtri(np.clip(np.interp(y, self.edges, right), 1e-300, 1.0))
        return np.where(low < 0, low, high)

    def cut(self, levels: np.ndarray) -> np.ndarray:
        """Quantiles."""
        return _interpolate(levels, self._cumulated[0], self.edges)

    def spread(self) -> tuple[float, float]:
        """Where all but 1e-7 of the mass is, on either side."""
        left, right = self._cumulated
        low = _interpolate(np.array([1e-7]), left, self.edges)[0]
        high = _interpolate(np.array([1e-7]), right[::-1], self.edges[::-1])[0]
        return float(low), float(high)


def _interpolate(p: np.ndarray, levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The inverse of a cumulated mass; flat parts of it have no say."""
    keep = np.concatenate([[True], np.diff(levels) > 0])
    return np.interp(p, levels[keep], values[keep])


@dataclass(frozen=True)
class Line:
    """An increasing piecewise-linear map: knots x -> y and tail slopes left, right."""

    x: np.ndarray
    y: np.ndarray
    left: float
    right: float

    @property
    def slopes(self) -> np.ndarray:
        """Left tail, cells, right tail."""
        return np.concatenate([[self.left], np.diff(self.y) / np.diff(self.x), [self.right]])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """T(x)."""
        y = np.interp(x, self.x, self.y)
        y = np.where(x < self.x[0], self.y[0] + self.left * (x - self.x[0]), y)
        return np.where(x > self.x[-1], self.y[-1] + self.right * (x - self.x[-1]), y)

    def steps(self, direction: np.ndarray, offset: float = 0.0) -> Schedule:
        """Pieces of x -> x + (T(p.x) - p.x) p for a unit vector p; T acts on p.x - offset there.

        Within a window, where the left slope is 1 and T(x_1) = x_1, from left to right. Else from
        the middle knot: a translation takes it to its image, and then the knots come in the order
        that keeps slopes nearest to 1 meanwhile, lest the density spreads or piles up on its way.
        """
        p = np.asarray(direction, float)
        windowed = self.left == 1.0 and self.y[0] == self.x[0]
        pivot = 0 if windowed else len(self.x) // 2
        log_slope = np.log(self.slopes)
        # (knot, side, rate): what lies on that side of the knot is stretched by e^rate
        events = [(i, 1, log_slope[i + 1] - log_slope[i]) for i in range(pivot + 1, len(self.x))]
        events += [(i, -1, log_slope[i] - log_slope[i + 1]) for i in range(pivot)]
        ends = [(pivot, 1, log_slope[pivot + 1]), (pivot, -1, log_slope[pivot])]
        events = [e for e in (*ends, *events) if e[2] != 0.0]
        if windowed:
            events.sort(key=lambda e: e[0])
        shift = float(self.y[pivot] - self.x[pivot])
        out = [(shift * p, 0 * p, 1.0, 1.0)] if shift != 0.0 else []
        place, now = self.x + shift, np.zeros(len(log_slope))
        while events:
            e = 0 if windowed else _gentlest(events, now)
            knot, side, rate = events.pop(e)
            at = float(place[knot])
            out.append((side * rate * p, side * p, -side * (at + offset), 1.0))
            beyond = slice(knot + 1, None) if side > 0 else slice(None, knot)
            place[beyond] = at + np.exp(rate) * (place[beyond] - at)
            now[_cells(knot, side)] += rate
        return pieces(len(p), out)


def _cells(knot: int, side: int) -> slice:
    """The cells (left tail first) on a side of a knot."""
    return slice(knot + 1, None) if side > 0 else slice(None, knot + 1)


def _gentlest(events: list[tuple[int, int, float]], now: np.ndarray) -> int:
    """The event after which log-slopes are nearest to 0, in the sum of squares."""
    right, left = np.cumsum(now[::-1])[::-1], np.cumsum(now)
    cost = [
        2 * r * (right[k + 1] if s > 0 else left[k])
        + r * r * (len(now) - k - 1 if s > 0 else k + 1)
        for k, s, r in events
    ]
    return int(np.argmin(cost))


def interpolant(
    law: Law,
    count: int,
    knots: Knots = "optimal",
    tails: tuple[float, float] | None = None,
    window: float | None = None,
) -> Line:
    """T with `count` knots that interpolates the rearrangement of N(0, 1) to a law.

    Args:
        law: the target.
        count: number of knots, at least 2.
        knots: "optimal" for the entropy, or "mixed": half equispaced in x on [-4, 4], half in y.
        tails: slopes outside; from the law's own standard deviation there if left out.
        window: identity outside [-window, window], whose ends are two more knots.
    """
    x = _mixed(law, count) if knots == "mixed" else _optimal(law, count)
    y = law.quantile_of_normal(x)
    x, y = _increasing(x, y)
    if window is not None:
        inside = (np.abs(x) < 0.999 * window) & (np.abs(y) < 0.999 * window)
        x = np.concatenate([[-window], x[inside], [window]])
        y = np.concatenate([[-window], y[inside], [window]])
        return Line(x, y, 1.0, 1.0)
    if tails is None:
        tails = tuple(_tail(law, s * x[i], s * y[i], s) for s, i in ((-1, 0), (1, -1)))  # type: ignore[assignment]
    assert tails is not None
    return Line(x, y, *tails)


def _increasing(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots that are told apart on both sides."""
    size = max(float(np.ptp(y)), 1e-12)
    keep = [0]
    for i in range(1, len(x)):
        if x[i] - x[keep[-1]] > 1e-9 and y[i] - y[keep[-1]] > 1e-9 * size:
            keep.append(i)
    return x[keep], y[keep]


def _mixed(law: Law, count: int) -> np.ndarray:
    a, b = law.quantile_of_normal(np.array([-REACH, REACH]))
    inner = np.linspace(a, b, count - (count + 1) // 2 + 2)[1:-1]
    even = np.linspace(-REACH, REACH, (count + 1) // 2)
    return np.unique(np.concatenate([even, law.normal_of(inner)]))


def _knot_density(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """A grid x, dense where either side needs it, and ((log T')'^2 rho_B)^(1/3) in its cells."""
    a, b = law.quantile_of_normal(np.array([-REACH, REACH]))
    even = np.linspace(-REACH, REACH, GRID)
    x = np.unique(np.concatenate([even, law.normal_of(np.linspace(a, b, GRID))]))
    x = x[(np.abs(x) <= REACH) & np.concatenate([[True], np.diff(x) > 1e-9])]
    y = law.quantile_of_normal(x)
    size = max(float(np.ptp(y)), 1e-300)
    slope = np.log(np.maximum(np.diff(y), 1e-12 * size) / np.diff(x))
    middle = 0.5 * (x[1:] + x[:-1])
    change = np.interp(x, 0.5 * (middle[1:] + middle[:-1]), np.diff(slope) / np.diff(middle))
    base = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    return x, (0.5 * (change[1:] ** 2 + change[:-1] ** 2) * base) ** (1 / 3)


def entropy_constant(law: Law) -> float:
    """C with KL ~ C / N^2 for N optimal knots: (int ((log T')'^2 rho_B)^(1/3))^3 / 24."""
    x, density = _knot_density(law)
    return float((density @ np.diff(x)) ** 3 / 24)


def _optimal(law: Law, count: int) -> np.ndarray:
    x, density = _knot_density(law)
    dx = np.diff(x)
    even = np.exp(-((0.5 * (x[1:] + x[:-1])) ** 2) / 6)
    all_even, total = float(even @ dx), float(density @ dx)
    share = EVEN if total > 0 else 1.0
    mass = share * even * dx / all_even + (1 - share) * density * dx / max(total, 1e-300)
    level = np.concatenate([[0.0], np.cumsum(mass)])
    return np.interp((np.arange(count) + 0.5) / count * level[-1], level, x)


def _tail(law: Law, x: float, y: float, side: int) -> float:
    """Slope of T beyond a knot: the one that carries the mean excess of the base to the law's."""
    centre = 0.5 * (law.edges[1:] + law.edges[:-1])
    beyond = side * centre > y
    mass = law.masses[beyond].sum()
    if mass <= 0:
        return 1e-3
    excess = float(law.masses[beyond] @ (side * centre[beyond] - y)) / mass
    base = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) / ndtr(-x) - x
    return max(excess / base, 1e-6)


def entropy(law: Law, T: Line) -> tuple[float, float]:
    """KL(law | T_# N(0,1)) and total variation, by quadrature over the law's cells.

    The masses of T_# N(0,1) in the law's cells are exact, so this is the entropy of the laws of
    cells: below the true one by what varies within them.
    """
    x = _inverse_line(T, law.edges)
    q = np.where(x[1:] < 0, ndtr(x[1:]) - ndtr(x[:-1]), ndtr(-x[:-1]) - ndtr(-x[1:]))
    p = law.masses / law.masses.sum()
    some = p > 0
    kl = float(np.sum(p[some] * np.log(p[some] / np.maximum(q[some], 1e-300))))
    outside = 1.0 - q.sum()
    return kl, float(0.5 * (np.abs(p - q).sum() + max(outside, 0.0)))


def _inverse_line(T: Line, y: np.ndarray) -> np.ndarray:
    x = np.interp(y, T.y, T.x)
    x = np.where(y < T.y[0], T.x[0] + (y - T.y[0]) / T.left, x)
    return np.where(y > T.y[-1], T.x[-1] + (y - T.y[-1]) / T.right, x)
