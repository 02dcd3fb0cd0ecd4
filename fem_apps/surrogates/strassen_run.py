"""A case of kind strassen-network as a run: basis, spectrum, network, errors in tests."""

from __future__ import annotations

import logging
from itertools import product as cartesian
from typing import Any

import numpy as np

from fem_apps import meshing
from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero, total
from fem_apps.output.files import write_whole
from fem_apps.output.folder import Run
from fem_apps.output.history import History
from fem_apps.problems.elliptic_bounds import box_bound
from fem_apps.problems.elliptic_case import TEST, sample
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.problems.elliptic_run import build_basis, set_up, store_basis
from fem_apps.surrogates.reduced_basis_online import ReducedModel, save
from fem_apps.surrogates.strassen import Shape
from fem_apps.surrogates.strassen_case import Case
from fem_apps.surrogates.strassen_file import save_network
from fem_apps.surrogates.strassen_inverse import Budget, budget, solver_network
from fem_apps.surrogates.strassen_layers import Network
from fem_apps.surrogates.strassen_measure import measure, sweep_all

log = logging.getLogger(__name__)

MOST_CORNERS = 12  # parameters up to which all corners of the box are looked at
ACCURACIES = tuple(10.0**-k for k in range(1, 11))


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Build, count, evaluate, write; returns the metrics. Collective.

    Raises:
        CaseError: theta is not affine in the parameters, loads depend on them, the basis cannot
            reach epsilon, or float64 cannot.
        Interrupted: SIGTERM or SIGINT came.
    """
    if not case.diffusion.affine:
        raise CaseError(
            f"diffusion.type = {case.diffusion.type!r} is not affine: its coefficients theta would "
            "need networks of their own; the construction takes affine ones"
        )
    with run.phase("mesh"):
        data = meshing.build(run.comm, case.mesh, case.folder)
    with run.phase("set-up"):
        D, _ = set_up(case, data)
        model = EllipticModel(D, case.reduced.product)
        theta = affine_theta(case, model)
    with run.phase("offline"):
        limit = case.network.basis_share * case.network.epsilon
        offline, bound = build_basis(
            case.model_copy(
                update={
                    "reduced": case.reduced.model_copy(
                        update={"tolerance": limit, "relative": True}
                    )
                }
            ),
            run,
            model,
        )
        if bound > limit:
            raise CaseError(
                f"reduced.size = {case.reduced.size} does not reach network.epsilon: the largest "
                f"relative bound is {bound:.3g}, and {limit:.3g} is wanted; give a larger size"
            )
        reduced = offline.reduced()
    spectrum = spectrum_bounds(case, model)
    f = reduced.loads.T @ model.theta_load(np.array([_middle(case)]))[0]
    # |u_N| >= |f| / s_max turns the relative accuracy into an absolute one
    absolute = (1 - case.network.basis_share) * case.network.epsilon
    absolute *= float(np.linalg.norm(f)) / spectrum[1]
    with run.phase("network"):
        table, chosen = compare_levels(case, reduced, theta, f, spectrum, absolute)
        shape, b = chosen
        network = build(case, reduced, theta, f, spectrum, shape, b, offline.basis.vectors)
        dense = total(run.comm, network.layers[-1].weights)
        weights = sum(layer.weights for layer in network.layers[:-1]) + dense
        log.info(
            "N = %d, products of %d x %d with %d level(s): %d layers, %.4g weights",
            reduced.size, shape.n, shape.n, shape.k, network.depth, weights,
        )  # fmt: skip
        hidden = build(case, reduced, theta, f, spectrum, shape, b, None)
        if run.comm.rank == 0:
            save(reduced, run.folder / "reduced.npz", model.functions())
            save_network(hidden, run.folder / "network.npz")
            _write_tables(case, run, reduced, theta, f, spectrum, table)
    store_basis(run.folder / "basis", D, offline.basis.vectors)
    with run.phase("test"):
        tests = sample(case, case.reduced.test, [case.seed, TEST])
        errors = measure(run, model, offline, reduced, network, tests)
    if case.sweep is not None:
        with run.phase("sweep"):
            errors |= sweep_all(case, run, model, offline, reduced, network)
    with run.phase("pictures"):
        if case.output.pictures:
            _draw(case, run, errors)
    naive = next(row for row in table if row["levels"] == 0)
    return {
        "weights": int(weights),
        "layers": network.depth,
        "neurons": int(network.neurons),
        "epsilon": case.network.epsilon,
        **errors,
        "basis_size": reduced.size,
        "matrix_size": shape.n,
        "levels": shape.k,
        "factors": b.J,
        "tents": list(b.tents),
        "network_bound": b.error / (float(np.linalg.norm(f)) / spectrum[1]),
        "basis_bound": bound,
        "spectrum": list(spectrum),
        "weights_without_basis": int(weights - dense),
        "weights_naive": int(naive["weights"]),
        "dofs": D.space.size,
    }


def _middle(case: Case) -> np.ndarray:
    return np.array([0.5 * (a + b) for a, b in case.ranges.values()])


def affine_theta(case: Case, model: EllipticModel) -> tuple[np.ndarray, np.ndarray]:
    """theta_0, shape (Q,), and T, shape (Q, P), of theta = theta_0 + T mu.

    Raises:
        CaseError: theta is not affine in mu, or the right side depends on mu.
    """
    low, high = np.array(list(case.ranges.values())).T
    P = len(low)
    corners = np.vstack([low, low + np.diag(high - low)])
    values = model.theta(corners)
    width = np.where(high > low, high - low, 1.0)
    T = (values[1:] - values[0]).T / width
    theta_0 = values[0] - T @ low
    rng = np.random.default_rng(case.seed)
    mus = rng.uniform(low, high, (32, P))
    size = np.abs(values).max()
    if np.abs(model.theta(mus) - theta_0 - mus @ T.T).max() > 1e-10 * size:
        raise CaseError(
            "theta is not affine in the parameters: it would need a network of its own; take its "
            "values for parameters"
        )
    loads = model.theta_load(mus)
    if np.abs(loads - loads[0]).max() > 1e-12 * np.abs(loads).max():
        raise CaseError("the right side depends on parameters, which this network does not take")
    return theta_0, T


def spectrum_bounds(case: Case, model: EllipticModel) -> tuple[float, float]:
    """Bounds of the spectrum of every S(mu), from bounds of a at the corners of the ranges.

    theta is affine, so the bounds of a are piecewise linear in mu: concave from below, convex from
    above, extreme at corners.

    Raises:
        CaseError: too many parameters for all corners; reaction or Robin terms in the seminorm.
    """
    ranges = list(case.ranges.values())
    if len(ranges) > MOST_CORNERS:
        raise CaseError(
            f"{len(ranges)} parameters: the spectrum is bounded at the corners of the ranges, "
            f"which is done for up to {MOST_CORNERS}"
        )
    corners = np.array(list(cartesian(*ranges)))
    low = float(model.bound(corners).min())
    theta = model.theta(corners)
    Q = model.D.fields.shape[1]
    high = float(-box_bound(*model.boxes, -theta[:, :Q]).min())
    if theta.shape[1] > Q:
        if model.product == "seminorm":
            raise CaseError(
                "with reaction or robin terms the network needs reduced.product = 'energy'"
            )
        extra = model.functions()["extra"]
        seen = [q for q, v in enumerate(extra) if v > 0]
        high = max([high, *(float((theta[:, Q + q] / extra[q]).max()) for q in seen)])
    if not low > 0:
        raise CaseError("the diffusion coefficient is not positive at a corner of the ranges")
    return low * (1 - 1e-9), high * (1 + 1e-9)


def _padded(
    reduced: ReducedModel, theta: tuple[np.ndarray, np.ndarray], f: np.ndarray, n: int, s: float
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Operators and load of size n; the new diagonal is s, which A_0 turns into zero."""
    N, Q = reduced.size, len(reduced.operators)
    if n == N:
        return theta, reduced.operators, f
    S = np.zeros((Q + 1, n, n))
    S[:Q, :N, :N] = reduced.operators
    S[Q, range(N, n), range(N, n)] = s
    grown = np.append(theta[0], 1.0), np.vstack([theta[1], np.zeros(theta[1].shape[1])])
    return grown, S, np.append(f, np.zeros(n - N))


def build(
    case: Case,
    reduced: ReducedModel,
    theta: tuple[np.ndarray, np.ndarray],
    f: np.ndarray,
    spectrum: tuple[float, float],
    shape: Shape,
    b: Budget,
    basis: np.ndarray | None,
) -> Network:
    """The network, onto the rows of the basis that are given."""
    theta, S, f = _padded(reduced, theta, f, shape.n, 0.5 * sum(spectrum))
    if basis is not None:
        basis = np.hstack([basis, np.zeros((len(basis), shape.n - basis.shape[1]))])
    net = case.network
    return solver_network(theta, S, f, basis, shape, b, spectrum, net.activation, net.form)


def compare_levels(
    case: Case,
    reduced: ReducedModel,
    theta: tuple[np.ndarray, np.ndarray],
    f: np.ndarray,
    spectrum: tuple[float, float],
    epsilon: float,
) -> tuple[list[dict[str, Any]], tuple[Shape, Budget]]:
    """Weights and layers for every number of levels, and the choice among them."""
    rows: list[dict[str, Any]] = []
    options: list[tuple[int, Shape, Budget]] = []
    k = 0
    while k == 0 or 2 ** (k - 1) < reduced.size:
        shape = Shape(k, -(-reduced.size // 2**k))
        b = budget(
            *spectrum, epsilon, shape, case.network.activation, case.network.form,
            float(np.linalg.norm(f)),
        )  # fmt: skip
        net = build(case, reduced, theta, f, spectrum, shape, b, None)
        rows.append(
            {
                "levels": k, "matrix_size": shape.n, "products": shape.products, "factors": b.J,
                "tents": max(b.tents), "layers": net.depth, "weights": net.weights,
            }
        )  # fmt: skip
        options.append((net.weights, shape, b))
        k += 1
    wanted = case.network.levels
    if wanted is not None and wanted >= k:
        raise CaseError(
            f"network.levels = {wanted}: a basis of {reduced.size} has at most {k - 1} levels"
        )
    at = wanted if wanted is not None else int(np.argmin([w for w, _, _ in options]))
    return rows, options[at][1:]


def _write_tables(
    case: Case,
    run: Run,
    reduced: ReducedModel,
    theta: tuple[np.ndarray, np.ndarray],
    f: np.ndarray,
    spectrum: tuple[float, float],
    table: list[dict[str, Any]],
) -> None:
    """`levels.csv`, and `accuracies.csv`: weights against epsilon for this basis. On rank 0."""
    from mpi4py import MPI

    with History(MPI.COMM_SELF, run.folder / "levels.csv") as out:
        for row in table:
            out.write(row)
    with History(MPI.COMM_SELF, run.folder / "accuracies.csv") as out:
        for epsilon in ACCURACIES:
            absolute = epsilon * float(np.linalg.norm(f)) / spectrum[1]
            rows, _ = compare_levels(case, reduced, theta, f, spectrum, absolute)
            best = min(rows[1:] or rows, key=lambda r: r["weights"])
            out.write(
                {
                    "epsilon": epsilon,
                    "factors": best["factors"],
                    "levels": best["levels"],
                    "layers": best["layers"],
                    "strassen": best["weights"],
                    "naive": rows[0]["weights"],
                }
            )


def _draw(case: Case, run: Run, metrics: dict[str, Any]) -> None:
    from fem_apps.output.pictures import draw
    from fem_apps.surrogates.strassen_pictures import accuracies, sweep_errors

    rates = {
        name: metrics[key]
        for name, key in (
            ("finite elements", "full_solves_per_second"),
            ("reduced basis", "reduced_solves_per_second"),
            ("network", "networks_per_second"),
        )
        if key in metrics
    }

    def write() -> None:
        write_whole(run.folder / "accuracies.png", accuracies(run.folder / "accuracies.csv"))
        if case.sweep is not None:
            write_whole(run.folder / "sweep.png", sweep_errors(run.folder / "sweep.csv", rates))

    on_rank_zero(run.comm, write)
    for note in on_rank_zero(run.comm, draw, run.folder):
        if not note.startswith("pictures of the field"):
            run.note(note)
