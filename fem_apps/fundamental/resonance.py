"""Interior resonances of the surface on which the sources lie, found whatever the incident wave.

Where omega^2 is a Dirichlet eigenvalue of the region inside the sources' surface, the single layer
on it misses a direction: a field that has it is represented badly, with huge coefficients, while
the condition number hardly tells. Forces well inside the surface excite every such direction, and
elsewhere they need coefficients of their own size: these are what is looked at. A resonance is
suspected where their norm is large, and found where it falls as the surface moves a little.
(Method of fundamental solutions as a discrete single layer: Barnett and Betcke, arXiv 0708.3533.)
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import svdvals

from fem_apps.fundamental import mfs
from fem_apps.fundamental.medium import Medium

# strength above which a resonance is suspected (5 and less elsewhere), and the fall that finds it
SUSPECT, FALLS = 8.0, 3.0
INNER = (0.3, 0.6)  # where the forces are, from the middle of the sources to their surface


def possible(medium: Medium, parts: list[np.ndarray]) -> bool:
    """Whether a region inside the sources of one obstacle can have an eigenvalue at all.

    On fields that vanish at the boundary the elastic energy is at least mu |grad u|^2, so that no
    eigenvalue lies below that of the Laplacian in a ball about the region: k_s R >= pi.
    """
    reach = [np.linalg.norm(y - y.mean(axis=0), axis=1).max() for y in parts]
    return medium.k_s * max(reach) >= np.pi


def strength(
    basis: mfs.Basis, boundary: mfs.Boundary, factor: mfs.Factor, parts: list[np.ndarray]
) -> float:
    """Largest |c| of all forces of size 1 inside the sources' surface; O(1) without a resonance.

    Of all combinations of the forces in three directions at six points: a single one may by chance
    excite a resonance little. In a basis of waves |c| is over the root mean square of the data.

    Args:
        basis: of the solution.
        boundary: points of collocation.
        factor: of the basis on it.
        parts: sources of each obstacle, (N, 3).
    """
    worst = 0.0
    for y in parts:
        middle = y.mean(axis=0)
        at = [middle + t * (y[k :: max(1, len(y) // 3)][:3] - middle) for k, t in enumerate(INNER)]
        x = np.concatenate(at)
        inside = mfs.PointSources(basis.medium, x)
        data = inside.rows(boundary)
        if not isinstance(basis, mfs.PointSources):
            data /= np.sqrt((np.abs(data) ** 2).mean(axis=0))
        worst = max(worst, float(svdvals(factor.solve(data))[0]))
    return worst
