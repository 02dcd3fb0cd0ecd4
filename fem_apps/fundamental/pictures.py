"""Pictures of elastic waves: slices, far-field patterns, a period as an animation."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from fem_apps.output.plot_style import DIVERGING, LINES, SEQUENTIAL, png, style


@dataclass(frozen=True)
class Slice:
    """A displacement on a square grid in a plane.

    Attributes:
        x: points (n, n, 3), the second index along `forward`.
        u: complex displacement (n, n, 3), NaN where there is none.
        t: coordinates of the grid about its middle, (n,).
        forward, across: unit vectors of the plane.
    """

    x: np.ndarray
    u: np.ndarray
    t: np.ndarray
    forward: np.ndarray
    across: np.ndarray


def field(s: Slice, label: str) -> bytes:
    """|u| and the real part of u along `forward`, side by side."""
    import matplotlib.pyplot as plt

    style()
    figure, axes = plt.subplots(1, 2, figsize=(6.8, 2.9), layout="constrained")
    size = np.linalg.norm(s.u, axis=2)
    along = np.real(s.u @ s.forward)
    limit = np.nanpercentile(np.abs(along), 99.8)
    for ax, values, cmap, limits, title in (
        (axes[0], size, SEQUENTIAL, (0.0, np.nanpercentile(size, 99.8)), f"$|{label[-1]}|$"),
        (axes[1], along, DIVERGING, (-limit, limit), f"Re ${label[-1]}$ along the wave"),
    ):
        image = _image(ax, s, values, cmap, limits)
        figure.colorbar(image, ax=ax, shrink=0.9).outline.set_visible(False)
        ax.set_title(f"{title}{' (total field)' if 'total' in label else ''}")
    axes[1].set_ylabel("")
    return png(figure)


def _filled(values: np.ndarray) -> np.ndarray:
    """Values with those of the nearest point in the place of NaN, under the obstacle's patch."""
    near = distance_transform_edt(np.isnan(values), return_distances=False, return_indices=True)
    return np.asarray(values[tuple(near)])


def _image(ax: Any, s: Slice, values: np.ndarray, cmap: str, limits: tuple[float, float]) -> Any:
    box = (s.t[0], s.t[-1], s.t[0], s.t[-1])
    image = ax.imshow(
        _filled(values), origin="lower", extent=box, cmap=cmap,
        vmin=limits[0], vmax=limits[1], interpolation="bilinear",
    )  # fmt: skip
    body = gaussian_filter(np.isnan(values).astype(float), 0.8)
    ax.contourf(s.t, s.t, body, levels=[0.5, 1.1], colors=["0.35"])
    ax.set_xlabel("along the incident wave")
    ax.set_ylabel("across")
    return image


def far_field(angle: np.ndarray, u_p: np.ndarray, u_s: np.ndarray) -> bytes:
    """|u_p| and |u_s| of the far field in the plane, against the angle to the incident wave."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    style()
    figure, ax = plt.subplots(figsize=(3.6, 3.4), subplot_kw={"projection": "polar"})
    for values, line, colour, label in (
        (u_p, "-", LINES[0], "pressure"),
        (u_s, "--", LINES[1], "shear"),
    ):
        ax.plot(angle, np.linalg.norm(values, axis=1), line, color=colour, label=label)
    ax.set_title("far field, 0° is forward")
    ax.grid(linewidth=0.4)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    for text in ax.get_yticklabels():  # they lie among the curves
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6})
        text.set_zorder(5)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.15, -0.15))
    return png(figure)


def animation(s: Slice, frames: int) -> bytes:
    """Re(u e^(-i omega t)) along the wave over one period, an animated GIF."""
    import imageio.v3 as iio
    import matplotlib.pyplot as plt

    style()
    along = s.u @ s.forward
    limit = float(np.nanpercentile(np.abs(along), 99.8))
    figure, ax = plt.subplots(figsize=(3.4, 3.2), dpi=100, layout="constrained")
    image = _image(ax, s, np.real(along), DIVERGING, (-limit, limit))
    ax.set_title("Re $u$ along the wave, one period")
    pictures = []
    for k in range(frames):
        image.set_data(_filled(np.real(along * np.exp(-2j * np.pi * k / frames))))
        figure.canvas.draw()
        canvas: Any = figure.canvas
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    plt.close(figure)
    buffer = io.BytesIO()
    iio.imwrite(buffer, np.array(pictures), extension=".gif", duration=2000 / frames, loop=0)
    return buffer.getvalue()
