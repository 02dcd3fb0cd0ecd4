"""Set-ups that the tests of the continuity equation share."""

from __future__ import annotations

import numpy as np
from dolfinx import mesh as dm
from mpi4py import MPI

from fem_apps.meshing import MeshCase, MeshData, build
from fem_apps.problems.continuity import Time, evolve

SELF = MPI.COMM_SELF
BODIES = (
    "where((x-.5)**2 + (y-.75)**2 <= .0225 and (abs(x-.5) >= .025 or y >= .85), 1, 0)"
    " + max(0, 1 - sqrt((x-.5)**2 + (y-.25)**2)/.15)"
    " + (1 + cos(pi*min(sqrt((x-.25)**2 + (y-.5)**2)/.15, 1)))/4"
)
ROTATION = ["0.5 - y", "x - 0.5"]


def mesh_of(geometry, comm=SELF, **parameters):
    return build(comm, MeshCase(geometry=geometry, parameters=parameters))


def unit_box(dim, n, cell=None, comm=SELF):
    """A mesh of the unit cube made by DOLFINx, without tags."""
    kinds = {1: dm.CellType.interval, 2: dm.CellType.triangle, 3: dm.CellType.tetrahedron}
    cell = cell or kinds[dim]
    ghost = dm.GhostMode.shared_facet
    if dim == 1:
        m = dm.create_unit_interval(comm, n, ghost_mode=ghost)
    elif dim == 2:
        m = dm.create_unit_square(comm, n, n, cell, ghost_mode=ghost)
    else:
        m = dm.create_unit_cube(comm, n, n, n, cell, ghost_mode=ghost)
    return MeshData(m, None, None, {})


class Outcome:
    """The last step of a run, with its invariants."""

    def __init__(self, data, problem, rho0, time, scheme=None, outputs=()):
        self.low, self.high, self.outflow = np.inf, -np.inf, 0.0
        first = None
        for step in evolve(data, problem, rho0, time, scheme=scheme, outputs=outputs):
            self.low, self.high = min(self.low, step.low), max(self.high, step.high)
            self.outflow += step.outflow
            first = step.mass + step.outflow if first is None else first
        self.step, self.mass0 = step, first
        self.drift = abs(step.mass - first) / first
        self.defect = abs(step.mass + self.outflow - first) / first

    def errors(self, f, jumps=False):
        return self.step.solver.errors(self.step.rho, f, jumps)


def time(end, **keys):
    return Time(end=end, **keys)


def orders(errors):
    e = np.asarray(errors)
    return np.log2(e[:-1] / e[1:])
