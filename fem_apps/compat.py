"""Every difference between DOLFINx 0.9, 0.10 and 0.11, and between PETSc builds, in one place."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

OLDEST, NEWEST = (0, 9), (0, 11)


def dolfinx_version() -> tuple[int, int]:
    """(major, minor) of the DOLFINx that is loaded."""
    import dolfinx

    major, minor = dolfinx.__version__.split(".")[:2]
    return int(major), int(minor)


def value_of(x: Any) -> Any:
    """x, or x() where this version has a method for what is a property in a later one."""
    return x() if callable(x) else x


def shared_facet_partitioner() -> Any:
    """Cell partitioner with ghost cells across shared facets, as interior-facet integrals need."""
    from dolfinx.mesh import GhostMode, create_cell_partitioner

    try:
        return create_cell_partitioner(GhostMode.shared_facet, 2)
    except TypeError:
        return create_cell_partitioner(GhostMode.shared_facet)


def coordinate_element(mesh: Any) -> Any:
    """The element that maps the reference cell to each cell."""
    g = mesh.geometry
    return g.cmaps[0] if hasattr(g, "cmaps") else g.cmap


def geometry_dofmap(mesh: Any) -> np.ndarray:
    """Geometry nodes of each local cell, shape (cells, nodes a cell)."""
    g = mesh.geometry
    return g.dofmaps[0] if hasattr(g, "dofmaps") else g.dofmap


def interpolation_points(V: Any) -> np.ndarray:
    """Reference points at which an expression is evaluated to interpolate it into V."""
    return value_of(V.element.interpolation_points)


def complex_environment() -> dict[str, str] | None:
    """Environment that makes a new Python load the complex PETSc; None where there is none here.

    It has to be set before Python starts: Debian's path file and the containers' PYTHONPATH choose
    the build while the interpreter comes up.
    """
    debian = Path("/usr/lib/petscdir/petsc-complex")
    if debian.is_dir():
        return {"PETSC_DIR": str(debian)}
    container = sorted(Path("/usr/local/dolfinx-complex/lib").glob("python3*/dist-packages"))
    if container:
        old = [
            p for p in os.environ.get("PYTHONPATH", "").split(":") if p and "dolfinx-real" not in p
        ]
        return {
            "PETSC_ARCH": "linux-gnu-complex128-32",
            "PYTHONPATH": ":".join([str(container[0]), *old]),
        }
    return None


def remove_unfinished_forms(age: float = 60.0) -> None:
    """Remove what a killed compilation left in FFCx's cache. On one rank, before forms compile.

    FFCx takes NAME.c as a lock and writes NAME.c.cached when it is done; the next run would wait
    for that file, and fail after 10 s. Files younger than `age` seconds may be at work.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for lock in (base / "fenics").glob("*.c"):
        with contextlib.suppress(OSError):  # another run may have removed it
            if (
                not lock.with_suffix(".c.cached").exists()
                and time.time() - lock.stat().st_mtime > age
            ):
                lock.unlink()


def patient_compilation(seconds: int = 300) -> None:
    """Let a process wait so long for another one that compiles the same form, instead of 10 s."""
    import dolfinx.jit

    options = dolfinx.jit.DOLFINX_DEFAULT_JIT_OPTIONS
    if "timeout" in options:
        options["timeout"] = (seconds, options["timeout"][1])


def has_module(name: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None
