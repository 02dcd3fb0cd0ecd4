"""Entropy-driven control of the continuity equation: normalising flows with few switches.

    d_t rho + div(rho v) = 0,  rho(0) = N(0, I),  v(x, t) = w(t) (a(t).x + b(t))_+

Given a target rho_* and an accuracy eps, find controls (w, a, b), constant on pieces of time, with
KL(rho_* | rho(T)) <= eps and few switches. The construction is explicit: one-dimensional maps
(`normalizing_flow_1d`), strips and shears in 2 and 3 dimensions (`normalizing_flow_strips`),
projection pursuit in any (`normalizing_flow_pursuit`); gradients improve it
(`normalizing_flow_train`); finite elements solve the same equation (`normalizing_flow_fem`).

Source: Alvarez-Lopez, Geshkovski, Ruiz-Balet, *Constructive approximate transport maps with
normalizing flows*, Appl. Math. Optim. 92:33 (2025), arXiv 2412.19366.

    target = Mixture(weights, means, widths)
    plan = build_strips(target, accuracy=0.01)
    plan.schedule.switches, compare(target, plan.schedule).kl
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.control.normalizing_flow_bounds import switches_for_measures
from fem_apps.control.normalizing_flow_entropy import Comparison, compare, entropy_along
from fem_apps.control.normalizing_flow_fem import FemTable, compare_by_elements
from fem_apps.control.normalizing_flow_map import Schedule
from fem_apps.control.normalizing_flow_pursuit import build_pursuit
from fem_apps.control.normalizing_flow_strips import build_strips
from fem_apps.control.normalizing_flow_tables import TargetTable, make_target
from fem_apps.control.normalizing_flow_tails import refuse_heavy_tails
from fem_apps.control.normalizing_flow_targets import Target
from fem_apps.control.normalizing_flow_train import Improve, improve, random_pieces
from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import npz, write_whole
from fem_apps.output.folder import Run
from fem_apps.output.history import History

log = logging.getLogger(__name__)

# streams of random numbers of one seed
# tail indices above this are those of densities that fall faster than any power
LIGHT = 100.0
TARGET_STREAM, BUILD_STREAM, TEST_STREAM, START_STREAM = range(4)


class Construction(Table):
    """How the first schedule is made."""

    method: Literal["auto", "strips", "pursuit"] = Field(
        "auto",
        description=(
            "strips: shears and conditional maps, d <= 3; pursuit: maps along directions, any d;"
            " auto: strips where possible"
        ),
    )
    knots: Literal["optimal", "mixed"] = Field(
        "optimal", description="of one-dimensional maps: least entropy, or half in x, half in y"
    )
    layer: float = Field(
        1e-5, ge=1e-9, le=0.1, description="delta: width of the layers of staircases"
    )
    window: float | None = Field(
        None, gt=2, description="H: height of the windows; from the target if left out"
    )
    most_pieces: int = Field(2000, ge=1, description="limit of pursuit")


class Output(Table):
    """What is written, and how it is measured."""

    samples: int = Field(40_000, ge=1000, description="of target and base, for entropies in d >= 2")
    accuracies: tuple[float, ...] = Field(
        (), description="further accuracies to construct for: entropy against switches"
    )
    pictures: bool = Field(True, description="pictures and the animation")
    frames: int = Field(30, ge=2, le=200, description="of the animation")
    fields: bool = Field(True, description="with [fem]: the final density for ParaView")
    duration: float | None = Field(
        None, gt=0, description="T, shared equally by the pieces; 1 each if left out"
    )


class Case(AnyCase):
    """A case of kind normalizing-flow."""

    target: TargetTable = Field(description="rho_*")
    accuracy: float = Field(
        0.01, gt=0, le=10, description="KL(rho_* | rho_N) asked of the construction"
    )
    construction: Construction = Field(
        default_factory=Construction, description="of the first schedule"
    )
    improve: Improve | None = Field(None, description="gradient descent; none if left out")
    fem: FemTable | None = Field(None, description="finite elements too; none if left out")
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _fits(self) -> Case:
        if any(a <= 0 for a in self.output.accuracies):
            raise ValueError("output.accuracies: all must be positive")
        return self


@dataclass(frozen=True)
class Outcome:
    """A schedule, and how near it comes to the target."""

    schedule: Schedule
    comparison: Comparison
    facts: dict[str, Any]


def construct(
    target: Target,
    accuracy: float,
    options: Construction | None = None,
    *,
    seed: int = 0,
    samples: np.ndarray | None = None,
) -> tuple[Schedule, dict[str, Any]]:
    """A schedule with KL(rho_* | rho_N) about `accuracy` or less, and facts of how it was made.

    Raises:
        CaseError: strips are asked for in more than three dimensions.
    """
    options = options or Construction()
    strips = options.method == "strips" or (options.method == "auto" and target.dim <= 3)
    if strips and target.dim > 3:
        raise CaseError(
            f"construction.method = 'strips': the target is in {target.dim}D, and products of "
            "strips are for d <= 3; take 'pursuit'"
        )
    if strips:
        plan = build_strips(
            target, accuracy, layer=options.layer, knots=options.knots, window=options.window
        )
        first, maps, lost = plan.parts
        facts = {"strips": [len(c) + 1 for c in plan.cuts], "window": plan.window}
        facts |= {"kl_first": first, "kl_maps": maps, "kl_strips": lost}
        return plan.schedule, {"predicted_kl": plan.predicted, **facts}
    rng = np.random.default_rng((seed, BUILD_STREAM))
    schedule, kl = build_pursuit(
        target, accuracy, rng=rng, most_pieces=options.most_pieces, samples=samples
    )
    return schedule, {"predicted_kl": kl}


def run(case: Case, run: Run) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    outcome = on_rank_zero(run.comm, _on_one_rank, case, run)
    metrics = dict(outcome.facts)
    if case.fem is not None:
        with run.phase("finite elements"):
            found, step = compare_by_elements(run.comm, case.fem, outcome.schedule, case.folder)
            metrics |= found
            if case.output.fields:
                _write_field(run, step, outcome.schedule)
    with History(run.comm, run.folder / "history.csv") as history:
        for k, (t, kl) in enumerate(zip(*outcome.facts["_entropy"], strict=True)):
            history.write({"step": k, "time": float(t), "kl_reverse": float(kl)})
    metrics.pop("_entropy")
    if case.output.pictures:
        with run.phase("pictures"):
            from fem_apps.control.normalizing_flow_pictures import draw_flow

            for note in on_rank_zero(run.comm, draw_flow, run.folder):
                run.note(note)
    if metrics["kl"] - 2 * metrics["kl_error"] > case.accuracy:
        run.note(
            f"KL = {metrics['kl']:.4g} is above the accuracy asked, {case.accuracy:g}: more "
            "pieces, samples or steps are needed"
        )
    return metrics


def _on_one_rank(case: Case, run: Run) -> Outcome:
    with run.phase("target"):
        target, known = make_target(case.target, case.file)
        tail = refuse_heavy_tails(target, known, case.seed)
    rng = np.random.default_rng((case.seed, TARGET_STREAM))
    facts: dict[str, Any] = {"dimension": target.dim, "tail_index": tail if tail < LIGHT else None}
    schedule = None
    with run.phase("construction"):
        random_start = case.improve is not None and case.improve.pieces is not None
        if not random_start:
            schedule, more = construct(
                target, case.accuracy, case.construction, seed=case.seed, samples=known
            )
            facts |= more
            log.info("constructed: %d switches", schedule.switches)
    if case.improve is not None:
        with run.phase("improvement"):
            schedule, more = _improved(case, run, target, known, schedule, rng)
            facts |= more
    assert schedule is not None
    with run.phase("entropies"):
        test = np.random.default_rng((case.seed, TEST_STREAM))
        found = compare(target, schedule, case.output.samples, test)
        times, along = entropy_along(target, schedule, min(case.output.samples, 4000), test)
        # this many, for this error relative to the target's box and the uniform law of a cube
        size = float(np.ptp(target.box(), axis=1).max())
        enough = partial(switches_for_measures, target.dim, target.dim)
        facts["switch_bound"] = enough(found.w1 / size)
        study = []
        for eps in sorted(case.output.accuracies, reverse=True):
            s, _ = construct(target, eps, case.construction, seed=case.seed, samples=known)
            kl = compare(target, s, case.output.samples, test)
            study.append(
                {"switches": s.switches, "kl": kl.kl, "tv": kl.tv, "bound": enough(kl.w1 / size)}
            )
            log.info("accuracy %g: %d switches, KL = %.4g", eps, s.switches, kl.kl)
    total = case.output.duration or float(len(schedule.b))
    scaled = schedule.with_durations(total)
    scaled.write(run.folder / "schedule.csv")
    facts |= asdict(found)
    facts |= {
        "switches": schedule.switches,
        "max_w": float(np.linalg.norm(scaled.w, axis=1).max(initial=0.0)),
        "cost_l1": scaled.cost_l1,
        "cost_l2": scaled.cost_l2,
    }
    if study:
        facts["study"] = study
    facts["_entropy"] = (times / max(times[-1], 1e-300) * total, along)
    _keep_for_pictures(case, run.folder, target, scaled, facts)
    return Outcome(scaled, found, facts)


def _improved(
    case: Case,
    run: Run,
    target: Target,
    known: np.ndarray | None,
    schedule: Schedule | None,
    rng: np.random.Generator,
) -> tuple[Schedule, dict[str, Any]]:
    """Gradient descent from the construction, or from random pieces."""
    control = case.improve
    assert control is not None
    samples = target.sample(control.samples, rng) if known is None else known
    facts: dict[str, Any] = {}
    if schedule is None:
        start = np.random.default_rng((case.seed, START_STREAM))
        schedule = random_pieces(control.pieces or 1, samples, start)
    else:
        test = np.random.default_rng((case.seed, TEST_STREAM))
        facts["constructed_kl"] = compare(target, schedule, case.output.samples, test).kl
    state = run.folder / "checkpoint" / "training.npz"
    state.parent.mkdir(exist_ok=True)
    schedule, history = improve(
        schedule,
        samples,
        control,
        case.seed,
        progress=run.progress.update,
        state_file=state,
        stop=lambda: run.signalled,
    )
    facts["training_loss"] = float(history[-1, 1])
    return schedule, facts


def _keep_for_pictures(
    case: Case, folder: Path, target: Target, schedule: Schedule, facts: dict[str, Any]
) -> None:
    """What the pictures are drawn from, in one small file."""
    content: dict[str, Any] = {
        "w": schedule.w,
        "a": schedule.a,
        "b": schedule.b,
        "tau": schedule.tau,
        "times": facts["_entropy"][0],
        "entropy": facts["_entropy"][1],
        "frames": case.output.frames,
        "seed": case.seed,
        "study": json.dumps(facts.get("study", [])),
        "title": case.title,
        "box": target.box(),
    }
    if target.dim <= 2:
        n = 400 if target.dim == 1 else 200
        edges = [np.linspace(a, b, n + 1) for a, b in target.box()]
        content["masses"] = target.masses(edges)
    write_whole(folder / "flow.npz", npz(content))


def _write_field(run: Run, step: Any, schedule: Schedule) -> None:
    from dolfinx import fem

    from fem_apps.control.normalizing_flow_map import log_density
    from fem_apps.output.fields import FieldWriter

    V = step.solver.V
    rho, exact = fem.Function(V, name="rho"), fem.Function(V, name="exact")
    step.solver.to_function(step.rho, rho)
    gdim = schedule.dim
    exact.interpolate(lambda x: np.exp(log_density(schedule, x[:gdim].T)))
    with FieldWriter(run.comm, run.folder, [rho, exact]) as fields:
        fields.write(step.t)
