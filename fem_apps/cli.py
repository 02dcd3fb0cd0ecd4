"""The command line `fem-apps`.

What it imports at the top is what `--help` costs; DOLFINx, PETSc and MPI load inside commands,
after the case has said which PETSc it needs.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fem_apps import __version__, cli_pictures, cli_sweep
from fem_apps.errors import FemAppsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli_pictures.register(app)
cli_sweep.register(app)
log = logging.getLogger(__name__)

# seconds that a rank with an error waits for the others to have the same one
PATIENCE = 20.0

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key of the case."),
]


def main() -> None:
    """Run the command line; errors meant for the user are one line, all others end every rank."""
    try:
        sys.exit(app(standalone_mode=False, prog_name="fem-apps") or 0)
    except FemAppsError as e:
        _say(f"error: {e}")
        _leave_together(e.exit_status)
        sys.exit(e.exit_status)
    except Exception as e:
        if hasattr(e, "format_message"):  # a usage error of the command line
            _say(f"error: {e.format_message()}")
            sys.exit(2)
        _end_all_ranks()
        raise


def _say(text: str) -> None:
    """One line on standard error, from rank 0."""
    if _rank() == 0:
        sys.stderr.write(f"fem-apps: {text}\n")
        sys.stderr.flush()


def _rank() -> int:
    """The rank, also before MPI is loaded."""
    if "mpi4py.MPI" in sys.modules:
        return int(sys.modules["mpi4py.MPI"].COMM_WORLD.rank)
    names = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
    return next((int(os.environ[n]) for n in names if n in os.environ), 0)


def _leave_together(status: int) -> None:
    """End every rank if one alone has the error, which would leave the others waiting for it."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or mpi.COMM_WORLD.size == 1:
        return
    everyone, given_up = mpi.COMM_WORLD.Ibarrier(), time.monotonic() + PATIENCE
    while not everyone.Test():
        if time.monotonic() > given_up:
            mpi.COMM_WORLD.Abort(status)
        time.sleep(0.01)


def _end_all_ranks() -> None:
    """An exception on one rank would leave the others waiting."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.COMM_WORLD.size > 1:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        mpi.COMM_WORLD.Abort(1)


def use_scalars_of(kind: str) -> None:
    """Start again with the complex PETSc where the kind needs it: Python's start chooses it."""
    from fem_apps.case import KINDS
    from fem_apps.compat import complex_environment
    from fem_apps.errors import CaseError

    if (
        kind not in KINDS
        or KINDS[kind].scalar != "complex"
        or os.environ.get("FEM_APPS_SCALAR") == "complex"
    ):
        return
    found = complex_environment()
    if found is None:
        from petsc4py import PETSc

        if not issubclass(PETSc.ScalarType, complex):
            raise CaseError(
                f"kind = {kind!r} needs PETSc with complex scalars, and this environment has real "
                "ones only. Remedy: conda install 'petsc=*=complex*', or run_mpi.sh with its own "
                "userland (FEM_APPS_SUITE=trixie)"
            )
        return
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **found, "FEM_APPS_SCALAR": "complex"})


def log_to_terminal(verbose: bool, only: str = "fem_apps") -> None:
    """Show what the package logs, or a part of it, on rank 0's terminal."""
    from fem_apps.output.progress import terminal_handler

    logger = logging.getLogger("fem_apps")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    handler = terminal_handler(verbose) if _rank() == 0 else logging.NullHandler()
    handler.addFilter(logging.Filter(only))
    logger.addHandler(handler)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Finite-element applications on DOLFINx: one command runs a case, in parallel under mpirun."""
    if version:
        typer.echo(f"fem-apps {__version__}")
        raise typer.Exit


@app.command()
def run(
    case: Annotated[Path, typer.Argument(help="The case, a TOML file.", show_default=False)],
    petsc: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PETSC_OPTIONS]", help="Options for PETSc.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder.  [default: runs/<case name>]", show_default=False),
    ] = None,
    overrides: Set = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run folder.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Continue an interrupted run, on any rank count.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Run a case; its results go to a run folder."""
    from fem_apps.case import application, read, validate

    raw = read(case, overrides or ())
    use_scalars_of(raw["kind"])
    if petsc:
        import petsc4py

        petsc4py.init([sys.argv[0], *petsc])
    from mpi4py import MPI

    from fem_apps.compat import remove_unfinished_forms
    from fem_apps.errors import Interrupted
    from fem_apps.mpi import end_with_launcher
    from fem_apps.output.folder import close_run, open_run

    comm = MPI.COMM_WORLD
    end_with_launcher()
    log_to_terminal(verbose)
    if comm.rank == 0:
        remove_unfinished_forms()
    checked = validate(raw, str(case))
    module = application(checked.kind)
    handle = open_run(
        comm, checked, out or Path("runs") / checked.name, overwrite=overwrite, restart=restart
    )
    try:
        metrics = module.run(checked, handle)
    except Interrupted as e:
        close_run(handle, checked, "interrupted", {}, str(e))
        raise
    except Exception as e:
        close_run(handle, checked, "failed", {}, f"{type(e).__name__}: {e}")
        raise
    close_run(handle, checked, "done", metrics)
    log.info("done: %s", handle.folder)
    log.info("%s", ", ".join(f"{k} = {_short(v)}" for k, v in metrics.items()))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@app.command("list")
def list_kinds() -> None:
    """Every kind of case, one line each."""
    from fem_apps.case import KINDS

    width = max(map(len, KINDS))
    for name, kind in sorted(KINDS.items()):
        typer.echo(f"{name:{width}}  {kind.summary}")


@app.command()
def describe(
    kind: Annotated[str, typer.Argument(help="A kind that `list` prints.", show_default=False)],
) -> None:
    """The keys of a kind of case, with their defaults and meanings."""
    from fem_apps.case import application
    from fem_apps.describe import lines

    module = application(kind)
    for line in lines(module.Case):
        typer.echo(line)


@app.command()
def mesh(
    source: Annotated[
        str,
        typer.Argument(help="A case, a geometry of meshes/, or a mesh file.", show_default=False),
    ],
    overrides: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the mesh there, as XDMF for ParaView.")
    ] = None,
) -> None:
    """Make or read a mesh and say what it is."""
    from mpi4py import MPI

    from fem_apps import mesh_summary, meshing
    from fem_apps.case import parse_table, read

    log_to_terminal(False)
    folder = Path(".")
    if source.endswith(".toml"):
        raw = read(source, [f"mesh.{o}" for o in overrides or ()])
        table, folder = raw.get("mesh", {}), raw["folder"]
    else:
        table = {"file" if "." in source else "geometry": source}
        parameters = dict(o.partition("=")[::2] for o in overrides or ())
        if parameters:
            table["parameters"] = parameters
    data = meshing.build(MPI.COMM_WORLD, parse_table(meshing.MeshCase, table, source), folder)
    facts = mesh_summary.describe(data)
    if _rank() == 0:
        for key, value in facts.items():
            typer.echo(f"{key:16} {value}")
    if out is not None:
        from dolfinx.io import XDMFFile

        with XDMFFile(MPI.COMM_WORLD, out, "w") as f:
            f.write_mesh(data.mesh)


@app.command()
def doctor() -> None:
    """What this environment has, and a remedy for each thing that it lacks."""
    from fem_apps.doctor import examine

    healthy = True
    for found in examine():
        healthy = healthy and (found.ok or not found.needed)
        typer.echo(f"{'ok     ' if found.ok else 'MISSING'}  {found.name:22} {found.what}")
        if not found.ok:
            typer.echo(f"{'':33}remedy: {found.remedy}")
    raise typer.Exit(0 if healthy else 1)
