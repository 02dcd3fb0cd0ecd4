"""What the environment has: one finding for each thing that a run may need, with its remedy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from fem_apps import compat

ENVIRONMENT = "run through run_mpi.sh, or conda env create -f environment.yml"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for; `needed` things make the environment unfit when they lack."""

    name: str
    ok: bool
    what: str
    remedy: str
    needed: bool = True


def examine() -> Iterator[Finding]:
    """Look for everything, one finding at a time; never raises."""
    for name, look, remedy, needed in CHECKS:
        try:
            ok, what = look()
        except Exception as e:
            ok, what = False, f"{type(e).__name__}: {e}".splitlines()[0]
        yield Finding(name, ok, what, remedy, needed)


def _dolfinx() -> tuple[bool, str]:
    import dolfinx

    version = compat.dolfinx_version()
    where = "supported" if compat.OLDEST <= version <= compat.NEWEST else "not supported"
    return where == "supported", f"{dolfinx.__version__}, {where} (0.9 to 0.11)"


def _petsc() -> tuple[bool, str]:
    from petsc4py import PETSc

    external = [p for p in ("mumps", "hypre", "superlu_dist") if PETSc.Sys.hasExternalPackage(p)]
    return True, ".".join(map(str, PETSc.Sys.getVersion())) + (
        " with " + ", ".join(external) if external else ""
    )


def _scalar() -> tuple[bool, str]:
    from petsc4py import PETSc

    return True, f"{PETSc.ScalarType.__name__}"


def _complex() -> tuple[bool, str]:
    found = compat.complex_environment()
    if found is None:
        from petsc4py import PETSc

        return issubclass(PETSc.ScalarType, complex), "the PETSc that is loaded"
    code = "from petsc4py import PETSc; print(PETSc.ScalarType.__name__)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**_alone(), **found},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return out.stdout.strip() == "complex128", "chosen by the case that needs it"


def _mpi() -> tuple[bool, str]:
    from mpi4py import MPI

    name = MPI.Get_library_version().split(",")[0].split("\n")[0]
    return True, f"{name}, {MPI.COMM_WORLD.size} rank(s)"


def _gmsh() -> tuple[bool, str]:
    import gmsh

    return True, str(gmsh.__version__)


def _jax() -> tuple[bool, str]:
    import jax

    return True, f"{jax.__version__} on {jax.default_backend()}"


def _blas() -> tuple[bool, str]:
    import numpy as np

    n = 1500
    a = np.random.default_rng(0).random((n, n))
    a @ a
    begun = time.perf_counter()
    for _ in range(3):
        a @ a
    rate = 3 * 2 * n**3 / (time.perf_counter() - begun) / 1e9
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "all"
    return rate > 5, f"{rate:.0f} GF/s in GEMM (float64, threads: {threads})"


def _adios2() -> tuple[bool, str]:
    import dolfinx

    return bool(
        dolfinx.has_adios2
    ), "VTX output for ParaView" if dolfinx.has_adios2 else "fields go to XDMF instead"


def _rendering() -> tuple[bool, str]:
    code = (
        "import pyvista as pv; p = pv.Plotter(off_screen=True, window_size=(64, 64));"
        "p.add_mesh(pv.Sphere());"
        "print(p.screenshot(return_img=True).std() > 1); print(pv.__version__)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], env=_alone(), capture_output=True, text=True, timeout=120
    )
    said = out.stdout.split()
    return said[:1] == ["True"], f"pyvista {said[1]}" if len(
        said
    ) > 1 else f"the test picture failed ({out.returncode})"


def _package(name: str) -> Callable[[], tuple[bool, str]]:
    return lambda: (True, metadata.version(name))


def _alone() -> dict[str, str]:
    """The environment without what makes a child believe that it is a rank."""
    return {
        k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PRTE_", "PMI_"))
    }


CHECKS: tuple[tuple[str, Callable[[], tuple[bool, str]], str, bool], ...] = (
    ("DOLFINx", _dolfinx, ENVIRONMENT, True),
    ("PETSc", _petsc, ENVIRONMENT, True),
    ("scalar type", _scalar, ENVIRONMENT, True),
    (
        "complex PETSc",
        _complex,
        "conda install 'petsc=*=complex*' in an environment of its own, or run_mpi.sh",
        False,
    ),
    ("MPI", _mpi, ENVIRONMENT, True),
    (
        "gmsh",
        _gmsh,
        "pip install gmsh (and libglu1-mesa, libxft2), or conda install python-gmsh",
        True,
    ),
    ("JAX", _jax, "pip install jax equinox optax diffrax", False),
    (
        "BLAS",
        _blas,
        "install OpenBLAS (Debian: libopenblas0-pthread); the reference BLAS runs at 1 GF/s",
        False,
    ),
    (
        "ADIOS2",
        _adios2,
        "a DOLFINx built with ADIOS2 (conda-forge's is); runs write XDMF without it",
        False,
    ),
    (
        "off-screen rendering",
        _rendering,
        "Debian: libegl1; pip install pyvista; runs leave pictures out without it",
        False,
    ),
    ("finufft", _package("finufft"), "pip install finufft", True),
    ("numba", _package("numba"), "pip install numba", True),
    ("meshio", _package("meshio"), "pip install meshio", True),
)
