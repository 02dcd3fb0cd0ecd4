"""Every test worker compiles into a cache of its own."""

import os
import tempfile
from pathlib import Path

worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker:
    base = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / f"worker-{worker}"
    base.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(base)
    os.environ["NUMBA_CACHE_DIR"] = str(base / "numba")
