"""Small sweeps as processes of their own, for the tests that kill them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from processes import environment

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


def results(out: Path, without: tuple[str, ...] = ()) -> dict[int, tuple[Any, ...]]:
    """(varied values, status, metrics) of every case: what must not depend on what happened.

    `without` are metrics that are no results.
    """
    table = load(out)
    at = [table.columns.index(name) for name in without]
    cleared = [tuple(None if i in at else v for i, v in enumerate(r)) for r in table.rows]
    table = replace(table, rows=cleared)
    end = 2 + len(table.keys) + len(table.metrics)
    rows = {row[0]: row[1:end] for row in table.rows}
    assert len(rows) == len(table.rows)
    return rows
