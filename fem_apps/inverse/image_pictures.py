"""Pictures of inverse problems: rows of images with one colour scale a group, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fem_apps.output.files import write_whole
from fem_apps.output.plot_style import png, style


@dataclass(frozen=True)
class Panel:
    """An image with its title.

    Attributes:
        title: above it.
        image: shape (rows, columns); y upwards.
        group: panels of one group share their colour scale.
        map: matplotlib's name of the colour map.
    """

    title: str
    image: np.ndarray
    group: str = "image"
    map: str = "viridis"


def panels(path: Path, rows: Sequence[Sequence[Panel]], title: str = "") -> None:
    """Write rows of images as a PNG; the last panel of each group in a row has its colour bar."""
    style()
    import matplotlib.pyplot as plt

    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(1.55 * columns + 0.4, 1.75 * len(rows)),
        squeeze=False,
        layout="compressed",
    )
    limits: dict[str, tuple[float, float]] = {}
    for p in (p for row in rows for p in row):
        low, high = limits.get(p.group, (np.inf, -np.inf))
        limits[p.group] = (
            min(low, float(np.nanmin(p.image))),
            max(high, float(np.nanmax(p.image))),
        )
    for row, line in zip(rows, axes, strict=True):
        for k, axis in enumerate(line):
            axis.set_axis_off()
            if k >= len(row):
                continue
            p = row[k]
            low, high = limits[p.group]
            drawn = axis.imshow(p.image, origin="lower", cmap=p.map, vmin=low, vmax=high)
            axis.set_title(p.title)
            if k + 1 == len(row) or row[k + 1].group != p.group:
                figure.colorbar(drawn, ax=axis, shrink=0.8, pad=0.02)
    if title:
        figure.suptitle(title, fontsize=9)
    write_whole(path, png(figure))


def curves(
    path: Path,
    lines: Sequence[tuple[str, np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str,
    *,
    logarithmic: bool = False,
) -> None:
    """Write named curves (name, x, y) as a PNG."""
    style()
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(3.6, 2.4))
    for (name, x, y), dash in zip(lines, ("-", "--", "-.", ":") * len(lines), strict=False):
        axis.plot(x, y, dash, label=name)
    if logarithmic:
        axis.set_yscale("log")
    axis.set(xlabel=x_label, ylabel=y_label)
    if len(lines) > 1:
        axis.legend()
    write_whole(path, png(figure))
