"""Small sweeps as processes of their own, for the tests that kill them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fem_apps.sweep.table import load

CASE = """
kind = "aggregation-diffusion"
[mesh]
geometry = "interval"
parameters = { a = 0, b = 2, h = 0.05 }
[[diffusion]]
exponent = 2
coefficient = 0.1
[[interaction]]
type = "gaussian"
strength = -0.5
width = 0.3
[initial]
type = "expression"
expression = "1 + 0.2*cos(3*x)"
[time]
end = 0.5
[output]
fields = false
frames = 1
"""


def environment() -> dict[str, str]:
    """Without what makes a child believe that it is a rank of this process's run."""
    return {
        k: v for k, v in os.environ.items() if not k.startswith(("PMIX_", "OMPI_COMM", "PRTE_JOB"))
    }


def command(case: Path, out: Path, *options: str, ranks: int = 1) -> list[str]:
    words = [sys.executable, "-m", "fem_apps", "sweep", str(case), "--out", str(out), *options]
    return ["mpirun", "-n", str(ranks), *words] if ranks > 1 else words


def start(case: Path, out: Path, *options: str, ranks: int = 1) -> subprocess.Popen[str]:
    """A sweep at work, in a process group of its own."""
    return subprocess.Popen(
        command(case, out, *options, ranks=ranks),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def sweep(case: Path, out: Path, *options: str, ranks: int = 1) -> tuple[int, str]:
    """Run one to its end: exit status and what it said."""
    return finish(start(case, out, *options, ranks=ranks))


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process numbers of the ranks below a running mpirun."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = stat.read_text().partition(" (")
            parent = int(rest.rpartition(") ")[2].split()[1])
            python = b"fem_apps" in (stat.parent / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if parent == process.pid and python:
            found.append(int(number))
    return sorted(found)


def results(out: Path) -> dict[int, tuple[Any, ...]]:
    """(varied values, status, metrics) of every case: what must not depend on what happened."""
    table = load(out)
    end = 2 + len(table.keys) + len(table.metrics)
    rows = {row[0]: row[1:end] for row in table.rows}
    assert len(rows) == len(table.rows)
    return rows
