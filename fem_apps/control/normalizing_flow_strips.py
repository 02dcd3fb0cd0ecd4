"""Construction in d <= 3 dimensions: Knothe-Rosenblatt by strips, shears and conditional maps.

1. The first marginal is mapped along e_1 (`normalizing_flow_1d`).
2. The transformed x_1 axis is cut; a staircase shear, 2 pieces a cut with layers of width delta,
   lifts strip k by k H along e_2.
3. Strips lie in windows of height H of their own: one-dimensional maps along e_2 act on one each,
   and take N(0, 1) to the target's law of x_2 in that strip.
4. The staircase is undone; likewise for e_3 over products of strips.

By the chain rule, layers left aside, the entropy is a sum that is known before any piece is made:

    KL = KL(first marginal) + sum_k m_k KL(law in strip k | its map)
         + sum_k m_k E[KL(law given x_1 | law in strip k)].

So cuts are placed by dynamic programming to make the last sum least, knots are shared out among
the maps in proportion to (m C)^(1/3), and the number of strips is the one that needs the fewest
switches for the accuracy asked.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fem_apps.control.normalizing_flow_1d import (
    REACH,
    Knots,
    Law,
    Line,
    entropy,
    entropy_constant,
    interpolant,
)
from fem_apps.control.normalizing_flow_map import Schedule, pieces
from fem_apps.control.normalizing_flow_targets import Target

GRID = {1: (20000,), 2: (1200, 1600), 3: (110, 110, 140)}
CANDIDATES = 140
MOST_STRIPS = 64
LEAST_KNOTS = 3
# of what is asked, for what the chain rule leaves out: layers, and variation within grid cells
ROOM = 0.88


@dataclass(frozen=True)
class Plan:
    """A schedule and what made it.

    Attributes:
        schedule: the pieces.
        predicted: relative entropy by the chain rule; its parts are marginal, maps, strips.
        cuts: where the axes but the last are cut.
        window: H.
        layer: delta.
    """

    schedule: Schedule
    predicted: float
    parts: tuple[float, float, float]
    cuts: tuple[np.ndarray, ...]
    window: float
    layer: float


@dataclass(frozen=True, eq=False)
class Grid:
    """Masses of a target on a tensor grid, axes in the order of the construction."""

    edges: tuple[np.ndarray, ...]
    mass: np.ndarray

    def first(self) -> Law:
        """The law of the first coordinate."""
        return Law(self.edges[0], self.mass.sum(axis=tuple(range(1, self.mass.ndim))))


def grid_of(target: Target, order: tuple[int, ...]) -> Grid:
    """The target on a grid, axes permuted."""
    edges = [
        np.linspace(a, b, n + 1) for (a, b), n in zip(target.box(), GRID[target.dim], strict=True)
    ]
    mass = target.masses(edges).transpose(order)
    return Grid(tuple(edges[i] for i in order), mass / mass.sum())


def build_strips(
    target: Target,
    accuracy: float,
    *,
    layer: float = 1e-5,
    knots: Knots = "optimal",
    window: float | None = None,
) -> Plan:
    """A schedule with KL(rho_* | rho_N) about `accuracy` or less, by few switches.

    In two dimensions both orders of the axes are tried.

    Args:
        target: in 1, 2 or 3 dimensions.
        accuracy: relative entropy asked.
        layer: delta.
        knots: of the one-dimensional maps.
        window: H; from the target's extent if left out.
    """
    orders = [(0,)] if target.dim == 1 else [(0, 1), (1, 0)] if target.dim == 2 else [(0, 1, 2)]
    plans = []
    for order in orders:
        g = grid_of(target, order)
        H = window or _window(g)
        cuts, counts = _design(g, accuracy * ROOM, knots, H)
        plans.append(_assemble(g, order, cuts, counts, knots, H, layer))
    return min(plans, key=lambda p: p.schedule.switches)


def reference_strips(
    target: Target, strips: int, knots_per_strip: int, *, layer: float = 1e-4, window: float = 14.0
) -> Plan:
    """Two dimensions, strips of equal mass, knots equispaced on [-4, 4]: to compare with.

    Switches: (N_1 + 2) + 4 (K - 1) + K (M + 2) - 1, N_1 = max(9, 2K + 1).
    """
    g = grid_of(target, (0, 1))
    cuts = g.first().cut(np.arange(1, strips) / strips)
    counts = [max(9, 2 * strips + 1), *[knots_per_strip] * strips]
    return _assemble(g, (0, 1), (cuts,), counts, "even", window, layer)


def _window(g: Grid) -> float:
    """H: both the base and the target's later coordinates fit in [-H/2, H/2]."""
    reach = 5.5
    for axis in range(1, g.mass.ndim):
        others = tuple(i for i in range(g.mass.ndim) if i != axis)
        reach = max(reach, *map(abs, Law(g.edges[axis], g.mass.sum(axis=others)).spread()))
    return 2 * (reach + 0.5)


# ---------------------------------------------------------------- where to cut, how many knots


def _design(
    g: Grid, accuracy: float, knots: Knots, H: float
) -> tuple[tuple[np.ndarray, ...], list[int]]:
    """Cuts, and numbers of knots of all maps in the order of `_laws`, for the fewest switches."""
    d = g.mass.ndim
    options: list[tuple[tuple[np.ndarray, ...], float]] = []
    if d == 1:
        options = [((), 0.0)]
    elif d == 2:
        options = [((cuts,), loss) for cuts, loss in _segmentations(g.edges[0], g.mass)]
    else:
        for cuts0, _ in _segmentations(g.edges[0], g.mass.reshape(len(g.mass), -1), 20)[1::3]:
            blocks = np.add.reduceat(g.mass, _starts(g.edges[0], cuts0), axis=0)
            along = np.moveaxis(blocks, 1, 0).reshape(blocks.shape[1], -1)
            groups = len(blocks)
            for cuts1, _ in _segmentations(g.edges[1], along, 20, groups)[1::3]:
                options.append(((cuts0, cuts1), _loss(g, (cuts0, cuts1))))
    best: tuple[int, Any] | None = None
    for cuts, loss in options:
        if loss > 0.9 * accuracy:
            continue
        maps = _count_maps(cuts)
        if best is not None and _fixed_switches(cuts, maps) + LEAST_KNOTS * maps > best[0]:
            continue
        weights = [(m, max(entropy_constant(law), 1e-6)) for m, law, _ in _laws(g, cuts)]
        fixed = _fixed_switches(cuts, maps)
        need = np.array([(m * c) ** (1 / 3) for m, c in weights])
        # sum m C / n^2 = accuracy - loss with n proportional to (m C)^(1/3)
        scale = np.sqrt(need.sum() / (accuracy - loss))
        counts = [max(LEAST_KNOTS, int(np.ceil(scale * n))) for n in need]
        total = fixed + sum(counts)
        if best is None or total < best[0]:
            best = (total, (cuts, counts, loss, need))
    if best is None:
        cuts, loss = min(options, key=lambda o: o[1])
        need = np.array([(m * entropy_constant(law)) ** (1 / 3) for m, law, _ in _laws(g, cuts)])
        scale = np.sqrt(need.sum() / (0.5 * accuracy))
        best = (0, (cuts, [max(LEAST_KNOTS, int(np.ceil(scale * n))) for n in need], loss, need))
    cuts, counts, loss, need = best[1]
    # the asymptotic law is not exact: more or fewer knots until the quadrature says so
    for _ in range(12):
        made = sum(_maps_entropy(g, cuts, counts, knots, H))
        left = accuracy - loss
        if 0.93 * left <= made <= left or left <= 0:
            break
        ratio = np.clip(np.sqrt(made / (0.97 * left)), 0.7, 1.5)
        new = [max(LEAST_KNOTS, int(np.ceil(ratio * c))) for c in counts]
        if new == counts:
            break
        counts = new
    return cuts, counts


def _fixed_switches(cuts: tuple[np.ndarray, ...], maps: int) -> int:
    """Switches besides one a knot: tails and translation, staircases, window ends."""
    lifts = sum((len(cuts) - i) * 4 * len(c) for i, c in enumerate(cuts))
    return 2 + lifts + 2 * (maps - 1) - 1


def _count_maps(cuts: tuple[np.ndarray, ...]) -> int:
    sizes = [len(c) + 1 for c in cuts]
    return sum(int(np.prod(sizes[:i])) for i in range(len(cuts) + 1))


def _starts(edges: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.searchsorted(edges, cuts - 1e-12)]).astype(int)


def _laws(g: Grid, cuts: tuple[np.ndarray, ...]) -> list[tuple[float, Law, tuple[int, ...]]]:
    """Mass, law and strip of each map: the first marginal, then the conditional ones."""
    out: list[tuple[float, Law, tuple[int, ...]]] = [(1.0, g.first(), ())]
    for axis in range(1, g.mass.ndim):
        later = tuple(range(axis + 1, g.mass.ndim))
        block = g.mass.sum(axis=later) if later else g.mass
        for i in range(axis):
            block = np.add.reduceat(block, _starts(g.edges[i], cuts[i]), axis=i)
        for strip in itertools.product(*[range(len(cuts[i]) + 1) for i in range(axis)]):
            law = block[strip]
            out.append((float(law.sum()), Law(g.edges[axis], law), strip))
    return out


def _maps_entropy(
    g: Grid, cuts: tuple[np.ndarray, ...], counts: list[int], knots: Any, H: float
) -> tuple[float, float]:
    """Entropies of the first marginal, and of the conditional maps weighted by mass."""
    first, rest = 0.0, 0.0
    for (mass, law, strip), count in zip(_laws(g, cuts), counts, strict=True):
        if mass <= 0:
            continue
        kl = entropy(law, _line(law, count, knots, H if strip else None))[0]
        if strip:
            rest += mass * kl
        else:
            first = kl
    return first, rest


def _line(law: Law, count: int, knots: Any, H: float | None) -> Line:
    window = None if H is None else H / 2
    if knots != "even":
        return interpolant(law, count, knots, window=window)
    x = np.linspace(-REACH, REACH, count)
    y = law.quantile_of_normal(x)
    if window is None:
        return Line(x, y, 0.6, 0.6)
    return Line(np.array([-window, *x, window]), np.array([-window, *y, window]), 1.0, 1.0)


def _segmentations(
    edges: np.ndarray, mass: np.ndarray, most: int = MOST_STRIPS, groups: int = 1
) -> list[tuple[np.ndarray, float]]:
    """For 1, 2, ... strips of the first axis the best cuts, and the entropy that strips lose.

    Args:
        edges: of the first axis.
        mass: shape (cells of the first axis, cells of what is conditional on it).
        most: strips.
        groups: the second axis holds this many laws, each conditional on its own.
    """
    n = len(mass)
    marginal = mass.sum(axis=1)
    # candidates: half by mass, half by place where there is mass
    level = np.concatenate([[0.0], np.cumsum(marginal)])
    level /= level[-1]
    inside = edges[(level > 1e-4) & (level < 1 - 1e-4)]
    by_mass = np.interp(np.linspace(0, 1, CANDIDATES // 2 + 2)[1:-1], level, edges)
    by_place = np.linspace(inside[0], inside[-1], CANDIDATES // 2) if len(inside) else edges[1:1]
    at = np.unique(np.searchsorted(edges, np.concatenate([by_mass, by_place])))
    at = at[(at > 0) & (at < n)]
    at = np.concatenate([[0], at, [n]])

    coarse = _coarser(mass, groups)
    rows = _information(coarse)
    fine = np.concatenate([[0.0], np.cumsum(rows)])
    cumulated = np.concatenate([np.zeros((1, *coarse.shape[1:])), np.cumsum(coarse, axis=0)])[at]
    m = len(at) - 1
    loss = np.full((m + 1, m + 1), np.inf)
    for i in range(m):
        loss[i, i + 1 :] = (
            fine[at[i + 1 :]] - fine[at[i]] - _information(cumulated[i + 1 :] - cumulated[i])
        )
    best = loss[0].copy()
    back: list[np.ndarray] = []
    out = [(np.empty(0), float(best[m]))]
    for _ in range(1, min(most, m)):
        through = best[:, None] + loss
        back.append(through.argmin(axis=0))
        best = through.min(axis=0)
        j, cuts = m, []
        for b in reversed(back):
            j = int(b[j])
            cuts.append(edges[at[j]])
        out.append((np.array(cuts[::-1]), float(max(best[m], 0.0))))
    return out


def _coarser(mass: np.ndarray, groups: int) -> np.ndarray:
    """Shape (rows, groups, at most 400 cells)."""
    table = mass.reshape(len(mass), groups, -1)
    step = -(-table.shape[2] // 400)
    return np.add.reduceat(table, np.arange(0, table.shape[2], step), axis=2)


def _information(p: np.ndarray) -> np.ndarray:
    """Sum p log(p / sum p) over the last axis, and over groups."""
    total = p.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / np.where(total > 0, total, 1.0)), 0.0)
    return terms.sum(axis=tuple(range(1, p.ndim)))


@lru_cache(maxsize=8)
def _joint_information(g: Grid) -> float:
    """Sum over axes of what is known of a coordinate given all earlier ones."""
    known = 0.0
    for axis in range(1, g.mass.ndim):
        later = tuple(range(axis + 1, g.mass.ndim))
        joint = g.mass.sum(axis=later) if later else g.mass
        known += float(_information(joint.reshape(1, -1, joint.shape[-1])).sum())
    return known


def _loss(g: Grid, cuts: tuple[np.ndarray, ...]) -> float:
    """E KL(law of a later coordinate given the earlier ones | its law in their strips)."""
    lost = _joint_information(g)
    for axis in range(1, g.mass.ndim):
        later = tuple(range(axis + 1, g.mass.ndim))
        block = g.mass.sum(axis=later) if later else g.mass
        for i in range(axis):
            block = np.add.reduceat(block, _starts(g.edges[i], cuts[i]), axis=i)
        lost -= float(_information(block.reshape(1, -1, block.shape[-1])).sum())
    return max(lost, 0.0)


# ---------------------------------------------------------------- pieces


def _assemble(
    g: Grid,
    order: tuple[int, ...],
    cuts: tuple[np.ndarray, ...],
    counts: list[int],
    knots: Any,
    H: float,
    layer: float,
) -> Plan:
    d = len(order)
    axes = np.eye(d)[list(order)]
    schedule = pieces(d, [])
    sizes = [len(c) + 1 for c in cuts]
    for (mass, law, strip), count in zip(_laws(g, cuts), counts, strict=True):
        axis = len(strip)
        start = axis > 0 and all(k == 0 for k in strip)
        end = axis > 0 and all(k == sizes[i] - 1 for i, k in enumerate(strip))
        strides = [int(np.prod(sizes[i + 1 : axis])) for i in range(axis)]
        lift = _staircase(axes, cuts[:axis], strides, axis, H, layer)
        if start:
            schedule = schedule.then(lift)
        if mass > 0:
            line = _line(law, count, knots, H if axis else None)
            offset = H * sum(k * s for k, s in zip(strip, strides, strict=True))
            schedule = schedule.then(line.steps(axes[axis], offset))
        if end:
            schedule = schedule.then(lift.reversed_in_time())
    first, rest = _maps_entropy(g, cuts, counts, knots, H)
    strips = _loss(g, cuts)
    return Plan(schedule, first + rest + strips, (first, rest, strips), cuts, H, layer)


def _staircase(
    axes: np.ndarray,
    cuts: tuple[np.ndarray, ...],
    strides: list[int],
    axis: int,
    H: float,
    layer: float,
) -> Schedule:
    """Lift every product of strips by its number times H along an axis."""
    steps = []
    for i, (places, stride) in enumerate(zip(cuts, strides, strict=True)):
        w = stride * H / layer * axes[axis]
        for q in places:
            steps.append((w, axes[i], -(q - layer / 2), 1.0))
            steps.append((-w, axes[i], -(q + layer / 2), 1.0))
    return pieces(len(axes), steps)
