"""`set.png`: true sets, the heads that approximate them, and the distances over the test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fem_apps.output.files import write_whole
from fem_apps.output.plot_style import LINES, png, style


def draw(folder: Path, title: str) -> None:
    """Draw from test.npz; on one rank."""
    import matplotlib.pyplot as plt

    style()
    with np.load(folder / "test.npz") as f:
        a = {key: f[key] for key in f.files}
    t, has_set = a["t"], len(a["low"]) > 0
    figure, axes = plt.subplots(1, 3, figsize=(8.3, 2.4), layout="constrained")
    for ax, k in zip(axes[:2], (0, 1), strict=True):
        if k >= len(a["heads"]):
            ax.set_visible(False)
            continue
        if has_set:
            ax.fill_between(t, a["low"][k], a["high"][k], alpha=0.2, label="null controls")
        for j, (head, label) in enumerate(zip(a["heads"][k], a["labels"][k], strict=True)):
            ax.plot(t, label, "k:", label="exact" if j == 0 else None)
            ax.plot(t, head, color=LINES[1 + j], lw=1, label=f"head {j + 1}")
        ax.set_xlabel("time")
        ax.set_title(f"unseen datum {k + 1}", loc="left")
    figure.suptitle(title, fontsize=9)
    axes[0].set_ylabel("control v")
    axes[0].legend(fontsize=6)
    if has_set:
        for name, label in (("", "network"), ("linear_", "linear least squares")):
            values = np.sort(np.maximum(a[f"{name}distance"], 1e-16))
            share = np.arange(1, len(values) + 1) / len(values)
            axes[2].semilogx(values, share, "-" if not name else "--", label=label)
        axes[2].set_xlabel("Hausdorff distance / half size of the set")
        axes[2].set_ylabel("share of unseen data")
        axes[2].legend(loc="upper left", fontsize=6)
    else:
        axes[2].set_visible(False)
    write_whole(folder / "set.png", png(figure))
