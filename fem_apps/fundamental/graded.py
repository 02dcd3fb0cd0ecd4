"""Points that crowd towards the line on which the condition of one body changes.

There the traction grows like the distance d to the power -1/2, and evenly spaced sources miss it.
Sources at depth min(top, d + d0), spaced in proportion to it, follow it; their number grows like
1/d0, and d0 is the least that it allows. Rows of collocation have the weight of their area, or the
many points near the line would rule.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from fem_apps.fundamental.surfaces import spread

# distance of sources over their depth, measured along the boundary; chosen on a sphere (of .4 to
# 1.2 the one with the least error), as is the slope 1 of the depth
SPACING = 0.8


def from_change(x: np.ndarray, rigid: np.ndarray) -> np.ndarray:
    """Distance of cloud points (n, 3) to the nearest one with the other condition, (n,)."""
    out = np.empty(len(x))
    for side in (True, False):
        here = rigid == side
        out[here] = cKDTree(x[~here]).query(x[here])[0]
    return out


def depths(d: np.ndarray, weights: np.ndarray, top: np.ndarray, n: float) -> np.ndarray:
    """Depth min(top, d + d0) of n sources that are SPACING times it apart, (cloud,).

    Args:
        d: distances of cloud points to the change.
        weights: areas of the points.
        top: largest depth at each.
        n: number of sources.
    """
    low, high = 1e-6, float(np.max(top))
    for _ in range(50):
        d0 = np.sqrt(low * high)
        depth = np.minimum(top, d + d0)
        low, high = (d0, high) if (weights / (SPACING * depth) ** 2).sum() > n else (low, d0)
    return np.minimum(top, d + high)


def points(x: np.ndarray, depth: np.ndarray, n: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Indices of n points spaced in proportion to the depth, and their weights of mean square 1."""
    at = spread(x, n, depth, seed)
    weights = depth[at] / np.sqrt((depth[at] ** 2).mean())
    return at, weights
