"""A sweep knows nothing of its kind: complex scalars, shared things, cases that end processes."""

import os
import shutil
import subprocess
import sys

import pytest
from processes import environment

from fem_apps.compat import complex_environment
from fem_apps.sweep.table import load

MODULE = '''
"""A kind of case that lives in a test: it does as it is told."""
import os
from fem_apps.case import Case as AnyCase
from fem_apps.mpi import shared

made = []

class Case(AnyCase):
    do: str = "nothing"
    number: int = 0
    squared: int = 0

def run(case, run):
    from petsc4py import PETSc
    if case.do == "crash":
        os._exit(9)
    if case.do == "alone" and run.comm.rank == run.comm.size - 1:
        raise RuntimeError("this rank alone")
    run.comm.barrier()
    square = shared(run.comm, ("square", case.squared), lambda: made.append(1) or case.squared**2)
    scalar = "complex" if issubclass(PETSc.ScalarType, complex) else "real"
    return {"scalar": scalar, "made": len(made), "square": square, "ranks_there": run.comm.size}
'''
MAIN = """
import fem_apps.case, fem_apps.sweep.run, sys
fem_apps.case.KINDS["probe"] = fem_apps.case.Kind("probe_kind", "does as it is told", "{scalar}")
fem_apps.sweep.run.PATIENCE = 1.0
from fem_apps.cli import main
main()
"""


@pytest.fixture
def probe(tmp_path):
    (tmp_path / "probe_kind.py").write_text(MODULE)
    (tmp_path / "case.toml").write_text('kind = "probe"\n')

    def sweep(*options: str, ranks: int = 1, scalar: str = "real") -> tuple[int, str]:
        words = [sys.executable, "-c", MAIN.format(scalar=scalar), "sweep"]
        words += [str(tmp_path / "case.toml"), "--out", str(tmp_path / "out"), *options]
        if ranks > 1:
            if shutil.which("mpirun") is None:
                pytest.skip("no mpirun")
            words = ["mpirun", "-n", str(ranks), *words]
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            words,
            env={**environment(), "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        return done.returncode, done.stdout + done.stderr

    return sweep


@pytest.mark.skipif(complex_environment() is None, reason="no second PETSc here")
def test_complex_scalars(probe, tmp_path):
    status, said = probe("--over", "number=0:3:4", ranks=2, scalar="complex")
    assert status == 0, said
    assert load(tmp_path / "out").values("scalar") == ["complex"] * 4


def test_what_cases_share_is_made_once(probe, tmp_path):
    status, said = probe("--over", "squared=2,3", "--over", "number=0:9:10")
    assert status == 0, said
    table = load(tmp_path / "out")
    assert table.values("square") == [v**2 for v in table.values("squared")]
    assert max(table.values("made")) == 2


def test_rank_that_fails_alone_is_recorded_and_the_rest_goes_on(probe, tmp_path):
    options = ["--over", "do=nothing,alone,some", "--ranks-per-case", "2"]
    status, said = probe(*options, ranks=2)
    assert status != 0
    assert "this rank alone" in said
    assert load(tmp_path / "out").values("status")[1] == "failed"
    status, said = probe(*options, ranks=2)
    assert status == 1
    table = load(tmp_path / "out")
    assert table.values("status") == ["done", "failed", "done"]
    assert "this rank alone" in table.values("error")[1]
    assert table.values("ranks_there") == [2, None, 2]


def test_case_that_ends_its_process_does_not_keep_the_others(probe, tmp_path):
    options = ["--over", "do=crash,nothing,some"]
    assert probe(*options)[0] == 9
    assert probe(*options)[0] == 9  # the others were done before it
    assert load(tmp_path / "out").values("status")[1:] == ["done", "done"]
    assert probe(*options)[0] == 9
    assert probe(*options)[0] == 1
    table = load(tmp_path / "out")
    assert table.values("status") == ["failed", "done", "done"]
    assert "ended without a word" in table.values("error")[0]
