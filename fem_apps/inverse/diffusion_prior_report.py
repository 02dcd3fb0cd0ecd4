"""Metrics and pictures of a run of kind diffusion-prior, on one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from fem_apps.inverse.baselines import best_total_variation, lmmse, psnr, ssim
from fem_apps.inverse.image_pictures import Panel, panels
from fem_apps.inverse.operators_ct import fbp, parallel_beam

LEVEL = 0.9  # of the credible intervals


def interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 90 % interval of each pixel, shapes (images, chains, n) -> (images, n).

    Quantiles at p (M + 1) of M ordered samples: another draw of the same law lies between with
    probability 90 %, whatever the law.
    """
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=1, method="weibull")
    return low, high


def report(
    case: Any,
    folder: Path,
    A: Any,
    x: np.ndarray,
    y: np.ndarray,
    samples: np.ndarray,
    images: np.ndarray,
) -> dict[str, object]:
    """PSNR of the posterior mean and of the baselines, chi^2/m, coverage; pictures.

    Args:
        case: the case.
        folder: of the run.
        A: the operator.
        x: true images, (images, n).
        y: data, (images, m).
        samples: shape (images, chains, n).
        images: training images, for the LMMSE estimator.
    """
    mean = samples.mean(axis=1)
    gaussian = lmmse(A.dense, np.asarray(images, float), case.noise)
    linear = gaussian(y)
    fair, oracle = best_total_variation(sp.csr_matrix(A.dense), y, case.noise, x)
    low, high = interval(samples)
    r = (samples @ A.dense.T - y[:, None]) / case.noise
    half = 1.6448536 * gaussian.std
    metrics: dict[str, object] = {
        "psnr": float(psnr(mean, x).mean()),
        "psnr_sample": float(np.mean([psnr(s, x).mean() for s in samples.swapaxes(0, 1)])),
        "psnr_lmmse": float(psnr(linear, x).mean()),
        "psnr_tv": float(psnr(fair, x).mean()),
        "psnr_tv_oracle": float(psnr(oracle, x).mean()),
        "ssim": float(ssim(mean, x).mean()),
        "ssim_lmmse": float(ssim(linear, x).mean()),
        "ssim_tv": float(ssim(fair, x).mean()),
        "chi2": float((r * r).mean()),
        "chi2_mean": float((((mean @ A.dense.T - y) / case.noise) ** 2).mean()),
        "coverage": float(((x >= low) & (x <= high)).mean()),
        "interval_width": float((high - low).mean()),
        "coverage_lmmse": float((np.abs(x - linear) <= half).mean()),
        "interval_width_lmmse": float(2 * half.mean()),
        "network_calls": case.sampler.steps,
    }
    shown = [("truth", x)]
    if case.operator.type == "tomography":
        geometry = parallel_beam(case.operator.angles, case.operator.detectors)
        back = fbp(y, case.prior.size, geometry)
        metrics["psnr_fbp"] = float(psnr(back, x).mean())
        shown.append(("FBP", np.clip(back, x.min() - 0.3, x.max() + 0.3)))
    shown += [("TV", fair), ("LMMSE", linear), ("posterior mean", mean)]
    shown.append(("a sample", samples[:, 0]))
    if case.output.pictures:
        size = case.prior.size
        rows = []
        for i in range(min(3, len(x))):
            row = [
                Panel(name if i == 0 else "", found[i].reshape(size, size)) for name, found in shown
            ]
            std = samples[i].std(axis=0, ddof=1).reshape(size, size)
            row.append(Panel("std" if i == 0 else "", std, "std", "magma"))
            rows.append(row)
        panels(folder / "posterior.png", rows)
    return metrics
