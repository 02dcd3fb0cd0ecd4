"""Progress on rank 0: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Any

from mpi4py import MPI

log = logging.getLogger(__name__)

# plain lines: no more often than this, in seconds
EVERY = 10.0


class Progress:
    """Shows a fraction from 0 to 1 with a short text; silent on other ranks."""

    def __init__(self, comm: MPI.Comm, *, quiet: bool = False) -> None:
        self._on = comm.rank == 0 and not quiet
        self._bar: Any = None
        self._task: Any = None
        self._begun = self._last = time.monotonic()
        self._first: float | None = None

    def update(self, fraction: float, text: str) -> None:
        """Show how far the run is."""
        if not self._on:
            return
        if self._bar is None:
            self._start(text)
        if self._first is None:
            self._first = fraction
        if self._bar:
            self._bar.update(self._task, completed=fraction, description=text)
            return
        now = time.monotonic()
        if now - self._last >= EVERY or fraction >= 1:
            self._last = now
            done = fraction - self._first
            left = (now - self._begun) * (1 - fraction) / done if done > 0 else float("nan")
            log.info("%3.0f %%  %s  (%.0f s left)", 100 * fraction, text, left)

    def _start(self, text: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = False
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(text, total=1.0)
            self._bar.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()
        self._bar = None


def terminal_handler(verbose: bool) -> logging.Handler:
    """What the package logs, on standard error: coloured on a terminal, plain elsewhere."""
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False)
    else:
        handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)
    return handler
