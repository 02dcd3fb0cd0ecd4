"""What a run of kind bayesian-inverse writes: history, arrays, fields, pictures. On one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from dolfinx import fem
from mpi4py import MPI

from fem_apps.inverse.bayesian_posterior import Laplace, Mode
from fem_apps.inverse.bayesian_problems import Setting
from fem_apps.inverse.image_pictures import Panel, panels
from fem_apps.output.fields import FieldWriter
from fem_apps.output.files import npz, write_whole
from fem_apps.output.history import History


def write_mode(
    case: Any,
    folder: Path,
    setting: Setting,
    mode: Mode,
    approximation: Laplace,
    draws: np.ndarray | None,
    samples: np.ndarray | None,
) -> None:
    """Write history.csv (of the Newton iteration), posterior.npz, fields and pictures."""
    with History(MPI.COMM_SELF, folder / "history.csv") as history:
        for k, (cost, norm) in enumerate(mode.history):
            history.write({"step": k, "cost": cost, "gradient_norm": norm})
    arrays = {
        "mode": mode.m,
        "data": setting.posterior.data,
        "laplace_std": np.sqrt(np.diag(approximation.covariance)),
        "eigenvalues": approximation.eigenvalues,
    }
    if setting.truth is not None:
        arrays["truth"] = setting.truth
    if draws is not None:
        arrays |= {"draws": draws, "mean": draws.mean(axis=(0, 1)), "std": draws.std(axis=(0, 1))}
    if samples is not None:
        arrays |= {"samples": samples, "samples_mean": samples.mean(axis=0)}
        arrays["samples_std"] = samples.std(axis=0, ddof=1)
    write_whole(folder / "posterior.npz", npz(arrays))
    if case.output.fields:
        _write_fields(folder, setting, mode)
    if case.output.pictures:
        _draw(folder, setting, arrays)


def _write_fields(folder: Path, setting: Setting, mode: Mode) -> None:
    model: Any = setting.posterior.model
    V = model.stiffness.V
    u = fem.Function(V, name="state")
    at = model.at(mode.m)
    u.x.array[:] = at.state
    conductivity = fem.Function(fem.functionspace(V.mesh, ("DG", 0)), name="conductivity")
    conductivity.x.array[:] = at.kappa
    writer = FieldWriter(MPI.COMM_SELF, folder, [u, conductivity])
    writer.write(0.0)
    writer.close()


def _draw(folder: Path, setting: Setting, arrays: dict[str, np.ndarray]) -> None:
    rows = []
    first = [] if setting.truth is None else [Panel("truth", setting.image(setting.truth))]
    first.append(Panel("mode", setting.image(arrays["mode"])))
    if "mean" in arrays:
        first.append(Panel("posterior mean", setting.image(arrays["mean"])))
    if "samples" in arrays:
        first.append(Panel("diffusion: mean", setting.image(arrays["samples_mean"])))
        first.append(Panel("a sample", setting.image(arrays["samples"][0])))
    rows.append(first)
    second = [Panel("std, Laplace", setting.image(arrays["laplace_std"]), "std", "magma")]
    if "std" in arrays:
        second.append(Panel("std, chains", setting.image(arrays["std"]), "std", "magma"))
    if "samples" in arrays:
        std = setting.image(arrays["samples_std"])
        second.append(Panel("std, diffusion", std, "std", "magma"))
    rows.append(second)
    panels(folder / "posterior.png", rows, "log-conductivity")
