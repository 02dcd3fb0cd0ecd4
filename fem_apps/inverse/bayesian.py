"""Coefficients of elliptic equations from data: mode, Laplace approximation, Markov chains.

    y = F(m) + n,  n ~ N(0, noise^2 I),  m ~ N(mean, std^2 I);   F by finite elements, its
    derivatives by adjoints of the discrete equations

Every rank holds the (small) finite-element problem; chains are what the ranks share. A chain's
random numbers are its own, so the results do not depend on the number of ranks.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import numpy as np
from mpi4py import MPI
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.inverse.diffusion_prior import Sampling
from fem_apps.mpi import on_rank_zero, same_error
from fem_apps.surrogates.score_training import ImagePrior
from fem_apps.surrogates.unet import check_size

log = logging.getLogger(__name__)


class Conductivity(Table):
    """-div(exp(m) grad u) = source on the unit square, u = 0 on its boundary; data inside."""

    type: Literal["conductivity"]
    cells: int = Field(32, ge=2, le=512, description="elements a side; a multiple of squares")
    squares: int = Field(8, ge=1, le=64, description="unknowns a side, one log-conductivity each")
    points: int = Field(13, ge=1, le=200, description="data a side, at (p/(points+1), ...)")
    degree: int = Field(1, ge=1, le=3, description="of the elements")
    source: float = Field(10.0, description="right-hand side")
    data: Literal["published", "synthetic"] = Field(
        "published", description="zhat of Aristoff and Bangerth, or made from their conductivity"
    )

    @model_validator(mode="after")
    def _fits(self) -> Conductivity:
        if self.cells % self.squares:
            raise ValueError(f"cells = {self.cells} is not a multiple of squares = {self.squares}")
        if self.data == "published" and (self.points, self.squares) != (13, 8):
            raise ValueError(
                "the published data have points = 13 and squares = 8; use data = 'synthetic'"
            )
        return self


class Impedance(Table):
    """Electrical impedance tomography on the unit disc: complete electrode model."""

    type: Literal["impedance"]
    electrodes: int = Field(16, ge=3, le=64, description="on the circle, covering half of it")
    contact: float = Field(0.01, gt=0, description="contact impedance z_l of every electrode")
    h: float = Field(0.1, gt=0.005, lt=0.5, description="size of the elements")
    pixels: int = Field(8, ge=2, le=32, description="unknowns a side of the square about the disc")


class PriorTable(Table):
    """The Gaussian prior of m."""

    mean: float = Field(4.0, description="of every unknown")
    std: float = Field(2.0, gt=0, description="standard deviation of every unknown")
    length: float = Field(
        0.0, ge=0, description="correlation length, in squares; 0: independent unknowns"
    )
    learnt: bool = Field(
        False, description="take mean and covariance of the training images of diffusion instead"
    )


class Chains(Table):
    """Markov chains."""

    method: Literal["hmc", "pcn", "random-walk"] = Field(
        "hmc", description="Hamiltonian, preconditioned Crank-Nicolson, or Metropolis' random walk"
    )
    chains: int = Field(4, ge=1, le=1000, description="independent chains, shared by the ranks")
    draws: int = Field(500, ge=4, description="draws of each chain after the warm-up")
    warmup: int = Field(200, ge=0, description="draws in which the sampler adapts itself")
    leaps: int = Field(16, ge=2, description="most leapfrog steps a draw (hmc)")
    step: float = Field(
        0.09, gt=0, le=1, description="first beta of pcn, or the width of the random walk"
    )


class Diffusion(Table):
    """A trained diffusion model as the prior of the same data; m = offset + factor image."""

    prior: ImagePrior = Field(
        default_factory=lambda: ImagePrior(family="level-set", size=16), description="its training"
    )
    sampler: Sampling = Field(
        default_factory=lambda: Sampling(method="gibbs"), description="gibbs, daps or dps"
    )
    offset: float = Field(0.0, description="log-conductivity where an image is 0")
    factor: float = Field(1.0, description="log-conductivity by value of an image")


class Output(Table):
    """What is written."""

    pictures: bool = Field(True, description="pictures")
    fields: bool = Field(True, description="conductivity and state at the mode, for ParaView")


class Case(AnyCase):
    """A case of kind bayesian-inverse."""

    problem: Annotated[Conductivity | Impedance, Field(discriminator="type")] = Field(
        description="the forward problem"
    )
    noise: float = Field(0.05, gt=0, description="standard deviation of every datum")
    prior: PriorTable = Field(default_factory=PriorTable, description="of the unknowns")
    truth: Literal["example", "image"] = Field(
        "example",
        description="what makes synthetic data: the problem's example, or a new image of the family"
        " of diffusion.prior",
    )
    tolerance: float = Field(1e-8, gt=0, description="relative gradient norm at the mode")
    mcmc: Chains | None = Field(default_factory=Chains, description="Markov chains")
    diffusion: Diffusion | None = Field(None, description="a diffusion model as another prior")
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _has_images(self) -> Case:
        p, d = self.problem, self.diffusion
        if d is None:
            if self.prior.learnt or self.truth == "image":
                raise ValueError("prior.learnt and truth = 'image' need a table [diffusion]")
            return self
        check_size(d.prior.network, d.prior.size)
        side = p.squares if isinstance(p, Conductivity) else p.pixels
        if side != d.prior.size:
            raise ValueError(
                f"diffusion.prior.size = {d.prior.size} is not the unknowns a side, {side}"
            )
        if d.sampler.method not in ("daps", "gibbs", "dps"):
            raise ValueError(
                f"diffusion.sampler.method = '{d.sampler.method}' needs a linear operator; "
                "use 'gibbs', 'daps' or 'dps'"
            )
        if self.truth == "image" and isinstance(p, Conductivity) and p.data == "published":
            raise ValueError("truth = 'image' needs problem.data = 'synthetic'")
        return self


def covariance(prior: PriorTable, centres: np.ndarray) -> np.ndarray:
    """std^2 exp(-|r - r'|^2/(2 length^2)), or std^2 I; centres in units of `length`."""
    n = len(centres)
    if prior.length == 0:
        return prior.std**2 * np.eye(n)
    gap = ((centres[:, None] - centres) ** 2).sum(axis=-1)
    return prior.std**2 * (np.exp(-gap / (2 * prior.length**2)) + 1e-6 * np.eye(n))


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective.

    Raises:
        SolveError: no mode found, or a chain that never moves.
        Interrupted: SIGTERM or SIGINT came between two blocks of draws; `--restart` continues.
    """
    from fem_apps.inverse import bayesian_posterior as bp
    from fem_apps.inverse.bayesian_chains import sample
    from fem_apps.inverse.bayesian_output import write_mode
    from fem_apps.inverse.bayesian_problems import build
    from fem_apps.inverse.interaction_kernels_kept import Kept

    on_rank_zero(run.comm, (run.folder / "checkpoint").mkdir, exist_ok=True)
    kept = Kept(run.comm, run.folder / "checkpoint", run.restart)
    with run.phase("set-up"), same_error(run.comm):
        setting = build(case, MPI.COMM_SELF)
        posterior = setting.posterior
    with run.phase("mode"):

        def find() -> dict[str, Any]:
            rough = bp.lbfgs(posterior, posterior.prior.mean)
            mode = bp.newton_cg(posterior, rough.m, tolerance=case.tolerance)
            approximation = bp.laplace(posterior, mode.m)
            return {
                "mode": mode.m,
                "history": mode.history,
                "actions": mode.cg_iterations,
                "evaluations": len(rough.history),
                "eigenvalues": approximation.eigenvalues,
                "V": approximation.V,
            }

        # chains start from it: a continued run takes it to the last bit
        found = kept("mode", lambda: on_rank_zero(run.comm, find))
        history = [(float(cost), float(norm)) for cost, norm in found["history"]]
        mode = bp.Mode(found["mode"], *history[-1], history, int(found["actions"]))
        evaluations = int(found["evaluations"])
        approximation = bp.Laplace(mode.m, found["eigenvalues"], found["V"], posterior.prior)
        log.info(
            "mode: cost %.9g, gradient %.2g; %d evaluations, %d Hessian actions",
            *(mode.cost, mode.gradient_norm, evaluations, mode.cg_iterations),
        )
    lam = approximation.eigenvalues
    metrics: dict[str, object] = {
        "map_cost": mode.cost,
        "map_misfit": posterior.misfit(mode.m),
        "gradient_norm": mode.gradient_norm,
        "lbfgs_evaluations": evaluations,
        "hessian_actions": mode.cg_iterations,
        "laplace_eigenvalue_max": lam[0],
        "laplace_eigenvalue_min": lam[-1],
        "informed_directions": int((lam > 1).sum()),
        "chi2": 2 * posterior.misfit(mode.m) / len(posterior.data),
    }
    draws = None
    if case.mcmc is not None:
        with run.phase("chains"):
            draws, accepted = sample(case.mcmc, case.seed, posterior, approximation, run)
        ess, split = _diagnose(draws)
        if not ess.max() > 0:
            raise CaseError("mcmc.step: no proposal was accepted; make it smaller")
        metrics |= {
            "acceptance": accepted,
            "effective_samples": float(ess.min()),
            "effective_samples_median": float(np.median(ess)),
            "r_hat": float(split.max()),
            "draws": draws.shape[0] * draws.shape[1],
        }
        if split.max() > 1.05:
            run.note(
                f"the chains have not mixed yet: largest split R-hat {split.max():.3f} "
                "(1.01 is good); raise mcmc.draws and mcmc.warmup"
            )
        truth = setting.truth
        if truth is not None:
            flat = draws.reshape(-1, draws.shape[-1])
            low, high = np.quantile(flat, [0.05, 0.95], axis=0)
            metrics["coverage"] = float(((truth >= low) & (truth <= high)).mean())
    else:
        metrics |= {"acceptance": float("nan"), "effective_samples": 0.0}
    samples = None
    if case.diffusion is not None:
        from fem_apps.inverse.bayesian_diffusion import compare, posterior_samples

        samples, metrics["weights"] = posterior_samples(case, case.diffusion, setting, run, kept)
        with run.phase("comparison"):
            metrics |= on_rank_zero(run.comm, compare, run.folder, setting, mode.m, draws, samples)
    with run.phase("output"):
        on_rank_zero(
            run.comm,
            write_mode,
            *(case, run.folder, setting, mode, approximation, draws, samples),
        )
    return metrics


def _diagnose(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from fem_apps.inverse.bayesian_mcmc import effective_samples, r_hat

    return effective_samples(draws), r_hat(draws)
