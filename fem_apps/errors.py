"""Errors a user can act on. Whatever is not one of these is a bug and shows its traceback."""

from __future__ import annotations

from collections.abc import Sequence


class FemAppsError(Exception):
    """Base of all errors meant for the user; `exit_status` is the command line's."""

    exit_status = 1


class CaseError(FemAppsError):
    """The case, its mesh or its data is wrong: nothing was computed. Exit status 2."""

    exit_status = 2


class Interrupted(FemAppsError):
    """The run was asked to stop and its state is saved. Exit status 1."""


class SolveError(FemAppsError):
    """A solve failed. Exit status 1.

    Args:
        what: which solve, such as "Newton iteration of the density".
        reason: PETSc's reason or our own, such as "DIVERGED_MAX_IT".
        time: simulated time at which it failed, where there is one.
        history: residual norms, iteration by iteration.
        advice: what to try.
    """

    def __init__(
        self,
        what: str,
        reason: str,
        *,
        time: float | None = None,
        history: Sequence[float] = (),
        advice: str = "",
    ) -> None:
        self.what, self.reason, self.time, self.history, self.advice = (
            what,
            reason,
            time,
            tuple(history),
            advice,
        )
        text = f"{what} failed: {reason}"
        if time is not None:
            text += f" at t = {time:.6g}"
        if self.history:
            tail = ", ".join(f"{r:.2e}" for r in self.history[-5:])
            text += f" (last residuals {tail})"
        super().__init__(f"{text}. Try: {advice}" if advice else text)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.what, self.reason, self.time, self.history, self.advice)


def _rebuild(
    what: str, reason: str, time: float | None, history: tuple[float, ...], advice: str
) -> SolveError:
    return SolveError(what, reason, time=time, history=history, advice=advice)
