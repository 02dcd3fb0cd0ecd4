"""Tables of docs/normalizing_flow.md, a line a row.

    ./run_mpi.sh python3 benchmarks/flow_table.py elements --h 0.4 0.2 0.1
    ./run_mpi.sh python3 benchmarks/flow_table.py dimensions --d 1 2 3 4 5 6 7 8 9 10

elements: finite elements against the exact push-forward of N(0, I) by three pieces in the plane, after
the first piece (a jump made inside cells) and after all (jumps that later pieces carry on).
dimensions: mixtures of three Gaussians drawn from the seed; the construction to KL = 0.1 (on the line
exact, else rounds of pursuit until there are 120 pieces), then gradient descent on it.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from time import process_time

import numpy as np
from mpi4py import MPI

from fem_apps.control.normalizing_flow import Construction, construct
from fem_apps.control.normalizing_flow_bounds import switches_for_measures
from fem_apps.control.normalizing_flow_entropy import compare
from fem_apps.control.normalizing_flow_fem import FemTable, compare_by_elements
from fem_apps.control.normalizing_flow_map import pieces
from fem_apps.control.normalizing_flow_targets import Mixture
from fem_apps.control.normalizing_flow_train import Improve, improve
from fem_apps.problems.continuity import DG

THREE = pieces(
    2,
    [
        ((0.5, -0.3), (1, 0.5), 0.2, 1),
        ((-0.4, 0.5), (0.3, -1), 0.5, 1),
        ((0, 0.6), (1, 0), -0.3, 1),
    ],
)
BOX = {"x0": -7.0, "y0": -9.0, "width": 17.0, "height": 18.0}


def elements(sizes: list[float], degrees: list[int]) -> None:
    """L1, its order, both entropies, TV, W1, Pinsker's bounds, masses under the floor and outside."""
    for count in (1, 3):
        schedule = replace(THREE, **{k: getattr(THREE, k)[:count] for k in ("w", "a", "b", "tau")})
        for degree in degrees:
            before = None
            for h in sizes:
                mesh = {"geometry": "rectangle", "parameters": {**BOX, "h": h}}
                scheme = DG(degree=degree, limiter="range" if degree else "none")
                table = FemTable(mesh=mesh, scheme=scheme)  # type: ignore[arg-type]
                m, _ = compare_by_elements(MPI.COMM_WORLD, table, schedule, None)  # type: ignore[arg-type]
                order = "" if before is None else f"{np.log2(before / m['fem_l1']):.2f}"
                before = m["fem_l1"]
                if MPI.COMM_WORLD.rank == 0:
                    print(
                        f"| {count} | DG{degree} | {h:g} | {m['fem_l1']:.2e} | {order} |"
                        f" {m['fem_kl']:.2e} | {m['fem_kl_reverse']:.2e} |"
                        f" {m['fem_tv']:.2e} | {m['fem_pinsker']:.2e} |"
                        f" {m['fem_reverse_pinsker']:.2e} | {m['fem_w1']:.2e} |"
                        f" {m['fem_under_floor']:.1e} | {m['fem_outside']:.1e} |"
                        f" {m['fem_mass_defect']:.1e} |",
                        flush=True,
                    )


def mixture(dim: int) -> Mixture:
    """Three Gaussians, the same for every run."""
    rng = np.random.default_rng((5, dim))
    means = rng.standard_normal((3, dim))
    return Mixture(np.ones(3), 1.2 * means, 0.5 + 0.5 * rng.random((3, dim)))


def dimensions(dims: list[int], steps: int) -> None:
    """Switches, KL of the construction and of the trained schedule, TV, W1, |w|, CPU seconds."""
    for d in dims:
        target, began = mixture(d), process_time()
        options = Construction(method="pursuit" if d > 1 else "strips", most_pieces=120)
        s, _ = construct(target, 0.1, options, seed=d)
        first = compare(target, s, 20_000, np.random.default_rng(1))
        made = process_time() - began
        samples = target.sample(50_000, np.random.default_rng((6, d)))
        control = Improve(steps=steps, batch=500, rate=0.01)
        better, _ = improve(s, samples, control, d)
        c = compare(target, better, 20_000, np.random.default_rng(1))
        single = Mixture(
            np.ones(1), samples.mean(axis=0)[None], samples.std(axis=0)[None]
        ).log_density(samples)
        gaussian = float((target.log_density(samples) - single).mean())
        size = float(np.ptp(target.box(), axis=1).max())
        print(
            f"| {d} | {gaussian:.3f} | {s.switches} | {first.kl:.4f} | {c.kl:.4f} +- {c.kl_error:.4f} |"
            f" {c.tv:.3f} | {c.w1:.3f} | {np.linalg.norm(better.w, axis=1).max():.2g} |"
            f" {switches_for_measures(d, d, c.w1 / size):.1e} |"
            f" {made:.0f} + {process_time() - began - made:.0f} s |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=["elements", "dimensions"])
    parser.add_argument("--h", type=float, nargs="+", default=[0.4, 0.2, 0.1])
    parser.add_argument("--degrees", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--d", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    if options.table == "elements":
        elements(options.h, options.degrees)
    else:
        dimensions(options.d, options.steps)


main()
