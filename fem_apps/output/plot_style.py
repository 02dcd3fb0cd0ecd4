"""The look of all pictures: sizes and colours that a paper can print."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

# Wong (2011), Nature Methods 8, 441: told apart by colour-blind readers, and in this order in grey.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
DPI = 200


def style() -> None:
    """Set matplotlib's defaults."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.7,
            "axes.formatter.limits": (-3, 4),
            "axes.formatter.use_mathtext": True,
            "axes.prop_cycle": cycler(color=LINES),
            "lines.linewidth": 1.3,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "savefig.dpi": DPI,
            "figure.dpi": DPI,
        }
    )


def png(figure: Any) -> bytes:
    """The figure as a PNG file, cropped to its content; the figure is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.04)
    plt.close(figure)
    return buffer.getvalue()


def colours(values: np.ndarray) -> tuple[str, tuple[float, float]]:
    """Colour map and limits: diverging about 0 where both signs matter, sequential elsewhere."""
    low, high = float(values.min()), float(values.max())
    size = max(-low, high)
    if low < 0 < high and min(-low, high) > 0.2 * size:
        return DIVERGING, (-size, size)
    if high - low <= 1e-6 * abs(high):  # float32 rounding of a constant
        margin = 0.01 * abs(high) or 1.0
        low, high = low - margin, high + margin
    elif 0 <= low < 0.05 * high:
        low = 0.0
    return SEQUENTIAL, (low, high)


def clock(t: float) -> str:
    """A time as a title."""
    return f"$t = {t:.3g}$" if 1e-3 <= abs(t) < 1e4 or t == 0 else f"$t = {_power(t)}$"


def _power(t: float) -> str:
    mantissa, exponent = f"{t:.2e}".split("e")
    return rf"{float(mantissa):g}\times 10^{{{int(exponent)}}}"
