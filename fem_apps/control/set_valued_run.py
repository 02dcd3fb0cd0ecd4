"""A case of kind set-valued-control as a run: data, staged training, distances, closed loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fem_apps.control import set_valued_pictures as pictures
from fem_apps.control.set_valued import Case
from fem_apps.control.set_valued_data import SEED_TEST, SEED_TRAIN, Batch, Map, hausdorff, make
from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import npz, write_whole
from fem_apps.output.folder import Run
from fem_apps.output.history import History
from fem_apps.surrogates import weights
from fem_apps.surrogates.deeponet import (
    SIMONet,
    chamfer_loss,
    labelled_loss,
    linear_least_squares,
    predict,
    simonet,
)
from fem_apps.surrogates.training import fit

log = logging.getLogger(__name__)

SHORTER = 20  # random fields of half the length, of which no network has seen one

Predict = Callable[[np.ndarray], np.ndarray]


def run_case(case: Case, run: Run) -> dict[str, object]:
    """Make data, train, measure; returns the metrics. Collective; training is on rank 0.

    Raises:
        CaseError: see `Map`.
        SolveError: a convex problem or the training failed.
        Interrupted: SIGTERM or SIGINT came while training; `--restart` continues it.
    """
    with run.phase("data"):
        the_map = Map(case)
        log.info(
            "null controls: %d free direction(s), gap %.2g", the_map.set.dimension, the_map.set.gap
        )
        train = make(case, the_map, run.comm, SEED_TRAIN + 10 * case.seed, case.samples.stages[-1])
        test = make(case, the_map, run.comm, SEED_TEST + 10 * case.seed, case.samples.test)

    def rest() -> dict[str, object]:
        with run.phase("training"):
            model = _train(case, run, the_map, train)
        with run.phase("evaluation"):
            return _measure(case, run, the_map, model, train, test)

    metrics = on_rank_zero(run.comm, rest)
    if case.output.pictures:
        with run.phase("pictures"):
            on_rank_zero(run.comm, pictures.draw, run.folder, case.title or case.name)
    return metrics


def _train(case: Case, run: Run, the_map: Map, train: Batch) -> SIMONet:
    """Stage after stage on more samples, the weights going on; kept by what made them."""
    points = the_map.middle[:, None]
    labels = _labels(case, the_map, train)
    shape = case.network.model_dump(exclude={"loss", "members"})
    architecture = type(case.network).__mro__[1](**shape)
    like = simonet(jax.random.key(case.seed), train.sensors, points, train.heads, architecture)
    loss = (chamfer_loss if case.network.loss == "chamfer" else labelled_loss)(points)
    sensors = train.sensors.astype(np.float32)
    state = run.folder / "checkpoint"
    state.mkdir(exist_ok=True)

    def train_all() -> SIMONet:
        model, history = like, []
        stages = case.samples.stages
        for k, n in enumerate(stages):
            done, at = state / f"stage_{k}.npz", state / f"training_{k}.npz"
            if run.restart and done.is_file():
                model = weights.from_bytes(like, done.read_bytes())
                continue
            fitted = fit(
                model,
                loss,
                (sensors[:n], labels[:n]),
                case.training,
                case.seed + k,
                progress=lambda f, text, k=k, n=n: run.progress.update(  # type: ignore[misc]
                    (k + f) / len(stages), f"{n} samples, {text}"
                ),
                state_file=at,
                stop=lambda: run.signalled,
            )
            model = fitted.model
            write_whole(done, weights.to_bytes(model))
            history += [(n, *row) for row in fitted.history]
        with History(_alone(), run.folder / "training.csv") as rows:
            for n, step, value in history:
                rows.write({"samples": n, "step": step, "loss": value})
        return model

    key = weights.fingerprint(
        what="set-valued-control",
        sensors=train.sensors,
        labels=labels,
        points=points,
        network=case.network,
        stages=list(case.samples.stages),
        training=case.training,
        seed=case.seed,
    )
    model, path = weights.kept(like, key, train_all)
    (run.folder / "weights.txt").write_text(f"{path}\n")
    return model


def _alone() -> Any:
    from mpi4py import MPI

    return MPI.COMM_SELF


def _labels(case: Case, the_map: Map, train: Batch) -> np.ndarray:
    if case.network.loss == "labelled":
        return train.heads.astype(np.float32)
    # members of each set, evenly spread and in an order that tells nothing
    rng = np.random.default_rng([case.seed, 3])
    share = rng.uniform(size=(len(train.low), case.network.members, 1))
    share[:, :2, 0] = 0.0, 1.0  # the ends, or the hull of the heads would miss them
    share = rng.permuted(share, axis=1)
    members = train.low[:, None] + share * (train.high - train.low)[:, None]
    return members.astype(np.float32)


def _measure(
    case: Case, run: Run, the_map: Map, model: SIMONet, train: Batch, test: Batch
) -> dict[str, object]:
    points = the_map.middle[:, None]

    def network(sensors: np.ndarray) -> np.ndarray:
        out = predict(model, sensors, points)
        return out[:, None] if model.heads == 1 else out

    linear: Predict = linear_least_squares(train.sensors, train.heads)
    has_set = len(test.low) > 0
    metrics: dict[str, object] = {
        "free_directions": the_map.set.dimension,
        "set_gap": the_map.set.gap,
        "samples": len(train.sensors),
        "heads": model.heads,
    }
    arrays: dict[str, Any] = {"t": the_map.middle, "low": test.low, "high": test.high}
    unseen = _unseen(the_map)
    ways: tuple[tuple[str, Predict], ...] = (("", network), ("linear_", linear))
    for name, way in ways:
        heads = way(test.sensors)
        errors = the_map.norm(heads - test.heads) / the_map.norm(test.heads)
        metrics[f"{name}test_error"] = float(errors.mean())
        arrays[f"{name}heads"] = heads
        if has_set:
            distance = np.array(
                [
                    hausdorff(h, np.stack([a, b]), the_map.dt)
                    for h, a, b in zip(heads, test.low, test.high, strict=True)
                ]
            )
            half = the_map.norm(test.high - test.low) / 2
            relative = distance / half
            metrics[f"{name}hausdorff"] = float(relative.mean())
            metrics[f"{name}hausdorff_max"] = float(relative.max())
            arrays[f"{name}distance"] = relative
        states = [
            the_map.final(b, v)
            for b, hs in zip(test.before[: case.samples.closed_loop], heads, strict=False)
            for v in hs
        ]
        metrics[f"{name}final_state"] = float(np.mean(states))
        for label, (seen, target) in unseen.items():
            found = way(seen)
            error = the_map.norm(found - target) / np.maximum(the_map.norm(target), 1e-300)
            metrics[f"{name}error_{label}"] = float(error.mean())
    metrics["linear_baseline"] = metrics["linear_hausdorff" if has_set else "linear_test_error"]
    if not has_set:
        # of selections alone: their own distance, relative to their size
        metrics["hausdorff"] = metrics["test_error"]
    write_whole(run.folder / "test.npz", npz({**arrays, "labels": test.heads}))
    return metrics


def _unseen(the_map: Map) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Data of other distributions: (sensors, labels of the heads), a row a datum."""

    def sine(x: np.ndarray) -> np.ndarray:
        return np.sin(np.pi * (x - the_map.low) / the_map.length)

    def rough(x: np.ndarray) -> np.ndarray:
        s = (x - the_map.low) / the_map.length
        return np.where(s <= 0.5, 4 * s, 0.0)

    out = {}
    for label, y0, y1 in (("sine", sine, sine), ("rough", rough, None)):
        seen, _, least = the_map.data_of(y0, y1)
        out[label] = seen[None], the_map.members(least[None])[0]
    seen, _, least = the_map.random(SEED_TEST, 0, SHORTER, factor=0.5)
    out["shorter"] = seen, the_map.members(least)[0]
    return out
