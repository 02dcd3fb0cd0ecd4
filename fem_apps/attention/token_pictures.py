"""Pictures of a token run: tokens by cluster, energy staircase, animation."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.attention.clusters import chord, labels
from fem_apps.output.files import write_whole
from fem_apps.output.history import read_history
from fem_apps.output.plot_style import LINES, clock, png, style

log = logging.getLogger(__name__)
LARGEST = 4000  # tokens that a picture shows


def draw(
    folder: Path,
    case: Any,
    times: Sequence[float],
    frames: Sequence[np.ndarray],
    merges: Sequence[tuple[float, int, int]],
) -> list[str]:
    """Write tokens.png, energy.png and animation.gif; returns what was left out and why."""
    style()
    notes: list[str] = []

    def make(name: str, content: Callable[[], bytes]) -> None:
        try:
            write_whole(folder / name, content())
        except Exception as e:  # a picture is no reason to lose a run
            log.debug("%s", name, exc_info=True)
            notes.append(f"{name} left out: {type(e).__name__}: {e}")

    distance = chord(case.cluster_cosine)
    make("energy.png", lambda: staircase(folder / "history.csv", merges, case))
    make("tokens.png", lambda: snapshots(times, frames, distance, case.attention.layer_norm))
    if len(frames) > 2:
        make("animation.gif", lambda: animation(times, frames, distance, case.attention.layer_norm))
    return notes


def _axes(figure: Any, where: Any, x: np.ndarray, sphere: bool) -> Any:
    d = x.shape[1]
    if sphere and d >= 3:
        ax = figure.add_subplot(where, projection="3d", computed_zorder=False)
        u, v = np.mgrid[0 : 2 * np.pi : 40j, 0 : np.pi : 20j]
        ax.plot_wireframe(
            np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v), lw=0.2, color="0.8", zorder=0
        )
        ax.set_box_aspect((1, 1, 1), zoom=1.4)
        ax.set_axis_off()
        ax.view_init(25, 35)
        return ax
    ax = figure.add_subplot(where)
    if sphere:
        s = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(s), np.sin(s), color="0.85", lw=0.8, zorder=0)
        ax.set_xlim(-1.15, 1.15)
        ax.set_ylim(-1.15, 1.15)
        ax.axis("off")
        ax.set_aspect("equal")
    return ax


def _paint(ax: Any, x: np.ndarray, distance: float, sphere: bool) -> Any:
    shown = x[:: max(1, len(x) // LARGEST)]
    group = labels(shown, distance)
    sizes = np.bincount(group)
    colour = [LINES[g % 6] if sizes[g] > 1 or len(shown) < 10 else "0.55" for g in group]
    if sphere and x.shape[1] >= 3:
        p = shown[:, :3]
        front = p @ np.array([0.74, 0.52, 0.42]) > 0  # towards the viewer
        alpha = np.where(front, 1.0, 0.25)
        return ax.scatter(*p.T, c=colour, s=14, alpha=alpha, depthshade=False, linewidths=0)
    p = shown[:, :2] if x.shape[1] > 1 else np.c_[shown[:, 0], np.zeros(len(shown))]
    return ax.scatter(p[:, 0], p[:, 1], c=colour, s=22, linewidths=0, zorder=3)


def snapshots(
    times: Sequence[float], frames: Sequence[np.ndarray], distance: float, sphere: bool
) -> bytes:
    """Up to six states, tokens coloured by cluster."""
    import matplotlib.pyplot as plt

    count = min(6, len(frames))
    chosen = np.unique(np.round(np.linspace(0, len(frames) - 1, count)).astype(int))
    figure = plt.figure(figsize=(1.9 * len(chosen), 2.1), layout="constrained")
    grid = figure.add_gridspec(1, len(chosen))
    for k, i in enumerate(chosen):
        ax = _axes(figure, grid[0, k], frames[i], sphere)
        _paint(ax, frames[i], distance, sphere)
        k = labels(frames[i], distance).max() + 1
        ax.set_title(f"{clock(times[i])}, {k} cluster{'s' if k > 1 else ''}")
    return png(figure)


def staircase(path: Path, merges: Sequence[tuple[float, int, int]], case: Any) -> bytes:
    """The energy and the number of clusters against time, merges marked."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    h = read_history(path)
    figure, ax = plt.subplots(figsize=(4.4, 2.8), layout="constrained")
    t = h["time"]
    logarithmic = case.output.spacing == "log"
    if logarithmic:
        ax.set_xscale("log")
        ax.set_xlim(t[1], t[-1])
    name = "energy" if "energy" in h else "trace" if "trace" in h else "order_parameter"
    label = {"energy": r"energy $2\beta E$", "trace": r"tr $\Sigma$"}.get(name, "order parameter")
    ax.plot(t, h[name], color=LINES[0])
    ax.set_xlabel(r"$s$ / log $\beta$" if case.clock == "arc-length" else "time")
    ax.set_ylabel(label, color=LINES[0])
    for when, _, _ in merges:
        ax.axvline(when, color="0.8", lw=0.8, zorder=0)
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    right.step(t, h["clusters"], where="post", color=LINES[1], ls="--")
    right.set_ylabel("clusters", color=LINES[1])
    if h["clusters"].max() > 30:
        right.set_yscale("log")
    else:
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)


def animation(
    times: Sequence[float], frames: Sequence[np.ndarray], distance: float, sphere: bool
) -> bytes:
    """All kept frames, a GIF."""
    import imageio.v3 as imageio
    import matplotlib.pyplot as plt

    images = []
    figure = plt.figure(figsize=(2.6, 2.8), dpi=100)
    ax = _axes(figure, 111, frames[0], sphere)
    if not sphere:
        size = np.abs(np.concatenate([frames[0], frames[len(frames) // 2]])).max()
        ax.set_xlim(-1.2 * size, 1.2 * size)
        ax.set_ylim(-1.2 * size, 1.2 * size)
    for t, x in zip(times, frames, strict=True):
        artist = _paint(ax, x, distance, sphere)
        ax.set_title(clock(t))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        images.append(imageio.imread(buffer.getvalue())[..., :3])
        artist.remove()
    plt.close(figure)
    return imageio.imwrite("<bytes>", images, extension=".gif", duration=100, loop=0)
