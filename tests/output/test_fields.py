"""Files for ParaView: what is in them, and what becomes of what a format cannot hold."""

import dolfinx
import numpy as np
import pytest
from dolfinx import default_scalar_type, fem, mesh
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.output.fields import FieldWriter

COMM = MPI.COMM_SELF
needs_adios2 = pytest.mark.skipif(not dolfinx.has_adios2, reason="DOLFINx without ADIOS2")
is_complex = np.issubdtype(default_scalar_type, np.complexfloating)


@pytest.fixture(scope="module")
def msh():
    return mesh.create_unit_square(COMM, 4, 4)


def function(msh, element, name):
    u = fem.Function(fem.functionspace(msh, element), name=name)
    if not u.function_space.value_shape:
        u.interpolate(lambda x: x[0] + 2 * x[1])
    return u


def write(tmp_path, functions, **how):
    with FieldWriter(COMM, tmp_path, functions, **how) as writer:
        for t in (0.0, 0.5):
            writer.write(t)
    return writer


def steps(path, name):
    adios2 = pytest.importorskip("adios2")
    stream = getattr(adios2, "Stream", None) or adios2.open
    with stream(str(path), "r") as f:
        return [np.array(s.read(name)).ravel() for s in f.steps()]


@needs_adios2
def test_one_file_of_one_element_each(tmp_path, msh):
    functions = [
        function(msh, ("Lagrange", 1), "rho"),
        function(msh, ("Lagrange", 1, (2,)), "velocity"),
        function(msh, ("Lagrange", 2), "mu"),
        function(msh, ("DG", 0), "error"),
    ]
    writer = write(tmp_path, functions)
    assert writer.files == ["fields.bp", "fields-p2.bp", "fields-dg0.bp"]
    assert {p.name for p in tmp_path.iterdir()} == set(writer.files)
    assert len(writer.notes) == 1
    assert "open the folder itself in ParaView" in writer.notes[0]


@needs_adios2
@pytest.mark.skipif(is_complex, reason="one name a part")
def test_values_of_every_time(tmp_path, msh):
    u = function(msh, ("Lagrange", 1), "rho")
    with FieldWriter(COMM, tmp_path, [u]) as writer:
        writer.write(0.0)
        u.x.array[:] = 7.0
        writer.write(0.5)
    first, second = steps(tmp_path / "fields.bp", "rho")
    assert np.isclose(first.max(), 3.0)
    assert second.size == 25
    assert (second == 7.0).all()


@needs_adios2
@pytest.mark.skipif(not is_complex, reason="complex build")
def test_real_and_imaginary_parts(tmp_path, msh):
    u = function(msh, ("Lagrange", 1), "u")
    u.x.array[:] = 1 + 2j
    write(tmp_path, [u])
    assert (steps(tmp_path / "fields.bp", "u_real")[0] == 1).all()
    assert (steps(tmp_path / "fields.bp", "u_imag")[0] == 2).all()


@needs_adios2
def test_other_elements_are_interpolated_and_said(tmp_path, msh):
    u = fem.Function(fem.functionspace(msh, ("RT", 1)), name="flux")
    writer = write(tmp_path, [u])
    assert writer.files == ["fields.bp"]
    assert (
        "flux: RT of degree 1 is written as Discontinuous Lagrange of degree 1" in writer.notes[0]
    )


@pytest.mark.parametrize("adios2", [pytest.param(True, marks=needs_adios2), False])
def test_a_continued_run_leaves_what_is_there(tmp_path, msh, monkeypatch, adios2):
    monkeypatch.setattr(dolfinx, "has_adios2", adios2)
    suffix = "bp" if adios2 else "xdmf"
    u = function(msh, ("Lagrange", 1), "rho")
    files = [write(tmp_path, [u], name="f").files[0] for _ in range(3)]
    assert files == [f"f.{suffix}", f"f.1.{suffix}", f"f.2.{suffix}"]


def test_without_adios2_xdmf_of_the_mesh_degree(tmp_path, msh, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(dolfinx, "has_adios2", False)
    functions = [
        function(msh, ("Lagrange", 1), "rho"),
        function(msh, ("Lagrange", 2), "mu"),
        function(msh, ("DG", 0), "e"),
    ]
    writer = write(tmp_path, functions)
    assert writer.files == ["fields.xdmf"]
    assert "mu: P of degree 2 is written as Lagrange of degree 1" in writer.notes[0]
    assert "no ADIOS2" in writer.notes[1]
    part = "real_" if is_complex else ""
    with h5py.File(tmp_path / "fields.h5") as f:
        groups = f["Function"]
        assert len(groups[f"{part}mu"]) == 2
        for name, size in (("rho", 25), ("mu", 25), ("e", 32)):
            values = next(iter(groups[part + name].values()))
            assert values.shape[0] == size
        assert np.isclose(next(iter(groups[f"{part}mu"].values()))[:].max(), 3.0)


def test_wrong_use(tmp_path, msh):
    u = function(msh, ("Lagrange", 1), "rho")
    with pytest.raises(ValueError, match="same name"):
        FieldWriter(COMM, tmp_path, [u, u])
    with pytest.raises(CaseError, match="cannot write fields"):
        FieldWriter(COMM, tmp_path / "none", [u])
