"""The packaged geometries, their cache, and the tables and parameters that are refused."""

from __future__ import annotations

import subprocess
import sys

import meshio
import numpy as np
import pytest
from mpi4py import MPI
from pydantic import ValidationError

from fem_apps import mesh_cache, mesh_gmsh, meshing
from fem_apps.errors import CaseError
from fem_apps.mesh_summary import describe
from fem_apps.meshing import MeshCase, MeshData, build

PI = np.pi
# exact measure, spaces (tdim, gdim), a coarse mesh size, and the named boundary parts
GEOMETRIES = {
    "interval": (1.0, (1, 1), 0.1, {"left", "right"}),
    "rectangle": (1.0, (2, 2), 0.2, {"left", "right", "bottom", "top"}),
    "disc": (PI, (2, 2), 0.3, {"boundary"}),
    "l_shape": (3.0, (2, 2), 0.3, {"left", "right", "bottom", "top", "corner"}),
    "rectangle_with_hole": (2 - 0.04 * PI, (2, 2), 0.1, {"left", "right", "bottom", "top", "hole"}),
    "box": (1.0, (3, 3), 0.4, {"left", "right", "bottom", "top", "front", "back"}),
    "ball": (4 * PI / 3, (3, 3), 0.5, {"boundary"}),
    "circle": (2 * PI, (1, 2), 0.3, set()),
    "sphere": (4 * PI, (2, 3), 0.4, set()),
    "torus_interval": (1.0, (1, 1), 0.1, {"left", "right"}),
    "torus_square": (1.0, (2, 2), 0.2, {"left", "right", "bottom", "top"}),
    "torus_box": (1.0, (3, 3), 0.4, {"left", "right", "bottom", "top", "front", "back"}),
}
CURVED = ["disc", "rectangle_with_hole", "ball", "circle", "sphere"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees what an earlier one has cached, nor the user's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(meshing, "cache_folder", lambda: folder)
    return folder


def make(**table) -> MeshData:
    return build(MPI.COMM_SELF, MeshCase(**table))


def nodes(data: MeshData) -> np.ndarray:
    """Coordinates in the order of the input, whatever DOLFINx made of it."""
    g = data.mesh.geometry
    return g.x[np.argsort(g.input_global_indices), : g.dim]


# ---------------------------------------------------------------- packaged geometries


def test_every_geometry_is_listed_and_has_a_comment_line():
    # the geometries of one application are tested with it
    assert set(meshing.geometries()) >= set(GEOMETRIES)
    for path in meshing.geometries().values():
        assert path.read_text().startswith("// ")
        assert "h" in mesh_gmsh.constants(path.read_text())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry_has_its_names_tags_and_dimensions(name):
    measure, dims, h, parts = GEOMETRIES[name]
    data = make(geometry=name, parameters={"h": h})
    tdim = data.mesh.topology.dim
    assert (tdim, data.mesh.geometry.dim) == dims
    assert {n for n, (d, _) in data.names.items() if d == tdim - 1} == parts
    assert (data.cell_tags.values == data.tag("domain", tdim)).all()
    assert len(data.cell_tags.values) == describe(data)["cells"]
    if parts:
        assert set(data.facet_tags.values) == {data.tag(p, tdim - 1) for p in parts}
    else:
        assert data.facet_tags is None
    tolerance = 1e-12 if name not in CURVED else 0.1
    assert describe(data)["measure"] == pytest.approx(measure, rel=tolerance)


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("order", [1, 2])
def test_measure_of_curved_geometries_converges(name, order):
    # straight cells lose h^2 of the measure, quadratic ones h^4 (h^3 at least, where not symmetric)
    measure, _, h, _ = GEOMETRIES[name]
    errors, sizes = [], []
    for k in (1, 2):
        summary = describe(make(geometry=name, order=order, parameters={"h": h / 2**k}))
        errors.append(abs(summary["measure"] - measure) / measure)
        sizes.append(summary["cells"] ** (-1 / summary["tdim"]))
    rate = np.log(errors[0] / errors[1]) / np.log(sizes[0] / sizes[1])
    assert rate > (1.7 if order == 1 else 3.0)
    assert errors[1] < (5e-2 if order == 1 else 1e-3)


@pytest.mark.parametrize("name", ["sphere", "circle"])
@pytest.mark.parametrize("order", [1, 2])
def test_nodes_of_surfaces_lie_on_them(name, order):
    data = make(geometry=name, order=order, parameters={"h": 0.5, "radius": 2.0, "x0": 1.0})
    x = nodes(data) - np.eye(data.mesh.geometry.dim)[0]
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 2.0, rtol=1e-9)


@pytest.mark.parametrize("name", ["rectangle", "disc", "l_shape", "rectangle_with_hole"])
@pytest.mark.parametrize("h", [0.1, 0.037])
def test_triangulations_have_non_positive_stiffness_off_the_diagonal(name, h):
    assert describe(make(geometry=name, parameters={"h": h}))["obtuse_edges"] == 0


@pytest.mark.parametrize("h", [0.3, 0.2, 0.1])
def test_triangulated_sphere_and_torus_have_it_too(h):
    for name in ("sphere", "torus_square"):
        assert describe(make(geometry=name, parameters={"h": h}))["obtuse_edges"] == 0


def test_obtuse_edges_are_counted(tmp_path):
    # a flat rhombus cut along its long diagonal: both angles that face it are obtuse
    x = np.array([[-2.0, 0], [2, 0], [0, 0.5], [0, -0.5]])
    meshio.write(tmp_path / "a.vtu", meshio.Mesh(x, [("triangle", [[0, 1, 2], [1, 0, 3]])]))
    assert describe(make(file=tmp_path / "a.vtu"))["obtuse_edges"] == 1


@pytest.mark.parametrize("name", ["torus_interval", "torus_square", "torus_box"])
@pytest.mark.parametrize("order", [1, 2])
def test_torus_nodes_match_under_the_lattice(name, order):
    dim, _ = GEOMETRIES[name][1]
    size = {"length": 1.5} if dim == 1 else {"width": 1.5, "height": 0.75}
    data = make(geometry=name, order=order, parameters={"h": 0.2, "x0": -0.3, **size})
    lattice = np.array(data.lattice)
    lengths = [1.5] if dim == 1 else [1.5, 0.75] if dim == 2 else [1.5, 1.5, 0.75]
    np.testing.assert_allclose(np.sort(lattice, axis=0)[::-1].max(axis=0), lengths, atol=1e-12)
    x = nodes(data)
    low = x.min(axis=0)
    for v in lattice:
        axis = int(np.argmax(np.abs(v)))
        side = x[np.isclose(x[:, axis], low[axis])]
        other = x[np.isclose(x[:, axis], low[axis] + v[axis])]
        assert len(side) == len(other) > 0
        gap = np.abs((side + v)[:, None] - other[None]).max(axis=2).min(axis=1)
        assert gap.max() < 1e-10


def test_parameters_and_refinement_change_the_mesh():
    coarse = describe(make(geometry="disc", parameters={"h": 0.4, "radius": 2.0}))
    fine = describe(make(geometry="disc", parameters={"h": 0.4, "radius": 2.0}, refine=1))
    assert fine["cells"] == 4 * coarse["cells"]
    # new nodes go onto the circle: the error falls like h^2 instead of staying
    assert 4 * PI - fine["measure"] < 0.3 * (4 * PI - coarse["measure"])


def test_structure_of_named_boundary_is_where_it_says():
    data = make(geometry="rectangle_with_hole", parameters={"radius": 0.3})
    mesh = data.mesh
    mesh.topology.create_connectivity(1, 0)
    hole = data.facet_tags.find(data.tag("hole", 1))
    import dolfinx

    middle = dolfinx.mesh.compute_midpoints(mesh, 1, hole)[:, :2]
    np.testing.assert_allclose(np.linalg.norm(middle - [1.0, 0.5], axis=1), 0.3, rtol=1e-2)
    with pytest.raises(CaseError, match="no boundary parts named 'inlet'; it has: bottom, hole"):
        data.tag("inlet", 1)


# ---------------------------------------------------------------- cache


def test_second_build_comes_from_the_cache(own_cache, monkeypatch):
    first = make(geometry="disc", order=2)
    (kept,) = own_cache.iterdir()
    monkeypatch.setattr(mesh_gmsh, "mesh_geometry", None)
    second = make(geometry="disc", order=2)
    np.testing.assert_array_equal(nodes(first), nodes(second))
    assert first.names == second.names
    with pytest.raises(TypeError):  # another order is another mesh
        make(geometry="disc")
    assert kept.suffix == ".npz"


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_damaged_cache_is_made_again(own_cache, damage):
    first = make(geometry="disc")
    (kept,) = own_cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes({"truncated": whole[:1000], "empty": b"", "foreign": b"PK\x03\x04no"}[damage])
    np.testing.assert_array_equal(nodes(make(geometry="disc")), nodes(first))
    assert mesh_cache.read_cache(kept) is not None


def test_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(meshing, "cache_folder", lambda: tmp_path / "file" / "meshes")
    assert describe(make(geometry="interval"))["cells"] == 20


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "give either geometry"),
        ({"geometry": "disc", "file": "a.msh"}, "give either geometry"),
        ({"geometry": "dics"}, "geometry = 'dics' is not known; known: ball, b"),
        ({"geometry": "disc", "parameters": {"raduis": 1}}, "no such constant; it has: h, radius"),
        ({"geometry": "disc", "parameters": {"h": 0}}, "parameters.h = 0: must be positive"),
        ({"geometry": "disc", "parameters": {"radius": -1}}, "radius = -1: must be positive"),
        ({"geometry": "disc", "parameters": {"h": float("nan")}}, "finite number"),
        ({"geometry": "disc", "order": 3}, "order"),
    ],
)
def test_bad_table(table, message):
    with pytest.raises(ValidationError, match=message):
        MeshCase(**table)


def test_parameters_that_contradict_each_other():
    with pytest.raises(CaseError, match="must lie inside the rectangle"):
        make(geometry="rectangle_with_hole", parameters={"radius": 0.5})
    with pytest.raises(CaseError, match="b must be greater than a"):
        make(geometry="interval", parameters={"a": 1.0})
    with pytest.raises(CaseError, match=r"h = 1e-06: asks for about 4e\+12 nodes"):
        make(geometry="disc", parameters={"h": 1e-6})


def test_petsc_starts_on_all_ranks_before_rank_zero_works_alone():
    # importing DOLFINx starts PETSc, a collective: on one rank alone it would meet a broadcast
    code = """if True:
        import sys
        from fem_apps import meshing
        assert "dolfinx" not in sys.modules
        meshing.on_rank_zero = lambda *a: sys.exit(0 if "dolfinx" in sys.modules else 3)
        from mpi4py import MPI
        meshing.build(MPI.COMM_SELF, meshing.MeshCase(geometry="disc"))
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
