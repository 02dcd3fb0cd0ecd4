"""The report of a kernel-inference case: a page, pictures of W, W' and the flows, numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse.interaction_kernels_atoms import Atom, potential
from fem_apps.inverse.interaction_kernels_data import gathered
from fem_apps.inverse.interaction_kernels_sharpen import Estimate
from fem_apps.inverse.interaction_kernels_verify import Comparison
from fem_apps.output.files import write_whole
from fem_apps.output.folder import Run

if TYPE_CHECKING:
    from fem_apps.inverse.interaction_kernels import Case
    from fem_apps.inverse.interaction_kernels_predict import Prediction

# Part of the pair distances within the radii of the report.
SEEN = 0.99


@dataclass(frozen=True)
class Report:
    """Everything that a report tells."""

    case: Case
    atoms: Sequence[Atom]
    names: Sequence[str]
    found: Estimate
    truth: np.ndarray | None
    distances: np.ndarray
    comparisons: Sequence[Comparison]
    prediction: Prediction | None

    @cached_property
    def radius(self) -> float:
        """End of the radii of errors and pictures."""
        wanted = self.case.output.radius
        return float(np.quantile(self.distances, SEEN)) if wanted is None else wanted

    def on_atoms(self, c: np.ndarray) -> np.ndarray:
        """Coefficients of the atoms, the truth's own one included, from those of all columns."""
        dictionary = sum(a.name != "truth" for a in self.atoms)
        return np.concatenate(
            [c[..., :dictionary], np.zeros((*c.shape[:-1], len(self.atoms) - dictionary))], axis=-1
        )

    @cached_property
    def explained(self) -> float:
        """-min cost / b.A^+ b: the part of the explicable dissipation that the support explains."""
        values, Q = np.linalg.eigh(self.found.form.A)
        good = values > 1e-9 * values[-1]
        whole = float((((Q.T @ self.found.form.b)[good]) ** 2 / values[good]).sum())
        c = self.found.c
        cost = float(c @ self.found.form.A @ c - 2 * self.found.form.b @ c)
        return -cost / whole if whole > 0 else 0.0


def write_report(run: Run, graph: NodeGraph, report: Report, metrics: dict[str, object]) -> None:
    """Write kernel.csv, report.md and the pictures. Collective."""
    sets = [_gather(graph, q) for q in report.comparisons]
    if run.comm.rank != 0:
        return
    r = np.linspace(0, report.radius, 401)[1:]
    curves = _curves(report, r)
    rows = np.column_stack([r, *curves.values()])
    header = ",".join(["r", *curves])
    text = "\n".join([header, *(",".join(f"{v:.10g}" for v in row) for row in rows)])
    write_whole(run.folder / "kernel.csv", (text + "\n").encode())
    drawn = _draw(run, report, r, curves, sets) if report.case.output.pictures else []
    write_whole(run.folder / "report.md", _page(report, metrics, drawn).encode())


def _draw(
    run: Run,
    report: Report,
    r: np.ndarray,
    curves: dict[str, np.ndarray],
    sets: Sequence[dict[str, Any]],
) -> list[str]:
    """Write the pictures that this case has; returns their names."""
    from fem_apps.inverse.interaction_kernels_report_particles import particles_figure
    from fem_apps.output.plot_style import png, style

    style()
    figures = {"kernel.png": _kernel_figure(report, r, curves)}
    p = report.prediction
    if sets:
        line = sets[0]["x"].shape[1] == 1
        figures["flow.png"] = _line_figure(report, sets) if line else _plane_figure(report, sets[0])
    elif p is not None and len(p.t):
        figures["flow.png"] = particles_figure(p)
    if "flow.png" in figures:
        figures["distance.png"] = _distance_figure(report)
    for name, figure in figures.items():
        write_whole(run.folder / name, png(figure))
    return list(figures)


def _gather(graph: NodeGraph, q: Comparison) -> dict[str, Any]:
    x = np.stack([gathered(graph, np.ascontiguousarray(c)) for c in graph.x.T], axis=1)
    out: dict[str, Any] = {"x": x, "t": q.t}
    for name, values in (("truth", q.truth), ("estimate", q.estimate), ("data", q.data)):
        out[name] = None if values is None else gathered(graph, values)
    return out


def _curves(report: Report, r: np.ndarray) -> dict[str, np.ndarray]:
    W, dW = potential(report.atoms, report.on_atoms(report.found.c))
    out = {"W": W(r), "dW": dW(r)}
    samples = report.on_atoms(report.found.selected.samples)
    if len(samples) > 4:
        slopes = np.array([a.slope(r) for a in report.atoms])
        spread = samples @ slopes
        # about the estimate: resamples are centred on data with more noise
        low, high = np.quantile(spread - spread.mean(axis=0), (0.025, 0.975), axis=0)
        out |= {"dW_low": out["dW"] + low, "dW_high": out["dW"] + high}
    if report.truth is not None:
        W, dW = potential(report.atoms, report.truth)
        out |= {"W_true": W(r), "dW_true": dW(r)}
    return out


def _page(report: Report, metrics: dict[str, object], pictures: Sequence[str]) -> str:
    found = report.found
    lines = [f"# {report.case.title or report.case.name}", ""]
    lines += ["| term | coefficient | spread | truth |", "|---|---|---|---|"]
    spread = found.selected.samples.std(axis=0) if len(found.selected.samples) > 1 else None
    shown = {int(i) for i in np.flatnonzero(found.c)}
    if report.truth is not None:
        shown |= {int(i) for i in np.flatnonzero(report.truth) if i < len(found.c)}
    for i in sorted(shown):
        truth = ""
        if report.truth is not None:
            truth = f"{report.truth[i]:.4g}" if i < len(report.truth) else ""
        s = f"{spread[i]:.2g}" if spread is not None else ""
        lines.append(f"| {report.names[i]} | {found.c[i]:.5g} | {s} | {truth} |")
    lines += ["", "## Supports", "", "| size | support | cost |", "|---|---|---|"]
    for f in found.selected.ladder[:6]:
        names = ", ".join(report.names[i] for i in f.support[:8])
        names += ", ..." if len(f.support) > 8 else ""
        lines.append(f"| {len(f.support)} | {names} | {f.cost:.8g} |")
    if found.selected.supports:
        lines += ["", "How often resampled noise chose which support:", ""]
        for support, n in found.selected.supports.most_common(5):
            lines.append(f"- {n}: {', '.join(report.names[i] for i in support)}")
    if found.gauges:
        lines += ["", "## What the data cannot tell", "", *(f"- {g}" for g in found.gauges)]
    lines += ["", "## Numbers", "", "```json", json.dumps(_plain(metrics), indent=2), "```", ""]
    lines += [f"![{n}]({n})" for n in pictures]
    return "\n".join(lines) + "\n"


def _plain(metrics: dict[str, object]) -> dict[str, object]:
    def one(v: object) -> object:
        if isinstance(v, float | np.floating):
            return float(f"{v:.6g}") if np.isfinite(v) else str(v)
        return v

    return {k: one(v) for k, v in metrics.items() if k != "coefficients"}


def _kernel_figure(report: Report, r: np.ndarray, curves: dict[str, np.ndarray]) -> Any:
    import matplotlib.pyplot as plt

    from fem_apps.output.plot_style import LINES

    figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.6), constrained_layout=True)
    for axis, name, label in ((axes[0], "W", "$W(r)$"), (axes[1], "dW", "$W'(r)$")):
        if f"{name}_true" in curves:
            axis.plot(r, curves[f"{name}_true"], color="0.6", lw=3, label="truth")
        axis.plot(r, curves[name], color=LINES[0], label="estimate")
        axis.set(xlabel="$r$", ylabel=label)
        span = np.concatenate([curves[k] for k in curves if k in (name, f"{name}_true")])
        low, high = np.quantile(span, (0.01, 0.99))
        axis.set_ylim(low - 0.25 * (high - low), high + 0.25 * (high - low))
    if "dW_low" in curves:
        axes[1].fill_between(
            r, curves["dW_low"], curves["dW_high"], color=LINES[0], alpha=0.25, lw=0, label="95 %"
        )
    twin = axes[1].twinx()
    d = report.distances
    twin.hist(d[(d > 0) & (d <= r[-1])], bins=20, color="0.85", density=True, zorder=0)
    twin.set_yticks([])
    twin.spines["right"].set_visible(False)
    axes[1].set_zorder(twin.get_zorder() + 1)
    axes[1].patch.set_visible(False)
    axes[1].legend(title="grey: pair distances", title_fontsize=7)
    axes[0].legend()
    return figure


def _line_figure(report: Report, sets: Sequence[dict[str, Any]]) -> Any:
    import matplotlib.pyplot as plt

    from fem_apps.output.plot_style import LINES, clock

    kept = range(len(sets)) if len(sets) < 5 else (0, 1, 2, len(sets) - 1)
    shown = [sets[k] for k in kept]
    figure, axes = plt.subplots(
        len(shown), 3, figsize=(6.8, 1.5 * len(shown) + 0.5), constrained_layout=True, squeeze=False
    )
    for row, q, k in zip(axes, shown, kept, strict=True):
        one = report.comparisons[k]
        for axis, n in zip(row, (0, len(q["t"]) // 2, len(q["t"]) - 1), strict=True):
            x = q["x"][:, 0]
            if q["data"] is not None:
                axis.plot(x, q["data"][n], ".", ms=2, color="0.65", label="data")
            if q["truth"] is not None:
                axis.plot(x, q["truth"][n], color=LINES[1], lw=2.2, label="truth")
            axis.plot(x, q["estimate"][n], color=LINES[0], lw=1, label="estimate")
            axis.set_title(f"{one.name}, {clock(float(q['t'][n]))}", fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("$x$")
    axes[0, 0].set_ylabel("density")
    axes[0, 0].legend(fontsize=6)
    return figure


def _plane_figure(report: Report, q: dict[str, Any]) -> Any:
    import matplotlib.pyplot as plt
    from matplotlib.tri import Triangulation

    from fem_apps.output.plot_style import SEQUENTIAL, clock

    names = [n for n in ("data", "truth", "estimate") if q[n] is not None]
    times = (0, len(q["t"]) // 2, len(q["t"]) - 1)
    figure, axes = plt.subplots(
        len(names), 3, figsize=(6.6, 2.0 * len(names)), constrained_layout=True, squeeze=False
    )
    mesh = Triangulation(q["x"][:, 0], q["x"][:, 1])
    for j, n in enumerate(times):
        top = max(float(q[k][n].max()) for k in ("estimate", "truth") if q[k] is not None)
        for row, name in zip(axes, names, strict=True):
            image = row[j].tripcolor(
                mesh, q[name][n], shading="gouraud", cmap=SEQUENTIAL, vmin=0, vmax=top
            )
            row[j].set_aspect("equal")
            row[j].set_title(f"{name}, {clock(float(q['t'][n]))}", fontsize=7)
        figure.colorbar(image, ax=axes[:, j], shrink=0.6, label="density" if j == 2 else None)
    return figure


def _distance_figure(report: Report) -> Any:
    import matplotlib.pyplot as plt

    from fem_apps.output.plot_style import LINES

    figure, axis = plt.subplots(figsize=(4.2, 2.8), constrained_layout=True)
    for k, q in enumerate(report.comparisons):
        colour = LINES[k % len(LINES)]
        if q.w2 is not None:
            axis.semilogy(q.t[1:], q.w2[1:], color=colour, label=f"$W_2$, {q.name}")
        if q.w2_bound is not None and np.isfinite(q.w2_bound).all():
            axis.semilogy(q.t[1:], q.w2_bound[1:], "--", color=colour, lw=0.9)
        if q.w2 is None and q.w2_data is not None:
            axis.semilogy(q.t[1:], q.w2_data[1:], color=colour, label=f"to the data, {q.name}")
    p = report.prediction
    if p is not None and len(p.w2):
        axis.plot(p.t, p.w2, color=LINES[0], label="predicted to seen")
        axis.plot(p.t, p.w2_still, "--", color="0.5", label="standing still to seen")
        if len(p.w2_noise):
            axis.plot(p.t, p.w2_noise, ":", color="0.5", label="two halves of those seen")
    axis.set(xlabel="$t$", ylabel="2-Wasserstein distance")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(
            fontsize=7,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            title="dashed: stability bound"
            if report.truth is not None and report.comparisons
            else None,
            title_fontsize=7,
        )
    return figure
