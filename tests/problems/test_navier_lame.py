"""Exterior elastic waves by finite elements, with the complex PETSc, which Python's start chooses.

`tests/support/navier_lame_complex.py` has the tests; they run here in an interpreter of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fem_apps.compat import complex_environment

TESTS = Path(__file__).parents[1] / "support" / "navier_lame_complex.py"
found = complex_environment()
pytestmark = pytest.mark.skipif(found is None, reason="no PETSc with complex scalars here")


def run(*options: str) -> None:
    inherited = ("PMIX_", "OMPI_COMM", "PRTE_JOB")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(inherited)}
    environment |= {**(found or {}), "FEM_APPS_SCALAR": "complex"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(TESTS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


def test_truncations_and_exact_solutions():
    run("-m", "not slow")


@pytest.mark.slow
def test_orders_and_ellipsoid():
    run("-m", "slow")
