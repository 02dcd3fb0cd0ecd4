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


def sweep_errors(path: Path, rates: dict[str, float]) -> bytes:
    """Share of parameters with a larger error, and time a parameter, as PNG.

    Args:
        path: `sweep.csv` of a strassen-network run.
        rates: parameters a second of processor time, by method.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    style()
    t = read_history(path)
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.2, 2.5), layout="constrained")
    for key, label, mark in (
        ("error_network", "network", "-"),
        ("error_reduced", "reduced basis", ":"),
        ("bound", "its bound", "--"),
    ):
        e = np.sort(t[key])[::-1]
        left.loglog(e, np.arange(1, len(e) + 1) / len(e), mark, label=label)
    left.set(xlabel=r"$e$, relative to $\|u_h\|_X$", ylabel=r"share of $\mu$ with error $\geq e$")
    left.legend()
    names = list(rates)
    right.barh(names, [1 / rates[n] for n in names], height=0.5)
    right.set(xscale="log", xlabel="processor time a parameter, s")
    right.invert_yaxis()
    return png(figure)
