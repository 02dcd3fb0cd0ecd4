"""Pictures of a sweep: a metric over one or two of the varied keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.plot_style import LINES, colours, png, style

Style = Literal["auto", "line", "scatter", "heat", "contour"]
# series that can be told apart
SERIES = 7
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEVELS = 12


def curves(
    x: np.ndarray,
    y: np.ndarray,
    by: Sequence[Any],
    *,
    labels: tuple[str, str, str],
    how: Style = "auto",
    log: tuple[bool, bool] = (False, False),
) -> bytes:
    """Y over x as PNG: lines through the values of each series, or points where x is sampled.

    Args:
        x: abscissae.
        y: ordinates; NaN is left out.
        by: the series that each value belongs to; one value throughout for one series.
        labels: of x, of y, and of the series.
        how: line or scatter; auto takes lines where a series has several x and none twice.
        log: whether the axes are logarithmic; linear where not all values are positive.

    Raises:
        CaseError: more series than can be told apart, nothing to draw.
    """
    import matplotlib.pyplot as plt

    shown = np.isfinite(x) & np.isfinite(y)
    if not shown.any():
        raise CaseError(f"nothing to draw: no case has both {labels[0]} and {labels[1]}")
    series = list(dict.fromkeys(b for b, s in zip(by, shown, strict=True) if s))
    if len(series) > SERIES:
        raise CaseError(
            f"{len(series)} series of {labels[2]} cannot be told apart: choose one with --where, "
            "or two keys with --y key --z metric"
        )
    style()
    figure, ax = plt.subplots(figsize=(3.4, 2.6), layout="constrained")
    member = np.array([series.index(b) if b in series else -1 for b in by])
    for i, name in enumerate(series):
        at = np.flatnonzero(shown & (member == i))
        at = at[np.argsort(x[at], kind="stable")]
        steps = np.diff(x[at])
        single = len(at) < 2 or (steps == 0).any()
        line = how == "line" or (how == "auto" and not single)
        few = len(at) <= 40
        ax.plot(
            x[at],
            y[at],
            linestyle="-" if line else "none",
            marker=MARKERS[i] if not line or few else "",
            markersize=3,
            color=LINES[i],
            label=_short(name),
        )
    if len(series) > 1:
        place = (1.0, 0.5)  # beside the axes
        ax.legend(title=labels[2], title_fontsize=8, loc="center left", bbox_to_anchor=place)
    _scales(ax, x[shown], y[shown], log)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return png(figure)


def surface(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    *,
    labels: tuple[str, str, str],
    how: Style = "auto",
    log: tuple[bool, bool] = (False, False),
) -> bytes:
    """Z over the plane of x and y as PNG: a heat map of a grid, else of the triangulated points.

    Args:
        x: abscissae.
        y: ordinates.
        z: values; NaN leaves a hole in a grid.
        labels: of x, y and z.
        how: heat or contour; auto is a heat map for a grid and contours for scattered points.
        log: whether the axes are logarithmic; linear where not all values are positive.

    Raises:
        CaseError: a point twice with different values, fewer than three points, points on a line.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    finite = np.isfinite(x) & np.isfinite(y)
    x, y, z = x[finite], y[finite], z[finite]
    if not np.isfinite(z).any():
        raise CaseError(f"nothing to draw: no case has {labels[2]}")
    grid = _grid(x, y, z, labels)
    style()
    figure, ax = plt.subplots(figsize=(3.8, 3.0), layout="constrained")
    cmap, (low, high) = colours(z[np.isfinite(z)])
    norm = plt.Normalize(low, high)
    _scales(ax, x, y, log)
    levels = MaxNLocator(LEVELS).tick_values(low, high)
    drawn: Any
    if grid is not None and how in ("auto", "heat"):
        xs, ys, values = grid
        drawn = ax.pcolormesh(
            _edges(xs, ax.get_xscale()),
            _edges(ys, ax.get_yscale()),
            np.ma.masked_invalid(values),
            cmap=cmap,
            norm=norm,
            rasterized=True,
        )
        ax.set_facecolor("0.85")
    elif grid is not None:
        xs, ys, values = grid
        drawn = ax.contourf(xs, ys, np.ma.masked_invalid(values), levels, cmap=cmap, norm=norm)
    else:
        drawn = _triangulated(ax, x, y, z, how, cmap, norm, levels)
    bar = figure.colorbar(drawn, ax=ax, label=labels[2])
    bar.outline.set_visible(False)  # type: ignore[operator]
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return png(figure)


def _triangulated(
    ax: Any,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    how: Style,
    cmap: str,
    norm: Any,
    levels: Sequence[float],
) -> Any:
    """Scattered points, triangulated where both axes look alike."""
    from matplotlib.tri import Triangulation

    known = np.isfinite(z)
    x, y, z = x[known], y[known], z[known]
    u = [np.log(v) if s == "log" else v for v, s in ((x, ax.get_xscale()), (y, ax.get_yscale()))]
    u = [(v - v.min()) / (np.ptp(v) or 1.0) for v in u]
    try:
        triangles = Triangulation(*u).triangles
        if not len(triangles):
            raise ValueError
    except (ValueError, RuntimeError):
        raise CaseError(
            f"{len(x)} points do not span a plane: draw lines, with --x and --y alone"
        ) from None
    mesh = Triangulation(x, y, triangles)
    if how == "heat":
        drawn = ax.tripcolor(mesh, z, cmap=cmap, norm=norm, shading="gouraud", rasterized=True)
    else:
        drawn = ax.tricontourf(mesh, z, levels, cmap=cmap, norm=norm)
    ax.plot(x, y, ".", color="k", markersize=1.5)
    return drawn


def _grid(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, labels: tuple[str, str, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Ascending x and y, and z[y, x], where the points are a grid, holes allowed; else None."""
    xs, i = np.unique(x, return_inverse=True)
    ys, j = np.unique(y, return_inverse=True)
    counts = np.zeros((len(ys), len(xs)), dtype=int)
    np.add.at(counts, (j, i), 1)
    if counts.max() > 1:
        raise CaseError(
            f"several cases have the same {labels[0]} and {labels[1]}: choose one value of every "
            "other key with --where"
        )
    if len(xs) < 2 or len(ys) < 2 or counts.mean() < 0.5:
        return None
    values = np.full(counts.shape, np.nan)
    values[j, i] = z
    return xs, ys, values


def _edges(v: np.ndarray, scale: str) -> np.ndarray:
    """Edges of cells around ascending values, half-way between neighbours as the axis is drawn."""
    u = np.log(v) if scale == "log" else v
    inner = (u[1:] + u[:-1]) / 2
    edges = np.concatenate([[2 * u[0] - inner[0]], inner, [2 * u[-1] - inner[-1]]])
    return np.exp(edges) if scale == "log" else edges


def _scales(ax: Any, x: np.ndarray, y: np.ndarray, log: tuple[bool, bool]) -> None:
    """Logarithmic axes where they are asked for and all values are positive."""
    from matplotlib.ticker import NullFormatter

    axes = ((x, ax.set_xscale, ax.xaxis, log[0]), (y, ax.set_yscale, ax.yaxis, log[1]))
    for values, scale, axis, asked in axes:
        known = values[np.isfinite(values)]
        if asked and len(known) and known.min() > 0:
            scale("log")
            if known.max() > 10 * known.min():  # else the decade has no label of its own
                axis.set_minor_formatter(NullFormatter())
        elif len(known) and (known % 1 == 0).all():
            axis.get_major_locator().set_params(integer=True)


def label(name: str, description: str = "") -> str:
    """A column as the label of an axis: its last words, and the unit that its description tells.

    A unit is what the description has in square brackets, such as "Young's modulus [Pa]".
    """
    words = [w for w in name.removeprefix("metrics.").split(".") if not w.isdigit()]
    said = " ".join(words[-2:] if len(words) > 1 else words).replace("_", " ")
    unit = re.search(r"\[([^\]]+)\]", description)
    return f"{said} [{unit[1]}]" if unit else said


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
