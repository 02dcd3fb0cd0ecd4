"""Pictures from a run folder: drawn in a process of their own, whatever happens to it."""

import imageio.v3 as iio
import numpy as np
import pytest

from fem_apps.output import pictures
from fem_apps.output.files import npz
from fem_apps.output.plot_field import read_frames
from fem_apps.output.plot_style import clock, colours


def grid(n):
    """A square of n x n, as two triangles each."""
    x = np.array(np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n))).reshape(2, -1).T
    i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    cells = np.concatenate(
        [np.column_stack([i, i + 1, i + n + 1]), np.column_stack([i, i + n + 1, i + n])]
    )
    return x, cells, "triangle"


def line():
    return (
        np.linspace(-1, 1, 30)[:, None],
        np.column_stack([np.arange(29), np.arange(1, 30)]),
        "interval",
    )


def circle():
    a = np.linspace(0, 2 * np.pi, 31)[:-1]
    cells = np.column_stack([np.arange(30), (np.arange(30) + 1) % 30])
    return np.column_stack([np.cos(a), np.sin(a)]), cells, "interval"


def octahedron():
    x = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    return x, np.array([[a, b, c] for a in (0, 1) for b in (2, 3) for c in (4, 5)]), "triangle"


def tetrahedra():
    x = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1.0]])
    return x, np.array([[0, 1, 2, 3], [1, 2, 3, 4]]), "tetrahedron"


def run_folder(folder, shape, frames=8):
    x, cells, cell_type = shape
    times = np.linspace(0, 1, frames)
    values = np.array([np.cos(3 * x[:, 0] + t) for t in times], dtype=np.float32)
    content = {"points": x, "cells": cells, "cell_type": cell_type, "times": times}
    (folder / "frames.npz").write_bytes(
        npz({**content, "values": values, "label": "u", "stride": 1})
    )
    rows = [f"{i},{t},{1 + 1e-16 * i},{-t},{3}" for i, t in enumerate(times)]
    (folder / "history.csv").write_text(
        "\n".join(["step,time,mass,free_energy,iterations", *rows, ""])
    )


def colours_in(path):
    image = iio.imread(path)[..., :3].reshape(-1, 3)
    return len(np.unique(image, axis=0))


ALL = {"history.png", "field.png", "evolution.png"}


@pytest.mark.parametrize(
    ("shape", "moving"),
    [
        (grid(9), True),
        (line(), False),
        (circle(), False),
        (octahedron(), True),
        (tetrahedra(), False),
    ],
)
def test_every_kind_of_domain(tmp_path, shape, moving):
    pytest.importorskip("pyvista")
    run_folder(tmp_path, shape)
    assert pictures.draw_here(tmp_path) == []
    drawn = {p.name for p in tmp_path.iterdir()} - {"frames.npz", "history.csv"}
    assert drawn == ALL | ({"animation.gif"} if moving else set())
    for name in drawn - {"animation.gif"}:
        assert colours_in(tmp_path / name) > 20
    if moving:
        film = iio.imread(tmp_path / "animation.gif")
        assert len(film) == 8
        assert film.shape[2] < 600
        assert np.abs(film[0].astype(int) - film[-1]).max() > 50


def test_pyvista_and_matplotlib_draw_the_same_field(tmp_path):
    """The field grows along the diagonal: dark at the lower left, bright at the upper right."""
    pytest.importorskip("pyvista")
    x, cells, cell_type = grid(17)
    content = {"points": x, "cells": cells, "cell_type": cell_type, "label": "u", "stride": 1}
    values = x.sum(axis=1)[None].astype(np.float32)
    (tmp_path / "frames.npz").write_bytes(npz({**content, "times": [0.0], "values": values}))
    images = []
    for with_pyvista in (True, False):
        pictures.draw_here(tmp_path, with_pyvista=with_pyvista)
        images.append(iio.imread(tmp_path / "field.png")[..., :3].astype(float))
    h, w = np.minimum(images[0].shape[:2], images[1].shape[:2])
    assert np.abs(np.subtract(images[0].shape[:2], images[1].shape[:2])).max() <= 2
    assert np.abs(images[0][:h, :w] - images[1][:h, :w]).mean() < 4.0
    # the middle of the domain, away from axes and colour bar
    low, high = images[0][int(0.75 * h), int(0.2 * w)], images[0][int(0.2 * h), int(0.65 * w)]
    assert high.sum() > low.sum() + 100


def test_in_a_process_of_its_own_without_the_launcher(tmp_path, monkeypatch):
    """The child must not take itself for a rank, nor start MPI."""
    run_folder(tmp_path, line())
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("PMIX_RANK", "0")
    spy = tmp_path / "spy"
    spy.mkdir()
    (spy / "mpi4py.py").write_text("raise SystemExit('MPI was imported')")
    (spy / "dolfinx.py").write_text("raise SystemExit('DOLFINx was imported')")
    (spy / "sitecustomize.py").write_text(
        "import os; assert not [k for k in os.environ if k.startswith(('OMPI_', 'PMIX_'))]"
    )
    monkeypatch.setenv("PYTHONPATH", str(spy))
    assert pictures.draw(tmp_path) == []
    assert {p.name for p in tmp_path.glob("*.png")} == ALL


def test_a_renderer_that_crashes(tmp_path, monkeypatch):
    run_folder(tmp_path, grid(5), frames=2)
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "pyvista.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(fake))
    assert pictures.draw(tmp_path) == ["pyvista left out: drawing with it crashed (SIGSEGV)"]
    assert {p.name for p in tmp_path.glob("*.png")} == ALL


def test_a_renderer_that_hangs(tmp_path, monkeypatch):
    run_folder(tmp_path, grid(5))
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "matplotlib.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(fake))
    notes = pictures.draw(tmp_path, seconds=1.0)
    assert notes == [
        "pyvista left out: drawing with it took more than 1 s",
        "pictures left out: drawing by matplotlib took more than 1 s",
    ]


def test_what_is_missing_is_said(tmp_path):
    notes = pictures.draw_here(tmp_path)
    assert notes[0].startswith("history.png left out: no history")
    assert notes[1] == "pictures of the field left out: there is no frames.npz"
    (tmp_path / "frames.npz").write_bytes(b"PK")
    assert "frames.npz is damaged" in pictures.draw_here(tmp_path)[1]
    run_folder(tmp_path, octahedron())
    assert pictures.draw_here(tmp_path, with_pyvista=False) == [
        "pictures of the field left out: a surface needs pyvista"
    ]


def test_frames_that_are_not_finite_are_left_out(tmp_path):
    run_folder(tmp_path, line())
    with np.load(tmp_path / "frames.npz") as f:
        content = dict(f)
    content["values"][-1, 3] = np.nan
    (tmp_path / "frames.npz").write_bytes(npz(content))
    frames = read_frames(tmp_path / "frames.npz")
    assert len(frames.times) == 7
    assert frames.notes == ["1 frames left out: not finite"]


def test_colours():
    assert colours(np.array([0.001, 2.0])) == ("viridis", (0.0, 2.0))
    assert colours(np.array([1.0, 2.0])) == ("viridis", (1.0, 2.0))
    assert colours(np.array([-1.0, 2.0])) == ("RdBu_r", (-2.0, 2.0))
    assert colours(np.array([3.0, 3.0]))[1] == (2.97, 3.03)
    assert colours(np.zeros(2))[1] == (-1.0, 1.0)


def test_titles():
    assert [clock(t) for t in (0.0, 0.1234567, 2.5e-7)] == [
        "$t = 0$",
        "$t = 0.123$",
        r"$t = 2.5\times 10^{-7}$",
    ]
