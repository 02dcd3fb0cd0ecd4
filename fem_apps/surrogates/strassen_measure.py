"""Errors of the network against the finite-element solution, at tests and over whole sweeps.

Parameters are shared out among the ranks for all layers but the last, whose rows are the rank's own
degrees of freedom.
"""

from __future__ import annotations

import time as clock
from dataclasses import replace
from typing import Any

import numpy as np

from fem_apps.errors import Interrupted
from fem_apps.mpi import total
from fem_apps.output.folder import Run
from fem_apps.output.history import History
from fem_apps.problems.elliptic_case import SWEEP, sample
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.problems.elliptic_sweep import sweep
from fem_apps.surrogates.reduced_basis import Offline
from fem_apps.surrogates.reduced_basis_batch import BatchSolver
from fem_apps.surrogates.reduced_basis_online import ReducedModel
from fem_apps.surrogates.strassen_case import Case
from fem_apps.surrogates.strassen_layers import Network, activate

TOGETHER = 8  # parameters that go through the network at a time


def before_last(run: Run, network: Network, mus: np.ndarray) -> tuple[np.ndarray, float]:
    """What the last layer is given, shape (n, width), and processor seconds a parameter.

    Collective.

    Raises:
        Interrupted: SIGTERM or SIGINT came.
    """
    mine = np.array_split(np.arange(len(mus)), run.comm.size)[run.comm.rank]
    hidden = network.layers[:-1]
    # the present width is the output of a network that ends before its last layer
    head = Network((*hidden[:-1], replace(hidden[-1], activation=None)))
    count = len(mine)
    # batches of one size, so that one program serves: the last one is filled up
    mine = np.append(mine, np.repeat(mine[-1:], -count % TOGETHER))
    values = np.empty((len(mine), head.outputs))
    if count:
        head.compiled(mus[mine[:TOGETHER]])  # the compiler's time does not count
    begun = clock.process_time()
    for i in range(0, count, TOGETHER):
        values[i : i + TOGETHER] = head.compiled(mus[mine[i : i + TOGETHER]])
        run.progress.update((i + TOGETHER) / len(mine), f"network, parameter {i + 1} of {count}")
        if run.signalled:
            break
    spent = clock.process_time() - begun
    if run.asked_to_stop():
        raise Interrupted("interrupted in the network; continue with --restart")
    values = np.concatenate(run.comm.allgather(values[:count]))
    return activate(values, hidden[-1].activation), spent / max(len(mine), 1)


def measure(
    run: Run,
    model: EllipticModel,
    offline: Offline,
    reduced: ReducedModel,
    network: Network,
    tests: np.ndarray,
) -> dict[str, Any]:
    """Errors in X relative to |u_h|_X at tests, each with a full solve of its own. Collective."""
    if not len(tests):
        return {"error_max": None, "error_mean": None, "network_error_max": None}
    values, seconds = before_last(run, network, tests)
    u_net = network.layers[-1].apply(values.T).T
    c = reduced.coefficients(tests)
    Phi = offline.basis.vectors
    errors, to_reduced = [], []
    for k, mu in enumerate(tests):
        u = model.solve(mu, Phi @ c[k])
        size = model.norm(u)
        errors.append(model.norm(u_net[k] - u) / size)
        to_reduced.append(model.norm(u_net[k] - Phi @ c[k]) / size)
        run.progress.update((k + 1) / len(tests), f"test {k + 1} of {len(tests)}")
        if run.asked_to_stop():
            raise Interrupted("interrupted while testing; continue with --restart")
    return {
        "error_max": float(np.max(errors)),
        "error_mean": float(np.mean(errors)),
        "network_error_max": float(np.max(to_reduced)),
        "network_seconds": seconds,
    }


def sweep_all(
    case: Case,
    run: Run,
    model: EllipticModel,
    offline: Offline,
    reduced: ReducedModel,
    network: Network,
) -> dict[str, Any]:
    """Finite elements, reduced basis and network at many parameters: `sweep.csv`. Collective.

    Errors are those to the full solution, in X relative to its norm; rates are per second of this
    rank's processor time.

    Raises:
        Interrupted: SIGTERM or SIGINT came.
    """
    assert case.sweep is not None
    D, Phi = model.D, np.ascontiguousarray(offline.basis.vectors)
    mus = sample(case, case.sweep.samples, [case.seed, SWEEP])
    online = BatchSolver(reduced)
    online.error_bound(mus[:1])  # compile
    begun = clock.process_time()
    c = online.coefficients(mus)
    bounds = online.error_bound(mus, c)
    reduced_seconds = (clock.process_time() - begun) / len(mus)
    values, network_seconds = before_last(run, network, mus)
    last = network.layers[-1]
    rows: dict[str, np.ndarray] = {}
    for q in case.quantities:
        for who in ("full", "reduced", "network"):
            rows[f"{q.name}_{who}"] = np.empty(len(mus))
    for key in ("bound", "error_reduced", "error_network"):
        rows[key] = np.empty(len(mus))
    full_seconds, begun = 0.0, clock.process_time()
    for done, (k, u) in enumerate(sweep(D, reduced, Phi, mus, case.sweep.rtol)):
        full_seconds += clock.process_time() - begun
        found = {"full": u, "reduced": Phi @ c[k], "network": last.apply(values[k][:, None])[:, 0]}
        size = model.norm(u)
        rows["bound"][k] = bounds[k] / size
        for who in ("reduced", "network"):
            rows[f"error_{who}"][k] = model.norm(found[who] - u) / size
        for who, v in found.items():
            for q, value in zip(case.quantities, total(run.comm, D.quantities @ v), strict=True):
                rows[f"{q.name}_{who}"][k] = value
        run.progress.update((done + 1) / len(mus), f"full solution {done + 1} of {len(mus)}")
        if done % 64 == 0 and run.asked_to_stop():
            raise Interrupted("interrupted while sweeping; continue with --restart")
        begun = clock.process_time()
    with History(run.comm, run.folder / "sweep.csv") as out:
        for k, mu in enumerate(mus):
            row = dict(zip(reduced.ranges, mu, strict=True))
            out.write(row | {name: v[k] for name, v in rows.items()})
    return {
        "sweep_samples": len(mus),
        "sweep_error_max": float(rows["error_network"].max()),
        "sweep_error_mean": float(rows["error_network"].mean()),
        "sweep_above_epsilon": int((rows["error_network"] > case.network.epsilon).sum()),
        "sweep_reduced_error_max": float(rows["error_reduced"].max()),
        "sweep_bound_max": float(rows["bound"].max()),
        "full_solves_per_second": len(mus) / full_seconds,
        "reduced_solves_per_second": 1 / reduced_seconds,
        "networks_per_second": 1 / network_seconds,
    }
