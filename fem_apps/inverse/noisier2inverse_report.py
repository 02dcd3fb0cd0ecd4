"""Metrics and pictures of a run of kind noisier2inverse, on one rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from fem_apps.inverse.baselines import best_total_variation, lmmse, psnr, ssim
from fem_apps.inverse.image_pictures import Panel, panels
from fem_apps.inverse.noisier2inverse_losses import Setting

FLOOR = 0.01  # share of the noise's variance that LMMSE takes as white


def report(
    case: Any,
    run: Any,
    s: Setting,
    data: dict[str, tuple[np.ndarray, np.ndarray]],
    images: dict[str, np.ndarray],
) -> dict[str, Any]:
    """PSNR, SSIM and errors in data space of every method; adds the baselines to `images`.

    `psnr` is that of f(B y); `..._mean` that of the mean over f(B(y + eta_k)).
    """
    y, x = (np.asarray(a, float) for a in data["test"])
    A = np.asarray(s.A, float)
    linear = "fbp" if case.sensors is None else "tikhonov"
    images[linear] = y @ np.asarray(s.B, float).T
    images["tv"], images["tv, oracle"] = best_total_variation(
        sp.csr_matrix(A), y, case.noise.intensity, x
    )
    # filtered noise is numerically singular, and pixels are not ellipses: a white floor
    Sigma = (1 - FLOOR) * s.noise.covariance + FLOOR * s.noise.intensity**2 * np.eye(len(A))
    estimator = lmmse(A, np.asarray(data["train"][1], float), Sigma)
    images["lmmse, clean images"] = estimator(y)
    clean = x @ A.T
    table: dict[str, dict[str, float]] = {}
    for name, found in images.items():
        table[name] = {
            "psnr": float(psnr(found, x).mean()),
            "ssim": float(ssim(found, x).mean()),
            "data_rmse": float(np.sqrt(((found @ A.T - clean) ** 2).mean())),
        }
    metrics: dict[str, Any] = {
        "psnr": table["noisier2inverse"]["psnr"],
        "psnr_mean": table["noisier2inverse, mean"]["psnr"],
        "psnr_tv": table["tv"]["psnr"],
        "psnr_tv_oracle": table["tv, oracle"]["psnr"],
        "psnr_lmmse": table["lmmse, clean images"]["psnr"],
        f"psnr_{linear}": table[linear]["psnr"],
        "ssim": table["noisier2inverse"]["ssim"],
        **residual_law(images["noisier2inverse"] @ A.T - y, s),
    }
    for name in case.methods:
        if name != "noisier2inverse":
            metrics[f"psnr_{name.replace('-', '_')}"] = table[name]["psnr"]
    metrics["table"] = table
    if case.output.pictures:
        shape = (s.size, s.size)
        title = {"fbp": "FBP", "tikhonov": "Tikhonov"}[linear]
        shown = [("truth", x), (title, images[linear]), ("TV", images["tv"])]
        shown += [(name, images[name]) for name in case.methods]
        rows = [
            [Panel(name if k == 0 else "", found[k].reshape(shape)) for name, found in shown]
            for k in range(min(3, len(x)))
        ]
        panels(run.folder / "reconstructions.png", rows)
    return metrics


def residual_law(residual: np.ndarray, s: Setting) -> dict[str, float]:
    """How far A f - y looks like the noise: 1 where A f = A x.

    Its variance, and its covariance with the next detector, over those of the law.
    """
    K, J = s.shape
    r = residual.reshape(-1, K, J)
    Sigma = s.noise.covariance.reshape(K, J, K, J)
    middle = Sigma[K // 2, J // 2]
    lag = float(middle[K // 2, J // 2 + 1])
    variance = float(middle[K // 2, J // 2])
    ratio = {"residual_variance": float((r * r).mean()) / variance}
    if lag > 1e-12 * variance:
        ratio["residual_lag"] = float((r[:, :, 1:] * r[:, :, :-1]).mean()) / lag
    return ratio
