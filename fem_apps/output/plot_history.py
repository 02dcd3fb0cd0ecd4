"""`history.png`: the columns of a history against time, like with like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.history import read_history
from fem_apps.output.plot_style import png, style

# what a history is drawn against, the first that it has
TIME = ("time", "t", "step")
NOT_SHOWN = set(TIME)
MAX_PANELS = 9


@dataclass
class _Panel:
    title: str
    lines: dict[str, np.ndarray]
    log: bool = False
    order: int = 9


def history(path: Path) -> bytes | None:
    """The picture, as PNG.

    Raises:
        CaseError: no history, without a time, or shorter than two rows.
    """
    import matplotlib.pyplot as plt

    columns = read_history(path)
    name = next((key for key in TIME if key in columns), None)
    if name is None or len(columns[name]) < 2:
        raise CaseError(f"{path.name} has no two rows with a time")
    style()
    t = columns[name]
    panels = _panels(columns)
    if not panels:
        raise CaseError(f"{path.name} has nothing to show but the time")
    rows = -(-len(panels) // 3)
    width = -(-len(panels) // rows)
    figure, axes = plt.subplots(
        rows,
        width,
        figsize=(2.75 * width, 2.15 * rows),
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    for panel, ax in zip(panels, axes.ravel(), strict=False):
        _draw(ax, t, panel)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_visible(False)
    for j in range(width):
        lowest = [ax for ax in axes[:, j] if ax.get_visible()][-1]
        lowest.set_xlabel("time" if name == "t" else name)
        lowest.tick_params(labelbottom=True)
    return png(figure)


def _draw(ax: Any, t: np.ndarray, panel: _Panel) -> None:
    styles = ("-", "--", "-.", ":")
    for i, (label, y) in enumerate(panel.lines.items()):
        shown = np.isfinite(y) & (y > 0 if panel.log else True)
        ax.plot(t[shown], y[shown], styles[i % 4], label=label.replace("_", " "))
    ax.set_title(panel.title, loc="left")
    if panel.log:
        ax.set_yscale("log")
    else:
        whole = all((y[np.isfinite(y)] % 1 == 0).all() for y in panel.lines.values())
        ax.yaxis.get_major_locator().set_params(integer=whole)
        ax.ticklabel_format(axis="y", useOffset=False)
    if len(panel.lines) > 1:
        ax.legend(handlelength=1.6, borderaxespad=0.2)
    ax.margins(x=0.01)


def _panels(columns: dict[str, np.ndarray]) -> list[_Panel]:
    """Columns in groups: energies, mass drift, extremes; the rest one by one."""
    number = {
        key: y
        for key, y in columns.items()
        if key not in NOT_SHOWN and y.dtype.kind == "f" and np.isfinite(y).any()
    }
    panels = []
    energies = [key for key in number if "energy" in key and not key.endswith("_increase")]
    if energies:
        panels.append(_Panel("energy", _take(number, energies[:4]), order=0))
        for key in energies[4:]:
            number.pop(key)
    if "mass_drift" in number:
        number.pop("mass", None)
        drift = np.abs(number.pop("mass_drift"))
        panels.append(_mass(drift))
    elif "mass" in number and number["mass"][0] != 0:
        mass = number.pop("mass")
        panels.append(_mass(np.abs(mass / mass[0] - 1)))
    extremes = [key for key in number if key.split("_")[0] in ("min", "max")]
    if extremes:
        panels.append(_Panel("extremes", _take(number, extremes[:4]), order=2))
    panels += [_Panel(key.replace("_", " "), {key: number[key]}) for key in number]
    for panel in panels:
        panel.log = panel.log or _wide(panel.lines)
    return sorted(panels, key=lambda p: p.order)[:MAX_PANELS]


def _mass(drift: np.ndarray) -> _Panel:
    title = "relative mass drift"
    if not (drift > 0).any():
        return _Panel(f"{title} (none)", {"mass": drift}, order=1)
    # no drift at all in a step is shown at the rounding unit
    return _Panel(title, {"mass": np.maximum(drift, np.finfo(float).eps / 2)}, log=True, order=1)


def _take(number: dict[str, np.ndarray], keys: list[str]) -> dict[str, np.ndarray]:
    return {key: number.pop(key) for key in keys}


def _wide(lines: dict[str, np.ndarray]) -> bool:
    """Whether all lines are positive and together span more than three decades."""
    y = np.concatenate([line[np.isfinite(line)] for line in lines.values()])
    return bool(y.size and y.min() > 0 and y.max() > 1e3 * y.min())
