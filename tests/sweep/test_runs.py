"""Sweeps as processes: groups of ranks, failing cases, interruptions, full disks, Slurm arrays."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import environment
from sweeps import CASE, command, finish, results, start, sweep

from fem_apps.sweep.table import load

OVER = ["--over", "diffusion.0.coefficient=0.1:0.3:6"]
# iterations and rounding depend on how many ranks share a case
ROUNDING = 1e-9


@pytest.fixture
def case(tmp_path) -> Path:
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    return path


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("calm")
    (place / "case.toml").write_text(CASE)
    status, said = sweep(place / "case.toml", place / "out", *OVER)
    assert status == 0, said
    return place / "out"


def test_record_and_run_folders(calm):
    table = load(calm)
    assert table.values("status") == ["done"] * 6
    assert table.values("ranks") == [1] * 6
    assert all(w > 0 for w in table.values("wall"))
    for number, folder in zip(table.values("id"), table.values("folder"), strict=True):
        summary = json.loads((calm / folder / "summary.json").read_text())
        assert summary["status"] == "done"
        row = dict(zip(table.columns, table.rows[number], strict=True))
        assert summary["metrics"]["free_energy"] == row["free_energy"]
        assert summary["name"] == f"case-{number:06d}"


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")
@pytest.mark.parametrize(("ranks", "together"), [(2, 1), (3, 2)])
def test_same_numbers_on_groups_of_ranks(ranks, together, calm, case, tmp_path):
    options = [*OVER, "--ranks-per-case", str(together)]
    status, said = sweep(case, tmp_path / "out", *options, ranks=ranks)
    assert status == 0, said
    found, expected = load(tmp_path / "out"), load(calm)
    assert found.values("ranks") == [3 if together == 2 else 1] * 6
    if together == 1:
        assert results(tmp_path / "out") == results(calm)
    for name in ("free_energy", "second_moment", "max_density", "dissipation"):
        assert found.values(name) == pytest.approx(expected.values(name), rel=ROUNDING)


def test_failing_cases_stop_no_others(case, tmp_path):
    # a sink that makes the density negative; a density that is negative from the start
    over = ["--over", 'source="0.1","-1000"', "--over", 'initial.expression="1 + x","x - 5"']
    over += ["--set", "time.dt_min=0.01"]
    status, said = sweep(case, tmp_path / "out", *over)
    assert status == 1
    assert "Traceback" not in said
    assert "1 cases done, 3 failed" in said
    table = load(tmp_path / "out")
    by = {row[1:3]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    good, diverging, wrong = ("0.1", "1 + x"), ("-1000", "1 + x"), ("0.1", "x - 5")
    assert by[good]["status"] == "done"
    assert by[diverging]["status"] == by[wrong]["status"] == "failed"
    assert "failed" in by[diverging]["error"]
    assert "Try" in by[diverging]["error"]
    assert "negative" in by[wrong]["error"]
    assert by[diverging]["free_energy"] is None
    first = {k: row["finished"] for k, row in by.items()}
    time.sleep(1.1)  # the record has whole seconds
    for retry in ([], ["--retry", "failed"]):
        assert sweep(case, tmp_path / "out", *over, *retry)[0] == 1
        table = load(tmp_path / "out")
        after = dict(zip((r[1:3] for r in table.rows), table.values("finished"), strict=True))
        assert after[good] == first[good]
        assert (after[diverging] == first[diverging]) == (not retry)


def wait_until(what, process, seconds=120.0):
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not what():
        time.sleep(0.01)


def count(out: Path, status: str) -> int:
    try:
        return load(out).values("status").count(status)
    except Exception:  # there is no record yet
        return 0


SLOW = ["--set", "mesh.parameters.h=0.001", "--set", "time.tolerance=1e-7", "--set", "time.end=3"]


def test_second_sweep_is_refused_and_sigterm_goes_on_later(case, tmp_path):
    out, over = tmp_path / "out", [*SLOW, "--over", "diffusion.0.coefficient=0.1,0.2"]
    process = start(case, out, *over)
    wait_until(lambda: count(out, "running"), process)
    status, said = sweep(case, out, *over)
    assert status == 2
    assert "another sweep is writing" in said
    assert f"process {process.pid}" in said
    assert process.poll() is None
    history = out / "runs" / "000000" / "history.csv"
    wait_until(lambda: history.exists() and len(history.read_bytes()) > 4000, process)
    process.send_signal(signal.SIGTERM)
    status, said = finish(process)
    assert status == 1, said
    assert "interrupted" in said
    assert count(out, "running") == 0
    assert count(out, "done") < 2
    assert list(out.glob("runs/*/checkpoint/*"))
    status, said = sweep(case, out, *over)
    assert status == 0, said
    assert sweep(case, tmp_path / "calm", *over)[0] == 0
    for name in ("free_energy", "second_moment", "steps"):
        expected = load(tmp_path / "calm").values(name)
        assert load(out).values(name) == pytest.approx(expected, rel=1e-10)


UNSHARE = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
# a small file system at argv[1], seen by this process and its children alone; flag 32 is MS_REMOUNT
MOUNT = """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(size, flags=0):
    if libc.mount(b"small", sys.argv[1].encode(), b"tmpfs", flags, b"size=" + size):
        sys.exit(os.strerror(ctypes.get_errno()))
mount(b"160k")
"""


def may_mount(place: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    words = [*UNSHARE, sys.executable, "-c", MOUNT, str(place)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_full_disk(calm, case, tmp_path):
    """On a file system of 160 KiB, then of 16 MiB."""
    out = tmp_path / "out"
    out.mkdir()
    if not may_mount(out):
        pytest.skip("may not mount a small file system")
    script = f"""{MOUNT}
import shutil
run = {command(case, out / "s", *OVER)!r}
print("status", subprocess.run(run).returncode, flush=True)
shutil.copytree(sys.argv[1], {str(tmp_path / "before")!r})
mount(b"16m", 32)
print("status", subprocess.run(run).returncode)
shutil.copytree(sys.argv[1], {str(tmp_path / "after")!r})
"""
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", script, str(out)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    said = done.stdout
    assert "status 1" in said.split("status 0")[0], said
    assert "status 0" in said, said
    assert "make room" in said
    assert "Traceback" not in said
    statuses = load(tmp_path / "before" / "s").values("status")
    assert "failed" not in statuses
    assert 0 < statuses.count("done") < 6
    assert results(tmp_path / "after" / "s") == results(calm)


def test_slurm_array(calm, case, tmp_path):
    """The script of the docs with a scheduler that is none: two parts, one table."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "fem-apps").write_text(f'#!/bin/sh\nexec {sys.executable} -m fem_apps "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    script = Path(__file__).parents[2] / "examples" / "slurm" / "sweep_array.sh"
    for part in ("1", "2"):
        slurm = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_PROCID": "0"}
        path = {"PATH": f"{tools}:{os.environ['PATH']}"}
        subprocess.run(
            ["bash", str(script), str(case), "--out", str(tmp_path / "out"), *OVER],
            env={**environment(), **slurm, **path},
            check=True,
            timeout=200,
        )
        assert len(load(tmp_path / "out").rows) == 3 * int(part)
    assert results(tmp_path / "out") == results(calm)
