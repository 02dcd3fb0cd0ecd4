"""Pictures of reduced bases and of the networks beside them."""

from __future__ import annotations

from typing import Any

from fem_apps.output.plot_style import png, style


def convergence(table: list[dict[str, Any]]) -> bytes:
    """Error and bound against N, and effectivities, as PNG."""
    import matplotlib.pyplot as plt

    style()
    n = [row["size"] for row in table]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.2, 2.5), layout="constrained")
    for key, label, mark in (
        ("bound_max", "largest bound", "--"),
        ("reduced_error_max", "largest error", "-"),
        ("reduced_error_mean", "mean error", ":"),
    ):
        left.semilogy(n, [row[key] for row in table], mark, label=label)
    left.set(xlabel="basis size $N$", ylabel=r"relative to $\|u\|_X$")
    left.legend()
    low, high = ([row[f"effectivity_{k}"] for row in table] for k in ("min", "max"))
    right.fill_between(n, low, high, alpha=0.25, linewidth=0)
    right.plot(n, [row["effectivity_mean"] for row in table])
    right.axhline(1.0, color="0.5", linewidth=0.7)
    right.set(xlabel="basis size $N$", ylabel=r"bound / error (range, mean)", ylim=(0, None))
    return png(figure)
