"""The nodes that a convolution acts on, and what all ranks must know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.mpi import same_error

# Nodes of a mesh file with 8 digits still count as lying on a circle or sphere.
ON_SPHERE = 1e-6


@dataclass(frozen=True)
class Nodes:
    """Nodes spread over the ranks, with extents common to all of them.

    Attributes:
        comm: communicator.
        x: owned nodes, (n_owned, dim).
        low, high: corners of the bounding box of all nodes, (dim,).
        count: number of all nodes.
        spacing: typical node spacing.
        lattice: period vectors in rows, (0 to dim, dim).
        reach: greatest distance of a node from the middle of the bounding box.
        sphere: radius if all nodes lie on one circle or sphere about the origin, else 0.
        circle: radius if x is the arc length on a circle, else 0.
    """

    comm: MPI.Comm
    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: int
    spacing: float
    lattice: np.ndarray
    reach: float
    sphere: float
    circle: float = 0.0

    @property
    def dim(self) -> int:
        """Dimension of the space that the nodes lie in."""
        return self.x.shape[1]

    @property
    def extent(self) -> np.ndarray:
        """Sides of the bounding box, (dim,)."""
        return self.high - self.low

    @property
    def diameter(self) -> float:
        """No two nodes are further apart: diagonal of the box, or twice the reach if less."""
        return min(float(np.linalg.norm(self.extent)), 2 * self.reach)

    @property
    def on_unit_sphere(self) -> bool:
        """Whether all nodes lie on the unit circle or sphere, without periods."""
        return self.dim > 1 and not len(self.lattice) and abs(self.sphere - 1) <= ON_SPHERE


def survey(
    comm: MPI.Comm, x: np.ndarray, spacing: float, lattice: Sequence[Sequence[float]] | np.ndarray
) -> Nodes:
    """Check the nodes and find their extents. Collective.

    Raises:
        CaseError: nodes that are not finite or not (n, 1 to 3), fewer than two, a spacing that is
            not positive, period vectors that are dependent or of the wrong length.
    """
    with same_error(comm):
        x = np.ascontiguousarray(x, dtype=float)
        if x.ndim != 2 or not 1 <= x.shape[1] <= 3:
            raise CaseError(f"nodes of a convolution have shape (n, 1 to 3), these have {x.shape}")
        if not np.isfinite(x).all():
            raise CaseError("nodes of the mesh are not finite numbers")
        if not (np.isfinite(spacing) and spacing > 0):
            raise CaseError(f"node spacing = {spacing!r} must be positive")
        periods = (
            np.array(lattice, dtype=float).reshape(-1, x.shape[1])
            if len(lattice)
            else np.empty((0, x.shape[1]))
        )
        if len(periods) and np.linalg.matrix_rank(periods) < len(periods):
            raise CaseError(f"period vectors {periods.tolist()} are not independent")
    radius = np.linalg.norm(x, axis=1)
    ends = np.full(2 * x.shape[1] + 2, -np.inf)
    if len(x):
        ends[:] = np.r_[-x.min(axis=0), x.max(axis=0), -radius.min(), radius.max()]
    comm.Allreduce(MPI.IN_PLACE, ends, op=MPI.MAX)
    count = comm.allreduce(len(x))
    if count < 2:
        raise CaseError(f"a convolution needs at least two nodes, the mesh has {count}")
    d, near, far = x.shape[1], -ends[-2], ends[-1]
    sphere = float(near + far) / 2 if d > 1 and far - near <= ON_SPHERE * far else 0.0
    low, high = -ends[:d], ends[d : 2 * d]
    farthest = np.linalg.norm(x - (low + high) / 2, axis=1).max(initial=0.0)
    reach = comm.allreduce(float(farthest), op=MPI.MAX)
    return Nodes(comm, x, low, high, count, float(spacing), periods, reach, sphere)
