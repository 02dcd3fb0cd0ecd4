"""Meshes are the same on every number of ranks, and so are their errors. Runs on 1, 2, 3 ranks."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import ufl
from dolfinx import fem
from mpi4py import MPI

from fem_apps import mesh_checks, mesh_gmsh, meshing
from fem_apps.errors import CaseError
from fem_apps.mesh_summary import describe
from fem_apps.meshing import MeshCase, build
from fem_apps.mpi import total

COMM = MPI.COMM_WORLD


@pytest.fixture
def folder():
    path = COMM.bcast(tempfile.mkdtemp() if COMM.rank == 0 else None)
    yield Path(path)
    COMM.Barrier()
    if COMM.rank == 0:
        shutil.rmtree(path)


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch):
    monkeypatch.setattr(meshing, "cache_folder", lambda: folder / "cache")


def integral(form: ufl.Form) -> float:
    return total(COMM, fem.assemble_scalar(fem.form(form)))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["interval", "circle", "disc", "sphere", "box", "torus_square"])
def test_same_mesh_as_on_one_rank(name, order):
    case = MeshCase(geometry=name, order=order, parameters={"h": 0.3})
    data, alone = build(COMM, case), build(MPI.COMM_SELF, case)
    ours, theirs = describe(data), describe(alone)
    for key in ("h_min", "h_max", "measure", "min_angle"):
        assert ours.pop(key, 0.0) == pytest.approx(theirs.pop(key, 0.0), rel=1e-12)
    assert ours == theirs
    # input node k is at the same place, whoever has it
    g, h = data.mesh.geometry, alone.mesh.geometry
    x = np.empty_like(h.x)
    x[h.input_global_indices] = h.x
    np.testing.assert_array_equal(g.x, x[g.input_global_indices])
    # tags: every owned entity once, ghosts too
    cells = data.mesh.topology.index_map(data.mesh.topology.dim)
    assert len(data.cell_tags.indices) == cells.size_local + cells.num_ghosts
    if data.facet_tags is not None:
        owned = data.mesh.topology.index_map(data.mesh.topology.dim - 1).size_local
        here = data.facet_tags.values[data.facet_tags.indices < owned]
        counts = total(COMM, np.bincount(here, minlength=9))
        np.testing.assert_array_equal(counts, np.bincount(alone.facet_tags.values, minlength=9))


def test_interior_facets_have_both_cells():
    # The jumps of the cell centres' distance: needs ghost cells across every shared facet.
    case = MeshCase(geometry="rectangle", parameters={"h": 0.2})
    values = []
    for comm in (COMM, MPI.COMM_SELF):
        mesh = build(comm, case).mesh
        V = fem.functionspace(mesh, ("DG", 0))
        u = fem.Function(V)
        x = ufl.SpatialCoordinate(mesh)
        u.interpolate(lambda x: x[0] ** 2 + 3 * x[1])
        u.x.scatter_forward()
        n = ufl.FacetNormal(mesh)
        form = fem.form((ufl.jump(u) ** 2 + ufl.jump(u, n)[0] * ufl.avg(x[1])) * ufl.dS)
        values.append(comm.allreduce(fem.assemble_scalar(form), op=MPI.SUM))
    assert values[1] > 0.1
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_integral_over_named_boundary():
    data = build(COMM, MeshCase(geometry="rectangle_with_hole", order=2))
    ds = ufl.Measure("ds", domain=data.mesh, subdomain_data=data.facet_tags)
    # 28 quadratic arcs leave 2.6e-6 of the circle (order 4); straight ones would leave 2e-3
    assert integral(1 * ds(data.tag("hole", 1))) == pytest.approx(0.4 * np.pi, rel=5e-6)
    assert integral(1 * ds(data.tag("top", 1))) == pytest.approx(2.0, rel=1e-12)


def test_ranks_without_cells():
    data = build(COMM, MeshCase(geometry="interval", parameters={"h": 1.0}))
    assert describe(data)["measure"] == pytest.approx(1.0)


def test_mesh_is_made_on_rank_zero_only(monkeypatch):
    calls = []
    make = mesh_gmsh.mesh_geometry
    monkeypatch.setattr(
        mesh_gmsh, "mesh_geometry", lambda *a, **k: calls.append(1) or make(*a, **k)
    )
    for _ in range(2):
        build(COMM, MeshCase(geometry="disc", parameters={"h": 0.5}))
    assert calls == ([1] if COMM.rank == 0 else [])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.msh", "", "is empty"),
        ("broken.geo", "Point(1) = {0, 0;\n", "gmsh: .*syntax error"),
        ("noise.vtu", "no xml", "cannot be read as a .vtu mesh"),
        ("missing.msh", None, "no file"),
    ],
)
def test_error_is_the_same_on_all_ranks(folder, name, text, message):
    if text is not None and COMM.rank == 0:
        (folder / name).write_text(text)
    COMM.Barrier()
    with pytest.raises(CaseError, match=message) as caught:
        build(COMM, MeshCase(file=name), folder)
    assert len(set(COMM.allgather(str(caught.value)))) == 1


def test_failed_check_reaches_all_ranks(monkeypatch):
    def fail(*args):
        raise CaseError("cells overlap")

    monkeypatch.setattr(mesh_checks, "_neighbours", fail)
    with pytest.raises(CaseError, match="cells overlap"):
        build(COMM, MeshCase(geometry="disc"))
