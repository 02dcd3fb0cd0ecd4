"""A trained diffusion model as the prior of a finite-element problem, against MAP and chains.

    y = F(offset + factor x) + n,   x an image of the trained family, n ~ N(0, s_n^2 I)

F is seen by JAX through a custom derivative that calls the adjoint solve (`operators.from_model`).
Samples are drawn in groups of fixed members, which the ranks share: what is drawn does not depend
on their number, not even by rounding.
"""

from __future__ import annotations

import csv
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.inverse.baselines import psnr
from fem_apps.inverse.bayesian import Case, Diffusion
from fem_apps.inverse.bayesian_problems import Setting
from fem_apps.inverse.diffusion_prior import make_sampler, shared_denoiser
from fem_apps.inverse.diffusion_prior_report import interval
from fem_apps.inverse.interaction_kernels_kept import Kept
from fem_apps.inverse.operators import Operator, from_model
from fem_apps.mpi import same_error
from fem_apps.output.files import write_whole

GROUP = 10  # samples that are drawn together
MARGIN = 0.25  # beyond the trained images' values, in units of their range
THINNED = 200  # draws of the chains whose chi^2 is taken


def image_operator(
    setting: Setting, offset: float, factor: float, low: float, high: float
) -> Operator:
    """The map x -> F(offset + factor x) of flat images; pixels outside the domain have no effect.

    Values are clamped to [low, high], where they have no effect either: a guided step may leave
    the images so far that a conductivity overflows.
    """
    model, inside = setting.posterior.model, setting.inside
    n = setting.cell_image.size

    @lru_cache(maxsize=2 * GROUP)
    def at(image: bytes) -> tuple[Any, np.ndarray]:
        x = np.frombuffer(image)[inside]
        slope = factor * ((x > low) & (x < high))
        return model.at(offset + factor * np.clip(x, low, high)), slope

    def spread(columns: np.ndarray) -> np.ndarray:
        out = np.zeros((*columns.shape[:-1], n))
        out[..., inside] = columns
        return out

    def vjp(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        F, slope = at(x.tobytes())
        return spread(slope * F.vjp(w))

    def jacobian(x: np.ndarray) -> np.ndarray:
        F, slope = at(x.tobytes())
        return spread(slope * F.jacobian())

    shape = (len(setting.posterior.data), n)
    return from_model("finite elements", shape, lambda x: at(x.tobytes())[0].data, vjp, jacobian)


def posterior_samples(
    case: Case, diffusion: Diffusion, setting: Setting, run: Any, kept: Kept
) -> tuple[np.ndarray, str]:
    """Samples of the unknowns, shape (chains, n), and the file of the weights. Collective.

    Raises:
        Interrupted: SIGTERM or SIGINT came; `--restart` continues the training.
        SolveError: a sample is not finite.
    """
    from fem_apps.inverse.samplers import levels, sample
    from fem_apps.surrogates.score_training import training_images

    comm, control = run.comm, diffusion.sampler
    with run.phase("training"):
        images = training_images(diffusion.prior) if comm.rank == 0 else None
        denoise, path = shared_denoiser(diffusion.prior, run, images)
    ends = (images.min(), images.max()) if images is not None else None
    low, high = map(float, comm.bcast(ends))
    margin = MARGIN * (high - low)
    A = image_operator(setting, diffusion.offset, diffusion.factor, low - margin, high + margin)
    grid = levels(control.steps, control.largest, control.smallest)
    groups = [range(c, min(c + GROUP, control.chains)) for c in range(0, control.chains, GROUP)]

    def draw() -> dict[str, np.ndarray]:
        found = {}
        with same_error(comm):
            for g in range(comm.rank, len(groups), comm.size):
                y = np.tile(setting.posterior.data, (len(groups[g]), 1))
                x = sample(
                    make_sampler(control, denoise, A, y, case.noise),
                    *(grid, 1, A.shape[1]),
                    [case.seed * 100003 + c for c in groups[g]],
                    progress=run.progress.update,
                    stop=lambda: run.signalled,
                )
                # as the operator sees them
                found[g] = np.clip(x[:, 0, setting.inside], low - margin, high + margin)
        everything = {g: x for part in comm.allgather(found) for g, x in part.items()}
        return {"images": np.concatenate([everything[g] for g in range(len(groups))])}

    with run.phase("sampling"):
        images = kept("diffusion", draw)["images"]
    return diffusion.offset + diffusion.factor * images, path


def compare(
    folder: Path,
    setting: Setting,
    mode: np.ndarray,
    draws: np.ndarray | None,
    samples: np.ndarray,
) -> dict[str, object]:
    """Errors, chi^2/m and coverage of mode, chains and diffusion samples; also comparison.csv.

    Args:
        folder: of the run.
        setting: data and truth.
        mode: with the Gaussian prior.
        draws: of its chains, (chains, draws, n).
        samples: with the diffusion prior, (chains, n).
    """
    truth, P = setting.truth, setting.posterior
    assert truth is not None

    def chi2(m: np.ndarray) -> float:
        return 2 * P.misfit(m) / len(P.data)

    def errors(m: np.ndarray) -> dict[str, float]:
        relative = float(np.linalg.norm(m - truth) / np.linalg.norm(truth))
        return {"psnr": float(psnr(m, truth)), "relative_error": relative, "chi2_mean": chi2(m)}

    def spread(some: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, float]:
        return {
            "chi2_samples": float(np.mean([chi2(m) for m in some])),
            "coverage": float(((truth >= low) & (truth <= high)).mean()),
            "interval_width": float((high - low).mean()),
        }

    rows = {"mode": errors(mode)}
    if draws is not None:
        flat = draws.reshape(-1, draws.shape[-1])
        some = flat[:: max(1, len(flat) // THINNED)]
        low, high = np.quantile(flat, [0.05, 0.95], axis=0)
        rows["chains"] = errors(flat.mean(axis=0)) | spread(some, low, high)
    low, high = (end[0] for end in interval(samples[None]))
    rows["diffusion"] = errors(samples.mean(axis=0)) | spread(samples, low, high)
    table = io.StringIO()
    writer = csv.DictWriter(table, ["estimate", *rows["diffusion"]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"estimate": name} | row for name, row in rows.items())
    write_whole(folder / "comparison.csv", table.getvalue().encode())
    return {f"{name}_{key}": v for name, row in rows.items() for key, v in row.items()}
