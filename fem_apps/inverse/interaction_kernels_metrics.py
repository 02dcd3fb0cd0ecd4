"""The metrics of a kernel-inference case, its history, and its report."""

from __future__ import annotations

import numpy as np

from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse.interaction_kernels_predict import Prediction
from fem_apps.inverse.interaction_kernels_report import Report, write_report
from fem_apps.inverse.interaction_kernels_verify import kernel_error, largest
from fem_apps.output.folder import Run
from fem_apps.output.history import History


def finish(run: Run, graph: NodeGraph, report: Report) -> dict[str, object]:
    """Write the history and the report; returns the metrics. Collective."""
    found, truth, atoms, case = report.found, report.truth, report.atoms, report.case
    radius = report.radius
    metrics: dict[str, object] = {
        "kernel_error": None,
        "kernel_error_weighted": None,
        "kernel_error_functional": None,
        "support_exact": None,
        "support": [report.names[i] for i in found.selected.fit.support],
        "coefficients": {report.names[int(i)]: float(found.c[i]) for i in np.flatnonzero(found.c)},
        "stability": found.selected.stability,
        "noise": found.noise,
        "radius": radius,
        "explained_share": report.explained,
        "condition": float(np.linalg.cond(found.form.A)),
    }
    if found.regularisation is not None:
        metrics["regularisation"] = found.regularisation
    if found.sigma is not None:
        metrics["sigma"] = found.sigma
    if truth is not None:
        c, first = report.on_atoms(found.c), report.on_atoms(found.functional.c)
        e = kernel_error(atoms, c, truth, radius, report.distances)
        before = kernel_error(atoms, first, truth, radius, report.distances)
        metrics["kernel_error"], metrics["kernel_error_weighted"] = e.plain, e.weighted
        metrics["kernel_error_functional"] = before.plain
        metrics["support_exact"] = bool(set(np.flatnonzero(c)) == set(np.flatnonzero(truth)))
    trained = [q for q in report.comparisons if q.data is not None]
    new = [q for q in report.comparisons if q.data is None]
    comm = run.comm
    metrics["w2_max"] = largest(comm, [q.w2 for q in trained])
    metrics["w2_bound"] = largest(comm, [q.w2_bound for q in trained])
    metrics["w2_plain"] = largest(comm, [q.w2_plain for q in trained])
    metrics["w2_data"] = largest(comm, [q.w2_data for q in trained])
    metrics["w2_noise"] = largest(comm, [q.w2_noise for q in trained])
    # flows are known to the solver's tolerance only
    metrics["bound_holds"] = (
        None
        if truth is None or not report.comparisons
        else all(
            bool((q.w2 <= q.w2_bound + case.verify.tolerance).all())
            for q in report.comparisons
            if q.w2 is not None and q.w2_bound is not None
        )
    )
    if new:
        metrics["w2_new"] = largest(comm, [q.w2 for q in new])
        metrics["w2_new_bound"] = largest(comm, [q.w2_bound for q in new])
    if any("truth" in q.energy for q in report.comparisons):
        metrics["energy_error"] = largest(
            comm,
            [
                q.energy["estimate"] - q.energy["truth"]
                for q in report.comparisons
                if "truth" in q.energy
            ]
            + [
                q.energy["truth"] - q.energy["estimate"]
                for q in report.comparisons
                if "truth" in q.energy
            ],
        )
    prediction: Prediction | None = report.prediction
    if prediction is not None:
        metrics |= prediction.metrics()
    with History(comm, run.folder / "history.csv") as history:
        for q in report.comparisons[:1]:
            for n, t in enumerate(q.t):
                history.write(
                    {
                        "time": t,
                        "step": n,
                        **{
                            k: float(v[n]) if v is not None else None
                            for k, v in (
                                ("w2", q.w2),
                                ("w2_bound", q.w2_bound),
                                ("w2_plain", q.w2_plain),
                                ("w2_data", q.w2_data),
                            )
                        },
                        "energy": float(q.energy["estimate"][n]),
                    }
                )
    with run.phase("report"):
        write_report(run, graph, report, metrics)
    run.progress.update(1.0, "done")
    return metrics
