"""The packaged geometries, meshes of the user's own, the cache, and what is refused."""

from __future__ import annotations

from pathlib import Path

import meshio
import numpy as np
import pytest
from mpi4py import MPI
from pydantic import ValidationError

from fem_apps import compat, mesh_cache, mesh_gmsh, meshing
from fem_apps.errors import CaseError
from fem_apps.meshing import MeshCase, MeshData, build, describe

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
    assert set(meshing.geometries()) == set(GEOMETRIES)
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
    data = make(geometry=name, order=order, parameters={"radius": 2.0, "x0": 1.0})
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


# ---------------------------------------------------------------- the user's own meshes


def square(n: int = 4) -> meshio.Mesh:
    """Unit square with two materials, its left side tagged 3, a node of no cell, and z = 0."""
    t = np.linspace(0, 1, n + 1)
    x = np.array([[a, b, 0.0] for b in t for a in t] + [[9.0, 9.0, 0.0]])
    k = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    cells = np.concatenate([np.c_[k, k + 1, k + n + 2], np.c_[k, k + n + 2, k + n + 1]])
    side = np.arange(n) * (n + 1)
    material = np.where(x[cells, 0].mean(axis=1) < 0.5, 1, 2)
    return meshio.Mesh(
        x,
        [("triangle", cells), ("line", np.c_[side, side + n + 1])],
        cell_data={"tags": [material, np.full(n, 3)]},
    )


@pytest.mark.parametrize(
    ("suffix", "array", "kind"),
    [
        (".vtu", "tags", None),
        (".vtk", "tags", None),
        (".xdmf", "name_to_read", None),
        (".msh", "gmsh:physical", "gmsh22"),
        (".mesh", "medit:ref", None),
        (".med", "cell_tags", None),
    ],
)
def test_user_mesh_keeps_its_tags(tmp_path, suffix, array, kind):
    mesh = square()
    mesh.cell_data = {array: mesh.cell_data["tags"]}
    if array == "gmsh:physical":
        mesh.cell_data["gmsh:geometrical"] = [np.ones(len(c.data), int) for c in mesh.cells]
        mesh.field_data = {"steel": np.array([1, 2]), "foam": np.array([2, 2]), "wall": [3, 1]}
    mesh.write(tmp_path / f"square{suffix}", file_format=kind)
    data = make(file=tmp_path / f"square{suffix}", dim=2)
    summary = describe(data)
    assert (summary["cells"], summary["nodes"], summary["gdim"]) == (32, 25, 2)
    assert summary["measure"] == pytest.approx(1.0, rel=1e-12)
    assert np.bincount(data.cell_tags.values).tolist() == [0, 16, 16]
    assert data.facet_tags.values.tolist() == [3] * 4
    import dolfinx

    middles = dolfinx.mesh.compute_midpoints(data.mesh, 2, data.cell_tags.find(1))
    assert (middles[:, 0] < 0.5).all()
    middles = dolfinx.mesh.compute_midpoints(data.mesh, 1, data.facet_tags.find(3))
    np.testing.assert_allclose(middles[:, 0], 0.0, atol=1e-14)
    if array == "gmsh:physical":
        assert data.names == {"steel": (2, 1), "foam": (2, 2), "wall": (1, 3)}


def test_named_sets_of_an_abaqus_deck_are_tags(tmp_path):
    mesh = square()
    first = np.flatnonzero(mesh.cell_data["tags"][0] == 1)
    rest = np.flatnonzero(mesh.cell_data["tags"][0] == 2)
    deck = meshio.Mesh(mesh.points, mesh.cells[:1], cell_sets={"steel": [first], "foam": [rest]})
    deck.write(tmp_path / "deck.inp")
    data = make(file=tmp_path / "deck.inp")
    assert set(data.names) == {"steel", "foam"}
    assert (data.cell_tags.values == data.tag("steel", 2)).sum() == 16
    with pytest.raises(CaseError, match="16 of 32 cells have no tag"):
        make(file=tmp_path / "deck.inp", tags=["steel"])
    assert make(file=tmp_path / "deck.inp", tags=[]).names == {"domain": (2, 1)}


@pytest.mark.parametrize("version", [1.0, 2.2, 4.0, 4.1])
def test_gmsh_files_of_every_format_keep_names_and_period(tmp_path, version):
    import gmsh

    gmsh.initialize(readConfigFiles=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.merge(str(meshing.geometries()["torus_square"]))
        gmsh.model.mesh.generate(2)
        gmsh.option.setNumber("Mesh.MshFileVersion", version)
        gmsh.write(str(tmp_path / "torus.msh"))
    finally:
        gmsh.finalize()
    data = make(file=tmp_path / "torus.msh")
    assert describe(data)["measure"] == pytest.approx(1.0)
    assert len(set(data.facet_tags.values)) == 4
    if version > 1:
        assert set(data.names) == {"domain", "left", "right", "bottom", "top"}
        np.testing.assert_allclose(sorted(data.lattice), [[0.0, 1.0], [1.0, 0.0]], atol=1e-9)
    if version > 4:
        fine = make(file=tmp_path / "torus.msh", refine=1)
        assert describe(fine)["cells"] == 4 * describe(data)["cells"]
        assert len(fine.facet_tags.values) == 2 * len(data.facet_tags.values)


@pytest.mark.parametrize("suffix", [".msh", ".vtu", ".xdmf"])
@pytest.mark.parametrize("name", ["ball", "sphere"])
def test_curved_user_mesh_keeps_its_curvature(tmp_path, suffix, name):
    raw = mesh_gmsh.mesh_geometry(meshing.geometries()[name], {"h": 0.5}, order=2)
    width = raw.cells.shape[1]
    from fem_apps.mesh_raw import dolfinx_order

    vtk = raw.cells[:, np.argsort(dolfinx_order(raw.shape, width, "vtk"))]
    kind = "tetra10" if name == "ball" else "triangle6"
    mesh = meshio.Mesh(raw.points, [(kind, vtk)])
    mesh.write(tmp_path / f"a{suffix}", file_format="gmsh" if suffix == ".msh" else None)
    summary = describe(make(file=tmp_path / f"a{suffix}"))
    assert summary["order"] == 2
    assert summary["measure"] == pytest.approx(GEOMETRIES[name][0], rel=5e-3)
    straight = describe(make(file=tmp_path / f"a{suffix}", order=1))
    assert straight["order"] == 1
    assert straight["nodes"] < summary["nodes"] / 2
    assert straight["measure"] < 0.98 * GEOMETRIES[name][0]


@pytest.mark.parametrize(("kind", "measure"), [("quad", 2.0), ("hexahedron", 3.0)])
def test_quadrilaterals_and_hexahedra(tmp_path, kind, measure):
    x = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]], dtype=float)
    if kind == "hexahedron":
        x = np.concatenate([x, x + np.array([0, 0, 1.5])])
    cells = [(kind, [list(range(len(x)))])]
    meshio.write(tmp_path / "a.vtu", meshio.Mesh(x, cells))
    assert describe(make(file=tmp_path / "a.vtu"))["measure"] == pytest.approx(measure)


def test_user_geometry_with_exists_guard(tmp_path):
    (tmp_path / "a.geo").write_text(
        "If (!Exists(L)) L = 1; EndIf\nPoint(1) = {0, 0, 0, 1};\nPoint(2) = {L, 0, 0, 1};\n"
        'Line(1) = {1, 2};\nPhysical Curve("wire", 7) = {1};\n'
    )
    data = make(file=tmp_path / "a.geo", parameters={"L": 3.0})
    assert describe(data)["measure"] == pytest.approx(3.0)
    assert data.names == {"wire": (1, 7)}


def test_coincident_nodes_are_refused_merged_or_kept(tmp_path):
    x = np.array([[0.0, 0], [1, 0], [0, 1], [1, 0], [0, 1], [1, 1]])
    meshio.write(tmp_path / "a.vtu", meshio.Mesh(x, [("triangle", [[0, 1, 2], [3, 5, 4]])]))
    with pytest.raises(CaseError, match=r'2 pairs of nodes coincide.*coincident_nodes = "merge"'):
        make(file=tmp_path / "a.vtu")
    counts = {}
    for way in ("merge", "keep"):
        counts[way] = describe(make(file=tmp_path / "a.vtu", coincident_nodes=way))["nodes"]
    assert counts == {"merge": 4, "keep": 6}


# ---------------------------------------------------------------- what is refused


def triangles(x, cells, **more) -> meshio.Mesh:
    return meshio.Mesh(np.array(x, dtype=float), [("triangle", np.array(cells))], **more)


UNIT = [[0, 0], [1, 0], [1, 1], [0, 1]]
TWO = [[0, 1, 2], [0, 2, 3]]
BAD_MESHES = {
    "no area": (triangles([*UNIT, [2, 0]], [*TWO, [0, 1, 4]]), "1 of 3 cells have no area"),
    # the fifth node, in the middle of the square, is pulled out of it through its right side
    "inverted": (
        triangles([*UNIT, [1.5, 0.5]], [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]),
        "neighbouring cells overlap",
    ),
    "bow tie": (
        meshio.Mesh(np.array(UNIT), [("quad", [[0, 1, 3, 2]])]),
        "1 of 1 cells are inverted",
    ),
    "folded quadratic": (
        meshio.Mesh(
            np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.9], [0.5, 0.5], [0, 0.5]]),
            [("triangle6", [[0, 1, 2, 3, 4, 5]])],
        ),
        "1 of 1 cells are inverted",
    ),
    "not finite": (triangles([*UNIT[:3], [0, np.nan]], TWO), "1 of 4 nodes have coordinates that"),
    "twice": (triangles(UNIT, [*TWO, [2, 0, 1]]), "1 cells occur twice"),
    "tagged twice": (
        triangles(UNIT, [*TWO, [2, 0, 1]], cell_data={"tags": [np.array([1, 1, 2])]}),
        r"tagged twice \(tags 1 and 2\)",
    ),
    "three at an edge": (
        triangles(
            [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]], [[0, 1, k] for k in (2, 3, 4)]
        ),
        "1 facets are between more than two cells",
    ),
    "mixed": (
        meshio.Mesh(
            np.array([*UNIT, [2, 0]]), [("quad", [[0, 1, 2, 3]]), ("triangle", [[1, 4, 2]])]
        ),
        r"several types \(1 quadrilateral, 1 triangle\)",
    ),
    "unsupported": (
        meshio.Mesh(np.eye(6, 3), [("wedge", [[0, 1, 2, 3, 4, 5]])]),
        r"unsupported type \(1 wedge\)",
    ),
    "points only": (meshio.Mesh(np.eye(3), [("vertex", [[0], [1]])]), "holds no cells"),
    "facet tagged twice": (
        meshio.Mesh(
            np.array(UNIT),
            [("triangle", TWO), ("line", [[0, 1], [1, 0]])],
            cell_data={"tags": [np.array([1, 1]), np.array([4, 5])]},
        ),
        r"1 facets are tagged twice \(as 4 and 5\)",
    ),
}


@pytest.mark.parametrize("name", BAD_MESHES)
def test_bad_mesh(tmp_path, name):
    mesh, message = BAD_MESHES[name]
    mesh.points = mesh.points.astype(float)
    if mesh.points.shape[1] == 2:
        mesh.points = np.c_[mesh.points, np.zeros(len(mesh.points))]
    mesh.write(tmp_path / "bad.vtk")
    with pytest.raises(CaseError, match=message) as caught:
        make(file=tmp_path / "bad.vtk")
    assert "bad.vtk" in str(caught.value)
    assert "\n" not in str(caught.value)


MSH = "$MeshFormat\n2.2 0 8\n$EndMeshFormat\n$Nodes\n4\n1 0 0 0\n2 1 0 0\n3 1 1 0\n4 0 1 0\n$EndNodes\n"
BAD_FILES = {
    "empty.msh": ("", "is empty"),
    "noise.msh": ("SystemCall 'touch ran';\n", "does not start with \\$MeshFormat"),
    "cut.msh": (MSH + "$Elements\n2\n1 2 2 1 1 1 2 3\n", "has no \\$EndElements"),
    "untagged.msh": (
        MSH + "$Elements\n2\n1 2 2 5 1 1 2 3\n2 2 2 0 1 1 3 4\n$EndElements\n",
        "1 of 2 cells have no tag",
    ),
    "lost_node.msh": (MSH + "$Elements\n1\n1 2 2 5 1 1 2 9\n$EndElements\n", "lost_node.msh"),
    "noise.vtu": ("no xml\n", "cannot be read as a .vtu mesh"),
    "mesh.png": ("x", "extension '.png' is not that of a mesh file"),
    "syntax.geo": ("Point(1) = {0, 0, 0;\n", "gmsh: .*line 1: syntax error"),
    "empty_model.geo": ("// nothing\n", "the geometry is empty"),
    "crossing.geo": (
        "Point(1) = {0, 0, 0}; Point(2) = {1, 0, 0}; Point(3) = {1, 1, 0}; Point(4) = {0, 1, 0};\n"
        "Line(1) = {1, 3}; Line(2) = {3, 4}; Line(3) = {4, 2}; Line(4) = {2, 1};\n"
        "Curve Loop(1) = {1, 2, 9, 4}; Plane Surface(1) = {1};\n",
        "gmsh: ",
    ),
    "partly.geo": (
        'SetFactory("OpenCASCADE");\n'
        "Rectangle(1) = {0, 0, 0, 1, 1}; Rectangle(2) = {2, 0, 0, 1, 1};\n"
        'Physical Surface("one") = {1};\n',
        "of .* cells have no tag",
    ),
    "doubly.geo": (
        'SetFactory("OpenCASCADE"); Rectangle(1) = {0, 0, 0, 1, 1};\n'
        'Physical Surface("one") = {1}; Physical Surface("two") = {1};\n',
        "tagged twice: entity 1 is in the physical groups 'one' and 'two'",
    ),
    "same_name.geo": (
        'SetFactory("OpenCASCADE"); Rectangle(1) = {0, 0, 0, 1, 1};\n'
        'Physical Surface("a") = {1}; Physical Curve("a") = {1};\n',
        "the name 'a' stands for two physical groups",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, message = BAD_FILES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(CaseError, match=message) as caught:
        make(file=tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    import gmsh

    assert not gmsh.isInitialized()


def test_wrong_dimension_order_and_lattice(tmp_path):
    with pytest.raises(
        CaseError, match=r"box: this is a 3D mesh of tetrahedron cells.*wants a 2D mesh"
    ):
        make(geometry="box", parameters={"h": 0.5}, dim=2)
    square().write(tmp_path / "a.vtu")
    with pytest.raises(CaseError, match="order = 2 was asked"):
        make(file=tmp_path / "a.vtu", order=2)
    with pytest.raises(CaseError, match=r"repeated at the period vector \(0.9, 0\)"):
        make(file=tmp_path / "a.vtu", lattice=[(0.9, 0.0)])
    assert make(file=tmp_path / "a.vtu", lattice=[(1.0, 0.0)]).lattice == ((1.0, 0.0),)
    with pytest.raises(CaseError, match=r"only a .geo has parameters"):
        make(file=tmp_path / "a.vtu", parameters={"h": 0.1})
    with pytest.raises(CaseError, match=r"cannot be refined here; save it as .msh"):
        make(file=tmp_path / "a.vtu", refine=1)
    with pytest.raises(CaseError, match=r"no cell data 'marker'.*there is: tags"):
        make(file=tmp_path / "a.vtu", tags="marker")
    with pytest.raises(CaseError, match=r"no file .*missing.msh"):
        make(file="missing.msh")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "give either geometry"),
        ({"geometry": "disc", "file": "a.msh"}, "give either geometry"),
        ({"geometry": "dics"}, "geometry = 'dics' is not known; known: ball, box"),
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
    with pytest.raises(CaseError, match="h = 1e-06: asks for about 4e[+]12 nodes"):
        make(geometry="disc", parameters={"h": 1e-6})


def test_file_is_looked_for_in_the_case_folder(tmp_path):
    square().write(tmp_path / "a.vtu")
    data = build(MPI.COMM_SELF, MeshCase(file=Path("a.vtu")), tmp_path)
    assert compat.geometry_dofmap(data.mesh).shape == (32, 3)
