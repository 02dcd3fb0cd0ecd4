"""div(kappa grad) as a map of kappa against DOLFINx's own assembly, on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import create_interval, create_unit_cube, create_unit_square
from mpi4py import MPI

from fem_apps.fem import node_graph
from fem_apps.fem.cell_stiffness import cell_stiffness

comm = MPI.COMM_WORLD
MESHES = {
    1: lambda: create_interval(comm, 17, (0.0, 2.0)),
    2: lambda: create_unit_square(comm, 7, 6),
    3: lambda: create_unit_cube(comm, 4, 5, 3),
}


@pytest.mark.parametrize("dim", MESHES)
def test_equals_assembled_matrix(dim):
    mesh = MESHES[dim]()
    kappa = fem.Function(fem.functionspace(mesh, ("DG", 0)))
    kappa.interpolate(lambda x: 1 + np.sin(5 * x[0]) ** 2 + x[1])
    graph = node_graph.build(mesh)
    linear = cell_stiffness(graph)
    u, v = ufl.TrialFunction(graph.V), ufl.TestFunction(graph.V)
    A = fem_petsc.assemble_matrix(fem.form(kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx))
    A.assemble()
    n = mesh.topology.index_map(dim).size_local
    linear.assemble(np.ones(n))
    B = linear.assemble(kappa.x.array[:n])  # again, over the entries of another kappa
    assert (B - A).norm() < 1e-13 * A.norm()
