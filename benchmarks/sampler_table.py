"""Samplers with exact scores against exact posteriors: the sliced Wasserstein table of docs/imaging.md.

    ./run_mpi.sh python3 benchmarks/sampler_table.py gaussian [--seeds 8] [--steps 50 400]
    ./run_mpi.sh python3 benchmarks/sampler_table.py mixture [--seeds 8] [--steps 200]

gaussian: prior N(0, diag(linspace(.05, 4, 10))), A dense (5 x 10, entries N(0, 1/10)), s_n = 1 and .1. mixture: three
Gaussians in ten dimensions, the third turned at random, 8 coordinates seen, s_n = .5 and 5. For each seed another
operator, object and noise: 4,000 samples against as many exact ones, by the root mean square over 200 directions and
all quantiles (POT). Printed: mean and standard deviation over the seeds, the same between two exact sample sets
(the floor), and chi^2/m, the mean of |y - A x|^2/(m s_n^2) over samples.
"""

from __future__ import annotations

import argparse

import jax.numpy as jnp
import numpy as np
import ot
from scipy.stats import ortho_group

from fem_apps.errors import SolveError
from fem_apps.inverse import samplers_guided as guided
from fem_apps.inverse import samplers_linear as linear
from fem_apps.inverse.operators import Operator, from_matrix
from fem_apps.inverse.samplers import Sampler, ancestral_step, levels, ode_denoise, sample
from fem_apps.surrogates.score_exact import Mixture, gaussian

SAMPLES, DIRECTIONS = 4000, 200


def inverse_bench(prior: Mixture, A: Operator, y: np.ndarray, noise: float) -> Sampler:
    """DDNM+ with L = min(1, b/s_n) and the whole noise of the ancestral step, as InverseBench has it."""

    def step(x, a, b, xi):
        x0 = prior(x, a)
        xh = x0 + jnp.minimum(1.0, b / noise) * A.pseudo_inverse(y - A.apply(x0))
        return ancestral_step(x, xh, a, b, xi[0])

    return Sampler("ddnm+ (InverseBench)", step)


SAMPLERS = {
    "moment matching": lambda p, A, y, s: guided.moment_matching(p, A, y, s),
    "PiGDM": lambda p, A, y, s: guided.pigdm(p, A, y, s),
    "DAPS, r = a, 5-step ODE": lambda p, A, y, s: guided.split("daps", ode_denoise(p, 5), A, y, s),
    "DiffPIR, lam 1, zeta .3": lambda p, A, y, s: linear.diffpir(p, A, y, s),
    "DPS, zeta 1": lambda p, A, y, s: guided.dps(p, A, y),
    "DDNM+, L = min(1, b/s_n)": inverse_bench,
    "DDNM+": lambda p, A, y, s: linear.ddnm_plus(p, A, y, s),
    "DDRM": lambda p, A, y, s: linear.ddrm(p, A, y, s),
}


def problem(table: str, seed: int, noise: float) -> tuple[Mixture, Operator, np.ndarray]:
    """Prior, operator and data."""
    rng = np.random.default_rng(seed)
    if table == "gaussian":
        prior = gaussian(np.zeros(10), np.diag(np.linspace(0.05, 4, 10)))
        A = rng.normal(size=(5, 10)) / np.sqrt(10)
    else:
        turn = ortho_group.rvs(10, random_state=rng)
        third = turn @ np.diag(np.linspace(2, 1, 10)) @ turn.T
        means = np.outer([-5.0, 0.0, 5.0], np.ones(10))
        covariances = np.array([np.eye(10), np.diag(np.linspace(1, 2, 10)), third])
        prior = Mixture(np.array([0.4, 0.3, 0.3]), means, covariances)
        A = np.eye(10)[np.sort(rng.choice(10, 8, replace=False))]
    y = A @ prior.samples(1, rng)[0] + noise * rng.normal(size=len(A))
    return prior, from_matrix("dense", A), y


def distance(x: np.ndarray, z: np.ndarray) -> float:
    return float(ot.sliced_wasserstein_distance(x, z, n_projections=DIRECTIONS, seed=0, p=2))


def row(table: str, name: str, noise: float, steps: int, seeds: int) -> np.ndarray:
    """Distances and chi^2/m, shape (seeds, 2); nan where the sampler diverges."""
    out = np.full((seeds, 2), np.nan)
    for seed in range(seeds):
        prior, A, y = problem(table, seed, noise)
        exact = prior.posterior(A.dense, y, noise).samples(
            SAMPLES, np.random.default_rng(10**6 + seed)
        )
        if name == "floor":
            x = prior.posterior(A.dense, y, noise).samples(SAMPLES, np.random.default_rng(seed))
        else:
            try:
                sampler = SAMPLERS[name](prior, A, y, noise)
                x = sample(sampler, levels(steps), SAMPLES, 10, [seed])[0]
            except SolveError:
                continue
        r = (x @ A.dense.T - y) / noise
        out[seed] = distance(x, exact), (r * r).mean()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=["gaussian", "mixture"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument(
        "--only", default="", help="samplers whose name has one of these texts, with |"
    )
    given = parser.parse_args()
    levels_of_noise = (1.0, 0.1) if given.table == "gaussian" else (0.5, 5.0)
    counts = given.steps or ([50, 400] if given.table == "gaussian" else [200])
    heads = [f"s_n = {s:g}, {n} steps" for s in levels_of_noise for n in counts]
    print(f"| sampler | {' | '.join(heads)} | chi2/m |\n|{'---|' * (len(heads) + 2)}", flush=True)
    for name in ["floor", *SAMPLERS]:
        if not any(text in name for text in given.only.split("|")):
            continue
        cells, chi = [], []
        for noise in levels_of_noise:
            for steps in counts:
                found = row(given.table, name, noise, steps, given.seeds)
                mean, std = np.nanmean(found, axis=0), np.nanstd(found, axis=0)
                cells.append(f"{mean[0]:.3f} +- {std[0]:.3f}")
            chi.append(f"{mean[1]:.2f}")
        print(f"| {name} | {' | '.join(cells)} | {', '.join(chi)} |", flush=True)


if __name__ == "__main__":
    main()
