"""Sweeps that are killed anywhere go on to the same table."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sweeps import CASE, finish, ranks_of, results, start, sweep

from fem_apps.sweep.table import load

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")


def over(n: int) -> list[str]:
    return ["--over", f"diffusion.0.coefficient=0.1:0.3:{n}"]


def ended(out: Path) -> int:
    """How many cases the record has as done."""
    try:
        return load(out).values("status").count("done")
    except Exception:  # there is no record yet
        return 0


def kill(process: subprocess.Popen[str], what: str) -> None:
    """SIGKILL of one rank, of mpirun alone, or of all at once; returns when nothing is left."""
    ranks = ranks_of(process)
    if what == "rank" and ranks:
        os.kill(random.choice(ranks), signal.SIGKILL)
    elif what == "all":
        for number in ranks:
            os.kill(number, signal.SIGKILL)
        process.kill()
    else:
        process.kill()
    finish(process)
    while any(Path(f"/proc/{n}").exists() for n in ranks):
        time.sleep(0.05)


def killed_sweep(case: Path, out: Path, n: int, kills: int, seed: int) -> None:
    """Kill a sweep at random moments, after some cases were done each time; then let it end."""
    rng = random.Random(seed)
    for i in range(kills):
        process = start(case, out, *over(n), ranks=2)
        wanted = ended(out) + rng.randint(0, max(1, n // (2 * kills)))
        while process.poll() is None and ended(out) < wanted:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.2))
        if process.poll() is None:
            kill(process, ("rank", "all", "mpirun")[i % 3])
    status, said = sweep(case, out, *over(n), ranks=2)
    assert status == 0, said


@pytest.fixture
def case(tmp_path) -> Path:
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    return path


@pytest.mark.parametrize(("n", "kills"), [(24, 3), pytest.param(200, 10, marks=pytest.mark.slow)])
def test_killed_sweep_has_the_table_of_the_undisturbed_one(n, kills, case, tmp_path):
    killed_sweep(case, tmp_path / "killed", n, kills, seed=1)
    status, said = sweep(case, tmp_path / "calm", *over(n), ranks=2)
    assert status == 0, said
    calm = results(tmp_path / "calm")
    assert len(calm) == n
    assert {row[1] for row in calm.values()} == {"done"}
    assert results(tmp_path / "killed") == calm
