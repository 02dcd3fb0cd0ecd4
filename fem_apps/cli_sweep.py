"""Commands for many cases: `sweep`, `table`, `compare`, `report`; registered by `cli`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

# rows that `table` prints unless it is asked for all
ROWS = 50

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key of all cases."),
]
SweepFolder = Annotated[
    Path, typer.Argument(help="The folder of a sweep, or its file.", show_default=False)
]


class Method(StrEnum):
    """Methods of sampling."""

    lhs = "lhs"
    sobol = "sobol"


class Retry(StrEnum):
    """What is run again."""

    failed = "failed"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(sweep)
    app.command()(table)


def sweep(
    case: Annotated[Path, typer.Argument(help="The base case, a TOML file.", show_default=False)],
    petsc: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PETSC_OPTIONS]", help="Options for PETSc.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="What is varied: key=a,b,c or key=lo:hi:n[:log]; to --sample: key=lo:hi[:log].",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sweep.  [default: sweeps/<case name>]", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    sample: Annotated[
        int | None, typer.Option(help="Sample that many points instead of all combinations.")
    ] = None,
    method: Annotated[Method, typer.Option(help="Of sampling.")] = Method.lhs,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N, for arrays of jobs.")
    ] = None,
    ranks_per_case: Annotated[int, typer.Option(help="Ranks that run a case together.")] = 1,
    retry: Annotated[Retry | None, typer.Option(help="Run failed cases again.")] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Draw the pictures of every case.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Run many cases; started again, it goes on with what is missing."""
    from fem_apps import cli
    from fem_apps.case import read
    from fem_apps.sweep.axes import parse_shard

    raw = read(case, overrides or ())
    cli.use_scalars_of(raw["kind"])
    part = parse_shard(shard)
    if petsc:
        import petsc4py

        petsc4py.init([sys.argv[0], *petsc])
    from mpi4py import MPI

    from fem_apps.compat import patient_compilation, remove_unfinished_forms
    from fem_apps.describe import meaning
    from fem_apps.errors import FemAppsError
    from fem_apps.mpi import end_with_launcher
    from fem_apps.sweep.plan import make_plan, without_pictures
    from fem_apps.sweep.run import run_sweep

    comm = MPI.COMM_WORLD
    end_with_launcher()
    cli.log_to_terminal(verbose, only="fem_apps.sweep")
    if comm.rank == 0:
        remove_unfinished_forms()
    if not pictures:
        raw = without_pictures(raw, overrides or ())
    plan = make_plan(raw, over or (), sample=sample, method=method.value, seed=seed, shard=part)
    patient_compilation()
    counts = run_sweep(
        comm,
        plan,
        out or Path("sweeps") / raw["name"],
        ranks_per_case=ranks_per_case,
        retry_failed=retry is not None,
        about={"kind": raw["kind"], "axes": {a.key: meaning(plan.model, a.key) for a in plan.axes}},
    )
    if counts.get("failed"):
        raise FemAppsError(
            f"{counts.get('done', 0)} cases done, {counts['failed']} failed: the reasons are in "
            f"`fem-apps table {out or Path('sweeps') / raw['name']} --where \"status = 'failed'\"`"
        )


def table(
    folder: SweepFolder,
    where: Annotated[
        str | None,
        typer.Option(help="Only rows for which this is true, such as \"status='done' and end<3\"."),
    ] = None,
    sort: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Sort by it; -COLUMN falling.")
    ] = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B,...", help="Show these.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print all rows and columns.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write all columns there, as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write them there, as Parquet.")] = None,
) -> None:
    """Print the table of a sweep, also while it runs; or export it."""
    from fem_apps.sweep import table as tables

    found = tables.select(tables.load(folder), where, sort or ())
    if csv is not None:
        tables.write_csv(found, csv)
    if parquet is not None:
        tables.write_parquet(found, parquet)
    if csv is None and parquet is None:
        shown = list(found.columns) if everything else tables.default_columns(found)
        if columns is not None:
            shown = [found.column(c.strip()) for c in columns.split(",")]
        typer.echo(tables.text(found, shown, limit=0 if everything else ROWS))
