"""Pictures of the Gaussian closure: covariances in time, their cone, rank histograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.output.files import write_whole
from fem_apps.output.plot_style import LINES, png, style


def draw(folder: Path, flow: Any, portrait: Any, ranks: Any) -> None:
    """Write covariance.png; portrait.png and ranks.png where there is something to show."""
    style()
    write_whole(folder / "covariance.png", covariance(flow))
    if portrait is not None:
        write_whole(folder / "portrait.png", cone(portrait))
    if ranks is not None:
        write_whole(folder / "ranks.png", histogram(ranks))


def covariance(flow: Any) -> bytes:
    """Eigenvalues of Sigma against time; a blow-up is marked."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(4.2, 2.8), layout="constrained")
    values = np.linalg.eigvalsh(flow.sigma)
    for k in range(values.shape[1]):
        ax.plot(flow.t, np.maximum(values[:, -1 - k], 1e-16), label=rf"$\lambda_{k + 1}$")
    ax.set_yscale("log")
    ax.set_ylim(max(values[values > 0].min() / 3, 1e-10), values.max() * 3)
    if flow.blow_up_time is not None:
        ax.axvline(flow.blow_up_time, color="0.5", ls=":")
        ax.set_ylim(top=1e6)
        ax.set_title(f"blow-up at t = {flow.blow_up_time:.6g}")
    elif flow.t[-1] > 100:
        ax.set_xscale("symlog", linthresh=1)
    ax.set_xlabel("time")
    ax.set_ylabel(r"eigenvalues of $\Sigma$")
    if values.shape[1] <= 8:
        ax.legend()
    return png(figure)


def cone(portrait: list[tuple[str, Any]]) -> bytes:
    """Trajectories of 2 x 2 covariances in (a - b, 2c), over the trace: inside the unit disc."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
    s = np.linspace(0, 2 * np.pi, 300)
    ax.plot(np.cos(s), np.sin(s), color="0.3", lw=0.8)
    for how, flow in portrait:
        trace = np.trace(flow.sigma, axis1=1, axis2=2)
        shape = flow.sigma / trace[:, None, None]
        u, v = shape[:, 0, 0] - shape[:, 1, 1], 2 * shape[:, 0, 1]
        colour = LINES[0] if how == "converged" else LINES[1]
        ax.plot(u, v, color=colour, lw=0.5, alpha=0.6)
        ax.plot(u[-1], v[-1], "o", color=colour, ms=2.5)
    for name, colour in (("converged", LINES[0]), ("diverged", LINES[1])):
        if any(how == name for how, _ in portrait):
            ax.plot([], [], color=colour, label=name)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    ax.set_aspect("equal")
    ax.set_xlabel(r"$(\Sigma_{11} - \Sigma_{22})$ / tr $\Sigma$")
    ax.set_ylabel(r"$2\Sigma_{12}$ / tr $\Sigma$")
    return png(figure)


def histogram(ranks: dict[str, Any]) -> bytes:
    """Counts of limit ranks for each dimension."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(ranks), figsize=(2.0 * len(ranks), 2.4), layout="constrained", squeeze=False
    )
    for ax, (name, counts) in zip(axes[0], ranks.items(), strict=True):
        euler = name.endswith("euler")
        ax.bar(range(len(counts)), counts, color=LINES[1 if euler else 0])
        if euler:
            ax.set_xticks(range(len(counts)), [*map(str, range(len(counts) - 1)), "fail"])
        ax.set_title(f"d = {name}")
        ax.set_xlabel("rank of the limit")
    axes[0, 0].set_ylabel("draws")
    return png(figure)
