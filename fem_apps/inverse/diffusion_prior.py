"""A diffusion model as the prior of an inverse problem: y = A x + n, n ~ N(0, noise^2 I).

A denoiser is trained on images (`surrogates.score`), once: its weights are kept. A sampler then
draws from the posterior of each test image, and every run says what LMMSE, total variation and, for
tomography, filtered back-projection make of the same data, how well the data are fitted (chi^2/m, 1
for samples of the posterior on average), and how many pixels lie in their 90 % intervals.

Ranks share the images; what is drawn for an image does not depend on them.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.mpi import on_rank_zero, same_error
from fem_apps.output.files import npz, write_whole
from fem_apps.surrogates.score_training import ImagePrior
from fem_apps.surrogates.unet import check_size

log = logging.getLogger(__name__)


class Tomography(Table):
    """Parallel-beam CT, exact lengths of rays in pixels."""

    type: Literal["tomography"]
    angles: int = Field(12, ge=1, description="k pi/angles")
    detectors: int = Field(45, ge=2, description="linspace(-1.4, 1.4)")


class Blur(Table):
    """Periodic Gaussian blur."""

    type: Literal["blur"]
    width: float = Field(1.5, gt=0, description="standard deviation in pixels")


class Downsampling(Table):
    """Means over blocks: super-resolution."""

    type: Literal["downsampling"]
    factor: int = Field(2, ge=2, description="pixels a side of a block; divides the size")


class Masking(Table):
    """Some of the pixels: inpainting."""

    type: Literal["masking"]
    share: float = Field(0.3, gt=0, le=1, description="of pixels that are seen, at random")


class Heat(Table):
    """The heat equation by finite elements, no flux."""

    type: Literal["heat"]
    time: float = Field(0.005, gt=0, description="of diffusion, on [-1, 1]^2")
    cells: int = Field(32, ge=2, le=200, description="elements a side")


class SourceToBoundary(Table):
    """A source from boundary values of its solution, -div grad u + absorption u = f."""

    type: Literal["source"]
    cells: int = Field(32, ge=2, le=200, description="elements a side")
    absorption: float = Field(1.0, gt=0, description="factor of u")


class Sampling(Table):
    """How samples are drawn."""

    method: Literal[
        "moment-matching", "pigdm", "ddnm", "ddnm+", "ddrm", "diffpir", "dps", "daps", "gibbs"
    ] = Field("moment-matching", description="see docs/imaging.md")
    steps: int = Field(30, ge=2, description="noise levels")
    largest: float = Field(20.0, gt=0, description="first noise level")
    smallest: float = Field(0.01, gt=0, description="last noise level before 0")
    chains: int = Field(19, ge=2, description="samples an image; 19 have a range of exactly 90 %")
    iterations: int = Field(
        6,
        ge=1,
        description="of conjugate gradients (moment-matching), or of Gauss-Newton (daps and gibbs"
        " with a nonlinear operator)",
    )
    zeta: float | None = Field(
        None, ge=0, description="guidance of dps (1), or share of fresh noise in diffpir (0.3)"
    )
    lam: float = Field(1.0, gt=0, description="weight of the prior in diffpir")
    eta: float = Field(0.85, ge=0, le=1, description="fresh noise in ddrm")
    variance: float | None = Field(
        None, gt=0, description="of the prior, in pigdm and gibbs; that of the images if left out"
    )
    ode_steps: int = Field(5, ge=1, description="Euler steps of the probability flow in daps")


class Output(Table):
    """What is written."""

    pictures: bool = Field(True, description="pictures")


class Case(AnyCase):
    """A case of kind diffusion-prior."""

    operator: Annotated[
        Tomography | Blur | Downsampling | Masking | Heat | SourceToBoundary,
        Field(discriminator="type"),
    ] = Field(description="A")
    noise: float = Field(0.02, gt=0, description="standard deviation of every datum")
    images: int = Field(8, ge=1, description="test images, drawn apart from the training ones")
    prior: ImagePrior = Field(default_factory=ImagePrior, description="the trained denoiser")
    sampler: Sampling = Field(default_factory=Sampling, description="posterior samples")
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _fits(self) -> Case:
        check_size(self.prior.network, self.prior.size)
        if isinstance(self.operator, Downsampling) and self.prior.size % self.operator.factor:
            raise ValueError(
                f"operator.factor = {self.operator.factor} does not divide the size of the images, "
                f"prior.size = {self.prior.size}"
            )
        if self.sampler.smallest >= self.sampler.largest:
            raise ValueError("sampler.smallest must be below sampler.largest")
        return self


def make_operator(case: Case) -> Any:
    """The operator of a case, on one rank."""
    from fem_apps.inverse import operators as ops

    size = case.prior.size
    match case.operator:
        case Tomography(angles=angles, detectors=detectors):
            from fem_apps.inverse.operators_ct import parallel_beam, tomography

            return tomography(size, parallel_beam(angles, detectors))
        case Blur(width=width):
            return ops.blur(size, width)
        case Downsampling(factor=factor):
            return ops.downsampling(size, factor)
        case Masking(share=share):
            return ops.masking(size, share, case.seed)
        case Heat(time=time, cells=cells):
            from mpi4py import MPI

            from fem_apps.inverse.operators_source import heat_blur

            return ops.from_matrix("heat", heat_blur(MPI.COMM_SELF, size, cells, time).dense)
        case SourceToBoundary(cells=cells, absorption=absorption):
            from mpi4py import MPI

            from fem_apps.inverse.operators_source import source_to_boundary

            A = source_to_boundary(MPI.COMM_SELF, size, cells, absorption)
            return ops.from_matrix("source to boundary", A.dense)


def make_sampler(control: Sampling, denoise: Any, A: Any, y: np.ndarray, noise: float) -> Any:
    """The sampler of a case for data y.

    Raises:
        CaseError: the operator lacks what the sampler needs.
    """
    from fem_apps.inverse import samplers_guided as guided
    from fem_apps.inverse import samplers_linear as linear
    from fem_apps.inverse.samplers import ode_denoise

    newton = 0 if A.linear else control.iterations
    v = control.variance if control.variance is not None else denoise.sd**2
    match control.method:
        case "moment-matching":
            return guided.moment_matching(
                denoise, A, y, noise, iterations=control.iterations, tolerance=1e-3
            )
        case "pigdm":
            return guided.pigdm(denoise, A, y, noise, v=v)
        case "dps":
            return guided.dps(denoise, A, y, zeta=1.0 if control.zeta is None else control.zeta)
        case "ddnm":
            return linear.ddnm(denoise, A, y)
        case "ddnm+":
            return linear.ddnm_plus(denoise, A, y, noise)
        case "ddrm":
            return linear.ddrm(denoise, A, y, noise, eta=control.eta)
        case "diffpir":
            zeta = 0.3 if control.zeta is None else control.zeta
            return linear.diffpir(denoise, A, y, noise, lam=control.lam, zeta=zeta)
        case "daps":
            flow = ode_denoise(denoise, control.ode_steps)
            return guided.split("daps", flow, A, y, noise, gauss_newton=newton)
        case "gibbs":
            return guided.split("gibbs", denoise, A, y, noise, v=v, gauss_newton=newton)


def shared_denoiser(prior: ImagePrior, run: Any, images: np.ndarray | None) -> tuple[Any, str]:
    """The trained denoiser on every rank, and the file of its weights. Collective.

    Args:
        prior: what is learnt.
        run: the run; its folder keeps the state of the training.
        images: the training images, on rank 0.
    """
    import jax

    from fem_apps.surrogates import score, weights
    from fem_apps.surrogates.score_training import trained_denoiser
    from fem_apps.surrogates.unet import new_unet

    def make() -> tuple[float, float, str, bytes]:
        assert images is not None  # rank 0 has them
        model, path = trained_denoiser(
            prior,
            images,
            progress=run.progress.update,
            state_file=run.folder / "checkpoint" / "denoiser.npz",
            stop=lambda: run.signalled,
        )
        return model.mean, model.sd, str(path), weights.to_bytes(model)

    mean, sd, path, data = on_rank_zero(run.comm, make)
    net = new_unet(prior.network, 1, 1, jax.random.key(0), score.LEVEL_FEATURES)
    return weights.from_bytes(score.Denoiser(net, mean, sd, prior.size), data), path


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective.

    Raises:
        Interrupted: SIGTERM or SIGINT came; `--restart` continues the training.
        SolveError: a sample is not finite.
    """
    from fem_apps.inverse.diffusion_prior_report import report
    from fem_apps.inverse.samplers import levels, sample
    from fem_apps.surrogates.score_images import make_images
    from fem_apps.surrogates.score_training import training_images

    comm = run.comm
    with run.phase("training"):
        on_rank_zero(comm, (run.folder / "checkpoint").mkdir, exist_ok=True)
        images = training_images(case.prior) if comm.rank == 0 else None
        denoise, path = shared_denoiser(case.prior, run, images)
    with run.phase("operator"), same_error(comm):
        A = make_operator(case)
        p = case.prior
        x = make_images(p.family, case.images, p.size, p.seed + 7919 * (case.seed + 1))
        x = x.reshape(case.images, -1)
        rng = np.random.default_rng([case.seed, 1])
        y = x @ A.dense.T + case.noise * rng.normal(size=(case.images, A.shape[0]))
    grid = levels(case.sampler.steps, case.sampler.largest, case.sampler.smallest)
    with run.phase("sampling"), same_error(comm):
        mine = list(range(comm.rank, case.images, comm.size))
        rows = np.repeat(y[mine], case.sampler.chains, axis=0)
        found = sample(
            make_sampler(case.sampler, denoise, A, rows, case.noise),
            *(grid, case.sampler.chains, A.shape[1]),
            [case.seed * 100003 + i for i in mine],
            progress=run.progress.update,
            stop=lambda: run.signalled,
        )
    everything: dict[int, np.ndarray] = {}
    for part in comm.gather(dict(zip(mine, found, strict=True))) or ():
        everything |= part
    with run.phase("baselines"):

        def finish() -> dict[str, object]:
            assert images is not None
            drawn = np.stack([everything[i] for i in range(case.images)])
            write_whole(run.folder / "samples.npz", npz({"samples": drawn, "truth": x, "data": y}))
            return report(case, run.folder, A, x, y, drawn, images.reshape(len(images), -1))

        metrics = on_rank_zero(comm, finish)
    return metrics | {"weights": path}
