"""A case of kind kernel-inference as a run: data, estimate, verification, report, metrics."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from dolfinx import fem

from fem_apps import meshing
from fem_apps.errors import CaseError, SolveError
from fem_apps.fem import node_graph
from fem_apps.fem.expressions import parse
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse import interaction_kernels_functional as functional
from fem_apps.inverse.interaction_kernels import Case
from fem_apps.inverse.interaction_kernels_atoms import Atom, atoms_of
from fem_apps.inverse.interaction_kernels_data import Snapshots, observe
from fem_apps.inverse.interaction_kernels_estimate import (
    from_densities,
    from_paths,
    stop_if_asked,
)
from fem_apps.inverse.interaction_kernels_functional import Known, Setting
from fem_apps.inverse.interaction_kernels_kept import Kept
from fem_apps.inverse.interaction_kernels_metrics import finish
from fem_apps.inverse.interaction_kernels_particles import diffusion_of
from fem_apps.inverse.interaction_kernels_predict import ScalarField, predict
from fem_apps.inverse.interaction_kernels_report import Report
from fem_apps.inverse.interaction_kernels_sharpen import Estimate
from fem_apps.inverse.interaction_kernels_simulate import Data, Simulation, nodal
from fem_apps.inverse.interaction_kernels_sources import Trajectories, load
from fem_apps.inverse.interaction_kernels_sparse import refit
from fem_apps.inverse.interaction_kernels_verify import (
    Comparison,
    Flows,
    compare,
    density_points,
    pair_distances,
    restored,
)
from fem_apps.mpi import on_rank_zero
from fem_apps.output.fields import FieldWriter
from fem_apps.output.folder import Run
from fem_apps.problems.data_files import Find
from fem_apps.problems.free_energy import Diffusion
from fem_apps.problems.initial_density import field_of_file

log = logging.getLogger(__name__)


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Load, estimate, verify, report; returns the metrics. Collective.

    Raises:
        CaseError: data or keys that do not fit.
        Interrupted: SIGTERM or SIGINT came; --restart goes on.
    """
    kept = Kept(run.comm, run.folder / "checkpoint", run.restart)
    on_rank_zero(run.comm, (run.folder / "checkpoint").mkdir, exist_ok=True)
    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
        graph = node_graph.build(data.mesh, data.lattice)
    atoms = atoms_of(case.dictionary, graph.x.shape[1], _spacing(case, graph))
    known = Known(case.diffusion, _potential(case, graph, case.file))

    def told(done: float, text: str) -> None:
        run.progress.update(0.1 * done, text)
        stop_if_asked(run)

    with run.phase("data"):
        loaded = load(
            case.data,
            atoms,
            known,
            case.potential,
            data,
            graph,
            case.folder,
            case.seed,
            told,
            kept,
        )
    if loaded.particles:
        return _particles(case, run, graph, atoms, known, loaded, kept)
    rng = np.random.default_rng([case.seed, 1])
    seen = [observe(graph, d, case.observation, rng) for d in loaded.densities]
    with run.phase("estimate"):
        s = functional.set_up(
            graph,
            atoms,
            external=np.stack([_values(graph, e) for e in case.unknown.potentials], axis=1)
            if case.unknown.potentials
            else None,
            diffusion=[Diffusion(exponent=m) for m in case.unknown.diffusion],
        )
        names = column_names(atoms, case)
        found = from_densities(s, seen, known, case.solver, run, names, case.seed, kept)
    with run.phase("verification"):
        comparisons = _verify(case, run, data, s, known, loaded, seen, found, kept)
    distances = np.concatenate(
        [pair_distances(density_points(graph, d), len(d.t), case.seed) for d in seen]
    )
    report = Report(
        case, [*atoms, *loaded.extra], names, found, loaded.truth, distances, comparisons, None
    )
    if case.output.fields and comparisons:
        _write_fields(case, run, graph, comparisons[0])
    return finish(run, graph, report)


def _spacing(case: Case, graph: NodeGraph) -> float | None:
    """Typical distance of the nodes of observed densities; None for particles as such."""
    match case.data:
        case Simulation(solver="particles") | Trajectories(deposit=False):
            return None
    dim = graph.x.shape[1]
    side = graph.integral(np.ones(graph.n)) ** (1 / dim)
    return float(side / (graph.size ** (1 / dim) - 1)) * case.observation.blocks


def column_names(atoms: list[Atom], case: Case) -> list[str]:
    """Names of all columns: atoms, potentials, diffusion terms."""
    return [
        *(a.name for a in atoms),
        *(f"V: {e}" for e in case.unknown.potentials),
        *(f"diffusion({m:g})" for m in case.unknown.diffusion),
    ]


def _potential(case: Case, graph: NodeGraph, find: Find) -> np.ndarray | None:
    p = case.potential
    if p is None:
        return None
    if p.expression is not None:
        return _values(graph, p.expression)
    assert p.file is not None
    return field_of_file(graph, p.file, p.field, find)


def _values(graph: NodeGraph, text: str) -> np.ndarray:
    return np.broadcast_to(parse(text).numpy(graph.x.T), (graph.n,)).astype(float)


def _flow_potential(case: Case, found: Estimate, atoms: int) -> Any:
    """V of the forward problem: known and estimated terms in one expression."""
    from fem_apps.problems.aggregation_diffusion import Potential

    texts = [
        f"({c:.17g})*({e})"
        for c, e in zip(found.c[atoms:], case.unknown.potentials, strict=False)
        if c != 0
    ]
    if not texts:
        return case.potential
    if case.potential is not None:
        if case.potential.expression is None:
            raise CaseError("unknown.potentials together with potential.file are not supported")
        texts.append(f"({case.potential.expression})")
    return Potential(expression="+".join(texts))


def _verify(
    case: Case,
    run: Run,
    data: meshing.MeshData,
    s: Setting,
    known: Known,
    loaded: Data,
    seen: list[Snapshots],
    found: Estimate,
    kept: Kept,
) -> list[Comparison]:
    K, terms = len(s.atoms), len(case.unknown.potentials)
    sigma = found.c[K + terms :]
    diffusion = [*known.diffusion]
    for m, value in zip(case.unknown.diffusion, sigma, strict=True):
        if value > 0:
            diffusion.append(Diffusion(exponent=m, coefficient=float(value)))
        elif value < 0:
            run.note(f"the estimated coefficient of diffusion({m:g}) is {value:.3g} < 0; 0 is used")
    flows = Flows(
        data,
        Known(tuple(diffusion), known.V),
        _flow_potential(case, found, K),
        case.verify.tolerance,
        run.asked_to_stop,
    )
    c, out = np.r_[found.c[:K], np.zeros(len(loaded.extra))], []
    if loaded.extra:
        s = functional.set_up(s.graph, [*s.atoms, *loaded.extra])
    span = max(float(d.t[-1] - d.t[0]) for d in seen)
    t = _comparison_times(case, seen[0])
    for k, d in enumerate(seen):
        run.progress.update(0.7 + 0.25 * k / (len(seen) + 1), f"verification, {d.name}")
        rho0 = loaded.densities[k].rho[0] if loaded.truth is not None else d.rho[0]
        if loaded.truth is None and found.start is not None:
            rho0 = found.start[k]
        try:
            one = restored(
                kept,
                f"verify_{k + 1}",
                s.graph,
                lambda rho0=rho0, d=d, t=t: compare(  # type: ignore[misc]
                    d.name, s, flows, rho0, t, c, loaded.truth, d
                ),
            )
        except SolveError as e:
            run.note(f"{d.name}: not verified: {e}")
        else:
            out.append(one)
        stop_if_asked(run)
    if case.verify.initial is not None:
        run.progress.update(0.95, "verification, new datum")
        t = np.linspace(0, span * case.verify.horizon, case.verify.times)
        rho0 = nodal(s.graph, case.verify.initial)
        try:
            one = restored(
                kept,
                "verify_new",
                s.graph,
                lambda: compare("new datum", s, flows, rho0, t, c, loaded.truth),
            )
        except SolveError as e:
            run.note(f"new datum: not verified: {e}")
        else:
            out.append(one)
    return out


def _comparison_times(case: Case, d: Snapshots) -> np.ndarray:
    """About `verify.times` of the data's times, from 0, and as densely beyond."""
    t = d.t - d.t[0]
    kept = t[np.unique(np.linspace(0, len(t) - 1, min(case.verify.times, len(t))).astype(int))]
    if case.verify.horizon > 1:
        more = max(2, round((case.verify.horizon - 1) * len(kept)))
        kept = np.r_[kept, np.linspace(t[-1], case.verify.horizon * t[-1], more + 1)[1:]]
    return kept


def _particles(
    case: Case,
    run: Run,
    graph: NodeGraph,
    atoms: list[Atom],
    known: Known,
    loaded: Data,
    kept: Kept,
) -> dict[str, object]:
    if any(d.exponent != 1 for d in known.diffusion):
        raise CaseError("particle data have linear diffusion only: diffusion.exponent = 1")
    if case.unknown.diffusion and (case.diffusion or case.unknown.diffusion != (1.0,)):
        raise CaseError(
            "particle data: give either diffusion or unknown.diffusion = [1], whose coefficient is "
            "then found from the paths"
        )
    if case.potential is not None:
        raise CaseError("a known potential is not available for particle data; data.deposit = true")
    sigma = sum(d.coefficient for d in known.diffusion)
    if case.unknown.diffusion:
        sigma = on_rank_zero(run.comm, diffusion_of, loaded.particles)
    drifts = [ScalarField(e) for e in case.unknown.potentials]
    names = column_names(atoms, case)[: len(atoms) + len(drifts)]
    with run.phase("estimate"):
        found = from_paths(
            run.comm, atoms, loaded.particles, sigma, case.solver, run, drifts, case.seed, kept
        )
    with run.phase("verification"):
        run.progress.update(0.85, "prediction")
        K = len(atoms)
        alone = refit(found.form.A, found.form.b, range(K, K + len(drifts))).c[K:]
        prediction = predict(run.comm, atoms, found.c, drifts, sigma, loaded, alone, case.seed)

    def points(n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.permuted(loaded.particles[0].x[n], axis=0)

    distances = pair_distances(points, len(loaded.particles[0].t), case.seed)
    report = Report(
        case, [*atoms, *loaded.extra], names, found, loaded.truth, distances, [], prediction
    )
    return finish(run, graph, report)


def _write_fields(case: Case, run: Run, graph: NodeGraph, one: Comparison) -> None:
    """Densities of data, estimate and truth of the first data set, for ParaView."""
    sets = {"estimate": one.estimate, "truth": one.truth, "data": one.data}
    functions = {n: fem.Function(graph.V, name=n) for n, v in sets.items() if v is not None}
    kept = np.unique(np.linspace(0, len(one.t) - 1, case.output.frames + 1).astype(int))
    with FieldWriter(run.comm, run.folder, list(functions.values())) as fields:
        for n in kept:
            for name, u in functions.items():
                values = sets[name]
                assert values is not None
                graph.to_function(values[n], u)
            fields.write(float(one.t[n]))
        for note in fields.notes:
            log.info(note)
