"""Pictures of inverse scattering: true and found boundaries over the sampling indicator."""

from __future__ import annotations

from typing import Any

import numpy as np

from fem_apps.inverse.elastic_source_forward import Star
from fem_apps.inverse.elastic_source_solve import Estimate
from fem_apps.output.plot_style import LINES, SEQUENTIAL, png, style

PLANES = ((0, 1), (0, 2))


def _background(ax: Any, z: np.ndarray, indicator: np.ndarray, plane: tuple[int, int]) -> Any:
    """The indicator's maximum along the third axis."""
    n = round(len(z) ** (1 / 3))
    third = ({0, 1, 2} - set(plane)).pop()
    seen = indicator.reshape(n, n, n).max(axis=third)
    L = float(z.max())
    image = ax.imshow(
        seen.T, origin="lower", extent=(-L, L, -L, L), cmap=SEQUENTIAL, vmin=0, alpha=0.55
    )
    ax.set_xlabel("xyz"[plane[0]])
    ax.set_ylabel("xyz"[plane[1]])
    ax.set_yticks([t for t in ax.get_xticks() if -L <= t <= L])
    return image


def obstacle(
    star: Star,
    found: Estimate,
    centre: np.ndarray,
    directions: np.ndarray,
    true_radius: np.ndarray,
    z: np.ndarray,
    indicator: np.ndarray,
    frames: int,
    method: str,
) -> bytes:
    """Sections of the obstacle: truth, iterations, result.

    Args:
        star: parametrisation.
        found: the iterations.
        centre: of the true obstacle.
        directions: unit vectors at which the true radius is known, (n, 3).
        true_radius: there, (n,).
        z: points of the indicator.
        indicator: of a sampling method.
        frames: most iterations drawn.
        method: the sampling method's name.
    """
    import matplotlib.pyplot as plt
    from scipy.spatial import cKDTree

    style()
    figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.2), layout="constrained")
    t = np.linspace(0, 2 * np.pi, 361)
    tree = cKDTree(directions)
    chosen = sorted({round(k) for k in np.linspace(0, len(found.path) - 1, frames + 1)})[:-1]
    for ax, plane in zip(axes, PLANES, strict=True):
        image = _background(ax, z, indicator, plane)
        d = np.zeros((len(t), 3))
        d[:, plane[0]], d[:, plane[1]] = np.cos(t), np.sin(t)
        distance, at = tree.query(d, k=6)
        weight = 1 / (distance + 1e-6) ** 2
        r = (weight * true_radius[at]).sum(axis=1) / weight.sum(axis=1)

        def curve(c: np.ndarray, r: np.ndarray, d: np.ndarray = d, plane: Any = plane) -> Any:
            x = c + r[:, None] * d
            return x[:, plane[0]], x[:, plane[1]]

        for k in chosen:
            p = found.path[k]
            label = "start and iterations" if k == chosen[0] else None
            ax.plot(*curve(p[:3], star.radius(p, d)), color="0.3", linewidth=0.8, label=label)
        ax.plot(*curve(centre, r), color="black", linewidth=2, label="true")
        p = found.p
        ax.plot(*curve(p[:3], star.radius(p, d)), "--", color=LINES[1], linewidth=2, label="found")
        ax.set_aspect("equal")
    axes[0].legend(loc="upper left")
    figure.colorbar(image, ax=axes, shrink=0.8, label=method).outline.set_visible(False)
    return png(figure)


def convergence(residuals: list[float], noise: float) -> bytes:
    """Relative residual against the iteration, with the level of the noise."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    style()
    figure, ax = plt.subplots(figsize=(3.6, 2.5), layout="constrained")
    ax.semilogy(residuals, "o-", markersize=3)
    if noise > 0:
        ax.axhline(noise, color=LINES[1], linestyle="--", label="noise")
        ax.legend()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("Gauss-Newton iteration")
    ax.set_ylabel("relative residual")
    return png(figure)


def sources(
    z: np.ndarray, indicator: np.ndarray, first: np.ndarray, y: np.ndarray, true: np.ndarray
) -> bytes:
    """Sources: direct sampling, first guess, result and truth."""
    import matplotlib.pyplot as plt

    style()
    figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.2), layout="constrained")
    for ax, plane in zip(axes, PLANES, strict=True):
        image = _background(ax, z, indicator, plane)
        for points, mark, colour, label in (
            (true, "o", "black", "true"),
            (first, "s", "white", "first guess"),
            (y, "x", LINES[1], "found"),
        ):
            ax.plot(
                points[:, plane[0]], points[:, plane[1]], mark, markersize=6, color=colour,
                markerfacecolor="none", markeredgewidth=1.5, label=label,
            )  # fmt: skip
        ax.set_aspect("equal")
    axes[0].legend(loc="upper left")
    figure.colorbar(image, ax=axes, shrink=0.8, label="direct sampling").outline.set_visible(False)
    return png(figure)
