"""Elastic waves: the flagship cases, as processes, as some start Python again (complex PETSc)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "navier_lame"
# what makes a case small, and bounds of its metrics
SMALL = {
    "rigid_sphere_mfs": (["sources.count=200"], {"boundary_error": 1e-5, "optical_theorem": 1e-5}),
    "rigid_sphere_pml": (["mesh.parameters.h=0.8"], {"relative_error": 0.05}),
    "inverse_sphere": ([], {"centre_error": 2e-3, "radius_error": 2e-3}),
    # the centre is not known to the inversion
    "inverse_three_lobes": (
        ["truth.centre=[0.5,-0.3,0.2]"],
        {"centre_error": 0.01, "shape_error": 0.02},
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_example(name, tmp_path):
    sets, bounds = SMALL[name]
    command = [sys.executable, "-m", "fem_apps", "run", str(EXAMPLES / f"{name}.toml")]
    command += ["--out", str(tmp_path / "run"), *(a for s in sets for a in ("--set", s))]
    inherited = ("PMIX_", "OMPI_COMM", "PRTE_JOB")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(inherited)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    for key, bound in bounds.items():
        assert abs(metrics[key]) <= bound, (key, metrics[key])
