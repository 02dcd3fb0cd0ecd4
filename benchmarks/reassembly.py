"""Assembling the matrix again: ours against PETSc in place, on gmsh meshes.

    ./run_mpi.sh python3 benchmarks/reassembly.py [--small]

PETSc in place: div(kappa grad), kappa per cell, form and matrix made before; `zeroEntries`,
`assemble_matrix(A, form)`, `assemble`. Ours: the same matrix as a linear map of kappa (`linear`), and
the whole Newton matrix of the nonlinear scheme with its residual, which has more to compute
(`nonlinear`, porous medium with drift). `MatrixCSR` is DOLFINx's own faster container.
"""

from measure import arguments, ceilings, interleaved, report  # isort: skip  sets the thread counts

import dolfinx
import numpy as np
import petsc4py
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI

from fem_apps.fem import edge_flux, edge_matrix, node_graph
from fem_apps.fem.cell_stiffness import cell_stiffness
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.free_energy import Diffusion, Internal

SIZES = {"rectangle": (0.0043, 0.0022), "ball": (0.032,)}
SMALL = {"rectangle": (0.05,), "ball": (0.3,)}


def compare(geometry: str, h: float, rounds: int, small: bool) -> None:
    """Print the lines of one mesh."""
    mesh = build(MPI.COMM_SELF, MeshCase(geometry=geometry, parameters={"h": h})).mesh
    graph = node_graph.build(mesh)
    kappa = fem.Function(fem.functionspace(mesh, ("DG", 0)))
    kappa.x.array[:] = np.random.default_rng(0).uniform(0.5, 2, len(kappa.x.array))
    u, v = ufl.TrialFunction(graph.V), ufl.TestFunction(graph.V)
    form = fem.form(kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    A, csr = fem_petsc.assemble_matrix(form), fem.create_matrix(form)
    A.assemble()

    def petsc() -> None:
        A.zeroEntries()
        fem_petsc.assemble_matrix(A, form)
        A.assemble()

    def matrix_csr() -> None:
        csr.set_value(0.0)
        fem.assemble_matrix(csr, form)

    linear = cell_stiffness(graph)
    B, H = edge_matrix.create(graph), Internal((Diffusion(exponent=2),))
    rng = np.random.default_rng(1)
    rho, phi = 1 + rng.random(graph.n), rng.random(graph.n)
    outflow, drift = np.zeros(graph.n), np.zeros(len(B.here))

    def nonlinear() -> None:
        edge_flux.assemble(
            B.edges, rho, *H.fields(rho), phi, False, False, 1.0, graph.mass,
            B.diagonal, B.here, B.back, outflow, B.values, drift,
        )  # fmt: skip
        B.changed()

    cells = len(graph.V.dofmap.list)
    tasks, machine = ceilings(small)
    times = interleaved(
        rounds,
        linear=lambda: linear.assemble(kappa.x.array),
        nonlinear=nonlinear,
        petsc=petsc,
        csr=matrix_csr,
        **tasks,
    )
    difference = linear.matrix.mat - A
    agreement = f"difference {difference.norm() / A.norm():.1e}"
    assert difference.norm() < 1e-12 * A.norm(), agreement
    size = f"{geometry} {graph.n} nodes {cells} cells"
    edges, parts = len(B.here), len(linear._part)
    # an edge: its first part and weight, written and read, two edge numbers and two entries; a part: its cell
    # and S; a cell: kappa; a node: its row, diagonal and that entry's edge number
    memory = edges * (4 + 16 + 8 + 16) + parts * 12 + cells * 8 + graph.n * 20
    versions = f"DOLFINx {dolfinx.__version__}, PETSc {'.'.join(map(str, petsc4py.PETSc.Sys.getVersion()))}"
    common = {"machine": machine(times), "versions": versions}
    report(
        "A1", size, times, ours="linear", peer="petsc", agreement=agreement, memory=memory, **common
    )
    report("A1", size, times, ours="linear", peer="csr", agreement="same form", **common)
    report(
        "A1",
        size,
        times,
        ours="nonlinear",
        peer="petsc",
        agreement="residual and Newton matrix, not the same",
        **common,
    )


if __name__ == "__main__":
    given = arguments(__doc__)
    for name, spacings in (SMALL if given.small else SIZES).items():
        for spacing in spacings:
            compare(name, spacing, 2 if given.small else given.rounds, given.small)
