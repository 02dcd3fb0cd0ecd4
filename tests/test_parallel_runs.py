"""Whole runs under mpirun: the same numbers on 1, 2 and 3 ranks, and after an interruption."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import GRADIENT_FLOW, environment

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")

CASE = GRADIENT_FLOW.format(checkpoint=0)
# counts of iterations and of rounding are not results
COUNTS = {"newton_iterations", "rejected", "first_order_steps", "mass_drift", "energy_increase"}


def start(folder: Path, ranks: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fem_apps", "run", str(folder / "case.toml")]
    command += ["--out", str(folder / "run"), *options]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str], seconds: float = 200) -> tuple[int, str]:
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def folder(base: Path, name: str, case: str = CASE) -> Path:
    out = base / name
    out.mkdir()
    (out / "case.toml").write_text(case)
    return out


def summary(place: Path) -> dict:
    return json.loads((place / "run" / "summary.json").read_text())


def assert_same(a: dict, b: dict) -> None:
    for key in a.keys() - COUNTS:
        if isinstance(a[key], float):
            scale = 1e-8 * max(abs(a[key]), 1.0 if key.startswith("centre") else 0.0)
            floor = 1e-10 if key in ("dissipation", "min_density", "final_min") else 0.0
            assert abs(a[key] - b[key]) <= scale + floor, key
        else:
            assert a[key] == b[key], key


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    place = folder(tmp_path_factory.mktemp("runs"), "one")
    status, said = finish(start(place, 1))
    assert status == 0, said
    return summary(place)["metrics"]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks(ranks, tmp_path, undisturbed):
    place = folder(tmp_path, "run")
    status, said = finish(start(place, ranks))
    assert status == 0, said
    assert_same(undisturbed, summary(place)["metrics"])


@pytest.mark.parametrize(("how", "then"), [(signal.SIGTERM, 3), (signal.SIGKILL, 1)])
def test_interrupted_and_continued(how, then, tmp_path, undisturbed):
    place = folder(tmp_path, "run")
    process = start(place, 2)
    history = place / "run" / "history.csv"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if history.exists() and len(history.read_text().splitlines()) > 30:
            break
        time.sleep(0.02)
    process.send_signal(how)
    finish(process)
    assert summary(place)["status"] == "interrupted"
    time.sleep(1)  # ranks outlive a killed mpirun for a moment
    status, said = finish(start(place, then, "--restart"))
    assert status == 0, said
    assert summary(place)["status"] == "done"
    assert_same(undisturbed, summary(place)["metrics"])


@pytest.mark.parametrize("old", ["h = 0.2", 'type = "uniform"'])
def test_bad_input_on_three_ranks(old, tmp_path):
    place = folder(tmp_path, "run", CASE.replace(old, "nonsense = 1", 1))
    status, said = finish(start(place, 3), 60)
    assert status == 2
    assert sum(line.startswith("fem-apps: error: ") for line in said.splitlines()) == 1
    assert "Traceback" not in said


def test_error_after_validation_on_three_ranks(tmp_path):
    case = CASE.replace('geometry = "rectangle"', 'file = "mesh.msh"').replace("parameters", "# ")
    place = folder(tmp_path, "run", case)
    (place / "mesh.msh").write_text("$MeshFormat\n4.1 0 8\n")
    status, said = finish(start(place, 3), 60)
    assert status == 2
    assert "mesh.msh" in said
    assert "Traceback" not in said
