"""Statics of attention on S^(d-1): a case of kind attention-statics.

Bifurcations of the uniform state under noise, the branch of clustered states by continuation, the
kind of the transition (`bifurcation`); with `[repulsion]` the porous-medium transition (`porous`);
with `[landscape]` the extremisers of the energy with a matrix D (`layer_norm_energy`).
One rank computes. Needs no DOLFINx.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fem_apps.attention import bifurcation as bf
from fem_apps.attention import funk_hecke as fh
from fem_apps.attention import layer_norm_energy as le
from fem_apps.attention.model import Matrix, array
from fem_apps.attention.porous import critical_repulsion, porous_state
from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero

log = logging.getLogger(__name__)


class Branch(Table):
    """How the branch is followed."""

    states: int = Field(80, ge=10, le=2000, description="states along it, evenly spaced in m")
    m_max: float = Field(0.97, gt=0.05, lt=0.995, description="the last |int x rho|")
    modes: int | None = Field(
        None, ge=8, le=400, description="Gegenbauer modes; by beta if left out"
    )


class Repulsion(Table):
    """Localised repulsion (c/2) int rho^2 instead of noise."""

    ratio: float = Field(0.9, gt=0, le=2, description="c over its critical value c_1")
    attraction: float = Field(1.0, gt=0, description="a in front of the attraction")


class Landscape(Table):
    """The energy iint exp(x.Dy) dmu dmu."""

    D: Matrix = Field(description="symmetric matrix, d x d")
    points: int = Field(360, ge=16, le=2000, description="points of a minimiser that is a density")


class Output(Table):
    """What is written."""

    pictures: bool = Field(True, description="pictures")


class Case(AnyCase):
    """A case of kind attention-statics."""

    d: int = Field(3, ge=2, le=1000, description="dimension of the space; the sphere is S^(d-1)")
    beta: float = Field(gt=0, le=300, description="inverse temperature")
    variant: Literal["unnormalised", "softmax"] = Field(
        "unnormalised", description="softmax has no free energy: kappa_c is then not defined"
    )
    noise: tuple[float, ...] = Field((), description="noises at which the states are wanted")
    bifurcations: int = Field(5, ge=1, le=200, description="kappa_1, ..., of so many modes")
    branch: Branch = Field(default_factory=Branch, description="the continuation")
    repulsion: Repulsion | None = Field(None, description="the porous-medium transition too")
    landscape: Landscape | None = Field(None, description="the energy with a matrix D too")
    output: Output = Field(default_factory=Output, description="what is written")


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective.

    Raises:
        CaseError: D is not symmetric or of another dimension.
        SolveError: the continuation fails.
    """
    D = None
    if case.landscape is not None:
        D = array(case.landscape.D, case.d, "landscape.D")
        if D.shape != (case.d, case.d) or not np.allclose(D, D.T, atol=1e-12):
            raise CaseError(f"landscape.D must be symmetric, {case.d} x {case.d}")
    with run.phase("statics"):
        metrics, pictures = on_rank_zero(run.comm, _compute, case, D)
    if run.comm.rank == 0:
        run.progress.update(1.0, "statics")
    with run.phase("pictures"):
        on_rank_zero(run.comm, _write, case, run.folder, metrics, pictures)
    return metrics


def _compute(case: Case, D: np.ndarray | None) -> tuple[dict[str, object], dict[str, Any]]:
    kappas = fh.bifurcations(case.beta, case.d, case.bifurcations, case.variant)
    rates = fh.growth_rates(case.beta, case.d, case.bifurcations + 1, case.variant)
    branch = bf.branch(
        case.beta,
        case.d,
        case.variant,
        states=case.branch.states,
        m_max=case.branch.m_max,
        modes=case.branch.modes,
    )
    change = bf.transition(branch)
    metrics: dict[str, object] = {
        "kappa_1": change.kappa_1,
        "kappa_c": change.kappa_c,
        "kappa_s": change.kappa_s,
        "order_parameter": change.order_parameter,
        "continuous": change.continuous,
        "beta_star": fh.sharp_beta(case.d),
        "bifurcations": kappas.tolist(),
        "growth_rates": rates[1:].tolist(),
        "fastest_mode": fh.fastest_mode(case.beta, case.d),
    }
    if case.noise:
        metrics["states"] = {
            f"{kappa:g}": [list(s) for s in bf.states_at(branch, kappa)] for kappa in case.noise
        }
    pictures: dict[str, Any] = {"branch": branch, "transition": change}
    if case.repulsion is not None:
        a = case.repulsion.attraction
        c_1 = critical_repulsion(case.beta, case.d, a)
        metrics["c_1"] = c_1
        if case.repulsion.ratio < 1:
            state = porous_state(case.beta, case.d, case.repulsion.ratio * c_1, a)
            metrics["porous"] = {
                "order_parameter": state.m,
                "energy": state.energy,
                "support": state.support,
            }
            pictures["porous"] = state
        else:
            metrics["porous"] = {"order_parameter": 0.0, "energy": 0.0, "support": 1.0}
    if D is not None and case.landscape is not None:
        metrics["landscape"], pictures["minimiser"] = _landscape(D, case.landscape.points)
    return metrics, pictures


def _landscape(D: np.ndarray, points: int) -> tuple[dict[str, object], Any]:
    top, low = le.maximiser(D), le.minimiser_kind(D)
    values = np.linalg.eigvalsh(D)
    out: dict[str, object] = {
        "eigenvalues": values.tolist(),
        "maximiser": top.kind,
        "maximum": top.energy,
        "maximiser_proved": top.proved,
        "minimiser": low.kind,
        "minimum": low.energy,
        "antipodal_stable": le.antipodal_stable(D),
        "antipodal_hessian": le.collective_hessian(D).tolist(),
    }
    found = None
    if low.kind == "density":
        found = le.minimise_on_sphere(D, points)
        out["minimum"], out["kkt_gap"] = found.energy, found.gap
    if len(D) == 2 and values[0] > 0:
        out["four_particles_b2"] = le.four_particles(float(values[0]), float(values[1]))
        out["amplitude_2"] = (
            2 * found.moment(np.cos(2 * np.arctan2(found.points[:, 1], found.points[:, 0])))
            if found is not None
            else 0.0
        )
    return out, found


def _write(case: Case, folder: Any, metrics: dict[str, Any], pictures: dict[str, Any]) -> None:
    from fem_apps.output.files import write_whole

    b = pictures["branch"]
    lines = ["step,m,kappa,energy"]
    lines += [
        f"{i},{m!r},{k!r},{e!r}"
        for i, (m, k, e) in enumerate(
            zip(b.m.tolist(), b.kappa.tolist(), b.energy.tolist(), strict=True)
        )
    ]
    write_whole(folder / "branch.csv", ("\n".join(lines) + "\n").encode())
    if case.output.pictures:
        from fem_apps.attention.static_pictures import draw

        draw(folder, pictures)
