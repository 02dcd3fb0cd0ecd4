"""Pictures of particles: those seen beside those that the estimate predicts from the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fem_apps.inverse.interaction_kernels_predict import Prediction

# Most particles drawn in the plane; intervals of a histogram on the line.
DRAWN, INTERVALS = 2000, 40


def particles_figure(p: Prediction) -> Any:
    """First, middle and last time."""
    times = (0, len(p.t) // 2, len(p.t) - 1)
    return _line(p, times) if p.path[0].shape[1] == 1 else _plane(p, times)


def _line(p: Prediction, times: tuple[int, ...]) -> Any:
    import matplotlib.pyplot as plt

    from fem_apps.output.plot_style import LINES, clock

    figure, axes = plt.subplots(1, 3, figsize=(6.8, 2.0), constrained_layout=True, sharex=True)
    every = np.concatenate([q for n in times for q in (p.seen[n], p.path[n])])
    edges = np.linspace(every.min(), every.max(), INTERVALS + 1)
    for axis, n in zip(axes, times, strict=True):
        axis.hist(p.seen[n][:, 0], edges, density=True, color="0.8", label="seen")
        axis.hist(
            p.path[n][:, 0], edges, density=True, histtype="step", color=LINES[0], label="predicted"
        )
        axis.set_title(clock(float(p.t[n])), fontsize=7)
        axis.set_xlabel("$x$")
    axes[0].set_ylabel("density")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=6, loc="outside right center")
    return figure


def _plane(p: Prediction, times: tuple[int, ...]) -> Any:
    import matplotlib.pyplot as plt

    from fem_apps.output.plot_style import LINES, clock

    figure, axes = plt.subplots(
        2, 3, figsize=(6.6, 4.4), constrained_layout=True, sharex=True, sharey=True
    )
    for row, name, sets, colour in zip(
        axes, ("seen", "predicted"), (p.seen, p.path), ("0.4", LINES[0]), strict=True
    ):
        for axis, n in zip(row, times, strict=True):
            x = sets[n][:: max(1, len(sets[n]) // DRAWN)]
            axis.plot(x[:, 0], x[:, 1], ".", ms=1, color=colour, rasterized=True)
            axis.set_aspect("equal")
            axis.set_title(f"{name}, {clock(float(p.t[n]))}", fontsize=7)
    return figure
