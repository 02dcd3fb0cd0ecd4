"""Elastic waves: the flagship cases, as processes, as some start Python again (complex PETSc)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import meshio
import numpy as np
import pytest

from fem_apps.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "navier_lame"
# what makes a case small, and bounds of its metrics
SMALL = {
    "rigid_sphere_mfs": (["sources.count=200"], {"boundary_error": 1e-5, "optical_theorem": 1e-5}),
    "rigid_sphere_pml": ([], {"relative_error": 0.006}),
    "inverse_sphere": ([], {"centre_error": 2e-3, "radius_error": 2e-3}),
    # the centre is not known to the inversion
    "inverse_three_lobes": (
        ["truth.centre=[0.5,-0.3,0.2]"],
        {"centre_error": 0.01, "shape_error": 0.02},
    ),
    "inverse_factorisation": (
        ["measurement.receivers=40", "truth.radius='1 + 0.1*z**3'", "start.points=13"],
        {"centre_error": 0.05, "shape_error": 0.03, "residual": 0.06},
    ),
    "inverse_sources": ([], {"centre_error": 0.02, "force_error": 0.1}),
    "inclusion": (["mesh.parameters.h=0.6"], {"relative_error": 0.02, "optical_theorem": 0.02}),
    "ellipsoid_mfs": (["sources.count=150"], {"boundary_error": 1e-3, "optical_theorem": 1e-4}),
    "spheroid_rings": (["sources.count=400"], {"boundary_error": 1e-3, "optical_theorem": 1e-4}),
    "two_obstacles": (["sources.count=120"], {"boundary_error": 0.3, "optical_theorem": 1e-2}),
    "brick": (["sources.count=200"], {"boundary_error_rms": 0.4, "optical_theorem": 1e-2}),
    "fichera_cube": (["sources.count=200"], {"boundary_error_rms": 0.2, "optical_theorem": 1e-2}),
}


@pytest.mark.parametrize("name", SMALL)
def test_example(name, tmp_path):
    sets, bounds = SMALL[name]
    command = [sys.executable, "-m", "fem_apps", "run", str(EXAMPLES / f"{name}.toml")]
    sets = [*sets, "output.pictures=false"]
    command += ["--out", str(tmp_path / "run"), *(a for s in sets for a in ("--set", s))]
    inherited = ("PMIX_", "OMPI_COMM", "PRTE_JOB")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(inherited)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    for key, bound in bounds.items():
        assert abs(metrics[key]) <= bound, (key, metrics[key])


def stl(path, cells):
    """An octahedron's triangles, some of them left out or shifted."""
    x = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
    meshio.write(path, meshio.Mesh(x, [("triangle", np.array(cells))]), file_format="stl")


OCTAHEDRON = [
    [0, 2, 4],
    [2, 1, 4],
    [1, 3, 4],
    [3, 0, 4],
    [2, 0, 5],
    [1, 2, 5],
    [3, 1, 5],
    [0, 3, 5],
]


@pytest.mark.parametrize(
    ("example", "sets", "word"),
    [
        ("fichera_cube", ["obstacle.0.file='{folder}/open.stl'"], "open"),
        ("rigid_sphere_mfs", ["sources.file='{folder}/outside.csv'"], "outside all obstacles"),
        ("rigid_sphere_mfs", ["medium.lame_mu=-1"], "lame_mu"),
        ("rigid_sphere_mfs", ["medium.omega=0"], "omega = 0"),
        ("rigid_sphere_pml", ["medium.omega=0"], "omega = 0"),
        ("rigid_sphere_pml", ["medium.lame_mu=-1"], "lame_mu"),
        ("inverse_sphere", ["medium.omega=0"], "omega = 0"),
    ],
)
def test_bad_input_is_one_line(example, sets, word, tmp_path, capsys, monkeypatch):
    stl(tmp_path / "open.stl", OCTAHEDRON[:-1])
    (tmp_path / "outside.csv").write_text("0.1,0,0\n0,0,3\n")
    command = ["run", str(EXAMPLES / f"{example}.toml"), "--out", str(tmp_path / "run")]
    command += [a for s in sets for a in ("--set", s.format(folder=tmp_path))]
    monkeypatch.setattr(sys, "argv", ["fem-apps", *command])
    monkeypatch.setenv("FEM_APPS_SCALAR", "complex")  # no new Python: it ends before any PETSc
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if "error" in e]
    assert len(errors) == 1
    assert word in errors[0]
