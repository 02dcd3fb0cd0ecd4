"""Trained baselines beside the reduced basis: POD-NN and DeepONet on the same full solutions."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fem_apps.mpi import total
from fem_apps.output.folder import Run
from fem_apps.problems.elliptic_case import DATA, Case, sample
from fem_apps.problems.elliptic_reduced import SNAPSHOT_RTOL, EllipticModel
from fem_apps.problems.elliptic_sweep import path
from fem_apps.surrogates import deeponet, pod_nn, weights
from fem_apps.surrogates.reduced_basis import Offline, pod
from fem_apps.surrogates.training import Loss, fit

TRAINING_RTOL = 1e-8  # networks are trained in float32


def train_and_test(
    case: Case, run: Run, model: EllipticModel, offline: Offline, tests: np.ndarray
) -> dict[str, Any]:
    """Errors in X relative to |u|_X of both networks over the tests. Collective.

    Raises:
        SolveError: a loss that is not finite.
        Interrupted: the run was asked to stop; the training's state is in the checkpoint folder.
    """
    table = case.trained
    assert table is not None
    space, Phi, reduced = model.D.space, offline.basis.vectors, offline.reduced()

    def solve_all(mus: np.ndarray, what: str, rtol: float = TRAINING_RTOL) -> np.ndarray:
        out, c = np.empty((len(mus), len(space.lift))), reduced.coefficients(mus)
        for done, k in enumerate(path(mus)):
            out[k] = model.solve(mus[k], Phi @ c[k], rtol)
            run.progress.update((done + 1) / len(mus), f"{what} {done + 1} of {len(mus)}")
        return out

    mus = sample(case, table.samples, [case.seed, DATA])
    U = solve_all(mus, "solution for training")
    modes, _ = pod(model, U, table.modes)
    c = total(run.comm, np.array([model.inner(u) for u in U]) @ modes.T)
    key = jax.random.key(case.seed)
    net = pod_nn.pod_nn(key, case.ranges, c, table.pod_nn)
    net = _trained(case, run, "pod_nn", net, pod_nn.loss, (mus, c))
    x = space.V.tabulate_dof_coordinates()[: len(space.lift), : space.V.mesh.geometry.dim]
    points, values = _points(run.comm, x, U, table.points, case.seed)
    operator = deeponet.deeponet(key, mus, points, values, table.deeponet)
    operator = _trained(
        case, run, "deeponet", operator, deeponet.labelled_loss(points), (mus, values)
    )
    truth = solve_all(tests, "solution for testing", SNAPSHOT_RTOL)
    predicted = {
        "pod_nn": pod_nn.predict(net, tests) @ modes,
        "deeponet": _on_mesh(operator, tests, x, space.fixed),
        "projection": total(run.comm, np.array([model.inner(u) for u in truth]) @ modes.T) @ modes,
    }
    norms = np.array([model.norm(u) for u in truth])
    out: dict[str, Any] = {"training_solutions": len(mus)}
    for name, v in predicted.items():
        errors = np.array([model.norm(a - b) for a, b in zip(v, truth, strict=True)]) / norms
        out |= {
            f"{name}_error_max": float(errors.max()),
            f"{name}_error_mean": float(errors.mean()),
        }
    return out


def _on_mesh(model: Any, mus: np.ndarray, x: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    if not len(x):
        return np.empty((len(mus), 0))
    u = np.concatenate(
        [deeponet.predict(model, mus[i : i + 16], x) for i in range(0, len(mus), 16)]
    )
    u[:, fixed] = 0.0
    return u


def _trained(case: Case, run: Run, name: str, net: Any, loss: Loss, data: Any) -> Any:
    """The trained network on every rank, from the cache if it is there."""
    assert case.trained is not None
    data = tuple(np.asarray(a, dtype=np.float32) for a in data)
    key = weights.fingerprint(
        what=name, training=case.trained, data=list(data), seed=case.seed, version=1
    )

    def train() -> Any:
        assert case.trained is not None
        return fit(
            net, loss, data, case.trained.training, case.seed,
            progress=run.progress.update, stop=lambda: run.signalled,
            state_file=run.folder / "checkpoint" / f"{name}.npz",
        ).model  # fmt: skip

    def make() -> Any:
        model, path = weights.kept(net, key, train)
        run.note(f"weights of {name}: {path.name}")
        return model

    return weights.share(run.comm, net, make)


def _points(
    comm: Any, x: np.ndarray, U: np.ndarray, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and values at up to `most` dofs, the same whatever the number of ranks."""
    x = np.concatenate(comm.allgather(x))
    order = np.lexsort(np.round(x, 9).T)
    chosen = np.random.default_rng(seed).permutation(len(x))[:most]
    at = order[np.sort(chosen)]
    values = np.concatenate([part.T for part in comm.allgather(U)])
    return x[at], values[at].T
