"""A picture of chosen columns of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fem_apps.errors import CaseError
from fem_apps.output import plot_sweep
from fem_apps.sweep.table import Table, load, select

Names = tuple[str | None, str | None, str | None]


def draw(
    place: Path,
    columns: Names,
    *,
    by: str | None = None,
    where: str | None = None,
    how: plot_sweep.Style = "auto",
    labels: Names = (None, None, None),
    log: str = "",
) -> tuple[str, bytes]:
    """The picture of a sweep as PNG, and a name for it.

    Args:
        place: folder or record of the sweep.
        columns: x and y, or x, y and z.
        by: a column; each of its values is a line of its own. Left out: all other varied keys of
            a grid.
        where: which rows, as for `select`; failed cases have no metrics and leave gaps.
        how: of the styles.
        labels: of the axes, where the names of the columns do not do.
        log: axes that are logarithmic, of "x", "y"; also those that the sweep has spaced so.

    Raises:
        CaseError: no sweep, no such column, columns that are not numbers, nothing to draw.
    """
    table = select(load(place), where)
    return picture(table, columns, by=by, how=how, labels=labels, log=log)


def picture(
    table: Table,
    columns: Names,
    *,
    by: str | None = None,
    how: plot_sweep.Style = "auto",
    labels: Names = (None, None, None),
    log: str = "",
) -> tuple[str, bytes]:
    """See `draw`; of a table."""
    if columns[0] is None or columns[1] is None:
        raise CaseError(
            f"say what to draw: --x (varied are {', '.join(table.keys)}) and --y (metrics are "
            f"{', '.join(table.metrics)})"
        )
    if not table.rows:
        raise CaseError("nothing to draw: no rows")
    names = [table.column(c) for c in columns if c is not None]
    said = [text or label(table, n) for n, text in zip(names, labels, strict=False)]
    data = [table.numbers(n) for n in names]
    plan = table.meta.get("plan", {})
    spaced = {key: log for key, _, _, _, log in plan.get("over", [])}
    axes = (
        "x" in log or spaced.get(names[0], False),
        "y" in log or spaced.get(names[1], False),
    )
    if how == "auto" and plan.get("sample") and len(table.keys) > 1 and len(names) == 2:
        how = "scatter"
    if len(names) == 3:
        if how in ("line", "scatter"):
            raise CaseError(f"--style {how} is for two columns; with --z: heat or contour")
        name = f"{names[2]}_over_{names[0]}_and_{names[1]}"
        return name, plot_sweep.surface(
            *data, labels=(said[0], said[1], said[2]), how=how, log=axes
        )
    if how in ("heat", "contour"):
        raise CaseError(f"--style {how} needs --z")
    series, called = _series(table, names, by)
    name = f"{names[1]}_over_{names[0]}"
    return name, plot_sweep.curves(
        data[0], data[1], series, labels=(said[0], said[1], called), how=how, log=axes
    )


def label(table: Table, name: str) -> str:
    """What an axis says of a column; units are those of the descriptions of the case's keys."""
    return plot_sweep.label(name, (table.meta.get("axes") or {}).get(name, ""))


def _series(table: Table, names: list[str], by: str | None) -> tuple[list[Any], str]:
    if by is not None:
        return table.values(by), label(table, table.column(by))
    sampled = table.meta.get("plan", {}).get("sample")
    others = [
        k for k in table.keys if k not in names and len(set(table.values(k))) > 1 and not sampled
    ]
    if not others:
        return [0] * len(table.rows), ""
    columns = [table.values(k) for k in others]
    called = ", ".join(label(table, k) for k in others)
    if len(others) == 1:
        return columns[0], called
    return [", ".join(_short(v) for v in row) for row in zip(*columns, strict=True)], called


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
