"""Training of equinox models: minibatches in `lax.scan`, resumable at any step.

Batches and noise of step k are functions of the seed and k alone, so a training that was
interrupted and continued gives the weights of one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import Interrupted, SolveError
from fem_apps.output.files import write_whole
from fem_apps.surrogates.weights import from_bytes, to_bytes

# loss(model, batch, key) -> scalar; batch: rows of the data, leading axis first
Loss = Callable[[Any, Any, jax.Array], jax.Array]


class Training(Table):
    """Keys of a case's table that say how a network is trained."""

    steps: int = Field(2000, ge=1, description="steps of the optimiser")
    batch: int = Field(32, ge=1, description="rows of the data a step")
    rate: float = Field(1e-3, gt=0, description="peak learning rate: linear warm-up, cosine decay")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps that warm up")
    decay: float = Field(0.0, ge=0, description="decoupled weight decay (AdamW)")
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient")
    average: float = Field(
        0.0, ge=0, lt=1, description="exponential moving average of the weights a step; 0: none"
    )
    minutes: float | None = Field(
        None, gt=0, description="time budget; training that reaches it ends early and says so"
    )


@dataclass(frozen=True)
class Fitted:
    """A trained model (averaged, if asked for), mean losses by chunk, and the steps done.

    Attributes:
        model: the equinox model.
        history: one row a chunk of steps: (last step, mean loss).
        steps: steps done; fewer than asked for where the time budget ended the training.
    """

    model: Any
    history: np.ndarray
    steps: int


def optimiser(control: Training) -> optax.GradientTransformation:
    """AdamW with clipped gradients, linear warm-up and cosine decay."""
    warm = int(control.warmup * control.steps)
    rate = optax.warmup_cosine_decay_schedule(
        control.rate / 25 if warm else control.rate, control.rate, warm, control.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(control.clip), optax.adamw(rate, weight_decay=control.decay)
    )


def fit(
    model: Any,
    loss: Loss,
    data: Any,
    control: Training,
    seed: int,
    *,
    chunk: int = 50,
    progress: Callable[[float, str], None] | None = None,
    state_file: Path | None = None,
    stop: Callable[[], bool] | None = None,
    save_every: float = 60.0,
    watch: Callable[[Any, int], None] | None = None,
) -> Fitted:
    """Minimise the mean of `loss` over the rows of `data`. On one rank.

    Args:
        model: equinox model to start from.
        loss: mean loss of a batch; its key is fresh every step.
        data: pytree of arrays with the rows on the leading axis.
        control: steps, batch, rates.
        seed: of the batches and of the loss's keys.
        chunk: steps compiled into one scan.
        progress: gets the fraction done and a line of text after every chunk.
        state_file: where the state is kept, every `save_every` seconds and when asked to stop;
            a file that is there is continued. Removed when the training is complete.
        stop: asked after every chunk; if true the state is saved and Interrupted is raised.
        save_every: seconds.
        watch: gets the model (averaged, if asked for) and the steps done after every chunk, before
            the state is saved: for early stopping by a validation of the caller's.

    Raises:
        SolveError: the loss is not finite any more.
        Interrupted: `stop` said so; the state is in `state_file`.
    """
    method = optimiser(control)
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    state = (weights, method.init(weights), weights)
    rows = jax.tree.leaves(data)[0].shape[0]
    root = jax.random.key(seed)
    data = jax.tree.map(jnp.asarray, data)

    def one(data: Any, carry: Any, number: jax.Array) -> tuple[Any, jax.Array]:
        weights, moments, average = carry
        key_rows, key_loss = jax.random.split(jax.random.fold_in(root, number))
        chosen = jax.random.choice(key_rows, rows, (min(control.batch, rows),), replace=False)
        batch = jax.tree.map(lambda a: a[chosen], data)
        value, gradient = eqx.filter_value_and_grad(
            lambda w: loss(eqx.combine(w, static), batch, key_loss)
        )(weights)
        change, moments = method.update(gradient, moments, weights)
        weights = eqx.apply_updates(weights, change)
        # an average that starts unbiased: short memory first, `average` in the end
        memory = jnp.minimum(control.average, (1.0 + number) / (10.0 + number))
        average = jax.tree.map(
            lambda a, w: (memory * a + (1 - memory) * w).astype(a.dtype), average, weights
        )
        return (weights, moments, average), value

    @eqx.filter_jit(donate="all-except-first")
    def many(data: Any, carry: Any, numbers: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(partial(one, data), carry, numbers)

    done = 0
    history: np.ndarray = np.full((-(-control.steps // chunk), 2), np.nan)
    if state_file is not None and state_file.is_file():
        state, history, last = from_bytes((state, history, np.zeros(1)), state_file.read_bytes())
        history, done = np.array(history), int(last[0])
    # the scan takes its carry over; the caller's model must outlive it
    state = jax.tree.map(lambda a: jnp.array(a, copy=True), state)
    begun = saved = time.monotonic()
    row = (done - 1) // chunk
    while done < control.steps:
        numbers = jnp.arange(done, min(done + chunk, control.steps))
        state, values = many(data, state, numbers)
        mean, row = float(values.mean()), done // chunk
        if not np.isfinite(mean):
            raise SolveError(
                "training",
                f"the loss is {mean}",
                history=list(history[:row, 1]),
                advice="a smaller rate, or a larger warmup",
            )
        done += len(numbers)
        history[row] = done, mean
        if progress is not None:
            progress(done / control.steps, f"training, step {done}: loss {mean:.4g}")
        if watch is not None:
            # the next scan takes these arrays over; the caller may keep what it gets
            current = jax.tree.map(jnp.copy, state[2] if control.average else state[0])
            watch(eqx.combine(current, static), done)
        now = time.monotonic()
        stopped = stop is not None and stop()
        if state_file is not None and (stopped or now - saved > save_every):
            write_whole(state_file, to_bytes((state, history, np.array([float(done)]))))
            saved = now
        if stopped:
            raise Interrupted(f"training interrupted at step {done}; continue with --restart")
        if control.minutes is not None and now - begun > 60 * control.minutes:
            break
    if state_file is not None:
        state_file.unlink(missing_ok=True)
    weights, _, average = state
    return Fitted(
        eqx.combine(average if control.average else weights, static), history[: row + 1], done
    )
