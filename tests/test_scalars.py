"""The complex PETSc is chosen by the kind that needs it, before Python loads a PETSc."""

import os
import subprocess
import sys

import pytest

from fem_apps.compat import complex_environment

CODE = """
from fem_apps import case, cli
case.KINDS["waves"] = case.Kind("fem_apps.problems.waves", "for this test", scalar="complex")
cli.use_scalars_of("waves")
from petsc4py import PETSc
print(PETSc.ScalarType.__name__)
"""


@pytest.mark.skipif(complex_environment() is None, reason="one PETSc only")
def test_complex_kind():
    keep = {k: v for k, v in os.environ.items() if k not in ("PETSC_DIR", "FEM_APPS_SCALAR")}
    environment = {k: v for k, v in keep.items() if not k.startswith(("PMIX_", "OMPI_COMM"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "complex128", done.stderr
