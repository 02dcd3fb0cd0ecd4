"""Pictures of the recorded field: `field.png`, `evolution.png`, `animation.gif`."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.plot_paint import CORNERS, Curve, Painter, Scene, Triangles
from fem_apps.output.plot_style import LINES, SEQUENTIAL, clock, colours, png, style

SNAPSHOTS = 6
# Snapshots share one colour bar unless their ranges differ by more than this.
SHARED_RANGE = 8.0
MILLISECONDS, LAST_MILLISECONDS = 100, 1200


@dataclass(frozen=True)
class Frames:
    """Recorded frames of a run.

    Attributes:
        points: corners of the mesh, shape (n, gdim).
        cells: corners of each cell, in VTK's order.
        cell_type: DOLFINx's name of it.
        times: shape (frames,), at least one.
        values: shape (frames, n).
        label: of the field.
        notes: what of the file was left out.
    """

    points: np.ndarray
    cells: np.ndarray
    cell_type: str
    times: np.ndarray
    values: np.ndarray
    label: str
    notes: list[str]

    @cached_property
    def kind(self) -> str:
        """line, circle, curve, plane, surface or volume."""
        gdim = self.points.shape[1]
        if self.cell_type == "interval":
            if gdim == 1:
                return "line"
            r = np.linalg.norm(self.points - self.points.mean(axis=0), axis=1)
            closed = len(self.cells) == len(self.points)
            return "circle" if gdim == 2 and closed and np.ptp(r) < 0.01 * r.max() else "curve"
        if self.cell_type in ("triangle", "quadrilateral"):
            return "plane" if gdim == 2 else "surface"
        return "volume"


def read_frames(path: Path) -> Frames:
    """The frames of a run folder; those that are not finite are left out.

    Raises:
        CaseError: no such file, a damaged one, or no finite frame in it.
    """
    try:
        with np.load(path, allow_pickle=False) as f:
            data = {key: f[key] for key in f.files}
        cell_type, label = str(data["cell_type"]), str(data["label"])
        points, cells, times, values = (data[key] for key in ("points", "cells", "times", "values"))
        if cells.shape[1] != CORNERS[cell_type] or values.shape != (len(times), len(points)):
            raise ValueError("shapes do not fit")
    except FileNotFoundError:
        raise CaseError(f"there is no {path.name}") from None
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as e:
        raise CaseError(f"{path.name} is damaged ({e})") from None
    finite = np.isfinite(values).all(axis=1)
    notes = [] if finite.all() else [f"{np.count_nonzero(~finite)} frames left out: not finite"]
    if not finite.any():
        raise CaseError(f"{path.name} has no finite frame")
    return Frames(points, cells, cell_type, times[finite], values[finite], label, notes)


def painter(frames: Frames, *, with_pyvista: bool, notes: list[str]) -> Painter | None:
    """What paints these frames; None, with a note, where nothing can."""
    if frames.kind in ("line", "circle", "curve"):
        return Curve(frames.points, frames.cells) if frames.kind == "curve" else _NoPainter()
    if with_pyvista:
        try:
            return Scene(frames.points, frames.cells, frames.cell_type, frames.kind)
        except ImportError as e:
            notes.append(f"pyvista left out: {e}")
    if frames.kind == "plane":
        return Triangles(frames.points, frames.cells)
    notes.append(f"pictures of the field left out: a {frames.kind} needs pyvista")
    return None


class _NoPainter:
    """Profiles over a line or a circle are plotted, not painted."""

    views, frame = 1, True

    def paint(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def repaint(self, *_: Any) -> None:
        raise NotImplementedError


def field(frames: Frames, painter: Painter) -> bytes:
    """The last frame as PNG; over a line or a circle the first, a middle and the last one."""
    import matplotlib.pyplot as plt

    style()
    if frames.kind in ("line", "circle"):
        return _profiles(frames)
    values = frames.values[-1]
    cmap, limits = colours(values)
    width, height = _panel_size(frames, painter, 3.4)
    figure, axes = plt.subplots(
        1,
        painter.views,
        figsize=(width * painter.views + 0.8, height + 0.5),
        layout="constrained",
        squeeze=False,
    )
    for view, ax in enumerate(axes[0]):
        painter.paint(ax, values, cmap, limits, view)
        titles = [("front", "back")[view]] if painter.views == 2 else []
        titles += [clock(frames.times[-1])] if len(frames.times) > 1 else []
        ax.set_title(", ".join(titles))
    if painter.frame:
        _coordinates(axes[0, 0], width, height)
    _colour_bar(figure, list(axes[0]), cmap, limits, frames.label)
    return png(figure)


def evolution(frames: Frames, painter: Painter) -> bytes:
    """Six snapshots in one figure as PNG; over a line or a circle profiles and space-time."""
    import matplotlib.pyplot as plt

    style()
    if frames.kind in ("line", "circle"):
        return _space_time(frames)
    chosen = _spread(len(frames.times), SNAPSHOTS)
    width, height = _panel_size(frames, painter, 2.0)
    columns = 3 if height > 0.5 * width else 2 if height > 0.25 * width else 1
    if columns < 3:
        width, height = (1.5 * width, 1.5 * height)
    rows = -(-len(chosen) // columns)
    columns = min(columns, len(chosen))
    ranges = np.ptp(frames.values[chosen], axis=1)
    shared = ranges.max() <= SHARED_RANGE * ranges.min()
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(columns * (width + (0 if shared else 0.6)) + 0.8, rows * (height + 0.3)),
        layout="constrained",
        squeeze=False,
    )
    cmap, limits = colours(frames.values[chosen])
    for ax in axes.ravel()[len(chosen) :]:
        ax.set_visible(False)
    for i, ax in zip(chosen, axes.ravel(), strict=False):
        if not shared:
            cmap, limits = colours(frames.values[i])
        painter.paint(ax, frames.values[i], cmap, limits)
        ax.set_title(clock(frames.times[i]))
        ax.set_xticks([])
        ax.set_yticks([])
        for side in ax.spines.values():
            side.set_visible(False)
        if not shared:
            _colour_bar(figure, [ax], cmap, limits, "")
    if shared:
        _colour_bar(figure, list(axes.ravel()), cmap, limits, frames.label)
    else:
        figure.suptitle(f"{frames.label} (each with its own colours)", fontsize=9)
    return png(figure)


def animation(frames: Frames, painter: Painter) -> bytes:
    """All frames as an animated GIF of about 450 pixels, colours fixed over time."""
    import imageio.v3 as iio
    import matplotlib.pyplot as plt

    style()
    cmap, limits = colours(frames.values)
    width, height = _panel_size(frames, painter, 3.4)
    figure, ax = plt.subplots(figsize=(width + 1.1, height + 0.8), dpi=100, layout="constrained")
    artist = painter.paint(ax, frames.values[0], cmap, limits)
    if painter.frame:
        _coordinates(ax, width, height)
    _colour_bar(figure, [ax], cmap, limits, frames.label)
    title = ax.set_title(clock(frames.times[0]))
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the first frame's layout for all of them
    images = []
    for t, values in zip(frames.times, frames.values, strict=True):
        painter.repaint(artist, values, cmap, limits)
        title.set_text(clock(t))
        figure.canvas.draw()
        canvas: Any = figure.canvas
        images.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    plt.close(figure)
    buffer = io.BytesIO()
    durations = [MILLISECONDS] * (len(images) - 1) + [LAST_MILLISECONDS]
    iio.imwrite(buffer, np.array(images), extension=".gif", duration=durations, loop=0)
    return buffer.getvalue()


def _profiles(frames: Frames) -> bytes:
    import matplotlib.pyplot as plt

    x, order, name = _abscissa(frames)
    figure, ax = plt.subplots(figsize=(3.6, 2.5), layout="constrained")
    chosen = _spread(len(frames.times), 3)
    looks = [("0.6", "--"), (LINES[1], "-."), (LINES[0], "-")][-len(chosen) :]
    for i, (colour, line) in zip(chosen, looks, strict=True):
        ax.plot(x, frames.values[i][order], line, color=colour, label=clock(frames.times[i]))
    if len(chosen) > 1:
        ax.legend()
    _profile_axes(ax, frames, name)
    return png(figure)


def _space_time(frames: Frames) -> bytes:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    x, order, name = _abscissa(frames)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.0), layout="constrained")
    chosen = _spread(len(frames.times), SNAPSHOTS)
    # the pale end of the map is lost on paper
    shades = mpl.colormaps[SEQUENTIAL](np.linspace(0.0, 0.88, len(chosen)))
    for i, colour in zip(chosen, shades, strict=True):
        left.plot(x, frames.values[i][order], color=colour, label=clock(frames.times[i]))
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=1.2)
    _profile_axes(left, frames, name)
    cmap, limits = colours(frames.values)
    right.pcolormesh(
        x,
        frames.times,
        frames.values[:, order],
        shading="gouraud",
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )
    right.set_xlabel(name)
    right.set_ylabel("time")
    if frames.kind == "circle":
        _angles(right)
    _colour_bar(figure, [right], cmap, limits, frames.label)
    return png(figure)


def _abscissa(frames: Frames) -> tuple[np.ndarray, np.ndarray, str]:
    """Coordinate along a line or angle on a circle, ascending; the order of points; its name."""
    if frames.kind == "line":
        order = np.argsort(frames.points[:, 0])
        return frames.points[order, 0], order, "$x$"
    y = frames.points - frames.points.mean(axis=0)
    angle = np.arctan2(y[:, 1], y[:, 0])
    order = np.argsort(angle)
    # closed: the first point again, a turn later
    order = np.append(order, order[0])
    angle = angle[order]
    angle[-1] += 2 * np.pi
    return angle, order, "angle"


def _profile_axes(ax: Any, frames: Frames, name: str) -> None:
    ax.set_xlabel(name)
    ax.set_ylabel(frames.label)
    ax.margins(x=0)
    if frames.values.min() >= 0:
        ax.set_ylim(bottom=0)
    if frames.kind == "circle":
        _angles(ax)


def _angles(ax: Any) -> None:
    ax.set_xticks(np.pi * np.array([-1, -0.5, 0, 0.5, 1]), ["$-π$", "$-π/2$", "0", "$π/2$", "$π$"])


def _panel_size(frames: Frames, painter: Painter, longest: float) -> tuple[float, float]:
    """Width and height in inches that fit the domain."""
    if not painter.frame:
        return longest, longest
    width, height = np.ptp(frames.points, axis=0)
    scale = longest / max(width, height)
    return max(scale * width, 0.3), max(scale * height, 0.3)


def _coordinates(ax: Any, width: float, height: float) -> None:
    ax.set_xlabel("$x$")
    ax.set_ylabel("$y$")
    ax.locator_params("x", nbins=5 if width > 1.0 else 2)
    ax.locator_params("y", nbins=5 if height > 1.0 else 2)


def _colour_bar(
    figure: Any, axes: list[Any], cmap: str, limits: tuple[float, float], label: str
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    scale = ScalarMappable(Normalize(*limits), cmap)
    if len(axes) == 1:  # as high as the picture, whatever the layout makes of the room around it
        beside = axes[0].inset_axes((1.04, 0.0, 0.035, 1.0))
        bar = figure.colorbar(scale, cax=beside)
    else:
        bar = figure.colorbar(scale, ax=axes, shrink=0.85, aspect=25, pad=0.03)
    bar.set_label(label)
    bar.outline.set_visible(False)
    height = axes[0].get_position().height * figure.get_figheight()
    bar.locator = MaxNLocator(5 if len(axes) > 1 or height > 1.0 else 2)
    bar.update_ticks()


def _spread(count: int, wanted: int) -> list[int]:
    """Indices from the first to the last, evenly spread; steps were small where much happened."""
    return sorted({round(i) for i in np.linspace(0, count - 1, wanted)})
