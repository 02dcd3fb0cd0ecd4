"""The summary of a run: status, metrics, versions, as JSON that every reader accepts."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.files import write_whole

# Name in the summary: name of the distribution. None of them is imported.
PACKAGES = {
    "dolfinx": "fenics-dolfinx",
    "basix": "fenics-basix",
    "ffcx": "fenics-ffcx",
    "ufl": "fenics-ufl",
    "petsc4py": "petsc4py",
    "mpi4py": "mpi4py",
    "gmsh": "gmsh",
    "numpy": "numpy",
    "scipy": "scipy",
    "jax": "jax",
    "equinox": "equinox",
    "finufft": "finufft",
    "pyvista": "pyvista",
    "vtk": "vtk",
}


def write_summary(path: str | Path, summary: Mapping[str, Any], *, sync: bool = True) -> None:
    """Write a summary, whole or not at all. On one rank.

    numpy scalars and arrays, paths and complex numbers ([real, imaginary]) are allowed. JSON has no
    NaN or infinity: those become null, and the key "not_finite" maps where each was to what it was.
    `sync` as in `write_whole`.

    Raises:
        CaseError: the file cannot be written.
    """
    text = json.dumps(plain_values(summary), indent=2, allow_nan=False) + "\n"
    try:
        write_whole(Path(path), text.encode(), sync=sync)
    except OSError as e:
        raise CaseError(f"cannot write {path}: {e}") from None


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them; see `write_summary`."""
    not_finite: dict[str, str] = {}
    plain = _plain(values, "", not_finite)
    if not_finite:
        plain["not_finite"] = not_finite
    return plain


def read_summary(path: str | Path) -> dict[str, Any]:
    """The summary as it was written.

    Raises:
        CaseError: no such file, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaseError(f"no summary {path}") from None
    except (OSError, ValueError) as e:
        raise CaseError(f"cannot read {path}: {e}") from None


def versions() -> dict[str, str]:
    """Versions of what a result may depend on; what is not installed is left out.

    PETSc's and MPI's own versions and the scalar type are there if they are loaded already.
    """
    from fem_apps import __version__

    found = {"fem_apps": __version__, **_packages()}
    if "petsc4py.PETSc" in sys.modules:
        from petsc4py import PETSc

        found["petsc"] = ".".join(str(v) for v in PETSc.Sys.getVersion())
        found["scalar"] = (
            "complex" if np.issubdtype(PETSc.ScalarType, np.complexfloating) else "real"
        )
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI

        found["mpi"] = MPI.Get_library_version().rstrip("\0").splitlines()[0].split(",")[0].strip()
    return found


@cache
def _packages() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name, distribution in PACKAGES.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any, where: str, not_finite: dict[str, str]) -> Any:
    match value:
        case Mapping():
            return {
                str(k): _plain(v, f"{where}.{k}" if where else str(k), not_finite)
                for k, v in value.items()
            }
        case list() | tuple():
            return [_plain(v, f"{where}.{i}", not_finite) for i, v in enumerate(value)]
        case np.ndarray() | np.generic():
            return _plain(value.tolist(), where, not_finite)
        case complex():
            return _plain([value.real, value.imag], where, not_finite)
        case float() if not math.isfinite(value):
            not_finite[where] = repr(value)
            return None
        case None | bool() | int() | float() | str():
            return value
    return str(value)
