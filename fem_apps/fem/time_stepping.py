"""Adaptive time stepping as a generator: any one-step or multistep method, any state.

The method is a function `attempt(state, dt)` that returns the new state with its error relative to
the tolerance, or raises SolveError; here are the step sizes, the output times and the cuts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field, field_validator

from fem_apps.case import Table
from fem_apps.errors import SolveError

log = logging.getLogger(__name__)

SAFETY, SHRINK, LARGEST_CUT = 0.9, 0.3, 0.25


class StepControl(Table):
    """The keys of a case's `[time]` table that choose step sizes."""

    end: float = Field(gt=0, description="final time")
    dt: float | None = Field(
        None, gt=0, description="first step; from the initial rate of change if left out"
    )
    dt_max: float | None = Field(None, gt=0, description="largest step")
    dt_min: float = Field(
        1e-14, gt=0, description="smallest step, relative to the final time; below it the run fails"
    )
    tolerance: float = Field(
        1e-3,
        ge=0,
        description="local error a step, relative, 1e-13 or more; 0: all steps have length dt",
    )
    growth: float = Field(
        2.0, gt=1, description="largest ratio of two steps that follow each other"
    )

    @field_validator("tolerance")
    @classmethod
    def _above_rounding(cls, value: float) -> float:
        if 0 < value < 1e-13:
            raise ValueError("below what rounding lets be measured; give 1e-13 or more, or 0")
        return value


class Stepped(Protocol):
    """What a state must tell."""

    @property
    def t(self) -> float:
        """The time."""


@dataclass(frozen=True)
class Attempt[S]:
    """A step that was computed: its state, error/tolerance (0 if not known), order, iterations."""

    state: S
    error: float
    order: int
    iterations: int


@dataclass(frozen=True)
class Step[S]:
    """An accepted step: number, state, length, the next length, whether its time was wanted."""

    number: int
    state: S
    dt: float
    dt_next: float
    iterations: int
    rejected: int
    at_output: bool


def march[S: Stepped](
    state: S,
    attempt: Callable[[S, float], Attempt[S]],
    control: StepControl,
    *,
    dt: float,
    outputs: Sequence[float] = (),
    number: int = 0,
) -> Iterator[Step[S]]:
    """Yield the accepted steps from `state.t` to `control.end`, hitting `outputs` exactly.

    Args:
        state: the start.
        attempt: one step of the method.
        control: step sizes and the final time.
        dt: length of the first step that is tried.
        outputs: times to hit.
        number: that of the step before the first one, for a run that continues.

    Raises:
        SolveError: the step had to be cut below `dt_min`; carries the last reason.
    """
    wanted = sorted({float(t) for t in outputs if t > state.t} | {control.end})
    longest = min(control.dt_max or np.inf, control.end)
    rejected = 0
    for goal in wanted:
        while state.t < goal:
            dt = min(dt, longest)
            left = goal - state.t
            # land on the goal; two equal steps rather than a long and a tiny one
            trial = (
                left
                if left <= dt * (1 + 1e-9)
                else (left / 2 if left < 2 * dt and control.tolerance else dt)
            )
            try:
                done = attempt(state, trial)
            except SolveError as error:
                dt = trial * LARGEST_CUT
                rejected += 1
                log.info("step %d: %s; cut to dt = %.3g", number + 1, error, dt)
                if dt < control.dt_min * control.end:
                    raise
                continue
            factor = control.growth
            if control.tolerance == 0:
                factor = 1.0 if trial == dt else dt / trial
            elif done.error > 0:
                factor = float(
                    np.clip(SAFETY * done.error ** (-1 / (done.order + 1)), SHRINK, control.growth)
                )
            if done.error > 2 and trial > control.dt_min * control.end:
                dt = trial * factor
                rejected += 1
                log.debug(
                    "step %d: error %.1f times the tolerance; cut to dt = %.3g",
                    number + 1,
                    done.error,
                    dt,
                )
                continue
            # a step shortened to hit an output time says nothing against the length before it
            dt = max(trial * factor, dt) if trial < dt and done.error <= 1 else trial * factor
            dt = min(dt, longest)
            number += 1
            state = done.state
            landed = abs(state.t - goal) <= 1e-12 * max(abs(goal), control.end)
            yield Step(number, state, trial, dt, done.iterations, rejected, landed)
            rejected = 0
            if landed:
                break


def output_times(start: float, end: float, count: int, spacing: str = "linear") -> list[float]:
    """`count` times after `start` up to `end`; "log" takes equal ratios from end/10^4 on."""
    if count < 1:
        return [end]
    if spacing == "log":
        return [start + float(t) for t in np.geomspace((end - start) * 1e-4, end - start, count)]
    return [float(t) for t in np.linspace(start, end, count + 1)[1:]]
