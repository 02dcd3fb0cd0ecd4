"""Frames: in the order of the input mesh, thinned evenly, continued after a restart."""

import numpy as np
import pytest
from dolfinx import fem, mesh
from mpi4py import MPI

from fem_apps.fem.integrals import interpolate
from fem_apps.output.frames import FrameRecorder
from fem_apps.output.plot_field import read_frames

COMM = MPI.COMM_SELF


def unit_square(**how):
    return mesh.create_unit_square(COMM, 4, 3, **how)


def record(folder, u, times, **how):
    recorder = FrameRecorder(folder, u, **how)
    for t in times:
        u.x.array[:] = t
        recorder.add(t)
    recorder.save(times[-1])
    return read_frames(folder / "frames.npz")


@pytest.mark.parametrize("element", [("Lagrange", 1), ("Lagrange", 3), ("DG", 1), ("DG", 2)])
def test_values_belong_to_their_points(tmp_path, element):
    u = interpolate(fem.functionspace(unit_square(), element), lambda x: x[0] - 3 * x[1])
    recorder = FrameRecorder(tmp_path, u, label="height")
    recorder.save(2.0)
    frames = read_frames(tmp_path / "frames.npz")
    x = frames.points
    assert x.shape == (20, 2)
    assert frames.values.dtype == np.float32
    assert np.allclose(frames.values, [x[:, 0] - 3 * x[:, 1]], atol=1e-6)
    assert (frames.label, frames.kind, frames.times.tolist()) == ("height", "plane", [2.0])


def test_a_jump_is_averaged(tmp_path):
    u = fem.Function(fem.functionspace(mesh.create_unit_interval(COMM, 2), ("DG", 0)))
    u.interpolate(lambda x: np.where(x[0] < 0.5, 1.0, 3.0))
    FrameRecorder(tmp_path, u).save(0.0)
    frames = read_frames(tmp_path / "frames.npz")
    assert frames.values[0][np.argsort(frames.points[:, 0])].tolist() == [1.0, 2.0, 3.0]


def area(x, cells):
    """Of polygons whose corners go round."""
    a, b = x[cells], x[np.roll(cells, -1, axis=1)]
    return np.abs((a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(axis=1)).sum() / 2


@pytest.mark.parametrize("cell", [mesh.CellType.triangle, mesh.CellType.quadrilateral])
def test_cells_cover_the_domain(tmp_path, cell):
    u = fem.Function(fem.functionspace(unit_square(cell_type=cell), ("Lagrange", 2)))
    FrameRecorder(tmp_path, u).save(0.0)
    frames = read_frames(tmp_path / "frames.npz")
    assert np.isclose(area(frames.points, frames.cells), 1.0)


def test_thinned_frames_stay_even_and_the_last_one_is_there(tmp_path):
    u = fem.Function(fem.functionspace(unit_square(), ("Lagrange", 1)))
    frames = record(tmp_path, u, np.arange(150.0), limit=20)
    assert len(frames.times) <= 20
    assert frames.times[-1] == 149
    assert set(np.diff(frames.times[:-1])) == {8.0}
    assert frames.times[0] == 0
    assert np.array_equal(frames.values[:, 0], frames.times)


def test_restart_keeps_what_was_before_the_checkpoint(tmp_path):
    u = fem.Function(fem.functionspace(unit_square(), ("Lagrange", 1)))
    record(tmp_path, u, np.arange(10.0))
    recorder = FrameRecorder(tmp_path, u, resume_until=5.0)
    for t in (5.0, 5.5, 6.5):
        u.x.array[:] = t
        recorder.add(t)
    recorder.save(6.5)
    frames = read_frames(tmp_path / "frames.npz")
    assert frames.times.tolist() == [0, 1, 2, 3, 4, 5, 5.5, 6.5]
    assert np.array_equal(frames.values[:, 0], frames.times)


def test_restart_on_what_is_no_frames_file_starts_anew(tmp_path):
    (tmp_path / "frames.npz").write_bytes(b"nothing")
    u = fem.Function(fem.functionspace(unit_square(), ("Lagrange", 1)))
    assert record(tmp_path, u, [3.0], resume_until=2.0).times.tolist() == [3.0]


def test_the_file_is_written_while_the_run_goes_on(tmp_path):
    u = fem.Function(fem.functionspace(unit_square(), ("Lagrange", 1)))
    recorder = FrameRecorder(tmp_path, u, seconds=0.0)
    recorder.add(0.0)
    assert read_frames(tmp_path / "frames.npz").times.tolist() == [0.0]


def test_vectors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="scalar"):
        FrameRecorder(
            tmp_path, fem.Function(fem.functionspace(unit_square(), ("Lagrange", 1, (2,))))
        )
