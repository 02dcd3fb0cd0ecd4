"""Frames, history, fields and pictures of a run on several ranks."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from dolfinx import fem, mesh
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.integrals import interpolate
from fem_apps.mpi import on_rank_zero
from fem_apps.output import pictures
from fem_apps.output.fields import FieldWriter
from fem_apps.output.frames import FrameRecorder
from fem_apps.output.history import History, read_history

WORLD = MPI.COMM_WORLD


def frames_of(comm, folder, element, cell):
    msh = mesh.create_unit_square(comm, 6, 5, cell, ghost_mode=mesh.GhostMode.shared_facet)
    u = interpolate(fem.functionspace(msh, element), lambda x: np.sin(3 * x[0]) * x[1])
    recorder = FrameRecorder(folder, u, limit=8)
    for i in range(30):
        recorder.add(i / 10)
    recorder.save(2.95)
    return on_rank_zero(comm, lambda: dict(np.load(folder / "frames.npz")))


@pytest.mark.parametrize("element", [("Lagrange", 1), ("Lagrange", 2), ("DG", 0)])
@pytest.mark.parametrize("cell", [mesh.CellType.triangle, mesh.CellType.quadrilateral])
def test_frames_do_not_depend_on_the_ranks(folder, element, cell):
    here = frames_of(WORLD, folder, element, cell)
    own = Path(tempfile.mkdtemp())
    alone = frames_of(MPI.COMM_SELF, own, element, cell)
    shutil.rmtree(own)
    assert here.keys() == alone.keys()
    for key, value in alone.items():
        if key in ("values", "points"):
            assert np.allclose(here[key], value, atol=1e-7)
        else:
            assert np.array_equal(here[key], value)


def test_resumed_on_all_ranks(folder):
    msh = mesh.create_unit_square(WORLD, 4, 4)
    u = interpolate(fem.functionspace(msh, ("Lagrange", 1)), 1.0)
    recorder = FrameRecorder(folder, u)
    for t in (0.0, 1.0, 2.0):
        recorder.add(t)
    recorder.save(2.0)
    recorder = FrameRecorder(folder, u, resume_until=1.0)
    for t in (1.0, 1.5):
        recorder.add(t)
    recorder.save(1.75)
    times = on_rank_zero(WORLD, lambda: np.load(folder / "frames.npz")["times"].tolist())
    assert times == [0.0, 1.0, 1.5, 1.75]


def test_history_is_written_once_and_fails_everywhere(folder):
    with History(WORLD, folder / "history.csv") as history:
        history.write({"step": 0, "time": 0.1})
    WORLD.barrier()
    assert read_history(folder / "history.csv")["time"].tolist() == [0.1]
    with pytest.raises(CaseError, match="cannot write"):
        History(WORLD, folder / "none" / "history.csv")


def test_fields_and_their_numbering(folder):
    msh = mesh.create_unit_square(WORLD, 4, 4)
    functions = [
        fem.Function(fem.functionspace(msh, e), name=n)
        for e, n in ((("Lagrange", 1), "a"), (("DG", 0), "b"))
    ]
    for number in range(2):
        with FieldWriter(WORLD, folder, functions) as writer:
            writer.write(0.0)
        WORLD.barrier()
        assert writer.files[0].split(".")[1] == ("1" if number else writer.files[0].split(".")[-1])
    with pytest.raises(CaseError, match="cannot write fields"):
        FieldWriter(WORLD, folder / "none", functions)


def test_pictures_are_drawn_from_rank_zero(folder):
    msh = mesh.create_unit_interval(WORLD, 12)
    u = interpolate(fem.functionspace(msh, ("Lagrange", 1)), lambda x: x[0] ** 2)
    FrameRecorder(folder, u).save(0.0)
    with History(WORLD, folder / "history.csv") as history:
        for step in range(3):
            history.write({"step": step, "time": step / 3, "mass": 1.0})
    assert on_rank_zero(WORLD, pictures.draw, folder) == []
    assert (folder / "field.png").stat().st_size > 1000
