"""`control.png`: the control, how conjugate gradients converged, and members of the set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fem_apps.control.null_control_set import ControlSet
from fem_apps.output.history import read_history
from fem_apps.output.plot_style import DIVERGING, LINES, png, style

NAMES = {"l2": "least L2", "linf": "least max", "l1": "least L1", "smooth": "smoothest"}


def control(folder: Path, title: str, whole: ControlSet | None) -> bytes:
    """The picture, as PNG, from control.npz, convergence.csv and history.csv."""
    import matplotlib.pyplot as plt

    style()
    with np.load(folder / "control.npz") as f:
        t, x, v = f["t"], f["x"], f["v"]
    single = whole is not None and whole.least.shape[1] == 1
    figure, axes = plt.subplots(
        1, 3 if single else 2, figsize=(8.3 if single else 5.8, 2.3), layout="constrained"
    )
    ax = axes[0]
    if v.shape[1] == 1:
        ax.plot(t, v[:, 0])
        ax.set_ylabel("control v")
    elif x.shape[1] == 1:
        top = np.abs(v).max() or 1.0
        image = ax.pcolormesh(t, x[:, 0], v.T, cmap=DIVERGING, vmin=-top, vmax=top, rasterized=True)
        figure.colorbar(image, ax=ax, label="control v")
        ax.set_ylabel("x")
    else:
        h = read_history(folder / "history.csv")
        ax.plot(h["time"], h["control_norm"])
        ax.set_ylabel("|v(t)|")
    ax.set_xlabel("time")
    ax.set_title(title, loc="left")
    rows = read_history(folder / "convergence.csv")
    axes[1].semilogy(rows["step"], rows["residual"], ".-", color=LINES[1])
    axes[1].set_xlabel("iteration")
    axes[1].set_ylabel("relative residual")
    axes[1].set_title("conjugate gradients", loc="left")
    if single and whole is not None:
        middle = (whole.edges[:-1] + whole.edges[1:]) / 2
        for (name, label), how in zip(NAMES.items(), ("-", "--", "-.", ":"), strict=True):
            axes[2].plot(middle, whole.selector(name)[:, 0], how, label=label)
        axes[2].set_xlabel("time")
        axes[2].set_title(f"null controls, {whole.dimension} free direction(s)", loc="left")
        axes[2].legend()
    return png(figure)
