"""Commands that draw what runs and sweeps have left: `plot`, `compare`, `report`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fem_apps.errors import CaseError

Run = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
Place = Annotated[Path, typer.Argument(help="A run folder, or a sweep.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="The file.", show_default=False)]


class Style(StrEnum):
    """Ways to draw a sweep."""

    auto = "auto"
    line = "line"
    scatter = "scatter"
    heat = "heat"
    contour = "contour"


class Log(StrEnum):
    """Axes that are logarithmic."""

    x = "x"
    y = "y"
    xy = "xy"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(plot)
    app.command()(compare)
    app.command()(report)


def _column(text: str) -> Any:
    return typer.Option(metavar="COLUMN", help=text, show_default=False)


def plot(
    place: Place,
    x: Annotated[str | None, _column("Sweep: a varied key.")] = None,
    y: Annotated[str | None, _column("Sweep: a metric, or with --z a second key.")] = None,
    z: Annotated[str | None, _column("Sweep: the metric over the plane of x and y.")] = None,
    by: Annotated[str | None, _column("Sweep: one line for each value of it.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Sweep: only these rows, as for `table`.")
    ] = None,
    style: Annotated[Style, typer.Option(help="Sweep: how to draw.")] = Style.auto,
    log: Annotated[
        Log | None, typer.Option(help="Sweep: logarithmic axes.", show_default=False)
    ] = None,
    x_label: Annotated[str | None, typer.Option(help="Sweep: with the unit, in words.")] = None,
    y_label: Annotated[str | None, typer.Option(help="Sweep: the same for y.")] = None,
    z_label: Annotated[str | None, typer.Option(help="Sweep: the same for z.")] = None,
    out: Out = None,
) -> None:
    """Draw the pictures of a run again, or a metric of a sweep over the keys that it varies."""
    from fem_apps import cli

    cli.log_to_terminal(False)
    if is_sweep(place):
        from fem_apps.output.files import write_whole
        from fem_apps.sweep.pictures import draw

        name, picture = draw(
            place,
            (x, y, z),
            by=by,
            where=where,
            how=style.value,
            labels=(x_label, y_label, z_label),
            log=log.value if log is not None else "",
        )
        file = out or (place if place.is_dir() else place.parent) / "plots" / f"{name}.png"
        try:
            write_whole(file, picture)
        except OSError as e:
            raise CaseError(f"cannot write {file}: {e.strerror}") from None
        typer.echo(str(file))
        return
    from fem_apps.output.pictures import draw as draw_run

    if any(option is not None for option in (x, y, z, by, where, out)):
        raise CaseError(f"{place} is no sweep: --x, --y, --z, --by, --where, --out are for sweeps")
    _require_run(place)
    for note in draw_run(place):
        typer.echo(note)
    for drawn in sorted(p for p in place.iterdir() if p.suffix in (".png", ".gif")):
        typer.echo(str(drawn))


def is_sweep(place: Path) -> bool:
    """Whether a path is the folder or the record of a sweep."""
    return place.suffix == ".sqlite" or (place.is_dir() and any(place.glob("sweep*.sqlite")))


def _require_run(place: Path) -> None:
    if not (place / "summary.json").is_file():
        raise CaseError(f"{place} is neither a run folder (no summary.json) nor a sweep")


def compare(
    first: Run,
    second: Run,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("compare.png"),
) -> None:
    """Set two runs side by side: what differs in their cases and metrics, and a picture."""
    from fem_apps.output import compare as comparing

    for place in (first, second):
        _require_run(place)
    for line in comparing.lines(first, second):
        typer.echo(line)
    for note in comparing.draw(first, second, out):
        typer.echo(note)


def report(place: Place, out: Out = None) -> None:
    """Write one HTML file of a run or a sweep that needs nothing else, and no network."""
    if is_sweep(place):
        from fem_apps.sweep import report as sweeps

        said = sweeps.write(place, out)
    else:
        from fem_apps.output import report as runs

        _require_run(place)
        said = runs.write(place, out)
    for line in said:
        typer.echo(line)
