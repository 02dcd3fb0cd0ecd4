"""Pictures of network sizes."""

from __future__ import annotations

from pathlib import Path

from fem_apps.output.history import read_history
from fem_apps.output.plot_style import png, style


def accuracies(path: Path) -> bytes:
    """Weights and layers against epsilon, as PNG."""
    import matplotlib.pyplot as plt

    style()
    t = read_history(path)
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.2, 2.5), layout="constrained")
    left.loglog(t["epsilon"], t["strassen"], "o-", markersize=3, label="Strassen")
    left.loglog(t["epsilon"], t["naive"], "s--", markersize=3, label="products as they are")
    left.set(xlabel=r"accuracy $\varepsilon$", ylabel="weights (without the basis)")
    left.legend()
    right.semilogx(t["epsilon"], t["layers"], "o-", markersize=3)
    right.set(xlabel=r"accuracy $\varepsilon$", ylabel="layers")
    for ax in (left, right):
        ax.invert_xaxis()
    return png(figure)
