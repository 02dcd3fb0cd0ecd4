"""Pictures of the statics: bifurcation diagram, states of the branch, porous state, minimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.output.files import write_whole
from fem_apps.output.plot_style import LINES, png, style


def draw(folder: Path, pictures: dict[str, Any]) -> None:
    """Write bifurcation.png and states.png; porous.png and minimiser.png where there are any."""
    style()
    write_whole(folder / "bifurcation.png", diagram(pictures["branch"], pictures["transition"]))
    write_whole(folder / "states.png", states(pictures["branch"]))
    if "porous" in pictures:
        write_whole(folder / "porous.png", porous(pictures["porous"]))
    if pictures.get("minimiser") is not None and pictures["minimiser"].points.shape[1] == 2:
        write_whole(folder / "minimiser.png", minimiser(pictures["minimiser"]))


def diagram(branch: Any, change: Any) -> bytes:
    """Order parameter and free energy against the noise, the unstable part dashed."""
    import matplotlib.pyplot as plt

    with_energy = np.isfinite(branch.energy).all()
    figure, axes = plt.subplots(
        1,
        1 + with_energy,
        figsize=(3.6 * (1 + with_energy), 2.8),
        layout="constrained",
        squeeze=False,
    )
    m, kappa = np.r_[0.0, branch.m], np.r_[change.kappa_1, branch.kappa]
    top = int(np.argmax(kappa))
    low, high = kappa.min(), kappa.max()
    low, high = max(low, 0.6 * change.kappa_1), high + 0.15 * (high - 0.6 * change.kappa_1)
    for k, (ax, y, at_zero) in enumerate(
        zip(axes[0], (m, np.r_[0.0, branch.energy]), (0.0, 0.0), strict=False)
    ):
        ax.plot([change.kappa_1, high], [at_zero] * 2, color=LINES[6], label="uniform")
        ax.plot([low, change.kappa_1], [at_zero] * 2, color=LINES[6], ls="--")
        ax.plot(kappa[top:], y[top:], color=LINES[0], label="clustered, stable")
        if top:
            ax.plot(kappa[: top + 1], y[: top + 1], color=LINES[1], ls="--", label="unstable")
        ax.axvline(change.kappa_1, color="0.7", lw=0.8, ls=":")
        ax.text(change.kappa_1, ax.get_ylim()[1], r"$\kappa_1$", ha="center", va="bottom")
        if not change.continuous and np.isfinite(change.kappa_c):
            ax.axvline(change.kappa_c, color="0.7", lw=0.8, ls=":")
            ax.text(change.kappa_c, ax.get_ylim()[1], r"$\kappa_c$", ha="center", va="bottom")
        ax.set_xlim(low, high)
        ax.set_xlabel(r"noise $\kappa$")
        if k == 0:
            ax.set_ylabel(r"order parameter $|\int x\rho|$")
            ax.legend(loc="lower left")
        else:
            seen = y[kappa > low]
            ax.set_ylim(min(seen.min(), 0) * 1.05, max(seen.max(), 0) + 0.1 * np.ptp(seen))
            ax.set_ylabel(r"$F - F$(uniform)")
    return png(figure)


def states(branch: Any) -> bytes:
    """Densities along the branch."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(3.8, 2.8), layout="constrained")
    t = np.linspace(-1, 1, 400)
    norm = mpl.colors.Normalize(0, branch.m[-1])
    for i in np.linspace(0, len(branch.m) - 1, 7).round().astype(int):
        ax.plot(t, branch.density(i, t), color=mpl.colormaps["viridis"](norm(branch.m[i])))
    ax.set_yscale("log")
    ax.set_ylim(bottom=1e-4)
    ax.set_xlabel(r"$x\cdot e$")
    ax.set_ylabel(r"density with respect to $\sigma$")
    figure.colorbar(mpl.cm.ScalarMappable(norm, "viridis"), ax=ax, label=r"$|\int x\rho|$")
    return png(figure)


def porous(state: Any) -> bytes:
    """The density beyond the porous-medium transition."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(3.4, 2.6), layout="constrained")
    order = np.argsort(state.t)
    ax.plot(state.t[order], state.density[order])
    ax.set_xlabel(r"$x\cdot e$")
    ax.set_ylabel(r"density with respect to $\sigma$")
    ax.set_title(f"m = {state.m:.4f}, support {state.support:.3f}")
    return png(figure)


def minimiser(found: Any) -> bytes:
    """Atoms of the minimiser on the circle."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(2.8, 2.8), layout="constrained")
    s = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(s), np.sin(s), color="0.85", lw=0.8)
    size = 400 * found.weights / found.weights.max()
    ax.scatter(found.points[:, 0], found.points[:, 1], s=size, color=LINES[0], alpha=0.6)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title(f"E = {found.energy:.6f}")
    return png(figure)
