"""Importing this before PETSc starts Python again with complex scalars, which its start chooses."""

import os
import sys

from fem_apps.compat import complex_environment

if os.environ.get("FEM_APPS_SCALAR") != "complex":
    found = {**os.environ, **(complex_environment() or {}), "FEM_APPS_SCALAR": "complex"}
    os.execve(sys.executable, sys.orig_argv, found)
