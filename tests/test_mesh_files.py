"""Meshes of the user's own in many formats, and the malformed ones that are refused."""

from __future__ import annotations

from pathlib import Path

import meshio
import numpy as np
import pytest
from mpi4py import MPI

from fem_apps import compat, mesh_gmsh, meshing
from fem_apps.errors import CaseError
from fem_apps.mesh_summary import describe
from fem_apps.meshing import MeshCase, MeshData, build

MEASURE = {"ball": 4 * np.pi / 3, "sphere": 4 * np.pi}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test writes to the user's cache."""
    monkeypatch.setattr(meshing, "cache_folder", lambda: tmp_path / "cache")


def make(**table) -> MeshData:
    return build(MPI.COMM_SELF, MeshCase(**table))


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
    assert summary["measure"] == pytest.approx(MEASURE[name], rel=5e-3)
    straight = describe(make(file=tmp_path / f"a{suffix}", order=1))
    assert straight["order"] == 1
    assert straight["nodes"] < summary["nodes"] / 2
    assert straight["measure"] < 0.98 * MEASURE[name]


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


MSH = "$MeshFormat\n2.2 0 8\n$EndMeshFormat\n"
MSH += "$Nodes\n4\n1 0 0 0\n2 1 0 0\n3 1 1 0\n4 0 1 0\n$EndNodes\n"
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


def test_file_is_looked_for_in_the_case_folder(tmp_path):
    square().write(tmp_path / "a.vtu")
    data = build(MPI.COMM_SELF, MeshCase(file=Path("a.vtu")), tmp_path)
    assert compat.geometry_dofmap(data.mesh).shape == (32, 3)
