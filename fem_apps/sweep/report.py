"""The HTML report of a sweep: what was varied, how it ended, plots, the table, why cases failed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import tomli_w

from fem_apps.errors import CaseError
from fem_apps.output import report_page as page
from fem_apps.output.report import save
from fem_apps.sweep.pictures import Names, picture
from fem_apps.sweep.table import Table, default_columns, load, select

# plots, and rows of the table: a browser lays out no more at once
PLOTS, ROWS = 6, 1000
# what differs by less, absolutely or in parts of the largest, is not plotted
ROUNDING = 1e-12


def write(place: Path, out: Path | None = None) -> list[str]:
    """Write the report of a sweep.

    Args:
        place: folder or record of the sweep.
        out: the file; `report.html` in the folder if left out.

    Returns:
        lines that say what was left out and why, and what was written.

    Raises:
        CaseError: no sweep, or the file cannot be written.
    """
    table = load(place)
    notes: list[str] = []
    plan = table.meta.get("plan", {})
    folder = place if place.is_dir() else place.parent
    name = plan.get("case", {}).get("title") or folder.resolve().name
    counts = Counter(table.values("status"))
    how = f"{plan['sample']} points by {plan['method']}" if plan.get("sample") else "a grid"
    said = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    parts = [
        f"<h1>{page.escape(name)}</h1>",
        f"<p>Sweep of {page.escape(table.meta.get('kind', ''))}: {len(table.rows)} cases of "
        f"{how}; {page.escape(said)}.</p>",
        "<h2>Varied</h2>",
        page.table(("key", "values", "meaning"), _axes(table)),
    ]
    plots = _plots(table, notes)
    if plots:
        parts += ["<h2>Plots</h2>", f'<div class="pair">{"".join(plots)}</div>']
    failed = select(table, "status = 'failed'")
    if failed.rows:
        columns = ["id", *table.keys, "error"]
        parts += ["<h2>Failed</h2>", _rows(failed, columns, notes)]
    parts += ["<h2>Table</h2>", _rows(table, default_columns(table, most=12), notes)]
    text = tomli_w.dumps({k: _plain(v) for k, v in plan.get("case", {}).items()})
    parts += ["<h2>Base case</h2>", f"<pre>{page.escape(text)}</pre>"]
    return [*notes, save(page.page(name, parts), out or folder / "report.html")]


def _axes(table: Table) -> list[tuple[str, str, str]]:
    rows = []
    meanings = table.meta.get("axes") or {}
    for key, values, low, high, log in table.meta.get("plan", {}).get("over", []):
        if values:
            shown = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values[:12])
            shown += f", ... ({len(values)})" if len(values) > 12 else ""
        else:
            shown = f"{low:g} to {high:g}" + (", by the logarithm" if log else "")
        rows.append((key, shown, meanings.get(key, "")))
    return rows


def _plots(table: Table, notes: list[str]) -> list[str]:
    """The first metrics that vary, over the first key or the first two."""
    done = select(table, "status = 'done'")
    keys = [k for k in table.keys if _varies(done, k)]
    plots: list[str] = []
    if not keys:
        return plots
    for metric in done.metrics:
        if len(plots) == PLOTS:
            notes.append(f"plots of {PLOTS} metrics; others by `fem-apps plot`")
            break
        if not _varies(done, metric):
            continue
        columns: Names = (keys[0], metric, None)
        if len(keys) == 2:
            columns = (keys[0], keys[1], metric)
        try:
            name, content = picture(done, columns, how="scatter" if len(keys) > 2 else "auto")
        except CaseError as e:
            notes.append(f"plot of {metric} left out: {e}")
            continue
        plots.append(page.picture(content, name.replace("_", " ")))
    return plots


def _varies(table: Table, name: str) -> bool:
    """Whether a column is of numbers that differ by more than rounding."""
    values = [v for v in table.values(name) if v is not None]
    if not values or not all(isinstance(v, int | float) for v in values):
        return False
    size = max(map(abs, values))
    return size > ROUNDING and max(values) - min(values) > ROUNDING * size


def _rows(table: Table, columns: list[str], notes: list[str]) -> str:
    at = [table.columns.index(c) for c in columns]
    if len(table.rows) > ROWS:
        notes.append(f"the first {ROWS} of {len(table.rows)} rows; all by `fem-apps table --csv`")
    return page.table(columns, [[row[i] for i in at] for row in table.rows[:ROWS]])


def _plain(case: Any) -> Any:
    """Without what TOML has no word for."""
    if isinstance(case, dict):
        return {k: _plain(v) for k, v in case.items() if v is not None}
    return [_plain(v) for v in case] if isinstance(case, list) else case
