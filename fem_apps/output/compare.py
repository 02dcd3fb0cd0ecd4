"""Two runs side by side: keys of the case and metrics that differ, histories, last fields."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output import plot_field
from fem_apps.output.files import write_whole
from fem_apps.output.history import read_history
from fem_apps.output.plot_style import LINES, clock, colours, png, style
from fem_apps.output.summary import read_summary

TIME = ("time", "t")
PANELS = 6
# relative changes over time that are not worth a panel
ROUNDING = 1e-9
# of the mesh's size: corners nearer than this are the same
SAME_PLACE = 1e-9


def lines(first: Path, second: Path) -> Iterator[str]:
    """Text: what the cases have different, then every metric with its difference.

    Raises:
        CaseError: a folder has no summary, or its case cannot be read.
    """
    cases, summaries = [], []
    for folder in (first, second):
        summaries.append(read_summary(folder / "summary.json"))
        try:
            cases.append(_flat(tomllib.loads((folder / "case.toml").read_text())))
        except (OSError, tomllib.TOMLDecodeError) as e:
            raise CaseError(f"cannot read the case of {folder}: {e}") from None
    rows = [["", str(first), str(second), "difference", "relative"]]
    for key in dict.fromkeys([*cases[0], *cases[1]]):
        a, b = (c.get(key) for c in cases)
        if a != b and key not in ("folder", "name"):
            rows.append([key, _short(a), _short(b), "", ""])
    for key in ("status", "ranks"):
        a, b = (s.get(key) for s in summaries)
        rows.append([key, _short(a), _short(b), "", ""])
    metrics = [_flat(s.get("metrics", {})) for s in summaries]
    for key in dict.fromkeys([*metrics[0], *metrics[1]]):
        a, b = (m.get(key) for m in metrics)
        rows.append([key, _short(a), _short(b), *_difference(a, b)])
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        yield "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, entry in enumerate(value):
                out |= _flat(entry, f"{prefix}{key}.{i}.")
        else:
            out[prefix + key] = value
    return out


def _difference(a: Any, b: Any) -> tuple[str, str]:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    if not numbers:
        return ("", "") if a == b else ("differ", "")
    if a == b:
        return "0", ""
    size = max(abs(a), abs(b))
    return f"{b - a:.3g}", f"{abs(b - a) / size:.2g}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.8g}"
    said = "-" if value is None else str(value)
    return said if len(said) <= 40 else said[:37] + "..."


def draw(first: Path, second: Path, out: Path) -> list[str]:
    """Write the picture: histories over each other, the last fields and their difference.

    Returns:
        lines that say what was written, and what was left out and why.

    Raises:
        CaseError: the file cannot be written, or there is nothing that both runs have.
    """
    import matplotlib.pyplot as plt

    style()
    notes: list[str] = []
    names = _names(first, second)
    histories = [_history(f, notes) for f in (first, second)]
    shared = _shared(*histories)
    fields = _fields(first, second, notes)
    if not shared and fields is None:
        raise CaseError(f"nothing to compare in a picture: {'; '.join(notes)}")
    columns = 3
    rows = -(-len(shared) // columns)
    height = 2.1 * rows + (2.5 if fields else 0)
    figure = plt.figure(figsize=(8.2, height), layout="constrained")
    parts = figure.subfigures(
        2 if shared and fields else 1, 1, squeeze=False, height_ratios=_ratios(rows, fields)
    )[:, 0]
    if shared:
        _draw_histories(parts[0], histories, shared, names, rows, columns)
    if fields is not None:
        _draw_fields(parts[-1], fields, names)
    try:
        write_whole(out, png(figure))
    except OSError as e:
        raise CaseError(f"cannot write {out}: {e.strerror}") from None
    return [*notes, str(out)]


def _ratios(rows: int, fields: Any) -> list[float]:
    return [2.1 * rows, 2.5] if rows and fields else [1]


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Names of the runs, told apart by their folders where they are called the same."""
    a, b = first.resolve(), second.resolve()
    if a.name != b.name:
        return a.name, b.name
    return f"{a.parent.name}/{a.name}", f"{b.parent.name}/{b.name}"


def _history(folder: Path, notes: list[str]) -> dict[str, np.ndarray]:
    try:
        return read_history(folder / "history.csv")
    except CaseError as e:
        notes.append(f"histories left out: {e}")
        return {}


def _shared(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> list[str]:
    """Columns to be drawn: numbers that both have, those that change first."""
    time = next((t for t in TIME if t in a and t in b), None)
    if time is None:
        return []
    found = [
        key
        for key in a
        if key in b
        and key not in (*TIME, "step", "dt", "iterations", "rejected", "order")
        and all(h[key].dtype.kind == "f" and np.isfinite(h[key]).any() for h in (a, b))
    ]
    found.sort(key=lambda k: bool(np.nanstd(a[k]) <= ROUNDING * np.nanmax(np.abs(a[k]))))
    return found[:PANELS]


def _draw_histories(
    figure: Any,
    histories: list[dict[str, np.ndarray]],
    keys: list[str],
    names: tuple[str, str],
    rows: int,
    columns: int,
) -> None:
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel()[len(keys) :]:
        ax.set_visible(False)
    time = next(t for t in TIME if t in histories[0])
    for key, ax in zip(keys, axes.ravel(), strict=False):
        for h, line, colour, name in zip(histories, ("-", "--"), LINES, names, strict=False):
            ax.plot(h[time], h[key], line, color=colour, label=name)
        ax.set_title(key.replace("_", " "), loc="left")
        ax.set_xlabel("time")
        ax.ticklabel_format(axis="y", useOffset=False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)


def _fields(
    first: Path, second: Path, notes: list[str]
) -> tuple[plot_field.Frames, plot_field.Frames] | None:
    try:
        a, b = (plot_field.read_frames(f / "frames.npz") for f in (first, second))
    except CaseError as e:
        notes.append(f"fields left out: {e}")
        return None
    if a.kind not in ("line", "plane") or a.kind != b.kind:
        notes.append(f"fields left out: of a {a.kind} and a {b.kind}; see each run's field.png")
        return None
    return a, b


def _draw_fields(
    figure: Any, fields: tuple[plot_field.Frames, plot_field.Frames], names: tuple[str, str]
) -> None:
    a, b = fields
    alike = a.points.shape == b.points.shape and bool(
        np.abs(a.points - b.points).max() <= SAME_PLACE * np.ptp(a.points)
    )
    titles = [f"{n}, {clock(f.times[-1])}" for n, f in zip(names, fields, strict=True)]
    if a.kind == "line":
        axes = figure.subplots(1, 2 if alike else 1, squeeze=False)[0]
        for f, line, colour, title in zip(fields, ("-", "--"), LINES, titles, strict=False):
            order = np.argsort(f.points[:, 0])
            axes[0].plot(f.points[order, 0], f.values[-1][order], line, color=colour, label=title)
        axes[0].set_ylabel(a.label)
        axes[0].legend()
        if alike:
            order = np.argsort(a.points[:, 0])
            axes[1].plot(a.points[order, 0], (b.values[-1] - a.values[-1])[order], color="k")
            axes[1].set_ylabel(f"difference of {a.label}")
        for ax in axes:
            ax.set_xlabel("$x$")
            ax.margins(x=0)
        return
    axes = figure.subplots(1, 3 if alike else 2)
    cmap, limits = colours(np.concatenate([a.values[-1], b.values[-1]]))
    shown = None
    for f, ax, title in zip(fields, axes, titles, strict=False):
        shown = _paint(ax, f, f.values[-1], cmap, limits)
        ax.set_title(title)
    figure.colorbar(shown, ax=list(axes[:2]), label=a.label).outline.set_visible(False)
    if alike:
        change = b.values[-1].astype(float) - a.values[-1]
        size = float(np.abs(change).max()) or 1.0
        shown = _paint(axes[2], a, change, "RdBu_r", (-size, size))
        axes[2].set_title("second minus first")
        figure.colorbar(shown, ax=axes[2]).outline.set_visible(False)


def _paint(
    ax: Any, f: plot_field.Frames, values: np.ndarray, cmap: str, limits: tuple[float, float]
) -> Any:
    from fem_apps.output.plot_paint import Triangles

    ax.set_xlabel("$x$")
    ax.set_ylabel("$y$")
    return Triangles(f.points, f.cells).paint(ax, values, cmap, limits)
